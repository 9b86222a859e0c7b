//! What earlier steps and jobs let later ones do.

use super::Job;
use crate::acts::{Act, Check, Op, Token, reviewed, told};

/// Steps and jobs that ask for an output which says that a review approved wait for that review;
/// those that ask for one which says that the account has rights let others in by nothing.
pub(super) fn by_outputs(jobs: &mut [Job], file: &str) {
    said_by(jobs, file, reviewed::outputs, reviewed::check);
    said_by(jobs, file, permitted, permission);
}

/// Words of outputs that say whether an account may do something.
const MAY: &[&str] = &[
    "allow", "auth", "perm", "access", "trusted", "member", "admin", "maintain", "write", "can",
    "ok", "proceed", "should", "is", "has", "valid",
];

/// Outputs by which a script that looks up the account's rights says what it found.
fn permitted(text: &str) -> Vec<String> {
    let looks = [
        "getCollaboratorPermissionLevel",
        "/permission",
        "get_collaborator_permission",
    ]
    .iter()
    .any(|mark| text.contains(mark));
    if !looks {
        return Vec::new();
    }
    let by_call = text.split("setOutput(").skip(1).filter_map(|rest| {
        let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        rest.get(1..)?.split(quote).next().map(str::to_owned)
    });
    let by_line = text
        .lines()
        .filter(|line| line.contains("GITHUB_OUTPUT"))
        .filter_map(|line| {
            let (before, _) = line.split_once('=')?;
            let name = before.rsplit([' ', '"', '\'']).next()?;
            Some(name.to_owned())
        });
    by_call
        .chain(by_line)
        .filter(|name| {
            crate::acts::words::words(name).iter().any(|part| {
                MAY.iter()
                    .any(|word| part == word || word.len() > 3 && part.starts_with(word))
            })
        })
        .collect()
}

fn permission(file: &str, line: usize) -> Act {
    let why = "the step waits for an output that says whether the account has rights";
    let mut act = Act::new(Op::Check(Check::Actor(why)), why, Token::Outside);
    act.line = line;
    file.clone_into(&mut act.file);
    act
}

/// Steps and jobs that ask for outputs which scripts set by what they looked up.
fn said_by(
    jobs: &mut [Job],
    file: &str,
    outputs: fn(&str) -> Vec<String>,
    check: fn(&str, usize) -> Act,
) {
    let mut of_jobs: Vec<String> = Vec::new();
    for job in jobs.iter_mut() {
        let mut names: Vec<String> = Vec::new();
        for step in &mut job.steps {
            let asks = step
                .condition
                .as_ref()
                .filter(|condition| names.iter().any(|name| requires(&condition.text, name)));
            if let Some(condition) = asks {
                step.acts.insert(0, check(file, condition.line));
            }
            let Some(id) = &step.id else { continue };
            let text = step.run.as_ref().map(|(text, _)| text).or_else(|| {
                step.with
                    .iter()
                    .find(|(name, _)| name == "script")
                    .map(|(_, text)| text)
            });
            let Some(text) = text else { continue };
            names.extend(
                outputs(text)
                    .into_iter()
                    .map(|name| format!("steps.{id}.outputs.{name}")),
            );
        }
        for (output, value) in &job.outputs {
            if names.iter().any(|name| value.contains(name.as_str())) {
                of_jobs.push(format!("needs.{}.outputs.{output}", job.id));
            }
        }
    }
    if of_jobs.is_empty() {
        return;
    }
    for job in jobs {
        let asks = job
            .condition
            .as_ref()
            .filter(|condition| of_jobs.iter().any(|name| requires(&condition.text, name)));
        if let Some(condition) = asks
            && let Some(first) = job.steps.first_mut()
        {
            first.acts.insert(0, check(file, condition.line));
        }
    }
}

/// Steps and jobs that ask for an output which is never written so do nothing.
pub(super) fn by_names(jobs: &mut [Job]) {
    let mut of_jobs: Vec<(String, String)> = Vec::new();
    for job in jobs.iter_mut() {
        let mut never: Vec<(String, String)> = Vec::new();
        for step in &mut job.steps {
            let asks = step
                .condition
                .as_ref()
                .is_some_and(|condition| wants(&condition.text, &never));
            if asks {
                for act in &mut step.acts {
                    act.only_if.push(told::NEVER.to_owned());
                }
            }
            if let (Some(id), Some((text, _))) = (&step.id, &step.run) {
                never.extend(
                    told::never_written(text)
                        .into_iter()
                        .map(|(name, value)| (format!("steps.{id}.outputs.{name}"), value)),
                );
            }
        }
        for (output, text) in &job.outputs {
            for (name, value) in &never {
                if text.contains(name.as_str()) {
                    of_jobs.push((format!("needs.{}.outputs.{output}", job.id), value.clone()));
                }
            }
        }
    }
    for job in jobs {
        let asks = job
            .condition
            .as_ref()
            .is_some_and(|condition| wants(&condition.text, &of_jobs));
        if asks {
            for act in job.steps.iter_mut().flat_map(|step| &mut step.acts) {
                act.only_if.push(told::NEVER.to_owned());
            }
        }
    }
}

/// Whether a condition needs an output to be what it never is.
fn wants(condition: &str, never: &[(String, String)]) -> bool {
    !condition.contains("||")
        && never.iter().any(|(name, value)| {
            condition.contains(&format!("{name} == '{value}'"))
                && !condition.contains(&format!("!({name}"))
        })
}

/// Whether a condition holds only where an output says yes.
fn requires(condition: &str, name: &str) -> bool {
    let Some(at) = condition.find(name) else {
        return false;
    };
    let before = condition.get(..at).unwrap_or_default().trim_end();
    let after = condition
        .get(at + name.len()..)
        .unwrap_or_default()
        .trim_start();
    let other = after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let denied = before.ends_with('!')
        || after.starts_with("!= 'true'")
        || after.starts_with("== 'false'")
        || after.starts_with("== '0'")
        || after.starts_with("== 0")
        || after.starts_with("== ''");
    !other && !denied && !condition.contains("||")
}
