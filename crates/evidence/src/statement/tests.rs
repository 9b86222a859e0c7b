use super::*;
use portcullis_model::Secret;
use serde::Deserialize;
use serde_json::json;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    what: String,
}

fn key(seed: u8) -> SshPrivateKey {
    SshPrivateKey::from_seed(&Secret::new([seed; 32]), "")
        .unwrap()
        .0
}

fn trusted(key: &SshPrivateKey) -> TrustedKey<'_> {
    TrustedKey {
        key: key.public_key(),
        attestation: Attestation::None,
    }
}

fn order() -> UnsignedStatement {
    let order = Order {
        what: "fix it".to_owned(),
    };
    UnsignedStatement::new(StatementType::Task, &order).unwrap()
}

#[test]
fn what_a_person_signed_is_read_back_with_key_and_class() {
    let (ada, bob) = (key(1), key(2));
    let json = order().sign_with(&ada).unwrap().to_json().unwrap();
    let envelope = UnverifiedEnvelope::parse(&json).unwrap();
    let verified = verify(
        &envelope,
        StatementType::Task,
        &[trusted(&bob), trusted(&ada)],
    )
    .unwrap();
    assert_eq!(verified.key(), ada.public_key());
    assert_eq!(verified.class(), KeyClass::Software);
    assert_eq!(verified.proofs().count(), 1);
    let order = verified.read::<Order>("order").unwrap();
    assert_eq!(order.payload().what, "fix it");
}

#[test]
fn fields_that_the_type_does_not_have_are_refused() {
    let ada = key(1);
    let envelope = UnsignedStatement::new(StatementType::Task, &json!({"what": "x", "more": 1}))
        .unwrap()
        .sign_with(&ada)
        .unwrap();
    let verified = verify(&envelope, StatementType::Task, &[trusted(&ada)]).unwrap();
    assert!(verified.read::<Order>("order").is_err());
}

/// For every pair of types: a signature made for one never counts for the other, not even inside
/// an envelope that is relabelled, or when the signature covers the other type's bytes.
#[test]
fn a_signature_counts_for_its_own_type_only() {
    let ada = key(1);
    for made in StatementType::ALL {
        let payload = json!({"a": 1});
        let statement = UnsignedStatement::new(made, &payload).unwrap();
        let envelope = statement.sign_with(&ada).unwrap();
        for wanted in StatementType::ALL {
            let keys = [trusted(&ada)];
            let relabelled = UnverifiedEnvelope::new(
                wanted.payload_type(),
                envelope.unverified_payload().to_vec(),
                envelope.signatures().to_vec(),
            )
            .unwrap();
            // The strongest forgery: the wanted type's message, under the other namespace.
            let message = UnsignedStatement::new(wanted, &payload).unwrap().message();
            let crossed = UnverifiedEnvelope::new(
                wanted.payload_type(),
                envelope.unverified_payload().to_vec(),
                vec![EnvelopeSignature {
                    key_id: ada.public_key().fingerprint().to_owned(),
                    signature: ada.sign(made.namespace(), &message).unwrap().to_binary(),
                }],
            )
            .unwrap();
            for forged in [&envelope, &relabelled, &crossed] {
                assert_eq!(
                    verify(forged, wanted, &keys).is_ok(),
                    made == wanted,
                    "{made:?} as {wanted:?}"
                );
            }
        }
    }
}

#[test]
fn namespaces_and_names_are_distinct() {
    for one in StatementType::ALL {
        for other in StatementType::ALL {
            if one != other {
                assert_ne!(one.namespace(), other.namespace());
                assert_ne!(one.payload_type(), other.payload_type());
                assert_ne!(one.name(), other.name());
            }
        }
    }
}

#[test]
fn one_signature_by_a_known_key_and_no_other_is_taken() {
    let (ada, bob) = (key(1), key(2));
    let signature =
        |key: &SshPrivateKey| key.sign(order().namespace(), &order().message()).unwrap();
    let code = |envelope: &UnverifiedEnvelope, keys: &[TrustedKey<'_>]| {
        verify(envelope, StatementType::Task, keys)
            .unwrap_err()
            .code
    };
    let by_ada = order().sign_with(&ada).unwrap();
    assert_eq!(code(&by_ada, &[trusted(&bob)]), "unknown-signer");
    assert_eq!(code(&by_ada, &[]), "unknown-signer");
    let both = order().attach(&[signature(&ada), signature(&bob)]).unwrap();
    let keys = [trusted(&ada), trusted(&bob)];
    assert_eq!(code(&both, &keys), "envelope-not-signed-once");
    let verified = verify_all(&both, StatementType::Task, &keys).unwrap();
    let signers: Vec<_> = verified.proofs().map(|proof| proof.key.clone()).collect();
    assert_eq!(
        signers,
        [ada.public_key().clone(), bob.public_key().clone()]
    );
    assert_eq!(
        verify_all(&both, StatementType::Task, &keys[..1])
            .unwrap_err()
            .code,
        "unknown-signer"
    );
    let twice = order().attach(&[signature(&ada), signature(&ada)]).unwrap();
    assert_eq!(
        verify_all(&twice, StatementType::Task, &keys)
            .unwrap_err()
            .code,
        "signed-twice-by-one-key"
    );
    let none =
        UnverifiedEnvelope::new(PAYLOAD_TASK, order().payload().to_vec(), Vec::new()).unwrap();
    assert!(verify_all(&none, StatementType::Task, &keys).is_err());
    assert!(order().attach(&[]).is_err());
}

#[test]
fn a_hint_that_names_another_key_is_refused() {
    let (ada, bob) = (key(1), key(2));
    let by_bob = order().sign_with(&bob).unwrap();
    let hinted = UnverifiedEnvelope::new(
        PAYLOAD_TASK,
        order().payload().to_vec(),
        vec![EnvelopeSignature {
            key_id: ada.public_key().fingerprint().to_owned(),
            signature: by_bob.signatures()[0].signature.clone(),
        }],
    )
    .unwrap();
    let refusal = verify(
        &hinted,
        StatementType::Task,
        &[trusted(&ada), trusted(&bob)],
    )
    .unwrap_err();
    assert_eq!(refusal.code, "signature-by-another-key");
}

#[test]
fn a_services_raw_signature_is_not_a_persons() {
    let signer = crate::signer::Signer::from_seed(&Secret::new([1; 32])).unwrap();
    let ada = key(1);
    assert_eq!(
        signer.public_key(),
        ada.public_key(),
        "the same key on purpose"
    );
    let raw = dsse::sign(PAYLOAD_TASK, order().payload().to_vec(), &signer).unwrap();
    assert!(verify(&raw, StatementType::Task, &[trusted(&ada)]).is_err());
    let by_person = order().sign_with(&ada).unwrap();
    assert!(dsse::verify(&by_person, PAYLOAD_TASK, &[ada.public_key()]).is_err());
}

#[test]
fn a_signature_over_something_else_is_found_at_once() {
    let ada = key(1);
    let other = ada.sign(order().namespace(), b"something else").unwrap();
    assert!(order().attach(&[other]).is_err());
    assert!(
        order()
            .attach_agent_answer(ada.public_key(), &[0, 0, 0, 1, 5])
            .is_err()
    );
}
