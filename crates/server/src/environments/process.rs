//! Starting processes that outlive us, and finding and ending them later.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use portcullis_model::Refusal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::disk;

/// Longest wait for a killed process to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two looks at a lock or a process.
const LOOK_EVERY: Duration = Duration::from_millis(20);

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Names the `portcullis` binary that processes are started from, for a program that holds the
/// server and is not that binary itself. Only the first call counts.
pub fn start_from(program: impl Into<PathBuf>) {
    let _first = PROGRAM.set(program.into());
}

/// The program that processes are started from: this one's file, and after an upgrade that
/// replaced it, what still runs.
pub fn this_program() -> PathBuf {
    if let Some(program) = PROGRAM.get() {
        return program.clone();
    }
    let running = PathBuf::from("/proc/self/exe");
    std::env::current_exe()
        .ok()
        .filter(|path| path.exists())
        .unwrap_or(running)
}

/// Starts `program` with nothing of ours: no environment, no input, its output appended to `log`,
/// working directory `/`. It makes itself a session of its own ([`hold`]).
///
/// # Errors
/// The program can't be started.
pub fn start_detached(program: &Path, arguments: &[OsString], log: &Path) -> Result<(), Refusal> {
    let output = || {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(log)
            .map_or_else(|_| Stdio::null(), Stdio::from)
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(output())
        .spawn()
        .map_err(|error| {
            Refusal::unavailable(
                "process-not-started",
                format!("can't start {}", program.display()),
            )
            .received(&error.to_string())
        })?;
    // Reaps it, should it end before us.
    std::thread::Builder::new()
        .name("reaper".to_owned())
        .stack_size(64 * 1024)
        .spawn(move || child.wait())
        .map(drop)
        .map_err(|error| {
            Refusal::unavailable("no-thread", "no thread can be started")
                .received(&error.to_string())
        })
}

/// The right to be the one process of its place; lasts as long as the process.
#[derive(Debug)]
#[must_use = "the place is free again once this is dropped"]
pub struct Held(#[expect(dead_code, reason = "held for its lock")] File);

/// Called by a started process before it opens anything: leaves the starter's session and takes
/// the lock. `None`: another process has it, and this one has nothing to do.
///
/// # Errors
/// The lock file can't be opened.
pub fn hold(lock: &Path) -> Result<Option<Held>, Refusal> {
    // Fails only for a process that leads its group already, as one started by a shell.
    let _leads_already = rustix::process::setsid();
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(lock)
        .map_err(|error| disk("open", lock, &error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Held(file))),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(disk("lock", lock, &error.into())),
    }
}

/// The process that listens on a unix socket, by the kernel's word.
pub fn owner_of(socket: &Path) -> Option<Pid> {
    let stream = UnixStream::connect(socket).ok()?;
    rustix::net::sockopt::socket_peercred(stream.as_fd())
        .ok()
        .map(|peer| peer.pid)
}

/// Asks the process behind `socket` to end; one that lost its socket is known by `argument`, the
/// path in its command line. Answers whether there was one.
///
/// # Errors
/// It lives and can't be signalled.
pub fn terminate(socket: &Path, argument: &Path) -> Result<bool, Refusal> {
    let mut any = false;
    for pid in find(socket, argument) {
        any |= send(pid, argument, Signal::TERM)?.is_some();
    }
    Ok(any)
}

/// Waits for the end of the process behind `socket`; after `patience` it is killed.
///
/// # Errors
/// It is still there after that.
pub fn wait_gone(socket: &Path, argument: &Path, patience: Duration) -> Result<(), Refusal> {
    let until = Instant::now() + patience;
    while Instant::now() < until {
        if find(socket, argument).is_empty() {
            return Ok(());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    for pid in find(socket, argument) {
        tracing::warn!(
            process.pid = pid.as_raw_nonzero().get(),
            "it did not end when asked, and is killed"
        );
        if let Some(handle) = send(pid, argument, Signal::KILL)? {
            wait(&handle, KILL_PATIENCE);
        }
    }
    match find(socket, argument).as_slice() {
        [] => Ok(()),
        left => Err(
            Refusal::unavailable("process-stays", "a process does not end")
                .received(&format!("{left:?}")),
        ),
    }
}

/// The processes of a place: who listens on its socket, else whose command line names its file.
fn find(socket: &Path, argument: &Path) -> Vec<Pid> {
    let mut found = by_argument(argument);
    if let Some(owner) = owner_of(socket)
        && !found.contains(&owner)
    {
        found.push(owner);
    }
    found
}

/// The processes with `argument` as a word of their command line.
fn by_argument(argument: &Path) -> Vec<Pid> {
    let Ok(list) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    list.filter_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let pid = Pid::from_raw(pid)?;
        has_argument(pid, argument).then_some(pid)
    })
    .collect()
}

fn has_argument(pid: Pid, argument: &Path) -> bool {
    // A process that ended and was not reaped has no command line.
    let file = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
    let words = fs::read(file).unwrap_or_default();
    let mut words = words
        .split(|byte| *byte == 0)
        .map(|word| OsString::from_vec(word.to_vec()));
    let role = words.nth(1);
    let ours = role
        .as_deref()
        .is_some_and(|role| [OsStr::new("target"), OsStr::new("proxy")].contains(&role));
    ours && words.any(|word| word.as_bytes() == argument.as_os_str().as_bytes())
}

/// Signals a process by a handle, after a look that it is still the one that was meant.
fn send(pid: Pid, argument: &Path, signal: Signal) -> Result<Option<OwnedFd>, Refusal> {
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
        return Ok(None);
    };
    if !has_argument(pid, argument) {
        return Ok(None);
    }
    match pidfd_send_signal(&handle, signal) {
        Ok(()) => Ok(Some(handle)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(error) => Err(Refusal::unavailable(
            "process-not-signalled",
            "a process can't be ended",
        )
        .received(&format!("{pid:?}: {error}"))
        .next("run this as the user that started the server")),
    }
}

fn wait(handle: &OwnedFd, patience: Duration) {
    let mut ready = [PollFd::new(handle, PollFlags::IN)];
    let patience = rustix::time::Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: 0,
    };
    // The caller looks again in any case.
    let _looked = poll(&mut ready, Some(&patience));
}
