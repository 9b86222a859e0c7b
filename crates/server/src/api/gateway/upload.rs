//! A body that is larger than what is held: looked at while it passes, and broken off where
//! something in it must not leave.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use portcullis_checks::outgoing::{Found, Kept, Rolling};
use portcullis_gateway::http::upload::{
    self, Next, STREAM_SILENCE, UPLOAD_MAX_BYTES, Upload, UploadSender,
};
use portcullis_model::Refusal;
use portcullis_policy::action::{Action, NetConnect};

use super::Caller;
use super::http::{decide, noted, texts};
use crate::app::App;

/// A pause of this length lets go of what came so far.
const FLUSH: Duration = Duration::from_millis(100);

/// Why a body was broken off, once it was. The denial is recorded by then.
#[derive(Clone, Default)]
pub(super) struct BrokenOff(Arc<Mutex<Option<Refusal>>>);

impl BrokenOff {
    fn set(&self, refusal: Refusal) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
    }

    pub(super) fn take(&self) -> Option<Refusal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What is left of a large body. Where it is refused, it is read to its end all the same: a client
/// reads the answer when it has sent what it wanted to.
pub(super) struct Rest(Option<Body>);

impl Rest {
    pub(super) const fn new(body: Body) -> Self {
        Self(Some(body))
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        if let Some(body) = self.0.take() {
            tokio::spawn(upload::drain(body));
        }
    }
}

/// What the way out of a large body, or of what follows a request, needs to know.
pub(super) struct Passing {
    pub(super) caller: Caller,
    pub(super) kept: Arc<Kept>,
    /// What policy permitted, of the head and the beginning.
    pub(super) facts: NetConnect,
    pub(super) resource: String,
}

/// Whether a body of this request may pass as a stream.
///
/// # Errors
/// `request-too-large`, `body-not-readable`.
pub(super) fn check(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    if is_encoded(headers) {
        return Err(Refusal::denied(
            "body-not-readable",
            "a compressed body of this size can't be looked at, so it does not leave",
        )
        .expected(&format!(
            "at most {} bytes of a compressed body",
            upload::HELD_MAX_BYTES
        ))
        .received("more")
        .next("switch compression of requests off in the client, or send less at a time"));
    }
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match length {
        Some(length) if length > UPLOAD_MAX_BYTES => Err(too_large(&length.to_string())),
        length => Ok(length),
    }
}

/// Whether a body is coded, so that it can be looked at only when it is whole.
pub(super) fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn too_large(received: &str) -> Refusal {
    Refusal::limit("request-too-large", "the request is too large to leave")
        .expected(&format!("a body of at most {UPLOAD_MAX_BYTES} bytes"))
        .received(received)
        .next("send it in parts")
}

/// The body as it leaves, and a task that looks at each part before it does.
pub(super) fn stream(
    app: &Arc<App>,
    passing: Passing,
    length: Option<u64>,
    first: Bytes,
    mut rest: Rest,
) -> (Upload, BrokenOff) {
    let (sender, upload) = Upload::streamed(length);
    let broken = BrokenOff::default();
    let (app, told) = (Arc::clone(app), broken.clone());
    tokio::spawn(async move {
        let Err(refusal) = pass(&app, passing, &sender, first, &mut rest).await else {
            return;
        };
        told.set(refusal.clone());
        sender.break_off(refusal).await;
    });
    (upload, broken)
}

async fn pass(
    app: &App,
    mut passing: Passing,
    sender: &UploadSender,
    first: Bytes,
    rest: &mut Rest,
) -> Result<(), Refusal> {
    let mut rolling = Rolling::default();
    let mut seen = 0_u64;
    let mut piece = Some(first);
    let mut silence = Duration::ZERO;
    loop {
        if let Some(bytes) = piece.take() {
            silence = Duration::ZERO;
            seen = seen.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            if seen > UPLOAD_MAX_BYTES {
                return Err(too_large("more"));
            }
            let may_go = match rolling.push(&passing.kept, &bytes) {
                Ok(may_go) => may_go,
                Err(found) => return Err(denied(app, &mut passing, found).await),
            };
            if !may_go.is_empty() && !sender.send(may_go.into()).await {
                // The host does not want more; its answer says why.
                return Ok(());
            }
        }
        let Some(body) = &mut rest.0 else { break };
        match upload::next_within(body, FLUSH).await? {
            Next::Piece(bytes) => piece = Some(bytes),
            Next::End => break,
            Next::Silence => {
                silence = silence.saturating_add(FLUSH);
                if silence >= STREAM_SILENCE {
                    return Err(too_silent());
                }
                // Who speaks and waits for an answer is not kept waiting.
                let may_go = match rolling.pause(&passing.kept) {
                    Ok(may_go) => may_go,
                    Err(found) => return Err(denied(app, &mut passing, found).await),
                };
                if !may_go.is_empty() && !sender.send(may_go.into()).await {
                    return Ok(());
                }
            }
        }
    }
    match rolling.finish(&passing.kept) {
        Ok(may_go) => {
            sender.send(may_go.into()).await;
            Ok(())
        }
        Err(found) => Err(denied(app, &mut passing, found).await),
    }
}

fn too_silent() -> Refusal {
    Refusal::limit("request-too-slow", "the request's body does not come")
        .expected(&format!(
            "bytes at least every {} s",
            STREAM_SILENCE.as_secs()
        ))
        .next("send it without such pauses")
}

/// Policy says no in its words, and the ledger gets it. Should it say yes here, the body is broken
/// off all the same: what waits in it was not decided on in time.
async fn denied(app: &App, passing: &mut Passing, found: Found) -> Refusal {
    passing.facts.secrets.extend(texts(found.secrets));
    passing.facts.kept_files.extend(found.kept_files);
    let action = Action::NetConnect(passing.facts.clone());
    match decide(app, &passing.caller, action, &passing.resource).await {
        Err(refusal) => refusal,
        Ok(_unused) => {
            let refusal = Refusal::denied(
                "found-on-the-way",
                "something that must not leave was found in a body that was leaving already",
            )
            .expected("a body that policy can see whole before it decides")
            .next("send it without pauses, in parts of at most 8 MiB");
            let (caller, resource) = (&passing.caller, &passing.resource);
            let told = noted::<()>(app, caller, "net.connect", resource, Err(refusal.clone()));
            told.await.err().unwrap_or(refusal)
        }
    }
}
