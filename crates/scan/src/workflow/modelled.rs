//! Agents that no list knows, by what they are given: a model's key and a task.
//!
//! A program that nothing knows and that gets a model's key may ask the model for a text, or let it
//! work in the checkout. The second is shown by flags that let it act without asking, or by names
//! that call it an agent together with a task or with steps behind it that commit what it left.

use super::unread::{Kind, Unread};
use super::{Job, Pairs, Step};
use crate::acts::words;
use crate::acts::{Op, Target};
use crate::agents::{self, Agent};

/// Marks of the names of models' keys.
const KEYS: &[&str] = &[
    "ANTHROPIC",
    "CLAUDE_CODE_OAUTH",
    "CLAUDE_API",
    "OPENAI",
    "GEMINI",
    "GOOGLE_GENERATIVE",
    "OPENROUTER",
    "CURSOR_API",
    "DEEPSEEK",
    "MISTRAL",
    "XAI_API",
    "GROQ",
    "ZAI_API",
    "GLM_API",
    "ZHIPU",
    "MOONSHOT",
    "KIMI",
    "DASHSCOPE",
    "LLM_API",
    "LLM_KEY",
    "MODEL_API",
    "MODEL_KEY",
    "AI_GATEWAY",
    "AI_API_KEY",
];

/// Flags that let a program act without asking anybody.
const FREE: &[&str] = &[
    "--yolo",
    "--full-auto",
    "--auto-approve",
    "--auto-approve-all",
    "--allow-all",
    "--allow-all-tools",
    "--allow-all-paths",
    "--dangerously-skip-permissions",
    "--dangerously-bypass-approvals-and-sandbox",
    "--dangerously-allow-all",
    "--skip-permissions",
    "--no-sandbox",
    "--approve-all",
    "--bypass-permissions",
    "--trust-all-tools",
    "--autonomous",
];

/// Words that give a task.
const TASKS: &[&str] = &[
    "-p",
    "--print",
    "--prompt",
    "--task",
    "--issue",
    "--issue-number",
    "--issue-url",
    "run",
    "exec",
    "solve",
    "fix",
    "implement",
    "agent",
    "chat",
    "start",
];

/// Names of what works in a checkout.
const WORKERS: &[&str] = &[
    "agent",
    "agents",
    "autofix",
    "coder",
    "developer",
    "implement",
    "implements",
    "solve",
    "solver",
    "resolve",
    "resolver",
    "fix",
    "fixer",
    "autonomous",
    "engineer",
    "swe",
];

/// Names of what only asks a model for a text.
const TALKERS: &[&str] = &[
    "review",
    "reviewer",
    "comment",
    "summary",
    "summarize",
    "summarise",
    "triage",
    "label",
    "changelog",
    "notes",
    "translate",
    "translation",
    "i18n",
    "describe",
    "classify",
    "digest",
    "embed",
    "embeddings",
    "index",
    "eval",
    "evals",
    "evaluate",
    "test",
    "tests",
    "benchmark",
    "docs",
    "report",
    "analyze",
    "analyse",
    "score",
    "moderate",
    "answer",
    "newsletter",
    "caption",
];

/// Adds the agents of the jobs' steps that no list knows.
pub(super) fn agents(jobs: &mut [Job], file: &str, env: &Pairs) {
    for job in jobs {
        let wide = has_key(env) || has_key(&job.env);
        let called = format!("{} {}", job.id, job.name.as_deref().unwrap_or_default());
        let last = job.steps.iter().rposition(carries);
        for at in 0..job.steps.len() {
            let carried = last.is_some_and(|last| last > at);
            let Some(step) = job.steps.get_mut(at) else {
                continue;
            };
            add(step, file, wide, &called, carried, 0);
        }
    }
}

/// Adds the agents of a step, and of the steps of an action of the repository.
fn add(step: &mut Step, file: &str, wide: bool, called: &str, carried: bool, depth: u8) {
    /// Deepest chain of composite actions.
    const DEPTH_MAX: u8 = 8;
    if let Some(agent) = agent_of(step, file, wide, called, carried) {
        step.agents.retain(|known| !known.generic);
        step.agents.push(agent);
    }
    let wide = wide || has_key(&step.env);
    let called = step.name.as_deref().unwrap_or(called).to_owned();
    if let Some(inner) = step.inner.as_mut().filter(|_| depth < DEPTH_MAX) {
        let last = inner.steps.iter().rposition(carries);
        for at in 0..inner.steps.len() {
            let carried = carried || last.is_some_and(|last| last > at);
            if let Some(step) = inner.steps.get_mut(at) {
                add(step, file, wide, &called, carried, depth + 1);
            }
        }
    }
}

/// Whether an environment holds a model's key.
fn has_key(env: &Pairs) -> bool {
    env.iter().any(|(name, value)| {
        let name = name.to_ascii_uppercase();
        value.contains("${{") && KEYS.iter().any(|key| name.contains(key))
    })
}

/// Whether a step commits or proposes what stands in the checkout.
fn carries(step: &Step) -> bool {
    step.acts.iter().any(|act| match &act.op {
        Op::CreatePr(_) => true,
        Op::Push(target) => !matches!(target, Target::Tags(_) | Target::Elsewhere(_)),
        _ => false,
    })
}

fn agent_of(step: &Step, file: &str, wide: bool, called: &str, carried: bool) -> Option<Agent> {
    if step.agents.iter().any(|agent| !agent.generic) || !(wide || has_key(&step.env)) {
        return None;
    }
    let (_, line) = step.run.as_ref()?;
    let unread = step.unread.iter().find(|unread| {
        matches!(unread.kind, Kind::Program | Kind::Command) && works(unread, step, called, carried)
    })?;
    Some(Agent {
        name: "a program with a model's key",
        file: file.to_owned(),
        line: if unread.line == 0 { *line } else { unread.line },
        token: None,
        own_app: None,
        tools: None,
        shell: true,
        reviewer: false,
        prompt: vec![(unread.what.clone(), *line)],
        checks: agents::ActorCheck::Never,
        bots: agents::Bots::All,
        uses: None,
        generic: false,
        needs: agents::Needs::default(),
        asks: agents::prompts::Asks::default(),
    })
}

/// Whether a program lets its model work in the checkout, as far as its flags and names tell.
fn works(unread: &Unread, step: &Step, called: &str, carried: bool) -> bool {
    let given: Vec<&str> = unread.what.split_whitespace().collect();
    let has = |list: &[&str]| given.iter().any(|word| list.contains(word));
    let named = step.name.as_deref().unwrap_or(called);
    let mut of_step = words::words(&unread.name);
    of_step.extend(words::words(named));
    let says = |all: &[String], list: &[&str]| all.iter().any(|word| list.contains(&word.as_str()));
    if unread.name.contains('/') || says(&of_step, TALKERS) {
        return false;
    }
    if has(FREE) {
        return true;
    }
    let mut all = of_step;
    all.extend(words::words(called));
    let task = has(TASKS);
    says(&all, WORKERS)
        && (task || carried)
        && (task && carried || says(&all, &["agent", "agents"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_by_their_names() {
        let pair = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        assert!(has_key(&pair("ANTHROPIC_API_KEY", "${{ secrets.A }}")));
        assert!(has_key(&pair("MY_OPENAI_API_KEY", "${{ secrets.A }}")));
        assert!(!has_key(&pair("ANTHROPIC_MODEL", "opus")));
        assert!(!has_key(&pair("GITHUB_TOKEN", "${{ secrets.A }}")));
    }
}
