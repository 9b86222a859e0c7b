//! The Merkle tree's hashes in the database, in the shape in which tiles are served.
//!
//! Stored are the leaf hash in every entry's row, and each *full* tile: the 256 hashes at tile
//! level L (tree level 8·L) that share a parent at tree level 8·L + 8, with that parent, the
//! tile's root. A full tile never changes. The partial tiles at the right edge are not stored:
//! their hashes are leaf hashes or roots of full tiles, and are read from there. So an append
//! writes 32 bytes for the tree, and every 256th one a tile besides.
//!
//! Source of the tile shape: C2SP tlog-tiles.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use portcullis_evidence::merkle::{Frontier, HashReader, Node, node_hash};
use portcullis_model::{Digest, Refusal};

use crate::storage::LogReader;

/// Tree levels that one tile spans, and the hashes in a full tile (C2SP tlog-tiles).
const TILE_HEIGHT: u8 = 8;
const TILE_WIDTH: u64 = 1 << TILE_HEIGHT;
const HASH_BYTES: usize = 32;

/// The right edge of the tree: all that appending needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    frontier: Frontier,
    /// The hashes of the partial tile of each tile level, from the left; fewer than 256 each.
    partial: Vec<Vec<Digest>>,
}

/// A full tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    pub(crate) level: u8,
    pub(crate) index: u64,
    pub(crate) root: Digest,
    pub(crate) hashes: Vec<u8>,
}

impl Tree {
    pub(crate) fn size(&self) -> u64 {
        self.frontier.size()
    }

    pub(crate) fn root(&self) -> Digest {
        self.frontier.root()
    }

    /// The edge of the tree of the first `size` entries, from what is stored of it.
    pub(crate) fn load(reader: &dyn LogReader, size: u64) -> Result<Self, Refusal> {
        let stored = StoredTree(reader);
        let peaks = stored.read(&Frontier::peaks_of(size))?;
        let frontier = Frontier::from_peaks(size, peaks)?;
        let mut partial = Vec::new();
        for level in 0..TILE_LEVELS {
            let width = size >> (u32::from(TILE_HEIGHT) * u32::from(level));
            if width == 0 {
                break;
            }
            let count = width % TILE_WIDTH;
            partial.push(stored.edge(level, width - count, count)?);
        }
        Ok(Self { frontier, partial })
    }

    /// Appends a leaf and gives the tiles that it filled.
    pub(crate) fn append(&mut self, leaf: Digest) -> Result<Vec<Tile>, Refusal> {
        self.append_noting(leaf, |_, _| {})
    }

    /// As [`append`](Self::append), and tells each subtree that it completed.
    pub(crate) fn append_noting(
        &mut self,
        leaf: Digest,
        mut note: impl FnMut(Node, Digest),
    ) -> Result<Vec<Tile>, Refusal> {
        let mut tiles = Vec::new();
        for (node, hash) in self.frontier.append(leaf)? {
            note(node, hash);
            if !node.level.is_multiple_of(TILE_HEIGHT) {
                continue;
            }
            let level = node.level / TILE_HEIGHT;
            if let Some(below) = level.checked_sub(1)
                && let Some(filled) = self.partial.get_mut(usize::from(below))
            {
                tiles.push(Tile {
                    level: below,
                    index: node.index,
                    root: hash,
                    hashes: join(&std::mem::take(filled)),
                });
            }
            if self.partial.len() <= usize::from(level) {
                self.partial.push(Vec::new());
            }
            if let Some(edge) = self.partial.get_mut(usize::from(level)) {
                edge.push(hash);
            }
        }
        Ok(tiles)
    }
}

/// The subtrees that prove the leaves of one batch, as they were when it was appended: the peaks
/// of the tree before it, and what the batch completed. Left siblings on a new leaf's way to the
/// root are one or the other, and so is all that stands to its right.
pub(crate) struct BatchNodes {
    first: u64,
    size: u64,
    nodes: HashMap<Node, Digest>,
}

impl BatchNodes {
    /// Those of a batch that is about to be appended to `tree`.
    pub(crate) fn before(tree: &Tree) -> Self {
        let first = tree.size();
        let peaks = Frontier::peaks_of(first).into_iter();
        Self {
            first,
            size: first,
            nodes: peaks.zip(tree.frontier.peaks().iter().copied()).collect(),
        }
    }

    /// Appends a leaf of the batch to `tree`.
    pub(crate) fn append(&mut self, tree: &mut Tree, leaf: Digest) -> Result<Vec<Tile>, Refusal> {
        let tiles = tree.append_noting(leaf, |node, hash| {
            self.nodes.insert(node, hash);
        })?;
        self.size = tree.size();
        Ok(tiles)
    }

    /// Number of leaves with the batch.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// Whether the leaf is one of the batch.
    pub(crate) const fn has(&self, index: u64) -> bool {
        self.first <= index && index < self.size
    }
}

impl HashReader for BatchNodes {
    fn read(&self, nodes: &[Node]) -> Result<Vec<Digest>, Refusal> {
        let known = |node: &Node| self.nodes.get(node).copied();
        let found: Option<Vec<Digest>> = nodes.iter().map(known).collect();
        found.ok_or_else(|| Refusal::internal("a batch does not hold its own proof"))
    }
}

impl std::fmt::Debug for BatchNodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BatchNodes({}..{})", self.first, self.size)
    }
}

impl Tile {
    /// The tile of level 0 that a leaf stands in, and its place there.
    pub(crate) const fn of_leaf(index: u64) -> (u64, u64) {
        (index / TILE_WIDTH, index % TILE_WIDTH)
    }

    /// The hash at `place`, from 0.
    pub(crate) fn hash(&self, place: u64) -> Option<Digest> {
        self.range(place, 1)?.pop()
    }

    fn range(&self, start: u64, count: u64) -> Option<Vec<Digest>> {
        let start = usize::try_from(start).ok()?.checked_mul(HASH_BYTES)?;
        let length = usize::try_from(count).ok()?.checked_mul(HASH_BYTES)?;
        let bytes = self.hashes.get(start..start.checked_add(length)?)?;
        let (hashes, _) = bytes.as_chunks::<HASH_BYTES>();
        Some(hashes.iter().copied().map(Digest::from_bytes).collect())
    }
}

/// Number of full tiles of `level` in a tree of `size` leaves.
pub(crate) fn full_tiles(level: u8, size: u64) -> u64 {
    let shift = u32::from(TILE_HEIGHT) * (u32::from(level) + 1);
    size.checked_shr(shift).unwrap_or(0)
}

/// Tile levels that can exist below [`portcullis_evidence::merkle::TREE_MAX_SIZE`].
pub(crate) const TILE_LEVELS: u8 = 63_u8.div_ceil(TILE_HEIGHT);

/// The stored hashes, read through one connection; best inside one read transaction.
pub(crate) struct StoredTree<'a>(pub(crate) &'a dyn LogReader);

impl HashReader for StoredTree<'_> {
    fn read(&self, nodes: &[Node]) -> Result<Vec<Digest>, Refusal> {
        let mut tiles = HashMap::new();
        nodes
            .iter()
            .map(|node| self.node(*node, &mut tiles))
            .collect()
    }
}

impl StoredTree<'_> {
    fn node(
        &self,
        node: Node,
        tiles: &mut HashMap<(u8, u64), Option<Tile>>,
    ) -> Result<Digest, Refusal> {
        let missing = || {
            Refusal::not_found(
                "tree-node",
                format_args!("at level {} index {}", node.level, node.index),
            )
        };
        let level = node.level / TILE_HEIGHT;
        let height = node.level % TILE_HEIGHT;
        let count = 1_u64 << height;
        let start = node.index.checked_mul(count).ok_or_else(missing)?;
        let place = (level, start / TILE_WIDTH);
        let tile = match tiles.entry(place) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(self.0.tile(place.0, place.1)?),
        };
        let hashes = match tile {
            Some(tile) => tile.range(start % TILE_WIDTH, count),
            None => Some(self.edge(level, start, count)?),
        };
        hashes
            .filter(|hashes| hashes.len() as u64 == count)
            .and_then(|hashes| subtree(&hashes))
            .ok_or_else(missing)
    }

    /// Hashes of a tile that isn't full: leaf hashes, or roots of the tiles below.
    fn edge(&self, level: u8, start: u64, count: u64) -> Result<Vec<Digest>, Refusal> {
        let below = start.saturating_add(count);
        match level.checked_sub(1) {
            None => self.0.leaves(start, below),
            Some(level) => self.0.tile_roots(level, start, below),
        }
    }
}

fn join(hashes: &[Digest]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

/// The root of a complete subtree over `hashes`, a power of two of them.
fn subtree(hashes: &[Digest]) -> Option<Digest> {
    let mut level = hashes.to_vec();
    while level.len() > 1 {
        level = level
            .chunks_exact(2)
            .filter_map(|pair| match pair {
                [left, right] => Some(node_hash(left, right)),
                _ => None,
            })
            .collect();
    }
    level.pop()
}

#[cfg(test)]
mod tests;
