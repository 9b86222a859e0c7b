//! What the server has to do next, as a plan over the state. Pure: it chooses everything, the
//! server executes. A restart plans anew and finds the same work.

use portcullis_model::event::JobKind;
use portcullis_model::statement::ApprovalSubject;
use portcullis_model::{
    ChangeId, GitOid, JobId, LedgerIndex, ReleaseId, RepositoryId, RequestId, RolloutId, RunId,
    TaskId, Timestamp,
};

use crate::approval::{self, Request, Status};
use crate::change::{Change, Revision, SegmentProof};
use crate::job::{JOB_LIFE_MS, JobStatus};
use crate::rollout::RolloutStatus;
use crate::state::State;

/// How long after its deadline a run is waited for before it counts as lost, in milliseconds.
pub const RUN_GRACE_MS: u64 = 10_000;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// End a run that used up its denials.
    EndRunDenials(RunId),
    /// End a run that its host does not end.
    EndRunLost(RunId),
    /// Look at what a run did so far, for it goes on or stands still.
    ReviewRun(RunId),
    /// Ask people whether a run that stands still may go on.
    AskToResume(RunId),
    /// Take a rollout back: a breaker covers it.
    HaltRollout(RolloutId),
    /// Withdraw a request that was overtaken.
    Withdraw(RequestId, &'static str),
    /// Give up on a job whose service is gone.
    LoseJob(JobId),
    /// Bring an effect under way to its end: observe, then repeat if needed.
    Effect(LedgerIndex),
    /// Bring a proposed record into force.
    Activate(RequestId),
    /// Reset a breaker.
    ResetBreaker(RequestId),
    /// Let a run go on that stood still.
    ResumeRun(RequestId),
    /// Run the checks of a revision.
    Check(ChangeId, u64),
    /// Ask for the tests of a revision, or find that none are configured.
    RequestTests(ChangeId, u64),
    /// Compare the tests of a revision with its base's.
    CompleteTests(ChangeId, u64),
    /// Ask policy whether a revision may land.
    DecideLanding(ChangeId, u64),
    /// Land what was approved.
    Land(ChangeId, u64, RequestId),
    /// Make what would land of a revision on this commit, configured by that one.
    Prepare(ChangeId, u64, GitOid, GitOid),
    /// Run checks and tests on what an entry prepared; the tests on what another prepared, which
    /// may be the same.
    TestPrepared(LedgerIndex, LedgerIndex),
    /// Land what an entry prepared of a revision.
    LandPrepared(ChangeId, u64, LedgerIndex),
    /// Land the changes of a task that land all or not at all.
    LandTogether(TaskId),
    /// Take back the landing of this intent, since another of its task failed.
    TakeBack(LedgerIndex),
    /// Ask for the build of a landed commit, if one is configured.
    RequestBuild(RepositoryId, GitOid),
    /// Record what a build made.
    RecordArtifacts(JobId),
    /// Admit what was approved.
    Admit(RequestId),
    /// Begin to move traffic to a release.
    StartRollout(ReleaseId),
    /// Start a release's process.
    StartRelease(RolloutId),
    /// Give the proxy the rollout's weight.
    SetTraffic(RolloutId),
    /// Look at a rollout's evidence.
    Look(RolloutId),
}

/// Everything to do now, what takes authority away first.
pub fn plan(state: &State, now: Timestamp) -> Vec<Work> {
    let mut work = Vec::new();
    plan_runs(state, now, &mut work);
    plan_rollouts(state, &mut work);
    plan_requests(state, now, &mut work);
    plan_jobs(state, now, &mut work);
    work.extend(
        state
            .effects
            .values()
            .filter(|effect| crate::together::in_turn(state, effect))
            .map(|effect| Work::Effect(effect.id)),
    );
    for change in state.changes.open() {
        plan_change(state, change, now, &mut work);
    }
    crate::queue::plan(state, now, &mut work);
    crate::together::plan(state, now, &mut work);
    plan_builds(state, &mut work);
    for release in state.releases.open() {
        let free = state
            .environments
            .get(&release.environment)
            .is_some_and(|running| running.rollout.is_none());
        // Another release may have overtaken it; then it never starts.
        let follows = || crate::release::coverage(state, release.artifact, &release.environment);
        if free && follows().is_ok() {
            work.push(Work::StartRollout(release.id));
        }
    }
    work.sort();
    work
}

fn plan_runs(state: &State, now: Timestamp, work: &mut Vec<Work>) {
    for run in state.runs.open() {
        let budget = state
            .tasks
            .get(&run.task)
            .map_or(0, |task| task.payload.budgets.denials);
        if run.used.denials >= budget {
            work.push(Work::EndRunDenials(run.id));
        } else if now >= run.deadline.plus_ms(RUN_GRACE_MS) {
            work.push(Work::EndRunLost(run.id));
        } else if let Some(stop) = &run.frozen {
            if !crate::review::asked(state, run.id, stop.entry) {
                work.push(Work::AskToResume(run.id));
            }
        } else if !crate::review::due(state, run, now).is_empty() {
            work.push(Work::ReviewRun(run.id));
        }
    }
}

/// Whether a request is about a stop that is over.
fn moved_on(state: &State, request: &Request) -> bool {
    let ApprovalSubject::Resume { run, frozen, .. } = &request.subject else {
        return false;
    };
    state.runs.get(run).is_none_or(|run| {
        run.end.is_some() || run.frozen.as_ref().map(|stop| stop.entry) != Some(*frozen)
    })
}

fn plan_rollouts(state: &State, work: &mut Vec<Work>) {
    for rollout in state.rollouts.open() {
        let Some(release) = state.releases.get(&rollout.release) else {
            continue;
        };
        let repository = state
            .inventory
            .environments
            .get(&rollout.environment)
            .map(|record| &record.repository);
        let halted =
            crate::breaker::tripped_for(state, None, repository, Some(&rollout.environment));
        let agents_halted = release.changes.iter().any(|change| {
            state.changes.get(change).is_some_and(|change| {
                change.agents().into_iter().any(|agent| {
                    crate::breaker::tripped_for(state, Some(agent), None, None).is_some()
                })
            })
        });
        let busy = state.effects.values().any(|effect| {
            use portcullis_model::event::Effect;
            match &effect.effect {
                Effect::StartRelease { release } => *release == rollout.release,
                Effect::SetTraffic { rollout: id, .. } => *id == rollout.id,
                Effect::StopRelease { .. } | Effect::Land { .. } | Effect::TakeBack { .. } => false,
            }
        });
        if release.agent_work && (halted.is_some() || agents_halted) {
            work.push(Work::HaltRollout(rollout.id));
        } else if !release.started && !release.start_failed {
            if !busy {
                work.push(Work::StartRelease(rollout.id));
            }
        } else if rollout.weight > 0 && !rollout.applied {
            if !busy {
                work.push(Work::SetTraffic(rollout.id));
            }
        } else if rollout.status == RolloutStatus::Running {
            work.push(Work::Look(rollout.id));
        }
    }
}

fn plan_requests(state: &State, now: Timestamp, work: &mut Vec<Work>) {
    for request in state.requests.open() {
        if matches!(request.subject, ApprovalSubject::Unproven { .. })
            && request.satisfied_at.is_some()
        {
            continue;
        }
        if moved_on(state, request) {
            work.push(Work::Withdraw(request.id, "run-moved-on"));
        } else if now >= request.expires {
            work.push(Work::Withdraw(request.id, "expired"));
        } else if approval::satisfied(state, request, now) {
            match &request.subject {
                ApprovalSubject::Activation { .. } => work.push(Work::Activate(request.id)),
                ApprovalSubject::BreakerReset { .. } => work.push(Work::ResetBreaker(request.id)),
                ApprovalSubject::Release { .. } => work.push(Work::Admit(request.id)),
                ApprovalSubject::Resume { .. } => work.push(Work::ResumeRun(request.id)),
                ApprovalSubject::Change { .. } | ApprovalSubject::Unproven { .. } => {}
            }
        }
    }
}

fn plan_jobs(state: &State, now: Timestamp, work: &mut Vec<Work>) {
    for job in state.jobs.open() {
        match &job.status {
            JobStatus::Claimed { since, .. } if now >= since.plus_ms(JOB_LIFE_MS) => {
                work.push(Work::LoseJob(job.id));
            }
            JobStatus::Finished(_) if job.kind == JobKind::Build => {
                // Not over: an artifact of it is not recorded yet.
                work.push(Work::RecordArtifacts(job.id));
            }
            JobStatus::Requested | JobStatus::Claimed { .. } | JobStatus::Finished(_) => {}
        }
    }
}

fn plan_change(state: &State, change: &Change, now: Timestamp, work: &mut Vec<Work>) {
    let revision = change.latest();
    if revision.checks.is_none() {
        work.push(Work::Check(change.id, revision.number));
    }
    if revision.tests.is_none() {
        match test_jobs(state, change, revision) {
            None => work.push(Work::RequestTests(change.id, revision.number)),
            Some(TestJobs {
                all_finished: true, ..
            }) => {
                work.push(Work::CompleteTests(change.id, revision.number));
            }
            Some(_) => {}
        }
    }
    if revision.checks.is_none() || revision.tests.is_none() {
        return;
    }
    let branch = state
        .branches
        .get(&(change.repository.clone(), change.branch.clone()));
    let at_tip = branch.is_some_and(|branch| branch.tip == revision.pushed.base);
    let landing = branch.is_some_and(|branch| branch.landing.is_some())
        || state
            .halted_queues
            .contains_key(&(change.repository.clone(), change.branch.clone()));
    match revision.request.and_then(|id| state.requests.get(&id)) {
        None if at_tip && !landing && !revision.landing_failed => {
            work.push(Work::DecideLanding(change.id, revision.number));
        }
        // People approve again what could not land, once they have seen that it did not.
        Some(request) if at_tip && !landing && landing_failed(request) => {
            work.push(Work::DecideLanding(change.id, revision.number));
        }
        // Approvals that carry go on in the queue; whoever has not approved yet may let it carry.
        Some(request)
            if request.status == Status::Open && !at_tip && crate::effect::is_exact(request) =>
        {
            work.push(Work::Withdraw(request.id, "base-moved"));
        }
        Some(request)
            if at_tip
                && !landing
                && may_land(state, request, now)
                && crate::together::task_of(state, change).is_none() =>
        {
            work.push(Work::Land(change.id, revision.number, request.id));
        }
        _ => {}
    }
}

fn landing_failed(request: &Request) -> bool {
    matches!(&request.status, Status::Withdrawn { code } if code == crate::effect::LANDING_FAILED)
}

fn may_land(state: &State, request: &Request, now: Timestamp) -> bool {
    approval::satisfied(state, request, now)
}

/// The jobs that tell the tests of a revision and of its base.
pub struct TestJobs {
    /// On the revision.
    pub head: JobId,
    /// On its base.
    pub base: JobId,
    /// Whether both are done.
    pub all_finished: bool,
}

/// The newest test jobs of a revision, if they were asked for.
pub fn test_jobs(state: &State, change: &Change, revision: &Revision) -> Option<TestJobs> {
    let newest = |commit: &GitOid, own: bool| {
        state.jobs.values().rfind(|job| {
            job.kind == JobKind::Test
                && job.repository == change.repository
                && job.commit == *commit
                && job.configured_by == revision.pushed.base
                && (!own || job.change == Some(change.id))
        })
    };
    let head = newest(&revision.pushed.head, true)?;
    let base = newest(&revision.pushed.base, false)?;
    Some(TestJobs {
        head: head.id,
        base: base.id,
        all_finished: head.finished().is_some() && base.finished().is_some(),
    })
}

fn plan_builds(state: &State, work: &mut Vec<Work>) {
    for ((repository, name), branch) in &state.branches {
        let default = state
            .inventory
            .repositories
            .get(repository)
            .is_some_and(|record| record.default_branch == *name);
        let landed = branch
            .segments
            .last()
            .is_some_and(|segment| matches!(segment.proof, SegmentProof::Landed(_)));
        let of = (repository.clone(), branch.tip.clone());
        if default && landed && !state.builds.contains(&of) {
            work.push(Work::RequestBuild(of.0, of.1));
        }
    }
}
