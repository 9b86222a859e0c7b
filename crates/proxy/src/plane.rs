//! What the control plane can change, and the falling back to stable that needs nobody.
//!
//! Requests read the current [`Epoch`] without waiting. Changes of configuration go one at a time
//! through the lock on [`Held`]; going to stable acts before it takes that lock.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use portcullis_model::Refusal;
use tokio::sync::{Mutex, watch};

use crate::assign::assigned_to_canary;
use crate::counts::Counters;
use crate::pool::Pool;
use crate::serve::Limits;
use crate::slots::{Beat, Record, Slots};
use crate::wire::{ArmStats, ConfigAck, Fallback, Release, Routing, StableAck, Stats};

/// Refused connections in a row after which the canary gets nothing more: enough for the canary's
/// verdict to see a total failure, few enough to spare the clients.
const UNREACHABLE_AFTER_FAILURES: u32 = 20;
/// Longest wait for the disk before a change is served without being durable.
const PERSIST_TIMEOUT: Duration = Duration::from_secs(1);

/// One configuration in force, with its counters.
#[derive(Debug)]
pub(crate) struct Epoch {
    pub(crate) routing: Routing,
    pub(crate) stable: Arc<Pool>,
    pub(crate) canary: Option<Arc<Pool>>,
    stable_counters: Counters,
    canary_counters: Counters,
    /// Numbers requests that have no key of their own.
    sequence: AtomicU64,
    /// A [`Fallback`] by its code; it never goes back to none.
    fallback: AtomicU8,
    /// Last heartbeat on [`Plane::now_ms`]'s clock.
    heartbeat_ms: AtomicU64,
    failures_in_a_row: AtomicU32,
}

impl Epoch {
    pub(crate) const fn counters(&self, release: Release) -> &Counters {
        match release {
            Release::Stable => &self.stable_counters,
            Release::Canary => &self.canary_counters,
        }
    }

    pub(crate) fn fallback(&self) -> Option<Fallback> {
        match self.fallback.load(Ordering::SeqCst) {
            1 => Some(Fallback::Commanded),
            2 => Some(Fallback::HeartbeatLapsed),
            3 => Some(Fallback::CanaryUnreachable),
            _ => None,
        }
    }

    /// Everything to stable. Answers whether this was news.
    fn fall_back(&self, reason: Fallback) -> bool {
        let code = match reason {
            Fallback::Commanded => 1,
            Fallback::HeartbeatLapsed => 2,
            Fallback::CanaryUnreachable => 3,
        };
        self.fallback
            .compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    fn tries_canary(&self) -> bool {
        self.canary.is_some() && self.routing.weight_per_mille > 0
    }

    fn heartbeat_age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.heartbeat_ms.load(Ordering::SeqCst))
    }
}

/// The state that outlives requests.
pub(crate) struct Plane {
    pub(crate) limits: Limits,
    current: ArcSwapOption<Epoch>,
    held: Mutex<Held>,
    slots: Arc<std::sync::Mutex<Slots>>,
    persisted: AtomicBool,
    started: Instant,
    started_unix_ms: u64,
    pub(crate) connections: AtomicU64,
    pub(crate) upgrades: AtomicU64,
    stopping: watch::Sender<bool>,
}

/// What only changes of configuration touch.
struct Held {
    epoch_floor: u64,
}

impl Plane {
    /// Comes back to what the state file says; a canary whose heartbeat is stale by now gets
    /// nothing.
    pub(crate) fn open(state_file: &Path, limits: Limits) -> Arc<Self> {
        let (slots, record, beat) = Slots::open(state_file);
        let record = record.unwrap_or_default();
        let started_unix_ms = unix_ms();
        let plane = Self {
            limits,
            current: ArcSwapOption::empty(),
            held: Mutex::new(Held {
                epoch_floor: record.epoch_floor,
            }),
            slots: Arc::new(std::sync::Mutex::new(slots)),
            persisted: AtomicBool::new(true),
            started: Instant::now(),
            started_unix_ms,
            connections: AtomicU64::new(0),
            upgrades: AtomicU64::new(0),
            stopping: watch::Sender::new(false),
        };
        if let Some(routing) = record.routing {
            let age_ms = beat
                .filter(|beat| beat.epoch == routing.epoch)
                .and_then(|beat| started_unix_ms.checked_sub(beat.unix_ms))
                .filter(|age_ms| *age_ms <= routing.heartbeat_ttl_ms);
            let epoch = plane.epoch(routing);
            if let Some(reason) = record.fallback {
                epoch.fall_back(reason);
            } else if epoch.tries_canary() && age_ms.is_none() {
                tracing::warn!(
                    epoch = epoch.routing.epoch,
                    "restarted with a stale heartbeat; everything goes to stable"
                );
                epoch.fall_back(Fallback::HeartbeatLapsed);
            }
            let beat_ms = plane.now_ms().saturating_sub(age_ms.unwrap_or_default());
            epoch.heartbeat_ms.store(beat_ms, Ordering::SeqCst);
            plane.current.store(Some(Arc::new(epoch)));
        }
        Arc::new(plane)
    }

    /// The configuration in force.
    pub(crate) fn current(&self) -> Option<Arc<Epoch>> {
        self.current.load_full()
    }

    /// Which release serves a request with this key.
    pub(crate) fn choose(&self, epoch: &Epoch, key: Option<&[u8]>) -> Release {
        if !epoch.tries_canary() || epoch.fallback().is_some() {
            return Release::Stable;
        }
        if epoch.heartbeat_age_ms(self.now_ms()) > epoch.routing.heartbeat_ttl_ms {
            self.lapse(epoch);
            return Release::Stable;
        }
        let Routing {
            seed,
            weight_per_mille,
            ..
        } = epoch.routing;
        let canary = match key {
            Some(key) => assigned_to_canary(seed, key, weight_per_mille),
            None => {
                let number = epoch.sequence.fetch_add(1, Ordering::Relaxed);
                assigned_to_canary(seed, &number.to_be_bytes(), weight_per_mille)
            }
        };
        if canary {
            Release::Canary
        } else {
            Release::Stable
        }
    }

    /// Notes whether the canary took a connection.
    pub(crate) fn canary_reached(self: &Arc<Self>, epoch: &Epoch, reached: bool) {
        if reached {
            if epoch.failures_in_a_row.load(Ordering::Relaxed) != 0 {
                epoch.failures_in_a_row.store(0, Ordering::Relaxed);
            }
            return;
        }
        let failures = epoch.failures_in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        if failures >= UNREACHABLE_AFTER_FAILURES && epoch.fall_back(Fallback::CanaryUnreachable) {
            tracing::warn!(
                epoch = epoch.routing.epoch,
                failures,
                "the canary takes no connections; everything goes to stable"
            );
            let plane = Arc::clone(self);
            tokio::spawn(async move {
                let held = plane.held.lock().await;
                plane.persist(&held).await;
            });
        }
    }

    fn lapse(&self, epoch: &Epoch) {
        // Not persisted: after a restart the stale heartbeat says the same.
        if epoch.fall_back(Fallback::HeartbeatLapsed) {
            tracing::warn!(
                epoch = epoch.routing.epoch,
                ttl_ms = epoch.routing.heartbeat_ttl_ms,
                "no heartbeat; everything goes to stable"
            );
        }
    }

    /// Tells all connections that the proxy ends.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Returns when the proxy ends.
    pub(crate) async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        // The sender lives as long as this plane.
        drop(stopping.wait_for(|stopping| *stopping).await);
    }

    /// `PUT /v1/config`.
    pub(crate) async fn configure(&self, routing: Routing) -> Result<ConfigAck, Refusal> {
        routing.check()?;
        let mut held = self.held.lock().await;
        let current = self.current();
        if let Some(current) = &current
            && current.routing == routing
        {
            // The same again: someone did not hear the answer.
            return Ok(ConfigAck {
                epoch: routing.epoch,
                persisted: self.persisted.load(Ordering::SeqCst),
            });
        }
        let floor = current
            .as_ref()
            .map_or(0, |current| current.routing.epoch)
            .max(held.epoch_floor);
        if routing.epoch <= floor {
            return Err(Refusal::conflict(
                "proxy-epoch-stale",
                "a newer configuration, or a command to stay on stable, came before this one",
            )
            .expected(&format!("an epoch above {floor}"))
            .received(&routing.epoch.to_string())
            .next("read GET /v1/stats and decide anew"));
        }
        held.epoch_floor = routing.epoch;
        let epoch = Arc::new(self.epoch(routing));
        self.note_beat(&epoch);
        self.current.store(Some(Arc::clone(&epoch)));
        let persisted = self.persist(&held).await;
        Ok(ConfigAck {
            epoch: epoch.routing.epoch,
            persisted,
        })
    }

    /// `POST /v1/stable`. Acts first; a configuration that was being put meanwhile loses.
    pub(crate) async fn to_stable(&self, refuse_up_to_epoch: Option<u64>) -> StableAck {
        if let Some(epoch) = self.current() {
            epoch.fall_back(Fallback::Commanded);
        }
        let mut held = self.held.lock().await;
        let current = self.current();
        if let Some(epoch) = &current {
            epoch.fall_back(Fallback::Commanded);
        }
        held.epoch_floor = held.epoch_floor.max(refuse_up_to_epoch.unwrap_or(0));
        let persisted = self.persist(&held).await;
        StableAck {
            epoch: current.map(|epoch| epoch.routing.epoch),
            epoch_floor: held.epoch_floor,
            persisted,
        }
    }

    /// `POST /v1/heartbeat`. A heartbeat for another epoch, or for one that fell back, is refused,
    /// so that whoever sends it looks again.
    pub(crate) fn heartbeat(&self, number: u64) -> Result<(), Refusal> {
        let current = self
            .current()
            .filter(|epoch| epoch.routing.epoch == number)
            .ok_or_else(|| {
                Refusal::conflict("proxy-epoch-differs", "another epoch is being served")
                    .received(&number.to_string())
                    .next("read GET /v1/stats")
            })?;
        if current.tries_canary()
            && current.heartbeat_age_ms(self.now_ms()) > current.routing.heartbeat_ttl_ms
        {
            self.lapse(&current);
        }
        if current.fallback().is_some() {
            return Err(
                Refusal::conflict("proxy-fallen-back", "this epoch went back to stable").next(
                    "read GET /v1/stats, and put a configuration with a higher epoch to try again",
                ),
            );
        }
        self.note_beat(&current);
        Ok(())
    }

    /// `GET /v1/stats`.
    pub(crate) async fn stats(&self) -> Stats {
        let epoch_floor = self.held.lock().await.epoch_floor;
        let current = self.current();
        let now_ms = self.now_ms();
        if let Some(epoch) = &current
            && epoch.tries_canary()
            && epoch.heartbeat_age_ms(now_ms) > epoch.routing.heartbeat_ttl_ms
        {
            self.lapse(epoch);
        }
        let arm = |release| {
            current
                .as_ref()
                .map_or_else(ArmStats::default, |epoch| epoch.counters(release).stats())
        };
        Stats {
            started_unix_ms: self.started_unix_ms,
            routing: current.as_ref().map(|epoch| epoch.routing.clone()),
            epoch_floor,
            effective_weight_per_mille: current
                .as_ref()
                .filter(|epoch| epoch.fallback().is_none())
                .map_or(0, |epoch| epoch.routing.weight_per_mille),
            fallback: current.as_ref().and_then(|epoch| epoch.fallback()),
            heartbeat_age_ms: current.as_ref().map(|epoch| epoch.heartbeat_age_ms(now_ms)),
            persisted: self.persisted.load(Ordering::SeqCst),
            connections: self.connections.load(Ordering::Relaxed),
            upgrades: self.upgrades.load(Ordering::Relaxed),
            stable: arm(Release::Stable),
            canary: arm(Release::Canary),
        }
    }

    fn epoch(&self, routing: Routing) -> Epoch {
        let current = self.current();
        // Connections to a backend outlive the epoch.
        let pool = |backend: &crate::wire::Backend| {
            current
                .iter()
                .flat_map(|epoch| [Some(&epoch.stable), epoch.canary.as_ref()])
                .flatten()
                .find(|pool| pool.backend() == backend)
                .map_or_else(
                    || Arc::new(Pool::new(backend.clone(), &self.limits)),
                    Arc::clone,
                )
        };
        Epoch {
            stable: pool(&routing.stable),
            canary: routing.canary.as_ref().map(pool),
            routing,
            stable_counters: Counters::default(),
            canary_counters: Counters::default(),
            sequence: AtomicU64::new(0),
            fallback: AtomicU8::new(0),
            heartbeat_ms: AtomicU64::new(self.now_ms()),
            failures_in_a_row: AtomicU32::new(0),
        }
    }

    /// Keeps the heartbeat in memory, and in the state file as soon as the disk likes.
    fn note_beat(&self, epoch: &Epoch) {
        epoch.heartbeat_ms.store(self.now_ms(), Ordering::SeqCst);
        let beat = Beat {
            epoch: epoch.routing.epoch,
            unix_ms: unix_ms(),
        };
        let slots = Arc::clone(&self.slots);
        tokio::task::spawn_blocking(move || {
            // A beat that is not written only makes a restart more careful.
            if let Ok(slots) = slots.try_lock()
                && let Err(error) = slots.beat(beat)
            {
                tracing::debug!(%error, "the heartbeat was not written");
            }
        });
    }

    /// Writes what is in force, waiting for the disk only so long.
    async fn persist(&self, held: &Held) -> bool {
        let current = self.current();
        let record = Record {
            routing: current.as_ref().map(|epoch| epoch.routing.clone()),
            fallback: current.as_ref().and_then(|epoch| epoch.fallback()),
            epoch_floor: held.epoch_floor,
        };
        let slots = Arc::clone(&self.slots);
        let write = tokio::task::spawn_blocking(move || match slots.lock() {
            Ok(mut slots) => slots.save(&record),
            Err(poisoned) => poisoned.into_inner().save(&record),
        });
        let written = tokio::time::timeout(PERSIST_TIMEOUT, write).await;
        let persisted = matches!(written, Ok(Ok(Ok(()))));
        if !persisted {
            let cause = match written {
                Ok(Ok(result)) => result.err().map(|error| error.to_string()),
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("the disk did not answer within a second".to_owned()),
            };
            tracing::warn!(
                cause,
                "the change is served, and would not survive a restart"
            );
        }
        self.persisted.store(persisted, Ordering::SeqCst);
        persisted
    }

    /// Milliseconds of this plane's monotonic clock. It starts far enough from 0 that a heartbeat
    /// from before the restart has a place on it.
    fn now_ms(&self) -> u64 {
        const BEFORE_START_MS: u64 = 3_600_000;
        let since = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        since.saturating_add(BEFORE_START_MS)
    }
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
