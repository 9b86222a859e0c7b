//! Who acts, with what proof, and who is behind it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::serde_as_text;
use crate::id::{AgentId, HostId, HumanId, LedgerIndex, RunId, ServiceId};
use crate::key::KeyClass;
use crate::refusal::Refusal;

/// What kind of principal acts. It comes from the credential, never from what the caller says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A person.
    Human,
    /// An autonomous agent, or anything of unknown cause.
    Agent,
    /// A machine of ours that runs what humans configured.
    Service,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Human => "human",
            Self::Agent => "agent",
            Self::Service => "service",
        })
    }
}

/// A principal, written `human:ada`, `agent:fixer`, `agent:fixer/run-42`, `service:builder`,
/// `host:laptop` or `unknown`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Principal {
    /// A person.
    Human(HumanId),
    /// An agent, in one run where the act belongs to a run.
    Agent(AgentId, Option<RunId>),
    /// A service.
    Service(ServiceId),
    /// A launcher on an enrolled host; its kind is service.
    Host(HostId),
    /// We don't know; it counts as an agent.
    Unknown,
}

impl Principal {
    /// The kind. Unknown counts as agent.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Human(_) => Kind::Human,
            Self::Agent(..) | Self::Unknown => Kind::Agent,
            Self::Service(_) | Self::Host(_) => Kind::Service,
        }
    }

    /// The person, if it is one.
    pub const fn human(&self) -> Option<&HumanId> {
        match self {
            Self::Human(id) => Some(id),
            Self::Agent(..) | Self::Service(_) | Self::Host(_) | Self::Unknown => None,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Human(id) => write!(f, "human:{id}"),
            Self::Agent(id, None) => write!(f, "agent:{id}"),
            Self::Agent(id, Some(run)) => write!(f, "agent:{id}/{run}"),
            Self::Service(id) => write!(f, "service:{id}"),
            Self::Host(id) => write!(f, "host:{id}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Principal {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let malformed = || {
            Refusal::malformed("principal")
                .expected("human:ID, agent:ID, agent:ID/run-N, service:ID, host:ID or unknown")
                .received(text)
        };
        if text == "unknown" {
            return Ok(Self::Unknown);
        }
        let (kind, id) = text.split_once(':').ok_or_else(malformed)?;
        match kind {
            "human" => Ok(Self::Human(id.parse()?)),
            "agent" => match id.split_once('/') {
                Some((agent, run)) => Ok(Self::Agent(agent.parse()?, Some(run.parse()?))),
                None => Ok(Self::Agent(id.parse()?, None)),
            },
            "service" => Ok(Self::Service(id.parse()?)),
            "host" => Ok(Self::Host(id.parse()?)),
            _ => Err(malformed()),
        }
    }
}

serde_as_text!(Principal);

/// The actor of an event: the principal and the proof by which we know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// Who.
    pub principal: Principal,
    /// What kind, as the credential shows.
    pub kind: Kind,
    /// Fingerprint of the key that proved it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What that signature was worth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_class: Option<KeyClass>,
    /// The host it came through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostId>,
}

impl Actor {
    /// An actor without a signature of its own on this act.
    pub const fn unsigned(principal: Principal) -> Self {
        let kind = principal.kind();
        Self {
            principal,
            kind,
            key: None,
            key_class: None,
            host: None,
        }
    }

    /// An actor who signed with the key of this fingerprint.
    pub const fn signed(principal: Principal, fingerprint: String, class: KeyClass) -> Self {
        let kind = principal.kind();
        Self {
            principal,
            kind,
            key: Some(fingerprint),
            key_class: Some(class),
            host: None,
        }
    }

    /// The person who acts.
    ///
    /// # Errors
    /// It is not a person.
    pub fn require_human(&self) -> Result<&HumanId, Refusal> {
        self.principal
            .human()
            .filter(|_| self.kind == Kind::Human)
            .ok_or_else(|| {
                Refusal::denied("not-a-human", "only a human may do this")
                    .expected("a signature by a human's key")
                    .received(&self.principal.to_string())
            })
    }
}

/// What led to an event. It is inherited: whatever an agent caused carries the agent and all its
/// humans.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cause {
    /// Everyone who is behind it, in one set with [`Party`]'s meaning.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub humans: BTreeSet<HumanId>,
    /// Agents that had a hand in it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub agents: BTreeSet<AgentId>,
    /// The run it happened in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The entry that led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<LedgerIndex>,
    /// Set when we don't know; then it counts as an agent's doing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown: bool,
}

/// Everyone who had a hand in something; for approvals they count as one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Party(pub BTreeSet<Principal>);

impl Party {
    /// Whether this person had a hand in it.
    pub fn includes(&self, human: &HumanId) -> bool {
        self.0.contains(&Principal::Human(human.clone()))
    }
}

/// How much we control of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Containment {
    /// We only see its pushes or pull requests.
    Observed,
    /// Outside our sandbox, but its identity is proved per request.
    Bound,
    /// In our sandbox on a self-run host: that host's claim.
    ContainedClaimed,
    /// In our sandbox on a managed host.
    Contained,
}

impl fmt::Display for Containment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Observed => "observed",
            Self::Bound => "bound",
            Self::ContainedClaimed => "contained-claimed",
            Self::Contained => "contained",
        })
    }
}

/// Whether decisions are enforced, or only recorded.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Record what would be decided.
    Observe,
    /// Record and tell.
    Warn,
    /// Decide.
    #[default]
    Enforce,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Observe => "observe",
            Self::Warn => "warn",
            Self::Enforce => "enforce",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_has_one_spelling_and_its_own_kind() {
        for text in [
            "human:ada",
            "agent:fixer",
            "agent:fixer/run-42",
            "service:b",
            "host:h",
            "unknown",
        ] {
            assert_eq!(text.parse::<Principal>().unwrap().to_string(), text);
        }
        assert_eq!(Principal::Unknown.kind(), Kind::Agent);
        assert!("human:agent:x".parse::<Principal>().is_err());
        assert!(
            Actor::unsigned("agent:fixer".parse().unwrap())
                .require_human()
                .is_err()
        );
    }
}
