//! A run's own certificate authority: TLS from inside ends in the launcher, so that requests can
//! be read and decided on. Its keys never leave this process, and nothing outside of the run's
//! sandbox trusts it.
//!
//! There are two issuers. The *named* one is constrained (RFC 5280, 4.2.1.10) to the hosts that
//! the task names, and no others can be had from it. The other one is constrained to everything
//! else; what it is for is to say no in words: a program that asks a host outside of its task gets
//! an answer with the rule and the way forward instead of a broken handshake.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_model::Refusal;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// How long before now certificates begin: clocks inside are the host's, so only for rounding.
const BACKDATE: Duration = Duration::from_secs(60);
/// How long after the run's deadline they end, so that none ends within a last request.
const AFTERWARDS: Duration = Duration::from_secs(3_600);
/// Most hosts whose certificates are kept; beyond, they are made anew.
const KEPT_MAX_HOSTS: usize = 1_024;

/// The authority of one run.
pub struct Authority {
    named: Certifier,
    rest: Certifier,
    hosts: BTreeSet<String>,
    leaf: Leaf,
    kept: Mutex<HashMap<String, Arc<ServerConfig>>>,
}

struct Certifier {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// One key for all hosts: whoever could read one could read each.
struct Leaf {
    key: KeyPair,
    begins: Duration,
    ends: Duration,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// An authority for a run that lasts `life` at most. `hosts`: what its task names, normalised,
    /// without ports.
    ///
    /// # Errors
    /// `internal`: no randomness, or a name that can't stand in a certificate.
    pub fn new(hosts: BTreeSet<String>, life: Duration) -> Result<Self, Refusal> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let leaf = Leaf {
            key: KeyPair::generate().map_err(failed)?,
            begins: now.saturating_sub(BACKDATE),
            ends: now + life + AFTERWARDS,
        };
        let subtrees: Vec<GeneralSubtree> = hosts.iter().map(|host| subtree(host)).collect();
        let mut permitted = subtrees.clone();
        let mut excluded = Vec::new();
        if !hosts.iter().any(|host| host.parse::<IpAddr>().is_err()) {
            // A name that is nobody's (RFC 6761), as without any the constraint would be none.
            permitted.push(GeneralSubtree::DnsName("invalid".to_owned()));
        }
        if !hosts.iter().any(|host| host.parse::<IpAddr>().is_ok()) {
            excluded.push(GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix(
                [0; 4], 0,
            )));
            excluded.push(GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(
                [0; 16], 0,
            )));
        }
        let named = Certifier::new("hosts of the task", &leaf, permitted, excluded)?;
        let rest = Certifier::new("refusals", &leaf, Vec::new(), subtrees)?;
        Ok(Self {
            named,
            rest,
            hosts,
            leaf,
            kept: Mutex::new(HashMap::new()),
        })
    }

    /// Both certificates, for what runs inside to trust.
    pub fn bundle(&self) -> String {
        format!("{}{}", self.named.pem, self.rest.pem)
    }

    /// What a TLS server for `host`, normalised, presents. HTTP/2 and HTTP/1.1 are spoken.
    pub(super) fn server(&self, host: &str) -> Result<Arc<ServerConfig>, Refusal> {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = lock().get(host) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.certify(host)?);
        let mut kept = lock();
        if kept.len() >= KEPT_MAX_HOSTS {
            kept.clear();
        }
        kept.insert(host.to_owned(), Arc::clone(&config));
        Ok(config)
    }

    fn certify(&self, host: &str) -> Result<ServerConfig, Refusal> {
        let mut params = self.leaf.params(host);
        let name = match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.try_into().map_err(failed)?),
        };
        params.subject_alt_names = vec![name];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let by = if self.hosts.iter().any(|named| covers(named, host)) {
            &self.named
        } else {
            &self.rest
        };
        let certificate = params
            .signed_by(&self.leaf.key, &by.issuer)
            .map_err(failed)?;
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.leaf.key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| Refusal::internal(format!("TLS for {host}: {error}")))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl Certifier {
    fn new(
        name: &str,
        leaf: &Leaf,
        permitted: Vec<GeneralSubtree>,
        excluded: Vec<GeneralSubtree>,
    ) -> Result<Self, Refusal> {
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = leaf.params(&format!("this run's authority: {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        if !permitted.is_empty() || !excluded.is_empty() {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: permitted,
                excluded_subtrees: excluded,
            });
        }
        let pem = params.self_signed(&key).map_err(failed)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
        })
    }
}

impl Leaf {
    fn params(&self, name: &str) -> CertificateParams {
        // The longest common name (RFC 5280, upper bounds).
        const NAME_MAX_CHARS: usize = 64;
        let mut params = CertificateParams::default();
        // The library's own type of time is reached by adding to its one constructor.
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + self.begins;
        params.not_after = epoch + self.ends;
        params.distinguished_name = DistinguishedName::new();
        let name: String = name.chars().take(NAME_MAX_CHARS).collect();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Portcullis");
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }
}

/// A named host stands for what is below it, as the constraint on the certificate does.
fn covers(named: &str, host: &str) -> bool {
    host == named
        || host
            .strip_suffix(named)
            .is_some_and(|rest| rest.ends_with('.') && named.parse::<IpAddr>().is_err())
}

fn subtree(host: &str) -> GeneralSubtree {
    match host.parse::<IpAddr>() {
        Ok(address) => {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, bits))
        }
        Err(_) => GeneralSubtree::DnsName(host.to_owned()),
    }
}

fn failed(error: rcgen::Error) -> Refusal {
    Refusal::internal(format!("a certificate could not be made: {error}"))
}

#[cfg(test)]
mod tests {
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    fn authority(hosts: &[&str]) -> Authority {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Authority::new(hosts, Duration::from_secs(60)).expect("authority")
    }

    /// Whether the certificate for `host` by `certifier` holds under the whole bundle.
    fn holds(authority: &Authority, certifier: &Certifier, host: &str) -> bool {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.bundle().as_bytes()) {
            roots.add(certificate.expect("PEM")).expect("root");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .expect("verifier");
        let mut params = authority.leaf.params(host);
        params.subject_alt_names = vec![match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.try_into().expect("name")),
        }];
        let leaf = params
            .signed_by(&authority.leaf.key, &certifier.issuer)
            .expect("signs");
        let name = ServerName::try_from(host.to_owned()).expect("name");
        verifier
            .verify_server_cert(leaf.der(), &[], &name, &[], UnixTime::now())
            .is_ok()
    }

    #[test]
    fn each_issuer_vouches_for_its_own_hosts_alone() {
        let ours = authority(&["crates.example", "10.0.0.7"]);
        for (host, named, rest) in [
            ("crates.example", true, false),
            ("static.crates.example", true, false),
            ("notcrates.example", false, true),
            ("example", false, true),
            ("10.0.0.7", true, false),
            ("10.0.0.8", false, true),
        ] {
            assert_eq!(holds(&ours, &ours.named, host), named, "named for {host}");
            assert_eq!(holds(&ours, &ours.rest, host), rest, "rest for {host}");
            ours.server(host).expect("a certificate for any host");
        }
        let nobody = authority(&[]);
        assert!(!holds(&nobody, &nobody.named, "a.example"));
        assert!(!holds(&nobody, &nobody.named, "1.2.3.4"));
        assert!(holds(&nobody, &nobody.rest, "a.example"));
        // Another run's authority is nobody here.
        assert!(!holds(
            &ours,
            &authority(&["crates.example"]).named,
            "crates.example"
        ));
    }

    #[test]
    fn what_it_prints_holds_no_key() {
        let shown = format!(
            "{:?} {}",
            authority(&["a.example"]),
            authority(&[]).bundle()
        );
        assert!(!shown.contains("PRIVATE"), "{shown}");
        assert_eq!(
            authority(&[]).bundle().matches("BEGIN CERTIFICATE").count(),
            2
        );
    }
}
