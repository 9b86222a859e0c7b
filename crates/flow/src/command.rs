//! What is asked of the sequencer, and how it becomes events.

use portcullis_model::event::Body;
use portcullis_model::recorder::Fold;
use portcullis_model::{Actor, Event, Refusal, Timestamp};

use crate::State;
use crate::cause;

/// Events to record together or not at all, by one actor whose proof was verified at the edge.
#[derive(Clone, Debug)]
pub struct Command {
    /// Who.
    pub actor: Actor,
    /// What shall be recorded, in order.
    pub bodies: Vec<Body>,
}

impl Command {
    /// One event.
    pub fn one(actor: Actor, body: impl Into<Body>) -> Self {
        Self {
            actor,
            bodies: vec![body.into()],
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
        ahead.apply(&event)?;
        events.push(event);
    }
    Ok(events)
}
