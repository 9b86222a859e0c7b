//! Agents' steps: what they hold, and what they could do with it.

use super::rights::token_writes;
use super::run::{JobRun, Restriction, Run};
use super::scope::Names;
use super::{
    Actor, AgentRun, Assumption, Credential, Engine, Event, Gate, Level, PathStep, Reference, Way,
    merge,
};
use crate::acts::SinkKind;
use crate::agents::{self, ActorCheck, Agent, Bots};
use crate::workflow::Job;

pub(super) fn agent_step(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    job: &Job,
    agent: &Agent,
    names: &Names<'_>,
    here: &Way,
    state: &mut JobRun,
) {
    if run.restricted == Restriction::Nothing {
        return;
    }
    let way = here.clone();
    // It takes tasks only from people who may write: those runs are seen on their own.
    if refuses(run, agent) || lacks_identity(run, job, agent) || has_no_task(run, agent) {
        return;
    }
    let credential = match (&agent.token, agent.own_app) {
        (Some(template), _) => names.credential_of(template, 0),
        (None, Some(app)) => Credential::App(app.to_owned()),
        (None, None) => {
            let ambient =
                names.credential(&crate::acts::Token::Env(crate::acts::GH_ENV), &state.git);
            if ambient == Credential::Default && state.checkout {
                state.git.clone()
            } else {
                ambient
            }
        }
    };
    let spare = match &agent.token {
        Some(template) => names.spare_of(template, 0),
        None if agent.own_app.is_some() => None,
        None => names
            .spare(&crate::acts::Token::Env(crate::acts::GH_ENV))
            .or_else(|| state.spare.clone()),
    }
    .filter(|_| credential.fires());
    let writes = match &credential {
        Credential::None | Credential::Outside => false,
        Credential::Default => match token_writes(run, job, "contents") {
            Some(yes) => yes,
            None => match engine.assumption {
                Assumption::Unprotected => {
                    engine.assume(
                        "the default workflow token may write, where a workflow does not say",
                    );
                    true
                }
                Assumption::Protected => false,
                Assumption::Settings => run
                    .subject
                    .settings
                    .as_ref()
                    .and_then(|settings| settings.actions.default_workflow_permissions.as_deref())
                    .is_none_or(|level| level == "write"),
            },
        },
        Credential::Limited(writes) => writes.iter().any(|scope| scope == "contents"),
        Credential::App(app) if !app.is_empty() => {
            engine.app_writes(run.repository, app).unwrap_or(true)
        }
        Credential::Secret(_) | Credential::App(_) | Credential::DeployKey(_) => true,
    };
    note_agent(engine, run, agent, &credential, &way, writes);
    let step = PathStep {
        file: agent.file.clone(),
        line: agent.line,
        actor: agent.name.to_owned(),
        credential: credential.words(),
        event: "agent run".to_owned(),
        why: format!(
            "{} runs as a step, tasked by {}",
            agent.name,
            run.event.actor.words()
        ),
    };
    if agent.reviewer {
        return;
    }
    // An agent is where a way begins: who tasked it does not decide on what it does. Whether it
    // runs at all may still be for a fact to decide.
    let own = Way {
        level: if way.fact.is_some() {
            Level::Fact
        } else {
            Level::Clear
        },
        reason: way.fact.clone(),
        ..way
    };
    // An app's rights are those of its installation, whatever `permissions` says; but who wrote
    // `contents: read` may have installed it so.
    let declared = job
        .permissions
        .as_ref()
        .or(run.workflow.permissions.as_ref())
        .or(run.cap.as_ref());
    let gate = match (&credential, declared) {
        (Credential::App(app), Some(permissions))
            if agent.token.is_none()
                && !permissions.writes("contents")
                && engine.app_writes(run.repository, app).is_none() =>
        {
            Gate::Fact(format!(
                "whether the app {app} may write here: its rights are its installation's, not those of `permissions`"
            ))
        }
        _ => Gate::Clear,
    };
    let gate = if agent.generic {
        Gate::Fact("whether the program lets its model run commands".to_owned())
    } else {
        gate
    };
    let own = engine.step(&own, step, &gate);
    if state
        .agent
        .as_ref()
        .is_none_or(|known| known.level >= own.level)
    {
        state.agent = Some(own.clone());
    }
    on_request(engine, run, job, agent, &credential, &own, writes);
    if writes && agent.shell {
        if let Some(fact) = spare {
            let first = own.gated(&Gate::Fact(fact));
            capabilities(engine, run, job, agent, &credential, &first);
            if token_writes(run, job, "contents") == Some(true) {
                capabilities(engine, run, job, agent, &Credential::Default, &own);
            }
        } else {
            capabilities(engine, run, job, agent, &credential, &own);
        }
    } else if writes
        && agent
            .tools
            .as_ref()
            .is_some_and(|tools| agents::may_merge(tools))
    {
        // It pushes nothing, but it may merge what others push.
        let _ = merge::merge(
            engine,
            run.repository,
            run.event.pull_request.as_ref(),
            &credential,
            merge::Manner {
                auto: false,
                admin: false,
                selects: run.event.pull_request.is_none(),
                approved: false,
            },
            (&agent.file, agent.line),
            &format!("{} can merge with {}", agent.name, credential.words()),
            &own,
        );
    }
}

/// What its prompt alone asks for: to approve pull requests, and to merge them.
fn on_request(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    job: &Job,
    agent: &Agent,
    credential: &Credential,
    way: &Way,
    writes: bool,
) {
    let has_tool = |may: fn(&[String]) -> bool| {
        agent.shell && agent.tools.is_none() || agent.tools.as_ref().is_some_and(|tools| may(tools))
    };
    let reviews = match credential {
        Credential::Default => match token_writes(run, job, "pull-requests") {
            Some(yes) => yes,
            None => engine.assumption == Assumption::Unprotected,
        },
        Credential::Limited(writes) => writes.iter().any(|scope| scope == "pull-requests"),
        Credential::Secret(_) | Credential::App(_) => true,
        Credential::None | Credential::DeployKey(_) | Credential::Outside => false,
    };
    let place = (agent.file.as_str(), agent.line);
    let pull = run.event.pull_request.as_ref();
    let approves = agent.asks.approve && reviews && has_tool(agents::may_approve);
    if approves {
        let what = format!("{} is told to approve pull requests", agent.name);
        merge::approve(engine, run.repository, pull, credential, place, &what, way);
    }
    if agent.asks.merge && writes && has_tool(agents::may_merge) {
        let what = format!("{} is told to merge pull requests", agent.name);
        let manner = merge::Manner {
            auto: false,
            admin: false,
            selects: pull.is_none(),
            approved: pull.is_none() && approves && way.level == Level::Clear,
        };
        let _ = merge::merge(
            engine,
            run.repository,
            pull,
            credential,
            manner,
            place,
            &what,
            way,
        );
    }
}

/// Whether the action gives up before it starts: without a token it asks its app for one, for which
/// it needs the run's identity, and no default gives that away.
fn lacks_identity(run: &Run<'_>, job: &Job, agent: &Agent) -> bool {
    agent.needs.identity
        && agent.token.is_none()
        && token_writes(run, job, "id-token") != Some(true)
}

/// Whether the action ends because it does not know the event, or finds no task in it.
fn has_no_task(run: &Run<'_>, agent: &Agent) -> bool {
    let needs = &agent.needs;
    !needs.events.is_empty() && !needs.events.contains(&run.event_name)
        || needs.idle.contains(&run.event_name)
}

/// Whether the agent's action turns whoever started the run away.
fn refuses(run: &Run<'_>, agent: &Agent) -> bool {
    let entity = !matches!(
        run.event_name,
        "schedule" | "workflow_dispatch" | "repository_dispatch" | "workflow_run" | "push"
    );
    let bot = match &run.event.actor {
        Actor::Anyone => {
            return match agent.checks {
                ActorCheck::Never => false,
                ActorCheck::OnEntities => entity,
                ActorCheck::Always => true,
            };
        }
        Actor::Bot(login) => login.as_str(),
        Actor::Actions => "github-actions[bot]",
        // Whoever made the app may have put it on the list, whatever its name is.
        Actor::App => return entity && agent.bots == Bots::Only(Vec::new()),
        Actor::Person | Actor::Machine | Actor::Clock | Actor::Elsewhere => return false,
    };
    entity && !agent.bots.admits(bot)
}

fn note_agent(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    agent: &Agent,
    credential: &Credential,
    way: &Way,
    writes: bool,
) {
    let open = run.event.actor == Actor::Anyone && way.level < Level::Human;
    let known = engine.agents.iter_mut().find(|known| {
        known.file == agent.file && known.line == agent.line && known.repository == run.repository
    });
    match known {
        Some(known) => {
            known.open |= open;
            known.writes |= writes;
            if !known.credentials.contains(credential) {
                known.credentials.push(credential.clone());
            }
        }
        None => engine.agents.push(AgentRun {
            repository: run.repository,
            name: agent.name,
            file: agent.file.clone(),
            line: agent.line,
            event: super::seeds::event_name(run.event_name),
            open,
            credentials: vec![credential.clone()],
            writes,
            shell: agent.shell,
        }),
    }
}

/// What an agent that may push can release. Where its tools name releases, it makes them; where
/// they only let it push, a tag is a release if someone takes it for one. No workflow starts from
/// what the job's own token makes.
fn release(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    agent: &Agent,
    credential: &Credential,
    base: &PathStep,
    way: &Way,
) {
    let named = agent
        .tools
        .as_ref()
        .is_some_and(|tools| agents::may_release(tools))
        || agent.asks.release && agent.shell;
    let practised = run.subject.workflows.iter().any(|workflow| {
        workflow.jobs.iter().flat_map(|job| &job.steps).any(|step| {
            step.acts.iter().any(|act| {
                matches!(
                    act.op,
                    crate::acts::Op::Release { .. } | crate::acts::Op::Tag(_)
                )
            })
        })
    });
    if !named && (credential.fires() || !practised) {
        return;
    }
    let gate = if named {
        merge::tag_gate(engine, run.repository)
    } else {
        Gate::Fact(format!(
            "whether anyone takes a tag that {} makes for a release: no workflow starts from it",
            agent.name
        ))
    };
    let step = PathStep {
        event: "tag or release".to_owned(),
        ..base.clone()
    };
    let way = engine.step(way, step, &gate);
    engine.reach(
        run.repository,
        SinkKind::Release,
        &format!("tag or release by {}", agent.name),
        (&agent.file, agent.line),
        &way,
    );
}

/// What an agent can do by itself with a token that writes and a shell that pushes.
fn capabilities(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    job: &Job,
    agent: &Agent,
    credential: &Credential,
    way: &Way,
) {
    let place = (agent.file.as_str(), agent.line);
    let what = format!("{} can push with {}", agent.name, credential.words());
    let _ = merge::push(
        engine,
        run.repository,
        &Reference::Default,
        credential,
        place,
        &what,
        way,
        merge::Push {
            by_agent: true,
            silent: false,
        },
    );
    let base = PathStep {
        file: agent.file.clone(),
        line: agent.line,
        actor: agent.name.to_owned(),
        credential: credential.words(),
        event: String::new(),
        why: what,
    };
    release(engine, run, agent, credential, &base, way);
    if credential.fires() {
        let gate = merge::tag_gate(engine, run.repository);
        let tagged = engine.step(
            way,
            PathStep {
                event: "push of a tag".to_owned(),
                ..base.clone()
            },
            &gate,
        );
        let event = Event {
            reference: Reference::Tag(None),
            releases: true,
            ..Event::new(run.repository, "push", "", credential.actor())
        };
        engine.happens(event, tagged.clone());
        let pushed = engine.step(
            way,
            PathStep {
                event: "push to another branch".to_owned(),
                ..base.clone()
            },
            &Gate::Clear,
        );
        let event = Event {
            reference: Reference::Branch("agent/branch".to_owned()),
            ..Event::new(run.repository, "push", "", credential.actor())
        };
        engine.happens(event, pushed);
    }
    let may_dispatch = match credential {
        Credential::Default => {
            (token_writes(run, job, "actions") == Some(true)).then_some(Gate::Clear)
        }
        Credential::Secret(name) => Some(Gate::Fact(format!(
            "whether secrets.{name} may start workflows"
        ))),
        Credential::Limited(writes) => writes
            .iter()
            .any(|scope| scope == "actions")
            .then_some(Gate::Clear),
        Credential::None | Credential::App(_) | Credential::DeployKey(_) | Credential::Outside => {
            None
        }
    };
    let Some(subject) = engine.subject(run.repository) else {
        return;
    };
    for (index, workflow) in subject.workflows.iter().enumerate() {
        for trigger in &workflow.triggers {
            let event = match trigger.event.as_str() {
                "workflow_dispatch" if may_dispatch.is_some() => Event {
                    workflow: Some(index),
                    ..Event::new(run.repository, "workflow_dispatch", "", credential.actor())
                },
                "repository_dispatch"
                    if matches!(credential, Credential::Default | Credential::Secret(_)) =>
                {
                    Event {
                        kind: trigger.types.first().cloned(),
                        ..Event::new(
                            run.repository,
                            "repository_dispatch",
                            "",
                            credential.actor(),
                        )
                    }
                }
                _ => continue,
            };
            let gate = match (trigger.event.as_str(), &may_dispatch) {
                ("workflow_dispatch", Some(gate)) => gate.clone(),
                _ => Gate::Clear,
            };
            let next = engine.step(
                way,
                PathStep {
                    event: event.words(),
                    ..base.clone()
                },
                &gate,
            );
            engine.happens(event, next);
        }
    }
}
