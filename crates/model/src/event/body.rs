//! What can happen, one struct or variant an event type.
//!
//! A type is at version 1 unless [`Body::version`] says more. A newer version is told by what it has
//! that the older one had not, as a field that may be missing: an entry of the older one is read as
//! today's struct without it, and written back byte for byte as it was.

use serde_json::Value;

use crate::digest::Digest;
use crate::id::{ArtifactId, ChangeId, JobId, LedgerIndex, ReleaseId, RequestId, RolloutId, RunId};
use crate::manifest::Activation;
use crate::refusal::Refusal;

mod approval;
mod change;
mod effect;
mod governance;
mod job;
mod landing;
mod release;
mod run;
mod server;

pub use approval::*;
pub use change::*;
pub use effect::*;
pub use governance::*;
pub use job::*;
pub use landing::*;
pub use release::*;
pub use run::*;
pub use server::*;

macro_rules! bodies {
    ($( $(#[$doc:meta])* $variant:ident = $name:literal ),+ $(,)?) => {
        /// What happened.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Body {
            $( $(#[$doc])* $variant($variant) ),+
        }

        impl Body {
            /// Every type ever written, with the versions that are read.
            pub const TYPES: &'static [(&'static str, u32)] =
                &[ $( ($name, 1), )+ ("server.started", 2) ];

            /// The stable type name.
            pub const fn type_name(&self) -> &'static str {
                match self { $( Self::$variant(_) => $name ),+ }
            }

            pub(super) fn to_stored(&self) -> Result<(String, u32, Value), Refusal> {
                let body = match self { $( Self::$variant(body) => serde_json::to_value(body) ),+ };
                let body = body.map_err(|error| {
                    Refusal::internal(format!("an event does not serialise: {error}"))
                })?;
                Ok((self.type_name().to_owned(), self.version(), body))
            }

            pub(super) fn from_stored(name: &str, version: u32, body: Value) -> Result<Self, Refusal> {
                if !Self::TYPES.contains(&(name, version)) {
                    return Err(unknown(name, version));
                }
                let malformed = |what: &str| {
                    Refusal::malformed("ledger entry").received(&format!("{name}: {what}"))
                };
                let body = match name {
                    $( $name => serde_json::from_value(body).map(Self::$variant) ),+,
                    _ => return Err(unknown(name, version)),
                }
                .map_err(|error| malformed(&error.to_string()))?;
                if body.version() == version {
                    Ok(body)
                } else {
                    Err(malformed("what it has is of another version than it says"))
                }
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
    /// A run's workspace was kept as it stood.
    RunCheckpointed = "run.checkpointed",
    /// What a run did so far was looked at: it goes on, or stands still until people say more.
    RunReviewed = "run.reviewed",
    /// People let a run that stood still go on.
    RunResumed = "run.resumed",
    /// Something was denied to a run.
    RequestDenied = "request.denied",
    /// A run used what it was lent.
    CallObserved = "call.observed",
    /// A run's calls of hosts that came within one moment, in one entry.
    CallsObserved = "calls.observed",
    /// Something lent to a run that ended was refused for the first time.
    LeaseRefused = "lease.refused",
    /// What a run's model is told, or which one answers, is new or has changed.
    PromptSeen = "prompt.seen",
    /// A run read from a source that its task does not trust.
    TaintAdded = "taint.added",
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
    /// What would land was made.
    LandingPrepared = "landing.prepared",
    /// Checks and tests ran again on it.
    LandingTested = "landing.tested",
    /// Nothing lands on a branch until a human looked.
    QueueHalted = "queue.halted",
    /// A human lets a branch's queue go on.
    QueueResumed = "queue.resumed",
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
    /// The ledger goes on from an older copy of itself.
    LedgerRestored = "ledger.restored",
}

impl Body {
    /// The version that it is written in: the oldest one that has all of it.
    pub const fn version(&self) -> u32 {
        if matches!(
            self,
            Self::ServerStarted(ServerStarted { store: Some(_), .. })
        ) {
            2
        } else {
            1
        }
    }

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
                Ended::HumanRetired(id) | Ended::HumanForgotten(id) => format!("human:{id}"),
                Ended::ServiceRetired(id) => format!("service:{id}"),
                Ended::HostRetired(id) => format!("host:{id}"),
            },
            Self::TaskAccepted(body) => body.task.to_string(),
            Self::RunStarted(_) => RunId(index).to_string(),
            Self::RunEnded(RunEnded { run, .. })
            | Self::RunCheckpointed(RunCheckpointed { run, .. })
            | Self::RunReviewed(RunReviewed { run, .. })
            | Self::RunResumed(RunResumed { run, .. })
            | Self::CallObserved(CallObserved { run, .. })
            | Self::CallsObserved(CallsObserved { run, .. })
            | Self::LeaseRefused(LeaseRefused { run, .. })
            | Self::PromptSeen(PromptSeen { run, .. })
            | Self::TaintAdded(TaintAdded { run, .. }) => run.to_string(),
            Self::RequestDenied(body) => body
                .run
                .map_or_else(|| "denied".to_owned(), |run| run.to_string()),
            Self::ChangePushed(body) => body.change.unwrap_or(ChangeId(index)).to_string(),
            Self::ChecksCompleted(ChecksCompleted { change, .. })
            | Self::TestsCompleted(TestsCompleted { change, .. })
            | Self::ChangeClosed(ChangeClosed { change, .. }) => change.to_string(),
            Self::LandingPrepared(LandingPrepared { change, .. })
            | Self::LandingTested(LandingTested { change, .. }) => change.to_string(),
            Self::QueueHalted(QueueHalted {
                repository, branch, ..
            })
            | Self::QueueResumed(QueueResumed {
                repository, branch, ..
            }) => format!("queue:{repository}:{branch}"),
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
            Self::LedgerRestored(_) => "ledger".to_owned(),
        }
    }

    /// The blobs that must be there for as long as the entry is looked at. Reasons are not among
    /// them: what takes authority away does not wait for its reason to be kept.
    pub fn blobs(&self) -> Vec<Digest> {
        match self {
            Self::GenesisCreated(body) => body.policy.files.values().copied().collect(),
            Self::ActivationProposed(body) => match &body.activation {
                Activation::Policy(files) => files.files.values().copied().collect(),
                Activation::Human(_)
                | Activation::Group(_)
                | Activation::Agent(_)
                | Activation::Service(_)
                | Activation::Host(_)
                | Activation::Environment(_)
                | Activation::Repository(_)
                | Activation::Endpoint(_) => Vec::new(),
            },
            Self::TaskAccepted(body) => vec![body.payload.text],
            Self::ChangePushed(body) => vec![body.diff],
            Self::ChecksCompleted(body) => vec![body.report],
            Self::TestsCompleted(body) => vec![body.report],
            Self::LandingTested(body) => vec![body.report, body.findings],
            Self::JobRequested(body) => vec![body.configuration],
            Self::JobFinished(body) => {
                let outputs = body.outputs.iter().map(|output| output.digest);
                body.attestation
                    .into_iter()
                    .chain(body.report)
                    .chain(outputs)
                    .collect()
            }
            Self::ArtifactBuilt(body) => vec![body.provenance],
            Self::ReleaseAdmitted(body) => vec![body.verification],
            Self::ActivationCompleted(_)
            | Self::PrincipalEnded(_)
            | Self::RunStarted(_)
            | Self::RunEnded(_)
            | Self::RunCheckpointed(_)
            | Self::RunReviewed(_)
            | Self::RunResumed(_)
            | Self::RequestDenied(_)
            | Self::CallObserved(_)
            | Self::CallsObserved(_)
            | Self::LeaseRefused(_)
            | Self::PromptSeen(_)
            | Self::TaintAdded(_)
            | Self::ChangeClosed(_)
            | Self::JobClaimed(_)
            | Self::RequestOpened(_)
            | Self::ApprovalGiven(_)
            | Self::RequestRejected(_)
            | Self::RequestWithdrawn(_)
            | Self::EffectIntended(_)
            | Self::EffectAttempted(_)
            | Self::EffectConcluded(_)
            | Self::CommitsUnproven(_)
            | Self::LandingPrepared(_)
            | Self::QueueHalted(_)
            | Self::QueueResumed(_)
            | Self::ReleaseRevoked(_)
            | Self::RolloutStarted(_)
            | Self::RolloutStepped(_)
            | Self::RolloutEnded(_)
            | Self::EnvironmentReverted(_)
            | Self::BreakerTripped(_)
            | Self::BreakerReset(_)
            | Self::IncidentOpened(_)
            | Self::ServerStarted(_)
            | Self::LedgerRestored(_) => Vec::new(),
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
                | Self::QueueHalted(_)
                | Self::IncidentOpened(_)
        ) || matches!(
            self,
            Self::RolloutEnded(RolloutEnded {
                outcome: RolloutOutcome::RolledBack,
                ..
            })
        ) || matches!(self, Self::RunReviewed(RunReviewed { stop: Some(_), .. }))
            || matches!(
                self,
                Self::RolloutStepped(RolloutStepped {
                    step: Step::Rollback | Step::Hold | Step::Pause,
                    ..
                })
            )
    }
}
