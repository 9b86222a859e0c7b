//! Bytes that nobody chose: each target is one function over bytes. A fixed number of cases runs
//! with the other tests, always the same; `PORTCULLIS_FUZZ_CASES` raises it for a long run by hand.

use std::io::Write as _;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::git::pack::PackScanner;
use crate::git::push::PushParser;
use crate::git::quarantine::PackLimits;
use crate::git::tree::{ObjectFormat, encode_tree, parse_raw, parse_tree};
use crate::git::{commit, path, pkt};

/// Cases of each target when nobody asks for more.
const CASES: u32 = 256;

/// Runs a target over random bytes, and over valid samples with a few bytes changed.
fn fuzz(samples: &[Vec<u8>], target: impl Fn(&[u8])) {
    let cases = std::env::var("PORTCULLIS_FUZZ_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(CASES);
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 0..6);
    let sample = (0..samples.len().max(1), changes).prop_map(|(which, changes)| {
        let mut bytes = samples.get(which).cloned().unwrap_or_default();
        for (place, byte, kind) in changes {
            if bytes.is_empty() {
                bytes.push(byte);
                continue;
            }
            let at = place.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
        bytes
    });
    let random = prop::collection::vec(any::<u8>(), 0..300);
    runner
        .run(&prop_oneof![3 => sample, 1 => random], |bytes| {
            target(&bytes);
            Ok(())
        })
        .unwrap();
}

fn push_sample() -> Vec<u8> {
    let mut out = Vec::new();
    let (zero, one) = ("0".repeat(40), "1".repeat(40));
    let line = format!(
        "{zero} {one} refs/for/main\0report-status-v2 side-band-64k push-options \
         object-format=sha1 agent=git/2.47.3"
    );
    pkt::encode(format!("shallow {one}\n").as_bytes(), &mut out);
    pkt::encode(line.as_bytes(), &mut out);
    pkt::flush(&mut out);
    pkt::encode(b"dry-run", &mut out);
    pkt::flush(&mut out);
    out
}

fn signed_sample() -> Vec<u8> {
    let mut out = Vec::new();
    let (zero, one) = ("0".repeat(40), "1".repeat(40));
    let command = format!("{zero} {one} refs/for/main\n");
    for line in [
        "push-cert\0report-status push-cert=nonce\n",
        "certificate version 0.1\n",
        "pusher SHA256:x 1700000000 +0000\n",
        "pushee http://h/r\n",
        "nonce n\n",
        "\n",
        &command,
        "-----BEGIN SSH SIGNATURE-----\n",
        "AAAA\n",
        "-----END SSH SIGNATURE-----\n",
        "push-cert-end\n",
    ] {
        pkt::encode(line.as_bytes(), &mut out);
    }
    pkt::flush(&mut out);
    out
}

/// A pack of a blob and a delta on it, made by hand.
fn pack_sample() -> Vec<u8> {
    let deflate = |bytes: &[u8]| {
        let mut encoder =
            flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let mut out = b"PACK\0\0\0\x02\0\0\0\x02".to_vec();
    out.push(0x35);
    out.extend(deflate(b"hello"));
    // A delta by distance: 5 bytes become 5, copied whole.
    out.extend([0x64, 0x0d]);
    out.extend(deflate(&[5, 5, 0x90, 5]));
    out.extend([0; 20]);
    out
}

#[test]
fn packets_and_commands() {
    fuzz(&[push_sample(), signed_sample()], |mut bytes| {
        let mut parser = PushParser::new(ObjectFormat::Sha1);
        while let Ok(Some((packet, used))) = pkt::decode(bytes) {
            assert!(used <= bytes.len() && used > 0);
            bytes = &bytes[used..];
            match parser.feed(&packet) {
                Ok(None) => {}
                Ok(Some(header)) => {
                    assert!(
                        header
                            .commands
                            .iter()
                            .all(|command| !command.name.is_empty())
                    );
                    return;
                }
                Err(refusal) => {
                    assert!(!refusal.code.is_empty());
                    return;
                }
            }
        }
    });
}

#[test]
fn packs_in_any_pieces() {
    let limits = PackLimits {
        blob_bytes: 1_000,
        inflated_bytes: 2_000,
        objects: 10,
        ..PackLimits::default()
    };
    fuzz(&[pack_sample()], |bytes| {
        let whole = |size: usize| {
            let mut scanner = PackScanner::new(ObjectFormat::Sha1, limits);
            for piece in bytes.chunks(size) {
                scanner.feed(piece).map_err(|refusal| refusal.code)?;
            }
            scanner.finish().map_err(|refusal| refusal.code)
        };
        let at_once = whole(bytes.len().max(1));
        // However it is cut, it says the same.
        for size in [1, 3, 7] {
            assert_eq!(whole(size), at_once);
        }
        if let Ok(summary) = at_once {
            assert!(summary.objects <= 10 && summary.inflated_bytes <= 2_000);
        }
    });
}

#[test]
fn trees_commits_and_diffs() {
    let entry = |mode: &str, name: &str| {
        let mut out = format!("{mode} {name}\0").into_bytes();
        out.extend([7; 20]);
        out
    };
    let tree = [entry("100644", "a"), entry("40000", "b")].concat();
    fuzz(&[tree], |bytes| {
        if let Ok(entries) = parse_tree(ObjectFormat::Sha1, bytes) {
            let _ = encode_tree(&entries);
        }
    });
    let oid: portcullis_model::GitOid = "1".repeat(40).parse().unwrap();
    let sample = format!(
        "tree {oid}\nparent {oid}\nauthor A <a@b> 1 +0000\ncommitter C <c@d> 2 +0000\n\
         gpgsig -----BEGIN\n x\n -----END\n\nSubject\n\nText\n"
    );
    fuzz(&[sample.into_bytes()], |bytes| {
        if let Ok(info) = commit::parse(&oid, bytes) {
            let _ = info.subject();
        }
    });
    let raw = format!(":100644 100755 {oid} {oid} M\0src/a\0");
    fuzz(&[raw.into_bytes()], |bytes| drop(parse_raw(bytes)));
}

#[test]
fn paths_that_pass_are_plain() {
    let samples = [
        "src/main.rs",
        ".git/config",
        "a/../b",
        "git~1",
        "x\\y",
        "ä/ö",
    ];
    let samples: Vec<Vec<u8>> = samples
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .collect();
    fuzz(&samples, |bytes| {
        if path::check(bytes, 16).is_ok() {
            let text = std::str::from_utf8(bytes).unwrap();
            for part in text.split('/') {
                assert!(!part.is_empty() && part != "." && part != "..");
                assert!(!part.eq_ignore_ascii_case(".git"));
                assert!(!part.contains(['\\', '\n', '\0']));
            }
        }
    });
}
