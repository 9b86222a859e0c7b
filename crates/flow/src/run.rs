//! Runs: one execution of an agent under one task, and what is lent to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_model::event::{
    Body, CallObserved, CallsObserved, LeaseKind, LeaseRefused, PromptSeen, RequestDenied, RunEnd,
    RunEnded, RunStarted, TaintAdded,
};
use portcullis_model::statement::Command;
use portcullis_model::task::Windows;
use portcullis_model::{
    AgentId, Containment, Digest, EndpointId, Event, HostId, HumanId, Principal, Refusal, RunId,
    Task, TaskId, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::breaker;
use crate::cause::containment_on;
use crate::entities::Ends;
use crate::inventory::mismatch;
use crate::review::{Frozen, Resumed, Seen};
use crate::state::{State, change_in, edit_in, find};
use crate::task::check_timely;

/// A run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Its task.
    pub task: TaskId,
    /// Its agent.
    pub agent: AgentId,
    /// Who signed the task.
    pub signer: HumanId,
    /// Where it runs.
    pub host: HostId,
    /// Thumbprint of its key.
    pub key: String,
    /// How much we control of it.
    pub containment: Containment,
    /// When it began.
    pub started: Timestamp,
    /// When the launcher ends it.
    pub deadline: Timestamp,
    /// What is lent to it.
    pub leases: Vec<LeaseKind>,
    /// Which of them were refused after its end.
    pub refused: BTreeSet<LeaseKind>,
    /// Labels of the sources that it read and its task does not trust.
    pub taint: BTreeSet<String>,
    /// What its models were told, by endpoint.
    pub prompts: BTreeMap<EndpointId, Prompts>,
    /// What of it changed within the run: `asked`, `served`, `system`, `tools`, `instructions`.
    pub model_changes: BTreeSet<String>,
    /// What it used.
    pub used: Used,
    /// In which windows it works.
    pub windows: Windows,
    /// The window that it is in, counted from 1.
    pub window: u64,
    /// When that began.
    pub window_began: Timestamp,
    /// What was looked at already.
    pub seen: Seen,
    /// Since when it stands still, if it does.
    pub frozen: Option<Frozen>,
    /// How it last went on after that.
    pub resumed: Option<Resumed>,
    /// Number of its newest checkpoint; 0 for none.
    pub checkpoint: u64,
    /// The checkpoints that its workspace can be wound back to, by number.
    pub checkpoints: BTreeMap<u64, Digest>,
    /// How it ended, if it did.
    pub end: Option<(Timestamp, RunEnd)>,
}

/// What a run's model at one endpoint was told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompts {
    /// At first.
    pub first: PromptSeen,
    /// Last.
    pub last: PromptSeen,
    /// How many were recorded.
    pub seen: u32,
}

/// Most prompts of one run at one endpoint that are recorded. An agent that changes its prompt more
/// often has it changed, and more entries say no more.
pub const PROMPTS_MAX: u32 = 64;

/// What a run used of its budgets.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Used {
    /// Accepted pushes.
    pub pushes: u64,
    /// Calls.
    pub calls: u64,
    /// Denials.
    pub denials: u64,
}

impl Ends for Run {
    fn is_over(&self) -> bool {
        self.end.is_some()
    }
}

impl Run {
    /// Checks that the run goes on at `now`.
    ///
    /// # Errors
    /// It ended, its deadline is over, or it stands still.
    pub fn require_active(&self, now: Timestamp) -> Result<(), Refusal> {
        self.require_not_over(now)?;
        match &self.frozen {
            None => Ok(()),
            Some(stop) => Err(Refusal::denied(
                "run-frozen",
                format!("{} stands still since {}", self.id, stop.since),
            )
            .expected("a run that goes on")
            .received(&stop.stop.because.join(", "))
            .next("people let it go on: `portcullis request list`")),
        }
    }

    /// Checks that the run is not over at `now`; it may stand still.
    ///
    /// # Errors
    /// It ended, or its deadline is over.
    pub fn require_not_over(&self, now: Timestamp) -> Result<(), Refusal> {
        if let Some((at, end)) = &self.end {
            return Err(
                Refusal::denied("run-ended", format!("{} ended at {at}", self.id))
                    .expected("an active run")
                    .received(&format!("{end:?}"))
                    .next("what was lent to it is void; start a new run under a new task"),
            );
        }
        if now >= self.deadline {
            return Err(Refusal::denied(
                "run-deadline",
                format!("{} is past its deadline", self.id),
            )
            .expected(&format!("a time before {}", self.deadline))
            .received(&now.to_string()));
        }
        Ok(())
    }

    /// The commit identity that the run writes under: name and mail address.
    pub fn commit_identity(&self, trust_domain: &str) -> (String, String) {
        (
            format!("{} ({})", self.agent, self.id),
            format!("{}+{}@agents.{trust_domain}", self.agent, self.id),
        )
    }

    /// Its SPIFFE id.
    pub fn spiffe_id(&self, trust_domain: &str) -> String {
        format!(
            "spiffe://{trust_domain}/agent/{}/run/{}",
            self.agent, self.id
        )
    }
}

/// Everything that a run under this task may be lent.
pub fn leases_of(task: &Task) -> Vec<LeaseKind> {
    let git = task
        .targets
        .iter()
        .map(|target| LeaseKind::Git(target.repository.clone()));
    let endpoints = task
        .capabilities
        .endpoints
        .iter()
        .cloned()
        .map(LeaseKind::Endpoint);
    let hosts = task.capabilities.hosts.iter().cloned().map(LeaseKind::Host);
    let tunnels = task.capabilities.tunnels.iter().cloned();
    std::iter::once(LeaseKind::Identity)
        .chain(git)
        .chain(endpoints)
        .chain(hosts)
        .chain(tunnels.map(LeaseKind::Tunnel))
        .collect()
}

/// A run begins: the host signed for it, its task stands, its agent is active, no breaker is
/// tripped.
pub(crate) fn started(state: &mut State, event: &Event, body: &RunStarted) -> Result<(), Refusal> {
    let host = match &event.actor.principal {
        Principal::Host(id) if *id == body.host => id.clone(),
        other => {
            return Err(
                Refusal::denied("wrong-host", "a run is started by the host it runs on")
                    .expected(&format!("host:{}", body.host))
                    .received(&other.to_string()),
            );
        }
    };
    state.inventory.host(&host, event.time)?;
    match state.take_command(event, &body.envelope)? {
        Command::StartRun {
            run_key,
            gaps,
            task,
            ..
        } if run_key == body.run_key
            && gaps == body.gaps
            && Digest::of(&task.payload_bytes()?) == body.task.0 => {}
        other => return Err(mismatch("start-run with this task and key", &other)),
    }
    state.check_decision(&body.decision)?;
    let task = Arc::clone(find("task", &state.tasks, &body.task)?);
    let payload = &task.payload;
    check_timely(payload, event.time)?;
    state.inventory.human(&payload.signer)?;
    let agent = state.inventory.agent(&payload.agent, event.time)?;
    if body.agent != payload.agent {
        return Err(
            Refusal::denied("wrong-agent", "the task is for another agent")
                .expected(payload.agent.as_str())
                .received(body.agent.as_str()),
        );
    }
    breaker::require_closed(
        state,
        Some(&body.agent),
        payload.targets.iter().map(|target| &target.repository),
        None,
    )?;
    let wider = crate::task::wider_than_agent(payload, agent);
    if !wider.is_empty() {
        return Err(Refusal::denied(
            "task-wider-than-agent",
            "the task allows more than its agent may do",
        )
        .received(&wider.join(", "))
        .next("narrow the task, or have the agent's record widened by a quorum"));
    }
    if task.runs >= payload.budgets.runs {
        return Err(
            Refusal::denied("task-used-up", "the task's runs are used up")
                .expected(&format!("at most {} runs", payload.budgets.runs))
                .received(&format!("{} started already", task.runs))
                .next("sign a new task; one task is good for as many runs as it says"),
        );
    }
    let containment = containment_on(state, &host);
    if containment < payload.containment {
        return Err(
            Refusal::denied("containment-too-weak", "the task demands more containment")
                .expected(&payload.containment.to_string())
                .received(&containment.to_string())
                .next("start it on a managed host"),
        );
    }
    let unexpected: Vec<_> = body
        .gaps
        .difference(&payload.allowed_gaps)
        .cloned()
        .collect();
    if !unexpected.is_empty() {
        return Err(Refusal::denied(
            "protection-missing",
            "the host lacks protections of the sandbox",
        )
        .expected("every protection, or gaps that the task's signature allows")
        .received(&unexpected.join(", "))
        .next("see `portcullis doctor`; or allow the gap in the task with --allow-gap NAME"));
    }
    let lendable = leases_of(payload);
    if let Some(other) = body.leases.iter().find(|lease| !lendable.contains(lease)) {
        return Err(Refusal::denied(
            "lease-not-in-task",
            format!("the task does not let {other} be lent"),
        )
        .expected(&format!("{lendable:?}"))
        .received(&other.to_string()));
    }
    let run = Run {
        id: RunId(event.index),
        task: body.task,
        agent: body.agent.clone(),
        signer: payload.signer.clone(),
        host,
        key: body.run_key.clone(),
        containment,
        started: event.time,
        deadline: body
            .deadline
            .min(payload.expires)
            .min(event.time.plus_ms(payload.budgets.wall_ms)),
        leases: body.leases.clone(),
        refused: BTreeSet::new(),
        taint: BTreeSet::new(),
        prompts: BTreeMap::new(),
        model_changes: BTreeSet::new(),
        used: Used::default(),
        windows: payload.windows.clone(),
        window: 1,
        window_began: event.time,
        seen: Seen::default(),
        frozen: None,
        resumed: None,
        checkpoint: 0,
        checkpoints: BTreeMap::new(),
        end: None,
    };
    state.runs.insert(run.id, Arc::new(run));
    change_in("task", &mut state.tasks, &body.task, |task| task.runs += 1)
}

/// A run ends, by its host, by the server, or by a person.
pub(crate) fn ended(state: &mut State, event: &Event, body: &RunEnded) -> Result<(), Refusal> {
    let run = find("run", &state.runs, &body.run)?;
    if run.end.is_some() {
        return Err(Refusal::conflict(
            "run-ended",
            format!("{} has ended already", body.run),
        ));
    }
    let host = run.host.clone();
    match (&event.actor.principal, &body.envelope) {
        (Principal::Host(id), Some(envelope)) if *id == host => {
            match (state.take_command(event, envelope)?, &body.end) {
                (
                    Command::RunEnded {
                        run,
                        exit,
                        deadline: false,
                    },
                    RunEnd::Exited { status },
                ) if run == body.run && exit == *status => {}
                (
                    Command::RunEnded {
                        run,
                        deadline: true,
                        ..
                    },
                    RunEnd::Deadline,
                ) if run == body.run => {}
                (other, _) => return Err(mismatch("run-ended with this status", &other)),
            }
        }
        (Principal::Human(id), Some(envelope)) => {
            state.inventory.human(id)?;
            match (state.take_command(event, envelope)?, &body.end) {
                (Command::EndRun { run, why }, RunEnd::Human { why: said })
                    if run == body.run && why == *said => {}
                (other, _) => return Err(mismatch("end-run of this run", &other)),
            }
        }
        (Principal::Service(_), None) => state.require_control(event)?,
        (other, _) => {
            return Err(Refusal::denied(
                "not-allowed",
                "only its host, the server or a person ends a run",
            )
            .received(&other.to_string()));
        }
    }
    let (time, end) = (event.time, body.end.clone());
    edit_in("run", &mut state.runs, &body.run, |run| {
        run.end = Some((time, end))
    })
}

/// Ends every active run that matches.
pub(crate) fn end_all(
    state: &mut State,
    now: Timestamp,
    end: &RunEnd,
    which: impl Fn(&Run) -> bool,
) {
    let ids: Vec<RunId> = state
        .runs
        .open()
        .filter(|run| which(run))
        .map(|run| run.id)
        .collect();
    for id in ids {
        state
            .runs
            .edit(&id, |run| run.end = Some((now, end.clone())));
    }
}

/// The entry is about a run, by that run.
pub(crate) fn require_run(state: &State, event: &Event, id: RunId) -> Result<(), Refusal> {
    let run = find("run", &state.runs, &id)?;
    if event.actor.principal == Principal::Agent(run.agent.clone(), Some(id)) {
        return Ok(());
    }
    Err(Refusal::denied(
        "wrong-actor",
        "the entry is not by the run that it is about",
    )
    .expected(&format!("agent:{}/{id}", run.agent))
    .received(&event.actor.principal.to_string()))
}

/// Something was denied; the count is state, the rest is told by the entry.
pub(crate) fn denied(
    state: &mut State,
    event: &Event,
    body: &RequestDenied,
) -> Result<(), Refusal> {
    match body.run {
        Some(id) => require_run(state, event, id)?,
        None => state.require_active_human(event)?,
    }
    match body.run {
        Some(id) => edit_in("run", &mut state.runs, &id, |run| run.used.denials += 1),
        None => Ok(()),
    }
}

/// What was decided before a run was halted is not granted after it.
fn require_unhalted(state: &State, run: &Run, time: Timestamp) -> Result<(), Refusal> {
    run.require_active(time)?;
    let repositories = run.leases.iter().filter_map(|lease| match lease {
        LeaseKind::Git(id) => Some(id),
        LeaseKind::Identity
        | LeaseKind::Endpoint(_)
        | LeaseKind::Host(_)
        | LeaseKind::Tunnel(_) => None,
    });
    breaker::require_closed(state, Some(&run.agent), repositories, None)
}

/// Whether a run may make the calls that an entry grants, by what is in the ledger before it: it is
/// not halted, and its budget holds them. Each was decided before those beside it were counted.
///
/// Not part of the fold: entries from before this was looked at stand as they are.
pub(crate) fn require_leave(state: &State, event: &Event) -> Result<(), Refusal> {
    let (run, calls) = match &event.body {
        Body::CallObserved(body) => (body.run, 1),
        Body::CallsObserved(body) => {
            let counts = body.granted.iter().map(|granted| granted.count);
            (body.run, counts.fold(0, u64::saturating_add))
        }
        _ => return Ok(()),
    };
    if calls == 0 {
        return Ok(());
    }
    let run = find("run", &state.runs, &run)?;
    require_unhalted(state, run, event.time)?;
    let budget = find("task", &state.tasks, &run.task)?.payload.budgets.calls;
    if run.used.calls.saturating_add(calls) <= budget {
        return Ok(());
    }
    Err(
        Refusal::denied("calls-used-up", "the run's budget of calls is used up")
            .expected(&format!("at most {budget}"))
            .next("end the run; a new task can carry a new budget"),
    )
}

/// A call was made; only its count is state.
pub(crate) fn call_observed(
    state: &mut State,
    event: &Event,
    body: &CallObserved,
) -> Result<(), Refusal> {
    require_run(state, event, body.run)?;
    let run = find("run", &state.runs, &body.run)?;
    if !run.leases.contains(&body.lease) {
        return Err(Refusal::denied(
            "not-lent",
            format!("{} was not lent to {}", body.lease, body.run),
        ));
    }
    edit_in("run", &mut state.runs, &body.run, |run| run.used.calls += 1)
}

/// Calls were granted or ended together; of the granted ones the count is state.
pub(crate) fn calls_observed(
    state: &mut State,
    event: &Event,
    body: &CallsObserved,
) -> Result<(), Refusal> {
    require_run(state, event, body.run)?;
    let run = find("run", &state.runs, &body.run)?;
    let granted = body.granted.iter().map(|granted| &granted.lease);
    let ended = body.ended.iter().map(|ended| &ended.lease);
    for lease in granted.chain(ended) {
        if !run.leases.contains(lease) {
            return Err(Refusal::denied(
                "not-lent",
                format!("{lease} was not lent to {}", body.run),
            ));
        }
    }
    if !body.granted.is_empty() {
        require_unhalted(state, run, event.time)?;
    }
    let counts = body.granted.iter().map(|granted| granted.count);
    let granted = counts.fold(0_u64, u64::saturating_add);
    let lengths = body.ended.iter().map(|ended| ended.bytes.len() as u64);
    let calls = lengths.fold(granted, u64::saturating_add);
    let empty = body.granted.iter().any(|granted| granted.count == 0)
        || body.ended.iter().any(|ended| ended.bytes.is_empty());
    if empty || !(1..=CallsObserved::MAX_CALLS).contains(&calls) {
        return Err(Refusal::malformed("calls")
            .expected(&format!(
                "1 to {} calls, and at least one of each lease that is named",
                CallsObserved::MAX_CALLS
            ))
            .received(&calls.to_string()));
    }
    edit_in("run", &mut state.runs, &body.run, |run| {
        run.used.calls = run.used.calls.saturating_add(granted);
    })
}

/// A model is told something else than before, or another one answers. What is the same as the last
/// is no news and is refused, so that calls alone make no entries.
pub(crate) fn prompt_seen(
    state: &mut State,
    event: &Event,
    body: &PromptSeen,
) -> Result<(), Refusal> {
    state.require_control(event)?;
    let run = find("run", &state.runs, &body.run)?;
    let lease = LeaseKind::Endpoint(body.endpoint.clone());
    if !run.leases.contains(&lease) {
        return Err(Refusal::denied(
            "not-lent",
            format!("{lease} was not lent to {}", body.run),
        ));
    }
    let known = run.prompts.get(&body.endpoint);
    if known.is_some_and(|known| known.last == *body || known.seen >= PROMPTS_MAX) {
        return Err(Refusal::conflict(
            "prompt-known",
            format!("{} said so already, or as often as is recorded", body.run),
        ));
    }
    edit_in("run", &mut state.runs, &body.run, |run| {
        let prompts = run
            .prompts
            .entry(body.endpoint.clone())
            .or_insert_with(|| Prompts {
                first: body.clone(),
                last: body.clone(),
                seen: 0,
            });
        let first = &prompts.first;
        let changed = [
            ("asked", first.model_asked != body.model_asked),
            ("served", body.model_served.is_some()),
            ("system", first.system != body.system),
            ("tools", first.tools != body.tools),
            ("instructions", first.instructions != body.instructions),
        ];
        prompts.last = body.clone();
        prompts.seen += 1;
        let changed = changed.iter().filter(|(_, is)| *is);
        run.model_changes
            .extend(changed.map(|(name, _)| (*name).to_owned()));
    })
}

/// Most labels of one run, so that asking many hosts can't grow the state without bound. More say
/// nothing new: by then it is tainted.
pub const TAINT_MAX_LABELS: usize = 256;
/// Longest label, in bytes: a kind, a name of 253 bytes and a port.
const LABEL_MAX_BYTES: usize = 280;
/// Longest origin, in bytes.
const ORIGIN_MAX_BYTES: usize = 512;

/// A run reads from a source that its task does not trust. Each label counts once, and stays.
pub(crate) fn taint_added(
    state: &mut State,
    event: &Event,
    body: &TaintAdded,
) -> Result<(), Refusal> {
    state.require_control(event)?;
    let run = find("run", &state.runs, &body.run)?;
    let printable = |text: &str, most: usize| {
        (1..=most).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() || byte == b' ')
    };
    if !printable(&body.label, LABEL_MAX_BYTES) || !printable(&body.origin, ORIGIN_MAX_BYTES) {
        return Err(Refusal::malformed("taint label")
            .expected("a label and an origin in printable ASCII")
            .received(&body.label));
    }
    if run.taint.contains(&body.label) || run.taint.len() >= TAINT_MAX_LABELS {
        return Err(Refusal::conflict(
            "already-tainted",
            format!(
                "{} carries that label already, or as many as it can",
                body.run
            ),
        ));
    }
    let label = body.label.clone();
    edit_in("run", &mut state.runs, &body.run, |run| {
        run.taint.insert(label);
    })
}

/// Something lent to a run that ended was refused for the first time.
pub(crate) fn lease_refused(
    state: &mut State,
    event: &Event,
    body: &LeaseRefused,
) -> Result<(), Refusal> {
    state.require_control(event)?;
    let run = find("run", &state.runs, &body.run)?;
    if run.end.is_none() || run.refused.contains(&body.lease) || !run.leases.contains(&body.lease) {
        return Err(Refusal::conflict(
            "not-first-refusal",
            "this is not the first refusal of a void lease",
        ));
    }
    let lease = body.lease.clone();
    edit_in("run", &mut state.runs, &body.run, |run| {
        run.refused.insert(lease);
    })
}
