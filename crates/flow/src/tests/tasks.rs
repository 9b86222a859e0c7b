//! Tasks: exactly what was signed, once, by someone who may order it.

use portcullis_model::statement::SignedCommand;
use portcullis_model::task::Budgets;
use portcullis_model::{Actor, Principal, Task, TaskId};

use super::world::*;

fn refused(world: &World, task: &Task) -> String {
    world.refused(human(task.signer.as_str()), world.accepted(task))
}

#[test]
fn one_byte_altered_is_another_task() {
    let mut world = World::team();
    let task = world.task();
    let good = world.accepted(&task);
    let mut payload = good.clone();
    payload.payload.budgets = Budgets::default();
    let mut name = good.clone();
    name.task = TaskId(digest("another"));
    let mut envelope = good.clone();
    envelope.envelope.payload = envelope.envelope.payload.replace('A', "B");
    let mut kind = good.clone();
    kind.envelope.payload_type = SignedCommand::PAYLOAD_TYPE.to_owned();
    for body in [payload, name, kind] {
        assert_eq!(world.refused(human("dan"), body), "task-altered");
    }
    assert_ne!(envelope, good);
    assert!(world.clone().record(human("dan"), envelope).is_err());
    // The signer is who signed, by a key.
    assert_eq!(world.refused(human("ada"), good.clone()), "task-altered");
    let unsigned = Actor::unsigned(Principal::Human(id("dan")));
    assert_eq!(world.refused(unsigned, good.clone()), "task-altered");
    assert_eq!(world.refused(control(), good.clone()), "not-a-human");
    world.must(human("dan"), good);
}

#[test]
fn a_nonce_counts_once() {
    let mut world = World::team();
    let task = world.task();
    world.accept(&task);
    assert_eq!(refused(&world, &task), "task-known");
    let mut twin = world.task();
    twin.text = digest("another text");
    twin.nonce.clone_from(&task.nonce);
    assert_eq!(refused(&world, &twin), "nonce-replayed");
}

#[test]
fn a_signer_needs_the_right_to_task_that_agent() {
    let mut world = World::team();
    // Owner, administrator, member of a group that may.
    for signer in ["dan", "ada", "eve"] {
        let mut task = world.task();
        task.signer = id(signer);
        world.accept(&task);
    }
    let mut task = world.task();
    task.signer = id("flo");
    assert_eq!(refused(&world, &task), "signer-not-allowed");
    task.signer = id("zed");
    assert_eq!(refused(&world, &task), "human-unknown");
    let mut task = world.task();
    task.agent = id("stranger");
    assert_eq!(refused(&world, &task), "agent-unknown");
}

#[test]
fn a_task_counts_within_its_window_and_on_its_ledger_alone() {
    let mut world = World::team();
    let mut early = world.task();
    early.not_before = world.now.plus_ms(1);
    assert_eq!(refused(&world, &early), "task-too-early");
    let mut elsewhere = world.task();
    elsewhere.origin = "ledger.example/other".into();
    assert_eq!(refused(&world, &elsewhere), "wrong-ledger");
    let task = world.task();
    world.later(DAY_MS);
    assert_eq!(refused(&world, &task), "task-expired");
}

#[test]
fn a_task_that_is_malformed_is_refused() {
    let mut world = World::team();
    let mut long = world.task();
    long.expires = long.not_before.plus_ms(31 * DAY_MS);
    let mut nowhere = world.task();
    nowhere.targets.clear();
    let mut twice = world.task();
    twice.targets.push(twice.targets[0].clone());
    let mut outside = world.task();
    outside.targets[0].scope.allow = vec!["../x".into()];
    let mut later = world.task();
    later.version = 2;
    for (task, what) in [
        (long, "task-window"),
        (nowhere, "task-target-list"),
        (twice, "task-target-list"),
        (outside, "path-pattern"),
        (later, "task-version"),
    ] {
        assert_eq!(refused(&world, &task), format!("malformed-{what}"));
    }
}

#[test]
fn an_expired_agent_takes_no_task() {
    let mut world = World::team();
    world.now = portcullis_model::Timestamp::from_ms(1_900_000_000_000);
    let task = world.task();
    assert_eq!(refused(&world, &task), "agent-expired");
}
