//! A host outside: it answers HTTP on loopback as a test tells it to, and remembers what it was
//! asked.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::sockets::{self, Heard};

/// A request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Method and target, as in `GET /x`.
    pub(crate) line: String,
    /// The whole head, in lower case.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Asked {
    /// The path without its query.
    pub(crate) fn path(&self) -> &str {
        let target = self.line.split(' ').nth(1).unwrap();
        target.split('?').next().unwrap()
    }
}

/// What it answers.
pub(crate) enum Reply {
    /// Status, content type, body.
    Whole(u16, &'static str, Vec<u8>),
    /// These bytes, then whatever the function does with the connection.
    Raw(Vec<u8>, fn(TcpStream)),
    /// Agrees to a WebSocket, and echoes messages.
    Socket(Heard),
}

impl Reply {
    /// A page.
    pub(crate) fn ok(kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self::Whole(200, kind, body.into())
    }

    /// Nothing there.
    pub(crate) fn none() -> Self {
        Self::Whole(404, "text/plain", b"no".to_vec())
    }
}

/// The host. Its threads end with the test's process.
pub(crate) struct Outside {
    /// Where it listens on 127.0.0.1.
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Asked>>>,
}

impl Outside {
    /// Starts one that answers by a function.
    pub(crate) fn new(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                thread::spawn(move || serve(stream, &log, &*answer));
            }
        });
        Self { port, seen }
    }

    /// One that serves the files of a directory.
    pub(crate) fn files(root: std::path::PathBuf) -> Self {
        Self::new(move |asked| {
            let path = root.join(asked.path().trim_start_matches('/'));
            match std::fs::read(path) {
                Ok(bytes) => Reply::ok("application/octet-stream", bytes),
                Err(_) => Reply::none(),
            }
        })
    }

    /// What it was asked so far.
    pub(crate) fn seen(&self) -> Vec<Asked> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Asked>>, answer: &dyn Fn(&Asked) -> Reply) {
    let mut bytes = Vec::new();
    let mut one = [0];
    while stream.read_exact(&mut one).is_ok() {
        bytes.push(one[0]);
        if !bytes.ends_with(b"\r\n\r\n") {
            continue;
        }
        let head = String::from_utf8_lossy(&std::mem::take(&mut bytes)).into_owned();
        let lower = head.to_ascii_lowercase();
        let length = lower
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |text| text.trim().parse().unwrap());
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        let line = head.lines().next().unwrap();
        let asked = Asked {
            line: line.trim_end_matches(" HTTP/1.1").to_owned(),
            head: lower,
            body,
        };
        let reply = answer(&asked);
        log.lock().unwrap().push(asked);
        match reply {
            Reply::Whole(status, kind, body) => {
                let more = if status / 100 == 3 {
                    format!("location: {kind}\r\n")
                } else {
                    format!("content-type: {kind}\r\n")
                };
                let head = format!(
                    "HTTP/1.1 {status} X\r\n{more}content-length: {}\r\n\r\n",
                    body.len()
                );
                if stream.write_all(head.as_bytes()).is_err() || stream.write_all(&body).is_err() {
                    return;
                }
            }
            Reply::Raw(first, then) => {
                if stream.write_all(&first).is_ok() {
                    then(stream);
                }
                return;
            }
            Reply::Socket(heard) => {
                let agreed = sockets::agree(&head);
                if stream.write_all(agreed.as_bytes()).is_ok() {
                    sockets::echo(stream, &heard);
                }
                return;
            }
        }
    }
}
