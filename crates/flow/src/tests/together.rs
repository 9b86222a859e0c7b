//! Changes of one task that land together or not at all, and every way in which that can fail.

use portcullis_model::event::{
    Effect, EffectAttempted, EffectConcluded, EffectIntended, EffectOutcome,
};
use portcullis_model::manifest::{Agent, Repository};
use portcullis_model::task::Target;
use portcullis_model::{
    Body, ChangeId, GitOid, LedgerIndex, RepositoryId, RequestId, RunId, Scope, TaskId,
};

use super::world::*;
use crate::Command;
use crate::approval::Status;
use crate::change::ChangeStatus;
use crate::effect::LANDING_FAILED;
use crate::together::{APART, members};
use crate::work::{Work, plan};

const PLACES: [&str; 2] = ["shop", "web"];

/// A world of two repositories, and a run under a task whose changes land together.
fn world() -> (World, TaskId, RunId) {
    let mut genesis = genesis();
    genesis.repositories.push(Repository {
        id: id("web"),
        upstream: "web.git".into(),
        ..repository_record()
    });
    genesis.agents = vec![Agent {
        repositories: [id("shop"), id("web")].into(),
        ..agent_record("fixer")
    }];
    let mut world = World::from(genesis).unwrap();
    let mut task = world.task();
    task.together = true;
    task.targets = PLACES
        .iter()
        .map(|name| Target {
            repository: id(name),
            branch: "main".into(),
            base: base(),
            scope: Scope::over(&["src/**".into()]),
        })
        .collect();
    let id = world.accept(&task);
    let run = world.run_of(&task);
    (world, id, run)
}

fn push_to(world: &mut World, run: RunId, place: &str, head: u64) -> ChangeId {
    let mut body = world.pushed(&in_run(run), Some(run), None, head);
    body.repository = id(place);
    ChangeId(world.must(in_run(run), body))
}

/// A change in each repository, each asked about and approved.
fn approved(world: &mut World, run: RunId) -> [(ChangeId, RequestId); 2] {
    PLACES.map(|place| {
        let head = if place == "shop" { 1 } else { 2 };
        let change = push_to(world, run, place, head);
        world.ready(change);
        let request = world.ask(change);
        world.approve("ada", request).unwrap();
        (change, request)
    })
}

fn intent(world: &World, task: TaskId, (change, request): (ChangeId, RequestId)) -> EffectIntended {
    let mut body = world.landing(change, Some(request));
    if let Effect::Land { together, .. } = &mut body.effect {
        *together = Some(task);
    }
    body
}

/// Records the intents of both in one batch; gives their effects.
fn intend(world: &mut World, task: TaskId, both: [(ChangeId, RequestId); 2]) -> [LedgerIndex; 2] {
    let bodies: Vec<Body> = both
        .iter()
        .map(|one| intent(world, task, *one).into())
        .collect();
    let first = world.state.size();
    world.take(&Command::of(control(), bodies));
    [first, first + 1]
}

fn end(effect: LedgerIndex, outcome: EffectOutcome) -> EffectConcluded {
    EffectConcluded {
        effect,
        outcome,
        code: None,
    }
}

fn back(world: &World, landing: LedgerIndex) -> EffectIntended {
    let joint = world.state.together.values().next().unwrap();
    let part = joint.parts.iter().find(|part| part.effect == landing);
    let part = part.unwrap();
    EffectIntended {
        effect: Effect::TakeBack {
            landing,
            change: part.change,
            repository: part.repository.clone(),
            branch: part.branch.clone(),
            from: part.new.clone(),
            to: part.old.clone(),
        },
        decision: None,
    }
}

fn tips(world: &World) -> [GitOid; 2] {
    PLACES.map(|place| {
        let key: (RepositoryId, String) = (id(place), "main".into());
        let branch = &world.state.branches[&key];
        assert_eq!(branch.tip, branch.segments.last().unwrap().to);
        branch.tip.clone()
    })
}

fn busy(world: &World) -> bool {
    let mut branches = world.state.branches.values();
    branches.any(|branch| branch.landing.is_some())
}

fn work(world: &World) -> Vec<Work> {
    plan(&world.state, world.now)
}

#[test]
fn both_land_or_wait_for_each_other() {
    let (mut world, task, run) = world();
    let shop = push_to(&mut world, run, "shop", 1);
    world.ready(shop);
    let request = world.ask(shop);
    world.approve("ada", request).unwrap();
    // One alone never lands, neither by the plan nor by an intent of its own.
    let waits = |world: &World| {
        !work(world)
            .iter()
            .any(|one| matches!(one, Work::Land(..) | Work::LandTogether(_)))
    };
    assert!(waits(&world));
    let alone = world.landing(shop, Some(request));
    assert_eq!(world.refused(control(), alone), "lands-together");
    let web = push_to(&mut world, run, "web", 2);
    world.ready(web);
    let asked = world.ask(web);
    assert!(waits(&world));
    world.approve("ada", asked).unwrap();
    assert!(work(&world).contains(&Work::LandTogether(task)));

    let both = [(shop, request), (web, asked)];
    let [one, two] = intend(&mut world, task, both);
    // One after the other, in order, and nobody is done who was not tried.
    assert_eq!(
        world.refused(
            control(),
            EffectAttempted {
                effect: two,
                attempt: 1
            }
        ),
        "together-not-now"
    );
    let early = end(one, EffectOutcome::Done);
    assert_eq!(world.refused(control(), early), "attempts");
    let effects = |world: &World| -> Vec<Work> {
        let work = work(world).into_iter();
        work.filter(|one| matches!(one, Work::Effect(_))).collect()
    };
    assert_eq!(effects(&world), [Work::Effect(one)]);
    world.conclude(one, EffectOutcome::Done);
    // Half of it is nothing yet: no branch moved, no change landed, nobody gets in between.
    assert_eq!(tips(&world), [base(), base()]);
    assert!(busy(&world));
    assert_eq!(world.state.changes[&shop].status, ChangeStatus::Open);
    let again = world.pushed(&in_run(run), Some(run), Some(shop), 9);
    assert_eq!(world.refused(in_run(run), again), "change-landing");
    assert!(
        !work(&world)
            .iter()
            .any(|one| matches!(one, Work::TakeBack(_)))
    );
    assert_eq!(effects(&world), [Work::Effect(two)]);
    world.conclude(two, EffectOutcome::Done);
    assert_eq!(tips(&world), [oid(1), oid(2)]);
    assert!(!busy(&world) && world.state.together.is_empty());
    for (change, request) in both {
        let status = &world.state.changes[&change].status;
        assert!(matches!(status, ChangeStatus::Landed { .. }), "{status:?}");
        assert_eq!(world.state.requests[&request].status, Status::Used);
    }
}

#[test]
fn intents_come_together_in_the_order_of_the_task_and_name_it() {
    let (mut world, task, run) = world();
    let both = approved(&mut world, run);
    let web = intent(&world, task, both[1]);
    assert_eq!(world.refused(control(), web.clone()), "together-order");
    let mut other = intent(&world, task, both[0]);
    if let Effect::Land { together, .. } = &mut other.effect {
        *together = Some(TaskId(digest("another task")));
    }
    assert_eq!(world.refused(control(), other), "lands-together");
    let first = intent(&world, task, both[0]);
    let one = world.must(control(), first);
    // Not whole: nothing is tried, and it ends as if nothing had been.
    let attempt = EffectAttempted {
        effect: one,
        attempt: 1,
    };
    assert_eq!(world.refused(control(), attempt), "together-not-now");
    world.now = world.now.plus_ms(1);
    world.must(control(), end(one, EffectOutcome::Failed));
    assert!(world.state.together.is_empty() && !busy(&world));
    // A person's own change is of no task, and can't be said to be of one.
    let own = world.push_by("flo", 7);
    world.ready(own);
    let mut body = world.landing(own, None);
    if let Effect::Land { together, .. } = &mut body.effect {
        *together = Some(task);
    }
    assert_eq!(world.refused(control(), body), "not-together");
}

#[test]
fn a_gap_between_the_intents_is_refused() {
    let (mut world, task, run) = world();
    let both = approved(&mut world, run);
    let first = intent(&world, task, both[0]);
    world.must(control(), first);
    let between = world.push_by("flo", 7);
    world.ready(between);
    let second = intent(&world, task, both[1]);
    assert_eq!(world.refused(control(), second), "together-order");
}

#[test]
fn what_moved_is_taken_back_when_another_fails() {
    let (mut world, task, run) = world();
    let both = approved(&mut world, run);
    let [one, two] = intend(&mut world, task, both);
    world.conclude(one, EffectOutcome::Done);
    // Nothing is taken back as long as all may still land.
    let early = back(&world, one);
    assert_eq!(world.refused(control(), early), "not-to-take-back");
    world.conclude(two, EffectOutcome::Failed);
    assert_eq!(tips(&world), [base(), base()]);
    assert!(busy(&world), "the first still stands upstream");
    assert!(work(&world).contains(&Work::TakeBack(one)));
    let good = back(&world, one);
    for part in 0..4 {
        let mut bad = good.clone();
        if let Effect::TakeBack {
            landing,
            from,
            to,
            branch,
            ..
        } = &mut bad.effect
        {
            match part {
                0 => *landing = two,
                1 => *from = oid(9),
                2 => *to = oid(9),
                _ => "other".clone_into(branch),
            }
        }
        assert_eq!(world.refused(control(), bad), "not-to-take-back");
    }
    assert_eq!(world.refused(human("flo"), good.clone()), "not-a-service");
    let taking = world.must(control(), good.clone());
    assert_eq!(world.refused(control(), good), "effect-under-way");
    assert!(work(&world).contains(&Work::Effect(taking)));
    assert!(!work(&world).contains(&Work::TakeBack(one)));
    world.conclude(taking, EffectOutcome::Done);
    assert!(!busy(&world) && world.state.together.is_empty());
    assert!(world.state.halted_queues.is_empty());
    assert_eq!(tips(&world), [base(), base()]);
    // People are asked again about each: nothing lands on the old word.
    for (change, request) in both {
        assert_eq!(world.state.changes[&change].status, ChangeStatus::Open);
        let Status::Withdrawn { code } = &world.state.requests[&request].status else {
            panic!("withdrawn");
        };
        assert_eq!(code, LANDING_FAILED);
        assert!(work(&world).contains(&Work::DecideLanding(change, 1)));
    }
    let again = both.map(|(change, _)| {
        let request = world.ask(change);
        world.approve("ada", request).unwrap();
        (change, request)
    });
    assert!(work(&world).contains(&Work::LandTogether(task)));
    let [one, two] = intend(&mut world, task, again);
    world.conclude(one, EffectOutcome::Done);
    world.conclude(two, EffectOutcome::Done);
    assert_eq!(tips(&world), [oid(1), oid(2)]);
}

#[test]
fn when_the_first_fails_the_second_is_not_tried() {
    let (mut world, task, run) = world();
    let both = approved(&mut world, run);
    let [one, two] = intend(&mut world, task, both);
    world.conclude(one, EffectOutcome::Failed);
    let attempt = EffectAttempted {
        effect: two,
        attempt: 1,
    };
    assert_eq!(world.refused(control(), attempt), "together-not-now");
    assert!(work(&world).contains(&Work::Effect(two)));
    let effect = &world.state.effects[&two].effect;
    assert!(crate::together::is_spoilt(&world.state, effect));
    world.must(control(), end(two, EffectOutcome::Failed));
    assert!(!busy(&world) && world.state.together.is_empty());
    assert!(world.state.halted_queues.is_empty());
}

/// Both queues are halted, no change counts as landed, and each branch stands where it was known
/// to stand: what moved past that is for people.
fn check_apart(world: &World, both: [(ChangeId, RequestId); 2]) {
    assert!(!busy(world) && world.state.together.is_empty());
    assert_eq!(tips(world), [base(), base()]);
    for (place, (change, _)) in PLACES.iter().zip(both) {
        let halt = &world.state.halted_queues[&(id(place), "main".to_owned())];
        assert_eq!((halt.code.as_str(), halt.change), (APART, change));
        assert_eq!(world.state.changes[&change].status, ChangeStatus::Open);
    }
    assert!(!work(world).iter().any(|one| matches!(
        one,
        Work::Land(..) | Work::LandTogether(_) | Work::DecideLanding(..) | Work::TakeBack(_)
    )));
}

#[test]
fn what_can_not_be_taken_back_halts_both_queues() {
    for outcome in [EffectOutcome::Failed, EffectOutcome::Unknown] {
        let (mut world, task, run) = world();
        let both = approved(&mut world, run);
        let [one, two] = intend(&mut world, task, both);
        world.conclude(one, EffectOutcome::Done);
        world.conclude(two, EffectOutcome::Failed);
        let body = back(&world, one);
        let taking = world.must(control(), body);
        let known = world.state.effects[&taking].clone();
        assert!(crate::together::comes_apart(&known, outcome));
        world.conclude(taking, outcome);
        check_apart(&world, both);
    }
}

#[test]
fn what_nobody_knows_halts_both_queues_and_is_not_taken_back() {
    let (mut world, task, run) = world();
    let both = approved(&mut world, run);
    let [one, two] = intend(&mut world, task, both);
    world.conclude(one, EffectOutcome::Done);
    world.conclude(two, EffectOutcome::Unknown);
    check_apart(&world, both);
    let body = EffectIntended {
        effect: Effect::TakeBack {
            landing: one,
            change: both[0].0,
            repository: id("shop"),
            branch: "main".into(),
            from: oid(1),
            to: base(),
        },
        decision: None,
    };
    assert_eq!(world.refused(control(), body), "not-to-take-back");
}

#[test]
fn a_task_has_one_change_in_each_repository_and_its_runs_share_it() {
    let (mut world, task, run) = world();
    let shop = push_to(&mut world, run, "shop", 1);
    let second = world.pushed(&in_run(run), Some(run), None, 3);
    assert_eq!(
        world.refused(in_run(run), second),
        "one-change-per-repository"
    );
    let payload = world.state.tasks[&task].payload.clone();
    let other = world.run_of(&payload);
    let revision = world.pushed(&in_run(other), Some(other), Some(shop), 3);
    world.must(in_run(other), revision);
    // A person's push does not set it free.
    let mut own = world.pushed(&human("dan"), None, Some(shop), 4);
    own.envelope = Some(envelope("application/x-push", b"push".to_vec()));
    world.must(human("dan"), own);
    let found: Vec<_> = members(&world.state, task, &payload)
        .into_iter()
        .map(|change| change.map(|change| change.id))
        .collect();
    assert_eq!(found, [Some(shop), None]);
    world.ready(shop);
    let request = world.ask(shop);
    world.approve("ada", request).unwrap();
    let alone = world.landing(shop, Some(request));
    assert_eq!(world.refused(control(), alone), "lands-together");
}

#[test]
fn one_repository_alone_is_nothing_to_land_together() {
    let mut world = World::team();
    let mut task = world.task();
    task.together = true;
    assert!(task.validate().is_err());
    task.together = false;
    let text = serde_json::to_string(&task).unwrap();
    assert!(!text.contains("together"), "as tasks always were: {text}");
}
