//! Landing: exactly what was approved, on the branch where it stands, once.

use portcullis_model::event::{
    CheckVerdict, Effect, EffectAttempted, EffectConcluded, EffectIntended, EffectOutcome,
    TestVerdict,
};
use portcullis_model::manifest::{Activation, Sensitivity};
use portcullis_model::{KeyClass, Mode, RequestId};

use super::world::*;
use crate::change::ChangeStatus;
use crate::effect::ATTEMPTS_MAX;
use crate::work::{Work, plan};

#[test]
fn a_change_lands_with_its_approvals_and_the_branch_says_why_it_moved() {
    let mut world = World::team();
    let change = world.landed(1);
    assert_eq!(world.tip(), oid(1));
    let branch = &world.state.branches[&main_branch()];
    assert_eq!(
        branch.segments.last().unwrap().proof,
        crate::change::SegmentProof::Landed(change)
    );
    assert!(matches!(
        world.state.changes[&change].status,
        ChangeStatus::Landed { .. }
    ));
    assert!(world.state.effects.is_empty());
}

#[test]
fn without_its_approvals_nothing_lands() {
    let mut world = World::team();
    let run = world.run();
    let change = world.push(run, 1);
    world.ready(change);
    let request = world.ask(change);
    let body = world.landing(change, Some(request));
    assert_eq!(world.refused(control(), body), "approval-missing");
    let other = world.push_by("flo", 2);
    world.ready(other);
    let foreign = world.ask(other);
    world.approve("ada", foreign).unwrap();
    let body = world.landing(change, Some(foreign));
    assert_eq!(world.refused(control(), body), "statement-mismatch");
}

#[test]
fn blocked_or_untested_content_does_not_land_whoever_approved_it() {
    for (checks, tests) in [
        (Some(CheckVerdict::Block), Some(TestVerdict::NotConfigured)),
        (Some(CheckVerdict::Pass), Some(TestVerdict::Failed)),
        (Some(CheckVerdict::Pass), Some(TestVerdict::Missing)),
        (None, Some(TestVerdict::NotConfigured)),
        (Some(CheckVerdict::Pass), None),
    ] {
        let mut world = World::team();
        let change = world.push_by("flo", 1);
        if let Some(verdict) = checks {
            let body = world.checks(change, verdict);
            world.must(control(), body);
        }
        if let Some(verdict) = tests {
            let body = world.tests(change, verdict);
            world.must(control(), body);
        }
        let request = (checks.is_some() && tests.is_some()).then(|| {
            let request = world.ask(change);
            world.approve("ada", request).unwrap();
            request
        });
        let body = world.landing(change, request);
        assert_eq!(
            world.refused(control(), body),
            "not-landable",
            "{checks:?} {tests:?}"
        );
    }
}

#[test]
fn observed_repositories_record_what_would_have_been_denied_and_say_so() {
    let mut world = World::team();
    let mut watched = repository_record();
    watched.mode = Mode::Observe;
    world.activate(&Activation::Repository(watched));
    let change = world.push_by("flo", 1);
    let body = world.checks(change, CheckVerdict::Block);
    world.must(control(), body);
    let body = world.landing(change, None);
    world.must(control(), body);
    assert_eq!(world.log.last().unwrap().mode, Mode::Observe);
}

#[test]
fn what_lands_is_what_was_pushed() {
    let mut world = World::team();
    let change = world.push_by("flo", 1);
    world.ready(change);
    let good = world.landing(change, None);
    let mut altered = Vec::new();
    for part in 0..5 {
        let mut body = good.clone();
        if let Effect::Land {
            new,
            tree,
            old,
            branch,
            revision,
            ..
        } = &mut body.effect
        {
            match part {
                0 => *new = oid(0x777),
                1 => *tree = oid(0x777),
                2 => *old = oid(0x777),
                3 => *branch = "other".into(),
                _ => *revision = 2,
            }
        }
        altered.push(body);
    }
    for body in altered {
        assert_eq!(world.refused(control(), body), "revision-superseded");
    }
    let mut undecided = good.clone();
    undecided.decision = None;
    assert_eq!(world.refused(control(), undecided), "decision-missing");
    let mut stale = good.clone();
    stale.decision.as_mut().unwrap().policy = digest("another policy");
    assert_eq!(world.refused(control(), stale), "policy-changed");
    let mut ahead = good.clone();
    ahead.decision.as_mut().unwrap().at = world.state.size() + 1;
    assert_eq!(world.refused(control(), ahead), "policy-changed");
    assert_eq!(world.refused(human("flo"), good.clone()), "not-a-service");
    world.must(control(), good.clone());
    assert_eq!(world.refused(control(), good), "effect-under-way");
}

#[test]
fn of_two_changes_that_race_one_lands_and_the_other_is_told() {
    let mut world = World::team();
    let (one, two) = (world.push_by("flo", 1), world.push_by("eve", 2));
    let requests: Vec<RequestId> = [one, two]
        .into_iter()
        .map(|change| {
            world.ready(change);
            let request = world.ask(change);
            world.approve("ada", request).unwrap();
            request
        })
        .collect();
    let first = world.landing(one, Some(requests[0]));
    let second = world.landing(two, Some(requests[1]));
    let effect = world.must(control(), first);
    assert_eq!(world.refused(control(), second.clone()), "base-moved");
    world.conclude(effect, EffectOutcome::Done);
    assert_eq!(world.refused(control(), second), "base-moved");
    let work = plan(&world.state, world.now);
    assert!(work.contains(&Work::Withdraw(requests[1], "base-moved")));
    assert!(!work.iter().any(|work| matches!(work, Work::Land(..))));
}

#[test]
fn a_change_that_is_landing_takes_no_new_revision() {
    let mut world = World::team();
    let run = world.run();
    let change = world.push(run, 1);
    world.ready(change);
    let body = world.landing(change, None);
    world.must(control(), body);
    let push = world.pushed(&in_run(run), Some(run), Some(change), 2);
    assert_eq!(world.refused(in_run(run), push), "change-landing");
}

#[test]
fn attempts_are_counted_one_by_one_up_to_a_bound() {
    let mut world = World::team();
    let change = world.push_by("flo", 1);
    world.ready(change);
    let body = world.landing(change, None);
    let effect = world.must(control(), body);
    let attempt = |attempt| EffectAttempted { effect, attempt };
    assert_eq!(world.refused(control(), attempt(2)), "attempts");
    assert_eq!(world.refused(human("flo"), attempt(1)), "not-a-service");
    for number in 1..=ATTEMPTS_MAX {
        world.must(control(), attempt(number));
        assert_eq!(world.refused(control(), attempt(number)), "attempts");
    }
    assert_eq!(
        world.refused(control(), attempt(ATTEMPTS_MAX + 1)),
        "attempts"
    );
    // A restart finds it in the plan.
    assert!(plan(&world.state, world.now).contains(&Work::Effect(effect)));
}

#[test]
fn an_effect_that_failed_changes_nothing_and_one_that_ended_is_over() {
    let mut world = World::team();
    let change = world.push_by("flo", 1);
    world.ready(change);
    let body = world.landing(change, None);
    let effect = world.must(control(), body);
    world.conclude(effect, EffectOutcome::Failed);
    assert_eq!(world.tip(), base());
    assert_eq!(world.state.changes[&change].status, ChangeStatus::Open);
    assert_eq!(world.state.branches[&main_branch()].landing, None);
    let again = EffectConcluded {
        effect,
        outcome: EffectOutcome::Done,
        code: None,
    };
    assert_eq!(world.refused(control(), again), "effect-not-found");
}

fn deploying(sensitivity: Sensitivity) -> World {
    let mut genesis = genesis();
    let live = environment_record("live", sensitivity, 8003);
    genesis.environments.push(live);
    genesis.repositories[0].deploys_on_landing = Some(id("live"));
    World::from(genesis).unwrap()
}

#[test]
fn landing_where_it_deploys_takes_productions_rule() {
    let mut world = deploying(Sensitivity::Production);
    let change = world.push_by("flo", 1);
    world.ready(change);
    let body = world.landing(change, None);
    assert_eq!(world.refused(control(), body), "production-needs-a-human");
    // Nor may the request take less than production's key class, or no human at all.
    let mut weak = world.opened(change);
    weak.needed.key_class = KeyClass::Software;
    assert_eq!(world.refused(control(), weak.clone()), "request-too-weak");
    weak.needed.key_class = KeyClass::Presence;
    weak.needed.humans = 0;
    assert_eq!(world.refused(control(), weak.clone()), "request-too-weak");
    weak.needed.humans = 1;
    let request = RequestId(world.must(control(), weak));
    world.approve("ada", request).unwrap();
    world.land(change, Some(request));

    let mut world = deploying(Sensitivity::Staging);
    let change = world.push_by("flo", 1);
    world.ready(change);
    world.land(change, None);
}

#[test]
fn the_production_rule_holds_in_every_mode() {
    let mut world = deploying(Sensitivity::Production);
    let mut watched = repository_record();
    watched.deploys_on_landing = Some(id("live"));
    watched.mode = Mode::Observe;
    world.activate(&Activation::Repository(watched));
    let change = world.push_by("flo", 1);
    world.ready(change);
    let body = world.landing(change, None);
    assert_eq!(world.refused(control(), body), "production-needs-a-human");
}

#[test]
fn an_approval_is_used_up_by_its_landing() {
    let mut world = World::team();
    let change = world.landed(1);
    let request = world.state.changes[&change].latest().request.unwrap();
    assert_eq!(
        world.state.requests[&request].status,
        crate::approval::Status::Used
    );
    let body = EffectIntended {
        effect: Effect::Land {
            change,
            revision: 1,
            repository: id("shop"),
            branch: "main".into(),
            old: base(),
            new: oid(1),
            tree: oid(0x10_001),
            request: Some(request),
            prepared: None,
            together: None,
        },
        decision: Some(world.decision()),
    };
    assert_eq!(world.refused(control(), body), "revision-superseded");
}

#[test]
fn a_branch_is_not_taken_as_moved_past_us_while_a_landing_moves_it() {
    let mut world = World::team();
    let change = world.push_by("flo", 1);
    world.ready(change);
    let request = world.ask(change);
    world.approve("ada", request).unwrap();
    let body = world.landing(change, Some(request));
    let effect = world.must(control(), body);
    let moved = portcullis_model::event::CommitsUnproven {
        repository: id("shop"),
        branch: "main".into(),
        from: Some(world.tip()),
        to: oid(1),
        commits: 1,
    };
    assert_eq!(world.refused(control(), moved), "branch-moved");
    world.conclude(effect, EffectOutcome::Done);
    assert_eq!(world.tip(), oid(1));
}

#[test]
fn a_no_while_it_lands_keeps_no_outcome_from_being_recorded() {
    for outcome in [
        EffectOutcome::Done,
        EffectOutcome::Failed,
        EffectOutcome::Unknown,
    ] {
        let mut world = World::team();
        let change = world.push_by("flo", 1);
        world.ready(change);
        let request = world.ask(change);
        world.approve("ada", request).unwrap();
        let body = world.landing(change, Some(request));
        let effect = world.must(control(), body);
        let why = digest("why");
        let no = portcullis_model::statement::Command::Reject { request, why };
        let envelope = world.command(&human("bob"), no);
        let body = portcullis_model::event::RequestRejected {
            request,
            why,
            envelope,
        };
        world.must(human("bob"), body);
        world.conclude(effect, outcome);
        assert!(world.state.effects.is_empty());
    }
}
