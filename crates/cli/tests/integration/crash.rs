//! `kill -9` anywhere: the state after is the state before, and nothing is done twice.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::house::{Entry, House, Plan, committing, copy_folder, wait_until};

/// The recorded history, which a restart may only add to.
fn history(house: &House) -> (u64, String, Vec<String>) {
    let (size, root) = house.point();
    let entries = house.ledger();
    let kept = usize::try_from(size).unwrap();
    (
        size,
        root,
        entries
            .iter()
            .take(kept)
            .map(|entry| format!("{entry:?}"))
            .collect(),
    )
}

/// After a restart everything from before is there, unchanged, and the server says so itself.
fn check_kept(house: &House, (size, root, entries): &(u64, String, Vec<String>)) {
    let now = house.ledger();
    let kept: Vec<String> = now
        .iter()
        .take(entries.len())
        .map(|entry| format!("{entry:?}"))
        .collect();
    assert_eq!(kept, *entries);
    let started = now
        .iter()
        .rev()
        .find(|entry| entry.kind == "server.started")
        .unwrap();
    let found = &started.body["found"];
    if found["size"] == *size {
        assert_eq!(found["root"], **root);
    } else {
        assert!(found["size"].as_u64().unwrap() > *size, "{found}");
    }
    house.cli("ada", &["ledger", "verify"]).ok();
}

#[test]
fn a_server_that_dies_within_a_landing_lands_it_once() {
    for point in ["effect-intended", "effect-attempted", "effect-performed"] {
        let mut house = House::solo();
        let before = house.tip("main");
        let change = house.propose("ada", "src/a.txt", point);
        let request = house.await_request(&change);
        house.kill_server();
        house.serve_with(&[("PORTCULLIS_CRASH_AT", point)]);
        let kept = history(&house);
        // The server may die before it answers.
        house.approve("ada", &request);
        wait_until(&format!("it dies at {point}"), || house.server().ended());
        let moved = house.tip("main") != before;
        assert_eq!(moved, point == "effect-performed", "{point}");
        house.kill_server();

        house.serve();
        check_kept(&house, &kept);
        let landed = house.await_landed(&change);
        assert_eq!(house.tip("main"), landed, "{point}");
        assert_eq!(
            house.git_line(&house.shop(), &["rev-parse", "main~1"]),
            before,
            "{point}"
        );
        let count = |kind: &str| house.entries(kind).len();
        assert_eq!(count("effect.intended"), 1, "{point}");
        let concluded = house.entries("effect.concluded");
        assert_eq!(
            (concluded.len(), &concluded[0].body["outcome"]),
            (1, &"done".into()),
            "{point}"
        );
        let attempts = count("effect.attempted");
        // What was performed is observed, not repeated; what may not have been is tried again.
        let expected = if point == "effect-attempted" { 2 } else { 1 };
        assert_eq!(attempts, expected, "{point}");
        assert!(house.entries("incident.opened").is_empty(), "{point}");
    }
}

#[test]
fn a_server_killed_at_rest_comes_back_to_the_same_root() {
    let mut house = House::solo();
    let change = house.propose("ada", "src/a.txt", "a");
    house.approve("ada", &house.await_request(&change)).ok();
    house.await_landed(&change);
    let quiet = wait_until("nothing more happens", || {
        let first = house.point();
        std::thread::sleep(Duration::from_millis(300));
        (house.point() == first).then_some(first)
    });
    let kept = history(&house);
    house.kill_server();
    house.serve();
    let started = house.entries("server.started").pop().unwrap();
    let found = (
        started.body["found"]["size"].as_u64().unwrap(),
        started.body["found"]["root"].as_str().unwrap(),
    );
    assert_eq!(found, (quiet.0, quiet.1.as_str()));
    check_kept(&house, &kept);
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let house = House::solo();
    let before = house.point();
    let second = house.cli("nobody", &["serve"]);
    let refusal = second.refusal();
    assert_eq!(refusal["code"], "data-directory-held", "{second:?}");
    let holder = house.server().id().to_string();
    assert!(
        refusal["received"].as_str().unwrap().contains(&holder),
        "{second:?}"
    );
    assert_eq!(house.point(), before);
}

/// A small generator, so that a seed says what happens (xorshift).
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[test]
fn killed_again_and_again_in_a_busy_pipeline_it_loses_and_repeats_nothing() {
    for seed in [11, 29, 47] {
        let mut seeded = Seeded(seed * 0x9e37_79b9);
        let mut house = House::new(Plan::default());
        let before = house.tip("main");
        let change = house.propose("ada", "src/a.txt", "a");
        for round in 0..4 {
            let kept = history(&house);
            let wait = Duration::from_millis(seeded.below(120));
            std::thread::scope(|scope| {
                let house = &house;
                let request = house.open_request(&change);
                scope.spawn(move || {
                    if let Some(request) = request {
                        house.approve("ada", &request);
                    }
                });
                scope.spawn(move || {
                    let file = format!("src/{seed}-{round}.txt");
                    let name = house.path("work").join(format!("busy-{seed}-{round}.json"));
                    let name = name.to_str().unwrap();
                    let made = house.cli(
                        "ada",
                        &[
                            "task", "new", "Busy", "--agent", "helper", "--sign", "--file", name,
                        ],
                    );
                    if made.code == 0 {
                        house.run(
                            name.as_ref(),
                            &format!("{}\ngit push", committing(&file, "b")),
                        );
                    }
                });
                std::thread::sleep(wait);
                house.server().kill();
                // Whoever was talking to it finds nobody, and ends.
            });
            house.kill_server();
            house.serve();
            check_kept(&house, &kept);
        }
        let request = wait_until("it lands, or waits for a person", || {
            let seen = house.change(&change);
            if seen["status"] == "landed" {
                return Some(None);
            }
            house.open_request(&change).map(Some)
        });
        if let Some(request) = request {
            house.approve("ada", &request);
        }
        house.await_landed(&change);
        let done = |entry: &&Entry| entry.body["outcome"] == "done";
        assert_eq!(
            house
                .entries("effect.concluded")
                .iter()
                .filter(done)
                .count(),
            1,
            "seed {seed}"
        );
        assert_eq!(
            house.git_line(&house.shop(), &["rev-parse", "main~1"]),
            before,
            "seed {seed}"
        );
    }
}

#[test]
fn a_data_directory_that_went_back_in_time_halts_everything_until_people_sign() {
    let mut house = House::solo();
    house.stop_server();
    let held = house.path("held.checkpoint");
    let config = house.home().join("portcullis.toml");
    let settings = fs::read_to_string(&config).unwrap();
    let setting = format!("held_checkpoint = \"{}\"\n", held.display());
    fs::write(&config, setting + &settings).unwrap();
    house.serve();
    house.stop_server();
    let (data, copy) = (house.home().join("ledger"), house.path("copy"));
    copy_folder(&data, &copy);

    house.serve();
    let change = house.propose("ada", "src/a.txt", "lost");
    house.await_request(&change);
    let (size, _) = house.point();
    wait_until("the newest checkpoint is held", || {
        let note = fs::read_to_string(&held).unwrap_or_default();
        let held_size = note
            .lines()
            .nth(1)
            .and_then(|line| line.parse::<u64>().ok());
        held_size.filter(|held_size| *held_size >= size)
    });
    house.stop_server();
    fs::remove_dir_all(&data).unwrap();
    fs::rename(&copy, &data).unwrap();

    for start in 0..2 {
        house.serve();
        let incident = house.await_entry("incident.opened", |entry| {
            entry.body["code"] == "ledger-restored"
        });
        let lost_to: u64 = incident.body["facts"]["lost_to"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!(lost_to + 1 >= size, "{incident:?}");
        let breakers = house.get("/v1/status")["breakers"].clone();
        assert_eq!(breakers.as_array().unwrap().len(), 1, "start {start}");
        // Found once, and then the ledger itself says so.
        assert_eq!(house.entries("breaker.tripped").len(), 1);
        let aside = fs::read_dir(held.parent().unwrap()).unwrap().flatten();
        let aside = aside.filter(|entry| entry.file_name().to_string_lossy().contains(".lost-"));
        assert_eq!(aside.count(), 1);
        if start == 0 {
            house.stop_server();
        }
    }
    let asked = house
        .cli("ada", &["breaker", "reset", "--why", "lost, and looked at"])
        .exits(4)
        .json();
    let request = asked["request"].as_str().unwrap();
    house.approve("ada", request).ok();
    house.await_entry("breaker.reset", |_| true);
    assert_eq!(house.get("/v1/status")["breakers"], json!([]));
}
