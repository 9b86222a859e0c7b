//! One event and the runs it starts.

mod calls;

use std::cell::Cell;
use std::collections::HashMap;

use super::agent::agent_step;
use super::perform::one_act;
use super::scope::Names;
use super::trigger::starts;
use super::{
    Actor, Assumption, Credential, Engine, Event, Gate, PathStep, PullRequest, Reference, Subject,
    Way, merge,
};
use crate::acts::is_rehearsal;
use crate::expr::{self, Truth, Value};
use crate::glob;
use crate::workflow::{Condition, Job, MANUAL, Permissions, Step, System, Trigger, Workflow};
use calls::called;

/// Most runs in a row that `workflow_run` chains; GitHub stops after three.
const CHAIN_MAX: u8 = 3;

/// Which secrets a run gets.
#[derive(Clone, Debug)]
pub(super) enum Secrets {
    All,
    /// Dependabot's own secrets only.
    Dependabot,
    None,
    /// What a caller passes by name.
    Passed(Vec<(String, Credential)>),
}

pub(super) type Inputs = Vec<(String, Value, Credential)>;

/// One run of one workflow.
pub(super) struct Run<'r> {
    pub(super) subject: &'r Subject,
    pub(super) repository: usize,
    pub(super) workflow: &'r Workflow,
    pub(super) event: &'r Event,
    /// The event as the workflow names it: `pull_request_target` for a pull request.
    pub(super) event_name: &'r str,
    pub(super) secrets: Secrets,
    pub(super) inputs: Option<Inputs>,
    /// The token reads only, whatever the file says (forks) or unless it says more (Dependabot).
    pub(super) restricted: Restriction,
    pub(super) cap: Option<Permissions>,
    pub(super) calls: u8,
    /// How many names have been looked up.
    pub(super) lookups: Cell<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restriction {
    Full,
    ReadByDefault,
    Nothing,
}

impl Run<'_> {
    pub(super) fn slug(&self) -> Option<&str> {
        self.subject
            .slug
            .as_deref()
            .filter(|slug| !slug.starts_with("?/"))
    }

    pub(super) fn default_branch(&self) -> &str {
        &self.subject.default_branch
    }

    pub(super) fn is_pull_request(&self) -> bool {
        matches!(self.event_name, "pull_request" | "pull_request_target")
    }
}

/// Takes an event: the bots that answer it, and the workflows it starts.
pub(super) fn event(engine: &mut Engine<'_>, event: &Event, way: &Way) {
    let Some(subject) = engine.subject(event.repository) else {
        return;
    };
    if event.name == "pull_request" {
        merge::answer_pull_request(engine, event, way);
    }
    let Some(listening) = engine
        .listening
        .get(event.repository)
        .and_then(|names| names.get(event.name))
        .cloned()
    else {
        return;
    };
    // An event of one workflow concerns that one alone.
    let only = event.workflow.filter(|_| event.name != "workflow_run");
    for index in listening.iter().copied() {
        let Some(workflow) = subject.workflows.get(index) else {
            continue;
        };
        if only.is_some_and(|only| only != index)
            || event.quiet && workflow.system == System::GitHub
        {
            continue;
        }
        for trigger in &workflow.triggers {
            if starts(trigger, workflow, event, subject) {
                start(engine, subject, index, workflow, trigger, event, way);
            }
        }
    }
}

fn start(
    engine: &mut Engine<'_>,
    subject: &Subject,
    index: usize,
    workflow: &Workflow,
    trigger: &Trigger,
    event: &Event,
    way: &Way,
) {
    let event_name = trigger.event.as_str();
    let fork = event.pull_request.as_ref().is_some_and(|pull| pull.fork);
    let restricted = match event_name {
        "pull_request" | "pull_request_review" | "pull_request_review_comment" if fork => {
            Restriction::Nothing
        }
        "pull_request"
        | "pull_request_review"
        | "pull_request_review_comment"
        | "push"
        | "create"
        | "deployment"
        | "deployment_status"
            if event.actor == Actor::Bot("dependabot[bot]".to_owned()) =>
        {
            Restriction::ReadByDefault
        }
        _ => Restriction::Full,
    };
    let secrets = match restricted {
        Restriction::Full => Secrets::All,
        Restriction::ReadByDefault => Secrets::Dependabot,
        Restriction::Nothing => Secrets::None,
    };
    let inputs = (event_name == "workflow_dispatch" && event.actor != Actor::Person).then(|| {
        trigger
            .inputs
            .iter()
            .map(|input| (input.name.clone(), Value::Open, Credential::None))
            .collect()
    });
    let run = Run {
        subject,
        repository: event.repository,
        workflow,
        event,
        event_name,
        secrets,
        inputs,
        restricted,
        cap: None,
        calls: 0,
        lookups: Cell::new(0),
    };
    let held = held_by_approval(engine, &run);
    let step = PathStep {
        file: workflow.file.clone(),
        line: trigger.line,
        actor: event.actor.words(),
        credential: String::new(),
        event: event.words(),
        why: format!("starts “{}” ({})", workflow.name, workflow.system.word()),
    };
    let way = engine.step(way, step, &held);
    engine.called = 0;
    engine.refused = None;
    let started = jobs(engine, &run, &way);
    let refused = engine.refused.take();
    if started && event.chained < CHAIN_MAX {
        let listeners = engine.listened.get(event.repository).is_some_and(|names| {
            names
                .iter()
                .any(|name| name == &workflow.name || glob::matches(name, &workflow.name))
        });
        if listeners {
            let upstream = crate::engine::seeds::event_name(event_name);
            let next = Event {
                workflow: Some(index),
                upstream: Some(upstream),
                chained: event.chained + 1,
                reference: if event.name == "push" {
                    event.reference.clone()
                } else {
                    Reference::Default
                },
                pull_request: event.pull_request.clone().filter(|_| run.is_pull_request()),
                releases: event.releases,
                merged: event.merged,
                ..Event::new(
                    event.repository,
                    "workflow_run",
                    "completed",
                    event.actor.clone(),
                )
            };
            match refused {
                Some(gate) => {
                    let failed = Event {
                        failed: true,
                        ..next.clone()
                    };
                    engine.happens(failed, way.clone());
                    engine.happens(next, way.gated(&gate));
                }
                None => engine.happens(next, way),
            }
        }
    }
}

/// Runs that a person must release before they start.
fn held_by_approval(engine: &mut Engine<'_>, run: &Run<'_>) -> Gate {
    let held = run.subject.bots.iter().any(|bot| {
        matches!(
            bot.duty,
            crate::bots::Duty::Opens {
                runs_held: true,
                ..
            }
        ) && run.event.actor == Actor::Bot(bot.login.clone())
    });
    let stranger = run.event.actor == Actor::Anyone && run.restricted == Restriction::Nothing;
    if stranger && engine.assumption == Assumption::Unprotected {
        // By default only a first contribution's runs wait for someone to approve them.
        engine.assume("runs of pull requests by accounts that contributed before need no approval");
    } else if stranger {
        return Gate::Fact(
            "whether the runs of strangers' pull requests wait for an approval".to_owned(),
        );
    }
    if held && run.event_name == "pull_request" {
        Gate::Human("a person approves the workflow runs of this agent's pull requests".to_owned())
    } else {
        Gate::Clear
    }
}

/// Runs the jobs; true if one of them can start.
fn jobs(engine: &mut Engine<'_>, run: &Run<'_>, way: &Way) -> bool {
    let workflow = run.workflow;
    let mut done: HashMap<&str, Option<Way>> = HashMap::new();
    let mut started = false;
    for _ in 0..workflow.jobs.len() {
        let mut progress = false;
        for job in &workflow.jobs {
            if done.contains_key(job.id.as_str()) {
                continue;
            }
            let known = |need: &&String| {
                let is_open = |id: &str| {
                    let wanted = id.strip_suffix(MANUAL).unwrap_or(id) == need.as_str();
                    wanted && !done.contains_key(id)
                };
                !workflow.jobs.iter().any(|job| is_open(&job.id))
            };
            if !job.needs.iter().chain(&job.after).all(|need| known(&need)) {
                continue;
            }
            progress = true;
            let result = job_way(engine, run, job, way, &done);
            started |= result.is_some();
            done.insert(job.id.as_str(), result);
        }
        if !progress {
            break;
        }
    }
    started
}

fn job_way(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    job: &Job,
    way: &Way,
    done: &HashMap<&str, Option<Way>>,
) -> Option<Way> {
    let mut base = way.clone();
    let ignores_needs = job.condition.as_ref().is_some_and(|condition| {
        ["always()", "cancelled()", "failure()"]
            .iter()
            .any(|word| condition.text.contains(word))
            // Azure's own question takes the place of whether the jobs before succeeded.
            || run.workflow.system == System::Azure && !condition.text.contains("succeeded(")
    });
    // CircleCI drops what its filters leave out from what a job waits for.
    let others_run = |job: &Job| {
        run.workflow.system == System::CircleCi
            && job
                .needs
                .iter()
                .any(|need| matches!(done.get(need.as_str()), Some(Some(_))))
    };
    for need in &job.needs {
        // A job that did not start by itself may have been started by a person.
        let by_hand = || done.get(format!("{need}{MANUAL}").as_str());
        let before = match done.get(need.as_str()) {
            Some(None) => by_hand().filter(|way| way.is_some()).or(Some(&None)),
            found => found,
        };
        match before {
            Some(Some(before)) => {
                if (before.level, before.facts) > (base.level, base.facts) {
                    base = before.clone();
                }
            }
            Some(None) if !ignores_needs && !others_run(job) => return None,
            Some(None) | None => {}
        }
    }
    for before in &job.after {
        if let Some(Some(before)) = done.get(before.as_str())
            && (before.level, before.facts) > (base.level, base.facts)
        {
            base = before.clone();
        }
    }
    let names = Names {
        run,
        job: Some(job),
        env: vec![&run.workflow.env, &job.env],
        inputs: None,
        depth: Cell::new(0),
    };
    let mut base = base.gated(&condition_gate(job.condition.as_ref(), &names)?);
    if let Some((how, line)) = job.manual {
        let step = PathStep {
            file: run.workflow.file.clone(),
            line,
            actor: Actor::Person.words(),
            credential: String::new(),
            event: format!("start of the job {}", job.id),
            why: how.to_owned(),
        };
        base = engine.step(&base, step, &Gate::Human(how.to_owned()));
    }
    if let Some((template, line)) = &job.environment {
        let name = match expr::template(template, &names) {
            Value::Text(name) => name,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Login
            | Value::App
            | Value::UpdateTitle
            | Value::Open
            | Value::Fact(_) => template.clone(),
        };
        if !name.is_empty() && !is_rehearsal(&name) {
            let gate = engine.environment_gate(run.repository, &name);
            if gate != Gate::Clear {
                let step = PathStep {
                    file: run.workflow.file.clone(),
                    line: *line,
                    actor: "a reviewer of the environment".to_owned(),
                    credential: String::new(),
                    event: format!("deployment to {name}"),
                    why: format!("the job {} uses the environment {name}", job.id),
                };
                base = engine.step(&base, step, &gate);
            }
        }
    }
    if let Some(call) = &job.call {
        return called(engine, run, job, call, &names, &base);
    }
    let git = if run.workflow.system == System::GitHub {
        Credential::Default
    } else {
        Credential::Secret("of the project".to_owned())
    };
    let mut state = JobRun::begun(git, false);
    let mut way = base;
    for step in &job.steps {
        let names = Names {
            run,
            job: Some(job),
            env: vec![&run.workflow.env, &job.env],
            inputs: None,
            depth: Cell::new(0),
        };
        step_acts(engine, run, job, step, &names, &mut way, &mut state, 0);
    }
    if state.ended {
        return None;
    }
    // Jobs that need this one run only if it went through.
    if let Some((gate, condition)) = &state.refused
        && condition
            .as_deref()
            .is_none_or(|text| text.split("&&").all(is_of_run))
    {
        engine.refused = Some(gate.clone());
        way = way.gated(gate);
    }
    Some(way)
}

/// What a condition costs; `None` where it can't hold.
fn condition_gate(condition: Option<&Condition>, names: &Names<'_>) -> Option<Gate> {
    let Some(condition) = condition else {
        return Some(Gate::Clear);
    };
    let Some(expr) = &condition.expr else {
        return Some(Gate::Clear);
    };
    match expr::truth(expr, names) {
        Truth::No => None,
        Truth::Yes | Truth::Can => Some(Gate::Clear),
        Truth::Depends(fact) => Some(Gate::Fact(fact)),
    }
}

/// What one job leaves from step to step.
pub(super) struct JobRun {
    pub(super) git: Credential,
    pub(super) checkout: bool,
    /// Some repository is there, for programs that ask git which.
    pub(super) repository: bool,
    /// The agent whose work later steps carry on, and its way.
    pub(super) agent: Option<Way>,
    /// The pull request opened in this job.
    pub(super) pull: Option<PullRequest>,
    /// The fact on which git's credential is not the job's own token, where that is the fallback.
    pub(super) spare: Option<String>,
    /// What a push that could not be left out costs, and the condition of its step.
    pub(super) refused: Option<(Gate, Option<String>)>,
    /// The credential of a checkout beside the workspace.
    pub(super) aside: Option<Credential>,
    /// The branch that the pull request at hand was moved to.
    pub(super) moved: Option<String>,
    /// It approved pull requests of its own choice.
    pub(super) approved: bool,
    /// Its work is on the default branch.
    pub(super) landed: bool,
    /// A step failed for want of rights.
    pub(super) ended: bool,
    /// The condition of the step at hand.
    pub(super) condition: Option<String>,
}

impl JobRun {
    /// Nothing has happened yet.
    pub(super) const fn begun(git: Credential, checkout: bool) -> Self {
        Self {
            git,
            checkout,
            repository: checkout,
            agent: None,
            pull: None,
            spare: None,
            refused: None,
            aside: None,
            moved: None,
            approved: false,
            landed: false,
            ended: false,
            condition: None,
        }
    }

    /// What a push that was refused before costs a step: it runs only if the push went through,
    /// or was left out, or if it runs in any case.
    pub(super) fn stopped(&self, condition: Option<&str>) -> Option<&Gate> {
        let (gate, pushed_if) = self.refused.as_ref()?;
        let condition = condition.unwrap_or_default();
        let anyway = ["always()", "failure()", "cancelled()"]
            .iter()
            .any(|word| condition.contains(word));
        let follows = pushed_if.as_deref().is_none_or(|pushed_if| {
            // What it asked of the event holds for the whole run.
            pushed_if
                .split("&&")
                .map(str::trim)
                .all(|part| condition.contains(part) || is_of_run(part))
        });
        (follows && !anyway).then_some(gate)
    }
}

/// Whether a condition asks for what is the same in the whole run.
fn is_of_run(condition: &str) -> bool {
    let open = ["||", "steps.", "needs.", "env."]
        .iter()
        .any(|word| condition.contains(word));
    !open
        && ["github.event_name", "github.ref", "github.repository"]
            .iter()
            .any(|word| condition.contains(word))
}

#[expect(
    clippy::too_many_arguments,
    reason = "one step of one job of one run; grouping would only hide the parts"
)]
fn step_acts(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    job: &Job,
    step: &Step,
    outer: &Names<'_>,
    way: &mut Way,
    state: &mut JobRun,
    depth: u8,
) {
    /// Deepest chain of composite actions in one step.
    const COMPOSITES_MAX: u8 = 8;
    let mut env = outer.env.clone();
    env.push(&step.env);
    let names = Names {
        run,
        job: Some(job),
        env,
        inputs: outer.inputs,
        depth: Cell::new(0),
    };
    let Some(gate) = condition_gate(step.condition.as_ref(), &names) else {
        return;
    };
    if state.ended {
        let anyway = step.condition.as_ref().is_some_and(|condition| {
            ["always()", "failure()"]
                .iter()
                .any(|word| condition.text.contains(word))
        });
        if !anyway {
            return;
        }
    }
    let mut here = way.gated(&gate);
    state.condition = step
        .condition
        .as_ref()
        .map(|condition| condition.text.trim().to_owned());
    state.repository |= run.workflow.system != System::GitHub || step.brings_repository;
    if let Some(checkout) = &step.checkout
        && checkout.aside
        && let Some(given) = checkout.ssh_key.as_ref().or(checkout.token.as_ref())
    {
        state.aside = Some(names.credential_of(given, 0));
    }
    if let Some(checkout) = &step.checkout
        && !checkout.aside
    {
        state.checkout = true;
        state.spare = checkout
            .token
            .as_deref()
            .filter(|_| checkout.ssh_key.is_none())
            .and_then(|token| names.spare_of(token, 0));
        state.git = if let Some(key) = &checkout.ssh_key {
            match names.credential_of(key, 0) {
                Credential::Secret(name) => Credential::DeployKey(name),
                other => other,
            }
        } else if let Some(token) = &checkout.token {
            names.credential_of(token, 0)
        } else if checkout.persist {
            Credential::Default
        } else {
            Credential::None
        };
    }
    for agent in &step.agents {
        agent_step(engine, run, job, agent, &names, &here, state);
    }
    for act in &step.acts {
        one_act(engine, run, job, act, &names, way, &here, state);
        // What stops a script stops what stands behind it in the same one.
        if way.level > here.level {
            here = way.clone();
        }
    }
    if let Some(inner) = &step.inner
        && depth < COMPOSITES_MAX
    {
        let mut inputs: Inputs = inner
            .defaults
            .iter()
            .map(|(name, template)| {
                (
                    name.clone(),
                    expr::template(template, &names),
                    names.credential_of(template, 0),
                )
            })
            .collect();
        for (name, template) in &step.with {
            let value = expr::template(template, &names);
            inputs.retain(|(known, _, _)| !known.eq_ignore_ascii_case(name));
            inputs.push((name.to_lowercase(), value, names.credential_of(template, 0)));
        }
        let inside = Names {
            run,
            job: Some(job),
            env: names.env.clone(),
            inputs: Some(&inputs),
            depth: Cell::new(0),
        };
        // What stops this step stops the steps in it, whatever they ask themselves.
        let mut inner_way = match state.stopped(state.condition.as_deref()) {
            Some(stop) => here.gated(stop),
            None => here,
        };
        for step in &inner.steps {
            step_acts(
                engine,
                run,
                job,
                step,
                &inside,
                &mut inner_way,
                state,
                depth + 1,
            );
        }
        if inner_way.level > way.level && gate == Gate::Clear {
            *way = inner_way;
        }
    }
}
