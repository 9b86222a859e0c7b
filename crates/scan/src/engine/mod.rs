//! From events to sinks: which events can happen without a person, what they start, what that
//! does, which events follow, and what it reaches.
//!
//! It is one search for shortest ways, ordered first by how much stands in between (nothing, a
//! fact that the files don't tell, a person), then by length. A person's edge does not end a way;
//! it raises its level to [`Level::Human`]. So the best way to a sink gives the verdict: level
//! *clear* is reachable, *fact* depends, *human* is cut, and the way is the witness.

mod agent;
mod credentials;
mod merge;
mod perform;
mod places;
mod pushes;
mod rights;
mod run;
mod scope;
pub(crate) mod seeds;
mod trigger;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::acts::SinkKind;
use crate::bots::Bot;
use crate::settings::Settings;
use crate::workflow::Workflow;

/// Most events processed for one repository set under one assumption.
const EVENTS_MAX: usize = 20_000;

/// What is taken for granted about the forge's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Assumption {
    /// No branch protection, no environment reviewers, permissive default token.
    Unprotected,
    /// The default branch takes pull requests with one approval only; named environments may ask
    /// for reviewers; the default token reads.
    Protected,
    /// What the settings file says.
    Settings,
}

impl Assumption {
    /// The word that the reports use.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unprotected => "unprotected",
            Self::Protected => "protected",
            Self::Settings => "settings",
        }
    }
}

/// One step of a path; [`crate::report::PathStep`] adds the source line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathStep {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) actor: String,
    pub(crate) credential: String,
    pub(crate) event: String,
    pub(crate) why: String,
}

/// Who starts or does something.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Actor {
    /// Someone with write access, by hand.
    Person,
    /// Any account: a stranger, or a stranger's bot.
    Anyone,
    /// A known app by its login, `dependabot[bot]`.
    Bot(String),
    /// `github-actions[bot]`: the workflow's own token.
    Actions,
    /// Whoever owns a personal token.
    Machine,
    /// An app whose token a workflow made.
    App,
    /// The clock.
    Clock,
    /// A system outside, by API.
    Elsewhere,
}

impl Actor {
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Person => "a person with write access".to_owned(),
            Self::Anyone => "any account".to_owned(),
            Self::Bot(login) => login.clone(),
            Self::Actions => "github-actions[bot]".to_owned(),
            Self::Machine => "the owner of a personal token".to_owned(),
            Self::App => "an app".to_owned(),
            Self::Clock => "the schedule".to_owned(),
            Self::Elsewhere => "another system, by API".to_owned(),
        }
    }
}

/// With what an act is done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Credential {
    None,
    /// The job's own token: what it does starts no workflow, apart from dispatches.
    Default,
    /// A secret: a personal token or a machine account's.
    Secret(String),
    /// A token that an app gives out.
    App(String),
    /// An app's token that was asked for with certain rights only: the scopes that it may write.
    Limited(Vec<String>),
    DeployKey(String),
    /// A registry's or cloud's.
    Outside,
}

impl Credential {
    /// Whether the forge starts workflows on what is done with it.
    pub(crate) fn fires(&self) -> bool {
        matches!(
            self,
            Self::Secret(_) | Self::App(_) | Self::Limited(_) | Self::DeployKey(_)
        )
    }

    pub(crate) fn actor(&self) -> Actor {
        match self {
            Self::None | Self::Default | Self::Outside => Actor::Actions,
            Self::Secret(_) | Self::DeployKey(_) => Actor::Machine,
            Self::Limited(_) => Actor::App,
            Self::App(name) if name.is_empty() => Actor::App,
            Self::App(name) => Actor::Bot(format!("{name}[bot]")),
        }
    }

    pub(crate) fn words(&self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Default => "GITHUB_TOKEN".to_owned(),
            // A variable of another system's project.
            Self::Secret(name) if name.contains(' ') => format!("a secret {name}"),
            Self::Secret(name) => format!("secrets.{name}"),
            Self::Limited(_) => "an app's token with some rights only".to_owned(),
            Self::App(name) if name.is_empty() => "an app's token".to_owned(),
            Self::App(name) => format!("the token of the app {name}"),
            Self::DeployKey(name) => format!("deploy key {name}"),
            Self::Outside => "registry or cloud credentials of the job".to_owned(),
        }
    }
}

/// A branch or tag.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reference {
    Default,
    Branch(String),
    /// A branch whose name the files don't tell.
    Other,
    Tag(Option<String>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PullRequest {
    pub(crate) author: Actor,
    pub(crate) head: Option<String>,
    pub(crate) labels: Vec<String>,
    pub(crate) fork: bool,
    /// Merging it releases.
    pub(crate) release: bool,
    /// The branch it aims at; `None` is the default one.
    pub(crate) base: Option<String>,
    pub(crate) files: Files,
}

/// The files that a push or a pull request changes; `None` where whoever makes it chooses them.
pub(crate) type Files = Option<Arc<[String]>>;

/// Something that happened on the forge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Event {
    pub(crate) repository: usize,
    /// As in `on:`; `pull_request` stands for `pull_request_target` too.
    pub(crate) name: &'static str,
    pub(crate) activity: &'static str,
    pub(crate) actor: Actor,
    pub(crate) reference: Reference,
    pub(crate) pull_request: Option<PullRequest>,
    /// `labeled`: which. `None` is any.
    pub(crate) label: Option<String>,
    /// A comment's text, where it is known.
    pub(crate) text: Option<String>,
    pub(crate) merged: bool,
    /// The push holds a merged release pull request, or a person's own version.
    pub(crate) releases: bool,
    /// `workflow_run`, dispatches, schedules: which workflow.
    pub(crate) workflow: Option<usize>,
    /// `workflow_run`: the event that started the run before.
    pub(crate) upstream: Option<&'static str>,
    /// `workflow_run`: the run before failed, as a push of its was refused.
    pub(crate) failed: bool,
    /// Runs in a row that `workflow_run` chained.
    pub(crate) chained: u8,
    pub(crate) kind: Option<String>,
    /// For path filters of pushes; a pull request knows its own.
    pub(crate) files: Files,
    /// Made with the default workflow token: GitHub Actions starts nothing, other systems do.
    pub(crate) quiet: bool,
}

impl Event {
    pub(crate) fn new(
        repository: usize,
        name: &'static str,
        activity: &'static str,
        actor: Actor,
    ) -> Self {
        Self {
            repository,
            name,
            activity,
            actor,
            reference: Reference::Default,
            pull_request: None,
            label: None,
            text: None,
            merged: false,
            releases: false,
            workflow: None,
            upstream: None,
            failed: false,
            chained: 0,
            kind: None,
            files: None,
            quiet: false,
        }
    }

    pub(crate) fn words(&self) -> String {
        let mut text = self.name.to_owned();
        if !self.activity.is_empty() {
            text.push(' ');
            text.push_str(self.activity);
        }
        match (&self.reference, self.name) {
            (Reference::Default, "push") => text.push_str(" to the default branch"),
            (Reference::Branch(name), "push") => {
                text.push_str(" to ");
                text.push_str(name);
            }
            (Reference::Other, "push") => text.push_str(" to another branch"),
            (Reference::Tag(_), "push") => text.push_str(" of a tag"),
            (
                Reference::Default | Reference::Branch(_) | Reference::Other | Reference::Tag(_),
                _,
            ) => {}
        }
        text
    }
}

/// How much stands in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Level {
    Clear,
    Fact,
    Human,
}

/// What a step of a way costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Clear,
    /// A fact outside the files decides.
    Fact(String),
    /// A person decides.
    Human(String),
}

/// A way so far.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) level: Level,
    pub(crate) facts: u32,
    pub(crate) length: u32,
    /// The deciding fact, or the person's edge.
    pub(crate) reason: Option<Arc<str>>,
    /// The first fact, whoever decides besides.
    pub(crate) fact: Option<Arc<str>>,
    pub(crate) node: Option<usize>,
}

impl Way {
    pub(crate) fn start() -> Self {
        Self {
            level: Level::Clear,
            facts: 0,
            length: 0,
            reason: None,
            fact: None,
            node: None,
        }
    }

    pub(crate) fn gated(&self, gate: &Gate) -> Self {
        let mut way = self.clone();
        match gate {
            Gate::Clear => {}
            Gate::Fact(fact) => {
                way.facts += 1;
                way.fact.get_or_insert_with(|| fact.as_str().into());
                if way.level < Level::Fact {
                    way.level = Level::Fact;
                    way.reason.clone_from(&way.fact);
                }
            }
            Gate::Human(edge) => {
                if way.level < Level::Human {
                    way.level = Level::Human;
                    way.reason = Some(edge.as_str().into());
                }
            }
        }
        way
    }

    fn cost(&self) -> (Level, u32, u32) {
        (self.level, self.facts, self.length)
    }
}

/// A sink and the best way to it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) repository: usize,
    pub(crate) kind: SinkKind,
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) way: Option<Way>,
    /// Why it is not production, where every way to it says so.
    pub(crate) benign: Option<&'static str>,
}

/// An agent's step that can run, and what it holds there.
#[derive(Clone, Debug)]
pub(crate) struct AgentRun {
    pub(crate) repository: usize,
    pub(crate) name: &'static str,
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) event: &'static str,
    /// Whether accounts without rights can task it.
    pub(crate) open: bool,
    pub(crate) credentials: Vec<Credential>,
    pub(crate) writes: bool,
    pub(crate) shell: bool,
}

/// A repository as the engine needs it.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) slug: Option<String>,
    pub(crate) default_branch: String,
    /// Whether git or the settings name it; otherwise it is guessed from the workflows.
    pub(crate) default_known: bool,
    pub(crate) workflows: Vec<Workflow>,
    pub(crate) bots: Vec<Bot>,
    pub(crate) codeowners: Option<String>,
    pub(crate) settings: Option<Settings>,
}

/// What came out under one assumption.
pub(crate) struct Outcome {
    pub(crate) sinks: Vec<Found>,
    pub(crate) agents: Vec<AgentRun>,
    pub(crate) assumed: Vec<String>,
    nodes: Vec<Node>,
    /// Workflow runs that can start without a person, as (repository, workflow).
    pub(crate) truncated: bool,
}

#[derive(Clone, Debug)]
struct Node {
    before: Option<usize>,
    step: PathStep,
}

impl Outcome {
    /// The steps of a way, first first.
    pub(crate) fn path(&self, way: &Way) -> Vec<PathStep> {
        /// Longest path that is shown, in steps.
        const STEPS_MAX: usize = 64;
        let mut out = Vec::new();
        let mut at = way.node;
        while let Some(index) = at {
            let Some(node) = self.nodes.get(index) else {
                break;
            };
            out.push(node.step.clone());
            at = node.before;
            if out.len() >= STEPS_MAX {
                break;
            }
        }
        out.reverse();
        out
    }
}

pub(crate) struct Engine<'a> {
    pub(crate) subjects: &'a [Subject],
    pub(crate) assumption: Assumption,
    heap: BinaryHeap<Reverse<(Level, u32, u32, usize)>>,
    queue: Vec<Option<(Event, Way)>>,
    best: HashMap<Event, (Level, u32, u32)>,
    nodes: Vec<Node>,
    sinks: BTreeMap<(usize, SinkKind, String, String), Found>,
    agents: Vec<AgentRun>,
    assumed: Vec<String>,
    /// Whose pull requests automation approves, from the pass before: author and level.
    approvals: HashMap<(usize, Actor), (Level, String)>,
    approvals_seen: HashMap<(usize, Actor), (Level, String)>,
    truncated: bool,
    /// Workflows that the present run has called.
    called: usize,
    /// What a push of the present run waits for, without which the run fails.
    refused: Option<Gate>,
    /// Names of workflows that some `workflow_run` waits for, by repository.
    listened: Vec<Vec<String>>,
    /// The workflows that listen for an event and can do anything, or start one that can, by
    /// repository and by the event's name.
    listening: Vec<HashMap<&'a str, Arc<[usize]>>>,
}

/// Searches under one assumption.
pub(crate) fn search(subjects: &[Subject], assumption: Assumption) -> Outcome {
    /// Passes until the approvals that automation gives are known.
    const PASSES_MAX: usize = 3;
    let mut approvals = HashMap::new();
    for _ in 0..PASSES_MAX {
        let mut engine = Engine::new(subjects, assumption, approvals.clone());
        engine.go();
        if assumption == Assumption::Unprotected || engine.approvals_seen == approvals {
            return engine.finish();
        }
        approvals = engine.approvals_seen;
    }
    let mut engine = Engine::new(subjects, assumption, approvals);
    engine.go();
    engine.finish()
}

/// Which workflows of a repository matter to the search.
fn active(subject: &Subject) -> Vec<bool> {
    fn does_something(step: &crate::workflow::Step) -> bool {
        !step.acts.is_empty()
            || !step.agents.is_empty()
            || step
                .inner
                .as_ref()
                .is_some_and(|inner| inner.steps.iter().any(does_something))
    }
    let names = listened(subject);
    subject
        .workflows
        .iter()
        .map(|workflow| {
            names
                .iter()
                .any(|name| name == &workflow.name || crate::glob::matches(name, &workflow.name))
                || workflow
                    .jobs
                    .iter()
                    .any(|job| job.call.is_some() || job.steps.iter().any(does_something))
        })
        .collect()
}

/// Which of them listen for which event.
fn listening(subject: &Subject) -> HashMap<&str, Arc<[usize]>> {
    let mut out: HashMap<&str, Vec<usize>> = HashMap::new();
    let active = active(subject);
    let workflows = subject.workflows.iter().enumerate().zip(active);
    for ((index, workflow), _) in workflows.filter(|(_, active)| *active) {
        for trigger in &workflow.triggers {
            let name = match trigger.event.as_str() {
                "pull_request_target" => "pull_request",
                other => other,
            };
            let list = out.entry(name).or_default();
            if list.last() != Some(&index) {
                list.push(index);
            }
        }
    }
    out.into_iter()
        .map(|(name, list)| (name, list.into()))
        .collect()
}

/// Names that `workflow_run` triggers of a repository wait for.
fn listened(subject: &Subject) -> Vec<String> {
    let mut names: Vec<String> = subject
        .workflows
        .iter()
        .flat_map(|workflow| &workflow.triggers)
        .filter(|trigger| trigger.event == "workflow_run")
        .flat_map(|trigger| trigger.workflows.iter().cloned())
        .collect();
    names.sort();
    names.dedup();
    names
}

impl<'a> Engine<'a> {
    fn new(
        subjects: &'a [Subject],
        assumption: Assumption,
        approvals: HashMap<(usize, Actor), (Level, String)>,
    ) -> Self {
        Self {
            subjects,
            assumption,
            heap: BinaryHeap::new(),
            queue: Vec::new(),
            best: HashMap::new(),
            nodes: Vec::new(),
            sinks: BTreeMap::new(),
            agents: Vec::new(),
            assumed: Vec::new(),
            approvals,
            approvals_seen: HashMap::new(),
            truncated: false,
            called: 0,
            refused: None,
            listened: subjects.iter().map(listened).collect(),
            listening: subjects.iter().map(listening).collect(),
        }
    }

    fn go(&mut self) {
        for index in 0..self.subjects.len() {
            self.register_sinks(index);
            seeds::sow(self, index);
        }
        let mut processed = 0_usize;
        while let Some(Reverse((_, _, _, at))) = self.heap.pop() {
            let Some((event, way)) = self.queue.get_mut(at).and_then(Option::take) else {
                continue;
            };
            if self.best.get(&event).is_some_and(|best| *best < way.cost()) {
                continue;
            }
            processed += 1;
            if processed > EVENTS_MAX {
                self.truncated = true;
                break;
            }
            run::event(self, &event, &way);
        }
    }

    fn finish(self) -> Outcome {
        Outcome {
            sinks: self.sinks.into_values().collect(),
            agents: self.agents,
            assumed: self.assumed,
            nodes: self.nodes,
            truncated: self.truncated,
        }
    }

    /// Notes an event that can happen along a way.
    pub(crate) fn happens(&mut self, event: Event, way: Way) {
        let cost = way.cost();
        if self.best.get(&event).is_some_and(|best| *best <= cost) {
            return;
        }
        self.best.insert(event.clone(), cost);
        self.heap
            .push(Reverse((cost.0, cost.1, cost.2, self.queue.len())));
        self.queue.push(Some((event, way)));
    }

    /// Whether another system than GitHub Actions listens here.
    pub(crate) fn has_other_systems(&self, repository: usize) -> bool {
        self.subject(repository).is_some_and(|subject| {
            subject
                .workflows
                .iter()
                .any(|workflow| workflow.system != crate::workflow::System::GitHub)
        })
    }

    /// Extends a way by a step.
    pub(crate) fn step(&mut self, way: &Way, step: PathStep, gate: &Gate) -> Way {
        let mut next = way.gated(gate);
        next.length += 1;
        self.nodes.push(Node {
            before: way.node,
            step,
        });
        next.node = Some(self.nodes.len() - 1);
        next
    }

    /// Notes that a way reaches a sink.
    pub(crate) fn reach(
        &mut self,
        repository: usize,
        kind: SinkKind,
        name: &str,
        place: (&str, usize),
        way: &Way,
    ) {
        let found = self
            .sinks
            .entry((repository, kind, place.0.to_owned(), name.to_owned()))
            .or_insert_with(|| Found {
                repository,
                kind,
                name: name.to_owned(),
                file: place.0.to_owned(),
                line: place.1,
                way: None,
                benign: None,
            });
        found.benign = None;
        if found
            .way
            .as_ref()
            .is_none_or(|best| way.cost() < best.cost())
        {
            found.way = Some(way.clone());
        }
    }

    /// Notes a sink that exists, reached or not.
    pub(crate) fn register(
        &mut self,
        repository: usize,
        kind: SinkKind,
        name: &str,
        place: (&str, usize),
        benign: Option<&'static str>,
    ) {
        self.sinks
            .entry((repository, kind, place.0.to_owned(), name.to_owned()))
            .or_insert_with(|| Found {
                repository,
                kind,
                name: name.to_owned(),
                file: place.0.to_owned(),
                line: place.1,
                way: None,
                benign,
            });
    }

    pub(crate) fn assume(&mut self, fact: &str) {
        if !self.assumed.iter().any(|known| known == fact) {
            self.assumed.push(fact.to_owned());
        }
    }

    pub(crate) fn subject(&self, index: usize) -> Option<&'a Subject> {
        self.subjects.get(index)
    }

    /// Whether the settings say that an app may write here; `None` where they don't tell.
    pub(crate) fn app_writes(&self, repository: usize, slug: &str) -> Option<bool> {
        if self.assumption != Assumption::Settings {
            return None;
        }
        self.subject(repository)?
            .settings
            .as_ref()?
            .app_writes(slug)
    }

    /// What a deployment to an environment waits for.
    pub(crate) fn environment_gate(&mut self, repository: usize, name: &str) -> Gate {
        let settings = self
            .subject(repository)
            .and_then(|subject| subject.settings.as_ref());
        match (self.assumption, settings) {
            (Assumption::Settings, Some(settings)) => match settings.environment(name) {
                Some(environment) if environment.required_reviewers > 0 => {
                    Gate::Human(format!("the environment {name} requires a reviewer"))
                }
                Some(_) => Gate::Clear,
                None if settings.environments.is_some() => Gate::Clear,
                None => Gate::Fact(format!("whether the environment {name} requires reviewers")),
            },
            (Assumption::Protected, _) if name != "github-pages" => {
                Gate::Fact(format!("whether the environment {name} requires reviewers"))
            }
            _ => {
                if name != "github-pages" && self.assumption == Assumption::Unprotected {
                    self.assume(&format!("the environment {name} has no required reviewers"));
                }
                Gate::Clear
            }
        }
    }
}
