//! What passes through the proxy: requests in absolute form, and tunnels.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use portcullis_gateway::http::Destination;
use portcullis_model::Refusal;
use portcullis_model::digest::Hasher;
use portcullis_server::builder::network::Fetched;
use tokio::sync::OwnedSemaphorePermit;

use super::metered::Metered;
use super::{HEAD_TIME, Reply, Shared};

/// What belongs to one hop (RFC 9110, section 7.6.1, and older fields still seen), and what says
/// who calls: a job is nobody.
const DROPPED: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "authorization",
    "cookie",
    "set-cookie",
];

/// Answers a CONNECT whose outside is there, and passes bytes both ways from then on.
pub(super) fn tunnel(
    request: Request<Incoming>,
    mut outside: Metered,
    place: Arc<OwnedSemaphorePermit>,
) -> Reply {
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let _place = place;
        let Ok(Ok(inside)) = tokio::time::timeout(HEAD_TIME, upgrade).await else {
            return;
        };
        let idle = outside.idle();
        let mut inside = TokioIo::new(inside);
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut inside, &mut outside) => {}
            () = idle => {}
        }
    });
    Response::new(Either::Left(Full::default()))
}

/// Forwards one request over a connection of its own. Redirects come back as they are.
pub(super) async fn forward(
    request: Request<Incoming>,
    destination: &Destination,
    outside: Metered,
    place: Arc<OwnedSemaphorePermit>,
    shared: &Arc<Shared>,
) -> Result<Reply, Refusal> {
    let failed = |received: &str| {
        Refusal::unavailable(
            "destination-unreachable",
            format!("{destination} does not answer in HTTP"),
        )
        .received(received)
    };
    let method = request.method().to_string();
    let url = format!("http://{destination}{}", request.uri().path());
    let request = origin_form(request, destination)?;
    let idle = outside.idle();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(outside))
        .await
        .map_err(|error| failed(&error.to_string()))?;
    tokio::spawn(async move {
        let _place = place;
        tokio::select! {
            _ = connection => {}
            () = idle => {}
        }
    });
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| failed(&error.to_string()))?;
    let (mut head, body) = answer.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(failed("an upgrade that nobody asked for"));
    }
    head.extensions.clear();
    drop_headers(&mut head.headers);
    let watched = Watched {
        body,
        ended: false,
        hasher: Hasher::default(),
        fetched: Some(Noted {
            method,
            url,
            status: head.status.as_u16(),
            size: 0,
        }),
        shared: Arc::clone(shared),
        _sender: sender,
    };
    Ok(Response::from_parts(head, Either::Right(watched)))
}

/// From `GET http://host/path` to `GET /path` with `Host`.
fn origin_form(
    request: Request<Incoming>,
    destination: &Destination,
) -> Result<Request<Incoming>, Refusal> {
    let (mut head, body) = request.into_parts();
    // As the client wrote it, less a name and password, which were refused before.
    let authority = head
        .uri
        .authority()
        .map_or_else(|| destination.to_string(), ToString::to_string);
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let path = if path.is_empty() { "/" } else { path };
    head.uri = path
        .parse()
        .map_err(|_| Refusal::malformed("path").received(path))?;
    head.version = Version::HTTP_11;
    head.extensions.clear();
    drop_headers(&mut head.headers);
    let host = HeaderValue::from_str(&authority)
        .map_err(|_| Refusal::malformed("destination").received(&authority))?;
    head.headers.insert(HOST, host);
    Ok(Request::from_parts(head, body))
}

fn drop_headers(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all("connection")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // It is a hop's business which fields are, not whom a message goes to or how long it is.
        .filter(|name| *name != HOST && *name != hyper::header::CONTENT_LENGTH)
        .collect();
    for name in listed {
        headers.remove(name);
    }
    for name in DROPPED {
        headers.remove(*name);
    }
}

struct Noted {
    method: String,
    url: String,
    status: u16,
    size: u64,
}

/// An answer's body, hashed on its way in. Dropped, it tells what came.
pub(super) struct Watched {
    body: Incoming,
    ended: bool,
    hasher: Hasher,
    fetched: Option<Noted>,
    shared: Arc<Shared>,
    /// The connection ends with it.
    _sender: SendRequest<Incoming>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.hasher.update(data);
                    let size = u64::try_from(data.len()).unwrap_or(u64::MAX);
                    if let Some(noted) = &mut self.fetched {
                        noted.size = noted.size.saturating_add(size);
                    }
                }
            }
            Some(Err(_)) => {}
            None => self.ended = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let Some(noted) = self.fetched.take() else {
            return;
        };
        self.shared.note_fetched(Fetched {
            method: noted.method,
            url: noted.url,
            status: noted.status,
            digest: std::mem::take(&mut self.hasher).finish(),
            size: noted.size,
            whole: self.ended || self.body.is_end_stream(),
        });
    }
}
