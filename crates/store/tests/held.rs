//! A data directory that was copied back in time, found by checkpoints that were kept elsewhere;
//! and what a restored one does.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod toy;

use portcullis_store::{CheckpointSigner, Contradiction, SignedCheckpoint};
use toy::{check, grant, open};

#[test]
fn a_ledger_that_went_back_or_was_written_on_is_told_from_one_that_only_grew() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    let (ledger, _) = open(&dir.path().join("data"));
    let handle = ledger.handle();
    let mut held = Vec::new();
    for nonce in 0..40 {
        let receipt = handle.submit_blocking(grant(nonce)).unwrap();
        let note = &receipt.checkpoint.unwrap().note;
        held.push(SignedCheckpoint::verify(note, toy::key().verifier()).unwrap());
        if nonce == 24 {
            assert_eq!(handle.backup(&copy).unwrap(), 25);
        }
    }
    assert_eq!(handle.contradiction(&held).unwrap(), None);
    drop((ledger, handle));

    // The copy is whole: only what was kept elsewhere tells.
    assert!(check(&copy).is_sound());
    let (ledger, report) = open(&copy);
    assert!(report.warnings.is_empty());
    let handle = ledger.handle();
    assert_eq!(handle.contradiction(&held[..25]).unwrap(), None);
    let found = handle.contradiction(&held).unwrap().unwrap();
    assert_eq!(found.lost(), 25..40);
    assert!(matches!(found, Contradiction::Behind { size: 25, .. }));
    let refusal = found.refusal();
    assert_eq!(refusal.code, "ledger-restored");
    assert!(refusal.message.contains("entries 25 to 39"), "{refusal}");

    // Written on, the sizes match again, and the roots don't.
    for nonce in 100..130 {
        handle.submit_blocking(grant(nonce)).unwrap();
    }
    assert_eq!(handle.contradiction(&held[..25]).unwrap(), None);
    let found = handle.contradiction(&held).unwrap().unwrap();
    assert!(matches!(&found, Contradiction::Forked { held } if held.size == 26));
    assert_eq!(found.refusal().code, "ledger-forked");
}
