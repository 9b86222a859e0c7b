//! The fault table: what is answered when a step fails, and what stands after a restart.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod toy;

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis_model::RefusalKind;
use portcullis_store::{Faults, Ledger, LedgerHandle, RecordedIn, Step};
use toy::{Event, Toy, check, grant, open, options_in, trip};

/// Steps that fail, switched by the test while the ledger runs.
#[derive(Clone, Default)]
struct Failing(Arc<Mutex<HashSet<Step>>>);

impl Failing {
    fn set(&self, steps: &[Step]) {
        *self.0.lock().unwrap() = steps.iter().copied().collect();
    }

    fn open(&self, dir: &Path) -> (Ledger<Toy>, portcullis_store::OpenReport) {
        let failing = Arc::clone(&self.0);
        let faults = Faults::new(move |step| {
            if failing.lock().unwrap().contains(&step) {
                Err(io::Error::new(io::ErrorKind::StorageFull, "injected"))
            } else {
                Ok(())
            }
        });
        Ledger::open(dir, options_in(dir, faults)).unwrap()
    }
}

fn refused(handle: &LedgerHandle<Toy>, nonce: u64) {
    let refusal = handle.submit_blocking(grant(nonce)).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Unavailable);
    assert_eq!(refusal.code, "disk-full");
}

fn events(handle: &LedgerHandle<Toy>) -> Vec<String> {
    (0..handle.size())
        .map(|index| match handle.event(index).unwrap() {
            Event::Granted { nonce, .. } => format!("grant {nonce}"),
            Event::Tripped { why, .. } => format!("trip {why}"),
        })
        .collect()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Each way in which the database can fail to take a batch, "failed but persisted" among them.
const DATABASE_FAILS: [Step; 3] = [Step::Planned, Step::Inserted, Step::Committed];

#[test]
fn a_failed_commit_grants_nothing_and_leaves_nothing() {
    for step in DATABASE_FAILS {
        let dir = tempfile::tempdir().unwrap();
        let failing = Failing::default();
        let (ledger, _) = failing.open(dir.path());
        let handle = ledger.handle();
        handle.submit_blocking(grant(1)).unwrap();
        let before = handle.checkpoint();
        failing.set(&[step]);
        refused(&handle, 2);
        refused(&handle, 3);
        assert_eq!(events(&handle), ["grant 1"], "{step}");
        assert_eq!(handle.checkpoint(), before);
        failing.set(&[]);
        assert_eq!(handle.submit_blocking(grant(2)).unwrap().first, 1);
        assert_eq!(events(&handle), ["grant 1", "grant 2"], "{step}");
        let state = handle.state();
        drop(ledger);
        assert!(check(dir.path()).is_sound(), "{step}");
        assert_eq!(*open(dir.path()).0.handle().state(), *state, "{step}");
    }
}

#[test]
fn the_breaker_goes_to_the_reserve_and_from_there_to_the_ledger() {
    for step in DATABASE_FAILS {
        let dir = tempfile::tempdir().unwrap();
        let failing = Failing::default();
        let (ledger, _) = failing.open(dir.path());
        let handle = ledger.handle();
        handle.submit_blocking(grant(1)).unwrap();
        failing.set(&[step]);
        refused(&handle, 2);
        let receipt = handle.submit_blocking(trip("now")).unwrap();
        assert_eq!(
            (receipt.first, receipt.recorded),
            (1, RecordedIn::Reserve),
            "{step}"
        );
        assert!(
            receipt.checkpoint.is_none(),
            "nothing is signed that can't be proved"
        );
        assert!(handle.state().is_tripped());
        assert_eq!(events(&handle), ["grant 1", "trip now"]);
        refused(&handle, 3);
        assert_eq!(handle.submit_blocking(trip("again")).unwrap().first, 2);
        assert!(check(dir.path()).is_sound(), "{step}");
        // What "failed" and stayed is counted as the database's, whose bytes are the same.
        if step != Step::Committed {
            assert_eq!(check(dir.path()).reserved, 2, "{step}");
        }
        failing.set(&[]);
        wait_until("the reserve is moved", || handle.checkpoint().size == 3);
        assert_eq!(events(&handle), ["grant 1", "trip now", "trip again"]);
        assert_eq!(
            handle.submit_blocking(grant(4)).unwrap_err().code,
            "tripped"
        );
        let report = check(dir.path());
        assert!(
            report.is_sound() && report.reserved == 0,
            "{step} {report:?}"
        );
    }
}

#[test]
fn a_restart_replays_the_reserve_and_prefers_it_to_what_failed_and_stayed() {
    for step in DATABASE_FAILS {
        let dir = tempfile::tempdir().unwrap();
        let failing = Failing::default();
        let (ledger, _) = failing.open(dir.path());
        let handle = ledger.handle();
        handle.submit_blocking(grant(1)).unwrap();
        failing.set(&[step]);
        refused(&handle, 2);
        // From here on the database takes nothing at all; with `Committed` before, it holds the
        // entry of the refused grant at the index that the breaker gets now.
        failing.set(&[Step::Planned, Step::StoringCheckpoint]);
        handle.submit_blocking(trip("now")).unwrap();
        drop(ledger);
        let (ledger, report) = failing.open(dir.path());
        assert_eq!(
            (report.size, report.from_reserve, report.waiting),
            (2, 1, 1),
            "{step}"
        );
        assert_eq!(report.warnings[0].code, "disk-full");
        let handle = ledger.handle();
        assert_eq!(events(&handle), ["grant 1", "trip now"], "{step}");
        assert!(handle.state().is_tripped());
        assert!(check(dir.path()).is_sound(), "{step}");
        drop(ledger);
        let (ledger, report) = open(dir.path());
        assert_eq!((report.from_reserve, report.waiting), (1, 0), "{step}");
        assert_eq!(ledger.handle().checkpoint().size, 2);
        assert_eq!(events(&ledger.handle()), ["grant 1", "trip now"]);
        drop(ledger);
        assert_eq!(open(dir.path()).1.from_reserve, 0);
        assert!(check(dir.path()).is_sound(), "{step}");
    }
}

#[test]
fn without_database_and_reserve_the_breaker_still_works_and_says_so() {
    for step in [Step::ReserveWriting, Step::ReserveWritten] {
        let dir = tempfile::tempdir().unwrap();
        let failing = Failing::default();
        let (ledger, _) = failing.open(dir.path());
        let handle = ledger.handle();
        handle.submit_blocking(grant(1)).unwrap();
        failing.set(&[Step::Planned, step]);
        let receipt = handle.submit_blocking(trip("now")).unwrap();
        assert_eq!(
            (receipt.first, receipt.recorded),
            (1, RecordedIn::Pending),
            "{step}"
        );
        assert!(handle.state().is_tripped());
        assert_eq!(handle.size(), 1, "nobody reads what may be lost");
        refused(&handle, 2);
        let writing = handle.writing();
        assert_eq!((writing.unrecorded, writing.reserved), (1, 0), "{step}");
        assert_eq!(writing.failed.as_ref().unwrap().refusal.code, "disk-full");
        assert!(!writing.grants());
        // The reserve can be written again: what was pending is durable within a moment.
        failing.set(&[Step::Planned]);
        wait_until("the reserve has it", || handle.size() == 2);
        wait_until("that is told", || handle.writing().reserved == 1);
        let space = handle.writing().reserve.unwrap();
        assert!(space.used_bytes > 0 && space.used_bytes < space.bytes);
        assert_eq!(check(dir.path()).reserved, 1);
        failing.set(&[]);
        wait_until("the ledger has it", || handle.checkpoint().size == 2);
        assert_eq!(events(&handle), ["grant 1", "trip now"]);
        wait_until("all is well", || handle.writing().grants());
        let writing = handle.writing();
        assert!(writing.failed.is_none() && writing.reserve.is_some());
        assert_eq!((writing.unrecorded, writing.reserved), (0, 0));
        drop(ledger);
        assert!(open(dir.path()).0.handle().state().is_tripped());
    }
}

#[test]
fn a_disk_that_comes_and_goes_keeps_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let tries = std::sync::atomic::AtomicU64::new(0);
    // Two failures, then a success: the success often falls between a failed move and its batch.
    let faults = Faults::new(move |step| {
        let comes = step != Step::Planned
            || tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) % 3 == 2;
        if comes {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::StorageFull))
        }
    });
    let (ledger, _) = Ledger::<Toy>::open(dir.path(), options_in(dir.path(), faults)).unwrap();
    let handle = ledger.handle();
    for index in 0..200_u64 {
        let receipt = handle.submit_blocking(trip(&index.to_string())).unwrap();
        assert_eq!(receipt.first, index);
        assert!(receipt.recorded != RecordedIn::Pending);
    }
    wait_until("everything is in the ledger", || {
        handle.checkpoint().size == 200
    });
    let expected: Vec<String> = (0..200).map(|index| format!("trip {index}")).collect();
    assert_eq!(events(&handle), expected);
    let state = handle.state();
    drop(ledger);
    assert!(check(dir.path()).is_sound());
    assert_eq!(*open(dir.path()).0.handle().state(), *state);
}

#[test]
fn a_reserve_that_can_not_be_emptied_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let failing = Failing::default();
    let (ledger, _) = failing.open(dir.path());
    let handle = ledger.handle();
    handle.submit_blocking(grant(1)).unwrap();
    for round in 0..3_u64 {
        failing.set(&[Step::Planned]);
        handle.submit_blocking(trip("now")).unwrap();
        failing.set(&[Step::ReserveMoved]);
        wait_until("the ledger has it", || {
            handle.checkpoint().size == round + 2
        });
    }
    let before = events(&handle);
    drop(ledger);
    let report = check(dir.path());
    assert!(report.is_sound() && report.reserved == 0, "{report:?}");
    let (ledger, report) = open(dir.path());
    assert_eq!(report.from_reserve, 0);
    assert_eq!(events(&ledger.handle()), before);
}

#[test]
fn entries_missing_before_the_reserve_keep_the_server_from_starting() {
    if toy::POSTGRES {
        // There the reserve says under which lead it was written; what doesn't continue the log is
        // handed over (see the tests of standbys).
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let failing = Failing::default();
    let (ledger, _) = failing.open(dir.path());
    let handle = ledger.handle();
    handle.backup(&dir.path().join("old")).unwrap();
    handle.submit_blocking(grant(1)).unwrap();
    failing.set(&[Step::Planned, Step::StoringCheckpoint]);
    handle.submit_blocking(trip("now")).unwrap();
    drop((ledger, handle));
    // An older database beside a newer reserve.
    for file in ["ledger.db-wal", "ledger.db-shm"] {
        let _absent = std::fs::remove_file(dir.path().join(file));
    }
    std::fs::copy(
        dir.path().join("old/ledger.db"),
        dir.path().join("ledger.db"),
    )
    .unwrap();
    let refusal = Ledger::<Toy>::open(dir.path(), options_in(dir.path(), Faults::default()))
        .err()
        .unwrap();
    assert_eq!(refusal.code, "reserve-gap");
}

#[test]
fn a_reserve_that_could_not_be_made_is_made_as_soon_as_it_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("reserve.journal");
    std::fs::create_dir(&place).unwrap();
    let failing = Failing::default();
    // Neither made nor read: nothing is known of what it might hold.
    assert!(Ledger::<Toy>::open(dir.path(), toy::options(Faults::default())).is_err());
    std::fs::remove_dir(&place).unwrap();
    // A full device gives a file and takes no byte.
    std::os::unix::fs::symlink("/dev/full", &place).unwrap();
    let (ledger, report) = failing.open(dir.path());
    assert_eq!(report.warnings.len(), 1, "{report:?}");
    let handle = ledger.handle();
    std::fs::remove_file(&place).unwrap();
    handle.submit_blocking(grant(1)).unwrap();
    failing.set(&[Step::Planned]);
    let receipt = handle.submit_blocking(trip("now")).unwrap();
    assert_eq!(receipt.recorded, RecordedIn::Reserve);
}
