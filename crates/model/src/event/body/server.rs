//! The breaker, incidents, and the server itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{LedgerIndex, RequestId};
use crate::statement::{BreakerScope, Envelope, LedgerPoint, Restoration};

/// What agents do was halted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerTripped {
    /// What it covers.
    pub scope: BreakerScope,
    /// Digest of the reason.
    pub why: Digest,
    /// Whether finished releases of agents' work are reverted too.
    pub revert: bool,
    /// The signed command, if a human did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<Envelope>,
}

/// What agents do goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerReset {
    /// The request that allowed it.
    pub request: RequestId,
}

/// Something happened that a person must look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncidentOpened {
    /// Stable code: `effect-unknown`, `landed-tree-mismatch`, `clock-jump`, `release-died`.
    pub code: String,
    /// The entry that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<LedgerIndex>,
    /// Whole numbers and short stable words that help; never free text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
}

/// A server took over the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerStarted {
    /// Version of the program.
    pub program: String,
    /// Version of the fold.
    pub fold_version: u32,
    /// What it found.
    pub found: LedgerPoint,
    /// Where it keeps the ledger; version 1 did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<LedgerStore>,
}

/// The database that keeps a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LedgerStore {
    /// SQLite, in the server's directory.
    Sqlite,
    /// PostgreSQL, which several servers may share.
    Postgresql,
}

/// The ledger goes on from an older copy of itself. Where entries are lost, or nobody can tell,
/// this halts what agents do until people reset the breaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerRestored {
    /// From where it goes on, and what is lost.
    pub restoration: Restoration,
    /// Digest of the reason.
    pub why: Digest,
    /// The signed command of an administrator.
    pub envelope: Envelope,
}
