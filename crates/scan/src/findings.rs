//! What else is wrong, beside the paths: one function per rule. `docs/scan/rules` explains each.

mod approvals;

pub(crate) use approvals::approvals;

use crate::acts::Op;
use crate::agents::Agent;
use crate::engine::AgentRun;
use crate::expr;
use crate::report::{Approval, ApprovalClass, Finding, Severity};
use crate::repository::{Repository, each_step};
use crate::verdicts::short_hash;
use crate::workflow::{Condition, Job, Kind, Permissions, Step, Workflow};

/// Every rule: id, one sentence, severity. The documentation test compares this with the files.
pub const RULES: &[(&str, &str, Severity)] = &[
    (
        "agent-broad-token",
        "an agent's step holds a token that can write more than a task needs",
        Severity::Warning,
    ),
    (
        "agent-fork-instructions",
        "a fork can change the instruction files that an agent reads with rights",
        Severity::Error,
    ),
    (
        "agent-secrets-in-reach",
        "secrets that an agent does not need are in its step's environment",
        Severity::Warning,
    ),
    (
        "agent-standing-credential",
        "an agent uses a long-lived personal token",
        Severity::Warning,
    ),
    (
        "agent-unpinned",
        "an agent's action can change under its tag",
        Severity::Warning,
    ),
    (
        "agent-untrusted-prompt",
        "text that any account can write reaches an agent's prompt",
        Severity::Error,
    ),
    (
        "bot-approval",
        "automation approves pull requests",
        Severity::Warning,
    ),
    (
        "secret-in-pipeline",
        "a credential stands in a pipeline file",
        Severity::Error,
    ),
    (
        "self-attested-gate",
        "the gate before a merge is a label or comment that automation can set",
        Severity::Note,
    ),
    (
        "spoofable-actor-check",
        "a check of the actor's name can be satisfied by someone else",
        Severity::Warning,
    ),
    (
        "unread-pipeline",
        "a pipeline file could not be read",
        Severity::Note,
    ),
    (
        "unread-step",
        "a step runs what this scan can't read",
        Severity::Note,
    ),
];

/// Event fields that any account can fill.
const UNTRUSTED: &[&str] = &[
    "github.event.issue.body",
    "github.event.issue.title",
    "github.event.comment.body",
    "github.event.pull_request.body",
    "github.event.pull_request.title",
    "github.event.pull_request.head.ref",
    "github.event.review.body",
    "github.event.discussion.body",
    "github.event.discussion.title",
    "github.head_ref",
    "github.event.head_commit.message",
    "github.event.commits",
    "github.event.client_payload",
    "github.event.workflow_run.head_branch",
];

/// The findings of one repository.
pub(crate) fn of(repository: &Repository, runs: &[AgentRun]) -> Vec<Finding> {
    let mut out = Vec::new();
    for workflow in &repository.subject.workflows {
        each_step(workflow, &mut |job, step| {
            for agent in &step.agents {
                agent_rules(&mut out, repository, workflow, job, step, agent, runs);
            }
        });
        conditions(&mut out, workflow);
    }
    approvals_as_findings(&mut out, &approvals(repository));
    secrets(&mut out, repository);
    unread_steps(&mut out, repository);
    for problem in &repository.problems {
        if !problem.file.is_empty() {
            out.push(finding(
                "unread-pipeline",
                &problem.file,
                problem.line,
                format!("{}: {}", problem.file, problem.message),
            ));
        }
    }
    out.sort_by(|a, b| {
        (std::cmp::Reverse(a.severity), &a.rule, &a.file, a.line).cmp(&(
            std::cmp::Reverse(b.severity),
            &b.rule,
            &b.file,
            b.line,
        ))
    });
    out.dedup();
    out
}

fn unread_steps(out: &mut Vec<Finding>, repository: &Repository) {
    for workflow in &repository.subject.workflows {
        each_step(workflow, &mut |_, step| {
            for unread in step.unread.iter().filter(|unread| unread.told) {
                let message = match unread.kind {
                    Kind::Action => format!(
                        "{} is not known to this scan, and it is given credentials: what it does with them was not judged, unless a path says so",
                        unread.what
                    ),
                    Kind::Missing => {
                        format!("{} is not in the repository as it stands", unread.what)
                    }
                    Kind::Script => format!(
                        "`{}`: what it runs is not named in any file that was read",
                        unread.what
                    ),
                    Kind::Command | Kind::Program => {
                        format!("`{}`: what it does is not known to this scan", unread.what)
                    }
                    Kind::Bound => {
                        "the step names more scripts than are followed; the rest was not read"
                            .to_owned()
                    }
                };
                out.push(finding("unread-step", &unread.file, unread.line, message));
            }
        });
        for job in &workflow.jobs {
            if let Some(call) = job.call.as_ref().filter(|call| call.missing) {
                out.push(finding(
                    "unread-step",
                    &workflow.file,
                    call.line,
                    format!(
                        "{} was not given to this scan; give its repository with --with",
                        call.uses
                    ),
                ));
            }
        }
    }
}

fn finding(rule: &str, file: &str, line: usize, message: String) -> Finding {
    let severity = RULES
        .iter()
        .find(|(id, _, _)| *id == rule)
        .map_or(Severity::Note, |(_, _, severity)| *severity);
    Finding {
        rule: rule.to_owned(),
        severity,
        file: file.to_owned(),
        line,
        fingerprint: short_hash(&format!("{rule}|{file}|{message}")),
        message,
        known: false,
    }
}

fn agent_rules(
    out: &mut Vec<Finding>,
    repository: &Repository,
    workflow: &Workflow,
    job: &Job,
    step: &Step,
    agent: &Agent,
    runs: &[AgentRun],
) {
    let run = runs
        .iter()
        .find(|run| run.file == agent.file && run.line == agent.line);
    let open = run.is_some_and(|run| run.open);
    let mut add = |rule: &str, line: usize, message: String| {
        out.push(finding(rule, &agent.file, line, message))
    };
    // Untrusted text in the prompt, directly or through the step's environment.
    let mut texts: Vec<(&str, usize)> = agent
        .prompt
        .iter()
        .map(|(text, line)| (text.as_str(), *line))
        .collect();
    texts.extend(
        step.env
            .iter()
            .map(|(_, value)| (value.as_str(), step.line)),
    );
    for (text, line) in texts {
        if let Some(field) = UNTRUSTED
            .iter()
            .find(|field| text.to_lowercase().contains(**field))
        {
            let then = if run.is_some_and(|run| run.writes) {
                "and it may write to the repository"
            } else {
                "though its token only reads"
            };
            add(
                "agent-untrusted-prompt",
                line,
                format!("{} reaches the prompt of {}, {then}", field, agent.name),
            );
            break;
        }
    }
    let implicit = agent.uses.is_some()
        && open
        && agent.checks == crate::agents::ActorCheck::Never
        && agent.prompt.is_empty();
    if implicit {
        add(
            "agent-untrusted-prompt",
            agent.line,
            format!(
                "{} answers accounts without rights here; what they write is its prompt",
                agent.name
            ),
        );
    }
    if let Some(uses) = &agent.uses
        && !pinned(uses)
    {
        add(
            "agent-unpinned",
            agent.line,
            format!(
                "{uses} is not pinned to a commit: whoever moves the tag runs code with this job's rights"
            ),
        );
    }
    match job.permissions.as_ref().or(workflow.permissions.as_ref()) {
        Some(Permissions::WriteAll) => add(
            "agent-broad-token",
            agent.line,
            format!("{} runs with write-all", agent.name),
        ),
        None if agent.token.is_none() && agent.own_app.is_none() => {
            add(
                "agent-broad-token",
                agent.line,
                format!(
                    "the workflow declares no permissions, so {} gets the default token, which may write everything",
                    agent.name
                ),
            );
        }
        Some(Permissions::Only(list)) => {
            let writes: Vec<&str> = list
                .iter()
                .filter(|(name, level)| {
                    level == "write"
                        && matches!(
                            name.as_str(),
                            "contents" | "actions" | "packages" | "deployments" | "pages"
                        )
                })
                .map(|(name, _)| name.as_str())
                .collect();
            if writes.len() > 1 {
                add(
                    "agent-broad-token",
                    agent.line,
                    format!(
                        "{} holds write rights for {}",
                        agent.name,
                        writes.join(", ")
                    ),
                );
            }
        }
        Some(Permissions::ReadAll) | None => {}
    }
    let mut others: Vec<String> = Vec::new();
    for (name, value) in workflow.env.iter().chain(&job.env).chain(&step.env) {
        let upper = name.to_uppercase();
        let model_key = [
            "ANTHROPIC",
            "OPENAI",
            "GEMINI",
            "GOOGLE",
            "CLAUDE",
            "CODEX",
            "CURSOR",
            "LLM",
            "OPENROUTER",
            "AZURE_OPENAI",
            "AMP_",
            "DEEPSEEK",
            "MISTRAL",
        ]
        .iter()
        .any(|mark| upper.contains(mark));
        if value.contains("secrets.")
            && !value.to_lowercase().contains("secrets.github_token")
            && !model_key
        {
            others.push(name.clone());
        }
    }
    let everything = step
        .with
        .iter()
        .chain(&step.env)
        .any(|(_, value)| value.to_lowercase().contains("tojson(secrets)"));
    if everything {
        others.push("all secrets".to_owned());
    }
    if !others.is_empty() {
        others.dedup();
        add(
            "agent-secrets-in-reach",
            agent.line,
            format!(
                "{} has {} in its environment",
                agent.name,
                others.join(", ")
            ),
        );
    }
    if let Some(token) = &agent.token
        && token.contains("secrets.")
        && !token.to_lowercase().contains("secrets.github_token")
    {
        let name = token
            .split("secrets.")
            .nth(1)
            .unwrap_or_default()
            .trim_end_matches(['}', ' ']);
        let elsewhere = uses_of_secret(repository, name);
        add(
            "agent-standing-credential",
            agent.line,
            format!(
                "{} uses the standing credential secrets.{name}, which is used at {}",
                agent.name,
                elsewhere.join(", ")
            ),
        );
    }
    // A privileged run that checks out what a fork wrote.
    let privileged = workflow.triggers.iter().any(|trigger| {
        matches!(
            trigger.event.as_str(),
            "pull_request_target" | "workflow_run" | "issue_comment"
        )
    });
    let head = job.steps.iter().any(|step| {
        step.checkout.as_ref().is_some_and(|checkout| {
            checkout.reference.as_deref().is_some_and(|reference| {
                let lower = reference.to_lowercase();
                lower.contains("head.sha")
                    || lower.contains("head_ref")
                    || lower.contains("head.ref")
                    || lower.contains("refs/pull/")
                    || lower.contains("head_sha")
            })
        }) || step
            .run
            .as_ref()
            .is_some_and(|(text, _)| text.contains("gh pr checkout"))
    });
    if privileged && head {
        add(
            "agent-fork-instructions",
            agent.line,
            format!(
                "the job has rights and checks out the pull request's own files, so a fork's CLAUDE.md, AGENTS.md or settings instruct {}",
                agent.name
            ),
        );
    }
}

fn uses_of_secret(repository: &Repository, name: &str) -> Vec<String> {
    /// Most places named.
    const PLACES_MAX: usize = 8;
    let wanted = format!("secrets.{name}");
    let mut out = Vec::new();
    for workflow in &repository.subject.workflows {
        each_step(workflow, &mut |_, step| {
            let here = step
                .env
                .iter()
                .chain(&step.with)
                .any(|(_, value)| value.contains(&wanted))
                || step
                    .run
                    .as_ref()
                    .is_some_and(|(text, _)| text.contains(&wanted));
            if here && out.len() < PLACES_MAX {
                out.push(format!("{}:{}", workflow.file, step.line));
            }
        });
    }
    out
}

/// Whether a reference is a full commit id, a local path, or an image digest.
fn pinned(uses: &str) -> bool {
    if uses.starts_with("./") {
        return true;
    }
    uses.rsplit_once('@').is_some_and(|(_, reference)| {
        reference.starts_with("sha256:")
            || (reference.len() == 40 && reference.chars().all(|c| c.is_ascii_hexdigit()))
    })
}

fn conditions(out: &mut Vec<Finding>, workflow: &Workflow) {
    let privileged = workflow.triggers.iter().any(|trigger| {
        matches!(
            trigger.event.as_str(),
            "pull_request_target"
                | "workflow_run"
                | "issue_comment"
                | "pull_request"
                | "pull_request_review"
        )
    });
    if !privileged {
        return;
    }
    for job in &workflow.jobs {
        let all = std::iter::once(job.condition.as_ref())
            .chain(job.steps.iter().map(|step| step.condition.as_ref()))
            .flatten();
        for condition in all {
            let acts = job.steps.iter().any(|step| {
                step.acts
                    .iter()
                    .any(|act| matches!(act.op, Op::Merge { .. } | Op::Approve))
            });
            if acts && asks_last_actor(condition) {
                out.push(finding(
                    "spoofable-actor-check",
                    &workflow.file,
                    condition.line,
                    format!("“{}” asks who caused the last event, not who wrote the pull request; compare github.event.pull_request.user.login", condition.text),
                ));
            }
        }
    }
}

/// Whether a condition holds a bot's name against whoever caused the last event.
fn asks_last_actor(condition: &Condition) -> bool {
    let Some(expr) = &condition.expr else {
        return false;
    };
    let (mut paths, mut literals) = (Vec::new(), Vec::new());
    expr::paths(expr, &mut paths);
    expr::literals(expr, &mut literals);
    let by_actor = paths.iter().any(|path| {
        matches!(
            *path,
            "github.actor" | "github.triggering_actor" | "github.event.sender.login"
        )
    });
    by_actor && literals.iter().any(|text| expr::is_bot_login(text))
}

fn approvals_as_findings(out: &mut Vec<Finding>, approvals: &[Approval]) {
    for approval in approvals {
        let rule = match approval.class {
            ApprovalClass::Bot => "bot-approval",
            ApprovalClass::SelfAttested | ApprovalClass::Forgeable => "self-attested-gate",
            ApprovalClass::Human => continue,
        };
        if approval.what.starts_with(approvals::LAST_ACTOR) {
            continue;
        }
        out.push(finding(
            rule,
            &approval.file,
            approval.line,
            approval.what.clone(),
        ));
    }
}

fn secrets(out: &mut Vec<Finding>, repository: &Repository) {
    for file in repository.tree.files() {
        let Ok(text) = repository.tree.read(file) else {
            continue;
        };
        for secret in portcullis_checks::secrets::scan_text(file, &text) {
            out.push(finding(
                "secret-in-pipeline",
                file,
                secret.line as usize,
                format!("{}: {}", secret.rule, secret.redacted),
            ));
        }
    }
}
