//! What the person who owns an environment decides about a rollout, before it starts.

use portcullis_model::{Digest, Refusal, RefusalKind, canonical};
use serde::{Deserialize, Serialize};

/// Most steps of one rollout; each shares the false-rollback level, and 16 doublings reach any
/// weight.
pub const STEPS_MAX: usize = 16;
/// One as parts per million.
pub(crate) const PPM: u32 = 1_000_000;
/// Weakest level that may be stated, in ppm (one in four): beyond it a test says nothing.
const ALPHA_MAX_PPM: u32 = 250_000;

/// The thresholds of one rollout. They are fixed when it begins: a state refuses looks under any
/// other configuration, since thresholds that move with the data void the stated levels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Highest chance of a false rollback over the whole rollout, in ppm (10 000 is 1 %).
    pub harm_alpha_ppm: u32,
    /// How much higher than stable's the canary's error rate may be before it counts as harm, in
    /// ppm, absolute.
    pub harm_tolerance_ppm: u32,
    /// Highest chance, per step, of stepping up a canary that is worse by the margin or more, in
    /// ppm.
    pub promotion_alpha_ppm: u32,
    /// Margin of non-inferiority in ppm, absolute; above the tolerance.
    pub promotion_margin_ppm: u32,
    /// Errors that the canary may serve over the whole rollout; reaching it rolls back at once,
    /// whatever the rates.
    pub max_canary_errors: u64,
    /// Canary requests that each step needs at least.
    pub min_canary_requests: u64,
    /// Longest time without a look, without canary requests or without stable requests, in ms,
    /// before the rollout holds.
    pub missing_grace_ms: u64,
    /// The steps in order, 1 to [`STEPS_MAX`], weights rising.
    pub steps: Vec<Step>,
}

/// One step: a share of the traffic and how long it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Share of requests that go to the canary, 1 to 999 per mille: at 1000 nothing is left to
    /// compare with.
    pub weight_per_mille: u16,
    /// Shortest time in ms before the next step.
    pub min_ms: u64,
    /// Time in ms after which a step without enough evidence holds and asks.
    pub max_ms: u64,
}

impl Default for Config {
    /// 1 % false rollback, 5 % false step-up at a margin of 1 %, 50 errors, four steps of at least
    /// a minute.
    fn default() -> Self {
        let step = |weight_per_mille| Step {
            weight_per_mille,
            min_ms: 60_000,
            max_ms: 3_600_000,
        };
        Self {
            harm_alpha_ppm: 10_000,
            harm_tolerance_ppm: 1_000,
            promotion_alpha_ppm: 50_000,
            promotion_margin_ppm: 10_000,
            max_canary_errors: 50,
            min_canary_requests: 100,
            missing_grace_ms: 15_000,
            steps: [10, 50, 200, 500].map(step).to_vec(),
        }
    }
}

impl Config {
    /// Checks every bound; call it where a configuration enters.
    ///
    /// # Errors
    /// A bound is broken; the refusal names the field and what it may be.
    pub fn check(&self) -> Result<(), Refusal> {
        let bad = |field: &str, expected: &str, received: String| {
            Err(Refusal::new(
                RefusalKind::Malformed,
                "malformed-rollout-config",
                format!("`{field}` of this rollout is out of bounds"),
            )
            .expected(expected)
            .received(&received))
        };
        for (field, alpha) in [
            ("harm_alpha_ppm", self.harm_alpha_ppm),
            ("promotion_alpha_ppm", self.promotion_alpha_ppm),
        ] {
            if !(1..=ALPHA_MAX_PPM).contains(&alpha) {
                return bad(field, "1 to 250000 ppm", alpha.to_string());
            }
        }
        if self.promotion_margin_ppm <= self.harm_tolerance_ppm || self.promotion_margin_ppm >= PPM
        {
            return bad(
                "promotion_margin_ppm",
                "above harm_tolerance_ppm and below 1000000 ppm",
                self.promotion_margin_ppm.to_string(),
            );
        }
        if self.max_canary_errors == 0 {
            return bad("max_canary_errors", "at least 1 error", "0".to_owned());
        }
        if self.min_canary_requests == 0 {
            return bad("min_canary_requests", "at least 1 request", "0".to_owned());
        }
        if self.missing_grace_ms == 0 {
            return bad("missing_grace_ms", "at least 1 ms", "0".to_owned());
        }
        if !(1..=STEPS_MAX).contains(&self.steps.len()) {
            return bad("steps", "1 to 16 steps", self.steps.len().to_string());
        }
        let mut below = 0;
        for step in &self.steps {
            if step.weight_per_mille <= below || step.weight_per_mille >= 1000 {
                return bad(
                    "steps.weight_per_mille",
                    "1 to 999 per mille, each above the one before",
                    step.weight_per_mille.to_string(),
                );
            }
            if step.min_ms > step.max_ms {
                return bad(
                    "steps.min_ms",
                    "at most the step's max_ms",
                    step.min_ms.to_string(),
                );
            }
            below = step.weight_per_mille;
        }
        Ok(())
    }

    /// The digest that ties a state to its thresholds.
    pub(crate) fn digest(&self) -> Result<Digest, Refusal> {
        Ok(Digest::of(&canonical::to_vec(self)?))
    }

    pub(crate) fn step(&self, index: u32) -> Option<&Step> {
        self.steps.get(usize::try_from(index).ok()?)
    }
}

/// Parts per million as a fraction.
pub(crate) fn fraction(ppm: u32) -> f64 {
    f64::from(ppm) / f64::from(PPM)
}
