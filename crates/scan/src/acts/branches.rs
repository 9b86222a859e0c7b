//! The branches of a program in JavaScript, and what holds in them of what the event tells.

use std::collections::HashMap;
use std::ops::Range;

use super::questions::{Test, implied};
use super::reviewed;
use crate::expr::joined;

/// Members of a list that a condition may name.
const MEMBERS_MAX: usize = 200;
/// Lists of one program that are known.
const LISTS_MAX: usize = 64;
/// Longest property of the event that a name stands for.
const PATH_MAX_BYTES: usize = 200;

/// What a program knows under which names; nothing, where a name is given two things.
#[derive(Default)]
pub(super) struct Names {
    /// Properties of the event.
    paths: HashMap<String, String>,
    /// Lists that are written out.
    lists: HashMap<String, Vec<String>>,
}

/// An `if` of a program.
pub(super) struct Branch<'a> {
    pub(super) condition: &'a str,
    /// The lines (from 0) of the condition's beginning and of the body's.
    pub(super) line: usize,
    pub(super) body: Range<usize>,
    pub(super) text: &'a str,
    /// The lines of the `else` behind it.
    pub(super) other: Option<Range<usize>>,
}

impl Names {
    pub(super) fn of(text: &str) -> Self {
        let mut names = Self::default();
        for line in text.lines() {
            names.take(line.trim());
        }
        // What is added to later is not all there.
        names.lists.retain(|name, _| {
            ["push", "add", "unshift", "concat", "splice"]
                .iter()
                .all(|method| !text.contains(&format!("{name}.{method}(")))
        });
        names
    }

    fn take(&mut self, line: &str) {
        // `const { user, labels } = context.payload.pull_request;`
        if let Some((list, value)) = ["const {", "let {", "var {"]
            .iter()
            .find_map(|start| line.strip_prefix(start))
            .and_then(|rest| rest.split_once("} ="))
            && let Some(path) = self.path(value.trim().trim_end_matches(';'))
        {
            for name in list.split(',') {
                let (property, name) = name.split_once(':').unwrap_or((name, name));
                let name = name.split('=').next().unwrap_or(name).trim();
                let path = format!("{path}.{}", property.trim());
                self.name(name.to_owned(), path);
            }
            return;
        }
        let (Some(name), Some((_, value))) = (reviewed::assigned(line), line.split_once('='))
        else {
            return;
        };
        let value = value.trim().trim_end_matches(';').trim();
        if let Some(path) = self.path(value).or_else(|| self.labels(value)) {
            self.name(name, path);
            return;
        }
        let list = value
            .strip_prefix("new Set(")
            .and_then(|rest| rest.strip_suffix(')'))
            .unwrap_or(value);
        let list = (list.starts_with('[') && list.ends_with(']')).then(|| only_texts(list));
        if let Some(list) = list.flatten().filter(|_| self.lists.len() < LISTS_MAX) {
            let known = self.lists.entry(name).or_insert_with(|| list.clone());
            if *known != list {
                known.clear();
            }
        } else {
            // A name that is given something else too stands for nothing that is known.
            if let Some(path) = self.paths.get_mut(&name) {
                path.clear();
            }
            if let Some(list) = self.lists.get_mut(&name) {
                list.clear();
            }
        }
    }

    /// Notes what a name stands for; where it stands for two things, nothing is known of it.
    fn name(&mut self, name: String, mut path: String) {
        if path.len() > PATH_MAX_BYTES {
            path.clear();
        }
        let known = self.paths.entry(name).or_insert_with(|| path.clone());
        if *known != path {
            known.clear();
        }
    }

    /// `pr.labels.map(l => l.name)`.
    fn labels(&self, value: &str) -> Option<String> {
        let (owner, rest) = value.split_once(".map(")?;
        let path = self.path(owner.trim_start_matches('('))?;
        (path.ends_with(".labels") && rest.contains(".name")).then(|| format!("{path}.*.name"))
    }

    /// The property of the event that an expression reads.
    pub(super) fn path(&self, text: &str) -> Option<String> {
        let text = text.trim().replace("?.", ".");
        let text = text
            .trim_end_matches("|| ''")
            .trim_end()
            .trim_end_matches(".toLowerCase()")
            .trim_end_matches(".trim()");
        if text.is_empty()
            || !text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_'))
        {
            return None;
        }
        let (first, rest) = text.split_once('.').unwrap_or((text, ""));
        if let Some(path) = self.paths.get(first).filter(|path| !path.is_empty()) {
            return Some(if rest.is_empty() {
                path.clone()
            } else {
                format!("{path}.{rest}")
            });
        }
        match text {
            "context.actor" => Some("github.actor".to_owned()),
            "context.eventName" => Some("github.event_name".to_owned()),
            "context.ref" => Some("github.ref".to_owned()),
            _ => text
                .strip_prefix("context.payload.")
                .map(|rest| format!("github.event.{rest}"))
                .or_else(|| {
                    text.strip_prefix("process.env.")
                        .map(|name| format!("env.{name}"))
                }),
        }
    }

    fn list(&self, text: &str) -> Option<Vec<String>> {
        let text = text.trim();
        let texts = if text.starts_with('[') {
            only_texts(text)?
        } else {
            self.lists.get(text)?.clone()
        };
        (!texts.is_empty()).then_some(texts)
    }

    /// A condition as a test.
    pub(super) fn test(&self, condition: &str) -> Test {
        /// Deepest brackets that are read.
        const DEPTH_MAX: usize = 16;
        self.test_at(condition, DEPTH_MAX)
    }

    fn test_at(&self, condition: &str, depth: usize) -> Test {
        let text = condition.trim();
        if depth == 0 {
            return Test::Unknown;
        }
        for (operator, either) in [("||", true), ("&&", false)] {
            let parts = split(text, operator);
            if parts.len() > 1 {
                let mut tests = parts.into_iter().map(|part| self.test_at(part, depth - 1));
                let first = tests.next().unwrap_or(Test::Unknown);
                return tests.fold(first, |left, right| {
                    let (left, right) = (Box::new(left), Box::new(right));
                    if either {
                        Test::Either(left, right)
                    } else {
                        Test::Both(left, right)
                    }
                });
            }
        }
        if let Some(inner) = text
            .strip_prefix('!')
            .filter(|inner| !inner.starts_with('='))
        {
            return Test::Not(Box::new(self.test_at(inner, depth - 1)));
        }
        if let Some(inner) = text.strip_prefix('(')
            && let Some((inner, "")) = closed(inner)
        {
            return self.test_at(inner, depth - 1);
        }
        self.atom(text).unwrap_or(Test::Unknown)
    }

    fn atom(&self, text: &str) -> Option<Test> {
        for (operator, equal) in [("!==", false), ("===", true), ("!=", false), ("==", true)] {
            if let [left, right] = split(text, operator).as_slice() {
                let test = self.equal(left, right)?;
                return Some(if equal {
                    test
                } else {
                    Test::Not(Box::new(test))
                });
            }
        }
        if text.contains(['<', '>']) && !text.contains("=>") {
            return None;
        }
        // `list.includes(x)`, `text.includes('x')`, `labels.some(l => l.name === 'x')`.
        if let Some(inner) = text.strip_suffix(')')
            && let Some((owner, method, argument)) = call(inner)
        {
            return self.called(owner, method, argument);
        }
        let path = self.path(text)?;
        [".draft", ".fork", ".merged"]
            .iter()
            .any(|end| path.ends_with(end))
            .then_some(Test::Known(path))
    }

    fn called(&self, owner: &str, method: &str, argument: &str) -> Option<Test> {
        if matches!(method, "some" | "find" | "any") {
            let label = argument
                .contains(".name")
                .then(|| texts_of(argument).into_iter().next())
                .flatten()
                .filter(|_| !argument.contains('!'))?;
            let owner = owner.trim().replace("?.", ".");
            let path = match self.path(&owner) {
                Some(path) if path.ends_with(".labels") => path,
                // A pull request of the program's own choice.
                None if owner.ends_with(".labels") => return Some(Test::Chosen(label)),
                _ => return None,
            };
            return Some(Test::Known(format!("contains({path}.*.name, '{label}')")));
        }
        if !matches!(method, "includes" | "has" | "startsWith" | "endsWith") {
            return None;
        }
        if let Some(word) = quoted(argument) {
            let path = self.path(owner)?;
            let function = match method {
                "startsWith" | "endsWith" => method,
                _ => "contains",
            };
            return Some(Test::Known(format!("{function}({path}, '{word}')")));
        }
        if matches!(method, "startsWith" | "endsWith") {
            return None;
        }
        let path = self.path(argument)?;
        let words = self.list(owner)?;
        if words.len() > MEMBERS_MAX {
            return None;
        }
        let members = words.iter();
        let members = members.map(|word| Test::Known(format!("{path} == '{word}'")));
        joined(members.collect(), Test::Either)
    }

    fn equal(&self, left: &str, right: &str) -> Option<Test> {
        let (left, right) = (left.trim(), right.trim());
        if let Some((list, member)) = left.split_once(".indexOf(") {
            // `list.indexOf(x) === -1`: it is not there.
            let member = member.strip_suffix(')')?;
            let there = self.called(list, "includes", member)?;
            return (right == "-1").then(|| Test::Not(Box::new(there)));
        }
        let (side, other) = if quoted(left).is_some() {
            (right, left)
        } else {
            (left, right)
        };
        if let Some(word) = quoted(other) {
            return match self.path(side) {
                Some(path) => Some(Test::Known(format!("{path} == '{word}'"))),
                // The author of a pull request of the program's own choice.
                None if side.replace("?.", ".").ends_with(".user.login") && is_person(&word) => {
                    Some(Test::Known(format!(
                        "github.event.pull_request.user.login == '{word}'"
                    )))
                }
                None => None,
            };
        }
        let repository = |text: &str| {
            let tight = text.replace([' ', '`'], "");
            matches!(
                tight.as_str(),
                "${context.repo.owner}/${context.repo.repo}"
                    | "${owner}/${repo}"
                    | "process.env.GITHUB_REPOSITORY"
            )
        };
        let path = self.path(side)?;
        if repository(other) {
            return path
                .ends_with("full_name")
                .then(|| Test::Known(format!("{path} == github.repository")));
        }
        let other = self.path(other)?;
        let known = |path: &str| {
            path.ends_with("repo.full_name") || path == "github.event.repository.full_name"
        };
        (known(&path) && known(&other)).then(|| Test::Known(format!("{path} == {other}")))
    }
}

/// Whether a login is that of no app.
fn is_person(login: &str) -> bool {
    let lower = login.to_ascii_lowercase();
    ![
        "bot", "copilot", "renovate", "actions", "claude", "jules", "devin", "cursor", "codex",
        "app/",
    ]
    .iter()
    .any(|mark| lower.contains(mark))
}

/// The labels by which a program chooses what it lands, each with the line from which it does.
pub(super) fn chosen(text: &str) -> Vec<(String, usize)> {
    let mut out = Vec::new();
    let mut lists = false;
    for (index, line) in text.lines().enumerate() {
        lists |= [
            "issues.list",
            "listForRepo",
            "search.issues",
            "issuesAndPullRequests",
        ]
        .iter()
        .any(|mark| line.contains(mark));
        if !lists {
            continue;
        }
        let label = line
            .split_once("labels:")
            .and_then(|(_, rest)| quoted(rest.trim().split([',', '}', ')']).next()?.trim()))
            .or_else(|| {
                let (before, rest) = line.split_once("label:")?;
                let word: String = rest
                    .trim_start_matches('"')
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '/'))
                    .collect();
                (!word.is_empty() && !before.ends_with('-')).then_some(word)
            });
        if let Some(label) = label.filter(|label| !label.contains('$')) {
            out.push((label, index));
            lists = false;
        }
    }
    out
}

/// Every `if` of a program.
pub(super) fn branches(text: &str) -> Vec<Branch<'_>> {
    /// Most that are read.
    const BRANCHES_MAX: usize = 200;
    let mut out = Vec::new();
    let mut from = 0;
    let mut line = 0;
    let mut counted = 0;
    while let Some(at) = text.get(from..).and_then(|rest| rest.find("if (")) {
        let start = from + at;
        from = start + 4;
        let word = text.get(..start).is_some_and(|before| {
            before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.')
        });
        let current = text.get(..start).unwrap_or_default();
        let comment = current
            .rsplit('\n')
            .next()
            .is_some_and(|begun| begun.trim_start().starts_with("//"));
        if word || comment || out.len() >= BRANCHES_MAX {
            continue;
        }
        line += text
            .get(counted..start)
            .unwrap_or_default()
            .matches('\n')
            .count();
        counted = start;
        let Some((condition, rest)) = text.get(from..).and_then(closed) else {
            continue;
        };
        let Some(behind) = text.len().checked_sub(rest.len()) else {
            continue;
        };
        let line_at = |at: usize| {
            line + text
                .get(start..at)
                .unwrap_or_default()
                .matches('\n')
                .count()
        };
        let end = statement_end(text, behind);
        let tail = text.get(end..).unwrap_or_default().trim_start();
        let other = tail.strip_prefix("else").map(|rest| {
            let begun = text.len() - rest.len();
            line_at(begun)..line_at(statement_end(text, begun))
        });
        out.push(Branch {
            condition,
            line,
            body: line_at(behind)..line_at(end),
            text: text.get(behind..end).unwrap_or_default(),
            other,
        });
    }
    out
}

/// Where the statement or block that begins here ends.
fn statement_end(text: &str, from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    let body = rest.trim_start();
    let start = from + rest.len() - body.len();
    if !body.starts_with('{') {
        let length = match body.find([';', '\n']) {
            Some(at) => at + usize::from(body.get(at..).is_some_and(|rest| rest.starts_with(';'))),
            None => body.len(),
        };
        return start + length;
    }
    let mut depth = 0_usize;
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(open), c) if open == c => quote = None,
            (Some('\'' | '"'), '\n') => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"' | '`') => quote = Some(c),
            (None, '{') => depth += 1,
            (None, '}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return start + at + 1;
                }
            }
            _ => {}
        }
    }
    text.len()
}

/// The word by which a branch's own statements leave what stands behind it.
pub(super) fn leaves(body: &str) -> Option<&'static str> {
    let mut depth = 0_usize;
    let mut own = String::new();
    for c in body.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ if depth <= 1 => own.push(c),
            _ => {}
        }
    }
    let words = reviewed::words_of(&own);
    ["return", "continue", "throw", "break"]
        .into_iter()
        .find(|word| words.iter().any(|found| found == word))
        .or_else(|| own.contains("process.exit(").then_some("exit"))
}

/// What holds where a condition does, or does not, as a template.
pub(super) fn template(test: &Test, holds: bool) -> Option<String> {
    implied(test, holds).map(|text| format!("${{{{ {text} }}}}"))
}

/// The parts of a condition between operators that stand in no bracket and no text.
fn split<'a>(text: &'a str, operator: &str) -> Vec<&'a str> {
    let mut out = Vec::new();
    let mut from = 0;
    let mut depth = 0_usize;
    let mut quote = None;
    for (at, c) in text.char_indices() {
        if at < from {
            continue;
        }
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"' | '`') => quote = Some(c),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ if depth == 0
                && text
                    .get(at..)
                    .is_some_and(|rest| rest.starts_with(operator)) =>
            {
                out.push(text.get(from..at).unwrap_or_default());
                from = at + operator.len();
            }
            _ => {}
        }
    }
    out.push(text.get(from..).unwrap_or_default());
    out
}

/// `owner.method(argument`, as its parts.
fn call(text: &str) -> Option<(&str, &str, &str)> {
    let mut depth = 0_usize;
    // The bracket that the call opens is the last one that nothing closes.
    let at = text.char_indices().rev().find_map(|(at, c)| {
        match c {
            ')' => depth += 1,
            '(' if depth == 0 => return Some(at),
            '(' => depth -= 1,
            _ => {}
        }
        None
    })?;
    let (owner, method) = text.get(..at)?.rsplit_once('.')?;
    Some((
        owner.trim_end_matches('?'),
        method,
        text.get(at + 1..)?.trim(),
    ))
}

fn quoted(text: &str) -> Option<String> {
    let text = text.trim();
    let first = text
        .chars()
        .next()
        .filter(|c| matches!(c, '\'' | '"' | '`'))?;
    let inner = text.get(1..)?.strip_suffix(first)?;
    let good = !inner.is_empty() && !inner.contains(['\'', '"', '`', '$', '\\']);
    good.then(|| inner.to_owned())
}

/// The condition that a text starts with, up to its closing bracket, and what follows.
pub(super) fn closed(text: &str) -> Option<(&str, &str)> {
    /// Longest condition, in bytes.
    const BYTES_MAX: usize = 4_000;
    let mut depth = 1_usize;
    let mut quote = None;
    for (index, c) in text.char_indices() {
        if index > BYTES_MAX {
            return None;
        }
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"' | '`') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => {
                depth -= 1;
                if depth == 0 {
                    return Some((text.get(..index)?.trim(), text.get(index + 1..)?));
                }
            }
            _ => {}
        }
    }
    None
}

/// The texts of a list of nothing else.
fn only_texts(list: &str) -> Option<Vec<String>> {
    let between = list.split(['\'', '"']).step_by(2);
    let only = between
        .flat_map(str::chars)
        .all(|c| c.is_whitespace() || matches!(c, ',' | '[' | ']'));
    only.then(|| texts_of(list))
}

fn texts_of(list: &str) -> Vec<String> {
    list.split(['\'', '"'])
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_names_that_may_hold_more_tell_nothing() {
        let text = "const sole = ['a'];\nconst more = ['a', process.argv[2]];\nconst grown = ['a'];\ngrown.push(x);\nlet pr = context.payload.pull_request;\npr = other();\n";
        let names = Names::of(text);
        assert!(names.list("sole").is_some());
        assert!(names.list("more").is_none() && names.list("grown").is_none());
        assert!(names.path("pr.user.login").is_none());
        let far = format!(
            "let a = context.actor;\na = context.payload{};",
            ".b".repeat(200)
        );
        assert!(Names::of(&far).path("a").is_none());
        let many = format!("const people = [{}];", "'a', ".repeat(10_000));
        let names = Names::of(&many);
        assert!(
            names
                .called("people", "includes", "context.actor")
                .is_none()
        );
    }

    #[test]
    fn conditions_are_expressions() {
        let names = Names::of(
            "const pr = context.payload.pull_request;\nconst people = ['a', 'b'];\nconst { user } = pr;\nconst labels = pr.labels.map(l => l.name);",
        );
        for (condition, yes, no) in [
            (
                "user.login === 'a'",
                "github.event.pull_request.user.login == 'a'",
                "!(github.event.pull_request.user.login == 'a')",
            ),
            (
                "people.includes(pr.user.login)",
                "(github.event.pull_request.user.login == 'a') || (github.event.pull_request.user.login == 'b')",
                "(!(github.event.pull_request.user.login == 'a')) && (!(github.event.pull_request.user.login == 'b'))",
            ),
            (
                "pr.user.login !== 'a' && pr.user.login !== 'b'",
                "(!(github.event.pull_request.user.login == 'a')) && (!(github.event.pull_request.user.login == 'b'))",
                "(github.event.pull_request.user.login == 'a') || (github.event.pull_request.user.login == 'b')",
            ),
            (
                "!(context.actor === 'a' || x)",
                "!(github.actor == 'a')",
                "",
            ),
            (
                "labels.includes('go')",
                "contains(github.event.pull_request.labels.*.name, 'go')",
                "!(contains(github.event.pull_request.labels.*.name, 'go'))",
            ),
            (
                "pr.labels.some(l => l.name === 'go')",
                "contains(github.event.pull_request.labels.*.name, 'go')",
                "!(contains(github.event.pull_request.labels.*.name, 'go'))",
            ),
            (
                "pr.head.repo.full_name !== `${context.repo.owner}/${context.repo.repo}`",
                "!(github.event.pull_request.head.repo.full_name == github.repository)",
                "github.event.pull_request.head.repo.full_name == github.repository",
            ),
            (
                "pr.title.startsWith('x')",
                "startsWith(github.event.pull_request.title, 'x')",
                "!(startsWith(github.event.pull_request.title, 'x'))",
            ),
            ("other.state === 'x'", "", ""),
            ("list.length > 0", "", ""),
            ("/a/.test(pr.title)", "", ""),
        ] {
            let test = names.test(condition);
            let wanted = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            assert_eq!(
                (implied(&test, true), implied(&test, false)),
                (wanted(yes), wanted(no)),
                "{condition}"
            );
        }
    }

    #[test]
    fn broken_conditions_end() {
        for text in [
            "if (",
            "if (a",
            "if ()",
            "if (!) {",
            "if ((((",
            "if (a) { '",
            "if (a.includes() {",
            "if (x.some(",
            "if (a) else",
            "if ('",
        ] {
            for branch in branches(text) {
                let _ = Names::default().test(branch.condition);
            }
        }
    }
}
