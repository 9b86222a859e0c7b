//! Connections to the server, each kept for the next request together with the session by which
//! the run proves itself on it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use portcullis_model::Refusal;
use tower_service::Service as _;

use super::Gateway;
use super::forward::{Body, REFUSAL};

/// Longest that the server gets to accept a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Longest that an idle connection to the server is kept for the next request.
const IDLE_KEPT: Duration = Duration::from_secs(60);

/// A header with its value.
pub type Header = (HeaderName, HeaderValue);

/// Proves that requests are the run's: with its key on a connection's first request, and from then
/// on by the session that the answer opened. Never called from inside the sandbox.
pub trait Prover: Send + Sync {
    /// What a connection's first request carries. `url` is
    /// absolute, with its query; what a proof binds of it is the prover's affair.
    ///
    /// # Errors
    /// When there is no proof to be had (the run's key is void); the run gets the refusal.
    fn first(&self, method: &str, url: &str) -> Result<First, Refusal>;
}

/// The proof of a connection's first request.
pub struct First {
    /// Headers to add.
    pub headers: Vec<Header>,
    /// Makes a session of the answer, where one is offered.
    pub offered: Option<Box<dyn Opening>>,
}

/// What a first request offered.
pub trait Opening: Send {
    /// The session, if the answer's headers open one. What it says is taken out of them.
    fn answered(self: Box<Self>, headers: &mut HeaderMap) -> Option<Box<dyn Session>>;
}

/// Proves the requests that follow on one connection.
pub trait Session: Send + Sync {
    /// The headers of the next request. `path` has the query; `target` is where it goes beyond the
    /// gateway, or empty. `None` where the session is over: a first request opens the next.
    fn next(&mut self, method: &str, path: &str, target: &str) -> Option<Vec<Header>>;
}

/// A connection, and the session that was opened on it.
struct Connection {
    sender: SendRequest<Body>,
    session: Option<Box<dyn Session>>,
}

/// What is open to the server, for all connections of one channel.
pub(super) struct Connections {
    connector: HttpsConnector<HttpConnector>,
    server: Uri,
    base: String,
    prover: Arc<dyn Prover>,
    idle: Arc<Idle>,
}

#[derive(Default)]
struct Idle(Mutex<Vec<(Connection, Instant)>>);

impl Idle {
    /// The connection that was used last, of those that are open still.
    fn take(&self) -> Option<Connection> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle
            .first()
            .is_some_and(|(_, since)| since.elapsed() > IDLE_KEPT)
        {
            idle.retain(|(_, since)| since.elapsed() <= IDLE_KEPT);
        }
        while let Some((connection, _)) = idle.pop() {
            if !connection.sender.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    fn put(&self, connection: Connection) {
        if !connection.sender.is_closed() {
            let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push((connection, Instant::now()));
        }
    }
}

impl Connections {
    /// `base`: the server's URL without a slash at its end.
    pub(super) fn new(
        gateway: &Gateway,
        base: String,
        prover: Arc<dyn Prover>,
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
        let server = base
            .parse()
            .map_err(|_| Refusal::malformed("server url").received(&base))?;
        Ok(Self {
            connector: builder.https_or_http().enable_http1().wrap_connector(http),
            server,
            base,
            prover,
            idle: Arc::default(),
        })
    }

    /// Sends a request to `path` of the server, which goes on to `target`, and gives the answer.
    ///
    /// # Errors
    /// `gateway-unreachable`, or what the prover says.
    pub(super) async fn ask(
        &self,
        mut request: Request<Body>,
        path: &str,
        target: &str,
    ) -> Result<Response<Answer>, Refusal> {
        *request.uri_mut() = path
            .parse::<Uri>()
            .map_err(|error| Refusal::malformed("path").received(&error.to_string()))?;
        if let Some(authority) = self.server.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            request.headers_mut().insert(http::header::HOST, host);
        }
        loop {
            let mut kept = self.idle.take();
            if let Some(connection) = &mut kept
                && connection.sender.ready().await.is_err()
            {
                continue;
            }
            // Before anything is connected to: a run without a proof reaches nobody.
            let session = kept.as_mut().map(|kept| &mut kept.session);
            let proved = self.prove(session, &mut request, path, target)?;
            let was_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.open().await?,
            };
            match connection.sender.try_send_request(request).await {
                Ok(answer) => return Ok(self.answered(answer, connection, proved.offered)),
                Err(mut error) => match error.take_message() {
                    // It went away while nothing was asked: nothing of the request was sent.
                    Some(unsent) if was_kept => {
                        request = unsent;
                        for name in proved.names {
                            request.headers_mut().remove(name);
                        }
                    }
                    Some(_) | None => return Err(unreachable(&error.into_error())),
                },
            }
        }
    }

    /// Adds the proof to a request: by the session, or else as a first one.
    fn prove(
        &self,
        session: Option<&mut Option<Box<dyn Session>>>,
        request: &mut Request<Body>,
        path: &str,
        target: &str,
    ) -> Result<Proved, Refusal> {
        let method = request.method().as_str();
        let by_session = session
            .and_then(|session| session.as_mut())
            .and_then(|session| session.next(method, path, target));
        let (headers, offered) = match by_session {
            Some(headers) => (headers, None),
            None => {
                let url = format!("{}{path}", self.base);
                let first = self.prover.first(method, &url)?;
                (first.headers, first.offered)
            }
        };
        let names = headers.iter().map(|(name, _)| name.clone()).collect();
        request.headers_mut().extend(headers);
        Ok(Proved { names, offered })
    }

    fn answered(
        &self,
        answer: Response<Incoming>,
        mut connection: Connection,
        offered: Option<Box<dyn Opening>>,
    ) -> Response<Answer> {
        let (mut head, body) = answer.into_parts();
        if let Some(offered) = offered {
            connection.session = offered.answered(&mut head.headers);
        }
        let mut answer = Answer {
            body,
            connection: goes_on(&head).then_some(connection),
            idle: Arc::clone(&self.idle),
        };
        answer.give_back_at_end();
        Response::from_parts(head, answer)
    }

    async fn open(&self) -> Result<Connection, Refusal> {
        let mut connector = self.connector.clone();
        let stream = connector.call(self.server.clone()).await.map_err(|error| {
            tracing::warn!(error, "the gateway could not be reached");
            gateway_unreachable("no connection")
        })?;
        let (sender, connection) = http1::handshake(stream)
            .await
            .map_err(|error| unreachable(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(error = %error, "a connection to the gateway broke off");
            }
        });
        Ok(Connection {
            sender,
            session: None,
        })
    }
}

/// Whether a connection is good for more requests: not where it speaks another protocol from here
/// on, nor where the server does not take its session.
fn goes_on(answer: &Parts) -> bool {
    let refused = answer.headers.get(REFUSAL);
    answer.status != StatusCode::SWITCHING_PROTOCOLS
        && !refused.is_some_and(|code| code.as_bytes().starts_with(b"session-"))
}

struct Proved {
    names: Vec<HeaderName>,
    offered: Option<Box<dyn Opening>>,
}

fn unreachable(error: &hyper::Error) -> Refusal {
    if error.is_user() {
        // Its body can't be read, which is the program's affair and not the gateway's: broken off,
        // or framed in no known way. What the inside's connection says of it is the error below.
        let why = std::error::Error::source(error).map(ToString::to_string);
        return Refusal::malformed("body")
            .expected("a body as its head announces it, whole")
            .received(why.as_deref().unwrap_or("a body that broke off"));
    }
    tracing::warn!(error = %error, "the gateway could not be asked");
    gateway_unreachable("the connection broke off")
}

fn gateway_unreachable(received: &str) -> Refusal {
    Refusal::unavailable(
        "gateway-unreachable",
        "the gateway can't be reached, so nothing leaves the sandbox",
    )
    .received(received)
    .next("wait, and repeat; whoever runs the server sees whether it is up")
}

/// The body of an answer; at its end its connection is free for the next request. Where it is
/// dropped before, the connection ends.
pub(super) struct Answer {
    body: Incoming,
    connection: Option<Connection>,
    idle: Arc<Idle>,
}

impl Answer {
    fn give_back_at_end(&mut self) {
        if self.body.is_end_stream()
            && let Some(connection) = self.connection.take()
        {
            self.idle.put(connection);
        }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(None) => {
                if let Some(connection) = self.connection.take() {
                    self.idle.put(connection);
                }
            }
            Poll::Ready(Some(Ok(_))) => self.give_back_at_end(),
            Poll::Ready(Some(Err(_))) => self.connection = None,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
