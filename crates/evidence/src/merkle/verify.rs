//! Verification of proofs, over plain hashes and indexes: no storage, no trust in who made them.

use portcullis_model::{Digest, Refusal, RefusalKind};

use super::{PROOF_MAX_HASHES, TREE_MAX_SIZE, empty_root, node_hash};

/// Why a proof does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The index is not in a tree of that size.
    #[error("index {index} is outside a tree of {size} leaves")]
    IndexOutsideTree {
        /// The index asked for.
        index: u64,
        /// Number of leaves.
        size: u64,
    },
    /// A larger tree can't be a prefix of a smaller one.
    #[error("a tree of {old_size} leaves can't be a prefix of one of {new_size}")]
    SizesReversed {
        /// Leaves of the tree that should be the prefix.
        old_size: u64,
        /// Leaves of the tree that should contain it.
        new_size: u64,
    },
    /// More leaves than [`TREE_MAX_SIZE`].
    #[error("a tree of {size} leaves is larger than any log can be")]
    TreeTooLarge {
        /// Number of leaves.
        size: u64,
    },
    /// The proof has too few or too many hashes for these sizes.
    #[error("the proof has {received} hashes, which does not fit the tree's size")]
    WrongLength {
        /// How many hashes came.
        received: usize,
    },
    /// The hashes lead to another root.
    #[error("the proof leads to another root: expected {expected}, computed {computed}")]
    RootMismatch {
        /// The root that was claimed.
        expected: Digest,
        /// The root that the proof leads to.
        computed: Digest,
    },
}

impl From<ProofError> for Refusal {
    fn from(error: ProofError) -> Self {
        let (kind, code) = match error {
            ProofError::IndexOutsideTree { .. } => (RefusalKind::NotFound, "index-outside-tree"),
            ProofError::SizesReversed { .. } => (RefusalKind::Malformed, "tree-sizes-reversed"),
            ProofError::TreeTooLarge { .. } => (RefusalKind::Limit, "tree-too-large"),
            ProofError::WrongLength { .. } => (RefusalKind::Denied, "proof-wrong-length"),
            ProofError::RootMismatch { .. } => (RefusalKind::Denied, "proof-root-mismatch"),
        };
        Self::new(kind, code, error.to_string())
    }
}

/// Checks that the leaf with hash `leaf_hash` stands at `index` in the tree of `size` leaves with
/// root `root`.
///
/// # Errors
/// The proof does not show that.
pub fn verify_inclusion(
    leaf_hash: Digest,
    index: u64,
    size: u64,
    proof: &[Digest],
    root: Digest,
) -> Result<(), ProofError> {
    if size > TREE_MAX_SIZE {
        return Err(ProofError::TreeTooLarge { size });
    }
    if index >= size {
        return Err(ProofError::IndexOutsideTree { index, size });
    }
    let wrong_length = || ProofError::WrongLength {
        received: proof.len(),
    };
    if proof.len() > PROOF_MAX_HASHES {
        return Err(wrong_length());
    }
    // `position` is our node's place in its level, `last` that of the level's last node.
    let mut position = index;
    let mut last = size - 1;
    let mut hash = leaf_hash;
    for sibling in proof {
        if last == 0 {
            return Err(wrong_length());
        }
        if position % 2 == 1 || position == last {
            hash = node_hash(sibling, &hash);
            // A last node without a sibling rises until it is a right child.
            while position.is_multiple_of(2) && position != 0 {
                position >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        position >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(wrong_length());
    }
    same_root(root, hash)
}

/// Checks that the tree of `old_size` leaves with root `old_root` is a prefix of the tree of
/// `new_size` leaves with root `new_root`.
///
/// For equal sizes and for an empty old tree the proof must be empty; the empty tree has one root
/// only.
///
/// # Errors
/// The proof does not show that.
pub fn verify_consistency(
    old_size: u64,
    old_root: Digest,
    new_size: u64,
    new_root: Digest,
    proof: &[Digest],
) -> Result<(), ProofError> {
    if new_size > TREE_MAX_SIZE {
        return Err(ProofError::TreeTooLarge { size: new_size });
    }
    if old_size > new_size {
        return Err(ProofError::SizesReversed { old_size, new_size });
    }
    let wrong_length = || ProofError::WrongLength {
        received: proof.len(),
    };
    if proof.len() > PROOF_MAX_HASHES {
        return Err(wrong_length());
    }
    if old_size == 0 || old_size == new_size {
        if !proof.is_empty() {
            return Err(wrong_length());
        }
        if old_size == 0 {
            same_root(empty_root(), old_root)?;
        }
        if old_size == new_size {
            same_root(old_root, new_root)?;
        }
        return Ok(());
    }
    // Where the old tree is one complete subtree, the proof leaves its root out.
    let (first, rest) = if old_size.is_power_of_two() {
        (old_root, proof)
    } else {
        let (first, rest) = proof.split_first().ok_or_else(wrong_length)?;
        (*first, rest)
    };
    let mut position = old_size - 1;
    let mut last = new_size - 1;
    while position % 2 == 1 {
        position >>= 1;
        last >>= 1;
    }
    let mut old_hash = first;
    let mut new_hash = first;
    for sibling in rest {
        if last == 0 {
            return Err(wrong_length());
        }
        if position % 2 == 1 || position == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while position.is_multiple_of(2) && position != 0 {
                position >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        position >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(wrong_length());
    }
    same_root(old_root, old_hash)?;
    same_root(new_root, new_hash)
}

fn same_root(expected: Digest, computed: Digest) -> Result<(), ProofError> {
    if expected == computed {
        Ok(())
    } else {
        Err(ProofError::RootMismatch { expected, computed })
    }
}
