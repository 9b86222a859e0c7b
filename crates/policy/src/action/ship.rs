//! What becomes of its work: landing, requests, jobs, releases, rollouts.

use std::collections::BTreeSet;

use portcullis_model::event::{CheckVerdict, TestVerdict};
use portcullis_model::manifest::Sensitivity;
use portcullis_model::{
    AgentId, ChangeId, EnvironmentId, GitOid, GroupId, KeyClass, ReleaseId, RepositoryId, RequestId,
};
use serde::{Deserialize, Serialize};

use super::work::Deploys;
use crate::approvals::Approvals;
use crate::request::TaskFacts;

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
    /// What of the model, or of what it was told, changed within the runs behind it.
    #[serde(default)]
    pub model_changes: BTreeSet<String>,
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
