//! Supervisors that somebody stopped, as an administrator may, or a machine without memory.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::process::Command;

use portcullis_sandbox::{Ending, Running};
use support::{eventually, processes_with, shell, start, walk, workspace};

/// A word that no other process has in its command line.
fn mark(name: &str) -> String {
    format!("mark-{name}-{}", std::process::id())
}

fn send(signal: &str, pid: i32) {
    let sent = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(sent.expect("kill").success());
}

/// Stops the supervisor of a run; its pid.
fn stop_supervisor(running: &Running) -> i32 {
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).expect("status");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let supervisor: i32 = parent.expect("parent").trim().parse().expect("pid");
    send("-STOP", supervisor);
    supervisor
}

fn nothing_is_left(mark: &str, supervisor: i32) {
    assert_eq!(processes_with(mark), Vec::<i32>::new());
    assert!(!std::path::Path::new(&format!("/proc/{supervisor}")).exists());
    eventually("no cgroup is left", || {
        let own = format!("portcullis-run-{supervisor}");
        !walk("/sys/fs/cgroup".as_ref())
            .iter()
            .any(|path| path.ends_with(&own))
    });
}

#[test]
fn a_supervisor_that_does_nothing_holds_nobody_up() {
    let workspace = workspace();
    let mark = mark("stalled");
    let mut spec = shell(&workspace, &format!("sleep 1000; : {mark}"));
    spec.use_channel(0);
    let running = start(&spec);
    let supervisor = stop_supervisor(&running);
    // It can't be frozen, which is not said to be its end; and nobody waits for the next answer.
    let refusal = running.freeze().expect_err("nobody answers");
    assert_eq!(refusal.code, "sandbox-supervisor", "{refusal}");
    let refusal = running.processes_started().expect_err("nobody is asked");
    assert_eq!(refusal.code, "sandbox-supervisor", "{refusal}");
    assert!(running.try_wait().expect("known").is_none());
    running.kill();
    assert_eq!(running.wait().expect("outcome").ending, Ending::Killed);
    nothing_is_left(&mark, supervisor);
}

#[test]
fn a_supervisor_that_goes_on_is_asked_again_and_tells_how_it_ended() {
    let workspace = workspace();
    let mark = mark("again");
    let script = format!("until [ -e /workspace/end ]; do sleep 0.05; done; exit 7; : {mark}");
    let running = start(&shell(&workspace, &script));
    let supervisor = stop_supervisor(&running);
    let refusal = running.processes_started().expect_err("nobody answers");
    assert_eq!(refusal.code, "sandbox-supervisor", "{refusal}");
    send("-CONT", supervisor);
    // What it answers late is not taken for the answer to this.
    eventually("it answers", || running.thaw().is_ok());
    assert!(running.processes_started().expect("a number") > 0);
    fs::write(workspace.path().join("end"), "").expect("end");
    let ending = running.wait().expect("outcome").ending;
    assert_eq!(ending, Ending::Exited { code: 7 });
    nothing_is_left(&mark, supervisor);
}

#[test]
fn who_waits_for_a_supervisor_that_stands_still_hears_so() {
    let workspace = workspace();
    let mark = mark("still");
    // One whose command goes on, and one whose command ends by itself.
    let runs = ["sleep 1000", "sleep 1"].map(|script| {
        let running = start(&shell(&workspace, &format!("{script}; : {mark}")));
        let supervisor = stop_supervisor(&running);
        (running, supervisor)
    });
    for (running, _) in &runs {
        for _ in 0..2 {
            let refusal = running.wait().expect_err("nobody tells");
            assert_eq!(refusal.code, "sandbox-supervisor", "{refusal}");
            let received = refusal.received.expect("received");
            assert!(received.contains("ended with all"), "{received}");
        }
        assert!(running.try_wait().is_err());
    }
    for (_, supervisor) in &runs {
        nothing_is_left(&mark, *supervisor);
    }
}

#[test]
fn a_deadline_holds_though_its_keeper_stands_still() {
    let workspace = workspace();
    let mark = mark("late");
    let mut spec = shell(&workspace, &format!("sleep 1000; : {mark}"));
    spec.deadline_ms = Some(1_000);
    let running = start(&spec);
    let supervisor = stop_supervisor(&running);
    assert_eq!(running.wait().expect("outcome").ending, Ending::Deadline);
    nothing_is_left(&mark, supervisor);
}
