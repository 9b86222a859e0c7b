//! Changes: who pushes what, on which base, and what checks and tests say of it.

use portcullis_model::event::{
    ChangeClosed, CheckVerdict, CommitsUnproven, RunEnd, RunEnded, TestCounts, TestVerdict,
};
use portcullis_model::statement::Command;
use portcullis_model::{Actor, Body, ChangeId, Containment, Principal, RequestId, RunId};

use super::world::*;
use crate::approval::Status;
use crate::work::{Work, plan};

#[test]
fn everyone_behind_a_push_is_of_its_party() {
    let mut world = World::team();
    let mut task = world.task();
    task.signer = id("eve");
    world.accept(&task);
    let run = world.run_of(&task);
    let body = world.pushed(&in_run(run), Some(run), None, 1);
    // Agent in its run, owner, signer.
    assert_eq!(body.party.0.len(), 3);
    for member in body.party.0.clone() {
        let mut incomplete = body.clone();
        incomplete.party.0.remove(&member);
        assert_eq!(
            world.refused(in_run(run), incomplete),
            "party-incomplete",
            "{member}"
        );
    }
    world.must(in_run(run), body);
}

#[test]
fn a_change_carries_the_party_of_all_its_revisions() {
    let mut world = World::team();
    let change = world.push_by("flo", 1);
    let mut task = world.task();
    task.change = Some(change);
    world.accept(&task);
    let run = world.run_of(&task);
    let body = world.pushed(&in_run(run), Some(run), Some(change), 2);
    assert!(body.party.includes(&id("flo")));
    world.must(in_run(run), body);
    let known = &world.state.changes[&change];
    assert!(known.party.includes(&id("flo")) && known.party.includes(&id("dan")));
    assert!(known.by_agent());
}

#[test]
fn a_push_is_by_whom_it_says() {
    let mut world = World::team();
    let run = world.run();
    let other = world.run();
    let body = world.pushed(&in_run(run), Some(run), None, 1);
    for actor in [
        in_run(other),
        Actor::unsigned(Principal::Agent(id("fixer"), None)),
        Actor::unsigned(Principal::Agent(id("other"), Some(run))),
        Actor::unsigned(Principal::Unknown),
        control(),
        human("dan"),
    ] {
        assert_eq!(world.refused(actor, body.clone()), "wrong-pusher");
    }
    // A person's push is signed.
    let body = world.pushed(&human("flo"), None, None, 2);
    assert_eq!(world.refused(human("flo"), body.clone()), "wrong-pusher");
    let mut signed = body;
    signed.envelope = Some(envelope("application/x-push", vec![]));
    let unproven = Actor::unsigned(Principal::Human(id("flo")));
    assert_eq!(world.refused(unproven, signed.clone()), "wrong-pusher");
    world.must(human("flo"), signed);
}

#[test]
fn a_run_pushes_only_what_was_lent_to_it_and_only_so_often() {
    let mut world = World::team();
    let run = world.run();
    let mut elsewhere = world.pushed(&in_run(run), Some(run), None, 1);
    elsewhere.repository = id("other");
    assert_eq!(world.refused(in_run(run), elsewhere), "not-lent");
    for head in 1..=3 {
        world.push(run, head);
    }
    let fourth = world.pushed(&in_run(run), Some(run), None, 4);
    assert_eq!(world.refused(in_run(run), fourth), "pushes-used-up");
}

#[test]
fn a_run_that_ended_pushes_nothing() {
    let mut world = World::team();
    let run = world.run();
    let body = world.pushed(&in_run(run), Some(run), None, 1);
    let ended = RunEnded {
        run,
        end: RunEnd::Lost,
        envelope: None,
    };
    world.must(control(), ended);
    assert_eq!(world.refused(in_run(run), body), "run-ended");
}

#[test]
fn a_run_does_not_take_over_somebody_elses_change() {
    let mut world = World::team();
    let run = world.run();
    let change = world.push(run, 1);
    let other = world.run();
    let body = world.pushed(&in_run(other), Some(other), Some(change), 2);
    assert_eq!(world.refused(in_run(other), body), "not-your-change");
    let mut task = world.task();
    task.change = Some(change);
    world.accept(&task);
    let next = world.run_of(&task);
    let body = world.pushed(&in_run(next), Some(next), Some(change), 2);
    world.must(in_run(next), body);
}

#[test]
fn a_change_stands_on_a_commit_of_its_branch() {
    let mut world = World::team();
    let run = world.run();
    let good = world.pushed(&in_run(run), Some(run), None, 1);
    let mut base = good.clone();
    base.base = oid(0x999);
    assert_eq!(world.refused(in_run(run), base), "base-unknown");
    let mut branch = good.clone();
    branch.branch = "elsewhere".into();
    assert_eq!(world.refused(in_run(run), branch), "branch-not-in-task");
    let change = ChangeId(world.must(in_run(run), good.clone()));
    let mut again = good;
    again.change = Some(change);
    // The objects of the first push may be lost to a crash; after the checks they are here.
    world.must(in_run(run), again.clone());
    assert_eq!(world.state.changes[&change].latest().number, 2);
    world.ready(change);
    assert_eq!(world.refused(in_run(run), again), "revision-known");
}

#[test]
fn a_new_revision_withdraws_what_was_asked_about_the_old_one() {
    let mut world = World::team();
    let run = world.run();
    let change = world.push(run, 1);
    world.ready(change);
    let request = world.ask(change);
    let old = world.landing(change, Some(request));
    let body = world.pushed(&in_run(run), Some(run), Some(change), 2);
    world.must(in_run(run), body);
    let superseded = Status::Withdrawn {
        code: "superseded".into(),
    };
    assert_eq!(world.state.requests[&request].status, superseded);
    assert_eq!(
        world.approve("ada", request).unwrap_err().code,
        "request-closed"
    );
    assert_eq!(world.refused(control(), old), "revision-superseded");
    // Checks and tests start anew.
    let work = plan(&world.state, world.now);
    assert!(work.contains(&Work::Check(change, 2)));
    assert!(work.contains(&Work::RequestTests(change, 2)));
    let mut stale = world.checks(change, CheckVerdict::Pass);
    stale.revision = 1;
    assert_eq!(world.refused(control(), stale), "revision-superseded");
}

#[test]
fn a_verdict_follows_from_its_findings_once() {
    let mut world = World::team();
    let change = world.push_by("flo", 1);
    let mut hidden = world.checks(change, CheckVerdict::Block);
    hidden.verdict = CheckVerdict::Pass;
    assert_eq!(world.refused(control(), hidden), "checks-inconsistent");
    let mut softened = world.checks(change, CheckVerdict::Block);
    softened.verdict = CheckVerdict::Escalate;
    assert_eq!(world.refused(control(), softened), "checks-inconsistent");
    let body = world.checks(change, CheckVerdict::Block);
    world.must(control(), body.clone());
    assert_eq!(world.refused(control(), body), "checks-known");
}

#[test]
fn checks_and_tests_are_a_services_word() {
    let mut world = World::team();
    let run = world.run();
    let change = world.push(run, 1);
    let checks = world.checks(change, CheckVerdict::Pass);
    let tests = world.tests(change, TestVerdict::NotConfigured);
    for actor in [in_run(run), human("dan"), host("laptop")] {
        assert_eq!(
            world.refused(actor.clone(), checks.clone()),
            "not-a-service"
        );
        assert_eq!(world.refused(actor, tests.clone()), "not-a-service");
    }
}

#[test]
fn tests_pass_only_by_jobs_on_this_commit_configured_by_its_base() {
    let mut world = World::team();
    let change = world.push_by("flo", 1);
    let (head, from) = (oid(1), base());
    let by_head = world.test_job(&head, &head, true);
    let other = world.test_job(&oid(2), &from, true);
    let failed = world.test_job(&head, &from, false);
    let unfinished = world.job(portcullis_model::event::JobKind::Test, &head, &from);
    let on_base = world.test_job(&from, &from, true);
    let on_head = world.test_job(&head, &from, true);
    let passed = |head, base| portcullis_model::event::TestsCompleted {
        head,
        base,
        ..world.tests(change, TestVerdict::Passed)
    };
    for wrong in [by_head, other, unfinished, on_base] {
        let body = passed(Some(wrong), Some(on_base));
        assert_eq!(
            world.refused(control(), body),
            "tests-of-something-else",
            "{wrong}"
        );
    }
    let swapped = passed(Some(on_head), Some(on_head));
    assert_eq!(world.refused(control(), swapped), "tests-of-something-else");
    let mut counts = passed(Some(on_head), Some(on_base));
    counts.counts = TestCounts {
        missing: 1,
        ..TestCounts::default()
    };
    let mut failing = passed(Some(on_head), Some(on_base));
    failing.counts.failed = 1;
    let mut skipped = passed(Some(on_head), Some(on_base));
    skipped.verdict = TestVerdict::NotConfigured;
    for body in [
        passed(None, None),
        passed(Some(on_head), None),
        passed(Some(failed), Some(on_base)),
        counts,
        failing,
        skipped,
    ] {
        assert_eq!(world.refused(control(), body), "tests-inconsistent");
    }
    let body = passed(Some(on_head), Some(on_base));
    world.must(control(), body.clone());
    assert_eq!(world.refused(control(), body), "tests-known");
}

#[test]
fn a_person_withdraws_a_change_and_its_request_with_it() {
    let mut world = World::team();
    let change = world.push_by("flo", 1);
    world.ready(change);
    let request = world.ask(change);
    let why = digest("why");
    let envelope = world.command(&human("flo"), Command::CloseChange { change, why });
    let body = ChangeClosed {
        change,
        why,
        envelope,
    };
    assert_eq!(world.refused(human("dan"), body.clone()), "wrong-actor");
    world.must(human("flo"), body);
    let closed = Status::Withdrawn {
        code: "closed".into(),
    };
    assert_eq!(world.state.requests[&request].status, closed);
    let landing = world.landing(change, None);
    assert_eq!(world.refused(control(), landing), "revision-superseded");
    let mut push = world.pushed(&human("flo"), None, Some(change), 2);
    push.envelope = Some(self::envelope("application/x-push", vec![]));
    assert_eq!(world.refused(human("flo"), push), "change-closed");
    assert!(plan(&world.state, world.now).is_empty());
}

#[test]
fn what_an_agent_caused_carries_the_agent_and_its_humans() {
    let mut world = World::team();
    let mut task = world.task();
    task.signer = id("eve");
    world.accept(&task);
    let run = world.run_of(&task);
    let change = world.push(run, 1);
    world.ready(change);
    let cause = world.log.last().unwrap().cause.clone();
    assert!(cause.agents.contains(&id("fixer")));
    assert_eq!(cause.humans, [id("dan"), id("eve")].into());
    assert_eq!(
        world.log.last().unwrap().containment,
        Some(Containment::ContainedClaimed)
    );
}

#[test]
fn an_entry_cannot_disown_its_cause_or_call_itself_observed() {
    use portcullis_model::{Fold as _, Mode};
    let mut world = World::team();
    let run = world.run();
    let change = world.push(run, 1);
    let checks = world.checks(change, CheckVerdict::Pass);
    let command = crate::Command::one(control(), checks);
    let event = world.state.decide(&command, world.now).unwrap().remove(0);
    let mut disowned = event.clone();
    disowned.cause.agents.clear();
    let mut blamed = event.clone();
    blamed.cause.humans.insert(id("flo"));
    let mut observed = event.clone();
    observed.mode = Mode::Observe;
    let mut contained = event.clone();
    contained.containment = Some(Containment::Contained);
    for altered in [disowned, blamed, observed, contained] {
        let refusal = world.state.clone().apply(&altered).unwrap_err();
        assert_eq!(refusal.code, "circumstances-altered");
    }
    world.state.clone().apply(&event).unwrap();
}

fn moved(from: Option<u64>, to: u64) -> CommitsUnproven {
    CommitsUnproven {
        repository: id("shop"),
        branch: "main".into(),
        from: from.map(oid),
        to: oid(to),
        commits: 1,
    }
}

#[test]
fn a_branch_that_moved_past_us_is_recorded_as_it_moved_and_asks_a_human() {
    let mut world = World::team();
    assert_eq!(
        world.refused(human("ada"), moved(Some(0x100), 5)),
        "not-a-service"
    );
    assert_eq!(world.refused(control(), moved(Some(4), 5)), "branch-moved");
    assert_eq!(
        world.refused(control(), moved(Some(0x100), 0x100)),
        "branch-moved"
    );
    let index = world.must(control(), moved(Some(0x100), 5));
    assert!(world.log.last().unwrap().cause.unknown);
    assert_eq!(world.tip(), oid(5));
    let request = &world.state.requests[&RequestId(index)];
    assert!(request.needed.humans >= 1);
    // Unknown counts as an agent: no person is of its party.
    assert!(request.party.0.contains(&Principal::Unknown));
    let mut elsewhere = moved(None, 6);
    elsewhere.repository = id("other");
    assert_eq!(world.refused(control(), elsewhere), "repository-not-found");
}

#[test]
fn what_a_run_asked_for_another_branch_stays_there() {
    let mut world = World::team();
    let mut second = moved(None, 7);
    second.branch = "next".into();
    world.must(control(), second);
    let run = world.run();
    let change = world.push(run, 1);
    let mut body = world.pushed(&in_run(run), Some(run), Some(change), 2);
    body.branch = "next".into();
    body.base = oid(7);
    assert_eq!(world.refused(in_run(run), body), "branch-not-in-task");
}

#[test]
fn a_stream_names_what_it_is_about() {
    let mut world = World::team();
    let run: RunId = world.run();
    let change = world.push(run, 1);
    let entry = world.log.last().unwrap();
    assert_eq!(entry.body.stream(entry.index), change.to_string());
    assert!(matches!(entry.body, Body::ChangePushed(_)));
}

#[test]
fn an_agents_commits_stay_its_own_whoever_pushes_them() {
    let mut world = World::team();
    let run = world.run();
    world.push(run, 1);
    let actor = human("eve");
    let mut body = world.pushed(&actor, None, None, 2);
    body.commits = vec![oid(1), oid(2)];
    body.envelope = Some(envelope("application/x-push", b"push".to_vec()));
    assert_eq!(
        world.refused(actor.clone(), body.clone()),
        "party-incomplete"
    );
    body.party
        .0
        .extend(crate::change::party_of_commits(&world.state, &body.commits).0);
    let change = ChangeId(world.must(actor, body));
    assert!(world.state.changes[&change].by_agent());
}
