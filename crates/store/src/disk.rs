//! What a disk can refuse, in the words of a [`Refusal`]; and the few file operations that must
//! reach the disk before anything goes on.

use std::fs::File;
use std::io;
use std::path::Path;

use portcullis_model::Refusal;
use rusqlite::ErrorCode;

/// The refusal for a failed file operation; `doing` completes "could not …".
pub(crate) fn io_refusal(doing: &str, error: &io::Error) -> Refusal {
    if matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    ) {
        full(doing, &error.to_string())
    } else if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
        read_only(doing, &error.to_string())
    } else {
        failed(doing, &error.to_string())
    }
}

/// The refusal for a failed database operation; `doing` completes "could not …".
pub(crate) fn sqlite_refusal(doing: &str, error: &rusqlite::Error) -> Refusal {
    let code = error.sqlite_error_code();
    if code == Some(ErrorCode::DiskFull) {
        full(doing, &error.to_string())
    } else if code == Some(ErrorCode::ReadOnly) {
        read_only(doing, &error.to_string())
    } else {
        failed(doing, &error.to_string())
    }
}

fn full(doing: &str, cause: &str) -> Refusal {
    Refusal::unavailable("disk-full", format!("could not {doing}: the disk is full"))
        .received(cause)
        .next("free space on the disk of the data directory; nothing else is needed")
}

fn read_only(doing: &str, cause: &str) -> Refusal {
    Refusal::unavailable(
        "disk-read-only",
        format!("could not {doing}: the disk is read-only"),
    )
    .received(cause)
    .next("make the data directory writable by the server; nothing else is needed")
}

fn failed(doing: &str, cause: &str) -> Refusal {
    Refusal::unavailable("storage-failed", format!("could not {doing}"))
        .received(cause)
        .next("look at the disk and the permissions of the data directory")
}

/// SQLite says of a failed write only that it failed. Whether the disk is full or read-only is found
/// by writing to it.
pub(crate) fn diagnosed(dir: &Path, refusal: Refusal) -> Refusal {
    if refusal.code != "storage-failed" {
        return refusal;
    }
    let probe = dir.join("write-probe");
    let written = std::fs::write(&probe, [0; 4_096]);
    // What can't be written may be there all the same.
    let _gone = std::fs::remove_file(&probe);
    match written {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            io_refusal("write the ledger", &error)
        }
        Ok(()) | Err(_) => refusal,
    }
}

/// Makes the names in `dir` durable; a file whose name is lost is lost.
pub(crate) fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates `dir` with all its parents, for its owner alone.
pub(crate) fn create_private_directory(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

/// Options for a file that only its owner may read.
pub(crate) fn private_file() -> std::fs::OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}
