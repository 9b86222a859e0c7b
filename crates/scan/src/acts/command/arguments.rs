//! What a script is called with: `$1` and its like in the conditions of what it does.

use std::ops::Range;

use crate::shell::Command;

/// Most arguments that are put in.
const ARGUMENTS_MAX: usize = 9;

/// A condition with a script's arguments in the place of `$1`, `$2`, …; `lines` are those it is
/// about. In a function they are the function's own.
pub(super) fn put_in(
    condition: String,
    arguments: &[String],
    bodies: &[Range<usize>],
    lines: &[usize],
) -> String {
    let first = lines.first().copied().unwrap_or_default();
    if !condition.contains("env.") || bodies.iter().any(|body| body.contains(&first)) {
        return condition;
    }
    let mut out = condition;
    for number in 1..=ARGUMENTS_MAX {
        // A word that stands for several moves those behind it.
        if arguments
            .iter()
            .take(number)
            .any(|word| word.contains(['@', '*']) && word.contains('$'))
        {
            break;
        }
        let value = arguments.get(number - 1).map_or("", String::as_str);
        let name = format!("env.{number}");
        if value.contains(['$', '\'']) || !out.contains(&name) {
            continue;
        }
        for after in [" ", ")", ","] {
            out = out.replace(&format!("{name}{after}"), &format!("'{value}'{after}"));
        }
    }
    out
}

/// A function of a script, and its lines (from 0).
pub(super) type Function<'a> = (&'a str, Range<usize>);

/// The functions of a script.
pub(super) fn functions(text: &str) -> Vec<Function<'_>> {
    /// Most functions of one script.
    const FUNCTIONS_MAX: usize = 200;
    let lines: Vec<&str> = text.lines().collect();
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let start = at;
        at += 1;
        let Some(name) = defined(line) else { continue };
        if !line.trim_end().ends_with('}') {
            let indent = indent(line);
            let end = lines.iter().skip(at).position(|line| {
                line.trim_start().starts_with('}') && self::indent(line) == indent
            });
            at = end.map_or(lines.len(), |end| at + end + 1);
        }
        if out.len() < FUNCTIONS_MAX {
            out.push((name, start..at));
        }
    }
    out
}

/// The lines of functions that are not handed all that the script is called with.
pub(super) fn bodies(text: &str, functions: &[Function<'_>]) -> Vec<Range<usize>> {
    let handed = |name: &str| {
        ["\"$@\"", "$@", "\"$*\"", "$*", "\"${@}\""]
            .iter()
            .any(|all| text.contains(&format!("{name} {all}")))
    };
    functions
        .iter()
        .filter(|(name, _)| !handed(name))
        .map(|(_, body)| body.clone())
        .collect()
}

/// The lines on which each of some functions is called from outside of itself.
pub(super) fn calls(functions: &[Function<'_>], commands: &[Command]) -> Vec<Vec<usize>> {
    let mut out = vec![Vec::new(); functions.len()];
    for command in commands {
        // `retry ship` and `trap ship EXIT` call it as well.
        for ((name, body), lines) in functions.iter().zip(&mut out) {
            let called = command.words.iter().any(|word| word == name);
            if called && !body.contains(&command.line) {
                lines.push(command.line);
            }
        }
    }
    out
}

/// Lines with those of the functions that are called from among them alone: which of so many they
/// are.
pub(super) fn with_called(
    chosen: &[usize],
    count: usize,
    functions: &[Function<'_>],
    calls: &[Vec<usize>],
) -> Vec<bool> {
    /// How deep functions that call functions are followed.
    const DEPTH_MAX: usize = 3;
    let mut lines = vec![false; count];
    for line in chosen {
        if let Some(line) = lines.get_mut(*line) {
            *line = true;
        }
    }
    for _ in 0..DEPTH_MAX {
        let mut more = false;
        for ((_, body), calls) in functions.iter().zip(calls) {
            let among = |line: &usize| lines.get(*line) == Some(&true);
            if calls.is_empty() || among(&body.start) || !calls.iter().all(among) {
                continue;
            }
            let end = body.end.min(count);
            if let Some(body) = lines.get_mut(body.start..end) {
                body.fill(true);
                more = true;
            }
        }
        if !more {
            break;
        }
    }
    lines
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The name of the function that a line begins: `name() {`, `function name {`.
fn defined(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let name = match line.strip_prefix("function ") {
        Some(rest) => rest.split(['(', '{', ' ']).next()?,
        None => line.split_once("()")?.0.trim_end(),
    };
    let plain = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    plain.then_some(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a test may fail")]

    use super::*;

    #[test]
    fn arguments_stand_where_a_script_asks_for_them() {
        let given = ["test".to_owned(), "$X".to_owned()];
        let asked = "${{ env.1 == 'a' && env.2 == 'b' || env.3 == 'c' }}";
        assert_eq!(
            put_in(asked.to_owned(), &given, &[], &[4]),
            "${{ 'test' == 'a' && env.2 == 'b' || '' == 'c' }}"
        );
        let body = 3..5;
        assert_eq!(put_in(asked.to_owned(), &given, &[body], &[4]), asked);
        let other = "${{ env.12 == 'a' && env.1A == 'b' }}";
        assert_eq!(put_in(other.to_owned(), &given, &[], &[4]), other);
    }

    #[test]
    fn functions_have_arguments_of_their_own() {
        let text = "a() {\n  x\n}\nfunction b {\n  if y; then\n    z\n  fi\n}\nmain() {\n  c\n}\nd() { e; }\nmain \"$@\"\n";
        let all = functions(text);
        assert_eq!(
            all,
            [("a", 0..3), ("b", 3..8), ("main", 8..11), ("d", 11..12)]
        );
        assert_eq!(bodies(text, &all), [0..3, 3..8, 11..12]);
        assert_eq!(functions("a() {\n"), [("a", 0..1)]);
    }

    #[test]
    fn what_a_function_does_stands_under_the_conditions_of_its_calls() {
        let text = "a() {\n  b\n}\nb() {\n  c\n}\nif x; then\n  a\nfi\n";
        let lines = |text: &str| {
            let all = functions(text);
            let calls = calls(&all, &crate::shell::commands(text));
            let lines = with_called(&[7], text.lines().count(), &all, &calls);
            let lines: Vec<usize> = (0..lines.len()).filter(|at| lines[*at]).collect();
            lines
        };
        assert_eq!(lines(text), [0, 1, 2, 3, 4, 5, 7]);
        assert_eq!(lines(&format!("{text}a\n")), [7]);
    }
}
