//! A run from its start to each of its ends.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use portcullis_sandbox::{Bind, Ending, Protection, RunAs, Terminal, spawn};
use support::{
    Ordinary, eventually, processes_with, run, shell, spec, start, stderr, stdout, walk, workspace,
};

/// A word that no other process has in its command line.
fn mark(name: &str) -> String {
    format!("mark-{name}-{}", std::process::id())
}

#[test]
fn exit_status_and_signals_are_passed_on() {
    let workspace = workspace();
    for (script, ending, code) in [
        ("exit 0", Ending::Exited { code: 0 }, 0),
        ("exit 42", Ending::Exited { code: 42 }, 42),
        ("kill -TERM $$", Ending::Signalled { signal: 15 }, 143),
        ("kill -KILL $$", Ending::Signalled { signal: 9 }, 137),
    ] {
        let outcome = run(&shell(&workspace, script));
        assert_eq!(
            (outcome.ending, outcome.exit_code()),
            (ending, code),
            "{script}"
        );
    }
}

#[test]
fn what_cannot_start_is_refused_in_clear_words() {
    let workspace = workspace();
    fs::write(workspace.path().join("plain"), "text").expect("file");
    fs::write(workspace.path().join("script"), "#!/opt/none/python\n").expect("file");
    let status = Command::new("chmod")
        .arg("755")
        .arg(workspace.path().join("script"))
        .status();
    assert!(status.is_ok_and(|status| status.success()));
    for (command, code) in [
        ("no-such-command", "command-not-found"),
        ("./nothing", "command-not-found"),
        ("./plain", "command-not-executable"),
        ("./script", "command-not-executable"),
        ("/tmp", "command-not-executable"),
    ] {
        let refusal = spawn(&spec(&workspace, [command])).expect_err(command);
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(
            refusal
                .to_string()
                .contains(command.trim_start_matches("./")),
            "{refusal}"
        );
    }
    let mut missing = spec(&workspace, ["true"]);
    missing.workspace = "/no/such/directory".into();
    assert_eq!(
        spawn(&missing).expect_err("no workspace").code,
        "workspace-not-found"
    );
    let mut missing = spec(&workspace, ["true"]);
    missing
        .read_only
        .push(Bind::required("/no/such/tool", "/opt/tool"));
    assert_eq!(spawn(&missing).expect_err("no bind").code, "bind-not-found");
    let mut other = spec(&workspace, ["true"]);
    other.helper = Some("/bin/true".into());
    assert_eq!(spawn(&other).expect_err("no helper").code, "sandbox-helper");
    let mut root = spec(&workspace, ["true"]);
    root.run_as = Some(RunAs { uid: 0, gid: 0 });
    if support::is_root() {
        assert_eq!(spawn(&root).expect_err("root").code, "sandbox-own-user");
    }
}

#[test]
fn output_is_captured_up_to_its_bound_and_counted_past_it() {
    let workspace = workspace();
    let mut spec = shell(&workspace, "head -c 300000 /dev/zero; echo oops >&2");
    spec.terminal = Terminal::Capture { max_bytes: 1000 };
    let outcome = run(&spec);
    let captured = outcome.captured.expect("captured");
    assert_eq!(
        (captured.stdout.len(), captured.stdout_bytes),
        (1000, 300_000)
    );
    assert_eq!(
        (captured.stderr.as_slice(), captured.stderr_bytes),
        (&b"oops\n"[..], 5)
    );
    assert!(captured.truncated());
}

#[test]
fn a_log_takes_two_files_of_its_bound_at_most() {
    let (workspace, logs) = (workspace(), workspace());
    let path = logs.path().join("service.log");
    let mut spec = shell(&workspace, "for i in $(seq 1 3000); do echo line $i; done");
    spec.terminal = Terminal::Log {
        path: path.clone(),
        max_bytes: 10_000,
    };
    assert!(run(&spec).success());
    let (now, before) = (
        fs::read_to_string(&path).expect("log"),
        fs::read(logs.path().join("service.log.1")).expect("older"),
    );
    assert!(now.len() <= 10_000 + 65_536 && before.len() <= 10_000 + 65_536);
    assert!(now.ends_with("line 3000\n"), "{now}");
}

#[test]
fn the_deadline_ends_everything_frozen_or_not() {
    let workspace = workspace();
    for frozen in [false, true] {
        let mark = mark(&format!("deadline-{frozen}"));
        let mut spec = shell(
            &workspace,
            &format!(
                "trap '' TERM INT HUP; (setsid sh -c 'sleep 1000; : {mark}' &) ; sleep 1000; : {mark}"
            ),
        );
        spec.deadline_ms = Some(400);
        let began = Instant::now();
        let running = start(&spec);
        if frozen {
            running.freeze().expect("freezes");
        }
        let outcome = running.wait().expect("outcome");
        assert_eq!(
            (outcome.ending, outcome.exit_code()),
            (Ending::Deadline, 137)
        );
        assert!(began.elapsed() >= Duration::from_millis(400));
        assert_eq!(processes_with(&mark), Vec::<i32>::new(), "frozen: {frozen}");
    }
}

#[test]
fn orphans_do_not_survive_the_command() {
    let workspace = workspace();
    let mark = mark("orphan");
    let script = format!(
        "setsid sh -c 'trap \"\" HUP TERM; sleep 1000; : {mark}' </dev/null >/dev/null 2>&1 & exit 5"
    );
    let outcome = run(&shell(&workspace, &script));
    assert_eq!(outcome.exit_code(), 5);
    assert_eq!(processes_with(&mark), Vec::<i32>::new());
}

#[test]
fn killing_the_launcher_ends_everything() {
    let user = Ordinary::new();
    let mark = mark("launcher");
    let script = format!("setsid sh -c 'sleep 1000; : {mark}' & sleep 1000; : {mark}");
    let mut launcher = user
        .command(["sh", "-c", &script])
        .stdin(Stdio::null())
        .spawn()
        .expect("starts");
    eventually("it runs", || processes_with(&mark).len() >= 3);
    launcher.kill().expect("kill -9");
    launcher.wait().expect("waits");
    eventually("all are gone", || processes_with(&mark).is_empty());
}

#[test]
fn killing_the_supervisor_ends_everything_and_is_told() {
    let workspace = workspace();
    let mark = mark("supervisor");
    let running = start(&shell(&workspace, &format!("sleep 1000; : {mark}")));
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).expect("status");
    let supervisor = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:\t"))
        .expect("parent");
    let killed = Command::new("kill").args(["-9", supervisor]).status();
    assert!(killed.is_ok_and(|status| status.success()));
    assert_eq!(running.wait().expect("outcome").ending, Ending::Killed);
    assert_eq!(processes_with(&mark), Vec::<i32>::new());
}

#[test]
fn a_kill_reaches_everything_even_frozen_and_from_another_thread() {
    let workspace = workspace();
    for frozen in [false, true] {
        let mark = mark(&format!("kill-{frozen}"));
        let running = Arc::new(start(&shell(
            &workspace,
            &format!("sleep 1000 & sleep 1000; : {mark}"),
        )));
        if frozen {
            running.freeze().expect("freezes");
        }
        let waiting = Arc::clone(&running);
        let waiter = thread::spawn(move || waiting.wait());
        thread::sleep(Duration::from_millis(20));
        assert_eq!(running.try_wait(), Ok(None));
        running.kill();
        let outcome = waiter.join().expect("thread").expect("outcome");
        assert_eq!(outcome.ending, Ending::Killed);
        assert_eq!(running.try_wait(), Ok(Some(outcome)));
        assert_eq!(processes_with(&mark), Vec::<i32>::new());
        assert_eq!(running.freeze().expect_err("ended").code, "run-ended");
    }
}

#[test]
fn a_run_outlives_the_thread_that_started_it() {
    let workspace = Arc::new(workspace());
    let shared = Arc::clone(&workspace);
    let started = thread::spawn(move || start(&shell(&shared, "sleep 0.3; exit 6")));
    let running = started.join().expect("thread");
    assert_eq!(running.wait().expect("outcome").exit_code(), 6);
}

#[test]
fn a_dropped_run_is_gone() {
    let workspace = workspace();
    let mark = mark("dropped");
    drop(start(&shell(&workspace, &format!("sleep 1000; : {mark}"))));
    assert_eq!(processes_with(&mark), Vec::<i32>::new());
}

#[test]
fn a_frozen_run_stands_still_and_goes_on_where_it_was() {
    let workspace = workspace();
    let running = start(&shell(
        &workspace,
        "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo $i > count; sleep 0.01; done",
    ));
    let count = || fs::read_to_string(workspace.path().join("count")).unwrap_or_default();
    eventually("it counts", || !count().is_empty());
    running.freeze().expect("freezes");
    let before = count();
    thread::sleep(Duration::from_millis(150));
    assert_eq!(count(), before);
    assert_eq!(running.try_wait(), Ok(None));
    running.thaw().expect("thaws");
    assert!(running.wait().expect("outcome").success());
    assert_eq!(count(), "60\n");
}

#[test]
fn an_ordinary_users_run_is_frozen_by_signals() {
    let user = Ordinary::new();
    let mut spec = portcullis_sandbox::Spec::new(
        &user.workspace,
        [
            "sh",
            "-c",
            "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo $i > count; sleep 0.01; done",
        ],
    );
    spec.helper = Some(user.helper());
    let running = start(&spec);
    assert_ne!(running.uid(), 0);
    let count = || fs::read_to_string(user.workspace.join("count")).unwrap_or_default();
    eventually("it counts", || !count().is_empty());
    running.freeze().expect("freezes");
    let before = count();
    thread::sleep(Duration::from_millis(150));
    assert_eq!((count(), running.try_wait()), (before, Ok(None)));
    running.thaw().expect("thaws");
    assert!(running.wait().expect("outcome").success());
    assert_eq!(count(), "60\n");
    // Frozen by signals, it can be ended all the same.
    let running = start(&spec);
    running.freeze().expect("freezes");
    running.kill();
    assert_eq!(running.wait().expect("outcome").ending, Ending::Killed);
}

#[test]
fn a_signal_reaches_the_command() {
    let workspace = workspace();
    let running = start(&shell(
        &workspace,
        "trap 'echo got it; exit 9' TERM; echo ready > ready; while :; do sleep 0.01; done",
    ));
    eventually("it is ready", || workspace.path().join("ready").exists());
    running.signal(15).expect("signals");
    let outcome = running.wait().expect("outcome");
    assert_eq!(
        (outcome.exit_code(), stdout(&outcome).as_str()),
        (9, "got it\n")
    );
}

#[test]
fn input_and_output_of_the_caller_are_relayed() {
    let user = Ordinary::new();
    let mut child = user
        .command(["sh", "-c", "cat; echo err >&2; exit 3"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = child.stdin.take().expect("stdin");
    let writer = thread::spawn(move || stdin.write_all(&vec![b'x'; 1_000_000]));
    let output = child.wait_with_output().expect("output");
    writer.join().expect("thread").expect("writes");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.stdout.len(), 1_000_000);
    assert_eq!(output.stderr, b"err\n");
}

#[test]
fn output_that_nobody_takes_does_not_hold_up_the_end() {
    let user = Ordinary::new();
    let mark = mark("untaken");
    let mut launcher = user
        .command(["sh", "-c", &format!("yes; : {mark}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    eventually("it runs", || !processes_with(&mark).is_empty());
    thread::sleep(Duration::from_millis(100));
    launcher.kill().expect("kill -9");
    launcher.wait().expect("waits");
    eventually("all are gone", || processes_with(&mark).is_empty());
}

/// What this process and its runs have on the machine. Other tests run at the same time, in
/// processes of their own, so what may be theirs is not counted.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    mounts: String,
    children: String,
    threads: usize,
    workspace: Vec<String>,
    ownerless_cgroups: usize,
}

fn holdings(workspace: &std::path::Path) -> Holdings {
    let me = std::process::id();
    let count = |directory: &str| fs::read_dir(directory).expect("proc").count();
    let children = fs::read_dir("/proc/self/task")
        .expect("tasks")
        .flatten()
        .map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default())
        .collect();
    let gone = |path: &String| {
        let pid = path.rsplit_once("portcullis-run-").map(|(_, pid)| pid);
        pid.is_some_and(|pid| {
            !pid.contains('/') && !std::path::Path::new("/proc").join(pid).exists()
        })
    };
    Holdings {
        descriptors: count("/proc/self/fd"),
        mounts: fs::read_to_string(format!("/proc/{me}/mountinfo")).expect("mounts"),
        children,
        threads: count("/proc/self/task"),
        workspace: walk(workspace),
        ownerless_cgroups: walk("/sys/fs/cgroup".as_ref())
            .iter()
            .filter(|path| gone(path))
            .count(),
    }
}

/// In a process of its own, whose children and descriptors are not those of other tests.
#[test]
fn many_short_runs_leave_nothing() {
    const NAME: &str = "many_short_runs_leave_nothing";
    const ALONE: &str = "PORTCULLIS_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let done = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", NAME, "--nocapture"])
            .env(ALONE, "yes")
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&done.stdout);
        let why = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success() && said.contains("1 passed"),
            "{said}{why}"
        );
        return;
    }
    let workspace = workspace();
    // What the first one opens for good is no leak.
    run(&shell(&workspace, "true"));
    let before = holdings(workspace.path());
    // By hand: a thousand.
    let rounds = std::env::var("PORTCULLIS_RUNS").ok();
    let rounds = rounds.and_then(|text| text.parse().ok()).unwrap_or(60);
    let mark = mark("many");
    for round in 0..rounds {
        let mut spec = shell(
            &workspace,
            &format!("setsid sleep 1000 </dev/null >/dev/null 2>&1 & mkdir /tmp/x; : {mark}"),
        );
        spec.use_channel(0);
        match round % 6 {
            0 => assert_eq!(
                spawn(&support::spec(&workspace, ["no-such-command"]))
                    .expect_err("none")
                    .code,
                "command-not-found"
            ),
            1 => drop(start(&spec)),
            2 => {
                // It may be over before it is frozen or killed.
                let running = start(&spec);
                let _ = running.freeze();
                running.kill();
                running.wait().expect("outcome");
            }
            _ => {
                let outcome = run(&spec);
                assert!(outcome.success(), "{round}: {outcome:?}");
            }
        }
    }
    assert_eq!(processes_with(&mark), Vec::<i32>::new());
    // A cgroup is busy until the kernel has let go of its last task; another test's may be, too.
    eventually("no cgroup without its supervisor is left", || {
        holdings(workspace.path()).ownerless_cgroups == 0
    });
    let mut after = holdings(workspace.path());
    after.ownerless_cgroups = before.ownerless_cgroups;
    assert_eq!(after, before);
}

#[test]
fn each_run_of_root_has_a_user_of_its_own_and_the_workspace_keeps_its_owner() {
    if !support::is_root() {
        return;
    }
    let workspace = workspace();
    let first = start(&shell(&workspace, "echo x > made; sleep 1000"));
    let second = start(&shell(&workspace, "sleep 1000"));
    assert!(first.uid() >= 0x7000_0000 && second.uid() >= 0x7000_0000);
    assert_ne!(first.uid(), second.uid());
    eventually("it writes", || workspace.path().join("made").exists());
    let made = fs::metadata(workspace.path().join("made")).expect("made");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 0);
    assert!(first.gaps().is_empty() && first.protections().contains_key(&Protection::Landlock));
}

#[test]
fn a_named_user_and_a_read_only_workspace_are_as_asked() {
    let workspace = workspace();
    fs::write(workspace.path().join("artifact"), "as built").expect("artifact");
    let mut spec = shell(
        &workspace,
        "cat artifact; echo x > artifact || echo kept; echo y > new || echo none; id -u; sleep 1000",
    );
    spec.workspace_read_only = true;
    spec.run_as = support::is_root().then_some(RunAs {
        uid: 71_234,
        gid: 71_234,
    });
    let running = start(&spec);
    if support::is_root() {
        assert_eq!(running.uid(), 71_234);
        let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).expect("status");
        assert!(
            status.contains("Uid:\t71234\t71234\t71234\t71234"),
            "{status}"
        );
    }
    thread::sleep(Duration::from_millis(200));
    running.kill();
    let outcome = running.wait().expect("outcome");
    assert_eq!(
        stdout(&outcome),
        "as builtkept\nnone\n1000\n",
        "{}",
        stderr(&outcome)
    );
}

#[test]
fn a_missing_protection_stops_the_start_unless_that_very_gap_is_allowed() {
    let user = Ordinary::new();
    let mut spec = portcullis_sandbox::Spec::new(&user.workspace, ["true"]);
    spec.helper = Some(user.helper());
    // Only a cgroup can hold it, and an ordinary user of a plain machine has none to write.
    spec.limits.cpu_percent = Some(50);
    let refusal = match spawn(&spec) {
        Err(refusal) => refusal,
        Ok(running) => {
            assert!(running.protections().contains_key(&Protection::CpuLimit));
            return;
        }
    };
    assert_eq!(refusal.code, "sandbox-cpu-limit");
    assert!(refusal.to_string().contains("Delegate=yes"), "{refusal}");
    spec.allowed_gaps = [Protection::Landlock, Protection::Seccomp].into();
    assert_eq!(
        spawn(&spec).expect_err("another gap").code,
        "sandbox-cpu-limit"
    );
    spec.allowed_gaps.insert(Protection::CpuLimit);
    let running = start(&spec);
    assert_eq!(
        running.gaps().keys().collect::<Vec<_>>(),
        [&Protection::CpuLimit]
    );
    assert!(!running.protections().contains_key(&Protection::CpuLimit));
    assert!(running.protections().contains_key(&Protection::Landlock));
    assert!(running.wait().expect("outcome").success());
}

#[test]
fn the_machine_tells_what_it_offers() {
    let found = portcullis_sandbox::probe_with(Some(&support::helper())).expect("probes");
    let names: Vec<_> = found.iter().map(|result| result.protection).collect();
    assert_eq!(names, Protection::ALL);
    for result in &found {
        assert_eq!(result.available, result.how_to_mend.is_none(), "{result:?}");
        assert!(!result.why.is_empty(), "{result:?}");
    }
    // Where these tests run at all, what the sandbox is made of is there.
    assert!(
        found
            .iter()
            .all(|result| result.available || result.protection.may_be_missing())
    );
}

#[test]
fn odd_names_and_private_parents_are_no_hindrance() {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::PermissionsExt as _;
    let outer = workspace();
    let odd = outer
        .path()
        .join(std::ffi::OsStr::from_bytes(b"odd \xff\n name"));
    fs::create_dir(&odd).expect("odd");
    fs::write(odd.join("file"), "content").expect("file");
    fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o700)).expect("mode");
    let mut spec = shell(&outer, "cat file");
    spec.workspace = odd;
    let outcome = run(&spec);
    assert_eq!(stdout(&outcome), "content", "{}", stderr(&outcome));
}

#[test]
fn a_slow_start_is_a_start() {
    use std::os::unix::fs::PermissionsExt as _;
    let workspace = workspace();
    let script = workspace.path().join("helper");
    let text = format!(
        "#!/bin/sh\nsleep 6\nexec '{}' \"$@\"\n",
        support::helper().display()
    );
    fs::write(&script, text).expect("script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("mode");
    let mut spec = shell(&workspace, "echo begun");
    spec.helper = Some(script);
    // Its time begins when it does.
    spec.deadline_ms = Some(5_000);
    assert_eq!(stdout(&run(&spec)), "begun\n");
}
