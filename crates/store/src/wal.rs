//! Moves what SQLite's write-ahead log has into the database, off the sequencer's way.
//!
//! By itself SQLite does that inside the commit that makes the log long enough: it writes a few
//! megabytes to other places and syncs a second file, and every caller of that batch waits. Here a
//! thread with a connection of its own does it (a *passive* checkpoint, which stops no writer).
//!
//! Under load there is always something new in the log when the thread is done, and the log is
//! begun anew only when everything of it is moved. So once it is long, the writer moves the little
//! that is left, between two batches and right after the thread, and the next batch begins the log
//! anew.
//!
//! A restart finds each page in the log, in the database, or in both; SQLite's log is the truth
//! until it is begun anew. An error here is not one of a commit: the log grows, and the next try
//! moves more.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use crate::limits::{WAL_COMMIT_BYTES, WAL_LONG_PAGES, WAL_MOVE_BYTES};

/// The thread, and what is to be told to it.
pub(crate) struct Mover {
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    /// About how many bytes were committed since it was last woken.
    unmoved: u64,
    long: Arc<AtomicBool>,
}

impl Mover {
    /// Starts the thread with a connection of its own to the database that `open` opens.
    pub(crate) fn start(
        path: PathBuf,
        open: fn(&std::path::Path) -> rusqlite::Result<Connection>,
    ) -> std::io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let long = Arc::new(AtomicBool::new(false));
        let found_long = Arc::clone(&long);
        let thread = std::thread::Builder::new()
            .name("ledger-log-mover".to_owned())
            .spawn(move || match open(&path) {
                Ok(connection) => work(&connection, &woken, &found_long),
                Err(error) => tracing::warn!(%error, "the write-ahead log is not moved"),
            })?;
        Ok(Self {
            wake: Some(wake),
            thread: Some(thread),
            unmoved: 0,
            long,
        })
    }

    /// Before a batch: moves what is left, if the log is long.
    pub(crate) fn before_commit(&self, writer: &Connection) {
        if self.long.swap(false, Ordering::AcqRel) {
            pass(writer);
        }
    }

    /// After a batch with so many bytes of entries.
    pub(crate) fn committed(&mut self, bytes: usize) {
        self.unmoved = self
            .unmoved
            .saturating_add(bytes as u64)
            .saturating_add(WAL_COMMIT_BYTES);
        if self.unmoved >= WAL_MOVE_BYTES
            && let Some(wake) = &self.wake
            && wake.try_send(()).is_ok()
        {
            self.unmoved = 0;
        }
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that moves the write-ahead log ended by a panic");
        }
    }
}

fn work(connection: &Connection, woken: &Receiver<()>, long: &AtomicBool) {
    while woken.recv().is_ok() {
        if pass(connection).is_some_and(|pages| pages >= WAL_LONG_PAGES) {
            long.store(true, Ordering::Release);
        }
    }
}

/// One passive checkpoint; gives the length of the log in pages.
fn pass(connection: &Connection) -> Option<i64> {
    let passed = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |row| row.get(1));
    match passed {
        Ok(pages) => Some(pages),
        Err(error) => {
            tracing::debug!(%error, "the write-ahead log could not be moved");
            None
        }
    }
}
