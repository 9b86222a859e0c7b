//! The machine by itself: what its disk and SQLite do without a ledger, and what this process took.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of the entries that are measured.
pub(crate) const ENTRY_BYTES: usize = 512;

/// What SQLite does by itself: the limit.
pub(crate) struct Limits(Vec<(u64, u64)>);

impl Limits {
    /// Rows for the table of appends.
    pub(crate) fn rows(&self) {
        for (batch, rate) in &self.0 {
            println!(
                "| plain SQLite | 1, {batch} rows a transaction | {rate} | | | | {:.4} | | |",
                1.0 / *batch as f64
            );
        }
    }
}

pub(crate) fn describe(dir: &Path) -> Limits {
    let cores = std::thread::available_parallelism().unwrap();
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    let scratch = tempfile::tempdir_in(dir).unwrap();
    let (median, high) = sync_time(scratch.path());
    println!(
        "{cores} cores, {profile} build; load {}; fdatasync of {ENTRY_BYTES} bytes: median {median:?}, p99 {high:?}",
        load()
    );
    let rates = [1, 256].map(|batch| (batch, sqlite_rate(scratch.path(), batch)));
    Limits(rates.to_vec())
}

/// The load that others put on the machine, as the kernel counts it.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

fn sync_time(dir: &Path) -> (Duration, Duration) {
    let mut file = std::fs::File::create(dir.join("sync-time")).unwrap();
    let mut times: Vec<Duration> = (0..500)
        .map(|_| {
            file.write_all(&[1; ENTRY_BYTES]).unwrap();
            let start = Instant::now();
            file.sync_data().unwrap();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    (times[250], times[495])
}

/// Rows a second that one thread inserts and syncs, with nothing around it: the limit.
fn sqlite_rate(dir: &Path, batch: u64) -> u64 {
    let path = dir.join(format!("plain-{batch}.db"));
    let mut connection = rusqlite::Connection::open(path).unwrap();
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .unwrap();
    connection
        .pragma_update(None, "synchronous", "FULL")
        .unwrap();
    connection
        .execute_batch("CREATE TABLE entries (idx INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT")
        .unwrap();
    let bytes = [7_u8; ENTRY_BYTES];
    let start = Instant::now();
    let mut rows = 0;
    while start.elapsed() < Duration::from_secs(2) {
        let transaction = connection.transaction().unwrap();
        let mut insert = transaction
            .prepare_cached("INSERT INTO entries (bytes) VALUES (?1)")
            .unwrap();
        for _ in 0..batch {
            insert.execute([&bytes[..]]).unwrap();
            rows += 1;
        }
        drop(insert);
        transaction.commit().unwrap();
    }
    (rows as f64 / start.elapsed().as_secs_f64()) as u64
}

/// What this process has used so far.
#[derive(Clone, Copy)]
pub(crate) struct Used {
    /// Processor time of all its threads.
    pub(crate) processor: Duration,
    /// Bytes that it had the kernel write to the disk.
    pub(crate) written: u64,
}

impl Used {
    pub(crate) fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        let ticks: u64 = after_name
            .split(' ')
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
        let written = io
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes: "))
            .and_then(|bytes| bytes.parse().ok())
            .unwrap_or(0);
        Self {
            // 100 ticks a second on every Linux that this runs on.
            processor: Duration::from_millis(ticks * 10),
            written,
        }
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            processor: self.processor.saturating_sub(before.processor),
            written: self.written.saturating_sub(before.written),
        }
    }
}

/// Resident memory of this process in MiB.
pub(crate) fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib / 1_024)
}
