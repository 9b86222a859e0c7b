//! The launcher's half of the one way out.
//!
//! It owns the listener inside the sandbox, speaks HTTP/1.1 to whatever runs there, and forwards
//! every request to the server's gateway, adding the proof of possession that only the launcher
//! can make. What arrives at the listener comes from the run by construction: nobody else is in
//! its network. So there is no key and no token inside; the channel is the identity.
//!
//! | inside asks | the gateway gets |
//! |---|---|
//! | `/git/…`, `/model/…`, `/ask…` | the same under `<server>/gateway/v1` |
//! | `GET http://host/…` (as to a proxy) | `<server>/gateway/v1/egress`, `portcullis-target: http://host/…` |
//! | any connection to any host, captured, or `CONNECT host:port` | each request in it as `<server>/gateway/v1/egress`, `portcullis-target: https://host/…` |
//! | such a connection to a host among the task's tunnels | `GET <server>/gateway/v1/tunnel`, `upgrade: portcullis-tunnel`, `portcullis-target: host:port` |
//!
//! A program's own `authorization` for another host arrives as `portcullis-target-authorization`.
//!
//! It decides nothing: what the gateway refuses comes back as it is, with its reason.

mod authority;
mod connections;
mod extended;
mod forward;
mod heads;
mod inlet;
mod meant;
mod names;
mod route;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use portcullis_model::Refusal;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

pub use authority::Authority;
pub use connections::{First, Header, Opening, Prover, Session};
use forward::Forwarder;
use heads::Watched;

use names::Names;

use crate::Inlets;

/// Most connections from inside at a time: far above what builds open, and bounded memory.
pub const CONNECTIONS_MAX: usize = 512;
/// Largest head of a request in bytes, and the most that is buffered of a body.
const BUFFER_MAX_BYTES: usize = 128 * 1024;
/// Most headers of one request.
const HEADERS_MAX: usize = 128;

/// How long what a client says may take to come. Bodies have bounds of the gateway's.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Until a client says something, and until its handshake is over.
    first: Duration,
    /// Until a request's head is there. In HTTP/2, which has no such bound, until a client that is
    /// silent shows that it lives.
    head: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(10),
            head: Duration::from_secs(30),
        }
    }
}

/// Where the gateway is and how it is reached.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Base URL of the server, `http://127.0.0.1:8080` or `https://host`.
    pub server: String,
    /// TLS settings for an `https` server; `None`: the public web's authorities.
    pub tls: Option<rustls::ClientConfig>,
}

/// A channel at work; dropped, it and every connection through it end.
#[derive(Debug)]
pub struct Channel {
    serving: Vec<JoinHandle<()>>,
    address: SocketAddr,
}

/// How captured connections are treated.
#[derive(Debug)]
pub struct Capture {
    /// Whom the programs inside trust.
    pub authority: Authority,
    /// Hosts that the task names, as `name:port`: a connection there that says nothing that can be
    /// read is no attempt at another host. What is permitted, the gateway decides.
    pub hosts: BTreeSet<String>,
    /// Hosts, as `name:port`, whose connections are passed as they are, unread, where the gateway
    /// permits it.
    pub tunnels: BTreeSet<String>,
}

impl Channel {
    /// Starts serving a sandbox's listener ([`Running::listener`](crate::Running::listener)) on
    /// the current tokio runtime. Nothing else is captured; `CONNECT` leads to the gateway's tunnel.
    ///
    /// # Errors
    /// `malformed-server-url` for a base that isn't one; `channel-listener` for a listener that
    /// can't be used.
    pub fn start(
        listener: TcpListener,
        gateway: &Gateway,
        prover: Arc<dyn Prover>,
    ) -> Result<Self, Refusal> {
        let inlets = Inlets {
            own: listener,
            captured: Vec::new(),
            names: None,
        };
        Self::serve(inlets, gateway, prover, None)
    }

    /// Starts serving all that leads out of a sandbox ([`Running::inlets`](crate::Running::inlets)):
    /// its own listener, every captured connection, and questions about names.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn capture(
        inlets: Inlets,
        gateway: &Gateway,
        prover: Arc<dyn Prover>,
        capture: Capture,
    ) -> Result<Self, Refusal> {
        Self::serve(inlets, gateway, prover, Some(capture))
    }

    fn serve(
        inlets: Inlets,
        gateway: &Gateway,
        prover: Arc<dyn Prover>,
        capture: Option<Capture>,
    ) -> Result<Self, Refusal> {
        let refused = |error: std::io::Error| {
            Refusal::unavailable("channel-listener", "the channel's listener can't be used")
                .received(&error.to_string())
        };
        let asynchronous = |listener: TcpListener| {
            listener.set_nonblocking(true).map_err(refused)?;
            tokio::net::TcpListener::from_std(listener).map_err(refused)
        };
        let address = inlets.own.local_addr().map_err(refused)?;
        let own = asynchronous(inlets.own)?;
        let captured = inlets
            .captured
            .into_iter()
            .map(asynchronous)
            .collect::<Result<Vec<_>, _>>()?;
        let names = Arc::new(Names::default());
        let forwarder = Forwarder::new(gateway, prover, address, capture, Arc::clone(&names))?;
        let forwarder = Arc::new(forwarder);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut serving = vec![tokio::spawn(accept(
            own,
            Arc::clone(&forwarder),
            Arc::clone(&places),
            Inlet::Own,
        ))];
        for listener in captured {
            serving.push(tokio::spawn(accept(
                listener,
                Arc::clone(&forwarder),
                Arc::clone(&places),
                Inlet::Captured,
            )));
        }
        if let Some(socket) = inlets.names {
            socket.set_nonblocking(true).map_err(refused)?;
            let socket = tokio::net::UdpSocket::from_std(socket).map_err(refused)?;
            serving.push(tokio::spawn(names::serve(socket, names)));
        }
        Ok(Self { serving, address })
    }

    /// Where it listens inside.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // The tasks own the connections, which end with them.
        for task in &self.serving {
            task.abort();
        }
    }
}

/// What a listener is for.
#[derive(Clone, Copy)]
enum Inlet {
    /// The channel's own resources, and requests as to a proxy.
    Own,
    /// Whatever a program connects to.
    Captured,
}

async fn accept(
    listener: tokio::net::TcpListener,
    forwarder: Arc<Forwarder>,
    places: Arc<Semaphore>,
    inlet: Inlet,
) {
    let mut connections = JoinSet::new();
    loop {
        // Past the bound, new connections wait in the kernel's queue.
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(error = %error, "the channel could not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        let _ = stream.set_nodelay(true);
        let forwarder = Arc::clone(&forwarder);
        connections.spawn(async move {
            match inlet {
                Inlet::Own => own(stream, forwarder).await,
                Inlet::Captured => inlet::captured(stream, forwarder).await,
            }
            drop(place);
        });
    }
}

async fn own(stream: tokio::net::TcpStream, forwarder: Arc<Forwarder>) {
    let patience = forwarder.patience;
    let (stream, heads) = Watched::new(stream);
    let serve = service_fn(|request| {
        let (forwarder, once) = (Arc::clone(&forwarder), heads.next());
        async move { Ok::<_, std::convert::Infallible>(forwarder.answer(request, once).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_buf_size(BUFFER_MAX_BYTES)
        .max_headers(HEADERS_MAX)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), serve)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(error = %error, "a connection through the channel broke off");
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
