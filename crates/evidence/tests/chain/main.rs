//! The chain against a whole ledger: it holds as made, and every change to it breaks a named link.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

mod altered;
mod carried;
mod forged;
mod together;
mod witnessed;
mod world;

use portcullis_evidence::chain::{About, Report, Subject, verify};
use portcullis_model::{ArtifactId, ReleaseId};
use world::{Options, World};

/// A release to production of one agent's change, approved by `approvers`.
fn released(options: &Options, approvers: &[&str]) -> (World, ArtifactId, ReleaseId) {
    let mut world = World::new(options);
    if !options.solo {
        world.hire("dan");
    }
    let base = world.base.clone();
    let (change, head, task) = world.change(&base, "one");
    world.land(change, Some(task), approvers);
    let artifact = world.build(&head);
    let last = if options.solo { "ada" } else { "ben" };
    let release = world.admit(artifact, "production", Some(last));
    world.roll_out(release);
    (world, artifact, release)
}

fn report(world: &World, about: &About) -> Report {
    let bundle = world.seal(about.clone()).to_bytes().unwrap();
    verify(&bundle, &world.genesis(), &subject(about)).unwrap()
}

fn subject(about: &About) -> Subject {
    match about {
        About::Artifact { digest, .. } => Subject::Artifact { digest: *digest },
        About::Commit { commit, .. } => Subject::Commit {
            oid: commit.clone(),
        },
    }
}

#[test]
fn an_honest_release_is_proved_link_by_link() {
    let (world, artifact, release) = released(&Options::default(), &["dan"]);
    let about = world.about(artifact, "production", Some(release));
    let report = report(&world, &about);
    for link in &report.links {
        println!("{:<11} {} {}", link.name.as_str(), link.holds, link.says);
    }
    println!(
        "{:#?}\n{:#?}\n{:?}",
        report.proves, report.does_not_prove, report.source_level
    );
    assert!(report.holds(), "{:?}", report.first_broken);
    let bytes = world.seal(about.clone()).to_bytes().unwrap();
    let began = std::time::Instant::now();
    for _ in 0..10 {
        verify(&bytes, &world.genesis(), &subject(&about)).unwrap();
    }
    println!("{} bytes, {:?} each", bytes.len(), began.elapsed() / 10);
}
