//! The messages of the ssh-agent protocol that signing takes: which keys are there, and a signature
//! by one. Whoever has the socket carries them.

use portcullis_model::{PublicKey, Refusal};

use super::raw;
use super::wire::{Reader, Writer};
use super::{MessageHash, UnverifiedSshSignature};
use super::{SSHSIG_MAX_BYTES, to_be_signed};

/// Largest message of the protocol in bytes, without its length: what OpenSSH's own agent takes.
pub const AGENT_MESSAGE_MAX_BYTES: usize = 256 * 1024;
/// Most keys that are read from an agent's list.
pub const AGENT_KEYS_MAX: usize = 256;

const LIST_REQUEST: u8 = 11;
const LIST_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
const FAILURE: u8 = 5;

/// The whole message, length included, that asks an ssh-agent for its keys.
pub const fn agent_list_request() -> [u8; 5] {
    [0, 0, 0, 1, LIST_REQUEST]
}

/// Reads the agent's answer to [`agent_list_request`], length included: the keys that we can use,
/// with their comments. Keys of other algorithms and certificates are left out.
///
/// # Errors
/// Longer than [`AGENT_MESSAGE_MAX_BYTES`], more than [`AGENT_KEYS_MAX`] keys, or not such an
/// answer.
pub fn agent_keys(answer: &[u8]) -> Result<Vec<(PublicKey, String)>, Refusal> {
    let malformed = || {
        Refusal::malformed("ssh-agent answer").expected("one list of keys of the agent protocol")
    };
    let mut body = body_of(answer, AGENT_MESSAGE_MAX_BYTES).ok_or_else(malformed)?;
    if body.u8() != Some(LIST_ANSWER) {
        return Err(malformed());
    }
    let count = body.u32().ok_or_else(malformed)?;
    if usize::try_from(count).map_or(true, |count| count > AGENT_KEYS_MAX) {
        return Err(malformed().received(&format!("{count} keys")));
    }
    let mut keys = Vec::new();
    for _ in 0..count {
        let blob = body.string().ok_or_else(malformed)?;
        let comment = String::from_utf8_lossy(body.string().ok_or_else(malformed)?);
        if let Ok(key) = raw::public_key_from_blob(blob) {
            keys.push((key, comment.into_owned()));
        }
    }
    if body.is_empty() {
        Ok(keys)
    } else {
        Err(malformed())
    }
}

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
    let mut body = body_of(answer, SSHSIG_MAX_BYTES).ok_or_else(malformed)?;
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

/// What follows the length of a message that is exactly as long as it says.
fn body_of(message: &[u8], max_bytes: usize) -> Option<Reader<'_>> {
    let mut framed = Reader::new(message);
    let body = framed.string()?;
    (framed.is_empty() && body.len() <= max_bytes).then(|| Reader::new(body))
}
