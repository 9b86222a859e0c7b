//! `portcullis.toml`: what is local to this server. Nothing in it grants authority; that is in the
//! ledger.

use std::net::SocketAddr;
use std::path::PathBuf;

use portcullis_model::document::from_toml;
use portcullis_model::{Refusal, RefusalKind};
use serde::Deserialize;

/// The configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the server listens. Loopback only: TLS is not offered, and reads are open to whoever
    /// connects.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Whether prompts and answers of model endpoints are kept, encrypted.
    #[serde(default)]
    pub keep_bodies: bool,
    /// How often branches upstream are looked at, in seconds.
    #[serde(default = "default_sync_s")]
    pub sync_every_s: u64,
    /// Ports on loopback that model endpoints may use; others are refused as private addresses.
    #[serde(default)]
    pub loopback_endpoints: bool,
    /// A file with further certificate authorities for outgoing TLS, PEM.
    #[serde(default)]
    pub extra_authorities: Option<PathBuf>,
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7117))
}

const fn default_sync_s() -> u64 {
    5
}

impl Config {
    /// The file that `init` writes; every setting stands in it with its default.
    pub const TEMPLATE: &str = include_str!("portcullis.toml");

    /// Reads a configuration.
    ///
    /// # Errors
    /// Not TOML, unknown fields, or an address outside this machine.
    pub fn read(text: &str) -> Result<Self, Refusal> {
        let config: Self = from_toml("configuration", text)?;
        if !config.listen.ip().is_loopback() {
            return Err(Refusal::new(
                RefusalKind::Malformed,
                "listen-not-loopback",
                "the server listens on loopback only: it offers no TLS, and its reads are open",
            )
            .expected("an address such as 127.0.0.1:7117")
            .received(&config.listen.to_string())
            .next("reach it from another machine through an SSH tunnel to its loopback address"));
        }
        Ok(config)
    }

    /// The server's own base URL, as it stands in proofs of possession.
    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_says_the_defaults() {
        let written = Config::read(Config::TEMPLATE).unwrap();
        let empty = Config::read("").unwrap();
        assert_eq!(format!("{written:?}"), format!("{empty:?}"));
    }

    #[test]
    fn other_addresses_and_misspelt_settings_are_refused() {
        assert!(Config::read("listen = '0.0.0.0:80'").is_err());
        let refusal = Config::read("listn = '127.0.0.1:1'").unwrap_err();
        assert!(
            refusal.to_string().contains("did you mean `listen`?"),
            "{refusal}"
        );
    }
}
