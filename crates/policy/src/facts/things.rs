//! Who acts and what is acted upon, as entities with what they are in.

use std::collections::BTreeSet;

use portcullis_model::statement::BreakerScope;
use portcullis_model::{GroupId, RepositoryId};

use super::{Thing, Uid, Value};
use crate::action::{
    Action, AgentTarget, EnvironmentTarget, InventoryRecord, RunContinue, RunStop,
};
use crate::request::Actor;

pub(super) fn actor(actor: &Actor, things: &mut Vec<Thing>) -> Uid {
    match actor {
        Actor::Human(human) => {
            let uid = Uid::new("Human", &human.id);
            things.push(Thing::within(uid.clone(), groups(&human.groups)));
            uid
        }
        Actor::Service(service) => {
            let uid = Uid::new("Service", &service.id);
            things.push(Thing::within(uid.clone(), groups(&service.groups)));
            uid
        }
        Actor::Host(host) => {
            let uid = Uid::new("Host", &host.id);
            things.push(Thing::plain(uid.clone()));
            uid
        }
        // An entity of its own, in no group; the name can't be that of a record.
        Actor::Unknown => Uid::new("Run", "unknown"),
        Actor::Agent(agent) => {
            let agent_uid = Uid::new("Agent", &agent.id);
            things.push(Thing {
                uid: agent_uid.clone(),
                parents: groups(&agent.groups),
                attributes: vec![
                    ("owner", Value::Entity(Uid::new("Human", &agent.owner))),
                    ("active", Value::Bool(agent.active)),
                    ("tasked_by", Value::Entities(Vec::new())),
                ],
            });
            match agent.run {
                Some(run) => {
                    let uid = Uid::new("Run", run);
                    things.push(Thing::within(uid.clone(), vec![agent_uid]));
                    uid
                }
                None => agent_uid,
            }
        }
    }
}

fn groups(groups: &BTreeSet<GroupId>) -> Vec<Uid> {
    groups.iter().map(|id| Uid::new("Group", id)).collect()
}

pub(super) fn resource(action: &Action, things: &mut Vec<Thing>) -> Uid {
    let thing = match action {
        Action::TaskSign(facts) => agent_thing(&facts.agent),
        Action::RunStart(facts) => agent_thing(&facts.agent),
        Action::RunContinue(RunContinue { run, agent, .. })
        | Action::RunStop(RunStop { run, agent }) => {
            let agent = agent_thing(agent);
            let run = Thing::within(Uid::new("Run", run), vec![agent.uid.clone()]);
            add(things, agent);
            run
        }
        Action::GitFetch(facts) => Thing::plain(Uid::new("Repository", &facts.repository)),
        Action::GitPush(facts) => reference(&facts.repository, &facts.reference),
        Action::ModelCall(facts) => Thing::plain(Uid::new("Endpoint", &facts.endpoint)),
        Action::NetConnect(facts) => Thing::plain(Uid::new("Destination", &facts.host)),
        Action::LeaseIssue(facts) => Thing::plain(Uid::new("Endpoint", &facts.endpoint)),
        Action::ChangeLand(facts) => {
            let target = reference(&facts.repository, &facts.reference);
            let change = Thing::within(Uid::new("Change", facts.change), vec![target.uid.clone()]);
            add(things, target);
            change
        }
        Action::CommitAccept(facts) => Thing::plain(Uid::new("Repository", &facts.repository)),
        Action::RequestApprove(facts) => Thing::plain(Uid::new("Request", facts.request)),
        Action::RequestReject(facts) => Thing::plain(Uid::new("Request", facts.request)),
        Action::JobRun(facts) => Thing::within(
            Uid::new("Job", format!("{}:{}", facts.repository, facts.job)),
            vec![Uid::new("Repository", &facts.repository)],
        ),
        Action::ReleaseAdmit(facts) => environment_thing(&facts.environment),
        Action::ReleaseRevoke(facts) => {
            let environment = environment_thing(&facts.environment);
            let release = Thing::within(
                Uid::new("Release", facts.release),
                vec![environment.uid.clone()],
            );
            add(things, environment);
            release
        }
        Action::RolloutCommand(facts) => environment_thing(&facts.environment),
        Action::InventoryChange(facts) => match &facts.record {
            InventoryRecord::Human(id) => Thing::plain(Uid::new("Human", id)),
            InventoryRecord::Agent(agent) => agent_thing(agent),
            InventoryRecord::Service(id) => Thing::plain(Uid::new("Service", id)),
            InventoryRecord::Group(id) => Thing::plain(Uid::new("Group", id)),
            InventoryRecord::Host(id) => Thing::plain(Uid::new("Host", id)),
            InventoryRecord::Repository(id) => Thing::plain(Uid::new("Repository", id)),
            InventoryRecord::Environment(environment) => environment_thing(environment),
            InventoryRecord::Endpoint(id) => Thing::plain(Uid::new("Endpoint", id)),
        },
        Action::PolicyActivate(_) => Thing::plain(Uid::new("Installation", "this")),
        Action::ModeChange(facts) => Thing::plain(Uid::new("Repository", &facts.repository)),
        Action::BreakerTrip(facts) => Thing::plain(breaker(&facts.scope)),
        Action::BreakerReset(facts) => Thing::plain(breaker(&facts.scope)),
    };
    let uid = thing.uid.clone();
    add(things, thing);
    uid
}

/// Adds a thing once: a principal may be the resource as well (a person who changes their own
/// record), and then what is known of the principal stands, as it came from the credential.
fn add(things: &mut Vec<Thing>, thing: Thing) {
    match things.iter_mut().find(|known| known.uid == thing.uid) {
        Some(known) => {
            if !thing.attributes.is_empty() {
                known.attributes = thing.attributes;
            }
        }
        None => things.push(thing),
    }
}

fn reference(repository: &RepositoryId, reference: &str) -> Thing {
    Thing::within(
        Uid::new("Ref", format!("{repository}:{reference}")),
        vec![Uid::new("Repository", repository)],
    )
}

fn agent_thing(agent: &AgentTarget) -> Thing {
    Thing {
        uid: Uid::new("Agent", &agent.id),
        parents: Vec::new(),
        attributes: vec![
            ("owner", Value::Entity(Uid::new("Human", &agent.owner))),
            ("active", Value::Bool(agent.active)),
            ("tasked_by", Value::Entities(groups(&agent.tasked_by))),
        ],
    }
}

fn environment_thing(environment: &EnvironmentTarget) -> Thing {
    Thing {
        uid: Uid::new("Environment", &environment.id),
        parents: Vec::new(),
        attributes: vec![("deployers", Value::Entities(groups(&environment.deployers)))],
    }
}

fn breaker(scope: &BreakerScope) -> Uid {
    match scope {
        BreakerScope::Everywhere => Uid::new("Breaker", "everywhere"),
        BreakerScope::Environment(id) => Uid::new("Breaker", format!("environment:{id}")),
        BreakerScope::Agent(id) => Uid::new("Breaker", format!("agent:{id}")),
        BreakerScope::Repository(id) => Uid::new("Breaker", format!("repository:{id}")),
    }
}
