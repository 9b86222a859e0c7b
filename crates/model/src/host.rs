//! One spelling for the names of hosts, so that two readers of a name never see two hosts.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::refusal::Refusal;

/// Longest DNS name in bytes (RFC 1035, 2.3.4), without its final dot.
pub const HOST_MAX_BYTES: usize = 253;
/// Longest label of a DNS name in bytes.
const LABEL_MAX_BYTES: usize = 63;

/// The one spelling of a host: a DNS name in lower case without its final dot, or an address as
/// the standard library writes it, without brackets. IPv4 in a dress of IPv6 (`::ffff:a.b.c.d`)
/// is IPv4.
///
/// What a resolver might read as an address in another notation (`127.1`, `0x7f000001`,
/// `2130706433`, `010.0.0.1`) is refused, not interpreted: programs disagree about what it means.
/// So is everything outside of ASCII; international names come as A-labels (`xn--…`).
///
/// # Errors
/// `malformed-host`.
pub fn normalise_host(text: &str) -> Result<String, Refusal> {
    let malformed = |expected: &str| Refusal::malformed("host").expected(expected).received(text);
    if let Some(inner) = text.strip_prefix('[') {
        let address: Ipv6Addr = inner
            .strip_suffix(']')
            .and_then(|inner| inner.parse().ok())
            .ok_or_else(|| malformed("an IPv6 address in brackets, without a zone"))?;
        return Ok(plain(IpAddr::V6(address)).to_string());
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(plain(address).to_string());
    }
    let host = text.strip_suffix('.').unwrap_or(text);
    let labels = |label: &str| {
        (1..=LABEL_MAX_BYTES).contains(&label.len())
            && !label.starts_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if host.len() > HOST_MAX_BYTES || !host.split('.').all(labels) {
        return Err(malformed("a DNS name in ASCII, or an address"));
    }
    if ends_in_number(host) {
        return Err(malformed(
            "an address as four decimal numbers without leading zeros, or a DNS name",
        ));
    }
    Ok(host.to_ascii_lowercase())
}

/// IPv4 in a dress of IPv6 is what it is.
pub fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) => six
            .to_ipv4_mapped()
            .map_or(IpAddr::V6(six), |four: Ipv4Addr| IpAddr::V4(four)),
        IpAddr::V4(_) => address,
    }
}

/// Splits `host`, `host:port` or `[v6]:port` as in `Host` and `:authority`, and gives the host in
/// its one spelling. No user, no path, no empty port.
///
/// # Errors
/// `malformed-host`.
pub fn split_authority(text: &str, default_port: u16) -> Result<(String, u16), Refusal> {
    let malformed = || {
        Refusal::malformed("host")
            .expected("host or host:port")
            .received(text)
    };
    let (host, port) = match text.rsplit_once(':') {
        // A bare IPv6 address has no place in an authority; its last part would be a port.
        Some((host, _))
            if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) =>
        {
            if text.starts_with('[') && text.ends_with(']') {
                (text, None)
            } else {
                return Err(malformed());
            }
        }
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let port = match port {
        None => default_port,
        Some(digits) => {
            let plain = (1..=5).contains(&digits.len())
                && digits.bytes().all(|byte| byte.is_ascii_digit())
                && !digits.starts_with('0');
            digits
                .parse()
                .ok()
                .filter(|_| plain)
                .ok_or_else(malformed)?
        }
    };
    Ok((normalise_host(host)?, port))
}

/// Whether a reader of addresses would take this name for one (the URL Standard's "ends in a
/// number"): its last label is digits, or a hexadecimal number.
fn ends_in_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let digits = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    let hexadecimal = last
        .strip_prefix("0x")
        .or_else(|| last.strip_prefix("0X"))
        .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    digits || hexadecimal
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_host_has_one_spelling_and_no_second_reading() {
        for (text, spelling) in [
            ("API.Example.com.", "api.example.com"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "::1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("[::FFFF:169.254.169.254]", "169.254.169.254"),
            ("1password.com", "1password.com"),
            ("a_b.example", "a_b.example"),
        ] {
            assert_eq!(normalise_host(text).unwrap(), spelling, "{text}");
        }
        for text in [
            "",
            ".",
            "a..b",
            "-a",
            "a b",
            "a/b",
            "user@host",
            "127.1",
            "0x7f000001",
            "2130706433",
            "010.0.0.1",
            "127.0.0.1.",
            "1.2.3.4.5",
            "a.0x1",
            "bücher.example",
            "[::1",
            "::1]",
            "[fe80::1%25lo]",
            "[127.0.0.1]",
            "a\0b",
            "a\r\nb",
            "%61.example",
        ] {
            assert!(normalise_host(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_authority_is_a_host_and_at_most_a_port() {
        for (text, host, port) in [
            ("A.example", "a.example", 80),
            ("a.example.:8080", "a.example", 8080),
            ("[::1]:443", "::1", 443),
            ("[::1]", "::1", 80),
            ("10.0.0.1:1", "10.0.0.1", 1),
        ] {
            assert_eq!(
                split_authority(text, 80).unwrap(),
                (host.to_owned(), port),
                "{text}"
            );
        }
        for text in [
            "", ":80", "a:", "a:0", "a:080", "a:65536", "a:+1", "::1", "::1:80", "a:b:1", "u@a:80",
            "a:80/", "a,b",
        ] {
            assert!(split_authority(text, 80).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(text in "\\PC{0,40}|[0-9a-fx.:\\[\\]-]{0,40}") {
            if let Ok(once) = normalise_host(&text) {
                prop_assert_eq!(normalise_host(&once).unwrap(), once.clone());
                prop_assert!(once.is_ascii());
            }
            let _ = split_authority(&text, 443);
        }
    }
}
