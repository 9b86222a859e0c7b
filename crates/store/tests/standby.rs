//! One database, several processes: who may write, what a takeover leaves behind, and what
//! PostgreSQL can do to a commit.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod toy;

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis_model::RefusalKind;
use portcullis_store::{
    CheckpointSigner, Faults, Ledger, LedgerOptions, PostgresOptions, RecordedIn, Step,
    StoreOptions, VerifyOptions, verify_store,
};
use rustix::process::{Pid, Signal, kill_process};
use toy::postgres_server::{self, Server};
use toy::{Event, Toy, grant, trip};

const URL: &str = "PORTCULLIS_STANDBY_URL";
const DIR: &str = "PORTCULLIS_STANDBY_DIR";
const FIRST: &str = "PORTCULLIS_STANDBY_FIRST";

fn options(url: &str, name: &str) -> LedgerOptions {
    options_with(url, name, Faults::default())
}

fn options_with(url: &str, name: &str, faults: Faults) -> LedgerOptions {
    LedgerOptions {
        store: StoreOptions::Postgres(PostgresOptions {
            url: url.to_owned(),
            password: None,
            authorities: None,
            address: format!("http://{name}.example"),
        }),
        ..toy::options(faults)
    }
}

/// A database of the shared server, named by a directory that lives as long as the test.
fn database() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let server = postgres_server::shared();
    let url = server.url(&server.database_of(dir.path()));
    (dir, url)
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn history(ledger: &Ledger<Toy>) -> Vec<String> {
    let handle = ledger.handle();
    (0..handle.size())
        .map(|index| match handle.event(index).unwrap() {
            Event::Granted { nonce, .. } => format!("grant {nonce}"),
            Event::Tripped { why, .. } => format!("trip {why}"),
        })
        .collect()
}

/// Opens to lead as soon as nobody else does.
fn take_over(dir: &Path, url: &str, name: &str) -> Ledger<Toy> {
    let begun = Instant::now();
    loop {
        match Ledger::open(dir, options(url, name)) {
            Ok((ledger, _)) => return ledger,
            Err(refusal) => assert_eq!(refusal.code, "another-leads", "{refusal}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no takeover");
    }
}

fn check(dir: &Path, url: &str) {
    let key = toy::key();
    let report = verify_store::<Toy>(
        dir,
        &options(url, "nobody").store,
        &VerifyOptions {
            key: key.verifier(),
            held: None,
            blobs_named_by: None,
        },
    )
    .unwrap();
    assert!(report.is_sound(), "{report:?}");
}

#[test]
fn a_standby_reads_what_is_signed_refuses_what_writes_and_takes_over() {
    let (dir, url) = database();
    let (leader, _) = Ledger::<Toy>::open(&dir.path().join("a"), options(&url, "a")).unwrap();
    for nonce in 0..20 {
        leader.handle().submit_blocking(grant(nonce)).unwrap();
    }
    let place = dir.path().join("b");
    let refusal = Ledger::<Toy>::open(&place, options(&url, "b"))
        .err()
        .unwrap();
    assert_eq!(refusal.code, "another-leads");
    assert!(
        refusal.to_string().contains("http://a.example"),
        "{refusal}"
    );

    let (standby, _) = Ledger::<Toy>::follow(&place, &options(&url, "b")).unwrap();
    let handle = standby.handle();
    wait_until("the standby has it all", || handle.size() == 20);
    assert_eq!(*handle.state(), *leader.handle().state());
    assert_eq!(handle.root(20).unwrap(), leader.handle().root(20).unwrap());
    assert!(handle.as_of().is_some() && leader.handle().as_of().is_none());
    assert_eq!(handle.leader().as_deref(), Some("http://a.example"));
    for command in [grant(99), trip("here")] {
        let refusal = handle.submit_blocking(command).unwrap_err();
        assert_eq!(
            (refusal.kind, refusal.code.as_str()),
            (RefusalKind::Unavailable, "not-leader")
        );
        assert!(
            refusal.to_string().contains("http://a.example"),
            "{refusal}"
        );
    }
    // Given back, the lead is free at once.
    leader.close().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(handle.ended());
    standby.close().unwrap();
    let (leader, _) = Ledger::<Toy>::open(&place, options(&url, "b")).unwrap();
    assert_eq!(
        leader.handle().submit_blocking(grant(20)).unwrap().first,
        20
    );
    drop(leader);
    check(&place, &url);
}

/// A process that leads, and says what was granted.
struct Leader {
    child: Child,
    lines: Receiver<String>,
}

impl Leader {
    fn start(dir: &Path, url: &str, first: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_leads", "--ignored", "--nocapture"])
            .env(DIR, dir)
            .env(URL, url)
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(at) = line.find("said ") {
                    let _test_over = sender.send(line[at + 5..].to_owned());
                }
            }
        });
        Self { child, lines }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// What it said so far; waits for `least` lines.
    fn said(&self, least: usize) -> Vec<String> {
        let mut said = Vec::new();
        while said.len() < least {
            said.push(self.lines.recv_timeout(Duration::from_secs(60)).unwrap());
        }
        said.extend(self.lines.try_iter());
        said
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
#[ignore = "the child of the tests here"]
fn child_that_leads() {
    let Ok(url) = std::env::var(URL) else { return };
    let dir = std::env::var(DIR).unwrap();
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let (ledger, _) = Ledger::<Toy>::open(Path::new(&dir), options(&url, "child")).unwrap();
    let handle = ledger.handle();
    for nonce in first.. {
        let line = match handle.submit_blocking(grant(nonce)) {
            Ok(receipt) => format!("said {} grant {nonce}\n", receipt.first),
            Err(refusal) => format!("said {}\n", refusal.code),
        };
        let ended = line.contains("not-leader");
        std::io::stdout().write_all(line.as_bytes()).unwrap();
        if ended {
            return;
        }
    }
}

/// Every "index grant nonce" that was said stands at its index.
fn all_stand(history: &[String], said: &[String]) {
    for line in said {
        if let Some((index, what)) = line.split_once(' ') {
            let index: usize = index.parse().unwrap();
            assert_eq!(history.get(index).map(String::as_str), Some(what));
        }
    }
}

#[test]
fn a_leader_that_is_killed_is_followed_within_seconds_and_nothing_is_lost() {
    let (dir, url) = database();
    let mut leader = Leader::start(&dir.path().join("a"), &url, 0);
    let mut said = leader.said(20);
    leader.signal(Signal::KILL);
    leader.child.wait().unwrap();
    said.extend(leader.lines.iter());
    let successor = take_over(&dir.path().join("b"), &url, "b");
    all_stand(&history(&successor), &said);
    successor
        .handle()
        .submit_blocking(grant(1_000_000))
        .unwrap();
    drop(successor);
    check(&dir.path().join("b"), &url);
}

#[test]
fn a_leader_that_was_stopped_neither_commits_nor_grants_after_a_takeover() {
    let (dir, url) = database();
    let leader = Leader::start(&dir.path().join("a"), &url, 0);
    let mut said = leader.said(20);
    leader.signal(Signal::STOP);
    let successor = take_over(&dir.path().join("b"), &url, "b");
    successor.handle().submit_blocking(trip("after")).unwrap();
    let before = history(&successor);
    // What it said by now may still be in the pipe, and is of its own time.
    said.extend(leader.lines.try_iter());
    leader.signal(Signal::CONT);
    let after = leader.said(1);
    let last = after.last().unwrap().clone();
    let granted: Vec<String> = after
        .iter()
        .filter(|line| line.contains(" grant "))
        .cloned()
        .collect();
    let mut end = last;
    while end != "not-leader" {
        end = leader.lines.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(!end.contains(" grant "), "granted after a takeover: {end}");
    }
    all_stand(&before, &said);
    assert!(granted.is_empty(), "granted after a takeover: {granted:?}");
    assert_eq!(history(&successor), before, "it wrote after a takeover");
    drop(successor);
    check(&dir.path().join("b"), &url);
}

#[test]
fn a_commit_whose_answer_was_lost_is_looked_for_before_anybody_is_answered() {
    let (dir, url) = database();
    let database = postgres_server::shared().database_of(dir.path());
    let place = dir.path().join("a");
    let cut = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&cut);
    let name = database.clone();
    // The writer's connection is cut right before it is used: the statement may or may not arrive.
    let faults = Faults::new(move |step| {
        if step == Step::Inserted && asked.swap(false, Ordering::SeqCst) {
            postgres_server::shared().sql(
                "postgres",
                &format!(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE datname = '{name}'"
                ),
            );
        }
        Ok(())
    });
    let (ledger, _) = Ledger::<Toy>::open(&place, options_with(&url, "a", faults)).unwrap();
    let handle = ledger.handle();
    let mut granted = Vec::new();
    for nonce in 0..40 {
        cut.store(nonce % 4 == 3, Ordering::SeqCst);
        match handle.submit_blocking(grant(nonce)) {
            Ok(receipt) => granted.push((receipt.first, format!("grant {nonce}"))),
            Err(refusal) => assert_eq!(refusal.kind, RefusalKind::Unavailable, "{refusal}"),
        }
    }
    // What was refused is not there, and can be asked for again.
    let stands = history(&ledger);
    assert_eq!(stands.len(), granted.len());
    for (index, what) in &granted {
        assert_eq!(stands[usize::try_from(*index).unwrap()], *what);
    }
    assert!(granted.len() >= 30, "{}", granted.len());
    drop(ledger);
    check(&place, &url);
}

#[test]
fn postgresql_that_goes_away_stops_grants_not_the_breaker_and_comes_back() {
    let server = Server::own("");
    let dir = tempfile::tempdir().unwrap();
    let url = server.url("postgres");
    let place = dir.path().join("a");
    let (ledger, _) = Ledger::<Toy>::open(&place, options(&url, "a")).unwrap();
    let handle = ledger.handle();
    handle.submit_blocking(grant(1)).unwrap();
    // In the middle of a stream of commits.
    let granted = Arc::new(Mutex::new(Vec::new()));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 1..5_u64 {
            let (granted, done, handle) = (Arc::clone(&granted), &done, handle.clone());
            scope.spawn(move || {
                for number in 0.. {
                    if done.load(Ordering::SeqCst) {
                        return;
                    }
                    let nonce = writer * 1_000_000 + number;
                    if let Ok(receipt) = handle.submit_blocking(grant(nonce)) {
                        granted.lock().unwrap().push((receipt.first, nonce));
                    }
                }
            });
        }
        wait_until("grants flow", || granted.lock().unwrap().len() > 20);
        server.crash_and_restart();
        let before = granted.lock().unwrap().len();
        wait_until("grants flow again", || {
            granted.lock().unwrap().len() > before + 20
        });
        done.store(true, Ordering::SeqCst);
    });
    let stands = history(&ledger);
    for (index, nonce) in granted.lock().unwrap().iter() {
        assert_eq!(
            stands[usize::try_from(*index).unwrap()],
            format!("grant {nonce}")
        );
    }
    // Away for good: the breaker goes to the reserve, and from there to the log.
    server.crash();
    let size = handle.size();
    let refusal = handle.submit_blocking(grant(2)).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Unavailable, "{refusal}");
    let receipt = handle.submit_blocking(trip("away")).unwrap();
    assert_eq!(
        (receipt.first, receipt.recorded),
        (size, RecordedIn::Reserve)
    );
    server.restart();
    wait_until("the reserve is in the log", || {
        handle.checkpoint().size == size + 1
    });
    drop(ledger);
    check(&place, &url);
}

#[test]
fn what_a_deposed_leader_has_in_its_reserve_is_handed_over() {
    let (dir, url) = database();
    let (first, second) = (dir.path().join("a"), dir.path().join("b"));
    let away = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&away);
    let faults = Faults::new(move |step| {
        if switch.load(Ordering::SeqCst) && matches!(step, Step::Planned | Step::StoringCheckpoint)
        {
            return Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
        }
        Ok(())
    });
    let (ledger, _) = Ledger::<Toy>::open(&first, options_with(&url, "a", faults)).unwrap();
    ledger.handle().submit_blocking(grant(1)).unwrap();
    away.store(true, Ordering::SeqCst);
    let receipt = ledger.handle().submit_blocking(trip("lost")).unwrap();
    assert_eq!(receipt.recorded, RecordedIn::Reserve);
    // Dies with it: the lead is not given back, and another takes over without the act.
    drop(ledger);
    let successor = take_over(&second, &url, "b");
    assert!(!successor.handle().state().is_tripped());
    successor.handle().submit_blocking(grant(2)).unwrap();
    // The first one comes back as a standby.
    let (standby, _) = Ledger::<Toy>::follow(&first, &options(&url, "a")).unwrap();
    wait_until("the act is recorded by the leader", || {
        successor.handle().state().is_tripped()
    });
    assert_eq!(history(&successor), ["grant 1", "grant 2", "trip lost"]);
    drop(standby);
    let (standby, _) = Ledger::<Toy>::follow(&first, &options(&url, "a")).unwrap();
    wait_until("the standby has it", || standby.handle().size() == 3);
    drop((standby, successor));
    check(&second, &url);
}

#[test]
fn what_can_not_keep_a_ledger_is_refused_with_what_to_do() {
    let server = Server::own("");
    let dir = tempfile::tempdir().unwrap();
    let start = |url: &str| {
        Ledger::<Toy>::open(&dir.path().join("a"), options(url, "a"))
            .err()
            .unwrap()
    };
    assert_eq!(start(&server.url("nowhere")).code, "postgres-no-database");
    assert_eq!(
        start(&server.url_as("stranger", "postgres")).code,
        "postgres-denied"
    );
    for (name, prepare, code) in [
        ("empty", "CREATE SCHEMA portcullis", "store-foreign"),
        (
            "theirs",
            "CREATE SCHEMA portcullis; CREATE TABLE portcullis.store (a int)",
            "store-foreign",
        ),
        (
            "unsafe",
            "ALTER DATABASE unsafe SET synchronous_commit = off",
            "postgres-not-durable",
        ),
    ] {
        server.sql("postgres", &format!("CREATE DATABASE {name}"));
        server.sql(name, prepare);
        let refusal = start(&server.url(name));
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(refusal.next.is_some(), "{refusal}");
    }
    let (ledger, _) =
        Ledger::<Toy>::open(&dir.path().join("b"), options(&server.url("postgres"), "b")).unwrap();
    drop(ledger);
    server.sql("postgres", "UPDATE portcullis.store SET version = 99");
    assert_eq!(start(&server.url("postgres")).code, "store-version");
    server.crash();
    assert_eq!(start(&server.url("postgres")).code, "postgres-away");
}
