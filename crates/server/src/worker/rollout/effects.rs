//! What a rollout does to the world: intended with policy's decision, then performed.

use std::time::Duration;

use portcullis_flow::Command as Recording;
use portcullis_flow::State;
use portcullis_flow::effect::subject_of;
use portcullis_flow::release::{Release, rollback_target};
use portcullis_model::event::{
    Effect, EffectIntended, EffectOutcome, RolloutEnded, RolloutOutcome,
};
use portcullis_model::{
    EnvironmentId, Principal, Recorder as _, Refusal, RefusalKind, ReleaseId, RolloutId,
};
use portcullis_policy::action::{Action, RolloutCommand, RolloutVerb};
use portcullis_policy::{Actor, Approvals, Request};

use super::traffic::{self, ALL};
use super::{View, halted, record_of};
use crate::app::{App, Verdict, control, now};
use crate::environments::{self, Place};
use crate::facts;
use crate::worker::record;

/// Longest that a service gets from its start to its first answer.
const HEALTHY_WITHIN: Duration = Duration::from_secs(20);
/// Releases of an environment whose artifacts stay on disk after their process was stopped.
const KEPT_RELEASES: usize = 8;

/// Records that the process of a rollout's release is about to be started.
///
/// # Errors
/// Policy says no, or the ledger can't be written.
pub async fn intend_start(app: &App, id: RolloutId) -> Result<(), Refusal> {
    let state = app.state();
    let view = View::of(app, &state, id)?;
    let effect = Effect::StartRelease {
        release: view.release.id,
    };
    intend(app, &state, &view, RolloutVerb::Start, effect).await
}

/// Records that the proxy is about to get the rollout's epoch and weight.
///
/// # Errors
/// Policy says no, or the ledger can't be written.
pub async fn intend_traffic(app: &App, id: RolloutId) -> Result<(), Refusal> {
    let state = app.state();
    let view = View::of(app, &state, id)?;
    let rollout = &view.rollout;
    let stats = environments::proxy_up(&view.place, view.record.port)
        .await?
        .stats()
        .await?;
    let wanted = traffic::routing(&view.place, rollout)?;
    let passed = stats.epoch_floor >= wanted.epoch && stats.routing.as_ref() != Some(&wanted);
    if passed {
        // Somebody took the traffic back, and could not record it.
        return super::back::take_back(app, id, "proxy-moved", None).await;
    }
    let effect = Effect::SetTraffic {
        rollout: id,
        epoch: rollout.epoch,
        weight: rollout.weight,
    };
    intend(app, &state, &view, verb(&view), effect).await
}

/// Which command the present weight is.
fn verb(view: &View) -> RolloutVerb {
    let steps = &view.record.canary.steps;
    if !view.rollout.canary || steps.first() == Some(&view.rollout.weight) {
        RolloutVerb::Start
    } else if view.rollout.weight == ALL {
        RolloutVerb::Promote
    } else {
        RolloutVerb::Step
    }
}

async fn intend(
    app: &App,
    state: &State,
    view: &View,
    verb: RolloutVerb,
    effect: Effect,
) -> Result<(), Refusal> {
    let (permit, decision) = ask(app, state, &view.release, verb, true)?.into_permit()?;
    let body = EffectIntended {
        effect,
        decision: Some(decision),
    };
    let recorded = app
        .ledger
        .record(permit, Recording::one(control(), body))
        .await?;
    // The worker finds the intent in the state and performs it, now or after a restart.
    drop(recorded);
    Ok(())
}

/// Policy's answer about the next command to a rollout of `release`.
pub(super) fn ask(
    app: &App,
    state: &State,
    release: &Release,
    command: RolloutVerb,
    telemetry_reliable: bool,
) -> Result<Verdict, Refusal> {
    let record = record_of(state, &release.environment)?;
    let thresholds = super::evidence::config(&record.canary).check().is_ok();
    let mut circumstances = facts::circumstances(state, now())?;
    circumstances.breaker = halted(app, state, release);
    let actor = match control().principal {
        Principal::Service(id) => facts::service(state, &id, now()),
        Principal::Human(_) | Principal::Agent(..) | Principal::Host(_) | Principal::Unknown => {
            Actor::Unknown
        }
    };
    let action = Action::RolloutCommand(RolloutCommand {
        environment: facts::environment_target(state, &release.environment),
        command,
        contains_agent_work: release.agent_work,
        target_admitted: true,
        target_revoked: release.revoked,
        telemetry_reliable,
        thresholds_explicit: thresholds,
        // A canary's weight and its errors are bounded by the environment's record.
        blast_radius_bounded: thresholds,
        approvals: Approvals::default(),
    });
    Ok(app.decide(
        state,
        &Request {
            actor,
            circumstances,
            action,
        },
        &[],
    ))
}

/// Performs an effect whose attempt is recorded: looks at the world first, so that what was done
/// before a crash is found done.
///
/// # Errors
/// It could not be tried now; it may be tried again.
pub async fn perform(
    app: &App,
    effect: &Effect,
) -> Result<(EffectOutcome, Option<String>), Refusal> {
    match effect {
        Effect::StartRelease { release } => start_release(app, *release).await,
        Effect::StopRelease { release } => stop_release(app, *release).await,
        Effect::SetTraffic {
            rollout,
            epoch,
            weight,
        } => set_traffic(app, *rollout, *epoch, *weight).await,
        Effect::Land { .. } | Effect::TakeBack { .. } => {
            Err(Refusal::internal("a landing is no rollout"))
        }
    }
}

const DONE: (EffectOutcome, Option<String>) = (EffectOutcome::Done, None);

fn failed(code: &str) -> (EffectOutcome, Option<String>) {
    (EffectOutcome::Failed, Some(code.to_owned()))
}

async fn start_release(
    app: &App,
    id: ReleaseId,
) -> Result<(EffectOutcome, Option<String>), Refusal> {
    let state = app.state();
    let release = state
        .releases
        .get(&id)
        .ok_or_else(|| Refusal::not_found("release", id))?;
    if release.revoked {
        return Ok(failed("release-revoked"));
    }
    let place = Place::new(&app.home, &release.environment).release(id);
    install(app, &state, release).await?;
    environments::release_up(&place).await?;
    match environments::healthy(&place, HEALTHY_WITHIN).await {
        Ok(()) => Ok(DONE),
        Err(refusal) => {
            tracing::warn!(release = %id, error.code = refusal.code, "a release does not start: {refusal}");
            environments::release_down(&place).await?;
            Ok(failed(&refusal.code))
        }
    }
}

/// Puts a release's bytes from the ledger's blobs into its place.
pub(super) async fn install(app: &App, state: &State, release: &Release) -> Result<(), Refusal> {
    let artifact = state
        .artifacts
        .get(&release.artifact)
        .ok_or_else(|| Refusal::not_found("artifact", release.artifact))?;
    let record = record_of(state, &release.environment)?;
    let place = Place::new(&app.home, &release.environment).release(release.id);
    let (output, ledger) = (artifact.output.clone(), app.ledger.clone());
    environments::blocking(move || {
        environments::install(&place, &output, record.service_port, || {
            ledger.blobs().get(&output.digest)
        })
    })
    .await
}

async fn stop_release(
    app: &App,
    id: ReleaseId,
) -> Result<(EffectOutcome, Option<String>), Refusal> {
    let state = app.state();
    let release = state
        .releases
        .get(&id)
        .ok_or_else(|| Refusal::not_found("release", id))?;
    let turn = app.rollouts.turn(&release.environment);
    let _turn = turn.lock().await;
    // It may have become the way back since this was intended.
    if needed_in(&app.state(), &release.environment).contains(&id) {
        return Ok(failed("release-needed"));
    }
    let place = Place::new(&app.home, &release.environment);
    environments::release_down(&place.release(id)).await?;
    environments::blocking(move || prune(&place)).await?;
    Ok(DONE)
}

/// Removes the oldest releases that run no more from the disk; the ledger's blobs still hold them.
fn prune(place: &Place) -> Result<(), Refusal> {
    let mut idle = environments::releases_in(place)?;
    idle.retain(|release| !environments::lives(release));
    let spare = idle.len().saturating_sub(KEPT_RELEASES);
    for release in idle.into_iter().take(spare) {
        // One that can't be removed is tried again next time.
        drop(std::fs::remove_dir_all(release.directory()));
    }
    Ok(())
}

async fn set_traffic(
    app: &App,
    id: RolloutId,
    epoch: u64,
    weight: u32,
) -> Result<(EffectOutcome, Option<String>), Refusal> {
    let environment = View::of(app, &app.state(), id)?.rollout.environment.clone();
    let turn = app.rollouts.turn(&environment);
    let _turn = turn.lock().await;
    // From here on nobody takes traffic back and records it without us seeing it.
    let state = app.state();
    let view = View::of(app, &state, id)?;
    let rollout = &view.rollout;
    if !rollout.status.is_active() || rollout.epoch != epoch || rollout.weight != weight {
        return Ok(failed("rollout-moved"));
    }
    if view.release.revoked {
        return Ok(failed("release-revoked"));
    }
    if halted(app, &state, &view.release) {
        return Ok(failed("breaker-tripped"));
    }
    let wanted = traffic::routing(&view.place, rollout)?;
    let proxy = environments::proxy_up(&view.place, view.record.port).await?;
    match proxy.configure(&wanted).await {
        Ok(_) => {}
        Err(refusal) if refusal.kind == RefusalKind::Conflict => {
            return Ok(failed(&refusal.code));
        }
        Err(refusal) => return Err(refusal),
    }
    let serves = proxy.stats().await?;
    if serves.routing.as_ref() == Some(&wanted) {
        Ok(DONE)
    } else {
        Ok(failed("proxy-epoch-stale"))
    }
}

/// Releases whose processes an environment needs: what serves, what a rollback goes to, what a
/// rollout moves to and what it goes back to.
pub(super) fn needed_in(state: &State, environment: &EnvironmentId) -> Vec<ReleaseId> {
    let Some(running) = state.environments.get(environment) else {
        return Vec::new();
    };
    let rollout = running.rollout.and_then(|id| state.rollouts.get(&id));
    let warm = running
        .history
        .iter()
        .rev()
        .find(|id| {
            state
                .releases
                .get(*id)
                .is_some_and(|release| !release.revoked)
        })
        .copied();
    [running.stable, rollback_target(state, environment), warm]
        .into_iter()
        .flatten()
        .chain(rollout.map(|rollout| rollout.release))
        .chain(rollout.and_then(|rollout| rollout.stable))
        .collect()
}

/// Intends the end of every process of an environment that nothing needs any more.
///
/// # Errors
/// The ledger can't be written.
pub async fn retire(app: &App, environment: &EnvironmentId) -> Result<(), Refusal> {
    let state = app.state();
    let place = Place::new(&app.home, environment);
    let listed = environments::blocking(move || environments::releases_in(&place)).await?;
    let needed = needed_in(&state, environment);
    let idle = listed.iter().filter(|place| {
        state.releases.contains_key(&place.id())
            && !needed.contains(&place.id())
            && environments::lives(place)
    });
    for place in idle {
        let effect = Effect::StopRelease {
            release: place.id(),
        };
        let key = effect.idempotency_key();
        let under_way = state
            .effects
            .keys()
            .filter_map(|id| subject_of(&state, *id))
            .any(|effect| effect.idempotency_key() == key);
        if !under_way {
            record(
                app,
                EffectIntended {
                    effect,
                    decision: None,
                },
            )
            .await?;
        }
    }
    Ok(())
}

/// Ends a rollout that never moved traffic.
pub(super) async fn give_up(app: &App, view: &View, code: &str) -> Result<(), Refusal> {
    let body = RolloutEnded {
        rollout: view.rollout.id,
        outcome: RolloutOutcome::Failed,
        code: code.to_owned(),
        envelope: None,
    };
    record(app, body).await?;
    app.rollouts.forget(view.rollout.id);
    retire(app, &view.rollout.environment).await
}
