//! Branch and path patterns as GitHub's filters read them.

/// Whether `text` matches `pattern`: `*` within a part, `**` across, `?` makes the character
/// before optional, `+` repeats it, `[…]` is a class.
///
/// All places of the pattern that the text so far can have reached are kept side by side, so the
/// work is at most the product of both lengths, whatever the pattern.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    /// Most steps; a pattern and a text whose product is larger count as not matching.
    const STEPS_MAX: usize = 4_000_000;
    if pattern == "**" {
        return true;
    }
    if !pattern.contains(['*', '?', '+', '[', '\\']) {
        return pattern == text;
    }
    if pattern.len().saturating_mul(text.len()) > STEPS_MAX {
        return false;
    }
    let Some(pieces) = compile(pattern) else {
        return false;
    };
    let mut here = vec![false; pieces.len() + 4];
    reach(&mut here, 0);
    skip(&pieces, &mut here);
    for character in text.chars() {
        let mut next = vec![false; here.len()];
        for (index, piece) in pieces.iter().enumerate() {
            if !here.get(index).copied().unwrap_or_default() || !piece.fits(character) {
                continue;
            }
            if matches!(piece.times, Times::Any | Times::AtLeastOnce) {
                reach(&mut next, index);
            }
            if !matches!(piece.times, Times::Any) {
                reach(&mut next, index + 1);
            }
        }
        skip(&pieces, &mut next);
        here = next;
    }
    here.get(pieces.len()).copied().unwrap_or_default()
}

/// Whether the last pattern that speaks about `text` includes it (`!` excludes).
pub(crate) fn any(patterns: &[String], text: &str) -> bool {
    let mut included = false;
    for pattern in patterns {
        if let Some(excluded) = pattern.strip_prefix('!') {
            if matches(excluded, text) {
                included = false;
            }
        } else if matches(pattern, text) {
            included = true;
        }
    }
    included
}

/// A piece of a pattern.
struct Piece {
    what: What,
    times: Times,
}

enum What {
    /// Any character.
    All,
    /// Any character but `/`.
    InPart,
    Class(Vec<char>),
    One(char),
    /// No character: the next two pieces (`**` and `/`) may be left out together.
    Fork,
}

#[derive(Clone, Copy)]
enum Times {
    Once,
    AtMostOnce,
    AtLeastOnce,
    Any,
}

impl Piece {
    fn fits(&self, character: char) -> bool {
        match &self.what {
            What::All => true,
            What::InPart => character != '/',
            What::Class(class) => in_class(class, character),
            What::One(one) => *one == character,
            What::Fork => false,
        }
    }
}

/// The pieces of a pattern; `None` for a class that never ends.
fn compile(pattern: &str) -> Option<Vec<Piece>> {
    let characters: Vec<char> = pattern.chars().collect();
    let mut rest = characters.as_slice();
    let mut out = Vec::new();
    let mut put = |what, times| out.push(Piece { what, times });
    loop {
        let what = match rest {
            [] => return Some(out),
            ['*', '*', tail @ ..] => {
                if tail.first() == Some(&'/') {
                    put(What::Fork, Times::Once);
                }
                put(What::All, Times::Any);
                rest = tail;
                continue;
            }
            ['*', tail @ ..] => {
                put(What::InPart, Times::Any);
                rest = tail;
                continue;
            }
            ['[', ..] => {
                let end = rest.iter().position(|c| *c == ']')?;
                let class = rest.get(1..end).unwrap_or_default().to_vec();
                rest = rest.get(end + 1..).unwrap_or_default();
                What::Class(class)
            }
            ['\\', literal, tail @ ..] => {
                put(What::One(*literal), Times::Once);
                rest = tail;
                continue;
            }
            [literal, tail @ ..] => {
                rest = tail;
                What::One(*literal)
            }
        };
        let times = match rest {
            ['?', tail @ ..] => {
                rest = tail;
                Times::AtMostOnce
            }
            ['+', tail @ ..] => {
                rest = tail;
                Times::AtLeastOnce
            }
            _ => Times::Once,
        };
        put(what, times);
    }
}

fn reach(places: &mut [bool], index: usize) {
    if let Some(place) = places.get_mut(index) {
        *place = true;
    }
}

/// Adds the places behind pieces that may match nothing. They only lie ahead, so one pass does.
fn skip(pieces: &[Piece], places: &mut [bool]) {
    for (index, piece) in pieces.iter().enumerate() {
        if !places.get(index).copied().unwrap_or_default() {
            continue;
        }
        if matches!(piece.what, What::Fork) {
            reach(places, index + 1);
            reach(places, index + 3);
        } else if matches!(piece.times, Times::Any | Times::AtMostOnce) {
            reach(places, index + 1);
        }
    }
}

fn in_class(class: &[char], c: char) -> bool {
    let mut rest = class;
    while let Some((first, tail)) = rest.split_first() {
        if let ['-', last, after @ ..] = tail {
            if *first <= c && c <= *last {
                return true;
            }
            rest = after;
        } else {
            if *first == c {
                return true;
            }
            rest = tail;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_workflow_filters() {
        assert!(matches("main", "main"));
        assert!(matches("releases/**", "releases/1/2"));
        assert!(!matches("releases/*", "releases/1/2"));
        assert!(matches("v[0-9]+.[0-9]+", "v10.2"));
        assert!(matches("v*", "v1.2.3"));
        assert!(matches("**", "any/thing"));
        assert!(matches("**/x", "x") && matches("**/x", "a/b/x") && !matches("**/x", "ax"));
        assert!(matches("a/**/b", "a/b") && matches("a/**/b", "a/c/d/b"));
        assert!(matches("colou?r", "color") && matches("colou?r", "colour"));
        assert!(matches("ab+c", "abbbc") && !matches("ab+c", "ac"));
        assert!(matches("a\\*b", "a*b") && !matches("a\\*b", "axb"));
        assert!(!matches("[a", "a") && matches("*", "") && !matches("a", ""));
        assert!(!matches("main", "maintenance"));
        assert!(any(&["**".to_owned(), "!main".to_owned()], "x"));
        assert!(!any(&["**".to_owned(), "!main".to_owned()], "main"));
    }

    #[test]
    fn a_hostile_pattern_ends() {
        let _ = matches(&"**a".repeat(50), &"a".repeat(2_000));
        assert!(!matches(&"a+".repeat(60), &format!("{}b", "a".repeat(60))));
        // As long as a file may be: neither deep recursion nor a long wait.
        assert!(!matches(&"x".repeat(30_000), &"**/".repeat(60)));
        assert!(matches(&format!("{}x", "**/".repeat(4_000)), "x"));
        let _ = matches(&"**/".repeat(20_000), &"a/".repeat(20_000));
    }
}
