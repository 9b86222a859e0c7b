//! A builder between a server that answers from a script and a launcher without a sandbox.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path as At, State};
use axum::routing::{get, post, put};
use portcullis_evidence::dsse::{self, PAYLOAD_COMMAND, PAYLOAD_IN_TOTO, UnverifiedEnvelope};
use portcullis_evidence::intoto::Statement;
use portcullis_evidence::signer::Signer;
use portcullis_evidence::slsa::Provenance;
use portcullis_evidence::test_result::{TestOutcome, TestResult};
use portcullis_model::PublicKey;
use portcullis_model::statement::{Envelope, SignedCommand};
use serde_json::Value;

use super::*;

/// Runs the command in the workspace as it is: what the launcher's protocol needs and no more.
const LAUNCHER: &str = r#"#!/bin/sh
read -r line
field() { printf '%s' "$line" | sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/"; }
cd "$(field workspace)" || exit 1
sh ./job.sh >../out 2>../err
code=$?
out=$(base64 -w0 ../out)
err=$(base64 -w0 ../err)
network=
case $line in *'"hosts":[]'*) ;; *) network=",\"network\":$(cat network.json)" ;; esac
printf '{"result":"ended","exit":%d,"deadline":false,"stdout":"%s","stderr":"%s","truncated":false,"memory_kills":0,"gaps":[]%s}' \
    "$code" "$out" "$err" "$network"
"#;

/// A server that gives one job and keeps what it is told.
#[derive(Clone)]
struct Fake {
    order: Arc<Mutex<Option<Value>>>,
    source: Bytes,
    key: PublicKey,
    blobs: Arc<Mutex<BTreeMap<Digest, Bytes>>>,
    commands: Arc<Mutex<Vec<Command>>>,
    /// How many answers to `finish-job` are lost on the way.
    lost: Arc<Mutex<u32>>,
}

fn command_of(key: &PublicKey, envelope: Envelope) -> Command {
    let command = SignedCommand::read(&envelope).unwrap();
    assert_eq!(command.principal.to_string(), "service:builder");
    assert_eq!(command.origin, "example.org/ledger");
    let unverified = UnverifiedEnvelope::try_from(envelope).unwrap();
    dsse::verify(&unverified, PAYLOAD_COMMAND, &[key]).unwrap();
    command.command
}

async fn take(State(fake): State<Fake>, body: Bytes) -> (http::StatusCode, String) {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let envelope = serde_json::from_value(body["envelope"].clone()).unwrap();
    let command = command_of(&fake.key, envelope);
    fake.commands.lock().unwrap().push(command.clone());
    match command {
        Command::ClaimJob { .. } => {
            let order = fake.order.lock().unwrap().take();
            (
                http::StatusCode::OK,
                order.unwrap_or_else(|| json!({ "job": null })).to_string(),
            )
        }
        Command::FinishJob { .. } => {
            let mut lost = fake.lost.lock().unwrap();
            let finished = fake.commands.lock().unwrap();
            let before = finished
                .iter()
                .filter(|command| command.name() == "finish-job")
                .count();
            if *lost > 0 {
                *lost -= 1;
                return (http::StatusCode::BAD_GATEWAY, "lost".to_owned());
            }
            if before > 1 {
                let problem =
                    json!({ "title": "taken", "code": "job-not-claimed", "kind": "conflict" });
                return (http::StatusCode::CONFLICT, problem.to_string());
            }
            (http::StatusCode::OK, json!({ "index": 1 }).to_string())
        }
        other => panic!("{}", other.name()),
    }
}

async fn keep(
    State(fake): State<Fake>,
    At(digest): At<String>,
    headers: http::HeaderMap,
    body: Bytes,
) -> String {
    use base64::Engine as _;
    let envelope = base64::engine::general_purpose::STANDARD
        .decode(headers["portcullis-command"].as_bytes())
        .unwrap();
    let command = command_of(&fake.key, serde_json::from_slice(&envelope).unwrap());
    let found = Digest::of(&body);
    assert_eq!(
        command,
        Command::Upload {
            digest: found,
            size: body.len() as u64
        }
    );
    assert_eq!(digest, found.to_string());
    fake.blobs.lock().unwrap().insert(found, body);
    "{}".to_owned()
}

/// What came of a job whose tree holds `files`.
struct Told {
    succeeded: bool,
    outputs: Vec<Output>,
    report: Bytes,
    statement: Vec<u8>,
    log: String,
    left: usize,
    blobs: BTreeMap<Digest, Bytes>,
}

async fn told(kind: &str, jobs: Value, files: &[(&str, &str)], lost: u32) -> Told {
    let (signer, _) = Signer::generate().unwrap();
    let key = signer.public_key().clone();
    let tree = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = tree.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let tar = std::process::Command::new("tar")
        .args(["-cf", "-", "-C"])
        .arg(tree.path())
        .arg(".")
        .output()
        .unwrap();
    let order = json!({
        "job": "job-7", "kind": kind, "repository": "shop", "branch": "main",
        "commit": "c".repeat(40), "configured_by": "b".repeat(40),
        "configuration": { "digest": Digest::of(b"jobs.toml"), "jobs": jobs },
        "trust_domain": "example.org", "source": "/v1/jobs/job-7/source",
        "changes": [{ "change": "change-3" }],
    });
    let fake = Fake {
        order: Arc::new(Mutex::new(Some(order))),
        source: tar.stdout.into(),
        key: key.clone(),
        blobs: Arc::default(),
        commands: Arc::default(),
        lost: Arc::new(Mutex::new(lost)),
    };
    let router = Router::new()
        .route(
            "/v1/status",
            get(|| async { r#"{"origin":"example.org/ledger"}"# }),
        )
        .route("/v1/commands", post(take))
        .route(
            "/v1/jobs/{job}/source",
            get(|State(fake): State<Fake>| async move { fake.source }),
        )
        .route("/v1/blobs/{digest}", put(keep))
        .with_state(fake.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = tokio::spawn(async move { axum::serve(listener, router).await });
    let work = tempfile::tempdir().unwrap();
    let program = work.path().join("launcher");
    fs::write(&program, LAUNCHER).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let launcher = Launcher {
        program,
        toolchains: Vec::new(),
        allowed_gaps: Default::default(),
        allow_loopback: false,
        user: None,
        as_root: false,
    };
    let mut server = Server::new(&url, "builder".parse().unwrap(), signer).unwrap();
    server.learn_origin().await.unwrap();
    let jobs = work.path().join("jobs");
    fs::create_dir(&jobs).unwrap();
    assert!(work_one(&mut server, &launcher, &jobs).await.unwrap());
    assert!(
        !work_one(&mut server, &launcher, &jobs).await.unwrap(),
        "nothing is left to do"
    );
    served.abort();
    let commands = fake.commands.lock().unwrap();
    let finished: Vec<_> = commands
        .iter()
        .filter(|command| command.name() == "finish-job")
        .collect();
    assert!(!finished.is_empty());
    let Command::FinishJob {
        job,
        succeeded,
        attestation,
        report,
        outputs,
    } = finished[0].clone()
    else {
        panic!("another command");
    };
    assert_eq!(job.to_string(), "job-7");
    let blobs = fake.blobs.lock().unwrap();
    for output in &outputs {
        assert_eq!(blobs[&output.digest].len() as u64, output.size);
    }
    let envelope = UnverifiedEnvelope::parse(&blobs[&attestation]).unwrap();
    let statement = dsse::verify(&envelope, PAYLOAD_IN_TOTO, &[&key])
        .unwrap()
        .payload()
        .clone();
    let text = String::from_utf8_lossy(&statement);
    let log = blobs
        .iter()
        .find(|(digest, bytes)| {
            text.contains(&format!("/v1/blobs/{digest}")) && !bytes.starts_with(b"{")
        })
        .unwrap();
    Told {
        succeeded,
        outputs,
        report: blobs[&report].clone(),
        log: String::from_utf8_lossy(log.1).into_owned(),
        statement,
        left: fs::read_dir(&jobs).unwrap().count(),
        blobs: blobs.clone(),
    }
}

fn test_jobs() -> Value {
    json!({ "test": { "command": ["sh", "job.sh"], "format": "tap", "time_limit": "1m" } })
}

fn build_jobs(outputs: &[&str]) -> Value {
    json!({ "build": { "command": ["sh", "job.sh"], "outputs": outputs, "time_limit": "1m" } })
}

#[tokio::test]
async fn tests_that_pass_are_attested_by_name() {
    let files = [(
        "job.sh",
        "printf 'TAP version 13\\n1..2\\nok 1 - adds\\nok 2 - subtracts\\n'",
    )];
    let told = told("test", test_jobs(), &files, 0).await;
    assert!(told.succeeded && told.left == 0, "{}", told.log);
    let report: TestReport = canonical::from_slice("report", &told.report).unwrap();
    assert_eq!(report.count(Outcome::Passed), 2);
    let statement = Statement::<TestResult>::parse(&told.statement).unwrap();
    assert_eq!(statement.predicate().result, TestOutcome::Passed);
    assert_eq!(statement.predicate().passed_tests.len(), 2);
    assert_eq!(statement.subject()[0].digest["gitCommit"], "c".repeat(40));
}

#[tokio::test]
async fn a_failed_command_is_a_result() {
    let script = "printf 'TAP version 13\\n1..1\\nok 1 - adds\\n'; echo broken >&2; exit 3";
    let told = told("test", test_jobs(), &[("job.sh", script)], 0).await;
    assert!(!told.succeeded);
    assert!(
        told.log.contains("ended with status 3") && told.log.contains("broken"),
        "{}",
        told.log
    );
    let statement = Statement::<TestResult>::parse(&told.statement).unwrap();
    assert_eq!(statement.predicate().result, TestOutcome::Failed);
    assert_eq!(statement.predicate().passed_tests.len(), 1);
}

#[tokio::test]
async fn what_code_prints_never_passes_for_a_report() {
    let forged = r#"printf '{"tests":{"adds":"passed"}}'"#;
    let told = told("test", test_jobs(), &[("job.sh", forged)], 0).await;
    assert!(!told.succeeded);
    assert!(canonical::from_slice::<TestReport>("report", &told.report).is_err());
}

#[tokio::test]
async fn a_build_is_hashed_from_outside_and_its_result_told_once() {
    let files = [
        ("job.sh", "mkdir -p out; cat source.txt > out/app"),
        ("source.txt", "v1"),
    ];
    let told = told("build", build_jobs(&["out/app"]), &files, 1).await;
    assert!(told.succeeded && told.left == 0, "{}", told.log);
    let statement = Statement::<Provenance>::parse(&told.statement).unwrap();
    assert_eq!(told.outputs.len(), 1);
    assert_eq!(told.outputs[0].digest, Digest::of(b"v1"));
    assert_eq!(statement.subject()[0].sha256(), Some(Digest::of(b"v1")));
    let definition = &statement.predicate().build_definition;
    assert_eq!(definition.external_parameters["commit"], "c".repeat(40));
    assert_eq!(
        definition.internal_parameters["changes"][0]["change"],
        "change-3"
    );
}

#[tokio::test]
async fn outputs_that_are_links_missing_or_of_a_failed_command_are_not_taken() {
    for (script, word) in [
        ("ln -s /etc/passwd app", "not a regular file"),
        ("true", "did not make app"),
        ("echo x > app; exit 1", "ended with status 1"),
    ] {
        let told = told("build", build_jobs(&["app"]), &[("job.sh", script)], 0).await;
        assert!(!told.succeeded && told.outputs.is_empty(), "{script}");
        assert!(told.log.contains(word), "{script}: {}", told.log);
        let statement = Statement::<Provenance>::parse(&told.statement).unwrap();
        assert_eq!(statement.subject()[0].name.as_deref(), Some("log"));
    }
}

#[tokio::test]
async fn provenance_says_what_a_build_reached() {
    let mut jobs = build_jobs(&["app"]);
    jobs["build"]["hosts"] = json!(["crates.io:443", "mirror.example:80"]);
    let fetched = Digest::of(b"index");
    let fetch = |url: &str, status: u16, whole: bool| json!({ "method": "GET", "url": url, "status": status, "digest": fetched, "size": 5, "whole": whole });
    let network = json!({
        "hosts": [
            { "host": "crates.io", "port": 443, "connections": 2, "failures": 1, "bytes_out": 10, "bytes_in": 20 },
            { "host": "mirror.example", "port": 80, "connections": 0, "failures": 0, "bytes_out": 0, "bytes_in": 0 },
        ],
        "refused": [{ "destination": "evil.example:443", "code": "host-not-declared", "count": 3 }],
        "refusals": 4,
        "fetched": [
            fetch("http://mirror.example:80/index", 200, true),
            fetch("http://mirror.example:80/cut", 200, false),
            fetch("http://mirror.example:80/none", 404, true),
        ],
        "fetches": 3,
    });
    let files = [
        ("job.sh", "echo x > app"),
        ("network.json", &network.to_string()),
    ];
    let told = told("build", jobs, &files, 0).await;
    assert!(told.succeeded, "{}", told.log);
    let statement = Statement::<Provenance>::parse(&told.statement).unwrap();
    let definition = &statement.predicate().build_definition;
    let said = &definition.internal_parameters["network"];
    assert_eq!(said["hosts"], network["hosts"]);
    assert_eq!(said["refused"], network["refused"]);
    assert_eq!(
        (said["refusals"].as_u64(), said["fetches"].as_u64()),
        (Some(4), Some(3))
    );
    // The whole record stands beside it, by digest, and was uploaded.
    let byproduct = &statement.predicate().run_details.byproducts[1];
    assert_eq!(byproduct.name.as_deref(), Some("network"));
    let record = byproduct.sha256().unwrap();
    assert_eq!(said["record"], json!(record));
    let kept: Value = serde_json::from_slice(&told.blobs[&record]).unwrap();
    assert_eq!(kept, network);
    // Inputs are the commit, and what came whole and well.
    let inputs = &definition.resolved_dependencies;
    assert_eq!(inputs.len(), 2, "{inputs:?}");
    assert_eq!(inputs[0].digest["gitCommit"], "c".repeat(40));
    assert_eq!(
        inputs[1].uri.as_deref(),
        Some("http://mirror.example:80/index")
    );
    assert_eq!(inputs[1].sha256(), Some(fetched));
    for line in [
        "network: crates.io:443: 2 connections, 1 failed, 10 bytes out, 20 bytes in",
        "network: 3 times refused: evil.example:443 (host-not-declared)",
        "network: 1 more refused",
    ] {
        assert!(told.log.contains(line), "{}", told.log);
    }
}

#[tokio::test]
async fn without_hosts_provenance_says_none_and_a_bad_host_runs_nothing() {
    let files = [("job.sh", "echo x > app")];
    let plain = told("build", build_jobs(&["app"]), &files, 0).await;
    let network = |told: &Told| {
        let statement = Statement::<Provenance>::parse(&told.statement).unwrap();
        let predicate = statement.predicate();
        assert_eq!(predicate.run_details.byproducts.len(), 1);
        predicate.build_definition.internal_parameters["network"].clone()
    };
    assert!(plain.succeeded);
    assert_eq!(network(&plain), json!("none"));
    let mut jobs = build_jobs(&["app"]);
    jobs["build"]["hosts"] = json!(["*.example:443"]);
    let bad = told("build", jobs, &files, 0).await;
    assert!(!bad.succeeded && bad.outputs.is_empty());
    assert!(bad.log.contains("*.example:443"), "{}", bad.log);
    assert_eq!(network(&bad), json!("none"));
}

#[test]
fn a_tree_that_defends_itself_is_removed_all_the_same() {
    let work = tempfile::tempdir().unwrap();
    let folder = JobFolder::create(work.path(), "1", None).unwrap();
    let deep = folder.tree().join("a/b");
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "x").unwrap();
    fs::set_permissions(&deep, fs::Permissions::from_mode(0o500)).unwrap();
    fs::set_permissions(folder.tree().join("a"), fs::Permissions::from_mode(0o000)).unwrap();
    std::os::unix::fs::symlink(work.path(), folder.tree().join("out")).unwrap();
    drop(folder);
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0);
}
