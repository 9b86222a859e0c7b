//! Data directories that older builds wrote, opened by this one.
//!
//! `fixtures/v1` was written by the first build with these tables: entries past a full tile, an
//! act that waited in the reserve when the process ended, a person, plain and sealed blobs, and no
//! snapshot. It is never written again; another form gets a directory of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod toy;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_model::Digest;
use portcullis_store::{Faults, Ledger, Person, RecordedIn, Step, VerifyOptions, verify};
use toy::{Toy, check, grant, open, options, trip};

/// Grants in the fixture, and the acts behind them.
const GRANTS: u64 = 270;
const WAITING: u64 = 2;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

/// A copy that may be written to.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// `size`, `root`, `chain` and `note`, as the build that wrote it saw them.
fn expected(name: &str) -> String {
    let text = fs::read_to_string(fixture().join("expected.txt")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap().replace('~', "\n")
}

#[test]
fn a_directory_of_the_first_build_opens_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture().join("data"), dir.path());
    let key = toy::key();
    let note = expected("note");
    let verified = verify::<Toy>(
        dir.path(),
        &VerifyOptions {
            key: portcullis_store::CheckpointSigner::verifier(&key),
            held: Some(&note),
            blobs_named_by: None,
        },
    )
    .unwrap();
    assert!(verified.is_sound(), "{verified:?}");
    assert_eq!(
        (verified.size, verified.reserved),
        (GRANTS + WAITING, WAITING)
    );

    let (ledger, report) = open(dir.path());
    assert_eq!(
        (report.size, report.from_reserve, report.waiting),
        (GRANTS + WAITING, WAITING, 0)
    );
    assert!(report.warnings.is_empty(), "{report:?}");
    let handle = ledger.handle();
    assert!(handle.state().is_tripped());
    assert_eq!(handle.state().chain.to_string(), expected("chain"));
    assert_eq!(handle.root(GRANTS).unwrap().to_string(), expected("root"));
    for name in ["plain", "sealed"] {
        let digest: Digest = expected(name).parse().unwrap();
        assert_eq!(handle.blobs().get(&digest).unwrap(), name.as_bytes());
    }
    let ada = handle.private().person(&"ada".parse().unwrap()).unwrap();
    assert_eq!(ada.unwrap().name, "Ada");
    let receipt = handle.submit_blocking(trip("by this build")).unwrap();
    assert_eq!(
        (receipt.first, receipt.recorded),
        (GRANTS + WAITING, RecordedIn::Ledger)
    );
    let state = handle.state();
    drop((ledger, handle));
    let (ledger, report) = open(dir.path());
    assert!(report.warnings.is_empty(), "{report:?}");
    assert_eq!(*ledger.handle().state(), *state);
    drop(ledger);
    assert!(check(dir.path()).is_sound());
}

#[test]
fn a_directory_of_a_later_build_is_refused() {
    for name in ["ledger.db", "private.db"] {
        let dir = tempfile::tempdir().unwrap();
        copy(&fixture().join("data"), dir.path());
        let connection = rusqlite::Connection::open(dir.path().join(name)).unwrap();
        connection
            .pragma_update(None, "user_version", 1_000)
            .unwrap();
        drop(connection);
        let refused = Ledger::<Toy>::open(dir.path(), options(Faults::default()));
        assert_eq!(refused.err().unwrap().code, "store-version", "{name}");
    }
}

#[test]
#[ignore = "writes the fixture, once per form: by the build whose form it shall show"]
fn write_the_fixture() {
    let target = fixture();
    assert!(!target.exists(), "what is written stays as it is");
    let dir = tempfile::tempdir().unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    let failing = Arc::clone(&fails);
    let faults = Faults::new(move |step| {
        if failing.load(Ordering::SeqCst) && step == Step::Planned {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    });
    let (ledger, _) = Ledger::<Toy>::open(dir.path(), options(faults)).unwrap();
    let handle = ledger.handle();
    let person = Person {
        name: "Ada".to_owned(),
        mail: None,
    };
    handle
        .private()
        .set_person(&"ada".parse().unwrap(), &person)
        .unwrap();
    let plain = handle.blobs().put(b"plain").unwrap();
    let sealed = handle.blobs().put_sealed(b"sealed").unwrap();
    std::thread::scope(|scope| {
        for writer in 0..9 {
            let handle = handle.clone();
            scope.spawn(move || {
                for nonce in 0..GRANTS / 9 {
                    handle.submit_blocking(grant(9 * nonce + writer)).unwrap();
                }
            });
        }
    });
    let checkpoint = handle.checkpoint();
    assert_eq!(checkpoint.size, GRANTS);
    fails.store(true, Ordering::SeqCst);
    for why in ["one", "two"] {
        assert_eq!(
            handle.submit_blocking(trip(why)).unwrap().recorded,
            RecordedIn::Reserve
        );
    }
    let chain = handle.state().chain;
    drop((ledger, handle));
    copy(dir.path(), &target.join("data"));
    let reserve = fs::OpenOptions::new()
        .write(true)
        .open(target.join("data/reserve.journal"))
        .unwrap();
    // The rest is zeros, and is made up for at the start.
    reserve.set_len(1_024).unwrap();
    fs::remove_file(target.join("data/lock")).unwrap();
    let note = checkpoint.note.replace('\n', "~");
    let root = checkpoint.root;
    fs::write(
        target.join("expected.txt"),
        format!("size {GRANTS}\nroot {root}\nchain {chain}\nplain {plain}\nsealed {sealed}\nnote {note}\n"),
    )
    .unwrap();
}
