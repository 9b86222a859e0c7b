//! Two servers on one PostgreSQL: a standby that reads, and takes over in the middle of a change.

use crate::house::{House, Plan, wait_until};
use crate::postgres_server::Server;

#[test]
fn a_change_of_one_server_is_approved_and_landed_by_the_other_after_a_kill() {
    let database = Server::own("");
    let mut house = House::furnished(Plan {
        store: Some(database.url("postgres")),
        ..Plan::default()
    });
    house.serve();
    assert_eq!(house.get("/v1/status")["role"], "leader");
    let first = house.propose("ada", "src/first.txt", "first");
    let first_request = house.await_request(&first);

    // A standby answers reads, says of which moment, and who leads.
    let leader = house.url();
    let mut standby = house.start_standby();
    let status = wait_until("the standby has it all", || {
        let status = standby.get("/v1/status");
        (status["size"].as_u64() >= Some(house.point().0)).then_some(status)
    });
    assert_eq!(status["role"], "standby");
    assert_eq!(status["leader"], leader.as_str());
    let answer = standby.request("GET", "/v1/changes", &[], b"");
    assert_eq!(answer.status, 200);
    let refused = standby.request("POST", "/v1/commands", &[], b"{}");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.json()["code"], "not-leader");

    // Who asks the standby is sent to the leader by the command line.
    standby.approve("ada", &first_request).ok();
    house.await_landed(&first);

    // Killed, the leader is followed; what it had taken in is approved and landed by the other.
    let second = house.propose("ada", "src/second.txt", "second");
    let second_request = house.await_request(&second);
    house.kill_server();
    wait_until("the standby leads", || {
        let answer = standby.try_get("/v1/status")?;
        (answer["role"] == "leader").then_some(())
    });
    standby.approve("ada", &second_request).ok();
    standby.await_landed(&second);
    let started = standby.entries("server.started");
    assert_eq!(started.len(), 2, "each leader says that it took over");
    standby.cli("ada", &["ledger", "verify"]).ok();
    let told = standby.text("ada", &["doctor"]).both();
    assert!(told.contains("PostgreSQL"), "{told}");

    // The first one comes back, as a standby.
    house.serve();
    assert_eq!(house.get("/v1/status")["role"], "standby");
    house.stop_server();
    standby.stop_server();
    let copy = standby.path("copy");
    let copied = standby.cli("ada", &["backup", copy.to_str().unwrap()]).ok();
    assert!(copied.json()["entries"].as_u64().unwrap() > 10);
    let home = copy.to_str().unwrap();
    standby
        .cli("ada", &["--home", home, "ledger", "verify"])
        .ok();
}
