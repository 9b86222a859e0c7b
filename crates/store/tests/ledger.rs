//! The ledger as its users see it: what is recorded, read, proved, followed and refused.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod toy;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use portcullis_evidence::merkle::{verify_consistency, verify_inclusion};
use portcullis_model::{Fold, Recorder, RefusalKind};
use portcullis_store::limits::{QUEUE_MAX_COMMANDS, URGENT_MAX_COMMANDS};
use portcullis_store::{
    CheckpointSigner, Faults, Ledger, LedgerOptions, ManualClock, RecordedIn, SignedCheckpoint,
    Step,
};
use toy::{Command, START, Toy, check, grant, open, options_in, trip};

#[test]
fn an_entry_is_recorded_with_a_checkpoint_that_proves_it() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, report) = open(dir.path());
    assert_eq!((report.size, report.checkpoint.size), (0, 0));
    let handle = ledger.handle();
    let mut signed = Vec::new();
    for nonce in 0..600 {
        let receipt = handle.submit_blocking(grant(nonce)).unwrap();
        assert_eq!((receipt.first, receipt.events.len()), (nonce, 1));
        assert_eq!(receipt.recorded, RecordedIn::Ledger);
        let size = receipt.checkpoint.as_ref().unwrap().size;
        assert_eq!(
            receipt.inclusion_proof(nonce).unwrap(),
            handle.inclusion_proof(nonce, size).unwrap()
        );
        assert!(receipt.inclusion_proof(nonce + 1).is_err());
        signed.push(receipt.checkpoint.unwrap());
    }
    let key = toy::key();
    for (index, checkpoint) in signed.iter().enumerate().step_by(37) {
        let read = SignedCheckpoint::verify(&checkpoint.note, key.verifier()).unwrap();
        assert_eq!(read, **checkpoint);
        let index = index as u64;
        let entry = handle.entry(index).unwrap();
        let proof = handle.inclusion_proof(index, read.size).unwrap();
        verify_inclusion(entry.leaf, index, read.size, &proof, read.root).unwrap();
        let last = handle.checkpoint();
        let proof = handle.consistency_proof(read.size, last.size).unwrap();
        verify_consistency(read.size, read.root, last.size, last.root, &proof).unwrap();
        assert_eq!(handle.root(read.size).unwrap(), read.root);
    }
    assert!(handle.inclusion_proof(0, 601).is_err());
    assert!(handle.inclusion_proof(600, 600).is_err());
    assert!(handle.entry(600).is_err());
    assert!(handle.entries(600, 10).unwrap().is_empty());
    assert_eq!(handle.entries(595, 100).unwrap().len(), 5);
}

#[test]
fn a_restart_folds_to_exactly_the_same_state() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let handle = ledger.handle();
    for nonce in 0..300 {
        handle.submit_blocking(grant(nonce)).unwrap();
    }
    handle.submit_blocking(trip("a reason")).unwrap();
    let before = handle.state();
    let checkpoint = handle.checkpoint();
    drop(ledger);
    let (ledger, report) = open(dir.path());
    assert_eq!(*ledger.handle().state(), *before);
    assert_eq!(report.checkpoint.root, checkpoint.root);
    assert_eq!(
        (report.size, report.unsigned, report.from_reserve),
        (301, 0, 0)
    );
    assert!(report.warnings.is_empty());
    let report = check(dir.path());
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.size, report.checkpoints > 300), (301, true));
}

#[test]
fn the_second_server_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let refusal = Ledger::<Toy>::open(dir.path(), options_in(dir.path(), Faults::default()))
        .err()
        .unwrap();
    assert_eq!(refusal.code, "data-directory-held");
    assert!(refusal.message.contains(&std::process::id().to_string()));
    ledger.close().unwrap();
    open(dir.path());
}

/// Holds the sequencer at a step until the gate opens, so that commands gather behind it.
#[derive(Default)]
struct Gate {
    reached: AtomicBool,
    open: Mutex<bool>,
    wake: Condvar,
}

impl Gate {
    fn pass(&self) {
        self.reached.store(true, Ordering::SeqCst);
        let open = self.open.lock().unwrap();
        drop(self.wake.wait_while(open, |open| !*open).unwrap());
    }

    fn is_reached(&self) -> bool {
        self.reached.load(Ordering::SeqCst)
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.wake.notify_all();
    }
}

fn gated(step: Step) -> (Arc<Gate>, Arc<AtomicUsize>, Faults) {
    let gate = Arc::new(Gate::default());
    let commits = Arc::new(AtomicUsize::new(0));
    let (held, counted) = (Arc::clone(&gate), Arc::clone(&commits));
    let faults = Faults::new(move |at| {
        if at == step {
            held.pass();
        }
        if at == Step::Committed {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    });
    (gate, commits, faults)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_one_batch_see_each_other_and_share_one_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (gate, commits, faults) = gated(Step::Planned);
    let (ledger, _) = Ledger::<Toy>::open(dir.path(), options_in(dir.path(), faults)).unwrap();
    let handle = ledger.handle();
    let first = tokio::spawn({
        let handle = handle.clone();
        async move { handle.submit(grant(1_000)).await }
    });
    while !gate.is_reached() {
        tokio::task::yield_now().await;
    }
    // All of these wait while the first batch stands at the gate; each nonce is asked for twice.
    let mut asked = Vec::new();
    for nonce in (0..50).chain(0..50) {
        let handle = handle.clone();
        asked.push(tokio::spawn(
            async move { handle.submit(grant(nonce)).await },
        ));
    }
    while handle.queue_depth().ordinary < 100 {
        tokio::task::yield_now().await;
    }
    gate.open();
    first.await.unwrap().unwrap();
    let mut won = 0;
    for answer in asked {
        match answer.await.unwrap() {
            Ok(receipt) => {
                won += 1;
                let proof = receipt.inclusion_proof(receipt.first).unwrap();
                let checkpoint = receipt.checkpoint.unwrap();
                assert!(checkpoint.size > receipt.first);
                let leaf = handle.entry(receipt.first).unwrap().leaf;
                let (size, root) = (checkpoint.size, checkpoint.root);
                verify_inclusion(leaf, receipt.first, size, &proof, root).unwrap();
            }
            Err(refusal) => assert_eq!(refusal.code, "nonce-used"),
        }
    }
    assert_eq!(won, 50);
    assert_eq!(handle.state().used(), 51);
    let commits = commits.load(Ordering::SeqCst);
    assert!(commits <= 3, "51 entries took {commits} commits");
}

#[test]
fn a_full_queue_is_refused_and_the_breaker_still_gets_in() {
    let dir = tempfile::tempdir().unwrap();
    let (gate, _, faults) = gated(Step::Planned);
    let (ledger, _) = Ledger::<Toy>::open(dir.path(), options_in(dir.path(), faults)).unwrap();
    let handle = ledger.handle();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut flood = Vec::new();
        let mut busy = 0;
        for nonce in 0..(QUEUE_MAX_COMMANDS as u64 + 2_000) {
            let mut asked = Box::pin(handle.submit(grant(nonce)));
            // One poll puts the command in, or is refused at once.
            match futures_poll(asked.as_mut()) {
                Some(Err(refusal)) => {
                    assert_eq!(
                        (refusal.kind, refusal.code.as_str()),
                        (RefusalKind::Unavailable, "ledger-busy")
                    );
                    busy += 1;
                }
                Some(Ok(_)) => panic!("nothing is recorded while the gate is shut"),
                None => flood.push(asked),
            }
        }
        assert!(busy > 0 && handle.queue_depth().refused == busy);
        let mut tripped = Box::pin(handle.submit(trip("flood")));
        // Nothing is asserted before the gate is open: the ledger could not end behind it.
        let refused = futures_poll(tripped.as_mut());
        let urgent = handle.queue_depth().urgent;
        gate.open();
        assert!(refused.is_none(), "{refused:?}");
        assert_eq!(urgent, 1);
        tripped.await.unwrap();
        let mut denied = 0;
        for asked in flood {
            match asked.await {
                Ok(_) => {}
                Err(refusal) => {
                    assert_eq!(refusal.code, "tripped");
                    denied += 1;
                }
            }
        }
        // The breaker went ahead of all that waited, but for the batch at the gate.
        assert!(denied >= QUEUE_MAX_COMMANDS - 1_024, "{denied}");
    });
    const { assert!(URGENT_MAX_COMMANDS > 0) };
}

/// Polls once.
fn futures_poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_misses_nothing_and_ends_with_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let handle = ledger.handle();
    for nonce in 0..10 {
        handle.submit(grant(nonce)).await.unwrap();
    }
    let mut tail = handle.tail(5);
    let follower = tokio::spawn(async move {
        let mut seen = Vec::new();
        loop {
            match tail.next().await {
                Ok(entries) => seen.extend(entries.into_iter().map(|entry| entry.index)),
                Err(refusal) => break (seen, refusal.code),
            }
        }
    });
    let writers = (0..4_u64).map(|writer| {
        let handle = handle.clone();
        tokio::spawn(async move {
            for nonce in 0..100 {
                handle
                    .submit(grant(1_000 + writer * 1_000 + nonce))
                    .await
                    .unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    tokio::task::spawn_blocking(move || ledger.close().unwrap())
        .await
        .unwrap();
    let (seen, end) = follower.await.unwrap();
    assert_eq!(end, "ledger-stopped");
    assert_eq!(seen, (5..410).collect::<Vec<_>>());
    assert_eq!(
        handle.submit(grant(1)).await.unwrap_err().code,
        "ledger-stopped"
    );
    assert_eq!(handle.entries(400, 100).unwrap().len(), 10, "reads go on");
}

#[test]
fn two_events_of_one_command_stand_or_fall_together() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let handle = ledger.handle();
    handle.submit_blocking(grant(8)).unwrap();
    let refusal = handle
        .submit_blocking(Command::Pair { nonce: 7 })
        .unwrap_err();
    assert_eq!(refusal.code, "nonce-used");
    assert_eq!((handle.size(), handle.state().used()), (1, 1));
    let receipt = handle.submit_blocking(Command::Pair { nonce: 20 }).unwrap();
    assert_eq!((receipt.first, receipt.events.len()), (1, 2));
    let look = handle.submit_blocking(Command::Look).unwrap();
    assert_eq!((look.first, look.events.len(), handle.size()), (2, 0, 3));
}

#[test]
fn an_event_that_could_not_be_read_back_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let handle = ledger.handle();
    assert!(handle.submit_blocking(Command::Unreadable).is_err());
    let large = Command::Grant {
        nonce: 1,
        body: "x".repeat(portcullis_model::limits::ENTRY_MAX_BYTES),
    };
    assert_eq!(
        handle.submit_blocking(large).unwrap_err().code,
        "entry-too-large"
    );
    handle.submit_blocking(grant(1)).unwrap();
    assert_eq!(handle.size(), 1);
}

#[test]
fn a_fold_that_panics_stops_the_ledger_and_nobody_waits_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let handle = ledger.handle();
    handle.submit_blocking(grant(1)).unwrap();
    assert_eq!(
        handle.submit_blocking(Command::Panic).unwrap_err().code,
        "ledger-stopped"
    );
    assert_eq!(
        handle.submit_blocking(grant(2)).unwrap_err().code,
        "ledger-stopped"
    );
    assert!(ledger.close().is_err());
    let (ledger, report) = open(dir.path());
    assert_eq!(report.size, 1);
    ledger.handle().submit_blocking(grant(2)).unwrap();
}

#[test]
fn a_clock_that_jumps_stops_grants_and_not_the_breaker() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(START));
    let (ledger, _) = Ledger::<Toy>::open(
        dir.path(),
        LedgerOptions {
            clock: Arc::clone(&clock) as Arc<dyn portcullis_store::Clock>,
            ..options_in(dir.path(), Faults::default())
        },
    )
    .unwrap();
    let handle = ledger.handle();
    handle.submit_blocking(grant(1)).unwrap();
    for wall in [
        START.plus_ms(3_600_000),
        portcullis_model::Timestamp::from_ms(START.as_ms() - 3_600_000),
    ] {
        clock.set_wall(wall);
        let refusal = handle.submit_blocking(grant(2)).unwrap_err();
        assert_eq!(
            (refusal.kind, refusal.code.as_str()),
            (RefusalKind::Unavailable, "clock-jump")
        );
        handle.submit_blocking(trip("clock")).unwrap();
        assert_eq!(handle.entry(handle.size() - 1).unwrap().time, START);
    }
    assert_eq!(handle.state().newest, START);
    clock.set_wall(START);
    clock.advance(1_000);
    assert_eq!(
        handle.submit_blocking(grant(2)).unwrap_err().code,
        "tripped"
    );
}

#[tokio::test]
async fn a_handle_is_a_recorder() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let handle = ledger.handle();
    let recorded = handle.record("a permit", grant(1)).await.unwrap();
    assert_eq!(recorded.index(), 0);
    assert!(handle.record("again", grant(1)).await.is_err());
    assert_eq!(recorded.spend(), ("a permit", 0));
}

#[test]
fn readers_see_whole_batches_while_writers_write() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = open(dir.path());
    let handle = ledger.handle();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::SeqCst) || reads == 0 {
                let checkpoint = handle.checkpoint();
                let state = handle.state();
                assert_eq!(state.next_index() % 2, 0, "half a pair was published");
                if checkpoint.size > 0 {
                    assert_eq!(handle.root(checkpoint.size).unwrap(), checkpoint.root);
                    let index = checkpoint.size / 2;
                    let proof = handle.inclusion_proof(index, checkpoint.size).unwrap();
                    let leaf = handle.entry(index).unwrap().leaf;
                    verify_inclusion(leaf, index, checkpoint.size, &proof, checkpoint.root)
                        .unwrap();
                }
                reads += 1;
            }
        });
        for nonce in 0..300 {
            handle
                .submit_blocking(Command::Pair { nonce: nonce * 2 })
                .unwrap();
        }
        done.store(true, Ordering::SeqCst);
        reader.join().unwrap();
    });
}
