//! Between the environment's record, the canary's statistics and the ledger's whole numbers. Pure.

use std::collections::BTreeMap;

use portcullis_canary::{Config, Evidence, HoldReason, RollbackReason, State, Step};
use portcullis_model::manifest::Canary;
use portcullis_model::{Refusal, Timestamp};
use portcullis_proxy::Fallback;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Chance, per step, of stepping up a canary that is worse by the margin, in parts per million.
const PROMOTION_ALPHA_PPM: u32 = 50_000;
/// Weakest chance of a false rollback that the statistics take, in parts per million.
const HARM_ALPHA_MAX_PPM: u32 = 250_000;
/// How much higher than stable's the canary's error rate may be before it counts as harm, in ppm;
/// never more than half of the margin.
const HARM_TOLERANCE_PPM: u32 = 1_000;
/// Longest time without data before a rollout holds, in milliseconds: three of the slowest looks
/// that a busy server makes, and short against any step.
const MISSING_GRACE_MS: u64 = 15_000;

/// The thresholds that an environment's record sets.
pub fn config(canary: &Canary) -> Config {
    let margin_ppm = canary.margin_per_mille.saturating_mul(1_000);
    Config {
        harm_alpha_ppm: canary.alpha_ppm.min(HARM_ALPHA_MAX_PPM),
        harm_tolerance_ppm: HARM_TOLERANCE_PPM.min(margin_ppm / 2),
        promotion_alpha_ppm: PROMOTION_ALPHA_PPM,
        promotion_margin_ppm: margin_ppm,
        max_canary_errors: canary.max_errors,
        min_canary_requests: canary.min_requests,
        missing_grace_ms: MISSING_GRACE_MS,
        steps: canary
            .steps
            .iter()
            .map(|weight| Step {
                weight_per_mille: u16::try_from(*weight).unwrap_or(u16::MAX),
                min_ms: canary.min_step_ms,
                max_ms: canary.max_step_ms,
            })
            .collect(),
    }
}

/// What is recorded of the statistics: their state, and when it was so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The canary's own state.
    pub canary: State,
    /// Milliseconds since the first step began.
    pub elapsed_ms: u64,
    /// The wall clock then, so that the time of a restart counts.
    pub at: Timestamp,
}

impl Kept {
    /// Its stored form.
    ///
    /// # Errors
    /// It does not serialise, which is a defect.
    pub fn to_value(&self) -> Result<Value, Refusal> {
        serde_json::to_value(self)
            .map_err(|error| Refusal::internal(format!("statistics do not serialise: {error}")))
    }

    /// Reads what a rollout holds; none before the first step.
    ///
    /// # Errors
    /// Another version wrote it.
    pub fn read(value: &Value) -> Result<Option<Self>, Refusal> {
        if value.is_null() {
            return Ok(None);
        }
        Self::deserialize(value).map(Some).map_err(|error| {
            Refusal::unavailable(
                "statistics-unreadable",
                "the rollout's statistics can't be read",
            )
            .received(&error.to_string())
            .next("abort the rollout, or run the version that began it")
        })
    }
}

/// Counts and statistics for the ledger.
pub fn numbers(evidence: &Evidence) -> BTreeMap<String, i64> {
    let whole = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let mut numbers: BTreeMap<String, i64> = [
        ("step", i64::from(evidence.step)),
        ("elapsed_ms", whole(evidence.elapsed_ms)),
        ("step_elapsed_ms", whole(evidence.step_elapsed_ms)),
        ("blocks", whole(evidence.blocks)),
        ("difference_low_ppm", evidence.difference.low_ppm),
        ("difference_high_ppm", evidence.difference.high_ppm),
        ("harm_log_e_micronats", evidence.harm.log_e_unats),
        ("harm_threshold_micronats", evidence.harm.threshold_unats),
        ("promotion_log_e_micronats", evidence.promotion.log_e_unats),
        (
            "promotion_threshold_micronats",
            evidence.promotion.threshold_unats,
        ),
        ("canary_errors_total", whole(evidence.canary_errors_total)),
        ("canary_errors_bound", whole(evidence.canary_errors_bound)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    for (arm, seen) in [("stable", &evidence.stable), ("canary", &evidence.canary)] {
        numbers.insert(format!("{arm}_requests"), whole(seen.requests));
        numbers.insert(format!("{arm}_errors"), whole(seen.errors));
        numbers.insert(format!("{arm}_rate_ppm"), i64::from(seen.rate_ppm));
    }
    numbers
}

/// The stable code of a hold.
pub const fn hold_code(reason: &HoldReason) -> &'static str {
    match reason {
        HoldReason::ConfigChanged => "thresholds-changed",
        HoldReason::EpochDiffers { .. } => "epoch-differs",
        HoldReason::ClockWentBack => "clock-went-back",
        HoldReason::ImpossibleCounts => "impossible-counts",
        HoldReason::CountersWentBack => "counters-went-back",
        HoldReason::Gap { .. } => "data-gap",
        HoldReason::NoStableTraffic { .. } => "no-stable-traffic",
        HoldReason::NoCanaryTraffic { .. } => "no-canary-traffic",
        HoldReason::Undecided => "undecided",
    }
}

/// The stable code of a rollback.
pub const fn rollback_code(reason: &RollbackReason) -> &'static str {
    match reason {
        RollbackReason::ErrorBound { .. } => "errors",
        RollbackReason::Harm { .. } => "harm",
    }
}

/// The stable code of a canary that the proxy took back by itself.
pub const fn fallback_code(fallback: Fallback) -> &'static str {
    match fallback {
        Fallback::Commanded => "commanded",
        Fallback::HeartbeatLapsed => "heartbeat-lapsed",
        Fallback::CanaryUnreachable => "canary-unreachable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_that_validates_gives_thresholds_that_hold() {
        let default = Canary::default();
        assert!(config(&default).check().is_ok());
        let strict = Canary {
            margin_per_mille: 1,
            alpha_ppm: 499_999,
            ..Canary::default()
        };
        assert!(strict.validate().is_ok());
        assert!(
            config(&strict).check().is_ok(),
            "{:?}",
            config(&strict).check()
        );
    }

    #[test]
    fn a_record_without_margin_or_bound_moves_nothing() {
        for bad in [
            Canary {
                margin_per_mille: 0,
                ..Canary::default()
            },
            Canary {
                max_errors: 0,
                ..Canary::default()
            },
            Canary {
                steps: vec![50, 1_000],
                ..Canary::default()
            },
            Canary {
                steps: vec![],
                ..Canary::default()
            },
            Canary {
                margin_per_mille: u32::MAX,
                ..Canary::default()
            },
        ] {
            assert!(config(&bad).check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_recorded_is_read_back_and_holds_no_fractions() {
        let config = config(&Canary::default());
        let kept = Kept {
            canary: State::begin(&config, 1_024).unwrap(),
            elapsed_ms: 5,
            at: Timestamp::from_ms(7),
        };
        let value = kept.to_value().unwrap();
        assert!(portcullis_model::canonical::to_vec(&value).is_ok());
        assert_eq!(Kept::read(&value).unwrap(), Some(kept));
        assert_eq!(Kept::read(&Value::Null).unwrap(), None);
        assert!(Kept::read(&serde_json::json!({ "canary": 1 })).is_err());
    }
}
