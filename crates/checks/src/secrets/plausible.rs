//! What makes a match a credential rather than a look-alike: checksums, decoded structure,
//! entropy, and the signs of a placeholder.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::Candidate;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);

/// The secret is no placeholder.
pub(super) fn genuine(candidate: &Candidate<'_>) -> bool {
    !is_placeholder(candidate.secret)
}

/// The secret is no placeholder, has upper, lower and digits, and varied characters: for formats
/// that are only a length and an alphabet.
pub(super) fn random(candidate: &Candidate<'_>) -> bool {
    let secret = candidate.secret;
    genuine(candidate)
        && secret.bytes().any(|b| b.is_ascii_digit())
        && secret.bytes().any(|b| b.is_ascii_alphabetic())
        && entropy_bits(secret) >= 3.0
}

/// GitHub's and npm's format: a prefix up to the last `_`, 30 random characters, and the CRC-32 of
/// them in base 62, six digits. The newer long forms have no such tail and count as they are.
pub(super) fn crc_tail(candidate: &Candidate<'_>) -> bool {
    let body = candidate
        .secret
        .rsplit_once('_')
        .map_or("", |(_, body)| body);
    if body.len() != 36 {
        return genuine(candidate);
    }
    let (random, tail) = body.split_at_checked(30).unwrap_or_default();
    base62(crc32fast::hash(random.as_bytes())) == tail
}

/// Six base-62 digits, most significant first, `0-9A-Za-z`.
pub(super) fn base62(mut number: u32) -> String {
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        let value = u8::try_from(number % 62).unwrap_or(0);
        *digit = match value {
            0..=9 => b'0' + value,
            10..=35 => b'A' + (value - 10),
            _ => b'a' + (value - 36),
        };
        number /= 62;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

/// An Atlassian API token: the last eight characters are the CRC-32 of the rest, in hex, after
/// `=`.
pub(super) fn atlassian(candidate: &Candidate<'_>) -> bool {
    match candidate.secret.rsplit_once('=') {
        Some((body, tail)) if tail.len() == 8 => {
            format!("{:08X}", crc32fast::hash(body.as_bytes())) == tail || genuine(candidate)
        }
        _ => genuine(candidate),
    }
}

/// A JWT: its header decodes to JSON with `alg`, and it isn't the one that every tutorial shows.
pub(super) fn jwt(candidate: &Candidate<'_>) -> bool {
    let mut parts = candidate.secret.split('.');
    let (Some(header), Some(payload)) = (parts.next(), parts.next()) else {
        return false;
    };
    let decoded = |part: &str| {
        URL_SAFE
            .decode(part.trim_end_matches('='))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
    };
    let Some(header) = decoded(header) else {
        return false;
    };
    let tutorial = decoded(payload).is_some_and(|claims| {
        claims.get("name").and_then(|name| name.as_str()) == Some("John Doe")
            && claims.get("sub").and_then(|sub| sub.as_str()) == Some("1234567890")
    });
    header.get("alg").is_some() && !tutorial
}

/// A private key: after the header, on the same line or the next few, stands key material.
pub(super) fn private_key(candidate: &Candidate<'_>) -> bool {
    let after = candidate
        .rest
        .get(candidate.secret.len()..)
        .unwrap_or_default();
    // Five lines: a header may be followed by `Proc-Type`, `DEK-Info` and an empty line.
    for piece in after.lines().take(6).flat_map(|line| line.split("\\n")) {
        let piece = piece.trim_matches(|c: char| c.is_whitespace() || DECORATION.contains(c));
        let material = piece
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
        if material && piece.len() >= 24 && entropy_bits(piece) >= 3.0 && !is_placeholder(piece) {
            return true;
        }
    }
    false
}

/// What stands around a line of key material in source: quotes, comment marks, operators.
const DECORATION: &str = "\"'`\\,;+#/*!>|";

/// Docker's `auth`: base64 of `user:password`.
pub(super) fn docker_auth(candidate: &Candidate<'_>) -> bool {
    STANDARD
        .decode(candidate.secret.trim_end_matches('='))
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|pair| {
            pair.split_once(':')
                .map(|(_, password)| password.to_owned())
        })
        .is_some_and(|password| password.len() >= 4 && !is_placeholder(&password))
}

/// A password in a URL that isn't a variable, a word for "password", or the user's own name on a
/// development database.
pub(super) fn url_password(candidate: &Candidate<'_>) -> bool {
    let password = candidate.secret;
    let lower = password.to_ascii_lowercase();
    let user = candidate
        .whole
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once(':'))
        .map_or("", |(user, _)| user);
    let host = candidate.rest.get(password.len() + 1..).unwrap_or_default();
    let end = host.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-'));
    let host = host.get(..end.unwrap_or(host.len())).unwrap_or_default();
    !is_placeholder(password)
        && !is_reserved_host(host)
        && !is_reference(password)
        && !COMMON_WORDS.contains(&lower.as_str())
        && lower != user.to_ascii_lowercase()
}

/// Names that RFC 2606 reserves for examples and tests.
fn is_reserved_host(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let within = |domain: &str| {
        host.strip_suffix(domain)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    [
        "example.com",
        "example.org",
        "example.net",
        "example",
        "test",
        "invalid",
    ]
    .into_iter()
    .any(within)
}

/// Words that stand for a password in examples and on development machines.
pub(super) const COMMON_WORDS: [&str; 44] = [
    "password",
    "passwd",
    "pass",
    "pwd",
    "secret",
    "token",
    "key",
    "apikey",
    "api_key",
    "user",
    "username",
    "root",
    "admin",
    "guest",
    "test",
    "testing",
    "postgres",
    "mysql",
    "redis",
    "rabbitmq",
    "mongo",
    "mongodb",
    "minio",
    "minioadmin",
    "changeme",
    "change_me",
    "changeit",
    "default",
    "none",
    "null",
    "true",
    "false",
    "undefined",
    "string",
    "value",
    "foo",
    "bar",
    "baz",
    "hunter2",
    "letmein",
    "pw",
    "p",
    "xxx",
    "nil",
];

/// Whether a value stands for a secret instead of being one.
pub(super) fn is_placeholder(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    if PLACEHOLDER_PARTS.iter().any(|part| lower.contains(part)) {
        return true;
    }
    let mut seen = [false; 256];
    for byte in lower.bytes() {
        if let Some(slot) = seen.get_mut(usize::from(byte)) {
            *slot = true;
        }
    }
    let distinct = seen.iter().filter(|seen| **seen).count();
    (value.len() >= 16 && distinct <= 5) || has_run(&lower)
}

/// Parts that no generator makes by accident at any likely rate and every example has.
const PLACEHOLDER_PARTS: [&str; 27] = [
    "example",
    "placeholder",
    "changeme",
    "change_me",
    "change-me",
    "dummy",
    "redacted",
    "your_",
    "your-",
    "yourtoken",
    "yourkey",
    "xxxxx",
    "*****",
    "00000000",
    "....",
    "…",
    "insert_",
    "insert-",
    "replace_",
    "replace-",
    "sample",
    "fake_",
    "fake-",
    "notreal",
    "not-a-real",
    "not_a_real",
    "12345678901",
];

/// Whether the value has nine or more characters in a row that count up (`123456789`,
/// `abcdefghi`) or stay the same.
fn has_run(value: &str) -> bool {
    let bytes = value.as_bytes();
    let (mut rising, mut equal) = (1, 1);
    for pair in bytes.windows(2) {
        let (Some(a), Some(b)) = (pair.first(), pair.last()) else {
            continue;
        };
        rising = if a.checked_add(1) == Some(*b) && b.is_ascii_alphanumeric() {
            rising + 1
        } else {
            1
        };
        equal = if a == b { equal + 1 } else { 1 };
        if rising >= 9 || equal >= 9 {
            return true;
        }
    }
    false
}

/// Whether a value names where a secret comes from: a variable, a template, a call, a path.
pub(super) fn is_reference(value: &str) -> bool {
    let first = value.chars().next().unwrap_or(' ');
    matches!(
        first,
        '$' | '<' | '{' | '%' | '(' | '[' | '@' | '&' | '*' | '!' | '/'
    ) || value.starts_with("./")
        || value.starts_with("../")
        || value.starts_with("~/")
        || ["${", "$(", "{{", "%(", "<%", "#{", "::", "->", "()", "://"]
            .iter()
            .any(|part| value.contains(part))
        || REFERENCE_PREFIXES
            .iter()
            .any(|part| value.starts_with(part))
}

const REFERENCE_PREFIXES: [&str; 24] = [
    "process.env",
    "os.environ",
    "os.getenv",
    "env.",
    "ENV[",
    "secrets.",
    "vault:",
    "file:",
    "ssm:",
    "arn:",
    "projects/",
    "op://",
    "self.",
    "this.",
    "config.",
    "settings.",
    "var.",
    "local.",
    "data.",
    "module.",
    "steps.",
    "github.",
    "inputs.",
    "env:",
];

/// Shannon entropy in bits per character.
pub(super) fn entropy_bits(value: &str) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in value.bytes() {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count += 1;
        }
    }
    let total = f64::from(u32::try_from(value.len().max(1)).unwrap_or(u32::MAX));
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f64::from(*count) / total;
            -share * share.log2()
        })
        .sum()
}
