//! Signatures by people's SSH keys, in OpenSSH's SSHSIG format, hardware (`sk-`) keys included.
//!
//! Three ways lead to a signature, all without I/O here: an unencrypted key in memory
//! ([`SshPrivateKey::sign`]); an ssh-agent, to which the caller carries [`agent_sign_request`]; and
//! `ssh-keygen -Y sign -n NAMESPACE`, whose armored output [`UnverifiedSshSignature::from_armored`]
//! reads. Ed25519 and ECDSA over P-256, P-384 and P-521; other algorithms and certificates are
//! refused.
//!
//! A signature proves a class of its own: an `sk-` key that signed without a touch proves no more
//! than a file would.
//!
//! Sources: OpenSSH `PROTOCOL.sshsig`, `PROTOCOL.u2f`, `PROTOCOL.key`; RFC 4251, RFC 5656, RFC 8709;
//! draft-ietf-sshm-ssh-agent. Why the blob is read here and not by the `ssh-key` crate stands in
//! `docs/decisions/0002-evidence-formats.md`.

mod agent;
mod armor;
mod private_key;
mod raw;
mod wire;

#[cfg(test)]
mod tests;

pub use agent::{
    AGENT_KEYS_MAX, AGENT_MESSAGE_MAX_BYTES, agent_keys, agent_list_request, agent_sign_request,
    agent_signature,
};
pub use private_key::SshPrivateKey;

use portcullis_model::{KeyClass, PublicKey, Refusal};
use wire::{Reader, Writer};

/// Largest SSHSIG blob in bytes. The largest real one, ECDSA P-521, has below 400; what remains is
/// for application names of hardware keys.
pub const SSHSIG_MAX_BYTES: usize = 4 * 1024;
/// Largest armored signature or private key file in bytes: base64, line ends, comment.
pub const ARMOR_MAX_BYTES: usize = 16 * 1024;
/// Longest namespace in bytes; ours have below 40.
pub const NAMESPACE_MAX_BYTES: usize = 128;

const MAGIC: &[u8] = b"SSHSIG";
const VERSION: u32 = 1;
const ARMOR_LABEL: &str = "SSH SIGNATURE";

/// The digest that is signed in the message's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageHash {
    /// `sha256`.
    Sha256,
    /// `sha512`, what OpenSSH and we sign with.
    Sha512,
}

/// Whether a hardware key's attestation was checked when the key was enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attestation {
    /// Nobody proved that the key lives in hardware that really verifies its user.
    None,
    /// The maker's attestation was verified, so its user-verification flag can be believed.
    Checked,
}

/// An SSHSIG that was read and not yet checked: whose key it names is a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedSshSignature {
    public_key: PublicKey,
    namespace: String,
    hash: MessageHash,
    signature: raw::RawSignature,
}

/// What one checked signature proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshProof {
    /// Whose signature it is.
    pub key: PublicKey,
    /// The class that *this* signature proves, which may be less than the key's.
    pub class: KeyClass,
    /// What the hardware said; `None` for keys in files.
    pub touch: Option<Touch>,
}

/// The flags of a hardware key's signature (`PROTOCOL.u2f`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Somebody touched the key.
    pub user_present: bool,
    /// The key verified its user, by PIN or biometrics, if one believes the key.
    pub user_verified: bool,
    /// The key's signature counter; some keys always say 0.
    pub counter: u32,
}

impl UnverifiedSshSignature {
    /// Reads the binary blob (`SSHSIG`, version, key, …). There is one spelling only:
    /// [`to_binary`](Self::to_binary) gives the same bytes.
    ///
    /// # Errors
    /// Longer than [`SSHSIG_MAX_BYTES`], not an SSHSIG of version 1, an algorithm that we don't
    /// take, a certificate, or a reserved field that isn't empty.
    pub fn from_binary(bytes: &[u8]) -> Result<Self, Refusal> {
        let malformed = |received: &str| {
            Refusal::malformed("SSH signature")
                .expected("SSHSIG version 1 by an ed25519, ecdsa or sk- key, with sha256 or sha512")
                .received(received)
        };
        if bytes.len() > SSHSIG_MAX_BYTES {
            return Err(malformed("more bytes than a signature has"));
        }
        let truncated = || malformed("a blob that ends early or goes on too long");
        let mut reader = Reader::new(bytes);
        if reader.take(MAGIC.len()).ok_or_else(truncated)? != MAGIC {
            return Err(malformed("a blob without the SSHSIG preamble"));
        }
        if reader.u32().ok_or_else(truncated)? != VERSION {
            return Err(malformed("another SSHSIG version"));
        }
        let key_blob = reader.string().ok_or_else(truncated)?;
        let namespace = reader
            .text()
            .ok_or_else(|| malformed("a namespace that isn't text"))?;
        let reserved = reader.string().ok_or_else(truncated)?;
        let hash = match reader.string().ok_or_else(truncated)? {
            b"sha256" => MessageHash::Sha256,
            b"sha512" => MessageHash::Sha512,
            _ => return Err(malformed("another hash algorithm")),
        };
        let raw_blob = reader.string().ok_or_else(truncated)?;
        if !reader.is_empty() {
            return Err(truncated());
        }
        if !reserved.is_empty() {
            return Err(malformed("a reserved field that isn't empty"));
        }
        check_namespace(namespace)?;
        let signature = raw::RawSignature::from_blob(raw_blob)?;
        Self::new(
            raw::public_key_from_blob(key_blob)?,
            namespace,
            hash,
            signature,
        )
    }

    /// Reads `-----BEGIN SSH SIGNATURE-----` and what follows, as `ssh-keygen -Y sign` writes it.
    ///
    /// # Errors
    /// Longer than [`ARMOR_MAX_BYTES`], not armored so, or as
    /// [`from_binary`](Self::from_binary).
    pub fn from_armored(text: &[u8]) -> Result<Self, Refusal> {
        Self::from_binary(&armor::decode(ARMOR_LABEL, "SSH signature", text)?)
    }

    /// Makes a signature out of what an ssh-agent or a token answered: the raw SSH signature blob
    /// (`string algorithm, string signature`, and for `sk-` keys flags and counter) over
    /// [`to_be_signed`].
    ///
    /// # Errors
    /// The blob isn't a signature of `key`'s algorithm, or the namespace is empty or too long.
    pub fn assemble(
        key: &PublicKey,
        namespace: &str,
        hash: MessageHash,
        raw_blob: &[u8],
    ) -> Result<Self, Refusal> {
        check_namespace(namespace)?;
        let signature = raw::RawSignature::from_blob(raw_blob)?;
        Self::new(key.clone(), namespace, hash, signature)
    }

    fn new(
        public_key: PublicKey,
        namespace: &str,
        hash: MessageHash,
        signature: raw::RawSignature,
    ) -> Result<Self, Refusal> {
        let key_algorithm = raw::algorithm_of(&public_key);
        if key_algorithm != signature.algorithm() {
            return Err(Refusal::malformed("SSH signature")
                .expected(&format!(
                    "a signature of the key's algorithm, {key_algorithm}"
                ))
                .received(signature.algorithm()));
        }
        Ok(Self {
            public_key,
            namespace: namespace.to_owned(),
            hash,
            signature,
        })
    }

    /// Checks that `key` signed `message` under `namespace`, and says what that proves.
    ///
    /// `attestation` is what enrolment found out about `key`; a signature with presence and user
    /// verification proves [`KeyClass::Verified`] only where it was checked.
    ///
    /// # Errors
    /// Another key, another namespace, or the signature doesn't verify.
    pub fn verify(
        &self,
        key: &PublicKey,
        attestation: Attestation,
        namespace: &str,
        message: &[u8],
    ) -> Result<SshProof, Refusal> {
        if self.public_key != *key {
            return Err(Refusal::denied(
                "signature-by-another-key",
                "the signature was made with another key",
            )
            .expected(key.fingerprint())
            .received(self.public_key.fingerprint()));
        }
        if self.namespace != namespace {
            return Err(Refusal::denied(
                "signature-for-another-purpose",
                "the signature was made for another purpose",
            )
            .expected(&format!("namespace {namespace}"))
            .received(&self.namespace)
            .next(format!("sign with `ssh-keygen -Y sign -n {namespace}`")));
        }
        let signed = to_be_signed(namespace, self.hash, message);
        self.signature.verify(key, &signed)?;
        let touch = self.signature.touch();
        Ok(SshProof {
            key: key.clone(),
            class: proven_class(touch, attestation),
            touch,
        })
    }

    /// The key that the signature claims to be by.
    pub const fn claimed_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The namespace that the signature claims to be for.
    pub fn claimed_namespace(&self) -> &str {
        &self.namespace
    }

    /// The binary blob.
    pub fn to_binary(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bytes(MAGIC);
        writer.u32(VERSION);
        writer.string(&raw::public_key_blob(&self.public_key));
        writer.string(self.namespace.as_bytes());
        writer.string(b"");
        writer.string(self.hash.name().as_bytes());
        writer.string(&self.signature.to_blob());
        writer.finish()
    }

    /// The armored text, as `ssh-keygen -Y verify` reads it.
    pub fn to_armored(&self) -> String {
        armor::encode(ARMOR_LABEL, &self.to_binary())
    }
}

/// The bytes that the key itself signs for `message`: what goes to an ssh-agent or a token.
pub fn to_be_signed(namespace: &str, hash: MessageHash, message: &[u8]) -> Vec<u8> {
    let algorithm = match hash {
        MessageHash::Sha256 => &aws_lc_rs::digest::SHA256,
        MessageHash::Sha512 => &aws_lc_rs::digest::SHA512,
    };
    let mut writer = Writer::default();
    writer.bytes(MAGIC);
    writer.string(namespace.as_bytes());
    writer.string(b"");
    writer.string(hash.name().as_bytes());
    writer.string(aws_lc_rs::digest::digest(algorithm, message).as_ref());
    writer.finish()
}

impl MessageHash {
    const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

/// What the flags of one signature prove.
const fn proven_class(touch: Option<Touch>, attestation: Attestation) -> KeyClass {
    match (touch, attestation) {
        (
            Some(Touch {
                user_present: true,
                user_verified: true,
                ..
            }),
            Attestation::Checked,
        ) => KeyClass::Verified,
        (
            Some(Touch {
                user_present: true, ..
            }),
            _,
        ) => KeyClass::Presence,
        // A hardware key that signs untouched signs for whoever can reach it, like a file.
        (
            Some(Touch {
                user_present: false,
                ..
            })
            | None,
            _,
        ) => KeyClass::Software,
    }
}

fn check_namespace(namespace: &str) -> Result<(), Refusal> {
    let printable = namespace.bytes().all(|byte| byte.is_ascii_graphic());
    if namespace.is_empty() || namespace.len() > NAMESPACE_MAX_BYTES || !printable {
        return Err(Refusal::malformed("signature namespace")
            .expected(&format!(
                "1 to {NAMESPACE_MAX_BYTES} printable ASCII characters"
            ))
            .received(namespace));
    }
    Ok(())
}
