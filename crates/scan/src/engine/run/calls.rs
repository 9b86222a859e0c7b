//! Workflows that a job calls: those of the scan are run, of others only the name tells something.

use super::super::agent::agent_step;
use super::super::scope::Names;
use super::super::{Credential, Engine, Gate, PathStep, Way};
use super::{Inputs, JobRun, Restriction, Run, Secrets, jobs};
use crate::acts::catalog::With;
use crate::acts::words::{self, Claim};
use crate::acts::{SinkKind, inputs, is_rehearsal};
use crate::agents;
use crate::expr::{self, Value};
use crate::workflow::{Call, Job};

/// Deepest chain of workflows that call workflows; GitHub allows ten.
const CALLS_MAX: u8 = 10;

/// Most calls of workflows in one run, those of called workflows included: files that call each
/// other would otherwise multiply.
const CALLED_MAX: usize = 1_000;

pub(super) fn called(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    job: &Job,
    call: &Call,
    names: &Names<'_>,
    way: &Way,
) -> Option<Way> {
    engine.called += 1;
    if run.calls >= CALLS_MAX || engine.called > CALLED_MAX {
        return Some(way.clone());
    }
    let plain = call.uses.split('@').next().unwrap_or_default();
    let found = if let Some(path) = plain.strip_prefix("./") {
        run.subject
            .workflows
            .iter()
            .position(|workflow| workflow.file == path)
            .map(|index| (run.repository, index))
    } else {
        let mut parts = plain.splitn(3, '/');
        let slug = format!(
            "{}/{}",
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default()
        );
        let path = parts.next().unwrap_or_default();
        engine
            .subjects
            .iter()
            .enumerate()
            .find_map(|(index, subject)| {
                let known = subject.slug.as_deref()?;
                let same = known.eq_ignore_ascii_case(&slug)
                    || known.strip_prefix("?/").is_some_and(|name| {
                        slug.rsplit('/')
                            .next()
                            .is_some_and(|last| last.eq_ignore_ascii_case(name))
                    });
                if !same {
                    return None;
                }
                let at = subject
                    .workflows
                    .iter()
                    .position(|workflow| workflow.file == path)?;
                Some((index, at))
            })
    };
    let Some((repository, index)) = found else {
        unknown_call(engine, run, job, call, names, way);
        return Some(way.clone());
    };
    let workflow = engine.subject(repository)?.workflows.get(index)?;
    let trigger = workflow
        .triggers
        .iter()
        .find(|trigger| trigger.event == "workflow_call");
    let mut inputs: Inputs = trigger
        .map(|trigger| {
            trigger
                .inputs
                .iter()
                .map(|input| {
                    let text = input.default.clone().unwrap_or_default();
                    (
                        input.name.clone(),
                        input.typed(Value::Text(text)),
                        Credential::None,
                    )
                })
                .collect()
        })
        .unwrap_or_default();
    for (name, template) in &call.with {
        let value = expr::template(template, names);
        let value = trigger
            .and_then(|trigger| {
                trigger
                    .inputs
                    .iter()
                    .find(|input| input.name.eq_ignore_ascii_case(name))
            })
            .map_or(value.clone(), |input| input.typed(value));
        inputs.retain(|(known, _, _)| !known.eq_ignore_ascii_case(name));
        inputs.push((name.to_lowercase(), value, names.credential_of(template, 0)));
    }
    let secrets = match (&call.secrets, &run.secrets) {
        (None, inherited) => inherited.clone(),
        (Some(_), Secrets::None) => Secrets::None,
        (Some(list), _) => Secrets::Passed(
            list.iter()
                .map(|(name, template)| (name.clone(), names.credential_of(template, 0)))
                .collect(),
        ),
    };
    let next = Run {
        subject: run.subject,
        repository: run.repository,
        workflow,
        event: run.event,
        event_name: run.event_name,
        secrets,
        inputs: Some(inputs),
        restricted: run.restricted,
        cap: job
            .permissions
            .clone()
            .or_else(|| run.workflow.permissions.clone())
            .or_else(|| run.cap.clone()),
        calls: run.calls + 1,
        lookups: run.lookups.clone(),
    };
    let step = PathStep {
        file: run.workflow.file.clone(),
        line: call.line,
        actor: run.event.actor.words(),
        credential: String::new(),
        event: "workflow_call".to_owned(),
        why: format!("the job {} calls {}", job.id, call.uses),
    };
    let way = engine.step(way, step, &Gate::Clear);
    jobs(engine, &next, &way).then_some(way)
}

/// A called workflow that this scan was not given: what its name says it does, if it does.
fn unknown_call(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    job: &Job,
    call: &Call,
    names: &Names<'_>,
    way: &Way,
) {
    if run.restricted != Restriction::Full {
        return;
    }
    if let Some(mut agent) = agents::by_action(&call.uses, &With(&call.with)) {
        agent.file.clone_from(&run.workflow.file);
        agent.line = call.line;
        // A called workflow gets its token as a secret.
        agent.token = call.secrets.iter().flatten().find_map(|(name, value)| {
            let lower = name.to_ascii_lowercase();
            (lower.contains("pat") || lower.contains("gh_token") || lower.contains("github_token"))
                .then(|| value.clone())
                .filter(|value| value.contains("secrets."))
        });
        let mut state = JobRun::begun(Credential::Default, true);
        agent_step(engine, run, job, &agent, names, way, &mut state);
        return;
    }
    let file = call
        .uses
        .split('@')
        .next()
        .unwrap_or_default()
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_lowercase();
    let stem = file.trim_end_matches(".yml").trim_end_matches(".yaml");
    if words::is_quiet(stem) || is_rehearsal(stem) || stem.contains("test") {
        return;
    }
    let writes = job
        .permissions
        .as_ref()
        .or(run.workflow.permissions.as_ref())
        .is_some_and(|permissions| permissions.writes("contents"));
    let claim = words::said(stem).map(|said| said.claim);
    if stem.contains("draft")
        || claim.is_some_and(|claim| inputs::leaves_nothing(claim, stem, &With(&call.with)))
    {
        return;
    }
    let kind = match claim {
        Some(Claim::Publish) => SinkKind::Publish,
        Some(Claim::Deploy | Claim::Pages) => SinkKind::Deploy,
        Some(Claim::Release | Claim::Tag) => SinkKind::Release,
        Some(Claim::Merge { .. }) => SinkKind::Merge,
        Some(Claim::Bump | Claim::Commit | Claim::Update) | None if writes => SinkKind::Merge,
        Some(
            Claim::Bump
            | Claim::Commit
            | Claim::Update
            | Claim::Approve
            | Claim::CreatePr
            | Claim::Dispatch
            | Claim::RepositoryDispatch,
        )
        | None => return,
    };
    let step = PathStep {
        file: run.workflow.file.clone(),
        line: call.line,
        actor: run.event.actor.words(),
        credential: String::new(),
        event: "workflow_call".to_owned(),
        why: format!("calls {}, which was not given to this scan", call.uses),
    };
    let gate = Gate::Fact(format!(
        "what {} does (give its repository with --with)",
        call.uses
    ));
    let way = engine.step(way, step, &gate);
    let name = format!("{} (called)", call.uses);
    engine.reach(
        run.repository,
        kind,
        &name,
        (&run.workflow.file, call.line),
        &way,
    );
}
