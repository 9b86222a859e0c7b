use super::*;
use crate::checkpoint::Checkpoint;
use crate::merkle::{MemoryTree, inclusion_proof};
use crate::signer::Signer;
use portcullis_model::Secret;
use proptest::prelude::*;

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}").into_bytes()
}

fn sample(index: u64, size: u64) -> (UnverifiedProof, VerifierKey) {
    let mut tree = MemoryTree::default();
    for at in 0..size {
        tree.append(leaf_hash(&entry(at))).unwrap();
    }
    let signer = Signer::from_seed(&Secret::new([9; 32])).unwrap();
    let key = VerifierKey::new("example.com/log".parse().unwrap(), *signer.public_bytes());
    let proof = UnverifiedProof {
        untrusted_extra: None,
        index,
        hashes: inclusion_proof(&tree, index, size).unwrap(),
        checkpoint: Checkpoint::new(key.name().clone(), size, tree.root())
            .sign(&signer)
            .unwrap(),
    };
    (proof, key)
}

#[test]
fn a_proof_file_is_read_back_and_proves_its_entry_only() {
    for (index, size) in [(0, 1), (0, 7), (6, 7), (4, 8), (12, 13)] {
        let (mut proof, key) = sample(index, size);
        for extra in [None, Some(b"more".to_vec()), Some(Vec::new())] {
            proof.untrusted_extra = extra;
            let text = proof.to_string();
            let read = UnverifiedProof::parse(text.as_bytes()).unwrap();
            assert_eq!(read, proof);
            let logged = read.verify(&entry(index), &key).unwrap();
            assert_eq!(logged.index(), index);
            assert_eq!(logged.leaf_hash(), leaf_hash(&entry(index)));
            assert!(read.verify(&entry(index + 1), &key).is_err());
        }
    }
}

#[test]
fn another_index_log_or_root_is_refused() {
    let (proof, key) = sample(3, 8);
    let mut moved = proof.clone();
    moved.index = 2;
    assert!(moved.verify(&entry(3), &key).is_err());
    let (mut mixed, _) = sample(3, 9);
    mixed.hashes.clone_from(&proof.hashes);
    assert!(mixed.verify(&entry(3), &key).is_err());
    let other = Signer::from_seed(&Secret::new([8; 32])).unwrap();
    let other = VerifierKey::new(key.name().clone(), *other.public_bytes());
    assert!(proof.verify(&entry(3), &other).is_err());
}

#[test]
fn other_forms_are_refused() {
    let text = sample(3, 8).0.to_string();
    for bad in [
        text.replace("@v1", "@v2"),
        text.replace("index 3", "index 03"),
        text.replace("index 3", "index"),
        text.replace("index 3\n", ""),
        text.replace("index 3", "index 3\n\n"),
        text.replace("index 3", "extra !\nindex 3"),
        text.replace("index 3", "index 3\nextra AAAA"),
        text.replace(
            "index 3",
            &format!(
                "index 3{}",
                "\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".repeat(PROOF_MAX_HASHES)
            ),
        ),
        text.replace('\n', "\r\n"),
        String::new(),
    ] {
        assert!(UnverifiedProof::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn one_changed_byte_never_proves_the_entry_by_another_text(at in any::<prop::sample::Index>(), byte: u8, noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let (proof, key) = sample(5, 13);
        let good = proof.to_string().into_bytes();
        let mut bytes = good.clone();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = UnverifiedProof::parse(&bytes) {
            prop_assert_eq!(read.to_string().into_bytes(), bytes.clone());
            prop_assert!(bytes == good || read.verify(&entry(5), &key).is_err());
        }
        let _ = UnverifiedProof::parse(&noise);
        let prefixed = [b"c2sp.org/tlog-proof@v1\nindex 5\n", &noise[..]].concat();
        let _ = UnverifiedProof::parse(&prefixed);
    }
}
