//! `ledger verify` of a served log: its tree, its entries and what was verified of it before.
//!
//! Nothing that the log says is believed: entries are hashed here, the tree is counted here, and
//! the root must be the one that the log's key signed. Where it isn't, the first entry or tile that
//! differs is looked for and named.

use std::path::PathBuf;

use portcullis_evidence::merkle::{
    Frontier, Node, empty_root, leaf_hash, verify_consistency, verify_inclusion,
};
use portcullis_evidence::tiles::{Kind, Piece, TILE_HEIGHT};
use portcullis_model::{Digest, Event, Refusal, Timestamp};

use crate::commands::ledger_count::Count;
use crate::commands::ledger_kept::{Kept, Verified};
use crate::commands::ledger_verify::Genesis;
use crate::log_reader::LogReader;
use crate::progress::Counter;

/// Most entries that are read of one log unless more are allowed.
pub(crate) const ENTRIES_MAX: u64 = 100_000_000;

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
    /// Whether all entries were read again although an earlier verification had ended somewhere:
    /// what rules and signatures led to there is not known to this version.
    pub(crate) anew: bool,
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
        Some(path) => Kept::read(path)?,
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
    let (mut resumed, mut anew) = (None, false);
    if let Some(Kept { verified, rules }) = known {
        let (old, old_root) = verified.of(genesis)?;
        contains(reader, (old, old_root), (size, root)).await?;
        anew = rules.is_none();
        if let Some((state, audit)) = rules {
            resumed = Some((old, verified.at));
            *count = Count::resumed(verified.frontier, state, audit);
        }
    }
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
    if let (Some(path), Some(state)) = (state, count.state()) {
        let verified = Verified::new(genesis, note.clone(), count.frontier().clone());
        Kept::write(path, verified, state, &count.audit)?;
    }
    Ok(Shown {
        size,
        root,
        note,
        resumed,
        anew,
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
