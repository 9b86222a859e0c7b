//! Where a measured ledger is kept, and what its database wrote.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use portcullis_store::{PostgresOptions, StoreOptions};
use tokio::runtime::Runtime;

use crate::toy::postgres_server::Server;

/// One of the two stores.
pub(crate) enum Place<'a> {
    /// In the directory.
    Sqlite,
    /// On a server.
    Postgres(&'a Postgres),
}

/// A PostgreSQL that is measured.
pub(crate) struct Postgres {
    url: String,
    count: AtomicU32,
    /// A server of our own and where it stands: ends with this value.
    _own: Option<(Server, tempfile::TempDir)>,
}

impl Postgres {
    pub(crate) fn at(runtime: &Runtime, store: &str, dir: &Path) -> Self {
        let own = (store == "own").then(|| {
            let place = tempfile::tempdir_in(dir).unwrap();
            std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
            (Server::own_in(place.path(), ""), place)
        });
        let url = match &own {
            Some((server, _)) => server.url("postgres"),
            None => store.to_owned(),
        };
        let postgres = Self {
            url,
            count: AtomicU32::new(0),
            _own: own,
        };
        println!(
            "PostgreSQL {}",
            postgres.ask(runtime, "SHOW server_version")
        );
        postgres
    }

    /// The first value that a statement gives, as text.
    fn ask(&self, runtime: &Runtime, statement: &str) -> String {
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls)
                .await
                .unwrap();
            let connection = tokio::spawn(connection);
            let rows = client.simple_query(statement).await.unwrap();
            drop(client);
            connection.await.unwrap().unwrap();
            rows.iter()
                .find_map(|row| match row {
                    tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                })
                .unwrap_or_default()
        })
    }

    /// The URL of a new database.
    fn database(&self, runtime: &Runtime) -> String {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let name = format!("rates_{}_{number}", std::process::id());
        self.ask(runtime, &format!("CREATE DATABASE {name}"));
        let (address, rest) = self.url.split_once('?').unwrap_or((&self.url, ""));
        let (server, _) = address.rsplit_once('/').unwrap();
        format!("{server}/{name}?{rest}")
    }
}

impl Place<'_> {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres(_) => "PostgreSQL",
        }
    }

    /// A place for a new ledger.
    pub(crate) fn store(&self, runtime: &Runtime) -> StoreOptions {
        match self {
            Self::Sqlite => StoreOptions::Sqlite,
            Self::Postgres(postgres) => StoreOptions::Postgres(PostgresOptions {
                url: postgres.database(runtime),
                password: None,
                authorities: None,
                address: "http://127.0.0.1:1".to_owned(),
            }),
        }
    }

    /// Bytes that a server of its own wrote so far: its write-ahead log. Nothing for a database that
    /// is a part of this process.
    pub(crate) fn written(&self, runtime: &Runtime) -> u64 {
        match self {
            Self::Sqlite => 0,
            Self::Postgres(postgres) => postgres
                .ask(
                    runtime,
                    "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint",
                )
                .parse()
                .unwrap(),
        }
    }
}
