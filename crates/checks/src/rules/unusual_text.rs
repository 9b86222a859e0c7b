//! Text that reads otherwise than it runs, or that nobody can read.

use std::sync::LazyLock;

use regex::Regex;

use super::Rule;
use crate::analyse::{Level, Sink, Subject};
use crate::classes::FileClass;
use crate::path::is_ignorable;

pub(super) const RULES: &[&Rule] = &[
    &BIDI, &INVISIBLE, &CONTROL, &HOMOGLYPH, &LONG_LINE, &ENCODED,
];

const CHECK: &str = "unusual-text";

/// Most bytes of a source line that a person reads; longer ones are generated or minified.
const LINE_MAX_BYTES: usize = 1_000;

const LOOK: &str = "replace it by plain text, or have a person look at the exact characters";

/// A character that changes the direction of text. Example: U+202E in a comment, so that code
/// after it shows elsewhere ("Trojan Source", CVE-2021-42574). Reason: a reviewer sees another
/// program than the compiler.
static BIDI: Rule = Rule {
    id: "bidi-control",
    check: CHECK,
    level: Level::Escalate,
    title: "An added line holds a character that changes the direction of text",
    next: LOOK,
};

/// A character that takes no room. Example: U+200B inside an identifier, or text written in
/// U+E0000 tags. Reason: it makes two names look the same and carries instructions to agents that
/// no person sees.
static INVISIBLE: Rule = Rule {
    id: "invisible-character",
    check: CHECK,
    level: Level::Escalate,
    title: "An added line holds a character that can not be seen",
    next: LOOK,
};

/// A control character. Example: an escape sequence that a terminal obeys, or a carriage return
/// that overwrites what stood before. Reason: what is printed is not what is there.
static CONTROL: Rule = Rule {
    id: "control-character",
    check: CHECK,
    level: Level::Escalate,
    title: "An added line of text holds a control character",
    next: LOOK,
};

/// A word that mixes look-alike letters of several scripts. Example: `аdmin` with a Cyrillic `а`
/// beside `admin`. Reason: two names that look the same are two names.
static HOMOGLYPH: Rule = Rule {
    id: "homoglyph",
    check: CHECK,
    level: Level::Escalate,
    title: "An added word mixes look-alike letters of several scripts",
    next: LOOK,
};

/// A very long line in source. Example: a minified script of 80,000 characters. Reason: nobody
/// reviews it.
static LONG_LINE: Rule = Rule {
    id: "long-line",
    check: CHECK,
    level: Level::Escalate,
    title: "An added line of source is too long to review",
    next: "add the readable source and build the generated form from it, or have a person approve it",
};

/// A long encoded value in source. Example: 600 characters of base64 given to `exec`. Reason: it
/// may be a program.
static ENCODED: Rule = Rule {
    id: "encoded-blob",
    check: CHECK,
    level: Level::Escalate,
    title: "An added line of source holds a long encoded value",
    next: "keep data in data files with a known format, or have a person decode and approve it",
};

/// Shortest run of base64 or hex characters that counts as a blob, in characters: longer than any
/// digest or signature that people write into source.
static BLOB: LazyLock<Regex> =
    LazyLock::new(|| compiled(r"[A-Za-z0-9+/=_-]{300,}|(?:\\x[0-9a-fA-F]{2}){60,}"));

#[expect(
    clippy::expect_used,
    reason = "the pattern is a constant; a test compiles it"
)]
fn compiled(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant pattern compiles")
}

pub(crate) fn check(files: &[Subject<'_>], sink: &mut Sink<'_>) {
    for subject in files.iter().filter(|subject| !subject.file.binary) {
        // One finding per rule and file is enough for a person to look; the first line is named.
        for (rule, find) in FINDERS {
            let first = subject.file.added().find_map(|line| {
                let text = line.text();
                find(subject, line.number, &text).map(|message| (line.number, message))
            });
            if let Some((number, message)) = first {
                sink.file(rule, subject, Some(number), message);
            }
        }
    }
}

type Finder = fn(&Subject<'_>, u32, &str) -> Option<String>;

static FINDERS: [(&Rule, Finder); 6] = [
    (&BIDI, |_, _, text| {
        text.chars()
            .find(|c| is_bidi(*c))
            .map(|c| format!("U+{:04X} changes the direction of text", u32::from(c)))
    }),
    (&INVISIBLE, |_, line, text| invisible(line, text)),
    (&CONTROL, |_, _, text| {
        let control = |c: &char| c.is_control() && !matches!(c, '\t' | '\u{c}');
        text.chars()
            .find(control)
            .map(|c| format!("U+{:04X} is a control character", u32::from(c)))
    }),
    (&HOMOGLYPH, |_, _, text| {
        mixed_word(text)
            .map(|word| format!("{} mixes scripts that look alike", with_code_points(word)))
    }),
    (&LONG_LINE, |subject, _, text| {
        let reviewed = subject.classes.contains(FileClass::Source);
        (reviewed && text.len() > LINE_MAX_BYTES)
            .then(|| format!("{} bytes in one line", text.len()))
    }),
    (&ENCODED, |subject, _, text| {
        let reviewed = subject.classes.contains(FileClass::Source)
            || subject
                .classes
                .contains_any(&[FileClass::Pipeline, FileClass::Packaging]);
        let lock = subject.classes.contains(FileClass::Lock);
        let blob = BLOB.find(text).filter(|_| reviewed && !lock)?;
        Some(format!("an encoded value of {} characters", blob.len()))
    }),
];

fn is_bidi(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// An ignorable character that is no control, no direction mark, no byte order mark at the
/// beginning of a file, and no part of an emoji.
fn invisible(line: u32, text: &str) -> Option<String> {
    let mut before = None;
    for (at, c) in text.chars().enumerate() {
        let mark = line == 1 && at == 0 && c == '\u{feff}';
        let emoji = matches!(c, '\u{200d}' | '\u{fe0e}' | '\u{fe0f}')
            && before.is_some_and(|before: char| is_pictographic(before));
        let found = is_ignorable(c) && !c.is_control() && !is_bidi(c);
        if found && !mark && !emoji {
            return Some(format!("U+{:04X} can not be seen", u32::from(c)));
        }
        before = Some(c);
    }
    None
}

fn is_pictographic(c: char) -> bool {
    matches!(c, '\u{a9}' | '\u{ae}' | '\u{203c}'..='\u{3299}' | '\u{1f000}'..='\u{1faff}' | '\u{fe0f}' | '0'..='9' | '#' | '*')
}

/// The first word that has Latin letters and letters of another script that look like Latin.
pub(super) fn mixed_word(text: &str) -> Option<&str> {
    if text.is_ascii() {
        return None;
    }
    text.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .find(|word| {
            let latin = word.chars().any(|c| c.is_ascii_alphabetic());
            (latin && word.chars().any(is_look_alike)) || word.chars().any(is_styled_latin)
        })
}

/// Letters of other scripts that a reader takes for Latin.
fn is_look_alike(c: char) -> bool {
    matches!(c,
        // Cyrillic and its extensions, Armenian, Cherokee, Lisu.
        '\u{400}'..='\u{52f}' | '\u{1c80}'..='\u{1c8f}' | '\u{531}'..='\u{587}'
        | '\u{13a0}'..='\u{13ff}' | '\u{ab70}'..='\u{abbf}' | '\u{a4d0}'..='\u{a4ff}'
        // The Greek letters that look like Latin; others are usual in formulas.
        | 'Α' | 'Β' | 'Ε' | 'Ζ' | 'Η' | 'Ι' | 'Κ' | 'Μ' | 'Ν' | 'Ο' | 'Ρ' | 'Τ' | 'Υ' | 'Χ'
        | 'ο' | 'ι' | 'κ' | 'ν' | 'υ' | 'ρ' | 'χ' | 'ϲ' | 'ϳ'
        // Dotless i, Latin alpha, iota and script letters, small capitals.
        | 'ı' | 'ɑ' | 'ɡ' | 'ɩ' | 'ʏ' | 'ᴀ'..='ᴢ')
}

/// Latin letters in another dress: full width and mathematical.
fn is_styled_latin(c: char) -> bool {
    matches!(c, '\u{ff21}'..='\u{ff3a}' | '\u{ff41}'..='\u{ff5a}' | '\u{1d400}'..='\u{1d7ff}')
}

/// A word with every character that isn't ASCII written as its code point.
fn with_code_points(word: &str) -> String {
    word.chars()
        .take(60)
        .map(|c| {
            if c.is_ascii() {
                c.to_string()
            } else {
                format!("\\u{{{:x}}}", u32::from(c))
            }
        })
        .collect()
}
