//! Proofs out of stored subtree hashes: first the plan, then one read, then the hashing.

use std::ops::Range;

use portcullis_model::{Digest, Refusal};

use super::frontier::fold_peaks;
use super::{Frontier, Node, ProofError, TREE_MAX_SIZE, empty_root};

/// Storage of the hashes of complete subtrees.
///
/// A log writes what [`Frontier::append`] returns and never changes it.
pub trait HashReader {
    /// The hashes of `nodes`, in the same order; one call per proof, at most a few hundred nodes.
    ///
    /// # Errors
    /// A node isn't stored, or storage can't be read.
    fn read(&self, nodes: &[Node]) -> Result<Vec<Digest>, Refusal>;
}

/// The root of the first `size` leaves.
///
/// # Errors
/// `size` is more than [`TREE_MAX_SIZE`], or as [`HashReader::read`].
pub fn root_at(reader: &impl HashReader, size: u64) -> Result<Digest, Refusal> {
    check_size(size)?;
    if size == 0 {
        return Ok(empty_root());
    }
    let whole = 0..size;
    read_ranges(reader, std::slice::from_ref(&whole))?
        .pop()
        .ok_or_else(|| Refusal::internal("a plan of one range gave no hash"))
}

/// The proof that the leaf at `index` is in the tree of the first `size` leaves: sibling hashes
/// from the leaf up (RFC 6962 section 2.1.1).
///
/// # Errors
/// `index` is not below `size`, `size` is more than [`TREE_MAX_SIZE`], or as [`HashReader::read`].
pub fn inclusion_proof(
    reader: &impl HashReader,
    index: u64,
    size: u64,
) -> Result<Vec<Digest>, Refusal> {
    check_size(size)?;
    if index >= size {
        return Err(ProofError::IndexOutsideTree { index, size }.into());
    }
    read_ranges(reader, &plan_inclusion(index, size))
}

/// The proof that the tree of the first `old_size` leaves is a prefix of that of `new_size`
/// (RFC 6962 section 2.1.2). Empty where both sizes are equal or the old tree is empty.
///
/// # Errors
/// `old_size` is more than `new_size`, that more than [`TREE_MAX_SIZE`], or as
/// [`HashReader::read`].
pub fn consistency_proof(
    reader: &impl HashReader,
    old_size: u64,
    new_size: u64,
) -> Result<Vec<Digest>, Refusal> {
    check_size(new_size)?;
    if old_size > new_size {
        return Err(ProofError::SizesReversed { old_size, new_size }.into());
    }
    if old_size == 0 || old_size == new_size {
        return Ok(Vec::new());
    }
    read_ranges(reader, &plan_consistency(old_size, new_size))
}

/// All subtree hashes in memory: for tests, for a verifier that has every entry, for small logs.
#[derive(Clone, Debug, Default)]
pub struct MemoryTree {
    frontier: Frontier,
    levels: Vec<Vec<Digest>>,
}

impl MemoryTree {
    /// Appends the hash of one leaf.
    ///
    /// # Errors
    /// As [`Frontier::append`].
    pub fn append(&mut self, leaf: Digest) -> Result<(), ProofError> {
        for (node, hash) in self.frontier.append(leaf)? {
            let level = usize::from(node.level);
            if self.levels.len() <= level {
                self.levels.resize_with(level + 1, Vec::new);
            }
            if let Some(hashes) = self.levels.get_mut(level) {
                hashes.push(hash);
            }
        }
        Ok(())
    }

    /// The root over all leaves.
    pub fn root(&self) -> Digest {
        self.frontier.root()
    }

    /// Number of leaves.
    pub const fn size(&self) -> u64 {
        self.frontier.size()
    }
}

impl HashReader for MemoryTree {
    fn read(&self, nodes: &[Node]) -> Result<Vec<Digest>, Refusal> {
        nodes
            .iter()
            .map(|node| {
                self.levels
                    .get(usize::from(node.level))
                    .zip(usize::try_from(node.index).ok())
                    .and_then(|(hashes, index)| hashes.get(index))
                    .copied()
                    .ok_or_else(|| {
                        Refusal::not_found(
                            "tree-node",
                            format_args!("at level {} index {}", node.level, node.index),
                        )
                    })
            })
            .collect()
    }
}

fn check_size(size: u64) -> Result<(), Refusal> {
    if size > TREE_MAX_SIZE {
        return Err(ProofError::TreeTooLarge { size }.into());
    }
    Ok(())
}

/// The ranges of leaves whose hashes prove `index` in `size`, from the leaf up.
fn plan_inclusion(index: u64, size: u64) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    let mut within = 0..size;
    while within.end - within.start > 1 {
        let middle = within.start + split(within.end - within.start);
        if index < middle {
            ranges.push(middle..within.end);
            within.end = middle;
        } else {
            ranges.push(within.start..middle);
            within.start = middle;
        }
    }
    ranges.reverse();
    ranges
}

/// The ranges of leaves whose hashes lead from `old_size` to `new_size`, for `0 < old < new`.
fn plan_consistency(old_size: u64, new_size: u64) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    let mut within = 0..new_size;
    // Down the right edge of the old tree, until the range is exactly the rest of it.
    while within.end > old_size {
        let middle = within.start + split(within.end - within.start);
        if old_size <= middle {
            ranges.push(middle..within.end);
            within.end = middle;
        } else {
            ranges.push(within.start..middle);
            within.start = middle;
        }
    }
    // If that rest is the whole old tree, the verifier has its hash: the old root.
    if within.start != 0 {
        ranges.push(within);
    }
    ranges.reverse();
    ranges
}

/// The largest power of two below `size`, for `size` of at least 2.
fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// The hash of each range, all read at once.
fn read_ranges(reader: &impl HashReader, ranges: &[Range<u64>]) -> Result<Vec<Digest>, Refusal> {
    let plan: Vec<Vec<Node>> = ranges.iter().map(subtrees).collect();
    let wanted: Vec<Node> = plan.iter().flatten().copied().collect();
    let hashes = reader.read(&wanted)?;
    if hashes.len() != wanted.len() {
        return Err(Refusal::internal(format!(
            "storage was asked for {} tree hashes and gave {}",
            wanted.len(),
            hashes.len()
        )));
    }
    let mut rest = hashes.as_slice();
    let mut roots = Vec::with_capacity(plan.len());
    for nodes in &plan {
        let (peaks, others) = rest
            .split_at_checked(nodes.len())
            .ok_or_else(|| Refusal::internal("a proof's plan and its hashes differ in length"))?;
        rest = others;
        roots.push(fold_peaks(peaks).ok_or_else(|| Refusal::internal("a proof's range is empty"))?);
    }
    Ok(roots)
}

/// The complete subtrees that cover `range`, from left to right. The tree's shape makes each start
/// a multiple of the largest power of two that fits.
fn subtrees(range: &Range<u64>) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut start = range.start;
    while start < range.end {
        let level = (range.end - start).ilog2();
        nodes.push(Node {
            level: u8::try_from(level).unwrap_or(u8::MAX),
            index: start >> level,
        });
        start += 1 << level;
    }
    nodes
}
