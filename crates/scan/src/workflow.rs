//! A pipeline as the engine sees it, and the reader for GitHub's workflows and actions.
//!
//! Other systems' pipelines become the same types in [`crate::pipelines`].

use crate::acts::catalog::{self, With, name_of};
use crate::acts::command::{Reader, Shell};
use crate::acts::{Act, Op, Target, Token};
use crate::agents::{self, Agent};
use crate::expr::{self, Expr, Value};
use crate::tree::{Tree, normal};
use crate::yaml::{self, Node};

/// Deepest chain of actions that use actions.
const COMPOSITE_DEPTH_MAX: usize = 6;
/// Most steps of one job, those of its composite actions included.
const STEPS_MAX: usize = 1_000;
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
}

impl System {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::GitHub => "GitHub Actions",
            Self::GitLab => "GitLab CI",
            Self::Azure => "Azure Pipelines",
            Self::CircleCi => "CircleCI",
            Self::Jenkins => "Jenkins",
            Self::Tekton => "Tekton",
            Self::Argo => "Argo",
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

#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) line: usize,
    pub(crate) needs: Vec<String>,
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
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Step {
    pub(crate) line: usize,
    pub(crate) id: Option<String>,
    pub(crate) condition: Option<Condition>,
    pub(crate) env: Pairs,
    pub(crate) uses: Option<String>,
    pub(crate) with: Pairs,
    pub(crate) run: Option<(String, usize)>,
    pub(crate) acts: Vec<Act>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) checkout: Option<Checkout>,
    /// Makes a token of an app with these scopes to write; `None` for no such token, or for one
    /// with all rights of its installation.
    pub(crate) token_rights: Option<Vec<String>>,
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

    fn slug(&self) -> Option<&str> {
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
    let jobs = root.get("jobs").map(Node::entries).unwrap_or_default();
    let defaults = root
        .at(&["defaults", "run", "working-directory"])
        .and_then(Node::text);
    Ok(Some(Workflow {
        system: System::GitHub,
        file: file.to_owned(),
        name: root.str_of("name").unwrap_or(file).to_owned(),
        triggers: triggers(on),
        permissions: root.get("permissions").and_then(permissions),
        env: pairs(root.get("env")),
        jobs: jobs
            .iter()
            .take(JOBS_MAX)
            .filter(|entry| entry.value.is_map())
            .map(|entry| job(file, entry, library, defaults))
            .collect(),
    }))
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

fn job(file: &str, entry: &yaml::Entry, library: &Library<'_>, directory: Option<&str>) -> Job {
    let node = &entry.value;
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
    if let Some(why) = state.local {
        localise(&mut steps, why);
    }
    if steps.iter().any(asks_for_silence) {
        silence(&mut steps);
    }
    Job {
        id: entry.key.clone(),
        line: entry.line,
        needs: node
            .get("needs")
            .map(|list| list.texts().into_iter().map(str::to_owned).collect())
            .unwrap_or_default(),
        condition: condition(node.get("if")),
        environment,
        permissions: node.get("permissions").and_then(permissions),
        env: pairs(node.get("env")),
        steps,
        call,
        outputs: pairs(node.get("outputs")),
        selects: state.shell.selected.take(),
        manual: None,
    }
}

/// What one job's steps leave for the next.
pub(crate) struct JobState {
    pub(crate) shell: Shell,
    /// The workspace itself is another repository.
    pub(crate) root_foreign: Option<String>,
    /// The job made its own cluster or cloud.
    pub(crate) local: Option<&'static str>,
    steps: usize,
    directory: Option<String>,
}

impl JobState {
    pub(crate) fn new(slug: Option<&str>) -> Self {
        Self {
            shell: Shell {
                slug: slug.map(str::to_owned),
                ..Shell::default()
            },
            root_foreign: None,
            local: None,
            steps: 0,
            directory: None,
        }
    }
}

/// Whether a step writes a commit message at which GitHub starts no workflow for the push
/// (GitHub Docs, "Skipping workflow runs").
fn asks_for_silence(step: &Step) -> bool {
    let silent = |text: &str| {
        let lower = text.to_ascii_lowercase();
        [
            "[skip ci]",
            "[ci skip]",
            "[no ci]",
            "[skip actions]",
            "[actions skip]",
            "skip-checks: true",
            "skip-checks:true",
        ]
        .iter()
        .any(|mark| lower.contains(mark))
    };
    step.run
        .as_ref()
        .is_some_and(|(text, _)| text.contains("commit") && silent(text))
        || step
            .with
            .iter()
            .any(|(key, value)| key.contains("message") && silent(value))
}

fn silence(steps: &mut [Step]) {
    for act in steps.iter_mut().flat_map(|step| &mut step.acts) {
        act.silent |= matches!(act.op, Op::Push(_));
    }
}

/// Clusters and clouds of the job itself are not production.
pub(crate) fn localise(steps: &mut [Step], why: &'static str) {
    for step in steps {
        for act in &mut step.acts {
            if matches!(act.op, Op::Deploy { .. }) && act.benign.is_none() {
                act.benign = Some(why);
            }
        }
        if let Some(inner) = &mut step.inner {
            localise(&mut inner.steps, why);
        }
    }
}

fn step(
    file: &str,
    node: &Node,
    library: &Library<'_>,
    state: &mut JobState,
    depth: usize,
) -> Step {
    state.steps += 1;
    let mut out = Step {
        line: node.line,
        id: node.str_of("id").map(str::to_owned),
        condition: condition(node.get("if")),
        env: pairs(node.get("env")),
        with: pairs(node.get("with")),
        ..Step::default()
    };
    if state.steps > STEPS_MAX {
        return out;
    }
    if let Some(uses) = node.get("uses")
        && let Some(name) = uses.text()
    {
        out.uses = Some(name.trim().to_owned());
        out.line = uses.line;
        uses_step(
            file,
            name.trim(),
            uses.line,
            node,
            library,
            state,
            &mut out,
            depth,
        );
    } else if let Some(run) = node.get("run")
        && let Some(text) = run.text()
    {
        out.run = Some((text.to_owned(), run.line));
        let directory = node
            .str_of("working-directory")
            .map(str::to_owned)
            .or_else(|| state.directory.clone());
        let shell_name = node.str_of("shell").unwrap_or_default();
        if shell_name.contains("python") || shell_name.contains("node") {
            out.acts = catalog_code(text, file, run.line);
        } else if let Some(tree) = library.tree() {
            script_step(
                text,
                file,
                run.line,
                directory.as_deref(),
                tree,
                state,
                &mut out,
            );
        }
    }
    out.agents.extend(generic_agent(file, &out));
    for agent in &mut out.agents {
        for (_, line) in &mut agent.prompt {
            if *line == 0 {
                *line = out.line;
            }
        }
    }
    out
}

/// A program that gets a model's key and the forge's token in one environment is taken for an
/// agent, whatever it is called.
fn generic_agent(file: &str, step: &Step) -> Option<Agent> {
    if !step.agents.is_empty() || step.run.is_none() {
        return None;
    }
    let has = |names: &[&str]| {
        step.env
            .iter()
            .any(|(name, value)| names.contains(&name.as_str()) && value.contains("${{"))
    };
    let model = has(&[
        "ANTHROPIC_API_KEY",
        "CLAUDE_CODE_OAUTH_TOKEN",
        "OPENAI_API_KEY",
        "GEMINI_API_KEY",
        "OPENROUTER_API_KEY",
        "CURSOR_API_KEY",
    ]);
    if !model || !has(&["GITHUB_TOKEN", "GH_TOKEN", "GITHUB_PAT"]) {
        return None;
    }
    let (text, line) = step.run.as_ref()?;
    Some(Agent {
        name: "a program with a model's key",
        file: file.to_owned(),
        line: *line,
        token: None,
        own_app: None,
        tools: None,
        shell: true,
        reviewer: false,
        prompt: vec![(text.chars().take(2_000).collect(), *line)],
        checks: agents::ActorCheck::Never,
        bots: agents::Bots::All,
        uses: None,
        generic: true,
    })
}

fn catalog_code(text: &str, file: &str, line: usize) -> Vec<Act> {
    crate::acts::code::read(text, file, line)
}

/// Reads a script as one step; used for every system.
pub(crate) fn script_step(
    text: &str,
    file: &str,
    line: usize,
    directory: Option<&str>,
    tree: &Tree,
    state: &mut JobState,
    out: &mut Step,
) {
    let mut shell = state.shell.clone();
    shell.directory = directory
        .map(|place| {
            place
                .trim_start_matches("./")
                .trim_end_matches('/')
                .to_owned()
        })
        .filter(|place| !place.is_empty() && place != ".");
    shell.foreign = shell
        .directory
        .as_deref()
        .and_then(|place| shell.foreign_of(place))
        .or_else(|| state.root_foreign.clone());
    let mut reader = Reader::new(tree, shell);
    reader.script(text, file, line);
    let lower = text.to_ascii_lowercase();
    if [
        "kind create cluster",
        "minikube start",
        "k3d cluster create",
        "localstack start",
        "awslocal",
        "tflocal",
        "ctlptl create",
        "microk8s start",
        "kwokctl create",
    ]
    .iter()
    .any(|mark| lower.contains(mark))
    {
        state.local = Some("the cluster or cloud belongs to the job");
    }
    let calls = std::mem::take(&mut reader.shell.agents);
    for call in calls {
        out.agents.push(Agent {
            name: call.name,
            file: call.file,
            line: call.line,
            token: None,
            own_app: None,
            shell: call
                .tools
                .as_ref()
                .is_none_or(|tools| agents::may_push(tools)),
            tools: call.tools,
            reviewer: false,
            prompt: vec![(call.command, call.line)],
            checks: agents::ActorCheck::Never,
            bots: agents::Bots::All,
            uses: None,
            generic: false,
        });
    }
    out.acts.append(&mut reader.acts);
    state.shell = reader.shell;
    state.shell.directory = None;
    state.shell.foreign = None;
}

#[expect(
    clippy::too_many_arguments,
    reason = "one caller; the parts are what a step consists of"
)]
fn uses_step(
    file: &str,
    uses: &str,
    line: usize,
    node: &Node,
    library: &Library<'_>,
    state: &mut JobState,
    out: &mut Step,
    depth: usize,
) {
    let with_pairs = out.with.clone();
    let with = With(&with_pairs);
    let name = name_of(uses);
    match name.as_str() {
        "actions/checkout" => {
            let repository = with.get("repository").filter(|repository| {
                !repository.contains("github.repository")
                    && !repository.contains("head.repo")
                    && !state.shell.is_self(repository)
                    && !repository.is_empty()
            });
            let path = with.get("path").map(|path| {
                path.trim_start_matches("./")
                    .trim_end_matches('/')
                    .to_owned()
            });
            match (repository, path) {
                (Some(other), Some(path)) => state.shell.clones.push((path, other.to_owned())),
                (Some(other), None) => state.root_foreign = Some(other.to_owned()),
                (None, Some(path)) => {
                    if let Some(reference) = with.get("ref") {
                        state.shell.worktrees.push((path, reference.to_owned()));
                    }
                }
                (None, None) => {
                    state.root_foreign = None;
                    state.shell.branch = with
                        .get("ref")
                        .filter(|reference| !reference.is_empty())
                        .map(str::to_owned);
                }
            }
            out.checkout = Some(Checkout {
                token: with.get("token").map(str::to_owned),
                ssh_key: with.get("ssh-key").map(str::to_owned),
                persist: with
                    .get("persist-credentials")
                    .is_none_or(|value| value.trim() != "false"),
                reference: with.get("ref").map(str::to_owned),
                aside: with.get("path").is_some(),
            });
        }
        "actions/create-github-app-token"
        | "tibdex/github-app-token"
        | "getsentry/action-github-app-token"
        | "peter-murray/workflow-application-token-action"
        | "navikt/github-app-token-generator"
        | "jamestrousdale/github-app-jwt-token"
        | "electron/github-app-auth-action"
        | "wow-actions/use-app-token"
        | "machine-learning-apps/actions-app-token" => {
            out.token_rights = token_rights(&with);
        }
        "webfactory/ssh-agent" => {
            out.checkout = Some(Checkout {
                token: None,
                ssh_key: with.get("ssh-private-key").map(str::to_owned),
                persist: true,
                reference: None,
                aside: false,
            });
        }
        "actions/github-script" => {
            if let Some(script) = node.at(&["with", "script"])
                && let Some(text) = script.text()
            {
                if let Some(mut acts) =
                    crate::agentic::acts(text, &out.env, with.get("github-token"))
                {
                    for act in &mut acts {
                        act.line = line;
                        file.clone_into(&mut act.file);
                    }
                    out.acts = acts;
                    return;
                }
                let mut acts = crate::acts::code::read(text, file, script.line);
                if let Some(token) = with.get("github-token") {
                    for act in &mut acts {
                        act.token = Token::Value(token.to_owned());
                    }
                }
                // `require('./scripts/x.js')`.
                if let Some(tree) = library.tree()
                    && let Some(path) = text
                        .split("require(")
                        .nth(1)
                        .and_then(|rest| rest.split(['\'', '"', '`', ')']).nth(1))
                    && (path.starts_with('.') || path.starts_with("${process"))
                {
                    let mut reader = Reader::new(tree, Shell::default());
                    reader.follow(&path.replace("${process.env.GITHUB_WORKSPACE}", "."), 0);
                    acts.append(&mut reader.acts);
                }
                out.acts = acts;
            }
        }
        "nick-fields/retry" | "nick-invision/retry" | "wandalen/wretry.action" => {
            if let Some(command) = node.at(&["with", "command"])
                && let Some(text) = command.text()
                && let Some(tree) = library.tree()
            {
                script_step(text, file, command.line, None, tree, state, out);
            }
        }
        "borales/actions-yarn" | "bahmutov/npm-install" => {
            if let Some(command) = with.get("cmd")
                && let Some(tree) = library.tree()
            {
                script_step(
                    &format!("yarn {command}"),
                    file,
                    line,
                    None,
                    tree,
                    state,
                    out,
                );
            }
        }
        "gradle/gradle-build-action"
        | "burrunan/gradle-cache-action"
        | "eskatos/gradle-command-action" => {
            if let Some(arguments) = with.get("arguments")
                && let Some(tree) = library.tree()
            {
                script_step(
                    &format!("gradle {}", arguments.replace('\n', " ")),
                    file,
                    line,
                    None,
                    tree,
                    state,
                    out,
                );
            }
        }
        "changesets/action" => {
            out.acts = catalog::acts_of(uses, &with);
        }
        "pre-commit/action" | "pre-commit-ci/lite-action" => {}
        _ if uses.starts_with("./") || library.resolve(uses).is_some() => {
            composite(uses, library, state, out, depth);
            given_script(node, file, library, state, out);
        }
        "devcontainers/ci" | "addnab/docker-run-action" | "cachix/devenv-action" => {
            given_script(node, file, library, state, out);
        }
        _ => {
            out.acts = catalog::acts_of(uses, &with);
        }
    }
    if name == "pascalgw/automerge-action"
        && let Some(labels) = node.at(&["env", "MERGE_LABELS"]).and_then(Node::text)
    {
        let wanted = labels
            .split(',')
            .map(str::trim)
            .find(|label| !label.is_empty() && !label.starts_with('!'))
            .map(str::to_owned);
        for act in &mut out.acts {
            if let Op::Merge { label, .. } = &mut act.op {
                label.clone_from(&wanted);
            }
        }
    }
    if let Some(mut agent) = agents::by_action(uses, &with) {
        file.clone_into(&mut agent.file);
        agent.line = line;
        out.agents.push(agent);
    }
    // An action that pushes the branch at hand pushes the one that was checked out by name.
    if let Some(branch) = &state.shell.branch {
        for act in &mut out.acts {
            if act.token == Token::Git
                && let Op::Push(target @ Target::Current) = &mut act.op
            {
                *target = Target::Branch(branch.clone());
            }
        }
    }
    // An action that pushes the workspace pushes whatever repository is checked out there.
    if let Some(other) = &state.root_foreign {
        for act in &mut out.acts {
            if act.token == Token::Git
                && let Op::Push(target) = &mut act.op
            {
                *target = Target::Elsewhere(other.clone());
            }
        }
    }
    for act in &mut out.acts {
        if act.line == 0 {
            act.line = line;
            file.clone_into(&mut act.file);
        }
        if let Op::Local(why) = act.op {
            state.local = Some(why);
        }
    }
}

/// A script that a step hands to an action to run, by the names that such inputs go by.
fn given_script(
    node: &Node,
    file: &str,
    library: &Library<'_>,
    state: &mut JobState,
    out: &mut Step,
) {
    let Some(tree) = library.tree() else { return };
    for entry in node.get("with").map(Node::entries).unwrap_or_default() {
        let name: String = entry
            .key
            .chars()
            .filter(|c| c.is_ascii_alphanumeric())
            .collect::<String>()
            .to_ascii_lowercase();
        if matches!(name.as_str(), "run" | "runcmd" | "runcommand" | "runscript")
            && let Some(text) = entry.value.text()
        {
            script_step(text, file, entry.value.line, None, tree, state, out);
        }
    }
}

/// The scopes that a step asks an app's token to write; `None` where it asks for all.
fn token_rights(with: &With<'_>) -> Option<Vec<String>> {
    let mut asked = false;
    let mut writes = Vec::new();
    for (name, level) in with.0 {
        if let Some(scope) = name.strip_prefix("permission-") {
            asked = true;
            if level.trim() == "write" {
                writes.push(scope.to_owned());
            }
        }
    }
    if let Some(json) = with.get("permissions") {
        let list: std::collections::BTreeMap<String, String> =
            serde_json::from_str(json.trim()).ok()?;
        asked |= !list.is_empty();
        writes.extend(
            list.into_iter()
                .filter(|(_, level)| level == "write")
                .map(|(scope, _)| scope.replace('_', "-")),
        );
    }
    asked.then_some(writes)
}

fn composite(
    uses: &str,
    library: &Library<'_>,
    state: &mut JobState,
    out: &mut Step,
    depth: usize,
) {
    if depth >= COMPOSITE_DEPTH_MAX {
        return;
    }
    let Some((index, directory)) = library.resolve(uses) else {
        return;
    };
    let there = library.at(index);
    let Some(tree) = there.tree() else { return };
    let prefix = if directory.is_empty() {
        String::new()
    } else {
        format!("{directory}/")
    };
    for name in ["action.yml", "action.yaml"] {
        let path = format!("{prefix}{name}");
        let Ok(text) = tree.read(&path) else { continue };
        let Ok(root) = yaml::parse_one(&text) else {
            return;
        };
        let defaults = root
            .get("inputs")
            .map(Node::entries)
            .unwrap_or_default()
            .iter()
            .map(|input| {
                (
                    input.key.to_lowercase(),
                    input.value.str_of("default").unwrap_or_default().to_owned(),
                )
            })
            .collect();
        let runs = root.get("runs");
        let mut steps: Vec<Step> = runs
            .and_then(|runs| runs.get("steps"))
            .map(Node::items)
            .unwrap_or_default()
            .iter()
            .map(|item| step(&path, item, &there, state, depth + 1))
            .collect();
        if let Some(main) = runs.and_then(|runs| runs.str_of("main")) {
            let source = format!("{prefix}{main}");
            // What is bundled under dist/ is too large and too noisy to read by names.
            if !main.contains("dist/")
                && let Ok(code) = tree.read(&source)
            {
                steps.push(Step {
                    line: 1,
                    acts: crate::acts::code::read(&code, &source, 1),
                    ..Step::default()
                });
            }
        }
        out.inner = Some(Inner { steps, defaults });
        return;
    }
}
