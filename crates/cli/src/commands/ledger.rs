//! The ledger, read from outside: sentences, proofs, exact bytes.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use portcullis_evidence::merkle::{leaf_hash, verify_inclusion};
use portcullis_evidence::tiles::{TILE_WIDTH, TileMap};
use portcullis_evidence::tlog_proof::UnverifiedProof;
use portcullis_model::{Event, LedgerIndex, Refusal, RefusalKind, canonical};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::Client;
use crate::commands::ledger_files;
use crate::commands::ledger_remote::at_entry;
use crate::commands::ledger_verify::{self, Genesis, Verify};
use crate::context::Context;
use crate::exit::Exit;
use crate::log_reader::LogReader;
use crate::output::{self, column};
use crate::progress::Counter;
use crate::sentence::sentence;
use crate::task_file::write_file;

/// Entries of one page; the server gives at most a thousand.
const PAGE: u64 = 1_000;
/// How often a lost connection is made anew before following ends, and the pause before each.
const TAIL_TRIES: u32 = 60;
const TAIL_PAUSE: std::time::Duration = std::time::Duration::from_millis(500);
/// How many of the newest entries `tail` begins with.
const TAIL: u64 = 50;

/// The ledger.
#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Tell who did what under which authority, an entry a line
    Tail {
        /// First entry [default: the newest 50]
        #[arg(long, value_name = "INDEX")]
        from: Option<LedgerIndex>,
        /// Go on as entries come
        #[arg(long)]
        follow: bool,
    },
    /// Prove that nothing was changed, removed or reordered
    Verify(Verify),
    /// Say what the log's witnesses cosigned, and why one did not
    Witnesses,
    /// Write the proof that the ledger holds an entry, with the entry in it (C2SP tlog-proof);
    /// `portcullis verify` checks it offline
    Proof(Proof),
    /// Write the entries as JSON Lines, each with the proof that the ledger holds it
    Export(Export),
    /// Make lost or damaged tiles and hashes anew from the entries, in the server's directory, while
    /// no server runs
    Rebuild,
}

/// Writes the proof of one entry.
#[derive(Debug, clap::Args)]
pub(crate) struct Proof {
    /// Which entry
    #[arg(value_name = "INDEX")]
    index: LedgerIndex,
    /// Where to; a new file, by custom ending in .tlog-proof [default: standard output]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    #[command(flatten)]
    from: Served,
}

/// Writes entries with their proofs.
#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    /// First entry
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    from: LedgerIndex,
    /// Where to; a new file [default: standard output]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// The entries' exact bytes alone, one a line, without proofs
    #[arg(long)]
    bare: bool,
    #[command(flatten)]
    log: Served,
}

/// Which log is read.
#[derive(Debug, clap::Args)]
struct Served {
    /// A log that is served elsewhere (C2SP tlog-tiles) [default: the server's]
    #[arg(long, value_name = "URL")]
    log: Option<String>,
    /// A file with the token that admits readers of that log
    #[arg(long, value_name = "FILE", requires = "log")]
    token_file: Option<PathBuf>,
    /// Entry 0 as it was pinned [default: genesis.json of --home, or the log's own]
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
}

impl Served {
    /// The log, and its beginning.
    async fn open(&self, context: &Context) -> Result<(LogReader, Genesis), Refusal> {
        let reader = match &self.log {
            Some(url) => LogReader::new(url, self.token_file.as_deref())?,
            None => context.log_reader()?,
        };
        let home = context.global.home.as_ref().filter(|_| self.log.is_none());
        let home = home.map(|home| home.join("genesis.json"));
        let pinned = self.genesis.as_deref().or(home.as_deref());
        let genesis = ledger_verify::genesis_of(&reader, pinned).await?;
        Ok((reader, genesis))
    }
}

/// A page of entries.
#[derive(Debug, Deserialize)]
struct Page {
    items: Vec<Item>,
    #[serde(default)]
    next: Option<LedgerIndex>,
    size: u64,
}

/// An entry as the server gives it.
#[derive(Debug, Deserialize)]
struct Item {
    index: LedgerIndex,
    entry: Value,
    leaf: String,
}

/// An entry whose bytes have the leaf hash that the server says.
pub(crate) struct Read {
    /// Its position.
    pub(crate) index: LedgerIndex,
    /// Its exact bytes.
    pub(crate) bytes: Vec<u8>,
    /// As JSON.
    pub(crate) entry: Value,
}

impl LedgerCommand {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        match self {
            Self::Tail { from, follow } => tail(context, from, follow).await,
            Self::Verify(verify) => verify.run(context).await,
            Self::Witnesses => witnesses(context).await,
            Self::Proof(proof) => proof.run(context).await,
            Self::Export(export) => export.run(context).await,
            Self::Rebuild => ledger_files::rebuild(context),
        }
    }
}

/// Calls `each` for the entries from `from` on, up to `until` of them if it is named, and gives the
/// ledger's size.
///
/// # Errors
/// As [`Client::get`], what `each` says, or an entry that is not the next or not what its leaf
/// hash says.
pub(crate) async fn read_entries(
    client: &Client,
    from: LedgerIndex,
    until: Option<u64>,
    mut each: impl FnMut(Read) -> Result<(), Refusal>,
) -> Result<u64, Refusal> {
    let mut at = from;
    let mut counter = Counter::new("reading entries");
    loop {
        let limit = until.map_or(PAGE, |until| until.saturating_sub(at).min(PAGE));
        if limit == 0 {
            return Ok(at);
        }
        let page: Page = client
            .get(&format!("/v1/ledger/entries?from={at}&limit={limit}"))
            .await?;
        for item in page.items {
            let read = item.check(at)?;
            at += 1;
            each(read)?;
        }
        counter.at(at, page.size);
        match page.next {
            // A page that does not go on would be asked for without end.
            Some(next) if next == at && limit > 0 => {}
            Some(next) => {
                return Err(Refusal::unavailable(
                    "server-answer",
                    "the server's pages don't follow each other",
                )
                .expected(&format!("entry {at}"))
                .received(&format!("entry {next}")));
            }
            None => return Ok(page.size),
        }
    }
}

impl Item {
    fn check(self, expected: LedgerIndex) -> Result<Read, Refusal> {
        let bytes = canonical::to_vec(&self.entry)?;
        let leaf = leaf_hash(&bytes);
        if self.index != expected || leaf.hex() != self.leaf.trim_start_matches("sha256:") {
            return Err(Refusal::conflict(
                "entry-mismatch",
                format!("entry {expected} is not what the server says it is"),
            )
            .expected(&format!("entry {expected} with the leaf {}", leaf.hex()))
            .received(&format!("entry {} with the leaf {}", self.index, self.leaf)));
        }
        Ok(Read {
            index: self.index,
            bytes,
            entry: self.entry,
        })
    }
}

async fn tail(context: &Context, from: Option<LedgerIndex>, follow: bool) -> Result<Exit, Refusal> {
    let client = context.client()?;
    let from = match from {
        Some(from) => from,
        None => context.status(&client).await?.size.saturating_sub(TAIL),
    };
    let mut next = from;
    read_entries(&client, from, None, |read| {
        next = read.index + 1;
        print_entry(context, read.index, &read.entry, &read.bytes)
    })
    .await?;
    if !follow {
        return Ok(Exit::Done);
    }
    let mut tries = 0;
    loop {
        let before = next;
        let path = format!("/v1/ledger/tail?from={next}");
        let followed = client
            .follow(&path, |event| {
                let index: LedgerIndex = event.id.parse().map_err(|_| bad_event(&event.id))?;
                if index != next {
                    return Err(bad_event(&event.id));
                }
                let entry: Value =
                    serde_json::from_str(&event.data).map_err(|_| bad_event(&event.data))?;
                next = index + 1;
                print_entry(context, index, &entry, &canonical::to_vec(&entry)?)
            })
            .await;
        // A server that restarts goes on where this ended; another refusal is final.
        if let Err(refusal) = followed
            && (refusal.kind != RefusalKind::Unavailable || tries == TAIL_TRIES)
        {
            return Err(refusal);
        }
        tries = if next > before { 0 } else { tries + 1 };
        tokio::time::sleep(TAIL_PAUSE).await;
    }
}

fn bad_event(received: &str) -> Refusal {
    Refusal::unavailable("server-answer", "the server's event can't be read")
        .expected("an index and an entry")
        .received(received)
}

/// One entry: a sentence, or JSON with the sentence beside the entry.
fn print_entry(
    context: &Context,
    index: LedgerIndex,
    entry: &Value,
    bytes: &[u8],
) -> Result<(), Refusal> {
    let told = match Event::decode(index, bytes) {
        Ok(event) => format!("{} {}", event.time, sentence(&event)),
        // A newer server may write what this program does not know; the rest is still told.
        Err(refusal) => {
            format!(
                "{} ({})",
                refusal.message,
                refusal.received.as_deref().unwrap_or_default()
            )
        }
    };
    let told = output::clean_line(&told);
    let line = json!({ "index": index, "sentence": told, "entry": entry });
    context
        .out()
        .print_line(&line, || format!("{index:>6} {told}"))
}

async fn witnesses(context: &Context) -> Result<Exit, Refusal> {
    let status: Value = context.client()?.get("/v1/status").await?;
    let shown = status.get("witnesses").cloned().unwrap_or_default();
    let known = shown.get("known").and_then(Value::as_array).cloned();
    let columns = [
        column("NAME", &["/name"]),
        column("SIZE", &["/size"]),
        column("FAILED", &["/failed"]),
    ];
    context.out().print(&shown, || {
        let table = output::table(&known.unwrap_or_default(), &columns, "no witnesses");
        match shown.pointer("/cosigned/size") {
            Some(size) => format!("{table}\nreaders get the checkpoint of {size} entries"),
            None => table,
        }
    })?;
    Ok(Exit::Done)
}

impl Proof {
    async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        let (reader, genesis) = self.from.open(context).await?;
        let index = self.index;
        let checkpoint = reader.checkpoint().await?;
        let size = checkpoint.verify(&genesis.key)?.checkpoint().size;
        if index >= size {
            return Err(Refusal::not_found("entry", index).expected(&format!(
                "an index below {size}, the size of the signed tree"
            )));
        }
        let mut entry = None;
        reader
            .entries(index, index + 1, |_, bytes| {
                entry = Some(bytes.to_vec());
                Ok(false)
            })
            .await?;
        let entry = entry.ok_or_else(|| Refusal::not_found("entry", index))?;
        let proof = UnverifiedProof {
            untrusted_extra: Some(entry.clone()),
            index,
            hashes: reader.inclusion(index, size).await?,
            checkpoint,
        };
        proof.verify(&entry, &genesis.key)?;
        let text = proof.to_string();
        let proven = format!(
            "entry {index} is in the log {} ({})",
            genesis.origin, genesis.known_by
        );
        let answer = json!({
            "index": index, "leaf": leaf_hash(&entry), "proof": text, "proven": proven,
            "file": self.to.as_ref().map(|path| path.display().to_string()),
        });
        match &self.to {
            Some(path) => {
                write_file(path, text.as_bytes(), false)?;
                context.out().print(&answer, || {
                    format!(
                        "{proven}\n  next: portcullis verify {} --genesis FILE",
                        path.display()
                    )
                })?;
            }
            None => {
                output::note(&proven);
                context.out().print(&answer, || text.clone())?;
            }
        }
        Ok(Exit::Done)
    }
}

impl Export {
    async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        let (reader, genesis) = self.log.open(context).await?;
        let served = reader.checkpoint().await?;
        let newest = served.verify(&genesis.key)?;
        let (size, root) = (newest.checkpoint().size, newest.checkpoint().root);
        let mut out = Sink::open(self.to.as_deref())?;
        if !self.bare {
            let head = json!({
                "format": "portcullis-ledger-export@v1",
                "checkpoint": served.to_string(),
            });
            out.line(head.to_string().into_bytes())?;
        }
        let mut counter = Counter::new("writing entries");
        let mut tiles = TileMap::new(size);
        let mut at = self.from;
        while at < size {
            let until = size.min((at / TILE_WIDTH + 1) * TILE_WIDTH);
            let mut entries = Vec::new();
            reader
                .entries(at, until, |_, bytes| {
                    entries.push(bytes.to_vec());
                    Ok(true)
                })
                .await?;
            let proofs = reader.inclusions(&mut tiles, at..until, size).await?;
            for ((index, entry), proof) in (at..).zip(&entries).zip(&proofs) {
                let leaf = leaf_hash(entry);
                verify_inclusion(leaf, index, size, proof, root)
                    .map_err(|error| at_entry(index, error.into()))?;
                if self.bare {
                    out.line(entry.clone())?;
                    continue;
                }
                let entry: Value = serde_json::from_slice(entry).map_err(|error| {
                    at_entry(
                        index,
                        Refusal::malformed("ledger entry").received(&error.to_string()),
                    )
                })?;
                let proof: Vec<String> = proof
                    .iter()
                    .map(|hash| STANDARD.encode(hash.as_bytes()))
                    .collect();
                let line = json!({ "index": index, "entry": entry, "proof": proof });
                out.line(line.to_string().into_bytes())?;
            }
            at = until;
            counter.at(at, size);
        }
        drop(counter);
        out.finish()?;
        if let Some(path) = self.to {
            let from = self.from;
            let answer = json!({ "file": path.display().to_string(), "from": from, "to": size });
            context.out().print(&answer, || {
                format!("entries {from} to {size} are in {}", path.display())
            })?;
        }
        Ok(Exit::Done)
    }
}

/// Where lines go.
enum Sink {
    File(std::io::BufWriter<std::fs::File>),
    Standard,
}

impl Sink {
    fn open(path: Option<&Path>) -> Result<Self, Refusal> {
        let Some(path) = path else {
            return Ok(Self::Standard);
        };
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|error| unwritable(&error))?;
        Ok(Self::File(std::io::BufWriter::new(file)))
    }

    fn line(&mut self, mut line: Vec<u8>) -> Result<(), Refusal> {
        line.push(b'\n');
        match self {
            Self::File(file) => file.write_all(&line).map_err(|error| unwritable(&error)),
            Self::Standard => output::bytes(&line),
        }
    }

    fn finish(&mut self) -> Result<(), Refusal> {
        match self {
            Self::File(file) => file.flush().map_err(|error| unwritable(&error)),
            Self::Standard => Ok(()),
        }
    }
}

fn unwritable(error: &std::io::Error) -> Refusal {
    Refusal::unavailable("file-unwritable", "the export can't be written")
        .received(&error.to_string())
}
