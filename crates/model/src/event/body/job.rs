//! Jobs and what they make.

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, GitOid};
use crate::id::{ChangeId, JobId, RepositoryId, ServiceId};
use crate::statement::{Envelope, Output};

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
