//! What earlier steps and jobs left behind.

use std::cell::Cell;

use super::{Names, text};
use crate::acts::outputs::Write;
use crate::expr::{self, Truth, Value};
use crate::workflow::{Job, Step};

impl Names<'_> {
    pub(super) fn step_output(&self, job: Option<&Job>, rest: &str) -> Value {
        let (id, field) = rest.split_once('.').unwrap_or((rest, ""));
        let step = job.and_then(|job| {
            job.steps.iter().find(|step| {
                step.id
                    .as_deref()
                    .is_some_and(|known| known.eq_ignore_ascii_case(id))
            })
        });
        // A step that is skipped leaves no outputs.
        if let Some(expr) = step
            .and_then(|step| step.condition.as_ref())
            .and_then(|condition| condition.expr.as_ref())
            && expr::truth(expr, self) == Truth::No
        {
            return Value::Null;
        }
        if let Some(step) = step
            && let Some(name) = field.strip_prefix("outputs.")
            && let Some(value) = self.written(job, step, name)
        {
            return value;
        }
        if let Some(step) = step
            && releases_by_pull_request(step)
            && (field.contains("release") || field.contains("published") || field.contains("tag"))
        {
            return if self.run.event.releases {
                Value::Open
            } else {
                Value::Null
            };
        }
        Value::Open
    }

    /// What a step's script leaves under a name, where that is one text for sure.
    fn written(&self, job: Option<&Job>, step: &Step, name: &str) -> Option<Value> {
        let mut env = vec![&self.run.workflow.env];
        env.extend(job.map(|job| &job.env));
        env.push(&step.env);
        let names = Names {
            run: self.run,
            job,
            env,
            inputs: self.inputs,
            depth: Cell::new(self.depth.get()),
        };
        let of_name = |write: &&Write| write.name.eq_ignore_ascii_case(name);
        step.writes.iter().find(of_name)?;
        // Where nothing is written for sure, it may stay empty, which asks the same as a no.
        let no = |value: &str| matches!(value, "" | "false" | "0" | "no");
        let mut possible = vec![String::new()];
        let mut fact = None;
        for write in step.writes.iter().filter(of_name) {
            let holds = write.only_if.iter().fold(Truth::Yes, |holds, template| {
                let asked = expr::compound(template, &names)
                    .unwrap_or_else(|| expr::truth_of(&expr::template(template, &names)));
                expr::both(holds, asked)
            });
            if holds == Truth::No {
                continue;
            }
            let value = match expr::template(write.value.as_deref()?, &names) {
                Value::Text(text) => text,
                Value::Bool(yes) => yes.to_string(),
                Value::Null => String::new(),
                _ => return None,
            };
            if write.sure {
                possible.clear();
                fact = None;
            }
            match holds {
                Truth::Depends(on) if !no(&value) => fact = Some(on),
                _ if possible.contains(&value) => {}
                _ => possible.push(value),
            }
        }
        let (first, rest) = possible.split_first()?;
        let only = match rest {
            [] => first,
            [only] if no(first) && no(only) => only,
            _ => return None,
        };
        match fact {
            Some(fact) => no(only).then_some(Value::Fact(fact)),
            None => Some(text(only)),
        }
    }

    pub(super) fn need(&self, rest: &str) -> Value {
        let mut parts = rest.splitn(3, '.');
        let (Some(id), Some(field)) = (parts.next(), parts.next()) else {
            return Value::Open;
        };
        let Some(name) = parts.next() else {
            return Value::Open;
        };
        if field != "outputs" {
            return Value::Open;
        }
        let Some(job) = self
            .run
            .workflow
            .jobs
            .iter()
            .find(|job| job.id.eq_ignore_ascii_case(id))
        else {
            return Value::Open;
        };
        let Some((_, template)) = job
            .outputs
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
        else {
            return Value::Open;
        };
        let names = Names {
            run: self.run,
            job: Some(job),
            env: vec![&self.run.workflow.env, &job.env],
            inputs: None,
            depth: Cell::new(self.depth.get()),
        };
        if let Some(expr) = job
            .condition
            .as_ref()
            .and_then(|condition| condition.expr.as_ref())
            && expr::truth(expr, &names) == Truth::No
        {
            return Value::Null;
        }
        expr::template(template, &names)
    }
}

/// Whether a step's release outputs need a merged release pull request.
fn releases_by_pull_request(step: &Step) -> bool {
    step.uses.as_deref().is_some_and(|uses| {
        let lower = uses.to_lowercase();
        lower.contains("release-please")
            || lower.starts_with("changesets/action")
            || lower.contains("release-plz")
    })
}
