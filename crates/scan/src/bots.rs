//! Bots that open and merge pull requests, from their configuration files.

mod accounts;
mod mergers;

use serde_json::Value;

use crate::tree::Tree;
use crate::yaml::{self, Node};

use accounts::automation_accounts;
pub(crate) use accounts::{expected, launched};
use mergers::{bulldozer, kodiak, mergify};

/// A bot that is configured here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bot {
    pub(crate) product: &'static str,
    pub(crate) login: String,
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) duty: Duty,
}

/// What it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Opens pull requests from branches of this repository.
    Opens {
        head: &'static str,
        labels: Vec<String>,
        /// A person must release the workflow runs of its pull requests.
        runs_held: bool,
        /// The branch that its pull requests aim at; `None` is the default one.
        base: Option<String>,
        /// The files that its pull requests change; `None` where that can't be told.
        files: Option<Vec<String>>,
    },
    /// Merges pull requests.
    Merges {
        authors: Authors,
        needs: Vec<Need>,
        /// It approves first, which counts as a review.
        approves: bool,
        why: String,
    },
    /// Serves the default branch whenever it changes, if it is connected.
    Serves,
    /// Syncs the default branch into a cluster whenever it changes.
    Syncs,
}

/// Whose pull requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Authors {
    Own,
    Any,
    Only(Vec<String>),
}

/// What a merge waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Review(String),
    Label(String),
    /// A comment that only people with rights can make.
    Command(String),
    Fact(String),
}

/// Every bot that the files configure. Problems are reported as (file, line, words).
pub(crate) fn read(tree: &Tree, problems: &mut Vec<(String, usize, String)>) -> Vec<Bot> {
    let mut bots = Vec::new();
    for file in tree.files() {
        let lower = file.to_ascii_lowercase();
        let found = match lower.as_str() {
            ".github/dependabot.yml" | ".github/dependabot.yaml" => {
                with_yaml(tree, file, problems, |file, root| {
                    dependabot(file, root, tree)
                })
            }
            "renovate.json"
            | "renovate.json5"
            | ".renovaterc"
            | ".renovaterc.json"
            | ".renovaterc.json5"
            | ".github/renovate.json"
            | ".github/renovate.json5"
            | ".gitlab/renovate.json" => tree
                .read(file)
                .map(|text| renovate(file, &text))
                .unwrap_or_default(),
            ".mergify.yml" | ".mergify/config.yml" | ".github/mergify.yml" => {
                with_yaml(tree, file, problems, mergify)
            }
            ".kodiak.toml" | ".github/.kodiak.toml" => {
                match tree.read(file).map(|text| kodiak(file, &text)) {
                    Ok(Ok(found)) => found,
                    Ok(Err(words)) => {
                        problems.push((file.clone(), 1, words));
                        Vec::new()
                    }
                    Err(problem) => {
                        problems.push((file.clone(), 0, problem.words()));
                        Vec::new()
                    }
                }
            }
            "bors.toml" | ".github/bors.toml" => vec![merger(
                "bors",
                "bors[bot]",
                file,
                1,
                Authors::Any,
                vec![Need::Command("a reviewer comments bors r+".to_owned())],
                false,
            )],
            ".bulldozer.yml" => with_yaml(tree, file, problems, bulldozer),
            ".prow.yaml" => vec![merger(
                "Tide",
                "k8s-ci-robot",
                file,
                1,
                Authors::Any,
                vec![Need::Command(
                    "an approver of OWNERS comments /lgtm and /approve".to_owned(),
                )],
                false,
            )],
            "vercel.json" => vec![server("Vercel", file)],
            "netlify.toml" => vec![server("Netlify", file)],
            "render.yaml" => vec![server("Render", file)],
            ".github/workflows/copilot-setup-steps.yml"
            | ".github/workflows/copilot-setup-steps.yaml" => vec![Bot {
                product: "Copilot coding agent",
                login: "Copilot".to_owned(),
                file: file.clone(),
                line: 1,
                duty: Duty::Opens {
                    head: "copilot/fix",
                    labels: Vec::new(),
                    runs_held: true,
                    base: None,
                    files: None,
                },
            }],
            "sweep.yaml" => vec![Bot {
                product: "Sweep",
                login: "sweep-ai[bot]".to_owned(),
                file: file.clone(),
                line: 1,
                duty: Duty::Opens {
                    head: "sweep/fix",
                    labels: vec!["sweep".to_owned()],
                    runs_held: false,
                    base: None,
                    files: None,
                },
            }],
            _ => Vec::new(),
        };
        bots.extend(found);
    }
    if let Ok(text) = tree.read("package.json")
        && text.contains("\"renovate\"")
        && let Ok(json) = serde_json::from_str::<Value>(&text)
        && let Some(inner) = json.get("renovate")
        && inner.is_object()
        && !bots.iter().any(|bot| bot.product == "Renovate")
    {
        bots.extend(renovate_value("package.json", &text, inner));
    }
    let named = automation_accounts(&bots);
    bots.extend(named);
    bots
}

fn with_yaml(
    tree: &Tree,
    file: &str,
    problems: &mut Vec<(String, usize, String)>,
    read: impl Fn(&str, &Node) -> Vec<Bot>,
) -> Vec<Bot> {
    match tree.read(file) {
        Err(problem) => {
            problems.push((file.to_owned(), 0, problem.words()));
            Vec::new()
        }
        Ok(text) => match yaml::parse_one(&text) {
            Err(error) => {
                problems.push((file.to_owned(), error.line, error.message));
                Vec::new()
            }
            Ok(root) => read(file, &root),
        },
    }
}

fn merger(
    product: &'static str,
    login: &str,
    file: &str,
    line: usize,
    authors: Authors,
    needs: Vec<Need>,
    approves: bool,
) -> Bot {
    Bot {
        product,
        login: login.to_owned(),
        file: file.to_owned(),
        line,
        duty: Duty::Merges {
            authors,
            needs,
            approves,
            why: format!("{product} is configured to merge"),
        },
    }
}

fn server(product: &'static str, file: &str) -> Bot {
    Bot {
        product,
        login: format!("{}[bot]", product.to_lowercase()),
        file: file.to_owned(),
        line: 1,
        duty: Duty::Serves,
    }
}

pub(crate) fn dependabot_bot(file: &str, line: usize, labels: Vec<String>) -> Bot {
    Bot {
        product: "Dependabot",
        login: "dependabot[bot]".to_owned(),
        file: file.to_owned(),
        line,
        duty: Duty::Opens {
            head: "dependabot/npm_and_yarn/x",
            labels,
            runs_held: false,
            base: None,
            files: None,
        },
    }
}

pub(crate) fn renovate_bot(file: &str, line: usize, labels: Vec<String>) -> Bot {
    Bot {
        product: "Renovate",
        login: "renovate[bot]".to_owned(),
        file: file.to_owned(),
        line,
        duty: Duty::Opens {
            head: "renovate/x",
            labels,
            runs_held: false,
            base: None,
            files: None,
        },
    }
}

fn dependabot(file: &str, root: &Node, tree: &Tree) -> Vec<Bot> {
    let line = root.entry("updates").map_or(1, |entry| entry.line);
    let updates = root.get("updates").map(Node::items).unwrap_or_default();
    // Pull requests for one branch are alike, so that one bot stands for them.
    let mut bases: Vec<Option<String>> = Vec::new();
    for update in updates {
        let base = update.str_of("target-branch").map(str::to_owned);
        if !bases.contains(&base) {
            bases.push(base);
        }
    }
    bases
        .into_iter()
        .map(|base| {
            let mut labels: Vec<String> = vec!["dependencies".to_owned()];
            let mut files: Option<Vec<String>> = Some(Vec::new());
            for update in updates {
                if update.str_of("target-branch") != base.as_deref() {
                    continue;
                }
                if let Some(list) = update.get("labels") {
                    labels.extend(list.texts().into_iter().map(str::to_owned));
                }
                files = match (files, crate::manifests::of(update, tree)) {
                    (Some(mut known), Some(more)) => {
                        known.extend(more);
                        Some(known)
                    }
                    _ => None,
                };
            }
            labels.sort();
            labels.dedup();
            let mut bot = dependabot_bot(file, line, labels);
            if let Duty::Opens {
                base: aim,
                files: changes,
                ..
            } = &mut bot.duty
            {
                *aim = base;
                *changes = files;
            }
            bot
        })
        .collect()
}

/// Reads Renovate's configuration, comments and trailing commas included.
fn renovate(file: &str, text: &str) -> Vec<Bot> {
    match serde_json::from_str::<Value>(&plain_json(text)) {
        Ok(value) => renovate_value(file, text, &value),
        Err(_) => {
            // Unquoted keys and the like: read the one word that matters here.
            let automerge = text.lines().any(|line| {
                let line = line.trim();
                line.contains("automerge") && line.contains("true") && !line.starts_with("//")
            });
            let mut bots = vec![renovate_bot(file, 1, Vec::new())];
            if automerge {
                bots.push(renovate_merger(file, line_of(text, "automerge")));
            }
            bots
        }
    }
}

fn renovate_value(file: &str, text: &str, value: &Value) -> Vec<Bot> {
    if value.get("enabled") == Some(&Value::Bool(false)) {
        return Vec::new();
    }
    let labels: Vec<String> = value
        .get("labels")
        .and_then(Value::as_array)
        .map(|list| {
            list.iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default();
    let bases: Vec<String> = ["baseBranches", "baseBranchPatterns"]
        .iter()
        .find_map(|key| value.get(key).and_then(Value::as_array))
        .map(|list| {
            list.iter()
                .filter_map(Value::as_str)
                // A pattern stands for branches that the file does not name.
                .filter(|name| !name.starts_with('/'))
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default();
    let mut bots = Vec::new();
    if bases.is_empty() {
        bots.push(renovate_bot(file, 1, labels));
    } else {
        for name in bases {
            let mut bot = renovate_bot(file, line_of(text, "baseBranch"), labels.clone());
            if let Duty::Opens { base, .. } = &mut bot.duty {
                *base = (name != "$default").then_some(name);
            }
            bots.push(bot);
        }
    }
    if automerges(value, 0) {
        bots.push(renovate_merger(file, line_of(text, "automerge")));
    }
    bots
}

fn renovate_merger(file: &str, line: usize) -> Bot {
    merger(
        "Renovate",
        "renovate[bot]",
        file,
        line,
        Authors::Own,
        Vec::new(),
        false,
    )
}

fn automerges(value: &Value, depth: usize) -> bool {
    /// Deepest level of Renovate's configuration that is looked into.
    const DEPTH_MAX: usize = 12;
    if depth > DEPTH_MAX {
        return false;
    }
    match value {
        Value::Object(map) => {
            if map.get("enabled") == Some(&Value::Bool(false)) {
                return false;
            }
            map.iter().any(|(key, inner)| match key.as_str() {
                "automerge" => inner == &Value::Bool(true),
                "extends" => inner.as_array().is_some_and(|list| {
                    list.iter().filter_map(Value::as_str).any(|preset| {
                        preset.contains(":automerge")
                            && !preset.contains("automergeDisabled")
                            && !preset.contains("automergeRequireAllStatusChecks")
                            && !preset.contains("automergeType")
                            && !preset.contains("automergePr")
                            && !preset.contains("automergeBranch")
                    })
                }),
                _ => automerges(inner, depth + 1),
            })
        }
        Value::Array(list) => list.iter().any(|inner| automerges(inner, depth + 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// JSON with comments and trailing commas as JSON.
fn plain_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    let mut inside = false;
    while let Some(character) = characters.next() {
        if inside {
            out.push(character);
            if character == '\\' {
                out.extend(characters.next());
            } else if character == '"' {
                inside = false;
            }
            continue;
        }
        match (character, characters.peek()) {
            ('"', _) => {
                inside = true;
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
            _ => out.push(character),
        }
    }
    out
}

fn line_of(text: &str, word: &str) -> usize {
    text.lines()
        .position(|line| line.contains(word))
        .map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renovate_automerges_only_where_it_says_so() {
        let merges = |text: &str| renovate("renovate.json", text).len() == 2;
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
    fn mergify_conditions_become_needs() {
        let root = yaml::parse_one("pull_request_rules:\n  - name: x\n    conditions:\n      - author~=^dependabot\n      - \"#approved-reviews-by>=1\"\n      - label=ok\n    actions:\n      merge: {}\n").unwrap();
        let bots = mergify(".mergify.yml", &root);
        let Duty::Merges { authors, needs, .. } = &bots[0].duty else {
            panic!()
        };
        assert_eq!(authors, &Authors::Only(vec!["dependabot".to_owned()]));
        assert_eq!(needs.len(), 2);
    }
}
