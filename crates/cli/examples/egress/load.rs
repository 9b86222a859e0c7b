//! The load, and the figures.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::common::Outcome;
use super::many;

/// How long anything may take to begin.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Where requests go, and what they are.
pub(crate) struct Way {
    pub(crate) address: SocketAddr,
    pub(crate) request: String,
}

impl Way {
    pub(crate) fn direct(port: u16) -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            request: request("/", &format!("127.0.0.1:{port}"), ""),
        }
    }

    pub(crate) fn proxy(proxy: u16, port: u16) -> Self {
        let host = format!("127.0.0.1:{port}");
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], proxy)),
            request: request(&format!("http://{host}/"), &host, ""),
        }
    }
}

pub(crate) fn request(target: &str, host: &str, more: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n{more}\r\n")
}

/// What was measured.
pub(crate) struct Figures {
    /// Requests a second over all connections.
    pub(crate) rate: f64,
    /// Time to the first byte of the very first request, its connection included.
    pub(crate) cold_ms: f64,
    /// Time to the first byte, one request after the other on one connection.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// How many requests that took.
    pub(crate) requests: u64,
}

impl Figures {
    pub(crate) fn line(&self) -> String {
        format!(
            "{} {} {} {} {}",
            self.rate, self.cold_ms, self.p50_ms, self.p99_ms, self.requests
        )
    }

    pub(crate) fn of_line(line: &str) -> Outcome<Self> {
        let mut words = line.split_whitespace();
        let mut next = || words.next().ok_or("a line of figures is short");
        Ok(Self {
            rate: next()?.parse()?,
            cold_ms: next()?.parse()?,
            p50_ms: next()?.parse()?,
            p99_ms: next()?.parse()?,
            requests: next()?.parse()?,
        })
    }
}

/// One request after the other first, then as many as go over so many connections.
pub(crate) fn measure(
    way: &Way,
    connections: usize,
    time: Duration,
    serial: usize,
) -> Outcome<Figures> {
    let (cold_ms, mut times) = one_by_one(way.address, serial, way.request.clone())?;
    times.sort_by(f64::total_cmp);
    let begin = Instant::now();
    let asks = vec![way.request.clone(); connections];
    let requests = many::over_and_over(way.address, asks, begin + time)?;
    Ok(Figures {
        rate: requests as f64 / begin.elapsed().as_secs_f64(),
        cold_ms,
        p50_ms: at(&times, 50),
        p99_ms: at(&times, 99),
        requests: requests + serial as u64 + 1,
    })
}

/// The time to the first byte of the first request in milliseconds, and those of further ones.
pub(crate) fn one_by_one(
    address: SocketAddr,
    serial: usize,
    mut asks: impl Asks,
) -> Outcome<(f64, Vec<f64>)> {
    let mut text = asks.next(true)?;
    let begin = Instant::now();
    let mut connection = Connection::open(address)?;
    asks.answered(&connection.ask(&text)?)?;
    let cold_ms = begin.elapsed().as_secs_f64() * 1e3;
    let mut times = Vec::with_capacity(serial);
    for _ in 0..serial {
        text = asks.next(connection.fresh)?;
        let begin = Instant::now();
        let head = connection.ask(&text)?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        asks.answered(&head)?;
    }
    Ok((cold_ms, times))
}

/// One request after the other until it is `over`; how many were answered.
pub(crate) fn until(over: &AtomicBool, address: SocketAddr, mut asks: impl Asks) -> Outcome<usize> {
    let mut connection = Connection::open(address)?;
    let mut answered = 0;
    while !over.load(Ordering::Relaxed) {
        let text = asks.next(connection.fresh)?;
        asks.answered(&connection.ask(&text)?)?;
        answered += 1;
    }
    Ok(answered)
}

/// The same request with pauses between; the times to the first byte in milliseconds.
pub(crate) fn now_and_then(
    address: SocketAddr,
    text: &str,
    time: Duration,
    pause: Duration,
) -> Outcome<Vec<f64>> {
    let mut connection = Connection::open(address)?;
    let mut times = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < time {
        std::thread::sleep(pause);
        let asked = Instant::now();
        connection.ask(text)?;
        times.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// What is asked on a connection.
pub(crate) trait Asks {
    /// The next request; `first`: of a connection.
    fn next(&mut self, first: bool) -> Outcome<String>;
    /// The head of its answer.
    fn answered(&mut self, _head: &str) -> Outcome<()> {
        Ok(())
    }
}

/// The same again and again.
impl Asks for String {
    fn next(&mut self, _first: bool) -> Outcome<String> {
        Ok(self.clone())
    }
}

pub(crate) fn at(sorted: &[f64], percent: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((sorted.len() * percent / 100).min(last))
        .copied()
        .unwrap_or(f64::NAN)
}

struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Nothing was asked on it yet.
    fresh: bool,
}

impl Connection {
    fn open(address: SocketAddr) -> Outcome<Self> {
        // A run may be made to stand still for a moment, which interrupts what it waits for.
        let stream = loop {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                connected => break connected?,
            }
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            address,
            stream,
            buffer: vec![0; 16 * 1024],
            fresh: true,
        })
    }

    /// One request and its whole answer, which has to be 200; its head. A peer that does not keep
    /// connections is connected to anew, as one that hung up while nothing was asked.
    fn ask(&mut self, text: &str) -> Outcome<String> {
        const TRIES: usize = 3;
        for _ in 1..TRIES {
            if let Some(head) = self.try_ask(text)? {
                return Ok(head);
            }
            *self = Self::open(self.address)?;
        }
        self.try_ask(text)?
            .ok_or_else(|| "connections end before an answer".into())
    }

    /// The answer's head; `None` where the connection was over before it began.
    fn try_ask(&mut self, text: &str) -> Outcome<Option<String>> {
        self.fresh = false;
        if self.stream.write_all(text.as_bytes()).is_err() {
            return Ok(None);
        }
        let mut filled = 0;
        loop {
            let room = self.buffer.get_mut(filled..).unwrap_or_default();
            let count = match self.stream.read(room) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) if filled == 0 => return Ok(None),
                read => read?,
            };
            filled += count;
            let seen = self.buffer.get(..filled).unwrap_or_default();
            if let Some(answer) = whole(seen, count == 0)? {
                if answer.closes {
                    *self = Self::open(self.address)?;
                }
                return Ok(Some(answer.head));
            }
        }
    }
}

/// An answer that is all here.
pub(crate) struct Answer {
    pub(crate) head: String,
    /// Its connection ends with it.
    pub(crate) closes: bool,
}

/// The answer, if it is all here. `ended`: nothing more comes.
pub(crate) fn whole(seen: &[u8], ended: bool) -> Outcome<Option<Answer>> {
    let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if ended {
            Err("the connection ended before an answer".into())
        } else {
            Ok(None)
        };
    };
    let head = String::from_utf8_lossy(seen.get(..end).unwrap_or_default()).into_owned();
    let lower = head.to_ascii_lowercase();
    let status = lower.get(9..12).unwrap_or_default();
    if status != "200" {
        let all = String::from_utf8_lossy(seen);
        return Err(format!("answered with {status}: {all}").into());
    }
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let closes = lower.contains("connection: close") || lower.starts_with("http/1.0");
    let body = seen.len() - end - 4;
    let (here, closes) = match length {
        Some(length) => (body >= length, closes || ended),
        None if lower.contains("transfer-encoding: chunked") => {
            (seen.ends_with(b"0\r\n\r\n"), closes)
        }
        None => (ended, true),
    };
    Ok(here.then_some(Answer { head, closes }))
}

/// Milliseconds since 1970, as the ledger tells times.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

pub(crate) fn wait(what: &str, mut done: impl FnMut() -> bool) -> Outcome<()> {
    let until = Instant::now() + PATIENCE;
    while !done() {
        if Instant::now() > until {
            return Err(format!("waited for too long: {what}").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
