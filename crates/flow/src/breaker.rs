//! The breaker: one gesture halts what agents do.

use portcullis_model::event::{BreakerReset, BreakerTripped};
use portcullis_model::statement::{ApprovalSubject, BreakerScope, Command};
use portcullis_model::{
    AgentId, ChangeId, EnvironmentId, Event, LedgerIndex, Refusal, RepositoryId, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::approval;
use crate::inventory::mismatch;
use crate::state::State;

/// A tripped breaker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trip {
    /// The entry.
    pub entry: LedgerIndex,
    /// When.
    pub time: Timestamp,
    /// Whether finished releases are reverted too.
    pub revert: bool,
}

/// Anyone active may trip; so may the server, on a plan that a human set.
pub(crate) fn tripped(
    state: &mut State,
    event: &Event,
    body: &BreakerTripped,
) -> Result<(), Refusal> {
    match &body.envelope {
        Some(envelope) => {
            state.require_active_human(event)?;
            match state.take_command(event, envelope)? {
                Command::TripBreaker { scope, revert, .. }
                    if scope == body.scope && revert == body.revert => {}
                other => return Err(mismatch("trip-breaker with this scope", &other)),
            }
        }
        None => state.require_control(event)?,
    }
    halt(state, event, &body.scope, body.revert)
}

/// From this entry on the breaker is tripped.
pub(crate) fn halt(
    state: &mut State,
    event: &Event,
    scope: &BreakerScope,
    revert: bool,
) -> Result<(), Refusal> {
    // Whoever agreed to a reset did not know of this trip.
    let overtaken: Vec<_> = state
        .requests
        .open()
        .filter(|request| {
            request.subject
                == ApprovalSubject::BreakerReset {
                    scope: scope.clone(),
                }
        })
        .map(|request| request.id)
        .collect();
    for id in overtaken {
        approval::withdraw(state, id, "tripped-again")?;
    }
    state.breakers.insert(
        scope.clone(),
        Trip {
            entry: event.index,
            time: event.time,
            revert,
        },
    );
    Ok(())
}

/// What agents do goes on, when enough people signed.
pub(crate) fn reset(state: &mut State, event: &Event, body: &BreakerReset) -> Result<(), Refusal> {
    state.require_control(event)?;
    let request = approval::require_satisfied(state, body.request, event.time)?;
    let ApprovalSubject::BreakerReset { scope } = request.subject.clone() else {
        return Err(Refusal::conflict(
            "not-a-reset",
            "this request resets no breaker",
        ));
    };
    if state.breakers.remove(&scope).is_none() {
        return Err(Refusal::conflict(
            "breaker-not-tripped",
            format!("the breaker for {scope} is not tripped"),
        ));
    }
    approval::use_up(state, body.request)
}

/// The tripped scope that covers this, if any.
pub fn tripped_for<'a>(
    state: &State,
    agent: Option<&AgentId>,
    repositories: impl IntoIterator<Item = &'a RepositoryId>,
    environment: Option<&EnvironmentId>,
) -> Option<BreakerScope> {
    if state.breakers.is_empty() {
        return None;
    }
    [BreakerScope::Everywhere]
        .into_iter()
        .chain(agent.cloned().map(BreakerScope::Agent))
        .chain(
            repositories
                .into_iter()
                .cloned()
                .map(BreakerScope::Repository),
        )
        .chain(environment.cloned().map(BreakerScope::Environment))
        .find(|scope| state.breakers.contains_key(scope))
}

/// Refuses while a breaker covers this.
pub(crate) fn require_closed<'a>(
    state: &State,
    agent: Option<&AgentId>,
    repositories: impl IntoIterator<Item = &'a RepositoryId>,
    environment: Option<&EnvironmentId>,
) -> Result<(), Refusal> {
    match tripped_for(state, agent, repositories, environment) {
        None => Ok(()),
        Some(scope) => Err(refusal(&scope)),
    }
}

/// Refuses while a breaker covers any of these changes' agents, their repository or the
/// environment that they go to.
pub(crate) fn require_closed_for_changes(
    state: &State,
    changes: &[ChangeId],
    repository: &RepositoryId,
    environment: &EnvironmentId,
) -> Result<(), Refusal> {
    require_closed(state, None, [repository], Some(environment))?;
    for change in changes.iter().filter_map(|id| state.changes.get(id)) {
        for agent in change.agents() {
            require_closed(state, Some(agent), [], None)?;
        }
    }
    Ok(())
}

/// The refusal while the breaker for `scope` is tripped.
pub fn refusal(scope: &BreakerScope) -> Refusal {
    Refusal::denied(
        "breaker-tripped",
        format!("the breaker for {scope} is tripped"),
    )
    .expected("a breaker that is not tripped")
    .next("wait; people reset it with `portcullis breaker reset` and their approvals")
}
