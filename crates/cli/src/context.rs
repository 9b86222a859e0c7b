//! What every command gets: the global options, the server, and the person who signs.

use std::path::PathBuf;

use portcullis_evidence::statement::{StatementType, UnsignedStatement};
use portcullis_model::manifest::Human;
use portcullis_model::statement::{Command, Envelope, SignedCommand};
use portcullis_model::{Digest, HumanId, Principal, Refusal, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::Client;
use crate::log_reader::LogReader;
use crate::output::Format;
use crate::reason::Reason;
use crate::signing::{Agent, SigningKey};
use crate::time::now;
use crate::{progress, random};

/// How long a signed command is good for, in milliseconds (5 minutes): sent at once, but clocks
/// differ.
const COMMAND_LIFE_MS: u64 = 300_000;

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The server
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "PORTCULLIS_SERVER",
        default_value = "http://127.0.0.1:7117"
    )]
    pub(crate) server: String,
    /// The server's directory, for commands that work on it [default: ./portcullis]
    #[arg(long, global = true, value_name = "DIR", env = "PORTCULLIS_HOME")]
    pub(crate) home: Option<PathBuf>,
    /// SSH key to sign with: a private key file, or a .pub file whose private half an ssh-agent
    /// holds; may be repeated [default: the ssh-agent's keys, then ~/.ssh/id_*]
    #[arg(long, global = true, value_name = "FILE", env = "PORTCULLIS_KEY")]
    pub(crate) key: Vec<PathBuf>,
    /// Who signs [default: whoever the server's inventory says holds the key]
    #[arg(
        long = "as",
        global = true,
        value_name = "HUMAN",
        env = "PORTCULLIS_HUMAN"
    )]
    pub(crate) human: Option<HumanId>,
    /// How results are printed
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        default_value_t
    )]
    pub(crate) output: Format,
}

/// What every command gets.
pub(crate) struct Context {
    /// The options.
    pub(crate) global: Global,
}

/// The server's status, as far as it matters here.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Status {
    /// Name of the ledger.
    pub(crate) origin: String,
    /// Number of entries.
    pub(crate) size: u64,
    /// Digest of the policy in force.
    pub(crate) policy: Digest,
    /// The server's clock.
    #[serde(default)]
    pub(crate) time: Option<Timestamp>,
    /// Whether one person works alone.
    #[serde(default)]
    pub(crate) solo: bool,
}

/// A record of the inventory.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Record<T> {
    /// The manifest.
    pub(crate) record: T,
    /// `active`, `suspended` or `retired`.
    #[serde(default)]
    pub(crate) standing: Option<String>,
}

impl<T> Record<T> {
    /// Whether it has its rights.
    pub(crate) fn is_active(&self) -> bool {
        self.standing
            .as_deref()
            .is_none_or(|standing| standing == "active")
    }
}

/// A person with a key that can sign now.
pub(crate) struct Signer {
    /// Who.
    pub(crate) human: HumanId,
    /// With what.
    pub(crate) key: SigningKey,
}

impl Context {
    /// The server.
    ///
    /// # Errors
    /// Its URL can't be used.
    pub(crate) fn client(&self) -> Result<Client, Refusal> {
        Client::new(&self.global.server)
    }

    /// The server's log, as anybody outside reads it.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub(crate) fn log_reader(&self) -> Result<LogReader, Refusal> {
        LogReader::new(&format!("{}/log", self.client()?.url()), None)
    }

    /// How results are printed.
    pub(crate) const fn out(&self) -> Format {
        self.global.output
    }

    /// The server's directory.
    pub(crate) fn home(&self) -> PathBuf {
        self.global
            .home
            .clone()
            .unwrap_or_else(|| PathBuf::from("portcullis"))
    }

    /// The server's status.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn status(&self, client: &Client) -> Result<Status, Refusal> {
        client.get("/v1/status").await
    }

    /// The person who signs: whoever holds the key, or who `--as` says.
    ///
    /// # Errors
    /// There is no key, or nobody whom the server knows holds it.
    pub(crate) async fn signer(&self, client: &Client) -> Result<Signer, Refusal> {
        let keys = self.keys()?;
        let humans: Vec<Record<Human>> = client.items("/v1/inventory/humans").await?;
        choose(keys, &humans, self.global.human.as_ref())
    }

    /// As [`Self::signer`], where the people are known from elsewhere than a server.
    ///
    /// # Errors
    /// As [`Self::signer`].
    pub(crate) fn signer_among(&self, humans: &[Record<Human>]) -> Result<Signer, Refusal> {
        choose(self.keys()?, humans, self.global.human.as_ref())
    }

    /// Keys that can sign now, in the order in which they are tried.
    ///
    /// # Errors
    /// A key that was named can't be used, or there is none.
    pub(crate) fn keys(&self) -> Result<Vec<SigningKey>, Refusal> {
        let agent = Agent::from_environment();
        let keys = if self.global.key.is_empty() {
            let home = std::env::var_os("HOME").map(PathBuf::from);
            SigningKey::usual(agent.as_ref(), home.as_deref())
        } else {
            self.global
                .key
                .iter()
                .map(|path| SigningKey::of_file(path, agent.as_ref()))
                .collect::<Result<_, _>>()?
        };
        if keys.is_empty() {
            return Err(
                Refusal::unavailable("no-key", "there is no SSH key to sign with")
                    .expected("an ed25519, ecdsa or sk- key with the ssh-agent or in ~/.ssh")
                    .next("name one with --key FILE, or make one with `ssh-keygen -t ed25519`"),
            );
        }
        Ok(keys)
    }

    /// Signs a command and sends it with the texts that it names by digest.
    ///
    /// # Errors
    /// As [`Self::signer`] and [`Client::post`].
    pub(crate) async fn command(
        &self,
        client: &Client,
        command: Command,
        attachments: Vec<String>,
    ) -> Result<Value, Refusal> {
        let signer = self.signer(client).await?;
        let status = self.status(client).await?;
        let envelope = sign_command(&signer, status.origin, command)?;
        let order = Order {
            envelope,
            attachments,
        };
        progress::during(
            "waiting for the server",
            client.post("/v1/commands", &order),
        )
        .await
    }

    /// As [`Self::command`], for one with a reason.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub(crate) async fn command_because(
        &self,
        client: &Client,
        why: &Reason,
        command: impl FnOnce(Digest) -> Command,
    ) -> Result<Value, Refusal> {
        self.command(client, command(why.digest()), vec![why.text().to_owned()])
            .await
    }
}

#[derive(Serialize)]
struct Order {
    envelope: Envelope,
    attachments: Vec<String>,
}

/// Signs a command for the ledger `origin`.
///
/// # Errors
/// The key can't sign.
pub(crate) fn sign_command(
    signer: &Signer,
    origin: String,
    command: Command,
) -> Result<Envelope, Refusal> {
    let issued = now();
    let command = SignedCommand {
        version: SignedCommand::VERSION,
        origin,
        principal: Principal::Human(signer.human.clone()),
        issued,
        expires: issued.plus_ms(COMMAND_LIFE_MS),
        nonce: random::nonce()?,
        command,
    };
    signer
        .key
        .sign(&UnsignedStatement::new(StatementType::Command, &command)?)
}

/// The first key that a person with rights holds.
fn choose(
    keys: Vec<SigningKey>,
    humans: &[Record<Human>],
    wanted: Option<&HumanId>,
) -> Result<Signer, Refusal> {
    if let Some(wanted) = wanted
        && !humans.iter().any(|human| human.record.id == *wanted)
    {
        let names = humans.iter().map(|human| human.record.id.as_str());
        let refusal = Refusal::not_found("human", wanted);
        return Err(
            match portcullis_model::document::nearest(wanted.as_str(), names) {
                Some(near) => refusal.next(format!("did you mean `{near}`?")),
                None => refusal,
            },
        );
    }
    let mut tried = Vec::new();
    for key in keys {
        let holder = humans
            .iter()
            .filter(|human| human.is_active())
            .filter(|human| wanted.is_none_or(|wanted| human.record.id == *wanted))
            .find(|human| human.record.keys.contains(key.public()));
        if let Some(holder) = holder {
            return Ok(Signer {
                human: holder.record.id.clone(),
                key,
            });
        }
        tried.push(key.public().fingerprint().to_owned());
    }
    let expected = match wanted {
        Some(human) => format!("a key of {human}"),
        None => "a key of a human in the server's inventory".to_owned(),
    };
    Err(Refusal::denied(
        "key-unknown",
        "none of these keys belongs to a person whom the server knows",
    )
    .expected(&expected)
    .received(&tried.join(", "))
    .next("name the key with --key FILE; `portcullis human list` shows who holds which"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_evidence::sshsig::SshPrivateKey;
    use portcullis_model::{PublicKey, Secret};

    fn key(dir: &std::path::Path, seed: u8) -> SigningKey {
        use std::os::unix::fs::PermissionsExt as _;
        let (_, file) = SshPrivateKey::from_seed(&Secret::new([seed; 32]), "").unwrap();
        let path = dir.join(format!("key-{seed}"));
        std::fs::write(&path, file.expose()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        SigningKey::of_file(&path, None).unwrap()
    }

    fn human(id: &str, key: &PublicKey, standing: Option<&str>) -> Record<Human> {
        Record {
            record: Human {
                id: id.parse().unwrap(),
                keys: vec![key.clone()],
                administrator: false,
                profile: None,
            },
            standing: standing.map(str::to_owned),
        }
    }

    #[test]
    fn the_key_says_who_signs() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (key(dir.path(), 1), key(dir.path(), 2));
        let humans = [
            human("gone", first.public(), Some("retired")),
            human("ada", second.public(), Some("active")),
        ];
        let pair = || vec![key(dir.path(), 1), key(dir.path(), 2)];
        let signer = choose(pair(), &humans, None).unwrap();
        assert_eq!(signer.human.as_str(), "ada");
        assert_eq!(signer.key.public(), second.public());
        let wrong = choose(pair(), &humans, Some(&"gone".parse().unwrap()))
            .err()
            .unwrap();
        assert_eq!(wrong.code, "key-unknown");
        let misspelt = choose(pair(), &humans, Some(&"adda".parse().unwrap()))
            .err()
            .unwrap();
        assert!(
            misspelt.to_string().contains("did you mean `ada`?"),
            "{misspelt}"
        );
    }
}
