//! Scripts that a step names by something else: an input, a variable, a value of a matrix.

use super::command::Reader;
use crate::shell::{self, Command};

/// Something that a step runs and that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unresolved {
    pub(crate) what: String,
    /// What of it may say what it does.
    pub(crate) name: String,
    /// 0 for the step's own.
    pub(crate) line: usize,
    pub(crate) why: Why,
    /// Templates that hold where it is run.
    pub(crate) only_if: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// No file says what the name stands for.
    Unnamed,
    /// It is not in the repository.
    Missing,
    /// The step names more files than are read.
    Bound,
    /// A program that no list knows, told to ship something.
    Unlisted,
    /// A program that no list knows and whose words say nothing.
    Strange,
}

impl Reader<'_> {
    /// Reads a command whose script, task or program is named by a template or a variable: once
    /// for each text that it may stand for, under the condition that it does. False where no such
    /// name stands in the command, or where nothing is known of it.
    pub(super) fn by_name(
        &mut self,
        command: &Command,
        file: &str,
        line: usize,
        depth: usize,
    ) -> bool {
        /// Most commands that one command with names in it stands for.
        const COMMANDS_MAX: usize = 32;
        let Some((values, env)) = self.known else {
            return false;
        };
        let plain = command.unwrapped();
        let Some(at) = named_word(&plain, &|word| self.shell.expand(word)) else {
            return false;
        };
        let Some(word) = plain.words.get(at) else {
            return false;
        };
        let text = self.shell.expand(word);
        if beside_action(&text).is_some() || beside_script(&text).is_some() {
            return false;
        }
        if self.unknowns == 0 {
            self.bound_reached();
            return false;
        }
        let stands = values.of(&text, env, &self.loops, self.tree);
        let stands = stands.filter(|stands| stands.variants.len() <= COMMANDS_MAX);
        if stands.as_ref().is_none_or(|stands| stands.open) {
            self.unknowns -= 1;
            let told = self
                .unresolved
                .iter()
                .any(|one| one.line == line && one.why == Why::Unnamed);
            if depth == 0 && !told && is_tellable(&text) {
                self.unresolved.push(Unresolved {
                    what: super::git::shorten(&command.text()),
                    name: without_names(&text),
                    line,
                    why: Why::Unnamed,
                    only_if: Vec::new(),
                });
            }
        }
        let Some(stands) = stands else {
            return false;
        };
        let followed = self.followed.clone();
        for variant in stands.variants {
            if self.variants == 0 {
                self.bound_reached();
                break;
            }
            self.variants -= 1;
            let acts = self.acts.len();
            let unresolved = self.unresolved.len();
            if at == 0 || plain.words.first().is_some_and(|first| first == "eval") {
                // A whole command may stand in one name.
                let rest: Vec<&str> = plain
                    .words
                    .iter()
                    .skip(at + 1)
                    .map(String::as_str)
                    .collect();
                for mut one in shell::commands(&variant.text) {
                    one.words.extend(rest.iter().map(|word| (*word).to_owned()));
                    one.env.extend(plain.env.iter().cloned());
                    self.unwrap(&one, file, line, depth + 1);
                }
            } else {
                let mut one = plain.clone();
                if let Some(word) = one.words.get_mut(at) {
                    word.clone_from(&variant.text);
                }
                self.unwrap(&one, file, line, depth);
            }
            for act in self.acts.iter_mut().skip(acts) {
                act.only_if.extend(variant.only_if.iter().cloned());
            }
            for one in self.unresolved.iter_mut().skip(unresolved) {
                one.only_if.extend(variant.only_if.iter().cloned());
            }
            self.followed.clone_from(&followed);
        }
        true
    }
}

/// The word of a command that names what it runs, if a template or variable stands in it.
fn named_word(command: &Command, expand: &dyn Fn(&str) -> String) -> Option<usize> {
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    let open = |at: usize| {
        words
            .get(at)
            .is_some_and(|word| word.contains('$') && expand(word).contains('$'))
    };
    let program = words.first()?;
    if open(0) {
        // What stands in `[[ … ]]` is compared, not run.
        let compared = words
            .last()
            .is_some_and(|word| matches!(*word, "]" | "]]" | "))"))
            || words
                .get(1)
                .is_some_and(|word| matches!(*word, "==" | "!=" | "=" | "=~" | "+="));
        return (!compared).then_some(0);
    }
    let name = program.rsplit('/').next().unwrap_or(program);
    let plain = |from: usize| {
        words
            .iter()
            .enumerate()
            .skip(from)
            .filter(|(_, word)| !word.starts_with('-'))
            .map(|(at, _)| at)
    };
    match name {
        "bash" | "sh" | "zsh" | "dash" | "source" | "." | "pwsh" | "node" | "tsx" | "ts-node"
        | "python" | "python3" | "ruby" | "zx" | "perl" | "php" => {
            plain(1).next().filter(|at| open(*at))
        }
        "npm" | "yarn" | "pnpm" | "bun" | "deno" => {
            let mut names = plain(1);
            let first = names.next()?;
            if open(first) {
                return Some(first);
            }
            matches!(words.get(first), Some(&("run" | "run-script" | "task")))
                .then(|| names.next())
                .flatten()
                .filter(|at| open(*at))
        }
        "make" | "just" | "task" | "rake" | "invoke" | "inv" | "fab" | "mise" | "nox" | "tox"
        | "turbo" | "nx" | "poe" | "composer" | "fastlane" | "gradle" | "gradlew" | "mvn"
        | "mvnw" | "eval" | "hatch" | "pdm" | "rye" | "poetry" | "uv" => {
            plain(1).find(|at| open(*at) && !words.get(*at).is_some_and(|word| word.contains('=')))
        }
        "cargo" | "go" | "docker-compose" => plain(1).next().filter(|at| open(*at)),
        _ => None,
    }
}

/// A text without the templates and variables in it.
fn without_names(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(rest.get(..at).unwrap_or_default());
        let tail = rest.get(at + 1..).unwrap_or_default();
        let end = if tail.starts_with("{{") {
            tail.find("}}").map_or(tail.len(), |end| end + 2)
        } else if tail.starts_with('{') {
            tail.find('}').map_or(tail.len(), |end| end + 1)
        } else {
            tail.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(tail.len())
        };
        out.push('-');
        rest = tail.get(end..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// Whether a name that nothing is known of is one of the pipeline's: not what a shell gives
/// (`$1`, `$HOME`, `$(…)`), and not a tool's path.
fn is_tellable(text: &str) -> bool {
    let inner = text
        .get(text.find('$').unwrap_or(0) + 1..)
        .unwrap_or_default();
    if let Some(template) = inner.strip_prefix("{{") {
        return [
            "inputs.",
            "env.",
            "matrix.",
            "vars.",
            "steps.",
            "needs.",
            "client_payload",
        ]
        .iter()
        .any(|mark| template.contains(mark));
    }
    let name: String = inner
        .trim_start_matches('{')
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect();
    [
        "SCRIPT", "COMMAND", "CMD", "TASK", "TARGET", "LANE", "ACTION", "STEP",
    ]
    .iter()
    .any(|mark| name.to_ascii_uppercase().contains(mark))
}

/// What stands behind the directory of a composite action.
pub(super) fn beside_action(path: &str) -> Option<&str> {
    [
        "${{ github.action_path }}/",
        "${{github.action_path}}/",
        "$GITHUB_ACTION_PATH/",
        "${GITHUB_ACTION_PATH}/",
    ]
    .iter()
    .find_map(|mark| path.strip_prefix(mark))
    .filter(|rest| !rest.contains('$'))
}

/// What stands behind a directory that a script computes: its own, or the repository's.
pub(super) fn beside_script(path: &str) -> Option<&str> {
    let rest = if path.starts_with("$(") {
        // The directory of a script may hold brackets of its own.
        let at = path.rfind(")/")?;
        let inner = path.get(2..at)?;
        let known = ["dirname", "rev-parse", "pwd", "BASH_SOURCE", "realpath"];
        known
            .iter()
            .any(|mark| inner.contains(mark))
            .then_some(())?;
        path.get(at + 2..)?
    } else {
        let (name, rest) = path.strip_prefix('$')?.split_once('/')?;
        let name = name.trim_matches(['{', '}']).to_ascii_uppercase();
        let known = [
            "DIR",
            "ROOT",
            "HERE",
            "BASE",
            "REPO",
            "PROJECT",
            "WORKSPACE",
            "PATH",
        ];
        let shell = ["HOME", "TMP", "TEMP", "TOOL", "RUNNER"];
        (known.iter().any(|mark| name.contains(mark))
            && !shell.iter().any(|mark| name.contains(mark))
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .then_some(rest)?
    };
    (!rest.contains('$')).then_some(rest)
}

/// Whether a path is one that a build makes or a wrapper that only starts a tool.
pub(super) fn is_made(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    matches!(
        name,
        "gradlew" | "mvnw" | "gradlew.bat" | "mvnw.cmd" | "configure"
    ) || [
        "target/",
        "build/",
        "dist/",
        "node_modules/",
        "bin/",
        "out/",
        "vendor/",
    ]
    .iter()
    .any(|place| path.trim_start_matches("./").starts_with(place))
}
