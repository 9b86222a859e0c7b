//! One byte changed in what a verifier gets: the link that hangs on it is named.

use portcullis_evidence::chain::{Bundle, Bytes, LinkName, Report, verify};
use portcullis_model::event::{Body, JobKind};
use portcullis_model::{Digest, Event};
use proptest::prelude::*;

use crate::world::{Options, World};
use crate::{released, subject};

fn broken(report: &Report) -> Vec<LinkName> {
    report
        .links
        .iter()
        .filter(|link| !link.holds)
        .map(|link| link.name)
        .collect()
}

/// Changes one letter inside the entry's body, so that it still reads as some text.
fn spoil(bundle: &mut Bundle, wanted: impl Fn(&Body) -> bool) {
    let entry = bundle
        .entries
        .iter_mut()
        .find(|entry| {
            wanted(
                &Event::decode(entry.index, entry.bytes.as_bytes())
                    .unwrap()
                    .body,
            )
        })
        .unwrap();
    let at = entry.bytes.find("\"body\":").unwrap() + 20;
    let mut bytes = entry.bytes.clone().into_bytes();
    let place = (at..bytes.len())
        .find(|at| bytes[*at].is_ascii_digit())
        .unwrap();
    bytes[place] = if bytes[place] == b'1' { b'2' } else { b'1' };
    entry.bytes = String::from_utf8(bytes).unwrap();
}

fn spoil_blob(bundle: &mut Bundle, digest: &Digest) {
    let Bytes(bytes) = bundle.blobs.get_mut(digest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
}

fn attestation(world: &World, kind: JobKind) -> Digest {
    let job = world.state.jobs.values().rfind(|job| job.kind == kind);
    job.unwrap().finished().unwrap().attestation.unwrap()
}

#[test]
fn a_changed_byte_breaks_the_link_that_hangs_on_it() {
    let (world, artifact, release) = released(&Options::default(), &["dan"]);
    let about = world.about(artifact, "production", Some(release));
    let bundle = world.seal(about.clone());
    let policy = *world
        .state
        .inventory
        .policy
        .as_ref()
        .unwrap()
        .files
        .values()
        .next()
        .unwrap();
    let verification = world
        .events
        .iter()
        .find_map(|event| match &event.body {
            Body::ReleaseAdmitted(body) => Some(body.verification),
            _ => None,
        })
        .unwrap();
    type Spoil<'a> = Box<dyn Fn(&mut Bundle) + 'a>;
    let cases: Vec<(&str, LinkName, Spoil<'_>)> = vec![
        (
            "task",
            LinkName::Task,
            Box::new(|b| spoil(b, |body| matches!(body, Body::TaskAccepted(_)))),
        ),
        (
            "run",
            LinkName::Run,
            Box::new(|b| spoil(b, |body| matches!(body, Body::RunStarted(_)))),
        ),
        (
            "push",
            LinkName::Revision,
            Box::new(|b| spoil(b, |body| matches!(body, Body::ChangePushed(_)))),
        ),
        (
            "checks",
            LinkName::Checks,
            Box::new(|b| spoil(b, |body| matches!(body, Body::ChecksCompleted(_)))),
        ),
        (
            "tests",
            LinkName::Tests,
            Box::new(|b| spoil(b, |body| matches!(body, Body::TestsCompleted(_)))),
        ),
        (
            "request",
            LinkName::Approvals,
            Box::new(|b| spoil(b, |body| matches!(body, Body::RequestOpened(_)))),
        ),
        (
            "approval",
            LinkName::Keys,
            Box::new(|b| spoil(b, |body| matches!(body, Body::ApprovalGiven(_)))),
        ),
        (
            "intent",
            LinkName::Landing,
            Box::new(|b| spoil(b, |body| matches!(body, Body::EffectIntended(_)))),
        ),
        (
            "artifact entry",
            LinkName::Build,
            Box::new(|b| spoil(b, |body| matches!(body, Body::ArtifactBuilt(_)))),
        ),
        (
            "admission",
            LinkName::Admission,
            Box::new(|b| spoil(b, |body| matches!(body, Body::ReleaseAdmitted(_)))),
        ),
        (
            "rollout",
            LinkName::Rollout,
            Box::new(|b| spoil(b, |body| matches!(body, Body::RolloutStarted(_)))),
        ),
        (
            "activation",
            LinkName::Keys,
            Box::new(|b| spoil(b, |body| matches!(body, Body::ActivationProposed(_)))),
        ),
        (
            "test result",
            LinkName::Tests,
            Box::new(|b| spoil_blob(b, &attestation(&world, JobKind::Test))),
        ),
        (
            "provenance",
            LinkName::Build,
            Box::new(|b| spoil_blob(b, &attestation(&world, JobKind::Build))),
        ),
        (
            "policy",
            LinkName::Policy,
            Box::new(move |b| spoil_blob(b, &policy)),
        ),
        (
            "summary",
            LinkName::Admission,
            Box::new(move |b| spoil_blob(b, &verification)),
        ),
        (
            "commit object",
            LinkName::Revision,
            Box::new(|b| {
                let Bytes(bytes) = b.objects.values_mut().next().unwrap();
                bytes[6] = if bytes[6] == b'0' { b'1' } else { b'0' };
            }),
        ),
        (
            "ledger proof",
            LinkName::Inclusion,
            Box::new(|b| b.entries[4].proof[0] = Digest::of(b"x")),
        ),
        (
            "checkpoint",
            LinkName::Checkpoint,
            Box::new(|b| {
                let at = b.checkpoint.rfind('A').unwrap_or(b.checkpoint.len() - 10);
                b.checkpoint.replace_range(at..=at, "B");
            }),
        ),
        (
            "genesis",
            LinkName::Genesis,
            Box::new(|b| {
                b.entries[0].bytes = b.entries[0]
                    .bytes
                    .replacen("\"quorum\":1", "\"quorum\":0", 1);
            }),
        ),
    ];
    for (what, link, spoil) in cases {
        let mut spoiled = bundle.clone();
        spoil(&mut spoiled);
        assert_ne!(spoiled, bundle, "{what}");
        let bytes = spoiled.to_bytes().unwrap();
        let report = verify(&bytes, &world.genesis(), &subject(&about)).unwrap();
        assert!(!report.holds(), "{what}");
        assert!(
            broken(&report).contains(&link),
            "{what}: {:?}",
            broken(&report)
        );
        assert_eq!(report.source_level.level, 0, "{what}");
        assert!(report.proves.is_empty(), "{what}");
    }
    // The pinned genesis and the file that one has in hand.
    let bytes = bundle.to_bytes().unwrap();
    let mut genesis = world.genesis();
    let middle = genesis.len() / 2;
    genesis[middle] ^= 1;
    let report = verify(&bytes, &genesis, &subject(&about)).unwrap();
    assert_eq!(report.first_broken.unwrap().name, LinkName::Genesis);
    let other = portcullis_evidence::chain::Subject::Artifact {
        digest: Digest::of(b"another app"),
    };
    let refusal = verify(&bytes, &world.genesis(), &other).unwrap_err();
    assert_eq!(refusal.code, "bundle-about-something-else");
}

#[test]
fn what_nothing_names_is_refused() {
    let (world, artifact, release) = released(&Options::default(), &["dan"]);
    let about = world.about(artifact, "production", Some(release));
    let mut bundle = world.seal(about.clone());
    bundle
        .blobs
        .insert(Digest::of(b"more"), Bytes(b"more".to_vec()));
    let report = verify(
        &bundle.to_bytes().unwrap(),
        &world.genesis(),
        &subject(&about),
    )
    .unwrap();
    assert_eq!(report.first_broken.unwrap().name, LinkName::Bundle);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// There is no byte that doesn't matter.
    #[test]
    fn no_flipped_byte_verifies(at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        static MADE: std::sync::LazyLock<(Vec<u8>, Vec<u8>, portcullis_evidence::chain::Subject)> =
            std::sync::LazyLock::new(|| {
                let (world, artifact, release) = released(&Options::default(), &["dan"]);
                let about = world.about(artifact, "production", Some(release));
                let bytes = world.seal(about.clone()).to_bytes().unwrap();
                (bytes, world.genesis(), subject(&about))
            });
        let (bytes, genesis, subject) = &*MADE;
        let mut bytes = bytes.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(report) = verify(&bytes, genesis, subject) {
            prop_assert!(!report.holds(), "byte {at} flipped by {flip}");
        }
    }
}
