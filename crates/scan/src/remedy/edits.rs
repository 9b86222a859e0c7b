//! Edits of pipeline files, one per kind of step: each keeps the file's other lines as they are.

use crate::acts::Op;
use crate::report::PathStep;
use crate::repository::Repository;

pub(super) fn edit_for(
    repository: &Repository,
    step: &PathStep,
    text: &str,
) -> Option<(String, String)> {
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

pub(super) fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

pub(super) fn finish(lines: &[String]) -> String {
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

#[cfg(test)]
mod tests {
    use super::super::still_reads;
    use super::*;

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
