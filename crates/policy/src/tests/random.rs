//! Random landings and admissions: what an ask promises, it keeps.

use portcullis_model::KeyClass;
use portcullis_model::event::{CheckVerdict, KeyFloor, TestVerdict};
use portcullis_model::manifest::Sensitivity;
use proptest::prelude::*;

use super::sample::*;
use super::{embedded, is_permit};
use crate::action::*;
use crate::{Action, Approval, Approvals, Decision, Needed, Party, Request, decide};

fn class() -> impl Strategy<Value = KeyClass> {
    prop_oneof![
        Just(KeyClass::Software),
        Just(KeyClass::Presence),
        Just(KeyClass::Verified)
    ]
}

fn approvals() -> impl Strategy<Value = Vec<Approval>> {
    let people = prop::sample::select(vec!["ada", "grace", "alan", "edsger"]);
    let party = prop_oneof![
        Just(Party::Own),
        prop::sample::select(vec!["one", "two"]).prop_map(|name| Party::Other(name.to_owned())),
    ];
    prop::collection::vec(
        (people, party, class()).prop_map(|(human, party, class)| approval(human, party, class)),
        0..4,
    )
}

fn sensitivity() -> impl Strategy<Value = Sensitivity> {
    prop_oneof![
        Just(Sensitivity::Development),
        Just(Sensitivity::Staging),
        Just(Sensitivity::Production)
    ]
}

fn landing() -> impl Strategy<Value = Action> {
    let checks = prop_oneof![
        4 => Just(Some(CheckVerdict::Pass)),
        2 => Just(Some(CheckVerdict::Escalate)),
        1 => Just(Some(CheckVerdict::Block)),
        1 => Just(None),
    ];
    let tests = prop_oneof![
        4 => Just(Some(TestVerdict::Passed)),
        1 => Just(Some(TestVerdict::Failed)),
        1 => Just(None),
    ];
    let deploys = prop_oneof![Just(Deploys::Nothing), sensitivity().prop_map(Deploys::To)];
    (checks, tests, deploys, approvals(), any::<(bool, bool)>()).prop_map(
        |(checks, tests, deploys_to, given, (protected, by_agent))| {
            Action::ChangeLand(ChangeLand {
                checks,
                tests,
                deploys_to,
                protected,
                by_agent,
                approvals: Approvals(given),
                ..land()
            })
        },
    )
}

fn admission() -> impl Strategy<Value = Action> {
    (
        sensitivity(),
        approvals(),
        any::<(bool, bool, bool)>(),
        0..3_u64,
    )
        .prop_map(
            |(sensitivity, given, (proved, with_agent, canary), unproven_commits)| {
                Action::ReleaseAdmit(ReleaseAdmit {
                    provenance_verified: proved || canary,
                    contains_agent_work: with_agent,
                    canary,
                    unproven_commits,
                    approvals: Approvals(given),
                    ..admit(sensitivity)
                })
            },
        )
}

fn requests() -> impl Strategy<Value = Request> {
    let actor = prop_oneof![Just(agent()), Just(service()), Just(human("ada"))];
    let action = prop_oneof![landing(), admission()];
    (actor, action, any::<(bool, bool, bool)>(), class()).prop_map(
        |(actor, action, (solo, tainted, breaker), floor)| {
            let mut request = request(actor, action);
            request.circumstances.genesis.solo = solo;
            request.circumstances.genesis.key_floor = KeyFloor {
                production: floor,
                ..KeyFloor::default()
            };
            request.circumstances.breaker = breaker && tainted;
            if tainted {
                request.circumstances.taint = set(&["host:example.org"]);
            }
            request
        },
    )
}

/// `request` after so many further people really approved.
fn approved(request: &Request, needed: Needed) -> Request {
    let mut request = request.clone();
    let given = match &mut request.action {
        Action::ChangeLand(facts) => &mut facts.approvals,
        Action::ReleaseAdmit(facts) => &mut facts.approvals,
        other => panic!("{} takes no approvals here", other.name()),
    };
    for number in 0..needed.humans {
        let name = format!("new-{number}");
        let party = if number < needed.parties {
            Party::Other(name.clone())
        } else {
            Party::Own
        };
        given.0.push(approval(&name, party, needed.key_class));
    }
    request
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_ask_is_enough_no_less_is_and_a_denial_stays(request in requests()) {
        thread_local! {
            static SET: crate::PolicySet = embedded();
        }
        SET.with(|set| {
            match decide(set, &request, 0) {
                Decision::Ask(ask) => {
                    let needed = ask.needed;
                    prop_assert!(is_permit(set, &approved(&request, needed)), "{ask:?}");
                    let fewer = Needed {
                        humans: needed.humans - 1,
                        parties: needed.parties.min(needed.humans - 1),
                        key_class: KeyClass::Verified,
                        ..needed
                    };
                    prop_assert!(!is_permit(set, &approved(&request, fewer)), "{ask:?}");
                    if needed.parties > 0 {
                        let own = Needed { parties: needed.parties - 1, key_class: KeyClass::Verified, ..needed };
                        prop_assert!(!is_permit(set, &approved(&request, own)), "{ask:?}");
                    }
                }
                Decision::Deny(_) => {
                    let many = Needed { humans: 9, parties: 9, key_class: KeyClass::Verified, administrators: true };
                    prop_assert!(!is_permit(set, &approved(&request, many)));
                }
                Decision::Permit(_) => {
                    let one = Needed { humans: 1, parties: 1, key_class: KeyClass::Software, administrators: true };
                    prop_assert!(is_permit(set, &approved(&request, one)), "more approvals never harm");
                }
            }
            Ok(())
        })?;
    }
}
