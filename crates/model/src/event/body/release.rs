//! Releases and rollouts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::DecisionRecord;
use crate::digest::Digest;
use crate::id::{ArtifactId, ChangeId, EnvironmentId, ReleaseId, RequestId, RolloutId};
use crate::statement::Envelope;

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
