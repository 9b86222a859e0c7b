//! What earlier steps and jobs let later ones do.

use super::Job;
use crate::acts::{reviewed, told};

/// Steps and jobs that ask for an output which says that a review approved wait for that review.
pub(super) fn by_outputs(jobs: &mut [Job], file: &str) {
    let mut of_jobs: Vec<String> = Vec::new();
    for job in jobs.iter_mut() {
        let mut names: Vec<String> = Vec::new();
        for step in &mut job.steps {
            let asks = step
                .condition
                .as_ref()
                .filter(|condition| names.iter().any(|name| requires(&condition.text, name)));
            if let Some(condition) = asks {
                step.acts.insert(0, reviewed::check(file, condition.line));
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
                reviewed::outputs(text)
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
            first.acts.insert(0, reviewed::check(file, condition.line));
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
