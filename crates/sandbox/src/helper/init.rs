//! The first process inside: it builds the world, starts the command, reaps what is orphaned, and
//! ends everything by ending.
//!
//! It can't be signalled from inside (the kernel keeps signals from a namespace's first process),
//! not traced (it isn't dumpable and the command's Landlock domain excludes it), and it executes
//! nothing.

use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use portcullis_model::Refusal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus, kill_process_group,
    set_dumpable_behavior, set_parent_process_death_signal, wait,
};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use serde::{Deserialize, Serialize};

use super::confine;
use super::network;
use super::root::{self, Sources};
use crate::plan::{Plan, PlanTerminal};
use crate::sys::{self, Fork, SingleThreaded};
use crate::{Protection, wire};

/// Supervisor to init.
#[derive(Serialize, Deserialize)]
pub(super) enum ToInit {
    /// The ids are mapped and the cgroups entered: build.
    Build,
    /// Everything is in the supervisor's hands: start the command.
    Start,
    /// Stop all processes but init.
    Stop,
    /// Let them go on.
    Continue,
    /// Signal the command's process group.
    Signal(i32),
    /// How many processes were started inside so far.
    Count,
}

/// Init to supervisor.
#[derive(Serialize, Deserialize)]
pub(super) enum FromInit {
    /// The world stands. Descriptors: as many sockets of the channel as `inlets` says (its own
    /// listener, the captured ones, that for names), then pty master and slave if asked.
    Built {
        gaps: Vec<(Protection, String)>,
        inlets: usize,
    },
    /// The command runs.
    Started,
    /// It can't; nothing runs.
    Refused(Refusal),
    /// Stop, continue or signal: done, or why not.
    Done(Result<(), String>),
    /// So many processes were started.
    Counted(u64),
    /// The command ended.
    Exited(u8),
    /// The command was ended by a signal.
    Signalled(u8),
}

/// What init takes over from the supervisor.
pub(super) struct World<'plan> {
    pub(super) plan: &'plan Plan,
    /// Opened by a privileged supervisor; else init opens them itself.
    pub(super) sources: Option<Sources>,
    /// Standard input, output and error of the command, unless a pty stands in.
    pub(super) stdio: [Option<OwnedFd>; 3],
    /// What the cgroups enforce.
    pub(super) by_cgroup: Vec<Protection>,
}

/// Never returns.
pub(super) fn run(single: SingleThreaded, world: World<'_>, supervisor: &UnixStream) -> ! {
    let code = match live(single, world, supervisor) {
        Ok(()) => 0,
        Err(refusal) => {
            let _ = wire::send(supervisor, &FromInit::Refused(refusal), &[]);
            1
        }
    };
    sys::exit_now(code)
}

fn live(
    single: SingleThreaded,
    mut world: World<'_>,
    supervisor: &UnixStream,
) -> Result<(), Refusal> {
    let orders = signals_of_init()?;
    expect(supervisor, |order| matches!(order, ToInit::Build))?;
    let mut gaps = build(&mut world)?;
    let inlets = world
        .plan
        .capture
        .map(|own| network::inlets(own, &world.plan.captured_ports))
        .transpose()?;
    if let Some(why) = inlets.as_ref().and_then(|inlets| inlets.unseen.as_ref()) {
        if !world.plan.allowed_gaps.contains(&Protection::EveryPort) {
            return Err(Protection::EveryPort.missing(why));
        }
        gaps.push((Protection::EveryPort, why.clone()));
    }
    let pty = open_pty(&world.plan.terminal, &mut world.stdio)?;
    let mut descriptors: Vec<BorrowedFd<'_>> = Vec::new();
    descriptors.extend(inlets.iter().flat_map(network::Inlets::sockets));
    let built = FromInit::Built {
        gaps,
        inlets: descriptors.len(),
    };
    if let Some((master, slave)) = &pty {
        descriptors.extend([master.as_fd(), slave.as_fd()]);
    }
    tell(supervisor, &built, &descriptors)?;
    drop(inlets);
    drop(pty);
    // From here on the supervisor's end of the socket is the proof that it lives: had it died
    // before the death signal was set, this read would see the end.
    expect(supervisor, |order| matches!(order, ToInit::Start))?;
    let command = start(single, &mut world)?;
    tell(supervisor, &FromInit::Started, &[])?;
    watch(command, supervisor, &orders)
}

fn signals_of_init() -> Result<OwnedFd, Refusal> {
    sys::signal_descriptor(&[libc::SIGCHLD])
        .map_err(|error| Refusal::internal(format!("signalfd: {error}")))
}

fn expect(supervisor: &UnixStream, wanted: impl Fn(&ToInit) -> bool) -> Result<(), Refusal> {
    match wire::receive::<ToInit>(supervisor) {
        Ok(Some((order, _))) if wanted(&order) => Ok(()),
        Ok(Some(_)) | Ok(None) | Err(_) => sys::exit_now(1),
    }
}

fn tell(
    supervisor: &UnixStream,
    message: &FromInit,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Refusal> {
    wire::send(supervisor, message, descriptors)
        .map_err(|error| Refusal::internal(format!("the supervisor is gone: {error}")))
}

/// Namespaces, ids, root, network, host name, keyring.
fn build(world: &mut World<'_>) -> Result<Vec<(Protection, String)>, Refusal> {
    let mut gaps = Vec::new();
    if let Err(error) = sys::leave_namespaces(libc::CLONE_NEWCGROUP) {
        if !world
            .plan
            .allowed_gaps
            .contains(&Protection::CgroupNamespace)
        {
            return Err(Protection::CgroupNamespace.missing(&error.to_string()));
        }
        gaps.push((Protection::CgroupNamespace, error.to_string()));
    }
    confine::become_agent()
        .map_err(|error| Protection::UserNamespace.missing(&error.to_string()))?;
    // Both are cleared by a change of ids, so they come after it.
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Refusal::internal(format!("death signal: {error}")))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| Refusal::internal(format!("dumpable: {error}")))?;
    let sources = match world.sources.take() {
        Some(sources) => sources,
        None => Sources::open(world.plan, None)?,
    };
    root::enter(sources, &world.plan.limits)?;
    network::loopback()
        .map_err(|error| Protection::NetworkNamespace.missing(&error.to_string()))?;
    rustix::system::sethostname(b"sandbox")
        .and_then(|()| rustix::system::setdomainname(b""))
        .map_err(|error| Protection::UtsNamespace.missing(&error.to_string()))?;
    // A kernel without keyrings has none to leave.
    match sys::join_new_keyring() {
        Err(error) if error.raw_os_error() != Some(libc::ENOSYS) => {
            return Err(Refusal::unavailable(
                "sandbox-keyring",
                "the sandbox can't leave the caller's session keyring",
            )
            .received(&error.to_string())
            .next("allow keyctl for the launcher (in a container: its seccomp profile)"));
        }
        Ok(()) | Err(_) => {}
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Ok(gaps)
}

/// Opens a pty on the sandbox's own devpts and puts its slave where the plan wants a terminal.
fn open_pty(
    terminal: &PlanTerminal,
    stdio: &mut [Option<OwnedFd>; 3],
) -> Result<Option<(OwnedFd, OwnedFd)>, Refusal> {
    let wanted = stdio.iter().any(Option::is_none);
    if !wanted || !matches!(terminal, PlanTerminal::Inherit | PlanTerminal::Pty { .. }) {
        return Ok(None);
    }
    let opened = || -> io::Result<(OwnedFd, OwnedFd)> {
        let master = rustix::fs::open(
            "/dev/pts/ptmx",
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        unlockpt(&master)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        for place in stdio.iter_mut().filter(|place| place.is_none()) {
            *place = Some(rustix::io::fcntl_dupfd_cloexec(&slave, 3)?);
        }
        Ok((master, slave))
    };
    let mut opened = opened;
    opened().map(Some).map_err(|error| {
        Refusal::unavailable("sandbox-terminal", "the sandbox can't have a terminal")
            .received(&error.to_string())
            .next("use a kernel with CONFIG_UNIX98_PTYS, or run it without a terminal")
    })
}

/// Starts the command in a child, and waits until its program has taken over.
fn start(single: SingleThreaded, world: &mut World<'_>) -> Result<Pid, Refusal> {
    let failed =
        |error: io::Error| Refusal::internal(format!("the command can't be started: {error}"));
    let (mut failure, report) = UnixStream::pair().map_err(failed)?;
    let stdio: Vec<OwnedFd> = world.stdio.iter_mut().filter_map(Option::take).collect();
    let by_cgroup = world.by_cgroup.clone();
    confine::resource_limits(world.plan, |protection| by_cgroup.contains(&protection)).map_err(
        |error| {
            Refusal::unavailable("sandbox-limits", "the sandbox can't set its limits")
                .received(&error.to_string())
        },
    )?;
    let command = match sys::fork(single, 0).map_err(failed)? {
        Fork::Child => {
            // Returns only when the program did not take over.
            let refusal = confine::exec(world.plan, &stdio);
            let _ = wire::send(&report, &refusal, &[]);
            sys::exit_now(127)
        }
        Fork::Parent(command) => command,
    };
    // The command's process needed them to give them up for good; init needs none from here on.
    confine::drop_held_capabilities()
        .map_err(|error| Refusal::internal(format!("init can't drop capabilities: {error}")))?;
    drop(report);
    drop(stdio);
    // Both ends close when a program is executed: the end of the stream is the good news.
    match wire::receive::<Refusal>(&failure) {
        Ok(None) => Ok(command),
        Ok(Some((refusal, _))) => Err(refusal),
        Err(error) => {
            let _ = failure.read(&mut []);
            Err(failed(error))
        }
    }
}

/// Reaps, and does what the supervisor says, until the command has ended.
fn watch(command: Pid, supervisor: &UnixStream, signals: &OwnedFd) -> Result<(), Refusal> {
    loop {
        if let Some(ending) = reap(command) {
            return tell(supervisor, &ending, &[]);
        }
        let mut ready = [
            PollFd::new(signals, PollFlags::IN),
            PollFd::new(supervisor, PollFlags::IN),
        ];
        match poll(&mut ready, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Refusal::internal(format!("poll: {error}"))),
        }
        let [signalled, spoken] = ready.map(|one| !one.revents().is_empty());
        if signalled {
            let mut buffer = [0_u8; 1024];
            // Only empties it; what happened is asked of `wait`.
            let _ = rustix::io::read(signals, &mut buffer);
        }
        if spoken {
            match wire::receive::<ToInit>(supervisor) {
                Ok(Some((ToInit::Count, _))) => {
                    tell(supervisor, &FromInit::Counted(processes_started()), &[])?;
                }
                Ok(Some((order, _))) => {
                    let done = obey(&order, command).map_err(|error| error.to_string());
                    tell(supervisor, &FromInit::Done(done), &[])?;
                }
                // The supervisor is gone, and so is this world.
                Ok(None) | Err(_) => sys::exit_now(1),
            }
        }
    }
}

/// The newest process id of this namespace, which counts upwards: the last number of
/// `/proc/loadavg` is that of whoever reads it.
fn processes_started() -> u64 {
    std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split_ascii_whitespace().last()?.parse().ok())
        .unwrap_or(0)
}

fn obey(order: &ToInit, command: Pid) -> io::Result<()> {
    let everyone = |signal| match sys::signal_all_others(signal) {
        // Nobody left to signal.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other,
    };
    match order {
        ToInit::Stop => everyone(libc::SIGSTOP),
        ToInit::Continue => everyone(libc::SIGCONT),
        ToInit::Signal(number) => {
            let signal = Signal::from_named_raw(*number).ok_or(io::ErrorKind::InvalidInput)?;
            Ok(kill_process_group(command, signal)?)
        }
        ToInit::Build | ToInit::Start | ToInit::Count => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn reap(command: Pid) -> Option<FromInit> {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == command
            && let Some(ending) = ending_of(status)
        {
            return Some(ending);
        }
    }
    None
}

fn ending_of(status: WaitStatus) -> Option<FromInit> {
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    status
        .exit_status()
        .map(|code| FromInit::Exited(byte(code)))
        .or_else(|| {
            status
                .terminating_signal()
                .map(|signal| FromInit::Signalled(byte(signal)))
        })
}
