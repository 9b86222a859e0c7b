//! Requests of a run that follow on one connection: proved by the session that the first opened.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use portcullis_identity::client::RunSession;
use portcullis_identity::session::{HEADER, Said};

use crate::house::House;
use crate::house::runner::Runner;

const ASK: &str = "/gateway/v1/ask";

/// A connection that is kept.
struct Kept {
    stream: TcpStream,
    host: String,
}

impl Kept {
    fn open(house: &House) -> Self {
        let host = house.url().trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(&host).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self { stream, host }
    }

    /// The answer's head and body.
    fn ask(&mut self, path: &str, headers: &[(&str, &str)]) -> (String, String) {
        let mut text = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n", self.host);
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        self.stream.write_all(text.as_bytes()).unwrap();
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(b"\r\n\r\n") {
            self.stream.read_exact(&mut byte).unwrap();
            seen.extend(byte);
        }
        let head = String::from_utf8(seen).unwrap();
        let length = header(&head, "content-length").expect("a length");
        let mut body = vec![0; length.parse().unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    /// Asks by a session's proof; the status with the refusal's code.
    fn by_session(&mut self, proof: &str) -> String {
        let (head, _) = self.ask(ASK, &[(HEADER, proof)]);
        outcome(&head)
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

fn outcome(head: &str) -> String {
    let status = head.split_whitespace().nth(1).unwrap();
    match header(head, "portcullis-refusal") {
        Some(code) => format!("{status} {code}"),
        None => status.to_owned(),
    }
}

impl Runner<'_> {
    /// Opens a session on a connection, by the first request there.
    fn open_session(&self, connection: &mut Kept) -> RunSession {
        let (headers, opening) = self.opening("GET", ASK);
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let (head, _) = connection.ask(ASK, &headers);
        assert_eq!(outcome(&head), "200", "{head}");
        opening
            .accept(header(&head, HEADER).expect("a share"))
            .unwrap()
    }

    fn by_session(&self, session: &mut RunSession) -> String {
        let said = Said {
            method: "GET",
            path: ASK,
            destination: "",
        };
        self.next(session, said)
    }
}

#[test]
fn a_session_is_one_runs_on_one_connection() {
    let house = House::solo();
    let task = house.task("ada", &["--runs", "2"]);
    let (one, other) = (house.runner(&task), house.runner(&task));
    let mut connection = Kept::open(&house);
    let mut session = one.open_session(&mut connection);
    for _ in 0..3 {
        let proof = one.by_session(&mut session);
        let (head, body) = connection.ask(ASK, &[(HEADER, &proof)]);
        assert_eq!(outcome(&head), "200");
        assert!(header(&head, HEADER).is_none(), "{head}");
        assert!(body.contains(&one.id()), "{body}");
    }
    // Nowhere else: a session is its connection's.
    let proof = one.by_session(&mut session);
    let mut elsewhere = Kept::open(&house);
    assert_eq!(elsewhere.by_session(&proof), "403 session-unknown");
    assert_eq!(connection.by_session(&proof), "200");
    // Once: and whoever tried ends it.
    assert_eq!(connection.by_session(&proof), "403 session-number");
    let proof = one.by_session(&mut session);
    assert_eq!(connection.by_session(&proof), "403 session-unknown");
    // For what it says: another path with the same proof.
    let mut session = one.open_session(&mut connection);
    let proof = one.by_session(&mut session);
    let (head, _) = connection.ask("/gateway/v1/control", &[(HEADER, &proof)]);
    assert_eq!(outcome(&head), "403 session-proof");
    // Another run's first request on the same connection begins that run's session.
    let mut first = one.open_session(&mut connection);
    let mut second = other.open_session(&mut connection);
    let proof = one.by_session(&mut first);
    assert_eq!(connection.by_session(&proof), "403 session-proof");
    let mut session = other.open_session(&mut connection);
    let proof = other.by_session(&mut second);
    assert_eq!(connection.by_session(&proof), "403 session-proof");
    assert_eq!(other.by_session(&mut session).split('.').next(), Some("1"));
}

#[test]
fn a_session_ends_with_its_run_and_is_not_needed() {
    let house = House::solo();
    let task = house.task("ada", &["--runs", "2"]);
    let (one, other) = (house.runner(&task), house.runner(&task));
    let mut connection = Kept::open(&house);
    let mut session = one.open_session(&mut connection);
    let id = one.id();
    house
        .cli("ada", &["runs", "end", &id, "--why", "enough"])
        .ok();
    let proof = one.by_session(&mut session);
    assert_eq!(connection.by_session(&proof), "403 run-ended");
    // A launcher that offers none proves each request by itself.
    let headers = other.proof("GET", ASK);
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let (head, _) = connection.ask(ASK, &headers);
    assert_eq!(outcome(&head), "200");
    assert!(header(&head, HEADER).is_none(), "{head}");
    let proof = one.by_session(&mut session);
    assert_eq!(connection.by_session(&proof), "403 session-unknown");
}
