//! Policy's answer: permit, deny or ask, with rules, reasons and what it was decided on.

use std::fmt;

use portcullis_model::event::DecisionRecord;
use portcullis_model::{Digest, LedgerIndex, Refusal, RefusalKind};
use serde::{Deserialize, Serialize};

use crate::approvals::Needed;
use crate::rule::RuleRef;

/// The answer to one request.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a decision that nobody reads protects nothing"]
pub enum Decision {
    /// It may be done, once, after it was recorded.
    Permit(Permit),
    /// It may not be done.
    Deny(Denial),
    /// It may not be done now; it may if people approve.
    Ask(Ask),
}

impl Decision {
    /// The permit, or the "no" in its one shape.
    ///
    /// # Errors
    /// The decision is no permit.
    pub fn into_permit(self) -> Result<Permit, Refusal> {
        match self {
            Self::Permit(permit) => Ok(permit),
            Self::Deny(denial) => Err(Refusal::from(&denial)),
            Self::Ask(ask) => Err(Refusal::from(&ask)),
        }
    }

    /// What the ledger and displays keep of it.
    pub fn summary(&self) -> Summary {
        match self {
            Self::Permit(permit) => permit.summary(),
            Self::Deny(denial) => denial.summary(),
            Self::Ask(ask) => ask.summary(),
        }
    }

    /// What the decision was made on.
    pub const fn basis(&self) -> Basis {
        match self {
            Self::Permit(permit) => permit.basis,
            Self::Deny(denial) => denial.basis,
            Self::Ask(ask) => ask.basis,
        }
    }
}

/// What a decision was made on; enough to make it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Basis {
    /// The ledger index of the state that the facts came from.
    pub at: LedgerIndex,
    /// The digest of the policy.
    pub policy: Digest,
    /// The digest of the request.
    pub request: Digest,
}

/// A decision as the ledger and displays keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Permit, deny or ask.
    pub answer: Answer,
    /// What it was made on.
    pub basis: Basis,
    /// The rules that decided.
    pub rules: Vec<RuleRef>,
    /// Why, in one sentence.
    pub reason: String,
}

impl Summary {
    /// As events keep it.
    pub fn record(&self) -> DecisionRecord {
        DecisionRecord {
            policy: self.basis.policy,
            at: self.basis.at,
            rules: self.rules.iter().map(ToString::to_string).collect(),
        }
    }
}

/// A decision's one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It may be done.
    Permit,
    /// It may not.
    Deny,
    /// It may if people approve.
    Ask,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Permit => "permit",
            Self::Deny => "deny",
            Self::Ask => "ask",
        })
    }
}

/// Leave to do one thing, once. Only [`crate::decide`] and [`crate::modes::apply`] make one; it is
/// not `Clone`, and it is worth nothing before it was recorded.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is dropped was decided for nothing"]
pub struct Permit {
    basis: Basis,
    rules: Vec<RuleRef>,
    reason: String,
    standing: Standing,
}

/// How a permit came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Policy permits it.
    Permitted,
    /// Policy does not, and the mode warn lets it pass. Never to be called enforced.
    Warned,
    /// Policy does not, or was not asked to decide; the mode observe lets it pass. Never to be
    /// called enforced.
    Observed,
}

impl Permit {
    pub(crate) const fn new(
        basis: Basis,
        rules: Vec<RuleRef>,
        reason: String,
        standing: Standing,
    ) -> Self {
        Self {
            basis,
            rules,
            reason,
            standing,
        }
    }

    /// What it was decided on.
    pub const fn basis(&self) -> Basis {
        self.basis
    }

    /// The ledger index of the state it was decided on.
    pub const fn at(&self) -> LedgerIndex {
        self.basis.at
    }

    /// The digest of the policy.
    pub const fn policy(&self) -> Digest {
        self.basis.policy
    }

    /// The digest of the request.
    pub const fn request(&self) -> Digest {
        self.basis.request
    }

    /// The rules that decided.
    pub fn rules(&self) -> &[RuleRef] {
        &self.rules
    }

    /// What the ledger and displays keep of it.
    pub fn summary(&self) -> Summary {
        Summary {
            answer: Answer::Permit,
            basis: self.basis,
            rules: self.rules.clone(),
            reason: self.reason.clone(),
        }
    }

    /// As events keep it.
    pub fn record(&self) -> DecisionRecord {
        self.summary().record()
    }

    /// How it came about.
    pub const fn standing(&self) -> Standing {
        self.standing
    }
}

/// A "no" that approvals can't change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denial {
    /// What it was decided on.
    pub basis: Basis,
    /// What kind of "no".
    pub cause: DenialCause,
    /// The rules that said no, most binding first; for [`DenialCause::NoPermit`] the permit that came
    /// nearest, if any is about such an act.
    pub rules: Vec<RuleRef>,
    /// Why, in one sentence.
    pub reason: String,
    /// What would have had to hold.
    pub needed: Option<String>,
    /// The facts that stood against it, as `name is value`.
    pub facts: Vec<String>,
    /// What to do instead.
    pub next: String,
    /// Whether it holds in the modes observe and warn too.
    pub in_every_mode: bool,
}

/// What kind of "no" a denial is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DenialCause {
    /// A rule forbids it.
    Forbidden,
    /// No rule permits it.
    NoPermit,
    /// A rule could not be evaluated.
    PolicyError,
}

impl Denial {
    /// What the ledger and displays keep of it.
    pub fn summary(&self) -> Summary {
        Summary {
            answer: Answer::Deny,
            basis: self.basis,
            rules: self.rules.clone(),
            reason: self.reason.clone(),
        }
    }

    /// The stable code: the first rule's id, or what kind of "no" it is.
    pub fn code(&self) -> &str {
        match (self.cause, self.rules.first()) {
            (DenialCause::Forbidden, Some(rule)) => &rule.id,
            (DenialCause::Forbidden, None) => "forbidden",
            (DenialCause::NoPermit, _) => "no-permit",
            (DenialCause::PolicyError, _) => "policy-error",
        }
    }
}

/// A "no" that becomes a "yes" when people approve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// What it was decided on.
    pub basis: Basis,
    /// The least that is needed beyond the approvals that stand.
    pub needed: Needed,
    /// The rules that ask for it.
    pub rules: Vec<RuleRef>,
    /// Why, in one sentence.
    pub reason: String,
    /// The facts that they look at, as `name is value`.
    pub facts: Vec<String>,
    /// What to do.
    pub next: String,
    /// Whether it holds in the modes observe and warn too.
    pub in_every_mode: bool,
}

impl Ask {
    /// What the ledger and displays keep of it.
    pub fn summary(&self) -> Summary {
        Summary {
            answer: Answer::Ask,
            basis: self.basis,
            rules: self.rules.clone(),
            reason: self.reason.clone(),
        }
    }

    /// The stable code: the first rule's id.
    pub fn code(&self) -> &str {
        self.rules.first().map_or("needs-approval", |rule| &rule.id)
    }
}

impl From<&Denial> for Refusal {
    fn from(denial: &Denial) -> Self {
        let kind = match denial.cause {
            DenialCause::Forbidden | DenialCause::NoPermit | DenialCause::PolicyError => {
                RefusalKind::Denied
            }
        };
        let refusal = Self::new(kind, denial.code(), denial.reason.clone());
        let refusal = match &denial.needed {
            Some(needed) => refusal.expected(needed),
            None => refusal,
        };
        worded(refusal, &denial.facts, &denial.rules, &denial.next)
    }
}

impl From<&Ask> for Refusal {
    fn from(ask: &Ask) -> Self {
        let refusal = Self::new(RefusalKind::NeedsApproval, ask.code(), ask.reason.clone())
            .expected(&ask.needed.to_string());
        worded(refusal, &ask.facts, &ask.rules, &ask.next)
    }
}

fn worded(refusal: Refusal, facts: &[String], rules: &[RuleRef], next: &str) -> Refusal {
    let refusal = if facts.is_empty() {
        refusal
    } else {
        refusal.received(&facts.join(", "))
    };
    let refusal = if rules.is_empty() {
        refusal
    } else {
        let shown: Vec<String> = rules.iter().map(ToString::to_string).collect();
        refusal.rule(shown.join("; "))
    };
    refusal.next(next)
}
