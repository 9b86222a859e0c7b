//! One look folded into the state.

use crate::bet::{self, Block, UNATS, floor_unats, log_sum, total};
use crate::config::{Config, PPM, fraction};
use crate::interval::rate_interval;
use crate::state::{Counts, Look, State, Stored};
use crate::verdict::{ArmEvidence, Evidence, HoldReason, RollbackReason, TestEvidence, Verdict};

/// What a look leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The state to keep, also when the verdict is to hold.
    pub state: State,
    /// What to do.
    pub verdict: Verdict,
    /// Why.
    pub evidence: Evidence,
}

/// Folds one look. Total: whatever comes, it answers, in the order of urgency: doubtful data
/// holds, the absolute bound and evidence of harm roll back, missing data holds, evidence of
/// "not worse" steps up, a step past its time holds.
///
/// A rollback that was due once stays due. A verdict of [`Verdict::StepUp`] repeats until
/// [`State::advance`] is called.
pub fn look(config: &Config, state: &State, look: &Look) -> Outcome {
    let (state, verdict) = fold(config, state, look);
    let evidence = evidence(config, &state);
    Outcome {
        state,
        verdict,
        evidence,
    }
}

pub(crate) fn fold(config: &Config, state: &State, look: &Look) -> (State, Verdict) {
    let mut next = state.clone();
    let stored = &mut next.0;
    if let Some(reason) = stored.rolled_back {
        return (next, Verdict::Rollback { reason });
    }
    let (stable, canary) = match increments(config, stored, look) {
        Ok(increments) => increments,
        Err(reason) => return (next, Verdict::Hold { reason }),
    };
    let gap_ms = look.elapsed_ms.saturating_sub(stored.last_look_ms);
    stored.last_look_ms = look.elapsed_ms;
    stored.count(stable, canary, look.elapsed_ms);
    if let Some((stable, canary)) = stored.take_block() {
        bet_on(config, stored, stable, canary);
    }
    let verdict = verdict(config, stored, gap_ms);
    if let Verdict::Rollback { reason } = verdict {
        stored.rolled_back = Some(reason);
    }
    (next, verdict)
}

/// What happened since the last look, or why it can't be told. After a counter fell, the next look
/// counts from here; what is lost in between is lost.
fn increments(
    config: &Config,
    stored: &mut Stored,
    look: &Look,
) -> Result<(Counts, Counts), HoldReason> {
    let same = config.digest().is_ok_and(|digest| digest == stored.config);
    if !same || config.step(stored.step).is_none() {
        return Err(HoldReason::ConfigChanged);
    }
    if look.epoch != stored.epoch {
        return Err(HoldReason::EpochDiffers {
            expected: stored.epoch,
            received: look.epoch,
        });
    }
    if look.elapsed_ms < stored.last_look_ms {
        return Err(HoldReason::ClockWentBack);
    }
    if !look.stable.possible() || !look.canary.possible() {
        return Err(HoldReason::ImpossibleCounts);
    }
    let stable = look.stable.since(stored.stable_counter);
    let canary = look.canary.since(stored.canary_counter);
    stored.stable_counter = look.stable;
    stored.canary_counter = look.canary;
    let (Some(stable), Some(canary)) = (stable, canary) else {
        stored.stable_pending = Counts::default();
        stored.canary_pending = Counts::default();
        stored.last_look_ms = look.elapsed_ms;
        return Err(HoldReason::CountersWentBack);
    };
    Ok((stable, canary))
}

/// Places the bets with what was known before the block, settles them, then learns from it.
fn bet_on(config: &Config, stored: &mut Stored, stable: Counts, canary: Counts) {
    let block = Block::new(stable, canary);
    let past_stable = bet::estimate(stored.stable_memory);
    let past_canary = bet::estimate(stored.canary_memory);
    let harm = bet::harm(&block, past_stable, fraction(config.harm_tolerance_ppm));
    let margin = fraction(config.promotion_margin_ppm);
    let promotion = bet::promotion(&block, past_stable, past_canary, margin);
    bet::settle(&mut stored.harm_unats, &harm, stored.blocks);
    bet::settle(&mut stored.promotion_unats, &promotion, stored.blocks);
    stored.remember(stable, canary);
}

fn verdict(config: &Config, stored: &Stored, gap_ms: u64) -> Verdict {
    let errors = stored.canary_total.errors;
    if errors >= config.max_canary_errors {
        let bound = config.max_canary_errors;
        let reason = RollbackReason::ErrorBound { errors, bound };
        return Verdict::Rollback { reason };
    }
    let harm = harm_test(config, stored);
    if harm.reached() {
        let reason = RollbackReason::Harm {
            log_e_unats: harm.log_e_unats,
            threshold_unats: harm.threshold_unats,
        };
        return Verdict::Rollback { reason };
    }
    if let Some(reason) = missing(config, stored, gap_ms) {
        return Verdict::Hold { reason };
    }
    let Some(step) = config.step(stored.step) else {
        let reason = HoldReason::ConfigChanged;
        return Verdict::Hold { reason };
    };
    let step_ms = stored.last_look_ms.saturating_sub(stored.step_started_ms);
    let enough =
        step_ms >= step.min_ms && stored.canary_step.requests >= config.min_canary_requests;
    if enough && promotion_test(config, stored).reached() {
        return match config.step(stored.step.saturating_add(1)) {
            Some(next) => Verdict::StepUp {
                weight_per_mille: next.weight_per_mille,
            },
            None => Verdict::Complete,
        };
    }
    if step_ms > step.max_ms {
        let reason = HoldReason::Undecided;
        return Verdict::Hold { reason };
    }
    Verdict::Continue
}

fn missing(config: &Config, stored: &Stored, gap_ms: u64) -> Option<HoldReason> {
    let grace_ms = config.missing_grace_ms;
    if gap_ms > grace_ms {
        return Some(HoldReason::Gap { gap_ms });
    }
    let since_ms = stored.last_look_ms.saturating_sub(stored.canary_seen_ms);
    if since_ms > grace_ms {
        return Some(HoldReason::NoCanaryTraffic { since_ms });
    }
    let since_ms = stored.last_look_ms.saturating_sub(stored.stable_seen_ms);
    (since_ms > grace_ms).then_some(HoldReason::NoStableTraffic { since_ms })
}

/// The mean over all steps of their harm e-values, steps to come counting as 1: each step bets
/// afresh with an equal part of the stake, so harm that begins late is not drowned in a long good
/// record.
fn harm_test(config: &Config, stored: &Stored) -> TestEvidence {
    let to_come = config
        .steps
        .len()
        .saturating_sub(1)
        .saturating_sub(usize::try_from(stored.step).unwrap_or(usize::MAX));
    let finished = stored
        .harm_finished_unats
        .map_or(f64::NEG_INFINITY, |unats| unats as f64 / UNATS);
    let sum = log_sum(&[
        finished,
        total(&stored.harm_unats),
        libm::log(to_come as f64),
    ]);
    test(
        sum - libm::log(config.steps.len() as f64),
        config.harm_alpha_ppm,
    )
}

fn promotion_test(config: &Config, stored: &Stored) -> TestEvidence {
    test(total(&stored.promotion_unats), config.promotion_alpha_ppm)
}

fn test(log_e: f64, alpha_ppm: u32) -> TestEvidence {
    TestEvidence {
        log_e_unats: floor_unats(log_e),
        threshold_unats: floor_unats(-libm::log(fraction(alpha_ppm))).saturating_add(1),
        e_value_milli: libm::floor(libm::exp(log_e) * 1e3) as u64,
    }
}

/// What the state says in numbers for people.
pub fn evidence(config: &Config, state: &State) -> Evidence {
    let stored = &state.0;
    let arm_alpha = fraction(config.harm_alpha_ppm) / 2.0;
    let arm = |counts: Counts| ArmEvidence {
        requests: counts.requests,
        errors: counts.errors,
        rate_ppm: rate_ppm(counts),
        interval: rate_interval(counts, arm_alpha),
    };
    let (stable, canary) = (arm(stored.stable_step), arm(stored.canary_step));
    Evidence {
        step: stored.step,
        weight_per_mille: config
            .step(stored.step)
            .map_or(0, |step| step.weight_per_mille),
        elapsed_ms: stored.last_look_ms,
        step_elapsed_ms: stored.last_look_ms.saturating_sub(stored.step_started_ms),
        blocks: stored.blocks,
        stable,
        canary,
        difference: canary.interval.minus(stable.interval),
        harm: harm_test(config, stored),
        promotion: promotion_test(config, stored),
        canary_errors_total: stored.canary_total.errors,
        canary_errors_bound: config.max_canary_errors,
    }
}

fn rate_ppm(counts: Counts) -> u32 {
    if counts.requests == 0 {
        return 0;
    }
    let ppm = u128::from(counts.errors) * u128::from(PPM) / u128::from(counts.requests);
    u32::try_from(ppm).unwrap_or(PPM).min(PPM)
}
