//! The ledger on a file system that turned read-only under it, as the kernel does when it finds the
//! disk damaged: an ext4 of the test's own, in a file.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test may panic, and says why it could not run"
)]

mod toy;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use portcullis_model::Refusal;
use portcullis_store::{Faults, Ledger, RecordedIn};
use toy::{Toy, check, grant, open, options, trip};

struct Disk {
    dir: tempfile::TempDir,
}

fn succeeds(command: &mut Command) -> bool {
    let status = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .stdin(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

impl Disk {
    /// `None` where this process may not make one.
    fn new() -> Option<Self> {
        let disk = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(disk.at()).unwrap();
        let image = fs::File::create(disk.image()).unwrap();
        image.set_len(48 * 1024 * 1024).unwrap();
        let made = succeeds(
            Command::new("mkfs.ext4")
                .args(["-q", "-F"])
                .arg(disk.image()),
        );
        if made && disk.mount() && disk.switch().exists() {
            return Some(disk);
        }
        eprintln!("skipped: this needs root, a loop device and ext4, to make a disk of its own");
        None
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn at(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn data(&self) -> PathBuf {
        self.at().join("data")
    }

    fn mount(&self) -> bool {
        succeeds(
            Command::new("mount")
                .args(["-o", "loop,errors=remount-ro"])
                .arg(self.image())
                .arg(self.at()),
        )
    }

    fn unmount(&self) -> bool {
        succeeds(Command::new("umount").arg(self.at()))
    }

    /// Where the kernel takes "you have found an error".
    fn switch(&self) -> PathBuf {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let at = self.at();
        let device = mounts.lines().find_map(|line| {
            let (device, rest) = line.split_once(' ')?;
            (rest.split(' ').next()? == at.to_str()?).then(|| device.to_owned())
        });
        let name = device.unwrap_or_default().replace("/dev/", "");
        PathBuf::from(format!("/sys/fs/ext4/{name}/trigger_fs_error"))
    }

    fn turn_read_only(&self) {
        fs::write(self.switch(), "1").unwrap();
        let refused = fs::write(self.at().join("other"), [1]).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }

    /// What an operator does.
    fn mend(&self) {
        assert!(self.unmount());
        let mut fsck = Command::new("e2fsck");
        // 1 says that something was mended.
        let _mended = succeeds(fsck.args(["-f", "-y"]).arg(self.image()));
        assert!(self.mount());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _never_mounted = succeeds(Command::new("umount").arg("--lazy").arg(self.at()));
    }
}

fn open_refused(disk: &Disk) -> Refusal {
    Ledger::<Toy>::open(&disk.data(), options(Faults::default()))
        .err()
        .unwrap()
}

#[test]
fn grants_stop_reads_go_on_and_the_breaker_works_in_memory_and_says_so() {
    let Some(disk) = Disk::new() else { return };
    let (ledger, _) = open(&disk.data());
    let handle = ledger.handle();
    for nonce in 0..300 {
        handle.submit_blocking(grant(nonce)).unwrap();
    }
    let blob = handle.blobs().put(b"a body").unwrap();
    disk.turn_read_only();

    let refused = handle.submit_blocking(grant(1_000)).unwrap_err();
    assert_eq!(refused.code, "disk-read-only", "{refused}");
    assert_eq!(
        handle.blobs().put(b"another").unwrap_err().code,
        "disk-read-only"
    );
    // Not even the reserve: it holds, and is told to be nowhere.
    let receipt = handle.submit_blocking(trip("read-only")).unwrap();
    assert_eq!(
        (receipt.first, receipt.recorded),
        (300, RecordedIn::Pending)
    );
    assert!(handle.state().is_tripped());
    let writing = handle.writing();
    assert_eq!((writing.unrecorded, writing.reserved), (1, 0));
    assert_eq!(writing.failed.unwrap().refusal.code, "disk-read-only");
    // Reads go on, on connections that are open and on new ones.
    assert_eq!(handle.entries(0, 1_000).unwrap().len(), 300);
    assert_eq!(handle.blobs().get(&blob).unwrap(), b"a body");
    let size = handle.checkpoint().size;
    handle.inclusion_proof(7, size).unwrap();
    drop((ledger, handle));

    // It does not start where it could record nothing, and says why.
    let refusal = open_refused(&disk);
    assert_eq!(refusal.code, "disk-read-only", "{refusal}");
    disk.mend();
    let (ledger, report) = open(&disk.data());
    assert_eq!(
        report.size, 300,
        "what was granted is there; what was pending is lost"
    );
    ledger.handle().submit_blocking(trip("again")).unwrap();
    drop(ledger);
    assert!(check(&disk.data()).is_sound());
}
