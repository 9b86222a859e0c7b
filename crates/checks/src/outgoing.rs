//! What is about to leave: looked at for credentials, and for the content of files that must stay.
//!
//! A body is read as text in up to three ways: as it is, with the escapes of JSON undone, since prompts
//! travel as JSON strings, and with those of forms and URLs undone. What is encrypted, compressed or encoded otherwise is not seen; a
//! caller undoes compression first.

use std::collections::{BTreeMap, BTreeSet};

use crate::secrets;

mod messages;
mod rolling;

pub use messages::Messages;
pub use rolling::{Found, HELD_BYTES, Rolling};

/// Shortest line of a kept file that counts, in characters after trimming: shorter ones (braces,
/// `return;`) stand in every file.
const LINE_MIN_CHARS: usize = 12;
/// How many different lines of one file have to be in a body; all, where the file has fewer.
const LINES_NEEDED: usize = 3;
/// Rules that guess by the name of a variable. What an agent reads is full of such names.
const GUESSES: [&str; 2] = ["assigned-secret", "high-entropy-assignment"];

/// Ids of the secret scanner's rules that find something in `body`.
///
/// Rules that only guess by a variable's name are left out: they are for a reviewer to look at,
/// and a program is full of such names.
pub fn secrets(body: &[u8]) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    for text in readings(body) {
        let rules = secrets::scan_line("", 1, &text)
            .into_iter()
            .map(|finding| finding.rule)
            .filter(|rule| !GUESSES.contains(rule) && !rule.contains("assignment"));
        found.extend(rules);
    }
    found
}

/// The files that must stay, as digests of their lines; no content is kept.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    lines: BTreeMap<u64, BTreeSet<usize>>,
    files: Vec<(String, usize)>,
}

impl Kept {
    /// Takes in the files, each with its path.
    pub fn new<'a>(files: impl IntoIterator<Item = (String, &'a [u8])>) -> Self {
        let mut kept = Self::default();
        for (path, content) in files {
            let text = String::from_utf8_lossy(content);
            let mut lines: BTreeSet<u64> = text.lines().filter_map(telling).collect();
            let whole = text.trim();
            if lines.is_empty() && !whole.is_empty() {
                lines.insert(digest(whole));
            }
            let file = kept.files.len();
            kept.files.push((path, lines.len().min(LINES_NEEDED)));
            for line in lines {
                kept.lines.entry(line).or_default().insert(file);
            }
        }
        kept
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Paths of the files whose content is in `body`.
    pub fn found_in(&self, body: &[u8]) -> BTreeSet<String> {
        self.found_after(body, &mut BTreeMap::new())
    }

    /// As [`Self::found_in`], where `seen` are the lines of each file that were seen before.
    fn found_after(
        &self,
        body: &[u8],
        seen: &mut BTreeMap<usize, BTreeSet<u64>>,
    ) -> BTreeSet<String> {
        if self.is_empty() {
            return BTreeSet::new();
        }
        for text in readings(body) {
            for line in text.lines() {
                // A line may stand alone, in quotes, or after a number as in a listing.
                let bare = line.trim().trim_matches(['"', '\'', '`', ',']);
                let numbered = line
                    .trim_start_matches(|c: char| {
                        c.is_ascii_digit() || c.is_whitespace() || "|:+->→".contains(c)
                    })
                    .trim();
                // The first and last line of a text in JSON stand behind and before a quote, the first
                // one of a form's field behind its name.
                let quoted = line.split(['"', '=']).skip(1).map(str::trim);
                for reading in [line.trim(), bare, numbered].into_iter().chain(quoted) {
                    let digest = digest(reading);
                    for file in self.lines.get(&digest).into_iter().flatten() {
                        seen.entry(*file).or_default().insert(digest);
                    }
                }
            }
        }
        self.files
            .iter()
            .enumerate()
            .filter(|(file, (_, needed))| {
                *needed > 0 && seen.get(file).is_some_and(|lines| lines.len() >= *needed)
            })
            .map(|(_, (path, _))| path.clone())
            .collect()
    }
}

/// The digest of a line that says something.
fn telling(line: &str) -> Option<u64> {
    let line = line.trim();
    (line.chars().count() >= LINE_MIN_CHARS).then(|| digest(line))
}

fn digest(line: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    line.hash(&mut hasher);
    hasher.finish()
}

/// The body as text, and once more with the escapes of JSON undone where there are any, and with
/// those of forms.
fn readings(body: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(body).into_owned();
    let unescaped = text.contains('\\').then(|| unescape(&text));
    let decoded = decode(body);
    let further = unescaped.into_iter().chain(decoded);
    std::iter::once(text).chain(further).collect()
}

/// Undoes the percent encoding of URLs, and that of forms, where blanks are `+`; `None` where there
/// is none to undo.
fn decode(body: &[u8]) -> Option<String> {
    if !body.contains(&b'%') {
        return None;
    }
    let mut plain = Vec::with_capacity(body.len());
    let mut found = false;
    let mut rest = body;
    while let [byte, after @ ..] = rest {
        let digit = |at: usize| {
            after
                .get(at)
                .and_then(|byte| char::from(*byte).to_digit(16))
        };
        rest = after;
        plain.push(match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                found = true;
                rest = after.get(2..).unwrap_or_default();
                u8::try_from(high * 16 + low).unwrap_or_default()
            }
            // What separates the fields of a form ends a line.
            (b'&', ..) => b'\n',
            (b'+', ..) => b' ',
            (byte, ..) => *byte,
        });
    }
    found.then(|| String::from_utf8_lossy(&plain).into_owned())
}

/// A text for people and the ledger, without the words that look like secrets: what a program asks
/// for may be named so.
pub fn without_secrets(text: &str) -> String {
    if secrets(text.as_bytes()).is_empty() {
        return text.to_owned();
    }
    let words = text.split(' ').map(|word| {
        if secrets(word.as_bytes()).is_empty() {
            word
        } else {
            "[withheld: it looks like a secret]"
        }
    });
    let text = words.collect::<Vec<_>>().join(" ");
    if secrets(text.as_bytes()).is_empty() {
        text
    } else {
        "[withheld: it looks like a secret]".to_owned()
    }
}

/// Undoes the escapes of JSON strings wherever they stand; anything else stays.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match rest.next() {
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('t') => plain.push('\t'),
            Some('u') => {
                let digits: String = rest.clone().take(4).collect();
                let decoded = u32::from_str_radix(&digits, 16)
                    .ok()
                    .filter(|_| digits.len() == 4);
                if let Some(code) = decoded {
                    rest.nth(3);
                    plain.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                } else {
                    plain.push_str("\\u");
                }
            }
            Some(other) => plain.push(other),
            None => plain.push('\\'),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A token that no scanner of this repository finds in the source.
    fn token() -> String {
        format!("AKIA{}", "QYLPMN5HHHFPZAM2")
    }

    #[test]
    fn credentials_are_seen_through_the_escapes_of_json() {
        let key = token();
        let plain = format!("id={key}\n");
        let nested = format!("{{\"text\":\"\\u0041{} and more\"}}", &key[1..]);
        let query = format!("/x?q=%41{}&n=1", &key[1..]);
        let named = format!("endpoint a model {key}");
        let told = without_secrets(&named);
        assert_eq!(told, "endpoint a model [withheld: it looks like a secret]");
        assert_eq!(
            without_secrets("endpoint a model m-1"),
            "endpoint a model m-1"
        );
        for body in [plain, nested, query, format!("\0\0{key}")] {
            assert!(
                secrets(body.as_bytes()).contains("aws-access-key-id"),
                "{body:?}"
            );
        }
        for harmless in ["", "nothing here", "let password = user.password();"] {
            assert!(secrets(harmless.as_bytes()).is_empty(), "{harmless}");
        }
    }

    /// A text alone in JSON.
    fn in_json(text: &str) -> String {
        let escaped = text.trim().replace('\n', "\\n").replace('"', "\\\"");
        format!("{{\"file\":\"{escaped}\"}}")
    }

    #[test]
    fn a_kept_file_is_seen_in_whatever_form_an_agent_shows_it() {
        let file = b"fn secret_sauce() {\n    let first_step = stir(7);\n    let second_step = bake(9);\n    serve(first_step, second_step)\n}\n";
        let kept = Kept::new([
            ("sauce.rs".to_owned(), &file[..]),
            ("word".to_owned(), b"opensesame\n"),
            ("empty".to_owned(), b""),
        ]);
        let text = String::from_utf8_lossy(file);
        let numbered: String = text
            .lines()
            .enumerate()
            .map(|(at, line)| format!("{:>6}\t{line}\n", at + 1))
            .collect();
        let prompt = format!(
            "{{\"content\":\"look:\\n{}\"}}",
            numbered.replace('\n', "\\n").replace('\t', "\\t")
        );
        let patch: String = text.lines().map(|line| format!("+{line}\n")).collect();
        let bare = in_json(&text);
        let form: String = text
            .bytes()
            .map(|byte| match byte {
                b' ' => "+".to_owned(),
                byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
                byte => format!("%{byte:02X}"),
            })
            .collect();
        let form = format!("a=1&file={form}&b=2");
        for body in [text.into_owned(), numbered, prompt, patch, bare, form] {
            assert_eq!(
                kept.found_in(body.as_bytes()),
                ["sauce.rs".to_owned()].into(),
                "{body}"
            );
        }
        assert_eq!(kept.found_in(b"\"opensesame\""), ["word".to_owned()].into());
        for other in ["}\n", "let first_step = stir(7);\nunrelated", "open sesame"] {
            assert!(kept.found_in(other.as_bytes()).is_empty(), "{other}");
        }
        assert!(Kept::default().found_in(b"anything").is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let kept = Kept::new([("a".to_owned(), &body[..])]);
            let found = kept.found_in(&body);
            prop_assert!(found.len() <= 1);
            let _ = secrets(&body);
        }
    }
}
