//! Outside of the sandbox: makes it, relays for it, keeps its deadline, cleans up after it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use portcullis_model::Refusal;
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, WaitOptions, getegid, geteuid, kill_process,
    pidfd_open, set_dumpable_behavior, waitpid,
};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::bridge::{Namespaces, Socket};
use super::cgroup::Cgroups;
use super::init::{self, FromInit, ToInit, World};
use super::root::Sources;
use super::stdio::Stdio;
use super::watch::Watch;
use super::{Inherited, network, probe};
use crate::plan::{Answer, Os, Plan, Report};
use crate::spec::{AGENT_GID, AGENT_UID, RunAs};
use crate::sys::{self, Fork, SingleThreaded};
use crate::{Protection, wire};

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
    let built = init.built()?;
    let (listeners, handles) = (built.inlets, built.rest);
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
    let mut answered = built.gaps.into_iter().collect::<BTreeMap<_, _>>();
    answered.extend(gaps_found(plan, &by));
    let answer = Answer::Started {
        pid: init.pid.as_raw_pid(),
        uid: run_as.map_or(geteuid().as_raw(), |run_as| run_as.uid),
        by: by
            .into_iter()
            .filter(|(one, _)| !answered.contains_key(one))
            .filter_map(|(one, found)| Some((one, found.ok()?)))
            .collect(),
        gaps: answered,
        listeners: listeners.len(),
        master: master.is_some(),
        captured: !stdio.captured.is_empty(),
        cgroups: cgroups.directories().iter().map(Os::of).collect(),
    };
    let descriptors: Vec<BorrowedFd<'_>> = [init.pidfd.as_fd()]
        .into_iter()
        .chain(listeners.iter().map(AsFd::as_fd))
        .chain(master.as_ref().map(AsFd::as_fd))
        .chain(stdio.captured.iter().map(AsFd::as_fd))
        .collect();
    wire::send(control, &answer, &descriptors).map_err(broken("caller"))?;
    drop((listeners, master, namespaces));
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

pub(super) fn broken<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> Refusal {
    move |error| {
        Refusal::unavailable("sandbox-step", format!("the sandbox can't start: {what}"))
            .received(&error.into().to_string())
    }
}

pub(super) fn take_first<T>(list: &mut Vec<T>) -> Option<T> {
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
            Protection::EveryPort if plan.captured_ports.is_empty() => continue,
            Protection::EveryPort => Ok(network::BY_FILTER.to_owned()),
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

/// What init says of the world that it built.
struct Built {
    gaps: Gaps,
    /// The sockets inside that the launcher serves.
    inlets: Vec<OwnedFd>,
    /// What else it sent.
    rest: Vec<OwnedFd>,
}

/// The first process inside, as seen from outside. Dropped, it is killed and waited for.
pub(super) struct Init {
    pid: Pid,
    pub(super) pidfd: OwnedFd,
    pub(super) socket: UnixStream,
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

    fn built(&self) -> Result<Built, Refusal> {
        match self.ask(&ToInit::Build)? {
            (FromInit::Built { gaps, inlets }, mut handles) => {
                let rest = handles.split_off(inlets.min(handles.len()));
                Ok(Built {
                    gaps,
                    inlets: handles,
                    rest,
                })
            }
            (FromInit::Refused(refusal), _) => Err(refusal),
            (
                FromInit::Started
                | FromInit::Done(_)
                | FromInit::Counted(_)
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
            | FromInit::Counted(_)
            | FromInit::Exited(_)
            | FromInit::Signalled(_) => Err(out_of_turn()),
        }
    }

    pub(super) fn kill(&self) {
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
