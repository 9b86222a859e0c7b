//! From a request to the facts that rules see, as plain values.
//!
//! The names here are those of `schema.cedarschema`. A test validates the facts of every action
//! against it.

use std::collections::BTreeSet;
use std::fmt;

use portcullis_model::event::{CheckVerdict, KeyFloor, TestVerdict};
use portcullis_model::manifest::{HostClass, Sensitivity};
use portcullis_model::statement::BreakerScope;
use portcullis_model::{GroupId, KeyClass, RepositoryId};

use crate::action::{
    Action, AgentTarget, Deploys, EnvironmentTarget, InventoryOperation, InventoryRecord,
    JobPurpose, RolloutVerb, UpdateKind,
};
use crate::approvals::{self, Approvals, Needed};
use crate::request::{Actor, Request, TaskFacts};

/// A value of a fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Bool(bool),
    Long(i64),
    Text(String),
    Texts(Vec<String>),
    Entity(Uid),
    Entities(Vec<Uid>),
    Record(Attributes),
}

pub(crate) type Attributes = Vec<(&'static str, Value)>;

impl Value {
    fn texts(values: &BTreeSet<String>) -> Self {
        Self::Texts(values.iter().cloned().collect())
    }

    fn text(value: impl fmt::Display) -> Self {
        Self::Text(value.to_string())
    }

    fn count(value: u64) -> Self {
        Self::Long(i64::try_from(value).unwrap_or(i64::MAX))
    }

    const fn key_class(class: KeyClass) -> Self {
        Self::Long(match class {
            KeyClass::Software => 0,
            KeyClass::Presence => 1,
            KeyClass::Verified => 2,
        })
    }
}

/// Most members of a set that a message shows; the rest is counted.
const SHOWN_MAX_MEMBERS: usize = 5;

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
            f.write_str("[")?;
            for (at, item) in items.iter().take(SHOWN_MAX_MEMBERS).enumerate() {
                let comma = if at == 0 { "" } else { ", " };
                write!(f, "{comma}{item}")?;
            }
            match items.len().checked_sub(SHOWN_MAX_MEMBERS) {
                Some(more) if more > 0 => write!(f, " and {more} more]"),
                Some(_) | None => f.write_str("]"),
            }
        }
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Long(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::Texts(values) => {
                let quoted: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
                list(f, &quoted)
            }
            Self::Entity(uid) => write!(f, "{uid}"),
            Self::Entities(uids) => list(f, uids),
            Self::Record(fields) => {
                let shown: Vec<_> = fields
                    .iter()
                    .map(|(name, value)| format!("{name}: {value}"))
                    .collect();
                write!(f, "{{{}}}", shown.join(", "))
            }
        }
    }
}

/// The name of an entity: its type in the schema and its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uid {
    pub(crate) kind: &'static str,
    pub(crate) id: String,
}

impl Uid {
    pub(crate) fn new(kind: &'static str, id: impl fmt::Display) -> Self {
        Self {
            kind,
            id: id.to_string(),
        }
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind, self.id)
    }
}

/// An entity with what it is in and what it has.
#[derive(Clone, Debug)]
pub(crate) struct Thing {
    pub(crate) uid: Uid,
    pub(crate) parents: Vec<Uid>,
    pub(crate) attributes: Attributes,
}

impl Thing {
    fn plain(uid: Uid) -> Self {
        Self {
            uid,
            parents: Vec::new(),
            attributes: Vec::new(),
        }
    }

    fn within(uid: Uid, parents: Vec<Uid>) -> Self {
        Self {
            uid,
            parents,
            attributes: Vec::new(),
        }
    }
}

/// Everything that rules see of a request.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) principal: Uid,
    pub(crate) action: &'static str,
    pub(crate) resource: Uid,
    pub(crate) things: Vec<Thing>,
    pub(crate) context: Attributes,
}

impl Facts {
    /// The facts of `request`, as if `more` approvals stood beside those that do.
    pub(crate) fn of(request: &Request, more: Option<Needed>) -> Self {
        let mut things = Vec::with_capacity(4);
        let principal = actor(&request.actor, &mut things);
        let resource = resource(&request.action, &mut things);
        let mut context = common(request);
        specific(request, more, &mut context);
        Self {
            principal,
            action: request.action.name(),
            resource,
            things,
            context,
        }
    }

    /// The value at a path such as `context.task.present` or `resource.deployers`.
    pub(crate) fn at(&self, path: &str) -> Option<&Value> {
        let mut steps = path.split('.');
        let mut attributes = match steps.next()? {
            "context" => &self.context,
            "principal" => self.attributes(&self.principal)?,
            "resource" => self.attributes(&self.resource)?,
            _ => return None,
        };
        let mut found = None;
        for step in steps {
            let (_, value) = attributes.iter().find(|(name, _)| *name == step)?;
            found = Some(value);
            if let Value::Record(fields) = value {
                attributes = fields;
            }
        }
        found
    }

    fn attributes(&self, uid: &Uid) -> Option<&Attributes> {
        self.things
            .iter()
            .find(|thing| thing.uid == *uid)
            .map(|thing| &thing.attributes)
    }
}

impl Action {
    /// The action's name in policies, such as `git.push`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TaskSign(_) => "task.sign",
            Self::RunStart(_) => "run.start",
            Self::RunStop(_) => "run.stop",
            Self::GitFetch(_) => "git.fetch",
            Self::GitPush(_) => "git.push",
            Self::ModelCall(_) => "model.call",
            Self::NetConnect(_) => "net.connect",
            Self::LeaseIssue(_) => "lease.issue",
            Self::ChangeLand(_) => "change.land",
            Self::CommitAccept(_) => "commit.accept",
            Self::RequestApprove(_) => "request.approve",
            Self::RequestReject(_) => "request.reject",
            Self::JobRun(_) => "job.run",
            Self::ReleaseAdmit(_) => "release.admit",
            Self::ReleaseRevoke(_) => "release.revoke",
            Self::RolloutCommand(_) => "rollout.command",
            Self::InventoryChange(_) => "inventory.change",
            Self::PolicyActivate(_) => "policy.activate",
            Self::ModeChange(_) => "mode.change",
            Self::BreakerTrip(_) => "breaker.trip",
            Self::BreakerReset(_) => "breaker.reset",
        }
    }

    /// Whether the act only takes authority away. Such requests are decided by the base alone, so
    /// that no other policy can stand in their way.
    pub const fn reduces_authority(&self) -> bool {
        match self {
            Self::RunStop(_)
            | Self::RequestReject(_)
            | Self::ReleaseRevoke(_)
            | Self::BreakerTrip(_) => true,
            Self::RolloutCommand(facts) => facts.command.reduces_authority(),
            Self::InventoryChange(facts) => facts.operation.reduces_authority(),
            Self::TaskSign(_)
            | Self::RunStart(_)
            | Self::GitFetch(_)
            | Self::GitPush(_)
            | Self::ModelCall(_)
            | Self::NetConnect(_)
            | Self::LeaseIssue(_)
            | Self::ChangeLand(_)
            | Self::CommitAccept(_)
            | Self::RequestApprove(_)
            | Self::JobRun(_)
            | Self::ReleaseAdmit(_)
            | Self::PolicyActivate(_)
            | Self::ModeChange(_)
            | Self::BreakerReset(_) => false,
        }
    }

    /// Whether modes apply: to the stages of the way, and never to governance, approvals or
    /// whatever takes authority away.
    pub const fn has_mode(&self) -> bool {
        match self {
            Self::RunStart(_)
            | Self::GitFetch(_)
            | Self::GitPush(_)
            | Self::ModelCall(_)
            | Self::NetConnect(_)
            | Self::LeaseIssue(_)
            | Self::ChangeLand(_)
            | Self::JobRun(_)
            | Self::ReleaseAdmit(_) => true,
            Self::RolloutCommand(facts) => !facts.command.reduces_authority(),
            Self::TaskSign(_)
            | Self::RunStop(_)
            | Self::CommitAccept(_)
            | Self::RequestApprove(_)
            | Self::RequestReject(_)
            | Self::ReleaseRevoke(_)
            | Self::InventoryChange(_)
            | Self::PolicyActivate(_)
            | Self::ModeChange(_)
            | Self::BreakerTrip(_)
            | Self::BreakerReset(_) => false,
        }
    }

    /// The approvals that stand, for actions that approvals can make possible.
    pub const fn approvals(&self) -> Option<&Approvals> {
        match self {
            Self::ChangeLand(facts) => Some(&facts.approvals),
            Self::CommitAccept(facts) => Some(&facts.approvals),
            Self::ReleaseAdmit(facts) => Some(&facts.approvals),
            Self::RolloutCommand(facts) => Some(&facts.approvals),
            Self::InventoryChange(facts) => Some(&facts.approvals),
            Self::PolicyActivate(facts) => Some(&facts.approvals),
            Self::ModeChange(facts) => Some(&facts.approvals),
            Self::BreakerReset(facts) => Some(&facts.approvals),
            Self::TaskSign(_)
            | Self::RunStart(_)
            | Self::RunStop(_)
            | Self::GitFetch(_)
            | Self::GitPush(_)
            | Self::ModelCall(_)
            | Self::NetConnect(_)
            | Self::LeaseIssue(_)
            | Self::RequestApprove(_)
            | Self::RequestReject(_)
            | Self::JobRun(_)
            | Self::ReleaseRevoke(_)
            | Self::BreakerTrip(_) => None,
        }
    }

    /// The least key class that the genesis demands for such an act.
    pub const fn key_floor(&self, floor: &KeyFloor) -> KeyClass {
        match self {
            Self::ChangeLand(_)
            | Self::CommitAccept(_)
            | Self::ReleaseAdmit(_)
            | Self::RolloutCommand(_) => floor.production,
            Self::PolicyActivate(_) => floor.policy,
            Self::BreakerReset(_) => floor.breaker_reset,
            Self::InventoryChange(facts) => match &facts.record {
                InventoryRecord::Human(_)
                | InventoryRecord::Service(_)
                | InventoryRecord::Host(_) => floor.keys,
                InventoryRecord::Agent(_)
                | InventoryRecord::Group(_)
                | InventoryRecord::Repository(_)
                | InventoryRecord::Environment(_)
                | InventoryRecord::Endpoint(_) => KeyClass::Software,
            },
            Self::TaskSign(_)
            | Self::RunStart(_)
            | Self::RunStop(_)
            | Self::GitFetch(_)
            | Self::GitPush(_)
            | Self::ModelCall(_)
            | Self::NetConnect(_)
            | Self::LeaseIssue(_)
            | Self::RequestApprove(_)
            | Self::RequestReject(_)
            | Self::JobRun(_)
            | Self::ReleaseRevoke(_)
            | Self::ModeChange(_)
            | Self::BreakerTrip(_) => KeyClass::Software,
        }
    }

    /// Whether the people asked are administrators: where the genesis' quorum decides.
    pub(crate) const fn asks_administrators(&self) -> bool {
        matches!(
            self,
            Self::InventoryChange(_) | Self::PolicyActivate(_) | Self::ModeChange(_)
        )
    }
}

impl RolloutVerb {
    /// Whether the command only takes traffic away from a release.
    pub const fn reduces_authority(self) -> bool {
        matches!(self, Self::Pause | Self::Abort | Self::Rollback)
    }
}

impl InventoryOperation {
    /// Whether the operation only takes authority away.
    pub const fn reduces_authority(self) -> bool {
        matches!(self, Self::Suspend | Self::Retire)
    }
}

fn actor(actor: &Actor, things: &mut Vec<Thing>) -> Uid {
    match actor {
        Actor::Human(human) => {
            let uid = Uid::new("Human", &human.id);
            things.push(Thing::within(uid.clone(), groups(&human.groups)));
            uid
        }
        Actor::Service(service) => {
            let uid = Uid::new("Service", &service.id);
            things.push(Thing::within(uid.clone(), groups(&service.groups)));
            uid
        }
        Actor::Host(host) => {
            let uid = Uid::new("Host", &host.id);
            things.push(Thing::plain(uid.clone()));
            uid
        }
        // An entity of its own, in no group; the name can't be that of a record.
        Actor::Unknown => Uid::new("Run", "unknown"),
        Actor::Agent(agent) => {
            let agent_uid = Uid::new("Agent", &agent.id);
            things.push(Thing {
                uid: agent_uid.clone(),
                parents: groups(&agent.groups),
                attributes: vec![
                    ("owner", Value::Entity(Uid::new("Human", &agent.owner))),
                    ("active", Value::Bool(agent.active)),
                    ("tasked_by", Value::Entities(Vec::new())),
                ],
            });
            match agent.run {
                Some(run) => {
                    let uid = Uid::new("Run", run);
                    things.push(Thing::within(uid.clone(), vec![agent_uid]));
                    uid
                }
                None => agent_uid,
            }
        }
    }
}

fn groups(groups: &BTreeSet<GroupId>) -> Vec<Uid> {
    groups.iter().map(|id| Uid::new("Group", id)).collect()
}

fn repositories(ids: &BTreeSet<RepositoryId>) -> Value {
    Value::Entities(ids.iter().map(|id| Uid::new("Repository", id)).collect())
}

fn resource(action: &Action, things: &mut Vec<Thing>) -> Uid {
    let thing = match action {
        Action::TaskSign(facts) => agent_thing(&facts.agent),
        Action::RunStart(facts) => agent_thing(&facts.agent),
        Action::RunStop(facts) => {
            let agent = agent_thing(&facts.agent);
            let run = Thing::within(Uid::new("Run", facts.run), vec![agent.uid.clone()]);
            add(things, agent);
            run
        }
        Action::GitFetch(facts) => Thing::plain(Uid::new("Repository", &facts.repository)),
        Action::GitPush(facts) => reference(&facts.repository, &facts.reference),
        Action::ModelCall(facts) => Thing::plain(Uid::new("Endpoint", &facts.endpoint)),
        Action::NetConnect(facts) => Thing::plain(Uid::new("Destination", &facts.host)),
        Action::LeaseIssue(facts) => Thing::plain(Uid::new("Endpoint", &facts.endpoint)),
        Action::ChangeLand(facts) => {
            let target = reference(&facts.repository, &facts.reference);
            let change = Thing::within(Uid::new("Change", facts.change), vec![target.uid.clone()]);
            add(things, target);
            change
        }
        Action::CommitAccept(facts) => Thing::plain(Uid::new("Repository", &facts.repository)),
        Action::RequestApprove(facts) => Thing::plain(Uid::new("Request", facts.request)),
        Action::RequestReject(facts) => Thing::plain(Uid::new("Request", facts.request)),
        Action::JobRun(facts) => Thing::within(
            Uid::new("Job", format!("{}:{}", facts.repository, facts.job)),
            vec![Uid::new("Repository", &facts.repository)],
        ),
        Action::ReleaseAdmit(facts) => environment_thing(&facts.environment),
        Action::ReleaseRevoke(facts) => {
            let environment = environment_thing(&facts.environment);
            let release = Thing::within(
                Uid::new("Release", facts.release),
                vec![environment.uid.clone()],
            );
            add(things, environment);
            release
        }
        Action::RolloutCommand(facts) => environment_thing(&facts.environment),
        Action::InventoryChange(facts) => match &facts.record {
            InventoryRecord::Human(id) => Thing::plain(Uid::new("Human", id)),
            InventoryRecord::Agent(agent) => agent_thing(agent),
            InventoryRecord::Service(id) => Thing::plain(Uid::new("Service", id)),
            InventoryRecord::Group(id) => Thing::plain(Uid::new("Group", id)),
            InventoryRecord::Host(id) => Thing::plain(Uid::new("Host", id)),
            InventoryRecord::Repository(id) => Thing::plain(Uid::new("Repository", id)),
            InventoryRecord::Environment(environment) => environment_thing(environment),
            InventoryRecord::Endpoint(id) => Thing::plain(Uid::new("Endpoint", id)),
        },
        Action::PolicyActivate(_) => Thing::plain(Uid::new("Installation", "this")),
        Action::ModeChange(facts) => Thing::plain(Uid::new("Repository", &facts.repository)),
        Action::BreakerTrip(facts) => Thing::plain(breaker(&facts.scope)),
        Action::BreakerReset(facts) => Thing::plain(breaker(&facts.scope)),
    };
    let uid = thing.uid.clone();
    add(things, thing);
    uid
}

/// Adds a thing once: a principal may be the resource as well (a person who changes their own
/// record), and then what is known of the principal stands, as it came from the credential.
fn add(things: &mut Vec<Thing>, thing: Thing) {
    match things.iter_mut().find(|known| known.uid == thing.uid) {
        Some(known) => {
            if !thing.attributes.is_empty() {
                known.attributes = thing.attributes;
            }
        }
        None => things.push(thing),
    }
}

fn reference(repository: &RepositoryId, reference: &str) -> Thing {
    Thing::within(
        Uid::new("Ref", format!("{repository}:{reference}")),
        vec![Uid::new("Repository", repository)],
    )
}

fn agent_thing(agent: &AgentTarget) -> Thing {
    Thing {
        uid: Uid::new("Agent", &agent.id),
        parents: Vec::new(),
        attributes: vec![
            ("owner", Value::Entity(Uid::new("Human", &agent.owner))),
            ("active", Value::Bool(agent.active)),
            ("tasked_by", Value::Entities(groups(&agent.tasked_by))),
        ],
    }
}

fn environment_thing(environment: &EnvironmentTarget) -> Thing {
    Thing {
        uid: Uid::new("Environment", &environment.id),
        parents: Vec::new(),
        attributes: vec![("deployers", Value::Entities(groups(&environment.deployers)))],
    }
}

fn breaker(scope: &BreakerScope) -> Uid {
    match scope {
        BreakerScope::Everywhere => Uid::new("Breaker", "everywhere"),
        BreakerScope::Environment(id) => Uid::new("Breaker", format!("environment:{id}")),
        BreakerScope::Agent(id) => Uid::new("Breaker", format!("agent:{id}")),
        BreakerScope::Repository(id) => Uid::new("Breaker", format!("repository:{id}")),
    }
}

/// The facts that stand in every context.
fn common(request: &Request) -> Attributes {
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
fn specific(request: &Request, more: Option<Needed>, context: &mut Attributes) {
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

const fn sensitivity(class: Sensitivity) -> &'static str {
    match class {
        Sensitivity::Development => "development",
        Sensitivity::Staging => "staging",
        Sensitivity::Production => "production",
    }
}

macro_rules! words {
    ($name:ty { $($variant:ident => $word:literal),+ $(,)? }) => {
        impl $name {
            /// The word that policies use.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

words!(UpdateKind {
    Create => "create", FastForward => "fast-forward", Force => "force", Delete => "delete",
    Tag => "tag",
});
words!(JobPurpose { Build => "build", Test => "test", Drill => "drill" });
words!(RolloutVerb {
    Start => "start", Step => "step", Promote => "promote", Pause => "pause",
    Resume => "resume", Abort => "abort", Rollback => "rollback",
});
words!(InventoryOperation {
    Add => "add", Change => "change", Resume => "resume", Suspend => "suspend",
    Retire => "retire",
});

impl Deploys {
    /// The word that policies use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::To(class) => sensitivity(class),
        }
    }
}
