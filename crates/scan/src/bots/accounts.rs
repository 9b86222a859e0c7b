//! Accounts that open pull requests here though no file of theirs says so.

use super::{Authors, Bot, Duty, dependabot_bot, renovate_bot};
use crate::acts::Op;
use crate::expr;
use crate::repository::negated;
use crate::workflow::{Condition, Step, Workflow};

/// Accounts that a bot's rule merges for and whose names say that they are automation: they open
/// pull requests here, though no file of the repository configures them.
pub(super) fn automation_accounts(bots: &[Bot]) -> Vec<Bot> {
    let mut out: Vec<Bot> = Vec::new();
    for bot in bots {
        let Duty::Merges {
            authors: Authors::Only(list),
            ..
        } = &bot.duty
        else {
            continue;
        };
        for name in list {
            let lower = name.to_ascii_lowercase();
            let automation = [
                "bot",
                "steward",
                "renovate",
                "greenkeeper",
                "snyk",
                "depfu",
                "pyup",
                "robot",
                "machine",
                "automation",
                "jx-",
                "-ci",
                "weblate",
                "crowdin",
                "transifex",
                "github-actions",
            ]
            .iter()
            .any(|mark| lower.contains(mark));
            let stem = lower.trim_end_matches("[bot]");
            let known = |other: &Bot| {
                matches!(other.duty, Duty::Opens { .. })
                    && other.login.to_ascii_lowercase().starts_with(stem)
            };
            if !automation
                || stem.is_empty()
                || bots.iter().any(known)
                || out.iter().any(known)
                || lower.contains(['*', '(', '+'])
            {
                continue;
            }
            out.push(match stem {
                "dependabot" | "dependabot-preview" => {
                    dependabot_bot(&bot.file, bot.line, vec!["dependencies".to_owned()])
                }
                "renovate" | "renovate-bot" => renovate_bot(&bot.file, bot.line, Vec::new()),
                _ => Bot {
                    product: "An automation account",
                    login: name.clone(),
                    file: bot.file.clone(),
                    line: bot.line,
                    duty: Duty::Opens {
                        head: "update/x",
                        labels: Vec::new(),
                        runs_held: false,
                        base: None,
                        files: None,
                    },
                },
            });
        }
    }
    out
}

/// Coding agents that a pipeline's scripts start elsewhere: by their services' interfaces, or by
/// assigning an issue to them. They open pull requests here.
pub(crate) fn launched(workflows: &[Workflow], bots: &mut Vec<Bot>) {
    /// Marks in a script, the product, its login, its branch, and whether its runs are held.
    const MARKS: &[(&[&str], &str, &str, &str, bool)] = &[
        (
            &["api.cursor.com/v0/agents", "api.cursor.com/v1/agents"],
            "Cursor",
            "cursor[bot]",
            "cursor/x",
            false,
        ),
        (
            &["jules.googleapis.com"],
            "Jules",
            "google-labs-jules[bot]",
            "jules/x",
            false,
        ),
        (
            &["api.devin.ai"],
            "Devin",
            "devin-ai-integration[bot]",
            "devin/x",
            false,
        ),
        (
            &["app.all-hands.dev/api"],
            "OpenHands",
            "openhands-agent",
            "openhands/x",
            false,
        ),
        (
            &[
                "gh agent-task create",
                "copilot-swe-agent",
                "--add-assignee @copilot",
                "--add-assignee \"@copilot\"",
                "--assignee @copilot",
                "--assignee \"@copilot\"",
            ],
            "Copilot coding agent",
            "Copilot",
            "copilot/fix",
            true,
        ),
    ];
    for workflow in workflows {
        for step in workflow.jobs.iter().flat_map(|job| &job.steps) {
            let script = step.run.as_ref().map(|(text, line)| (text, *line));
            let code = step
                .with
                .iter()
                .find(|(name, _)| name == "script")
                .map(|(_, text)| (text, step.line));
            for (text, line) in script.into_iter().chain(code) {
                for (marks, product, login, head, runs_held) in MARKS {
                    let Some(at) = marks.iter().find_map(|mark| text.find(mark)) else {
                        continue;
                    };
                    if bots.iter().any(|bot| {
                        bot.product == *product && matches!(bot.duty, Duty::Opens { .. })
                    }) {
                        continue;
                    }
                    let before = text.get(..at).unwrap_or_default();
                    bots.push(Bot {
                        product,
                        login: (*login).to_owned(),
                        file: workflow.file.clone(),
                        line: line + before.matches('\n').count(),
                        duty: Duty::Opens {
                            head,
                            labels: Vec::new(),
                            runs_held: *runs_held,
                            base: None,
                            files: None,
                        },
                    });
                }
            }
        }
    }
}

/// Agents whose branches or pull requests a workflow of the repository is written for: by the
/// branches that it listens to or asks for, or by the name of a workflow that merges.
pub(crate) fn expected(workflows: &[Workflow], bots: &mut Vec<Bot>) {
    /// The word, the product, its login, its branch, and whether its runs are held.
    const AGENTS: &[(&str, &str, &str, &str, bool)] = &[
        ("claude", "Claude Code", "claude[bot]", "claude/x", false),
        ("jules", "Jules", "google-labs-jules[bot]", "jules/x", false),
        (
            "copilot",
            "Copilot coding agent",
            "Copilot",
            "copilot/fix",
            true,
        ),
        ("cursor", "Cursor", "cursor[bot]", "cursor/x", false),
        (
            "codex",
            "Codex",
            "chatgpt-codex-connector[bot]",
            "codex/x",
            false,
        ),
        (
            "devin",
            "Devin",
            "devin-ai-integration[bot]",
            "devin/x",
            false,
        ),
        (
            "openhands",
            "OpenHands",
            "openhands-agent",
            "openhands/x",
            false,
        ),
        ("sweep", "Sweep", "sweep-ai[bot]", "sweep/x", false),
    ];
    for workflow in workflows {
        let called = workflow
            .jobs
            .iter()
            .filter_map(|job| job.call.as_ref()?.uses.strip_prefix("./"))
            .filter_map(|path| workflows.iter().find(|one| one.file == path));
        let lands = std::iter::once(workflow)
            .chain(called)
            .flat_map(|workflow| &workflow.jobs)
            .flat_map(|job| &job.steps)
            .any(|step| lands(step, 0));
        let title = format!("{} {}", workflow.file, workflow.name).to_ascii_lowercase();
        let words: Vec<&str> = title.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        let conditions: Vec<&Condition> = workflow
            .jobs
            .iter()
            .flat_map(|job| {
                job.condition
                    .iter()
                    .chain(job.steps.iter().filter_map(|step| step.condition.as_ref()))
            })
            .collect();
        for (word, product, login, head, runs_held) in AGENTS {
            let prefix = format!("{word}/");
            let by_branch = workflow
                .triggers
                .iter()
                .find(|trigger| {
                    trigger.event == "push"
                        && trigger
                            .branches
                            .iter()
                            .any(|name| name.starts_with(&prefix))
                })
                .map(|trigger| trigger.line);
            let by_condition = conditions
                .iter()
                .find(|condition| asks_for(condition, &prefix))
                .map(|condition| condition.line);
            let by_name = (lands && words.contains(word) && words.contains(&"merge")).then_some(1);
            let Some(line) = by_branch.or(by_condition).or(by_name) else {
                continue;
            };
            let known = bots
                .iter()
                .any(|bot| bot.product == *product && matches!(bot.duty, Duty::Opens { .. }));
            if known {
                continue;
            }
            // The label by which the workflow finds what it lands is the agent's.
            let labels = workflow
                .jobs
                .iter()
                .filter(|_| by_name.is_some())
                .filter_map(|job| job.selects.clone())
                .chain(
                    workflow
                        .jobs
                        .iter()
                        .filter(|_| by_name.is_some())
                        .flat_map(|job| &job.steps)
                        .flat_map(|step| &step.acts)
                        .filter_map(|act| match &act.op {
                            Op::Merge { label, .. } => label.clone(),
                            _ => None,
                        }),
                )
                .filter(|label| label.to_ascii_lowercase().contains(word))
                .collect();
            bots.push(Bot {
                product,
                login: (*login).to_owned(),
                file: workflow.file.clone(),
                line,
                duty: Duty::Opens {
                    head,
                    labels,
                    runs_held: *runs_held,
                    base: None,
                    files: None,
                },
            });
        }
    }
}

/// Whether a step merges or approves, itself or in an action of the repository.
fn lands(step: &Step, depth: u8) -> bool {
    /// Deepest chain of composite actions.
    const DEPTH_MAX: u8 = 8;
    step.acts
        .iter()
        .any(|act| matches!(act.op, Op::Merge { .. } | Op::Approve))
        || depth < DEPTH_MAX
            && step
                .inner
                .as_ref()
                .is_some_and(|inner| inner.steps.iter().any(|step| lands(step, depth + 1)))
}

/// Whether a condition asks for branches that start so, and does not leave them out.
fn asks_for(condition: &Condition, prefix: &str) -> bool {
    let Some(expr) = &condition.expr else {
        return false;
    };
    let mut texts = Vec::new();
    expr::literals(expr, &mut texts);
    condition.text.to_ascii_lowercase().contains("startswith")
        && texts
            .iter()
            .any(|text| text.starts_with(prefix) && !negated(expr, text))
}
