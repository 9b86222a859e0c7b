//! How long a sandbox takes to start, to stand still and to go on, and what it weighs, beside
//! bubblewrap in the same run: `cargo run --release -p portcullis-sandbox --example starts [ROUNDS]`.
#![expect(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a program by hand, whose output is its result"
)]

use std::fs;
use std::hint::black_box;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use portcullis_sandbox::checkpoint::{Bounds, Checkpoints};
use portcullis_sandbox::{RunAs, Spec, helper_main, spawn};

fn main() {
    helper_main();
    let rounds: usize = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(200);
    let workspace = tempfile::TempDir::new().unwrap();
    let certificates = tempfile::TempDir::new().unwrap();
    fs::write(certificates.path().join("ca-certificates.crt"), "").unwrap();
    fs::set_permissions(certificates.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(workspace.path(), fs::Permissions::from_mode(0o777)).unwrap();
    machine();
    let mut captured = spec(workspace.path(), &["true"]);
    captured.capture_all(
        [8080],
        certificates.path(),
        Path::new("/etc/ssl/certs/ca-certificates.crt"),
    );
    // As `portcullis run` does it as root: the workspace belongs to the run's own user.
    if std::os::unix::fs::chown(workspace.path(), Some(RUN_USER), Some(RUN_USER)).is_ok() {
        captured.run_as = Some(RunAs {
            uid: RUN_USER,
            gid: RUN_USER,
        });
    }
    starts(&captured, rounds);
    freezing(workspace.path(), rounds);
    weight(workspace.path());
    keeping(workspace.path());
}

/// The user of runs, where root starts them.
const RUN_USER: u32 = 64_999;

fn machine() {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("")
        .trim_start_matches(['\t', ':', ' ']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("machine   {cores} cores, {model}, Linux {}", kernel.trim());
    println!("load      {}", load.trim());
}

fn spec(workspace: &Path, command: &[&str]) -> Spec {
    let mut spec = Spec::new(workspace, command);
    spec.use_channel(0);
    spec
}

/// In turns, so that what disturbs one disturbs the other. Bubblewrap has no way to say when its
/// command's program took over, so the command says so itself, in both: a line on a pipe.
fn starts(captured: &Spec, rounds: usize) {
    let (mut to_exec, mut to_line, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    let (mut peer_line, mut peer) = (Vec::new(), Vec::new());
    let workspace = captured.workspace.clone();
    let peer_there = Command::new("bwrap")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    // The first of each brings the programs into memory.
    for round in 0..=rounds {
        let began = Instant::now();
        let running = spawn(captured).unwrap();
        let started = began.elapsed();
        // Every captured port listens now: what is inside may connect from its first moment.
        black_box(running.inlets().unwrap());
        assert!(running.wait().unwrap().success());
        let ended = began.elapsed();
        drop(running);
        let said = workspace.join("said");
        let _ = fs::remove_file(&said);
        let status = Command::new("mkfifo").arg(&said).status().unwrap();
        assert!(status.success());
        fs::set_permissions(&said, fs::Permissions::from_mode(0o666)).unwrap();
        let mut telling = captured.clone();
        telling.command = TELLING.map(Into::into).to_vec();
        let began = Instant::now();
        let running = spawn(&telling).unwrap();
        assert_eq!(fs::read(&said).unwrap(), b"x\n");
        let line = began.elapsed();
        assert!(running.wait().unwrap().success());
        drop(running);
        let peers = peer_there.then(|| {
            let began = Instant::now();
            let mut child = bubblewrap(&workspace, &TELLING).spawn().unwrap();
            assert_eq!(fs::read(&said).unwrap(), b"x\n");
            let line = began.elapsed();
            assert!(child.wait().unwrap().success());
            let began = Instant::now();
            let status = bubblewrap(&workspace, &["/usr/bin/true"]).status().unwrap();
            assert!(status.success());
            (line, began.elapsed())
        });
        if round == 0 {
            continue;
        }
        to_exec.push(started);
        to_line.push(line);
        whole.push(ended);
        if let Some((line, ended)) = peers {
            peer_line.push(line);
            peer.push(ended);
        }
    }
    show("start to exec, network captured", &mut to_exec);
    show("start to a line of `sh`", &mut to_line);
    show("start to end of `true`", &mut whole);
    if peer.is_empty() {
        println!("bubblewrap is not here: `apt-get install bubblewrap` brings it");
        return;
    }
    show("bubblewrap to a line of `sh`", &mut peer_line);
    show("bubblewrap to end of `true`", &mut peer);
    let ratio = |ours: &[Duration], theirs: &[Duration]| {
        median(ours).as_secs_f64() / median(theirs).as_secs_f64()
    };
    println!(
        "ratio     {:.2} to a line, {:.2} to the end, of bubblewrap's medians, which has no Landlock, no seccomp, no limits, no supervisor, no captured network",
        ratio(&to_line, &peer_line),
        ratio(&whole, &peer)
    );
}

/// Says on the pipe that its program has taken over.
const TELLING: [&str; 3] = ["/bin/sh", "-c", "echo x > /workspace/said"];

/// The same world in bubblewrap: all namespaces, read-only system, fresh /proc, /dev and tmpfs.
fn bubblewrap(workspace: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("bwrap");
    command.args([
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--clearenv",
    ]);
    command.args([
        "--ro-bind",
        "/usr",
        "/usr",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
    ]);
    for link in ["bin", "lib", "lib64", "sbin"] {
        command.args(["--symlink", &format!("usr/{link}"), &format!("/{link}")]);
    }
    for place in ["/tmp", "/run", "/home/agent"] {
        command.args(["--tmpfs", place]);
    }
    command
        .arg("--bind")
        .arg(workspace)
        .args(["/workspace", "--chdir", "/workspace"]);
    command.arg("--").args(words).stdin(Stdio::null());
    command
}

/// A hundred processes, some busy.
fn freezing(workspace: &Path, rounds: usize) {
    let script =
        "for i in $(seq 98); do sleep 1000 & done; while :; do :; done & echo > ready; wait";
    let running = spawn(&spec(workspace, &["sh", "-c", script])).unwrap();
    while !workspace.join("ready").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (mut freeze, mut thaw) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let began = Instant::now();
        running.freeze().unwrap();
        freeze.push(began.elapsed());
        let began = Instant::now();
        running.thaw().unwrap();
        thaw.push(began.elapsed());
    }
    show("freeze 100 processes", &mut freeze);
    show("let them go on", &mut thaw);
    let began = Instant::now();
    running.kill();
    let _ = running.wait();
    println!("end       {:.2} ms for all of them", ms(began.elapsed()));
}

/// What a run costs beside its command: supervisor and init, shared pages counted by share.
fn weight(workspace: &Path) {
    let running = spawn(&spec(workspace, &["sleep", "1000"])).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let supervisor = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:\t"))
        .unwrap();
    let of = |file: &str, field: &str| -> Option<u64> {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_whitespace().next()?.parse().ok()
    };
    for (name, pid) in [
        ("supervisor", supervisor),
        ("init", &running.pid().to_string()),
    ] {
        let (status, shares) = (
            format!("/proc/{pid}/status"),
            format!("/proc/{pid}/smaps_rollup"),
        );
        let resident = of(&status, "VmRSS:").unwrap_or(0);
        let own = of(&status, "RssAnon:").unwrap_or(0);
        // Not every kernel counts shared pages by share.
        let share = of(&shares, "Pss:").map_or(String::new(), |share| {
            format!(", {share} KiB by share of what is shared")
        });
        println!("memory    {name}: {resident} KiB resident, {own} KiB of it anonymous{share}");
    }
}

/// Ten thousand files, one of which changes.
fn keeping(workspace: &Path) {
    for directory in 0..100 {
        let directory = workspace.join(format!("d{directory}"));
        fs::create_dir(&directory).unwrap();
        for file in 0..100 {
            fs::write(directory.join(format!("f{file}")), vec![b'x'; 2_000 + file]).unwrap();
        }
    }
    std::thread::sleep(Duration::from_millis(50));
    let store = tempfile::TempDir::new().unwrap();
    let mut checkpoints = Checkpoints::create(workspace, store.path(), Bounds::default()).unwrap();
    let began = Instant::now();
    let first = checkpoints.keep().unwrap().unwrap();
    println!(
        "keep      {:.1} ms for 10,000 files the first time",
        ms(began.elapsed())
    );
    let mut again = Vec::new();
    for round in 0..20 {
        fs::write(workspace.join("d0/f0"), format!("round {round}")).unwrap();
        let began = Instant::now();
        checkpoints.keep().unwrap();
        again.push(began.elapsed());
    }
    show("keep 10,000 files, one of them new", &mut again);
    let began = Instant::now();
    checkpoints.wind_back(1, first.manifest).unwrap();
    println!("back      {:.1} ms to wind it back", ms(began.elapsed()));
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2]
}

fn show(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |share: usize| ms(times[(times.len() * share / 100).min(times.len() - 1)]);
    println!(
        "{what:<36} p50 {:6.2} ms  p99 {:6.2} ms  (n = {})",
        at(50),
        at(99),
        times.len()
    );
}
