//! The one secret scanner of the project: known credential formats, and assignments that look
//! like a credential.
//!
//! How it works: one Aho-Corasick pass over the text finds the fixed words that each rule needs
//! (`ghp_`, `AKIA`, `password`); only then, and only on that line, the rule's regular expression
//! runs, and then its validator (a checksum, a decoded header, an entropy bound). Every step is
//! linear in the text: the `regex` crate never backtracks, and a line is cut into pieces of
//! [`PIECE_MAX_BYTES`].
//!
//! What it does not do: it honours no "allow" comment and no list in the repository, since the
//! author of a change could write it (scrutiny is not the author's). It can't see a secret that is
//! encrypted, compressed or assembled from parts, and it can't know whether a credential is live.
//!
//! A finding never holds the secret: [`SecretFinding::redacted`] shows the public prefix of the
//! format, or the name that was assigned to, and the length.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use regex::Regex;
use serde::{Deserialize, Serialize};

mod assignment;
mod formats;
mod plausible;
#[cfg(test)]
mod tests;

/// Most findings for one text; more would say nothing new.
pub const FINDINGS_MAX: usize = 256;
/// Longest piece of a line that a regular expression sees, in bytes; longer lines are cut into
/// overlapping pieces.
pub const PIECE_MAX_BYTES: usize = 64 * 1024;
/// Overlap of two pieces in bytes: longer than every bounded format, so none is lost in a cut.
const PIECE_OVERLAP_BYTES: usize = 4 * 1024;
/// Most bytes between a private key's header and its first line of content.
const HEADER_MAX_BYTES: usize = 256;
/// How much of a text is looked at for a NUL to call it binary, in bytes; the same as git.
const BINARY_PROBE_BYTES: usize = 8_000;

/// One credential found in a text. It holds nothing of the secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretFinding {
    /// The rule's id, as in [`rules`].
    #[serde(
        serialize_with = "serialize_rule",
        deserialize_with = "deserialize_rule"
    )]
    pub rule: &'static str,
    /// Line, from 1.
    pub line: u32,
    /// Column of the first character of the secret, in characters from 1.
    pub column: u32,
    /// What may be shown: the format's public prefix or the name assigned to, and the length.
    pub redacted: String,
}

/// What a rule is about, for reports and documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretRule {
    /// Stable id, kebab-case.
    pub id: &'static str,
    /// What the rule finds, in a few words.
    pub title: &'static str,
}

/// Every rule, most specific first.
pub fn rules() -> impl Iterator<Item = SecretRule> {
    formats::RULES.iter().map(|rule| SecretRule {
        id: rule.id,
        title: rule.title,
    })
}

/// Scans a whole text. `path` decides only which forms of assignment are read (`.env`, YAML, …
/// have unquoted ones); nothing is opened. A text with a NUL in its first 8,000 bytes is binary
/// and gives no findings. At most [`FINDINGS_MAX`], ordered by line and column.
pub fn scan_text(path: &str, text: &str) -> Vec<SecretFinding> {
    if is_binary(text.as_bytes()) {
        return Vec::new();
    }
    scan(path, text)
}

/// Scans one line by itself; `line` is the number the finding gets. Formats that need the next
/// line as well (a private key after its header) are seen by their first line of content only.
pub fn scan_line(path: &str, line: u32, text: &str) -> Vec<SecretFinding> {
    let mut findings = scan(path, text);
    for finding in &mut findings {
        finding.line = line.saturating_add(finding.line.saturating_sub(1));
    }
    findings
}

/// Scans lines that carry their own numbers, such as the added lines of a diff. Lines that follow
/// each other in `lines` are read together.
pub fn scan_lines<'a>(
    path: &str,
    lines: impl IntoIterator<Item = (u32, &'a str)>,
) -> Vec<SecretFinding> {
    let mut text = String::new();
    let mut numbers = Vec::new();
    for (number, line) in lines {
        // A bare carriage return or line feed inside a line must not shift the numbers.
        for piece in line.split('\n') {
            numbers.push(number);
            text.push_str(piece);
            text.push('\n');
        }
    }
    let mut findings = scan(path, &text);
    for finding in &mut findings {
        let at = usize::try_from(finding.line.saturating_sub(1)).unwrap_or(usize::MAX);
        finding.line = numbers.get(at).copied().unwrap_or(finding.line);
    }
    findings
}

/// Whether git would call this content binary.
pub fn is_binary(bytes: &[u8]) -> bool {
    bytes.iter().take(BINARY_PROBE_BYTES).any(|byte| *byte == 0)
}

/// A rule: the words it needs, the expression, and what makes a match count.
struct Rule {
    id: &'static str,
    title: &'static str,
    /// One of these, in any case, must stand on the line; lower case here.
    words: &'static [&'static str],
    /// Group `s` is the secret; group `n`, if any, is what names it.
    pattern: &'static str,
    check: fn(&Candidate<'_>) -> bool,
}

/// A match before its check.
struct Candidate<'a> {
    path: &'a str,
    /// The whole match.
    whole: &'a str,
    /// The secret part.
    secret: &'a str,
    /// The name it is assigned to, or nothing.
    name: &'a str,
    /// Everything from the secret's start to the end of the text, for formats of several lines.
    rest: &'a str,
}

struct Scanner {
    words: AhoCorasick,
    /// For each word, the index of its rule.
    rule_of_word: Vec<usize>,
    expressions: Vec<Regex>,
}

static SCANNER: LazyLock<Scanner> = LazyLock::new(|| {
    let mut words = Vec::new();
    let mut rule_of_word = Vec::new();
    let mut expressions = Vec::new();
    for (at, rule) in formats::RULES.iter().enumerate() {
        words.extend(rule.words);
        rule_of_word.extend(rule.words.iter().map(|_| at));
        expressions.push(compiled(rule.pattern));
    }
    Scanner {
        words: word_search(&words),
        rule_of_word,
        expressions,
    }
});

#[expect(
    clippy::expect_used,
    reason = "the patterns are constants; a test compiles them all"
)]
fn compiled(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant pattern compiles")
}

#[expect(
    clippy::expect_used,
    reason = "the words are constants; a test builds the automaton"
)]
fn word_search(words: &[&str]) -> AhoCorasick {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::Standard)
        .kind(Some(AhoCorasickKind::DFA))
        .build(words)
        .expect("a few hundred short words build")
}

/// One match, by where its secret stands in the text.
struct Hit {
    rule: usize,
    start: usize,
    end: usize,
    line_start: usize,
    redacted: String,
}

fn scan(path: &str, text: &str) -> Vec<SecretFinding> {
    let mut hits: Vec<Hit> = Vec::new();
    // Per rule, up to where in the text it has been applied, so that many words on one line cost
    // one run of the expression.
    let mut done = vec![0_usize; formats::RULES.len()];
    for found in SCANNER.words.find_overlapping_iter(text) {
        let Some(&at) = SCANNER.rule_of_word.get(found.pattern().as_usize()) else {
            continue;
        };
        let Some(done_to) = done.get_mut(at) else {
            continue;
        };
        if found.start() < *done_to || hits.len() >= FINDINGS_MAX * 4 {
            continue;
        }
        let (start, end) = line_around(text, found.start());
        *done_to = end.saturating_add(1);
        apply(path, text, at, start..end, &mut hits);
    }
    into_findings(text, hits)
}

/// Runs one rule over one line, piece by piece.
fn apply(path: &str, text: &str, at: usize, line: std::ops::Range<usize>, hits: &mut Vec<Hit>) {
    let (Some(rule), Some(expression)) = (formats::RULES.get(at), SCANNER.expressions.get(at))
    else {
        return;
    };
    let mut start = line.start;
    loop {
        let end = floor_boundary(text, line.end.min(start.saturating_add(PIECE_MAX_BYTES)));
        let piece = text.get(start..end).unwrap_or_default();
        for captures in expression.captures_iter(piece) {
            let Some(whole) = captures.get(0) else {
                continue;
            };
            let secret = captures.name("s").unwrap_or(whole);
            let candidate = Candidate {
                path,
                whole: whole.as_str(),
                secret: secret.as_str(),
                name: captures.name("n").map_or("", |name| name.as_str()),
                rest: text.get(start + secret.start()..).unwrap_or_default(),
            };
            if (rule.check)(&candidate) {
                hits.push(Hit {
                    rule: at,
                    start: start + secret.start(),
                    end: start + secret.end(),
                    line_start: line.start,
                    redacted: redact(rule, &candidate),
                });
            }
            if hits.len() >= FINDINGS_MAX * 4 {
                return;
            }
        }
        if end >= line.end || end <= start {
            return;
        }
        start = floor_boundary(text, end.saturating_sub(PIECE_OVERLAP_BYTES).max(start + 1));
    }
}

/// Orders hits, drops what a more specific rule already covers, and gives them lines and columns.
fn into_findings(text: &str, mut hits: Vec<Hit>) -> Vec<SecretFinding> {
    hits.sort_by_key(|hit| (hit.rule, hit.start));
    let mut kept: Vec<Hit> = Vec::new();
    for hit in hits {
        let covered = kept.iter().any(|other| {
            (hit.start < other.end && other.start < hit.end) || is_body_of(&hit, other)
        });
        if !covered {
            kept.push(hit);
        }
    }
    kept.sort_by_key(|hit| hit.start);
    kept.truncate(FINDINGS_MAX);
    let mut line = 1_u32;
    let mut counted_to = 0;
    kept.into_iter()
        .map(|hit| {
            let between = text.get(counted_to..hit.line_start).unwrap_or_default();
            let newlines = between.bytes().filter(|byte| *byte == b'\n').count();
            line = line.saturating_add(u32::try_from(newlines).unwrap_or(u32::MAX));
            counted_to = hit.line_start;
            let before = text
                .get(hit.line_start..hit.start)
                .unwrap_or_default()
                .chars()
                .count();
            SecretFinding {
                rule: formats::RULES
                    .get(hit.rule)
                    .map_or("unknown", |rule| rule.id),
                line,
                column: u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1),
                redacted: hit.redacted,
            }
        })
        .collect()
}

/// Whether `hit` is the first line of the private key whose header is `header`.
fn is_body_of(hit: &Hit, header: &Hit) -> bool {
    let rule = |hit: &Hit| formats::RULES.get(hit.rule).map_or("", |rule| rule.id);
    rule(hit) == "private-key-body"
        && rule(header) == "private-key"
        && hit
            .start
            .checked_sub(header.end)
            .is_some_and(|bytes| bytes <= HEADER_MAX_BYTES)
}

/// What may be shown: the words of the format that every secret of it has, or the name, and how
/// long the secret is.
fn redact(rule: &Rule, candidate: &Candidate<'_>) -> String {
    let length = candidate.secret.chars().count();
    if !candidate.name.is_empty() {
        let name: String = candidate.name.chars().take(40).collect();
        return format!("{name}=… ({length} characters)");
    }
    let lower = candidate.secret.to_ascii_lowercase();
    let prefix = rule
        .words
        .iter()
        .find(|word| lower.starts_with(**word))
        .map_or(0, |w| w.len());
    let shown = candidate.secret.get(..prefix).unwrap_or_default();
    format!("{shown}… ({length} characters)")
}

fn line_around(text: &str, at: usize) -> (usize, usize) {
    let (before, after) = (
        text.get(..at).unwrap_or_default(),
        text.get(at..).unwrap_or_default(),
    );
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let end = after.find('\n').map_or(text.len(), |newline| at + newline);
    (start, end)
}

/// The nearest character boundary at or before `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn serialize_rule<S: serde::Serializer>(
    rule: &&'static str,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(rule)
}

fn deserialize_rule<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<&'static str, D::Error> {
    let id = String::deserialize(deserializer)?;
    rules()
        .find(|rule| rule.id == id)
        .map(|rule| rule.id)
        .ok_or_else(|| serde::de::Error::custom(format!("there is no secret rule {id}")))
}
