//! With the real `ssh-keygen` and `ssh-agent`, in a directory of their own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use portcullis_evidence::dsse::UnverifiedEnvelope;
use portcullis_evidence::sshsig::Attestation;
use portcullis_evidence::statement::{self, StatementType, TrustedKey};

use super::*;

fn keygen(dir: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    let path = dir.join(name);
    let done = Command::new("ssh-keygen")
        .args(["-q", "-C", "ada@desk", "-f"])
        .arg(&path)
        .args(arguments)
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(done.success());
    path
}

struct RunningAgent {
    child: Child,
    socket: PathBuf,
}

impl RunningAgent {
    fn start(dir: &Path) -> Self {
        let socket = dir.join("agent.sock");
        let child = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..200 {
            if socket.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Self { child, socket }
    }

    fn add(&self, key: &Path) {
        let done = Command::new("ssh-add")
            .arg("-q")
            .arg(key)
            .env("SSH_AUTH_SOCK", &self.socket)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(done.success());
    }
}

impl Drop for RunningAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn statement() -> UnsignedStatement {
    UnsignedStatement::new(
        StatementType::Command,
        &serde_json::json!({"do": "nothing"}),
    )
    .unwrap()
}

/// Signs and verifies as the server does.
fn signs(key: &SigningKey) {
    let envelope: UnverifiedEnvelope = key.sign(&statement()).unwrap().try_into().unwrap();
    let trusted = TrustedKey {
        key: key.public(),
        attestation: Attestation::None,
    };
    let verified = statement::verify(&envelope, StatementType::Command, &[trusted]).unwrap();
    assert_eq!(verified.payload(), statement().payload());
    assert!(statement::verify(&envelope, StatementType::Task, &[trusted]).is_err());
}

#[test]
fn unencrypted_files_sign_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    for (name, algorithm) in [("ed", "ed25519"), ("ec", "ecdsa")] {
        let path = keygen(dir.path(), name, &["-t", algorithm, "-N", ""]);
        let key = SigningKey::of_file(&path, None).unwrap();
        assert!(matches!(key.way, Way::Memory(_)));
        assert_eq!(
            *key.public(),
            public_key(&path.with_extension("pub")).unwrap()
        );
        assert_eq!(*key.public(), public_key(&path).unwrap());
        signs(&key);
        // The public file leads to the private one beside it.
        signs(&SigningKey::of_file(&path.with_extension("pub"), None).unwrap());
    }
}

#[test]
fn the_agent_signs_for_an_encrypted_key_that_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let running = RunningAgent::start(dir.path());
    let agent = Agent::at(&running.socket);
    let held = keygen(dir.path(), "held", &["-t", "ed25519", "-N", ""]);
    running.add(&held);
    // The file is encrypted after the agent has it, so only the agent can sign without asking.
    let changed = Command::new("ssh-keygen")
        .args(["-q", "-p", "-N", "a passphrase", "-f"])
        .arg(&held)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(changed.success());
    for path in [held.clone(), held.with_extension("pub")] {
        let key = SigningKey::of_file(&path, Some(&agent)).unwrap();
        assert!(matches!(key.way, Way::Agent(_)));
        signs(&key);
    }
    let usual = SigningKey::usual(Some(&agent), None);
    assert_eq!(usual.len(), 1);
    usual.iter().for_each(signs);
    // A key that the agent does not hold, and whose private half is nowhere.
    let other = keygen(dir.path(), "other", &["-t", "ed25519", "-N", ""]);
    std::fs::remove_file(&other).unwrap();
    let refusal = SigningKey::of_file(&other.with_extension("pub"), Some(&agent))
        .err()
        .unwrap();
    assert_eq!(refusal.code, "private-key-missing");
    assert!(refusal.to_string().contains("ssh-add"), "{refusal}");
}

#[test]
fn an_encrypted_file_goes_through_ssh_keygen() {
    let dir = tempfile::tempdir().unwrap();
    let path = keygen(
        dir.path(),
        "locked",
        &["-t", "ed25519", "-N", "a passphrase"],
    );
    let key = SigningKey::of_file(&path, None).unwrap();
    assert!(matches!(key.way, Way::Keygen(_)));
    assert_eq!(
        *key.public(),
        public_key(&path.with_extension("pub")).unwrap()
    );
}

/// `ssh-keygen` signs by any private file; here one that needs no passphrase.
#[test]
fn what_ssh_keygen_signs_is_taken_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = keygen(dir.path(), "plain", &["-t", "ed25519", "-N", ""]);
    let public = public_key(&path).unwrap();
    signs(&SigningKey {
        public: public.clone(),
        way: Way::Keygen(path),
    });
    let other = keygen(dir.path(), "another", &["-t", "ed25519", "-N", ""]);
    let refusal = SigningKey {
        public,
        way: Way::Keygen(other),
    }
    .sign(&statement())
    .unwrap_err();
    assert_eq!(refusal.code, "signature-by-another-key");
}

#[test]
fn keys_that_others_can_read_and_files_that_are_no_keys_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = keygen(dir.path(), "open", &["-t", "ed25519", "-N", ""]);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let refusal = SigningKey::of_file(&path, None).err().unwrap();
    assert_eq!(refusal.code, "key-file-open");
    let rsa = keygen(dir.path(), "rsa", &["-t", "rsa", "-b", "2048", "-N", ""]);
    assert!(SigningKey::of_file(&rsa, None).is_err());
    assert!(public_key(&rsa.with_extension("pub")).is_err());
    assert!(SigningKey::of_file(&dir.path().join("missing"), None).is_err());
    let long = dir.path().join("long");
    std::fs::write(&long, vec![b'x'; ARMOR_MAX_BYTES + 1]).unwrap();
    assert!(SigningKey::of_file(&long, None).is_err());
}
