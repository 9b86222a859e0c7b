//! Functions of a JavaScript, TypeScript or Python program: where they stand, which of them only
//! hand a command on, and what a program takes from its modules.
//!
//! Bodies are found by indentation: these languages' formatters all keep it.

use super::started::CALLS;

/// Most functions of one program.
const FUNCTIONS_MAX: usize = 2_000;

/// A function by its lines, counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) first: usize,
    /// The line behind the last one.
    pub(super) end: usize,
}

/// What a program takes from a module of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Import {
    /// Relative to the program.
    pub(super) path: String,
    /// Functions and methods of it that the program calls; may be none.
    pub(super) called: Vec<String>,
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$'))
}

/// The name of the function that a line begins.
fn defined(line: &str) -> Option<&str> {
    const BEFORE: &[&str] = &[
        "export ",
        "default ",
        "async ",
        "static ",
        "public ",
        "private ",
        "protected ",
        "readonly ",
        "override ",
        "const ",
        "let ",
        "var ",
    ];
    let mut rest = line.trim();
    if let Some(python) = rest
        .strip_prefix("async def ")
        .or_else(|| rest.strip_prefix("def "))
    {
        return python
            .split('(')
            .next()
            .map(str::trim)
            .filter(|name| is_name(name));
    }
    while let Some(next) = BEFORE.iter().find_map(|word| rest.strip_prefix(word)) {
        rest = next.trim_start();
    }
    if let Some(named) = rest
        .strip_prefix("function ")
        .or_else(|| rest.strip_prefix("function* "))
    {
        return named
            .split('(')
            .next()
            .map(str::trim)
            .filter(|name| is_name(name));
    }
    if let Some((name, value)) = rest.split_once('=') {
        let name = name.split(':').next().unwrap_or_default().trim();
        let value = value.trim().trim_start_matches("async").trim_start();
        let arrow = value.starts_with('(') && (value.contains("=>") || value.ends_with('('))
            || value.starts_with("function")
            || value
                .split_once("=>")
                .is_some_and(|(left, _)| is_name(left.trim()));
        if is_name(name) && arrow && !value.starts_with('>') {
            return Some(name);
        }
    }
    // A method: `name(…) {`.
    let name = rest.split('(').next().unwrap_or_default();
    let keyword = matches!(
        name,
        "if" | "for"
            | "while"
            | "switch"
            | "catch"
            | "return"
            | "function"
            | "constructor"
            | "with"
    );
    (rest.ends_with('{') && rest.contains('(') && is_name(name) && !keyword).then_some(name)
}

/// Every function of a program, outer ones before those within them.
pub(super) fn functions(lines: &[&str]) -> Vec<Function> {
    let mut out = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let Some(name) = defined(line) else { continue };
        let depth = indent(line);
        let closed = line.trim_end().ends_with(';')
            || line.contains('{') && line.matches('{').count() == line.matches('}').count();
        let end = if closed {
            first + 1
        } else {
            lines
                .iter()
                .enumerate()
                .skip(first + 1)
                .find(|(_, next)| {
                    !next.trim().is_empty()
                        && indent(next) <= depth
                        && !next.trim_start().starts_with([')', ']'])
                })
                .map_or(lines.len(), |(at, next)| {
                    if next.trim_start().starts_with('}') {
                        at + 1
                    } else {
                        at
                    }
                })
        };
        out.push(Function {
            name: name.to_owned(),
            first,
            end,
        });
        if out.len() >= FUNCTIONS_MAX {
            break;
        }
    }
    out
}

/// Whether a line calls one of these with something that is no text: a parameter.
fn hands_on(line: &str, calls: &[String]) -> bool {
    calls.iter().any(|call| {
        line.match_indices(call.as_str()).any(|(at, _)| {
            let boundary = line
                .get(..at)
                .and_then(|before| before.chars().next_back())
                .is_none_or(|c| !(c.is_ascii_alphanumeric() || c == '_'));
            let argument = line
                .get(at + call.len()..)
                .unwrap_or_default()
                .trim_start_matches(['(', '[', '.', ' ', '*']);
            let word: String = argument
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$'))
                .collect();
            boundary && is_name(&word)
        })
    })
}

/// Functions that run what they are given: `run(command) { return execSync(command); }`.
/// `known` are those of other modules.
pub(super) fn wrappers(text: &str, known: &[String]) -> Vec<String> {
    /// Wrappers of wrappers.
    const ROUNDS: usize = 3;
    let lines: Vec<&str> = text.lines().collect();
    let all = functions(&lines);
    let mut found: Vec<String> = Vec::new();
    for _ in 0..ROUNDS {
        let calls: Vec<String> = CALLS
            .iter()
            .filter(|call| call.ends_with('('))
            .map(|call| (*call).to_owned())
            .chain(["spawnAsync(".to_owned(), "subprocess.run(".to_owned()])
            .chain(found.iter().chain(known).map(|name| format!("{name}(")))
            .collect();
        let before = found.len();
        for function in &all {
            let taken = lines.get(function.first).is_some_and(|line| {
                // It has a parameter to hand on.
                !line.contains("()") && !matches!(function.name.as_str(), "main")
            });
            let body = lines
                .get(function.first + 1..function.end)
                .unwrap_or_default();
            let short = function.end - function.first <= 60;
            let first = lines.get(function.first).copied().unwrap_or_default();
            let one_line = first
                .split_once("=>")
                .is_some_and(|(_, body)| hands_on(body, &calls));
            if taken
                && short
                && !found.contains(&function.name)
                && (one_line || body.iter().any(|line| hands_on(line, &calls)))
            {
                found.push(function.name.clone());
            }
        }
        if found.len() == before {
            break;
        }
    }
    found
}

/// What a JavaScript program takes from modules of the repository, and which parts of it it calls.
pub(super) fn imports(text: &str) -> Vec<Import> {
    /// Most modules of one program.
    const MODULES_MAX: usize = 50;
    let joined = joined_imports(text);
    let mut out: Vec<Import> = Vec::new();
    for line in joined.iter().filter(|line| !line.starts_with("//")) {
        let (names, rest) = if let Some(rest) = line.strip_prefix("import ") {
            match rest.split_once(" from ") {
                Some(parts) => parts,
                None => continue,
            }
        } else if let Some((left, right)) = line.split_once("require(") {
            let left = left.trim().trim_end_matches('=').trim();
            match ["const ", "let ", "var "]
                .iter()
                .find_map(|word| left.strip_prefix(word))
            {
                Some(names) => (names, right),
                None => continue,
            }
        } else {
            continue;
        };
        let Some(path) = rest.trim_start().split(['\'', '"', '`']).nth(1) else {
            continue;
        };
        if !(path.starts_with("./") || path.starts_with("../")) {
            continue;
        }
        let mut called = Vec::new();
        if let Some(list) = names.trim().strip_prefix('{') {
            for name in list.trim_end_matches('}').split(',') {
                let name = name.trim().trim_start_matches("type ");
                let (there, here) = name
                    .split_once(" as ")
                    .or_else(|| name.split_once(':'))
                    .unwrap_or((name, name));
                let (there, here) = (there.trim(), here.trim());
                if is_name(here) && text.contains(&format!("new {here}(")) {
                    called.extend(methods_called(text));
                } else if is_name(here) && text.contains(&format!("{here}(")) {
                    called.push(there.to_owned());
                }
            }
        } else {
            let name = names.trim().trim_start_matches("* as ").trim();
            if is_name(name) {
                for (at, mark) in text.match_indices(&format!("{name}.")) {
                    let rest = text.get(at + mark.len()..).unwrap_or_default();
                    let word: String = rest
                        .chars()
                        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$'))
                        .collect();
                    let is_call = rest
                        .get(word.len()..)
                        .is_some_and(|after| after.starts_with('('));
                    if is_call && is_name(&word) {
                        called.push(word);
                    }
                }
            }
        }
        called.sort_unstable();
        called.dedup();
        if out.len() < MODULES_MAX {
            out.push(Import {
                path: path.to_owned(),
                called,
            });
        }
    }
    out
}

/// Lines of a program, imports over several lines as one each.
fn joined_imports(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some(begun) = &mut open {
            begun.push(' ');
            begun.push_str(line);
            if line.contains('}') {
                out.extend(open.take());
            }
        } else if (line.starts_with("import {") || line.starts_with("const {"))
            && !line.contains('}')
        {
            open = Some(line.to_owned());
        } else {
            out.push(line.to_owned());
        }
    }
    out
}

fn methods_called(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (at, _) in text.match_indices('.') {
        let rest = text.get(at + 1..).unwrap_or_default();
        let word: String = rest
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$'))
            .collect();
        if is_name(&word)
            && rest
                .get(word.len()..)
                .is_some_and(|after| after.starts_with('('))
        {
            out.push(word);
        }
    }
    out
}

/// A module with every function left blank that nothing of `called` gets to.
pub(super) fn only_called(text: &str, called: &[String]) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let all = functions(&lines);
    let mut wanted: Vec<String> = called.to_vec();
    let mut at = 0;
    while let Some(name) = wanted.get(at).cloned() {
        for function in all.iter().filter(|function| function.name == name) {
            let body = lines.get(function.first..function.end).unwrap_or_default();
            for other in &all {
                let call = format!("{}(", other.name);
                if !wanted.contains(&other.name) && body.iter().any(|line| line.contains(&call)) {
                    wanted.push(other.name.clone());
                }
            }
        }
        at += 1;
    }
    let mut keep = vec![true; lines.len()];
    let cover = |keep: &mut Vec<bool>, function: &Function, to: bool| {
        for line in keep.iter_mut().take(function.end).skip(function.first) {
            *line = to;
        }
    };
    for function in &all {
        let kept = wanted.contains(&function.name);
        cover(&mut keep, function, kept);
    }
    lines
        .iter()
        .zip(keep)
        .flat_map(|(line, keep)| [if keep { *line } else { "" }, "\n"])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELPERS: &str = "\
const { execSync } = require('child_process');
export function run(command) {
  if (dry) {
    return log(command);
  }
  return execSync(command);
}
export const quietly = async (
  command,
) => {
  await run(command);
};
class Shell {
  async go(command) {
    return spawn(command, { shell: true });
  }
}
function tidy() {
  execSync('rm -r out');
}
";

    #[test]
    fn what_hands_a_command_on_is_known() {
        assert_eq!(wrappers(HELPERS, &[]), vec!["run", "quietly", "go"]);
        assert!(
            wrappers(
                "def sh(cmd):\n    return subprocess.run(cmd, check=True)\n",
                &[]
            ) == ["sh"]
        );
    }

    #[test]
    fn imports_and_what_is_called_of_them() {
        let text = "import {\n  run,\n  other as more,\n} from './helpers.js';\nimport * as all from '../all.js';\nconst { Shell } = require('./shell');\nrun('x');\nall.publish(1);\nnew Shell().go('y');\n";
        let found = imports(text);
        assert_eq!(found[0].called, vec!["run"]);
        assert_eq!(found[1].called, vec!["publish"]);
        assert!(found[2].called.contains(&"go".to_owned()));
    }

    #[test]
    fn what_nothing_calls_is_left_out() {
        let text = only_called(HELPERS, &["quietly".to_owned()]);
        assert!(text.contains("execSync(command)") && !text.contains("rm -r out"));
        assert_eq!(text.lines().count(), HELPERS.lines().count());
    }
}
