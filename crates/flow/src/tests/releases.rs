//! Releases: every commit proven, ceilings kept, production by a human's word.

use portcullis_model::event::{CommitsUnproven, EnvironmentReverted, ReleaseRevoked};
use portcullis_model::manifest::{Activation, Sensitivity};
use portcullis_model::statement::{ApprovalSubject, Command};
use portcullis_model::{ArtifactId, KeyClass, ReleaseId, RequestId};

use super::world::*;
use crate::release::{changes_since_admitted, coverage, rollback_target};

fn unproven(world: &mut World, to: u64) -> RequestId {
    let body = CommitsUnproven {
        repository: id("shop"),
        branch: "main".into(),
        from: Some(world.tip()),
        to: oid(to),
        commits: 1,
    };
    RequestId(world.must(control(), body))
}

#[test]
fn a_release_names_every_change_since_the_last() {
    let mut world = World::team();
    let one = world.landed(1);
    let first = world.build(&oid(1));
    world.serve(first, "staging");
    let two = world.landed(2);
    let three = world.landed(3);
    let second = world.build(&oid(3));
    let covered = coverage(&world.state, second, &id("staging")).unwrap();
    assert_eq!(covered.changes, [two, three]);
    assert!(covered.agent_work);
    let covered = coverage(&world.state, second, &id("production")).unwrap();
    assert_eq!(covered.changes, [one, two, three]);
    assert_eq!(
        changes_since_admitted(&world.state, &id("shop"), &oid(3)),
        [one, two, three]
    );
    let good = world.admission(second, "staging", None);
    let mut silent = good.clone();
    silent.changes.pop();
    assert_eq!(world.refused(control(), silent), "coverage-mismatch");
    let mut human_work = good.clone();
    human_work.agent_work = false;
    assert_eq!(world.refused(control(), human_work), "coverage-mismatch");
    assert_eq!(world.refused(human("ada"), good.clone()), "not-a-service");
    world.must(control(), good);
}

#[test]
fn an_artifact_from_before_the_serving_release_does_not_follow_it() {
    let mut world = World::team();
    world.landed(1);
    let old = world.build(&oid(1));
    world.landed(2);
    let new = world.build(&oid(2));
    world.serve(new, "staging");
    let refusal = coverage(&world.state, old, &id("staging")).unwrap_err();
    assert_eq!(refusal.code, "commit-unproven");
    let body = world.admission(old, "staging", None);
    assert_eq!(world.refused(control(), body), "commit-unproven");
}

#[test]
fn what_came_past_us_needs_a_human_before_any_release_holds_it() {
    let mut world = World::team();
    let request = unproven(&mut world, 5);
    let artifact = world.build(&oid(5));
    for environment in ["staging", "production"] {
        let body = world.admission(artifact, environment, None);
        assert_eq!(world.refused(control(), body), "commit-unproven");
    }
    let body = approval(world.statement("ada", request));
    let software = by_key("ada", KeyClass::Software);
    assert_eq!(world.refused(software, body.clone()), "key-class-too-low");
    world.must(human("ada"), body);
    let covered = coverage(&world.state, artifact, &id("staging")).unwrap();
    // Unknown counts as an agent's work.
    assert!(covered.agent_work);
    assert_eq!(covered.unproven, [request]);
    world.admit(artifact, "staging");
}

#[test]
fn a_gap_under_later_work_is_still_a_gap() {
    let mut world = World::team();
    unproven(&mut world, 5);
    world.landed(6);
    let artifact = world.build(&oid(6));
    let body = world.admission(artifact, "staging", None);
    assert_eq!(world.refused(control(), body), "commit-unproven");
}

#[test]
fn history_that_returns_to_an_old_commit_is_covered_to_its_end() {
    let mut world = World::team();
    world.landed(1);
    let artifact = world.build(&oid(1));
    world.landed(2);
    let newer = world.build(&oid(2));
    world.serve(newer, "staging");
    // Somebody forces the branch back past us.
    let request = unproven(&mut world, 1);
    let body = world.admission(artifact, "staging", None);
    assert_eq!(world.refused(control(), body), "commit-unproven");
    world.approve("ada", request).unwrap();
    let covered = coverage(&world.state, artifact, &id("staging")).unwrap();
    assert_eq!(covered.unproven, [request]);
    assert!(covered.agent_work);
}

#[test]
fn production_always_takes_a_humans_approval_of_this_release() {
    let mut world = World::team();
    world.landed(1);
    let artifact = world.build(&oid(1));
    let bare = world.admission(artifact, "production", None);
    assert_eq!(world.refused(control(), bare), "production-needs-a-human");
    let body = world.release_request("dan", artifact, "production");
    let request = RequestId(world.must(human("dan"), body));
    let early = world.admission(artifact, "production", Some(request));
    assert_eq!(world.refused(control(), early.clone()), "approval-missing");
    // An approval for another environment does not do.
    let other = world.approved_release(artifact, "staging");
    let mixed = world.admission(artifact, "production", Some(other));
    assert_eq!(world.refused(control(), mixed), "statement-mismatch");
    world.approve("ada", request).unwrap();
    world.must(control(), early.clone());
    // Nor does one that was used.
    assert_eq!(world.refused(control(), early), "approval-missing");
}

#[test]
fn no_request_for_production_takes_less_than_its_floor() {
    let mut world = World::team();
    let artifact = world.build(&base());
    let mut software = world.release_request("dan", artifact, "production");
    software.needed.key_class = KeyClass::Software;
    assert_eq!(world.refused(human("dan"), software), "request-too-weak");
    let mut nobody = world.release_request("dan", artifact, "production");
    nobody.needed.humans = 0;
    assert_eq!(world.refused(human("dan"), nobody), "request-too-weak");
    let mut digest_ = world.release_request("dan", artifact, "production");
    if let ApprovalSubject::Release { digest, .. } = &mut digest_.subject {
        *digest = super::world::digest("another file");
    }
    assert_eq!(world.refused(human("dan"), digest_), "release-mismatch");
    let mut service = world.release_request("dan", artifact, "production");
    service.envelope = None;
    assert_eq!(world.refused(control(), service), "not-requestable");
    let mut lowered = genesis();
    lowered.key_floor.production = KeyClass::Software;
    let mut world = World::from(lowered).unwrap();
    let artifact = world.build(&base());
    let mut software = world.release_request("dan", artifact, "production");
    software.needed.key_class = KeyClass::Software;
    world.must(human("dan"), software);
}

#[test]
fn no_agents_work_goes_above_its_ceiling() {
    let mut world = World::team();
    world.landed(1);
    let artifact = world.build(&oid(1));
    let mut lower = agent_record("fixer");
    lower.environment_ceiling = Sensitivity::Development;
    world.activate(&Activation::Agent(lower));
    let body = world.admission(artifact, "staging", None);
    assert_eq!(world.refused(control(), body), "above-ceiling");
}

#[test]
fn an_environment_runs_its_own_repository() {
    let mut genesis = genesis();
    let mut other = repository_record();
    other.id = id("other");
    genesis.repositories.push(other);
    let mut elsewhere = environment_record("elsewhere", Sensitivity::Staging, 8010);
    elsewhere.repository = id("other");
    genesis.environments.push(elsewhere);
    let mut world = World::from(genesis).unwrap();
    let artifact = world.build(&base());
    let body = world.admission(artifact, "elsewhere", None);
    assert_eq!(world.refused(control(), body), "wrong-repository");
}

/// Two releases that served, the second still does.
fn two() -> (World, ReleaseId, ReleaseId) {
    let mut world = World::team();
    let artifact = world.build(&base());
    let first = world.serve(artifact, "staging");
    world.landed(1);
    let artifact: ArtifactId = world.build(&oid(1));
    let second = world.serve(artifact, "staging");
    (world, first, second)
}

fn revert(
    world: &mut World,
    to: Option<ReleaseId>,
    said: Option<ReleaseId>,
) -> EnvironmentReverted {
    let why = digest("why");
    let envelope = world.command(
        &human("flo"),
        Command::Rollback {
            environment: id("staging"),
            to: said,
            why,
        },
    );
    EnvironmentReverted {
        environment: id("staging"),
        to,
        epoch: world.state.environments[&id::<portcullis_model::EnvironmentId>("staging")].epoch
            + 1,
        why,
        envelope: Some(envelope),
    }
}

#[test]
fn one_person_returns_an_environment_to_what_served_there() {
    let (mut world, first, second) = two();
    let environment = id("staging");
    assert_eq!(rollback_target(&world.state, &environment), Some(first));
    let body = revert(&mut world, Some(first), None);
    world.must(human("flo"), body);
    let running = &world.state.environments[&environment];
    assert_eq!(running.stable, Some(first));
    // What was left is not something to return to.
    assert_eq!(rollback_target(&world.state, &environment), None);
    assert!(!running.history.contains(&second));
}

#[test]
fn a_rollback_goes_where_its_signer_said() {
    let (mut world, first, second) = two();
    let body = revert(&mut world, Some(first), Some(second));
    assert_eq!(world.refused(human("flo"), body), "command-mismatch");
    let body = revert(&mut world, Some(first), Some(first));
    assert_eq!(world.refused(human("dan"), body.clone()), "wrong-actor");
    let mut stale = body.clone();
    stale.epoch -= 1;
    assert_eq!(world.refused(human("flo"), stale), "stale-epoch");
    world.must(human("flo"), body);
}

#[test]
fn nothing_returns_to_what_is_revoked_or_never_served() {
    let (mut world, first, _) = two();
    let why = digest("why");
    let envelope = world.command(
        &human("flo"),
        Command::RevokeRelease {
            release: first,
            why,
        },
    );
    let body = ReleaseRevoked {
        release: first,
        why,
        envelope,
    };
    let mut other = body.clone();
    other.release = ReleaseId(1);
    assert_eq!(world.refused(human("flo"), other), "command-mismatch");
    world.must(human("flo"), body);
    let revoked = revert(&mut world, Some(first), None);
    assert_eq!(world.refused(human("flo"), revoked), "not-returnable");
    assert_eq!(rollback_target(&world.state, &id("staging")), None);
    let artifact = world.build(&oid(1));
    let never = world.admit(artifact, "staging");
    let body = revert(&mut world, Some(never), None);
    assert_eq!(world.refused(human("flo"), body), "not-returnable");
}

#[test]
fn a_rollback_ends_the_rollout_under_way() {
    let (mut world, _, second) = two();
    world.landed(2);
    let artifact = world.build(&oid(2));
    let release = world.admit(artifact, "staging");
    let rollout = world.roll(release);
    world.advance(rollout, 50);
    assert_eq!(rollback_target(&world.state, &id("staging")), Some(second));
    let body = revert(&mut world, Some(second), None);
    world.must(human("flo"), body);
    assert_eq!(
        world.state.rollouts[&rollout].status,
        crate::rollout::RolloutStatus::RolledBack
    );
    assert_eq!(
        world.state.environments[&id::<portcullis_model::EnvironmentId>("staging")].stable,
        Some(second)
    );
}

#[test]
fn going_back_is_no_way_forward_again() {
    let (mut world, first, second) = two();
    let back = revert(&mut world, Some(first), Some(first));
    world.must(human("flo"), back);
    let forward = revert(&mut world, Some(second), Some(second));
    assert_eq!(world.refused(human("flo"), forward), "not-returnable");
    // To stay where it serves is no move.
    let stay = revert(&mut world, Some(first), Some(first));
    world.must(human("flo"), stay);
}

#[test]
fn who_had_a_hand_in_a_release_is_named_when_asked_and_when_admitted() {
    let (mut world, first, _) = two();
    world.landed(2);
    let artifact: ArtifactId = world.build(&oid(2));
    let mut nobody = world.release_request("cyd", artifact, "staging");
    nobody.party = portcullis_model::Party::default();
    assert_eq!(world.refused(human("cyd"), nobody), "party-incomplete");
    let body = world.release_request("cyd", artifact, "staging");
    let request = RequestId(world.must(human("cyd"), body));
    // Dan signed the task and owns the agent.
    assert_eq!(world.approve("dan", request).unwrap_err().code, "own-party");
    world.approve("ada", request).unwrap();
    // Going back puts more into the release than was asked, and here by somebody else.
    let mut more = world.clone();
    let back = revert(&mut more, Some(first), Some(first));
    more.must(human("flo"), back);
    let body = more.admission(artifact, "staging", Some(request));
    assert_eq!(body.changes.len(), 2);
    assert_eq!(more.refused(control(), body), "party-incomplete");
    let body = world.admission(artifact, "staging", Some(request));
    world.must(control(), body);
}

#[test]
fn a_no_takes_back_what_was_accepted_of_what_came_past_us() {
    let mut world = World::team();
    let request = unproven(&mut world, 5);
    let artifact = world.build(&oid(5));
    world.approve("ada", request).unwrap();
    coverage(&world.state, artifact, &id("staging")).unwrap();
    let why = digest("why");
    let envelope = world.command(&human("bob"), Command::Reject { request, why });
    let body = portcullis_model::event::RequestRejected {
        request,
        why,
        envelope,
    };
    world.must(human("bob"), body);
    let refusal = coverage(&world.state, artifact, &id("staging")).unwrap_err();
    assert_eq!(refusal.code, "commit-unproven");
}
