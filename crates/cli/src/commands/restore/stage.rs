//! The copy beside the server's ledger: made, verified, opened; and the change of places.

use std::fs::File;
use std::path::{Path, PathBuf};

use portcullis_evidence::note::{KeyName, VerifierKey};
use portcullis_flow::State;
use portcullis_model::{Digest, Refusal};
use portcullis_server::config::Config;
use portcullis_server::home::Home;
use portcullis_server::init::log_signer;
use portcullis_store::{Ledger, LedgerOptions, LogKey, Replaced, StoreOptions};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::commands::backup::{FILE_MAX_BYTES, copy_file, copy_folder, make_folder};
use crate::commands::ledger_files::Files;
use crate::commands::ledger_verify::Genesis;

/// Most bytes of a configuration.
const CONFIG_MAX_BYTES: u64 = 64 * 1024;

/// A verified copy that is open beside the ledger whose place it may take.
pub(super) struct Staged {
    /// The copy.
    pub(super) ledger: Ledger<State>,
    /// Name and key of the log.
    pub(super) key: VerifierKey,
    /// The server's settings.
    pub(super) config: Config,
    /// What the copy takes the place of, held.
    pub(super) replaced: Option<Replaced>,
    home: Home,
    staging: PathBuf,
}

/// Copies the ledger of `from` beside that of `home`, verifies and opens it. Files that `home`
/// does not have are taken from the backup.
///
/// # Errors
/// The two don't begin with the same genesis, a server runs, a key is missing, the backup does not
/// verify, or a disk can't be read or written. Then the ledger of `home` is as it was.
pub(super) fn stage(from: &Home, home: &Home) -> Result<Staged, Refusal> {
    let bytes = Home::read(&from.genesis(), FILE_MAX_BYTES)?;
    let genesis = Genesis::read(&bytes, "by the backup")?;
    if home.genesis().exists() && Home::read(&home.genesis(), FILE_MAX_BYTES)? != bytes {
        return Err(Refusal::conflict(
            "backup-of-another-ledger",
            "this backup is of another ledger than the directory",
        )
        .expected(&format!("the genesis in {}", home.genesis().display()))
        .received(&Digest::of(&bytes).to_string())
        .next("name the directory of this backup's ledger, or a new one, with --home"));
    }
    make_folder(home.root())?;
    let replaced = Replaced::hold(&home.ledger())?;
    furnish(from, home)?;
    let signer = log_signer(home).map_err(|refusal| {
        refusal.next(format!(
            "put the server's keys into {}: this backup is without them",
            home.root().join("keys").display()
        ))
    })?;
    let name: KeyName = genesis.origin.parse()?;
    let key = VerifierKey::from_public_key(name.clone(), signer.public_key())?;
    if key != genesis.key {
        return Err(Refusal::denied(
            "wrong-log-key",
            "the log's key is not the one in the genesis",
        )
        .expected(&genesis.key.to_string())
        .received(&key.to_string()));
    }
    let text = Home::read(&home.config(), CONFIG_MAX_BYTES)?;
    let config = Config::read(&String::from_utf8_lossy(&text))?;
    if !matches!(config.store(home)?, StoreOptions::Sqlite) {
        return Err(Refusal::conflict(
            "restore-into-postgresql",
            "this directory's ledger is kept in PostgreSQL",
        )
        .expected("a directory with SQLite")
        .received("a section `store` with a url in portcullis.toml")
        .next("restore PostgreSQL by its own means, and start the server, which compares what it finds with the held checkpoint; or restore into a directory without that section"));
    }
    let staging = home.root().join("ledger.restoring");
    if staging.exists() {
        std::fs::remove_dir_all(&staging).map_err(|error| unwritable(&staging, &error))?;
    }
    copy_durably(&from.ledger(), &staging).map_err(|error| unwritable(&staging, &error))?;
    let checked = Files {
        ledger: &staging,
        store: &StoreOptions::Sqlite,
        genesis: &genesis,
        held: None,
    }
    .check(None, None)?;
    if let Some(first) = checked.findings.first() {
        return Err(Refusal::conflict(
            "backup-unsound",
            format!("this backup does not hold: {first}"),
        )
        .next("restore another one; `portcullis ledger verify --home BACKUP` says everything that is wrong with it"));
    }
    let mut options = LedgerOptions::new(LogKey::new(name, signer));
    options.clock_was_ahead_until = config.clock_was_ahead_until;
    let (ledger, _) = Ledger::<State>::open(&staging, options)?;
    Ok(Staged {
        ledger,
        key,
        config,
        replaced,
        home: home.clone(),
        staging,
    })
}

impl Staged {
    /// Puts the copy in its place. Gives where that is which stood there.
    ///
    /// # Errors
    /// The ledger does not close, or the directories can't be renamed; then nothing changed.
    pub(super) fn finish(self, size: u64) -> Result<Option<PathBuf>, Refusal> {
        self.ledger.close()?;
        let target = self.home.ledger();
        let failed = |error: std::io::Error| unwritable(&target, &error);
        let flags = match self.replaced {
            Some(_) => RenameFlags::EXCHANGE,
            None => RenameFlags::NOREPLACE,
        };
        renameat_with(CWD, &self.staging, CWD, &target, flags)
            .map_err(|error| failed(error.into()))?;
        sync(self.home.root()).map_err(failed)?;
        if self.replaced.is_none() {
            return Ok(None);
        }
        let aside = aside(self.home.root(), size);
        std::fs::rename(&self.staging, &aside)
            .and_then(|()| sync(self.home.root()))
            .map_err(|error| unwritable(&aside, &error))?;
        Ok(Some(aside))
    }
}

impl Staged {
    /// Removes the copy: everything is as it was.
    pub(super) fn abandon(self) {
        let closed = self.ledger.close();
        let removed = std::fs::remove_dir_all(&self.staging);
        if closed.is_err() || removed.is_err() {
            crate::output::note(&format!(
                "a copy stays in {}; the next restore removes it",
                self.staging.display()
            ));
        }
    }
}

/// A name that is free.
fn aside(root: &Path, size: u64) -> PathBuf {
    let first = root.join(format!("ledger.replaced-{size}"));
    let others = (2_u64..).map(|number| root.join(format!("ledger.replaced-{size}-{number}")));
    std::iter::once(first.clone())
        .chain(others)
        .find(|path| !path.exists())
        .unwrap_or(first)
}

/// Takes from the backup what the server's directory does not have.
fn furnish(from: &Home, home: &Home) -> Result<(), Refusal> {
    for (from, to) in [
        (from.genesis(), home.genesis()),
        (from.config(), home.config()),
        (from.authority(), home.authority()),
    ] {
        copy_file(&from, &to)?;
    }
    copy_folder(&from.policy(), &home.policy())?;
    let keys = |home: &Home| home.root().join("keys");
    for (from, to) in [(keys(from), keys(home)), (from.secrets(), home.secrets())] {
        if from.is_dir() {
            copy_folder(&from, &to)?;
        }
    }
    Ok(())
}

/// Copies a data directory, all but its lock; every file and name is on the disk when it returns.
fn copy_durably(from: &Path, to: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().mode(0o700).create(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_durably(&entry.path(), &target)?;
        } else if entry.file_name() != "lock" {
            std::fs::copy(entry.path(), &target)?;
            sync(&target)?;
        }
    }
    sync(to)
}

fn sync(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

fn unwritable(path: &Path, error: &std::io::Error) -> Refusal {
    Refusal::unavailable(
        "folder-unwritable",
        format!("{} can't be written", path.display()),
    )
    .received(&error.to_string())
    .next("look at the disk of the server's directory; its ledger is as it was")
}
