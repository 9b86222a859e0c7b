//! The URL that a proof is for, in one spelling.

use http::Uri;
use portcullis_model::Refusal;

/// Longest URL in bytes that a proof is made for.
pub const URL_MAX_BYTES: usize = 4096;

/// `url` without query and fragment, its scheme and host in lowercase, a default port left out,
/// an empty path as `/` (RFC 9449 §4.3, RFC 3986 §§6.2.2–6.2.3). Escapes in the path are left as
/// they are.
///
/// # Errors
/// Not an absolute `http` or `https` URL; user information, or `.` or `..` segments in it.
pub fn normalise_url(url: &str) -> Result<String, Refusal> {
    let malformed = || {
        Refusal::malformed("url")
            .expected("an absolute http or https URL without user name or dot segments")
            .received(url)
    };
    if url.len() > URL_MAX_BYTES {
        return Err(malformed());
    }
    let uri: Uri = url.parse().map_err(|_| malformed())?;
    let authority = uri.authority().ok_or_else(malformed)?;
    let (scheme, default_port) = match uri.scheme_str() {
        Some("http") => ("http", 80),
        Some("https") => ("https", 443),
        _ => return Err(malformed()),
    };
    let host = authority.host();
    let has_port_text = authority.as_str().len() > host.len();
    if host.is_empty()
        || authority.as_str().contains('@')
        || (has_port_text && authority.port_u16().is_none())
        || uri
            .path()
            .split('/')
            .any(|segment| matches!(segment, "." | ".."))
    {
        return Err(malformed());
    }
    let host = host.to_ascii_lowercase();
    let path = if uri.path().is_empty() {
        "/"
    } else {
        uri.path()
    };
    Ok(match authority.port_u16() {
        Some(port) if port != default_port => format!("{scheme}://{host}:{port}{path}"),
        _ => format!("{scheme}://{host}{path}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_target_agree_and_targets_stay_apart() {
        for url in [
            "https://gate.example",
            "HTTPS://Gate.Example:443/",
            "https://gate.example/?a=b",
            "https://gate.example/#c",
        ] {
            assert_eq!(
                normalise_url(url).unwrap(),
                "https://gate.example/",
                "{url}"
            );
        }
        for url in [
            "http://gate.example/",
            "https://gate.example:8443/",
            "https://gate.example/a",
            "https://gate.example//",
            "https://gate.example/%61",
            "https://other.example/",
        ] {
            assert_ne!(
                normalise_url(url).unwrap(),
                "https://gate.example/",
                "{url}"
            );
        }
        assert_eq!(
            normalise_url("http://[::1]:80/x").unwrap(),
            "http://[::1]/x"
        );
    }

    #[test]
    fn what_is_not_plainly_a_url_is_refused() {
        for url in [
            "",
            "/path",
            "gate.example",
            "ftp://gate.example/",
            "https://user@gate.example/",
            "https://gate.example:x/",
            "https://gate.example:99999/",
            "https://gate.example/a/../b",
            "https://gate.example/./b",
            "https://gate.example/a b",
            "https:///a",
            &format!("https://gate.example/{}", "a".repeat(4096)),
        ] {
            assert!(normalise_url(url).is_err(), "{url}");
        }
    }

    proptest::proptest! {
        #[test]
        fn normalising_twice_changes_nothing(url in "https?://[a-zA-Z0-9.:@\\[\\]-]{0,20}[a-zA-Z0-9./%?#_-]{0,30}") {
            if let Ok(once) = normalise_url(&url) {
                proptest::prop_assert_eq!(normalise_url(&once).unwrap(), once);
            }
        }
    }
}
