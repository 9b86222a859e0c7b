//! Changes, and what checks and tests say of them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::DecisionRecord;
use crate::digest::{Digest, GitOid};
use crate::id::{ChangeId, JobId, RepositoryId, RunId};
use crate::principal::Party;
use crate::statement::Envelope;

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
