//! The root of authority, and what comes into force or goes out of it.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::{AgentId, HostId, HumanId, LedgerIndex, RequestId, ServiceId};
use crate::key::{KeyClass, PublicKey};
use crate::manifest::{
    Activation, Agent, Endpoint, Environment, Group, Host, Human, PolicyFiles, Repository, Service,
};
use crate::statement::Envelope;
use crate::time::Timestamp;

/// The policy decision that granted or denied something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionRecord {
    /// The policy in force.
    pub policy: Digest,
    /// Number of entries in the state that it was decided at.
    pub at: LedgerIndex,
    /// The rules that decided, as `file:line id`.
    pub rules: Vec<String>,
}

/// Key classes below the design's floor, lowered openly by the genesis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFloor {
    /// For releases to production, and for landings that deploy there.
    pub production: KeyClass,
    /// For resetting a breaker.
    pub breaker_reset: KeyClass,
    /// For policies.
    pub policy: KeyClass,
    /// For people's, services' and hosts' keys.
    pub keys: KeyClass,
}

impl Default for KeyFloor {
    fn default() -> Self {
        Self {
            production: KeyClass::Presence,
            breaker_reset: KeyClass::Presence,
            policy: KeyClass::Presence,
            keys: KeyClass::Presence,
        }
    }
}

/// Entry 0: the root of all authority. Verification pins its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisCreated {
    /// When it was made; the entry's time.
    pub created: Timestamp,
    /// Name of this ledger, as in its checkpoints.
    pub origin: String,
    /// SPIFFE trust domain.
    pub trust_domain: String,
    /// Ed25519 key that signs checkpoints.
    pub log_key: PublicKey,
    /// Certificate authority of the trust domain, DER in base64.
    pub authority: String,
    /// How many administrators it takes to activate something, its author excluded.
    pub quorum: u32,
    /// Whether one person declared to work alone: own approvals count, and say so.
    pub solo: bool,
    /// Key classes demanded.
    #[serde(default)]
    pub key_floor: KeyFloor,
    /// Version of the fold that reads what follows.
    pub fold_version: u32,
    /// The first people; at least one administrator.
    pub humans: Vec<Human>,
    /// The first groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// The first agents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<Agent>,
    /// The first services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// The first hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Host>,
    /// The first environments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<Environment>,
    /// The first repositories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<Repository>,
    /// The first endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// The first policy.
    pub policy: PolicyFiles,
}

/// A record or policy was proposed. Its index is the id of the request that it opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivationProposed {
    /// The record.
    pub activation: Activation,
    /// Digest of the reason.
    pub why: Digest,
    /// The author's signed command.
    pub envelope: Envelope,
}

/// A proposed record came into force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivationCompleted {
    /// The proposal.
    pub request: RequestId,
}

/// Who lost rights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    tag = "kind",
    content = "id"
)]
pub enum Ended {
    /// An agent, until it is activated again.
    AgentSuspended(AgentId),
    /// An agent, for good.
    AgentRetired(AgentId),
    /// A person.
    HumanRetired(HumanId),
    /// A person, whose name and mail address were erased too.
    HumanForgotten(HumanId),
    /// A service.
    ServiceRetired(ServiceId),
    /// A host.
    HostRetired(HostId),
}

/// An agent, human, service or host lost its rights, at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrincipalEnded {
    /// Who.
    pub subject: Ended,
    /// Digest of the reason.
    pub why: Digest,
    /// The signed command.
    pub envelope: Envelope,
}
