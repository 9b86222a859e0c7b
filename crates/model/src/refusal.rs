//! The one shape of a "no": for the person a message, for programs a stable code, for both the
//! way forward.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Codes of what a launcher refuses by itself and has recorded.
pub const BY_LAUNCHERS: [&str; 7] = [
    "host-mismatch",
    "not-understood",
    "ambiguous-length",
    "transfer-coding",
    "malformed-host",
    "malformed-request",
    "malformed-request-target",
];

/// What kind of "no" this is. It decides the HTTP status and the exit code; "denied" is not
/// "failed".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// The input cannot be read as what it should be (exit 2, HTTP 400).
    Malformed,
    /// Read and understood, and not allowed (exit 3, HTTP 403).
    Denied,
    /// It would be allowed if a human approved (exit 4, HTTP 403 with the request's id).
    NeedsApproval,
    /// There is no such thing, or the asker may not know of it (exit 1, HTTP 404).
    NotFound,
    /// It clashes with the present state; look again and repeat (exit 1, HTTP 409).
    Conflict,
    /// A named bound was reached (exit 1, HTTP 413 or 429).
    Limit,
    /// We can't do it now, and nothing was granted (exit 1, HTTP 503).
    Unavailable,
    /// A defect of ours (exit 1, HTTP 500).
    Internal,
}

/// A refusal: what was expected, what was received, and what mends it.
///
/// `code` is stable and kebab-case (`task-expired`); programs match on it. `Display` prints the
/// whole for a person, on one line each: message, expected, received, next, rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Kind of "no".
    pub kind: RefusalKind,
    /// Stable code for programs.
    pub code: String,
    /// One sentence for a person.
    pub message: String,
    /// What was expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What came instead, shortened and with control characters made visible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<String>,
    /// The command or setting that mends it, or what to do instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The rule that said no, as `file:line id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// Longest `received` text that a refusal repeats, in characters.
const RECEIVED_MAX_CHARS: usize = 120;

impl Refusal {
    /// A refusal of any kind.
    pub fn new(kind: RefusalKind, code: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            code: code.to_owned(),
            message: message.into(),
            expected: None,
            received: None,
            next: None,
            rule: None,
        }
    }

    /// Input that can't be read as `what`.
    pub fn malformed(what: &str) -> Self {
        let code = format!("malformed-{}", what.replace(' ', "-"));
        Self::new(
            RefusalKind::Malformed,
            &code,
            format!("this is not a valid {what}"),
        )
    }

    /// Understood and not allowed.
    pub fn denied(code: &str, message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Denied, code, message)
    }

    /// No such `what`.
    pub fn not_found(what: &str, id: impl fmt::Display) -> Self {
        Self::new(
            RefusalKind::NotFound,
            &format!("{what}-not-found"),
            format!("there is no {what} {id}"),
        )
    }

    /// A clash with the present state.
    pub fn conflict(code: &str, message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Conflict, code, message)
    }

    /// A named bound was reached.
    pub fn limit(code: &str, message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Limit, code, message)
    }

    /// We can't do it now.
    pub fn unavailable(code: &str, message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Unavailable, code, message)
    }

    /// A defect of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(RefusalKind::Internal, "internal", message)
    }

    /// Says what was expected.
    #[must_use]
    pub fn expected(mut self, text: &str) -> Self {
        self.expected = Some(text.to_owned());
        self
    }

    /// Says what came, shortened, with control characters escaped.
    #[must_use]
    pub fn received(mut self, text: &str) -> Self {
        let mut shown: String = text
            .chars()
            .take(RECEIVED_MAX_CHARS)
            .flat_map(visible)
            .collect();
        if text.chars().count() > RECEIVED_MAX_CHARS {
            shown.push('…');
        }
        self.received = Some(shown);
        self
    }

    /// Says what to do now.
    #[must_use]
    pub fn next(mut self, text: impl Into<String>) -> Self {
        self.next = Some(text.into());
        self
    }

    /// Names the rule that said no.
    #[must_use]
    pub fn rule(mut self, text: impl Into<String>) -> Self {
        self.rule = Some(text.into());
        self
    }
}

/// One character as it may be printed: control and direction-changing characters as escapes.
pub fn visible(character: char) -> impl Iterator<Item = char> {
    let hidden = character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    let (escaped, plain) = if hidden {
        (Some(character.escape_unicode()), None)
    } else {
        (None, Some(character))
    };
    escaped.into_iter().flatten().chain(plain)
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for (label, text) in [
            ("expected", &self.expected),
            ("received", &self.received),
            ("rule", &self.rule),
            ("next", &self.next),
        ] {
            if let Some(text) = text {
                write!(f, "\n  {label}: {text}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_cannot_move_the_cursor_or_flood_the_screen() {
        let refusal =
            Refusal::malformed("task").received(&format!("\u{1b}[2J\u{202e}{}", "x".repeat(500)));
        let text = refusal.to_string();
        assert!(
            !text.contains('\u{1b}') && !text.contains('\u{202e}'),
            "{text}"
        );
        assert!(text.len() < 300, "{text}");
    }
}
