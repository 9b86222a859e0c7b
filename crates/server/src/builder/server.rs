//! The server as a builder sees it: signed commands, uploads, source trees.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use portcullis_evidence::dsse::{self, PAYLOAD_COMMAND};
use portcullis_evidence::signer::Signer;
use portcullis_model::digest::encode_hex;
use portcullis_model::statement::{Command, Envelope, SignedCommand};
use portcullis_model::{Digest, Principal, Refusal, RefusalKind, ServiceId, canonical};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::now;

/// How long a signed command is good for, in milliseconds (5 minutes): sent at once, but clocks
/// differ.
const COMMAND_LIFE_MS: u64 = 300_000;
/// Largest JSON answer in bytes: an order that names every change since the last release.
const ANSWER_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Largest source tree as a tar file, in bytes: what the server gives out, with headers.
pub(super) const SOURCE_MAX_BYTES: usize = 1024 * 1024 * 1024;
/// Longest time for one exchange: a source tree that the server fetches first.
const PATIENCE: Duration = Duration::from_secs(600);

/// An RFC 9457 problem, as the server writes it.
#[derive(Deserialize)]
struct Problem {
    title: String,
    code: String,
    kind: RefusalKind,
    expected: Option<String>,
    received: Option<String>,
    next: Option<String>,
    rule: Option<String>,
}

/// A server, and who talks to it.
pub(super) struct Server {
    url: String,
    authority: String,
    service: ServiceId,
    signer: Signer,
    origin: String,
}

impl Server {
    pub(super) fn new(url: &str, service: ServiceId, signer: Signer) -> Result<Self, Refusal> {
        let malformed = || {
            Refusal::malformed("server URL")
                .expected("http:// and an address, such as http://127.0.0.1:7117")
                .received(url)
                .next("reach another machine's server through `ssh -L 7117:127.0.0.1:7117 HOST`")
        };
        let uri: http::Uri = url.parse().map_err(|_| malformed())?;
        let authority = uri.authority().ok_or_else(malformed)?.to_string();
        let bare = uri.path() == "/" && uri.query().is_none();
        if uri.scheme_str() != Some("http") || !bare || authority.contains('@') {
            return Err(malformed());
        }
        let authority = if uri.port().is_some() {
            authority
        } else {
            format!("{authority}:80")
        };
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self {
            url,
            authority,
            service,
            signer,
            origin: String::new(),
        })
    }

    pub(super) const fn service(&self) -> &ServiceId {
        &self.service
    }

    pub(super) const fn signer(&self) -> &Signer {
        &self.signer
    }

    /// Where a blob can be looked at.
    pub(super) fn blob_url(&self, digest: &Digest) -> String {
        format!("{}/v1/blobs/{digest}", self.url)
    }

    /// Asks which ledger commands are for.
    pub(super) async fn learn_origin(&mut self) -> Result<(), Refusal> {
        let body = self
            .exchange(
                Method::GET,
                "/v1/status",
                None,
                Bytes::new(),
                ANSWER_MAX_BYTES,
            )
            .await?;
        let status = read(&body)?;
        let origin = status.get("origin").and_then(Value::as_str);
        self.origin = origin
            .ok_or_else(|| unexpected("no `origin` in its status"))?
            .to_owned();
        Ok(())
    }

    /// Signs and sends a command.
    pub(super) async fn command(&self, command: Command) -> Result<Value, Refusal> {
        let body = json!({ "envelope": self.sign(command)?, "attachments": [] });
        let bytes = serde_json::to_vec(&body)
            .map_err(|error| Refusal::internal(format!("a command does not serialise: {error}")))?;
        read(
            &self
                .exchange(
                    Method::POST,
                    "/v1/commands",
                    None,
                    bytes.into(),
                    ANSWER_MAX_BYTES,
                )
                .await?,
        )
    }

    /// Uploads bytes, so that a command can name them.
    pub(super) async fn upload(&self, bytes: Bytes) -> Result<Digest, Refusal> {
        let digest = Digest::of(&bytes);
        let envelope = self.sign(Command::Upload {
            digest,
            size: bytes.len() as u64,
        })?;
        let header = STANDARD.encode(canonical::to_vec(&envelope)?);
        let path = format!("/v1/blobs/{digest}");
        self.exchange(Method::PUT, &path, Some(&header), bytes, ANSWER_MAX_BYTES)
            .await?;
        Ok(digest)
    }

    /// The bytes at a path.
    pub(super) async fn source(&self, path: &str) -> Result<Bytes, Refusal> {
        if !path.starts_with('/') {
            return Err(unexpected("a source that isn't a path"));
        }
        self.exchange(Method::GET, path, None, Bytes::new(), SOURCE_MAX_BYTES)
            .await
    }

    fn sign(&self, command: Command) -> Result<Envelope, Refusal> {
        let issued = now();
        let mut nonce = [0; 16];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| {
            Refusal::unavailable("no-randomness", "the operating system gave no random bytes")
        })?;
        let command = SignedCommand {
            version: SignedCommand::VERSION,
            origin: self.origin.clone(),
            principal: Principal::Service(self.service.clone()),
            issued,
            expires: issued.plus_ms(COMMAND_LIFE_MS),
            nonce: encode_hex(&nonce),
            command,
        };
        Ok(dsse::sign(PAYLOAD_COMMAND, canonical::to_vec(&command)?, &self.signer)?.into())
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        command: Option<&str>,
        body: Bytes,
        max: usize,
    ) -> Result<Bytes, Refusal> {
        let whole = async {
            let stream = tokio::net::TcpStream::connect(&self.authority)
                .await
                .map_err(|error| self.unreachable(&error.to_string()))?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .map_err(|error| self.unreachable(&error.to_string()))?;
            tokio::spawn(connection);
            let mut request = Request::builder()
                .method(method)
                .uri(path)
                .header(HOST, &self.authority);
            if let Some(command) = command {
                request = request.header("portcullis-command", command);
            } else if !body.is_empty() {
                request = request.header(CONTENT_TYPE, "application/json");
            }
            let request = request
                .body(Full::new(body))
                .map_err(|error| Refusal::internal(format!("a request can't be made: {error}")))?;
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| self.unreachable(&error.to_string()))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), max)
                .collect()
                .await
                .map_err(|error| self.unreachable(&error.to_string()))?
                .to_bytes();
            if status.is_success() {
                Ok(body)
            } else {
                Err(problem(status, &body))
            }
        };
        tokio::time::timeout(PATIENCE, whole)
            .await
            .unwrap_or_else(|_| Err(self.unreachable("no answer in time")))
    }

    fn unreachable(&self, received: &str) -> Refusal {
        Refusal::unavailable(
            "server-unreachable",
            format!("no server answers at {}", self.url),
        )
        .received(received)
        .next("start it with `portcullis serve`, or name another with --server")
    }
}

fn read(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|error| unexpected(&error.to_string()))
}

fn problem(status: http::StatusCode, body: &[u8]) -> Refusal {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => Refusal {
            kind: problem.kind,
            code: problem.code,
            message: problem.title,
            expected: problem.expected,
            received: problem.received,
            next: problem.next,
            rule: problem.rule,
        },
        Err(_) => unexpected(&format!("status {status} without a problem document")),
    }
}

fn unexpected(received: &str) -> Refusal {
    Refusal::unavailable("server-answer", "the server's answer can't be read")
        .received(received)
        .next("are server and builder of the same version? `portcullis --version`")
}
