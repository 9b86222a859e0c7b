//! What a command calls in the repository: scripts, package scripts, programs and their modules.

use super::{FOLLOW_MAX, Reader};
use crate::acts::naming::{self, Unresolved, Why};
use crate::acts::{code, functions, modules, reviewed, words};
use crate::shell;
use crate::tree::normal;

impl Reader<'_> {
    /// Runs a script of the package; false if it has none of that name.
    pub(in crate::acts) fn package_script(
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
    pub(in crate::acts) fn script_of_package(
        &mut self,
        script: &str,
        place: Option<&str>,
        depth: usize,
    ) {
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

    /// Where a package of a monorepo stands, by its name or its place.
    pub(in crate::acts) fn package_place(&self, package: &str) -> Option<String> {
        let name = package
            .trim_start_matches("./")
            .trim_end_matches("...")
            .trim_end_matches('/');
        let is_there = |place: &str| self.tree.read(&format!("{place}/package.json")).is_ok();
        if name.is_empty() || name.contains(['$', '*', '!', '{']) {
            return None;
        }
        if is_there(name) {
            return Some(name.to_owned());
        }
        let named = |place: &str| {
            let text = self.tree.read(&format!("{place}/package.json")).ok()?;
            let json: serde_json::Value = serde_json::from_str(&text).ok()?;
            (json.get("name")?.as_str()? == name).then(|| place.to_owned())
        };
        let listed = self.tree.packages().iter();
        listed
            .filter(|package| !package.place.is_empty())
            .find_map(|package| named(&package.place))
            .or_else(|| {
                let short = name.rsplit('/').next().unwrap_or(name);
                is_there(short).then(|| short.to_owned())
            })
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
            // Wireit keeps the command elsewhere in the file.
            let kept = json.pointer(&format!("/wireit/{}/command", name.replace('/', "~1")));
            let body = match body.as_str() {
                Some("wireit") => kept.and_then(serde_json::Value::as_str),
                body => body,
            };
            let Some(body) = body else { continue };
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

    /// Reads a script file of the repository, whatever it is called with.
    pub(crate) fn follow(&mut self, path: &str, depth: usize) {
        if depth >= FOLLOW_MAX {
            return;
        }
        let outer = self.arguments.take();
        self.follow_file(path, depth);
        self.arguments = outer;
    }

    /// Reads a script file of the repository, as it is called with some arguments.
    pub(super) fn follow_with(&mut self, path: &str, arguments: &[&str], depth: usize) {
        if depth >= FOLLOW_MAX {
            return;
        }
        let given = arguments
            .iter()
            .map(|word| self.shell.expand(word))
            .collect();
        let outer = self.arguments.replace(given);
        self.follow_file(path, depth);
        self.arguments = outer;
    }

    fn follow_file(&mut self, path: &str, depth: usize) {
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
            // With other arguments it does something else.
            let given = self.arguments.iter().flatten();
            let mark = given.fold(candidate.clone(), |mark, word| format!("{mark} {word}"));
            if !self.enter(&mark) {
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

    pub(super) fn follow_if_there(&mut self, path: &str, depth: usize) {
        let place = self.shell.directory.clone();
        if self.tree.read(&self.within(place.as_deref(), path)).is_ok()
            || self.tree.read(path).is_ok()
        {
            self.follow(path, depth);
        }
    }

    /// Notes a script that a step names for production and that is not there.
    pub(in crate::acts) fn missing(&mut self, what: &str, name: &str, depth: usize) {
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
    pub(in crate::acts) fn place(&self, directory: &str) -> String {
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
    pub(super) fn module(&mut self, place: &str, module: &str, depth: usize) {
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
    pub(crate) fn program_text(
        &mut self,
        text: &str,
        file: &str,
        line: usize,
        helpers: &[String],
        depth: usize,
    ) {
        let mut seen = code::Seen::new(self.shell.slug.as_deref());
        code::read_with(text, file, line, helpers, &mut seen);
        self.acts.append(&mut seen.acts);
        self.shell.agents.append(&mut seen.agents);
        if depth >= FOLLOW_MAX {
            return;
        }
        for (command, at) in seen.runs {
            // What the command does by itself is known already.
            let before = self.acts.len();
            let agents = self.shell.agents.len();
            self.script_at(&command, file, at, depth + 1);
            let found = self.acts.split_off(before);
            self.acts
                .extend(found.into_iter().filter(|act| act.file != file));
            let found = self.shell.agents.split_off(agents);
            self.shell
                .agents
                .extend(found.into_iter().filter(|agent| agent.file != file));
        }
    }

    /// Reads a program, the modules that it calls as a whole, and the functions of others that it
    /// calls by name.
    pub(super) fn program(&mut self, text: &str, file: &str, depth: usize) {
        // What is left blank of a module costs nothing.
        let size = text.split_whitespace().map(str::len).sum::<usize>();
        if self.program_bytes < size {
            self.bound_reached();
            return;
        }
        self.program_bytes -= size;
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
        self.program_text(text, file, 1, &helpers, depth);
        for module in code::called_modules(text) {
            self.module(&place, &module, depth + 1);
        }
        if depth >= FOLLOW_MAX {
            return;
        }
        if file.ends_with(".py") {
            self.python_modules(&modules::imports(text), &place, depth);
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

    /// Reads those functions of a Python program's own modules that it calls.
    fn python_modules(&mut self, imports: &[modules::Module], place: &str, depth: usize) {
        for import in imports {
            for file in &import.files {
                let path = match file.strip_prefix("./") {
                    Some(near) if !place.is_empty() => normal(&format!("{place}/{near}")),
                    Some(near) => normal(near),
                    None => normal(file),
                };
                let Some(path) = path else { continue };
                if self.lookups == 0 {
                    self.bound_reached();
                    return;
                }
                self.lookups -= 1;
                let Ok(text) = self.tree.read(&path) else {
                    continue;
                };
                if self.enter(&format!("{path}#{}", import.called.join(","))) {
                    let module = modules::as_module(&text);
                    let kept = functions::only_called(&module, &import.called);
                    self.program(&kept, &path, depth + 1);
                }
                break;
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

    pub(in crate::acts) fn within(&self, place: Option<&str>, name: &str) -> String {
        place
            .map(|place| self.place(place))
            .filter(|place| !place.contains('$'))
            .and_then(|place| normal(&format!("{place}/{name}")))
            .unwrap_or_else(|| name.to_owned())
    }

    /// Notes that a step names more files than are read.
    pub(in crate::acts) fn bound_reached(&mut self) {
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
    pub(in crate::acts) fn enter(&mut self, mark: &str) -> bool {
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
