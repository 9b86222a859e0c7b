//! OpenSSH's own programs read what we write, and we read what they write.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test fail by panicking, as the test itself does"
)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use portcullis_evidence::signer::Signer;
use portcullis_evidence::sshsig::{
    Attestation, MessageHash, SshPrivateKey, UnverifiedSshSignature, agent_keys,
    agent_list_request, to_be_signed,
};
use portcullis_evidence::statement::{StatementType, TrustedKey, UnsignedStatement, verify};
use portcullis_model::{KeyClass, PublicKey, Secret};

const NAMESPACE: &str = "interop@portcullis";
const MESSAGE: &[u8] = b"a message\nof two lines";

#[test]
fn every_key_type_signs_for_openssh_and_back() {
    let dir = tempfile::tempdir().unwrap();
    // Half of all P-521 scalars begin with a zero byte, which is where readers go wrong.
    let kinds = [
        ("ed25519", "256", 1),
        ("ecdsa", "256", 1),
        ("ecdsa", "384", 1),
        ("ecdsa", "521", 6),
    ];
    for (algorithm, bits, count) in kinds {
        for number in 0..count {
            let name = format!("{algorithm}-{bits}-{number}");
            let file = new_key(dir.path(), &name, &["-t", algorithm, "-b", bits, "-N", ""]);
            let key = SshPrivateKey::from_openssh(&fs::read(&file).unwrap()).unwrap();
            let line = fs::read_to_string(file.with_extension("pub")).unwrap();
            assert_eq!(
                key.public_key(),
                &line.parse::<PublicKey>().unwrap(),
                "{name}"
            );
            assert_eq!(key.comment(), "someone@somewhere");

            let ours = key.sign(NAMESPACE, MESSAGE).unwrap();
            assert!(
                openssh_verifies(dir.path(), key.public_key(), &ours, NAMESPACE),
                "{name}"
            );
            assert!(
                !openssh_verifies(dir.path(), key.public_key(), &ours, "other"),
                "{name}"
            );

            let theirs = openssh_signs(&file, NAMESPACE, MESSAGE);
            let theirs = UnverifiedSshSignature::from_armored(theirs.as_bytes()).unwrap();
            let proof = theirs
                .verify(key.public_key(), Attestation::Checked, NAMESPACE, MESSAGE)
                .unwrap();
            assert_eq!(proof.class, KeyClass::Software);
            assert!(
                theirs
                    .verify(key.public_key(), Attestation::None, NAMESPACE, b"other")
                    .is_err()
            );
        }
    }
}

#[test]
fn keys_that_we_cannot_use_are_refused_with_the_way_forward() {
    let dir = tempfile::tempdir().unwrap();
    let locked = new_key(
        dir.path(),
        "locked",
        &["-t", "ed25519", "-a", "1", "-N", "passphrase"],
    );
    let refusal = SshPrivateKey::from_openssh(&fs::read(locked).unwrap()).unwrap_err();
    assert_eq!(refusal.code, "private-key-encrypted");
    let next = refusal.next.unwrap();
    assert!(
        next.contains("ssh-add") && next.contains("ssh-keygen -Y sign"),
        "{next}"
    );

    let rsa = new_key(dir.path(), "rsa", &["-t", "rsa", "-b", "2048", "-N", ""]);
    let refusal = SshPrivateKey::from_openssh(&fs::read(rsa).unwrap()).unwrap_err();
    assert!(
        refusal.to_string().contains("ssh-keygen -t ed25519"),
        "{refusal}"
    );

    let old = new_key(dir.path(), "old", &["-t", "ecdsa", "-m", "PEM", "-N", ""]);
    let refusal = SshPrivateKey::from_openssh(&fs::read(old).unwrap()).unwrap_err();
    assert!(refusal.to_string().contains("ssh-keygen -p"), "{refusal}");
}

#[test]
fn openssh_takes_a_key_that_we_made() {
    let dir = tempfile::tempdir().unwrap();
    for comment in ["", "a", "ada@laptop", "x12345"] {
        let (key, text) = SshPrivateKey::generate(comment).unwrap();
        let file = dir.path().join(format!("made-{}", comment.len()));
        fs::write(&file, text.expose()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let shown = run(
            Command::new("ssh-keygen").arg("-y").arg("-f").arg(&file),
            b"",
        );
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert_eq!(
            shown.trim(),
            format!("{} {comment}", key.public_key()).trim()
        );
        let theirs = openssh_signs(&file, NAMESPACE, MESSAGE);
        UnverifiedSshSignature::from_armored(theirs.as_bytes())
            .unwrap()
            .verify(key.public_key(), Attestation::None, NAMESPACE, MESSAGE)
            .unwrap();
        let again = SshPrivateKey::from_openssh(text.expose().as_bytes()).unwrap();
        assert_eq!(again.public_key(), key.public_key());
    }
}

#[test]
fn a_real_agent_signs_a_statement() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(&dir.path().join("agent"));
    for (name, arguments) in [("a", ["-t", "ed25519"]), ("b", ["-t", "ecdsa"])] {
        let file = new_key(dir.path(), name, &[&arguments[..], &["-N", ""]].concat());
        let public: PublicKey = fs::read_to_string(file.with_extension("pub"))
            .unwrap()
            .parse()
            .unwrap();
        let statement =
            UnsignedStatement::new(StatementType::Command, &serde_json::json!({"name": name}))
                .unwrap();
        let request = statement.agent_request(&public);
        let refusal = statement
            .attach_agent_answer(&public, &agent.ask(&request))
            .unwrap_err();
        assert_eq!(refusal.code, "agent-refused-to-sign");

        let added = Command::new("ssh-add")
            .arg("-q")
            .arg(&file)
            .env("SSH_AUTH_SOCK", &agent.socket)
            .status();
        assert!(added.unwrap().success());
        let listed = agent_keys(&agent.ask(&agent_list_request())).unwrap();
        assert!(listed.contains(&(public.clone(), "someone@somewhere".to_owned())));
        let envelope = statement
            .attach_agent_answer(&public, &agent.ask(&request))
            .unwrap();
        let trusted = TrustedKey {
            key: &public,
            attestation: Attestation::None,
        };
        let verified = verify(&envelope, StatementType::Command, &[trusted]).unwrap();
        assert_eq!(verified.payload(), statement.payload());
    }
}

#[test]
fn a_statement_is_signed_by_ssh_keygen_itself() {
    let dir = tempfile::tempdir().unwrap();
    let file = new_key(dir.path(), "id", &["-t", "ed25519", "-N", ""]);
    let public: PublicKey = fs::read_to_string(file.with_extension("pub"))
        .unwrap()
        .parse()
        .unwrap();
    let statement =
        UnsignedStatement::new(StatementType::Task, &serde_json::json!({"n": 1})).unwrap();
    let armored = openssh_signs(&file, statement.namespace(), &statement.message());
    let signature = UnverifiedSshSignature::from_armored(armored.as_bytes()).unwrap();
    let envelope = statement.attach(&[signature]).unwrap();
    let trusted = TrustedKey {
        key: &public,
        attestation: Attestation::None,
    };
    verify(&envelope, StatementType::Task, &[trusted]).unwrap();
}

/// A hardware key in software: what it signs, OpenSSH verifies too, and its flags decide the class.
#[test]
fn hardware_keys_prove_what_their_flags_say() {
    let dir = tempfile::tempdir().unwrap();
    let ed25519 = Signer::from_seed(&Secret::new([5; 32])).unwrap();
    let ecdsa = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = ecdsa.public_key().as_ref();

    let keys: [(&str, Vec<u8>); 2] = [
        ("sk-ssh-ed25519@openssh.com", string(ed25519.public_bytes())),
        (
            "sk-ecdsa-sha2-nistp256@openssh.com",
            [string(b"nistp256"), string(point)].concat(),
        ),
    ];
    for (algorithm, material) in keys {
        let blob = [string(algorithm.as_bytes()), material, string(b"ssh:")].concat();
        let key: PublicKey = format!("{algorithm} {}", base64(&blob)).parse().unwrap();
        assert_eq!(key.class(), KeyClass::Presence);
        for (flags, attestation, class) in [
            (0x00, Attestation::Checked, KeyClass::Software),
            (0x04, Attestation::Checked, KeyClass::Software),
            (0x01, Attestation::Checked, KeyClass::Presence),
            (0x05, Attestation::None, KeyClass::Presence),
            (0x05, Attestation::Checked, KeyClass::Verified),
        ] {
            let trailer = [&[flags], &1234_u32.to_be_bytes()[..]].concat();
            let message = [
                digest(&SHA256, b"ssh:").as_ref(),
                &trailer,
                digest(
                    &SHA256,
                    &to_be_signed(NAMESPACE, MessageHash::Sha512, MESSAGE),
                )
                .as_ref(),
            ]
            .concat();
            let signature = if algorithm.contains("ed25519") {
                ed25519.sign(&message).unwrap().to_vec()
            } else {
                let fixed = ecdsa.sign(&SystemRandom::new(), &message).unwrap();
                let (r, s) = fixed.as_ref().split_at(32);
                [integer(r), integer(s)].concat()
            };
            let raw = [
                string(algorithm.as_bytes()),
                string(&signature),
                trailer.clone(),
            ]
            .concat();
            let assembled =
                UnverifiedSshSignature::assemble(&key, NAMESPACE, MessageHash::Sha512, &raw)
                    .unwrap();
            let read = UnverifiedSshSignature::from_binary(&assembled.to_binary()).unwrap();
            assert_eq!(read, assembled);
            let proof = read.verify(&key, attestation, NAMESPACE, MESSAGE).unwrap();
            assert_eq!(proof.class, class, "{algorithm} {flags:#x}");
            let touch = proof.touch.unwrap();
            assert_eq!(touch.counter, 1234);
            assert_eq!(touch.user_present, flags & 1 != 0);
            assert!(
                openssh_verifies(dir.path(), &key, &read, NAMESPACE),
                "{algorithm} {flags:#x}"
            );

            // Claiming a touch, or another counter, after the fact.
            let unsigned = raw.len() - 5;
            for at in [unsigned, raw.len() - 1] {
                let mut forged = raw.clone();
                forged[at] ^= 1;
                let forged =
                    UnverifiedSshSignature::assemble(&key, NAMESPACE, MessageHash::Sha512, &forged)
                        .unwrap();
                assert!(
                    forged
                        .verify(&key, attestation, NAMESPACE, MESSAGE)
                        .is_err()
                );
            }
            // Without its trailer it isn't a hardware key's signature at all.
            assert!(
                UnverifiedSshSignature::assemble(
                    &key,
                    NAMESPACE,
                    MessageHash::Sha512,
                    &raw[..unsigned]
                )
                .is_err()
            );
        }
    }
}

fn new_key(dir: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    let file = dir.join(name);
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-q", "-C", "someone@somewhere"])
        .args(arguments)
        .arg("-f")
        .arg(&file);
    run(&mut command, b"");
    file
}

fn openssh_signs(file: &Path, namespace: &str, message: &[u8]) -> String {
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-q", "-Y", "sign", "-n", namespace, "-f"])
        .arg(file);
    String::from_utf8(run(&mut command, message).stdout).unwrap()
}

fn openssh_verifies(
    dir: &Path,
    key: &PublicKey,
    signature: &UnverifiedSshSignature,
    namespace: &str,
) -> bool {
    let signers = dir.join("allowed_signers");
    fs::write(&signers, format!("ada {key}\n")).unwrap();
    let file = dir.join("signature");
    fs::write(&file, signature.to_armored()).unwrap();
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-Y", "verify", "-I", "ada", "-n", namespace, "-f"])
        .arg(signers)
        .arg("-s")
        .arg(file);
    feed(&mut command, MESSAGE).status.success()
}

fn run(command: &mut Command, input: &[u8]) -> Output {
    let output = feed(command, input);
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn feed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("OpenSSH's client programs are installed where the tests run");
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Agent {
    fn start(socket: &Path) -> Self {
        let child = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(socket)
            .stdout(Stdio::null())
            .spawn()
            .expect("ssh-agent is installed where the tests run");
        let agent = Self {
            child,
            socket: socket.to_owned(),
        };
        for _ in 0..500 {
            if UnixStream::connect(socket).is_ok() {
                return agent;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("ssh-agent does not listen");
    }

    fn ask(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = vec![0; 4];
        stream.read_exact(&mut answer).unwrap();
        let length = u32::from_be_bytes(answer[..].try_into().unwrap());
        answer.resize(4 + length as usize, 0);
        stream.read_exact(&mut answer[4..]).unwrap();
        answer
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [
        &u32::try_from(bytes.len()).unwrap().to_be_bytes()[..],
        bytes,
    ]
    .concat()
}

fn integer(digits: &[u8]) -> Vec<u8> {
    let zeros = digits.iter().take_while(|byte| **byte == 0).count();
    let sign: &[u8] = if digits[zeros] >= 0x80 { &[0] } else { &[] };
    string(&[sign, &digits[zeros..]].concat())
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
