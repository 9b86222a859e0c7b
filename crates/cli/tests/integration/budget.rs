//! A budget of calls, used up by many at once.

use crate::egress::{allow, house_with};
use crate::house::{House, Outside, Plan, Reply};

#[test]
fn a_budget_of_calls_is_kept_to_by_calls_that_come_at_once() {
    const BUDGET: usize = 7;
    const CALLS: usize = 40;
    let outside = Outside::new(|_| Reply::ok("text/plain", "fine\n"));
    let host = format!("files.test:{}", outside.port);
    let hosts = [host.clone()];
    let house: House = house_with(Plan::default(), &hosts, "");
    allow(&house, &hosts, "");
    let more = ["--trust", &host, "--budget-calls", &BUDGET.to_string()];
    let runner = house.runner(&house.task("ada", &more));
    let path = "/gateway/v1/egress";
    let requests: Vec<_> = (0..CALLS)
        .map(|number| {
            let mut headers = runner.proof("GET", path);
            let target = format!("http://{host}/{number}");
            headers.push(("portcullis-target".to_owned(), target));
            headers
        })
        .collect();
    let begin = std::sync::Barrier::new(CALLS);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = requests
            .iter()
            .map(|headers| {
                scope.spawn(|| {
                    let headers: Vec<_> = headers
                        .iter()
                        .map(|(name, value)| (name.as_str(), value.as_str()))
                        .collect();
                    begin.wait();
                    house.request("GET", path, &headers, b"").status
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let count = |status: u16| statuses.iter().filter(|one| **one == status).count();
    assert_eq!(
        (count(200), count(403)),
        (BUDGET, CALLS - BUDGET),
        "{statuses:?}"
    );
    assert_eq!(outside.seen().len(), BUDGET);
    let granted: u64 = house
        .entries("calls.observed")
        .iter()
        .flat_map(|entry| {
            entry.body["granted"]
                .as_array()
                .cloned()
                .unwrap_or_default()
        })
        .map(|granted| granted["count"].as_u64().unwrap())
        .sum();
    assert_eq!(granted, BUDGET as u64);
}
