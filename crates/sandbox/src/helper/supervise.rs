//! Outside of the sandbox: makes it, relays for it, keeps its deadline, cleans up after it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use portcullis_model::Refusal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, OFlags, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, WaitOptions, getegid, geteuid, kill_process,
    pidfd_open, set_dumpable_behavior, waitpid,
};
use rustix::termios::{
    OptionalActions, Termios, Winsize, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::bridge::{Namespaces, Socket};
use super::cgroup::Cgroups;
use super::init::{self, FromInit, ToInit, World};
use super::relay::{Log, Pump, Sink, nonblocking, unblocked};
use super::root::Sources;
use super::{Inherited, probe};
use crate::plan::{Answer, Control, Os, Plan, PlanTerminal, Report};
use crate::spec::{AGENT_GID, AGENT_UID, RunAs};
use crate::sys::{self, Fork, SingleThreaded};
use crate::{Ending, Protection, wire};

/// First user id for runs of root callers that name none; the supervisor's pid is added, so two
/// runs at a time never share one. Above what distributions and container managers give out.
const OWN_USERS_FROM: u32 = 0x7000_0000;

/// Longest that init may take over an answer; below what the caller waits for its own.
const INIT_PATIENCE: Duration = Duration::from_secs(20);

/// Builds, starts, watches, cleans up. An error means that nothing runs and nothing is left.
pub(super) fn run(
    single: SingleThreaded,
    plan: &Plan,
    control: &UnixStream,
    inherited: Inherited,
) -> Result<(), Refusal> {
    let signals = [
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGWINCH,
    ];
    let signals = sys::signal_descriptor(&signals).map_err(broken("signals"))?;
    for ignored in [libc::SIGTTOU, libc::SIGTTIN, libc::SIGTSTP] {
        sys::ignore(ignored);
    }
    let run_as = user_of_run(plan)?;
    let cgroups = Cgroups::create(&plan.limits);
    let by = protections(plan, &cgroups)?;
    let socket = plan.expose.as_ref().map(Socket::bind).transpose()?;
    let mut stdio = Stdio::of(plan, inherited.stdio)?;
    let sources = run_as
        .map(|run_as| Sources::open(plan, Some((single, run_as))))
        .transpose()?;
    let (near, far) = UnixStream::pair().map_err(broken("socket"))?;
    let world = World {
        plan,
        sources,
        stdio: std::mem::take(&mut stdio.inside),
        by_cgroup: cgroups.by.keys().copied().collect(),
    };
    let namespaces = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    let init = match cgroups.fork(single, namespaces) {
        Ok(Fork::Child) => {
            drop(near);
            // The outside's descriptors are none of its business.
            drop((stdio, inherited.events, inherited.caller, signals));
            // Dropping these would remove what the supervisor has made.
            std::mem::forget((cgroups, socket));
            init::run(single, world, &far)
        }
        Ok(Fork::Parent(pid)) => pid,
        Err(error) => return Err(namespaces_refused(single, &error)),
    };
    drop((far, world));
    let init = Init::new(init, near)?;
    map_ids(init.pid, run_as)
        .map_err(|error| Protection::UserNamespace.missing(&error.to_string()))?;
    // Not before: the maps of a process that isn't dumpable belong to root.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(broken("dumpable"))?;
    let namespaces = Namespaces::of(init.pid).map_err(broken("namespaces"))?;
    let (gaps, mut handles) = init.built()?;
    let listener = plan
        .capture
        .is_some()
        .then(|| take_first(&mut handles))
        .flatten();
    let bridge = match (&socket, &plan.expose) {
        (Some(socket), Some(expose)) => Some(Bridge(
            socket
                .serve(single, &namespaces, expose.inside_port)
                .map_err(broken("bridge"))?,
        )),
        (None, _) | (_, None) => None,
    };
    let master = stdio.attach(plan, handles)?;
    let deadline = deadline(plan.deadline_ms)?;
    init.start()?;
    let mut answered = gaps.into_iter().collect::<BTreeMap<_, _>>();
    answered.extend(gaps_found(plan, &by));
    let answer = Answer::Started {
        pid: init.pid.as_raw_pid(),
        uid: run_as.map_or(geteuid().as_raw(), |run_as| run_as.uid),
        by: by
            .into_iter()
            .filter_map(|(one, found)| Some((one, found.ok()?)))
            .collect(),
        gaps: answered,
        listener: listener.is_some(),
        master: master.is_some(),
        captured: !stdio.captured.is_empty(),
        cgroups: cgroups.directories().iter().map(Os::of).collect(),
    };
    let descriptors: Vec<BorrowedFd<'_>> = [init.pidfd.as_fd()]
        .into_iter()
        .chain(listener.as_ref().map(AsFd::as_fd))
        .chain(master.as_ref().map(AsFd::as_fd))
        .chain(stdio.captured.iter().map(AsFd::as_fd))
        .collect();
    wire::send(control, &answer, &descriptors).map_err(broken("caller"))?;
    drop((listener, master, namespaces));
    let mut watch = Watch {
        init,
        cgroups,
        stdio,
        control,
        caller: inherited.caller,
        signals,
        deadline,
        by_us: None,
        by_itself: None,
        frozen: false,
        hurry: false,
    };
    let ending = watch.until_the_end();
    let report = Report {
        ending,
        stdout_bytes: watch.stdio.seen(0),
        stderr_bytes: watch.stdio.seen(1),
        memory_kills: watch.cgroups.memory_kills(),
    };
    // All that is visible outside goes before the end is told.
    drop(watch);
    drop(bridge);
    drop(socket);
    let _ = wire::send(&inherited.events, &report, &[]);
    Ok(())
}

fn broken<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> Refusal {
    move |error| {
        Refusal::unavailable("sandbox-step", format!("the sandbox can't start: {what}"))
            .received(&error.into().to_string())
    }
}

fn take_first<T>(list: &mut Vec<T>) -> Option<T> {
    (!list.is_empty()).then(|| list.remove(0))
}

/// The host user of the run: `None` for an ordinary caller's own.
fn user_of_run(plan: &Plan) -> Result<Option<RunAs>, Refusal> {
    let denied = |message: &str| Err(Refusal::denied("sandbox-own-user", message));
    if probe::privileged() {
        let own = std::process::id().saturating_add(OWN_USERS_FROM);
        let run_as = plan.run_as.unwrap_or(RunAs { uid: own, gid: own });
        if run_as.uid == 0 || run_as.gid == 0 {
            return denied("a run never has the host's root as its user");
        }
        return Ok(Some(run_as));
    }
    if plan
        .run_as
        .is_some_and(|run_as| (run_as.uid, run_as.gid) != (geteuid().as_raw(), getegid().as_raw()))
    {
        return denied("only root can give a run another user");
    }
    if geteuid().is_root() && !plan.allowed_gaps.contains(&Protection::OwnUser) {
        return Err(
            Protection::OwnUser.missing("root without CAP_SYS_ADMIN, CAP_SETUID and CAP_SETGID")
        );
    }
    Ok(None)
}

/// Protections that are missing by leave, and why.
type Gaps = Vec<(Protection, String)>;
type Found = BTreeMap<Protection, Result<String, String>>;

/// What can be known before the start; the rest is known by doing it.
fn protections(plan: &Plan, cgroups: &Cgroups) -> Result<Found, Refusal> {
    let mut found = Found::new();
    for protection in Protection::ALL {
        let result = match protection {
            Protection::Landlock => super::landlock::available()
                .map(|version| format!("version {version}"))
                .map_err(|error| error.to_string()),
            Protection::Seccomp => sys::seccomp_available()
                .map(|()| "filter".to_owned())
                .map_err(|error| error.to_string()),
            Protection::CpuLimit if plan.limits.cpu_percent.is_none() => continue,
            Protection::ProcessLimit | Protection::MemoryLimit | Protection::CpuLimit => {
                probe::limit(protection, cgroups)
            }
            Protection::OwnUser => {
                if geteuid().is_root() && !probe::privileged() {
                    Err("root without its capabilities".to_owned())
                } else {
                    Ok("user id".to_owned())
                }
            }
            Protection::NoNewPrivileges => Ok("prctl".to_owned()),
            Protection::UserNamespace
            | Protection::MountNamespace
            | Protection::PidNamespace
            | Protection::NetworkNamespace
            | Protection::IpcNamespace
            | Protection::UtsNamespace
            | Protection::CgroupNamespace => Ok("namespace".to_owned()),
        };
        if let Err(why) = &result
            && !plan.allowed_gaps.contains(&protection)
        {
            return Err(protection.missing(why));
        }
        found.insert(protection, result);
    }
    Ok(found)
}

fn gaps_found(plan: &Plan, found: &Found) -> BTreeMap<Protection, String> {
    found
        .iter()
        .filter(|(protection, _)| plan.allowed_gaps.contains(protection))
        .filter_map(|(protection, result)| Some((*protection, result.as_ref().err()?.clone())))
        .collect()
}

/// Says which of the namespaces it was, by trying each.
fn namespaces_refused(single: SingleThreaded, error: &io::Error) -> Refusal {
    probe::all(single)
        .into_iter()
        .find_map(|probed| Some(probed.protection.missing(&probed.found.err()?)))
        .unwrap_or_else(|| Protection::UserNamespace.missing(&error.to_string()))
}

fn map_ids(init: Pid, run_as: Option<RunAs>) -> io::Result<()> {
    let file = |name: &str| format!("/proc/{}/{name}", init.as_raw_pid());
    let ids = run_as.unwrap_or(RunAs {
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
    });
    if run_as.is_none() {
        // Without rights over groups the kernel asks for this first.
        fs::write(file("setgroups"), "deny")?;
    }
    fs::write(file("uid_map"), format!("{AGENT_UID} {} 1\n", ids.uid))?;
    fs::write(file("gid_map"), format!("{AGENT_GID} {} 1\n", ids.gid))
}

/// A timer in boot time, so that a machine that slept doesn't lengthen the run.
fn deadline(deadline_ms: Option<u64>) -> Result<Option<OwnedFd>, Refusal> {
    let Some(deadline_ms) = deadline_ms else {
        return Ok(None);
    };
    let timer = timerfd_create(
        TimerfdClockId::Boottime,
        TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
    )
    .map_err(broken("timer"))?;
    let zero = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let at = Timespec {
        tv_sec: i64::try_from(deadline_ms / 1000).unwrap_or(i64::MAX),
        // A timer of zero would never fire.
        tv_nsec: i64::try_from(deadline_ms % 1000).unwrap_or(0) * 1_000_000
            + i64::from(deadline_ms == 0),
    };
    let once = Itimerspec {
        it_interval: zero,
        it_value: at,
    };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once).map_err(broken("timer"))?;
    Ok(Some(timer))
}

/// The first process inside, as seen from outside. Dropped, it is killed and waited for.
struct Init {
    pid: Pid,
    pidfd: OwnedFd,
    socket: UnixStream,
}

impl Init {
    fn new(pid: Pid, socket: UnixStream) -> Result<Self, Refusal> {
        let patient = socket.set_read_timeout(Some(INIT_PATIENCE));
        match patient.and_then(|()| Ok(pidfd_open(pid, PidfdFlags::empty())?)) {
            Ok(pidfd) => Ok(Self { pid, pidfd, socket }),
            Err(error) => {
                let _ = kill_process(pid, Signal::KILL);
                let _ = waitpid(Some(pid), WaitOptions::empty());
                Err(broken("pidfd")(error))
            }
        }
    }

    fn ask(&self, order: &ToInit) -> Result<(FromInit, Vec<OwnedFd>), Refusal> {
        let gone = || {
            Refusal::unavailable(
                "sandbox-init",
                "the sandbox's first process ended before it answered",
            )
            .next("look for an out-of-memory kill or a process limit in the kernel's log")
        };
        wire::send(&self.socket, order, &[]).map_err(|_| gone())?;
        match wire::receive(&self.socket) {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) | Err(_) => Err(gone()),
        }
    }

    fn built(&self) -> Result<(Gaps, Vec<OwnedFd>), Refusal> {
        match self.ask(&ToInit::Build)? {
            (FromInit::Built { gaps }, handles) => Ok((gaps, handles)),
            (FromInit::Refused(refusal), _) => Err(refusal),
            (
                FromInit::Started
                | FromInit::Done(_)
                | FromInit::Exited(_)
                | FromInit::Signalled(_),
                _,
            ) => Err(out_of_turn()),
        }
    }

    fn start(&self) -> Result<(), Refusal> {
        match self.ask(&ToInit::Start)?.0 {
            FromInit::Started => Ok(()),
            FromInit::Refused(refusal) => Err(refusal),
            FromInit::Built { .. }
            | FromInit::Done(_)
            | FromInit::Exited(_)
            | FromInit::Signalled(_) => Err(out_of_turn()),
        }
    }

    fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        self.kill();
        // Returns when the last process inside is gone.
        let _ = waitpid(Some(self.pid), WaitOptions::empty());
    }
}

fn out_of_turn() -> Refusal {
    Refusal::internal("the sandbox's first process spoke out of turn")
}

/// The bridge's process; killed when dropped.
struct Bridge(Pid);

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
        let _ = waitpid(Some(self.0), WaitOptions::empty());
    }
}

/// Both ends of the command's input and output.
#[derive(Default)]
struct Stdio {
    /// What the command gets; `None`: the pty.
    inside: [Option<OwnedFd>; 3],
    pumps: Vec<Pump>,
    captured: Vec<OwnedFd>,
    /// The caller's terminal, whose settings are given back at the end.
    terminal: Option<CallersTerminal>,
    /// Held so that the pty stays open while programs inside open and close it.
    slave: Option<OwnedFd>,
    master: Option<OwnedFd>,
    outer: Vec<OwnedFd>,
}

impl Stdio {
    fn of(plan: &Plan, outer: Vec<OwnedFd>) -> Result<Self, Refusal> {
        let mut stdio = Self::default();
        match &plan.terminal {
            PlanTerminal::Inherit => stdio.inherit(outer).map_err(broken("input and output"))?,
            PlanTerminal::Pty { .. } => {}
            PlanTerminal::Capture { max_bytes } => {
                let sink = |captured: &mut Vec<OwnedFd>| {
                    let file = File::from(memfd_create("captured", MemfdFlags::CLOEXEC)?);
                    captured.push(file.try_clone()?.into());
                    Ok(Sink::Memory {
                        file,
                        most: *max_bytes,
                        seen: 0,
                    })
                };
                stdio.output_only(sink).map_err(broken("output"))?;
            }
            PlanTerminal::Log { path, max_bytes } => {
                let log = Log::open(path.to_path(), *max_bytes).map_err(broken("log"))?;
                let sink = |_: &mut Vec<OwnedFd>| Ok(Sink::Log(log.again()?));
                stdio.output_only(sink).map_err(broken("output"))?;
            }
        }
        Ok(stdio)
    }

    fn output_only(
        &mut self,
        sink: impl Fn(&mut Vec<OwnedFd>) -> io::Result<Sink>,
    ) -> io::Result<()> {
        let null = File::open("/dev/null")?;
        let mut outputs = Vec::new();
        for _ in 0..2 {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            nonblocking(&reader)?;
            let sink = sink(&mut self.captured)?;
            self.pumps.push(Pump::outward(reader, sink));
            outputs.push(writer);
        }
        let mut outputs = outputs.into_iter();
        self.inside = [Some(null.into()), outputs.next(), outputs.next()];
        Ok(())
    }

    /// A pipe for each of the caller's three that isn't a terminal.
    fn inherit(&mut self, outer: Vec<OwnedFd>) -> io::Result<()> {
        for (place, (descriptor, slot)) in outer.into_iter().zip(&mut self.inside).enumerate() {
            if isatty(&descriptor) {
                self.outer.push(descriptor);
                continue;
            }
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            if place == 0 {
                nonblocking(&writer)?;
                let (from, _) = unblocked(descriptor, OFlags::RDONLY);
                let to = Sink::Descriptor {
                    to: writer,
                    blocking: false,
                };
                self.pumps.push(Pump::inward(from, to));
                *slot = Some(reader);
            } else {
                nonblocking(&reader)?;
                let (to, blocking) = unblocked(descriptor, OFlags::WRONLY);
                self.pumps
                    .push(Pump::outward(reader, Sink::Descriptor { to, blocking }));
                *slot = Some(writer);
            }
        }
        Ok(())
    }

    /// Takes over the pty that init opened; returns the master where the caller is to hold it.
    fn attach(&mut self, plan: &Plan, handles: Vec<OwnedFd>) -> Result<Option<OwnedFd>, Refusal> {
        let mut handles = handles.into_iter();
        let (Some(master), slave) = (handles.next(), handles.next()) else {
            return Ok(None);
        };
        self.slave = slave;
        match &plan.terminal {
            PlanTerminal::Pty { rows, columns } => {
                let size = Winsize {
                    ws_row: *rows,
                    ws_col: *columns,
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                };
                tcsetwinsize(&master, size).map_err(broken("terminal size"))?;
                Ok(Some(master))
            }
            PlanTerminal::Inherit => {
                self.mirror(master).map_err(broken("terminal"))?;
                Ok(None)
            }
            PlanTerminal::Capture { .. } | PlanTerminal::Log { .. } => Ok(None),
        }
    }

    /// Joins the caller's terminal to the pty.
    fn mirror(&mut self, master: OwnedFd) -> io::Result<()> {
        let Some(outer) = take_first(&mut self.outer) else {
            return Ok(());
        };
        nonblocking(&master)?;
        // One terminal stands behind all three, as a rule; the first is read and written.
        let (reader, _) = unblocked(outer.try_clone()?, OFlags::RDONLY);
        let (writer, blocking) = unblocked(outer.try_clone()?, OFlags::WRONLY);
        let to_inside = Sink::Descriptor {
            to: master.try_clone()?,
            blocking: false,
        };
        let to_outside = Sink::Descriptor {
            to: writer,
            blocking,
        };
        self.pumps.push(Pump::inward(reader, to_inside));
        self.pumps
            .push(Pump::outward(master.try_clone()?, to_outside));
        self.terminal = Some(CallersTerminal::raw(outer)?);
        self.master = Some(master);
        self.resize();
        Ok(())
    }

    /// Gives the pty the size of the caller's terminal.
    fn resize(&self) {
        if let (Some(master), Some(terminal)) = (&self.master, &self.terminal)
            && let Ok(size) = tcgetwinsize(&terminal.descriptor)
        {
            // The kernel tells the programs inside.
            let _ = tcsetwinsize(master, size);
        }
    }

    fn seen(&self, output: usize) -> u64 {
        self.pumps.get(output).map_or(0, Pump::seen)
    }
}

/// The caller's terminal in raw mode; dropped, it is as it was.
struct CallersTerminal {
    descriptor: OwnedFd,
    before: Termios,
}

impl CallersTerminal {
    fn raw(descriptor: OwnedFd) -> io::Result<Self> {
        let before = tcgetattr(&descriptor)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&descriptor, OptionalActions::Drain, &raw)?;
        Ok(Self { descriptor, before })
    }
}

impl Drop for CallersTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.descriptor, OptionalActions::Drain, &self.before);
    }
}

/// The loop.
struct Watch<'run> {
    init: Init,
    cgroups: Cgroups,
    stdio: Stdio,
    control: &'run UnixStream,
    caller: OwnedFd,
    signals: OwnedFd,
    deadline: Option<OwnedFd>,
    /// Why we ended it, if we did.
    by_us: Option<Ending>,
    /// How the command ended, if it did.
    by_itself: Option<Ending>,
    /// Whether init is frozen with the rest, so that it can't be spoken to.
    frozen: bool,
    /// Whether somebody wants the end now.
    hurry: bool,
}

/// What a poll said, by place in the list of fixed descriptors.
#[derive(Clone, Copy)]
enum Source {
    InitEnded,
    InitSpoke,
    Control,
    Caller,
    Signal,
    Deadline,
}

impl Watch<'_> {
    fn until_the_end(&mut self) -> Ending {
        let mut init_lives = true;
        let mut init_speaks = true;
        loop {
            let (sources, pumps) = self.poll(init_lives, init_speaks);
            for source in sources {
                match source {
                    Source::InitEnded => init_lives = false,
                    Source::InitSpoke => init_speaks = self.hear_init(),
                    Source::Control => self.obey(),
                    Source::Caller => self.end(Ending::Killed),
                    Source::Signal => self.pass_signals(),
                    Source::Deadline => self.end(Ending::Deadline),
                }
            }
            for (pump, ready) in self.stdio.pumps.iter_mut().zip(pumps) {
                pump.turn(ready, !init_lives);
            }
            // What the command wrote last is delivered, unless somebody wants the end now and
            // nobody takes it.
            let owed = |pump: &Pump| pump.is_owed() && !(self.hurry && pump.can_block());
            let delivered = !self.stdio.pumps.iter().any(owed);
            if !init_lives && delivered {
                if init_speaks {
                    self.hear_init();
                }
                return self.by_us.or(self.by_itself).unwrap_or(Ending::Killed);
            }
        }
    }

    /// Waits; says which of the fixed sources and which of the pumps are ready.
    fn poll(&self, init_lives: bool, init_speaks: bool) -> (Vec<Source>, Vec<bool>) {
        let pumps = &self.stdio.pumps;
        let mut sources = vec![(Source::Signal, self.signals.as_fd())];
        if !self.hurry {
            sources.push((Source::Control, self.control.as_fd()));
            sources.push((Source::Caller, self.caller.as_fd()));
        }
        if init_lives {
            sources.push((Source::InitEnded, self.init.pidfd.as_fd()));
        }
        if init_speaks {
            sources.push((Source::InitSpoke, self.init.socket.as_fd()));
        }
        if let Some(deadline) = &self.deadline {
            sources.push((Source::Deadline, deadline.as_fd()));
        }
        let interests: Vec<_> = pumps.iter().map(Pump::interest).collect();
        let mut polled: Vec<PollFd<'_>> = sources
            .iter()
            .map(|(_, descriptor)| (*descriptor, PollFlags::IN))
            .chain(interests.iter().flatten().copied())
            .map(|(descriptor, flags)| PollFd::from_borrowed_fd(descriptor, flags))
            .collect();
        // With nobody left inside, what is there to read is read without waiting for it.
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let unread = pumps.iter().any(|pump| pump.is_owed() && pump.reads());
        let patience = (!init_lives && unread).then_some(&now);
        if poll(&mut polled, patience).is_err() {
            return (Vec::new(), vec![false; pumps.len()]);
        }
        let mut answers = polled.iter().map(|polled| !polled.revents().is_empty());
        let ready = sources
            .iter()
            .zip(answers.by_ref().take(sources.len()).collect::<Vec<_>>())
            .filter_map(|((source, _), ready)| ready.then_some(*source))
            .collect();
        let pumps = interests
            .iter()
            .map(|interest| interest.is_some() && answers.next().unwrap_or(false))
            .collect();
        (ready, pumps)
    }

    /// Ends everything, for the first reason that comes.
    fn end(&mut self, ending: Ending) {
        if self.by_itself.is_none() {
            self.by_us.get_or_insert(ending);
        }
        self.hurry = true;
        self.deadline = None;
        self.init.kill();
    }

    /// Whether it may speak again.
    fn hear_init(&mut self) -> bool {
        match wire::receive::<FromInit>(&self.init.socket) {
            Ok(Some((FromInit::Exited(code), _))) => {
                self.by_itself = Some(Ending::Exited { code });
                true
            }
            Ok(Some((FromInit::Signalled(signal), _))) => {
                self.by_itself = Some(Ending::Signalled { signal });
                true
            }
            Ok(Some((FromInit::Refused(_), _))) | Ok(None) | Err(_) => false,
            Ok(Some((FromInit::Built { .. } | FromInit::Started | FromInit::Done(_), _))) => true,
        }
    }

    fn obey(&mut self) {
        match wire::receive::<Control>(self.control) {
            Ok(Some((order, _))) => {
                let done = self.carry_out(order);
                // A caller that is gone by now is noticed by its pidfd.
                let _ = wire::send(self.control, &done, &[]);
            }
            // The caller let go of it.
            Ok(None) | Err(_) => self.end(Ending::Killed),
        }
    }

    fn carry_out(&mut self, order: Control) -> Result<(), String> {
        let frozen = match order {
            Control::Freeze => true,
            Control::Thaw => false,
            Control::Signal(number) => return self.through_init(&ToInit::Signal(number)),
        };
        if let Some(result) = self.cgroups.freeze(frozen) {
            self.frozen = frozen;
            return result.map_err(|error| error.to_string());
        }
        self.through_init(if frozen {
            &ToInit::Stop
        } else {
            &ToInit::Continue
        })
    }

    fn through_init(&mut self, order: &ToInit) -> Result<(), String> {
        if self.frozen {
            return Err("the run is frozen".to_owned());
        }
        wire::send(&self.init.socket, order, &[]).map_err(|error| error.to_string())?;
        loop {
            match wire::receive::<FromInit>(&self.init.socket) {
                Ok(Some((FromInit::Done(done), _))) => return done,
                Ok(Some((FromInit::Exited(code), _))) => {
                    self.by_itself = Some(Ending::Exited { code });
                }
                Ok(Some((FromInit::Signalled(signal), _))) => {
                    self.by_itself = Some(Ending::Signalled { signal });
                }
                Ok(Some((
                    FromInit::Built { .. } | FromInit::Started | FromInit::Refused(_),
                    _,
                )))
                | Ok(None)
                | Err(_) => return Err("the run has ended".to_owned()),
            }
        }
    }

    /// Signals that a terminal or a person sent to the launcher's group.
    fn pass_signals(&mut self) {
        // `struct signalfd_siginfo`: 128 bytes, the number first.
        let mut buffer = [0_u8; 128];
        while let Ok(128) = rustix::io::read(&self.signals, &mut buffer) {
            let [a, b, c, d, ..] = buffer;
            let number = i32::from_ne_bytes([a, b, c, d]);
            if number == libc::SIGWINCH {
                self.stdio.resize();
            } else {
                // A run that is ending anyway needs no signal.
                let _ = self.through_init(&ToInit::Signal(number));
            }
        }
    }
}
