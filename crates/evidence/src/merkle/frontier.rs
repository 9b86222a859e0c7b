//! The right edge of a tree: all that appending needs.

use portcullis_model::{Digest, Refusal};
use serde::{Deserialize, Serialize};

use super::{Node, ProofError, TREE_MAX_SIZE, empty_root, node_hash};

/// The hashes of the complete subtrees that a tree of `size` leaves is made of, largest first: one
/// per set bit of `size`, so at most 63.
///
/// Serialises as `{"peaks": […], "size": n}`; reading refuses any other number of peaks than
/// `size` has set bits. Whether the peaks are those of a certain log is for the reader to check,
/// by comparing [`Frontier::root`] with a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredFrontier", into = "StoredFrontier")]
pub struct Frontier {
    size: u64,
    peaks: Vec<Digest>,
}

impl Frontier {
    /// Appends one leaf. Returns the subtrees that it completed, the leaf itself first, each with
    /// its hash: exactly what storage must add.
    ///
    /// # Errors
    /// The tree is full ([`TREE_MAX_SIZE`]); it is unchanged then.
    pub fn append(&mut self, leaf: Digest) -> Result<Vec<(Node, Digest)>, ProofError> {
        if self.size >= TREE_MAX_SIZE {
            return Err(ProofError::TreeTooLarge { size: self.size });
        }
        let mut index = self.size;
        let mut hash = leaf;
        let mut level = 0;
        let mut completed = vec![(Node { level, index }, hash)];
        // Each trailing one bit of the old size is a peak that the new leaf's subtree joins.
        while index % 2 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(&left, &hash);
            index /= 2;
            level += 1;
            completed.push((Node { level, index }, hash));
        }
        self.peaks.push(hash);
        self.size += 1;
        Ok(completed)
    }

    /// The root over all leaves appended so far.
    pub fn root(&self) -> Digest {
        fold_peaks(&self.peaks).unwrap_or_else(empty_root)
    }

    /// The hashes of [`Frontier::peaks_of`] its size.
    pub fn peaks(&self) -> &[Digest] {
        &self.peaks
    }

    /// The subtrees whose hashes are the peaks of a tree of `size` leaves, largest first.
    pub fn peaks_of(size: u64) -> Vec<Node> {
        let mut start = 0_u64;
        (0..=62_u8)
            .rev()
            .filter(|level| size >> level & 1 == 1)
            .map(|level| {
                let index = start >> level;
                start += 1 << level;
                Node { level, index }
            })
            .collect()
    }

    /// The edge of a tree of `size` leaves from the hashes of [`Frontier::peaks_of`].
    ///
    /// # Errors
    /// Another number of them than `size` has set bits, or a size beyond [`TREE_MAX_SIZE`].
    pub fn from_peaks(size: u64, peaks: Vec<Digest>) -> Result<Self, Refusal> {
        Self::try_from(StoredFrontier { peaks, size })
            .map_err(|message| Refusal::malformed("frontier").received(&message))
    }

    /// Number of leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }
}

/// The hash over subtrees of falling size, given from left to right; `None` for none.
pub(super) fn fold_peaks(peaks: &[Digest]) -> Option<Digest> {
    peaks
        .iter()
        .copied()
        .rev()
        .reduce(|right, left| node_hash(&left, &right))
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredFrontier {
    peaks: Vec<Digest>,
    size: u64,
}

impl From<Frontier> for StoredFrontier {
    fn from(frontier: Frontier) -> Self {
        Self {
            peaks: frontier.peaks,
            size: frontier.size,
        }
    }
}

impl TryFrom<StoredFrontier> for Frontier {
    type Error = String;

    fn try_from(stored: StoredFrontier) -> Result<Self, String> {
        let expected = u64::from(stored.size.count_ones());
        if stored.size > TREE_MAX_SIZE || stored.peaks.len() as u64 != expected {
            return Err(format!(
                "a frontier of size {} has {expected} peaks, not {}",
                stored.size,
                stored.peaks.len()
            ));
        }
        Ok(Self {
            size: stored.size,
            peaks: stored.peaks,
        })
    }
}
