//! Grants and outcomes of a run's calls to hosts, written together where they come together.
//!
//! A grant is used only once its entry is durable, so each request waits for the disk. While an
//! entry of the run is being written, what comes meanwhile gathers here and goes into the next one:
//! under load one entry speaks of many requests, and alone a request has its entry at once. How a
//! request ended waits a moment for the next grant, whose entry it then shares; nobody waits for it.
//!
//! | the process ends | what is found |
//! |---|---|
//! | before a grant's entry is durable | nothing; nothing was sent |
//! | after, before the request was sent or while it is | a grant without an outcome |
//! | while an outcome waits here | the same: how it ended is not known |

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_flow::Command as Recording;
use portcullis_model::event::{CallsEnded, CallsGranted, CallsObserved, LeaseKind};
use portcullis_model::{Actor, Recorded, Recorder as _, Refusal, RunId};
use portcullis_policy::Permit;
use tokio::sync::oneshot;

use super::Caller;
use crate::app::App;

/// Longest that an outcome waits for company.
const OUTCOME_WAIT: Duration = Duration::from_millis(100);
/// How often whatever else is ready to run is let go before an entry is made. Without load, nothing
/// is, and it costs nothing.
const GATHER_TURNS: usize = 8;
/// Most outcomes of one run that wait while an entry is being written; more are lost, and said
/// to be in the log.
const OUTCOMES_MAX: usize = 64 * 1024;

/// What waits to be written, by run.
#[derive(Default)]
pub(crate) struct Calls(Mutex<BTreeMap<RunId, Waiting>>);

#[derive(Default)]
struct Waiting {
    granted: VecDeque<Wanted>,
    ended: VecDeque<Outcome>,
    /// A task writes entries of this run, and looks here again when it is done.
    writing: bool,
    /// A task comes back for the outcomes.
    awaited: bool,
}

struct Wanted {
    permit: Permit,
    lease: LeaseKind,
    answer: oneshot::Sender<Result<Recorded<Permit>, Refusal>>,
}

/// How a call ended.
pub(crate) struct Outcome {
    /// By which lease it was made.
    pub(crate) lease: LeaseKind,
    /// HTTP status of the answer; 0 where none came.
    pub(crate) status: u16,
    /// Bytes sent and received.
    pub(crate) bytes: (u64, u64),
}

impl Outcome {
    /// No answer came.
    pub(crate) fn none(lease: &LeaseKind) -> Self {
        Self {
            lease: lease.clone(),
            status: 0,
            bytes: (0, 0),
        }
    }
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<RunId, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what still waits: the server stops.
    pub(crate) async fn flush(app: &Arc<App>) {
        let runs: Vec<RunId> = app.calls.lock().keys().copied().collect();
        for run in runs {
            let Some(actor) = actor_of(app, run) else {
                continue;
            };
            while let Some(batch) = app.calls.take(run, true) {
                write(app, &actor, run, batch).await;
            }
        }
    }

    /// The next entry of a run: grants first, then outcomes as far as there is room. Without
    /// grants, only where outcomes shall not wait any more.
    fn take(&self, run: RunId, outcomes_too: bool) -> Option<(Vec<Wanted>, Vec<Outcome>)> {
        let mut runs = self.lock();
        let waiting = runs.get_mut(&run)?;
        let most = usize::try_from(CallsObserved::MAX_CALLS).unwrap_or(usize::MAX);
        let full = waiting.ended.len() >= most;
        if waiting.granted.is_empty() && (waiting.ended.is_empty() || !(outcomes_too || full)) {
            waiting.writing = false;
            if waiting.ended.is_empty() && !waiting.awaited {
                runs.remove(&run);
            }
            return None;
        }
        let count = waiting.granted.len().min(most);
        let granted: Vec<_> = waiting.granted.drain(..count).collect();
        let count = waiting.ended.len().min(most - granted.len());
        let ended = waiting.ended.drain(..count).collect();
        Some((granted, ended))
    }
}

/// Records that the call may be made, in an entry of its own or with others of the run.
pub(crate) async fn grant(
    app: &Arc<App>,
    caller: &Caller,
    permit: Permit,
    lease: &LeaseKind,
) -> Result<Recorded<Permit>, Refusal> {
    if !caller.run.leases.contains(lease) {
        // The fold refuses it; that must not take others along.
        return super::http::grant(app, caller, permit, lease, None).await;
    }
    let (answer, answered) = oneshot::channel();
    let run = caller.run.id;
    let begin = {
        let mut runs = app.calls.lock();
        let waiting = runs.entry(run).or_default();
        waiting.granted.push_back(Wanted {
            permit,
            lease: lease.clone(),
            answer,
        });
        !std::mem::replace(&mut waiting.writing, true)
    };
    if begin {
        // A task of its own: a client that hangs up must not take the others' grants with it.
        let (app, actor) = (Arc::clone(app), caller.actor());
        tokio::spawn(async move {
            gather().await;
            while let Some(batch) = app.calls.take(run, false) {
                write(&app, &actor, run, batch).await;
                gather().await;
            }
            later(&app, actor, run);
        });
    }
    answered
        .await
        .unwrap_or_else(|_| Err(Refusal::internal("a grant was not answered")))
}

/// Lets whatever is ready to run go first: requests among it share the next entry.
async fn gather() {
    for _ in 0..GATHER_TURNS {
        tokio::task::yield_now().await;
    }
}

/// Notes how a call ended. It is in the ledger a moment later.
pub(crate) fn ended(app: &Arc<App>, caller: &Caller, outcome: Outcome) {
    let run = caller.run.id;
    {
        let mut runs = app.calls.lock();
        let waiting = runs.entry(run).or_default();
        if waiting.ended.len() >= OUTCOMES_MAX {
            tracing::warn!(%run, "how a call ended was not recorded: too many wait");
            return;
        }
        waiting.ended.push_back(outcome);
    }
    later(app, caller.actor(), run);
}

/// Comes back for a run's outcomes, unless somebody does already or writes anyway.
fn later(app: &Arc<App>, actor: Actor, run: RunId) {
    {
        let mut runs = app.calls.lock();
        let Some(waiting) = runs.get_mut(&run) else {
            return;
        };
        if waiting.ended.is_empty() || waiting.writing || waiting.awaited {
            return;
        }
        waiting.awaited = true;
    }
    let app = Arc::clone(app);
    tokio::spawn(async move {
        tokio::time::sleep(OUTCOME_WAIT).await;
        {
            let mut runs = app.calls.lock();
            let Some(waiting) = runs.get_mut(&run) else {
                return;
            };
            waiting.awaited = false;
            if std::mem::replace(&mut waiting.writing, true) {
                // Whoever writes takes them along, or calls `later` at its end.
                return;
            }
        }
        while let Some(batch) = app.calls.take(run, true) {
            write(&app, &actor, run, batch).await;
        }
    });
}

/// Writes one entry and answers who waits for it.
async fn write(app: &App, actor: &Actor, run: RunId, batch: (Vec<Wanted>, Vec<Outcome>)) {
    let (mut wanted, ended) = batch;
    // Each was decided before the others of its entry were counted.
    let left = usize::try_from(calls_left(app, run)).unwrap_or(usize::MAX);
    let over = wanted.split_off(left.min(wanted.len()));
    if !(wanted.is_empty() && ended.is_empty()) {
        write_granted(app, actor, run, (wanted, ended)).await;
    }
    // After the others: denials may have the run stand still, which must not take from those.
    for over in over {
        let _gone = over.answer.send(Err(used_up()));
    }
}

/// Writes what the budget holds.
async fn write_granted(app: &App, actor: &Actor, run: RunId, batch: (Vec<Wanted>, Vec<Outcome>)) {
    let (wanted, ended) = batch;
    let body = body_of(run, wanted.iter().map(|wanted| &wanted.lease), &ended);
    let (permits, answers): (Vec<_>, Vec<_>) = wanted
        .into_iter()
        .map(|wanted| (wanted.permit, wanted.answer))
        .unzip();
    let command = Recording::leave_to_call(actor.clone(), body);
    match app.ledger.record_all(permits, command).await {
        Ok(recorded) => {
            for (recorded, answer) in recorded.into_iter().zip(answers) {
                // Nobody waits any more: the entry stands all the same.
                let _gone = answer.send(Ok(recorded));
            }
        }
        Err(refusal) => {
            if !ended.is_empty() && !answers.is_empty() {
                // The refusal is of the grants; the outcomes stand by themselves.
                let body = body_of(run, std::iter::empty(), &ended);
                note(app, actor, body).await;
            } else if answers.is_empty() {
                tracing::warn!(
                    error.code = refusal.code,
                    "how calls ended could not be recorded: {refusal}"
                );
            }
            for answer in answers {
                let _gone = answer.send(Err(refusal.clone()));
            }
        }
    }
}

/// How many calls the run's budget still holds.
fn calls_left(app: &App, run: RunId) -> u64 {
    let state = app.state();
    let left = state.runs.get(&run).and_then(|run| {
        let task = state.tasks.get(&run.task)?;
        Some(task.payload.budgets.calls.saturating_sub(run.used.calls))
    });
    left.unwrap_or(0)
}

fn used_up() -> Refusal {
    Refusal::denied("calls-used-up", "the run's budget of calls is used up")
        .next("end the run; a new task can carry a new budget")
}

async fn note(app: &App, actor: &Actor, body: CallsObserved) {
    let command = Recording::one(actor.clone(), body);
    if let Err(refusal) = app.ledger.submit(command).await {
        tracing::warn!(
            error.code = refusal.code,
            "how calls ended could not be recorded: {refusal}"
        );
    }
}

fn body_of<'a>(
    run: RunId,
    granted: impl Iterator<Item = &'a LeaseKind>,
    ended: &[Outcome],
) -> CallsObserved {
    let mut counts: BTreeMap<&LeaseKind, u64> = BTreeMap::new();
    for lease in granted {
        *counts.entry(lease).or_default() += 1;
    }
    let mut alike: BTreeMap<(&LeaseKind, u16), Vec<(u64, u64)>> = BTreeMap::new();
    for outcome in ended {
        let key = (&outcome.lease, outcome.status);
        alike.entry(key).or_default().push(outcome.bytes);
    }
    CallsObserved {
        run,
        granted: counts
            .into_iter()
            .map(|(lease, count)| CallsGranted {
                lease: lease.clone(),
                count,
            })
            .collect(),
        ended: alike
            .into_iter()
            .map(|((lease, status), bytes)| CallsEnded {
                lease: lease.clone(),
                status,
                bytes,
            })
            .collect(),
    }
}

fn actor_of(app: &App, run: RunId) -> Option<Actor> {
    let state = app.state();
    let run = state.runs.get(&run)?;
    Some(super::actor_of(run))
}
