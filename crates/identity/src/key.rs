//! Keys in memory: P-256 for identities and tokens, Ed25519 for the log, services and hosts.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair, ParsedPublicKey, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portcullis_model::{Digest, PublicKey, Refusal, Secret};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Length of an uncompressed P-256 point in bytes: 0x04, x, y.
const POINT_BYTES: usize = 65;
/// Length of an Ed25519 seed, and of an Ed25519 public key, in bytes.
pub const ED25519_BYTES: usize = 32;
/// What stands before the 32 key bytes in an `ssh-ed25519` blob (RFC 8709): the name and a length.
const SSH_ED25519_PREFIX: &[u8] = b"\0\0\0\x0bssh-ed25519\0\0\0\x20";

/// A P-256 private key. It cannot print.
pub struct P256Key {
    pair: EcdsaKeyPair,
    public: P256PublicKey,
    pkcs8: Secret<Vec<u8>>,
}

impl P256Key {
    /// A new key from the system's randomness.
    ///
    /// # Errors
    /// The crypto library failed.
    pub fn generate() -> Result<Self, Refusal> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .map_err(|_| Refusal::internal("a P-256 key could not be made"))?;
        let document = pair
            .to_pkcs8v1()
            .map_err(|_| Refusal::internal("a P-256 key could not be encoded"))?;
        Self::from_pkcs8(Secret::new(document.as_ref().to_vec()))
    }

    /// Reads a key in PKCS#8 DER.
    ///
    /// # Errors
    /// The bytes are not a P-256 key. They are not repeated in the refusal.
    pub fn from_pkcs8(pkcs8: Secret<Vec<u8>>) -> Result<Self, Refusal> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.expose())
            .map_err(|_| Refusal::malformed("private key").expected("a P-256 key in PKCS#8"))?;
        let public = P256PublicKey::from_point(pair.public_key().as_ref())?;
        Ok(Self {
            pair,
            public,
            pkcs8,
        })
    }

    /// The public half.
    pub const fn public(&self) -> &P256PublicKey {
        &self.public
    }

    /// The private key in PKCS#8 DER, as TLS libraries want it.
    pub const fn pkcs8(&self) -> &Secret<Vec<u8>> {
        &self.pkcs8
    }

    /// ECDSA over SHA-256 of `message`: r and s, 64 bytes (the form of JWS ES256, RFC 7518 §3.4).
    ///
    /// # Errors
    /// The crypto library failed.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Refusal> {
        self.pair
            .sign(&SystemRandom::new(), message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| Refusal::internal("a P-256 signature could not be made"))
    }
}

impl fmt::Debug for P256Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "P256Key({})", self.public.thumbprint)
    }
}

/// A P-256 public key, known to lie on the curve. As JSON it is a JWK of exactly `crv`, `kty`,
/// `x`, `y` (RFC 7518 §6.2); a JWK with more, a private part among it, is refused.
#[derive(Clone)]
pub struct P256PublicKey {
    point: [u8; POINT_BYTES],
    parsed: Arc<ParsedPublicKey>,
    thumbprint: Thumbprint,
}

impl P256PublicKey {
    /// Reads an uncompressed point (65 bytes, SEC 1).
    ///
    /// # Errors
    /// Another length or form, or not on the curve.
    pub fn from_point(bytes: &[u8]) -> Result<Self, Refusal> {
        let malformed = || {
            Refusal::malformed("public key").expected("an uncompressed point on the P-256 curve")
        };
        let point: [u8; POINT_BYTES] = bytes.try_into().map_err(|_| malformed())?;
        if point.first() != Some(&4) {
            return Err(malformed());
        }
        let parsed =
            ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(|_| malformed())?;
        let thumbprint = Thumbprint::of(&Jwk::of(&point))?;
        Ok(Self {
            point,
            parsed: Arc::new(parsed),
            thumbprint,
        })
    }

    /// The uncompressed point.
    pub const fn point(&self) -> &[u8; POINT_BYTES] {
        &self.point
    }

    /// The RFC 7638 thumbprint, by which tokens are bound to this key (`cnf.jkt`).
    pub const fn thumbprint(&self) -> &Thumbprint {
        &self.thumbprint
    }

    /// Whether `signature` (64 bytes, r and s) is this key's over `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }

    /// As [`Self::verifies`], for the ASN.1 form of signatures that certificates hold.
    pub(crate) fn verifies_asn1(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.point)
            .verify(message, signature)
            .is_ok()
    }
}

impl PartialEq for P256PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.point == other.point
    }
}

impl Eq for P256PublicKey {}

impl fmt::Debug for P256PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "P256PublicKey({})", self.thumbprint)
    }
}

impl Serialize for P256PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Jwk::of(&self.point).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for P256PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Jwk::deserialize(deserializer)?
            .read()
            .map_err(serde::de::Error::custom)
    }
}

/// The JWK members of an elliptic-curve public key, in the order of the RFC 7638 digest.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Jwk {
    crv: String,
    kty: String,
    x: String,
    y: String,
}

impl Jwk {
    fn of(point: &[u8; POINT_BYTES]) -> Self {
        let (x, y) = point.get(1..).unwrap_or_default().split_at(32);
        Self {
            crv: "P-256".to_owned(),
            kty: "EC".to_owned(),
            x: URL_SAFE_NO_PAD.encode(x),
            y: URL_SAFE_NO_PAD.encode(y),
        }
    }

    fn read(&self) -> Result<P256PublicKey, Refusal> {
        let coordinate = |text: &str| {
            URL_SAFE_NO_PAD
                .decode(text)
                .ok()
                .filter(|bytes| bytes.len() == 32)
        };
        match (coordinate(&self.x), coordinate(&self.y)) {
            (Some(x), Some(y)) if self.crv == "P-256" && self.kty == "EC" => {
                P256PublicKey::from_point(&[&[4], x.as_slice(), y.as_slice()].concat())
            }
            _ => Err(Refusal::malformed("public key")
                .expected("a JWK with kty EC, crv P-256, and x and y of 32 bytes each")
                .received(&format!("kty {}, crv {}", self.kty, self.crv))),
        }
    }
}

/// Length of a thumbprint in base64url.
const THUMBPRINT_CHARS: usize = 43;

/// SHA-256 of a public key's canonical JWK (RFC 7638), written as 43 characters of base64url.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thumbprint([u8; 32]);

impl Thumbprint {
    fn of(jwk: &Jwk) -> Result<Self, Refusal> {
        // The struct's fields stand in the order that RFC 7638 wants, and serde_json adds no
        // white space.
        let bytes = serde_json::to_vec(jwk)
            .map_err(|error| Refusal::internal(format!("a JWK does not serialise: {error}")))?;
        Ok(Self(*Digest::of(&bytes).as_bytes()))
    }

    /// The 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `text` is this thumbprint, written.
    pub fn is(&self, text: &str) -> bool {
        let mut written = [0; THUMBPRINT_CHARS];
        matches!(
            URL_SAFE_NO_PAD.encode_slice(self.0, &mut written),
            Ok(THUMBPRINT_CHARS)
        ) && text.as_bytes() == written
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Thumbprint {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        read_32("key thumbprint", text).map(Self)
    }
}

/// Reads 32 bytes in base64url; `what` names them in the refusal.
pub(crate) fn read_32(what: &str, text: &str) -> Result<[u8; 32], Refusal> {
    URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| {
            Refusal::malformed(what)
                .expected("43 characters of base64url without padding")
                .received(text)
        })
}

impl Serialize for Thumbprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Thumbprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// An Ed25519 private key. It cannot print.
pub struct Ed25519Key {
    pair: Ed25519KeyPair,
    seed: Secret<[u8; ED25519_BYTES]>,
    public: [u8; ED25519_BYTES],
}

impl Ed25519Key {
    /// A new key from the system's randomness.
    ///
    /// # Errors
    /// The crypto library failed.
    pub fn generate() -> Result<Self, Refusal> {
        Self::from_seed(Secret::new(random()?))
    }

    /// The key of a 32-byte seed (RFC 8032 §5.1.5).
    ///
    /// # Errors
    /// The crypto library failed.
    pub fn from_seed(seed: Secret<[u8; ED25519_BYTES]>) -> Result<Self, Refusal> {
        let broken = || Refusal::internal("an Ed25519 key could not be made from its seed");
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| broken())?;
        let public = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| broken())?;
        Ok(Self { pair, seed, public })
    }

    /// The seed itself, for formats that carry their own key encoding.
    pub const fn seed(&self) -> &Secret<[u8; ED25519_BYTES]> {
        &self.seed
    }

    /// The 32 public bytes.
    pub const fn public_bytes(&self) -> &[u8; ED25519_BYTES] {
        &self.public
    }

    /// The public key as an `ssh-ed25519` line, the form in which keys are enrolled.
    ///
    /// # Errors
    /// The line does not read back as a key.
    pub fn public(&self) -> Result<PublicKey, Refusal> {
        let blob = [SSH_ED25519_PREFIX, &self.public].concat();
        format!("ssh-ed25519 {}", STANDARD.encode(blob)).parse()
    }

    /// The 64-byte signature over `message` (RFC 8032, pure Ed25519).
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for Ed25519Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ed25519Key(public {})", STANDARD.encode(self.public))
    }
}

/// The 32 raw bytes of an enrolled `ssh-ed25519` key; `None` for any other kind of key.
pub fn ed25519_bytes(key: &PublicKey) -> Option<[u8; ED25519_BYTES]> {
    let encoded = key.as_str().strip_prefix("ssh-ed25519 ")?;
    let blob = STANDARD.decode(encoded).ok()?;
    blob.strip_prefix(SSH_ED25519_PREFIX)?.try_into().ok()
}

/// Whether `signature` is `key`'s over `message`. A key of another kind verifies nothing.
pub fn ed25519_verifies(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    ed25519_bytes(key).is_some_and(|bytes| {
        UnparsedPublicKey::new(&ED25519, bytes)
            .verify(message, signature)
            .is_ok()
    })
}

/// `N` bytes of the system's randomness.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Refusal::unavailable("no-randomness", "the system gave no randomness"))?;
    Ok(bytes)
}

/// 128 random bits as 22 characters of base64url: a nonce or an identifier nobody can guess.
pub(crate) fn random_text() -> Result<String, Refusal> {
    Ok(URL_SAFE_NO_PAD.encode(random::<16>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The P-256 key of RFC 9449's examples, whose thumbprint the RFC prints.
    const RFC9449_JWK: &str = r#"{"kty":"EC","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
        "y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA","crv":"P-256"}"#;

    #[test]
    fn the_thumbprint_is_that_of_the_rfc() {
        let key: P256PublicKey = serde_json::from_str(RFC9449_JWK).unwrap();
        assert_eq!(
            key.thumbprint().to_string(),
            "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
        );
    }

    #[test]
    fn a_key_with_a_private_part_or_off_the_curve_is_refused() {
        let with = |from: &str, to: &str| {
            serde_json::from_str::<P256PublicKey>(&RFC9449_JWK.replace(from, to))
        };
        assert!(with("\"EC\"", "\"EC\",\"d\":\"AAAA\"").is_err());
        assert!(with("P-256", "P-384").is_err());
        assert!(with("l8tFrhx", "m8tFrhx").is_err());
        assert!(with("\"EC\"", "\"RSA\"").is_err());
        assert!(P256PublicKey::from_point(&[]).is_err());
    }

    #[test]
    fn signatures_hold_for_one_key_and_one_message() {
        let (key, other) = (P256Key::generate().unwrap(), P256Key::generate().unwrap());
        let signature = key.sign(b"message").unwrap();
        assert!(key.public().verifies(b"message", &signature));
        assert!(!key.public().verifies(b"massage", &signature));
        assert!(!other.public().verifies(b"message", &signature));

        let (key, other) = (
            Ed25519Key::generate().unwrap(),
            Ed25519Key::generate().unwrap(),
        );
        let signature = key.sign(b"message");
        assert!(ed25519_verifies(
            &key.public().unwrap(),
            b"message",
            &signature
        ));
        assert!(!ed25519_verifies(
            &key.public().unwrap(),
            b"massage",
            &signature
        ));
        assert!(!ed25519_verifies(
            &other.public().unwrap(),
            b"message",
            &signature
        ));
    }

    #[test]
    fn private_keys_do_not_print() {
        let key = Ed25519Key::from_seed(Secret::new([0x5a; 32])).unwrap();
        assert!(!format!("{key:?}").contains(&STANDARD.encode([0x5a; 32])));
        let key = P256Key::generate().unwrap();
        let shown = format!("{key:?}");
        assert!(shown.len() < 64, "{shown}");
    }
}
