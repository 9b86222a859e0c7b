//! Named hosts: plain HTTP forwarded, and tunnels spliced.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use portcullis_model::{Recorded, Refusal};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::answer::{self, Asked, Bounds, Forwarded};
use super::destination::{AddressRule, Destination};
use super::headers::strip_hop;

/// The destination of a proxy request in absolute form (`GET http://host/path`).
///
/// # Errors
/// `malformed-destination`: another scheme, or a name and password in it.
pub fn destination_of(uri: &Uri) -> Result<Destination, Refusal> {
    let plain = uri.scheme_str() == Some("http")
        && uri
            .authority()
            .is_some_and(|authority| !authority.as_str().contains('@'));
    let host = uri.host().filter(|_| plain).ok_or_else(|| {
        Refusal::malformed("destination")
            .expected("http://host[:port]/path; for https, CONNECT host:port")
            .received(&uri.to_string())
    })?;
    Destination::new(host, uri.port_u16().unwrap_or(80))
}

/// Forwards a plain HTTP request in absolute form to `destination`, over a connection of its own.
/// `destination` is what was decided on and must be the request's. Redirects come back as they
/// are.
///
/// # Errors
/// `destination-differs`, `address-not-public`, `destination-unknown`, `destination-unreachable`,
/// `destination-timeout`.
pub async fn forward<P, B>(
    permit: Recorded<P>,
    destination: &Destination,
    rule: &AddressRule,
    request: Request<B>,
    bounds: Bounds,
) -> Result<Forwarded, Refusal>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let _used = permit.spend();
    let named = destination_of(request.uri())?;
    if named != *destination {
        return Err(Refusal::denied(
            "destination-differs",
            "the request goes elsewhere than what was decided on",
        )
        .expected(&destination.to_string())
        .received(&named.to_string()));
    }
    let began = Instant::now();
    let bytes_out = Arc::new(AtomicU64::new(0));
    let request = origin_form(request, bounds.request_bytes, &bytes_out)?;
    let failed = |error: hyper::Error| {
        Refusal::unavailable(
            "destination-unreachable",
            format!("{destination} does not answer in HTTP"),
        )
        .received(&error.to_string())
    };
    let stream = destination.connect(rule).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let connection = Connection(tokio::spawn(async move {
        let _ = connection.await;
    }));
    let answer = tokio::time::timeout(bounds.head_time, sender.send_request(request))
        .await
        .map_err(|_| {
            Refusal::unavailable(
                "destination-timeout",
                format!("{destination} did not answer in time"),
            )
        })?
        .map_err(failed)?;
    let asked = Asked {
        began,
        model: None,
        digest: None,
        kept: None,
        bytes_out: Box::new(move || bytes_out.load(Ordering::Relaxed)),
    };
    Ok(answer::forward(answer, asked, bounds, (connection, sender)))
}

/// A connection's task, ended with its exchange.
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// From `GET http://host/path` to `GET /path` with `Host`.
fn origin_form<B>(
    request: Request<B>,
    limit: u64,
    sent: &Arc<AtomicU64>,
) -> Result<Request<CountedBody<B>>, Refusal> {
    let (mut head, body) = request.into_parts();
    let authority = head.uri.authority().map_or("", |a| a.as_str()).to_owned();
    let host = HeaderValue::from_str(&authority)
        .map_err(|_| Refusal::malformed("destination").received(&authority))?;
    let path = head.uri.path_and_query().map_or("/", |p| p.as_str());
    let path = if path.is_empty() { "/" } else { path };
    head.uri = path
        .parse()
        .map_err(|_| Refusal::malformed("path").received(path))?;
    head.version = hyper::Version::HTTP_11;
    head.extensions.clear();
    strip_hop(&mut head.headers);
    head.headers.insert(HOST, host);
    let body = CountedBody {
        body,
        limit,
        sent: sent.clone(),
    };
    Ok(Request::from_parts(head, body))
}

/// A body that is counted and ends with an error beyond its limit.
struct CountedBody<B> {
    body: B,
    limit: u64,
    sent: Arc<AtomicU64>,
}

impl<B> Body for CountedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        let count = frame
            .data_ref()
            .map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX));
        let sent = self.sent.fetch_add(count, Ordering::Relaxed);
        if sent.saturating_add(count) > self.limit {
            let message = format!("the request is larger than {} bytes", self.limit);
            return Poll::Ready(Some(Err(message.into())));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bounds of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelBounds {
    /// Bytes that may go out.
    pub bytes_out: u64,
    /// Bytes that may come in.
    pub bytes_in: u64,
    /// Longest silence on both sides.
    pub idle_time: Duration,
    /// Longest life.
    pub total_time: Duration,
}

impl Default for TunnelBounds {
    fn default() -> Self {
        Self {
            bytes_out: 1024 * 1024 * 1024,
            bytes_in: 16 * 1024 * 1024 * 1024,
            idle_time: Duration::from_secs(300),
            total_time: Duration::from_secs(12 * 3_600),
        }
    }
}

/// Why a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Both sides said all.
    Closed,
    /// A side broke off, or never came.
    Broken,
    /// A byte bound was reached.
    Bytes,
    /// Nobody said anything for too long.
    Idle,
    /// Its life was over.
    Time,
    /// The caller stopped it: the run ended, or the breaker tripped.
    Stopped,
}

/// What went through a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelOutcome {
    /// Bytes from inside.
    pub bytes_out: u64,
    /// Bytes from outside.
    pub bytes_in: u64,
    /// Why it ended.
    pub ended: Ended,
}

/// A connection to the outside that waits for its inside.
#[derive(Debug)]
pub struct Tunnel {
    outside: TcpStream,
}

impl Tunnel {
    /// Connects. Answer the CONNECT with 200 only after this.
    ///
    /// # Errors
    /// As [`Destination::connect`].
    pub async fn open<P>(
        permit: Recorded<P>,
        destination: &Destination,
        rule: &AddressRule,
    ) -> Result<Self, Refusal> {
        let _used = permit.spend();
        let outside = destination.connect(rule).await?;
        Ok(Self { outside })
    }

    /// Waits for the upgraded connection of a CONNECT request, then splices.
    pub async fn run(
        self,
        upgrade: hyper::upgrade::OnUpgrade,
        bounds: TunnelBounds,
        stop: impl Future<Output = ()>,
    ) -> TunnelOutcome {
        match tokio::time::timeout(bounds.idle_time, upgrade).await {
            Ok(Ok(inside)) => self.splice(TokioIo::new(inside), bounds, stop).await,
            Ok(Err(_)) | Err(_) => TunnelOutcome {
                bytes_out: 0,
                bytes_in: 0,
                ended: Ended::Broken,
            },
        }
    }

    /// Passes bytes both ways until both sides have ended, a bound is reached, or `stop` is ready.
    pub async fn splice<I: AsyncRead + AsyncWrite>(
        mut self,
        inside: I,
        bounds: TunnelBounds,
        stop: impl Future<Output = ()>,
    ) -> TunnelOutcome {
        let (out, back) = (AtomicU64::new(0), AtomicU64::new(0));
        let (inside_read, inside_write) = tokio::io::split(inside);
        let (outside_read, outside_write) = self.outside.split();
        let both = async {
            tokio::try_join!(
                pass(inside_read, outside_write, &out, bounds.bytes_out),
                pass(outside_read, inside_write, &back, bounds.bytes_in),
            )
        };
        let ended = tokio::select! {
            result = both => match result {
                Ok(((), ())) => Ended::Closed,
                Err(ended) => ended,
            },
            () = idle(&out, &back, bounds.idle_time) => Ended::Idle,
            () = tokio::time::sleep(bounds.total_time) => Ended::Time,
            () = stop => Ended::Stopped,
        };
        TunnelOutcome {
            bytes_out: out.load(Ordering::Relaxed),
            bytes_in: back.load(Ordering::Relaxed),
            ended,
        }
    }
}

/// One direction, to its end.
async fn pass<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    mut from: R,
    mut to: W,
    counter: &AtomicU64,
    max: u64,
) -> Result<(), Ended> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await.map_err(|_| Ended::Broken)?;
        if count == 0 {
            let _ = to.shutdown().await;
            return Ok(());
        }
        let before = counter.load(Ordering::Relaxed);
        let count_u64 = u64::try_from(count).unwrap_or(u64::MAX);
        if before.saturating_add(count_u64) > max {
            return Err(Ended::Bytes);
        }
        to.write_all(buffer.get(..count).unwrap_or_default())
            .await
            .map_err(|_| Ended::Broken)?;
        counter.store(before.saturating_add(count_u64), Ordering::Relaxed);
    }
}

/// Ready when neither counter moved for `time`.
async fn idle(out: &AtomicU64, back: &AtomicU64, time: Duration) {
    let now = || (out.load(Ordering::Relaxed), back.load(Ordering::Relaxed));
    let mut last = now();
    loop {
        tokio::time::sleep(time).await;
        let seen = now();
        if seen == last {
            return;
        }
        last = seen;
    }
}
