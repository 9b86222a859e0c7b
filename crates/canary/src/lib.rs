//! Rollout statistics: anytime-valid tests and the verdict they lead to. Pure.
//!
//! A rollout is watched by *looks*: each [`Look`] carries the cumulative counters of both arms.
//! [`look`] folds it into the [`State`] and answers with a [`Verdict`] and its [`Evidence`]. The
//! tests are betting test martingales over the increments between looks, so looking often,
//! stopping early and changing the canary's weight between looks do not raise the stated error
//! rates. The formulas and their sources are in `docs/canary.md`.
//!
//! Everything that is stored is a whole number: rates and levels in parts per million, log
//! e-values in micro-nats. Logarithms are computed in software, so a recorded verdict can be
//! recomputed to the bit on another machine.
#![forbid(unsafe_code)]

mod bet;
mod config;
mod fold;
mod interval;
mod state;
mod verdict;

pub use config::{Config, STEPS_MAX, Step};
pub use fold::{Outcome, evidence, look};
pub use interval::{Interval, rate_interval};
pub use state::{Counts, Look, STATE_VERSION, State};
pub use verdict::{ArmEvidence, Evidence, HoldReason, RollbackReason, TestEvidence, Verdict};

#[cfg(test)]
mod tests;
