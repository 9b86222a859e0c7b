//! Labels: which a command sets, which bots set, and what a label on others' pull requests starts.

use super::super::run::Run;
use super::super::scope::Names;
use super::super::{Actor, Credential, Engine, Event, Gate, PullRequest, Way};
use crate::expr::{self, Value};
use crate::workflow::Job;

/// A label that a script sets on pull requests of its own choice: those that bots opened here.
pub(super) fn label_others(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    label: &str,
    credential: &Credential,
    way: &Way,
) {
    for bot in &run.subject.bots {
        let crate::bots::Duty::Opens {
            head,
            labels,
            base,
            files,
            ..
        } = &bot.duty
        else {
            continue;
        };
        let pull = PullRequest {
            author: Actor::Bot(bot.login.clone()),
            head: Some((*head).to_owned()),
            labels: labels.iter().cloned().chain([label.to_owned()]).collect(),
            fork: false,
            release: false,
            base: base.clone(),
            files: files.clone().map(Into::into),
        };
        let event = Event {
            label: Some(label.to_owned()),
            pull_request: Some(pull),
            ..Event::new(
                run.repository,
                "pull_request",
                "labeled",
                credential.actor(),
            )
        };
        engine.happens(event, way.clone());
    }
}

/// The label by which a job that this one needs selected pull requests.
pub(super) fn selected_before<'r>(run: &Run<'r>, job: &Job) -> Option<&'r str> {
    run.workflow
        .jobs
        .iter()
        .find(|before| job.needs.contains(&before.id) && before.selects.is_some())
        .and_then(|before| before.selects.as_deref())
}

/// The label that a command names, itself or by a variable of the environment
/// (`--label "$LABEL"`); `None` where the files don't tell.
pub(super) fn known_label(text: &str, names: &Names<'_>) -> Option<String> {
    let name = text.trim_start_matches('$').trim_matches(['{', '}']);
    let text = names
        .env
        .iter()
        .rev()
        .find_map(|layer| layer.iter().find(|(key, _)| key == name))
        .filter(|_| text.starts_with('$'))
        .map_or(text, |(_, value)| value);
    match expr::template(text, names) {
        Value::Text(label) if !label.contains('$') => Some(label),
        _ => None,
    }
}

pub(super) fn unknown_label(text: &str) -> Gate {
    Gate::Fact(format!("whether a person sets the label {text}"))
}

/// Whether a bot that opens pull requests here sets a label on them.
pub(super) fn set_by_bots(run: &Run<'_>, label: &str) -> bool {
    run.subject.bots.iter().any(|bot| {
        matches!(&bot.duty, crate::bots::Duty::Opens { labels, .. }
            if labels.iter().any(|known| known.eq_ignore_ascii_case(label)))
    })
}
