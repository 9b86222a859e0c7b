//! The customers: real HTTP requests to production, a steady number a second, every answer counted.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Customers at the same time.
const CUSTOMERS: u64 = 4;
/// Pause of each between two requests.
const PAUSE: Duration = Duration::from_millis(12);
/// Longest that a customer waits for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Largest answer that is read, in bytes.
const ANSWER_MAX_BYTES: u64 = 64 * 1024;

/// Customers at work; dropped, they go home.
pub(super) struct Traffic {
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    customers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    good: AtomicU64,
    bad: AtomicU64,
    lost: AtomicU64,
}

/// What customers got so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Served {
    /// Answers below 500.
    pub(super) good: u64,
    /// Answers from 500 on.
    pub(super) bad: u64,
    /// No answer.
    pub(super) lost: u64,
}

impl Served {
    /// What was served since `earlier`.
    pub(super) const fn since(self, earlier: Self) -> Self {
        Self {
            good: self.good - earlier.good,
            bad: self.bad - earlier.bad,
            lost: self.lost - earlier.lost,
        }
    }

    /// All requests.
    pub(super) const fn all(self) -> u64 {
        self.good + self.bad + self.lost
    }
}

impl Traffic {
    /// Customers who ask for prices on this port.
    pub(super) fn start(port: u16) -> Self {
        let counts = Arc::new(Counts::default());
        let stop = Arc::new(AtomicBool::new(false));
        let customers = (0..CUSTOMERS)
            .map(|_| {
                let (counts, stop) = (Arc::clone(&counts), Arc::clone(&stop));
                std::thread::spawn(move || customer(port, &counts, &stop))
            })
            .collect();
        Self {
            counts,
            stop,
            customers,
        }
    }

    /// What was served so far.
    pub(super) fn served(&self) -> Served {
        Served {
            good: self.counts.good.load(Ordering::Relaxed),
            bad: self.counts.bad.load(Ordering::Relaxed),
            lost: self.counts.lost.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for customer in self.customers.drain(..) {
            // One that panicked has nothing more to say.
            drop(customer.join());
        }
    }
}

fn customer(port: u16, counts: &Counts, stop: &AtomicBool) {
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        let counter = match ask(&mut connection, port, "/price?item=tea") {
            Ok((status, _)) if status < 500 => &counts.good,
            Ok(_) => &counts.bad,
            Err(_) => {
                connection = None;
                &counts.lost
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(PAUSE);
    }
}

/// One request on a new connection: status and body.
///
/// # Errors
/// No connection, or no answer in time.
pub(super) fn once(port: u16, target: &str) -> std::io::Result<(u16, String)> {
    ask(&mut None, port, target)
}

fn ask(
    connection: &mut Option<BufReader<TcpStream>>,
    port: u16,
    target: &str,
) -> std::io::Result<(u16, String)> {
    let stream = match connection {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_read_timeout(Some(ANSWER_MAX))?;
            stream.set_nodelay(true)?;
            connection.insert(BufReader::new(stream))
        }
    };
    // One write, one packet.
    let request = format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes())?;
    let (status, body, close) = read_answer(stream)?;
    if close {
        *connection = None;
    }
    Ok((status, body))
}

fn read_answer(stream: &mut BufReader<TcpStream>) -> std::io::Result<(u16, String, bool)> {
    let broken = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let mut line = String::new();
    let mut head = || {
        line.clear();
        let read = stream
            .by_ref()
            .take(ANSWER_MAX_BYTES)
            .read_line(&mut line)?;
        if read == 0 {
            Err(broken())
        } else {
            Ok(line.trim_end().to_owned())
        }
    };
    let first = head()?;
    let status = first
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(broken)?;
    let (mut length, mut close) = (0, false);
    loop {
        let field = head()?;
        if field.is_empty() {
            break;
        }
        let (name, value) = field.split_once(':').ok_or_else(broken)?;
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(|_| broken())?;
        }
        close |=
            name.eq_ignore_ascii_case("connection") && value.trim().eq_ignore_ascii_case("close");
    }
    if length > ANSWER_MAX_BYTES {
        return Err(broken());
    }
    let mut body = String::new();
    let read = stream.by_ref().take(length).read_to_string(&mut body)?;
    if u64::try_from(read).ok() == Some(length) {
        Ok((status, body, close))
    } else {
        Err(broken())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn good_answers_errors_and_silence_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            for answer in [
                "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes",
                "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n",
                "",
            ] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut got = [0; 1024];
                let _ = stream.read(&mut got).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        assert_eq!(once(port, "/").unwrap(), (200, "yes".to_owned()));
        assert_eq!(once(port, "/").unwrap().0, 500);
        assert!(once(port, "/").is_err());
        server.join().unwrap();
        let (now, then) = (
            Served {
                good: 5,
                bad: 2,
                lost: 1,
            },
            Served {
                good: 3,
                bad: 2,
                lost: 0,
            },
        );
        assert_eq!(
            now.since(then),
            Served {
                good: 2,
                bad: 0,
                lost: 1
            }
        );
        assert_eq!(now.all(), 8);
    }
}
