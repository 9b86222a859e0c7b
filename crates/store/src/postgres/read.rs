//! Reading the log from PostgreSQL.

use portcullis_model::{Digest, LedgerIndex, Refusal, Timestamp};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::link::{Failure, Link, Pool};
use crate::checkpoint::SignedCheckpoint;
use crate::entry::Entry;
use crate::limits::{READ_MAX_BYTES, READ_MAX_ENTRIES};
use crate::storage::LogReader;
use crate::tree::Tile;

/// Entries that one statement fetches: what is in memory at once, in a scan of everything.
const PAGE_ENTRIES: usize = 500;

/// PostgreSQL's integers have a sign.
pub(crate) fn sql_integer(value: u64) -> Result<i64, Refusal> {
    i64::try_from(value).map_err(|_| {
        Refusal::limit("too-large", "a number is too large for PostgreSQL")
            .received(&value.to_string())
    })
}

pub(crate) fn unsigned(row: &Row, column: usize) -> Result<u64, Refusal> {
    let value: i64 = row.try_get(column).map_err(unreadable)?;
    u64::try_from(value).map_err(|error| altered(&error.to_string()))
}

pub(crate) fn digest(row: &Row, column: usize) -> Result<Digest, Refusal> {
    let bytes: &[u8] = row.try_get(column).map_err(unreadable)?;
    <[u8; 32]>::try_from(bytes)
        .map(Digest::from_bytes)
        .map_err(|_| altered("a digest has not 32 bytes"))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "used where an error is mapped"
)]
pub(crate) fn unreadable(error: tokio_postgres::Error) -> Refusal {
    altered(&error.to_string())
}

fn altered(cause: &str) -> Refusal {
    Refusal::conflict("store-altered", "a row of the ledger can't be read").received(cause)
}

fn failed(failure: Failure) -> Refusal {
    failure.refusal("read the ledger")
}

fn entry(row: &Row) -> Result<Entry, Refusal> {
    Ok(Entry {
        index: unsigned(row, 0)?,
        time: Timestamp::from_ms(unsigned(row, 1)?),
        leaf: digest(row, 2)?,
        bytes: row.try_get(3).map_err(unreadable)?,
    })
}

fn checkpoint(row: &Row) -> Result<SignedCheckpoint, Refusal> {
    Ok(SignedCheckpoint {
        size: unsigned(row, 0)?,
        root: digest(row, 1)?,
        note: row.try_get(2).map_err(unreadable)?,
    })
}

impl Link {
    fn page(&self, from: u64, below: u64, limit: usize) -> Result<Vec<Entry>, Refusal> {
        let (from, below) = (sql_integer(from)?, sql_integer(below)?);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self
            .run(move |client| async move {
                client
                    .query_typed(
                        "SELECT idx, time_ms, leaf, bytes FROM portcullis.entries
                         WHERE idx >= $1 AND idx < $2 ORDER BY idx LIMIT $3",
                        &[
                            (&from, Type::INT8),
                            (&below, Type::INT8),
                            (&limit, Type::INT8),
                        ],
                    )
                    .await
            })
            .map_err(failed)?;
        rows.iter().map(entry).collect()
    }
}

impl LogReader for Link {
    fn size(&self) -> Result<u64, Refusal> {
        let row = self
            .run(|client| async move {
                client
                    .query_one(
                        "SELECT coalesce(max(idx) + 1, 0) FROM portcullis.entries",
                        &[],
                    )
                    .await
            })
            .map_err(failed)?;
        unsigned(&row, 0)
    }

    fn each_entry(
        &self,
        from: LedgerIndex,
        below: LedgerIndex,
        take: &mut dyn FnMut(Entry) -> Result<bool, Refusal>,
    ) -> Result<(), Refusal> {
        let mut next = from;
        loop {
            let page = self.page(next, below, PAGE_ENTRIES)?;
            let last = page.len() < PAGE_ENTRIES;
            for entry in page {
                next = entry.index.saturating_add(1);
                if !take(entry)? {
                    return Ok(());
                }
            }
            if last {
                return Ok(());
            }
        }
    }

    fn entries(
        &self,
        from: LedgerIndex,
        below: LedgerIndex,
        limit: usize,
    ) -> Result<Vec<Entry>, Refusal> {
        let mut found = self.page(from, below, limit.min(READ_MAX_ENTRIES))?;
        let mut bytes = 0;
        let fit = found.iter().take_while(|entry| {
            let fits = bytes < READ_MAX_BYTES;
            bytes += entry.bytes.len();
            fits
        });
        let fit = fit.count();
        found.truncate(fit);
        Ok(found)
    }

    fn leaves(&self, from: LedgerIndex, below: LedgerIndex) -> Result<Vec<Digest>, Refusal> {
        let (from, below) = (sql_integer(from)?, sql_integer(below)?);
        let rows = self
            .run(move |client| async move {
                client
                    .query(
                        "SELECT leaf FROM portcullis.entries WHERE idx >= $1 AND idx < $2
                         ORDER BY idx",
                        &[&from, &below],
                    )
                    .await
            })
            .map_err(failed)?;
        rows.iter().map(|row| digest(row, 0)).collect()
    }

    fn tile_roots(&self, level: u8, from: u64, below: u64) -> Result<Vec<Digest>, Refusal> {
        let (from, below) = (sql_integer(from)?, sql_integer(below)?);
        let rows = self
            .run(move |client| async move {
                client
                    .query(
                        "SELECT root FROM portcullis.tiles
                         WHERE level = $1 AND idx >= $2 AND idx < $3 ORDER BY idx",
                        &[&i16::from(level), &from, &below],
                    )
                    .await
            })
            .map_err(failed)?;
        rows.iter().map(|row| digest(row, 0)).collect()
    }

    fn tile(&self, level: u8, index: u64) -> Result<Option<Tile>, Refusal> {
        let place = sql_integer(index)?;
        let row = self
            .run(move |client| async move {
                client
                    .query_opt(
                        "SELECT root, hashes FROM portcullis.tiles WHERE level = $1 AND idx = $2",
                        &[&i16::from(level), &place],
                    )
                    .await
            })
            .map_err(failed)?;
        row.map(|row| {
            Ok(Tile {
                level,
                index,
                root: digest(&row, 0)?,
                hashes: row.try_get(1).map_err(unreadable)?,
            })
        })
        .transpose()
    }

    fn checkpoint(&self, size: u64) -> Result<Option<SignedCheckpoint>, Refusal> {
        let size = sql_integer(size)?;
        let row = self
            .run(move |client| async move {
                client
                    .query_opt(
                        "SELECT size, root, note FROM portcullis.checkpoints WHERE size = $1",
                        &[&size],
                    )
                    .await
            })
            .map_err(failed)?;
        row.as_ref().map(checkpoint).transpose()
    }

    fn last_checkpoint(&self) -> Result<Option<SignedCheckpoint>, Refusal> {
        let row = self
            .run(|client| async move {
                client
                    .query_opt(
                        "SELECT size, root, note FROM portcullis.checkpoints
                         ORDER BY size DESC LIMIT 1",
                        &[],
                    )
                    .await
            })
            .map_err(failed)?;
        row.as_ref().map(checkpoint).transpose()
    }
}

impl Pool {
    /// Calls `read` with a connection.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&dyn LogReader) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.with("read the ledger", |link| read(link))
    }

    /// Calls `read` with a connection whose reads are all of one moment.
    pub(crate) fn read_one_moment<T>(
        &self,
        read: impl FnOnce(&dyn LogReader) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.with("read the ledger", |link| {
            link.run(|client| async move {
                client
                    .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    .await
            })
            .map_err(failed)?;
            let answer = read(link);
            link.run(|client| async move { client.batch_execute("ROLLBACK").await })
                .map_err(failed)?;
            answer
        })
    }
}
