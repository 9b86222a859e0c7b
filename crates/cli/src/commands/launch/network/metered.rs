//! A connection to the outside that counts, and breaks when the job's bytes are used up.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::{IDLE_TIME, Meter, Shared};

/// A counted connection.
pub(super) struct Metered {
    stream: TcpStream,
    meter: Arc<Meter>,
    shared: Arc<Shared>,
    /// Bytes of this connection, both ways.
    moved: Arc<AtomicU64>,
}

impl Metered {
    pub(super) fn new(stream: TcpStream, meter: Arc<Meter>, shared: Arc<Shared>) -> Self {
        Self {
            stream,
            meter,
            shared,
            moved: Arc::default(),
        }
    }

    /// Ready when nothing moved on this connection for [`IDLE_TIME`].
    pub(super) fn idle(&self) -> impl Future<Output = ()> + Send + use<> {
        let moved = Arc::clone(&self.moved);
        async move {
            let mut last = moved.load(Ordering::Relaxed);
            loop {
                tokio::time::sleep(IDLE_TIME).await;
                let seen = moved.load(Ordering::Relaxed);
                if seen == last {
                    return;
                }
                last = seen;
            }
        }
    }

    fn count(&self, counter: &AtomicU64, bytes: usize) -> io::Result<()> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        counter.fetch_add(bytes, Ordering::Relaxed);
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        self.shared
            .within_bytes()
            .map_err(|refusal| io::Error::other(refusal.message))
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = buffer.filled().len().saturating_sub(before);
        Poll::Ready(self.count(&self.meter.bytes_in, read))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        Poll::Ready(self.count(&self.meter.bytes_out, written).map(|()| written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
