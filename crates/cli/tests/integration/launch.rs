//! `portcullis launch` as the builder uses it: a real sandbox, no server.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

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
        hosts: Vec::new(),
        allow_loopback: false,
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

/// A server on this machine that answers every connection with a line.
fn mirror() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
    let port = listener.local_addr().expect("address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("connection");
            let mut head = String::new();
            let mut reader = BufReader::new(stream.try_clone().expect("handle"));
            while reader.read_line(&mut head).unwrap_or(0) > 2 {
                if head.ends_with("\r\n\r\n") {
                    break;
                }
            }
            let answer =
                "HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nmirror1\n";
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

/// Functions for `bash` that speak to the proxy and past it.
const ASK: &str = "through() { exec 3<>/dev/tcp/127.0.0.1/3128; \
     printf \"$1\" >&3; cat <&3; exec 3>&-; echo; }\n\
     past() { if (exec 3<>\"/dev/tcp/$1\") 2>/dev/null; then echo reached; else echo cut; fi; }\n";

#[test]
fn a_job_reaches_the_hosts_that_it_declares_and_nothing_else() {
    let tree = tempfile::tempdir().expect("directory");
    let (declared, other) = (mirror(), mirror());
    let resolver = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
    let asks = resolver.local_addr().expect("address").port();
    let script = format!(
        "{ASK}\
         through 'GET http://localhost:{declared}/index HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n'\n\
         through 'CONNECT localhost:{declared} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\nGET /t HTTP/1.1\\r\\n\\r\\n'\n\
         through 'GET http://localhost:{other}/ HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n'\n\
         past 127.0.0.1/{declared}; past 127.0.0.1/{other}; past 1.1.1.1/53\n\
         echo question > /dev/udp/127.0.0.1/{asks}\n\
         env | grep -ic _proxy; echo \"no: $NO_PROXY\"\n"
    );
    let mut wanted = spec(tree.path(), "");
    wanted.command = ["bash", "-c", &script].map(str::to_owned).to_vec();
    wanted.capture_max_bytes = 100_000;
    wanted.hosts = vec![format!("localhost:{declared}")];
    wanted.allow_loopback = true;
    let ended = outcome(&wanted);
    let printed = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.success(), "{printed} {ended:?}");
    assert_eq!(printed.matches("mirror1").count(), 2, "{printed}");
    assert_eq!(printed.matches("HTTP/1.1 403").count(), 1, "{printed}");
    assert!(printed.contains("host-not-declared"), "{printed}");
    assert_eq!(printed.matches("cut\n").count(), 3, "{printed}");
    assert!(!printed.contains("reached"), "{printed}");
    assert!(printed.contains("no: 127.0.0.1,::1"), "{printed}");
    // Names are looked up outside; a question from inside comes to nobody.
    resolver
        .set_read_timeout(Some(Duration::from_millis(100)))
        .expect("set");
    assert!(resolver.recv(&mut [0; 64]).is_err());
    let network = ended.network.expect("a network");
    assert_eq!(network.hosts.len(), 1);
    let host = &network.hosts[0];
    assert_eq!((host.host.as_str(), host.port), ("localhost", declared));
    assert_eq!((host.connections, host.failures), (2, 0), "{network:?}");
    assert!(host.bytes_in > 16 && host.bytes_out > 16, "{network:?}");
    assert_eq!(network.refusals, 1);
    assert_eq!(network.refused[0].destination, format!("localhost:{other}"));
    assert_eq!(network.fetched.len(), 1);
    assert_eq!(
        network.fetched[0].digest,
        portcullis_model::Digest::of(b"mirror1\n")
    );
}

#[test]
fn a_declared_host_on_this_machine_needs_the_builders_leave() {
    let tree = tempfile::tempdir().expect("directory");
    let port = mirror();
    let script = format!(
        "{ASK}through 'GET http://localhost:{port}/ HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n'"
    );
    let mut wanted = spec(tree.path(), "");
    wanted.command = ["bash", "-c", &script].map(str::to_owned).to_vec();
    wanted.hosts = vec![format!("localhost:{port}")];
    let ended = outcome(&wanted);
    let printed = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(printed.contains("address-not-public"), "{printed}");
    assert!(!printed.contains("mirror1"), "{printed}");
    let network = ended.network.expect("a network");
    assert_eq!((network.hosts[0].connections, network.refusals), (0, 1));
}

#[test]
fn without_a_declaration_there_is_no_proxy() {
    let tree = tempfile::tempdir().expect("directory");
    let port = mirror();
    let script = format!("{ASK}past 127.0.0.1/3128; past 127.0.0.1/{port}; env | grep -ic _proxy");
    let mut wanted = spec(tree.path(), "");
    wanted.command = ["bash", "-c", &script].map(str::to_owned).to_vec();
    wanted.allow_loopback = true;
    let ended = outcome(&wanted);
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "cut\ncut\n0\n");
    assert_eq!(ended.network, None);
}
