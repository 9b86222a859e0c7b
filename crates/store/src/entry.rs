//! Entries as they are stored and read.

use portcullis_evidence::merkle::leaf_hash;
use portcullis_model::{Digest, LedgerIndex, Timestamp};

/// One entry of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its position; the genesis is 0.
    pub index: LedgerIndex,
    /// When it was decided. Beside the tree, for people and for the clock's guard; the time that
    /// counts stands in the bytes.
    pub time: Timestamp,
    /// RFC 6962 leaf hash of `bytes`.
    pub leaf: Digest,
    /// The event's exact bytes.
    pub bytes: Vec<u8>,
}

impl Entry {
    pub(crate) fn new(index: LedgerIndex, time: Timestamp, bytes: Vec<u8>) -> Self {
        Self {
            index,
            time,
            leaf: leaf_hash(&bytes),
            bytes,
        }
    }
}
