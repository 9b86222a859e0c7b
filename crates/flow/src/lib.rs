//! The way of a change, one module per stage.
//!
//! [`State`] is the fold of the ledger. Each stage has its part of the state and one function per
//! event that checks the event against the state and takes it in; that function is the only home
//! of the event's preconditions. The sequencer applies an event to a clone before it writes it, so
//! what can't be folded is never written; a verifier applies the same functions to a ledger that it
//! does not trust, so what should never have been written is found.
//!
//! [`work`] says what the server has to do next. It plans completely; the server executes without
//! choosing.
#![forbid(unsafe_code)]

pub mod approval;
pub mod breaker;
pub mod cause;
pub mod change;
pub mod command;
pub mod effect;
pub mod entities;
pub mod inventory;
pub mod job;
pub mod queue;
pub mod release;
pub mod restore;
pub mod review;
pub mod rollout;
pub mod run;
mod snapshot;
pub mod state;
pub mod task;
pub mod together;
pub mod work;

#[cfg(test)]
mod tests;

pub use command::Command;
pub use state::State;
