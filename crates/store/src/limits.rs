//! Every bound of the store, each with its unit and the reason for its size.

/// Most commands that may wait for the sequencer; twice the 4,096 writers it is measured with.
pub const QUEUE_MAX_COMMANDS: usize = 8_192;
/// Most waiting commands that reduce authority. They have a queue of their own, so that a flood
/// of others can't keep a breaker from tripping.
pub const URGENT_MAX_COMMANDS: usize = 1_024;
/// Most commands in one durable commit; more would make the first of them wait for the last.
pub const BATCH_MAX_COMMANDS: usize = 1_024;
/// Most entry bytes in one durable commit (8 MiB): a commit stays well below the WAL's size limit.
pub const BATCH_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Most events of one command; a command that needs more is several commands.
pub const COMMAND_MAX_EVENTS: usize = 256;
/// Size of the reserve journal in bytes (4 MiB): thousands of ordinary entries, and more than
/// sixty of the largest.
pub const RESERVE_BYTES: u64 = 4 * 1024 * 1024;
/// How long to wait before it is tried again to make a reserve that is missing, in milliseconds.
pub const RESERVE_RETRY_MS: u64 = 5_000;
/// Most entries held in memory alone, when neither the database nor the reserve can be written.
pub const PENDING_MAX_ENTRIES: usize = 4_096;
/// How long to wait before the database is tried again while entries wait for it, in milliseconds.
pub const RETRY_MS: u64 = 200;
/// How long a signed checkpoint may wait for the next commit before it is stored by itself, in
/// milliseconds.
pub const CHECKPOINT_IDLE_MS: u64 = 50;
/// Entries after which a new snapshot is written: what a start must fold is about that many.
pub const SNAPSHOT_EVERY_ENTRIES: u64 = 20_000;
/// When the ledger is closed, a snapshot is written after this share of those entries already.
pub const SNAPSHOT_CLOSE_SHARE: u64 = 16;
/// How often it is looked whether a snapshot is due, in milliseconds.
pub const SNAPSHOT_LOOK_MS: u64 = 250;
/// How many times as long as a snapshot took to write nothing is written: a twentieth of one core.
pub const SNAPSHOT_REST: u32 = 19;
/// Snapshots that are kept: the newest, and one to fall back to.
pub const SNAPSHOTS_KEPT: usize = 2;
/// Most entries that one read returns.
pub const READ_MAX_ENTRIES: usize = 1_000;
/// Bytes after which one read stops taking more entries (16 MiB).
pub const READ_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Most idle read connections that are kept; more readers at once open their own.
pub const READERS_MAX_IDLE: usize = 8;
/// How long a connection waits for another's lock, in milliseconds.
pub const BUSY_TIMEOUT_MS: u64 = 5_000;
/// Bytes after which what the write-ahead log has is moved into the database (4 MiB).
pub const WAL_MOVE_BYTES: u64 = 4 * 1024 * 1024;
/// About what a commit adds to the write-ahead log beside its entries, in bytes: whole pages.
pub const WAL_COMMIT_BYTES: u64 = 16 * 1024;
/// Length from which the write-ahead log is long, in pages of 4 KiB (32 MiB).
pub const WAL_LONG_PAGES: i64 = 8_192;
/// Size to which the write-ahead log is cut back after a checkpoint, in bytes (64 MiB).
pub const WAL_KEEP_BYTES: i64 = 64 * 1024 * 1024;
/// Largest blob in bytes (128 MiB): it is held in memory while it is hashed or sealed.
pub const BLOB_MAX_BYTES: usize = 128 * 1024 * 1024;
/// Longest name or mail address of a person, in bytes (RFC 5321 allows 254 for an address).
pub const PERSON_FIELD_MAX_BYTES: usize = 320;
/// Longest key of a local value, in bytes.
pub const LOCAL_KEY_MAX_BYTES: usize = 128;
/// Largest local value, in bytes (64 KiB).
pub const LOCAL_VALUE_MAX_BYTES: usize = 64 * 1024;
/// Most findings that one verification lists; after that the ledger is plainly bad.
pub const FINDINGS_MAX: usize = 100;
/// How long the clock may run before the guard compares anew, in milliseconds (one hour): slow
/// drift is followed, a jump is not.
pub const CLOCK_ANCHOR_MAX_MS: u64 = 3_600_000;
/// How long PostgreSQL may take to accept a connection, in milliseconds.
pub const POSTGRES_CONNECT_MS: u64 = 2_000;
/// How long one statement may run in PostgreSQL, in milliseconds: whoever has gone holds a row's
/// lock no longer than that.
pub const POSTGRES_STATEMENT_MS: u64 = 8_000;
/// How long an answer of PostgreSQL is waited for, in milliseconds; longer than a statement may
/// run, so that the server's own refusal comes first.
pub const POSTGRES_ANSWER_MS: u64 = 10_000;
/// How long the outcome of a commit is looked for before its callers are refused, in milliseconds:
/// a restart of PostgreSQL on a small machine.
pub const POSTGRES_SETTLE_MS: u64 = 3_000;
/// How long to wait before PostgreSQL is asked again, in milliseconds.
pub const POSTGRES_RETRY_MS: u64 = 50;
/// How often a leader shows that it lives, in milliseconds.
pub const LEAD_BEAT_MS: u64 = 500;
/// After how long without a sign of life a standby takes over, in milliseconds: several beats, so
/// that one that is late changes nothing, and still a takeover within seconds.
pub const LEAD_LEASE_MS: u64 = 3_000;
/// How often a standby looks, in milliseconds.
pub const LEAD_LOOK_MS: u64 = 100;
/// Most events that one look takes from what other processes handed over.
pub const HANDOVER_MAX_EVENTS: usize = 64;
