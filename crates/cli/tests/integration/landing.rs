//! Landing: exactly what was approved, once, and nobody's work is lost.

use std::fs;

use crate::house::{Done, House, Plan, committing, wait_until};

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
         case \"$word\" in write-tree|merge-tree) makes=yes;; esac\n  \
         last=$word\ndone\nif [ \"$makes\" = yes ] && [ -e '{}' ]; then\n  \
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
    let shown = verify(&house, "shop", &carried).ok().out;
    for expected in ["with the same diff", "for the same diff on a later base"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
}

/// A house with a second repository, `web`, that the agent may work on as well.
fn two_places(bare: bool) -> House {
    let mut house = House::furnished(Plan::default());
    house.make_repository("web", &[("page.txt", "hello\n".to_owned())], bare);
    house.serve();
    add_web(&house);
    house
}

fn add_web(house: &House) {
    house.add_repository("web");
    let helper = House::agent_record("helper", "repositories = [\"shop\", \"web\"]");
    house.add("ada", "agent", &helper).ok();
    wait_until("both are in force", || {
        let known = house.get("/v1/inventory/agents").to_string();
        let branch = house.try_get("/v1/branches/web/main")?;
        (known.contains("\"web\"") && branch["tip"].is_string()).then_some(())
    });
}

/// A run's change in each repository under a task that lands both or none; asked about, but not
/// approved. Gives changes and requests, shop's first.
fn propose_both(house: &House, name: &str) -> [(String, String); 2] {
    let since = house.point().0;
    let options = "--repository shop --repository web --together --paths **";
    let task = house.task("ada", &options.split(' ').collect::<Vec<_>>());
    let script = ["shop", "web"].map(|folder| {
        let commit = committing(&format!("{name}.txt"), name);
        format!("(cd {folder}\n{commit}\ngit push)")
    });
    house.run(&task, &script.join("\n")).ok();
    ["shop", "web"].map(|place| {
        let pushed = house.await_entry("change.pushed", |entry| {
            entry.index >= since && entry.body["repository"] == place
        });
        let change = format!("change-{}", pushed.index);
        let request = house.await_request(&change);
        (change, request)
    })
}

fn web_tip(house: &House) -> String {
    house.git_line(&house.path("web"), &["rev-parse", "refs/heads/main"])
}

#[test]
fn changes_of_one_task_in_two_repositories_land_together() {
    let house = two_places(true);
    let before = (house.tip("main"), web_tip(&house));
    let [(shop, first), (web, second)] = propose_both(&house, "both");
    let shown = house.text("ada", &["request", "show", &first]).ok().out;
    assert!(
        shown.contains(&format!("{web} in web, or not at all")),
        "{shown}"
    );
    house.approve("ada", &first).ok();
    let told = wait_until("it says what it waits for", || {
        let told = house.change(&shop)["explain"].as_str().unwrap().to_owned();
        told.contains("land together or not at all").then_some(told)
    });
    assert!(told.contains(&format!("{web} in web")), "{told}");
    assert_eq!((house.tip("main"), web_tip(&house)), before);
    house.approve("ada", &second).ok();
    let commits = [house.await_landed(&shop), house.await_landed(&web)];
    assert_eq!([house.tip("main"), web_tip(&house)], commits);
    house.cli("ada", &["ledger", "verify"]).ok();
    for (name, commit) in ["shop", "web"].iter().zip(&commits) {
        let shown = verify(&house, name, commit);
        let out = shown.ok().out;
        assert!(
            out.contains("together with the task's 1 other change"),
            "{out}"
        );
    }
}

/// What an auditor sees of a landed commit, with nothing but its bundle and the genesis.
fn verify(house: &House, repository: &str, commit: &str) -> Done {
    let bundle = house.get(&format!("/v1/commits/{repository}/{commit}/bundle"));
    let file = house.path(&format!("bundle-{commit}.json"));
    fs::write(&file, serde_json::to_vec(&bundle).unwrap()).unwrap();
    let genesis = house.home().join("genesis.json");
    let words = [
        "verify",
        commit,
        "--bundle",
        file.to_str().unwrap(),
        "--genesis",
        genesis.to_str().unwrap(),
    ];
    house.text("ada", &words)
}

#[test]
fn where_the_second_repository_refuses_the_first_is_taken_back() {
    let house = two_places(false);
    let before = (house.tip("main"), web_tip(&house));
    let both = propose_both(&house, "both");
    // Somebody works there: the branch is checked out, and its files are not clean.
    let page = house.path("web").join("page.txt");
    fs::write(&page, "my own words\n").unwrap();
    for (_, request) in &both {
        house.approve("ada", request).ok();
    }
    let taken = house.await_entry("effect.intended", |entry| {
        entry.body["effect"]["kind"] == "take-back"
    });
    house.await_entry("effect.concluded", |entry| {
        entry.body["effect"] == taken.index && entry.body["outcome"] == "done"
    });
    assert_eq!((house.tip("main"), web_tip(&house)), before);
    assert!(house.entries("queue.halted").is_empty());
    assert!(house.entries("incident.opened").is_empty());
    assert_eq!(fs::read_to_string(&page).unwrap(), "my own words\n");
    // Both are asked about again, and land once nothing is in the way.
    house
        .git(&house.path("web"), &["checkout", "-q", "page.txt"])
        .ok();
    let commits = both.map(|(change, old)| {
        let again = wait_until("it is asked about again", || {
            house.open_request(&change).filter(|again| *again != old)
        });
        house.approve("ada", &again).ok();
        change
    });
    let commits = commits.map(|change| house.await_landed(&change));
    assert_eq!([house.tip("main"), web_tip(&house)], commits);
    house.cli("ada", &["ledger", "verify"]).ok();
    for (name, commit) in ["shop", "web"].iter().zip(&commits) {
        verify(&house, name, commit).ok();
    }
    // What was taken back was no move past us.
    assert!(
        house
            .entries("commits.unproven")
            .iter()
            .all(|entry| entry.body["from"].is_null())
    );
}

#[test]
fn a_server_that_dies_anywhere_lands_both_or_takes_back_what_moved() {
    let mut house = two_places(false);
    let page = house.path("web").join("page.txt");
    for (number, (point, web_refuses)) in [
        ("effect-intended:1", false),
        ("effect-performed:1", false),
        ("effect-attempted:2", false),
        ("effect-performed:2", false),
        ("effect-performed:2", true),
        ("effect-intended:3", true),
        ("effect-performed:3", true),
    ]
    .into_iter()
    .enumerate()
    {
        let before = [house.tip("main"), web_tip(&house)];
        let seen = house.point().0;
        let both = propose_both(&house, &format!("file-{number}"));
        if web_refuses {
            fs::write(&page, "my own words\n").unwrap();
        }
        house.kill_server();
        house.serve_with(&[("PORTCULLIS_CRASH_AT", point)]);
        // The server may die before it answers.
        for (_, request) in &both {
            house.approve("ada", request);
        }
        wait_until(&format!("it dies at {point}"), || house.server().ended());
        house.kill_server();
        house.serve();
        if web_refuses {
            house.await_entry("effect.concluded", |entry| {
                let taken = house.entries("effect.intended").into_iter().any(|intent| {
                    intent.body["effect"]["kind"] == "take-back"
                        && entry.body["effect"] == intent.index
                });
                taken && entry.index >= seen && entry.body["outcome"] == "done"
            });
            assert_eq!([house.tip("main"), web_tip(&house)], before, "{point}");
            house
                .git(&house.path("web"), &["checkout", "-q", "page.txt"])
                .ok();
            for (change, old) in &both {
                let again = wait_until("it is asked about again", || {
                    house.open_request(change).filter(|again| again != old)
                });
                house.approve("ada", &again).ok();
            }
        }
        let landed = both.map(|(change, _)| house.await_landed(&change));
        assert_eq!([house.tip("main"), web_tip(&house)], landed, "{point}");
        for (folder, old) in [house.shop(), house.path("web")].iter().zip(&before) {
            let parent = house.git_line(folder, &["rev-parse", "main~1"]);
            assert_eq!(parent, *old, "{point}: once");
        }
    }
    assert!(house.entries("incident.opened").is_empty());
    assert!(house.entries("queue.halted").is_empty());
    house.cli("ada", &["ledger", "verify"]).ok();
}

#[test]
fn what_can_not_be_taken_back_halts_both_and_asks_people() {
    let mut house = two_places(false);
    let both = propose_both(&house, "both");
    fs::write(house.path("web").join("page.txt"), "my own words\n").unwrap();
    house.kill_server();
    house.serve_with(&[("PORTCULLIS_CRASH_AT", "effect-performed:1")]);
    for (_, request) in &both {
        house.approve("ada", request);
    }
    wait_until("it dies when shop moved", || house.server().ended());
    house.kill_server();
    // Meanwhile somebody builds on what landed there.
    let on_top = house.commit_upstream("past.txt", "on top\n");
    house.serve();
    for (name, (change, _)) in ["shop", "web"].iter().zip(&both) {
        let told = wait_until("its queue is halted", || {
            let told = house.change(change)["explain"].as_str().unwrap().to_owned();
            told.contains("landed-apart").then_some(told)
        });
        assert!(
            told.contains(&format!("portcullis queue resume {name} main")),
            "{told}"
        );
    }
    let incident = house.await_entry("incident.opened", |entry| {
        entry.body["code"] == "landed-apart"
    });
    let facts = &incident.body["facts"];
    assert!(facts["shop main"].as_str().unwrap().contains("moved to"));
    assert!(facts["web main"].as_str().unwrap().contains("did not move"));
    // Nobody's work is lost, and what stands there is for people to look at.
    assert_eq!(house.tip("main"), on_top);
    let unproven = house.await_entry("commits.unproven", |entry| entry.body["from"].is_string());
    assert_eq!(unproven.body["to"], on_top.as_str());
    house.cli("ada", &["ledger", "verify"]).ok();
}
