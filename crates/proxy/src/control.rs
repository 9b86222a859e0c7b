//! The control API over the unix socket. Each handler parses, decides, acts, answers; who may ask
//! is settled by the socket's mode.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use portcullis_model::{Refusal, RefusalKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use crate::plane::Plane;
use crate::wire::{HeartbeatRequest, Routing, StableRequest};

/// Largest body of a control request in bytes; a configuration is below one kilobyte.
const BODY_MAX_BYTES: usize = 16 * 1024;
/// Control connections at once: one control plane, a few people.
const CONNECTIONS_MAX: usize = 64;
/// Time for a control client to send its request.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after `accept` failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

pub(crate) async fn serve(plane: Arc<Plane>, listener: UnixListener) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a control connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let plane = Arc::clone(&plane);
        tokio::spawn(async move {
            let service = service_fn(|request| async {
                Ok::<_, Infallible>(
                    route(&plane, request)
                        .await
                        .unwrap_or_else(|no| problem(&no)),
                )
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(READ_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a control connection broke");
            }
            drop(slot);
        });
    }
}

async fn route(
    plane: &Plane,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::PUT, "/v1/config") => {
            let routing: Routing = read("proxy config", request).await?;
            json(&plane.configure(routing).await?)
        }
        (&Method::POST, "/v1/stable") => {
            // Even a body that can't be read keeps nobody from going to stable.
            let asked = read::<StableRequest>("stable request", request).await;
            let ack = plane
                .to_stable(
                    asked
                        .as_ref()
                        .ok()
                        .and_then(|asked| asked.refuse_up_to_epoch),
                )
                .await;
            json(&ack)
        }
        (&Method::POST, "/v1/heartbeat") => {
            let beat: HeartbeatRequest = read("heartbeat", request).await?;
            plane.heartbeat(beat.epoch)?;
            json(&beat)
        }
        (&Method::GET, "/v1/stats") => json(&plane.stats().await),
        (method, path) => Err(Refusal::not_found("endpoint", format!("{method} {path}"))
            .expected("PUT /v1/config, POST /v1/stable, POST /v1/heartbeat or GET /v1/stats")),
    }
}

async fn read<T: DeserializeOwned>(what: &str, request: Request<Incoming>) -> Result<T, Refusal> {
    let body = Limited::new(request.into_body(), BODY_MAX_BYTES).collect();
    let body = tokio::time::timeout(READ_TIMEOUT, body)
        .await
        .map_err(|_| Refusal::malformed(what).expected("a body within 5 s"))?
        .map_err(|error| {
            Refusal::limit("proxy-body", "the body can't be read")
                .expected("at most 16384 bytes")
                .received(&error.to_string())
        })?
        .to_bytes();
    serde_json::from_slice(&body)
        .map_err(|error| Refusal::malformed(what).received(&error.to_string()))
}

fn json<T: Serialize>(value: &T) -> Result<Response<Full<Bytes>>, Refusal> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| Refusal::internal(format!("an answer does not serialise: {error}")))?;
    Ok(answer(StatusCode::OK, "application/json", bytes))
}

/// A refusal as RFC 9457 writes problems, with our own fields beside the standard ones.
fn problem(refusal: &Refusal) -> Response<Full<Bytes>> {
    let status = match refusal.kind {
        RefusalKind::Malformed => StatusCode::BAD_REQUEST,
        RefusalKind::Denied | RefusalKind::NeedsApproval => StatusCode::FORBIDDEN,
        RefusalKind::NotFound => StatusCode::NOT_FOUND,
        RefusalKind::Conflict => StatusCode::CONFLICT,
        RefusalKind::Limit => StatusCode::PAYLOAD_TOO_LARGE,
        RefusalKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        RefusalKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut value = serde_json::to_value(refusal).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.insert("type".into(), "about:blank".into());
        fields.insert("title".into(), refusal.message.clone().into());
        fields.insert("status".into(), status.as_u16().into());
    }
    answer(
        status,
        "application/problem+json",
        value.to_string().into_bytes(),
    )
}

fn answer(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
