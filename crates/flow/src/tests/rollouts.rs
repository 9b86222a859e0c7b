//! Rollouts: step by step, by the newest epoch, never past a pause.

use portcullis_model::event::{
    Effect, EffectIntended, EffectOutcome, RolloutOutcome, RolloutStepped, Step,
};
use portcullis_model::statement::Command;
use portcullis_model::{ReleaseId, RolloutId};

use super::world::*;
use crate::rollout::RolloutStatus;
use crate::work::{Work, plan};

/// A canary of an agent's work, started and at weight 0, over a release that serves.
fn canary() -> (World, ReleaseId, RolloutId) {
    let mut world = World::team();
    let artifact = world.build(&base());
    world.serve(artifact, "staging");
    world.landed(1);
    let artifact = world.build(&oid(1));
    let release = world.admit(artifact, "staging");
    let rollout = world.roll(release);
    (world, release, rollout)
}

#[test]
fn an_agents_work_goes_by_canary() {
    let mut world = World::team();
    let artifact = world.build(&base());
    world.serve(artifact, "staging");
    world.landed(1);
    let artifact = world.build(&oid(1));
    let release = world.admit(artifact, "staging");
    let mut body = world.rollout(release);
    body.canary = false;
    assert_eq!(world.refused(control(), body), "canary-needed");
}

#[test]
fn a_rollout_begins_where_the_environment_stands() {
    let mut world = World::team();
    let artifact = world.build(&base());
    let release = world.admit(artifact, "staging");
    let good = world.rollout(release);
    let mut epoch = good.clone();
    epoch.epoch += 1;
    let mut stable = good.clone();
    stable.stable = Some(release);
    let mut environment = good.clone();
    environment.environment = id("production");
    for body in [epoch, stable, environment] {
        assert_eq!(world.refused(control(), body), "environment-moved");
    }
    assert_eq!(world.refused(human("ada"), good.clone()), "not-a-service");
    world.must(control(), good.clone());
    assert_eq!(world.refused(control(), good), "environment-moved");
    let again = world.admission(artifact, "staging", None);
    assert_eq!(world.refused(control(), again), "rollout-under-way");
}

#[test]
fn a_canary_takes_its_steps_one_by_one() {
    let (mut world, _, rollout) = canary();
    for weight in [51, 250, 1000, 1001, 0] {
        let body = world.step(rollout, Step::Advance, weight);
        assert_eq!(world.refused(control(), body), "stale-step", "{weight}");
    }
    world.advance(rollout, 50);
    for weight in [50, 49, 251, 1000] {
        let body = world.step(rollout, Step::Advance, weight);
        assert_eq!(world.refused(control(), body), "stale-step", "{weight}");
    }
    let mut stale = world.step(rollout, Step::Advance, 250);
    stale.epoch -= 1;
    assert_eq!(world.refused(control(), stale), "stale-step");
    let mut sideways = world.step(rollout, Step::Hold, 250);
    sideways.weight = 250;
    assert_eq!(world.refused(control(), sideways), "stale-step");
    world.advance(rollout, 250);
}

#[test]
fn the_proxy_gets_only_the_newest_epoch() {
    let (mut world, _, rollout) = canary();
    world.advance(rollout, 50);
    let known = world.state.rollouts[&rollout].clone();
    let set = |epoch, weight| EffectIntended {
        effect: Effect::SetTraffic {
            rollout,
            epoch,
            weight,
        },
        decision: None,
    };
    assert_eq!(
        world.refused(control(), set(known.epoch, 999)),
        "stale-epoch"
    );
    assert_eq!(
        world.refused(control(), set(known.epoch + 1, 50)),
        "stale-epoch"
    );
    let body = world.step(rollout, Step::Advance, 250);
    world.must(control(), body);
    assert_eq!(
        world.refused(control(), set(known.epoch, 50)),
        "stale-epoch"
    );
    assert!(!world.state.rollouts[&rollout].applied);
}

#[test]
fn it_completes_only_with_all_traffic_applied() {
    let (mut world, release, rollout) = canary();
    let done = world.end_rollout(rollout, RolloutOutcome::Completed);
    for weight in [50, 250, 500] {
        world.advance(rollout, weight);
        assert_eq!(world.refused(control(), done.clone()), "not-complete");
    }
    let body = world.step(rollout, Step::Advance, 1000);
    world.must(control(), body);
    assert_eq!(world.refused(control(), done.clone()), "not-complete");
    let known = world.state.rollouts[&rollout].clone();
    let body = EffectIntended {
        effect: Effect::SetTraffic {
            rollout,
            epoch: known.epoch,
            weight: 1000,
        },
        decision: None,
    };
    let effect = world.must(control(), body);
    world.conclude(effect, EffectOutcome::Done);
    assert_eq!(world.refused(human("ada"), done.clone()), "not-a-service");
    world.must(control(), done.clone());
    assert_eq!(
        world.state.environments[&id::<portcullis_model::EnvironmentId>("staging")].stable,
        Some(release)
    );
    assert_eq!(world.refused(control(), done), "rollout-over");
    let late = world.step(rollout, Step::Hold, 1000);
    assert_eq!(world.refused(control(), late), "rollout-over");
}

fn by_person(world: &mut World, rollout: RolloutId, step: Step) -> RolloutStepped {
    let why = digest("why");
    let command = match step {
        Step::Pause => Command::PauseRollout { rollout, why },
        _ => Command::ResumeRollout { rollout, why },
    };
    let envelope = world.command(&human("flo"), command);
    let weight = world.state.rollouts[&rollout].weight;
    RolloutStepped {
        envelope: Some(envelope),
        ..world.step(rollout, step, weight)
    }
}

#[test]
fn only_people_pause_and_resume_and_nothing_moves_meanwhile() {
    let (mut world, _, rollout) = canary();
    world.advance(rollout, 50);
    let alone = world.step(rollout, Step::Pause, 50);
    assert_eq!(world.refused(control(), alone), "not-a-human");
    let mut turned = by_person(&mut world, rollout, Step::Resume);
    turned.step = Step::Pause;
    assert_eq!(world.refused(human("flo"), turned), "command-mismatch");
    let mut moving = by_person(&mut world, rollout, Step::Pause);
    moving.step = Step::Advance;
    moving.weight = 250;
    moving.epoch += 1;
    assert_eq!(world.refused(human("flo"), moving), "command-mismatch");
    let pause = by_person(&mut world, rollout, Step::Pause);
    world.must(human("flo"), pause);
    assert_eq!(world.state.rollouts[&rollout].status, RolloutStatus::Paused);
    let advance = world.step(rollout, Step::Advance, 250);
    assert_eq!(world.refused(control(), advance.clone()), "stale-step");
    assert!(!plan(&world.state, world.now).contains(&Work::Look(rollout)));
    let resume = by_person(&mut world, rollout, Step::Resume);
    world.must(human("flo"), resume);
    world.must(control(), advance);
}

#[test]
fn going_back_is_always_possible_and_leaves_stable_serving() {
    let (mut world, release, rollout) = canary();
    let stable = world.state.environments[&id::<portcullis_model::EnvironmentId>("staging")].stable;
    world.advance(rollout, 50);
    let back = world.end_rollout(rollout, RolloutOutcome::RolledBack);
    let run = *world.state.runs.keys().next().unwrap();
    assert_eq!(world.refused(in_run(run), back.clone()), "not-a-service");
    let why = digest("why");
    let command = Command::AbortRollout { rollout, why };
    let mut by_person = back.clone();
    by_person.envelope = Some(world.command(&human("flo"), command));
    assert_eq!(
        world.refused(human("dan"), by_person.clone()),
        "wrong-actor"
    );
    let mut onward = by_person.clone();
    onward.outcome = RolloutOutcome::Completed;
    assert_eq!(world.refused(human("flo"), onward), "not-a-human-s");
    world.clone().must(human("flo"), by_person);
    world.must(control(), back);
    let running = &world.state.environments[&id::<portcullis_model::EnvironmentId>("staging")];
    assert_eq!((running.stable, running.rollout), (stable, None));
    assert!(!world.state.releases[&release].completed);
}

#[test]
fn a_release_that_serves_is_not_stopped() {
    let mut world = World::team();
    let artifact = world.build(&base());
    let release = world.serve(artifact, "staging");
    let stop = EffectIntended {
        effect: Effect::StopRelease { release },
        decision: None,
    };
    assert_eq!(world.refused(control(), stop), "release-serving");
}

#[test]
fn a_process_that_did_not_start_is_known() {
    let (mut world, release, rollout) = canary();
    assert!(plan(&world.state, world.now).contains(&Work::StartRelease(rollout)));
    let body = EffectIntended {
        effect: Effect::StartRelease { release },
        decision: None,
    };
    let effect = world.must(control(), body.clone());
    assert_eq!(world.refused(control(), body), "effect-under-way");
    assert!(!plan(&world.state, world.now).contains(&Work::StartRelease(rollout)));
    world.conclude(effect, EffectOutcome::Failed);
    assert!(world.state.releases[&release].start_failed);
    assert!(!plan(&world.state, world.now).contains(&Work::StartRelease(rollout)));
}
