//! `backup`: a copy that a server can be started on, made while none runs.

use std::path::{Path, PathBuf};

use portcullis_evidence::note::KeyName;
use portcullis_flow::State;
use portcullis_model::{Body, Event, Refusal};
use portcullis_server::config::Config;
use portcullis_server::home::Home;
use portcullis_server::init::log_signer;
use portcullis_store::{Ledger, LedgerOptions, LogKey, StoreOptions};
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::progress;

/// Largest configuration, genesis or policy file that is copied, in bytes.
pub(super) const FILE_MAX_BYTES: u64 = 1 << 20;

/// Copies the server's directory; the server must not run.
#[derive(Debug, clap::Args)]
pub(crate) struct Backup {
    /// Where to; a directory that does not exist
    #[arg(value_name = "DIR")]
    to: PathBuf,
    /// Copy the private keys and secrets too; guard the copy as you guard them
    #[arg(long)]
    with_keys: bool,
}

impl Backup {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        let (from, to, with_keys) = (context.home(), self.to.clone(), self.with_keys);
        let copying = tokio::task::spawn_blocking(move || copy(&from, &to, with_keys));
        let entries = progress::during("copying the ledger", copying)
            .await
            .map_err(|error| Refusal::internal(format!("the copy was cut off: {error}")))??;
        let to = self.to.display();
        let answer = json!({ "to": to.to_string(), "entries": entries, "keys": with_keys });
        context.out().print(&answer, || {
            let keys = if with_keys {
                "with its keys"
            } else {
                "without its keys; keep those apart"
            };
            format!("{entries} entries are in {to}, {keys}")
        })?;
        Ok(Exit::Done)
    }
}

fn copy(from: &Path, to: &Path, with_keys: bool) -> Result<u64, Refusal> {
    let home = Home::new(from);
    let genesis = Event::decode(0, &Home::read(&home.genesis(), FILE_MAX_BYTES)?)?;
    let Body::GenesisCreated(genesis) = genesis.body else {
        return Err(Refusal::malformed("genesis").expected("genesis.created"));
    };
    if to.exists() {
        return Err(
            Refusal::conflict("backup-exists", format!("{} stands already", to.display()))
                .next("name a directory that does not exist"),
        );
    }
    let name: KeyName = genesis.origin.parse()?;
    let mut options = LedgerOptions::new(LogKey::new(name, log_signer(&home)?));
    let config = Home::read(&home.config(), FILE_MAX_BYTES)?;
    options.store = Config::read(&String::from_utf8_lossy(&config))?.store(&home)?;
    let (ledger, _) = match options.store {
        StoreOptions::Sqlite => Ledger::<State>::open(&home.ledger(), options)?,
        // Another server may lead meanwhile: what is signed is copied.
        StoreOptions::Postgres(_) => Ledger::<State>::follow(&home.ledger(), &options)?,
    };
    let target = Home::new(to);
    make_folder(to)?;
    let copied = ledger.handle().backup(&target.ledger());
    ledger.close()?;
    let entries = copied?;
    for (from, to) in [
        (home.genesis(), target.genesis()),
        (home.config(), target.config()),
    ] {
        copy_file(&from, &to)?;
    }
    copy_folder(&home.policy(), &target.policy())?;
    copy_file(&home.authority(), &target.authority())?;
    if with_keys {
        copy_folder(&home.root().join("keys"), &target.root().join("keys"))?;
        copy_folder(&home.secrets(), &target.secrets())?;
    }
    Ok(entries)
}

/// Copies the files of a folder that are not there yet, without the folders in it.
pub(super) fn copy_folder(from: &Path, to: &Path) -> Result<(), Refusal> {
    make_folder(to)?;
    let entries = std::fs::read_dir(from).map_err(|error| unreadable(from, &error))?;
    for entry in entries {
        let path = entry.map_err(|error| unreadable(from, &error))?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            copy_file(&path, &to.join(name))?;
        }
    }
    Ok(())
}

/// Copies a file with its mode.
pub(super) fn copy_file(from: &Path, to: &Path) -> Result<(), Refusal> {
    if let Some(folder) = to.parent() {
        make_folder(folder)?;
    }
    if to.exists() {
        return Ok(());
    }
    std::fs::copy(from, to)
        .map(drop)
        .map_err(|error| unreadable(from, &error))
}

/// Makes a folder for its owner alone.
pub(super) fn make_folder(path: &Path) -> Result<(), Refusal> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| {
            Refusal::unavailable(
                "folder-unwritable",
                format!("{} can't be made", path.display()),
            )
            .received(&error.to_string())
        })
}

fn unreadable(path: &Path, error: &std::io::Error) -> Refusal {
    Refusal::unavailable(
        "file-unreadable",
        format!("{} can't be copied", path.display()),
    )
    .received(&error.to_string())
    .next("name the server's directory with --home")
}
