//! The demo itself, as a process: the whole way, and nothing left of it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

fn demo(temporary: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command
        .args(["demo", "--fast", "--output", "json"])
        .env("TMPDIR", temporary);
    command
}

/// Processes that name this directory.
fn processes(directory: &Path) -> Vec<String> {
    let needle = directory.display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|arguments| String::from_utf8_lossy(&arguments).replace('\0', " "))
        .filter(|arguments| arguments.contains(&needle))
        .collect()
}

fn nothing_left(temporary: &Path) {
    assert_eq!(processes(temporary), Vec::<String>::new());
    let left: Vec<_> = std::fs::read_dir(temporary)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_whole_way_is_shown_and_leaves_nothing_behind() {
    let temporary = tempfile::Builder::new()
        .prefix("d")
        .tempdir_in("/tmp")
        .unwrap();
    let temporary = temporary.path().to_owned();
    let done = demo(&temporary).output().unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(done.status.success(), "{err}\n{out}");
    let lines: Vec<serde_json::Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).count();
    assert!(of("chapter") >= 15, "{out}");
    let refused: BTreeSet<&str> = lines
        .iter()
        .filter(|line| line["kind"] == "refused")
        .filter_map(|line| line["text"].as_str())
        .collect();
    // Twenty attempts of the rogue, and eight files with one byte changed.
    assert_eq!(refused.len(), 28, "{refused:#?}");
    nothing_left(&temporary);
}

#[test]
fn ctrl_c_ends_everything_that_was_started() {
    let temporary = tempfile::Builder::new()
        .prefix("d")
        .tempdir_in("/tmp")
        .unwrap();
    let temporary = temporary.path().to_owned();
    let mut child = demo(&temporary)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let since = Instant::now();
    // A release and its proxy are the hardest to end: they are made to outlive the server.
    while !processes(&temporary)
        .iter()
        .any(|arguments| arguments.contains(" target "))
    {
        assert!(
            since.elapsed() < Duration::from_secs(60),
            "no release ever ran"
        );
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        std::thread::sleep(Duration::from_millis(50));
    }
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    nothing_left(&temporary);
}
