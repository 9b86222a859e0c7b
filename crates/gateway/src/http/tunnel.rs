//! Bytes that pass unread: tunnels to named hosts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use portcullis_model::{Recorded, Refusal};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::destination::{AddressRule, Destination};

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
    /// Something that was said must not pass.
    Refused,
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
        self,
        inside: I,
        bounds: TunnelBounds,
        stop: impl Future<Output = ()>,
    ) -> TunnelOutcome {
        splice(inside, self.outside, bounds, stop).await
    }
}

/// Passes bytes between the two until both have ended, a bound is reached, or `stop` is ready.
async fn splice<I, O>(
    inside: I,
    outside: O,
    bounds: TunnelBounds,
    stop: impl Future<Output = ()>,
) -> TunnelOutcome
where
    I: AsyncRead + AsyncWrite,
    O: AsyncRead + AsyncWrite,
{
    let (out, back) = (AtomicU64::new(0), AtomicU64::new(0));
    let (inside_read, inside_write) = tokio::io::split(inside);
    let (outside_read, outside_write) = tokio::io::split(outside);
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
pub(super) async fn idle(out: &AtomicU64, back: &AtomicU64, time: Duration) {
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
