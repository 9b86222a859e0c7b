use super::*;
use proptest::prelude::*;

/// The reference tree of the certificate transparency project: eight leaves, its roots, proofs.
const LEAVES: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];
const ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];
const L1: &str = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
const N23: &str = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
const N4567: &str = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";
const L4: &str = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b";
const N67: &str = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
const N45: &str = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";
const L6: &str = "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f";

/// (index, size, proof)
const INCLUSIONS: [(u64, u64, &[&str]); 5] = [
    (0, 1, &[]),
    (0, 8, &[L1, N23, N4567]),
    (5, 8, &[L4, N67, ROOTS[3]]),
    (2, 3, &[ROOTS[1]]),
    (1, 5, &[ROOTS[0], N23, L4]),
];
/// (old size, new size, proof)
const CONSISTENCIES: [(u64, u64, &[&str]); 5] = [
    (1, 1, &[]),
    (1, 8, &[L1, N23, N4567]),
    (6, 8, &[N45, N67, ROOTS[3]]),
    (2, 5, &[N23, L4]),
    (6, 7, &[N45, L6, ROOTS[3]]),
];

fn digest(hex: &str) -> Digest {
    format!("sha256:{hex}").parse().unwrap()
}

fn digests(hex: &[&str]) -> Vec<Digest> {
    hex.iter().map(|hash| digest(hash)).collect()
}

fn root(size: u64) -> Digest {
    digest(ROOTS[usize::try_from(size).unwrap() - 1])
}

fn reference_leaf(index: usize) -> Digest {
    leaf_hash(&portcullis_model::digest::decode_hex(LEAVES[index]).unwrap())
}

fn reference_tree() -> MemoryTree {
    let mut tree = MemoryTree::default();
    for index in 0..LEAVES.len() {
        tree.append(reference_leaf(index)).unwrap();
    }
    tree
}

#[test]
fn the_reference_tree_has_the_published_roots() {
    assert_eq!(
        empty_root(),
        digest("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    );
    let tree = reference_tree();
    let mut frontier = Frontier::default();
    assert_eq!(frontier.root(), empty_root());
    for size in 1..=8 {
        let index = usize::try_from(size).unwrap() - 1;
        frontier.append(reference_leaf(index)).unwrap();
        assert_eq!(frontier.root(), root(size), "frontier at {size}");
        assert_eq!(root_at(&tree, size).unwrap(), root(size), "tree at {size}");
    }
}

#[test]
fn published_proofs_are_made_and_verified() {
    let tree = reference_tree();
    for (index, size, proof) in INCLUSIONS {
        let proof = digests(proof);
        assert_eq!(inclusion_proof(&tree, index, size).unwrap(), proof);
        let leaf = reference_leaf(usize::try_from(index).unwrap());
        verify_inclusion(leaf, index, size, &proof, root(size)).unwrap();
    }
    for (old, new, proof) in CONSISTENCIES {
        let proof = digests(proof);
        assert_eq!(consistency_proof(&tree, old, new).unwrap(), proof);
        verify_consistency(old, root(old), new, root(new), &proof).unwrap();
    }
}

/// Every way in which the reference verifiers' tests spoil a proof's hashes.
fn spoiled(proof: &[Digest]) -> Vec<Vec<Digest>> {
    let other = digest(ROOTS[0]);
    let mut out = vec![
        [&[Digest::from_bytes([0; 32])], proof].concat(),
        [&[other], proof].concat(),
        [proof, &[Digest::from_bytes([0; 32])]].concat(),
        [proof, &[root(8)]].concat(),
    ];
    for at in 0..proof.len() {
        let mut bytes = *proof[at].as_bytes();
        bytes[at % 32] ^= 8;
        let mut changed = proof.to_vec();
        changed[at] = Digest::from_bytes(bytes);
        out.push(changed);
        let mut without = proof.to_vec();
        without.remove(at);
        out.push(without);
    }
    if proof.len() > 1 && proof[0] != proof[1] {
        let mut swapped = proof.to_vec();
        swapped.swap(0, 1);
        out.push(swapped);
    }
    out
}

#[test]
fn spoiled_proofs_are_refused() {
    for (index, size, proof) in INCLUSIONS {
        let leaf = reference_leaf(usize::try_from(index).unwrap());
        let proof = digests(proof);
        let root = root(size);
        for bad in spoiled(&proof) {
            assert!(verify_inclusion(leaf, index, size, &bad, root).is_err());
        }
        let wrong_root = digest(&"11".repeat(32));
        assert!(verify_inclusion(leaf, index, size, &proof, wrong_root).is_err());
        assert!(verify_inclusion(wrong_root, index, size, &proof, root).is_err());
        for (other_index, other_size) in [
            (index.wrapping_sub(1), size),
            (index + 1, size),
            (index ^ 2, size),
            (index, size * 2),
            (index, size / 2),
            (index, 0),
            (u64::MAX, size),
            (index, u64::MAX),
        ] {
            assert!(
                verify_inclusion(leaf, other_index, other_size, &proof, root).is_err(),
                "{index} in {size} passed as {other_index} in {other_size}"
            );
        }
    }
    for (old, new, proof) in CONSISTENCIES {
        let proof = digests(proof);
        for bad in spoiled(&proof) {
            assert!(verify_consistency(old, root(old), new, root(new), &bad).is_err());
        }
        let wrong_root = digest(&"11".repeat(32));
        assert!(verify_consistency(old, wrong_root, new, root(new), &proof).is_err());
        assert!(verify_consistency(old, root(old), new, wrong_root, &proof).is_err());
        if old != new {
            assert!(verify_consistency(old, root(new), new, root(old), &proof).is_err());
            assert!(verify_consistency(new, root(new), old, root(old), &proof).is_err());
            assert!(verify_consistency(old, root(old), new, root(new), &[]).is_err());
            assert!(verify_consistency(0, root(old), new, root(new), &proof).is_err());
        }
    }
}

#[test]
fn only_the_empty_root_stands_for_the_empty_tree() {
    let root = root(8);
    verify_consistency(0, empty_root(), 8, root, &[]).unwrap();
    verify_consistency(0, empty_root(), 0, empty_root(), &[]).unwrap();
    assert!(verify_consistency(0, root, 8, root, &[]).is_err());
    assert!(verify_consistency(0, root, 0, root, &[]).is_err());
    assert!(verify_consistency(0, empty_root(), 8, root, &[root]).is_err());
    assert!(verify_inclusion(root, 0, 0, &[], root).is_err());
}

/// RFC 6962 section 2.1 as it stands there, by recursion over all leaves.
mod naive {
    use super::*;

    fn split(size: usize) -> usize {
        size.next_power_of_two() / 2
    }

    pub(super) fn root(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(split(leaves.len()));
                node_hash(&root(left), &root(right))
            }
        }
    }

    pub(super) fn path(index: usize, leaves: &[Digest]) -> Vec<Digest> {
        if leaves.len() < 2 {
            return Vec::new();
        }
        let (left, right) = leaves.split_at(split(leaves.len()));
        let (mut proof, sibling) = if index < left.len() {
            (path(index, left), root(right))
        } else {
            (path(index - left.len(), right), root(left))
        };
        proof.push(sibling);
        proof
    }

    pub(super) fn consistency(old: usize, leaves: &[Digest], whole: bool) -> Vec<Digest> {
        if old == leaves.len() {
            return if whole {
                Vec::new()
            } else {
                vec![root(leaves)]
            };
        }
        let (left, right) = leaves.split_at(split(leaves.len()));
        let (mut proof, other) = if old <= left.len() {
            (consistency(old, left, whole), root(right))
        } else {
            (consistency(old - left.len(), right, false), root(left))
        };
        proof.push(other);
        proof
    }
}

fn some_leaves(count: u64) -> Vec<Digest> {
    (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
}

fn check_against_naive(tree: &MemoryTree, leaves: &[Digest], index: usize, old: usize) {
    let size = leaves.len() as u64;
    let root = naive::root(leaves);
    let proof = inclusion_proof(tree, index as u64, size).unwrap();
    assert_eq!(proof, naive::path(index, leaves), "{index} in {size}");
    verify_inclusion(leaves[index], index as u64, size, &proof, root).unwrap();

    let proof = consistency_proof(tree, old as u64, size).unwrap();
    assert_eq!(
        proof,
        naive::consistency(old, leaves, true),
        "{old}, {size}"
    );
    let old_root = naive::root(&leaves[..old]);
    verify_consistency(old as u64, old_root, size, root, &proof).unwrap();
}

#[test]
fn every_small_tree_agrees_with_the_rfc_by_recursion() {
    let leaves = some_leaves(130);
    let mut tree = MemoryTree::default();
    for leaf in &leaves {
        tree.append(*leaf).unwrap();
    }
    for size in 1..=leaves.len() {
        let leaves = &leaves[..size];
        assert_eq!(root_at(&tree, size as u64).unwrap(), naive::root(leaves));
        // Every index of the sizes around powers of two, a spread of them elsewhere.
        let step = if size.is_power_of_two() || (size - 1).is_power_of_two() {
            1
        } else {
            7
        };
        for index in (0..size).step_by(step) {
            check_against_naive(&tree, leaves, index, index + 1);
        }
    }
}

#[test]
fn a_proof_outside_the_tree_is_refused() {
    let tree = reference_tree();
    assert!(inclusion_proof(&tree, 8, 8).is_err());
    assert!(inclusion_proof(&tree, 0, 9).is_err());
    assert!(inclusion_proof(&tree, 0, u64::MAX).is_err());
    assert!(consistency_proof(&tree, 8, 7).is_err());
    assert!(consistency_proof(&tree, 3, 100).is_err());
    assert!(root_at(&tree, 9).is_err());
}

#[test]
fn a_frontier_survives_storage_and_refuses_a_wrong_count_of_peaks() {
    let mut frontier = Frontier::default();
    for leaf in some_leaves(11) {
        frontier.append(leaf).unwrap();
    }
    let text = serde_json::to_string(&frontier).unwrap();
    let mut again: Frontier = serde_json::from_str(&text).unwrap();
    assert_eq!(again, frontier);
    let next = leaf_hash(b"next");
    assert_eq!(again.append(next).unwrap(), frontier.append(next).unwrap());
    assert_eq!(again.root(), frontier.root());
    for bad in [
        text.replace("11", "12"),
        text.replace("\"size\"", "\"more\":1,\"size\""),
        format!(r#"{{"peaks":[],"size":{}}}"#, 1_u64 << 63),
        r#"{"peaks":[],"size":1}"#.to_owned(),
    ] {
        assert!(serde_json::from_str::<Frontier>(&bad).is_err(), "{bad}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn larger_trees_agree_too(size in 131_u64..3000, at in any::<prop::sample::Index>(), old in any::<prop::sample::Index>()) {
        let leaves = some_leaves(size);
        let mut tree = MemoryTree::default();
        for leaf in &leaves {
            tree.append(*leaf).unwrap();
        }
        prop_assert_eq!(tree.root(), naive::root(&leaves));
        check_against_naive(&tree, &leaves, at.index(leaves.len()), old.index(leaves.len()) + 1);
    }

    #[test]
    fn verification_never_panics(index: u64, size: u64, old: u64, hashes in prop::collection::vec(any::<[u8; 32]>(), 0..70)) {
        let hashes: Vec<Digest> = hashes.into_iter().map(Digest::from_bytes).collect();
        let root = leaf_hash(b"root");
        prop_assert!(verify_inclusion(leaf_hash(b"x"), index, size, &hashes, root).is_err());
        prop_assert!(verify_consistency(old, root, size, leaf_hash(b"y"), &hashes).is_err());
    }
}
