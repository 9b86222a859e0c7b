//! Tools that make a version: a commit, its tag, and what they put into a registry.

use super::publishes::{at_once, on_release_branches, with_registry};
use super::{API_ENV, Act, Op, Token};
use crate::shell::Command;

/// What such a tool does; `None` for a command of another one. `plain` is its words without
/// options.
pub(super) fn read(name: &str, plain: &[&str], command: &Command, what: &str) -> Option<Vec<Act>> {
    let dry = ["--dry-run", "-d", "--noop", "--preview", "--print"]
        .iter()
        .any(|flag| command.has(flag));
    // `--no-npm.publish`, `--npm.publish=false`.
    let without = |option: &str| {
        command.words.iter().any(|word| {
            word.strip_prefix("--").is_some_and(|word| {
                word.strip_prefix("no-") == Some(option)
                    || word.strip_suffix("=false") == Some(option)
            })
        })
    };
    let acts = match (name, plain) {
        ("release-it", _) => {
            if dry || command.has("--release-version") || command.has("--changelog") {
                return Some(Vec::new());
            }
            let mut acts = Vec::new();
            if !(without("git") || without("git.push")) {
                acts.extend(at_once(what, command));
            }
            if !(without("npm") || without("npm.publish")) {
                acts.extend(with_registry(vec![Act::publish(what)]));
            }
            acts
        }
        ("np", _) => {
            if dry {
                return Some(Vec::new());
            }
            let mut acts = at_once(what, command);
            if !without("publish") {
                acts.push(Act::publish(what));
            }
            acts
        }
        ("auto", ["shipit" | "release" | "latest", ..]) if dry => Vec::new(),
        ("auto", ["release", ..]) => vec![release(what)],
        ("cargo", ["release", step, ..]) if is_step(step) => {
            if !executes(command) || *step != "publish" {
                return Some(Vec::new());
            }
            vec![Act::publish(what)]
        }
        ("cargo", ["release", ..]) => {
            if !executes(command) {
                return Some(Vec::new());
            }
            let mut acts = Vec::new();
            if !without("push") {
                acts.extend(at_once(what, command));
            }
            if !without("publish") {
                acts.push(Act::publish(what));
            }
            acts
        }
        ("cargo", ["smart-release", ..]) => {
            if !executes(command) {
                return Some(Vec::new());
            }
            let mut acts = at_once(what, command);
            if !without("publish") {
                acts.push(Act::publish(what));
            }
            acts
        }
        ("cargo", ["workspaces" | "ws", "publish", rest @ ..]) => {
            let made = ["--from-git", "--publish-as-is", "--skip-published"]
                .iter()
                .any(|flag| command.has(flag))
                || without("git-push")
                || without("git-commit");
            let named = rest.first().is_some_and(|bump| *bump != "skip");
            let mut acts = Vec::new();
            if !made && named && !dry {
                acts.extend(at_once(what, command));
            }
            if !dry {
                acts.push(Act::publish(what));
            }
            acts
        }
        ("cargo", ["workspaces" | "ws", "version", _, ..])
            if !(without("git-push") || without("git-commit") || dry) =>
        {
            at_once(what, command)
        }
        ("mvn" | "mvnw", list) if list.contains(&"release:prepare") => {
            let says = |text: &str| command.words.iter().any(|word| word == text);
            if says("-DdryRun=true") || says("-DdryRun") {
                return Some(Vec::new());
            }
            let mut acts = Vec::new();
            if !says("-DpushChanges=false") {
                acts.extend(at_once(what, command));
            }
            if list.contains(&"release:perform") {
                acts.push(Act::publish(what));
            }
            acts
        }
        ("mvn" | "mvnw", list)
            if list.iter().any(|goal| {
                matches!(
                    *goal,
                    "gitflow:release" | "gitflow:release-finish" | "gitflow:hotfix-finish"
                )
            }) && !command
                .words
                .iter()
                .any(|word| word == "-DpushRemote=false") =>
        {
            at_once(what, command)
        }
        // Node's has no commands: these are Python's.
        ("semantic-release" | "python-semantic-release", ["version", ..]) => {
            if dry || prints(command) || without("push") {
                return Some(Vec::new());
            }
            let mut acts = Vec::new();
            if !without("commit") {
                acts.extend(at_once(what, command));
            } else if !without("tag") {
                acts.push(Act::new(Op::Tag(None), what, Token::Git));
            }
            if !without("vcs-release") {
                acts.push(release(what));
            }
            on_release_branches(acts)
        }
        // Once all of it, now what adds files to the release.
        ("semantic-release" | "python-semantic-release", ["publish", ..]) => {
            if dry {
                return Some(Vec::new());
            }
            let mut acts = at_once(what, command);
            acts.extend(with_registry(vec![Act::publish(what)]));
            on_release_branches(acts)
        }
        (
            "semantic-release" | "python-semantic-release",
            ["changelog" | "print-version" | "generate-config", ..],
        ) => Vec::new(),
        ("fullrelease", _) => {
            let mut acts = at_once(what, command);
            acts.push(Act::publish(what));
            acts
        }
        _ => return None,
    };
    Some(acts)
}

fn release(what: &str) -> Act {
    let op = Op::Release {
        draft: None,
        tag: None,
    };
    Act::new(op, what, Token::Env(API_ENV))
}

fn executes(command: &Command) -> bool {
    command.has("--execute") || command.has("-x")
}

/// One step of `cargo release` alone.
fn is_step(word: &str) -> bool {
    matches!(
        word,
        "publish"
            | "changes"
            | "version"
            | "replace"
            | "hook"
            | "commit"
            | "owner"
            | "tag"
            | "push"
            | "config"
    )
}

fn prints(command: &Command) -> bool {
    command.words.iter().any(|word| word.starts_with("--print"))
}
