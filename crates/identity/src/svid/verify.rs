//! Verifying X.509-SVIDs (X.509-SVID standard §5): the chain, the times, and exactly one id.

use portcullis_model::digest::encode_hex;
use portcullis_model::{Refusal, Timestamp};
use x509_parser::asn1_rs::{BitString, Oid};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256,
};
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo, X509Version};

use super::CERTIFICATE_MAX_BYTES;
use crate::key::P256PublicKey;
use crate::spiffe::{SpiffeId, TrustDomain};

/// Most authorities of one trust domain at a time: the present one and those rotating out.
pub const BUNDLE_MAX_AUTHORITIES: usize = 4;

/// The authorities that one trust domain is verified against.
#[derive(Clone, Debug)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    authorities: Vec<Parsed>,
}

/// Who holds a verified certificate's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedSvid {
    /// Who.
    pub id: SpiffeId,
    /// The key that the channel proved.
    pub key: P256PublicKey,
    /// The serial number in lowercase hex.
    pub serial: String,
    /// From when on it is void.
    pub expires: Timestamp,
}

impl TrustBundle {
    /// A bundle of the authorities in `certificates`, each one PEM block.
    ///
    /// # Errors
    /// None, more than [`BUNDLE_MAX_AUTHORITIES`], or one that is not an authority of this trust
    /// domain at `now`.
    pub fn new(
        trust_domain: TrustDomain,
        certificates: &[&str],
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        if certificates.is_empty() || certificates.len() > BUNDLE_MAX_AUTHORITIES {
            return Err(Refusal::limit(
                "trust-bundle-size",
                "a trust bundle holds 1 to 4 authorities",
            ));
        }
        let mut authorities = Vec::new();
        for certificate in certificates {
            let authority = read_authority(certificate)?;
            check_authority(&authority, &trust_domain, now)?;
            authorities.push(authority);
        }
        Ok(Self {
            trust_domain,
            authorities,
        })
    }

    /// Who `der` was issued to, if it holds at `now`. That the peer has the private half is for
    /// the channel to prove.
    ///
    /// # Errors
    /// Not a certificate of the form we issue (`malformed-svid`); not signed by an authority of
    /// the bundle (`svid-issuer`); outside its time (`svid-expired`, `svid-early`); of another
    /// trust domain (`svid-trust-domain`); allowed to sign, or not for both ends of a channel
    /// (`svid-usage`).
    pub fn verify(&self, der: &[u8], now: Timestamp) -> Result<VerifiedSvid, Refusal> {
        let leaf = Parsed::read(der)?;
        // An authority that has expired since the bundle was made signs nothing any more.
        let signer = self.authorities.iter().find(|authority| {
            authority.subject == leaf.issuer
                && authority.expires > now
                && authority.key.verifies_asn1(&leaf.signed, &leaf.signature)
        });
        if signer.is_none() {
            return Err(Refusal::denied(
                "svid-issuer",
                "this certificate was not issued by an authority of the trust domain",
            )
            .expected(self.trust_domain.as_str()));
        }
        if leaf.id.trust_domain() != &self.trust_domain {
            return Err(Refusal::denied(
                "svid-trust-domain",
                "this certificate is of another trust domain",
            )
            .expected(self.trust_domain.as_str())
            .received(&leaf.id.to_string()));
        }
        check_time(&leaf, now)?;
        let usage = leaf.usage;
        let both_ends = usage.client_auth && usage.server_auth;
        if usage.authority || usage.signs_certificates || !usage.signs_messages || !both_ends {
            return Err(Refusal::denied(
                "svid-usage",
                "this certificate is not one for the two ends of a channel",
            )
            .expected("CA:FALSE, digitalSignature, clientAuth and serverAuth"));
        }
        if leaf.id.path().is_empty() {
            return Err(malformed("an id with a path"));
        }
        Ok(VerifiedSvid {
            id: leaf.id,
            key: leaf.key,
            serial: leaf.serial,
            expires: leaf.expires,
        })
    }
}

/// What we need of a certificate, its signature not yet verified.
#[derive(Clone, Debug)]
pub(super) struct Parsed {
    pub(super) der: Vec<u8>,
    pub(super) serial: String,
    pub(super) id: SpiffeId,
    pub(super) key: P256PublicKey,
    pub(super) expires: Timestamp,
    begins: Timestamp,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    signed: Vec<u8>,
    signature: Vec<u8>,
    usage: Usage,
}

#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    authority: bool,
    signs_certificates: bool,
    signs_messages: bool,
    client_auth: bool,
    server_auth: bool,
}

/// Reads one PEM block with an authority's certificate.
pub(super) fn read_authority(text: &str) -> Result<Parsed, Refusal> {
    let block = Some(text.trim())
        .filter(|text| text.len() <= 2 * CERTIFICATE_MAX_BYTES && text.starts_with("-----BEGIN "))
        .filter(|text| text.matches("-----BEGIN ").count() == 1)
        .and_then(|text| pem::parse(text).ok())
        .filter(|block| block.tag() == "CERTIFICATE")
        .ok_or_else(|| malformed("one PEM block `CERTIFICATE`"))?;
    Parsed::read(block.contents())
}

/// Whether `parsed` is a self-signed authority of `trust_domain` at `now`.
pub(super) fn check_authority(
    parsed: &Parsed,
    trust_domain: &TrustDomain,
    now: Timestamp,
) -> Result<(), Refusal> {
    if parsed.id != trust_domain.id() {
        return Err(Refusal::denied(
            "authority-trust-domain",
            "this authority's certificate is of another trust domain",
        )
        .expected(&trust_domain.id().to_string())
        .received(&parsed.id.to_string()));
    }
    let self_signed = parsed.subject == parsed.issuer
        && parsed.key.verifies_asn1(&parsed.signed, &parsed.signature);
    if !(self_signed && parsed.usage.authority && parsed.usage.signs_certificates) {
        return Err(Refusal::denied(
            "authority-usage",
            "this is not a self-signed authority's certificate",
        )
        .expected("CA:TRUE, keyCertSign, signed by its own key"));
    }
    check_time(parsed, now)
}

fn check_time(parsed: &Parsed, now: Timestamp) -> Result<(), Refusal> {
    if now >= parsed.expires {
        return Err(
            Refusal::denied("svid-expired", "this certificate has expired")
                .received(&parsed.expires.to_string())
                .next("ask for a new one"),
        );
    }
    if now < parsed.begins {
        return Err(
            Refusal::denied("svid-early", "this certificate is not valid yet")
                .received(&parsed.begins.to_string())
                .next("set the clocks of both machines by NTP"),
        );
    }
    Ok(())
}

impl Parsed {
    pub(super) fn read(der: &[u8]) -> Result<Self, Refusal> {
        if der.len() > CERTIFICATE_MAX_BYTES {
            return Err(malformed("at most 8192 bytes"));
        }
        let (rest, certificate) = x509_parser::parse_x509_certificate(der)
            .map_err(|error| malformed("a certificate in DER").received(&error.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("nothing after the certificate"));
        }
        if certificate.version() != X509Version::V3 {
            return Err(malformed("X.509 version 3"));
        }
        check_spelling(der, &certificate)?;
        check_algorithm(&certificate.tbs_certificate.signature)?;
        let (id, usage) = read_extensions(&certificate)?;
        Ok(Self {
            der: der.to_vec(),
            serial: encode_hex(certificate.raw_serial()),
            id,
            key: read_key(certificate.public_key())?,
            begins: time(certificate.validity().not_before.timestamp())?,
            expires: time(certificate.validity().not_after.timestamp())?,
            subject: certificate.subject().as_raw().to_vec(),
            issuer: certificate.issuer().as_raw().to_vec(),
            signed: certificate.tbs_certificate.as_ref().to_vec(),
            signature: whole_bytes(&certificate.signature_value)?,
            usage,
        })
    }
}

/// The parser reads more spellings of the parts outside the signed one than DER has; this holds
/// the input against the only one: SEQUENCE { signed part, ecdsa-with-SHA256, signature }.
fn check_spelling(der: &[u8], certificate: &X509Certificate<'_>) -> Result<(), Refusal> {
    const ECDSA_WITH_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
    let signature = whole_bytes(&certificate.signature_value)?;
    let short = || malformed("a signature of at most 72 bytes");
    let signature_length = u8::try_from(signature.len() + 1).map_err(|_| short())?;
    if signature_length > 0x7f {
        return Err(short());
    }
    let content = [
        certificate.tbs_certificate.as_ref(),
        ECDSA_WITH_SHA256,
        &[0x03, signature_length, 0x00],
        &signature,
    ]
    .concat();
    let [high, low] = u16::try_from(content.len())
        .map_err(|_| malformed("at most 8192 bytes"))?
        .to_be_bytes();
    let head: &[u8] = match (high, low) {
        (0, 0..=0x7f) => &[0x30, low],
        (0, _) => &[0x30, 0x81, low],
        _ => &[0x30, 0x82, high, low],
    };
    if der.strip_prefix(head) == Some(content.as_slice()) {
        Ok(())
    } else {
        Err(malformed(
            "a certificate in DER, signed by ecdsa-with-SHA256",
        ))
    }
}

fn check_algorithm(algorithm: &AlgorithmIdentifier<'_>) -> Result<(), Refusal> {
    if algorithm.algorithm == OID_SIG_ECDSA_WITH_SHA256 && algorithm.parameters.is_none() {
        Ok(())
    } else {
        Err(malformed("a signature by ecdsa-with-SHA256")
            .received(&algorithm.algorithm.to_id_string()))
    }
}

fn read_key(info: &SubjectPublicKeyInfo<'_>) -> Result<P256PublicKey, Refusal> {
    let curve = info
        .algorithm
        .parameters
        .as_ref()
        .and_then(|any| Oid::try_from(any.clone()).ok());
    if info.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
        return Err(malformed("a P-256 public key"));
    }
    P256PublicKey::from_point(&whole_bytes(&info.subject_public_key)?)
}

fn whole_bytes(bits: &BitString<'_>) -> Result<Vec<u8>, Refusal> {
    if bits.unused_bits == 0 {
        Ok(bits.data.to_vec())
    } else {
        Err(malformed("bit strings of whole bytes"))
    }
}

/// The one id, and what the key may be used for. A critical extension that is not among those we
/// issue is refused, and so is one that stands twice.
fn read_extensions(certificate: &X509Certificate<'_>) -> Result<(SpiffeId, Usage), Refusal> {
    certificate
        .extensions_map()
        .map_err(|_| malformed("each extension once"))?;
    let mut usage = Usage::default();
    let mut id = None;
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                id = Some(read_id(&names.general_names)?);
            }
            ParsedExtension::BasicConstraints(constraints) => usage.authority = constraints.ca,
            ParsedExtension::KeyUsage(bits) => {
                usage.signs_messages = bits.digital_signature();
                usage.signs_certificates = bits.key_cert_sign() || bits.crl_sign();
            }
            ParsedExtension::ExtendedKeyUsage(purposes) => {
                usage.client_auth = purposes.client_auth;
                usage.server_auth = purposes.server_auth;
            }
            _ if extension.critical => {
                return Err(malformed("no critical extension that we do not know")
                    .received(&extension.oid.to_id_string()));
            }
            _ => {}
        }
    }
    id.map(|id| (id, usage))
        .ok_or_else(|| malformed("a subject alternative name with a SPIFFE id"))
}

fn read_id(names: &[GeneralName<'_>]) -> Result<SpiffeId, Refusal> {
    match names {
        [GeneralName::URI(uri)] => uri.parse(),
        _ => Err(malformed("exactly one URI as subject alternative name")
            .received(&format!("{} names", names.len()))),
    }
}

fn time(seconds: i64) -> Result<Timestamp, Refusal> {
    u64::try_from(seconds)
        .map(|seconds| Timestamp::from_ms(seconds.saturating_mul(1_000)))
        .map_err(|_| malformed("times after 1970"))
}

fn malformed(expected: &str) -> Refusal {
    Refusal::malformed("svid").expected(expected)
}
