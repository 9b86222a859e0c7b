//! What PostgreSQL can say no with: a password, a connection in the clear, a full disk. Each is told
//! by what it is, nothing is granted meanwhile, and all goes on once it is mended.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test may panic, and says why it could not run"
)]

mod toy;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_model::Secret;
use portcullis_store::{
    CheckpointSigner as _, Faults, Ledger, LedgerOptions, PostgresOptions, RecordedIn,
    StoreOptions, VerifyOptions, verify_store,
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use toy::postgres_server::Server;
use toy::{Command as Ask, Toy, grant, trip};

fn options(url: String, password: Option<&str>, authorities: Option<&Path>) -> LedgerOptions {
    LedgerOptions {
        store: StoreOptions::Postgres(PostgresOptions {
            url,
            password: password.map(|text| Secret::new(text.to_owned())),
            authorities: authorities.map(Path::to_owned),
            address: "http://127.0.0.1:1".to_owned(),
        }),
        ..toy::options(Faults::default())
    }
}

#[test]
fn a_wrong_password_or_none_is_told_and_never_repeated() {
    let server = Server::own("");
    server.sql(
        "postgres",
        "CREATE ROLE guarded LOGIN PASSWORD 'the-right-one'; \
         GRANT CREATE ON DATABASE postgres TO guarded",
    );
    server.admit("local all guarded scram-sha-256\nlocal all all trust\n");
    let dir = tempfile::tempdir().unwrap();
    let open = |password| {
        let url = server.url_as("guarded", "postgres");
        Ledger::<Toy>::open(&dir.path().join("a"), options(url, password, None))
    };
    for password in [None, Some("hunter2-wrong")] {
        let refusal = open(password).err().unwrap();
        assert_eq!(refusal.code, "postgres-denied", "{refusal}");
        assert!(refusal.next.is_some(), "{refusal}");
        assert!(!refusal.to_string().contains("hunter2"), "{refusal}");
    }
    let (ledger, _) = open(Some("the-right-one")).unwrap();
    ledger.handle().submit_blocking(grant(1)).unwrap();
}

#[test]
fn where_tls_is_required_it_is_spoken_and_checked() {
    let keys = tempfile::tempdir().unwrap();
    fs::set_permissions(keys.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (key, certificate) = (keys.path().join("key"), keys.path().join("certificate"));
    // An address of its own on loopback, so that the usual port is free there.
    let number = std::process::id();
    let address = format!(
        "127.{}.{}.{}",
        64 + number % 64,
        number / 64 % 256,
        1 + number / 16_384 % 250
    );
    let made = rcgen::generate_simple_self_signed(vec![address.clone()]).unwrap();
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    Server::give(&key);
    let server = Server::own(&format!(
        "listen_addresses = '{address}'\nssl = on\nssl_key_file = '{}'\nssl_cert_file = '{}'",
        key.display(),
        certificate.display()
    ));
    server.admit("local all all trust\nhostssl all all all trust\n");
    let dir = tempfile::tempdir().unwrap();
    let url = format!("postgres://log@{address}/postgres");
    let open = |url: &str, authorities| {
        Ledger::<Toy>::open(
            &dir.path().join("a"),
            options(url.to_owned(), None, authorities),
        )
    };
    // In the clear the server refuses; without its authority we do.
    let refusal = open(&format!("{url}?sslmode=disable"), None).err().unwrap();
    assert_eq!(refusal.code, "postgres-denied", "{refusal}");
    let refusal = open(&url, None).err().unwrap();
    assert_eq!(refusal.code, "postgres-away", "{refusal}");
    assert!(
        refusal.to_string().to_lowercase().contains("certificate"),
        "{refusal}"
    );
    let (ledger, _) = open(&url, Some(&certificate)).unwrap();
    ledger.handle().submit_blocking(grant(1)).unwrap();
    let spoken = server.sql(
        "postgres",
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE application_name = 'portcullis' AND NOT ssl",
    );
    assert_eq!(spoken, "0", "every connection is by TLS");
    drop(ledger);
}

/// A tmpfs for the log's entries alone.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let options = c"size=6m,mode=0755";
        match mount("tmpfs", at.path(), "tmpfs", MountFlags::empty(), options) {
            Ok(()) => Some(Self(at)),
            Err(error) => {
                eprintln!("skipped: this needs root, to mount a small disk ({error})");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _still_mounted = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// 24 KB that no database makes smaller.
fn incompressible(seed: u64) -> String {
    (0..1_500)
        .map(|at| {
            format!(
                "{:016x}",
                (at + seed * 1_500).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            )
        })
        .collect()
}

#[test]
fn a_full_disk_of_postgresql_stops_grants_not_the_breaker() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let server = Server::own("");
    let (space, ballast) = (disk.0.path().join("space"), disk.0.path().join("ballast"));
    fs::create_dir(&space).unwrap();
    Server::give(&space);
    server.sql(
        "postgres",
        &format!("CREATE TABLESPACE small LOCATION '{}'", space.display()),
    );
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("a");
    let url = server.url("postgres");
    let (ledger, _) = Ledger::<Toy>::open(&place, options(url.clone(), None, None)).unwrap();
    let handle = ledger.handle();
    handle.submit_blocking(grant(1)).unwrap();
    server.sql(
        "postgres",
        "ALTER TABLE portcullis.entries SET TABLESPACE small",
    );
    fs::write(&ballast, vec![7; 2 * 1024 * 1024]).unwrap();
    let mut granted = 1;
    let refusal = loop {
        assert!(granted < 2_000, "the disk never got full");
        let body = incompressible(granted);
        match handle.submit_blocking(Ask::Grant {
            nonce: 100 + granted,
            body,
        }) {
            Ok(_) => granted += 1,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(refusal.code, "disk-full", "{refusal}");
    assert!(refusal.to_string().contains("PostgreSQL"), "{refusal}");
    // As large, so that no page has room for it.
    let receipt = handle.submit_blocking(trip(&incompressible(0))).unwrap();
    assert_eq!(
        (receipt.first, receipt.recorded),
        (granted, RecordedIn::Reserve)
    );
    assert_eq!(
        handle.entries(0, 1_000).unwrap().len() as u64,
        granted.min(1_000)
    );
    let writing = handle.writing();
    assert_eq!(writing.failed.unwrap().refusal.code, "disk-full");
    assert_eq!(writing.reserved, 1);
    fs::remove_file(&ballast).unwrap();
    let begun = Instant::now();
    while handle.checkpoint().size <= granted || !handle.writing().grants() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "it goes on by itself"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    drop((ledger, handle));
    let key = toy::key();
    let report = verify_store::<Toy>(
        &place,
        &options(url, None, None).store,
        &VerifyOptions {
            key: key.verifier(),
            held: None,
            blobs_named_by: None,
        },
    )
    .unwrap();
    assert!(
        report.is_sound() && report.size == granted + 1,
        "{report:?}"
    );
    drop(server);
}
