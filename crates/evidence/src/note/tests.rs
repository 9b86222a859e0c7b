use super::*;
use portcullis_model::Secret;
use proptest::prelude::*;

fn signer(seed: u8) -> Signer {
    Signer::from_seed(&Secret::new([seed; 32])).unwrap()
}

fn name(text: &str) -> KeyName {
    text.parse().unwrap()
}

fn key(seed: u8, text: &str) -> VerifierKey {
    VerifierKey::new(name(text), *signer(seed).public_bytes())
}

fn signed_by(seeds: &[(u8, &str)]) -> UnverifiedNote {
    let mut note =
        UnverifiedNote::unsigned("If you think cryptography\n\nis the answer.\n").unwrap();
    for (seed, text) in seeds {
        note.sign(&name(text), &signer(*seed)).unwrap();
    }
    note
}

/// The example of Go's `golang.org/x/mod/sumdb/note`, by a key that others made.
#[test]
fn the_published_example_verifies() {
    let key: VerifierKey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
        .parse()
        .unwrap();
    let text = "If you think cryptography is the answer to your problem,\n\
                then you don't know what your problem is.\n";
    let note = format!(
        "{text}\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    );
    let parsed = UnverifiedNote::parse(note.as_bytes()).unwrap();
    assert_eq!(parsed.to_string(), note);
    let verified = parsed.verify(&[&key]).unwrap();
    assert_eq!(verified.text(), text);
    assert_eq!(verified.signers(), [name("PeterNeumann")]);
}

#[test]
fn a_verifier_key_survives_its_text_and_must_have_its_own_id() {
    let key = key(1, "example.com/log");
    let text = key.to_string();
    assert_eq!(text.parse::<VerifierKey>().unwrap(), key);
    let wrong_id = format!("{:08x}", key.id() ^ 1);
    for bad in [
        text.replace(&format!("{:08x}", key.id()), &wrong_id),
        text.replace("example.com", "example.org"),
        text.to_uppercase(),
        text.replace('+', "-"),
        text.trim_end_matches('=').to_owned() + "A",
        format!("{text}A"),
        String::new(),
    ] {
        assert!(bad.parse::<VerifierKey>().is_err(), "{bad}");
    }
}

#[test]
fn unknown_signatures_are_ignored_and_kept() {
    let note = signed_by(&[(1, "log"), (2, "witness"), (3, "stranger")]);
    let read = UnverifiedNote::parse(note.to_string().as_bytes()).unwrap();
    assert_eq!(read, note);
    let verified = read.verify(&[&key(2, "witness"), &key(1, "log")]).unwrap();
    assert_eq!(verified.signers(), [name("witness"), name("log")]);
    // The same key under another name is another key.
    assert!(read.verify(&[&key(1, "witness")]).is_err());
    assert!(read.verify(&[]).is_err());
}

#[test]
fn a_known_key_whose_signature_is_wrong_spoils_the_note() {
    let mut note = signed_by(&[(1, "log"), (2, "witness")]);
    note.signatures[1].bytes[10] ^= 1;
    let keys = [&key(1, "log"), &key(2, "witness")];
    assert!(note.verify(&keys).is_err());
    assert!(note.verify(&keys[..1]).is_ok());
    assert!(signed_by(&[(1, "log"), (1, "log")]).verify(&keys).is_err());
}

#[test]
fn a_changed_text_is_refused() {
    let text = signed_by(&[(1, "log")]).to_string();
    for changed in [
        text.replace("cryptography", "cryptographie"),
        text.replace("\n\nis", "\nis"),
        text.replace("answer.\n", "answer.\n\n"),
    ] {
        let note = UnverifiedNote::parse(changed.as_bytes()).unwrap();
        assert!(note.verify(&[&key(1, "log")]).is_err(), "{changed}");
    }
}

#[test]
fn other_forms_are_refused() {
    let good = signed_by(&[(1, "log")]).to_string();
    let bad = [
        String::new(),
        "\n".to_owned(),
        good.trim_end().to_owned(),
        format!("{good}\n"),
        good.replace("— ", "- "),
        good.replace("— log ", "— log"),
        good.replace("— log ", "— lo+g "),
        good.replace("— log ", "— log\u{a0} "),
        good.replace("— log ", "—  "),
        good.replace("=\n", "\n"),
        good.replace("If", "I\tf"),
        good.replace("If", "I\rf"),
        "text\n\n— log AAAAAA==\n".to_owned(),
        format!("{}{}", good, "— log AAAAAAAA\n".repeat(NOTE_MAX_SIGNATURES)),
    ];
    for text in bad {
        assert!(UnverifiedNote::parse(text.as_bytes()).is_err(), "{text:?}");
    }
    assert!(UnverifiedNote::parse(&[0xff, b'\n', b'\n']).is_err());
    assert!(UnverifiedNote::parse(&vec![b'a'; NOTE_MAX_BYTES + 1]).is_err());
}

proptest! {
    #[test]
    fn what_is_read_is_written_the_same(mutation in 0_usize..400, byte: u8, noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let good = signed_by(&[(1, "log"), (2, "witness")]).to_string();
        let mut bytes = good.clone().into_bytes();
        let at = mutation % bytes.len();
        bytes[at] = byte;
        for input in [bytes, noise] {
            if let Ok(note) = UnverifiedNote::parse(&input) {
                prop_assert_eq!(note.to_string().into_bytes(), input.clone());
                if input != good.as_bytes() {
                    prop_assert!(note.verify(&[&key(1, "log"), &key(2, "witness")]).is_err() || note.claimed_text() == signed_by(&[]).claimed_text());
                }
            }
        }
    }
}
