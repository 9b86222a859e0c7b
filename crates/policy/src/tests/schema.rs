//! The request structs and the schema say the same.

use std::collections::BTreeSet;

use cedar_policy::{Entities, Schema};

use super::sample::{actions, administrator, agent, host, human, request, service};
use crate::decide::Input;
use crate::facts::Facts;
use crate::set::{ACTIONS, PRINCIPALS, SCHEMA, Vocabulary};

fn schema() -> Schema {
    Schema::from_cedarschema_str(SCHEMA).unwrap().0
}

#[test]
fn every_action_of_the_schema_can_be_asked_and_no_other() {
    let in_schema: BTreeSet<String> = schema()
        .actions()
        .map(|uid| uid.id().unescaped().to_owned())
        .collect();
    let listed: BTreeSet<String> = ACTIONS.iter().map(|name| (*name).to_owned()).collect();
    let asked: BTreeSet<String> = actions()
        .iter()
        .map(|(_, action)| action.name().to_owned())
        .collect();
    assert_eq!(in_schema, listed);
    assert_eq!(in_schema, asked);
}

#[test]
fn every_kind_of_principal_may_ask_every_action() {
    let schema = schema();
    for uid in schema.actions() {
        let kinds: BTreeSet<String> = schema
            .principals_for_action(uid)
            .unwrap()
            .map(ToString::to_string)
            .collect();
        let expected = PRINCIPALS.iter().map(|kind| (*kind).to_owned()).collect();
        assert_eq!(kinds, expected, "{uid}");
    }
}

#[test]
fn the_facts_of_every_action_fit_the_schema_exactly() {
    let vocabulary = Vocabulary::of_schema().unwrap();
    for (name, action) in actions() {
        for actor in [human("ada"), agent()] {
            let facts = Facts::of(&request(actor, action.clone()), None);
            // Checks the context, since tests have debug assertions.
            let input =
                Input::of(&vocabulary, &facts).unwrap_or_else(|error| panic!("{name}: {error}"));
            Entities::from_entities(input.entities.iter().cloned(), Some(&vocabulary.schema))
                .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
    }
}

#[test]
fn a_missing_fact_is_noticed() {
    let vocabulary = Vocabulary::of_schema().unwrap();
    let (_, action) = actions().remove(5);
    let mut facts = Facts::of(&request(agent(), action), None);
    facts.context.pop();
    assert!(Input::of(&vocabulary, &facts).is_err());
}

#[test]
fn requests_survive_storage_and_unknown_fields_are_refused() {
    for (name, action) in actions() {
        let request = request(agent(), action);
        let json = serde_json::to_value(&request).unwrap();
        let read: crate::Request = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(read, request, "{name}");
        assert_eq!(read.digest().unwrap(), request.digest().unwrap());
        let mut with_more = json;
        let action = with_more["action"].as_object_mut().unwrap();
        let facts = action.values_mut().next().unwrap();
        facts["approved"] = true.into();
        assert!(
            serde_json::from_value::<crate::Request>(with_more).is_err(),
            "{name}"
        );
    }
}

#[test]
fn evaluating_only_the_rules_about_an_action_changes_nothing() {
    let set = super::embedded();
    let policies = set.rules.iter().map(|rule| rule.policy.clone());
    let all = cedar_policy::PolicySet::from_policies(policies).unwrap();
    for (name, action) in actions() {
        if action.reduces_authority() {
            continue;
        }
        for actor in [
            human("ada"),
            administrator("root"),
            agent(),
            service(),
            host(),
        ] {
            let facts = Facts::of(&request(actor, action.clone()), None);
            let input = Input::of(&set.vocabulary, &facts).unwrap();
            let slice = set
                .slice(facts.action, facts.principal.kind, false)
                .unwrap();
            let decided = |rules| {
                let response = set
                    .authorizer
                    .is_authorized(&input.request, rules, &input.entities);
                let reasons: BTreeSet<String> = response
                    .diagnostics()
                    .reason()
                    .map(ToString::to_string)
                    .collect();
                (response.decision(), reasons)
            };
            assert_eq!(decided(slice), decided(&all), "{name}");
        }
    }
}
