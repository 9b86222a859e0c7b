//! Windows: what a run did so far is looked at when its window ends and when something happens
//! that people want to know; it goes on, or stands still until people let it go on.
//!
//! A run that stands still can do nothing; it is let go on by an approved request over exactly
//! this stop, as it was or with less, never with more.

use std::collections::BTreeSet;

use portcullis_model::event::{
    LeaseKind, RequestOpened, ReviewCause, RunCheckpointed, RunResumed, RunReviewed, Stop,
};
use portcullis_model::statement::{ApprovalSubject, CheckpointRef, ResumeWay};
use portcullis_model::{Event, LedgerIndex, Principal, Refusal, RunId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::approval;
use crate::run::Run;
use crate::state::{State, edit_in, find};

/// So many denials since the last look are a reason for another.
pub const DENIALS_REVIEW: u64 = 5;
/// How long after a window's end its review may take, in milliseconds; a run that has none by then
/// stands still, whoever is to blame.
pub const REVIEW_GRACE_MS: u64 = 2_000;
/// Most checkpoints of a run that are known; older ones are forgotten first.
pub const CHECKPOINTS_MAX: usize = 64;
/// Most checkpoints that a run may record; each is an entry.
const CHECKPOINT_NUMBER_MAX: u64 = 100_000;

/// Since when a run stands still, and why.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frozen {
    /// The entry that stopped it.
    pub entry: LedgerIndex,
    /// When.
    pub since: Timestamp,
    /// Why it was looked at.
    pub causes: BTreeSet<ReviewCause>,
    /// What it takes to go on.
    pub stop: Stop,
    /// What was known then.
    pub seen: Seen,
}

/// How a run went on for the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resumed {
    /// The entry that let it.
    pub entry: LedgerIndex,
    /// The checkpoint that its workspace is wound back to first.
    pub checkpoint: Option<CheckpointRef>,
}

/// What was looked at already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// Denials.
    pub denials: u64,
    /// Labels of untrusted sources.
    pub taint: BTreeSet<String>,
    /// Names of the budgets that are used up.
    pub exhausted: BTreeSet<String>,
}

impl Run {
    /// When its window ends.
    pub fn window_ends(&self) -> Timestamp {
        self.window_began.plus_ms(self.windows.length_ms)
    }

    /// Whether its window ended so long ago that its review is missing.
    pub fn review_missing(&self, now: Timestamp) -> bool {
        self.end.is_none()
            && self.frozen.is_none()
            && now >= self.window_ends().plus_ms(REVIEW_GRACE_MS)
    }
}

/// What is there to look at.
pub fn seen(state: &State, run: &Run) -> Seen {
    let budgets = state.tasks.get(&run.task).map(|task| &task.payload.budgets);
    let exhausted = budgets
        .into_iter()
        .flat_map(|budgets| {
            [
                ("pushes", run.used.pushes >= budgets.pushes),
                ("calls", run.used.calls >= budgets.calls),
            ]
        })
        .filter(|(_, over)| *over)
        .map(|(name, _)| name.to_owned())
        .collect();
    Seen {
        denials: run.used.denials,
        taint: run.taint.clone(),
        exhausted,
    }
}

/// Why the run is to be looked at now; nothing for one that stands still, ended, or is quiet.
pub fn due(state: &State, run: &Run, now: Timestamp) -> BTreeSet<ReviewCause> {
    if run.end.is_some() || run.frozen.is_some() || now >= run.deadline {
        return BTreeSet::new();
    }
    let seen = seen(state, run);
    let known = &run.seen;
    [
        (ReviewCause::Window, now >= run.window_ends()),
        (
            ReviewCause::Denials,
            seen.denials >= known.denials.saturating_add(DENIALS_REVIEW),
        ),
        (
            ReviewCause::Budget,
            !seen.exhausted.is_subset(&known.exhausted),
        ),
        (ReviewCause::Taint, !seen.taint.is_subset(&known.taint)),
    ]
    .into_iter()
    .filter_map(|(cause, due)| due.then_some(cause))
    .collect()
}

/// A run was looked at. Only the server does; it may stop a run at any time, and may let it go on
/// only for the causes that there are.
pub(crate) fn reviewed(
    state: &mut State,
    event: &Event,
    body: &RunReviewed,
) -> Result<(), Refusal> {
    state.require_control(event)?;
    state.check_decision(&body.decision)?;
    let run = find("run", &state.runs, &body.run)?;
    run.require_active(event.time)?;
    let (due, seen) = (due(state, run, event.time), seen(state, run));
    let stopped = body.stop.is_some();
    let unfounded = !body.causes.is_subset(&due) || body.causes.is_empty();
    if body.window != run.window || body.taint != seen.taint || (unfounded && !stopped) {
        return Err(Refusal::conflict(
            "review-unfounded",
            "the review is not about what the run did",
        )
        .expected(&format!("window {}, causes {due:?}", run.window))
        .received(&format!("window {}, causes {:?}", body.window, body.causes)));
    }
    if let Some(stop) = &body.stop {
        approval::require_floor(&stop.needed, portcullis_model::KeyClass::Software)?;
    }
    let (entry, time, body) = (event.index, event.time, body.clone());
    edit_in("run", &mut state.runs, &body.run, |run| match body.stop {
        Some(stop) => {
            run.frozen = Some(Frozen {
                entry,
                since: time,
                causes: body.causes,
                stop,
                seen,
            });
        }
        None => {
            if body.causes.contains(&ReviewCause::Window) {
                run.window = run.window.saturating_add(1);
                run.window_began = time;
            }
            run.seen = seen;
        }
    })
}

/// A request to let a run go on: for exactly its stop, taking what the stop says, and about a
/// checkpoint and leases that there are.
pub(crate) fn check_request(state: &State, body: &RequestOpened) -> Result<(), Refusal> {
    let ApprovalSubject::Resume { run, frozen, way } = &body.subject else {
        return Err(Refusal::internal("not a resume"));
    };
    let known = find("run", &state.runs, run)?;
    let stop = standing(known, *frozen)?;
    check_way(known, way)?;
    let agent = Principal::Agent(known.agent.clone(), Some(*run));
    if !body.party.0.contains(&agent) {
        return Err(
            Refusal::denied("party-incomplete", "the run itself is not named")
                .expected(&agent.to_string())
                .received(&format!("{:?}", body.party.0)),
        );
    }
    let (asked, takes) = (&body.needed, &stop.stop.needed);
    let weaker = asked.humans < takes.humans
        || asked.parties < takes.parties
        || asked.key_class < takes.key_class
        || (takes.administrators && !asked.administrators);
    if weaker || body.task != Some(known.task) {
        return Err(Refusal::denied(
            "request-too-weak",
            "this request takes less than the stop says",
        )
        .expected(&format!("{takes:?}, {}", known.task))
        .received(&format!("{asked:?}, {:?}", body.task)));
    }
    Ok(())
}

/// The stop that an answer is for.
fn standing(run: &Run, frozen: LedgerIndex) -> Result<&Frozen, Refusal> {
    run.frozen
        .as_ref()
        .filter(|stop| run.end.is_none() && stop.entry == frozen)
        .ok_or_else(|| {
            Refusal::conflict(
                "run-not-frozen",
                format!("{} does not stand still since entry {frozen}", run.id),
            )
            .next(format!("`portcullis runs show {}` says how it is", run.id))
        })
}

/// With less, never with more.
fn check_way(run: &Run, way: &ResumeWay) -> Result<(), Refusal> {
    if let Some(lease) = way
        .without
        .iter()
        .find(|lease| **lease == LeaseKind::Identity || !run.leases.contains(lease))
    {
        return Err(Refusal::denied(
            "not-lent",
            format!("{lease} can't be taken from {}", run.id),
        )
        .expected(
            &run.leases
                .iter()
                .filter(|lease| **lease != LeaseKind::Identity)
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        )
        .received(&lease.to_string()));
    }
    if let Some(deadline) = way.deadline
        && deadline >= run.deadline
    {
        return Err(Refusal::denied(
            "not-narrower",
            "a run's deadline moves to an earlier time only",
        )
        .expected(&format!("a time before {}", run.deadline))
        .received(&deadline.to_string()));
    }
    if let Some(point) = way.checkpoint
        && run.checkpoints.get(&point.number) != Some(&point.manifest)
    {
        return Err(
            Refusal::not_found("checkpoint", format!("{} of {}", point.number, run.id))
                .expected(
                    &run.checkpoints
                        .keys()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(", "),
                )
                .next(format!(
                    "`portcullis runs show {}` lists its checkpoints",
                    run.id
                )),
        );
    }
    Ok(())
}

/// A run goes on, as people approved.
pub(crate) fn resumed(state: &mut State, event: &Event, body: &RunResumed) -> Result<(), Refusal> {
    state.require_control(event)?;
    let request = approval::require_satisfied(state, body.request, event.time)?;
    let ApprovalSubject::Resume { run, frozen, way } = request.subject.clone() else {
        return Err(Refusal::denied(
            "wrong-request",
            "the request is not about a run that stands still",
        ));
    };
    let known = find("run", &state.runs, &body.run)?;
    if run != body.run {
        return Err(
            Refusal::denied("wrong-request", "the request is about another run")
                .expected(&body.run.to_string())
                .received(&run.to_string()),
        );
    }
    standing(known, frozen)?;
    check_way(known, &way)?;
    if event.time >= known.deadline {
        return known.require_not_over(event.time);
    }
    crate::breaker::require_closed(
        state,
        Some(&known.agent),
        known.leases.iter().filter_map(|lease| match lease {
            LeaseKind::Git(id) => Some(id),
            LeaseKind::Identity
            | LeaseKind::Endpoint(_)
            | LeaseKind::Host(_)
            | LeaseKind::Tunnel(_) => None,
        }),
        None,
    )?;
    state.inventory.agent(&known.agent, event.time)?;
    approval::use_up(state, body.request)?;
    let (entry, time) = (event.index, event.time);
    edit_in("run", &mut state.runs, &run, |run| {
        if let Some(stop) = run.frozen.take() {
            run.seen = stop.seen;
        }
        run.leases.retain(|lease| !way.without.contains(lease));
        run.deadline = way.deadline.map_or(run.deadline, |at| at.min(run.deadline));
        run.window = run.window.saturating_add(1);
        run.window_began = time;
        run.resumed = Some(Resumed {
            entry,
            checkpoint: way.checkpoint,
        });
        if let Some(point) = way.checkpoint {
            // What came after it is not there any more.
            run.checkpoints.retain(|number, _| *number <= point.number);
        }
    })
}

/// A run's launcher kept the workspace.
pub(crate) fn checkpointed(
    state: &mut State,
    event: &Event,
    body: &RunCheckpointed,
) -> Result<(), Refusal> {
    crate::run::require_run(state, event, body.run)?;
    let run = find("run", &state.runs, &body.run)?;
    run.require_not_over(event.time)?;
    if body.number <= run.checkpoint || body.number > CHECKPOINT_NUMBER_MAX {
        return Err(Refusal::conflict(
            "checkpoint-number",
            "a checkpoint's number was used before",
        )
        .expected(&format!(
            "{} to {CHECKPOINT_NUMBER_MAX}",
            run.checkpoint.saturating_add(1)
        ))
        .received(&body.number.to_string()));
    }
    edit_in("run", &mut state.runs, &body.run, |run| {
        run.checkpoint = body.number;
        run.checkpoints.insert(body.number, body.manifest);
        while run.checkpoints.len() > CHECKPOINTS_MAX {
            run.checkpoints.pop_first();
        }
    })
}

/// The requests that are about a stop of this run, whatever became of them.
pub fn asked(state: &State, run: RunId, frozen: LedgerIndex) -> bool {
    // It was asked after the run was frozen.
    let mut since = state.requests.range(portcullis_model::RequestId(frozen)..);
    since.any(|(_, request)| {
        matches!(
            &request.subject,
            ApprovalSubject::Resume { run: about, frozen: since, .. }
                if *about == run && *since == frozen
        )
    })
}
