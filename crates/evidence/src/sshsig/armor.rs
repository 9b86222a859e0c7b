//! OpenSSH's armor: a header line, base64 in lines, a footer line.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use portcullis_model::Refusal;

use super::ARMOR_MAX_BYTES;

/// Characters per line, as OpenSSH writes them.
const LINE_CHARS: usize = 70;

/// The bytes within `-----BEGIN {label}-----`; `what` names the thing in refusals.
pub(super) fn decode(label: &str, what: &str, text: &[u8]) -> Result<Vec<u8>, Refusal> {
    let malformed = |received: &str| {
        Refusal::malformed(what)
            .expected(&format!("`-----BEGIN {label}-----`, base64, its END line"))
            .received(received)
    };
    if text.len() > ARMOR_MAX_BYTES {
        return Err(malformed("a file that is too large"));
    }
    let text = std::str::from_utf8(text).map_err(|_| malformed("bytes that aren't text"))?;
    let mut lines = text.trim_end().lines();
    let first = lines.next().unwrap_or_default();
    if first != format!("-----BEGIN {label}-----") {
        // Only a header of the same kind is shown: anything else might be a secret.
        let shown = if first.starts_with("-----BEGIN ") {
            first
        } else {
            "a file without that first line"
        };
        return Err(malformed(shown));
    }
    if lines.next_back() != Some(&format!("-----END {label}-----")) {
        return Err(malformed("a file that ends without its END line"));
    }
    let base64: String = lines.collect();
    STANDARD
        .decode(base64)
        .map_err(|_| malformed("base64 that does not decode"))
}

/// Armored text with a final line end.
pub(super) fn encode(label: &str, bytes: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    let base64 = STANDARD.encode(bytes);
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, others) = rest.split_at_checked(LINE_CHARS).unwrap_or((rest, ""));
        text.push_str(line);
        text.push('\n');
        rest = others;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}
