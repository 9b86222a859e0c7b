//! A server or a launcher whose clock jumps while runs are under way, and a start whose answer nobody
//! heard.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::house::{Background, House, wait_until};

/// A house whose server's clock can be set while it runs, and the file that sets it.
fn with_clock() -> (House, PathBuf) {
    let mut house = House::solo();
    let file = house.path("clock");
    std::fs::write(&file, "0").unwrap();
    house.stop_server();
    house.serve_with(&[("PORTCULLIS_CLOCK_OFFSET_FILE", file.to_str().unwrap())]);
    (house, file)
}

/// Sets it, never half.
fn set(file: &std::path::Path, offset_ms: i64) {
    let aside = file.with_extension("new");
    std::fs::write(&aside, offset_ms.to_string()).unwrap();
    std::fs::rename(&aside, file).unwrap();
}

#[test]
fn a_clock_that_jumps_holds_a_run_grants_nothing_and_lets_it_go_on_when_it_is_right() {
    let (house, clock) = with_clock();
    let task = house.task("ada", &["--window", "2h", "--runs", "5"]);
    let script = "i=0; while [ ! -e done ]; do i=$((i+1)); echo $i; sleep 0.05; done";
    let run = house.start_run(&task, script);
    let counted = || run.out().lines().count();
    let goes_on = |from: usize| {
        wait_until("it goes on where it was", || {
            (counted() > from + 2).then_some(())
        });
    };
    goes_on(0);
    for (offset_ms, told) in [(-3_600_000, 1), (3_600_000, 2)] {
        let size = usize::try_from(house.point().0).unwrap();
        set(&clock, offset_ms);
        wait_until("it is told why it stands still", || {
            (run.both().matches("clocks differ").count() == told).then_some(())
        });
        wait_until("nothing moves", || {
            let before = counted();
            std::thread::sleep(Duration::from_millis(300));
            (counted() == before).then_some(())
        });
        let stood = counted();
        let moment = usize::try_from(house.point().0).unwrap();
        // Nobody is granted anything by such a clock, in words that say why.
        let other = house.run(&task, "echo begun");
        assert!(other.code != 0 && other.out.is_empty(), "{other:?}");
        assert!(!other.err.is_empty(), "{other:?}");
        assert_eq!((counted(), run.ended()), (stood, None));
        let mut added = house.ledger().split_off(size);
        // A checkpoint of the moment before may still have come, before it was known that the clock is
        // wrong; none since.
        let since = added.split_off(moment.saturating_sub(size));
        let only = |entries: &[crate::house::Entry], harmless: &[&str]| {
            entries
                .iter()
                .all(|entry| harmless.contains(&entry.kind.as_str()))
        };
        assert!(
            only(&added, &["incident.opened", "run.checkpointed"]),
            "{added:?}"
        );
        assert!(only(&since, &["incident.opened"]), "{since:?}");
        set(&clock, 0);
        goes_on(stood);
    }
    // Nothing that the wrong clock said is held against the right one.
    house.run(&task, "echo begun").ok();
    run.signal(rustix::process::Signal::TERM);
    run.wait(Duration::from_secs(20));
    wait_until("both have ended as they did", || {
        let ended = house.entries("run.ended");
        let exited = |entry: &crate::house::Entry| entry.body["end"]["reason"] == "exited";
        (ended.len() == 2 && ended.iter().all(exited)).then_some(())
    });
}

#[test]
fn a_launchers_clock_that_jumps_holds_its_run_alone() {
    let house = House::solo();
    let clock = house.path("clock");
    std::fs::write(&clock, "0").unwrap();
    let task = house.task("ada", &["--window", "2h", "--runs", "9"]);
    let by_this_clock = |script: &str| {
        let mut command = house.run_command(&task, script);
        command.env("PORTCULLIS_CLOCK_OFFSET_FILE", &clock);
        command
    };
    let script = "i=0; while [ ! -e done ]; do i=$((i+1)); echo $i; sleep 0.05; done";
    let run = Background::start(&mut by_this_clock(script), &house.path("work"));
    let counted = || run.out().lines().count();
    let goes_on = |from: usize| {
        wait_until("it goes on where it was", || {
            (counted() > from + 2).then_some(())
        });
    };
    goes_on(0);
    for (offset_ms, told) in [(-7_200_000, 1), (7_200_000, 2)] {
        set(&clock, offset_ms);
        wait_until("it is told why it stands still", || {
            (run.both().matches("clocks differ").count() == told).then_some(())
        });
        wait_until("nothing moves", || {
            let before = counted();
            std::thread::sleep(Duration::from_millis(300));
            (counted() == before).then_some(())
        });
        let stood = counted();
        // With such a clock nothing starts, in words that say why; with a right one all does.
        let begun = house.entries("run.started").len();
        let mut wrong = by_this_clock("echo begun");
        let refused = crate::house::run(wrong.current_dir(house.path("work")));
        assert!(refused.code != 0 && refused.out.is_empty(), "{refused:?}");
        assert!(refused.err.contains("clock"), "{refused:?}");
        assert_eq!(house.entries("run.started").len(), begun);
        house.run(&task, "echo begun").ok();
        assert_eq!((counted(), run.ended()), (stood, None));
        set(&clock, 0);
        goes_on(stood);
    }
    // Ahead of its deadline by the clock alone: it ends as it ends.
    run.signal(rustix::process::Signal::TERM);
    run.wait(Duration::from_secs(20));
    wait_until("all have ended as they did", || {
        let ended = house.entries("run.ended");
        let exited = |entry: &crate::house::Entry| entry.body["end"]["reason"] == "exited";
        (ended.len() == 3 && ended.iter().all(exited)).then_some(())
    });
}

#[test]
fn a_run_whose_start_was_never_answered_is_ended_and_another_is_not() {
    let (house, clock) = with_clock();
    let task = house.task("ada", &["--runs", "5"]);
    // Both hold what a launcher holds. Only one ever asks whether its run may go on.
    let lost = house.runner(&task);
    let heard = house.runner(&task);
    assert_eq!(
        heard.call("GET", "/gateway/v1/control", &[], b"").status,
        200
    );
    // Nearly a minute goes by: as far as a clock may be off before that counts as a jump.
    set(&clock, 58_000);
    let ended = house.await_entry("run.ended", |_| true);
    assert_eq!(ended.body["run"], lost.id(), "{ended:?}");
    assert_eq!(ended.body["end"]["reason"], "lost", "{ended:?}");
    set(&clock, 0);
    // A launcher that comes late is told so, and gets nothing.
    let answer = lost.call("GET", "/gateway/v1/control", &[], b"").json();
    assert_eq!(answer["end"]["reason"], "lost", "{answer}");
    let asked = lost.begin_push("shop");
    assert_eq!(asked.status, 403, "{asked:?}");
    let answer = heard.call("GET", "/gateway/v1/control", &[], b"").json();
    assert_eq!(answer["end"], json!(null), "{answer}");
    assert_eq!(house.entries("run.ended").len(), 1);
}
