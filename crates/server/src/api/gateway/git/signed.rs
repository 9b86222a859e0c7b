//! People's pushes are signed by git itself: a certificate over the commands and a nonce of ours.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

use aws_lc_rs::hmac;
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
/// Most used nonces remembered at once: more pushes than people make in ten minutes.
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
    let nonce = certificate.nonce.as_deref().unwrap_or_default();
    let until = NONCES.check(repository, nonce, now())?;
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
    NONCES.take(nonce, until, now())?;
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

/// Nonces that signed pushes answer. Their key lives in memory: a restart makes a client ask again.
pub(super) static NONCES: Nonces = Nonces {
    key: OnceLock::new(),
    used: Mutex::new(BTreeMap::new()),
};

/// Nonces that prove themselves: repository and time under a key of this process. Nothing is
/// remembered for who only asks, so nobody without a key of the inventory can fill anything; what
/// is remembered are the nonces that a verified push used.
pub(super) struct Nonces {
    key: OnceLock<hmac::Key>,
    used: Mutex<BTreeMap<String, Timestamp>>,
}

impl Nonces {
    pub(super) fn make(
        &self,
        repository: &RepositoryId,
        now: Timestamp,
    ) -> Result<String, Refusal> {
        let mut bytes = [0_u8; 16];
        aws_lc_rs::rand::fill(&mut bytes)
            .map_err(|_| Refusal::unavailable("no-randomness", "the system gives no randomness"))?;
        let until = now.plus_ms(NONCE_LIFE_MS).as_ms();
        let body = format!("{until:x}-{}", portcullis_model::digest::encode_hex(&bytes));
        let tag = hmac::sign(self.key()?, signed_text(repository, &body).as_bytes());
        let tag = portcullis_model::digest::encode_hex(tag.as_ref());
        Ok(format!("{body}-{tag}"))
    }

    fn key(&self) -> Result<&hmac::Key, Refusal> {
        if let Some(key) = self.key.get() {
            return Ok(key);
        }
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new())
            .map_err(|_| Refusal::unavailable("no-randomness", "the system gives no randomness"))?;
        Ok(self.key.get_or_init(|| key))
    }

    /// The time until which a nonce counts, if it is ours, for this repository, and not over.
    fn check(
        &self,
        repository: &RepositoryId,
        nonce: &str,
        now: Timestamp,
    ) -> Result<Timestamp, Refusal> {
        let read = || {
            let (body, tag) = nonce.rsplit_once('-')?;
            let tag = portcullis_model::digest::decode_hex(tag)?;
            let text = signed_text(repository, body);
            hmac::verify(self.key.get()?, text.as_bytes(), &tag).ok()?;
            let (until, _) = body.split_once('-')?;
            let until = Timestamp::from_ms(u64::from_str_radix(until, 16).ok()?);
            (until > now).then_some(until)
        };
        read().ok_or_else(not_ours)
    }

    /// Uses a nonce up; only for a push whose signature was verified.
    fn take(&self, nonce: &str, until: Timestamp, now: Timestamp) -> Result<(), Refusal> {
        let mut used = self
            .used
            .lock()
            .map_err(|_| Refusal::internal("the nonces are lost; start again"))?;
        used.retain(|_, until| *until > now);
        if used.len() >= NONCES_MAX {
            return Err(
                Refusal::limit("too-many-pushes", "too many signed pushes at once")
                    .next("try again in a few minutes"),
            );
        }
        match used.insert(nonce.to_owned(), until) {
            None => Ok(()),
            Some(_) => Err(not_ours()),
        }
    }
}

fn signed_text(repository: &RepositoryId, body: &str) -> String {
    format!("{repository} {body}")
}

fn not_ours() -> Refusal {
    Refusal::denied("push-nonce", "the signed push answers no question of ours")
        .expected("the nonce that was just given, once")
        .next("push again")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_795_000_000_000);

    fn nonces() -> Nonces {
        Nonces {
            key: OnceLock::new(),
            used: Mutex::new(BTreeMap::new()),
        }
    }

    #[test]
    fn a_nonce_counts_once_for_its_repository_and_for_its_time() {
        let (nonces, shop) = (nonces(), "shop".parse().unwrap());
        let nonce = nonces.make(&shop, NOW).unwrap();
        let until = nonces.check(&shop, &nonce, NOW).unwrap();
        assert_eq!(until, NOW.plus_ms(NONCE_LIFE_MS));
        let elsewhere = "another".parse().unwrap();
        assert!(nonces.check(&elsewhere, &nonce, NOW).is_err());
        assert!(nonces.check(&shop, &nonce, until).is_err());
        assert!(nonces.check(&shop, "", NOW).is_err());
        let (body, tag) = nonce.rsplit_once('-').unwrap();
        let (_, random) = body.split_once('-').unwrap();
        let longer = format!("{:x}-{random}-{tag}", until.plus_ms(1).as_ms());
        assert!(nonces.check(&shop, &longer, NOW).is_err());
        nonces.take(&nonce, until, NOW).unwrap();
        assert_eq!(
            nonces.take(&nonce, until, NOW).unwrap_err().code,
            "push-nonce"
        );
    }

    #[test]
    fn who_only_asks_takes_nothing_from_others() {
        let (nonces, shop) = (nonces(), "shop".parse().unwrap());
        let first = nonces.make(&shop, NOW).unwrap();
        for _ in 0..NONCES_MAX + 1 {
            nonces.make(&shop, NOW).unwrap();
        }
        let until = nonces.check(&shop, &first, NOW).unwrap();
        nonces.take(&first, until, NOW).unwrap();
    }
}
