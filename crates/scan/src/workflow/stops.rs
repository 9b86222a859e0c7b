//! Steps that fail unless the event is one that they let in: what stands behind them in the job, and
//! in the jobs that need it, happens only then.

use super::{Condition, Job, Step};
use crate::acts::guards;
use crate::expr;

/// Most conditions that are carried on in one job.
const CARRIED_MAX: usize = 8;
/// Longest condition that is made, in bytes.
const BYTES_MAX: usize = 4_000;

/// Gives later steps and jobs the conditions under which earlier steps do not fail. `forgiven` says
/// which steps of a job may fail.
pub(super) fn judge(jobs: &mut [Job], forgiven: impl Fn(&str, usize) -> bool) {
    let mut failing: Vec<(String, Vec<String>)> = Vec::new();
    for job in jobs.iter_mut() {
        // What a job that is needed fails at, this one does not come to.
        let before: Vec<String> = failing
            .iter()
            .filter(|(id, _)| job.needs.contains(id))
            .flat_map(|(_, carried)| carried.clone())
            // Names that mean something else in another job.
            .filter(|condition| {
                !["env.", "steps.", "matrix."]
                    .iter()
                    .any(|own| condition.contains(own))
            })
            .take(CARRIED_MAX)
            .collect();
        let mut carried: Vec<String> = Vec::new();
        if !before.is_empty() && !runs_anyway(job.condition.as_ref()) {
            narrow(&mut job.condition, &before, job.line);
            carried = before;
        }
        for (index, step) in job.steps.iter_mut().enumerate() {
            let own = of_step(step);
            if !carried.is_empty() && !runs_anyway(step.condition.as_ref()) {
                narrow(&mut step.condition, &carried, step.line);
            }
            if !forgiven(&job.id, index) && carried.len() < CARRIED_MAX {
                carried.extend(own);
            }
        }
        failing.push((job.id.clone(), carried));
    }
}

/// Whether something is done although what stands before it failed.
fn runs_anyway(condition: Option<&Condition>) -> bool {
    condition.is_some_and(|condition| {
        let text = condition.text.to_ascii_lowercase();
        ["always(", "failure(", "cancelled("]
            .iter()
            .any(|word| text.contains(word))
    })
}

fn narrow(condition: &mut Option<Condition>, carried: &[String], line: usize) {
    let own = condition.as_ref().map(|own| (bare(&own.text), own.line));
    let mut parts: Vec<String> = carried.iter().map(|part| format!("({part})")).collect();
    if let Some((own, _)) = &own {
        parts.push(format!("({own})"));
    }
    let text = parts.join(" && ");
    let expr = expr::parse_condition(&text);
    if text.len() > BYTES_MAX || expr.is_none() {
        return;
    }
    *condition = Some(Condition {
        text,
        line: own.map_or(line, |(_, line)| line),
        expr,
    });
}

/// What holds behind a step that did not fail.
fn of_step(step: &Step) -> Vec<String> {
    let found = match &step.run {
        Some((text, _)) => guards::past(text),
        None => {
            let script = step
                .uses
                .as_deref()
                .filter(|uses| uses.starts_with("actions/github-script@"))
                .and_then(|_| step.with.iter().find(|(name, _)| name == "script"));
            script.map_or_else(Vec::new, |(_, text)| guards::past_program(text))
        }
    };
    let skipped = step.condition.as_ref().map(|own| bare(&own.text));
    found
        .into_iter()
        .map(|condition| with_values(&bare(&condition), &step.env))
        .map(|condition| match &skipped {
            // A step that is left out stops nothing.
            Some(own) => format!("!({own}) || ({condition})"),
            None => condition,
        })
        .filter(|condition| {
            condition.len() < BYTES_MAX && expr::parse_condition(condition).is_some()
        })
        .take(CARRIED_MAX)
        .collect()
}

/// A condition without the marks of a template.
fn bare(text: &str) -> String {
    let text = text.trim();
    text.strip_prefix("${{")
        .and_then(|rest| rest.strip_suffix("}}"))
        .filter(|inner| !inner.contains("${{"))
        .unwrap_or(text)
        .trim()
        .to_owned()
}

/// A condition with the step's own variables put in, which later steps do not have.
fn with_values(condition: &str, env: &[(String, String)]) -> String {
    let mut out = String::new();
    let mut rest = condition;
    while let Some((before, after)) = rest.split_once("env.") {
        let end = after
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(after.len());
        let (name, tail) = after.split_at(end);
        out.push_str(before);
        match env.iter().find(|(known, _)| known == name) {
            Some((_, value)) if value.trim_start().starts_with("${{") => {
                out.push('(');
                out.push_str(&bare(value));
                out.push(')');
            }
            Some((_, value)) if !value.contains(['\'', '$', '\n']) => {
                out.push('\'');
                out.push_str(value);
                out.push('\'');
            }
            _ => {
                out.push_str("env.");
                out.push_str(name);
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}
