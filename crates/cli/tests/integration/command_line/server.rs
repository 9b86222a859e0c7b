//! A server that says what the test wants and keeps what it is sent.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// Answers by path; what was posted.
pub(crate) struct Played {
    pub(crate) url: String,
    posted: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Played {
    /// Serves `answers`, by path with its query: status and body.
    pub(crate) fn start(answers: BTreeMap<String, (u16, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let posted = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&posted);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &answers, &keep);
            }
        });
        Self { url, posted }
    }

    /// What was posted, in order.
    pub(crate) fn posted(&self) -> Vec<(String, Value)> {
        self.posted.lock().unwrap().clone()
    }
}

fn answer(
    mut stream: TcpStream,
    answers: &BTreeMap<String, (u16, String)>,
    posted: &Mutex<Vec<(String, Value)>>,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut first = String::new();
    if reader.read_line(&mut first).unwrap() == 0 {
        return;
    }
    let mut words = first.split_whitespace();
    let (method, path) = (
        words.next().unwrap().to_owned(),
        words.next().unwrap().to_owned(),
    );
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    if method == "POST" {
        posted
            .lock()
            .unwrap()
            .push((path.clone(), serde_json::from_slice(&body).unwrap()));
    }
    let missing = (404, "no such page".to_owned());
    let (status, text) = answers.get(&path).unwrap_or(&missing);
    write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    )
    .unwrap();
}
