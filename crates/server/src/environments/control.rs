//! What a supervisor tells and takes, over its control socket. Who can open it may stop the
//! service; it lies in a directory that only its owner enters.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use portcullis_model::{Digest, Refusal, ReleaseId};
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::disk;

/// Longest wait for a supervisor's answer: it does nothing else.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for a service's answer to one question after its health.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest answer in bytes that is read.
const ANSWER_MAX_BYTES: usize = 16 * 1024;

/// Where a supervised service stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Its bytes are checked and its sandbox is built.
    Starting,
    /// It runs.
    Running,
    /// It ended, and is started again in a moment.
    BackingOff,
    /// It ended too often, or can't be started; nothing more is tried.
    Failed,
    /// It is being stopped.
    Stopping,
}

/// The answer to `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Which release.
    pub release: ReleaseId,
    /// SHA-256 of its artifact.
    pub artifact: Digest,
    /// Where it stands.
    pub phase: Phase,
    /// How often it ended without being asked to.
    pub deaths: u64,
    /// Since when it stands there, in ms since 1970.
    pub since_unix_ms: u64,
    /// Host user of the service, once it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
    /// Stable code of the last end, such as `exited-1`, `signalled-9`, `artifact-altered`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// The supervisor's side: serves until it is dropped. `stop` becomes true when somebody asks.
///
/// # Errors
/// The socket can't be made.
pub async fn serve(
    socket: &Path,
    status: watch::Receiver<Status>,
    stop: Arc<watch::Sender<bool>>,
) -> Result<Infallible, Refusal> {
    // Its lock is ours, so what is there is dead.
    drop(std::fs::remove_file(socket));
    let listener = UnixListener::bind(socket).map_err(|error| disk("bind", socket, &error))?;
    let router =
        Router::new()
            .route(
                "/v1/status",
                get(|State((status, _)): State<Shared>| async move {
                    axum::Json(status.borrow().clone())
                }),
            )
            .route(
                "/v1/stop",
                post(|State((status, stop)): State<Shared>| async move {
                    stop.send_replace(true);
                    axum::Json(status.borrow().clone())
                }),
            )
            .with_state((status, stop));
    axum::serve(listener, router)
        .await
        .map_err(|error| disk("serve", socket, &error))?;
    Err(Refusal::internal("the control socket ended by itself"))
}

type Shared = (watch::Receiver<Status>, Arc<watch::Sender<bool>>);

/// Asks a supervisor how its service stands.
///
/// # Errors
/// `target-unreachable`: nobody answers there.
pub async fn status(socket: &Path) -> Result<Status, Refusal> {
    ask(socket, Method::GET, "/v1/status").await
}

/// Asks a supervisor to stop its service and end; answers before it did.
///
/// # Errors
/// `target-unreachable`: nobody answers there.
pub async fn stop(socket: &Path) -> Result<Status, Refusal> {
    ask(socket, Method::POST, "/v1/stop").await
}

/// Whether a service answers anything to `GET /`.
pub async fn answers(socket: &Path) -> bool {
    tokio::time::timeout(HEALTH_TIMEOUT, exchange(socket, Method::GET, "/", 0))
        .await
        .is_ok_and(|answer| answer.is_ok())
}

async fn ask(socket: &Path, method: Method, path: &str) -> Result<Status, Refusal> {
    let unreachable = |cause: &dyn std::fmt::Display| {
        Refusal::unavailable(
            "target-unreachable",
            format!("no supervisor answers on {}: {cause}", socket.display()),
        )
    };
    let (code, body) = tokio::time::timeout(
        ANSWER_TIMEOUT,
        exchange(socket, method, path, ANSWER_MAX_BYTES),
    )
    .await
    .map_err(|_| unreachable(&"no answer within 2 s"))?
    .map_err(|error| unreachable(&error))?;
    if code != StatusCode::OK {
        return Err(unreachable(&format!("status {code}")));
    }
    serde_json::from_slice(&body).map_err(|error| unreachable(&error))
}

/// One request over a connection of its own. With `most` 0 the body is left alone.
async fn exchange(
    socket: &Path,
    method: Method,
    path: &str,
    most: usize,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let exchange = async {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, "localhost")
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let code = response.status();
        if most == 0 {
            return Ok((code, Bytes::new()));
        }
        let body = Limited::new(response.into_body(), most).collect().await?;
        Ok((code, body.to_bytes()))
    };
    let result = exchange.await;
    connection.abort();
    result
}
