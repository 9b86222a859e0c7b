//! Targets of Makefiles, justfiles and Taskfiles.

use super::command::{FOLLOW_MAX, Reader};
use crate::yaml::Node;

/// Deepest chain of Makefiles that include others.
const INCLUDES_MAX: usize = 3;
/// Most variables of one Makefile that are put in.
const VARIABLES_MAX: usize = 400;

/// What a target of one file is.
#[derive(Default)]
struct Recipe {
    found: bool,
    needs: Vec<String>,
    /// Commands, and their lines from 1.
    body: Vec<(String, usize)>,
}

impl Reader<'_> {
    pub(super) fn make_target(
        &mut self,
        tool: &str,
        target: &str,
        place: Option<&str>,
        depth: usize,
    ) {
        if depth >= FOLLOW_MAX {
            return;
        }
        let names: &[&str] = match tool {
            "make" => &["Makefile", "makefile", "GNUmakefile"],
            "just" => &["justfile", "Justfile", ".justfile"],
            _ => &["Taskfile.yml", "Taskfile.yaml"],
        };
        for name in names {
            let path = self.within(place, name);
            if !self.enter(&format!("{path}#{target}")) {
                return;
            }
            let Ok(text) = self.tree.read(&path) else {
                continue;
            };
            let found = if tool == "task" {
                self.task_of_file(&text, &path, target, place, depth)
            } else {
                let variables = variables(&text);
                self.recipe_of_file(tool, &text, &path, target, place, &variables, depth, 0)
            };
            if !found {
                self.missing(&format!("{tool} {target}"), target, depth);
            }
            return;
        }
        self.missing(&format!("{tool} {target}"), target, depth);
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one target of one file of one tool; grouping would only hide the parts"
    )]
    fn recipe_of_file(
        &mut self,
        tool: &str,
        text: &str,
        path: &str,
        target: &str,
        place: Option<&str>,
        variables: &[(String, String)],
        depth: usize,
        included: usize,
    ) -> bool {
        let recipe = recipe(text, target);
        if recipe.found {
            for (body, line) in in_blocks(recipe.body) {
                let body = body.replace("$$", "$").replace("$(MAKE)", "make");
                let body = if tool == "make" {
                    put_in(&body, variables)
                } else {
                    body
                };
                let first = body.lines().next().unwrap_or_default();
                let other = ["python", "node", "ruby", "deno", "bun"]
                    .iter()
                    .any(|name| first.starts_with("#!") && first.contains(name));
                if other {
                    self.program_text(&body, path, line, &[], depth + 1);
                } else {
                    self.script_at(&body, path, line, depth + 1);
                }
            }
            for need in recipe.needs {
                self.make_target(tool, &need, place, depth + 1);
            }
            return true;
        }
        if included >= INCLUDES_MAX {
            return false;
        }
        let others: Vec<String> = text
            .lines()
            .filter_map(|line| {
                let rest = line
                    .strip_prefix("include ")
                    .or_else(|| line.strip_prefix("-include "))
                    .or_else(|| line.strip_prefix("import "))?;
                Some(rest.replace("$(CURDIR)/", "").replace(['\'', '"'], ""))
            })
            .flat_map(|rest| {
                rest.split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .collect();
        for other in others {
            let other = self.within(place, &put_in(&other, variables));
            if !self.enter(&format!("{other}#{target}")) {
                continue;
            }
            let Ok(text) = self.tree.read(&other) else {
                continue;
            };
            let mut all = variables.to_vec();
            all.extend(self::variables(&text));
            if self.recipe_of_file(
                tool,
                &text,
                &other,
                target,
                place,
                &all,
                depth,
                included + 1,
            ) {
                return true;
            }
        }
        false
    }

    /// A task of a Taskfile: what it needs, its commands, and the tasks that it calls.
    fn task_of_file(
        &mut self,
        text: &str,
        path: &str,
        target: &str,
        place: Option<&str>,
        depth: usize,
    ) -> bool {
        let Ok(node) = crate::yaml::parse_one(text) else {
            return true;
        };
        let Some(task) = node.at(&["tasks", target]) else {
            return false;
        };
        let mut calls: Vec<String> = Vec::new();
        for need in task.get("deps").map(Node::items).unwrap_or_default() {
            calls.extend(
                need.text()
                    .or_else(|| need.str_of("task"))
                    .map(str::to_owned),
            );
        }
        let commands = task
            .get("cmds")
            .or_else(|| task.get("cmd"))
            .or_else(|| (!task.is_map()).then_some(task));
        if let Some(commands) = commands {
            if let Some(body) = commands.text() {
                self.script_at(body, path, commands.line, depth + 1);
            }
            for command in commands.items() {
                if let Some(called) = command.str_of("task") {
                    calls.push(called.to_owned());
                    continue;
                }
                let body = command.get("cmd").unwrap_or(command);
                if let Some(text) = body.text() {
                    self.script_at(text, path, body.line, depth + 1);
                }
            }
        }
        for call in calls {
            self.make_target("task", &call, place, depth + 1);
        }
        true
    }
}

fn recipe(text: &str, target: &str) -> Recipe {
    let mut out = Recipe::default();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        let recipe = line.starts_with('\t') || line.starts_with("  ");
        if recipe && inside {
            let body = line.trim().trim_start_matches(['@', '-', '+']);
            out.body.push((body.to_owned(), index + 1));
        } else if !line.trim().is_empty() && !recipe && !line.starts_with('#') {
            // `deploy env='prod' *flags: build` of a justfile: the name, what it takes, its needs.
            let taken = |left: &str| {
                !right_of_assignment(line)
                    && left
                        .split_whitespace()
                        .skip(1)
                        .any(|word| word.contains('='))
            };
            inside = line.split_once(':').is_some_and(|(left, right)| {
                let left = if taken(left) {
                    left.split_whitespace().next().unwrap_or_default()
                } else {
                    left
                };
                let found = !left.contains('=')
                    && left
                        .trim_start_matches('@')
                        .split_whitespace()
                        .any(|name| is_target(name, target));
                if found && !right.starts_with('=') {
                    let right = right.split('#').next().unwrap_or(right);
                    out.needs
                        .extend(right.split_whitespace().map(str::to_owned));
                }
                found
            });
            out.found |= inside;
        }
    }
    out
}

/// The lines of a recipe, those that belong together as one: a line that goes on in the next, and
/// a recipe that is a script of its own (`#!/usr/bin/env bash`).
fn in_blocks(lines: Vec<(String, usize)>) -> Vec<(String, usize)> {
    let whole = lines
        .first()
        .is_some_and(|(text, _)| text.starts_with("#!"));
    let mut out: Vec<(String, usize)> = Vec::new();
    let mut last = 0;
    for (text, line) in lines {
        match out.last_mut() {
            Some((block, _)) if whole || block.ends_with('\\') => {
                let gap = if whole { line.saturating_sub(last) } else { 1 };
                block.push_str(&"\n".repeat(gap.clamp(1, 100)));
                block.push_str(&text);
            }
            _ => out.push((text, line)),
        }
        last = line;
    }
    out
}

/// Whether a line sets a variable: `NAME = a:b`, `name := x`, `export NAME=a:b`.
fn right_of_assignment(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let first = words.next().unwrap_or_default();
    let second = words.next().unwrap_or_default();
    first.contains('=')
        || matches!(first, "export" | "set" | "alias" | "override" | "define")
        || matches!(second, "=" | ":=" | "?=" | "+=" | "::=" | "!=")
        || line.contains(":=") && !second.contains('=')
}

/// `push-%` is every target that begins so.
fn is_target(name: &str, target: &str) -> bool {
    name == target
        || name.split_once('%').is_some_and(|(before, after)| {
            !(before.is_empty() && after.is_empty())
                && target.len() > before.len() + after.len()
                && target.starts_with(before)
                && target.ends_with(after)
        })
}

/// Variables of a Makefile that stand for plain text.
fn variables(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter(|line| !line.starts_with(['\t', '#', ' ']))
        .filter_map(|line| {
            let line = line.strip_prefix("export ").unwrap_or(line);
            let (name, value) = line.split_once('=')?;
            let name = name.trim().trim_end_matches([':', '?', '!']).trim_end();
            let plain = !name.is_empty()
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
            let value = value.split(" #").next().unwrap_or(value).trim();
            (plain && !value.contains('$') && value.len() < 200)
                .then(|| (name.to_owned(), value.to_owned()))
        })
        .take(VARIABLES_MAX)
        .collect()
}

/// Puts variables into a command, in one pass; a command too long to be one is left as it is.
fn put_in(body: &str, variables: &[(String, String)]) -> String {
    /// Longest command of a recipe that is read.
    const BODY_MAX: usize = 4 * 1024;
    if body.len() > BODY_MAX {
        return body.to_owned();
    }
    let mut out = String::new();
    let mut rest = body;
    while let Some(at) = rest.find('$') {
        let (before, tail) = rest.split_at(at);
        out.push_str(before);
        let close = match tail.get(1..2) {
            Some("(") => ')',
            Some("{") => '}',
            _ => {
                out.push('$');
                rest = tail.get(1..).unwrap_or_default();
                continue;
            }
        };
        let inner = tail.get(2..).unwrap_or_default();
        let found = inner.find(close).and_then(|end| {
            let name = inner.get(..end)?;
            let (_, value) = variables.iter().find(|(known, _)| known == name)?;
            Some((value, inner.get(end + 1..)?))
        });
        if let Some((value, after)) = found {
            out.push_str(value);
            rest = after;
        } else {
            out.push('$');
            rest = tail.get(1..).unwrap_or_default();
        }
    }
    out.push_str(rest);
    out
}
