//! One raw SSH signature: its blob, and its verification by algorithm.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    UnparsedPublicKey, VerificationAlgorithm,
};
use portcullis_model::{PublicKey, Refusal};
use ssh_key::EcdsaCurve;
use ssh_key::public::KeyData;

use super::Touch;
use super::wire::{Reader, Writer};

const USER_PRESENT: u8 = 0x01;
const USER_VERIFIED: u8 = 0x04;

/// `string algorithm, string signature`, and flags and counter for hardware keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RawSignature {
    Ed25519([u8; 64]),
    Ecdsa(EcdsaPair),
    SkEd25519([u8; 64], SkTrailer),
    SkEcdsaP256(EcdsaPair, SkTrailer),
}

/// `r` and `s` of one curve, each as long as the curve's field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EcdsaPair {
    curve: EcdsaCurve,
    fixed: Vec<u8>,
}

/// Flags and counter as the hardware signed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SkTrailer {
    flags: u8,
    counter: u32,
}

impl RawSignature {
    /// Reads the blob in its one spelling.
    pub(super) fn from_blob(blob: &[u8]) -> Result<Self, Refusal> {
        read_blob(blob).ok_or_else(|| {
            Refusal::malformed("raw SSH signature")
                .expected(
                    "an ssh-ed25519, ecdsa-sha2-nistp*, sk-ssh-ed25519@openssh.com or \
                     sk-ecdsa-sha2-nistp256@openssh.com signature",
                )
                .received(Reader::new(blob).text().unwrap_or("unreadable bytes"))
        })
    }

    /// From `r` and `s`, each of the curve's field length, as a signer gives them.
    pub(super) fn ecdsa(curve: EcdsaCurve, fixed: &[u8]) -> Self {
        Self::Ecdsa(EcdsaPair {
            curve,
            fixed: fixed.to_vec(),
        })
    }

    pub(super) fn to_blob(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.string(self.algorithm().as_bytes());
        match self {
            Self::Ed25519(bytes) => writer.string(bytes),
            Self::Ecdsa(pair) => writer.string(&pair.to_wire()),
            Self::SkEd25519(bytes, trailer) => {
                writer.string(bytes);
                trailer.write(&mut writer);
            }
            Self::SkEcdsaP256(pair, trailer) => {
                writer.string(&pair.to_wire());
                trailer.write(&mut writer);
            }
        }
        writer.finish()
    }

    pub(super) const fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "ssh-ed25519",
            Self::Ecdsa(pair) => ecdsa_name(pair.curve),
            Self::SkEd25519(..) => "sk-ssh-ed25519@openssh.com",
            Self::SkEcdsaP256(..) => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    pub(super) const fn touch(&self) -> Option<Touch> {
        match self {
            Self::Ed25519(_) | Self::Ecdsa(_) => None,
            Self::SkEd25519(_, trailer) | Self::SkEcdsaP256(_, trailer) => Some(Touch {
                user_present: trailer.flags & USER_PRESENT != 0,
                user_verified: trailer.flags & USER_VERIFIED != 0,
                counter: trailer.counter,
            }),
        }
    }

    /// Checks the signature by `key` over `signed`, the bytes that the key itself signs.
    pub(super) fn verify(&self, key: &PublicKey, signed: &[u8]) -> Result<(), Refusal> {
        let data = key_data(key);
        let good = match (self, &data) {
            (Self::Ed25519(bytes), Some(KeyData::Ed25519(key))) => {
                check(&ED25519, key.as_ref(), signed, bytes)
            }
            (Self::Ecdsa(pair), Some(KeyData::Ecdsa(key))) => {
                pair.curve == key.curve() && pair.check(key.as_sec1_bytes(), signed)
            }
            (Self::SkEd25519(bytes, trailer), Some(KeyData::SkEd25519(key))) => {
                let message = trailer.message(key.application(), signed);
                check(&ED25519, key.public_key().as_ref(), &message, bytes)
            }
            (Self::SkEcdsaP256(pair, trailer), Some(KeyData::SkEcdsaSha2NistP256(key))) => {
                let message = trailer.message(key.application(), signed);
                pair.check(key.ec_point().as_bytes(), &message)
            }
            (
                Self::Ed25519(_) | Self::Ecdsa(_) | Self::SkEd25519(..) | Self::SkEcdsaP256(..),
                _,
            ) => false,
        };
        if good {
            Ok(())
        } else {
            Err(Refusal::denied(
                "signature-does-not-verify",
                "the signature does not verify: the signed bytes or the signature were changed",
            )
            .expected(&format!("a signature by {}", key.fingerprint())))
        }
    }
}

impl EcdsaPair {
    /// Reads `mpint r, mpint s`, both in their shortest spelling.
    fn from_wire(curve: EcdsaCurve, bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let mut fixed = Vec::with_capacity(2 * field_bytes(curve));
        for _ in 0..2 {
            let digits = reader.positive_integer()?;
            let zeros = field_bytes(curve).checked_sub(digits.len())?;
            fixed.resize(fixed.len() + zeros, 0);
            fixed.extend_from_slice(digits);
        }
        reader.is_empty().then_some(Self { curve, fixed })
    }

    fn to_wire(&self) -> Vec<u8> {
        let (r, s) = self.fixed.split_at(self.fixed.len() / 2);
        let mut writer = Writer::default();
        writer.positive_integer(r);
        writer.positive_integer(s);
        writer.finish()
    }

    fn check(&self, point: &[u8], message: &[u8]) -> bool {
        match self.curve {
            EcdsaCurve::NistP256 => check(&ECDSA_P256_SHA256_FIXED, point, message, &self.fixed),
            EcdsaCurve::NistP384 => check(&ECDSA_P384_SHA384_FIXED, point, message, &self.fixed),
            EcdsaCurve::NistP521 => check(&ECDSA_P521_SHA512_FIXED, point, message, &self.fixed),
        }
    }
}

impl SkTrailer {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            flags: reader.u8()?,
            counter: reader.u32()?,
        })
    }

    fn write(self, writer: &mut Writer) {
        writer.u8(self.flags);
        writer.u32(self.counter);
    }

    /// What the hardware signs: digest of the application, flags, counter, digest of the data.
    fn message(self, application: &str, signed: &[u8]) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bytes(digest(&SHA256, application.as_bytes()).as_ref());
        self.write(&mut writer);
        writer.bytes(digest(&SHA256, signed).as_ref());
        writer.finish()
    }
}

fn read_blob(blob: &[u8]) -> Option<RawSignature> {
    let mut reader = Reader::new(blob);
    let algorithm = reader.text()?;
    let bytes = reader.string()?;
    let signature = match algorithm {
        "ssh-ed25519" => RawSignature::Ed25519(bytes.try_into().ok()?),
        "ecdsa-sha2-nistp256" => {
            RawSignature::Ecdsa(EcdsaPair::from_wire(EcdsaCurve::NistP256, bytes)?)
        }
        "ecdsa-sha2-nistp384" => {
            RawSignature::Ecdsa(EcdsaPair::from_wire(EcdsaCurve::NistP384, bytes)?)
        }
        "ecdsa-sha2-nistp521" => {
            RawSignature::Ecdsa(EcdsaPair::from_wire(EcdsaCurve::NistP521, bytes)?)
        }
        "sk-ssh-ed25519@openssh.com" => {
            RawSignature::SkEd25519(bytes.try_into().ok()?, SkTrailer::read(&mut reader)?)
        }
        "sk-ecdsa-sha2-nistp256@openssh.com" => RawSignature::SkEcdsaP256(
            EcdsaPair::from_wire(EcdsaCurve::NistP256, bytes)?,
            SkTrailer::read(&mut reader)?,
        ),
        _ => return None,
    };
    reader.is_empty().then_some(signature)
}

fn check(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    UnparsedPublicKey::new(algorithm, key)
        .verify(message, signature)
        .is_ok()
}

pub(super) const fn ecdsa_name(curve: EcdsaCurve) -> &'static str {
    match curve {
        EcdsaCurve::NistP256 => "ecdsa-sha2-nistp256",
        EcdsaCurve::NistP384 => "ecdsa-sha2-nistp384",
        EcdsaCurve::NistP521 => "ecdsa-sha2-nistp521",
    }
}

/// Length of a scalar or coordinate in bytes.
pub(super) const fn field_bytes(curve: EcdsaCurve) -> usize {
    match curve {
        EcdsaCurve::NistP256 => 32,
        EcdsaCurve::NistP384 => 48,
        EcdsaCurve::NistP521 => 66,
    }
}

/// The algorithm's name, the first word of the key's line.
pub(super) fn algorithm_of(key: &PublicKey) -> &str {
    key.as_str().split(' ').next().unwrap_or_default()
}

pub(super) fn key_data(key: &PublicKey) -> Option<KeyData> {
    ssh_key::PublicKey::from_openssh(key.as_str())
        .ok()
        .map(|key| key.key_data().clone())
}

/// The key's wire form, out of its line.
pub(super) fn public_key_blob(key: &PublicKey) -> Vec<u8> {
    use base64::Engine;
    let base64 = key.as_str().split(' ').nth(1).unwrap_or_default();
    base64::engine::general_purpose::STANDARD
        .decode(base64)
        .unwrap_or_default()
}

/// Reads a key's wire form in its one spelling.
pub(super) fn public_key_from_blob(blob: &[u8]) -> Result<PublicKey, Refusal> {
    let malformed = |received: &str| {
        Refusal::malformed("SSH public key")
            .expected("an ed25519, ecdsa or sk- key")
            .received(received)
    };
    let key: PublicKey = ssh_key::PublicKey::from_bytes(blob)
        .and_then(|key| key.to_openssh())
        .map_err(|error| malformed(&error.to_string()))?
        .parse()?;
    if public_key_blob(&key) != blob {
        return Err(malformed("a key in another than its shortest spelling"));
    }
    Ok(key)
}
