//! A server that answers with what a test says: a log's mirror, as true or false as it likes.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What a path is answered with.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    /// 200 with these bytes.
    Bytes(Vec<u8>),
    /// 200, and bytes for as long as the client listens.
    Endless,
    /// Another status.
    Status(u16),
}

/// The mirror; dropped, it ends.
pub(crate) struct Mirror {
    port: u16,
    said: Arc<Mutex<BTreeMap<String, Said>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Mirror {
    /// Answers with 404 until it is told what to say.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let said = Arc::new(Mutex::new(BTreeMap::new()));
        let ended = Arc::new(AtomicBool::new(false));
        let (words, end) = (Arc::clone(&said), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let (words, end) = (Arc::clone(&words), Arc::clone(&end));
                if let Ok(stream) = stream {
                    // A client that goes away while it is told something is the test's matter.
                    std::thread::spawn(move || drop(answer(stream, &words, &end)));
                }
            }
        });
        Self {
            port,
            said,
            ended,
            thread: Some(thread),
        }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on it says exactly this, by path without the first slash.
    pub(crate) fn says(&self, said: BTreeMap<String, Said>) {
        *self.said.lock().unwrap() = said;
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // The listener waits for a connection.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(
    mut stream: TcpStream,
    said: &Mutex<BTreeMap<String, Said>>,
    ended: &AtomicBool,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut path = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if path.is_empty() {
            path = line.split(' ').nth(1).unwrap_or("/").to_owned();
        }
        if line == "\r\n" {
            break;
        }
    }
    let found = said
        .lock()
        .unwrap()
        .get(path.trim_start_matches('/'))
        .cloned();
    match found.unwrap_or(Said::Status(404)) {
        Said::Bytes(bytes) => {
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                bytes.len()
            );
            stream.write_all(head.as_bytes())?;
            stream.write_all(&bytes)
        }
        Said::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
            while !ended.load(Ordering::SeqCst) {
                stream.write_all(&[b'x'; 4_096])?;
            }
            Ok(())
        }
        Said::Status(status) => write!(
            stream,
            "HTTP/1.1 {status} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        ),
    }
}
