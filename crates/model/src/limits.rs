//! Every bound that the workspace shares, each with its unit and the reason for its size.

/// Longest name id in bytes: fits a DNS label, a SPIFFE path segment and a table column.
pub const NAME_MAX_BYTES: usize = 64;
/// Largest ledger entry in bytes: what an entry bundle's 16-bit length can say (C2SP tlog-tiles), so
/// that every entry can be served. Larger bodies are blobs; a bundle of 256 stays below 16 MiB.
pub const ENTRY_MAX_BYTES: usize = 65_535;
/// Largest task file, manifest or signed envelope in bytes that a command or endpoint reads.
pub const DOCUMENT_MAX_BYTES: usize = 256 * 1024;
/// Longest task title in bytes: one line in a terminal, twice.
pub const TITLE_MAX_BYTES: usize = 200;
/// Longest reason that a person gives with a command, in bytes.
pub const REASON_MAX_BYTES: usize = 2_000;
/// Longest life of a task in milliseconds (30 days): longer work is signed again.
pub const TASK_MAX_LIFE_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// Most keys of one human: a few machines and hardware keys, not a key store.
pub const HUMAN_MAX_KEYS: usize = 16;
/// Most path patterns in one scope; more can't be reviewed.
pub const SCOPE_MAX_PATTERNS: usize = 256;
/// How far the clock may be behind the newest entry, in milliseconds, before grants stop.
pub const CLOCK_BACKWARD_MAX_MS: u64 = 5_000;
/// How far the clock may jump ahead of the monotonic clock, in milliseconds, before grants stop.
pub const CLOCK_FORWARD_MAX_MS: u64 = 60_000;
