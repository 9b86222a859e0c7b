//! CircleCI.

use super::{Draft, Here, both, branch_is, either, flag, is_tag, not, trigger, workflow};
use crate::acts::Act;
use crate::expr::Expr;
use crate::workflow::{Job, System, Workflow};
use crate::yaml::{self, Node, YamlError};

/// Deepest nesting of commands that use commands.
const COMMANDS_MAX: usize = 8;

pub(super) fn read(file: &str, text: &str, here: Here<'_>) -> Result<Vec<Workflow>, YamlError> {
    let root = yaml::parse_one(text)?;
    let mut out = configured(file, &root, here, false);
    if root.str_of("setup") == Some("true") {
        for path in continued(&root, here) {
            if let Ok(text) = here.tree.read(&path)
                && let Ok(root) = yaml::parse_one(&text)
            {
                out.extend(configured(&path, &root, here, true));
            }
        }
    }
    Ok(out)
}

/// The files of the repository that a setup names to go on with.
fn continued(root: &Node, here: Here<'_>) -> Vec<String> {
    /// Most files that a setup may go on with, and most names that are looked up for them.
    const FILES_MAX: usize = 20;
    const NAMES_MAX: usize = 200;
    let mut texts = Vec::new();
    root.scalars(&mut texts);
    let mut out: Vec<String> = Vec::new();
    let words = texts.iter().flat_map(|(text, _)| {
        text.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '=' | ','))
    });
    let files = words.filter(|word| word.ends_with(".yml") || word.ends_with(".yaml"));
    for word in files.take(NAMES_MAX) {
        let Some(path) = crate::tree::normal(word) else {
            continue;
        };
        if path != ".circleci/config.yml" && !out.contains(&path) && here.tree.read(&path).is_ok() {
            out.push(path);
        }
        if out.len() >= FILES_MAX {
            break;
        }
    }
    out
}

/// `goes_on` says that a setup chooses the parameters.
fn configured(file: &str, root: &Node, here: Here<'_>, goes_on: bool) -> Vec<Workflow> {
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
        let denied = entry.value.at(&["when", "not"]).is_some()
            || entry
                .value
                .get("unless")
                .is_some_and(|unless| format!("{unless:?}").contains("scheduled_pipeline"));
        if triggers.is_empty() {
            if condition.contains("scheduled_pipeline") && !denied {
                triggers.push(trigger("schedule", entry.line));
            } else if !goes_on
                && entry
                    .value
                    .get("when")
                    .is_some_and(|when| off_by_parameter(when, root))
            {
                // Someone sets the parameter: by hand, or for a schedule that the settings hold.
                let name = entry.key.to_ascii_lowercase();
                let scheduled = ["nightly", "schedul", "cron", "daily", "weekly"]
                    .iter()
                    .any(|word| name.contains(word));
                triggers.push(trigger(
                    if scheduled {
                        "schedule"
                    } else {
                        "workflow_dispatch"
                    },
                    entry.line,
                ));
            } else {
                triggers.push(trigger("push", entry.line));
            }
        }
        let jobs = list
            .items()
            .iter()
            .map(|item| job(file, item, root, here))
            .collect();
        out.push(workflow(System::CircleCi, file, &entry.key, triggers, jobs));
    }
    if out.is_empty()
        && let Some(build) = root.at(&["jobs", "build"])
    {
        let mut draft = Draft::new("build", build.line, file, here);
        steps(&mut draft, build.get("steps"), root, &Vec::new(), 0);
        out.push(workflow(
            System::CircleCi,
            file,
            "build",
            vec![trigger("push", 1)],
            vec![draft.done()],
        ));
    }
    out
}

/// Whether a workflow waits for a parameter of the pipeline that is off unless someone sets it.
fn off_by_parameter(when: &Node, root: &Node) -> bool {
    let mut texts = Vec::new();
    when.scalars(&mut texts);
    let plain = when.text().is_some() || when.get("and").is_some();
    plain
        && texts.iter().any(|(text, _)| {
            let Some((_, rest)) = text.split_once("pipeline.parameters.") else {
                return false;
            };
            let name: String = rest
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
                .collect();
            root.at(&["parameters", &name, "default"])
                .and_then(Node::text)
                .is_some_and(|value| matches!(value, "false" | ""))
        })
}

/// The parameters of a job or a command, as far as its defaults and its caller tell.
type Given = Vec<(String, String)>;

/// Defaults with what a caller gives put over them.
fn parameters(body: &Node, options: &Node, outer: &Given) -> Given {
    let mut out: Given = Vec::new();
    for entry in body
        .get("parameters")
        .map(Node::entries)
        .unwrap_or_default()
    {
        let default = entry.value.str_of("default").map(str::to_owned);
        let given = options.get(&entry.key).and_then(Node::text);
        if let Some(value) = given.map(|text| filled(text, outer)).or(default) {
            out.push((entry.key.clone(), value));
        }
    }
    out
}

/// A text with its parameters put in.
fn filled(text: &str, given: &Given) -> String {
    /// Longest text that parameters are put into.
    const TEXT_MAX: usize = 64 * 1024;
    let mut out = text.to_owned();
    for (name, value) in given {
        for mark in [
            format!("<< parameters.{name} >>"),
            format!("<<parameters.{name}>>"),
        ] {
            if out.len() + value.len() <= TEXT_MAX {
                out = out.replace(&mark, value);
            }
        }
    }
    out
}

fn job(file: &str, item: &Node, root: &Node, here: Here<'_>) -> Job {
    let empty = Node::empty();
    let (name, options) = match (item.text(), item.entries().first()) {
        (Some(name), _) => (name, &empty),
        (None, Some(entry)) => (entry.key.as_str(), &entry.value),
        (None, None) => ("job", &empty),
    };
    let id = options.str_of("name").unwrap_or(name);
    let mut draft = Draft::new(id, item.line, file, here);
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
        Some(body) => {
            let given = parameters(body, options, &Vec::new());
            draft.job.env = crate::workflow::pairs(body.get("environment"))
                .into_iter()
                .map(|(name, value)| (name, filled(&value, &given)))
                .collect();
            steps(&mut draft, body.get("steps"), root, &given, 0);
        }
        None => orb(&mut draft, &canonical(name, root), item.line),
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
    let any = |list: &[String]| super::any(list.iter().map(|name| branch_is(name)));
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

fn steps(draft: &mut Draft<'_>, list: Option<&Node>, root: &Node, given: &Given, depth: usize) {
    if !draft.here.takes(0) {
        return;
    }
    for step in list.map(Node::items).unwrap_or_default() {
        // `deploy` is the older name of `run`, of the branch that is deployed.
        if let Some(run) = step.get("run").or_else(|| step.get("deploy")) {
            let script = run.get("command").unwrap_or(run);
            if let Some(text) = script.text() {
                draft.script(&filled(text, given), script.line);
            }
            continue;
        }
        let name = step
            .text()
            .or_else(|| step.entries().first().map(|entry| entry.key.as_str()))
            .unwrap_or_default();
        if name == "when" || name == "unless" {
            let asked = step
                .at(&[name, "condition"])
                .and_then(Node::text)
                .map(|text| filled(text, given));
            let skipped = match asked.as_deref() {
                Some("false" | "") => name == "when",
                Some("true") => name == "unless",
                _ => false,
            };
            if !skipped && depth < COMMANDS_MAX {
                steps(draft, step.at(&[name, "steps"]), root, given, depth + 1);
            }
        } else if let Some(command) = root.at(&["commands", name]) {
            if depth < COMMANDS_MAX {
                let empty = Node::empty();
                let options = step.get(name).unwrap_or(&empty);
                let inner = parameters(command, options, given);
                steps(draft, command.get("steps"), root, &inner, depth + 1);
            }
        } else {
            orb(draft, &canonical(name, root), step.line);
        }
    }
}

/// The name of an orb's command or job by the orb's own name, whatever the file calls it.
fn canonical(name: &str, root: &Node) -> String {
    let own = name.split_once('/').and_then(|(alias, job)| {
        let orb = root.at(&["orbs", alias]).and_then(Node::text)?;
        let orb = orb.split('@').next()?.rsplit('/').next()?;
        Some(format!("{orb}/{job}"))
    });
    own.unwrap_or_else(|| name.to_owned())
}

/// Commands and jobs of well-known orbs.
fn orb(draft: &mut Draft<'_>, name: &str, line: usize) {
    let act = match name {
        "aws-ecs/deploy-service-update"
        | "aws-ecs/deploy_service_update"
        | "aws-ecs/update-service"
        | "aws-ecs/update_service"
        | "gcp-gke/rollout-image"
        | "gcp-gke/update-kubeconfig-with-credentials-and-deploy"
        | "kubernetes/update-resource"
        | "pulumi/update"
        | "pulumi/destroy"
        | "terraform/destroy"
        | "azure-acs/deploy"
        | "helm/rollback-chart"
        | "cloudfoundry/push"
        | "cloudfoundry/blue_green"
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
        | "aws-ecr/push_image"
        | "gcp-gcr/build-and-push-image"
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
            match crate::acts::words::said(&job) {
                Some(said) if said.plain => match said.claim {
                    crate::acts::words::Claim::Deploy => Act::deploy(name),
                    crate::acts::words::Claim::Publish => Act::publish(name),
                    _ => return,
                },
                _ => return,
            }
        }
    };
    draft.act(act, line);
}
