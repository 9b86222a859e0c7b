//! Hostile programs run inside; each attempt must fail, and the host must be as it was.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};

use portcullis_sandbox::{Bind, Ending};
use support::{Ordinary, bring_attempt, run, shell, spec, stderr, stdout, workspace};

/// Things of the host that a run must not reach.
struct Host {
    directory: tempfile::TempDir,
    listener: TcpListener,
    _abstract: UnixListener,
    _socket: UnixListener,
    name: String,
    shared: Shared,
}

/// Memory, semaphores and a queue that any process of the host may find by their key.
struct Shared {
    key: i32,
    memory: i32,
    semaphores: i32,
    queue: i32,
}

impl Shared {
    fn new() -> Self {
        static NEXT: AtomicI32 = AtomicI32::new(1);
        let key = ((std::process::id() as i32) << 8) | NEXT.fetch_add(1, Ordering::Relaxed);
        let how = libc::IPC_CREAT | 0o666;
        // SAFETY: plain numbers.
        let (memory, semaphores, queue) = unsafe {
            (
                libc::shmget(key, 4096, how),
                libc::semget(key, 1, how),
                libc::msgget(key, how),
            )
        };
        assert!(memory >= 0 && semaphores >= 0 && queue >= 0);
        Self {
            key,
            memory,
            semaphores,
            queue,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: plain numbers, and no structure to fill.
        unsafe {
            libc::shmctl(self.memory, libc::IPC_RMID, std::ptr::null_mut());
            libc::semctl(self.semaphores, 0, libc::IPC_RMID);
            libc::msgctl(self.queue, libc::IPC_RMID, std::ptr::null_mut());
        }
    }
}

impl Host {
    fn new() -> Self {
        let directory = workspace();
        fs::write(directory.path().join("secret"), "the secret").expect("secret");
        let name = format!(
            "portcullis-test-{}-{:p}",
            std::process::id(),
            &raw const directory
        );
        let address = SocketAddr::from_abstract_name(&name).expect("name");
        Self {
            listener: TcpListener::bind("127.0.0.1:0").expect("listener"),
            _abstract: UnixListener::bind_addr(&address).expect("abstract"),
            _socket: UnixListener::bind(directory.path().join("socket")).expect("socket"),
            directory,
            name,
            shared: Shared::new(),
        }
    }

    fn facts(&self) -> Vec<String> {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        vec![
            format!("secret={}", path("secret")),
            format!("socket={}", path("socket")),
            format!("abstract={}", self.name),
            format!("key={}", self.shared.key),
            format!(
                "port={}",
                self.listener.local_addr().expect("address").port()
            ),
            format!("pid={}", std::process::id()),
        ]
    }
}

/// Each line must be a refusal; returns how many there were.
fn all_refused(output: &str) -> usize {
    let escaped: Vec<_> = output
        .lines()
        .filter(|line| !line.contains(" refused "))
        .collect();
    assert!(escaped.is_empty(), "not refused: {escaped:#?}");
    output.lines().count()
}

#[test]
fn no_attempt_succeeds_for_the_caller() {
    let (host, workspace) = (Host::new(), workspace());
    bring_attempt(workspace.path());
    let words = ["./attempt".to_owned(), "all".to_owned()];
    let outcome = run(&spec(&workspace, words.into_iter().chain(host.facts())));
    let output = stdout(&outcome);
    assert!(
        outcome.success(),
        "{:?} {}",
        outcome.ending,
        stderr(&outcome)
    );
    assert!(all_refused(&output) >= 200, "{output}");
    assert!(
        output.contains("clone3 refused Function not implemented"),
        "{output}"
    );
}

#[test]
fn no_attempt_succeeds_for_an_ordinary_user() {
    let (host, user) = (Host::new(), Ordinary::new());
    bring_attempt(&user.workspace);
    let words = ["./attempt".to_owned(), "all".to_owned()];
    let output = user
        .command(words.into_iter().chain(host.facts()))
        .output()
        .expect("runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(all_refused(&output) >= 200, "{output}");
}

/// With every connection captured, what is said to any other address is said to the launcher: these
/// connections come about, and lead nowhere. So do packets that nobody reads.
const TO_THE_LAUNCHER: [&str; 10] = [
    "fast-open",
    "broadcast",
    "dns-by-stream",
    "ipv6-out",
    "metadata-service",
    "multicast",
    "neighbours",
    "public-address",
    "udp-out",
    "dns-of-the-system",
];

#[test]
fn no_attempt_succeeds_where_connections_are_captured() {
    let (host, workspace, given) = (Host::new(), workspace(), workspace());
    fs::write(given.path().join("ca-certificates.crt"), "").expect("bundle");
    bring_attempt(workspace.path());
    let words = ["./attempt".to_owned(), "all".to_owned()];
    let mut spec = spec(&workspace, words.into_iter().chain(host.facts()));
    spec.use_channel(0);
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    spec.capture_all([8443], given.path(), bundle.as_ref());
    let running = support::start(&spec);
    let inlets = running.inlets().expect("inlets");
    let outcome = running.wait().expect("outcome");
    let output = stdout(&outcome);
    assert!(outcome.success(), "{outcome:?}");
    let (captured, others): (Vec<_>, Vec<_>) = output.lines().partition(|line| {
        let name = line.split(' ').next().unwrap_or_default();
        TO_THE_LAUNCHER.contains(&name)
    });
    assert!(all_refused(&others.join("\n")) > 200, "{output}");
    for name in ["public-address", "ipv6-out", "metadata-service"] {
        assert!(
            captured.contains(&format!("{name} DONE").as_str()),
            "{output}"
        );
    }
    // They wait for the launcher; the host's own listener was reached by nobody.
    let listener = inlets.captured.first().expect("a captured listener");
    listener.set_nonblocking(true).expect("nonblocking");
    let mut dialled = Vec::new();
    while let Ok((stream, _)) = listener.accept() {
        dialled.push(stream.local_addr().expect("address").to_string());
    }
    for address in ["1.1.1.1]:80", "169.254.169.254]:80", "8.8.8.8]:53"] {
        assert!(
            dialled.iter().any(|one| one.contains(address)),
            "{address}: {dialled:?}"
        );
    }
    host.listener.set_nonblocking(true).expect("nonblocking");
    assert!(host.listener.accept().is_err());
}

/// As systemd leaves them: a mount below one appears on all of its group.
#[test]
fn mounts_that_the_host_shares_are_private_inside_and_nothing_appears_on_the_host() {
    if !support::is_root() {
        return;
    }
    let (workspace, outer, inner) = (workspace(), workspace(), workspace());
    bring_attempt(workspace.path());
    fs::create_dir(outer.path().join("place")).expect("place");
    fs::write(inner.path().join("file"), "inner").expect("file");
    let script = workspace.path().join("helper");
    let text = format!(
        "#!/bin/sh\nexec unshare --mount --propagation shared '{}' \"$@\"\n",
        support::helper().display()
    );
    fs::write(&script, text).expect("script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("mode");
    let mut spec = shell(
        &workspace,
        "cat /opt/outer/place/file && ./attempt all only=shared-mounts; until test -e seen; do sleep 0.02; done",
    );
    spec.helper = Some(script);
    let bind = |host: &tempfile::TempDir, inside: &str| Bind {
        host: host.path().to_owned(),
        inside: inside.into(),
        required: true,
    };
    spec.read_only.push(bind(&outer, "/opt/outer"));
    spec.read_only.push(bind(&inner, "/opt/outer/place"));
    let running = support::start(&spec);
    // Those of the supervisor are the host's, in that namespace.
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).expect("status");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let parent = parent.expect("parent").trim();
    let mounts = fs::read_to_string(format!("/proc/{parent}/mountinfo")).expect("mounts");
    assert!(mounts.contains(" shared:"), "{mounts}");
    assert!(!mounts.contains("/place "), "{mounts}");
    fs::write(workspace.path().join("seen"), "").expect("seen");
    let outcome = running.wait().expect("outcome");
    assert_eq!(
        stdout(&outcome),
        "innershared-mounts refused all private\n",
        "{outcome:?}"
    );
}

#[test]
fn the_attempts_work_where_nothing_stops_them() {
    let (host, workspace) = (Host::new(), workspace());
    bring_attempt(workspace.path());
    let harmless = [
        "read-host-secret",
        "see-host-process",
        "signal-host-process",
        "host-loopback",
        "host-abstract-socket",
        "host-unix-socket",
        "unshare-user",
        #[cfg(target_arch = "x86_64")]
        "change-call-under-trace",
        "filter-netlink",
        "be-any-address",
        "mark-packets",
        "describe-machine",
        "host-memory-segment",
        "host-message-queue",
        "host-semaphores",
    ];
    let output = Command::new(workspace.path().join("attempt"))
        .arg("all")
        .arg(format!("only={}", harmless.join(",")))
        .args(host.facts())
        .output()
        .expect("runs");
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    for name in harmless {
        assert!(output.contains(&format!("{name} DONE")), "{name}: {output}");
    }
}

#[test]
fn nothing_of_the_callers_environment_and_descriptors_is_inside() {
    let workspace = workspace();
    let mut spec = shell(
        &workspace,
        "env; echo --; ls /proc/self/fd; echo --; ls /proc | grep '^[0-9]'",
    );
    spec.variable("GIVEN", "yes");
    let outcome = run(&spec);
    let output = stdout(&outcome);
    let parts: Vec<_> = output.split("--\n").collect();
    let allowed = [
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TERM", "TMPDIR", "GIVEN", "PWD",
        "OLDPWD", "SHLVL", "_",
    ];
    for line in parts[0].lines() {
        let name = line.split('=').next().unwrap_or("");
        assert!(allowed.contains(&name), "{line}");
    }
    assert!(parts[0].contains("GIVEN=yes"), "{output}");
    // 0, 1, 2 and the directory being listed.
    assert_eq!(
        parts[1].lines().collect::<Vec<_>>(),
        ["0", "1", "2", "3"],
        "{output}"
    );
    let processes = parts[2].lines().count();
    assert!(processes <= 5, "{output}");
}

#[test]
fn the_sandbox_holds_no_capability_and_every_layer() {
    let workspace = workspace();
    let output = stdout(&run(&shell(
        &workspace,
        "cat /proc/self/status; mount; ls -A /home/agent /tmp /run",
    )));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(
            output.contains(&format!("{set}:\t0000000000000000")),
            "{output}"
        );
    }
    assert!(
        output.contains("NoNewPrivs:\t1") && output.contains("Seccomp:\t2"),
        "{output}"
    );
    for line in output
        .lines()
        .filter(|line| line.contains(" on /usr") || line.contains(" on / "))
    {
        assert!(line.contains("(ro,nosuid,nodev"), "{line}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_numbers_of_32_bit_programs_end_who_uses_them() {
    let workspace = workspace();
    bring_attempt(workspace.path());
    let outcome = run(&spec(&workspace, ["./attempt", "old-numbering"]));
    assert_eq!(outcome.ending, Ending::Signalled { signal: 31 });
    assert_eq!(stdout(&outcome), "");
}

#[test]
fn signals_reach_nobody_who_watches() {
    let workspace = workspace();
    bring_attempt(workspace.path());
    let outcome = run(&shell(
        &workspace,
        "sleep 1000 & trap '' TERM SEGV; exec ./attempt signal-games",
    ));
    assert!(stdout(&outcome).contains("still here"), "{outcome:?}");
    assert_eq!(outcome.ending, Ending::Exited { code: 0 });
}

#[test]
fn a_set_user_id_program_of_the_host_gains_nothing() {
    let workspace = workspace();
    let output = stdout(&run(&shell(
        &workspace,
        "for program in su mount passwd newgrp chsh ping; do
             file=$(command -v $program) || continue
             $file --help >/dev/null 2>&1 &
             wait $!
         done
         su -c 'id -u' root </dev/null 2>/dev/null; id -u; grep -c . /etc/shadow 2>/dev/null; true",
    )));
    assert_eq!(output.trim(), "1000");
}

#[test]
fn floods_are_bounded() {
    let workspace = workspace();
    bring_attempt(workspace.path());
    let mut bomb = spec(&workspace, ["./attempt", "fork-bomb"]);
    bomb.limits.processes = 50;
    let outcome = run(&bomb);
    let forked: u32 = stdout(&outcome).trim().parse().expect("a number");
    assert!((10..=50).contains(&forked), "{forked}");

    let mut eater = spec(&workspace, ["./attempt", "memory"]);
    eater.limits.memory_bytes = 256 * 1024 * 1024;
    let outcome = run(&eater);
    assert!(
        !outcome.success() && !stdout(&outcome).contains("MiB"),
        "{outcome:?}"
    );

    let outcome = run(&spec(&workspace, ["./attempt", "terminals"]));
    let opened: u32 = stdout(&outcome).trim().parse().expect("a number");
    assert!((16..=256).contains(&opened), "{opened}");

    let mut filler = shell(
        &workspace,
        "for place in /tmp /home/agent /dev/shm /run /workspace; do dd if=/dev/zero of=$place/x bs=1M count=64 2>/dev/null && echo $place filled; done; true",
    );
    filler.limits.tmp_bytes = 8 << 20;
    filler.limits.home_bytes = 8 << 20;
    filler.limits.shm_bytes = 8 << 20;
    filler.limits.file_bytes = 8 << 20;
    let outcome = run(&filler);
    assert_eq!(stdout(&outcome), "", "{outcome:?}");
    let written = fs::metadata(workspace.path().join("x"))
        .expect("file")
        .len();
    assert!(written <= 8 << 20, "{written}");
}

#[test]
fn an_ordinary_user_is_bounded_too() {
    let user = Ordinary::new();
    bring_attempt(&user.workspace);
    let output = user
        .command(["./attempt", "fork-bomb"])
        .output()
        .expect("runs");
    let forked: u32 = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .expect("a number");
    assert!((100..=1024).contains(&forked), "{forked}");
}

#[test]
fn ordinary_tools_go_on_working() {
    let workspace = workspace();
    let tools = [
        (
            "gcc",
            "echo 'int main(){return 7;}' > a.c && gcc a.c -o a && ./a; test $? = 7",
        ),
        (
            "git",
            "git init -q g && cd g && touch x && git add x && git -c user.name=a -c user.email=a@b commit -qm x && git log --oneline | grep x",
        ),
        (
            "python3",
            "python3 -c 'import subprocess, tempfile, threading, socket; subprocess.check_call([\"true\"]); t=threading.Thread(target=print); t.start(); t.join()'",
        ),
        (
            "node",
            "node -e 'require(\"child_process\").execSync(\"true\"); setTimeout(()=>{},10)'",
        ),
        (
            "python3",
            "python3 -c 'import venv' 2>/dev/null || exit 0; python3 -m venv --without-pip v && v/bin/python -c 'import sqlite3, multiprocessing as m; print(m.Pool(2).map(abs, [-1, -2]))' | grep -q '1, 2'",
        ),
        (
            "sqlite3",
            "echo 'create table t(x); insert into t values(7); select x from t;' | sqlite3 data.db | grep -q 7",
        ),
        (
            "script",
            "script -qec 'test -t 0 && stty size >/dev/null && echo a terminal' /dev/null | grep -q 'a terminal'",
        ),
        (
            "perl",
            "perl -e 'use Socket; socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die; fork or exit 0; wait; exit 0'",
        ),
        // Their own priorities and limits are theirs.
        (
            "taskset",
            "nice -n 5 ionice -c 3 taskset -c $(taskset -cp $$ | sed 's/.*: //; s/[-,].*//') chrt --idle 0 sh -c 'test $(nice) = 5 && ulimit -c 0 && ulimit -n 64'",
        ),
        (
            "ssh-agent",
            "ssh-keygen -q -t ed25519 -N '' -f key && ssh-agent sh -c 'ssh-add -q key && ssh-add -l | grep -q ED25519'",
        ),
        ("strace", "strace -f -e trace=execve -o /dev/null true"),
        ("gdb", "gdb -q -batch -ex run -ex quit --args true"),
        (
            "id",
            "test $(id -un) = agent && test $(hostname) = sandbox && date && mv /tmp /nowhere 2>/dev/null || true",
        ),
        (
            "sh",
            "mkdir -p d/b && touch d/f && mv d/f d/b/f && ln d/b/f d/g && (sleep 0.1 & wait)",
        ),
    ];
    for (tool, script) in tools {
        let present = Command::new("sh")
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .args(["-c", &format!("command -v {tool} >/dev/null")])
            .status();
        if !present.is_ok_and(|status| status.success()) {
            continue;
        }
        let outcome = run(&shell(&workspace, script));
        assert!(
            outcome.success(),
            "{tool}: {:?}\n{}\n{}",
            outcome.ending,
            stdout(&outcome),
            stderr(&outcome)
        );
    }
}

#[test]
fn a_link_in_the_way_of_a_mount_leads_nowhere_on_the_host() {
    let (workspace, outer, inner) = (workspace(), workspace(), workspace());
    // Not below `/tmp`, which is another one while the root is built.
    let host = tempfile::tempdir_in("/var/tmp").expect("directory");
    fs::set_permissions(host.path(), fs::Permissions::from_mode(0o777)).expect("mode");
    fs::write(inner.path().join("file"), "inner").expect("file");
    fs::create_dir(outer.path().join("real")).expect("directory");
    let link = |name: &str, to: &std::path::Path| {
        std::os::unix::fs::symlink(to, outer.path().join(name)).expect("link");
    };
    let up = std::path::Path::new("../../../../../../..");
    let from_above = host.path().strip_prefix("/").expect("absolute");
    link("absolute", host.path());
    link("relative", &up.join(from_above));
    link("dangling", &host.path().join("made"));
    link("inside", "/opt/outer/real".as_ref());
    let with = |place: &str| {
        let mut spec = shell(&workspace, &format!("cat {place}/file"));
        for (from, to) in [(outer.path(), "/opt/outer"), (inner.path(), place)] {
            spec.read_only.push(Bind {
                host: from.to_owned(),
                inside: to.into(),
                required: true,
            });
        }
        spec
    };
    for place in [
        "absolute",
        "absolute/sub",
        "relative/sub",
        "dangling",
        "dangling/sub",
    ] {
        let place = format!("/opt/outer/{place}");
        match portcullis_sandbox::spawn(&with(&place)) {
            Err(refusal) => assert_eq!(refusal.code, "sandbox-bind", "{place}: {refusal}"),
            // Where there is such a place inside, that is where it leads.
            Ok(running) => {
                let outcome = running.wait().expect("outcome");
                assert_eq!(stdout(&outcome), "inner", "{place}: {outcome:?}");
            }
        }
        let made: Vec<_> = fs::read_dir(host.path()).expect("host").collect();
        assert!(made.is_empty(), "{place}: {made:?}");
    }
    assert_eq!(stdout(&run(&with("/opt/outer/inside"))), "inner");
}
