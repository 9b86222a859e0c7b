//! The report as JSON: exactly the types of [`crate::report`].

use crate::Report;

/// The report as indented JSON with a line end.
pub fn render(report: &Report) -> String {
    let mut text = serde_json::to_string_pretty(report).unwrap_or_default();
    text.push('\n');
    text
}
