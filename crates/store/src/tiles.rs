//! The ledger in the pieces in which it is served: tiles of hashes, bundles of entries (C2SP
//! tlog-tiles). All of it comes from durable entries and the hashes beside them; nothing is kept
//! for serving alone, so nothing of it can be lost.

use portcullis_evidence::merkle::HashReader as _;
use portcullis_evidence::tiles::{Kind, Piece, write_entry, write_hashes};
use portcullis_model::{Fold, Refusal};

use crate::handle::LedgerHandle;

impl<F: Fold> LedgerHandle<F> {
    /// The bytes of a piece of the tree that the newest signed checkpoint covers. They are the same
    /// whenever they are asked for.
    ///
    /// # Errors
    /// [`tile-beyond-checkpoint`: `NotFound`] that tree has no such piece, or not yet so much of
    /// it; or the database can't be read.
    pub fn piece(&self, piece: &Piece) -> Result<Vec<u8>, Refusal> {
        let size = self.checkpoint().size;
        if !piece.is_in(size) {
            return Err(Refusal::new(
                portcullis_model::RefusalKind::NotFound,
                "tile-beyond-checkpoint",
                format!("the signed tree has no {piece}"),
            )
            .expected(&format!("a piece of a tree of {size} entries"))
            .next("read the checkpoint first; its size says which tiles there are"));
        }
        match piece.kind() {
            Kind::Hashes(_) => {
                let hashes = self.with_tree(size, |tree| tree.read(&piece.nodes()))?;
                Ok(write_hashes(&hashes))
            }
            Kind::Entries => self.bundle(piece),
        }
    }

    fn bundle(&self, piece: &Piece) -> Result<Vec<u8>, Refusal> {
        let mut bundle = Vec::new();
        let mut at = piece.start();
        // One read stops at a number of bytes; it always gives one entry at least.
        while at < piece.end() {
            let limit = usize::try_from(piece.end() - at).unwrap_or(usize::MAX);
            let entries = self.entries(at, limit)?;
            if entries.is_empty() {
                return Err(Refusal::not_found("entry", at));
            }
            for entry in entries {
                if entry.index != at {
                    return Err(Refusal::not_found("entry", at));
                }
                write_entry(&mut bundle, &entry.bytes)?;
                at += 1;
            }
        }
        Ok(bundle)
    }
}
