//! Approvals: one human, one request, exactly what it asks.

use portcullis_model::event::{Needed, RequestRejected, RequestWithdrawn};
use portcullis_model::manifest::Activation;
use portcullis_model::statement::{ApprovalSubject, Command};
use portcullis_model::{Actor, ChangeId, KeyClass, Party, Principal, RequestId};

use super::inventory::end;
use super::world::*;
use crate::approval::{Status, satisfied, tally};

fn asked() -> (World, ChangeId, RequestId) {
    let mut world = World::team();
    let run = world.run();
    let change = world.push(run, 1);
    world.ready(change);
    let request = world.ask(change);
    (world, change, request)
}

#[test]
fn an_agent_or_a_service_never_approves() {
    let (mut world, _, request) = asked();
    let run = *world.state.runs.keys().next().unwrap();
    let body = approval(world.statement("ada", request));
    for actor in [
        in_run(run),
        control(),
        host("laptop"),
        Actor::unsigned(Principal::Unknown),
    ] {
        assert_eq!(world.refused(actor, body.clone()), "not-a-human");
    }
    // A principal that calls itself human but comes by another credential.
    let mut actor = human("ada");
    actor.kind = portcullis_model::Kind::Service;
    assert_eq!(world.refused(actor, body), "not-a-human");
}

#[test]
fn who_had_a_hand_in_it_does_not_approve_it() {
    // Dan owns the agent and signed its task.
    let (mut world, _, request) = asked();
    assert_eq!(world.approve("dan", request).unwrap_err().code, "own-party");
    let mut world = World::team();
    let change = world.push_by("flo", 1);
    world.ready(change);
    let request = world.ask(change);
    assert_eq!(world.approve("flo", request).unwrap_err().code, "own-party");
    world.approve("dan", request).unwrap();
}

#[test]
fn a_request_names_everyone_who_had_a_hand_in_the_change() {
    let mut world = World::team();
    let run = world.run();
    let change = world.push(run, 1);
    world.ready(change);
    let mut body = world.opened(change);
    body.party = Party::default();
    assert_eq!(world.refused(control(), body), "party-incomplete");
}

#[test]
fn a_person_counts_once_and_strangers_never() {
    let (mut world, _, request) = asked();
    assert_eq!(
        world.approve("zed", request).unwrap_err().code,
        "human-unknown"
    );
    world.approve("ada", request).unwrap();
    assert_eq!(
        world.approve("ada", request).unwrap_err().code,
        "already-approved"
    );
}

#[test]
fn the_statement_is_the_requests_own_content() {
    let (mut world, _, request) = asked();
    let good = world.statement("ada", request);
    let mut altered = Vec::new();
    let mut tree = good.clone();
    if let ApprovalSubject::Change { tree, .. } = &mut tree.subject {
        *tree = oid(0x777);
    }
    altered.push(tree);
    let mut checks = good.clone();
    checks.checks = Some(digest("other checks"));
    altered.push(checks);
    let mut task = good.clone();
    task.task = Some(portcullis_model::TaskId(digest("other task")));
    altered.push(task);
    let mut count = good.clone();
    count.count = 2;
    altered.push(count);
    let mut origin = good.clone();
    origin.ledger.origin = "ledger.example/other".into();
    altered.push(origin);
    let mut future = good.clone();
    future.ledger.size += 1;
    altered.push(future);
    let mut approver = good.clone();
    approver.approver = id("bob");
    altered.push(approver);
    for statement in altered {
        assert_eq!(
            world.refused(human("ada"), approval(statement)),
            "statement-mismatch"
        );
    }
    let mut nowhere = good.clone();
    nowhere.request = RequestId(9_999);
    assert_eq!(
        world.refused(human("ada"), approval(nowhere)),
        "request-not-found"
    );
    // The envelope carries the very statement that the entry shows.
    let mut other = approval(good.clone());
    other.statement.shown = digest("something else");
    assert_eq!(world.refused(human("ada"), other), "statement-mismatch");
    world.must(human("ada"), approval(good));
}

#[test]
fn an_approval_is_worthless_after_its_index_and_its_time() {
    let (mut world, _, request) = asked();
    let mut index = world.statement("ada", request);
    index.expires_index = world.state.size();
    assert_eq!(
        world.refused(human("ada"), approval(index)),
        "approval-expired"
    );
    let mut time = world.statement("ada", request);
    time.expires = world.now;
    assert_eq!(
        world.refused(human("ada"), approval(time)),
        "approval-expired"
    );

    // It also stops counting when the expiry comes later.
    let mut soon = world.statement("ada", request);
    soon.expires = world.now.plus_ms(1_000);
    soon.expires_index = world.state.size() + 2;
    world.must(human("ada"), approval(soon));
    let known = world.state.requests[&request].clone();
    assert!(satisfied(&world.state, &known, world.now));
    assert!(!satisfied(&world.state, &known, world.now.plus_ms(1_000)));
    world.push_by("flo", 9);
    assert!(!satisfied(&world.state, &known, world.now));
}

#[test]
fn an_approval_under_another_policy_is_refused() {
    let (mut world, _, request) = asked();
    let body = approval(world.statement("ada", request));
    world.activate(&Activation::Policy(policy_files("policy two")));
    assert_eq!(world.refused(human("ada"), body), "policy-changed");
    world.approve("ada", request).unwrap();
}

#[test]
fn a_signature_is_worth_what_its_key_proves() {
    let mut world = World::team();
    let change = world.push_by("flo", 1);
    world.ready(change);
    let mut body = world.opened(change);
    body.needed.key_class = KeyClass::Presence;
    let request = RequestId(world.must(control(), body));
    let statement = world.statement("ada", request);
    let software = by_key("ada", KeyClass::Software);
    assert_eq!(
        world.refused(software, approval(statement.clone())),
        "key-class-too-low"
    );
    let unsigned = Actor::unsigned(Principal::Human(id("ada")));
    assert_eq!(
        world.refused(unsigned, approval(statement.clone())),
        "key-class-too-low"
    );
    // Nor may the statement claim more than the signature proves.
    let mut claimed = statement.clone();
    claimed.key_class = KeyClass::Verified;
    assert_eq!(
        world.refused(human("ada"), approval(claimed)),
        "key-class-too-low"
    );
    world.must(human("ada"), approval(statement));
}

#[test]
fn an_approval_is_used_once_by_its_nonce() {
    let (mut world, _, request) = asked();
    let first = world.statement("ada", request);
    let mut second = world.statement("bob", request);
    second.nonce.clone_from(&first.nonce);
    world.must(human("ada"), approval(first));
    assert_eq!(
        world.refused(human("bob"), approval(second)),
        "nonce-replayed"
    );
}

#[test]
fn two_parties_are_two_who_did_not_let_one_another_in() {
    let mut world = World::solo();
    let gil = Activation::Human(person("gil", 7, true));
    let request = world.propose("ada", &gil).unwrap();
    world.complete_activation(request).unwrap();
    let change = world.push_by("dan", 1);
    world.ready(change);
    let mut body = world.opened(change);
    body.needed = Needed {
        humans: 2,
        parties: 2,
        ..one_human()
    };
    let request = RequestId(world.must(control(), body));
    world.approve("ada", request).unwrap();
    world.approve("gil", request).unwrap();
    let known = &world.state.requests[&request];
    let sum = tally(&world.state, known, world.now);
    assert_eq!((sum.humans, sum.parties), (2, 1));
    assert!(!satisfied(&world.state, known, world.now));
}

#[test]
fn alone_an_own_approval_counts_and_is_marked() {
    let mut world = World::solo();
    let change = world.push_by("ada", 1);
    world.ready(change);
    let request = world.ask(change);
    world.approve("ada", request).unwrap();
    let known = &world.state.requests[&request];
    assert!(satisfied(&world.state, known, world.now));
    assert!(tally(&world.state, known, world.now).self_approved);
}

#[test]
fn a_no_ends_the_request_and_so_does_the_server_but_nobody_else() {
    let (mut world, _, request) = asked();
    let why = digest("why");
    let withdrawn = RequestWithdrawn {
        request,
        code: "expired".into(),
    };
    let run = *world.state.runs.keys().next().unwrap();
    assert_eq!(
        world.refused(in_run(run), withdrawn.clone()),
        "not-a-service"
    );
    world.clone().must(control(), withdrawn.clone());
    let envelope = world.command(&human("flo"), Command::Reject { request, why });
    let body = RequestRejected {
        request,
        why,
        envelope,
    };
    world.must(human("flo"), body);
    assert_eq!(
        world.state.requests[&request].status,
        Status::Rejected { by: id("flo"), why }
    );
    assert_eq!(
        world.approve("ada", request).unwrap_err().code,
        "request-closed"
    );
    assert_eq!(world.refused(control(), withdrawn), "request-closed");
}

#[test]
fn an_approver_who_is_retired_no_longer_counts() {
    let (mut world, change, request) = asked();
    world.approve("bob", request).unwrap();
    end(
        &mut world,
        "ada",
        portcullis_model::event::Ended::HumanRetired(id("bob")),
    );
    let landing = world.landing(change, Some(request));
    assert_eq!(world.refused(control(), landing), "approval-missing");
}

#[test]
fn a_request_is_about_the_newest_revision_after_its_checks_and_tests() {
    let mut world = World::team();
    let change = world.push_by("flo", 1);
    let body = world.opened(change);
    assert_eq!(world.refused(control(), body), "not-checked");
    world.ready(change);
    let body = world.opened(change);
    assert_eq!(world.refused(human("flo"), body.clone()), "not-a-service");
    let mut other = body.clone();
    if let ApprovalSubject::Change { head, .. } = &mut other.subject {
        *head = oid(0x777);
    }
    assert_eq!(world.refused(control(), other), "revision-superseded");
    let mut direct = body;
    direct.subject = ApprovalSubject::Activation {
        subject: "human mal".into(),
        record: digest("record"),
    };
    assert_eq!(world.refused(control(), direct), "not-requestable");
}
