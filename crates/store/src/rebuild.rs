//! Tiles and leaf hashes made anew from the entries: what derives can be lost without loss.
//!
//! 1. *Every entry is hashed from its bytes* and the tree counted, without a look at what is stored
//!    of it. Its root must be the one that the log's key signed over all of them: then the bytes are
//!    the signed ones. Otherwise nothing is written.
//! 2. *What is stored is compared,* and what differs or is missing is written, some hundred tiles in
//!    a transaction. A restart finds some of them mended; the next rebuild goes on.

use std::path::Path;

use portcullis_evidence::merkle::leaf_hash;
use portcullis_evidence::note::VerifierKey;
use portcullis_model::{Digest, LedgerIndex, Refusal};

use crate::checkpoint::SignedCheckpoint;
use crate::disk::{create_private_directory, io_refusal};
use crate::faults::Faults;
use crate::ledger::wrong_root;
use crate::lock::DirectoryLock;
use crate::storage::{self, LogReader, StoreOptions};
use crate::tree::{Tile, Tree};

/// Tiles and leaf hashes in one transaction: at most 8 KiB each.
const AT_ONCE: usize = 256;

/// What a rebuild did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Entries that were hashed.
    pub size: u64,
    /// Full tiles of their tree.
    pub tiles: u64,
    /// Those of them that were missing or damaged, and are whole now.
    pub tiles_mended: u64,
    /// Leaf hashes beside entries that were damaged, and are whole now.
    pub leaves_mended: u64,
}

/// Makes the stored tree of the ledger of `dir` whole again. No server may run; with PostgreSQL none
/// may lead.
///
/// # Errors
/// A server runs; an entry is missing or is not the signed one, or no checkpoint covers the last
/// ones; then nothing is changed. Or the disk can't be written.
pub fn rebuild_tree(
    dir: &Path,
    store: &StoreOptions,
    key: &VerifierKey,
) -> Result<Rebuilt, Refusal> {
    create_private_directory(dir)
        .map_err(|error| io_refusal(&format!("open {}", dir.display()), &error))?;
    let _lock = DirectoryLock::take(dir)?;
    let mut opened = storage::open(dir, store, Faults::default())?;
    let rebuilt = rebuild(&mut opened.writer, key);
    opened.writer.give_back();
    rebuilt
}

fn rebuild(writer: &mut storage::Writer, key: &VerifierKey) -> Result<Rebuilt, Refusal> {
    let size = prove(writer.reader(), key)?;
    let mut rebuilt = Rebuilt {
        size,
        ..Rebuilt::default()
    };
    let mut tree = Tree::default();
    while tree.size() < size {
        let mended = next(writer.reader(), &mut tree, size, &mut rebuilt)?;
        if !mended.tiles.is_empty() || !mended.leaves.is_empty() {
            writer.mend(&mended.tiles, &mended.leaves)?;
            rebuilt.tiles_mended += mended.tiles.len() as u64;
            rebuilt.leaves_mended += mended.leaves.len() as u64;
        }
    }
    Ok(rebuilt)
}

/// What of one piece of the log must be written.
#[derive(Default)]
struct Mended {
    tiles: Vec<Tile>,
    leaves: Vec<(LedgerIndex, Digest)>,
}

/// Goes over entries until enough of them must be mended, or all are done.
fn next(
    reader: &dyn LogReader,
    tree: &mut Tree,
    size: u64,
    rebuilt: &mut Rebuilt,
) -> Result<Mended, Refusal> {
    let mut mended = Mended::default();
    reader.each_entry(tree.size(), size, &mut |entry| {
        let leaf = leaf_hash(&entry.bytes);
        if leaf != entry.leaf {
            mended.leaves.push((entry.index, leaf));
        }
        for tile in tree.append(leaf)? {
            rebuilt.tiles += 1;
            // One that can't even be read is damaged too.
            if reader.tile(tile.level, tile.index).ok().flatten().as_ref() != Some(&tile) {
                mended.tiles.push(tile);
            }
        }
        Ok(mended.tiles.len() + mended.leaves.len() < AT_ONCE)
    })?;
    Ok(mended)
}

/// Shows that the entries' bytes are those that were signed; gives how many there are.
fn prove(reader: &dyn LogReader, key: &VerifierKey) -> Result<u64, Refusal> {
    let size = reader.size()?;
    let signed = reader.last_checkpoint()?;
    if let Some(signed) = &signed {
        SignedCheckpoint::check(signed, key)?;
    }
    let covered = signed.as_ref().map_or(0, |signed| signed.size);
    if covered != size {
        return Err(Refusal::conflict(
            "rebuild-unproven",
            format!("the newest checkpoint covers {covered} entries, and there are {size}"),
        )
        .expected("a signed checkpoint over all entries")
        .next("start the server once, which signs one; if it does not start, restore a backup"));
    }
    let mut tree = Tree::default();
    reader.each_entry(0, size, &mut |entry| {
        if entry.index != tree.size() {
            return Err(
                Refusal::conflict("entry-missing", "entries are missing from the ledger")
                    .expected(&format!("entry {}", tree.size()))
                    .received(&format!("entry {}", entry.index)),
            );
        }
        tree.append(leaf_hash(&entry.bytes))?;
        Ok(true)
    })?;
    match signed {
        Some(signed) if signed.root != tree.root() || tree.size() != size => {
            Err(wrong_root(&signed, &tree))
        }
        Some(_) | None => Ok(size),
    }
}
