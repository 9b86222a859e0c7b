//! The log's newest checkpoint, kept in a file outside the data directory: what tells, after a
//! start, that the directory was copied back in time.
//!
//! The file is configured (`held_checkpoint`), best on another disk or machine. A start compares
//! it; then it follows the log. If the ledger has less than was signed, or other entries:
//! 1. *everything halts in memory*; a restart compares again;
//! 2. *the breaker is tripped for everything, and an incident names the range*, in one batch; from
//!    here on the ledger itself says so, until people sign the reset;
//! 3. *the old checkpoint is put aside, as `….lost-SIZE`*, and the file follows the log as it is
//!    now. A restart before that trips again, which does no harm.
//!
//! Where people signed that what this checkpoint has is lost (`ledger.restored`), only the last step
//! is left to do.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis_flow::Command;
use portcullis_model::event::{BreakerTripped, IncidentOpened};
use portcullis_model::statement::{BreakerScope, KnownBy};
use portcullis_model::{Body, Refusal};
use portcullis_store::SignedCheckpoint;

use crate::app::{App, control};
use crate::home::Home;

/// How often the file follows the log, in milliseconds: what can be lost unnoticed is what was
/// recorded since.
const FOLLOW_MS: u64 = 500;
/// Largest file that is read, in bytes: a note with many cosignatures.
const NOTE_MAX_BYTES: u64 = 64 * 1024;

/// Compares the ledger with the held checkpoint, and trips the breaker if they contradict. Gives
/// whether the file may follow the log from now on.
///
/// # Errors
/// The file is there and holds no checkpoint of this log, or can't be read.
pub(crate) async fn compare(app: &App) -> Result<bool, Refusal> {
    let Some(path) = &app.config.held_checkpoint else {
        return Ok(false);
    };
    if !path.exists() {
        tracing::warn!(
            file = %path.display(),
            "no checkpoint is held there yet: whether the data directory is the newest can't be told"
        );
        return Ok(true);
    }
    let held = read(app, path)?;
    let Some(found) = app.ledger.contradiction([&held])? else {
        return Ok(true);
    };
    if let Some(entry) = app
        .state()
        .lost_by(&KnownBy::Held, held.size, Some(&held.root))
    {
        tracing::warn!("entry {entry} says that what the held checkpoint has is lost");
        return put_aside(path, held.size)
            .map(|()| true)
            .map_err(|error| unwritable(path, &error));
    }
    let refusal = found.refusal();
    tracing::error!(error.code = refusal.code, "halted: {refusal}");
    app.halt(&BreakerScope::Everywhere);
    let why = app.ledger.blobs().put(refusal.message.as_bytes())?;
    let lost = found.lost();
    let incident = IncidentOpened {
        code: refusal.code.clone(),
        about: None,
        facts: [
            ("lost_from".to_owned(), lost.start.to_string()),
            ("lost_to".to_owned(), lost.end.saturating_sub(1).to_string()),
            ("held_root".to_owned(), held.root.to_string()),
        ]
        .into(),
    };
    let tripped = BreakerTripped {
        scope: BreakerScope::Everywhere,
        why,
        revert: false,
        envelope: None,
    };
    let both = vec![Body::from(tripped), Body::from(incident)];
    let command = Command::of(control(), both);
    match app.ledger.submit(command).await {
        Ok(_) => put_aside(path, held.size)
            .map(|()| true)
            .map_err(|error| unwritable(path, &error)),
        Err(refusal) => {
            // The halt holds in memory, and the next start compares again.
            tracing::error!(
                error.code = refusal.code,
                "the trip is not recorded: {refusal}"
            );
            Ok(false)
        }
    }
}

/// Keeps the file as new as the log, for ever.
pub(crate) async fn follow(app: Arc<App>) {
    let Some(path) = app.config.held_checkpoint.clone() else {
        return std::future::pending().await;
    };
    let mut written = 0;
    loop {
        let checkpoint = app.ledger.checkpoint();
        if checkpoint.size > written {
            let (path, note) = (path.clone(), checkpoint.note.clone());
            let writing = tokio::task::spawn_blocking(move || replace(&path, &note));
            match writing.await {
                Ok(Ok(())) => written = checkpoint.size,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the newest checkpoint is not held outside the data directory");
                }
                Err(error) => tracing::warn!(%error, "holding a checkpoint was cut off"),
            }
        }
        tokio::time::sleep(Duration::from_millis(FOLLOW_MS)).await;
    }
}

fn read(app: &App, path: &Path) -> Result<SignedCheckpoint, Refusal> {
    let note = crate::app::text(&Home::read(path, NOTE_MAX_BYTES)?)?;
    SignedCheckpoint::verify(&note, &app.log_key).map_err(|refusal| {
        Refusal::conflict(
            "held-checkpoint",
            format!("{} holds no checkpoint of this log", path.display()),
        )
        .received(&refusal.to_string())
        .next("name another file with `held_checkpoint`; remove this one only if it never was of this log")
    })
}

/// Writes the file whole or not at all.
fn replace(path: &Path, note: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let new = beside(path, ".new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(note.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    std::fs::File::open(folder)?.sync_all()
}

fn put_aside(path: &Path, size: u64) -> std::io::Result<()> {
    std::fs::rename(path, beside(path, &format!(".lost-{size}")))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn unwritable(path: &Path, error: &std::io::Error) -> Refusal {
    Refusal::unavailable(
        "held-checkpoint",
        format!("{} can't be written", path.display()),
    )
    .received(&error.to_string())
}
