//! Help, exit codes and refusals, as people see them.

use std::collections::BTreeMap;

use serde_json::json;

use super::server::Played;
use super::{portcullis, told};

/// Every command's options, so that a change of the command line is seen.
#[test]
fn help_of_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = String::new();
    let mut waiting: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        let output = portcullis(folder.path())
            .args(&path)
            .arg("-h")
            .env("COLUMNS", "100")
            .output()
            .unwrap();
        assert!(output.status.success(), "{path:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        // The global options are the same everywhere.
        let own = text.split("\nGlobal options:").next().unwrap();
        all.push_str(&format!(
            "=== portcullis {}\n{}\n",
            path.join(" "),
            own.trim_end()
        ));
        let commands = text.split("\nCommands:\n").nth(1).unwrap_or_default();
        let mut next: Vec<Vec<String>> = commands
            .lines()
            .take_while(|line| !line.is_empty())
            .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| *name != "help" && *name != "scan")
            .map(|name| path.iter().cloned().chain([name.to_owned()]).collect())
            .collect();
        next.reverse();
        waiting.extend(next);
    }
    insta::assert_snapshot!(all);
}

#[test]
fn completions_know_every_command() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = portcullis(folder.path())
            .args(["completions", shell])
            .output()
            .unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        for word in ["approve", "ledger", "--write-inventory", "--allow-gap"] {
            let word = if shell == "fish" {
                word.trim_start_matches("--")
            } else {
                word
            };
            assert!(script.contains(word), "{shell} lacks {word}");
        }
    }
}

/// Wrong usage is 2, with the nearest known name; what is not there is 1.
#[test]
fn wrong_usage_says_what_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| portcullis(folder.path()).args(arguments).output().unwrap();
    for (arguments, code, word) in [
        (&["aprove", "request-1"][..], 2, "'approve'"),
        (&["approve", "request-x"], 2, "request-"),
        (&["breaker", "trip"], 2, "--why"),
        (&["breaker", "trip", "--why", " "], 2, "reason"),
        (
            &[
                "breaker", "trip", "--env", "a", "--agent", "b", "--why", "x",
            ],
            2,
            "cannot be used with",
        ),
        (
            &["--server", "https://x", "human", "list"],
            2,
            "http://127.0.0.1:7117",
        ),
        (
            &["--server", "http://127.0.0.1:1", "human", "list"],
            1,
            "portcullis serve",
        ),
        (&["task", "show", "missing.json"], 1, "missing.json"),
        (&["check", "--base", "a", "--head", "b"], 1, "commit"),
        (
            &["--output", "json", "scan"],
            2,
            "portcullis scan [OPTIONS]",
        ),
        (
            &["verify", "nothing", "--bundle", "x", "--genesis", "y"],
            2,
            "digest",
        ),
        (&["init", "home", "--human", "ada"], 1, "ssh-keygen"),
    ] {
        let output = run(arguments);
        let said = told(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
}

/// A problem of the server is told once, with all it says, and its kind is the exit code.
#[test]
fn a_problem_keeps_its_words_and_its_kind() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, status, code) in [
        ("denied", 403, 3),
        ("needs-approval", 403, 4),
        ("malformed", 400, 2),
        ("not-found", 404, 1),
    ] {
        let problem = json!({
            "type": "urn:portcullis:problem:no", "title": "this may not be\u{1b}[2J", "status": status,
            "code": "no", "kind": kind, "expected": "something", "received": "nothing",
            "rule": "default.cedar:3 no", "next": "ask ada",
        });
        let server = Played::start(BTreeMap::from([(
            "/v1/runs".to_owned(),
            (status, problem.to_string()),
        )]));
        let text = portcullis(folder.path())
            .args(["--server", &server.url, "runs", "list"])
            .output()
            .unwrap();
        assert_eq!(
            told(&text),
            format!(
                "exit {code}\nportcullis: this may not be\\u{{1b}}[2J\n  expected: something\n  \
                 received: nothing\n  rule: default.cedar:3 no\n  next: ask ada\n"
            )
        );
        let json = portcullis(folder.path())
            .args(["--server", &server.url, "--output", "json", "runs", "list"])
            .output()
            .unwrap();
        let refusal: serde_json::Value = serde_json::from_slice(&json.stderr).unwrap();
        assert_eq!(refusal["kind"], kind);
        assert!(json.stdout.is_empty());
    }
    let foreign = Played::start(BTreeMap::new());
    let said = portcullis(folder.path())
        .args(["--server", &foreign.url, "runs", "list"])
        .output()
        .unwrap();
    assert!(
        told(&said).contains("does not answer as Portcullis does"),
        "{}",
        told(&said)
    );
}

#[test]
fn lists_in_text_and_json() {
    let folder = tempfile::tempdir().unwrap();
    let items = json!({ "items": [
        { "id": "request-9", "summary": "land change-7", "status": "open", "approvals": 0,
          "needed": { "humans": 1 }, "expires": "2026-11-28T05:04:37.068Z" },
        { "id": "request-12", "summary": "release artifact-3", "status": "open", "approvals": 1,
          "needed": { "humans": 2 }, "expires": "2026-11-29T05:04:37.068Z" },
    ]});
    let server = Played::start(BTreeMap::from([(
        "/v1/requests?open=true".to_owned(),
        (200, items.to_string()),
    )]));
    let run = |format: &str| {
        let output = portcullis(folder.path())
            .args([
                "request",
                "list",
                "--output",
                format,
                "--server",
                &server.url,
            ])
            .output()
            .unwrap();
        told(&output)
    };
    insta::assert_snapshot!(format!("{}\n{}", run("text"), run("json")));
}
