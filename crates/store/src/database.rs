//! The ledger's tables in SQLite: who may write them, and how a commit gets to the disk.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use portcullis_model::{Digest, LedgerIndex, Refusal, Timestamp};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, TransactionBehavior};

use crate::checkpoint::SignedCheckpoint;
use crate::disk::{diagnosed, sqlite_refusal};
use crate::entry::Entry;
use crate::faults::{Faults, Step};
use crate::limits::{BUSY_TIMEOUT_MS, READERS_MAX_IDLE, WAL_KEEP_BYTES};
use crate::storage::{Commit, LogReader};
use crate::tree::{TILE_LEVELS, Tile, full_tiles};
use crate::wal::Mover;

/// The one connection that writes the ledger.
pub(crate) struct Database {
    connection: Connection,
    mover: Mover,
    faults: Faults,
    dir: PathBuf,
}

/// Marks the file as ours: "PtcL".
const APPLICATION_ID: i64 = 0x5074_634c;
/// Version of these tables. A higher one in the file is refused: downgrades lose data.
const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = "
    CREATE TABLE entries (
        idx INTEGER PRIMARY KEY,
        time_ms INTEGER NOT NULL,
        leaf BLOB NOT NULL,
        bytes BLOB NOT NULL
    ) STRICT;
    CREATE TABLE tiles (
        level INTEGER NOT NULL,
        idx INTEGER NOT NULL,
        root BLOB NOT NULL,
        hashes BLOB NOT NULL,
        PRIMARY KEY (level, idx)
    ) STRICT;
    CREATE TABLE checkpoints (
        size INTEGER PRIMARY KEY,
        root BLOB NOT NULL,
        note TEXT NOT NULL
    ) STRICT;
";

pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("ledger.db")
}

impl Database {
    /// Opens the ledger of `dir` for writing, making its tables if there are none.
    pub(crate) fn open(dir: &Path, faults: Faults) -> Result<Self, Refusal> {
        let connection = open_writer(&path(dir), APPLICATION_ID, SCHEMA_VERSION, SCHEMA)?;
        let mover = Mover::start(path(dir), open_durable)
            .map_err(|error| crate::disk::io_refusal("start to move the log", &error))?;
        connection
            .pragma_update(None, "wal_autocheckpoint", 0)
            .map_err(|error| sqlite_refusal("open the ledger", &error))?;
        Ok(Self {
            connection,
            mover,
            faults,
            dir: dir.to_owned(),
        })
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Writes one batch, all or nothing, and returns when it is on the disk.
    pub(crate) fn commit(&mut self, commit: &Commit<'_>) -> Result<(), Refusal> {
        self.write(commit)
            .map_err(|refusal| diagnosed(&self.dir, refusal))
    }

    fn write(&mut self, commit: &Commit<'_>) -> Result<(), Refusal> {
        let failed = |error: &rusqlite::Error| sqlite_refusal("write the ledger", error);
        let injected = |error: std::io::Error| crate::disk::io_refusal("write the ledger", &error);
        self.mover.before_commit(&self.connection);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| failed(&error))?;
        remove_unacknowledged(&transaction, commit.size)?;
        insert(&transaction, commit).map_err(|error| failed(&error))?;
        self.faults.at(Step::Inserted).map_err(injected)?;
        transaction.commit().map_err(|error| failed(&error))?;
        let bytes = commit.entries.iter().map(|entry| entry.bytes.len());
        self.mover.committed(bytes.sum());
        self.faults.at(Step::Committed).map_err(injected)
    }

    /// Replaces tiles and leaf hashes by what their entries say.
    pub(crate) fn mend(
        &mut self,
        tiles: &[Tile],
        leaves: &[(LedgerIndex, Digest)],
    ) -> Result<(), Refusal> {
        let mut write = || -> rusqlite::Result<()> {
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            for tile in tiles {
                transaction
                    .prepare_cached(
                        "INSERT OR REPLACE INTO tiles (level, idx, root, hashes)
                         VALUES (?1, ?2, ?3, ?4)",
                    )?
                    .execute((
                        tile.level,
                        sql_integer(tile.index)?,
                        tile.root.as_bytes(),
                        &tile.hashes,
                    ))?;
            }
            for (index, leaf) in leaves {
                transaction
                    .prepare_cached("UPDATE entries SET leaf = ?2 WHERE idx = ?1")?
                    .execute((sql_integer(*index)?, leaf.as_bytes()))?;
            }
            transaction.commit()
        };
        write().map_err(|error| sqlite_refusal("mend the tree of the ledger", &error))
    }

    /// Stores a signed checkpoint by itself.
    pub(crate) fn store_checkpoint(&self, checkpoint: &SignedCheckpoint) -> Result<(), Refusal> {
        self.faults
            .at(Step::StoringCheckpoint)
            .map_err(|error| crate::disk::io_refusal("store a checkpoint", &error))?;
        insert_checkpoint(&self.connection, checkpoint)
            .map_err(|error| sqlite_refusal("store a checkpoint", &error))
    }
}

/// Removes what a failed commit left behind. A disk can say "failed" and have the bytes all the
/// same; their callers were told that nothing was granted, no checkpoint was signed over them,
/// and the sequencer has gone on from `size` without them. That no checkpoint covers them is
/// checked here.
fn remove_unacknowledged(connection: &Connection, size: u64) -> Result<(), Refusal> {
    let remove = || -> rusqlite::Result<(usize, i64)> {
        let from = sql_integer(size)?;
        let removed = connection
            .prepare_cached("DELETE FROM entries WHERE idx >= ?1")?
            .execute([from])?;
        if removed == 0 {
            return Ok((0, 0));
        }
        for level in 0..TILE_LEVELS {
            connection
                .prepare_cached("DELETE FROM tiles WHERE level = ?1 AND idx >= ?2")?
                .execute((level, sql_integer(full_tiles(level, size))?))?;
        }
        let covered = connection
            .prepare_cached("SELECT count(*) FROM checkpoints WHERE size > ?1")?
            .query_row([from], |row| row.get(0))?;
        Ok((removed, covered))
    };
    let (removed, covered) =
        remove().map_err(|error| sqlite_refusal("write the ledger", &error))?;
    if covered > 0 {
        return Err(Refusal::internal(format!(
            "a checkpoint is stored over entries from {size} on, which the sequencer does not know"
        )));
    }
    if removed > 0 {
        tracing::warn!(
            entries = removed,
            from.index = size,
            "removed entries of a commit that had failed"
        );
    }
    Ok(())
}

fn insert(connection: &Connection, commit: &Commit<'_>) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO entries (idx, time_ms, leaf, bytes) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for entry in commit.entries {
        statement.execute((
            sql_integer(entry.index)?,
            sql_integer(entry.time.as_ms())?,
            entry.leaf.as_bytes(),
            &entry.bytes,
        ))?;
    }
    let mut statement = connection
        .prepare_cached("INSERT INTO tiles (level, idx, root, hashes) VALUES (?1, ?2, ?3, ?4)")?;
    for tile in commit.tiles {
        statement.execute((
            tile.level,
            sql_integer(tile.index)?,
            tile.root.as_bytes(),
            &tile.hashes,
        ))?;
    }
    if let Some(checkpoint) = commit.checkpoint {
        insert_checkpoint(connection, checkpoint)?;
    }
    Ok(())
}

fn insert_checkpoint(
    connection: &Connection,
    checkpoint: &SignedCheckpoint,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO checkpoints (size, root, note) VALUES (?1, ?2, ?3)",
        )?
        .execute((
            sql_integer(checkpoint.size)?,
            checkpoint.root.as_bytes(),
            &checkpoint.note,
        ))?;
    Ok(())
}

impl LogReader for Connection {
    fn size(&self) -> Result<u64, Refusal> {
        self.prepare_cached("SELECT coalesce(max(idx) + 1, 0) FROM entries")
            .and_then(|mut query| query.query_row((), |row| unsigned(row, 0)))
            .map_err(|error| sqlite_refusal("read the ledger", &error))
    }

    fn each_entry(
        &self,
        from: LedgerIndex,
        below: LedgerIndex,
        take: &mut dyn FnMut(Entry) -> Result<bool, Refusal>,
    ) -> Result<(), Refusal> {
        let failed = |error: rusqlite::Error| sqlite_refusal("read the ledger", &error);
        let mut query = self
            .prepare_cached(
                "SELECT idx, time_ms, leaf, bytes FROM entries WHERE idx >= ?1 AND idx < ?2
                 ORDER BY idx",
            )
            .map_err(failed)?;
        let range = sql_integer(from).and_then(|from| Ok((from, sql_integer(below)?)));
        let mut rows = query.query(range.map_err(failed)?).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            if !take(entry_from_sql(row).map_err(failed)?)? {
                break;
            }
        }
        Ok(())
    }

    fn leaves(&self, from: LedgerIndex, below: LedgerIndex) -> Result<Vec<Digest>, Refusal> {
        let read = || -> rusqlite::Result<Vec<Digest>> {
            self.prepare_cached(
                "SELECT leaf FROM entries WHERE idx >= ?1 AND idx < ?2 ORDER BY idx",
            )?
            .query_map((sql_integer(from)?, sql_integer(below)?), |row| {
                digest_from_sql(row, 0)
            })?
            .collect()
        };
        read().map_err(|error| sqlite_refusal("read hashes of the ledger", &error))
    }

    fn tile_roots(&self, level: u8, from: u64, below: u64) -> Result<Vec<Digest>, Refusal> {
        let read = || -> rusqlite::Result<Vec<Digest>> {
            self.prepare_cached(
                "SELECT root FROM tiles WHERE level = ?1 AND idx >= ?2 AND idx < ?3 ORDER BY idx",
            )?
            .query_map((level, sql_integer(from)?, sql_integer(below)?), |row| {
                digest_from_sql(row, 0)
            })?
            .collect()
        };
        read().map_err(|error| sqlite_refusal("read hashes of the ledger", &error))
    }

    fn tile(&self, level: u8, index: u64) -> Result<Option<Tile>, Refusal> {
        self.prepare_cached("SELECT root, hashes FROM tiles WHERE level = ?1 AND idx = ?2")
            .and_then(|mut query| {
                query
                    .query_row((level, sql_integer(index)?), |row| {
                        Ok(Tile {
                            level,
                            index,
                            root: digest_from_sql(row, 0)?,
                            hashes: row.get(1)?,
                        })
                    })
                    .optional()
            })
            .map_err(|error| sqlite_refusal("read a tile of the ledger", &error))
    }

    fn checkpoint(&self, size: u64) -> Result<Option<SignedCheckpoint>, Refusal> {
        self.prepare_cached("SELECT size, root, note FROM checkpoints WHERE size = ?1")
            .and_then(|mut query| {
                query
                    .query_row([sql_integer(size)?], checkpoint_from_sql)
                    .optional()
            })
            .map_err(|error| sqlite_refusal("read the checkpoints", &error))
    }

    fn last_checkpoint(&self) -> Result<Option<SignedCheckpoint>, Refusal> {
        self.prepare("SELECT size, root, note FROM checkpoints ORDER BY size DESC LIMIT 1")
            .and_then(|mut query| query.query_row((), checkpoint_from_sql).optional())
            .map_err(|error| sqlite_refusal("read the checkpoints", &error))
    }
}

/// Connections that read, beside the one that writes.
pub(crate) struct SqliteReaders {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl SqliteReaders {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            path: path(dir),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Calls `read` with a connection.
    pub(crate) fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open_reader(&self.path)?,
        };
        let answer = read(&connection);
        let mut idle = self.idle();
        if idle.len() < READERS_MAX_IDLE {
            idle.push(connection);
        }
        answer
    }

    /// Calls `read` with a connection, in one transaction: an edge becomes a tile meanwhile.
    pub(crate) fn at_one_moment<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.with(|connection| {
            let moment = connection
                .unchecked_transaction()
                .map_err(|error| sqlite_refusal("read the ledger", &error))?;
            read(&moment)
        })
    }

    /// Writes a compact copy to the data directory `to`.
    pub(crate) fn copy_to(&self, to: &Path) -> Result<(), Refusal> {
        let target = path(to);
        self.with(|connection| {
            connection
                .execute("VACUUM INTO ?1", [target.to_string_lossy()])
                .map_err(|error| sqlite_refusal("copy the ledger", &error))
        })?;
        Ok(())
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens `path` for reading alone.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, Refusal> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
        .and_then(|connection| {
            connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))?;
            connection.pragma_update(None, "trusted_schema", false)?;
            Ok(connection)
        })
        .map_err(|error| sqlite_refusal(&format!("open {}", path.display()), &error))
}

/// Opens `path` for writing, so that a commit is on the disk when it returns; makes the tables of
/// `schema` if there are none.
pub(crate) fn open_writer(
    path: &Path,
    application_id: i64,
    schema_version: i64,
    schema: &str,
) -> Result<Connection, Refusal> {
    let failed =
        |error: rusqlite::Error| sqlite_refusal(&format!("open {}", path.display()), &error);
    let mut connection = open_durable(path).map_err(failed)?;
    let (id, version) = file_marks(&connection).map_err(failed)?;
    if (id, version) == (application_id, schema_version) {
        return Ok(connection);
    }
    if id == application_id {
        return Err(Refusal::conflict(
            "store-version",
            format!("{} was written by another version", path.display()),
        )
        .expected(&format!("tables of version {schema_version}"))
        .received(&format!("version {version}"))
        .next("use the version of portcullis that wrote it, or a later one"));
    }
    create_tables(&mut connection, application_id, schema_version, schema).map_err(|error| {
        Refusal::conflict(
            "store-foreign",
            format!("{} is not a database of ours", path.display()),
        )
        .received(&error.to_string())
        .next("use another data directory")
    })?;
    Ok(connection)
}

fn create_tables(
    connection: &mut Connection,
    application_id: i64,
    schema_version: i64,
    schema: &str,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(schema)?;
    transaction.pragma_update(None, "application_id", application_id)?;
    transaction.pragma_update(None, "user_version", schema_version)?;
    transaction.commit()
}

fn open_durable(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL syncs the write-ahead log at each commit; the two others mean the disk's own cache, on
    // systems where a plain sync does not reach below it (macOS).
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.pragma_update(None, "journal_size_limit", WAL_KEEP_BYTES)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "secure_delete", true)?;
    Ok(connection)
}

fn file_marks(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    Ok((
        connection.pragma_query_value(None, "application_id", |row| row.get(0))?,
        connection.pragma_query_value(None, "user_version", |row| row.get(0))?,
    ))
}

/// SQLite's integers have a sign.
pub(crate) fn sql_integer(value: u64) -> rusqlite::Result<i64> {
    i64::try_from(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

pub(crate) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

pub(crate) fn digest_from_sql(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    Ok(Digest::from_bytes(row.get(column)?))
}

fn entry_from_sql(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        index: unsigned(row, 0)?,
        time: Timestamp::from_ms(unsigned(row, 1)?),
        leaf: digest_from_sql(row, 2)?,
        bytes: row.get(3)?,
    })
}

fn checkpoint_from_sql(row: &Row<'_>) -> rusqlite::Result<SignedCheckpoint> {
    Ok(SignedCheckpoint {
        size: unsigned(row, 0)?,
        root: digest_from_sql(row, 1)?,
        note: row.get(2)?,
    })
}
