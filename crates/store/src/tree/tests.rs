use portcullis_evidence::merkle::{MemoryTree, consistency_proof, inclusion_proof, root_at};

use super::{StoredTree, Tree, full_tiles};
use crate::database::Database;
use crate::entry::Entry;
use crate::faults::Faults;
use crate::storage::{Commit, Writer};

/// Past the second tile level, with partial tiles on all three.
const LEAVES: u64 = 65_536 + 256 * 3 + 77;

#[test]
fn stored_tiles_prove_what_a_tree_in_memory_proves() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = Writer::Sqlite(Database::open(dir.path(), Faults::default()).unwrap());
    let mut tree = Tree::default();
    let mut memory = MemoryTree::default();
    let mut roots = vec![memory.root()];
    while tree.size() < LEAVES {
        let first = tree.size();
        let end = LEAVES.min(first + 10_000);
        let entries: Vec<Entry> = (first..end)
            .map(|index| {
                let time = portcullis_model::Timestamp::from_ms(1);
                Entry::new(index, time, index.to_be_bytes().to_vec())
            })
            .collect();
        let mut tiles = Vec::new();
        for entry in &entries {
            tiles.extend(tree.append(entry.leaf).unwrap());
            memory.append(entry.leaf).unwrap();
            roots.push(memory.root());
        }
        database
            .commit(&Commit {
                size: first,
                entries: &entries,
                tiles: &tiles,
                checkpoint: None,
            })
            .unwrap();
    }
    let stored = StoredTree(database.reader());
    assert_eq!(full_tiles(0, LEAVES), 259);
    assert_eq!(full_tiles(1, LEAVES), 1);
    let sizes = [
        1, 2, 255, 256, 257, 511, 65_535, 65_536, 65_537, 66_000, LEAVES,
    ];
    for size in sizes {
        let root = roots[usize::try_from(size).unwrap()];
        assert_eq!(root_at(&stored, size).unwrap(), root, "size {size}");
        for index in [0, 1, 255, 256, 300, 65_535, 65_536, 66_500, size - 1] {
            if index < size {
                assert_eq!(
                    inclusion_proof(&stored, index, size).unwrap(),
                    inclusion_proof(&memory, index, size).unwrap(),
                    "{index} in {size}"
                );
            }
        }
        for old in sizes {
            if old <= size {
                assert_eq!(
                    consistency_proof(&stored, old, size).unwrap(),
                    consistency_proof(&memory, old, size).unwrap(),
                    "{old} to {size}"
                );
            }
        }
    }
    assert!(
        inclusion_proof(&stored, 0, LEAVES + 1).is_err(),
        "there are no such leaves"
    );
}
