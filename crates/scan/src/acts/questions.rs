//! What the tests of a shell script ask of the event, as expressions.

use crate::expr::joined;

/// A test, as far as it is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// An expression of the forge's that says the same.
    Known(String),
    Not(Box<Test>),
    Both(Box<Test>, Box<Test>),
    Either(Box<Test>, Box<Test>),
    /// What a program chose by itself has this label.
    Chosen(String),
    Unknown,
}

impl Test {
    /// The label that must be there where the test holds, or does not.
    pub(super) fn label(&self, holds: bool) -> Option<&str> {
        match self {
            Self::Chosen(label) => holds.then_some(label),
            Self::Not(inner) => inner.label(!holds),
            Self::Both(left, right) if holds => left.label(holds).or_else(|| right.label(holds)),
            Self::Either(left, right) if !holds => left.label(holds).or_else(|| right.label(holds)),
            _ => None,
        }
    }
}

/// What holds where a test holds, and where it does not; `None` where nothing is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) yes: Option<String>,
    pub(super) no: Option<String>,
}

/// Longest command that is taken for a test, in bytes.
const BYTES_MAX: usize = 2_000;

/// Reads the test of an `if`, or the tests in front of a command (`[ … ] || exit`). `set` says
/// whether the script sets a variable by itself.
pub(super) fn question(part: &str, set: &dyn Fn(&str) -> bool) -> Option<Question> {
    if part.len() > BYTES_MAX || !(part.contains('[') || part.contains("grep ")) {
        return None;
    }
    let trimmed = part.trim();
    let branch = ["if ", "elif "]
        .iter()
        .find_map(|word| trimmed.strip_prefix(word));
    let mut elements = elements(branch.unwrap_or(trimmed));
    if branch.is_none() {
        // The last one is what the tests are for.
        elements.pop()?;
    }
    let mut test: Option<Test> = None;
    for (operator, text) in elements {
        let next = element(text, set);
        test = Some(match (test, operator) {
            (None, _) => next,
            (Some(before), "||") => Test::Either(Box::new(before), Box::new(next)),
            (Some(before), _) => Test::Both(Box::new(before), Box::new(next)),
        });
    }
    let test = test?;
    let question = Question {
        yes: implied(&test, true),
        no: implied(&test, false),
    };
    (question.yes.is_some() || question.no.is_some()).then_some(question)
}

/// What is known where a test holds, or where it does not.
pub(super) fn implied(test: &Test, holds: bool) -> Option<String> {
    match test {
        Test::Known(text) if holds => Some(text.clone()),
        Test::Known(text) => Some(format!("!({text})")),
        Test::Not(inner) => implied(inner, !holds),
        Test::Both(left, right) | Test::Either(left, right) => {
            let all = matches!(test, Test::Both(..)) == holds;
            match (implied(left, holds), implied(right, holds)) {
                (Some(left), Some(right)) if all => Some(format!("({left}) && ({right})")),
                (Some(left), Some(right)) => Some(format!("({left}) || ({right})")),
                (Some(one), None) | (None, Some(one)) if all => Some(one),
                _ => None,
            }
        }
        Test::Chosen(_) | Test::Unknown => None,
    }
}

/// The commands of a list, each with the operator in front of it.
fn elements(text: &str) -> Vec<(&'static str, &str)> {
    let mut out = Vec::new();
    let mut from = 0;
    let mut operator = "&&";
    let mut quote = None;
    let mut inside = 0_usize;
    let mut depth = 0_usize;
    let bytes = text.as_bytes();
    for (at, c) in text.char_indices() {
        if at < from {
            continue;
        }
        let next = bytes.get(at + 1).copied();
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') if next == Some(b'[') => inside += 1,
            (None, ']') if next == Some(b']') => inside = inside.saturating_sub(1),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, '&' | '|') if inside == 0 && depth == 0 && next == Some(c as u8) => {
                out.push((operator, text.get(from..at).unwrap_or_default()));
                operator = if c == '|' { "||" } else { "&&" };
                from = at + 2;
            }
            _ => {}
        }
    }
    out.push((operator, text.get(from..).unwrap_or_default()));
    out
}

/// One command of a list as a test.
fn element(text: &str, set: &dyn Fn(&str) -> bool) -> Test {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix("! ") {
        return Test::Not(Box::new(element(rest, set)));
    }
    if let Some(inner) = text
        .strip_prefix("[[ ")
        .and_then(|rest| rest.strip_suffix("]]"))
    {
        return inner_test(inner, set);
    }
    if let Some(inner) = text
        .strip_prefix("[ ")
        .and_then(|rest| rest.strip_suffix(" ]"))
    {
        let inner = inner.replace(" -a ", " && ").replace(" -o ", " || ");
        return inner_test(&inner, set);
    }
    searched(text, set).unwrap_or(Test::Unknown)
}

fn inner_test(text: &str, set: &dyn Fn(&str) -> bool) -> Test {
    // `&&` binds closer than `||` here.
    let mut any: Vec<Vec<Test>> = Vec::new();
    for (operator, part) in elements(text) {
        let part = part.trim();
        let next = match part.strip_prefix("! ") {
            Some(rest) => Test::Not(Box::new(comparison(rest, set))),
            None => comparison(part, set),
        };
        match any.last_mut() {
            Some(all) if operator != "||" => all.push(next),
            _ => any.push(vec![next]),
        }
    }
    let any = any.into_iter().filter_map(|all| joined(all, Test::Both));
    joined(any.collect(), Test::Either).unwrap_or(Test::Unknown)
}

/// `"$AUTHOR" == alice`, and its like.
fn comparison(text: &str, set: &dyn Fn(&str) -> bool) -> Test {
    let sides = |operator: &str| text.split_once(operator);
    let (left, right, equal) = if let Some((left, right)) = sides("=~") {
        return asks(left, set)
            .and_then(|left| pattern(&left, right.trim()))
            .unwrap_or(Test::Unknown);
    } else if let Some((left, right)) = sides("!=") {
        (left, right, false)
    } else if let Some((left, right)) = sides("==").or_else(|| sides(" = ")) {
        (left, right, true)
    } else {
        return Test::Unknown;
    };
    let known = asks(left, set).and_then(|left| {
        let right = right.trim();
        if right.contains('*') {
            return glob(&left, right);
        }
        let right = side(right, set)?;
        Some(Test::Known(format!("{left} == {right}")))
    });
    match known {
        Some(test) if equal => test,
        Some(test) => Test::Not(Box::new(test)),
        None => Test::Unknown,
    }
}

/// A side that tells of the event.
fn asks(text: &str, set: &dyn Fn(&str) -> bool) -> Option<String> {
    side(text, set).filter(|side| side.starts_with("github.") || side.starts_with("env."))
}

/// One side of a comparison as an expression.
fn side(text: &str, set: &dyn Fn(&str) -> bool) -> Option<String> {
    let text = text.trim();
    let bare = text.trim_matches('"');
    if let Some(inner) = bare
        .strip_prefix("${{")
        .and_then(|rest| rest.strip_suffix("}}"))
    {
        let inner = inner.trim();
        let plain = inner.starts_with("github.")
            && inner
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        return plain.then(|| inner.to_owned());
    }
    if let Some(name) = bare.strip_prefix('$') {
        let name = name
            .strip_prefix('{')
            .and_then(|inner| inner.strip_suffix('}'))
            .unwrap_or(name);
        // `${AUTHOR,,}` and `${AUTHOR:-}` are the same for a comparison.
        let name = name.trim_end_matches(",,").trim_end_matches(":-");
        let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !plain {
            return None;
        }
        let known = match name {
            "GITHUB_ACTOR" => "github.actor",
            "GITHUB_REPOSITORY" => "github.repository",
            "GITHUB_REPOSITORY_OWNER" => "github.repository_owner",
            "GITHUB_EVENT_NAME" => "github.event_name",
            "GITHUB_REF" => "github.ref",
            "GITHUB_REF_NAME" => "github.ref_name",
            "GITHUB_HEAD_REF" => "github.head_ref",
            "GITHUB_BASE_REF" => "github.base_ref",
            other => return (!set(other)).then(|| format!("env.{other}")),
        };
        return Some(known.to_owned());
    }
    let literal = text.trim_matches(['"', '\'']);
    let plain = !literal.is_empty()
        && !literal.contains(['$', '*', '?', '\'', '`', '(', '"', '\\'])
        && !literal.contains(char::is_whitespace);
    plain.then(|| format!("'{literal}'"))
}

/// A word of a pattern that stands for itself.
fn literal(text: &str) -> Option<String> {
    let text = text.replace('"', "").replace(['\''], "");
    let plain = text
        .replace("\\[", "[")
        .replace("\\]", "]")
        .replace("\\.", ".")
        .replace("\\-", "-");
    let good = !plain.is_empty()
        && plain.chars().all(|c| {
            c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '[' | ']' | '/' | '.' | ':')
        });
    good.then_some(plain)
}

/// `dependabot*`, `*"[bot]"`.
fn glob(left: &str, right: &str) -> Option<Test> {
    let right = right.replace('"', "");
    let (function, word) = match (right.strip_prefix('*'), right.strip_suffix('*')) {
        (Some(inner), Some(_)) => ("contains", inner.strip_suffix('*')?),
        (Some(end), None) => ("endsWith", end),
        (None, Some(start)) => ("startsWith", start),
        (None, None) => return None,
    };
    let word = literal(word)?;
    Some(Test::Known(format!("{function}({left}, '{word}')")))
}

/// `^(alice|bob)$`, `\[bot\]$`, `^release/`.
fn pattern(left: &str, right: &str) -> Option<Test> {
    let right = right.trim_matches(['"', '\'']);
    let (start, rest) = match right.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, right),
    };
    let rest = rest.trim_end_matches(".*");
    let (end, rest) = match rest.strip_suffix('$').filter(|rest| !rest.ends_with('\\')) {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let list = rest
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'))
        .unwrap_or(rest);
    let mut test: Option<Test> = None;
    for word in list.split('|') {
        let word = literal(word)?;
        let next = Test::Known(match (start, end) {
            (true, true) => format!("{left} == '{word}'"),
            (true, false) => format!("startsWith({left}, '{word}')"),
            (false, true) => format!("endsWith({left}, '{word}')"),
            (false, false) => format!("contains({left}, '{word}')"),
        });
        test = Some(match test {
            None => next,
            Some(before) => Test::Either(Box::new(before), Box::new(next)),
        });
    }
    test
}

/// `echo "alice bob" | grep -qw "$AUTHOR"`: an account that is looked for in a list.
fn searched(text: &str, set: &dyn Fn(&str) -> bool) -> Option<Test> {
    let (list, search) = text.split_once('|')?;
    let search = search.trim().strip_prefix("grep ")?;
    // What is looked for is not to be there, or is counted.
    let turned = |word: &str| {
        word.starts_with("--inv") || word.starts_with("--cou") || word.starts_with("--files-w")
    };
    let mut options = search
        .split_whitespace()
        .filter(|word| word.starts_with('-'));
    if options.any(|word| turned(word) || !word.starts_with("--") && word.contains(['v', 'c', 'L']))
    {
        return None;
    }
    let list = list.trim();
    let list = list
        .strip_prefix("echo ")
        .or_else(|| list.strip_prefix("printf '%s\\n' "))?;
    let wanted = search
        .split_whitespace()
        .rfind(|word| !word.starts_with('-') && !word.starts_with(['>', '2', '&']))?;
    if let Some(list) = asks(list, set) {
        let word = literal(wanted.trim_matches(['"', '\'']))?;
        return Some(Test::Known(format!("contains({list}, '{word}')")));
    }
    let wanted = wanted.replace(['^', '"'], "");
    let wanted = wanted
        .strip_suffix('$')
        .filter(|rest| !rest.is_empty())
        .unwrap_or(&wanted);
    let left = asks(wanted, set)?;
    if list.contains('$') {
        return None;
    }
    let mut test: Option<Test> = None;
    for word in list
        .replace(['"', '\''], " ")
        .split([' ', ',', '|'])
        .filter(|word| !word.is_empty())
    {
        let next = Test::Known(format!("{left} == '{}'", literal(word)?));
        test = Some(match test {
            None => next,
            Some(before) => Test::Either(Box::new(before), Box::new(next)),
        });
    }
    test
}

/// What holds in one arm of a `case`, by its patterns; `None` for an arm that takes anything, or
/// for what is not understood.
pub(super) fn arm(subject: &str, patterns: &str, set: &dyn Fn(&str) -> bool) -> Option<String> {
    let left = asks(subject, set)?;
    let mut test: Option<Test> = None;
    for word in patterns.trim().trim_start_matches('(').split('|') {
        let word = word.trim();
        let next = if word.contains('*') {
            glob(&left, word)?
        } else {
            Test::Known(format!("{left} == '{}'", literal(word)?))
        };
        test = Some(match test {
            None => next,
            Some(before) => Test::Either(Box::new(before), Box::new(next)),
        });
    }
    implied(&test?, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(part: &str) -> (Option<String>, Option<String>) {
        question(part, &|name| name == "OWN").map_or((None, None), |found| (found.yes, found.no))
    }

    #[test]
    fn tests_are_expressions() {
        for (part, yes, no) in [
            ("if [ \"$A\" = x ]", "env.A == 'x'", "!(env.A == 'x')"),
            ("if ! [ \"$A\" = x ]", "!(env.A == 'x')", "env.A == 'x'"),
            ("[[ $A != x ]] && exit 0", "!(env.A == 'x')", "env.A == 'x'"),
            (
                "if [ $A = x ] || [ $A = y ]",
                "(env.A == 'x') || (env.A == 'y')",
                "(!(env.A == 'x')) && (!(env.A == 'y'))",
            ),
            ("if make && [ $A = x ]", "env.A == 'x'", ""),
            (
                "if [[ $A = x || $A = y && $C = z ]]",
                "(env.A == 'x') || ((env.A == 'y') && (env.C == 'z'))",
                "(!(env.A == 'x')) && ((!(env.A == 'y')) || (!(env.C == 'z')))",
            ),
            ("if echo \"$A\" | grep -qv x", "", ""),
            ("if make || [ $A = x ]", "", "!(env.A == 'x')"),
            (
                "if [[ \"$A\" != x && \"$A\" != y ]]",
                "(!(env.A == 'x')) && (!(env.A == 'y'))",
                "(env.A == 'x') || (env.A == 'y')",
            ),
            (
                "if [[ $A =~ ^(x|y)$ ]]",
                "(env.A == 'x') || (env.A == 'y')",
                "(!(env.A == 'x')) && (!(env.A == 'y'))",
            ),
            (
                "if [[ $A =~ \\[bot\\]$ ]]",
                "endsWith(env.A, '[bot]')",
                "!(endsWith(env.A, '[bot]'))",
            ),
            (
                "if [[ $A == dep* ]]",
                "startsWith(env.A, 'dep')",
                "!(startsWith(env.A, 'dep'))",
            ),
            (
                "if echo \"x y\" | grep -qw \"$A\"",
                "(env.A == 'x') || (env.A == 'y')",
                "(!(env.A == 'x')) && (!(env.A == 'y'))",
            ),
            (
                "if echo \"$A\" | grep -q go",
                "contains(env.A, 'go')",
                "!(contains(env.A, 'go'))",
            ),
            ("if [ \"$OWN\" = x ]", "", ""),
            ("if [ x = y ]", "", ""),
            ("if [ -n \"$A\" ]", "", ""),
            ("[ $A = x ]", "", ""),
        ] {
            let found = ask(part);
            let wanted = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            assert_eq!(found, (wanted(yes), wanted(no)), "{part}");
        }
    }

    #[test]
    fn broken_tests_end() {
        for part in [
            "[",
            "[[",
            "if [",
            "if [[ && ]]",
            "&&",
            "|| |",
            "[ $ = ]",
            "if [[ $A =~ ]]",
            "if [[ $A == * ]]",
            "| grep ",
        ] {
            let _ = ask(part);
        }
    }
}
