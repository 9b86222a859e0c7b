//! What is asked of policy: who, in which circumstances, does what.
//!
//! All of it is plain values, so a request can be stored, compared, and decided again later.

use std::collections::BTreeSet;

use portcullis_model::event::{GenesisCreated, KeyFloor};
use portcullis_model::{
    AgentId, Cause, Containment, Digest, GroupId, HostId, HumanId, KeyClass, Kind, Mode, Refusal,
    RepositoryId, RunId, ServiceId, TaskId, Timestamp, canonical,
};
use serde::{Deserialize, Serialize};

use crate::action::Action;

/// One question to policy. Every fact that a rule may use is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Who acts, by their credential.
    pub actor: Actor,
    /// What holds around the act.
    pub circumstances: Circumstances,
    /// What they want to do, to what, with the facts of that.
    pub action: Action,
}

impl Request {
    /// The digest of the request's canonical JSON.
    ///
    /// # Errors
    /// The request does not serialise, which is a defect of ours.
    pub fn digest(&self) -> Result<Digest, Refusal> {
        Ok(Digest::of(&canonical::to_vec(self)?))
    }

    /// The kind that counts: the actor's own, unless an agent caused the act or nobody knows who
    /// did.
    pub const fn kind(&self) -> Kind {
        match self.circumstances.caused_by {
            CausedBy::Agent | CausedBy::Unknown => Kind::Agent,
            CausedBy::Itself => self.actor.kind(),
        }
    }
}

/// Who acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Actor {
    /// A person.
    Human(HumanActor),
    /// An agent, in a run or only observed.
    Agent(AgentActor),
    /// A service.
    Service(ServiceActor),
    /// A launcher on an enrolled host.
    Host(HostActor),
    /// Nobody knows. It counts as an agent without a record, a task or an owner.
    Unknown,
}

impl Actor {
    /// The kind of the credential.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Human(_) => Kind::Human,
            Self::Agent(_) | Self::Unknown => Kind::Agent,
            Self::Service(_) | Self::Host(_) => Kind::Service,
        }
    }
}

/// A person who acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HumanActor {
    /// Who.
    pub id: HumanId,
    /// The groups they are in.
    #[serde(default)]
    pub groups: BTreeSet<GroupId>,
    /// Whether they are an administrator.
    #[serde(default)]
    pub administrator: bool,
    /// Whether their record is active.
    pub active: bool,
}

/// An agent that acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentActor {
    /// The agent's inventory record.
    pub id: AgentId,
    /// The run; none for an agent that is only observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Who owns the agent.
    pub owner: HumanId,
    /// The groups the agent is in.
    #[serde(default)]
    pub groups: BTreeSet<GroupId>,
    /// Whether the record is active: not suspended, expired, past its review or retired.
    pub active: bool,
}

/// A service that acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceActor {
    /// Which.
    pub id: ServiceId,
    /// The groups it is in.
    #[serde(default)]
    pub groups: BTreeSet<GroupId>,
    /// Whether its record is active.
    pub active: bool,
}

/// A host that acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostActor {
    /// Which.
    pub id: HostId,
    /// Whether its record is active.
    pub active: bool,
}

/// What holds around an act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Circumstances {
    /// Who caused the act.
    pub caused_by: CausedBy,
    /// How much we control of the run; none for what is no run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containment: Option<Containment>,
    /// The mode of this repository and stage.
    pub mode: Mode,
    /// Labels of untrusted sources that were read.
    #[serde(default)]
    pub taint: BTreeSet<String>,
    /// Whether the breaker is tripped for this agent, repository, environment or everywhere.
    pub breaker: bool,
    /// The class of the key behind this request's credential.
    pub key_class: KeyClass,
    /// The recording server's time.
    pub now: Timestamp,
    /// What the genesis says.
    pub genesis: Genesis,
}

/// Who caused an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CausedBy {
    /// The actor itself, by its own decision or for a person.
    Itself,
    /// An agent: the act carries the agent's kind, whoever's credential it uses.
    Agent,
    /// Nobody can say, which counts as agent.
    Unknown,
}

impl From<&Cause> for CausedBy {
    fn from(cause: &Cause) -> Self {
        if cause.unknown {
            Self::Unknown
        } else if cause.agents.is_empty() && cause.run.is_none() {
            Self::Itself
        } else {
            Self::Agent
        }
    }
}

/// What the genesis says, as far as policy needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// One person is the whole team, and may count for two parties.
    pub solo: bool,
    /// Administrators that governance needs.
    pub quorum: u32,
    /// The least key classes for production, breaker reset, policy and keys.
    pub key_floor: KeyFloor,
}

impl From<&GenesisCreated> for Genesis {
    fn from(genesis: &GenesisCreated) -> Self {
        Self {
            solo: genesis.solo,
            quorum: genesis.quorum,
            key_floor: genesis.key_floor.clone(),
        }
    }
}

/// The task that an agent works under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskFacts {
    /// Which.
    pub id: TaskId,
    /// Whether signature, signer's standing and nonce hold.
    pub verified: bool,
    /// Whether its time is over.
    pub expired: bool,
    /// Whether it was revoked.
    pub revoked: bool,
    /// The human or service that signed.
    pub signer: String,
    /// What it lets the agent use beside git: `endpoint:NAME`, `host:NAME:PORT`.
    #[serde(default)]
    pub capabilities: BTreeSet<String>,
    /// The repositories it names.
    #[serde(default)]
    pub repositories: BTreeSet<RepositoryId>,
    /// What it asks beyond what the agent's record allows today.
    #[serde(default)]
    pub wider_than_agent: BTreeSet<String>,
    /// Names of the budgets that are used up.
    #[serde(default)]
    pub exhausted: BTreeSet<String>,
}
