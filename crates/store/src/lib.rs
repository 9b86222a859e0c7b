//! A database behind the sequencer: the only writer of the ledger, and the source of truth.
//!
//! Start at [`Ledger::open`]; everyone else holds a [`LedgerHandle`], which is a
//! [`portcullis_model::Recorder`]. The ledger is generic over the [`portcullis_model::Fold`] whose
//! events it keeps: it knows when an event is durable, not what it means.
//!
//! A data directory holds
//! - `lock`: held by the one server, which writes its process id into it;
//! - `ledger.db`: entries, full tiles, signed checkpoints (`database.rs`, `tree.rs`);
//! - `reserve.journal`: space set aside for acts that reduce authority (`reserve.rs`);
//! - `private.db`: what can be erased: people, blob keys, local values (`private.rs`);
//! - `blobs/`: bodies by digest (`blobs.rs`);
//! - `snapshots/`: states of the fold, which spare a start most of the log (`snapshot.rs`).
//!
//! With PostgreSQL the log, what can be erased and the blobs are there instead (`postgres/mod.rs`).
//!
//! How a write gets to the disk, and what a restart finds after each step, is told at the top of
//! `sequencer.rs`; for the reserve in `reserve.rs`, for a blob in `blobs.rs`, for a snapshot in
//! `snapshot.rs`.
//!
//! A restart, step by step: take the lock (or name who has it); read what the reserve has; take the
//! newest snapshot that holds; fold the database's entries behind it (without one, from the first),
//! comparing leaf hashes, and the root where the last signed checkpoint stands; fold the reserve's entries behind them; move those into the database; sign,
//! if entries are durable that no checkpoint covers. Any entry that is missing, altered or of an
//! unknown type ends it: a server that does not know its state has none.
#![forbid(unsafe_code)]

mod backup;
mod blobs;
mod checkpoint;
mod clock;
mod database;
mod disk;
mod entry;
mod faults;
mod follow;
mod handle;
mod held;
mod helpers;
mod ledger;
mod lock;
mod postgres;
mod private;
mod queue;
mod rebuild;
mod receipt;
mod reserve;
mod restore;
mod sequencer;
mod snapshot;
mod storage;
mod tiles;
mod tree;
mod verify;
mod wal;
mod writing;

pub mod limits;

pub use blobs::Blobs;
pub use checkpoint::{CheckpointSigner, LogKey, SignedCheckpoint};
pub use clock::{Clock, ManualClock, SystemClock};
pub use entry::Entry;
pub use faults::{Faults, Step};
pub use handle::{LedgerHandle, Tail};
pub use held::Contradiction;
pub use ledger::{Ledger, LedgerOptions, OpenReport};
pub use postgres::{PostgresOptions, PostgresStatus};
pub use private::{Person, PrivateStore};
pub use queue::QueueDepth;
pub use rebuild::{Rebuilt, rebuild_tree};
pub use receipt::{Receipt, RecordedIn};
pub use restore::{Extent, Replaced};
pub use storage::StoreOptions;
pub use verify::{
    BlobsNamedBy, Finding, Verified, VerifyOptions, VerifyReport, verify, verify_from, verify_store,
};
pub use writing::{ReserveSpace, WriteFailure, Writing};
