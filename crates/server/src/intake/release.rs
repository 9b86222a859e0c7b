//! Releases, rollbacks and breaker resets, as people command them.

use std::sync::Arc;

use portcullis_flow::release::{Coverage, coverage, party_of, returnable, rollback_target};
use portcullis_flow::{Command as Recording, State};
use portcullis_model::event::{EnvironmentReverted, Needed, ReleaseAdmitted, RequestOpened};
use portcullis_model::manifest::Sensitivity;
use portcullis_model::statement::{ApprovalSubject, BreakerScope};
use portcullis_model::{
    ArtifactId, Digest, EnvironmentId, KeyClass, Party, Recorder as _, Refusal, ReleaseId,
    RequestId, RolloutId, TaskId,
};
use portcullis_policy::action::{Action, BreakerReset, ReleaseAdmit};
use portcullis_policy::{Approvals, Ask};
use serde_json::{Value, json};

use super::{Verified, check_fresh, human_id, request_of};
use crate::app::{App, Verdict, control, now};
use crate::facts;
use crate::worker::{admission, rollout};

/// A person asks for a release: admitted by proof alone where policy says so, else humans are
/// asked.
pub(super) async fn ask(
    app: &Arc<App>,
    verified: &Verified,
    artifact: ArtifactId,
    environment: EnvironmentId,
) -> Result<Value, Refusal> {
    human_id(verified)?;
    let state = app.state();
    let known = state
        .artifacts
        .get(&artifact)
        .cloned()
        .ok_or_else(|| Refusal::not_found("artifact", artifact))?;
    let covered = coverage(&state, artifact, &environment)?;
    let evidence = admission::verify(app, &state, &known, &environment, &covered).await?;
    let facts = admission_facts(&state, &environment, &known, &covered, Approvals::default());
    let mut question = request_of(&state, &verified.actor, Action::ReleaseAdmit(facts))?;
    question.circumstances.breaker = covered.agent_work
        && app
            .halted_for(&state, None, &[&known.repository], Some(&environment))
            .is_some();
    match app.decide(&state, &question, &[]) {
        Verdict::Permit(permit, decision) => {
            let body = ReleaseAdmitted {
                artifact,
                environment,
                request: None,
                changes: covered.changes,
                agent_work: covered.agent_work,
                verification: evidence,
                decision,
            };
            let recorded = app
                .ledger
                .record(permit, Recording::one(control(), body))
                .await?;
            let (_, index) = recorded.spend();
            Ok(
                json!({ "index": index, "request": null, "release": ReleaseId(index), "satisfied": true }),
            )
        }
        Verdict::No(refusal, _, None) => Err(*refusal),
        Verdict::No(_, decision, Some(ask)) => {
            let subject = ApprovalSubject::Release {
                artifact,
                digest: known.output.digest,
                environment: environment.clone(),
                repository: known.repository.clone(),
                commit: known.commit.clone(),
                provenance: known.provenance,
            };
            let production = facts::environment_target(&state, &environment).sensitivity
                == Sensitivity::Production;
            let floor = state.genesis()?.key_floor.production;
            let body = RequestOpened {
                subject,
                task: sole_task(&state, &covered),
                checks: Some(evidence),
                needed: needed(
                    &ask,
                    if production {
                        floor
                    } else {
                        KeyClass::Software
                    },
                ),
                party: party_of(&state, &covered),
                because: ask.rules.iter().map(ToString::to_string).collect(),
                decision,
                expires: now().plus_ms(portcullis_flow::approval::REQUEST_LIFE_MS),
                envelope: Some(verified.envelope.clone()),
            };
            let receipt = app
                .ledger
                .submit(Recording::one(verified.actor.clone(), body))
                .await?;
            Ok(json!({
                "index": receipt.first,
                "request": RequestId(receipt.first),
                "release": null,
                "satisfied": false,
            }))
        }
    }
}

/// The facts of an admission, whoever asks.
pub(crate) fn admission_facts(
    state: &State,
    environment: &EnvironmentId,
    artifact: &portcullis_flow::job::Artifact,
    covered: &Coverage,
    approvals: Approvals,
) -> ReleaseAdmit {
    let target = facts::environment_target(state, environment);
    let agents = covered
        .changes
        .iter()
        .filter_map(|change| state.changes.get(change))
        .flat_map(|change| change.agents())
        .collect();
    let above_ceiling = facts::above_ceiling(state, &agents, Some(target.sensitivity));
    ReleaseAdmit {
        environment: target,
        repository: artifact.repository.clone(),
        provenance_verified: true,
        every_commit_covered: true,
        contains_agent_work: covered.agent_work,
        above_ceiling,
        canary: covered.agent_work,
        unproven_commits: 0,
        revoked: false,
        approvals,
    }
}

/// What a request takes: what policy asks, at least one human, at least the floor.
pub(crate) fn needed(ask: &Ask, floor: KeyClass) -> Needed {
    Needed {
        humans: ask.needed.humans.max(1),
        parties: ask.needed.parties.max(1),
        key_class: ask.needed.key_class.max(floor),
        administrators: ask.needed.administrators,
    }
}

fn sole_task(state: &State, covered: &Coverage) -> Option<TaskId> {
    let [change] = covered.changes.as_slice() else {
        return None;
    };
    let run = state.changes.get(change)?.latest().run?;
    state.runs.get(&run).map(|run| run.task)
}

/// Rolls an environment back. The proxy is told first; the ledger learns of it as soon as it can.
pub(super) async fn rollback(
    app: &Arc<App>,
    verified: &Verified,
    environment: EnvironmentId,
    to: Option<ReleaseId>,
    why: Digest,
) -> Result<Value, Refusal> {
    human_id(verified)?;
    check_fresh(app, verified)?;
    let state = app.state();
    let running = state
        .environments
        .get(&environment)
        .ok_or_else(|| Refusal::not_found("environment", &environment))?;
    let target = to
        .or_else(|| rollback_target(&state, &environment))
        .ok_or_else(|| {
            Refusal::denied(
                "nothing-to-return-to",
                format!("{environment} has no earlier release"),
            )
            .expected("a release that was admitted there, served, and is not revoked")
            .next(format!(
                "stop it with `portcullis breaker trip --env {environment}`, or release a fix"
            ))
        })?;
    let returnable = returnable(running).any(|known| known == target)
        && state
            .releases
            .get(&target)
            .is_some_and(|release| !release.revoked);
    if !returnable {
        return Err(
            Refusal::denied("not-returnable", format!("{target} can't be returned to"))
                .expected("a release that was admitted here, served, and is not revoked"),
        );
    }
    rollout::serve_alone(app, &environment, target, running.epoch + 1).await?;
    let result = record_reverted(app, verified, &environment, target, why).await;
    // What nothing needs any more is stopped; that it can't be now is no reason to hold the way back.
    if let Err(refusal) = rollout::retire(app, &environment).await {
        tracing::warn!(
            error.code = refusal.code,
            "a release could not be stopped: {}",
            refusal.message
        );
    }
    match result {
        Ok(index) => Ok(json!({ "index": index, "release": target, "recorded": true })),
        Err(refusal) => {
            tracing::error!(
                error.code = refusal.code,
                "a rollback was done and could not be recorded: {refusal}"
            );
            Ok(json!({ "release": target, "recorded": false, "why": refusal.code }))
        }
    }
}

/// Records what was done. A step of a rollout may have slipped in between; then the epoch is read
/// again, since the way back stands whatever its number.
async fn record_reverted(
    app: &App,
    verified: &Verified,
    environment: &EnvironmentId,
    target: ReleaseId,
    why: Digest,
) -> Result<u64, Refusal> {
    /// More steps than can slip in while one entry is written.
    const TRIES: u32 = 4;
    let mut last = Refusal::internal("a rollback was never recorded");
    for _ in 0..TRIES {
        let epoch = app
            .state()
            .environments
            .get(environment)
            .map_or(0, |running| running.epoch)
            + 1;
        let body = EnvironmentReverted {
            environment: environment.clone(),
            to: Some(target),
            epoch,
            why,
            envelope: Some(verified.envelope.clone()),
        };
        match app
            .ledger
            .submit(Recording::one(verified.actor.clone(), body))
            .await
        {
            Ok(receipt) => return Ok(receipt.first),
            Err(refusal) if refusal.code == "stale-epoch" => last = refusal,
            Err(refusal) => return Err(refusal),
        }
    }
    Err(last)
}

/// Sends a rollout's traffic to stable, before anything is recorded.
pub(super) async fn to_stable(app: &App, rollout: RolloutId) {
    let state = app.state();
    if let Some(known) = state.rollouts.get(&rollout) {
        rollout::stable_only(app, &known.environment).await;
    }
}

/// A person asks for a breaker to be reset.
pub(super) async fn ask_breaker_reset(
    app: &App,
    verified: &Verified,
    scope: BreakerScope,
) -> Result<Value, Refusal> {
    human_id(verified)?;
    let state = app.state();
    let action = Action::BreakerReset(BreakerReset {
        scope: scope.clone(),
        approvals: Approvals::default(),
    });
    let question = request_of(&state, &verified.actor, action)?;
    let floor = state.genesis()?.key_floor.breaker_reset;
    let (because, needed, decision) = match app.decide(&state, &question, &[]) {
        Verdict::No(refusal, _, None) => return Err(*refusal),
        Verdict::No(_, decision, Some(ask)) => (
            ask.rules.iter().map(ToString::to_string).collect(),
            needed(&ask, floor),
            decision,
        ),
        // The person's own command is not an approval: one statement over exactly this is.
        Verdict::Permit(permit, decision) => (
            permit.rules().iter().map(ToString::to_string).collect(),
            Needed {
                humans: 1,
                parties: 1,
                key_class: floor,
                administrators: true,
            },
            decision,
        ),
    };
    let body = RequestOpened {
        subject: ApprovalSubject::BreakerReset { scope },
        task: None,
        checks: None,
        needed,
        party: Party([verified.actor.principal.clone()].into()),
        because,
        decision,
        expires: now().plus_ms(portcullis_flow::approval::REQUEST_LIFE_MS),
        envelope: Some(verified.envelope.clone()),
    };
    let receipt = app
        .ledger
        .submit(Recording::one(verified.actor.clone(), body))
        .await?;
    Ok(json!({ "index": receipt.first, "request": RequestId(receipt.first) }))
}
