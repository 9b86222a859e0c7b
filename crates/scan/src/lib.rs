//! Reads existing pipelines and finds the ways an agent reaches production.
//!
//! [`scan`] reads checkouts, [`report`] is what it says, [`render`] prints it, and [`command`] is
//! the command line. The way through the code: `tree` (files) → `yaml`, `workflow`, `pipelines`,
//! `bots` (what is configured) with `acts` (what steps do) and `agents` → `engine` (which events
//! follow from which, and how far) → `verdicts`, `findings`, `remedy`.
//!
//! It needs nothing but the files, changes nothing, and sends nothing.
#![forbid(unsafe_code)]

mod acts;
mod agentic;
mod agents;
mod baseline;
mod blast;
mod bots;
mod checkout;
pub mod command;
mod engine;
mod expr;
pub mod findings;
#[cfg(test)]
mod fuzz;
mod glob;
mod history;
pub mod inventory;
mod manifests;
mod outside;
mod parallel;
mod pipelines;
mod remedy;
pub mod render;
pub mod report;
mod repository;
pub mod rules;
mod settings;
mod shell;
mod tree;
mod verdicts;
mod workflow;
mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use portcullis_model::Refusal;

pub use report::Report;
pub use settings::Settings;

use report::{Assumed, Problem, REPORT_VERSION, RepositoryReport};
use tree::Tree;

/// What to scan and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The checkout.
    pub path: PathBuf,
    /// Further checkouts that belong to it.
    pub with: Vec<PathBuf>,
    /// Exported forge settings.
    pub settings: Vec<Settings>,
    /// Most commits of every checkout's git history that are read for marks of agents, newest
    /// first; 0 reads none.
    pub history_commits: u64,
}

/// Scans checkouts.
///
/// # Errors
/// A path that is no readable directory; a file inside that can't be read is a
/// [`report::Problem`] of the report, not an error.
pub fn scan(options: &Options) -> Result<Report, Refusal> {
    let mut trees = Vec::new();
    for path in std::iter::once(&options.path).chain(&options.with) {
        trees.push((shown(path), None, Tree::open(path)?));
    }
    let roots: Vec<Option<PathBuf>> = trees
        .iter()
        .map(|(_, _, tree)| tree.root().map(Path::to_path_buf))
        .collect();
    let mut report = scan_trees(trees, &options.settings);
    for (repository, root) in report.repositories.iter_mut().zip(roots) {
        let Some(root) = root else { continue };
        add_checkout(repository, &root, options.history_commits);
    }
    Ok(report)
}

/// What git's data tell beside the files.
fn add_checkout(repository: &mut RepositoryReport, root: &Path, history_commits: u64) {
    let mut tell = |message: String| {
        repository.problems.push(Problem {
            file: String::new(),
            line: 0,
            message,
        });
    };
    for caution in checkout::cautions(root, repository.pipelines) {
        tell(caution);
    }
    if history_commits == 0 {
        return;
    }
    let declared: Vec<String> = repository
        .agents
        .iter()
        .map(|agent| agent.name.clone())
        .chain(repository.declared.iter().cloned())
        .collect();
    match history::read(root, &declared, history_commits) {
        Ok(read) => repository.history = read,
        Err(why) => tell(format!("the git history was not read: {why}")),
    }
}

/// Scans files that exist only in memory: for tests and for trying an edit. Each repository is a
/// name (`owner/name`) and its files by path.
pub fn scan_memory(
    repositories: Vec<(String, BTreeMap<String, String>)>,
    settings: &[Settings],
) -> Report {
    let trees = repositories
        .into_iter()
        .map(|(name, files)| {
            let slug = name.contains('/').then(|| name.clone());
            (name, slug, Tree::memory(files))
        })
        .collect();
    scan_trees(trees, settings)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Everything that depends on the files alone.
fn scan_trees(trees: Vec<(String, Option<String>, Tree)>, settings: &[Settings]) -> Report {
    let (given, repositories) = repository::read_all(trees, settings);
    let (repositories, outcomes) = verdicts::search(repositories);
    let mut reports = Vec::new();
    for (index, repository) in repositories.iter().enumerate() {
        let mut report = RepositoryReport {
            path: repository.shown.clone(),
            name: repository
                .subject
                .slug
                .clone()
                .filter(|slug| !slug.starts_with("?/")),
            default_branch: repository.subject.default_branch.clone(),
            verdicts: Vec::new(),
            assumed: Vec::new(),
            approvals: findings::approvals(repository),
            agents: Vec::new(),
            findings: Vec::new(),
            remedies: Vec::new(),
            history: None,
            declared: declared(repository),
            pipelines: repository.subject.workflows.len(),
            problems: repository.problems.clone(),
        };
        for (assumption, outcome) in &outcomes {
            report
                .verdicts
                .extend(verdicts::of(outcome, index, *assumption));
            report.assumed.push(Assumed {
                assumption: *assumption,
                facts: outcome.assumed.clone(),
            });
            if outcome.truncated {
                report.problems.push(Problem {
                    file: String::new(),
                    line: 0,
                    message: "too many events to follow them all; the answers may miss ways"
                        .to_owned(),
                });
            }
        }
        verdicts::add_excerpts(&mut report.verdicts, &repository.tree);
        let runs: Vec<engine::AgentRun> = outcomes
            .first()
            .map(|(_, outcome)| {
                outcome
                    .agents
                    .iter()
                    .filter(|run| run.repository == index)
                    .cloned()
                    .collect()
            })
            .unwrap_or_default();
        report.findings = findings::of(repository, &runs);
        report.agents = blast::of(&runs, &report.verdicts);
        let rescan = |file: &str, text: &str| -> Vec<report::Verdict> {
            let mut subjects: Vec<engine::Subject> = repositories
                .iter()
                .map(|repository| repository.subject.clone())
                .collect();
            if let Some(subject) = subjects.get_mut(index) {
                repository::edit(subject, index, &given, file, text);
            }
            outcomes
                .iter()
                .flat_map(|(assumption, _)| {
                    let outcome = engine::search(&subjects, *assumption);
                    verdicts::of(&outcome, index, *assumption)
                })
                .collect()
        };
        report.remedies = remedy::of(repository, &report.verdicts, &rescan);
        reports.push(report);
    }
    Report {
        version: REPORT_VERSION,
        scanner: env!("CARGO_PKG_VERSION").to_owned(),
        repositories: reports,
    }
}

/// Agents that the repository's files name: by their instruction files and bots.
fn declared(repository: &repository::Repository) -> Vec<String> {
    let mut out: Vec<String> = repository
        .subject
        .bots
        .iter()
        .map(|bot| bot.product.replace(" coding agent", ""))
        .collect();
    for file in repository.tree.files() {
        let lower = file.to_ascii_lowercase();
        let name = lower.rsplit('/').next().unwrap_or_default();
        let product = match name {
            "claude.md" => "Claude Code",
            "gemini.md" => "Gemini CLI",
            ".cursorrules" => "Cursor",
            "copilot-instructions.md" => "Copilot",
            _ if lower.starts_with(".claude/") => "Claude Code",
            _ if lower.starts_with(".cursor/") => "Cursor",
            _ if lower.starts_with(".codex/") => "Codex",
            _ if lower.starts_with(".gemini/") => "Gemini CLI",
            _ if lower.starts_with(".openhands/") => "OpenHands",
            _ => continue,
        };
        out.push(product.to_owned());
    }
    out.sort();
    out.dedup();
    out
}
