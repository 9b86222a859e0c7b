//! This machine as an enrolled host: its key, and what it signs with it.

use std::path::Path;
use std::time::Duration;

use portcullis_evidence::dsse::{self, PAYLOAD_COMMAND};
use portcullis_evidence::signer::Signer;
use portcullis_identity::custody::{self, Ed25519Purpose};
use portcullis_model::statement::{Command, Envelope, SignedCommand};
use portcullis_model::{HostId, Principal, Refusal, RefusalKind, RunId, canonical};
use serde_json::{Value, json};

use crate::client::Client;
use crate::random;
use crate::time::now;

/// How long a signed command is good for, in milliseconds (5 minutes): sent at once, but clocks
/// differ.
const COMMAND_LIFE_MS: u64 = 300_000;
/// How often the end of a run is told to a server that is away.
const END_TRIES: u32 = 6;
/// Pause between those tries.
const END_PAUSE: Duration = Duration::from_millis(700);

/// A host that can sign.
pub(super) struct Host {
    id: HostId,
    signer: Signer,
    origin: String,
}

impl Host {
    /// Reads the host's key.
    ///
    /// # Errors
    /// The file is not there, or others can read it.
    pub(super) fn load(id: HostId, key: &Path, origin: String) -> Result<Self, Refusal> {
        let key = custody::load_ed25519(key, Ed25519Purpose::Host).map_err(|refusal| {
            match refusal.kind {
                RefusalKind::NotFound => refusal.next(
                    "name the server's directory with --home DIR, or this host's key with --host-key FILE --host ID",
                ),
                RefusalKind::Malformed
                | RefusalKind::Denied
                | RefusalKind::NeedsApproval
                | RefusalKind::Conflict
                | RefusalKind::Limit
                | RefusalKind::Unavailable
                | RefusalKind::Internal => refusal,
            }
        })?;
        Ok(Self {
            id,
            signer: Signer::from_seed(key.seed())?,
            origin,
        })
    }

    /// A command's envelope: plain DSSE with the host's key.
    ///
    /// # Errors
    /// There is no randomness.
    pub(super) fn sign(&self, command: Command) -> Result<Envelope, Refusal> {
        let issued = now();
        let command = SignedCommand {
            version: SignedCommand::VERSION,
            origin: self.origin.clone(),
            principal: Principal::Host(self.id.clone()),
            issued,
            expires: issued.plus_ms(COMMAND_LIFE_MS),
            nonce: random::nonce()?,
            command,
        };
        Ok(dsse::sign(PAYLOAD_COMMAND, canonical::to_vec(&command)?, &self.signer)?.into())
    }

    /// Starts a run. `possession` is the proof of the run's key.
    ///
    /// # Errors
    /// The server's refusal.
    pub(super) async fn start(
        &self,
        client: &Client,
        command: Command,
        text: String,
        possession: &str,
    ) -> Result<Value, Refusal> {
        let body = json!({ "envelope": self.sign(command)?, "attachments": [text] });
        client
            .post_with("/v1/commands", &[("dpop", possession)], &body)
            .await
    }

    /// Tells the server that a run is over, for some seconds if it is away.
    ///
    /// # Errors
    /// It does not take it; the run then ends there by its deadline, or as lost.
    pub(super) async fn end(
        &self,
        client: &Client,
        run: RunId,
        exit: u8,
        deadline: bool,
    ) -> Result<(), Refusal> {
        let mut tries = 0;
        loop {
            tries += 1;
            let command = Command::RunEnded {
                run,
                exit: i32::from(exit),
                deadline,
            };
            let body = json!({ "envelope": self.sign(command)?, "attachments": [] });
            match client.post("/v1/commands", &body).await {
                Ok(_) => return Ok(()),
                // By a person, a breaker's revert, or an earlier try.
                Err(refusal) if refusal.code == "run-ended" => return Ok(()),
                Err(refusal) if refusal.kind == RefusalKind::Unavailable && tries < END_TRIES => {
                    tokio::time::sleep(END_PAUSE).await;
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_evidence::dsse::UnverifiedEnvelope;

    use super::*;

    #[test]
    fn a_host_signs_plain_dsse_as_itself() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("host.key");
        let key = custody::create_ed25519(&file, Ed25519Purpose::Host).unwrap();
        let host =
            Host::load("local".parse().unwrap(), &file, "example.org/ledger".into()).unwrap();
        let envelope = host
            .sign(Command::RunEnded {
                run: "run-1".parse().unwrap(),
                exit: 0,
                deadline: false,
            })
            .unwrap();
        let command = SignedCommand::read(&envelope).unwrap();
        assert_eq!(command.principal.to_string(), "host:local");
        assert_eq!(command.origin, "example.org/ledger");
        let unverified = UnverifiedEnvelope::try_from(envelope).unwrap();
        dsse::verify(&unverified, PAYLOAD_COMMAND, &[&key.public().unwrap()]).unwrap();
    }

    #[test]
    fn another_keys_file_is_refused_and_a_missing_one_says_what_to_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("builder.key");
        custody::create_ed25519(&file, Ed25519Purpose::Service).unwrap();
        let load = |path: &Path| {
            Host::load("local".parse().unwrap(), path, String::new())
                .err()
                .unwrap()
        };
        assert_eq!(load(&file).code, "key-file-purpose");
        let missing = load(&dir.path().join("none"));
        assert!(missing.next.unwrap().contains("--host-key"));
    }
}
