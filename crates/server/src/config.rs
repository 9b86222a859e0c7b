//! `portcullis.toml`: what is local to this server. Nothing in it grants authority; that is in the
//! ledger.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use portcullis_gateway::git::command::MIRROR_MAX_BYTES;
use portcullis_gateway::http::AddressRule;
use portcullis_model::document::from_toml;
use portcullis_model::host::normalise_host;
use portcullis_model::{EndpointId, Refusal, RefusalKind, Secret, Timestamp};
use portcullis_store::{PostgresOptions, StoreOptions};
use serde::Deserialize;

use crate::home::Home;

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
    /// Most that the mirror of one repository may take of the disk, in MiB of packs.
    #[serde(default = "default_mirror_max_mib")]
    pub mirror_max_mib: u64,
    /// Ports on loopback that model endpoints may use; others are refused as private addresses.
    #[serde(default)]
    pub loopback_endpoints: bool,
    /// Hosts that runs may reach at addresses that aren't public, or that no resolver knows: each
    /// name with its addresses. A task still has to name the host. The addresses stay closed under
    /// every other name.
    #[serde(default)]
    pub addresses: BTreeMap<String, Vec<IpAddr>>,
    /// A file with further certificate authorities for outgoing TLS, PEM.
    #[serde(default)]
    pub extra_authorities: Option<PathBuf>,
    /// A file outside the data directory in which the newest checkpoint is held, so that a data
    /// directory that went back in time is noticed.
    #[serde(default)]
    pub held_checkpoint: Option<PathBuf>,
    /// The clock was ahead, and entries up to this time are taken as they are: grants go on before
    /// the clock has come that far.
    #[serde(default)]
    pub clock_was_ahead_until: Option<Timestamp>,
    /// How the log is served to readers who do not reach `listen`.
    #[serde(default)]
    pub log: LogConfig,
    /// Where the ledger is kept.
    #[serde(default)]
    pub store: StoreConfig,
}

/// How the log is served besides the server's own listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// Where checkpoint, tiles and entries are served, read-only; nowhere if unset.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// Name of a file in `secrets/` with readers' tokens, one a line; everyone may read if unset.
    #[serde(default)]
    pub readers: Option<EndpointId>,
    /// Who is asked to cosign the log's checkpoints.
    #[serde(default, rename = "witness")]
    pub witnesses: Vec<WitnessConfig>,
    /// How many of them must have cosigned a checkpoint before readers of the log get it; all of
    /// them if unset.
    #[serde(default)]
    pub quorum: Option<usize>,
}

/// A witness (c2sp.org/tlog-witness).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// Its key as it prints it, `name+id+key`.
    pub key: String,
    /// The URL below which it takes checkpoints.
    pub url: String,
}

/// Where the ledger is kept: in SQLite below the home, unless a PostgreSQL is named.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// `postgres://USER@HOST:PORT/DATABASE`, or with `?host=/DIRECTORY` for a Unix socket.
    #[serde(default)]
    pub url: Option<String>,
    /// A file with the password, mode 0600; relative to the home. The environment
    /// `PORTCULLIS_STORE_PASSWORD` comes before it.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// A PEM file of authorities for the connection, beside the public ones.
    #[serde(default)]
    pub authorities: Option<PathBuf>,
    /// What others are told to ask while this server leads; `listen` unless it is said.
    #[serde(default)]
    pub advertise: Option<String>,
}

/// The environment that holds the password of the store.
pub const STORE_PASSWORD: &str = "PORTCULLIS_STORE_PASSWORD";
/// Longest password file, in bytes.
const PASSWORD_MAX_BYTES: u64 = 1_024;

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7117))
}

const fn default_sync_s() -> u64 {
    5
}

const fn default_mirror_max_mib() -> u64 {
    MIRROR_MAX_BYTES >> 20
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
        for (name, addresses) in &config.addresses {
            if normalise_host(name).ok().as_ref() != Some(name) || addresses.is_empty() {
                return Err(Refusal::malformed("configuration")
                    .expected("in `addresses`, lower-case host names, each with an address or more")
                    .received(name));
            }
        }
        config.log.check()?;
        Ok(config)
    }

    /// Which addresses runs may reach: public ones, this machine's own where the configuration says
    /// so, and those of the hosts that it names.
    pub fn address_rule(&self) -> AddressRule {
        let rule = if self.loopback_endpoints {
            AddressRule::also([
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ])
        } else {
            AddressRule::public()
        };
        rule.with_pinned(self.addresses.clone())
    }

    /// The store, with its password read.
    ///
    /// # Errors
    /// The password's file can't be read, or others can read it.
    pub fn store(&self, home: &Home) -> Result<StoreOptions, Refusal> {
        let Some(url) = self.store.url.clone() else {
            return Ok(StoreOptions::Sqlite);
        };
        let password = match (std::env::var(STORE_PASSWORD), &self.store.password_file) {
            (Ok(password), _) => Some(Secret::new(password)),
            (Err(_), Some(file)) => Some(read_password(&home.root().join(file))?),
            (Err(_), None) => None,
        };
        Ok(StoreOptions::Postgres(PostgresOptions {
            url,
            password,
            authorities: self.store.authorities.clone(),
            address: self.store.advertise.clone().unwrap_or_else(|| self.url()),
        }))
    }

    /// The server's own base URL, as it stands in proofs of possession.
    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }
}

impl LogConfig {
    fn check(&self) -> Result<(), Refusal> {
        let wrong = |code: &str, message: &str| Refusal::new(RefusalKind::Malformed, code, message);
        match (self.listen, &self.readers) {
            (None, Some(_)) => Err(wrong(
                "log-readers-without-listener",
                "`log.readers` says who may read where nobody can",
            )
            .next("set `log.listen`, or remove `log.readers`")),
            (Some(address), Some(_)) if !address.ip().is_loopback() => Err(wrong(
                "log-token-in-the-clear",
                "readers' tokens must not travel over plain HTTP",
            )
            .expected("an address such as 127.0.0.1:7118, behind a proxy that speaks TLS")
            .received(&address.to_string())
            .next("let a TLS proxy forward to a loopback address, or serve everyone")),
            _ => Ok(()),
        }
    }
}

fn read_password(file: &Path) -> Result<Secret<String>, Refusal> {
    use std::os::unix::fs::PermissionsExt as _;
    let bytes = Home::read(file, PASSWORD_MAX_BYTES)?;
    let mode = std::fs::metadata(file).map_or(0o777, |found| found.permissions().mode());
    if mode & 0o077 != 0 {
        return Err(Refusal::denied(
            "password-file-open",
            format!("others can read {}", file.display()),
        )
        .expected("mode 0600")
        .received(&format!("mode {:04o}", mode & 0o7777))
        .next(format!("chmod 600 {}", file.display())));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Refusal::malformed("password file").expected("one line of text"))?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned()))
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
    fn the_store_is_sqlite_unless_a_postgresql_is_named_and_its_password_is_for_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        let plain = Config::read("").unwrap();
        assert!(matches!(plain.store(&home), Ok(StoreOptions::Sqlite)));
        let named = Config::read(
            "[store]\nurl = 'postgres://log@/log?host=/run/postgresql'\npassword_file = 'word'",
        )
        .unwrap();
        assert_eq!(named.store(&home).unwrap_err().code, "file-unreadable");
        let word = dir.path().join("word");
        std::fs::write(&word, "hunter2\n").unwrap();
        let mode = |mode| {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&word, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(0o640);
        let refusal = named.store(&home).unwrap_err();
        assert_eq!(refusal.code, "password-file-open");
        mode(0o600);
        let Ok(StoreOptions::Postgres(options)) = named.store(&home) else {
            panic!("it is PostgreSQL")
        };
        assert_eq!(options.address, "http://127.0.0.1:7117");
        assert_eq!(options.password.as_ref().unwrap().expose(), "hunter2");
        assert!(!format!("{options:?}").contains("hunter2"));
    }

    #[test]
    fn other_addresses_and_misspelt_settings_are_refused() {
        assert!(Config::read("listen = '0.0.0.0:80'").is_err());
        for bad in [
            "'A.example' = ['10.0.0.1']",
            "'a.example' = []",
            "'a.example' = ['b']",
            "'127.1' = ['127.0.0.1']",
        ] {
            assert!(
                Config::read(&format!("[addresses]\n{bad}\n")).is_err(),
                "{bad}"
            );
        }
        for (bad, code) in [
            (
                "[log]\nreaders = 'log-readers'",
                "log-readers-without-listener",
            ),
            (
                "[log]\nreaders = 'log-readers'\nlisten = '0.0.0.0:7118'",
                "log-token-in-the-clear",
            ),
        ] {
            assert_eq!(Config::read(bad).unwrap_err().code, code);
        }
        let open = Config::read("[log]\nlisten = '0.0.0.0:7118'").unwrap();
        assert_eq!(open.log.listen.unwrap().port(), 7118);
        let refusal = Config::read("listn = '127.0.0.1:1'").unwrap_err();
        assert!(
            refusal.to_string().contains("did you mean `listen`?"),
            "{refusal}"
        );
    }
}
