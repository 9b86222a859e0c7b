//! Windows: a run is looked at, stands still, and goes on by people's word alone and with less.

use portcullis_model::event::{
    CallObserved, LeaseKind, Needed, RequestDenied, RequestOpened, ReviewCause, RunCheckpointed,
    RunResumed, RunReviewed, Stop,
};
use portcullis_model::statement::{
    ApprovalSubject, BreakerScope, CheckpointRef, Command, ResumeWay,
};
use portcullis_model::{KeyClass, LedgerIndex, Party, Principal, RequestId, RunId};

use super::world::*;
use crate::approval::Status;
use crate::review::{CHECKPOINTS_MAX, DENIALS_REVIEW, REVIEW_GRACE_MS, due};
use crate::work::{Work, plan};

const WINDOW_MS: u64 = 300_000;

impl World {
    /// A run whose task allows many denials.
    fn patient_run(&mut self) -> RunId {
        let mut task = self.task();
        task.budgets.denials = 100;
        self.accept(&task);
        self.run_of(&task)
    }

    fn review(&self, run: RunId, causes: &[ReviewCause], stop: bool) -> RunReviewed {
        RunReviewed {
            run,
            window: self.state.runs[&run].window,
            causes: causes.iter().copied().collect(),
            taint: self.state.runs[&run].taint.clone(),
            stop: stop.then(|| Stop {
                needed: one_human(),
                because: vec!["default.cedar:1 asks".into()],
            }),
            decision: self.decision(),
        }
    }

    fn freeze(&mut self, run: RunId) -> LedgerIndex {
        let body = self.review(run, &[ReviewCause::Window], true);
        self.must(control(), body)
    }

    fn resume_request(&self, run: RunId, way: ResumeWay) -> RequestOpened {
        let known = &self.state.runs[&run];
        RequestOpened {
            subject: ApprovalSubject::Resume {
                run,
                frozen: known.frozen.as_ref().map_or(0, |stop| stop.entry),
                way,
            },
            task: Some(known.task),
            checks: None,
            needed: one_human(),
            party: Party([Principal::Agent(known.agent.clone(), Some(run))].into()),
            because: Vec::new(),
            decision: self.decision(),
            expires: known.deadline,
            envelope: None,
        }
    }

    fn asked_by(&mut self, name: &str, run: RunId, way: ResumeWay) -> RequestOpened {
        let mut body = self.resume_request(run, way.clone());
        body.envelope = Some(self.command(
            &human(name),
            Command::ResumeRun {
                run,
                way,
                why: digest("why"),
            },
        ));
        body
    }

    fn denied(&mut self, run: RunId) {
        let body = RequestDenied {
            run: Some(run),
            action: "git.push".into(),
            resource: "shop".into(),
            code: "no".into(),
            decision: self.decision(),
        };
        self.must(in_run(run), body);
    }

    fn checkpoint(&mut self, run: RunId, number: u64) -> CheckpointRef {
        let manifest = digest(&format!("manifest {number}"));
        let body = RunCheckpointed {
            run,
            number,
            manifest,
            entries: 1,
            bytes: 1,
        };
        self.must(in_run(run), body);
        CheckpointRef { number, manifest }
    }
}

#[test]
fn a_quiet_run_is_looked_at_when_its_window_ends_and_goes_on() {
    let mut world = World::team();
    let run = world.patient_run();
    world.later(WINDOW_MS - 1);
    assert!(!plan(&world.state, world.now).contains(&Work::ReviewRun(run)));
    let early = world.review(run, &[ReviewCause::Window], false);
    assert_eq!(world.refused(control(), early), "review-unfounded");
    world.later(1);
    assert!(plan(&world.state, world.now).contains(&Work::ReviewRun(run)));
    assert!(!world.state.runs[&run].review_missing(world.now));
    let late = world.now.plus_ms(REVIEW_GRACE_MS);
    assert!(world.state.runs[&run].review_missing(late));
    let body = world.review(run, &[ReviewCause::Window], false);
    world.must(control(), body.clone());
    assert_eq!(world.state.runs[&run].window, 2);
    assert!(due(&world.state, &world.state.runs[&run], world.now).is_empty());
    assert_eq!(world.refused(control(), body), "review-unfounded");
}

#[test]
fn repeated_denials_and_used_up_budgets_are_looked_at_once() {
    let mut world = World::team();
    let run = world.patient_run();
    for _ in 0..DENIALS_REVIEW - 1 {
        world.denied(run);
    }
    assert!(due(&world.state, &world.state.runs[&run], world.now).is_empty());
    world.denied(run);
    let cause = [ReviewCause::Denials].into();
    assert_eq!(due(&world.state, &world.state.runs[&run], world.now), cause);
    let body = world.review(run, &[ReviewCause::Denials], false);
    world.must(control(), body);
    assert!(due(&world.state, &world.state.runs[&run], world.now).is_empty());
    assert_eq!(
        world.state.runs[&run].window, 1,
        "the window goes on with it"
    );
    for head in 1..=3 {
        world.push(run, head);
    }
    let cause = [ReviewCause::Budget].into();
    assert_eq!(due(&world.state, &world.state.runs[&run], world.now), cause);
}

#[test]
fn only_the_server_looks_and_it_may_always_stop() {
    let mut world = World::team();
    let run = world.patient_run();
    let stop = world.review(run, &[ReviewCause::Window], true);
    for actor in [
        in_run(run),
        human("ada"),
        host("laptop"),
        service("builder"),
    ] {
        assert_eq!(world.refused(actor, stop.clone()), "not-a-service");
    }
    let mut other = stop.clone();
    other.window = 2;
    assert_eq!(world.refused(control(), other), "review-unfounded");
    let mut hidden = stop.clone();
    hidden.taint = ["host:evil.example".to_owned()].into();
    assert_eq!(world.refused(control(), hidden), "review-unfounded");
    let mut free = stop.clone();
    if let Some(stop) = &mut free.stop {
        stop.needed.humans = 0;
    }
    assert_eq!(world.refused(control(), free), "request-too-weak");
    // No cause is there, and stopping takes none.
    world.must(control(), stop.clone());
    assert_eq!(world.refused(control(), stop), "run-frozen");
}

#[test]
fn a_run_that_stands_still_does_nothing_and_people_are_asked_once() {
    let mut world = World::team();
    let run = world.patient_run();
    world.freeze(run);
    let push = world.pushed(&in_run(run), Some(run), None, 1);
    assert_eq!(world.refused(in_run(run), push), "run-frozen");
    let on = world.review(run, &[ReviewCause::Window], false);
    assert_eq!(world.refused(control(), on), "run-frozen");
    assert!(plan(&world.state, world.now).contains(&Work::AskToResume(run)));
    let body = world.resume_request(run, ResumeWay::default());
    world.must(control(), body);
    assert!(!plan(&world.state, world.now).contains(&Work::AskToResume(run)));
}

#[test]
fn what_is_asked_is_this_stop_at_its_price() {
    let mut world = World::team();
    let run = world.patient_run();
    let early = world.resume_request(run, ResumeWay::default());
    assert_eq!(world.refused(control(), early), "run-not-frozen");
    world.freeze(run);
    let good = world.resume_request(run, ResumeWay::default());
    assert_eq!(world.refused(in_run(run), good.clone()), "not-a-service");
    assert_eq!(world.refused(human("flo"), good.clone()), "not-a-service");
    let mut weak = good.clone();
    weak.needed.humans = 0;
    assert_eq!(world.refused(control(), weak), "request-too-weak");
    let mut nobody = good.clone();
    nobody.party = Party::default();
    assert_eq!(world.refused(control(), nobody), "party-incomplete");
    let mut other = good.clone();
    other.task = None;
    assert_eq!(world.refused(control(), other), "request-too-weak");
    // A person's command is for the way that it names.
    let mut wider = world.asked_by("flo", run, ResumeWay::default());
    wider.subject = match wider.subject {
        ApprovalSubject::Resume { run, frozen, .. } => ApprovalSubject::Resume {
            run,
            frozen,
            way: ResumeWay {
                without: [LeaseKind::Git(id("shop"))].into(),
                ..ResumeWay::default()
            },
        },
        other => other,
    };
    assert_eq!(world.refused(human("flo"), wider), "command-mismatch");
}

#[test]
fn people_let_a_run_go_on_and_nobody_else_does() {
    let mut world = World::team();
    let run = world.patient_run();
    world.freeze(run);
    let body = world.resume_request(run, ResumeWay::default());
    let request = RequestId(world.must(control(), body));
    let resumed = RunResumed { run, request };
    assert_eq!(
        world.refused(control(), resumed.clone()),
        "approval-missing"
    );
    // An approval by the run itself, in a person's words.
    let statement = world.statement("flo", request);
    assert_eq!(
        world.refused(in_run(run), approval(statement)),
        "not-a-human"
    );
    // The task's signer may: the stop is the agent's doing, not theirs.
    world.approve("dan", request).unwrap();
    assert!(plan(&world.state, world.now).contains(&Work::ResumeRun(request)));
    for actor in [in_run(run), human("dan"), host("laptop")] {
        assert_eq!(world.refused(actor, resumed.clone()), "not-a-service");
    }
    world.must(control(), resumed.clone());
    assert!(world.state.runs[&run].frozen.is_none());
    assert_eq!(world.refused(control(), resumed), "approval-missing");
    let push = world.pushed(&in_run(run), Some(run), None, 1);
    world.must(in_run(run), push);
}

#[test]
fn an_approval_is_for_one_stop() {
    let mut world = World::team();
    let run = world.patient_run();
    world.freeze(run);
    let first = world.resume_request(run, ResumeWay::default());
    let first = RequestId(world.must(control(), first));
    let second = world.asked_by("flo", run, ResumeWay::default());
    let second = RequestId(world.must(human("flo"), second));
    world.approve("flo", first).unwrap();
    world.approve("flo", second).unwrap();
    world.must(
        control(),
        RunResumed {
            run,
            request: first,
        },
    );
    world.freeze(run);
    let stale = RunResumed {
        run,
        request: second,
    };
    assert_eq!(world.refused(control(), stale), "run-not-frozen");
    let withdraw = Work::Withdraw(second, "run-moved-on");
    assert!(plan(&world.state, world.now).contains(&withdraw));
}

#[test]
fn a_run_goes_on_with_less_never_with_more() {
    let mut world = World::team();
    let run = world.patient_run();
    world.freeze(run);
    let lease = LeaseKind::Host("example.org:443".into());
    let deadline = world.state.runs[&run].deadline;
    for (way, code) in [
        (
            ResumeWay {
                without: [LeaseKind::Identity].into(),
                ..ResumeWay::default()
            },
            "not-lent",
        ),
        (
            ResumeWay {
                without: [LeaseKind::Host("elsewhere.org:443".into())].into(),
                ..ResumeWay::default()
            },
            "not-lent",
        ),
        (
            ResumeWay {
                deadline: Some(deadline.plus_ms(1)),
                ..ResumeWay::default()
            },
            "not-narrower",
        ),
        (
            ResumeWay {
                checkpoint: Some(CheckpointRef {
                    number: 1,
                    manifest: digest("invented"),
                }),
                ..ResumeWay::default()
            },
            "checkpoint-not-found",
        ),
    ] {
        let body = world.asked_by("flo", run, way);
        assert_eq!(world.refused(human("flo"), body), code);
    }
    let earlier = world.now.plus_ms(60_000);
    let way = ResumeWay {
        without: [lease.clone()].into(),
        deadline: Some(earlier),
        checkpoint: None,
    };
    let body = world.asked_by("flo", run, way);
    let request = RequestId(world.must(human("flo"), body));
    world.approve("flo", request).unwrap();
    world.must(control(), RunResumed { run, request });
    assert_eq!(world.state.runs[&run].deadline, earlier);
    let call = CallObserved {
        run,
        lease,
        model_asked: None,
        model_served: None,
        status: 200,
        bytes: (1, 1),
        request: None,
        answer: None,
    };
    assert_eq!(world.refused(in_run(run), call), "not-lent");
}

#[test]
fn a_run_is_wound_back_to_a_checkpoint_that_it_has() {
    let mut world = World::team();
    let run = world.patient_run();
    let (first, second) = (world.checkpoint(run, 1), world.checkpoint(run, 4));
    for (actor, number) in [(host("laptop"), 5), (human("flo"), 5), (control(), 5)] {
        let forged = RunCheckpointed {
            run,
            number,
            manifest: digest("forged"),
            entries: 1,
            bytes: 1,
        };
        assert_eq!(world.refused(actor, forged), "wrong-actor");
    }
    let again = RunCheckpointed {
        run,
        number: 4,
        manifest: digest("other"),
        entries: 1,
        bytes: 1,
    };
    assert_eq!(world.refused(in_run(run), again), "checkpoint-number");
    world.freeze(run);
    let mut swapped = first;
    swapped.manifest = second.manifest;
    let way = |point| ResumeWay {
        checkpoint: Some(point),
        ..ResumeWay::default()
    };
    let body = world.asked_by("flo", run, way(swapped));
    assert_eq!(world.refused(human("flo"), body), "checkpoint-not-found");
    let body = world.asked_by("flo", run, way(first));
    let request = RequestId(world.must(human("flo"), body));
    world.approve("flo", request).unwrap();
    world.must(control(), RunResumed { run, request });
    let known = &world.state.runs[&run];
    assert_eq!(known.resumed.unwrap().checkpoint, Some(first));
    assert_eq!(known.checkpoints.len(), 1, "the later one is gone");
    // Numbers go on, so that a number means one thing for ever.
    world.checkpoint(run, 5);
}

#[test]
fn checkpoints_are_bounded() {
    let mut world = World::team();
    let run = world.patient_run();
    for number in 1..=CHECKPOINTS_MAX as u64 + 3 {
        world.checkpoint(run, number);
    }
    let known = &world.state.runs[&run].checkpoints;
    assert_eq!(known.len(), CHECKPOINTS_MAX);
    assert_eq!(known.keys().next(), Some(&4));
}

#[test]
fn a_breaker_an_end_and_a_lost_right_outweigh_an_approval() {
    let mut world = World::team();
    let run = world.patient_run();
    world.freeze(run);
    let body = world.resume_request(run, ResumeWay::default());
    let request = RequestId(world.must(control(), body));
    world.approve("flo", request).unwrap();
    let resumed = RunResumed { run, request };
    let mut tripped = world.clone();
    let trip = portcullis_model::event::BreakerTripped {
        scope: BreakerScope::Everywhere,
        why: digest("why"),
        revert: false,
        envelope: Some(tripped.command(
            &human("flo"),
            Command::TripBreaker {
                scope: BreakerScope::Everywhere,
                why: digest("why"),
                revert: false,
            },
        )),
    };
    tripped.must(human("flo"), trip);
    assert_eq!(
        tripped.refused(control(), resumed.clone()),
        "breaker-tripped"
    );
    let mut late = world.clone();
    late.now = late.state.runs[&run].deadline;
    assert!(!late.refused(control(), resumed.clone()).is_empty());
    world.must(
        control(),
        portcullis_model::event::RunEnded {
            run,
            end: portcullis_model::event::RunEnd::Lost,
            envelope: None,
        },
    );
    assert_eq!(world.refused(control(), resumed), "run-not-frozen");
    assert_eq!(world.state.requests[&request].status, Status::Open);
    let withdraw = Work::Withdraw(request, "run-moved-on");
    assert!(plan(&world.state, world.now).contains(&withdraw));
}

#[test]
fn a_stop_that_takes_a_hardware_key_is_not_lifted_by_another() {
    let mut world = World::team();
    let run = world.patient_run();
    let mut stop = world.review(run, &[ReviewCause::Window], true);
    if let Some(stop) = &mut stop.stop {
        stop.needed = Needed {
            key_class: KeyClass::Presence,
            ..one_human()
        };
    }
    world.must(control(), stop);
    let mut body = world.resume_request(run, ResumeWay::default());
    body.needed.key_class = KeyClass::Software;
    assert_eq!(world.refused(control(), body.clone()), "request-too-weak");
    body.needed.key_class = KeyClass::Presence;
    let request = RequestId(world.must(control(), body));
    let mut statement = world.statement("flo", request);
    statement.key_class = KeyClass::Software;
    let software = by_key("flo", KeyClass::Software);
    assert_eq!(
        world.refused(software, approval(statement)),
        "key-class-too-low"
    );
}
