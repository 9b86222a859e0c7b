//! Commands of a script, and the scripts, package scripts and make targets they call.

mod arguments;
mod follow;
mod state;

pub(crate) use state::{AgentCall, Shell};

use super::naming::Unresolved;
use super::{Act, Check, Op, Token, deploys, forge, git, guards, publishes};
use crate::shell::{self, Command};
use crate::tree::Tree;
use crate::workflow::{Pairs, Values};

/// Deepest chain of scripts that call scripts.
pub(super) const FOLLOW_MAX: usize = 6;
/// Most words of a loop: past so many its variable is unknown.
const LOOP_MAX: usize = 64;
/// Most conditions of one act.
const ONLY_IF_MAX: usize = 16;
/// Most acts of one step.
const ACTS_MAX: usize = 400;

/// What the commands of one script do.
pub(crate) struct Reader<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) shell: Shell,
    pub(crate) acts: Vec<Act>,
    /// What is run and could not be read.
    pub(crate) unresolved: Vec<Unresolved>,
    /// Programs that nothing here knows.
    pub(crate) strange: Vec<Unresolved>,
    /// What names stand for, and the environment of the step.
    pub(crate) known: Option<(&'a Values, &'a Pairs)>,
    /// The command at hand is given more words than it shows.
    fed: bool,
    /// Something before may have made a private package public, or hands packages on to publish.
    private_changed: bool,
    /// What the script at hand was called with; `None` for the step's own.
    arguments: Option<Vec<String>>,
    /// Variables of loops over words.
    pub(super) loops: Vec<(String, Vec<String>)>,
    /// The file that is being read.
    here: String,
    pub(super) followed: Vec<String>,
    /// How many commands the names in this step's commands may still stand for.
    pub(super) variants: usize,
    /// How many commands of this step may still be named by what is unknown.
    pub(super) unknowns: usize,
    /// How often a script may still be looked up on disk in this step.
    lookups: usize,
    /// How much text of programs may still be read in this step, in bytes: what is looked for in
    /// it grows faster than it does.
    program_bytes: usize,
    /// How many scripts of a monorepo's packages its runner may still start in this step.
    package_runs: usize,
}

/// Whether a value is a secret address that is named for the build or the deployment it starts.
fn is_hook(value: &str) -> bool {
    let upper = value.to_ascii_uppercase();
    upper.contains("SECRETS.")
        && upper.contains("HOOK")
        && [
            "DEPLOY", "BUILD", "RENDER", "VERCEL", "NETLIFY", "COOLIFY", "PAGES",
        ]
        .iter()
        .any(|word| upper.contains(word))
}

impl<'a> Reader<'a> {
    pub(crate) fn new(tree: &'a Tree, shell: Shell) -> Self {
        /// Most files that the commands of one step may name.
        const LOOKUPS_MAX: usize = 200;
        /// Most commands that those of one step stand for: names in names would multiply.
        const VARIANTS_MAX: usize = 128;
        /// Most commands of one step whose names are looked up in vain.
        const UNKNOWNS_MAX: usize = 1_000;
        /// Most text of the programs of one step, in bytes.
        const PROGRAM_BYTES_MAX: usize = 512 * 1024;
        /// Most scripts of packages that a monorepo's runner starts in one step.
        const PACKAGE_RUNS_MAX: usize = 1_000;
        Self {
            tree,
            shell,
            acts: Vec::new(),
            unresolved: Vec::new(),
            strange: Vec::new(),
            known: None,
            fed: false,
            private_changed: false,
            arguments: None,
            loops: Vec::new(),
            here: String::new(),
            followed: Vec::new(),
            variants: VARIANTS_MAX,
            unknowns: UNKNOWNS_MAX,
            lookups: LOOKUPS_MAX,
            program_bytes: PROGRAM_BYTES_MAX,
            package_runs: PACKAGE_RUNS_MAX,
        }
    }

    /// Reads a script that stands in `file` from `line` on.
    pub(crate) fn script(&mut self, text: &str, file: &str, line: usize) {
        self.script_at(text, file, line, 0);
    }

    pub(super) fn script_at(&mut self, text: &str, file: &str, line: usize, depth: usize) {
        // The acts of each command, by the line that it stands on.
        let mut made: Vec<(usize, std::ops::Range<usize>)> = Vec::new();
        let commands = shell::commands(text);
        if commands.len() >= shell::COMMANDS_MAX {
            self.bound_reached();
        }
        for command in &commands {
            let before = self.acts.len();
            if before >= ACTS_MAX {
                break;
            }
            self.unwrap(command, file, line + command.line, depth);
            if self.acts.len() > before {
                made.push((command.line, before..self.acts.len()));
            }
        }
        if made.is_empty() {
            return;
        }
        let conditions = guards::of_script(text);
        if conditions.is_empty() {
            return;
        }
        // After `shift` they are others.
        let moved = commands.iter().any(|command| {
            matches!(command.words.as_slice(), [first, rest @ ..]
                if first == "shift" || first == "set" && rest.first().is_some_and(|word| word == "--"))
        });
        let functions = arguments::functions(text);
        let bodies = arguments::bodies(text, &functions);
        let calls = arguments::calls(&functions, &commands);
        let count = text.lines().count();
        for (condition, lines) in conditions {
            let condition = self.spelled_out(condition);
            let condition = match &self.arguments {
                Some(given) if !moved => arguments::put_in(condition, given, &bodies, &lines),
                Some(_) | None => condition,
            };
            let lines = arguments::with_called(&lines, count, &functions, &calls);
            let among = |at: &usize| lines.get(*at) == Some(&true);
            for (_, acts) in made.iter().filter(|(at, _)| among(at)) {
                for act in self.acts.get_mut(acts.clone()).unwrap_or_default() {
                    if act.only_if.len() < ONLY_IF_MAX {
                        act.only_if.push(condition.clone());
                    }
                }
            }
        }
    }

    /// A condition with the properties of the event in the place of variables that hold them.
    fn spelled_out(&self, condition: String) -> String {
        let mut out = condition;
        for (name, value) in self.known.map(|(_, env)| env).into_iter().flatten() {
            let path = value
                .trim()
                .strip_prefix("${{")
                .and_then(|rest| rest.strip_suffix("}}"))
                .map(str::trim)
                .filter(|path| {
                    path.starts_with("github.")
                        && path
                            .chars()
                            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
                });
            // However they are put together, labels are asked for by name.
            let path = if value.contains("github.event.pull_request.labels") {
                Some("github.event.pull_request.labels.*.name")
            } else {
                path
            };
            let Some(path) = path.filter(|path| path.len() < 200) else {
                continue;
            };
            if [".fork", ".draft", ".merged"]
                .iter()
                .any(|end| path.ends_with(end))
            {
                for word in ["true", "false"] {
                    out = out.replace(
                        &format!("env.{name} == '{word}'"),
                        &format!("{path} == {word}"),
                    );
                }
            }
            for end in [" ", ",", ")"] {
                out = out.replace(&format!("env.{name}{end}"), &format!("{path}{end}"));
            }
        }
        out
    }

    /// Reads a command without what stands in front of it.
    pub(super) fn unwrap(&mut self, command: &Command, file: &str, line: usize, depth: usize) {
        file.clone_into(&mut self.here);
        if self.by_name(command, file, line, depth) {
            return;
        }
        let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
        let before = self.acts.len();
        match words.as_slice() {
            [
                runner @ ("poetry" | "uv" | "pdm" | "hatch" | "rye" | "poe"),
                ..,
            ] => {
                self.task(runner, command, depth);
            }
            ["python" | "python3", "-m", module, ..] => self.python_module(module, depth),
            _ => {}
        }
        if self.acts.len() == before {
            // What is fed to a command stands behind its own words.
            self.fed = words
                .iter()
                .any(|word| matches!(*word, "xargs" | "parallel"));
            self.command(&command.unwrapped(), file, line, depth);
            self.fed = false;
        }
    }

    fn command(&mut self, command: &Command, file: &str, line: usize, depth: usize) {
        file.clone_into(&mut self.here);
        for (name, value) in &command.env {
            if command.words.is_empty() {
                let value = self.shell.expand(value);
                if value.contains("$(") {
                    continue;
                }
                // `name+=(…)` and `name+=" …"` add to what is there.
                match name.strip_suffix('+') {
                    Some(name) => {
                        let before = self
                            .shell
                            .variables
                            .iter()
                            .find(|(known, _)| known == name)
                            .map(|(_, value)| value.clone())
                            .unwrap_or_default();
                        self.shell.set(name, format!("{before} {}", value.trim()));
                    }
                    None => self.shell.set(name, value),
                }
            }
        }
        let command = &self.spread(command);
        let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
        let Some(program) = words.first().copied() else {
            return;
        };
        let name = super::programs::program(program);
        let before = self.acts.len();
        let agents = self.shell.agents.len();
        if let Some(agent) = crate::agents::by_command(name, &words) {
            let tools = crate::agents::tools_of_command(command);
            self.shell.agents.push(AgentCall {
                name: agent,
                file: file.to_owned(),
                line,
                tools,
                command: git::shorten(&command.text()),
            });
        }
        match name {
            "cd" | "pushd" => self.change_directory(words.get(1).copied().unwrap_or_default()),
            "popd" => self.change_directory(""),
            "for" => {
                if let [_, variable, "in", values @ ..] = words.as_slice() {
                    let values = values
                        .iter()
                        .take(LOOP_MAX)
                        .map(|value| self.shell.expand(value));
                    let values = values.collect();
                    self.loops.push(((*variable).to_owned(), values));
                }
            }
            "export" | "declare" | "local" | "readonly" => {
                for word in words.iter().skip(1) {
                    if let Some((name, value)) = word.split_once('=')
                        && !value.contains("$(")
                    {
                        let value = self.shell.expand(value);
                        self.shell.set(name, value);
                    }
                }
            }
            "git" => {
                let acts = git::read(command, &mut self.shell);
                self.acts.extend(acts);
            }
            "gh" => {
                let mut acts = forge::gh(command, &mut self.shell);
                let here = self.finds_by_checkout(command);
                acts.iter_mut().for_each(|act| act.needs_checkout = here);
                self.acts.extend(acts);
            }
            "hub" => self.acts.extend(forge::hub(&words)),
            "glab" => self.acts.extend(forge::glab(command)),
            "curl" | "wget" | "http" | "https" | "Invoke-RestMethod" | "Invoke-WebRequest"
            | "irm" | "iwr" => self.acts.extend(forge::curl(command, &self.shell)),
            "bash" | "sh" | "zsh" | "dash" | "source" | "." | "pwsh" | "eval" => {
                self.nested_shell(command, file, line, depth);
            }
            "ssh" | "sshpass" => self.acts.extend(deploys::read(name, command)),
            "npm" | "yarn" | "pnpm" | "bun" | "deno" | "make" | "just" | "task" | "node"
            | "tsx" | "ts-node" | "python" | "python3" | "ruby" | "zx" | "turbo" | "nx"
            | "julia" | "Rscript" => {
                self.call(name, command, depth, file, line);
            }
            _ if program.contains('/') || name.ends_with(".sh") || name.ends_with(".ps1") => {
                if self.fed {
                    self.follow(program, depth);
                } else {
                    let given = words.get(1..).unwrap_or_default();
                    self.follow_with(program, given, depth);
                }
            }
            _ => {}
        }
        self.task(name, command, depth);
        self.private_changed |= words.iter().any(|word| word.contains("private"))
            || matches!(name, "xargs" | "lerna" | "jq" | "cp" | "mv");
        let before_publish = self.acts.len();
        if name != "fastlane" || !self.lane(&words) {
            self.acts.extend(publishes::read(name, command));
        }
        // Another configuration than the repository's says something else.
        if name == "goreleaser" && command.option(&["-f", "--config"]).is_none() {
            let mut found = self.acts.split_off(before_publish);
            super::goreleaser::by_configuration(self.tree, &mut found);
            self.acts.append(&mut found);
        }
        if self.is_private(name, command) {
            for act in self.acts.iter_mut().skip(before_publish) {
                act.benign = Some("package.json says that the package is private");
            }
        }
        if !matches!(name, "ssh" | "sshpass") {
            self.acts.extend(deploys::read(name, command));
        }
        if self.acts.len() == before
            && matches!(name, "exit" | "false")
            && words.get(1).is_none_or(|code| *code != "0")
        {
            // `exit 1` after a permission look-up is what makes the look-up a check.
            self.confirm_permission_check();
        }
        if self.acts.len() == before && self.unresolved.is_empty() && command.stdin.is_none() {
            self.note_unlisted(command, name, line);
        }
        if self.acts.len() == before && self.shell.agents.len() == agents && !file.ends_with(".sh")
        {
            self.note_strange(command, name, line);
        }
        for act in self.acts.iter_mut().skip(before) {
            if act.line == 0 {
                act.line = line;
                file.clone_into(&mut act.file);
            }
        }
        for (variable, value) in &command.env {
            if matches!(variable.as_str(), "GH_TOKEN" | "GITHUB_TOKEN") {
                for act in self.acts.iter_mut().skip(before) {
                    if matches!(act.token, Token::Env(_)) {
                        act.token = Token::Value(self.shell.expand(value));
                    }
                }
            }
        }
    }

    /// A command with the words that variables stand for: `$FLAGS`, `"${args[@]}"`, `$CMD`. What
    /// PowerShell assigns is the command.
    fn spread(&self, command: &Command) -> Command {
        let mut words = Vec::with_capacity(command.words.len());
        let given = match command.words.as_slice() {
            [name, equals, rest @ ..] if name.starts_with('$') && equals == "=" => rest,
            all => all,
        };
        for word in given {
            let word = &self.addressed(word);
            match self.shell.stands_for(word, self.known.map(|(_, env)| env)) {
                Some(value) => words.extend(value.split_whitespace().map(str::to_owned)),
                None => words.push(word.clone()),
            }
        }
        Command {
            words,
            ..command.clone()
        }
    }

    /// A word with the variables of the step put in that hold an address which the event gives.
    fn addressed(&self, word: &str) -> String {
        let mut out = word.to_owned();
        if !word.contains('$') || word.contains("${{") {
            return out;
        }
        for (name, value) in self.known.map(|(_, env)| env).into_iter().flatten() {
            let address = value.contains("github.event.")
                && (value.contains(".url") || value.contains("links.self"))
                || is_hook(value);
            if address && value.len() < 200 {
                out = out
                    .replace(&format!("${{{name}}}"), value)
                    .replace(&format!("${name}"), value);
            }
        }
        out
    }

    fn confirm_permission_check(&mut self) {
        for act in &mut self.acts {
            if let Op::Check(Check::Actor(text)) = &mut act.op
                && *text == forge::PERMISSION_LOOKUP
            {
                *text = "the script stops unless the actor has the permission it asks for";
            }
        }
    }

    fn change_directory(&mut self, place: &str) {
        let place = self.shell.expand(place);
        let place = place.trim_start_matches("./").trim_end_matches('/');
        if place.is_empty() || place == "-" || place == ".." || place.contains("GITHUB_WORKSPACE") {
            self.shell.directory = None;
            self.shell.foreign = None;
            return;
        }
        self.shell.directory = Some(place.to_owned());
        if let Some(foreign) = self.shell.foreign_of(place) {
            self.shell.foreign = Some(foreign);
        }
    }

    /// Whether `gh` is told neither a repository nor an address, so that it asks git. A variable
    /// that may hold an address is taken for one.
    fn finds_by_checkout(&self, command: &Command) -> bool {
        let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
        let [
            _,
            "pr" | "issue" | "release" | "workflow",
            _,
            arguments @ ..,
        ] = words.as_slice()
        else {
            return false;
        };
        let told = words.iter().any(|word| {
            matches!(*word, "-R" | "--repo")
                || word.starts_with("-R")
                || word.starts_with("--repo=")
                || word.contains("://")
        });
        let named = arguments.iter().find(|word| !word.starts_with('-'));
        let is_number = named.is_some_and(|word| {
            let value = self.known.and_then(|(_, env)| {
                let name = word.strip_prefix('$')?;
                let name = name.trim_start_matches('{').trim_end_matches('}');
                let (_, value) = env.iter().find(|(known, _)| known == name)?;
                Some(value.as_str())
            });
            let text = value.unwrap_or(word);
            text.trim_end_matches(['}', ' ']).ends_with(".number")
                || text.chars().all(|c| c.is_ascii_digit())
        });
        !told && is_number && words.get(1) == Some(&"pr")
    }

    /// Whether a command publishes the package of its directory, which may not be published.
    fn is_private(&self, name: &str, command: &Command) -> bool {
        let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
        let published = words.iter().position(|word| *word == "publish");
        // Whatever else is named is another package, or may be.
        let own = match (name, published) {
            ("npm" | "pnpm" | "bun", Some(1)) | ("yarn", Some(1 | 2)) => {
                let mut values = false;
                words
                    .iter()
                    .skip(published.unwrap_or_default() + 1)
                    .all(|word| {
                        let value = std::mem::take(&mut values);
                        values = matches!(
                            *word,
                            "--access" | "--tag" | "--registry" | "--otp" | "--provenance"
                        );
                        value
                            || word.starts_with('-')
                                && ![
                                    "-w",
                                    "--workspace",
                                    "--filter",
                                    "--prefix",
                                    "--cwd",
                                    "-r",
                                    "-C",
                                    "--recursive",
                                    "--dir",
                                ]
                                .iter()
                                .any(|option| word.starts_with(option))
                    })
            }
            _ => false,
        } && !self.private_changed
            && !self.fed;
        let directory = self.shell.directory.as_deref();
        own && !directory.is_some_and(|place| place.contains('$'))
            && self
                .tree
                .read(&self.within(directory, "package.json"))
                .ok()
                .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
                .is_some_and(|package| {
                    package.get("private") == Some(&serde_json::Value::Bool(true))
                })
    }

    fn nested_shell(&mut self, command: &Command, file: &str, line: usize, depth: usize) {
        if depth >= FOLLOW_MAX {
            return;
        }
        let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
        if let Some(at) = words
            .iter()
            .position(|word| matches!(*word, "-c" | "-lc" | "-ec" | "-exc" | "-Command"))
        {
            if let Some(text) = words.get(at + 1) {
                self.script_at(text, file, line, depth + 1);
            }
        } else if words.first() == Some(&"eval") {
            let text = words.get(1..).unwrap_or_default().join(" ");
            self.script_at(&text, file, line, depth + 1);
        } else if let Some(at) = words.iter().skip(1).position(|word| !word.starts_with('-')) {
            let path = words.get(at + 1).copied().unwrap_or_default().to_owned();
            if self.fed {
                self.follow(&path, depth);
            } else {
                self.follow_with(&path, words.get(at + 2..).unwrap_or_default(), depth);
            }
        } else if let Some(body) = &command.stdin {
            let body = body.clone();
            self.script_at(&body, file, line + 1, depth + 1);
        }
    }

    /// Package scripts, make targets and script files.
    fn call(&mut self, name: &str, command: &Command, depth: usize, file: &str, line: usize) {
        let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
        let inline = matches!(name, "node" | "python" | "python3" | "ruby" | "julia");
        if inline && let Some(at) = words.iter().position(|word| matches!(*word, "-c" | "-e")) {
            if let Some(text) = words.get(at + 1) {
                self.program_text(text, file, line, &[], depth);
            }
            return;
        }
        if inline
            && words.len() <= 2
            && let Some(body) = &command.stdin
        {
            self.program_text(body, file, line + 1, &[], depth);
            return;
        }
        match name {
            "npm" | "yarn" | "pnpm" | "bun" => {
                /// Options whose value is a package or its place.
                const VALUED: &[&str] = &[
                    "--prefix",
                    "--cwd",
                    "-C",
                    "--dir",
                    "--filter",
                    "-F",
                    "-w",
                    "--workspace",
                ];
                let behind = |word: &str| {
                    let at = words.iter().position(|known| *known == word)?;
                    words.get(at + 1).copied()
                };
                let package = command
                    .option(&["--filter", "-F", "-w", "--workspace"])
                    .or_else(|| behind("workspace"))
                    .and_then(|package| self.package_place(package));
                let place = command
                    .option(&["--prefix", "--cwd", "-C", "--dir"])
                    .or(self.shell.directory.as_deref())
                    .map(str::to_owned);
                let place = package.or(place);
                let mut plain = words
                    .windows(2)
                    .filter_map(|pair| match pair {
                        [before, word] if !VALUED.contains(before) => Some(*word),
                        _ => None,
                    })
                    .filter(|word| !word.starts_with('-'));
                let mut script = plain.next().unwrap_or_default();
                if matches!(script, "run" | "run-script" | "workspace" | "workspaces") {
                    if script.starts_with("workspace") {
                        let _ = plain.next();
                    }
                    script = plain.next().unwrap_or_default();
                    if script == "run" {
                        script = plain.next().unwrap_or_default();
                    }
                }
                let found = self.package_script(script, place.as_deref(), depth);
                if !found && words.contains(&"run") {
                    self.missing(&format!("{name} run {script}"), script, depth);
                }
                // What is no script of the package is a program of its dependencies.
                if !found
                    && name != "npm"
                    && let Some(at) = words.iter().position(|word| *word == script)
                    && at > 0
                    && !matches!(
                        script,
                        "" | "publish" | "deploy" | "release" | "version" | "git"
                    )
                {
                    let program = Command {
                        words: command.words.get(at..).unwrap_or_default().to_vec(),
                        ..command.clone()
                    };
                    self.command(&program, file, line, depth + 1);
                }
            }
            "make" | "just" | "task" => {
                let place = command.option(&["-C", "--directory"]).map(str::to_owned);
                let targets: Vec<String> = words
                    .iter()
                    .skip(1)
                    .filter(|word| !word.starts_with('-') && !word.contains('='))
                    .map(|word| (*word).to_owned())
                    .collect();
                for target in targets {
                    self.make_target(name, &target, place.as_deref(), depth);
                }
            }
            _ => {
                let mut plain = words.iter().skip(1).filter(|word| !word.starts_with('-'));
                if let Some(path) = plain.clone().find(|word| word.contains('.')) {
                    let path = (*path).to_owned();
                    self.follow(&path, depth);
                } else if name == "node"
                    && let Some(path) = plain.next()
                {
                    // Node finds the file by its name alone.
                    let path = (*path).to_owned();
                    for end in [".js", ".mjs", ".cjs", "/index.js"] {
                        self.follow_if_there(&format!("{path}{end}"), depth);
                    }
                }
            }
        }
    }
}
