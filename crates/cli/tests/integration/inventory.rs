//! The inventory: what a record must say, and what losing one's rights does at once.

use std::time::{Duration, Instant};

use portcullis_model::Timestamp;

use crate::house::{House, Plan, wait_until};

#[test]
fn an_agent_without_owner_purpose_or_expiry_is_refused() {
    let house = House::solo();
    for field in [
        "owner",
        "purpose",
        "expires",
        "review_by",
        "model",
        "runtime",
    ] {
        let record: String = House::agent_record("fixer", "")
            .lines()
            .filter(|line| !line.starts_with(&format!("{field} ")))
            .map(|line| format!("{line}\n"))
            .collect();
        let done = house.add("ada", "agent", &record).exits(2);
        let refusal = done.refused("malformed-agent-record");
        assert!(
            refusal["received"]
                .as_str()
                .unwrap()
                .contains(&format!("`{field}`")),
            "{done:?}"
        );
    }
    let size = house.point().0;
    let misspelt = House::agent_record("fixer", "").replace("expires =", "expiers =");
    let refusal = house
        .add("ada", "agent", &misspelt)
        .exits(2)
        .refused("malformed-agent-record");
    assert_eq!(refusal["next"], "did you mean `expires`?");
    let empty = House::agent_record("fixer", "purpose = \" \"");
    house.add("ada", "agent", &empty).exits(2);
    let unowned = House::agent_record("fixer", "owner = \"nobody-here\"");
    assert_ne!(house.add("ada", "agent", &unowned).code, 0);
    let over = House::agent_record("fixer", "expires = \"2020-01-01T00:00:00Z\"");
    assert_ne!(house.add("ada", "agent", &over).code, 0);
    assert!(house.entries("activation.proposed").is_empty());
    assert_eq!(house.point().0, size, "what is refused leaves no entry");
}

#[test]
fn a_record_is_in_force_once_others_approved_it() {
    let house = House::new(Plan::team());
    let asked = house.add(
        "bob",
        "agent",
        &House::agent_record("fixer", "owner = \"bob\""),
    );
    let request = asked.exits(4).json()["request"]
        .as_str()
        .unwrap()
        .to_owned();
    let own = house.approve("bob", &request);
    own.refused("own-party");
    house.approve("cyd", &request).ok();
    house.await_entry("activation.completed", |_| true);
    let listed = house.cli("ada", &["agent", "list"]).ok().json();
    let fixer = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["record"]["id"] == "fixer");
    assert_eq!(fixer.expect("the agent is listed")["standing"], "active");
}

#[test]
fn a_suspended_agents_run_ends_at_once_and_nothing_new_begins() {
    let house = House::solo();
    let task = house.task("ada", &["--runs", "9"]);
    let run = house.start_run(&task, "echo begun; sleep 600");
    wait_until("the command runs", || {
        run.out().contains("begun").then_some(())
    });
    let runner = house.runner(&task);
    assert_eq!(runner.begin_push("shop").status, 200);

    let since = Instant::now();
    house
        .cli(
            "ada",
            &["agent", "suspend", "helper", "--why", "looks wrong"],
        )
        .ok();
    for _ in 0..2 {
        runner.begin_push("shop").refused(403, "run-ended");
        assert_eq!(runner.call("GET", "/gateway/v1/ask", &[], b"").status, 403);
    }
    let done = run.wait(Duration::from_secs(20));
    assert!(
        since.elapsed() < Duration::from_secs(10),
        "{:?}",
        since.elapsed()
    );
    assert_ne!(done.code, 0, "{done:?}");

    let runs = house.get("/v1/runs");
    let runs = runs["items"].as_array().unwrap();
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert!(
        runs.iter()
            .all(|run| run["end"]["end"]["reason"] == "rights"),
        "{runs:?}"
    );
    let refused: Vec<_> = house
        .entries("lease.refused")
        .into_iter()
        .filter(|entry| entry.body["run"] == runner.id())
        .map(|entry| entry.body["lease"]["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(refused, ["git", "identity"], "each lease once");
    let again = house.cli(
        "nobody",
        &["run", "--task", task.to_str().unwrap(), "--", "true"],
    );
    again.exits(3).refused("base-agent-inactive");
    assert_eq!(house.entries("run.started").len(), 2);
}

#[test]
fn an_expired_agents_run_ends_by_itself() {
    let house = House::solo();
    let soon = Timestamp::from_ms(crate::house::now().as_ms() + 4_000);
    let record = House::agent_record(
        "brief",
        &format!("expires = \"{soon}\"\nreview_by = \"{soon}\""),
    );
    house.add("ada", "agent", &record).ok();
    let task = house.task("ada", &["--agent", "brief", "--runs", "2"]);
    let runner = house.runner(&task);
    let run = house.start_run(&task, "echo begun; sleep 600");
    wait_until("the command runs", || {
        run.out().contains("begun").then_some(())
    });
    assert_eq!(runner.begin_push("shop").status, 200);
    let done = run.wait(Duration::from_secs(20));
    assert_ne!(done.code, 0, "{done:?}");
    assert_eq!(runner.begin_push("shop").status, 403);
    let again = house.runner_refused(&task);
    assert!(
        again == "agent-expired" || again == "base-agent-inactive",
        "{again}"
    );
}

#[test]
fn a_retired_hosts_and_a_retired_signers_runs_end() {
    let house = House::new(Plan::team());
    let task = house.task("ada", &[]);
    let runner = house.runner(&task);
    assert_eq!(runner.begin_push("shop").status, 200);
    house
        .cli("bob", &["human", "retire", "ada", "--why", "left"])
        .ok();
    runner.begin_push("shop").refused(403, "run-ended");

    let task = house.task("bob", &[]);
    let runner = house.runner(&task);
    assert_eq!(runner.begin_push("shop").status, 200);
    house
        .cli("bob", &["host", "retire", "local", "--why", "stolen"])
        .ok();
    runner.begin_push("shop").refused(403, "run-ended");
}

#[test]
fn a_person_is_forgotten_and_the_tree_stays_whole() {
    let house = House::new(Plan::team());
    let (name, mail) = ("Cydonia Quillfeather", "cydonia@quillfeather.example");
    house
        .cli(
            "cyd",
            &["human", "name", "cyd", "--name", name, "--mail", mail],
        )
        .ok();
    let shown = house.get("/v1/inventory/humans");
    assert!(shown.to_string().contains(mail), "{shown}");
    // Neither a name for somebody else nor forgetting them is for everybody.
    house
        .add("ada", "human", "id = \"dan\"\nkeys = []\n")
        .exits(2);
    let before = house.point().0;
    let forgotten = house
        .cli("ada", &["human", "forget", "cyd", "--why", "asked for it"])
        .ok();
    assert!(forgotten.json()["index"].as_u64().unwrap() >= before);
    let entry = house.await_entry("principal.ended", |_| true);
    assert_eq!(
        entry.body["subject"]["kind"], "human-forgotten",
        "{entry:?}"
    );
    let shown = house.get("/v1/inventory/humans");
    assert!(!shown.to_string().contains("Quill"), "{shown}");
    house
        .cli("cyd", &["breaker", "trip", "--why", "no more"])
        .exits(3);
    for (path, _) in house.files_below("ledger") {
        let bytes = std::fs::read(&path).unwrap();
        for text in [name, mail] {
            let found = bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes());
            assert!(!found, "{} still has {text}", path.display());
        }
    }
    house.cli("ada", &["ledger", "verify"]).ok();
}
