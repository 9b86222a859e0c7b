//! Processes: run to their end within a bound, or in the background and ended by their id.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::PATIENCE;

/// What a process did.
#[derive(Clone)]
pub(crate) struct Done {
    /// Exit status, or 128 and the signal's number.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
    what: String,
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}\n  exit {}\n  out: {}\n  err: {}",
            self.what, self.code, self.out, self.err
        )
    }
}

impl Done {
    /// It did what was asked.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// It ended with this status.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// Both streams, output first.
    pub(crate) fn both(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    /// Its result.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The refusal that it ended with.
    #[track_caller]
    pub(crate) fn refusal(&self) -> Value {
        assert_ne!(self.code, 0, "{self:?}");
        // Before it stands what a person was told on the way.
        let at = self
            .err
            .rfind("\n{\n")
            .map(|at| at + 1)
            .or_else(|| self.err.find("{\n"));
        let text = at.and_then(|at| self.err.get(at..)).unwrap_or_default();
        serde_json::from_str(text).unwrap_or_else(|error| panic!("no refusal ({error}): {self:?}"))
    }

    /// Refused with this code.
    #[track_caller]
    pub(crate) fn refused(&self, code: &str) -> Value {
        let refusal = self.refusal();
        assert_eq!(refusal["code"], code, "{self:?}");
        refusal
    }
}

/// Runs a command to its end.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Done {
    let what = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let out = reader(child.stdout.take().unwrap());
    let err = reader(child.stderr.take().unwrap());
    let status = wait(&mut child, PATIENCE).unwrap_or_else(|| {
        let _ = child.kill();
        let _ = child.wait();
        panic!("{what}: not done after {PATIENCE:?}");
    });
    Done {
        code: code(status),
        out: out.join().unwrap(),
        err: err.join().unwrap(),
        what,
    }
}

fn reader(mut stream: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let since = Instant::now();
    while since.elapsed() < patience {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
}

/// A process in the background; dropped, it is killed by its id.
pub(crate) struct Background {
    child: Mutex<Child>,
    out: PathBuf,
    err: PathBuf,
    what: String,
}

impl Background {
    /// Starts it; both streams go to files in `folder`.
    pub(crate) fn start(command: &mut Command, folder: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = |stream: &str| folder.join(format!("background-{number}.{stream}"));
        let (out, err) = (path("out"), path("err"));
        let what = format!("{command:?}");
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&err).unwrap())
            .spawn()
            .unwrap();
        Self {
            child: Mutex::new(child),
            out,
            err,
            what,
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// Standard output so far.
    pub(crate) fn out(&self) -> String {
        read(&self.out)
    }

    /// Both streams so far, output first.
    pub(crate) fn both(&self) -> String {
        format!("{}{}", read(&self.out), read(&self.err))
    }

    /// Its exit status, if it ended.
    pub(crate) fn ended(&self) -> Option<i32> {
        self.child.lock().unwrap().try_wait().unwrap().map(code)
    }

    /// `kill -9`.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&self, patience: Duration) -> Done {
        let ended = wait(&mut self.child.lock().unwrap(), patience);
        let Some(status) = ended else {
            panic!(
                "{}: not done after {patience:?}\n{}",
                self.what,
                self.both()
            );
        };
        Done {
            code: code(status),
            out: read(&self.out),
            err: read(&self.err),
            what: self.what.clone(),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let Ok(child) = self.child.get_mut() else {
            return;
        };
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
