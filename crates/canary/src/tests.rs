//! The stated levels under continuous looking, the power, and what doubtful data does.

mod doubt;
mod simulation;

use crate::{Config, Counts, Look, Step};

/// A rollout with wide times and an error bound that does not interfere.
fn config(weights: &[u16]) -> Config {
    Config {
        harm_alpha_ppm: 50_000,
        harm_tolerance_ppm: 0,
        promotion_alpha_ppm: 50_000,
        promotion_margin_ppm: 10_000,
        max_canary_errors: u64::MAX,
        min_canary_requests: 50,
        missing_grace_ms: 5_000,
        steps: weights
            .iter()
            .map(|&weight_per_mille| Step {
                weight_per_mille,
                min_ms: 10_000,
                max_ms: 100_000_000,
            })
            .collect(),
    }
}

fn at(epoch: u64, seconds: u64, stable: (u64, u64), canary: (u64, u64)) -> Look {
    Look {
        epoch,
        elapsed_ms: seconds * 1_000,
        stable: Counts::new(stable.0, stable.1),
        canary: Counts::new(canary.0, canary.1),
    }
}
