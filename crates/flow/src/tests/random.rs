//! Random sequences over every stage: whatever is tried, the fold refuses or takes it, never
//! panics, and stays itself.

use std::sync::Arc;

use portcullis_model::event::{
    BreakerTripped, CheckVerdict, CommitsUnproven, EffectConcluded, EffectOutcome, Ended, JobKind,
    RolloutOutcome, RunEnd, RunEnded, Step, TestVerdict,
};
use portcullis_model::statement::BreakerScope;
use portcullis_model::{Actor, Body, Event, Fold as _, Principal, RunId};
use proptest::prelude::*;

use super::world::*;
use crate::State;
use crate::entities::{Ends, Entities};
use crate::work::plan;

/// What is tried, with a number that picks who or what.
#[derive(Clone, Copy, Debug)]
enum Try {
    Run,
    Push,
    PushOn,
    PushByPerson,
    Check,
    Test,
    Ask,
    Approve,
    Land,
    Conclude,
    EndRun,
    Moved,
    Job,
    Claim,
    Admit,
    Roll,
    Advance,
    EndRollout,
    Trip,
    End,
    Later,
    Replay,
}

fn tries() -> impl Strategy<Value = Vec<(Try, usize)>> {
    let one = prop::sample::select(vec![
        Try::Run,
        Try::Push,
        Try::PushOn,
        Try::PushByPerson,
        Try::Check,
        Try::Test,
        Try::Ask,
        Try::Approve,
        Try::Land,
        Try::Conclude,
        Try::EndRun,
        Try::Moved,
        Try::Job,
        Try::Claim,
        Try::Admit,
        Try::Roll,
        Try::Advance,
        Try::EndRollout,
        Try::Trip,
        Try::End,
        Try::Later,
        Try::Replay,
    ]);
    prop::collection::vec((one, 0..64_usize), 1..60)
}

fn pick<T: Copy>(things: impl Iterator<Item = T>, which: usize) -> Option<T> {
    let things: Vec<T> = things.collect();
    things.get(which % things.len().max(1)).copied()
}

/// Tries it; what is refused is refused.
fn attempt(world: &mut World, what: Try, n: usize) -> Option<()> {
    let head = 0x1000 + u64::try_from(world.log.len()).unwrap_or(0);
    let people = ["ada", "bob", "dan", "eve", "flo", "zed"];
    let person = people[n % people.len()];
    let actors = [
        control(),
        human(person),
        service("builder"),
        Actor::unsigned(Principal::Unknown),
    ];
    // Mostly the right one, sometimes another.
    let actor = actors[if n % 7 == 6 { n % actors.len() } else { 0 }].clone();
    let run = pick(world.state.runs.keys().copied(), n);
    let change = pick(world.state.changes.keys().copied(), n);
    let body: Body = match what {
        Try::Run => {
            let mut task = world.task();
            task.signer = id(person);
            let accepted = world.accepted(&task);
            let _ = world.record(human(person), accepted);
            let start = world.start(&task, "laptop", &[]);
            let _ = world.record(host("laptop"), start);
            return None;
        }
        Try::Push | Try::PushOn => {
            let run = run?;
            let on = change.filter(|_| matches!(what, Try::PushOn));
            let body = world.pushed(&in_run(run), Some(run), on, head);
            let _ = world.record(in_run(run), body);
            return None;
        }
        Try::PushByPerson => {
            let mut body = world.pushed(&human(person), None, None, head);
            body.envelope = Some(envelope("application/x-push", vec![]));
            let _ = world.record(human(person), body);
            return None;
        }
        Try::Check => {
            let verdicts = [
                CheckVerdict::Pass,
                CheckVerdict::Escalate,
                CheckVerdict::Block,
            ];
            world.checks(change?, verdicts[n % 3]).into()
        }
        Try::Test => {
            let verdicts = [
                TestVerdict::NotConfigured,
                TestVerdict::Failed,
                TestVerdict::Passed,
            ];
            world.tests(change?, verdicts[n % 3]).into()
        }
        Try::Ask => world.opened(change?).into(),
        Try::Approve => {
            let request = pick(world.state.requests.keys().copied(), n)?;
            let _ = world.approve(person, request);
            return None;
        }
        Try::Land => {
            let change = change?;
            let request = world.state.changes[&change].latest().request;
            world.landing(change, request).into()
        }
        Try::Conclude => {
            let outcomes = [
                EffectOutcome::Done,
                EffectOutcome::Failed,
                EffectOutcome::Unknown,
            ];
            EffectConcluded {
                effect: pick(world.state.effects.keys().copied(), n)?,
                outcome: outcomes[n % 3],
                code: None,
            }
            .into()
        }
        Try::EndRun => RunEnded {
            run: run.unwrap_or(RunId(0)),
            end: RunEnd::Lost,
            envelope: None,
        }
        .into(),
        Try::Moved => CommitsUnproven {
            repository: id("shop"),
            branch: "main".into(),
            from: Some(world.tip()),
            to: oid(head),
            commits: 1,
        }
        .into(),
        Try::Job => {
            let tip = world.tip();
            world.job(JobKind::Build, &tip, &tip);
            return None;
        }
        Try::Claim => {
            let job = pick(world.state.jobs.keys().copied(), n)?;
            let commit = world.state.jobs[&job].commit.clone();
            let _ = world.claim("builder", job);
            let finished =
                world.finished("builder", job, !n.is_multiple_of(5), vec![output(&commit)]);
            let _ = world.record(service("builder"), finished);
            built(job, &commit, output(&commit)).into()
        }
        Try::Admit => {
            let artifact = pick(world.state.artifacts.keys().copied(), n)?;
            let environment = ["staging", "production"][n % 2];
            world.admission(artifact, environment, None).into()
        }
        Try::Roll => {
            let release = pick(world.state.releases.keys().copied(), n)?;
            world.rollout(release).into()
        }
        Try::Advance => {
            let rollout = pick(world.state.rollouts.keys().copied(), n)?;
            let weight = [50, 250, 500, 1000][n % 4];
            world.step(rollout, Step::Advance, weight).into()
        }
        Try::EndRollout => {
            let rollout = pick(world.state.rollouts.keys().copied(), n)?;
            let outcomes = [RolloutOutcome::RolledBack, RolloutOutcome::Completed];
            world.end_rollout(rollout, outcomes[n % 2]).into()
        }
        Try::Trip => BreakerTripped {
            scope: [BreakerScope::Everywhere, BreakerScope::Agent(id("fixer"))][n % 2].clone(),
            why: digest("why"),
            revert: false,
            envelope: None,
        }
        .into(),
        Try::End => {
            if n.is_multiple_of(8) {
                super::inventory::end(world, "ada", Ended::AgentSuspended(id("fixer")));
            }
            return None;
        }
        Try::Later => {
            world.later(u64::try_from(n).unwrap_or(0) * 600_000);
            return None;
        }
        Try::Replay => {
            // Any old entry again, with its signatures, at the end of the ledger.
            let old = &world.log[n % world.log.len()];
            let (actor, body) = (old.actor.clone(), old.body.clone());
            let _ = world.record(actor, body);
            return None;
        }
    };
    let _ = world.record(actor, body);
    None
}

fn folded(log: &[Event]) -> State {
    let mut state = State::empty();
    for event in log {
        state.apply(event).unwrap();
    }
    state
}

/// What a plan looks at is all that is not over.
fn only_what_is_over_is_left_out(state: &State) {
    fn told<K: Ord + Clone, V: Ends + Clone>(all: &Entities<K, V>) {
        let open = all.values().filter(|entity| !entity.is_over());
        assert!(open.map(Arc::as_ptr).eq(all.open().map(Arc::as_ptr)));
    }
    told(&state.runs);
    told(&state.changes);
    told(&state.jobs);
    told(&state.requests);
    told(&state.releases);
    told(&state.rollouts);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_tried_the_fold_is_total_and_the_invariants_hold(tries in tries()) {
        let mut world = World::team();
        for (what, n) in tries {
            attempt(&mut world, what, n);
            // The plan is a function of state and time, and names only what exists.
            only_what_is_over_is_left_out(&world.state);
            let work = plan(&world.state, world.now);
            prop_assert_eq!(&work, &plan(&world.state, world.now));
        }
        // The same entries give the same state, entry by entry.
        prop_assert_eq!(format!("{:?}", folded(&world.log)), format!("{:?}", world.state));

        // A snapshot from anywhere on the way, read back, goes on to the same state.
        for at in [world.log.len() / 2, world.log.len()] {
            let bytes = folded(&world.log[..at]).to_snapshot().unwrap();
            let mut state = State::from_snapshot(&bytes).unwrap();
            prop_assert_eq!(state.to_snapshot().unwrap(), bytes);
            for event in &world.log[at..] {
                state.apply(event).unwrap();
            }
            prop_assert_eq!(format!("{state:?}"), format!("{:?}", world.state));
            only_what_is_over_is_left_out(&state);
        }

        // Nobody of its party approved anything.
        for request in world.state.requests.values() {
            prop_assert!(!request.self_approved());
            for approval in &request.approvals {
                prop_assert!(!request.party.includes(&approval.human));
            }
        }
        // A branch moved by landings and by what came past us, link by link.
        for branch in world.state.branches.values() {
            for (before, after) in branch.segments.iter().zip(branch.segments.iter().skip(1)) {
                prop_assert_eq!(Some(&before.to), after.from.as_ref());
            }
            prop_assert_eq!(&branch.segments.last().unwrap().to, &branch.tip);
        }
        // Nothing reached production without a human.
        for release in world.state.releases.values() {
            prop_assert!(release.environment != id("production") || release.request.is_some());
        }
        // No run that hangs on a suspended agent goes on.
        let fixer = &world.state.inventory.agents[&id::<portcullis_model::AgentId>("fixer")];
        if fixer.standing != crate::inventory::Standing::Active {
            for run in world.state.runs.values() {
                prop_assert!(run.end.is_some());
            }
        }
    }

    #[test]
    fn bytes_that_are_no_entry_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(State::decode(1, &bytes).is_err());
    }

    #[test]
    fn an_entry_with_one_byte_changed_is_another_entry_or_none(at in 0..5_000_usize, bit in 0..8_u8) {
        let world = World::team();
        let event = &world.log[0];
        let mut bytes = State::encode(event).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(other) = State::decode(0, &bytes) {
            prop_assert_ne!(&other, event);
        }
    }

    #[test]
    fn a_snapshot_that_is_damaged_or_cut_off_makes_nothing_panic(at in any::<usize>(), bit in 0..8_u8) {
        let whole = World::team().state.to_snapshot().unwrap();
        let at = at % whole.len();
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << bit;
        // What a flipped bit leaves valid is told apart by the digest that is kept beside it.
        let _ = State::from_snapshot(&bytes);
        prop_assert!(State::from_snapshot(&whole[..at]).is_err());
        bytes.clone_from(&whole);
        bytes.insert(1, b',');
        prop_assert!(State::from_snapshot(&bytes).is_err());
    }
}
