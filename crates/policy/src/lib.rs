//! Policy: one question, one answer, with the rule, the reason and the way forward.
//!
//! The only crate that knows Cedar. Policies come in as text with file names; [`PolicySet::load`]
//! checks all of it once, and [`decide`] answers requests in microseconds. There is no I/O, clock
//! or randomness here.
//!
//! Three layers: the *base*, which is part of the program and which nobody may switch off; the
//! *organisation's* files, which permit and forbid; and a *repository's* `.portcullis/*.cedar`
//! from its protected base, which may only forbid, and so only demand more.
#![forbid(unsafe_code)]

pub mod action;
pub mod approvals;
mod decide;
pub mod decision;
mod explain;
mod facts;
pub mod lint;
pub mod modes;
mod recall;
pub mod request;
mod rule;
mod set;
pub mod source;
pub mod testing;

pub use action::Action;
pub use approvals::{Approval, Approvals, Needed, Party};
pub use decide::decide;
pub use decision::{Answer, Ask, Basis, Decision, Denial, DenialCause, Permit, Standing, Summary};
pub use explain::explain;
pub use recall::Recall;
pub use request::{Actor, Circumstances, Request};
pub use rule::RuleRef;
pub use set::{
    BASE, BASE_NAME, DEFAULT, DEFAULT_TESTS, FileDigest, PolicySet, RuleInfo, SCHEMA, refusal,
};
pub use source::{Layer, PolicyFile, Problem};

#[cfg(test)]
mod tests;
