//! A pipeline as the engine sees it, and the reader for GitHub's workflows and actions.
//!
//! Other systems' pipelines become the same types in [`crate::pipelines`].

mod actions;
mod gates;
mod held;
mod logins;
mod modelled;
pub(crate) mod onsite;
mod refused;
mod steps;
mod stops;
mod titled;
mod unread;
mod values;

use crate::acts::Act;
use crate::acts::command::Shell;
use crate::acts::outputs::Write;
use crate::agents::Agent;
use crate::expr::{self, Expr, Value};
use crate::tree::{Tree, normal};
use crate::yaml::{self, Node};

use steps::step;
pub(crate) use steps::{JobState, heed_silence, localise, script_step};
pub(crate) use unread::{Kind, Unread};
pub(crate) use values::Values;

/// Most jobs of one file.
const JOBS_MAX: usize = 512;

/// Which system runs a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum System {
    GitHub,
    GitLab,
    Azure,
    CircleCi,
    Jenkins,
    Tekton,
    Argo,
    Flux,
}

impl System {
    /// How many jobs of one pipeline are read.
    pub(crate) fn jobs_max(self) -> usize {
        match self {
            Self::GitHub => JOBS_MAX,
            Self::GitLab => 1_000,
            Self::Jenkins
            | Self::Azure
            | Self::CircleCi
            | Self::Tekton
            | Self::Argo
            | Self::Flux => 500,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::GitHub => "GitHub Actions",
            Self::GitLab => "GitLab CI",
            Self::Azure => "Azure Pipelines",
            Self::CircleCi => "CircleCI",
            Self::Jenkins => "Jenkins",
            Self::Tekton => "Tekton",
            Self::Argo => "Argo",
            Self::Flux => "Flux",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Workflow {
    pub(crate) system: System,
    pub(crate) file: String,
    pub(crate) name: String,
    pub(crate) triggers: Vec<Trigger>,
    pub(crate) permissions: Option<Permissions>,
    pub(crate) env: Pairs,
    pub(crate) jobs: Vec<Job>,
}

pub(crate) type Pairs = Vec<(String, String)>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Trigger {
    pub(crate) event: String,
    pub(crate) line: usize,
    pub(crate) types: Vec<String>,
    pub(crate) branches: Vec<String>,
    pub(crate) branches_ignore: Vec<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) tags_ignore: Vec<String>,
    pub(crate) paths: Vec<String>,
    pub(crate) paths_ignore: Vec<String>,
    pub(crate) workflows: Vec<String>,
    /// Inputs of a dispatch or call.
    pub(crate) inputs: Vec<Input>,
}

#[derive(Clone, Debug)]
pub(crate) struct Input {
    /// Lower-cased.
    pub(crate) name: String,
    pub(crate) default: Option<String>,
    pub(crate) boolean: bool,
    /// What it may be, where a list says so.
    pub(crate) options: Vec<String>,
}

impl Input {
    /// A value as this input's type.
    pub(crate) fn typed(&self, value: Value) -> Value {
        match value {
            Value::Text(text) if self.boolean => Value::Bool(text.eq_ignore_ascii_case("true")),
            other => other,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Permissions {
    ReadAll,
    WriteAll,
    Only(Vec<(String, String)>),
}

impl Permissions {
    /// Whether `scope` may be written.
    pub(crate) fn writes(&self, scope: &str) -> bool {
        match self {
            Self::ReadAll => false,
            Self::WriteAll => true,
            Self::Only(list) => list
                .iter()
                .any(|(name, level)| name == scope && level == "write"),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Condition {
    pub(crate) text: String,
    pub(crate) line: usize,
    /// `None` where the text can't be read; then it can hold.
    pub(crate) expr: Option<Expr>,
}

/// What the name of a job that a person starts ends with, where its rules start it by itself too.
pub(crate) const MANUAL: &str = " (manual)";

#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: String,
    /// What a person called it.
    pub(crate) name: Option<String>,
    pub(crate) line: usize,
    pub(crate) needs: Vec<String>,
    /// Jobs that hold this one up where they are part of the run: GitLab's stages.
    pub(crate) after: Vec<String>,
    pub(crate) condition: Option<Condition>,
    pub(crate) environment: Option<(String, usize)>,
    pub(crate) permissions: Option<Permissions>,
    pub(crate) env: Pairs,
    pub(crate) steps: Vec<Step>,
    pub(crate) call: Option<Call>,
    pub(crate) outputs: Pairs,
    /// The label by which the job's scripts select pull requests, for the jobs that need it.
    pub(crate) selects: Option<String>,
    /// A person must start or confirm the job; the text says how.
    pub(crate) manual: Option<(&'static str, usize)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) uses: String,
    pub(crate) line: usize,
    pub(crate) with: Pairs,
    /// `None` for `inherit`.
    pub(crate) secrets: Option<Pairs>,
    /// It is in none of the repositories that were given.
    pub(crate) missing: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Step {
    pub(crate) line: usize,
    pub(crate) id: Option<String>,
    /// What a person called it.
    pub(crate) name: Option<String>,
    pub(crate) condition: Option<Condition>,
    pub(crate) env: Pairs,
    pub(crate) uses: Option<String>,
    pub(crate) with: Pairs,
    pub(crate) run: Option<(String, usize)>,
    pub(crate) acts: Vec<Act>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) checkout: Option<Checkout>,
    /// A repository may be there afterwards, for programs that ask git which.
    pub(crate) brings_repository: bool,
    /// Makes a token of an app with these scopes to write; `None` for no such token, or for one
    /// with all rights of its installation.
    pub(crate) token_rights: Option<Vec<String>>,
    /// What it leaves for later steps, as far as its script tells.
    pub(crate) writes: Vec<Write>,
    /// What it runs and could not be read.
    pub(crate) unread: Vec<Unread>,
    /// Steps of a composite action, whose inputs are `with` over these defaults.
    pub(crate) inner: Option<Inner>,
}

#[derive(Clone, Debug)]
pub(crate) struct Inner {
    pub(crate) steps: Vec<Step>,
    pub(crate) defaults: Pairs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkout {
    pub(crate) token: Option<String>,
    pub(crate) ssh_key: Option<String>,
    pub(crate) persist: bool,
    pub(crate) reference: Option<String>,
    /// Beside the workspace's own checkout, so that plain git commands don't concern it.
    pub(crate) aside: bool,
}

/// The repositories of a scan, for references from one to another.
pub(crate) struct Library<'a> {
    pub(crate) repositories: &'a [(Option<String>, Tree)],
    pub(crate) here: usize,
}

impl Library<'_> {
    pub(crate) fn tree(&self) -> Option<&Tree> {
        self.repositories.get(self.here).map(|(_, tree)| tree)
    }

    pub(crate) fn slug(&self) -> Option<&str> {
        self.repositories
            .get(self.here)
            .and_then(|(slug, _)| slug.as_deref())
    }

    /// The repository and directory that `uses` names, if it was given to this scan.
    pub(crate) fn resolve(&self, uses: &str) -> Option<(usize, String)> {
        let plain = uses.split('@').next().unwrap_or(uses);
        if let Some(path) = plain.strip_prefix("./") {
            return Some((self.here, normal(path).unwrap_or_default()));
        }
        let mut parts = plain.splitn(3, '/');
        let (owner, name) = (parts.next()?, parts.next()?);
        let path = parts.next().unwrap_or_default();
        let slug = format!("{owner}/{name}");
        self.repositories
            .iter()
            .position(|(known, _)| {
                known.as_deref().is_some_and(|known| {
                    known.eq_ignore_ascii_case(&slug)
                        || known
                            .strip_prefix("?/")
                            .is_some_and(|known| known.eq_ignore_ascii_case(name))
                })
            })
            .map(|index| (index, normal(path).unwrap_or_default()))
    }

    fn at(&self, here: usize) -> Library<'_> {
        Library {
            repositories: self.repositories,
            here,
        }
    }
}

/// Reads a workflow file. `Ok(None)` for YAML that is no workflow.
pub(crate) fn read(
    file: &str,
    text: &str,
    library: &Library<'_>,
) -> Result<Option<Workflow>, yaml::YamlError> {
    let root = yaml::parse_one(text)?;
    if !root.is_map() {
        return Ok(None);
    }
    let Some(on) = root.get("on").or_else(|| root.get("true")) else {
        return Ok(None);
    };
    if let Some(schedule) = on.get("schedule")
        && schedule.is_map()
    {
        return Err(yaml::YamlError {
            line: schedule.line,
            message: "on.schedule is no list; GitHub refuses such a workflow".to_owned(),
        });
    }
    // What a merge (`<<`) brings may stand there already.
    let merged = text.contains("<<:");
    if let Some((key, line)) = root.doubled().filter(|_| !merged) {
        return Err(yaml::YamlError {
            line,
            message: format!("“{key}” is defined twice; GitHub refuses such a workflow"),
        });
    }
    let jobs = root.get("jobs").map(Node::entries).unwrap_or_default();
    if let Some((context, line)) = refused_condition(jobs) {
        return Err(yaml::YamlError {
            line,
            message: format!(
                "no `if` here may ask for `{context}`; GitHub refuses such a workflow"
            ),
        });
    }
    // Other forges read the same files with other rules.
    if file.starts_with(".github/")
        && let Some(error) = refused::refusal(&root)
    {
        return Err(error);
    }
    let defaults = root
        .at(&["defaults", "run", "working-directory"])
        .and_then(Node::text);
    let triggers = triggers(on);
    let permissions = root.get("permissions").and_then(permissions);
    let env = pairs(root.get("env"));
    let values = Values::of_workflow(file, &triggers, &env);
    let mut jobs: Vec<Job> = jobs
        .iter()
        .take(JOBS_MAX)
        .filter(|entry| entry.value.is_map())
        .map(|entry| job(file, entry, library, defaults, &values))
        .collect();
    let title = root.str_of("name").unwrap_or_default();
    onsite::judge(&mut jobs, file, title, library.tree(), |job| {
        let runner = root.at(&["jobs", job.id.as_str(), "runs-on"]);
        let mut labels = Vec::new();
        if let Some(runner) = runner {
            runner.scalars(&mut labels);
        }
        if labels
            .iter()
            .any(|(label, _)| label.contains("self-hosted"))
        {
            onsite::Ground::Own
        } else {
            onsite::Ground::Hosted
        }
    });
    modelled::agents(&mut jobs, file, &env);
    unread::judge(&mut jobs, permissions.as_ref(), &env);
    gates::by_outputs(&mut jobs, file);
    gates::by_names(&mut jobs);
    stops::judge(&mut jobs, |id, index| {
        let step = root
            .at(&["jobs", id, "steps"])
            .and_then(|steps| steps.items().get(index));
        step.and_then(|step| step.str_of("continue-on-error"))
            .is_some_and(|text| text != "false")
    });
    for job in &mut jobs {
        let node = root.at(&["jobs", job.id.as_str()]);
        let hosted = node.is_some_and(|node| {
            let runs_on = node.get("runs-on").and_then(Node::text);
            node.get("container").is_none() && runs_on.is_some_and(logins::is_hosted)
        });
        logins::judge(&mut job.steps, &[&job.env, &env], hosted);
    }
    Ok(Some(Workflow {
        system: System::GitHub,
        file: file.to_owned(),
        name: root.str_of("name").unwrap_or(file).to_owned(),
        triggers,
        permissions,
        env,
        jobs,
    }))
}

/// A context that a condition asks for and that conditions do not have (GitHub Docs, "Context
/// availability"), with the condition's line.
fn refused_condition(jobs: &[yaml::Entry]) -> Option<(&'static str, usize)> {
    let asks = |node: &Node, contexts: &[&'static str]| {
        let condition = node.get("if")?;
        let text = condition.text()?.to_ascii_lowercase();
        contexts.iter().find_map(|context| {
            let mark = format!("{context}.");
            let found = text.match_indices(&mark).any(|(at, _)| {
                let before = text.get(..at).unwrap_or_default();
                let quoted = before.matches('\'').count() % 2 == 1;
                !quoted
                    && !before.ends_with(|c: char| {
                        c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
                    })
            });
            found.then_some((*context, condition.line))
        })
    };
    jobs.iter().find_map(|job| {
        asks(&job.value, &["secrets", "env", "steps", "matrix"]).or_else(|| {
            job.value
                .get("steps")
                .map(Node::items)
                .unwrap_or_default()
                .iter()
                .find_map(|step| asks(step, &["secrets"]))
        })
    })
}

fn triggers(on: &Node) -> Vec<Trigger> {
    let plain = |event: &str, line: usize| Trigger {
        event: event.trim().to_ascii_lowercase(),
        line,
        ..Trigger::default()
    };
    if let Some(event) = on.text() {
        return vec![plain(event, on.line)];
    }
    let mut out: Vec<Trigger> = on
        .items()
        .iter()
        .filter_map(|item| item.text().map(|event| plain(event, item.line)))
        .collect();
    for entry in on.entries() {
        let node = &entry.value;
        let texts = |key: &str| -> Vec<String> {
            node.get(key)
                .map(|list| list.texts().into_iter().map(str::to_owned).collect())
                .unwrap_or_default()
        };
        out.push(Trigger {
            types: texts("types"),
            branches: texts("branches"),
            branches_ignore: texts("branches-ignore"),
            tags: texts("tags"),
            tags_ignore: texts("tags-ignore"),
            paths: texts("paths"),
            paths_ignore: texts("paths-ignore"),
            workflows: texts("workflows"),
            inputs: node
                .get("inputs")
                .map(Node::entries)
                .unwrap_or_default()
                .iter()
                .map(|input| Input {
                    name: input.key.to_lowercase(),
                    default: input.value.str_of("default").map(str::to_owned),
                    boolean: input.value.str_of("type") == Some("boolean"),
                    options: input
                        .value
                        .get("options")
                        .map(|list| list.texts().into_iter().map(str::to_owned).collect())
                        .unwrap_or_default(),
                })
                .collect(),
            ..plain(&entry.key, entry.line)
        });
    }
    out
}

fn permissions(node: &Node) -> Option<Permissions> {
    if let Some(text) = node.text() {
        return match text.trim() {
            "read-all" => Some(Permissions::ReadAll),
            "write-all" => Some(Permissions::WriteAll),
            "" | "none" => Some(Permissions::Only(Vec::new())),
            _ => None,
        };
    }
    node.is_map().then(|| Permissions::Only(pairs(Some(node))))
}

pub(crate) fn pairs(node: Option<&Node>) -> Pairs {
    node.map(Node::entries)
        .unwrap_or_default()
        .iter()
        .map(|entry| {
            let text = entry
                .value
                .text()
                .map_or_else(|| entry.value.texts().join(","), str::to_owned);
            (entry.key.clone(), text)
        })
        .collect()
}

pub(crate) fn condition(node: Option<&Node>) -> Option<Condition> {
    let node = node?;
    let text = node.text()?.trim().to_owned();
    if text.is_empty() {
        return None;
    }
    Some(Condition {
        expr: expr::parse_condition(&text),
        line: node.line,
        text,
    })
}

/// An environment that a matrix names: the one of its values that is production, if one is.
fn of_matrix(name: String, state: &JobState, library: &Library<'_>) -> String {
    let matrix = name.trim_start_matches("${{").trim_start();
    let Some(tree) = library.tree().filter(|_| matrix.starts_with("matrix.")) else {
        return name;
    };
    let stands = state.values.of(&name, &Vec::new(), &[], tree);
    let Some(stands) = stands.filter(|stands| !stands.open) else {
        return name;
    };
    let texts: Vec<String> = stands.variants.into_iter().map(|one| one.text).collect();
    let production = texts.iter().find(|text| !crate::acts::is_rehearsal(text));
    production.or(texts.first()).cloned().unwrap_or(name)
}

fn job(
    file: &str,
    entry: &yaml::Entry,
    library: &Library<'_>,
    directory: Option<&str>,
    values: &Values,
) -> Job {
    let node = &entry.value;
    let env = pairs(node.get("env"));
    let directory = node
        .at(&["defaults", "run", "working-directory"])
        .and_then(Node::text)
        .or(directory);
    let environment = node.get("environment").and_then(|value| {
        let name = value.text().or_else(|| value.str_of("name"))?;
        Some((name.to_owned(), value.line))
    });
    let call = node.str_of("uses").map(|uses| Call {
        uses: uses.trim().to_owned(),
        line: node.get("uses").map_or(entry.line, |uses| uses.line),
        with: pairs(node.get("with")),
        secrets: match node.get("secrets") {
            Some(secrets) if secrets.text() == Some("inherit") => None,
            other => Some(pairs(other)),
        },
        missing: !uses.starts_with("./") && library.resolve(uses).is_none(),
    });
    let mut state = JobState {
        shell: Shell {
            slug: library.slug().map(str::to_owned),
            ..Shell::default()
        },
        root_foreign: None,
        local: None,
        steps: 0,
        directory: directory.map(str::to_owned),
        values: values.of_job(&env, node.get("strategy")),
    };
    // Services such as a registry make their names local to the job.
    if let Some(services) = node.get("services") {
        let mut images = Vec::new();
        services.scalars(&mut images);
        if images.iter().any(|(text, _)| text.contains("localstack")) {
            state.local = Some("the cloud is emulated in the job");
        }
    }
    let mut steps: Vec<Step> = node
        .get("steps")
        .map(Node::items)
        .unwrap_or_default()
        .iter()
        .map(|item| step(file, item, library, &mut state, 0))
        .collect();
    // A request without a body to an address that is a secret, in a job that is named for it.
    let names = format!("{} {}", entry.key, node.str_of("name").unwrap_or_default());
    let named = names.to_ascii_lowercase().contains("deploy") && !crate::acts::is_rehearsal(&names);
    for step in steps
        .iter_mut()
        .filter(|step| named && step.acts.is_empty())
    {
        let hook = step
            .run
            .as_ref()
            .filter(|(text, _)| crate::acts::is_bare_hook(text))
            .map(|(_, line)| *line);
        if let Some(line) = hook {
            let mut act = Act::deploy("a request to a secret address");
            act.file = file.to_owned();
            act.line = line;
            step.acts.push(act);
        }
    }
    let environment = environment.map(|(name, line)| (of_matrix(name, &state, library), line));
    if let Some(why) = state.local {
        localise(&mut steps, why);
    }
    heed_silence(&mut steps);
    Job {
        id: entry.key.clone(),
        name: node.str_of("name").map(str::to_owned),
        line: entry.line,
        needs: node
            .get("needs")
            .map(|list| list.texts().into_iter().map(str::to_owned).collect())
            .unwrap_or_default(),
        after: Vec::new(),
        condition: condition(node.get("if")),
        environment,
        permissions: node.get("permissions").and_then(permissions),
        env,
        steps,
        call,
        outputs: pairs(node.get("outputs")),
        selects: state.shell.selected.take(),
        manual: None,
    }
}
