//! Policy: it counts once it is activated, at the next request, and in doubt it denies.

use std::fs;

use crate::house::{House, committing};

const QUIET_HOURS: &str = "@id(\"quiet-hours\")\n\
    @reason(\"Nobody proposes anything today.\")\n\
    @next(\"Come back tomorrow.\")\n\
    forbid (principal, action == Action::\"git.push\", resource)\n\
    when { context.kind == \"agent\" };\n";

/// Too large a number: it can't be worked out, so nobody knows what it would have said.
const OVERFLOW: &str = "@id(\"too-large\")\n\
    @reason(\"Large packs are read by hand.\")\n\
    @next(\"Push less.\")\n\
    forbid (principal, action == Action::\"git.push\", resource)\n\
    when { context.pack_bytes + 9223372036854775807 < 5 };\n";

fn activate(house: &House, folder: &str) {
    let before = house.entries("activation.completed").len();
    house
        .cli("ada", &["policy", "activate", folder, "--why", "as agreed"])
        .ok();
    house.await_entry("activation.completed", |_| {
        house.entries("activation.completed").len() > before
    });
}

#[test]
fn a_changed_policy_holds_at_the_next_request() {
    let house = House::solo();
    let push = format!("{}\ngit push", committing("src/a.txt", "a"));
    let folder = house.policy_with("quiet.cedar", QUIET_HOURS);
    house.run(&house.task("ada", &[]), &push).ok();

    // Within one run: the policy is read anew at each request, and the file alone changes nothing.
    let go = house.path("work").join("go");
    let script = format!(
        "{}\nfor n in $(seq 400); do if curl -sf \"$PORTCULLIS_CHANNEL\"ask >/dev/null; then :; fi; \
        if ! git push -q -o dry-run origin HEAD:refs/for/main 2>&1 | grep -q 'would be accepted'; then break; fi; done\n\
        git push",
        committing("src/b.txt", "b")
    );
    let run = house.start_run(&house.task("ada", &[]), &script);
    activate(&house, &folder);
    let done = run.wait(std::time::Duration::from_secs(40));
    assert_ne!(done.code, 0, "{done:?}");
    for told in [
        "Nobody proposes anything today.",
        "quiet.cedar:",
        "quiet-hours",
        "Come back tomorrow.",
    ] {
        assert!(done.err.contains(told), "{told}: {done:?}");
    }
    assert!(!go.exists());
    let plain = house.policy_with("quiet.cedar", "// Nothing here any more.\n");
    activate(&house, &plain);
    house.run(&house.task("ada", &[]), &push).ok();
}

#[test]
fn a_policy_that_errors_denies() {
    let house = House::solo();
    activate(&house, &house.policy_with("overflow.cedar", OVERFLOW));
    let push = format!("{}\ngit push", committing("src/a.txt", "a"));
    let done = house.run(&house.task("ada", &[]), &push);
    assert_ne!(done.code, 0, "{done:?}");
    assert!(done.err.contains("code:"), "{done:?}");
    assert!(house.entries("change.pushed").is_empty());
    assert_eq!(
        house.entries("request.denied").last().unwrap().body["action"],
        "git.push"
    );
    // It can be taken out again, and the breaker does not depend on it.
    house
        .cli(
            "ada",
            &[
                "breaker",
                "trip",
                "--agent",
                "helper",
                "--why",
                "policy broken",
            ],
        )
        .ok();
}

#[test]
fn what_does_not_load_or_fails_its_tests_is_not_activated() {
    let house = House::solo();
    let in_force = house.get("/v1/status")["policy"].clone();
    for (name, text) in [
        ("syntax", "permit (principal, action, resource"),
        (
            "unknown",
            "@id(\"x\")\n@reason(\"r\")\n@next(\"n\")\npermit (principal, action == Action::\"git.pushh\", resource);",
        ),
        ("nameless", "permit (principal, action, resource);"),
    ] {
        let folder = house.policy_with(&format!("{name}.cedar"), text);
        let checked = house.cli("ada", &["policy", "check", &folder]);
        assert_ne!(checked.code, 0, "{name}: {checked:?}");
        let done = house.cli("ada", &["policy", "activate", &folder, "--why", "x"]);
        assert_ne!(done.code, 0, "{name}: {done:?}");
    }
    assert_eq!(house.get("/v1/status")["policy"], in_force);
    assert!(house.entries("activation.proposed").is_empty());
}

#[test]
fn the_tests_beside_a_policy_are_run() {
    let house = House::solo();
    let folder = house.policy_with("quiet.cedar", QUIET_HOURS);
    let tests = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../policy/policies/default.tests.toml"
    );
    let into = std::path::Path::new(&folder).join("default.tests.toml");
    fs::copy(tests, &into).unwrap();
    let failed = house.text("ada", &["policy", "test", &folder]);
    assert_ne!(failed.code, 0, "a test that quiet hours break: {failed:?}");
    fs::write(
        std::path::Path::new(&folder).join("quiet.cedar"),
        "// Nothing.\n",
    )
    .unwrap();
    house.text("ada", &["policy", "test", &folder]).ok();
}
