//! Reading Rust source just well enough to see which words its code uses.

use crate::workspace;

/// A word or punctuation mark of code, and the line it stands on, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// The code of a file without comments, literals and `#[cfg(test)]` items.
pub(crate) fn code(text: &str) -> Vec<Token> {
    without_tests(&tokens(text))
}

/// Words and marks, comments and literals left out. `::` is one mark.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut index = 0;
    while index < chars.len() {
        let start = index;
        let current = at(index);
        if current == '/' && at(index + 1) == '/' {
            while index < chars.len() && at(index) != '\n' {
                index += 1;
            }
        } else if current == '/' && at(index + 1) == '*' {
            index = after_block_comment(&chars, index);
        } else if let Some(end) = after_raw_string(&chars, index) {
            index = end;
        } else if current == '"' {
            index = after_string(&chars, index);
        } else if current == '\'' {
            index = after_quote(&chars, index);
        } else if is_word(current) {
            while is_word(at(index)) {
                index += 1;
            }
            let word: String = chars.iter().skip(start).take(index - start).collect();
            tokens.push(Token { text: word, line });
        } else {
            let double = current == ':' && at(index + 1) == ':';
            index += if double { 2 } else { 1 };
            if !current.is_whitespace() {
                let text = match double {
                    true => "::".to_owned(),
                    false => current.to_string(),
                };
                tokens.push(Token { text, line });
            }
        }
        line += chars
            .iter()
            .skip(start)
            .take(index - start)
            .filter(|passed| **passed == '\n')
            .count();
    }
    tokens
}

const fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn after_block_comment(chars: &[char], mut index: usize) -> usize {
    let mut depth = 0;
    while index < chars.len() {
        match (chars.get(index), chars.get(index + 1)) {
            (Some('/'), Some('*')) => {
                depth += 1;
                index += 2;
            }
            (Some('*'), Some('/')) => {
                depth -= 1;
                index += 2;
                if depth == 0 {
                    return index;
                }
            }
            _ => index += 1,
        }
    }
    index
}

/// The end of `r"…"`, `r#"…"#`, `br"…"` or `cr"…"` at `index`, if one begins there.
fn after_raw_string(chars: &[char], index: usize) -> Option<usize> {
    let before = index
        .checked_sub(1)
        .and_then(|before| chars.get(before))
        .is_some_and(|before| is_word(*before));
    let mut at = index;
    if matches!(chars.get(at), Some('b' | 'c')) {
        at += 1;
    }
    if before || chars.get(at) != Some(&'r') {
        return None;
    }
    at += 1;
    let hashes = chars
        .iter()
        .skip(at)
        .take_while(|passed| **passed == '#')
        .count();
    at += hashes;
    if chars.get(at) != Some(&'"') {
        return None;
    }
    at += 1;
    while at < chars.len() {
        let closed = chars.get(at) == Some(&'"')
            && chars
                .iter()
                .skip(at + 1)
                .take_while(|passed| **passed == '#')
                .count()
                >= hashes;
        at += 1;
        if closed {
            return Some(at + hashes);
        }
    }
    Some(at)
}

fn after_string(chars: &[char], mut index: usize) -> usize {
    index += 1;
    while index < chars.len() {
        match chars.get(index) {
            Some('\\') => index += 2,
            Some('"') => return index + 1,
            _ => index += 1,
        }
    }
    index
}

/// The end of a character literal, or the place after the quote of a lifetime.
fn after_quote(chars: &[char], index: usize) -> usize {
    match (chars.get(index + 1), chars.get(index + 2)) {
        (Some('\\'), _) => {
            let mut at = index + 3;
            while at < chars.len() && chars.get(at) != Some(&'\'') {
                at += 1;
            }
            at + 1
        }
        (Some(_), Some('\'')) => index + 3,
        _ => index + 1,
    }
}

/// Leaves out items under `#[cfg(test)]`: a `mod tests;`, a function, or a block in braces.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        let here = tokens.get(index..index + mark.len()).unwrap_or_default();
        let marked = here.len() == mark.len()
            && here
                .iter()
                .zip(mark)
                .all(|(token, text)| token.text == text);
        if marked {
            index = after_item(tokens, index + mark.len());
        } else {
            kept.push(token.clone());
            index += 1;
        }
    }
    kept
}

/// The place after the item at `index`: after its `;`, or after its braces.
fn after_item(tokens: &[Token], mut index: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(token) = tokens.get(index) {
        index += 1;
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return index;
                }
            }
            ";" if depth == 0 => return index,
            _ => {}
        }
    }
    index
}

/// Files of crates whose documentation holds Rust code that `cargo test --doc` would run.
pub(crate) fn doc_tests() -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for name in workspace::files()? {
        let library =
            name.starts_with("crates/") && name.contains("/src/") && name.ends_with(".rs");
        if library && workspace::text(&name)?.is_some_and(|text| holds_doc_test(&text)) {
            found.push(name);
        }
    }
    Ok(found)
}

fn holds_doc_test(text: &str) -> bool {
    let mut open = false;
    for line in text.lines().map(str::trim_start) {
        let Some(doc) = line
            .strip_prefix("///")
            .or_else(|| line.strip_prefix("//!"))
        else {
            open = false;
            continue;
        };
        if let Some(language) = doc.trim_start().strip_prefix("```") {
            let words = ["rust", "no_run", "should_panic", "compile_fail", "edition"];
            if !open
                && (language.trim().is_empty()
                    || words.iter().any(|word| language.starts_with(word)))
            {
                return true;
            }
            open = !open;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        code(text).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        let text = "// a\nlet b = \"c \\\" d\"; /* e /* f */ g */ r#\"h \" i\"# 'j' '\\n' b\"k\" l";
        assert_eq!(words(text), ["let", "b", "=", ";", "b", "l"]);
    }

    #[test]
    fn a_lifetime_does_not_swallow_what_follows() {
        assert_eq!(
            words("fn a<'b>(c: &'b d)"),
            ["fn", "a", "<", "b", ">", "(", "c", ":", "&", "b", "d", ")"]
        );
    }

    #[test]
    fn items_of_tests_are_left_out_and_what_follows_them_is_not() {
        let text = "a; #[cfg(test)] mod tests { fn b() { c {} } } d; #[cfg(test)] mod e; f";
        assert_eq!(words(text), ["a", ";", "d", ";", "f"]);
        assert_eq!(words("#[cfg(unix)] mod g;").len(), 10);
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let tokens = tokens("a /*\n\n*/ b \"\n\" c\n// x\nd");
        let lines: Vec<usize> = tokens.iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 3, 4, 6]);
    }

    #[test]
    fn a_doc_test_is_told_from_an_example_in_another_language() {
        assert!(holds_doc_test("/// ```\n/// assert!(true);\n/// ```"));
        assert!(holds_doc_test("//! ```no_run\n//! x\n//! ```"));
        assert!(!holds_doc_test("//! ```text\n//! x\n//! ```"));
        assert!(!holds_doc_test("//! ```toml\n//! x\n//! ```\nfn a() {}"));
    }
}
