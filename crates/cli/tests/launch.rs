//! `portcullis launch` as the builder uses it: a real sandbox, no server.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use portcullis_server::builder::launch::{LaunchAnswer, LaunchOutcome, LaunchSpec};

fn spec(tree: &Path, script: &str) -> LaunchSpec {
    LaunchSpec {
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        workspace: tree.to_owned(),
        environment: [("CI".to_owned(), "true".to_owned())].into(),
        deadline_ms: 20_000,
        capture_max_bytes: 1_000,
        user: None,
        toolchains: vec!["none".to_owned()],
        allowed_gaps: Default::default(),
    }
}

fn start(spec: &LaunchSpec) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .arg("launch")
        .env("SECRET_OF_THE_BUILDER", "hunter2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut line = serde_json::to_vec(spec).expect("serialises");
    line.push(b'\n');
    child
        .stdin
        .as_mut()
        .expect("input")
        .write_all(&line)
        .expect("written");
    child
}

fn answer(spec: &LaunchSpec) -> LaunchAnswer {
    let mut child = start(spec);
    let mut output = Vec::new();
    child
        .stdout
        .take()
        .expect("output")
        .read_to_end(&mut output)
        .expect("read");
    child.wait().expect("ends");
    serde_json::from_slice(&output).expect("an answer")
}

fn outcome(spec: &LaunchSpec) -> LaunchOutcome {
    match answer(spec) {
        LaunchAnswer::Ended(outcome) => outcome,
        LaunchAnswer::Refused { refusal } => panic!("{refusal}"),
    }
}

#[test]
fn a_job_makes_files_has_no_network_and_sees_nothing_of_the_builder() {
    let tree = tempfile::tempdir().expect("directory");
    let script = "echo made > out; echo to-err >&2; env; ls /sys/class/net 2>/dev/null; \
                  cat /proc/net/dev | grep -vc lo:; exit 4";
    let outcome = outcome(&spec(tree.path(), script));
    let printed = String::from_utf8_lossy(&outcome.stdout).into_owned();
    assert_eq!(
        (outcome.exit, outcome.deadline, outcome.success()),
        (4, false, false)
    );
    assert_eq!(outcome.stderr, b"to-err\n");
    assert!(
        printed.contains("CI=true") && !printed.contains("hunter2"),
        "{printed}"
    );
    // Two lines of headings, and no device but the loopback.
    assert!(printed.ends_with("2\n"), "{printed}");
    assert_eq!(
        std::fs::read(tree.path().join("out")).expect("made"),
        b"made\n"
    );
}

#[test]
fn output_is_bounded_and_says_so_and_the_deadline_ends_everything() {
    let tree = tempfile::tempdir().expect("directory");
    let loud = outcome(&spec(tree.path(), "head -c 5000 /dev/zero"));
    assert!(loud.truncated && loud.stdout.len() == 1_000 && loud.success());
    let mut slow = spec(tree.path(), "sleep 60 & sleep 60");
    slow.deadline_ms = 300;
    let begun = Instant::now();
    let slow = outcome(&slow);
    assert!(slow.deadline && !slow.success());
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_command_that_is_not_there_is_a_refusal() {
    let tree = tempfile::tempdir().expect("directory");
    let mut missing = spec(tree.path(), "");
    missing.command = vec!["no-such-program".to_owned()];
    match answer(&missing) {
        LaunchAnswer::Refused { refusal } => assert_eq!(refusal.code, "command-not-found"),
        LaunchAnswer::Ended(outcome) => panic!("{outcome:?}"),
    }
}

#[test]
fn a_job_ends_when_its_builder_is_gone() {
    let tree = tempfile::tempdir().expect("directory");
    let mut child = start(&spec(
        tree.path(),
        "echo begun > begun; sleep 15; echo done > done",
    ));
    let patience = Instant::now();
    while !tree.path().join("begun").exists() && patience.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    // What the kernel does when the builder is killed.
    drop(child.stdin.take());
    let begun = Instant::now();
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("output"))
        .read_line(&mut line)
        .expect("read");
    child.wait().expect("ends");
    assert!(begun.elapsed() < Duration::from_secs(8), "{line}");
    assert!(!tree.path().join("done").exists());
}
