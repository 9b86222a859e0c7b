//! What a request from inside asks for, and what is not passed on.

use http::header::{
    AUTHORIZATION, CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{Method, Request, Uri};
use portcullis_model::Refusal;
use portcullis_model::host::split_authority;

use super::meant::{Meant, Scheme, one_length};

/// Where the gateway's routes begin.
pub(super) const GATEWAY: &str = "/gateway/v1";

/// What is asked of the gateway.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// One of its own resources: path and query below [`GATEWAY`].
    Own(String),
    /// Another host's resource, as a proxy is asked for it.
    Egress(Scheme, Meant),
    /// A connection to another host: `host:port`.
    Tunnel(String),
}

/// Reads the request line. `own`: the authority of the channel itself, which a client that uses
/// it as a proxy for everything asks it for.
pub(super) fn route<B>(request: &Request<B>, own: &str) -> Result<Route, Refusal> {
    let (method, uri) = (request.method(), request.uri());
    one_length(request.headers())?;
    if method == Method::CONNECT {
        let target = uri.authority().filter(|authority| {
            authority.port_u16().is_some() && !authority.as_str().contains('@')
        });
        return target
            .map(|target| Route::Tunnel(target.as_str().to_owned()))
            .ok_or_else(|| {
                Refusal::malformed("tunnel target")
                    .expected("CONNECT host:port")
                    .received(&uri.to_string())
            });
    }
    match (uri.scheme_str(), uri.authority()) {
        (Some("http"), Some(authority)) if authority.as_str() == own => own_resource(uri),
        (Some(scheme @ ("http" | "https")), Some(authority))
            if !authority.as_str().contains('@') =>
        {
            let (scheme, port) = match scheme {
                "http" => (Scheme::Http, 80),
                _ => (Scheme::Https, 443),
            };
            let (host, port) = split_authority(authority.as_str(), port)?;
            Ok(Route::Egress(scheme, Meant { host, port }))
        }
        (Some(_), _) | (None, Some(_)) => Err(Refusal::malformed("request target")
            .expected("an http or https URL without user and password")
            .received(&without_user(uri))),
        (None, None) => own_resource(uri),
    }
}

/// The other host that a request to the channel itself names, if it names one.
pub(super) fn aimed_at<B>(request: &Request<B>) -> Option<Meant> {
    let uri = request.uri();
    let authority = uri.authority()?.as_str();
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let port = if uri.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    let (host, port) = split_authority(host, port).ok()?;
    Some(Meant { host, port })
}

fn own_resource(uri: &Uri) -> Result<Route, Refusal> {
    let path = uri.path();
    let known = path.starts_with("/git/")
        || path.starts_with("/model/")
        || path == "/ask"
        || path.starts_with("/ask/");
    if !known {
        return Err(Refusal::not_found("resource of the channel", path)
            .expected("/git/<repository>, /model/<endpoint>/…, /ask, or a proxy request"));
    }
    if path.split('/').any(is_dots) || path.contains('\\') {
        return Err(Refusal::malformed("path")
            .expected("a path without `.` and `..` segments")
            .received(path));
    }
    let rest = uri.path_and_query().map_or(path, |both| both.as_str());
    Ok(Route::Own(format!("{GATEWAY}{rest}")))
}

fn is_dots(segment: &str) -> bool {
    let plain = segment.to_ascii_lowercase().replace("%2e", ".");
    plain == "." || plain == ".." || segment.to_ascii_lowercase().contains("%2f")
}

fn without_user(uri: &Uri) -> String {
    let host = uri.host().unwrap_or("");
    format!("{}://{host}{}", uri.scheme_str().unwrap_or(""), uri.path())
}

/// Whether a request of HTTP/1.1 asks to go on as a WebSocket (RFC 6455, 4.1). No other protocol is
/// switched to.
pub(super) fn wants_websocket<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let says = |name: HeaderName, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    request.method() == Method::GET
        && request.version() == http::Version::HTTP_11
        && says(CONNECTION, "upgrade")
        && says(UPGRADE, "websocket")
}

/// Takes away what belongs to one connection only (RFC 9110, 7.6.1).
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    for name in [
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
    ] {
        headers.remove(name);
    }
}

/// Takes away what only the launcher may say, and what the launcher's own client says anew.
pub(super) fn strip_claims(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str() == "dpop" || name.as_str().starts_with("portcullis-"))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
    let proofs = headers.get_all(AUTHORIZATION).iter().any(|value| {
        value
            .as_bytes()
            .get(..4)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"dpop"))
    });
    if proofs {
        headers.remove(AUTHORIZATION);
    }
    headers.remove(HOST);
    headers.remove(EXPECT);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, uri: &str) -> Result<Route, Refusal> {
        let mut request = Request::builder().method(method).uri(uri);
        let parsed: Uri = uri.parse().expect("uri");
        if let Some(authority) = parsed.authority() {
            let host = authority.as_str().rsplit('@').next().expect("host");
            request = request.header(HOST, host);
        }
        route(&request.body(()).expect("request"), "127.0.0.1:3128")
    }

    #[test]
    fn each_form_of_request_has_its_place() {
        let own = |text: &str| Ok(Route::Own(text.to_owned()));
        assert_eq!(
            of("GET", "/git/shop/info/refs?service=git-upload-pack"),
            own("/gateway/v1/git/shop/info/refs?service=git-upload-pack")
        );
        assert_eq!(
            of("POST", "http://127.0.0.1:3128/ask"),
            own("/gateway/v1/ask")
        );
        assert_eq!(
            of("GET", "http://example.org/a?b"),
            Ok(Route::Egress(
                Scheme::Http,
                Meant::read("example.org:80").expect("host")
            ))
        );
        assert_eq!(
            of("CONNECT", "example.org:443"),
            Ok(Route::Tunnel("example.org:443".to_owned()))
        );
    }

    #[test]
    fn nothing_else_of_the_server_can_be_reached() {
        for path in [
            "/",
            "/api/v1/tasks",
            "/gateway/v1/git/x",
            "/git/../../api",
            "/git/%2e%2E/api",
            "/git/a%2f..%2fb",
            "/model/\\..\\x",
            "/askance",
            "/gitx",
        ] {
            assert!(of("GET", path).is_err(), "{path}");
        }
        assert!(of("GET", "ftp://example.org/").is_err());
        assert!(of("GET", "http://user:word@example.org/").is_err());
        assert!(of("CONNECT", "example.org").is_err());
    }

    #[test]
    fn an_agent_cannot_speak_for_the_launcher() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("dpop", "x"),
            ("authorization", "dPoP token"),
            ("portcullis-target", "http://10.0.0.1/"),
            ("proxy-authorization", "Basic x"),
            ("connection", "x-secret, close"),
            ("x-secret", "1"),
            ("accept", "text/plain"),
        ] {
            let name: HeaderName = name.parse().expect("name");
            headers.append(name, value.parse().expect("value"));
        }
        strip_hop_by_hop(&mut headers);
        strip_claims(&mut headers);
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["accept"]);
        // What is meant for another host stays; the gateway decides on it.
        headers.insert(AUTHORIZATION, "Basic eA==".parse().expect("value"));
        strip_claims(&mut headers);
        assert!(headers.contains_key(AUTHORIZATION));
    }
}
