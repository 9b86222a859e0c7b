//! What people sign: a canonical payload in a DSSE envelope, with an SSHSIG over its PAE.
//!
//! Each [`StatementType`] has a namespace of its own inside the SSH signature, so that a signature
//! made for one type never counts for another. The envelope's `sig` is the binary SSHSIG, its
//! `keyid` the key's SSH fingerprint.
//!
//! Signing takes three steps, so that the key may be anywhere: [`UnsignedStatement::new`] fixes the
//! bytes; the key signs them (in memory, in an ssh-agent, by `ssh-keygen -Y sign`);
//! [`UnsignedStatement::attach`] makes the envelope.

#[cfg(test)]
mod tests;

use portcullis_model::{KeyClass, PublicKey, Refusal, canonical};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::dsse::{
    self, ENVELOPE_MAX_SIGNATURES, EnvelopeSignature, PAYLOAD_COMMAND, PAYLOAD_IN_TOTO,
    PAYLOAD_TASK, UnverifiedEnvelope,
};
use crate::sshsig::{
    Attestation, SshPrivateKey, SshProof, UnverifiedSshSignature, agent_sign_request,
    agent_signature,
};

/// What kind of thing a person signs. One namespace each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatementType {
    /// An order to an agent, with its scope.
    Task,
    /// A command that changes the server's state: inventory, policy, mode, breaker, rollout.
    Command,
    /// The yes to exactly one request: the in-toto statement that [`crate::approval`] makes.
    Approval,
}

impl StatementType {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::Task, Self::Command, Self::Approval];

    /// The SSHSIG namespace: what `ssh-keygen -Y sign -n` is given.
    pub const fn namespace(self) -> &'static str {
        match self {
            Self::Task => "task@portcullis",
            Self::Command => "command@portcullis",
            Self::Approval => "approval@portcullis",
        }
    }

    /// The envelope's payload type.
    pub const fn payload_type(self) -> &'static str {
        match self {
            Self::Task => PAYLOAD_TASK,
            Self::Command => PAYLOAD_COMMAND,
            Self::Approval => PAYLOAD_IN_TOTO,
        }
    }

    /// What it is called in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Command => "command",
            Self::Approval => "approval",
        }
    }
}

/// A payload whose bytes are fixed and which nobody signed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsignedStatement {
    statement_type: StatementType,
    payload: Vec<u8>,
}

/// A key that may sign, as enrolment left it.
#[derive(Clone, Copy, Debug)]
pub struct TrustedKey<'a> {
    /// The key.
    pub key: &'a PublicKey,
    /// Whether its hardware's attestation was checked.
    pub attestation: Attestation,
}

/// A value whose signatures were checked against keys that the caller trusts. Only a check makes
/// one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T> {
    payload: T,
    first: SshProof,
    others: Vec<SshProof>,
}

impl UnsignedStatement {
    /// Fixes `payload` as canonical JSON.
    ///
    /// # Errors
    /// The payload has a float or doesn't serialise.
    pub fn new<T: Serialize + ?Sized>(
        statement_type: StatementType,
        payload: &T,
    ) -> Result<Self, Refusal> {
        Ok(Self {
            statement_type,
            payload: canonical::to_vec(payload)?,
        })
    }

    /// The exact payload.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The namespace to sign under.
    pub const fn namespace(&self) -> &'static str {
        self.statement_type.namespace()
    }

    /// The message to sign: what `ssh-keygen -Y sign -n NAMESPACE` reads from its standard input.
    pub fn message(&self) -> Vec<u8> {
        dsse::pae(self.statement_type.payload_type(), &self.payload)
    }

    /// Signs with a key in memory.
    ///
    /// # Errors
    /// The key can't sign.
    pub fn sign_with(&self, key: &SshPrivateKey) -> Result<UnverifiedEnvelope, Refusal> {
        self.attach(&[key.sign(self.namespace(), &self.message())?])
    }

    /// The message that asks an ssh-agent for `key`'s signature, ready for its socket.
    pub fn agent_request(&self, key: &PublicKey) -> Vec<u8> {
        agent_sign_request(key, self.namespace(), &self.message())
    }

    /// Makes the envelope out of the ssh-agent's answer to
    /// [`agent_request`](Self::agent_request).
    ///
    /// # Errors
    /// The agent refused, or what it signed isn't this.
    pub fn attach_agent_answer(
        &self,
        key: &PublicKey,
        answer: &[u8],
    ) -> Result<UnverifiedEnvelope, Refusal> {
        self.attach(&[agent_signature(key, self.namespace(), answer)?])
    }

    /// Makes the envelope. Each signature is checked against the key that it names, so that a
    /// signature over something else is found at the desk and not at the server.
    ///
    /// # Errors
    /// A signature isn't over this statement, or there are none or too many.
    pub fn attach(
        &self,
        signatures: &[UnverifiedSshSignature],
    ) -> Result<UnverifiedEnvelope, Refusal> {
        let message = self.message();
        let mut wire = Vec::with_capacity(signatures.len().min(ENVELOPE_MAX_SIGNATURES));
        for signature in signatures {
            let key = signature.claimed_key();
            signature.verify(key, Attestation::None, self.namespace(), &message)?;
            wire.push(EnvelopeSignature {
                key_id: key.fingerprint().to_owned(),
                signature: signature.to_binary(),
            });
        }
        if wire.is_empty() {
            return Err(not_signed());
        }
        UnverifiedEnvelope::new(
            self.statement_type.payload_type(),
            self.payload.clone(),
            wire,
        )
    }
}

/// Checks that exactly one of `keys` signed the envelope as a statement of this type.
///
/// Whether that key may sign *this* statement (its human's rights, the class demanded, expiry,
/// nonce) is for the caller.
///
/// # Errors
/// Another payload type or namespace, no or several signatures, an unknown signer, or a signature
/// that doesn't verify.
pub fn verify(
    envelope: &UnverifiedEnvelope,
    statement_type: StatementType,
    keys: &[TrustedKey<'_>],
) -> Result<Verified<Vec<u8>>, Refusal> {
    envelope.only_signature()?;
    verify_all(envelope, statement_type, keys)
}

/// Checks an envelope that several people signed: every signature must verify, each by another of
/// `keys`. How many are enough is for the caller, by [`Verified::proofs`].
///
/// # Errors
/// As [`verify`], or one key signed twice.
pub fn verify_all(
    envelope: &UnverifiedEnvelope,
    statement_type: StatementType,
    keys: &[TrustedKey<'_>],
) -> Result<Verified<Vec<u8>>, Refusal> {
    envelope.expect_type(statement_type.payload_type())?;
    let message = envelope.pae();
    let mut proofs: Vec<SshProof> = Vec::with_capacity(envelope.signatures().len());
    for signature in envelope.signatures() {
        let trusted = keys
            .iter()
            .find(|trusted| trusted.key.fingerprint() == signature.key_id)
            .ok_or_else(|| dsse::unknown_signer(&signature.key_id))?;
        if proofs.iter().any(|proof| proof.key == *trusted.key) {
            return Err(Refusal::denied(
                "signed-twice-by-one-key",
                "one key signed the envelope twice",
            )
            .received(&signature.key_id));
        }
        let parsed = UnverifiedSshSignature::from_binary(&signature.signature)?;
        proofs.push(parsed.verify(
            trusted.key,
            trusted.attestation,
            statement_type.namespace(),
            &message,
        )?);
    }
    let mut proofs = proofs.into_iter();
    let first = proofs.next().ok_or_else(not_signed)?;
    Ok(Verified::new(
        envelope.unverified_payload().to_vec(),
        first,
        proofs.collect(),
    ))
}

impl<T> Verified<T> {
    pub(crate) const fn new(payload: T, first: SshProof, others: Vec<SshProof>) -> Self {
        Self {
            payload,
            first,
            others,
        }
    }

    /// What was signed.
    pub const fn payload(&self) -> &T {
        &self.payload
    }

    /// What was signed, by value.
    pub fn into_payload(self) -> T {
        self.payload
    }

    /// The key of the first signature; the only one unless [`verify_all`] made this.
    pub const fn key(&self) -> &PublicKey {
        &self.first.key
    }

    /// The class that the first signature proves.
    pub const fn class(&self) -> KeyClass {
        self.first.class
    }

    /// What each signature proves, at least one.
    pub fn proofs(&self) -> impl Iterator<Item = &SshProof> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl<T> Verified<T> {
    /// The same proofs over what `read` makes of the payload.
    pub(crate) fn try_map<U>(
        self,
        read: impl FnOnce(T) -> Result<U, Refusal>,
    ) -> Result<Verified<U>, Refusal> {
        Ok(Verified {
            payload: read(self.payload)?,
            first: self.first,
            others: self.others,
        })
    }
}

impl Verified<Vec<u8>> {
    /// Reads the signed bytes as canonical JSON of a `T`; `what` names it in refusals.
    ///
    /// # Errors
    /// Not canonical, not a `T`, unknown fields.
    pub fn read<T: DeserializeOwned + Serialize>(self, what: &str) -> Result<Verified<T>, Refusal> {
        self.try_map(|payload| canonical::from_slice(what, &payload))
    }
}

fn not_signed() -> Refusal {
    Refusal::denied("envelope-not-signed", "the envelope has no signature")
        .next("sign it with `portcullis task sign`, or `ssh-keygen -Y sign`")
}
