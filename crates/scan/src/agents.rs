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
    /// It checks by itself that whoever starts it may write to the repository.
    pub(crate) checks_actor: bool,
    /// The action's reference, for pinning.
    pub(crate) uses: Option<String>,
    /// Recognised only by what it is given: whether its model may run commands is unknown.
    pub(crate) generic: bool,
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
        checks_actor: false,
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
            agent.checks_actor = !base && with.get("allowed_non_write_users").is_none();
            agent.tools = claude_tools(with);
            // With a prompt of its own the action gives the agent no shell; when it answers a
            // mention it gives it `git add`, `git commit` and `git push`.
            let answers_mentions =
                with.get("prompt").is_none() && with.get("direct_prompt").is_none();
            let open = agent.tools.as_ref().is_some_and(|tools| may_push(tools));
            agent.shell = open || (answers_mentions && !base);
        }
        "openai/codex-action" => {
            agent.name = "Codex";
            agent.checks_actor = with.get("allow-users").is_none()
                && with.get("allow-bots").is_none_or(|value| value != "true");
            agent.shell = with
                .get("sandbox")
                .is_some_and(|mode| mode.contains("danger"))
                || with.get("codex-args").is_some_and(|args| {
                    args.contains("danger")
                        || args.contains("network_access=true")
                        || args.contains("--yolo")
                });
        }
        "google-github-actions/run-gemini-cli" | "google-gemini/gemini-cli-action" => {
            agent.name = "Gemini CLI";
            agent.tools = with.get("settings").and_then(gemini_tools);
            agent.shell = agent.tools.as_ref().is_none_or(|tools| may_push(tools));
        }
        "sst/opencode/github" | "anomalyco/opencode/github" | "opencode-ai/opencode" => {
            agent.name = "opencode";
            agent.own_app = Some("opencode-agent");
            agent.checks_actor = true;
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
            agent.checks_actor = true;
        }
        "qwenlm/qwen-code-action" => {
            agent.name = "Qwen Code";
            agent.shell = true;
        }
        "coderabbitai/ai-pr-reviewer"
        | "coderabbitai/openai-pr-reviewer"
        | "qodo-ai/pr-agent"
        | "codium-ai/pr-agent"
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
        "q" if has(&["chat"]) => "Amazon Q",
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
    if command.has("--dangerously-skip-permissions")
        || command.has("--yolo")
        || command.has("--dangerously-bypass-approvals-and-sandbox")
    {
        return None;
    }
    if let Some(text) = command.option(&["--allowedTools", "--allowed-tools", "--allow-tool"]) {
        return Some(split_tools(text));
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

fn claude_tools(with: &With<'_>) -> Option<Vec<String>> {
    if let Some(text) = with.get("allowed_tools").or(with.get("allowed-tools")) {
        return Some(split_tools(text));
    }
    let args = with.get("claude_args")?;
    if args.contains("--dangerously-skip-permissions") {
        return Some(vec!["Bash".to_owned()]);
    }
    let at = ["--allowedTools", "--allowed-tools"]
        .iter()
        .find_map(|flag| args.find(flag).map(|at| at + flag.len()))?;
    let rest = args.get(at..)?.trim_start_matches(['=', ' ', '\n']);
    let value = match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => rest.get(1..)?.split(quote).next()?,
        _ => rest.split_whitespace().next()?,
    };
    Some(split_tools(value))
}

fn gemini_tools(settings: &str) -> Option<Vec<String>> {
    let json: serde_json::Value = serde_json::from_str(settings).ok()?;
    let list = json
        .get("coreTools")
        .or_else(|| json.pointer("/tools/core"))?
        .as_array()?;
    Some(
        list.iter()
            .filter_map(|tool| tool.as_str())
            .map(|tool| {
                tool.replace("run_shell_command", "Bash")
                    .replace("ShellTool", "Bash")
            })
            .collect(),
    )
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
