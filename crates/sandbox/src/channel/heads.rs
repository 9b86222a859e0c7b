//! Reads the heads of a connection of HTTP/1 beside the one who serves it.
//!
//! Where a request has a length and a coding, or several lengths, hyper reads it by one of them, as
//! RFC 9112, 6.3 lets it, and takes the others away before anybody sees them. Others read it by
//! another, which is how one request is made two. So whether a head says its end twice is looked at
//! here, in the very bytes; such a request is refused (6.1 allows that). What passes stays what it
//! was: nothing is written, and the one who serves has the last word. Where both readers do not find
//! the same number of heads, what has none here is refused too.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use portcullis_model::{Refusal, RefusalKind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{BUFFER_MAX_BYTES, HEADERS_MAX};

/// What ends a chunk.
const LINE_END_BYTES: u64 = 2;
/// Most heads that are read and not asked for yet: more than there is room for in what the one who
/// serves reads ahead, the shortest head being 16 bytes. Behind them comes another protocol, such as
/// that of a tunnel.
const FOUND_MAX: usize = BUFFER_MAX_BYTES / 8;

/// A stream whose heads are looked at as they are read.
pub(super) struct Watched<S> {
    stream: S,
    heads: Heads,
}

/// What was found of the heads that were read and not asked for yet.
#[derive(Clone, Default)]
pub(super) struct Heads(Arc<Mutex<Follower>>);

impl<S> Watched<S> {
    pub(super) fn new(stream: S) -> (Self, Heads) {
        let heads = Heads::default();
        let watched = Self {
            stream,
            heads: heads.clone(),
        };
        (watched, heads)
    }
}

impl Heads {
    /// Whether the next request says once where it ends. To be asked for each, in their order.
    ///
    /// # Errors
    /// `ambiguous-length`, `transfer-coding`.
    pub(super) fn next(&self) -> Result<(), Refusal> {
        let mut follower = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match follower.found.pop_front() {
            Some(Ends::Once) => Ok(()),
            Some(Ends::Often(said)) => Err(ambiguous(&format!("{said} lengths and codings"))),
            Some(Ends::Coded(how)) => Err(coded(&how)),
            None => Err(ambiguous(
                "a request that two readers see at different places",
            )),
        }
    }
}

/// The refusal of a request whose end two readers could see at two places.
pub(super) fn ambiguous(received: &str) -> Refusal {
    Refusal::new(
        RefusalKind::Malformed,
        "ambiguous-length",
        "the request says in two ways where its body ends",
    )
    .expected("one `Content-Length`, or one `Transfer-Encoding: chunked`")
    .received(received)
}

/// The refusal of a body that is coded for its way in a manner that would be lost here: it goes on
/// in chunks of our own (RFC 9112, 6.1).
fn coded(how: &str) -> Refusal {
    Refusal::new(
        RefusalKind::Malformed,
        "transfer-coding",
        "the body is coded for its way in a manner that isn't understood here",
    )
    .expected("`Transfer-Encoding: chunked`, or none")
    .received(how)
    .next("say it with `Content-Encoding`, which goes all the way to the host")
}

/// How a head says where its request ends.
#[derive(Debug, PartialEq, Eq)]
enum Ends {
    /// Once, or not at all, which is saying that it has no body.
    Once,
    /// In so many ways.
    Often(usize),
    /// By a coding other than chunks.
    Coded(String),
}

#[derive(Default)]
struct Follower {
    at: At,
    found: VecDeque<Ends>,
}

/// Where in the stream the next byte stands.
enum At {
    /// In a head, of which so much was read.
    Head(Vec<u8>),
    /// In a body, with so many bytes left.
    Body(u64),
    /// In the line that begins a chunk.
    ChunkLine(ChunkLine),
    /// In a chunk, with so many bytes left, its line's end included.
    Chunk(u64),
    /// Behind the last chunk.
    Trailers(Trailers),
    /// Nowhere that can be told: another protocol, or what the one who serves refuses as well.
    Lost,
}

#[derive(Default)]
struct ChunkLine {
    size: u64,
    digits: u32,
    /// Past the digits.
    over: bool,
    /// Its end has begun.
    ends: bool,
}

#[derive(Default)]
struct Trailers {
    /// The line has begun.
    within: bool,
    /// Its end has.
    ends: bool,
}

impl Default for At {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

impl Follower {
    fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = std::mem::replace(&mut self.at, At::Lost);
            (self.at, bytes) = self.step(at, bytes);
        }
    }

    fn step<'bytes>(&mut self, at: At, bytes: &'bytes [u8]) -> (At, &'bytes [u8]) {
        match at {
            At::Head(read) => self.head(read, bytes),
            At::Body(left) => match past(left, bytes) {
                (0, rest) => (At::default(), rest),
                (left, rest) => (At::Body(left), rest),
            },
            At::Chunk(left) => match past(left, bytes) {
                (0, rest) => (At::ChunkLine(ChunkLine::default()), rest),
                (left, rest) => (At::Chunk(left), rest),
            },
            At::ChunkLine(line) => by_byte(bytes, At::Lost, |byte| chunk_line(line, byte)),
            At::Trailers(within) => by_byte(bytes, At::Lost, |byte| trailer(within, byte)),
            At::Lost => (At::Lost, &[]),
        }
    }

    fn head<'bytes>(&mut self, mut read: Vec<u8>, bytes: &'bytes [u8]) -> (At, &'bytes [u8]) {
        let before = read.len();
        // Empty lines before a request line are passed over by everybody.
        let bytes = if before == 0 {
            let line = bytes.iter().position(|byte| !b"\r\n".contains(byte));
            bytes.get(line.unwrap_or(bytes.len())..).unwrap_or_default()
        } else {
            bytes
        };
        let more = bytes.len().min(BUFFER_MAX_BYTES.saturating_sub(before));
        read.extend_from_slice(bytes.get(..more).unwrap_or_default());
        // The end may have begun in what was there before: an empty line is three bytes at most.
        let Some(end) = end_of_head(&read, before.saturating_sub(3)) else {
            let at = if read.len() < BUFFER_MAX_BYTES {
                At::Head(read)
            } else {
                At::Lost
            };
            return (at, &[]);
        };
        let rest = bytes.get(end.saturating_sub(before)..).unwrap_or_default();
        let Some((ends, at)) = understood(read.get(..end).unwrap_or_default()) else {
            return (At::Lost, &[]);
        };
        // Nobody reads on behind such a request.
        let at = if ends == Ends::Once { at } else { At::Lost };
        if self.found.len() >= FOUND_MAX {
            return (At::Lost, &[]);
        }
        self.found.push_back(ends);
        (at, rest)
    }
}

/// How often a head says its end, and what follows it; `None` where it can't be read, which the one
/// who serves says too: the same reader stands there.
fn understood(head: &[u8]) -> Option<(Ends, At)> {
    let mut room = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut room);
    request
        .parse(head)
        .ok()
        .filter(httparse::Status::is_complete)?;
    let of = |name: &'static str| {
        request
            .headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
    };
    let lengths = of("content-length").count();
    let codings = of("transfer-encoding").count();
    let said = lengths.saturating_add(codings);
    if said > 1 {
        return Some((Ends::Often(said), At::Lost));
    }
    if let Some(coding) = of("transfer-encoding").next() {
        let ends = if coding.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            Ends::Once
        } else {
            Ends::Coded(String::from_utf8_lossy(coding.value).into_owned())
        };
        return Some((ends, At::ChunkLine(ChunkLine::default())));
    }
    let Some(length) = of("content-length").next() else {
        return Some((Ends::Once, At::default()));
    };
    let digits = std::str::from_utf8(length.value).ok()?;
    // A sign is none, though Rust takes one.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match digits.parse::<u64>().ok()? {
        0 => Some((Ends::Once, At::default())),
        length => Some((Ends::Once, At::Body(length))),
    }
}

/// Behind the first empty line.
fn end_of_head(read: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let line_end = read.get(at..)?.iter().position(|byte| *byte == b'\n')?;
        at = at.saturating_add(line_end).saturating_add(1);
        match read.get(at..)? {
            [b'\n', ..] => return Some(at.saturating_add(1)),
            [b'\r', b'\n', ..] => return Some(at.saturating_add(2)),
            _ => {}
        }
    }
}

fn by_byte(bytes: &[u8], end: At, step: impl FnOnce(u8) -> At) -> (At, &[u8]) {
    match bytes {
        [byte, rest @ ..] => (step(*byte), rest),
        [] => (end, bytes),
    }
}

fn past(left: u64, bytes: &[u8]) -> (u64, &[u8]) {
    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    let after = left.saturating_sub(here as u64);
    (after, bytes.get(here..).unwrap_or_default())
}

/// One byte of the line that begins a chunk (RFC 9112, 7.1): digits, then anything to its end. In a
/// chunked body a line ends by both bytes; readers differ on what one of them alone is.
fn chunk_line(mut line: ChunkLine, byte: u8) -> At {
    match (line.ends, byte) {
        (true, b'\n') => {
            return match (line.digits, line.size) {
                (0, _) => At::Lost,
                (_, 0) => At::Trailers(Trailers::default()),
                (_, size) => At::Chunk(size.saturating_add(LINE_END_BYTES)),
            };
        }
        (true, _) | (false, b'\n') => return At::Lost,
        (false, b'\r') => {
            line.ends = true;
            return At::ChunkLine(line);
        }
        (false, _) => {}
    }
    match char::from(byte).to_digit(16) {
        Some(digit) if !line.over => {
            line.digits = line.digits.saturating_add(1);
            let Some(size) = line.size.checked_mul(16) else {
                return At::Lost;
            };
            line.size = size.saturating_add(digit.into());
        }
        Some(_) | None => line.over = true,
    }
    At::ChunkLine(line)
}

/// One byte of what stands behind the last chunk; an empty line is its end.
fn trailer(line: Trailers, byte: u8) -> At {
    match (line.ends, byte) {
        (true, b'\n') if line.within => At::Trailers(Trailers::default()),
        (true, b'\n') => At::default(),
        (true, _) | (false, b'\n') => At::Lost,
        (false, b'\r') => At::Trailers(Trailers { ends: true, ..line }),
        (false, _) => At::Trailers(Trailers {
            within: true,
            ..line
        }),
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if matches!(polled, Poll::Ready(Ok(()))) {
            let read = buffer.filled().get(before..).unwrap_or_default();
            let mut follower = self.heads.0.lock().unwrap_or_else(PoisonError::into_inner);
            follower.read(read);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each head says of its end, with the stream cut into pieces of so many bytes.
    fn said(stream: &[u8], piece: usize) -> Vec<Ends> {
        let mut follower = Follower::default();
        for bytes in stream.chunks(piece) {
            follower.read(bytes);
        }
        follower.found.into_iter().collect()
    }

    #[test]
    fn every_head_is_found_however_the_bytes_come() {
        let get = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
        let bare = "GET /x HTTP/1.1\nHost: a\n\n";
        let post = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 39\r\n\r\nGET /in HTTP/1.1\r\nContent-Length: 3\r\n\r\n";
        let chunked = "POST /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n\
             1D;a=\"b\"\r\nGET /in HTTP/1.1\r\nHost: a\r\n\r\n\r\n0\r\nx: y\r\n\r\n";
        let empty = "POST /x HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
        let last = "POST /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
        assert_eq!(&post[post.len() - 39..post.len() - 35], "GET ");
        let both =
            "POST /x HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        let twice = "POST /x HTTP/1.1\r\nContent-Length: 4\r\ncontent-length: 4\r\n\r\n";
        let stream = [
            get, "\r\n", post, bare, chunked, "\n\n", empty, last, get, both, get,
        ]
        .concat();
        for piece in 1..stream.len() + 1 {
            let found = said(stream.as_bytes(), piece);
            let (last, rest) = found.split_last().expect("some");
            assert_eq!(*last, Ends::Often(2), "{piece}");
            assert!(
                rest.len() == 7 && rest.iter().all(|ends| *ends == Ends::Once),
                "{piece}"
            );
        }
        assert_eq!(said(twice.as_bytes(), 7), [Ends::Often(2)]);
        let coded = "POST /x HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        let expected = [Ends::Coded("gzip, chunked".to_owned())];
        assert_eq!(said(coded.as_bytes(), 7), expected);
    }

    #[test]
    fn what_no_reader_takes_is_followed_no_further() {
        for stream in [
            "SSH-2.0-x\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\nxGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(said(stream.as_bytes(), 5), [], "{stream:?}");
        }
        for chunk in ["\r\n", "x\r\n", "fffffffffffffffff\r\n"] {
            let stream = format!(
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}GET / HTTP/1.1\r\n\r\n"
            );
            assert_eq!(said(stream.as_bytes(), 9), [Ends::Once], "{stream:?}");
        }
        // Lines of a chunked body that end by one byte: some readers end them there, others don't.
        for body in [
            "0\n\r\n",
            "0\r\n\n",
            "0\r\n\nGET /in HTTP/1.1\r\nHost: a\r\n\r\n",
            "0\r\nx: y\n\n",
            "0\r\nx: y\rz\r\n\r\n",
            "0\r\n\r\r\n",
            "1\rx\r\n0\r\n\r\n",
            "1;a\nx\r\n0\r\n\r\n",
        ] {
            let stream = format!(
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}GET / HTTP/1.1\r\n\r\n"
            );
            assert_eq!(said(stream.as_bytes(), 3), [Ends::Once], "{stream:?}");
        }
        let endless = vec![b'a'; 3 * BUFFER_MAX_BYTES];
        assert_eq!(said(&endless, 1000), []);
    }

    #[test]
    fn what_nobody_asks_for_takes_no_memory() {
        let shortest = b"GET / HTTP/1.1\n\n";
        let mut follower = Follower::default();
        for _ in 0..FOUND_MAX {
            follower.read(shortest);
        }
        assert_eq!(follower.found.len(), FOUND_MAX);
        assert!(FOUND_MAX > BUFFER_MAX_BYTES / shortest.len());
        for _ in 0..1_000 {
            follower.read(shortest);
        }
        assert_eq!(follower.found.len(), FOUND_MAX);
        assert!(matches!(follower.at, At::Lost));
    }

    #[test]
    fn a_request_that_was_not_found_here_is_refused() {
        let (_, heads) = Watched::new(());
        let refusal = heads.next().expect_err("none was read");
        assert_eq!(refusal.code, "ambiguous-length");
        let mut follower = Follower::default();
        follower.read(b"GET / HTTP/1.1\r\n\r\n");
        let heads = Heads(Arc::new(Mutex::new(follower)));
        assert!(heads.next().is_ok() && heads.next().is_err());
    }
}
