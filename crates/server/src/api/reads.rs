//! Everything that can be looked at, as JSON.

use std::ops::Bound;
use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State as Shared};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use imbl::OrdMap;
use portcullis_flow::State;
use portcullis_flow::approval::{Request, Status, tally};
use portcullis_flow::change::Change;
use portcullis_flow::inventory::Standing;
use portcullis_flow::job::{Job, JobStatus};
use portcullis_flow::run::Run;
use portcullis_model::event::IncidentOpened;
use portcullis_model::{
    ArtifactId, ChangeId, Digest, EnvironmentId, GitOid, JobId, LedgerIndex, Refusal, ReleaseId,
    RepositoryId, RequestId, RolloutId, RunId, TaskId, Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ledger::blocking;
use super::recording::recording;
use super::{Answer, Problem, review};
use crate::app::{App, now};
use crate::bundle;
use crate::worker::{landing, sync};

/// Items of a list in one answer unless fewer or more are asked for.
const ITEMS_DEFAULT: usize = 100;
/// Most items of a list in one answer.
const ITEMS_MAX: usize = 1_000;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/policy", get(policy))
        .route("/v1/inventory/{kind}", get(inventory))
        .route("/v1/branches/{repository}/{*branch}", get(branch))
        .route("/v1/queues", get(queues))
        .route("/v1/tasks", get(tasks))
        .route("/v1/tasks/{task}", get(task))
        .route("/v1/runs", get(runs))
        .route("/v1/runs/{run}", get(run))
        .route("/v1/changes", get(changes))
        .route("/v1/changes/{change}", get(change))
        .route("/v1/changes/{change}/diff", get(diff))
        .route("/v1/requests", get(requests))
        .route("/v1/requests/{request}", get(request))
        .route("/v1/jobs", get(jobs))
        .route("/v1/jobs/{job}/source", get(source))
        .route("/v1/artifacts", get(artifacts))
        .route("/v1/artifacts/{artifact}", get(artifact))
        .route("/v1/artifacts/{artifact}/file", get(artifact_file))
        .route("/v1/artifacts/{artifact}/bundle", get(artifact_bundle))
        .route(
            "/v1/commits/{repository}/{commit}/bundle",
            get(commit_bundle),
        )
        .route("/v1/releases", get(releases))
        .route("/v1/rollouts", get(rollouts))
        .route("/v1/rollouts/{rollout}", get(rollout))
        .route("/v1/environments", get(environments))
        .route("/v1/incidents", get(incidents))
}

/// Which part of a list is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part<K> {
    /// The last item of the part before: its successors in the order of ids follow.
    after: Option<K>,
    limit: Option<usize>,
    #[serde(default)]
    open: bool,
    #[serde(default)]
    active: bool,
}

impl<K: Clone + Ord + Serialize> Part<K> {
    /// As many items of `from` as are asked for, from the first one behind `after` that `shown`
    /// shows, with the id of the last of them where there are more.
    ///
    /// Items that come meanwhile have higher ids or, among names, their place in the alphabet; so
    /// nothing that was there all the time is missed or told twice.
    fn of<V>(&self, from: &OrdMap<K, V>, mut shown: impl FnMut(&K, &V) -> Option<Value>) -> Answer {
        let limit = self.limit.unwrap_or(ITEMS_DEFAULT);
        if !(1..=ITEMS_MAX).contains(&limit) {
            return Err(Refusal::malformed("limit")
                .expected(&format!("1 to {ITEMS_MAX}"))
                .received(&limit.to_string())
                .into());
        }
        let behind = match &self.after {
            Some(key) => Bound::Excluded(key.clone()),
            None => Bound::Unbounded,
        };
        let mut items = Vec::new();
        let mut last = None;
        for (key, value) in from.range((behind, Bound::Unbounded)) {
            let Some(item) = shown(key, value) else {
                continue;
            };
            if items.len() == limit {
                return Ok(axum::Json(json!({ "items": items, "next": last })));
            }
            items.push(item);
            last = Some(key.clone());
        }
        Ok(axum::Json(json!({ "items": items, "next": null })))
    }
}

async fn status(Shared(app): Shared<Arc<App>>) -> Answer {
    let state = app.state();
    let genesis = state.genesis()?;
    let checkpoint = app.ledger.checkpoint();
    let breakers: Vec<Value> = state
        .breakers
        .iter()
        .map(|(scope, trip)| {
            json!({ "scope": scope, "index": trip.entry, "time": trip.time, "revert": trip.revert })
        })
        .collect();
    let entry = app.ledger.entry(0)?;
    Ok(axum::Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "origin": genesis.origin,
        "trust_domain": genesis.trust_domain,
        "solo": genesis.solo,
        "fold_version": genesis.fold_version,
        "genesis": Digest::of(&entry.bytes),
        "log_key": app.log_key.to_string(),
        "size": checkpoint.size,
        "root": checkpoint.root,
        "checkpoint": checkpoint.note,
        "policy": state.policy(),
        "breakers": breakers,
        "witnesses": app.witnesses.shown(),
        "recording": recording(&app, &state),
        "role": if app.ledger.as_of().is_some() { "standby" } else { "leader" },
        "leader": app.ledger.leader(),
        "as_of": { "index": app.ledger.size(), "time": app.ledger.as_of().unwrap_or_else(now) },
        "time": now(),
    })))
}

async fn policy(Shared(app): Shared<Arc<App>>) -> Answer {
    let state = app.state();
    let Some(files) = state.inventory.policy.as_ref() else {
        return Err(Refusal::not_found("policy", "in force").into());
    };
    let mut shown = serde_json::Map::new();
    for (name, digest) in &files.files {
        let text = crate::app::text(&app.ledger.blobs().get(digest)?)?;
        shown.insert(name.clone(), json!({ "digest": digest, "text": text }));
    }
    Ok(axum::Json(
        json!({ "digest": files.digest, "files": shown }),
    ))
}

async fn inventory(
    Shared(app): Shared<Arc<App>>,
    Path(kind): Path<String>,
    Query(part): Query<Part<String>>,
) -> Answer {
    let state = app.state();
    let known = &state.inventory;
    match kind.as_str() {
        "humans" => part.named()?.of(&known.humans, |id, person| {
            // A name that can't be read is as good as one that was never said.
            let said = app.ledger.private().person(id).ok().flatten();
            Some(json!({
                "record": person.manifest,
                "standing": standing(person.standing),
                "person": said.map(|said| json!({ "name": said.name, "mail": said.mail })),
            }))
        }),
        "agents" => part.named()?.of(&known.agents, |_, one| {
            Some(json!({ "record": one.manifest, "standing": standing(one.standing) }))
        }),
        "services" => part.named()?.of(&known.services, |_, one| {
            Some(json!({ "record": one.manifest, "standing": standing(one.standing) }))
        }),
        "hosts" => part.named()?.of(&known.hosts, |_, one| {
            Some(json!({ "record": one.manifest, "standing": standing(one.standing) }))
        }),
        "groups" => part
            .named()?
            .of(&known.groups, |_, one| Some(json!({ "record": **one }))),
        "environments" => part.named()?.of(&known.environments, |_, one| {
            Some(json!({ "record": **one }))
        }),
        "repositories" => part.named()?.of(&known.repositories, |_, one| {
            Some(json!({ "record": **one }))
        }),
        "endpoints" => part
            .named()?
            .of(&known.endpoints, |_, one| Some(json!({ "record": **one }))),
        other => Err(Refusal::not_found("kind of record", other)
            .expected(
                "humans, groups, agents, services, hosts, environments, repositories or endpoints",
            )
            .into()),
    }
}

const fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Active => "active",
        Standing::Suspended => "suspended",
        Standing::Retired => "retired",
    }
}

impl Part<String> {
    /// The same part of a list of another kind of name.
    fn named<K: FromStr<Err = Refusal>>(&self) -> Result<Part<K>, Refusal> {
        Ok(Part {
            after: self.after.as_deref().map(str::parse).transpose()?,
            limit: self.limit,
            open: self.open,
            active: self.active,
        })
    }
}

/// Where a branch stands, after a look upstream.
async fn branch(
    Shared(app): Shared<Arc<App>>,
    Path((repository, branch)): Path<(RepositoryId, String)>,
) -> Answer {
    portcullis_model::task::check_branch(&branch)?;
    let before = app.state();
    before.inventory.repository(&repository)?;
    let known = (repository.clone(), branch.clone());
    let upstream = if before.branches.contains_key(&known) {
        sync::branch_once(&app, &before, &repository, &branch).await?
    } else {
        // A branch is taken up by a signed task that names it, not by somebody who looks.
        let mirror = app.mirrors.get(&before, &repository).await?;
        mirror.repository.observe(&branch, mirror.access()).await?
    };
    let state = app.state();
    let known = state.branches.get(&(repository.clone(), branch.clone()));
    Ok(axum::Json(json!({
        "repository": repository,
        "branch": branch,
        "tip": known.map(|known| known.tip.clone()).or(upstream),
        "known": known.is_some(),
    })))
}

/// The queues of all branches: what is halted, what is made ready, what waits.
async fn queues(Shared(app): Shared<Arc<App>>) -> Answer {
    let state = app.state();
    let items: Vec<Value> = state
        .branches
        .keys()
        .map(|(repository, branch)| crate::worker::queue::view(&state, repository, branch))
        .collect();
    Ok(axum::Json(json!({ "items": items })))
}

async fn tasks(Shared(app): Shared<Arc<App>>, Query(part): Query<Part<TaskId>>) -> Answer {
    let state = app.state();
    part.of(&state.tasks, |id, _| Some(task_view(&app, &state, id)))
}

async fn task(Shared(app): Shared<Arc<App>>, Path(id): Path<TaskId>) -> Answer {
    let state = app.state();
    if !state.tasks.contains_key(&id) {
        return Err(Refusal::not_found("task", id).into());
    }
    Ok(axum::Json(task_view(&app, &state, &id)))
}

fn task_view(app: &App, state: &State, id: &TaskId) -> Value {
    let Some(task) = state.tasks.get(id) else {
        return Value::Null;
    };
    let text = app
        .ledger
        .blobs()
        .get(&task.payload.text)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    json!({
        "id": id,
        "index": task.entry,
        "text": text,
        "task": task.payload,
        "envelope": task.envelope,
        "runs": task.runs,
    })
}

async fn runs(Shared(app): Shared<Arc<App>>, Query(part): Query<Part<RunId>>) -> Answer {
    let running = part.active || part.open;
    part.of(&app.state().runs, |_, run| {
        (!running || run.end.is_none()).then(|| run_view(run))
    })
}

async fn run(Shared(app): Shared<Arc<App>>, Path(id): Path<RunId>) -> Answer {
    let state = app.state();
    let run = state
        .runs
        .get(&id)
        .ok_or_else(|| Refusal::not_found("run", id))?;
    Ok(axum::Json(run_view(run)))
}

fn run_view(run: &Run) -> Value {
    json!({
        "id": run.id,
        "task": run.task,
        "agent": run.agent,
        "signer": run.signer,
        "host": run.host,
        "containment": run.containment,
        "started": run.started,
        "deadline": run.deadline,
        "leases": run.leases,
        "refused": run.refused,
        "used": { "pushes": run.used.pushes, "calls": run.used.calls, "denials": run.used.denials },
        "taint": run.taint,
        "window": {
            "number": run.window,
            "ends": run.window_ends(),
            "length_ms": run.windows.length_ms,
            "asks": run.windows.ask,
        },
        "frozen": run.frozen.as_ref().map(|stop| json!({
            "entry": stop.entry,
            "since": stop.since,
            "causes": stop.causes,
            "because": stop.stop.because,
            "needed": stop.stop.needed,
        })),
        "checkpoints": run.checkpoints.iter().map(|(number, manifest)| json!({
            "number": number,
            "manifest": manifest,
        })).collect::<Vec<_>>(),
        "end": run.end.as_ref().map(|(time, end)| json!({ "time": time, "end": end })),
    })
}

async fn changes(Shared(app): Shared<Arc<App>>, Query(part): Query<Part<ChangeId>>) -> Answer {
    let open = portcullis_flow::change::ChangeStatus::Open;
    part.of(&app.state().changes, |_, change| {
        (!part.open || change.status == open).then(|| change_view(change))
    })
}

async fn change(Shared(app): Shared<Arc<App>>, Path(id): Path<ChangeId>) -> Answer {
    let state = app.state();
    let change = state
        .changes
        .get(&id)
        .ok_or_else(|| Refusal::not_found("change", id))?;
    let mut view = change_view(change);
    let explained = landing::explain(&app, &state, id).await?;
    if let Some(fields) = view.as_object_mut() {
        fields.insert("explain".to_owned(), json!(explained));
        if let Some(checks) = &change.latest().checks
            && let Ok(bytes) = app.ledger.blobs().get(&checks.report)
        {
            let report: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            fields.insert("checks_report".to_owned(), report);
        }
    }
    Ok(axum::Json(view))
}

fn change_view(change: &Change) -> Value {
    use portcullis_flow::change::ChangeStatus;
    let latest = change.latest();
    let (status, commit) = match &change.status {
        ChangeStatus::Open => ("open", None),
        ChangeStatus::Landed { commit, .. } => ("landed", Some(commit)),
        ChangeStatus::Closed => ("closed", None),
    };
    json!({
        "id": change.id,
        "repository": change.repository,
        "branch": change.branch,
        "status": status,
        "landed": commit,
        "party": change.party,
        "by_agent": change.by_agent(),
        "revision": latest.number,
        "base": latest.pushed.base,
        "head": latest.pushed.head,
        "tree": latest.pushed.tree,
        "manifest": latest.pushed.manifest,
        "files": latest.pushed.files,
        "lines": latest.pushed.lines,
        "run": latest.run,
        "questions": latest.pushed.questions,
        "checks": latest.checks,
        "tests": latest.tests,
        "prepared": latest.prepared.as_ref().map(|prepared| json!({
            "entry": prepared.entry, "made": prepared.made, "tested": prepared.tested,
        })),
        "request": latest.request,
    })
}

/// The diff of the newest revision, with what can't be seen made visible.
async fn diff(
    Shared(app): Shared<Arc<App>>,
    Path(id): Path<ChangeId>,
) -> Result<Response, Problem> {
    let state = app.state();
    let change = state
        .changes
        .get(&id)
        .ok_or_else(|| Refusal::not_found("change", id))?;
    let text = review::diff_text(&app, &change.latest().pushed.diff)?;
    Ok(([("content-type", "text/plain; charset=utf-8")], text).into_response())
}

async fn requests(Shared(app): Shared<Arc<App>>, Query(part): Query<Part<RequestId>>) -> Answer {
    let state = app.state();
    let time = now();
    part.of(&state.requests, |_, request| {
        (!part.open || request.is_open(time)).then(|| request_view(&state, request, time))
    })
}

fn request_view(state: &State, request: &Request, time: Timestamp) -> Value {
    let counted = tally(state, request, time);
    let status = match &request.status {
        Status::Open if request.satisfied_at.is_some() => "approved",
        Status::Open if time >= request.expires => "expired",
        Status::Open => "open",
        Status::Rejected { .. } => "rejected",
        Status::Withdrawn { .. } => "withdrawn",
        Status::Used => "used",
    };
    json!({
        "id": request.id,
        "subject": request.subject,
        "summary": review::summary(&request.subject),
        "status": status,
        "needed": request.needed,
        "approvals": counted.humans,
        "self_approved": request.self_approved(),
        "party": request.party,
        "because": request.because,
        "expires": request.expires,
    })
}

async fn request(Shared(app): Shared<Arc<App>>, Path(id): Path<RequestId>) -> Answer {
    let state = app.state();
    let request = state
        .requests
        .get(&id)
        .ok_or_else(|| Refusal::not_found("request", id))?;
    let mut view = request_view(&state, request, now());
    let text = review::document(&app, &state, request)?;
    let draft = review::draft(&app, &state, request, &text)?;
    if let Some(fields) = view.as_object_mut() {
        fields.insert("text".to_owned(), json!(text));
        fields.insert("draft".to_owned(), draft);
    }
    Ok(axum::Json(view))
}

async fn jobs(Shared(app): Shared<Arc<App>>, Query(part): Query<Part<JobId>>) -> Answer {
    part.of(&app.state().jobs, |_, job| Some(job_view(job)))
}

fn job_view(job: &Job) -> Value {
    let (status, service) = match &job.status {
        JobStatus::Requested => ("requested", None),
        JobStatus::Claimed { service, .. } => ("claimed", Some(service)),
        JobStatus::Finished(_) => ("finished", None),
    };
    json!({
        "id": job.id,
        "kind": job.kind,
        "repository": job.repository,
        "commit": job.commit,
        "configured_by": job.configured_by,
        "configuration": job.configuration,
        "change": job.change,
        "status": status,
        "service": service,
        "finished": job.finished(),
    })
}

/// The tree of a job's commit, as a tar file.
async fn source(Shared(app): Shared<Arc<App>>, Path(id): Path<JobId>) -> Result<Response, Problem> {
    let state = app.state();
    let job = state
        .jobs
        .get(&id)
        .ok_or_else(|| Refusal::not_found("job", id))?;
    let mirror = app.mirrors.get(&state, &job.repository).await?;
    let tar = mirror.archive(&job.commit).await?;
    Ok(([("content-type", "application/x-tar")], tar).into_response())
}

async fn artifacts(Shared(app): Shared<Arc<App>>, Query(part): Query<Part<ArtifactId>>) -> Answer {
    let state = app.state();
    part.of(&state.artifacts, |id, _| Some(artifact_view(&state, *id)))
}

async fn artifact(Shared(app): Shared<Arc<App>>, Path(id): Path<ArtifactId>) -> Answer {
    let state = app.state();
    if !state.artifacts.contains_key(&id) {
        return Err(Refusal::not_found("artifact", id).into());
    }
    Ok(axum::Json(artifact_view(&state, id)))
}

fn artifact_view(state: &State, id: ArtifactId) -> Value {
    let Some(artifact) = state.artifacts.get(&id) else {
        return Value::Null;
    };
    json!({
        "id": id,
        "job": artifact.job,
        "repository": artifact.repository,
        "commit": artifact.commit,
        "name": artifact.output.name,
        "digest": artifact.output.digest,
        "size": artifact.output.size,
        "provenance": artifact.provenance,
    })
}

async fn artifact_file(
    Shared(app): Shared<Arc<App>>,
    Path(id): Path<ArtifactId>,
) -> Result<Response, Problem> {
    let state = app.state();
    let artifact = state
        .artifacts
        .get(&id)
        .ok_or_else(|| Refusal::not_found("artifact", id))?;
    let bytes = app.ledger.blobs().get(&artifact.output.digest)?;
    Ok(([("content-type", "application/octet-stream")], bytes).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BundleFilter {
    environment: Option<EnvironmentId>,
}

async fn artifact_bundle(
    Shared(app): Shared<Arc<App>>,
    Path(id): Path<ArtifactId>,
    Query(filter): Query<BundleFilter>,
) -> Result<Response, Problem> {
    let bundle =
        blocking(move || bundle::for_artifact(&app, id, filter.environment.as_ref())?.to_bytes())
            .await?;
    Ok(([("content-type", "application/json")], bundle).into_response())
}

async fn commit_bundle(
    Shared(app): Shared<Arc<App>>,
    Path((repository, commit)): Path<(RepositoryId, GitOid)>,
) -> Result<Response, Problem> {
    let bundle =
        blocking(move || bundle::for_commit(&app, &repository, &commit)?.to_bytes()).await?;
    Ok(([("content-type", "application/json")], bundle).into_response())
}

async fn releases(Shared(app): Shared<Arc<App>>, Query(part): Query<Part<ReleaseId>>) -> Answer {
    part.of(&app.state().releases, |_, release| {
        Some(json!({
            "id": release.id,
            "artifact": release.artifact,
            "environment": release.environment,
            "changes": release.changes,
            "agent_work": release.agent_work,
            "request": release.request,
            "revoked": release.revoked,
            "started": release.started,
            "completed": release.completed,
        }))
    })
}

async fn rollouts(Shared(app): Shared<Arc<App>>, Query(part): Query<Part<RolloutId>>) -> Answer {
    part.of(&app.state().rollouts, |_, rollout| {
        Some(rollout_view(rollout))
    })
}

async fn rollout(Shared(app): Shared<Arc<App>>, Path(id): Path<RolloutId>) -> Answer {
    let state = app.state();
    let rollout = state
        .rollouts
        .get(&id)
        .ok_or_else(|| Refusal::not_found("rollout", id))?;
    Ok(axum::Json(rollout_view(rollout)))
}

fn rollout_view(rollout: &portcullis_flow::rollout::Rollout) -> Value {
    use portcullis_flow::rollout::RolloutStatus;
    let status = match rollout.status {
        RolloutStatus::Running => "running",
        RolloutStatus::Paused => "paused",
        RolloutStatus::Completed => "completed",
        RolloutStatus::RolledBack => "rolled-back",
        RolloutStatus::Failed => "failed",
    };
    json!({
        "id": rollout.id,
        "release": rollout.release,
        "environment": rollout.environment,
        "stable": rollout.stable,
        "canary": rollout.canary,
        "seed": rollout.seed,
        "weight": rollout.weight,
        "epoch": rollout.epoch,
        "status": status,
        "code": rollout.code,
        "statistics": rollout.statistics,
    })
}

async fn environments(
    Shared(app): Shared<Arc<App>>,
    Query(part): Query<Part<EnvironmentId>>,
) -> Answer {
    let state = app.state();
    part.of(&state.inventory.environments, |_, record| {
        let running = state.environments.get(&record.id);
        Some(json!({
            "record": **record,
            "stable": running.and_then(|running| running.stable),
            "rollout": running.and_then(|running| running.rollout),
            "epoch": running.map(|running| running.epoch),
            "history": running.map(|running| running.history.iter().copied().collect::<Vec<_>>()),
            "rollback_to": portcullis_flow::release::rollback_target(&state, &record.id),
        }))
    })
}

async fn incidents(Shared(app): Shared<Arc<App>>, Query(part): Query<Part<LedgerIndex>>) -> Answer {
    let state = app.state();
    let known: OrdMap<LedgerIndex, &IncidentOpened> = state
        .incidents
        .iter()
        .map(|(index, incident)| (*index, incident))
        .collect();
    part.of(&known, |index, incident| {
        Some(json!({ "index": index, "code": incident.code, "about": incident.about, "facts": incident.facts }))
    })
}
