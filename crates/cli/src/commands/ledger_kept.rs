//! What a verification keeps for the next one.
//!
//! Two files. The small one says which log it is of, up to which checkpoint, and the tree there.
//! Beside it, in `….rules`, stands what rules and signatures led to: the fold and the auditor, good
//! for one form of the fold alone. It is named by its digest in the small one and written first: a
//! stop in between leaves two that don't belong together, and then everything is read again.

use std::path::{Path, PathBuf};

use portcullis_evidence::checkpoint::UnverifiedCheckpoint;
use portcullis_evidence::merkle::Frontier;
use portcullis_flow::State;
use portcullis_model::{Digest, Fold as _, Refusal, Timestamp, document};
use serde::{Deserialize, Serialize};

use crate::commands::ledger_count::Audit;
use crate::commands::ledger_verify::Genesis;
use crate::task_file::{read_bounded, write_file};
use crate::time::now;

/// Version of the state file. Version 1 had no rules beside it.
const STATE_VERSION: u32 = 2;
/// Largest file of rules that is read, in bytes (1 GiB).
const RULES_MAX_BYTES: u64 = 1 << 30;

/// What was verified of a log, kept between two verifications. It is this verifier's own word to
/// itself: keep it where the log's operator can't write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verified {
    version: u32,
    /// The log's name and key.
    log: String,
    /// Digest of entry 0.
    genesis: Digest,
    /// The log's checkpoint over all that was verified.
    checkpoint: String,
    /// The tree up to there.
    pub(crate) frontier: Frontier,
    /// When.
    pub(crate) at: Timestamp,
    /// Digest of what rules and signatures led to, in the file beside this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rules: Option<Digest>,
}

/// What rules and signatures led to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    state: State,
    audit: Audit,
}

/// As [`Rules`], to be written.
#[derive(Serialize)]
struct RulesOf<'a> {
    state: &'a State,
    audit: &'a Audit,
}

/// What an earlier verification kept.
pub(crate) struct Kept {
    /// How far it had come.
    pub(crate) verified: Verified,
    /// What rules and signatures had led to there, if this version can read it.
    pub(crate) rules: Option<(State, Audit)>,
}

impl Kept {
    /// Reads a state file and what stands beside it; none where there is no file yet.
    ///
    /// # Errors
    /// It can't be read, is not one, or its parts don't belong together.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Refusal> {
        if !path.exists() {
            return Ok(None);
        }
        let bytes = read_bounded(path, "verifier state file")?;
        let verified = Verified::parse(&bytes).map_err(|refusal| {
            refusal.next(format!(
                "remove {} to verify from the first entry",
                path.display()
            ))
        })?;
        let rules = verified
            .rules
            .and_then(|digest| read_rules(&beside(path), &digest, verified.frontier.size()));
        Ok(Some(Self { verified, rules }))
    }

    /// Keeps what was verified.
    ///
    /// # Errors
    /// A file can't be written.
    pub(crate) fn write(
        path: &Path,
        mut verified: Verified,
        state: &State,
        audit: &Audit,
    ) -> Result<(), Refusal> {
        let unwritten = |error: serde_json::Error| {
            Refusal::internal(format!("a state does not serialise: {error}"))
        };
        let mut rules = format!("{}\n", form()).into_bytes();
        serde_json::to_writer(&mut rules, &RulesOf { state, audit }).map_err(unwritten)?;
        write_file(&beside(path), &rules, true)?;
        verified.rules = Some(Digest::of(&rules));
        let text = serde_json::to_vec_pretty(&verified).map_err(unwritten)?;
        write_file(path, &text, true)
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".rules");
    PathBuf::from(name)
}

/// The form of what is kept: that of the fold, and this program's version for the auditor.
fn form() -> String {
    format!(
        "portcullis {} {}",
        env!("CARGO_PKG_VERSION"),
        State::snapshot_form().unwrap_or_default()
    )
}

/// What is no use to this version is read as if it were not there.
fn read_rules(path: &Path, digest: &Digest, size: u64) -> Option<(State, Audit)> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .ok()?
        .take(RULES_MAX_BYTES)
        .read_to_end(&mut bytes)
        .ok()?;
    if Digest::of(&bytes) != *digest {
        return None;
    }
    let rest = bytes.strip_prefix(form().as_bytes())?.strip_prefix(b"\n")?;
    let rules: Rules = serde_json::from_slice(rest).ok()?;
    (rules.state.size() == size).then_some((rules.state, rules.audit))
}

impl Verified {
    /// What is verified now, without what rules and signatures led to.
    pub(crate) fn new(genesis: &Genesis, checkpoint: String, frontier: Frontier) -> Self {
        Self {
            version: STATE_VERSION,
            log: genesis.key.to_string(),
            genesis: genesis.digest(),
            checkpoint,
            frontier,
            at: now(),
            rules: None,
        }
    }

    /// Reads a state file's bytes.
    ///
    /// # Errors
    /// They are not one, or its parts don't belong together.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let known: Self = document::from_json("verifier state file", bytes)?;
        let refused = |expected: &str, received: &str| {
            Refusal::malformed("verifier state file")
                .expected(expected)
                .received(received)
        };
        if known.version != STATE_VERSION && (known.version, known.rules) != (1, None) {
            return Err(refused(
                &format!("version 1 or {STATE_VERSION}"),
                &format!("version {}", known.version),
            ));
        }
        let checkpoint = UnverifiedCheckpoint::parse(known.checkpoint.as_bytes())?;
        let claim = checkpoint.claim();
        if claim.size != known.frontier.size() || claim.root != known.frontier.root() {
            return Err(refused(
                &format!("the tree of its checkpoint, root {}", claim.root),
                &format!("root {}", known.frontier.root()),
            ));
        }
        Ok(known)
    }

    /// Checks that it is of this log, and gives size and root.
    pub(crate) fn of(&self, genesis: &Genesis) -> Result<(u64, Digest), Refusal> {
        if self.log != genesis.key.to_string() || self.genesis != genesis.digest() {
            return Err(Refusal::conflict(
                "state-of-another-log",
                "the state file is of another log, or of one that began otherwise",
            )
            .expected(&format!("{}, genesis {}", self.log, self.genesis))
            .received(&format!("{}, genesis {}", genesis.key, genesis.digest()))
            .next("name another --state file for another log"));
        }
        UnverifiedCheckpoint::parse(self.checkpoint.as_bytes())?.verify(&genesis.key)?;
        Ok((self.frontier.size(), self.frontier.root()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_evidence::checkpoint::Checkpoint;
    use portcullis_evidence::merkle::leaf_hash;
    use portcullis_evidence::signer::Signer;
    use portcullis_model::Secret;

    fn sample() -> Vec<u8> {
        let signer = Signer::from_seed(&Secret::new([5; 32])).unwrap();
        let mut frontier = Frontier::default();
        for entry in 0..5_u64 {
            frontier.append(leaf_hash(&entry.to_be_bytes())).unwrap();
        }
        let signed = Checkpoint::new("example.com/log".parse().unwrap(), 5, frontier.root())
            .sign(&signer)
            .unwrap();
        let verified = Verified {
            version: STATE_VERSION,
            log: "example.com/log+00000000+AA".to_owned(),
            genesis: Digest::of(b"genesis"),
            checkpoint: signed.to_string(),
            frontier,
            at: Timestamp::from_ms(1_000),
            rules: Some(Digest::of(b"rules")),
        };
        serde_json::to_vec_pretty(&verified).unwrap()
    }

    #[test]
    fn a_state_file_is_read_back_and_must_fit_together() {
        let bytes = sample();
        let known = Verified::parse(&bytes).unwrap();
        assert_eq!(known.frontier.size(), 5);
        let text = String::from_utf8(bytes).unwrap();
        for (from, to) in [
            ("\"version\": 2", "\"version\": 1"),
            ("\"version\": 2", "\"version\": 3"),
            ("\\n5\\n", "\\n4\\n"),
            ("\"size\": 5", "\"size\": 6"),
            ("\"size\": 5", "\"size\": 3"),
            ("\"at\"", "\"when\""),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text);
            assert!(Verified::parse(changed.as_bytes()).is_err(), "{to}");
        }
    }

    /// Bytes that somebody else may have written: no panic, and what is read fits together.
    #[test]
    fn a_state_file_that_was_tampered_with_is_refused_or_whole() {
        let sample = sample();
        let cases: usize =
            std::env::var("PORTCULLIS_FUZZ_CASES").map_or(2_000, |text| text.parse().unwrap());
        // A linear congruence (Knuth's MMIX): the same cases each time.
        let mut seed = 7_u64;
        let mut random = move |below: usize| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(seed >> 33).unwrap() % below.max(1)
        };
        for _ in 0..cases {
            let mut bytes = sample.clone();
            for _ in 0..=random(4) {
                let at = random(bytes.len());
                match random(5) {
                    0 => bytes[at] = u8::try_from(random(256)).unwrap(),
                    1 => bytes[at] ^= 1 << random(8),
                    2 => {
                        drop(bytes.drain(
                            at..(at + random(20)).min(sample.len()).max(at).min(bytes.len()),
                        ))
                    }
                    3 => bytes.insert(at, b"0123456789\"{}[],:\n"[random(18)]),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            if let Ok(known) = Verified::parse(&bytes) {
                let read = UnverifiedCheckpoint::parse(known.checkpoint.as_bytes()).unwrap();
                assert_eq!(read.claim().size, known.frontier.size());
                assert_eq!(read.claim().root, known.frontier.root());
            }
        }
    }
}
