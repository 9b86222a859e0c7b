//! Branch and path patterns as GitHub's filters read them.

/// Whether `text` matches `pattern`: `*` within a part, `**` across, `?` makes the character
/// before optional, `+` repeats it, `[…]` is a class.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    /// Most steps before a pattern is given up as not matching.
    const STEPS_MAX: usize = 20_000;
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let mut budget = STEPS_MAX;
    from(&pattern, &text, &mut budget)
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

fn from(pattern: &[char], text: &[char], budget: &mut usize) -> bool {
    if *budget == 0 {
        return false;
    }
    *budget -= 1;
    match pattern {
        [] => text.is_empty(),
        ['*', '*', '/', rest @ ..] if from(rest, text, budget) => true,
        ['*', '*', rest @ ..] => {
            (0..=text.len()).any(|at| from(rest, text.get(at..).unwrap_or_default(), budget))
        }
        ['*', rest @ ..] => {
            for at in 0..=text.len() {
                if from(rest, text.get(at..).unwrap_or_default(), budget) {
                    return true;
                }
                if text.get(at) == Some(&'/') {
                    break;
                }
            }
            false
        }
        ['[', ..] => {
            let Some(end) = pattern.iter().position(|c| *c == ']') else {
                return false;
            };
            let class = pattern.get(1..end).unwrap_or_default();
            let after = pattern.get(end + 1..).unwrap_or_default();
            repeat(after, text, budget, |c| in_class(class, c))
        }
        ['\\', literal, rest @ ..] => {
            text.first() == Some(literal) && from(rest, text.get(1..).unwrap_or_default(), budget)
        }
        [literal, rest @ ..] => {
            let literal = *literal;
            repeat(rest, text, budget, |c| c == literal)
        }
    }
}

/// One character test, with what may follow it in the pattern: `?` or `+`.
fn repeat(after: &[char], text: &[char], budget: &mut usize, fits: impl Fn(char) -> bool) -> bool {
    let one = text.first().is_some_and(|c| fits(*c));
    match after {
        ['?', rest @ ..] => {
            (one && from(rest, text.get(1..).unwrap_or_default(), budget))
                || from(rest, text, budget)
        }
        ['+', rest @ ..] => {
            let most = text.iter().take_while(|c| fits(**c)).count();
            (1..=most).any(|at| from(rest, text.get(at..).unwrap_or_default(), budget))
        }
        rest => one && from(rest, text.get(1..).unwrap_or_default(), budget),
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
        assert!(!matches("main", "maintenance"));
        assert!(any(&["**".to_owned(), "!main".to_owned()], "x"));
        assert!(!any(&["**".to_owned(), "!main".to_owned()], "main"));
    }

    #[test]
    fn a_hostile_pattern_ends() {
        let _ = matches(&"**a".repeat(50), &"a".repeat(2_000));
        assert!(!matches(&"a+".repeat(60), &format!("{}b", "a".repeat(60))));
    }
}
