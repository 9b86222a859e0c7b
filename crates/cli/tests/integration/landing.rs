//! Landing: exactly what was approved, once, and nobody's work is lost.

use std::fs;

use crate::house::{House, Plan, wait_until};

#[test]
fn of_two_changes_for_one_branch_one_lands_and_the_other_is_told_what_to_do() {
    let house = House::new(Plan::team());
    let one = house.propose("ada", "src/one.txt", "one");
    let other = house.propose("ada", "src/other.txt", "other");
    let requests = [house.await_request(&one), house.await_request(&other)];
    let before = house.tip("main");
    std::thread::scope(|scope| {
        for request in &requests {
            let house = &house;
            scope.spawn(move || house.approve("bob", request));
        }
    });
    let winner = wait_until("one of them lands", || {
        [&one, &other]
            .into_iter()
            .find(|id| house.change(id)["status"] == "landed")
    });
    let loser = if *winner == one { &other } else { &one };
    let told = wait_until("the other is told", || {
        let seen = house.change(loser);
        let told = seen["explain"].as_str().unwrap().to_owned();
        told.contains("rebase").then_some(told)
    });
    assert!(told.contains("main moved"), "{told}");
    assert_eq!(house.change(loser)["status"], "open");
    assert_eq!(
        house.git_line(&house.shop(), &["rev-parse", "main~1"]),
        before
    );
    let done = house.entries("effect.concluded");
    assert_eq!(
        done.iter()
            .filter(|entry| entry.body["outcome"] == "done")
            .count(),
        1,
        "{done:?}"
    );
}

#[test]
fn a_dirty_work_tree_is_left_alone() {
    let house = House::new(Plan {
        bare: false,
        ..Plan::default()
    });
    let change = house.propose("ada", "src/greeting.txt", "good morning");
    let request = house.await_request(&change);
    let (tip, file) = (house.tip("main"), house.shop().join("src/greeting.txt"));
    fs::write(&file, "my own words\n").unwrap();
    house.approve("ada", &request).ok();
    let failed = house.await_entry("effect.concluded", |_| true);
    assert_eq!(
        (&failed.body["outcome"], &failed.body["code"]),
        (&"failed".into(), &"work-tree-not-clean".into())
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "my own words\n");
    assert_eq!(house.tip("main"), tip);
    house
        .git(&house.shop(), &["checkout", "-q", "src/greeting.txt"])
        .ok();
    // Whoever approved it sees that it did not land, and approves it again.
    let again = house.await_request(&change);
    assert_ne!(again, request);
    house.approve("ada", &again).ok();
    house.await_landed(&change);
    wait_until("the files are there", || {
        (fs::read_to_string(&file).unwrap() == "good morning\n").then_some(())
    });
    assert_eq!(
        house.git_line(&house.shop(), &["status", "--porcelain"]),
        ""
    );
}

#[test]
fn what_lands_is_the_commit_that_was_approved() {
    let house = House::solo();
    let change = house.propose("ada", "src/a.txt", "a");
    let seen = house.change(&change);
    house.approve("ada", &house.await_request(&change)).ok();
    let landed = house.await_landed(&change);
    assert_eq!(seen["head"], landed);
    let tree = house.git_line(&house.shop(), &["rev-parse", "main^{tree}"]);
    assert_eq!(seen["tree"], tree);
    // A second approval of the same lands nothing more.
    assert_eq!(house.entries("effect.intended").len(), 1);
    house.cli("ada", &["ledger", "verify"]).ok();
}
