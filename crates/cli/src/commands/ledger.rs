//! The ledger, read from outside: sentences, proofs, exact bytes.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Subcommand;
use portcullis_evidence::merkle::leaf_hash;
use portcullis_evidence::tlog_proof::UnverifiedProof;
use portcullis_model::{Digest, Event, LedgerIndex, Refusal, canonical};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::Client;
use crate::commands::ledger_verify::{self, Verify};
use crate::context::Context;
use crate::exit::Exit;
use crate::output;
use crate::progress::Counter;
use crate::sentence::sentence;

/// Entries of one page; the server gives at most a thousand.
const PAGE: u64 = 1_000;
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
    /// Print the proof that the ledger holds an entry (C2SP tlog-proof), checked
    Proof {
        /// Which entry
        #[arg(value_name = "INDEX")]
        index: LedgerIndex,
    },
    /// Write the entries' exact bytes, one a line
    Export {
        /// First entry
        #[arg(long, value_name = "INDEX", default_value_t = 0)]
        from: LedgerIndex,
        /// Where to; a new file [default: standard output]
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
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
    /// Its leaf hash.
    pub(crate) leaf: Digest,
    /// As JSON.
    pub(crate) entry: Value,
}

impl LedgerCommand {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        match self {
            Self::Tail { from, follow } => tail(context, from, follow).await,
            Self::Verify(verify) => verify.run(context).await,
            Self::Proof { index } => proof(context, index).await,
            Self::Export { from, to } => export(context, from, to).await,
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
            leaf,
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
    client
        .follow(&format!("/v1/ledger/tail?from={next}"), |event| {
            let index = event.id.parse().map_err(|_| bad_event(&event.id))?;
            let entry: Value =
                serde_json::from_str(&event.data).map_err(|_| bad_event(&event.data))?;
            print_entry(context, index, &entry, &canonical::to_vec(&entry)?)
        })
        .await?;
    Ok(Exit::Done)
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

async fn proof(context: &Context, index: LedgerIndex) -> Result<Exit, Refusal> {
    let client = context.client()?;
    let text = client.text(&format!("/v1/ledger/proof/{index}")).await?;
    let mut entry = None;
    read_entries(&client, index, Some(index + 1), |read| {
        entry = Some(read.bytes);
        Ok(())
    })
    .await?;
    let entry = entry.ok_or_else(|| Refusal::not_found("entry", index))?;
    let genesis = ledger_verify::genesis_of(context, &client, None).await?;
    let logged = UnverifiedProof::parse(text.as_bytes())?.verify(&entry, &genesis.key)?;
    let proven = format!(
        "entry {index} is in the log {} ({})",
        genesis.origin, genesis.known_by
    );
    let answer =
        json!({ "index": index, "leaf": leaf_hash(&entry), "proof": text, "proven": proven });
    debug_assert_eq!(logged.index(), index);
    output::note(&proven);
    context.out().print(&answer, || text.clone())?;
    Ok(Exit::Done)
}

async fn export(
    context: &Context,
    from: LedgerIndex,
    to: Option<PathBuf>,
) -> Result<Exit, Refusal> {
    let client = context.client()?;
    let unwritable = |error: std::io::Error| {
        Refusal::unavailable("file-unwritable", "the export can't be written")
            .received(&error.to_string())
    };
    let mut file = match &to {
        Some(path) => Some(std::io::BufWriter::new(
            std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(path)
                .map_err(unwritable)?,
        )),
        None => None,
    };
    let size = read_entries(&client, from, None, |read| {
        let mut line = read.bytes;
        line.push(b'\n');
        match &mut file {
            Some(file) => file.write_all(&line).map_err(unwritable),
            None => output::bytes(&line),
        }
    })
    .await?;
    if let (Some(mut file), Some(path)) = (file, to) {
        file.flush().map_err(unwritable)?;
        let answer = json!({ "file": path.display().to_string(), "from": from, "to": size });
        context.out().print(&answer, || {
            format!("entries {from} to {size} are in {}", path.display())
        })?;
    }
    Ok(Exit::Done)
}
