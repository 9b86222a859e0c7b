//! The statement a human signs, and the commands that people, hosts and services sign.

use serde::{Deserialize, Serialize};

use crate::canonical;
use crate::digest::{Digest, GitOid};
use crate::event::LeaseKind;
use crate::id::{
    AgentId, ArtifactId, ChangeId, EnvironmentId, HostId, HumanId, JobId, LedgerIndex, ReleaseId,
    RepositoryId, RequestId, RolloutId, RunId, ServiceId, TaskId,
};
use crate::key::KeyClass;
use crate::manifest::Activation;
use crate::principal::Principal;
use crate::refusal::Refusal;
use crate::time::Timestamp;

mod restoration;

pub use restoration::{EntryRange, KnownBy, KnownPoint, Restoration};

/// The predicate type of an [`Approval`].
pub const APPROVAL_TYPE: &str = "urn:portcullis:predicate:approval:v1";

/// A DSSE v1 envelope as data. `evidence` makes and verifies it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Envelope {
    /// What the payload is.
    pub payload_type: String,
    /// The payload, base64.
    pub payload: String,
    /// At least one signature.
    pub signatures: Vec<EnvelopeSignature>,
}

/// One signature of an envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeSignature {
    /// Fingerprint of the key; a hint, never trusted.
    pub keyid: String,
    /// The signature, base64.
    pub sig: String,
}

impl Envelope {
    /// The payload's bytes. Reading them proves nothing about the signature.
    ///
    /// # Errors
    /// The payload is not standard base64.
    pub fn payload_bytes(&self) -> Result<Vec<u8>, Refusal> {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD
            .decode(&self.payload)
            .map_err(|error| {
                Refusal::malformed("envelope payload")
                    .expected("standard base64 with padding")
                    .received(&error.to_string())
            })
    }

    /// The digest by which entries name it.
    ///
    /// # Errors
    /// It does not serialise.
    pub fn digest(&self) -> Result<Digest, Refusal> {
        Ok(Digest::of(&canonical::to_vec(self)?))
    }
}

/// A point in the ledger that the signer has seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerPoint {
    /// Which ledger.
    pub origin: String,
    /// Number of entries.
    pub size: u64,
    /// Merkle root over them.
    pub root: Digest,
}

/// What exactly an approval is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "kind")]
pub enum ApprovalSubject {
    /// One revision of a change lands.
    Change {
        /// The change.
        change: ChangeId,
        /// Its revision, counted from 1.
        revision: u64,
        /// Where.
        repository: RepositoryId,
        /// On which branch, without `refs/heads/`.
        branch: String,
        /// The commit it stands on.
        base: GitOid,
        /// The commit that lands.
        head: GitOid,
        /// The tree that results.
        tree: GitOid,
        /// SHA-256 manifest of the tree's changes.
        manifest: Digest,
    },
    /// An artifact is admitted to an environment.
    Release {
        /// The artifact.
        artifact: ArtifactId,
        /// Its SHA-256.
        digest: Digest,
        /// Where it shall run.
        environment: EnvironmentId,
        /// Where it was built from.
        repository: RepositoryId,
        /// The commit that it was built from.
        commit: GitOid,
        /// Digest of its provenance envelope.
        provenance: Digest,
    },
    /// A record of the inventory or a policy comes into force.
    Activation {
        /// What it is about, for the person.
        subject: String,
        /// Digest of the record.
        record: Digest,
    },
    /// A tripped breaker is reset.
    BreakerReset {
        /// Which one.
        scope: BreakerScope,
    },
    /// A run that stands still goes on.
    Resume {
        /// Which run.
        run: RunId,
        /// The entry since which it stands still; an approval is for that one time.
        frozen: LedgerIndex,
        /// As it was, or with less.
        way: ResumeWay,
    },
    /// Commits that reached a branch past us may be part of releases.
    Unproven {
        /// Where.
        repository: RepositoryId,
        /// On which branch.
        branch: String,
        /// After this commit,
        from: GitOid,
        /// up to this one.
        to: GitOid,
    },
}

/// How a run goes on: as it was where nothing is named, else with less.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumeWay {
    /// What it is no longer lent.
    #[serde(default, skip_serializing_if = "std::collections::BTreeSet::is_empty")]
    pub without: std::collections::BTreeSet<LeaseKind>,
    /// When it ends now, if earlier than before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// The checkpoint that its workspace is wound back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointRef>,
}

/// A checkpoint of a run's workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointRef {
    /// Its number.
    pub number: u64,
    /// Digest of what is in it.
    pub manifest: Digest,
}

impl std::fmt::Display for ResumeWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts: Vec<String> = self
            .without
            .iter()
            .map(|lease| format!("without {lease}"))
            .collect();
        parts.extend(self.deadline.map(|deadline| format!("until {deadline}")));
        parts.extend(
            self.checkpoint
                .map(|point| format!("wound back to checkpoint {}", point.number)),
        );
        if parts.is_empty() {
            return f.write_str("as it was");
        }
        f.write_str(&parts.join(", "))
    }
}

/// Whether an approval moves to a later base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carry {
    /// Exactly the signed tree.
    #[default]
    Exact,
    /// The same diff on a later base, recomputed by a verifier, with everything rerun.
    SameDiff,
}

/// The one statement that humans sign to approve anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The ledger and the last checkpoint that the signer saw.
    pub ledger: LedgerPoint,
    /// The request that it answers; exactly one.
    pub request: RequestId,
    /// What it is for.
    pub subject: ApprovalSubject,
    /// The task behind it, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Digest of the checks' and tests' results that were shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<Digest>,
    /// Digest of the policy in force.
    pub policy: Digest,
    /// Digest of the text that was shown to the person.
    pub shown: Digest,
    /// How many times it counts: 1.
    pub count: u32,
    /// Whether it moves to a later base.
    pub carry: Carry,
    /// Who signs.
    pub approver: HumanId,
    /// The least class that the signature must prove for the approver's intent.
    pub key_class: KeyClass,
    /// Worthless at or after this ledger index.
    pub expires_index: LedgerIndex,
    /// Worthless at or after this time.
    pub expires: Timestamp,
    /// 16 random bytes in hex; a nonce counts once.
    pub nonce: String,
}

/// What a breaker covers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    tag = "kind",
    content = "id"
)]
pub enum BreakerScope {
    /// Everything that agents do.
    Everywhere,
    /// Releases to one environment.
    Environment(EnvironmentId),
    /// One agent.
    Agent(AgentId),
    /// One repository.
    Repository(RepositoryId),
}

impl std::fmt::Display for BreakerScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Everywhere => f.write_str("everywhere"),
            Self::Environment(id) => write!(f, "environment {id}"),
            Self::Agent(id) => write!(f, "agent {id}"),
            Self::Repository(id) => write!(f, "repository {id}"),
        }
    }
}

/// A signed command: what a person, host or service tells the server to do. The signature is over
/// its canonical bytes; there are no passwords and no bearer tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedCommand {
    /// Format version: 1.
    pub version: u32,
    /// The ledger it is meant for.
    pub origin: String,
    /// Who commands.
    pub principal: Principal,
    /// When it was signed.
    pub issued: Timestamp,
    /// Worthless at or after this time; at most ten minutes after `issued`.
    pub expires: Timestamp,
    /// 16 random bytes in hex; a nonce counts once.
    pub nonce: String,
    /// What to do.
    pub command: Command,
}

impl SignedCommand {
    /// The payload type of its envelope.
    pub const PAYLOAD_TYPE: &str = "application/vnd.portcullis.command.v1+json";

    /// What an envelope says, before anyone looked at its signature.
    ///
    /// # Errors
    /// It is not the canonical form of a command of this version.
    pub fn read(envelope: &Envelope) -> Result<Self, Refusal> {
        if envelope.payload_type != Self::PAYLOAD_TYPE {
            return Err(Refusal::malformed("command envelope")
                .expected(Self::PAYLOAD_TYPE)
                .received(&envelope.payload_type));
        }
        let command: Self = canonical::from_slice("command", &envelope.payload_bytes()?)?;
        if command.version != Self::VERSION {
            return Err(Refusal::malformed("command version")
                .expected(&Self::VERSION.to_string())
                .received(&command.version.to_string()));
        }
        Ok(command)
    }

    /// The format version that this code writes.
    pub const VERSION: u32 = 1;
    /// Longest life in milliseconds: long enough for a slow hardware key, short enough to forget
    /// nonces soon.
    pub const MAX_LIFE_MS: u64 = 600_000;
}

/// What can be commanded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "do")]
pub enum Command {
    /// Proposes a record or policy; a quorum that excludes the author activates it.
    Propose {
        /// The record.
        activation: Activation,
        /// Digest of the reason, which is sent beside the command.
        why: Digest,
    },
    /// Takes an agent out of service, at once, running ones included.
    SuspendAgent {
        /// Which.
        agent: AgentId,
        /// Digest of the reason, which is sent beside the command.
        why: Digest,
    },
    /// Ends an agent's record for good.
    RetireAgent {
        /// Which.
        agent: AgentId,
        /// Digest of the reason, which is sent beside the command.
        why: Digest,
    },
    /// Ends a person's rights and keys.
    RetireHuman {
        /// Whose.
        human: HumanId,
        /// Digest of the reason, which is sent beside the command.
        why: Digest,
    },
    /// Says who a person is: what stands outside the ledger. No entry records it.
    NameHuman {
        /// Who.
        human: HumanId,
        /// Digest of name and mail address as [`Profile`], which is sent beside the command.
        profile: Digest,
    },
    /// Ends a person's rights and keys, and erases name and mail address.
    ForgetHuman {
        /// Whose.
        human: HumanId,
        /// Digest of the reason, which is sent beside the command.
        why: Digest,
    },
    /// Ends a service's rights.
    RetireService {
        /// Which.
        service: ServiceId,
        /// Digest of the reason, which is sent beside the command.
        why: Digest,
    },
    /// Ends a host's rights and the runs on it.
    RetireHost {
        /// Which.
        host: HostId,
        /// Digest of the reason, which is sent beside the command.
        why: Digest,
    },
    /// Ends a run.
    EndRun {
        /// Which.
        run: RunId,
        /// Digest of the reason, which is sent beside the command.
        why: Digest,
    },
    /// Asks that a run that stands still go on in this way.
    ResumeRun {
        /// Which.
        run: RunId,
        /// How.
        #[serde(default)]
        way: ResumeWay,
        /// Digest of the reason, which is sent beside the command.
        why: Digest,
    },
    /// Says no to a request.
    Reject {
        /// Which.
        request: RequestId,
        /// Digest of the reason, which the next run on that change reads.
        why: Digest,
    },
    /// Withdraws a change.
    CloseChange {
        /// Which.
        change: ChangeId,
        /// Digest of the reason, which is sent beside the command.
        why: Digest,
    },
    /// Lets a branch's queue go on after it was halted.
    ResumeQueue {
        /// Where.
        repository: RepositoryId,
        /// On which branch.
        branch: String,
        /// Digest of the reason, which is sent beside the command.
        why: Digest,
    },
    /// Asks for an artifact to run in an environment.
    Release {
        /// What.
        artifact: ArtifactId,
        /// Where.
        environment: EnvironmentId,
    },
    /// Revokes a release: it can't be returned to.
    RevokeRelease {
        /// Which.
        release: ReleaseId,
        /// Digest of the reason, which is sent beside the command.
        why: Digest,
    },
    /// Returns an environment to the release before.
    Rollback {
        /// Where.
        environment: EnvironmentId,
        /// To which; the one before when none is named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<ReleaseId>,
        /// Digest of the reason, which is sent beside the command.
        why: Digest,
    },
    /// Keeps a rollout where it is.
    PauseRollout {
        /// Which.
        rollout: RolloutId,
        /// Digest of the reason, which is sent beside the command.
        why: Digest,
    },
    /// Lets a paused rollout go on.
    ResumeRollout {
        /// Which.
        rollout: RolloutId,
        /// Digest of the reason, which is sent beside the command.
        why: Digest,
    },
    /// Takes a rollout back to stable.
    AbortRollout {
        /// Which.
        rollout: RolloutId,
        /// Digest of the reason, which is sent beside the command.
        why: Digest,
    },
    /// Halts what agents do.
    TripBreaker {
        /// What it covers.
        scope: BreakerScope,
        /// Digest of the reason, which is sent beside the command.
        why: Digest,
        /// Whether finished releases of agents' work are reverted too.
        #[serde(default)]
        revert: bool,
    },
    /// Asks for a breaker to be reset.
    ResetBreaker {
        /// What it covers.
        scope: BreakerScope,
        /// Digest of the reason, which is sent beside the command.
        why: Digest,
    },
    /// Lets the ledger go on from an older copy of itself, and says what is lost.
    RestoreLedger {
        /// What.
        restoration: Restoration,
        /// Digest of the reason.
        why: Digest,
    },
    /// A host starts a run under a signed task.
    StartRun {
        /// The task's envelope.
        task: Envelope,
        /// Thumbprint (RFC 7638, base64url) of the run's public key.
        run_key: String,
        /// The run's public key: an uncompressed P-256 point in hex.
        run_public_key: String,
        /// SHA-256 of the source ticket's bytes as the host reads it now, if the task has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<Digest>,
        /// Protections that the host says are missing.
        gaps: std::collections::BTreeSet<String>,
    },
    /// A host says that a run ended.
    RunEnded {
        /// Which.
        run: RunId,
        /// Its exit status; 128 and the signal's number if it was killed.
        exit: i32,
        /// Whether the deadline ended it.
        deadline: bool,
    },
    /// Somebody uploads a blob, so that another command can name it.
    Upload {
        /// Its digest.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// A service takes a job.
    ClaimJob {
        /// Which; any that its roles allow when none is named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job: Option<JobId>,
    },
    /// A service delivers a job's result.
    FinishJob {
        /// Which.
        job: JobId,
        /// Whether the command succeeded.
        succeeded: bool,
        /// Digest of the attestation's envelope, uploaded as a blob.
        attestation: Digest,
        /// Digest of the report that the job printed or wrote, uploaded as a blob.
        report: Digest,
        /// What it made: name, digest and size of each output, uploaded as blobs.
        outputs: Vec<Output>,
    },
}

/// One file that a job made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// File name, without folders.
    pub name: String,
    /// SHA-256, computed outside the sandbox.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
}

/// Who a person is: sent beside [`Command::NameHuman`], kept where it can be erased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The name to show.
    pub name: String,
    /// The mail address, if it is to be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<String>,
    /// Random, so that nobody finds the name by trying digests.
    pub salt: String,
}

impl Command {
    /// The stable name, as in the JSON's `do`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Propose { .. } => "propose",
            Self::SuspendAgent { .. } => "suspend-agent",
            Self::RetireAgent { .. } => "retire-agent",
            Self::RetireHuman { .. } => "retire-human",
            Self::NameHuman { .. } => "name-human",
            Self::ForgetHuman { .. } => "forget-human",
            Self::RetireService { .. } => "retire-service",
            Self::RetireHost { .. } => "retire-host",
            Self::EndRun { .. } => "end-run",
            Self::ResumeRun { .. } => "resume-run",
            Self::Reject { .. } => "reject",
            Self::CloseChange { .. } => "close-change",
            Self::ResumeQueue { .. } => "resume-queue",
            Self::Release { .. } => "release",
            Self::RevokeRelease { .. } => "revoke-release",
            Self::Rollback { .. } => "rollback",
            Self::PauseRollout { .. } => "pause-rollout",
            Self::ResumeRollout { .. } => "resume-rollout",
            Self::AbortRollout { .. } => "abort-rollout",
            Self::TripBreaker { .. } => "trip-breaker",
            Self::ResetBreaker { .. } => "reset-breaker",
            Self::RestoreLedger { .. } => "restore-ledger",
            Self::StartRun { .. } => "start-run",
            Self::RunEnded { .. } => "run-ended",
            Self::Upload { .. } => "upload",
            Self::ClaimJob { .. } => "claim-job",
            Self::FinishJob { .. } => "finish-job",
        }
    }
}
