//! The breaker: one gesture stops what agents do, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::house::{Background, House, Plan, run, wait_until};

/// Longest time between the trip and the last thing that an agent does.
const BOUND: Duration = Duration::from_secs(2);

fn count(run: &Background) -> usize {
    run.out()
        .lines()
        .filter(|line| line.parse::<u64>().is_ok())
        .count()
}

/// A run that counts, and goes on counting.
fn counting(house: &House) -> Background {
    let script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done";
    let run = house.start_run(&house.task("ada", &[]), script);
    wait_until("it counts", || (count(&run) > 3).then_some(()));
    run
}

/// Waits until a run stands still; the bound counts from `since`.
fn await_frozen(run: &Background, since: Instant) {
    wait_until("it stands still", || {
        let before = count(run);
        std::thread::sleep(Duration::from_millis(300));
        (count(run) == before).then_some(())
    });
    assert!(
        since.elapsed() < BOUND + Duration::from_secs(1),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(run.ended(), None, "frozen, not ended: {}", run.both());
}

/// What the gateway says to an agent's push, before any pack is read.
fn push_line(house: &House) -> Vec<u8> {
    let line = format!(
        "{} {} refs/for/main\0 report-status-v2 side-band-64k\n",
        "0".repeat(40),
        house.tip("main")
    );
    format!("{:04x}{line}0000", line.len() + 4).into_bytes()
}

#[test]
fn a_trip_freezes_agents_and_people_go_on() {
    let mut house = House::solo();
    let run = counting(&house);
    let runner_task = house.task("ada", &[]);
    let runner = house.runner(&runner_task);
    let since = Instant::now();
    house
        .cli("ada", &["breaker", "trip", "--why", "odd pushes"])
        .ok();
    let denied = runner.push("shop", &push_line(&house)).text();
    assert!(denied.contains("base-breaker"), "{denied}");
    let fetch = "/gateway/v1/git/shop.git/info/refs?service=git-upload-pack";
    runner
        .call("GET", fetch, &[], b"")
        .refused(403, "base-breaker");
    await_frozen(&run, since);
    let task = house.task("ada", &[]);
    let refused = house.cli(
        "nobody",
        &["run", "--task", task.to_str().unwrap(), "--", "true"],
    );
    refused.exits(3).refused("base-breaker-run");

    // People go on: records, tasks, their own changes.
    house
        .add(
            "ada",
            "endpoint",
            "id = \"m\"\nbase_url = \"https://example.com\"\n",
        )
        .ok();

    // It survives a crash, and so does being frozen.
    house.kill_server();
    house.serve();
    assert_eq!(
        house.get("/v1/status")["breakers"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let denied = runner_push_after_restart(&house);
    assert!(denied.contains("base-breaker"), "{denied}");
    let stands = count(&run);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(count(&run), stands, "nothing went on meanwhile");

    let asked = house
        .cli("ada", &["breaker", "reset", "--why", "looked at it"])
        .exits(4)
        .json();
    let request = asked["request"].as_str().unwrap();
    assert_eq!(
        house.get("/v1/status")["breakers"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    house.approve("ada", request).ok();
    house.await_entry("breaker.reset", |_| true);
    wait_until("it goes on", || (count(&run) > stands + 3).then_some(()));
    house.kill_server();
    house.serve();
    assert_eq!(house.get("/v1/status")["breakers"], json!([]));
}

/// A push by a run of before the restart.
fn runner_push_after_restart(house: &House) -> String {
    let task = house.task("ada", &[]);
    let (file, text) = house.read_task(&task);
    let (answer, _) = house.ask_run(&house.sign_task("ada", &file), &text, None);
    answer.code()
}

#[test]
fn a_trip_is_as_wide_as_it_says() {
    let house = House::solo();
    house
        .add("ada", "agent", &House::agent_record("other", ""))
        .ok();
    let task = house.task("ada", &["--agent", "other"]);
    let other = house.runner(&task);
    let task = house.task("ada", &[]);
    let helper = house.runner(&task);
    house
        .cli(
            "ada",
            &["breaker", "trip", "--agent", "helper", "--why", "odd"],
        )
        .ok();
    let denied = helper.push("shop", &push_line(&house)).text();
    assert!(denied.contains("base-breaker"), "{denied}");
    let passes = other.push("shop", &push_line(&house)).text();
    assert!(!passes.contains("base-breaker"), "{passes}");
    house
        .cli(
            "ada",
            &["breaker", "trip", "--repo", "shop", "--why", "odd"],
        )
        .ok();
    let denied = other.push("shop", &push_line(&house)).text();
    assert!(denied.contains("base-breaker"), "{denied}");
    let missing = house.cli("ada", &["breaker", "trip", "--why", ""]);
    assert_eq!(missing.code, 2, "{missing:?}");
}

#[test]
fn approved_work_of_agents_does_not_land_while_it_is_tripped() {
    let house = House::solo();
    let change = house.propose("ada", "src/a.txt", "a");
    let request = house.await_request(&change);
    let tip = house.tip("main");
    house.cli("ada", &["breaker", "trip", "--why", "wait"]).ok();
    house.approve("ada", &request);
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(
        (house.tip("main"), &house.change(&change)["status"]),
        (tip, &json!("open"))
    );
    let asked = house
        .cli("ada", &["breaker", "reset", "--why", "looked"])
        .exits(4)
        .json();
    house
        .approve("ada", asked["request"].as_str().unwrap())
        .ok();
    house.await_landed(&change);
}

/// A file system of its own, for root.
struct Disk(PathBuf);

impl Disk {
    fn new(at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        run(mount
            .args(["-t", "tmpfs", "-o", "size=48m,mode=0700", "tmpfs"])
            .arg(at))
        .ok();
        Self(at.to_owned())
    }

    fn fill(&self) {
        let block = vec![7; 64 * 1024];
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        for byte in 0..4096_u32 {
            let name = self.0.join(format!("filler-{byte}"));
            if fs::write(name, [7; 4096]).is_err() {
                return;
            }
        }
    }

    fn free(&self) {
        for entry in fs::read_dir(&self.0).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("filler") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn it_trips_on_a_full_disk() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(&folder.path().join("disk"));
    let mut house = House::new(Plan {
        home: Some(disk.0.join("home")),
        ..Plan::default()
    });
    let run = counting(&house);
    let later = house.task("ada", &[]);
    disk.fill();
    let refused = house.cli(
        "nobody",
        &["run", "--task", later.to_str().unwrap(), "--", "true"],
    );
    assert_eq!(refused.exits(1).refusal()["kind"], "unavailable");
    let since = Instant::now();
    let tripped = house
        .cli("ada", &["breaker", "trip", "--why", "odd pushes"])
        .ok()
        .json();
    assert_eq!(tripped["recorded"], "reserve", "{tripped}");
    await_frozen(&run, since);
    let told = house.cli("ada", &["status"]).ok().json();
    let recording = &told["recording"];
    assert_eq!(recording["grants"], false, "{recording}");
    assert_eq!(recording["failed"]["code"], "disk-full", "{recording}");
    assert!(recording["in_reserve"].as_u64() >= Some(1), "{recording}");
    assert!(recording["reserve"]["used_bytes"].as_u64() > Some(0));
    assert_eq!(recording["unrecorded"], 0);
    let text = house.text("ada", &["status"]).ok().out;
    assert!(text.contains("nothing is granted now"), "{text}");
    house.kill_server();
    house.serve();
    assert_eq!(
        house.get("/v1/status")["breakers"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    disk.free();
    house.kill_server();
    house.serve();
    house.await_entry("breaker.tripped", |_| true);
    let recording = house.get("/v1/status")["recording"].clone();
    assert_eq!(
        (
            &recording["grants"],
            &recording["in_reserve"],
            &recording["failed"]
        ),
        (&true.into(), &0.into(), &serde_json::Value::Null),
        "{recording}"
    );
    house.cli("ada", &["ledger", "verify"]).ok();
    drop(run);
    drop(house);
    drop(disk);
}
