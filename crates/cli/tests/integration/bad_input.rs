//! Bad input: every route answers it with a problem that says what was expected, and goes on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use portcullis_model::statement::{Command, SignedCommand};
use portcullis_model::{Digest, Timestamp};
use serde_json::{Value, json};

use crate::house::{House, Plan, now};

/// Method, path and body.
type BadRequest = (&'static str, &'static str, &'static [u8]);

/// For each route, requests that it must refuse.
fn bad_requests() -> BTreeMap<&'static str, Vec<BadRequest>> {
    let junk: &[u8] = b"{\"envelope\":";
    let odd: &[u8] = b"{\"envelop\":{},\"attachments\":[]}";
    let empty: &[u8] = b"";
    let zero = "/v1/blobs/sha256:0000000000000000000000000000000000000000000000000000000000000000";
    let get = |path: &'static str| ("GET", path, empty);
    let post = |path: &'static str| {
        vec![
            ("POST", path, junk),
            ("POST", path, odd),
            ("POST", path, empty),
            ("POST", path, b"[]"),
            ("POST", path, b"\xff\xfe\0"),
            ("GET", path, empty),
        ]
    };
    [
        ("/v1/commands", post("/v1/commands")),
        ("/v1/approvals", post("/v1/approvals")),
        ("/v1/tasks/check", post("/v1/tasks/check")),
        (
            "/v1/blobs/{digest}",
            vec![
                get(zero),
                get("/v1/blobs/x"),
                ("PUT", zero, junk),
                ("PUT", "/v1/blobs/x", junk),
                ("DELETE", zero, empty),
            ],
        ),
        ("/v1/status", vec![("POST", "/v1/status", junk)]),
        ("/v1/policy", vec![("PUT", "/v1/policy", junk)]),
        (
            "/v1/inventory/{kind}",
            vec![get("/v1/inventory/agent"), get("/v1/inventory/%00")],
        ),
        (
            "/v1/branches/{repository}/{*branch}",
            vec![
                get("/v1/branches/shop/../x"),
                get("/v1/branches/attic/main"),
                get("/v1/branches/SHOP/main"),
                get("/v1/branches/shop/a%0ab"),
            ],
        ),
        ("/v1/queues", vec![("POST", "/v1/queues", junk)]),
        ("/v1/tasks", vec![("POST", "/v1/tasks", junk)]),
        (
            "/v1/tasks/{task}",
            vec![get("/v1/tasks/task-1"), get("/v1/tasks/task-zz")],
        ),
        (
            "/v1/runs",
            vec![get("/v1/runs?activ=true"), get("/v1/runs?active=perhaps")],
        ),
        (
            "/v1/runs/{run}",
            vec![
                get("/v1/runs/run-99999"),
                get("/v1/runs/run--1"),
                get("/v1/runs/x"),
            ],
        ),
        (
            "/v1/changes",
            vec![get("/v1/changes?oben=true"), get("/v1/changes?open=2")],
        ),
        (
            "/v1/changes/{change}",
            vec![get("/v1/changes/change-99999"), get("/v1/changes/run-1")],
        ),
        (
            "/v1/changes/{change}/diff",
            vec![
                get("/v1/changes/change-99999/diff"),
                get("/v1/changes/x/diff"),
            ],
        ),
        ("/v1/requests", vec![get("/v1/requests?open=")]),
        (
            "/v1/requests/{request}",
            vec![get("/v1/requests/request-0"), get("/v1/requests/latest")],
        ),
        ("/v1/jobs", vec![("DELETE", "/v1/jobs", empty)]),
        (
            "/v1/jobs/{job}/source",
            vec![get("/v1/jobs/job-7/source"), get("/v1/jobs/x/source")],
        ),
        ("/v1/artifacts", vec![("POST", "/v1/artifacts", junk)]),
        (
            "/v1/artifacts/{artifact}",
            vec![get("/v1/artifacts/artifact-7"), get("/v1/artifacts/x")],
        ),
        (
            "/v1/artifacts/{artifact}/file",
            vec![
                get("/v1/artifacts/artifact-7/file"),
                get("/v1/artifacts/x/file"),
            ],
        ),
        (
            "/v1/artifacts/{artifact}/bundle",
            vec![
                get("/v1/artifacts/artifact-7/bundle"),
                get("/v1/artifacts/x/bundle?environment=BAD!"),
                get("/v1/artifacts/artifact-7/bundle?env=x"),
            ],
        ),
        (
            "/v1/commits/{repository}/{commit}/bundle",
            vec![
                get("/v1/commits/attic/0123456789abcdef0123456789abcdef01234567/bundle"),
                get("/v1/commits/shop/main/bundle"),
            ],
        ),
        ("/v1/releases", vec![("POST", "/v1/releases", junk)]),
        ("/v1/rollouts", vec![("POST", "/v1/rollouts", junk)]),
        (
            "/v1/rollouts/{rollout}",
            vec![get("/v1/rollouts/rollout-9"), get("/v1/rollouts/x")],
        ),
        ("/v1/environments", vec![("POST", "/v1/environments", junk)]),
        ("/v1/incidents", vec![("POST", "/v1/incidents", junk)]),
        (
            "/v1/ledger/entries",
            vec![
                get("/v1/ledger/entries?from=-1"),
                get("/v1/ledger/entries?form=1"),
                get("/v1/ledger/entries?limit=x"),
            ],
        ),
        (
            "/v1/ledger/checkpoint",
            vec![("POST", "/v1/ledger/checkpoint", junk)],
        ),
        // Below `/log`.
        ("/checkpoint", vec![("POST", "/log/checkpoint", junk)]),
        (
            "/tile/{*path}",
            vec![
                get("/log/tile/0/x000/000"),
                get("/log/tile/entries/999.p/0"),
                get("/log/tile/64/000"),
                get("/log/tile/0/999999"),
                ("POST", "/log/tile/0/000", junk),
            ],
        ),
        (
            "/v1/ledger/proof/{index}",
            vec![get("/v1/ledger/proof/99999999"), get("/v1/ledger/proof/x")],
        ),
        (
            "/v1/ledger/tail",
            vec![get("/v1/ledger/tail?from=x"), get("/v1/ledger/tail?form=1")],
        ),
        (
            "/gateway/v1/{*path}",
            vec![
                get("/gateway/v1/git/shop.git/info/refs?service=git-upload-pack"),
                ("POST", "/gateway/v1/git/shop.git/git-receive-pack", junk),
                get("/gateway/v1/git/x"),
                get("/gateway/v1/ask"),
                get("/gateway/v1/control"),
                ("POST", "/gateway/v1/model/m/x", junk),
                get("/gateway/v1/egress"),
                get("/gateway/v1/tunnel"),
                get("/gateway/v1/anything"),
            ],
        ),
        (
            "/git/{*path}",
            vec![
                get("/git/shop.git/info/refs"),
                get("/git/shop.git/info/refs?service=git-upload-pack"),
                get("/git/attic.git/info/refs?service=git-receive-pack"),
                get("/git/../x"),
                ("POST", "/git/shop.git/git-receive-pack", b"zzzz"),
                ("POST", "/git/shop.git/git-upload-pack", junk),
            ],
        ),
    ]
    .into()
}

/// The server's routes, as its own code says.
fn routes() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../server/src");
    let mut files = vec![folder.join("api.rs")];
    let mut folders = vec![folder.join("api")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    // What runs ask does not go by the router.
    let mut found = vec!["/gateway/v1/{*path}".to_owned()];
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for part in text.split(".route(").skip(1) {
            let path = part.split('"').nth(1).expect("a path");
            found.push(path.to_owned());
        }
    }
    found
}

#[test]
fn every_route_refuses_bad_requests_with_a_problem_and_stays_up() {
    let house = House::solo();
    let bad = bad_requests();
    let known = routes();
    assert!(known.len() > 30, "{known:?}");
    for route in &known {
        assert!(
            bad.contains_key(route.as_str()),
            "{route} has no bad request here"
        );
    }
    let before = house.point();
    let mut wrong = Vec::new();
    for (route, requests) in &bad {
        assert!(
            known.iter().any(|one| one == route),
            "{route} is no route any more"
        );
        for (method, path, body) in requests {
            let answer = house.request(method, path, &[], body);
            let problem = answer.header("content-type") == Some("application/problem+json");
            if !(400..500).contains(&answer.status) || !problem {
                wrong.push(format!("{method} {path}: {answer:?}"));
            } else {
                answer.code();
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} answers:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(house.point(), before, "nothing is recorded");
    assert_eq!(house.server().ended(), None);
}

#[test]
fn unknown_fields_are_answered_with_the_nearest_name() {
    let house = House::solo();
    let answer = house.post("/v1/commands", &json!({ "envelop": {}, "attachments": [] }));
    assert_eq!(
        answer.refused(400, "malformed-command")["next"],
        "did you mean `envelope`?"
    );
    let envelope = json!({ "payloadTyp": "x", "payload": "", "signatures": [] });
    let answer = house.post("/v1/commands", &json!({ "envelope": envelope }));
    assert_eq!(
        answer.refused(400, "malformed-command")["next"],
        "did you mean `payloadType`?"
    );
    let (task, text) = house.read_task(&house.task("ada", &[]));
    let mut odd = serde_json::to_value(&task).unwrap();
    odd["budgets"]["denial"] = json!(3);
    let unsigned = portcullis_evidence::statement::UnsignedStatement::new(
        portcullis_evidence::statement::StatementType::Task,
        &odd,
    )
    .unwrap();
    let envelope = unsigned
        .sign_with(&house.private_key("ada"))
        .unwrap()
        .into();
    let problem = house
        .check_task(&envelope, &text)
        .refused(400, "malformed-task");
    assert!(problem.to_string().contains("denial"), "{problem}");
}

#[test]
fn commands_that_are_not_what_they_say_are_refused() {
    let house = House::solo();
    let why = Digest::of(b"why");
    let suspend = Command::SuspendAgent {
        agent: "helper".parse().unwrap(),
        why,
    };
    let good = house.unsigned_command("human:ada", suspend.clone());
    let at = |ms: i64| Timestamp::from_ms(now().as_ms().saturating_add_signed(ms));
    let code = |command: &SignedCommand| {
        let answer = house.send_command(&house.sign_command("ada", command), &["why"]);
        assert!((400..500).contains(&answer.status), "{answer:?}");
        answer.code()
    };
    let mut old = good.clone();
    (old.issued, old.expires) = (at(-7_200_000), at(-7_140_000));
    assert_eq!(code(&old), "command-expired");
    let mut long = good.clone();
    long.expires = at(3_600_000);
    code(&long);
    let mut elsewhere = good.clone();
    elsewhere.origin = "example.com/other".to_owned();
    assert_eq!(code(&elsewhere), "wrong-ledger");
    let mut stranger = good.clone();
    stranger.principal = "human:eve".parse().unwrap();
    assert_eq!(code(&stranger), "human-unknown");
    for principal in ["agent:helper", "agent:helper/run-3", "unknown"] {
        let mut agent = good.clone();
        agent.principal = principal.parse().unwrap();
        assert_eq!(code(&agent), "agents-do-not-command");
    }
    for principal in ["host:local", "service:builder", "service:control"] {
        let mut machine = good.clone();
        machine.principal = principal.parse().unwrap();
        code(&machine);
    }
    let host = house.unsigned_command("host:local", suspend);
    let answer = house.send_command(&house.sign_with_home_key("host", &host), &["why"]);
    assert_eq!(
        answer.status, 403,
        "a host takes nobody's rights away: {answer:?}"
    );
    let unasked = house.send_command(&house.sign_command("ada", &good), &["another text"]);
    assert_eq!(unasked.code(), "malformed-attachment");
    assert!(house.entries("principal.ended").is_empty());

    let envelope = house.sign_command("ada", &good);
    assert_eq!(house.send_command(&envelope, &["why"]).status, 200);
    let again = house.send_command(&envelope, &["why"]);
    assert!(
        (400..500).contains(&again.status),
        "a command counts once: {again:?}"
    );
    assert_eq!(house.entries("principal.ended").len(), 1);
}

#[test]
fn sizes_are_bounded() {
    let house = House::solo();
    let text = "x".repeat(5 * 1024 * 1024);
    let answer = house.post(
        "/v1/commands",
        &json!({ "envelope": {}, "attachments": [text] }),
    );
    answer.refused(413, "body-too-large");
    let path = format!("/v1/ledger/entries?x={}", "y".repeat(20_000));
    let answer = house.request("GET", &path, &[], b"");
    assert!((400..500).contains(&answer.status), "{answer:?}");
    let long = "n".repeat(300);
    let answer = house.request("GET", &format!("/v1/branches/{long}/main"), &[], b"");
    assert_eq!(answer.status, 400, "{answer:?}");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let answer = house.request("POST", "/v1/commands", &[], deep.as_bytes());
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(house.server().ended(), None);
}

#[test]
fn two_values_where_one_belongs_are_refused() {
    let house = House::solo();
    let task = house.task("ada", &[]);
    let runner = house.runner(&task);
    let proof = runner.proof("GET", "/gateway/v1/ask");
    let mut headers: Vec<(&str, &str)> = proof
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    headers.push(("dpop", "x"));
    let answer = house.request("GET", "/gateway/v1/ask", &headers, b"");
    answer.refused(400, "malformed-header");
}

#[test]
fn misread_configuration_stops_the_server_and_says_where() {
    let house = House::furnished(Plan::default());
    let config = house.home().join("portcullis.toml");
    let good = fs::read_to_string(&config).unwrap();
    for (bad, code, told) in [
        (
            good.replace("listen =", "listn ="),
            "malformed-configuration",
            "did you mean `listen`?",
        ),
        (
            good.replace("127.0.0.1:", "0.0.0.0:"),
            "listen-not-loopback",
            "loopback",
        ),
        (
            format!("{good}\nlisten = ["),
            "malformed-configuration",
            "line",
        ),
        (
            format!("{good}\nmode = \"observe\""),
            "malformed-configuration",
            "mode",
        ),
    ] {
        fs::write(&config, bad).unwrap();
        let done = house.cli("nobody", &["serve"]);
        let refusal = done.refused(code);
        assert!(refusal.to_string().contains(told), "{told}: {done:?}");
    }
    fs::remove_file(&config).unwrap();
    assert_ne!(
        house.cli("nobody", &["serve"]).refusal()["next"],
        Value::Null
    );
}

#[test]
fn wrong_words_on_the_command_line_are_wrong_usage() {
    let house = House::solo();
    for words in [
        &["init", "--quorum", "many"][..],
        &["init", "--repository", "shop"],
        &["init", "--agent", "No Body"],
        &["task", "new"],
        &["approve", "change-1"],
        &["breaker", "trip"],
        &["runs", "show", "1"],
        &["no-such-command"],
        &["run", "--task"],
    ] {
        let done = house.text("ada", words).exits(2);
        assert!(!done.err.is_empty(), "{done:?}");
    }
    assert_eq!(house.entries("breaker.tripped").len(), 0);
    let far = house.cli("ada", &["--server", "http://example.com", "runs", "list"]);
    far.exits(2).refused("malformed-server-URL");
}

#[test]
fn a_server_whose_clock_is_an_hour_ahead_takes_no_commands() {
    let mut house = House::solo();
    let task = house.task("ada", &["--runs", "5"]);
    house.stop_server();
    house.serve_with(&[("PORTCULLIS_CLOCK_OFFSET_MS", "3600000")]);
    house
        .cli("ada", &["agent", "suspend", "helper", "--why", "clock"])
        .refused("command-expired");
    let run = house.cli(
        "nobody",
        &["run", "--task", task.to_str().unwrap(), "--", "true"],
    );
    assert_ne!(run.code, 0, "{run:?}");
    assert!(house.entries("run.started").is_empty());
    assert!(house.entries("principal.ended").is_empty());
}

#[test]
fn a_server_whose_clock_is_an_hour_behind_its_ledger_grants_nothing() {
    let mut house = House::solo();
    let task = house.task("ada", &["--runs", "5"]);
    house.stop_server();
    house.serve_with(&[("PORTCULLIS_CLOCK_OFFSET_MS", "3600000")]);
    house.stop_server();
    // Now the newest entry is an hour ahead of the right time.
    house.serve();
    let size = usize::try_from(house.point().0).unwrap();
    let run = house.cli(
        "nobody",
        &["run", "--task", task.to_str().unwrap(), "--", "true"],
    );
    run.exits(1).refused("clock-jump");
    house
        .add("ada", "agent", &House::agent_record("other", ""))
        .refused("clock-jump");
    let added = house.ledger().split_off(size);
    assert!(
        added.iter().all(|entry| entry.kind == "incident.opened"),
        "{added:?}"
    );
}
