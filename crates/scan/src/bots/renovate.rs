//! Renovate's configuration: what it opens, what it merges by itself, and which files that changes.

mod json5;
mod managers;

use json5::plain_json;
use managers::{is_known, manifests};

use serde_json::{Map, Value};

use super::{Authors, Bot, Duty, Need, line_of, merger, renovate_bot};
use crate::glob;
use crate::tree::Tree;
use crate::workflow::Workflow;

/// Most branches that one configuration opens pull requests against.
const BASES_MAX: usize = 64;
/// Most places that merge, and most patterns in them, whose files are looked up: beyond, any file
/// may change.
const SCOPES_MAX: usize = 256;

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
    let beyond = bases.len() > BASES_MAX;
    let bases: Vec<Option<String>> = if bases.is_empty() {
        vec![None]
    } else {
        bases
            .into_iter()
            .take(BASES_MAX)
            .map(|name| (name != "$default").then_some(name))
            // Among those beyond the bound may be the default branch.
            .chain(beyond.then_some(None))
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
    // A rule for a manager that is off is about nothing.
    scopes.retain(|scope| match scope {
        Scope::Managers(names) if !enabled.is_empty() => {
            names.iter().any(|name| enabled.contains(&name.as_str()))
        }
        Scope::Managers(_) | Scope::Files(_) | Scope::All => true,
    });
    if !scopes.is_empty() {
        let asked = value.get("dependencyDashboardApproval") == Some(&Value::Bool(true))
            || texts(value.get("extends")).any(|preset| preset == ":dependencyDashboardApproval");
        let mut needs = Vec::new();
        if asked {
            needs.push(Need::Command(
                "a person approves the update on the dependency dashboard".to_owned(),
            ));
        }
        if text.contains("pr-comment") {
            needs.push(Need::Fact(
                "whether something merges what Renovate comments on".to_owned(),
            ));
        }
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
    let patterns = |scope: &Scope| match scope {
        Scope::Files(patterns) => patterns.len(),
        Scope::All | Scope::Managers(_) => 1,
    };
    if scopes.iter().map(patterns).sum::<usize>() > SCOPES_MAX {
        return None;
    }
    let mut out = Vec::new();
    for scope in scopes {
        match scope {
            Scope::All => return None,
            Scope::Managers(names) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let all = names.iter().all(|name| is_known(name));
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
    fn long_lists_end_in_what_may_be_any_file_or_branch() {
        let names = (0..5_000).map(|at| format!("'b{at}'")).collect::<Vec<_>>();
        let found = bots(&format!("{{ baseBranches: [{}] }}", names.join(",")));
        assert_eq!(found.len(), BASES_MAX + 1);
        assert!(matches!(
            found.last().map(|bot| &bot.duty),
            Some(Duty::Opens { base: None, .. })
        ));
        let rule = "{ matchManagers: ['github-actions'], automerge: true },";
        let found = bots(&format!("{{ packageRules: [{}] }}", rule.repeat(5_000)));
        assert!(matches!(&found[1].duty, Duty::Merges { files: None, .. }));
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
