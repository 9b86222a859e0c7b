use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis_model::RunId;
use rcgen::{CustomExtension, SanType};

use super::*;

const NOW: Timestamp = Timestamp::from_ms(1_795_250_000_000);
const HOUR_MS: u64 = 3_600_000;
const YEAR_MS: u64 = 365 * 24 * HOUR_MS;

struct House {
    domain: TrustDomain,
    key: P256Key,
    authority: Authority,
    bundle: TrustBundle,
    run: SpiffeId,
    holder: P256Key,
}

fn house_of(domain: &str) -> House {
    let domain: TrustDomain = domain.parse().unwrap();
    let key = P256Key::generate().unwrap();
    let authority = Authority::create(domain.clone(), &key, YEAR_MS, NOW).unwrap();
    let pem = authority.certificate().pem();
    House {
        bundle: TrustBundle::new(domain.clone(), &[&pem], NOW).unwrap(),
        run: SpiffeId::run(&domain, &"fix-bot".parse().unwrap(), RunId(42)),
        holder: P256Key::generate().unwrap(),
        domain,
        key,
        authority,
    }
}

fn house() -> House {
    house_of("ship.example")
}

impl House {
    fn issue(&self) -> Certificate {
        self.authority
            .issue(&self.run, self.holder.public(), HOUR_MS, NOW)
            .unwrap()
    }

    fn code(&self, der: &[u8], now: Timestamp) -> String {
        code(self.bundle.verify(der, now))
    }

    /// The code for a certificate that the authority signed, with one thing changed.
    fn signed_with(&self, change: impl Fn(&mut CertificateParams)) -> String {
        let (mut params, _) = params(&self.run, "run-42", NOW.plus_ms(HOUR_MS), NOW).unwrap();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        change(&mut params);
        let signed = params.signed_by(&Subject(self.holder.public()), &self.authority.issuer);
        self.code(signed.unwrap().der(), NOW)
    }
}

fn code<T>(result: Result<T, Refusal>) -> String {
    result.map_or_else(|refusal| refusal.code, |_| "ok".to_owned())
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.to_owned().try_into().unwrap())
}

#[test]
fn an_svid_says_who_holds_the_key_until_it_expires() {
    let house = house();
    let svid = house.issue();
    let verified = house.bundle.verify(&svid.der, NOW).unwrap();
    assert_eq!(verified.id, house.run);
    assert_eq!(verified.key, *house.holder.public());
    assert_eq!(
        (verified.serial, verified.expires),
        (svid.serial.clone(), svid.expires)
    );
    assert_ne!(svid.serial, house.issue().serial);
    assert_eq!(house.code(&svid.der, NOW.plus_ms(HOUR_MS - 1)), "ok");
    assert_eq!(house.code(&svid.der, NOW.plus_ms(HOUR_MS)), "svid-expired");
    let before = |ms| Timestamp::from_ms(NOW.as_ms() - ms);
    assert_eq!(house.code(&svid.der, before(SVID_BACKDATE_MS)), "ok");
    assert_eq!(
        house.code(&svid.der, before(SVID_BACKDATE_MS + 1)),
        "svid-early"
    );
    assert_eq!(
        house.code(&svid.der, NOW.plus_ms(2 * YEAR_MS)),
        "svid-issuer"
    );
}

#[test]
fn the_same_authority_is_opened_again() {
    let house = house();
    let pem = house.authority.certificate().pem();
    let again = Authority::open(house.domain.clone(), &house.key, &pem, NOW).unwrap();
    assert_eq!(again.certificate(), house.authority.certificate());
    let svid = again
        .issue(&house.run, house.holder.public(), HOUR_MS, NOW)
        .unwrap();
    assert_eq!(house.code(&svid.der, NOW), "ok");

    let open = |domain: &str, key: &P256Key, pem: &str, now| {
        code(Authority::open(domain.parse().unwrap(), key, pem, now))
    };
    let other = P256Key::generate().unwrap();
    assert_eq!(open("ship.example", &other, &pem, NOW), "authority-key");
    assert_eq!(
        open("other.example", &house.key, &pem, NOW),
        "authority-trust-domain"
    );
    assert_eq!(
        open("ship.example", &house.key, &pem, NOW.plus_ms(2 * YEAR_MS)),
        "svid-expired"
    );
    assert_eq!(
        open("ship.example", &house.key, &house.issue().pem(), NOW),
        "authority-trust-domain"
    );
    assert_eq!(
        open("ship.example", &house.key, &format!("{pem}{pem}"), NOW),
        "malformed-svid"
    );
    assert_eq!(open("ship.example", &house.key, "", NOW), "malformed-svid");
}

#[test]
fn the_authority_issues_for_its_own_domain_and_not_for_long() {
    let house = house();
    let issue = |id: &str, life_ms, now| {
        code(
            house
                .authority
                .issue(&id.parse().unwrap(), house.holder.public(), life_ms, now),
        )
    };
    let run = house.run.to_string();
    assert_eq!(issue(&run, HOUR_MS, NOW), "ok");
    assert_eq!(issue("spiffe://other.example/x", HOUR_MS, NOW), "svid-id");
    assert_eq!(issue("spiffe://ship.example", HOUR_MS, NOW), "svid-id");
    assert_eq!(issue(&run, SVID_MAX_LIFE_MS + 1, NOW), "svid-life");
    assert_eq!(issue(&run, 0, NOW), "svid-life");
    let end = NOW.plus_ms(YEAR_MS - HOUR_MS / 2);
    assert_eq!(issue(&run, HOUR_MS, end), "authority-expiring");
}

#[test]
fn what_the_authority_should_never_have_signed_is_refused_all_the_same() {
    let house = house();
    let run = house.run.to_string();
    assert_eq!(house.signed_with(|_| {}), "ok");
    let names = |names: Vec<SanType>| {
        house.signed_with(move |params| params.subject_alt_names.clone_from(&names))
    };
    assert_eq!(
        names(vec![uri(&run), uri("spiffe://ship.example/b")]),
        "malformed-svid"
    );
    assert_eq!(names(vec![uri(&run), uri(&run)]), "malformed-svid");
    assert_eq!(names(vec![]), "malformed-svid");
    let dns = SanType::DnsName("gate.example".to_owned().try_into().unwrap());
    assert_eq!(names(vec![dns]), "malformed-svid");
    assert_eq!(
        names(vec![uri("https://ship.example/agent")]),
        "malformed-SPIFFE-id"
    );
    assert_eq!(
        names(vec![uri("spiffe://other.example/agent/a/run/run-1")]),
        "svid-trust-domain"
    );
    assert_eq!(names(vec![uri("spiffe://ship.example")]), "malformed-svid");

    let usage = |change: fn(&mut CertificateParams)| house.signed_with(change);
    assert_eq!(
        usage(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        "svid-usage"
    );
    assert_eq!(
        usage(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)),
        "svid-usage"
    );
    assert_eq!(
        usage(|params| params.key_usages.push(KeyUsagePurpose::CrlSign)),
        "svid-usage"
    );
    assert_eq!(usage(|params| params.key_usages.clear()), "svid-usage");
    assert_eq!(
        usage(|params| params.extended_key_usages.clear()),
        "svid-usage"
    );
    assert_eq!(
        usage(|params| params.extended_key_usages.truncate(1)),
        "svid-usage"
    );
    let unknown = |critical| {
        house.signed_with(move |params| {
            let mut extension =
                CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
            extension.set_criticality(critical);
            params.custom_extensions = vec![extension];
        })
    };
    assert_eq!(unknown(false), "ok");
    assert_eq!(unknown(true), "malformed-svid");
}

#[test]
fn other_authorities_and_altered_bytes_are_refused() {
    let house = house();
    // A namesake: the same trust domain, another key.
    let namesake = house_of("ship.example").issue();
    assert_eq!(house.code(&namesake.der, NOW), "svid-issuer");
    let other = house_of("other.example").issue();
    assert_eq!(house.code(&other.der, NOW), "svid-issuer");
    // The authority's own certificate is none for a channel, and a holder signs nothing.
    let own = house.authority.certificate();
    assert_ne!(house.code(&own.der, NOW), "ok");
    let svid = house.issue();
    let bundle = TrustBundle::new(house.domain.clone(), &[&svid.pem()], NOW);
    assert_eq!(code(bundle), "authority-trust-domain");

    for at in 0..svid.der.len() {
        let mut altered = svid.der.clone();
        altered[at] ^= 1;
        assert_ne!(house.code(&altered, NOW), "ok", "byte {at}");
    }
    for length in 0..svid.der.len() {
        assert_ne!(house.code(&svid.der[..length], NOW), "ok", "{length}");
    }
    let mut longer = svid.der.clone();
    longer.push(0);
    assert_eq!(house.code(&longer, NOW), "malformed-svid");
    assert_eq!(
        house.code(&vec![0x30; CERTIFICATE_MAX_BYTES + 1], NOW),
        "malformed-svid"
    );
}

#[test]
fn two_authorities_stand_side_by_side_while_one_rotates_out() {
    let (old, new) = (house(), house());
    let (first, second) = (
        old.authority.certificate().pem(),
        new.authority.certificate().pem(),
    );
    let bundle = TrustBundle::new(old.domain.clone(), &[&first, &second], NOW).unwrap();
    assert!(bundle.verify(&old.issue().der, NOW).is_ok());
    assert!(bundle.verify(&new.issue().der, NOW).is_ok());
    assert!(TrustBundle::new(old.domain.clone(), &[], NOW).is_err());
    assert!(TrustBundle::new(old.domain, &[first.as_str(); 5], NOW).is_err());
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        proptest::prop_assert!(verify::read_authority(&String::from_utf8_lossy(&bytes)).is_err());
        let _ = verify::Parsed::read(&bytes);
    }
}

fn openssl(arguments: &[&str], files: &[&Path]) -> Option<(bool, String)> {
    let output = Command::new("openssl")
        .args(arguments)
        .args(files)
        .output()
        .ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some((
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    ))
}

fn written(directory: &tempfile::TempDir, name: &str, certificate: &Certificate) -> PathBuf {
    let path = directory.path().join(name);
    std::fs::write(&path, certificate.pem()).unwrap();
    path
}

#[test]
fn openssl_accepts_the_chain_and_sees_what_the_standard_asks_for() {
    let house = house();
    let directory = tempfile::tempdir().unwrap();
    let authority = written(&directory, "authority.pem", house.authority.certificate());
    let svid = written(&directory, "svid.pem", &house.issue());
    let at = (NOW.as_ms() / 1_000).to_string();
    let trust = authority.to_str().unwrap();
    for purpose in ["sslclient", "sslserver"] {
        let arguments = [
            "verify",
            "-x509_strict",
            "-check_ss_sig",
            "-attime",
            &at,
            "-purpose",
            purpose,
            "-CAfile",
            trust,
        ];
        let Some((verified, text)) = openssl(&arguments, &[&svid]) else {
            return;
        };
        assert!(verified, "{text}");
        let late = (NOW.as_ms() / 1_000 + 3_600 + 1).to_string();
        let arguments = ["verify", "-attime", &late, "-CAfile", trust];
        let (verified, text) = openssl(&arguments, &[&svid]).unwrap();
        assert!(!verified && text.contains("expired"), "{text}");
    }
    let (_, text) = openssl(&["x509", "-noout", "-text", "-in"], &[&svid]).unwrap();
    for wanted in [
        "URI:spiffe://ship.example/agent/fix-bot/run/run-42",
        "CA:FALSE",
        "Digital Signature\n",
        "TLS Web Client Authentication, TLS Web Server Authentication",
        "ecdsa-with-SHA256",
    ] {
        assert!(text.contains(wanted), "{wanted} is missing in {text}");
    }
    let (_, text) = openssl(&["x509", "-noout", "-text", "-in"], &[&authority]).unwrap();
    for wanted in [
        "URI:spiffe://ship.example\n",
        "CA:TRUE, pathlen:0",
        "Certificate Sign, CRL Sign",
    ] {
        assert!(text.contains(wanted), "{wanted} is missing in {text}");
    }
}
