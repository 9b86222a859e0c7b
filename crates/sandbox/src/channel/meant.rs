//! What a connection was made to, and whether a request on it says the same. Pure: everything
//! here reads bytes that a hostile program wrote.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Uri, Version};
use portcullis_model::Refusal;
use portcullis_model::host::{normalise_host, split_authority};

use super::heads::ambiguous;

/// A host, in its one spelling, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Meant {
    pub(super) host: String,
    pub(super) port: u16,
}

/// How a request comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Tls,
    Http1,
    Http2,
    /// Nothing that is understood.
    Other,
}

impl Meant {
    /// Reads `host:port`.
    pub(super) fn read(text: &str) -> Result<Self, Refusal> {
        // A port of 0 stands for none, which no target may lack.
        let (host, port) = split_authority(text, 0)?;
        if port == 0 {
            return Err(Refusal::malformed("host")
                .expected("host:port")
                .received(text));
        }
        Ok(Self { host, port })
    }

    /// `host:port`, with brackets where they are needed.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether a TLS client wants to talk to the same host. Saying nothing is no disagreement: the
    /// `Host` of each request is still compared.
    pub(super) fn agrees_with_sni(&self, name: Option<&str>) -> Result<(), Refusal> {
        let Some(name) = name else {
            return Ok(());
        };
        if normalise_host(name).is_ok_and(|host| host == self.host) {
            Ok(())
        } else {
            Err(self.mismatch("the name in the TLS handshake", name))
        }
    }

    /// The absolute URL that a request on this connection asks for.
    ///
    /// # Errors
    /// `host-mismatch` where any place that names a host names another; `ambiguous-length`;
    /// `malformed-…` for a target that can't be on such a connection.
    pub(super) fn url(
        &self,
        scheme: Scheme,
        method: &Method,
        uri: &Uri,
        version: Version,
        headers: &HeaderMap,
    ) -> Result<String, Refusal> {
        if method == Method::CONNECT {
            return Err(Refusal::malformed("request target")
                .expected("a path: this connection leads to one host already")
                .received(&format!("CONNECT {uri}")));
        }
        if let Some(said) = uri.scheme_str()
            && said != scheme.name()
        {
            return Err(Refusal::malformed("request target")
                .expected(scheme.name())
                .received(said));
        }
        if let Some(authority) = uri.authority() {
            self.agrees("the request's target", authority.as_str(), scheme)?;
        }
        self.agrees_with_host(scheme, uri, version, headers)?;
        one_length(headers)?;
        let path = uri.path_and_query().map_or("/", |both| both.as_str());
        let path = match (
            path.is_empty(),
            path.starts_with('/'),
            path.starts_with('?'),
        ) {
            (true, ..) => "/".to_owned(),
            (_, true, _) => path.to_owned(),
            (_, _, true) => format!("/{path}"),
            _ => {
                return Err(Refusal::malformed("request target")
                    .expected("a path")
                    .received(path));
            }
        };
        let authority = if self.port == scheme.port() {
            let whole = self.authority();
            whole
                .strip_suffix(&format!(":{}", self.port))
                .unwrap_or(&whole)
                .to_owned()
        } else {
            self.authority()
        };
        Ok(format!("{}://{authority}{path}", scheme.name()))
    }

    fn agrees_with_host(
        &self,
        scheme: Scheme,
        uri: &Uri,
        version: Version,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        let mut hosts = headers.get_all(HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => {
                let text = host.to_str().map_err(|_| {
                    Refusal::malformed("host").expected("a DNS name in ASCII, or an address")
                })?;
                self.agrees("`Host`", text, scheme)
            }
            (Some(_), Some(_)) => Err(Refusal::malformed("request")
                .expected("one `Host`")
                .received("several")),
            // HTTP/2 says it in `:authority`, HTTP/1.0 need not.
            (None, _) if uri.authority().is_some() || version == Version::HTTP_10 => Ok(()),
            (None, _) => Err(Refusal::malformed("request").expected("a `Host`")),
        }
    }

    fn agrees(&self, place: &str, text: &str, scheme: Scheme) -> Result<(), Refusal> {
        let same = split_authority(text, scheme.port())
            .is_ok_and(|(host, port)| host == self.host && port == self.port);
        if same {
            Ok(())
        } else {
            Err(self.mismatch(place, text))
        }
    }

    fn mismatch(&self, place: &str, text: &str) -> Refusal {
        Refusal::denied(
            "host-mismatch",
            format!("{place} names another host than the connection was made to"),
        )
        .expected(&self.authority())
        .received(text)
        .next("ask each host under its own name, over a connection made to that name")
    }
}

/// A request whose end two readers could see at two places is not passed on.
pub(super) fn one_length(headers: &HeaderMap) -> Result<(), Refusal> {
    let lengths = headers.get_all(CONTENT_LENGTH).iter().count();
    let codings = headers.get_all(TRANSFER_ENCODING).iter().count();
    if lengths + codings > 1 {
        return Err(ambiguous(&format!("{lengths} lengths, {codings} codings")));
    }
    Ok(())
}

/// What the first bytes say, or `None` while they are too few.
pub(super) fn protocol(first: &[u8]) -> Option<Protocol> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
    match first {
        [] => None,
        // A handshake record of TLS 1.x: type, then major version 3.
        [0x16] => None,
        [0x16, 3, ..] => Some(Protocol::Tls),
        _ if first.starts_with(PREFACE) => Some(Protocol::Http2),
        _ if PREFACE.starts_with(first) => None,
        // A method is upper-case by every registered one; what follows is HTTP's own parser's.
        [byte, ..] if byte.is_ascii_uppercase() => Some(Protocol::Http1),
        _ => Some(Protocol::Other),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn meant(text: &str) -> Meant {
        Meant::read(text).expect("host and port")
    }

    fn asked(
        meant: &Meant,
        scheme: Scheme,
        uri: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<String, Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("value"));
        }
        let uri = uri.parse().expect("uri");
        meant.url(scheme, &Method::GET, &uri, Version::HTTP_11, &map)
    }

    #[test]
    fn every_place_that_names_the_host_must_name_the_same() {
        let a = meant("a.example:443");
        for (uri, host) in [
            ("/x?y", "a.example"),
            ("/x?y", "A.EXAMPLE.:443"),
            ("https://a.example/x?y", "a.example"),
        ] {
            let url = asked(&a, Scheme::Https, uri, &[("host", host)]);
            assert_eq!(url.as_deref(), Ok("https://a.example/x?y"), "{uri} {host}");
        }
        for (uri, headers, code) in [
            ("/", &[("host", "b.example")][..], "host-mismatch"),
            ("/", &[("host", "a.example:80")], "host-mismatch"),
            ("/", &[("host", "a.example@b.example")], "host-mismatch"),
            ("/", &[("host", "a.example, b.example")], "host-mismatch"),
            (
                "/",
                &[("host", "a.example"), ("host", "b.example")],
                "malformed-request",
            ),
            (
                "/",
                &[("host", "a.example"), ("host", "a.example")],
                "malformed-request",
            ),
            ("/", &[], "malformed-request"),
            (
                "https://b.example/",
                &[("host", "a.example")],
                "host-mismatch",
            ),
            (
                "https://a.example/",
                &[("host", "b.example")],
                "host-mismatch",
            ),
            (
                "http://a.example/",
                &[("host", "a.example")],
                "malformed-request-target",
            ),
            (
                "https://u:p@a.example/",
                &[("host", "a.example")],
                "host-mismatch",
            ),
            ("*", &[("host", "a.example")], "malformed-request-target"),
            (
                "/",
                &[
                    ("host", "a.example"),
                    ("content-length", "5"),
                    ("transfer-encoding", "chunked"),
                ],
                "ambiguous-length",
            ),
            (
                "/",
                &[
                    ("host", "a.example"),
                    ("content-length", "5"),
                    ("content-length", "5"),
                ],
                "ambiguous-length",
            ),
        ] {
            let refusal = asked(&a, Scheme::Https, uri, headers).expect_err(uri);
            assert_eq!(refusal.code, code, "{uri} {headers:?}");
        }
        let odd = meant("[2606:4700::1]:8443");
        let url = asked(
            &odd,
            Scheme::Https,
            "/",
            &[("host", "[2606:4700:0::1]:8443")],
        );
        assert_eq!(url.as_deref(), Ok("https://[2606:4700::1]:8443/"));
    }

    #[test]
    fn the_handshake_must_name_the_same_too() {
        let a = meant("a.example:443");
        assert!(a.agrees_with_sni(None).is_ok());
        assert!(a.agrees_with_sni(Some("A.example")).is_ok());
        for other in ["b.example", "a.example.b", "", "127.0.0.1"] {
            let refusal = a.agrees_with_sni(Some(other)).expect_err(other);
            assert_eq!(refusal.code, "host-mismatch");
        }
    }

    #[test]
    fn the_first_bytes_say_what_is_spoken() {
        for (bytes, expected) in [
            (&b""[..], None),
            (b"\x16", None),
            (b"\x16\x03\x01", Some(Protocol::Tls)),
            (b"\x16\x02", Some(Protocol::Other)),
            (b"GET / HTTP/1.1", Some(Protocol::Http1)),
            (b"P", None),
            (b"PRI * HTT", None),
            (b"PRI * HTTP/2.0\r\n", Some(Protocol::Http2)),
            (b"PROPFIND / HTTP/1.1", Some(Protocol::Http1)),
            (b"POST", Some(Protocol::Http1)),
            (b"\r\nGET /", Some(Protocol::Other)),
            (b" GET /", Some(Protocol::Other)),
            (b"get / HTTP/1.1", Some(Protocol::Other)),
            (b"\0\0\0\x08", Some(Protocol::Other)),
        ] {
            assert_eq!(protocol(bytes), expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_leads_to_the_host_that_was_meant(
            uri in "(https?://)?[a-z0-9@.:%/*?#\\[\\]-]{0,30}",
            host in "[a-zA-Z0-9@.:,%\\[\\] -]{0,24}|a\\.example(:443)?",
        ) {
            let a = meant("a.example:443");
            let Ok(uri) = uri.parse::<Uri>() else { return Ok(()) };
            let mut headers = HeaderMap::new();
            let Ok(value) = host.parse() else { return Ok(()) };
            headers.insert(HOST, value);
            let url = a.url(Scheme::Https, &Method::GET, &uri, Version::HTTP_11, &headers);
            if let Ok(url) = url {
                prop_assert!(url.starts_with("https://a.example/"), "{}", url);
                let again: Uri = url.parse().expect("a URL");
                prop_assert_eq!(again.host(), Some("a.example"));
            }
        }

        #[test]
        fn no_first_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = protocol(&bytes);
        }
    }
}
