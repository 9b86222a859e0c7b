//! What a run's launcher asks by the run's key, out of reach of what runs inside: whether the run
//! goes on, a newer token, and that a checkpoint be known.

use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use portcullis_flow::Command as Recording;
use portcullis_flow::run::Run;
use portcullis_identity::{SpiffeId, token::TokenRequest};
use portcullis_model::event::RunCheckpointed;
use portcullis_model::{Digest, Refusal, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::Problem;
use super::{Caller, halts};
use crate::app::{AUDIENCE, App, now};
use crate::intake::run::{ROUNDING_MS, SVID_LIFE_MS};

/// How long the launcher's question "shall it go on?" waits for news: well below the two seconds
/// after which a launcher freezes its run.
const CONTROL_WAIT: Duration = Duration::from_millis(1_000);
/// Largest report of a checkpoint in bytes.
const CHECKPOINT_MAX_BYTES: usize = 4 * 1024;

/// Whether the run shall go on, stand still, or end. Answers at once when it shall not go on, else
/// after a short wait for news.
pub(super) async fn control(app: &App, caller: &Caller) -> Result<Response, Problem> {
    app.heard.of(caller.run.id);
    let mut news = app.ledger.subscribe();
    let deadline = tokio::time::Instant::now() + CONTROL_WAIT;
    loop {
        let state = app.state();
        let run = state.runs.get(&caller.run.id).unwrap_or(&caller.run);
        let time = now();
        let why = stands_still(halts(app, &state, run), run, time);
        let rights = state.inventory.agent(&run.agent, time).is_err();
        let end = match &run.end {
            Some((_, end)) => Some(json!(end)),
            None if rights => Some(json!({ "reason": "rights" })),
            None => None,
        };
        if why.is_some() || end.is_some() || tokio::time::Instant::now() >= deadline {
            let answer = json!({
                "freeze": why.is_some(),
                "why": why,
                "resumed": run.resumed.map(|resumed| json!({
                    "entry": resumed.entry,
                    "checkpoint": resumed.checkpoint,
                })),
                "deadline": run.deadline,
                "end": end,
            });
            return Ok(axum::Json(answer).into_response());
        }
        tokio::select! {
            _ = news.changed() => {}
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
    }
}

/// Why a run stands still, if it does.
fn stands_still(halted: bool, run: &Run, time: Timestamp) -> Option<String> {
    if halted {
        return Some("a breaker is tripped; the run stands still until it is reset".to_owned());
    }
    if let Some(stop) = &run.frozen {
        let causes: Vec<_> = stop.causes.iter().map(|cause| cause.name()).collect();
        return Some(format!(
            "the run stands still until a person lets it go on ({}): `portcullis request list`",
            causes.join(", ")
        ));
    }
    run.review_missing(time).then(|| {
        "the run stands still until the end of its window can be decided and recorded".to_owned()
    })
}

/// A newer token for the same key, while the run is alive; one that stands still is.
pub(super) fn renew(app: &App, caller: &Caller) -> Result<Value, Refusal> {
    let (run, time) = (&caller.run, now());
    run.require_not_over(time)?;
    caller.state.inventory.agent(&run.agent, time)?;
    let id = SpiffeId::run(app.authority.trust_domain(), &run.agent, run.id);
    let life = run
        .deadline
        .ms_since(time)
        .saturating_add(ROUNDING_MS)
        .clamp(1_000, SVID_LIFE_MS);
    let token = app.tokens.issue(
        &TokenRequest {
            subject: &id,
            audience: AUDIENCE,
            holder: caller.key,
            life_ms: life,
        },
        time,
    )?;
    Ok(json!({ "token": token.text.expose(), "life_ms": life }))
}

/// A checkpoint as the launcher reports it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reported {
    number: u64,
    manifest: Digest,
    entries: u64,
    bytes: u64,
}

/// Records that the workspace was kept.
pub(super) async fn checkpoint(
    app: &App,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let body = axum::body::to_bytes(request.into_body(), CHECKPOINT_MAX_BYTES)
        .await
        .map_err(|error| Refusal::malformed("checkpoint").received(&error.to_string()))?;
    let reported: Reported = serde_json::from_slice(&body)
        .map_err(|error| Refusal::malformed("checkpoint").received(&error.to_string()))?;
    let body = RunCheckpointed {
        run: caller.run.id,
        number: reported.number,
        manifest: reported.manifest,
        entries: reported.entries,
        bytes: reported.bytes,
    };
    let receipt = app
        .ledger
        .submit(Recording::one(caller.actor(), body))
        .await?;
    Ok(axum::Json(json!({ "index": receipt.first })).into_response())
}
