//! Unencrypted OpenSSH private keys, as bytes: reading them, making new ones, signing.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
};
use portcullis_model::{PublicKey, Refusal, Secret};
use ssh_key::EcdsaCurve;
use ssh_key::public::KeyData;

use super::armor;
use super::raw::{self, RawSignature};
use super::wire::{Reader, Writer};
use super::{MessageHash, UnverifiedSshSignature, check_namespace, to_be_signed};
use crate::signer::{Signer, random_bytes};

const MAGIC: &[u8] = b"openssh-key-v1\0";
const LABEL: &str = "OPENSSH PRIVATE KEY";
/// The block size of an unencrypted key's padding, in bytes.
const BLOCK_BYTES: usize = 8;
/// Longest comment in bytes that [`SshPrivateKey::encode_ed25519`] writes.
const COMMENT_MAX_BYTES: usize = 256;

/// A private key that lies in a file in the clear: ed25519 or ecdsa. It signs as
/// [`portcullis_model::KeyClass::Software`].
pub struct SshPrivateKey {
    public_key: PublicKey,
    comment: String,
    kind: Kind,
}

enum Kind {
    Ed25519(Signer),
    Ecdsa(EcdsaCurve, EcdsaKeyPair),
}

impl SshPrivateKey {
    /// Reads an `id_ed25519` or `id_ecdsa` file.
    ///
    /// # Errors
    /// Not OpenSSH's format, an encrypted key, a hardware key (its file is only a handle), another
    /// algorithm, or halves that don't fit each other. No refusal repeats the file's content.
    pub fn from_openssh(file: &[u8]) -> Result<Self, Refusal> {
        let bytes = armor::decode(LABEL, "SSH private key", file).map_err(|refusal| {
            refusal.next("`ssh-keygen -p -f FILE` rewrites an older format as OpenSSH's")
        })?;
        let container = read_container(&bytes).ok_or_else(unreadable)?;
        let public_key = raw::public_key_from_blob(container.public)?;
        if container.encrypted {
            return Err(Refusal::denied(
                "private-key-encrypted",
                "this private key is protected by a passphrase, which Portcullis does not ask for",
            )
            .received(public_key.fingerprint())
            .next(
                "add it to your ssh-agent with `ssh-add FILE`, or sign with `ssh-keygen -Y sign -f FILE`",
            ));
        }
        let (kind, comment) = read_private(container.private, &public_key)?;
        Ok(Self {
            public_key,
            comment,
            kind,
        })
    }

    /// A new ed25519 key from the operating system's randomness.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn generate(comment: &str) -> Result<(Self, Secret<String>), Refusal> {
        Self::from_seed(&Secret::new(random_bytes()?), comment)
    }

    /// The ed25519 key of these 32 random bytes, and its unencrypted OpenSSH file. The file's
    /// public line is [`public_key`](Self::public_key) and the comment.
    ///
    /// # Errors
    /// The comment is longer than 256 bytes or has control characters.
    pub fn from_seed(
        seed: &Secret<[u8; 32]>,
        comment: &str,
    ) -> Result<(Self, Secret<String>), Refusal> {
        let signer = Signer::from_seed(seed)?;
        let file = Self::encode_ed25519(&signer, seed, comment)?;
        let key = Self {
            public_key: signer.public_key().clone(),
            comment: comment.to_owned(),
            kind: Kind::Ed25519(signer),
        };
        Ok((key, file))
    }

    /// Signs `message` under `namespace`, with SHA-512 as `ssh-keygen -Y sign` does.
    ///
    /// # Errors
    /// The namespace is empty or too long, or there is no randomness for ECDSA.
    pub fn sign(&self, namespace: &str, message: &[u8]) -> Result<UnverifiedSshSignature, Refusal> {
        check_namespace(namespace)?;
        let signed = to_be_signed(namespace, MessageHash::Sha512, message);
        let signature = match &self.kind {
            Kind::Ed25519(signer) => RawSignature::Ed25519(signer.sign(&signed)?),
            Kind::Ecdsa(curve, pair) => {
                let fixed = pair
                    .sign(&SystemRandom::new(), &signed)
                    .map_err(|_| Refusal::internal("the ECDSA key can't sign"))?;
                RawSignature::ecdsa(*curve, fixed.as_ref())
            }
        };
        UnverifiedSshSignature::new(
            self.public_key.clone(),
            namespace,
            MessageHash::Sha512,
            signature,
        )
    }

    /// The public half.
    pub const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The file's comment.
    pub fn comment(&self) -> &str {
        &self.comment
    }

    fn encode_ed25519(
        signer: &Signer,
        seed: &Secret<[u8; 32]>,
        comment: &str,
    ) -> Result<Secret<String>, Refusal> {
        if comment.len() > COMMENT_MAX_BYTES || comment.chars().any(char::is_control) {
            return Err(Refusal::malformed("key comment")
                .expected(&format!("at most {COMMENT_MAX_BYTES} bytes on one line"))
                .received(comment));
        }
        let public = signer.public_bytes();
        let mut private = Writer::default();
        // The check number only tells a right passphrase from a wrong one; there is none here.
        private.u32(0);
        private.u32(0);
        private.string(b"ssh-ed25519");
        private.string(public);
        private.string(&[&seed.expose()[..], public].concat());
        private.string(comment.as_bytes());
        let mut private = private.finish();
        let mut pad: u8 = 1;
        while !private.len().is_multiple_of(BLOCK_BYTES) {
            private.push(pad);
            pad += 1;
        }
        let mut file = Writer::default();
        file.bytes(MAGIC);
        file.string(b"none");
        file.string(b"none");
        file.string(b"");
        file.u32(1);
        file.string(&raw::public_key_blob(signer.public_key()));
        file.string(&private);
        Ok(Secret::new(armor::encode(LABEL, &file.finish())))
    }
}

impl std::fmt::Debug for SshPrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SshPrivateKey({})", self.public_key.fingerprint())
    }
}

struct Container<'a> {
    public: &'a [u8],
    private: &'a [u8],
    encrypted: bool,
}

/// The outer layer, as `PROTOCOL.key` describes it.
fn read_container(bytes: &[u8]) -> Option<Container<'_>> {
    let mut reader = Reader::new(bytes);
    if reader.take(MAGIC.len())? != MAGIC {
        return None;
    }
    let cipher = reader.string()?;
    let derivation = reader.string()?;
    let options = reader.string()?;
    if reader.u32()? != 1 {
        return None;
    }
    let public = reader.string()?;
    let private = reader.string()?;
    let encrypted = cipher != b"none";
    // Some ciphers put a tag behind the encrypted part; behind a plain one there is nothing.
    let plain_fits = derivation == b"none" && options.is_empty() && reader.is_empty();
    (encrypted || plain_fits).then_some(Container {
        public,
        private,
        encrypted,
    })
}

fn read_private(bytes: &[u8], public_key: &PublicKey) -> Result<(Kind, String), Refusal> {
    let mut reader = Reader::new(bytes);
    let first_check = reader.u32().ok_or_else(unreadable)?;
    if reader.u32() != Some(first_check) || !bytes.len().is_multiple_of(BLOCK_BYTES) {
        return Err(unreadable());
    }
    let algorithm = reader.text().ok_or_else(unreadable)?;
    if algorithm != raw::algorithm_of(public_key) {
        return Err(mismatched());
    }
    let kind = match raw::key_data(public_key) {
        Some(KeyData::Ed25519(public)) => read_ed25519(&mut reader, public.as_ref())?,
        Some(KeyData::Ecdsa(public)) => {
            read_ecdsa(&mut reader, public.curve(), public.as_sec1_bytes())?
        }
        _ => {
            return Err(Refusal::denied(
                "private-key-in-hardware",
                "this file is only the handle of a hardware key",
            )
            .received(public_key.fingerprint())
            .next(
                "sign with `ssh-keygen -Y sign -f FILE`, or add the key to your ssh-agent with `ssh-add FILE`",
            ));
        }
    };
    let comment = reader.text().ok_or_else(unreadable)?.to_owned();
    let padding = reader.rest();
    let counted = padding.iter().zip(1_u8..).all(|(byte, n)| *byte == n);
    if padding.len() >= BLOCK_BYTES || !counted {
        return Err(unreadable());
    }
    Ok((kind, comment))
}

fn read_ed25519(reader: &mut Reader<'_>, public: &[u8]) -> Result<Kind, Refusal> {
    if reader.string() != Some(public) {
        return Err(mismatched());
    }
    let both = reader.string().ok_or_else(unreadable)?;
    let (seed, repeated) = both.split_at_checked(32).ok_or_else(unreadable)?;
    let seed: [u8; 32] = seed.try_into().map_err(|_| unreadable())?;
    let signer = Signer::from_seed(&Secret::new(seed))?;
    if repeated != public || signer.public_bytes() != public {
        return Err(mismatched());
    }
    Ok(Kind::Ed25519(signer))
}

fn read_ecdsa(reader: &mut Reader<'_>, curve: EcdsaCurve, public: &[u8]) -> Result<Kind, Refusal> {
    let curve_name = reader.text().ok_or_else(unreadable)?;
    if Some(curve_name) != raw::ecdsa_name(curve).strip_prefix("ecdsa-sha2-") {
        return Err(mismatched());
    }
    if reader.string() != Some(public) {
        return Err(mismatched());
    }
    let digits = reader.positive_integer().ok_or_else(unreadable)?;
    let zeros = raw::field_bytes(curve)
        .checked_sub(digits.len())
        .ok_or_else(unreadable)?;
    let scalar = [&vec![0; zeros], digits].concat();
    let algorithm = match curve {
        EcdsaCurve::NistP256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
        EcdsaCurve::NistP384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        EcdsaCurve::NistP521 => &ECDSA_P521_SHA512_FIXED_SIGNING,
    };
    EcdsaKeyPair::from_private_key_and_public_key(algorithm, &scalar, public)
        .map(|pair| Kind::Ecdsa(curve, pair))
        .map_err(|_| mismatched())
}

fn unreadable() -> Refusal {
    Refusal::malformed("SSH private key")
        .expected("OpenSSH's format with one ed25519 or ecdsa key")
        .next("make one with `ssh-keygen -t ed25519`")
}

fn mismatched() -> Refusal {
    Refusal::malformed("SSH private key")
        .expected("a private half that fits the public half in the same file")
        .next("the file is damaged; take it from a backup, or make a new key with `ssh-keygen -t ed25519`")
}
