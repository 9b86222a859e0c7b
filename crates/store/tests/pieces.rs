//! The ledger as it is served: pieces that never change, and nothing beyond the checkpoint.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod toy;

use std::collections::BTreeMap;

use portcullis_evidence::merkle::{inclusion_proof, leaf_hash, root_at, verify_inclusion};
use portcullis_evidence::tiles::{
    Kind, Piece, TILE_MAX_LEVEL, TileMap, parse_entries, parse_hashes,
};
use portcullis_model::RefusalKind;
use portcullis_store::LedgerHandle;
use toy::{Command, Toy, grant, open, trip};

/// Every piece of the signed tree, each as wide as it is there.
fn served(handle: &LedgerHandle<Toy>) -> BTreeMap<Piece, Vec<u8>> {
    let size = handle.checkpoint().size;
    let kinds = (0..=TILE_MAX_LEVEL)
        .map(Kind::Hashes)
        .chain([Kind::Entries]);
    let mut pieces = BTreeMap::new();
    for kind in kinds {
        let mut index = 0;
        while let Some(piece) = Piece::in_tree(kind, index, size) {
            pieces.insert(piece, handle.piece(&piece).unwrap());
            index += 1;
        }
    }
    pieces
}

#[test]
fn what_was_served_is_served_for_ever_and_proves_the_tree() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ledger, _) = open(dir.path());
    let mut known: BTreeMap<Piece, Vec<u8>> = BTreeMap::new();
    let mut nonce = 0;
    for until in [1_u64, 255, 256, 257, 700] {
        while ledger.handle().size() < until {
            ledger.handle().submit_blocking(grant(nonce)).unwrap();
            nonce += 1;
        }
        // A restart makes no difference.
        drop(ledger);
        ledger = open(dir.path()).0;
        let handle = ledger.handle();
        for (piece, bytes) in &known {
            assert_eq!(handle.piece(piece).unwrap(), *bytes, "{piece}");
        }
        let pieces = served(&handle);
        let checkpoint = handle.checkpoint();
        let mut tiles = TileMap::new(checkpoint.size);
        for (piece, bytes) in &pieces {
            if piece.kind() != Kind::Entries {
                tiles.add(*piece, bytes).unwrap();
                continue;
            }
            let leaves = Piece::new(Kind::Hashes(0), piece.index(), piece.width()).unwrap();
            let hashes = parse_hashes(&leaves, &pieces[&leaves]).unwrap();
            let entries = parse_entries(piece, bytes).unwrap();
            for (entry, hash) in entries.iter().zip(&hashes) {
                assert_eq!(leaf_hash(entry), *hash);
            }
        }
        assert_eq!(root_at(&tiles, checkpoint.size).unwrap(), checkpoint.root);
        let index = checkpoint.size / 2;
        let proof = inclusion_proof(&tiles, index, checkpoint.size).unwrap();
        let leaf = handle.entry(index).unwrap().leaf;
        verify_inclusion(leaf, index, checkpoint.size, &proof, checkpoint.root).unwrap();
        known.extend(pieces);
    }
    // A partial piece is the beginning of the full one.
    let handle = ledger.handle();
    let full = handle.piece(&"tile/0/000".parse().unwrap()).unwrap();
    for width in [1_usize, 100, 255] {
        let partial = format!("tile/0/000.p/{width}").parse().unwrap();
        assert_eq!(handle.piece(&partial).unwrap(), full[..width * 32]);
    }
}

#[test]
fn nothing_beyond_the_checkpoint_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let handle = ledger.handle();
    for nonce in 0..300 {
        handle.submit_blocking(grant(nonce)).unwrap();
    }
    handle.submit_blocking(trip("why")).unwrap();
    for absent in [
        "tile/0/001.p/46",
        "tile/0/001",
        "tile/0/002.p/1",
        "tile/1/000.p/2",
        "tile/1/000",
        "tile/2/000.p/1",
        "tile/entries/001.p/46",
        "tile/entries/001",
    ] {
        let refusal = handle.piece(&absent.parse().unwrap()).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::NotFound, "{absent}");
        assert_eq!(refusal.code, "tile-beyond-checkpoint");
    }
    handle.piece(&"tile/1/000.p/1".parse().unwrap()).unwrap();
    handle
        .piece(&"tile/entries/001.p/45".parse().unwrap())
        .unwrap();
}

#[test]
fn a_bundle_of_the_largest_entries_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let handle = ledger.handle();
    // What stands around the body is measured, not guessed.
    handle.submit_blocking(grant(100)).unwrap();
    let around = handle.entry(0).unwrap().bytes.len();
    let most = portcullis_model::limits::ENTRY_MAX_BYTES;
    let mut body = "x".repeat(most - around - 64);
    let mut nonce = 101;
    loop {
        let command = Command::Grant {
            nonce,
            body: body.clone(),
        };
        match handle.submit_blocking(command) {
            Ok(_) => body.push('x'),
            Err(refusal) => {
                assert_eq!(refusal.code, "entry-too-large");
                break;
            }
        }
        nonce += 1;
    }
    let size = handle.size();
    assert_eq!(handle.entry(size - 1).unwrap().bytes.len(), most);
    let piece = Piece::in_tree(Kind::Entries, 0, size).unwrap();
    let bundle = handle.piece(&piece).unwrap();
    let entries = parse_entries(&piece, &bundle).unwrap();
    assert_eq!(entries.last().unwrap().len(), 65_535);
}
