//! Starts from snapshots: what is used, what is ignored, and what a forged one comes to.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod toy;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use portcullis_evidence::signer::Signer;
use portcullis_model::{Digest, Fold, Secret};
use portcullis_store::{CheckpointSigner, Faults, Ledger, LedgerOptions, LogKey, OpenReport};
use toy::{FORM, Toy, check, grant, options, trip};

/// Entries of the ledger that the tests start from; past a full tile.
const ENTRIES: u64 = 300;

/// Written when the ledger is closed after that many entries, and not before.
fn often() -> LedgerOptions {
    LedgerOptions {
        snapshot_every: 16 * ENTRIES,
        ..options(Faults::default())
    }
}

fn never() -> LedgerOptions {
    LedgerOptions {
        snapshot_every: u64::MAX,
        ..options(Faults::default())
    }
}

fn start(dir: &Path, options: LedgerOptions) -> (Ledger<Toy>, OpenReport) {
    Ledger::open(dir, options).unwrap()
}

/// A ledger with a snapshot of all of its entries.
fn filled(dir: &Path, first: u64) {
    let (ledger, _) = start(dir, often());
    for nonce in first..first + ENTRIES {
        ledger.handle().submit_blocking(grant(nonce)).unwrap();
    }
    ledger.close().unwrap();
    assert!(snapshots(dir)[0].ends_with(format!("{ENTRIES:020}.snapshot")));
}

/// The snapshots of a directory, newest first.
fn snapshots(dir: &Path) -> Vec<PathBuf> {
    let folder = fs::read_dir(dir.join("snapshots")).unwrap();
    let mut found: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found.reverse();
    found
}

/// A snapshot as `key` would sign it.
fn file(key: &LogKey, form: &str, size: u64, root: Digest, state: &[u8]) -> Vec<u8> {
    let origin = key.verifier().name();
    let digest = Digest::of(state);
    let text = format!("portcullis snapshot v1\n{origin}\n{form}\n{size}\n{root}\n{digest}\n");
    let note = key.sign_snapshot(&text).unwrap();
    let length = u32::try_from(note.len()).unwrap().to_be_bytes();
    [b"PSNAP01\n", &length[..], note.as_bytes(), state].concat()
}

/// Opens without writing new snapshots, and says what was used and warned of.
fn opened(dir: &Path) -> (Toy, OpenReport) {
    let (ledger, report) = start(dir, never());
    let state = Toy::clone(&ledger.handle().state());
    ledger.close().unwrap();
    (state, report)
}

#[test]
fn a_start_reads_the_newest_snapshot_and_folds_what_follows() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 0);
    let (ledger, report) = start(dir.path(), never());
    assert_eq!(report.from_snapshot, ENTRIES);
    assert!(report.warnings.is_empty(), "{report:?}");
    for nonce in ENTRIES..ENTRIES + 7 {
        ledger.handle().submit_blocking(grant(nonce)).unwrap();
    }
    // A nonce from before the snapshot is known.
    let refused = ledger.handle().submit_blocking(grant(3)).unwrap_err();
    assert_eq!(refused.code, "nonce-used");
    ledger.close().unwrap();

    let (with, report) = opened(dir.path());
    assert_eq!((report.from_snapshot, report.size), (ENTRIES, ENTRIES + 7));
    assert!(check(dir.path()).is_sound());
    fs::remove_dir_all(dir.path().join("snapshots")).unwrap();
    let (without, report) = opened(dir.path());
    assert_eq!((report.from_snapshot, report.warnings.len()), (0, 0));
    assert_eq!(with, without);
}

#[test]
fn what_does_not_hold_is_ignored_with_a_warning_and_the_log_is_folded() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 0);
    let snapshot = snapshots(dir.path())[0].clone();
    let whole = fs::read(&snapshot).unwrap();
    let (state, report) = opened(dir.path());
    assert_eq!(report.from_snapshot, ENTRIES);
    let root = report.checkpoint.root;
    let bytes = state.to_snapshot().unwrap();

    let mut cases: Vec<(String, PathBuf, Vec<u8>)> = Vec::new();
    let mut case = |what: &str, path: &Path, bytes: Vec<u8>| {
        cases.push((what.to_owned(), path.to_owned(), bytes));
    };
    let mut at = 0;
    while at < whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        case(&format!("byte {at} is damaged"), &snapshot, damaged);
        case(&format!("cut off at {at}"), &snapshot, whole[..at].to_vec());
        at += 1 + whole.len() / 40;
    }
    let key = toy::key();
    let stranger = Signer::from_seed(&Secret::new([8; 32])).unwrap();
    let stranger = LogKey::new(key.verifier().name().clone(), stranger);
    let again = file(&key, FORM, ENTRIES, root, &bytes);
    assert_eq!(again, whole, "the cases below differ in one thing each");
    let foreign = file(&stranger, FORM, ENTRIES, root, &bytes);
    case("signed by another key", &snapshot, foreign);
    let older = file(&key, "toy 0", ENTRIES, root, &bytes);
    case("of an older fold", &snapshot, older);
    let another = file(&key, FORM, ENTRIES, Digest::of(b"other"), &bytes);
    case("of another tree", &snapshot, another);
    let fewer = file(
        &key,
        FORM,
        ENTRIES,
        root,
        &Toy::empty().to_snapshot().unwrap(),
    );
    case("with the state of another size", &snapshot, fewer);
    let newer = snapshot.with_file_name(format!("{:020}.snapshot", ENTRIES + 1));
    case(
        "newer than the log",
        &newer,
        file(&key, FORM, ENTRIES + 1, root, &bytes),
    );
    case("named for another size", &newer, whole.clone());

    for (what, path, bytes) in cases {
        fs::remove_dir_all(dir.path().join("snapshots")).unwrap();
        fs::create_dir(dir.path().join("snapshots")).unwrap();
        fs::write(&path, &bytes).unwrap();
        let (found, report) = opened(dir.path());
        assert_eq!(found, state, "{what}");
        assert_eq!(report.from_snapshot, 0, "{what}");
        assert_eq!(report.warnings.len(), 1, "{what}: {report:?}");
        assert_eq!(report.warnings[0].code, "snapshot-ignored", "{what}");
    }
}

#[test]
fn an_older_snapshot_serves_when_the_newest_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 0);
    let (ledger, _) = start(dir.path(), often());
    for nonce in ENTRIES..2 * ENTRIES {
        ledger.handle().submit_blocking(grant(nonce)).unwrap();
    }
    ledger.close().unwrap();
    let found = snapshots(dir.path());
    assert_eq!(found.len(), 2, "the newest and one to fall back to");
    fs::write(&found[0], b"damaged").unwrap();
    let (_, report) = opened(dir.path());
    assert_eq!(report.from_snapshot, ENTRIES);
    assert_eq!(report.warnings.len(), 1);
}

#[test]
fn a_snapshot_forged_with_the_logs_own_key_stops_grants_and_is_not_used_again() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 0);
    let (state, report) = opened(dir.path());
    // A state in which nonce 3 was never used.
    let text = String::from_utf8(state.to_snapshot().unwrap()).unwrap();
    let forged = text.replacen("[0,1,2,3,4", "[0,1,2,4", 1);
    assert_ne!(forged, text);
    let bytes = file(
        &toy::key(),
        FORM,
        ENTRIES,
        report.checkpoint.root,
        forged.as_bytes(),
    );
    fs::write(&snapshots(dir.path())[0], bytes).unwrap();

    let verified = check(dir.path());
    assert_eq!(verified.findings[0].reason.code, "snapshot-altered");

    let (ledger, report) = start(dir.path(), never());
    assert_eq!(report.from_snapshot, ENTRIES, "nothing tells it apart yet");
    let handle = ledger.handle();
    let begun = Instant::now();
    let mut nonce = 10_000;
    let refused = loop {
        assert!(begun.elapsed() < Duration::from_secs(20));
        nonce += 1;
        if let Err(refusal) = handle.submit_blocking(grant(nonce)) {
            break refusal;
        }
    };
    assert_eq!(refused.code, "snapshot-forged");
    handle
        .submit_blocking(trip("less authority is never blocked"))
        .unwrap();
    ledger.close().unwrap();

    let (state, report) = opened(dir.path());
    assert_eq!(report.from_snapshot, 0, "the forged one is put away");
    assert!(report.warnings.is_empty(), "{report:?}");
    assert!(state.is_tripped());
    assert!(check(dir.path()).is_sound());
}

#[test]
fn an_entry_altered_behind_a_snapshot_stops_grants() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 0);
    let database = rusqlite::Connection::open(dir.path().join("ledger.db")).unwrap();
    let altered = "UPDATE entries SET bytes =
        CAST(replace(CAST(bytes AS TEXT), 'grant 7', 'grant 8') AS BLOB) WHERE idx = 7";
    assert_eq!(database.execute(altered, ()).unwrap(), 1);
    drop(database);
    let (ledger, report) = start(dir.path(), never());
    assert_eq!(report.from_snapshot, ENTRIES);
    let begun = Instant::now();
    let mut nonce = 10_000;
    let refused = loop {
        assert!(begun.elapsed() < Duration::from_secs(20));
        nonce += 1;
        if let Err(refusal) = ledger.handle().submit_blocking(grant(nonce)) {
            break refusal;
        }
    };
    assert_eq!(refused.code, "entry-altered");
}

#[test]
fn a_snapshot_of_another_log_of_the_same_key_is_told_apart() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    filled(one.path(), 0);
    filled(other.path(), 5_000);
    let newest = &snapshots(other.path())[0];
    fs::copy(newest, &snapshots(one.path())[0]).unwrap();
    let (_, report) = opened(one.path());
    assert!(report.from_snapshot < ENTRIES);
    assert_eq!(report.warnings.len(), 1, "{report:?}");
    assert!(report.warnings[0].message.contains("another log"));
}
