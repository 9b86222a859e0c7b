//! Reading one file that others wrote: bounded, never hanging, whatever the name stands for.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::Path;

/// Why one file could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadProblem {
    Missing,
    /// More than this many bytes.
    TooLarge(u64),
    /// A directory, a pipe, a socket or a device.
    NoFile,
    Binary,
    Failed(String),
}

impl ReadProblem {
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Missing => "there is no such file".to_owned(),
            Self::TooLarge(most) => format!("the file has more than {most} bytes: not read"),
            Self::NoFile => "a directory, pipe, socket or device, no file".to_owned(),
            Self::Binary => "the file is binary".to_owned(),
            Self::Failed(text) => text.clone(),
        }
    }
}

impl From<std::io::Error> for ReadProblem {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::NotFound {
            Self::Missing
        } else {
            Self::Failed(error.to_string())
        }
    }
}

/// The bytes of a regular file, at most `most` of them. The kind is asked of the opened file, so
/// that a file which turns into a pipe meanwhile doesn't hang the scan, and the bound holds for a
/// file that grows while it is read.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>, ReadProblem> {
    let file = open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(ReadProblem::NoFile);
    }
    if meta.len() > most {
        return Err(ReadProblem::TooLarge(most));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default());
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(ReadProblem::TooLarge(most));
    }
    Ok(bytes)
}

/// One of git's own small files as text.
pub(crate) fn read_small(path: &Path) -> Option<String> {
    /// Largest of git's own files that is looked at, in bytes.
    const BYTES_MAX: u64 = 1024 * 1024;
    decode(&read(path, BYTES_MAX).ok()?)
}

#[cfg(unix)]
fn open(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    // Without NONBLOCK, opening a pipe that nobody writes to would wait for ever.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)
}

#[cfg(not(unix))]
fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).open(path)
}

/// Bytes as text: UTF-8, UTF-16 with a byte order mark, else Latin-1; `None` for binary.
pub(crate) fn decode(bytes: &[u8]) -> Option<String> {
    match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => Some(String::from_utf8_lossy(rest).into_owned()),
        [0xFF, 0xFE, rest @ ..] => Some(utf16(rest, u16::from_le_bytes)),
        [0xFE, 0xFF, rest @ ..] => Some(utf16(rest, u16::from_be_bytes)),
        _ if bytes.contains(&0) => None,
        _ => Some(match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
        }),
    }
}

fn utf16(bytes: &[u8], join: fn([u8; 2]) -> u16) -> String {
    let units = bytes.chunks_exact(2).map(|pair| match pair {
        [low, high] => join([*low, *high]),
        _ => 0xFFFD,
    });
    char::decode_utf16(units)
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_read_and_binaries_are_not() {
        assert_eq!(decode(b"\xEF\xBB\xBFon: push").unwrap(), "on: push");
        assert_eq!(decode(b"\xFF\xFEo\0n\0").unwrap(), "on");
        assert_eq!(decode(b"\xFE\xFF\0o\0n").unwrap(), "on");
        assert_eq!(decode(b"caf\xE9").unwrap(), "caf\u{e9}");
        assert_eq!(decode(b"\x7fELF\0\0"), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_a_device_and_a_directory_are_told_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert_eq!(read(&pipe, 10), Err(ReadProblem::NoFile));
        assert_eq!(read(Path::new("/dev/zero"), 10), Err(ReadProblem::NoFile));
        assert_eq!(read(directory.path(), 10), Err(ReadProblem::NoFile));
        assert_eq!(
            read(&directory.path().join("x"), 10),
            Err(ReadProblem::Missing)
        );
        let file = directory.path().join("file");
        std::fs::write(&file, "12345678901").unwrap();
        assert_eq!(read(&file, 10), Err(ReadProblem::TooLarge(10)));
        assert_eq!(read(&file, 11).unwrap().len(), 11);
    }
}
