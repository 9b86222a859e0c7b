//! What is done to the world outside: intent, attempt, outcome.

use serde::{Deserialize, Serialize};

use super::DecisionRecord;
use crate::digest::GitOid;
use crate::id::{ChangeId, LedgerIndex, ReleaseId, RepositoryId, RequestId, RolloutId, TaskId};

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
        /// The entry that made the commit ready, if it is not the pushed one itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prepared: Option<LedgerIndex>,
        /// The task whose changes all land or none, if this is one of them. Their intents follow
        /// each other without a gap, in the order of the task's targets.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        together: Option<TaskId>,
    },
    /// A branch goes back to where it stood before a landing that was to happen together with
    /// others, one of which failed. Idempotent and observable.
    TakeBack {
        /// The intent of the landing.
        landing: LedgerIndex,
        /// Of which change.
        change: ChangeId,
        /// Where.
        repository: RepositoryId,
        /// On which branch.
        branch: String,
        /// From what landed
        from: GitOid,
        /// to where it was.
        to: GitOid,
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
            Self::TakeBack { landing, .. } => format!("take-back/{landing}"),
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
