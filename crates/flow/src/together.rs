//! Landings that happen all or not at all: the changes of a task over several repositories, where
//! the task says so.
//!
//! No two repositories move in one step, so this is a plan that every crash finds its way in:
//!
//! 1. Nothing is intended before every change of the task is checked, tested and allowed as if it
//!    landed alone. Then all intents are recorded in one batch. *A restart finds them all or none.*
//! 2. The branches move one after the other, in the order of the task's targets, each by its own
//!    attempt and outcome. As long as one is open, each branch counts as being landed on, and none
//!    of the changes counts as landed. *A restart looks at the branch whose turn it is.*
//! 3. The last one done makes all of them landed, in that entry.
//! 4. If one fails, those whose turn did not come fail with it, and those that moved are taken
//!    back, by compare-and-swap again: only where nothing else came on top. Then it is as if nothing
//!    had been, and people are asked again. *A restart looks at the branch before it takes it back.*
//! 5. What can't be taken back, or of what nobody knows whether it moved, halts the queues of all
//!    its branches until a person looked. Such a branch moved past us: the next look at it asks
//!    people, as for any commit without proof.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::Vector;
use portcullis_model::event::{Effect, EffectConcluded, EffectOutcome};
use portcullis_model::{
    ChangeId, Event, GitOid, LedgerIndex, Refusal, RepositoryId, RequestId, RunId, Task, TaskId,
    Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::approval;
use crate::change::{Change, ChangeStatus};
use crate::effect::{EffectState, Ended};
use crate::queue::{self, Halt};
use crate::state::{State, find};
use crate::work::Work;

/// Why a landing is not tried whose task lands all or nothing, and another of it failed.
pub const FAILED: &str = "together-failed";
/// Why queues are halted: of a task that lands all or nothing, some did and could not be taken
/// back.
pub const APART: &str = "landed-apart";

/// Landings of one task under way, in their order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joint {
    /// One for each of the task's targets, once all are intended.
    pub parts: Vector<Part>,
}

/// One of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The entry of its intent.
    pub effect: LedgerIndex,
    /// Which change.
    pub change: ChangeId,
    /// Where.
    pub repository: RepositoryId,
    /// On which branch.
    pub branch: String,
    /// From this commit
    pub old: GitOid,
    /// to this one.
    pub new: GitOid,
    /// The request whose approvals allow it.
    pub request: Option<RequestId>,
    /// How it ended, and the entry that says so.
    pub ended: Option<(EffectOutcome, LedgerIndex)>,
    /// Whether it is taken back.
    pub back: Option<Back>,
}

/// How far the taking back of a landing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Back {
    /// It is intended.
    Intended,
    /// The branch stands where it was.
    Done,
    /// It could not be.
    Not,
}

impl Part {
    fn outcome(&self) -> Option<EffectOutcome> {
        self.ended.map(|(outcome, _)| outcome)
    }

    fn key(&self) -> (RepositoryId, String) {
        (self.repository.clone(), self.branch.clone())
    }
}

impl Joint {
    /// Whether one of them did not land, so that none may.
    pub fn failing(&self) -> bool {
        self.any(EffectOutcome::Failed) || self.any(EffectOutcome::Unknown)
    }

    /// The one whose turn it is.
    pub fn next(&self) -> Option<&Part> {
        self.parts.iter().find(|part| part.ended.is_none())
    }

    /// Those that moved their branch.
    pub fn moved(&self) -> impl Iterator<Item = &Part> {
        self.parts
            .iter()
            .filter(|part| part.outcome() == Some(EffectOutcome::Done))
    }

    /// Those to take back: others failed for sure, and nothing is under way any more.
    fn to_take_back(&self) -> impl Iterator<Item = &Part> {
        let settled = self.any(EffectOutcome::Failed)
            && !self.any(EffectOutcome::Unknown)
            && self.next().is_none();
        self.moved()
            .filter(move |part| settled && part.back.is_none())
    }

    fn any(&self, outcome: EffectOutcome) -> bool {
        self.parts
            .iter()
            .any(|part| part.outcome() == Some(outcome))
    }
}

/// The task that orders a change to land together with others: that of the newest run behind it
/// whose task says so. A later push by somebody else does not set it free.
pub fn task_of<'a>(state: &'a State, change: &Change) -> Option<(TaskId, &'a Task)> {
    change
        .revisions
        .iter()
        .rev()
        .filter_map(|revision| revision.run)
        .find_map(|run| task_of_run(state, run))
}

fn task_of_run(state: &State, run: RunId) -> Option<(TaskId, &Task)> {
    let id = state.runs.get(&run)?.task;
    let task = &state.tasks.get(&id)?.payload;
    task.together.then_some((id, task))
}

/// Whether a run works under the task with which a change lands together.
pub fn same_task(state: &State, run: Option<RunId>, change: &Change) -> bool {
    run.and_then(|run| task_of_run(state, run))
        .is_some_and(|(id, _)| task_of(state, change).is_some_and(|(other, _)| other == id))
}

/// The open change for each target of a task that lands all or nothing, in their order; none where
/// there is none yet.
pub fn members<'a>(state: &'a State, id: TaskId, task: &Task) -> Vec<Option<&'a Change>> {
    let open: Vec<&Change> = state
        .changes
        .open()
        .map(|change| &**change)
        .filter(|change| task_of(state, change).is_some_and(|(other, _)| other == id))
        .collect();
    task.targets
        .iter()
        .map(|target| {
            open.iter().copied().rfind(|change| {
                change.repository == target.repository && change.branch == target.branch
            })
        })
        .collect()
}

/// One change in each repository: a second one is refused while the first is open, and once it
/// landed.
pub(crate) fn check_opened(
    state: &State,
    run: Option<RunId>,
    repository: &RepositoryId,
) -> Result<(), Refusal> {
    let Some((id, _)) = run.and_then(|run| task_of_run(state, run)) else {
        return Ok(());
    };
    let known = state.changes.values().find(|change| {
        change.repository == *repository
            && change.status != ChangeStatus::Closed
            && task_of(state, change).is_some_and(|(other, _)| other == id)
    });
    match known {
        None => Ok(()),
        Some(known) => Err(Refusal::denied(
            "one-change-per-repository",
            format!("the task has {} in {repository} already", known.id),
        )
        .expected("one change in each repository, since the task's changes land together")
        .received("another one")
        .next(format!("git push -o change={} origin …", known.id))),
    }
}

/// Whether a change that would land alone by now is part of nothing, or stands in its place among
/// the intents of its task.
pub(crate) fn check_part(
    state: &State,
    index: LedgerIndex,
    change: &Change,
    named: Option<TaskId>,
) -> Result<(), Refusal> {
    let (id, task) = match (task_of(state, change), named) {
        (None, None) => return Ok(()),
        (Some(task), Some(named)) if task.0 == named => task,
        (Some((id, _)), _) => {
            return Err(Refusal::denied(
                "lands-together",
                format!("{} lands together with its task's other changes", change.id),
            )
            .expected(&format!("a landing of all changes of {id}"))
            .received("a landing of its own"));
        }
        (None, Some(named)) => {
            return Err(Refusal::denied(
                "not-together",
                format!("no task orders {} to land together with others", change.id),
            )
            .received(&named.to_string()));
        }
    };
    let place = task.targets.iter().position(|target| {
        target.repository == change.repository && target.branch == change.branch
    });
    let joint = state.together.get(&id);
    let count = joint.map_or(0, |joint| joint.parts.len());
    let follows = joint
        .and_then(|joint| joint.parts.last())
        .is_none_or(|last| last.effect + 1 == index);
    if place == Some(count) && follows {
        return Ok(());
    }
    Err(Refusal::conflict(
        "together-order",
        "landings of one task are intended one right after the other, in the order of its targets",
    )
    .expected(&format!("the change of target {}", count + 1))
    .received(&format!("{} in {}", change.id, change.repository)))
}

/// Takes an intent that was checked into its task's landings.
pub(crate) fn add_part(state: &mut State, index: LedgerIndex, effect: &Effect) {
    let Effect::Land {
        together: Some(task),
        change,
        repository,
        branch,
        old,
        new,
        request,
        ..
    } = effect
    else {
        return;
    };
    let part = Part {
        effect: index,
        change: *change,
        repository: repository.clone(),
        branch: branch.clone(),
        old: old.clone(),
        new: new.clone(),
        request: *request,
        ended: None,
        back: None,
    };
    let joint = state.together.entry(*task).or_default();
    Arc::make_mut(joint).parts.push_back(part);
}

/// A landing of several is tried when it is its turn.
pub(crate) fn require_turn(
    state: &State,
    index: LedgerIndex,
    effect: &Effect,
) -> Result<(), Refusal> {
    let Effect::Land {
        together: Some(id), ..
    } = effect
    else {
        return Ok(());
    };
    let joint = find("landing together", &state.together, id)?;
    let whole = is_whole(state, *id, joint);
    let turn = joint.next().map(|part| part.effect);
    if whole && !joint.failing() && turn == Some(index) {
        return Ok(());
    }
    Err(Refusal::conflict(
        "together-not-now",
        "it is not the turn of this landing, which happens together with others",
    )
    .expected(&match turn {
        Some(turn) if whole && !joint.failing() => format!("effect {turn}"),
        Some(_) | None => "nothing, since not all of them can land".to_owned(),
    })
    .received(&format!("effect {index}")))
}

fn is_whole(state: &State, id: TaskId, joint: &Joint) -> bool {
    state
        .tasks
        .get(&id)
        .is_some_and(|task| task.payload.targets.len() == joint.parts.len())
}

/// Whether an effect is to be worked at now: of landings that happen together, one after the other.
pub(crate) fn in_turn(state: &State, effect: &EffectState) -> bool {
    match &effect.effect {
        Effect::Land {
            together: Some(id), ..
        } => state
            .together
            .get(id)
            .and_then(|joint| joint.next())
            .is_none_or(|part| part.effect == effect.id),
        Effect::Land { together: None, .. }
        | Effect::TakeBack { .. }
        | Effect::StartRelease { .. }
        | Effect::SetTraffic { .. }
        | Effect::StopRelease { .. } => true,
    }
}

/// Whether a landing must not be tried any more, because it can't happen together with the others
/// of its task.
pub fn is_spoilt(state: &State, effect: &Effect) -> bool {
    let Effect::Land {
        together: Some(id), ..
    } = effect
    else {
        return false;
    };
    state
        .together
        .get(id)
        .is_none_or(|joint| joint.failing() || !is_whole(state, *id, joint))
}

/// Whether this outcome of an effect leaves a task's changes landed in part.
pub fn comes_apart(effect: &EffectState, outcome: EffectOutcome) -> bool {
    match &effect.effect {
        Effect::Land {
            together: Some(_), ..
        } => outcome == EffectOutcome::Unknown,
        Effect::TakeBack { .. } => outcome != EffectOutcome::Done,
        Effect::Land { together: None, .. }
        | Effect::StartRelease { .. }
        | Effect::SetTraffic { .. }
        | Effect::StopRelease { .. } => false,
    }
}

/// One of several landings ended.
pub(crate) fn concluded(
    state: &mut State,
    event: &Event,
    body: &EffectConcluded,
    effect: &EffectState,
    id: TaskId,
) -> Result<(), Refusal> {
    let done = body.outcome == EffectOutcome::Done;
    if done {
        require_turn(state, effect.id, &effect.effect)?;
    }
    if done && effect.attempts == 0 {
        return Err(Refusal::denied(
            "attempts",
            "what was not tried is not done",
        ));
    }
    edit_part(state, id, effect.id, |part| {
        part.ended = Some((body.outcome, event.index));
    })?;
    settle(state, event, id)
}

/// A landing is about to be taken back: it moved its branch, and another of its task failed.
pub(crate) fn check_take_back(state: &mut State, effect: &Effect) -> Result<(), Refusal> {
    let Effect::TakeBack {
        landing,
        change,
        repository,
        branch,
        from,
        to,
    } = effect
    else {
        return Ok(());
    };
    let known = state.together.iter().find_map(|(id, joint)| {
        let mut parts = joint.to_take_back();
        let part = parts.find(|part| part.effect == *landing)?;
        let same = part.change == *change
            && part.repository == *repository
            && part.branch == *branch
            && part.new == *from
            && part.old == *to;
        same.then_some(*id)
    });
    match known {
        Some(id) => edit_part(state, id, *landing, |part| part.back = Some(Back::Intended)),
        None => Err(Refusal::denied(
            "not-to-take-back",
            "only a landing is taken back that was to happen together with one that failed",
        )
        .received(&format!("effect {landing}"))),
    }
}

/// A landing was taken back, or could not be.
pub(crate) fn taken_back(
    state: &mut State,
    event: &Event,
    landing: LedgerIndex,
    outcome: EffectOutcome,
) -> Result<(), Refusal> {
    let id = state
        .together
        .iter()
        .find(|(_, joint)| joint.parts.iter().any(|part| part.effect == landing))
        .map(|(id, _)| *id)
        .ok_or_else(|| Refusal::not_found("landing together", landing))?;
    let back = match outcome {
        EffectOutcome::Done => Back::Done,
        EffectOutcome::Failed | EffectOutcome::Unknown => Back::Not,
    };
    edit_part(state, id, landing, |part| part.back = Some(back))?;
    settle(state, event, id)
}

fn edit_part(
    state: &mut State,
    id: TaskId,
    effect: LedgerIndex,
    edit: impl FnOnce(&mut Part),
) -> Result<(), Refusal> {
    let joint = state
        .together
        .get_mut(&id)
        .ok_or_else(|| Refusal::not_found("landing together", id))?;
    let part = Arc::make_mut(joint)
        .parts
        .iter_mut()
        .find(|part| part.effect == effect)
        .ok_or_else(|| Refusal::not_found("landing", effect))?;
    edit(part);
    Ok(())
}

/// What follows once nothing is under way any more.
fn settle(state: &mut State, event: &Event, id: TaskId) -> Result<(), Refusal> {
    let joint = Arc::clone(find("landing together", &state.together, &id)?);
    if joint.next().is_some() {
        return Ok(());
    }
    let landed = !joint.failing() && is_whole(state, id, &joint);
    let open = |part: &&Part| matches!(part.back, None | Some(Back::Intended));
    if !landed && !joint.any(EffectOutcome::Unknown) && joint.moved().any(|part| open(&part)) {
        return Ok(());
    }
    let unsure = joint.any(EffectOutcome::Unknown);
    let apart = !landed && (unsure || joint.moved().any(|part| part.back == Some(Back::Not)));
    state.together.remove(&id);
    for part in &joint.parts {
        let ended = Ended {
            key: part.key(),
            change: part.change,
            old: &part.old,
            new: &part.new,
            request: part.request,
        };
        match part.ended {
            Some((EffectOutcome::Done, entry)) if landed => ended.done(state, entry)?,
            Some(_) | None => ended.not_done(state)?,
        }
        if apart && !state.halted_queues.contains_key(&part.key()) {
            let halt = Halt {
                entry: event.index,
                code: APART.to_owned(),
                change: part.change,
            };
            state.halted_queues.insert(part.key(), halt);
        }
    }
    Ok(())
}

/// What to do for tasks that land all or nothing.
pub(crate) fn plan(state: &State, now: Timestamp, work: &mut Vec<Work>) {
    for joint in state.together.values() {
        work.extend(joint.to_take_back().map(|part| Work::TakeBack(part.effect)));
    }
    let tasks: BTreeSet<TaskId> = state
        .changes
        .open()
        .filter_map(|change| task_of(state, change))
        .map(|(id, _)| id)
        .filter(|id| !state.together.contains_key(id))
        .collect();
    for id in tasks {
        let Some(task) = state.tasks.get(&id) else {
            continue;
        };
        let ready = members(state, id, &task.payload)
            .into_iter()
            .all(|change| change.is_some_and(|change| stands_ready(state, change, now)));
        if ready {
            work.push(Work::LandTogether(id));
        }
    }
}

/// Whether a change could land now, as far as the state tells; policy is asked when it does.
pub fn stands_ready(state: &State, change: &Change, now: Timestamp) -> bool {
    let key = (change.repository.clone(), change.branch.clone());
    let Some(branch) = state.branches.get(&key) else {
        return false;
    };
    if branch.landing.is_some() || state.halted_queues.contains_key(&key) {
        return false;
    }
    let revision = change.latest();
    if branch.tip != revision.pushed.base {
        let line = queue::line(state, &key, branch, now);
        return line
            .places
            .first()
            .is_some_and(|place| place.change.id == change.id && place.prepared.passed());
    }
    revision.checks.is_some()
        && revision.tests.is_some()
        && match revision.request.and_then(|id| state.requests.get(&id)) {
            None => !revision.landing_failed,
            Some(request) => approval::satisfied(state, request, now),
        }
}
