//! An approval as an in-toto statement: the predicate is the model's [`Approval`], the subjects
//! follow from it.
//!
//! Because the subjects are computed, a reader that knows in-toto alone finds what was approved by
//! digest, and no statement can show one thing in its subjects and approve another.

use portcullis_model::statement::{APPROVAL_TYPE, Approval, ApprovalSubject};
use portcullis_model::{Refusal, RepositoryId};

use crate::dsse::UnverifiedEnvelope;
use crate::intoto::{Predicate, ResourceDescriptor, Statement};
use crate::statement::{self, StatementType, TrustedKey, UnsignedStatement, Verified};

impl Predicate for Approval {
    const TYPE: &'static str = APPROVAL_TYPE;

    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }
}

/// The statement to sign for `approval`.
///
/// # Errors
/// None in practice: its subjects always have digests.
pub fn to_sign(approval: &Approval) -> Result<UnsignedStatement, Refusal> {
    let statement = Statement::new(subjects(approval), approval.clone())?;
    UnsignedStatement::new(StatementType::Approval, &statement)
}

/// Checks that exactly one of `keys` signed the envelope, and that it is an approval whose subjects
/// are those of its predicate.
///
/// Whether the approval counts (its request, approver, class, expiry, nonce) is for the caller.
///
/// # Errors
/// As [`statement::verify`] and [`Statement::parse`], or subjects that don't follow from the
/// predicate.
pub fn verify(
    envelope: &UnverifiedEnvelope,
    keys: &[TrustedKey<'_>],
) -> Result<Verified<Approval>, Refusal> {
    let verified = statement::verify(envelope, StatementType::Approval, keys)?;
    verified.try_map(|payload| read(&payload))
}

/// Reads an approval out of its statement's bytes. Reading them proves nothing about a signature.
///
/// # Errors
/// As [`Statement::parse`], or subjects that don't follow from the predicate.
pub fn read(payload: &[u8]) -> Result<Approval, Refusal> {
    let statement = Statement::<Approval>::parse(payload)?;
    if statement.subject() != subjects(statement.predicate()) {
        return Err(Refusal::denied(
            "approval-subject-mismatch",
            "the statement's subjects are not what its predicate approves",
        )
        .expected("the subjects that follow from the predicate"));
    }
    Ok(statement.predicate().clone())
}

/// What an approval is about, as in-toto subjects.
fn subjects(approval: &Approval) -> Vec<ResourceDescriptor> {
    let named = |name: &str, descriptor: ResourceDescriptor| ResourceDescriptor {
        name: Some(name.to_owned()),
        ..descriptor
    };
    match &approval.subject {
        ApprovalSubject::Change {
            repository,
            head,
            tree,
            manifest,
            ..
        } => {
            let uri = repository_uri(repository);
            vec![
                named("head", ResourceDescriptor::git_commit(&uri, head)),
                named("tree", ResourceDescriptor::git_tree(&uri, tree)),
                ResourceDescriptor::file("manifest", manifest),
            ]
        }
        ApprovalSubject::Release {
            artifact,
            digest,
            repository,
            commit,
            provenance,
            ..
        } => vec![
            ResourceDescriptor::file(&artifact.to_string(), digest),
            named(
                "source",
                ResourceDescriptor::git_commit(&repository_uri(repository), commit),
            ),
            ResourceDescriptor::file("provenance", provenance),
        ],
        ApprovalSubject::Activation { subject, record } => {
            vec![ResourceDescriptor::file(subject, record)]
        }
        // A breaker has no bytes; what is approved is to reset it in the state that the signer saw.
        ApprovalSubject::BreakerReset { scope } => vec![ResourceDescriptor::file(
            &format!("breaker {scope}"),
            &approval.ledger.root,
        )],
        // A run has no bytes either; where it is wound back, the checkpoint has.
        ApprovalSubject::Resume { run, frozen, way } => {
            let mut subjects = vec![ResourceDescriptor::file(
                &format!("{run} since entry {frozen}"),
                &approval.ledger.root,
            )];
            subjects.extend(way.checkpoint.map(|point| {
                ResourceDescriptor::file(&format!("checkpoint {}", point.number), &point.manifest)
            }));
            subjects
        }
        ApprovalSubject::Unproven {
            repository,
            from,
            to,
            ..
        } => {
            let uri = repository_uri(repository);
            vec![
                named("from", ResourceDescriptor::git_commit(&uri, from)),
                named("to", ResourceDescriptor::git_commit(&uri, to)),
            ]
        }
    }
}

/// A governed repository as a URI that means something within its ledger only.
fn repository_uri(repository: &RepositoryId) -> String {
    format!("portcullis:repository:{repository}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsse::PAYLOAD_IN_TOTO;
    use crate::sshsig::{Attestation, SshPrivateKey};
    use portcullis_model::statement::{BreakerScope, Carry, LedgerPoint};
    use portcullis_model::{
        ArtifactId, ChangeId, Digest, GitOid, KeyClass, RequestId, Secret, Timestamp,
    };

    fn oid(digit: &str) -> GitOid {
        digit.repeat(40).parse().unwrap()
    }

    fn every_subject() -> Vec<ApprovalSubject> {
        let repository: RepositoryId = "shop".parse().unwrap();
        vec![
            ApprovalSubject::Change {
                change: ChangeId(7),
                revision: 1,
                repository: repository.clone(),
                branch: "main".to_owned(),
                base: oid("1"),
                head: oid("2"),
                tree: oid("3"),
                manifest: Digest::of(b"manifest"),
            },
            ApprovalSubject::Release {
                artifact: ArtifactId(9),
                digest: Digest::of(b"artifact"),
                environment: "production".parse().unwrap(),
                repository: repository.clone(),
                commit: oid("2"),
                provenance: Digest::of(b"provenance"),
            },
            ApprovalSubject::Activation {
                subject: "agent fix-bot".to_owned(),
                record: Digest::of(b"record"),
            },
            ApprovalSubject::BreakerReset {
                scope: BreakerScope::Everywhere,
            },
            ApprovalSubject::Unproven {
                repository,
                branch: "main".to_owned(),
                from: oid("4"),
                to: oid("5"),
            },
        ]
    }

    fn approval(subject: ApprovalSubject) -> Approval {
        Approval {
            ledger: LedgerPoint {
                origin: "example.com/log".to_owned(),
                size: 12,
                root: Digest::of(b"root"),
            },
            request: RequestId(11),
            subject,
            task: None,
            checks: None,
            policy: Digest::of(b"policy"),
            shown: Digest::of(b"shown"),
            count: 1,
            carry: Carry::Exact,
            approver: "ada".parse().unwrap(),
            key_class: KeyClass::Software,
            expires_index: 100,
            expires: Timestamp::from_ms(1_000),
            nonce: "00".repeat(16),
        }
    }

    #[test]
    fn every_kind_of_approval_is_signed_and_read_back() {
        let (ada, _) = SshPrivateKey::from_seed(&Secret::new([1; 32]), "").unwrap();
        let trusted = TrustedKey {
            key: ada.public_key(),
            attestation: Attestation::None,
        };
        for subject in every_subject() {
            let approval = approval(subject);
            let envelope = to_sign(&approval).unwrap().sign_with(&ada).unwrap();
            let verified = verify(&envelope, &[trusted]).unwrap();
            assert_eq!(verified.payload(), &approval);
            assert_eq!(verified.key(), ada.public_key());
        }
    }

    /// A statement that shows one head in its subjects and approves another is signed as well as
    /// any, and still refused.
    #[test]
    fn subjects_cannot_show_something_else() {
        let (ada, _) = SshPrivateKey::from_seed(&Secret::new([1; 32]), "").unwrap();
        let trusted = TrustedKey {
            key: ada.public_key(),
            attestation: Attestation::None,
        };
        let subjects_of = |at: usize| subjects(&approval(every_subject().swap_remove(at)));
        for shown in 0..every_subject().len() {
            for approved in 0..every_subject().len() {
                let approved_text = approval(every_subject().swap_remove(approved));
                let statement = Statement::new(subjects_of(shown), approved_text).unwrap();
                let envelope = UnsignedStatement::new(StatementType::Approval, &statement)
                    .unwrap()
                    .sign_with(&ada)
                    .unwrap();
                let answer = verify(&envelope, &[trusted]);
                assert_eq!(answer.is_ok(), shown == approved, "{shown} {approved}");
            }
        }
    }

    /// A service attests with the same payload type; its raw signature never approves.
    #[test]
    fn a_services_key_cannot_approve() {
        let seed = Secret::new([1; 32]);
        let signer = crate::signer::Signer::from_seed(&seed).unwrap();
        let payload = to_sign(&approval(every_subject().swap_remove(0)))
            .unwrap()
            .payload()
            .to_vec();
        let envelope = crate::dsse::sign(PAYLOAD_IN_TOTO, payload, &signer).unwrap();
        let trusted = TrustedKey {
            key: signer.public_key(),
            attestation: Attestation::None,
        };
        assert!(verify(&envelope, &[trusted]).is_err());
    }
}
