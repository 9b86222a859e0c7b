//! The ledger goes on from an older copy of itself: only as an administrator signed it, and with
//! agents halted.

use portcullis_model::event::{BreakerReset, LedgerRestored};
use portcullis_model::statement::{
    BreakerScope, Command, EntryRange, KnownBy, KnownPoint, LedgerPoint, Restoration,
};
use portcullis_model::{Actor, KeyClass, RequestId};

use super::breakers::reset_request;
use super::world::*;

fn restoration(world: &World, newest: Option<u64>) -> Restoration {
    let size = world.state.size();
    Restoration {
        from: LedgerPoint {
            origin: ORIGIN.to_owned(),
            size,
            root: digest("root"),
        },
        known: newest
            .map(|size| KnownPoint {
                by: KnownBy::Held,
                size,
                root: Some(digest("held")),
            })
            .into_iter()
            .collect(),
        lost: newest
            .filter(|newest| *newest > size)
            .map(|newest| EntryRange {
                from: size,
                to: newest - 1,
            }),
    }
}

fn signed(world: &mut World, by: &Actor, restoration: Restoration) -> LedgerRestored {
    let why = digest("why");
    let envelope = world.command(
        by,
        Command::RestoreLedger {
            restoration: restoration.clone(),
            why,
        },
    );
    LedgerRestored {
        restoration,
        why,
        envelope,
    }
}

#[test]
fn what_is_lost_is_signed_by_an_administrator_about_this_very_point() {
    let mut world = World::team();
    let lost = restoration(&world, Some(40));
    let body = signed(&mut world, &human("ada"), lost.clone());
    // No agent, no server, nobody without the right, no weaker key.
    let run = world.clone().run();
    assert_eq!(world.refused(control(), body.clone()), "not-a-human");
    assert_eq!(world.refused(in_run(run), body.clone()), "not-a-human");
    let by_flo = signed(&mut world, &human("flo"), lost.clone());
    assert_eq!(world.refused(human("flo"), by_flo), "not-administrator");
    let weak = by_key("ada", KeyClass::Software);
    let by_weak = signed(&mut world, &weak, lost.clone());
    assert_eq!(world.refused(weak, by_weak), "key-class-too-low");
    // Not with another range than was signed, and not at another point.
    let mut other = body.clone();
    other.restoration.known[0].size = 41;
    other.restoration.lost = Some(EntryRange {
        from: lost.from.size,
        to: 40,
    });
    assert_eq!(world.refused(human("ada"), other), "command-mismatch");
    let mut short = lost.clone();
    short.lost = None;
    let short = signed(&mut world, &human("ada"), short);
    assert_eq!(world.refused(human("ada"), short), "malformed-restoration");
    for size in [lost.from.size - 1, lost.from.size + 1] {
        let mut elsewhere = lost.clone();
        elsewhere.from.size = size;
        elsewhere.lost = Some(EntryRange { from: size, to: 39 });
        let elsewhere = signed(&mut world, &human("ada"), elsewhere);
        assert_eq!(
            world.refused(human("ada"), elsewhere),
            "restore-of-another-point"
        );
    }
    world.must(human("ada"), body.clone());
    assert_eq!(world.refused(human("ada"), body), "nonce-replayed");
}

#[test]
fn agents_are_halted_until_people_reset_the_breaker_unless_nothing_was_lost() {
    let everywhere = BreakerScope::Everywhere;
    for (newest, halts) in [(Some(40), true), (None, true), (Some(1), false)] {
        let mut world = World::team();
        let lost = restoration(&world, newest);
        let body = signed(&mut world, &human("ada"), lost);
        let entry = world.must(human("ada"), body);
        assert_eq!(
            world.state.breakers.get(&everywhere).map(|trip| trip.entry),
            halts.then_some(entry),
            "{newest:?}"
        );
        let known = world
            .state
            .lost_by(&KnownBy::Held, 40, Some(&digest("held")));
        assert_eq!(known, (newest == Some(40)).then_some(entry));
        assert_eq!(world.state.lost_by(&KnownBy::Replaced, 40, None), None);
    }
}

#[test]
fn whoever_agreed_to_a_reset_did_not_know_of_the_loss() {
    let mut world = World::team();
    let lost = restoration(&world, Some(40));
    let body = signed(&mut world, &human("ada"), lost);
    world.must(human("ada"), body);
    let scope = BreakerScope::Everywhere;
    let asked = reset_request(&mut world, &scope);
    let request = RequestId(world.must(human("ada"), asked));
    world.approve("bob", request).unwrap();
    let again = restoration(&world, Some(60));
    let again = signed(&mut world, &human("ada"), again);
    world.must(human("ada"), again);
    assert_eq!(
        world.refused(control(), BreakerReset { request }),
        "approval-missing"
    );
    let asked = reset_request(&mut world, &scope);
    let request = RequestId(world.must(human("ada"), asked));
    world.approve("bob", request).unwrap();
    world.must(control(), BreakerReset { request });
    assert!(world.state.breakers.is_empty());
}
