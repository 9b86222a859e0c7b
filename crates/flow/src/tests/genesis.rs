//! Entry 0: what can't be the root of authority.

use portcullis_model::manifest::{Activation, Sensitivity};
use portcullis_model::{Fold as _, Timestamp};

use super::world::*;
use crate::State;

fn code(genesis: portcullis_model::event::GenesisCreated) -> String {
    match World::from(genesis) {
        Ok(_) => panic!("this genesis should have been refused"),
        Err(refusal) => refusal.code,
    }
}

#[test]
fn a_quorum_that_excludes_its_author_needs_one_administrator_more() {
    let mut few = genesis();
    few.quorum = 3;
    assert_eq!(code(few.clone()), "malformed-genesis");
    few.quorum = 2;
    World::from(few).unwrap();
    let mut none = genesis();
    none.quorum = 0;
    assert_eq!(code(none), "malformed-genesis");
}

#[test]
fn one_person_works_alone_only_when_genesis_says_so() {
    let mut alone = solo_genesis();
    World::from(alone.clone()).unwrap();
    alone.solo = false;
    assert_eq!(code(alone), "malformed-genesis");
    let mut two = solo_genesis();
    two.quorum = 2;
    assert_eq!(code(two), "malformed-genesis");
    let mut nobody = solo_genesis();
    nobody.humans[0].administrator = false;
    assert_eq!(code(nobody), "malformed-genesis");
}

#[test]
fn records_that_refer_to_nothing_are_refused() {
    let mut owner = genesis();
    owner.agents[0].owner = id("zed");
    assert_eq!(code(owner), "human-unknown");
    let mut elsewhere = genesis();
    elsewhere.environments[0].repository = id("other");
    assert_eq!(code(elsewhere), "repository-not-found");
    let mut shared = genesis();
    shared.humans[1].keys = shared.humans[0].keys.clone();
    assert_eq!(code(shared), "key-taken");
    let mut port = genesis();
    port.environments[1].port = port.environments[0].port;
    assert_eq!(code(port), "port-taken");
    let mut purpose = genesis();
    purpose.agents[0].purpose = " ".into();
    assert_eq!(code(purpose), "malformed-agent-purpose");
    let mut keyless = genesis();
    keyless.humans[0].keys.clear();
    assert_eq!(code(keyless), "malformed-human");
}

#[test]
fn another_version_of_the_fold_is_refused() {
    let mut later = genesis();
    later.fold_version += 1;
    assert_eq!(code(later), "fold-version");
}

#[test]
fn there_is_one_genesis_and_nothing_before_it() {
    let world = World::team();
    assert_eq!(world.refused(control(), genesis()), "out-of-order");
    let empty = State::empty();
    let early = crate::Command::one(
        control(),
        portcullis_model::event::IncidentOpened {
            code: "a".into(),
            about: None,
            facts: Default::default(),
        },
    );
    let refusal = empty.decide(&early, Timestamp::from_ms(1)).unwrap_err();
    assert_eq!(refusal.code, "out-of-order");
}

#[test]
fn what_is_not_classified_counts_as_production() {
    let text = "id = \"live\"\nrepository = \"shop\"\nport = 9000\n";
    let record: portcullis_model::manifest::Environment =
        portcullis_model::document::from_toml("environment", text).unwrap();
    assert_eq!(record.sensitivity, Sensitivity::Production);
    assert_eq!(
        crate::inventory::key_class_for(&World::team().state, &Activation::Environment(record)),
        portcullis_model::KeyClass::Presence
    );
}
