//! What runs ask, each request proved, decided, recorded and only then forwarded.

use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::response::{IntoResponse, Response};
use portcullis_flow::State;
use portcullis_flow::run::Run;
use portcullis_identity::dpop::{self, Call, UnverifiedHeaders};
use portcullis_identity::session;
use portcullis_model::event::{LeaseKind, LeaseRefused};
use portcullis_model::{Actor, Principal, Refusal, RunId};
use serde_json::json;

use super::{Problem, one_header};
use crate::app::{App, now};
use crate::worker;
use connection::Connection;

pub(crate) mod calls;
pub(crate) mod connection;
mod egress;
mod git;
mod http;
mod kept;
mod launcher;
pub(crate) mod looks;
mod prompt;
mod upload;
pub(crate) mod void;
mod websocket;

/// A run that proved itself for this very request.
#[derive(Clone)]
pub(crate) struct Caller {
    /// The state in which it was active.
    pub(crate) state: Arc<State>,
    /// The run.
    pub(crate) run: Arc<Run>,
    /// Thumbprint of its key, as the request proved it.
    key: portcullis_identity::Thumbprint,
}

impl Caller {
    /// The run as an actor of events.
    pub(crate) fn actor(&self) -> Actor {
        actor_of(&self.run)
    }

    /// Whether a breaker covers the run here, by the ledger or ahead of it.
    ///
    /// A breaker for one of its repositories halts all that it does: what it may not push it shall
    /// not send elsewhere either.
    pub(crate) fn halted(&self, app: &App) -> bool {
        halts(app, &self.state, &self.run)
    }
}

fn actor_of(run: &Run) -> Actor {
    let principal = Principal::Agent(run.agent.clone(), Some(run.id));
    Actor {
        host: Some(run.host.clone()),
        ..Actor::unsigned(principal)
    }
}

/// Whether a breaker covers the run, its agent or any repository lent to it.
fn halts(app: &App, state: &State, run: &Run) -> bool {
    let repositories: Vec<_> = run
        .leases
        .iter()
        .filter_map(|lease| match lease {
            LeaseKind::Git(id) => Some(id),
            LeaseKind::Identity
            | LeaseKind::Endpoint(_)
            | LeaseKind::Host(_)
            | LeaseKind::Tunnel(_) => None,
        })
        .collect();
    app.halted_for(state, Some(&run.agent), &repositories, None)
        .is_some()
}

/// Everything below `/gateway/v1`. Where a request opened a session, its answer says the server's
/// half.
pub(super) async fn handle(
    app: &Arc<App>,
    connection: Connection,
    mut request: Request,
) -> Response {
    // At the door, and once: a request that is refused for its path uses up its number as well, else
    // the launcher's next one would not be the next of its session.
    if let Ok(Some(proof)) = one_header(request.headers(), session::HEADER) {
        let identified = connection.identify(app, &request, proof);
        request.extensions_mut().insert(Identified(identified));
    }
    request.extensions_mut().insert(connection.clone());
    let mut answer = answer(app, request).await.into_response();
    connection.tell(answer.headers_mut());
    answer
}

/// Each kind of request has its future on the heap: what most requests need is small, and what the
/// largest kind needs is moved from place to place otherwise.
async fn answer(app: &Arc<App>, request: Request) -> Result<Response, Problem> {
    let path = request.uri().path().to_owned();
    let rest = path.strip_prefix("/gateway/v1/").unwrap_or_default();
    let (head, tail) = rest.split_once('/').unwrap_or((rest, ""));
    match head {
        "control" => {
            let caller = authenticate(app, &request)?;
            launcher::control(app, &caller).await
        }
        "identity" => {
            let caller = authenticate(app, &request)?;
            Ok(axum::Json(launcher::renew(app, &caller)?).into_response())
        }
        "checkpoint" => {
            let caller = authenticate(app, &request)?;
            Box::pin(launcher::checkpoint(app, caller, request)).await
        }
        "ask" => Box::pin(asked(app, tail, request)).await,
        "git" => {
            let by_git = is_git(&request);
            let answer = Box::pin(git::run_request(app, tail, request)).await;
            if by_git { told_to_git(answer) } else { answer }
        }
        "model" => Box::pin(http::model(app, tail, request)).await,
        "egress" => Box::pin(egress::request(app, request)).await,
        "tunnel" => Box::pin(egress::tunnel(app, request)).await,
        "refused" => Box::pin(egress::refused(app, request)).await,
        _ => Err(Refusal::not_found("gateway path", rest)
            .expected("git, model, egress, tunnel or ask")
            .into()),
    }
}

/// What a run may do, or what would come of a push.
async fn asked(app: &Arc<App>, what: &str, request: Request) -> Result<Response, Problem> {
    let caller = authenticate(app, &request)?;
    let caller = active(app, caller, &LeaseKind::Identity).await?;
    match what {
        "" => Ok(axum::Json(what_may_i_do(&caller)).into_response()),
        "push" => git::ask(app, &caller, request).await,
        other => Err(Refusal::not_found("question", other)
            .expected("ask, or ask/push")
            .into()),
    }
}

/// People's own pushes: signed, at `/git/<repository>.git`.
pub(super) async fn people(
    Shared(app): Shared<Arc<App>>,
    request: Request,
) -> Result<Response, Problem> {
    let path = request.uri().path().to_owned();
    let path = path.strip_prefix("/git/").unwrap_or_default();
    let by_git = is_git(&request);
    let answer = git::person_request(&app, path, request).await;
    if by_git { told_to_git(answer) } else { answer }
}

/// Whether git itself asks. It chooses nothing but the form of a refusal.
fn is_git(request: &Request) -> bool {
    let agent = request.headers().get(axum::http::header::USER_AGENT);
    agent.is_some_and(|agent| agent.as_bytes().starts_with(b"git/"))
}

fn told_to_git(answer: Result<Response, Problem>) -> Result<Response, Problem> {
    answer.or_else(|problem| Ok(problem.told_to_git()))
}

/// Who sends a request, as its session proves it.
#[derive(Clone)]
struct Identified(Result<(RunId, portcullis_identity::Thumbprint), Refusal>);

/// Who calls, by token and proof of possession, or by the session that these opened on the same
/// connection; the run may have ended.
fn authenticate(app: &App, request: &Request) -> Result<Caller, Refusal> {
    let headers = request.headers();
    let connection = request.extensions().get::<Connection>();
    let identified = request.extensions().get::<Identified>();
    let (run, key) = match (one_header(headers, session::HEADER)?, connection) {
        (Some(_), Some(_)) => match identified {
            Some(Identified(identified)) => identified.clone()?,
            None => return Err(connection::unknown()),
        },
        (Some(_), None) => return Err(connection::unknown()),
        (None, connection) => {
            let caller = proved(app, request)?;
            if let Some(connection) = connection {
                connection.begin(&caller)?;
            }
            (caller.claims.run, *caller.proof.key.thumbprint())
        }
    };
    let state = app.state();
    let run = state
        .runs
        .get(&run)
        .cloned()
        .ok_or_else(|| Refusal::denied("run-unknown", "this run is not in the ledger"))?;
    if !key.is(&run.key) {
        return Err(Refusal::denied(
            "wrong-run-key",
            "the proof is by another key than the run's",
        )
        .expected(&run.key)
        .received(&key.to_string()));
    }
    Ok(Caller { state, run, key })
}

/// Who calls, by token and proof.
fn proved(app: &App, request: &Request) -> Result<dpop::Caller, Refusal> {
    let headers = request.headers();
    let authorization = one_header(headers, "authorization")?;
    let proof = one_header(headers, "dpop")?;
    let (Some(authorization), Some(proof)) = (authorization, proof) else {
        return Err(
            Refusal::denied("dpop-missing", "this request proves no identity")
                .expected("a run's token and a proof made with its key")
                .next("runs reach the gateway through their launcher's channel only"),
        );
    };
    let url = format!("{}{}", app.config.url(), request.uri().path());
    dpop::authenticate(
        &app.verifier,
        &app.replay,
        UnverifiedHeaders {
            authorization,
            dpop: proof,
        },
        Call {
            method: request.method().as_str(),
            url: &url,
        },
        now(),
    )
}

/// The run goes on; if it ended, the first refusal of `lease` is recorded.
async fn active(app: &App, caller: Caller, lease: &LeaseKind) -> Result<Caller, Refusal> {
    if let Err(refusal) = caller.run.require_active(now()) {
        refuse_void_lease(app, &caller, lease).await;
        return Err(refusal);
    }
    caller.state.inventory.agent(&caller.run.agent, now())?;
    Ok(caller)
}

/// The ledger says when something lent to a run that ended was refused for the first time.
async fn refuse_void_lease(app: &App, caller: &Caller, lease: &LeaseKind) {
    let run = &caller.run;
    if run.end.is_none() || run.refused.contains(lease) || !run.leases.contains(lease) {
        return;
    }
    let body = LeaseRefused {
        run: run.id,
        lease: lease.clone(),
    };
    if let Err(refusal) = worker::record(app, body).await
        && refusal.code != "not-first-refusal"
    {
        tracing::warn!(
            error.code = refusal.code,
            "a refused lease could not be recorded: {refusal}"
        );
    }
}

/// What an agent may do, in words for a program.
fn what_may_i_do(caller: &Caller) -> serde_json::Value {
    let run = &caller.run;
    let task = caller.state.tasks.get(&run.task).map(|task| &task.payload);
    json!({
        "run": run.id,
        "agent": run.agent,
        "task": run.task,
        "deadline": run.deadline,
        "targets": task.map(|task| &task.targets),
        "capabilities": task.map(|task| &task.capabilities),
        "budgets": task.map(|task| &task.budgets),
        "used": { "pushes": run.used.pushes, "calls": run.used.calls, "denials": run.used.denials },
        "push": "git push origin HEAD:refs/for/<branch>; `git ask` (or `-o dry-run`) says what would be refused; so does POST ask/push with {\"repository\", \"ref\", \"paths\"}",
        "never": ["branches and tags themselves", "commits in a person's name", "approvals", "production"],
    })
}
