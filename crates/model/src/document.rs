//! Reading the documents that people write: bounded, strict, and with the nearest known name when
//! a field is misspelt.

use serde::de::DeserializeOwned;

use crate::limits::DOCUMENT_MAX_BYTES;
use crate::refusal::Refusal;

/// Reads a TOML document.
///
/// # Errors
/// It is larger than [`DOCUMENT_MAX_BYTES`], not TOML, or not a `T`; `what` names it.
pub fn from_toml<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, Refusal> {
    check_size(what, text.len())?;
    toml::from_str(text).map_err(|error| {
        let line = error
            .span()
            .and_then(|span| text.get(..span.start))
            .map(|before| format!(" (line {})", before.matches('\n').count() + 1))
            .unwrap_or_default();
        explain(what, error.message(), &line)
    })
}

/// Reads a JSON document.
///
/// # Errors
/// As [`from_toml`].
pub fn from_json<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Refusal> {
    check_size(what, bytes.len())?;
    serde_json::from_slice(bytes).map_err(|error| explain(what, &error.to_string(), ""))
}

fn check_size(what: &str, size: usize) -> Result<(), Refusal> {
    if size > DOCUMENT_MAX_BYTES {
        return Err(
            Refusal::limit("document-too-large", format!("this {what} is too large"))
                .expected(&format!("at most {DOCUMENT_MAX_BYTES} bytes"))
                .received(&format!("{size} bytes")),
        );
    }
    Ok(())
}

/// serde says ``unknown field `x`, expected one of `a`, `b` ``; people want to know which one they
/// meant.
fn explain(what: &str, message: &str, place: &str) -> Refusal {
    let refusal = Refusal::malformed(what).received(&format!("{message}{place}"));
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    match (unknown, quoted.next()) {
        (true, Some(wrong)) => match nearest(wrong, quoted) {
            Some(known) => refusal.next(format!("did you mean `{known}`?")),
            None => refusal,
        },
        _ => refusal,
    }
}

/// The known name that is closest to `wrong` by edit distance, if any is close.
pub fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (distance(wrong, name), name))
        .min()
        .filter(|(distance, name)| *distance <= name.len().max(wrong.len()).div_ceil(2))
        .map(|(_, name)| name)
}

fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, a) in left.chars().enumerate() {
        let mut next = vec![at + 1];
        for (b, pair) in right.iter().zip(row.windows(2)) {
            let [diagonal, above] = pair else { continue };
            let before = next.last().copied().unwrap_or_default();
            next.push(
                (diagonal + usize::from(a != *b))
                    .min(above + 1)
                    .min(before + 1),
            );
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(rename = "purpose")]
        _purpose: String,
        #[serde(rename = "expires", default)]
        _expires: Option<String>,
    }

    #[test]
    fn a_misspelt_field_is_answered_with_the_nearest() {
        let refusal =
            from_toml::<Sample>("agent manifest", "purpose = 'x'\nexpiers = 'y'\n").unwrap_err();
        assert!(
            refusal.to_string().contains("did you mean `expires`?"),
            "{refusal}"
        );
        assert!(refusal.to_string().contains("line 2"), "{refusal}");
    }

    #[test]
    fn a_missing_field_is_named() {
        let refusal = from_toml::<Sample>("agent manifest", "").unwrap_err();
        assert!(refusal.to_string().contains("purpose"), "{refusal}");
    }
}
