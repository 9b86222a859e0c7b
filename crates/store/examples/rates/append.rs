//! Appends: how many a second, and how long until the caller holds a signed inclusion proof.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_evidence::merkle::{leaf_hash, verify_inclusion};
use portcullis_model::Fold;
use portcullis_store::{Faults, Ledger, LedgerHandle, LedgerOptions, Receipt, Step, StoreOptions};
use tokio::runtime::Runtime;

use crate::Options;
use crate::machine::Used;
use crate::place::Place;
use crate::toy::{self, Command, Toy};

/// Bytes of a grant's body, so that an entry has 512 or a few more with the nonce's digits.
const BODY_BYTES: usize = 430;

fn command(nonce: u64) -> Command {
    Command::Grant {
        nonce,
        body: "x".repeat(BODY_BYTES),
    }
}

/// A fresh ledger that counts its commits; each makes its entries durable with one sync.
fn open(dir: &std::path::Path, store: StoreOptions) -> (Ledger<Toy>, Arc<AtomicU64>) {
    let commits = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&commits);
    let options = LedgerOptions {
        faults: Faults::new(move |step| {
            if step == Step::Committed {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }),
        store,
        ..LedgerOptions::new(toy::key())
    };
    (Ledger::open(dir, options).unwrap().0, commits)
}

/// The time from the append to the proof; every 64th proof is verified, outside of the time.
async fn append(handle: &LedgerHandle<Toy>, nonce: u64, asked: Instant) -> Duration {
    let receipt = handle.submit(command(nonce)).await.unwrap();
    let proof = receipt.inclusion_proof(receipt.first).unwrap();
    let took = asked.elapsed();
    if nonce.is_multiple_of(64) {
        verify(&receipt, &proof);
    }
    took
}

fn verify(receipt: &Receipt<Toy>, proof: &[portcullis_model::Digest]) {
    let checkpoint = receipt.checkpoint.as_ref().unwrap();
    let leaf = leaf_hash(&Toy::encode(&receipt.events[0]).unwrap());
    verify_inclusion(leaf, receipt.first, checkpoint.size, proof, checkpoint.root).unwrap();
}

/// Writers that each wait for their proof before they append again.
pub(crate) fn closed(runtime: &Runtime, options: &Options, place: &Place<'_>, writers: usize) {
    let dir = tempfile::tempdir_in(&options.dir).unwrap();
    let (ledger, commits) = open(dir.path(), place.store(runtime));
    let wal = place.written(runtime);
    let nonce = Arc::new(AtomicU64::new(0));
    let before = Used::now();
    let start = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let (handle, nonce, time) = (ledger.handle(), Arc::clone(&nonce), options.time);
            runtime.spawn(async move {
                let mut latencies = Vec::new();
                while start.elapsed() < time {
                    let nonce = nonce.fetch_add(1, Ordering::Relaxed);
                    latencies.push(append(&handle, nonce, Instant::now()).await);
                }
                latencies
            })
        })
        .collect();
    let latencies: Vec<Duration> = tasks
        .into_iter()
        .flat_map(|task| runtime.block_on(task).unwrap())
        .collect();
    let took = start.elapsed();
    ledger.close().unwrap();
    let mut used = Used::now().since(&before);
    used.written += place.written(runtime) - wal;
    tell(place, &writers.to_string(), latencies, took, &commits, used);
}

/// Entries that arrive at a fixed rate; the time counts from when each was due.
pub(crate) fn paced(runtime: &Runtime, options: &Options, place: &Place<'_>) {
    let dir = tempfile::tempdir_in(&options.dir).unwrap();
    let (ledger, commits) = open(dir.path(), place.store(runtime));
    let wal = place.written(runtime);
    let handle = ledger.handle();
    let before = Used::now();
    let start = Instant::now();
    let rate = options.rate;
    let time = options.time;
    let latencies = runtime.block_on(async move {
        let mut tasks = Vec::new();
        let mut nonce = 0;
        while start.elapsed() < time {
            let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
            while nonce < due {
                let handle = handle.clone();
                let asked = start + Duration::from_secs_f64(nonce as f64 / rate as f64);
                tasks.push(tokio::spawn(
                    async move { append(&handle, nonce, asked).await },
                ));
                nonce += 1;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut latencies = Vec::new();
        for task in tasks {
            latencies.push(task.await.unwrap());
        }
        latencies
    });
    let took = start.elapsed();
    ledger.close().unwrap();
    let mut used = Used::now().since(&before);
    used.written += place.written(runtime) - wal;
    let what = format!("paced, {rate}/s");
    tell(place, &what, latencies, took, &commits, used);
}

/// The head of the table whose rows the scenarios print.
pub(crate) fn head() {
    println!(
        "\n| store | writers | durable entries/s | p50 to proof | p99 | p99.9 | syncs per entry | bytes written per entry | processor per entry |\n|---|---|---|---|---|---|---|---|---|"
    );
}

fn tell(
    place: &Place<'_>,
    what: &str,
    mut latencies: Vec<Duration>,
    took: Duration,
    commits: &AtomicU64,
    used: Used,
) {
    latencies.sort_unstable();
    let at = |share: usize| latencies[(latencies.len() * share / 1_000).min(latencies.len() - 1)];
    let entries = latencies.len() as f64;
    println!(
        "| {} | {what} | {:.0} | {:.3?} | {:.3?} | {:.3?} | {:.4} | {:.0} | {:.1} µs |",
        place.name(),
        entries / took.as_secs_f64(),
        at(500),
        at(990),
        at(999),
        commits.load(Ordering::Relaxed) as f64 / entries,
        used.written as f64 / entries,
        used.processor.as_secs_f64() * 1e6 / entries,
    );
}
