//! Quotas: a run that floods the ledger with denials ends, and the breaker still works.

use std::time::{Duration, Instant};

use crate::house::{House, wait_until};

#[test]
fn a_run_that_keeps_asking_is_ended() {
    let house = House::solo();
    let task = house.task("ada", &["--budget-denials", "5"]);
    let script = "git commit -q --allow-empty -m x; for n in $(seq 200); do git push -q origin HEAD:refs/heads/main || true; done; echo FINISHED";
    let run = house.start_run(&task, script);
    let done = run.wait(Duration::from_secs(30));
    assert_ne!(done.code, 0, "{done:?}");
    assert!(!done.out.contains("FINISHED"), "{done:?}");
    let ended = house.await_entry("run.ended", |_| true);
    assert_eq!(ended.body["end"]["reason"], "denials", "{ended:?}");
    let denied = house.entries("request.denied").len();
    assert!((5..=12).contains(&denied), "{denied} denials recorded");
}

#[test]
fn a_flood_is_cut_off_and_the_breaker_works_all_the_while() {
    let house = House::solo();
    let task = house.task("ada", &["--budget-denials", "40", "--runs", "4"]);
    let runners: Vec<_> = (0..4).map(|_| house.runner(&task)).collect();
    let target = [("portcullis-target", "http://example.com/")];
    std::thread::scope(|scope| {
        for runner in &runners {
            scope.spawn(move || {
                for _ in 0..120 {
                    runner.call("GET", "/gateway/v1/egress", &target, b"");
                }
            });
        }
        let since = Instant::now();
        house
            .cli("ada", &["breaker", "trip", "--why", "a flood"])
            .ok();
        assert!(
            since.elapsed() < Duration::from_secs(5),
            "{:?}",
            since.elapsed()
        );
    });
    // A few denials bring a person in; the budget ends what was faster.
    wait_until("all of them ended or stand still", || {
        let runs = house.get("/v1/runs?active=true");
        let still = |run: &serde_json::Value| !run["frozen"].is_null();
        runs["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(still)
            .then_some(())
    });
    let denied = house.entries("request.denied").len();
    // 40 each, and what was on its way when the worker ended them.
    assert!(denied <= 4 * 120 / 2, "{denied} denials recorded");
    assert_eq!(
        house.get("/v1/status")["breakers"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}
