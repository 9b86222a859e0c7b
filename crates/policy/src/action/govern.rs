//! Governance: inventory, policy, modes, the breaker.

use std::collections::BTreeSet;

use portcullis_model::manifest::Activation;
use portcullis_model::statement::BreakerScope;
use portcullis_model::{EndpointId, GroupId, HostId, HumanId, Mode, RepositoryId, ServiceId};
use serde::{Deserialize, Serialize};

use super::ship::EnvironmentTarget;
use super::work::AgentTarget;
use crate::approvals::Approvals;

/// `inventory.change`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InventoryChange {
    /// Which record.
    pub record: InventoryRecord,
    /// What happens to it. Suspend and retire take authority away: decided by the base alone.
    pub operation: InventoryOperation,
    /// What the record may do afterwards and may not do today.
    #[serde(default)]
    pub widens: BTreeSet<String>,
    /// Whether keys are added or removed.
    #[serde(default)]
    pub touches_keys: bool,
    /// Whether owner, purpose and expiry are there, where the kind of record needs them.
    pub complete: bool,
    /// Who approved.
    #[serde(default)]
    pub approvals: Approvals,
}

/// A record of the inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InventoryRecord {
    /// A person.
    Human(HumanId),
    /// An agent, as it will be.
    Agent(AgentTarget),
    /// A service.
    Service(ServiceId),
    /// A group.
    Group(GroupId),
    /// A host.
    Host(HostId),
    /// A repository.
    Repository(RepositoryId),
    /// An environment, as it will be.
    Environment(EnvironmentTarget),
    /// A declared endpoint.
    Endpoint(EndpointId),
}

/// What happens to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InventoryOperation {
    /// It is new.
    Add,
    /// It is replaced.
    Change,
    /// It is active again.
    Resume,
    /// It is out of force.
    Suspend,
    /// It is out of force for good.
    Retire,
}

/// `policy.activate`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyActivate {
    /// Whether the proposed set loads without a problem.
    pub checked: bool,
    /// How many of its tests fail.
    pub tests_failed: u64,
    /// Who approved.
    #[serde(default)]
    pub approvals: Approvals,
}

/// `mode.change`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModeChange {
    /// Whose mode.
    pub repository: RepositoryId,
    /// The stage, such as `git` or `land`.
    pub stage: String,
    /// The mode today.
    pub from: Mode,
    /// The mode afterwards.
    pub to: Mode,
    /// Who approved.
    #[serde(default)]
    pub approvals: Approvals,
}

/// `breaker.trip`. Takes authority away: decided by the base alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerTrip {
    /// What is halted.
    pub scope: BreakerScope,
}

/// `breaker.reset`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerReset {
    /// What goes on.
    pub scope: BreakerScope,
    /// Who approved.
    #[serde(default)]
    pub approvals: Approvals,
}

impl InventoryRecord {
    /// The record that an activation is about; none for a policy, which is `policy.activate`.
    pub fn of(activation: &Activation) -> Option<Self> {
        Some(match activation {
            Activation::Human(record) => Self::Human(record.id.clone()),
            Activation::Group(record) => Self::Group(record.id.clone()),
            Activation::Agent(record) => Self::Agent(AgentTarget {
                id: record.id.clone(),
                owner: record.owner.clone(),
                active: true,
                tasked_by: record.tasked_by.clone(),
            }),
            Activation::Service(record) => Self::Service(record.id.clone()),
            Activation::Host(record) => Self::Host(record.id.clone()),
            Activation::Environment(record) => Self::Environment(EnvironmentTarget {
                id: record.id.clone(),
                sensitivity: record.sensitivity,
                deployers: record.deployers.clone(),
            }),
            Activation::Repository(record) => Self::Repository(record.id.clone()),
            Activation::Endpoint(record) => Self::Endpoint(record.id.clone()),
            Activation::Policy(_) => return None,
        })
    }
}
