//! The smallest set of edits and settings that puts a person back on every path.
//!
//! Every candidate is tried: the tree is scanned again with the edit laid over it, and what is no
//! longer reachable is what the edit cuts. Then the candidate that cuts most is taken, until
//! nothing is left or nothing helps. (Greedy covering: at most a logarithmic factor from smallest,
//! and exact for the small numbers that repositories have.)

use std::collections::BTreeSet;

use crate::acts::Op;
use crate::engine::Assumption;
use crate::parallel;
use crate::report::{Decision, PathStep, Remedy, Verdict};
use crate::repository::Repository;

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

fn edit_for(repository: &Repository, step: &PathStep, text: &str) -> Option<(String, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let name = step.file.rsplit('/').next().unwrap_or_default();
    let workflow = crate::repository::is_github_workflow(&step.file);
    if step.event == "schedule" && workflow {
        return by_hand(&lines, step.line, "schedule")
            .map(|new| (new, format!("start {name} by hand instead of by the clock")));
    }
    if step.event.starts_with("repository_dispatch") && workflow && step.why.starts_with("starts") {
        return by_hand(&lines, step.line, "repository_dispatch").map(|new| {
            (
                new,
                format!("start {name} by hand instead of by repository_dispatch"),
            )
        });
    }
    if (step.event == "merge" || step.event == "auto-merge") && workflow {
        return disable_step(&lines, step.line).map(|new| {
            (
                new,
                format!("let a person merge: switch off the merging step of {name}"),
            )
        });
    }
    if (step.event == "merge" || step.event == "auto-merge") && name.contains("renovate") {
        let new = text
            .replace("\"automerge\": true", "\"automerge\": false")
            .replace("\"automerge\":true", "\"automerge\":false");
        return Some((
            new,
            "let a person merge Renovate's pull requests".to_owned(),
        ));
    }
    if (step.event == "merge" || step.event == "auto-merge") && name.contains("mergify") {
        return label_only(&lines, step.line)
            .map(|new| (new, "let a person merge what Mergify labels".to_owned()));
    }
    if step.event == "deploy" && step.file == ".circleci/config.yml" {
        let job = job_above(&lines, step.line)?;
        return hold(&lines, job)
            .map(|new| (new, format!("let a person release the job {job} of {name}")));
    }
    if step.event == "agent run" && workflow {
        let new = read_only(repository, &step.file, &lines)?;
        return Some((
            new,
            format!("give the agent of {name} a token that only reads the contents"),
        ));
    }
    if step.event.starts_with("issue_comment") && workflow && step.why.starts_with("starts") {
        let condition = "contains(fromJSON('[\"OWNER\",\"MEMBER\",\"COLLABORATOR\"]'), github.event.comment.author_association)";
        return guard_jobs(repository, &step.file, &lines, condition)
            .map(|new| (new, format!("let only people with rights command {name}")));
    }
    if (step.event.starts_with("issues")
        || step.event.starts_with("pull_request opened")
        || step.event.starts_with("discussion"))
        && workflow
        && step.actor == "any account"
    {
        let object = if step.event.starts_with("issues") {
            "issue"
        } else if step.event.starts_with("discussion") {
            "discussion"
        } else {
            "pull_request"
        };
        let condition = format!(
            "contains(fromJSON('[\"OWNER\",\"MEMBER\",\"COLLABORATOR\"]'), github.event.{object}.author_association)"
        );
        return guard_jobs(repository, &step.file, &lines, &condition)
            .map(|new| (new, format!("let only people with rights start {name}")));
    }
    None
}

/// Mergify labels a pull request where it merged it or put it into its queue.
fn label_only(lines: &[&str], line: usize) -> Option<String> {
    let merges = |text: &str| {
        let text = text.trim_start();
        text.starts_with("merge:") || text.starts_with("queue:")
    };
    let at = line.checked_sub(1)?;
    let at = at + lines.get(at..)?.iter().position(|text| merges(text))?;
    let depth = indent(lines.get(at)?);
    let nested = |text: &&&str| !text.trim().is_empty() && indent(text) > depth;
    let end = at + 1 + lines.get(at + 1..)?.iter().take_while(nested).count();
    let mut out: Vec<String> = owned(lines.get(..at)?);
    out.push(format!(
        "{}label: {{add: [ready to merge]}}",
        " ".repeat(depth)
    ));
    out.extend(owned(lines.get(end..)?));
    Some(finish(&out))
}

/// The name of the CircleCI job that a line belongs to.
fn job_above<'a>(lines: &[&'a str], line: usize) -> Option<&'a str> {
    let above = lines.get(..line)?;
    let text = above.iter().rev().find(|text| indent(text) == 2)?;
    text.trim().strip_suffix(':')
}

/// Puts a job that waits for a person's approval before `job` in every CircleCI workflow.
fn hold(lines: &[&str], job: &str) -> Option<String> {
    let start = lines.iter().position(|text| *text == "workflows:")?;
    let held = |depth: usize, out: &mut Vec<String>| {
        let space = " ".repeat(depth);
        out.push(format!("{space}- hold: {{type: approval}}"));
        out.push(format!("{space}- {job}: {{requires: [hold]}}"));
    };
    let mut out = owned(lines.get(..start)?);
    let mut found = false;
    for text in lines.get(start..)? {
        let (depth, trimmed) = (indent(text), text.trim());
        let listed = trimmed
            .strip_prefix("jobs: [")
            .and_then(|rest| rest.strip_suffix(']'))
            .map(|list| list.split(',').map(str::trim).collect::<Vec<_>>())
            .filter(|list| list.contains(&job));
        if let Some(list) = listed {
            out.push(format!("{}jobs:", " ".repeat(depth)));
            for other in list.iter().filter(|other| **other != job) {
                out.push(format!("{}- {other}", " ".repeat(depth + 2)));
            }
            held(depth + 2, &mut out);
            found = true;
        } else if trimmed == format!("- {job}") {
            held(depth, &mut out);
            found = true;
        } else {
            out.push((*text).to_owned());
        }
    }
    found.then(|| finish(&out))
}

fn owned(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn finish(lines: &[String]) -> String {
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

/// Takes a trigger out and makes sure that the workflow can be started by hand.
fn by_hand(lines: &[&str], line: usize, trigger: &str) -> Option<String> {
    let at = line.checked_sub(1)?;
    let own = *lines.get(at)?;
    if !own
        .trim_start()
        .trim_start_matches(['\'', '"'])
        .starts_with(trigger)
    {
        return None;
    }
    let depth = indent(own);
    let end = lines
        .iter()
        .enumerate()
        .skip(at + 1)
        .find(|(_, next)| {
            !next.trim().is_empty()
                && indent(next) <= depth
                && !(next.trim_start().starts_with('-') && indent(next) == depth)
        })
        .map_or(lines.len(), |(index, _)| index);
    let has_dispatch = lines
        .iter()
        .any(|other| other.trim_start().starts_with("workflow_dispatch"));
    let mut out: Vec<String> = lines
        .iter()
        .take(at)
        .map(|line| (*line).to_owned())
        .collect();
    if !has_dispatch {
        out.push(format!("{}workflow_dispatch:", " ".repeat(depth)));
    }
    out.extend(lines.iter().skip(end).map(|line| (*line).to_owned()));
    Some(finish(&out))
}

/// Puts `if: false` on the step that a line belongs to.
fn disable_step(lines: &[&str], line: usize) -> Option<String> {
    let at = line.checked_sub(1)?;
    let mut start = at.min(lines.len().checked_sub(1)?);
    loop {
        let text = *lines.get(start)?;
        let trimmed = text.trim_start();
        if trimmed.starts_with("- ")
            && [
                "name:", "uses:", "run:", "id:", "if:", "env:", "with:", "shell:",
            ]
            .iter()
            .any(|key| {
                trimmed
                    .get(2..)
                    .unwrap_or_default()
                    .trim_start()
                    .starts_with(key)
            })
        {
            break;
        }
        start = start.checked_sub(1)?;
    }
    let first = *lines.get(start)?;
    let inner = indent(first) + 2;
    let end = lines
        .iter()
        .enumerate()
        .skip(start + 1)
        .find(|(_, next)| !next.trim().is_empty() && indent(next) < inner)
        .map_or(lines.len(), |(index, _)| index);
    let mut out: Vec<String> = Vec::new();
    for (index, text) in lines.iter().enumerate() {
        let within = index > start && index < end;
        let condition = text.trim_start().starts_with("if:") && indent(text) == inner;
        if within && condition {
            continue;
        }
        if index != start {
            out.push((*text).to_owned());
            continue;
        }
        // Before the step's first key: what that key holds may be a block of many lines.
        out.push(format!(
            "{}- if: false # a person merges",
            " ".repeat(inner - 2)
        ));
        let key = text.trim_start().trim_start_matches('-').trim_start();
        if !key.starts_with("if:") {
            out.push(format!("{}{key}", " ".repeat(inner)));
        }
    }
    Some(finish(&out))
}

/// `contents: write` becomes `contents: read`, unless a job without an agent needs it.
fn read_only(repository: &Repository, file: &str, lines: &[&str]) -> Option<String> {
    let workflow = repository
        .subject
        .workflows
        .iter()
        .find(|workflow| workflow.file == file)?;
    let others_push = workflow.jobs.iter().any(|job| {
        job.steps.iter().all(|step| step.agents.is_empty())
            && job
                .steps
                .iter()
                .any(|step| step.acts.iter().any(|act| matches!(act.op, Op::Push(_))))
    });
    if others_push || !lines.iter().any(|line| line.trim() == "contents: write") {
        return None;
    }
    let out: Vec<String> = lines
        .iter()
        .map(|line| {
            if line.trim() == "contents: write" {
                line.replace("contents: write", "contents: read")
            } else {
                (*line).to_owned()
            }
        })
        .collect();
    Some(finish(&out))
}

/// Puts a condition on every job of a file that has none, and adds it to those that have.
fn guard_jobs(
    repository: &Repository,
    file: &str,
    lines: &[&str],
    condition: &str,
) -> Option<String> {
    let workflow = repository
        .subject
        .workflows
        .iter()
        .find(|workflow| workflow.file == file)?;
    let mut out: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    for job in workflow.jobs.iter().rev() {
        match &job.condition {
            None => {
                let at = job.line;
                let depth = indent(lines.get(at)?);
                out.insert(at, format!("{}if: {condition}", " ".repeat(depth)));
            }
            Some(known) => {
                let at = known.line.checked_sub(1)?;
                let text = lines.get(at)?;
                let value = text.trim_start().strip_prefix("if:")?.trim();
                if matches!(value, "|" | ">" | ">-" | "|-" | "") {
                    return None;
                }
                let plain = value
                    .trim_start_matches("${{")
                    .trim_end_matches("}}")
                    .trim();
                *out.get_mut(at)? =
                    format!("{}if: ({plain}) && {condition}", " ".repeat(indent(text)));
            }
        }
    }
    Some(finish(&out))
}

/// A unified diff of two texts as one hunk.
fn diff(file: &str, before: &str, after: &str) -> String {
    /// Lines of context.
    const CONTEXT: usize = 3;
    let old: Vec<&str> = before.lines().collect();
    let new: Vec<&str> = after.lines().collect();
    let same_start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let longest = old.len().min(new.len()) - same_start;
    let same_end = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take(longest)
        .take_while(|(a, b)| a == b)
        .count();
    let from = same_start.saturating_sub(CONTEXT);
    let old_to = (old.len() - same_end + CONTEXT).min(old.len());
    let new_to = (new.len() - same_end + CONTEXT).min(new.len());
    let mut out = format!(
        "--- a/{file}\n+++ b/{file}\n@@ -{},{} +{},{} @@\n",
        from + 1,
        old_to - from,
        from + 1,
        new_to - from
    );
    let mut push = |mark: char, lines: &[&str]| {
        for line in lines {
            out.push(mark);
            out.push_str(line);
            out.push('\n');
        }
    };
    push(' ', old.get(from..same_start).unwrap_or_default());
    push(
        '-',
        old.get(same_start..old.len() - same_end)
            .unwrap_or_default(),
    );
    push(
        '+',
        new.get(same_start..new.len() - same_end)
            .unwrap_or_default(),
    );
    push(
        ' ',
        old.get(old.len() - same_end..old_to).unwrap_or_default(),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_applies_by_its_numbers() {
        let before = "a\nb\nc\nd\ne\nf\ng\n";
        let after = "a\nb\nc\nD\ne\nf\ng\n";
        assert_eq!(
            diff("x", before, after),
            "--- a/x\n+++ b/x\n@@ -1,7 +1,7 @@\n a\n b\n c\n-d\n+D\n e\n f\n g\n"
        );
    }

    #[test]
    fn a_step_that_begins_with_a_script_is_switched_off_before_it() {
        let lines = [
            "steps:",
            "  - run: |",
            "      git push",
            "      gh pr merge",
            "    env: {}",
        ];
        let out = disable_step(&lines, 4).unwrap();
        assert_eq!(
            out,
            "steps:\n  - if: false # a person merges\n    run: |\n      git push\n      gh pr merge\n    env: {}\n"
        );
        assert!(still_reads("x.yml", &out));
        assert!(!still_reads("x.yml", "steps:\n  - run: [\n"));
    }

    #[test]
    fn a_step_is_switched_off_whole() {
        let lines = [
            "steps:",
            "  - uses: x",
            "  - name: merge",
            "    if: github.actor == 'x'",
            "    run: gh pr merge",
            "  - run: y",
        ];
        let out = disable_step(&lines, 5).unwrap();
        assert_eq!(
            out,
            "steps:\n  - uses: x\n  - if: false # a person merges\n    name: merge\n    run: gh pr merge\n  - run: y\n"
        );
    }
}
