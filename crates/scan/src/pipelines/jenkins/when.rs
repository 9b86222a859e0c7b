//! `when { … }` of a stage, and the parameters that it asks for.

use super::super::{both, branch_is, either, equals, flag, is_tag, not};
use crate::expr::{Expr, Value};

/// Deepest nesting of conditions.
const DEPTH_MAX: usize = 8;
/// Most conditions of one block, and most parts of one condition: what is beyond is unknown.
pub(super) const CONDITIONS_MAX: usize = 64;
/// Most parameters and most variables of one file; every stage is given the variables.
const NAMES_MAX: usize = 256;
/// Longest `when` block, in lines.
pub(super) const LINES_MAX: usize = 400;

/// A parameter of the pipeline and what it is where nobody sets it.
pub(super) type Parameters = Vec<(String, String)>;

/// The parameters that a file declares, with their defaults.
pub(super) fn parameters(text: &str) -> Parameters {
    let mut out = Vec::new();
    for line in text.lines().map(str::trim) {
        if out.len() >= NAMES_MAX {
            break;
        }
        let kind = ["booleanParam", "string(", "choice(", "text("]
            .iter()
            .find(|kind| line.contains(**kind));
        let Some(kind) = kind else { continue };
        let Some(name) = named(line, "name") else {
            continue;
        };
        let default = match named(line, "defaultValue") {
            Some(value) => value,
            // The first choice is what it is.
            None if *kind == "choice(" => match line.split_once("choices") {
                Some((_, rest)) => quoted(rest).unwrap_or_default(),
                None => continue,
            },
            None => String::new(),
        };
        out.push((name, default));
    }
    out
}

/// What the blocks `environment { … }` of a file set to plain text.
pub(super) fn variables(text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if out.len() >= NAMES_MAX {
            break;
        }
        if line.starts_with("environment") && line.ends_with('{') {
            inside = true;
        } else if inside && line.starts_with('}') {
            inside = false;
        } else if inside
            && let Some((name, value)) = line.split_once('=')
            && value.trim_start().starts_with(['\'', '"'])
            && let Some(value) = quoted(value)
            && !value.contains('$')
        {
            out.push((name.trim().to_owned(), value));
        }
    }
    out
}

/// The value of `name: …` among a call's arguments.
fn named(line: &str, name: &str) -> Option<String> {
    let rest = line.split_once(&format!("{name}:"))?.1.trim_start();
    if rest.starts_with(['\'', '"']) {
        return quoted(rest);
    }
    let word: String = rest
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect();
    (!word.is_empty()).then_some(word)
}

fn quoted(text: &str) -> Option<String> {
    let at = text.find(['\'', '"'])?;
    let quote = text.get(at..)?.chars().next()?;
    let inner = text.get(at + 1..)?;
    inner.split(quote).next().map(str::to_owned)
}

/// Reads a `when` block that a text starts with.
pub(super) fn read(text: &str, parameters: &Parameters) -> Option<Expr> {
    let open = text.find('{')?;
    let body = block(text.get(open..)?)?;
    all_of(body, parameters, 0)
}

/// What stands between the brace that a text starts with and its end.
fn block(text: &str) -> Option<&str> {
    let mut depth = 0_usize;
    for (index, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return text.get(1..index);
                }
            }
            _ => {}
        }
    }
    None
}

/// The conditions that stand in a block.
fn list(body: &str, parameters: &Parameters, depth: usize) -> Vec<Expr> {
    let mut out = Vec::new();
    if depth > DEPTH_MAX {
        return out;
    }
    let mut rest = body;
    while !rest.trim_start().is_empty() {
        if out.len() >= CONDITIONS_MAX {
            out.push(Expr::Literal(Value::Open));
            break;
        }
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
        let line_end = rest.find(['\n', ';']).unwrap_or(rest.len());
        let line = rest.get(..line_end).unwrap_or_default();
        let word: String = rest
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric())
            .collect();
        let nested = line
            .find('{')
            .filter(|_| matches!(word.as_str(), "anyOf" | "allOf" | "not" | "expression"));
        if let Some(open) = nested {
            let Some(inner) = rest.get(open..).and_then(block) else {
                return out;
            };
            out.extend(match word.as_str() {
                "anyOf" => list(inner, parameters, depth + 1)
                    .into_iter()
                    .reduce(either),
                "not" => all_of(inner, parameters, depth + 1).map(not),
                "allOf" => all_of(inner, parameters, depth + 1),
                _ => expression(inner, parameters, CONDITIONS_MAX),
            });
            rest = rest.get(open + inner.len() + 2..).unwrap_or_default();
            continue;
        }
        out.extend(plain(&word, line, parameters));
        rest = rest.get(line_end..).unwrap_or_default();
    }
    out
}

fn all_of(body: &str, parameters: &Parameters, depth: usize) -> Option<Expr> {
    list(body, parameters, depth).into_iter().reduce(both)
}

fn plain(word: &str, line: &str, parameters: &Parameters) -> Option<Expr> {
    match word {
        "branch" => quoted(line).map(|name| branch_is(&name)),
        "tag" | "buildingTag" => Some(is_tag()),
        "changeRequest" => Some(equals("github.event_name", "pull_request")),
        "triggeredBy" => {
            let event = if line.contains("Timer") {
                "schedule"
            } else if line.contains("User") {
                "workflow_dispatch"
            } else if line.contains("SCM") {
                "push"
            } else {
                "repository_dispatch"
            };
            Some(equals("github.event_name", event))
        }
        "environment" | "equals" => expression(line, parameters, CONDITIONS_MAX),
        "" | "beforeAgent" | "beforeInput" | "beforeOptions" => None,
        _ => Some(Expr::Literal(Value::Open)),
    }
}

/// A condition in Groovy, as far as it asks for the branch or for a parameter, and of its parts the
/// first `parts`.
pub(super) fn expression(text: &str, parameters: &Parameters, parts: usize) -> Option<Expr> {
    let text = text.trim().trim_start_matches("return ").trim();
    let open = Some(Expr::Literal(Value::Open));
    let Some(left_over) = parts.checked_sub(1) else {
        return open;
    };
    // Calls and groups are not followed.
    if text.contains('(') {
        return open;
    }
    // `&&` binds closer.
    if let Some((left, right)) = text.split_once("||") {
        return both_of(left, right, parameters, left_over, either);
    }
    if let Some((left, right)) = text.split_once("&&") {
        return both_of(left, right, parameters, left_over, both);
    }
    if text.contains("BRANCH_NAME") || text.contains("GIT_BRANCH") {
        if text.starts_with('!') || !(text.contains("==") || text.contains("!=")) {
            return open;
        }
        let Some(name) = quoted(text) else {
            return open;
        };
        let branch = branch_is(name.trim_start_matches("origin/"));
        return Some(if text.contains("!=") {
            not(branch)
        } else {
            branch
        });
    }
    let Some((_, rest)) = text.split_once("params.") else {
        return open;
    };
    let name: String = rest
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect();
    let after = rest.get(name.len()..).unwrap_or_default().trim();
    let Some((_, default)) = parameters.iter().find(|(known, _)| *known == name) else {
        return open;
    };
    let given = match quoted(after) {
        Some(wanted) => *default == wanted,
        None if after.contains("false") => default == "false",
        None => !matches!(default.as_str(), "false" | ""),
    };
    let given = given != (after.starts_with("!=") || text.trim_start().starts_with('!'));
    // Who starts it by hand chooses.
    Some(either(
        flag(given),
        equals("github.event_name", "workflow_dispatch"),
    ))
}

fn both_of(
    left: &str,
    right: &str,
    parameters: &Parameters,
    parts: usize,
    join: fn(Expr, Expr) -> Expr,
) -> Option<Expr> {
    match (
        expression(left, parameters, parts),
        expression(right, parameters, parts),
    ) {
        (Some(left), Some(right)) => Some(join(left, right)),
        (left, right) => left.or(right),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_its_default_unless_someone_sets_it() {
        let found = parameters(
            "booleanParam(name: 'SHIP', defaultValue: false)\nchoice(name: 'TO', choices: ['stage', 'prod'])\nstring(defaultValue: 'x', name: 'S')",
        );
        assert_eq!(
            found,
            [
                ("SHIP".to_owned(), "false".to_owned()),
                ("TO".to_owned(), "stage".to_owned()),
                ("S".to_owned(), "x".to_owned())
            ]
        );
        let off = read("when { expression { return params.SHIP } }", &found).unwrap();
        assert_eq!(
            off,
            either(
                flag(false),
                equals("github.event_name", "workflow_dispatch")
            )
        );
    }

    #[test]
    fn conditions_are_joined_as_they_stand() {
        let text = "when {\n  anyOf {\n    branch 'main'\n    branch 'release'\n  }\n  not { changeRequest() }\n}\nsteps {}";
        let wanted = both(
            either(branch_is("main"), branch_is("release")),
            not(equals("github.event_name", "pull_request")),
        );
        assert_eq!(read(text, &Vec::new()).unwrap(), wanted);
        assert!(read("when { anyOf {", &Vec::new()).is_none());
    }
}
