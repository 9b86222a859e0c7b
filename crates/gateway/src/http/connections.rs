//! Connections to hosts, kept for the next request, and driven by the request that uses them.
//!
//! Pooled clients give each connection a task of its own, to which every request and every answer
//! has to cross over. Here a request takes an HTTP/1.1 connection as its own, drives it until its
//! answer is there, and puts it back; only what takes longer goes on in a task. HTTP/2, where
//! requests share a connection, is driven by a task as usual.
//!
//! | the host closes a kept connection | what happens |
//! |---|---|
//! | before a request takes it | it is seen to be closed, and the next one is taken |
//! | before a byte of the request was sent | the request goes over another one |
//! | after | the request fails: whether it had an effect is not known |

use std::collections::BTreeMap;
use std::error::Error;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming};
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::Scheme;
use hyper::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::Connection as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tower_service::Service;

use super::destination::{AddressRule, Destination};
use super::egress::destination_of;
use super::upload::Upload;

#[cfg(test)]
mod tests;

/// How long an idle connection is kept. Short, so that a name that moves is followed.
const IDLE_KEPT: Duration = Duration::from_secs(15);
/// Idle connections kept to one host.
const IDLE_KEPT_MAX: usize = 256;
/// Idle connections kept in all.
const IDLE_KEPT_MAX_IN_ALL: usize = 1024;
/// How long a request's body may go on once the whole answer is there.
const LINGERS: Duration = Duration::from_secs(30);
/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(5);

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;
type Cause = Box<dyn Error + Send + Sync>;

/// Sends requests out, over connections that are kept. Each was held against the [`AddressRule`]
/// as it was made, and the address that was checked is the one that was dialled.
#[derive(Clone)]
pub(super) struct Connections {
    connector: HttpsConnector<Dialer>,
    /// For WebSockets, which begin in HTTP/1.1.
    first: HttpsConnector<Dialer>,
    kept: Kept,
}

/// Where a connection leads: by TLS or not, and to whom.
type Place = (bool, Destination);

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Places>>);

#[derive(Default)]
struct Places {
    open: BTreeMap<Place, Open>,
    /// A task closes what is idle for too long.
    swept: bool,
}

#[derive(Default)]
struct Open {
    idle: Vec<(Line, Instant)>,
    shared: Option<(http2::SendRequest<Upload>, Instant)>,
}

/// An HTTP/1.1 connection, which whoever holds it drives.
struct Line {
    sender: http1::SendRequest<Upload>,
    /// `None` once it is over. Large, so that it stays where it is.
    driver: Option<Box<http1::Connection<Stream, Upload>>>,
}

/// Why a request has no answer, and the request where no byte of it was sent.
struct Unanswered(Cause, Option<Request<Upload>>);

impl Connections {
    pub(super) fn new(rule: AddressRule, tls: rustls::ClientConfig) -> Self {
        let dialer = Dialer(Arc::new(rule));
        let connector = |tls| {
            HttpsConnectorBuilder::new()
                .with_tls_config(tls)
                .https_or_http()
        };
        Self {
            connector: connector(tls.clone())
                .enable_http1()
                .enable_http2()
                .wrap_connector(dialer.clone()),
            first: connector(tls).enable_http1().wrap_connector(dialer),
            kept: Kept::default(),
        }
    }

    /// Sends a request, whose URL is absolute and leads to `destination`, and waits for the head of
    /// its answer.
    pub(super) async fn send(
        &self,
        destination: &Destination,
        mut request: Request<Upload>,
    ) -> Result<Response<Coming>, Cause> {
        let tls = request.uri().scheme() == Some(&Scheme::HTTPS);
        let place = (tls, destination.clone());
        while let Some(way) = self.kept.take(&place) {
            let sent = match way {
                Way::Own(line) => self.over(&place, line, request).await,
                Way::Shared(sender) => shared(sender, request).await,
            };
            match sent {
                Ok(answer) => return Ok(answer),
                Err(Unanswered(_, Some(unsent))) => request = unsent,
                Err(Unanswered(cause, None)) => return Err(cause),
            }
        }
        // Apart, for it is large and seldom needed, and this future is moved with every request.
        let sent = match Box::pin(self.connect(&place, request.uri())).await? {
            Way::Own(line) => self.over(&place, line, request).await,
            Way::Shared(sender) => shared(sender, request).await,
        };
        sent.map_err(|Unanswered(cause, _)| cause)
    }

    async fn connect(&self, place: &Place, uri: &Uri) -> Result<Way, Cause> {
        let stream = dial(&self.connector, uri).await?;
        if !stream.connected().is_negotiated_h2() {
            return Ok(Way::Own(Line::new(stream).await?));
        }
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .handshake(stream)
            .await?;
        tokio::spawn(driver);
        self.kept.share(place.clone(), sender.clone());
        Ok(Way::Shared(sender))
    }

    /// As [`Self::send`], over a connection of its own that may become something else.
    pub(super) async fn upgrade(
        &self,
        request: Request<Upload>,
    ) -> Result<Response<Incoming>, Cause> {
        let stream = dial(&self.first, request.uri()).await?;
        let (mut sender, driver) = http1::handshake(stream).await?;
        tokio::spawn(driver.with_upgrades());
        let request = in_origin_form(request)?;
        Ok(sender.send_request(request).await?)
    }

    async fn over(
        &self,
        place: &Place,
        mut line: Line,
        request: Request<Upload>,
    ) -> Result<Response<Coming>, Unanswered> {
        let uri = request.uri().clone();
        let request = in_origin_form(request).map_err(|cause| Unanswered(cause, None))?;
        match line.send(request).await {
            Ok(answer) => {
                let back = Back {
                    line,
                    place: place.clone(),
                    kept: self.kept.clone(),
                };
                Ok(answer.map(|body| Coming {
                    body,
                    back: Some(back),
                }))
            }
            Err(mut error) => {
                let unsent = error.take_message().map(|mut request| {
                    request.headers_mut().remove(HOST);
                    *request.uri_mut() = uri;
                    request
                });
                Err(Unanswered(error.into_error().into(), unsent))
            }
        }
    }
}

async fn shared(
    mut sender: http2::SendRequest<Upload>,
    request: Request<Upload>,
) -> Result<Response<Coming>, Unanswered> {
    if let Err(error) = sender.ready().await {
        return Err(Unanswered(error.into(), Some(request)));
    }
    match sender.try_send_request(request).await {
        Ok(answer) => Ok(answer.map(Coming::from)),
        Err(mut error) => {
            let unsent = error.take_message();
            Err(Unanswered(error.into_error().into(), unsent))
        }
    }
}

/// A request as HTTP/1.1 has it: the host in a header, and the path alone in the first line.
fn in_origin_form(mut request: Request<Upload>) -> Result<Request<Upload>, Cause> {
    let uri = std::mem::take(request.uri_mut()).into_parts();
    let authority = uri.authority.ok_or("a request names no host")?;
    let tls = uri.scheme == Some(Scheme::HTTPS);
    let usual = if tls { 443 } else { 80 };
    let host = if authority.port_u16() == Some(usual) {
        authority.host()
    } else {
        authority.as_str()
    };
    let host = HeaderValue::from_str(host)?;
    request.headers_mut().insert(HOST, host);
    if let Some(path) = uri.path_and_query
        && path != "/"
    {
        *request.uri_mut() = path.into();
    }
    Ok(request)
}

async fn dial(connector: &HttpsConnector<Dialer>, uri: &Uri) -> Result<Stream, Cause> {
    connector.clone().call(uri.clone()).await
}

/// A connection that a request may use.
enum Way {
    Own(Line),
    Shared(http2::SendRequest<Upload>),
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, place: &Place) -> Option<Way> {
        let mut places = self.lock();
        let open = places.open.get_mut(place)?;
        if let Some((sender, used)) = &mut open.shared
            && !sender.is_closed()
            && used.elapsed() < IDLE_KEPT
        {
            *used = Instant::now();
            return Some(Way::Shared(sender.clone()));
        }
        open.shared = None;
        loop {
            let (line, since) = open.idle.pop()?;
            if since.elapsed() < IDLE_KEPT {
                return Some(Way::Own(line));
            }
        }
    }

    fn put(&self, place: Place, line: Line) {
        let mut places = self.lock();
        let in_all: usize = places.open.values().map(|open| open.idle.len()).sum();
        let open = places.open.entry(place).or_default();
        if open.idle.len() < IDLE_KEPT_MAX && in_all < IDLE_KEPT_MAX_IN_ALL {
            open.idle.push((line, Instant::now()));
        }
        self.sweep(&mut places);
    }

    fn share(&self, place: Place, sender: http2::SendRequest<Upload>) {
        let mut places = self.lock();
        places.open.entry(place).or_default().shared = Some((sender, Instant::now()));
        self.sweep(&mut places);
    }

    /// Sees to it that idle connections are closed in time, as long as there are any.
    fn sweep(&self, places: &mut Places) {
        if std::mem::replace(&mut places.swept, true) {
            return;
        }
        let kept = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(kept) = kept.upgrade().map(Kept) else {
                    return;
                };
                let mut places = kept.lock();
                places.close_idle();
                if places.open.is_empty() {
                    places.swept = false;
                    return;
                }
            }
        });
    }
}

impl Places {
    fn close_idle(&mut self) {
        self.open.retain(|_, open| {
            open.idle.retain(|(_, since)| since.elapsed() < IDLE_KEPT);
            open.shared
                .take_if(|(sender, used)| used.elapsed() >= IDLE_KEPT || sender.is_closed());
            !open.idle.is_empty() || open.shared.is_some()
        });
    }
}

impl Line {
    async fn new(stream: Stream) -> Result<Self, hyper::Error> {
        let (sender, driver) = http1::handshake(stream).await?;
        Ok(Self {
            sender,
            driver: Some(Box::new(driver)),
        })
    }

    /// Takes the connection as far as it goes at once.
    fn drive(&mut self, context: &mut Context<'_>) {
        // How it ended is told by what was asked of it.
        if let Some(driver) = &mut self.driver
            && Pin::new(driver.as_mut()).poll(context).is_ready()
        {
            self.driver = None;
        }
    }

    async fn send(
        &mut self,
        request: Request<Upload>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Upload>>> {
        // What came while nobody drove it: its end, most of all.
        std::future::poll_fn(|context| {
            self.drive(context);
            Poll::Ready(())
        })
        .await;
        let mut answer = pin!(self.sender.try_send_request(request));
        std::future::poll_fn(|context| {
            self.drive(context);
            answer.as_mut().poll(context)
        })
        .await
    }

    /// Whether it can take the next request, which it can't before the last one's end.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        self.drive(context);
        match (&self.driver, self.sender.poll_ready(context)) {
            (None, _) => Poll::Ready(false),
            (Some(_), Poll::Ready(ready)) => Poll::Ready(ready.is_ok()),
            (Some(_), Poll::Pending) => Poll::Pending,
        }
    }
}

/// A connection on its way back to where it is kept.
struct Back {
    line: Line,
    place: Place,
    kept: Kept,
}

impl Back {
    fn put(self) {
        self.kept.put(self.place, self.line);
    }

    /// Drives it in a task until it can be put back, or closes it when the time is up.
    fn drive_to_end(mut self, within: Duration) {
        tokio::spawn(async move {
            let ready = std::future::poll_fn(|context| self.line.poll_ready(context));
            if tokio::time::timeout(within, ready).await == Ok(true) {
                self.put();
            }
        });
    }
}

/// The body of an answer, with the connection that it comes over. Dropped before its end, it takes
/// the connection along.
pub(super) struct Coming {
    body: Incoming,
    /// Unless a task drives it.
    back: Option<Back>,
}

impl From<Incoming> for Coming {
    fn from(body: Incoming) -> Self {
        Self { body, back: None }
    }
}

impl Coming {
    /// The next frame, if it is here already or as good as.
    pub(super) async fn at_once(&mut self) -> Option<Option<Result<Frame<Bytes>, hyper::Error>>> {
        /// How often others are let go first, so that what is under way within this process comes.
        const TURNS: usize = 2;
        for _ in 0..TURNS {
            let polled = std::future::poll_fn(|context| {
                if let Some(back) = &mut self.back {
                    back.line.drive(context);
                }
                Poll::Ready(match Pin::new(&mut self.body).poll_frame(context) {
                    Poll::Ready(frame) => Some(frame),
                    Poll::Pending => None,
                })
            });
            if let Some(frame) = polled.await {
                return Some(frame);
            }
            tokio::task::yield_now().await;
        }
        None
    }

    /// Whether nothing more comes.
    pub(super) fn is_over(&self) -> bool {
        self.body.is_end_stream()
    }

    /// All of it was read: the connection may serve the next request.
    pub(super) async fn put_back(mut self) {
        let Some(mut back) = self.back.take() else {
            return;
        };
        let ready = std::future::poll_fn(|context| Poll::Ready(back.line.poll_ready(context)));
        match ready.await {
            Poll::Ready(true) => back.put(),
            Poll::Ready(false) => {}
            Poll::Pending => back.drive_to_end(LINGERS),
        }
    }

    /// What is left of it, for a reader who takes his time: the connection goes on in a task, at
    /// most for `within`.
    pub(super) fn left(mut self, within: Duration) -> Incoming {
        if let Some(back) = self.back.take() {
            back.drive_to_end(within);
        }
        self.body
    }
}

/// Connects, and holds each address against the rule as it does.
#[derive(Clone)]
struct Dialer(Arc<AddressRule>);

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = Cause;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let rule = Arc::clone(&self.0);
        Box::pin(async move {
            let destination = destination_of(&uri)?;
            Ok(TokioIo::new(destination.connect(&rule).await?))
        })
    }
}
