//! The two messages of the ssh-agent protocol that signing takes. Whoever has the socket carries
//! them.

use portcullis_model::{PublicKey, Refusal};

use super::raw;
use super::wire::{Reader, Writer};
use super::{MessageHash, UnverifiedSshSignature};
use super::{SSHSIG_MAX_BYTES, to_be_signed};

const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
const FAILURE: u8 = 5;

/// The whole message, length included, that asks an ssh-agent for the signature of `message` by
/// `key`, with SHA-512. A hardware key blinks for its touch before the agent answers.
pub fn agent_sign_request(key: &PublicKey, namespace: &str, message: &[u8]) -> Vec<u8> {
    let mut body = Writer::default();
    body.u8(SIGN_REQUEST);
    body.string(&raw::public_key_blob(key));
    body.string(&to_be_signed(namespace, MessageHash::Sha512, message));
    // No flags: they choose among RSA's hashes only.
    body.u32(0);
    let mut framed = Writer::default();
    framed.string(&body.finish());
    framed.finish()
}

/// Reads the agent's answer to [`agent_sign_request`], length included. Still to be verified:
/// the agent is as trustworthy as whoever runs it.
///
/// # Errors
/// The agent refused, or the answer isn't a signature by a key of `key`'s algorithm.
pub fn agent_signature(
    key: &PublicKey,
    namespace: &str,
    answer: &[u8],
) -> Result<UnverifiedSshSignature, Refusal> {
    let malformed = || {
        Refusal::malformed("ssh-agent answer").expected("one sign response of the agent protocol")
    };
    if answer.len() > SSHSIG_MAX_BYTES {
        return Err(malformed());
    }
    let mut framed = Reader::new(answer);
    let mut body = Reader::new(framed.string().ok_or_else(malformed)?);
    if !framed.is_empty() {
        return Err(malformed());
    }
    match body.u8().ok_or_else(malformed)? {
        SIGN_RESPONSE => {}
        FAILURE => {
            return Err(Refusal::unavailable(
                "agent-refused-to-sign",
                "the ssh-agent did not sign",
            )
            .expected(&format!("a signature by {}", key.fingerprint()))
            .next("look for the key with `ssh-add -l`, add it with `ssh-add`, touch the hardware key when it blinks"));
        }
        _ => return Err(malformed()),
    }
    let blob = body.string().ok_or_else(malformed)?;
    if !body.is_empty() {
        return Err(malformed());
    }
    UnverifiedSshSignature::assemble(key, namespace, MessageHash::Sha512, blob)
}
