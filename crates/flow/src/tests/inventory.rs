//! Records come into force by a quorum that excludes their author, and lose their rights at once.

use portcullis_model::event::{ActivationProposed, Ended, PrincipalEnded, RunEnd};
use portcullis_model::manifest::Activation;
use portcullis_model::statement::Command;
use portcullis_model::{KeyClass, Mode};

use super::world::*;
use crate::approval::REQUEST_LIFE_MS;
use crate::inventory::Standing;

fn newcomer() -> Activation {
    Activation::Human(person("gil", 7, true))
}

#[test]
fn the_author_does_not_count_in_the_quorum() {
    let mut world = World::team();
    let request = world.propose("ada", &newcomer()).unwrap();
    let alone = world.approve("ada", request).unwrap_err();
    assert_eq!(alone.code, "own-party");
    assert_eq!(
        world.complete_activation(request).unwrap_err().code,
        "approval-missing"
    );
    world.approve("bob", request).unwrap();
    world.complete_activation(request).unwrap();
    assert!(world.state.inventory.human(&id("gil")).is_ok());
    // Once is once.
    assert_eq!(
        world.complete_activation(request).unwrap_err().code,
        "approval-missing"
    );
}

#[test]
fn a_quorum_of_two_takes_two() {
    let mut two = genesis();
    two.quorum = 2;
    let mut world = World::from(two).unwrap();
    let request = world.propose("ada", &newcomer()).unwrap();
    world.approve("bob", request).unwrap();
    assert_eq!(
        world.approve("bob", request).unwrap_err().code,
        "already-approved"
    );
    assert!(world.complete_activation(request).is_err());
    world.approve("cyd", request).unwrap();
    world.complete_activation(request).unwrap();
}

#[test]
fn only_administrators_count_for_records() {
    let mut world = World::team();
    let request = world.propose("ada", &newcomer()).unwrap();
    assert_eq!(
        world.approve("eve", request).unwrap_err().code,
        "not-administrator"
    );
}

#[test]
fn keys_and_policy_and_what_leads_to_production_need_a_touch() {
    let mut world = World::team();
    let records = [
        newcomer(),
        Activation::Policy(policy_files("policy two")),
        Activation::Repository(repository_record()),
    ];
    for record in records {
        let request = world.propose("ada", &record).unwrap();
        let body = approval(world.statement("bob", request));
        let software = by_key("bob", KeyClass::Software);
        assert_eq!(world.refused(software, body.clone()), "key-class-too-low");
        world.must(human("bob"), body);
    }
    let agent = Activation::Agent(agent_record("helper"));
    let request = world.propose("ada", &agent).unwrap();
    let body = approval(world.statement("bob", request));
    world.must(by_key("bob", KeyClass::Software), body);
}

#[test]
fn alone_the_proposal_counts_and_says_so() {
    let mut world = World::solo();
    let request = world.propose("ada", &newcomer()).unwrap();
    assert!(world.state.requests[&request].self_approved());
    world.complete_activation(request).unwrap();
    // Whom one person let in alone is of that person's party.
    let gil = &world.state.inventory.humans[&id::<portcullis_model::HumanId>("gil")];
    assert_eq!(gil.invited_by, Some(id("ada")));
}

#[test]
fn alone_a_software_key_does_not_count_where_a_touch_is_demanded() {
    let mut world = World::solo();
    let actor = by_key("ada", KeyClass::Software);
    let envelope = world.command(
        &actor,
        Command::Propose {
            activation: newcomer(),
            why: digest("why"),
        },
    );
    let body = ActivationProposed {
        activation: newcomer(),
        why: digest("why"),
        envelope,
    };
    let request = portcullis_model::RequestId(world.must(actor, body));
    assert!(!world.state.requests[&request].self_approved());
    assert!(world.complete_activation(request).is_err());
}

#[test]
fn an_entry_that_differs_from_what_was_signed_is_refused() {
    let mut world = World::team();
    let actor = human("ada");
    let envelope = world.command(
        &actor,
        Command::Propose {
            activation: newcomer(),
            why: digest("why"),
        },
    );
    let swapped = ActivationProposed {
        activation: Activation::Human(person("mal", 9, true)),
        why: digest("why"),
        envelope: envelope.clone(),
    };
    assert_eq!(world.refused(actor.clone(), swapped), "command-mismatch");
    let borrowed = ActivationProposed {
        activation: newcomer(),
        why: digest("why"),
        envelope,
    };
    assert_eq!(world.refused(human("bob"), borrowed.clone()), "wrong-actor");
    assert_eq!(world.refused(control(), borrowed), "not-a-human");
}

#[test]
fn references_are_checked_when_proposed_and_again_when_it_comes_into_force() {
    let mut world = World::team();
    let mut stray = agent_record("helper");
    stray.repositories = [id("other")].into();
    let refusal = world.propose("ada", &Activation::Agent(stray)).unwrap_err();
    assert_eq!(refusal.code, "repository-not-found");
    let mut expired = agent_record("helper");
    expired.expires = world.now;
    let refusal = world
        .propose("ada", &Activation::Agent(expired))
        .unwrap_err();
    assert_eq!(refusal.code, "already-expired");

    let request = world
        .propose("ada", &Activation::Agent(agent_record("helper")))
        .unwrap();
    world.approve("bob", request).unwrap();
    end(&mut world, "ada", Ended::HumanRetired(id("dan")));
    assert_eq!(
        world.complete_activation(request).unwrap_err().code,
        "human-retired"
    );
}

#[test]
fn a_proposal_waits_for_a_bounded_time() {
    let mut world = World::team();
    let request = world.propose("ada", &newcomer()).unwrap();
    world.later(REQUEST_LIFE_MS);
    assert_eq!(
        world.approve("bob", request).unwrap_err().code,
        "request-closed"
    );
}

#[test]
fn an_approver_who_lost_the_rights_no_longer_counts() {
    let mut world = World::team();
    let request = world.propose("ada", &newcomer()).unwrap();
    world.approve("bob", request).unwrap();
    end(&mut world, "cyd", Ended::HumanRetired(id("bob")));
    assert_eq!(
        world.complete_activation(request).unwrap_err().code,
        "approval-missing"
    );
}

/// Somebody ends somebody or something.
pub(super) fn end(world: &mut World, by: &str, subject: Ended) -> portcullis_model::LedgerIndex {
    let body = ending(world, by, subject);
    world.must(human(by), body)
}

fn ending(world: &mut World, by: &str, subject: Ended) -> PrincipalEnded {
    let why = digest("why");
    let command = match subject.clone() {
        Ended::AgentSuspended(agent) => Command::SuspendAgent { agent, why },
        Ended::AgentRetired(agent) => Command::RetireAgent { agent, why },
        Ended::HumanRetired(human) => Command::RetireHuman { human, why },
        Ended::HumanForgotten(human) => Command::ForgetHuman { human, why },
        Ended::ServiceRetired(service) => Command::RetireService { service, why },
        Ended::HostRetired(host) => Command::RetireHost { host, why },
    };
    let envelope = world.command(&human(by), command);
    PrincipalEnded {
        subject,
        why,
        envelope,
    }
}

#[test]
fn runs_end_with_the_entry_that_takes_the_rights_they_hang_on() {
    for subject in [
        Ended::AgentSuspended(id("fixer")),
        Ended::AgentRetired(id("fixer")),
        Ended::HumanRetired(id("dan")),
        Ended::HostRetired(id("laptop")),
    ] {
        let mut world = World::team();
        let run = world.run();
        end(&mut world, "ada", subject.clone());
        let (_, end) = world.state.runs[&run].end.clone().unwrap();
        assert_eq!(end, RunEnd::Rights, "{subject:?}");
        let push = world.pushed(&in_run(run), Some(run), None, 1);
        assert_eq!(world.refused(in_run(run), push), "run-ended", "{subject:?}");
    }
}

#[test]
fn a_suspended_agent_gets_no_run_until_a_quorum_brings_it_back() {
    let mut world = World::team();
    end(&mut world, "dan", Ended::AgentSuspended(id("fixer")));
    let task = world.task();
    let body = world.accepted(&task);
    assert_eq!(world.refused(human("dan"), body), "agent-suspended");
    world.activate(&Activation::Agent(agent_record("fixer")));
    world.run();
    end(&mut world, "dan", Ended::AgentRetired(id("fixer")));
    end(&mut world, "dan", Ended::AgentSuspended(id("fixer")));
    let record = &world.state.inventory.agents[&id::<portcullis_model::AgentId>("fixer")];
    assert_eq!(record.standing, Standing::Retired);
}

#[test]
fn only_the_owner_or_an_administrator_takes_rights_away() {
    let mut world = World::team();
    let body = ending(&mut world, "eve", Ended::AgentSuspended(id("fixer")));
    assert_eq!(world.refused(human("eve"), body), "not-owner");
    let body = ending(&mut world, "eve", Ended::HumanRetired(id("ada")));
    assert_eq!(world.refused(human("eve"), body), "not-owner");
    end(&mut world, "eve", Ended::HumanRetired(id("eve")));
    let body = ending(&mut world, "eve", Ended::HumanRetired(id("eve")));
    assert_eq!(world.refused(human("eve"), body), "human-retired");
}

#[test]
fn the_last_administrator_stays() {
    let mut world = World::team();
    end(&mut world, "ada", Ended::HumanRetired(id("bob")));
    end(&mut world, "ada", Ended::HumanRetired(id("cyd")));
    let body = ending(&mut world, "ada", Ended::HumanRetired(id("ada")));
    assert_eq!(world.refused(human("ada"), body), "last-administrator");
}

#[test]
fn the_ended_one_is_the_one_that_was_signed() {
    let mut world = World::team();
    let mut body = ending(&mut world, "ada", Ended::HumanRetired(id("bob")));
    body.subject = Ended::HumanRetired(id("cyd"));
    assert_eq!(world.refused(human("ada"), body), "command-mismatch");
}

#[test]
fn an_expired_service_does_nothing() {
    let mut world = World::team();
    let request = world.propose("ada", &newcomer()).unwrap();
    world.approve("bob", request).unwrap();
    end(&mut world, "ada", Ended::ServiceRetired(id("control")));
    assert_eq!(
        world.complete_activation(request).unwrap_err().code,
        "not-a-service"
    );
}

#[test]
fn a_policy_in_force_replaces_the_one_before_and_what_was_decided_under_it() {
    let mut world = World::team();
    let task = world.task();
    let stale = world.accepted(&task);
    world.activate(&Activation::Policy(policy_files("policy two")));
    assert_eq!(world.state.policy(), Some(digest("policy two")));
    assert_eq!(world.refused(human("dan"), stale), "policy-changed");
}

#[test]
fn a_mode_is_changed_by_a_quorum_alone_and_stands_in_every_entry() {
    let mut world = World::team();
    let mut watched = repository_record();
    watched.mode = Mode::Observe;
    world.activate(&Activation::Repository(watched));
    let run = world.run();
    world.push(run, 1);
    assert_eq!(world.log.last().unwrap().mode, Mode::Observe);
}

#[test]
fn alone_only_an_administrators_own_proposal_counts() {
    let mut world = World::solo();
    let crown = Activation::Human(person("dan", 4, true));
    let request = world.propose("dan", &crown).unwrap();
    assert!(world.state.requests[&request].approvals.is_empty());
    assert_eq!(
        world.complete_activation(request).unwrap_err().code,
        "approval-missing"
    );
}
