//! Everything that takes traffic away from a release. The proxy is told first; the ledger learns
//! of it as soon as it can be written. None of it asks policy, and none needs the disk if the
//! processes it goes back to are warm.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_flow::Command as Recording;
use portcullis_flow::State;
use portcullis_flow::release::Release;
use portcullis_model::event::{
    EnvironmentReverted, RolloutEnded, RolloutOutcome, RolloutStepped, Step,
};
use portcullis_model::statement::BreakerScope;
use portcullis_model::{Body, Digest, EnvironmentId, Refusal, ReleaseId, RolloutId};
use portcullis_proxy::ProxyControl;
use serde_json::Value;

use super::effects::{install, retire};
use super::traffic::{last_of, take_over};
use super::{View, record_of};
use crate::app::{App, control};
use crate::environments::{self, Place};

/// Longest that the release to return to gets to answer. It is warm as a rule.
const HEALTHY_WITHIN: Duration = Duration::from_secs(10);

/// Takes a rollout back because a breaker covers it.
///
/// # Errors
/// The proxy can't be told, or the ledger can't be written (traffic is back by then).
pub async fn halt(app: &App, id: RolloutId) -> Result<(), Refusal> {
    take_back(app, id, "breaker", None).await
}

/// Takes a rollout back: the proxy first, then the record, with what was found.
///
/// # Errors
/// As [`halt`].
pub(super) async fn take_back(
    app: &App,
    id: RolloutId,
    code: &str,
    found: Option<(BTreeMap<String, i64>, Value)>,
) -> Result<(), Refusal> {
    let view = View::of(app, &app.state(), id)?;
    let environment = &view.rollout.environment;
    let told = go_stable(app, environment).await;
    let turn = app.rollouts.turn(environment);
    let turned = turn.lock().await;
    let state = app.state();
    let rollout = View::of(app, &state, id)?.rollout;
    if !rollout.status.is_active() {
        return told;
    }
    // A step that was on its way when the proxy was told first may have arrived since.
    let told = told.and(go_stable(app, environment).await);
    if let Err(refusal) = &told
        && rollout.weight > 0
    {
        // Where nobody answers, nothing is served; the way back is recorded all the same, and
        // the proxy is told when it comes back.
        tracing::error!(rollout = %id, error.code = refusal.code, "the proxy can't be told to go back: {refusal}");
    }
    let ended = RolloutEnded {
        rollout: id,
        outcome: RolloutOutcome::RolledBack,
        code: code.to_owned(),
        envelope: None,
    };
    let mut bodies: Vec<Body> = Vec::new();
    if let Some((evidence, statistics)) = found {
        let stepped = RolloutStepped {
            rollout: id,
            step: Step::Rollback,
            weight: rollout.weight,
            epoch: rollout.epoch,
            code: code.to_owned(),
            evidence,
            state: statistics,
            envelope: None,
        };
        bodies.push(stepped.into());
    }
    bodies.push(ended.into());
    app.ledger.submit(Recording::of(control(), bodies)).await?;
    drop(turned);
    app.rollouts.forget(id);
    retire(app, environment).await
}

/// Sends an environment's traffic to its stable release, at once. What can't be done is logged.
pub async fn stable_only(app: &App, environment: &EnvironmentId) {
    if let Err(refusal) = go_stable(app, environment).await {
        tracing::error!(%environment, error.code = refusal.code, "traffic can't be sent to stable: {refusal}");
    }
}

/// The proxy goes to the release that the ledger calls stable, and refuses everything up to the
/// newest recorded epoch from now on.
async fn go_stable(app: &App, environment: &EnvironmentId) -> Result<(), Refusal> {
    let state = app.state();
    let Some(running) = state.environments.get(environment) else {
        return Ok(());
    };
    let place = Place::new(&app.home, environment);
    let backend = running
        .stable
        .map_or_else(|| place.nobody(), |stable| place.release(stable).backend());
    let proxy = ProxyControl::new(place.proxy_socket());
    // Acts before it looks: this alone is right whenever a canary is served.
    let ack = proxy.to_stable(Some(last_of(running.epoch))).await?;
    if !ack.persisted {
        tracing::warn!(%environment, "the proxy is back at stable; its disk refuses, so after a restart it falls back by its stale heartbeat");
    }
    let stats = proxy.stats().await?;
    match &stats.routing {
        // At the last step the new release is what the proxy calls stable.
        Some(routing) if routing.stable != backend => {
            take_over(&proxy, &backend, last_of(running.epoch))
                .await
                .map(|_| ())
        }
        Some(_) | None => Ok(()),
    }
}

/// Gives everything to one release that was admitted, at once: makes sure that it runs, then tells
/// the proxy. `epoch` is the one that will be recorded. With a warm process it needs no disk.
///
/// # Errors
/// The release can't be started or does not answer, or the proxy can't be told. Then traffic stays
/// where it was.
pub async fn serve_alone(
    app: &App,
    environment: &EnvironmentId,
    release: ReleaseId,
    epoch: u64,
) -> Result<(), Refusal> {
    let state = app.state();
    let known = state
        .releases
        .get(&release)
        .ok_or_else(|| Refusal::not_found("release", release))?;
    let record = record_of(&state, environment)?;
    let place = Place::new(&app.home, environment);
    let target = place.release(release);
    if !environments::control::answers(&target.service_socket()).await {
        // Files that stand already need no disk; if they don't, the refusal says why.
        let installed = install(app, &state, known).await;
        environments::release_up(&target)
            .await
            .map_err(|refusal| installed.err().unwrap_or(refusal))?;
        environments::healthy(&target, HEALTHY_WITHIN).await?;
    }
    let proxy = environments::proxy_up(&place, record.port).await?;
    take_over(&proxy, &target.backend(), last_of(epoch))
        .await
        .map(|_| ())
}

/// Makes an environment serve nothing: every request is answered with 502. `epoch` is the one that
/// will be recorded.
///
/// # Errors
/// The proxy can't be told.
pub async fn serve_nothing(
    app: &App,
    environment: &EnvironmentId,
    epoch: u64,
) -> Result<(), Refusal> {
    let place = Place::new(&app.home, environment);
    let proxy = ProxyControl::new(place.proxy_socket());
    take_over(&proxy, &place.nobody(), last_of(epoch))
        .await
        .map(|_| ())
}

/// Takes finished releases of agents' work back, where a breaker that says `revert` covers them:
/// to the newest release before that it does not cover. Where there is none the release stays,
/// which the caller is told.
///
/// # Errors
/// A release can't be returned to; the other environments were done all the same.
pub async fn revert_agents(app: &App, scope: &BreakerScope) -> Result<(), Refusal> {
    let environments: Vec<EnvironmentId> = app.state().environments.keys().cloned().collect();
    let mut result = Ok(());
    for environment in environments {
        result = result.and(revert_one(app, &environment, scope).await);
    }
    result
}

async fn revert_one(
    app: &App,
    environment: &EnvironmentId,
    scope: &BreakerScope,
) -> Result<(), Refusal> {
    let state = app.state();
    let Some(target) = revert_target(&state, environment, scope) else {
        return Ok(());
    };
    let epoch = state
        .environments
        .get(environment)
        .map_or(0, |running| running.epoch)
        + 1;
    serve_alone(app, environment, target, epoch).await?;
    // The reason stands in the breaker's own entry.
    let body = EnvironmentReverted {
        environment: environment.clone(),
        to: Some(target),
        epoch,
        why: Digest::of(b"breaker"),
        envelope: None,
    };
    app.ledger.submit(Recording::one(control(), body)).await?;
    retire(app, environment).await
}

/// The release to return to, if what serves is covered.
pub(super) fn revert_target(
    state: &State,
    environment: &EnvironmentId,
    scope: &BreakerScope,
) -> Option<ReleaseId> {
    let running = state.environments.get(environment)?;
    let repository = &state.inventory.environments.get(environment)?.repository;
    let here = match scope {
        BreakerScope::Everywhere | BreakerScope::Agent(_) => true,
        BreakerScope::Environment(id) => id == environment,
        BreakerScope::Repository(id) => id == repository,
    };
    let covered = |release: &Release| match scope {
        BreakerScope::Agent(agent) => release
            .changes
            .iter()
            .filter_map(|change| state.changes.get(change))
            .any(|change| change.agents().into_iter().any(|one| one == agent)),
        BreakerScope::Everywhere | BreakerScope::Environment(_) | BreakerScope::Repository(_) => {
            release.agent_work
        }
    };
    let serving = state.releases.get(&running.stable?)?;
    if !here || !covered(serving) {
        return None;
    }
    running
        .history
        .iter()
        .rev()
        .filter_map(|id| state.releases.get(id))
        .find(|release| !release.revoked && !covered(release))
        .map(|release| release.id)
}
