//! Tekton, Argo and Flux: manifests that are pipelines, and applications that sync themselves.

use super::{Draft, Here, trigger, workflow};
use crate::acts::{Act, Op, Target, Token};
use crate::bots::{Bot, Duty};
use crate::workflow::{Job, System, Trigger, Workflow};
use crate::yaml::{self, Kind, Node, YamlError};

/// Deepest place in a manifest where a script is looked for.
const DEPTH_MAX: usize = 24;

pub(super) fn read(file: &str, text: &str, here: Here<'_>) -> Result<Vec<Workflow>, YamlError> {
    let tekton = text.contains("tekton.dev/");
    let argo = text.contains("argoproj.io/");
    let flux = text.contains("fluxcd.io/");
    if !tekton && !argo && !flux {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    for document in yaml::parse(text)? {
        let kind = document.str_of("kind").unwrap_or_default();
        let name = document
            .at(&["metadata", "name"])
            .or_else(|| document.at(&["metadata", "generateName"]))
            .and_then(Node::text)
            .unwrap_or(kind);
        let line = document.line;
        if kind == "ImageUpdateAutomation" {
            let own = document
                .at(&["spec", "sourceRef", "name"])
                .and_then(Node::text);
            let held = document.at(&["spec", "suspend"]).and_then(Node::text) == Some("true");
            if held || own != Some("flux-system") {
                continue;
            }
            let triggers = vec![trigger("schedule", line)];
            let jobs = vec![image_updates(name, file, &document, here)];
            out.push(workflow(System::Flux, file, name, triggers, jobs));
            continue;
        }
        let (system, triggers) = match kind {
            "Pipeline" | "PipelineRun" | "Task" | "TaskRun" => (System::Tekton, as_code(&document)),
            "EventListener" | "TriggerTemplate" => {
                (System::Tekton, vec![trigger("repository_dispatch", line)])
            }
            "CronWorkflow" => (System::Argo, vec![trigger("schedule", line)]),
            "Workflow" | "WorkflowTemplate" | "ClusterWorkflowTemplate" => {
                (System::Argo, vec![trigger("workflow_dispatch", line)])
            }
            "Sensor" => (System::Argo, vec![trigger("repository_dispatch", line)]),
            _ => continue,
        };
        let mut draft = Draft::new(name, line, file, here);
        scripts(&mut draft, &document, 0);
        if suspends(&document, 0) {
            draft.job.manual = Some(("a person resumes the suspended workflow", line));
        }
        if !draft.job.steps.is_empty() {
            out.push(workflow(system, file, name, triggers, vec![draft.done()]));
        }
    }
    Ok(out)
}

/// Flux writes the newest images into the branch that it watches, or into another.
fn image_updates(name: &str, file: &str, document: &Node, here: Here<'_>) -> Job {
    let mut draft = Draft::new(name, document.line, file, here);
    let branch = [
        &["spec", "git", "push", "branch"][..],
        &["spec", "git", "checkout", "ref", "branch"],
    ]
    .iter()
    .find_map(|path| document.at(path));
    let target = branch
        .and_then(Node::text)
        .map_or(Target::Current, |name| Target::Branch(name.to_owned()));
    let act = Act::new(
        Op::Push(target),
        "Flux commits the newest images",
        Token::Value("secrets.of the GitRepository".to_owned()),
    );
    draft.act(act, branch.map_or(document.line, |node| node.line));
    draft.done()
}

/// Pipelines-as-Code says in annotations what starts a run.
fn as_code(document: &Node) -> Vec<Trigger> {
    let note = |name: &str| {
        document
            .at(&["metadata", "annotations"])
            .and_then(|notes| notes.entry(&format!("pipelinesascode.tekton.dev/{name}")))
    };
    let mut out = vec![trigger("workflow_dispatch", document.line)];
    let cel = note("on-cel-expression")
        .and_then(|entry| entry.value.text())
        .unwrap_or_default()
        .to_owned();
    let event = note("on-event")
        .and_then(|entry| entry.value.text())
        .unwrap_or_default()
        .to_owned();
    let line = note("on-event")
        .or_else(|| note("on-cel-expression"))
        .map_or(document.line, |entry| entry.line);
    let branches: Vec<String> = note("on-target-branch")
        .and_then(|entry| entry.value.text())
        .unwrap_or_default()
        .trim_matches(['[', ']'])
        .split(',')
        .map(|name| name.trim().trim_matches(['"', '\'']).to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    if event.contains("push") || cel.contains("\"push\"") {
        let tags = branches
            .iter()
            .filter_map(|name| name.strip_prefix("refs/tags/"))
            .map(str::to_owned)
            .collect();
        let branches = branches
            .iter()
            .filter(|name| !name.starts_with("refs/tags/"))
            .map(|name| name.trim_start_matches("refs/heads/").to_owned())
            .collect();
        out.push(Trigger {
            branches,
            tags,
            ..trigger("push", line)
        });
    }
    if event.contains("pull_request") || cel.contains("pull_request") {
        out.push(trigger("pull_request", line));
    }
    out
}

/// `script:`, `source:`, and `command:` with `args:`, wherever they stand.
fn scripts(draft: &mut Draft<'_>, node: &Node, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    match &node.kind {
        Kind::Map(entries) => {
            for entry in entries {
                let is_script = matches!(entry.key.as_str(), "script" | "source")
                    && entry.value.text().is_some();
                if is_script {
                    draft.script(entry.value.text().unwrap_or_default(), entry.value.line);
                } else if !matches!(entry.key.as_str(), "command" | "args") {
                    scripts(draft, &entry.value, depth + 1);
                }
            }
            let words: Vec<&str> = ["command", "args"]
                .iter()
                .filter_map(|key| node.get(key))
                .flat_map(Node::texts)
                .collect();
            if let Some(first) = words.first() {
                let line = node
                    .get("command")
                    .or_else(|| node.get("args"))
                    .map_or(node.line, |node| node.line);
                let shell = first
                    .rsplit('/')
                    .next()
                    .is_some_and(|name| matches!(name, "sh" | "bash"));
                let text = if shell {
                    words.last().copied().unwrap_or_default().to_owned()
                } else {
                    words.join(" ")
                };
                draft.script(&text, line);
            }
        }
        Kind::List(items) => items
            .iter()
            .for_each(|item| scripts(draft, item, depth + 1)),
        Kind::Scalar { .. } => {}
    }
}

fn suspends(node: &Node, depth: usize) -> bool {
    if depth > DEPTH_MAX {
        return false;
    }
    match &node.kind {
        Kind::Map(entries) => entries.iter().any(|entry| {
            // `suspend: {}` as a template waits; `suspend: false` of a CronWorkflow does not.
            (entry.key == "suspend"
                && entry.value.is_map()
                && entry.value.get("duration").is_none())
                || suspends(&entry.value, depth + 1)
        }),
        Kind::List(items) => items.iter().any(|item| suspends(item, depth + 1)),
        Kind::Scalar { .. } => false,
    }
}

/// Applications and kustomizations that sync a branch of this repository by themselves.
pub(super) fn servers(file: &str, documents: &[Node], slug: Option<&str>) -> Vec<Bot> {
    let flux = documents.iter().filter_map(|document| {
        let ours = document
            .str_of("apiVersion")?
            .contains("kustomize.toolkit.fluxcd.io/")
            && document.str_of("kind") == Some("Kustomization")
            && document
                .at(&["spec", "sourceRef", "name"])
                .and_then(Node::text)
                == Some("flux-system")
            && document.at(&["spec", "suspend"]).and_then(Node::text) != Some("true");
        ours.then(|| Bot {
            product: "Flux",
            login: "flux".to_owned(),
            file: file.to_owned(),
            line: document.line,
            duty: Duty::Syncs,
        })
    });
    let argo = documents
        .iter()
        .filter(|document| document.str_of("kind") == Some("Application"))
        .filter_map(|document| {
            let automated = document.at(&["spec", "syncPolicy", "automated"])?;
            let url = document
                .at(&["spec", "source", "repoURL"])
                .and_then(Node::text)
                .unwrap_or_default();
            let here = slug.is_none_or(|slug| {
                let name = slug.strip_prefix("?/").unwrap_or(slug);
                url.is_empty() || url.trim_end_matches(".git").ends_with(name)
            });
            here.then(|| Bot {
                product: "Argo CD",
                login: "argocd".to_owned(),
                file: file.to_owned(),
                line: automated.line,
                duty: Duty::Syncs,
            })
        });
    flux.chain(argo).collect()
}
