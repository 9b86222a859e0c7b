//! One event and the runs it starts.

use std::cell::Cell;
use std::collections::HashMap;

use super::scope::Names;
use super::{
    Actor, AgentRun, Assumption, Credential, Engine, Event, Gate, Level, PathStep, PullRequest,
    Reference, Subject, Way, merge,
};
use crate::acts::{Act, Check, Op, SinkKind, Target, is_rehearsal};
use crate::agents::{self, Agent};
use crate::expr::{self, Truth, Value};
use crate::glob;
use crate::workflow::{Condition, Job, Permissions, Step, System, Trigger, Workflow};

/// Deepest chain of workflows that call workflows; GitHub allows ten.
const CALLS_MAX: u8 = 10;
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
    // An event of one workflow concerns that one alone; looking at all would cost the square.
    let only = event.workflow.filter(|_| event.name != "workflow_run");
    let (first, count) = only.map_or((0, subject.workflows.len()), |index| (index, 1));
    for (index, workflow) in subject.workflows.iter().enumerate().skip(first).take(count) {
        let active = engine
            .active
            .get(event.repository)
            .and_then(|list| list.get(index));
        if active == Some(&false) {
            continue;
        }
        for trigger in &workflow.triggers {
            if starts(trigger, workflow, event, subject) {
                start(engine, subject, index, workflow, trigger, event, way);
            }
        }
    }
}

/// Whether an event starts a workflow by this trigger.
pub(super) fn starts(
    trigger: &Trigger,
    workflow: &Workflow,
    event: &Event,
    subject: &Subject,
) -> bool {
    let same = match trigger.event.as_str() {
        "pull_request_target" => event.name == "pull_request",
        other => other == event.name,
    };
    if !same {
        return false;
    }
    let listed = |list: &[String]| list.iter().any(|known| known == event.activity);
    let by_type = if trigger.types.is_empty() {
        match event.name {
            "pull_request" => matches!(event.activity, "opened" | "synchronize" | "reopened"),
            "repository_dispatch" => true,
            _ => true,
        }
    } else if event.name == "repository_dispatch" {
        event
            .kind
            .as_deref()
            .is_none_or(|kind| trigger.types.iter().any(|known| glob::matches(known, kind)))
    } else {
        listed(&trigger.types)
    };
    if !by_type {
        return false;
    }
    match event.name {
        "push" => push_matches(trigger, &event.reference, subject),
        "pull_request" => {
            // A fork's or branch's pull request is taken to aim at the default branch.
            branch_matches(
                &trigger.branches,
                &trigger.branches_ignore,
                &event.reference,
                subject,
            )
        }
        "workflow_run" => {
            let source = event
                .workflow
                .and_then(|index| subject.workflows.get(index));
            source.is_some_and(|source| {
                workflow.file != source.file
                    && trigger
                        .workflows
                        .iter()
                        .any(|name| name == &source.name || glob::matches(name, &source.name))
            }) && {
                let head = match &event.pull_request {
                    // Whoever opens a fork names its branch, `main` included.
                    Some(pull) if pull.fork => None,
                    Some(pull) => Some(
                        pull.head
                            .as_deref()
                            .map_or(Reference::Other, |head| Reference::Branch(head.to_owned())),
                    ),
                    None => Some(event.reference.clone()),
                };
                head.is_none_or(|head| {
                    branch_matches(&trigger.branches, &trigger.branches_ignore, &head, subject)
                })
            }
        }
        _ => true,
    }
}

fn push_matches(trigger: &Trigger, reference: &Reference, subject: &Subject) -> bool {
    let branch_filter = !trigger.branches.is_empty() || !trigger.branches_ignore.is_empty();
    let tag_filter = !trigger.tags.is_empty() || !trigger.tags_ignore.is_empty();
    match reference {
        Reference::Tag(name) => {
            if !tag_filter {
                return !branch_filter;
            }
            match name.as_deref().filter(|name| !name.contains('$')) {
                Some(name) if trigger.tags.is_empty() => !glob::any(&trigger.tags_ignore, name),
                Some(name) => {
                    glob::any(&trigger.tags, name)
                        || glob::any(&trigger.tags, &format!("v{name}")) && !name.starts_with('v')
                }
                None => true,
            }
        }
        Reference::Default | Reference::Branch(_) | Reference::Other => {
            if !branch_filter {
                return !tag_filter;
            }
            branch_matches(
                &trigger.branches,
                &trigger.branches_ignore,
                reference,
                subject,
            )
        }
    }
}

fn branch_matches(
    include: &[String],
    exclude: &[String],
    reference: &Reference,
    subject: &Subject,
) -> bool {
    let name = match reference {
        Reference::Default => subject.default_branch.as_str(),
        Reference::Branch(name) => name.as_str(),
        Reference::Other | Reference::Tag(_) => "some-branch/with-a-name",
    };
    if !include.is_empty() {
        let hit = glob::any(include, name);
        // Templates in a list (`$default-branch`) stand for the default branch.
        return hit
            || (*reference == Reference::Default
                && include.iter().any(|pattern| pattern == "$default-branch"));
    }
    if !exclude.is_empty() {
        return !glob::any(exclude, name);
    }
    true
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
    let started = jobs(engine, &run, &way);
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
            engine.happens(next, way);
        }
    }
}

/// Runs that a person must release before they start.
fn held_by_approval(engine: &Engine<'_>, run: &Run<'_>) -> Gate {
    let held = run.subject.bots.iter().any(|bot| {
        matches!(
            bot.duty,
            crate::bots::Duty::Opens {
                runs_held: true,
                ..
            }
        ) && run.event.actor == Actor::Bot(bot.login.clone())
    });
    let _ = engine;
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
                done.contains_key(need.as_str())
                    || !workflow.jobs.iter().any(|job| job.id == **need)
            };
            if !job.needs.iter().all(|need| known(&need)) {
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
    });
    for need in &job.needs {
        match done.get(need.as_str()) {
            Some(Some(before)) => {
                if (before.level, before.facts) > (base.level, base.facts) {
                    base = before.clone();
                }
            }
            Some(None) if !ignores_needs => return None,
            Some(None) | None => {}
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
    let mut state = JobRun {
        git: if run.workflow.system == System::GitHub {
            Credential::Default
        } else {
            Credential::Secret("of the project".to_owned())
        },
        checkout: false,
        agent: None,
        pull: None,
    };
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

fn called(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    job: &Job,
    call: &crate::workflow::Call,
    names: &Names<'_>,
    way: &Way,
) -> Option<Way> {
    if run.calls >= CALLS_MAX {
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

/// What one job leaves from step to step.
struct JobRun {
    git: Credential,
    checkout: bool,
    /// The agent whose work later steps carry on, and its way.
    agent: Option<Way>,
    /// The pull request opened in this job.
    pull: Option<PullRequest>,
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
    let here = way.gated(&gate);
    if let Some(checkout) = &step.checkout
        && !checkout.elsewhere
    {
        state.checkout = true;
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
        let mut inner_way = here;
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

/// Whether the job's own token may write `scope`: `None` where only the default decides.
fn token_writes(run: &Run<'_>, job: &Job, scope: &str) -> Option<bool> {
    if run.workflow.system != System::GitHub {
        return Some(false);
    }
    if run.restricted == Restriction::Nothing {
        return Some(false);
    }
    let declared = job
        .permissions
        .as_ref()
        .or(run.workflow.permissions.as_ref());
    if let Some(cap) = &run.cap
        && !cap.writes(scope)
    {
        return Some(false);
    }
    match declared {
        Some(permissions) => Some(permissions.writes(scope)),
        None if run.restricted == Restriction::ReadByDefault => Some(false),
        None => run.cap.as_ref().map(|_| true),
    }
}

/// Whether an act with this credential has the right to do what it does.
fn permitted(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    job: &Job,
    credential: &Credential,
    scopes: &[&str],
) -> bool {
    match credential {
        Credential::None => false,
        Credential::Secret(_) | Credential::App(_) | Credential::DeployKey(_) => {
            run.restricted != Restriction::Nothing
        }
        Credential::Outside => run.restricted == Restriction::Full,
        Credential::Default => {
            if run.workflow.system != System::GitHub {
                return false;
            }
            let mut all = true;
            for scope in scopes {
                match token_writes(run, job, scope) {
                    Some(yes) => all &= yes,
                    None => {
                        let default = run.subject.settings.as_ref().and_then(|settings| {
                            settings.actions.default_workflow_permissions.clone()
                        });
                        if engine.assumption == Assumption::Settings
                            && default.as_deref() == Some("read")
                        {
                            all = false;
                        } else {
                            engine.assume("the default workflow token may write, where a workflow does not say");
                        }
                    }
                }
            }
            all
        }
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "one act of one step; grouping would only hide the parts"
)]
fn one_act(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    job: &Job,
    act: &Act,
    names: &Names<'_>,
    job_way: &mut Way,
    here: &Way,
    state: &mut JobRun,
) {
    let mut way = here.clone();
    for template in &act.only_if {
        match expr::truth_of(&flag(template, names)) {
            Truth::No => return,
            Truth::Yes | Truth::Can => {}
            Truth::Depends(fact) => way = way.gated(&Gate::Fact(fact)),
        }
    }
    for template in &act.unless {
        match expr::truth_of(&flag(template, names)) {
            Truth::Yes => return,
            Truth::No | Truth::Can => {}
            Truth::Depends(fact) => way = way.gated(&Gate::Fact(fact)),
        }
    }
    if act.after_release_pr && !run.event.releases {
        return;
    }
    if act.benign.is_some() {
        return;
    }
    if let Op::Check(check) = &act.op {
        let gate = match check {
            Check::Person(text) => Gate::Human((*text).to_owned()),
            Check::Actor(text) if run.event.actor == Actor::Anyone => {
                Gate::Human((*text).to_owned())
            }
            Check::Actor(_) => Gate::Clear,
        };
        *job_way = job_way.gated(&gate);
        return;
    }
    // Later steps carry on what an agent wrote: its work, so its way.
    let carries = matches!(act.op, Op::Push(_) | Op::Merge { .. } | Op::CreatePr(_));
    if carries
        && let Some(agent) = &state.agent
        && agent.level < way.level
    {
        way = agent.clone();
    }
    let credential = names.credential(&act.token, &state.git);
    perform(engine, run, job, act, names, &way, &credential, state);
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
fn sink_name(act: &Act, default: &str) -> String {
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
) {
    let place = (act.file.as_str(), act.line);
    let step = |event: String, why: &str| PathStep {
        file: act.file.clone(),
        line: act.line,
        actor: credential.actor().words(),
        credential: credential.words(),
        event,
        why: why.to_owned(),
    };
    match &act.op {
        Op::Publish | Op::Deploy { .. } => {
            if !permitted(engine, run, job, &Credential::Outside, &[]) {
                return;
            }
            let kind = if act.op == Op::Publish {
                SinkKind::Publish
            } else {
                SinkKind::Deploy
            };
            let mut gate = Gate::Clear;
            let environment = job
                .environment
                .as_ref()
                .map(|(name, _)| name.as_str())
                .unwrap_or_default();
            if kind == SinkKind::Deploy && is_rehearsal(environment) {
                return;
            }
            if let Some(fact) = branch_fact(run, kind) {
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
        Op::Push(target) => push(engine, run, job, act, names, way, credential, target),
        Op::Tag(name) => tag(engine, run, job, act, way, credential, name.clone()),
        Op::Release { draft, tag: name } => {
            if !permitted(engine, run, job, credential, &["contents"]) {
                return;
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
                return;
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
                labels: new.labels.clone(),
                fork: false,
                release: new.release,
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
                return;
            }
            // `pull-requests: write` is what `gh pr merge` asks for too, but contents decides.
            let on_event = run.event.pull_request.clone();
            let pull = on_event.or_else(|| state.pull.clone());
            let mut way = way.clone();
            if let Some(label) = label
                && !super::scope::has_label(run.event, label)
                && run.event.actor != Actor::Person
                && !state
                    .pull
                    .as_ref()
                    .is_some_and(|pull| pull.labels.iter().any(|known| known == label))
            {
                way = way.gated(&Gate::Human(format!("a person sets the label {label}")));
            }
            let manner = merge::Manner {
                auto: *auto,
                admin: *admin,
                selects: pull.is_none() && *any,
            };
            merge::merge(
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
        Op::Approve => {
            if !permitted(engine, run, job, credential, &["pull-requests"]) {
                return;
            }
            let pull = run.event.pull_request.as_ref().or(state.pull.as_ref());
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
                return;
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
                return;
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
            engine.happens(event, way);
        }
        Op::Issue => {
            if !credential.fires() || run.restricted == Restriction::Nothing {
                return;
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
                return;
            }
            let Some(target) = other_repository(engine, run, repository.as_deref()) else {
                return;
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
}

/// Which repository of this scan a name means; this one without a name.
fn other_repository(engine: &Engine<'_>, run: &Run<'_>, name: Option<&str>) -> Option<usize> {
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
fn dispatch(
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

/// A build of a branch that is not the default one may or may not be production.
fn branch_fact(run: &Run<'_>, kind: SinkKind) -> Option<String> {
    if run.workflow.system == System::GitHub
        && run.event_name == "pull_request"
        && !run.event.merged
    {
        return Some(format!(
            "whether what a pull request's run {}es is production",
            kind.word().trim_end_matches("es")
        ));
    }
    match (&run.event.reference, run.event.name) {
        (Reference::Branch(name), "push") if !is_production_branch(name) => Some(format!(
            "whether what is made from the branch {name} is production"
        )),
        (Reference::Other, "push") => {
            Some("whether what is made from any branch is production".to_owned())
        }
        _ => None,
    }
}

pub(super) fn is_production_branch(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    matches!(
        lower.as_str(),
        "main"
            | "master"
            | "production"
            | "prod"
            | "live"
            | "release"
            | "releases"
            | "deploy"
            | "stable"
            | "trunk"
            | "latest"
    ) || lower.starts_with("release/")
        || lower.starts_with("release-")
}

#[expect(
    clippy::too_many_arguments,
    reason = "one act of one step; grouping would only hide the parts"
)]
fn push(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    job: &Job,
    act: &Act,
    names: &Names<'_>,
    way: &Way,
    credential: &Credential,
    target: &Target,
) {
    if let Target::Elsewhere(place) = target {
        elsewhere(engine, run, act, way, credential, place);
        return;
    }
    if !permitted(engine, run, job, credential, &["contents"]) {
        return;
    }
    let Some(reference) = names.destination(target) else {
        return;
    };
    if let Reference::Tag(name) = reference {
        tag(engine, run, job, act, way, credential, name);
        return;
    }
    merge::push(
        engine,
        run.repository,
        &reference,
        credential,
        (&act.file, act.line),
        &act.what,
        way,
        false,
    );
    if *target == Target::CurrentAndTags {
        tag(engine, run, job, act, way, credential, None);
    }
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

fn tag(
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
    let gate = merge::tag_gate(engine, run.repository, false);
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
    if credential.fires() {
        let event = Event {
            reference: Reference::Tag(name),
            releases: true,
            ..Event::new(run.repository, "push", "", credential.actor())
        };
        engine.happens(event, way);
    }
}

fn agent_step(
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
    if agent.checks_actor
        && matches!(
            run.event.actor,
            Actor::Anyone | Actor::Bot(_) | Actor::Actions
        )
    {
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
    // An agent is where a way begins: who tasked it does not decide on what it does.
    let own = Way {
        level: Level::Clear,
        facts: 0,
        reason: None,
        ..way
    };
    // An app's rights are those of its installation, whatever `permissions` says; but who wrote
    // `contents: read` may have installed it so.
    let declared = job
        .permissions
        .as_ref()
        .or(run.workflow.permissions.as_ref());
    let gate = match (&credential, declared) {
        (Credential::App(app), Some(permissions))
            if agent.token.is_none() && !permissions.writes("contents") =>
        {
            Gate::Fact(format!(
                "whether the app {app} may write here: its rights are its installation's, not those of `permissions`"
            ))
        }
        _ => Gate::Clear,
    };
    let own = engine.step(&own, step, &gate);
    if state
        .agent
        .as_ref()
        .is_none_or(|known| known.level >= own.level)
    {
        state.agent = Some(own.clone());
    }
    if writes && agent.shell {
        let merges = agent
            .tools
            .as_ref()
            .is_none_or(|tools| agents::may_merge(tools));
        capabilities(engine, run, job, agent, &credential, &own, merges);
    }
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

/// What an agent can do by itself with a token that writes and a shell that pushes.
fn capabilities(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    job: &Job,
    agent: &Agent,
    credential: &Credential,
    way: &Way,
    _merges: bool,
) {
    let place = (agent.file.as_str(), agent.line);
    let what = format!("{} can push with {}", agent.name, credential.words());
    merge::push(
        engine,
        run.repository,
        &Reference::Default,
        credential,
        place,
        &what,
        way,
        true,
    );
    let base = PathStep {
        file: agent.file.clone(),
        line: agent.line,
        actor: agent.name.to_owned(),
        credential: credential.words(),
        event: String::new(),
        why: what,
    };
    if credential.fires() {
        let gate = merge::tag_gate(engine, run.repository, true);
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

impl Engine<'_> {
    /// Notes every sink that the files hold, so that those no way reaches are told too.
    pub(super) fn register_sinks(&mut self, repository: usize) {
        let Some(subject) = self.subject(repository) else {
            return;
        };
        for workflow in &subject.workflows {
            for job in &workflow.jobs {
                let rehearsal = job
                    .environment
                    .as_ref()
                    .is_some_and(|(name, _)| is_rehearsal(name));
                for step in &job.steps {
                    self.register_step(repository, step, rehearsal);
                }
            }
        }
    }

    fn register_step(&mut self, repository: usize, step: &Step, rehearsal: bool) {
        for act in &step.acts {
            let kind = match &act.op {
                Op::Publish => SinkKind::Publish,
                Op::Deploy { .. } => SinkKind::Deploy,
                Op::Release { .. } => SinkKind::Release,
                Op::Push(_)
                | Op::CreatePr(_)
                | Op::Merge { .. }
                | Op::Approve
                | Op::Label(_)
                | Op::Comment(_)
                | Op::Issue
                | Op::Tag(_)
                | Op::Dispatch { .. }
                | Op::RepositoryDispatch { .. }
                | Op::Check(_)
                | Op::Local(_) => continue,
            };
            let benign = act.benign.or_else(|| {
                (rehearsal && kind == SinkKind::Deploy)
                    .then_some("the environment's name says that it is not production")
            });
            self.register(
                repository,
                kind,
                &sink_name(act, kind.word()),
                (&act.file, act.line),
                benign,
            );
        }
        if let Some(inner) = &step.inner {
            for step in &inner.steps {
                self.register_step(repository, step, rehearsal);
            }
        }
    }
}
