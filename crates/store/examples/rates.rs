//! What the ledger does on this machine: durable appends per second and their latency beside the
//! disk's own sync time, and how fast a start folds what is there.
//!
//! `cargo run --release -p portcullis-store --example rates [DIR] [SECONDS]`
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement prints, and may panic"
)]

#[path = "../tests/toy/mod.rs"]
mod toy;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_store::{Ledger, LedgerHandle, LedgerOptions};
use toy::{Command, Toy};

/// Bytes of a grant's body, so that an entry has about 512.
const BODY_BYTES: usize = 430;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds: u64 = arguments.next().map_or(2, |text| text.parse().unwrap());
    let dir = tempfile::tempdir_in(parent).unwrap();
    let cores = std::thread::available_parallelism().unwrap();
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    let sync = sync_time(dir.path());
    println!("{cores} cores, {profile} build, fdatasync of 512 bytes: {sync:?} on average");

    let (ledger, _) = Ledger::<Toy>::open(dir.path(), LedgerOptions::new(toy::key())).unwrap();
    let nonce = AtomicU64::new(0);
    for writers in [1, 16, 256] {
        append(
            &ledger.handle(),
            &nonce,
            writers,
            Duration::from_secs(seconds),
        );
    }
    ledger.close().unwrap();

    let start = Instant::now();
    let (_ledger, report) =
        Ledger::<Toy>::open(dir.path(), LedgerOptions::new(toy::key())).unwrap();
    let took = start.elapsed();
    let rate = per_second(report.size, took);
    println!(
        "start: {} entries folded and hashed in {took:?}, {rate}/s",
        report.size
    );
}

fn append(handle: &LedgerHandle<Toy>, nonce: &AtomicU64, writers: usize, time: Duration) {
    let start = Instant::now();
    let mut latencies: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|_| {
                scope.spawn(|| {
                    let mut latencies = Vec::new();
                    while start.elapsed() < time {
                        let asked = Instant::now();
                        let command = Command::Grant {
                            nonce: nonce.fetch_add(1, Ordering::Relaxed),
                            body: "x".repeat(BODY_BYTES),
                        };
                        assert!(
                            handle
                                .submit_blocking(command)
                                .unwrap()
                                .checkpoint
                                .is_some()
                        );
                        latencies.push(asked.elapsed());
                    }
                    latencies
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let took = start.elapsed();
    latencies.sort_unstable();
    let at = |share: usize| {
        latencies
            .get(latencies.len() * share / 1_000)
            .copied()
            .unwrap_or_default()
    };
    println!(
        "{writers:4} writers: {:6} durable, signed entries/s; p50 {:?}, p99 {:?}, p99.9 {:?}",
        per_second(latencies.len() as u64, took),
        at(500),
        at(990),
        at(999),
    );
}

fn per_second(count: u64, took: Duration) -> u128 {
    u128::from(count) * 1_000_000 / took.as_micros().max(1)
}

fn sync_time(dir: &Path) -> Duration {
    const WRITES: u32 = 200;
    let mut file = std::fs::File::create(dir.join("sync-time")).unwrap();
    let start = Instant::now();
    for _ in 0..WRITES {
        file.write_all(&[1; 512]).unwrap();
        file.sync_data().unwrap();
    }
    start.elapsed() / WRITES
}
