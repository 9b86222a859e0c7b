//! Data directories that somebody changed: what a start refuses and what a verification names.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod toy;

use std::path::Path;

use portcullis_evidence::merkle::leaf_hash;
use portcullis_model::{Digest, Refusal};
use portcullis_store::{
    CheckpointSigner, Faults, Ledger, Rebuilt, VerifyOptions, rebuild_tree, verify,
};
use toy::{Event, Toy, check, grant, literal, open, options_in, sql, trip};

/// Enough for two full tiles and a partial one.
const ENTRIES: u64 = 600;

fn fill(dir: &Path) {
    let (ledger, _) = open(dir);
    let handle = ledger.handle();
    // Few commits, so that the case is cheap; each takes what waits by then.
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let handle = handle.clone();
            scope.spawn(move || {
                for nonce in 0..ENTRIES / 8 {
                    handle
                        .submit_blocking(grant(writer * 1_000 + nonce))
                        .unwrap();
                }
            });
        }
    });
}

fn start(dir: &Path) -> Refusal {
    Ledger::<Toy>::open(dir, options_in(dir, Faults::default()))
        .err()
        .expect("it must not start")
}

/// Replaces the bytes of an entry by those of another grant, and its leaf hash with `leaf`.
fn forge(dir: &Path, index: u64, leaf: bool) {
    let event = Event::Granted {
        nonce: 77_777,
        body: "forged".to_owned(),
        time: toy::START,
    };
    let bytes = portcullis_model::canonical::to_vec(&event).unwrap();
    let forged = literal(&bytes);
    sql(
        dir,
        &format!("UPDATE entries SET bytes = {forged} WHERE idx = {index}"),
    );
    if leaf {
        let forged = literal(leaf_hash(&bytes).as_bytes());
        sql(
            dir,
            &format!("UPDATE entries SET leaf = {forged} WHERE idx = {index}"),
        );
    }
}

#[test]
fn changed_bytes_are_found_at_their_index() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    assert!(check(dir.path()).is_sound());
    forge(dir.path(), 300, false);
    let refusal = start(dir.path());
    assert_eq!(refusal.code, "entry-altered");
    assert!(refusal.message.starts_with("entry 300:"), "{refusal}");
    let report = check(dir.path());
    let (index, reason) = report.first_bad().unwrap();
    assert_eq!((index, reason.code.as_str()), (300, "entry-altered"));
    assert_eq!(report.size, 300);
}

#[test]
fn changed_bytes_with_a_fitting_leaf_hash_are_found_by_tile_or_signature() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    forge(dir.path(), 300, true);
    assert_eq!(start(dir.path()).code, "tree-altered");
    let report = check(dir.path());
    let (index, reason) = report.first_bad().unwrap();
    assert_eq!((index, reason.code.as_str()), (300, "entry-altered"));

    // At the right edge there is no full tile: the signed root says so, within its batch.
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    forge(dir.path(), 590, true);
    assert_eq!(start(dir.path()).code, "tree-altered");
    let report = check(dir.path());
    let (index, reason) = report.first_bad().unwrap();
    assert_eq!(reason.code, "tree-altered");
    assert!((590..ENTRIES).contains(&index), "{index} {reason}");
}

#[test]
fn what_derives_from_entries_is_made_anew_from_them_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let key = toy::key();
    let rebuild = || rebuild_tree(dir.path(), &toy::store(dir.path()), key.verifier());
    let whole = Rebuilt {
        size: ENTRIES,
        tiles: 2,
        tiles_mended: 0,
        leaves_mended: 0,
    };
    assert_eq!(rebuild().unwrap(), whole);
    sql(
        dir.path(),
        "DELETE FROM tiles WHERE idx = 1;
         UPDATE tiles SET hashes = zeroblob(8192) WHERE idx = 0;
         UPDATE entries SET leaf = zeroblob(32) WHERE idx IN (3, 599);",
    );
    assert!(!check(dir.path()).is_sound());
    let mended = rebuild().unwrap();
    let expected = Rebuilt {
        tiles_mended: 2,
        leaves_mended: 2,
        ..whole
    };
    assert_eq!(mended, expected);
    assert!(check(dir.path()).is_sound());
    {
        let (ledger, _) = open(dir.path());
        let busy = rebuild().unwrap_err();
        assert_eq!(busy.code, "data-directory-held");
        ledger.handle().inclusion_proof(7, ENTRIES).unwrap();
    }
    // Bytes that nobody signed are not made to look signed.
    forge(dir.path(), 300, true);
    let refusal = rebuild().unwrap_err();
    assert_eq!(refusal.code, "tree-altered", "{refusal}");
    let report = check(dir.path());
    assert_eq!(report.first_bad().unwrap().0, 300);
    sql(dir.path(), "DELETE FROM entries WHERE idx = 20");
    assert_eq!(rebuild().unwrap_err().code, "entry-missing");
}

#[test]
fn removed_reordered_and_unknown_entries_are_refused() {
    let swap = "UPDATE entries SET idx = -1 WHERE idx = 10;
                UPDATE entries SET idx = 10 WHERE idx = 11;
                UPDATE entries SET idx = 11 WHERE idx = -1;";
    let cases = [
        (
            "DELETE FROM entries WHERE idx = 5",
            "entry-missing",
            "entry-missing",
            5,
        ),
        (
            "DELETE FROM entries WHERE idx >= 599",
            "ledger-truncated",
            "ledger-truncated",
            599,
        ),
        (swap, "tree-altered", "entry-altered", 10),
        (
            "UPDATE tiles SET hashes = zeroblob(8192) WHERE idx = 1",
            "",
            "entry-altered",
            256,
        ),
        ("DELETE FROM tiles WHERE idx = 1", "", "tile-altered", 511),
    ];
    for (statement, at_start, at_verify, index) in cases {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        sql(dir.path(), statement);
        let report = check(dir.path());
        let (found, reason) = report.first_bad().unwrap();
        assert_eq!(
            (found, reason.code.as_str()),
            (index, at_verify),
            "{statement}"
        );
        if !at_start.is_empty() {
            assert_eq!(start(dir.path()).code, at_start, "{statement}");
        }
    }
}

#[test]
fn an_entry_of_an_unknown_type_keeps_the_server_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    ledger.handle().submit_blocking(grant(1)).unwrap();
    drop(ledger);
    let bytes = br#"{"type":"from-the-future"}"#;
    let (leaf, entry) = (literal(leaf_hash(bytes).as_bytes()), literal(bytes));
    sql(
        dir.path(),
        &format!("INSERT INTO entries VALUES (1, 1, {leaf}, {entry})"),
    );
    let refusal = start(dir.path());
    assert_eq!(refusal.code, "malformed-event");
    assert!(refusal.message.starts_with("entry 1:"), "{refusal}");
    assert_eq!(check(dir.path()).first_bad().unwrap().0, 1);
}

#[test]
fn a_forged_or_foreign_checkpoint_is_refused() {
    for statement in [
        "UPDATE checkpoints SET root = zeroblob(32) WHERE size = (SELECT max(size) FROM checkpoints)",
        "UPDATE checkpoints SET note = replace(note, 'example/test', 'example/best')",
        "UPDATE checkpoints SET size = 9000 WHERE size = (SELECT max(size) FROM checkpoints)",
    ] {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        sql(dir.path(), statement);
        start(dir.path());
        assert!(!check(dir.path()).is_sound(), "{statement}");
    }
}

#[test]
fn a_directory_copied_back_in_time_does_not_contain_what_was_held() {
    let dir = tempfile::tempdir().unwrap();
    let old = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let handle = ledger.handle();
    handle.submit_blocking(grant(1)).unwrap();
    let copy = old.path().join("copy");
    assert_eq!(handle.backup(&copy).unwrap(), 1);
    handle.submit_blocking(grant(2)).unwrap();
    let held = handle.checkpoint().note.clone();
    let key = toy::key();
    let options = VerifyOptions {
        key: key.verifier(),
        held: Some(&held),
        blobs_named_by: None,
    };
    assert!(handle.verify(&options).unwrap().is_sound());
    let report = verify::<Toy>(&copy, &options).unwrap();
    assert_eq!(report.first_bad().unwrap().1.code, "ledger-truncated");
    // The copy goes another way: as long as what was held, and not the same.
    let (fork, _) = open(&copy);
    fork.handle().submit_blocking(grant(3)).unwrap();
    drop(fork);
    let report = verify::<Toy>(&copy, &options).unwrap();
    assert_eq!(report.first_bad().unwrap().1.code, "tree-altered");
}

#[test]
fn a_backup_holds_everything_and_starts() {
    let dir = tempfile::tempdir().unwrap();
    let to = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let handle = ledger.handle();
    let plain = handle.blobs().put(b"plain").unwrap();
    let sealed = handle.blobs().put_sealed(b"sealed").unwrap();
    handle.private().set_local("key", Some(b"value")).unwrap();
    for nonce in 0..20 {
        handle.submit_blocking(grant(nonce)).unwrap();
    }
    handle.submit_blocking(trip("why")).unwrap();
    let copy = to.path().join("copy");
    assert_eq!(handle.backup(&copy).unwrap(), 21);
    assert_eq!(handle.backup(&copy).unwrap_err().code, "backup-exists");
    assert!(check(&copy).is_sound());
    let (restored, report) = open(&copy);
    assert_eq!(report.size, 21);
    let restored = restored.handle();
    assert_eq!(*restored.state(), *handle.state());
    assert_eq!(restored.blobs().get(&plain).unwrap(), b"plain");
    assert_eq!(restored.blobs().get(&sealed).unwrap(), b"sealed");
    assert_eq!(restored.private().local("key").unwrap().unwrap(), b"value");
}

#[test]
fn a_blob_that_an_entry_names_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let handle = ledger.handle();
    let there = handle.blobs().put(b"there").unwrap();
    let named_by = |event: &Event| -> Vec<Digest> {
        match event {
            Event::Granted { body, .. } => body.parse().into_iter().collect(),
            Event::Tripped { .. } => Vec::new(),
        }
    };
    let key = toy::key();
    let options = VerifyOptions {
        key: key.verifier(),
        held: None,
        blobs_named_by: Some(&named_by),
    };
    for (nonce, digest) in [(1, there), (2, Digest::of(b"elsewhere"))] {
        let body = digest.to_string();
        handle
            .submit_blocking(toy::Command::Grant { nonce, body })
            .unwrap();
    }
    let report = handle.verify(&options).unwrap();
    assert_eq!(report.findings.len(), 1, "{report:?}");
    assert_eq!(report.findings[0].reason.code, "blob-missing");
    assert!(report.findings[0].reason.message.starts_with("entry 1:"));
    handle.blobs().erase(&there, toy::START).unwrap();
    assert_eq!(handle.verify(&options).unwrap().findings.len(), 1);
}
