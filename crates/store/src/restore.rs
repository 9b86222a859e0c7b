//! The data directory whose place a copy takes: held while that is done, and looked at for what it
//! has beyond the copy.

use std::path::{Path, PathBuf};

use portcullis_evidence::merkle::root_at;
use portcullis_model::{Digest, Fold, Refusal};

use crate::database;
use crate::handle::LedgerHandle;
use crate::ledger::where_reserve_begins;
use crate::lock::DirectoryLock;
use crate::reserve;
use crate::storage::LogReader;
use crate::tree::StoredTree;

/// A data directory with SQLite, held so that no server starts on it.
pub struct Replaced {
    dir: PathBuf,
    _lock: DirectoryLock,
}

/// How much of a log a directory has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Number of entries, those in the reserve included.
    pub size: u64,
    /// The root over them; none where some are in the reserve, whom no tree covers.
    pub root: Option<Digest>,
}

impl Replaced {
    /// Holds `dir`; `None` if there is none.
    ///
    /// # Errors
    /// A server runs on it (`data-directory-held`), or it can't be written.
    pub fn hold(dir: &Path) -> Result<Option<Self>, Refusal> {
        if !dir.is_dir() {
            return Ok(None);
        }
        Ok(Some(Self {
            dir: dir.to_owned(),
            _lock: DirectoryLock::take(dir)?,
        }))
    }

    /// What it has, without any check but that it can be read.
    ///
    /// # Errors
    /// It has no log, or its files can't be read.
    pub fn extent(&self) -> Result<Extent, Refusal> {
        let reader = database::open_reader(&database::path(&self.dir))?;
        let reader: &dyn LogReader = &reader;
        let stored = reader.size()?;
        let records = reserve::read(&self.dir)?;
        let base = where_reserve_begins(reader, stored, &records)?;
        let reserved = records.iter().filter(|record| record.index >= base).count();
        Ok(Extent {
            size: base.saturating_add(reserved as u64),
            root: match reserved {
                0 => Some(root_at(&StoredTree(reader), base)?),
                _ => None,
            },
        })
    }

    /// How many entries from the first are the same as those of `ledger`.
    ///
    /// # Errors
    /// One of the two can't be read.
    pub fn shared_with<F: Fold>(&self, ledger: &LedgerHandle<F>) -> Result<u64, Refusal> {
        let reader = database::open_reader(&database::path(&self.dir))?;
        let reader: &dyn LogReader = &reader;
        // Roots are the same exactly as long as all entries are, so halves are enough.
        let (mut same, mut most) = (0, reader.size()?.min(ledger.checkpoint().size));
        while same < most {
            let middle = same + (most - same).div_ceil(2);
            if root_at(&StoredTree(reader), middle)? == ledger.root(middle)? {
                same = middle;
            } else {
                most = middle - 1;
            }
        }
        Ok(same)
    }

    /// Whether its first `size` entries have this root.
    ///
    /// # Errors
    /// It can't be read.
    pub fn has(&self, size: u64, root: &Digest) -> Result<bool, Refusal> {
        let reader = database::open_reader(&database::path(&self.dir))?;
        let reader: &dyn LogReader = &reader;
        Ok(size <= reader.size()? && root_at(&StoredTree(reader), size)? == *root)
    }
}
