//! What can happen, one struct or variant an event type, all at version 1.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::{Digest, GitOid};
use crate::id::{
    AgentId, ArtifactId, ChangeId, EndpointId, EnvironmentId, HostId, HumanId, JobId, LedgerIndex,
    ReleaseId, RepositoryId, RequestId, RolloutId, RunId, ServiceId, TaskId,
};
use crate::key::{KeyClass, PublicKey};
use crate::manifest::{
    Activation, Agent, Endpoint, Environment, Group, Host, Human, PolicyFiles, Repository, Service,
};
use crate::principal::Party;
use crate::refusal::Refusal;
use crate::statement::{Approval, ApprovalSubject, BreakerScope, Envelope, LedgerPoint, Output};
use crate::task::Task;

macro_rules! bodies {
    ($( $(#[$doc:meta])* $variant:ident = $name:literal ),+ $(,)?) => {
        /// What happened.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Body {
            $( $(#[$doc])* $variant($variant) ),+
        }

        impl Body {
            /// Every type ever written, with the versions that are read.
            pub const TYPES: &'static [(&'static str, u32)] = &[ $( ($name, 1) ),+ ];

            /// The stable type name.
            pub const fn type_name(&self) -> &'static str {
                match self { $( Self::$variant(_) => $name ),+ }
            }

            pub(super) fn to_stored(&self) -> Result<(String, u32, Value), Refusal> {
                let body = match self { $( Self::$variant(body) => serde_json::to_value(body) ),+ };
                let body = body.map_err(|error| {
                    Refusal::internal(format!("an event does not serialise: {error}"))
                })?;
                Ok((self.type_name().to_owned(), 1, body))
            }

            pub(super) fn from_stored(name: &str, version: u32, body: Value) -> Result<Self, Refusal> {
                match (name, version) {
                    $( ($name, 1) => serde_json::from_value(body).map(Self::$variant) ),+,
                    _ => return Err(unknown(name, version)),
                }
                .map_err(|error| Refusal::malformed("ledger entry").received(&format!("{name}: {error}")))
            }
        }

        $( impl From<$variant> for Body {
            fn from(body: $variant) -> Self { Self::$variant(body) }
        } )+
    };
}

fn unknown(name: &str, version: u32) -> Refusal {
    Refusal::new(
        crate::refusal::RefusalKind::Unavailable,
        "unknown-event-type",
        "the ledger holds an entry that this version does not know",
    )
    .expected("an event type of this version")
    .received(&format!("{name} version {version}"))
    .next("start the newer version of portcullis that wrote it; downgrades are refused")
}

bodies! {
    /// Entry 0.
    GenesisCreated = "genesis.created",
    /// A record or policy was proposed.
    ActivationProposed = "activation.proposed",
    /// A proposed record came into force.
    ActivationCompleted = "activation.completed",
    /// An agent, human, service or host lost its rights.
    PrincipalEnded = "principal.ended",
    /// A task was taken in.
    TaskAccepted = "task.accepted",
    /// A run began.
    RunStarted = "run.started",
    /// A run ended, and everything lent to it with it.
    RunEnded = "run.ended",
    /// Something was denied to a run.
    RequestDenied = "request.denied",
    /// A run used what it was lent.
    CallObserved = "call.observed",
    /// Something lent to a run that ended was refused for the first time.
    LeaseRefused = "lease.refused",
    /// A change was opened or got a new revision.
    ChangePushed = "change.pushed",
    /// The checks of a revision are done.
    ChecksCompleted = "checks.completed",
    /// The tests of a revision are done.
    TestsCompleted = "tests.completed",
    /// A change was withdrawn.
    ChangeClosed = "change.closed",
    /// A service is asked to run a job.
    JobRequested = "job.requested",
    /// A service took a job.
    JobClaimed = "job.claimed",
    /// A job is done.
    JobFinished = "job.finished",
    /// Humans are asked.
    RequestOpened = "request.opened",
    /// A human approved.
    ApprovalGiven = "approval.given",
    /// A human said no.
    RequestRejected = "request.rejected",
    /// A request was overtaken by events.
    RequestWithdrawn = "request.withdrawn",
    /// Something outside is about to be changed.
    EffectIntended = "effect.intended",
    /// The change outside is being tried.
    EffectAttempted = "effect.attempted",
    /// How it ended.
    EffectConcluded = "effect.concluded",
    /// A branch moved past us.
    CommitsUnproven = "commits.unproven",
    /// An artifact was made and is attested.
    ArtifactBuilt = "artifact.built",
    /// An artifact was admitted to an environment.
    ReleaseAdmitted = "release.admitted",
    /// A release can't be returned to any more.
    ReleaseRevoked = "release.revoked",
    /// Traffic begins to move to a release.
    RolloutStarted = "rollout.started",
    /// A rollout moved, held or was looked at.
    RolloutStepped = "rollout.stepped",
    /// A rollout is over.
    RolloutEnded = "rollout.ended",
    /// An environment was returned to an earlier release.
    EnvironmentReverted = "environment.reverted",
    /// What agents do was halted.
    BreakerTripped = "breaker.tripped",
    /// What agents do goes on.
    BreakerReset = "breaker.reset",
    /// Something happened that a person must look at.
    IncidentOpened = "incident.opened",
    /// A server took over the ledger.
    ServerStarted = "server.started",
}

/// The policy decision that granted or denied something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionRecord {
    /// The policy in force.
    pub policy: Digest,
    /// Number of entries in the state that it was decided at.
    pub at: LedgerIndex,
    /// The rules that decided, as `file:line id`.
    pub rules: Vec<String>,
}

/// Key classes below the design's floor, lowered openly by the genesis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFloor {
    /// For releases to production, and for landings that deploy there.
    pub production: KeyClass,
    /// For resetting a breaker.
    pub breaker_reset: KeyClass,
    /// For policies.
    pub policy: KeyClass,
    /// For people's, services' and hosts' keys.
    pub keys: KeyClass,
}

impl Default for KeyFloor {
    fn default() -> Self {
        Self {
            production: KeyClass::Presence,
            breaker_reset: KeyClass::Presence,
            policy: KeyClass::Presence,
            keys: KeyClass::Presence,
        }
    }
}

/// Entry 0: the root of all authority. Verification pins its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisCreated {
    /// When it was made; the entry's time.
    pub created: crate::time::Timestamp,
    /// Name of this ledger, as in its checkpoints.
    pub origin: String,
    /// SPIFFE trust domain.
    pub trust_domain: String,
    /// Ed25519 key that signs checkpoints.
    pub log_key: PublicKey,
    /// Certificate authority of the trust domain, DER in base64.
    pub authority: String,
    /// How many administrators it takes to activate something, its author excluded.
    pub quorum: u32,
    /// Whether one person declared to work alone: own approvals count, and say so.
    pub solo: bool,
    /// Key classes demanded.
    #[serde(default)]
    pub key_floor: KeyFloor,
    /// Version of the fold that reads what follows.
    pub fold_version: u32,
    /// The first people; at least one administrator.
    pub humans: Vec<Human>,
    /// The first groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// The first agents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<Agent>,
    /// The first services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// The first hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Host>,
    /// The first environments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<Environment>,
    /// The first repositories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<Repository>,
    /// The first endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// The first policy.
    pub policy: PolicyFiles,
}

/// A record or policy was proposed. Its index is the id of the request that it opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivationProposed {
    /// The record.
    pub activation: Activation,
    /// Digest of the reason.
    pub why: Digest,
    /// The author's signed command.
    pub envelope: Envelope,
}

/// A proposed record came into force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivationCompleted {
    /// The proposal.
    pub request: RequestId,
}

/// Who lost rights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    tag = "kind",
    content = "id"
)]
pub enum Ended {
    /// An agent, until it is activated again.
    AgentSuspended(AgentId),
    /// An agent, for good.
    AgentRetired(AgentId),
    /// A person.
    HumanRetired(HumanId),
    /// A service.
    ServiceRetired(ServiceId),
    /// A host.
    HostRetired(HostId),
}

/// An agent, human, service or host lost its rights, at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrincipalEnded {
    /// Who.
    pub subject: Ended,
    /// Digest of the reason.
    pub why: Digest,
    /// The signed command.
    pub envelope: Envelope,
}

/// A task was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskAccepted {
    /// Its id.
    pub task: TaskId,
    /// What was signed.
    pub payload: Task,
    /// The signature.
    pub envelope: Envelope,
    /// The decision that allowed it.
    pub decision: DecisionRecord,
}

/// What is lent to a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    tag = "kind",
    content = "id"
)]
pub enum LeaseKind {
    /// The run's identity.
    Identity,
    /// Fetching from and proposing changes to a repository.
    Git(RepositoryId),
    /// A model endpoint.
    Endpoint(EndpointId),
    /// A host, as `name:port`.
    Host(String),
}

impl std::fmt::Display for LeaseKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Identity => f.write_str("identity"),
            Self::Git(id) => write!(f, "git {id}"),
            Self::Endpoint(id) => write!(f, "model endpoint {id}"),
            Self::Host(host) => write!(f, "host {host}"),
        }
    }
}

/// A run began. Its index is the run's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunStarted {
    /// Under which task.
    pub task: TaskId,
    /// By which agent.
    pub agent: AgentId,
    /// On which host.
    pub host: HostId,
    /// Thumbprint of the run's key.
    pub run_key: String,
    /// Protections that the host lacks, each allowed by the task's signature.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gaps: BTreeSet<String>,
    /// When the launcher ends it.
    pub deadline: crate::time::Timestamp,
    /// What is lent to it, until its end.
    pub leases: Vec<LeaseKind>,
    /// The host's signed command.
    pub envelope: Envelope,
    /// The decision that allowed it.
    pub decision: DecisionRecord,
}

/// Why a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "reason")]
pub enum RunEnd {
    /// Its command ended.
    Exited {
        /// Exit status; 128 and the signal's number if it was killed.
        status: i32,
    },
    /// The deadline came.
    Deadline,
    /// Its quota of denials was used up.
    Denials,
    /// A human ended it.
    Human {
        /// Digest of the reason.
        why: Digest,
    },
    /// Its agent, signer or host lost its rights.
    Rights,
    /// The launcher was not heard of for too long.
    Lost,
}

/// A run ended, and everything lent to it with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunEnded {
    /// Which.
    pub run: RunId,
    /// Why.
    pub end: RunEnd,
    /// The signed command of the host or person who says so; none if the server found it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Envelope>,
}

/// Something was denied to a run, or would have been.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestDenied {
    /// Which run, if one asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Which action, such as `git.push`.
    pub action: String,
    /// On what, such as `repository shop ref refs/heads/main`.
    pub resource: String,
    /// Stable code of the refusal.
    pub code: String,
    /// The decision.
    pub decision: DecisionRecord,
}

/// A run used what it was lent. Not folded but for its budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallObserved {
    /// Which run.
    pub run: RunId,
    /// By which lease.
    pub lease: LeaseKind,
    /// The model that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_asked: Option<String>,
    /// The model that the answer names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_served: Option<String>,
    /// HTTP status of the answer; 0 when none came.
    pub status: u16,
    /// Bytes sent and received.
    pub bytes: (u64, u64),
    /// Digest of the encrypted request, if bodies are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Digest>,
    /// Digest of the encrypted answer, if bodies are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Digest>,
}

/// Something lent to a run that ended was refused for the first time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseRefused {
    /// Which run.
    pub run: RunId,
    /// Which lease.
    pub lease: LeaseKind,
}

/// A change was opened (then its index is the change's id) or got a new revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangePushed {
    /// The change that gets a revision; none opens one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<ChangeId>,
    /// Where.
    pub repository: RepositoryId,
    /// For which branch, without `refs/heads/`.
    pub branch: String,
    /// The commit of that branch which it stands on.
    pub base: GitOid,
    /// Its newest commit.
    pub head: GitOid,
    /// The tree of that commit.
    pub tree: GitOid,
    /// SHA-256 manifest of the tree's changes.
    pub manifest: Digest,
    /// Digest of the diff's bytes, kept as a blob.
    pub diff: Digest,
    /// Files changed.
    pub files: u64,
    /// Lines added and removed.
    pub lines: u64,
    /// Commits, newest first.
    pub commits: Vec<GitOid>,
    /// The run that pushed, if a run did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Everyone who had a hand in it.
    pub party: Party,
    /// How often the run asked beforehand what would be refused.
    pub questions: u64,
    /// The signed push of a person, if a person pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Envelope>,
    /// The decision that allowed it.
    pub decision: DecisionRecord,
}

/// What an analysis says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckVerdict {
    /// Nothing to see.
    Pass,
    /// A human must look.
    Escalate,
    /// It can't land.
    Block,
}

/// The checks of a revision are done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChecksCompleted {
    /// Which change.
    pub change: ChangeId,
    /// Which revision.
    pub revision: u64,
    /// The worst finding.
    pub verdict: CheckVerdict,
    /// Rules that a human must look at.
    pub escalations: BTreeSet<String>,
    /// Rules that block.
    pub blocks: BTreeSet<String>,
    /// Digest of the findings with their evidence, kept as a blob.
    pub report: Digest,
    /// Digest of the configuration from the protected base.
    pub configuration: Digest,
}

/// What the tests say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TestVerdict {
    /// All of the base's tests ran and none failed.
    Passed,
    /// A test failed, or the job did.
    Failed,
    /// Tests of the base did not run.
    Missing,
    /// The protected base configures no tests.
    NotConfigured,
}

/// The tests of a revision are done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestsCompleted {
    /// Which change.
    pub change: ChangeId,
    /// Which revision.
    pub revision: u64,
    /// What they say.
    pub verdict: TestVerdict,
    /// The job on the revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<JobId>,
    /// The job on its base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<JobId>,
    /// Tests that ran, failed, and of the base's those that did not run.
    pub counts: TestCounts,
    /// Digest of names and outcomes, kept as a blob.
    pub report: Digest,
}

/// How many tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestCounts {
    /// Ran and passed.
    pub passed: u64,
    /// Ran and failed.
    pub failed: u64,
    /// Of the base's, those that did not run or are skipped now.
    pub missing: u64,
}

/// A change was withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeClosed {
    /// Which.
    pub change: ChangeId,
    /// Digest of the reason.
    pub why: Digest,
    /// The signed command.
    pub envelope: Envelope,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// Runs the tests that the protected base configures.
    Test,
    /// Builds a landed commit.
    Build,
}

/// A service is asked to run a job. Its index is the job's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobRequested {
    /// What to do.
    pub kind: JobKind,
    /// In which repository.
    pub repository: RepositoryId,
    /// On which commit.
    pub commit: GitOid,
    /// The commit that the configuration comes from.
    pub configured_by: GitOid,
    /// Digest of the job's configuration, kept as a blob.
    pub configuration: Digest,
    /// The change it is for, if for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<ChangeId>,
}

/// A service took a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobClaimed {
    /// Which.
    pub job: JobId,
    /// Who.
    pub service: ServiceId,
    /// The signed command.
    pub envelope: Envelope,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobOutcome {
    /// Its command succeeded.
    Succeeded,
    /// Its command failed.
    Failed,
    /// Its service was not heard of for too long.
    Lost,
}

/// A job is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFinished {
    /// Which.
    pub job: JobId,
    /// How.
    pub outcome: JobOutcome,
    /// Digest of the attestation's envelope, kept as a blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<Digest>,
    /// Digest of the report, kept as a blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Digest>,
    /// What it made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Output>,
    /// The service's signed command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Envelope>,
}

/// What it takes to satisfy a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Needed {
    /// Humans who approve.
    pub humans: u32,
    /// Parties that they must belong to, none of them the request's own.
    pub parties: u32,
    /// The least key class of each signature.
    pub key_class: KeyClass,
    /// Whether only administrators count.
    pub administrators: bool,
}

/// Humans are asked. Its index is the request's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestOpened {
    /// What they are asked.
    pub subject: ApprovalSubject,
    /// The task behind it, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Digest of checks and tests, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<Digest>,
    /// What it takes.
    pub needed: Needed,
    /// Who had a hand in it and does not count.
    pub party: Party,
    /// The rules that ask, as `file:line id`.
    pub because: Vec<String>,
    /// The decision.
    pub decision: DecisionRecord,
    /// Worthless at or after this time.
    pub expires: crate::time::Timestamp,
    /// The signed command that led to it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Envelope>,
}

/// A human approved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalGiven {
    /// What was signed.
    pub statement: Approval,
    /// The signature.
    pub envelope: Envelope,
}

/// A human said no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestRejected {
    /// To what.
    pub request: RequestId,
    /// Digest of the reason, kept as a blob; the next run on that change reads it.
    pub why: Digest,
    /// The signed command.
    pub envelope: Envelope,
}

/// A request was overtaken by events: a new revision, another landing, an expiry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestWithdrawn {
    /// Which.
    pub request: RequestId,
    /// Stable code of the cause: `base-moved`, `superseded`, `expired`, `closed`, `breaker`.
    pub code: String,
}

/// Something outside that we change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "kind")]
pub enum Effect {
    /// A branch moves by compare-and-swap. Idempotent and observable.
    Land {
        /// Which change.
        change: ChangeId,
        /// Which revision.
        revision: u64,
        /// Where.
        repository: RepositoryId,
        /// On which branch.
        branch: String,
        /// From this commit
        old: GitOid,
        /// to this one,
        new: GitOid,
        /// with this tree.
        tree: GitOid,
        /// The request whose approvals allow it; none where policy permits by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<RequestId>,
    },
    /// The process of a release is started. Idempotent and observable.
    StartRelease {
        /// Which release.
        release: ReleaseId,
    },
    /// The proxy gets a new epoch. Idempotent and observable.
    SetTraffic {
        /// Which rollout.
        rollout: RolloutId,
        /// The proxy's epoch.
        epoch: u64,
        /// Weight of the canary in per mille.
        weight: u32,
    },
    /// The process of a release that takes no traffic is stopped. Idempotent and observable.
    StopRelease {
        /// Which release.
        release: ReleaseId,
    },
}

impl Effect {
    /// The key by which doing it twice is doing it once.
    pub fn idempotency_key(&self) -> String {
        match self {
            Self::Land {
                change, revision, ..
            } => format!("land/{change}/{revision}"),
            Self::StartRelease { release } => format!("start/{release}"),
            Self::SetTraffic { rollout, epoch, .. } => format!("traffic/{rollout}/{epoch}"),
            Self::StopRelease { release } => format!("stop/{release}"),
        }
    }
}

/// Something outside is about to be changed. Its index names the effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EffectIntended {
    /// What.
    pub effect: Effect,
    /// The decision that allowed it, where it grants something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionRecord>,
}

/// The change outside is being tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EffectAttempted {
    /// Index of the intent.
    pub effect: LedgerIndex,
    /// Which try, counted from 1.
    pub attempt: u32,
}

/// How an effect ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EffectOutcome {
    /// It was done, and observed.
    Done,
    /// It was not done, and won't be.
    Failed,
    /// Nobody can tell; a person must look.
    Unknown,
}

/// How an effect ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EffectConcluded {
    /// Index of the intent.
    pub effect: LedgerIndex,
    /// How.
    pub outcome: EffectOutcome,
    /// Stable code of the cause, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// A branch moved past us. Its index is the id of the request that it opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitsUnproven {
    /// Where.
    pub repository: RepositoryId,
    /// On which branch.
    pub branch: String,
    /// The last commit that we know; none if the branch is new to us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<GitOid>,
    /// Where it stands now.
    pub to: GitOid,
    /// How many commits came in; 0 if history was rewritten.
    pub commits: u64,
}

/// An artifact was made and is attested. Its index is the artifact's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactBuilt {
    /// By which job.
    pub job: JobId,
    /// From where.
    pub repository: RepositoryId,
    /// From which commit.
    pub commit: GitOid,
    /// The file.
    pub output: Output,
    /// Digest of the provenance envelope, kept as a blob.
    pub provenance: Digest,
}

/// An artifact was admitted to an environment. Its index is the release's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseAdmitted {
    /// What.
    pub artifact: ArtifactId,
    /// Where.
    pub environment: EnvironmentId,
    /// The request whose approvals allow it; none where policy admits by proof alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
    /// Changes in it since the last admitted release.
    pub changes: Vec<ChangeId>,
    /// Whether any of them is an agent's work.
    pub agent_work: bool,
    /// Digest of the verification summary, kept as a blob.
    pub verification: Digest,
    /// The decision that allowed it.
    pub decision: DecisionRecord,
}

/// A release can't be returned to any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRevoked {
    /// Which.
    pub release: ReleaseId,
    /// Digest of the reason.
    pub why: Digest,
    /// The signed command.
    pub envelope: Envelope,
}

/// Traffic begins to move to a release. Its index is the rollout's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutStarted {
    /// To which release.
    pub release: ReleaseId,
    /// Where.
    pub environment: EnvironmentId,
    /// From which release, if one runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<ReleaseId>,
    /// Whether it goes by canary; else it takes all traffic once it is healthy.
    pub canary: bool,
    /// Seed of the assignment.
    pub seed: u64,
    /// First epoch of the proxy that belongs to it.
    pub epoch: u64,
}

/// What a look at a rollout led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// More traffic.
    Advance,
    /// No change.
    Hold,
    /// Back to stable.
    Rollback,
    /// All traffic.
    Complete,
    /// A human keeps it where it is.
    Pause,
    /// A human lets it go on.
    Resume,
}

/// A rollout moved, held or was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutStepped {
    /// Which.
    pub rollout: RolloutId,
    /// What it led to.
    pub step: Step,
    /// Weight from now on, in per mille.
    pub weight: u32,
    /// The proxy's epoch from now on.
    pub epoch: u64,
    /// Stable code of the cause.
    pub code: String,
    /// Counts and statistics, whole numbers with their unit in the name.
    pub evidence: BTreeMap<String, i64>,
    /// State of the statistics, as `canary` stores it.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub state: Value,
    /// The signed command, if a human did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Envelope>,
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutOutcome {
    /// The release has all traffic and is the new stable one.
    Completed,
    /// Traffic is back at the stable release.
    RolledBack,
    /// It never started.
    Failed,
}

/// A rollout is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutEnded {
    /// Which.
    pub rollout: RolloutId,
    /// How.
    pub outcome: RolloutOutcome,
    /// Stable code of the cause: `complete`, `harm`, `errors`, `human`, `breaker`, `start-failed`.
    pub code: String,
    /// The signed command, if a human ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Envelope>,
}

/// An environment was returned to an earlier release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentReverted {
    /// Where.
    pub environment: EnvironmentId,
    /// To which release; none stops serving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<ReleaseId>,
    /// The proxy's epoch from now on.
    pub epoch: u64,
    /// Digest of the reason.
    pub why: Digest,
    /// The signed command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Envelope>,
}

/// What agents do was halted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerTripped {
    /// What it covers.
    pub scope: BreakerScope,
    /// Digest of the reason.
    pub why: Digest,
    /// Whether finished releases of agents' work are reverted too.
    pub revert: bool,
    /// The signed command, if a human did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Envelope>,
}

/// What agents do goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerReset {
    /// The request that allowed it.
    pub request: RequestId,
}

/// Something happened that a person must look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncidentOpened {
    /// Stable code: `effect-unknown`, `landed-tree-mismatch`, `clock-jump`, `release-died`.
    pub code: String,
    /// The entry that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<LedgerIndex>,
    /// Whole numbers and short stable words that help; never free text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
}

/// A server took over the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerStarted {
    /// Version of the program.
    pub program: String,
    /// Version of the fold.
    pub fold_version: u32,
    /// What it found.
    pub found: LedgerPoint,
}

impl Body {
    /// The stream that the event belongs to, such as `run-42`; `index` is the event's own.
    pub fn stream(&self, index: LedgerIndex) -> String {
        match self {
            Self::GenesisCreated(_) => "genesis".to_owned(),
            Self::ActivationProposed(_) | Self::RequestOpened(_) | Self::CommitsUnproven(_) => {
                RequestId(index).to_string()
            }
            Self::ActivationCompleted(body) => body.request.to_string(),
            Self::PrincipalEnded(body) => match &body.subject {
                Ended::AgentSuspended(id) | Ended::AgentRetired(id) => format!("agent:{id}"),
                Ended::HumanRetired(id) => format!("human:{id}"),
                Ended::ServiceRetired(id) => format!("service:{id}"),
                Ended::HostRetired(id) => format!("host:{id}"),
            },
            Self::TaskAccepted(body) => body.task.to_string(),
            Self::RunStarted(_) => RunId(index).to_string(),
            Self::RunEnded(RunEnded { run, .. })
            | Self::CallObserved(CallObserved { run, .. })
            | Self::LeaseRefused(LeaseRefused { run, .. }) => run.to_string(),
            Self::RequestDenied(body) => body
                .run
                .map_or_else(|| "denied".to_owned(), |run| run.to_string()),
            Self::ChangePushed(body) => body.change.unwrap_or(ChangeId(index)).to_string(),
            Self::ChecksCompleted(ChecksCompleted { change, .. })
            | Self::TestsCompleted(TestsCompleted { change, .. })
            | Self::ChangeClosed(ChangeClosed { change, .. }) => change.to_string(),
            Self::JobRequested(_) => JobId(index).to_string(),
            Self::JobClaimed(JobClaimed { job, .. })
            | Self::JobFinished(JobFinished { job, .. }) => job.to_string(),
            Self::ApprovalGiven(body) => body.statement.request.to_string(),
            Self::RequestRejected(RequestRejected { request, .. })
            | Self::RequestWithdrawn(RequestWithdrawn { request, .. })
            | Self::BreakerReset(BreakerReset { request }) => request.to_string(),
            Self::EffectIntended(_) => format!("effect-{index}"),
            Self::EffectAttempted(EffectAttempted { effect, .. })
            | Self::EffectConcluded(EffectConcluded { effect, .. }) => format!("effect-{effect}"),
            Self::ArtifactBuilt(_) => ArtifactId(index).to_string(),
            Self::ReleaseAdmitted(_) => ReleaseId(index).to_string(),
            Self::ReleaseRevoked(body) => body.release.to_string(),
            Self::RolloutStarted(_) => RolloutId(index).to_string(),
            Self::RolloutStepped(RolloutStepped { rollout, .. })
            | Self::RolloutEnded(RolloutEnded { rollout, .. }) => rollout.to_string(),
            Self::EnvironmentReverted(body) => format!("environment:{}", body.environment),
            Self::BreakerTripped(_) => "breaker".to_owned(),
            Self::IncidentOpened(_) => format!("incident-{index}"),
            Self::ServerStarted(_) => "server".to_owned(),
        }
    }

    /// Whether it only takes authority away, and so must work when nothing else does.
    pub const fn reduces_authority(&self) -> bool {
        matches!(
            self,
            Self::BreakerTripped(_)
                | Self::PrincipalEnded(_)
                | Self::RunEnded(_)
                | Self::ReleaseRevoked(_)
                | Self::EnvironmentReverted(_)
                | Self::RequestRejected(_)
                | Self::RequestWithdrawn(_)
                | Self::ChangeClosed(_)
                | Self::IncidentOpened(_)
        ) || matches!(
            self,
            Self::RolloutEnded(RolloutEnded {
                outcome: RolloutOutcome::RolledBack,
                ..
            })
        ) || matches!(
            self,
            Self::RolloutStepped(RolloutStepped {
                step: Step::Rollback | Step::Hold | Step::Pause,
                ..
            })
        )
    }
}
