//! An answer on its way in: streamed with bounds, watched, and told about when it is over.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use portcullis_model::Digest;
use portcullis_model::digest::Hasher;
use tokio::sync::oneshot;

use super::headers::strip_answer;
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
    /// What happened, once it is over. It always comes, whoever hangs up.
    pub observation: oneshot::Receiver<Observation>,
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
pub type Stop = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Streams `answer` in, until its end or until `stop` is ready.
pub(crate) fn forward(
    answer: Response<Incoming>,
    asked: Asked,
    bounds: Bounds,
    stop: Stop,
) -> Forwarded {
    let (mut head, body) = answer.into_parts();
    let content_type = plain_type(&head.headers);
    strip_answer(&mut head.headers);
    head.extensions.clear();
    let status = head.status.as_u16();
    let (sender, stream) = StreamBody::channel();
    let (done, observation) = oneshot::channel();
    tokio::spawn(async move {
        let mut watched = Watched {
            hasher: Hasher::default(),
            bytes: 0,
            prefix: Vec::new(),
            kept: Vec::new(),
            whole: true,
        };
        let left = bounds.total_time.saturating_sub(asked.began.elapsed());
        let result = tokio::select! {
            result = tokio::time::timeout(left, pump(body, &sender, &mut watched, bounds)) => result
                .unwrap_or_else(|_| Err("it took too long".to_owned())),
            () = sender.closed() => Err("the client went away".to_owned()),
            () = stop => Err("the run ended, or was halted".to_owned()),
        };
        if let Err(reason) = &result {
            let _ = sender
                .send(Err(std::io::Error::other(reason.clone())))
                .await;
        }
        let _ = done.send(Observation {
            status,
            bytes_out: (asked.bytes_out)(),
            bytes_in: watched.bytes,
            model_asked: asked.model,
            model_served: served_model(&content_type, &watched.prefix),
            request_digest: asked.digest,
            answer_digest: watched.hasher.finish(),
            request: asked.kept,
            answer: watched.kept,
            answer_whole: watched.whole && result.is_ok(),
            duration_ms: u64::try_from(asked.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            result,
        });
    });
    Forwarded {
        response: Response::from_parts(head, stream),
        observation,
    }
}

struct Watched {
    hasher: Hasher,
    bytes: u64,
    prefix: Vec<u8>,
    kept: Vec<u8>,
    whole: bool,
}

impl Watched {
    fn see(&mut self, piece: &[u8], keep: usize) {
        self.bytes = self
            .bytes
            .saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        self.hasher.update(piece);
        let room = |held: usize, max: usize| max.saturating_sub(held).min(piece.len());
        let prefix = room(self.prefix.len(), SCAN_MAX_BYTES);
        self.prefix
            .extend_from_slice(piece.get(..prefix).unwrap_or_default());
        let kept = room(self.kept.len(), keep);
        self.kept
            .extend_from_slice(piece.get(..kept).unwrap_or_default());
        self.whole &= kept == piece.len();
    }
}

async fn pump(
    mut body: Incoming,
    sender: &BodySender,
    watched: &mut Watched,
    bounds: Bounds,
) -> Result<(), String> {
    loop {
        let frame = tokio::time::timeout(bounds.idle_time, body.frame())
            .await
            .map_err(|_| "the other side fell silent".to_owned())?;
        let Some(frame) = frame else {
            return Ok(());
        };
        let frame = frame.map_err(|error| format!("the answer broke off: {error}"))?;
        // Trailers belong to a hop, and say nothing that a client needs.
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        watched.see(&piece, bounds.keep_bytes);
        if watched.bytes > bounds.answer_bytes {
            return Err(format!(
                "the answer is larger than {} bytes",
                bounds.answer_bytes
            ));
        }
        if sender.send(Ok(piece)).await.is_err() {
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
