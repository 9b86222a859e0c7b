//! The queue of a branch: what would land is made, tested as it would land, and halted if it is not
//! what was approved.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{CheckVerdict, TestCounts, TestVerdict};
use crate::digest::{Digest, GitOid};
use crate::id::{ChangeId, JobId, LedgerIndex, RepositoryId};
use crate::statement::Envelope;

/// How commits of a change come onto its branch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum LandingMethod {
    /// The pushed commits themselves; where the branch moved on meanwhile, as by `rebase`, or by
    /// `merge` if there is a merge among them.
    #[default]
    FastForward,
    /// A merge commit, always.
    Merge,
    /// Each commit again, one after the other.
    Rebase,
    /// One commit.
    Squash,
}

/// What would land was made: other commits than the pushed ones, with the same diff. Its index
/// names it. It grants nothing; landing it is an effect of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandingPrepared {
    /// Which change.
    pub change: ChangeId,
    /// Which revision.
    pub revision: u64,
    /// By which method.
    pub method: LandingMethod,
    /// The commit of the branch that configures it and its tests.
    pub root: GitOid,
    /// Where it stands on: the branch's tip, or what is prepared before it in the queue.
    pub base: GitOid,
    /// What would land.
    pub head: GitOid,
    /// The tree of that commit.
    pub tree: GitOid,
    /// SHA-256 manifest from `base` to `head`: the revision's own.
    pub manifest: Digest,
    /// Commits from `base` to `head`, newest first.
    pub commits: Vec<GitOid>,
    /// How many changes the queue tests at once.
    pub batch: u32,
}

/// Checks and tests ran again on what was prepared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandingTested {
    /// Of which change.
    pub change: ChangeId,
    /// What was prepared.
    pub prepared: LedgerIndex,
    /// What the tests ran on, if on something prepared behind it: a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<LedgerIndex>,
    /// Whether everything before it in the queue had passed, so that a failure is its own.
    pub own: bool,
    /// What the tests say.
    pub tests: TestVerdict,
    /// The job on what was prepared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<JobId>,
    /// The job on the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<JobId>,
    /// How many.
    pub counts: TestCounts,
    /// Digest of names and outcomes, kept as a blob.
    pub report: Digest,
    /// What the checks say.
    pub checks: CheckVerdict,
    /// Rules that a human must look at.
    pub escalations: BTreeSet<String>,
    /// Digest of the findings, kept as a blob.
    pub findings: Digest,
}

/// Nothing lands on a branch until a human looked: what would have landed was not what was
/// approved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueHalted {
    /// Where.
    pub repository: RepositoryId,
    /// On which branch.
    pub branch: String,
    /// The change at which it happened.
    pub change: ChangeId,
    /// Stable code of the cause.
    pub code: String,
    /// The tree that was approved.
    pub expected: String,
    /// The tree that would have landed.
    pub found: String,
}

/// A human lets a branch's queue go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueResumed {
    /// Where.
    pub repository: RepositoryId,
    /// On which branch.
    pub branch: String,
    /// Digest of the reason.
    pub why: Digest,
    /// The signed command.
    pub envelope: Envelope,
}
