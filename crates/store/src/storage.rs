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

use portcullis_model::{Digest, LedgerIndex, Refusal};

use crate::checkpoint::SignedCheckpoint;
use crate::database::{Database, SqliteReaders};
use crate::entry::Entry;
use crate::faults::Faults;
use crate::limits::{READ_MAX_BYTES, READ_MAX_ENTRIES};
use crate::tree::Tile;

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
}

impl Writer {
    /// Opens the log of `dir` for writing, making its tables if there are none.
    pub(crate) fn open(dir: &Path, faults: Faults) -> Result<Self, Refusal> {
        Ok(Self::Sqlite(Database::open(dir, faults)?))
    }

    /// Reads through the writer's connection: what it has committed, and nothing of another.
    pub(crate) fn reader(&self) -> &dyn LogReader {
        match self {
            Self::Sqlite(database) => database.connection(),
        }
    }

    /// Writes one batch, all or nothing, and returns when it is durable. What an earlier call left
    /// behind that had failed is removed. After an error the batch may be there or not; the next
    /// call, with the same size, sets that right.
    pub(crate) fn commit(&mut self, commit: &Commit<'_>) -> Result<(), Refusal> {
        match self {
            Self::Sqlite(database) => database.commit(commit),
        }
    }

    /// Stores a signed checkpoint by itself.
    pub(crate) fn store_checkpoint(
        &mut self,
        checkpoint: &SignedCheckpoint,
    ) -> Result<(), Refusal> {
        match self {
            Self::Sqlite(database) => database.store_checkpoint(checkpoint),
        }
    }
}

/// Connections that read, beside the one that writes.
pub(crate) enum Readers {
    /// SQLite in the data directory.
    Sqlite(SqliteReaders),
}

impl Readers {
    /// Readers of the log in `dir`; opened when they are needed.
    pub(crate) fn new(dir: &Path) -> Self {
        Self::Sqlite(SqliteReaders::new(dir))
    }

    /// Calls `read` with a connection. Each of its reads sees what is committed by then.
    pub(crate) fn with<T>(
        &self,
        read: impl FnOnce(&dyn LogReader) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        match self {
            Self::Sqlite(readers) => readers.with(|connection| read(connection)),
        }
    }

    /// Calls `read` with a connection whose reads are all of one moment.
    pub(crate) fn at_one_moment<T>(
        &self,
        read: impl FnOnce(&dyn LogReader) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        match self {
            Self::Sqlite(readers) => readers.at_one_moment(|connection| read(connection)),
        }
    }

    /// Writes a copy of the log of one moment to a new data directory.
    pub(crate) fn copy_to(&self, to: &Path) -> Result<(), Refusal> {
        match self {
            Self::Sqlite(readers) => readers.copy_to(to),
        }
    }
}
