//! Coding agents in pipelines: how they are recognised, and what they are given.

pub(crate) mod prompts;
mod tools;

pub(crate) use tools::{
    by_project_settings, may_approve, may_merge, may_push, may_release, split_tools,
    tools_of_command,
};
use tools::{claude_tools, denies_push, forbids_push, gemini_tools};

use crate::acts::catalog::{With, name_of};

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
    pub(crate) needs: Needs,
    /// What its prompt tells it to do.
    pub(crate) asks: prompts::Asks,
}

/// What an agent's action asks for before it starts its agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// The run's identity, to get a token of its app for where it is given none.
    pub(crate) identity: bool,
    /// The events that it takes; empty for any.
    pub(crate) events: &'static [&'static str],
    /// The events that bring it no task of their own, where nothing else gives it one.
    pub(crate) idle: &'static [&'static str],
}

/// Events that carry an issue, a comment or a pull request to Claude Code's action.
const CLAUDE_EVENTS: &[&str] = &[
    "issues",
    "issue_comment",
    "pull_request",
    "pull_request_target",
    "pull_request_review",
    "pull_request_review_comment",
    "workflow_dispatch",
    "repository_dispatch",
    "schedule",
    "workflow_run",
];
const CLAUDE_IDLE: &[&str] = &[
    "workflow_dispatch",
    "repository_dispatch",
    "schedule",
    "workflow_run",
];

/// What opencode asks for (its `github run`).
pub(crate) fn opencode_needs(prompted: bool) -> Needs {
    Needs {
        identity: true,
        events: &[
            "issues",
            "issue_comment",
            "pull_request",
            "pull_request_review_comment",
            "schedule",
            "workflow_dispatch",
        ],
        idle: if prompted {
            &[]
        } else {
            &["issues", "schedule", "workflow_dispatch"]
        },
    }
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
        needs: Needs::default(),
        asks: prompts::Asks::default(),
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
                let prompted = ["prompt", "direct_prompt", "override_prompt", "prompt_file"]
                    .iter()
                    .any(|name| with.get(name).is_some_and(|text| !text.trim().is_empty()));
                agent.needs = Needs {
                    identity: true,
                    events: CLAUDE_EVENTS,
                    idle: if prompted { &[] } else { CLAUDE_IDLE },
                };
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
            agent.needs = opencode_needs(
                with.get("prompt")
                    .is_some_and(|text| !text.trim().is_empty()),
            );
            agent.needs.identity = agent.own_app.is_some();
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
            // The workflow heeds comments of owners, members and collaborators alone.
            if name.ends_with("openhands-resolver.yml") {
                agent.checks = ActorCheck::OnEntities;
                agent.bots = Bots::Only(Vec::new());
            }
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
            agent.needs.identity = true;
            agent.shell = true;
            agent.checks = ActorCheck::OnEntities;
            agent.bots = Bots::read(with.get("allowed_bots"));
        }
        "warpdotdev/oz-agent-action" | "warpdotdev/warp-agent-action" => {
            agent.name = "Warp";
            agent.shell = true;
        }
        "shaftoe/pi-coding-agent-action" => {
            agent.name = "pi";
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
        "pi" if has(&["-p", "--print", "--mode", "--prompt", "-c"]) => "Pi",
        "kimi" if has(&["-p", "--print", "--command", "-c", "--yolo", "-y"]) => "Kimi",
        "vibe" if has(&["-p", "--prompt", "--auto-approve"]) => "Mistral Vibe",
        "grok" if has(&["-p", "--prompt"]) => "Grok",
        "forge" if has(&["-p", "--prompt"]) => "Forge",
        "gptme" if has(&["-n", "--non-interactive", "-y", "--no-confirm"]) => "gptme",
        "sweagent" | "swe-agent" if has(&["run", "run-batch"]) => "SWE-agent",
        "mini" | "mini-swe-agent" if has(&["-t", "--task"]) => "SWE-agent",
        "ra-aid" if has(&["-m", "--message", "--msg-file"]) => "RA.Aid",
        "trae-cli" if has(&["run"]) => "Trae",
        "interpreter" if has(&["-y", "--auto_run"]) => "Open Interpreter",
        "codebuff" | "deepagents" if words.len() > 1 => "a coding agent",
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
