use super::*;
use crate::merkle::{HashReader as _, MemoryTree, consistency_proof, inclusion_proof, leaf_hash};
use crate::merkle::{verify_consistency, verify_inclusion};

fn piece(kind: Kind, index: u64, width: u64) -> Piece {
    Piece::new(kind, index, width).unwrap()
}

#[test]
fn paths_are_those_of_the_specification() {
    for (kind, index, width, path) in [
        (Kind::Hashes(0), 0, 256, "tile/0/000"),
        (Kind::Hashes(0), 1_234_067, 256, "tile/0/x001/x234/067"),
        (Kind::Hashes(2), 5, 1, "tile/2/005.p/1"),
        (Kind::Entries, 1_000, 255, "tile/entries/x001/000.p/255"),
        (Kind::Entries, 999, 256, "tile/entries/999"),
    ] {
        assert_eq!(piece(kind, index, width).to_string(), path);
        assert_eq!(path.parse::<Piece>().unwrap(), piece(kind, index, width));
    }
}

#[test]
fn every_piece_has_one_path() {
    for bad in [
        "",
        "tile",
        "tile/",
        "tile/0",
        "tile/0/",
        "/tile/0/000",
        "tile/00/000",
        "tile/+0/000",
        "tile/-1/000",
        "tile/8/000",
        "tile/63/000",
        "tile/256/000",
        "tile/entry/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001",
        "tile/0/x001/x002",
        "tile/0/X001/002",
        "tile/0/00a",
        "tile/0/+01",
        "tile/0/000.p",
        "tile/0/000.p/",
        "tile/0/000.p/0",
        "tile/0/000.p/00",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/257",
        "tile/0/000.p/1/",
        "tile/0/000.p/1.p/1",
        "tile/0/000/",
        "tile/0/../000",
        "tile/0/%30%30%30",
        "tile/7/001",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert!(bad.parse::<Piece>().is_err(), "{bad}");
    }
}

#[test]
fn the_specifications_tree_of_70_000_has_its_tiles() {
    let size = 70_000;
    let width = |kind, index| Piece::in_tree(kind, index, size).map(|piece| piece.width());
    assert_eq!(width(Kind::Hashes(0), 272), Some(256));
    assert_eq!(width(Kind::Hashes(0), 273), Some(112));
    assert_eq!(width(Kind::Hashes(0), 274), None);
    assert_eq!(width(Kind::Hashes(1), 0), Some(256));
    assert_eq!(width(Kind::Hashes(1), 1), Some(17));
    assert_eq!(width(Kind::Hashes(2), 0), Some(1));
    assert_eq!(width(Kind::Hashes(3), 0), None);
    assert_eq!(width(Kind::Entries, 273), Some(112));
    // 256 leaves: one full tile, and one of a single hash above.
    assert_eq!(
        Piece::in_tree(Kind::Hashes(0), 0, 256).unwrap().width(),
        256
    );
    assert_eq!(Piece::in_tree(Kind::Hashes(0), 1, 256), None);
    assert_eq!(Piece::in_tree(Kind::Hashes(1), 0, 256).unwrap().width(), 1);
    assert!(Piece::in_tree(Kind::Hashes(0), u64::MAX, size).is_none());
    assert!(Piece::in_tree(Kind::Hashes(200), 0, size).is_none());
    assert!(!piece(Kind::Hashes(0), 273, 113).is_in(size));
    assert!(piece(Kind::Hashes(0), 273, 5).is_in(size));
}

#[test]
fn entries_of_every_length_survive_a_bundle() {
    let entries = [
        vec![],
        vec![1],
        vec![2; 255],
        vec![3; 256],
        vec![4; ENTRY_MAX_BYTES],
    ];
    let mut bundle = Vec::new();
    for entry in &entries {
        write_entry(&mut bundle, entry).unwrap();
    }
    let name = piece(Kind::Entries, 0, 5);
    assert_eq!(parse_entries(&name, &bundle).unwrap(), entries);
    assert!(write_entry(&mut bundle, &vec![0; ENTRY_MAX_BYTES + 1]).is_err());
    for at in 0..bundle.len().min(600) {
        assert!(parse_entries(&name, &bundle[..at]).is_err(), "{at}");
    }
    bundle.push(0);
    assert!(parse_entries(&name, &bundle).is_err());
    assert!(parse_entries(&piece(Kind::Entries, 0, 4), &bundle).is_err());
    assert!(parse_entries(&piece(Kind::Entries, 0, 6), &bundle).is_err());
}

/// All tiles of a tree, made the naive way.
fn served(tree: &MemoryTree, size: u64) -> TileMap {
    let mut map = TileMap::new(size);
    for level in 0..=TILE_MAX_LEVEL {
        let mut index = 0;
        while let Some(piece) = Piece::in_tree(Kind::Hashes(level), index, size) {
            let bytes = write_hashes(&tree.read(&piece.nodes()).unwrap());
            assert_eq!(bytes.len() as u64, piece.width() * 32);
            map.add(piece, &bytes).unwrap();
            index += 1;
        }
    }
    map
}

#[test]
fn proofs_out_of_tiles_are_those_out_of_the_tree() {
    let mut tree = MemoryTree::default();
    let mut size = 0;
    for until in [
        1_u64, 2, 255, 256, 257, 511, 512, 600, 65_536, 65_537, 66_000,
    ] {
        while size < until {
            tree.append(leaf_hash(&size.to_be_bytes())).unwrap();
            size += 1;
        }
        let map = served(&tree, size);
        let root = tree.root();
        for index in [0, size / 2, size - 1] {
            let proof = inclusion_proof(&map, index, size).unwrap();
            assert_eq!(proof, inclusion_proof(&tree, index, size).unwrap());
            let leaf = leaf_hash(&index.to_be_bytes());
            verify_inclusion(leaf, index, size, &proof, root).unwrap();
            let old = index + 1;
            let proof = consistency_proof(&map, old, size).unwrap();
            let old_root = crate::merkle::root_at(&tree, old).unwrap();
            assert_eq!(crate::merkle::root_at(&map, old).unwrap(), old_root);
            verify_consistency(old, old_root, size, root, &proof).unwrap();
        }
        assert!(
            map.read(&[Node {
                level: 0,
                index: size
            }])
            .is_err()
        );
        assert!(
            map.read(&[Node {
                level: 62,
                index: 0
            }])
            .is_err()
        );
        assert!(
            map.read(&[Node {
                level: 255,
                index: 0
            }])
            .is_err()
        );
    }
}

#[test]
fn a_tile_of_another_length_is_refused() {
    let name = piece(Kind::Hashes(0), 0, 3);
    for length in [0, 31, 32, 95, 97, 128] {
        assert!(parse_hashes(&name, &vec![0; length]).is_err(), "{length}");
    }
    assert_eq!(parse_hashes(&name, &[7; 96]).unwrap().len(), 3);
}
