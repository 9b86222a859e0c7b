//! The server's HTTP API, from the outside: bounded answers, problems as refusals.

mod follow;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use portcullis_model::digest::Hasher;
use portcullis_model::{Digest, Refusal, RefusalKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Largest JSON or text answer in bytes: a page of a thousand entries of 64 KiB each.
const ANSWER_MAX_BYTES: u64 = 80 * 1024 * 1024;
/// Largest file that is downloaded, in bytes.
pub(crate) const FILE_MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// How long a connection to this machine may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take: the server may have to fetch from upstream first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Items that are asked for at once; the server gives at most a thousand.
const PAGE_ITEMS: usize = 1_000;
/// Most items of a list that are held.
const LIST_MAX_ITEMS: usize = 1_000_000;

/// A page of a list.
#[derive(Deserialize)]
struct Page<T> {
    items: Vec<T>,
    #[serde(default)]
    next: Option<Value>,
}

/// A server's address.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    url: String,
    authority: String,
}

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

impl Client {
    /// A client of the server at `url`.
    ///
    /// # Errors
    /// It isn't `http://` and an address of this machine: there is no TLS between the two.
    pub(crate) fn new(url: &str) -> Result<Self, Refusal> {
        let refused = || {
            Refusal::malformed("server URL")
                .expected("http:// and an address of this machine, such as http://127.0.0.1:7117")
                .received(url)
                .next("reach another machine's server through `ssh -L 7117:127.0.0.1:7117 HOST`")
        };
        let uri: http::Uri = url.parse().map_err(|_| refused())?;
        let host = uri.host().ok_or_else(refused)?.trim_matches(['[', ']']);
        let local = host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        let bare = uri.path() == "/" && uri.query().is_none();
        if uri.scheme_str() != Some("http") || !local || !bare {
            return Err(refused());
        }
        let authority = uri.authority().ok_or_else(refused)?.to_string();
        let authority = if uri.port().is_some() {
            authority
        } else {
            format!("{authority}:80")
        };
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            authority,
        })
    }

    /// The server's base URL, without a slash at its end.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// An answer as a `T`.
    ///
    /// # Errors
    /// The server's refusal, or that it can't be reached or does not answer in the form expected.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Refusal> {
        let body = self.exchange(Method::GET, path, &[], Bytes::new()).await?;
        read(&body)
    }

    /// Every item of a list, page by page.
    ///
    /// # Errors
    /// As [`Self::get`], or a list without end.
    pub(crate) async fn items<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Refusal> {
        let joint = if path.contains('?') { '&' } else { '?' };
        let mut items = Vec::new();
        let mut asked = path.to_owned();
        loop {
            let page: Page<T> = self.get(&asked).await?;
            let none = page.items.is_empty();
            items.extend(page.items);
            let after = match page.next {
                None | Some(Value::Null) => return Ok(items),
                Some(Value::String(id)) => segment(&id),
                Some(other) => segment(&other.to_string()),
            };
            asked = format!("{path}{joint}limit={PAGE_ITEMS}&after={after}");
            if none || items.len() > LIST_MAX_ITEMS {
                return Err(
                    Refusal::limit("list-too-long", "the server's list does not end")
                        .expected(&format!("at most {LIST_MAX_ITEMS} items")),
                );
            }
        }
    }

    /// An answer as text.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) async fn text(&self, path: &str) -> Result<String, Refusal> {
        let body = self.exchange(Method::GET, path, &[], Bytes::new()).await?;
        String::from_utf8(body.to_vec()).map_err(|_| unexpected("an answer that isn't UTF-8"))
    }

    /// Posts JSON.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) async fn post<B: Serialize>(&self, path: &str, body: &B) -> Result<Value, Refusal> {
        self.post_with(path, &[], body).await
    }

    /// Posts JSON with further headers.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) async fn post_with<B: Serialize>(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &B,
    ) -> Result<Value, Refusal> {
        let bytes = serde_json::to_vec(body)
            .map_err(|error| Refusal::internal(format!("a request does not serialise: {error}")))?;
        let body = self
            .exchange(Method::POST, path, headers, bytes.into())
            .await?;
        read(&body)
    }

    /// Downloads a file next to its place and moves it there when it is whole. Gives size and
    /// digest.
    ///
    /// # Errors
    /// As [`Self::get`], or the file can't be written or stands already.
    pub(crate) async fn download(&self, path: &str, to: &Path) -> Result<(u64, Digest), Refusal> {
        let unwritable = |error: std::io::Error| {
            Refusal::unavailable(
                "file-unwritable",
                format!("{} can't be written", to.display()),
            )
            .received(&error.to_string())
        };
        let mut body = self.open(path).await?;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(to)
            .map_err(unwritable)?;
        let mut hasher = Hasher::default();
        let mut size = 0_u64;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken(&error))?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            size += data.len() as u64;
            if size > FILE_MAX_BYTES {
                let _ = std::fs::remove_file(to);
                return Err(too_large(FILE_MAX_BYTES));
            }
            hasher.update(data);
            std::io::Write::write_all(&mut file, data).map_err(unwritable)?;
        }
        Ok((size, hasher.finish()))
    }

    /// An answer's body, for reading as it comes.
    async fn open(&self, path: &str) -> Result<Incoming, Refusal> {
        let response = self.send(Method::GET, path, &[], Bytes::new()).await?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        Err(self.problem(response).await)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Bytes, Refusal> {
        let whole = async {
            let asked = self.send(method.clone(), path, headers, body.clone());
            let mut response = asked.await?;
            // A standby only reads, and says who leads. What is proved for one address with a key
            // can't be sent to another.
            if let Some(leader) = leader_of(&response)
                && headers.is_empty()
            {
                let leader = Self::new(&leader)?;
                response = leader.send(method, path, headers, body).await?;
            }
            if response.status().is_success() {
                return collect(response.into_body(), ANSWER_MAX_BYTES).await;
            }
            Err(self.problem(response).await)
        };
        tokio::time::timeout(ANSWER_TIMEOUT, whole)
            .await
            .unwrap_or_else(|_| {
                Err(
                    Refusal::unavailable("server-silent", "the server did not answer in time")
                        .expected(&format!("an answer within {} s", ANSWER_TIMEOUT.as_secs()))
                        .next("look at the server's log; what was asked may still have been done"),
                )
            })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<http::Response<Incoming>, Refusal> {
        let connecting = tokio::net::TcpStream::connect(&self.authority);
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| self.unreachable("no connection in time"))?
            .map_err(|error| self.unreachable(&error.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.authority);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| Refusal::internal(format!("a request can't be made: {error}")))?;
        sender
            .send_request(request)
            .await
            .map_err(|error| broken(&error))
    }

    async fn problem(&self, response: http::Response<Incoming>) -> Refusal {
        let status = response.status();
        let body = match collect(response.into_body(), ANSWER_MAX_BYTES).await {
            Ok(body) => body,
            Err(refusal) => return refusal,
        };
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Refusal {
                kind: problem.kind,
                code: problem.code,
                message: problem.title,
                expected: problem.expected,
                received: problem.received,
                next: problem.next,
                rule: problem.rule,
            },
            Err(_) => foreign(status, &self.url),
        }
    }

    fn unreachable(&self, cause: &str) -> Refusal {
        Refusal::unavailable(
            "server-unreachable",
            format!("no server answers at {}", self.url),
        )
        .received(cause)
        .next("start it with `portcullis serve`, or name another with --server")
    }
}

/// Where to ask instead, if a standby refused.
fn leader_of(response: &http::Response<Incoming>) -> Option<String> {
    if response.status() != StatusCode::SERVICE_UNAVAILABLE {
        return None;
    }
    let leader = response.headers().get("portcullis-leader")?;
    leader.to_str().ok().map(str::to_owned)
}

/// An answer that no Portcullis wrote.
fn foreign(status: StatusCode, url: &str) -> Refusal {
    Refusal::unavailable(
        "server-answer",
        format!("{url} does not answer as Portcullis does"),
    )
    .expected("an answer with a problem document (RFC 9457)")
    .received(&format!("status {status}"))
    .next("is another program listening there? name the server with --server")
}

async fn collect(mut body: Incoming, max: u64) -> Result<Bytes, Refusal> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        if let Some(data) = frame.data_ref() {
            if (whole.len() + data.len()) as u64 > max {
                return Err(too_large(max));
            }
            whole.extend_from_slice(data);
        }
    }
    Ok(whole.into())
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| unexpected(&error.to_string()))
}

fn unexpected(received: &str) -> Refusal {
    Refusal::unavailable("server-answer", "the server's answer can't be read")
        .received(received)
        .next("are server and command line of the same version? `portcullis --version`")
}

fn broken(error: &hyper::Error) -> Refusal {
    Refusal::unavailable("server-connection", "the connection to the server broke")
        .received(&error.to_string())
        .next("look whether the server still runs; what was asked may still have been done")
}

fn too_large(max: u64) -> Refusal {
    Refusal::limit("answer-too-large", "the server's answer is too large")
        .expected(&format!("at most {max} bytes"))
}

/// One segment of a path, percent-encoded (RFC 3986): branches have slashes.
pub(crate) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_in_the_clear() {
        for good in [
            "http://127.0.0.1:7117",
            "http://localhost:1/",
            "http://[::1]:7117",
        ] {
            Client::new(good).unwrap();
        }
        for bad in [
            "https://127.0.0.1:1",
            "http://example.com",
            "127.0.0.1:7117",
            "http://127.0.0.1:1/x",
            "",
        ] {
            assert!(Client::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_branch_is_one_segment() {
        assert_eq!(segment("feature/a+b"), "feature%2Fa%2Bb");
        assert_eq!(segment("../x?y"), "..%2Fx%3Fy");
    }
}
