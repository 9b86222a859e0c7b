//! One request's way: choose the arm, send, answer, count.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;

use crate::body::{BackendBody, ClientBody, Progress, ProxyBody};
use crate::counts::{Ending, Ticket};
use crate::headers;
use crate::plane::{Epoch, Plane};
use crate::pool::Lease;
use crate::wire::{Release, StickyKey};

/// Serves one request. `client` is the peer's address as a header value.
pub(crate) async fn handle(
    plane: &Arc<Plane>,
    client: &HeaderValue,
    mut request: Request<Incoming>,
) -> Response<ProxyBody> {
    if let Some(refused) = refuse(&request) {
        return refused;
    }
    let Some(epoch) = plane.current() else {
        return own(
            StatusCode::SERVICE_UNAVAILABLE,
            "proxy-unconfigured",
            "no release is being served yet",
        );
    };
    let release = plane.choose(&epoch, sticky_key(&epoch, request.headers()));
    let protocol = headers::upgrade(request.headers());
    let mut upgrade = protocol.is_some().then(|| hyper::upgrade::on(&mut request));
    if upgrade.is_some() && plane.upgrades.load(Ordering::Relaxed) >= plane.limits.max_upgrades {
        return own(
            StatusCode::SERVICE_UNAVAILABLE,
            "proxy-upgrades-full",
            "too many upgraded connections are open",
        );
    }
    let (mut parts, body) = request.into_parts();
    prepare(&mut parts, client, protocol);
    let idempotent = is_idempotent(&parts.method);
    let request = Request::from_parts(parts, ClientBody::new(body));

    match attempt(plane, &epoch, release, request, &mut upgrade).await {
        Ok(response) => response,
        Err(Failed {
            unsent: Some(request),
            ..
        }) if release == Release::Canary && idempotent => {
            match attempt(plane, &epoch, Release::Stable, *request, &mut upgrade).await {
                Ok(response) => response,
                Err(failed) => failed.response(),
            }
        }
        Err(failed) => failed.response(),
    }
}

/// A request that no backend shall see.
fn refuse(request: &Request<Incoming>) -> Option<Response<ProxyBody>> {
    if request.method() == Method::CONNECT {
        return Some(own(
            StatusCode::METHOD_NOT_ALLOWED,
            "connect-not-allowed",
            "this is a reverse proxy; it opens no tunnels",
        ));
    }
    let hosts = request.headers().get_all(HOST).iter().count();
    let needs_host = request.version() == Version::HTTP_11;
    if hosts > 1 || (needs_host && hosts == 0) {
        return Some(own(
            StatusCode::BAD_REQUEST,
            "host-missing-or-repeated",
            "HTTP/1.1 needs exactly one Host field",
        ));
    }
    None
}

fn sticky_key<'h>(epoch: &Epoch, headers: &'h HeaderMap) -> Option<&'h [u8]> {
    match epoch.routing.sticky.as_ref()? {
        StickyKey::Cookie(name) => headers::cookie(headers, name),
        StickyKey::Header(name) => headers.get(name.as_str()).map(HeaderValue::as_bytes),
    }
}

/// Turns the client's head into the one that the backend gets.
fn prepare(parts: &mut Parts, client: &HeaderValue, upgrade: Option<HeaderValue>) {
    headers::strip(&mut parts.headers, upgrade);
    headers::forwarded_for(&mut parts.headers, client);
    // We answer `100-continue` ourselves, by beginning to read the body.
    parts.headers.remove(EXPECT);
    if let Some(authority) = parts.uri.authority() {
        // Absolute form: the target names the host, whatever Host says (RFC 9112, section 3.2.2).
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            parts.headers.insert(HOST, host);
        }
        parts.uri = parts
            .uri
            .path_and_query()
            .map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
    }
    parts
        .headers
        .entry(HOST)
        .or_insert(HeaderValue::from_static("localhost"));
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
}

/// Methods that RFC 9110, section 9.2.2, calls idempotent.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// A try that brought no response.
struct Failed {
    status: StatusCode,
    code: &'static str,
    words: &'static str,
    /// The request, where no byte of it was sent.
    unsent: Option<Box<Request<ClientBody>>>,
}

impl Failed {
    fn response(&self) -> Response<ProxyBody> {
        own(self.status, self.code, self.words)
    }
}

/// Sends the request to one arm, and counts it there.
async fn attempt(
    plane: &Arc<Plane>,
    epoch: &Arc<Epoch>,
    release: Release,
    mut request: Request<ClientBody>,
    upgrade: &mut Option<OnUpgrade>,
) -> Result<Response<ProxyBody>, Failed> {
    let pool = match release {
        Release::Stable => &epoch.stable,
        Release::Canary => epoch.canary.as_ref().unwrap_or(&epoch.stable),
    };
    let timeout = Duration::from_millis(plane.limits.response_timeout_ms);
    let mut ticket = Ticket::new(Arc::clone(epoch), release);
    // A kept connection may be closing just now; that is nobody's error, so what can be repeated
    // is repeated on a new one.
    if let Some(mut lease) = pool.reuse().await {
        let copy = repeatable_copy(&request);
        match exchange(&mut lease, request, timeout).await {
            Ok(response) => return answer(plane, epoch, ticket, lease, response, upgrade),
            Err(Broken::Closed(unsent)) => match unsent.map(|unsent| *unsent).or(copy) {
                Some(again) => request = again,
                None => return Err(failed(&mut ticket, &Broken::Closed(None))),
            },
            Err(broken) => return Err(failed(&mut ticket, &broken)),
        }
    }
    let connected = pool.connect().await;
    if release == Release::Canary {
        plane.canary_reached(epoch, connected.is_ok());
    }
    let mut lease = match connected {
        Ok(lease) => lease,
        Err(error) => {
            tracing::debug!(release = release.as_str(), %error, "no connection to the release");
            ticket.ends(Ending::ConnectFailure);
            return Err(Failed {
                status: StatusCode::BAD_GATEWAY,
                code: "release-unreachable",
                words: "the release takes no connections",
                unsent: Some(Box::new(request)),
            });
        }
    };
    match exchange(&mut lease, request, timeout).await {
        Ok(response) => answer(plane, epoch, ticket, lease, response, upgrade),
        Err(broken) => Err(failed(&mut ticket, &broken)),
    }
}

/// The same request again, where that is allowed and costs nothing.
fn repeatable_copy(request: &Request<ClientBody>) -> Option<Request<ClientBody>> {
    if !request.body().is_empty() || !is_idempotent(request.method()) {
        return None;
    }
    let mut copy = Request::new(ClientBody::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// Why an exchange brought no response.
enum Broken {
    /// The connection ended before a response; with the request if no byte of it was sent.
    Closed(Option<Box<Request<ClientBody>>>),
    /// What came is not HTTP.
    Garbled,
    /// Nothing came in time.
    Timeout,
    /// The client's body did not come.
    Client,
}

async fn exchange(
    lease: &mut Lease,
    request: Request<ClientBody>,
    timeout: Duration,
) -> Result<Response<Incoming>, Broken> {
    let progress = request.body().progress();
    let progress = progress.as_deref();
    let mut sent = pin!(lease.send(request));
    let mut deadline = Instant::now() + timeout;
    loop {
        match tokio::time::timeout_at(deadline.into(), sent.as_mut()).await {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(_)) if progress.is_some_and(Progress::failed) => return Err(Broken::Client),
            Ok(Err((error, unsent))) => {
                return Err(if unsent.is_some() || is_closed(&error) {
                    Broken::Closed(unsent.map(Box::new))
                } else {
                    Broken::Garbled
                });
            }
            // The time runs from the last sign of the client's body.
            Err(_) => match progress {
                Some(progress) if progress.last() + timeout > Instant::now() => {
                    deadline = progress.last() + timeout;
                }
                Some(progress) if progress.clients_fault() => return Err(Broken::Client),
                Some(_) | None => return Err(Broken::Timeout),
            },
        }
    }
}

fn is_closed(error: &hyper::Error) -> bool {
    let io = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .is_some();
    io || error.is_incomplete_message() || error.is_canceled() || error.is_closed()
}

fn failed(ticket: &mut Ticket, broken: &Broken) -> Failed {
    let (ending, status, code, words) = match broken {
        Broken::Closed(_) => (
            Ending::Error,
            StatusCode::BAD_GATEWAY,
            "release-closed",
            "the release closed the connection without a response",
        ),
        Broken::Garbled => (
            Ending::Error,
            StatusCode::BAD_GATEWAY,
            "release-garbled",
            "the release answered with something other than HTTP",
        ),
        Broken::Timeout => (
            Ending::Timeout,
            StatusCode::GATEWAY_TIMEOUT,
            "release-timeout",
            "the release did not answer in time",
        ),
        Broken::Client => (
            Ending::ClientsDoing,
            StatusCode::REQUEST_TIMEOUT,
            "body-incomplete",
            "the request's body did not come",
        ),
    };
    ticket.ends(ending);
    Failed {
        status,
        code,
        words,
        unsent: None,
    }
}

/// Passes the response on.
fn answer(
    plane: &Arc<Plane>,
    epoch: &Epoch,
    mut ticket: Ticket,
    lease: Lease,
    mut response: Response<Incoming>,
    upgrade: &mut Option<OnUpgrade>,
) -> Result<Response<ProxyBody>, Failed> {
    let release = ticket.release();
    let protocol = if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let protocol = headers::upgrade(response.headers());
        let (Some(protocol), Some(client)) = (protocol, upgrade.take()) else {
            return Err(failed(&mut ticket, &Broken::Garbled));
        };
        tunnel(plane, client, hyper::upgrade::on(&mut response));
        Some(protocol)
    } else {
        None
    };
    ticket.head(response.status().is_server_error());
    let (mut parts, body) = response.into_parts();
    headers::strip(&mut parts.headers, protocol.clone());
    if epoch.routing.mark_responses {
        let value = HeaderValue::from_static(release.as_str());
        parts.headers.insert(headers::RELEASE, value);
    }
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    let body = if protocol.is_some() {
        // The connection belongs to the tunnel now, and the request has ended well.
        ProxyBody::Own(Full::default())
    } else {
        let idle_timeout = Duration::from_millis(plane.limits.body_idle_timeout_ms);
        ProxyBody::Backend(BackendBody::new(body, lease, ticket, idle_timeout))
    };
    Ok(Response::from_parts(parts, body))
}

/// Carries bytes both ways until one side ends, or the proxy does.
fn tunnel(plane: &Arc<Plane>, client: OnUpgrade, backend: OnUpgrade) {
    let plane = Arc::clone(plane);
    plane.upgrades.fetch_add(1, Ordering::Relaxed);
    tokio::spawn(async move {
        let carried = async {
            let (client, backend) = tokio::try_join!(client, backend)?;
            let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
            tokio::io::copy_bidirectional(&mut client, &mut backend).await?;
            Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
        };
        tokio::select! {
            carried = carried => if let Err(error) = carried {
                tracing::debug!(%error, "an upgraded connection broke");
            },
            () = plane.stopped() => {}
        }
        plane.upgrades.fetch_sub(1, Ordering::Relaxed);
    });
}

/// A response of the proxy itself, as RFC 9457 writes problems.
pub(crate) fn own(
    status: StatusCode,
    code: &'static str,
    words: &'static str,
) -> Response<ProxyBody> {
    let problem = serde_json::json!({
        "type": "about:blank", "title": words, "status": status.as_u16(), "code": code,
    });
    let mut response = Response::new(ProxyBody::Own(Full::new(Bytes::from(problem.to_string()))));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    response
}
