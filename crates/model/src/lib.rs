//! The words of Portcullis as types.
//!
//! Everything here is a value: no I/O, no clock, no randomness. Later stages depend on this crate
//! for the names of things (ids, digests, principals, tasks), for the event vocabulary that the
//! ledger stores, for the statement that humans sign, and for the one boundary that makes
//! "recorded before used" a type: [`recorder::Recorder`].
#![forbid(unsafe_code)]

pub mod canonical;
pub mod digest;
pub mod document;
pub mod event;
pub mod host;
pub mod id;
pub mod key;
pub mod limits;
pub mod manifest;
pub mod principal;
pub mod recorder;
pub mod refusal;
pub mod secret;
pub mod statement;
pub mod task;
pub mod time;

pub use digest::{Digest, GitOid};
pub use event::{Body, Event};
pub use id::{
    AgentId, ArtifactId, ChangeId, EndpointId, EnvironmentId, GroupId, HostId, HumanId, JobId,
    LedgerIndex, ReleaseId, RepositoryId, RequestId, RolloutId, RunId, ServiceId, TaskId,
};
pub use key::{KeyClass, PublicKey};
pub use principal::{Actor, Cause, Containment, Kind, Mode, Party, Principal};
pub use recorder::{Fold, Recorded, Recorder};
pub use refusal::{Refusal, RefusalKind};
pub use secret::Secret;
pub use task::{Scope, Task, TaskText};
pub use time::Timestamp;
