//! An organisation that permits everything, against the base. Each base forbid has a request here
//! that only it stops; a rule without one fails the test.

use std::collections::BTreeSet;

use portcullis_model::event::{CheckVerdict, TestVerdict};
use portcullis_model::manifest::{HostClass, Sensitivity};
use portcullis_model::statement::BreakerScope;
use portcullis_model::{Containment, GitOid, KeyClass, Mode};

use super::sample::*;
use super::{PERMIT_ALL, embedded, is_permit, with};
use crate::action::*;
use crate::request::{Actor, AgentActor, CausedBy, Request, TaskFacts};
use crate::{Answer, Approvals, Decision, Layer, decide, modes};

fn halted(mut request: Request) -> Request {
    request.circumstances.breaker = true;
    request
}

fn with_task(change: impl FnOnce(&mut TaskFacts)) -> Request {
    let mut facts = task().unwrap();
    change(&mut facts);
    push_by_agent(GitPush {
        task: Some(facts),
        ..push()
    })
}

fn push_by_agent(facts: GitPush) -> Request {
    request(agent(), Action::GitPush(facts))
}

fn land_by_agent(facts: ChangeLand) -> Request {
    request(agent(), Action::ChangeLand(facts))
}

fn admit_by_service(facts: ReleaseAdmit) -> Request {
    request(service(), Action::ReleaseAdmit(facts))
}

/// For each base forbid, a request that it stops.
#[rustfmt::skip]
fn attacks() -> Vec<(&'static str, Request)> {
    let production = || admit(Sensitivity::Production);
    let none = Approvals::default;
    let reset = || Action::BreakerReset(BreakerReset { scope: BreakerScope::Everywhere, approvals: none() });
    let activate = |checked| Action::PolicyActivate(PolicyActivate { checked, tests_failed: 0, approvals: Approvals(vec![other("grace", KeyClass::Presence)]) });
    let mut weak_reset = request(administrator("root"), reset());
    weak_reset.circumstances.key_class = KeyClass::Software;
    let mut weak_approval = request(human("grace"), Action::RequestApprove(approve()));
    weak_approval.circumstances.key_class = KeyClass::Software;
    let mut observed = request(agent(), Action::ModelCall(model_call()));
    observed.circumstances.containment = Some(Containment::Observed);
    let mut by_agent_start = request(service(), Action::RunStart(start()));
    by_agent_start.circumstances.caused_by = CausedBy::Agent;
    let inactive = match agent() {
        Actor::Agent(actor) => Actor::Agent(AgentActor { active: false, ..actor }),
        other => other,
    };
    vec![
        ("base-inactive", request(inactive, Action::GitPush(push()))),
        ("base-breaker", halted(push_by_agent(push()))),
        ("base-breaker-run", halted(request(human("ada"), Action::RunStart(start())))),
        ("base-breaker-landing", halted(land_by_agent(land()))),
        ("base-breaker-release", halted(admit_by_service(production()))),
        ("base-breaker-rollout", halted(request(service(), Action::RolloutCommand(rollout(RolloutVerb::Step))))),
        ("base-only-people-approve", request(service(), Action::RequestApprove(approve()))),
        ("base-stale-request", request(human("grace"), Action::RequestApprove(RequestApprove { current: false, ..approve() }))),
        ("base-approval-key-class", weak_approval),
        ("base-only-people-govern", request(service(), activate(true))),
        ("base-agents-order-nothing", by_agent_start),
        ("base-agents-command-no-rollout", request(agent(), Action::ReleaseAdmit(production()))),
        ("base-agents-run-no-jobs", request(agent(), Action::JobRun(job(JobPurpose::Test, false)))),
        ("base-quorum", request(administrator("root"), Action::ModeChange(ModeChange { repository: "web".parse().unwrap(), stage: "git".to_owned(), from: Mode::Enforce, to: Mode::Observe, approvals: none() }))),
        ("base-inventory-quorum", request(administrator("root"), Action::InventoryChange(InventoryChange { approvals: none(), ..inventory(InventoryOperation::Add) }))),
        ("base-inventory-complete", request(administrator("root"), Action::InventoryChange(InventoryChange { complete: false, ..inventory(InventoryOperation::Add) }))),
        ("base-policy-checked", request(administrator("root"), activate(false))),
        ("base-reset-key-class", weak_reset),
        ("base-wider-than-agent", request(human("ada"), Action::TaskSign(TaskSign { agent: fixer(), repositories: BTreeSet::new(), wider_than_agent: set(&["path:infra/**"]), life_ms: 1, allowed_gaps: BTreeSet::new(), demands_managed_host: false }))),
        ("base-agent-inactive", request(human("ada"), Action::RunStart(RunStart { agent: AgentTarget { active: false, ..fixer() }, ..start() }))),
        ("base-task", push_by_agent(GitPush { task: None, ..push() })),
        ("base-unknown", request(Actor::Unknown, Action::GitPush(push()))),
        ("base-task-to-start", request(human("ada"), Action::RunStart(RunStart { task: None, ..start() }))),
        ("base-task-over", with_task(|task| task.expired = true)),
        ("base-task-over", with_task(|task| task.revoked = true)),
        ("base-task", with_task(|task| task.verified = false)),
        ("base-task-wider-now", with_task(|task| task.wider_than_agent = set(&["repository:web"]))),
        ("base-budget", with_task(|task| task.exhausted = set(&["pushes"]))),
        ("base-budget", request(agent(), Action::GitFetch(GitFetch { repository: "web".parse().unwrap(), task: task().map(|task| TaskFacts { exhausted: set(&["calls"]), ..task }), in_task: true }))),
        ("base-task-asks", request(agent(), Action::RunContinue(RunContinue { task_asks: true, ..going_on() }))),
        ("base-host", request(human("ada"), Action::RunStart(RunStart { host_enrolled: false, ..start() }))),
        ("base-managed-host", request(human("ada"), Action::RunStart(RunStart { demands_managed_host: true, host_class: HostClass::SelfRun, ..start() }))),
        ("base-sandbox-gap", request(human("ada"), Action::RunStart(RunStart { gaps: set(&["network"]), ..start() }))),
        ("base-observed-holds-nothing", observed),
        ("base-other-repository", push_by_agent(GitPush { in_task: false, ..push() })),
        ("base-protected-ref", push_by_agent(GitPush { for_review: false, ..push() })),
        ("base-deploying-ref", request(human("ada"), Action::GitPush(GitPush { for_review: false, deploys_to: Deploys::To(Sensitivity::Production), ..push() }))),
        ("base-force", push_by_agent(GitPush { for_review: false, protected: false, update: UpdateKind::Force, ..push() })),
        ("base-delete", push_by_agent(GitPush { for_review: false, protected: false, update: UpdateKind::Delete, ..push() })),
        ("base-tag", push_by_agent(GitPush { for_review: false, protected: false, update: UpdateKind::Tag, ..push() })),
        ("base-scope", push_by_agent(GitPush { paths_outside_scope: set(&["ci.yml"]), ..push() })),
        ("base-scope-size", push_by_agent(GitPush { over_scope: set(&["files"]), ..push() })),
        ("base-names", push_by_agent(GitPush { commits_in_other_names: set(&["Ada"]), ..push() })),
        ("base-pack", request(human("ada"), Action::GitPush(GitPush { pack_bytes: 101, ..push() }))),
        ("base-pack", request(human("ada"), Action::GitPush(GitPush { pack_bytes: u64::MAX, ..push() }))),
        ("base-undeclared-endpoint", request(agent(), Action::ModelCall(ModelCall { declared: false, ..model_call() }))),
        ("base-private-address", request(agent(), Action::NetConnect(NetConnect { private_address: true, ..connect() }))),
        ("base-secret-leaves", request(agent(), Action::NetConnect(NetConnect { secrets: set(&["github-token"]), ..connect() }))),
        ("base-kept-file", request(agent(), Action::NetConnect(NetConnect { kept_files: set(&["a.key"]), ..connect() }))),
        ("base-kept-file", request(agent(), Action::ModelCall(ModelCall { kept_files: set(&["a.key"]), ..model_call() }))),
        ("base-foreign-credential", request(agent(), Action::NetConnect(NetConnect { foreign_credential: true, ..connect() }))),
        ("base-blocked", land_by_agent(ChangeLand { checks: Some(CheckVerdict::Block), ..land() })),
        ("base-blocked", land_by_agent(ChangeLand { checks: None, ..land() })),
        ("base-tests", land_by_agent(ChangeLand { tests: Some(TestVerdict::Failed), ..land() })),
        ("base-tests", land_by_agent(ChangeLand { tests: None, ..land() })),
        ("base-escalation", land_by_agent(ChangeLand { escalations: set(&["pipeline"]), approvals: none(), ..land() })),
        ("base-landing-deploys", land_by_agent(ChangeLand { deploys_to: Deploys::To(Sensitivity::Production), approvals: Approvals(vec![other("grace", KeyClass::Software)]), ..land() })),
        ("base-landing-ceiling", land_by_agent(ChangeLand { above_ceiling: ["fixer".parse().unwrap()].into(), ..land() })),
        ("base-provenance", admit_by_service(ReleaseAdmit { provenance_verified: false, ..production() })),
        ("base-provenance", admit_by_service(ReleaseAdmit { every_commit_covered: false, ..admit(Sensitivity::Staging) })),
        ("base-revoked", admit_by_service(ReleaseAdmit { revoked: true, ..production() })),
        ("base-ceiling", admit_by_service(ReleaseAdmit { above_ceiling: ["fixer".parse().unwrap()].into(), ..production() })),
        ("base-unproven-commits", admit_by_service(ReleaseAdmit { unproven_commits: 1, approvals: none(), ..admit(Sensitivity::Staging) })),
        ("base-production-person", admit_by_service(ReleaseAdmit { contains_agent_work: false, approvals: none(), ..production() })),
        ("base-production-two-parties", admit_by_service(ReleaseAdmit { approvals: Approvals(vec![approval("ada", crate::Party::Own, KeyClass::Verified)]), ..production() })),
        ("base-canary", admit_by_service(ReleaseAdmit { canary: false, ..production() })),
        ("base-rollback-target", request(human("ada"), Action::RolloutCommand(RolloutCommand { target_revoked: true, ..rollout(RolloutVerb::Rollback) }))),
        ("base-rollback-target", request(human("ada"), Action::RolloutCommand(RolloutCommand { target_admitted: false, ..rollout(RolloutVerb::Start) }))),
        ("base-automatic-rollback", request(service(), Action::RolloutCommand(RolloutCommand { thresholds_explicit: false, ..rollout(RolloutVerb::Rollback) }))),
        ("base-reset-key-class", { let mut request = request(administrator("root"), Action::CommitAccept(CommitAccept { repository: "web".parse().unwrap(), commit: GitOid::zero(), approvals: none() })); request.circumstances.key_class = KeyClass::Software; request }),
    ]
}

#[test]
fn no_permit_outweighs_the_base() {
    let set = with(PERMIT_ALL);
    for (rule, request) in attacks() {
        let summary = decide(&set, &request, 0).summary();
        assert_ne!(summary.answer, Answer::Permit, "{rule}");
        let ids: Vec<&str> = summary.rules.iter().map(|rule| rule.id.as_str()).collect();
        assert_eq!(ids, [rule], "{} alone stops it", rule);
    }
}

#[test]
fn every_base_forbid_is_attacked() {
    let attacked: BTreeSet<&str> = attacks().into_iter().map(|(rule, _)| rule).collect();
    for rule in embedded().rules() {
        if rule.layer == Layer::Base && !rule.permits {
            assert!(attacked.contains(rule.rule.id.as_str()), "{}", rule.rule);
        }
    }
}

#[test]
fn the_samples_are_permitted_as_they_stand() {
    let set = with(PERMIT_ALL);
    for request in [
        push_by_agent(push()),
        land_by_agent(land()),
        admit_by_service(admit(Sensitivity::Production)),
        request(human("ada"), Action::RunStart(start())),
        request(agent(), Action::ModelCall(model_call())),
        request(agent(), Action::NetConnect(connect())),
        request(human("grace"), Action::RequestApprove(approve())),
        request(
            administrator("root"),
            Action::InventoryChange(inventory(InventoryOperation::Add)),
        ),
    ] {
        let decision = decide(&set, &request, 0);
        assert!(matches!(decision, Decision::Permit(_)), "{decision:?}");
    }
}

#[test]
fn without_an_organisation_policy_nothing_but_less_authority_is_permitted() {
    let bare = crate::PolicySet::load(&[], &[]).unwrap();
    for (name, action) in actions() {
        let reduces = action.reduces_authority();
        for actor in [
            human("ada"),
            administrator("root"),
            agent(),
            service(),
            host(),
        ] {
            let request = request(actor, action.clone());
            assert!(!is_permit(&bare, &request) || reduces, "{name}");
        }
    }
}

#[test]
fn what_an_agent_caused_is_the_agents_in_every_action() {
    let set = with(PERMIT_ALL);
    for (name, action) in actions() {
        for actor in [human("ada"), administrator("root"), service(), host()] {
            for cause in [CausedBy::Agent, CausedBy::Unknown] {
                let mut request = request(actor.clone(), action.clone());
                request.circumstances.caused_by = cause;
                assert_eq!(request.kind(), portcullis_model::Kind::Agent);
                let governs = matches!(
                    action,
                    Action::RequestApprove(_)
                        | Action::PolicyActivate(_)
                        | Action::ModeChange(_)
                        | Action::InventoryChange(_)
                        | Action::BreakerReset(_)
                        | Action::CommitAccept(_)
                        | Action::TaskSign(_)
                        | Action::ReleaseAdmit(_)
                        | Action::RolloutCommand(_)
                        | Action::BreakerTrip(_)
                );
                let answer = decide(&set, &request, 0).summary().answer;
                assert!(!governs || answer == Answer::Deny, "{name}: {answer}");
            }
        }
    }
}

#[test]
fn less_authority_is_never_blocked_by_other_policy() {
    let no =
        "@id(\"never\") @reason(\"No.\") @next(\"No.\")\nforbid (principal, action, resource);";
    let set = with(no);
    let mut tried = 0;
    for (name, action) in actions() {
        if action.reduces_authority() {
            tried += 1;
            assert!(
                is_permit(&set, &request(administrator("root"), action)),
                "{name}"
            );
        } else {
            assert!(
                !is_permit(&set, &request(administrator("root"), action)),
                "{name}"
            );
        }
    }
    assert!(tried >= 6);
    // With the breaker tripped, too.
    for verb in [
        RolloutVerb::Pause,
        RolloutVerb::Abort,
        RolloutVerb::Rollback,
    ] {
        let back = halted(request(human("ada"), Action::RolloutCommand(rollout(verb))));
        assert!(is_permit(&set, &back));
    }
}

#[test]
fn a_rule_that_fails_denies_and_is_named() {
    // Overflows for each push that has denials behind it; validation can't see that.
    let failing = format!(
        "{PERMIT_ALL}\n@id(\"broken\") @reason(\"Never.\") @next(\"Never.\")\nforbid (principal, action == Action::\"git.push\", resource) when {{ context.denials_so_far * 9223372036854775807 > 9223372036854775806 }};"
    );
    let set = with(&failing);
    assert!(is_permit(&set, &push_by_agent(push())));
    let request = push_by_agent(GitPush {
        denials_so_far: 2,
        ..push()
    });
    let Decision::Deny(denial) = decide(&set, &request, 0) else {
        panic!("a failing rule must deny");
    };
    assert_eq!(denial.cause, crate::DenialCause::PolicyError);
    assert_eq!(denial.rules[0].id, "broken");
    assert!(denial.facts[0].contains("overflow"), "{:?}", denial.facts);
    assert!(denial.in_every_mode);

    // A permit that fails is no permit and no silence either.
    let failing = failing
        .replace(
            "forbid (principal, action == Action::\"git.push\"",
            "permit (principal, action == Action::\"git.push\"",
        )
        .replace("@id(\"broken\")", "@id(\"broken\") @needs(\"x\")");
    let request = push_by_agent(GitPush {
        denials_so_far: 2,
        ..push()
    });
    assert!(!is_permit(&with(&failing), &request));
}

#[test]
fn an_error_never_becomes_an_ask() {
    // Fails only while nobody approved; a hypothetical approval would hide it.
    let set = with(&format!(
        "{PERMIT_ALL}\n@id(\"broken\") @reason(\"Never.\") @next(\"Never.\")\nforbid (principal, action == Action::\"change.land\", resource) when {{ (9223372036854775807 + 1 - context.approvals.humans) < 0 }};"
    ));
    let unapproved = land_by_agent(ChangeLand {
        approvals: Approvals::default(),
        ..land()
    });
    assert_eq!(decide(&set, &unapproved, 0).summary().answer, Answer::Deny);
}

#[test]
fn rules_marked_always_hold_in_every_mode_and_others_are_recorded() {
    let set = with(PERMIT_ALL);
    for (rule, mut request) in attacks() {
        let always = set
            .rules
            .iter()
            .any(|known| known.at.id == rule && known.always);
        for mode in [Mode::Observe, Mode::Warn] {
            request.circumstances.mode = mode;
            let decided = decide(&set, &request, 0);
            let would = decided.summary();
            match modes::apply(&request, decided) {
                modes::Applied::Enforced(decision) => {
                    assert!(always || !request.action.has_mode(), "{rule}");
                    assert_eq!(decision.summary(), would);
                }
                modes::Applied::Unenforced(passed) => {
                    assert!(!always, "{rule} holds in every mode");
                    assert_eq!(passed.would, would);
                    assert_ne!(passed.permit.standing(), crate::Standing::Permitted);
                }
            }
        }
    }
}

#[test]
fn production_needs_a_person_in_every_mode() {
    let set = with(PERMIT_ALL);
    for mode in [Mode::Observe, Mode::Warn, Mode::Enforce] {
        let mut request = admit_by_service(ReleaseAdmit {
            approvals: Approvals::default(),
            ..admit(Sensitivity::Production)
        });
        request.circumstances.mode = mode;
        let applied = modes::apply(&request, decide(&set, &request, 0));
        assert!(
            matches!(applied, modes::Applied::Enforced(Decision::Ask(_))),
            "{mode}: {applied:?}"
        );
    }
}

#[test]
fn no_mode_starts_a_run_or_lends_anything_without_authority() {
    let set = embedded();
    let acts = [
        request(
            human("ada"),
            Action::RunStart(RunStart {
                task: None,
                ..start()
            }),
        ),
        request(
            agent(),
            Action::ModelCall(ModelCall {
                task: None,
                ..model_call()
            }),
        ),
        request(
            agent(),
            Action::ModelCall(ModelCall {
                in_task: false,
                ..model_call()
            }),
        ),
        request(
            agent(),
            Action::LeaseIssue(LeaseIssue {
                endpoint: "models".parse().unwrap(),
                task: None,
                in_task: true,
                life_ms: 1,
            }),
        ),
    ];
    for mut request in acts {
        request.circumstances.mode = Mode::Observe;
        let applied = modes::apply(&request, decide(&set, &request, 0));
        assert!(
            matches!(applied, modes::Applied::Enforced(Decision::Deny(_))),
            "{applied:?}"
        );
    }
}

#[test]
fn a_permit_in_mode_observe_is_not_called_enforced() {
    let set = with(PERMIT_ALL);
    let mut request = push_by_agent(push());
    request.circumstances.mode = Mode::Observe;
    match modes::apply(&request, decide(&set, &request, 0)) {
        modes::Applied::Unenforced(passed) => {
            assert_eq!(passed.would.answer, Answer::Permit);
            assert_eq!(passed.permit.standing(), crate::Standing::Observed);
        }
        modes::Applied::Enforced(decision) => panic!("{decision:?}"),
    }
}
