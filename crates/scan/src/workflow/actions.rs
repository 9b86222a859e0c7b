//! Actions that a step uses: local ones by their files, and those that the catalogue does not know
//! by what they are handed.

use super::steps::{JobState, script_step, step};
use super::{Inner, Kind, Library, Pairs, Step, Unread};
use crate::acts::command::{Reader, Shell};
use crate::acts::words;
use crate::tree::Tree;
use crate::yaml::{self, Node};

/// Deepest chain of actions that use actions.
const COMPOSITE_DEPTH_MAX: usize = 6;

/// An action that the catalogue does not know: the command that it is handed, if that can be read,
/// and otherwise what its name and its credential tell.
pub(super) fn unlisted_step(
    name: &str,
    uses: &str,
    node: &Node,
    file: &str,
    library: &Library<'_>,
    state: &mut JobState,
    out: &mut Step,
) {
    given_script(node, file, library, state, out);
    given_arguments(name, node, file, library, state, out);
    let owner = name.split('/').next().unwrap_or_default();
    if out.acts.is_empty() && !matches!(owner, "actions" | "github" | "dependabot") {
        let short = name.split_once('/').map_or(name, |(_, rest)| rest);
        let asked = asked_for(&out.with).map(|asked| format!("{short}-{asked}"));
        let name = asked
            .filter(|name| words::said(short).is_none() && words::said(name).is_some())
            .unwrap_or_else(|| short.to_owned());
        note_unread(&name, uses, Kind::Action, file, state, out);
    }
}

/// What an action of many is told to do by one word: `command: githubPublishRelease`.
fn asked_for(with: &Pairs) -> Option<String> {
    const NAMES: &[&str] = &[
        "command",
        "action",
        "operation",
        "task",
        "mode",
        "goal",
        "subcommand",
        "cmd",
        "function",
        "step",
    ];
    let (_, value) = with
        .iter()
        .find(|(name, _)| NAMES.contains(&name.to_ascii_lowercase().as_str()))?;
    let value = value.trim();
    let one = !value.is_empty()
        && value.len() <= 40
        && value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':'));
    if !one {
        return None;
    }
    let mut out = String::new();
    for c in value.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    Some(out)
}

fn note_unread(name: &str, uses: &str, kind: Kind, file: &str, state: &JobState, out: &mut Step) {
    out.unread.push(Unread {
        what: uses.to_owned(),
        name: name.to_owned(),
        file: file.to_owned(),
        line: out.line,
        kind,
        foreign: state.root_foreign.clone(),
        branch: state.shell.branch.clone(),
        only_if: Vec::new(),
        told: false,
    });
}

/// Tools that actions are named for.
const TOOLS: &[&str] = &[
    "kubectl",
    "helm",
    "helmfile",
    "terraform",
    "tofu",
    "opentofu",
    "terragrunt",
    "pulumi",
    "serverless",
    "firebase",
    "netlify",
    "vercel",
    "wrangler",
    "flyctl",
    "fly",
    "heroku",
    "railway",
    "gcloud",
    "aws",
    "az",
    "npm",
    "yarn",
    "pnpm",
    "docker",
    "fastlane",
    "gradle",
    "maven",
    "mvn",
    "twine",
    "poetry",
    "cargo",
    "goreleaser",
    "lerna",
    "sam",
    "cdk",
    "oc",
    "argocd",
    "rclone",
    "s3cmd",
    "doctl",
    "surge",
    "expo",
    "eas",
    "sbt",
    "gh",
    "hub",
    "make",
    "just",
    "ansible",
    "nomad",
    "cf",
    "wp",
    "convox",
    "kamal",
    "dokku",
    "melos",
    "nx",
    "turbo",
];

/// The arguments of an action that is named for the tool that it starts.
fn given_arguments(
    name: &str,
    node: &Node,
    file: &str,
    library: &Library<'_>,
    state: &mut JobState,
    out: &mut Step,
) {
    let Some(tree) = library.tree() else { return };
    let words = words::words(name.split_once('/').map_or(name, |(_, rest)| rest));
    let named = TOOLS
        .iter()
        .find(|tool| words.iter().any(|word| word == *tool));
    let Some(tool) = named else { return };
    let tool = match *tool {
        "maven" => "mvn",
        "opentofu" => "tofu",
        other => other,
    };
    let inputs = node.get("with").map(Node::entries).unwrap_or_default();
    let of = |names: &[&str]| -> Vec<(&str, usize)> {
        inputs
            .iter()
            .filter(|entry| {
                names
                    .iter()
                    .any(|name| entry.key.eq_ignore_ascii_case(name))
            })
            .filter_map(|entry| Some((entry.value.text()?, entry.value.line)))
            .collect()
    };
    let commands = of(&[
        "command",
        "commands",
        "cmd",
        "subcommand",
        "goal",
        "goals",
        "lane",
        "tasks",
        "task",
    ]);
    let arguments = of(&["args", "arguments"]);
    let called = |text: &str, rest: &str| -> String {
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(|line| {
                if line.starts_with(tool) {
                    format!("{line}{rest}\n")
                } else {
                    format!("{tool} {line}{rest}\n")
                }
            })
            .collect()
    };
    let scripts: Vec<_> = match (commands.as_slice(), arguments.as_slice()) {
        // One command and what it is given.
        ([(command, line)], [(arguments, _)]) if command.trim().lines().count() == 1 => {
            let rest: Vec<&str> = arguments.split_whitespace().collect();
            vec![(called(command, &format!(" {}", rest.join(" "))), *line)]
        }
        (commands, arguments) => commands
            .iter()
            .chain(arguments)
            .map(|(text, line)| (called(text, ""), *line))
            .collect(),
    };
    for (script, line) in scripts {
        script_step(&script, file, line, None, tree, state, out);
    }
}

/// A script that a step hands to an action to run, by the names that such inputs go by.
pub(super) fn given_script(
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
        if matches!(
            name.as_str(),
            "run"
                | "runs"
                | "runcmd"
                | "runcommand"
                | "runscript"
                | "command"
                | "commands"
                | "cmd"
                | "script"
                | "scripts"
                | "inlinescript"
        ) && let Some(text) = entry.value.text()
        {
            script_step(text, file, entry.value.line, None, tree, state, out);
        }
    }
}

pub(super) fn composite(
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
    let short = directory.rsplit('/').next().unwrap_or_default().to_owned();
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
            note_unread(&short, uses, Kind::Missing, &path, state, out);
            return;
        };
        let defaults: Vec<(String, String)> = root
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
        let mut given = defaults.clone();
        for (name, text) in &out.with {
            given.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
            given.push((name.to_lowercase(), text.clone()));
        }
        // What the job checked out by an input of its own is no input of the action.
        let branch = state.shell.branch.clone();
        if let Some(name) = &mut state.shell.branch
            && name.contains("inputs.")
            && !name.contains("event.inputs.")
        {
            *name = name.replace("inputs.", "github.event.inputs.");
        }
        let renamed = state.shell.branch.clone();
        let inside = state.values.inside(&given, &out.env, tree);
        let outside = std::mem::replace(&mut state.values, inside);
        let mut steps: Vec<Step> = runs
            .and_then(|runs| runs.get("steps"))
            .map(Node::items)
            .unwrap_or_default()
            .iter()
            .map(|item| step(&path, item, &there, state, depth + 1))
            .collect();
        state.values = outside;
        if state.shell.branch == renamed {
            state.shell.branch = branch;
        }
        match program_of(runs, &prefix, tree) {
            Some(Program::Read(one)) => steps.push(*one),
            Some(Program::Unread) => note_unread(&short, uses, Kind::Missing, &path, state, out),
            None => {}
        }
        out.inner = Some(Inner { steps, defaults });
        return;
    }
    let file = format!("{prefix}action.yml");
    note_unread(&short, uses, Kind::Missing, &file, state, out);
}

/// The program of an action that is no composite.
enum Program {
    Read(Box<Step>),
    Unread,
}

/// Sources from which a bundled program is made, by the names that they go by.
const SOURCES: &[&str] = &[
    "src/main.ts",
    "src/index.ts",
    "src/main.js",
    "src/index.js",
    "index.ts",
    "main.ts",
    "src/action.ts",
    "src/run.ts",
];

/// What an action's script or container does; `None` for one that has none.
fn program_of(runs: Option<&Node>, prefix: &str, tree: &Tree) -> Option<Program> {
    let runs = runs?;
    let read = |source: &str| {
        let source = format!("{prefix}{}", source.trim_start_matches("./"));
        tree.read(&source).ok()?;
        let mut reader = Reader::new(tree, Shell::default());
        reader.follow(&source, 0);
        Some(Program::Read(Box::new(Step {
            line: 1,
            acts: reader.acts,
            ..Step::default()
        })))
    };
    if let Some(main) = runs.str_of("main") {
        // What is bundled is too large and too noisy to read by names; the source that it was made
        // from often stands beside it.
        let bundled = main.contains("dist/") || main.contains("lib/");
        let found = if bundled {
            SOURCES.iter().find_map(|source| read(source))
        } else {
            read(main)
        };
        return found.or(Some(Program::Unread));
    }
    let image = runs.str_of("image")?;
    let entry = runs.str_of("entrypoint").map(str::to_owned).or_else(|| {
        let text = tree.read(&format!("{prefix}{image}")).ok()?;
        let line = text
            .lines()
            .rfind(|line| line.trim_start().starts_with("ENTRYPOINT"))?;
        let list = line.trim().trim_start_matches("ENTRYPOINT").trim();
        let words: Vec<String> = serde_json::from_str(list)
            .unwrap_or_else(|_| list.split_whitespace().map(str::to_owned).collect());
        words.into_iter().find(|word| {
            word.contains('/')
                || [".sh", ".py", ".js", ".rb"]
                    .iter()
                    .any(|end| word.ends_with(end))
        })
    });
    entry
        .and_then(|entry| {
            let name = entry.rsplit('/').next().unwrap_or(&entry).to_owned();
            read(&name).or_else(|| read(entry.trim_start_matches('/')))
        })
        .or(Some(Program::Unread))
}
