//! Writing the log in PostgreSQL: one statement is one batch, and says under which epoch.
//!
//! 1. *One statement* raises the size in the row of `portcullis.log`, if epoch and size are those
//!    that the writer knows, and takes entries, tiles and the checkpoint of the batch before. It is
//!    a transaction by itself, one round trip and one flush of PostgreSQL's log. A restart finds
//!    all of it or nothing.
//! 2. *The answer comes.* No row changed: another one leads; nothing was written, and nothing ever
//!    will be under this epoch. A refusal of the server: nothing was written.
//! 3. *No answer comes:* the connection broke, or took too long. Whether the batch is there nobody
//!    knows yet, and nobody is told anything. A new connection raises the epoch, in one transaction
//!    with a look at the size: the row's lock waits for the old statement if it still runs, and the
//!    new epoch keeps it from running later. Then the batch is there, entry for entry, and the
//!    commit succeeded; or it is not and never will be, and the commit failed.
//! 4. *PostgreSQL stays away:* the commit failed, for the callers. The batch may be there all the
//!    same. The first thing the writer does when PostgreSQL is back is step 3 with what it knows,
//!    which removes what nobody was told of, unless a checkpoint covers it. A standby that takes
//!    over instead keeps it, as entries that no effect follows.

use std::path::Path;
use std::sync::Arc;

use portcullis_model::{Digest, LedgerIndex, Refusal};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};

use super::lead::{Lead, Standing, give_back, set_reserve_token, signed};
use super::link::{Driver, Failure, Link};
use super::read::sql_integer;
use crate::checkpoint::SignedCheckpoint;
use crate::clock::{Clock, SystemClock};
use crate::disk::io_refusal;
use crate::faults::{Faults, Step};
use crate::limits::{POSTGRES_RETRY_MS, POSTGRES_SETTLE_MS};
use crate::storage::Commit;
use crate::tree::{TILE_LEVELS, Tile, full_tiles};

/// The connection that writes the log, of a process that leads.
pub(crate) struct PostgresWriter {
    driver: Arc<Driver>,
    standing: Arc<Standing>,
    link: Link,
    statement: Option<Statement>,
    /// A commit failed that may be there all the same.
    unsettled: bool,
    faults: Faults,
}

const COMMIT: &str = "
    WITH fence AS (
        UPDATE portcullis.log SET size = $3, beat = beat + 1
        WHERE epoch = $1 AND size = $2 RETURNING 1
    ), e AS (
        INSERT INTO portcullis.entries (idx, time_ms, leaf, bytes)
        SELECT $2 + u.n - 1, u.time_ms, u.leaf, u.bytes
        FROM fence, unnest($4::bigint[], $5::bytea[], $6::bytea[])
            WITH ORDINALITY AS u(time_ms, leaf, bytes, n)
    ), t AS (
        INSERT INTO portcullis.tiles (level, idx, root, hashes)
        SELECT u.level, u.idx, u.root, u.hashes
        FROM fence, unnest($7::smallint[], $8::bigint[], $9::bytea[], $10::bytea[])
            AS u(level, idx, root, hashes)
    ), c AS (
        INSERT INTO portcullis.checkpoints (size, root, note)
        SELECT u.size, u.root, u.note
        FROM fence, unnest($11::bigint[], $12::bytea[], $13::text[]) AS u(size, root, note)
        ON CONFLICT (size) DO UPDATE SET root = excluded.root, note = excluded.note
    )
    SELECT count(*) FROM fence";

/// What became of a batch whose answer was lost.
enum Found {
    There,
    NotThere,
}

impl PostgresWriter {
    pub(crate) const fn new(
        driver: Arc<Driver>,
        standing: Arc<Standing>,
        link: Link,
        faults: Faults,
    ) -> Self {
        Self {
            driver,
            standing,
            link,
            statement: None,
            unsettled: false,
            faults,
        }
    }

    pub(crate) const fn link(&self) -> &Link {
        &self.link
    }

    /// What is in the reserve of `dir` continues the log from `base` on, under this lead; beyond it
    /// nothing of the `stored` entries counts.
    pub(crate) fn begin(&mut self, base: u64, stored: u64, dir: &Path) -> Result<(), Refusal> {
        self.unsettled = base != stored;
        set_reserve_token(dir, self.standing.token())
    }

    /// See the top of this file.
    pub(crate) fn commit(&mut self, commit: &Commit<'_>) -> Result<(), Refusal> {
        let injected = |error: std::io::Error| io_refusal("write the ledger", &error);
        self.prepare(commit.size)?;
        self.faults.at(Step::Inserted).map_err(injected)?;
        let sent = SystemClock.elapsed_ms();
        match self.write(commit) {
            Ok(true) => self.standing.confirm(sent),
            Ok(false) => return Err(self.superseded(commit.size)),
            Err(failure @ Failure::Refused(_)) => return Err(failure.refusal("write the ledger")),
            Err(failure @ Failure::Broken(_)) => {
                tracing::warn!("the answer to a commit was lost; it is looked for");
                self.unsettled = true;
                let failed = failure.refusal("write the ledger");
                match self.settle(commit.size, Some(commit)) {
                    Ok(Found::There) => {}
                    Ok(Found::NotThere) => return Err(failed),
                    Err(_) if !self.standing.is_lost() => return Err(failed),
                    Err(refusal) => return Err(refusal),
                }
            }
        }
        if let Err(error) = self.faults.at(Step::Committed) {
            self.unsettled = true;
            return Err(injected(error));
        }
        Ok(())
    }

    /// Stores a signed checkpoint by itself.
    pub(crate) fn store_checkpoint(
        &mut self,
        checkpoint: &SignedCheckpoint,
    ) -> Result<(), Refusal> {
        self.faults
            .at(Step::StoringCheckpoint)
            .map_err(|error| io_refusal("store a checkpoint", &error))?;
        if self.unsettled || self.link.is_broken() {
            // The next commit has it, or a newer one.
            return Err(Failure::Broken("the connection is closed".to_owned())
                .refusal("store a checkpoint"));
        }
        let (epoch, size) = (signed(self.standing.epoch()), sql_integer(checkpoint.size)?);
        let (root, note) = (*checkpoint.root.as_bytes(), checkpoint.note.clone());
        let sent = SystemClock.elapsed_ms();
        let stored = self
            .link
            .run(move |client| async move {
                let root: &[u8] = &root;
                client
                    .query_typed(
                        "WITH fence AS (
                            UPDATE portcullis.log SET beat = beat + 1
                            WHERE epoch = $1 AND size >= $2 RETURNING 1
                        )
                        INSERT INTO portcullis.checkpoints (size, root, note)
                        SELECT $2, $3, $4 FROM fence
                        ON CONFLICT (size) DO UPDATE
                            SET root = excluded.root, note = excluded.note
                        RETURNING 1",
                        &[
                            (&epoch, Type::INT8),
                            (&size, Type::INT8),
                            (&root, Type::BYTEA),
                            (&note, Type::TEXT),
                        ],
                    )
                    .await
            })
            .map_err(|failure| failure.refusal("store a checkpoint"))?;
        if stored.is_empty() {
            return Err(self.superseded(checkpoint.size));
        }
        self.standing.confirm(sent);
        Ok(())
    }

    /// Replaces tiles and leaf hashes by what their entries say, as the one who leads.
    pub(crate) fn mend(
        &mut self,
        tiles: &[Tile],
        leaves: &[(LedgerIndex, Digest)],
    ) -> Result<(), Refusal> {
        let epoch = signed(self.standing.epoch());
        let levels: Vec<i16> = tiles.iter().map(|tile| i16::from(tile.level)).collect();
        let places: Vec<i64> = tiles
            .iter()
            .map(|tile| sql_integer(tile.index))
            .collect::<Result<_, _>>()?;
        let roots: Vec<Vec<u8>> = tiles
            .iter()
            .map(|tile| tile.root.as_bytes().to_vec())
            .collect();
        let hashes: Vec<Vec<u8>> = tiles.iter().map(|tile| tile.hashes.clone()).collect();
        let indexes: Vec<i64> = leaves
            .iter()
            .map(|(index, _)| sql_integer(*index))
            .collect::<Result<_, _>>()?;
        let digests: Vec<Vec<u8>> = leaves
            .iter()
            .map(|(_, leaf)| leaf.as_bytes().to_vec())
            .collect();
        let sent = SystemClock.elapsed_ms();
        let row = self
            .link
            .run(move |client| async move {
                client
                    .query_one(
                        "WITH fence AS (
                            UPDATE portcullis.log SET beat = beat + 1 WHERE epoch = $1 RETURNING 1
                        ), t AS (
                            INSERT INTO portcullis.tiles (level, idx, root, hashes)
                            SELECT u.level, u.idx, u.root, u.hashes
                            FROM fence, unnest($2::smallint[], $3::bigint[], $4::bytea[], $5::bytea[])
                                AS u(level, idx, root, hashes)
                            ON CONFLICT (level, idx) DO UPDATE
                                SET root = excluded.root, hashes = excluded.hashes
                        ), l AS (
                            UPDATE portcullis.entries AS e SET leaf = u.leaf
                            FROM fence, unnest($6::bigint[], $7::bytea[]) AS u(idx, leaf)
                            WHERE e.idx = u.idx
                        )
                        SELECT count(*) FROM fence",
                        &[&epoch, &levels, &places, &roots, &hashes, &indexes, &digests],
                    )
                    .await
            })
            .map_err(|failure| failure.refusal("mend the tree of the ledger"))?;
        if row.get::<_, i64>(0) == 0 {
            return Err(self.standing.refusal());
        }
        self.standing.confirm(sent);
        Ok(())
    }

    /// Makes sure that this process leads at this moment, where it may have been stopped.
    pub(crate) fn confirm(&self) -> Result<(), Refusal> {
        if self.standing.is_lost() {
            return Err(self.standing.refusal());
        }
        if self.standing.is_fresh() {
            return Ok(());
        }
        self.standing.beat(&self.link)?;
        if self.standing.is_fresh() {
            Ok(())
        } else {
            Err(self.standing.refusal())
        }
    }

    /// Gives the lead back.
    pub(crate) fn give_back(&self) {
        if !self.standing.is_lost() && !self.unsettled {
            give_back(&self.link, &self.standing);
        }
    }

    /// A connection that works, and nothing of a failed commit left in the database.
    fn prepare(&mut self, size: u64) -> Result<(), Refusal> {
        if self.standing.is_lost() {
            return Err(self.standing.refusal());
        }
        if self.unsettled || self.link.is_broken() {
            self.try_settle(size, None)?;
        }
        Ok(())
    }

    /// Step 1. `false` if the row is not as this writer knows it.
    fn write(&mut self, commit: &Commit<'_>) -> Result<bool, Failure> {
        let statement = match &self.statement {
            Some(statement) => statement.clone(),
            None => {
                let prepared = self
                    .link
                    .run(|client| async move { client.prepare(COMMIT).await })?;
                self.statement.insert(prepared).clone()
            }
        };
        let batch = Batch::new(commit, self.standing.epoch());
        self.link
            .run(move |client| async move { batch.write(&client, &statement).await })
    }

    /// Why no row was changed.
    fn superseded(&mut self, size: u64) -> Refusal {
        match Lead::look(&self.link) {
            Ok(lead) if lead.token != self.standing.token() => {
                self.standing.lose(Some(lead.address));
                self.standing.refusal()
            }
            Ok(lead) => {
                // Nobody else writes under this token.
                self.unsettled = true;
                Refusal::internal("the log in PostgreSQL has not the size that was written")
                    .expected(&format!("{size} entries"))
                    .received(&format!("{} entries", lead.size))
            }
            Err(refusal) => refusal,
        }
    }

    /// Step 3, as often as there is time for.
    fn settle(&mut self, size: u64, batch: Option<&Commit<'_>>) -> Result<Found, Refusal> {
        let until = SystemClock.elapsed_ms().saturating_add(POSTGRES_SETTLE_MS);
        loop {
            match self.try_settle(size, batch) {
                Ok(found) => return Ok(found),
                Err(refusal) if self.standing.is_lost() => return Err(refusal),
                Err(refusal) if SystemClock.elapsed_ms() >= until => return Err(refusal),
                Err(_) => {
                    std::thread::sleep(std::time::Duration::from_millis(POSTGRES_RETRY_MS));
                }
            }
        }
    }

    /// Step 3: a new epoch, and what is there under it.
    fn try_settle(&mut self, size: u64, batch: Option<&Commit<'_>>) -> Result<Found, Refusal> {
        let failed = |failure: Failure| failure.refusal("look what became of a commit");
        if self.link.is_broken() {
            self.link = self.driver.connect().map_err(failed)?;
            self.statement = None;
        }
        let plan = Settle {
            token: self.standing.token().to_owned(),
            size: sql_integer(size)?,
            batch: batch
                .and_then(|batch| {
                    let last = batch.entries.last()?;
                    Some((last.index, last.leaf))
                })
                .map(|(index, leaf)| Ok::<_, Refusal>((sql_integer(index)?, leaf)))
                .transpose()?,
        };
        let sent = SystemClock.elapsed_ms();
        let settled = self
            .link
            .run(move |client| async move { plan.perform(&client).await })
            .map_err(failed)?;
        match settled {
            Settled::As { epoch, there } => {
                self.standing.set_epoch(u64::try_from(epoch).unwrap_or(0));
                self.standing.confirm(sent);
                self.unsettled = false;
                Ok(if there { Found::There } else { Found::NotThere })
            }
            Settled::Superseded { address } => {
                self.standing.lose(Some(address));
                Err(self.standing.refusal())
            }
            Settled::Shorter { size: found } => {
                self.standing.lose(None);
                Err(Refusal::conflict(
                    "ledger-truncated",
                    "PostgreSQL has lost entries that were durable",
                )
                .expected(&format!("at least {size} entries"))
                .received(&format!("{found} entries"))
                .next("a replica was made primary that had not everything, or a backup was restored; bring back the one that has"))
            }
            Settled::Covered => Err(Refusal::internal(format!(
                "a checkpoint is stored over entries from {size} on, which the sequencer does not know"
            ))),
        }
    }
}

/// What to settle: the size that is known, and the batch whose answer was lost.
struct Settle {
    token: String,
    size: i64,
    /// Index and leaf hash of the batch's last entry.
    batch: Option<(i64, Digest)>,
}

enum Settled {
    As { epoch: i64, there: bool },
    Superseded { address: String },
    Shorter { size: i64 },
    Covered,
}

impl Settle {
    async fn perform(self, client: &Client) -> Result<Settled, tokio_postgres::Error> {
        client.batch_execute("BEGIN").await?;
        let settled = self.inside(client).await;
        let keep = matches!(settled, Ok(Settled::As { .. }));
        client
            .batch_execute(if keep { "COMMIT" } else { "ROLLBACK" })
            .await?;
        settled
    }

    async fn inside(&self, client: &Client) -> Result<Settled, tokio_postgres::Error> {
        let row = client
            .query_opt(
                "UPDATE portcullis.log SET epoch = epoch + 1, beat = beat + 1
                 WHERE token = $1 RETURNING epoch, size",
                &[&self.token],
            )
            .await?;
        let Some(row) = row else {
            let row = client
                .query_one("SELECT address FROM portcullis.log", &[])
                .await?;
            return Ok(Settled::Superseded {
                address: row.try_get(0)?,
            });
        };
        let (epoch, found): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        if found < self.size {
            return Ok(Settled::Shorter { size: found });
        }
        if found == self.size {
            return Ok(Settled::As {
                epoch,
                there: false,
            });
        }
        if let Some((index, leaf)) = &self.batch
            && found == index.saturating_add(1)
        {
            let row = client
                .query_opt(
                    "SELECT leaf FROM portcullis.entries WHERE idx = $1",
                    &[index],
                )
                .await?;
            let stored: Option<Vec<u8>> = row.map(|row| row.try_get(0)).transpose()?;
            if stored.as_deref() == Some(leaf.as_bytes().as_slice()) {
                return Ok(Settled::As { epoch, there: true });
            }
        }
        self.remove(client, epoch, found).await
    }

    /// Removes what nobody was told of.
    async fn remove(
        &self,
        client: &Client,
        epoch: i64,
        found: i64,
    ) -> Result<Settled, tokio_postgres::Error> {
        let covered = client
            .query_one(
                "SELECT count(*) FROM portcullis.checkpoints WHERE size > $1",
                &[&self.size],
            )
            .await?;
        if covered.try_get::<_, i64>(0)? > 0 {
            return Ok(Settled::Covered);
        }
        client
            .execute(
                "DELETE FROM portcullis.entries WHERE idx >= $1",
                &[&self.size],
            )
            .await?;
        for level in 0..TILE_LEVELS {
            let full = full_tiles(level, u64::try_from(self.size).unwrap_or(0));
            client
                .execute(
                    "DELETE FROM portcullis.tiles WHERE level = $1 AND idx >= $2",
                    &[&i16::from(level), &signed(full)],
                )
                .await?;
        }
        client
            .execute("UPDATE portcullis.log SET size = $1", &[&self.size])
            .await?;
        tracing::warn!(
            entries = found.saturating_sub(self.size),
            from.index = self.size,
            "removed entries of a commit that had failed"
        );
        Ok(Settled::As {
            epoch,
            there: false,
        })
    }
}

/// A batch as the statement takes it: columns.
struct Batch {
    epoch: i64,
    size: i64,
    end: i64,
    times: Vec<i64>,
    leaves: Vec<Vec<u8>>,
    bytes: Vec<Vec<u8>>,
    tile_levels: Vec<i16>,
    tile_places: Vec<i64>,
    tile_roots: Vec<Vec<u8>>,
    tile_hashes: Vec<Vec<u8>>,
    checkpoint_sizes: Vec<i64>,
    checkpoint_roots: Vec<Vec<u8>>,
    checkpoint_notes: Vec<String>,
}

impl Batch {
    fn new(commit: &Commit<'_>, epoch: u64) -> Self {
        let entries = commit.entries;
        let tiles = commit.tiles;
        let checkpoint = commit.checkpoint;
        Self {
            epoch: signed(epoch),
            size: signed(commit.size),
            end: signed(commit.size.saturating_add(entries.len() as u64)),
            times: entries
                .iter()
                .map(|entry| signed(entry.time.as_ms()))
                .collect(),
            leaves: entries
                .iter()
                .map(|entry| entry.leaf.as_bytes().to_vec())
                .collect(),
            bytes: entries.iter().map(|entry| entry.bytes.clone()).collect(),
            tile_levels: tiles.iter().map(|tile| i16::from(tile.level)).collect(),
            tile_places: tiles.iter().map(|tile| signed(tile.index)).collect(),
            tile_roots: tiles
                .iter()
                .map(|tile| tile.root.as_bytes().to_vec())
                .collect(),
            tile_hashes: tiles.iter().map(|tile| tile.hashes.clone()).collect(),
            checkpoint_sizes: checkpoint
                .iter()
                .map(|signed_one| signed(signed_one.size))
                .collect(),
            checkpoint_roots: checkpoint
                .iter()
                .map(|one| one.root.as_bytes().to_vec())
                .collect(),
            checkpoint_notes: checkpoint.iter().map(|one| one.note.clone()).collect(),
        }
    }

    async fn write(
        &self,
        client: &Client,
        statement: &Statement,
    ) -> Result<bool, tokio_postgres::Error> {
        let row = client
            .query_one(
                statement,
                &[
                    &self.epoch,
                    &self.size,
                    &self.end,
                    &self.times,
                    &self.leaves,
                    &self.bytes,
                    &self.tile_levels,
                    &self.tile_places,
                    &self.tile_roots,
                    &self.tile_hashes,
                    &self.checkpoint_sizes,
                    &self.checkpoint_roots,
                    &self.checkpoint_notes,
                ],
            )
            .await?;
        Ok(row.try_get::<_, i64>(0)? == 1)
    }
}
