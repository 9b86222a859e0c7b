//! X.509-SVIDs (SPIFFE X.509-SVID standard): the trust domain's authority, and the short-lived
//! certificates that it issues for keys others hold.
//!
//! One authority, self-signed, signs leaves directly (path length 0). It carries no name
//! constraint: TLS libraries that do not implement those for URIs refuse the whole chain, and
//! every verifier of SVIDs holds the id against the trust domain of the authority anyway
//! ([`TrustBundle`]).

use portcullis_model::digest::encode_hex;
use portcullis_model::{Refusal, Secret, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm,
};

use crate::key::{P256Key, P256PublicKey, random};
use crate::spiffe::{SpiffeId, TrustDomain};

mod verify;

pub use verify::{BUNDLE_MAX_AUTHORITIES, TrustBundle, VerifiedSvid};

/// Longest life of an SVID in milliseconds (1 h): it cannot be taken back, so it must end soon.
pub const SVID_MAX_LIFE_MS: u64 = 3_600 * 1_000;
/// How far back an SVID's beginning is dated, in milliseconds, for verifiers whose clock is late.
pub const SVID_BACKDATE_MS: u64 = 10_000;
/// Longest life of an authority in milliseconds (5 years).
pub const AUTHORITY_MAX_LIFE_MS: u64 = 5 * 366 * 24 * 3_600 * 1_000;
/// Largest certificate in bytes that is read: ours have about 600.
pub const CERTIFICATE_MAX_BYTES: usize = 8 * 1024;
/// Longest common name in characters (RFC 5280, ub-common-name).
const COMMON_NAME_MAX: usize = 64;

/// Signs the certificates of one trust domain.
pub struct Authority {
    trust_domain: TrustDomain,
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

/// A certificate. It is public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// DER.
    pub der: Vec<u8>,
    /// The serial number in lowercase hex.
    pub serial: String,
    /// From when on it is void.
    pub expires: Timestamp,
}

impl Certificate {
    /// The certificate in PEM.
    pub fn pem(&self) -> String {
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        pem::encode_config(&pem::Pem::new("CERTIFICATE", self.der.as_slice()), config)
    }
}

impl Authority {
    /// Makes the authority of a new trust domain: a self-signed certificate for `key`.
    ///
    /// # Errors
    /// The life is not within [`AUTHORITY_MAX_LIFE_MS`], or the crypto library failed.
    pub fn create(
        trust_domain: TrustDomain,
        key: &P256Key,
        life_ms: u64,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        check_life("authority", life_ms, AUTHORITY_MAX_LIFE_MS)?;
        let pair = key_pair(key)?;
        let expires = now.plus_ms(life_ms);
        let (mut params, serial) =
            params(&trust_domain.id(), "Portcullis authority", expires, now)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&pair).map_err(|error| failed(&error))?;
        Ok(Self {
            trust_domain,
            certificate: Certificate {
                der: certificate.der().to_vec(),
                serial,
                expires,
            },
            issuer: Issuer::new(params, pair),
        })
    }

    /// The authority of a trust domain that stands: its key and its certificate in PEM.
    ///
    /// # Errors
    /// The certificate is not an authority's of this trust domain, or is for another key
    /// (`authority-key`), or has expired.
    pub fn open(
        trust_domain: TrustDomain,
        key: &P256Key,
        certificate: &str,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let found = verify::read_authority(certificate)?;
        verify::check_authority(&found, &trust_domain, now)?;
        if found.key != *key.public() {
            return Err(Refusal::denied(
                "authority-key",
                "the authority's certificate is for another key",
            )
            .expected(&key.public().thumbprint().to_string())
            .received(&found.key.thumbprint().to_string())
            .next("restore the key and the certificate from the same backup"));
        }
        let issuer = Issuer::from_ca_cert_der(&found.der.as_slice().into(), key_pair(key)?)
            .map_err(|error| failed(&error))?;
        Ok(Self {
            trust_domain,
            issuer,
            certificate: Certificate {
                der: found.der,
                serial: found.serial,
                expires: found.expires,
            },
        })
    }

    /// Its own certificate: what verifiers pin.
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its trust domain.
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Issues an SVID that says: who holds the private half of `key` is `id`. The caller has seen
    /// the proof that the asker holds it ([`crate::dpop::verify_possession`]).
    ///
    /// # Errors
    /// The id is of another trust domain or has no path; the life is not within
    /// [`SVID_MAX_LIFE_MS`], or goes past the authority's own.
    pub fn issue(
        &self,
        id: &SpiffeId,
        key: &P256PublicKey,
        life_ms: u64,
        now: Timestamp,
    ) -> Result<Certificate, Refusal> {
        if id.trust_domain() != &self.trust_domain || id.path().is_empty() {
            return Err(Refusal::denied(
                "svid-id",
                "this authority issues no certificate for that id",
            )
            .expected(&format!("spiffe://{}/<path>", self.trust_domain))
            .received(&id.to_string()));
        }
        check_life("svid", life_ms, SVID_MAX_LIFE_MS)?;
        let expires = now.plus_ms(life_ms);
        if expires > self.certificate.expires {
            return Err(Refusal::unavailable(
                "authority-expiring",
                "the certificate would outlive the authority that signs it",
            )
            .expected(&format!("an end before {}", self.certificate.expires))
            .received(&expires.to_string())
            .next("replace the trust domain's authority"));
        }
        let name = id.path().rsplit('/').next().unwrap_or_default();
        let (mut params, serial) = params(id, name, expires, now)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(&Subject(key), &self.issuer)
            .map_err(|error| failed(&error))?;
        Ok(Certificate {
            der: certificate.der().to_vec(),
            serial,
            expires,
        })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.trust_domain)
    }
}

/// A key that we know the public half of only.
struct Subject<'a>(&'a P256PublicKey);

impl PublicKeyData for Subject<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.point()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// What all our certificates have in common, and the serial number in hex.
fn params(
    id: &SpiffeId,
    name: &str,
    expires: Timestamp,
    now: Timestamp,
) -> Result<(CertificateParams, String), Refusal> {
    let mut serial: [u8; 16] = random()?;
    if let Some(first) = serial.first_mut() {
        // Positive and of full length in DER, so that it has one spelling (RFC 5280 §4.1.2.2).
        *first = (*first & 0x7f) | 0x40;
    }
    let uri = id
        .to_string()
        .try_into()
        .map_err(|error: rcgen::Error| failed(&error))?;
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.subject_alt_names = vec![SanType::URI(uri)];
    // The library's own type of time is reached by adding to its one constructor.
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let seconds = |ms: u64| std::time::Duration::from_secs(ms / 1_000);
    params.not_before = epoch + seconds(now.as_ms().saturating_sub(SVID_BACKDATE_MS));
    params.not_after = epoch + seconds(expires.as_ms());
    params.distinguished_name = DistinguishedName::new();
    let name: String = name.chars().take(COMMON_NAME_MAX).collect();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Portcullis");
    params.distinguished_name.push(DnType::CommonName, name);
    Ok((params, encode_hex(&serial)))
}

fn key_pair(key: &P256Key) -> Result<KeyPair, Refusal> {
    let pkcs8: &Secret<Vec<u8>> = key.pkcs8();
    KeyPair::from_pkcs8_der_and_sign_algo(
        &pkcs8.expose().as_slice().into(),
        &PKCS_ECDSA_P256_SHA256,
    )
    .map_err(|_| Refusal::internal("the authority's key was not accepted by the X.509 library"))
}

fn check_life(what: &str, life_ms: u64, max_ms: u64) -> Result<(), Refusal> {
    if (1_000..=max_ms).contains(&life_ms) {
        return Ok(());
    }
    Err(Refusal::limit(
        &format!("{what}-life"),
        "this certificate's life is out of bounds",
    )
    .expected(&format!("1000 to {max_ms} ms"))
    .received(&format!("{life_ms} ms")))
}

fn failed(error: &rcgen::Error) -> Refusal {
    Refusal::internal(format!("a certificate could not be made: {error}"))
}

#[cfg(test)]
mod tests;
