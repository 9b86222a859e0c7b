//! Confidence sequences for one error rate: intervals that hold at all looks at once.

use serde::{Deserialize, Serialize};

use crate::config::PPM;
use crate::state::Counts;

/// Bounds in ppm, rounded outwards. A difference of rates may be negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// Lower bound in ppm.
    pub low_ppm: i64,
    /// Upper bound in ppm.
    pub high_ppm: i64,
}

impl Interval {
    /// The interval of `self − other`.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            low_ppm: self.low_ppm.saturating_sub(other.high_ppm),
            high_ppm: self.high_ppm.saturating_sub(other.low_ppm),
        }
    }
}

/// The rates that a mixture of bets with prior Beta(½, ½) has never refuted at level `alpha`
/// (a fraction): Robbins' conjugate mixture, as in Howard et al. 2021. It holds at all sizes at
/// once where the arm's rate is constant.
pub fn rate_interval(counts: Counts, alpha: f64) -> Interval {
    let (n, e) = (counts.requests as f64, counts.errors as f64);
    if counts.requests == 0 || counts.errors > counts.requests {
        return Interval {
            low_ppm: 0,
            high_ppm: i64::from(PPM),
        };
    }
    let log_beta = |a: f64, b: f64| libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b);
    let mixture = log_beta(e + 0.5, n - e + 0.5) - log_beta(0.5, 0.5);
    let refuted = |rate: f64| {
        let log = |count: f64, chance: f64| {
            if count == 0.0 {
                0.0
            } else {
                count * libm::log(chance)
            }
        };
        mixture - log(e, rate) - log(n - e, 1.0 - rate) > -libm::log(alpha)
    };
    let centre = e / n;
    Interval {
        low_ppm: ppm(libm::floor, edge(centre, 0.0, &refuted)),
        high_ppm: ppm(libm::ceil, edge(centre, 1.0, &refuted)),
    }
}

/// Where `refuted` begins between `inside`, which isn't, and `outside`.
fn edge(inside: f64, outside: f64, refuted: &impl Fn(f64) -> bool) -> f64 {
    if !refuted(outside) {
        return outside;
    }
    let (mut inside, mut outside) = (inside, outside);
    // 30 halvings are finer than one part per million.
    for _ in 0..30 {
        let middle = f64::midpoint(inside, outside);
        if refuted(middle) {
            outside = middle;
        } else {
            inside = middle;
        }
    }
    outside
}

fn ppm(round: fn(f64) -> f64, rate: f64) -> i64 {
    round(rate * f64::from(PPM)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_hold_the_estimate_and_narrow() {
        let few = rate_interval(Counts::new(100, 5), 0.05);
        let many = rate_interval(Counts::new(100_000, 5_000), 0.05);
        for interval in [few, many] {
            assert!(interval.low_ppm < 50_000 && interval.high_ppm > 50_000);
        }
        assert!(many.high_ppm - many.low_ppm < (few.high_ppm - few.low_ppm) / 10);
    }

    #[test]
    fn edges_of_the_unit_interval_are_kept() {
        assert_eq!(rate_interval(Counts::new(0, 0), 0.05).high_ppm, 1_000_000);
        let clean = rate_interval(Counts::new(1_000, 0), 0.05);
        assert_eq!(clean.low_ppm, 0);
        assert!(clean.high_ppm < 10_000, "{clean:?}");
        let broken = rate_interval(Counts::new(1_000, 1_000), 0.05);
        assert_eq!(broken.high_ppm, 1_000_000);
        assert!(broken.low_ppm > 990_000, "{broken:?}");
    }
}
