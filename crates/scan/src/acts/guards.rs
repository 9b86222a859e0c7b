//! Tests of a script on what the event tells, as conditions of what stands behind them: who opened
//! the pull request, from which repository, which event it is.

use std::collections::HashMap;
use std::ops::Range;

use super::reviewed;
use super::walk::{Asks, walk};

/// Most questions of one script that are followed.
const QUESTIONS_MAX: usize = 8;

/// A comparison in a shell's test: both sides as expressions.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Question {
    left: String,
    right: String,
}

/// What a script does only under conditions: templates, each with the lines (from 0) of what it is
/// about.
pub(super) fn of_script(text: &str) -> Vec<(String, Vec<usize>)> {
    if !text.contains(']') || text.len() > 128 * 1024 {
        return Vec::new();
    }
    let mut questions: Vec<Question> = Vec::new();
    for line in text.lines() {
        for part in line.split(';') {
            if let Some((question, _)) = question(part)
                && !questions.contains(&question)
                && questions.len() < QUESTIONS_MAX
                && !is_set(text, &question)
            {
                questions.push(question);
            }
        }
    }
    questions
        .into_iter()
        .flat_map(|asked| [(asked.clone(), true), (asked, false)])
        .filter_map(|(asked, same)| {
            let test = |part: &str| {
                let (found, equal) = question(part)?;
                (found == asked).then_some(equal == same)
            };
            let mut lines = Vec::new();
            let asks = Asks {
                test: &test,
                selected: &|_| false,
                chooses: &|_| false,
                arm: "",
            };
            walk(text, &asks, |_, yes, line| {
                if yes {
                    lines.push(line);
                }
            });
            let operator = if same { "==" } else { "!=" };
            let condition = format!("${{{{ {} {operator} {} }}}}", asked.left, asked.right);
            (!lines.is_empty()).then_some((condition, lines))
        })
        .collect()
}

/// Whether a script sets what a question is about by itself.
fn is_set(text: &str, question: &Question) -> bool {
    [&question.left, &question.right].iter().any(|side| {
        let Some(name) = side.strip_prefix("env.") else {
            return false;
        };
        text.lines().any(|line| {
            let line = line.trim();
            line.contains(&format!("{name}="))
                || line.starts_with("read ")
                || line.contains(" read ")
                    && reviewed::words_of(line).iter().any(|word| word == name)
                || line.starts_with("for ") && line.contains(&format!("for {name} "))
        })
    })
}

/// A comparison that stands alone in a test, and whether the test holds where both are the same.
fn question(part: &str) -> Option<(Question, bool)> {
    let start = part.find('[')?;
    let before = part.get(..start)?.trim();
    let negated = before.ends_with('!');
    if !matches!(
        before.trim_end_matches('!').trim(),
        "" | "if" | "elif" | "then" | "do" | "else"
    ) {
        return None;
    }
    let test = part.get(start..)?.trim_start_matches('[');
    let end = test.find("]]").or_else(|| test.find(" ]"))?;
    let (test, rest) = (test.get(..end)?.trim(), test.get(end + 2..)?);
    // A branch that another test opens too.
    let branch = before.starts_with("if") || before.starts_with("elif");
    if branch && (rest.contains("||") || rest.contains("&&")) || rest.contains(" [") {
        return None;
    }
    if test.contains("&&") || test.contains("||") || test.contains(" -a ") || test.contains(" -o ")
    {
        return None;
    }
    let (left, right, equal) = if let Some((left, right)) = test.split_once("!=") {
        (left, right, false)
    } else if let Some((left, right)) = test.split_once("==") {
        (left, right, true)
    } else {
        let (left, right) = test.split_once(" = ")?;
        (left, right, true)
    };
    let question = Question {
        left: side(left)?,
        right: side(right)?,
    };
    // Two texts, or patterns, tell nothing.
    let tells = question.left.starts_with("github.") || question.left.starts_with("env.");
    tells.then_some((question, equal != negated))
}

/// One side of a comparison as an expression.
fn side(text: &str) -> Option<String> {
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
            other => return Some(format!("env.{other}")),
        };
        return Some(known.to_owned());
    }
    let literal = text.trim_matches(['"', '\'']);
    let plain = !literal.is_empty()
        && !literal.contains(['$', '*', '?', '\'', '`', '(', '"', '\\'])
        && !literal.contains(char::is_whitespace);
    plain.then(|| format!("'{literal}'"))
}

/// A template, and the lines (from 0) between which it counts.
pub(super) type Condition = (String, Range<usize>);

/// What a program does only under conditions, by the stops at its beginning: templates, with the
/// lines (from 0) between which they count. Lists that are not written out are told apart.
pub(super) fn of_program(text: &str) -> (Vec<Condition>, Option<Range<usize>>) {
    let lines: Vec<&str> = text.lines().collect();
    let mut names: HashMap<String, String> = HashMap::new();
    let mut lists: HashMap<String, Vec<String>> = HashMap::new();
    let mut functions: Option<Functions> = None;
    let mut out = Vec::new();
    let mut by_list = None;
    for (index, line) in lines.iter().enumerate() {
        let plain = line.trim();
        if let Some(name) = reviewed::assigned(plain)
            && let Some((_, value)) = plain.split_once('=')
        {
            let value = value.trim().trim_end_matches(';');
            if let Some(path) = event_path(value, &names) {
                names.entry(name.clone()).or_insert(path);
            } else if value.starts_with('[') && value.ends_with(']') {
                lists.entry(name).or_insert_with(|| texts_of(value));
            }
            continue;
        }
        let Some(rest) = plain.strip_prefix("if (") else {
            continue;
        };
        let Some((condition, tail)) = closed(rest) else {
            continue;
        };
        let body = format!(
            "{tail} {}",
            lines
                .get(index + 1..(index + 6).min(lines.len()))
                .unwrap_or_default()
                .iter()
                .take_while(|line| !line.trim().starts_with('}'))
                .copied()
                .collect::<Vec<_>>()
                .join(" ")
        );
        let body = if tail.trim().starts_with('{') {
            body
        } else {
            tail.to_owned()
        };
        let stops = ["return", "throw ", "process.exit("].iter().any(|word| {
            reviewed::words_of(&body)
                .iter()
                .any(|found| word.starts_with(found.as_str()) && !found.is_empty())
                && body.contains(word.trim_end_matches('('))
        });
        if !stops {
            continue;
        }
        // A function that returns ends itself alone.
        let end = if reviewed::words_of(&body)
            .iter()
            .any(|word| word == "return")
        {
            functions
                .get_or_insert_with(|| Functions::of(&lines))
                .end(index, text)
        } else {
            usize::MAX
        };
        if let Some((list, member)) = absent(condition) {
            let Some(path) = event_path(member, &names) else {
                continue;
            };
            let known = if list.trim().starts_with('[') {
                Some(texts_of(list))
            } else {
                lists.get(list.trim()).cloned()
            };
            match known.filter(|texts| !texts.is_empty()) {
                Some(texts) => {
                    let any: Vec<String> = texts
                        .iter()
                        .map(|text| format!("{path} == '{text}'"))
                        .collect();
                    out.push((format!("${{{{ {} }}}}", any.join(" || ")), index..end));
                }
                None if path.ends_with(".login") || path.ends_with(".actor") => {
                    by_list = by_list.or(Some(index..end));
                }
                None => {}
            }
            continue;
        }
        if condition.contains("&&") || condition.contains("||") {
            continue;
        }
        let comparison = condition
            .split_once("!==")
            .or_else(|| condition.split_once("!="))
            .map(|sides| (sides, "=="))
            .or_else(|| condition.split_once("===").map(|sides| (sides, "!=")));
        let Some(((left, right), operator)) = comparison else {
            continue;
        };
        let literal = right.trim();
        let quoted = literal.len() > 2
            && literal.starts_with(['\'', '"'])
            && literal.ends_with(['\'', '"'])
            && !literal.trim_matches(['\'', '"']).contains(['\'', '"']);
        if let (Some(path), true) = (event_path(left, &names), quoted) {
            let literal = literal.trim_matches(['\'', '"']);
            out.push((
                format!("${{{{ {path} {operator} '{literal}' }}}}"),
                index..end,
            ));
        }
    }
    (out, by_list)
}

/// Where the functions of a program end.
struct Functions {
    /// The innermost function that each line begins in.
    of_line: Vec<Option<usize>>,
    /// The last line of each, and its name where it has one.
    found: Vec<(usize, Option<String>)>,
}

impl Functions {
    fn of(lines: &[&str]) -> Self {
        let mut of_line = Vec::with_capacity(lines.len());
        let mut found: Vec<(usize, Option<String>)> = Vec::new();
        // Every open bracket, with the function that it opens.
        let mut open: Vec<Option<usize>> = Vec::new();
        let mut inside: Vec<usize> = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            of_line.push(inside.last().copied());
            let mut quote = None;
            for (at, c) in line.char_indices() {
                match (quote, c) {
                    (Some(open), c) if open == c => quote = None,
                    (Some(_), _) => {}
                    (None, '\'' | '"') => quote = Some(c),
                    (None, '{') => {
                        let before = line.get(..at).unwrap_or_default().trim_end();
                        let function = opens_function(before).then(|| {
                            found.push((usize::MAX, function_name(before)));
                            found.len() - 1
                        });
                        inside.extend(function);
                        open.push(function);
                    }
                    (None, '}') => {
                        if let Some(Some(function)) = open.pop() {
                            inside.pop();
                            if let Some(known) = found.get_mut(function) {
                                known.0 = index;
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        Self { of_line, found }
    }

    /// The last line that a `return` on this line keeps from being run.
    fn end(&self, line: usize, text: &str) -> usize {
        let function = self.of_line.get(line).copied().flatten();
        let Some((end, name)) = function.and_then(|function| self.found.get(function)) else {
            return usize::MAX;
        };
        // What it answers is asked for elsewhere.
        let asked = name.as_ref().is_some_and(|name| {
            [
                format!("!{name}("),
                format!("!(await {name}("),
                format!("!await {name}("),
            ]
            .iter()
            .any(|mark| text.contains(mark.as_str()))
        });
        if asked { usize::MAX } else { *end }
    }
}

/// Whether the bracket behind this text opens a function.
fn opens_function(before: &str) -> bool {
    let statement = before.rsplit(['{', '}', ';']).next().unwrap_or(before);
    before.ends_with("=>") || before.ends_with(')') && statement.contains("function")
}

/// The name in `function name(…)` or `const name = (…) =>`.
fn function_name(before: &str) -> Option<String> {
    let rest = match before.rsplit_once("function ") {
        Some((_, rest)) => rest,
        None => {
            let (_, rest) = before
                .rsplit_once("const ")
                .or_else(|| before.rsplit_once("let "))?;
            rest
        }
    };
    let name: String = rest
        .trim_start()
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$'))
        .collect();
    (!name.is_empty()).then_some(name)
}

/// The list that a condition asks for, and what it says is not on it: `!list.includes(x)`,
/// `list.indexOf(x) === -1`, `list.indexOf(x) < 0`, `!~list.indexOf(x)`.
fn absent(condition: &str) -> Option<(&str, &str)> {
    if let Some((list, rest)) = condition
        .strip_prefix('!')
        .and_then(|rest| rest.split_once(".includes("))
    {
        return Some((list, rest.strip_suffix(')').unwrap_or(rest)));
    }
    let (list, rest) = condition.split_once(".indexOf(")?;
    let (member, tail) = closed(rest)?;
    let tail = tail.replace(' ', "");
    match list.strip_prefix("!~") {
        Some(list) => tail.is_empty().then_some((list, member)),
        None => matches!(tail.as_str(), "===-1" | "==-1" | "<0").then_some((list, member)),
    }
}

/// The condition that a text starts with, up to its closing bracket, and what follows.
fn closed(text: &str) -> Option<(&str, &str)> {
    let mut depth = 1_usize;
    for (index, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => {
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

/// The property of the event that a JavaScript expression reads.
fn event_path(text: &str, names: &HashMap<String, String>) -> Option<String> {
    let text = text.trim().replace("?.", ".");
    let text = text
        .trim_end_matches(".toLowerCase()")
        .trim_end_matches(".trim()");
    if !text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_'))
    {
        return None;
    }
    let (first, rest) = text.split_once('.').unwrap_or((text, ""));
    if let Some(path) = names.get(first) {
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
    fn a_stop_conditions_what_stands_behind_it() {
        let found =
            of_script("if [ \"$AUTHOR\" != \"alice\" ]; then\n  exit 0\nfi\ngh pr merge 1\n");
        assert!(found.iter().any(|(condition, lines)| {
            condition == "${{ env.AUTHOR == 'alice' }}" && lines.contains(&3) && !lines.contains(&0)
        }));
        assert!(
            of_script("AUTHOR=x\n[ \"$AUTHOR\" = alice ] || exit 0\ngh pr merge 1\n").is_empty()
        );
        let found = of_script("[[ \"${{ github.actor }}\" == 'bob' ]] || exit 1\ngh pr merge 1");
        assert_eq!(found[0].0, "${{ github.actor == 'bob' }}");
        assert!(
            of_script("if [ \"$A\" != x ] || [ \"$B\" = y ]; then echo; fi\ngit push").is_empty()
        );
    }

    #[test]
    fn a_place_on_a_list_is_asked_for_in_more_than_one_way() {
        let by_list = |condition: &str| {
            let text = format!("if ({condition}) {{\n  return;\n}}");
            of_program(&text).1.is_some()
        };
        let login = "context.payload.comment.user.login";
        for end in [" === -1", " == -1", " < 0", "<0", "===-1"] {
            assert!(by_list(&format!("people.indexOf({login}){end}")), "{end}");
        }
        assert!(by_list(&format!("!~people.indexOf({login})")));
        for end in [
            " !== -1",
            " >= 0",
            " > -1",
            " === 0",
            "",
            " === -1 && other",
        ] {
            assert!(!by_list(&format!("people.indexOf({login}){end}")), "{end}");
        }
        assert!(!by_list(
            "people.indexOf(context.payload.comment.body) === -1"
        ));
        let (found, _) = of_program("if (['a'].indexOf(context.actor) === -1) return;");
        assert_eq!(
            found,
            [("${{ github.actor == 'a' }}".to_owned(), 0..usize::MAX)]
        );
    }

    #[test]
    fn a_return_guards_its_function_alone() {
        let ends = |text: &str| of_program(text).0.first().map(|(_, lines)| lines.clone());
        let stop = "if (context.actor !== 'a') return false;";
        for (text, expected) in [
            (format!("function ok() {{\n{stop}\n}}\nmerge();"), 1..2),
            (
                format!("prs.forEach(pr => {{\n{stop}\n}});\nmerge();"),
                1..2,
            ),
            (format!("{{\n{stop}\n}}\nmerge();"), 1..usize::MAX),
            (
                format!("function ok() {{\n{stop}\n}}\nif (!ok()) return;\nmerge();"),
                1..usize::MAX,
            ),
            (
                "const f = async () => {\nif (context.actor !== 'a') throw 1;\n}\nf();".to_owned(),
                1..usize::MAX,
            ),
        ] {
            assert_eq!(ends(&text), Some(expected), "{text}");
        }
    }

    #[test]
    fn lists_of_accounts_are_conditions_where_they_are_written_out() {
        let (found, by_list) = of_program(
            "const who = context.payload.comment.user.login;\nif (!['a', 'b'].includes(who)) {\n  return;\n}\nif (context.eventName !== 'push') return;",
        );
        assert_eq!(
            found,
            [
                (
                    "${{ github.event.comment.user.login == 'a' || github.event.comment.user.login == 'b' }}".to_owned(),
                    1..usize::MAX
                ),
                ("${{ github.event_name == 'push' }}".to_owned(), 4..usize::MAX)
            ]
        );
        assert_eq!(by_list, None);
        let (_, by_list) = of_program(
            "if (!approvers.includes(context.payload.comment.user.login.toLowerCase())) {\n  await say();\n  return;\n}",
        );
        assert_eq!(by_list, Some(0..usize::MAX));
    }
}
