//! A tree read through its tiles, as a client that has only those reads it.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_model::{Digest, Refusal};

use super::{Kind, Piece, TILE_HEIGHT, TILE_WIDTH, parse_hashes};
use crate::merkle::{HashReader, Node, node_hash};

/// The tiles, each as wide as in a tree of `size` leaves, that hold or lead to `nodes`.
///
/// # Errors
/// A node is not in such a tree.
pub fn tiles_for(nodes: &[Node], size: u64) -> Result<BTreeSet<Piece>, Refusal> {
    nodes
        .iter()
        .map(|node| place(*node, size).map(|(piece, _, _)| piece))
        .collect()
}

/// Tiles of one tree that were fetched; what is read from them is only as true as the root that a
/// caller compares it with.
#[derive(Clone, Debug)]
pub struct TileMap {
    size: u64,
    tiles: BTreeMap<Piece, Vec<Digest>>,
}

impl TileMap {
    /// No tiles yet, of a tree of `size` leaves.
    pub const fn new(size: u64) -> Self {
        Self {
            size,
            tiles: BTreeMap::new(),
        }
    }

    /// Adds a tile's bytes.
    ///
    /// # Errors
    /// As [`parse_hashes`].
    pub fn add(&mut self, piece: Piece, bytes: &[u8]) -> Result<(), Refusal> {
        self.tiles.insert(piece, parse_hashes(&piece, bytes)?);
        Ok(())
    }

    /// Lets go of the full tiles of leaf hashes, which are most of a tree.
    pub fn forget_leaves(&mut self) {
        self.tiles
            .retain(|piece, _| piece.kind() != Kind::Hashes(0) || !piece.is_full());
    }

    /// Those of `nodes`' tiles that are not here yet.
    ///
    /// # Errors
    /// A node is not in the tree.
    pub fn missing(&self, nodes: &[Node]) -> Result<Vec<Piece>, Refusal> {
        let wanted = tiles_for(nodes, self.size)?;
        Ok(wanted
            .into_iter()
            .filter(|piece| !self.tiles.contains_key(piece))
            .collect())
    }
}

impl HashReader for TileMap {
    fn read(&self, nodes: &[Node]) -> Result<Vec<Digest>, Refusal> {
        nodes
            .iter()
            .map(|node| {
                let (piece, start, count) = place(*node, self.size)?;
                self.tiles
                    .get(&piece)
                    .and_then(|hashes| hashes.get(start..start.checked_add(count)?))
                    .and_then(subtree)
                    .ok_or_else(|| not_there(*node))
            })
            .collect()
    }
}

/// The tile of a node, the place of its first hash there, and how many of them it covers.
fn place(node: Node, size: u64) -> Result<(Piece, usize, usize), Refusal> {
    let level = node.level / TILE_HEIGHT;
    let count = 1_u64 << (node.level % TILE_HEIGHT);
    let found = node.index.checked_mul(count).and_then(|start| {
        let piece = Piece::in_tree(Kind::Hashes(level), start / TILE_WIDTH, size)?;
        let end = start.checked_add(count)?;
        let from = usize::try_from(start % TILE_WIDTH).ok()?;
        (end <= piece.end()).then_some((piece, from, usize::try_from(count).ok()?))
    });
    found.ok_or_else(|| not_there(node))
}

fn not_there(node: Node) -> Refusal {
    Refusal::not_found(
        "tree-node",
        format_args!("at level {} index {}", node.level, node.index),
    )
}

/// The root of a complete subtree over `hashes`, a power of two of them.
fn subtree(hashes: &[Digest]) -> Option<Digest> {
    match hashes {
        [] => None,
        [hash] => Some(*hash),
        more => {
            let (left, right) = more.split_at_checked(more.len() / 2)?;
            Some(node_hash(&subtree(left)?, &subtree(right)?))
        }
    }
}
