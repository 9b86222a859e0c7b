//! What a push of commits or of a tag reaches.

use super::rights::permitted;
use super::run::{Restriction, Run};
use super::scope::Names;
use super::{Credential, Engine, Event, Gate, PathStep, Reference, Way, merge};
use crate::acts::{Act, SinkKind, Target};
use crate::workflow::Job;

#[expect(
    clippy::too_many_arguments,
    reason = "one act of one step; grouping would only hide the parts"
)]
pub(super) fn push(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    job: &Job,
    act: &Act,
    names: &Names<'_>,
    way: &Way,
    credential: &Credential,
    target: &Target,
) -> Gate {
    if let Target::Elsewhere(place) = target {
        elsewhere(engine, run, act, way, credential, place);
        return Gate::Clear;
    }
    if !permitted(engine, run, job, credential, &["contents"]) {
        return Gate::Clear;
    }
    let Some(reference) = names.destination(target) else {
        return Gate::Clear;
    };
    if let Reference::Tag(name) = reference {
        tag(engine, run, job, act, way, credential, name);
        return Gate::Clear;
    }
    let gate = merge::push(
        engine,
        run.repository,
        &reference,
        credential,
        (&act.file, act.line),
        &act.what,
        way,
        merge::Push {
            by_agent: false,
            silent: act.silent,
        },
    );
    if *target == Target::CurrentAndTags {
        tag(engine, run, job, act, way, credential, None);
    }
    gate
}

/// Pushes to a repository of deployments or packages ship something; others do not.
fn elsewhere(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    act: &Act,
    way: &Way,
    credential: &Credential,
    place: &str,
) {
    if run.restricted != Restriction::Full || *credential == Credential::Default {
        return;
    }
    let lower = place.to_lowercase();
    let kind = if [
        "gitops",
        "deploy",
        "manifests",
        "argocd",
        "k8s",
        "kubernetes",
        "infra",
        "helm-values",
        ".github.io",
        "flux",
    ]
    .iter()
    .any(|mark| lower.contains(mark))
    {
        SinkKind::Deploy
    } else if [
        "homebrew", "scoop", "-tap", "aur", "winget", "charts", "registry",
    ]
    .iter()
    .any(|mark| lower.contains(mark))
    {
        SinkKind::Publish
    } else {
        return;
    };
    let step = PathStep {
        file: act.file.clone(),
        line: act.line,
        actor: credential.actor().words(),
        credential: credential.words(),
        event: format!("push to {place}"),
        why: act.what.clone(),
    };
    let way = engine.step(way, step, &Gate::Clear);
    engine.reach(
        run.repository,
        kind,
        &format!("push to {place}"),
        (&act.file, act.line),
        &way,
    );
}

pub(super) fn tag(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    job: &Job,
    act: &Act,
    way: &Way,
    credential: &Credential,
    name: Option<String>,
) {
    if !permitted(engine, run, job, credential, &["contents"]) {
        return;
    }
    let gate = merge::tag_gate(engine, run.repository);
    let step = PathStep {
        file: act.file.clone(),
        line: act.line,
        actor: credential.actor().words(),
        credential: credential.words(),
        event: "push of a tag".to_owned(),
        why: act.what.clone(),
    };
    let way = engine.step(way, step, &gate);
    engine.reach(
        run.repository,
        SinkKind::Release,
        &format!("tag ({})", act.what),
        (&act.file, act.line),
        &way,
    );
    let fires = credential.fires();
    if fires || engine.has_other_systems(run.repository) {
        let event = Event {
            quiet: !fires,
            reference: Reference::Tag(name),
            releases: true,
            ..Event::new(run.repository, "push", "", credential.actor())
        };
        engine.happens(event, way);
    }
}
