//! The RFC 6962 Merkle tree over SHA-256: appending in O(log n), proofs, their verification.
//!
//! A log keeps the hash of every *complete subtree*, named by a [`Node`]: level 0 are the leaves,
//! the node at `(level, index)` covers the leaves from `index << level` to `(index + 1) << level`.
//! Such a hash never changes once written, so storage is append-only, and any root or proof is made
//! of few of them. [`Frontier::append`] says which nodes a leaf completes; [`HashReader`] gives them
//! back; a proof is planned first (which nodes?) and then read in one go.
//!
//! Source: RFC 6962 section 2.1; verification follows RFC 9162 sections 2.1.3.2 and 2.1.4.2.

mod frontier;
mod prove;
mod verify;

#[cfg(test)]
mod tests;

pub use frontier::Frontier;
pub use prove::{HashReader, MemoryTree, consistency_proof, inclusion_proof, root_at};
pub use verify::{ProofError, verify_consistency, verify_inclusion};

use portcullis_model::Digest;

/// Most leaves of a tree, 2⁶³ − 1: an index always fits a database's signed 64-bit integer, and
/// sums of two sizes don't overflow.
pub const TREE_MAX_SIZE: u64 = i64::MAX as u64;

/// Most hashes in one proof: a tree of [`TREE_MAX_SIZE`] leaves is 63 levels high, and a
/// consistency proof names one hash more.
pub const PROOF_MAX_HASHES: usize = 64;

/// A complete subtree: the one that covers the leaves `index << level .. (index + 1) << level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Height above the leaves, 0 to 62.
    pub level: u8,
    /// Position among the subtrees of its level, from the left, from 0.
    pub index: u64,
}

/// The hash of a leaf: SHA-256 of a zero byte and the entry's exact bytes.
pub fn leaf_hash(entry: &[u8]) -> Digest {
    Digest::of_parts(&[&[0], entry])
}

/// The hash of an inner node: SHA-256 of a one byte and both children's hashes.
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    Digest::of_parts(&[&[1], left.as_bytes(), right.as_bytes()])
}

/// The root of the tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Digest {
    Digest::of(b"")
}
