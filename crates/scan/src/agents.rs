//! Coding agents in pipelines: how they are recognised, and what they are given.

use crate::acts::catalog::{With, name_of};
use crate::shell::Command;

/// An agent that runs as a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agent {
    /// Product name.
    pub(crate) name: &'static str,
    pub(crate) file: String,
    pub(crate) line: usize,
    /// The token it is given as an input or in its environment, as a template.
    pub(crate) token: Option<String>,
    /// The app whose token it uses when it is given none.
    pub(crate) own_app: Option<&'static str>,
    /// Tools it may use; `None` means all that its defaults allow.
    pub(crate) tools: Option<Vec<String>>,
    /// Whether its defaults let it run `git push` and other commands.
    pub(crate) shell: bool,
    /// Only reviews and comments.
    pub(crate) reviewer: bool,
    /// Templates that reach its prompt.
    pub(crate) prompt: Vec<(String, usize)>,
    /// Whether it checks by itself that whoever starts it may write to the repository.
    pub(crate) checks: ActorCheck,
    /// The bots that it takes tasks from, where it checks.
    pub(crate) bots: Bots,
    /// The action's reference, for pinning.
    pub(crate) uses: Option<String>,
    /// Recognised only by what it is given: whether its model may run commands is unknown.
    pub(crate) generic: bool,
}

/// When an agent's action refuses accounts without write access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ActorCheck {
    Never,
    /// On events of issues, comments and pull requests; not in runs that a schedule, a dispatch
    /// or another run starts.
    OnEntities,
    Always,
}

/// Which bots may start an agent's action that checks who starts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bots {
    All,
    /// Logins without `[bot]`, lower-cased.
    Only(Vec<String>),
}

impl Bots {
    fn read(text: Option<&str>) -> Self {
        let names: Vec<String> = text
            .unwrap_or_default()
            .split([',', '\n', ' '])
            .map(|name| name.trim().trim_end_matches("[bot]").to_ascii_lowercase())
            .filter(|name| !name.is_empty())
            .collect();
        if names.iter().any(|name| name == "*") {
            Self::All
        } else {
            Self::Only(names)
        }
    }

    /// Whether a bot may start it.
    pub(crate) fn admits(&self, login: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => {
                let login = login.trim_end_matches("[bot]").to_ascii_lowercase();
                names.contains(&login)
            }
        }
    }
}

/// Recognises an action that runs an agent.
pub(crate) fn by_action(uses: &str, with: &With<'_>) -> Option<Agent> {
    let name = name_of(uses);
    let mut agent = Agent {
        name: "",
        file: String::new(),
        line: 0,
        token: [
            "github_token",
            "github-token",
            "token",
            "GITHUB_TOKEN",
            "gh_token",
        ]
        .iter()
        .find_map(|key| with.get(key))
        .map(str::to_owned),
        own_app: None,
        tools: None,
        shell: false,
        reviewer: false,
        prompt: Vec::new(),
        checks: ActorCheck::Never,
        bots: Bots::All,
        uses: Some(uses.to_owned()),
        generic: false,
    };
    for key in [
        "prompt",
        "direct_prompt",
        "override_prompt",
        "custom_instructions",
        "prompt-file",
        "prompt_file",
        "args",
        "claude_args",
        "task",
        "message",
        "instructions",
    ] {
        if let Some(text) = with.get(key) {
            agent.prompt.push((text.to_owned(), 0));
        }
    }
    // Forks keep the name and do the same.
    let name = match name.split_once('/') {
        Some((_, "claude-code-action")) => "anthropics/claude-code-action".to_owned(),
        Some((_, "claude-code-base-action")) => "anthropics/claude-code-base-action".to_owned(),
        Some((_, rest)) if rest.ends_with("/.github/workflows/openhands-resolver.yml") => {
            "openhands/openhands/.github/workflows/openhands-resolver.yml".to_owned()
        }
        _ => name,
    };
    match name.as_str() {
        "anthropics/claude-code-action"
        | "anthropics/claude-code-action/base-action"
        | "anthropics/claude-code-base-action"
        | "grll/claude-code-action"
        | "kenryu42/claude-code-action" => {
            agent.name = "Claude Code";
            let base = name.contains("base-action");
            agent.own_app = (!base).then_some("claude");
            // The list of users without rights counts only together with a token of one's own.
            let open_to_all = agent.token.is_some()
                && with
                    .get("allowed_non_write_users")
                    .is_some_and(|users| users.contains('*'));
            if !base {
                agent.bots = Bots::read(with.get("allowed_bots"));
                if !open_to_all {
                    agent.checks = ActorCheck::OnEntities;
                }
            }
            // Version 1 has other inputs and passes over those of the versions before.
            let first = uses
                .split_once('@')
                .is_some_and(|(_, at)| at == "v1" || at.starts_with("v1."));
            agent.tools = claude_tools(with, first && !base);
            // With a prompt of its own the action gives the agent no shell. When it answers a
            // mention it gives it `git add`, `git commit` and a push of the branch that it made.
            // Before version 1 it was `git push` as such, with a prompt, too, unless its mode was
            // `agent`.
            let early = uses
                .split_once('@')
                .is_some_and(|(_, at)| at == "beta" || at.starts_with("v0"));
            let answers_mentions = if early {
                !with.says("mode", "agent")
            } else {
                with.get("prompt").is_none() && with.get("direct_prompt").is_none()
            };
            let open = agent.tools.as_ref().is_some_and(|tools| may_push(tools));
            let forbidden = with.get("claude_args").is_some_and(forbids_push)
                || with
                    .get("disallowed_tools")
                    .is_some_and(|text| split_tools(text).iter().any(|tool| denies_push(tool)));
            agent.shell = (open || (answers_mentions && !base && early)) && !forbidden;
        }
        "openai/codex-action" => {
            agent.name = "Codex";
            if !with
                .get("allow-users")
                .is_some_and(|users| users.contains('*'))
            {
                agent.checks = ActorCheck::Always;
            }
            agent.bots = if with.says("allow-bots", "true") {
                Bots::All
            } else {
                Bots::read(with.get("allow-bot-users"))
            };
            agent.shell = with
                .get("sandbox")
                .is_some_and(|mode| mode.contains("danger"))
                || with.get("codex-args").is_some_and(|args| {
                    args.contains("danger")
                        || args.contains("network_access=true")
                        || args.contains("--yolo")
                });
        }
        // The first form of the action: what its model may run is written in the action itself.
        "openai/codex/.github/actions/codex" => {
            agent.name = "Codex";
            agent.shell = true;
            agent.generic = true;
        }
        "google-github-actions/run-gemini-cli" | "google-gemini/gemini-cli-action" => {
            agent.name = "Gemini CLI";
            agent.tools = with.get("settings").and_then(gemini_tools);
            agent.shell = agent.tools.as_ref().is_none_or(|tools| may_push(tools));
        }
        "sst/opencode/github" | "anomalyco/opencode/github" | "opencode-ai/opencode" => {
            agent.name = "opencode";
            agent.own_app = (!with.says("use_github_token", "true")).then_some("opencode-agent");
            agent.checks = ActorCheck::OnEntities;
            agent.bots = Bots::Only(Vec::new());
            agent.shell = true;
        }
        "all-hands-ai/openhands/.github/workflows/openhands-resolver.yml"
        | "openhands/openhands/.github/workflows/openhands-resolver.yml"
        | "all-hands-ai/openhands-github-action"
        | "openhands/openhands-github-action" => {
            agent.name = "OpenHands";
            agent.shell = true;
        }
        "mirrajabi/aider-github-action"
        | "oscard0m/aider-action"
        | "aider-ai/aider-action"
        | "paul-gauthier/aider-action" => {
            agent.name = "Aider";
            agent.shell = false;
        }
        "cursor/agent-action" | "getcursor/cursor-agent-action" | "cursor/cursor-agent-action" => {
            agent.name = "Cursor";
            agent.shell = true;
        }
        "clawdbot/action" | "sourcegraph/amp-action" | "ampcode/amp-action" => {
            agent.name = "Amp";
            agent.shell = true;
        }
        "block/goose-action" | "clouatre-labs/setup-goose-action" => {
            agent.name = "Goose";
            agent.shell = true;
        }
        "google-labs-code/jules-action" | "google-labs-code/jules-invoke" => {
            agent.name = "Jules";
            agent.own_app = Some("google-labs-jules");
        }
        "sweepai/sweep" => {
            agent.name = "Sweep";
            agent.shell = true;
        }
        "augmentcode/augment-agent" | "augmentcode/describe-pr" => {
            agent.name = "Augment";
            agent.shell = true;
        }
        "factory-ai/droid-action" => {
            agent.name = "Droid";
            agent.own_app = Some("factory-droid");
            agent.shell = true;
            agent.checks = ActorCheck::OnEntities;
            agent.bots = Bots::read(with.get("allowed_bots"));
        }
        "warpdotdev/oz-agent-action" | "warpdotdev/warp-agent-action" => {
            agent.name = "Warp";
            agent.shell = true;
        }
        "qwenlm/qwen-code-action" => {
            agent.name = "Qwen Code";
            agent.shell = true;
        }
        "coderabbitai/ai-pr-reviewer"
        | "coderabbitai/openai-pr-reviewer"
        | "qodo-ai/pr-agent"
        | "codium-ai/pr-agent"
        | "the-pr-agent/pr-agent"
        | "anc95/chatgpt-codereview"
        | "freeedcom/ai-codereviewer"
        | "augmentcode/review-pr"
        | "mattzcarey/code-review-gpt"
        | "villesau/ai-codereviewer"
        | "anthropics/claude-code-security-review"
        | "alibaba/aibolit"
        | "presubmit/ai-reviewer" => {
            agent.name = "a review agent";
            agent.reviewer = true;
        }
        _ => return None,
    }
    Some(agent)
}

/// Recognises an agent's program.
pub(crate) fn by_command(name: &str, words: &[&str]) -> Option<&'static str> {
    let has = |flags: &[&str]| words.iter().any(|word| flags.contains(word));
    let package = |names: &[&str]| {
        words.first().is_some_and(|first| {
            names.iter().any(|name| {
                first
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
            })
        })
    };
    let asks_version = has(&[
        "--version",
        "-v",
        "--help",
        "mcp",
        "config",
        "install",
        "update",
        "login",
    ]);
    if asks_version && !has(&["-p", "--print", "exec", "--prompt"]) {
        return None;
    }
    let found = match name {
        "claude" if has(&["-p", "--print", "--dangerously-skip-permissions"]) => "Claude Code",
        "codex" if has(&["exec", "e", "--full-auto", "-q", "--quiet"]) => "Codex",
        "gemini" if has(&["-p", "--prompt", "--yolo", "-y"]) => "Gemini CLI",
        "aider" if words.len() > 1 => "Aider",
        "cursor-agent" => "Cursor",
        // The newer name of Cursor's command.
        "agent" if has(&["-p", "--print"]) => "Cursor",
        "amp" if has(&["-x", "--execute", "--dangerously-allow-all"]) => "Amp",
        "goose" if has(&["run"]) => "Goose",
        "opencode" if has(&["run"]) => "opencode",
        "copilot" if has(&["-p", "--prompt", "--allow-all-tools"]) => "Copilot",
        "qwen" if has(&["-p", "--prompt", "-y", "--yolo"]) => "Qwen Code",
        "openhands" => "OpenHands",
        "crush" if has(&["run"]) => "Crush",
        "droid" if has(&["exec"]) => "Droid",
        "auggie" if has(&["--print", "-p", "--quiet"]) => "Augment",
        "plandex" | "pdx" if has(&["tell"]) => "Plandex",
        "q" | "kiro-cli" if has(&["chat"]) => "Amazon Q",
        "cn" if has(&["-p", "--print"]) => "Continue",
        "cline" if has(&["-y", "--yolo", "--oneshot", "-o"]) => "Cline",
        "kilocode" | "kilo" if has(&["--auto", "-a", "run"]) => "Kilo Code",
        "iflow" if has(&["-p", "--prompt", "-y", "--yolo"]) => "iFlow",
        "acli" if has(&["rovodev"]) && has(&["run"]) => "Rovo Dev",
        "oz" | "warp" if has(&["agent"]) && has(&["run"]) => "Warp",
        "openhands.resolver.resolve_issue" | "openhands.resolver" | "openhands.core.main" => {
            "OpenHands"
        }
        _ if package(&["@anthropic-ai/claude-code"])
            && has(&["-p", "--print", "--dangerously-skip-permissions"]) =>
        {
            "Claude Code"
        }
        _ if package(&["@openai/codex"]) && has(&["exec", "--full-auto"]) => "Codex",
        _ if package(&["@google/gemini-cli"]) => "Gemini CLI",
        _ => return None,
    };
    Some(found)
}

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
fn claude_tools(with: &With<'_>, first: bool) -> Option<Vec<String>> {
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
fn asks_for_no_limits(arguments: &str) -> bool {
    arguments.contains("--dangerously-skip-permissions")
        || arguments
            .split_once("--permission-mode")
            .is_some_and(|(_, rest)| {
                rest.trim_start_matches(['=', ' ', '"', '\''])
                    .starts_with("bypassPermissions")
            })
}

/// The tools after `--allowedTools`: one quoted list, or words until the next flag.
fn listed_tools(rest: &str) -> Vec<String> {
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
fn denies_push(tool: &str) -> bool {
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
fn forbids_push(arguments: &str) -> bool {
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
fn allowed_by_settings(settings: &str) -> Vec<String> {
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

fn gemini_tools(settings: &str) -> Option<Vec<String>> {
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
fn without_templates(text: &str) -> String {
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

/// Whether a tool list lets its agent push commits.
pub(crate) fn may_push(tools: &[String]) -> bool {
    tools.iter().any(|tool| {
        let lower = tool.to_ascii_lowercase();
        matches!(
            lower.as_str(),
            "bash"
                | "bash(*)"
                | "bash(*:*)"
                | "*"
                | "shell"
                | "bash(git:*)"
                | "bash(git *)"
                | "bash(git)"
                | "shell(git:*)"
        ) || lower.starts_with("bash(git push")
            || lower.starts_with("shell(git push")
            || lower.contains("mcp__github__push_files")
            || lower.contains("mcp__github__create_or_update_file")
            || lower.contains("mcp__github_file_ops")
    })
}

/// Whether a tool list lets its agent merge pull requests.
pub(crate) fn may_merge(tools: &[String]) -> bool {
    tools.iter().any(|tool| {
        let lower = tool.to_ascii_lowercase();
        matches!(
            lower.as_str(),
            "bash"
                | "bash(*)"
                | "bash(*:*)"
                | "*"
                | "shell"
                | "bash(gh:*)"
                | "bash(gh *)"
                | "bash(gh)"
                | "bash(gh pr:*)"
                | "bash(gh pr *)"
                | "bash(gh api:*)"
        ) || lower.starts_with("bash(gh pr merge")
            || lower.contains("merge_pull_request")
    })
}
