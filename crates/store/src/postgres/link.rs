//! A connection to PostgreSQL for callers that wait: the sequencer's thread, blocking tasks, tests.
//!
//! The driver is asynchronous and lives on a thread of its own, so that a caller may wait from
//! anywhere, and so that every wait has an end: what was not answered by then counts as a broken
//! connection, and whoever wrote something must find out what became of it.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_model::Refusal;
use tokio::runtime::{Handle, Runtime};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::options::Target;
use crate::limits::{POSTGRES_ANSWER_MS, POSTGRES_CONNECT_MS, READERS_MAX_IDLE};

/// The thread on which all connections of one ledger live.
pub(crate) struct Driver {
    target: Target,
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting for it is not allowed everywhere a ledger may be dropped.
            runtime.shutdown_background();
        }
    }
}

/// Why a call did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server refused the statement; it did nothing.
    Refused(Box<tokio_postgres::error::DbError>),
    /// The connection broke or was too slow; a statement that writes may be done or not.
    Broken(String),
}

impl Failure {
    /// In the words of a refusal; `doing` completes "could not …".
    pub(crate) fn refusal(&self, doing: &str) -> Refusal {
        match self {
            Self::Refused(error) => refused(doing, error),
            Self::Broken(cause) => away(doing, cause),
        }
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            // These come when the server ends the connection, whatever it was doing then.
            Some(refused) if !ends_connection(refused.code()) => {
                Self::Refused(Box::new(refused.clone()))
            }
            _ => Self::Broken(with_sources(&error)),
        }
    }
}

fn ends_connection(code: &SqlState) -> bool {
    // Class 57P is "operator intervention": shutdown, crash, cannot connect now. Class 08 is
    // "connection exception".
    code.code().starts_with("57P") || code.code().starts_with("08")
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

fn refused(doing: &str, error: &tokio_postgres::error::DbError) -> Refusal {
    let code = error.code();
    let received = format!("{} ({})", error.message(), code.code());
    if *code == SqlState::DISK_FULL {
        return Refusal::unavailable(
            "disk-full",
            format!("could not {doing}: the disk of PostgreSQL is full"),
        )
        .received(&received)
        .next("free space on the disk of PostgreSQL; nothing else is needed");
    }
    if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        return Refusal::unavailable(
            "disk-read-only",
            format!("could not {doing}: PostgreSQL is read-only"),
        )
        .received(&received)
        .next("name the primary server in the store's url, not a replica of it");
    }
    if *code == SqlState::INVALID_PASSWORD
        || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION
        || *code == SqlState::INSUFFICIENT_PRIVILEGE
    {
        return Refusal::unavailable(
            "postgres-denied",
            format!("could not {doing}: PostgreSQL does not let this server in"),
        )
        .received(&received)
        .next("check the user in the store's url, its password file and its rights");
    }
    if *code == SqlState::UNDEFINED_DATABASE {
        return Refusal::unavailable(
            "postgres-no-database",
            format!("could not {doing}: there is no such database"),
        )
        .received(&received)
        .next("make it with `createdb`, or correct the store's url");
    }
    Refusal::unavailable("storage-failed", format!("could not {doing}"))
        .received(&received)
        .next("look at the log of PostgreSQL")
}

fn away(doing: &str, cause: &str) -> Refusal {
    // The driver's own words where the server asks for one and none is configured.
    if cause.contains("password missing") {
        return Refusal::unavailable(
            "postgres-denied",
            format!("could not {doing}: PostgreSQL asks for a password"),
        )
        .received("no password")
        .next("name its file with `password_file` in the section `store`, or set PORTCULLIS_STORE_PASSWORD");
    }
    Refusal::unavailable(
        "postgres-away",
        format!("could not {doing}: PostgreSQL can't be reached"),
    )
    .received(cause)
    .next("see that PostgreSQL runs and that the store's url names it; nothing else is needed")
}

impl Driver {
    pub(crate) fn start(target: Target) -> Result<Arc<Self>, Refusal> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("ledger-postgres")
            .enable_all()
            .build()
            .map_err(|error| crate::disk::io_refusal("start the PostgreSQL driver", &error))?;
        Ok(Arc::new(Self {
            target,
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        }))
    }

    /// Opens a connection and prepares its session.
    pub(crate) fn connect(self: &Arc<Self>) -> Result<Link, Failure> {
        let target = self.target.clone();
        let client = self.wait(POSTGRES_CONNECT_MS, async move { target.connect().await })?;
        Ok(Link {
            driver: Arc::clone(self),
            client: Arc::new(client),
            broken: AtomicBool::new(false),
        })
    }

    fn wait<T: Send + 'static>(
        &self,
        limit_ms: u64,
        call: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        let (sender, receiver) = sync_channel(1);
        self.handle.spawn(async move {
            let answer = call.await;
            // Nobody waits any more: what it did stands all the same.
            let _gone = sender.send(answer);
        });
        match receiver.recv_timeout(Duration::from_millis(limit_ms)) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => {
                Err(Failure::Broken(format!("no answer within {limit_ms} ms")))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(Failure::Broken("the driver has ended".to_owned()))
            }
        }
    }
}

/// One connection.
pub(crate) struct Link {
    driver: Arc<Driver>,
    client: Arc<Client>,
    broken: AtomicBool,
}

impl Link {
    /// Has `call` done on the connection, within [`POSTGRES_ANSWER_MS`].
    pub(crate) fn run<T, C, W>(&self, call: C) -> Result<T, Failure>
    where
        T: Send + 'static,
        C: FnOnce(Arc<Client>) -> W,
        W: Future<Output = Result<T, tokio_postgres::Error>> + Send + 'static,
    {
        if self.is_broken() {
            return Err(Failure::Broken("the connection is closed".to_owned()));
        }
        let work = call(Arc::clone(&self.client));
        let answer = self.driver.wait(POSTGRES_ANSWER_MS, async move {
            work.await.map_err(Failure::from)
        });
        if matches!(answer, Err(Failure::Broken(_))) {
            self.broken.store(true, Ordering::Release);
        }
        answer
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire) || self.client.is_closed()
    }
}

/// Connections that are kept for the next who needs one.
pub(crate) struct Pool {
    driver: Arc<Driver>,
    idle: Mutex<Vec<Link>>,
}

impl Pool {
    pub(crate) fn new(driver: Arc<Driver>) -> Self {
        Self {
            driver,
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Calls `work` with a connection; `doing` completes "could not …".
    pub(crate) fn with<T>(
        &self,
        doing: &str,
        work: impl FnOnce(&Link) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let link = match self.take() {
            Some(link) => link,
            None => self
                .driver
                .connect()
                .map_err(|failure| failure.refusal(doing))?,
        };
        let answer = work(&link);
        let mut idle = self.idle();
        if !link.is_broken() && idle.len() < READERS_MAX_IDLE {
            idle.push(link);
        }
        answer
    }

    /// An idle connection that is not known to be broken.
    fn take(&self) -> Option<Link> {
        let mut idle = self.idle();
        while let Some(link) = idle.pop() {
            if !link.is_broken() {
                return Some(link);
            }
        }
        None
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Link>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
