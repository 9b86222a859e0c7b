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
];

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
    for name in HOP_BY_HOP {
        headers.remove(*name);
    }
}

/// Removes all that says who calls.
pub(crate) fn strip_posing(headers: &mut HeaderMap) {
    for name in POSING {
        headers.remove(*name);
    }
    let listed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            POSING_PREFIXES
                .iter()
                .any(|prefix| name.as_str().starts_with(prefix))
        })
        .cloned()
        .collect();
    for name in listed {
        headers.remove(name);
    }
}

/// Makes an answer's headers fit for the inside. The length is written anew by our side.
pub(crate) fn strip_answer(headers: &mut HeaderMap) {
    strip_hop(headers);
    for name in ANSWER_DROPPED {
        headers.remove(*name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        strip_posing(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "host"]);
    }
}
