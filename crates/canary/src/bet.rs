//! The bets: e-variables for blocks of two Bernoulli streams, and the wealth that they make.
//!
//! A block is `n_s` stable and `n_c` canary requests with `e_s` and `e_c` errors. Against the null
//! "canary − stable ≤ d" (or "≥ d") and for an alternative fixed before the block is seen, the
//! e-variable is the likelihood ratio of the alternative to the null's nearest point in
//! Kullback–Leibler divergence (Turner, Ly and Grünwald 2024; Turner and Grünwald 2023). It needs
//! no assumption on how rates move from block to block, or on the sizes, as long as those do not
//! depend on the block's own outcomes.

use crate::state::Counts;

/// Micro-nats in a nat: log e-values are stored in micro-nats.
pub(crate) const UNATS: f64 = 1e6;
/// Rates of alternatives stay this far from 0 and 1, so no single outcome ruins a bet.
const RATE_MIN: f64 = 1e-6;
/// How much worse each harm bet believes the canary to be, as a share of what is left to 1; the
/// grid is roughly geometric, since growth is flat around the best bet.
const HARM_LIFTS: [f64; 8] = [0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.8, 0.98];
/// Bets on harm, and one share of wealth that is not bet.
pub(crate) const HARM_BETS: usize = HARM_LIFTS.len() + 1;
/// Bets on "not worse": equal, as estimated, half-way to the margin, half of stable's errors; and
/// one share of wealth that is not bet.
pub(crate) const PROMOTION_BETS: usize = 5;
/// Blocks until the share of wealth that moves between bets has halved: early evidence is hardly
/// diluted, and a change after `t` blocks costs about `2 ln t` nats to notice.
const SHARE_DELAY_BLOCKS: f64 = 16.0;
/// Requests that the prior is worth, and its errors: 1 % until data says otherwise.
const PRIOR_REQUESTS: f64 = 10.0;
const PRIOR_ERRORS: f64 = 0.1;

/// The rate that past counts suggest, with the prior mixed in.
pub(crate) fn estimate(past: Counts) -> f64 {
    clip((past.errors as f64 + PRIOR_ERRORS) / (past.requests as f64 + PRIOR_REQUESTS))
}

/// The logs of this block's e-variables against "canary ≤ stable + `tolerance`", per harm bet, in
/// nats. `past` is stable's rate as estimated before the block.
pub(crate) fn harm(block: &Block, past: f64, tolerance: f64) -> [f64; HARM_BETS] {
    let floor = (past + tolerance).min(1.0);
    let mut logs = [0.0; HARM_BETS];
    for (log, lift) in logs.iter_mut().zip(HARM_LIFTS) {
        let canary = clip(floor + lift * (1.0 - floor));
        if canary > past + tolerance {
            *log = log_e(block, past, canary, tolerance);
        }
    }
    logs
}

/// The logs of this block's e-variables against "canary ≥ stable + `margin`", per bet, in nats.
pub(crate) fn promotion(
    block: &Block,
    past_stable: f64,
    past_canary: f64,
    margin: f64,
) -> [f64; PROMOTION_BETS] {
    let mut logs = [0.0; PROMOTION_BETS];
    let alternatives = [
        past_stable,
        past_canary,
        clip(past_stable + margin / 2.0),
        clip(past_stable / 2.0),
    ];
    for (log, canary) in logs.iter_mut().zip(alternatives) {
        if canary < past_stable + margin {
            *log = log_e(block, past_stable, canary, margin);
        }
    }
    logs
}

/// One block of observations, both arms with at least one request.
pub(crate) struct Block {
    stable_ok: f64,
    stable_errors: f64,
    canary_ok: f64,
    canary_errors: f64,
}

impl Block {
    pub(crate) fn new(stable: Counts, canary: Counts) -> Self {
        Self {
            stable_ok: stable.requests.saturating_sub(stable.errors) as f64,
            stable_errors: stable.errors as f64,
            canary_ok: canary.requests.saturating_sub(canary.errors) as f64,
            canary_errors: canary.errors as f64,
        }
    }
}

/// The log of the likelihood ratio of (`stable`, `canary`) to its projection on the line
/// canary = stable + `difference`. The caller makes sure that the alternative lies outside the
/// null, on whichever side of the line that is.
fn log_e(block: &Block, stable: f64, canary: f64, difference: f64) -> f64 {
    let stable_requests = block.stable_ok + block.stable_errors;
    let canary_requests = block.canary_ok + block.canary_errors;
    let null_stable = project(stable_requests, canary_requests, stable, canary, difference);
    let null_canary = null_stable + difference;
    let arm = |errors: f64, ok: f64, alternative: f64, null: f64| {
        errors * libm::log(alternative / null)
            + ok * (libm::log1p(-alternative) - libm::log1p(-null))
    };
    let log = arm(block.stable_errors, block.stable_ok, stable, null_stable)
        + arm(block.canary_errors, block.canary_ok, canary, null_canary);
    // Only a number is a bet; rounding at the edge of the unit square must not become one.
    if log.is_finite() { log } else { 0.0 }
}

/// Stable's rate `a` at the point of the line canary = a + `difference` that minimises
/// `n_s KL(stable‖a) + n_c KL(canary‖a + difference)`.
///
/// The derivative, divided by what is common, rises from −∞ to +∞ inside the open interval, so
/// Newton's steps guarded by bisection always end.
fn project(n_s: f64, n_c: f64, stable: f64, canary: f64, difference: f64) -> f64 {
    if difference == 0.0 {
        return (n_s * stable + n_c * canary) / (n_s + n_c);
    }
    let mut low = 0.0;
    let mut high = 1.0 - difference;
    let mut a = ((n_s * stable + n_c * (canary - difference)) / (n_s + n_c))
        .clamp(high * RATE_MIN, high * (1.0 - RATE_MIN));
    // 64 halvings exhaust the precision of the interval.
    for _ in 0..64 {
        let b = a + difference;
        let (va, vb) = (a * (1.0 - a), b * (1.0 - b));
        let slope = n_s * (a - stable) / va + n_c * (b - canary) / vb;
        if slope > 0.0 {
            high = a;
        } else {
            low = a;
        }
        let curve = |rate: f64, null: f64| {
            rate / (null * null) + (1.0 - rate) / ((1.0 - null) * (1.0 - null))
        };
        let newton = a - slope / (n_s * curve(stable, a) + n_c * curve(canary, b));
        let next = if newton > low && newton < high {
            newton
        } else {
            f64::midpoint(low, high)
        };
        if libm::fabs(next - a) <= a * 1e-15 {
            return next;
        }
        a = next;
    }
    a
}

/// Adds a block's winnings to each bet's wealth (log, micro-nats), then moves a small share of the
/// wealth from every bet to all of them equally, so that a bet which lost long ago can win again.
/// The move depends only on the number of earlier blocks and keeps the total, so the total stays
/// a test supermartingale; rounding is downwards.
pub(crate) fn settle<const N: usize>(wealth: &mut [i64; N], logs: &[f64; N], earlier_blocks: u64) {
    let mut after = [0.0; N];
    for ((to, held), won) in after.iter_mut().zip(wealth.iter()).zip(logs) {
        *to = *held as f64 / UNATS + won;
    }
    let mean = log_mean(&after);
    let share = 1.0 / (earlier_blocks as f64 + SHARE_DELAY_BLOCKS);
    let (kept, moved) = (libm::log1p(-share), libm::log(share) + mean);
    for (to, held) in wealth.iter_mut().zip(after) {
        *to = floor_unats(log_sum(&[held + kept, moved]));
    }
}

/// The log of the total wealth that started at 1, in nats.
pub(crate) fn total<const N: usize>(wealth: &[i64; N]) -> f64 {
    log_mean(&wealth.map(|unats| unats as f64 / UNATS))
}

fn log_mean(logs: &[f64]) -> f64 {
    log_sum(logs) - libm::log(logs.len() as f64)
}

/// The log of the sum of exponentials.
pub(crate) fn log_sum(logs: &[f64]) -> f64 {
    let highest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if highest == f64::NEG_INFINITY {
        return highest;
    }
    let sum: f64 = logs.iter().map(|log| libm::exp(log - highest)).sum();
    highest + libm::log(sum)
}

/// Nats as micro-nats, rounded down.
pub(crate) fn floor_unats(nats: f64) -> i64 {
    // A float-to-integer cast saturates.
    libm::floor(nats * UNATS) as i64
}

fn clip(rate: f64) -> f64 {
    rate.clamp(RATE_MIN, 1.0 - RATE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every outcome of a block with its chance under the rates; the mean of the e-variable.
    fn mean_e(n: (u64, u64), rates: (f64, f64), bet: impl Fn(&Block) -> f64) -> f64 {
        let chance = |n: u64, k: u64, p: f64| {
            let choose = (0..k).fold(1.0, |c, i| c * (n - i) as f64 / (i + 1) as f64);
            choose * p.powi(k as i32) * (1.0 - p).powi((n - k) as i32)
        };
        let mut mean = 0.0;
        for e_s in 0..=n.0 {
            for e_c in 0..=n.1 {
                let block = Block::new(Counts::new(n.0, e_s), Counts::new(n.1, e_c));
                mean += chance(n.0, e_s, rates.0) * chance(n.1, e_c, rates.1) * bet(&block).exp();
            }
        }
        mean
    }

    #[test]
    fn no_null_lets_a_harm_bet_grow() {
        for (n, past, tolerance) in [
            ((20, 1), 0.01, 0.0),
            ((3, 12), 0.2, 0.0),
            ((10, 10), 0.05, 0.03),
            ((1, 25), 0.4, 0.001),
        ] {
            for bet in 0..HARM_BETS {
                for stable in [0.0, 0.003, 0.1, 0.5, 0.9] {
                    for canary in [0.0, stable / 2.0, stable, stable + tolerance] {
                        let mean = mean_e(n, (stable, canary), |block| {
                            harm(block, past, tolerance)[bet]
                        });
                        assert!(mean <= 1.0 + 1e-9, "{n:?} {bet} {stable} {canary}: {mean}");
                    }
                }
            }
        }
    }

    #[test]
    fn no_null_lets_a_promotion_bet_grow() {
        for (n, past) in [((20, 2), (0.01, 0.02)), ((5, 15), (0.2, 0.1))] {
            for margin in [0.01, 0.1] {
                for bet in 0..PROMOTION_BETS {
                    for stable in [0.0, 0.02, 0.3, 0.85] {
                        for worse in [margin, margin * 1.2, 0.15] {
                            let mean = mean_e(n, (stable, stable + worse), |block| {
                                promotion(block, past.0, past.1, margin)[bet]
                            });
                            assert!(mean <= 1.0 + 1e-9, "{n:?} {bet} {stable} {worse}: {mean}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn bets_win_where_they_should() {
        let outage = mean_e((20, 4), (0.01, 0.99), |block| harm(block, 0.01, 0.0)[7]);
        assert!(outage > 100.0, "{outage}");
        let fine = mean_e((40, 10), (0.01, 0.01), |block| {
            promotion(block, 0.01, 0.01, 0.1)[0]
        });
        assert!(fine > 1.2, "{fine}");
    }

    #[test]
    fn moving_wealth_between_bets_makes_none() {
        let mut wealth = [0, 5_000_000, -40_000_000, 1_000];
        let before = total(&wealth);
        settle(&mut wealth, &[0.0; 4], 3);
        let after = total(&wealth);
        assert!(after <= before && after > before - 1e-5, "{before} {after}");
        assert!(wealth[2] > -10_000_000, "the loser got a share: {wealth:?}");
    }

    #[test]
    fn the_projection_is_a_stationary_point() {
        for (n_s, n_c, stable, canary, d) in [
            (990.0, 10.0, 0.01, 0.99, 0.001),
            (1.0, 1.0, 0.5, 0.51, 0.3),
            (10.0, 1e9, 1e-6, 1e-6, 0.01),
        ] {
            let a = project(n_s, n_c, stable, canary, d);
            let b = a + d;
            let pull = n_s * (a - stable) / (a * (1.0 - a)) + n_c * (b - canary) / (b * (1.0 - b));
            let scale = n_s / a + n_c / b;
            assert!((pull / scale).abs() < 1e-9, "{a} {pull}");
        }
    }
}
