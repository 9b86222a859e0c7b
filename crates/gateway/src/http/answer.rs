//! An answer on its way in: streamed with bounds, watched, and told about when it is over.

use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use portcullis_model::Digest;
use portcullis_model::digest::Hasher;
use tokio::sync::oneshot;

use super::connections::Coming;
use super::headers::{announce_trailers, is_grpc, passing_trailers, strip_answer};
use super::scan::{SCAN_MAX_BYTES, served_model};
use crate::git::body::{BodySender, StreamBody};

/// Bounds of one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Time until the answer's head is here. Models think before they speak.
    pub head_time: Duration,
    /// Longest silence within the answer.
    pub idle_time: Duration,
    /// Time for the whole exchange.
    pub total_time: Duration,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub answer_bytes: u64,
    /// Keep up to this many bytes of the answer for sealing; 0 keeps none.
    pub keep_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            head_time: Duration::from_secs(600),
            idle_time: Duration::from_secs(120),
            total_time: Duration::from_secs(3_600),
            request_bytes: super::model::CALL_MAX_BYTES,
            answer_bytes: 256 * 1024 * 1024,
            keep_bytes: 0,
        }
    }
}

/// What happened in one exchange; the body of the outcome that is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Status of the answer.
    pub status: u16,
    /// Bytes of the request's body that went out.
    pub bytes_out: u64,
    /// Bytes of the answer's body that came in.
    pub bytes_in: u64,
    /// The model that the request asks for, if it is a model call.
    pub model_asked: Option<String>,
    /// The model that the answer says served, if it does. Nobody proved it.
    pub model_served: Option<String>,
    /// Digest of the request's body, if it was buffered.
    pub request_digest: Option<Digest>,
    /// Digest of the answer's body as far as it came.
    pub answer_digest: Digest,
    /// The request's body, for sealing, if it was asked to be kept.
    pub request: Option<Bytes>,
    /// The answer's body up to the bound that was asked to be kept.
    pub answer: Vec<u8>,
    /// Whether `answer` is all of it.
    pub answer_whole: bool,
    /// Milliseconds from the request to its end.
    pub duration_ms: u64,
    /// Whether the exchange came to its end, or what cut it short.
    pub result: Result<(), String>,
}

/// An exchange under way.
pub struct Forwarded {
    /// What the inside gets.
    pub response: Response<StreamBody>,
    /// What happened, once it is over.
    pub ending: Ending,
}

/// The end of an exchange. It always comes, whoever hangs up.
pub struct Ending(Over);

enum Over {
    Already(Box<Observation>),
    Later(oneshot::Receiver<Observation>),
}

impl Ending {
    /// What happened; `None` where the process is about to end.
    pub async fn told(self) -> Option<Observation> {
        match self.0 {
            Over::Already(seen) => Some(*seen),
            Over::Later(later) => later.await.ok(),
        }
    }

    /// Hands over what happened: at once where it is over, else in a task.
    pub fn then(self, note: impl FnOnce(Observation) + Send + 'static) {
        match self.0 {
            Over::Already(seen) => note(*seen),
            Over::Later(later) => {
                tokio::spawn(async move {
                    if let Ok(seen) = later.await {
                        note(seen);
                    }
                });
            }
        }
    }
}

/// What is known of the request when the answer begins.
pub(crate) struct Asked {
    pub(crate) began: Instant,
    pub(crate) model: Option<String>,
    pub(crate) digest: Option<Digest>,
    pub(crate) kept: Option<Bytes>,
    pub(crate) bytes_out: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// Ready when what was lent is void, and an exchange under way has to be cut.
pub type Stop = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes `answer` in: at once where it came whole with its head, else as a stream until its end or
/// until `stop` is ready.
pub(crate) async fn forward(
    answer: Response<Coming>,
    asked: Asked,
    bounds: Bounds,
    mut stop: Stop,
) -> Forwarded {
    let (mut head, mut body) = answer.into_parts();
    let content_type = plain_type(&head.headers);
    strip_answer(&mut head.headers);
    let grpc = is_grpc(&head.headers);
    if grpc {
        announce_trailers(&mut head.headers);
    }
    head.extensions.clear();
    let mut exchange = Exchange {
        asked,
        status: head.status.as_u16(),
        content_type,
        watched: Watched::default(),
    };
    // What follows the body of a call is a part of it.
    let mut first = if grpc { None } else { body.at_once().await };
    let whole = match &first {
        Some(None) => true,
        Some(Some(Ok(frame))) => body.is_over() && fits(frame, bounds),
        Some(Some(Err(_))) | None => false,
    };
    if whole && !is_ready(&mut stop).await {
        let frame = first.take().flatten().and_then(Result::ok);
        let piece = frame.and_then(|frame| frame.into_data().ok());
        if let Some(piece) = &piece {
            exchange.watched.see(piece, &exchange.asked, bounds);
        }
        body.put_back().await;
        return Forwarded {
            response: Response::from_parts(head, StreamBody::whole(piece)),
            ending: Ending(Over::Already(Box::new(exchange.over(Ok(()))))),
        };
    }
    let left = bounds
        .total_time
        .saturating_sub(exchange.asked.began.elapsed());
    let body = body.left(left);
    let (sender, stream) = StreamBody::channel();
    let (done, later) = oneshot::channel();
    tokio::spawn(async move {
        let result = tokio::select! {
            result = tokio::time::timeout(left, pump(first, body, &sender, &mut exchange, bounds)) => result
                .unwrap_or_else(|_| Err("it took too long".to_owned())),
            () = sender.closed() => Err("the client went away".to_owned()),
            () = stop => Err("the run ended, or was halted".to_owned()),
        };
        if let Err(reason) = &result {
            let _ = sender
                .send(Err(std::io::Error::other(reason.clone())))
                .await;
        }
        let _ = done.send(exchange.over(result));
    });
    Forwarded {
        response: Response::from_parts(head, stream),
        ending: Ending(Over::Later(later)),
    }
}

fn fits(frame: &Frame<Bytes>, bounds: Bounds) -> bool {
    let length = frame.data_ref().map_or(0, Bytes::len);
    u64::try_from(length).is_ok_and(|length| length <= bounds.answer_bytes)
}

async fn is_ready(stop: &mut Stop) -> bool {
    std::future::poll_fn(|context| Poll::Ready(stop.as_mut().poll(context).is_ready())).await
}

/// One request and what is seen of its answer.
struct Exchange {
    asked: Asked,
    status: u16,
    content_type: String,
    watched: Watched,
}

impl Exchange {
    fn over(self, result: Result<(), String>) -> Observation {
        let Self {
            asked,
            status,
            content_type,
            watched,
        } = self;
        Observation {
            status,
            bytes_out: (asked.bytes_out)(),
            bytes_in: watched.bytes,
            model_served: served_model(&content_type, &watched.prefix),
            model_asked: asked.model,
            request_digest: asked.digest,
            answer_digest: watched.hasher.finish(),
            request: asked.kept,
            answer: watched.kept,
            answer_whole: !watched.cut && result.is_ok(),
            duration_ms: u64::try_from(asked.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            result,
        }
    }
}

#[derive(Default)]
struct Watched {
    hasher: Hasher,
    bytes: u64,
    /// The beginning, in which the model that served is looked for.
    prefix: Vec<u8>,
    kept: Vec<u8>,
    /// Not all of it was kept.
    cut: bool,
}

impl Watched {
    /// Takes note of a piece.
    fn see(&mut self, piece: &[u8], asked: &Asked, bounds: Bounds) {
        self.bytes = self
            .bytes
            .saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        self.hasher.update(piece);
        let room = |held: usize, max: usize| max.saturating_sub(held).min(piece.len());
        if asked.model.is_some() {
            let prefix = room(self.prefix.len(), SCAN_MAX_BYTES);
            self.prefix
                .extend_from_slice(piece.get(..prefix).unwrap_or_default());
        }
        let kept = room(self.kept.len(), bounds.keep_bytes);
        self.kept
            .extend_from_slice(piece.get(..kept).unwrap_or_default());
        self.cut |= kept < piece.len();
    }
}

async fn pump(
    mut first: Option<Option<Result<Frame<Bytes>, hyper::Error>>>,
    mut body: Incoming,
    sender: &BodySender,
    exchange: &mut Exchange,
    bounds: Bounds,
) -> Result<(), String> {
    loop {
        let frame = match first.take() {
            Some(frame) => frame,
            None => tokio::time::timeout(bounds.idle_time, body.frame())
                .await
                .map_err(|_| "the other side fell silent".to_owned())?,
        };
        let Some(frame) = frame else {
            return Ok(());
        };
        let frame = frame.map_err(|error| format!("the answer broke off: {error}"))?;
        let piece = match frame.into_data() {
            Ok(piece) => piece,
            Err(frame) => {
                if let Ok(last) = frame.into_trailers() {
                    let last = Frame::trailers(passing_trailers(last));
                    if sender.send(Ok(last)).await.is_err() {
                        return Err("the client went away".to_owned());
                    }
                }
                continue;
            }
        };
        exchange.watched.see(&piece, &exchange.asked, bounds);
        if exchange.watched.bytes > bounds.answer_bytes {
            return Err(format!(
                "the answer is larger than {} bytes",
                bounds.answer_bytes
            ));
        }
        if sender.send(Ok(Frame::data(piece))).await.is_err() {
            return Err("the client went away".to_owned());
        }
    }
}

/// The content type in lower case; empty if the content is encoded and can't be searched.
fn plain_type(headers: &HeaderMap) -> String {
    let encoded = headers
        .get(CONTENT_ENCODING)
        .is_some_and(|value| value != "identity");
    if encoded {
        return String::new();
    }
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_ascii_lowercase()
}
