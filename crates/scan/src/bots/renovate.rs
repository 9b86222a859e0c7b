//! Renovate's configuration: what it opens, what it merges by itself, and which files that changes.

use serde_json::{Map, Value};

use super::{Authors, Bot, Duty, Need, line_of, merger, renovate_bot};
use crate::glob;
use crate::tree::Tree;
use crate::workflow::Workflow;

/// Reads Renovate's configuration, comments and what else JSON5 allows included.
pub(super) fn read(file: &str, text: &str, tree: &Tree) -> Vec<Bot> {
    match serde_json::from_str::<Value>(&plain_json(text)) {
        Ok(value) => of_value(file, text, &value, tree),
        Err(_) => {
            // Read the one word that matters here.
            let automerge = text.lines().any(|line| {
                let line = line.trim();
                line.contains("automerge") && line.contains("true") && !line.starts_with("//")
            });
            let mut bots = vec![renovate_bot(file, 1, Vec::new())];
            if automerge {
                bots.push(merges(file, line_of(text, "automerge"), None, Vec::new()));
            }
            bots
        }
    }
}

pub(super) fn of_value(file: &str, text: &str, value: &Value, tree: &Tree) -> Vec<Bot> {
    if value.get("enabled") == Some(&Value::Bool(false))
        || value.get("mode").and_then(Value::as_str) == Some("silent")
    {
        return Vec::new();
    }
    let labels: Vec<String> = texts(value.get("labels"))
        .chain(texts(value.get("addLabels")))
        .map(str::to_owned)
        .collect();
    let bases: Vec<String> = ["baseBranches", "baseBranchPatterns"]
        .iter()
        .find(|key| value.get(key).is_some_and(Value::is_array))
        .map(|key| {
            texts(value.get(key))
                // A pattern stands for branches that the file does not name.
                .filter(|name| !name.starts_with('/'))
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default();
    let known = known_files(text, value);
    let enabled: Vec<&str> = texts(value.get("enabledManagers")).collect();
    let files = known.then(|| manifests(tree, &enabled));
    let mut bots = Vec::new();
    let bases: Vec<Option<String>> = if bases.is_empty() {
        vec![None]
    } else {
        bases
            .into_iter()
            .map(|name| (name != "$default").then_some(name))
            .collect()
    };
    for base in bases {
        let line = if base.is_some() {
            line_of(text, "baseBranch")
        } else {
            1
        };
        let mut bot = renovate_bot(file, line, labels.clone());
        if let Duty::Opens {
            base: aim,
            files: changes,
            ..
        } = &mut bot.duty
        {
            *aim = base;
            changes.clone_from(&files);
        }
        bots.push(bot);
    }
    let mut scopes = Vec::new();
    automerges(value, value, 0, &mut scopes);
    if !scopes.is_empty() {
        let asked = value.get("dependencyDashboardApproval") == Some(&Value::Bool(true))
            || texts(value.get("extends")).any(|preset| preset == ":dependencyDashboardApproval");
        let needs = if asked {
            vec![Need::Command(
                "a person approves the update on the dependency dashboard".to_owned(),
            )]
        } else {
            Vec::new()
        };
        bots.push(merges(
            file,
            line_of(text, "automerge"),
            of_scopes(&scopes, tree, known),
            needs,
        ));
    }
    bots
}

fn merges(file: &str, line: usize, changes: Option<Vec<String>>, needs: Vec<Need>) -> Bot {
    let mut bot = merger(
        "Renovate",
        "renovate[bot]",
        file,
        line,
        Authors::Own,
        needs,
        false,
    );
    if let Duty::Merges { files, .. } = &mut bot.duty {
        *files = changes;
    }
    bot
}

fn texts(value: Option<&Value>) -> impl Iterator<Item = &str> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// What one place of the configuration that merges is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    All,
    Managers(Vec<String>),
    Files(Vec<String>),
}

/// Finds every place that says `automerge`.
fn automerges(value: &Value, root: &Value, depth: usize, out: &mut Vec<Scope>) {
    /// Deepest level of Renovate's configuration that is looked into.
    const DEPTH_MAX: usize = 12;
    if depth > DEPTH_MAX {
        return;
    }
    match value {
        Value::Object(map) => {
            if map.get("enabled") == Some(&Value::Bool(false)) {
                return;
            }
            for (key, inner) in map {
                match key.as_str() {
                    "automerge" if inner == &Value::Bool(true) && wanted(map, root) => {
                        out.push(scope(map));
                    }
                    "extends" if texts(Some(inner)).any(merging_preset) => out.push(scope(map)),
                    // They are off until someone turns them on.
                    "lockFileMaintenance"
                        if inner.get("enabled") != Some(&Value::Bool(true))
                            && !maintains_lock_files(root) => {}
                    _ => automerges(inner, root, depth + 1, out),
                }
            }
        }
        Value::Array(list) => {
            for inner in list {
                automerges(inner, root, depth + 1, out);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn merging_preset(preset: &str) -> bool {
    preset.contains(":automerge")
        && ![
            "automergeDisabled",
            "automergeRequireAllStatusChecks",
            "automergeType",
            "automergePr",
            "automergeBranch",
        ]
        .iter()
        .any(|other| preset.contains(other))
}

/// Whether a rule is about updates that are made at all, with no person asked first.
fn wanted(rule: &Map<String, Value>, root: &Value) -> bool {
    let kinds: Vec<&str> = texts(rule.get("matchUpdateTypes")).collect();
    let only_locks = !kinds.is_empty() && kinds.iter().all(|kind| *kind == "lockFileMaintenance");
    rule.get("dependencyDashboardApproval") != Some(&Value::Bool(true))
        && (!only_locks || maintains_lock_files(root))
}

fn maintains_lock_files(root: &Value) -> bool {
    root.pointer("/lockFileMaintenance/enabled") == Some(&Value::Bool(true))
        || texts(root.get("extends")).any(|preset| {
            preset.starts_with(":maintainLockFiles")
                || preset == "config:best-practices"
                || preset.contains('>')
        })
}

fn scope(rule: &Map<String, Value>) -> Scope {
    let list = |names: &[&str]| -> Vec<String> {
        names
            .iter()
            .flat_map(|name| texts(rule.get(*name)))
            .map(str::to_owned)
            .collect()
    };
    let files = list(&["matchFileNames", "matchPaths"]);
    let managers = list(&["matchManagers"]);
    let plain =
        |list: &[String]| !list.is_empty() && !list.iter().any(|one| one.starts_with(['!', '/']));
    if plain(&files) {
        Scope::Files(files)
    } else if plain(&managers) {
        Scope::Managers(managers)
    } else if texts(rule.get("matchDepTypes")).eq(["action"]) {
        Scope::Managers(vec!["github-actions".to_owned()])
    } else {
        Scope::All
    }
}

fn of_scopes(scopes: &[Scope], tree: &Tree, known: bool) -> Option<Vec<String>> {
    let mut out = Vec::new();
    for scope in scopes {
        match scope {
            Scope::All => return None,
            Scope::Managers(names) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let all = names
                    .iter()
                    .all(|name| MANAGERS.iter().any(|manager| manager.name == *name));
                if !all || !known && names != ["github-actions"] {
                    return None;
                }
                out.extend(manifests(tree, &names));
            }
            Scope::Files(patterns) => {
                for pattern in patterns {
                    if !pattern.contains(['*', '{', '?']) {
                        out.push(pattern.clone());
                        continue;
                    }
                    let there: Vec<String> = tree
                        .files()
                        .iter()
                        .filter(|file| glob::matches(pattern, file))
                        .cloned()
                        .collect();
                    if there.is_empty() {
                        return None;
                    }
                    out.extend(there);
                }
            }
        }
    }
    Some(out)
}

/// Whether the configuration leaves it to Renovate which files it reads.
fn known_files(text: &str, value: &Value) -> bool {
    ![
        "fileMatch",
        "managerFilePatterns",
        "customManagers",
        "regexManagers",
        "includePaths",
        "postUpgradeTasks",
    ]
    .iter()
    .any(|mark| text.contains(mark))
        && !texts(value.get("extends"))
            .any(|preset| preset.contains('>') || preset.contains("regex"))
}

/// A manager of Renovate, with the ends of the paths that it reads and writes unless told otherwise.
struct Manager {
    name: &'static str,
    /// Names of files, at any depth; those with `/` in front are whole paths, those with `.` alone
    /// are ends of names.
    files: &'static [&'static str],
}

const MANAGERS: &[Manager] = &[
    Manager {
        name: "npm",
        files: &[
            "package.json",
            "package-lock.json",
            "npm-shrinkwrap.json",
            "yarn.lock",
            "pnpm-lock.yaml",
            "pnpm-workspace.yaml",
            "bun.lock",
            "bun.lockb",
            ".yarnrc.yml",
        ],
    },
    Manager {
        name: "nvm",
        files: &[".nvmrc", ".node-version"],
    },
    Manager {
        name: "github-actions",
        files: &["action.yml", "action.yaml", "/.github/workflows/"],
    },
    Manager {
        name: "dockerfile",
        files: &["Dockerfile", "Containerfile"],
    },
    Manager {
        name: "docker-compose",
        files: &[
            "docker-compose.yml",
            "docker-compose.yaml",
            "compose.yml",
            "compose.yaml",
        ],
    },
    Manager {
        name: "gomod",
        files: &["go.mod", "go.sum"],
    },
    Manager {
        name: "cargo",
        files: &["Cargo.toml", "Cargo.lock", "rust-toolchain.toml"],
    },
    Manager {
        name: "pip_requirements",
        files: &["requirements.txt", "requirements-dev.txt"],
    },
    Manager {
        name: "pep621",
        files: &["pyproject.toml", "uv.lock", "pdm.lock"],
    },
    Manager {
        name: "poetry",
        files: &["pyproject.toml", "poetry.lock"],
    },
    Manager {
        name: "pipenv",
        files: &["Pipfile", "Pipfile.lock"],
    },
    Manager {
        name: "pip_setup",
        files: &["setup.py", "setup.cfg"],
    },
    Manager {
        name: "maven",
        files: &["pom.xml"],
    },
    Manager {
        name: "gradle",
        files: &[
            "build.gradle",
            "build.gradle.kts",
            "settings.gradle",
            "settings.gradle.kts",
            "gradle.properties",
            "libs.versions.toml",
        ],
    },
    Manager {
        name: "gradle-wrapper",
        files: &["gradle-wrapper.properties", "gradle-wrapper.jar", "gradlew"],
    },
    Manager {
        name: "bundler",
        files: &["Gemfile", "Gemfile.lock"],
    },
    Manager {
        name: "composer",
        files: &["composer.json", "composer.lock"],
    },
    Manager {
        name: "terraform",
        files: &[".tf", ".terraform.lock.hcl"],
    },
    Manager {
        name: "helmv3",
        files: &["Chart.yaml", "Chart.lock"],
    },
    Manager {
        name: "helm-values",
        files: &["values.yaml", "values.yml"],
    },
    Manager {
        name: "helmfile",
        files: &["helmfile.yaml", "helmfile.yml"],
    },
    Manager {
        name: "kustomize",
        files: &["kustomization.yaml", "kustomization.yml"],
    },
    Manager {
        name: "mix",
        files: &["mix.exs", "mix.lock"],
    },
    Manager {
        name: "pub",
        files: &["pubspec.yaml", "pubspec.lock"],
    },
    Manager {
        name: "nuget",
        files: &[
            ".csproj",
            ".fsproj",
            ".props",
            "global.json",
            "packages.lock.json",
            "dotnet-tools.json",
        ],
    },
    Manager {
        name: "sbt",
        files: &["build.sbt", "build.properties", "plugins.sbt"],
    },
    Manager {
        name: "swift",
        files: &["Package.swift", "Package.resolved"],
    },
    Manager {
        name: "gitlabci",
        files: &[".gitlab-ci.yml"],
    },
    Manager {
        name: "circleci",
        files: &["/.circleci/config.yml"],
    },
    Manager {
        name: "azure-pipelines",
        files: &["azure-pipelines.yml"],
    },
    Manager {
        name: "bazel-module",
        files: &["MODULE.bazel", "WORKSPACE"],
    },
    Manager {
        name: "asdf",
        files: &[".tool-versions"],
    },
    Manager {
        name: "mise",
        files: &["mise.toml", ".mise.toml"],
    },
    Manager {
        name: "flux",
        files: &["gotk-components.yaml"],
    },
    Manager {
        name: "devcontainer",
        files: &["devcontainer.json"],
    },
];

impl Manager {
    fn reads(&self, file: &str) -> bool {
        let name = file.rsplit('/').next().unwrap_or(file);
        self.files.iter().any(|known| {
            if let Some(path) = known.strip_prefix('/') {
                file.starts_with(path)
            } else if known.starts_with('.')
                && known.matches('.').count() == 1
                && !name.starts_with('.')
            {
                name.ends_with(known)
            } else {
                name == *known
                    || self.name == "dockerfile" && name.contains(known)
                    || self.name == "pip_requirements"
                        && name.starts_with("requirements")
                        && name.ends_with(".txt")
            }
        })
    }
}

/// The manifests that are there, and those that a repository usually has at its root.
fn manifests(tree: &Tree, managers: &[&str]) -> Vec<String> {
    let chosen: Vec<&Manager> = MANAGERS
        .iter()
        .filter(|manager| managers.is_empty() || managers.contains(&manager.name))
        .collect();
    let mut out: Vec<String> = tree
        .files()
        .iter()
        .filter(|file| chosen.iter().any(|manager| manager.reads(file)))
        .cloned()
        .collect();
    for manager in chosen {
        for name in manager.files {
            match name.strip_prefix('/') {
                Some(place) if place.ends_with('/') => out.push(format!("{place}ci.yml")),
                Some(path) => out.push(path.to_owned()),
                None if name.starts_with("action.")
                    || name.matches('.').count() == 1 && name.starts_with('.') => {}
                None => out.push((*name).to_owned()),
            }
        }
    }
    out.sort_unstable();
    out.dedup();
    out
}

/// Renovate that a workflow of the repository runs: what its environment and the file that it names
/// say of merging.
pub(crate) fn self_hosted(workflows: &[Workflow], tree: &Tree, bots: &mut Vec<Bot>) {
    let merging = |bot: &Bot| bot.product == "Renovate" && matches!(bot.duty, Duty::Merges { .. });
    for workflow in workflows {
        for job in &workflow.jobs {
            for step in &job.steps {
                let runs = step.uses.as_deref().is_some_and(|uses| {
                    uses.to_ascii_lowercase()
                        .starts_with("renovatebot/github-action")
                }) || step.run.as_ref().is_some_and(|(text, _)| {
                    text.contains("renovate/renovate") || text.contains("npx renovate")
                });
                if !runs || bots.iter().any(merging) {
                    continue;
                }
                let values = || workflow.env.iter().chain(&job.env).chain(&step.env);
                let value = |name: &str| {
                    values()
                        .find(|(key, _)| key.eq_ignore_ascii_case(name))
                        .map(|(_, value)| value.as_str())
                };
                let file = step
                    .with
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case("configurationFile"))
                    .map(|(_, path)| path.as_str())
                    .or_else(|| value("RENOVATE_CONFIG_FILE"));
                let by_file = file.and_then(|path| {
                    let path = path.trim_start_matches("./");
                    let text = tree.read(path).ok()?;
                    let body = ["module.exports =", "export default"]
                        .iter()
                        .find_map(|start| text.split_once(start))
                        .map_or_else(|| text.to_string(), |(_, rest)| rest.to_owned());
                    read(path, body.trim().trim_end_matches(';'), tree)
                        .into_iter()
                        .find(merging)
                });
                let by_value = value("RENOVATE_AUTOMERGE") == Some("true")
                    || ["RENOVATE_CONFIG", "RENOVATE_PACKAGE_RULES"]
                        .iter()
                        .any(|name| {
                            value(name).is_some_and(|text| {
                                text.replace(' ', "").contains("\"automerge\":true")
                            })
                        });
                let found = by_file.or_else(|| {
                    by_value.then(|| merges(&workflow.file, step.line, None, Vec::new()))
                });
                bots.extend(found);
            }
        }
    }
}

/// Directories that workflows' path filters name and of which the checkout shows no file may hold a
/// manifest, unless their names say that they hold sources.
pub(crate) fn elsewhere(workflows: &[Workflow], tree: &Tree, bots: &mut [Bot]) {
    /// Names of directories that hold no manifests.
    const SOURCES: &[&str] = &[
        "src",
        "lib",
        "public",
        "static",
        "assets",
        "content",
        "posts",
        "_posts",
        "pages",
        "docs",
        "doc",
        "images",
        "img",
        "data",
        "test",
        "tests",
        "templates",
        "i18n",
        "locales",
    ];
    let mut places: Vec<String> = Vec::new();
    for trigger in workflows.iter().flat_map(|workflow| &workflow.triggers) {
        for pattern in &trigger.paths {
            let Some(place) = pattern.strip_suffix("/**").or(pattern.strip_suffix("/*")) else {
                continue;
            };
            let last = place.rsplit('/').next().unwrap_or(place);
            if place.contains(['*', '!']) || place.starts_with('.') || SOURCES.contains(&last) {
                continue;
            }
            let shown = format!("{place}/");
            if !tree.files().iter().any(|file| file.starts_with(&shown)) {
                places.push(format!("{place}/package.json"));
            }
        }
    }
    if places.is_empty() {
        return;
    }
    for bot in bots.iter_mut().filter(|bot| bot.product == "Renovate") {
        if let Duty::Opens {
            files: Some(files), ..
        } = &mut bot.duty
        {
            files.extend(places.iter().cloned());
        }
    }
}

/// JSON5 as JSON: comments, trailing commas, names without quotes, texts in single ones.
fn plain_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            ('"' | '\'', _) => {
                out.push('"');
                while let Some(inner) = characters.next() {
                    match inner {
                        '\\' => match characters.next() {
                            Some('\'') => out.push('\''),
                            // A line that goes on.
                            Some('\n') | None => {}
                            Some(escaped) => {
                                out.push('\\');
                                out.push(escaped);
                            }
                        },
                        _ if inner == character => break,
                        '"' => out.push_str("\\\""),
                        _ => out.push(inner),
                    }
                }
                out.push('"');
            }
            ('/', Some('/')) => {
                for skipped in characters.by_ref() {
                    if skipped == '\n' {
                        out.push('\n');
                        break;
                    }
                }
            }
            ('/', Some('*')) => {
                let mut last = ' ';
                for skipped in characters.by_ref() {
                    if last == '*' && skipped == '/' {
                        break;
                    }
                    last = skipped;
                }
            }
            ('}' | ']', _) => {
                while out.ends_with(char::is_whitespace) {
                    out.pop();
                }
                if out.ends_with(',') {
                    out.pop();
                }
                out.push(character);
            }
            (first, _) if first.is_alphabetic() || matches!(first, '_' | '$') => {
                let mut word = first.to_string();
                while let Some(next) =
                    characters.next_if(|c| c.is_alphanumeric() || matches!(c, '_' | '$'))
                {
                    word.push(next);
                }
                if matches!(word.as_str(), "true" | "false" | "null") {
                    out.push_str(&word);
                } else {
                    out.push('"');
                    out.push_str(&word);
                    out.push('"');
                }
            }
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bots(text: &str) -> Vec<Bot> {
        read(
            "renovate.json",
            text,
            &Tree::memory(std::collections::BTreeMap::new()),
        )
    }

    #[test]
    fn renovate_automerges_only_where_it_says_so() {
        let merges = |text: &str| bots(text).len() == 2;
        assert!(merges(
            "{\"packageRules\":[{\"matchUpdateTypes\":[\"patch\"],\"automerge\":true}]}"
        ));
        assert!(merges(
            "{\"extends\":[\"config:base\",\":automergeMinor\"]}"
        ));
        assert!(merges("{ // comment\n \"automerge\": true,\n}"));
        assert!(merges("{ automerge: true }"));
        assert!(!merges("{\"extends\":[\"config:base\"]}"));
        assert!(!merges("{\"automerge\": false}"));
        assert!(!merges("{ // \"automerge\": true\n}"));
        assert!(!merges("{\"extends\":[\":automergeDisabled\"]}"));
    }

    #[test]
    fn what_json5_allows_is_read() {
        let merges = |text: &str| bots(text).len() == 2;
        assert!(merges(
            "{ packageRules: [{ matchUpdateTypes: ['minor'], automerge: true, }], }"
        ));
        assert!(!merges(
            "{ /* automerge: true */ description: 'it isn\\'t \"automerge\": true', }"
        ));
        assert!(!merges("{ lockFileMaintenance: { automerge: true } }"));
        assert!(merges(
            "{ lockFileMaintenance: { automerge: true, enabled: true } }"
        ));
    }

    #[test]
    fn a_rule_of_one_manager_changes_its_files_alone() {
        let found =
            bots("{ packageRules: [{ matchManagers: ['github-actions'], automerge: true }] }");
        let Duty::Merges { files, .. } = &found[1].duty else {
            panic!()
        };
        let files = files.as_ref().unwrap();
        assert!(files.contains(&".github/workflows/ci.yml".to_owned()));
        assert!(!files.contains(&"package.json".to_owned()));
        let custom = bots("{ customManagers: [{}], packageRules: [{ automerge: true }] }");
        assert!(matches!(&custom[0].duty, Duty::Opens { files: None, .. }));
    }
}
