//! Whose keys count at a point of the ledger, by genesis and activations alone.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_model::event::{Ended, GenesisCreated, KeyFloor};
use portcullis_model::manifest::{
    Activation, Agent, Environment, Group, Host, Human, PolicyFiles, Repository, Sensitivity,
    Service, ServiceRole,
};
use portcullis_model::{
    AgentId, EnvironmentId, GroupId, HostId, HumanId, KeyClass, Party, Principal, PublicKey,
    Refusal, RepositoryId, ServiceId, Timestamp,
};
use serde::{Deserialize, Serialize};

/// Longest row of invitations that is followed; more are not made by people.
const INVITATIONS_MAX: usize = 64;

/// A record and whether it counts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record<T> {
    pub(super) manifest: T,
    pub(super) active: bool,
}

/// A person's record.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Person {
    pub(super) manifest: Human,
    pub(super) active: bool,
    /// Who let this person in alone; the two are one party then.
    pub(super) invited_by: Option<HumanId>,
}

/// What the genesis and the activations so far say.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Registry {
    pub(super) origin: String,
    pub(super) quorum: u32,
    pub(super) solo: bool,
    pub(super) key_floor: KeyFloor,
    pub(super) humans: BTreeMap<HumanId, Person>,
    pub(super) groups: BTreeMap<GroupId, Group>,
    pub(super) agents: BTreeMap<AgentId, Record<Agent>>,
    pub(super) services: BTreeMap<ServiceId, Record<Service>>,
    pub(super) hosts: BTreeMap<HostId, Record<Host>>,
    pub(super) environments: BTreeMap<EnvironmentId, Environment>,
    pub(super) repositories: BTreeMap<RepositoryId, Repository>,
    pub(super) policy: PolicyFiles,
}

impl Registry {
    /// What entry 0 says.
    pub(super) fn new(genesis: &GenesisCreated) -> Self {
        let mut registry = Self {
            origin: genesis.origin.clone(),
            quorum: genesis.quorum,
            solo: genesis.solo,
            key_floor: genesis.key_floor.clone(),
            humans: BTreeMap::new(),
            groups: BTreeMap::new(),
            agents: BTreeMap::new(),
            services: BTreeMap::new(),
            hosts: BTreeMap::new(),
            environments: BTreeMap::new(),
            repositories: BTreeMap::new(),
            policy: genesis.policy.clone(),
        };
        let records = (genesis.humans.iter().cloned().map(Activation::Human))
            .chain(genesis.groups.iter().cloned().map(Activation::Group))
            .chain(genesis.agents.iter().cloned().map(Activation::Agent))
            .chain(genesis.services.iter().cloned().map(Activation::Service))
            .chain(genesis.hosts.iter().cloned().map(Activation::Host))
            .chain(
                genesis
                    .environments
                    .iter()
                    .cloned()
                    .map(Activation::Environment),
            )
            .chain(
                genesis
                    .repositories
                    .iter()
                    .cloned()
                    .map(Activation::Repository),
            );
        for record in records {
            registry.activate(&record, None);
        }
        registry
    }

    /// Takes a record in.
    pub(super) fn activate(&mut self, activation: &Activation, invited_by: Option<HumanId>) {
        match activation {
            Activation::Human(manifest) => {
                let invited_by = match self.humans.get(&manifest.id) {
                    Some(known) => known.invited_by.clone(),
                    None => invited_by,
                };
                let person = Person {
                    manifest: manifest.clone(),
                    active: true,
                    invited_by,
                };
                self.humans.insert(manifest.id.clone(), person);
            }
            Activation::Group(group) => {
                self.groups.insert(group.id.clone(), group.clone());
            }
            Activation::Agent(manifest) => {
                self.agents.insert(manifest.id.clone(), active(manifest));
            }
            Activation::Service(manifest) => {
                self.services.insert(manifest.id.clone(), active(manifest));
            }
            Activation::Host(manifest) => {
                self.hosts.insert(manifest.id.clone(), active(manifest));
            }
            Activation::Environment(record) => {
                self.environments.insert(record.id.clone(), record.clone());
            }
            Activation::Repository(record) => {
                self.repositories.insert(record.id.clone(), record.clone());
            }
            // An endpoint has no key and no part in what ships.
            Activation::Endpoint(_) => {}
            Activation::Policy(files) => self.policy = files.clone(),
        }
    }

    /// Takes rights away.
    pub(super) fn end(&mut self, ended: &Ended) {
        match ended {
            Ended::AgentSuspended(id) | Ended::AgentRetired(id) => {
                if let Some(record) = self.agents.get_mut(id) {
                    record.active = false;
                }
            }
            Ended::HumanRetired(id) | Ended::HumanForgotten(id) => {
                if let Some(person) = self.humans.get_mut(id) {
                    person.active = false;
                }
            }
            Ended::ServiceRetired(id) => {
                if let Some(record) = self.services.get_mut(id) {
                    record.active = false;
                }
            }
            Ended::HostRetired(id) => {
                if let Some(record) = self.hosts.get_mut(id) {
                    record.active = false;
                }
            }
        }
    }

    /// The keys by which a principal signs at `now`.
    pub(super) fn keys_of(
        &self,
        principal: &Principal,
        now: Timestamp,
    ) -> Result<Vec<&PublicKey>, Refusal> {
        match principal {
            Principal::Human(id) => Ok(self.human(id)?.manifest.keys.iter().collect()),
            Principal::Service(id) => Ok(vec![&self.service(id, now)?.key]),
            Principal::Host(id) => Ok(vec![&self.host(id, now)?.key]),
            Principal::Agent(..) | Principal::Unknown => Err(Refusal::denied(
                "agents-do-not-sign",
                "an agent has no key that counts here",
            )
            .received(&principal.to_string())),
        }
    }

    /// An active person.
    pub(super) fn human(&self, id: &HumanId) -> Result<&Person, Refusal> {
        self.humans
            .get(id)
            .filter(|person| person.active)
            .ok_or_else(|| no_rights("human", id.as_str()))
    }

    /// An active service.
    pub(super) fn service(&self, id: &ServiceId, now: Timestamp) -> Result<&Service, Refusal> {
        self.services
            .get(id)
            .filter(|record| record.active && now < record.manifest.expires)
            .map(|record| &record.manifest)
            .ok_or_else(|| no_rights("service", id.as_str()))
    }

    /// An active host.
    pub(super) fn host(&self, id: &HostId, now: Timestamp) -> Result<&Host, Refusal> {
        self.hosts
            .get(id)
            .filter(|record| record.active && now < record.manifest.expires)
            .map(|record| &record.manifest)
            .ok_or_else(|| no_rights("host", id.as_str()))
    }

    /// An active agent.
    pub(super) fn agent(&self, id: &AgentId, now: Timestamp) -> Result<&Agent, Refusal> {
        self.agents
            .get(id)
            .filter(|record| record.active && now < record.manifest.expires)
            .map(|record| &record.manifest)
            .ok_or_else(|| no_rights("agent", id.as_str()))
    }

    /// Checks that a service with this role acts.
    pub(super) fn require_role(
        &self,
        principal: &Principal,
        role: ServiceRole,
        now: Timestamp,
    ) -> Result<&Service, Refusal> {
        let Principal::Service(id) = principal else {
            return Err(Refusal::denied("not-a-service", "only a service does this")
                .received(&principal.to_string()));
        };
        // As in the fold: the server's own record does not stop it from renewing that record.
        let now = if role == ServiceRole::Control {
            Timestamp::from_ms(0)
        } else {
            now
        };
        let service = self.service(id, now)?;
        if service.roles.contains(&role) {
            return Ok(service);
        }
        Err(
            Refusal::denied("role-missing", format!("service {id} may not do this"))
                .expected(&format!("the role {role:?}"))
                .received(&format!("{:?}", service.roles)),
        )
    }

    /// Whether `human` may give `agent` tasks.
    pub(super) fn may_task(&self, human: &HumanId, agent: &Agent) -> bool {
        self.human(human)
            .is_ok_and(|person| person.manifest.administrator)
            || agent.owner == *human
            || agent.tasked_by.iter().any(|group| {
                self.groups
                    .get(group)
                    .is_some_and(|group| group.members.contains(human))
            })
    }

    /// The sensitivity of an environment; unknown ones count as production.
    pub(super) fn sensitivity(&self, environment: &EnvironmentId) -> Sensitivity {
        self.environments
            .get(environment)
            .map_or(Sensitivity::Production, |record| record.sensitivity)
    }

    /// The key class that activating this takes.
    pub(super) fn floor_for(&self, activation: &Activation) -> KeyClass {
        match activation {
            Activation::Human(_) | Activation::Service(_) | Activation::Host(_) => {
                self.key_floor.keys
            }
            Activation::Policy(_) => self.key_floor.policy,
            Activation::Environment(_) | Activation::Repository(_) => self.key_floor.production,
            Activation::Group(_) | Activation::Agent(_) | Activation::Endpoint(_) => {
                KeyClass::Software
            }
        }
    }

    /// How many parties these people are: those who let each other in alone are one.
    pub(super) fn parties(&self, humans: &BTreeSet<HumanId>) -> usize {
        humans
            .iter()
            .map(|human| self.inviter(human))
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// Whether `human` had a hand in what `party` did, or was let in alone by somebody who had.
    pub(super) fn in_party(&self, party: &Party, human: &HumanId) -> bool {
        let root = self.inviter(human);
        party.includes(human)
            || party
                .0
                .iter()
                .filter_map(Principal::human)
                .any(|member| self.inviter(member) == root)
    }

    fn inviter(&self, human: &HumanId) -> HumanId {
        let mut at = human;
        for _ in 0..INVITATIONS_MAX {
            match self
                .humans
                .get(at)
                .and_then(|person| person.invited_by.as_ref())
            {
                Some(inviter) => at = inviter,
                None => break,
            }
        }
        at.clone()
    }
}

fn active<T: Clone>(manifest: &T) -> Record<T> {
    Record {
        manifest: manifest.clone(),
        active: true,
    }
}

fn no_rights(what: &str, id: &str) -> Refusal {
    Refusal::denied(
        &format!("{what}-without-rights"),
        format!("{what} {id} had no rights at that point of the ledger"),
    )
    .expected("the genesis or an activation before it, no end and no expiry between")
}
