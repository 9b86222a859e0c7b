//! Order, time, nonces: what makes the ledger one line.

use portcullis_model::event::{BreakerTripped, CheckVerdict, IncidentOpened, ServerStarted};
use portcullis_model::limits::CLOCK_FORWARD_MAX_MS;
use portcullis_model::statement::{BreakerScope, Command as Commanded, LedgerPoint, SignedCommand};
use portcullis_model::{Body, Fold as _, Timestamp};

use super::world::*;
use crate::{Command, State};

fn incident() -> IncidentOpened {
    IncidentOpened {
        code: "clock-jump".into(),
        about: None,
        facts: Default::default(),
    }
}

#[test]
fn an_entry_stands_at_the_next_index_and_never_before_the_last_in_time() {
    let world = World::team();
    let command = Command::one(control(), incident());
    let good = world.state.decide(&command, world.now).unwrap().remove(0);
    let mut skipped = good.clone();
    skipped.index += 1;
    let mut again = good.clone();
    again.index -= 1;
    let mut earlier = good.clone();
    earlier.time = Timestamp::from_ms(world.now.as_ms() - 1);
    for event in [skipped, again, earlier] {
        let refusal = world.state.clone().apply(&event).unwrap_err();
        assert_eq!(refusal.code, "out-of-order");
    }
}

#[test]
fn a_clock_that_goes_back_does_not_take_time_back() {
    let mut world = World::team();
    world.later(10_000);
    world.must(control(), incident());
    world.now = Timestamp::from_ms(1);
    world.must(control(), incident());
    let [.., before, after] = &world.log[..] else {
        panic!("two entries");
    };
    assert_eq!(before.time, after.time);
}

#[test]
fn what_is_recorded_together_sees_what_came_before_it() {
    let mut world = World::team();
    let one = world.push_by("flo", 1);
    let checks = world.checks(one, CheckVerdict::Pass);
    let twice = Command::of(control(), vec![checks.clone().into(), checks.into()]);
    let refusal = world.state.decide(&twice, world.now).unwrap_err();
    assert_eq!(refusal.code, "checks-known");
}

fn trip(world: &World, command: &SignedCommand) -> Result<u64, portcullis_model::Refusal> {
    let Commanded::TripBreaker { scope, why, revert } = command.command.clone() else {
        panic!("a trip");
    };
    let body = BreakerTripped {
        scope,
        why,
        revert,
        envelope: Some(command_envelope(command)),
    };
    world.clone().record(human("flo"), body)
}

fn signed(world: &mut World) -> SignedCommand {
    world.signed(
        &human("flo"),
        Commanded::TripBreaker {
            scope: BreakerScope::Everywhere,
            why: digest("why"),
            revert: false,
        },
    )
}

#[test]
fn a_signed_command_is_for_this_ledger_by_its_signer_and_for_now() {
    let mut world = World::team();
    let good = signed(&mut world);
    let code = |edit: &dyn Fn(&mut SignedCommand)| {
        let mut command = good.clone();
        edit(&mut command);
        trip(&world, &command).unwrap_err().code
    };
    let now = world.now;
    assert_eq!(code(&|command| command.origin = "x".into()), "wrong-ledger");
    assert_eq!(
        code(&|command| command.principal = human("ada").principal),
        "wrong-actor"
    );
    assert_eq!(
        code(&|command| command.version = 2),
        "malformed-command-version"
    );
    assert_eq!(code(&|command| command.expires = now), "command-expired");
    let long = SignedCommand::MAX_LIFE_MS + 1;
    assert_eq!(
        code(&|command| command.expires = now.plus_ms(long)),
        "command-expired"
    );
    // Signed today for next year, or with times that run backwards, it would live till then.
    assert_eq!(
        code(&|command| {
            command.issued = now.plus_ms(365 * DAY_MS);
            command.expires = command.issued.plus_ms(1_000);
        }),
        "command-expired"
    );
    assert_eq!(
        code(&|command| {
            command.issued = now.plus_ms(366 * DAY_MS);
            command.expires = now.plus_ms(365 * DAY_MS);
        }),
        "command-expired"
    );
    assert_eq!(
        code(&|command| {
            command.issued = now.plus_ms(2_000);
            command.expires = now.plus_ms(1_000);
        }),
        "command-expired"
    );
    // Another machine's clock may be a little ahead.
    let mut ahead = good.clone();
    ahead.issued = now.plus_ms(CLOCK_FORWARD_MAX_MS);
    ahead.expires = ahead.issued.plus_ms(1_000);
    trip(&world, &ahead).unwrap();
    trip(&world, &good).unwrap();
}

#[test]
fn a_nonce_is_remembered_as_long_as_it_could_be_replayed() {
    let mut world = World::team();
    let first = signed(&mut world);
    let body = |command: &SignedCommand| BreakerTripped {
        scope: BreakerScope::Everywhere,
        why: digest("why"),
        revert: false,
        envelope: Some(command_envelope(command)),
    };
    for _ in 0..600 {
        let command = signed(&mut world);
        world.must(human("flo"), body(&command));
    }
    world.must(human("flo"), body(&first));
    assert!(world.state.nonces.len() > 600);
    for _ in 0..300 {
        let command = signed(&mut world);
        world.must(human("flo"), body(&command));
        assert_eq!(trip(&world, &first).unwrap_err().code, "nonce-replayed");
    }
    world.later(60_001);
    for _ in 0..256 {
        let command = signed(&mut world);
        world.must(human("flo"), body(&command));
    }
    assert!(
        world.state.nonces.len() <= 256,
        "what is worthless is forgotten"
    );
    assert_eq!(trip(&world, &first).unwrap_err().code, "command-expired");
}

#[test]
fn the_same_entries_give_the_same_state() {
    let mut world = World::team();
    world.landed(1);
    let artifact = world.build(&oid(1));
    world.serve(artifact, "staging");
    let mut again = State::empty();
    for event in &world.log {
        let bytes = State::encode(event).unwrap();
        again
            .apply(&State::decode(event.index, &bytes).unwrap())
            .unwrap();
    }
    assert_eq!(format!("{again:?}"), format!("{:?}", world.state));
}

#[test]
fn a_server_that_takes_over_says_what_it_found() {
    let mut world = World::team();
    let body = ServerStarted {
        program: "0.1.0".into(),
        fold_version: 1,
        found: LedgerPoint {
            origin: ORIGIN.into(),
            size: 1,
            root: digest("root"),
        },
        store: None,
    };
    let before = format!("{:?}", world.state.inventory);
    world.must(control(), body);
    assert_eq!(format!("{:?}", world.state.inventory), before);
}

#[test]
fn a_command_reduces_authority_only_if_all_of_it_does() {
    let trip: Body = BreakerTripped {
        scope: BreakerScope::Everywhere,
        why: digest("why"),
        revert: false,
        envelope: None,
    }
    .into();
    let start: Body = ServerStarted {
        program: "0".into(),
        fold_version: 1,
        found: LedgerPoint {
            origin: ORIGIN.into(),
            size: 0,
            root: digest("root"),
        },
        store: None,
    }
    .into();
    let command = |bodies| Command::of(control(), bodies);
    assert!(State::reduces_authority(&command(vec![trip.clone()])));
    assert!(!State::reduces_authority(&command(vec![start.clone()])));
    assert!(!State::reduces_authority(&command(vec![trip, start])));
}

#[test]
fn a_command_that_the_ledger_holds_or_has_outlived_is_not_acted_on_again() {
    let mut world = World::team();
    let trip = |world: &mut World| {
        world.signed(
            &human("flo"),
            Commanded::TripBreaker {
                scope: BreakerScope::Everywhere,
                why: digest("why"),
                revert: false,
            },
        )
    };
    let code = |world: &World, command: &SignedCommand| {
        world
            .state
            .check_fresh(command, world.now)
            .unwrap_err()
            .code
    };
    let recorded = trip(&mut world);
    world.state.check_fresh(&recorded, world.now).unwrap();
    let body = |command: &SignedCommand| BreakerTripped {
        scope: BreakerScope::Everywhere,
        why: digest("why"),
        revert: false,
        envelope: Some(command_envelope(command)),
    };
    world.must(human("flo"), body(&recorded));
    assert_eq!(code(&world, &recorded), "nonce-replayed");
    let mut elsewhere = trip(&mut world);
    elsewhere.origin = "another.example/ledger".into();
    assert_eq!(code(&world, &elsewhere), "wrong-ledger");
    let mut long = trip(&mut world);
    long.expires = long.issued.plus_ms(SignedCommand::MAX_LIFE_MS + 1);
    assert_eq!(code(&world, &long), "command-expired");
    // Long after, when its nonce is forgotten, it has expired.
    world.later(120_000);
    for _ in 0..300 {
        let command = trip(&mut world);
        world.must(human("flo"), body(&command));
    }
    assert!(!world.state.nonces.contains_key(&recorded.nonce));
    assert_eq!(code(&world, &recorded), "command-expired");
}
