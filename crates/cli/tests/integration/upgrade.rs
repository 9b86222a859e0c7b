//! Servers' directories that older builds wrote, taken over by this one.
//!
//! Each folder below `fixtures/homes` was written by the build whose form it shows, by
//! [`write_the_fixture`], and is never written again. To make the next one, with a change of an event,
//! of the fold or of a table: before the change, name a new folder in `NEWEST` and run
//! `cargo nextest run -p portcullis-cli --run-ignored only write_the_fixture`, then make the change
//! and add the name to `FIXTURES`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::house::{House, Plan, wait_until};

/// Every form so far. `v1`: each event in version 1, of before `server.started` said its store.
const FIXTURES: [&str; 1] = ["v1"];
/// The one that would be written now.
const NEWEST: &str = "v2";
/// What is asked of a server about its state: it must be the same for every later build.
const LISTS: [&str; 7] = [
    "/v1/inventory/humans",
    "/v1/inventory/agents",
    "/v1/inventory/repositories",
    "/v1/runs",
    "/v1/changes",
    "/v1/requests",
    "/v1/incidents",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_PATH"))
        .with_file_name("tests/fixtures/homes")
        .join(name)
}

fn copy(from: &Path, to: &Path, mode: Option<u32>) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target, mode);
        } else {
            fs::copy(entry.path(), &target).unwrap();
            // A checkout knows no modes.
            if let Some(mode) = mode {
                fs::set_permissions(&target, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
    }
}

/// What of the answers is the ledger's word, without what this build says of itself or of now.
fn said(house: &House) -> Value {
    let status = house.get("/v1/status");
    let mut said = json!({
        "origin": status["origin"], "genesis": status["genesis"], "policy": status["policy"],
        "breakers": status["breakers"], "log_key": status["log_key"],
    });
    for path in LISTS {
        said[path] = house.get(path)["items"].clone();
    }
    said
}

/// Of two answers what both have: a later build may say more.
fn common(expected: &Value, now: &Value) -> Value {
    match (expected, now) {
        (Value::Object(expected), Value::Object(now)) => Value::Object(
            expected
                .iter()
                .map(|(name, value)| {
                    let same = now.get(name).unwrap_or(&Value::Null);
                    (name.clone(), common(value, same))
                })
                .collect(),
        ),
        (Value::Array(expected), Value::Array(now)) if expected.len() == now.len() => Value::Array(
            expected
                .iter()
                .zip(now)
                .map(|(expected, now)| common(expected, now))
                .collect(),
        ),
        (_, now) => now.clone(),
    }
}

#[test]
fn a_directory_of_every_older_build_is_served_verified_and_written_on() {
    for name in FIXTURES {
        let mut house = House::bare();
        let from = fixture(name);
        copy(&from.join("home"), house.home(), Some(0o600));
        copy(&from.join("keys"), &house.path("keys"), Some(0o600));
        let config = house.home().join("portcullis.toml");
        let text = fs::read_to_string(&config).unwrap();
        let listen = format!("listen = \"127.0.0.1:{}\"", house.port());
        let text: Vec<&str> = text
            .lines()
            .map(|line| {
                if line.starts_with("listen = ") {
                    &listen
                } else {
                    line
                }
            })
            .collect();
        fs::write(&config, text.join("\n")).unwrap();
        let before = house.cli("ada", &["ledger", "verify"]).ok().json();
        let expected: Value =
            serde_json::from_slice(&fs::read(from.join("expected.json")).unwrap()).unwrap();
        assert_eq!(before["size"], expected["size"], "{name}");
        assert_eq!(before["root"], expected["root"], "{name}");
        // What was verified by then is gone on from by this build, too.
        let state = house.path("work").join("verified.json");
        let state = state.to_str().unwrap();
        house
            .cli("ada", &["ledger", "verify", "--state", state])
            .ok();

        house.serve();
        let now = said(&house);
        assert_eq!(common(&expected["said"], &now), expected["said"], "{name}");
        let started = house.await_entry("server.started", |entry| {
            entry.index >= expected["size"].as_u64().unwrap()
        });
        assert_eq!(started.body["found"]["size"], expected["size"], "{name}");
        assert_eq!(started.body["store"], "sqlite", "{name}");
        house
            .cli("ada", &["breaker", "trip", "--why", "by this build"])
            .ok();
        house.stop_server();
        // From a snapshot of this build now, and from what the verifier kept.
        house.serve();
        house.await_entry("breaker.tripped", |_| true);
        house.stop_server();
        let after = house
            .cli("ada", &["ledger", "verify", "--state", state])
            .ok()
            .json();
        assert_eq!(after["resumed_from"], expected["size"], "{name}");
        assert!(after["size"].as_u64() > expected["size"].as_u64(), "{name}");
    }
}

#[test]
#[ignore = "writes the fixture, once per form: by the build whose form it shall show"]
fn write_the_fixture() {
    let target = fixture(NEWEST);
    assert!(!target.exists(), "what is written stays as it is");
    let mut house = House::new(Plan::default());
    let landed = house.propose("ada", "src/a.txt", "a");
    house.approve("ada", &house.await_request(&landed)).ok();
    house.await_landed(&landed);
    let open = house.propose("ada", "src/b.txt", "b");
    house.await_request(&open);
    house
        .add("ada", "agent", &House::agent_record("other", ""))
        .ok();
    house
        .cli(
            "ada",
            &["agent", "suspend", "other", "--why", "for the fixture"],
        )
        .ok();
    house
        .cli(
            "ada",
            &[
                "breaker",
                "trip",
                "--repo",
                "shop",
                "--why",
                "for the fixture",
            ],
        )
        .ok();
    wait_until("all is quiet", || {
        let before = house.point();
        std::thread::sleep(std::time::Duration::from_secs(3));
        (house.point() == before).then_some(())
    });
    let said = said(&house);
    house.stop_server();
    let verified = house.cli("ada", &["ledger", "verify"]).ok().json();
    for name in ["ledger", "policy", "keys"] {
        copy(
            &house.home().join(name),
            &target.join("home").join(name),
            None,
        );
    }
    for name in ["genesis.json", "portcullis.toml"] {
        fs::copy(house.home().join(name), target.join("home").join(name)).unwrap();
    }
    copy(&house.path("keys"), &target.join("keys"), None);
    let reserve = fs::OpenOptions::new()
        .write(true)
        .open(target.join("home/ledger/reserve.journal"))
        .unwrap();
    // The rest is zeros, and is made up for at the start.
    reserve.set_len(1_024).unwrap();
    for name in ["lock", "ledger.db-shm", "private.db-shm"] {
        let _absent = fs::remove_file(target.join("home/ledger").join(name));
    }
    let expected = json!({ "size": verified["size"], "root": verified["root"], "said": said });
    let text = serde_json::to_vec_pretty(&expected).unwrap();
    fs::write(target.join("expected.json"), text).unwrap();
    house.forget_secrets();
}
