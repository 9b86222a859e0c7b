//! `ledger verify`: that nothing was changed, removed or reordered, by this program's own count.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use portcullis_evidence::chain::{Auditor, BlobLookup};
use portcullis_evidence::checkpoint::UnverifiedCheckpoint;
use portcullis_evidence::merkle::{Frontier, empty_root};
use portcullis_evidence::note::VerifierKey;
use portcullis_flow::State;
use portcullis_model::{Body, Digest, Event, Fold as _, Refusal};
use portcullis_store::{Blobs, VerifyOptions};
use serde_json::json;

use crate::client::Client;
use crate::commands::ledger::read_entries;
use crate::context::{Context, Items};
use crate::exit::Exit;
use crate::output;
use crate::task_file::{read_bounded, read_text, write_file};

/// Verifies the ledger: the server's, or with --home the files of a directory.
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// A checkpoint that was kept from earlier: the ledger must contain it
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Entry 0 as it was pinned [default: the server's own, or genesis.json of --home]
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
    /// Keep the newest checkpoint here, for the next time
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
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
        match &context.global.home {
            Some(home) => self.files(context, home),
            None => self.server(context).await,
        }
    }

    /// Reads every entry from the server and counts again.
    async fn server(self, context: &Context) -> Result<Exit, Refusal> {
        let client = context.client()?;
        let genesis = genesis_of(context, &client, self.genesis.as_deref()).await?;
        let note = client.text("/v1/ledger/checkpoint").await?;
        let newest = checkpoint(&note, &genesis)?;
        let held = match &self.checkpoint {
            Some(path) => Some(checkpoint(&read_text(path, "checkpoint")?, &genesis)?),
            None => None,
        };
        let mut count = Count {
            held,
            ..Count::default()
        };
        read_entries(&client, 0, Some(newest.0), |read| {
            count.take(&genesis, read.index, &read.bytes, read.leaf)
        })
        .await?;
        count.finish(newest)?;
        self.keep(&note)?;
        let answer = json!({
            "sound": true, "origin": genesis.origin, "size": newest.0, "root": newest.1,
            "genesis": Digest::of(&genesis.bytes), "genesis_known_by": genesis.known_by,
            "held": held.map(|held| held.0), "signatures": count.audit.signatures,
            "self_approved": count.audit.self_approved(), "not_looked_at": count.audit.missing,
        });
        context.out().print(&answer, || {
            let held = match held {
                Some((size, _)) => format!("; it contains the checkpoint of {size} entries that you held"),
                None => String::new(),
            };
            format!(
                "{} entries of {} with {} signatures hold together and lead to the signed root {}{held}{}\ngenesis {} ({})",
                newest.0,
                genesis.origin,
                count.audit.signatures,
                newest.1.short(),
                count.audit.says_of_itself(),
                Digest::of(&genesis.bytes),
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
        let blobs = Blobs::open_reader(&home.join("ledger"))?;
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
        let report = portcullis_store::verify::<State>(&home.join("ledger"), &options)?;
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

    fn keep(&self, note: &str) -> Result<(), Refusal> {
        match &self.save {
            Some(path) => write_file(path, note.as_bytes(), true),
            None => Ok(()),
        }
    }
}

impl Genesis {
    fn read(bytes: &[u8], known_by: &'static str) -> Result<Self, Refusal> {
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

/// Entry 0: the pinned file, or what the server says when nothing is pinned.
///
/// # Errors
/// It can't be read, or isn't a genesis.
pub(crate) async fn genesis_of(
    context: &Context,
    client: &Client,
    pinned: Option<&Path>,
) -> Result<Genesis, Refusal> {
    let home = context
        .global
        .home
        .as_ref()
        .map(|home| home.join("genesis.json"));
    if let Some(path) = pinned.or(home.as_deref()) {
        return Genesis::read(&read_bounded(path, "genesis")?, "pinned by the file");
    }
    let items: Items<serde_json::Value> = client.get("/v1/ledger/entries?from=0&limit=1").await?;
    let entry = items
        .items
        .first()
        .and_then(|item| item.get("entry"))
        .ok_or_else(|| Refusal::not_found("entry", 0))?;
    let bytes = portcullis_model::canonical::to_vec(entry)?;
    Genesis::read(&bytes, "by the server's own word; pin it with --genesis")
}

fn checkpoint(note: &str, genesis: &Genesis) -> Result<(u64, Digest), Refusal> {
    let verified = UnverifiedCheckpoint::parse(note.as_bytes())?.verify(&genesis.key)?;
    Ok((verified.checkpoint().size, verified.checkpoint().root))
}

/// What was counted so far.
#[derive(Default)]
struct Count {
    frontier: Frontier,
    state: Option<State>,
    held: Option<(u64, Digest)>,
    held_root: Option<Digest>,
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
    fn take(
        &mut self,
        genesis: &Genesis,
        index: u64,
        bytes: &[u8],
        leaf: Digest,
    ) -> Result<(), Refusal> {
        if index == 0 && bytes != genesis.bytes {
            return Err(broken("entry 0 is not the pinned genesis"));
        }
        let event = Event::decode(index, bytes)?;
        self.state.get_or_insert_with(State::empty).apply(&event)?;
        self.audit.take(&event, &|_| None);
        if let Some(refusal) = self.audit.broken.take() {
            return Err(refusal);
        }
        self.frontier
            .append(leaf)
            .map_err(|error| broken(&error.to_string()))?;
        if self.held.is_some_and(|(size, _)| size == index + 1) {
            self.held_root = Some(self.frontier.root());
        }
        Ok(())
    }

    fn finish(&self, newest: (u64, Digest)) -> Result<(), Refusal> {
        if self.frontier.root() != newest.1 {
            return Err(broken("the entries don't lead to the signed root")
                .expected(&newest.1.to_string())
                .received(&self.frontier.root().to_string()));
        }
        if let Some((size, root)) = self.held
            && (size, Some(root)) != (0, Some(empty_root()))
            && self.held_root != Some(root)
        {
            return Err(
                broken("the ledger does not contain the checkpoint that you held")
                    .expected(&format!("{size} entries with the root {root}"))
                    .received(&match self.held_root {
                        Some(other) => format!("the root {other}"),
                        None => format!("{} entries", newest.0),
                    }),
            );
        }
        Ok(())
    }
}

fn broken(message: &str) -> Refusal {
    Refusal::conflict("ledger-broken", message)
        .next("do not trust this ledger; keep what you hold, and compare it with a witness")
}
