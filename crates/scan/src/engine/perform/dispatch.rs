//! Starting other workflows: of this repository, and of others of the scan.

use super::super::rights::permitted;
use super::super::run::Run;
use super::super::scope::Names;
use super::super::{Credential, Engine, Event, Gate, PathStep, Way};
use crate::acts::Act;
use crate::expr::{self, Value};
use crate::workflow::{Job, System};

/// Which repository of this scan a name means; this one without a name.
pub(super) fn other_repository(
    engine: &Engine<'_>,
    run: &Run<'_>,
    name: Option<&str>,
) -> Option<usize> {
    let Some(name) = name else {
        return Some(run.repository);
    };
    engine.subjects.iter().position(|subject| {
        subject.slug.as_deref().is_some_and(|slug| {
            slug.eq_ignore_ascii_case(name)
                || slug.strip_prefix("?/").is_some_and(|known| {
                    name.rsplit('/')
                        .next()
                        .is_some_and(|last| last.eq_ignore_ascii_case(known))
                })
        })
    })
}

#[expect(
    clippy::too_many_arguments,
    reason = "one act of one step; grouping would only hide the parts"
)]
pub(super) fn dispatch(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    job: &Job,
    act: &Act,
    names: &Names<'_>,
    way: &Way,
    credential: &Credential,
    workflow: Option<&str>,
    repository: Option<&str>,
) {
    if !permitted(engine, run, job, credential, &["actions"]) {
        return;
    }
    let Some(target) = other_repository(engine, run, repository) else {
        return;
    };
    let wanted = workflow.map(|name| match expr::template(name, names) {
        Value::Text(text) => text,
        _ => String::new(),
    });
    let step = PathStep {
        file: act.file.clone(),
        line: act.line,
        actor: credential.actor().words(),
        credential: credential.words(),
        event: "workflow_dispatch".to_owned(),
        why: act.what.clone(),
    };
    let way = engine.step(way, step, &Gate::Clear);
    let Some(subject) = engine.subject(target) else {
        return;
    };
    for (index, candidate) in subject.workflows.iter().enumerate() {
        let hit = wanted.as_deref().is_none_or(|name| {
            let file = candidate.file.rsplit('/').next().unwrap_or_default();
            name == file || name == candidate.name || name == candidate.file
        });
        // A name that can't be read is no reason to start everything.
        let named = wanted.is_some() || workflow.is_none() && candidate.system != System::GitHub;
        if hit
            && named
            && candidate
                .triggers
                .iter()
                .any(|trigger| trigger.event == "workflow_dispatch")
        {
            let event = Event {
                workflow: Some(index),
                ..Event::new(target, "workflow_dispatch", "", credential.actor())
            };
            engine.happens(event, way.clone());
        }
    }
}
