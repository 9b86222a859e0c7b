//! Windows: a run is looked at, stands still, and goes on, narrower or wound back, by a person.

use serde_json::json;

use crate::house::{Background, House, wait_until};

/// A run that stands still at the end of its first window, with its id.
fn stopped(house: &House, options: &[&str], script: &str) -> (Background, String) {
    let options = [&["--window", "2s"], options].concat();
    let run = house.start_run(&house.task("ada", &options), script);
    let entry = house.await_entry("run.reviewed", |entry| !entry.body["stop"].is_null());
    let id = entry.body["run"].as_str().unwrap().to_owned();
    wait_until("it says so", || {
        run.both().contains("stands still").then_some(())
    });
    (run, id)
}

#[test]
fn a_run_stands_still_for_a_person_and_its_processes_go_on() {
    let mut house = House::solo();
    let script = "echo good > kept; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do true | cat; done
        i=0; while [ ! -e done ]; do i=$((i+1)); echo $i; sleep 0.05; [ $i = 200 ] && rm -f kept && touch spoilt; done
        exit 5";
    let (run, id) = stopped(&house, &["--ask-each-window"], script);
    let reviewed = house.entries("run.reviewed");
    assert_eq!(reviewed[0].body["causes"], json!(["window"]));
    let because = reviewed[0].body["stop"]["because"].to_string();
    assert!(because.contains("base-task-asks"), "{because}");
    let counted = || run.out().lines().count();
    wait_until("nothing moves", || {
        let before = counted();
        std::thread::sleep(std::time::Duration::from_millis(200));
        (counted() == before).then_some(())
    });
    let stands = counted();
    let asked = house.await_request(&id);
    // The state survives the server; the run stays as it is meanwhile.
    house.kill_server();
    house.serve();
    assert_eq!(counted(), stands);
    assert_eq!(run.ended(), None);
    house.approve("ada", &asked).ok();
    house.await_entry("run.resumed", |_| true);
    wait_until("it goes on where it was", || {
        (counted() > stands + 2).then_some(())
    });
    let again = house.await_entry("run.reviewed", |entry| entry.body["window"] == 2);
    assert!(!again.body["stop"].is_null());
    house
        .cli("ada", &["runs", "end", &id, "--why", "seen enough"])
        .ok();
    assert_eq!(run.wait(std::time::Duration::from_secs(20)).code, 137);
    wait_until("the question is withdrawn", || {
        let list = house.get("/v1/requests?open=true");
        list["items"].as_array().unwrap().is_empty().then_some(())
    });
}

/// Asks again and again for what it may not have.
const KNOCKING: &str =
    "for i in 1 2 3 4 5 6; do curl --silent http://not-in-the-task.example/ >/dev/null; done";

#[test]
fn repeated_denials_bring_a_person_in_and_a_quiet_run_none() {
    let house = House::solo();
    let quiet = house.run(&house.task("ada", &["--window", "1s"]), "sleep 3; exit 4");
    quiet.exits(4);
    let looked = house.entries("run.reviewed");
    assert!(looked.len() >= 2, "{looked:?}");
    assert!(looked.iter().all(|entry| entry.body["stop"].is_null()));
    assert!(house.open_request("go").is_none());
    let script = format!("{KNOCKING}; sleep 60");
    let run = house.start_run(&house.task("ada", &[]), &script);
    let stopped = house.await_entry("run.reviewed", |entry| !entry.body["stop"].is_null());
    assert_eq!(stopped.body["causes"], json!(["denials"]));
    let id = stopped.body["run"].as_str().unwrap().to_owned();
    house.await_request(&id);
    house
        .cli("ada", &["runs", "end", &id, "--why", "it does not stop"])
        .ok();
    run.wait(std::time::Duration::from_secs(20)).exits(137);
}
