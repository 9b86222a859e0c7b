//! What a look leads to, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::interval::Interval;

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Verdict {
    /// Nothing is decided; look again.
    Continue,
    /// There is evidence that the canary is not worse: move to this weight, then call
    /// [`crate::State::advance`].
    StepUp {
        /// Weight of the next step, per mille.
        weight_per_mille: u16,
    },
    /// Keep the weight, and tell a person.
    Hold {
        /// Why.
        reason: HoldReason,
    },
    /// Everything back to stable, now and for good.
    Rollback {
        /// Why.
        reason: RollbackReason,
    },
    /// The last step is passed: the canary may become the new stable.
    Complete,
}

/// Why a rollout holds. None of these is evidence about the canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "hold", rename_all = "kebab-case", deny_unknown_fields)]
pub enum HoldReason {
    /// The thresholds are not those that the rollout began with.
    ConfigChanged,
    /// The data plane serves another epoch: someone else moved it, or it restarted without state.
    EpochDiffers {
        /// Epoch of this step.
        expected: u64,
        /// Epoch of the counters.
        received: u64,
    },
    /// Time went backwards.
    ClockWentBack,
    /// An arm has more errors than requests.
    ImpossibleCounts,
    /// A counter fell within its epoch: the data plane restarted, or two answer in turn.
    CountersWentBack,
    /// No look for longer than the grace.
    Gap {
        /// Milliseconds between the looks.
        gap_ms: u64,
    },
    /// Stable had no requests for longer than the grace.
    NoStableTraffic {
        /// Milliseconds since its last request was seen.
        since_ms: u64,
    },
    /// The canary had no requests for longer than the grace.
    NoCanaryTraffic {
        /// Milliseconds since its last request was seen.
        since_ms: u64,
    },
    /// The step reached its longest time without evidence either way.
    Undecided,
}

/// Why a canary is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "rollback", rename_all = "kebab-case", deny_unknown_fields)]
pub enum RollbackReason {
    /// It served as many errors as it may at most.
    ErrorBound {
        /// Errors served.
        errors: u64,
        /// The bound.
        bound: u64,
    },
    /// The evidence that its error rate is above stable's passed the threshold.
    Harm {
        /// Log e-value in micro-nats.
        log_e_unats: i64,
        /// The threshold that it passed, ln(1/alpha), in micro-nats.
        threshold_unats: i64,
    },
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfigChanged => f.write_str("the thresholds changed during the rollout"),
            Self::EpochDiffers { expected, received } => write!(
                f,
                "the data plane serves epoch {received}, this step is epoch {expected}"
            ),
            Self::ClockWentBack => f.write_str("time went backwards between two looks"),
            Self::ImpossibleCounts => f.write_str("an arm reports more errors than requests"),
            Self::CountersWentBack => f.write_str("a counter fell between two looks"),
            Self::Gap { gap_ms } => write!(f, "no data for {gap_ms} ms"),
            Self::NoStableTraffic { since_ms } => {
                write!(f, "stable had no requests for {since_ms} ms")
            }
            Self::NoCanaryTraffic { since_ms } => {
                write!(f, "the canary had no requests for {since_ms} ms")
            }
            Self::Undecided => {
                f.write_str("the step reached its longest time without evidence either way")
            }
        }
    }
}

impl fmt::Display for RollbackReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ErrorBound { errors, bound } => {
                write!(f, "the canary served {errors} errors, the bound is {bound}")
            }
            Self::Harm {
                log_e_unats,
                threshold_unats,
            } => write!(
                f,
                "evidence of harm: log e-value {} reached the threshold {}",
                Nats(*log_e_unats),
                Nats(*threshold_unats)
            ),
        }
    }
}

/// Micro-nats with three decimals.
struct Nats(i64);

impl fmt::Display for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0 as f64 / crate::bet::UNATS)
    }
}

/// All that a verdict rests on, for people, events and displays. Whole numbers only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Index of the step.
    pub step: u32,
    /// Its weight, per mille.
    pub weight_per_mille: u16,
    /// Milliseconds since the rollout began.
    pub elapsed_ms: u64,
    /// Milliseconds in this step.
    pub step_elapsed_ms: u64,
    /// Blocks of observations in this step.
    pub blocks: u64,
    /// Stable in this step.
    pub stable: ArmEvidence,
    /// The canary in this step.
    pub canary: ArmEvidence,
    /// Canary's rate minus stable's, at level 1 − `harm_alpha`.
    pub difference: Interval,
    /// Evidence of harm over the whole rollout.
    pub harm: TestEvidence,
    /// Evidence of "not worse" in this step.
    pub promotion: TestEvidence,
    /// Errors that the canary served in the whole rollout.
    pub canary_errors_total: u64,
    /// How many it may serve.
    pub canary_errors_bound: u64,
}

/// One arm in the present step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmEvidence {
    /// Requests that ended.
    pub requests: u64,
    /// Errors among them.
    pub errors: u64,
    /// Estimated error rate in ppm; 0 without requests.
    pub rate_ppm: u32,
    /// Confidence sequence for the rate, at level 1 − `harm_alpha` / 2.
    pub interval: Interval,
}

/// One test: an e-value and what it must reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestEvidence {
    /// Log e-value in micro-nats, rounded down.
    pub log_e_unats: i64,
    /// ln(1/alpha) in micro-nats, rounded up.
    pub threshold_unats: i64,
    /// The e-value in thousandths, rounded down; saturates.
    pub e_value_milli: u64,
}

impl TestEvidence {
    /// Whether the threshold is reached.
    pub const fn reached(&self) -> bool {
        self.log_e_unats >= self.threshold_unats
    }
}
