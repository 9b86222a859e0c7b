//! The expression language of GitHub Actions, evaluated over what is known and what is not.
//!
//! A scan knows some values (the event's name, who acts), can't know others (a setting), and knows
//! of yet others that whoever starts the run chooses them (a comment's text). So a condition has
//! four answers, not two: see [`Truth`].

mod forks;
mod functions;
mod grammar;
mod wishes;

use forks::same_repository;
use functions::call;
pub(crate) use grammar::joined;
use grammar::{Reader, tokens};
pub(crate) use wishes::{compared, literals, pairs, paths};

/// What an expression's value is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    /// The login of a person (or of a machine account) that the files don't name.
    Login,
    /// The login of an app whose token a workflow makes: some `…[bot]`, but none of the public ones.
    App,
    /// The title that a bot of updates gives its pull request: never marked as an agent's.
    UpdateTitle,
    /// Whoever starts the run chooses it, or it is computed in the run: either outcome can happen.
    Open,
    /// A setting outside the files decides it; the text names the fact.
    Fact(String),
}

/// Whether a condition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Truth {
    No,
    Yes,
    /// It can hold without anyone deciding.
    Can,
    /// It holds or not by this fact.
    Depends(String),
}

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr {
    Literal(Value),
    /// `github.event.issue.number`; an index is one more part, `*` for what can't be named.
    Path(String),
    Call(String, Vec<Expr>),
    Not(Box<Expr>),
    Both(Box<Expr>, Box<Expr>),
    Either(Box<Expr>, Box<Expr>),
    Compare(Box<Expr>, Comparison, Box<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// GitLab's `=~`: a pattern between slashes.
    Matches,
    Differs,
}

/// Where an expression finds its values.
pub(crate) trait Scope {
    /// The value of a path, lower-cased.
    fn value(&self, path: &str) -> Value;
    /// Functions about the run so far (`success`, `failure`, `always`, …), and unknown ones.
    fn status(&self, function: &str) -> Value;
}

/// Longest expression that is read, in bytes.
const BYTES_MAX: usize = 21_000;
const DEPTH_MAX: usize = 60;

/// Reads an expression without its `${{ }}`. `None` for what is not one.
pub(crate) fn parse(text: &str) -> Option<Expr> {
    if text.len() > BYTES_MAX {
        return None;
    }
    let tokens = tokens(text)?;
    let mut reader = Reader {
        tokens: &tokens,
        at: 0,
        depth: 0,
    };
    let expr = reader.either()?;
    (reader.at == tokens.len()).then_some(expr)
}

/// Reads the value of an `if:`: braces are optional, and text around braces is always true.
pub(crate) fn parse_condition(text: &str) -> Option<Expr> {
    let trimmed = text.trim();
    if let Some(inner) = trimmed.strip_prefix("${{")
        && let Some(inner) = inner.strip_suffix("}}")
        && !inner.contains("${{")
    {
        return parse(inner);
    }
    if trimmed.contains("${{") {
        // GitHub formats this to a non-empty text, which is true: a well-known trap. But people
        // also write `${{ a }} && ${{ b }}` and mean it; read it as they mean it where that parses.
        let plain = trimmed.replace("${{", "(").replace("}}", ")");
        return parse(&plain).or(Some(Expr::Literal(Value::Bool(true))));
    }
    parse(trimmed)
}

/// A text with `${{ }}` in it: known where every part is known.
pub(crate) fn template(text: &str, scope: &dyn Scope) -> Value {
    let Some(first) = text.find("${{") else {
        return Value::Text(text.to_owned());
    };
    let trimmed = text.trim();
    if let Some(inner) = trimmed.strip_prefix("${{")
        && let Some(inner) = inner.strip_suffix("}}")
        && !inner.contains("${{")
    {
        return parse(inner).map_or(Value::Open, |expr| value(&expr, scope));
    }
    let mut out = text.get(..first).unwrap_or_default().to_owned();
    let mut rest = text.get(first..).unwrap_or_default();
    while let Some(start) = rest.find("${{") {
        out.push_str(rest.get(..start).unwrap_or_default());
        let Some(end) = rest.get(start..).and_then(|tail| tail.find("}}")) else {
            return Value::Open;
        };
        let inner = rest.get(start + 3..start + end).unwrap_or_default();
        let part = parse(inner).map_or(Value::Open, |expr| value(&expr, scope));
        match text_of(&part) {
            Some(part) => out.push_str(&part),
            None => return part,
        }
        rest = rest.get(start + end + 2..).unwrap_or_default();
    }
    out.push_str(rest);
    Value::Text(out)
}

/// Whether a template that is one expression of several parts holds: which of them a fact decides
/// would be lost in a value.
pub(crate) fn compound(text: &str, scope: &dyn Scope) -> Option<Truth> {
    let inner = text.trim().strip_prefix("${{")?.strip_suffix("}}")?;
    let expr = parse(inner).filter(|_| !inner.contains("${{"))?;
    matches!(expr, Expr::Not(_) | Expr::Both(..) | Expr::Either(..)).then(|| truth(&expr, scope))
}

/// Whether an expression holds.
pub(crate) fn truth(expr: &Expr, scope: &dyn Scope) -> Truth {
    match expr {
        Expr::Not(inner) => not(truth(inner, scope)),
        Expr::Both(left, right) => both(truth(left, scope), truth(right, scope)),
        Expr::Either(left, right) => either(truth(left, scope), truth(right, scope)),
        Expr::Literal(_) | Expr::Path(_) | Expr::Call(..) | Expr::Compare(..) => {
            truth_of(&value(expr, scope))
        }
    }
}

pub(crate) fn truth_of(value: &Value) -> Truth {
    let yes = match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(number) => *number != 0.0 && !number.is_nan(),
        Value::Text(text) => !text.is_empty(),
        Value::Login | Value::App | Value::UpdateTitle => true,
        Value::Open => return Truth::Can,
        Value::Fact(fact) => return Truth::Depends(fact.clone()),
    };
    if yes { Truth::Yes } else { Truth::No }
}

pub(crate) fn not(truth: Truth) -> Truth {
    match truth {
        Truth::No => Truth::Yes,
        Truth::Yes => Truth::No,
        Truth::Can => Truth::Can,
        Truth::Depends(fact) => Truth::Depends(fact),
    }
}

pub(crate) fn both(left: Truth, right: Truth) -> Truth {
    match (left, right) {
        (Truth::No, _) | (_, Truth::No) => Truth::No,
        (Truth::Depends(fact), _) | (_, Truth::Depends(fact)) => Truth::Depends(fact),
        (Truth::Can, _) | (_, Truth::Can) => Truth::Can,
        (Truth::Yes, Truth::Yes) => Truth::Yes,
    }
}

pub(crate) fn either(left: Truth, right: Truth) -> Truth {
    match (left, right) {
        (Truth::Yes, _) | (_, Truth::Yes) => Truth::Yes,
        (Truth::Can, _) | (_, Truth::Can) => Truth::Can,
        (Truth::Depends(fact), _) | (_, Truth::Depends(fact)) => Truth::Depends(fact),
        (Truth::No, Truth::No) => Truth::No,
    }
}

/// The value of an expression.
pub(crate) fn value(expr: &Expr, scope: &dyn Scope) -> Value {
    match expr {
        Expr::Literal(value) => value.clone(),
        Expr::Path(path) => scope.value(path),
        Expr::Not(inner) => of_truth(not(truth(inner, scope))),
        Expr::Both(left, right) => {
            let left = value(left, scope);
            match truth_of(&left) {
                Truth::No => left,
                Truth::Yes => value(right, scope),
                Truth::Can | Truth::Depends(_) => {
                    let right = value(right, scope);
                    if truth_of(&right) == Truth::No {
                        right
                    } else {
                        left
                    }
                }
            }
        }
        Expr::Either(first, second) => {
            let left = value(first, scope);
            match truth_of(&left) {
                Truth::Yes => left,
                Truth::No => value(second, scope),
                Truth::Can | Truth::Depends(_) => {
                    let right = value(second, scope);
                    match truth_of(&right) {
                        Truth::Yes if matches!(right, Value::Bool(_)) => right,
                        Truth::Can => Value::Open,
                        Truth::Yes | Truth::No | Truth::Depends(_) => left,
                    }
                }
            }
        }
        Expr::Compare(left, comparison, right) => {
            match (same_repository(left, right, scope), comparison) {
                (Some(same), Comparison::Equal) => Value::Bool(same),
                (Some(same), Comparison::Unequal) => Value::Bool(!same),
                _ => compare(&value(left, scope), *comparison, &value(right, scope)),
            }
        }
        Expr::Call(name, arguments) => call(name, arguments, scope),
    }
}

fn of_truth(truth: Truth) -> Value {
    match truth {
        Truth::No => Value::Bool(false),
        Truth::Yes => Value::Bool(true),
        Truth::Can => Value::Open,
        Truth::Depends(fact) => Value::Fact(fact),
    }
}

/// `[claude]`, `[codex] `: a title that says which agent it is by.
fn is_agents_mark(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    [
        "claude", "codex", "copilot", "jules", "devin", "cursor", "gemini", "opencode", "agent",
        "ai]",
    ]
    .iter()
    .any(|name| lower.contains('[') && lower.contains(name))
}

/// Whether a comparison with a setting holds where nobody set it: `vars.OFF != 'true'`.
fn is_off_by_default(fact: &str, comparison: Comparison, other: &Value) -> bool {
    fact.starts_with("the value of the setting vars.")
        && match (comparison, other) {
            (Comparison::Unequal, Value::Text(text)) => !text.is_empty(),
            (Comparison::Unequal, Value::Bool(yes)) => *yes,
            (Comparison::Equal, Value::Text(text)) => text.is_empty(),
            _ => false,
        }
}

fn compare(left: &Value, comparison: Comparison, right: &Value) -> Value {
    for side in [left, right] {
        if let Value::Fact(fact) = side {
            let other = if std::ptr::eq(side, left) {
                right
            } else {
                left
            };
            if is_off_by_default(fact, comparison, other) {
                return Value::Open;
            }
            return Value::Fact(fact.clone());
        }
    }
    if let (Value::Login, other) | (other, Value::Login) = (left, right) {
        return match (comparison, other) {
            (Comparison::Equal, Value::Text(text)) if is_bot_login(text) => Value::Bool(false),
            (Comparison::Unequal, Value::Text(text)) if is_bot_login(text) => Value::Bool(true),
            (Comparison::Equal, Value::Null) => Value::Bool(false),
            (Comparison::Unequal, Value::Null) => Value::Bool(true),
            _ => Value::Open,
        };
    }
    if let (Value::App, other) | (other, Value::App) = (left, right) {
        let known = match other {
            Value::Text(text) => is_not_an_own_app(text),
            Value::Null => true,
            Value::Bool(_)
            | Value::Number(_)
            | Value::Login
            | Value::App
            | Value::UpdateTitle
            | Value::Open
            | Value::Fact(_) => false,
        };
        return match comparison {
            Comparison::Equal if known => Value::Bool(false),
            Comparison::Unequal if known => Value::Bool(true),
            _ => Value::Open,
        };
    }
    if [left, right]
        .iter()
        .any(|side| matches!(side, Value::Open | Value::UpdateTitle))
    {
        return Value::Open;
    }
    match comparison {
        Comparison::Equal => Value::Bool(equal(left, right)),
        Comparison::Unequal => Value::Bool(!equal(left, right)),
        Comparison::Matches | Comparison::Differs => {
            let (Some(text), Some(pattern)) = (text_of(left), text_of(right)) else {
                return Value::Open;
            };
            match matches_pattern(&text, &pattern) {
                Some(yes) => Value::Bool(yes == (comparison == Comparison::Matches)),
                None => Value::Open,
            }
        }
        Comparison::Less
        | Comparison::LessOrEqual
        | Comparison::Greater
        | Comparison::GreaterOrEqual => {
            let (Some(left), Some(right)) = (number_of(left), number_of(right)) else {
                return Value::Bool(false);
            };
            Value::Bool(match comparison {
                Comparison::Less => left < right,
                Comparison::LessOrEqual => left <= right,
                Comparison::Greater => left > right,
                Comparison::GreaterOrEqual
                | Comparison::Equal
                | Comparison::Unequal
                | Comparison::Matches
                | Comparison::Differs => left >= right,
            })
        }
    }
}

/// Simple patterns only: `/^text$/`, `/text/`, `/^text/`, `/a|b/`. `None` for any other.
fn matches_pattern(text: &str, pattern: &str) -> Option<bool> {
    let inner = pattern.strip_prefix('/')?;
    let end = inner.rfind('/')?;
    let (inner, flags) = inner.split_at(end);
    let (text, inner) = if flags.contains('i') {
        (text.to_lowercase(), inner.to_lowercase())
    } else {
        (text.to_owned(), inner.to_owned())
    };
    let mut found = false;
    for part in inner.split('|') {
        let anchored_start = part.starts_with('^');
        let part = part.strip_prefix('^').unwrap_or(part);
        let anchored_end = part.ends_with('$');
        let part = part.strip_suffix('$').unwrap_or(part);
        let literal = part
            .replace("\\/", "/")
            .replace("\\.", ".")
            .replace("\\-", "-");
        let open_end = literal.ends_with(".*");
        let literal = literal.trim_end_matches(".*");
        if literal.contains(['[', '(', '*', '+', '?', '\\', '{', ')']) {
            return None;
        }
        let end_free = open_end || !anchored_end;
        found |= match (anchored_start, end_free) {
            (true, true) => text.starts_with(literal),
            (true, false) => text == literal,
            (false, true) => text.contains(literal),
            (false, false) => text.ends_with(literal),
        };
    }
    Some(found)
}

fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Text(left), Value::Text(right)) => left.eq_ignore_ascii_case(right),
        (Value::Null, Value::Null) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        _ => match (number_of(left), number_of(right)) {
            (Some(left), Some(right)) => left == right,
            _ => false,
        },
    }
}

/// A value as GitHub converts it to a number; `None` for what is not a number.
fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Null => Some(0.0),
        Value::Bool(yes) => Some(f64::from(u8::from(*yes))),
        Value::Number(number) => Some(*number),
        Value::Text(text) if text.trim().is_empty() => Some(0.0),
        Value::Text(text) => text.trim().parse().ok(),
        Value::Login | Value::App | Value::UpdateTitle | Value::Open | Value::Fact(_) => None,
    }
}

/// Whether a login can't be that of an app of the repository's own: no app's, or a public one's.
fn is_not_an_own_app(login: &str) -> bool {
    !login.to_ascii_lowercase().ends_with("[bot]") || is_public_bot(login)
}

/// Whether a login is that of an app whose tokens no workflow can make.
fn is_public_bot(login: &str) -> bool {
    let lower = login.to_ascii_lowercase();
    [
        "dependabot",
        "renovate",
        "github-actions",
        "pre-commit-ci",
        "copilot",
        "mergify",
        "kodiak",
        "snyk",
        "imgbot",
        "allcontributors",
        "greenkeeper",
        "depfu",
        "pyup",
        "google-labs-jules",
        "coderabbitai",
        "codecov",
        "sonarcloud",
        "claude[bot]",
        "cursor[bot]",
        "devin-ai-integration",
    ]
    .iter()
    .any(|known| lower.starts_with(known))
}

/// Whether a login is surely not a person's.
pub(crate) fn is_bot_login(login: &str) -> bool {
    let lower = login.to_ascii_lowercase();
    lower.ends_with("[bot]")
        || lower == "bot"
        || lower.contains("dependabot")
        || lower.contains("renovate")
        || lower == "copilot"
        || lower == "github-actions"
        || lower == "web-flow"
}

/// A known value as text.
pub(crate) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::Bool(yes) => Some(yes.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Text(text) => Some(text.clone()),
        Value::Login | Value::App | Value::UpdateTitle | Value::Open | Value::Fact(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;
    impl Scope for Fixed {
        fn value(&self, path: &str) -> Value {
            match path {
                "github.actor" => Value::Text("dependabot[bot]".to_owned()),
                "github.event_name" => Value::Text("pull_request".to_owned()),
                "github.event.comment.body" => Value::Open,
                "vars.deploy" => Value::Fact("vars.DEPLOY".to_owned()),
                _ => Value::Null,
            }
        }
        fn status(&self, function: &str) -> Value {
            if function == "always" {
                Value::Bool(true)
            } else {
                Value::Open
            }
        }
    }

    fn check(text: &str) -> Truth {
        truth(&parse_condition(text).unwrap(), &Fixed)
    }

    #[test]
    fn parts_of_groups_and_of_lists_are_read() {
        for text in [
            "(github.event.pull_request || github.event.issue).number",
            "(github.event.issue)['number']",
            "github.event.commits[*].id",
            "contains(github.event.pull_request.labels[*].name, 'a')",
            "github.run_attempt < 1e-5 || github.run_attempt == +1",
        ] {
            assert!(parse_condition(text).is_some(), "{text}");
        }
        assert!(parse_condition("github.event.commits[*.id").is_none());
        let many = format!("{}false", "false || ".repeat(2_000));
        assert_eq!(check(&many), Truth::No);
        assert!(parse_condition(&format!("a{}", " == a".repeat(4_000))).is_none());
    }

    #[test]
    fn known_values_decide() {
        assert_eq!(check("github.actor == 'dependabot[bot]'"), Truth::Yes);
        assert_eq!(check("github.actor != 'Dependabot[bot]'"), Truth::No);
        assert_eq!(check("${{ github.event_name == 'push' }}"), Truth::No);
        assert_eq!(check("!(github.event_name == 'push') && true"), Truth::Yes);
        assert_eq!(check("startsWith(github.actor, 'depend')"), Truth::Yes);
        assert_eq!(
            check("contains(fromJSON('[\"a\",\"dependabot[bot]\"]'), github.actor)"),
            Truth::Yes
        );
        assert_eq!(check("github['actor'] == 'x'"), Truth::No);
        assert_eq!(check("inputs.publish == 'true'"), Truth::No);
        assert_eq!(check("inputs.publish == ''"), Truth::Yes);
        assert_eq!(
            check("github.actor == 'renovate[bot]' || always()"),
            Truth::Yes
        );
    }

    #[test]
    fn what_the_starter_chooses_can_hold_and_what_a_setting_says_depends() {
        assert_eq!(
            check("contains(github.event.comment.body, '/deploy')"),
            Truth::Can
        );
        assert_eq!(
            check("contains(github.event.comment.body, '/deploy') && github.actor == 'x'"),
            Truth::No
        );
        assert_eq!(
            check("vars.DEPLOY == 'yes'"),
            Truth::Depends("vars.DEPLOY".to_owned())
        );
        assert_eq!(check("vars.DEPLOY == 'yes' || true"), Truth::Yes);
    }

    #[test]
    fn a_ternary_gives_its_value() {
        let expr = parse("github.event_name == 'push' && 'main' || 'preview'").unwrap();
        assert_eq!(value(&expr, &Fixed), Value::Text("preview".to_owned()));
    }

    #[test]
    fn text_that_is_no_expression_is_none_and_nothing_overflows() {
        assert_eq!(parse("a b"), None);
        assert_eq!(parse(&"(".repeat(10_000)), None);
        assert_eq!(parse("'open"), None);
    }

    #[test]
    fn gitlab_patterns_are_read_where_they_are_plain() {
        assert_eq!(matches_pattern("v1.2", "/^v/"), Some(true));
        assert_eq!(matches_pattern("main", "/^(main|dev)$/"), None);
        assert_eq!(matches_pattern("main", "/^main$/"), Some(true));
        assert_eq!(matches_pattern("x/main", "/^main$/"), Some(false));
    }
}
