//! A copy of a ledger that a server can be started on.

use std::path::Path;
use std::sync::Arc;

use portcullis_model::{Fold, Refusal};

use crate::database;
use crate::disk::{create_private_directory, io_refusal, sync_directory};
use crate::handle::LedgerHandle;
use crate::private::PrivateStore;
use crate::storage::LogReader;
use crate::{private, reserve};

impl<F: Fold> LedgerHandle<F> {
    /// Copies the ledger to `to`, which must not exist or be empty, while it goes on working; the
    /// copy is of one moment after this was called. Gives the number of entries in the copy's
    /// database.
    ///
    /// The order is what makes it whole: the reserve before the database, since entries move from
    /// there to here; blobs and their keys after it, since they are durable before the entry that
    /// names them. The log's signing key is not in the data directory, and not in the copy.
    ///
    /// # Errors
    /// There is something in `to`, or a disk can't be read or written; what was copied by then
    /// stays for a person to look at and remove.
    pub fn backup(&self, to: &Path) -> Result<u64, Refusal> {
        let failed = |error| io_refusal(&format!("write the backup to {}", to.display()), &error);
        create_private_directory(to).map_err(failed)?;
        if std::fs::read_dir(to).map_err(failed)?.next().is_some() {
            return Err(Refusal::conflict(
                "backup-exists",
                format!("there are files in {} already", to.display()),
            )
            .next("name a directory that does not exist"));
        }
        std::fs::copy(reserve::path(self.dir()), reserve::path(to)).map_err(failed)?;
        let published = self.0.published.load_full();
        self.0
            .readers
            .copy_to(to, published.stored, &published.checkpoint)?;
        self.private().copy_to(to)?;
        self.blobs()
            .copy_to(to, Arc::new(PrivateStore::open(to)?))?;
        for file in [reserve::path(to), private::path(to), database::path(to)] {
            std::fs::File::open(file)
                .and_then(|file| file.sync_all())
                .map_err(failed)?;
        }
        sync_directory(to).map_err(failed)?;
        database::open_reader(&database::path(to))?.size()
    }
}
