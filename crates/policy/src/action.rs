//! What can be asked: one struct of facts per action.
//!
//! Counts are whole numbers, sizes are bytes, times are milliseconds. Sets hold short names that
//! policies can match on; what they are is said at each field.

use std::collections::BTreeSet;

use portcullis_model::Mode;
use portcullis_model::event::{CheckVerdict, TestVerdict};
use portcullis_model::manifest::{Activation, HostClass, Sensitivity};
use portcullis_model::statement::BreakerScope;
use portcullis_model::{
    AgentId, ChangeId, EndpointId, EnvironmentId, GitOid, GroupId, HostId, HumanId, KeyClass,
    ReleaseId, RepositoryId, RequestId, RunId, ServiceId,
};
use serde::{Deserialize, Serialize};

use crate::approvals::Approvals;
use crate::request::TaskFacts;

/// An act with its resource and its facts. In files it is one table named by the action, such as
/// `[action."git.push"]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// A task is signed for an agent.
    #[serde(rename = "task.sign")]
    TaskSign(TaskSign),
    /// A run starts.
    #[serde(rename = "run.start")]
    RunStart(RunStart),
    /// A run is ended before its time.
    #[serde(rename = "run.stop")]
    RunStop(RunStop),
    /// A repository is read.
    #[serde(rename = "git.fetch")]
    GitFetch(GitFetch),
    /// One ref is to be updated.
    #[serde(rename = "git.push")]
    GitPush(GitPush),
    /// A model endpoint is called.
    #[serde(rename = "model.call")]
    ModelCall(ModelCall),
    /// A network host is contacted.
    #[serde(rename = "net.connect")]
    NetConnect(NetConnect),
    /// A credential or right is lent to a run.
    #[serde(rename = "lease.issue")]
    LeaseIssue(LeaseIssue),
    /// A change lands on its target ref.
    #[serde(rename = "change.land")]
    ChangeLand(ChangeLand),
    /// A commit that reached upstream past us is accepted.
    #[serde(rename = "commit.accept")]
    CommitAccept(CommitAccept),
    /// A person approves a request.
    #[serde(rename = "request.approve")]
    RequestApprove(RequestApprove),
    /// A person rejects a request.
    #[serde(rename = "request.reject")]
    RequestReject(RequestReject),
    /// A job is run.
    #[serde(rename = "job.run")]
    JobRun(JobRun),
    /// An artifact is admitted to an environment.
    #[serde(rename = "release.admit")]
    ReleaseAdmit(ReleaseAdmit),
    /// A release is revoked.
    #[serde(rename = "release.revoke")]
    ReleaseRevoke(ReleaseRevoke),
    /// A rollout is commanded.
    #[serde(rename = "rollout.command")]
    RolloutCommand(RolloutCommand),
    /// A record of the inventory changes.
    #[serde(rename = "inventory.change")]
    InventoryChange(InventoryChange),
    /// A policy takes effect.
    #[serde(rename = "policy.activate")]
    PolicyActivate(PolicyActivate),
    /// A repository's stage changes its mode.
    #[serde(rename = "mode.change")]
    ModeChange(ModeChange),
    /// The breaker is tripped.
    #[serde(rename = "breaker.trip")]
    BreakerTrip(BreakerTrip),
    /// The breaker is reset.
    #[serde(rename = "breaker.reset")]
    BreakerReset(BreakerReset),
}

/// `task.sign`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSign {
    /// The agent that gets the task.
    pub agent: AgentTarget,
    /// The repositories the task names.
    #[serde(default)]
    pub repositories: BTreeSet<RepositoryId>,
    /// What the task asks beyond the agent's record, such as `path:infra/**` or `capability:net`.
    #[serde(default)]
    pub wider_than_agent: BTreeSet<String>,
    /// From now to the task's expiry, in milliseconds.
    pub life_ms: u64,
    /// Sandbox protections that the task lets a host go without.
    #[serde(default)]
    pub allowed_gaps: BTreeSet<String>,
    /// Whether the task demands a managed host.
    #[serde(default)]
    pub demands_managed_host: bool,
}

/// An agent as the thing acted upon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentTarget {
    /// Which.
    pub id: AgentId,
    /// Its owner.
    pub owner: HumanId,
    /// Whether its record is active: not suspended, expired, past its review or retired.
    pub active: bool,
    /// Groups whose members may task it.
    #[serde(default)]
    pub tasked_by: BTreeSet<GroupId>,
}

/// `run.start`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunStart {
    /// The agent that will run.
    pub agent: AgentTarget,
    /// The task; none is denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskFacts>,
    /// The host that launches.
    pub host: HostId,
    /// Whether the host is enrolled and active.
    pub host_enrolled: bool,
    /// What the host is.
    pub host_class: HostClass,
    /// Whether the task demands a managed host.
    #[serde(default)]
    pub demands_managed_host: bool,
    /// Protections that can't be had on the host and that the task does not let go.
    #[serde(default)]
    pub gaps: BTreeSet<String>,
}

/// `run.stop`. Takes authority away: decided by the base alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunStop {
    /// The run that ends.
    pub run: RunId,
    /// Its agent.
    pub agent: AgentTarget,
}

/// `git.fetch`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitFetch {
    /// What is read.
    pub repository: RepositoryId,
    /// The run's task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskFacts>,
    /// Whether the task names the repository.
    pub in_task: bool,
}

/// `git.push`: one per ref that a push would update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitPush {
    /// Where.
    pub repository: RepositoryId,
    /// The full name of the ref that would move, or of the branch that a change is for, such as
    /// `refs/heads/main`.
    pub reference: String,
    /// The run's task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskFacts>,
    /// Whether the task names the repository.
    pub in_task: bool,
    /// What would happen to the ref.
    pub update: UpdateKind,
    /// Whether the ref is protected.
    pub protected: bool,
    /// Whether it was pushed to `refs/for/…`, and so proposes a change and moves nothing.
    pub for_review: bool,
    /// What deploys by itself when the ref moves.
    #[serde(default)]
    pub deploys_to: Deploys,
    /// Changed paths that the task's scope does not allow.
    #[serde(default)]
    pub paths_outside_scope: BTreeSet<String>,
    /// Bounds of the scope that are exceeded: `files`, `lines`, `operations`.
    #[serde(default)]
    pub over_scope: BTreeSet<String>,
    /// Size of the pack.
    pub pack_bytes: u64,
    /// Largest pack taken.
    pub pack_limit_bytes: u64,
    /// Authors and committers of the new commits that are not the run's agent.
    #[serde(default)]
    pub commits_in_other_names: BTreeSet<String>,
    /// How often this run was denied before.
    #[serde(default)]
    pub denials_so_far: u64,
}

/// What a push does to a ref.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateKind {
    /// The ref is new.
    Create,
    /// The new commit descends from the old one.
    FastForward,
    /// It does not.
    Force,
    /// The ref goes away.
    Delete,
    /// The ref is a tag, new or moved.
    Tag,
}

/// What deploys by itself when a ref moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deploys {
    /// Nothing.
    #[default]
    Nothing,
    /// Something of this sensitivity.
    To(Sensitivity),
}

/// `model.call`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCall {
    /// Which endpoint.
    pub endpoint: EndpointId,
    /// The model asked for, as the request names it.
    pub model: String,
    /// Whether the endpoint is declared for the agent and serves the model.
    pub declared: bool,
    /// The run's task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskFacts>,
    /// Whether the task lets the agent use the endpoint.
    pub in_task: bool,
}

/// `net.connect`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetConnect {
    /// The host, normalised: lower case, no trailing dot.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The HTTP method; empty where it is not HTTP.
    #[serde(default)]
    pub method: String,
    /// The HTTP path without its query; empty where it is not HTTP.
    #[serde(default)]
    pub path: String,
    /// The run's task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskFacts>,
    /// Whether the task names the host.
    pub named_in_task: bool,
    /// Whether it leads to a private, loopback, link-local or metadata address.
    pub private_address: bool,
    /// Whether the request carries a credential that we did not lend.
    #[serde(default)]
    pub foreign_credential: bool,
}

/// `lease.issue`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseIssue {
    /// What the lease is for.
    pub endpoint: EndpointId,
    /// The run's task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskFacts>,
    /// Whether the task lets the agent use the endpoint.
    pub in_task: bool,
    /// How long it would last.
    pub life_ms: u64,
}

/// `change.land`; the actor is the change's author.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeLand {
    /// Where.
    pub repository: RepositoryId,
    /// The full name of the target ref.
    pub reference: String,
    /// Which change.
    pub change: ChangeId,
    /// The task it was made under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskFacts>,
    /// Whether the target ref is protected.
    pub protected: bool,
    /// Whether an agent, or nobody knows who, wrote any part.
    pub by_agent: bool,
    /// What the checks say; none as long as they have not answered, which denies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<CheckVerdict>,
    /// Rules of the checks that want a person to look, such as `pipeline` or `lock-file`.
    #[serde(default)]
    pub escalations: BTreeSet<String>,
    /// What the tests say; none as long as they have not answered, which counts as missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tests: Option<TestVerdict>,
    /// What deploys by itself when it lands.
    #[serde(default)]
    pub deploys_to: Deploys,
    /// Agents whose work is in it and whose environment ceiling is below what it deploys to.
    #[serde(default)]
    pub above_ceiling: BTreeSet<AgentId>,
    /// Who approved this revision.
    #[serde(default)]
    pub approvals: Approvals,
}

/// `commit.accept`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitAccept {
    /// Where it was found.
    pub repository: RepositoryId,
    /// Which commit.
    pub commit: GitOid,
    /// Who approved.
    #[serde(default)]
    pub approvals: Approvals,
}

/// `request.approve`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestApprove {
    /// Which request.
    pub request: RequestId,
    /// The action it asks for, such as `change.land`.
    pub asks: String,
    /// Whether the approver had a hand in what is asked.
    pub own_party: bool,
    /// The least key class that counts for what is asked, as its *ask* said.
    pub key_class_needed: KeyClass,
    /// Whether it is open and about the newest revision.
    pub current: bool,
}

/// `request.reject`. Takes authority away: decided by the base alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestReject {
    /// Which request.
    pub request: RequestId,
    /// The action it asks for.
    pub asks: String,
    /// Whether the person had a hand in what is asked.
    pub own_party: bool,
}

/// `job.run`; the actor is the service that runs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobRun {
    /// Whose job.
    pub repository: RepositoryId,
    /// The job's name in the repository's configuration.
    pub job: String,
    /// What it is for.
    pub purpose: JobPurpose,
    /// Whether the command comes from the protected base.
    pub from_protected_base: bool,
    /// Whether the commit it works on has landed.
    pub commit_landed: bool,
    /// Whether an agent's work goes in.
    pub contains_agent_work: bool,
    /// Hosts that it wants and its declaration does not name.
    #[serde(default)]
    pub undeclared_hosts: BTreeSet<String>,
}

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobPurpose {
    /// Makes artifacts.
    Build,
    /// Judges a revision.
    Test,
    /// Tries a procedure.
    Drill,
}

/// `release.admit`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseAdmit {
    /// Where it would run.
    pub environment: EnvironmentTarget,
    /// What it was built from.
    pub repository: RepositoryId,
    /// Whether the whole chain was recomputed from evidence and holds.
    pub provenance_verified: bool,
    /// Whether every commit since the last admitted release is covered.
    pub every_commit_covered: bool,
    /// Whether an agent's work is in it.
    pub contains_agent_work: bool,
    /// Agents whose work is in it and whose environment ceiling is below this environment.
    #[serde(default)]
    pub above_ceiling: BTreeSet<AgentId>,
    /// Whether it starts as an isolated canary.
    pub canary: bool,
    /// Commits that reached upstream past us and that nobody accepted.
    pub unproven_commits: u64,
    /// Whether it was revoked.
    pub revoked: bool,
    /// Who approved this very release for this environment.
    #[serde(default)]
    pub approvals: Approvals,
}

/// An environment as the thing acted upon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentTarget {
    /// Which.
    pub id: EnvironmentId,
    /// How sensitive.
    pub sensitivity: Sensitivity,
    /// Groups that may deploy there.
    #[serde(default)]
    pub deployers: BTreeSet<GroupId>,
}

/// `release.revoke`. Takes authority away: decided by the base alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRevoke {
    /// Which release.
    pub release: ReleaseId,
    /// Where it runs.
    pub environment: EnvironmentTarget,
}

/// `rollout.command`. Pause, abort and rollback take authority away: decided by the base alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutCommand {
    /// Where.
    pub environment: EnvironmentTarget,
    /// What.
    pub command: RolloutVerb,
    /// Whether an agent's work is in the release that would get traffic.
    pub contains_agent_work: bool,
    /// Whether that release was admitted here.
    pub target_admitted: bool,
    /// Whether it was revoked.
    pub target_revoked: bool,
    /// Whether telemetry is complete and fresh.
    pub telemetry_reliable: bool,
    /// Whether the thresholds are written down.
    pub thresholds_explicit: bool,
    /// Whether the command can touch only so much traffic.
    pub blast_radius_bounded: bool,
    /// Who approved the command.
    #[serde(default)]
    pub approvals: Approvals,
}

/// A command to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutVerb {
    /// First traffic for an admitted release.
    Start,
    /// One step more.
    Step,
    /// All traffic.
    Promote,
    /// Hold where it is.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Give up the canary, keep stable.
    Abort,
    /// Back to an admitted release.
    Rollback,
}

/// `inventory.change`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InventoryChange {
    /// Which record.
    pub record: InventoryRecord,
    /// What happens to it. Suspend and retire take authority away: decided by the base alone.
    pub operation: InventoryOperation,
    /// What the record may do afterwards and may not do today.
    #[serde(default)]
    pub widens: BTreeSet<String>,
    /// Whether keys are added or removed.
    #[serde(default)]
    pub touches_keys: bool,
    /// Whether owner, purpose and expiry are there, where the kind of record needs them.
    pub complete: bool,
    /// Who approved.
    #[serde(default)]
    pub approvals: Approvals,
}

/// A record of the inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InventoryRecord {
    /// A person.
    Human(HumanId),
    /// An agent, as it will be.
    Agent(AgentTarget),
    /// A service.
    Service(ServiceId),
    /// A group.
    Group(GroupId),
    /// A host.
    Host(HostId),
    /// A repository.
    Repository(RepositoryId),
    /// An environment, as it will be.
    Environment(EnvironmentTarget),
    /// A declared endpoint.
    Endpoint(EndpointId),
}

/// What happens to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InventoryOperation {
    /// It is new.
    Add,
    /// It is replaced.
    Change,
    /// It is active again.
    Resume,
    /// It is out of force.
    Suspend,
    /// It is out of force for good.
    Retire,
}

/// `policy.activate`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyActivate {
    /// Whether the proposed set loads without a problem.
    pub checked: bool,
    /// How many of its tests fail.
    pub tests_failed: u64,
    /// Who approved.
    #[serde(default)]
    pub approvals: Approvals,
}

/// `mode.change`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModeChange {
    /// Whose mode.
    pub repository: RepositoryId,
    /// The stage, such as `git` or `land`.
    pub stage: String,
    /// The mode today.
    pub from: Mode,
    /// The mode afterwards.
    pub to: Mode,
    /// Who approved.
    #[serde(default)]
    pub approvals: Approvals,
}

/// `breaker.trip`. Takes authority away: decided by the base alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerTrip {
    /// What is halted.
    pub scope: BreakerScope,
}

/// `breaker.reset`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerReset {
    /// What goes on.
    pub scope: BreakerScope,
    /// Who approved.
    #[serde(default)]
    pub approvals: Approvals,
}

impl InventoryRecord {
    /// The record that an activation is about; none for a policy, which is `policy.activate`.
    pub fn of(activation: &Activation) -> Option<Self> {
        Some(match activation {
            Activation::Human(record) => Self::Human(record.id.clone()),
            Activation::Group(record) => Self::Group(record.id.clone()),
            Activation::Agent(record) => Self::Agent(AgentTarget {
                id: record.id.clone(),
                owner: record.owner.clone(),
                active: true,
                tasked_by: record.tasked_by.clone(),
            }),
            Activation::Service(record) => Self::Service(record.id.clone()),
            Activation::Host(record) => Self::Host(record.id.clone()),
            Activation::Environment(record) => Self::Environment(EnvironmentTarget {
                id: record.id.clone(),
                sensitivity: record.sensitivity,
                deployers: record.deployers.clone(),
            }),
            Activation::Repository(record) => Self::Repository(record.id.clone()),
            Activation::Endpoint(record) => Self::Endpoint(record.id.clone()),
            Activation::Policy(_) => return None,
        })
    }
}
