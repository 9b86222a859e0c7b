//! One server per data directory.

use std::fs::{File, TryLockError};
use std::os::unix::fs::FileExt;
use std::path::Path;

use portcullis_model::Refusal;

use crate::disk::{io_refusal, private_file};

/// Holds the data directory until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    file: File,
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing is not enough: a process that is being forked right now has the file too, until
        // it executes its program, and would hold the lock for that long.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "the data directory could not be given back");
        }
    }
}

/// Width of the holder's process id in the file: written in place, so that a full disk has
/// nothing to allocate.
const PID_BYTES: usize = 20;

impl DirectoryLock {
    /// Takes the lock of `dir`, which must exist.
    pub(crate) fn take(dir: &Path) -> Result<Self, Refusal> {
        let path = dir.join("lock");
        let file = private_file()
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| io_refusal(&format!("open {}", path.display()), &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(dir, &file)),
            Err(TryLockError::Error(error)) => {
                return Err(io_refusal(&format!("lock {}", path.display()), &error));
            }
        }
        let pid = format!("{:<1$}", std::process::id(), PID_BYTES);
        if let Err(error) = file.write_all_at(pid.as_bytes(), 0) {
            // The kernel holds the lock; the number is for people.
            tracing::warn!(error = %error, "the lock file does not name this process");
        }
        Ok(Self { file })
    }
}

fn held(dir: &Path, file: &File) -> Refusal {
    let mut text = [0_u8; PID_BYTES];
    let pid = match file.read_exact_at(&mut text, 0) {
        Ok(()) => String::from_utf8_lossy(&text).trim().to_owned(),
        Err(_) => "unknown".to_owned(),
    };
    Refusal::conflict(
        "data-directory-held",
        format!(
            "another server (process {pid}) uses the data in {}",
            dir.display()
        ),
    )
    .expected("one server per data directory")
    .received(&format!("process {pid} holds it"))
    .next("stop that process, or use another data directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_holder_is_refused_with_the_first_ones_pid() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirectoryLock::take(dir.path()).unwrap();
        let refusal = DirectoryLock::take(dir.path()).unwrap_err();
        assert_eq!(refusal.code, "data-directory-held");
        let pid = std::process::id().to_string();
        assert!(
            refusal.message.contains(&format!("process {pid})")),
            "{refusal}"
        );
        // As in a child between fork and exec.
        let _inherited = first.file.try_clone().unwrap();
        drop(first);
        DirectoryLock::take(dir.path()).unwrap();
    }
}
