//! Every parser here of bytes that somebody else wrote, under mutations of good samples and noise.
//!
//! A target is one function over bytes: it must not panic, and what it takes must come out the same
//! when it is written again, or be refused by whatever verifies it. `cargo test` runs a fixed number
//! of cases from a fixed seed; `PORTCULLIS_FUZZ_CASES=1000000 cargo test -p portcullis-evidence
//! --test fuzz` runs as many as are asked for, from a seed of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use portcullis_evidence::checkpoint::{Checkpoint, UnverifiedCheckpoint};
use portcullis_evidence::cosignature::{
    AddCheckpoint, WitnessKey, cosign, judge, parse_cosignatures, parse_known_size,
    write_cosignatures,
};
use portcullis_evidence::merkle::{
    Frontier, MemoryTree, consistency_proof, inclusion_proof, leaf_hash,
};
use portcullis_evidence::note::{UnverifiedNote, VerifierKey};
use portcullis_evidence::signer::Signer;
use portcullis_evidence::tiles::{
    Kind, Piece, TileMap, parse_entries, parse_hashes, write_entry, write_hashes,
};
use portcullis_evidence::tlog_proof::UnverifiedProof;
use portcullis_model::{Event, Secret};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Cases of each target in the test command.
const CASES: u32 = 2_000;

/// Runs `target` over what `samples` become, and over noise.
fn fuzz(samples: &[Vec<u8>], target: fn(&[u8])) {
    for sample in samples {
        target(sample);
    }
    let asked = std::env::var("PORTCULLIS_FUZZ_CASES");
    let cases = asked
        .as_ref()
        .map_or(Ok(CASES), |text| text.parse())
        .unwrap();
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 10_000,
        ..Config::default()
    };
    let mut runner = if asked.is_ok() {
        TestRunner::new(config)
    } else {
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        TestRunner::new_with_rng(config, rng)
    };
    let pool = samples.to_vec();
    let edit = (
        any::<u8>(),
        any::<prop::sample::Index>(),
        prop::collection::vec(any::<u8>(), 0..24),
    );
    let mutated = (
        any::<prop::sample::Index>(),
        prop::collection::vec(edit, 1..6),
    )
        .prop_map(move |(which, edits)| {
            let mut bytes = which.get(&pool).clone();
            for (how, at, more) in edits {
                mutate(&mut bytes, how, at, &more, &pool);
            }
            bytes
        });
    let noise = prop::collection::vec(any::<u8>(), 0..400);
    let input = prop_oneof![8 => mutated, 1 => noise];
    runner
        .run(&input, |bytes| {
            target(&bytes);
            Ok(())
        })
        .unwrap();
}

/// One edit: overwrite, insert, remove, cut, repeat, splice with another sample, a telling byte.
fn mutate(bytes: &mut Vec<u8>, how: u8, at: prop::sample::Index, more: &[u8], pool: &[Vec<u8>]) {
    if bytes.is_empty() {
        bytes.extend_from_slice(more);
        return;
    }
    let place = at.index(bytes.len());
    let end = (place + more.len()).min(bytes.len());
    match how % 8 {
        0 => bytes[place..end].copy_from_slice(&more[..end - place]),
        1 => drop(bytes.splice(place..place, more.iter().copied())),
        2 => drop(bytes.drain(place..end)),
        3 => bytes.truncate(place),
        4 => {
            let again = bytes[place..end].to_vec();
            drop(bytes.splice(place..place, again));
        }
        5 => {
            let other = &pool[more.len() % pool.len()];
            bytes.truncate(place);
            bytes.extend_from_slice(&other[place.min(other.len())..]);
        }
        6 => {
            bytes[place] = *b"\n \r\t+-0=~/\xff\x00\x80."
                .get(more.len() % 14)
                .unwrap_or(&0)
        }
        _ => bytes[place] ^= 1 << (how >> 5),
    }
}

fn signer(seed: u8) -> Signer {
    Signer::from_seed(&Secret::new([seed; 32])).unwrap()
}

fn log_key() -> VerifierKey {
    VerifierKey::new(
        "example.com/log".parse().unwrap(),
        *signer(1).public_bytes(),
    )
}

fn witness_key() -> WitnessKey {
    WitnessKey::new("w.example/1".parse().unwrap(), *signer(2).public_bytes())
}

fn tree(size: u64) -> MemoryTree {
    let mut tree = MemoryTree::default();
    for at in 0..size {
        tree.append(leaf_hash(&at.to_be_bytes())).unwrap();
    }
    tree
}

fn checkpoint(size: u64) -> UnverifiedCheckpoint {
    let mut made = Checkpoint::new("example.com/log".parse().unwrap(), size, tree(size).root());
    if size % 2 == 1 {
        made.extensions = vec!["more".to_owned()];
    }
    let mut signed = made.sign(&signer(1)).unwrap();
    let text = signed.note().claimed_text().to_owned();
    let line = cosign(witness_key().name(), &signer(2), &text, 1_700_000_000).unwrap();
    signed.add_signature(line).unwrap();
    signed
}

fn checkpoints() -> Vec<Vec<u8>> {
    [0, 1, 7, 300]
        .map(|size| checkpoint(size).to_string().into_bytes())
        .to_vec()
}

fn signed_texts() -> Vec<String> {
    [0, 1, 7, 300]
        .map(|size| checkpoint(size).note().claimed_text().to_owned())
        .to_vec()
}

#[test]
fn checkpoints_and_notes() {
    fuzz(&checkpoints(), |bytes| {
        if let Ok(note) = UnverifiedNote::parse(bytes) {
            assert_eq!(note.to_string().into_bytes(), bytes);
            if let Ok(verified) = note.verify(&[&log_key()]) {
                assert!(signed_texts().iter().any(|text| text == verified.text()));
            }
        }
        if let Ok(read) = UnverifiedCheckpoint::parse(bytes) {
            assert_eq!(read.to_string().into_bytes(), bytes);
            let _ = portcullis_evidence::cosignature::cosigners(&read, &[witness_key()]);
        }
    });
}

#[test]
fn verifier_and_witness_keys() {
    let keys = [log_key().to_string(), witness_key().to_string()].map(String::into_bytes);
    fuzz(&keys, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        if let Ok(key) = text.parse::<VerifierKey>() {
            assert_eq!(key.to_string(), text);
        }
        if let Ok(key) = text.parse::<WitnessKey>() {
            assert_eq!(key.to_string(), text);
        }
    });
}

#[test]
fn proof_files() {
    let made = |index: u64, size: u64, extra: Option<Vec<u8>>| {
        let proof = UnverifiedProof {
            untrusted_extra: extra,
            index,
            hashes: inclusion_proof(&tree(size), index, size).unwrap(),
            checkpoint: checkpoint(size),
        };
        proof.to_string().into_bytes()
    };
    let entry = 5_u64.to_be_bytes().to_vec();
    fuzz(
        &[
            made(0, 1, None),
            made(5, 7, Some(entry)),
            made(299, 300, None),
        ],
        |bytes| {
            let Ok(read) = UnverifiedProof::parse(bytes) else {
                return;
            };
            assert_eq!(read.to_string().into_bytes(), bytes);
            let entry = 5_u64.to_be_bytes();
            if let Ok(logged) = read.verify(&entry, &log_key()) {
                assert_eq!(logged.index(), 5);
            }
        },
    );
}

#[test]
fn paths_of_tiles() {
    let paths = [
        "tile/0/x001/x234/067",
        "tile/7/000.p/127",
        "tile/entries/999.p/255",
    ];
    fuzz(&paths.map(|path| path.as_bytes().to_vec()), |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        if let Ok(piece) = text.parse::<Piece>() {
            assert_eq!(piece.to_string(), text);
            assert!(piece.end() > piece.start());
            assert!(piece.nodes().len() <= 256);
        }
    });
}

#[test]
fn tiles() {
    let hashes: Vec<_> = (0..3_u64).map(|at| leaf_hash(&at.to_be_bytes())).collect();
    fuzz(
        &[write_hashes(&hashes), write_hashes(&hashes[..1])],
        |bytes| {
            let piece = Piece::new(Kind::Hashes(0), 0, 3).unwrap();
            if let Ok(read) = parse_hashes(&piece, bytes) {
                assert_eq!(write_hashes(&read), bytes);
            }
            let mut map = TileMap::new(3);
            if map.add(piece, bytes).is_ok() {
                let proof = inclusion_proof(&map, 1, 3).unwrap();
                assert_eq!(proof.len(), 2);
            }
        },
    );
}

#[test]
fn entry_bundles() {
    let mut bundle = Vec::new();
    for entry in [&b""[..], b"a", &[b'x'; 300]] {
        write_entry(&mut bundle, entry).unwrap();
    }
    fuzz(&[bundle.clone(), bundle[..3].to_vec()], |bytes| {
        for width in [1, 3, 256] {
            let piece = Piece::new(Kind::Entries, 0, width).unwrap();
            let Ok(entries) = parse_entries(&piece, bytes) else {
                continue;
            };
            let mut again = Vec::new();
            for entry in &entries {
                write_entry(&mut again, entry).unwrap();
            }
            assert_eq!(again, bytes);
            assert_eq!(entries.len() as u64, width);
        }
    });
}

#[test]
fn entries() {
    let golden = include_str!("../../model/tests/golden/v1.txt");
    let samples: Vec<Vec<u8>> = golden
        .lines()
        .filter_map(|line| Some(line.split_once(' ')?.1.as_bytes().to_vec()))
        .collect();
    assert!(samples.len() > 20);
    fuzz(&samples, |bytes| {
        for index in [0, 3] {
            if let Ok(event) = Event::decode(index, bytes) {
                assert_eq!(event.encode().unwrap(), bytes);
            }
        }
    });
}

#[test]
fn requests_to_a_witness() {
    let made = |old: u64, new: u64| {
        let request = AddCheckpoint {
            old_size: old,
            proof: consistency_proof(&tree(new), old, new).unwrap(),
            checkpoint: checkpoint(new),
        };
        request.to_string().into_bytes()
    };
    fuzz(&[made(0, 7), made(7, 300), made(300, 300)], |bytes| {
        let Ok(read) = AddCheckpoint::parse(bytes) else {
            return;
        };
        assert_eq!(read.to_string().into_bytes(), bytes);
        let known = Some((7, tree(7).root()));
        if let Ok(verified) = judge(&read, Some(&log_key()), known) {
            // Whatever was done to the request: only a tree that contains the known one passes.
            let claim = verified.checkpoint();
            assert!(claim.size >= 7);
            assert_eq!(claim.root, tree(claim.size).root());
        }
    });
}

#[test]
fn answers_of_a_witness() {
    let text = checkpoint(7).note().claimed_text().to_owned();
    let line = cosign(witness_key().name(), &signer(2), &text, 5).unwrap();
    let samples = [
        write_cosignatures(std::slice::from_ref(&line)).into_bytes(),
        write_cosignatures(&[line.clone(), line]).into_bytes(),
        b"20852163\n".to_vec(),
    ];
    fuzz(&samples, |bytes| {
        if let Ok(lines) = parse_cosignatures(bytes) {
            assert_eq!(write_cosignatures(&lines).into_bytes(), bytes);
            let text = checkpoint(7).note().claimed_text().to_owned();
            for line in &lines {
                if let Ok(cosigned) = witness_key().verify(&text, line) {
                    assert_eq!(cosigned.time_s, 5);
                }
            }
        }
        if let Ok(size) = parse_known_size(bytes) {
            assert_eq!(format!("{size}\n").into_bytes(), bytes);
        }
    });
}

#[test]
fn stored_trees() {
    let mut frontier = Frontier::default();
    let mut samples = vec![serde_json::to_vec(&frontier).unwrap()];
    for at in 0..11_u64 {
        frontier.append(leaf_hash(&at.to_be_bytes())).unwrap();
        samples.push(serde_json::to_vec(&frontier).unwrap());
    }
    fuzz(&samples, |bytes| {
        if let Ok(mut read) = serde_json::from_slice::<Frontier>(bytes) {
            let _ = read.root();
            let _ = read.append(leaf_hash(b"next"));
        }
    });
}
