//! Times decisions of the default policy over the fixtures of its tests. Run it by hand with
//! `cargo run --release -p portcullis-policy --example decisions`; figures depend on the machine.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "an example that a person runs"
)]

use std::time::Instant;

use portcullis_policy::{DEFAULT_TESTS, PolicyFile, PolicySet, decide, testing};

const ROUNDS: u32 = 500;

fn main() {
    let start = Instant::now();
    let set = PolicySet::embedded().unwrap();
    println!(
        "load: {:.1} ms, {} rules",
        start.elapsed().as_secs_f64() * 1e3,
        set.rules().count()
    );
    let file = PolicyFile::new("default.tests.toml", DEFAULT_TESTS);
    for (name, request) in testing::fixtures(&file).unwrap() {
        let answer = decide(&set, &request, 0).summary().answer;
        let start = Instant::now();
        for _ in 0..ROUNDS {
            let _ = std::hint::black_box(decide(&set, std::hint::black_box(&request), 0));
        }
        let each = start.elapsed() / ROUNDS;
        println!("{name:14} {answer:7} {each:?} per decision");
    }
}
