//! Task runners: where a step runs a task by its name, the commands of that task are read.

use super::code;
use super::command::{FOLLOW_MAX, Reader};
use crate::shell::Command;

impl Reader<'_> {
    /// Reads the task that a command names, if its program is a runner known here.
    pub(super) fn task(&mut self, name: &str, command: &Command, depth: usize) {
        if depth >= FOLLOW_MAX {
            return;
        }
        let plain: Vec<String> = command
            .words
            .iter()
            .skip(1)
            .filter(|word| !word.starts_with('-'))
            .cloned()
            .collect();
        let words: Vec<&str> = plain.iter().map(String::as_str).collect();
        match (name, words.as_slice()) {
            ("mise" | "rtx", ["run" | "r", tasks @ ..] | ["task" | "tasks", "run", tasks @ ..]) => {
                for task in tasks {
                    self.mise(task, depth);
                }
            }
            ("rake", tasks) => {
                for task in tasks {
                    self.rake(task, depth);
                }
            }
            ("invoke" | "inv" | "fab", tasks) => {
                for task in tasks {
                    self.python_function(&["tasks.py", "fabfile.py"], task);
                }
            }
            ("nox", _) => {
                for task in after(command, &["-s", "-e", "--session", "--sessions"]) {
                    self.python_function(&["noxfile.py"], &task);
                }
            }
            ("tox", _) => {
                for task in after(command, &["-e"]) {
                    self.tox(&task, depth);
                }
            }
            ("cargo", ["make", task, ..]) | ("cargo-make", ["make", task, ..]) => {
                self.cargo_make(task, depth);
            }
            ("deno", ["task", task, ..]) => self.deno(task, depth),
            ("composer", ["run" | "run-script" | "exec", task, ..]) | ("composer", [task, ..]) => {
                self.composer(task, depth);
            }
            ("turbo", ["run", tasks @ ..]) | ("turbo", tasks) => {
                for task in tasks {
                    self.every_package(task, depth);
                }
            }
            ("nx", _) => {
                for task in after(command, &["-t", "--target", "--targets"]) {
                    self.every_package(&task, depth);
                    self.nx(&task, None, depth);
                }
                if let ["run", target, ..] = words.as_slice()
                    && let Some((_, task)) = target.split_once(':')
                {
                    self.every_package(task, depth);
                    let project = target.split(':').next();
                    let task = task.split(':').next().unwrap_or(task);
                    self.nx(task, project, depth);
                } else if let [task, project] = words.as_slice()
                    && !matches!(*task, "affected" | "run-many" | "run" | "release")
                {
                    self.nx(task, Some(project), depth);
                }
            }
            ("run-s" | "run-p" | "npm-run-all" | "npm-run-all2", tasks) => {
                self.side_by_side(tasks, depth);
            }
            ("poe", [task, ..])
            | ("poetry", ["poe", task, ..])
            | ("hatch" | "pdm" | "rye" | "poetry" | "uv", ["run", task, ..]) => {
                self.pyproject(task, depth);
            }
            ("perl" | "php", [path, ..]) => self.follow(path, depth),
            ("pwsh" | "powershell", _) => {
                if let Some(path) = words
                    .iter()
                    .find(|word| word.to_ascii_lowercase().ends_with(".ps1"))
                {
                    self.follow(path, depth);
                }
            }
            ("go", ["run", path, ..]) if !path.contains('@') => {
                let path = path.trim_end_matches("/...").to_owned();
                if path.ends_with(".go") {
                    self.follow(&path, depth);
                } else {
                    self.follow(&format!("{path}/main.go"), depth);
                }
            }
            _ => {}
        }
    }

    /// `python -m scripts.publish`.
    pub(super) fn python_module(&mut self, module: &str, depth: usize) {
        if depth >= FOLLOW_MAX || !module.contains('.') && !module.contains('_') {
            return;
        }
        let path = module.replace('.', "/");
        self.follow(&format!("{path}.py"), depth);
        self.follow(&format!("{path}/__main__.py"), depth);
    }

    fn mise(&mut self, task: &str, depth: usize) {
        for file in [
            "mise.toml",
            ".mise.toml",
            "mise/config.toml",
            ".mise/config.toml",
            ".config/mise.toml",
            ".config/mise/config.toml",
        ] {
            let path = self.within(None, file);
            if !self.enter(&format!("{path}#{task}")) {
                return;
            }
            let Ok(text) = self.tree.read(&path) else {
                continue;
            };
            let Ok(table) = text.parse::<toml::Table>() else {
                continue;
            };
            let Some(found) = table.get("tasks").and_then(|tasks| tasks.get(task)) else {
                continue;
            };
            let line = line_of(&text, task);
            for need in texts(found.get("depends")) {
                self.mise(&need, depth + 1);
            }
            for body in texts(found.get("run").or(Some(found))) {
                self.script_at(&body, &path, line, depth + 1);
            }
            return;
        }
        for folder in ["mise-tasks", ".mise-tasks", ".mise/tasks", "mise/tasks"] {
            let path = format!("{folder}/{}", task.replace(':', "/"));
            if self.tree.read(&path).is_ok() {
                self.follow(&path, depth);
                return;
            }
        }
    }

    /// `task :publish => :build do … end` in a Rakefile: what it waits for, then its block.
    fn rake(&mut self, task: &str, depth: usize) {
        if depth >= FOLLOW_MAX {
            return;
        }
        let name = task.split('[').next().unwrap_or(task);
        let last = name.rsplit(':').next().unwrap_or(name);
        let Ok(text) = self.tree.read("Rakefile") else {
            return;
        };
        if !self.enter(&format!("Rakefile#{name}")) {
            return;
        }
        let mut inside: Option<usize> = None;
        let mut needs: Vec<String> = Vec::new();
        let mut block = String::new();
        let mut first = 0;
        for (index, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let trimmed = line.trim();
            match inside {
                Some(level) if trimmed == "end" && indent <= level => break,
                Some(_) => {
                    block.push_str(line);
                    block.push('\n');
                }
                None => {
                    if let Some(head) = RakeTask::of(trimmed).filter(|head| head.name == last) {
                        needs.extend(head.needs);
                        if head.block {
                            inside = Some(indent);
                            first = index + 2;
                        }
                    }
                }
            }
        }
        for need in needs {
            self.rake(&need, depth + 1);
        }
        if !block.is_empty() {
            self.acts.extend(code::read(
                &block,
                "Rakefile",
                first,
                self.shell.slug.as_deref(),
            ));
            // `sh "gem push …"` needs no brackets in Ruby.
            for (index, line) in block.lines().enumerate() {
                let body = ["sh ", "system "]
                    .iter()
                    .find_map(|word| line.trim().strip_prefix(word))
                    .map(|rest| rest.trim().trim_matches(['\'', '"']));
                if let Some(body) = body {
                    self.script_at(body, "Rakefile", first + index, depth + 1);
                }
            }
        }
    }

    /// A function of a Python file that a runner calls by its name.
    fn python_function(&mut self, files: &[&str], task: &str) {
        let name = task.replace(['-', '.'], "_");
        for file in files {
            let Ok(text) = self.tree.read(file) else {
                continue;
            };
            if !self.enter(&format!("{file}#{name}")) {
                return;
            }
            let head = format!("def {name}(");
            let mut block = String::new();
            let mut first = 0;
            let mut inside = false;
            for (index, line) in text.lines().enumerate() {
                if inside {
                    if !line.trim().is_empty() && !line.starts_with([' ', '\t', ')']) {
                        break;
                    }
                    block.push_str(line);
                    block.push('\n');
                } else if line.starts_with(&head) {
                    inside = true;
                    first = index + 2;
                }
            }
            self.acts
                .extend(code::read(&block, file, first, self.shell.slug.as_deref()));
        }
    }

    fn tox(&mut self, task: &str, depth: usize) {
        let Ok(text) = self.tree.read("tox.ini") else {
            return;
        };
        if !self.enter(&format!("tox.ini#{task}")) {
            return;
        }
        let head = format!("[testenv:{task}]");
        let (mut inside, mut commands) = (false, false);
        for (index, line) in text.lines().enumerate() {
            let trimmed = line.trim();
            if trimmed.starts_with('[') {
                inside = trimmed == head;
                commands = false;
            } else if inside && !line.starts_with([' ', '\t']) {
                commands = trimmed.starts_with("commands");
                let body = trimmed
                    .split_once('=')
                    .filter(|_| commands)
                    .map_or("", |(_, body)| body.trim());
                self.script_at(body, "tox.ini", index + 1, depth + 1);
            } else if inside && commands {
                self.script_at(
                    trimmed.trim_start_matches('-').trim(),
                    "tox.ini",
                    index + 1,
                    depth + 1,
                );
            }
        }
    }

    fn cargo_make(&mut self, task: &str, depth: usize) {
        if depth >= FOLLOW_MAX || !self.enter(&format!("Makefile.toml#{task}")) {
            return;
        }
        let Ok(text) = self.tree.read("Makefile.toml") else {
            return;
        };
        let Ok(table) = text.parse::<toml::Table>() else {
            return;
        };
        let Some(found) = table.get("tasks").and_then(|tasks| tasks.get(task)) else {
            return;
        };
        let line = line_of(&text, task);
        for need in texts(found.get("dependencies")) {
            self.cargo_make(&need, depth + 1);
        }
        for body in texts(found.get("script")) {
            self.script_at(&body, "Makefile.toml", line, depth + 1);
        }
        if let Some(program) = found.get("command").and_then(toml::Value::as_str) {
            let mut words = vec![program.to_owned()];
            words.extend(texts(found.get("args")));
            self.script_at(&words.join(" "), "Makefile.toml", line, depth + 1);
        }
    }

    /// A task of `deno.json`, whose comments are passed over.
    fn deno(&mut self, task: &str, depth: usize) {
        for name in ["deno.json", "deno.jsonc"] {
            let path = self.within(self.shell.directory.clone().as_deref(), name);
            let Ok(text) = self.tree.read(&path) else {
                continue;
            };
            let plain: Vec<&str> = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect();
            let Ok(json) = serde_json::from_str::<serde_json::Value>(&plain.join("\n")) else {
                return;
            };
            let Some(found) = json.pointer(&format!("/tasks/{}", task.replace('/', "~1"))) else {
                return;
            };
            let body = found
                .as_str()
                .or_else(|| found.get("command").and_then(serde_json::Value::as_str));
            if let Some(body) = body
                && self.enter(&format!("{path}#{task}"))
            {
                self.script_at(body, &path, line_of(&text, task), depth + 1);
            }
            return;
        }
    }

    fn composer(&mut self, task: &str, depth: usize) {
        let Ok(text) = self.tree.read("composer.json") else {
            return;
        };
        let Ok(json) = serde_json::from_str::<serde_json::Value>(&text) else {
            return;
        };
        let Some(found) = json.pointer(&format!("/scripts/{}", task.replace('/', "~1"))) else {
            return;
        };
        if !self.enter(&format!("composer.json#{task}")) {
            return;
        }
        let line = line_of(&text, task);
        let bodies: Vec<String> = match found {
            serde_json::Value::String(one) => vec![one.clone()],
            serde_json::Value::Array(list) => list
                .iter()
                .filter_map(|one| one.as_str().map(str::to_owned))
                .collect(),
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::Object(_) => Vec::new(),
        };
        for body in bodies {
            match body.strip_prefix('@') {
                Some(other) => self.composer(other, depth + 1),
                None => self.script_at(&body, "composer.json", line, depth + 1),
            }
        }
    }

    /// A script of the root and of every package of a monorepo, where they have it.
    fn every_package(&mut self, task: &str, depth: usize) {
        let tree = self.tree;
        for package in tree.packages() {
            if package.scripts.contains(task) {
                let place = (!package.place.is_empty()).then_some(package.place.as_str());
                self.script_of_package(task, place, depth + 1);
            }
        }
    }

    /// Scripts and tasks of `pyproject.toml`, by the runners that read them.
    fn pyproject(&mut self, task: &str, depth: usize) {
        let path = self.within(self.shell.directory.clone().as_deref(), "pyproject.toml");
        let Ok(text) = self.tree.read(&path) else {
            return;
        };
        let last = task.rsplit(':').next().unwrap_or(task);
        if !text.contains(last) || !self.enter(&format!("{path}#{task}")) {
            return;
        }
        let Ok(table) = text.parse::<toml::Table>() else {
            return;
        };
        let task = last;
        let tool = table.get("tool");
        let at = |names: &[&str]| {
            names
                .iter()
                .try_fold(tool?, |value, name| value.get(name))
                .and_then(|value| value.get(task))
        };
        let mut found: Vec<&toml::Value> = [
            at(&["pdm", "scripts"]),
            at(&["poe", "tasks"]),
            at(&["rye", "scripts"]),
            at(&["taskipy", "tasks"]),
        ]
        .into_iter()
        .flatten()
        .collect();
        if let Some(toml::Value::Table(environments)) = tool
            .and_then(|tool| tool.get("hatch"))
            .and_then(|hatch| hatch.get("envs"))
        {
            found.extend(environments.values().filter_map(|environment| {
                environment
                    .get("scripts")
                    .and_then(|scripts| scripts.get(task))
            }));
        }
        let line = line_of(&text, task);
        for one in found {
            let body = ["cmd", "shell", "composite"]
                .iter()
                .find_map(|key| one.get(key))
                .unwrap_or(one);
            for body in texts(Some(body)) {
                self.script_at(&body, &path, line, depth + 1);
            }
        }
    }
}

/// The line that begins a task of a Rakefile.
struct RakeTask {
    name: String,
    needs: Vec<String>,
    /// Whether a block up to `end` follows.
    block: bool,
}

impl RakeTask {
    /// `task :a`, `task a: [:b]`, `task :a, [:x] => %w[b c] do |task, arguments|`.
    fn of(line: &str) -> Option<Self> {
        let line = line.split(" #").next().unwrap_or(line).trim_end();
        let rest = line.strip_prefix("task ")?.trim_start();
        let (head, block) = match rest.split_once(" do |") {
            Some((head, _)) => (head, true),
            None => rest
                .strip_suffix(" do")
                .map_or((rest, false), |head| (head, true)),
        };
        let names = |text: &str| -> Vec<String> {
            text.replace("%w", "")
                .replace("%i", "")
                .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
                .map(|name| name.trim_matches(':').to_owned())
                .filter(|name| !name.is_empty())
                .collect()
        };
        let name = names(head).into_iter().next()?;
        let needs = match head.split_once("=>") {
            Some((_, needs)) => names(needs),
            None => head
                .split_once(": ")
                .map_or_else(Vec::new, |(_, needs)| names(needs)),
        };
        Some(Self { name, needs, block })
    }
}

/// The values of an option that may be given once, with commas, or followed by several words.
fn after(command: &Command, names: &[&str]) -> Vec<String> {
    let mut out = Vec::new();
    let mut words = command.words.iter().peekable();
    while let Some(word) = words.next() {
        if let Some(value) = names
            .iter()
            .find_map(|name| word.strip_prefix(name)?.strip_prefix('='))
        {
            out.extend(value.split(',').map(str::to_owned));
        } else if names.contains(&word.as_str()) {
            while let Some(value) = words.next_if(|next| !next.starts_with('-')) {
                out.extend(value.split(',').map(str::to_owned));
            }
        }
    }
    out
}

/// A text, or the texts of a list.
fn texts(value: Option<&toml::Value>) -> Vec<String> {
    match value {
        Some(toml::Value::String(one)) => vec![one.clone()],
        Some(toml::Value::Array(list)) => list
            .iter()
            .filter_map(|one| one.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

/// The line that names a task.
fn line_of(text: &str, task: &str) -> usize {
    text.lines()
        .position(|line| line.contains(task))
        .map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Op;
    use super::super::command::Shell;
    use super::*;
    use crate::tree::Tree;

    fn publishes(files: Vec<(String, String)>, script: &str) -> usize {
        let tree = Tree::memory(files.into_iter().collect::<BTreeMap<_, _>>());
        let mut reader = Reader::new(&tree, Shell::default());
        reader.script(script, "x.yml", 1);
        reader
            .acts
            .iter()
            .filter(|act| act.op == Op::Publish)
            .count()
    }

    #[test]
    fn a_monorepo_of_many_packages_leaves_later_scripts_to_be_read() {
        for scripts in [
            r#"{"scripts":{"x":"make"}}"#,
            r#"{"scripts":{"build":"make","test":"make","lint":"make"}}"#,
        ] {
            let mut files: Vec<(String, String)> = (0..150)
                .map(|at| (format!("packages/p{at}/package.json"), scripts.to_owned()))
                .collect();
            files.push(("release.sh".to_owned(), "npm publish\n".to_owned()));
            assert_eq!(
                publishes(
                    files,
                    "turbo run build test lint check types e2e\n./release.sh\n"
                ),
                1,
                "{scripts}"
            );
        }
    }

    #[test]
    fn python_runners_run_what_they_are_told_to_run() {
        let project = "[tool.poe.tasks]\nship = \"twine upload dist/*\"\n";
        let count = |script: &str| {
            let file = ("pyproject.toml".to_owned(), project.to_owned());
            publishes(vec![file], script)
        };
        for script in [
            "poe ship",
            "poetry poe ship",
            "uv run poe ship",
            "pdm run ship",
        ] {
            assert_eq!(count(script), 1, "{script}");
        }
        for script in ["pdm add ship", "uv add ship", "poetry remove ship"] {
            assert_eq!(count(script), 0, "{script}");
        }
    }

    #[test]
    fn a_task_runs_in_every_package_that_has_it() {
        let files = ["packages/a", "libs/b", "apps/c"]
            .iter()
            .map(|place| {
                let body = r#"{"scripts":{"ship":"npm publish"}}"#;
                (format!("{place}/package.json"), body.to_owned())
            })
            .collect();
        assert_eq!(publishes(files, "turbo run ship"), 3);
    }
}
