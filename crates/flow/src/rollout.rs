//! Rollouts: the steps that move traffic to a release, each with its evidence.

use std::sync::Arc;

use portcullis_model::event::{RolloutEnded, RolloutOutcome, RolloutStarted, RolloutStepped, Step};
use portcullis_model::statement::Command;
use portcullis_model::{EnvironmentId, Event, Refusal, ReleaseId, RolloutId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::entities::Ends;
use crate::inventory::mismatch;
use crate::state::{State, change_in, edit_in, find};

/// A rollout.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Its id.
    pub id: RolloutId,
    /// To which release.
    pub release: ReleaseId,
    /// Where.
    pub environment: EnvironmentId,
    /// From which release.
    pub stable: Option<ReleaseId>,
    /// Whether it goes by canary.
    pub canary: bool,
    /// Seed of the assignment.
    pub seed: u64,
    /// Weight of the new release, in per mille.
    pub weight: u32,
    /// The proxy's epoch that belongs to that weight.
    pub epoch: u64,
    /// Whether the proxy has it.
    pub applied: bool,
    /// When the step began.
    pub step_since: Timestamp,
    /// State of the statistics.
    pub statistics: Value,
    /// The code of the last step.
    pub code: String,
    /// Where it stands.
    pub status: RolloutStatus,
}

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutStatus {
    /// It goes on.
    Running,
    /// A human keeps it where it is.
    Paused,
    /// The release serves all traffic.
    Completed,
    /// Traffic is back at the stable release.
    RolledBack,
    /// It never started.
    Failed,
}

impl RolloutStatus {
    /// Whether it is not over.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

impl Ends for Rollout {
    fn is_over(&self) -> bool {
        !self.status.is_active()
    }
}

/// Traffic begins to move.
pub(crate) fn started(
    state: &mut State,
    event: &Event,
    body: &RolloutStarted,
) -> Result<(), Refusal> {
    state.require_control(event)?;
    let id = RolloutId(event.index);
    let release = find("release", &state.releases, &body.release)?;
    let environment = find("environment", &state.environments, &body.environment)?;
    if release.environment != body.environment
        || release.revoked
        || environment.rollout.is_some()
        || environment.stable != body.stable
        || body.epoch != environment.epoch + 1
    {
        return Err(
            Refusal::conflict("environment-moved", "the environment is not as this says")
                .expected(&format!(
                    "no rollout, stable {:?}, epoch {}",
                    environment.stable,
                    environment.epoch + 1
                ))
                .received(&format!("stable {:?}, epoch {}", body.stable, body.epoch)),
        );
    }
    // The environment may have moved on since the admission: traffic never goes backwards.
    crate::release::coverage(state, release.artifact, &body.environment)?;
    if release.agent_work && body.stable.is_some() && !body.canary {
        return Err(Refusal::denied(
            "canary-needed",
            "a release with an agent's work goes by canary",
        ));
    }
    let rollout = Rollout {
        id,
        release: body.release,
        environment: body.environment.clone(),
        stable: body.stable,
        canary: body.canary,
        seed: body.seed,
        weight: 0,
        epoch: body.epoch,
        applied: false,
        step_since: event.time,
        statistics: Value::Null,
        code: "started".to_owned(),
        status: RolloutStatus::Running,
    };
    state.rollouts.insert(rollout.id, Arc::new(rollout));
    edit_in("release", &mut state.releases, &body.release, |release| {
        release.rolled_out = true;
    })?;
    let epoch = body.epoch;
    change_in(
        "environment",
        &mut state.environments,
        &body.environment,
        |environment| {
            environment.rollout = Some(id);
            environment.epoch = epoch;
        },
    )
}

/// A rollout moved, held, or a person paused or resumed it.
pub(crate) fn stepped(
    state: &mut State,
    event: &Event,
    body: &RolloutStepped,
) -> Result<(), Refusal> {
    let rollout = Arc::clone(find("rollout", &state.rollouts, &body.rollout)?);
    if !rollout.status.is_active() {
        return Err(over(&rollout));
    }
    match &body.envelope {
        Some(envelope) => {
            state.require_active_human(event)?;
            match (state.take_command(event, envelope)?, body.step) {
                (Command::PauseRollout { rollout, .. }, Step::Pause)
                | (Command::ResumeRollout { rollout, .. }, Step::Resume)
                    if rollout == body.rollout => {}
                (other, _) => return Err(mismatch("pause or resume of this rollout", &other)),
            }
        }
        None => {
            state.require_control(event)?;
            if matches!(body.step, Step::Pause | Step::Resume) {
                return Err(Refusal::denied(
                    "not-a-human",
                    "only a person pauses or resumes",
                ));
            }
        }
    }
    if body.step == Step::Advance {
        let release = find("release", &state.releases, &rollout.release)?;
        if release.revoked {
            return Err(Refusal::denied(
                "release-revoked",
                format!("{} is revoked", release.id),
            ));
        }
        let record = state.inventory.environment(&rollout.environment)?;
        if release.agent_work {
            crate::breaker::require_closed_for_changes(
                state,
                &release.changes,
                &record.repository,
                &rollout.environment,
            )?;
        }
        // A canary takes its steps one by one; nothing jumps to full traffic.
        let most = match rollout.canary {
            true => next_weight(&record.canary.steps, rollout.weight),
            false => 1000,
        };
        if body.weight <= rollout.weight
            || body.weight > most
            || body.epoch != rollout.epoch + u64::from(rollout.weight > 0)
            || rollout.status == RolloutStatus::Paused
        {
            return Err(
                Refusal::conflict("stale-step", "the rollout is not where this says")
                    .expected(&format!(
                        "a weight above {} and up to {most} in the next epoch, not paused",
                        rollout.weight
                    ))
                    .received(&format!("weight {} epoch {}", body.weight, body.epoch)),
            );
        }
    } else if body.weight != rollout.weight || body.epoch != rollout.epoch {
        return Err(Refusal::conflict(
            "stale-step",
            "only an advance moves traffic",
        ));
    }
    let (step, weight, epoch) = (body.step, body.weight, body.epoch);
    let (code, statistics) = (body.code.clone(), body.state.clone());
    edit_in("rollout", &mut state.rollouts, &body.rollout, |rollout| {
        match step {
            Step::Pause => rollout.status = RolloutStatus::Paused,
            Step::Resume => rollout.status = RolloutStatus::Running,
            Step::Advance => rollout.applied = false,
            Step::Hold | Step::Rollback | Step::Complete => {}
        }
        rollout.weight = weight;
        rollout.epoch = epoch;
        rollout.code = code;
        if !statistics.is_null() {
            rollout.statistics = statistics;
        }
    })?;
    change_in(
        "environment",
        &mut state.environments,
        &rollout.environment,
        |environment| {
            environment.epoch = environment.epoch.max(epoch);
        },
    )
}

/// The weight of the step after `weight`, in per mille.
fn next_weight(steps: &[u32], weight: u32) -> u32 {
    steps
        .iter()
        .copied()
        .find(|step| *step > weight)
        .unwrap_or(1000)
}

/// A rollout is over. Going back is always possible; completing takes all traffic applied.
pub(crate) fn ended(state: &mut State, event: &Event, body: &RolloutEnded) -> Result<(), Refusal> {
    let rollout = Arc::clone(find("rollout", &state.rollouts, &body.rollout)?);
    if !rollout.status.is_active() {
        return Err(over(&rollout));
    }
    match (&body.envelope, body.outcome) {
        (Some(envelope), RolloutOutcome::RolledBack) => {
            state.require_active_human(event)?;
            match state.take_command(event, envelope)? {
                Command::AbortRollout { rollout, .. } if rollout == body.rollout => {}
                other => return Err(mismatch("abort-rollout of this rollout", &other)),
            }
        }
        (Some(_), RolloutOutcome::Completed | RolloutOutcome::Failed) => {
            return Err(Refusal::denied(
                "not-a-human-s",
                "a person can only take a rollout back",
            ));
        }
        (None, _) => state.require_control(event)?,
    }
    if body.outcome == RolloutOutcome::Completed && (rollout.weight != 1000 || !rollout.applied) {
        return Err(Refusal::conflict(
            "not-complete",
            "the release does not have all traffic yet",
        ));
    }
    finish(
        state,
        body.rollout,
        match body.outcome {
            RolloutOutcome::Completed => RolloutStatus::Completed,
            RolloutOutcome::RolledBack => RolloutStatus::RolledBack,
            RolloutOutcome::Failed => RolloutStatus::Failed,
        },
    )?;
    let code = body.code.clone();
    edit_in("rollout", &mut state.rollouts, &body.rollout, |rollout| {
        rollout.code = code
    })
}

/// Ends a rollout and leaves the environment as that end says.
pub(crate) fn finish(
    state: &mut State,
    id: RolloutId,
    status: RolloutStatus,
) -> Result<(), Refusal> {
    let rollout = Arc::clone(find("rollout", &state.rollouts, &id)?);
    edit_in("rollout", &mut state.rollouts, &id, |rollout| {
        rollout.status = status;
        if status == RolloutStatus::RolledBack {
            rollout.weight = 0;
        }
    })?;
    if status == RolloutStatus::Completed {
        edit_in(
            "release",
            &mut state.releases,
            &rollout.release,
            |release| release.completed = true,
        )?;
    }
    change_in(
        "environment",
        &mut state.environments,
        &rollout.environment,
        |environment| {
            environment.rollout = None;
            if status == RolloutStatus::Completed {
                if let Some(before) = environment.stable {
                    environment.history.push_back(before);
                }
                environment.stable = Some(rollout.release);
            }
        },
    )
}

fn over(rollout: &Rollout) -> Refusal {
    Refusal::conflict("rollout-over", format!("{} is over", rollout.id))
        .received(&format!("{:?}", rollout.status))
}
