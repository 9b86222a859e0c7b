//! PostgreSQL as the ledger's database: for a team, with standbys.
//!
//! `lead.rs` says who may write, `write.rs` how a batch gets there and what is done when no answer
//! comes, `read.rs` how it is read, `private.rs` what else stands there. What a process keeps for
//! itself is in its data directory all the same: the lock, the reserve, and two small files that
//! say which server this is (`instance`) and under which lead the reserve was written (`lead`).
//!
//! The reserve and a takeover, as a crash story. PostgreSQL is away, and an act that takes
//! authority away arrives at the leader:
//!
//! 1. *It goes to the leader's reserve*, as with SQLite, and is in effect there. Nothing is
//!    granted anywhere: no process can write the log.
//! 2. *PostgreSQL comes back, and the leader is alive.* It writes the reserve's entries into the
//!    log before anything else. Standbys count its lease anew from the first answer they get, so
//!    it has the time. A restart of the leader does the same: nobody led since, and the indexes of
//!    the reserve continue the log.
//! 3. *The leader is dead, or stays away longer than its lease, and a standby takes over.* It does
//!    not know of the act, which is on the other machine's disk. This is the one case in which an
//!    act that was answered with "in the reserve" is not in effect everywhere, and it lasts until
//!    that machine's server runs again.
//! 4. *That server runs again.* Its reserve does not continue the log any more: another one led
//!    since. It puts the events into `portcullis.handover`, in order, each once (a crash in the
//!    middle repeats it), and then empties its reserve.
//! 5. *The leader takes them from there*: it decides each anew as the same act of the same person,
//!    ahead of all that waits, and removes the row after its entry is durable. A crash in between
//!    repeats it; what holds already is not recorded twice.

mod lead;
mod link;
mod options;
mod private;
mod read;
mod schema;
mod write;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portcullis_model::{Digest, Refusal};

pub(crate) use lead::{Lead, Standing, Watch, not_leader};
pub(crate) use link::Pool;
pub use options::PostgresOptions;
pub(crate) use write::PostgresWriter;

use crate::clock::{Clock, SystemClock};
use crate::faults::Faults;
use crate::limits::{HANDOVER_MAX_EVENTS, LEAD_LEASE_MS, LEAD_LOOK_MS};
use crate::reserve::Record;
use link::Driver;
use options::Target;

/// A ledger in PostgreSQL, checked and with its tables.
#[derive(Clone)]
pub(crate) struct Postgres {
    driver: Arc<Driver>,
    pool: Arc<Pool>,
    instance: String,
    address: String,
}

/// An event that another process recorded in its reserve.
pub(crate) struct Handover {
    pub(crate) digest: Digest,
    pub(crate) bytes: Vec<u8>,
}

/// What [`PostgresOptions::probe`] finds.
#[derive(Clone, Debug)]
pub struct PostgresStatus {
    /// The server's version, as it says it.
    pub version: String,
    /// Number of entries.
    pub size: u64,
    /// Where the server that leads answers, if one does.
    pub leader: Option<String>,
}

impl PostgresOptions {
    /// Whether the URL is one that a ledger can be kept at; connects to nothing.
    ///
    /// # Errors
    /// `store-url`: it is no URL of PostgreSQL, or holds a password.
    pub fn check(&self) -> Result<(), Refusal> {
        Target::new(self).map(drop)
    }

    /// Connects as a server would, changes nothing, and says what is there.
    ///
    /// # Errors
    /// PostgreSQL can't be reached, does not keep what it should, or holds no ledger of ours.
    pub fn probe(&self) -> Result<PostgresStatus, Refusal> {
        let postgres = Postgres::open_reader(self)?;
        let lead = postgres.look()?;
        let row = postgres
            .pool
            .with("ask PostgreSQL for its version", |link| {
                link.run(|client| async move { client.query_one("SHOW server_version", &[]).await })
                    .map_err(|failure| failure.refusal("ask PostgreSQL for its version"))
            })?;
        Ok(PostgresStatus {
            version: row.try_get(0).map_err(read::unreadable)?,
            size: lead.size,
            leader: Some(lead.address).filter(|address| !address.is_empty()),
        })
    }
}

impl Postgres {
    /// Connects, checks what the server promises, and makes the tables if `make` says so.
    pub(crate) fn open(dir: &Path, options: &PostgresOptions, make: bool) -> Result<Self, Refusal> {
        let postgres = Self::reach(options, make)?;
        Ok(Self {
            instance: lead::instance(dir)?,
            ..postgres
        })
    }

    /// As [`open`](Self::open), to read only.
    pub(crate) fn open_reader(options: &PostgresOptions) -> Result<Self, Refusal> {
        Self::reach(options, false)
    }

    fn reach(options: &PostgresOptions, make: bool) -> Result<Self, Refusal> {
        let driver = Driver::start(Target::new(options)?)?;
        let pool = Arc::new(Pool::new(Arc::clone(&driver)));
        pool.with("open the ledger", |link| {
            options::check_server(link)?;
            schema::prepare(link, make)
        })?;
        Ok(Self {
            driver,
            pool,
            instance: String::new(),
            address: options.address.clone(),
        })
    }

    pub(crate) const fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Who leads.
    pub(crate) fn look(&self) -> Result<Lead, Refusal> {
        self.pool.with("ask who leads", Lead::look)
    }

    pub(crate) fn may_take(&self, watch: &mut Watch, lead: &Lead) -> bool {
        watch.may_take(lead, &self.instance)
    }

    /// Takes the lead for this instance if the row is still `lead`.
    pub(crate) fn claim(&self, lead: &Lead) -> Result<bool, Refusal> {
        let token = lead::new_token(&self.instance)?;
        self.pool.with("take the lead", |link| {
            Ok(lead.take(link, &token, &self.address)?.is_some())
        })
    }

    /// Takes the lead, waiting until whoever has it has shown no life for a lease.
    ///
    /// # Errors
    /// `another-leads`, and lives; or PostgreSQL can't be reached.
    pub(crate) fn lead(
        &self,
        dir: &Path,
        faults: Faults,
    ) -> Result<(Led, PostgresWriter), Refusal> {
        let link = self
            .driver
            .connect()
            .map_err(|failure| failure.refusal("take the lead"))?;
        let mut watch = Watch::new();
        let until = SystemClock
            .elapsed_ms()
            .saturating_add(LEAD_LEASE_MS.saturating_mul(2));
        let mut first = None;
        loop {
            let seen = Lead::look(&link)?;
            if watch.may_take(&seen, &self.instance) {
                let token = lead::new_token(&self.instance)?;
                let sent = SystemClock.elapsed_ms();
                if let Some(taken) = seen.take(&link, &token, &self.address)? {
                    let standing = Standing::new(&taken, sent);
                    // From here on: a start that reads a long log must not look dead.
                    let keeper = lead::keep(Arc::clone(&standing), Arc::clone(&self.driver))?;
                    let led = Led {
                        postgres: self.clone(),
                        standing,
                        continues: self.continues(dir, &seen),
                        keeper: Some(keeper),
                    };
                    let writer = PostgresWriter::new(
                        Arc::clone(&self.driver),
                        Arc::clone(&led.standing),
                        link,
                        faults,
                    );
                    return Ok((led, writer));
                }
            }
            let first = first.get_or_insert((seen.epoch, seen.beat));
            if *first != (seen.epoch, seen.beat) || SystemClock.elapsed_ms() > until {
                return Err(Refusal::conflict(
                    "another-leads",
                    "another server writes this ledger",
                )
                .expected("one server that leads")
                .received(&format!("the server at {}", seen.address))
                .next(
                    "stop that server, or start this one with `portcullis serve`, as a standby",
                ));
            }
            std::thread::sleep(Duration::from_millis(LEAD_LOOK_MS));
        }
    }

    /// Whether nobody else led since this directory's reserve was written.
    pub(crate) fn continues(&self, dir: &Path, lead: &Lead) -> bool {
        lead.epoch == 0 || lead::reserve_token(dir).as_deref() == Some(&lead.token)
    }

    /// Puts the events of a reserve that does not continue the log where the leader finds them.
    pub(crate) fn hand_over(&self, records: &[Record]) -> Result<(), Refusal> {
        for record in records {
            let digest = Digest::of_parts(&[&record.index.to_be_bytes(), &record.bytes]);
            let bytes = record.bytes.clone();
            self.pool.with("hand over what is in the reserve", |link| {
                link.run(move |client| async move {
                    let digest: &[u8] = digest.as_bytes();
                    client
                        .execute(
                            "INSERT INTO portcullis.handover (digest, bytes) VALUES ($1, $2)
                             ON CONFLICT (digest) DO NOTHING",
                            &[&digest, &bytes],
                        )
                        .await
                })
                .map_err(|failure| failure.refusal("hand over what is in the reserve"))
            })?;
        }
        Ok(())
    }

    /// What other processes handed over, in order.
    pub(crate) fn handed_over(&self) -> Result<Vec<Handover>, Refusal> {
        let most = i64::try_from(HANDOVER_MAX_EVENTS).unwrap_or(i64::MAX);
        let rows = self.pool.with("read what was handed over", |link| {
            link.run(move |client| async move {
                client
                    .query(
                        "SELECT digest, bytes FROM portcullis.handover ORDER BY place LIMIT $1",
                        &[&most],
                    )
                    .await
            })
            .map_err(|failure| failure.refusal("read what was handed over"))
        })?;
        rows.iter()
            .map(|row| {
                Ok(Handover {
                    digest: read::digest(row, 0)?,
                    bytes: row.try_get(1).map_err(read::unreadable)?,
                })
            })
            .collect()
    }

    /// Forgets what was handed over and is recorded.
    pub(crate) fn forget_handover(&self, digest: Digest) -> Result<(), Refusal> {
        self.pool.with("forget what was handed over", |link| {
            link.run(move |client| async move {
                let digest: &[u8] = digest.as_bytes();
                client
                    .execute(
                        "DELETE FROM portcullis.handover WHERE digest = $1",
                        &[&digest],
                    )
                    .await
            })
            .map_err(|failure| failure.refusal("forget what was handed over"))
        })?;
        Ok(())
    }
}

/// The lead, as it was taken.
pub(crate) struct Led {
    postgres: Postgres,
    standing: Arc<Standing>,
    /// Whether nobody else led since this directory's reserve was written.
    pub(crate) continues: bool,
    keeper: Option<std::thread::JoinHandle<()>>,
}

impl Led {
    pub(crate) const fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    pub(crate) const fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// Ends the thread that keeps the lead.
    fn end(&mut self) {
        self.standing.end();
        if let Some(keeper) = self.keeper.take()
            && keeper.join().is_err()
        {
            tracing::error!("the keeper of the lead ended by a panic");
        }
    }
}

impl Drop for Led {
    fn drop(&mut self) {
        self.end();
    }
}
