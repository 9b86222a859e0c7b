//! Everything that the demo starts, and that it all ends: on success, on failure, on Ctrl-C.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use portcullis_model::Refusal;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// How long one command may take. Nothing in the demo needs a tenth of it.
const COMMAND_MAX: Duration = Duration::from_secs(90);
/// How long a process that was asked to end may take before it is killed.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two looks at a process.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a command left behind.
pub(super) struct Done {
    /// Its exit code; 128 and the signal's number if it was killed.
    pub(super) code: i32,
    /// What it printed.
    pub(super) out: String,
    /// What it printed beside that.
    pub(super) err: String,
}

impl Done {
    /// Both streams, one after the other.
    pub(super) fn both(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

/// The processes under one directory of ours.
pub(super) struct Processes {
    directory: PathBuf,
    running: Mutex<Vec<Arc<Mutex<Child>>>>,
    interrupted: AtomicBool,
}

/// A process in the background.
#[derive(Clone)]
pub(super) struct Background {
    child: Arc<Mutex<Child>>,
    /// Its process id.
    pub(super) id: u32,
    out: PathBuf,
}

impl Processes {
    /// None yet; all of them will be about `directory`.
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            running: Mutex::new(Vec::new()),
            interrupted: AtomicBool::new(false),
        }
    }

    /// Runs a command to its end. Its output goes through files, so that what it starts and leaves
    /// behind can't hold the demo up; both streams through one, in the order of writing, if
    /// `merged`.
    ///
    /// # Errors
    /// It can't be started, takes too long, or the demo was interrupted.
    pub(super) fn run(&self, command: &mut Command, merged: bool) -> Result<Done, Refusal> {
        let out = self.scratch()?;
        let err = self.scratch()?;
        let name = command.get_program().to_string_lossy().into_owned();
        command
            .stdout(writer(&out)?)
            .stderr(writer(if merged { &out } else { &err })?);
        let child = self.start(command)?;
        let since = Instant::now();
        let status = loop {
            if let Some(status) = try_wait(&child)? {
                break status;
            }
            if self.interrupted.load(Ordering::Relaxed) {
                end(&child, Duration::ZERO);
                self.forget(&child);
                return Err(interrupted());
            }
            if since.elapsed() > COMMAND_MAX {
                end(&child, Duration::ZERO);
                self.forget(&child);
                return Err(Refusal::unavailable(
                    "demo-command-stuck",
                    format!("{name} does not end"),
                )
                .expected(&format!("an end within {} s", COMMAND_MAX.as_secs()))
                .received(&read(&out)));
            }
            std::thread::sleep(LOOK_EVERY);
        };
        self.forget(&child);
        let done = Done {
            code: code(status),
            out: read(&out),
            err: read(&err),
        };
        let _ = fs::remove_file(out);
        let _ = fs::remove_file(err);
        Ok(done)
    }

    /// Starts a command in the background, its output in the file `log`.
    ///
    /// # Errors
    /// It can't be started.
    pub(super) fn background(
        &self,
        command: &mut Command,
        log: &Path,
    ) -> Result<Background, Refusal> {
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .map_err(unwritable)?;
        let again = file.try_clone().map_err(unwritable)?;
        command.stdout(file).stderr(again);
        let child = self.start(command)?;
        let id = child.lock().unwrap_or_else(PoisonError::into_inner).id();
        Ok(Background {
            child,
            id,
            out: log.to_owned(),
        })
    }

    fn start(&self, command: &mut Command) -> Result<Arc<Mutex<Child>>, Refusal> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(interrupted());
        }
        let name = command.get_program().to_string_lossy().into_owned();
        // A group of its own: Ctrl-C is for the demo, which then ends everything in order.
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| {
                Refusal::unavailable("demo-program", format!("{name} can't be started"))
                    .received(&error.to_string())
            })?;
        let child = Arc::new(Mutex::new(child));
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&child));
        Ok(child)
    }

    fn forget(&self, child: &Arc<Mutex<Child>>) {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|known| !Arc::ptr_eq(known, child));
    }

    /// No further process starts, and those under way are ended by whoever waits for them.
    pub(super) fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
    }

    /// Whether the demo was interrupted.
    ///
    /// # Errors
    /// It was.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        if self.interrupted.load(Ordering::Relaxed) {
            Err(interrupted())
        } else {
            Ok(())
        }
    }

    /// Ends everything: the processes started here, newest first, then what they started to outlive
    /// them (proxies and supervisors), known by our directory in their arguments.
    pub(super) fn end_all(&self) {
        self.interrupt();
        let running =
            std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        for child in running.iter().rev() {
            end(child, END_PATIENCE);
        }
        let since = Instant::now();
        for signal in [Signal::TERM, Signal::KILL] {
            while !self.outliving().is_empty() && since.elapsed() < END_PATIENCE {
                for pid in self.outliving() {
                    let _ = kill_process(pid, signal);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        for pid in self.outliving() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Processes with our directory in their arguments. The directory's name is random, so nobody
    /// else has it there; this process has it nowhere.
    fn outliving(&self) -> Vec<Pid> {
        let needle = self.directory.as_os_str().as_encoded_bytes();
        let Ok(processes) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        processes
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|id| {
                fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|arguments| {
                    arguments.windows(needle.len()).any(|part| part == needle)
                })
            })
            .filter_map(Pid::from_raw)
            .filter(|pid| *pid != rustix::process::getpid())
            .collect()
    }

    fn scratch(&self) -> Result<PathBuf, Refusal> {
        let directory = self.directory.join("scratch");
        fs::create_dir_all(&directory).map_err(unwritable)?;
        let name = crate::random::nonce()?;
        Ok(directory.join(name))
    }
}

impl Background {
    /// What it printed so far.
    pub(super) fn printed(&self) -> String {
        read(&self.out)
    }

    /// Whether it has ended.
    pub(super) fn ended(&self) -> Result<Option<i32>, Refusal> {
        Ok(try_wait(&self.child)?.map(code))
    }

    /// Kills it with `kill -9`, and nothing that it started to outlive it.
    pub(super) fn kill(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Asks it to end, and makes it.
    pub(super) fn end(&self) {
        end(&self.child, END_PATIENCE);
    }
}

fn try_wait(child: &Arc<Mutex<Child>>) -> Result<Option<ExitStatus>, Refusal> {
    child
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .try_wait()
        .map_err(|error| Refusal::internal(format!("a process can't be waited for: {error}")))
}

/// Asks a process to end, waits, and kills its group.
fn end(child: &Arc<Mutex<Child>>, patience: Duration) {
    let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        return;
    };
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    let _ = kill_process(pid, Signal::TERM);
    let since = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        if since.elapsed() >= patience {
            let _ = kill_process_group(pid, Signal::KILL);
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let _ = child.wait();
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn writer(path: &Path) -> Result<File, Refusal> {
    // Two handles on one file both write at its end.
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(unwritable)
}

fn unwritable(error: std::io::Error) -> Refusal {
    Refusal::unavailable("demo-files", "the demo's directory can't be written")
        .received(&error.to_string())
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn interrupted() -> Refusal {
    Refusal::unavailable("demo-interrupted", "the demo was interrupted")
        .next("everything it started is ended, and its directory removed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outlives_the_demo() {
        let directory = tempfile::tempdir().unwrap();
        let processes = Processes::new(directory.path());
        let script = format!(
            "sleep 300 & exec sh -c 'sleep 300; :' {}",
            directory.path().display()
        );
        let log = directory.path().join("log");
        let background = processes
            .background(Command::new("sh").args(["-c", &script]), &log)
            .unwrap();
        assert_eq!(background.ended().unwrap(), None);
        processes.end_all();
        assert!(background.ended().unwrap().is_some());
        assert!(processes.outliving().is_empty());
        let refused = processes
            .run(Command::new("true").arg("x"), false)
            .err()
            .unwrap();
        assert_eq!(refused.code, "demo-interrupted");
    }

    #[test]
    fn a_command_gives_its_exit_and_both_streams() {
        let directory = tempfile::tempdir().unwrap();
        let processes = Processes::new(directory.path());
        let done = processes
            .run(
                Command::new("sh").args(["-c", "echo a; echo b >&2; exit 3"]),
                false,
            )
            .unwrap();
        assert_eq!((done.code, done.both().as_str()), (3, "a\nb\n"));
    }
}
