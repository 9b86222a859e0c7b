//! The boundary behind which a database keeps the log: everything else of this crate knows these
//! types and no database.
//!
//! A database gives three things:
//! - one [`Writer`], which makes a batch durable all or nothing, and stores a checkpoint by itself;
//! - [`Readers`], which hand out connections for reading, beside the writer;
//! - what both read with: a [`LogReader`].
//!
//! Not behind it, since these belong to a process and not to the log: the lock on the data
//! directory, the reserve and the clock's guard.

use std::path::Path;
use std::sync::Arc;

use portcullis_model::{Digest, LedgerIndex, Refusal};

use crate::checkpoint::SignedCheckpoint;
use crate::database::{Database, SqliteReaders};
use crate::entry::Entry;
use crate::faults::Faults;
use crate::limits::{READ_MAX_BYTES, READ_MAX_ENTRIES};
use crate::postgres::{Led, Pool, Postgres, PostgresOptions, PostgresWriter};
use crate::private::PrivateStore;
use crate::tree::{Tile, Tree};

/// The database that keeps a log.
#[derive(Clone, Debug, Default)]
pub enum StoreOptions {
    /// SQLite, embedded, in the data directory.
    #[default]
    Sqlite,
    /// PostgreSQL, for a team: one server writes, others stand by.
    Postgres(PostgresOptions),
}

/// A store that this process writes.
pub(crate) struct Opened {
    pub(crate) writer: Writer,
    pub(crate) readers: Readers,
    pub(crate) private: Arc<PrivateStore>,
    /// With PostgreSQL, the lead that was taken.
    pub(crate) lead: Option<Arc<Led>>,
}

/// Opens the store of `dir` for writing, making its tables if there are none; with PostgreSQL,
/// takes the lead.
pub(crate) fn open(dir: &Path, store: &StoreOptions, faults: Faults) -> Result<Opened, Refusal> {
    match store {
        StoreOptions::Sqlite => Ok(Opened {
            writer: Writer::Sqlite(Database::open(dir, faults)?),
            readers: Readers::Sqlite(SqliteReaders::new(dir)),
            private: Arc::new(PrivateStore::open(dir)?),
            lead: None,
        }),
        StoreOptions::Postgres(options) => {
            let postgres = Postgres::open(dir, options, true)?;
            let pool = Arc::clone(postgres.pool());
            let (lead, writer) = postgres.lead(dir, faults)?;
            Ok(Opened {
                writer: Writer::Postgres(writer),
                readers: Readers::Postgres(Arc::clone(&pool)),
                private: Arc::new(PrivateStore::in_postgres(pool)),
                lead: Some(Arc::new(lead)),
            })
        }
    }
}

/// What one commit writes.
pub(crate) struct Commit<'a> {
    /// Size of the ledger before it.
    pub(crate) size: u64,
    /// The entries from `size` on, without a gap.
    pub(crate) entries: &'a [Entry],
    /// The tiles that they filled.
    pub(crate) tiles: &'a [Tile],
    /// The checkpoint of an earlier commit, if it isn't stored yet.
    pub(crate) checkpoint: Option<&'a SignedCheckpoint>,
}

/// Reads the log through one connection.
pub(crate) trait LogReader {
    /// Number of entries that the database holds.
    fn size(&self) -> Result<u64, Refusal>;

    /// Calls `take` with each entry from `from` and below `below`, in order, until it answers
    /// `false`.
    fn each_entry(
        &self,
        from: LedgerIndex,
        below: LedgerIndex,
        take: &mut dyn FnMut(Entry) -> Result<bool, Refusal>,
    ) -> Result<(), Refusal>;

    /// The leaf hashes from `from` and below `below`, in order.
    fn leaves(&self, from: LedgerIndex, below: LedgerIndex) -> Result<Vec<Digest>, Refusal>;

    /// The roots of the full tiles of `level` from `from` and below `below`, in order.
    fn tile_roots(&self, level: u8, from: u64, below: u64) -> Result<Vec<Digest>, Refusal>;

    /// A full tile.
    fn tile(&self, level: u8, index: u64) -> Result<Option<Tile>, Refusal>;

    /// The stored checkpoint over exactly `size` entries.
    fn checkpoint(&self, size: u64) -> Result<Option<SignedCheckpoint>, Refusal>;

    /// The newest stored checkpoint.
    fn last_checkpoint(&self) -> Result<Option<SignedCheckpoint>, Refusal>;

    /// The entries from `from` and below `below`, at most `limit` of them and about
    /// [`READ_MAX_BYTES`].
    fn entries(
        &self,
        from: LedgerIndex,
        below: LedgerIndex,
        limit: usize,
    ) -> Result<Vec<Entry>, Refusal> {
        let limit = limit.min(READ_MAX_ENTRIES);
        let mut bytes = 0;
        let mut found = Vec::new();
        self.each_entry(from, below, &mut |entry| {
            bytes += entry.bytes.len();
            found.push(entry);
            Ok(found.len() < limit && bytes < READ_MAX_BYTES)
        })?;
        Ok(found)
    }
}

/// The one connection that writes the log.
pub(crate) enum Writer {
    /// SQLite in the data directory.
    Sqlite(Database),
    /// PostgreSQL, of a process that leads.
    Postgres(PostgresWriter),
}

impl Writer {
    /// Reads through the writer's connection: what it has committed, and nothing of another.
    pub(crate) fn reader(&self) -> &dyn LogReader {
        match self {
            Self::Sqlite(database) => database.connection(),
            Self::Postgres(writer) => writer.link(),
        }
    }

    /// Writes one batch, all or nothing, and returns when it is durable. What an earlier call left
    /// behind that had failed is removed. After an error the batch may be there or not; the next
    /// call, with the same size, sets that right.
    pub(crate) fn commit(&mut self, commit: &Commit<'_>) -> Result<(), Refusal> {
        match self {
            Self::Sqlite(database) => database.commit(commit),
            Self::Postgres(writer) => writer.commit(commit),
        }
    }

    /// Stores a signed checkpoint by itself.
    pub(crate) fn store_checkpoint(
        &mut self,
        checkpoint: &SignedCheckpoint,
    ) -> Result<(), Refusal> {
        match self {
            Self::Sqlite(database) => database.store_checkpoint(checkpoint),
            Self::Postgres(writer) => writer.store_checkpoint(checkpoint),
        }
    }

    /// Replaces tiles and leaf hashes by what their entries say, all or nothing.
    pub(crate) fn mend(
        &mut self,
        tiles: &[Tile],
        leaves: &[(LedgerIndex, Digest)],
    ) -> Result<(), Refusal> {
        match self {
            Self::Sqlite(database) => database.mend(tiles, leaves),
            Self::Postgres(writer) => writer.mend(tiles, leaves),
        }
    }

    /// The log has `stored` entries, of which the first `base` count; the reserve of `dir` has
    /// what follows.
    pub(crate) fn begin(&mut self, base: u64, stored: u64, dir: &Path) -> Result<(), Refusal> {
        match self {
            // The first commit removes what doesn't count.
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(writer) => writer.begin(base, stored, dir),
        }
    }

    /// Makes sure that this process is the one that writes, where that can change: before it signs,
    /// and before it says that something was granted.
    pub(crate) fn confirm(&self) -> Result<(), Refusal> {
        match self {
            // The lock on the data directory is held until the process ends.
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(writer) => writer.confirm(),
        }
    }

    /// Nothing more will be written: another process may.
    pub(crate) fn give_back(&self) {
        match self {
            Self::Sqlite(_) => {}
            Self::Postgres(writer) => writer.give_back(),
        }
    }
}

/// Connections that read, beside the one that writes.
pub(crate) enum Readers {
    /// SQLite in the data directory.
    Sqlite(SqliteReaders),
    /// PostgreSQL.
    Postgres(Arc<Pool>),
}

impl Readers {
    /// Calls `read` with a connection. Each of its reads sees what is committed by then.
    pub(crate) fn with<T>(
        &self,
        read: impl FnOnce(&dyn LogReader) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        match self {
            Self::Sqlite(readers) => readers.with(|connection| read(connection)),
            Self::Postgres(pool) => pool.read(read),
        }
    }

    /// Calls `read` with a connection whose reads are all of one moment.
    pub(crate) fn at_one_moment<T>(
        &self,
        read: impl FnOnce(&dyn LogReader) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        match self {
            Self::Sqlite(readers) => readers.at_one_moment(|connection| read(connection)),
            Self::Postgres(pool) => pool.read_one_moment(read),
        }
    }

    /// Writes a copy of the log of one moment to a new data directory, as SQLite keeps it.
    /// With PostgreSQL: the first `size` entries, and `newest` if it is signed.
    pub(crate) fn copy_to(
        &self,
        to: &Path,
        size: u64,
        newest: &SignedCheckpoint,
    ) -> Result<(), Refusal> {
        match self {
            Self::Sqlite(readers) => readers.copy_to(to),
            Self::Postgres(pool) => pool.read(|reader| copy(reader, to, size, newest)),
        }
    }
}

/// Writes what `reader` has to the data directory `to`. Entries never change, so the log up to a
/// size is of one moment whatever is added meanwhile.
fn copy(
    reader: &dyn LogReader,
    to: &Path,
    size: u64,
    newest: &SignedCheckpoint,
) -> Result<(), Refusal> {
    let mut database = Database::open(to, Faults::default())?;
    let mut tree = Tree::default();
    while tree.size() < size {
        let first = tree.size();
        let entries = reader.entries(first, size, READ_MAX_ENTRIES)?;
        if entries.is_empty() {
            return Err(
                Refusal::conflict("entry-missing", "entries are missing from the ledger")
                    .received(&format!("none at {first} of {size}")),
            );
        }
        let mut tiles = Vec::new();
        for entry in &entries {
            tiles.extend(tree.append(entry.leaf)?);
        }
        database.commit(&Commit {
            size: first,
            entries: &entries,
            tiles: &tiles,
            checkpoint: reader.checkpoint(tree.size())?.as_ref(),
        })?;
    }
    if newest.size <= size && !newest.note.is_empty() {
        database.store_checkpoint(newest)?;
    }
    Ok(())
}
