use super::*;
use portcullis_model::Secret;
use proptest::prelude::*;

const PAYLOAD_REPORT: &str = "application/vnd.example.report+json";

fn signer(seed: u8) -> Signer {
    Signer::from_seed(&Secret::new([seed; 32])).unwrap()
}

fn sample() -> UnverifiedEnvelope {
    sign(PAYLOAD_REPORT, b"{\"a\":1}".to_vec(), &signer(1)).unwrap()
}

/// The example of the DSSE protocol's own page.
#[test]
fn the_published_encoding_holds() {
    assert_eq!(
        pae("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
    assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
}

#[test]
fn an_envelope_is_read_back_and_verified() {
    let json = sample().to_json().unwrap();
    let read = UnverifiedEnvelope::parse(&json).unwrap();
    assert_eq!(read, sample());
    let key = signer(1);
    let verified = verify(&read, PAYLOAD_REPORT, &[key.public_key()]).unwrap();
    assert_eq!(verified.payload(), b"{\"a\":1}");
    assert_eq!(verified.key(), key.public_key());
    assert_eq!(verified.class(), KeyClass::Software);
}

#[test]
fn another_type_payload_or_key_is_refused() {
    let good = sample();
    let (one, two) = (signer(1), signer(2));
    let keys = [one.public_key()];
    let code = |envelope: &UnverifiedEnvelope, payload_type: &str| {
        verify(envelope, payload_type, &keys).unwrap_err().code
    };
    assert_eq!(code(&good, PAYLOAD_TASK), "envelope-of-another-type");
    let retyped =
        UnverifiedEnvelope::new(PAYLOAD_TASK, good.payload.clone(), good.signatures.clone())
            .unwrap();
    assert_eq!(code(&retyped, PAYLOAD_TASK), "signature-does-not-verify");
    let mut changed = good.clone();
    changed.payload[0] ^= 1;
    assert_eq!(code(&changed, PAYLOAD_REPORT), "signature-does-not-verify");
    let mut unsigned = good.clone();
    unsigned.signatures.clear();
    assert_eq!(code(&unsigned, PAYLOAD_REPORT), "envelope-not-signed-once");
    let twice = good
        .clone()
        .with_signature(good.signatures[0].clone())
        .unwrap();
    assert_eq!(code(&twice, PAYLOAD_REPORT), "envelope-not-signed-once");
    let foreign = sign(PAYLOAD_REPORT, good.payload.clone(), &two).unwrap();
    assert_eq!(code(&foreign, PAYLOAD_REPORT), "unknown-signer");
    // A key id is only a hint: naming a known key does not make the signature its own.
    let mut renamed = foreign;
    renamed.signatures[0].key_id = one.public_key().fingerprint().to_owned();
    assert_eq!(code(&renamed, PAYLOAD_REPORT), "signature-does-not-verify");
}

#[test]
fn other_spellings_are_refused() {
    let json = String::from_utf8(sample().to_json().unwrap()).unwrap();
    for bad in [
        json.replace(':', ": "),
        json.replace("\"payload\"", "\"extra\":1,\"payload\""),
        json.replace("payloadType", "payloadtype"),
        json.replace("\"sig\"", "\"cert\":\"x\",\"sig\""),
        json.replace("\"signatures\":[", "\"signatures\":[null,"),
        json.replace("==\"", "\""),
        format!("{json}\n"),
        "[".repeat(100_000),
        String::new(),
    ] {
        assert!(
            UnverifiedEnvelope::parse(bad.as_bytes()).is_err(),
            "{bad:.200}"
        );
    }
    assert!(UnverifiedEnvelope::new("", Vec::new(), Vec::new()).is_err());
    assert!(UnverifiedEnvelope::new("a b", Vec::new(), Vec::new()).is_err());
    assert!(UnverifiedEnvelope::new("a", vec![0; ENVELOPE_MAX_BYTES], Vec::new()).is_err());
    let many = vec![sample().signatures[0].clone(); ENVELOPE_MAX_SIGNATURES + 1];
    assert!(UnverifiedEnvelope::new("a", Vec::new(), many).is_err());
}

#[test]
fn the_models_plain_form_has_the_same_bytes_and_digest() {
    let plain = Envelope::from(sample());
    let json = sample().to_json().unwrap();
    assert_eq!(canonical::to_vec(&plain).unwrap(), json);
    assert_eq!(plain.digest().unwrap(), portcullis_model::Digest::of(&json));
    assert_eq!(
        UnverifiedEnvelope::try_from(plain.clone()).unwrap(),
        sample()
    );
    let mut bad = plain;
    bad.payload.push('=');
    assert!(UnverifiedEnvelope::try_from(bad).is_err());
}

#[test]
fn the_largest_envelope_that_can_be_made_can_be_read() {
    let signature = EnvelopeSignature {
        key_id: "k".repeat(KEY_ID_MAX_BYTES),
        signature: vec![0; SIGNATURE_MAX_BYTES],
    };
    let largest = UnverifiedEnvelope::new(
        &"t".repeat(PAYLOAD_TYPE_MAX_BYTES),
        vec![0; ENVELOPE_MAX_BYTES / 2],
        vec![signature; ENVELOPE_MAX_SIGNATURES],
    )
    .unwrap();
    let json = largest.to_json().unwrap();
    assert_eq!(UnverifiedEnvelope::parse(&json).unwrap(), largest);
}

proptest! {
    #[test]
    fn one_changed_byte_never_verifies(at in any::<prop::sample::Index>(), byte: u8, noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let good = sample().to_json().unwrap();
        let mut bytes = good.clone();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = UnverifiedEnvelope::parse(&bytes) {
            prop_assert_eq!(read.to_json().unwrap(), bytes.clone());
            prop_assert!(bytes == good || verify(&read, PAYLOAD_REPORT, &[signer(1).public_key()]).is_err());
        }
        let _ = UnverifiedEnvelope::parse(&noise);
    }
}
