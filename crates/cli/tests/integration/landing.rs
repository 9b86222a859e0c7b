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

/// A repository of two crates that know nothing of each other, whose changes land squashed.
fn squashing() -> House {
    let manifest = |name: &str| format!("[package]\nname = \"{name}\"\n");
    House::furnished(Plan {
        files: vec![
            ("one/Cargo.toml", manifest("one")),
            ("one/src/lib.rs", "// one\n".to_owned()),
            ("two/Cargo.toml", manifest("two")),
            ("two/src/lib.rs", "// two\n".to_owned()),
            (
                ".portcullis/landing.toml",
                "method = \"squash\"\n".to_owned(),
            ),
        ],
        ..Plan::team()
    })
}

/// A `git` in front of the real one that computes wrong squashes while `flag` stands: the tree of
/// the newest proposal, whatever the branch holds meanwhile.
fn wrong_git(house: &House, flag: &std::path::Path) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let real = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|folder| folder.join("git"))
        .find(|file| file.is_file())
        .unwrap();
    let folder = house.path("wrong");
    fs::create_dir(&folder).unwrap();
    let script = format!(
        "#!/bin/sh\nfor word in \"$@\"; do\n  case \"$last\" in --git-dir) dir=$word;; esac\n  \
         last=$word\ndone\nif [ \"$last\" = write-tree ] && [ -e '{}' ]; then\n  \
         exec '{1}' --git-dir \"$dir\" for-each-ref --format='%(tree)' --count=1 \
         --sort=-refname refs/portcullis/changes\nfi\nexec '{1}' \"$@\"\n",
        flag.display(),
        real.display()
    );
    let file = folder.join("git");
    fs::write(&file, script).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    format!("{}:{path}", folder.display())
}

#[test]
fn approvals_that_carry_go_on_in_the_queue_and_a_wrong_squash_halts_it() {
    let mut house = squashing();
    let flag = house.path("wrong-squash");
    let path = wrong_git(&house, &flag);
    house.serve_with(&[("PATH", &path)]);
    let one = house.propose("ada", "one/src/a.rs", "a");
    let two = house.propose("ada", "two/src/b.rs", "b");
    let also_one = house.propose("ada", "one/src/c.rs", "c");
    let [first, second, third] = [&one, &two, &also_one].map(|id| house.await_request(id));
    let begin = house.tip("main");
    house.approve("bob", &first).ok();
    let landed = house.await_landed(&one);
    let line = |of: &[&str]| house.git_line(&house.shop(), of);
    assert_eq!(line(&["rev-parse", "main~1"]), begin);
    assert_eq!(
        line(&[
            "log",
            "-1",
            "--format=%(trailers:key=Portcullis-Change,valueonly)"
        ]),
        one
    );
    // The branch moved: who approves now says whether it may carry.
    house.approve("bob", &second).exits(1).refused("base-moved");
    fs::write(&flag, "").unwrap();
    let carry = |request: &str| {
        house.cli(
            "bob",
            &["approve", request, "--yes", "--carry", "same-diff"],
        )
    };
    carry(&second).ok();
    let halted = house.await_entry("queue.halted", |_| true);
    assert_eq!(halted.body["code"], "landing-mismatch");
    house.await_entry("incident.opened", |entry| {
        entry.body["code"] == "landed-tree-mismatch"
    });
    assert_eq!(house.tip("main"), landed);
    let told = house.change(&two)["explain"].as_str().unwrap().to_owned();
    assert!(told.contains("portcullis queue resume shop main"), "{told}");
    let listed = house.text("ada", &["queue", "list"]).ok().out;
    assert!(listed.contains("landing-mismatch"), "{listed}");
    // What the change depends on moved: it is asked about again, not carried.
    carry(&third).ok();
    fs::remove_file(&flag).unwrap();
    house.kill_server();
    house.serve_with(&[("PATH", &path)]);
    house
        .cli(
            "cyd",
            &["queue", "resume", "shop", "main", "--why", "mended"],
        )
        .ok();
    let carried = house.await_landed(&two);
    let line = |of: &[&str]| house.git_line(&house.shop(), of);
    assert_eq!(line(&["rev-parse", "main~1"]), landed);
    assert_eq!(line(&["show", "main:two/src/b.rs"]), "b");
    assert_eq!(line(&["show", "main:one/src/a.rs"]), "a");
    let withdrawn = house.await_entry("request.withdrawn", |entry| {
        entry.body["request"] == third.as_str()
    });
    assert_eq!(withdrawn.body["code"], "base-depends");
    house.cli("ada", &["ledger", "verify"]).ok();
    // An auditor sees the carried landing hold.
    let bundle = house.get(&format!("/v1/commits/shop/{carried}/bundle"));
    let file = house.path("bundle.json");
    fs::write(&file, serde_json::to_vec(&bundle).unwrap()).unwrap();
    let genesis = house.home().join("genesis.json");
    let shown = house
        .text(
            "ada",
            &[
                "verify",
                &carried,
                "--bundle",
                file.to_str().unwrap(),
                "--genesis",
                genesis.to_str().unwrap(),
            ],
        )
        .ok()
        .out;
    for expected in ["with the same diff", "for the same diff on a later base"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
}
