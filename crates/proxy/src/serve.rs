//! Listeners, their bounds, and the way down.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use portcullis_model::Refusal;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::plane::Plane;
use crate::{control, forward};

/// Pause in ms after `accept` failed (no descriptors left, mostly), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// Control connections that may wait to be accepted.
const CONTROL_BACKLOG: i32 = 64;
/// hyper keeps at least this many bytes for a message's head.
const HEADER_MIN_BYTES: usize = 8 * 1024;

/// Where a proxy listens and what it keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyConfig {
    /// Address for clients, HTTP/1.1 without TLS; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// Unix socket of the control plane; made with mode 0600.
    pub control_socket: PathBuf,
    /// The state file; preallocated with mode 0600, overwritten in place.
    pub state_file: PathBuf,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
}

/// Bounds of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Client connections; more wait to be accepted.
    pub max_connections: usize,
    /// Upgraded connections; more are answered with 503.
    pub max_upgrades: u64,
    /// Bytes of a message's head, from clients and backends, at least 8192.
    pub max_header_bytes: usize,
    /// Time in ms for a client to send a head, and to stay idle between requests.
    pub header_timeout_ms: u64,
    /// Time in ms for a backend to take a connection.
    pub connect_timeout_ms: u64,
    /// Time in ms from the request's last byte to the response's head.
    pub response_timeout_ms: u64,
    /// Time in ms without a byte within a response's body.
    pub body_idle_timeout_ms: u64,
    /// Time in ms that requests under way get at shutdown.
    pub drain_timeout_ms: u64,
    /// Connections to each backend that are kept for later requests.
    pub max_idle_backend_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4_096,
            max_upgrades: 1_024,
            max_header_bytes: 32 * 1024,
            header_timeout_ms: 30_000,
            connect_timeout_ms: 2_000,
            response_timeout_ms: 30_000,
            body_idle_timeout_ms: 60_000,
            drain_timeout_ms: 10_000,
            max_idle_backend_connections: 256,
        }
    }
}

/// Serves until SIGTERM or SIGINT, then lets requests under way end.
///
/// # Errors
/// A listener can't be opened, or a bound makes no sense.
pub async fn serve(config: ProxyConfig) -> Result<(), Refusal> {
    use tokio::signal::unix::{SignalKind, signal};
    let unavailable = |error: std::io::Error| {
        Refusal::unavailable(
            "proxy-signals",
            format!("signals can't be received: {error}"),
        )
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(unavailable)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unavailable)?;
    let proxy = Proxy::bind(&config).await?;
    tracing::info!(listen = %proxy.address(), "the proxy serves");
    proxy
        .run(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await;
    Ok(())
}

/// A proxy whose listeners are open.
pub struct Proxy {
    plane: Arc<Plane>,
    front: TcpListener,
    address: SocketAddr,
    control: UnixListener,
    control_socket: PathBuf,
}

impl Proxy {
    /// Opens the listeners and comes back to the persisted configuration.
    ///
    /// # Errors
    /// A listener can't be opened, another proxy holds the control socket, or a bound makes no
    /// sense. A state file that can't be had is no error: state lives in memory then.
    pub async fn bind(config: &ProxyConfig) -> Result<Self, Refusal> {
        if config.limits.max_header_bytes < HEADER_MIN_BYTES || config.limits.max_connections == 0 {
            return Err(Refusal::malformed("proxy limits")
                .expected("max_header_bytes of at least 8192 and max_connections of at least 1"));
        }
        let control = control_listener(&config.control_socket)?;
        let in_use = |error: std::io::Error| {
            Refusal::unavailable(
                "proxy-listen",
                format!("the proxy can't listen on {}: {error}", config.listen),
            )
            .next("free the address, or set `listen` to another")
        };
        let front = TcpListener::bind(config.listen).await.map_err(in_use)?;
        let address = front.local_addr().map_err(in_use)?;
        Ok(Self {
            plane: Plane::open(&config.state_file, config.limits.clone()),
            front,
            address,
            control,
            control_socket: config.control_socket.clone(),
        })
    }

    /// The address that clients use.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` ends. Then no connection is accepted, requests under way get
    /// their time, upgraded connections are cut, and the control socket goes last.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self {
            plane,
            front,
            control,
            control_socket,
            ..
        } = self;
        let control = tokio::spawn(control::serve(Arc::clone(&plane), control));
        let slots = Arc::new(Semaphore::new(plane.limits.max_connections));
        tokio::select! {
            () = accept(&plane, &front, &slots) => {}
            () = shutdown => {}
        }
        drop(front);
        plane.stop();
        let all = u32::try_from(plane.limits.max_connections).unwrap_or(u32::MAX);
        let drain = Duration::from_millis(plane.limits.drain_timeout_ms);
        if tokio::time::timeout(drain, slots.acquire_many(all))
            .await
            .is_err()
        {
            tracing::warn!(
                drain_ms = plane.limits.drain_timeout_ms,
                "some requests did not end in time and are cut off"
            );
        }
        control.abort();
        // Gone already is as good.
        drop(std::fs::remove_file(control_socket));
    }
}

async fn accept(plane: &Arc<Plane>, front: &TcpListener, slots: &Arc<Semaphore>) {
    loop {
        // A place first: beyond the bound, clients wait in the kernel's queue.
        let Ok(slot) = Arc::clone(slots).acquire_owned().await else {
            return;
        };
        match front.accept().await {
            Ok((stream, peer)) => {
                tokio::spawn(connection(Arc::clone(plane), stream, peer, slot));
            }
            Err(error) => {
                tracing::warn!(%error, "a client's connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    plane: Arc<Plane>,
    stream: TcpStream,
    peer: SocketAddr,
    slot: OwnedSemaphorePermit,
) {
    let Ok(client) = HeaderValue::from_str(&peer.ip().to_string()) else {
        return;
    };
    if stream.set_nodelay(true).is_err() {
        return;
    }
    plane.connections.fetch_add(1, Ordering::Relaxed);
    let service = service_fn(|request| async {
        Ok::<_, Infallible>(forward::handle(&plane, &client, request).await)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(plane.limits.header_timeout_ms))
        .max_buf_size(plane.limits.max_header_bytes)
        .max_header_size(plane.limits.max_header_bytes)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = plane.stopped() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a client's connection broke");
    }
    plane.connections.fetch_sub(1, Ordering::Relaxed);
    drop(slot);
}

/// A unix listener that only its owner can open from the first instant on: the mode is set on the
/// socket before it has a name.
fn control_listener(path: &Path) -> Result<UnixListener, Refusal> {
    use rustix::fs::Mode;
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let refused = |error: std::io::Error| {
        Refusal::unavailable(
            "proxy-control-socket",
            format!(
                "the control socket {} can't be made: {error}",
                path.display()
            ),
        )
        .next("set `control_socket` to a path in a directory that this user owns")
    };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(Refusal::conflict(
            "proxy-already-running",
            format!("another proxy answers on {}", path.display()),
        )
        .next("stop it first, or set `control_socket` to another path"));
    }
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type()) => {
            // Left behind by a proxy that was killed.
            std::fs::remove_file(path).map_err(refused)?;
        }
        Ok(_) | Err(_) => {}
    }
    let make = || -> rustix::io::Result<rustix::fd::OwnedFd> {
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::net::listen(&socket, CONTROL_BACKLOG)?;
        Ok(socket)
    };
    let socket = make().map_err(|error| refused(error.into()))?;
    UnixListener::from_std(socket.into()).map_err(refused)
}
