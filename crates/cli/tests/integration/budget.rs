//! A budget of calls, used up by many at once.

use crate::egress::{allow, house_with};
use crate::house::runner::Runner;
use crate::house::{House, Outside, Plan, Reply};

const BUDGET: usize = 7;
const CALLS: usize = 40;

/// Sends so many requests at once; how many were answered 200, and how many 403.
fn at_once(
    house: &House,
    runner: &Runner<'_>,
    (method, path, body): (&str, &str, &str),
    more: impl Fn(usize) -> Option<(String, String)>,
) -> (usize, usize) {
    let requests: Vec<_> = (0..CALLS)
        .map(|number| {
            let mut headers = runner.proof(method, path);
            headers.extend(more(number));
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
                    house
                        .request(method, path, &headers, body.as_bytes())
                        .status
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let count = |status: u16| statuses.iter().filter(|one| **one == status).count();
    (count(200), count(403))
}

#[test]
fn a_budget_of_calls_is_kept_to_by_calls_that_come_at_once() {
    let outside = Outside::new(|_| Reply::ok("text/plain", "fine\n"));
    let host = format!("files.test:{}", outside.port);
    let hosts = [host.clone()];
    let house: House = house_with(Plan::default(), &hosts, "");
    allow(&house, &hosts, "");
    let more = ["--trust", &host, "--budget-calls", &BUDGET.to_string()];
    let runner = house.runner(&house.task("ada", &more));
    let request = ("GET", "/gateway/v1/egress", "");
    let answers = at_once(&house, &runner, request, |number| {
        let target = format!("http://{host}/{number}");
        Some(("portcullis-target".to_owned(), target))
    });
    assert_eq!(answers, (BUDGET, CALLS - BUDGET));
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

#[test]
fn calls_to_a_model_that_come_at_once_keep_to_it_too() {
    let model = Outside::new(|_| Reply::ok("application/json", "{\"model\":\"m-1\"}"));
    let plan = Plan {
        loopback: true,
        ..Plan::default()
    };
    let house = house_with(plan, &[], "");
    let record = format!(
        "id = \"model\"\nbase_url = \"http://127.0.0.1:{}/v1\"\n",
        model.port
    );
    house.add("ada", "endpoint", &record).ok();
    allow(&house, &[], "endpoints = [\"model\"]");
    let more = ["--endpoint", "model", "--budget-calls", &BUDGET.to_string()];
    let runner = house.runner(&house.task("ada", &more));
    let request = (
        "POST",
        "/gateway/v1/model/model/chat/completions",
        "{\"model\":\"m-1\"}",
    );
    let (answered, denied) = at_once(&house, &runner, request, |_| {
        Some(("content-type".to_owned(), "application/json".to_owned()))
    });
    // How a call ended counts as well, so that fewer may have been made.
    assert!((1..=BUDGET).contains(&answered), "{answered}");
    assert_eq!(answered + denied, CALLS);
    assert_eq!(model.seen().len(), answered);
}
