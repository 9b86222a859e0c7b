//! Public keys of people, hosts and services, and what a signature by them is worth.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::serde_as_text;
use crate::refusal::Refusal;

/// What a key's signature says about the person behind it, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyClass {
    /// Whoever could read the key file.
    Software,
    /// Someone touched the hardware (`sk-` keys sign with user presence).
    Presence,
    /// Someone touched it and proved who they are (passkey, or attested `sk-` key with
    /// verification).
    Verified,
}

impl fmt::Display for KeyClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Software => "software",
            Self::Presence => "presence",
            Self::Verified => "verified",
        })
    }
}

/// An SSH public key in OpenSSH's one-line form, without its comment.
///
/// Algorithms: `ssh-ed25519`, `ecdsa-sha2-nistp256|384|521`, and their `sk-` hardware forms.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey {
    line: String,
    fingerprint: String,
    class: KeyClass,
}

impl PublicKey {
    /// `SHA256:` and unpadded base64, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The most that a signature by this key can prove: presence for `sk-` keys, else software.
    /// Whether one signature had presence stands in its flags.
    pub const fn class(&self) -> KeyClass {
        self.class
    }

    /// `algorithm base64`, as it stands in an `authorized_keys` file.
    pub fn as_str(&self) -> &str {
        &self.line
    }
}

impl FromStr for PublicKey {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let malformed = |received: &str| {
            Refusal::malformed("SSH public key")
                .expected("one line of an id_*.pub file: ed25519, ecdsa, or an sk- key")
                .received(received)
                .next("make one with `ssh-keygen -t ed25519`, or `ssh-keygen -t ed25519-sk` for a hardware key")
        };
        let mut key = ssh_key::PublicKey::from_openssh(text.trim())
            .map_err(|error| malformed(&format!("{} ({error})", text.trim())))?;
        key.set_comment("");
        let class = match key.algorithm() {
            ssh_key::Algorithm::Ed25519 | ssh_key::Algorithm::Ecdsa { .. } => KeyClass::Software,
            ssh_key::Algorithm::SkEd25519 | ssh_key::Algorithm::SkEcdsaSha2NistP256 => {
                KeyClass::Presence
            }
            other => return Err(malformed(other.as_str())),
        };
        let fingerprint = key.fingerprint(ssh_key::HashAlg::Sha256).to_string();
        let line = key
            .to_openssh()
            .map_err(|error| malformed(&error.to_string()))?;
        Ok(Self {
            line: line.trim().to_owned(),
            fingerprint,
            class,
        })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint)
    }
}

serde_as_text!(PublicKey);

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN76zuqnjypL54/w4763l7q1Sn3IBYHptJ5wcYfEWkzI";

    #[test]
    fn the_comment_is_not_part_of_the_key() {
        let key: PublicKey = format!("{ED25519} ada@laptop\n").parse().unwrap();
        assert_eq!(key.as_str(), ED25519);
        assert!(key.fingerprint().starts_with("SHA256:"));
        assert_eq!(key.class(), KeyClass::Software);
    }

    #[test]
    fn other_algorithms_are_refused_with_the_way_forward() {
        let refusal = "ssh-rsa AAAA".parse::<PublicKey>().unwrap_err().to_string();
        assert!(refusal.contains("ssh-keygen -t ed25519"), "{refusal}");
    }
}
