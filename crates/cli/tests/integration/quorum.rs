//! A release to production that policy makes wait for a quorum of witnesses: two real witnesses, a
//! real builder, and each thing that the wait can meet.

use std::fs;
use std::path::PathBuf;

use portcullis_server::environments;
use portcullis_server::home::Home;

use crate::house::{Background, House, Plan, free_port, wait_until};
use crate::log::{await_cosigned, house_with_witnesses_in};

/// Ends what was started to outlive the server.
struct Environments(PathBuf);

impl Drop for Environments {
    fn drop(&mut self) {
        let _gone = environments::stop_all(&Home::new(&self.0));
    }
}

fn builds() -> Vec<(&'static str, String)> {
    let jobs =
        "[build]\ncommand = [\"sh\", \"build.sh\"]\noutputs = [\"shop\"]\ntime_limit = \"1m\"\n";
    vec![
        ("README.md", "# Shop\n".to_owned()),
        ("src/greeting.txt", "hi\n".to_owned()),
        (".portcullis/jobs.toml", jobs.to_owned()),
        (
            "build.sh",
            "printf '#!/bin/sh\\nexec sleep 60\\n' > shop\nchmod +x shop\n".to_owned(),
        ),
    ]
}

#[test]
fn a_release_waits_for_its_witnesses_and_goes_on_when_they_cosigned() {
    let plan = Plan {
        files: builds(),
        ..Plan::default()
    };
    let (house, mut witnesses) = house_with_witnesses_in(plan, &["one", "two"], 2);
    let _environments = Environments(house.home().to_owned());
    let mut command = house.portcullis("nobody");
    command.args(["builder", "--poll-ms", "100", "--toolchain", "none"]);
    let builder = Background::start(&mut command, &house.path("work"));
    let keys: Vec<String> = witnesses
        .iter()
        .map(|one| format!("{:?}", one.key))
        .collect();
    let record = format!(
        "id = \"production\"\nrepository = \"shop\"\nsensitivity = \"production\"\nport = {}\n\n\
         [witnesses]\nkeys = [{}]\nquorum = 2\n",
        free_port(),
        keys.join(", ")
    );
    house.add("ada", "environment", &record).ok();
    let ceiling = "environment_ceiling = \"production\"";
    house
        .add("ada", "agent", &House::agent_record("helper", ceiling))
        .ok();
    await_cosigned(&house, house.point().0);
    // One of the two is away from here on: what lands and is built, it did not see.
    witnesses[1].stop();
    let change = house.propose("ada", "src/a.txt", "a");
    house.approve("ada", &house.await_request(&change)).ok();
    house.await_landed(&change);
    let artifact = wait_until("what landed is built", || {
        assert!(builder.ended().is_none(), "{}", builder.both());
        let items = house.get("/v1/artifacts")["items"].clone();
        Some(items[0]["id"].as_str()?.to_owned())
    });

    // The chain is whole, and not witnessed.
    let ask = ["release", "new", &artifact, "--environment", "production"];
    let alone = house.cli("ada", &ask).exits(1);
    let refusal = alone.refused("witness-quorum-missing");
    assert!(
        refusal["next"].to_string().contains("ledger witnesses"),
        "{refusal}"
    );
    assert!(house.entries("release.admitted").is_empty());
    // It is back: what was refused is asked again, and waits for a person alone.
    witnesses[1].serve(&house);
    await_cosigned(&house, house.point().0);
    let asked = house.cli("ada", &ask).exits(4).json();
    let request = asked["request"].as_str().unwrap().to_owned();

    assert!(house.entries("release.admitted").is_empty());
    house.approve("ada", &request).ok();
    let admitted = house.await_entry("release.admitted", |_| true);
    assert_eq!(admitted.body["environment"], "production", "{admitted:?}");

    // The evidence carries both cosignatures, and verifies offline against the genesis alone.
    let evidence = house.path("work").join("evidence.json");
    let file = house.path("work").join("fetched");
    for (what, to) in [("fetch", &file), ("bundle", &evidence)] {
        let mut arguments = vec!["artifact", what, &artifact, "--to", to.to_str().unwrap()];
        if what == "bundle" {
            arguments.extend(["--environment", "production"]);
        }
        house.cli("ada", &arguments).ok();
    }
    let text = fs::read_to_string(&evidence).unwrap();
    for name in ["witness.example/one", "witness.example/two"] {
        assert!(text.contains(name), "{name}");
    }
    let genesis = house.home().join("genesis.json");
    let verified = house
        .cli(
            "ada",
            &[
                "verify",
                file.to_str().unwrap(),
                "--bundle",
                evidence.to_str().unwrap(),
                "--genesis",
                genesis.to_str().unwrap(),
            ],
        )
        .ok();
    assert!(verified.out.contains("witness"), "{verified:?}");
}
