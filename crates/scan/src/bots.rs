//! Bots that open and merge pull requests, from their configuration files.

mod accounts;
mod mergers;
mod renovate;

use serde_json::Value;

use crate::tree::Tree;
use crate::yaml::{self, Node};

use accounts::automation_accounts;
pub(crate) use accounts::{expected, launched};
use mergers::{auto_merge_app, bulldozer, kodiak, mergeable, mergify};
pub(crate) use renovate::{elsewhere as manifests_elsewhere, self_hosted};

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
        /// The branch that what it merges aims at; `None` for any.
        base: Option<String>,
        /// The files that what it merges may change; `None` for whatever a pull request changes.
        files: Option<Vec<String>>,
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
            | ".github/.renovaterc"
            | ".github/.renovaterc.json"
            | ".gitlab/renovate.json5"
            | ".gitlab/renovate.json" => tree
                .read(file)
                .map(|text| renovate::read(file, &text, tree))
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
            ".github/mergeable.yml" | ".github/mergeable.yaml" => {
                with_yaml(tree, file, problems, mergeable)
            }
            ".github/auto-merge.yml" | ".github/auto-merge.yaml" | ".github/automerge.yml" => {
                with_yaml(tree, file, problems, auto_merge_app)
            }
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
        bots.extend(renovate::of_value("package.json", &text, inner, tree));
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
            base: None,
            files: None,
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

fn line_of(text: &str, word: &str) -> usize {
    text.lines()
        .position(|line| line.contains(word))
        .map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

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
