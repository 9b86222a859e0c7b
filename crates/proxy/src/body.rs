//! Bodies on their way through: each frame is passed on as it comes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use crate::counts::{Ending, Ticket};
use crate::pool::Lease;

/// Why a body ended early. Which side it was is in the counters, not in the words.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// How far the client's body has come, for whoever waits for the response.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    last_ms: AtomicU64,
    state: AtomicU8,
}

const WANTS_BACKEND: u8 = 0;
const WANTS_CLIENT: u8 = 1;
const DONE: u8 = 2;
const FAILED: u8 = 3;

impl Progress {
    fn now(&self, state: u8) {
        let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(ms, Ordering::Relaxed);
        self.state.store(state, Ordering::Relaxed);
    }

    /// When the body last moved.
    pub(crate) fn last(&self) -> Instant {
        self.started + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }

    /// Whether it is the client that keeps everyone waiting, or that went away.
    pub(crate) fn clients_fault(&self) -> bool {
        matches!(self.state.load(Ordering::Relaxed), WANTS_CLIENT | FAILED)
    }

    pub(crate) fn failed(&self) -> bool {
        self.state.load(Ordering::Relaxed) == FAILED
    }
}

/// The client's body.
#[derive(Debug)]
pub(crate) struct ClientBody {
    inner: Option<Incoming>,
    progress: Option<Arc<Progress>>,
}

impl ClientBody {
    pub(crate) fn new(inner: Incoming) -> Self {
        if inner.is_end_stream() {
            return Self::empty();
        }
        Self {
            inner: Some(inner),
            progress: Some(Arc::new(Progress {
                started: Instant::now(),
                last_ms: AtomicU64::new(0),
                state: AtomicU8::new(WANTS_BACKEND),
            })),
        }
    }

    pub(crate) const fn empty() -> Self {
        Self {
            inner: None,
            progress: None,
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.inner.is_none()
    }

    pub(crate) fn progress(&self) -> Option<Arc<Progress>> {
        self.progress.clone()
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(inner).poll_frame(cx);
        if let Some(progress) = &this.progress {
            match &polled {
                // Waiting is not progress; only whom one waits for changes.
                Poll::Pending => progress.state.store(WANTS_CLIENT, Ordering::Relaxed),
                Poll::Ready(Some(Ok(_))) => progress.now(WANTS_BACKEND),
                Poll::Ready(Some(Err(_))) => progress.now(FAILED),
                Poll::Ready(None) => progress.now(DONE),
            }
            if this.inner.as_ref().is_some_and(Body::is_end_stream) {
                progress.state.store(DONE, Ordering::Relaxed);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// What the client gets: a backend's body, or a few words of ours.
pub(crate) enum ProxyBody {
    /// From a backend.
    Backend(BackendBody),
    /// From the proxy itself.
    Own(Full<Bytes>),
}

/// A backend's body, with what has to happen when it ends.
pub(crate) struct BackendBody {
    inner: Incoming,
    /// The connection, to be used again once the body is whole.
    lease: Option<Lease>,
    ticket: Option<Ticket>,
    idle_timeout: Duration,
    /// Runs only while nothing comes.
    idle: Option<Pin<Box<Sleep>>>,
}

impl BackendBody {
    pub(crate) fn new(
        inner: Incoming,
        lease: Lease,
        ticket: Ticket,
        idle_timeout: Duration,
    ) -> Self {
        let mut body = Self {
            inner,
            lease: Some(lease),
            ticket: Some(ticket),
            idle_timeout,
            idle: None,
        };
        body.end_if_whole();
        body
    }

    fn end_if_whole(&mut self) {
        if self.inner.is_end_stream() {
            self.ticket = None;
            if let Some(lease) = self.lease.take() {
                lease.give_back();
            }
        }
    }

    fn fail(&mut self, ending: Ending) {
        if let Some(ticket) = &mut self.ticket {
            ticket.ends(ending);
        }
        self.ticket = None;
        self.lease = None;
    }
}

impl Body for BackendBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.idle = None;
                this.end_if_whole();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.fail(Ending::Error);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                this.ticket = None;
                if let Some(lease) = this.lease.take() {
                    lease.give_back();
                }
                Poll::Ready(None)
            }
            Poll::Pending => {
                let timeout = this.idle_timeout;
                let idle = this
                    .idle
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                ready!(idle.as_mut().poll(cx));
                this.fail(Ending::Timeout);
                Poll::Ready(Some(Err("the release sent no more".into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Backend(body) => Pin::new(body).poll_frame(cx),
            Self::Own(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Backend(body) => body.is_end_stream(),
            Self::Own(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Backend(body) => body.size_hint(),
            Self::Own(body) => body.size_hint(),
        }
    }
}
