//! A machine that lacks a protection: the start is refused by its name, and goes on only by leave
//! for this very one.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use portcullis_sandbox::{Protection, Spec, Terminal, probe_with, spawn};
use support::{bring_attempt, helper, is_root, shell, start, workspace};

/// A helper on a machine that lacks something: words before the real one's name.
fn behind(words: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = workspace();
    bring_attempt(directory.path());
    let script = directory.path().join("helper");
    let words = words.replace(
        "attempt",
        &directory.path().join("attempt").display().to_string(),
    );
    let text = format!("#!/bin/sh\nexec {words} '{}' \"$@\"\n", helper().display());
    fs::write(&script, text).expect("script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("mode");
    (directory, script)
}

fn holds_without(protection: Protection, words: &str) {
    let (workspace, given) = (workspace(), workspace());
    let (_directory, script) = behind(words);
    let mut spec: Spec = shell(&workspace, "echo x > made && exit 3");
    spec.helper = Some(script.clone());
    if protection == Protection::EveryPort {
        fs::write(given.path().join("bundle"), "").expect("bundle");
        spec.use_channel(0);
        spec.capture_all([8443], given.path(), "/etc/ssl/bundle".as_ref());
    }
    let refused = |spec: &Spec| {
        let refusal = match spawn(spec) {
            Err(refusal) => refusal,
            Ok(_) => panic!("it started without {protection}"),
        };
        assert_eq!(refusal.code, format!("sandbox-{protection}"), "{refusal}");
        let text = refusal.to_string();
        assert!(text.contains(protection.how_to_mend()), "{text}");
        assert_eq!(
            text.contains("sign a task"),
            protection.may_be_missing(),
            "{text}"
        );
    };
    refused(&spec);
    // Leave for every other one is no leave for this one.
    spec.allowed_gaps = Protection::ALL
        .into_iter()
        .filter(|other| *other != protection)
        .collect();
    refused(&spec);
    spec.allowed_gaps = [protection].into();
    if protection.may_be_missing() {
        let running = start(&spec);
        assert_eq!(running.gaps().keys().collect::<Vec<_>>(), [&protection]);
        assert!(!running.gaps()[&protection].is_empty());
        assert!(!running.protections().contains_key(&protection));
        assert_eq!(running.wait().expect("outcome").exit_code(), 3);
    } else {
        refused(&spec);
    }
    // What `doctor` prints.
    let found = probe_with(Some(&script)).expect("probes");
    let result = found.iter().find(|result| result.protection == protection);
    let result = result.expect("probed");
    assert!(
        !result.available && result.how_to_mend.is_some(),
        "{result:?}"
    );
}

#[test]
fn each_that_is_missing_is_named_and_only_leave_for_it_lets_a_run_start() {
    for protection in Protection::ALL {
        match protection {
            // Root without its capabilities.
            Protection::OwnUser if is_root() => holds_without(
                protection,
                "setpriv --bounding-set -sys_admin,-setuid --inh-caps -sys_admin,-setuid --",
            ),
            // Who is not root has no other user to give.
            Protection::OwnUser => {}
            // By a cgroup or, on every kernel that this runs on, by the process's own limits.
            Protection::ProcessLimit | Protection::MemoryLimit => {}
            // Of an ordinary user's run, in `life`.
            Protection::CpuLimit => {}
            Protection::UserNamespace
            | Protection::MountNamespace
            | Protection::PidNamespace
            | Protection::NetworkNamespace
            | Protection::EveryPort
            | Protection::IpcNamespace
            | Protection::UtsNamespace
            | Protection::CgroupNamespace
            | Protection::NoNewPrivileges
            | Protection::Seccomp
            | Protection::Landlock => {
                holds_without(protection, &format!("attempt without {protection}"));
            }
        }
    }
}

#[test]
fn what_processes_share_is_small_where_no_cgroup_bounds_memory() {
    let user = support::Ordinary::new();
    bring_attempt(&user.workspace);
    for helper in [helper(), user.helper()] {
        let mut spec = Spec::new(&user.workspace, ["./attempt", "shared-memory"]);
        spec.terminal = Terminal::Capture { max_bytes: 4096 };
        spec.helper = Some(helper);
        let running = start(&spec);
        let by = running.protections()[&Protection::MemoryLimit].clone();
        let outcome = running.wait().expect("outcome");
        let expected = if by.starts_with("RLIMIT_DATA") {
            assert!(by.contains("not bounded"), "{by}");
            "no-file no-large small\n"
        } else {
            "file large small\n"
        };
        assert_eq!(support::stdout(&outcome), expected, "{by}: {outcome:?}");
    }
}
