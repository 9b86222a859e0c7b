//! The reserve: a file of fixed size whose blocks exist before they are needed, so that an act
//! that takes authority away can be made durable when the disk has no room for anything else.
//!
//! It is an append-only journal of entries in index order, written by overwriting its zeros.
//! A record is `PRSV`, index, time, length, bytes, and a SHA-256 over the digest of the record
//! before it and all of these; numbers are big-endian. The journal ends where the first record
//! fails its digest: a torn write, zeros, or what is left of an older, longer journal, whose
//! records are chained to others. Nothing torn was ever answered for.
//!
//! 1. *Entries are written behind the last record.* A restart finds whole records or none.
//! 2. *`fdatasync`.* From here on they are the next entries of the ledger; a restart replays them.
//! 3. *The database can be written again: one transaction takes them all over.* A restart finds
//!    them in both places, byte for byte the same, and skips them here.
//! 4. *The first record is overwritten with zeros.* A restart finds an empty journal.
//!
//! File systems that never overwrite in place (copy on write) need space for step 1 all the same;
//! there the entries stay in memory, as they do when the reserve is full.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use portcullis_model::limits::ENTRY_MAX_BYTES;
use portcullis_model::{Digest, LedgerIndex, Refusal, Timestamp};

use crate::disk::{io_refusal, private_file, sync_directory};
use crate::faults::{Faults, Step};
use crate::limits::RESERVE_BYTES;
use crate::writing::ReserveSpace;

/// One entry in the reserve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) index: LedgerIndex,
    pub(crate) time: Timestamp,
    pub(crate) bytes: Vec<u8>,
}

/// The reserve, open for writing.
#[derive(Debug)]
pub(crate) struct Reserve {
    file: File,
    /// Where the next record goes.
    end: u64,
    /// Digest of the record before that place.
    last: Digest,
    faults: Faults,
}

const MAGIC: &[u8; 4] = b"PRSV";
const HEADER_BYTES: usize = 4 + 8 + 8 + 4;
const DIGEST_BYTES: usize = 32;
const FIRST: Digest = Digest::from_bytes([0; 32]);
/// Zeros that are written at once while the file is made.
const FILL_BYTES: usize = 64 * 1024;

pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("reserve.journal")
}

impl Reserve {
    /// Opens the reserve of `dir`, making it if it isn't there or isn't whole, and reads what it
    /// holds.
    pub(crate) fn open(dir: &Path, faults: Faults) -> Result<(Self, Vec<Record>), Refusal> {
        let path = path(dir);
        let failed = |error: io::Error| io_refusal(&format!("open {}", path.display()), &error);
        let file = private_file()
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        fill(&file, dir)
            .map_err(|error| io_refusal("set aside the reserve of the ledger", &error))?;
        let journal = read_journal(&file).map_err(failed)?;
        let reserve = Self {
            file,
            end: journal.end,
            last: journal.last,
            faults,
        };
        Ok((reserve, journal.records))
    }

    /// Makes `records` durable behind those that are there, all or none.
    ///
    /// After an error the records may be on disk or not; the next records go to the same place.
    pub(crate) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        self.faults.at(Step::ReserveWriting)?;
        let mut buffer = Vec::new();
        let mut last = self.last;
        for record in records {
            last = encode(record, &last, &mut buffer)?;
        }
        let end = self.end.saturating_add(buffer.len() as u64);
        if end > RESERVE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "the reserve of the ledger is full",
            ));
        }
        self.file.write_all_at(&buffer, self.end)?;
        self.faults.at(Step::ReserveWritten)?;
        self.file.sync_data()?;
        self.faults.passing(Step::ReserveSynced);
        self.end = end;
        self.last = last;
        Ok(())
    }

    /// How full it is.
    pub(crate) const fn space(&self) -> ReserveSpace {
        ReserveSpace {
            used_bytes: self.end,
            bytes: RESERVE_BYTES,
        }
    }

    /// Empties the journal, whose entries the database has now.
    ///
    /// After an error they may still be there; that does no harm, and new ones go behind them.
    pub(crate) fn reset(&mut self) -> io::Result<()> {
        self.faults.at(Step::ReserveMoved)?;
        self.file
            .write_all_at(&[0; HEADER_BYTES + DIGEST_BYTES], 0)?;
        self.file.sync_data()?;
        self.faults.passing(Step::ReserveReset);
        self.end = 0;
        self.last = FIRST;
        Ok(())
    }
}

/// What the reserve of `dir` holds, without opening it for writing; nothing if there is none.
pub(crate) fn read(dir: &Path) -> Result<Vec<Record>, Refusal> {
    let path = path(dir);
    match File::open(&path) {
        Ok(file) => read_journal(&file).map(|journal| journal.records),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
    .map_err(|error| io_refusal(&format!("read {}", path.display()), &error))
}

/// Writes zeros up to the full size: a hole would need a block when it is written to.
fn fill(file: &File, dir: &Path) -> io::Result<()> {
    let mut at = file.metadata()?.len();
    if at >= RESERVE_BYTES {
        return Ok(());
    }
    let zeros = vec![0; FILL_BYTES];
    while at < RESERVE_BYTES {
        let missing = usize::try_from(RESERVE_BYTES - at).unwrap_or(FILL_BYTES);
        let piece = zeros.get(..missing.min(FILL_BYTES)).unwrap_or(&zeros);
        file.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    file.sync_all()?;
    sync_directory(dir)
}

struct Journal {
    records: Vec<Record>,
    end: u64,
    last: Digest,
}

fn read_journal(file: &File) -> io::Result<Journal> {
    let length = file.metadata()?.len().min(RESERVE_BYTES);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    let mut journal = Journal {
        records: Vec::new(),
        end: 0,
        last: FIRST,
    };
    let mut rest = bytes.as_slice();
    while let Some((record, digest, behind)) = decode(rest, &journal.last) {
        journal.end += (rest.len() - behind.len()) as u64;
        journal.last = digest;
        journal.records.push(record);
        rest = behind;
    }
    Ok(journal)
}

fn encode(record: &Record, before: &Digest, out: &mut Vec<u8>) -> io::Result<Digest> {
    let length = u32::try_from(record.bytes.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "an entry is too long"))?;
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&record.index.to_be_bytes());
    header.extend_from_slice(&record.time.as_ms().to_be_bytes());
    header.extend_from_slice(&length.to_be_bytes());
    let digest = record_digest(before, &header, &record.bytes);
    out.extend_from_slice(&header);
    out.extend_from_slice(&record.bytes);
    out.extend_from_slice(digest.as_bytes());
    Ok(digest)
}

/// The record at the start of `bytes`, its digest and what follows it; `None` where the journal
/// ends.
fn decode<'a>(bytes: &'a [u8], before: &Digest) -> Option<(Record, Digest, &'a [u8])> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let (magic, numbers) = header.split_first_chunk::<4>()?;
    let (index, numbers) = numbers.split_first_chunk::<8>()?;
    let (time, numbers) = numbers.split_first_chunk::<8>()?;
    let (length, _) = numbers.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    if magic != MAGIC || length > ENTRY_MAX_BYTES {
        return None;
    }
    let (body, rest) = rest.split_at_checked(length)?;
    let (stored, rest) = rest.split_first_chunk::<DIGEST_BYTES>()?;
    let digest = record_digest(before, header, body);
    if digest.as_bytes() != stored {
        return None;
    }
    let record = Record {
        index: u64::from_be_bytes(*index),
        time: Timestamp::from_ms(u64::from_be_bytes(*time)),
        bytes: body.to_vec(),
    };
    Some((record, digest, rest))
}

fn record_digest(before: &Digest, header: &[u8], bytes: &[u8]) -> Digest {
    Digest::of_parts(&[b"portcullis reserve v1\0", before.as_bytes(), header, bytes])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(index: u64, text: &str) -> Record {
        Record {
            index,
            time: Timestamp::from_ms(1_000 + index),
            bytes: text.as_bytes().to_vec(),
        }
    }

    #[test]
    fn what_was_appended_is_there_after_a_restart_and_nothing_after_a_reset() {
        let dir = tempfile::tempdir().unwrap();
        let (mut reserve, found) = Reserve::open(dir.path(), Faults::default()).unwrap();
        assert!(found.is_empty());
        assert_eq!(path(dir.path()).metadata().unwrap().len(), RESERVE_BYTES);
        reserve.append(&[record(7, "a"), record(8, "bb")]).unwrap();
        reserve.append(&[record(9, "")]).unwrap();
        drop(reserve);
        let (mut reserve, found) = Reserve::open(dir.path(), Faults::default()).unwrap();
        assert_eq!(found, [record(7, "a"), record(8, "bb"), record(9, "")]);
        reserve.append(&[record(10, "ccc")]).unwrap();
        assert_eq!(read(dir.path()).unwrap().len(), 4);
        reserve.reset().unwrap();
        assert!(read(dir.path()).unwrap().is_empty());
        // The second record of the longer journal still stands behind the new first one.
        reserve.append(&[record(20, "x")]).unwrap();
        assert_eq!(read(dir.path()).unwrap(), [record(20, "x")]);
    }

    #[test]
    fn a_journal_torn_anywhere_yields_a_prefix_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (mut reserve, _) = Reserve::open(dir.path(), Faults::default()).unwrap();
        let all = [record(1, "first"), record(2, "second"), record(3, "third")];
        reserve.append(&all).unwrap();
        let end = usize::try_from(reserve.end).unwrap();
        let whole = std::fs::read(path(dir.path())).unwrap();
        for at in 0..end {
            let mut torn = whole.clone();
            torn[at] ^= 0x40;
            std::fs::write(path(dir.path()), &torn).unwrap();
            let found = read(dir.path()).unwrap();
            assert!(
                found.len() < all.len() && all.starts_with(&found),
                "byte {at}"
            );
        }
    }

    #[test]
    fn it_is_bounded_and_a_failed_write_leaves_no_gap() {
        let dir = tempfile::tempdir().unwrap();
        let (mut reserve, _) = Reserve::open(dir.path(), Faults::default()).unwrap();
        let large = "x".repeat(ENTRY_MAX_BYTES);
        let mut index = 0;
        let error = loop {
            match reserve.append(&[record(index, &large)]) {
                Ok(()) => index += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(index > 60, "{index}");
        reserve.append(&[record(index, "small")]).unwrap();
        let found = read(dir.path()).unwrap();
        assert_eq!(found.len() as u64, index + 1);
        assert_eq!(path(dir.path()).metadata().unwrap().len(), RESERVE_BYTES);
    }

    #[test]
    fn a_file_cut_short_is_made_whole() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(path(dir.path()), b"PR").unwrap();
        let (_, found) = Reserve::open(dir.path(), Faults::default()).unwrap();
        assert!(found.is_empty());
        assert_eq!(path(dir.path()).metadata().unwrap().len(), RESERVE_BYTES);
    }
}
