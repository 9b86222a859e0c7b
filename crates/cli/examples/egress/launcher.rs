//! The launcher's half by itself: a run whose requests go straight to the gateway, proved as a
//! launcher proves them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portcullis_evidence::dsse;
use portcullis_evidence::signer::Signer;
use portcullis_identity::client::{Opening, RunCredential, RunKey, RunSession};
use portcullis_identity::custody::{Ed25519Purpose, load_ed25519};
use portcullis_identity::session::{HEADER, Said};
use portcullis_model::statement::{Command, Envelope, SignedCommand};
use portcullis_model::{Secret, Timestamp, canonical};
use serde_json::{Value, json};

use super::NAME;
use super::common::Outcome;
use super::house::House;
use super::load::{Asks, Figures, at, now_ms, one_by_one, request, until};
use super::many;

const PATH: &str = "/gateway/v1/egress";

pub(crate) struct Run {
    credential: Arc<RunCredential>,
    server: String,
    port: u16,
    host: u16,
}

impl Run {
    pub(crate) fn start(house: &House, host: u16) -> Outcome<Self> {
        let file: Value = serde_json::from_slice(&std::fs::read(house.task("helper", host)?)?)?;
        let task: Envelope = serde_json::from_value(
            file.get("envelope")
                .cloned()
                .ok_or("a task file without an envelope")?,
        )?;
        let key = RunKey::generate()?;
        let issued = now();
        let command = SignedCommand {
            version: SignedCommand::VERSION,
            origin: "example.com/bench".to_owned(),
            principal: "host:local".parse()?,
            issued,
            expires: issued.plus_ms(60_000),
            nonce: format!("{:032x}", now_ms()),
            command: Command::StartRun {
                task,
                run_key: key.thumbprint().to_string(),
                run_public_key: portcullis_model::digest::encode_hex(key.public().point()),
                source: None,
                gaps: Default::default(),
            },
        };
        let host_key = load_ed25519(&house.home().join("keys/host.key"), Ed25519Purpose::Host)?;
        let signer = Signer::from_seed(host_key.seed())?;
        let payload = canonical::to_vec(&command)?;
        let envelope: Envelope = dsse::sign(dsse::PAYLOAD_COMMAND, payload, &signer)?.into();
        let text = json!({
            "title": file.get("title").cloned().unwrap_or_default(),
            "text": file.get("text").cloned().unwrap_or_default(),
        });
        let text = String::from_utf8(canonical::to_vec(&text)?)?;
        let body = json!({ "envelope": envelope, "attachments": [text] }).to_string();
        let url = format!("{}/v1/commands", house.url());
        let (name, proof) = key.possession("POST", &url, now())?;
        let answer = post(house.port(), name, proof.expose(), &body)?;
        let token = answer
            .get("token")
            .and_then(Value::as_str)
            .ok_or_else(|| format!("the run was not started: {answer}"))?;
        Ok(Self {
            credential: Arc::new(key.with_token(Secret::new(token.to_owned()))),
            server: house.url(),
            port: house.port(),
            host,
        })
    }

    fn requests(&self) -> Proved {
        Proved {
            credential: Arc::clone(&self.credential),
            url: format!("{}{PATH}", self.server),
            host: format!("127.0.0.1:{}", self.port),
            target: format!("http://{NAME}:{}/", self.host),
            body: Arc::from(""),
            opening: None,
            session: None,
        }
    }

    /// Sends large bodies over so many connections, one after the other on each, while `meanwhile`
    /// runs. Gives what that gave, and how many bodies were answered.
    pub(crate) fn flood<T>(
        &self,
        connections: usize,
        meanwhile: impl FnOnce() -> Outcome<T>,
    ) -> Outcome<(T, usize)> {
        /// A little less than what is looked at whole before it leaves.
        const BODY_BYTES: usize = 8_000_000;
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let text = "let total: u64 = parts.iter().map(|part| part.bytes).sum();\n";
        let mut body = text.repeat(BODY_BYTES / text.len());
        body.push_str("\r\n\r\n");
        let body: Arc<str> = Arc::from(body);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sending: Vec<_> = (0..connections)
                .map(|_| {
                    let mut asks = self.requests();
                    asks.body = Arc::clone(&body);
                    let over = &over;
                    scope.spawn(move || {
                        until(over, address, asks).map_err(|error| error.to_string())
                    })
                })
                .collect();
            let seen = meanwhile();
            over.store(true, Ordering::Relaxed);
            let mut answered = 0;
            for sending in sending {
                answered += sending.join().map_err(|_| "a sender broke")??;
            }
            Ok((seen?, answered))
        })
    }

    /// The figures, and how many requests were made.
    pub(crate) fn measure(
        &self,
        connections: usize,
        time: Duration,
        serial: usize,
    ) -> Outcome<(Figures, u64)> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let (cold_ms, mut times) = one_by_one(address, serial, self.requests())?;
        times.sort_by(f64::total_cmp);
        let begin = Instant::now();
        let asks = (0..connections).map(|_| self.requests()).collect();
        let requests = many::over_and_over(address, asks, begin + time)?;
        let figures = Figures {
            rate: requests as f64 / begin.elapsed().as_secs_f64(),
            cold_ms,
            p50_ms: at(&times, 50),
            p99_ms: at(&times, 99),
            requests: requests + serial as u64 + 1,
        };
        let all = figures.requests;
        Ok((figures, all))
    }
}

/// The requests of one connection.
struct Proved {
    credential: Arc<RunCredential>,
    url: String,
    host: String,
    target: String,
    /// What is sent by `POST`, unless it is empty.
    body: Arc<str>,
    opening: Option<Opening>,
    session: Option<RunSession>,
}

impl Asks for Proved {
    fn next(&mut self, first: bool) -> Outcome<String> {
        let method = if self.body.is_empty() { "GET" } else { "POST" };
        let said = Said {
            method,
            path: PATH,
            destination: &self.target,
        };
        let session = self.session.as_mut().filter(|_| !first);
        let proof = session.and_then(|session| self.credential.next(session, said));
        let proof = if let Some(proof) = proof {
            format!("{HEADER}: {proof}")
        } else {
            let ([(_, token), (_, proof)], opening) =
                self.credential.opening(method, &self.url, now())?;
            self.opening = Some(opening);
            format!(
                "authorization: {}\r\ndpop: {}",
                token.expose(),
                proof.expose()
            )
        };
        let more = format!("{proof}\r\nportcullis-target: {}\r\n", self.target);
        if self.body.is_empty() {
            return Ok(request(PATH, &self.host, &more));
        }
        let (host, body, length) = (&self.host, &self.body, self.body.len());
        Ok(format!(
            "POST {PATH} HTTP/1.1\r\nHost: {host}\r\ncontent-length: {length}\r\n{more}\r\n{body}"
        ))
    }

    fn answered(&mut self, head: &str) -> Outcome<()> {
        if let Some(opening) = self.opening.take() {
            let share = head
                .lines()
                .find_map(|line| line.strip_prefix(HEADER)?.strip_prefix(": "))
                .ok_or("no session was opened")?;
            self.session = Some(opening.accept(share)?);
        }
        Ok(())
    }
}

fn now() -> Timestamp {
    Timestamp::from_ms(u64::try_from(now_ms()).unwrap_or_default())
}

fn post(port: u16, name: &str, proof: &str, body: &str) -> Outcome<Value> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    write!(
        stream,
        "POST /v1/commands HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{name}: {proof}\r\n\
         content-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let begin = answer
        .find('{')
        .ok_or_else(|| format!("no JSON: {answer}"))?;
    let end = answer.rfind('}').map_or(answer.len(), |end| end + 1);
    Ok(serde_json::from_str(
        answer.get(begin..end).unwrap_or_default(),
    )?)
}
