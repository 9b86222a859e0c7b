//! Who leads: one row, and a number in it that only grows.
//!
//! The row `portcullis.log` has an *epoch*, a *beat*, the leader's *token* and the log's size.
//! Whoever takes the lead raises the epoch, and every later write of the log names the epoch under
//! which it leads, in the same statement. PostgreSQL lets one statement at a time change the row.
//! So after a takeover no write of the one before can succeed, however late it comes: that is the
//! fence, and all that safety rests on.
//!
//! Time decides only *when* somebody may take over. A leader raises the beat at least every
//! [`LEAD_BEAT_MS`]; a standby that has seen the same epoch and beat for [`LEAD_LEASE_MS`] of its
//! own clock, with PostgreSQL answering all the while, takes over. Nobody's wall clock is compared
//! with another's. After PostgreSQL was away the standby counts anew, so that the leader, if it
//! lives, comes first, with what it has in its reserve.
//!
//! A leader that has had no answer for a lease asks the row before it signs, or answers that
//! something was granted: it may have been stopped and succeeded meanwhile. What it had committed
//! by then stands in the log and in its successor's state; what it has not is never written.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use portcullis_model::Refusal;
use tokio_postgres::Row;

use super::link::{Driver, Failure, Link};
use super::read::{unreadable, unsigned};
use crate::clock::{Clock, SystemClock};
use crate::disk::{io_refusal, private_file, sync_directory};
use crate::limits::{LEAD_BEAT_MS, LEAD_LEASE_MS};

/// The row as it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lead {
    pub(crate) epoch: u64,
    pub(crate) beat: u64,
    /// The leader's; empty if nobody leads.
    pub(crate) token: String,
    /// Where the leader answers.
    pub(crate) address: String,
    pub(crate) size: u64,
}

const COLUMNS: &str = "epoch, beat, token, address, size";

impl Lead {
    pub(super) fn from_row(row: &Row) -> Result<Self, Refusal> {
        Ok(Self {
            epoch: unsigned(row, 0)?,
            beat: unsigned(row, 1)?,
            token: row.try_get(2).map_err(unreadable)?,
            address: row.try_get(3).map_err(unreadable)?,
            size: unsigned(row, 4)?,
        })
    }

    /// The row as it stands.
    pub(crate) fn look(link: &Link) -> Result<Self, Refusal> {
        let row = link
            .run(|client| async move {
                client
                    .query_one(&format!("SELECT {COLUMNS} FROM portcullis.log"), &[])
                    .await
            })
            .map_err(|failure| failure.refusal("ask who leads"))?;
        Self::from_row(&row)
    }

    /// Takes the lead if the row is still `self`.
    pub(crate) fn take(
        &self,
        link: &Link,
        token: &str,
        address: &str,
    ) -> Result<Option<Self>, Refusal> {
        let (epoch, beat) = (signed(self.epoch), signed(self.beat));
        let (token, address) = (token.to_owned(), address.to_owned());
        let row = link
            .run(move |client| async move {
                client
                    .query_opt(
                        &format!(
                            "UPDATE portcullis.log
                             SET epoch = epoch + 1, beat = beat + 1, token = $3, address = $4
                             WHERE epoch = $1 AND beat = $2 RETURNING {COLUMNS}"
                        ),
                        &[&epoch, &beat, &token, &address],
                    )
                    .await
            })
            .map_err(|failure| failure.refusal("take the lead"))?;
        row.as_ref().map(Self::from_row).transpose()
    }
}

/// They stand in a signed column, and were read from it.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Watches the row for the time in which a leader has to show that it lives.
pub(crate) struct Watch {
    seen: Option<(Lead, u64)>,
}

impl Watch {
    pub(crate) const fn new() -> Self {
        Self { seen: None }
    }

    /// Looks once more. `true` if whoever leads has shown no life for a lease, or nobody leads, or
    /// it was this very instance, whose earlier process is gone.
    pub(crate) fn may_take(&mut self, now: &Lead, instance: &str) -> bool {
        if now.token.is_empty() || instance_of(&now.token) == instance {
            return true;
        }
        let at = SystemClock.elapsed_ms();
        match &self.seen {
            Some((seen, since)) if (seen.epoch, seen.beat) == (now.epoch, now.beat) => {
                at.saturating_sub(*since) >= LEAD_LEASE_MS
            }
            _ => {
                self.seen = Some((now.clone(), at));
                false
            }
        }
    }

    /// PostgreSQL did not answer: the time begins anew.
    pub(crate) fn forget(&mut self) {
        self.seen = None;
    }
}

/// What is told that the lead is lost.
type WhenLost = Box<dyn FnOnce(Refusal) + Send>;

/// A process that leads, as its threads share it.
pub(crate) struct Standing {
    token: String,
    epoch: AtomicU64,
    /// When the last request was sent that PostgreSQL answered with "you lead".
    confirmed_ms: AtomicU64,
    lost: AtomicBool,
    lost_to: Mutex<Option<String>>,
    when_lost: Mutex<Option<WhenLost>>,
    /// Tells the keeper to end.
    ended: Mutex<bool>,
    wake: Condvar,
}

impl Standing {
    pub(crate) fn new(lead: &Lead, since_ms: u64) -> Arc<Self> {
        Arc::new(Self {
            token: lead.token.clone(),
            epoch: AtomicU64::new(lead.epoch),
            confirmed_ms: AtomicU64::new(since_ms),
            lost: AtomicBool::new(false),
            lost_to: Mutex::new(None),
            when_lost: Mutex::new(None),
            ended: Mutex::new(false),
            wake: Condvar::new(),
        })
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    /// PostgreSQL confirmed the lead, asked at `sent_ms`.
    pub(crate) fn confirm(&self, sent_ms: u64) {
        self.confirmed_ms.fetch_max(sent_ms, Ordering::AcqRel);
    }

    /// Whether the last confirmation is so fresh that nobody can have taken over.
    pub(crate) fn is_fresh(&self) -> bool {
        let age = SystemClock
            .elapsed_ms()
            .saturating_sub(self.confirmed_ms.load(Ordering::Acquire));
        !self.is_lost() && age < LEAD_LEASE_MS
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Another one leads.
    pub(crate) fn lose(&self, to: Option<String>) {
        *lock(&self.lost_to) = to;
        self.lost.store(true, Ordering::Release);
        self.tell();
    }

    /// Has `told` called once the lead is lost, at once if it is.
    pub(crate) fn when_lost(&self, told: impl FnOnce(Refusal) + Send + 'static) {
        *lock(&self.when_lost) = Some(Box::new(told));
        if self.is_lost() {
            self.tell();
        }
    }

    fn tell(&self) {
        let told = lock(&self.when_lost).take();
        if let Some(told) = told {
            told(self.refusal());
        }
    }

    /// The refusal for everything that only a leader does.
    pub(crate) fn refusal(&self) -> Refusal {
        let leader = lock(&self.lost_to).clone();
        not_leader(leader.as_deref())
    }

    /// Asks the row whether this process still leads.
    pub(crate) fn beat(&self, link: &Link) -> Result<(), Refusal> {
        let sent = SystemClock.elapsed_ms();
        let epoch = self.epoch();
        let asked = signed(epoch);
        let changed = link
            .run(move |client| async move {
                client
                    .execute(
                        "UPDATE portcullis.log SET beat = beat + 1 WHERE epoch = $1",
                        &[&asked],
                    )
                    .await
            })
            .map_err(|failure| failure.refusal("confirm the lead"))?;
        if changed == 1 {
            self.confirm(sent);
            return Ok(());
        }
        if self.epoch() != epoch {
            // This process itself began a new epoch meanwhile.
            return Ok(());
        }
        let now = Lead::look(link)?;
        if now.token == self.token {
            return Ok(());
        }
        self.lose(Some(now.address));
        Err(self.refusal())
    }

    /// Ends the keeper.
    pub(crate) fn end(&self) {
        *lock(&self.ended) = true;
        self.wake.notify_all();
    }

    /// Waits for the next beat; `false` once it is over.
    fn rest(&self) -> bool {
        let ended = lock(&self.ended);
        let pause = Duration::from_millis(LEAD_BEAT_MS);
        let (ended, _) = self
            .wake
            .wait_timeout_while(ended, pause, |ended| !*ended)
            .unwrap_or_else(PoisonError::into_inner);
        !*ended
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The refusal of a process that does not lead.
pub(crate) fn not_leader(address: Option<&str>) -> Refusal {
    let refusal = Refusal::unavailable("not-leader", "this server does not lead; it only reads");
    match address.filter(|address| !address.is_empty()) {
        Some(address) => refusal
            .expected(&format!("the server that leads, {address}"))
            .next(format!("ask it instead: --server {address}")),
        None => refusal
            .expected("the server that leads")
            .next("repeat it in a few seconds, when one has taken the lead"),
    }
}

/// Keeps the lead by showing life, on a thread and a connection of its own, until it is lost or
/// ended.
pub(crate) fn keep(
    standing: Arc<Standing>,
    driver: Arc<Driver>,
) -> Result<std::thread::JoinHandle<()>, Refusal> {
    let work = move || {
        let mut link: Option<Link> = None;
        while standing.rest() {
            if link.as_ref().is_none_or(Link::is_broken) {
                link = match driver.connect() {
                    Ok(link) => Some(link),
                    Err(failure) => {
                        log_away(&failure);
                        None
                    }
                };
            }
            if let Some(link) = &link
                && !standing.is_lost()
                && let Err(refusal) = standing.beat(link)
                && !standing.is_lost()
            {
                tracing::warn!(%refusal, "the lead could not be confirmed");
            }
            if standing.is_lost() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("ledger-lead".to_owned())
        .spawn(work)
        .map_err(|error| io_refusal("start the keeper of the lead", &error))
}

fn log_away(failure: &Failure) {
    let refusal = failure.refusal("confirm the lead");
    tracing::warn!(%refusal, "the lead could not be confirmed");
}

/// Gives the lead back, so that a standby need not wait.
pub(crate) fn give_back(link: &Link, standing: &Standing) {
    let epoch = signed(standing.epoch());
    let given = link.run(move |client| async move {
        client
            .execute(
                "UPDATE portcullis.log SET beat = beat + 1, token = '', address = ''
                 WHERE epoch = $1",
                &[&epoch],
            )
            .await
    });
    if let Err(failure) = given {
        let refusal = failure.refusal("give the lead back");
        tracing::warn!(%refusal, "a standby takes over once the lease is over");
    }
}

/// The name of this data directory's servers, made once and kept.
pub(crate) fn instance(dir: &Path) -> Result<String, Refusal> {
    let path = dir.join("instance");
    let failed = |error: std::io::Error| io_refusal(&format!("read {}", path.display()), &error);
    match std::fs::read_to_string(&path) {
        Ok(text) if text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            return Ok(text);
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let name = random_name()?;
    write_small(dir, "instance", &name).map_err(failed)?;
    Ok(name)
}

/// A token for one time of leading.
pub(crate) fn new_token(instance: &str) -> Result<String, Refusal> {
    Ok(format!("{instance}:{}", random_name()?))
}

fn instance_of(token: &str) -> &str {
    token.split(':').next().unwrap_or_default()
}

fn random_name() -> Result<String, Refusal> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Refusal::internal("the system has no randomness"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Under which token this data directory's reserve is written. It names what the reserve's indexes
/// continue.
pub(crate) fn reserve_token(dir: &Path) -> Option<String> {
    std::fs::read_to_string(dir.join("lead")).ok()
}

/// Says so, durably, before anything is written there.
pub(crate) fn set_reserve_token(dir: &Path, token: &str) -> Result<(), Refusal> {
    write_small(dir, "lead", token)
        .map_err(|error| io_refusal(&format!("write {}", dir.join("lead").display()), &error))
}

fn write_small(dir: &Path, name: &str, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let stray = dir.join(format!("{name}.new"));
    let mut file = private_file().create(true).truncate(true).open(&stray)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&stray, dir.join(name))?;
    sync_directory(dir)
}
