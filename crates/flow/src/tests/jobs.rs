//! Jobs: landed commits only, by a service with the role, on its own signed word.

use portcullis_model::event::{JobClaimed, JobFinished, JobKind, JobOutcome, JobRequested};
use portcullis_model::statement::Command;
use portcullis_model::{ArtifactId, JobId};

use super::world::*;
use crate::job::JOB_LIFE_MS;
use crate::work::{Work, plan};

fn wanted(kind: JobKind, commit: u64, configured_by: u64) -> JobRequested {
    JobRequested {
        kind,
        repository: id("shop"),
        commit: oid(commit),
        configured_by: oid(configured_by),
        configuration: digest("jobs"),
        change: None,
    }
}

#[test]
fn only_landed_commits_are_built_and_by_their_own_configuration() {
    let mut world = World::team();
    world.push_by("flo", 1);
    let unlanded = wanted(JobKind::Build, 1, 1);
    assert_eq!(world.refused(control(), unlanded), "not-landed");
    let foreign = wanted(JobKind::Build, 0x100, 1);
    assert_eq!(world.refused(control(), foreign), "not-landed");
    let mut elsewhere = wanted(JobKind::Build, 0x100, 0x100);
    elsewhere.repository = id("other");
    assert_eq!(world.refused(control(), elsewhere), "repository-not-found");
    let good = wanted(JobKind::Build, 0x100, 0x100);
    assert_eq!(world.refused(human("ada"), good.clone()), "not-a-service");
    world.must(control(), good);
}

#[test]
fn a_service_takes_only_the_jobs_of_its_role_and_only_free_ones() {
    let mut world = World::team();
    let job = world.job(JobKind::Build, &base(), &base());
    assert_eq!(world.claim("tester", job).unwrap_err().code, "role-missing");
    let envelope = world.command(
        &service("builder"),
        Command::ClaimJob {
            job: Some(JobId(0)),
        },
    );
    let other = JobClaimed {
        job,
        service: id("builder"),
        envelope,
    };
    assert_eq!(world.refused(service("builder"), other), "command-mismatch");
    let envelope = world.command(&human("ada"), Command::ClaimJob { job: None });
    let person = JobClaimed {
        job,
        service: id("builder"),
        envelope,
    };
    assert_eq!(world.refused(human("ada"), person), "not-a-service");
    world.claim("builder", job).unwrap();
    assert_eq!(world.claim("builder", job).unwrap_err().code, "job-taken");
}

#[test]
fn a_result_takes_the_signature_of_the_service_that_has_the_job() {
    let mut genesis = genesis();
    genesis.services.push(service_record(
        "second",
        23,
        portcullis_model::manifest::ServiceRole::Build,
    ));
    let mut world = World::from(genesis).unwrap();
    let job = world.job(JobKind::Build, &base(), &base());
    let early = world.finished("builder", job, true, vec![]);
    assert_eq!(world.refused(service("builder"), early), "job-not-claimed");
    world.claim("builder", job).unwrap();
    let foreign = world.finished("second", job, true, vec![]);
    assert_eq!(world.refused(service("second"), foreign), "job-taken");
    let good = world.finished("builder", job, true, vec![output(&base())]);
    let mut unsigned = good.clone();
    unsigned.envelope = None;
    assert_eq!(
        world.refused(service("builder"), unsigned),
        "unsigned-result"
    );
    let mut better = good.clone();
    better.outputs[0].digest = digest("something else");
    assert_eq!(
        world.refused(service("builder"), better),
        "command-mismatch"
    );
    let mut turned = world.finished("builder", job, false, vec![]);
    turned.outcome = JobOutcome::Succeeded;
    assert_eq!(
        world.refused(service("builder"), turned),
        "command-mismatch"
    );
    world.must(service("builder"), good.clone());
    assert_eq!(world.refused(service("builder"), good), "job-not-claimed");
}

#[test]
fn a_job_whose_service_is_gone_is_given_up() {
    let mut world = World::team();
    let job = world.job(JobKind::Build, &base(), &base());
    world.claim("builder", job).unwrap();
    assert!(!plan(&world.state, world.now).contains(&Work::LoseJob(job)));
    world.later(JOB_LIFE_MS);
    assert!(plan(&world.state, world.now).contains(&Work::LoseJob(job)));
    let lost = JobFinished {
        job,
        outcome: JobOutcome::Lost,
        attestation: None,
        report: None,
        outputs: vec![],
        envelope: None,
    };
    assert_eq!(world.refused(human("ada"), lost.clone()), "not-a-service");
    world.must(control(), lost);
}

#[test]
fn an_artifact_is_what_a_finished_build_made_and_attested() {
    let mut world = World::team();
    let made = output(&base());
    let test = world.test_job(&base(), &base(), true);
    let body = built(test, &base(), made.clone());
    assert_eq!(world.refused(control(), body), "not-built");
    let job = world.job(JobKind::Build, &base(), &base());
    let good = built(job, &base(), made.clone());
    assert_eq!(world.refused(control(), good.clone()), "not-built");
    world.claim("builder", job).unwrap();
    let body = world.finished("builder", job, true, vec![made]);
    world.must(service("builder"), body);
    assert!(plan(&world.state, world.now).contains(&Work::RecordArtifacts(job)));
    let mut other = good.clone();
    other.output.digest = digest("another file");
    let mut provenance = good.clone();
    provenance.provenance = digest("forged");
    let mut commit = good.clone();
    commit.commit = oid(5);
    for body in [other, provenance, commit] {
        assert_eq!(world.refused(control(), body), "not-built");
    }
    assert_eq!(world.refused(human("ada"), good.clone()), "not-a-service");
    let artifact = ArtifactId(world.must(control(), good.clone()));
    assert!(world.state.artifacts.contains_key(&artifact));
    assert_eq!(world.refused(control(), good), "artifact-known");
    assert!(!plan(&world.state, world.now).contains(&Work::RecordArtifacts(job)));
}

#[test]
fn a_failed_build_makes_nothing() {
    let mut world = World::team();
    let job = world.job(JobKind::Build, &base(), &base());
    world.claim("builder", job).unwrap();
    let made = output(&base());
    let body = world.finished("builder", job, false, vec![made.clone()]);
    world.must(service("builder"), body);
    let body = built(job, &base(), made);
    assert_eq!(world.refused(control(), body), "not-built");
}

#[test]
fn a_landed_commit_is_built_once() {
    let mut world = World::team();
    assert!(plan(&world.state, world.now).is_empty());
    world.landed(1);
    let build = Work::RequestBuild(id("shop"), oid(1));
    assert!(plan(&world.state, world.now).contains(&build));
    world.build(&oid(1));
    assert!(!plan(&world.state, world.now).contains(&build));
}
