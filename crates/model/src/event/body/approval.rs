//! Requests to humans, and their answers.

use serde::{Deserialize, Serialize};

use super::DecisionRecord;
use crate::digest::Digest;
use crate::id::{RequestId, TaskId};
use crate::key::KeyClass;
use crate::principal::Party;
use crate::statement::{Approval, ApprovalSubject, Envelope};
use crate::time::Timestamp;

/// What it takes to satisfy a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Needed {
    /// Humans who approve.
    pub humans: u32,
    /// Parties that they must belong to, none of them the request's own.
    pub parties: u32,
    /// The least key class of each signature.
    pub key_class: KeyClass,
    /// Whether only administrators count.
    pub administrators: bool,
}

/// Humans are asked. Its index is the request's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestOpened {
    /// What they are asked.
    pub subject: ApprovalSubject,
    /// The task behind it, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Digest of checks and tests, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<Digest>,
    /// What it takes.
    pub needed: Needed,
    /// Who had a hand in it and does not count.
    pub party: Party,
    /// The rules that ask, as `file:line id`.
    pub because: Vec<String>,
    /// The decision.
    pub decision: DecisionRecord,
    /// Worthless at or after this time.
    pub expires: Timestamp,
    /// The signed command that led to it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Envelope>,
}

/// A human approved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalGiven {
    /// What was signed.
    pub statement: Approval,
    /// The signature.
    pub envelope: Envelope,
}

/// A human said no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestRejected {
    /// To what.
    pub request: RequestId,
    /// Digest of the reason, kept as a blob; the next run on that change reads it.
    pub why: Digest,
    /// The signed command.
    pub envelope: Envelope,
}

/// A request was overtaken by events: a new revision, another landing, an expiry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestWithdrawn {
    /// Which.
    pub request: RequestId,
    /// Stable code of the cause: `base-moved`, `superseded`, `expired`, `closed`, `breaker`.
    pub code: String,
}
