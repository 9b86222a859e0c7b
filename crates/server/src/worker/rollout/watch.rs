//! Looks: what the proxy counted, folded into the canary's statistics, and what follows.
//!
//! # What a restart means for the statistics
//!
//! The proxy's counters are cumulative within an epoch, so nothing is lost while nobody looks. The
//! state between looks lives in memory; only verdicts and steps are recorded. A server that comes
//! back takes the last recorded state and sees everything since as one block, bet on with what was
//! known when the state was recorded. That is a test like any other, as long as what restarts the
//! server is not how requests end (`docs/canary.md` assumes the same of every block's size). But
//! the bets that were placed on smaller blocks in between are forgotten, and those requests are
//! judged a second time. So after `r` restarts the chance of a false rollback, and in each step
//! that of a false step up, is at most `1 + r` times the stated level.
//!
//! The absolute bound on errors is not touched by that: an error counts once, whoever looks. Only
//! what a proxy counted and lost, because it was itself restarted between two looks, is not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::Instant;

use portcullis_canary::{Config, State as Statistics, Verdict, look as fold};
use portcullis_flow::State;
use portcullis_flow::rollout::RolloutStatus;
use portcullis_model::event::{RolloutEnded, RolloutOutcome, RolloutStepped, Step};
use portcullis_model::{Refusal, RolloutId};
use portcullis_policy::action::RolloutVerb;
use portcullis_proxy::Stats;
use serde_json::Value;

use super::effects::{ask, give_up, retire};
use super::evidence::{Kept, config, fallback_code, hold_code, numbers, rollback_code};
use super::traffic::{ALL, proxy_epoch, routing};
use super::{View, back, keep};
use crate::app::{App, now};
use crate::environments;
use crate::worker::record;

/// Longest that a release gets to answer once more before all traffic counts as moved.
const STILL_HEALTHY_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

/// What is known of a rollout between two records.
pub(super) struct Watched {
    statistics: Statistics,
    /// Milliseconds since the first step, when it was loaded or begun.
    elapsed_ms: u64,
    /// The monotonic clock then.
    since: Instant,
    /// The index of the step, with the reasons recorded for holding in it.
    held: (u64, BTreeSet<String>),
}

impl Watched {
    fn elapsed_ms(&self) -> u64 {
        let since = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.elapsed_ms.saturating_add(since)
    }

    fn kept(&self, elapsed_ms: u64) -> Result<Value, Refusal> {
        Kept {
            canary: self.statistics.clone(),
            elapsed_ms,
            at: now(),
        }
        .to_value()
    }
}

/// Looks at a rollout and does what follows: the first step, the next one, the end, or nothing. A
/// paused rollout is watched all the same, and taken back if it does harm.
///
/// # Errors
/// The ledger can't be written, or the proxy can't be told.
pub async fn look(app: &App, id: RolloutId) -> Result<(), Refusal> {
    let state = app.state();
    let view = View::of(app, &state, id)?;
    let rollout = &view.rollout;
    let running = rollout.status == RolloutStatus::Running;
    if !rollout.status.is_active() {
        return Ok(());
    }
    if view.release.start_failed {
        return give_up(app, &view, "start-failed").await;
    }
    if view.release.revoked {
        return back::take_back(app, id, "revoked", None).await;
    }
    match rollout.weight {
        0 if running => begin(app, &state, &view).await,
        0 => Ok(()),
        _ if !rollout.applied => Ok(()),
        ALL if running => complete(app, &view).await,
        ALL => Ok(()),
        _ => watch(app, &state, &view, running).await,
    }
}

/// The first weight: the canary's, or all at once where nothing is there to compare with.
async fn begin(app: &App, state: &State, view: &View) -> Result<(), Refusal> {
    let rollout = &view.rollout;
    let thresholds = config(&view.record.canary);
    if let Err(refusal) = ask(app, state, &view.release, RolloutVerb::Start, true)?.into_permit() {
        return hold(app, view, "policy", None).await.and(Err(refusal));
    }
    let (weight, statistics) = if rollout.canary {
        let first = thresholds
            .steps
            .first()
            .map(|step| u32::from(step.weight_per_mille));
        let begun = Statistics::begin(&thresholds, proxy_epoch(rollout.epoch));
        let (Some(first), Ok(statistics)) = (first, begun) else {
            return hold(app, view, "thresholds-invalid", None).await;
        };
        let kept = Kept {
            canary: statistics,
            elapsed_ms: 0,
            at: now(),
        };
        (first, kept.to_value()?)
    } else {
        (ALL, Value::Null)
    };
    let body = RolloutStepped {
        rollout: rollout.id,
        step: Step::Advance,
        weight,
        epoch: rollout.epoch,
        code: if rollout.canary {
            "canary-begins"
        } else {
            "healthy"
        }
        .to_owned(),
        evidence: BTreeMap::new(),
        state: statistics,
        envelope: None,
    };
    record(app, body).await
}

/// All traffic is there: the release is the new stable one if it still answers.
async fn complete(app: &App, view: &View) -> Result<(), Refusal> {
    let (rollout, place) = (&view.rollout, view.place.release(view.release.id));
    if let Err(refusal) = environments::healthy(&place, STILL_HEALTHY_WITHIN).await {
        tracing::warn!(rollout = %rollout.id, error.code = refusal.code, "the release stopped answering at the last step: {refusal}");
        return back::take_back(app, rollout.id, "unhealthy", None).await;
    }
    let stats = environments::proxy_up(&view.place, view.record.port)
        .await?
        .stats()
        .await?;
    if stats.routing.as_ref() != Some(&routing(&view.place, rollout)?) {
        return moved(app, view, &stats).await;
    }
    let body = RolloutEnded {
        rollout: rollout.id,
        outcome: RolloutOutcome::Completed,
        code: "complete".to_owned(),
        envelope: None,
    };
    record(app, body).await?;
    app.rollouts.forget(rollout.id);
    retire(app, &rollout.environment).await
}

/// A step with a canary: heartbeat, counters, verdict.
async fn watch(app: &App, state: &State, view: &View, running: bool) -> Result<(), Refusal> {
    let rollout = &view.rollout;
    let proxy = portcullis_proxy::ProxyControl::new(view.place.proxy_socket());
    let stats = match proxy.stats().await {
        Ok(stats) => stats,
        Err(refusal) => {
            tracing::warn!(rollout = %rollout.id, error.code = refusal.code, "no telemetry: {refusal}");
            hold(app, view, "telemetry-missing", None).await?;
            return keep::proxy(app, &rollout.environment).await;
        }
    };
    if stats.routing.as_ref() != Some(&routing(&view.place, rollout)?) {
        return moved(app, view, &stats).await;
    }
    if let Some(fallback) = stats.fallback {
        return back::take_back(app, rollout.id, fallback_code(fallback), None).await;
    }
    let thresholds = config(&view.record.canary);
    let Some(mut watched) = take(app, view)? else {
        return hold(app, view, "statistics-missing", None).await;
    };
    let elapsed_ms = watched.elapsed_ms();
    let Some(seen) = stats.look(elapsed_ms) else {
        return hold(app, view, "telemetry-missing", None).await;
    };
    let outcome = fold(&thresholds, &watched.statistics, &seen);
    watched.statistics = outcome.state;
    let evidence = numbers(&outcome.evidence);
    match outcome.verdict {
        Verdict::Rollback { reason } => {
            tracing::warn!(rollout = %rollout.id, "taken back: {reason}");
            let found = (evidence, watched.kept(elapsed_ms)?);
            return back::take_back(app, rollout.id, rollback_code(&reason), Some(found)).await;
        }
        Verdict::StepUp { weight_per_mille } if running => {
            let next = (u32::from(weight_per_mille), RolloutVerb::Step, "not-worse");
            return advance(
                app,
                state,
                view,
                &thresholds,
                (watched, elapsed_ms),
                next,
                evidence,
            )
            .await;
        }
        Verdict::Complete if running => {
            let next = (ALL, RolloutVerb::Promote, "not-worse-at-last-step");
            return advance(
                app,
                state,
                view,
                &thresholds,
                (watched, elapsed_ms),
                next,
                evidence,
            )
            .await;
        }
        Verdict::StepUp { .. } | Verdict::Complete | Verdict::Continue => {}
        Verdict::Hold { reason } => {
            let found = (evidence, watched.kept(elapsed_ms)?);
            remember(app, rollout.id, watched);
            beat(&proxy, rollout.epoch).await;
            return hold(app, view, hold_code(&reason), Some(found)).await;
        }
    }
    remember(app, rollout.id, watched);
    beat(&proxy, rollout.epoch).await;
    Ok(())
}

/// Says that this epoch is being watched. A refusal shows in the next look's stats.
async fn beat(proxy: &portcullis_proxy::ProxyControl, epoch: u64) {
    if let Err(refusal) = proxy.heartbeat(proxy_epoch(epoch)).await {
        tracing::debug!(
            error.code = refusal.code,
            "the heartbeat was refused: {refusal}"
        );
    }
}

/// One step further, on evidence. Recorded here; the proxy gets it by an effect of its own.
async fn advance(
    app: &App,
    state: &State,
    view: &View,
    thresholds: &Config,
    (mut watched, elapsed_ms): (Watched, u64),
    (weight, verb, code): (u32, RolloutVerb, &str),
    evidence: BTreeMap<String, i64>,
) -> Result<(), Refusal> {
    let rollout = &view.rollout;
    if let Err(refusal) = ask(app, state, &view.release, verb, true)?.into_permit() {
        let found = (evidence, watched.kept(elapsed_ms)?);
        remember(app, rollout.id, watched);
        let proxy = portcullis_proxy::ProxyControl::new(view.place.proxy_socket());
        beat(&proxy, rollout.epoch).await;
        return hold(app, view, "policy", Some(found))
            .await
            .and(Err(refusal));
    }
    let epoch = rollout.epoch + 1;
    if weight != ALL {
        watched.statistics =
            watched
                .statistics
                .advance(thresholds, proxy_epoch(epoch), elapsed_ms)?;
    }
    let body = RolloutStepped {
        rollout: rollout.id,
        step: Step::Advance,
        weight,
        epoch,
        code: code.to_owned(),
        evidence,
        state: watched.kept(elapsed_ms)?,
        envelope: None,
    };
    record(app, body).await?;
    remember(app, rollout.id, watched);
    Ok(())
}

/// The proxy serves something else than this rollout's step.
async fn moved(app: &App, view: &View, stats: &Stats) -> Result<(), Refusal> {
    let rollout = &view.rollout;
    let served = stats.routing.as_ref().map_or(0, |routing| routing.epoch);
    if stats.epoch_floor >= proxy_epoch(rollout.epoch) || served > proxy_epoch(rollout.epoch) {
        // Somebody took the traffic back, and could not record it.
        return back::take_back(app, rollout.id, "proxy-moved", None).await;
    }
    // It lost its state with its disk. It comes back to stable, never to a canary that nobody
    // watched meanwhile; the next look finds it there.
    hold(app, view, "telemetry-missing", None).await?;
    keep::proxy(app, &rollout.environment).await
}

/// Keeps the weight and says why, once for each reason within a step.
async fn hold(
    app: &App,
    view: &View,
    code: &str,
    found: Option<(BTreeMap<String, i64>, Value)>,
) -> Result<(), Refusal> {
    let rollout = &view.rollout;
    if rollout.code == code || !first_time(app, view, code) {
        return Ok(());
    }
    let (evidence, state) = found.unwrap_or_default();
    let body = RolloutStepped {
        rollout: rollout.id,
        step: Step::Hold,
        weight: rollout.weight,
        epoch: rollout.epoch,
        code: code.to_owned(),
        evidence,
        state,
        envelope: None,
    };
    record(app, body).await
}

fn first_time(app: &App, view: &View, code: &str) -> bool {
    let mut watched = app
        .rollouts
        .watched
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let Some(watched) = watched.get_mut(&view.rollout.id) else {
        return true;
    };
    if watched.held.0 != view.rollout.epoch {
        watched.held = (view.rollout.epoch, BTreeSet::new());
    }
    watched.held.1.insert(code.to_owned())
}

/// What was known after the last look; after a restart, what was recorded last.
fn take(app: &App, view: &View) -> Result<Option<Watched>, Refusal> {
    let rollout = &view.rollout;
    let known = app
        .rollouts
        .watched
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&rollout.id);
    if let Some(watched) = known
        && watched.statistics.epoch() == proxy_epoch(rollout.epoch)
    {
        return Ok(Some(watched));
    }
    let Some(kept) = Kept::read(&rollout.statistics)? else {
        return Ok(None);
    };
    // A clock that went back counts as no time.
    let away_ms = now().ms_since(kept.at);
    Ok(Some(Watched {
        statistics: kept.canary,
        elapsed_ms: kept.elapsed_ms.saturating_add(away_ms),
        since: Instant::now(),
        held: (rollout.epoch, BTreeSet::from([rollout.code.clone()])),
    }))
}

fn remember(app: &App, id: RolloutId, watched: Watched) {
    app.rollouts
        .watched
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(id, watched);
}
