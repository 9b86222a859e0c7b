//! Plain requests of our own to a server that nobody here runs: a log that is verified, a witness
//! that is asked. The answer is bounded in bytes and in time, redirects are answers, nothing is
//! remembered.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT,
};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use portcullis_model::Refusal;

use super::{Credential, tls};

/// Sends plain requests over HTTP/1.1 or HTTP/2, with connections kept for the next.
#[derive(Clone)]
pub struct PlainClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What a request carries and what its answer may cost.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// Where to; `http` or `https`.
    pub url: &'a str,
    /// A body to post with its content type; without one the request is a GET.
    pub post: Option<(&'static str, Vec<u8>)>,
    /// A bearer token to show.
    pub token: Option<&'a Credential>,
    /// Whether the body may come compressed with gzip; it is given as it comes.
    pub gzip: bool,
    /// Most bytes of the answer's body, as it comes.
    pub max_bytes: usize,
    /// How long everything may take, the body's last byte included.
    pub time: Duration,
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Reply {
    /// The value of a header, if it is there and text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl PlainClient {
    /// A client that trusts the public roots and those in `extra_authorities`.
    ///
    /// # Errors
    /// The file holds no authorities, or TLS can't be set up.
    pub fn new(extra_authorities: Option<&Path>) -> Result<Self, Refusal> {
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(tls::connector(extra_authorities)?),
        })
    }

    /// Sends it and waits for the whole answer.
    ///
    /// # Errors
    /// `url-unusable`; `token-in-the-clear`; `peer-unreachable`; `peer-silent`: not whole in time;
    /// `peer-answer-too-large`.
    pub async fn send(&self, ask: Ask<'_>) -> Result<Reply, Refusal> {
        let (time, url, max) = (ask.time, ask.url, ask.max_bytes);
        let request = request(&ask)?;
        tokio::time::timeout(time, self.exchange(request, url, max))
            .await
            .unwrap_or_else(|_| {
                Err(
                    Refusal::unavailable("peer-silent", format!("{url} did not answer in time"))
                        .expected(&format!("a whole answer within {} s", time.as_secs())),
                )
            })
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        url: &str,
        max: usize,
    ) -> Result<Reply, Refusal> {
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| unreachable(url, &error))?;
        let (head, mut body) = response.into_parts();
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| unreachable(url, &error))?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            if whole.len() + data.len() > max {
                return Err(Refusal::limit(
                    "peer-answer-too-large",
                    format!("{url} answers with more than it may"),
                )
                .expected(&format!("at most {max} bytes")));
            }
            whole.extend_from_slice(data);
        }
        Ok(Reply {
            status: head.status,
            headers: head.headers,
            body: whole.into(),
        })
    }
}

/// Whether `url` is one that [`PlainClient`] can ask.
///
/// # Errors
/// `url-unusable`.
pub fn check_url(url: &str) -> Result<Uri, Refusal> {
    let uri: Option<Uri> = url.parse().ok();
    uri.filter(|uri| {
        let named = uri.authority().is_some_and(|authority| {
            !authority.host().is_empty() && !authority.as_str().contains('@')
        });
        named && matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none()
    })
    .ok_or_else(|| {
        Refusal::new(
            portcullis_model::RefusalKind::Malformed,
            "url-unusable",
            "this URL can't be asked",
        )
        .expected("an http or https URL without query, name or password")
        .received(url)
    })
}

fn request(ask: &Ask<'_>) -> Result<Request<Full<Bytes>>, Refusal> {
    let uri = check_url(ask.url)?;
    let near = matches!(
        uri.host().unwrap_or_default(),
        "127.0.0.1" | "localhost" | "[::1]"
    );
    let mut headers = HeaderMap::new();
    headers.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("portcullis/", env!("CARGO_PKG_VERSION"))),
    );
    let coding = if ask.gzip {
        "gzip, identity"
    } else {
        "identity"
    };
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(coding));
    if let Some(token) = ask.token {
        if uri.scheme_str() != Some("https") && !near {
            return Err(Refusal::denied(
                "token-in-the-clear",
                "a token must not travel over plain HTTP",
            )
            .expected("an https:// URL")
            .received(ask.url));
        }
        // An error here would repeat the token, so it is dropped.
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.0.expose()))
            .map_err(|_| Refusal::malformed("token").expected("printable characters"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let (method, body) = match &ask.post {
        Some((kind, body)) => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            (Method::POST, Bytes::from(body.clone()))
        }
        None => (Method::GET, Bytes::new()),
    };
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

fn unreachable(url: &str, error: &dyn std::error::Error) -> Refusal {
    // The cause says more than "client error".
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Refusal::unavailable("peer-unreachable", format!("{url} can't be reached"))
        .received(&cause.to_string())
}
