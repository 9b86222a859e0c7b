//! Requests to named hosts, over HTTP and HTTPS, and WebSockets.
//!
//! What comes here was looked at, or is while it passes. Redirects come back as they are, so that
//! what they lead to is a request of its own.

use std::error::Error;
use std::time::Instant;

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, HOST, HeaderMap};
use hyper::{Request, Uri};
use portcullis_model::{Recorded, Refusal};
use tokio::time::error::Elapsed;

use super::answer::{self, Asked, Bounds, Forwarded, Stop};
use super::connections::Connections;
use super::destination::{AddressRule, Destination};
use super::headers::{ask_for_trailers, is_grpc, strip_for_host, strip_hop};
use super::room::{Held, Room};
use super::tls;
use super::upload::Upload;
use super::websocket::{WebSocket, ask_for_websocket};

/// Most bytes that a compressed body may become.
const UNPACKED_MAX_BYTES: usize = 64 * 1024 * 1024;
/// How much is unpacked at once.
const UNPACKED_STEP_BYTES: usize = 64 * 1024;

/// The destination of a request in absolute form.
///
/// # Errors
/// `malformed-destination`: another scheme, or a name and password in it.
pub fn destination_of(uri: &Uri) -> Result<Destination, Refusal> {
    let malformed = || {
        Refusal::malformed("destination")
            .expected("http://host[:port]/path or https://host[:port]/path")
            .received(&uri.to_string())
    };
    let port = match uri.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        Some(_) | None => return Err(malformed()),
    };
    let authority = uri.authority().ok_or_else(malformed)?;
    if authority.as_str().contains('@') {
        return Err(malformed());
    }
    Destination::new(authority.host(), authority.port_u16().unwrap_or(port))
}

/// A body as it can be looked at: `gzip` and `deflate` undone.
///
/// # Errors
/// `body-not-readable`: another coding, or it can't be undone within bounds. `no-room-for-body`.
pub fn readable(headers: &HeaderMap, body: &Bytes, room: &Room) -> Result<Bytes, Refusal> {
    let refused = |received: &str| {
        Refusal::denied(
            "body-not-readable",
            "the request's body can't be looked at, so it does not leave",
        )
        .expected("a body without content coding, or with gzip or deflate")
        .received(received)
        .next("switch compression of requests off in the client")
    };
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let coding = match (codings.next(), codings.next()) {
        (None, _) => return Ok(body.clone()),
        (Some(one), None) => one.to_str().unwrap_or_default().trim().to_ascii_lowercase(),
        (Some(_), Some(_)) => return Err(refused("several codings")),
    };
    let unpacked = match coding.as_str() {
        "" | "identity" => return Ok(body.clone()),
        "gzip" | "x-gzip" => unpack(flate2::read::MultiGzDecoder::new(body.as_ref()), room),
        "deflate" => unpack(flate2::read::ZlibDecoder::new(body.as_ref()), room),
        other => return Err(refused(other)),
    };
    match unpacked {
        Ok(Some(plain)) => Ok(plain),
        Ok(None) => Err(refused("more than 64 MiB once unpacked")),
        Err(Unpacking::Broken(error)) => Err(refused(&error.to_string())),
        Err(Unpacking::NoRoom(refusal)) => Err(refusal),
    }
}

/// Why something could not be unpacked.
enum Unpacking {
    Broken(std::io::Error),
    NoRoom(Refusal),
}

/// All of it; `None` where it is more than may be.
fn unpack(mut packed: impl std::io::Read, room: &Room) -> Result<Option<Bytes>, Unpacking> {
    let mut plain = Held::new(room);
    let mut buffer = vec![0; UNPACKED_STEP_BYTES];
    loop {
        let count = match packed.read(&mut buffer) {
            Ok(0) => return Ok(Some(plain.finish())),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Unpacking::Broken(error)),
        };
        plain
            .push_now(buffer.get(..count).unwrap_or_default())
            .map_err(Unpacking::NoRoom)?;
        if plain.len() > UNPACKED_MAX_BYTES {
            return Ok(None);
        }
    }
}

/// Sends requests out, over connections that are kept.
#[derive(Clone)]
pub struct EgressClient {
    connections: Connections,
}

impl EgressClient {
    /// `extra_authorities` is a PEM file of certificate authorities beside the public ones.
    ///
    /// # Errors
    /// `ca-file-unreadable`.
    pub fn new(
        rule: AddressRule,
        extra_authorities: Option<&std::path::Path>,
    ) -> Result<Self, Refusal> {
        Ok(Self {
            connections: Connections::new(rule, tls::client(extra_authorities)?),
        })
    }

    /// Forwards a request in absolute form to `destination`, which is what was decided on and must
    /// be the request's.
    ///
    /// # Errors
    /// `destination-differs`, `address-not-public`, `destination-unknown`,
    /// `destination-unreachable`, `destination-certificate`, `destination-timeout`.
    pub async fn forward<P>(
        &self,
        permit: Recorded<P>,
        destination: &Destination,
        request: Request<impl Into<Upload>>,
        bounds: Bounds,
        stop: Stop,
    ) -> Result<Forwarded, Refusal> {
        let _used = permit.spend();
        let began = Instant::now();
        let request = outgoing(destination, request)?;
        let bytes_out = request.body().counter();
        let answer = self.connections.send(destination, request);
        let answer = tokio::time::timeout(bounds.head_time, answer).await;
        let answer = in_time(destination, answer)?;
        let asked = Asked {
            began,
            model: None,
            digest: None,
            kept: None,
            bytes_out,
        };
        Ok(answer::forward(answer, asked, bounds, stop).await)
    }

    /// As [`Self::forward`], for a request that asks to go on as a WebSocket.
    ///
    /// # Errors
    /// As [`Self::forward`]; `not-understood` for another version of the protocol, `no-websocket`.
    pub async fn websocket<P>(
        &self,
        permit: Recorded<P>,
        destination: &Destination,
        request: Request<impl Into<Upload>>,
        bounds: Bounds,
    ) -> Result<WebSocket, Refusal> {
        let _used = permit.spend();
        let mut request = outgoing(destination, request)?;
        ask_for_websocket(request.headers_mut())?;
        let answer = self.connections.upgrade(request);
        let answer = tokio::time::timeout(bounds.head_time, answer).await;
        WebSocket::answered(in_time(destination, answer)?)
    }
}

fn outgoing(
    destination: &Destination,
    request: Request<impl Into<Upload>>,
) -> Result<Request<Upload>, Refusal> {
    let named = destination_of(request.uri())?;
    if named != *destination {
        return Err(Refusal::denied(
            "destination-differs",
            "the request goes elsewhere than what was decided on",
        )
        .expected(&destination.to_string())
        .received(&named.to_string()));
    }
    let (mut head, body) = request.into_parts();
    head.extensions.clear();
    head.version = hyper::Version::HTTP_11;
    strip_hop(&mut head.headers);
    strip_for_host(&mut head.headers);
    // Written anew: the host from the URL, the length from the body.
    for name in [HOST, CONTENT_LENGTH, EXPECT] {
        head.headers.remove(name);
    }
    if is_grpc(&head.headers) {
        ask_for_trailers(&mut head.headers);
    }
    Ok(Request::from_parts(head, body.into()))
}

fn in_time<T>(
    destination: &Destination,
    answer: Result<Result<T, Box<dyn Error + Send + Sync>>, Elapsed>,
) -> Result<T, Refusal> {
    answer
        .map_err(|_| {
            Refusal::unavailable(
                "destination-timeout",
                format!("{destination} did not answer in time"),
            )
        })?
        .map_err(|error| failed(destination, error.as_ref()))
}

/// What went wrong, in words: our own refusal, a certificate, or the connection.
fn failed(destination: &Destination, error: &(dyn Error + 'static)) -> Refusal {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    let mut last = error.to_string();
    while let Some(inner) = cause {
        if let Some(refusal) = inner.downcast_ref::<Refusal>() {
            return refusal.clone();
        }
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return certificate(destination, tls);
        }
        last = inner.to_string();
        // An I/O error names what is inside as its own inner error, not as its source.
        cause = match inner.downcast_ref::<std::io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => inner.source(),
        };
    }
    Refusal::unavailable(
        "destination-unreachable",
        format!("{destination} does not answer in HTTP"),
    )
    .received(&last)
}

fn certificate(destination: &Destination, error: &rustls::Error) -> Refusal {
    use rustls::CertificateError as Wrong;
    let why = match error {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            Wrong::Expired | Wrong::ExpiredContext { .. } => "its certificate has expired",
            Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => {
                "its certificate is not valid yet"
            }
            Wrong::UnknownIssuer => "nobody that the server trusts vouches for its certificate",
            Wrong::NotValidForName | Wrong::NotValidForNameContext { .. } => {
                "its certificate is for another name"
            }
            Wrong::Revoked => "its certificate was revoked",
            _ => "its certificate does not hold",
        },
        _ => "TLS with it can't be agreed on",
    };
    Refusal::unavailable(
        "destination-certificate",
        format!("{destination} is not reached: {why}"),
    )
    .received(&error.to_string())
    .next(
        "whoever runs the host mends it; `extra_authorities` of portcullis.toml names further authorities",
    )
}
