//! Tasks and runs: what was ordered, what was lent, what was used and denied.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{DecisionRecord, Needed};
use crate::digest::Digest;
use crate::id::{AgentId, EndpointId, HostId, RepositoryId, RequestId, RunId, TaskId};
use crate::statement::Envelope;
use crate::task::Task;
use crate::time::Timestamp;

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
    /// A host, as `name:port`, to which bytes pass unread.
    Tunnel(String),
}

impl std::fmt::Display for LeaseKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Identity => f.write_str("identity"),
            Self::Git(id) => write!(f, "git {id}"),
            Self::Endpoint(id) => write!(f, "model endpoint {id}"),
            Self::Host(host) => write!(f, "host {host}"),
            Self::Tunnel(host) => write!(f, "tunnel to {host}"),
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
    pub deadline: Timestamp,
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

/// What one run was granted of hosts within a moment, and how earlier grants ended: one entry for
/// what came at the same time. Each grant is durable here before its request is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallsObserved {
    /// Which run.
    pub run: RunId,
    /// Requests that may be sent now, by lease.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub granted: Vec<CallsGranted>,
    /// Requests that are over, by lease and status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<CallsEnded>,
}

impl CallsObserved {
    /// Most requests that one entry is about, granted or ended: with leases of the longest names it
    /// stays below what an entry may hold.
    pub const MAX_CALLS: u64 = 128;
}

/// Requests by one lease, each about to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallsGranted {
    /// By which lease.
    pub lease: LeaseKind,
    /// How many.
    pub count: u64,
}

/// Requests by one lease that were answered alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallsEnded {
    /// By which lease.
    pub lease: LeaseKind,
    /// HTTP status of the answers; 0 where none came.
    pub status: u16,
    /// Of each, bytes sent and received.
    pub bytes: Vec<(u64, u64)>,
}

/// A run is about to read from a source that its task does not trust, for the first time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaintAdded {
    /// Which run.
    pub run: RunId,
    /// What policy sees, such as `host:example.org:443`.
    pub label: String,
    /// What was read first, as method and URL without its query.
    pub origin: String,
}

/// What a run's model is told beforehand, or which model answers, is new or has changed. The texts
/// are not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptSeen {
    /// Which run.
    pub run: RunId,
    /// At which endpoint.
    pub endpoint: EndpointId,
    /// The model that was asked for; empty where the request names none.
    pub model_asked: String,
    /// The model that answered, where it is another than the one that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_served: Option<String>,
    /// Digest of the system prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<Digest>,
    /// Digest of the tools' configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Digest>,
    /// Digest of the instruction files in the conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<Digest>,
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

/// A run's workspace was kept as it stood, outside of the sandbox, so that it can be wound back.
/// It is the launcher's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunCheckpointed {
    /// Which run.
    pub run: RunId,
    /// Its number, counted from 1.
    pub number: u64,
    /// SHA-256 of the list of everything in it.
    pub manifest: Digest,
    /// Files, links and directories in it.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
}

/// Why a run is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReviewCause {
    /// Its window ended.
    Window,
    /// It was denied something again and again.
    Denials,
    /// A budget is used up.
    Budget,
    /// It read from a source that its task does not trust.
    Taint,
}

impl ReviewCause {
    /// Its stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::Denials => "denials",
            Self::Budget => "budget",
            Self::Taint => "taint",
        }
    }
}

/// What it takes for a run that stands still to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// People and keys.
    pub needed: Needed,
    /// The rules that ask, as `file:line id`.
    pub because: Vec<String>,
}

/// What a run did so far was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunReviewed {
    /// Which run.
    pub run: RunId,
    /// Its window, counted from 1.
    pub window: u64,
    /// Why it was looked at.
    pub causes: BTreeSet<ReviewCause>,
    /// Labels of untrusted sources that it had read by then.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub taint: BTreeSet<String>,
    /// Whether it stands still from here on, and what it takes to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// The decision.
    pub decision: DecisionRecord,
}

/// A run that stood still goes on, in the way that its request says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunResumed {
    /// Which run.
    pub run: RunId,
    /// The request that people approved.
    pub request: RequestId,
}
