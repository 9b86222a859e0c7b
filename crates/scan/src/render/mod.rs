//! Printing a report.

pub mod html;
pub mod json;
mod layout;
pub mod sarif;
mod style;
pub mod svg;
pub mod text;
mod ways;

/// A step's credential as the end of a sentence.
fn with_credential(credential: &str) -> String {
    match credential {
        "" | "none" => String::new(),
        "its own" => " with its own credential".to_owned(),
        other => format!(" with {other}"),
    }
}

/// Text for XML and HTML, with characters that neither may hold replaced.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' => out.push(' '),
            other
                if other.is_control()
                    || matches!(
                        other,
                        '\u{fffe}' | '\u{ffff}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
                    ) =>
            {
                out.push('\u{fffd}');
            }
            other => out.push(other),
        }
    }
    out
}
