//! How proofs, start and memory change while the ledger grows.

use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_evidence::merkle::{verify_consistency, verify_inclusion};
use portcullis_store::{Ledger, LedgerHandle, LedgerOptions};

use crate::Options;
use crate::machine::resident_mib;
use crate::toy::{self, Command, Toy};

/// Proofs that are made and verified at each size.
const PROOFS: u64 = 2_000;
/// Commands that wait at once while the ledger is filled.
const ASKED_AT_ONCE: u64 = 4_096;
/// The directory of the process that starts cold, and what it is told to do.
const CHILD: &str = "PORTCULLIS_RATES_CHILD";

/// Whether this process is one that only starts and says how long that took.
pub(crate) fn started_cold() -> bool {
    let dir = std::env::var_os(CHILD);
    if let Some(dir) = &dir {
        start_cold(Path::new(dir));
    }
    dir.is_some()
}

pub(crate) fn measure(options: &Options) {
    println!(
        "\n| entries | inclusion proof from the disk | verified | consistency proof | verified | start from a snapshot | without | on disk |\n|---|---|---|---|---|---|---|---|"
    );
    let dir = tempfile::tempdir_in(&options.dir).unwrap();
    let mut size = 0;
    for target in &options.sizes {
        fill(dir.path(), size, *target);
        size = *target;
        row(dir.path(), size);
    }
}

fn fill(dir: &Path, from: u64, to: u64) {
    let (ledger, _) = Ledger::<Toy>::open(dir, LedgerOptions::new(toy::key())).unwrap();
    let handle = ledger.handle();
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    runtime.block_on(async {
        let mut nonce = from;
        while nonce < to {
            let end = to.min(nonce + ASKED_AT_ONCE);
            let asked: Vec<_> = (nonce..end)
                .map(|nonce| {
                    let handle = handle.clone();
                    let body = "x".repeat(430);
                    tokio::spawn(async move { handle.submit(Command::Grant { nonce, body }).await })
                })
                .collect();
            for answer in asked {
                answer.await.unwrap().unwrap();
            }
            nonce = end;
        }
    });
    ledger.close().unwrap();
}

fn row(dir: &Path, size: u64) {
    let (ledger, _) = Ledger::<Toy>::open(dir, LedgerOptions::new(toy::key())).unwrap();
    let (proof, verified) = inclusion(&ledger.handle(), size);
    let (consistency, consistent) = consistency(&ledger.handle(), size);
    ledger.close().unwrap();
    let on_disk = std::fs::metadata(dir.join("ledger.db")).unwrap().len() / size;
    let with = cold(dir);
    let folder = dir.join("snapshots");
    let aside = dir.join("aside");
    std::fs::rename(&folder, &aside).unwrap();
    let without = cold(dir);
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::rename(&aside, &folder).unwrap();
    println!(
        "| {size} | {proof:.1?} | {verified:.1?} | {consistency:.1?} | {consistent:.1?} | {with} | {without} | {on_disk} B/entry |"
    );
}

/// Average time of an inclusion proof from the disk, and of its verification.
fn inclusion(handle: &LedgerHandle<Toy>, size: u64) -> (Duration, Duration) {
    let root = handle.root(size).unwrap();
    let (mut made, mut verified) = (Duration::ZERO, Duration::ZERO);
    for number in 0..PROOFS {
        let index = spread(number, size);
        let start = Instant::now();
        let proof = handle.inclusion_proof(index, size).unwrap();
        made += start.elapsed();
        let leaf = handle.entry(index).unwrap().leaf;
        let start = Instant::now();
        verify_inclusion(leaf, index, size, &proof, root).unwrap();
        verified += start.elapsed();
    }
    (made / PROOFS as u32, verified / PROOFS as u32)
}

fn consistency(handle: &LedgerHandle<Toy>, size: u64) -> (Duration, Duration) {
    let root = handle.root(size).unwrap();
    let (mut made, mut verified) = (Duration::ZERO, Duration::ZERO);
    for number in 0..PROOFS / 4 {
        let old = spread(number, size).max(1);
        let old_root = handle.root(old).unwrap();
        let start = Instant::now();
        let proof = handle.consistency_proof(old, size).unwrap();
        made += start.elapsed();
        let start = Instant::now();
        verify_consistency(old, old_root, size, root, &proof).unwrap();
        verified += start.elapsed();
    }
    let count = (PROOFS / 4) as u32;
    (made / count, verified / count)
}

/// Indexes all over the tree, the same in each run.
fn spread(number: u64, size: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % size
}

/// Starts in a new process, so that nothing is warm but the kernel's cache of the files.
fn cold(dir: &Path) -> String {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .env(CHILD, dir)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().last().unwrap_or_default().to_owned()
}

fn start_cold(dir: &Path) {
    let start = Instant::now();
    let options = LedgerOptions {
        snapshot_every: u64::MAX,
        ..LedgerOptions::new(toy::key())
    };
    let (ledger, report) = Ledger::<Toy>::open(dir, options).unwrap();
    let took = start.elapsed();
    assert!(report.warnings.is_empty(), "{report:?}");
    println!("{took:.3?}, {} MiB", resident_mib());
    drop(ledger);
}
