//! CircleCI.

use super::{Draft, both, branch_is, either, flag, is_tag, not, trigger, workflow};
use crate::acts::Act;
use crate::expr::Expr;
use crate::tree::Tree;
use crate::workflow::{Job, System, Workflow};
use crate::yaml::{self, Node, YamlError};

/// Deepest nesting of commands that use commands.
const COMMANDS_MAX: usize = 8;

pub(super) fn read(file: &str, text: &str, tree: &Tree) -> Result<Vec<Workflow>, YamlError> {
    let root = yaml::parse_one(text)?;
    let mut out = Vec::new();
    for entry in root.get("workflows").map(Node::entries).unwrap_or_default() {
        let Some(list) = entry.value.get("jobs") else {
            continue;
        };
        let mut triggers = Vec::new();
        for item in entry
            .value
            .get("triggers")
            .map(Node::items)
            .unwrap_or_default()
        {
            if item.get("schedule").is_some() {
                triggers.push(trigger("schedule", item.line));
            }
        }
        let condition = entry
            .value
            .get("when")
            .map(|when| format!("{when:?}"))
            .unwrap_or_default();
        if triggers.is_empty() {
            if condition.contains("scheduled_pipeline") {
                triggers.push(trigger("schedule", entry.line));
            } else {
                triggers.push(trigger("push", entry.line));
            }
        }
        let jobs = list
            .items()
            .iter()
            .map(|item| job(file, item, &root, tree))
            .collect();
        out.push(workflow(System::CircleCi, file, &entry.key, triggers, jobs));
    }
    if out.is_empty()
        && let Some(build) = root.at(&["jobs", "build"])
    {
        let mut draft = Draft::new("build", build.line, file, tree);
        steps(&mut draft, build.get("steps"), &root, 0);
        out.push(workflow(
            System::CircleCi,
            file,
            "build",
            vec![trigger("push", 1)],
            vec![draft.done()],
        ));
    }
    Ok(out)
}

fn job(file: &str, item: &Node, root: &Node, tree: &Tree) -> Job {
    let empty = Node::empty();
    let (name, options) = match (item.text(), item.entries().first()) {
        (Some(name), _) => (name, &empty),
        (None, Some(entry)) => (entry.key.as_str(), &entry.value),
        (None, None) => ("job", &empty),
    };
    let id = options.str_of("name").unwrap_or(name);
    let mut draft = Draft::new(id, item.line, file, tree);
    draft.job.needs = options
        .get("requires")
        .map(|list| list.texts().into_iter().map(str::to_owned).collect())
        .unwrap_or_default();
    if options.str_of("type") == Some("approval") {
        draft.job.manual = Some(("a person approves the job", item.line));
    }
    let filters = match options.get("filters").and_then(Node::text) {
        Some(text) => written_filter(text),
        None => filters(options),
    };
    draft.only_if(Some(filters), "filters", item.line);
    match root.at(&["jobs", name]) {
        Some(body) => steps(&mut draft, body.get("steps"), root, 0),
        None => orb(&mut draft, name, item.line),
    }
    draft.done()
}

/// A filter as an expression, `pipeline.git.branch == "main"`; what is more than one comparison
/// of the branch can hold.
fn written_filter(text: &str) -> Expr {
    let Some((left, right)) = text.split_once("==").or_else(|| text.split_once("!=")) else {
        return flag(true);
    };
    let name = right.trim().trim_matches(['"', '\'']);
    let plain = left.trim() == "pipeline.git.branch"
        && !name.is_empty()
        && !name.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '(' | ')'));
    if !plain {
        return flag(true);
    }
    let branch = both(not(is_tag()), branch_is(name));
    if text.contains("!=") {
        not(branch)
    } else {
        branch
    }
}

/// Branches run unless filtered; tags only where a filter names them.
fn filters(options: &Node) -> Expr {
    let list = |path: &[&str]| -> Option<Vec<String>> {
        options
            .at(path)
            .map(|list| list.texts().into_iter().map(str::to_owned).collect())
    };
    let any = |list: &[String]| {
        list.iter()
            .fold(flag(false), |rest, name| either(rest, branch_is(name)))
    };
    let branch = match (
        list(&["filters", "branches", "only"]),
        list(&["filters", "branches", "ignore"]),
    ) {
        (Some(only), _) => any(&only),
        (None, Some(ignore)) => {
            if ignore.iter().any(|name| name == "/.*/") {
                flag(false)
            } else {
                not(any(&ignore))
            }
        }
        (None, None) => flag(true),
    };
    let tag = flag(options.at(&["filters", "tags", "only"]).is_some());
    either(both(is_tag(), tag), both(not(is_tag()), branch))
}

fn steps(draft: &mut Draft<'_>, list: Option<&Node>, root: &Node, depth: usize) {
    for step in list.map(Node::items).unwrap_or_default() {
        if let Some(run) = step.get("run") {
            let script = run.get("command").unwrap_or(run);
            if let Some(text) = script.text() {
                draft.script(text, script.line);
            }
            continue;
        }
        let name = step
            .text()
            .or_else(|| step.entries().first().map(|entry| entry.key.as_str()))
            .unwrap_or_default();
        if name == "when" || name == "unless" {
            steps(draft, step.at(&[name, "steps"]), root, depth + 1);
        } else if let Some(command) = root.at(&["commands", name]) {
            if depth < COMMANDS_MAX {
                steps(draft, command.get("steps"), root, depth + 1);
            }
        } else {
            orb(draft, name, step.line);
        }
    }
}

/// Commands and jobs of well-known orbs.
fn orb(draft: &mut Draft<'_>, name: &str, line: usize) {
    let act = match name {
        "aws-ecs/deploy-service-update"
        | "aws-ecs/deploy_service_update"
        | "aws-ecs/update-service"
        | "kubernetes/create-or-update-resource"
        | "kubernetes/update-container-image"
        | "helm/upgrade-helm-chart"
        | "heroku/deploy-via-git"
        | "heroku/push-docker-image"
        | "gcp-cloud-run/deploy"
        | "cloudrun/deploy"
        | "aws-s3/sync"
        | "aws-s3/copy"
        | "aws-code-deploy/deploy"
        | "aws-elastic-beanstalk/deploy"
        | "serverless-framework/deploy"
        | "terraform/apply"
        | "netlify/deploy"
        | "azure-aks/create-or-update" => Act::deploy(name),
        "docker/publish"
        | "docker/push"
        | "aws-ecr/build-and-push-image"
        | "aws-ecr/build_and_push_image"
        | "aws-ecr/push-image"
        | "gcp-gcr/push-image"
        | "npm-publisher/publish-from-package-json" => Act::publish(name),
        _ => {
            let Some((_, job)) = name.split_once('/') else {
                return;
            };
            let job = job.to_ascii_lowercase().replace('_', "-");
            if crate::acts::is_rehearsal(&job) {
                return;
            }
            if job == "deploy" || job.contains("deploy-prod") || job.ends_with("-deploy") {
                Act::deploy(name)
            } else if job == "publish" {
                Act::publish(name)
            } else {
                return;
            }
        }
    };
    draft.act(act, line);
}
