//! `ledger verify` of a served log: its tree, its entries and what was verified of it before.
//!
//! Nothing that the log says is believed: entries are hashed here, the tree is counted here, and
//! the root must be the one that the log's key signed. Where it isn't, the first entry or tile that
//! differs is looked for and named.

use std::path::{Path, PathBuf};

use portcullis_evidence::checkpoint::UnverifiedCheckpoint;
use portcullis_evidence::merkle::{
    Frontier, Node, empty_root, leaf_hash, verify_consistency, verify_inclusion,
};
use portcullis_evidence::tiles::{Kind, Piece, TILE_HEIGHT};
use portcullis_model::{Digest, Event, Refusal, Timestamp, document};
use serde::{Deserialize, Serialize};

use crate::commands::ledger_verify::{Count, Genesis};
use crate::log_reader::LogReader;
use crate::progress::Counter;
use crate::task_file::{read_bounded, write_file};
use crate::time::now;

/// Most entries that are read of one log unless more are allowed.
pub(crate) const ENTRIES_MAX: u64 = 100_000_000;
/// Version of the state file.
const STATE_VERSION: u32 = 1;

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
    frontier: Frontier,
    /// When.
    at: Timestamp,
}

/// What a verification of a served log showed.
pub(crate) struct Shown {
    /// Number of entries.
    pub(crate) size: u64,
    /// The root that the log signed.
    pub(crate) root: Digest,
    /// The checkpoint as it was served.
    pub(crate) note: String,
    /// Where an earlier verification had ended, and when.
    pub(crate) resumed: Option<(u64, Timestamp)>,
}

impl Verified {
    /// Reads a state file; none where there is no file yet.
    ///
    /// # Errors
    /// It can't be read, is not one, or its parts don't belong together.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Refusal> {
        if !path.exists() {
            return Ok(None);
        }
        let bytes = read_bounded(path, "verifier state file")?;
        Self::parse(&bytes).map(Some).map_err(|refusal| {
            refusal.next(format!(
                "remove {} to verify from the first entry",
                path.display()
            ))
        })
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
        if known.version != STATE_VERSION {
            return Err(refused(
                &format!("version {STATE_VERSION}"),
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
    fn of(&self, genesis: &Genesis) -> Result<(u64, Digest), Refusal> {
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

/// Verifies the log below `reader`, goes on from `state` if it is named and there, and keeps there
/// what was verified.
///
/// # Errors
/// What does not hold, in words for a person: the first bad entry with its index and reason, a
/// shorter log, another history, a wrong tile, answers that are none.
pub(crate) async fn verify(
    reader: &LogReader,
    genesis: &Genesis,
    count: &mut Count,
    state: Option<&PathBuf>,
    entries_max: u64,
) -> Result<Shown, Refusal> {
    let known = match state {
        Some(path) => Verified::read(path)?,
        None => None,
    };
    let served = reader.checkpoint().await?;
    let newest = served.verify(&genesis.key)?;
    let (size, root) = (newest.checkpoint().size, newest.checkpoint().root);
    if size > entries_max {
        return Err(Refusal::limit(
            "log-too-large",
            format!("the log says that it has {size} entries"),
        )
        .expected(&format!("at most {entries_max}"))
        .next("if that is true, allow so many with --max-entries"));
    }
    let resumed = match &known {
        Some(known) => {
            let (old, old_root) = known.of(genesis)?;
            contains(reader, (old, old_root), (size, root)).await?;
            count.resume(known.frontier.clone());
            Some((old, known.at))
        }
        None => None,
    };
    let from = resumed.map_or(0, |(old, _)| old);
    let mut bundles = Vec::new();
    let mut counter = Counter::new("verifying entries");
    reader
        .entries(from, size, |index, bytes| {
            let completed = count.take(genesis, index, bytes, leaf_hash(bytes))?;
            bundles.extend(completed);
            counter.at(index + 1, size);
            Ok(true)
        })
        .await?;
    drop(counter);
    if count.frontier().root() != root {
        return Err(locate(reader, from, (size, root), &bundles).await);
    }
    let note = served.to_string();
    if let Some(path) = state {
        let verified = Verified {
            version: STATE_VERSION,
            log: genesis.key.to_string(),
            genesis: genesis.digest(),
            checkpoint: note.clone(),
            frontier: count.frontier().clone(),
            at: now(),
        };
        let text = serde_json::to_vec_pretty(&verified)
            .map_err(|error| Refusal::internal(format!("a state does not serialise: {error}")))?;
        write_file(path, &text, true)?;
    }
    Ok(Shown {
        size,
        root,
        note,
        resumed,
    })
}

/// Checks that the served tree contains the one that was verified or held before.
///
/// # Errors
/// `log-shorter`, `log-equivocates`, `log-wrong-tile`, or the log can't be read.
pub(crate) async fn contains(
    reader: &LogReader,
    (old, old_root): (u64, Digest),
    (new, new_root): (u64, Digest),
) -> Result<(), Refusal> {
    if new < old {
        return Err(Refusal::conflict(
            "log-shorter",
            "this log is shorter than it was when you verified it",
        )
        .expected(&format!("at least {old} entries"))
        .received(&format!("{new} entries"))
        .next("a mirror may be behind: try again later or elsewhere; if it stays so, entries were taken away"));
    }
    let equivocates = || {
        Refusal::conflict(
            "log-equivocates",
            format!("this log has another history than the one that you verified: its first {old} entries are others"),
        )
        .expected(&format!("a tree that contains the root {old_root}"))
        .received(&format!("{new} entries with the root {new_root}"))
        .next("keep both checkpoints: two that the log's key signed and that don't fit together prove that it cheats")
    };
    if new == old {
        return if new_root == old_root {
            Ok(())
        } else {
            Err(equivocates())
        };
    }
    if old == 0 {
        return if old_root == empty_root() {
            Ok(())
        } else {
            Err(equivocates())
        };
    }
    let proof = reader.consistency(old, new).await?;
    if verify_consistency(old, old_root, new, new_root, &proof).is_ok() {
        return Ok(());
    }
    // Are the tiles those of the signed tree? Then it is another tree.
    if reader.root(new).await? == new_root {
        return Err(equivocates());
    }
    Err(wrong_tile(&format!(
        "its tiles don't lead to the root that it signed over {new} entries"
    )))
}

/// Looks for the first entry that is not the one in the signed tree. `bundles` are the hashes over
/// each full bundle that was read, from that of the entry `from` on.
async fn locate(
    reader: &LogReader,
    from: u64,
    (size, root): (u64, Digest),
    bundles: &[(Node, Digest)],
) -> Refusal {
    match look(reader, from, (size, root), bundles).await {
        Ok(Some(refusal)) | Err(refusal) => refusal,
        Ok(None) => Refusal::conflict(
            "log-root-mismatch",
            format!("the log's {size} entries agree with its tiles, and not with the root that it signed"),
        )
        .expected(&format!("root {root}"))
        .next("keep its checkpoint; the log signed a tree that it does not serve"),
    }
}

async fn look(
    reader: &LogReader,
    from: u64,
    (size, root): (u64, Digest),
    bundles: &[(Node, Digest)],
) -> Result<Option<Refusal>, Refusal> {
    let mut counter = Counter::new("looking for the first bad entry: tile");
    let last = size.div_ceil(1 << TILE_HEIGHT);
    for index in from >> TILE_HEIGHT..last {
        counter.at(index, last);
        let Some(piece) = Piece::in_tree(Kind::Hashes(0), index, size) else {
            continue;
        };
        let hashes = reader.hashes(&piece).await?;
        let ours = bundles
            .iter()
            .find(|(node, _)| node.index == index)
            .map(|(_, hash)| *hash);
        if ours.is_some() && piece.is_full() && ours == over(&hashes) {
            continue;
        }
        let mut bad = None;
        reader
            .entries(piece.start().max(from), piece.end(), |at, bytes| {
                let place = usize::try_from(at - piece.start()).unwrap_or(usize::MAX);
                let leaf = leaf_hash(bytes);
                match hashes.get(place) {
                    Some(hash) if *hash == leaf => Ok(true),
                    signed => {
                        bad = Some((at, leaf, signed.copied()));
                        Ok(false)
                    }
                }
            })
            .await?;
        let Some((at, leaf, Some(signed))) = bad else {
            continue;
        };
        let proof = reader.inclusion(at, size).await?;
        return Ok(Some(
            match verify_inclusion(signed, at, size, &proof, root) {
                Ok(()) => altered(at, &leaf, &signed),
                Err(_) => wrong_tile(&format!(
                    "{piece} has a hash for entry {at} that does not lead to the signed root"
                )),
            },
        ));
    }
    Ok(None)
}

fn over(hashes: &[Digest]) -> Option<Digest> {
    let mut frontier = Frontier::default();
    for hash in hashes {
        frontier.append(*hash).ok()?;
    }
    Some(frontier.root())
}

fn altered(index: u64, received: &Digest, signed: &Digest) -> Refusal {
    Refusal::conflict(
        "entry-altered",
        format!("entry {index}: it is not the one in the tree that the log signed"),
    )
    .expected(&format!("leaf hash {signed}"))
    .received(&format!("leaf hash {received}"))
    .next("do not trust what this log serves; keep its checkpoint, and compare with a witness or a copy")
}

fn wrong_tile(what: &str) -> Refusal {
    Refusal::conflict(
        "log-wrong-tile",
        format!("the log serves a wrong tile: {what}"),
    )
    .next("try another place that serves this log; if it stays so, do not trust it")
}

/// Says of which entry something was found.
pub(crate) fn at_entry(index: u64, refusal: Refusal) -> Refusal {
    let message = if refusal.message.starts_with(&format!("entry {index}")) {
        refusal.message
    } else {
        format!("entry {index}: {}", refusal.message)
    };
    // Whatever is wrong with it, it is the ledger that fails, not whoever asks.
    Refusal {
        message,
        kind: portcullis_model::RefusalKind::Conflict,
        ..refusal
    }
}

/// An entry as an event.
///
/// # Errors
/// It isn't one; the message has the index.
pub(crate) fn event(index: u64, bytes: &[u8]) -> Result<Event, Refusal> {
    Event::decode(index, bytes).map_err(|refusal| at_entry(index, refusal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_evidence::checkpoint::Checkpoint;
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
            ("\"version\": 1", "\"version\": 2"),
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
