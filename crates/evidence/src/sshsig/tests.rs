use super::*;
use portcullis_model::Secret;
use proptest::prelude::*;

const NAMESPACE: &str = "test@portcullis";

fn key(seed: u8) -> SshPrivateKey {
    SshPrivateKey::from_seed(&Secret::new([seed; 32]), "a comment")
        .unwrap()
        .0
}

fn file(seed: u8) -> String {
    let (_, file) = SshPrivateKey::from_seed(&Secret::new([seed; 32]), "a comment").unwrap();
    file.expose().clone()
}

fn sample() -> UnverifiedSshSignature {
    key(1).sign(NAMESPACE, b"message").unwrap()
}

fn proves(signature: &UnverifiedSshSignature) -> Result<SshProof, Refusal> {
    signature.verify(
        key(1).public_key(),
        Attestation::None,
        NAMESPACE,
        b"message",
    )
}

/// The example that `PROTOCOL.sshsig` prints has an empty hash name, so nobody could verify it;
/// OpenSSH refuses it too.
#[test]
fn a_signature_without_hash_name_is_refused() {
    let armored = "-----BEGIN SSH SIGNATURE-----\n\
        U1NIU0lHAAAAAQAAADMAAAALc3NoLWVkMjU1MTkAAAAgJKxoLBJBivUPNTUJUSslQTt2hD\n\
        jozKvHarKeN8uYFqgAAAADZm9vAAAAAAAAAFMAAAALc3NoLWVkMjU1MTkAAABAKNC4IEbt\n\
        Tq0Fb56xhtuE1/lK9H9RZJfON4o6hE9R4ZGFX98gy0+fFJ/1d2/RxnZky0Y7GojwrZkrHT\n\
        FgCqVWAQ==\n\
        -----END SSH SIGNATURE-----\n";
    assert!(UnverifiedSshSignature::from_armored(armored.as_bytes()).is_err());
    let ours = sample().to_armored();
    assert_eq!(
        UnverifiedSshSignature::from_armored(ours.as_bytes()).unwrap(),
        sample()
    );
}

#[test]
fn the_ssh_key_crate_reads_what_we_write() {
    let signature = ssh_key::SshSig::from_pem(sample().to_armored()).unwrap();
    assert_eq!(signature.namespace(), NAMESPACE);
    let key_file = ssh_key::PrivateKey::from_openssh(file(1)).unwrap();
    assert_eq!(key_file.comment(), "a comment");
    assert_eq!(
        key_file.public_key().to_openssh().unwrap(),
        format!("{} a comment", key(1).public_key())
    );
}

#[test]
fn a_signature_counts_for_its_key_purpose_and_message_only() {
    let signature = sample();
    let proof = proves(&signature).unwrap();
    assert_eq!(proof.class, KeyClass::Software);
    assert_eq!(proof.touch, None);
    let (one, two) = (key(1), key(2));
    let code = |key: &PublicKey, namespace: &str, message: &[u8]| {
        signature
            .verify(key, Attestation::Checked, namespace, message)
            .unwrap_err()
            .code
    };
    assert_eq!(
        code(two.public_key(), NAMESPACE, b"message"),
        "signature-by-another-key"
    );
    assert_eq!(
        code(one.public_key(), "other@portcullis", b"message"),
        "signature-for-another-purpose"
    );
    assert_eq!(
        code(one.public_key(), NAMESPACE, b"massage"),
        "signature-does-not-verify"
    );
    let mut renamed = signature.clone();
    renamed.namespace = "other@portcullis".to_owned();
    assert!(
        renamed
            .verify(
                one.public_key(),
                Attestation::None,
                "other@portcullis",
                b"message"
            )
            .is_err()
    );
    let mut rehashed = signature.clone();
    rehashed.hash = MessageHash::Sha256;
    assert!(proves(&rehashed).is_err());
    assert!(one.sign("", b"message").is_err());
    assert!(one.sign("a b", b"message").is_err());
    assert!(
        one.sign(&"a".repeat(NAMESPACE_MAX_BYTES + 1), b"message")
            .is_err()
    );
}

#[test]
fn other_blobs_are_refused() {
    let good = sample().to_binary();
    let replaced = |from: &[u8], to: &[u8]| {
        let at = good
            .windows(from.len())
            .position(|part| part == from)
            .unwrap();
        [&good[..at], to, &good[at + from.len()..]].concat()
    };
    let empty_then_hash = b"\0\0\0\0\0\0\0\x06sha512";
    for bad in [
        replaced(b"SSHSIG\0\0\0\x01", b"SSHSIG\0\0\0\x02"),
        replaced(b"SSHSIG\0\0\0\x01", b"SSHSIG\0\0\0\0"),
        replaced(b"SSHSIG", b"SSHSIH"),
        replaced(b"sha512", b"sha999"),
        replaced(empty_then_hash, b"\0\0\0\x01x\0\0\0\x06sha512"),
        replaced(NAMESPACE.as_bytes(), b"test@portcull\xff\xff"),
        [&good[..], b"\0"].concat(),
        good[..good.len() - 1].to_vec(),
        vec![0; SSHSIG_MAX_BYTES + 1],
        Vec::new(),
    ] {
        assert!(UnverifiedSshSignature::from_binary(&bad).is_err());
    }
    let armored = sample().to_armored();
    for bad in [
        armored.replace("SSH SIGNATURE", "PGP SIGNATURE"),
        armored.replace("-----END", "----END"),
        armored.replace("-----BEGIN", " -----BEGIN"),
        armored.replace("U1NI", "U1N!"),
        "x".repeat(ARMOR_MAX_BYTES + 1),
        String::new(),
    ] {
        assert!(UnverifiedSshSignature::from_armored(bad.as_bytes()).is_err());
    }
    let windows = armored.replace('\n', "\r\n");
    assert!(UnverifiedSshSignature::from_armored(windows.as_bytes()).is_ok());
}

#[test]
fn flags_and_attestation_decide_the_class() {
    let touch = |user_present, user_verified| {
        Some(Touch {
            user_present,
            user_verified,
            counter: 1,
        })
    };
    use {Attestation::Checked, Attestation::None as Unchecked, KeyClass::*};
    for (flags, attestation, class) in [
        (None, Checked, Software),
        (touch(false, false), Checked, Software),
        (touch(false, true), Checked, Software),
        (touch(true, false), Unchecked, Presence),
        (touch(true, false), Checked, Presence),
        (touch(true, true), Unchecked, Presence),
        (touch(true, true), Checked, Verified),
    ] {
        assert_eq!(
            proven_class(flags, attestation),
            class,
            "{flags:?} {attestation:?}"
        );
    }
}

#[test]
fn a_hardware_keys_handle_and_damaged_files_are_refused_with_the_way_forward() {
    let sk = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAICFo/k5LU8863u66YC9eUO2170QduohPURkQnbLa/dczAAAABHNzaDo=";
    let public: PublicKey = sk.parse().unwrap();
    let mut private = Writer::default();
    private.u32(7);
    private.u32(7);
    private.string(b"sk-ssh-ed25519@openssh.com");
    private.string(b"1");
    private.bytes(&[0; 5]);
    let mut handle = Writer::default();
    handle.bytes(b"openssh-key-v1\0");
    handle.string(b"none");
    handle.string(b"none");
    handle.string(b"");
    handle.u32(1);
    handle.string(&raw::public_key_blob(&public));
    handle.string(&private.finish());
    let handle = armor::encode("OPENSSH PRIVATE KEY", &handle.finish());
    let refusal = SshPrivateKey::from_openssh(handle.as_bytes()).unwrap_err();
    assert_eq!(refusal.code, "private-key-in-hardware", "{refusal}");
    assert!(refusal.next.unwrap().contains("ssh-keygen -Y sign"));

    let good = armor::decode("OPENSSH PRIVATE KEY", "key", file(1).as_bytes()).unwrap();
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        let damaged = armor::encode("OPENSSH PRIVATE KEY", &bytes);
        match SshPrivateKey::from_openssh(damaged.as_bytes()) {
            // The comment is the one thing that nothing else in the file repeats.
            Ok(read) => assert_ne!(read.comment(), "a comment", "byte {at}"),
            Err(refusal) => assert!(!refusal.to_string().contains("AAAA"), "{refusal}"),
        }
    }
}

#[test]
fn a_refusal_about_a_private_key_never_shows_it() {
    let secret_line = "not-a-key-but-a-password";
    for text in [
        secret_line.to_owned(),
        format!("{secret_line}\n{}", file(1)),
    ] {
        let refusal = SshPrivateKey::from_openssh(text.as_bytes()).unwrap_err();
        assert!(!refusal.to_string().contains("password"), "{refusal}");
    }
    assert!(!format!("{:?}", key(1)).contains("0101"));
}

#[test]
fn agent_messages_have_the_protocols_form() {
    let (key, other) = (key(1), key(2));
    let request = agent_sign_request(key.public_key(), NAMESPACE, b"message");
    let mut body = Reader::new(&request);
    let mut body = Reader::new(body.string().unwrap());
    assert_eq!(body.u8(), Some(13));
    assert_eq!(
        body.string().unwrap(),
        raw::public_key_blob(key.public_key())
    );
    assert_eq!(
        body.string().unwrap(),
        to_be_signed(NAMESPACE, MessageHash::Sha512, b"message")
    );
    assert_eq!(body.u32(), Some(0));
    assert!(body.is_empty());

    let answer = |kind: u8, blob: &[u8]| {
        let mut body = Writer::default();
        body.u8(kind);
        body.string(blob);
        let mut framed = Writer::default();
        framed.string(&body.finish());
        framed.finish()
    };
    let blob = sample().signature.to_blob();
    let signature = agent_signature(key.public_key(), NAMESPACE, &answer(14, &blob)).unwrap();
    assert_eq!(signature, sample());
    let claimed = agent_signature(other.public_key(), NAMESPACE, &answer(14, &blob)).unwrap();
    assert!(
        claimed
            .verify(other.public_key(), Attestation::None, NAMESPACE, b"message")
            .is_err()
    );
    assert_eq!(
        agent_signature(key.public_key(), NAMESPACE, &[0, 0, 0, 1, 5])
            .unwrap_err()
            .code,
        "agent-refused-to-sign"
    );
    for bad in [answer(15, &blob), answer(14, b"x"), vec![0; 4], Vec::new()] {
        assert!(agent_signature(key.public_key(), NAMESPACE, &bad).is_err());
    }
}

#[test]
fn an_agents_list_shows_the_keys_that_we_can_use() {
    let list = |entries: &[(&[u8], &[u8])], claimed: u32| {
        let mut body = Writer::default();
        body.u8(12);
        body.u32(claimed);
        for (blob, comment) in entries {
            body.string(blob);
            body.string(comment);
        }
        let mut framed = Writer::default();
        framed.string(&body.finish());
        framed.finish()
    };
    let blob = raw::public_key_blob(key(1).public_key());
    let entries: [(&[u8], &[u8]); 2] = [(b"\0\0\0\x07ssh-rsa", b"old"), (&blob, b"ada")];
    let keys = agent_keys(&list(&entries, 2)).unwrap();
    assert_eq!(keys, [(key(1).public_key().clone(), "ada".to_owned())]);
    assert!(agent_keys(&list(&[], 0)).unwrap().is_empty());
    for (entries, claimed) in [(&entries[..], 1), (&entries, 3), (&[], u32::MAX)] {
        assert!(agent_keys(&list(entries, claimed)).is_err());
    }
    assert!(agent_keys(&[0, 0, 0, 1, 5]).is_err());
    assert!(agent_keys(&[]).is_err());
}

proptest! {
    #[test]
    fn one_changed_byte_never_verifies(at in any::<prop::sample::Index>(), byte: u8, noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let good = sample().to_binary();
        let mut bytes = good.clone();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = UnverifiedSshSignature::from_binary(&bytes) {
            prop_assert_eq!(read.to_binary(), bytes.clone());
            prop_assert!(bytes == good || proves(&read).is_err());
        }
        let _ = UnverifiedSshSignature::from_binary(&noise);
        let _ = UnverifiedSshSignature::from_binary(&[b"SSHSIG\0\0\0\x01", &noise[..]].concat());
        let _ = UnverifiedSshSignature::from_armored(&noise);
        let length = u32::try_from(noise.len()).unwrap().to_be_bytes();
        let _ = agent_keys(&[&length[..], &noise].concat());
        let _ = agent_signature(key(1).public_key(), NAMESPACE, &[&length[..], &noise].concat());
        let _ = raw::RawSignature::from_blob(&noise);
        let _ = SshPrivateKey::from_openssh(armor::encode("OPENSSH PRIVATE KEY", &[b"openssh-key-v1\0", &noise[..]].concat()).as_bytes());
    }

    #[test]
    fn integers_have_one_spelling(digits in prop::collection::vec(any::<u8>(), 0..70), spelling in prop::collection::vec(any::<u8>(), 0..70)) {
        let mut writer = Writer::default();
        writer.positive_integer(&digits);
        let wire = writer.finish();
        let zeros = digits.iter().take_while(|byte| **byte == 0).count();
        let read = Reader::new(&wire).positive_integer();
        prop_assert_eq!(read, Some(&digits[zeros..]).filter(|rest| !rest.is_empty()));
        let mut writer = Writer::default();
        writer.string(&spelling);
        let wire = writer.finish();
        if let Some(number) = Reader::new(&wire).positive_integer() {
            let mut writer = Writer::default();
            writer.positive_integer(number);
            prop_assert_eq!(writer.finish(), wire.clone());
        }
    }
}
