//! What a rollout has seen, as whole numbers, and the moves between its steps.

use portcullis_model::{Digest, Refusal};
use serde::{Deserialize, Serialize};

use crate::bet::{HARM_BETS, PROMOTION_BETS, UNATS, floor_unats, log_sum, total};
use crate::config::Config;
use crate::verdict::RollbackReason;

/// Version of the stored form of [`State`].
pub const STATE_VERSION: u16 = 1;
/// Requests after which the memory that estimates rest on is halved, so they follow a drift.
const MEMORY_MAX_REQUESTS: u64 = 20_000;

/// Requests and how many of them were errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Requests that ended.
    pub requests: u64,
    /// Those that ended in an error.
    pub errors: u64,
}

impl Counts {
    /// Counts of an arm.
    pub const fn new(requests: u64, errors: u64) -> Self {
        Self { requests, errors }
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            errors: self.errors.saturating_add(other.errors),
        }
    }

    pub(crate) fn since(self, base: Self) -> Option<Self> {
        Some(Self {
            requests: self.requests.checked_sub(base.requests)?,
            errors: self.errors.checked_sub(base.errors)?,
        })
    }

    /// Whether these counts can come from one arm.
    pub(crate) const fn possible(self) -> bool {
        self.errors <= self.requests
    }

    fn remember(&mut self, block: Self) {
        *self = self.plus(block);
        while self.requests > MEMORY_MAX_REQUESTS {
            self.requests /= 2;
            self.errors /= 2;
        }
    }
}

/// One look at the data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Look {
    /// Epoch that the counters belong to.
    pub epoch: u64,
    /// Milliseconds since the rollout began, by the watcher's monotonic clock.
    pub elapsed_ms: u64,
    /// Stable's counters since the epoch began.
    pub stable: Counts,
    /// The canary's counters since the epoch began.
    pub canary: Counts,
}

/// Everything that a verdict rests on; stored between looks. Whole numbers only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "Stored", into = "Stored")]
pub struct State(pub(crate) Stored);

/// The stored form, version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stored {
    pub(crate) version: u16,
    /// Digest of the configuration that the rollout began with.
    pub(crate) config: Digest,
    /// Epoch whose counters are expected.
    pub(crate) epoch: u64,
    /// Index of the present step.
    pub(crate) step: u32,
    pub(crate) step_started_ms: u64,
    pub(crate) last_look_ms: u64,
    pub(crate) stable_seen_ms: u64,
    pub(crate) canary_seen_ms: u64,
    /// The counters of the last look.
    pub(crate) stable_counter: Counts,
    pub(crate) canary_counter: Counts,
    /// Seen, and waiting for the other arm to make a block.
    pub(crate) stable_pending: Counts,
    pub(crate) canary_pending: Counts,
    /// In this step.
    pub(crate) stable_step: Counts,
    pub(crate) canary_step: Counts,
    /// In the whole rollout.
    pub(crate) canary_total: Counts,
    /// What estimates rest on.
    pub(crate) stable_memory: Counts,
    pub(crate) canary_memory: Counts,
    /// Blocks in this step.
    pub(crate) blocks: u64,
    /// Log wealth of each bet of this step, in micro-nats.
    pub(crate) harm_unats: [i64; HARM_BETS],
    pub(crate) promotion_unats: [i64; PROMOTION_BETS],
    /// Log of the sum of finished steps' harm e-values, in micro-nats; none before the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) harm_finished_unats: Option<i64>,
    /// Once a rollback is due it stays due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rolled_back: Option<RollbackReason>,
}

impl From<State> for Stored {
    fn from(state: State) -> Self {
        state.0
    }
}

impl TryFrom<Stored> for State {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Self, String> {
        if stored.version == STATE_VERSION {
            Ok(Self(stored))
        } else {
            Err(format!(
                "rollout state has version {}, this program reads {STATE_VERSION}",
                stored.version
            ))
        }
    }
}

impl State {
    /// The state at the first step, with `epoch` the data plane's epoch of that step.
    ///
    /// # Errors
    /// The configuration is out of bounds.
    pub fn begin(config: &Config, epoch: u64) -> Result<Self, Refusal> {
        config.check()?;
        Ok(Self(Stored {
            version: STATE_VERSION,
            config: config.digest()?,
            epoch,
            step: 0,
            step_started_ms: 0,
            last_look_ms: 0,
            stable_seen_ms: 0,
            canary_seen_ms: 0,
            stable_counter: Counts::default(),
            canary_counter: Counts::default(),
            stable_pending: Counts::default(),
            canary_pending: Counts::default(),
            stable_step: Counts::default(),
            canary_step: Counts::default(),
            canary_total: Counts::default(),
            stable_memory: Counts::default(),
            canary_memory: Counts::default(),
            blocks: 0,
            harm_unats: [0; HARM_BETS],
            promotion_unats: [0; PROMOTION_BETS],
            harm_finished_unats: None,
            rolled_back: None,
        }))
    }

    /// The next step, once the data plane has taken its weight under `epoch`.
    ///
    /// # Errors
    /// There is no next step, a rollback is due, the configuration is another, or the epoch does
    /// not rise.
    pub fn advance(&self, config: &Config, epoch: u64, elapsed_ms: u64) -> Result<Self, Refusal> {
        if self.0.config != config.digest()? {
            return Err(Refusal::conflict(
                "rollout-config-changed",
                "the configuration is not the one that this rollout began with",
            ));
        }
        let next = self.0.step.saturating_add(1);
        if config.step(next).is_none() {
            return Err(Refusal::conflict(
                "rollout-last-step",
                "this rollout has no further step",
            ));
        }
        let mut state = self.resume(epoch, elapsed_ms)?;
        let stored = &mut state.0;
        let finished = total(&stored.harm_unats);
        stored.harm_finished_unats = Some(floor_unats(match stored.harm_finished_unats {
            Some(before) => log_sum(&[before as f64 / UNATS, finished]),
            None => finished,
        }));
        stored.step = next;
        stored.step_started_ms = elapsed_ms;
        stored.stable_step = Counts::default();
        stored.canary_step = Counts::default();
        stored.blocks = 0;
        stored.harm_unats = [0; HARM_BETS];
        stored.promotion_unats = [0; PROMOTION_BETS];
        Ok(state)
    }

    /// The same step under a new epoch of the data plane, after a pause or after the data plane
    /// had gone back to stable. The time since the last look does not count for the step.
    ///
    /// # Errors
    /// A rollback is due, or the epoch does not rise.
    pub fn resume(&self, epoch: u64, elapsed_ms: u64) -> Result<Self, Refusal> {
        if self.0.rolled_back.is_some() {
            return Err(Refusal::conflict(
                "rollout-rolled-back",
                "this rollout is to be rolled back; it can't go on",
            ));
        }
        if epoch <= self.0.epoch {
            return Err(
                Refusal::conflict("rollout-epoch-stale", "the epochs of a rollout rise")
                    .expected(&format!("an epoch above {}", self.0.epoch))
                    .received(&epoch.to_string()),
            );
        }
        let mut state = self.clone();
        let stored = &mut state.0;
        let paused_ms = elapsed_ms.saturating_sub(stored.last_look_ms);
        stored.epoch = epoch;
        stored.step_started_ms = stored.step_started_ms.saturating_add(paused_ms);
        stored.last_look_ms = stored.last_look_ms.max(elapsed_ms);
        stored.stable_seen_ms = stored.last_look_ms;
        stored.canary_seen_ms = stored.last_look_ms;
        stored.stable_counter = Counts::default();
        stored.canary_counter = Counts::default();
        stored.stable_pending = Counts::default();
        stored.canary_pending = Counts::default();
        Ok(state)
    }

    /// Index of the present step.
    pub const fn step(&self) -> u32 {
        self.0.step
    }

    /// Epoch whose counters are expected.
    pub const fn epoch(&self) -> u64 {
        self.0.epoch
    }

    /// Requests and errors of the canary in the whole rollout.
    pub const fn canary_total(&self) -> Counts {
        self.0.canary_total
    }
}

impl Stored {
    /// Takes in what happened since the last look.
    pub(crate) fn count(&mut self, stable: Counts, canary: Counts, elapsed_ms: u64) {
        if stable.requests > 0 {
            self.stable_seen_ms = elapsed_ms;
        }
        if canary.requests > 0 {
            self.canary_seen_ms = elapsed_ms;
        }
        self.stable_pending = self.stable_pending.plus(stable);
        self.canary_pending = self.canary_pending.plus(canary);
        self.stable_step = self.stable_step.plus(stable);
        self.canary_step = self.canary_step.plus(canary);
        self.canary_total = self.canary_total.plus(canary);
    }

    /// The next block, if both arms have something to put into it. Whether there is one depends on
    /// the numbers of requests alone but for counters read in mid-change, which wait.
    pub(crate) fn take_block(&mut self) -> Option<(Counts, Counts)> {
        let (stable, canary) = (self.stable_pending, self.canary_pending);
        let whole = |counts: Counts| counts.requests > 0 && counts.possible();
        if !whole(stable) || !whole(canary) {
            return None;
        }
        self.stable_pending = Counts::default();
        self.canary_pending = Counts::default();
        Some((stable, canary))
    }

    pub(crate) fn remember(&mut self, stable: Counts, canary: Counts) {
        self.stable_memory.remember(stable);
        self.canary_memory.remember(canary);
        self.blocks = self.blocks.saturating_add(1);
    }
}
