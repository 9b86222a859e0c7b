//! The steps of a job: actions, scripts and composite actions, and what one leaves for the next.

use super::actions::{composite, given_script, unlisted_step};
use super::{Checkout, Kind, Library, Step, Unread, Values, condition, pairs};
use crate::acts::catalog::{self, With, name_of};
use crate::acts::command::{Reader, Shell};
use crate::acts::naming::Why;
use crate::acts::{Act, Op, Target, Token, reviewed};
use crate::agents::{self, Agent};
use crate::tree::Tree;
use crate::yaml::Node;

/// Most steps of one job, those of its composite actions included.
const STEPS_MAX: usize = 1_000;

/// What one job's steps leave for the next.
pub(crate) struct JobState {
    pub(crate) shell: Shell,
    /// The workspace itself is another repository.
    pub(crate) root_foreign: Option<String>,
    /// The job made its own cluster or cloud.
    pub(crate) local: Option<&'static str>,
    pub(super) steps: usize,
    pub(super) directory: Option<String>,
    /// What names stand for in the job's scripts.
    pub(super) values: Values,
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
            values: Values::default(),
        }
    }
}

/// Where a step writes a commit message at which forges start nothing for the push (GitHub Docs,
/// "Skipping workflow runs"; GitLab Docs, "Skip a pipeline"), the job's pushes are silent.
pub(crate) fn heed_silence(steps: &mut [Step]) {
    if steps.iter().any(asks_for_silence) {
        for act in steps.iter_mut().flat_map(|step| &mut step.acts) {
            act.silent |= matches!(act.op, Op::Push(_));
        }
    }
}

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
            "***no_ci***",
        ]
        .iter()
        .any(|mark| lower.contains(mark))
    };
    // `git push -o ci.skip`, which GitLab alone heeds.
    let by_option = |text: &str| {
        text.contains("ci.skip") && (text.contains(" -o") || text.contains("--push-option"))
    };
    step.run
        .as_ref()
        .is_some_and(|(text, _)| text.contains("commit") && silent(text) || by_option(text))
        || step
            .with
            .iter()
            .any(|(key, value)| key.contains("message") && silent(value))
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

pub(super) fn step(
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
        name: node.str_of("name").map(str::to_owned),
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
        if out.id.is_some() {
            out.writes = crate::acts::outputs::written(text);
        }
        let directory = node
            .str_of("working-directory")
            .map(str::to_owned)
            .or_else(|| state.directory.clone());
        let shell_name = node.str_of("shell").unwrap_or_default();
        if ["python", "node", "julia"]
            .iter()
            .any(|name| shell_name.contains(name))
        {
            out.acts = program(text, file, run.line, library, state);
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
            if goes_on(shell_name) {
                let last = run.line + text.trim_end().lines().count();
                for act in out.acts.iter_mut().filter(|act| act.file == file) {
                    act.must &= act.line + 1 >= last;
                }
            }
        }
    }
    out.brings_repository = brings_repository(&out);
    out.agents.extend(generic_agent(file, &out));
    for agent in &mut out.agents {
        let mut files = Vec::new();
        for (text, _) in &agent.prompt {
            if let Some(tree) = library.tree() {
                files.extend(agents::prompts::named(text, tree));
            }
        }
        let given = agent.prompt.iter().map(|(text, _)| text.as_str());
        let texts = given.chain(out.run.iter().map(|(text, _)| text.as_str()));
        agent.asks = agents::prompts::read(texts.chain(files.iter().map(String::as_str)));
        for (_, line) in &mut agent.prompt {
            if *line == 0 {
                *line = out.line;
            }
        }
    }
    out
}

/// What a program that stands in a step does, and the scripts of the repository that it starts.
fn program(
    text: &str,
    file: &str,
    line: usize,
    library: &Library<'_>,
    state: &JobState,
) -> Vec<Act> {
    let Some(tree) = library.tree() else {
        return Vec::new();
    };
    let shell = Shell {
        slug: state.shell.slug.clone(),
        ..Shell::default()
    };
    let mut reader = Reader::new(tree, shell);
    reader.program_text(text, file, line, &[], 0);
    reader.acts
}

/// Whether a shell goes on behind a command that failed, so that the last one alone counts.
fn goes_on(shell: &str) -> bool {
    let mut words = shell.split_whitespace();
    match words.next().unwrap_or_default() {
        "pwsh" | "powershell" | "cmd" => true,
        // With arguments of its own it is not told to end.
        "bash" | "sh" => {
            let own: Vec<&str> = words.collect();
            !own.is_empty()
                && !own.iter().any(|word| {
                    word.starts_with('-') && !word.starts_with("--") && word.contains('e')
                        || *word == "errexit"
                })
        }
        _ => false,
    }
}

/// Whether a step checks something out, or may: what other actions do is not known.
fn brings_repository(step: &Step) -> bool {
    step.checkout.is_some()
        || step.uses.as_deref().is_some_and(|uses| {
            let known = uses.starts_with("actions/") && !uses.starts_with("actions/checkout");
            !known && !uses.starts_with("dependabot/fetch-metadata")
        })
        || step.run.as_ref().is_some_and(|(text, _)| {
            ["git clone", "git init", "repo clone", "GH_REPO"]
                .iter()
                .any(|mark| text.contains(mark))
        })
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
    // Asking for a version, or talking, runs nothing.
    let only_looks = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .all(|line| {
            line.starts_with("echo ") || line.contains("--version") || line.contains("--help")
        });
    if only_looks {
        return None;
    }
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
        needs: agents::Needs::default(),
        asks: agents::prompts::Asks::default(),
    })
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
    shell.committed = false;
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
    reader.known = Some((&state.values, &out.env));
    reader.script(text, file, line);
    let mut strange = std::mem::take(&mut reader.strange);
    // What the script defines itself was read.
    strange.retain(|one| {
        out.run.is_some()
            && !text.contains(&format!("{}()", one.name))
            && !text.contains(&format!("{} ()", one.name))
            && !text.contains(&format!("function {}", one.name))
    });
    reader.unresolved.append(&mut strange);
    for one in std::mem::take(&mut reader.unresolved) {
        out.unread.push(Unread {
            what: one.what,
            name: one.name,
            file: file.to_owned(),
            line: if one.line == 0 { line } else { one.line },
            kind: match one.why {
                Why::Unnamed => Kind::Script,
                Why::Missing => Kind::Missing,
                Why::Bound => Kind::Bound,
                Why::Unlisted => Kind::Command,
                Why::Strange => Kind::Program,
            },
            foreign: state.root_foreign.clone(),
            branch: None,
            only_if: one.only_if,
            told: false,
        });
    }
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
    let settings = (!calls.is_empty())
        .then(|| project_settings(Some(tree)))
        .flatten();
    for call in calls {
        let mut agent = Agent {
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
            prompt: vec![(call.command.clone(), call.line)],
            checks: agents::ActorCheck::Never,
            bots: agents::Bots::All,
            uses: None,
            generic: false,
            needs: agents::Needs::default(),
            asks: agents::prompts::Asks::default(),
        };
        let env = |name: &str| {
            out.env
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.trim())
                .filter(|value| !value.is_empty())
        };
        // What the action itself runs.
        if agent.name == "opencode" && call.command.contains("github run") {
            let own = env("USE_GITHUB_TOKEN").is_some_and(|value| value != "false");
            agent.own_app = (!own).then_some("opencode-agent");
            agent.checks = agents::ActorCheck::OnEntities;
            agent.bots = agents::Bots::Only(Vec::new());
            agent.needs = agents::opencode_needs(env("PROMPT").is_some());
            agent.needs.identity = !own;
        }
        if let Some(settings) = &settings {
            agents::by_project_settings(&mut agent, settings);
        }
        out.agents.push(agent);
    }
    if reviewed::script_waits(text) {
        out.acts.push(reviewed::check(file, line));
    }
    out.acts.append(&mut reader.acts);
    state.shell = reader.shell;
    state.values.leave(text);
    state.shell.directory = None;
    state.shell.foreign = None;
}

/// The settings that Claude Code finds in the repository.
fn project_settings(tree: Option<&Tree>) -> Option<String> {
    let text = tree?.read(".claude/settings.json").ok()?;
    Some(text.to_string())
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
                let text = &with_hooks(text, &out.env);
                let mut acts = program(text, file, script.line, library, state);
                if reviewed::program_waits(text) {
                    acts.insert(0, reviewed::check(file, script.line));
                }
                // The action's client has the token of its input, whatever the environment holds.
                let token = with.get("github-token").unwrap_or("${{ github.token }}");
                for act in &mut acts {
                    if act.token == Token::Env(crate::acts::API_ENV)
                        || with.get("github-token").is_some()
                    {
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
        "nick-fields/retry" | "nick-invision/retry" | "wandalen/wretry.action"
            if with.get("action").is_none() =>
        {
            if let Some(command) = node.at(&["with", "command"])
                && let Some(text) = command.text()
                && let Some(tree) = library.tree()
            {
                script_step(text, file, command.line, None, tree, state, out);
            }
        }
        "azure/cli" | "azure/powershell" => {
            if let Some(script) = node.at(&["with", "inlineScript"])
                && let Some(text) = script.text()
                && let Some(tree) = library.tree()
            {
                script_step(text, file, script.line, None, tree, state, out);
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
        "pre-commit/action" | "pre-commit-ci/lite-action" => {}
        _ if uses.starts_with("./") || library.resolve(uses).is_some() => {
            composite(uses, library, state, out, depth);
            given_script(node, file, library, state, out);
        }
        "devcontainers/ci" | "addnab/docker-run-action" | "cachix/devenv-action" => {
            given_script(node, file, library, state, out);
        }
        _ => match catalog::acts_of(uses, &with) {
            Some(acts) => {
                out.acts = acts;
                if name == "goreleaser/goreleaser-action"
                    && with
                        .get("args")
                        .is_none_or(|args| !args.contains("-f ") && !args.contains("--config"))
                    && let Some(tree) = library.tree()
                {
                    crate::acts::goreleaser::by_configuration(tree, &mut out.acts);
                }
            }
            None => unlisted_step(&name, uses, node, file, library, state, out),
        },
    }
    if name == "pascalgn/automerge-action"
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
    if name == "pascalgn/automerge-action"
        && let Some(author) = node
            .at(&["env", "MERGE_FILTER_AUTHOR"])
            .and_then(Node::text)
        && !author.trim().is_empty()
        && !author.contains(['\'', '$'])
    {
        for act in &mut out.acts {
            act.only_if.push(catalog::author_only(author.trim()));
        }
    }
    if let Some(mut agent) = agents::by_action(uses, &with) {
        out.unread.clear();
        file.clone_into(&mut agent.file);
        agent.line = line;
        if let Some(settings) = project_settings(library.tree()) {
            agents::by_project_settings(&mut agent, &settings);
        }
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
    let forgiven = node.str_of("continue-on-error") == Some("true");
    if let Some(scopes) = catalog::rights_of(&name, &with).filter(|_| !forgiven) {
        let check = Op::Check(crate::acts::Check::Rights(scopes));
        out.acts
            .insert(0, Act::new(check, name.as_str(), Token::Outside));
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

/// A program with its environment's names for hooks put in, so that they are known by what they are.
fn with_hooks(text: &str, env: &[(String, String)]) -> String {
    let mut out = text.to_owned();
    for (name, value) in env {
        let secret: String = value
            .split_once("secrets.")
            .map(|(_, rest)| rest)
            .unwrap_or_default()
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        if secret.to_ascii_uppercase().contains("HOOK") {
            out = out.replace(
                &format!("process.env.{name}"),
                &format!("process.env.{secret}"),
            );
        }
    }
    out
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
