//! Keeps what the ledger says running: after a restart of the machine, after a process died, and
//! while a rollout is paused.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use portcullis_flow::State;
use portcullis_flow::rollout::RolloutStatus;
use portcullis_model::event::IncidentOpened;
use portcullis_model::{EnvironmentId, Refusal, ReleaseId};

use super::effects::needed_in;
use super::traffic::{alone, last_of, proxy_epoch, take_over};
use super::{Trouble, back, record_of, watch};
use crate::app::App;
use crate::environments::control::{Phase, Status};
use crate::environments::{self, Place};
use crate::worker::record;

/// How often every environment is looked after.
const EVERY: Duration = Duration::from_secs(1);
/// Longest pause between two tries to bring a release back up.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Looks after every environment until it is dropped: proxies and releases that should run do,
/// paused rollouts are watched, breakers that revert have reverted.
pub async fn keep(app: Arc<App>) {
    loop {
        let state = app.state();
        for environment in state.environments.keys() {
            for result in [
                one(&app, &state, environment).await,
                paused(&app, &state, environment).await,
                reverted(&app, &state, environment).await,
            ] {
                if let Err(refusal) = result {
                    tracing::warn!(%environment, error.code = refusal.code, "not as it should be: {refusal}");
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Brings back what should run in one environment.
async fn one(app: &App, state: &State, environment: &EnvironmentId) -> Result<(), Refusal> {
    let Some(running) = state.environments.get(environment) else {
        return Ok(());
    };
    let rollout = running.rollout.and_then(|id| state.rollouts.get(&id));
    let moving = rollout
        .filter(|rollout| rollout.weight > 0)
        .map(|rollout| rollout.release);
    if running.stable.is_none() && moving.is_none() {
        return Ok(());
    }
    let mut result = proxy(app, environment).await;
    for release in running.stable.into_iter().chain(moving) {
        result = result.and(release_stays(app, environment, release).await);
    }
    result
}

/// Makes sure that the proxy runs, and serves what the ledger says where no rollout is under way.
/// One that lost its state comes back to the stable release, whatever a rollout says: nobody
/// watched meanwhile. A way back that could not be recorded has a number above the ledger's, and
/// is left alone.
pub(super) async fn proxy(app: &App, environment: &EnvironmentId) -> Result<(), Refusal> {
    let place = Place::new(&app.home, environment);
    let port = record_of(&app.state(), environment)?.port;
    let control = environments::proxy_up(&place, port).await?;
    let turn = app.rollouts.turn(environment);
    let _turn = turn.lock().await;
    let state = app.state();
    let Some(running) = state.environments.get(environment) else {
        return Ok(());
    };
    let Some(stable) = running.stable else {
        return Ok(());
    };
    let stats = control.stats().await?;
    let backend = place.release(stable).backend();
    let Some(routing) = &stats.routing else {
        tracing::warn!(%environment, "the proxy came back without its state, and serves the stable release");
        // Above the recorded epoch, so that a rollout's own step does not follow by itself.
        let epoch = proxy_epoch(running.epoch).max(stats.epoch_floor) + 1;
        return control
            .configure(&alone(backend, epoch, 0))
            .await
            .map(|_| ());
    };
    let as_recorded =
        routing.stable == backend && (routing.canary.is_none() || stats.fallback.is_some());
    if running.rollout.is_some() || as_recorded || routing.epoch > last_of(running.epoch) {
        return Ok(());
    }
    tracing::warn!(%environment, "the proxy served something else than the ledger says");
    take_over(&control, &backend, last_of(running.epoch))
        .await
        .map(|_| ())
}

/// Makes sure that a release's process runs; one that died is an incident.
async fn release_stays(
    app: &App,
    environment: &EnvironmentId,
    id: ReleaseId,
) -> Result<(), Refusal> {
    let place = Place::new(&app.home, environment).release(id);
    let status = environments::control::status(&place.control_socket()).await;
    let key = (environment.clone(), id);
    if let Ok(Status {
        phase: Phase::Starting | Phase::Running | Phase::BackingOff,
        ..
    }) = &status
    {
        app.rollouts
            .troubles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key);
        return Ok(());
    }
    let turn = app.rollouts.turn(environment);
    let _turn = turn.lock().await;
    let state = app.state();
    if !needed_in(&state, environment).contains(&id) {
        // It was stopped on purpose meanwhile.
        return Ok(());
    }
    let known = app
        .rollouts
        .troubles
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(&key)
        .copied();
    if known.is_some_and(|trouble| Instant::now() < trouble.next) {
        return Ok(());
    }
    let tries = known.map_or(0, |trouble| trouble.tries) + 1;
    let pause = Duration::from_secs(1 << tries.min(6)).min(PAUSE_MAX);
    let trouble = Trouble {
        tries,
        next: Instant::now() + pause,
    };
    app.rollouts
        .troubles
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(key, trouble);
    if tries == 1 {
        let code = status.ok().and_then(|status| status.code);
        let body = IncidentOpened {
            code: "release-died".to_owned(),
            about: Some(id.0),
            facts: [
                ("environment".to_owned(), environment.to_string()),
                (
                    "code".to_owned(),
                    code.unwrap_or_else(|| "supervisor-gone".to_owned()),
                ),
            ]
            .into(),
        };
        // Bringing it back does not wait for the ledger.
        if let Err(refusal) = record(app, body).await {
            tracing::warn!(
                error.code = refusal.code,
                "an incident could not be recorded: {refusal}"
            );
        }
    }
    let known = state
        .releases
        .get(&id)
        .ok_or_else(|| Refusal::not_found("release", id))?;
    let installed = super::effects::install(app, &state, known).await;
    environments::release_up(&place)
        .await
        .map_err(|refusal| installed.err().unwrap_or(refusal))
}

/// A paused rollout is watched like a running one; only steps forward wait.
async fn paused(app: &App, state: &State, environment: &EnvironmentId) -> Result<(), Refusal> {
    let rollout = state
        .environments
        .get(environment)
        .and_then(|running| running.rollout)
        .and_then(|id| state.rollouts.get(&id))
        .filter(|rollout| rollout.status == RolloutStatus::Paused);
    match rollout {
        Some(rollout) => watch::look(app, rollout.id).await,
        None => Ok(()),
    }
}

/// A breaker that reverts has reverted, also if the server died in between.
async fn reverted(app: &App, state: &State, environment: &EnvironmentId) -> Result<(), Refusal> {
    let due = state
        .breakers
        .iter()
        .find(|(scope, trip)| {
            trip.revert && back::revert_target(state, environment, scope).is_some()
        })
        .map(|(scope, _)| scope.clone());
    match due {
        Some(scope) => back::revert_agents(app, &scope).await,
        None => Ok(()),
    }
}
