//! `ledger verify`: that nothing was changed, removed or reordered, by this program's own count.
//!
//! A served log is read as anybody outside reads it ([`crate::log_reader`]); a directory's files by
//! the store. Both ways the same fold and the same check of signatures run over the entries.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use portcullis_evidence::chain::{Auditor, BlobLookup};
use portcullis_evidence::checkpoint::UnverifiedCheckpoint;
use portcullis_evidence::cosignature::{Cosigned, WitnessKey, require_quorum};
use portcullis_evidence::merkle::{Frontier, Node};
use portcullis_evidence::note::VerifierKey;
use portcullis_evidence::tiles::TILE_HEIGHT;
use portcullis_flow::State;
use portcullis_model::{Body, Digest, Event, Fold as _, Refusal, Timestamp};
use portcullis_store::{Blobs, VerifyOptions};
use serde_json::json;

use crate::commands::ledger_remote;
use crate::context::Context;
use crate::exit::Exit;
use crate::log_reader::LogReader;
use crate::output;
use crate::task_file::{read_bounded, read_text, write_file};

/// Verifies a ledger: the server's, that at a URL, or with --home the files of a directory.
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// A log that is served elsewhere (C2SP tlog-tiles) [default: the server's]
    #[arg(value_name = "URL")]
    log: Option<String>,
    /// A file with the token that admits readers of that log
    #[arg(long, value_name = "FILE", requires = "log")]
    token_file: Option<PathBuf>,
    /// For a served log: keep here what was verified, and go on from it the next time. Entries
    /// before are not read again; of those after it form and place are checked, not rules and
    /// signatures
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Most entries that are read of a log
    #[arg(long, value_name = "COUNT", default_value_t = ledger_remote::ENTRIES_MAX)]
    max_entries: u64,
    /// A checkpoint that was kept from earlier: the ledger must contain it
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Entry 0 as it was pinned [default: the log's own, or genesis.json of --home]
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
    /// Keep the newest checkpoint here, for the next time
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    #[command(flatten)]
    quorum: Quorum,
}

/// Witnesses whom the verifier chose, and how many of them must have cosigned.
#[derive(Debug, clap::Args)]
pub(crate) struct Quorum {
    /// The key of a witness whom you trust, as it prints it; may be repeated
    #[arg(long = "witness", value_name = "NAME+ID+KEY")]
    witnesses: Vec<WitnessKey>,
    /// How many of them must have cosigned the checkpoint [default: all]
    #[arg(long, value_name = "COUNT", requires = "witnesses")]
    quorum: Option<usize>,
}

impl Quorum {
    /// Who of them cosigned.
    ///
    /// # Errors
    /// Too few.
    pub(crate) fn require(
        &self,
        checkpoint: &UnverifiedCheckpoint,
    ) -> Result<Vec<Cosigned>, Refusal> {
        let quorum = self.quorum.unwrap_or(self.witnesses.len());
        require_quorum(checkpoint, &self.witnesses, quorum)
    }
}

/// Who cosigned, for a person; nothing where nobody was asked for.
pub(crate) fn told(cosigned: &[Cosigned]) -> String {
    if cosigned.is_empty() {
        return String::new();
    }
    let each: Vec<String> = cosigned
        .iter()
        .map(|one| {
            let at = Timestamp::from_ms(one.time_s.saturating_mul(1_000));
            format!("{} at {at}", one.witness)
        })
        .collect();
    format!("\ncosigned by {}", each.join(", "))
}

/// Entry 0, and what follows from it.
pub(crate) struct Genesis {
    /// Name of the log.
    pub(crate) origin: String,
    /// The log's key.
    pub(crate) key: VerifierKey,
    /// How we know it, for the person.
    pub(crate) known_by: &'static str,
    bytes: Vec<u8>,
}

impl Verify {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        match (&self.log, &context.global.home) {
            (Some(url), _) => {
                let reader = LogReader::new(url, self.token_file.as_deref())?;
                self.served(context, &reader).await
            }
            (None, Some(home)) if self.state.is_none() => self.files(context, home),
            (None, _) => {
                let reader = context.log_reader()?;
                self.served(context, &reader).await
            }
        }
    }

    /// Reads every entry of a served log and counts again.
    async fn served(self, context: &Context, reader: &LogReader) -> Result<Exit, Refusal> {
        // The directory is that of the server, not of a log elsewhere.
        let home = context.global.home.as_ref().filter(|_| self.log.is_none());
        let home = home.map(|home| home.join("genesis.json"));
        let genesis = genesis_of(reader, self.genesis.as_deref().or(home.as_deref())).await?;
        let held = match &self.checkpoint {
            Some(path) => Some(checkpoint(&read_text(path, "checkpoint")?, &genesis)?),
            None => None,
        };
        let mut count = Count::default();
        let (state, most) = (self.state.as_ref(), self.max_entries);
        let shown = ledger_remote::verify(reader, &genesis, &mut count, state, most).await?;
        if let Some(held) = held {
            ledger_remote::contains(reader, held, (shown.size, shown.root)).await?;
        }
        let served = UnverifiedCheckpoint::parse(shown.note.as_bytes())?;
        let cosigned = self.quorum.require(&served)?;
        let names: Vec<&str> = cosigned.iter().map(|one| one.witness.as_str()).collect();
        if let Some(path) = &self.save {
            write_file(path, shown.note.as_bytes(), true)?;
        }
        let resumed = shown.resumed;
        let answer = json!({
            "sound": true, "log": reader.prefix(), "origin": genesis.origin,
            "size": shown.size, "root": shown.root,
            "genesis": genesis.digest(), "genesis_known_by": genesis.known_by,
            "cosigned_by": names,
            "held": held.map(|held| held.0), "resumed_from": resumed.map(|(size, _)| size),
            "rules_and_signatures": resumed.is_none(),
            "signatures": count.audit.signatures,
            "self_approved": count.audit.self_approved(), "not_looked_at": count.audit.missing,
        });
        context.out().print(&answer, || {
            let held = match held {
                Some((size, _)) => format!("; it contains the checkpoint of {size} entries that you held"),
                None => String::new(),
            };
            let (size, origin, root) = (shown.size, &genesis.origin, shown.root.short());
            let holds = match resumed {
                None => format!(
                    "{size} entries of {origin} with {} signatures hold together and lead to the signed root {root}",
                    count.audit.signatures
                ),
                Some((old, at)) => format!(
                    "{size} entries of {origin} lead to the signed root {root}: the first {old} were verified on {at}, and the log still contains them; of the {} after them form and place were checked, not rules and signatures",
                    size - old
                ),
            };
            format!(
                "{holds}{held}{}{}\ngenesis {} ({})",
                count.audit.says_of_itself(),
                told(&cosigned),
                genesis.digest(),
                genesis.known_by
            )
        })?;
        Ok(Exit::Done)
    }

    /// Verifies a directory's bytes: entries, tiles, checkpoints, blobs, and the fold.
    fn files(self, context: &Context, home: &Path) -> Result<Exit, Refusal> {
        let pinned = self
            .genesis
            .clone()
            .unwrap_or_else(|| home.join("genesis.json"));
        let genesis = Genesis::read(&read_bounded(&pinned, "genesis")?, "by the file")?;
        let held = match &self.checkpoint {
            Some(path) => Some(read_text(path, "checkpoint")?),
            None => None,
        };
        // The store hands every event to this function, so it also sees whether entry 0 is the
        // pinned one; a log key alone could sign another beginning.
        // Every signature in every entry is checked again on the way.
        let first: OnceLock<Vec<u8>> = OnceLock::new();
        let audit = Mutex::new(Audit::default());
        let store = store_of(home)?;
        let blobs = Blobs::open_reader_in(&home.join("ledger"), &store)?;
        let look = |event: &Event| {
            if event.index == 0
                && let Ok(bytes) = event.encode()
            {
                let _ = first.set(bytes);
            }
            if let Ok(mut audit) = audit.lock() {
                audit.take(event, &|digest| blobs.get(digest).ok());
            }
            event.body.blobs()
        };
        let options = VerifyOptions::<State> {
            key: &genesis.key,
            held: held.as_deref(),
            blobs_named_by: Some(&look),
        };
        let report =
            portcullis_store::verify_store::<State>(&home.join("ledger"), &store, &options)?;
        let mut findings: Vec<String> = report
            .findings
            .iter()
            .map(|finding| match finding.index {
                Some(index) => format!("entry {index}: {}", finding.reason),
                None => finding.reason.to_string(),
            })
            .collect();
        let audit = audit.into_inner().unwrap_or_default();
        findings.extend(audit.broken.as_ref().map(ToString::to_string));
        if first.get() != Some(&genesis.bytes) {
            findings.push(format!(
                "entry 0 is not the genesis in {}",
                pinned.display()
            ));
        }
        let sound = findings.is_empty();
        let answer = json!({
            "sound": sound, "origin": genesis.origin, "size": report.size, "root": report.root,
            "genesis": Digest::of(&genesis.bytes), "reserved": report.reserved,
            "checkpoints": report.checkpoints, "blobs": report.blobs,
            "signatures": audit.signatures, "self_approved": audit.self_approved(),
            "findings": findings,
        });
        context.out().print(&answer, || {
            if sound {
                return format!(
                    "{} entries, {} signatures, {} checkpoints and {} blobs of {} hold{}\ngenesis {} ({})",
                    report.size,
                    audit.signatures,
                    report.checkpoints,
                    report.blobs,
                    genesis.origin,
                    audit.says_of_itself(),
                    Digest::of(&genesis.bytes),
                    pinned.display()
                );
            }
            format!(
                "this ledger does not hold:\n{}",
                output::clean(&findings.join("\n"))
            )
        })?;
        Ok(if sound { Exit::Done } else { Exit::Failed })
    }
}

impl Genesis {
    /// Digest of entry 0, as people compare it.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// Reads entry 0.
    ///
    /// # Errors
    /// It isn't a genesis.
    pub(crate) fn read(bytes: &[u8], known_by: &'static str) -> Result<Self, Refusal> {
        let event = Event::decode(0, bytes)?;
        let Body::GenesisCreated(body) = event.body else {
            return Err(Refusal::malformed("genesis")
                .expected("genesis.created")
                .received(event.body.type_name()));
        };
        let key = VerifierKey::from_public_key(body.origin.parse()?, &body.log_key)?;
        Ok(Self {
            origin: body.origin,
            key,
            known_by,
            bytes: bytes.to_vec(),
        })
    }
}

/// Entry 0: the pinned file, or what the log says when nothing is pinned.
///
/// # Errors
/// It can't be read, or isn't a genesis.
pub(crate) async fn genesis_of(
    reader: &LogReader,
    pinned: Option<&Path>,
) -> Result<Genesis, Refusal> {
    if let Some(path) = pinned {
        return Genesis::read(&read_bounded(path, "genesis")?, "pinned by the file");
    }
    // The key that signs the checkpoint stands in the entry that the checkpoint covers.
    let size = reader.checkpoint().await?.claim().size;
    let mut first = None;
    reader
        .entries(0, size.min(1), |_, bytes| {
            first = Some(bytes.to_vec());
            Ok(false)
        })
        .await?;
    let bytes = first.ok_or_else(|| Refusal::not_found("entry", 0))?;
    Genesis::read(&bytes, "by the log's own word; pin it with --genesis")
}

fn checkpoint(note: &str, genesis: &Genesis) -> Result<(u64, Digest), Refusal> {
    let verified = UnverifiedCheckpoint::parse(note.as_bytes())?.verify(&genesis.key)?;
    Ok((verified.checkpoint().size, verified.checkpoint().root))
}

/// What was counted so far.
#[derive(Default)]
pub(crate) struct Count {
    frontier: Frontier,
    /// The fold, unless the count began in the middle.
    state: Option<State>,
    resumed: bool,
    audit: Audit,
}

/// Every signature in every entry, checked again against the keys that counted at that point.
#[derive(Default)]
struct Audit {
    auditor: Option<Auditor>,
    signatures: u64,
    missing: u64,
    broken: Option<Refusal>,
}

impl Audit {
    fn take(&mut self, event: &Event, blob: &BlobLookup<'_>) {
        if self.broken.is_some() {
            return;
        }
        match self
            .auditor
            .get_or_insert_with(Auditor::new)
            .take(event, blob)
        {
            Ok(audited) => {
                self.signatures += u64::from(audited.signature.is_some());
                self.missing += audited.missing.len() as u64;
            }
            Err(refusal) => {
                let what = format!("entry {}: {}", event.index, refusal.message);
                self.broken = Some(Refusal {
                    message: what,
                    ..refusal
                });
            }
        }
    }

    fn self_approved(&self) -> bool {
        self.auditor.as_ref().is_some_and(Auditor::self_approved)
    }

    /// What a reader must know beside "it holds".
    fn says_of_itself(&self) -> String {
        let mut says = String::new();
        if self.self_approved() {
            says.push_str("\nself-approved: somebody's approval of own work counted");
        }
        if self.missing > 0 {
            says.push_str(&format!(
                "\n{} attestations stand beside the entries and were not looked at: verify with --home, or a bundle",
                self.missing
            ));
        }
        says
    }
}

impl Count {
    /// Goes on from a tree that was verified before.
    pub(crate) fn resume(&mut self, frontier: Frontier) {
        self.frontier = frontier;
        self.resumed = true;
    }

    /// The tree so far.
    pub(crate) const fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Takes the next entry in; gives the hash over the bundle that it filled, if it did.
    ///
    /// # Errors
    /// What does not hold of it, with its index.
    pub(crate) fn take(
        &mut self,
        genesis: &Genesis,
        index: u64,
        bytes: &[u8],
        leaf: Digest,
    ) -> Result<Option<(Node, Digest)>, Refusal> {
        if index == 0 && bytes != genesis.bytes {
            return Err(broken("entry 0 is not the pinned genesis")
                .expected(&genesis.digest().to_string())
                .received(&Digest::of(bytes).to_string()));
        }
        let event = ledger_remote::event(index, bytes)?;
        if !self.resumed {
            let state = self.state.get_or_insert_with(State::empty);
            state
                .apply(&event)
                .map_err(|refusal| ledger_remote::at_entry(index, refusal))?;
            self.audit.take(&event, &|_| None);
            if let Some(refusal) = self.audit.broken.take() {
                return Err(ledger_remote::at_entry(index, refusal));
            }
        }
        let completed = self
            .frontier
            .append(leaf)
            .map_err(|error| broken(&error.to_string()))?;
        Ok(completed
            .into_iter()
            .find(|(node, _)| node.level == TILE_HEIGHT))
    }
}

fn broken(message: &str) -> Refusal {
    Refusal::conflict("ledger-broken", message)
        .next("do not trust this ledger; keep what you hold, and compare it with a witness")
}

/// The store that a home's configuration names. A copy without one, such as a backup, is in SQLite.
fn store_of(home: &Path) -> Result<portcullis_store::StoreOptions, Refusal> {
    use portcullis_server::config::Config;
    use portcullis_server::home::Home;
    let home = Home::new(home);
    if home.ledger().join("ledger.db").exists() || !home.config().exists() {
        return Ok(portcullis_store::StoreOptions::Sqlite);
    }
    let text = String::from_utf8_lossy(&Home::read(&home.config(), 64 * 1024)?).into_owned();
    Config::read(&text)?.store(&home)
}
