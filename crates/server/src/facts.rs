//! From the state to the facts that policy decides on. Nothing here decides.

use std::collections::BTreeSet;

use portcullis_flow::State;
use portcullis_flow::change::Change;
use portcullis_flow::inventory::Standing;
use portcullis_flow::run::Run;
use portcullis_model::manifest::Sensitivity;
use portcullis_model::{
    AgentId, Cause, Containment, EnvironmentId, HostId, HumanId, KeyClass, Mode, Refusal,
    RepositoryId, ServiceId, TaskId, Timestamp,
};
use portcullis_policy::action::{AgentTarget, Deploys, EnvironmentTarget};
use portcullis_policy::request::{
    Actor, AgentActor, CausedBy, Circumstances, Genesis, HostActor, HumanActor, ServiceActor,
    TaskFacts,
};
use portcullis_policy::{Approval, Approvals, Party};

/// What holds around an act, in the plainest case: by its actor itself, enforced, no breaker.
///
/// # Errors
/// The ledger is empty.
pub fn circumstances(state: &State, now: Timestamp) -> Result<Circumstances, Refusal> {
    Ok(Circumstances {
        caused_by: CausedBy::Itself,
        containment: None,
        mode: Mode::Enforce,
        taint: BTreeSet::new(),
        breaker: false,
        key_class: KeyClass::Software,
        now,
        genesis: Genesis::from(state.genesis()?),
    })
}

/// As [`circumstances`], for what a run does in one repository.
///
/// # Errors
/// The ledger is empty.
pub fn circumstances_of_run(
    state: &State,
    run: &Run,
    repository: Option<&RepositoryId>,
    breaker: bool,
    now: Timestamp,
) -> Result<Circumstances, Refusal> {
    let mode = repository
        .and_then(|id| state.inventory.repositories.get(id))
        .map(|record| record.mode)
        .unwrap_or_default();
    Ok(Circumstances {
        caused_by: CausedBy::Agent,
        containment: Some(run.containment),
        mode,
        taint: run.taint.clone(),
        breaker,
        ..circumstances(state, now)?
    })
}

/// As [`circumstances`], for what somebody does with a change.
///
/// # Errors
/// The ledger is empty.
pub fn circumstances_of_change(
    state: &State,
    change: &Change,
    cause: &Cause,
    breaker: bool,
    now: Timestamp,
) -> Result<Circumstances, Refusal> {
    let containment: Option<Containment> = change
        .latest()
        .run
        .and_then(|run| state.runs.get(&run))
        .map(|run| run.containment);
    let mode = state
        .inventory
        .repositories
        .get(&change.repository)
        .map(|record| record.mode)
        .unwrap_or_default();
    Ok(Circumstances {
        caused_by: CausedBy::from(cause),
        containment,
        mode,
        taint: taint_of_change(state, change),
        breaker,
        ..circumstances(state, now)?
    })
}

/// What the runs behind a change read from sources that their tasks do not trust. Whatever steered
/// an earlier revision may stand in the newest.
pub fn taint_of_change(state: &State, change: &Change) -> BTreeSet<String> {
    let runs = change.revisions.iter().filter_map(|revision| revision.run);
    runs.filter_map(|run| state.runs.get(&run))
        .flat_map(|run| run.taint.iter().cloned())
        .collect()
}

/// What of the models, or of what they were told, changed within the runs behind a change.
pub fn model_changes(state: &State, change: &Change) -> BTreeSet<String> {
    let runs = change.revisions.iter().filter_map(|revision| revision.run);
    runs.filter_map(|run| state.runs.get(&run))
        .flat_map(|run| run.model_changes.iter())
        .cloned()
        .collect()
}

/// A person as an actor.
pub fn human(state: &State, id: &HumanId) -> Actor {
    let person = state.inventory.humans.get(id);
    Actor::Human(HumanActor {
        id: id.clone(),
        groups: state.inventory.groups_of(id).into_iter().cloned().collect(),
        administrator: person.is_some_and(|person| person.manifest.administrator),
        active: person.is_some_and(|person| person.standing == Standing::Active),
    })
}

/// A service as an actor.
pub fn service(state: &State, id: &ServiceId, now: Timestamp) -> Actor {
    Actor::Service(ServiceActor {
        id: id.clone(),
        groups: BTreeSet::new(),
        active: state.inventory.service(id, now).is_ok(),
    })
}

/// A host as an actor.
pub fn host(state: &State, id: &HostId, now: Timestamp) -> Actor {
    Actor::Host(HostActor {
        id: id.clone(),
        active: state.inventory.host(id, now).is_ok(),
    })
}

/// A run's agent as an actor.
pub fn run_actor(state: &State, run: &Run, now: Timestamp) -> Actor {
    let owner = state.inventory.agents.get(&run.agent).map_or_else(
        || run.signer.clone(),
        |record| record.manifest.owner.clone(),
    );
    Actor::Agent(AgentActor {
        id: run.agent.clone(),
        run: Some(run.id),
        owner,
        groups: BTreeSet::new(),
        active: state.inventory.agent(&run.agent, now).is_ok(),
    })
}

/// An agent as the thing acted upon.
///
/// # Errors
/// The agent is unknown.
pub fn agent_target(state: &State, id: &AgentId, now: Timestamp) -> Result<AgentTarget, Refusal> {
    let record = state.inventory.agents.get(id).ok_or_else(|| {
        Refusal::denied(
            "agent-unknown",
            format!("agent {id} is not in the inventory"),
        )
        .next("write its manifest and give it to `portcullis agent add FILE`")
    })?;
    Ok(AgentTarget {
        id: id.clone(),
        owner: record.manifest.owner.clone(),
        active: state.inventory.agent(id, now).is_ok(),
        tasked_by: record.manifest.tasked_by.clone(),
    })
}

/// An environment as the thing acted upon. Unknown ones count as production.
pub fn environment_target(state: &State, id: &EnvironmentId) -> EnvironmentTarget {
    let record = state.inventory.environments.get(id);
    EnvironmentTarget {
        id: id.clone(),
        sensitivity: record.map_or(Sensitivity::Production, |record| record.sensitivity),
        deployers: record
            .map(|record| record.deployers.clone())
            .unwrap_or_default(),
    }
}

/// The task behind a run.
pub fn task(state: &State, id: TaskId, run: Option<&Run>, now: Timestamp) -> Option<TaskFacts> {
    let task = state.tasks.get(&id)?;
    let payload = &task.payload;
    let agent = state.inventory.agents.get(&payload.agent);
    let wider = agent.map_or_else(
        || BTreeSet::from(["agent".to_owned()]),
        |record| {
            portcullis_flow::task::wider_than_agent(payload, &record.manifest)
                .into_iter()
                .collect()
        },
    );
    let mut exhausted = BTreeSet::new();
    if let Some(run) = run {
        let budgets = &payload.budgets;
        for (name, used, budget) in [
            ("pushes", run.used.pushes, budgets.pushes),
            ("calls", run.used.calls, budgets.calls),
            ("denials", run.used.denials, budgets.denials),
        ] {
            if used >= budget {
                exhausted.insert(name.to_owned());
            }
        }
    }
    let endpoints = payload
        .capabilities
        .endpoints
        .iter()
        .map(|id| format!("endpoint:{id}"));
    let hosts = payload
        .capabilities
        .hosts
        .iter()
        .map(|host| format!("host:{host}"));
    let tunnels = payload
        .capabilities
        .tunnels
        .iter()
        .map(|host| format!("tunnel:{host}"));
    Some(TaskFacts {
        id,
        verified: state.inventory.human(&payload.signer).is_ok(),
        expired: now >= payload.expires,
        revoked: false,
        signer: payload.signer.to_string(),
        capabilities: endpoints.chain(hosts).chain(tunnels).collect(),
        repositories: payload
            .targets
            .iter()
            .map(|target| target.repository.clone())
            .collect(),
        wider_than_agent: wider,
        exhausted,
    })
}

/// Who approved a request, as far as it counts at `now`.
pub fn approvals(
    state: &State,
    request: &portcullis_flow::approval::Request,
    now: Timestamp,
) -> Approvals {
    let counted = request.approvals.iter().filter(|approval| {
        now < approval.expires
            && state.size() < approval.expires_index
            && state.inventory.human(&approval.human).is_ok()
    });
    Approvals(
        counted
            .map(|approval| {
                let own =
                    portcullis_flow::approval::in_party(state, &request.party, &approval.human);
                Approval {
                    human: approval.human.clone(),
                    party: if own {
                        Party::Own
                    } else {
                        Party::Other(approval.human.to_string())
                    },
                    key_class: approval.key_class,
                    administrator: state
                        .inventory
                        .human(&approval.human)
                        .is_ok_and(|person| person.manifest.administrator),
                }
            })
            .collect(),
    )
}

/// What landing on this branch deploys by itself.
pub fn deploys_to(state: &State, repository: &RepositoryId, branch: &str) -> Deploys {
    let Some(record) = state.inventory.repositories.get(repository) else {
        return Deploys::To(Sensitivity::Production);
    };
    match &record.deploys_on_landing {
        Some(environment) if record.default_branch == branch => {
            Deploys::To(environment_target(state, environment).sensitivity)
        }
        Some(_) | None => Deploys::Nothing,
    }
}

/// Agents whose ceiling lies below what `deploys` reaches.
pub fn above_ceiling(
    state: &State,
    agents: &BTreeSet<&AgentId>,
    sensitivity: Option<Sensitivity>,
) -> BTreeSet<AgentId> {
    let Some(sensitivity) = sensitivity else {
        return BTreeSet::new();
    };
    agents
        .iter()
        .filter(|id| {
            state
                .inventory
                .agents
                .get(**id)
                .is_none_or(|record| record.manifest.environment_ceiling < sensitivity)
        })
        .map(|id| (*id).clone())
        .collect()
}

/// Whether a branch is one that nobody pushes to directly.
pub fn is_protected(record: &portcullis_model::manifest::Repository, branch: &str) -> bool {
    record.protected.iter().any(|pattern| {
        // A pattern that can't be read protects everything.
        globset::GlobBuilder::new(pattern)
            .literal_separator(false)
            .build()
            .map_or(true, |glob| glob.compile_matcher().is_match(branch))
    })
}
