//! Tests of a script on what the event tells, as conditions of what stands behind them: who opened
//! the pull request, from which repository, which event it is.

use std::ops::Range;

use super::branches::{self, Names};
use super::questions::{self, Question, Test};
use super::reviewed;
use super::tidy::{Tidy, tidy};
use super::told;
use super::walk::{Asks, walk};

/// Most questions of one script that are followed.
const QUESTIONS_MAX: usize = 8;

/// What a script does only under conditions: templates, each with the lines (from 0) of what it is
/// about.
pub(super) fn of_script(text: &str) -> Vec<(String, Vec<usize>)> {
    let tests = text.contains(']') || text.contains("test ") || text.contains("grep ");
    if !(tests || text.contains("case ")) || text.len() > 128 * 1024 {
        return Vec::new();
    }
    let tidy = tidy(text);
    let labels = labels_of_gh(text);
    /// How often a script is searched for what it sets; of the rest nothing is known.
    const SEARCHES_MAX: usize = 200;
    let searches = std::cell::Cell::new(0_usize);
    let set = |name: &str| {
        searches.set(searches.get() + 1);
        !labels.iter().any(|known| known == name)
            && (searches.get() > SEARCHES_MAX || is_set(text, name))
    };
    let authors = told::authors(text);
    let mut questions: Vec<(&str, Question)> = Vec::new();
    for part in tidy.lines.iter().flat_map(|(line, _)| parts(line)) {
        if questions.len() < QUESTIONS_MAX
            && !questions.iter().any(|(known, _)| *known == part)
            && let Some(question) =
                told::question(part, &authors).or_else(|| questions::question(part, &set))
        {
            questions.push((part, question));
        }
    }
    let mut out: Vec<(String, Vec<usize>)> = Vec::new();
    for (asked, question) in &questions {
        for (condition, holds) in [(&question.yes, true), (&question.no, false)] {
            let Some(condition) = condition else {
                continue;
            };
            let asks = Asks {
                test: &|part: &str| (part == *asked).then_some(holds),
                selected: &|_| false,
                chooses: &|_| false,
                arm: "",
            };
            let mut lines = Vec::new();
            walk(text, &asks, |_, yes, line| {
                if yes {
                    lines.push(line);
                }
            });
            if !lines.is_empty() {
                let mut condition = condition.clone();
                for name in &labels {
                    for end in [" ", ",", ")"] {
                        condition = condition.replace(
                            &format!("env.{name}{end}"),
                            &format!("github.event.pull_request.labels.*.name{end}"),
                        );
                    }
                }
                out.push((format!("${{{{ {condition} }}}}"), lines));
            }
        }
    }
    out.extend(cases(&tidy, &set));
    out
}

/// What holds where a script ended without failing: the conditions of what stands behind its stops.
/// `exit 0` ends it well, and one whose code is not told may do either.
pub(crate) fn past(text: &str) -> Vec<String> {
    let text = text.trim_end();
    let mut gentle = String::with_capacity(text.len());
    let mut from = 0;
    let mut fails = false;
    for (at, _) in text.match_indices("exit") {
        let before = text.get(..at).unwrap_or_default();
        let after = text.get(at + 4..).unwrap_or_default();
        let word = !before.ends_with(|c: char| c.is_ascii_alphanumeric() || "_-.$".contains(c))
            && !after.starts_with(|c: char| c.is_ascii_alphanumeric() || "_-(.".contains(c));
        if !word {
            continue;
        }
        let code = after.trim_start_matches([' ', '\t']);
        if code.starts_with(|c: char| c.is_ascii_digit() && c != '0') {
            fails = true;
        } else if code.starts_with('0') {
            gentle.push_str(text.get(from..at).unwrap_or_default());
            gentle.push_str("true");
            from = at + 4;
        } else {
            return Vec::new();
        }
    }
    gentle.push_str(text.get(from..).unwrap_or_default());
    // What fails in a function, a group of its own or another shell may be forgiven.
    let apart = text.contains("()")
        || text.lines().any(|line| {
            let line = line.trim_start();
            line.starts_with('(') && !line.starts_with("((") || line.starts_with("function ")
        })
        || ["bash -c", "sh -c", "&& (", "|| ("]
            .iter()
            .any(|mark| text.contains(mark));
    if !fails || apart || text.contains("set +e") {
        return Vec::new();
    }
    let end = gentle.lines().count();
    of_script(&format!("{gentle}\ntrue"))
        .into_iter()
        .filter(|(_, lines)| lines.contains(&end))
        .map(|(condition, _)| condition)
        .collect()
}

/// The same of a program that fails its step. One that returns before its end tells nothing.
pub(crate) fn past_program(text: &str) -> Vec<String> {
    let fails = text.matches("setFailed(").count() + text.matches("throw ").count();
    let apart = ["catch", "function", "=>"]
        .iter()
        .any(|mark| text.contains(mark));
    if fails == 0 || text.matches("return").count() > fails || apart {
        return Vec::new();
    }
    let text = text
        .trim_end()
        .replace("core.setFailed(", "throw core.setFailed(");
    let end = text.lines().count();
    of_program(&format!("{text}\n;"))
        .conditions
        .into_iter()
        .filter(|(_, lines)| lines.contains(&end))
        .map(|(condition, _)| condition)
        .collect()
}

/// The commands of a line as the walk hands them on.
fn parts(line: &str) -> impl Iterator<Item = &str> {
    line.split(';').map(|part| {
        let part = part.trim();
        part.strip_prefix("then ")
            .or_else(|| part.strip_prefix("do "))
            .unwrap_or(part)
    })
}

/// What stands in the arms of a `case` over what the event tells, and behind one whose last arm
/// stops.
fn cases(tidy: &Tidy, set: &dyn Fn(&str) -> bool) -> Vec<(String, Vec<usize>)> {
    /// One arm: what holds in it, its lines, and whether it stops.
    struct Arm {
        holds: Option<String>,
        any: bool,
        lines: Vec<usize>,
        stops: bool,
        /// How many of its `if`s and loops are open.
        depth: usize,
    }
    let mut out: Vec<(String, Vec<usize>)> = Vec::new();
    let mut choice: Option<(String, Vec<Arm>)> = None;
    let mut line_number = 0;
    let last: usize = tidy.lines.iter().map(|(_, span)| span).sum();
    for (line, span) in &tidy.lines {
        let index = line_number;
        line_number += span;
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("case ")
            && let Some((subject, _)) = rest.split_once(" in")
        {
            choice = Some((subject.trim().to_owned(), Vec::new()));
            continue;
        }
        let Some((subject, arms)) = &mut choice else {
            continue;
        };
        if line.starts_with("esac") {
            let open = arms.iter().filter(|arm| !arm.stops);
            let all: Option<Vec<String>> = open.map(|arm| arm.holds.clone()).collect();
            let ends = arms.iter().any(|arm| arm.any && arm.stops);
            if let Some(all) = all.filter(|all| ends && !all.is_empty()) {
                let any: Vec<String> = all.iter().map(|one| format!("({one})")).collect();
                let lines = (index + 1..last).collect();
                out.push((format!("${{{{ {} }}}}", any.join(" || ")), lines));
            }
            for arm in arms.iter().filter(|arm| !arm.lines.is_empty()) {
                if let Some(holds) = &arm.holds {
                    out.push((format!("${{{{ {holds} }}}}"), arm.lines.clone()));
                }
            }
            choice = None;
            continue;
        }
        let fresh = arms
            .last()
            .is_none_or(|arm| arm.lines.is_empty() && arm.stops);
        let mut body = line;
        let begins = arms.is_empty() || fresh || line.contains(')') && !line.contains("$(");
        if begins
            && let Some((patterns, rest)) = line.split_once(')')
            && !patterns.contains(['(', '$', ' ']) | patterns.contains('|')
            && !patterns.contains('$')
        {
            let any = patterns.trim().trim_start_matches('(') == "*";
            arms.push(Arm {
                holds: questions::arm(subject, patterns, set),
                any,
                lines: Vec::new(),
                stops: false,
                depth: 0,
            });
            body = rest;
        }
        if let Some(arm) = arms.last_mut() {
            arm.lines.extend(index..line_number);
            // Within an `if` or a loop of the arm it may go on.
            for part in body.split(';') {
                match part.split_whitespace().next() {
                    Some("if" | "for" | "while" | "until") => arm.depth += 1,
                    Some("fi" | "done") => arm.depth = arm.depth.saturating_sub(1),
                    Some("exit" | "return") if arm.depth == 0 => arm.stops = true,
                    _ => {}
                }
            }
        }
    }
    out
}

/// The variables of a script that hold the labels of a pull request, as `gh` tells them.
fn labels_of_gh(text: &str) -> Vec<String> {
    if !text.contains("gh pr view") || !text.contains("labels") {
        return Vec::new();
    }
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.trim().split_once("=$(gh pr view ")?;
            let plain =
                !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let asks = value.contains("--json labels") && !value.contains("select(");
            let once = text.matches(&format!("{name}=")).count() == 1;
            (plain && asks && once).then(|| name.to_owned())
        })
        .collect()
}

/// Whether a script sets a variable by itself.
fn is_set(text: &str, name: &str) -> bool {
    let (set, each) = (format!("{name}="), format!("for {name} "));
    text.lines().any(|line| {
        let line = line.trim();
        line.contains(&set)
            || line.starts_with("read ")
            || line.contains(" read ") && reviewed::words_of(line).iter().any(|word| word == name)
            || line.starts_with(&each)
    })
}

/// A template, and the lines (from 0) between which it counts.
pub(super) type Condition = (String, Range<usize>);

/// What a program does only under conditions.
#[derive(Default)]
pub(super) struct Program {
    /// By what the event tells.
    pub(super) conditions: Vec<Condition>,
    /// Labels of the pull requests that it chooses.
    pub(super) labels: Vec<Condition>,
    /// Where an account has a place on a list that is not written out.
    pub(super) by_list: Option<Range<usize>>,
}

/// Reads the branches of a program, and its stops.
pub(super) fn of_program(text: &str) -> Program {
    let mut out = Program::default();
    for (label, from) in branches::chosen(text) {
        out.labels.push((label, from..usize::MAX));
    }
    if !text.contains("if (") || text.len() > 256 * 1024 {
        return out;
    }
    let lines: Vec<&str> = text.lines().collect();
    let names = Names::of(text);
    let mut functions: Option<Functions> = None;
    let mut loops: Option<Functions> = None;
    for branch in branches::branches(text) {
        let test = names.test(branch.condition);
        let leaves = branches::leaves(branch.text);
        let mut add = |holds: bool, lines: Range<usize>| {
            if let Some(label) = test.label(holds) {
                out.labels.push((label.to_owned(), lines.clone()));
            }
            if let Some(template) = branches::template(&test, holds) {
                out.conditions.push((template, lines));
            }
        };
        // A line alone holds its condition and its body.
        let first = branch.body.start.max(branch.line);
        if leaves.is_none() {
            add(
                true,
                first.saturating_sub(usize::from(first == branch.body.end))..branch.body.end,
            );
        }
        if let Some(other) = &branch.other {
            add(false, other.clone());
        }
        let Some(word) = leaves else {
            continue;
        };
        // A function that returns ends itself alone; so does a turn of a loop.
        let end = match word {
            "return" => functions
                .get_or_insert_with(|| Functions::of(&lines, opens_function))
                .end(branch.line, text),
            "continue" | "break" => loops
                .get_or_insert_with(|| Functions::of(&lines, opens_loop))
                .end(branch.line, ""),
            _ => usize::MAX,
        };
        let after = branch.body.end..end;
        add(false, after.clone());
        if let Some((list, member)) = absent(branch.condition)
            && (test == Test::Not(Box::new(Test::Unknown)) || test == Test::Unknown)
            && !list.trim().starts_with('[')
            && let Some(path) = names.path(member)
            && (path.ends_with(".login") || path.ends_with(".actor"))
        {
            out.by_list = out.by_list.or(Some(after));
        }
    }
    out
}

/// Where the functions of a program end.
struct Functions {
    /// The innermost function that each line begins in, or asks its first `if` in.
    of_line: Vec<Option<usize>>,
    /// The last line of each, and its name where it has one.
    found: Vec<(usize, Option<String>)>,
}

impl Functions {
    fn of(lines: &[&str], opens: fn(&str) -> bool) -> Self {
        let mut of_line = Vec::with_capacity(lines.len());
        let mut found: Vec<(usize, Option<String>)> = Vec::new();
        // Every open bracket, with the function that it opens.
        let mut open: Vec<Option<usize>> = Vec::new();
        let mut inside: Vec<usize> = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            of_line.push(inside.last().copied());
            // What the line asks may stand in a function that it opens itself.
            let asks = line.find("if (");
            let mut quote = None;
            for (at, c) in line.char_indices() {
                if asks == Some(at)
                    && let Some(last) = of_line.last_mut()
                {
                    *last = inside.last().copied();
                }
                match (quote, c) {
                    (Some(open), c) if open == c => quote = None,
                    (Some(_), _) => {}
                    (None, '\'' | '"') => quote = Some(c),
                    // A pattern, not a division.
                    (None, '/')
                        if line.get(..at).is_some_and(|before| {
                            before
                                .trim_end()
                                .ends_with(['(', ',', '=', ':', '[', '!', '&', '|'])
                        }) =>
                    {
                        quote = Some(c);
                    }
                    (None, '{') => {
                        let before = line.get(..at).unwrap_or_default().trim_end();
                        let function = opens(before).then(|| {
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

/// Whether the bracket behind this text opens what is done more than once.
fn opens_loop(before: &str) -> bool {
    let statement = before.rsplit(['{', '}', ';']).next().unwrap_or(before);
    let statement = if before.contains("for (") || before.contains("for await (") {
        before
    } else {
        statement
    };
    before.ends_with(')') && (statement.contains("for ") || statement.contains("while "))
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
    let (member, tail) = branches::closed(rest)?;
    let tail = tail.replace(' ', "");
    match list.strip_prefix("!~") {
        Some(list) => tail.is_empty().then_some((list, member)),
        None => matches!(tail.as_str(), "===-1" | "==-1" | "<0").then_some((list, member)),
    }
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
        let found = of_script("if [ \"$A\" != x ] || [ \"$B\" = y ]; then echo; fi\ngit push");
        assert!(
            found.iter().all(|(_, lines)| !lines.contains(&1)),
            "{found:?}"
        );
        let found = of_script("case \"$A\" in\n  x|y) echo ;;\n  *) exit 0 ;;\nesac\ngit push");
        assert!(
            found.contains(&(
                "${{ ((env.A == 'x') || (env.A == 'y')) }}".to_owned(),
                vec![4]
            )),
            "{found:?}"
        );
    }

    #[test]
    fn a_place_on_a_list_is_asked_for_in_more_than_one_way() {
        let by_list = |condition: &str| {
            let text = format!("if ({condition}) {{\n  return;\n}}");
            of_program(&text).by_list.is_some()
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
        let found = of_program("if (['a'].indexOf(context.actor) === -1) return;");
        assert_eq!(
            found.conditions,
            [("${{ github.actor == 'a' }}".to_owned(), 0..usize::MAX)]
        );
    }

    #[test]
    fn a_return_guards_its_function_alone() {
        let ends = |text: &str| {
            let found = of_program(text);
            found.conditions.first().map(|(_, lines)| lines.clone())
        };
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
        for text in [
            format!("prs.filter((pr) => {{ {stop} return true; }});\nmerge();"),
            format!(
                "for (const x of y) {{\nif (/[{{]/.test(x)) a();\n{}\n}}\nmerge();",
                "if (context.actor !== 'a') continue;"
            ),
        ] {
            let last = text.lines().count() - 1;
            assert!(
                !ends(&text).is_some_and(|lines| lines.contains(&last)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_a_script_asks_for_to_end_well_is_told() {
        for text in [
            "if [ \"$A\" != x ]; then\n  exit 1\nfi\necho\n",
            "if [[ $A == x ]]\nthen\n  echo\nelse\n  exit 1\nfi\n",
            "[ \"$A\" = x ] || exit 1\n",
        ] {
            let found = past(text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].contains("env.A == 'x'"), "{found:?}");
        }
        for text in [
            "if [ \"$A\" != x ]; then\n  exit 0\nfi\necho\n",
            "[ \"$A\" = x ] || exit 0\n",
            "if [ \"$A\" != x ]; then\n  echo\nfi\n",
            "if x; then\n  exit 1\nfi\n",
        ] {
            assert_eq!(past(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn lists_of_accounts_are_conditions_where_they_are_written_out() {
        let found = of_program(
            "const who = context.payload.comment.user.login;\nif (!['a', 'b'].includes(who)) {\n  return;\n}\nif (context.eventName !== 'push') return;",
        );
        assert_eq!(
            found.conditions,
            [
                (
                    "${{ (github.event.comment.user.login == 'a') || (github.event.comment.user.login == 'b') }}".to_owned(),
                    3..usize::MAX
                ),
                ("${{ github.event_name == 'push' }}".to_owned(), 4..usize::MAX)
            ]
        );
        assert_eq!(found.by_list, None);
        let found = of_program(
            "if (!approvers.includes(context.payload.comment.user.login.toLowerCase())) {\n  await say();\n  return;\n}",
        );
        assert_eq!(found.by_list, Some(3..usize::MAX));
    }
}
