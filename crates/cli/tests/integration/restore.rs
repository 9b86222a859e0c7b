//! A backup takes the ledger's place: what is lost by that is signed by a person, stands in the
//! ledger, and halts agents; witnesses begin anew by their operators' word alone.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::house::{House, copy_folder, wait_until};
use crate::log::{await_cosigned, grow, house_with_witnesses};

/// Files of a folder with their sizes, the locks left out.
fn listing(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            found.extend(listing(&entry.path()));
        } else {
            found.push((entry.path(), entry.metadata().unwrap().len()));
        }
    }
    found.sort();
    found
}

fn setting(house: &House, line: &str) {
    let config = house.home().join("portcullis.toml");
    let settings = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{line}\n{settings}")).unwrap();
}

fn backup(house: &House, to: &Path, more: &[&str]) -> u64 {
    let mut arguments = vec!["backup", to.to_str().unwrap()];
    arguments.extend(more);
    let done = house.cli("ada", &arguments).ok().json();
    done["entries"].as_u64().unwrap()
}

#[test]
fn what_a_backup_loses_is_signed_and_halts_agents_and_witnesses_begin_anew() {
    let (mut house, mut witnesses) = house_with_witnesses(&["one"], 1);
    house.stop_server();
    let held = house.path("held.checkpoint");
    setting(&house, &format!("held_checkpoint = \"{}\"", held.display()));
    let copy = house.path("copy");
    let kept = backup(&house, &copy, &[]);
    let copy = copy.to_str().unwrap().to_owned();
    house.serve();
    let busy = house.cli("ada", &["restore", &copy]).exits(1);
    busy.refused("data-directory-held");
    grow(&house, kept + 3);
    let lost_size = house.point().0;
    await_cosigned(&house, lost_size);
    wait_until("the newest checkpoint is held", || {
        let note = fs::read_to_string(&held).ok()?;
        let size: u64 = note.lines().nth(1)?.parse().ok()?;
        (size >= lost_size).then_some(())
    });
    house.stop_server();
    let data = house.home().join("ledger");
    let before = listing(&data);

    // Nobody signs: everything is as it was.
    let refused = house.cli("ada", &["restore", &copy]).exits(3);
    let refusal = refused.refused("restore-loses-entries");
    let range = format!("entries {kept} to {}", lost_size - 1);
    assert!(refusal.to_string().contains(&range), "{refusal}");
    assert_eq!(listing(&data), before);
    assert!(!house.home().join("ledger.restoring").exists());
    // A copy that does not hold is refused, whoever signs.
    let damaged = house.path("damaged");
    copy_folder(Path::new(&copy), &damaged);
    let blobs = listing(&damaged.join("ledger/blobs"));
    fs::write(&blobs[0].0, b"other bytes").unwrap();
    let sign = ["--sign", "--why", "The disk died"];
    let mut arguments = vec!["restore", damaged.to_str().unwrap()];
    arguments.extend(sign);
    house
        .cli("ada", &arguments)
        .exits(1)
        .refused("backup-unsound");
    assert_eq!(listing(&data), before);

    let mut arguments = vec!["restore", &copy];
    arguments.extend(sign);
    let done = house.cli("ada", &arguments).ok().json();
    assert_eq!(done["lost"], json!({"from": kept, "to": lost_size - 1}));
    assert_eq!(
        (&done["entry"], &done["halted"]),
        (&kept.into(), &true.into())
    );
    let known: Vec<&str> = done["known"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| point["by"]["kind"].as_str().unwrap())
        .collect();
    assert_eq!(known, ["replaced", "held", "witness"]);
    let replaced = PathBuf::from(done["replaced"].as_str().unwrap());
    assert_eq!(listing(&replaced).len(), before.len());
    house.cli("ada", &["ledger", "verify"]).ok();

    // The server takes it as people signed it: one entry, one halt, nothing found a second time.
    for _ in 0..2 {
        house.serve();
        let breakers = house.get("/v1/status")["breakers"].clone();
        assert_eq!(breakers[0]["index"], kept, "{breakers}");
        assert_eq!(house.entries("ledger.restored").len(), 1);
        assert!(house.entries("breaker.tripped").is_empty());
        let told = wait_until("the witness is ahead", || {
            let shown = house.cli("ada", &["ledger", "witnesses"]).ok().json();
            Some(shown["known"][0]["failed"].as_str()?.to_owned())
        });
        assert!(told.contains(&format!("entry {kept} says")), "{told}");
        assert!(house.entries("incident.opened").is_empty());
        house.stop_server();
    }
    house.serve();
    let aside = held.with_file_name(format!("held.checkpoint.lost-{lost_size}"));
    assert!(aside.exists());
    let task = house.task("ada", &[]);
    assert_eq!(house.runner_refused(&task), "base-breaker-run");

    // The witness's operator looks at the entry, and lets it begin anew; at another entry, not.
    let dir = witnesses[0].dir.to_str().unwrap().to_owned();
    let proof = |index: u64| {
        let file = house.path("work").join(format!("{index}.tlog-proof"));
        let file = file.to_str().unwrap().to_owned();
        let index = index.to_string();
        house
            .cli("ada", &["ledger", "proof", &index, "--to", &file])
            .ok();
        file
    };
    witnesses[0].stop();
    let wrong = proof(0);
    let right = proof(kept);
    house
        .cli("ada", &["witness", "restored", &dir, &wrong])
        .exits(2)
        .refused("malformed-proof-of-a-restoration");
    let begun = house
        .cli("ada", &["witness", "restored", &dir, &right])
        .ok()
        .json();
    assert_eq!(begun["seen"], lost_size);
    assert!(Path::new(begun["aside"].as_str().unwrap()).exists());
    // Once is enough: what it saw now is not lost.
    house
        .cli("ada", &["witness", "restored", &dir, &right])
        .exits(3)
        .refused("restoration-of-other-entries");
    witnesses[0].serve(&house);
    await_cosigned(&house, kept + 1);
    let asked = house
        .cli("ada", &["breaker", "reset", "--why", "looked at"])
        .exits(4)
        .json();
    house
        .approve("ada", asked["request"].as_str().unwrap())
        .ok();
    house.await_entry("breaker.reset", |_| true);
    assert_eq!(house.get("/v1/status")["breakers"], json!([]));
    house.runner(&house.task("ada", &[]));
}

#[test]
fn a_backup_that_has_all_takes_no_signature_and_one_that_nobody_can_judge_does() {
    let mut house = House::solo();
    house.propose("ada", "src/a.txt", "a");
    house.stop_server();
    let (bare, whole) = (house.path("bare"), house.path("whole"));
    backup(&house, &bare, &[]);
    let kept = backup(&house, &whole, &["--with-keys"]);

    // In its own place it loses nothing: the directory that it replaces says so.
    let done = house
        .cli("ada", &["restore", whole.to_str().unwrap()])
        .ok()
        .json();
    assert_eq!(
        (&done["entry"], &done["lost"], &done["halted"]),
        (&Value::Null, &Value::Null, &false.into())
    );
    house.serve();
    assert!(house.entries("ledger.restored").is_empty());
    house.stop_server();

    // In a new place nobody knows what the ledger had.
    let new = house.path("new");
    let home = new.to_str().unwrap();
    let at = |backup: &Path| {
        vec!["--home", home, "restore", backup.to_str().unwrap()]
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let run = |arguments: &[String], more: &[&str]| {
        let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
        all.extend(more);
        house.cli("ada", &all)
    };
    let refused = run(&at(&bare), &[]).exits(1);
    assert!(
        refused.refusal()["next"].to_string().contains("keys"),
        "{refused:?}"
    );
    run(&at(&whole), &[])
        .exits(3)
        .refused("restore-loses-entries");
    // Not by somebody who is nobody there.
    house.make_key("eve");
    let stranger: Vec<String> = at(&whole);
    let mut all: Vec<&str> = stranger.iter().map(String::as_str).collect();
    all.extend(["--sign", "--why", "mine"]);
    house.cli("eve", &all).exits(3).refused("key-unknown");
    let done = run(&at(&whole), &["--sign", "--why", "A new machine"])
        .ok()
        .json();
    assert_eq!(
        (&done["entry"], &done["lost"], &done["halted"]),
        (&kept.into(), &Value::Null, &true.into())
    );
    let verified = house
        .cli("ada", &["--home", home, "ledger", "verify"])
        .ok()
        .json();
    assert_eq!(verified["size"], kept + 1);

    // Over a ledger that was written on elsewhere, what is lost begins where the two part.
    house.serve();
    grow(&house, kept + 4);
    house.stop_server();
    let other = house.path("other");
    let all = backup(&house, &other, &["--with-keys"]);
    let part = house
        .cli(
            "ada",
            &[
                "--home",
                home,
                "restore",
                other.to_str().unwrap(),
                "--sign",
                "--why",
                "That one was right",
            ],
        )
        .ok()
        .json();
    assert_eq!(part["from"]["size"], all);
    assert_eq!(part["lost"], json!({"from": kept, "to": kept}));
    house.cli("ada", &["--home", home, "ledger", "verify"]).ok();
}
