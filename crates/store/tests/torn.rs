//! The ledger on a disk that loses and tears what was not synced (see `disk/mod.rs`).
//!
//! A child works on a data directory under `strace`. Its record is cut at random places; at each,
//! the directory is made as a power failure there could have left it, a ledger is opened on it,
//! and held against everything that the child had said by then: every entry acknowledged, every
//! checkpoint signed, every blob stored.
//!
//! `PORTCULLIS_TORN_FAILURES` sets how many failures are tried, `PORTCULLIS_TORN_SEED` where the
//! chances begin.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod disk;
mod toy;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use disk::{CALLS, Chance, Disk, Step, What, read_record};
use portcullis_evidence::merkle::MemoryTree;
use portcullis_evidence::note::VerifierKey;
use portcullis_model::{Digest, Refusal};
use portcullis_store::{
    CheckpointSigner, Faults, Ledger, LedgerHandle, LedgerOptions, LogKey, RecordedIn,
};
use toy::{Event, Toy, check, grant, options, trip};

/// Failures in the ordinary test run.
const FAILURES: usize = 120;
const DIR: &str = "PORTCULLIS_TORN_DIR";

#[test]
fn a_power_failure_at_any_moment_loses_and_halves_nothing() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let failures = number("PORTCULLIS_TORN_FAILURES").map_or(FAILURES, |n: u64| n as usize);
    let seed: u64 = number("PORTCULLIS_TORN_SEED").unwrap_or(1);
    let scratch = tempfile::tempdir_in(fast_directory()).unwrap();
    let steps = record(scratch.path());
    assert!(steps.len() > 1_000, "{} steps", steps.len());

    let mut chance = Chance(seed);
    let mut cuts: Vec<usize> = (0..failures).map(|_| chance.below(steps.len())).collect();
    cuts.sort_unstable();
    let mut disk = Disk::default();
    let mut told = Told::default();
    let mut taken = 0;
    let mut acknowledged = 0;
    for (number, cut) in cuts.into_iter().enumerate() {
        for step in &steps[taken..=cut] {
            disk.take(step);
            told.take(step);
        }
        taken = cut + 1;
        let case = format!("seed {seed}, failure {number}, after step {cut}");
        let dir = scratch.path().join("failed");
        disk.fail(&dir.join("data"), &mut chance);
        examine(&dir.join("data"), &told, &case);
        acknowledged += told.entries.len();
        std::fs::remove_dir_all(&dir).unwrap();
    }
    assert!(acknowledged > failures, "hardly anything was acknowledged");
}

/// Runs the child under `strace`, and reads the record.
fn record(scratch: &Path) -> Vec<Step> {
    let root = scratch.join("traced");
    std::fs::create_dir(&root).unwrap();
    let file = scratch.join("record");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-y", "-xx", "--seccomp-bpf", "-s", "1000000"])
        .arg(format!("--trace={CALLS}"))
        .arg("-o")
        .arg(&file)
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "child_that_works",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DIR, &root)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| {
            panic!("strace records what is written ({error}); `cargo xtask test` installs it")
        });
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    std::fs::remove_dir_all(&root).unwrap();
    read_record(&text, &root)
}

/// Thousands of directories are made and synced: in memory, if there is such a place.
fn fast_directory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if tempfile::tempdir_in(&memory).is_ok() {
        memory
    } else {
        std::env::temp_dir()
    }
}

/// What the child said up to some moment.
#[derive(Default)]
struct Told {
    /// Acknowledged entries by index.
    entries: BTreeMap<u64, String>,
    /// Signed checkpoints: size and root.
    signed: Vec<(u64, Digest)>,
    blobs: Vec<Digest>,
}

impl Told {
    fn take(&mut self, step: &Step) {
        let What::Said(line) = &step.what else { return };
        let Some((kind, rest)) = line.split_once(' ') else {
            return;
        };
        let mut fields = rest.split('|');
        let mut field = || fields.next().unwrap();
        match kind {
            "ack" => {
                let index = field().parse().unwrap();
                let what = field().to_owned();
                if let Some(before) = self.entries.insert(index, what.clone()) {
                    panic!("entry {index} was acknowledged as {before} and as {what}");
                }
            }
            "signed" => {
                let size = field().parse().unwrap();
                self.signed.push((size, field().parse().unwrap()));
            }
            "blob" => self.blobs.push(field().parse().unwrap()),
            _ => {}
        }
    }
}

/// Opens what the failure left and holds it against what had been said.
fn examine(dir: &Path, told: &Told, case: &str) {
    let opened = Ledger::<Toy>::open(dir, options(Faults::default()));
    let (ledger, report) = opened.unwrap_or_else(|refusal| panic!("{case}: {refusal}"));
    assert!(report.warnings.is_empty(), "{case}: {report:?}");
    let handle = ledger.handle();
    let size = handle.size();
    assert_eq!(
        handle.checkpoint().size,
        size,
        "{case}: all that stands is signed"
    );

    let mut tree = MemoryTree::default();
    let mut roots = vec![tree.root()];
    let mut stands = Vec::new();
    let mut index = 0;
    while index < size {
        for entry in handle.entries(index, 1_000).unwrap() {
            tree.append(entry.leaf).unwrap();
            roots.push(tree.root());
            stands.push(describe(&handle.event(entry.index).unwrap()));
            index = entry.index + 1;
        }
    }
    for (index, what) in &told.entries {
        let found = stands.get(usize::try_from(*index).unwrap());
        assert_eq!(found, Some(what), "{case}: entry {index} was acknowledged");
    }
    for (size, root) in &told.signed {
        let found = roots.get(usize::try_from(*size).unwrap());
        assert_eq!(found, Some(root), "{case}: size {size} was signed");
    }
    for (index, what) in stands.iter().enumerate() {
        if what.ends_with("first") {
            let other = stands
                .get(index + 1)
                .is_some_and(|next| next.ends_with("second"));
            assert!(other, "{case}: half a command stands at {index}");
        }
    }
    for digest in &told.blobs {
        assert!(handle.blobs().get(digest).is_ok(), "{case}: blob {digest}");
    }
    // It goes on from there.
    handle.submit_blocking(trip("after the failure")).unwrap();
    drop((ledger, handle));
    let report = check(dir);
    assert!(report.is_sound(), "{case}: {report:?}");
    assert_eq!(report.size, size + 1, "{case}");
}

fn describe(event: &Event) -> String {
    match event {
        Event::Granted { nonce, body, .. } => format!("grant {nonce} {body}"),
        Event::Tripped { why, .. } => format!("trip {why}"),
    }
}

/// One line, one write: whole in the record.
fn say(line: &str) {
    io::stdout()
        .lock()
        .write_all(format!("{line}\n").as_bytes())
        .unwrap();
}

/// Says what it signed before anybody else knows.
struct Telling(LogKey);

impl CheckpointSigner for Telling {
    fn sign(&self, size: u64, root: &Digest) -> Result<String, Refusal> {
        let note = self.0.sign(size, root)?;
        say(&format!("signed {size}|{root}"));
        Ok(note)
    }

    fn sign_snapshot(&self, text: &str) -> Result<String, Refusal> {
        self.0.sign_snapshot(text)
    }

    fn verifier(&self) -> &VerifierKey {
        self.0.verifier()
    }
}

#[test]
#[ignore = "the child of the test above"]
fn child_that_works() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else {
        return;
    };
    for session in 0..4_u64 {
        let ordinary = session != 2;
        let planned = AtomicU64::new(0);
        // In one session the database fails half of the time, so that the reserve has to serve.
        let faults = Faults::new(move |step| {
            let fails = step == portcullis_store::Step::Planned
                && !ordinary
                && planned.fetch_add(1, Ordering::SeqCst) % 8 >= 4;
            if fails {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            } else {
                Ok(())
            }
        });
        let options = LedgerOptions {
            signer: Box::new(Telling(toy::key())),
            snapshot_every: 32,
            ..options(faults)
        };
        let (ledger, _) = Ledger::<Toy>::open(&dir, options).unwrap();
        let handle = ledger.handle();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let handle = handle.clone();
                scope.spawn(move || work(&handle, session, writer));
            }
        });
        drop((ledger, handle));
    }
}

fn work(handle: &LedgerHandle<Toy>, session: u64, writer: u64) {
    for number in 0..70 {
        let nonce = 2 * (session * 10_000 + number * 4 + writer);
        // The last session trips for good; the reserve needs what reduces authority.
        let command = match (session, number % 5) {
            (2.., 0..=3) => trip(&nonce.to_string()),
            (_, 4) => toy::Command::Pair { nonce },
            _ => grant(nonce),
        };
        if number % 10 == 3 {
            let blob = handle.blobs().put(&nonce.to_be_bytes()).unwrap();
            say(&format!("blob {blob}"));
        }
        if number % 16 == 5 {
            // Long enough for the sequencer to store a checkpoint by itself.
            std::thread::sleep(std::time::Duration::from_millis(80));
        }
        let Ok(receipt) = handle.submit_blocking(command) else {
            continue;
        };
        if receipt.recorded != RecordedIn::Pending {
            for (place, event) in receipt.events.iter().enumerate() {
                let index = receipt.first + place as u64;
                say(&format!("ack {index}|{}", describe(event)));
            }
        }
    }
}

#[test]
fn a_sync_covers_only_what_had_returned_when_it_was_called() {
    // As `strace` splits a line when two threads are at work.
    let text = "7 pwrite64(3</d/a>, \"\\x61\\x62\", 2, 1 <unfinished ...>\n\
                8 fdatasync(3</d/a>)                       = 0\n\
                7 <... pwrite64 resumed>)                 = 2\n";
    let hex = |text: &str| -> String { text.bytes().map(|b| format!("\\x{b:02x}")).collect() };
    let text = text.replace("/d/a", &hex("/d/a"));
    let steps = read_record(&text, Path::new("/d"));
    let mut disk = Disk::default();
    disk.take(&Step {
        at: 0,
        what: What::Create("a".into()),
    });
    for step in &steps {
        disk.take(step);
    }
    assert_eq!(steps.len(), 2, "{steps:?}");
    // The write had not returned when the sync was called: it is not covered.
    assert_eq!(disk.unsynced(Path::new("a")), 1);
}
