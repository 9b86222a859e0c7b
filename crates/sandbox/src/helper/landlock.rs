//! The second layer: file access, signals and tracing, held by the kernel even where the first
//! layer (the mounts, the pid namespace) had a hole.

use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};

use crate::spec::{HOME, WORKSPACE};
use crate::sys::{self, LandlockAttributes};

/// Older versions forbid moving files between directories, which breaks git and compilers.
const VERSION_LEAST: i64 = 2;

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_BLOCK: u64 = 1 << 11;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// Abstract unix sockets and signals stay within the domain.
const SCOPES: u64 = 0b11;

/// What the kernel offers, in words, or why it can't be used.
pub(super) fn available() -> io::Result<i64> {
    let version = sys::landlock_version()?;
    if version < VERSION_LEAST {
        return Err(io::Error::other(format!(
            "the kernel has version {version}, {VERSION_LEAST} is needed"
        )));
    }
    Ok(version)
}

/// Puts this process under the rules. Called inside, after the root has been built.
pub(super) fn enter() -> io::Result<()> {
    let version = available()?;
    // Each version knows more rights: 13 in version 1, then moving, truncating, device control.
    let known: u64 = match version {
        ..=2 => (1 << 14) - 1,
        3..=4 => (1 << 15) - 1,
        5.. => (1 << 16) - 1,
    };
    let attributes = LandlockAttributes {
        files: known,
        network: 0,
        scoped: if version >= 6 { SCOPES } else { 0 },
    };
    let size = match version {
        ..=3 => 8,
        4..=5 => 16,
        6.. => 24,
    };
    let rules = sys::landlock_rules(&attributes, size)?;
    let allow = |path: &str, rights: u64| -> io::Result<()> {
        if !Path::new(path).exists() {
            return Ok(());
        }
        let place = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        sys::landlock_allow(&rules, place, rights & known)
    };
    allow("/", EXECUTE | READ_FILE | READ_DIR)?;
    let everything = known & !(MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV);
    for place in [WORKSPACE, HOME, "/tmp", "/var/tmp", "/run", "/dev/shm"] {
        allow(place, everything)?;
    }
    allow(
        "/dev",
        READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | IOCTL_DEV,
    )?;
    // Names of threads and the like; what matters in /proc is mounted read-only.
    allow("/proc", READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE)?;
    sys::landlock_enter(&rules)
}
