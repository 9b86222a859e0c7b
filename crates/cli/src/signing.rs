//! Signing with a person's SSH key, wherever it is.
//!
//! In memory for an unencrypted file; by the ssh-agent if it holds the key; else by
//! `ssh-keygen -Y sign` with the terminal passed through, which asks for the passphrase or for a
//! touch. What comes back is checked here, before anything is sent.

mod agent;
mod keygen;

#[cfg(test)]
mod tests;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use portcullis_evidence::sshsig::{ARMOR_MAX_BYTES, SshPrivateKey};
use portcullis_evidence::statement::UnsignedStatement;
use portcullis_model::statement::Envelope;
use portcullis_model::{PublicKey, Refusal};

pub(crate) use agent::Agent;

/// Where OpenSSH keeps keys that we can use, best proof first, below `~/.ssh`.
const DEFAULT_FILES: [&str; 4] = ["id_ed25519_sk", "id_ecdsa_sk", "id_ed25519", "id_ecdsa"];

/// A key that can sign now.
pub(crate) struct SigningKey {
    public: PublicKey,
    way: Way,
}

/// How it signs.
enum Way {
    /// Here.
    Memory(Box<SshPrivateKey>),
    /// Through the ssh-agent.
    Agent(Agent),
    /// Through `ssh-keygen`, by the private key's file.
    Keygen(PathBuf),
}

impl SigningKey {
    /// The key of `path`: a private key file, or a `.pub` file whose private half is with the
    /// ssh-agent or beside it.
    ///
    /// # Errors
    /// The file isn't a key that we can use, others may read it, or its private half is nowhere.
    pub(crate) fn of_file(path: &Path, agent: Option<&Agent>) -> Result<Self, Refusal> {
        let bytes = read(path)?;
        if let Some(public) = public_line(&bytes) {
            return Self::of_public(path, public?, agent);
        }
        Self::of_private(path, &bytes, agent)
    }

    /// Keys that could sign without being named: the ssh-agent's, then the default files.
    pub(crate) fn usual(agent: Option<&Agent>, home: Option<&Path>) -> Vec<Self> {
        let mut keys: Vec<Self> = Vec::new();
        if let Some(agent) = agent {
            for (public, _) in agent.keys().unwrap_or_default() {
                keys.push(Self {
                    public,
                    way: Way::Agent(agent.clone()),
                });
            }
        }
        for name in DEFAULT_FILES {
            let Some(path) = home.map(|home| home.join(".ssh").join(name)) else {
                continue;
            };
            // A default file that is missing or unusable is no error: nobody named it.
            if let Ok(key) = Self::of_file(&path, agent)
                && keys.iter().all(|known| known.public != key.public)
            {
                keys.push(key);
            }
        }
        keys
    }

    /// The public half.
    pub(crate) const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a statement. A hardware key waits for a touch, an encrypted file for its passphrase.
    ///
    /// # Errors
    /// The agent or `ssh-keygen` refused, or what came back isn't a signature over this.
    pub(crate) fn sign(&self, statement: &UnsignedStatement) -> Result<Envelope, Refusal> {
        let envelope = match &self.way {
            Way::Memory(key) => statement.sign_with(key)?,
            Way::Agent(agent) => {
                let answer = agent.ask(&statement.agent_request(&self.public))?;
                statement.attach_agent_answer(&self.public, &answer)?
            }
            Way::Keygen(file) => {
                let signature = keygen::sign(file, statement.namespace(), &statement.message())?;
                if *signature.claimed_key() != self.public {
                    return Err(Refusal::denied(
                        "signature-by-another-key",
                        "ssh-keygen signed with another key than was chosen",
                    )
                    .expected(self.public.fingerprint())
                    .received(signature.claimed_key().fingerprint()));
                }
                statement.attach(&[signature])?
            }
        };
        Ok(envelope.into())
    }

    fn of_public(path: &Path, public: PublicKey, agent: Option<&Agent>) -> Result<Self, Refusal> {
        if let Some(agent) = agent.filter(|agent| agent.holds(&public)) {
            return Ok(Self {
                public,
                way: Way::Agent(agent.clone()),
            });
        }
        let private = path.with_extension("");
        if path.extension().is_some_and(|extension| extension == "pub") && private.exists() {
            let bytes = read(&private)?;
            let key = Self::of_private(&private, &bytes, agent)?;
            if key.public == public {
                return Ok(key);
            }
        }
        Err(Refusal::unavailable(
            "private-key-missing",
            "the private half of this key is neither with an ssh-agent nor beside the file",
        )
        .expected(&format!(
            "{} in an ssh-agent, or the file {}",
            public.fingerprint(),
            private.display()
        ))
        .received(match agent {
            Some(_) => "an ssh-agent that does not hold it",
            None => "no ssh-agent (SSH_AUTH_SOCK is not set, or nobody answers there)",
        })
        .next("add it with `ssh-add FILE`, or name the private key's file with --key"))
    }

    fn of_private(path: &Path, bytes: &[u8], agent: Option<&Agent>) -> Result<Self, Refusal> {
        check_mode(path)?;
        let refusal = match SshPrivateKey::from_openssh(bytes) {
            Ok(key) => {
                return Ok(Self {
                    public: key.public_key().clone(),
                    way: Way::Memory(Box::new(key)),
                });
            }
            Err(refusal) => refusal,
        };
        // Encrypted files and hardware keys' handles state their public half in the clear.
        let Some(public) = public_half(bytes) else {
            return Err(refusal);
        };
        if let Some(agent) = agent.filter(|agent| agent.holds(&public)) {
            return Ok(Self {
                public,
                way: Way::Agent(agent.clone()),
            });
        }
        Ok(Self {
            public,
            way: Way::Keygen(path.to_owned()),
        })
    }
}

/// The public key of a key file, private or public.
///
/// # Errors
/// It isn't a key that we can use.
pub(crate) fn public_key(path: &Path) -> Result<PublicKey, Refusal> {
    let bytes = read(path)?;
    match public_line(&bytes) {
        Some(public) => public,
        None => public_half(&bytes).ok_or_else(|| {
            Refusal::malformed("SSH key file")
                .expected("an id_*.pub file, or OpenSSH's private key file")
                .received(&path.display().to_string())
                .next("make one with `ssh-keygen -t ed25519`")
        }),
    }
}

/// Public keys in `~/.ssh` that we can use, best proof first.
pub(crate) fn usual_public_keys(home: Option<&Path>) -> Vec<(PathBuf, PublicKey)> {
    DEFAULT_FILES
        .iter()
        .filter_map(|name| {
            let path = home?.join(".ssh").join(format!("{name}.pub"));
            let key = public_key(&path).ok()?;
            Some((path, key))
        })
        .collect()
}

/// A public key's line, if the file looks like one.
fn public_line(bytes: &[u8]) -> Option<Result<PublicKey, Refusal>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let line = text.lines().find(|line| !line.trim().is_empty())?;
    let looks = ["ssh-", "ecdsa-", "sk-"]
        .iter()
        .any(|prefix| line.starts_with(prefix));
    looks.then(|| line.parse())
}

fn public_half(bytes: &[u8]) -> Option<PublicKey> {
    let key = ssh_key::PrivateKey::from_openssh(bytes).ok()?;
    key.public_key().to_openssh().ok()?.parse().ok()
}

fn read(path: &Path) -> Result<Vec<u8>, Refusal> {
    let unreadable = |error: &std::io::Error| {
        Refusal::new(
            portcullis_model::RefusalKind::NotFound,
            "key-unreadable",
            format!("the key file {} can't be read", path.display()),
        )
        .received(&error.to_string())
        .next("make one with `ssh-keygen -t ed25519`, or name another with --key")
    };
    let size = std::fs::metadata(path)
        .map_err(|error| unreadable(&error))?
        .len();
    if size > ARMOR_MAX_BYTES as u64 {
        return Err(Refusal::malformed("SSH key file")
            .expected(&format!("at most {ARMOR_MAX_BYTES} bytes"))
            .received(&format!("{size} bytes")));
    }
    std::fs::read(path).map_err(|error| unreadable(&error))
}

/// As OpenSSH: a private key that others can read is nobody's.
fn check_mode(path: &Path) -> Result<(), Refusal> {
    let mode = std::fs::metadata(path).map_or(0, |found| found.permissions().mode());
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(
        Refusal::denied("key-file-open", "others may read this private key")
            .expected("mode 0600")
            .received(&format!("mode {:04o} of {}", mode & 0o7777, path.display()))
            .next(format!("chmod 600 {}", path.display())),
    )
}
