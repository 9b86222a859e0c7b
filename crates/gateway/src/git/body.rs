//! Between HTTP bodies and byte streams: requests read with bounds (gzip too), answers streamed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use flate2::write::GzDecoder;
use hyper::body::{Body, Frame, SizeHint};
use portcullis_model::Refusal;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use tokio::sync::mpsc;

/// Pieces of compressed input that are inflated at once, in bytes: at most 1,032 times as much
/// comes out, so this bounds the memory of one step to about 4 MiB.
const INFLATE_STEP_BYTES: usize = 4 * 1024;
/// Pieces of an answer that wait for a slow client, each at most 64 KiB.
const ANSWER_QUEUE: usize = 8;

/// A request body as a stream of bytes, inflated if it came as gzip, ended by an error beyond its
/// bound: `limit` bytes after inflation.
pub struct BodyReader<B> {
    body: B,
    pending: Bytes,
    compressed: Bytes,
    gzip: Option<GzDecoder<Vec<u8>>>,
    ended: bool,
    produced: u64,
    limit: u64,
}

impl<B> BodyReader<B> {
    /// `encoding` is the value of `Content-Encoding`: absent, `identity`, `gzip` or `x-gzip`.
    ///
    /// # Errors
    /// `unknown-content-encoding`.
    pub fn new(body: B, encoding: Option<&str>, limit: u64) -> Result<Self, Refusal> {
        let gzip = match encoding.map(str::trim) {
            None | Some("" | "identity") => None,
            Some("gzip" | "x-gzip") => Some(GzDecoder::new(Vec::new())),
            Some(other) => {
                return Err(Refusal::new(
                    portcullis_model::RefusalKind::Malformed,
                    "unknown-content-encoding",
                    "the request body is encoded in a way that git does not use",
                )
                .expected("gzip or none")
                .received(other));
            }
        };
        Ok(Self {
            body,
            pending: Bytes::new(),
            compressed: Bytes::new(),
            gzip,
            ended: false,
            produced: 0,
            limit,
        })
    }

    fn produce(&mut self, bytes: Bytes) -> io::Result<()> {
        self.produced = self
            .produced
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if self.produced > self.limit {
            return Err(io::Error::other(format!(
                "the request body is larger than {} bytes",
                self.limit
            )));
        }
        self.pending = bytes;
        Ok(())
    }

    /// Inflates one step of what waits.
    fn inflate(&mut self) -> io::Result<()> {
        let Some(gzip) = &mut self.gzip else {
            let bytes = std::mem::take(&mut self.compressed);
            return self.produce(bytes);
        };
        let step = self
            .compressed
            .split_to(self.compressed.len().min(INFLATE_STEP_BYTES));
        io::Write::write_all(gzip, &step)?;
        let out = std::mem::take(gzip.get_mut());
        self.produce(out.into())
    }

    fn end(&mut self) -> io::Result<()> {
        self.ended = true;
        let Some(mut gzip) = self.gzip.take() else {
            return Ok(());
        };
        gzip.try_finish()?;
        let out = std::mem::take(gzip.get_mut());
        self.produce(out.into())
    }
}

impl<B> AsyncRead for BodyReader<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.pending.is_empty() {
                let count = self.pending.len().min(out.remaining());
                let piece = self.pending.split_to(count);
                out.put_slice(&piece);
                return Poll::Ready(Ok(()));
            }
            if !self.compressed.is_empty() {
                self.inflate()?;
                continue;
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None => self.end()?,
                Some(Ok(frame)) => {
                    if let Ok(mut data) = frame.into_data() {
                        self.compressed = data.copy_to_bytes(data.remaining());
                    }
                }
                Some(Err(error)) => {
                    return Poll::Ready(Err(io::Error::other(error.to_string())));
                }
            }
        }
    }
}

/// An answer's body: one that a task writes, which dropping it stops, or one that is whole already.
pub struct StreamBody(Source);

enum Source {
    Task(mpsc::Receiver<io::Result<Frame<Bytes>>>),
    Whole(Option<Bytes>),
}

/// The writing end of a [`StreamBody`]: data, and trailers behind it if there are any.
pub(crate) type BodySender = mpsc::Sender<io::Result<Frame<Bytes>>>;

impl StreamBody {
    pub(crate) fn channel() -> (BodySender, Self) {
        let (sender, receiver) = mpsc::channel(ANSWER_QUEUE);
        (sender, Self(Source::Task(receiver)))
    }

    /// A body of which nothing is missing; `None` for an empty one.
    pub(crate) fn whole(bytes: Option<Bytes>) -> Self {
        Self(Source::Whole(bytes.filter(|bytes| !bytes.is_empty())))
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Source::Task(receiver) => receiver.poll_recv(context),
            Source::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.0, Source::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Task(_) => SizeHint::default(),
            Source::Whole(bytes) => {
                let length = bytes.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
            }
        }
    }
}

/// Reads what is left of a request, so that a client that is still sending gets to read the
/// answer; gives up beyond `max_bytes` or `time`. Returns whether the end was reached.
pub async fn drain<R: AsyncRead + Unpin>(
    reader: &mut R,
    max_bytes: u64,
    time: std::time::Duration,
) -> bool {
    let work = async {
        let mut left = max_bytes;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match reader.read(&mut buffer).await {
                Ok(0) => return true,
                Ok(count) => {
                    let count = u64::try_from(count).unwrap_or(u64::MAX);
                    match left.checked_sub(count) {
                        Some(rest) => left = rest,
                        None => return false,
                    }
                }
                Err(_) => return false,
            }
        }
    };
    tokio::time::timeout(time, work).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        io::Write::write_all(&mut encoder, data).unwrap();
        encoder.finish().unwrap()
    }

    async fn read(body: Vec<u8>, encoding: Option<&str>, limit: u64) -> io::Result<Vec<u8>> {
        let mut reader = BodyReader::new(Full::new(Bytes::from(body)), encoding, limit).unwrap();
        let mut out = Vec::new();
        reader.read_to_end(&mut out).await.map(|_| out)
    }

    #[tokio::test]
    async fn gzip_is_inflated_and_its_bombs_are_not() {
        let data = b"hello".repeat(100_000);
        assert_eq!(
            read(gzip(&data), Some("gzip"), 1 << 20).await.unwrap(),
            data
        );
        assert_eq!(read(data.clone(), None, 1 << 20).await.unwrap(), data);
        assert!(read(data.clone(), None, 10).await.is_err());
        let bomb = gzip(&vec![0; 64 << 20]);
        assert!(bomb.len() < 100_000);
        assert!(read(bomb, Some("gzip"), 1 << 20).await.is_err());
    }

    #[tokio::test]
    async fn broken_gzip_is_an_error_and_not_an_end() {
        let whole = gzip(b"hello, world, hello");
        for cut in [1, 5, 12, whole.len() - 9, whole.len() - 1] {
            assert!(
                read(whole[..cut].to_vec(), Some("gzip"), 1 << 20)
                    .await
                    .is_err(),
                "{cut}"
            );
        }
        assert!(
            read(b"no gzip at all".to_vec(), Some("gzip"), 1 << 20)
                .await
                .is_err()
        );
        assert!(BodyReader::new(Full::new(Bytes::new()), Some("br"), 1).is_err());
    }
}
