//! Jobs: commands from the protected base, run under a service's identity; and what they make.

use std::sync::Arc;

use imbl::Vector;
use portcullis_model::event::{
    ArtifactBuilt, JobClaimed, JobFinished, JobKind, JobOutcome, JobRequested,
};
use portcullis_model::manifest::ServiceRole;
use portcullis_model::statement::{Command, Output};
use portcullis_model::{
    ArtifactId, ChangeId, Digest, Event, GitOid, JobId, Principal, Refusal, RepositoryId,
    ServiceId, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::entities::Ends;
use crate::inventory::mismatch;
use crate::state::{State, edit_in, find};

/// How long a claimed job may take before its service counts as lost, in milliseconds (1 hour).
pub const JOB_LIFE_MS: u64 = 3_600_000;

/// A job.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// In which repository.
    pub repository: RepositoryId,
    /// On which commit.
    pub commit: GitOid,
    /// The commit that its configuration comes from.
    pub configured_by: GitOid,
    /// Digest of its configuration.
    pub configuration: Digest,
    /// The change it is for, if for one.
    pub change: Option<ChangeId>,
    /// Where it stands.
    pub status: JobStatus,
    /// Which of its outputs are recorded as artifacts.
    pub recorded: Vector<Output>,
}

impl Ends for Job {
    /// A build is not over before all that it made is recorded.
    fn is_over(&self) -> bool {
        self.finished().is_some_and(|done| {
            self.kind != JobKind::Build
                || done.outputs.iter().all(|made| self.recorded.contains(made))
        })
    }
}

/// Where a job stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobStatus {
    /// It waits for a service.
    Requested,
    /// A service has it.
    Claimed {
        /// Who.
        service: ServiceId,
        /// Since when.
        since: Timestamp,
    },
    /// It is done.
    Finished(JobFinished),
}

/// What a build made.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Its id.
    pub id: ArtifactId,
    /// The job that made it.
    pub job: JobId,
    /// From where.
    pub repository: RepositoryId,
    /// From which commit.
    pub commit: GitOid,
    /// The file.
    pub output: Output,
    /// Digest of its provenance envelope.
    pub provenance: Digest,
}

impl Job {
    /// The role that a service needs for it.
    pub const fn role(&self) -> ServiceRole {
        match self.kind {
            JobKind::Test => ServiceRole::Test,
            JobKind::Build => ServiceRole::Build,
        }
    }

    /// How it ended, if it did.
    pub const fn finished(&self) -> Option<&JobFinished> {
        match &self.status {
            JobStatus::Finished(body) => Some(body),
            JobStatus::Requested | JobStatus::Claimed { .. } => None,
        }
    }
}

/// A service is asked to run a job.
pub(crate) fn requested(
    state: &mut State,
    event: &Event,
    body: &JobRequested,
) -> Result<(), Refusal> {
    state.require_control(event)?;
    state.inventory.repository(&body.repository)?;
    if let Some(change) = &body.change {
        find("change", &state.changes, change)?;
    }
    if body.kind == JobKind::Build {
        let landed = state.branches.iter().any(|((repository, _), branch)| {
            *repository == body.repository && branch.stood_at(&body.commit)
        });
        if !landed || body.configured_by != body.commit {
            return Err(Refusal::denied(
                "not-landed",
                "only landed commits are built, by their own configuration",
            )
            .received(body.commit.as_str()));
        }
    }
    let job = Job {
        id: JobId(event.index),
        kind: body.kind,
        repository: body.repository.clone(),
        commit: body.commit.clone(),
        configured_by: body.configured_by.clone(),
        configuration: body.configuration,
        change: body.change,
        status: JobStatus::Requested,
        recorded: Vector::new(),
    };
    if job.kind == JobKind::Build {
        let built = (job.repository.clone(), job.commit.clone());
        state.builds.insert(built);
    }
    state.jobs.insert(job.id, Arc::new(job));
    Ok(())
}

fn require_role(state: &State, event: &Event, job: &Job) -> Result<ServiceId, Refusal> {
    let Principal::Service(id) = &event.actor.principal else {
        return Err(Refusal::denied("not-a-service", "only a service runs jobs")
            .received(&event.actor.principal.to_string()));
    };
    let service = state.inventory.service(id, event.time)?;
    if service.roles.contains(&job.role()) {
        return Ok(id.clone());
    }
    Err(
        Refusal::denied("role-missing", format!("service {id} may not run this job"))
            .expected(&format!("the role {:?}", job.role()))
            .received(&format!("{:?}", service.roles)),
    )
}

/// A service takes a job.
pub(crate) fn claimed(state: &mut State, event: &Event, body: &JobClaimed) -> Result<(), Refusal> {
    let job = Arc::clone(find("job", &state.jobs, &body.job)?);
    let service = require_role(state, event, &job)?;
    match state.take_command(event, &body.envelope)? {
        Command::ClaimJob { job } if job.is_none_or(|job| job == body.job) => {}
        other => return Err(mismatch("claim-job", &other)),
    }
    if service != body.service || !matches!(job.status, JobStatus::Requested) {
        return Err(Refusal::conflict(
            "job-taken",
            format!("{} is not free", body.job),
        ));
    }
    let since = event.time;
    edit_in("job", &mut state.jobs, &body.job, |job| {
        job.status = JobStatus::Claimed { service, since };
    })
}

/// A job is done, by the word of the service that has it; or lost, by the server's.
pub(crate) fn finished(
    state: &mut State,
    event: &Event,
    body: &JobFinished,
) -> Result<(), Refusal> {
    let job = Arc::clone(find("job", &state.jobs, &body.job)?);
    let JobStatus::Claimed { service, .. } = &job.status else {
        return Err(Refusal::conflict(
            "job-not-claimed",
            format!("{} is not being worked on", body.job),
        ));
    };
    match (&body.envelope, body.outcome) {
        (Some(envelope), JobOutcome::Succeeded | JobOutcome::Failed) => {
            let by = require_role(state, event, &job)?;
            if by != *service {
                return Err(Refusal::denied("job-taken", "another service has this job")
                    .expected(service.as_str())
                    .received(by.as_str()));
            }
            match state.take_command(event, envelope)? {
                Command::FinishJob {
                    job,
                    succeeded,
                    attestation,
                    report,
                    outputs,
                } if job == body.job
                    && succeeded == (body.outcome == JobOutcome::Succeeded)
                    && Some(attestation) == body.attestation
                    && Some(report) == body.report
                    && outputs == body.outputs => {}
                other => return Err(mismatch("finish-job with this result", &other)),
            }
        }
        (None, JobOutcome::Lost) => state.require_control(event)?,
        _ => {
            return Err(Refusal::denied(
                "unsigned-result",
                "a job's result takes its service's signature",
            ));
        }
    }
    let done = body.clone();
    edit_in("job", &mut state.jobs, &body.job, |job| {
        job.status = JobStatus::Finished(done)
    })
}

/// An artifact was made and is attested.
pub(crate) fn artifact_built(
    state: &mut State,
    event: &Event,
    body: &ArtifactBuilt,
) -> Result<(), Refusal> {
    state.require_control(event)?;
    let job = find("job", &state.jobs, &body.job)?;
    let done = job.finished().filter(|done| {
        job.kind == JobKind::Build
            && done.outcome == JobOutcome::Succeeded
            && done.outputs.contains(&body.output)
            && done.attestation == Some(body.provenance)
            && job.repository == body.repository
            && job.commit == body.commit
    });
    if done.is_none() {
        return Err(
            Refusal::denied("not-built", "no finished build made this artifact")
                .received(&body.output.digest.to_string()),
        );
    }
    if job.recorded.contains(&body.output) {
        return Err(Refusal::conflict(
            "artifact-known",
            "this artifact is recorded already",
        ));
    }
    let artifact = Artifact {
        id: ArtifactId(event.index),
        job: body.job,
        repository: body.repository.clone(),
        commit: body.commit.clone(),
        output: body.output.clone(),
        provenance: body.provenance,
    };
    state.artifacts.insert(artifact.id, Arc::new(artifact));
    edit_in("job", &mut state.jobs, &body.job, |job| {
        job.recorded.push_back(body.output.clone());
    })
}
