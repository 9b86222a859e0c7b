//! SLSA's source track, end to end: what `portcullis verify COMMIT` says of commits that really
//! landed, and why not more.

use std::fs;

use serde_json::Value;

use crate::house::{House, Plan, wait_until};

/// Two crates that know nothing of each other, and a policy by which agents' work takes two people.
const TWO_PEOPLE: &str = r#"
@id("agents-take-two")
@reason("Two people look at an agent's change.")
@next("A second reviewer signs: `portcullis approve REQUEST`.")
forbid (principal, action == Action::"change.land", resource)
when { context.by_agent }
unless { context.approvals.parties >= 2 };
"#;

/// What an auditor's program reads of a landed commit.
fn verify(house: &House, commit: &str) -> Value {
    let bundle = house.get(&format!("/v1/commits/shop/{commit}/bundle"));
    let file = house.path(&format!("bundle-{commit}.json"));
    fs::write(&file, serde_json::to_vec(&bundle).unwrap()).unwrap();
    let genesis = house.home().join("genesis.json");
    let (file, genesis) = (file.to_str().unwrap(), genesis.to_str().unwrap());
    let words = ["verify", commit, "--bundle", file, "--genesis", genesis];
    house.cli("ada", &words).ok().json()
}

#[track_caller]
fn level(report: &Value, level: u8, why: &str) {
    let found = &report["source_level"];
    assert_eq!(found["level"], level, "{report}");
    assert!(
        found["why_not_more"].as_str().unwrap().contains(why)
            && found["why_not_more"].as_str().unwrap().is_empty() == why.is_empty(),
        "{found}"
    );
}

/// A person's clone with one more commit, pushed signed. Gives the change.
fn propose_as(house: &House, person: &str, file: &str) -> String {
    let work = house.path("work");
    let clone = work.join(person);
    let git = |folder: &std::path::Path, words: &[&str]| house.git(folder, words).ok();
    git(
        &work,
        &["clone", "-q", house.shop().to_str().unwrap(), person],
    );
    let push = format!("{}/git/shop.git", house.url());
    git(&clone, &["remote", "set-url", "--push", "origin", &push]);
    git(&clone, &["config", "gpg.format", "ssh"]);
    let key = format!("{}.pub", house.key(person).display());
    git(&clone, &["config", "user.signingkey", &key]);
    fs::write(clone.join(file), "by hand\n").unwrap();
    git(&clone, &["add", "-A"]);
    git(&clone, &["commit", "-qm", "By hand"]);
    git(
        &clone,
        &["push", "-q", "--signed", "origin", "HEAD:refs/for/main"],
    );
    let pushed = house.await_entry("change.pushed", |entry| {
        entry.actor == format!("human:{person}")
    });
    format!("change-{}", pushed.index)
}

#[test]
fn two_people_make_level_four_and_a_machine_is_none_of_them() {
    let manifest = |name: &str| format!("[package]\nname = \"{name}\"\n");
    let house = House::new(Plan {
        files: vec![
            ("one/Cargo.toml", manifest("one")),
            ("one/src/lib.rs", "// one\n".to_owned()),
            ("two/Cargo.toml", manifest("two")),
            ("two/src/lib.rs", "// two\n".to_owned()),
        ],
        ..Plan::team()
    });
    // An agent's change that one person read.
    let read_once = house.propose("ada", "one/src/a.rs", "a");
    house.approve("bob", &house.await_request(&read_once)).ok();
    let report = verify(&house, &house.await_landed(&read_once));
    level(
        &report,
        3,
        "level 4 takes two humans without a hand in it, and 1 agreed",
    );

    // One that two people read, as policy demands from here on.
    let folder = house.policy_with("two.cedar", TWO_PEOPLE);
    let asked = house
        .cli(
            "ada",
            &["policy", "activate", &folder, "--why", "two people"],
        )
        .exits(4)
        .json();
    house
        .approve("cyd", asked["request"].as_str().unwrap())
        .ok();
    house.await_entry("activation.completed", |_| true);
    let read_twice = house.propose("ada", "one/src/b.rs", "b");
    // Bob's own stands on the base of now, and is decided once the branch has moved.
    let own = propose_as(&house, "bob", "two/src/c.rs");
    let request = house.await_request(&read_twice);
    house.approve("bob", &request).ok();
    house.await_entry("approval.given", |entry| {
        entry.body["statement"]["request"] == request.as_str()
    });
    // The author's side is no second person.
    house.approve("ada", &request).exits(3).refused("own-party");
    assert_eq!(house.change(&read_twice)["status"], "open");
    house.approve("cyd", &request).ok();
    let report = verify(&house, &house.await_landed(&read_twice));
    level(&report, 4, "");

    // A person's own change, which one other agreed to, landed by the queue on the later base.
    let request = house.await_request(&own);
    house
        .cli(
            "cyd",
            &["approve", &request, "--yes", "--carry", "same-diff"],
        )
        .ok();
    let landed = house.await_landed(&own);
    assert_ne!(house.change(&own)["head"], landed.as_str(), "made anew");
    wait_until("upstream has it", || {
        (house.tip("main") == landed).then_some(())
    });
    let report = verify(&house, &landed);
    level(&report, 4, "");
    let says = report.to_string();
    assert!(
        says.contains("landed as") && says.contains("by human:bob"),
        "{says}"
    );
    house.cli("ada", &["ledger", "verify"]).ok();
}
