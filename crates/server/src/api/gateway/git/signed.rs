//! People's pushes are signed by git itself: a certificate over the commands and a nonce of ours.

use std::collections::BTreeMap;
use std::sync::Mutex;

use base64::Engine as _;
use portcullis_evidence::chain::PAYLOAD_PUSH_CERTIFICATE;
use portcullis_evidence::sshsig::{Attestation, UnverifiedSshSignature};
use portcullis_flow::State;
use portcullis_gateway::git::push::PushCertificate;
use portcullis_model::statement::{Envelope, EnvelopeSignature};
use portcullis_model::{Actor, HumanId, Principal, Refusal, RepositoryId, Timestamp};

use crate::app::now;

/// How long a nonce for a signed push counts, in milliseconds (10 minutes): a hardware key may wait
/// for its owner.
const NONCE_LIFE_MS: u64 = 600_000;
/// Most nonces remembered at once: more people than push in ten minutes.
const NONCES_MAX: usize = 10_000;

/// Checks a signed push: a person's SSH key, over exactly these commands, for a nonce of ours.
pub(super) fn verify(
    state: &State,
    repository: &RepositoryId,
    certificate: Option<&PushCertificate>,
) -> Result<(HumanId, Actor, Envelope), Refusal> {
    let certificate = certificate.ok_or_else(|| {
        Refusal::denied("unsigned-push", "people's pushes are signed")
            .expected("a signed push")
            .next("git config gpg.format ssh; git config user.signingkey ~/.ssh/id_ed25519.pub; git push --signed")
    })?;
    NONCES.take(
        repository,
        certificate.nonce.as_deref().unwrap_or_default(),
        now(),
    )?;
    let signature = UnverifiedSshSignature::from_armored(certificate.signature.as_bytes())?;
    let fingerprint = signature.claimed_key().fingerprint().to_owned();
    let (human, key) = state.inventory.holder(&fingerprint).ok_or_else(|| {
        Refusal::denied(
            "key-unknown",
            "the push is signed by a key that no active person holds",
        )
        .received(&fingerprint)
        .next("an administrator adds keys with `portcullis human add`")
    })?;
    let proof = signature.verify(key, Attestation::None, "git", &certificate.payload)?;
    let actor = Actor::signed(
        Principal::Human(human.clone()),
        fingerprint.clone(),
        proof.class,
    );
    let base64 = base64::engine::general_purpose::STANDARD;
    let envelope = Envelope {
        payload_type: PAYLOAD_PUSH_CERTIFICATE.to_owned(),
        payload: base64.encode(&certificate.payload),
        signatures: vec![EnvelopeSignature {
            keyid: fingerprint,
            sig: base64.encode(signature.to_binary()),
        }],
    };
    Ok((human.clone(), actor, envelope))
}

/// Nonces that signed pushes answer. They live in memory: a restart makes a client ask again.
pub(super) static NONCES: Nonces = Nonces(Mutex::new(BTreeMap::new()));

/// Nonces with the repository they were given for and the time until which they count.
pub(super) struct Nonces(Mutex<BTreeMap<String, (RepositoryId, Timestamp)>>);

impl Nonces {
    pub(super) fn make(
        &self,
        repository: &RepositoryId,
        now: Timestamp,
    ) -> Result<String, Refusal> {
        let mut bytes = [0_u8; 16];
        aws_lc_rs::rand::fill(&mut bytes)
            .map_err(|_| Refusal::unavailable("no-randomness", "the system gives no randomness"))?;
        let nonce = portcullis_model::digest::encode_hex(&bytes);
        let mut known = self
            .0
            .lock()
            .map_err(|_| Refusal::internal("the nonces are lost; start again"))?;
        known.retain(|_, (_, until)| *until > now);
        if known.len() >= NONCES_MAX {
            return Err(
                Refusal::limit("too-many-pushes", "too many pushes begin at once")
                    .next("try again in a few minutes"),
            );
        }
        known.insert(
            nonce.clone(),
            (repository.clone(), now.plus_ms(NONCE_LIFE_MS)),
        );
        Ok(nonce)
    }

    fn take(&self, repository: &RepositoryId, nonce: &str, now: Timestamp) -> Result<(), Refusal> {
        let taken = self.0.lock().ok().and_then(|mut known| known.remove(nonce));
        match taken {
            Some((given_for, until)) if until > now && given_for == *repository => Ok(()),
            _ => Err(
                Refusal::denied("push-nonce", "the signed push answers no question of ours")
                    .expected("the nonce that was just given, once")
                    .next("push again"),
            ),
        }
    }
}
