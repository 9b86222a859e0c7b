//! A line that says what is being waited for, once that takes longer than a second.

use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// How long a person waits without being told why.
const SILENT: Duration = Duration::from_secs(1);

/// Waits for `work`, and after a second says on the terminal what is done and for how long.
pub(crate) async fn during<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    let mut seconds = 0_u64;
    let shown = std::io::stderr().is_terminal();
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                if shown && seconds > 0 {
                    let _ = write!(std::io::stderr(), "\r\x1b[K");
                }
                return done;
            }
            () = tokio::time::sleep(SILENT) => {
                seconds += 1;
                if shown {
                    let _ = write!(std::io::stderr(), "\r\x1b[K{what} ({seconds} s)");
                }
            }
        }
    }
}

/// Counts work that has steps, on the terminal, once it has taken longer than a second.
pub(crate) struct Counter {
    what: &'static str,
    started: std::time::Instant,
    told: std::time::Instant,
    shown: bool,
}

impl Counter {
    /// Nothing done yet.
    pub(crate) fn new(what: &'static str) -> Self {
        let now = std::time::Instant::now();
        Self {
            what,
            started: now,
            told: now,
            shown: false,
        }
    }

    /// `done` of `all` is done.
    pub(crate) fn at(&mut self, done: u64, all: u64) {
        self.tell(format_args!("{done} of {all}"));
    }

    /// `done` is done, of nobody knows how many.
    pub(crate) fn counted(&mut self, done: u64) {
        self.tell(format_args!("{done}"));
    }

    fn tell(&mut self, done: std::fmt::Arguments<'_>) {
        let due = self.started.elapsed() > SILENT
            && (!self.shown || self.told.elapsed() > Duration::from_millis(100));
        if due && std::io::stderr().is_terminal() {
            self.told = std::time::Instant::now();
            self.shown = true;
            let _ = write!(std::io::stderr(), "\r\x1b[K{} {done}", self.what);
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
