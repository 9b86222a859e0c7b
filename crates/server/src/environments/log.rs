//! A log file that never outgrows its bound, for processes that nobody rotates.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Largest log of a supervisor or proxy in bytes; with the one before it, twice that is used.
pub const LOG_MAX_BYTES: u64 = 1024 * 1024;

/// Appends to a file; at the bound it is renamed to `<path>.1` and begun anew. What can't be
/// written is dropped: a full disk must not stop what logs.
#[derive(Debug)]
pub struct BoundedLog {
    path: PathBuf,
    most: u64,
    file: Option<(File, u64)>,
}

impl BoundedLog {
    /// The log at `path`.
    pub fn new(path: impl Into<PathBuf>, most: u64) -> Self {
        Self {
            path: path.into(),
            most,
            file: None,
        }
    }

    fn write_bounded(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        if self
            .file
            .as_ref()
            .is_some_and(|(_, written)| written + length > self.most)
        {
            self.file = None;
            std::fs::rename(&self.path, older(&self.path))?;
        }
        if self.file.is_none() {
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&self.path)?;
            let size = file.metadata()?.len();
            self.file = Some((file, size));
        }
        if let Some((file, written)) = &mut self.file {
            file.write_all(bytes)?;
            *written += length;
        }
        Ok(())
    }
}

impl Write for BoundedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The next line may do better.
        drop(self.write_bounded(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_files_of_the_bound_are_the_most_it_takes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = BoundedLog::new(&path, 1_000);
        for number in 0..1_000 {
            writeln!(log, "line {number}").unwrap();
        }
        let sizes = [&path, &older(&path)].map(|path| std::fs::metadata(path).unwrap().len());
        assert!(sizes.iter().all(|size| *size <= 1_000), "{sizes:?}");
        assert!(
            std::fs::read_to_string(&path)
                .unwrap()
                .ends_with("line 999\n")
        );
    }

    #[test]
    fn a_disk_that_refuses_stops_nobody() {
        let mut log = BoundedLog::new("/proc/no/such/place", 1_000);
        assert!(writeln!(log, "lost").is_ok());
    }
}
