//! Commands of a script, and the scripts, package scripts and make targets they call.

use super::naming::{self, Unresolved, Why};
use super::{
    Act, Check, Op, Token, code, deploys, forge, functions, git, guards, publishes, reviewed, words,
};
use crate::shell::{self, Command};
use crate::tree::{Tree, normal};
use crate::workflow::{Pairs, Values};

/// Deepest chain of scripts that call scripts.
pub(super) const FOLLOW_MAX: usize = 6;
/// Longest value of a variable that is put in, and longest text that values are put into.
const VALUE_MAX: usize = 4 * 1024;
/// Most variables that are kept.
const VARIABLES_MAX: usize = 256;
/// Most words of a loop: past so many its variable is unknown.
const LOOP_MAX: usize = 64;
/// Most conditions of one act.
const ONLY_IF_MAX: usize = 16;
/// Most acts of one step.
const ACTS_MAX: usize = 400;

/// What a job's shell has come to, from command to command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shell {
    /// `owner/name` of the repository, where it is known.
    pub(crate) slug: Option<String>,
    /// Branch that was checked out by a command; may hold templates.
    pub(crate) branch: Option<String>,
    /// Name of the last tag made.
    pub(crate) tagged: Option<String>,
    /// Directory that `cd` went to.
    pub(crate) directory: Option<String>,
    /// The other repository we are in.
    pub(crate) foreign: Option<String>,
    /// Clones and checkouts of other repositories by directory.
    pub(crate) clones: Vec<(String, String)>,
    /// Directories that hold another branch of this repository.
    pub(crate) worktrees: Vec<(String, String)>,
    pub(crate) remotes: Vec<(String, String)>,
    pub(crate) fresh: bool,
    /// Variables set to plain text.
    pub(crate) variables: Vec<(String, String)>,
    /// Variables that were once set to the word that approves.
    pub(crate) approving: Vec<String>,
    /// Agents started by command.
    pub(crate) agents: Vec<AgentCall>,
    /// The label by which the pull requests were selected that the script goes through.
    pub(crate) selected: Option<String>,
    /// A commit was made that no condition leaves out.
    pub(crate) committed: bool,
}

/// An agent's program that a script starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentCall {
    pub(crate) name: &'static str,
    pub(crate) file: String,
    pub(crate) line: usize,
    /// Tools it may use, where the command restricts them.
    pub(crate) tools: Option<Vec<String>>,
    pub(crate) command: String,
}

impl Shell {
    /// Notes a variable. What is too long to be a name, a branch or a path is not kept, so that
    /// values made of values can't grow without end.
    fn set(&mut self, name: &str, value: String) {
        let lower = value.to_ascii_lowercase();
        if matches!(lower.trim_start_matches('-'), "approve")
            && self.approving.len() < VARIABLES_MAX
            && !self.approving.iter().any(|known| known == name)
        {
            self.approving.push(name.to_owned());
        }
        self.variables.retain(|(known, _)| known != name);
        if value.len() <= VALUE_MAX && self.variables.len() < VARIABLES_MAX {
            self.variables.push((name.to_owned(), value));
        }
    }

    /// Replaces variables that were set to text that we know, as long as the text stays short.
    pub(crate) fn expand(&self, text: &str) -> String {
        if !text.contains('$') {
            return text.to_owned();
        }
        let longest = text.len() + VALUE_MAX;
        let mut out = text.to_owned();
        for (name, value) in self.variables.iter().rev() {
            if value.contains(&format!("${name}")) || value.contains(&format!("${{{name}")) {
                continue;
            }
            for (mark, bare) in [(format!("${{{name}}}"), false), (format!("${name}"), true)] {
                let mut from = 0;
                while let Some(at) = out.get(from..).and_then(|rest| rest.find(&mark)) {
                    let start = from + at;
                    let end = start + mark.len();
                    let continues = bare
                        && out
                            .get(end..)
                            .and_then(|rest| rest.chars().next())
                            .is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
                    if continues {
                        from = end;
                        continue;
                    }
                    if out.len() + value.len() > longest {
                        return out;
                    }
                    out.replace_range(start..end, value);
                    from = start + value.len();
                }
            }
        }
        out
    }

    /// The plain text that a word which is nothing but a variable stands for.
    fn stands_for(&self, word: &str, env: Option<&Pairs>) -> Option<String> {
        let name = word.strip_prefix('$')?;
        let name = match name.strip_prefix('{') {
            Some(inner) => inner.strip_suffix('}')?,
            None => name,
        };
        let name = name
            .strip_suffix("[@]")
            .or_else(|| name.strip_suffix("[*]"))
            .unwrap_or(name);
        let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !plain {
            return None;
        }
        self.variables
            .iter()
            .rev()
            .find(|(known, _)| known == name)
            .or_else(|| env?.iter().find(|(known, _)| known == name))
            .map(|(_, value)| value.clone())
            .filter(|value| {
                !value.contains('$')
                    || value.starts_with(|c: char| c.is_ascii_lowercase() || c == '-')
            })
            .filter(|value| !value.contains("${{") && !value.contains("$("))
    }

    /// The other repository that a directory belongs to.
    pub(crate) fn foreign_of(&self, place: &str) -> Option<String> {
        let place = place.trim_start_matches("./").trim_end_matches('/');
        self.clones
            .iter()
            .find(|(known, _)| place == known || place.starts_with(&format!("{known}/")))
            .map(|(_, repository)| repository.clone())
    }

    /// Whether `owner/name` is this repository. A slug `?/name` knows only the name.
    pub(crate) fn is_self(&self, path: &str) -> bool {
        self.slug.as_deref().is_some_and(|slug| {
            slug.eq_ignore_ascii_case(path)
                || slug.strip_prefix("?/").is_some_and(|name| {
                    path.rsplit('/')
                        .next()
                        .is_some_and(|last| last.eq_ignore_ascii_case(name))
                })
        })
    }
}

/// What the commands of one script do.
pub(crate) struct Reader<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) shell: Shell,
    pub(crate) acts: Vec<Act>,
    /// What is run and could not be read.
    pub(crate) unresolved: Vec<Unresolved>,
    /// What names stand for, and the environment of the step.
    pub(crate) known: Option<(&'a Values, &'a Pairs)>,
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
    /// How many scripts of a monorepo's packages its runner may still start in this step.
    package_runs: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(tree: &'a Tree, shell: Shell) -> Self {
        /// Most files that the commands of one step may name.
        const LOOKUPS_MAX: usize = 200;
        /// Most commands that those of one step stand for: names in names would multiply.
        const VARIANTS_MAX: usize = 128;
        /// Most commands of one step whose names are looked up in vain.
        const UNKNOWNS_MAX: usize = 1_000;
        /// Most scripts of packages that a monorepo's runner starts in one step.
        const PACKAGE_RUNS_MAX: usize = 1_000;
        Self {
            tree,
            shell,
            acts: Vec::new(),
            unresolved: Vec::new(),
            known: None,
            loops: Vec::new(),
            here: String::new(),
            followed: Vec::new(),
            variants: VARIANTS_MAX,
            unknowns: UNKNOWNS_MAX,
            lookups: LOOKUPS_MAX,
            package_runs: PACKAGE_RUNS_MAX,
        }
    }

    /// Reads a script that stands in `file` from `line` on.
    pub(crate) fn script(&mut self, text: &str, file: &str, line: usize) {
        self.script_at(text, file, line, 0);
    }

    pub(super) fn script_at(&mut self, text: &str, file: &str, line: usize, depth: usize) {
        let before = self.acts.len();
        for command in shell::commands(text) {
            if self.acts.len() >= ACTS_MAX {
                return;
            }
            let at = line + command.line;
            self.unwrap(&command, file, at, depth);
        }
        if self.acts.len() == before {
            return;
        }
        for (condition, lines) in guards::of_script(text) {
            for act in self.acts.iter_mut().skip(before) {
                let inside = act.file == file
                    && act
                        .line
                        .checked_sub(line)
                        .is_some_and(|at| lines.contains(&at));
                if inside && act.only_if.len() < ONLY_IF_MAX {
                    act.only_if.push(condition.clone());
                }
            }
        }
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
            self.command(&command.unwrapped(), file, line, depth);
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
            "gh" => self.acts.extend(forge::gh(command, &mut self.shell)),
            "hub" => self.acts.extend(forge::hub(&words)),
            "glab" => self.acts.extend(forge::glab(command)),
            "curl" | "wget" | "http" | "https" | "Invoke-RestMethod" | "Invoke-WebRequest"
            | "irm" | "iwr" => self.acts.extend(forge::curl(command, &self.shell)),
            "bash" | "sh" | "zsh" | "dash" | "source" | "." | "pwsh" | "eval" => {
                self.nested_shell(command, file, line, depth);
            }
            "ssh" | "sshpass" => self.acts.extend(deploys::read(name, command)),
            "fastlane" if self.lane(&words) => {}
            "npm" | "yarn" | "pnpm" | "bun" | "deno" | "make" | "just" | "task" | "node"
            | "tsx" | "ts-node" | "python" | "python3" | "ruby" | "zx" | "turbo" | "nx"
            | "julia" | "Rscript" => {
                self.call(name, command, depth, file, line);
            }
            _ if program.contains('/') || name.ends_with(".sh") || name.ends_with(".ps1") => {
                self.follow(program, depth);
            }
            _ => {}
        }
        self.task(name, command, depth);
        let before_publish = self.acts.len();
        if name != "fastlane" || !self.has_lane(&words) {
            self.acts.extend(publishes::read(name, command));
        }
        // Another configuration than the repository's says something else.
        if name == "goreleaser" && command.option(&["-f", "--config"]).is_none() {
            let mut found = self.acts.split_off(before_publish);
            super::goreleaser::by_configuration(self.tree, &mut found);
            self.acts.append(&mut found);
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
                && (value.contains(".url") || value.contains("links.self"));
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
        } else if let Some(path) = words.iter().skip(1).find(|word| !word.starts_with('-')) {
            let path = (*path).to_owned();
            self.follow(&path, depth);
        } else if let Some(body) = &command.stdin {
            let body = body.clone();
            self.script_at(&body, file, line + 1, depth + 1);
        }
    }

    /// Package scripts, make targets and script files.
    fn call(&mut self, name: &str, command: &Command, depth: usize, file: &str, line: usize) {
        let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
        let inline = matches!(name, "node" | "python" | "python3" | "ruby");
        if inline && let Some(at) = words.iter().position(|word| matches!(*word, "-c" | "-e")) {
            if let Some(text) = words.get(at + 1) {
                self.program_text(text, file, line, &[]);
            }
            return;
        }
        if inline
            && words.len() <= 2
            && let Some(body) = &command.stdin
        {
            self.program_text(body, file, line + 1, &[]);
            return;
        }
        match name {
            "npm" | "yarn" | "pnpm" | "bun" => {
                let place = command
                    .option(&["--prefix", "--cwd", "-C", "--dir"])
                    .or(self.shell.directory.as_deref())
                    .map(str::to_owned);
                let mut plain = words
                    .iter()
                    .skip(1)
                    .filter(|word| !word.starts_with('-'))
                    .copied();
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

    /// Runs a script of the package; false if it has none of that name.
    pub(super) fn package_script(
        &mut self,
        script: &str,
        place: Option<&str>,
        depth: usize,
    ) -> bool {
        let path = self.within(place, "package.json");
        if script.is_empty() || depth >= FOLLOW_MAX || !self.enter(&format!("{path}#{script}")) {
            return true;
        }
        self.package_scripts(script, &path, depth)
    }

    /// Runs a script that a package of a monorepo is known to have. It is not looked up, so it does
    /// not count among the files that the step may name.
    pub(super) fn script_of_package(&mut self, script: &str, place: Option<&str>, depth: usize) {
        let path = self.within(place, "package.json");
        let mark = format!("{path}#{script}");
        if self.package_runs == 0 {
            self.bound_reached();
        } else if depth < FOLLOW_MAX && !self.followed.contains(&mark) {
            self.package_runs -= 1;
            self.followed.push(mark);
            self.package_scripts(script, &path, depth);
        }
    }

    fn package_scripts(&mut self, script: &str, path: &str, depth: usize) -> bool {
        let Ok(text) = self.tree.read(path) else {
            return false;
        };
        let Ok(json) = serde_json::from_str::<serde_json::Value>(&text) else {
            return true;
        };
        let known = json
            .pointer(&format!("/scripts/{}", script.replace('/', "~1")))
            .is_some();
        for name in [
            format!("pre{script}"),
            script.to_owned(),
            format!("post{script}"),
        ] {
            let Some(body) = json.pointer(&format!("/scripts/{}", name.replace('/', "~1"))) else {
                continue;
            };
            let Some(body) = body.as_str() else { continue };
            let line = text
                .lines()
                .position(|line| line.contains(&format!("\"{name}\"")))
                .map_or(1, |index| index + 1);
            // The text stands on one line of JSON.
            for command in shell::commands(body) {
                self.command(&command.unwrapped(), path, line, depth + 1);
            }
        }
        known
    }

    /// Reads a script file of the repository.
    pub(crate) fn follow(&mut self, path: &str, depth: usize) {
        if depth >= FOLLOW_MAX {
            return;
        }
        let path = self.shell.expand(path);
        let own = self.here.rsplit_once('/').map_or("", |(place, _)| place);
        let path = path
            .replace("${{ github.workspace }}", ".")
            .replace("$GITHUB_WORKSPACE", ".")
            .replace("${GITHUB_WORKSPACE}", ".")
            .replace("$CI_PROJECT_DIR", ".");
        let mut candidates = Vec::new();
        if let Some(rest) = naming::beside_action(&path) {
            candidates.push(format!("{own}/{rest}"));
        } else if let Some(rest) = naming::beside_script(&path) {
            // `$(dirname "$0")/x.sh`, `"$ROOT/x.sh"`.
            candidates.push(format!("{own}/{rest}"));
            candidates.push(rest.to_owned());
        } else if path.contains('$') || path.starts_with('/') || path.starts_with('~') {
            return;
        } else {
            if let Some(directory) = &self.shell.directory {
                candidates.push(format!("{}/{path}", self.place(directory)));
            }
            candidates.push(path.clone());
        }
        for candidate in candidates {
            let Some(candidate) = normal(&candidate) else {
                continue;
            };
            if !self.enter(&candidate) {
                return;
            }
            let Ok(text) = self.tree.read(&candidate) else {
                continue;
            };
            if reviewed::script_waits(&text) || reviewed::program_waits(&text) {
                self.acts.push(reviewed::check(&candidate, 1));
            }
            let lower = candidate.to_ascii_lowercase();
            let first = text.lines().next().unwrap_or_default();
            let shebang = first.starts_with("#!");
            if lower.ends_with(".jl") || lower.ends_with(".r") {
                self.acts.extend(code::documenter(&text, &candidate));
            } else if [
                ".js", ".mjs", ".cjs", ".ts", ".mts", ".py", ".rb", ".pl", ".php", ".go",
            ]
            .iter()
            .any(|end| lower.ends_with(end))
                || (shebang
                    && (first.contains("python")
                        || first.contains("node")
                        || first.contains("ruby")))
            {
                self.program(&text, &candidate, depth);
            } else if shebang
                || [".sh", ".bash", ".zsh", ".ps1"]
                    .iter()
                    .any(|end| lower.ends_with(end))
                || !candidate.contains('.')
            {
                self.script_at(&text, &candidate, 1, depth + 1);
            }
            return;
        }
        if !naming::is_made(&path) {
            self.missing(&path, &path, depth);
        }
    }

    fn follow_if_there(&mut self, path: &str, depth: usize) {
        let place = self.shell.directory.clone();
        if self.tree.read(&self.within(place.as_deref(), path)).is_ok()
            || self.tree.read(path).is_ok()
        {
            self.follow(path, depth);
        }
    }

    /// Notes a script that a step names for production and that is not there.
    pub(super) fn missing(&mut self, what: &str, name: &str, depth: usize) {
        let told = self
            .unresolved
            .iter()
            .any(|one| one.why == Why::Missing && one.name == name);
        if depth == 0 && !told && !name.contains('$') && words::said(name).is_some() {
            self.unresolved.push(Unresolved {
                what: what.to_owned(),
                name: name.to_owned(),
                line: 0,
                why: Why::Missing,
                only_if: Vec::new(),
            });
        }
    }

    /// A directory; of one that a template names, the first that may be meant.
    fn place(&self, directory: &str) -> String {
        if !directory.contains('$') {
            return directory.to_owned();
        }
        self.known
            .and_then(|(values, env)| values.of(directory, env, &self.loops, self.tree))
            .map(|stands| stands.variants)
            .and_then(|list| list.into_iter().next())
            .map_or_else(|| directory.to_owned(), |variant| variant.text)
    }

    /// Reads a module of the repository that a program calls as a whole.
    fn module(&mut self, place: &str, module: &str, depth: usize) {
        if depth >= FOLLOW_MAX {
            return;
        }
        let path = if place.is_empty() {
            module.to_owned()
        } else {
            format!("{place}/{module}")
        };
        for end in ["", ".js", ".mjs", ".cjs", ".ts", "/index.js", "/index.ts"] {
            let Some(candidate) = normal(&format!("{path}{end}")) else {
                return;
            };
            if !self.enter(&candidate) {
                return;
            }
            let Ok(text) = self.tree.read(&candidate) else {
                continue;
            };
            self.program(&text, &candidate, depth);
            return;
        }
    }

    /// Reads the text of a program: what it does, and the agents that it starts.
    fn program_text(&mut self, text: &str, file: &str, line: usize, helpers: &[String]) {
        let mut seen = code::Seen::new(self.shell.slug.as_deref());
        code::read_with(text, file, line, helpers, &mut seen);
        self.acts.append(&mut seen.acts);
        self.shell.agents.append(&mut seen.agents);
    }

    /// Reads a program, the modules that it calls as a whole, and the functions of others that it
    /// calls by name.
    fn program(&mut self, text: &str, file: &str, depth: usize) {
        let place = file
            .rsplit_once('/')
            .map_or("", |(place, _)| place)
            .to_owned();
        let imports = functions::imports(text);
        let modules: Vec<(String, String)> = imports
            .iter()
            .map(|import| self.find_module(&place, &import.path).unwrap_or_default())
            .collect();
        let helpers: Vec<String> = modules
            .iter()
            .flat_map(|(_, body)| functions::wrappers(body, &[]))
            .collect();
        self.program_text(text, file, 1, &helpers);
        for module in code::called_modules(text) {
            self.module(&place, &module, depth + 1);
        }
        if depth >= FOLLOW_MAX {
            return;
        }
        for (import, (path, body)) in imports.iter().zip(&modules) {
            let mark = format!("{path}#{}", import.called.join(","));
            if !path.is_empty() && !import.called.is_empty() && self.enter(&mark) {
                let kept = functions::only_called(body, &import.called);
                self.program(&kept, path, depth + 1);
            }
        }
    }

    /// The file that a program's relative import means, and its text.
    fn find_module(&mut self, place: &str, module: &str) -> Option<(String, String)> {
        let path = if place.is_empty() {
            module.to_owned()
        } else {
            format!("{place}/{module}")
        };
        let stem = path
            .strip_suffix(".js")
            .or_else(|| path.strip_suffix(".mjs"))
            .unwrap_or(&path);
        let ends = [
            "",
            ".js",
            ".mjs",
            ".cjs",
            ".ts",
            ".mts",
            "/index.js",
            "/index.ts",
        ];
        // TypeScript imports `./x.ts` as `./x.js`.
        let names = ends
            .iter()
            .map(|end| format!("{path}{end}"))
            .chain([format!("{stem}.ts"), format!("{stem}.mts")]);
        for name in names {
            let candidate = normal(&name)?;
            if self.lookups == 0 {
                self.bound_reached();
                return None;
            }
            self.lookups -= 1;
            if let Ok(text) = self.tree.read(&candidate) {
                return Some((candidate, text.to_string()));
            }
        }
        None
    }

    pub(super) fn within(&self, place: Option<&str>, name: &str) -> String {
        place
            .map(|place| self.place(place))
            .filter(|place| !place.contains('$'))
            .and_then(|place| normal(&format!("{place}/{name}")))
            .unwrap_or_else(|| name.to_owned())
    }

    /// Notes that a step names more files than are read.
    pub(super) fn bound_reached(&mut self) {
        if !self.unresolved.iter().any(|one| one.why == Why::Bound) {
            self.unresolved.push(Unresolved {
                what: "the rest of this step".to_owned(),
                name: String::new(),
                line: 0,
                why: Why::Bound,
                only_if: Vec::new(),
            });
        }
    }

    /// Notes that something is being followed; false if it already is.
    pub(super) fn enter(&mut self, mark: &str) -> bool {
        if self.followed.iter().any(|known| known == mark) {
            return false;
        }
        if self.lookups == 0 {
            self.bound_reached();
            return false;
        }
        self.lookups -= 1;
        self.followed.push(mark.to_owned());
        true
    }
}
