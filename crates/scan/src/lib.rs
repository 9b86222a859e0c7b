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
mod agents;
mod bots;
pub mod command;
mod engine;
mod expr;
mod glob;
mod pipelines;
pub mod render;
pub mod report;
mod repository;
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

use report::{Assumed, REPORT_VERSION, RepositoryReport};
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
    Ok(scan_trees(trees, &options.settings))
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

fn scan_trees(trees: Vec<(String, Option<String>, Tree)>, settings: &[Settings]) -> Report {
    let repositories = repository::read_all(trees, settings);
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
            approvals: Vec::new(),
            agents: Vec::new(),
            findings: Vec::new(),
            remedies: Vec::new(),
            history: None,
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
        }
        reports.push(report);
    }
    Report {
        version: REPORT_VERSION,
        scanner: env!("CARGO_PKG_VERSION").to_owned(),
        repositories: reports,
    }
}
