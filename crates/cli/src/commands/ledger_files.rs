//! `ledger verify --home`: the files of a data directory, or what PostgreSQL keeps for one.

use std::path::Path;
use std::sync::{Mutex, OnceLock};

use portcullis_evidence::checkpoint::UnverifiedCheckpoint;
use portcullis_evidence::cosignature::Cosigned;
use portcullis_evidence::merkle::Frontier;
use portcullis_flow::State;
use portcullis_model::{Digest, Event, Refusal, Timestamp};
use portcullis_server::config::Config;
use portcullis_server::home::Home;
use portcullis_server::witnesses::COSIGNED;
use portcullis_store::{
    Blobs, PrivateStore, SignedCheckpoint, StoreOptions, Verified, VerifyOptions, VerifyReport,
};
use serde_json::json;

use crate::commands::ledger_count::{Audit, Beside};
use crate::commands::ledger_kept::{self, Kept};
use crate::commands::ledger_verify::{Genesis, Verify, told};
use crate::context::Context;
use crate::exit::Exit;
use crate::output;
use crate::progress::Counter;
use crate::task_file::{read_bounded, read_text, write_file};

/// What is verified.
pub(crate) struct Files<'a> {
    /// The ledger's own directory.
    pub(crate) ledger: &'a Path,
    /// Where its log is kept.
    pub(crate) store: &'a StoreOptions,
    /// Its beginning.
    pub(crate) genesis: &'a Genesis,
    /// A checkpoint that was held elsewhere.
    pub(crate) held: Option<&'a str>,
}

/// Size and root of a tree that must be one on the way.
type Mark = (u64, Digest);

/// What was found.
pub(crate) struct Checked {
    /// What the store says.
    pub(crate) report: VerifyReport,
    /// Everything that does not hold, in words.
    pub(crate) findings: Vec<String>,
    /// The signatures.
    pub(crate) audit: Audit,
    frontier: Frontier,
    state: State,
}

impl Files<'_> {
    /// Verifies entries, tiles, checkpoints, blobs, signatures and the fold; from where an earlier
    /// verification ended, if it is given. `marked` must be a tree on the way.
    ///
    /// # Errors
    /// The files can't be read.
    pub(crate) fn check(
        &self,
        kept: Option<(ledger_kept::Verified, State, Audit)>,
        marked: Option<Mark>,
    ) -> Result<Checked, Refusal> {
        // The store hands every event to this function, so it also sees whether entry 0 is the
        // pinned one; a log key alone could sign another beginning.
        // Every signature in every entry is checked again on the way.
        let first: OnceLock<Vec<u8>> = OnceLock::new();
        let resumed = kept.is_some();
        let (beside, from) = match kept {
            None => (Beside::default(), None),
            Some((verified, state, audit)) => {
                let (size, root) = (verified.frontier.size(), verified.frontier.root());
                let frontier = verified.frontier;
                (
                    Beside { frontier, audit },
                    Some(Verified { size, root, state }),
                )
            }
        };
        let beside = Mutex::new((beside, None, Counter::new("verifying entries")));
        let mark_met = Mutex::new(None);
        let blobs = Blobs::open_reader_in(self.ledger, self.store)?;
        let look = |event: &Event| {
            if event.index == 0
                && let Ok(bytes) = event.encode()
            {
                let _ = first.set(bytes);
            }
            if let Ok(mut held) = beside.lock() {
                let (beside, broken, counter) = &mut *held;
                if broken.is_none() {
                    *broken = beside.take(event, &|digest| blobs.get(digest).ok()).err();
                }
                if marked.is_some_and(|(size, _)| size == beside.frontier.size())
                    && let Ok(mut met) = mark_met.lock()
                {
                    *met = Some(beside.frontier.root());
                }
                counter.counted(event.index + 1);
            }
            event.body.blobs()
        };
        let options = VerifyOptions::<State> {
            key: &self.genesis.key,
            held: self.held,
            blobs_named_by: Some(&look),
        };
        let (report, state) =
            portcullis_store::verify_from(self.ledger, self.store, &options, from)?;
        let (beside, broken, _) = beside
            .into_inner()
            .map_err(|_| Refusal::internal("a verification was cut off"))?;
        let mut findings: Vec<String> = report
            .findings
            .iter()
            .map(|finding| match finding.index {
                Some(index) => format!("entry {index}: {}", finding.reason),
                None => finding.reason.to_string(),
            })
            .collect();
        findings.extend(broken.as_ref().map(ToString::to_string));
        if !resumed && first.get() != Some(&self.genesis.bytes) {
            findings.push("entry 0 is not the pinned genesis".to_owned());
        }
        let met = mark_met.into_inner().ok().flatten();
        if let Some((size, root)) = marked
            && met.is_some_and(|met| met != root)
        {
            findings.push(format!(
                "the first {size} entries are not those that the witnesses cosigned"
            ));
        }
        if let Some((size, _)) = marked.filter(|(size, _)| *size > report.size) {
            findings.push(format!(
                "the ledger has {} entries, and witnesses cosigned {size}",
                report.size
            ));
        }
        Ok(Checked {
            report,
            findings,
            audit: beside.audit,
            frontier: beside.frontier,
            state,
        })
    }
}

/// Verifies the directory of a server, or a backup.
///
/// # Errors
/// Its files can't be read, or too few of the witnesses who were named cosigned.
pub(crate) fn run(verify: &Verify, context: &Context, home: &Path) -> Result<Exit, Refusal> {
    let pinned = verify
        .genesis
        .clone()
        .unwrap_or_else(|| home.join("genesis.json"));
    let genesis = Genesis::read(&read_bounded(&pinned, "genesis")?, "by the file")?;
    let held = match &verify.checkpoint {
        Some(path) => Some(read_text(path, "checkpoint")?),
        None => None,
    };
    let store = store_of(home)?;
    let ledger = home.join("ledger");
    let files = Files {
        ledger: &ledger,
        store: &store,
        genesis: &genesis,
        held: held.as_deref(),
    };
    let cosigned = cosigned(verify, &files)?;
    let (mut resumed, mut anew, mut from) = (None, false, None);
    if let Some(Kept { verified, rules }) = verify.state.as_deref().map_or(Ok(None), Kept::read)? {
        let (size, _) = verified.of(&genesis)?;
        match rules {
            // What witnesses cosigned before can't be compared from here on.
            Some((state, audit)) if cosigned.as_ref().is_none_or(|(mark, _)| mark.0 > size) => {
                resumed = Some((size, verified.at));
                from = Some((verified, state, audit));
            }
            Some(_) | None => anew = true,
        }
    }
    let checked = files.check(from, cosigned.as_ref().map(|(mark, _)| *mark))?;
    let sound = checked.findings.is_empty();
    let unkept = if sound {
        keep(verify, &genesis, &checked)?
    } else {
        None
    };
    let cosigned = cosigned.map(|(_, by)| by).unwrap_or_default();
    tell(
        context,
        &Told {
            genesis: &genesis,
            pinned: &pinned,
            checked: &checked,
            cosigned: &cosigned,
            resumed,
            anew,
            unkept,
        },
    )?;
    Ok(if sound { Exit::Done } else { Exit::Failed })
}

/// What the witnesses who were named cosigned, of what the server kept.
fn cosigned(verify: &Verify, files: &Files<'_>) -> Result<Option<(Mark, Vec<Cosigned>)>, Refusal> {
    if !verify.quorum.is_demanded() {
        return Ok(None);
    }
    let kept = PrivateStore::open_reader_in(files.ledger, files.store)?.local(COSIGNED)?;
    let note = kept.ok_or_else(|| {
        Refusal::denied(
            "cosignatures-missing",
            "no checkpoint that witnesses cosigned is kept with this ledger",
        )
        .expected("one cosigned by the witnesses that were named")
        .next("leave --witness out, or verify the served log, whose checkpoint carries them")
    })?;
    let checkpoint = UnverifiedCheckpoint::parse(&note)?;
    let verified = checkpoint.verify(&files.genesis.key)?;
    let by = verify.quorum.require(&checkpoint)?;
    let claim = verified.checkpoint();
    Ok(Some(((claim.size, claim.root), by)))
}

/// Keeps the newest checkpoint, and what was verified, where that was asked for. Gives why the
/// latter is not kept, if it can't be.
fn keep(verify: &Verify, genesis: &Genesis, checked: &Checked) -> Result<Option<String>, Refusal> {
    let newest = checked.report.newest.as_ref();
    if let Some(path) = &verify.save {
        let newest = newest.ok_or_else(|| {
            Refusal::not_found("checkpoint", "that the log's key signed, in this directory")
        })?;
        write_file(path, newest.note.as_bytes(), true)?;
    }
    let Some(path) = &verify.state else {
        return Ok(None);
    };
    let whole = |newest: &&SignedCheckpoint| newest.size == checked.report.size;
    let Some(newest) = newest.filter(whole) else {
        return Ok(Some(
            "not kept: the last entries are covered by no checkpoint yet; the server signs one when it runs"
                .to_owned(),
        ));
    };
    let verified =
        ledger_kept::Verified::new(genesis, newest.note.clone(), checked.frontier.clone());
    Kept::write(path, verified, &checked.state, &checked.audit)?;
    Ok(None)
}

struct Told<'a> {
    genesis: &'a Genesis,
    pinned: &'a Path,
    checked: &'a Checked,
    cosigned: &'a [Cosigned],
    resumed: Option<(u64, Timestamp)>,
    anew: bool,
    unkept: Option<String>,
}

fn tell(context: &Context, what: &Told<'_>) -> Result<(), Refusal> {
    let Checked {
        report,
        findings,
        audit,
        ..
    } = what.checked;
    let names: Vec<&str> = what
        .cosigned
        .iter()
        .map(|one| one.witness.as_str())
        .collect();
    let answer = json!({
        "sound": findings.is_empty(), "origin": what.genesis.origin, "size": report.size,
        "root": report.root, "genesis": what.genesis.digest(), "reserved": report.reserved,
        "checkpoints": report.checkpoints, "blobs": report.blobs, "cosigned_by": names,
        "resumed_from": what.resumed.map(|(size, _)| size), "anew": what.anew,
        "state_not_kept": what.unkept,
        "signatures": audit.signatures, "self_approved": audit.self_approved(),
        "findings": findings,
    });
    context.out().print(&answer, || {
        if !findings.is_empty() {
            return format!(
                "this ledger does not hold:\n{}",
                output::clean(&findings.join("\n"))
            );
        }
        let mut says = format!(
            "{} entries, {} signatures, {} checkpoints and {} blobs of {} hold",
            report.size, audit.signatures, report.checkpoints, report.blobs, what.genesis.origin
        );
        if let Some((old, at)) = what.resumed {
            says.push_str(&format!(
                "; the first {old} were verified on {at} and not read again"
            ));
        }
        if what.anew {
            says.push_str("\nall entries were read again: what was kept could not be gone on from");
        }
        if let Some(unkept) = &what.unkept {
            says.push('\n');
            says.push_str(unkept);
        }
        format!(
            "{says}{}{}\ngenesis {} ({})",
            audit.says_of_itself(),
            told(what.cosigned),
            what.genesis.digest(),
            what.pinned.display()
        )
    })
}

/// Makes what derives from the entries anew.
///
/// # Errors
/// As [`portcullis_store::rebuild_tree`].
pub(crate) fn rebuild(context: &Context) -> Result<Exit, Refusal> {
    let home = context.home();
    let pinned = read_bounded(&home.join("genesis.json"), "genesis")?;
    let genesis = Genesis::read(&pinned, "by the file")?;
    let store = store_of(&home)?;
    let rebuilt = portcullis_store::rebuild_tree(&home.join("ledger"), &store, &genesis.key)?;
    let answer = json!({
        "size": rebuilt.size, "tiles": rebuilt.tiles, "tiles_mended": rebuilt.tiles_mended,
        "leaves_mended": rebuilt.leaves_mended,
    });
    context.out().print(&answer, || {
        format!(
            "{} entries lead to the signed root; of {} tiles {} were made anew, and {} hashes of entries",
            rebuilt.size, rebuilt.tiles, rebuilt.tiles_mended, rebuilt.leaves_mended
        )
    })?;
    Ok(Exit::Done)
}

/// The store that a home's configuration names. A copy without one, such as a backup, is in SQLite.
///
/// # Errors
/// The configuration can't be read.
pub(crate) fn store_of(home: &Path) -> Result<StoreOptions, Refusal> {
    let home = Home::new(home);
    if home.ledger().join("ledger.db").exists() || !home.config().exists() {
        return Ok(StoreOptions::Sqlite);
    }
    let text = String::from_utf8_lossy(&Home::read(&home.config(), 64 * 1024)?).into_owned();
    Config::read(&text)?.store(&home)
}
