//! Headers that must not pass from inside to outside, or back.

use hyper::header::{HeaderMap, HeaderName};

/// The hop-by-hop fields of RFC 9110, section 7.6.1, and older ones still seen.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-authentication-info",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What says who calls, from where, or on which way. From inside, none of it is believed.
const POSING: &[&str] = &[
    "authorization",
    "api-key",
    "x-api-key",
    "x-goog-api-key",
    "x-auth-token",
    "cookie",
    "dpop",
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-cert",
    "origin",
    "referer",
];

/// What stands inside where a program insists on a credential. It is nobody's.
pub const PLACEHOLDER: &str = "the-gateway-adds-the-key";

/// Parts of header names that carry credentials, whatever the vendor.
const CREDENTIAL_WORDS: [&str; 15] = [
    "authorization",
    "authentication",
    "auth-key",
    "access-key",
    "app-key",
    "subscription-key",
    "functions-key",
    "bearer",
    "api-key",
    "apikey",
    "token",
    "secret",
    "password",
    "credential",
    "cookie",
];

/// Query parameters that carry credentials, in lower case.
const CREDENTIAL_PARAMETERS: [&str; 36] = [
    "access-key",
    "access_key",
    "access_token",
    "accesskey",
    "api-key",
    "api_key",
    "apikey",
    "app_key",
    "appkey",
    "auth",
    "auth_key",
    "auth_token",
    "authkey",
    "authorization",
    "awsaccesskeyid",
    "bearer",
    "client_secret",
    "jwt",
    "key",
    "oauth_token",
    "passwd",
    "password",
    "private_token",
    "pwd",
    "refresh_token",
    "secret",
    "session",
    "sig",
    "signature",
    "subscription-key",
    "token",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
    "x-goog-credential",
    "x-goog-signature",
];

/// Where a request from inside carries a credential, if it does: the name of the header or query
/// parameter, never its value. Nothing that a run sends by itself was lent by us, so whatever is
/// one is somebody else's; the placeholder is nobody's.
pub fn foreign_credential(headers: &HeaderMap, uri: &hyper::Uri) -> Option<String> {
    let in_header = headers.iter().find(|(name, value)| {
        let value = value.as_bytes();
        let named = names_credential(name.as_str())
            // Browsers can send no other header with a WebSocket, so credentials travel in the
            // value of this one.
            || (*name == "sec-websocket-protocol"
                && names_credential(&String::from_utf8_lossy(value).to_ascii_lowercase()));
        named && !value.is_empty() && !is_placeholder(value)
    });
    if let Some((name, _)) = in_header {
        let name = name.as_str().strip_prefix("portcullis-target-");
        return Some(format!("header {}", name.unwrap_or("of a credential")));
    }
    if uri
        .authority()
        .is_some_and(|all| all.as_str().contains('@'))
    {
        return Some("user and password of the URL".to_owned());
    }
    uri.query()?.split(['&', ';']).find_map(|part| {
        let (name, value) = part.split_once('=')?;
        let name = decoded(name).to_ascii_lowercase();
        let carries = CREDENTIAL_PARAMETERS.contains(&name.as_str());
        (carries && !value.is_empty() && !is_placeholder(value.as_bytes()))
            .then(|| format!("query parameter {name}"))
    })
}

fn names_credential(text: &str) -> bool {
    // `x-author` is none.
    text == "x-auth"
        || text.starts_with("x-auth-")
        || CREDENTIAL_WORDS.iter().any(|word| text.contains(word))
}

/// The placeholder alone, or after a scheme.
fn is_placeholder(value: &[u8]) -> bool {
    let text = String::from_utf8_lossy(value);
    let last = text.rsplit(' ').next().unwrap_or_default();
    last == PLACEHOLDER && text.split(' ').count() <= 2
}

/// Undoes percent encoding, once.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let code = after
            .get(..2)
            .filter(|_| *byte == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Prefixes of the same.
const POSING_PREFIXES: &[&str] = &[
    "x-forwarded-",
    "x-portcullis-",
    "portcullis-",
    "x-amz-security-",
];

/// What an answer must not bring in.
const ANSWER_DROPPED: &[&str] = &[
    "set-cookie",
    "alt-svc",
    "www-authenticate",
    "content-length",
    // What only the server says to a launcher.
    "portcullis-session",
    "portcullis-refusal",
    "portcullis-as-of",
];

/// The trailers of an answer that pass: gRPC says there how a call ended.
const GRPC_TRAILERS: &str = "grpc-status, grpc-message, grpc-status-details-bin";

/// Whether a message is one of gRPC's.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(hyper::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Says that the trailers of gRPC are understood.
pub(crate) fn ask_for_trailers(headers: &mut HeaderMap) {
    headers.insert(
        hyper::header::TE,
        hyper::header::HeaderValue::from_static("trailers"),
    );
}

/// Says that the trailers of gRPC may follow.
pub(crate) fn announce_trailers(headers: &mut HeaderMap) {
    headers.insert(
        hyper::header::TRAILER,
        hyper::header::HeaderValue::from_static(GRPC_TRAILERS),
    );
}

/// What passes of the trailers of an answer.
pub(crate) fn passing_trailers(mut trailers: HeaderMap) -> HeaderMap {
    remove_all(&mut trailers, |name| {
        !GRPC_TRAILERS.split(", ").any(|known| known == name)
    });
    trailers
}

/// Removes what belongs to one hop, the fields that `Connection` lists among it.
pub(crate) fn strip_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all("connection")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // Nobody may have us drop to whom a message goes.
        .filter(|name| *name != hyper::header::HOST)
        .collect();
    for name in listed {
        headers.remove(name);
    }
    remove_all(headers, |name| HOP_BY_HOP.contains(&name));
}

/// Removes every field whose name is to go.
fn remove_all(headers: &mut HeaderMap, goes: impl Fn(&str) -> bool) {
    let listed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| goes(name.as_str()))
        .cloned()
        .collect();
    for name in listed {
        headers.remove(name);
    }
}

/// Whether a field says who calls.
fn poses(name: &str) -> bool {
    POSING.contains(&name)
        || POSING_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// Removes all that says who calls, and for a model endpoint every credential, since there only ours
/// is meant.
pub(crate) fn strip_for_model(headers: &mut HeaderMap) {
    remove_all(headers, |name| poses(name) || names_credential(name));
}

/// Removes all that says who calls, for a named host: where a page came from is its affair.
pub(crate) fn strip_for_host(headers: &mut HeaderMap) {
    remove_all(headers, |name| {
        poses(name) && !matches!(name, "origin" | "referer")
    });
}

/// Makes an answer's headers fit for the inside. The length is written anew by our side.
pub(crate) fn strip_answer(headers: &mut HeaderMap) {
    strip_hop(headers);
    remove_all(headers, |name| ANSWER_DROPPED.contains(&name));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_found_wherever_it_is_put() {
        let found = |headers: &[(&'static str, &str)], uri: &str| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().unwrap());
            }
            foreign_credential(&map, &uri.parse().unwrap())
        };
        let plain = "https://a.example/x?q=1";
        for (headers, uri) in [
            (
                &[("portcullis-target-authorization", "Bearer x")][..],
                plain,
            ),
            (&[("cookie", "a=b")], plain),
            (&[("x-api-key", "x")], plain),
            (&[("private-token", "x")], plain),
            (&[("x-vault-token", "x")], plain),
            (&[("x-amz-security-token", "x")], plain),
            (&[("x-auth-key", "x")], plain),
            (&[("x-auth", "x")], plain),
            (&[("x-auth-user", "x")], plain),
            (&[("ocp-apim-subscription-key", "x")], plain),
            (
                &[(
                    "sec-websocket-protocol",
                    "realtime, openai-insecure-api-key.x",
                )],
                plain,
            ),
            (
                &[(
                    "sec-websocket-protocol",
                    "base64url.Bearer.Authorization.k8s.io.eA",
                )],
                plain,
            ),
            (&[], "https://a.example/x?X-Amz-Signature=x"),
            (&[], "https://a.example/x?X-Amz-Security-Token=x"),
            (
                &[("authorization", "Bearer the-gateway-adds-the-key x")],
                plain,
            ),
            (&[], "https://a.example/x?access_token=x"),
            (&[], "https://a.example/x?b=1&API_KEY=x"),
            (&[], "https://a.example/x?%61ccess%5Ftoken=x"),
            (&[], "https://a.example/x?a=1;sig=x"),
            (&[], "https://user:word@a.example/"),
        ] {
            let place = found(headers, uri);
            assert!(place.is_some(), "{headers:?} {uri}");
        }
        for (headers, uri) in [
            (&[][..], plain),
            (
                &[("authorization", "Bearer the-gateway-adds-the-key")],
                plain,
            ),
            (&[("x-api-key", "the-gateway-adds-the-key")], plain),
            (&[("authorization", "")], plain),
            (&[("accept", "token")], plain),
            (&[("sec-websocket-protocol", "graphql-ws")], plain),
            (&[("mcp-session-id", "x")], plain),
            (&[("x-author", "x")], plain),
            (&[], "https://a.example/x?pageToken=x&sort=key"),
            (&[], "https://a.example/token?tokens=1&key="),
        ] {
            assert_eq!(found(headers, uri), None, "{headers:?} {uri}");
        }
    }

    #[test]
    fn nothing_that_poses_passes() {
        let mut headers = HeaderMap::new();
        for name in [
            "authorization",
            "x-api-key",
            "cookie",
            "x-forwarded-for",
            "proxy-authorization",
            "connection",
            "x-listed",
            "te",
            "x-portcullis-run",
            "portcullis-target-authorization",
            "dpop",
        ] {
            headers.insert(HeaderName::from_static(name), "x".parse().unwrap());
        }
        headers.insert("connection", "close, X-Listed, host".parse().unwrap());
        headers.insert("host", "a".parse().unwrap());
        headers.insert("accept", "b".parse().unwrap());
        strip_hop(&mut headers);
        strip_for_model(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "host"]);
    }
}
