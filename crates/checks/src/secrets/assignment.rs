//! The generic rule: something called a password, secret, token or key is given a literal value.
//!
//! It is the rule with most look-alikes, so it asks for more: the name must *end* in the word
//! (`token_url` doesn't), the value must be a literal (no variable, template, call or path), and
//! varied enough that a person would not have written it as prose.

use super::Candidate;
use super::plausible::{COMMON_WORDS, entropy_bits, is_placeholder, is_reference};

/// A quoted value, in any language.
pub(super) const QUOTED: &str = concat!(
    r#"(?i)(?P<n>[a-z0-9_.:\-]{0,60}(?:password|passwd|passphrase|pwd|secret|token|credential|"#,
    r#"api[_\-.]?key|access[_\-.]?key|secret[_\-.]?key|private[_\-.]?key|auth[_\-.]?key|"#,
    r#"signing[_\-.]?key|encryption[_\-.]?key|master[_\-.]?key|client[_\-.]?key))"#,
    r#"(?:["'`\]\)]{0,2})\s{0,8}(?::\s{0,4}[a-z&<>'\[\]_ ]{1,24}=|:=|=>|==?|:|,|\()\s{0,8}"#,
    r#"(?:[a-z]{0,2})["'`](?P<s>[^"'`\s]{8,256})["'`]"#
);

/// An unquoted value, in formats that have them.
pub(super) const UNQUOTED: &str = concat!(
    r#"(?i)(?P<n>[a-z0-9_.:\-]{0,60}(?:password|passwd|passphrase|pwd|secret|token|credential|"#,
    r#"api[_\-.]?key|access[_\-.]?key|secret[_\-.]?key|private[_\-.]?key|auth[_\-.]?key|"#,
    r#"signing[_\-.]?key|encryption[_\-.]?key|master[_\-.]?key|client[_\-.]?key))"#,
    r#"\s{0,8}[=:]\s{0,8}(?P<s>[^\s"'`#;,]{8,256})"#
);

/// The words both expressions need.
pub(super) const WORDS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "credential",
    "api_key",
    "api-key",
    "api.key",
    "apikey",
    "access_key",
    "access-key",
    "accesskey",
    "secret_key",
    "private_key",
    "private-key",
    "privatekey",
    "auth_key",
    "auth-key",
    "authkey",
    "signing_key",
    "signing-key",
    "signingkey",
    "encryption_key",
    "encryption-key",
    "encryptionkey",
    "master_key",
    "master-key",
    "masterkey",
    "client_key",
    "client-key",
    "clientkey",
];

pub(super) fn quoted(candidate: &Candidate<'_>) -> bool {
    !is_public_name(candidate.name)
        && !is_generated(candidate.path)
        && is_secret_like(candidate.secret)
}

pub(super) fn unquoted(candidate: &Candidate<'_>) -> bool {
    has_unquoted_values(candidate.path)
        && !is_generated(candidate.path)
        && !candidate.secret.contains('(')
        && !is_public_name(candidate.name)
        && is_secret_like(candidate.secret)
}

/// Names that end in the word and hold nothing secret: resource types (`AWS::IAM::AccessKey`) and
/// the marks that interfaces hand out to continue or to repeat a request (`NextToken`).
fn is_public_name(name: &str) -> bool {
    let plain: String = name.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    let plain = plain.to_ascii_lowercase();
    let lower = name.to_ascii_lowercase();
    let marks = [
        "next",
        "change",
        "request",
        "continuation",
        "purchase",
        "page",
        "output",
        "input",
        "idempotency",
    ];
    lower.trim_start_matches('"').starts_with("aws::")
        || plain
            .strip_suffix("token")
            .is_some_and(|front| marks.iter().any(|mark| front.ends_with(mark)))
}

/// Files whose values need no quotes.
fn has_unquoted_values(path: &str) -> bool {
    let folded = crate::path::fold(path);
    let name = folded.rsplit('/').next().unwrap_or_default();
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    name.starts_with(".env")
        || name.starts_with("dockerfile")
        || name.starts_with(".npmrc")
        || name.starts_with("credentials")
        || matches!(
            extension,
            "env"
                | "ini"
                | "properties"
                | "cfg"
                | "conf"
                | "config"
                | "cnf"
                | "yml"
                | "yaml"
                | "sh"
                | "bash"
                | "zsh"
                | "envrc"
                | "tfvars"
                | "txt"
                | "service"
                | "dockerfile"
        )
}

/// Files that machines write, full of digests under all kinds of names.
fn is_generated(path: &str) -> bool {
    crate::classes::classes(path).contains(crate::classes::FileClass::Lock)
}

/// Whether a literal looks like a credential: no placeholder, no reference, no prose or
/// identifier, and varied.
fn is_secret_like(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    if is_placeholder(value) || is_reference(value) || COMMON_WORDS.contains(&lower.as_str()) {
        return false;
    }
    // Not ASCII: a text for people.
    if !value.is_ascii() || is_words(value) || is_uuid_or_digest_name(value) {
        return false;
    }
    let digit = value.bytes().any(|b| b.is_ascii_digit());
    let letter = value.bytes().any(|b| b.is_ascii_alphabetic());
    let bits = entropy_bits(value);
    // A person's password (`S3cure` and so on) has letters and digits; a random string without a digit
    // has to be longer and more varied to differ from an identifier.
    (digit && letter && bits >= 2.75) || (value.len() >= 24 && bits >= 4.0)
}

/// `my-api-token`, `UserPassword`, `auth.token.name`, `KEY_V2`: words with separators or humps,
/// and at most a short number at the end of a word.
fn is_words(value: &str) -> bool {
    value.split(['-', '_', '.', '/', ':', ' ']).all(|word| {
        let letters = word.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = word.len() - letters.len();
        if number > 2 || letters.bytes().any(|b| !b.is_ascii_alphabetic()) {
            return false;
        }
        // Humps: no more than one capital in four letters, or capitals only.
        let capitals = letters.bytes().filter(u8::is_ascii_uppercase).count();
        let vowels = letters
            .bytes()
            .filter(|b| b"aeiouyAEIOUY".contains(b))
            .count();
        let spoken = letters.len() < 4 || vowels * 6 >= letters.len();
        spoken
            && (capitals == letters.len() || capitals * 4 <= letters.len() + 3)
            && letters.len() <= 24
    })
}

/// A digest that names its algorithm, or a URN: public by nature.
fn is_uuid_or_digest_name(value: &str) -> bool {
    [
        "sha256:", "sha512:", "sha1:", "sha256-", "sha384-", "sha512-", "urn:", "did:", "spiffe:",
    ]
    .iter()
    .any(|prefix| value.starts_with(prefix))
}
