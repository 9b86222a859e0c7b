//! What a caller gets for a command that was recorded.

use std::sync::Arc;

use portcullis_evidence::merkle::inclusion_proof;
use portcullis_model::{Digest, Fold, LedgerIndex, Refusal};

use crate::checkpoint::SignedCheckpoint;
use crate::tree::BatchNodes;

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
    /// What proves them in that checkpoint's tree.
    pub(crate) nodes: Option<Arc<BatchNodes>>,
}

impl<F: Fold> Receipt<F> {
    /// The proof that the entry at `index`, one of this command's, is in the tree of the receipt's
    /// checkpoint (RFC 6962 section 2.1.1). Computed from memory, on the caller's thread.
    ///
    /// # Errors
    /// There is no checkpoint over the entries yet (`proof-pending`), or the entry is of another
    /// batch.
    pub fn inclusion_proof(&self, index: LedgerIndex) -> Result<Vec<Digest>, Refusal> {
        match &self.nodes {
            Some(nodes) if nodes.has(index) => inclusion_proof(&**nodes, index, nodes.size()),
            Some(_) => Err(Refusal::not_found("entry in the receipt", index)),
            None => Err(Refusal::unavailable(
                "proof-pending",
                "no checkpoint covers these entries yet",
            )
            .next("ask the ledger for the proof once its checkpoint covers them")),
        }
    }
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
