//! Connections to one backend, kept for the next request.
//!
//! hyper-util's pooled client would serve, but it hides the one fact that this proxy needs:
//! whether a request failed before any byte of it was sent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::body::ClientBody;
use crate::serve::Limits;
use crate::wire::Backend;

/// How long a connection that has just ended a response may take to become ready again.
const READY_TIMEOUT: Duration = Duration::from_millis(20);

/// Connections to one backend.
#[derive(Debug)]
pub(crate) struct Pool {
    backend: Backend,
    idle: Mutex<Vec<SendRequest<ClientBody>>>,
    idle_max: usize,
    connect_timeout: Duration,
    header_max_bytes: usize,
}

/// A connection in use. Dropped, it closes; given back, it serves again.
pub(crate) struct Lease {
    pool: Arc<Pool>,
    sender: SendRequest<ClientBody>,
}

impl Pool {
    pub(crate) fn new(backend: Backend, limits: &Limits) -> Self {
        Self {
            backend,
            idle: Mutex::new(Vec::new()),
            idle_max: limits.max_idle_backend_connections,
            connect_timeout: Duration::from_millis(limits.connect_timeout_ms),
            header_max_bytes: limits.max_header_bytes,
        }
    }

    pub(crate) const fn backend(&self) -> &Backend {
        &self.backend
    }

    /// A connection that was used before, if one is still open.
    pub(crate) async fn reuse(self: &Arc<Self>) -> Option<Lease> {
        loop {
            let mut sender = self.idle().pop()?;
            if sender.is_closed() {
                continue;
            }
            let ready = sender.is_ready()
                || matches!(
                    tokio::time::timeout(READY_TIMEOUT, sender.ready()).await,
                    Ok(Ok(()))
                );
            if ready {
                return Some(Lease {
                    pool: Arc::clone(self),
                    sender,
                });
            }
        }
    }

    /// A new connection.
    pub(crate) async fn connect(self: &Arc<Self>) -> Result<Lease, std::io::Error> {
        let opened = tokio::time::timeout(self.connect_timeout, self.open()).await;
        let sender = opened.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
        Ok(Lease {
            pool: Arc::clone(self),
            sender,
        })
    }

    async fn open(&self) -> Result<SendRequest<ClientBody>, std::io::Error> {
        match &self.backend {
            Backend::Unix(path) => self.handshake(UnixStream::connect(path).await?).await,
            Backend::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                self.handshake(stream).await
            }
        }
    }

    async fn handshake<S>(&self, stream: S) -> Result<SendRequest<ClientBody>, std::io::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(self.header_max_bytes)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        tokio::spawn(async move {
            // Errors show at the request that they hit.
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a backend connection ended");
            }
        });
        Ok(sender)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<SendRequest<ClientBody>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Sends one request. With an error comes the request, if no byte of it was sent.
    pub(crate) async fn send(
        &mut self,
        request: Request<ClientBody>,
    ) -> Result<hyper::Response<Incoming>, (hyper::Error, Option<Request<ClientBody>>)> {
        self.sender
            .try_send_request(request)
            .await
            .map_err(|mut error| {
                let request = error.take_message();
                (error.into_error(), request)
            })
    }

    /// Keeps the connection for the next request.
    pub(crate) fn give_back(self) {
        let mut idle = self.pool.idle();
        if idle.len() < self.pool.idle_max && !self.sender.is_closed() {
            idle.push(self.sender);
        }
    }
}
