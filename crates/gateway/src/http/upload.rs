//! A request's body on its way out: held whole while it is small, a stream where it is larger.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, SizeHint};
use portcullis_model::{Refusal, RefusalKind};

use super::room::{Held, Room};
use crate::git::body::{BodySender, StreamBody};

/// Most bytes of a body that are held in memory. What is in a smaller one is known to policy before
/// a byte of it leaves.
pub const HELD_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Largest body in bytes; what is over the bound above is looked at while it passes.
pub const UPLOAD_MAX_BYTES: u64 = 1024 * 1024 * 1024;
/// Most bytes of a refused body that are read all the same.
const DRAINED_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Longest silence within a body from inside.
pub const SILENCE: Duration = Duration::from_secs(30);
/// Longest time for what is held of a body, which takes room meanwhile however slowly it comes.
pub const HELD_TIME: Duration = Duration::from_secs(120);
/// A body that pauses for so long is no longer held: it may be a stream whose client waits for an
/// answer to what it said.
pub const PAUSE: Duration = Duration::from_secs(1);
/// Longest silence within a body that passes as a stream.
pub const STREAM_SILENCE: Duration = Duration::from_secs(300);

/// The beginning of a body.
#[derive(Debug)]
pub enum Begun<B> {
    /// All of it.
    Whole(Bytes),
    /// More than is held, or it pauses: its first bytes, and the rest.
    Large(Bytes, B),
}

/// Reads a body until its end, until more came than is held, or until it pauses. `whole`: one that
/// can't be looked at in parts, so that a pause is none.
///
/// # Errors
/// `connection-lost`, `request-too-slow`, `no-room-for-body`.
pub async fn begin<B>(mut body: B, room: &Room, whole: bool) -> Result<Begun<B>, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let pause = if whole { SILENCE } else { PAUSE };
    match hold(&mut body, room, HELD_MAX_BYTES, HELD_TIME, pause).await? {
        (bytes, true) => Ok(Begun::Whole(bytes)),
        (bytes, false) => Ok(Begun::Large(bytes, body)),
    }
}

/// Reads a body until its end (then `true`), until more than `most` bytes of it came, or until it
/// pauses for `pause`, where that is less than the longest silence; all of it within `time`.
pub(super) async fn hold<B>(
    body: &mut B,
    room: &Room,
    most: usize,
    time: Duration,
    pause: Duration,
) -> Result<(Bytes, bool), Refusal>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let reading = async {
        let mut held = Held::new(room);
        loop {
            match next_within(body, pause).await? {
                Next::Piece(piece) => held.push(&piece).await?,
                Next::End => return Ok((held.finish(), true)),
                Next::Silence if pause < SILENCE => return Ok((held.finish(), false)),
                Next::Silence => return Err(silent(SILENCE)),
            }
            if held.len() > most {
                return Ok((held.finish(), false));
            }
        }
    };
    tokio::time::timeout(time, reading)
        .await
        .unwrap_or_else(|_| {
            Err(too_slow(&format!(
                "{most} bytes, or all of a smaller body, within {} s",
                time.as_secs()
            )))
        })
}

fn too_slow(expected: &str) -> Refusal {
    Refusal::limit("request-too-slow", "the request's body does not come")
        .expected(expected)
        .next("send it without pauses")
}

fn silent(most: Duration) -> Refusal {
    too_slow(&format!("bytes at least every {} s", most.as_secs()))
}

/// What comes of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Bytes.
    Piece(Bytes),
    /// Nothing for as long as was waited.
    Silence,
    /// Its end.
    End,
}

/// The next bytes of a body from inside; `None` at its end. Trailers are left out.
///
/// # Errors
/// `connection-lost`, `request-too-slow`.
pub async fn next<B>(body: &mut B) -> Result<Option<Bytes>, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    match next_within(body, SILENCE).await? {
        Next::Piece(piece) => Ok(Some(piece)),
        Next::End => Ok(None),
        Next::Silence => Err(silent(SILENCE)),
    }
}

/// As [`next`], for who does something else in a silence of `time`.
///
/// # Errors
/// `connection-lost`.
pub async fn next_within<B>(body: &mut B, time: Duration) -> Result<Next, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    loop {
        if body.is_end_stream() {
            return Ok(Next::End);
        }
        let Ok(frame) = tokio::time::timeout(time, body.frame()).await else {
            return Ok(Next::Silence);
        };
        match frame {
            None => return Ok(Next::End),
            Some(Err(error)) => {
                return Err(Refusal::new(
                    RefusalKind::Malformed,
                    "connection-lost",
                    "the request ended before it was whole",
                )
                .received(&error.into().to_string()));
            }
            Some(Ok(frame)) => {
                if let Ok(piece) = frame.into_data()
                    && !piece.is_empty()
                {
                    return Ok(Next::Piece(piece));
                }
            }
        }
    }
}

/// Reads what is left of a body that was refused, so that a client that is still sending gets to
/// read why. Gives up beyond a bound of time and bytes.
pub async fn drain<B>(mut body: B)
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let reading = async {
        let mut left = DRAINED_MAX_BYTES;
        while let Ok(Some(piece)) = next(&mut body).await {
            left = left.saturating_sub(piece.len());
            if left == 0 {
                return;
            }
        }
    };
    let _in_time = tokio::time::timeout(SILENCE, reading).await;
}

/// What [`EgressClient::forward`](super::egress::EgressClient::forward) sends as a body.
pub struct Upload {
    inner: Inner,
    /// How long it will be, where that is known.
    length: Option<u64>,
    sent: Arc<AtomicU64>,
}

enum Inner {
    Whole(Full<Bytes>),
    Streamed(StreamBody),
}

impl From<Bytes> for Upload {
    fn from(bytes: Bytes) -> Self {
        Self {
            length: u64::try_from(bytes.len()).ok(),
            inner: Inner::Whole(Full::new(bytes)),
            sent: Arc::default(),
        }
    }
}

impl Upload {
    /// A body whose bytes come through the sender. `length`: as the client said.
    pub fn streamed(length: Option<u64>) -> (UploadSender, Self) {
        let (sender, body) = StreamBody::channel();
        let upload = Self {
            inner: Inner::Streamed(body),
            length,
            sent: Arc::default(),
        };
        (UploadSender(sender), upload)
    }

    /// How many bytes were taken from it, then and later.
    pub(super) fn counter(&self) -> Box<dyn Fn() -> u64 + Send + Sync> {
        let sent = Arc::clone(&self.sent);
        Box::new(move || sent.load(Ordering::Relaxed))
    }
}

/// The writing end of a streamed [`Upload`].
#[derive(Debug)]
pub struct UploadSender(BodySender);

impl UploadSender {
    /// Sends on; `false` where nobody takes it any more.
    pub async fn send(&self, bytes: Bytes) -> bool {
        self.0.send(Ok(Frame::data(bytes))).await.is_ok()
    }

    /// Breaks the request off, so that the host never takes it for whole. Whoever waits for its
    /// answer gets the refusal.
    pub async fn break_off(&self, why: Refusal) {
        // Nobody waits any more: it is broken off already.
        let _gone = self.0.send(Err(std::io::Error::other(why))).await;
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = match &mut self.inner {
            Inner::Whole(body) => ready!(Pin::new(body).poll_frame(context))
                .map(|frame| frame.map_err(|never| match never {})),
            Inner::Streamed(body) => {
                ready!(Pin::new(body).poll_frame(context)).map(|frame| frame.map_err(Into::into))
            }
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let count = u64::try_from(data.len()).unwrap_or(u64::MAX);
            self.sent.fetch_add(count, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Whole(body) => body.is_end_stream(),
            Inner::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.inner, self.length) {
            (Inner::Whole(body), _) => body.size_hint(),
            (Inner::Streamed(_), Some(length)) => SizeHint::with_exact(length),
            (Inner::Streamed(_), None) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_larger_than_is_held_begins_and_goes_on() {
        let (sender, mut body) = Upload::streamed(None);
        let sending = tokio::spawn(async move {
            for _ in 0..20 {
                assert!(sender.send(vec![7; 1024 * 1024].into()).await);
            }
        });
        let room = super::super::room::Rooms::default().of(portcullis_model::RunId(1));
        let Begun::Large(first, _) = begin(&mut body, &room, false).await.unwrap() else {
            panic!("it is larger");
        };
        assert!((HELD_MAX_BYTES..HELD_MAX_BYTES + 2 * 1024 * 1024).contains(&first.len()));
        let mut rest = 0;
        while let Some(piece) = next(&mut body).await.unwrap() {
            rest += piece.len();
        }
        sending.await.unwrap();
        assert_eq!(first.len() + rest, 20 * 1024 * 1024);
        let whole = begin(Full::new(Bytes::from_static(b"small")), &room, false)
            .await
            .unwrap();
        assert!(matches!(whole, Begun::Whole(bytes) if bytes == "small"));
    }

    #[tokio::test]
    async fn a_body_that_comes_byte_by_byte_is_given_up_in_time() {
        let room = super::super::room::Rooms::default().of(portcullis_model::RunId(1));
        let (sender, mut body) = Upload::streamed(None);
        let dripping = tokio::spawn(async move {
            while sender.send(Bytes::from_static(b"x")).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let time = Duration::from_millis(100);
        let refusal = hold(&mut body, &room, HELD_MAX_BYTES, time, SILENCE).await;
        assert_eq!(refusal.unwrap_err().code, "request-too-slow");
        drop(body);
        dripping.await.unwrap();
    }

    #[tokio::test]
    async fn a_body_that_pauses_goes_on_as_a_stream_where_it_can() {
        let room = super::super::room::Rooms::default().of(portcullis_model::RunId(1));
        let (sender, mut body) = Upload::streamed(None);
        assert!(sender.send(Bytes::from_static(b"first")).await);
        let pause = Duration::from_millis(20);
        let held = hold(&mut body, &room, HELD_MAX_BYTES, HELD_TIME, pause).await;
        assert_eq!(held.unwrap(), (Bytes::from_static(b"first"), false));
        let silence = next_within(&mut body, pause).await.unwrap();
        assert_eq!(silence, Next::Silence);
        assert!(sender.send(Bytes::from_static(b"second")).await);
        drop(sender);
        let rest = next_within(&mut body, pause).await.unwrap();
        assert_eq!(rest, Next::Piece(Bytes::from_static(b"second")));
        assert_eq!(next_within(&mut body, pause).await.unwrap(), Next::End);
    }

    #[tokio::test]
    async fn what_breaks_off_is_told_and_never_whole() {
        let (sender, mut body) = Upload::streamed(Some(10));
        assert!(sender.send(Bytes::from_static(b"half")).await);
        sender.break_off(Refusal::denied("found", "no")).await;
        assert_eq!(next(&mut body).await.unwrap().unwrap(), "half");
        assert_eq!(next(&mut body).await.unwrap_err().code, "connection-lost");
    }
}
