//! Calls to declared model endpoints: read whole, decided on by the model they ask for, then sent
//! with the key that only the server holds.

use std::path::Path;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName,
    HeaderValue,
};
use hyper::{Method, Request, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use portcullis_model::{Digest, Recorded, Refusal};

use super::answer::{self, Asked, Bounds, Forwarded, Stop};
use super::connections::Coming;
use super::headers::{foreign_credential, strip_for_model, strip_hop};
use super::room::Room;
use super::scan::MODEL_MAX_BYTES;
use super::{Credential, tls, upload};

/// Largest request in bytes: a long context with pictures. It is held in memory, since the model
/// that it asks for decides whether it may go.
pub const CALL_MAX_BYTES: u64 = 8 * 1024 * 1024;
/// Longest path and query of a call, in bytes.
const PATH_MAX_BYTES: usize = 2_048;

/// A declared endpoint with its key.
#[derive(Clone, Debug)]
pub struct Endpoint {
    base: Uri,
    header: HeaderName,
    value: Option<Credential>,
}

impl Endpoint {
    /// `header` carries `prefix` and the key, if there is one.
    ///
    /// # Errors
    /// `malformed-endpoint`, or `credential-in-the-clear`: a key over plain HTTP to a host that is
    /// not this machine.
    pub fn new(
        base_url: &str,
        header: &str,
        prefix: &str,
        key: Option<&Credential>,
    ) -> Result<Self, Refusal> {
        let malformed = |expected: &str, received: &str| {
            Refusal::malformed("endpoint")
                .expected(expected)
                .received(received)
        };
        let url = "an http or https URL without query, name or password";
        let base: Uri = base_url.parse().map_err(|_| malformed(url, base_url))?;
        let scheme = base.scheme_str().unwrap_or_default();
        let authority = base.authority().map_or("", |authority| authority.as_str());
        if !matches!(scheme, "http" | "https")
            || authority.is_empty()
            || authority.contains('@')
            || base.query().is_some()
        {
            return Err(malformed(url, base_url));
        }
        let host = base.host().unwrap_or_default();
        let near = matches!(host, "127.0.0.1" | "localhost" | "[::1]");
        if key.is_some() && scheme == "http" && !near {
            return Err(Refusal::denied(
                "credential-in-the-clear",
                "a key must not travel over plain HTTP",
            )
            .expected("an https:// base URL")
            .received(base_url)
            .next("change the endpoint's record to https"));
        }
        let header = header
            .parse()
            .map_err(|_| malformed("the name of a header", header))?;
        let value = key.map(|key| {
            let key = key.0.expose();
            // `user:password` travels encoded (RFC 7617); a key of another form is one already.
            let key = if prefix.trim().eq_ignore_ascii_case("basic") && key.contains(':') {
                BASE64.encode(key)
            } else {
                key.clone()
            };
            Credential::new(format!("{prefix}{key}"))
        });
        if let Some(value) = &value {
            // Told now, and without the key.
            HeaderValue::from_str(value.0.expose())
                .map_err(|_| malformed("a key of printable characters", "another character"))?;
        }
        Ok(Self {
            base,
            header,
            value,
        })
    }

    /// The base URL.
    pub fn base(&self) -> &Uri {
        &self.base
    }

    /// The base and the call's path below it.
    fn target(&self, rest: &str) -> Result<Uri, Refusal> {
        let base = self.base.path().trim_end_matches('/');
        let scheme = self.base.scheme_str().unwrap_or("https");
        let authority = self
            .base
            .authority()
            .map_or("", |authority| authority.as_str());
        format!("{scheme}://{authority}{base}{rest}")
            .parse()
            .map_err(|_| Refusal::malformed("path").received(rest))
    }
}

/// A call read whole, nothing of it sent.
#[derive(Clone, Debug)]
pub struct ModelCall {
    method: Method,
    rest: String,
    headers: HeaderMap,
    body: Bytes,
    model: Option<String>,
}

impl ModelCall {
    /// Reads a request. `rest` is its path below the endpoint, and its query: what is left of
    /// `/model/<endpoint>` + `rest`.
    ///
    /// # Errors
    /// `model-request-too-large`, `malformed-model-request` (no JSON object, or one that names the
    /// model twice), `malformed-path` (one that leaves the endpoint), `connection-lost`,
    /// `request-too-slow`, `no-room-for-body`.
    pub async fn read<B>(request: Request<B>, rest: &str, room: &Room) -> Result<Self, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        check_rest(rest)?;
        let (head, mut body) = request.into_parts();
        if head.headers.contains_key(CONTENT_ENCODING) {
            return Err(Refusal::malformed("model request")
                .expected("a body that is not compressed")
                .next("switch compression of requests off in the client"));
        }
        let max = usize::try_from(CALL_MAX_BYTES).unwrap_or(usize::MAX);
        let (body, whole) =
            upload::hold(&mut body, room, max, upload::HELD_TIME, upload::SILENCE).await?;
        if !whole {
            return Err(
                Refusal::limit("model-request-too-large", "the request is too large")
                    .expected(&format!("at most {CALL_MAX_BYTES} bytes"))
                    .next("send less context"),
            );
        }
        let is_json = head
            .headers
            .get(hyper::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|kind| kind.to_ascii_lowercase().contains("json"));
        let named = if body.is_empty() {
            None
        } else {
            match asked_model(&body) {
                Ok(model) => model,
                // Whoever says it is JSON is held to it; a form or a sound file names none.
                Err(error) if is_json => {
                    return Err(Refusal::malformed("model request")
                        .expected("a JSON object that names one model")
                        .received(&error.to_string()));
                }
                Err(_) => None,
            }
        };
        Ok(Self {
            method: head.method,
            model: named.or_else(|| model_in_path(rest)),
            rest: rest.to_owned(),
            headers: head.headers,
            body,
        })
    }

    /// The model that it asks for: `model` of the JSON body, else `…/models/<name>` of the path.
    /// None if it names none: then a list of allowed models can't be held against it.
    pub fn model_asked(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Where its URL carries a credential, if it does: that of another account would count, whatever
    /// header we add. Those in headers are taken out.
    pub fn foreign_credential(&self) -> Option<String> {
        let uri = format!("http://model.invalid{}", self.rest).parse().ok()?;
        foreign_credential(&HeaderMap::new(), &uri)
    }

    /// Its method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Its path below the endpoint, and its query.
    pub fn rest(&self) -> &str {
        &self.rest
    }

    /// What leaves beside its body: method, path and query, and those headers that pass.
    pub fn around(&self) -> String {
        let mut headers = self.headers.clone();
        strip_hop(&mut headers);
        strip_for_model(&mut headers);
        let mut around = format!("{} {}", self.method, self.rest);
        for (name, value) in &headers {
            around.push('\n');
            around.push_str(name.as_str());
            around.push_str(": ");
            around.push_str(&String::from_utf8_lossy(value.as_bytes()));
        }
        around
    }

    /// Its body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Bytes of its body.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// Digest of its body.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.body)
    }
}

/// Sends calls out, over connections that are kept.
#[derive(Clone)]
pub struct ModelClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl ModelClient {
    /// `extra_authorities` is a PEM file of certificate authorities beside the public ones.
    ///
    /// # Errors
    /// `ca-file-unreadable`.
    pub fn new(extra_authorities: Option<&Path>) -> Result<Self, Refusal> {
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(tls::connector(extra_authorities)?),
        })
    }

    /// Sends a call with the endpoint's key. Redirects come back as they are.
    ///
    /// # Errors
    /// `model-unreachable`, `model-timeout`: nothing came back. Whether the call had an effect is
    /// not known then.
    pub async fn forward<P>(
        &self,
        permit: Recorded<P>,
        endpoint: &Endpoint,
        call: ModelCall,
        bounds: Bounds,
        stop: Stop,
    ) -> Result<Forwarded, Refusal> {
        let _used = permit.spend();
        let began = Instant::now();
        let sent = u64::try_from(call.body.len()).unwrap_or(u64::MAX);
        let asked = Asked {
            began,
            model: call.model.clone(),
            digest: Some(call.digest()),
            kept: (bounds.keep_bytes > 0).then(|| call.body.clone()),
            bytes_out: Box::new(move || sent),
        };
        let request = outgoing(endpoint, call)?;
        let answer = tokio::time::timeout(bounds.head_time, self.client.request(request))
            .await
            .map_err(|_| {
                Refusal::unavailable("model-timeout", "the model endpoint did not answer in time")
                    .expected(&format!(
                        "an answer within {} s",
                        bounds.head_time.as_secs()
                    ))
            })?
            .map_err(|error| unreachable(&error))?;
        Ok(answer::forward(answer.map(Coming::from), asked, bounds, stop).await)
    }
}

fn outgoing(endpoint: &Endpoint, call: ModelCall) -> Result<Request<Full<Bytes>>, Refusal> {
    let target = endpoint.target(&call.rest)?;
    let mut headers = call.headers;
    strip_hop(&mut headers);
    strip_for_model(&mut headers);
    for name in [HOST, CONTENT_LENGTH, EXPECT] {
        headers.remove(name);
    }
    // What is not compressed can be read for the model that served.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.remove(&endpoint.header);
    if let Some(value) = &endpoint.value {
        let mut value = HeaderValue::from_str(value.0.expose())
            .map_err(|_| Refusal::internal("an endpoint's key is no header"))?;
        value.set_sensitive(true);
        headers.insert(endpoint.header.clone(), value);
    }
    let mut request = Request::builder()
        .method(call.method)
        .uri(target)
        .body(Full::new(call.body))
        .map_err(|error| Refusal::internal(format!("a request can't be made: {error}")))?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// The cause at the root: the outer ones say no more than that it failed.
fn unreachable(error: &hyper_util::client::legacy::Error) -> Refusal {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Refusal::unavailable("model-unreachable", "the model endpoint can't be reached")
        .received(&cause.to_string())
        .next("check the endpoint's base URL and that it is up")
}

/// A path that stays below the base whatever the other side does to it.
fn check_rest(rest: &str) -> Result<(), Refusal> {
    let (path, _query) = rest.split_once('?').unwrap_or((rest, ""));
    let lower = path.to_ascii_lowercase();
    let hostile = ["%2e", "%2f", "%5c", "%00", "\\", "//", "#"]
        .iter()
        .any(|part| lower.contains(part))
        || path.split('/').any(|part| matches!(part, "." | ".."));
    if (rest.is_empty() || rest.starts_with(['/', '?']))
        && rest.len() <= PATH_MAX_BYTES
        && rest.bytes().all(|byte| byte.is_ascii_graphic())
        && !hostile
    {
        Ok(())
    } else {
        Err(Refusal::malformed("path")
            .expected("a plain path below the endpoint, without `..` or encoded separators")
            .received(rest))
    }
}

/// `…/models/<name>` or `…/models/<name>:<method>`.
fn model_in_path(rest: &str) -> Option<String> {
    let path = rest.split('?').next()?;
    let mut parts = path.split('/');
    parts.find(|part| *part == "models")?;
    let name = parts.next()?.split(':').next()?;
    (!name.is_empty() && name.len() <= MODEL_MAX_BYTES).then(|| name.to_owned())
}

/// `model` at the top of a JSON object. Named twice, two readers may see two models: refused.
fn asked_model(body: &[u8]) -> Result<Option<String>, serde_json::Error> {
    struct Top;
    impl<'de> serde::de::Visitor<'de> for Top {
        type Value = Option<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(
            self,
            mut map: A,
        ) -> Result<Self::Value, A::Error> {
            use serde::de::Error as _;
            let mut model = None;
            while let Some(key) = map.next_key::<String>()? {
                if key == "model" {
                    let name: String = map.next_value()?;
                    if name.is_empty() || name.len() > MODEL_MAX_BYTES {
                        return Err(A::Error::custom("a model name has 1 to 256 bytes"));
                    }
                    if model.replace(name).is_some() {
                        return Err(A::Error::custom("the model is named twice"));
                    }
                } else {
                    // Other spellings that some readers take for the same key.
                    if key.eq_ignore_ascii_case("model") {
                        return Err(A::Error::custom("`model` is written in lower case"));
                    }
                    map.next_value::<serde::de::IgnoredAny>()?;
                }
            }
            Ok(model)
        }
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let model = serde::Deserializer::deserialize_map(&mut reader, Top)?;
    reader.end()?;
    Ok(model)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_call_stays_below_its_endpoint() {
        for rest in [
            "",
            "/chat",
            "/v1/messages?beta=true",
            "?x=../y",
            "/models/m:generate",
        ] {
            assert!(check_rest(rest).is_ok(), "{rest}");
        }
        for rest in [
            "chat",
            "/../admin",
            "/a/./b",
            "/%2e%2e/x",
            "/a%2Fb",
            "//evil/x",
            "/a\\b",
            "/a b",
            "/a\r\nx",
            "@evil",
            ".evil.com/",
            "/ä",
        ] {
            assert!(check_rest(rest).is_err(), "{rest}");
        }
        let endpoint =
            Endpoint::new("https://api.example/v1/", "authorization", "Bearer ", None).unwrap();
        assert_eq!(
            endpoint.target("/chat?x=1").unwrap(),
            "https://api.example/v1/chat?x=1"
        );
    }

    #[test]
    fn one_body_asks_for_one_model() {
        let asked = |text: &str| asked_model(text.as_bytes());
        assert_eq!(
            asked(r#"{"a":{"model":"x"},"model":"m"}"#)
                .unwrap()
                .as_deref(),
            Some("m")
        );
        assert_eq!(asked(r#"{"a":1}"#).unwrap(), None);
        for text in [
            r#"{"model":"a","model":"b"}"#,
            r#"{"model":"a","mod\u0065l":"b"}"#,
            r#"{"Model":"a"}"#,
            r#"{"model":7}"#,
            r#"{"model":""}"#,
            r#"[]"#,
            r#"{"model":"a"} x"#,
            r#"{"model":"a""#,
        ] {
            assert!(asked(text).is_err(), "{text}");
        }
        assert_eq!(
            model_in_path("/v1beta/models/g-1:generateContent?x").as_deref(),
            Some("g-1")
        );
        assert_eq!(model_in_path("/v1/chat"), None);
    }

    #[test]
    fn a_key_is_neither_printed_nor_sent_in_the_clear() {
        let key = Credential::new("sk-very-secret".into());
        let basic = Credential::new("Aladdin:open sesame".into());
        let endpoint = Endpoint::new(
            "https://api.example",
            "authorization",
            "Basic ",
            Some(&basic),
        )
        .unwrap();
        let value = endpoint.value.as_ref().unwrap().0.expose();
        assert_eq!(value, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        let endpoint = Endpoint::new("https://api.example", "x-api-key", "", Some(&key)).unwrap();
        assert!(!format!("{endpoint:?}").contains("very-secret"));
        let refusal = Endpoint::new("http://api.example", "x-api-key", "", Some(&key)).unwrap_err();
        assert_eq!(refusal.code, "credential-in-the-clear");
        let broken = Credential::new("sk-very-secret\n".into());
        let refusal =
            Endpoint::new("https://api.example", "x-api-key", "", Some(&broken)).unwrap_err();
        assert!(!refusal.to_string().contains("very-secret"));
        for url in [
            "ftp://a",
            "https://",
            "https://u:p@a",
            "https://a?x=1",
            "/x",
            "",
        ] {
            assert!(Endpoint::new(url, "x-api-key", "", None).is_err(), "{url}");
        }
    }
}
