//! An environment that demands witnesses: the chain holds under a checkpoint that enough of them
//! cosigned, and under no other.

use portcullis_evidence::chain::{self, LinkName, Report, Subject};
use portcullis_evidence::checkpoint::UnverifiedCheckpoint;
use portcullis_evidence::cosignature::{WitnessKey, cosign};
use portcullis_evidence::note::NoteSignature;
use portcullis_model::manifest::Witnessing;
use portcullis_model::{ArtifactId, ReleaseId};

use crate::released;
use crate::world::{Options, World, signer};

const NAMES: [&str; 3] = ["w.example/1", "w.example/2", "w.example/3"];

fn seed(name: &str) -> u8 {
    60 + u8::try_from(NAMES.iter().position(|known| *known == name).unwrap_or(9)).unwrap()
}

fn key(name: &str) -> String {
    WitnessKey::new(name.parse().unwrap(), *signer(seed(name)).public_bytes()).to_string()
}

fn demanding(quorum: u32) -> (World, ArtifactId, ReleaseId) {
    let options = Options {
        witnesses: Witnessing {
            keys: NAMES.iter().map(|name| key(name)).collect(),
            quorum,
        },
        ..Options::default()
    };
    released(&options, &["dan"])
}

/// Verifies with the cosignatures of these, `alter` having had its way with the lines.
fn verdict(
    (world, artifact, release): &(World, ArtifactId, ReleaseId),
    cosigners: &[&str],
    alter: impl Fn(&mut NoteSignature),
) -> Report {
    let about = world.about(*artifact, "production", Some(*release));
    let mut bundle = world.seal(about);
    let mut checkpoint = UnverifiedCheckpoint::parse(bundle.checkpoint.as_bytes()).unwrap();
    let text = checkpoint.note().claimed_text().to_owned();
    for name in cosigners {
        let by = signer(seed(name));
        let mut line = cosign(&name.parse().unwrap(), &by, &text, 1_700_000_000).unwrap();
        alter(&mut line);
        checkpoint.add_signature(line).unwrap();
    }
    bundle.checkpoint = checkpoint.to_string();
    let digest = world.state.artifacts[artifact].output.digest;
    let subject = Subject::Artifact { digest };
    chain::verify(&bundle.to_bytes().unwrap(), &world.genesis(), &subject).unwrap()
}

#[test]
fn enough_witnesses_make_the_chain_hold() {
    let made = demanding(2);
    for cosigners in [&NAMES[..2], &NAMES[1..], &NAMES[..]] {
        let report = verdict(&made, cosigners, |_| {});
        assert!(report.holds(), "{:?}", report.first_broken);
        let said = report
            .proves
            .iter()
            .any(|line| line.contains("witnesses saw exactly"));
        assert!(said, "{:?}", report.proves);
        assert!(
            !report
                .does_not_prove
                .iter()
                .any(|line| line.contains("everyone the same"))
        );
    }
}

#[test]
fn too_few_unknown_or_forged_witnesses_break_it() {
    let made = demanding(2);
    let broken = |cosigners: &[&str], alter: fn(&mut NoteSignature)| {
        let report = verdict(&made, cosigners, alter);
        report.first_broken.expect("it was believed").name
    };
    let none: fn(&mut NoteSignature) = |_| {};
    assert_eq!(broken(&[], none), LinkName::Witnesses);
    assert_eq!(broken(&NAMES[..1], none), LinkName::Witnesses);
    // Twice the same is no quorum.
    assert_eq!(broken(&[NAMES[0], NAMES[0]], none), LinkName::Witnesses);
    // Somebody whom the environment does not know, beside enough whom it does.
    assert_eq!(
        broken(&[NAMES[0], NAMES[1], "stranger.example"], none),
        LinkName::Witnesses
    );
    for at in [0, 7, 8, 71] {
        let report = verdict(&made, &NAMES[..2], |line| line.bytes[at] ^= 1);
        assert_eq!(
            report.first_broken.unwrap().name,
            LinkName::Witnesses,
            "{at}"
        );
    }
}

#[test]
fn nobody_may_sign_beside_the_log_where_no_witness_is_demanded() {
    let made = released(&Options::default(), &["dan"]);
    assert!(verdict(&made, &[], |_| {}).holds());
    let report = verdict(&made, &NAMES[..1], |_| {});
    assert_eq!(report.first_broken.unwrap().name, LinkName::Witnesses);
}
