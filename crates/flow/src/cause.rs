//! Causation is inherited: whatever an agent caused carries the agent and all its humans.

use portcullis_model::event::Body;
use portcullis_model::manifest::HostClass;
use portcullis_model::statement::ApprovalSubject;
use portcullis_model::{
    Actor, Cause, ChangeId, Containment, HostId, Mode, Principal, ReleaseId, RepositoryId,
    RequestId, RolloutId, RunId,
};

use crate::State;
use crate::effect::subject_of;

/// What an event is about, as far as it leads back to a cause.
enum Source {
    Nothing,
    Run(RunId),
    Change(ChangeId),
    Request(RequestId),
    Release(ReleaseId),
    Rollout(RolloutId),
}

fn source(state: &State, body: &Body) -> Source {
    match body {
        Body::RunEnded(body) => Source::Run(body.run),
        Body::RunCheckpointed(body) => Source::Run(body.run),
        Body::RunReviewed(body) => Source::Run(body.run),
        Body::RunResumed(body) => Source::Run(body.run),
        Body::CallObserved(body) => Source::Run(body.run),
        Body::CallsObserved(body) => Source::Run(body.run),
        Body::LeaseRefused(body) => Source::Run(body.run),
        Body::PromptSeen(body) => Source::Run(body.run),
        Body::TaintAdded(body) => Source::Run(body.run),
        Body::RequestDenied(body) => body.run.map_or(Source::Nothing, Source::Run),
        Body::ChangePushed(body) => body.run.map_or_else(
            || body.change.map_or(Source::Nothing, Source::Change),
            Source::Run,
        ),
        Body::ChecksCompleted(body) => Source::Change(body.change),
        Body::TestsCompleted(body) => Source::Change(body.change),
        Body::ChangeClosed(body) => Source::Change(body.change),
        Body::LandingPrepared(body) => Source::Change(body.change),
        Body::LandingTested(body) => Source::Change(body.change),
        Body::QueueHalted(body) => Source::Change(body.change),
        Body::JobRequested(body) => body.change.map_or(Source::Nothing, Source::Change),
        Body::JobClaimed(body) => job_source(state, body.job),
        Body::JobFinished(body) => job_source(state, body.job),
        Body::ArtifactBuilt(body) => job_source(state, body.job),
        Body::RequestOpened(body) => match &body.subject {
            ApprovalSubject::Change { change, .. } => Source::Change(*change),
            ApprovalSubject::Resume { run, .. } => Source::Run(*run),
            ApprovalSubject::Release { .. }
            | ApprovalSubject::Activation { .. }
            | ApprovalSubject::BreakerReset { .. }
            | ApprovalSubject::Unproven { .. } => Source::Nothing,
        },
        Body::ApprovalGiven(body) => Source::Request(body.statement.request),
        Body::RequestRejected(body) => Source::Request(body.request),
        Body::RequestWithdrawn(body) => Source::Request(body.request),
        Body::ActivationCompleted(body) => Source::Request(body.request),
        Body::EffectIntended(body) => effect_source(&body.effect),
        Body::EffectAttempted(body) => {
            subject_of(state, body.effect).map_or(Source::Nothing, effect_source)
        }
        Body::EffectConcluded(body) => {
            subject_of(state, body.effect).map_or(Source::Nothing, effect_source)
        }
        Body::ReleaseRevoked(body) => Source::Release(body.release),
        Body::RolloutStarted(body) => Source::Release(body.release),
        Body::RolloutStepped(body) => Source::Rollout(body.rollout),
        Body::RolloutEnded(body) => Source::Rollout(body.rollout),
        Body::GenesisCreated(_)
        | Body::ActivationProposed(_)
        | Body::PrincipalEnded(_)
        | Body::TaskAccepted(_)
        | Body::RunStarted(_)
        | Body::CommitsUnproven(_)
        | Body::QueueResumed(_)
        | Body::ReleaseAdmitted(_)
        | Body::EnvironmentReverted(_)
        | Body::BreakerTripped(_)
        | Body::BreakerReset(_)
        | Body::IncidentOpened(_)
        | Body::ServerStarted(_)
        | Body::LedgerRestored(_) => Source::Nothing,
    }
}

fn job_source(state: &State, job: portcullis_model::JobId) -> Source {
    state
        .jobs
        .get(&job)
        .and_then(|job| job.change)
        .map_or(Source::Nothing, Source::Change)
}

fn effect_source(effect: &portcullis_model::event::Effect) -> Source {
    use portcullis_model::event::Effect;
    match effect {
        Effect::Land { change, .. } | Effect::TakeBack { change, .. } => Source::Change(*change),
        Effect::StartRelease { release } | Effect::StopRelease { release } => {
            Source::Release(*release)
        }
        Effect::SetTraffic { rollout, .. } => Source::Rollout(*rollout),
    }
}

/// The cause of an event with this body by this actor.
pub fn of(state: &State, actor: &Actor, body: &Body) -> Cause {
    let mut cause = match source(state, body) {
        Source::Nothing => Cause::default(),
        Source::Run(run) => of_run(state, run),
        Source::Change(change) => of_change(state, change),
        Source::Request(request) => of_request(state, request),
        Source::Release(release) => of_release(state, release),
        Source::Rollout(rollout) => state
            .rollouts
            .get(&rollout)
            .map(|rollout| of_release(state, rollout.release))
            .unwrap_or_default(),
    };
    if let Body::RunStarted(body) = body {
        if let Some(task) = state.tasks.get(&body.task) {
            cause.humans.insert(task.payload.signer.clone());
        }
        cause.agents.insert(body.agent.clone());
        if let Some(record) = state.inventory.agents.get(&body.agent) {
            cause.humans.insert(record.manifest.owner.clone());
        }
    }
    if let Body::ReleaseAdmitted(body) = body {
        for change in &body.changes {
            merge(&mut cause, of_change(state, *change));
        }
    }
    cause.unknown |= matches!(body, Body::CommitsUnproven(_));
    if let Principal::Human(human) = &actor.principal {
        cause.humans.insert(human.clone());
    }
    cause
}

fn merge(into: &mut Cause, from: Cause) {
    into.humans.extend(from.humans);
    into.agents.extend(from.agents);
    into.unknown |= from.unknown;
}

fn of_run(state: &State, run: RunId) -> Cause {
    let mut cause = Cause {
        run: Some(run),
        ..Cause::default()
    };
    if let Some(run) = state.runs.get(&run) {
        cause.agents.insert(run.agent.clone());
        cause.humans.insert(run.signer.clone());
        if let Some(record) = state.inventory.agents.get(&run.agent) {
            cause.humans.insert(record.manifest.owner.clone());
        }
    } else {
        cause.unknown = true;
    }
    cause
}

fn of_change(state: &State, change: ChangeId) -> Cause {
    let mut cause = Cause {
        entry: Some(change.0),
        ..Cause::default()
    };
    match state.changes.get(&change) {
        Some(change) => {
            for member in &change.party.0 {
                match member {
                    Principal::Human(id) => {
                        cause.humans.insert(id.clone());
                    }
                    Principal::Agent(id, _) => {
                        cause.agents.insert(id.clone());
                    }
                    Principal::Service(_) | Principal::Host(_) => {}
                    Principal::Unknown => cause.unknown = true,
                }
            }
        }
        None => cause.unknown = true,
    }
    cause
}

fn of_request(state: &State, request: RequestId) -> Cause {
    match state.requests.get(&request).map(|request| &request.subject) {
        Some(ApprovalSubject::Change { change, .. }) => of_change(state, *change),
        Some(ApprovalSubject::Resume { run, .. }) => of_run(state, *run),
        _ => Cause {
            entry: Some(request.0),
            ..Cause::default()
        },
    }
}

fn of_release(state: &State, release: ReleaseId) -> Cause {
    let mut cause = Cause {
        entry: Some(release.0),
        ..Cause::default()
    };
    if let Some(release) = state.releases.get(&release) {
        for change in &release.changes {
            merge(&mut cause, of_change(state, *change));
        }
    }
    cause
}

fn repository_of<'a>(state: &'a State, body: &'a Body) -> Option<&'a RepositoryId> {
    match body {
        Body::ChangePushed(body) => Some(&body.repository),
        Body::CommitsUnproven(body) => Some(&body.repository),
        Body::QueueResumed(body) => Some(&body.repository),
        Body::JobRequested(body) => Some(&body.repository),
        _ => match source(state, body) {
            Source::Change(change) => state.changes.get(&change).map(|change| &change.repository),
            Source::Nothing
            | Source::Run(_)
            | Source::Request(_)
            | Source::Release(_)
            | Source::Rollout(_) => None,
        },
    }
}

/// Whether an event with this body is enforced: by its repository's mode, else yes.
pub fn mode_of(state: &State, body: &Body) -> Mode {
    repository_of(state, body)
        .and_then(|repository| state.inventory.repositories.get(repository))
        .map(|repository| repository.mode)
        .unwrap_or_default()
}

/// How much we control of the run that an event with this body is about.
pub fn containment_of(state: &State, body: &Body) -> Option<Containment> {
    match body {
        Body::RunStarted(body) => Some(containment_on(state, &body.host)),
        _ => match source(state, body) {
            Source::Run(run) => state.runs.get(&run).map(|run| run.containment),
            Source::Change(change) => state
                .changes
                .get(&change)
                .and_then(|change| change.latest().run)
                .and_then(|run| state.runs.get(&run))
                .map(|run| run.containment),
            Source::Nothing | Source::Request(_) | Source::Release(_) | Source::Rollout(_) => None,
        },
    }
}

/// What a run on this host is worth: a self-run host's sandbox is that host's claim.
pub fn containment_on(state: &State, host: &HostId) -> Containment {
    match state
        .inventory
        .hosts
        .get(host)
        .map(|host| host.manifest.class)
    {
        Some(HostClass::Managed) => Containment::Contained,
        Some(HostClass::SelfRun) => Containment::ContainedClaimed,
        None => Containment::Observed,
    }
}
