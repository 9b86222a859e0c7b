//! The smallest set of edits and settings that puts a person back on every path.
//!
//! Every candidate is tried: the tree is scanned again with the edit laid over it, and what is no
//! longer reachable is what the edit cuts. Then the candidate that cuts most is taken, until
//! nothing is left or nothing helps. (Greedy covering: at most a logarithmic factor from smallest,
//! and exact for the small numbers that repositories have.)

mod diff;
mod edits;

use std::collections::BTreeSet;

use crate::engine::Assumption;
use crate::parallel;
use crate::report::{Decision, Remedy, Verdict};
use crate::repository::Repository;
use diff::diff;
use edits::{edit_for, finish, indent};

/// Most candidates that are tried.
const CANDIDATES_MAX: usize = 24;
/// Most pipelines that are searched again in all, over every try.
const SEARCHES_MAX: usize = 600;
/// Most pipelines a repository may have for edits to be tried by scanning again.
const PIPELINES_MAX: usize = 400;

struct Candidate {
    what: String,
    edit: Option<(String, String)>,
    setting: Option<String>,
    cuts: BTreeSet<String>,
    verified: bool,
}

/// Scans again with one file's text replaced: given by the caller, so that this module does not
/// know how.
pub(crate) type Rescan<'a> = dyn Fn(&str, &str) -> Vec<Verdict> + Sync + 'a;

/// Remedies for the verdicts of one repository.
pub(crate) fn of(
    repository: &Repository,
    verdicts: &[Verdict],
    rescan: &Rescan<'_>,
) -> Vec<Remedy> {
    let open: BTreeSet<String> = verdicts
        .iter()
        .filter(|verdict| verdict.verdict == Decision::Reachable)
        .map(|verdict| verdict.fingerprint.clone())
        .collect();
    if open.is_empty() || repository.subject.workflows.len() > PIPELINES_MAX {
        return Vec::new();
    }
    let mut candidates = Vec::new();
    candidates.extend(protection(repository, verdicts));
    // Trying costs a search over all pipelines: many pipelines, few tries.
    let tries = (SEARCHES_MAX / repository.subject.workflows.len().max(1)).clamp(2, CANDIDATES_MAX);
    let mut tried = edits(repository, verdicts);
    tried.truncate(tries);
    // A file that no longer reads has no paths either; that is no remedy.
    tried.retain(|(file, text, _)| still_reads(file, text));
    let answers = parallel::map(&tried, 2, |(file, text, _)| rescan(file, text));
    for ((file, text, what), after) in tried.into_iter().zip(answers) {
        let still: BTreeSet<&str> = after
            .iter()
            .filter(|verdict| verdict.verdict == Decision::Reachable)
            .map(|verdict| verdict.fingerprint.as_str())
            .collect();
        let cuts: BTreeSet<String> = open
            .iter()
            .filter(|name| !still.contains(name.as_str()))
            .cloned()
            .collect();
        if !cuts.is_empty() {
            candidates.push(Candidate {
                what,
                edit: Some((file, text)),
                setting: None,
                cuts,
                verified: true,
            });
        }
    }
    let (mut out, left) = choose(repository, open, candidates);
    let (more, left) = reviewers(repository, verdicts, left, rescan);
    out.extend(more);
    out.extend(settings(verdicts, left));
    out
}

fn still_reads(file: &str, text: &str) -> bool {
    !file.ends_with(".yml") && !file.ends_with(".yaml") || crate::yaml::parse(text).is_ok()
}

/// One rule on the default branch, where that alone cuts: known from the second answer.
fn protection(repository: &Repository, verdicts: &[Verdict]) -> Option<Candidate> {
    let protected_open = |verdict: &Verdict| {
        verdicts.iter().any(|other| {
            other.assumption == Assumption::Protected
                && other.verdict == Decision::Reachable
                && other.sink == verdict.sink
                && other.kind == verdict.kind
                && other.file == verdict.file
        })
    };
    let cuts: BTreeSet<String> = verdicts
        .iter()
        .filter(|verdict| {
            verdict.assumption == Assumption::Unprotected
                && verdict.verdict == Decision::Reachable
                && !protected_open(verdict)
        })
        // An environment's reviewers are another setting.
        .filter(|verdict| {
            verdict.path.iter().any(|step| {
                step.event.contains("merge") || step.event.contains("push to the default branch")
            })
        })
        .map(|verdict| verdict.fingerprint.clone())
        .collect();
    let branch = &repository.subject.default_branch;
    (!cuts.is_empty()).then(|| Candidate {
        what: format!("protect the branch {branch}"),
        edit: None,
        setting: Some(format!(
            "a ruleset for {branch}: pull requests only, one approving review by a person, no bypass for bots and tokens"
        )),
        cuts,
        verified: true,
    })
}

fn choose(
    repository: &Repository,
    mut open: BTreeSet<String>,
    mut candidates: Vec<Candidate>,
) -> (Vec<Remedy>, BTreeSet<String>) {
    let mut out = Vec::new();
    while !open.is_empty() {
        let best = candidates
            .iter()
            .enumerate()
            .map(|(index, candidate)| {
                (
                    candidate.cuts.intersection(&open).count(),
                    candidate.edit.is_some(),
                    index,
                )
            })
            .max_by_key(|(count, edit, index)| (*count, *edit, usize::MAX - index));
        let Some((count, _, index)) = best else { break };
        if count == 0 {
            break;
        }
        let candidate = candidates.swap_remove(index);
        let cuts: Vec<String> = candidate.cuts.intersection(&open).cloned().collect();
        for name in &cuts {
            open.remove(name);
        }
        let patch = candidate.edit.map(|(file, text)| {
            let before = repository.tree.read(&file).unwrap_or_default();
            diff(&file, &before, &text)
        });
        out.push(Remedy {
            what: candidate.what,
            cuts,
            patch,
            setting: candidate.setting,
            verified: candidate.verified,
        });
    }
    (out, open)
}

/// For what no edit cuts: an environment with reviewers around the sink's job. With reviewers the
/// second answer must no longer be *reachable*; that is what the scan of the edited tree is asked.
fn reviewers(
    repository: &Repository,
    verdicts: &[Verdict],
    mut left: BTreeSet<String>,
    rescan: &Rescan<'_>,
) -> (Vec<Remedy>, BTreeSet<String>) {
    /// Most sinks that are given an environment one by one.
    const SINKS_MAX: usize = 8;
    let mut out = Vec::new();
    for verdict in verdicts {
        if !left.contains(&verdict.fingerprint) || out.len() >= SINKS_MAX {
            continue;
        }
        let Some(workflow) = repository
            .subject
            .workflows
            .iter()
            .find(|workflow| workflow.file == verdict.file)
        else {
            continue;
        };
        let job = workflow
            .jobs
            .iter()
            .filter(|job| job.line <= verdict.line && job.environment.is_none())
            .max_by_key(|job| job.line);
        let (Some(job), Ok(text)) = (job, repository.tree.read(&verdict.file)) else {
            continue;
        };
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let depth = lines.get(job.line).map_or(4, |line| indent(line));
        lines.insert(
            job.line.min(lines.len()),
            format!("{}environment: production", " ".repeat(depth)),
        );
        let new = finish(&lines);
        if !still_reads(&verdict.file, &new) {
            continue;
        }
        let after = rescan(&verdict.file, &new);
        let same = |other: &&Verdict| {
            other.sink == verdict.sink && other.kind == verdict.kind && other.file == verdict.file
        };
        let verified = after
            .iter()
            .filter(same)
            .filter(|other| other.assumption != Assumption::Unprotected)
            .all(|other| other.verdict != Decision::Reachable);
        let cuts: Vec<String> = verdicts
            .iter()
            .filter(same)
            .filter(|other| left.contains(&other.fingerprint))
            .map(|other| other.fingerprint.clone())
            .collect();
        for name in &cuts {
            left.remove(name);
        }
        out.push(Remedy {
            what: format!(
                "let a person release the job {} of {}",
                job.id, verdict.file
            ),
            cuts,
            patch: Some(diff(&verdict.file, &text, &new)),
            setting: Some("required reviewers on the environment production".to_owned()),
            verified,
        });
    }
    (out, left)
}

/// For what neither cuts: the fact that the second answer says would decide, or the right that the
/// path needs from a credential.
fn settings(verdicts: &[Verdict], mut left: BTreeSet<String>) -> Vec<Remedy> {
    let mut out = Vec::new();
    for verdict in verdicts {
        if !left.contains(&verdict.fingerprint) {
            continue;
        }
        let decided = verdicts
            .iter()
            .filter(|other| {
                other.assumption == Assumption::Protected
                    && other.verdict == Decision::Depends
                    && other.sink == verdict.sink
                    && other.file == verdict.file
            })
            .find_map(|other| other.decided_by.as_deref());
        let (what, setting) = if let Some(fact) = decided {
            (
                format!("let a person release {}", verdict.sink),
                format!(
                    "what decides it: {}",
                    fact.strip_prefix("whether ").unwrap_or(fact)
                ),
            )
        } else if let Some(step) = verdict
            .path
            .iter()
            .rev()
            .find(|step| !step.credential.is_empty())
        {
            (
                format!("take the right to do this from {}", step.credential),
                format!(
                    "{}: read access only, so that {} is a person's to do",
                    step.credential, verdict.sink
                ),
            )
        } else {
            continue;
        };
        left.remove(&verdict.fingerprint);
        out.push(Remedy {
            what,
            cuts: vec![verdict.fingerprint.clone()],
            patch: None,
            setting: Some(setting),
            verified: decided.is_some(),
        });
    }
    out
}

/// Candidate edits along the reachable paths: file, new text, what it does.
fn edits(repository: &Repository, verdicts: &[Verdict]) -> Vec<(String, String, String)> {
    let mut out: Vec<(String, String, String)> = Vec::new();
    let mut seen = BTreeSet::new();
    for verdict in verdicts
        .iter()
        .filter(|verdict| verdict.verdict == Decision::Reachable)
    {
        for step in &verdict.path {
            if step.file.is_empty()
                || !seen.insert((step.file.clone(), step.line, step.event.clone()))
            {
                continue;
            }
            let Ok(text) = repository.tree.read(&step.file) else {
                continue;
            };
            if let Some((new, what)) = edit_for(repository, step, &text)
                && new != text
                && !out
                    .iter()
                    .any(|(file, known, _)| *file == step.file && *known == new)
            {
                out.push((step.file.clone(), new, what));
            }
        }
    }
    out
}
