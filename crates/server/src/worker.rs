//! The worker performs what [`portcullis_flow::work::plan`] says, and reports back as events.
//!
//! It keeps nothing that matters: a restart plans anew from the state and finds the same work.
//! Each piece of work runs at most once at a time; one that fails is tried again a little later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis_flow::Command as Recording;
use portcullis_flow::work::{Work, plan};
use portcullis_model::event::{
    ActivationCompleted, BreakerReset, JobFinished, JobOutcome, RequestWithdrawn, RunEnd, RunEnded,
};
use portcullis_model::statement::ApprovalSubject;
use portcullis_model::{Refusal, RequestId};
use tokio::task::JoinSet;

use crate::app::{App, control, now};

pub mod admission;
pub mod checks;
pub mod jobs;
pub mod landing;
pub mod queue;
pub mod rollout;
pub mod runs;
pub mod sync;
pub mod together;

/// How long the worker waits for news before it plans anyway: time-outs are work too.
const TICK: Duration = Duration::from_millis(200);
/// How long work that failed waits before it is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(1_000);
/// Most pieces of work at once: each may run a git process.
const PARALLEL_MAX: usize = 8;

/// Works until the ledger ends.
pub async fn run(app: Arc<App>) {
    let mut news = app.ledger.subscribe();
    let mut tasks: JoinSet<(Work, Result<(), Refusal>)> = JoinSet::new();
    let mut busy: BTreeSet<Work> = BTreeSet::new();
    let mut later: BTreeMap<Work, Instant> = BTreeMap::new();
    loop {
        later.retain(|_, until| *until > Instant::now());
        let state = app.state();
        let lost = app.heard.never(&state, now()).map(Work::EndRunLost);
        for work in lost.into_iter().chain(plan(&state, now())) {
            if busy.len() >= PARALLEL_MAX && !takes_away(&work) {
                continue;
            }
            if busy.contains(&work) || later.contains_key(&work) || app.settled.contains(&work) {
                continue;
            }
            busy.insert(work.clone());
            let app = Arc::clone(&app);
            tasks.spawn(async move {
                let result = perform(&app, &work).await;
                (work, result)
            });
        }
        tokio::select! {
            Some(done) = tasks.join_next(), if !tasks.is_empty() => {
                match done {
                    Ok((work, result)) => {
                        busy.remove(&work);
                        if let Err(refusal) = result {
                            report(&work, &refusal);
                            later.insert(work, Instant::now() + RETRY_AFTER);
                        } else {
                            // A look or a decision that changed nothing is not repeated at once.
                            later.insert(work, Instant::now() + TICK);
                        }
                    }
                    Err(error) => tracing::error!("a piece of work was cut off: {error}"),
                }
            }
            changed = news.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

/// Work that takes authority away, which waits for no other work: git on eight big changes must
/// not keep a rollout from going back or a run from being ended.
const fn takes_away(work: &Work) -> bool {
    match work {
        Work::EndRunDenials(_)
        | Work::EndRunLost(_)
        | Work::ReviewRun(_)
        | Work::AskToResume(_)
        | Work::HaltRollout(_)
        | Work::Withdraw(..)
        | Work::LoseJob(_)
        | Work::Look(_) => true,
        Work::Effect(_)
        | Work::Activate(_)
        | Work::ResetBreaker(_)
        | Work::ResumeRun(_)
        | Work::Check(..)
        | Work::RequestTests(..)
        | Work::CompleteTests(..)
        | Work::DecideLanding(..)
        | Work::Land(..)
        | Work::Prepare(..)
        | Work::TestPrepared(..)
        | Work::LandPrepared(..)
        | Work::LandTogether(_)
        | Work::TakeBack(_)
        | Work::RequestBuild(..)
        | Work::RecordArtifacts(_)
        | Work::Admit(_)
        | Work::StartRollout(_)
        | Work::StartRelease(_)
        | Work::SetTraffic(_) => false,
    }
}

fn report(work: &Work, refusal: &Refusal) {
    use portcullis_model::RefusalKind;
    match refusal.kind {
        // The state moved on between plan and act, which is normal.
        RefusalKind::Conflict => tracing::debug!(work = ?work, "overtaken: {}", refusal.message),
        RefusalKind::Denied | RefusalKind::NeedsApproval => {
            tracing::info!(work = ?work, error.code = refusal.code, "not done: {}", refusal.message);
        }
        RefusalKind::Malformed
        | RefusalKind::NotFound
        | RefusalKind::Limit
        | RefusalKind::Unavailable
        | RefusalKind::Internal => {
            tracing::warn!(work = ?work, error.code = refusal.code, "failed: {refusal}");
        }
    }
}

async fn perform(app: &Arc<App>, work: &Work) -> Result<(), Refusal> {
    match work {
        Work::EndRunDenials(run) => {
            record(
                app,
                RunEnded {
                    run: *run,
                    end: RunEnd::Denials,
                    envelope: None,
                },
            )
            .await
        }
        Work::EndRunLost(run) => {
            record(
                app,
                RunEnded {
                    run: *run,
                    end: RunEnd::Lost,
                    envelope: None,
                },
            )
            .await
        }
        Work::ReviewRun(run) => runs::review(app, *run).await,
        Work::AskToResume(run) => runs::ask(app, *run).await,
        Work::ResumeRun(request) => runs::resume(app, *request).await,
        Work::HaltRollout(id) => rollout::halt(app, *id).await,
        Work::Withdraw(request, code) => {
            record(
                app,
                RequestWithdrawn {
                    request: *request,
                    code: (*code).to_owned(),
                },
            )
            .await
        }
        Work::LoseJob(job) => {
            let body = JobFinished {
                job: *job,
                outcome: JobOutcome::Lost,
                attestation: None,
                report: None,
                outputs: Vec::new(),
                envelope: None,
            };
            record(app, body).await
        }
        Work::Effect(id) => landing::effect(app, *id).await,
        Work::Activate(request) => activate(app, *request).await,
        Work::ResetBreaker(request) => reset_breaker(app, *request).await,
        Work::Check(change, revision) => checks::run(app, *change, *revision).await,
        Work::RequestTests(change, revision) => jobs::request_tests(app, *change, *revision).await,
        Work::CompleteTests(change, revision) => {
            jobs::complete_tests(app, *change, *revision).await
        }
        Work::DecideLanding(change, revision) => landing::decide(app, *change, *revision).await,
        Work::Land(change, revision, request) => {
            landing::land(app, *change, *revision, Some(*request)).await
        }
        Work::Prepare(change, revision, onto, root) => {
            queue::prepare(app, *change, *revision, onto, root).await
        }
        Work::TestPrepared(entry, with) => queue::test(app, *entry, *with).await,
        Work::LandPrepared(change, revision, entry) => {
            landing::land_prepared(app, *change, *revision, *entry).await
        }
        Work::LandTogether(task) => together::land(app, *task).await,
        Work::TakeBack(landing) => together::take_back(app, *landing).await,
        Work::RequestBuild(repository, commit) => {
            jobs::request_build(app, repository, commit).await
        }
        Work::RecordArtifacts(job) => jobs::record_artifacts(app, *job).await,
        Work::Admit(request) => admission::admit(app, *request).await,
        Work::StartRollout(release) => rollout::start(app, *release).await,
        Work::StartRelease(id) => rollout::intend_start(app, *id).await,
        Work::SetTraffic(id) => rollout::intend_traffic(app, *id).await,
        Work::Look(id) => rollout::look(app, *id).await,
    }
}

/// Records one event by the server.
pub(crate) async fn record(
    app: &App,
    body: impl Into<portcullis_model::Body>,
) -> Result<(), Refusal> {
    app.ledger
        .submit(Recording::one(control(), body))
        .await
        .map(|_| ())
}

/// Brings a proposed record into force, if policy agrees now that it is approved.
async fn activate(app: &App, id: RequestId) -> Result<(), Refusal> {
    let state = app.state();
    let request = state
        .requests
        .get(&id)
        .cloned()
        .ok_or_else(|| Refusal::not_found("request", id))?;
    let activation = request
        .activation
        .clone()
        .ok_or_else(|| Refusal::internal("an activation without a record"))?;
    let approvals = crate::facts::approvals(&state, &request, now());
    let author = request
        .party
        .0
        .iter()
        .find_map(|member| member.human().cloned());
    for action in crate::intake::activation_actions(&state, &activation, approvals) {
        let mut circumstances = crate::facts::circumstances(&state, now())?;
        circumstances.key_class = request
            .approvals
            .iter()
            .map(|approval| approval.key_class)
            .max()
            .unwrap_or(circumstances.key_class);
        let actor = author
            .as_ref()
            .map_or(portcullis_policy::Actor::Unknown, |id| {
                crate::facts::human(&state, id)
            });
        let question = portcullis_policy::Request {
            actor,
            circumstances,
            action,
        };
        app.decide(&state, &question, &[]).require()?;
    }
    record(app, ActivationCompleted { request: id }).await
}

/// Resets a breaker, if policy agrees now that it is approved.
async fn reset_breaker(app: &App, id: RequestId) -> Result<(), Refusal> {
    let state = app.state();
    let request = state
        .requests
        .get(&id)
        .cloned()
        .ok_or_else(|| Refusal::not_found("request", id))?;
    let ApprovalSubject::BreakerReset { scope } = &request.subject else {
        return Err(Refusal::internal("not a reset"));
    };
    let author = request
        .approvals
        .first()
        .map(|approval| crate::facts::human(&state, &approval.human))
        .unwrap_or(portcullis_policy::Actor::Unknown);
    let action = portcullis_policy::Action::BreakerReset(portcullis_policy::action::BreakerReset {
        scope: scope.clone(),
        approvals: crate::facts::approvals(&state, &request, now()),
    });
    let mut circumstances = crate::facts::circumstances(&state, now())?;
    circumstances.key_class = request
        .approvals
        .iter()
        .map(|approval| approval.key_class)
        .max()
        .unwrap_or(circumstances.key_class);
    let question = portcullis_policy::Request {
        actor: author,
        circumstances,
        action,
    };
    app.decide(&state, &question, &[]).require()?;
    record(app, BreakerReset { request: id }).await?;
    app.release_halt(scope);
    Ok(())
}

/// Work that came to its end without an entry, such as a build that nobody configured.
#[derive(Default)]
pub struct Settled(Mutex<BTreeSet<Work>>);

impl Settled {
    /// Whether `work` needs no further look while this server runs.
    pub fn contains(&self, work: &Work) -> bool {
        self.0.lock().is_ok_and(|settled| settled.contains(work))
    }

    /// Marks `work` as needing no further look.
    pub fn insert(&self, work: Work) {
        if let Ok(mut settled) = self.0.lock() {
            settled.insert(work);
        }
    }
}
