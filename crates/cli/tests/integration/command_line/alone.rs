//! What needs no server of another: the checks on a diff, and a home with its own server.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{portcullis, told};

fn git(folder: &Path, arguments: &[&str]) {
    let done = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["-c", "user.name=ada", "-c", "user.email=ada@example.com"])
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(done.success(), "{arguments:?}");
}

fn repository(folder: &Path) {
    std::fs::create_dir_all(folder.join("src")).unwrap();
    git(folder, &["init", "-q", "-b", "main"]);
    std::fs::write(folder.join("src/till.txt"), "one\n").unwrap();
    git(folder, &["add", "."]);
    git(folder, &["commit", "-qm", "begin"]);
}

#[test]
fn the_checks_run_without_a_server_and_by_the_bases_rules() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    repository(here);
    std::fs::create_dir(here.join(".portcullis")).unwrap();
    let rule = "[[block]]\npath = 'src/frozen.txt'\nwhy = 'it is frozen'\n";
    std::fs::write(here.join(".portcullis/checks.toml"), rule).unwrap();
    git(here, &["add", "."]);
    git(here, &["commit", "-qm", "guard a file"]);
    git(here, &["tag", "base"]);
    std::fs::write(here.join("src/till.txt"), "two\n").unwrap();
    git(here, &["commit", "-qam", "a plain change"]);
    let check = |more: &[&str]| {
        portcullis(here)
            .args(["check", "--base", "base", "--head", "HEAD"])
            .args(more)
            .output()
            .unwrap()
    };
    let plain = check(&[]);
    assert_eq!(
        told(&plain),
        "exit 0\n1 files, 2 lines: pass: nothing to see\n"
    );
    // The change removes the rule that it breaks; the base's rule still holds.
    std::fs::remove_file(here.join(".portcullis/checks.toml")).unwrap();
    std::fs::write(here.join("src/frozen.txt"), "thawed\n").unwrap();
    git(here, &["add", "-A"]);
    git(here, &["commit", "-qm", "thaw"]);
    let blocked = check(&["--sarif", "found.sarif"]);
    assert_eq!(blocked.status.code(), Some(3), "{}", told(&blocked));
    assert!(
        told(&blocked).contains("src/frozen.txt"),
        "{}",
        told(&blocked)
    );
    let sarif: Value =
        serde_json::from_slice(&std::fs::read(here.join("found.sarif")).unwrap()).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    let report: Value = serde_json::from_slice(&check(&["--output", "json"]).stdout).unwrap();
    assert_eq!(report["verdict"], "block");
}

/// A server of the test's own, killed when it is done.
struct Serving(Child);

impl Serving {
    fn start(here: &Path) -> Self {
        let mut child = portcullis(here)
            .args(["serve", "--home", "home"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut ready)
            .unwrap();
        assert!(ready.starts_with("ready at http://127.0.0.1:"), "{ready}");
        Self(child)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_home_is_made_served_verified_and_copied() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    repository(&here.join("shop"));
    let key = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(here.join("ada"))
        .status()
        .unwrap();
    assert!(key.success());
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}");
    let run = |arguments: &[&str]| {
        portcullis(here)
            .args(arguments)
            .args(["--key", "ada", "--server", &url])
            .output()
            .unwrap()
    };
    let listen = format!("127.0.0.1:{port}");
    let init = [
        "init",
        "home",
        "--human",
        "ada",
        "--repository",
        "shop=shop",
        "--agent",
        "fixer",
        "--environment",
        "staging:staging=18099",
        "--listen",
        &listen,
    ];
    // Alone and not declared so: refused, and nothing is made.
    let refused = run(&init);
    assert_eq!(refused.status.code(), Some(2), "{}", told(&refused));
    assert!(told(&refused).contains("--solo") && !here.join("home").exists());
    let made = run(&[&init[..], &["--solo"]].concat());
    assert_eq!(made.status.code(), Some(0), "{}", told(&made));
    let genesis = std::fs::read(here.join("home/genesis.json")).unwrap();
    // Run twice, it changes nothing and says so.
    let again: Value =
        serde_json::from_slice(&run(&[&init[..], &["--solo", "--output", "json"]].concat()).stdout)
            .unwrap();
    assert_eq!(again["made"], Value::Array(Vec::new()));
    assert!(!again["stood"].as_array().unwrap().is_empty());
    assert_eq!(
        std::fs::read(here.join("home/genesis.json")).unwrap(),
        genesis
    );

    let serving = Serving::start(here);
    assert_eq!(
        run(&["task", "show", "home/tasks/example.json"])
            .status
            .code(),
        Some(0)
    );
    let added = run(&["agent", "add", "home/agents/example.toml"]);
    assert_eq!(told(&added), "exit 0\nagent example is in force\n");
    let tripped = run(&["breaker", "trip", "--why", "a drill"]);
    assert_eq!(tripped.status.code(), Some(0), "{}", told(&tripped));
    let reset = run(&["breaker", "reset", "--why", "the drill is over"]);
    assert_eq!(reset.status.code(), Some(4), "{}", told(&reset));
    let tail = told(&run(&["ledger", "tail"]));
    assert!(tail.contains("human:ada (software key SHA256:"), "{tail}");
    let kept = run(&[
        "ledger",
        "verify",
        "--genesis",
        "home/genesis.json",
        "--save",
        "held",
    ]);
    assert_eq!(kept.status.code(), Some(0), "{}", told(&kept));
    let held = run(&["ledger", "verify", "--checkpoint", "held"]);
    assert!(told(&held).contains("that you held"), "{}", told(&held));
    // Another beginning than the pinned one.
    let other = String::from_utf8(genesis)
        .unwrap()
        .replacen("ada", "eve", 1);
    std::fs::write(here.join("other.json"), other).unwrap();
    let wrong = run(&["ledger", "verify", "--genesis", "other.json"]);
    assert_eq!(wrong.status.code(), Some(1), "{}", told(&wrong));
    let wrong = run(&[
        "ledger",
        "verify",
        "--home",
        "home",
        "--genesis",
        "other.json",
    ]);
    assert_eq!(wrong.status.code(), Some(1), "{}", told(&wrong));
    // The server has the ledger; a copy is for when it is down.
    assert_eq!(
        run(&["backup", "copy", "--home", "home"]).status.code(),
        Some(1)
    );
    drop(serving);
    let copied = run(&["backup", "copy", "--home", "home"]);
    assert_eq!(copied.status.code(), Some(0), "{}", told(&copied));
    assert!(!here.join("copy/keys/log.key").exists());
    let files = run(&["ledger", "verify", "--home", "copy", "--checkpoint", "held"]);
    assert_eq!(files.status.code(), Some(0), "{}", told(&files));
}

#[test]
fn policies_are_checked_tested_and_compared_here() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let run = |arguments: &[&str]| {
        portcullis(here)
            .arg("policy")
            .args(arguments)
            .output()
            .unwrap()
    };
    for name in ["old", "new", "bad"] {
        std::fs::create_dir(here.join(name)).unwrap();
        std::fs::write(
            here.join(name).join("default.cedar"),
            portcullis_policy::DEFAULT,
        )
        .unwrap();
    }
    std::fs::write(here.join("bad/more.cedar"), "permit(\n").unwrap();
    std::fs::write(
        here.join("new/default.tests.toml"),
        portcullis_policy::DEFAULT_TESTS,
    )
    .unwrap();
    assert_eq!(run(&["check", "old"]).status.code(), Some(0));
    let bad = run(&["check", "bad"]);
    assert_eq!(bad.status.code(), Some(3), "{}", told(&bad));
    assert!(told(&bad).contains("more.cedar:1"), "{}", told(&bad));
    let tested = run(&["test", "new"]);
    assert_eq!(tested.status.code(), Some(0), "{}", told(&tested));
    assert!(told(&tested).contains(", 0 failed"), "{}", told(&tested));
    // A folder without tests proves nothing.
    assert_eq!(run(&["test", "old"]).status.code(), Some(1));
    let same = run(&["diff", "new", "--with", "old"]);
    assert_eq!(told(&same), "exit 0\nno rule differs\n");
    // A rule that went away is named.
    let text = portcullis_policy::DEFAULT;
    let cut = text.rfind("@id(").unwrap();
    std::fs::write(here.join("new/default.cedar"), text.get(..cut).unwrap()).unwrap();
    let differs = run(&["diff", "new", "--with", "old"]);
    assert!(told(&differs).contains("removed "), "{}", told(&differs));
}
