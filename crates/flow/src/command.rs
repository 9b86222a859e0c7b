//! What is asked of the sequencer, and how it becomes events.

use portcullis_model::event::Body;
use portcullis_model::recorder::Fold;
use portcullis_model::{Actor, Event, Refusal, Timestamp};

use crate::State;
use crate::{cause, run};

/// Events to record together or not at all, by one actor whose proof was verified at the edge.
#[derive(Clone, Debug)]
pub struct Command {
    /// Who.
    pub actor: Actor,
    /// What shall be recorded, in order.
    pub bodies: Vec<Body>,
    /// Whether calls of a run that it records follow from it: the run's budget has to hold them then,
    /// and nothing may have halted it since policy was asked. Not for what is told of them later.
    pub leave_to_call: bool,
}

impl Command {
    /// Several events.
    pub const fn of(actor: Actor, bodies: Vec<Body>) -> Self {
        Self {
            actor,
            bodies,
            leave_to_call: false,
        }
    }

    /// One event.
    pub fn one(actor: Actor, body: impl Into<Body>) -> Self {
        Self::of(actor, vec![body.into()])
    }

    /// One event, which gives a run leave for the calls that it records.
    pub fn leave_to_call(actor: Actor, body: impl Into<Body>) -> Self {
        Self {
            leave_to_call: true,
            ..Self::one(actor, body)
        }
    }
}

/// The events that `command` leads to. Cause, mode and containment come from the state, never from
/// the caller. Each event is folded into a copy, so a later one sees the earlier ones.
pub(crate) fn decide(
    state: &State,
    command: &Command,
    now: Timestamp,
) -> Result<Vec<Event>, Refusal> {
    let mut ahead = state.clone();
    let mut events = Vec::with_capacity(command.bodies.len());
    for body in &command.bodies {
        let event = Event {
            index: ahead.next_index(),
            // The genesis is fixed before the ledger exists, its time with it.
            time: match body {
                Body::GenesisCreated(genesis) => genesis.created,
                _ => now.max(ahead.time()),
            },
            actor: command.actor.clone(),
            cause: cause::of(&ahead, &command.actor, body),
            mode: cause::mode_of(&ahead, body),
            containment: cause::containment_of(&ahead, body),
            body: body.clone(),
        };
        if command.leave_to_call {
            run::require_leave(&ahead, &event)?;
        }
        ahead.apply(&event)?;
        events.push(event);
    }
    Ok(events)
}
