//! A fold that is small enough to see through: grants with nonces that count once, and a switch
//! that stops them.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "shared by test binaries that each use a part, and may panic"
)]

#[path = "../postgres_server/mod.rs"]
pub(crate) mod postgres_server;

use std::path::Path;
use std::sync::Arc;

use portcullis_evidence::signer::Signer;
use portcullis_model::{Digest, Fold, LedgerIndex, Refusal, Secret, Timestamp};
use portcullis_store::{
    CheckpointSigner, Faults, Ledger, LedgerOptions, LogKey, ManualClock, OpenReport,
    PostgresOptions, StoreOptions, VerifyOptions,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toy {
    next: LedgerIndex,
    used: imbl::OrdSet<u64>,
    tripped: bool,
    /// Digest over all events in order: two states with the same chain saw the same.
    pub(crate) chain: Digest,
    pub(crate) newest: Timestamp,
}

#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// A grant; its nonce counts once.
    Grant { nonce: u64, body: String },
    /// Two entries that stand or fall together.
    Pair { nonce: u64 },
    /// Changes nothing.
    Look,
    /// Takes authority away.
    Trip { why: String },
    /// A defect in a fold: it panics.
    Panic,
    /// A defect in a fold: it writes what it can't read.
    Unreadable,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Event {
    Granted {
        nonce: u64,
        body: String,
        time: Timestamp,
    },
    Tripped {
        why: String,
        time: Timestamp,
    },
}

impl Toy {
    pub(crate) fn is_tripped(&self) -> bool {
        self.tripped
    }

    pub(crate) fn used(&self) -> usize {
        self.used.len()
    }
}

impl Fold for Toy {
    type Command = Command;
    type Event = Event;

    fn empty() -> Self {
        Self {
            next: 0,
            used: imbl::OrdSet::new(),
            tripped: false,
            chain: Digest::of(b""),
            newest: Timestamp::from_ms(0),
        }
    }

    fn next_index(&self) -> LedgerIndex {
        self.next
    }

    fn decide(&self, command: &Command, time: Timestamp) -> Result<Vec<Event>, Refusal> {
        let granted = |nonce: u64, body: &str| -> Result<Event, Refusal> {
            if self.tripped {
                return Err(Refusal::denied("tripped", "nothing is granted now"));
            }
            if self.used.contains(&nonce) {
                return Err(Refusal::conflict("nonce-used", "this nonce was used"));
            }
            Ok(Event::Granted {
                nonce,
                body: body.to_owned(),
                time,
            })
        };
        match command {
            Command::Grant { nonce, body } => Ok(vec![granted(*nonce, body)?]),
            Command::Pair { nonce } => Ok(vec![
                granted(*nonce, "first")?,
                granted(nonce + 1, "second")?,
            ]),
            Command::Look => Ok(Vec::new()),
            Command::Trip { why } => Ok(vec![Event::Tripped {
                why: why.clone(),
                time,
            }]),
            Command::Panic => panic!("a defect"),
            Command::Unreadable => Ok(vec![granted(u64::MAX, "unreadable")?]),
        }
    }

    fn again(event: &Event) -> Option<Command> {
        match event {
            Event::Granted { .. } => None,
            Event::Tripped { why, .. } => Some(Command::Trip { why: why.clone() }),
        }
    }

    fn reduces_authority(command: &Command) -> bool {
        matches!(command, Command::Trip { .. })
    }

    fn apply(&mut self, event: &Event) -> Result<(), Refusal> {
        let time = match event {
            Event::Granted { nonce, time, .. } => {
                if self.used.insert(*nonce).is_some() {
                    return Err(Refusal::conflict("nonce-used", "this nonce was used"));
                }
                *time
            }
            Event::Tripped { time, .. } => {
                self.tripped = true;
                *time
            }
        };
        if time < self.newest {
            return Err(Refusal::conflict("time-backwards", "time went backwards"));
        }
        self.newest = time;
        self.chain = Digest::of_parts(&[self.chain.as_bytes(), &Self::encode(event)?]);
        self.next += 1;
        Ok(())
    }

    fn encode(event: &Event) -> Result<Vec<u8>, Refusal> {
        if matches!(
            event,
            Event::Granted {
                nonce: u64::MAX,
                ..
            }
        ) {
            return Ok(b"{}".to_vec());
        }
        portcullis_model::canonical::to_vec(event)
    }

    fn decode(_index: LedgerIndex, bytes: &[u8]) -> Result<Event, Refusal> {
        portcullis_model::canonical::from_slice("event", bytes)
    }

    fn snapshot_form() -> Option<&'static str> {
        Some(FORM)
    }

    fn to_snapshot(&self) -> Result<Vec<u8>, Refusal> {
        let used: Vec<u64> = self.used.iter().copied().collect();
        let parts = (self.next, used, self.tripped, self.chain, self.newest);
        Ok(serde_json::to_vec(&parts).unwrap())
    }

    fn from_snapshot(bytes: &[u8]) -> Result<Self, Refusal> {
        let (next, used, tripped, chain, newest): (_, Vec<u64>, _, _, _) =
            serde_json::from_slice(bytes)
                .map_err(|error| Refusal::malformed("toy").received(&error.to_string()))?;
        Ok(Self {
            next,
            used: used.into_iter().collect(),
            tripped,
            chain,
            newest,
        })
    }
}

/// The form of the toy's snapshots.
pub(crate) const FORM: &str = "toy 1";

pub(crate) const START: Timestamp = Timestamp::from_ms(1_795_000_000_000);

pub(crate) fn key() -> LogKey {
    LogKey::new(
        "portcullis.example/test".parse().unwrap(),
        Signer::from_seed(&Secret::new([7; 32])).unwrap(),
    )
}

/// Whether the suites run over PostgreSQL: in the binary of that name.
pub(crate) const POSTGRES: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"postgres");

/// The store of `dir`: a database of its own, or SQLite in the directory, where backups are, too.
pub(crate) fn store(dir: &Path) -> StoreOptions {
    if !POSTGRES || dir.join("ledger.db").exists() {
        return StoreOptions::Sqlite;
    }
    let server = postgres_server::shared();
    StoreOptions::Postgres(PostgresOptions {
        url: server.url(&server.database_of(dir)),
        password: None,
        authorities: None,
        address: "http://127.0.0.1:1".to_owned(),
    })
}

/// Options for a ledger in SQLite, with a clock that stands still.
pub(crate) fn options(faults: Faults) -> LedgerOptions {
    LedgerOptions {
        clock: Arc::new(ManualClock::new(START)),
        faults,
        ..LedgerOptions::new(key())
    }
}

/// Options for a ledger in `dir`, with a clock that stands still.
pub(crate) fn options_in(dir: &Path, faults: Faults) -> LedgerOptions {
    LedgerOptions {
        store: store(dir),
        ..options(faults)
    }
}

pub(crate) fn open(dir: &Path) -> (Ledger<Toy>, OpenReport) {
    Ledger::open(dir, options_in(dir, Faults::default())).unwrap()
}

/// Changes the ledger of `dir` behind its back.
pub(crate) fn sql(dir: &Path, statements: &str) {
    if POSTGRES {
        let server = postgres_server::shared();
        let prelude = "SET search_path = portcullis;
             CREATE OR REPLACE FUNCTION zeroblob(n integer) RETURNS bytea LANGUAGE sql
             AS $$ SELECT decode(repeat('00', n), 'hex') $$;";
        server.sql(&server.database_of(dir), &format!("{prelude}{statements}"));
    } else {
        rusqlite::Connection::open(dir.join("ledger.db"))
            .unwrap()
            .execute_batch(statements)
            .unwrap();
    }
}

/// Bytes as they stand in a statement for [`sql`].
pub(crate) fn literal(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if POSTGRES {
        format!("decode('{hex}', 'hex')")
    } else {
        format!("x'{hex}'")
    }
}

pub(crate) fn grant(nonce: u64) -> Command {
    Command::Grant {
        nonce,
        body: format!("grant {nonce}"),
    }
}

pub(crate) fn trip(why: &str) -> Command {
    Command::Trip {
        why: why.to_owned(),
    }
}

/// Verifies `dir` with nothing held.
pub(crate) fn check(dir: &Path) -> portcullis_store::VerifyReport {
    let key = key();
    portcullis_store::verify_store::<Toy>(
        dir,
        &store(dir),
        &VerifyOptions {
            key: key.verifier(),
            held: None,
            blobs_named_by: None,
        },
    )
    .unwrap()
}
