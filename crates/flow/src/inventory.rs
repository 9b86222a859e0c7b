//! Who and what is known: people, groups, agents, services, hosts, environments, repositories,
//! endpoints, and the policy in force.
//!
//! Every record came into force by the genesis or by a quorum that excludes its author
//! (invariant 4). Taking rights away needs one person and works at once.

use std::sync::Arc;

use imbl::OrdMap;
use portcullis_model::event::{
    ActivationCompleted, ActivationProposed, Ended, GenesisCreated, Needed, PrincipalEnded, RunEnd,
};
use portcullis_model::manifest::{
    Activation, Agent, Endpoint, Environment, Group, Host, Human, PolicyFiles, Repository, Service,
};
use portcullis_model::statement::{ApprovalSubject, Command};
use portcullis_model::{
    AgentId, EndpointId, EnvironmentId, Event, GroupId, HostId, HumanId, KeyClass, Party,
    Principal, PublicKey, Refusal, RepositoryId, RequestId, ServiceId, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::approval::{self, Request};
use crate::change::Branch;
use crate::release::EnvironmentState;
use crate::run;
use crate::state::{FOLD_VERSION, State};

/// Whether a record counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It counts until its expiry.
    Active,
    /// It doesn't, until it is activated again.
    Suspended,
    /// It never will.
    Retired,
}

/// A record that can lose its rights.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record<T> {
    /// What was activated.
    pub manifest: T,
    /// Whether it counts.
    pub standing: Standing,
}

/// A person's record.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// What was activated.
    pub manifest: Human,
    /// Whether the person may act.
    pub standing: Standing,
    /// Who let this person in alone, in which case the two are one party.
    pub invited_by: Option<HumanId>,
}

/// All records.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// People.
    pub humans: OrdMap<HumanId, Arc<Person>>,
    /// Groups.
    pub groups: OrdMap<GroupId, Arc<Group>>,
    /// Agents.
    pub agents: OrdMap<AgentId, Arc<Record<Agent>>>,
    /// Services.
    pub services: OrdMap<ServiceId, Arc<Record<Service>>>,
    /// Hosts.
    pub hosts: OrdMap<HostId, Arc<Record<Host>>>,
    /// Environments.
    pub environments: OrdMap<EnvironmentId, Arc<Environment>>,
    /// Repositories.
    pub repositories: OrdMap<RepositoryId, Arc<Repository>>,
    /// Model endpoints.
    pub endpoints: OrdMap<EndpointId, Arc<Endpoint>>,
    /// The policy in force.
    pub policy: Option<Arc<PolicyFiles>>,
}

impl Inventory {
    /// An active person.
    ///
    /// # Errors
    /// Unknown or retired.
    pub fn human(&self, id: &HumanId) -> Result<&Person, Refusal> {
        match self.humans.get(id) {
            Some(person) if person.standing == Standing::Active => Ok(person),
            Some(_) => Err(Refusal::denied(
                "human-retired",
                format!("{id} has no rights any more"),
            )
            .next("ask an administrator to activate the person again")),
            None => Err(
                Refusal::denied("human-unknown", format!("{id} is not in the inventory"))
                    .next("an administrator adds people with `portcullis human add`"),
            ),
        }
    }

    /// The active person who holds this key.
    pub fn holder(&self, fingerprint: &str) -> Option<(&HumanId, &PublicKey)> {
        self.humans
            .iter()
            .filter(|(_, person)| person.standing == Standing::Active)
            .find_map(|(id, person)| {
                let key = person
                    .manifest
                    .keys
                    .iter()
                    .find(|key| key.fingerprint() == fingerprint);
                key.map(|key| (id, key))
            })
    }

    /// An agent that may work at `now`.
    ///
    /// # Errors
    /// Unknown, suspended, retired or expired.
    pub fn agent(&self, id: &AgentId, now: Timestamp) -> Result<&Agent, Refusal> {
        let record = self.agents.get(id).ok_or_else(|| {
            Refusal::denied(
                "agent-unknown",
                format!("agent {id} is not in the inventory"),
            )
            .next("write its manifest and give it to `portcullis agent add FILE`")
        })?;
        standing_or(
            "agent",
            id.as_str(),
            record.standing,
            record.manifest.expires,
            now,
        )?;
        Ok(&record.manifest)
    }

    /// A service that may work at `now`.
    ///
    /// # Errors
    /// Unknown, retired or expired.
    pub fn service(&self, id: &ServiceId, now: Timestamp) -> Result<&Service, Refusal> {
        let record = self.services.get(id).ok_or_else(|| {
            Refusal::denied(
                "service-unknown",
                format!("service {id} is not in the inventory"),
            )
        })?;
        standing_or(
            "service",
            id.as_str(),
            record.standing,
            record.manifest.expires,
            now,
        )?;
        Ok(&record.manifest)
    }

    /// A host that may launch runs at `now`.
    ///
    /// # Errors
    /// Unknown, retired or expired.
    pub fn host(&self, id: &HostId, now: Timestamp) -> Result<&Host, Refusal> {
        let record = self.hosts.get(id).ok_or_else(|| {
            Refusal::denied("host-unknown", format!("host {id} is not enrolled"))
                .next("an administrator enrols it with `portcullis host add FILE`")
        })?;
        standing_or(
            "host",
            id.as_str(),
            record.standing,
            record.manifest.expires,
            now,
        )?;
        Ok(&record.manifest)
    }

    /// A repository.
    ///
    /// # Errors
    /// Unknown.
    pub fn repository(&self, id: &RepositoryId) -> Result<&Repository, Refusal> {
        self.repositories
            .get(id)
            .map(|record| &**record)
            .ok_or_else(|| Refusal::not_found("repository", id))
    }

    /// An environment.
    ///
    /// # Errors
    /// Unknown.
    pub fn environment(&self, id: &EnvironmentId) -> Result<&Environment, Refusal> {
        self.environments
            .get(id)
            .map(|record| &**record)
            .ok_or_else(|| Refusal::not_found("environment", id))
    }

    /// Whether the person is in one of these groups.
    pub fn in_any_group<'a>(
        &self,
        human: &HumanId,
        mut groups: impl Iterator<Item = &'a GroupId>,
    ) -> bool {
        groups.any(|id| {
            self.groups
                .get(id)
                .is_some_and(|group| group.members.contains(human))
        })
    }

    /// Names of the groups that the person is in.
    pub fn groups_of(&self, human: &HumanId) -> Vec<&GroupId> {
        self.groups
            .iter()
            .filter(|(_, group)| group.members.contains(human))
            .map(|(id, _)| id)
            .collect()
    }

    /// Active administrators.
    pub fn administrators(&self) -> impl Iterator<Item = &HumanId> {
        self.humans
            .iter()
            .filter(|(_, person)| {
                person.manifest.administrator && person.standing == Standing::Active
            })
            .map(|(id, _)| id)
    }

    fn insert(&mut self, activation: &Activation, invited_by: Option<HumanId>) {
        match activation {
            Activation::Human(manifest) => {
                let person = Person {
                    manifest: manifest.clone(),
                    standing: Standing::Active,
                    invited_by,
                };
                self.humans.insert(manifest.id.clone(), Arc::new(person));
            }
            Activation::Group(group) => {
                self.groups
                    .insert(group.id.clone(), Arc::new(group.clone()));
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
                self.environments
                    .insert(record.id.clone(), Arc::new(record.clone()));
            }
            Activation::Repository(record) => {
                self.repositories
                    .insert(record.id.clone(), Arc::new(record.clone()));
            }
            Activation::Endpoint(record) => {
                self.endpoints
                    .insert(record.id.clone(), Arc::new(record.clone()));
            }
            Activation::Policy(files) => self.policy = Some(Arc::new(files.clone())),
        }
    }

    /// Checks that what a record refers to exists.
    fn check_references(&self, activation: &Activation, now: Timestamp) -> Result<(), Refusal> {
        activation.validate()?;
        let unexpired = |expires: Timestamp| {
            if expires > now {
                return Ok(());
            }
            Err(Refusal::denied(
                "already-expired",
                format!("{} has already expired", activation.subject()),
            )
            .expected("an expiry in the future")
            .received(&expires.to_string()))
        };
        match activation {
            Activation::Agent(agent) => {
                self.human(&agent.owner)?;
                unexpired(agent.expires)?;
                agent
                    .repositories
                    .iter()
                    .try_for_each(|id| self.repository(id).map(|_| ()))?;
                agent
                    .endpoints
                    .iter()
                    .try_for_each(|id| match self.endpoints.get(id) {
                        Some(_) => Ok(()),
                        None => Err(Refusal::not_found("endpoint", id)),
                    })?;
                agent
                    .tasked_by
                    .iter()
                    .try_for_each(|id| match self.groups.get(id) {
                        Some(_) => Ok(()),
                        None => Err(Refusal::not_found("group", id)),
                    })
            }
            Activation::Service(service) => {
                unexpired(service.expires)?;
                self.human(&service.owner).map(|_| ())
            }
            Activation::Host(host) => {
                unexpired(host.expires)?;
                self.human(&host.owner).map(|_| ())
            }
            Activation::Group(group) => group
                .members
                .iter()
                .try_for_each(|id| self.human(id).map(|_| ())),
            Activation::Environment(record) => {
                self.repository(&record.repository)?;
                match self
                    .environments
                    .values()
                    .find(|other| other.port == record.port && other.id != record.id)
                {
                    Some(other) => Err(Refusal::conflict(
                        "port-taken",
                        format!(
                            "environment {} already serves port {}",
                            other.id, record.port
                        ),
                    )),
                    None => Ok(()),
                }
            }
            Activation::Human(human) => {
                for key in &human.keys {
                    if let Some((holder, _)) = self.holder(key.fingerprint())
                        && *holder != human.id
                    {
                        return Err(Refusal::conflict(
                            "key-taken",
                            format!("key {} belongs to {holder} already", key.fingerprint()),
                        )
                        .expected("a key of one person alone"));
                    }
                }
                Ok(())
            }
            Activation::Repository(_) | Activation::Endpoint(_) | Activation::Policy(_) => Ok(()),
        }
    }
}

fn active<T: Clone>(manifest: &T) -> Arc<Record<T>> {
    Arc::new(Record {
        manifest: manifest.clone(),
        standing: Standing::Active,
    })
}

fn standing_or(
    what: &str,
    id: &str,
    standing: Standing,
    expires: Timestamp,
    now: Timestamp,
) -> Result<(), Refusal> {
    let refusal = |code: &str, state: &str| {
        Err(
            Refusal::denied(&format!("{what}-{code}"), format!("{what} {id} {state}"))
                .expected(&format!("an active {what}"))
                .next(format!(
                    "an administrator activates it again with `portcullis {what} add FILE`"
                )),
        )
    };
    match standing {
        Standing::Active if now < expires => Ok(()),
        Standing::Active => refusal("expired", &format!("expired at {expires}")),
        Standing::Suspended => refusal("suspended", "is suspended"),
        Standing::Retired => refusal("retired", "is retired"),
    }
}

/// Entry 0.
pub(crate) fn genesis(
    state: &mut State,
    event: &Event,
    body: &GenesisCreated,
) -> Result<(), Refusal> {
    if event.time != body.created {
        return Err(Refusal::malformed("genesis")
            .expected(&format!("an entry of {}", body.created))
            .received(&event.time.to_string()));
    }
    if body.fold_version != FOLD_VERSION {
        return Err(
            Refusal::unavailable("fold-version", "this ledger needs another version")
                .expected(&format!("fold version {FOLD_VERSION}"))
                .received(&format!("fold version {}", body.fold_version))
                .next("start the version of portcullis that made it, or a newer one"),
        );
    }
    let mut inventory = Inventory::default();
    let time = Timestamp::from_ms(0);
    let records = (body.humans.iter().cloned().map(Activation::Human))
        .chain(body.groups.iter().cloned().map(Activation::Group))
        .chain(body.endpoints.iter().cloned().map(Activation::Endpoint))
        .chain(
            body.repositories
                .iter()
                .cloned()
                .map(Activation::Repository),
        )
        .chain(body.services.iter().cloned().map(Activation::Service))
        .chain(body.hosts.iter().cloned().map(Activation::Host))
        .chain(
            body.environments
                .iter()
                .cloned()
                .map(Activation::Environment),
        )
        .chain(body.agents.iter().cloned().map(Activation::Agent));
    for activation in records {
        inventory.check_references(&activation, time)?;
        inventory.insert(&activation, None);
    }
    inventory.insert(&Activation::Policy(body.policy.clone()), None);
    let administrators = inventory.administrators().count();
    let quorum = usize::try_from(body.quorum).unwrap_or(usize::MAX);
    // A quorum excludes the author, so a team needs one administrator more than its quorum.
    let needed = if body.solo {
        1
    } else {
        quorum.saturating_add(1)
    };
    if quorum == 0 || administrators < needed || (body.solo && quorum != 1) {
        return Err(Refusal::malformed("genesis")
            .expected(&format!(
                "a quorum of at least 1 and {needed} administrators, since an author does not count"
            ))
            .received(&format!(
                "quorum {quorum}, {administrators} administrators, solo {}",
                body.solo
            ))
            .next("name more administrators, or declare a one-person team with --solo"));
    }
    state.inventory = inventory;
    for repository in &body.repositories {
        adopt(state, repository);
    }
    for environment in &body.environments {
        state.environments.insert(
            environment.id.clone(),
            Arc::new(EnvironmentState::default()),
        );
    }
    Ok(())
}

fn adopt(state: &mut State, repository: &Repository) {
    let key = (repository.id.clone(), repository.default_branch.clone());
    if let Some(baseline) = &repository.baseline
        && !state.branches.contains_key(&key)
    {
        state
            .branches
            .insert(key, Arc::new(Branch::adopted(baseline.clone())));
    }
}

/// The key class that activating this takes here.
pub fn key_class_for(state: &State, activation: &Activation) -> KeyClass {
    let Ok(genesis) = state.genesis() else {
        return KeyClass::Verified;
    };
    match activation {
        Activation::Human(_) | Activation::Service(_) | Activation::Host(_) => {
            genesis.key_floor.keys
        }
        Activation::Policy(_) => genesis.key_floor.policy,
        // Who may reach production, and under which rules, is production's matter.
        Activation::Environment(_) | Activation::Repository(_) => genesis.key_floor.production,
        Activation::Group(_) | Activation::Agent(_) | Activation::Endpoint(_) => KeyClass::Software,
    }
}

/// A record or policy was proposed; the entry opens the request for its quorum.
pub(crate) fn proposed(
    state: &mut State,
    event: &Event,
    body: &ActivationProposed,
) -> Result<(), Refusal> {
    state.require_active_human(event)?;
    let author = event.actor.require_human()?.clone();
    match state.take_command(event, &body.envelope)? {
        Command::Propose { activation, .. } if activation == body.activation => {}
        other => return Err(mismatch("propose", &other)),
    }
    state
        .inventory
        .check_references(&body.activation, event.time)?;
    let quorum = state.genesis()?.quorum;
    let needed = Needed {
        humans: quorum,
        parties: quorum,
        key_class: key_class_for(state, &body.activation),
        administrators: true,
    };
    let subject = ApprovalSubject::Activation {
        subject: body.activation.subject(),
        record: body.activation.digest()?,
    };
    let mut request = Request::new(
        RequestId(event.index),
        subject,
        needed,
        Party([Principal::Human(author.clone())].into()),
        event.time.plus_ms(approval::REQUEST_LIFE_MS),
    );
    request.activation = Some(body.activation.clone());
    if state.solo() && state.inventory.human(&author)?.manifest.administrator {
        // The author's own signature is over the very record, so it counts, and says what it is.
        request.count_author(&author, event.actor.key_class.unwrap_or(KeyClass::Software));
    }
    state.requests.insert(request.id, Arc::new(request));
    Ok(())
}

/// A proposed record comes into force.
pub(crate) fn completed(
    state: &mut State,
    event: &Event,
    body: &ActivationCompleted,
) -> Result<(), Refusal> {
    state.require_control(event)?;
    let request = approval::require_satisfied(state, body.request, event.time)?;
    let activation = request
        .activation
        .clone()
        .ok_or_else(|| Refusal::conflict("not-an-activation", "this request activates nothing"))?;
    let alone = request.self_approved();
    let author = request
        .party
        .0
        .iter()
        .find_map(|member| member.human().cloned());
    // The world may have moved since the proposal.
    state.inventory.check_references(&activation, event.time)?;
    let newcomer = matches!(&activation, Activation::Human(human) if !state.inventory.humans.contains_key(&human.id));
    let invited_by = match &activation {
        Activation::Human(human) => match state.inventory.humans.get(&human.id) {
            Some(known) => known.invited_by.clone(),
            None => author.filter(|_| alone && newcomer),
        },
        _ => None,
    };
    state.inventory.insert(&activation, invited_by);
    match &activation {
        Activation::Repository(repository) => adopt(state, repository),
        Activation::Environment(environment)
            if !state.environments.contains_key(&environment.id) =>
        {
            state.environments.insert(
                environment.id.clone(),
                Arc::new(EnvironmentState::default()),
            );
        }
        _ => {}
    }
    approval::use_up(state, body.request)
}

/// Somebody or something lost its rights; runs that hang on them end with the same entry.
pub(crate) fn ended(
    state: &mut State,
    event: &Event,
    body: &PrincipalEnded,
) -> Result<(), Refusal> {
    state.require_active_human(event)?;
    let by = event.actor.require_human()?.clone();
    let command = state.take_command(event, &body.envelope)?;
    let matches = match (&command, &body.subject) {
        (Command::SuspendAgent { agent, .. }, Ended::AgentSuspended(id))
        | (Command::RetireAgent { agent, .. }, Ended::AgentRetired(id)) => agent == id,
        (Command::RetireHuman { human, .. }, Ended::HumanRetired(id))
        | (Command::ForgetHuman { human, .. }, Ended::HumanForgotten(id)) => human == id,
        (Command::RetireService { service, .. }, Ended::ServiceRetired(id)) => service == id,
        (Command::RetireHost { host, .. }, Ended::HostRetired(id)) => host == id,
        _ => false,
    };
    if !matches {
        return Err(mismatch("the same subject", &command));
    }
    let inventory = &mut state.inventory;
    let administrator = inventory
        .humans
        .get(&by)
        .is_some_and(|person| person.manifest.administrator);
    let owner = match &body.subject {
        Ended::AgentSuspended(id) | Ended::AgentRetired(id) => {
            let record = inventory
                .agents
                .get_mut(id)
                .ok_or_else(|| Refusal::not_found("agent", id))?;
            let record = Arc::make_mut(record);
            record.standing = match &body.subject {
                Ended::AgentSuspended(_) if record.standing == Standing::Active => {
                    Standing::Suspended
                }
                Ended::AgentSuspended(_) => record.standing,
                _ => Standing::Retired,
            };
            Some(record.manifest.owner.clone())
        }
        Ended::HumanRetired(id) | Ended::HumanForgotten(id) => {
            let last = administrator_is_last(inventory, id);
            let person = inventory
                .humans
                .get_mut(id)
                .ok_or_else(|| Refusal::not_found("human", id))?;
            if last {
                return Err(Refusal::denied(
                    "last-administrator",
                    format!("{id} is the last administrator"),
                )
                .next("activate another administrator first"));
            }
            Arc::make_mut(person).standing = Standing::Retired;
            Some(id.clone())
        }
        Ended::ServiceRetired(id) => {
            let record = inventory
                .services
                .get_mut(id)
                .ok_or_else(|| Refusal::not_found("service", id))?;
            let record = Arc::make_mut(record);
            record.standing = Standing::Retired;
            Some(record.manifest.owner.clone())
        }
        Ended::HostRetired(id) => {
            let record = inventory
                .hosts
                .get_mut(id)
                .ok_or_else(|| Refusal::not_found("host", id))?;
            let record = Arc::make_mut(record);
            record.standing = Standing::Retired;
            Some(record.manifest.owner.clone())
        }
    };
    if !administrator && owner.as_ref() != Some(&by) {
        return Err(Refusal::denied(
            "not-owner",
            "only its owner or an administrator may do this",
        )
        .received(by.as_str()));
    }
    let subject = body.subject.clone();
    run::end_all(state, event.time, &RunEnd::Rights, |run| match &subject {
        Ended::AgentSuspended(id) | Ended::AgentRetired(id) => run.agent == *id,
        Ended::HumanRetired(id) | Ended::HumanForgotten(id) => run.signer == *id,
        Ended::HostRetired(id) => run.host == *id,
        Ended::ServiceRetired(_) => false,
    });
    Ok(())
}

fn administrator_is_last(inventory: &Inventory, id: &HumanId) -> bool {
    inventory
        .administrators()
        .all(|administrator| administrator == id)
}

/// The entry says one thing and the signed command another.
pub(crate) fn mismatch(expected: &str, command: &Command) -> Refusal {
    Refusal::denied("command-mismatch", "the entry is not what was commanded")
        .expected(expected)
        .received(command.name())
}
