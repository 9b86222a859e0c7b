//! A captured connection: what is spoken on it, TLS taken off, each request compared with what the
//! connection was made to, and handed on. What is not understood is refused.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf as _, BytesMut};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use portcullis_model::Refusal;
use portcullis_model::host::plain;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;

use super::forward::Forwarder;
use super::heads::Watched;
use super::meant::{Meant, Protocol, Scheme, protocol};
use super::{BUFFER_MAX_BYTES, HEADERS_MAX};

/// Most requests at a time on one connection of HTTP/2.
const STREAMS_MAX: u32 = 64;
/// Most bytes of the headers of one request of HTTP/2.
const HEADERS_MAX_BYTES: u32 = 64 * 1024;

/// Serves one connection that a program made to any address.
pub(super) async fn captured(stream: TcpStream, forwarder: Arc<Forwarder>) {
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let address = plain(local.ip());
    if address.is_loopback() || address.is_unspecified() {
        // A program that asked for itself, at the very port where the launcher listens.
        return;
    }
    let host = forwarder
        .names()
        .name_of(address)
        .unwrap_or_else(|| address.to_string());
    let meant = Meant {
        host,
        port: local.port(),
    };
    understood(stream, meant, forwarder).await;
}

/// Serves what a connection to `meant` says, whichever way it came.
pub(super) async fn understood<S>(stream: S, meant: Meant, forwarder: Arc<Forwarder>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if forwarder.is_opaque(&meant) {
        forwarder.splice(stream, &meant).await;
        return;
    }
    let mut stream = Seen::new(stream);
    let spoken = match tokio::time::timeout(forwarder.patience.first, stream.look()).await {
        Ok(Ok(Some(spoken))) => spoken,
        // A program may keep a connection ready to a host that it is to use, and not need it. To
        // any other it was an attempt, as when somebody looks which ports are open.
        Ok(Ok(None) | Err(_)) => {
            return unread(&forwarder, &meant, "a connection that said nothing").await;
        }
        // The other side waits for the server to begin, as in SMTP.
        Err(_) => {
            let refusal = not_understood(&meant, "silence");
            forwarder.refused(&refusal, &meant).await;
            return;
        }
    };
    match spoken {
        Protocol::Tls => decrypted(stream, meant, forwarder).await,
        Protocol::Http1 => serve(stream, Spoken::Http1, Scheme::Http, Ok(meant), forwarder).await,
        Protocol::Http2 => serve(stream, Spoken::Http2, Scheme::Http, Ok(meant), forwarder).await,
        Protocol::Other => {
            let refusal = not_understood(&meant, "another protocol");
            forwarder.refused(&refusal, &meant).await;
        }
    }
}

fn not_understood(meant: &Meant, what: &str) -> Refusal {
    Refusal::denied(
        "not-understood",
        format!(
            "what is spoken to {} is neither HTTP nor TLS",
            meant.authority()
        ),
    )
    .expected("HTTP/1.1, HTTP/2, or TLS with one of these")
    .received(what)
    .next("only a task that names the host among its tunnels lets other protocols pass")
}

async fn decrypted<S>(stream: S, meant: Meant, forwarder: Arc<Forwarder>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(authority) = forwarder.authority() else {
        return;
    };
    let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
    let begun = match tokio::time::timeout(forwarder.patience.first, acceptor).await {
        Ok(Ok(begun)) => begun,
        Ok(Err(error)) => {
            tracing::debug!(error = %error, "a TLS handshake could not be read");
            return unread(&forwarder, &meant, "a TLS handshake that can't be read").await;
        }
        Err(_) => return unread(&forwarder, &meant, "half a TLS handshake").await,
    };
    let name = begun.client_hello().server_name().map(str::to_owned);
    let agreed = meant.agrees_with_sni(name.as_deref());
    // With a certificate for the name that was asked, the "no" can be told in HTTP.
    let shown = match (&agreed, &name) {
        (Err(_), Some(name)) => name.to_ascii_lowercase(),
        (Ok(()), _) | (Err(_), None) => meant.host.clone(),
    };
    let Ok(config) = authority.server(&shown) else {
        return;
    };
    let stream =
        match tokio::time::timeout(forwarder.patience.first, begun.into_stream(config)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::info!(
                    error = %error,
                    host = meant.host,
                    "a program did not take the run's certificate"
                );
                let what = "TLS by a program that does not take the run's certificate";
                return unread(&forwarder, &meant, what).await;
            }
            Err(_) => return unread(&forwarder, &meant, "half a TLS handshake").await,
        };
    let spoken = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Spoken::Http2,
        Some(_) | None => Spoken::Http1,
    };
    let meant = agreed.map(|()| meant.clone()).map_err(|no| (no, meant));
    serve(stream, spoken, Scheme::Https, meant, forwarder).await;
}

/// A connection on which no request could be read. The ledger is told where the task names no such
/// host; where it does, nothing was tried that it forbids, and the launcher's log says what failed.
async fn unread(forwarder: &Forwarder, meant: &Meant, what: &str) {
    if !forwarder.is_named(meant) {
        forwarder.refused(&not_understood(meant, what), meant).await;
    }
}

#[derive(Clone, Copy)]
enum Spoken {
    Http1,
    Http2,
}

/// Answers requests; all with the same "no" where the handshake disagreed already.
async fn serve<S>(
    stream: S,
    spoken: Spoken,
    scheme: Scheme,
    meant: Result<Meant, (Refusal, Meant)>,
    forwarder: Arc<Forwarder>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let meant = Arc::new(meant);
    let patience = forwarder.patience;
    let asked = AtomicBool::new(false);
    let answer = |request, once: Result<(), Refusal>| {
        asked.store(true, Ordering::Relaxed);
        let (forwarder, meant) = (Arc::clone(&forwarder), Arc::clone(&meant));
        async move {
            let answer = match (&*meant, once) {
                (Ok(meant), Ok(())) => forwarder.answer_captured(request, scheme, meant).await,
                (Ok(meant), Err(refusal)) => forwarder.say_no_and_close(&refusal, meant).await,
                (Err((refusal, meant)), _) => forwarder.say_no(refusal, meant).await,
            };
            Ok::<_, std::convert::Infallible>(answer)
        }
    };
    let ended = match spoken {
        Spoken::Http1 => {
            let (stream, heads) = Watched::new(stream);
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(patience.head)
                .max_buf_size(BUFFER_MAX_BYTES)
                .max_headers(HEADERS_MAX)
                .half_close(true)
                .serve_connection(
                    TokioIo::new(stream),
                    service_fn(|request| answer(request, heads.next())),
                )
                .with_upgrades()
                .await
        }
        Spoken::Http2 => {
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_MAX)
                .max_header_list_size(HEADERS_MAX_BYTES)
                .keep_alive_interval(patience.head)
                .keep_alive_timeout(patience.first)
                .enable_connect_protocol()
                .serve_connection(
                    TokioIo::new(stream),
                    service_fn(|request| answer(request, Ok(()))),
                )
                .await
        }
    };
    if let Err(error) = &ended {
        tracing::debug!(error = %error, "a captured connection broke off");
    }
    let nothing_asked = !asked.load(Ordering::Relaxed);
    match (&*meant, ended) {
        (Ok(meant), Err(error)) if error.is_parse() => {
            let refusal = not_understood(meant, "HTTP that can't be read");
            forwarder.refused(&refusal, meant).await;
        }
        (Ok(meant), Err(_)) if nothing_asked => unread(&forwarder, meant, "half a request").await,
        (Ok(meant), Ok(())) if nothing_asked => unread(&forwarder, meant, "no request").await,
        // Where there was a request, it was told.
        (Err((refusal, meant)), _) if nothing_asked => forwarder.refused(refusal, meant).await,
        (Ok(_), _) | (Err(_), _) => {}
    }
}

/// A stream whose first bytes were looked at, and come again.
struct Seen<S> {
    first: BytesMut,
    stream: S,
}

impl<S: AsyncRead + Unpin> Seen<S> {
    fn new(stream: S) -> Self {
        Self {
            first: BytesMut::new(),
            stream,
        }
    }

    /// Reads until it is clear what is spoken; `None` at the end of the stream.
    async fn look(&mut self) -> io::Result<Option<Protocol>> {
        loop {
            if self.stream.read_buf(&mut self.first).await? == 0 {
                return Ok(None);
            }
            // Every case is clear within the 16 bytes of the longest preface.
            if let Some(spoken) = protocol(&self.first) {
                return Ok(Some(spoken));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Seen<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let count = self.first.len().min(buffer.remaining());
        buffer.put_slice(self.first.get(..count).unwrap_or_default());
        self.first.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Seen<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
