//! Policy files as text: where each rule begins, what it carries, and problems with their place.

use std::fmt;

use portcullis_model::limits::DOCUMENT_MAX_BYTES;
use serde::{Deserialize, Serialize};

/// Largest rule in bytes; a longer one can't be reviewed.
pub const RULE_MAX_BYTES: usize = 8 * 1024;
/// Deepest nesting of brackets in a rule; deeper is not written by people.
pub const RULE_MAX_DEPTH: usize = 32;
/// Most rules of all layers together: each rule of an action is evaluated at every request.
pub const RULES_MAX: usize = 1_000;

/// Most files of all layers together; a directory of more is no policy.
pub const FILES_MAX: usize = 200;

/// A policy file as it stands in git.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// Its path, as messages name it.
    pub name: String,
    /// What is in it.
    pub text: String,
}

impl PolicyFile {
    /// A file with its path and text.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
        }
    }
}

/// Whose rule it is, from the one that outranks all to the one that may only demand more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// Part of the program.
    Base,
    /// The organisation's.
    Organisation,
    /// The repository's own, from its protected base.
    Repository,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base => "base",
            Self::Organisation => "organisation",
            Self::Repository => "repository",
        })
    }
}

/// Something in a policy file that has to be mended before it loads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub next: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            message,
            next,
        } = self;
        write!(f, "{file}:{line}:{column}: {message}\n    next: {next}")
    }
}

/// One rule's text in its file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RuleText<'a> {
    pub(crate) file: &'a PolicyFile,
    /// Byte offset of the first character that is neither space nor comment.
    pub(crate) start: usize,
    /// From there to the semicolon, inclusive.
    pub(crate) text: &'a str,
}

impl RuleText<'_> {
    /// A problem at a byte offset within the rule.
    pub(crate) fn problem(
        &self,
        offset: usize,
        message: impl Into<String>,
        next: impl Into<String>,
    ) -> Problem {
        problem(self.file, self.start.saturating_add(offset), message, next)
    }

    /// The line on which the rule begins, from 1.
    pub(crate) fn line(&self) -> usize {
        position(&self.file.text, self.start).0
    }
}

/// A problem at a byte offset of a file.
pub(crate) fn problem(
    file: &PolicyFile,
    offset: usize,
    message: impl Into<String>,
    next: impl Into<String>,
) -> Problem {
    let (line, column) = position(&file.text, offset);
    Problem {
        file: file.name.clone(),
        line,
        column,
        message: message.into(),
        next: next.into(),
    }
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = text.get(..end).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}

/// Where the scanner is in the text.
enum Place {
    Code,
    Comment,
    Text { escaped: bool },
}

/// The rules of `file` in order. Cedar ends each with a semicolon, and has none elsewhere outside
/// text and comments.
pub(crate) fn split(file: &PolicyFile) -> Result<Vec<RuleText<'_>>, Problem> {
    if file.text.len() > DOCUMENT_MAX_BYTES {
        return Err(problem(
            file,
            0,
            format!("the file has more than {DOCUMENT_MAX_BYTES} bytes"),
            "Split it into several files.",
        ));
    }
    let mut rules = Vec::new();
    let mut place = Place::Code;
    let mut start = None;
    let mut depth = 0_usize;
    let mut characters = file.text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        place = match place {
            Place::Comment if character == '\n' => Place::Code,
            Place::Comment => Place::Comment,
            Place::Text { escaped: true } => Place::Text { escaped: false },
            Place::Text { escaped: false } => match character {
                '\\' => Place::Text { escaped: true },
                '"' => Place::Code,
                _ => Place::Text { escaped: false },
            },
            Place::Code => {
                if character == '/' && characters.peek().is_some_and(|(_, next)| *next == '/') {
                    place = Place::Comment;
                    continue;
                }
                if !character.is_whitespace() && start.is_none() {
                    start = Some(at);
                }
                match character {
                    '(' | '[' | '{' => depth += 1,
                    ')' | ']' | '}' => depth = depth.saturating_sub(1),
                    ';' => {
                        rules.extend(rule(file, start.take(), at + 1)?);
                        depth = 0;
                    }
                    _ => {}
                }
                if depth > RULE_MAX_DEPTH {
                    return Err(problem(
                        file,
                        at,
                        format!("brackets are nested deeper than {RULE_MAX_DEPTH}"),
                        "Split the rule into several.",
                    ));
                }
                if character == '"' {
                    Place::Text { escaped: false }
                } else {
                    Place::Code
                }
            }
        };
    }
    match start {
        None => Ok(rules),
        Some(start) => Err(problem(
            file,
            start,
            "this rule has no end",
            "End it with `;`, and close every `\"`, `(` and `{`.",
        )),
    }
}

fn rule(
    file: &PolicyFile,
    start: Option<usize>,
    end: usize,
) -> Result<Option<RuleText<'_>>, Problem> {
    let Some(start) = start else { return Ok(None) };
    let text = file.text.get(start..end).unwrap_or_default();
    if text.len() > RULE_MAX_BYTES {
        return Err(problem(
            file,
            start,
            format!("this rule has more than {RULE_MAX_BYTES} bytes"),
            "Split it into several.",
        ));
    }
    Ok(Some(RuleText { file, start, text }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_in_text_and_comments_end_nothing() {
        let file = PolicyFile::new(
            "a.cedar",
            "// a; b\n@id(\"x;\\\";y\") permit(principal,action,resource);\n\n  forbid(principal, // ;\n action,resource);",
        );
        let rules = split(&file).unwrap();
        let lines: Vec<_> = rules.iter().map(RuleText::line).collect();
        assert_eq!(lines, [2, 4]);
        assert!(rules[0].text.starts_with("@id") && rules[0].text.ends_with(';'));
    }

    #[test]
    fn what_never_ends_is_named_with_its_place() {
        let file = PolicyFile::new("a.cedar", "\n  permit(principal, \"; ");
        let problem = split(&file).unwrap_err();
        assert_eq!((problem.line, problem.column), (2, 3));
    }

    #[test]
    fn nesting_and_size_are_bounded() {
        let deep = PolicyFile::new("a.cedar", "(".repeat(RULE_MAX_DEPTH + 1));
        assert!(split(&deep).unwrap_err().message.contains("nested"));
        let long = PolicyFile::new("a.cedar", format!("{};", "x".repeat(RULE_MAX_BYTES)));
        assert!(split(&long).unwrap_err().message.contains("bytes"));
        let huge = PolicyFile::new("a.cedar", " ".repeat(DOCUMENT_MAX_BYTES + 1));
        assert!(split(&huge).is_err());
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(position("aé\nüx", 6), (2, 2));
    }
}
