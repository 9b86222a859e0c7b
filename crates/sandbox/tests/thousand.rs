//! A thousand short runs in a row, and what the whole machine holds before and after.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it counted to who asks (--nocapture)"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;

use support::{eventually, is_root, shell, spec, start, workspace};

/// How many.
const RUNS: usize = 1_000;
/// What the rest of a busy machine may have made meanwhile, of each kind: other tests run sandboxes
/// too. One thing left by each run would be twice as many.
const OF_OTHERS: u64 = 500;

/// Processes, and what the kernel itself counts of its own objects: namespaces, mounts in all mount
/// namespaces, sockets. Empty but for processes where it does not tell (to who isn't root).
fn machine() -> BTreeMap<String, u64> {
    let processes = fs::read_dir("/proc")
        .expect("proc")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
        .count();
    let mut counts = BTreeMap::from([("processes".to_owned(), processes as u64)]);
    let kinds = [
        "net_namespace",
        "pid_namespace",
        "user_namespace",
        "uts_namespace",
        "mnt_cache",
        "task_struct",
        "TCP",
        "TCPv6",
    ];
    for line in fs::read_to_string("/proc/slabinfo")
        .unwrap_or_default()
        .lines()
    {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(active)) = (words.next(), words.next())
            && kinds.contains(&name)
        {
            counts.insert(name.to_owned(), active.parse().expect("a number"));
        }
    }
    counts
}

/// Our cgroups whose supervisor is gone.
fn ownerless_cgroups(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| {
            let name = entry.file_name();
            let owner = name
                .to_str()
                .and_then(|name| name.strip_prefix("portcullis-run-"));
            let gone = owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists());
            usize::from(gone) + ownerless_cgroups(&entry.path())
        })
        .sum()
}

fn own_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("descriptors").count()
}

#[test]
fn a_thousand_short_runs_leave_the_machine_as_it_was() {
    let (workspace, certificates) = (workspace(), workspace());
    fs::write(certificates.path().join("ca-certificates.crt"), "").expect("bundle");
    let captured = |command: &str| {
        let mut spec = shell(&workspace, command);
        spec.use_channel(0);
        let bundle = Path::new("/etc/ssl/certs/ca-certificates.crt");
        spec.capture_all([8080], certificates.path(), bundle);
        spec
    };
    // What the first one opens for good is no leak.
    start(&captured("true")).wait().expect("outcome");
    let (before, descriptors) = (machine(), own_descriptors());
    let cgroups = || ownerless_cgroups("/sys/fs/cgroup".as_ref());
    let cgroups_before = cgroups();
    thread::scope(|scope| {
        for half in 0..2 {
            let captured = &captured;
            let workspace = &workspace;
            scope.spawn(move || {
                for round in 0..RUNS / 2 {
                    match round % 10 {
                        0 => {
                            let none = spec(workspace, ["no-such-command"]);
                            assert!(portcullis_sandbox::spawn(&none).is_err());
                        }
                        1 => drop(start(&captured("sleep 1000 & sleep 1000"))),
                        2 => {
                            let running = start(&captured("setsid sleep 1000 & sleep 1000"));
                            let _ = running.freeze();
                            running.kill();
                            running.wait().expect("outcome");
                        }
                        _ => {
                            let running = start(&captured("exit 7"));
                            let inlets = running.inlets().expect("inlets");
                            let outcome = running.wait().expect("outcome");
                            assert_eq!(outcome.exit_code(), 7, "{half} {round}");
                            drop(inlets);
                        }
                    }
                }
            });
        }
    });
    assert_eq!(own_descriptors(), descriptors);
    assert_eq!(
        fs::read_dir(workspace.path()).expect("workspace").count(),
        0
    );
    eventually("no cgroup is left", || cgroups() <= cgroups_before);
    // Namespaces go some time after their last process.
    let mut now = machine();
    eventually("the machine is as it was", || {
        now = machine();
        let more: Vec<_> = now
            .iter()
            .filter(|(kind, count)| **count > before[*kind] + OF_OTHERS)
            .collect();
        if !more.is_empty() {
            thread::sleep(std::time::Duration::from_millis(100));
        }
        more.is_empty()
    });
    assert!(!is_root() || now.len() > 4, "{now:?}");
    println!("before {before:?}");
    println!("after  {now:?}");
}
