//! Landings that happen all or not at all, performed: [`portcullis_flow::together`] tells the story.

use std::collections::BTreeMap;

use portcullis_flow::change::Change;
use portcullis_flow::effect::EffectState;
use portcullis_flow::{Command as Recording, State, together};
use portcullis_gateway::git::land::{Landed, TakeBack};
use portcullis_model::event::{Effect, EffectIntended, EffectOutcome, IncidentOpened};
use portcullis_model::{LedgerIndex, Recorded, Recorder as _, Refusal, TaskId};

use super::queue::{self, AtTip};
use super::{landing, record};
use crate::app::{App, control, now};

/// Intends to land every change of a task, once each of them could land alone: policy is asked for
/// each, every tree is recomputed, and every branch is looked at where it counts, before anything
/// is recorded.
///
/// # Errors
/// Policy says no, an upstream can't be reached or moved, or the state moved on.
pub async fn land(app: &App, id: TaskId) -> Result<(), Refusal> {
    let state = app.state();
    let Some(task) = state.tasks.get(&id) else {
        return Ok(());
    };
    let mut permits = Vec::new();
    let mut bodies = Vec::new();
    for change in together::members(&state, id, &task.payload) {
        let Some(change) = change.filter(|one| together::stands_ready(&state, one, now())) else {
            return Ok(());
        };
        let Some(prepared) = prepared(app, &state, change).await? else {
            return Ok(());
        };
        let request = change.latest().request;
        let intent = landing::intent(app, &state, change, request, prepared, Some(id)).await;
        let (permit, body) = match intent {
            Ok(intent) => intent,
            Err(refusal) if prepared.is_some() => {
                return landing::make_room(app, change, refusal).await;
            }
            Err(refusal) => return Err(refusal),
        };
        if let Err(refusal) = check(app, &state, &body.effect).await {
            if refusal.code == "landing-mismatch" {
                return queue::halt(app, change, &refusal).await;
            }
            return Err(refusal);
        }
        permits.push(permit);
        bodies.push(body.into());
    }
    let recording = Recording::of(control(), bodies);
    let recorded = app.ledger.record(permits, recording).await?;
    // The worker finds the intents in the state and performs them, now or after a restart.
    drop(recorded);
    Ok(())
}

/// What would land of a change: nothing yet, what was pushed, or what an entry prepared.
async fn prepared(
    app: &App,
    state: &State,
    change: &Change,
) -> Result<Option<Option<LedgerIndex>>, Refusal> {
    let revision = change.latest();
    let key = (change.repository.clone(), change.branch.clone());
    let branch = state.branches.get(&key);
    if branch.is_some_and(|branch| branch.tip != revision.pushed.base) {
        return Ok(revision.prepared.as_ref().map(|ready| Some(ready.entry)));
    }
    Ok(match queue::at_tip(app, state, change).await? {
        AtTip::AsPushed => Some(None),
        AtTip::Prepared(entry) => Some(Some(entry)),
        AtTip::NotYet => None,
    })
}

async fn check(app: &App, state: &State, effect: &Effect) -> Result<(), Refusal> {
    let (change, land) = landing::land_of(state, effect)?;
    let mirror = app.mirrors.get(state, &change.repository).await?;
    mirror.repository.check(&land, mirror.access()).await
}

/// Intends to take back a landing, because another of its task failed.
///
/// # Errors
/// The ledger can't be written, or the state moved on.
pub async fn take_back(app: &App, landing: LedgerIndex) -> Result<(), Refusal> {
    let state = app.state();
    let part = state
        .together
        .values()
        .flat_map(|joint| &joint.parts)
        .find(|part| part.effect == landing);
    let Some(part) = part else {
        return Ok(());
    };
    let effect = Effect::TakeBack {
        landing,
        change: part.change,
        repository: part.repository.clone(),
        branch: part.branch.clone(),
        from: part.new.clone(),
        to: part.old.clone(),
    };
    let body = EffectIntended {
        effect,
        decision: None,
    };
    record(app, body).await
}

/// Moves a branch back by compare-and-swap, and reads it back.
///
/// # Errors
/// Nobody knows yet how it went; it stays under way.
pub(super) async fn perform(
    app: &App,
    effect: &Effect,
    attempt: Recorded<()>,
) -> Result<(EffectOutcome, Option<String>), Refusal> {
    let Effect::TakeBack {
        repository,
        branch,
        from,
        to,
        ..
    } = effect
    else {
        return Err(Refusal::internal("nothing to take back"));
    };
    let mirror = app.mirrors.get(&app.state(), repository).await?;
    let back = TakeBack {
        branch: branch.clone(),
        from: from.clone(),
        to: to.clone(),
    };
    let done = mirror.repository.take_back(attempt, &back, mirror.access());
    match done.await {
        Landed::Done { .. } => Ok((EffectOutcome::Done, None)),
        Landed::Failed(refusal) => {
            tracing::error!(
                error.code = refusal.code,
                "a landing can't be taken back: {refusal}"
            );
            Ok((EffectOutcome::Failed, Some(refusal.code)))
        }
        Landed::Unknown(refusal) => Err(refusal),
    }
}

/// What people are told when a task's changes landed in part.
pub(super) fn incident(state: &State, effect: &EffectState, code: Option<&str>) -> IncidentOpened {
    let joint = state.together.iter().find(|(_, joint)| {
        let mut parts = joint.parts.iter();
        parts.any(|part| match &effect.effect {
            Effect::TakeBack { landing, .. } => part.effect == *landing,
            Effect::Land { .. }
            | Effect::StartRelease { .. }
            | Effect::SetTraffic { .. }
            | Effect::StopRelease { .. } => part.effect == effect.id,
        })
    });
    let mut facts = BTreeMap::from([("code".to_owned(), code.unwrap_or("unknown").to_owned())]);
    if let Some((task, joint)) = joint {
        facts.insert("task".to_owned(), task.to_string());
        for part in &joint.parts {
            let place = format!("{} {}", part.repository, part.branch);
            let how = match part.ended.map(|(outcome, _)| outcome) {
                Some(EffectOutcome::Done) => "moved to",
                Some(EffectOutcome::Failed) => "did not move to",
                Some(EffectOutcome::Unknown) | None => "may have moved to",
            };
            facts.insert(place, format!("{how} {} ({})", part.new, part.change));
        }
    }
    IncidentOpened {
        code: together::APART.to_owned(),
        about: Some(effect.id),
        facts,
    }
}

/// Why a change waits that could land alone; none if it does not wait for others.
pub(super) fn explain(state: &State, change: &Change) -> Option<String> {
    let (id, task) = together::task_of(state, change)?;
    if let Some(joint) = state.together.get(&id) {
        let moved = joint.moved().count();
        return Some(match joint.next() {
            _ if joint.failing() => format!(
                "it lands together with others, one of which failed: {moved} of {} branches \
                 moved, and are taken back",
                joint.parts.len()
            ),
            Some(part) => format!(
                "it is landing together with others: {moved} of {} branches moved, and it is {} \
                 {}'s turn",
                joint.parts.len(),
                part.repository,
                part.branch
            ),
            None => "it landed together with others".to_owned(),
        });
    }
    if !together::stands_ready(state, change, now()) {
        return None;
    }
    let waits: Vec<String> = together::members(state, id, task)
        .into_iter()
        .zip(&task.targets)
        .filter(|(member, _)| {
            member.is_none_or(|member| !together::stands_ready(state, member, now()))
        })
        .map(|(member, target)| match member {
            Some(member) => format!("{} in {}", member.id, target.repository),
            None => format!("a change in {}", target.repository),
        })
        .collect();
    (!waits.is_empty()).then(|| {
        format!(
            "it could land, and waits for {}: the task's changes land together or not at all",
            waits.join(" and ")
        )
    })
}
