//! Ed25519 keys of services and of the log.
//!
//! A service signs raw bytes: a DSSE envelope's PAE, a note's text. Both begin in ways that the
//! other can't (`DSSEv1 ` against an origin without spaces), so one signature never passes for the
//! other. People sign with SSH keys through [`crate::sshsig`], whose bytes begin with `SSHSIG`.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use portcullis_model::{PublicKey, Refusal, Secret};
use ssh_key::public::{Ed25519PublicKey, KeyData};

/// Length of an Ed25519 signature in bytes.
pub const SIGNATURE_BYTES: usize = 64;

/// An Ed25519 signing key. `Debug` shows the public fingerprint only.
pub struct Signer {
    pair: Ed25519KeyPair,
    public_key: PublicKey,
    public_bytes: [u8; 32],
}

impl Signer {
    /// The key of a 32-byte seed (RFC 8032 section 5.1.5).
    ///
    /// # Errors
    /// The crypto library can't take it, which does not happen for 32 bytes.
    pub fn from_seed(seed: &Secret<[u8; 32]>) -> Result<Self, Refusal> {
        let rejected = |_| Refusal::internal("an Ed25519 seed was rejected");
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(rejected)?;
        let public_bytes: [u8; 32] = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| Refusal::internal("an Ed25519 public key has 32 bytes"))?;
        let public_key = public_key_from_bytes(public_bytes)?;
        Ok(Self {
            pair,
            public_key,
            public_bytes,
        })
    }

    /// A new key from the operating system's randomness, and the seed to keep.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn generate() -> Result<(Self, Secret<[u8; 32]>), Refusal> {
        let seed = Secret::new(random_bytes()?);
        Ok((Self::from_seed(&seed)?, seed))
    }

    /// The signature over exactly `message`.
    ///
    /// # Errors
    /// The crypto library can't sign, which does not happen for a key that it took.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE_BYTES], Refusal> {
        self.pair
            .try_sign(message)
            .ok()
            .and_then(|signature| signature.as_ref().try_into().ok())
            .ok_or_else(|| Refusal::internal("the Ed25519 key can't sign"))
    }

    /// The public half as an `ssh-ed25519` key.
    pub const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The public half as 32 bytes (RFC 8032).
    pub const fn public_bytes(&self) -> &[u8; 32] {
        &self.public_bytes
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.public_key.fingerprint())
    }
}

/// Checks a raw Ed25519 signature by an `ssh-ed25519` key over exactly `message`.
///
/// # Errors
/// The key is of another algorithm, or the signature does not verify.
pub fn verify(key: &PublicKey, message: &[u8], signature: &[u8]) -> Result<(), Refusal> {
    verify_bytes(&public_bytes_of(key)?, message, signature)
}

/// As [`verify`], with the key as 32 bytes.
///
/// # Errors
/// The signature does not verify.
pub fn verify_bytes(key: &[u8; 32], message: &[u8], signature: &[u8]) -> Result<(), Refusal> {
    UnparsedPublicKey::new(&ED25519, key)
        .verify(message, signature)
        .map_err(|_| {
            Refusal::denied(
                "signature-does-not-verify",
                "the signature does not verify: the signed bytes or the signature were changed",
            )
        })
}

/// The 32 bytes of an `ssh-ed25519` key.
///
/// # Errors
/// The key is of another algorithm.
pub fn public_bytes_of(key: &PublicKey) -> Result<[u8; 32], Refusal> {
    match ssh_key::PublicKey::from_openssh(key.as_str())
        .ok()
        .as_ref()
        .map(ssh_key::PublicKey::key_data)
    {
        Some(KeyData::Ed25519(bytes)) => Ok(bytes.0),
        _ => Err(Refusal::malformed("service key")
            .expected("an ssh-ed25519 key")
            .received(key.as_str())),
    }
}

/// The `ssh-ed25519` key of 32 bytes.
///
/// # Errors
/// The bytes can't be written as a key, which does not happen.
pub fn public_key_from_bytes(bytes: [u8; 32]) -> Result<PublicKey, Refusal> {
    ssh_key::PublicKey::from(KeyData::Ed25519(Ed25519PublicKey(bytes)))
        .to_openssh()
        .map_err(|_| Refusal::internal("an Ed25519 public key has no line"))?
        .parse()
}

/// 32 bytes of the operating system's randomness.
pub(crate) fn random_bytes() -> Result<[u8; 32], Refusal> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| {
        Refusal::unavailable("no-randomness", "the operating system gave no random bytes")
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032 section 7.1, test 2.
    #[test]
    fn the_published_vector_holds() {
        let hex = |text: &str| portcullis_model::digest::decode_hex(text).unwrap();
        let seed = hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let signer = Signer::from_seed(&Secret::new(seed.try_into().unwrap())).unwrap();
        assert_eq!(
            signer.public_bytes().to_vec(),
            hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
        );
        let signature = signer.sign(&[0x72]).unwrap();
        assert_eq!(
            signature.to_vec(),
            hex(
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
            )
        );
        verify(signer.public_key(), &[0x72], &signature).unwrap();
    }

    #[test]
    fn another_message_key_or_signature_is_refused() {
        let (signer, seed) = Signer::generate().unwrap();
        let (other, _) = Signer::generate().unwrap();
        let signature = signer.sign(b"message").unwrap();
        verify(signer.public_key(), b"message", &signature).unwrap();
        assert!(verify(signer.public_key(), b"massage", &signature).is_err());
        assert!(verify(other.public_key(), b"message", &signature).is_err());
        assert!(verify(signer.public_key(), b"message", &signature[..63]).is_err());
        assert!(verify(signer.public_key(), b"message", b"").is_err());
        let again = Signer::from_seed(&seed).unwrap();
        assert_eq!(again.public_key(), signer.public_key());
    }

    #[test]
    fn a_key_that_is_printed_shows_no_secret() {
        let seed = Secret::new([7; 32]);
        let signer = Signer::from_seed(&seed).unwrap();
        let shown = format!("{signer:?} {seed:?}");
        assert!(
            !shown.contains("7, 7") && !shown.contains("0707"),
            "{shown}"
        );
    }
}
