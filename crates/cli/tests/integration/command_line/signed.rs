//! What the program signs: exactly the command that was given, by the key of the person it names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use portcullis_evidence::approval;
use portcullis_evidence::dsse::UnverifiedEnvelope;
use portcullis_evidence::sshsig::{Attestation, SshPrivateKey};
use portcullis_evidence::statement::{self, StatementType, TrustedKey, Verified};
use portcullis_model::statement::{BreakerScope, Command, Envelope, SignedCommand};
use portcullis_model::{Digest, KeyClass, Principal, PublicKey, Secret, Task};
use serde_json::{Value, json};

use super::server::Played;
use super::{portcullis, told};

fn key(folder: &Path) -> (PathBuf, PublicKey) {
    use std::os::unix::fs::PermissionsExt as _;
    let (key, file) = SshPrivateKey::from_seed(&Secret::new([7; 32]), "ada").unwrap();
    let path = folder.join("ada");
    std::fs::write(&path, file.expose()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    (path, key.public_key().clone())
}

fn answers(key: &PublicKey, more: &[(&str, Value)]) -> BTreeMap<String, (u16, String)> {
    let mut answers = BTreeMap::from([
        (
            "/v1/status".to_owned(),
            json!({ "origin": "example.com/log", "size": 12, "policy": Digest::of(b"policy"), "solo": true }),
        ),
        (
            "/v1/inventory/humans".to_owned(),
            json!({ "items": [{ "record": { "id": "ada", "keys": [key] }, "standing": "active" }] }),
        ),
    ]);
    answers.extend(
        more.iter()
            .map(|(path, answer)| ((*path).to_owned(), answer.clone())),
    );
    answers
        .into_iter()
        .map(|(path, answer)| (path, (200, answer.to_string())))
        .collect()
}

fn verified<T>(
    envelope: &Value,
    key: &PublicKey,
    read: impl FnOnce(&UnverifiedEnvelope, &[TrustedKey<'_>]) -> Verified<T>,
) -> Verified<T> {
    let envelope: Envelope = serde_json::from_value(envelope.clone()).unwrap();
    let trusted = [TrustedKey {
        key,
        attestation: Attestation::None,
    }];
    read(&envelope.try_into().unwrap(), &trusted)
}

#[test]
fn a_command_says_what_was_given_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (path, key) = key(folder.path());
    let server = Played::start(answers(&key, &[("/v1/commands", json!({ "index": 13 }))]));
    let output = portcullis(folder.path())
        .args([
            "breaker",
            "trip",
            "--agent",
            "fixer",
            "--revert",
            "--why",
            "it runs wild",
        ])
        .args(["--server", &server.url, "--key"])
        .arg(&path)
        .output()
        .unwrap();
    assert_eq!(
        told(&output),
        "exit 0\nbreaker tripped: agent fixer (entry 13)\n"
    );
    let posted = server.posted();
    let [(to, body)] = posted.as_slice() else {
        panic!("one command: {posted:?}")
    };
    assert_eq!(to, "/v1/commands");
    assert_eq!(body["attachments"], json!(["it runs wild"]));
    let command = verified(&body["envelope"], &key, |envelope, keys| {
        statement::verify(envelope, StatementType::Command, keys)
            .unwrap()
            .read("command")
            .unwrap()
    });
    let command: &SignedCommand = command.payload();
    assert_eq!(command.origin, "example.com/log");
    assert_eq!(command.principal, Principal::Human("ada".parse().unwrap()));
    assert_eq!(command.expires.ms_since(command.issued), 300_000);
    assert_eq!(command.nonce.len(), 32);
    assert_eq!(
        command.command,
        Command::TripBreaker {
            scope: BreakerScope::Agent("fixer".parse().unwrap()),
            why: Digest::of(b"it runs wild"),
            revert: true,
        }
    );
}

const TEXT: &str = "request-11\nreset the breaker everywhere\n";

fn request(text: &str) -> Value {
    json!({
        "id": "request-11", "text": text,
        "draft": {
            "ledger": { "origin": "example.com/log", "size": 12, "root": Digest::of(b"root") },
            "request": "request-11",
            "subject": { "kind": "breaker-reset", "scope": { "kind": "everywhere" } },
            "policy": Digest::of(b"policy"), "shown": Digest::of(TEXT.as_bytes()), "count": 1,
            "expires_index": 100, "expires": "2030-11-21T09:00:00.000Z",
        },
    })
}

#[test]
fn an_approval_is_shown_checked_and_signed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, key) = key(folder.path());
    let run = |server: &Played, more: &[&str]| {
        portcullis(folder.path())
            .args(["approve", "request-11", "--server", &server.url, "--key"])
            .arg(&path)
            .args(more)
            .output()
            .unwrap()
    };
    let posts = (
        "/v1/approvals",
        json!({ "index": 14, "request": "request-11", "satisfied": true, "in_force": true }),
    );
    let page = "/v1/requests/request-11";
    let server = Played::start(answers(&key, &[(page, request(TEXT)), posts.clone()]));
    // Nobody can be asked: nothing is signed.
    let unasked = run(&server, &[]);
    assert_eq!(unasked.status.code(), Some(2));
    assert!(server.posted().is_empty());
    let output = run(&server, &["--yes", "--output", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["index"], 14);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains(TEXT) && said.contains("You sign, as ada"),
        "{said}"
    );
    let posted = server.posted();
    let signed = verified(&posted[0].1["envelope"], &key, |envelope, keys| {
        approval::verify(envelope, keys).unwrap()
    });
    assert_eq!(signed.payload().shown, Digest::of(TEXT.as_bytes()));
    assert_eq!(signed.payload().approver.as_str(), "ada");
    assert_eq!(signed.payload().key_class, KeyClass::Software);
    // A server that shows another text than the one that is bound.
    let lying = Played::start(answers(&key, &[(page, request("nothing much\n")), posts]));
    let refused = run(&lying, &["--yes"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        told(&refused).contains("something else than it shows"),
        "{}",
        told(&refused)
    );
    assert!(lying.posted().is_empty());
}

#[test]
fn a_task_is_made_signed_shown_and_guarded() {
    let folder = tempfile::tempdir().unwrap();
    let (path, key) = key(folder.path());
    let agent = json!({
        "id": "fixer", "owner": "ada", "purpose": "x", "model": "x", "runtime": "x",
        "repositories": ["shop"], "phases": ["write"], "environment_ceiling": "staging",
        "review_by": "2030-01-01T00:00:00Z", "expires": "2030-01-01T00:00:00Z",
    });
    let repository = json!({ "id": "shop", "upstream": "/srv/shop" });
    let server = Played::start(answers(
        &key,
        &[
            (
                "/v1/inventory/agents",
                json!({ "items": [{ "record": agent, "standing": "active" }] }),
            ),
            (
                "/v1/inventory/repositories",
                json!({ "items": [{ "record": repository }] }),
            ),
            (
                "/v1/branches/shop/main",
                json!({ "tip": "1".repeat(40), "known": true }),
            ),
        ],
    ));
    let run = |arguments: &[&str]| {
        portcullis(folder.path())
            .args(arguments)
            .args(["--server", &server.url, "--key"])
            .arg(&path)
            .output()
            .unwrap()
    };
    let new = [
        "task",
        "new",
        "Fix the till",
        "--agent",
        "fixer",
        "--paths",
        "src/**",
        "docs/*",
    ];
    assert_eq!(run(&new).status.code(), Some(0));
    // It stands already.
    assert_eq!(run(&new).status.code(), Some(1));
    assert_eq!(run(&["task", "verify", "task.json"]).status.code(), Some(3));
    let signed = run(&["task", "sign", "task.json"]);
    assert!(
        told(&signed).contains("portcullis run --task task.json"),
        "{}",
        told(&signed)
    );
    let file: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("task.json")).unwrap()).unwrap();
    let task = verified(&file["envelope"], &key, |envelope, keys| {
        statement::verify(envelope, StatementType::Task, keys)
            .unwrap()
            .read("task")
            .unwrap()
    });
    let task: &Task = task.payload();
    assert_eq!(task.signer.as_str(), "ada");
    assert_eq!(task.targets[0].scope.allow, ["src/**", "docs/*"]);
    assert_eq!(task.targets[0].base.as_str(), "1".repeat(40));
    assert_eq!(task.expires.ms_since(task.not_before), 8 * 3_600_000);
    // One word of the order altered.
    let mut altered = file.clone();
    altered["title"] = json!("Fix the tills");
    std::fs::write(folder.path().join("altered.json"), altered.to_string()).unwrap();
    let refused = run(&["task", "show", "altered.json"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(
        told(&refused).contains("not those that it was made with"),
        "{}",
        told(&refused)
    );
    let misspelt = run(&["task", "new", "x", "--agent", "fixr", "--file", "x.json"]);
    assert!(
        told(&misspelt).contains("did you mean `fixer`?"),
        "{}",
        told(&misspelt)
    );
    let gap = run(&[
        "task",
        "new",
        "x",
        "--agent",
        "fixer",
        "--allow-gap",
        "landlok",
        "--file",
        "x.json",
    ]);
    assert!(
        told(&gap).contains("did you mean `landlock`?"),
        "{}",
        told(&gap)
    );
}
