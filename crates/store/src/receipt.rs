//! What a caller gets for a command that was recorded.

use std::sync::Arc;

use portcullis_model::{Fold, LedgerIndex};

use crate::checkpoint::SignedCheckpoint;

/// What became of a command.
#[derive(Clone, Debug)]
pub struct Receipt<F: Fold> {
    /// Index of its first entry. For a command that changed nothing: of the newest entry there
    /// was when that held (0 in an empty ledger).
    pub first: LedgerIndex,
    /// Its events, as a restart will read them.
    pub events: Vec<F::Event>,
    /// A signed checkpoint that covers them; there is none while they wait for the database.
    pub checkpoint: Option<Arc<SignedCheckpoint>>,
    /// Where they are.
    pub recorded: RecordedIn,
}

/// Where the entries of a command are. Only commands that reduce authority are ever answered with
/// anything but [`RecordedIn::Ledger`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordedIn {
    /// Durable in the ledger's database.
    Ledger,
    /// Durable in the reserve; the next entries of the ledger, moved there as soon as it can be
    /// written.
    Reserve,
    /// In effect, and in memory alone: neither could be written. Lost if the process ends now.
    Pending,
}
