//! Jobs from the server's side: what is asked, what a service gets to know, what is believed of
//! what it brings.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_checks::testreport::{TestReport, compare};
use portcullis_evidence::dsse::{self, PAYLOAD_IN_TOTO, UnverifiedEnvelope};
use portcullis_evidence::intoto::Statement;
use portcullis_evidence::slsa::Provenance;
use portcullis_evidence::test_result::TestResult;
use portcullis_flow::State;
use portcullis_flow::job::{Job, JobStatus};
use portcullis_flow::work::{Work, test_jobs};
use portcullis_gateway::http::Destination;
use portcullis_model::document::from_toml;
use portcullis_model::event::{
    ArtifactBuilt, JobFinished, JobKind, JobOutcome, JobRequested, TestCounts, TestVerdict,
    TestsCompleted,
};
use portcullis_model::time::parse_duration_ms;
use portcullis_model::{
    ChangeId, Digest, GitOid, JobId, Principal, Refusal, RepositoryId, ServiceId, canonical,
};
use portcullis_policy::Request;
use portcullis_policy::action::{Action, JobPurpose, JobRun};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::app::{App, now, text};
use crate::facts;
use crate::intake::Verified;

/// Where a repository configures its jobs. Tests come from the protected base, builds from the
/// landed commit; never from a revision.
pub const CONFIGURATION: &str = ".portcullis/jobs.toml";
/// Largest configuration file, in bytes.
const CONFIGURATION_MAX_BYTES: u64 = 64 * 1024;
/// Most hosts that a job declares: more than registries and mirrors that any build needs.
pub const HOSTS_MAX: usize = 64;
/// The build type of our provenance.
pub const BUILD_TYPE: &str = "urn:portcullis:build:sandbox:v1";

/// The jobs of a repository.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobsConfiguration {
    /// How revisions are tested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<TestConfiguration>,
    /// How landed commits are built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildConfiguration>,
}

/// How revisions are tested.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestConfiguration {
    /// The command and its arguments, run in the commit's tree.
    pub command: Vec<String>,
    /// The file that the runner writes, relative to the tree; standard output if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
    /// What the report is: `junit`, `libtest`, `nextest`, `tap`, `go-json` or `pytest`.
    pub format: portcullis_checks::testreport::Format,
    /// The longest it may take, such as `10m`.
    #[serde(default = "default_limit")]
    pub time_limit: String,
    /// Hosts that it may reach, as `name:port`; none by default. Checked by [`check_hosts`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

/// How landed commits are built.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildConfiguration {
    /// The command and its arguments, run in the commit's tree.
    pub command: Vec<String>,
    /// The files that it makes, relative to the tree; just these are kept.
    pub outputs: Vec<String>,
    /// The longest it may take, such as `10m`.
    #[serde(default = "default_limit")]
    pub time_limit: String,
    /// Hosts that it may reach, as `name:port`; none by default. Checked by [`check_hosts`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

fn default_limit() -> String {
    "10m".to_owned()
}

impl JobsConfiguration {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// Not TOML, unknown fields, an empty command, an output outside the tree, a host that isn't
    /// `name:port`.
    pub fn read(source: &str) -> Result<Self, Refusal> {
        let jobs: Self = from_toml("jobs configuration", source)?;
        let commands = [
            jobs.test
                .as_ref()
                .map(|test| (&test.command, &test.time_limit)),
            jobs.build
                .as_ref()
                .map(|build| (&build.command, &build.time_limit)),
        ];
        for (command, limit) in commands.into_iter().flatten() {
            parse_duration_ms(limit)?;
            if command.is_empty() {
                return Err(Refusal::malformed("jobs configuration").expected("a command"));
            }
        }
        let hosts = [
            jobs.test.as_ref().map(|test| &test.hosts),
            jobs.build.as_ref().map(|build| &build.hosts),
        ];
        hosts
            .into_iter()
            .flatten()
            .try_for_each(|hosts| check_hosts(hosts))?;
        let reports = jobs.test.iter().filter_map(|test| test.report.as_ref());
        let outputs = jobs.build.iter().flat_map(|build| &build.outputs);
        for path in reports.chain(outputs) {
            let inside = !path.is_empty()
                && !path.starts_with('/')
                && path
                    .split('/')
                    .all(|part| !part.is_empty() && part != ".." && part != ".");
            if !inside {
                return Err(Refusal::malformed("jobs configuration")
                    .expected("paths inside the tree, such as target/app")
                    .received(path));
            }
        }
        Ok(jobs)
    }
}

/// Whether a job's hosts are exact: names and ports, no patterns, each once, in its one spelling.
///
/// # Errors
/// `malformed-host`; `too-many-hosts` past [`HOSTS_MAX`].
pub fn check_hosts(hosts: &[String]) -> Result<(), Refusal> {
    if hosts.len() > HOSTS_MAX {
        return Err(
            Refusal::limit("too-many-hosts", "the job declares too many hosts")
                .expected(&format!("at most {HOSTS_MAX}"))
                .received(&hosts.len().to_string()),
        );
    }
    let mut seen = BTreeSet::new();
    for host in hosts {
        let exact = host
            .parse::<Destination>()
            .is_ok_and(|known| known.to_string() == *host);
        if !exact || !seen.insert(host) {
            return Err(Refusal::malformed("host")
                .expected("a lowercase name and a port, such as crates.io:443, each once")
                .received(host)
                .next("correct `hosts` in .portcullis/jobs.toml on the protected branch"));
        }
    }
    Ok(())
}

pub(super) async fn configuration_at(
    app: &App,
    state: &State,
    repository: &RepositoryId,
    commit: &GitOid,
) -> Result<Option<(JobsConfiguration, Digest)>, Refusal> {
    let mirror = app.mirrors.get(state, repository).await?;
    let file = mirror
        .objects()
        .read_file(commit, CONFIGURATION, CONFIGURATION_MAX_BYTES)
        .await?;
    match file {
        None => Ok(None),
        Some(bytes) => {
            let jobs = JobsConfiguration::read(&text(&bytes)?)?;
            Ok(Some((jobs, app.ledger.blobs().put(&bytes)?)))
        }
    }
}

/// Asks for the tests of a revision and of its base, or records that the base configures none.
///
/// # Errors
/// The base can't be read.
pub async fn request_tests(app: &App, id: ChangeId, number: u64) -> Result<(), Refusal> {
    let state = app.state();
    let change = state
        .changes
        .get(&id)
        .ok_or_else(|| Refusal::not_found("change", id))?;
    let revision = change.latest();
    let pushed = &revision.pushed;
    let found = configuration_at(app, &state, &change.repository, &pushed.base).await?;
    let Some((JobsConfiguration { test: Some(_), .. }, configuration)) = found else {
        let body = TestsCompleted {
            change: id,
            revision: number,
            verdict: TestVerdict::NotConfigured,
            head: None,
            base: None,
            counts: TestCounts::default(),
            report: app.ledger.blobs().put(b"{}")?,
        };
        return super::record(app, body).await;
    };
    let job = |commit: &GitOid, change: Option<ChangeId>| JobRequested {
        kind: JobKind::Test,
        repository: pushed.repository.clone(),
        commit: commit.clone(),
        configured_by: pushed.base.clone(),
        configuration,
        change,
    };
    if !knows_test(&state, &pushed.repository, &pushed.base, &pushed.base) {
        super::record(app, job(&pushed.base, None)).await?;
    }
    super::record(app, job(&pushed.head, Some(id))).await
}

/// Whether a commit's tests were asked for, by this configuration, and not lost.
pub(super) fn knows_test(
    state: &State,
    repository: &RepositoryId,
    commit: &GitOid,
    configured_by: &GitOid,
) -> bool {
    state.jobs.values().any(|known| {
        known.kind == JobKind::Test
            && known.repository == *repository
            && known.commit == *commit
            && known.configured_by == *configured_by
            && known
                .finished()
                .is_none_or(|done| done.outcome != JobOutcome::Lost)
    })
}

/// Compares what ran on a revision with what ran on its base.
///
/// # Errors
/// A report is missing.
pub async fn complete_tests(app: &App, id: ChangeId, number: u64) -> Result<(), Refusal> {
    let state = app.state();
    let change = state
        .changes
        .get(&id)
        .ok_or_else(|| Refusal::not_found("change", id))?;
    let jobs = test_jobs(&state, change, change.latest())
        .ok_or_else(|| Refusal::conflict("not-requested", "the tests were not asked for"))?;
    let compared = compare_jobs(app, &state, jobs.head, jobs.base)?;
    let body = TestsCompleted {
        change: id,
        revision: number,
        verdict: compared.verdict,
        head: Some(jobs.head),
        base: Some(jobs.base),
        counts: compared.counts,
        report: compared.report,
    };
    super::record(app, body).await
}

/// What two test jobs say together.
pub(super) struct Compared {
    pub(super) verdict: TestVerdict,
    pub(super) counts: TestCounts,
    /// Digest of names and outcomes.
    pub(super) report: Digest,
}

/// Compares what ran on a commit with what ran on its base.
pub(super) fn compare_jobs(
    app: &App,
    state: &State,
    head_job: JobId,
    base_job: JobId,
) -> Result<Compared, Refusal> {
    let (head, base) = (
        report_of(app, state, head_job)?,
        report_of(app, state, base_job)?,
    );
    let empty = TestReport::default();
    let base_report = base.as_ref().unwrap_or(&empty);
    let comparison = compare(base_report, head.as_ref().unwrap_or(&empty));
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    let missing = comparison.missing.len() + comparison.newly_skipped.len();
    let succeeded = state
        .jobs
        .get(&head_job)
        .and_then(|job| job.finished())
        .is_some_and(|done| done.outcome == JobOutcome::Succeeded);
    // A base whose tests can't be told gives nothing to compare with, so nothing passes.
    let verdict = match (&head, &base) {
        (Some(_), Some(_)) if !succeeded || !comparison.failed.is_empty() => TestVerdict::Failed,
        (Some(_), Some(_)) if missing > 0 => TestVerdict::Missing,
        (Some(_), Some(_)) => TestVerdict::Passed,
        (None, _) => TestVerdict::Failed,
        (Some(_), None) => TestVerdict::Missing,
    };
    let report = canonical::to_vec(&json!({
        "verdict": verdict,
        "missing": comparison.missing,
        "newly_skipped": comparison.newly_skipped,
        "failed": comparison.failed,
        "head": state.jobs.get(&head_job).and_then(|job| job.finished()).and_then(|done| done.attestation),
        "base": state.jobs.get(&base_job).and_then(|job| job.finished()).and_then(|done| done.attestation),
    }))?;
    let passed = head.as_ref().map_or(0, |report| {
        report.count(portcullis_checks::testreport::Outcome::Passed)
    });
    Ok(Compared {
        verdict,
        counts: TestCounts {
            passed: count(passed),
            failed: count(comparison.failed.len()),
            missing: count(missing),
        },
        report: app.ledger.blobs().put(&report)?,
    })
}

fn report_of(app: &App, state: &State, job: JobId) -> Result<Option<TestReport>, Refusal> {
    let done = state.jobs.get(&job).and_then(|job| job.finished());
    let Some(report) = done.and_then(|done| done.report) else {
        return Ok(None);
    };
    let bytes = app.ledger.blobs().get(&report)?;
    // What a job wrote is the job's word: what can't be read counts as nothing.
    Ok(canonical::from_slice("test report", &bytes).ok())
}

/// Asks for the build of a landed commit, if it configures one.
///
/// # Errors
/// The commit can't be read.
pub async fn request_build(
    app: &App,
    repository: &RepositoryId,
    commit: &GitOid,
) -> Result<(), Refusal> {
    let state = app.state();
    let found = configuration_at(app, &state, repository, commit).await?;
    let Some((JobsConfiguration { build: Some(_), .. }, configuration)) = found else {
        app.settled
            .insert(Work::RequestBuild(repository.clone(), commit.clone()));
        return Ok(());
    };
    let body = JobRequested {
        kind: JobKind::Build,
        repository: repository.clone(),
        commit: commit.clone(),
        configured_by: commit.clone(),
        configuration,
        change: None,
    };
    super::record(app, body).await
}

/// Asks policy whether a service may run a job.
///
/// # Errors
/// It may not.
pub fn may_run(app: &App, state: &State, job: &Job, service: &ServiceId) -> Result<(), Refusal> {
    // A declaration that can't be read is none: the job is not given away.
    job_configuration(app, job)?;
    let by_agent = job
        .change
        .and_then(|change| state.changes.get(&change))
        .is_some_and(|change| change.by_agent());
    let action = Action::JobRun(JobRun {
        repository: job.repository.clone(),
        job: job.id.to_string(),
        purpose: match job.kind {
            JobKind::Test => JobPurpose::Test,
            JobKind::Build => JobPurpose::Build,
        },
        from_protected_base: true,
        commit_landed: job.kind == JobKind::Build,
        contains_agent_work: by_agent,
        // Empty by construction: the order repeats the declaration that `configuration` names by
        // digest, and the launcher lends the sandbox exactly the hosts in it. The fact is there
        // for executors that bring a list of their own; ours has none.
        undeclared_hosts: BTreeSet::new(),
    });
    let mut circumstances = facts::circumstances(state, now())?;
    circumstances.breaker = by_agent
        && app
            .halted_for(state, None, &[&job.repository], None)
            .is_some();
    let question = Request {
        actor: facts::service(state, service, now()),
        circumstances,
        action,
    };
    app.decide(state, &question, &[]).require()
}

fn job_configuration(app: &App, job: &Job) -> Result<JobsConfiguration, Refusal> {
    JobsConfiguration::read(&text(&app.ledger.blobs().get(&job.configuration)?)?)
}

/// What the service that took a job gets to know.
///
/// # Errors
/// The configuration is missing.
pub fn order(app: &App, state: &State, job: &Job) -> Result<Value, Refusal> {
    let branch = state
        .branches
        .iter()
        .find(|((repository, _), branch)| {
            *repository == job.repository && branch.stood_at(&job.commit)
        })
        .map(|((_, name), _)| name.clone());
    Ok(json!({
        "job": job.id,
        "kind": job.kind,
        "repository": job.repository,
        "branch": branch,
        "commit": job.commit,
        "configured_by": job.configured_by,
        "configuration": { "digest": job.configuration, "jobs": job_configuration(app, job)? },
        "trust_domain": state.genesis()?.trust_domain,
        "source": format!("/v1/jobs/{}/source", job.id),
        "changes": changes_in(state, &job.repository, &job.commit),
    }))
}

/// Every change since the releases that serve, as provenance names them.
pub fn changes_in(state: &State, repository: &RepositoryId, commit: &GitOid) -> Vec<Value> {
    portcullis_flow::release::changes_since_admitted(state, repository, commit)
        .into_iter()
        .filter_map(|id| state.changes.get(&id))
        .map(|change| {
            let revision = change.latest();
            let run = revision.run.and_then(|run| state.runs.get(&run));
            let approvals: Vec<_> = revision
                .request
                .and_then(|request| state.requests.get(&request))
                .map(|request| request.approvals.iter().map(|given| given.entry).collect())
                .unwrap_or_default();
            json!({
                "change": change.id,
                "head": revision.pushed.head,
                "tree": revision.pushed.tree,
                "manifest": revision.pushed.manifest,
                "task": run.map(|run| run.task),
                "agent": run.map(|run| run.agent.clone()),
                "run": run.map(|run| run.id),
                "request": revision.request,
                "approval_entries": approvals,
                "checks": revision.checks.as_ref().map(|checks| checks.report),
                "tests": revision.tests.as_ref().map(|tests| tests.report),
            })
        })
        .collect()
}

/// Checks a service's result before it is recorded: its attestation is signed by the service, about
/// this job, and says what the command says; what it names is here.
///
/// # Errors
/// What does not fit.
pub fn verify_result(app: &App, verified: &Verified, body: &JobFinished) -> Result<(), Refusal> {
    let state = app.state();
    let Principal::Service(service) = &verified.actor.principal else {
        return Err(Refusal::denied(
            "not-a-service",
            "only a service delivers results",
        ));
    };
    let key = &state.inventory.service(service, now())?.key;
    let job = state
        .jobs
        .get(&body.job)
        .ok_or_else(|| Refusal::not_found("job", body.job))?;
    if !matches!(&job.status, JobStatus::Claimed { service: by, .. } if by == service) {
        return Err(Refusal::conflict(
            "job-not-claimed",
            format!("{} is not yours", body.job),
        ));
    }
    let digest = body
        .attestation
        .ok_or_else(|| Refusal::malformed("job result").expected("an attestation"))?;
    let envelope = UnverifiedEnvelope::parse(&app.ledger.blobs().get(&digest)?)?;
    let statement = dsse::verify(&envelope, PAYLOAD_IN_TOTO, &[key])?;
    let wrong = |expected: &str, received: String| {
        Refusal::denied(
            "attestation-mismatch",
            "the attestation is not about this job's result",
        )
        .expected(expected)
        .received(&received)
    };
    let commit = |statement: &[portcullis_evidence::intoto::ResourceDescriptor]| {
        statement.iter().any(|subject| {
            subject
                .digest
                .values()
                .any(|value| *value == job.commit.to_string())
        })
    };
    match job.kind {
        JobKind::Test => {
            let result = Statement::<TestResult>::parse(statement.payload())?;
            if !commit(result.subject()) {
                return Err(wrong(
                    job.commit.as_str(),
                    format!("{:?}", result.subject()),
                ));
            }
        }
        JobKind::Build => {
            let provenance = Statement::<Provenance>::parse(statement.payload())?;
            let made: BTreeMap<Option<&str>, Option<Digest>> = provenance
                .subject()
                .iter()
                .map(|subject| (subject.name.as_deref(), subject.sha256()))
                .collect();
            let named = body
                .outputs
                .iter()
                .all(|output| made.get(&Some(output.name.as_str())) == Some(&Some(output.digest)));
            let inputs = &provenance
                .predicate()
                .build_definition
                .resolved_dependencies;
            if body.outcome == JobOutcome::Succeeded
                && (!named || made.len() != body.outputs.len() || !commit(inputs))
            {
                return Err(wrong(
                    "exactly the outputs, and the commit among the inputs",
                    format!("{made:?}"),
                ));
            }
        }
    }
    for output in &body.outputs {
        let bytes = app.ledger.blobs().get(&output.digest)?;
        if u64::try_from(bytes.len()).ok() != Some(output.size) {
            return Err(wrong(
                &format!("{} bytes", output.size),
                format!("{} bytes", bytes.len()),
            ));
        }
    }
    match body.report {
        Some(report) => app.ledger.blobs().get(&report).map(|_| ()),
        None => Ok(()),
    }
}

/// Records what a build made.
///
/// # Errors
/// The ledger can't be written.
pub async fn record_artifacts(app: &App, id: JobId) -> Result<(), Refusal> {
    let state = app.state();
    let job = state
        .jobs
        .get(&id)
        .ok_or_else(|| Refusal::not_found("job", id))?;
    let Some(done) = job.finished() else {
        return Ok(());
    };
    let (Some(provenance), JobOutcome::Succeeded) = (done.attestation, done.outcome) else {
        app.settled.insert(Work::RecordArtifacts(id));
        return Ok(());
    };
    for output in &done.outputs {
        let known = state
            .artifacts
            .values()
            .any(|artifact| artifact.job == id && artifact.output == *output);
        if !known {
            let body = ArtifactBuilt {
                job: id,
                repository: job.repository.clone(),
                commit: job.commit.clone(),
                output: output.clone(),
                provenance,
            };
            super::record(app, body).await?;
        }
    }
    Ok(())
}
