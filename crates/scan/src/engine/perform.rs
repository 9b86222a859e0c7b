//! What an act does in a run: whether it may, what it reaches, which events follow.

mod dispatch;
mod labels;
mod production;

use dispatch::{dispatch, other_repository};
use labels::{known_label, label_others, selected_before, set_by_bots, unknown_label};
use production::{branch_fact, holds_registry, on_release_branch};

use super::pushes::{push, tag};
use super::rights::{permitted, token_writes};
use super::run::{JobRun, Restriction, Run};
use super::scope::Names;
use super::{
    Actor, Assumption, Credential, Engine, Event, Gate, PathStep, PullRequest, Reference, Way,
    merge,
};
use crate::acts::{Act, Check, Op, SinkKind, Target, Token, is_rehearsal};
use crate::expr::{self, Truth, Value};
use crate::workflow::{Job, System};

#[expect(
    clippy::too_many_arguments,
    reason = "one act of one step; grouping would only hide the parts"
)]
pub(super) fn one_act(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    job: &Job,
    act: &Act,
    names: &Names<'_>,
    job_way: &mut Way,
    here: &Way,
    state: &mut JobRun,
) {
    if state.ended {
        return;
    }
    let mut way = here.clone();
    if let Some(gate) = state.stopped(state.condition.as_deref()) {
        way = way.gated(gate);
    }
    if let Some(fact) = &act.unsure {
        way = way.gated(&Gate::Fact(fact.clone()));
    }
    for template in &act.only_if {
        match asked(template, names) {
            Truth::No => return,
            Truth::Yes | Truth::Can => {}
            Truth::Depends(fact) => way = way.gated(&Gate::Fact(fact)),
        }
    }
    for template in &act.unless {
        match asked(template, names) {
            Truth::Yes => return,
            Truth::No | Truth::Can => {}
            Truth::Depends(fact) => way = way.gated(&Gate::Fact(fact)),
        }
    }
    if act.after_release_pr && !run.event.releases
        || act.release_branches && !on_release_branch(run)
    {
        return;
    }
    if act.benign.is_some() {
        return;
    }
    if let Op::Check(check) = &act.op {
        let gate = match check {
            Check::Person(text) => Gate::Human((*text).to_owned()),
            Check::Mergeable(text) => match engine.assumption {
                Assumption::Unprotected => Gate::Clear,
                Assumption::Protected => Gate::Human((*text).to_owned()),
                Assumption::Settings => {
                    Gate::Fact("whether the pull request may be merged without a review".to_owned())
                }
            },
            Check::Actor(text) if run.event.actor == Actor::Anyone => {
                Gate::Human((*text).to_owned())
            }
            Check::Actor(_) => Gate::Clear,
            Check::Rights(scopes) => {
                state.ended |= scopes
                    .iter()
                    .any(|scope| match token_writes(run, job, scope) {
                        Some(yes) => !yes,
                        // No default gives the run's identity away.
                        None => *scope == "id-token",
                    });
                Gate::Clear
            }
        };
        *job_way = job_way.gated(&gate);
        return;
    }
    // Pull requests that an earlier job selected by a label are landed because someone set it.
    if matches!(act.op, Op::Push(_) | Op::Merge { .. })
        && run.event.pull_request.is_none()
        && let Some(label) = selected_before(run, job)
    {
        match known_label(label, names) {
            Some(label) if set_by_bots(run, &label) => {}
            Some(label) => {
                way = way.gated(&Gate::Human(format!("a person sets the label {label}")));
            }
            None => way = way.gated(&unknown_label(label)),
        }
    }
    // Later steps carry on what an agent wrote: its work, so its way.
    let carries = matches!(act.op, Op::Merge { .. } | Op::CreatePr(_))
        || matches!(&act.op, Op::Push(target) if !matches!(target, Target::Tags(_)));
    if carries
        && let Some(agent) = &state.agent
        && agent.level < way.level
    {
        way = agent.clone();
    }
    if act.needs_checkout && !state.repository && !names.sets("GH_REPO") {
        state.ended |= act.must;
        return;
    }
    if act.needs_registry && !holds_registry(run, job, names) {
        return;
    }
    if act
        .needs_right
        .is_some_and(|scope| token_writes(run, job, scope) == Some(false))
    {
        return;
    }
    let credential = names.credential(&act.token, &state.git);
    // `secrets.A || github.token`: the second acts for sure, the first if it is there.
    let spare = match &act.token {
        Token::Git => state.spare.clone(),
        other => names.spare(other),
    };
    let mut costs = Gate::Clear;
    if let Some(fact) = spare
        && credential.fires()
    {
        costs = perform(
            engine,
            run,
            job,
            act,
            names,
            &way,
            &Credential::Default,
            state,
        );
        let first = way.gated(&Gate::Fact(fact));
        let _ = perform(engine, run, job, act, names, &first, &credential, state);
    } else {
        let cost = perform(engine, run, job, act, names, &way, &credential, state);
        if act.must {
            costs = cost;
        }
    }
    if act.must && costs != Gate::Clear {
        state.refused = Some((costs, state.condition.clone()));
    }
}

fn asked(template: &str, names: &Names<'_>) -> Truth {
    expr::compound(template, names).unwrap_or_else(|| expr::truth_of(&flag(template, names)))
}

fn flag(template: &str, names: &Names<'_>) -> Value {
    match expr::template(template, names) {
        Value::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" | "on" => Value::Bool(true),
            "false" | "no" | "0" | "" | "off" | "never" => Value::Bool(false),
            _ => Value::Bool(true),
        },
        other => other,
    }
}

/// The name of a sink that an act is.
pub(super) fn sink_name(act: &Act, default: &str) -> String {
    if act.what.is_empty() {
        default.to_owned()
    } else {
        act.what.clone()
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "one act of one step; grouping would only hide the parts"
)]
fn perform(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    job: &Job,
    act: &Act,
    names: &Names<'_>,
    way: &Way,
    credential: &Credential,
    state: &mut JobRun,
) -> Gate {
    let place = (act.file.as_str(), act.line);
    let step = |event: String, why: &str| PathStep {
        file: act.file.clone(),
        line: act.line,
        actor: if run.workflow.system == System::GitHub {
            credential.actor().words()
        } else {
            format!("the run of {}", run.workflow.system.word())
        },
        // Pages take the run's own identity and nothing that the job was given.
        credential: if act.what.starts_with("GitHub Pages (") {
            Credential::Default.words()
        } else {
            credential.words()
        },
        event,
        why: why.to_owned(),
    };
    match &act.op {
        Op::Publish | Op::Deploy { .. } => {
            if !permitted(engine, run, job, &Credential::Outside, &[]) {
                return Gate::Clear;
            }
            let kind = if act.op == Op::Publish {
                SinkKind::Publish
            } else {
                SinkKind::Deploy
            };
            let mut gate = Gate::Clear;
            let template = job.environment.as_ref().map(|(name, _)| name.as_str());
            let environment = match template.map(|template| expr::template(template, names)) {
                Some(Value::Text(name)) => name,
                _ => template.unwrap_or_default().to_owned(),
            };
            if kind == SinkKind::Deploy && is_rehearsal(&environment) {
                return Gate::Clear;
            }
            if let Some(fact) = branch_fact(run, kind)
                && (!(act.latest || state.landed) || run.is_pull_request())
            {
                gate = Gate::Fact(fact);
            }
            let way = engine.step(way, step(kind.word().to_owned(), &act.what), &gate);
            engine.reach(
                run.repository,
                kind,
                &sink_name(act, kind.word()),
                place,
                &way,
            );
        }
        Op::Push(target) => {
            let aside = state
                .aside
                .as_ref()
                .filter(|_| act.token == Token::Git && matches!(target, Target::Elsewhere(_)));
            let credential = aside.unwrap_or(credential);
            let cost = push(engine, run, job, act, names, way, credential, target);
            state.landed |= cost == Gate::Clear
                && !matches!(target, Target::Elsewhere(_))
                && names.destination(target) == Some(Reference::Default);
            return cost;
        }
        Op::Tag(name) => tag(engine, run, job, act, way, credential, name.clone()),
        Op::Release { draft, tag: name } => {
            if !permitted(engine, run, job, credential, &["contents"]) {
                return Gate::Clear;
            }
            // A name that turns out empty is none; the action refuses where no tag started the run.
            if let Some(template) = name
                && template.contains("${{")
                && matches!(expr::template(template, names), Value::Null)
                && !matches!(run.event.reference, Reference::Tag(_))
            {
                return Gate::Clear;
            }
            let mut gate = Gate::Clear;
            if let Some(draft) = draft {
                match expr::truth_of(&flag(draft, names)) {
                    Truth::Yes => {
                        gate = Gate::Human(
                            "the release is a draft until a person publishes it".to_owned(),
                        )
                    }
                    Truth::No | Truth::Can => {}
                    Truth::Depends(fact) => gate = Gate::Fact(fact),
                }
            }
            let way = engine.step(way, step("release".to_owned(), &act.what), &gate);
            engine.reach(
                run.repository,
                SinkKind::Release,
                &sink_name(act, "release"),
                place,
                &way,
            );
            if credential.fires() {
                for activity in ["published", "created", "released"] {
                    let event = Event {
                        reference: Reference::Tag(name.clone()),
                        releases: true,
                        ..Event::new(run.repository, "release", activity, credential.actor())
                    };
                    engine.happens(event, way.clone());
                }
                if !matches!(run.event.reference, Reference::Tag(_)) {
                    let event = Event {
                        reference: Reference::Tag(name.clone()),
                        releases: true,
                        ..Event::new(run.repository, "push", "", credential.actor())
                    };
                    engine.happens(event, way);
                }
            }
        }
        Op::CreatePr(new) => {
            if !permitted(engine, run, job, credential, &["pull-requests"]) {
                return Gate::Clear;
            }
            // What aims at another branch lands nothing on the default one.
            if let Some(base) = &new.base
                && let Value::Text(base) = expr::template(base, names)
                && !base.is_empty()
                && !base.contains('$')
                && base != run.default_branch()
            {
                return Gate::Clear;
            }
            let pull = PullRequest {
                author: credential.actor(),
                head: new
                    .head
                    .as_deref()
                    .and_then(|head| match expr::template(head, names) {
                        Value::Text(text) if !text.contains('$') => Some(text),
                        _ => None,
                    }),
                labels: new
                    .labels
                    .iter()
                    .flat_map(|label| match known_label(label, names) {
                        Some(list) => list.split(',').map(|one| one.trim().to_owned()).collect(),
                        None => vec![label.clone()],
                    })
                    .collect(),
                fork: false,
                release: new.release,
                base: None,
                files: None,
            };
            let way = engine.step(
                way,
                step("pull_request opened".to_owned(), &act.what),
                &Gate::Clear,
            );
            merge::new_pull_request(engine, run.repository, &pull, &way, credential.fires());
            state.pull = Some(pull);
        }
        Op::Merge {
            auto,
            admin,
            label,
            any,
        } => {
            if !permitted(engine, run, job, credential, &["contents"]) {
                return Gate::Clear;
            }
            // `pull-requests: write` is what `gh pr merge` asks for too, but contents decides.
            let on_event = run.event.pull_request.clone();
            let mut pull = on_event.or_else(|| state.pull.clone());
            if let (Some(pull), Some(base)) = (&mut pull, &state.moved) {
                pull.base = Some(base.clone());
            }
            let mut way = way.clone();
            let asked = label
                .as_deref()
                .filter(|_| run.event.actor != Actor::Person);
            if let Some(text) = asked {
                match known_label(text, names) {
                    Some(label)
                        if super::scope::has_label(run.event, &label)
                            || pull.is_none() && set_by_bots(run, &label)
                            || state
                                .pull
                                .as_ref()
                                .is_some_and(|pull| pull.labels.contains(&label)) => {}
                    Some(label) => {
                        way = way.gated(&Gate::Human(format!("a person sets the label {label}")));
                    }
                    None => way = way.gated(&unknown_label(text)),
                }
            }
            let manner = merge::Manner {
                auto: *auto,
                admin: *admin,
                selects: pull.is_none() && *any,
                approved: pull.is_none() && state.approved,
            };
            return merge::merge(
                engine,
                run.repository,
                pull.as_ref(),
                credential,
                manner,
                place,
                &act.what,
                &way,
            );
        }
        Op::Retarget(base) => {
            let named = match expr::template(base, names) {
                Value::Text(text) => text,
                _ => base.clone(),
            };
            if !named.contains('$') {
                state.moved = (named != run.default_branch()).then_some(named);
            }
        }
        Op::Approve => {
            if !permitted(engine, run, job, credential, &["pull-requests"]) {
                return Gate::Clear;
            }
            let pull = run.event.pull_request.as_ref().or(state.pull.as_ref());
            state.approved |= pull.is_none() && way.level == super::Level::Clear;
            merge::approve(
                engine,
                run.repository,
                pull,
                credential,
                place,
                &act.what,
                way,
            );
        }
        Op::Label(list) => {
            if !credential.fires() || run.restricted == Restriction::Nothing {
                return Gate::Clear;
            }
            let way = engine.step(way, step("label".to_owned(), &act.what), &Gate::Clear);
            for label in list {
                let name = match expr::template(label, names) {
                    Value::Text(text) => text,
                    _ => continue,
                };
                let mut pull = run
                    .event
                    .pull_request
                    .clone()
                    .or_else(|| state.pull.clone());
                if let Some(pull) = &mut pull
                    && !pull.labels.contains(&name)
                {
                    pull.labels.push(name.clone());
                }
                if pull.is_none() {
                    label_others(engine, run, &name, credential, &way);
                }
                let event = Event {
                    label: Some(name),
                    pull_request: pull.clone(),
                    ..Event::new(
                        run.repository,
                        if pull.is_some() {
                            "pull_request"
                        } else {
                            "issues"
                        },
                        "labeled",
                        credential.actor(),
                    )
                };
                engine.happens(event, way.clone());
            }
        }
        Op::Comment(body) => {
            if !credential.fires() || run.restricted == Restriction::Nothing {
                return Gate::Clear;
            }
            let text = body
                .as_deref()
                .and_then(|body| match expr::template(body, names) {
                    Value::Text(text) if !text.contains('$') => Some(text),
                    _ => None,
                });
            let way = engine.step(
                way,
                step("issue_comment created".to_owned(), &act.what),
                &Gate::Clear,
            );
            let event = Event {
                text,
                pull_request: run.event.pull_request.clone(),
                ..Event::new(
                    run.repository,
                    "issue_comment",
                    "created",
                    credential.actor(),
                )
            };
            merge::commanded(engine, &event, &way);
            engine.happens(event, way);
        }
        Op::Issue => {
            if !credential.fires() || run.restricted == Restriction::Nothing {
                return Gate::Clear;
            }
            let way = engine.step(
                way,
                step("issues opened".to_owned(), &act.what),
                &Gate::Clear,
            );
            engine.happens(
                Event::new(run.repository, "issues", "opened", credential.actor()),
                way,
            );
        }
        Op::Dispatch {
            workflow,
            repository,
        } => dispatch(
            engine,
            run,
            job,
            act,
            names,
            way,
            credential,
            workflow.as_deref(),
            repository.as_deref(),
        ),
        Op::RepositoryDispatch {
            event_type,
            repository,
        } => {
            if !permitted(engine, run, job, credential, &["contents"]) {
                return Gate::Clear;
            }
            let Some(target) = other_repository(engine, run, repository.as_deref()) else {
                return Gate::Clear;
            };
            let kind = event_type
                .as_deref()
                .and_then(|kind| match expr::template(kind, names) {
                    Value::Text(text) if !text.contains('$') => Some(text),
                    _ => None,
                });
            let way = engine.step(
                way,
                step("repository_dispatch".to_owned(), &act.what),
                &Gate::Clear,
            );
            let event = Event {
                kind,
                ..Event::new(target, "repository_dispatch", "", credential.actor())
            };
            engine.happens(event, way);
        }
        Op::Check(_) | Op::Local(_) => {}
    }
    Gate::Clear
}
