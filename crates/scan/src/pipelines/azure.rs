//! Azure Pipelines.

mod tasks;

use super::{Draft, Here, both, either, equals, not, trigger, workflow};
use crate::expr::{Comparison, Expr, Value};
use crate::workflow::{Job, System, Trigger, Workflow};
use crate::yaml::{self, Node, YamlError};
use tasks::{task_step, with_variables};

/// Deepest nesting of templates.
const TEMPLATES_MAX: usize = 6;

pub(super) fn read(
    original: &str,
    text: &str,
    here: Here<'_>,
) -> Result<Option<Workflow>, YamlError> {
    let file = original;
    let mut root = yaml::parse_one(text)?;
    let mut file = file.to_owned();
    let own = root.clone();
    // `extends` a template: what runs stands there.
    if let Some(path) = own.at(&["extends", "template"]).and_then(Node::text)
        && let Some((path, node)) = template(&file, path, own.at(&["extends", "parameters"]), here)
    {
        root = node;
        file = path;
    }
    let file = file.as_str();
    let has = ["stages", "jobs", "steps", "extends"]
        .iter()
        .any(|key| root.get(key).is_some());
    if !has {
        return Ok(None);
    }
    let mut jobs = Vec::new();
    if let Some(stages) = root.get("stages") {
        let mut before: Vec<String> = Vec::new();
        for (index, (from, stage)) in spread(file, stages, "stages", here, 0).iter().enumerate() {
            let name = stage
                .str_of("stage")
                .map_or_else(|| format!("stage{index}"), str::to_owned);
            let mut of_stage = jobs_of(from, stage, here, &name);
            // Stages follow each other unless they say on what they depend.
            let needs: Vec<String> = match stage.get("dependsOn") {
                Some(list) => jobs
                    .iter()
                    .filter(|job: &&Job| {
                        list.texts()
                            .iter()
                            .any(|stage| job.id.starts_with(&format!("{stage}/")))
                    })
                    .map(|job| job.id.clone())
                    .collect(),
                None => before.clone(),
            };
            for job in &mut of_stage {
                job.needs.extend(needs.iter().cloned());
                if job.condition.is_none()
                    && let Some(condition) = stage.get("condition")
                {
                    job.condition = condition_of(condition);
                }
            }
            before = of_stage.iter().map(|job| job.id.clone()).collect();
            jobs.extend(of_stage);
        }
    } else {
        jobs.extend(jobs_of(file, &root, here, ""));
    }
    Ok(Some(workflow(
        System::Azure,
        original,
        own.str_of("name").unwrap_or(original),
        triggers(&own),
        jobs,
    )))
}

fn triggers(root: &Node) -> Vec<Trigger> {
    let mut out = vec![trigger("workflow_dispatch", 1)];
    let with_filters = |event: &str, node: &Node| {
        let list = |path: &[&str]| -> Vec<String> {
            node.at(path)
                .map(|list| list.texts().into_iter().map(str::to_owned).collect())
                .unwrap_or_default()
        };
        let mut branches = list(&["branches", "include"]);
        branches.extend(
            node.items()
                .iter()
                .filter_map(Node::text)
                .map(str::to_owned),
        );
        Trigger {
            branches: branches
                .iter()
                .map(|name| name.replace('*', "**"))
                .collect(),
            branches_ignore: if branches.is_empty() {
                list(&["branches", "exclude"])
            } else {
                Vec::new()
            },
            tags: list(&["tags", "include"])
                .iter()
                .map(|name| name.replace('*', "**"))
                .collect(),
            ..trigger(event, node.line)
        }
    };
    match root.get("trigger") {
        None => out.push(trigger("push", 1)),
        Some(node) if node.text() == Some("none") => {}
        Some(node) => out.push(with_filters("push", node)),
    }
    match root.get("pr") {
        None => out.push(trigger("pull_request", 1)),
        Some(node) if node.text() == Some("none") => {}
        Some(node) => out.push(with_filters("pull_request", node)),
    }
    if let Some(schedules) = root.entry("schedules") {
        out.push(trigger("schedule", schedules.line));
    }
    if root.at(&["resources", "webhooks"]).is_some() {
        out.push(trigger("repository_dispatch", 1));
    }
    // Another pipeline went through, which a push started as a rule.
    let follows = root
        .at(&["resources", "pipelines"])
        .map(Node::items)
        .unwrap_or_default()
        .iter()
        .find(|item| {
            item.get("trigger")
                .is_some_and(|trigger| !matches!(trigger.text(), Some("none" | "false")))
        });
    if let Some(item) = follows
        && !out.iter().any(|trigger| trigger.event == "push")
    {
        out.push(trigger("push", item.line));
    }
    out
}

fn jobs_of(file: &str, node: &Node, here: Here<'_>, stage: &str) -> Vec<Job> {
    let prefix = if stage.is_empty() {
        String::new()
    } else {
        format!("{stage}/")
    };
    let Some(list) = node.get("jobs") else {
        let mut draft = Draft::new(&format!("{prefix}job"), node.line, file, here);
        draft.job.env = variables(node.get("variables"));
        steps(&mut draft, node.get("steps"), 0);
        return vec![draft.done()];
    };
    let mut out = Vec::new();
    for (index, (from, item)) in spread(file, list, "jobs", here, 0).iter().enumerate() {
        let name = item
            .str_of("deployment")
            .or_else(|| item.str_of("job"))
            .map_or_else(|| format!("job{index}"), str::to_owned);
        let mut draft = Draft::new(&format!("{prefix}{name}"), item.line, from, here);
        draft.job.env = variables(node.get("variables"));
        draft.job.env.extend(variables(item.get("variables")));
        draft.job.needs = item
            .get("dependsOn")
            .map(|list| {
                list.texts()
                    .iter()
                    .map(|need| format!("{prefix}{need}"))
                    .collect()
            })
            .unwrap_or_default();
        draft.job.condition = item.get("condition").and_then(condition_of);
        if let Some(environment) = item.get("environment") {
            let name = environment.text().or_else(|| environment.str_of("name"));
            draft.job.environment = name.map(|name| {
                (
                    name.split('.').next().unwrap_or(name).to_owned(),
                    environment.line,
                )
            });
        }
        steps(&mut draft, item.get("steps"), 0);
        for strategy in ["runOnce", "rolling", "canary"] {
            for phase in ["preDeploy", "deploy", "routeTraffic", "postRouteTraffic"] {
                steps(
                    &mut draft,
                    item.at(&["strategy", strategy, phase, "steps"]),
                    0,
                );
            }
        }
        // Only a job on the server itself may have such a task.
        let waits = has_task(item, "ManualValidation") || has_task(item, "ManualIntervention");
        if waits {
            draft.job.manual = Some(("a person answers the manual validation", item.line));
        }
        out.push(draft.done());
    }
    out
}

/// Variables of a pipeline, a stage or a job: a map, or a list of names and values.
fn variables(node: Option<&Node>) -> Vec<(String, String)> {
    let Some(node) = node else { return Vec::new() };
    let mut out = crate::workflow::pairs(Some(node));
    for item in node.items() {
        if let (Some(name), Some(value)) = (item.str_of("name"), item.str_of("value")) {
            out.push((name.to_owned(), value.to_owned()));
        }
    }
    out
}

/// A template of the repository with its parameters put in, and its path.
fn template(
    file: &str,
    path: &str,
    given: Option<&Node>,
    here: Here<'_>,
) -> Option<(String, Node)> {
    /// Longest text that parameters are put into.
    const TEXT_MAX: usize = 512 * 1024;
    if path.contains('@') || !here.takes(0) {
        return None;
    }
    let base = file.rsplit_once('/').map_or("", |(folder, _)| folder);
    let (text, path) = [
        format!("{base}/{path}"),
        path.trim_start_matches('/').to_owned(),
    ]
    .into_iter()
    .filter_map(|path| crate::tree::normal(path.trim_start_matches('/')))
    .find_map(|path| Some((here.tree.read(&path).ok()?, path)))?;
    let node = yaml::parse_one(&text).ok()?;
    let mut values = Vec::new();
    for item in node.get("parameters").map(Node::items).unwrap_or_default() {
        if let (Some(name), Some(value)) = (item.str_of("name"), item.str_of("default")) {
            values.push((name.to_owned(), value.to_owned()));
        }
    }
    values.extend(crate::workflow::pairs(
        node.get("parameters").filter(|list| list.is_map()),
    ));
    for (name, value) in crate::workflow::pairs(given) {
        values.retain(|(known, _)| *known != name);
        values.push((name, value));
    }
    let mut filled = text.to_string();
    for (name, value) in values {
        if value.contains('\n') {
            continue;
        }
        for mark in [
            format!("${{{{ parameters.{name} }}}}"),
            format!("${{{{parameters.{name}}}}}"),
        ] {
            if filled.len() + value.len() <= TEXT_MAX && filled.contains(&mark) {
                filled = filled.replace(&mark, &value);
            }
        }
    }
    let node = yaml::parse_one(&filled).unwrap_or(node);
    Some((path, node))
}

/// The members of a list of stages or jobs with those of its templates and conditions, each with
/// the file that it stands in.
fn spread(file: &str, list: &Node, key: &str, here: Here<'_>, depth: usize) -> Vec<(String, Node)> {
    /// Most members of one list.
    const MEMBERS_MAX: usize = 500;
    let mut out = Vec::new();
    for item in list.items() {
        if out.len() >= MEMBERS_MAX {
            break;
        }
        let conditional = item
            .entries()
            .first()
            .filter(|entry| entry.key.starts_with("${{"));
        if let Some(path) = item.str_of("template") {
            if depth < TEMPLATES_MAX
                && let Some((path, node)) = template(file, path, item.get("parameters"), here)
                && let Some(inner) = node.get(key)
            {
                out.extend(spread(&path, inner, key, here, depth + 1));
            }
        } else if let Some(entry) = conditional {
            if depth < TEMPLATES_MAX {
                out.extend(spread(file, &entry.value, key, here, depth + 1));
            }
        } else {
            out.push((file.to_owned(), item.clone()));
        }
    }
    out
}

/// Whether a job waits for a person: a validation that is always asked and ends the run by itself.
fn has_task(item: &Node, name: &str) -> bool {
    item.get("steps")
        .map(Node::items)
        .unwrap_or_default()
        .iter()
        .any(|step| {
            step.str_of("task")
                .is_some_and(|task| task.starts_with(name))
                && step.get("condition").is_none()
                && step.at(&["inputs", "onTimeout"]).and_then(Node::text) != Some("resume")
        })
}

fn steps(draft: &mut Draft<'_>, list: Option<&Node>, depth: usize) {
    for step in list.map(Node::items).unwrap_or_default() {
        let first = draft.job.steps.len();
        for key in ["script", "bash", "pwsh", "powershell"] {
            if let Some(script) = step.get(key)
                && let Some(text) = script.text()
            {
                let text = &with_variables(text, &draft.job.env);
                draft.script(text, script.line);
            }
        }
        if let Some(task) = step.str_of("task") {
            task_step(draft, task, step);
        }
        if let Some(path) = step.str_of("template")
            && depth < TEMPLATES_MAX
            && let Some((path, node)) =
                template(&draft.file, path, step.get("parameters"), draft.here)
        {
            let outer = std::mem::replace(&mut draft.file, path);
            steps(draft, node.get("steps"), depth + 1);
            draft.file = outer;
        }
        // `- ${{ if … }}:` and `- ${{ each … }}:` with steps below them.
        for entry in step.entries() {
            if entry.key.starts_with("${{") && depth < TEMPLATES_MAX {
                let before = draft.job.steps.len();
                steps(draft, Some(&entry.value), depth + 1);
                let asked = entry
                    .key
                    .trim_start_matches("${{")
                    .trim_end_matches("}}")
                    .trim()
                    .strip_prefix("if ")
                    .and_then(super::parse)
                    .map(|expr| translate(&expr, 0));
                if let Some(expr) = asked {
                    for one in draft.job.steps.iter_mut().skip(before) {
                        if one.condition.is_none() {
                            one.condition = Some(crate::workflow::Condition {
                                expr: Some(expr.clone()),
                                line: entry.line,
                                text: entry.key.clone(),
                            });
                        }
                    }
                }
            }
        }
        let condition = step.get("condition").and_then(condition_of);
        if let Some(condition) = condition {
            for one in draft.job.steps.iter_mut().skip(first) {
                one.condition = Some(condition.clone());
            }
        }
    }
}

fn condition_of(node: &Node) -> Option<crate::workflow::Condition> {
    let text = node.text()?.to_owned();
    let expr = super::parse(&text).map(|expr| translate(&expr, 0));
    Some(crate::workflow::Condition {
        expr,
        line: node.line,
        text,
    })
}

/// Azure's functions as operators, its variables as ours.
fn translate(expr: &Expr, depth: usize) -> Expr {
    if depth > 40 {
        return Expr::Literal(Value::Open);
    }
    let inner = |expr: &Expr| translate(expr, depth + 1);
    match expr {
        Expr::Call(name, arguments) => match (name.as_str(), arguments.as_slice()) {
            ("and", [first, rest @ ..]) => rest
                .iter()
                .fold(inner(first), |left, right| both(left, inner(right))),
            ("or", [first, rest @ ..]) => rest
                .iter()
                .fold(inner(first), |left, right| either(left, inner(right))),
            ("not", [one]) => not(inner(one)),
            ("eq", [left, right]) => compare(left, right, depth),
            ("ne", [left, right]) => not(compare(left, right, depth)),
            ("in", [value, list @ ..]) => list
                .iter()
                .fold(Expr::Literal(Value::Bool(false)), |rest, one| {
                    either(rest, compare(value, one, depth))
                }),
            ("succeeded" | "succeededorfailed" | "always", _) => Expr::Literal(Value::Bool(true)),
            ("contains" | "startswith" | "endswith", list) => {
                Expr::Call(name.clone(), list.iter().map(inner).collect())
            }
            _ => Expr::Literal(Value::Open),
        },
        Expr::Path(path) => variable(path),
        Expr::Literal(value) => Expr::Literal(value.clone()),
        Expr::Not(one) => not(inner(one)),
        Expr::Both(left, right) => both(inner(left), inner(right)),
        Expr::Either(left, right) => either(inner(left), inner(right)),
        Expr::Compare(left, comparison, right) => {
            Expr::Compare(Box::new(inner(left)), *comparison, Box::new(inner(right)))
        }
    }
}

fn compare(left: &Expr, right: &Expr, depth: usize) -> Expr {
    if let (Expr::Path(path), Expr::Literal(Value::Text(text))) = (left, right)
        && path.ends_with("build.reason")
    {
        let event = match text.to_ascii_lowercase().as_str() {
            "schedule" => "schedule",
            "pullrequest" => "pull_request",
            "manual" => "workflow_dispatch",
            "individualci" | "batchedci" => "push",
            _ => "repository_dispatch",
        };
        return equals("github.event_name", event);
    }
    Expr::Compare(
        Box::new(translate(left, depth + 1)),
        Comparison::Equal,
        Box::new(translate(right, depth + 1)),
    )
}

fn variable(path: &str) -> Expr {
    let name = path.trim_start_matches("variables.");
    Expr::Path(
        match name {
            "build.sourcebranch" => "github.ref",
            "build.sourcebranchname" => "github.ref_name",
            _ => return Expr::Literal(Value::Open),
        }
        .to_owned(),
    )
}
