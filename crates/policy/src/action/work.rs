//! What an agent does: tasks, runs, git, and the way out.

use std::collections::BTreeSet;

use portcullis_model::manifest::{HostClass, Sensitivity};
use portcullis_model::{AgentId, EndpointId, GroupId, HostId, HumanId, RepositoryId, RunId};
use serde::{Deserialize, Serialize};

use crate::approvals::Approvals;
use crate::request::TaskFacts;

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

/// `run.continue`: whether a run goes on, asked at the end of each of its windows and when it did
/// what people want to know. The actor is the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunContinue {
    /// The run.
    pub run: RunId,
    /// Its agent.
    pub agent: AgentTarget,
    /// The window that it is in, counted from 1.
    pub window: u64,
    /// Whether that window is over.
    pub window_over: bool,
    /// Whether its task says that a person is asked at the end of each window.
    pub task_asks: bool,
    /// Denials since it was last looked at.
    pub denials: u64,
    /// Labels of untrusted sources that it read since it was last looked at.
    #[serde(default)]
    pub new_taint: BTreeSet<String>,
    /// Names of budgets that were used up since it was last looked at.
    #[serde(default)]
    pub newly_exhausted: BTreeSet<String>,
    /// Accepted pushes so far.
    pub pushes: u64,
    /// Calls so far.
    pub calls: u64,
    /// Who approved that it goes on.
    #[serde(default)]
    pub approvals: Approvals,
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
    /// What of the model or of what it is told changed within the run: `asked`, `served`, `system`,
    /// `tools`, `instructions`.
    #[serde(default)]
    pub model_changes: BTreeSet<String>,
    /// Rules of the secret scanner that the request's body breaks.
    #[serde(default)]
    pub secrets: BTreeSet<String>,
    /// Files whose content must stay and is in the request's body.
    #[serde(default)]
    pub kept_files: BTreeSet<String>,
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
    /// Whether bytes would pass unread, whatever is spoken.
    #[serde(default)]
    pub opaque: bool,
    /// Rules of the secret scanner that the request breaks.
    #[serde(default)]
    pub secrets: BTreeSet<String>,
    /// Files whose content must stay and is in the request.
    #[serde(default)]
    pub kept_files: BTreeSet<String>,
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
