//! Secrets: after everything else, none of them is in an entry, a log or an error.

use crate::house::{House, Plan, committing};

#[test]
fn a_busy_house_writes_no_secret_down() {
    let mut house = House::new(Plan {
        loopback: true,
        ..Plan::default()
    });
    let key = "mk-0c5b1f7e9a2d4863";
    house.guard_secret("the endpoint's key", key);
    house.write_secret("model-key", key);
    // Nobody listens there: the error must not tell what was to be sent.
    let record = "id = \"model\"\nbase_url = \"http://127.0.0.1:9/v1\"\nprefix = \"Bearer \"\nsecret = \"model-key\"\n";
    house.add("ada", "endpoint", record).ok();
    house
        .add(
            "ada",
            "agent",
            &House::agent_record("helper", "endpoints = [\"model\"]"),
        )
        .ok();
    let task = house.task("ada", &["--endpoint", "model", "--runs", "2"]);
    let script = format!(
        "curl -s -d '{{\"model\":\"m\"}}' \"$PORTCULLIS_ENDPOINT_MODEL/chat\" || true\n{}\ngit push",
        committing("src/a.txt", "a")
    );
    let done = house.run(&task, &script).ok();
    house.check_text("the run's output", &done.both());
    let token = {
        let runner = house.runner(&task);
        runner.call(
            "POST",
            "/gateway/v1/model/model/chat",
            &[],
            br#"{"model":"m"}"#,
        );
        runner.call(
            "GET",
            "/gateway/v1/ask?token=x",
            &[("authorization", "DPoP stolen")],
            b"",
        );
        runner.token().to_owned()
    };
    house.guard_secret("a run's token", &token);
    house.guard_secret("its signature", token.rsplit('.').next().unwrap());
    // A person who pastes a key where a name belongs.
    let private = std::fs::read_to_string(house.key("ada")).unwrap();
    let pasted = house.cli("ada", &["agent", "suspend", "helper", "--why", "none"]);
    house.check_text("a command's output", &pasted.both());
    assert!(private.contains("OPENSSH PRIVATE KEY"));
    house.check_secrets();
    for (path, _) in house.files_below("ledger") {
        let bytes = std::fs::read(&path).unwrap();
        house.check_text(
            &path.display().to_string(),
            &String::from_utf8_lossy(&bytes),
        );
    }
}

#[test]
fn the_scan_can_fail() {
    let mut house = House::solo();
    house.guard_secret("the name of the ledger", "example.com/house");
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| house.check_secrets()));
    assert!(found.is_err(), "the genesis names it");
    house.forget_secrets();
}
