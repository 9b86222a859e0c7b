//! Tools that an agent is given: by its command line, its action's inputs or its settings, and what
//! they let it do.

use super::Agent;
use crate::acts::catalog::With;
use crate::shell::Command;

/// Tools that a command line restricts its agent to.
pub(crate) fn tools_of_command(command: &Command) -> Option<Vec<String>> {
    let text = command.text();
    if asks_for_no_limits(&text)
        || [
            "--yolo",
            "--dangerously-bypass-approvals-and-sandbox",
            "--dangerously-allow-all",
            "--allow-all-tools",
            "--allow-all",
            "--trust-all-tools",
            "--skip-permissions-unsafe",
        ]
        .iter()
        .any(|flag| command.has(flag))
        || matches!(
            command.option(&["--approval-mode"]),
            Some("yolo" | "bypassPermissions")
        )
    {
        return None;
    }
    let mut tools = Vec::new();
    let flags = ["--allowedTools", "--allowed-tools", "--allow-tool"];
    let mut words = command.words.iter().peekable();
    while let Some(word) = words.next() {
        if flags.contains(&word.as_str()) {
            while let Some(value) = words.next_if(|next| !next.starts_with('-')) {
                tools.extend(split_tools(value));
            }
        } else if let Some(value) = flags
            .iter()
            .find_map(|flag| word.strip_prefix(flag)?.strip_prefix('='))
        {
            tools.extend(split_tools(value));
        }
    }
    if !tools.is_empty() {
        return Some(tools);
    }
    let name = command
        .words
        .first()
        .map(String::as_str)
        .unwrap_or_default();
    match name.rsplit('/').next().unwrap_or_default() {
        // Asked for no tool, it runs no command without someone to confirm.
        "claude" => Some(Vec::new()),
        // The sandbox has no network unless it is asked for.
        "codex"
            if !command.text().contains("danger")
                && !command.text().contains("network_access=true") =>
        {
            Some(Vec::new())
        }
        "aider" => Some(Vec::new()),
        // Without a flag that allows tools these run no command that a person has not confirmed.
        "gemini" | "qwen" if !command.has("-y") => Some(Vec::new()),
        "copilot" | "amp" | "q" => Some(Vec::new()),
        // It stays local below this level.
        "droid" if command.option(&["--auto"]) != Some("high") => Some(Vec::new()),
        _ => None,
    }
}

/// `Bash(git push:*),Edit` as a list; commas inside brackets belong to the tool.
pub(crate) fn split_tools(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut current = String::new();
    let mut depth = 0_usize;
    for character in text.chars() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && matches!(character, ',' | '\n') {
            out.push(std::mem::take(&mut current));
        } else {
            current.push(character);
        }
    }
    out.push(current);
    out.iter()
        .map(|tool| {
            tool.trim()
                .trim_matches(['"', '\'', '[', ']'])
                .trim()
                .to_owned()
        })
        .filter(|tool| !tool.is_empty())
        .collect()
}

/// The tools that the action allows beside its defaults; `None` where it allows none.
pub(super) fn claude_tools(with: &With<'_>, first: bool) -> Option<Vec<String>> {
    let mut out = Vec::new();
    if let Some(text) = with.get("allowed_tools").or(with.get("allowed-tools"))
        && !first
    {
        out.extend(split_tools(text));
    }
    if let Some(settings) = with.get("settings") {
        out.extend(allowed_by_settings(settings));
    }
    if let Some(args) = with.get("claude_args") {
        if asks_for_no_limits(args) {
            out.push("Bash".to_owned());
        }
        for flag in ["--allowedTools", "--allowed-tools"] {
            for (at, _) in args.match_indices(flag) {
                out.extend(listed_tools(
                    args.get(at + flag.len()..).unwrap_or_default(),
                ));
            }
        }
    }
    (!out.is_empty()).then_some(out)
}

/// Whether arguments let Claude Code run anything without asking.
pub(super) fn asks_for_no_limits(arguments: &str) -> bool {
    arguments.contains("--dangerously-skip-permissions")
        || arguments
            .split_once("--permission-mode")
            .is_some_and(|(_, rest)| {
                rest.trim_start_matches(['=', ' ', '"', '\''])
                    .starts_with("bypassPermissions")
            })
}

/// The tools after `--allowedTools`: one quoted list, or words until the next flag.
pub(super) fn listed_tools(rest: &str) -> Vec<String> {
    let rest = rest.trim_start_matches(['=', ' ', '\n', '\t']);
    let mut out = Vec::new();
    let mut rest = rest;
    while let Some(first) = rest.chars().next() {
        if first == '-' {
            break;
        }
        let (word, tail) = match first {
            '"' | '\'' => {
                let inner = rest.get(1..).unwrap_or_default();
                inner.split_once(first).unwrap_or((inner, ""))
            }
            _ => {
                // `Bash(git push:*)` holds a space inside its brackets.
                let mut depth = 0_usize;
                let end = rest
                    .find(|c: char| {
                        match c {
                            '(' => depth += 1,
                            ')' => depth = depth.saturating_sub(1),
                            _ => {}
                        }
                        depth == 0 && c.is_whitespace()
                    })
                    .unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        out.extend(split_tools(word));
        rest = tail.trim_start();
    }
    out
}

/// What a repository's own `.claude/settings.json` does to an agent of the product that reads it.
pub(crate) fn by_project_settings(agent: &mut Agent, settings: &str) {
    if agent.name != "Claude Code" {
        return;
    }
    let allowed = allowed_by_settings(settings);
    agent.shell |= may_push(&allowed);
    if let Some(tools) = &mut agent.tools {
        tools.extend(allowed);
    } else if !agent.shell && !allowed.is_empty() {
        agent.tools = Some(allowed);
    }
    let Ok(json) = serde_json::from_str::<serde_json::Value>(settings) else {
        return;
    };
    let denied = json
        .pointer("/permissions/deny")
        .and_then(serde_json::Value::as_array)
        .is_some_and(|list| {
            list.iter()
                .filter_map(serde_json::Value::as_str)
                .any(denies_push)
        });
    if denied {
        agent.shell = false;
    }
}

/// Whether a forbidden tool takes every push.
pub(super) fn denies_push(tool: &str) -> bool {
    matches!(
        tool.to_ascii_lowercase().replace(' ', "").as_str(),
        "bash"
            | "bash(*)"
            | "bash(*:*)"
            | "bash(git)"
            | "bash(git:*)"
            | "bash(git*)"
            | "bash(gitpush)"
            | "bash(gitpush:*)"
            | "bash(gitpush*)"
    )
}

/// Whether arguments forbid every push, whatever they allow.
pub(super) fn forbids_push(arguments: &str) -> bool {
    ["--disallowedTools", "--disallowed-tools"]
        .iter()
        .any(|flag| {
            arguments.match_indices(flag).any(|(at, _)| {
                listed_tools(arguments.get(at + flag.len()..).unwrap_or_default())
                    .iter()
                    .any(|tool| denies_push(tool))
            })
        })
}

/// Whether a tool list lets its agent make tags or releases by name.
pub(crate) fn may_release(tools: &[String]) -> bool {
    tools.iter().any(|tool| {
        let lower = tool.to_ascii_lowercase();
        lower.starts_with("bash(gh release") && !lower.contains("view") && !lower.contains("list")
            || lower.contains("mcp__github__create_release")
    })
}

/// `permissions.allow` of Claude Code's settings, given as JSON.
pub(super) fn allowed_by_settings(settings: &str) -> Vec<String> {
    let Ok(json) = serde_json::from_str::<serde_json::Value>(settings) else {
        return Vec::new();
    };
    if json
        .pointer("/permissions/defaultMode")
        .and_then(serde_json::Value::as_str)
        == Some("bypassPermissions")
    {
        return vec!["Bash".to_owned()];
    }
    json.pointer("/permissions/allow")
        .and_then(serde_json::Value::as_array)
        .map(|list| {
            list.iter()
                .filter_map(serde_json::Value::as_str)
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default()
}

pub(super) fn gemini_tools(settings: &str) -> Option<Vec<String>> {
    let json: serde_json::Value = serde_json::from_str(&without_templates(settings)).ok()?;
    let list = json
        .get("coreTools")
        .or_else(|| json.pointer("/tools/core"))?
        .as_array()?;
    let mut out: Vec<String> = list
        .iter()
        .filter_map(|tool| tool.as_str())
        .map(|tool| {
            tool.replace("run_shell_command", "Bash")
                .replace("ShellTool", "Bash")
        })
        .collect();
    // The forge's tools come from its server, all of them unless some are named.
    if let Some(server) = json.pointer("/mcpServers/github") {
        match server.get("includeTools").and_then(|list| list.as_array()) {
            Some(list) => out.extend(
                list.iter()
                    .filter_map(|tool| tool.as_str())
                    .map(|tool| format!("mcp__github__{tool}")),
            ),
            None => out.extend([
                "mcp__github__push_files".to_owned(),
                "mcp__github__merge_pull_request".to_owned(),
            ]),
        }
    }
    Some(out)
}

/// A text with every `${{ … }}` replaced by a number, so that JSON around them can be read.
pub(super) fn without_templates(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, tail)) = rest.split_once("${{") {
        out.push_str(before);
        out.push('0');
        rest = tail.split_once("}}").map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    out
}

/// Whether a tool, lower-cased, lets its agent run any command, or any of this program.
fn runs(tool: &str, program: &str) -> bool {
    if matches!(tool, "bash" | "bash(*)" | "bash(*:*)" | "*" | "shell") {
        return true;
    }
    ["bash(", "shell("].iter().any(|shell| {
        tool.strip_prefix(shell)
            .and_then(|rest| rest.strip_prefix(program))
            .is_some_and(|rest| matches!(rest, ":*)" | " *)" | ")"))
    })
}

/// Whether a rule for `git push` takes branches of one kind alone, by the beginning of their names:
/// ` origin fix/*)`. Whoever writes that means no other; that a refspec may hold a colon is known.
fn names_own_branch(rest: &str) -> bool {
    let rest = rest.trim_end_matches(')').trim_end_matches(":*");
    let mut plain = rest
        .split_whitespace()
        .filter(|word| !word.starts_with('-'));
    let (Some(_), Some(branch), None) = (plain.next(), plain.next(), plain.next()) else {
        return false;
    };
    let named = branch.trim_end_matches('*').trim_start_matches("head:");
    !named.is_empty()
        && !named.contains(['$', '*'])
        && ![
            "main",
            "master",
            "head",
            "develop",
            "dev",
            "trunk",
            "next",
            "refs/heads/",
        ]
        .iter()
        .any(|name| name.starts_with(named) || named.starts_with(name))
}

/// Whether a tool list lets its agent push commits.
pub(crate) fn may_push(tools: &[String]) -> bool {
    tools.iter().any(|tool| {
        let lower = tool.to_ascii_lowercase();
        runs(&lower, "git")
            || ["bash(git push", "shell(git push"]
                .iter()
                .filter_map(|start| lower.strip_prefix(start))
                .any(|rest| !names_own_branch(rest))
            || lower.contains("mcp__github__push_files")
            || lower.contains("mcp__github__create_or_update_file")
            || lower.contains("mcp__github_file_ops")
    })
}

/// Whether a tool list lets its agent review pull requests.
pub(crate) fn may_approve(tools: &[String]) -> bool {
    may_at_requests(tools, "gh pr review", "pull_request_review")
}

/// Whether a tool list lets its agent merge pull requests.
pub(crate) fn may_merge(tools: &[String]) -> bool {
    may_at_requests(tools, "gh pr merge", "merge_pull_request")
}

/// Whether a tool list lets its agent run a command of `gh pr`, or call the forge's tool for it.
fn may_at_requests(tools: &[String], command: &str, tool_of_forge: &str) -> bool {
    tools.iter().any(|tool| {
        let lower = tool.to_ascii_lowercase();
        runs(&lower, "gh")
            || matches!(
                lower.as_str(),
                "bash(gh pr:*)" | "bash(gh pr *)" | "bash(gh api:*)" | "bash(gh api *)"
            )
            || ["bash(", "shell("].iter().any(|shell| {
                lower
                    .strip_prefix(shell)
                    .is_some_and(|rest| rest.starts_with(command))
            })
            || lower.contains(tool_of_forge)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_for_branches_of_ones_own_is_no_push_to_the_default_one() {
        let may = |tool: &str| may_push(&[tool.to_owned()]);
        for free in [
            "Bash(git push)",
            "Bash(git push:*)",
            "Bash(git push *)",
            "Bash(git push origin:*)",
            "Bash(git push origin main)",
            "Bash(git push origin HEAD)",
            "Bash(git push origin HEAD:main)",
            "Bash(git push origin *)",
            "Bash(git push -u origin m*)",
            "Bash(git push origin $BRANCH)",
            "Bash(git:*)",
            "Bash",
        ] {
            assert!(may(free), "{free}");
        }
        for own in [
            "Bash(git push origin fix/*)",
            "Bash(git push -u origin claude/*:*)",
            "Bash(git push origin HEAD:fix-*)",
            "Bash(git status)",
        ] {
            assert!(!may(own), "{own}");
        }
    }
}
