//! What is printed: text for people, JSON for programs, never both on one stream.
//!
//! Text from the server, from git or from an agent is shown with control characters made visible,
//! so that nothing that is reviewed can move the cursor or hide a line.

use std::io::Write as _;

use clap::ValueEnum;
use portcullis_model::Refusal;
use portcullis_model::refusal::visible;
use serde::Serialize;
use serde_json::Value;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON document, or one a line where results stream.
    Json,
}

impl Format {
    /// Prints a result: `text` for people, or `value` as JSON.
    ///
    /// # Errors
    /// The value does not serialise, or standard output is gone.
    pub(crate) fn print<T: Serialize + ?Sized>(
        self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Refusal> {
        match self {
            Self::Text => stdout(text().trim_end_matches('\n')),
            Self::Json => stdout(&pretty(value)?),
        }
    }

    /// Prints one result of many: a line of text, or a line of JSON.
    ///
    /// # Errors
    /// As [`Self::print`].
    pub(crate) fn print_line<T: Serialize + ?Sized>(
        self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Refusal> {
        match self {
            Self::Text => stdout(&text()),
            Self::Json => stdout(&serde_json::to_string(value).map_err(unserialisable)?),
        }
    }

    /// Tells a person something on the way: on standard output, or beside it when that is JSON.
    ///
    /// # Errors
    /// The stream is gone.
    pub(crate) fn tell(self, text: &str) -> Result<(), Refusal> {
        match self {
            Self::Text => stdout(text),
            Self::Json => {
                note(text);
                Ok(())
            }
        }
    }
}

/// Writes to standard output, with a newline.
///
/// # Errors
/// Standard output is gone.
pub(crate) fn stdout(text: &str) -> Result<(), Refusal> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes exact bytes to standard output.
///
/// # Errors
/// Standard output is gone.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Refusal> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        // Whoever reads (`head`, `less`) has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Refusal::unavailable(
            "output-unwritable",
            "standard output can't be written",
        )
        .received(&error.to_string())),
    }
}

/// Tells a person something beside the result. Where standard error is gone nobody listens.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints a refusal, once, at the boundary.
pub(crate) fn print_refusal(format: Format, refusal: &Refusal) {
    match format {
        Format::Text => note(&clean(&format!("portcullis: {refusal}"))),
        Format::Json => match pretty(refusal) {
            Ok(json) => note(&json),
            Err(_) => note(&refusal.message),
        },
    }
}

/// Control characters but newline and tab made visible.
pub(crate) fn clean(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            other => shown.extend(visible(other)),
        }
    }
    shown
}

/// All control characters made visible: what stands in one line.
pub(crate) fn clean_line(text: &str) -> String {
    text.chars().flat_map(visible).collect()
}

fn pretty<T: Serialize + ?Sized>(value: &T) -> Result<String, Refusal> {
    serde_json::to_string_pretty(value).map_err(unserialisable)
}

fn unserialisable(error: serde_json::Error) -> Refusal {
    Refusal::internal(format!("a result does not serialise: {error}"))
}

/// A column of a table: its heading, and where its value stands in an item (RFC 6901 pointers, the
/// first that is there).
pub(crate) struct Column {
    heading: &'static str,
    pointers: &'static [&'static str],
}

/// A column of a table.
pub(crate) const fn column(heading: &'static str, pointers: &'static [&'static str]) -> Column {
    Column { heading, pointers }
}

/// Items as a table for people; columns without any value are left out.
pub(crate) fn table(items: &[Value], columns: &[Column], nothing: &str) -> String {
    if items.is_empty() {
        return nothing.to_owned();
    }
    let cells: Vec<Vec<String>> = columns
        .iter()
        .map(|column| {
            items
                .iter()
                .map(|item| cell(item, column))
                .collect::<Vec<_>>()
        })
        .collect();
    let shown: Vec<(&Column, &Vec<String>, usize)> = columns
        .iter()
        .zip(&cells)
        .filter(|(_, cells)| cells.iter().any(|cell| !cell.is_empty()))
        .map(|(column, cells)| {
            let widest = cells
                .iter()
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0);
            (column, cells, widest.max(column.heading.len()))
        })
        .collect();
    let mut out = String::new();
    let heading: Vec<(&str, usize)> = shown
        .iter()
        .map(|(column, _, width)| (column.heading, *width))
        .collect();
    push_row(&mut out, &heading);
    for row in 0..items.len() {
        let cells: Vec<(&str, usize)> = shown
            .iter()
            .map(|(_, cells, width)| (cells.get(row).map_or("", String::as_str), *width))
            .collect();
        push_row(&mut out, &cells);
    }
    out
}

fn push_row(out: &mut String, cells: &[(&str, usize)]) {
    let line: Vec<String> = cells
        .iter()
        .map(|(cell, width)| format!("{cell:<width$}", width = *width))
        .collect();
    out.push_str(line.join("  ").trim_end());
    out.push('\n');
}

fn cell(item: &Value, column: &Column) -> String {
    column
        .pointers
        .iter()
        .find_map(|pointer| item.pointer(pointer).filter(|value| !value.is_null()))
        .map(scalar)
        .unwrap_or_default()
}

/// Any answer as indented `name: value` lines for people.
pub(crate) fn lines(value: &Value) -> String {
    let mut out = String::new();
    push_lines(&mut out, value, 0);
    out
}

fn push_lines(out: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = clean_line(name);
                match value {
                    Value::Null => {}
                    Value::Object(inner) if inner.is_empty() => {}
                    Value::Array(items) if items.is_empty() => {}
                    Value::String(text) if text.contains('\n') => {
                        out.push_str(&format!("{indent}{name}:\n"));
                        for line in clean(text).lines() {
                            out.push_str(&format!("{indent}  {line}\n"));
                        }
                    }
                    value if is_flat(value) => {
                        out.push_str(&format!("{indent}{name}: {}\n", scalar(value)));
                    }
                    value => {
                        out.push_str(&format!("{indent}{name}:\n"));
                        push_lines(out, value, depth + 1);
                    }
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                if is_flat(item) {
                    out.push_str(&format!("{indent}- {}\n", scalar(item)));
                } else {
                    let mut inner = String::new();
                    push_lines(&mut inner, item, depth + 1);
                    // The first line of an item carries the dash.
                    let at = indent.len();
                    if inner.len() >= at + 2 {
                        inner.replace_range(at..at + 2, "- ");
                    }
                    out.push_str(&inner);
                }
            }
        }
        flat => out.push_str(&format!("{indent}{}\n", scalar(flat))),
    }
}

fn is_flat(value: &Value) -> bool {
    match value {
        Value::Object(_) => false,
        Value::Array(items) => items.iter().all(|item| {
            matches!(
                item,
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)
            )
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(flag) => (if *flag { "yes" } else { "no" }).to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => clean_line(text),
        Value::Array(items) => items.iter().map(scalar).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| format!("{} {}", clean_line(name), scalar(value)))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_leaves_out_what_nobody_has_and_cannot_be_broken_out_of() {
        let items = [
            json!({"id": "a", "name": "x\ny\u{1b}[2J"}),
            json!({"id": "longer"}),
        ];
        let columns = [
            column("ID", &["/id"]),
            column("NAME", &["/title", "/name"]),
            column("NEVER", &["/never"]),
        ];
        assert_eq!(
            table(&items, &columns, "nothing"),
            "ID      NAME\na       x\\u{a}y\\u{1b}[2J\nlonger\n"
        );
        assert_eq!(table(&[], &columns, "nothing"), "nothing");
    }

    #[test]
    fn any_answer_reads_as_lines() {
        let value = json!({
            "id": "run-1",
            "leases": [],
            "paths": ["a", "b"],
            "steps": [{"at": 1, "why": "x"}, {"at": 2}],
            "text": "one\ntwo\u{202e}",
        });
        assert_eq!(
            lines(&value),
            "id: run-1\npaths: a, b\nsteps:\n- at: 1\n  why: x\n- at: 2\ntext:\n  one\n  two\\u{202e}\n"
                .replace("steps:\n- at: 1\n  why: x\n- at: 2", "steps:\n  - at: 1\n    why: x\n  - at: 2")
        );
    }
}
