//! DSSE v1 envelopes: a typed payload and signatures over its pre-authentication encoding (PAE).
//!
//! What a signature covers is [`pae`]: the payload's type and its exact bytes. An envelope is read
//! in canonical JSON only, so that its digest names it. Services sign the PAE with Ed25519
//! ([`sign`], [`verify`]); people's SSH signatures over it are [`crate::statement`]'s.
//!
//! Source: github.com/secure-systems-lab/dsse, `protocol.md` and `envelope.md`, version 1.0.

#[cfg(test)]
mod tests;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use portcullis_model::statement::{Envelope, EnvelopeSignature as WireSignature};
use portcullis_model::{KeyClass, PublicKey, Refusal, canonical};
use serde::{Deserialize, Serialize};

use crate::signer::{self, Signer};
use crate::sshsig::SshProof;
use crate::statement::Verified;

/// Largest envelope in bytes as JSON. Provenance names every change since the last release: at
/// about 1 kB each, room for four thousand. Endpoints set lower bounds of their own.
pub const ENVELOPE_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Most signatures in one envelope: more than any quorum has.
pub const ENVELOPE_MAX_SIGNATURES: usize = 32;
/// Longest payload type in bytes.
pub const PAYLOAD_TYPE_MAX_BYTES: usize = 128;
/// Longest key id in bytes; ours are fingerprints of 50.
pub const KEY_ID_MAX_BYTES: usize = 128;
/// Largest single signature in bytes, decoded; an SSHSIG has up to 4 KiB.
pub const SIGNATURE_MAX_BYTES: usize = crate::sshsig::SSHSIG_MAX_BYTES;

/// Payload type of every in-toto statement (in-toto attestation framework v1): approvals by people,
/// attestations by services.
pub const PAYLOAD_IN_TOTO: &str = "application/vnd.in-toto+json";
/// Payload type of a signed task.
pub const PAYLOAD_TASK: &str = portcullis_model::task::Task::PAYLOAD_TYPE;
/// Payload type of a command that a person, host or service signs.
pub const PAYLOAD_COMMAND: &str = portcullis_model::statement::SignedCommand::PAYLOAD_TYPE;

/// An envelope that was read or made; none of its signatures is checked. Serialises as its JSON,
/// whose plain form is [`portcullis_model::statement::Envelope`]; conversions go both ways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Envelope", into = "Envelope")]
pub struct UnverifiedEnvelope {
    payload_type: String,
    payload: Vec<u8>,
    signatures: Vec<EnvelopeSignature>,
}

/// One signature, and a hint whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeSignature {
    /// Which key to try, for us always an SSH fingerprint (`SHA256:…`). A hint: it isn't signed.
    pub key_id: String,
    /// The signature: a raw Ed25519 one by services, a binary SSHSIG by people.
    pub signature: Vec<u8>,
}

/// What a signature covers: `DSSEv1`, type and payload, each with its length.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    out.extend_from_slice(payload);
    out
}

/// Signs `payload` as a service.
///
/// # Errors
/// The payload is too large, or the signer can't sign.
pub fn sign(
    payload_type: &str,
    payload: Vec<u8>,
    signer: &Signer,
) -> Result<UnverifiedEnvelope, Refusal> {
    let signature = signer.sign(&pae(payload_type, &payload))?.to_vec();
    UnverifiedEnvelope::new(
        payload_type,
        payload,
        vec![EnvelopeSignature {
            key_id: signer.public_key().fingerprint().to_owned(),
            signature,
        }],
    )
}

/// Checks that exactly one of `keys`, a service's, signed the envelope, and nobody else.
///
/// # Errors
/// Another payload type, no or several signatures, an unknown signer, or a signature that doesn't
/// verify.
pub fn verify(
    envelope: &UnverifiedEnvelope,
    payload_type: &str,
    keys: &[&PublicKey],
) -> Result<Verified<Vec<u8>>, Refusal> {
    envelope.expect_type(payload_type)?;
    let signature = envelope.only_signature()?;
    let key = keys
        .iter()
        .find(|key| key.fingerprint() == signature.key_id)
        .ok_or_else(|| unknown_signer(&signature.key_id))?;
    signer::verify(key, &envelope.pae(), &signature.signature)?;
    let proof = SshProof {
        key: (*key).clone(),
        class: KeyClass::Software,
        touch: None,
    };
    Ok(Verified::new(envelope.payload.clone(), proof, Vec::new()))
}

impl UnverifiedEnvelope {
    /// An envelope of these parts.
    ///
    /// # Errors
    /// A part is longer than its bound, or a type or key id isn't printable ASCII.
    pub fn new(
        payload_type: &str,
        payload: Vec<u8>,
        signatures: Vec<EnvelopeSignature>,
    ) -> Result<Self, Refusal> {
        let name = |text: &str, max: usize| {
            (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if !name(payload_type, PAYLOAD_TYPE_MAX_BYTES) {
            return Err(malformed("another payload type")
                .expected("a media type of printable ASCII")
                .received(payload_type));
        }
        // Base64 grows by a third; the signatures have room besides.
        if payload.len() > ENVELOPE_MAX_BYTES / 2 {
            return Err(malformed("a payload that is too large"));
        }
        if signatures.len() > ENVELOPE_MAX_SIGNATURES {
            return Err(malformed("too many signatures"));
        }
        for signature in &signatures {
            if !name(&signature.key_id, KEY_ID_MAX_BYTES)
                || signature.signature.len() > SIGNATURE_MAX_BYTES
            {
                return Err(malformed(
                    "a signature without key id, or one that is too long",
                ));
            }
        }
        Ok(Self {
            payload_type: payload_type.to_owned(),
            payload,
            signatures,
        })
    }

    /// Reads an envelope in canonical JSON.
    ///
    /// # Errors
    /// Longer than [`ENVELOPE_MAX_BYTES`], not canonical, unknown or missing fields, bad base64, or
    /// as [`new`](Self::new).
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > ENVELOPE_MAX_BYTES {
            return Err(malformed("an envelope that is too large"));
        }
        canonical::from_slice("signed envelope", bytes)
    }

    /// The envelope's canonical JSON: the bytes to store, send and take the digest of.
    ///
    /// # Errors
    /// None in practice; the canonical writer's signature has one.
    pub fn to_json(&self) -> Result<Vec<u8>, Refusal> {
        canonical::to_vec(self)
    }

    /// Adds one more signature.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_signature(mut self, signature: EnvelopeSignature) -> Result<Self, Refusal> {
        self.signatures.push(signature);
        Self::new(&self.payload_type, self.payload, self.signatures)
    }

    /// What signatures cover.
    pub fn pae(&self) -> Vec<u8> {
        pae(&self.payload_type, &self.payload)
    }

    /// The payload type that is claimed.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The payload's bytes, signed by nobody as far as one knows here. To look who might have
    /// signed, never to act on.
    pub fn unverified_payload(&self) -> &[u8] {
        &self.payload
    }

    /// The signatures, none of them checked.
    pub fn signatures(&self) -> &[EnvelopeSignature] {
        &self.signatures
    }

    pub(crate) fn expect_type(&self, payload_type: &str) -> Result<(), Refusal> {
        if self.payload_type == payload_type {
            return Ok(());
        }
        Err(Refusal::denied(
            "envelope-of-another-type",
            "the envelope holds something of another type",
        )
        .expected(payload_type)
        .received(&self.payload_type))
    }

    pub(crate) fn only_signature(&self) -> Result<&EnvelopeSignature, Refusal> {
        match self.signatures.as_slice() {
            [signature] => Ok(signature),
            others => Err(Refusal::denied(
                "envelope-not-signed-once",
                "the envelope must have exactly one signature",
            )
            .received(&format!("{} signatures", others.len()))),
        }
    }
}

pub(crate) fn unknown_signer(key_id: &str) -> Refusal {
    Refusal::denied(
        "unknown-signer",
        "the envelope is signed with a key that nobody activated for this",
    )
    .received(key_id)
    .next("`portcullis human list` shows the activated keys")
}

fn malformed(received: &str) -> Refusal {
    Refusal::malformed("signed envelope")
        .expected("a DSSE envelope: payload, payloadType, signatures with keyid and sig")
        .received(received)
}

impl From<UnverifiedEnvelope> for Envelope {
    fn from(envelope: UnverifiedEnvelope) -> Self {
        Self {
            payload: STANDARD.encode(envelope.payload),
            payload_type: envelope.payload_type,
            signatures: envelope
                .signatures
                .into_iter()
                .map(|signature| WireSignature {
                    keyid: signature.key_id,
                    sig: STANDARD.encode(signature.signature),
                })
                .collect(),
        }
    }
}

impl TryFrom<Envelope> for UnverifiedEnvelope {
    type Error = Refusal;

    fn try_from(wire: Envelope) -> Result<Self, Refusal> {
        let decode = |text: &str| {
            STANDARD
                .decode(text)
                .map_err(|_| malformed("base64 that does not decode"))
        };
        let signatures = wire
            .signatures
            .into_iter()
            .map(|signature| {
                Ok(EnvelopeSignature {
                    signature: decode(&signature.sig)?,
                    key_id: signature.keyid,
                })
            })
            .collect::<Result<_, Refusal>>()?;
        Self::new(&wire.payload_type, decode(&wire.payload)?, signatures)
    }
}
