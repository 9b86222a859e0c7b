//! Many connections in one thread: the load's, and those of the host that answers it.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::common::Outcome;
use super::load::{Asks, PATIENCE, now_ms, whole};

/// Most events that are told of at once.
const EVENTS: usize = 256;
/// The largest head and body of either side.
const BUFFER_BYTES: usize = 16 * 1024;

/// Asks on each connection, one request after the other, until the time is over; how many were
/// answered. What is under way then is waited for.
pub(crate) fn over_and_over<A: Asks>(
    address: SocketAddr,
    asks: Vec<A>,
    until: Instant,
) -> Outcome<u64> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(EVENTS);
    let mut all = Vec::with_capacity(asks.len());
    for (number, asks) in asks.into_iter().enumerate() {
        all.push(Asking::open(&poll, number, address, asks)?);
    }
    let (mut answers, mut busy) = (0, all.len());
    while busy > 0 {
        wait_for_any(&mut poll, &mut events)?;
        let open = Instant::now() < until;
        for event in &events {
            let Some(one) = all.get_mut(event.token().0) else {
                continue;
            };
            if !one.over {
                answers += one.go_on(&poll, open)?;
                busy -= usize::from(one.over);
            }
        }
    }
    Ok(answers)
}

/// Waits until something happens on any connection. A run may be made to stand still for a moment,
/// which interrupts what it waits for.
fn wait_for_any(poll: &mut Poll, events: &mut Events) -> Outcome<()> {
    loop {
        match poll.poll(events, Some(PATIENCE)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
            Ok(()) if events.is_empty() => return Err("no answer came for too long".into()),
            Ok(()) => return Ok(()),
        }
    }
}

/// One connection of the load.
struct Asking<A> {
    number: usize,
    address: SocketAddr,
    stream: TcpStream,
    asks: A,
    text: String,
    sent: usize,
    buffer: Vec<u8>,
    filled: usize,
    over: bool,
}

impl<A: Asks> Asking<A> {
    fn open(poll: &Poll, number: usize, address: SocketAddr, mut asks: A) -> Outcome<Self> {
        Ok(Self {
            number,
            address,
            stream: connect(poll, number, address)?,
            text: asks.next(true)?,
            asks,
            sent: 0,
            buffer: vec![0; BUFFER_BYTES],
            filled: 0,
            over: false,
        })
    }

    /// Writes and reads as far as it goes; how many answers came. `open`: further requests follow.
    fn go_on(&mut self, poll: &Poll, open: bool) -> Outcome<u64> {
        let mut answers = 0;
        loop {
            while let Some(rest) = self.text.as_bytes().get(self.sent..)
                && !rest.is_empty()
            {
                match self.stream.write(rest) {
                    Ok(count) => self.sent += count,
                    Err(error) if waits(&error) => return Ok(answers),
                    Err(error) => return Err(error.into()),
                }
            }
            let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
            let count = match self.stream.read(room) {
                Ok(count) => count,
                Err(error) if waits(&error) => return Ok(answers),
                Err(error) if self.filled == 0 && is_gone(&error) => 0,
                Err(error) => return Err(error.into()),
            };
            if count == 0 && self.filled == 0 {
                // It ended before this request was answered: once more on a new one.
                self.again(poll, true)?;
                continue;
            }
            self.filled += count;
            let seen = self.buffer.get(..self.filled).unwrap_or_default();
            let Some(answer) = whole(seen, count == 0)? else {
                continue;
            };
            self.asks.answered(&answer.head)?;
            answers += 1;
            self.filled = 0;
            if !open {
                self.over = true;
                return Ok(answers);
            }
            if answer.closes {
                self.again(poll, true)?;
            } else {
                self.again_here()?;
            }
        }
    }

    fn again_here(&mut self) -> Outcome<()> {
        self.text = self.asks.next(false)?;
        self.sent = 0;
        Ok(())
    }

    fn again(&mut self, poll: &Poll, first: bool) -> Outcome<()> {
        self.stream = connect(poll, self.number, self.address)?;
        self.text = self.asks.next(first)?;
        (self.sent, self.filled) = (0, 0);
        Ok(())
    }
}

fn connect(poll: &Poll, number: usize, address: SocketAddr) -> Outcome<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    let both = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(&mut stream, Token(number), both)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Nothing is wrong; it only can't go on yet.
fn waits(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted
    )
}

fn is_gone(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

/// Answers every request alike, and notes when the last one came.
pub(crate) struct Host {
    pub(crate) port: u16,
    seen: Arc<AtomicU64>,
    last_ms: Arc<AtomicI64>,
}

impl Host {
    pub(crate) fn start() -> Outcome<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let host = Self {
            port: listener.local_addr()?.port(),
            seen: Arc::default(),
            last_ms: Arc::default(),
        };
        let (seen, last_ms) = (Arc::clone(&host.seen), Arc::clone(&host.last_ms));
        std::thread::spawn(move || {
            // Whoever asks finds nobody there then, and says so.
            let _gone = answer_all(listener, &seen, &last_ms);
        });
        Ok(host)
    }

    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    pub(crate) fn last_ms(&self) -> i64 {
        self.last_ms.load(Ordering::Relaxed)
    }
}

fn answer_all(mut listener: TcpListener, seen: &AtomicU64, last_ms: &AtomicI64) -> Outcome<()> {
    const LISTENER: Token = Token(usize::MAX - 1);
    /// Longest that nobody needs to come.
    const TURN: Duration = Duration::from_secs(60);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(EVENTS);
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut all: BTreeMap<usize, Answering> = BTreeMap::new();
    let mut next = 0;
    loop {
        match poll.poll(&mut events, Some(TURN)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            if event.token() != LISTENER {
                let number = event.token().0;
                let ended = all
                    .get_mut(&number)
                    .is_some_and(|one| one.go_on(seen, last_ms).is_err());
                if ended {
                    all.remove(&number);
                }
                continue;
            }
            while let Ok((mut stream, _)) = listener.accept() {
                let interest = Interest::READABLE;
                let ready = poll.registry().register(&mut stream, Token(next), interest);
                if ready.and_then(|()| stream.set_nodelay(true)).is_err() {
                    continue;
                }
                let filled = 0;
                let buffer = vec![0; BUFFER_BYTES];
                all.insert(
                    next,
                    Answering {
                        stream,
                        buffer,
                        filled,
                    },
                );
                next += 1;
            }
        }
    }
}

/// One connection of the host.
struct Answering {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Answering {
    /// Answers what is here; an error where the connection is over.
    fn go_on(&mut self, seen: &AtomicU64, last_ms: &AtomicI64) -> std::io::Result<()> {
        const TEXT: &[u8] =
            b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nfine\n";
        /// Less than the end of a head.
        const END_BYTES: usize = 3;
        loop {
            let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
            match self.stream.read(room) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.filled += count,
                Err(error) if waits(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
            let here = self.buffer.get(..self.filled).unwrap_or_default();
            if self.filled == self.buffer.len() {
                // A large body, whose end looks as the end of a head does.
                let end = self.filled - END_BYTES;
                self.buffer.copy_within(end.., 0);
                self.filled = END_BYTES;
            } else if here.ends_with(b"\r\n\r\n") && !here.starts_with(b"POST") {
                self.filled = 0;
                seen.fetch_add(1, Ordering::Relaxed);
                last_ms.fetch_max(now_ms(), Ordering::Relaxed);
                self.stream.write_all(TEXT)?;
            }
        }
    }
}
