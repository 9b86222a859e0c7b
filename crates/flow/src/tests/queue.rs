//! The queue: the same diff on a later base, tested as it lands, in order, halted when in doubt.

use std::collections::BTreeSet;

use portcullis_model::event::{
    CheckVerdict, Effect, EffectIntended, EffectOutcome, JobKind, LandingMethod, LandingPrepared,
    LandingTested, QueueHalted, QueueResumed, TestCounts, TestVerdict,
};
use portcullis_model::statement::{Carry, Command};
use portcullis_model::{ChangeId, Fold as _, GitOid, LedgerIndex, RequestId};

use super::world::*;
use crate::approval::Status;
use crate::change::ChangeStatus;
use crate::queue::TESTS_FAILED;
use crate::work::{Work, plan};

/// A person's change, asked about and approved with this carry.
fn approved(world: &mut World, head: u64, carry: Carry) -> (ChangeId, RequestId) {
    let change = world.push_by("flo", head);
    world.ready(change);
    let request = world.ask(change);
    let mut statement = world.statement("ada", request);
    statement.carry = carry;
    world.must(human("ada"), approval(statement));
    (change, request)
}

/// What would land of a change, by number.
fn made(world: &World, change: ChangeId, base: &GitOid, root: &GitOid, n: u64) -> LandingPrepared {
    let revision = world.state.changes[&change].latest();
    LandingPrepared {
        change,
        revision: revision.number,
        method: LandingMethod::Rebase,
        root: root.clone(),
        base: base.clone(),
        head: oid(n),
        tree: oid(n + 0x10_000),
        manifest: revision.pushed.manifest,
        commits: vec![oid(n)],
        batch: 1,
    }
}

fn tested(change: ChangeId, prepared: LedgerIndex, verdict: TestVerdict) -> LandingTested {
    LandingTested {
        change,
        prepared,
        with: None,
        own: true,
        tests: verdict,
        head: None,
        base: None,
        counts: TestCounts::default(),
        report: digest("report"),
        checks: CheckVerdict::Pass,
        escalations: BTreeSet::new(),
        findings: digest("findings"),
    }
}

fn landing_of(world: &World, change: ChangeId) -> EffectIntended {
    let revision = world.state.changes[&change].latest();
    let prepared = revision.prepared.as_ref().unwrap();
    let mut body = world.landing(change, revision.request);
    let Effect::Land {
        old,
        new,
        tree,
        prepared: entry,
        ..
    } = &mut body.effect
    else {
        panic!("a landing");
    };
    old.clone_from(&prepared.made.base);
    new.clone_from(&prepared.made.head);
    tree.clone_from(&prepared.made.tree);
    *entry = Some(prepared.entry);
    body
}

/// Does everything that the plan says of queues; every commit fails that holds the culprit's.
/// Returns how many commits were tested.
fn settle(world: &mut World, batch: u32, culprit: Option<ChangeId>) -> usize {
    let mut spoilt: BTreeSet<GitOid> = BTreeSet::new();
    let mut next = 0x5000;
    let mut runs = 0;
    for _ in 0..400 {
        let work = plan(&world.state, world.now).into_iter().find(|work| {
            matches!(
                work,
                Work::Prepare(..) | Work::TestPrepared(..) | Work::LandPrepared(..)
            )
        });
        match work {
            None => return runs,
            Some(Work::Prepare(change, _, onto, root)) => {
                next += 1;
                let mut body = made(world, change, &onto, &root, next);
                body.batch = batch;
                if Some(change) == culprit || spoilt.contains(&onto) {
                    spoilt.insert(body.head.clone());
                }
                world.must(control(), body);
            }
            Some(Work::LandPrepared(change, ..)) => {
                let body = landing_of(world, change);
                let effect = world.must(control(), body);
                world.conclude(effect, EffectOutcome::Done);
            }
            Some(Work::TestPrepared(entry, with)) => {
                runs += usize::from(test(world, entry, with, &spoilt));
            }
            Some(other) => panic!("{other:?}"),
        }
    }
    panic!("the queue does not come to rest");
}

/// Tests what `entry` prepared by what runs on what `with` prepared; whether it had to run.
fn test(
    world: &mut World,
    entry: LedgerIndex,
    with: LedgerIndex,
    spoilt: &BTreeSet<GitOid>,
) -> bool {
    let find = |entry: LedgerIndex| {
        let mut changes = world.state.changes.values();
        let found = changes.find(|change| {
            let prepared = change.latest().prepared.as_ref();
            prepared.is_some_and(|one| one.entry == entry)
        });
        found.cloned().unwrap()
    };
    let (front, last) = (find(entry), find(with));
    let prepared = last.latest().prepared.clone().unwrap();
    let (head, root) = (prepared.made.head.clone(), prepared.made.root.clone());
    let good = !spoilt.contains(&head);
    let known = crate::queue::jobs(&world.state, &last, &prepared);
    let ran = known.is_none();
    let (head_job, base_job) = match known {
        Some(jobs) => (jobs.head, jobs.base),
        None => {
            let base = world.test_job(&root, &root, true);
            (world.test_job(&head, &root, good), base)
        }
    };
    let said = match good {
        true => TestVerdict::Passed,
        false => TestVerdict::Failed,
    };
    let body = LandingTested {
        with: (entry != with).then_some(with),
        own: entry == with && in_front(world, entry),
        head: Some(head_job),
        base: Some(base_job),
        counts: TestCounts {
            failed: u64::from(!good),
            ..TestCounts::default()
        },
        ..tested(front.id, entry, said)
    };
    world.must(control(), body);
    ran
}

fn in_front(world: &World, entry: LedgerIndex) -> bool {
    let key = main_branch();
    let line = crate::queue::line(&world.state, &key, &world.state.branches[&key], world.now);
    line.places
        .iter()
        .take_while(|place| place.prepared.entry == entry || place.prepared.passed())
        .any(|place| place.prepared.entry == entry)
}

#[test]
fn an_approval_moves_to_a_later_base_only_where_it_says_so_and_everything_ran_again() {
    let mut world = World::team();
    let (exact, exact_request) = approved(&mut world, 1, Carry::Exact);
    let (carried, request) = approved(&mut world, 2, Carry::SameDiff);
    let old_base = world.tip();
    world.landed(3);
    let tip = world.tip();
    // Exact: asked anew, and nothing prepared of it lands.
    let work = plan(&world.state, world.now);
    assert!(work.contains(&Work::Withdraw(exact_request, "base-moved")));
    assert!(work.contains(&Work::Prepare(carried, 1, tip.clone(), tip.clone())));
    assert!(
        !work
            .iter()
            .any(|work| matches!(work, Work::Withdraw(id, _) if *id == request))
    );
    let body = made(&world, exact, &tip, &tip, 0x41);
    world.must(control(), body);
    let entry = world.state.changes[&exact]
        .latest()
        .prepared
        .as_ref()
        .unwrap()
        .entry;
    world.must(control(), tested(exact, entry, TestVerdict::NotConfigured));
    assert_eq!(
        world.refused(control(), landing_of(&world, exact)),
        "approval-exact"
    );
    // Same diff: another diff, tree on the same base, or a base that is none are refused.
    let good = made(&world, carried, &tip, &tip, 0x42);
    let mut other = good.clone();
    other.manifest = digest("another diff");
    assert_eq!(world.refused(control(), other), "not-the-same-diff");
    let mut stale = good.clone();
    stale.base = old_base.clone();
    assert_eq!(world.refused(control(), stale), "landing-mismatch");
    let mut nowhere = good.clone();
    nowhere.base = oid(0x99);
    assert_eq!(world.refused(control(), nowhere), "base-moved");
    let mut unlisted = good.clone();
    unlisted.commits = vec![oid(0x43)];
    assert_eq!(
        world.refused(control(), unlisted),
        "malformed-landing.prepared"
    );
    assert_eq!(world.refused(human("ada"), good.clone()), "not-a-service");
    let entry = world.must(control(), good);
    // Not before checks and tests ran again, nor with what they did not say before.
    assert_eq!(
        world.refused(control(), landing_of(&world, carried)),
        "not-landable"
    );
    let mut more = tested(carried, entry, TestVerdict::NotConfigured);
    more.checks = CheckVerdict::Escalate;
    more.escalations = BTreeSet::from(["new-rule".to_owned()]);
    assert_eq!(world.refused(control(), more), "tests-inconsistent");
    let claimed = tested(carried, entry, TestVerdict::Passed);
    assert_eq!(world.refused(control(), claimed), "tests-inconsistent");
    let elsewhere = world.test_job(&oid(0x77), &tip, true);
    let mut foreign = tested(carried, entry, TestVerdict::Passed);
    (foreign.head, foreign.base) = (Some(elsewhere), Some(elsewhere));
    assert_eq!(world.refused(control(), foreign), "tests-of-something-else");
    world.must(
        control(),
        tested(carried, entry, TestVerdict::NotConfigured),
    );
    // What was pushed does not land on the old base any more, and only what was prepared does.
    let pushed = world.landing(carried, Some(request));
    assert_eq!(world.refused(control(), pushed), "base-moved");
    let mut altered = landing_of(&world, carried);
    if let Effect::Land { tree, .. } = &mut altered.effect {
        *tree = oid(0x7777);
    }
    assert_eq!(world.refused(control(), altered), "revision-superseded");
    let effect = world.must(control(), landing_of(&world, carried));
    world.conclude(effect, EffectOutcome::Done);
    assert_eq!(world.tip(), oid(0x42));
    assert_eq!(world.state.requests[&request].status, Status::Used);
    // Whoever proposes the landed commit again brings its people along.
    assert_eq!(world.state.proposed.get(&oid(0x42)), Some(&carried));
}

#[test]
fn the_queue_lands_in_order_each_tested_on_what_is_before_it() {
    let mut world = World::team();
    let changes: Vec<ChangeId> = (1..=4)
        .map(|head| approved(&mut world, head, Carry::SameDiff).0)
        .collect();
    // The branch moves under all of them.
    world.landed(9);
    let runs = settle(&mut world, 1, None);
    assert_eq!(runs, 4, "each is tested as it lands");
    for change in &changes {
        let landed = &world.state.changes[change].status;
        assert!(matches!(landed, ChangeStatus::Landed { .. }), "{landed:?}");
    }
    let segments: Vec<_> = world.state.branches[&main_branch()]
        .segments
        .iter()
        .rev()
        .take(4)
        .map(|segment| segment.proof.clone())
        .collect();
    let expected: Vec<_> = changes
        .iter()
        .rev()
        .map(|change| crate::change::SegmentProof::Landed(*change))
        .collect();
    assert_eq!(segments, expected);
}

#[test]
fn one_run_stands_for_a_batch_and_a_batch_that_fails_is_halved_down_to_the_culprit() {
    for batch in [1, 2, 3, 4, 8] {
        for culprit in 0..5 {
            let mut world = World::team();
            let changes: Vec<(ChangeId, RequestId)> = (1..=5)
                .map(|head| approved(&mut world, head, Carry::SameDiff))
                .collect();
            world.landed(9);
            let bad = changes[culprit].0;
            let runs = settle(&mut world, batch, Some(bad));
            for (n, (change, request)) in changes.iter().enumerate() {
                let seen = &world.state.changes[change];
                let landed = matches!(seen.status, ChangeStatus::Landed { .. });
                assert_eq!(
                    landed,
                    n != culprit,
                    "batch {batch}, culprit {culprit}, {n}"
                );
                if n == culprit {
                    let out = Status::Withdrawn {
                        code: TESTS_FAILED.to_owned(),
                    };
                    assert_eq!(world.state.requests[request].status, out);
                }
            }
            assert!(runs <= 12, "batch {batch}, culprit {culprit}: {runs} runs");
        }
        let mut world = World::team();
        for head in 1..=4 {
            approved(&mut world, head, Carry::SameDiff);
        }
        world.landed(9);
        let runs = settle(&mut world, batch, None);
        assert_eq!(runs, 4_usize.div_ceil(batch as usize), "batch {batch}");
    }
}

#[test]
fn tests_of_what_is_not_behind_it_say_nothing() {
    let mut world = World::team();
    let (one, _) = approved(&mut world, 1, Carry::SameDiff);
    let (two, _) = approved(&mut world, 2, Carry::SameDiff);
    world.landed(9);
    let tip = world.tip();
    let first = world.must(control(), made(&world, one, &tip, &tip, 0x51));
    let second = world.must(control(), made(&world, two, &tip, &tip, 0x52));
    let base = world.test_job(&tip, &tip, true);
    let head = world.test_job(&oid(0x52), &tip, true);
    let mut body = tested(one, first, TestVerdict::Passed);
    body.with = Some(second);
    (body.head, body.base) = (Some(head), Some(base));
    assert_eq!(
        world.refused(control(), body.clone()),
        "tests-of-something-else"
    );
    let second = world.must(control(), made(&world, two, &oid(0x51), &tip, 0x53));
    let head = world.test_job(&oid(0x53), &tip, true);
    body.with = Some(second);
    body.head = Some(head);
    world.must(control(), body);
    let build = world.job(JobKind::Build, &tip, &tip);
    let mut wrong = tested(two, second, TestVerdict::Passed);
    (wrong.head, wrong.base) = (Some(build), Some(base));
    assert_eq!(world.refused(control(), wrong), "tests-of-something-else");
}

#[test]
fn a_halted_queue_lands_nothing_until_a_person_lets_it_go_on() {
    let mut world = World::team();
    let (change, request) = approved(&mut world, 1, Carry::SameDiff);
    let halt = QueueHalted {
        repository: id("shop"),
        branch: "main".into(),
        change,
        code: "landing-mismatch".into(),
        expected: oid(1).to_string(),
        found: oid(2).to_string(),
    };
    assert_eq!(world.refused(human("ada"), halt.clone()), "not-a-service");
    world.must(control(), halt.clone());
    assert_eq!(world.refused(control(), halt), "queue-halted");
    let body = world.landing(change, Some(request));
    assert_eq!(world.refused(control(), body.clone()), "queue-halted");
    // What halts it outlives a restart from a snapshot, and so does what is prepared.
    let bytes = world.state.to_snapshot().unwrap();
    let again = crate::State::from_snapshot(&bytes).unwrap();
    assert_eq!(again.to_snapshot().unwrap(), bytes);
    assert!(again.halted_queues.contains_key(&main_branch()));
    let lands = |world: &World| {
        plan(&world.state, world.now)
            .iter()
            .any(|work| matches!(work, Work::Land(..) | Work::DecideLanding(..)))
    };
    assert!(!lands(&world));
    let why = digest("looked at it");
    let order = Command::ResumeQueue {
        repository: id("shop"),
        branch: "main".into(),
        why,
    };
    let envelope = world.command(&human("ada"), order);
    let resumed = QueueResumed {
        repository: id("shop"),
        branch: "main".into(),
        why,
        envelope,
    };
    let mut other = resumed.clone();
    other.branch = "release".into();
    assert_eq!(world.refused(human("ada"), other), "command-mismatch");
    world.must(human("ada"), resumed.clone());
    assert!(lands(&world));
    world.must(control(), body);
}
