//! Runs: started by their host under a standing task, with no more than it says.

use portcullis_model::event::{
    CallObserved, CallsEnded, CallsGranted, CallsObserved, LeaseKind, LeaseRefused, PromptSeen,
    RequestDenied, RunEnd, RunEnded, TaintAdded,
};
use portcullis_model::manifest::{Activation, Phase};
use portcullis_model::recorder::Fold as _;
use portcullis_model::statement::Command;
use portcullis_model::{Containment, RunId};

use super::world::*;
use crate::Command as Recording;
use crate::work::{RUN_GRACE_MS, Work, plan};

#[test]
fn a_run_is_started_by_the_host_it_runs_on() {
    let mut world = World::team();
    let task = world.task();
    world.accept(&task);
    let body = world.start(&task, "laptop", &[]);
    assert_eq!(world.refused(host("farm"), body.clone()), "wrong-host");
    assert_eq!(world.refused(human("dan"), body.clone()), "wrong-host");
    let mut other = body.clone();
    other.host = id("farm");
    assert_eq!(world.refused(host("farm"), other), "wrong-actor");
    let mut key = body.clone();
    key.run_key = "another".into();
    assert_eq!(world.refused(host("laptop"), key), "command-mismatch");
    let mut gaps = body.clone();
    gaps.gaps = ["seccomp".to_owned()].into();
    assert_eq!(world.refused(host("laptop"), gaps), "command-mismatch");
    let mut agent = body.clone();
    agent.agent = id("other");
    assert_eq!(world.refused(host("laptop"), agent), "wrong-agent");
    world.must(host("laptop"), body.clone());
    // The same signed command starts nothing twice.
    assert_eq!(world.refused(host("laptop"), body), "nonce-replayed");
}

#[test]
fn a_run_needs_a_task_that_was_taken_in() {
    let mut world = World::team();
    let task = world.task();
    let body = world.start(&task, "laptop", &[]);
    assert_eq!(world.refused(host("laptop"), body), "task-not-found");
    let other = world.task();
    world.accept(&task);
    world.accept(&other);
    let mut swapped = world.start(&task, "laptop", &[]);
    swapped.task = other.id().unwrap();
    assert_eq!(world.refused(host("laptop"), swapped), "command-mismatch");
}

#[test]
fn a_task_is_good_for_as_many_runs_as_it_says() {
    let mut world = World::team();
    let mut task = world.task();
    task.budgets.runs = 1;
    world.accept(&task);
    world.run_of(&task);
    let again = world.start(&task, "laptop", &[]);
    assert_eq!(world.refused(host("laptop"), again), "task-used-up");
}

#[test]
fn containment_is_the_hosts_class_and_not_its_word() {
    let mut world = World::team();
    let mut task = world.task();
    task.containment = Containment::Contained;
    world.accept(&task);
    let body = world.start(&task, "laptop", &[]);
    assert_eq!(world.refused(host("laptop"), body), "containment-too-weak");
    let body = world.start(&task, "farm", &[]);
    let run = RunId(world.must(host("farm"), body));
    assert_eq!(world.state.runs[&run].containment, Containment::Contained);
    assert_eq!(
        world.log.last().unwrap().containment,
        Some(Containment::Contained)
    );
}

#[test]
fn a_missing_protection_must_be_allowed_by_the_signature() {
    let mut world = World::team();
    let mut task = world.task();
    task.allowed_gaps = ["cgroup".to_owned()].into();
    world.accept(&task);
    let body = world.start(&task, "laptop", &["cgroup", "seccomp"]);
    assert_eq!(world.refused(host("laptop"), body), "protection-missing");
    let body = world.start(&task, "laptop", &["cgroup"]);
    world.must(host("laptop"), body);
}

#[test]
fn a_task_wider_than_its_agent_starts_nothing() {
    let mut world = World::team();
    let mut paths = world.task();
    paths.targets[0].scope.allow = vec!["**".into()];
    let mut hosts = world.task();
    hosts.capabilities.hosts = ["elsewhere.org:443".to_owned()].into();
    let mut endpoint = world.task();
    endpoint.capabilities.endpoints = [id("model")].into();
    for task in [paths, hosts, endpoint] {
        world.accept(&task);
        let body = world.start(&task, "laptop", &[]);
        assert_eq!(world.refused(host("laptop"), body), "task-wider-than-agent");
    }
    let mut reader = agent_record("fixer");
    reader.phases = [Phase::Review].into();
    world.activate(&Activation::Agent(reader));
    let task = world.task();
    world.accept(&task);
    let body = world.start(&task, "laptop", &[]);
    assert_eq!(world.refused(host("laptop"), body), "task-wider-than-agent");
}

#[test]
fn a_run_never_outlives_its_task() {
    let mut world = World::team();
    let task = world.task();
    world.accept(&task);
    world.later(DAY_MS - 1_000);
    let run = world.run_of(&task);
    assert_eq!(world.state.runs[&run].deadline, task.expires);
    world.later(1_000);
    let push = world.pushed(&in_run(run), Some(run), None, 1);
    assert_eq!(world.refused(in_run(run), push), "run-deadline");
}

fn lost(run: RunId) -> RunEnded {
    RunEnded {
        run,
        end: RunEnd::Lost,
        envelope: None,
    }
}

#[test]
fn a_run_is_ended_once_by_its_host_a_person_or_the_server() {
    let mut world = World::team();
    let run = world.run();
    let exited = |world: &mut World, by: &str| RunEnded {
        run,
        end: RunEnd::Exited { status: 0 },
        envelope: Some(world.command(
            &host(by),
            Command::RunEnded {
                run,
                exit: 0,
                deadline: false,
            },
        )),
    };
    let body = exited(&mut world, "farm");
    assert_eq!(world.refused(host("farm"), body), "not-allowed");
    assert_eq!(world.refused(in_run(run), lost(run)), "not-allowed");
    let mut lie = exited(&mut world, "laptop");
    lie.end = RunEnd::Exited { status: 1 };
    assert_eq!(world.refused(host("laptop"), lie), "command-mismatch");
    let unsigned = RunEnded {
        envelope: None,
        ..exited(&mut world, "laptop")
    };
    assert_eq!(world.refused(host("laptop"), unsigned), "not-allowed");
    let by_person = RunEnded {
        run,
        end: RunEnd::Human { why: digest("why") },
        envelope: Some(world.command(
            &human("flo"),
            Command::EndRun {
                run,
                why: digest("why"),
            },
        )),
    };
    world.clone().must(human("flo"), by_person);
    world.clone().must(control(), lost(run));
    let body = exited(&mut world, "laptop");
    world.must(host("laptop"), body);
    assert_eq!(world.refused(control(), lost(run)), "run-ended");
}

#[test]
fn what_was_lent_is_void_with_the_end_and_its_first_refusal_is_told_once() {
    let mut world = World::team();
    let run = world.run();
    let refusal = |lease| LeaseRefused { run, lease };
    let git = LeaseKind::Git(id("shop"));
    assert_eq!(
        world.refused(control(), refusal(git.clone())),
        "not-first-refusal"
    );
    world.must(control(), lost(run));
    world.must(control(), refusal(git.clone()));
    assert_eq!(world.refused(control(), refusal(git)), "not-first-refusal");
    let never_lent = LeaseKind::Host("elsewhere.org:443".into());
    assert_eq!(
        world.refused(control(), refusal(never_lent)),
        "not-first-refusal"
    );
}

#[test]
fn calls_and_denials_are_counted_and_too_many_denials_end_the_run() {
    let mut world = World::team();
    let run = world.run();
    let call = |lease| CallObserved {
        run,
        lease,
        model_asked: None,
        model_served: None,
        status: 200,
        bytes: (1, 1),
        request: None,
        answer: None,
    };
    let lent = call(LeaseKind::Host("example.org:443".into()));
    let not_lent = call(LeaseKind::Host("elsewhere.org:443".into()));
    assert_eq!(world.refused(in_run(run), not_lent), "not-lent");
    world.must(in_run(run), lent);
    assert_eq!(world.state.runs[&run].used.calls, 1);
    for _ in 0..3 {
        assert!(!plan(&world.state, world.now).contains(&Work::EndRunDenials(run)));
        let denied = RequestDenied {
            run: Some(run),
            action: "git.push".into(),
            resource: "shop".into(),
            code: "no".into(),
            decision: world.decision(),
        };
        world.must(in_run(run), denied);
    }
    assert!(plan(&world.state, world.now).contains(&Work::EndRunDenials(run)));
}

#[test]
fn calls_in_one_entry_are_counted_when_granted_and_a_run_that_is_over_gets_no_more() {
    let mut world = World::team();
    let run = world.run();
    let lease = |name: &str| LeaseKind::Host(name.into());
    let calls = |granted: &[(&str, u64)], ended: &[(&str, usize)]| CallsObserved {
        run,
        granted: granted
            .iter()
            .map(|(name, count)| CallsGranted {
                lease: lease(name),
                count: *count,
            })
            .collect(),
        ended: ended
            .iter()
            .map(|(name, count)| CallsEnded {
                lease: lease(name),
                status: 200,
                bytes: vec![(1, 2); *count],
            })
            .collect(),
    };
    let (lent, other) = ("example.org:443", "elsewhere.org:443");
    for (refused, code) in [
        (calls(&[(lent, 1), (other, 1)], &[]), "not-lent"),
        (calls(&[], &[(other, 1)]), "not-lent"),
        (calls(&[], &[]), "malformed-calls"),
        (calls(&[(lent, 0)], &[]), "malformed-calls"),
        (calls(&[(lent, 1)], &[(lent, 0)]), "malformed-calls"),
        (calls(&[(lent, 100)], &[(lent, 29)]), "malformed-calls"),
        (
            calls(&[(lent, u64::MAX), (lent, 2)], &[]),
            "malformed-calls",
        ),
    ] {
        assert_eq!(world.refused(in_run(run), refused), code);
    }
    let both = calls(&[(lent, 100)], &[(lent, 28)]);
    assert_eq!(world.refused(control(), both.clone()), "wrong-actor");
    world.must(in_run(run), both);
    assert_eq!(world.state.runs[&run].used.calls, 100);
    world.must(control(), lost(run));
    assert_eq!(
        world.refused(in_run(run), calls(&[(lent, 1)], &[(lent, 1)])),
        "run-ended"
    );
    // How it ended is still said.
    world.must(in_run(run), calls(&[], &[(lent, 1)]));
    assert_eq!(world.state.runs[&run].used.calls, 100);
}

#[test]
fn leave_to_call_is_given_within_the_budget_and_to_nobody_who_was_halted() {
    let mut world = World::team();
    let run = world.run();
    let host = LeaseKind::Host("example.org:443".into());
    let many = |count: u64| CallsObserved {
        run,
        granted: vec![CallsGranted {
            lease: host.clone(),
            count,
        }],
        ended: Vec::new(),
    };
    let one = CallObserved {
        run,
        lease: host.clone(),
        model_asked: None,
        model_served: None,
        status: 0,
        bytes: (0, 0),
        request: None,
        answer: None,
    };
    let budget = world.state.tasks[&world.state.runs[&run].task]
        .payload
        .budgets
        .calls;
    let mut left = budget;
    while left > 1 {
        let count = (left - 1).min(100);
        let command = Recording::leave_to_call(in_run(run), many(count));
        world.take(&command);
        left -= count;
    }
    let code = |world: &World, command: &Recording| {
        let refused = world.state.decide(command, world.now);
        refused.map_or_else(|refusal| refusal.code, |_| "ok".to_owned())
    };
    // Two at once are one too many, and one is not.
    let two = Recording::leave_to_call(in_run(run), many(2));
    assert_eq!(code(&world, &two), "calls-used-up");
    let last = Recording::leave_to_call(in_run(run), one.clone());
    world.take(&last);
    assert_eq!(world.state.runs[&run].used.calls, budget);
    assert_eq!(code(&world, &last), "calls-used-up");
    // How calls ended is told all the same, in an entry of its own or as the same event.
    assert_eq!(
        code(&world, &Recording::one(in_run(run), one.clone())),
        "ok"
    );
    let ended = CallsObserved {
        run,
        granted: Vec::new(),
        ended: vec![CallsEnded {
            lease: host,
            status: 200,
            bytes: vec![(1, 2)],
        }],
    };
    let ended = Recording::leave_to_call(in_run(run), ended);
    assert_eq!(code(&world, &ended), "ok");
    // A call decided before its run was over gets no leave after it.
    world.must(control(), lost(run));
    assert_eq!(code(&world, &last), "run-ended");
    assert_eq!(code(&world, &ended), "ok");
    assert_eq!(code(&world, &Recording::one(in_run(run), one)), "ok");
}

#[test]
fn a_label_of_taint_is_the_servers_word_counts_once_and_stays() {
    let mut world = World::team();
    let run = world.run();
    let label = |label: &str| TaintAdded {
        run,
        label: label.into(),
        origin: "GET https://example.org/x".into(),
    };
    let first = label("host:example.org:443");
    assert_eq!(
        world.refused(in_run(run), first.clone()),
        "not-a-service",
        "a run does not speak of itself"
    );
    world.must(control(), first.clone());
    assert_eq!(world.refused(control(), first), "already-tainted");
    for odd in ["", "a\nb", "ä", &"x".repeat(300)] {
        assert_eq!(
            world.refused(control(), label(odd)),
            "malformed-taint-label"
        );
    }
    for number in 1..crate::run::TAINT_MAX_LABELS {
        world.must(control(), label(&format!("host:h{number}:443")));
    }
    assert_eq!(
        world.refused(control(), label("host:one-more:443")),
        "already-tainted"
    );
    world.must(control(), lost(run));
    assert_eq!(
        world.state.runs[&run].taint.len(),
        crate::run::TAINT_MAX_LABELS
    );
}

#[test]
fn what_a_model_is_told_is_news_only_where_it_changes() {
    let mut world = World::team();
    let run = world.run();
    let endpoint = LeaseKind::Endpoint(id("models"));
    let told = |system: &str, served: Option<&str>| PromptSeen {
        run,
        endpoint: id("models"),
        model_asked: "large".into(),
        model_served: served.map(str::to_owned),
        system: Some(digest(system)),
        tools: None,
        instructions: None,
    };
    assert_eq!(world.refused(control(), told("a", None)), "not-lent");
    world
        .state
        .runs
        .edit(&run, |run| run.leases.push(endpoint))
        .unwrap();
    assert_eq!(world.refused(in_run(run), told("a", None)), "not-a-service");
    world.must(control(), told("a", None));
    assert!(world.state.runs[&run].model_changes.is_empty());
    assert_eq!(world.refused(control(), told("a", None)), "prompt-known");
    world.must(control(), told("b", None));
    assert_eq!(
        world.state.runs[&run].model_changes,
        ["system".to_owned()].into()
    );
    world.must(control(), told("a", Some("small")));
    assert_eq!(
        world.state.runs[&run].model_changes,
        ["served".to_owned(), "system".to_owned()].into()
    );
    for number in 3..crate::run::PROMPTS_MAX {
        world.must(control(), told(&number.to_string(), None));
    }
    assert_eq!(world.refused(control(), told("more", None)), "prompt-known");
}

#[test]
fn a_run_that_nobody_ends_counts_as_lost() {
    let mut world = World::team();
    let run = world.run();
    let deadline = world.state.runs[&run].deadline;
    assert!(!plan(&world.state, deadline).contains(&Work::EndRunLost(run)));
    let late = deadline.plus_ms(RUN_GRACE_MS);
    assert!(plan(&world.state, late).contains(&Work::EndRunLost(run)));
}

#[test]
fn a_runs_names_lead_to_the_run() {
    let mut world = World::team();
    let run = world.run();
    let known = &world.state.runs[&run];
    assert_eq!(
        known.spiffe_id("shop.example"),
        format!("spiffe://shop.example/agent/fixer/run/{run}")
    );
    let (_, mail) = known.commit_identity("shop.example");
    assert!(mail.contains(&run.to_string()), "{mail}");
}

#[test]
fn nothing_is_lent_that_the_task_does_not_name() {
    let mut world = World::team();
    let task = world.task();
    world.accept(&task);
    for lease in [
        LeaseKind::Git(id("another")),
        LeaseKind::Host("elsewhere.example:443".into()),
        LeaseKind::Endpoint(id("model")),
    ] {
        let mut body = world.start(&task, "laptop", &[]);
        body.leases.push(lease);
        assert_eq!(world.refused(host("laptop"), body), "lease-not-in-task");
    }
    let mut long = world.start(&task, "laptop", &[]);
    long.deadline = task.expires;
    let run = RunId(world.must(host("laptop"), long));
    assert_eq!(
        world.state.runs[&run].deadline,
        world.now.plus_ms(task.budgets.wall_ms)
    );
}
