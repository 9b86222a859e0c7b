//! Witnesses: what they sign, what they are asked, and when they say no.
//!
//! A cosignature says: at that time this checkpoint was the largest of its log that I saw, and it
//! contains all that I saw before. Enough of them, by witnesses that a verifier chose, leave a log
//! no room to show different people different histories.
//!
//! Sources: c2sp.org/tlog-cosignature (Ed25519, `cosignature/v1`), c2sp.org/tlog-witness.

mod request;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use portcullis_model::Refusal;

use crate::checkpoint::UnverifiedCheckpoint;
use crate::note::{KeyName, NoteSignature, key_id, split_key, write_key};
use crate::signer::{self, SIGNATURE_BYTES, Signer};

pub use request::{
    ADD_CHECKPOINT_MAX_BYTES, AddCheckpoint, COSIGNATURES_MAX_BYTES, SIZE_CONTENT_TYPE, WitnessNo,
    judge, parse_cosignatures, parse_known_size, write_cosignatures,
};

/// The signature type of an Ed25519 cosignature in key ids and verifier keys.
const COSIGNATURE_TYPE: u8 = 0x04;
/// First line of what a witness signs.
const FIRST_LINE: &str = "cosignature/v1";
/// Latest time that a cosignature may name, in seconds since 1970: 2⁶³ − 1.
const TIME_MAX_S: u64 = i64::MAX as u64;

/// A witness's name and public key; written `name+id in hex+base64 of type and key`.
#[derive(Clone, PartialEq, Eq)]
pub struct WitnessKey {
    name: KeyName,
    id: u32,
    public: [u8; 32],
}

/// A cosignature that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosigned {
    /// By whom.
    pub witness: KeyName,
    /// When, in seconds since 1970, by the witness's own clock.
    pub time_s: u64,
}

impl WitnessKey {
    /// The key with its id, which follows from name and bytes.
    pub fn new(name: KeyName, public: [u8; 32]) -> Self {
        let id = key_id(&name, COSIGNATURE_TYPE, &public);
        Self { name, id, public }
    }

    /// The witness's name.
    pub const fn name(&self) -> &KeyName {
        &self.name
    }

    /// The 32 bytes of the Ed25519 key.
    pub const fn public_bytes(&self) -> &[u8; 32] {
        &self.public
    }

    /// Whether `signature` claims to be by this witness.
    fn is_claimed_by(&self, signature: &NoteSignature) -> bool {
        signature.name == self.name && signature.key_id == self.id
    }

    /// Checks one cosignature over a checkpoint's text.
    ///
    /// # Errors
    /// It is not by this witness, names no time that could be, or doesn't verify.
    pub fn verify(&self, text: &str, signature: &NoteSignature) -> Result<Cosigned, Refusal> {
        let refused = |received: &str| {
            Refusal::denied(
                "cosignature-does-not-verify",
                format!("the cosignature by {} does not verify", self.name),
            )
            .expected(&format!("a cosignature/v1 by {self}"))
            .received(received)
        };
        if !self.is_claimed_by(signature) {
            return Err(refused(&format!("a signature by {}", signature.name)));
        }
        let (time, bytes) = signature
            .bytes
            .split_first_chunk::<8>()
            .filter(|(_, bytes)| bytes.len() == SIGNATURE_BYTES)
            .ok_or_else(|| refused("a signature of another length"))?;
        let time_s = u64::from_be_bytes(*time);
        if time_s > TIME_MAX_S {
            return Err(refused("a time that is none"));
        }
        let message = message(time_s, text);
        signer::verify_bytes(&self.public, message.as_bytes(), bytes)
            .map_err(|_| refused("other signed bytes, or another key"))?;
        Ok(Cosigned {
            witness: self.name.clone(),
            time_s,
        })
    }
}

/// What a witness says by its key over a checkpoint's text, `time_s` being its clock.
///
/// # Errors
/// The signer can't sign.
pub fn cosign(
    name: &KeyName,
    signer: &Signer,
    text: &str,
    time_s: u64,
) -> Result<NoteSignature, Refusal> {
    let signature = signer.sign(message(time_s, text).as_bytes())?;
    let mut bytes = time_s.to_be_bytes().to_vec();
    bytes.extend_from_slice(&signature);
    Ok(NoteSignature {
        name: name.clone(),
        key_id: key_id(name, COSIGNATURE_TYPE, signer.public_bytes()),
        bytes,
    })
}

fn message(time_s: u64, text: &str) -> String {
    format!("{FIRST_LINE}\ntime {time_s}\n{text}")
}

/// The cosignatures of known witnesses under a checkpoint, each key once. Others are ignored, as
/// the specification says.
///
/// # Errors
/// A signature that claims to be by a known witness doesn't verify, or one signed twice.
pub fn cosigners(
    checkpoint: &UnverifiedCheckpoint,
    witnesses: &[WitnessKey],
) -> Result<Vec<Cosigned>, Refusal> {
    let note = checkpoint.note();
    let mut keys = BTreeSet::new();
    let mut found = Vec::new();
    for witness in witnesses {
        let mut claims = note
            .signatures()
            .iter()
            .filter(|signature| witness.is_claimed_by(signature));
        let Some(claim) = claims.next() else { continue };
        if claims.next().is_some() {
            return Err(Refusal::denied(
                "note-signed-twice",
                format!("the checkpoint has two cosignatures by {}", witness.name),
            ));
        }
        let cosigned = witness.verify(note.claimed_text(), claim)?;
        // One key under two names is one witness.
        if keys.insert(witness.public) {
            found.push(cosigned);
        }
    }
    Ok(found)
}

/// As [`cosigners`], where at least `quorum` of them are demanded.
///
/// # Errors
/// [`witness-quorum`: `Denied`] there are fewer, or as [`cosigners`].
pub fn require_quorum(
    checkpoint: &UnverifiedCheckpoint,
    witnesses: &[WitnessKey],
    quorum: usize,
) -> Result<Vec<Cosigned>, Refusal> {
    let found = cosigners(checkpoint, witnesses)?;
    if found.len() >= quorum {
        return Ok(found);
    }
    let names: Vec<&str> = found
        .iter()
        .map(|cosigned| cosigned.witness.as_str())
        .collect();
    let known: Vec<&str> = witnesses
        .iter()
        .map(|witness| witness.name.as_str())
        .collect();
    Err(Refusal::denied(
        "witness-quorum",
        "too few witnesses cosigned this checkpoint",
    )
    .expected(&format!("{quorum} of {}", known.join(", ")))
    .received(&format!("{}: {}", names.len(), names.join(", "))))
}

impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_key(f, &self.name, self.id, COSIGNATURE_TYPE, &self.public)
    }
}

impl fmt::Debug for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for WitnessKey {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let malformed = || {
            Refusal::malformed("witness key")
                .expected("name+8 hex digits+base64 of the type 4 and an Ed25519 key, such as the witness prints")
                .received(text)
        };
        let (name, id, public) = split_key(text, COSIGNATURE_TYPE).ok_or_else(malformed)?;
        let key = Self::new(name.parse()?, public);
        if key.id != id {
            return Err(malformed().expected(&format!("the id that name and key give, {key}")));
        }
        Ok(key)
    }
}
