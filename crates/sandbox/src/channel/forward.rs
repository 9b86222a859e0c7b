//! One request: from inside, with a proof, to the gateway, and back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use portcullis_model::{Refusal, RefusalKind};

use super::Gateway;
use super::route::{GATEWAY, Route, route, strip_claims, strip_hop_by_hop};

/// Longest that the server gets to accept a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Longest that an idle connection to the server is kept for the next request.
const IDLE_KEPT: Duration = Duration::from_secs(60);
/// Name of the tunnel protocol in `upgrade`.
const TUNNEL: &str = "portcullis-tunnel";
const TARGET: HeaderName = HeaderName::from_static("portcullis-target");

const FOR_TARGET: HeaderName = HeaderName::from_static("portcullis-target-authorization");

/// Makes the proof of possession of a run's key for one request (RFC 9449: an `authorization` and
/// a `dpop` header). Called anew for each request, never from inside the sandbox.
pub trait Prover: Send + Sync {
    /// Headers to add. `url` is absolute, with its query; what a proof binds of it is the
    /// prover's affair.
    ///
    /// # Errors
    /// When there is no proof to be had (the run's key is void); the run gets the refusal.
    fn headers(&self, method: &str, url: &str) -> Result<Vec<(HeaderName, HeaderValue)>, Refusal>;
}

pub(super) type Body = BoxBody<Bytes, hyper::Error>;

/// What all connections of one channel share.
pub(super) struct Forwarder {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    server: String,
    own: String,
    prover: Arc<dyn Prover>,
}

impl Forwarder {
    pub(super) fn new(
        gateway: &Gateway,
        prover: Arc<dyn Prover>,
        own: SocketAddr,
    ) -> Result<Self, Refusal> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_PATIENCE));
        let builder = HttpsConnectorBuilder::new();
        let builder = match &gateway.tls {
            Some(settings) => builder.with_tls_config(settings.clone()),
            None => builder
                .with_provider_and_webpki_roots(rustls::crypto::aws_lc_rs::default_provider())
                .map_err(|error| Refusal::internal(format!("TLS: {error}")))?,
        };
        let connector = builder.https_or_http().enable_http1().wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_KEPT)
            .build(connector);
        Ok(Self {
            client,
            server: base(&gateway.server)?,
            own: own.to_string(),
            prover,
        })
    }

    /// Never fails: what goes wrong is said to the program inside.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match self.pass_on(request).await {
            Ok(response) => response,
            Err(refusal) => {
                tracing::info!(code = %refusal.code, "the channel refused a request");
                told(&refusal)
            }
        }
    }

    async fn pass_on(&self, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        match route(request.method(), request.uri(), &self.own)? {
            Route::Own(path) => self.forward(request, &path, None).await,
            Route::Egress(url) => {
                self.forward(request, &format!("{GATEWAY}/egress"), Some(&url))
                    .await
            }
            Route::Tunnel(target) => self.tunnel(request, &target).await,
        }
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
        path: &str,
        target: Option<&str>,
    ) -> Result<Response<Body>, Refusal> {
        let (mut head, body) = request.into_parts();
        strip_hop_by_hop(&mut head.headers);
        strip_claims(&mut head.headers);
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
        self.address(&mut onward, path, target)?;
        let mut response = self.ask(onward).await?.map(|body| body.boxed());
        strip_hop_by_hop(response.headers_mut());
        Ok(response)
    }

    async fn tunnel(
        &self,
        mut request: Request<Incoming>,
        target: &str,
    ) -> Result<Response<Body>, Refusal> {
        let mut onward = Request::new(empty());
        self.address(&mut onward, &format!("{GATEWAY}/tunnel"), Some(target))?;
        let headers = onward.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(TUNNEL));
        let mut response = self.ask(onward).await?;
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
            return Ok(response);
        }
        let outside = hyper::upgrade::on(&mut response);
        let inside = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (Ok(outside), Ok(inside)) = tokio::join!(outside, inside) else {
                return;
            };
            let (mut outside, mut inside) = (TokioIo::new(outside), TokioIo::new(inside));
            if let Err(error) = tokio::io::copy_bidirectional(&mut inside, &mut outside).await {
                tracing::debug!(error = %error, "a tunnel broke off");
            }
        });
        Ok(Response::new(empty()))
    }

    /// Sets where a request goes, and the proof that the run sends it.
    fn address(
        &self,
        request: &mut Request<Body>,
        path: &str,
        target: Option<&str>,
    ) -> Result<(), Refusal> {
        let url = format!("{}{path}", self.server);
        *request.uri_mut() = url
            .parse::<Uri>()
            .map_err(|error| Refusal::malformed("path").received(&error.to_string()))?;
        if let Some(target) = target {
            let target = HeaderValue::try_from(target)
                .map_err(|error| Refusal::malformed("target").received(&error.to_string()))?;
            request.headers_mut().insert(TARGET, target);
        }
        for (name, value) in self.prover.headers(request.method().as_str(), &url)? {
            request.headers_mut().insert(name, value);
        }
        Ok(())
    }

    async fn ask(&self, request: Request<Body>) -> Result<Response<Incoming>, Refusal> {
        self.client.request(request).await.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(error = %error, cause, "the gateway could not be asked");
            Refusal::unavailable(
                "gateway-unreachable",
                "the gateway can't be reached, so nothing leaves the sandbox",
            )
            .received(if error.is_connect() {
                "no connection"
            } else {
                "the connection broke off"
            })
            .next("wait, and repeat; whoever runs the server sees whether it is up")
        })
    }
}

/// A refusal of the channel's own, as plain text: git prints that, and so does everything else.
fn told(refusal: &Refusal) -> Response<Body> {
    let status = match refusal.kind {
        RefusalKind::Malformed => StatusCode::BAD_REQUEST,
        RefusalKind::Denied | RefusalKind::NeedsApproval => StatusCode::FORBIDDEN,
        RefusalKind::NotFound => StatusCode::NOT_FOUND,
        RefusalKind::Conflict => StatusCode::CONFLICT,
        RefusalKind::Limit => StatusCode::TOO_MANY_REQUESTS,
        RefusalKind::Unavailable => StatusCode::BAD_GATEWAY,
        RefusalKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let text = Full::new(Bytes::from(format!("{refusal}\n")));
    let mut response = Response::new(text.map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    if let Ok(code) = HeaderValue::from_str(&refusal.code) {
        let name = HeaderName::from_static("portcullis-refusal");
        response.headers_mut().insert(name, code);
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
