//! Simulated traffic with fixed seeds.

use super::config;
use crate::fold::fold;
use crate::{Config, Counts, Look, RollbackReason, State, Verdict, look};

/// SplitMix64: enough for coin flips, and the same everywhere.
struct Coin(u64);

impl Coin {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn flip(&mut self, chance: f64) -> bool {
        ((self.next() >> 11) as f64) < chance * (1u64 << 53) as f64
    }
}

/// Traffic through a rollout: one look per second.
struct Traffic {
    coin: Coin,
    config: Config,
    state: State,
    stable: Counts,
    canary: Counts,
    second: u64,
}

impl Traffic {
    fn new(seed: u64, config: Config) -> Self {
        Self {
            coin: Coin(seed),
            state: State::begin(&config, 1).unwrap(),
            config,
            stable: Counts::default(),
            canary: Counts::default(),
            second: 0,
        }
    }

    fn second(&mut self, requests: u64, weight: u16, stable: f64, canary: f64) -> Verdict {
        for _ in 0..requests {
            let (arm, rate) = if self.coin.flip(f64::from(weight) / 1000.0) {
                (&mut self.canary, canary)
            } else {
                (&mut self.stable, stable)
            };
            arm.requests += 1;
            arm.errors += u64::from(self.coin.flip(rate));
        }
        self.second += 1;
        let (state, verdict) = fold(&self.config, &self.state, &self.look());
        self.state = state;
        verdict
    }

    fn look(&self) -> Look {
        Look {
            epoch: self.state.epoch(),
            elapsed_ms: self.second * 1_000,
            stable: self.stable,
            canary: self.canary,
        }
    }

    fn step_up(&mut self) {
        let epoch = self.state.epoch() + 1;
        self.state = self
            .state
            .advance(&self.config, epoch, self.second * 1_000)
            .unwrap();
        (self.stable, self.canary) = Default::default();
    }
}

const RUNS: u64 = 150;

/// How many of `RUNS` rollouts are rolled back while both arms have the same, moving error rate.
fn false_rollbacks(
    seed: u64,
    weights: &[u16],
    rate: impl Fn(u64) -> f64,
    weight: impl Fn(u64, &State) -> u16,
) -> u64 {
    let mut rolled_back = 0;
    for run in 0..RUNS {
        let mut traffic = Traffic::new(seed * 1_000_003 + run, config(weights));
        for second in 0..80 {
            let rate = rate(second);
            let weight = weight(second, &traffic.state);
            match traffic.second(40, weight, rate, rate) {
                Verdict::Rollback { .. } => {
                    rolled_back += 1;
                    break;
                }
                Verdict::StepUp { .. } => traffic.step_up(),
                Verdict::Continue | Verdict::Hold { .. } => {}
                Verdict::Complete => break,
            }
        }
    }
    rolled_back
}

/// 5 % of the runs, the level of [`config`].
const ALLOWED: u64 = RUNS * 5 / 100;

#[test]
fn false_rollback_stays_below_alpha_whatever_rate_and_weight() {
    for (seed, rate) in [(1, 0.001), (2, 0.02), (3, 0.2), (4, 0.6)] {
        for weight in [20, 200, 800] {
            let count = false_rollbacks(seed, &[weight], |_| rate, |_, _| weight);
            assert!(count <= ALLOWED, "rate {rate} weight {weight}: {count}");
        }
    }
}

#[test]
fn false_rollback_stays_below_alpha_when_the_weight_follows_the_data() {
    // An adversary who gives the canary more traffic whenever it looks bad, through all steps.
    let chase = |_: u64, state: &State| {
        let canary = state.canary_total();
        if canary.errors * 20 > canary.requests {
            900
        } else {
            50
        }
    };
    for (seed, rate) in [(11, 0.02), (12, 0.1), (13, 0.4)] {
        let count = false_rollbacks(seed, &[50, 100, 500], |_| rate, chase);
        assert!(count <= ALLOWED, "rate {rate}: {count}");
    }
}

#[test]
fn false_rollback_stays_below_alpha_when_both_arms_suffer_together() {
    // The weight rises just when an outage of a shared database begins: Simpson's paradox for
    // anyone who compares cumulative rates.
    let outage = |second| if second < 30 { 0.01 } else { 0.5 };
    let weight = |second, _: &State| if second < 30 { 50 } else { 700 };
    let count = false_rollbacks(21, &[50], outage, weight);
    assert!(count <= ALLOWED, "{count}");
}

#[test]
fn a_canary_worse_by_the_margin_rarely_steps_up() {
    for (seed, stable, margin_ppm) in [(31, 0.01, 50_000), (32, 0.2, 100_000)] {
        let mut stepped = 0;
        for run in 0..RUNS {
            let mut config = config(&[100, 500]);
            config.promotion_margin_ppm = margin_ppm;
            config.harm_alpha_ppm = 1;
            let canary = stable + f64::from(margin_ppm) / 1e6;
            let mut traffic = Traffic::new(seed * 1_000_003 + run, config);
            for _ in 0..80 {
                let verdict = traffic.second(60, 100, stable, canary);
                if matches!(verdict, Verdict::StepUp { .. }) {
                    stepped += 1;
                    break;
                }
            }
        }
        assert!(stepped <= ALLOWED, "stable {stable}: {stepped}");
    }
}

#[test]
fn total_failure_is_found_within_twenty_requests_at_low_traffic() {
    let mut worst = 0;
    for run in 0..50 {
        let mut config = config(&[10, 100, 500, 900]);
        config.harm_alpha_ppm = 1_000;
        let mut traffic = Traffic::new(41_000 + run, config);
        // 100 requests per second, one of them to the canary.
        let found = (0..120).any(|_| {
            matches!(
                traffic.second(100, 10, 0.01, 1.0),
                Verdict::Rollback {
                    reason: RollbackReason::Harm { .. }
                }
            )
        });
        assert!(found, "run {run}");
        worst = worst.max(traffic.canary.requests);
    }
    assert!(worst <= 20, "{worst}");
}

#[test]
fn total_failure_is_found_in_ten_seconds_after_a_long_good_record() {
    for run in 0..20 {
        let mut traffic = Traffic::new(51_000 + run, config(&[50]));
        for _ in 0..400 {
            let verdict = traffic.second(40, 50, 0.01, 0.01);
            assert!(!matches!(verdict, Verdict::Rollback { .. }), "{verdict:?}");
        }
        let found = (0..10).any(|_| {
            let verdict = traffic.second(40, 50, 0.01, 1.0);
            matches!(verdict, Verdict::Rollback { .. })
        });
        assert!(found, "run {run}: {:?}", traffic.canary);
    }
}

#[test]
fn total_failure_in_a_single_look_is_found() {
    let config = config(&[10, 100]);
    let state = State::begin(&config, 1).unwrap();
    let outcome = look(&config, &state, &super::at(1, 1, (500, 3), (6, 6)));
    assert!(
        matches!(outcome.verdict, Verdict::Rollback { .. }),
        "{:?}",
        outcome.evidence
    );
}

#[test]
fn moderate_harm_is_found() {
    let mut found = 0;
    for run in 0..40 {
        let mut traffic = Traffic::new(61_000 + run, config(&[200]));
        // 1 % against 5 %, at most 120 s of 20 canary requests.
        found += u64::from((0..120).any(|_| {
            matches!(
                traffic.second(100, 200, 0.01, 0.05),
                Verdict::Rollback { .. }
            )
        }));
    }
    assert!(found >= 38, "{found} of 40");
}

#[test]
fn a_good_canary_completes_its_steps() {
    let mut completed = 0;
    for run in 0..10 {
        let mut config = config(&[100, 300, 600]);
        config.promotion_margin_ppm = 50_000;
        let mut traffic = Traffic::new(71_000 + run, config);
        let mut weight = 100;
        for _ in 0..400 {
            match traffic.second(50, weight, 0.01, 0.01) {
                Verdict::StepUp { weight_per_mille } => {
                    weight = weight_per_mille;
                    traffic.step_up();
                }
                Verdict::Complete => {
                    completed += 1;
                    break;
                }
                Verdict::Continue => {}
                verdict @ (Verdict::Hold { .. } | Verdict::Rollback { .. }) => {
                    panic!("{verdict:?}")
                }
            }
        }
    }
    assert_eq!(completed, 10);
}
