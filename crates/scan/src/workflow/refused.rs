//! What GitHub refuses a workflow file for: keys, types and expressions that it does not know.
//!
//! A refused file starts nothing, so a way through it would be one that can't fire. The rules are
//! those of the forge's published schema for workflows and of its documentation ("Workflow syntax",
//! "Context availability"). Where a rule is not certain the file is taken as it stands.

use crate::expr;
use crate::yaml::{Entry, Node, YamlError};

/// Reads the file for the first thing that GitHub refuses.
pub(super) fn refusal(root: &Node) -> Option<YamlError> {
    refused(root).map(|(line, what)| YamlError {
        line,
        message: format!("{what}; GitHub refuses such a workflow"),
    })
}

type Refused = Option<(usize, String)>;

const ROOT: &[&str] = &[
    "on",
    "true",
    "name",
    "description",
    "run-name",
    "defaults",
    "env",
    "permissions",
    "concurrency",
    "jobs",
];

/// Keys of a job with steps.
const JOB: &[&str] = &[
    "needs",
    "if",
    "strategy",
    "name",
    "runs-on",
    "timeout-minutes",
    "cancel-timeout-minutes",
    "continue-on-error",
    "container",
    "services",
    "env",
    "environment",
    "permissions",
    "concurrency",
    "outputs",
    "defaults",
    "steps",
    "snapshot",
];

/// Keys of a job that calls another workflow.
const CALLER: &[&str] = &[
    "name",
    "uses",
    "with",
    "secrets",
    "needs",
    "if",
    "permissions",
    "concurrency",
    "strategy",
];

const STEP: &[&str] = &[
    "name",
    "id",
    "if",
    "uses",
    "run",
    "with",
    "env",
    "continue-on-error",
    "timeout-minutes",
    "working-directory",
    "shell",
    "background",
    "wait",
    "wait-all",
    "cancel",
];

const SCOPES: &[&str] = &[
    "actions",
    "artifact-metadata",
    "attestations",
    "checks",
    "code-quality",
    "contents",
    "copilot-requests",
    "deployments",
    "discussions",
    "id-token",
    "issues",
    "models",
    "packages",
    "pages",
    "pull-requests",
    "repository-projects",
    "security-events",
    "statuses",
    "vulnerability-alerts",
];

/// Events that start workflows.
const EVENTS: &[&str] = &[
    "branch_protection_rule",
    "check_run",
    "check_suite",
    "create",
    "delete",
    "deployment",
    "deployment_status",
    "discussion",
    "discussion_comment",
    "fork",
    "gollum",
    "image_version",
    "issue_comment",
    "issues",
    "label",
    "merge_group",
    "milestone",
    "page_build",
    "project",
    "project_card",
    "project_column",
    "public",
    "pull_request",
    "pull_request_comment",
    "pull_request_review",
    "pull_request_review_comment",
    "pull_request_target",
    "push",
    "registry_package",
    "release",
    "repository_dispatch",
    "repository_vulnerability_alert",
    "schedule",
    "status",
    "watch",
    "workflow_call",
    "workflow_dispatch",
    "workflow_run",
];

fn refused(root: &Node) -> Refused {
    unknown_key(root, ROOT, "a workflow")
        .or_else(|| root.get("on").and_then(events))
        .or_else(|| root.get("permissions").and_then(scopes))
        .or_else(|| root.get("defaults").and_then(defaults))
        .or_else(|| root.get("env").and_then(texts))
        .or_else(|| contexts(root.get("env"), &["secrets"]))
        .or_else(|| contexts(root.get("concurrency"), &[]))
        .or_else(|| contexts(root.get("run-name"), &[]))
        .or_else(|| jobs(root.get("jobs")?))
}

/// The first key that has no meaning here. What a merge brings in can't be told apart.
fn unknown_key(node: &Node, known: &[&str], place: &str) -> Refused {
    let entry = node.entries().iter().find(|entry| {
        !known.contains(&entry.key.as_str())
            && entry.key != "<<"
            && !entry.key.starts_with("x-")
            && !entry.key.starts_with('.')
    })?;
    Some((
        entry.line,
        format!("“{}” is no key of {place}", entry.key.escape_debug()),
    ))
}

/// What stands under an event is left alone, known or not (`branch_ignore`, inputs of a dispatch
/// one level too high), apart from a filter beside its opposite, from expressions, which have
/// nothing to ask there, and from what a called workflow declares.
fn events(on: &Node) -> Refused {
    let unknown = |name: &str, line: usize| {
        let known = EVENTS.contains(&name.trim().to_ascii_lowercase().as_str());
        (!known && !name.is_empty() && name != "<<")
            .then(|| (line, format!("“{}” is no event", name.escape_debug())))
    };
    if let Some(name) = on.text() {
        return unknown(name, on.line);
    }
    if let Some(found) = on
        .items()
        .iter()
        .find_map(|item| unknown(item.text()?, item.line))
    {
        return Some(found);
    }
    on.entries().iter().find_map(|entry| {
        unknown(&entry.key, entry.line).or_else(|| match entry.key.as_str() {
            "workflow_call" => called(&entry.value),
            _ => both_filters(&entry.value).or_else(|| asks(&entry.value)),
        })
    })
}

/// The first expression that asks for anything.
fn asks(event: &Node) -> Refused {
    let mut scalars = Vec::new();
    event.scalars(&mut scalars);
    scalars.into_iter().find_map(|(text, line)| {
        let asked = expressions(text).flatten().find_map(|expression| {
            CONTEXTS.iter().find(|context| {
                expression
                    .trim_start()
                    .strip_prefix(**context)
                    .is_some_and(|rest| rest.trim_start().starts_with(['.', '[']))
            })
        })?;
        Some((line, format!("`{asked}` can't be asked for here")))
    })
}

/// A filter and its opposite for one event.
fn both_filters(event: &Node) -> Refused {
    ["branches", "tags", "paths"].iter().find_map(|filter| {
        let opposite = format!("{filter}-ignore");
        let entry = event
            .entry(&opposite)
            .filter(|_| event.get(filter).is_some())?;
        Some((
            entry.line,
            format!("“{filter}” and “{opposite}” stand at one event"),
        ))
    })
}

/// What a called workflow declares.
fn called(event: &Node) -> Refused {
    const KEYS: &[&str] = &["description", "type", "required", "default"];
    const TYPES: &[&str] = &["string", "boolean", "number"];
    unknown_key(event, &["inputs", "secrets", "outputs"], "on.workflow_call").or_else(|| {
        event.get("inputs")?.entries().iter().find_map(|input| {
            unknown_key(&input.value, KEYS, "an input").or_else(|| {
                let kind = input.value.get("type")?;
                let text = kind.text().filter(|text| !TYPES.contains(text))?;
                Some((
                    kind.line,
                    format!("“{}” is no type of an input here", text.escape_debug()),
                ))
            })
        })
    })
}

fn scopes(permissions: &Node) -> Refused {
    unknown_key(permissions, SCOPES, "permissions").or_else(|| {
        permissions.entries().iter().find_map(|entry| {
            let level = entry.value.text()?;
            (!matches!(level, "read" | "write" | "none") && entry.key != "<<").then(|| {
                (
                    entry.line,
                    format!("“{}” is no level of a permission", level.escape_debug()),
                )
            })
        })
    })
}

fn defaults(node: &Node) -> Refused {
    unknown_key(node, &["run"], "defaults").or_else(|| {
        unknown_key(
            node.get("run")?,
            &["shell", "working-directory"],
            "defaults.run",
        )
    })
}

/// A mapping of names to texts: nothing but texts may stand in it.
fn texts(node: &Node) -> Refused {
    if !node.items().is_empty() {
        return Some((
            node.line,
            "a list stands where names and texts must".to_owned(),
        ));
    }
    node.entries().iter().find_map(|entry| {
        let nested = !entry.value.items().is_empty() || !entry.value.entries().is_empty();
        (nested && entry.key != "<<").then(|| {
            (
                entry.line,
                format!("“{}” is no text", entry.key.escape_debug()),
            )
        })
    })
}

fn jobs(jobs: &Node) -> Refused {
    let entries = jobs.entries();
    entries
        .iter()
        .filter(|entry| entry.key != "<<" && entry.value.is_map())
        .find_map(|entry| name(&entry.key, entry.line, "a job").or_else(|| job(entry, entries)))
}

/// Names of jobs and steps begin with a letter or `_`, and hold those, digits and `-`.
fn name(name: &str, line: usize, of: &str) -> Refused {
    let good = name
        .chars()
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    (!good && !name.is_empty()).then(|| {
        (
            line,
            format!("“{}” can't be the name of {of}", name.escape_debug()),
        )
    })
}

fn job(entry: &Entry, jobs: &[Entry]) -> Refused {
    let node = &entry.value;
    if node.get("<<").is_some() {
        return None;
    }
    let calls = node.get("uses").is_some();
    let keys = if calls { CALLER } else { JOB };
    let place = if calls {
        "a job that calls a workflow"
    } else {
        "a job"
    };
    unknown_key(node, keys, place)
        .or_else(|| {
            (!calls && node.get("runs-on").is_none()).then(|| {
                (
                    entry.line,
                    format!("the job “{}” says not where it runs", entry.key),
                )
            })
        })
        .or_else(|| needs(node, &entry.key, jobs))
        .or_else(|| node.get("permissions").and_then(scopes))
        .or_else(|| node.get("defaults").and_then(defaults))
        .or_else(|| node.get("env").and_then(texts))
        .or_else(|| node.get("with").and_then(texts))
        .or_else(|| node.get("outputs").and_then(texts))
        .or_else(|| {
            unknown_key(
                node.get("strategy")?,
                &["fail-fast", "max-parallel", "matrix"],
                "strategy",
            )
        })
        .or_else(|| {
            unknown_key(
                node.get("environment")?,
                &["name", "url", "deployment"],
                "environment",
            )
        })
        .or_else(|| condition(node))
        .or_else(|| job_contexts(node))
        .or_else(|| steps(node.get("steps")?))
}

fn needs(job: &Node, own: &str, jobs: &[Entry]) -> Refused {
    let needs = job.get("needs")?;
    let missing = needs.texts().into_iter().find(|name| {
        !name.contains("${{")
            && (name.eq_ignore_ascii_case(own)
                || !jobs.iter().any(|job| job.key.eq_ignore_ascii_case(name)))
    })?;
    Some((
        needs.line,
        format!("there is no job “{}” to wait for", missing.escape_debug()),
    ))
}

fn steps(steps: &Node) -> Refused {
    let mut seen: Vec<String> = Vec::new();
    steps.items().iter().find_map(|step| {
        if !step.is_map() || step.get("<<").is_some() {
            return None;
        }
        let has = |key: &str| step.get(key).is_some();
        let says = |what: &str| Some((step.line, what.to_owned()));
        if let Some(id) = step.get("id")
            && let Some(text) = id.text()
        {
            let lower = text.to_ascii_lowercase();
            if seen.contains(&lower) {
                return Some((
                    id.line,
                    format!("two steps are called “{}”", text.escape_debug()),
                ));
            }
            seen.push(lower);
        }
        unknown_key(step, STEP, "a step")
            .or_else(|| match (has("run"), has("uses")) {
                (true, true) => says("a step has “run” and “uses”"),
                (false, false) if !["wait", "wait-all", "cancel"].iter().any(|key| has(key)) => {
                    says("a step has neither “run” nor “uses”")
                }
                (true, false) if has("with") => says("a step with “run” has “with”"),
                (false, true) if has("shell") || has("working-directory") => {
                    says("a step with “uses” has “shell” or “working-directory”")
                }
                _ => None,
            })
            .or_else(|| step.get("with").and_then(texts))
            .or_else(|| step.get("env").and_then(texts))
            .or_else(|| condition(step))
            .or_else(|| contexts(Some(step), &ALL_IN_STEPS))
    })
}

/// Contexts that a step has beside those of its workflow.
const ALL_IN_STEPS: [&str; 8] = [
    "needs", "strategy", "matrix", "secrets", "steps", "job", "runner", "env",
];

/// Where in a job which contexts stand open, beside `github`, `inputs` and `vars`.
fn job_contexts(job: &Node) -> Refused {
    let early: &[&str] = &["needs", "strategy", "matrix"];
    let with_secrets: &[&str] = &["needs", "strategy", "matrix", "secrets"];
    let rules: [(&str, &[&str]); 11] = [
        ("name", early),
        ("runs-on", early),
        ("timeout-minutes", early),
        ("continue-on-error", early),
        ("concurrency", early),
        ("with", early),
        ("strategy", &["needs"]),
        ("env", with_secrets),
        ("secrets", with_secrets),
        ("defaults", &["needs", "strategy", "matrix", "env"]),
        ("outputs", &ALL_IN_STEPS),
    ];
    rules
        .iter()
        .find_map(|(key, open)| contexts(job.get(key), open))
        .or_else(|| {
            let environment = job.get("environment")?;
            contexts(environment.get("name").or(Some(environment)), early)
                .filter(|_| environment.get("name").is_some() || environment.text().is_some())
        })
        .or_else(|| {
            let container = job.get("container")?;
            contexts(container.get("image").or(Some(container)), early)
                .filter(|_| container.get("image").is_some() || container.text().is_some())
        })
}

/// The first expression below that asks for a context that is not there, or is none at all.
fn contexts(node: Option<&Node>, open: &[&str]) -> Refused {
    let mut scalars = Vec::new();
    node?.scalars(&mut scalars);
    scalars.into_iter().find_map(|(text, line)| {
        expressions(text)
            .find_map(|found| match found {
                Some(expression) => fault(expression, open),
                None => Some("an expression is not closed".to_owned()),
            })
            .map(|what| (line, what))
    })
}

/// The expressions in a text, without their braces; `None` for one that has no end.
fn expressions(text: &str) -> impl Iterator<Item = Option<&str>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (_, inner) = rest.split_once("${{")?;
        let mut quoted = false;
        let end = inner.char_indices().find(|(at, c)| {
            quoted ^= *c == '\'';
            !quoted && inner.get(*at..).is_some_and(|tail| tail.starts_with("}}"))
        });
        match end {
            Some((end, _)) => {
                rest = inner.get(end + 2..).unwrap_or_default();
                Some(inner.get(..end))
            }
            None => {
                rest = "";
                Some(None)
            }
        }
    })
}

/// The expression of an `if` has no braces of its own unless it wants them.
fn condition(node: &Node) -> Refused {
    let condition = node.get("if")?;
    let text = condition.text()?;
    if text.contains("${{") || text.trim().is_empty() {
        return contexts(Some(condition), &ALL_IN_STEPS);
    }
    fault(text, &ALL_IN_STEPS).map(|what| (condition.line, what))
}

const CONTEXTS: &[&str] = &[
    "github", "inputs", "vars", "needs", "strategy", "matrix", "secrets", "steps", "job", "jobs",
    "runner", "env",
];

const FUNCTIONS: &[&str] = &[
    "contains",
    "startswith",
    "endswith",
    "format",
    "join",
    "tojson",
    "fromjson",
    "hashfiles",
    "success",
    "always",
    "cancelled",
    "failure",
    "case",
];

/// What is wrong with an expression.
fn fault(expression: &str, open: &[&str]) -> Option<String> {
    let shown = || {
        let text: String = expression.trim().chars().take(60).collect();
        // Quotes are shown as the file has them.
        text.escape_debug().to_string().replace("\\'", "'")
    };
    let mut words = Vec::new();
    let mut rest = expression;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' => {
                let inner = rest.get(1..).unwrap_or_default();
                let Some(end) = inner.find('\'') else {
                    return Some(format!("a text in `{}` is not closed", shown()));
                };
                end + 2
            }
            '"' => {
                return Some(format!(
                    "`{}` quotes a text with `\"`, which expressions do not",
                    shown()
                ));
            }
            _ if first.is_ascii_alphabetic() || first == '_' => {
                let end = rest
                    .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-')))
                    .unwrap_or(rest.len());
                let (word, tail) = rest.split_at(end);
                if before != '.' {
                    words.push((word.to_ascii_lowercase(), tail.trim_start().chars().next()));
                }
                end
            }
            _ => first.len_utf8(),
        };
        if !first.is_whitespace() {
            before = first;
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    for (word, next) in words {
        match next {
            Some('(') if !FUNCTIONS.contains(&word.as_str()) => {
                return Some(format!("`{word}` is no function of expressions"));
            }
            Some('.' | '[')
                if CONTEXTS.contains(&word.as_str())
                    && !matches!(word.as_str(), "github" | "inputs" | "vars")
                    && !open.contains(&word.as_str()) =>
            {
                return Some(format!("`{word}` can't be asked for here"));
            }
            _ => {}
        }
    }
    expr::parse(expression)
        .is_none()
        .then(|| format!("`{}` is no expression", shown()))
}

#[cfg(test)]
mod tests;
