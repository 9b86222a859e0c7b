//! When a "no" is an ask, how small it is, and who counts.

use portcullis_model::event::KeyFloor;
use portcullis_model::manifest::Sensitivity;
use portcullis_model::{KeyClass, Refusal, RefusalKind};

use super::sample::*;
use super::{embedded, is_permit};
use crate::action::*;
use crate::request::Request;
use crate::{Approval, Approvals, Decision, Needed, Party, PolicyFile, PolicySet, decide};

fn ask(set: &PolicySet, request: &Request) -> Option<Needed> {
    match decide(set, request, 0) {
        Decision::Ask(ask) => Some(ask.needed),
        Decision::Permit(_) | Decision::Deny(_) => None,
    }
}

fn needed(humans: u32, parties: u32, key_class: KeyClass) -> Option<Needed> {
    Some(Needed {
        humans,
        parties,
        key_class,
        administrators: false,
    })
}

fn landing(approvals: Vec<Approval>) -> Request {
    let approvals = Approvals(approvals);
    request(
        agent(),
        Action::ChangeLand(ChangeLand {
            approvals,
            ..land()
        }),
    )
}

fn admission(approvals: Vec<Approval>) -> Request {
    let approvals = Approvals(approvals);
    let facts = admit(Sensitivity::Production);
    request(
        service(),
        Action::ReleaseAdmit(ReleaseAdmit { approvals, ..facts }),
    )
}

fn governance(approvals: Vec<Approval>) -> Request {
    request(
        administrator("root"),
        Action::PolicyActivate(PolicyActivate {
            checked: true,
            tests_failed: 0,
            approvals: Approvals(approvals),
        }),
    )
}

#[test]
fn the_smallest_is_asked() {
    let set = embedded();
    assert_eq!(
        ask(&set, &landing(vec![])),
        needed(1, 1, KeyClass::Software)
    );
    assert_eq!(
        ask(&set, &admission(vec![])),
        needed(1, 1, KeyClass::Presence)
    );
}

#[test]
fn an_ask_states_what_is_still_missing_and_what_it_states_is_enough() {
    let more = "@id(\"three\") @reason(\"Three.\") @next(\"Ask.\")\nforbid (principal, action == Action::\"change.land\", resource) unless { context.approvals.humans >= 3 && context.approvals.parties >= 2 && context.approvals.verified_parties >= 1 };";
    let default = PolicyFile::new("default.cedar", crate::DEFAULT);
    let set = PolicySet::load(&[default], &[PolicyFile::new("more.cedar", more)]).unwrap();
    assert_eq!(
        ask(&set, &landing(vec![])),
        needed(3, 2, KeyClass::Verified)
    );
    let one = vec![other("grace", KeyClass::Verified)];
    assert_eq!(ask(&set, &landing(one)), needed(2, 1, KeyClass::Software));
    let enough = vec![
        other("grace", KeyClass::Verified),
        other("alan", KeyClass::Software),
        approval("ada", Party::Own, KeyClass::Software),
    ];
    assert!(is_permit(&set, &landing(enough)));
}

#[test]
fn the_same_person_counts_once() {
    let set = embedded();
    let mut tainted = landing(vec![
        other("grace", KeyClass::Software),
        other("grace", KeyClass::Presence),
    ]);
    tainted.circumstances.taint = set_of_one();
    assert_eq!(ask(&set, &tainted), needed(1, 0, KeyClass::Software));
}

fn set_of_one() -> std::collections::BTreeSet<String> {
    set(&["host:example.org"])
}

#[test]
fn two_people_of_one_party_are_one_party() {
    let more = "@id(\"two\") @reason(\"Two.\") @next(\"Ask.\")\nforbid (principal, action == Action::\"change.land\", resource) unless { context.approvals.parties >= 2 };";
    let default = PolicyFile::new("default.cedar", crate::DEFAULT);
    let set = PolicySet::load(&[default], &[PolicyFile::new("two.cedar", more)]).unwrap();
    let party = || Party::Other("team".to_owned());
    let both = vec![
        approval("grace", party(), KeyClass::Software),
        approval("alan", party(), KeyClass::Software),
    ];
    assert_eq!(ask(&set, &landing(both)), needed(1, 1, KeyClass::Software));
}

#[test]
fn whoever_had_a_hand_in_it_anywhere_is_of_the_own_party() {
    let set = embedded();
    let both = vec![
        other("grace", KeyClass::Presence),
        approval("grace", Party::Own, KeyClass::Presence),
    ];
    assert_eq!(ask(&set, &landing(both)), needed(1, 1, KeyClass::Software));
    // And the author, whatever the caller says.
    let own = Approvals(vec![other("ada", KeyClass::Verified)]);
    let facts = ChangeLand {
        by_agent: false,
        approvals: own,
        ..land()
    };
    let request = request(human("ada"), Action::ChangeLand(facts));
    assert_eq!(ask(&set, &request), needed(1, 1, KeyClass::Software));
}

#[test]
fn a_key_below_the_floor_does_not_count_for_production() {
    let set = embedded();
    let weak = || vec![other("grace", KeyClass::Software)];
    assert_eq!(
        ask(&set, &admission(weak())),
        needed(1, 1, KeyClass::Presence)
    );
    let mut lowered = admission(weak());
    lowered.circumstances.genesis.key_floor = KeyFloor {
        production: KeyClass::Software,
        ..KeyFloor::default()
    };
    assert!(is_permit(&set, &lowered), "the genesis may lower it openly");
}

#[test]
fn solo_lets_one_person_count_and_nothing_else_does() {
    let set = embedded();
    let own = || vec![approval("ada", Party::Own, KeyClass::Presence)];
    for request in [landing(own()), admission(own())] {
        assert!(!is_permit(&set, &request));
        let mut solo = request.clone();
        solo.circumstances.genesis.solo = true;
        assert!(is_permit(&set, &solo));
    }
    let mut nobody = admission(vec![]);
    nobody.circumstances.genesis.solo = true;
    assert_eq!(ask(&set, &nobody), needed(1, 0, KeyClass::Presence));
}

#[test]
fn a_quorum_is_of_administrators_without_the_author() {
    let set = embedded();
    let wanted = |humans| {
        Some(Needed {
            humans,
            parties: humans,
            key_class: KeyClass::Presence,
            administrators: true,
        })
    };
    assert_eq!(ask(&set, &governance(vec![])), wanted(1));
    // The author's own approval, and one by somebody who is no administrator.
    let not_counted = vec![
        other("root", KeyClass::Verified),
        Approval {
            administrator: false,
            ..other("grace", KeyClass::Verified)
        },
        other("weak", KeyClass::Software),
    ];
    assert_eq!(ask(&set, &governance(not_counted)), wanted(1));
    let counted = vec![other("grace", KeyClass::Presence)];
    assert!(is_permit(&set, &governance(counted.clone())));
    let mut two = governance(counted);
    two.circumstances.genesis.quorum = 2;
    assert_eq!(ask(&set, &two), wanted(1));
}

#[test]
fn a_solo_administrator_governs_with_a_key_of_the_floor() {
    let set = embedded();
    let mut alone = governance(vec![]);
    alone.circumstances.genesis.solo = true;
    assert!(is_permit(&set, &alone));
    alone.circumstances.key_class = KeyClass::Software;
    assert!(!is_permit(&set, &alone));
    let mut two = governance(vec![]);
    two.circumstances.genesis.solo = true;
    two.circumstances.genesis.quorum = 2;
    assert!(!is_permit(&set, &two));
}

#[test]
fn no_approval_talks_another_forbid_away() {
    let set = embedded();
    let blocked = ChangeLand {
        checks: Some(portcullis_model::event::CheckVerdict::Block),
        approvals: Approvals::default(),
        ..land()
    };
    let Decision::Deny(denial) = decide(&set, &request(agent(), Action::ChangeLand(blocked)), 0)
    else {
        panic!("a blocked change is no question of approvals");
    };
    let ids: Vec<_> = denial.rules.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(
        ids,
        ["base-blocked"],
        "only what approvals can't lift is told"
    );

    let mut halted = landing(vec![]);
    halted.circumstances.breaker = true;
    assert!(matches!(decide(&set, &halted, 0), Decision::Deny(_)));
}

#[test]
fn whoever_may_not_ask_is_told_so_and_not_to_collect_approvals() {
    let request = request(
        human("eve"),
        Action::ReleaseAdmit(ReleaseAdmit {
            approvals: Approvals::default(),
            ..admit(Sensitivity::Production)
        }),
    );
    let Decision::Deny(denial) = decide(&embedded(), &request, 0) else {
        panic!("no rule lets eve deploy");
    };
    assert_eq!(denial.cause, crate::DenialCause::NoPermit);
    assert!(
        denial.in_every_mode,
        "production's rule still stands behind it"
    );
}

#[test]
fn an_ask_reads_the_same_everywhere() {
    let Decision::Ask(ask) = decide(&embedded(), &admission(vec![]), 9) else {
        panic!("production asks");
    };
    let refusal = Refusal::from(&ask);
    assert_eq!(refusal.kind, RefusalKind::NeedsApproval);
    assert_eq!(refusal.code, "base-production-person");
    assert_eq!(
        refusal.expected.as_deref(),
        Some("approval by 1 more person who had no hand in it, with a hardware key")
    );
    assert!(refusal.rule.unwrap().starts_with("base.cedar:"));
    assert_eq!(ask.basis.at, 9);
}
