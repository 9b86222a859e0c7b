//! Which PostgreSQL, as whom, and on what terms: what is checked before it is trusted with a log.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use portcullis_model::{Refusal, RefusalKind, Secret};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::link::Failure;
use crate::limits::{POSTGRES_CONNECT_MS, POSTGRES_STATEMENT_MS};

/// How to reach a ledger in PostgreSQL.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://USER@HOST:PORT/DATABASE`, or with `?host=/DIRECTORY` for a Unix socket. Holds
    /// no password.
    pub url: String,
    /// The password, if the server asks for one.
    pub password: Option<Secret<String>>,
    /// A PEM file of authorities for TLS, beside the public ones.
    pub authorities: Option<PathBuf>,
    /// Where this process answers, told to those who ask a standby for what only the leader does.
    pub address: String,
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("url", &self.url)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// A checked way to connect.
#[derive(Clone)]
pub(crate) struct Target {
    config: Config,
    tls: MakeRustlsConnect,
}

/// Each session, whatever the database's defaults are. What bounds a statement bounds how long a
/// row can stay locked by one who has gone.
fn session() -> String {
    format!(
        "SET statement_timeout = {POSTGRES_STATEMENT_MS};
         SET lock_timeout = {POSTGRES_STATEMENT_MS};
         SET idle_in_transaction_session_timeout = {POSTGRES_STATEMENT_MS};
         SET default_transaction_isolation = 'read committed';
         SET client_min_messages = warning;
         SET search_path = pg_catalog"
    )
}

impl Target {
    pub(crate) fn new(options: &PostgresOptions) -> Result<Self, Refusal> {
        let mut config = Config::from_str(&options.url).map_err(|error| {
            malformed("expected a URL of PostgreSQL").received(&error.to_string())
        })?;
        if config.get_password().is_some() {
            return Err(malformed("the store's url holds a password").next(
                "take it out, put it into a file and name that as `password_file`, or into PORTCULLIS_STORE_PASSWORD",
            ));
        }
        if config.get_hosts().len() != 1 || config.get_dbname().is_none() {
            return Err(malformed(
                "the store's url names not one host and one database",
            ));
        }
        if let Some(password) = &options.password {
            config.password(password.expose());
        }
        config
            .connect_timeout(std::time::Duration::from_millis(POSTGRES_CONNECT_MS))
            .tcp_user_timeout(std::time::Duration::from_millis(POSTGRES_CONNECT_MS))
            .keepalives_idle(std::time::Duration::from_millis(POSTGRES_CONNECT_MS))
            .application_name("portcullis");
        if !is_local(&config) {
            // Entries cross a network: never in the clear.
            config.ssl_mode(SslMode::Require);
        }
        Ok(Self {
            config,
            tls: MakeRustlsConnect::new(tls(options.authorities.as_deref())?),
        })
    }

    /// Connects, prepares the session, and checks that the server keeps what it says it keeps.
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to PostgreSQL ended");
            }
        });
        client.batch_execute(&session()).await?;
        Ok(client)
    }
}

/// What a server must do for a commit to be durable, asked at every start.
pub(crate) fn check_server(link: &super::link::Link) -> Result<(), Refusal> {
    let rows = link
        .run(|client| async move {
            client
                .query(
                    "SELECT name, setting FROM pg_settings WHERE name IN
                     ('server_version_num', 'fsync', 'synchronous_commit', 'full_page_writes')",
                    &[],
                )
                .await
        })
        .map_err(|failure| failure.refusal("ask PostgreSQL for its settings"))?;
    for row in rows {
        let (name, setting): (String, String) = (row.get(0), row.get(1));
        match name.as_str() {
            "server_version_num" if setting.parse::<u32>().unwrap_or(0) < 150_000 => {
                return Err(Refusal::new(
                    RefusalKind::Unavailable,
                    "postgres-version",
                    "this PostgreSQL is too old",
                )
                .expected("version 15 or later")
                .received(&setting)
                .next("upgrade the server with `pg_upgrade`, or name another one"));
            }
            "fsync" | "synchronous_commit" | "full_page_writes" if setting == "off" => {
                return Err(Refusal::new(
                    RefusalKind::Unavailable,
                    "postgres-not-durable",
                    "this PostgreSQL answers before a commit is on the disk",
                )
                .expected(&format!("{name} = on"))
                .received(&format!("{name} = off"))
                .next(format!(
                    "set `{name} = on` in postgresql.conf (and for the role and the database, if it is set there), and reload the server"
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A Unix socket, or this machine.
fn is_local(config: &Config) -> bool {
    config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|address| address.is_loopback())
        }
    })
}

fn malformed(message: &str) -> Refusal {
    Refusal::new(RefusalKind::Malformed, "store-url", message)
        .expected("postgres://USER@HOST:PORT/DATABASE, or postgres://USER@/DATABASE?host=/DIRECTORY for a Unix socket")
}

fn tls(authorities: Option<&Path>) -> Result<rustls::ClientConfig, Refusal> {
    let mut roots = rustls::RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(file) = authorities {
        let unreadable = |why: String| {
            Refusal::unavailable(
                "ca-file-unreadable",
                format!("{} holds no authorities", file.display()),
            )
            .expected("a PEM file of certificates")
            .received(&why)
        };
        let found = CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unreadable(error.to_string()))?;
        if found.is_empty() {
            return Err(unreadable("no certificate".to_owned()));
        }
        for certificate in found {
            roots
                .add(certificate)
                .map_err(|error| unreadable(error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_root_certificates(roots).with_no_client_auth())
        .map_err(|error| Refusal::internal(format!("TLS can't be set up: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> PostgresOptions {
        PostgresOptions {
            url: url.to_owned(),
            password: None,
            authorities: None,
            address: String::new(),
        }
    }

    #[test]
    fn a_url_that_holds_a_password_or_is_none_is_refused_without_being_repeated() {
        for url in [
            "postgres://log:hunter2@db.example/portcullis",
            "postgres://db.example",
            "postgres://a,b/portcullis",
            "mysql://db.example/portcullis",
            "postgres://log@db.example/portcullis?sslmode=sideways",
        ] {
            let refusal = Target::new(&options(url)).err().unwrap();
            assert_eq!(refusal.code, "store-url", "{url}");
            assert!(!refusal.to_string().contains("hunter2"), "{refusal}");
        }
    }

    #[test]
    fn another_machine_is_reached_by_tls_alone() {
        let mode = |url| Target::new(&options(url)).unwrap().config.get_ssl_mode();
        assert_eq!(
            mode("postgres://log@db.example/portcullis?sslmode=disable"),
            SslMode::Require
        );
        assert_ne!(
            mode("postgres://log@127.0.0.1/portcullis"),
            SslMode::Require
        );
        assert_ne!(
            mode("postgres://log@/portcullis?host=/run/postgresql"),
            SslMode::Require
        );
    }
}
