//! A sandbox that runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portcullis_model::Refusal;
use rustix::process::{Signal, pidfd_send_signal};
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use crate::plan::{Control, Report};
use crate::spec::{Spec, Terminal};
use crate::{Captured, Ending, Outcome, Protection, wire};

/// Longest that the supervisor gets to answer: more than it waits for the kernel to freeze a run, by
/// the cgroup and then by signals.
pub(crate) const ANSWER_PATIENCE: Duration = Duration::from_secs(6);
/// Longest that the supervisor of a killed run gets to clean up and report.
const REPORT_PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked whether the supervisor stands still.
const LOOK: Duration = Duration::from_secs(2);
/// The same once the run's first process is gone.
const GONE_LOOK: Duration = Duration::from_millis(100);
/// How many looks in a row may find the supervisor stopped: who stops a whole group of processes and
/// lets it go on may let it go on last, and who would freeze the run notices sooner.
const STOPPED_LOOKS: u32 = 7;

/// A running sandbox. All methods may be called from any thread, and at the same time; share it in
/// an `Arc`. Dropped, it is killed with everything in it.
pub struct Running {
    pub(crate) pid: i32,
    pub(crate) uid: u32,
    pub(crate) by: BTreeMap<Protection, String>,
    pub(crate) gaps: BTreeMap<Protection, String>,
    pub(crate) init: OwnedFd,
    pub(crate) listener: Option<TcpListener>,
    pub(crate) captured_listeners: Vec<TcpListener>,
    pub(crate) names: Option<UdpSocket>,
    pub(crate) master: Option<OwnedFd>,
    pub(crate) captured: Option<(OwnedFd, OwnedFd)>,
    pub(crate) cgroups: Vec<PathBuf>,
    pub(crate) control: Arc<UnixStream>,
    /// One question at a time.
    pub(crate) asking: Mutex<()>,
    /// Whether the supervisor owes an answer for too long. What it says later would be taken for the
    /// answer to another question, so it is asked nothing more until that came.
    pub(crate) silent: AtomicBool,
    /// Whether [`Self::kill`] was called.
    pub(crate) killed: AtomicBool,
    /// When the supervisor ends it.
    pub(crate) due: Option<Instant>,
    pub(crate) ended: Mutex<Ended>,
}

/// The sockets inside that a channel serves.
#[derive(Debug)]
pub struct Inlets {
    /// The channel's own listener, at 127.0.0.1.
    pub own: TcpListener,
    /// Listeners at every address.
    pub captured: Vec<TcpListener>,
    /// Where programs ask for names.
    pub names: Option<UdpSocket>,
}

/// What is known of the end, and what it is learnt from.
pub(crate) struct Ended {
    events: UnixStream,
    supervisor: Option<Child>,
    outcome: Option<Result<Outcome, Refusal>>,
    capture_bytes: u64,
    socket: Option<PathBuf>,
    /// The caller's terminal as it was, given back if the supervisor could not do it.
    terminal: Option<(OwnedFd, Termios)>,
}

/// What came of waiting for the supervisor's report.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// It reported, or was killed.
    Spoke,
    /// It reports nothing though the run was killed and its first process is gone.
    Killed,
    /// It let the deadline pass.
    Overdue,
    /// It does nothing.
    Stuck,
}

impl Running {
    pub(crate) fn not_ended(
        events: UnixStream,
        supervisor: Option<Child>,
        spec: &Spec,
        terminal: Option<(OwnedFd, Termios)>,
    ) -> Mutex<Ended> {
        Mutex::new(Ended {
            events,
            supervisor,
            outcome: None,
            capture_bytes: match spec.terminal {
                Terminal::Capture { max_bytes } => max_bytes,
                Terminal::Inherit | Terminal::Pty { .. } | Terminal::Log { .. } => 0,
            },
            socket: spec.expose.as_ref().map(|expose| expose.socket.clone()),
            terminal,
        })
    }

    /// Host pid of the sandbox's first process.
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// Host user id of the run.
    pub const fn uid(&self) -> u32 {
        self.uid
    }

    /// What protects it, and by which means: for the ledger.
    pub const fn protections(&self) -> &BTreeMap<Protection, String> {
        &self.by
    }

    /// Which of the allowed gaps are gaps in fact, and why: for the ledger.
    pub const fn gaps(&self) -> &BTreeMap<Protection, String> {
        &self.gaps
    }

    /// The channel's listener, bound inside at 127.0.0.1 on [`Spec::capture`]; a new handle on the
    /// same socket at each call. `None` where none was asked for.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn listener(&self) -> io::Result<Option<TcpListener>> {
        self.listener
            .as_ref()
            .map(TcpListener::try_clone)
            .transpose()
    }

    /// All that the channel serves inside: its own listener and, where [`Spec::captured`] names
    /// ports, the listeners at every address and the socket for names. New handles at each call.
    ///
    /// # Errors
    /// Out of descriptors. `NotFound` where the spec asked for no channel.
    pub fn inlets(&self) -> io::Result<Inlets> {
        Ok(Inlets {
            own: self.listener()?.ok_or(io::ErrorKind::NotFound)?,
            captured: self
                .captured_listeners
                .iter()
                .map(TcpListener::try_clone)
                .collect::<io::Result<_>>()?,
            names: self.names.as_ref().map(UdpSocket::try_clone).transpose()?,
        })
    }

    /// The master side of the pty, for [`Terminal::Pty`].
    pub fn terminal(&self) -> Option<PtyMaster<'_>> {
        self.master.as_ref().map(|master| PtyMaster(master.as_fd()))
    }

    /// Waits for the end: the command's own, the deadline, or a kill. By then nothing of the run
    /// is left: no process, mount, cgroup or socket.
    ///
    /// # Errors
    /// `sandbox-supervisor` where the supervisor did nothing any more, since somebody stopped it or it
    /// hangs: it was ended with all of the run, and how the command ended is not known. One that was
    /// killed counts as [`Ending::Killed`].
    pub fn wait(&self) -> Result<Outcome, Refusal> {
        let mut ended = lock(&self.ended);
        if let Some(outcome) = &ended.outcome {
            return outcome.clone();
        }
        let told = self.until_told(&mut ended);
        if told != Told::Spoke {
            self.kill();
            if let Some(supervisor) = &mut ended.supervisor {
                let _ = supervisor.kill();
            }
        }
        let outcome = match wire::receive::<Report>(&ended.events) {
            Ok(Some((report, _))) => Ok(self.outcome(&report, ended.capture_bytes)),
            // The supervisor was killed; the kernel has killed the rest with it.
            Ok(None) | Err(_) => {
                self.clean_up_after_supervisor(&mut ended);
                let ending = match told {
                    Told::Overdue => Ok(Ending::Deadline),
                    Told::Spoke | Told::Killed => Ok(Ending::Killed),
                    Told::Stuck => Err(stuck()),
                };
                ending.map(|ending| {
                    let report = Report {
                        ending,
                        stdout_bytes: 0,
                        stderr_bytes: 0,
                        memory_kills: 0,
                    };
                    self.outcome(&report, ended.capture_bytes)
                })
            }
        };
        if let Some(mut supervisor) = ended.supervisor.take() {
            let _ = supervisor.wait();
        }
        ended.outcome = Some(outcome.clone());
        outcome
    }

    fn outcome(&self, report: &Report, capture_bytes: u64) -> Outcome {
        Outcome {
            ending: report.ending,
            captured: self.read_captured(report, capture_bytes),
            memory_kills: report.memory_kills,
        }
    }

    /// Waits for the supervisor's report, or until it is clear that none will come.
    fn until_told(&self, ended: &mut Ended) -> Told {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut gone_since = None;
        let mut stopped_looks = 0_u32;
        loop {
            let gone = gone_since.is_some();
            let mut ready = vec![PollFd::new(&ended.events, PollFlags::IN)];
            if !gone {
                ready.push(PollFd::new(&self.init, PollFlags::IN));
            }
            let tick = if gone { GONE_LOOK } else { LOOK };
            let tick = rustix::time::Timespec::try_from(tick).ok();
            let polled = poll(&mut ready, tick.as_ref());
            let said = |place: usize| {
                ready
                    .get(place)
                    .is_some_and(|one| !one.revents().is_empty())
            };
            let (told, now_gone) = (said(0), said(1));
            drop(ready);
            match polled {
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return Told::Spoke,
                Ok(_) if told => return Told::Spoke,
                Ok(0) => {}
                Ok(_) if now_gone => gone_since = Some(Instant::now()),
                Ok(_) => {}
            }
            let now = Instant::now();
            let quiet = gone_since.is_some_and(|since| now - since > REPORT_PATIENCE);
            if quiet && self.killed.load(Ordering::Relaxed) {
                return Told::Killed;
            }
            if self.due.is_some_and(|due| now > due + ANSWER_PATIENCE) {
                return Told::Overdue;
            }
            if quiet {
                // It may still deliver the last of the output to somebody who takes it slowly.
                if !self.listens() {
                    return Told::Stuck;
                }
                gone_since = Some(Instant::now());
            }
            if !gone {
                let stopped = ended.supervisor.as_ref().is_some_and(is_stopped);
                stopped_looks = if stopped { stopped_looks + 1 } else { 0 };
                if stopped_looks > STOPPED_LOOKS {
                    return Told::Stuck;
                }
            }
        }
    }

    /// Whether the supervisor answers, or is about to report.
    fn listens(&self) -> bool {
        let _one = lock(&self.asking);
        if !self.owes_nothing(ANSWER_PATIENCE) {
            return false;
        }
        if wire::send(&self.control, &Control::Listening, &[]).is_err() {
            return true;
        }
        let answer = wire::receive::<Result<u64, String>>(&self.control);
        let silent = answer.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        self.silent.store(silent, Ordering::Relaxed);
        !silent
    }

    /// Whether the supervisor answered all that it was asked, or does so within `patience`. What it
    /// answers late is for nobody.
    fn owes_nothing(&self, patience: Duration) -> bool {
        use rustix::event::{PollFd, PollFlags, poll};
        if !self.silent.load(Ordering::Relaxed) {
            return true;
        }
        let patience = rustix::time::Timespec::try_from(patience).ok();
        let mut ready = [PollFd::new(&*self.control, PollFlags::IN)];
        let answered = poll(&mut ready, patience.as_ref()).is_ok_and(|count| count > 0)
            && !wire::receive::<Result<u64, String>>(&self.control)
                .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        self.silent.store(!answered, Ordering::Relaxed);
        answered
    }

    /// The outcome if it has ended.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn try_wait(&self) -> Result<Option<Outcome>, Refusal> {
        let ended = match self.ended.try_lock() {
            Ok(ended) => ended,
            // Another thread waits for it, so it hasn't.
            Err(std::sync::TryLockError::WouldBlock) => return Ok(None),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        };
        let known = ended.outcome.is_some();
        let mut ready = [rustix::event::PollFd::new(
            &ended.events,
            rustix::event::PollFlags::IN,
        )];
        let now = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let told = rustix::event::poll(&mut ready, Some(&now)).is_ok_and(|count| count > 0);
        drop(ended);
        if known || told {
            self.wait().map(Some)
        } else {
            Ok(None)
        }
    }

    /// Stops every process of the run where it is, until [`Self::thaw`]; the deadline goes on. By
    /// the cgroup freezer, else by `SIGSTOP` to all at once.
    ///
    /// # Errors
    /// `run-ended` when there is nothing to freeze; `sandbox-freeze` when the kernel didn't;
    /// `sandbox-supervisor` when the supervisor does not answer; until it has, it is asked nothing
    /// more. [`Self::kill`] needs it not.
    pub fn freeze(&self) -> Result<(), Refusal> {
        self.ask(Control::Freeze).map(drop)
    }

    /// Lets a frozen run go on.
    ///
    /// # Errors
    /// As [`Self::freeze`].
    pub fn thaw(&self) -> Result<(), Refusal> {
        self.ask(Control::Thaw).map(drop)
    }

    /// Sends a signal to the command's process group (15 asks it to end). Refused while frozen.
    ///
    /// # Errors
    /// As [`Self::freeze`].
    pub fn signal(&self, signal: i32) -> Result<(), Refusal> {
        self.ask(Control::Signal(signal)).map(drop)
    }

    /// The TCP connections of the run's own network that stand, each named once by its two ends.
    /// Compared before and after a freeze they tell which ones died meanwhile. Empty where the
    /// kernel does not tell.
    pub fn connections(&self) -> BTreeSet<String> {
        ["tcp", "tcp6"]
            .into_iter()
            .filter_map(|kind| fs::read_to_string(format!("/proc/{}/net/{kind}", self.pid)).ok())
            .flat_map(|table| established(&table))
            .collect()
    }

    /// How many processes were started inside so far, threads included: it tells that something
    /// was done. Refused while frozen.
    ///
    /// # Errors
    /// As [`Self::freeze`].
    pub fn processes_started(&self) -> Result<u64, Refusal> {
        self.ask(Control::Started)
    }

    /// Ends everything in it at once, frozen or not, orphans included. Needs neither the
    /// supervisor nor anybody inside, and returns without waiting.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
        // An error means that it has ended already.
        let _ = pidfd_send_signal(&self.init, Signal::KILL);
        // The supervisor learns that nobody waits for the last of the output.
        let _ = self.control.shutdown(std::net::Shutdown::Both);
    }

    fn ask(&self, order: Control) -> Result<u64, Refusal> {
        let _one = lock(&self.asking);
        let control = &self.control;
        let ended = || Refusal::conflict("run-ended", "the run has ended");
        if !self.owes_nothing(Duration::ZERO) {
            return Err(silent());
        }
        wire::send(control, &order, &[]).map_err(|_| ended())?;
        match wire::receive::<Result<u64, String>>(control) {
            Ok(Some((Ok(number), _))) => Ok(number),
            Ok(Some((Err(why), _))) => Err(Refusal::unavailable(
                "sandbox-freeze",
                "the run did not do what it was told to",
            )
            .received(&why)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.is_gone() => {
                self.silent.store(true, Ordering::Relaxed);
                Err(silent())
            }
            Ok(None) | Err(_) => Err(ended()),
        }
    }

    /// Whether the sandbox's first process has ended.
    fn is_gone(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, poll};
        let now = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut ready = [PollFd::new(&self.init, PollFlags::IN)];
        poll(&mut ready, Some(&now)).is_ok_and(|count| count > 0)
    }

    fn read_captured(&self, report: &Report, most: u64) -> Option<Captured> {
        let (stdout, stderr) = self.captured.as_ref()?;
        let read = |descriptor: &OwnedFd| -> io::Result<Vec<u8>> {
            let file = File::from(descriptor.try_clone()?);
            let length = file.metadata()?.len().min(most);
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            file.read_exact_at(&mut bytes, 0)?;
            Ok(bytes)
        };
        let (stdout, stderr) = (
            read(stdout).unwrap_or_default(),
            read(stderr).unwrap_or_default(),
        );
        Some(Captured {
            stdout_bytes: report.stdout_bytes.max(stdout.len() as u64),
            stderr_bytes: report.stderr_bytes.max(stderr.len() as u64),
            stdout,
            stderr,
        })
    }

    /// What a supervisor does that nobody killed.
    fn clean_up_after_supervisor(&self, ended: &mut Ended) {
        self.kill();
        let mut ready = [rustix::event::PollFd::new(
            &self.init,
            rustix::event::PollFlags::IN,
        )];
        let patience = rustix::time::Timespec {
            tv_sec: 5,
            tv_nsec: 0,
        };
        let _ = rustix::event::poll(&mut ready, Some(&patience));
        for directory in &self.cgroups {
            crate::sys::wait_until(Duration::from_secs(1), || {
                fs::remove_dir(directory).is_ok() || !directory.exists()
            });
        }
        if let Some(socket) = &ended.socket {
            let _ = fs::remove_file(socket);
        }
        if let Some((terminal, before)) = ended.terminal.take() {
            let _ = tcsetattr(&terminal, OptionalActions::Now, &before);
        }
    }
}

/// Whether somebody stopped a process, or traces it and holds it.
fn is_stopped(process: &Child) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap_or_default();
    // The name before it may hold anything.
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
}

fn stuck() -> Refusal {
    silent()
        .expected("its report of how the run ended")
        .received("nothing: it was ended with all of the run")
}

fn silent() -> Refusal {
    Refusal::unavailable(
        "sandbox-supervisor",
        "the sandbox's supervisor does not answer",
    )
    .expected("an answer within six seconds")
    .received("nothing")
    .next("look whether somebody stopped it, or whether the machine is out of memory")
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        // Reaps the supervisor, which cleans up first.
        let _ = self.wait();
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("pid", &self.pid)
            .field("uid", &self.uid)
            .field("gaps", &self.gaps)
            .finish_non_exhaustive()
    }
}

/// Both ends of each established connection in a table of `/proc/net`, the lesser first, so that a
/// connection within the network, which is there twice, counts once.
fn established(table: &str) -> Vec<String> {
    const ESTABLISHED: &str = "01";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace().skip(1);
            let (near, far, state) = (words.next()?, words.next()?, words.next()?);
            let (first, second) = (near.min(far), near.max(far));
            (state == ESTABLISHED).then(|| format!("{first}-{second}"))
        })
        .collect()
}

/// The caller's terminal and its settings, before the supervisor changes them.
pub(crate) fn callers_terminal(spec: &Spec) -> Option<(OwnedFd, Termios)> {
    if spec.terminal != Terminal::Inherit {
        return None;
    }
    [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ]
    .into_iter()
    .find_map(|descriptor| {
        let settings = tcgetattr(descriptor).ok()?;
        Some((descriptor.try_clone_to_owned().ok()?, settings))
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The master side of a run's pty: what is written to it is typed, what is read from it is shown.
#[derive(Clone, Copy, Debug)]
pub struct PtyMaster<'run>(BorrowedFd<'run>);

impl PtyMaster<'_> {
    /// Tells the programs inside a new size.
    ///
    /// # Errors
    /// The run has ended.
    pub fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(tcsetwinsize(self.0, size)?)
    }

    /// A handle of its own, to read and write. Reading fails or ends when the run has ended.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn file(&self) -> io::Result<File> {
        Ok(File::from(self.0.try_clone_to_owned()?))
    }
}
