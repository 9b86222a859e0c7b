//! Statements that the program would not make by itself, signed with real keys.

use std::fs;
use std::path::Path;

use portcullis_evidence::dsse;
use portcullis_evidence::signer::Signer;
use portcullis_evidence::sshsig::SshPrivateKey;
use portcullis_evidence::statement::{StatementType, UnsignedStatement};
use portcullis_identity::custody::{Ed25519Purpose, load_ed25519};
use portcullis_model::statement::{Command, Envelope, SignedCommand};
use portcullis_model::{Principal, Task, TaskText, Timestamp, canonical};
use serde_json::{Value, json};

use super::{Answer, House};

/// Now.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    Timestamp::from_ms(u64::try_from(since.as_millis()).unwrap())
}

/// 16 random bytes in hex.
pub(crate) fn nonce() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    portcullis_model::digest::encode_hex(&bytes)
}

impl House {
    /// A person's key in this process.
    pub(crate) fn private_key(&self, person: &str) -> SshPrivateKey {
        SshPrivateKey::from_openssh(&fs::read(self.key(person)).unwrap()).unwrap()
    }

    /// A command by `principal`, as it would be signed now.
    pub(crate) fn unsigned_command(&self, principal: &str, command: Command) -> SignedCommand {
        let issued = now();
        SignedCommand {
            version: SignedCommand::VERSION,
            origin: "example.com/house".to_owned(),
            principal: principal.parse().unwrap(),
            issued,
            expires: issued.plus_ms(60_000),
            nonce: nonce(),
            command,
        }
    }

    /// Signs a command with a person's key, whoever it says it is by.
    pub(crate) fn sign_command(&self, person: &str, command: &SignedCommand) -> Envelope {
        let unsigned = UnsignedStatement::new(StatementType::Command, command).unwrap();
        unsigned
            .sign_with(&self.private_key(person))
            .unwrap()
            .into()
    }

    /// Signs a command with one of the home's own keys.
    pub(crate) fn sign_with_home_key(&self, key: &str, command: &SignedCommand) -> Envelope {
        let purpose = if key == "host" {
            Ed25519Purpose::Host
        } else {
            Ed25519Purpose::Service
        };
        let file = self.home().join("keys").join(format!("{key}.key"));
        let key = load_ed25519(&file, purpose).unwrap();
        let signer = Signer::from_seed(key.seed()).unwrap();
        let payload = canonical::to_vec(command).unwrap();
        dsse::sign(dsse::PAYLOAD_COMMAND, payload, &signer)
            .unwrap()
            .into()
    }

    /// Sends a signed command.
    pub(crate) fn send_command(&self, envelope: &Envelope, attachments: &[&str]) -> Answer {
        self.post(
            "/v1/commands",
            &json!({ "envelope": envelope, "attachments": attachments }),
        )
    }

    /// The task in a signed task file, and its text.
    pub(crate) fn read_task(&self, file: &Path) -> (Task, TaskText) {
        let file: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let envelope: Envelope = serde_json::from_value(file["envelope"].clone()).unwrap();
        let task = canonical::from_slice("task", &envelope.payload_bytes().unwrap()).unwrap();
        let field = |name: &str| file[name].as_str().unwrap_or_default().to_owned();
        (
            task,
            TaskText {
                title: field("title"),
                text: field("text"),
            },
        )
    }

    /// Signs a task with a person's key, whoever it names.
    pub(crate) fn sign_task(&self, person: &str, task: &Task) -> Envelope {
        let unsigned = UnsignedStatement::new(StatementType::Task, task).unwrap();
        unsigned
            .sign_with(&self.private_key(person))
            .unwrap()
            .into()
    }

    /// Would the server take this task in?
    pub(crate) fn check_task(&self, envelope: &Envelope, text: &TaskText) -> Answer {
        self.post(
            "/v1/tasks/check",
            &json!({ "envelope": envelope, "text": text }),
        )
    }

    /// The host's principal.
    pub(crate) fn host() -> Principal {
        "host:local".parse().unwrap()
    }
}
