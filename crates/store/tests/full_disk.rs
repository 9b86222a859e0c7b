//! The ledger on a disk that really is full: a small tmpfs, mounted by the test.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test may panic, and says why it could not run"
)]

mod toy;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use portcullis_store::{LedgerHandle, RecordedIn};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use toy::{Command, Toy, check, open, trip};

/// A tmpfs of 12 MiB, unmounted when dropped.
struct SmallDisk {
    at: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount() -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let options = c"size=12m,mode=0700";
        match mount("tmpfs", at.path(), "tmpfs", MountFlags::empty(), options) {
            Ok(()) => Some(Self { at }),
            Err(error) => {
                eprintln!("skipped: this needs root, to mount a small disk ({error})");
                None
            }
        }
    }

    fn data(&self) -> PathBuf {
        self.at.path().join("data")
    }

    /// Writes until not one byte more fits.
    fn fill(&self) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.ballast())
            .unwrap();
        let mut piece = vec![0xaa; 64 * 1024];
        while !piece.is_empty() {
            if file.write_all(&piece).is_err() {
                piece.truncate(piece.len() / 2);
            }
        }
        let other = self.at.path().join("other");
        assert!(
            std::fs::write(&other, vec![1; 8192]).is_err(),
            "the disk is full"
        );
        std::fs::remove_file(other).unwrap();
    }

    fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.at.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _still_mounted = unmount(self.at.path(), UnmountFlags::DETACH);
    }
}

fn large(nonce: u64) -> Command {
    Command::Grant {
        nonce,
        body: "x".repeat(30_000),
    }
}

/// Grants until the disk takes no more: what was allocated before it was full may still be used.
fn exhaust(handle: &LedgerHandle<Toy>, first: u64) -> u64 {
    for nonce in first..first + 1_000 {
        if let Err(refusal) = handle.submit_blocking(large(nonce)) {
            assert_eq!(refusal.code, "disk-full", "{refusal}");
            return nonce;
        }
    }
    panic!("the disk never got full");
}

fn wait_for_size(handle: &LedgerHandle<Toy>, size: u64) {
    let start = Instant::now();
    while handle.checkpoint().size < size {
        assert!(start.elapsed() < Duration::from_secs(10), "size {size}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn grants_stop_reads_go_on_and_the_breaker_works() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let (ledger, _) = open(&disk.data());
    let handle = ledger.handle();
    for nonce in 0..20 {
        handle.submit_blocking(large(nonce)).unwrap();
    }
    disk.fill();
    let granted = exhaust(&handle, 20);
    assert!(handle.submit_blocking(large(granted)).is_err());
    assert_eq!(handle.size(), granted);
    assert!(handle.blobs().put(&vec![3; 100_000]).is_err());

    let receipt = handle.submit_blocking(trip("full disk")).unwrap();
    assert_eq!(
        (receipt.first, receipt.recorded),
        (granted, RecordedIn::Reserve)
    );
    assert!(handle.state().is_tripped());
    for round in 1..100 {
        let receipt = handle.submit_blocking(trip("again")).unwrap();
        assert_eq!(
            (receipt.first, receipt.recorded),
            (granted + round, RecordedIn::Reserve)
        );
    }
    assert_eq!(handle.size(), granted + 100);
    assert_eq!(handle.entry(0).unwrap().index, 0);
    assert_eq!(handle.entries(granted, 1_000).unwrap().len(), 100);
    let checkpoint = handle.checkpoint();
    assert_eq!(checkpoint.size, granted);
    handle.inclusion_proof(3, checkpoint.size).unwrap();
    assert!(check(&disk.data()).is_sound());

    disk.free();
    wait_for_size(&handle, granted + 100);
    assert_eq!(
        handle.submit_blocking(large(5_000)).unwrap_err().code,
        "tripped"
    );
    let state = handle.state();
    drop((ledger, handle));
    let report = check(&disk.data());
    assert!(report.is_sound() && report.reserved == 0, "{report:?}");
    assert_eq!(*open(&disk.data()).0.handle().state(), *state);
}

#[test]
fn a_restart_on_the_full_disk_knows_that_the_breaker_was_tripped() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let (ledger, _) = open(&disk.data());
    let handle = ledger.handle();
    handle.submit_blocking(large(0)).unwrap();
    disk.fill();
    let granted = exhaust(&handle, 1);
    handle.submit_blocking(trip("full disk")).unwrap();
    // A copy of the files as they are is what a killed process leaves behind.
    let killed = SmallDisk::mount().unwrap();
    copy(&disk.data(), &killed.data());
    killed.fill();
    drop((ledger, handle));

    let (ledger, report) = open(&killed.data());
    let handle = ledger.handle();
    assert_eq!((report.size, report.from_reserve), (granted + 1, 1));
    assert!(handle.state().is_tripped());
    assert_eq!(handle.entry(granted).unwrap().index, granted);
    let receipt = handle.submit_blocking(trip("still full")).unwrap();
    assert_eq!(receipt.first, granted + 1);
    drop((ledger, handle));
    killed.free();
    let (ledger, report) = open(&killed.data());
    assert_eq!((report.size, report.waiting), (granted + 2, 0));
    assert_eq!(ledger.handle().checkpoint().size, granted + 2);
    drop(ledger);
    assert!(check(&killed.data()).is_sound());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
