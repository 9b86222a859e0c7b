//! Git over smart HTTP: runs fetch what their task needs and propose changes; people propose by
//! signed pushes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use portcullis_flow::{Command as Recording, State};
use portcullis_gateway::git::FetchView;
use portcullis_gateway::git::body::BodyReader;
use portcullis_gateway::git::fetch::{self, ViewRef};
use portcullis_gateway::git::receive;
use portcullis_model::event::{CallObserved, LeaseKind};
use portcullis_model::{Recorder as _, Refusal, RepositoryId};
use portcullis_policy::Request as Question;
use portcullis_policy::action::{Action, GitFetch};

use super::super::{Problem, one_header};
use super::{Caller, active, authenticate};
use crate::app::{App, Verdict, now};
use crate::facts;
use crate::mirrors::Mirror;
use crate::worker::sync;

mod content;
mod push;
mod signed;

/// Which part of the protocol a path names.
enum Endpoint {
    AdvertiseFetch,
    AdvertisePush,
    Fetch,
    Push,
    /// Git LFS asks for content, or brings some.
    Lfs,
}

struct Target {
    repository: RepositoryId,
    endpoint: Endpoint,
}

fn target(path: &str, request: &Request) -> Result<Target, Refusal> {
    let unknown = || {
        Refusal::not_found("git path", path)
            .expected("<repository>.git/info/refs, git-upload-pack or git-receive-pack")
    };
    let (name, rest) = path.split_once(".git/").ok_or_else(unknown)?;
    let service = request.uri().query().unwrap_or_default();
    let endpoint = match (request.method(), rest, service) {
        (&Method::GET, "info/refs", "service=git-upload-pack") => Endpoint::AdvertiseFetch,
        (&Method::GET, "info/refs", "service=git-receive-pack") => Endpoint::AdvertisePush,
        (&Method::POST, "git-upload-pack", _) => Endpoint::Fetch,
        (&Method::POST, "git-receive-pack", _) => Endpoint::Push,
        (_, rest, _) if rest.starts_with("info/lfs/") => Endpoint::Lfs,
        (&Method::GET, "info/refs" | "HEAD", "") => return Err(dumb_protocol(path)),
        (&Method::GET, rest, _) if rest.starts_with("objects/") => {
            return Err(dumb_protocol(path));
        }
        _ => return Err(unknown()),
    };
    Ok(Target {
        repository: name.parse()?,
        endpoint,
    })
}

/// Files of a repository as they lie on the disk: nobody decides on what a client takes of them.
fn dumb_protocol(path: &str) -> Refusal {
    Refusal::denied(
        "dumb-protocol",
        "git's dumb protocol, which reads a repository's files one by one, is not spoken here",
    )
    .expected("the smart protocol, as every git speaks since 1.6.6")
    .received(path)
    .next("unset GIT_SMART_HTTP, and use a client with the smart protocol")
}

/// A run's git request.
pub(super) async fn run_request(
    app: &Arc<App>,
    path: &str,
    request: Request,
) -> Result<Response, Problem> {
    let target = target(path, &request)?;
    let lease = LeaseKind::Git(target.repository.clone());
    let caller = authenticate(app, &request)?;
    let caller = active(app, caller, &lease).await?;
    if !caller.run.leases.contains(&lease) {
        let refusal = Refusal::denied(
            "repository-not-in-task",
            format!("the task does not name repository {}", target.repository),
        )
        .expected("a repository of the task")
        .received(target.repository.as_str())
        .next("work in the task's repositories; ask a person for a task that names this one");
        deny_run(app, &caller, "git", &target.repository, &refusal).await;
        return Err(refusal.into());
    }
    let mirror = app.mirrors.get(&caller.state, &target.repository).await?;
    let caller = match target.endpoint {
        // A fetch begins here, and shall see what upstream holds now.
        Endpoint::AdvertiseFetch => after_a_look(app, caller, &mirror, &target.repository).await,
        Endpoint::AdvertisePush | Endpoint::Fetch | Endpoint::Push | Endpoint::Lfs => caller,
    };
    let view = run_view(&caller, &mirror, &target.repository).await?;
    match target.endpoint {
        Endpoint::AdvertiseFetch => {
            // An advertisement gives out names only; the fetch itself is recorded.
            let _names_only = decide_fetch(app, &caller, &target.repository).await?;
            let protocol = one_header(request.headers(), "git-protocol")?.map(str::to_owned);
            let bytes = view.advertise(protocol.as_deref()).await?;
            Ok(answer(
                "application/x-git-upload-pack-advertisement",
                Body::from(bytes),
            ))
        }
        Endpoint::AdvertisePush => {
            let bytes = receive::advertise(mirror.repository.format(), &view.refs()?, None);
            Ok(answer(
                "application/x-git-receive-pack-advertisement",
                Body::from(bytes),
            ))
        }
        Endpoint::Fetch => fetch_run(app, &caller, &target.repository, &view, request).await,
        Endpoint::Push => {
            push::by_run(app, &caller, &target.repository, &mirror, &view, request).await
        }
        Endpoint::Lfs => {
            let refusal = lfs_not_served();
            deny_run(app, &caller, "git.lfs", &target.repository, &refusal).await;
            Ok(told_to_lfs(&refusal))
        }
    }
}

/// What would be refused of a push that a run has not made yet.
pub(super) async fn ask(app: &App, caller: &Caller, request: Request) -> Result<Response, Problem> {
    push::ask(app, caller, request).await
}

/// A person's git request: a signed push. People fetch from upstream itself.
pub(super) async fn person_request(
    app: &Arc<App>,
    path: &str,
    request: Request,
) -> Result<Response, Problem> {
    let target = target(path, &request)?;
    let state = app.state();
    let mirror = app.mirrors.get(&state, &target.repository).await?;
    match target.endpoint {
        Endpoint::Lfs => Ok(told_to_lfs(&lfs_not_served())),
        Endpoint::AdvertiseFetch | Endpoint::Fetch => {
            let upstream = &state.inventory.repository(&target.repository)?.upstream;
            Err(Refusal::denied("fetch-elsewhere", "people fetch from the repository itself")
                .next(format!("git remote set-url origin {upstream}; git remote set-url --push origin {}/git/{}.git", app.config.url(), target.repository))
                .into())
        }
        Endpoint::AdvertisePush => {
            let refs = branch_refs(&state, &target.repository)?;
            let nonce = signed::NONCES.make(&target.repository, now())?;
            let bytes = receive::advertise(mirror.repository.format(), &refs, Some(&nonce));
            Ok(answer(
                "application/x-git-receive-pack-advertisement",
                Body::from(bytes),
            ))
        }
        Endpoint::Push => push::by_person(app, &state, &target.repository, &mirror, request).await,
    }
}

/// Content of LFS is in no diff, no pack and no digest that people sign.
fn lfs_not_served() -> Refusal {
    Refusal::denied(
        "lfs-not-served",
        "content of Git LFS is neither taken nor given here",
    )
    .expected("files in the commits themselves")
    .next("git lfs migrate export --include='<file>', or leave such files out of the change")
}

/// As Git LFS reads an answer (its Batch API): it prints the message.
fn told_to_lfs(refusal: &Refusal) -> Response {
    let next = refusal.next.as_deref().unwrap_or_default();
    let body = serde_json::json!({
        "message": format!("portcullis: {}; next: {next}", refusal.message),
        "code": refusal.code,
    });
    let headers = [(header::CONTENT_TYPE, "application/vnd.git-lfs+json")];
    (StatusCode::FORBIDDEN, headers, body.to_string()).into_response()
}

fn answer(content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    for (name, value) in fetch::NOT_KEPT {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn branch_refs(state: &State, repository: &RepositoryId) -> Result<Vec<ViewRef>, Refusal> {
    state
        .branches
        .iter()
        .filter(|((id, _), _)| id == repository)
        .map(|((_, name), branch)| ViewRef::branch(name, branch.tip.clone()))
        .collect()
}

/// How long a fetch waits for upstream to say where its branch stands.
const UPSTREAM_LOOK: Duration = Duration::from_secs(5);

/// The caller in the state after a look at its branch upstream. One look serves all who wait for
/// it and all who come within a second of its beginning; an upstream that is down or slow shows the
/// branch where it was seen last.
async fn after_a_look(
    app: &Arc<App>,
    mut caller: Caller,
    mirror: &Mirror,
    repository: &RepositoryId,
) -> Caller {
    let Some(target) = caller
        .state
        .tasks
        .get(&caller.run.task)
        .and_then(|task| task.payload.target(repository).cloned())
    else {
        return caller;
    };
    let (look_app, id, branch) = (Arc::clone(app), repository.clone(), target.branch.clone());
    let look = async move {
        let state = look_app.state();
        if let Err(refusal) = sync::branch_once(&look_app, &state, &id, &branch).await {
            tracing::info!(repository = %id, error.code = refusal.code, "a fetch shows the branch where it was seen last: {refusal}");
        }
    };
    let ended = mirror.looks.take_part(&target.branch, Instant::now(), look);
    let _late = tokio::time::timeout(UPSTREAM_LOOK, ended).await;
    caller.state = app.state();
    caller
}

/// What a run sees: the branch of its task where it stands now, its base, upstream's tags, and the
/// change that it goes on with.
async fn run_view(
    caller: &Caller,
    mirror: &Mirror,
    repository: &RepositoryId,
) -> Result<FetchView, Refusal> {
    let state = &caller.state;
    let target = state
        .tasks
        .get(&caller.run.task)
        .and_then(|task| task.payload.target(repository).cloned())
        .ok_or_else(|| Refusal::denied("not-lent", "this repository was not lent to the run"))?;
    let key = (repository.clone(), target.branch.clone());
    let tip = state
        .branches
        .get(&key)
        .map_or(&target.base, |branch| &branch.tip);
    let mut refs = vec![
        ViewRef::branch(&target.branch, tip.clone())?,
        ViewRef {
            name: "refs/portcullis/base".to_owned(),
            oid: target.base.clone(),
        },
    ];
    let own = state.changes.open().filter(|change| {
        change.repository == *repository
            && (change.latest().run == Some(caller.run.id)
                || portcullis_flow::together::same_task(state, Some(caller.run.id), change)
                || state
                    .tasks
                    .get(&caller.run.task)
                    .and_then(|task| task.payload.change)
                    == Some(change.id))
    });
    refs.extend(mirror.repository.tags().await?.iter().cloned());
    for change in own {
        let latest = change.latest();
        // A revision whose objects are not here yet is not shown; the push is repeated.
        if mirror
            .repository
            .revision(change.id, latest.number)
            .await?
            .is_some()
        {
            refs.push(ViewRef {
                name: format!("refs/portcullis/{}", change.id),
                oid: latest.pushed.head.clone(),
            });
        }
    }
    FetchView::create(
        &mirror.repository,
        &caller.run.id.to_string(),
        &target.branch,
        &refs,
    )
    .await
}

async fn deny_run(
    app: &App,
    caller: &Caller,
    action: &str,
    repository: &RepositoryId,
    refusal: &Refusal,
) {
    let decision = app.state_decision(&caller.state);
    let resource = format!("repository {repository}");
    app.record_denial(
        caller.actor(),
        Some(caller.run.id),
        action,
        resource,
        refusal,
        decision,
    )
    .await;
}

fn fetch_question(
    app: &App,
    caller: &Caller,
    repository: &RepositoryId,
) -> Result<Question, Refusal> {
    let (state, run) = (&caller.state, &caller.run);
    Ok(Question {
        actor: facts::run_actor(state, run, now()),
        circumstances: facts::circumstances_of_run(
            state,
            run,
            Some(repository),
            caller.halted(app),
            now(),
        )?,
        action: Action::GitFetch(GitFetch {
            repository: repository.clone(),
            task: facts::task(state, run.task, Some(run), now()),
            in_task: run.leases.contains(&LeaseKind::Git(repository.clone())),
        }),
    })
}

async fn decide_fetch(
    app: &App,
    caller: &Caller,
    repository: &RepositoryId,
) -> Result<portcullis_policy::Permit, Refusal> {
    let question = fetch_question(app, caller, repository)?;
    match app.decide(&caller.state, &question, &[]) {
        Verdict::Permit(permit, _) => Ok(permit),
        Verdict::No(refusal, decision, _) => {
            let resource = format!("repository {repository}");
            app.record_denial(
                caller.actor(),
                Some(caller.run.id),
                "git.fetch",
                resource,
                &refusal,
                decision,
            )
            .await;
            Err(*refusal)
        }
    }
}

async fn fetch_run(
    app: &Arc<App>,
    caller: &Caller,
    repository: &RepositoryId,
    view: &FetchView,
    request: Request,
) -> Result<Response, Problem> {
    let permit = decide_fetch(app, caller, repository).await?;
    let observed = CallObserved {
        run: caller.run.id,
        lease: LeaseKind::Git(repository.clone()),
        model_asked: None,
        model_served: None,
        status: 200,
        bytes: (0, 0),
        request: None,
        answer: None,
    };
    let recorded = app
        .ledger
        .record(permit, Recording::leave_to_call(caller.actor(), observed))
        .await?;
    let protocol = one_header(request.headers(), "git-protocol")?.map(str::to_owned);
    let encoding = one_header(request.headers(), "content-encoding")?.map(str::to_owned);
    let body = BodyReader::new(
        request.into_body(),
        encoding.as_deref(),
        fetch::FETCH_REQUEST_MAX_BYTES,
    )?;
    let served = view.serve(recorded, protocol.as_deref(), body)?;
    Ok(answer(fetch::RESULT_TYPE, Body::new(served.body)))
}
