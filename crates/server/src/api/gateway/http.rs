//! Model endpoints: each call decided, recorded, and only then forwarded. The outcome is a further
//! entry.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use portcullis_checks::outgoing;
use portcullis_flow::Command as Recording;
use portcullis_gateway::http::model::{Endpoint, ModelCall};
use portcullis_gateway::http::prompt::Prompt;
use portcullis_gateway::http::{Bounds, Credential, Forwarded, Observation};
use portcullis_model::event::{CallObserved, LeaseKind, PromptSeen};
use portcullis_model::{Digest, EndpointId, Recorded, Recorder as _, Refusal, RefusalKind};
use portcullis_policy::action::{Action, ModelCall as ModelFacts};
use portcullis_policy::{Permit, Request as Question};

use super::super::Problem;
use super::looks::{is_long, look};
use super::void::until_void;
use super::{Caller, active, authenticate, kept, prompt};
use crate::app::{App, Verdict, now, text};
use crate::facts;
use crate::home::Home;

/// Largest key file of an endpoint, in bytes.
const SECRET_MAX_BYTES: u64 = 16 * 1024;
/// Most bytes of an answer that are kept, where bodies are kept.
const KEPT_MAX_BYTES: usize = 4 * 1024 * 1024;

/// `/model/<endpoint>/…`: the key is added here, and the model that was asked for is decided on.
pub(super) async fn model(
    app: &Arc<App>,
    path: &str,
    request: Request,
) -> Result<Response, Problem> {
    let (name, below) = path.split_once('/').unwrap_or((path, ""));
    let id: EndpointId = name.parse()?;
    let lease = LeaseKind::Endpoint(id.clone());
    let caller = authenticate(app, &request)?;
    let caller = active(app, caller, &lease).await?;
    let query = request
        .uri()
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let rest = format!("/{below}{query}");
    call(app, caller, &id, &rest, request).await
}

/// A call to an endpoint that is lent to the run, whichever way it came. `rest`: path and query
/// below the endpoint.
pub(super) async fn call(
    app: &Arc<App>,
    caller: Caller,
    id: &EndpointId,
    rest: &str,
    request: Request,
) -> Result<Response, Problem> {
    let lease = LeaseKind::Endpoint(id.clone());
    let call = ModelCall::read(request, rest, &app.rooms.of(caller.run.id)).await?;
    // It stands in the ledger, whatever it is.
    let asked = outgoing::without_secrets(call.model_asked().unwrap_or_default());
    if let Some(place) = call.foreign_credential() {
        let refusal = Refusal::denied(
            "foreign-credential",
            "a call to a model carries a credential that nobody lent",
        )
        .received(&place)
        .next("leave it out: the gateway adds the endpoint's own");
        app.record_denial(
            caller.actor(),
            Some(caller.run.id),
            "model.call",
            format!("endpoint {id} model {asked}"),
            &refusal,
            app.state_decision(&caller.state),
        )
        .await;
        return Err(refusal.into());
    }
    let record = caller.state.inventory.endpoints.get(id).cloned();
    let allowed = record
        .as_ref()
        .is_some_and(|record| record.models.is_empty() || record.models.contains(&asked));
    let told = PromptSeen {
        run: caller.run.id,
        endpoint: id.clone(),
        model_asked: asked.clone(),
        model_served: None,
        system: None,
        tools: None,
        instructions: None,
    };
    let (around, kept) = (call.around(), kept::files(app, &caller).await?);
    let body = call.body().clone();
    let read = move || {
        let found = look([body.as_ref(), around.as_bytes()], &kept);
        (Prompt::read(&body), found)
    };
    let (said, found) = if is_long(call.bytes()) {
        app.looks.apart(|| read).await?
    } else {
        read()
    };
    let told = prompt::note(app, told, said).await?;
    let action = Action::ModelCall(ModelFacts {
        endpoint: id.clone(),
        model: asked.clone(),
        declared: allowed,
        task: facts::task(&caller.state, caller.run.task, Some(&caller.run), now()),
        in_task: caller.run.leases.contains(&lease),
        model_changes: prompt::changes(&app.state(), caller.run.id),
        secrets: texts(found.secrets),
        kept_files: found.kept_files,
    });
    let (name, resource) = (action.name(), format!("endpoint {id} model {asked}"));
    let permit = decide(app, &caller, action, &resource).await?;
    let record = record.ok_or_else(|| Refusal::not_found("endpoint", id))?;
    let key = match record.secret.as_str() {
        "" => None,
        secret => {
            let name: EndpointId = secret.parse()?;
            let bytes = Home::read(&app.home.secrets().join(name.as_str()), SECRET_MAX_BYTES)?;
            Some(Credential::new(text(&bytes)?.trim().to_owned()))
        }
    };
    let endpoint = Endpoint::new(
        &record.base_url,
        &record.header,
        &record.prefix,
        key.as_ref(),
    )?;
    let recorded = grant(app, &caller, permit, &lease, Some(asked)).await;
    let recorded = noted(app, &caller, name, &resource, recorded).await?;
    let keep_bytes = if app.config.keep_bodies {
        KEPT_MAX_BYTES
    } else {
        0
    };
    let bounds = Bounds {
        keep_bytes,
        ..Bounds::default()
    };
    let forwarded = app
        .models
        .forward(recorded, &endpoint, call, bounds, until_void(app, &caller))
        .await?;
    Ok(observed(app, &caller, lease, forwarded, Some(told)))
}

pub(super) fn texts(ids: BTreeSet<&'static str>) -> BTreeSet<String> {
    ids.into_iter().map(str::to_owned).collect()
}

pub(super) async fn decide(
    app: &App,
    caller: &Caller,
    action: Action,
    resource: &str,
) -> Result<Permit, Refusal> {
    let name = action.name();
    let question = Question {
        actor: facts::run_actor(&caller.state, &caller.run, now()),
        circumstances: facts::circumstances_of_run(
            &caller.state,
            &caller.run,
            None,
            caller.halted(app),
            now(),
        )?,
        action,
    };
    if let Some(permit) = app.recalled(&caller.state, caller.run.id, &question) {
        return Ok(permit);
    }
    match app.decide(&caller.state, &question, &[]) {
        Verdict::Permit(permit, _) => {
            app.remember(&caller.state, caller.run.id, &question, &permit);
            Ok(permit)
        }
        Verdict::No(refusal, decision, _) => {
            app.record_denial(
                caller.actor(),
                Some(caller.run.id),
                name,
                resource.to_owned(),
                &refusal,
                decision,
            )
            .await;
            Err(*refusal)
        }
    }
}

/// Records a denial that came after policy had permitted.
pub(super) async fn noted<T>(
    app: &App,
    caller: &Caller,
    action: &str,
    resource: &str,
    result: Result<T, Refusal>,
) -> Result<T, Refusal> {
    if let Err(refusal) = &result
        && refusal.kind == RefusalKind::Denied
    {
        app.record_denial(
            caller.actor(),
            Some(caller.run.id),
            action,
            resource.to_owned(),
            refusal,
            app.state_decision(&caller.state),
        )
        .await;
    }
    result
}

/// Records the grant; the permit is good for one use from here on.
pub(super) async fn grant(
    app: &App,
    caller: &Caller,
    permit: Permit,
    lease: &LeaseKind,
    model_asked: Option<String>,
) -> Result<Recorded<Permit>, Refusal> {
    let body = CallObserved {
        run: caller.run.id,
        lease: lease.clone(),
        model_asked,
        model_served: None,
        status: 0,
        bytes: (0, 0),
        request: None,
        answer: None,
    };
    app.ledger
        .record(permit, Recording::leave_to_call(caller.actor(), body))
        .await
}

/// The answer, and a task that records the outcome once it is over.
pub(super) fn observed(
    app: &Arc<App>,
    caller: &Caller,
    lease: LeaseKind,
    forwarded: Forwarded,
    told: Option<PromptSeen>,
) -> Response {
    let (app, caller) = (Arc::clone(app), caller.clone());
    let ending = forwarded.ending;
    tokio::spawn(async move {
        let Some(seen) = ending.told().await else {
            return;
        };
        if let Some(told) = told {
            prompt::answered(&app, told, seen.model_served.as_deref()).await;
        }
        let body = CallObserved {
            run: caller.run.id,
            lease,
            model_asked: seen.model_asked.clone(),
            model_served: seen.model_served.clone(),
            status: seen.status,
            bytes: (seen.bytes_out, seen.bytes_in),
            request: sealed(&app, seen.request.as_deref()),
            answer: sealed(&app, kept_answer(&seen)),
        };
        record_outcome(&app, &caller, body).await;
    });
    forwarded.response.map(Body::new).into_response()
}

fn kept_answer(seen: &Observation) -> Option<&[u8]> {
    (!seen.answer.is_empty()).then_some(seen.answer.as_slice())
}

/// Keeps a body encrypted, and gives the commitment that the ledger holds.
fn sealed(app: &App, body: Option<&[u8]>) -> Option<Digest> {
    let bytes = body.filter(|_| app.config.keep_bodies)?;
    match app.ledger.blobs().put_sealed(bytes) {
        Ok(digest) => Some(digest),
        Err(refusal) => {
            tracing::warn!(
                error.code = refusal.code,
                "a body could not be kept: {refusal}"
            );
            None
        }
    }
}

pub(super) async fn record_outcome(app: &App, caller: &Caller, body: CallObserved) {
    if let Err(refusal) = app
        .ledger
        .submit(Recording::one(caller.actor(), body))
        .await
    {
        tracing::warn!(
            error.code = refusal.code,
            "a call's outcome could not be recorded: {refusal}"
        );
    }
}
