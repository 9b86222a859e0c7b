//! The context of a request: what stands in every one, and the facts of each action.

use std::collections::BTreeSet;

use portcullis_model::RepositoryId;
use portcullis_model::event::{CheckVerdict, TestVerdict};
use portcullis_model::manifest::HostClass;

use super::{Attributes, Uid, Value};
use crate::action::Action;
use crate::action::kind::sensitivity;
use crate::approvals::{self, Approvals, Needed};
use crate::request::{Actor, Request, TaskFacts};

/// The facts that stand in every context.
pub(super) fn common(request: &Request) -> Attributes {
    let around = &request.circumstances;
    let (active, administrator) = match &request.actor {
        Actor::Human(human) => (human.active, human.administrator),
        Actor::Agent(agent) => (agent.active, false),
        Actor::Service(service) => (service.active, false),
        Actor::Host(host) => (host.active, false),
        Actor::Unknown => (true, false),
    };
    let mut context = Vec::with_capacity(24);
    context.extend([
        ("kind", Value::text(request.kind())),
        ("active", Value::Bool(active)),
        ("administrator", Value::Bool(administrator)),
        (
            "containment",
            around
                .containment
                .map_or_else(|| Value::text("none"), Value::text),
        ),
        ("mode", Value::text(around.mode)),
        ("taint", Value::texts(&around.taint)),
        ("breaker", Value::Bool(around.breaker)),
        ("key_class", Value::key_class(around.key_class)),
        ("now_ms", Value::count(around.now.as_ms())),
        (
            "genesis",
            Value::Record(vec![
                ("solo", Value::Bool(around.genesis.solo)),
                ("quorum", Value::count(around.genesis.quorum.into())),
                (
                    "key_floor",
                    Value::key_class(request.action.key_floor(&around.genesis.key_floor)),
                ),
            ]),
        ),
    ]);
    context
}

/// The facts of the action itself.
pub(super) fn specific(request: &Request, more: Option<Needed>, context: &mut Attributes) {
    let approvals = |given: &Approvals| ("approvals", approvals::facts(given, request, more));
    match &request.action {
        Action::TaskSign(facts) => context.extend([
            ("repositories", repositories(&facts.repositories)),
            ("wider_than_agent", Value::texts(&facts.wider_than_agent)),
            ("life_ms", Value::count(facts.life_ms)),
            ("allowed_gaps", Value::texts(&facts.allowed_gaps)),
            (
                "demands_managed_host",
                Value::Bool(facts.demands_managed_host),
            ),
        ]),
        Action::RunStart(facts) => context.extend([
            ("task", task(facts.task.as_ref())),
            ("host", Value::Entity(Uid::new("Host", &facts.host))),
            ("host_enrolled", Value::Bool(facts.host_enrolled)),
            ("host_class", Value::text(host_class(facts.host_class))),
            (
                "demands_managed_host",
                Value::Bool(facts.demands_managed_host),
            ),
            ("gaps", Value::texts(&facts.gaps)),
        ]),
        Action::RunContinue(facts) => context.extend([
            ("window", Value::count(facts.window)),
            ("window_over", Value::Bool(facts.window_over)),
            ("task_asks", Value::Bool(facts.task_asks)),
            ("denials", Value::count(facts.denials)),
            ("new_taint", Value::texts(&facts.new_taint)),
            ("newly_exhausted", Value::texts(&facts.newly_exhausted)),
            ("pushes", Value::count(facts.pushes)),
            ("calls", Value::count(facts.calls)),
            approvals(&facts.approvals),
        ]),
        Action::RunStop(_) | Action::ReleaseRevoke(_) | Action::BreakerTrip(_) => {}
        Action::GitFetch(facts) => context.extend([
            ("task", task(facts.task.as_ref())),
            ("in_task", Value::Bool(facts.in_task)),
        ]),
        Action::GitPush(facts) => context.extend([
            ("task", task(facts.task.as_ref())),
            ("in_task", Value::Bool(facts.in_task)),
            (
                "repository",
                Value::Entity(Uid::new("Repository", &facts.repository)),
            ),
            ("ref", Value::text(&facts.reference)),
            ("update_kind", Value::text(facts.update.as_str())),
            ("protected", Value::Bool(facts.protected)),
            ("for_review", Value::Bool(facts.for_review)),
            ("deploys_to", Value::text(facts.deploys_to.as_str())),
            (
                "paths_outside_scope",
                Value::texts(&facts.paths_outside_scope),
            ),
            ("over_scope", Value::texts(&facts.over_scope)),
            ("pack_bytes", Value::count(facts.pack_bytes)),
            ("pack_limit_bytes", Value::count(facts.pack_limit_bytes)),
            (
                "commits_in_other_names",
                Value::texts(&facts.commits_in_other_names),
            ),
            ("denials_so_far", Value::count(facts.denials_so_far)),
        ]),
        Action::ModelCall(facts) => context.extend([
            ("task", task(facts.task.as_ref())),
            ("in_task", Value::Bool(facts.in_task)),
            ("model", Value::text(&facts.model)),
            ("declared", Value::Bool(facts.declared)),
            ("model_changes", Value::texts(&facts.model_changes)),
            ("secrets", Value::texts(&facts.secrets)),
            ("kept_files", Value::texts(&facts.kept_files)),
        ]),
        Action::NetConnect(facts) => context.extend([
            ("task", task(facts.task.as_ref())),
            ("host", Value::text(&facts.host)),
            ("port", Value::count(facts.port.into())),
            ("method", Value::text(&facts.method)),
            ("path", Value::text(&facts.path)),
            ("named_in_task", Value::Bool(facts.named_in_task)),
            ("private_address", Value::Bool(facts.private_address)),
            ("foreign_credential", Value::Bool(facts.foreign_credential)),
            ("opaque", Value::Bool(facts.opaque)),
            ("secrets", Value::texts(&facts.secrets)),
            ("kept_files", Value::texts(&facts.kept_files)),
        ]),
        Action::LeaseIssue(facts) => context.extend([
            ("task", task(facts.task.as_ref())),
            ("in_task", Value::Bool(facts.in_task)),
            ("life_ms", Value::count(facts.life_ms)),
        ]),
        Action::ChangeLand(facts) => context.extend([
            ("task", task(facts.task.as_ref())),
            (
                "repository",
                Value::Entity(Uid::new("Repository", &facts.repository)),
            ),
            ("ref", Value::text(&facts.reference)),
            ("protected", Value::Bool(facts.protected)),
            ("by_agent", Value::Bool(facts.by_agent)),
            ("checks_verdict", Value::text(checks(facts.checks))),
            (
                "blocked",
                Value::Bool(facts.checks == Some(CheckVerdict::Block)),
            ),
            ("escalations", Value::texts(&facts.escalations)),
            ("tests", Value::text(tests(facts.tests))),
            ("deploys_to", Value::text(facts.deploys_to.as_str())),
            ("above_ceiling", agents(&facts.above_ceiling)),
            ("model_changes", Value::texts(&facts.model_changes)),
            approvals(&facts.approvals),
        ]),
        Action::CommitAccept(facts) => context.extend([
            ("commit", Value::text(&facts.commit)),
            approvals(&facts.approvals),
        ]),
        Action::RequestApprove(facts) => context.extend([
            ("asks", Value::text(&facts.asks)),
            ("own_party", Value::Bool(facts.own_party)),
            ("key_class_needed", Value::key_class(facts.key_class_needed)),
            ("current", Value::Bool(facts.current)),
        ]),
        Action::RequestReject(facts) => context.extend([
            ("asks", Value::text(&facts.asks)),
            ("own_party", Value::Bool(facts.own_party)),
        ]),
        Action::JobRun(facts) => context.extend([
            (
                "repository",
                Value::Entity(Uid::new("Repository", &facts.repository)),
            ),
            ("purpose", Value::text(facts.purpose.as_str())),
            (
                "from_protected_base",
                Value::Bool(facts.from_protected_base),
            ),
            ("commit_landed", Value::Bool(facts.commit_landed)),
            (
                "contains_agent_work",
                Value::Bool(facts.contains_agent_work),
            ),
            ("undeclared_hosts", Value::texts(&facts.undeclared_hosts)),
        ]),
        Action::ReleaseAdmit(facts) => context.extend([
            (
                "repository",
                Value::Entity(Uid::new("Repository", &facts.repository)),
            ),
            (
                "sensitivity",
                Value::text(sensitivity(facts.environment.sensitivity)),
            ),
            (
                "provenance_verified",
                Value::Bool(facts.provenance_verified),
            ),
            (
                "every_commit_covered",
                Value::Bool(facts.every_commit_covered),
            ),
            (
                "contains_agent_work",
                Value::Bool(facts.contains_agent_work),
            ),
            ("above_ceiling", agents(&facts.above_ceiling)),
            ("canary", Value::Bool(facts.canary)),
            ("unproven_commits", Value::count(facts.unproven_commits)),
            ("revoked", Value::Bool(facts.revoked)),
            approvals(&facts.approvals),
        ]),
        Action::RolloutCommand(facts) => context.extend([
            (
                "sensitivity",
                Value::text(sensitivity(facts.environment.sensitivity)),
            ),
            ("command", Value::text(facts.command.as_str())),
            (
                "contains_agent_work",
                Value::Bool(facts.contains_agent_work),
            ),
            ("target_admitted", Value::Bool(facts.target_admitted)),
            ("target_revoked", Value::Bool(facts.target_revoked)),
            ("telemetry_reliable", Value::Bool(facts.telemetry_reliable)),
            (
                "thresholds_explicit",
                Value::Bool(facts.thresholds_explicit),
            ),
            (
                "blast_radius_bounded",
                Value::Bool(facts.blast_radius_bounded),
            ),
            approvals(&facts.approvals),
        ]),
        Action::InventoryChange(facts) => context.extend([
            ("operation", Value::text(facts.operation.as_str())),
            ("widens", Value::texts(&facts.widens)),
            ("touches_keys", Value::Bool(facts.touches_keys)),
            ("complete", Value::Bool(facts.complete)),
            approvals(&facts.approvals),
        ]),
        Action::PolicyActivate(facts) => context.extend([
            ("checked", Value::Bool(facts.checked)),
            ("tests_failed", Value::count(facts.tests_failed)),
            approvals(&facts.approvals),
        ]),
        Action::ModeChange(facts) => context.extend([
            ("stage", Value::text(&facts.stage)),
            ("from", Value::text(facts.from)),
            ("to", Value::text(facts.to)),
            approvals(&facts.approvals),
        ]),
        Action::BreakerReset(facts) => context.push(approvals(&facts.approvals)),
    }
}

fn task(task: Option<&TaskFacts>) -> Value {
    let empty = BTreeSet::new();
    let of = |field: fn(&TaskFacts) -> &BTreeSet<String>| Value::texts(task.map_or(&empty, field));
    Value::Record(vec![
        ("present", Value::Bool(task.is_some())),
        (
            "verified",
            Value::Bool(task.is_some_and(|task| task.verified)),
        ),
        (
            "expired",
            Value::Bool(task.is_some_and(|task| task.expired)),
        ),
        (
            "revoked",
            Value::Bool(task.is_some_and(|task| task.revoked)),
        ),
        (
            "signer",
            Value::Text(task.map(|task| task.signer.clone()).unwrap_or_default()),
        ),
        ("capabilities", of(|task| &task.capabilities)),
        (
            "repositories",
            task.map_or(Value::Entities(Vec::new()), |task| {
                repositories(&task.repositories)
            }),
        ),
        ("wider_than_agent", of(|task| &task.wider_than_agent)),
        ("exhausted", of(|task| &task.exhausted)),
    ])
}

fn repositories(ids: &BTreeSet<RepositoryId>) -> Value {
    Value::Entities(ids.iter().map(|id| Uid::new("Repository", id)).collect())
}

fn agents(ids: &BTreeSet<portcullis_model::AgentId>) -> Value {
    Value::Entities(ids.iter().map(|id| Uid::new("Agent", id)).collect())
}

const fn host_class(class: HostClass) -> &'static str {
    match class {
        HostClass::Managed => "managed",
        HostClass::SelfRun => "self-run",
    }
}

const fn checks(verdict: Option<CheckVerdict>) -> &'static str {
    match verdict {
        Some(CheckVerdict::Pass) => "pass",
        Some(CheckVerdict::Escalate) => "escalate",
        Some(CheckVerdict::Block) => "block",
        None => "missing",
    }
}

const fn tests(verdict: Option<TestVerdict>) -> &'static str {
    match verdict {
        Some(TestVerdict::Passed) => "passed",
        Some(TestVerdict::Failed) => "failed",
        Some(TestVerdict::Missing) | None => "missing",
        Some(TestVerdict::NotConfigured) => "not-configured",
    }
}
