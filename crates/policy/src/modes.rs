//! Modes: what happens with a decision.
//!
//! *Enforce* carries it out. *Warn* and *observe* let pass what policy would deny, and record that
//! it would have. Some denials hold in every mode: those of rules marked `@always`, failed
//! evaluations, and whatever concerns governance, approvals, starting runs or lending. An act that was let pass is a
//! variant of its own here and carries a [`Standing`] in its permit, so that nobody downstream can
//! take it for enforced work by accident.

use portcullis_model::Mode;
use serde::{Deserialize, Serialize};

use crate::decision::{Decision, Permit, Standing, Summary};
use crate::request::Request;

/// A decision after its mode was applied.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a decision that nobody reads protects nothing"]
pub enum Applied {
    /// The decision stands as it is.
    Enforced(Decision),
    /// Policy would not permit it; the mode lets it pass.
    Unenforced(Unenforced),
}

/// What a mode let pass.
#[derive(Debug, PartialEq, Eq)]
pub struct Unenforced {
    /// Leave to do it, marked by its standing.
    pub permit: Permit,
    /// What policy would have answered.
    pub would: Summary,
    /// The mode that let it pass.
    pub mode: Softened,
}

/// A mode that lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Softened {
    /// Recorded only.
    Observe,
    /// Recorded, and told to whoever asked.
    Warn,
}

/// Applies the request's mode to its decision.
///
/// A permit in mode observe or warn stays a permit and is marked all the same: its standing says
/// that nothing was enforced.
pub fn apply(request: &Request, decision: Decision) -> Applied {
    let (mode, standing) = match request.circumstances.mode {
        Mode::Enforce => return Applied::Enforced(decision),
        Mode::Observe => (Softened::Observe, Standing::Observed),
        Mode::Warn => (Softened::Warn, Standing::Warned),
    };
    if !request.action.has_mode() || holds_in_every_mode(&decision) {
        return Applied::Enforced(decision);
    }
    let would = decision.summary();
    Applied::Unenforced(Unenforced {
        permit: Permit::new(
            would.basis,
            would.rules.clone(),
            would.reason.clone(),
            standing,
        ),
        would,
        mode,
    })
}

fn holds_in_every_mode(decision: &Decision) -> bool {
    match decision {
        Decision::Permit(_) => false,
        Decision::Deny(denial) => denial.in_every_mode,
        Decision::Ask(ask) => ask.in_every_mode,
    }
}
