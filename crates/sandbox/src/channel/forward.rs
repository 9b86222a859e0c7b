//! One request: from inside, with a proof, to the gateway, and back.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, TE, UPGRADE};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use portcullis_model::{Refusal, RefusalKind};
use tokio::io::{AsyncRead, AsyncWrite};

use super::authority::Authority;
use super::connections::{Answer, Connections, Prover};
use super::extended;
use super::inlet;
use super::meant::{Meant, Scheme};
use super::names::Names;
use super::route::{
    GATEWAY, Route, aimed_at, route, strip_claims, strip_hop_by_hop, wants_websocket,
};
use super::{Capture, Gateway, Patience};

/// Name of the tunnel protocol in `upgrade`.
const TUNNEL: &str = "portcullis-tunnel";
const TARGET: HeaderName = HeaderName::from_static("portcullis-target");

pub(super) const REFUSAL: HeaderName = HeaderName::from_static("portcullis-refusal");
const FOR_TARGET: HeaderName = HeaderName::from_static("portcullis-target-authorization");

/// Refusals of requests as to a proxy that the ledger is told of.
const RECORDED: [&str; 3] = [
    "ambiguous-length",
    "malformed-request-target",
    "transfer-coding",
];

pub(super) type Body = BoxBody<Bytes, hyper::Error>;

/// What all connections of one channel share.
pub(super) struct Forwarder {
    server: Connections,
    own: String,
    capture: Option<Capture>,
    names: Arc<Names>,
    pub(super) patience: Patience,
}

impl Forwarder {
    pub(super) fn new(
        gateway: &Gateway,
        prover: Arc<dyn Prover>,
        own: SocketAddr,
        capture: Option<Capture>,
        names: Arc<Names>,
    ) -> Result<Self, Refusal> {
        Ok(Self {
            server: Connections::new(gateway, base(&gateway.server)?, prover)?,
            own: own.to_string(),
            capture,
            names,
            patience: Patience::default(),
        })
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    pub(super) fn authority(&self) -> Option<&Authority> {
        self.capture.as_ref().map(|capture| &capture.authority)
    }

    /// Whether connections there are passed unread.
    pub(super) fn is_opaque(&self, meant: &Meant) -> bool {
        self.capture
            .as_ref()
            .is_some_and(|capture| capture.tunnels.contains(&meant.authority()))
    }

    /// Whether the task names such a host, so that a connection there is no attempt at another.
    pub(super) fn is_named(&self, meant: &Meant) -> bool {
        self.capture
            .as_ref()
            .is_some_and(|capture| capture.hosts.contains(&meant.authority()))
    }

    /// Answers a request on a connection to `meant`.
    pub(super) async fn answer_captured(
        &self,
        mut request: Request<Incoming>,
        scheme: Scheme,
        meant: &Meant,
    ) -> Response<Body> {
        let websocket = match extended::opened(&mut request) {
            Ok(websocket) => websocket,
            Err(refusal) => return self.say_no(&refusal, meant).await,
        };
        let url = meant.url(
            scheme,
            request.method(),
            request.uri(),
            request.version(),
            request.headers(),
        );
        let url = match url {
            Ok(url) => url,
            Err(refusal) => return self.say_no(&refusal, meant).await,
        };
        let answer = self
            .forward(request, &format!("{GATEWAY}/egress"), Some(&url))
            .await
            .and_then(|answer| match &websocket {
                Some(expected) => expected.answered(answer),
                None => Ok(answer),
            });
        answer.unwrap_or_else(|refusal| problem(&refusal))
    }

    /// The same for a request behind which nothing on its connection is read: it may be a part of it.
    pub(super) async fn say_no_and_close(
        &self,
        refusal: &Refusal,
        meant: &Meant,
    ) -> Response<Body> {
        closing(self.say_no(refusal, meant).await)
    }

    /// A refusal of the launcher's own: the ledger is told of it, then the program.
    pub(super) async fn say_no(&self, refusal: &Refusal, meant: &Meant) -> Response<Body> {
        self.refused(refusal, meant).await;
        problem(refusal)
    }

    /// Has the gateway record that something was refused here. It was refused whether or not the
    /// gateway can be reached.
    pub(super) async fn refused(&self, refusal: &Refusal, meant: &Meant) {
        tracing::info!(code = %refusal.code, host = meant.host, "the channel refused: {refusal}");
        let mut onward = Request::new(empty());
        *onward.method_mut() = Method::POST;
        let path = format!("{GATEWAY}/refused");
        let sent = async {
            if let Ok(code) = HeaderValue::from_str(&refusal.code) {
                onward.headers_mut().insert(REFUSAL, code);
            }
            self.ask(onward, &path, Some(&meant.authority())).await
        };
        match sent.await {
            Ok(answer) if answer.status().is_success() => {}
            Ok(answer) => {
                tracing::warn!(code = %refusal.code, status = %answer.status(), "a refusal was not recorded");
            }
            Err(error) => {
                tracing::warn!(code = %error.code, "a refusal could not be recorded: {error}");
            }
        }
    }

    /// Passes a connection unread, if the gateway lets it.
    pub(super) async fn splice<S>(&self, mut inside: S, meant: &Meant)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match self.open_tunnel(&meant.authority()).await {
            Ok(Tunnel::Open(outside)) => join(&mut inside, &mut TokioIo::new(outside)).await,
            Ok(Tunnel::Refused(answer)) => {
                tracing::info!(status = %answer.status(), host = meant.host, "a tunnel was refused");
            }
            Err(refusal) => {
                tracing::info!(code = %refusal.code, host = meant.host, "a tunnel failed: {refusal}");
            }
        }
    }

    /// Never fails: what goes wrong is said to the program inside.
    /// `once`: whether the request says once where it ends.
    pub(super) async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        once: Result<(), Refusal>,
    ) -> Response<Body> {
        let aimed_at = aimed_at(&request);
        let read_on = once.is_ok();
        let passed_on = match once {
            Ok(()) => self.pass_on(request).await,
            Err(refusal) => Err(refusal),
        };
        match passed_on {
            Ok(response) => response,
            Err(refusal) => {
                tracing::info!(code = %refusal.code, "the channel refused a request");
                if let Some(meant) = aimed_at.filter(|_| RECORDED.contains(&refusal.code.as_str()))
                {
                    self.refused(&refusal, &meant).await;
                }
                let answer = told(&refusal);
                if read_on { answer } else { closing(answer) }
            }
        }
    }

    async fn pass_on(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        match route(&request, &self.own)? {
            Route::Own(path) => self.forward(request, &path, None).await,
            // `Host` must not name another: who reads only that would see another request.
            Route::Egress(scheme, meant) => Ok(self.answer_captured(request, scheme, &meant).await),
            Route::Tunnel(target) => {
                let meant = Meant::read(&target)?;
                if self.capture.is_none() || self.is_opaque(&meant) {
                    return self.tunnel(request, &meant.authority()).await;
                }
                // The program believes that it talks to the host; so it will, request by request.
                let (upgrade, shared) = (hyper::upgrade::on(request), Arc::clone(self));
                tokio::spawn(async move {
                    if let Ok(stream) = upgrade.await {
                        inlet::understood(TokioIo::new(stream), meant, shared).await;
                    }
                });
                Ok(Response::new(empty()))
            }
        }
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        path: &str,
        target: Option<&str>,
    ) -> Result<Response<Body>, Refusal> {
        let websocket = target.is_some() && wants_websocket(&request);
        let inside = websocket.then(|| hyper::upgrade::on(&mut request));
        let (mut head, body) = request.into_parts();
        strip_hop_by_hop(&mut head.headers);
        strip_claims(&mut head.headers);
        if is_grpc(&head.headers) {
            // Of each hop on its own: the answer's end tells how the call ended.
            head.headers
                .insert(TE, HeaderValue::from_static("trailers"));
        }
        // `authorization` towards the gateway is the proof's. What the program meant for another
        // host travels under another name; what it meant for the gateway is a placeholder.
        if let Some(theirs) = head.headers.remove(AUTHORIZATION)
            && target.is_some()
        {
            head.headers.insert(FOR_TARGET, theirs);
        }
        let mut onward = Request::new(body.boxed());
        *onward.method_mut() = head.method;
        *onward.headers_mut() = head.headers;
        if websocket {
            say_websocket(onward.headers_mut());
        }
        let mut response = self.ask(onward, path, target).await?;
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let outside = switched.then(|| hyper::upgrade::on(&mut response));
        let mut response = response.map(|body| body.boxed());
        strip_hop_by_hop(response.headers_mut());
        match (inside, outside) {
            (Some(inside), Some(outside)) => {
                say_websocket(response.headers_mut());
                tokio::spawn(async move {
                    if let (Ok(inside), Ok(outside)) = tokio::join!(inside, outside) {
                        join(&mut TokioIo::new(inside), &mut TokioIo::new(outside)).await;
                    }
                });
                Ok(response)
            }
            (_, None) => Ok(response),
            (None, Some(_)) => Err(Refusal::unavailable(
                "gateway-answer",
                "the gateway switched protocols without being asked",
            )),
        }
    }

    async fn tunnel(
        &self,
        request: Request<Incoming>,
        target: &str,
    ) -> Result<Response<Body>, Refusal> {
        let outside = match self.open_tunnel(target).await? {
            Tunnel::Open(outside) => outside,
            Tunnel::Refused(answer) => return Ok(answer),
        };
        let inside = hyper::upgrade::on(request);
        tokio::spawn(async move {
            if let Ok(inside) = inside.await {
                join(&mut TokioIo::new(inside), &mut TokioIo::new(outside)).await;
            }
        });
        Ok(Response::new(empty()))
    }

    async fn open_tunnel(&self, target: &str) -> Result<Tunnel, Refusal> {
        let mut onward = Request::new(empty());
        let headers = onward.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(TUNNEL));
        let path = format!("{GATEWAY}/tunnel");
        let mut response = self.ask(onward, &path, Some(target)).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let mut response = response.map(|body| body.boxed());
            strip_hop_by_hop(response.headers_mut());
            // A success without the switch would make the program inside talk TLS to nobody.
            if response.status().is_success() {
                return Err(Refusal::unavailable(
                    "channel-tunnel",
                    "the gateway answered the tunnel without opening it",
                ));
            }
            return Ok(Tunnel::Refused(response));
        }
        let opened = hyper::upgrade::on(&mut response).await;
        opened.map(Tunnel::Open).map_err(|error| {
            Refusal::unavailable("channel-tunnel", "the tunnel broke off as it was opened")
                .received(&error.to_string())
        })
    }

    /// Sends a request on to the gateway, with the proof that the run sends it. `target`: where it
    /// goes from there.
    async fn ask(
        &self,
        mut request: Request<Body>,
        path: &str,
        target: Option<&str>,
    ) -> Result<Response<Answer>, Refusal> {
        if let Some(target) = target {
            let target = HeaderValue::try_from(target)
                .map_err(|error| Refusal::malformed("target").received(&error.to_string()))?;
            request.headers_mut().insert(TARGET, target);
        }
        self.server
            .ask(request, path, target.unwrap_or_default())
            .await
    }
}

/// An answer to the wish for a tunnel.
enum Tunnel {
    Open(hyper::upgrade::Upgraded),
    Refused(Response<Body>),
}

/// Passes bytes both ways until both sides have said all.
async fn join<A, B>(inside: &mut A, outside: &mut B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    if let Err(error) = tokio::io::copy_bidirectional(inside, outside).await {
        tracing::debug!(error = %error, "a tunnel broke off");
    }
}

fn is_grpc(headers: &http::HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn closing(mut response: Response<Body>) -> Response<Body> {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}

fn say_websocket(headers: &mut http::HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// A refusal of the channel's own as problem details (RFC 9457), as the gateway tells its own.
fn problem(refusal: &Refusal) -> Response<Body> {
    let status = status(refusal);
    let mut document = serde_json::json!(refusal);
    if let Some(fields) = document.as_object_mut() {
        let kind = format!("urn:portcullis:problem:{}", refusal.code);
        fields.insert("type".to_owned(), kind.into());
        fields.insert("title".to_owned(), refusal.message.clone().into());
        fields.insert("status".to_owned(), status.as_u16().into());
    }
    answer(
        refusal,
        status,
        "application/problem+json",
        document.to_string(),
    )
}

/// A refusal of the channel's own, as plain text: git prints that, and so does everything else.
fn told(refusal: &Refusal) -> Response<Body> {
    let kind = "text/plain; charset=utf-8";
    answer(refusal, status(refusal), kind, format!("{refusal}\n"))
}

fn status(refusal: &Refusal) -> StatusCode {
    match refusal.kind {
        RefusalKind::Malformed => StatusCode::BAD_REQUEST,
        RefusalKind::Denied | RefusalKind::NeedsApproval => StatusCode::FORBIDDEN,
        RefusalKind::NotFound => StatusCode::NOT_FOUND,
        RefusalKind::Conflict => StatusCode::CONFLICT,
        RefusalKind::Limit => StatusCode::TOO_MANY_REQUESTS,
        RefusalKind::Unavailable => StatusCode::BAD_GATEWAY,
        RefusalKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn answer(
    refusal: &Refusal,
    status: StatusCode,
    kind: &'static str,
    text: String,
) -> Response<Body> {
    let text = Full::new(Bytes::from(text));
    let mut response = Response::new(text.map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(code) = HeaderValue::from_str(&refusal.code) {
        headers.insert(REFUSAL, code);
    }
    response
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// The base without its slash at the end.
fn base(server: &str) -> Result<String, Refusal> {
    let malformed = || {
        Refusal::malformed("server url")
            .expected("http://host:port or https://host:port")
            .received(server)
    };
    let trimmed = server.trim_end_matches('/');
    let uri: Uri = trimmed.parse().map_err(|_| malformed())?;
    let plain = matches!(uri.scheme_str(), Some("http" | "https"))
        && uri
            .authority()
            .is_some_and(|authority| !authority.as_str().contains('@'))
        && uri.query().is_none();
    if plain {
        Ok(trimmed.to_owned())
    } else {
        Err(malformed())
    }
}
