//! `ledger verify`: that nothing was changed, removed or reordered, by this program's own count.
//!
//! A served log is read as anybody outside reads it ([`crate::log_reader`]); a directory's files by
//! the store (`ledger_files.rs`). Both ways the same fold and the same check of signatures run over
//! the entries (`ledger_count.rs`), and go on from what an earlier verification kept.

use std::path::{Path, PathBuf};

use portcullis_evidence::checkpoint::UnverifiedCheckpoint;
use portcullis_evidence::cosignature::{Cosigned, WitnessKey, require_quorum};
use portcullis_evidence::note::VerifierKey;
use portcullis_model::{Body, Digest, Event, Refusal, Timestamp};
use serde_json::json;

use crate::commands::ledger_count::Count;
use crate::commands::{ledger_files, ledger_remote};
use crate::context::Context;
use crate::exit::Exit;
use crate::log_reader::LogReader;
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
    /// Keep here what was verified, and in FILE.rules what rules and signatures led to; go on from
    /// there the next time. Entries before are not read again
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Most entries that are read of a served log [default: 100000000]
    #[arg(long, value_name = "COUNT")]
    max_entries: Option<u64>,
    /// A checkpoint that was kept from earlier: the ledger must contain it
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Entry 0 as it was pinned [default: the log's own, or genesis.json of --home]
    #[arg(long, value_name = "FILE")]
    pub(crate) genesis: Option<PathBuf>,
    /// Keep the newest checkpoint here, for the next time
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) quorum: Quorum,
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
    /// Whether anybody's cosignature is demanded.
    pub(crate) fn is_demanded(&self) -> bool {
        !self.witnesses.is_empty()
    }

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
    pub(crate) bytes: Vec<u8>,
}

impl Verify {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        match (&self.log, &context.global.home) {
            (Some(url), _) => {
                let reader = LogReader::new(url, self.token_file.as_deref())?;
                self.served(context, &reader).await
            }
            (None, Some(home)) if self.max_entries.is_none() => {
                ledger_files::run(&self, context, home)
            }
            (None, Some(home)) => Err(Refusal::malformed("verification")
                .expected("--max-entries with a served log")
                .received(&format!("the files in {}", home.display()))
                .next("leave one of the two out")),
            (None, None) => {
                let reader = context.log_reader()?;
                self.served(context, &reader).await
            }
        }
    }

    /// Reads every entry of a served log and counts again.
    async fn served(self, context: &Context, reader: &LogReader) -> Result<Exit, Refusal> {
        let genesis = genesis_of(reader, self.genesis.as_deref()).await?;
        let held = match &self.checkpoint {
            Some(path) => Some(checkpoint(&read_text(path, "checkpoint")?, &genesis)?),
            None => None,
        };
        let mut count = Count::default();
        let most = self.max_entries.unwrap_or(ledger_remote::ENTRIES_MAX);
        let state = self.state.as_ref();
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
            "anew": shown.anew, "rules_and_signatures": true,
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
                    "{size} entries of {origin} hold together and lead to the signed root {root}: the first {old} were verified on {at}, and the log still contains them; {} after them were read",
                    size - old
                ),
            };
            let anew = match shown.anew {
                true => "\nall entries were read again: what rules and signatures led to was not kept by this version",
                false => "",
            };
            format!(
                "{holds}{held}{anew}{}{}\ngenesis {} ({})",
                count.audit.says_of_itself(),
                told(&cosigned),
                genesis.digest(),
                genesis.known_by
            )
        })?;
        Ok(Exit::Done)
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

/// Why this is no ledger to trust.
pub(crate) fn broken(message: &str) -> Refusal {
    Refusal::conflict("ledger-broken", message)
        .next("do not trust this ledger; keep what you hold, and compare it with a witness")
}
