//! The breaker: one gesture stops what agents do, and only what agents do.

use portcullis_model::event::{
    BreakerReset, BreakerTripped, EffectOutcome, RequestOpened, RolloutOutcome, Step,
};
use portcullis_model::statement::{ApprovalSubject, BreakerScope, Command};
use portcullis_model::{KeyClass, Party, RequestId};

use super::world::*;
use crate::work::{Work, plan};

fn tripped(world: &mut World, scope: &BreakerScope) -> BreakerTripped {
    let why = digest("why");
    let envelope = world.command(
        &human("flo"),
        Command::TripBreaker {
            scope: scope.clone(),
            why,
            revert: false,
        },
    );
    BreakerTripped {
        scope: scope.clone(),
        why,
        revert: false,
        envelope: Some(envelope),
    }
}

fn trip(world: &mut World, scope: &BreakerScope) {
    let body = tripped(world, scope);
    world.must(human("flo"), body);
}

fn scopes() -> [BreakerScope; 3] {
    [
        BreakerScope::Everywhere,
        BreakerScope::Agent(id("fixer")),
        BreakerScope::Repository(id("shop")),
    ]
}

#[test]
fn anyone_trips_it_but_no_agent() {
    let mut world = World::team();
    let body = tripped(&mut world, &BreakerScope::Everywhere);
    let mut wider = body.clone();
    wider.scope = BreakerScope::Agent(id("fixer"));
    assert_eq!(world.refused(human("flo"), wider), "command-mismatch");
    let mut revert = body.clone();
    revert.revert = true;
    assert_eq!(world.refused(human("flo"), revert), "command-mismatch");
    let run = world.run();
    let mut own = body.clone();
    own.envelope = None;
    assert_eq!(world.refused(in_run(run), own.clone()), "not-a-service");
    world.clone().must(control(), own);
    world.must(human("flo"), body);
}

#[test]
fn every_scope_stops_new_runs_pushes_and_landings_of_agents() {
    for scope in scopes() {
        let mut world = World::team();
        let run = world.run();
        let change = world.push(run, 1);
        world.ready(change);
        let task = world.task();
        world.accept(&task);
        trip(&mut world, &scope);
        let start = world.start(&task, "laptop", &[]);
        assert_eq!(
            world.refused(host("laptop"), start),
            "breaker-tripped",
            "{scope}"
        );
        let push = world.pushed(&in_run(run), Some(run), None, 2);
        assert_eq!(
            world.refused(in_run(run), push),
            "breaker-tripped",
            "{scope}"
        );
        let landing = world.landing(change, None);
        assert_eq!(
            world.refused(control(), landing),
            "breaker-tripped",
            "{scope}"
        );
    }
}

#[test]
fn people_go_on_working() {
    let mut world = World::team();
    trip(&mut world, &BreakerScope::Everywhere);
    let change = world.push_by("flo", 1);
    world.ready(change);
    let request = world.ask(change);
    world.approve("ada", request).unwrap();
    world.land(change, Some(request));
    let artifact = world.build(&oid(1));
    world.serve(artifact, "staging");
    world.serve(artifact, "production");
}

#[test]
fn every_scope_stops_releases_of_agents_work_before_and_under_way() {
    let environment = BreakerScope::Environment(id("staging"));
    for scope in scopes().into_iter().chain([environment]) {
        let mut world = World::team();
        let artifact = world.build(&base());
        world.serve(artifact, "staging");
        world.landed(1);
        let artifact = world.build(&oid(1));
        let admission = world.admission(artifact, "staging", None);
        let mut before = world.clone();
        trip(&mut before, &scope);
        assert_eq!(
            before.refused(control(), admission),
            "breaker-tripped",
            "{scope}"
        );
        let release = world.admit(artifact, "staging");
        let rollout = world.roll(release);
        world.advance(rollout, 50);
        trip(&mut world, &scope);
        let advance = world.step(rollout, Step::Advance, 250);
        assert_eq!(
            world.refused(control(), advance),
            "breaker-tripped",
            "{scope}"
        );
        assert!(
            plan(&world.state, world.now).contains(&Work::HaltRollout(rollout)),
            "{scope}"
        );
        let back = world.end_rollout(rollout, RolloutOutcome::RolledBack);
        world.must(control(), back);
    }
}

#[test]
fn a_breaker_covers_only_its_scope() {
    for scope in [
        BreakerScope::Agent(id("another")),
        BreakerScope::Repository(id("another")),
        BreakerScope::Environment(id("production")),
    ] {
        let mut world = World::team();
        trip(&mut world, &scope);
        world.landed(1);
        let artifact = world.build(&oid(1));
        world.serve(artifact, "staging");
    }
}

pub(super) fn reset_request(world: &mut World, scope: &BreakerScope) -> RequestOpened {
    let envelope = world.command(
        &human("ada"),
        Command::ResetBreaker {
            scope: scope.clone(),
            why: digest("why"),
        },
    );
    let mut needed = one_human();
    needed.key_class = KeyClass::Presence;
    RequestOpened {
        subject: ApprovalSubject::BreakerReset {
            scope: scope.clone(),
        },
        task: None,
        checks: None,
        needed,
        party: Party([human("ada").principal].into()),
        because: vec![],
        decision: world.decision(),
        expires: world.now.plus_ms(DAY_MS),
        envelope: Some(envelope),
    }
}

#[test]
fn a_reset_takes_the_signatures_that_it_must() {
    let mut world = World::team();
    let scope = BreakerScope::Everywhere;
    let early = reset_request(&mut world, &scope);
    assert_eq!(world.refused(human("ada"), early), "breaker-not-tripped");
    trip(&mut world, &scope);
    let mut weak = reset_request(&mut world, &scope);
    weak.needed.key_class = KeyClass::Software;
    assert_eq!(world.refused(human("ada"), weak), "request-too-weak");
    let mut nobody = reset_request(&mut world, &scope);
    nobody.needed.humans = 0;
    assert_eq!(world.refused(human("ada"), nobody), "request-too-weak");
    let body = reset_request(&mut world, &scope);
    let request = RequestId(world.must(human("ada"), body));
    let reset = BreakerReset { request };
    assert_eq!(world.refused(control(), reset.clone()), "approval-missing");
    assert_eq!(world.approve("ada", request).unwrap_err().code, "own-party");
    world.approve("bob", request).unwrap();
    assert_eq!(world.refused(human("bob"), reset.clone()), "not-a-service");
    world.must(control(), reset.clone());
    assert!(world.state.breakers.is_empty());
    assert_eq!(world.refused(control(), reset), "approval-missing");
    world.landed(1);
}

#[test]
fn an_approval_of_something_else_resets_nothing() {
    let mut world = World::team();
    trip(&mut world, &BreakerScope::Everywhere);
    let change = world.push_by("flo", 1);
    world.ready(change);
    let request = world.ask(change);
    world.approve("ada", request).unwrap();
    let reset = BreakerReset { request };
    assert_eq!(world.refused(control(), reset), "not-a-reset");
}

#[test]
fn a_landing_under_way_comes_to_its_end() {
    let mut world = World::team();
    let run = world.run();
    let change = world.push(run, 1);
    world.ready(change);
    let body = world.landing(change, None);
    let effect = world.must(control(), body);
    trip(&mut world, &BreakerScope::Everywhere);
    world.conclude(effect, EffectOutcome::Done);
    assert_eq!(world.tip(), oid(1));
}

#[test]
fn who_asks_for_a_reset_does_not_agree_to_it() {
    let mut world = World::team();
    trip(&mut world, &BreakerScope::Everywhere);
    let mut body = reset_request(&mut world, &BreakerScope::Everywhere);
    body.party = Party::default();
    assert_eq!(world.refused(human("ada"), body), "party-incomplete");
}

#[test]
fn an_agreement_to_reset_one_trip_does_not_reset_the_next() {
    let mut world = World::team();
    let scope = BreakerScope::Everywhere;
    trip(&mut world, &scope);
    let first = reset_request(&mut world, &scope);
    let first = RequestId(world.must(human("ada"), first));
    let second = reset_request(&mut world, &scope);
    let second = RequestId(world.must(human("ada"), second));
    world.approve("bob", first).unwrap();
    world.approve("bob", second).unwrap();
    world.must(control(), BreakerReset { request: first });
    trip(&mut world, &scope);
    let reset = BreakerReset { request: second };
    assert_eq!(world.refused(control(), reset), "approval-missing");
    assert!(!plan(&world.state, world.now).contains(&Work::ResetBreaker(second)));
    assert!(world.state.breakers.contains_key(&scope));
}
