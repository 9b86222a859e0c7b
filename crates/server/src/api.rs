//! The HTTP API. Reads are open to whoever reaches the listener, which is loopback; whatever
//! changes something carries a signature of its own.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{DefaultBodyLimit, Path, Request, State as Shared};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post, put};
use base64::Engine as _;
use portcullis_model::document::from_json;
use portcullis_model::statement::{Command, Envelope};
use portcullis_model::{Digest, Refusal, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::intake;
use gateway::connection::Connection;

pub mod gateway;
pub mod ledger;
pub mod log;
pub mod problem;
pub mod reads;
mod recording;
pub mod review;

pub use problem::Problem;

/// Largest command with its attachments, in bytes.
pub const COMMAND_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Largest blob that may be uploaded, in bytes: an artifact of the embedded builder.
pub const BLOB_MAX_BYTES: usize = 256 * 1024 * 1024;

/// What handlers answer.
pub type Answer = Result<axum::Json<Value>, Problem>;

/// The server on one connection.
#[derive(Clone)]
pub struct Entrance {
    app: Arc<App>,
    router: Router,
    connection: Connection,
}

impl Entrance {
    /// For connections that come in, each of which gets its own.
    pub fn new(app: Arc<App>) -> Self {
        Self {
            router: router(Arc::clone(&app)),
            app,
            connection: Connection::default(),
        }
    }

    /// The same for a new connection.
    pub(crate) fn of(&self, connection: Connection) -> Self {
        Self {
            connection,
            ..self.clone()
        }
    }
}

impl tower_service::Service<Request> for Entrance {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Self {
            app,
            router,
            connection,
        } = self.clone();
        Box::pin(async move {
            let moment = Moment::now(&app);
            let mut answer = match check(&app, &moment, &request) {
                Err(refusal) => Problem::from(refusal).into_response(),
                // What runs ask comes most often by far, and takes the short way.
                Ok(()) if request.uri().path().starts_with("/gateway/v1/") => {
                    gateway::handle(&app, connection, request).await
                }
                Ok(()) => {
                    let mut router = router;
                    let Ok(answer) = router.call(request).await;
                    answer
                }
            };
            moment.tell(&app, answer.headers_mut());
            Ok(answer)
        })
    }
}

/// Every route of the server but the gateway's.
fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/commands", post(commands))
        .route("/v1/approvals", post(approvals))
        .route("/v1/tasks/check", post(check_task))
        .route("/v1/blobs/{digest}", put(put_blob).get(get_blob))
        .merge(reads::routes())
        .merge(ledger::routes())
        .nest("/log", log::routes())
        // What the router and its extractors refuse by themselves; the gateway's answers are others'.
        .layer(map_response(problem::of_router))
        .route("/git/{*path}", any(gateway::people))
        .fallback(not_found)
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}

/// Of which moment an answer is.
///
/// `portcullis-as-of` holds the number of entries and a time: at the leader the present, at a
/// standby when it last saw that there are no more. It is taken before the answer is made, so an
/// answer may be newer and is never older.
struct Moment {
    entries: u64,
    time: Timestamp,
    standby: bool,
}

impl Moment {
    fn now(app: &App) -> Self {
        let standby = app.ledger.as_of();
        Self {
            entries: app.ledger.size(),
            time: standby.unwrap_or_else(crate::app::now),
            standby: standby.is_some(),
        }
    }

    fn tell(&self, app: &App, headers: &mut HeaderMap) {
        let told = format!("{}; {}", self.entries, self.time);
        if let Ok(told) = HeaderValue::from_str(&told) {
            headers.insert(AS_OF, told);
        }
        if self.standby
            && let Some(leader) = app.ledger.leader()
            && let Ok(leader) = HeaderValue::from_str(&leader)
        {
            headers.insert(LEADER, leader);
        }
    }
}

/// Refuses what is asked under another's name, and at a standby what only the leader does.
fn check(app: &App, moment: &Moment, request: &Request) -> Result<(), Refusal> {
    only_by_local_name(request)?;
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match app.ledger.why_closed() {
        Some(refusal) if moment.standby && !reads => Err(refusal),
        Some(_) | None => Ok(()),
    }
}

/// The header that says of which moment an answer is.
const AS_OF: HeaderName = HeaderName::from_static("portcullis-as-of");
/// The header in which a standby says who leads.
const LEADER: HeaderName = HeaderName::from_static("portcullis-leader");

/// Reads are open to whoever reaches the listener, and a browser on this machine reaches it for
/// any page whose name was made to point here. Such a page still asks by its own name.
fn only_by_local_name(request: &Request) -> Result<(), Refusal> {
    let host = match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => one_header(request.headers(), "host")?,
    };
    match host.filter(|host| !is_local_name(host)) {
        None => Ok(()),
        Some(other) => Err(Refusal::denied(
            "wrong-host",
            "this server answers by its local names only",
        )
        .expected("localhost or a loopback address")
        .received(other)
        .next("use the server's URL, which `portcullis serve` prints")),
    }
}

/// Whether a `host[:port]` is this machine to itself.
fn is_local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    name.is_some_and(|name| {
        name.eq_ignore_ascii_case("localhost")
            || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

async fn not_found(request: Request) -> Problem {
    Refusal::not_found("page", request.uri().path())
        .next("see docs/api.md for what there is")
        .into()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandBody {
    envelope: Envelope,
    #[serde(default)]
    attachments: Vec<String>,
}

/// Reads a JSON body of at most [`COMMAND_MAX_BYTES`].
async fn read_json<T: serde::de::DeserializeOwned>(what: &str, body: Body) -> Result<T, Refusal> {
    let bytes = to_bytes(body, COMMAND_MAX_BYTES).await.map_err(|error| {
        Refusal::limit("body-too-large", "the body is too large or was cut off")
            .expected(&format!("at most {COMMAND_MAX_BYTES} bytes"))
            .received(&error.to_string())
    })?;
    if bytes.len() <= portcullis_model::limits::DOCUMENT_MAX_BYTES {
        return from_json(what, &bytes);
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::malformed(what).received(&error.to_string()))
}

async fn commands(Shared(app): Shared<Arc<App>>, headers: HeaderMap, request: Request) -> Answer {
    let possession = one_header(&headers, "dpop")?.map(str::to_owned);
    let body: CommandBody = read_json("command", request.into_body()).await?;
    // In a task of its own: a client that goes away must not cut what is acted on from its record.
    let taken = tokio::spawn(async move {
        intake::take(&app, body.envelope, body.attachments, possession.as_deref()).await
    });
    let answer = taken
        .await
        .map_err(|_| Refusal::internal("a command was cut off"))?;
    Ok(axum::Json(answer?))
}

/// The value of a header that may stand once.
pub(crate) fn one_header<'a>(
    headers: &'a HeaderMap,
    name: &str,
) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| {
            Refusal::malformed("header")
                .expected("visible ASCII")
                .received(name)
        }),
        (Some(_), Some(_)) => Err(Refusal::malformed("header")
            .expected(&format!("one `{name}` header"))
            .received("several")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApprovalBody {
    envelope: Envelope,
}

async fn approvals(Shared(app): Shared<Arc<App>>, request: Request) -> Answer {
    let body: ApprovalBody = read_json("approval", request.into_body()).await?;
    Ok(axum::Json(intake::approve(&app, body.envelope).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskBody {
    envelope: Envelope,
    text: portcullis_model::TaskText,
}

/// Would this task be taken in now? Nothing is recorded.
async fn check_task(Shared(app): Shared<Arc<App>>, request: Request) -> Answer {
    let body: TaskBody = read_json("task", request.into_body()).await?;
    let state = app.state();
    let checked = intake::run::check_task(&state, body.envelope)?;
    body.text.validate()?;
    if body.text.digest()? != checked.task.text {
        return Err(Refusal::denied(
            "task-text-altered",
            "title and text are not what was signed",
        )
        .next("sign the task again with `portcullis task sign`")
        .into());
    }
    intake::run::check_bases_upstream(&app, &state, &checked.task).await?;
    if !state.tasks.contains_key(&checked.id) {
        intake::run::accepted_body(&app, &state, &checked)?;
    }
    Ok(axum::Json(json!({ "ok": true, "task": checked.id })))
}

/// A blob that a signed command says is coming.
async fn put_blob(
    Shared(app): Shared<Arc<App>>,
    Path(digest): Path<String>,
    request: Request,
) -> Answer {
    let named: Digest = digest.parse()?;
    let header = one_header(request.headers(), "portcullis-command")?.ok_or_else(|| {
        Refusal::denied("unsigned-upload", "an upload takes a signed command")
            .expected("a `portcullis-command` header with an upload's envelope in base64")
    })?;
    let envelope = base64::engine::general_purpose::STANDARD
        .decode(header)
        .map_err(|error| Refusal::malformed("command header").received(&error.to_string()))?;
    let envelope: Envelope = from_json("command envelope", &envelope)?;
    let verified = intake::identify(&app, envelope, Vec::new())?;
    let (digest, size) = match verified.command.command {
        Command::Upload { digest, size } if digest == named => (digest, size),
        ref other => {
            return Err(
                Refusal::denied("command-mismatch", "the command is not for this upload")
                    .expected(&named.to_string())
                    .received(other.name())
                    .into(),
            );
        }
    };
    intake::check_timely(&app, &verified)?;
    let max = usize::try_from(size)
        .unwrap_or(usize::MAX)
        .min(BLOB_MAX_BYTES);
    // Held in memory until their digest is known, so they are bounded together as well.
    let room = u32::try_from(max.div_ceil(UPLOAD_UNIT_BYTES)).unwrap_or(u32::MAX);
    let _room = tokio::time::timeout(UPLOAD_WAIT, UPLOADS.acquire_many(room.max(1)))
        .await
        .ok()
        .and_then(Result::ok)
        .ok_or_else(|| {
            Refusal::limit("uploads-busy", "too much is being uploaded at once")
                .expected(&format!(
                    "at most {UPLOADS_MAX_BYTES} bytes under way together"
                ))
                .next("try again in a moment")
        })?;
    let bytes = to_bytes(request.into_body(), max).await.map_err(|error| {
        Refusal::limit(
            "blob-too-large",
            "the blob is larger than was said, or than may be",
        )
        .expected(&format!("{size} bytes, at most {BLOB_MAX_BYTES}"))
        .received(&error.to_string())
    })?;
    let found = Digest::of(&bytes);
    if found != digest {
        return Err(Refusal::malformed("blob")
            .expected(&digest.to_string())
            .received(&found.to_string())
            .into());
    }
    app.ledger.blobs().put(&bytes)?;
    Ok(axum::Json(json!({ "digest": digest })))
}

/// Most bytes of uploads under way at once: two of the largest.
const UPLOADS_MAX_BYTES: usize = 2 * BLOB_MAX_BYTES;
/// What uploads are counted in, in bytes.
const UPLOAD_UNIT_BYTES: usize = 64 * 1024;
/// How long an upload waits for others to end.
const UPLOAD_WAIT: std::time::Duration = std::time::Duration::from_secs(30);
static UPLOADS: tokio::sync::Semaphore =
    tokio::sync::Semaphore::const_new(UPLOADS_MAX_BYTES / UPLOAD_UNIT_BYTES);

async fn get_blob(
    Shared(app): Shared<Arc<App>>,
    Path(digest): Path<String>,
) -> Result<Response, Problem> {
    let digest: Digest = digest.parse()?;
    let bytes = app.ledger.blobs().get(&digest)?;
    Ok(([("content-type", "application/octet-stream")], bytes).into_response())
}

#[cfg(test)]
mod tests {
    use super::is_local_name;

    #[test]
    fn only_this_machines_own_names_are_local() {
        for host in [
            "localhost",
            "LocalHost:8642",
            "127.0.0.1:8642",
            "127.1.2.3",
            "[::1]:8642",
        ] {
            assert!(is_local_name(host), "{host}");
        }
        for host in [
            "",
            "page.example:8642",
            "localhost.page.example",
            "127.0.0.1.page.example",
            "10.0.0.1:8642",
            "[2001:db8::1]:8642",
        ] {
            assert!(!is_local_name(host), "{host}");
        }
    }
}
