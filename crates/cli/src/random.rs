//! Nonces.

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use portcullis_model::Refusal;
use portcullis_model::digest::encode_hex;

/// 16 bytes of the operating system's randomness, in hex.
///
/// # Errors
/// There is none.
pub(crate) fn nonce() -> Result<String, Refusal> {
    let mut bytes = [0_u8; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| {
        Refusal::unavailable("no-randomness", "the operating system gave no random bytes")
    })?;
    Ok(encode_hex(&bytes))
}
