//! The system calls that no safe wrapper covers. All `unsafe` of the workspace is in this file.

use std::ffi::{CStr, CString, c_char, c_int, c_long};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::Pid;

/// Proof that this process has one thread, so that a child made by `clone` finds no lock held by
/// a thread that it doesn't have.
#[derive(Clone, Copy)]
pub(crate) struct SingleThreaded(());

impl SingleThreaded {
    /// Looks into `/proc/self/task`.
    pub(crate) fn check() -> io::Result<Self> {
        match std::fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Self(())),
            threads => Err(io::Error::other(format!(
                "{threads} threads run; helper_main must be called first in main"
            ))),
        }
    }
}

/// Which side of a [`fork`] this is.
pub(crate) enum Fork {
    Child,
    Parent(Pid),
}

/// A child of this process with a copy of its memory, in new namespaces as `flags` say
/// (`CLONE_NEW…`, 0 for a plain fork).
pub(crate) fn fork(_: SingleThreaded, flags: c_int) -> io::Result<Fork> {
    let flags = c_long::from(flags) | c_long::from(libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with a null stack this is `fork`: the child gets a copy of
    // everything. The process has one thread (the token says so), hence no lock of another thread
    // is left held in the child. All pointer arguments are null and unused for these flags, so
    // the order of the last two, which differs between architectures, doesn't matter.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .map_or(Fork::Child, Fork::Parent))
}

/// `struct clone_args` of `clone3(2)`, up to the field for the cgroup.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// As [`fork`], with the child born in a cgroup of version 2. Moving it there afterwards would
/// wait for a grace period of the whole machine, some ten milliseconds.
pub(crate) fn fork_into(
    _: SingleThreaded,
    flags: c_int,
    cgroup: BorrowedFd<'_>,
) -> io::Result<Fork> {
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let arguments = CloneArguments {
        flags: u64::from(flags.unsigned_abs()) | INTO_CGROUP,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        cgroup: u64::from(cgroup.as_raw_fd().unsigned_abs()),
        ..CloneArguments::default()
    };
    // SAFETY: as for `fork`: no CLONE_VM, no stack, one thread. The struct lives through the call
    // and its size is given; all its pointers are null.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<CloneArguments>(),
        )
    })?;
    Ok(i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .map_or(Fork::Child, Fork::Parent))
}

/// Ends this process at once, without destructors or exit handlers: what a forked child does.
pub(crate) fn exit_now(code: u8) -> ! {
    // SAFETY: `_exit` takes no pointers and does not return.
    unsafe { libc::_exit(c_int::from(code)) }
}

/// Closes every descriptor from `first` to `last`. Only for processes that never again use or
/// drop a value that owns one of them: a helper at its very start, and children that go on to
/// `exec` or `_exit`.
pub(crate) fn close_range(first: u32, last: u32) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: no pointers. Values that own one of these descriptors are never used or dropped
    // afterwards, as the callers promise above.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0_u32) }).map(drop)
}

/// Closes every descriptor but the standard ones and `kept`; see [`close_range`].
pub(crate) fn close_all_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = kept
        .iter()
        .map(|one| one.as_raw_fd().unsigned_abs())
        .collect();
    kept.sort_unstable();
    let mut first = 3;
    for one in kept {
        close_range(first, one.saturating_sub(1))?;
        first = first.max(one.saturating_add(1));
    }
    close_range(first, u32::MAX)
}

/// Replaces this process by a program; returns only when that fails.
pub(crate) fn exec(path: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |words: &[CString]| -> Vec<*const c_char> {
        words
            .iter()
            .map(|word| word.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: all three are valid, zero-terminated and outlive the call; the lists end with null.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
#[derive(Default)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Read-only mount.
pub(crate) const MOUNT_READ_ONLY: u64 = 0x1;
/// Set-user-id bits have no effect.
pub(crate) const MOUNT_NO_SUID: u64 = 0x2;
/// Device nodes have no effect.
pub(crate) const MOUNT_NO_DEVICES: u64 = 0x4;
/// Nothing can be executed.
pub(crate) const MOUNT_NO_EXEC: u64 = 0x8;
const MOUNT_IDMAP: u64 = 0x0010_0000;

/// Sets attributes of a mount, with `recursive` of all below it; with `ids` the mount shows its
/// files through that user namespace's id map. It becomes private too: a mount of the host's that
/// was opened as a tree is in the host's group otherwise, so that what is mounted on the one appears
/// on the other.
pub(crate) fn mount_attributes(
    mount: BorrowedFd<'_>,
    set: u64,
    ids: Option<BorrowedFd<'_>>,
    recursive: bool,
) -> io::Result<()> {
    let attributes = MountAttributes {
        set: set | ids.map_or(0, |_| MOUNT_IDMAP),
        propagation: libc::MS_PRIVATE,
        user_namespace: ids.map_or(0, |ids| u64::from(ids.as_raw_fd().unsigned_abs())),
        ..MountAttributes::default()
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a static empty string; the struct is `struct mount_attr`, lives through
    // the call, and its size is given; the kernel writes nothing.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    })
    .map(drop)
}

/// Moves to a new root and drops the old one, stacked at the same place.
pub(crate) fn pivot_root_here() -> io::Result<()> {
    // SAFETY: both paths are static strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }).map(drop)
}

/// Blocks every signal that may be blocked, and returns a descriptor that reads `signals`.
pub(crate) fn signal_descriptor(signals: &[c_int]) -> io::Result<OwnedFd> {
    let mask = signal_set(signals);
    // SAFETY: the set is initialised and lives through both calls; the old mask isn't asked for.
    let descriptor = unsafe {
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const mask, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::signalfd(-1, &raw const mask, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    check(c_long::from(descriptor))?;
    // SAFETY: the descriptor was just made and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Default action for every signal, none blocked: what a program expects at its start.
pub(crate) fn signals_as_at_birth() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL installs no handler; numbers that can't be set (9, 19, those of the C
        // library) are refused without harm.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let none = signal_set(&[]);
    // SAFETY: the set is initialised; the old mask isn't asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}

/// Ignores a signal.
pub(crate) fn ignore(signal: c_int) {
    // SAFETY: SIG_IGN installs no handler.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

fn signal_set(signals: &[c_int]) -> libc::sigset_t {
    // SAFETY: `sigset_t` is plain data, for which zero is valid; sigemptyset and sigaddset write
    // only into it.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

/// Sends a signal to every process of this pid namespace but the first. Refused outside of one's
/// own namespace, where it would reach the whole machine.
pub(crate) fn signal_all_others(signal: c_int) -> io::Result<()> {
    if std::process::id() != 1 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    // SAFETY: no pointers; -1 is everything but the caller and init, and the caller is init.
    check(c_long::from(unsafe { libc::kill(-1, signal) })).map(drop)
}

/// A fresh session keyring in place of the one that was inherited.
pub(crate) fn join_new_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0_usize) }).map(drop)
}

/// Brings the loopback interface of this network namespace up.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: `ifreq` is plain data, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which lives through the call; its name ends with a
    // zero.
    check(c_long::from(unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw mut request,
        )
    }))
    .map(drop)
}

/// Lets a listener be handed connections to any address and port (`IP_TRANSPARENT` of ip(7)), which
/// takes rights over its network namespace.
pub(crate) fn transparent(socket: BorrowedFd<'_>, six: bool) -> io::Result<()> {
    let (level, option) = if six {
        (libc::SOL_IPV6, libc::IPV6_TRANSPARENT)
    } else {
        (libc::SOL_IP, libc::IP_TRANSPARENT)
    };
    let on: c_int = 1;
    // SAFETY: the kernel reads one int, which lives through the call and whose size is given.
    check(c_long::from(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    }))
    .map(drop)
}

/// Whether the kernel knows seccomp's `errno` action.
pub(crate) fn seccomp_available() -> io::Result<()> {
    const ACTION_AVAILABLE: c_long = 2;
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the kernel reads one u32, which lives through the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            ACTION_AVAILABLE,
            0_usize,
            &raw const action,
        )
    })
    .map(drop)
}

/// Installs a filter for this thread, and for all that it starts, for good.
pub(crate) fn seccomp_install(program: &mut [libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog {
        len: length,
        filter: program.as_mut_ptr(),
    };
    const SET_MODE_FILTER: c_long = 1;
    // SAFETY: the program and its instructions live through the call; the kernel copies and
    // verifies them.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SET_MODE_FILTER,
            0_usize,
            &raw const program,
        )
    })
    .map(drop)
}

/// `struct landlock_ruleset_attr`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct LandlockAttributes {
    pub(crate) files: u64,
    pub(crate) network: u64,
    pub(crate) scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct LandlockPath {
    allowed: u64,
    parent: i32,
}

/// The kernel's version of Landlock.
pub(crate) fn landlock_version() -> io::Result<i64> {
    const VERSION: c_long = 1;
    // SAFETY: with this flag the attributes must be null and the size 0.
    check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0_usize, 0_usize, VERSION) })
}

/// A set of rules over `attributes`, of which the first `size` bytes are known to the kernel.
pub(crate) fn landlock_rules(attributes: &LandlockAttributes, size: usize) -> io::Result<OwnedFd> {
    let size = size.min(size_of::<LandlockAttributes>());
    // SAFETY: the kernel reads `size` bytes of the struct, which is at least that long.
    let descriptor = check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::from_ref(attributes),
            size,
            0_usize,
        )
    })?;
    let descriptor = c_int::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the descriptor was just made and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Allows `allowed` beneath an open path.
pub(crate) fn landlock_allow(rules: &OwnedFd, path: impl AsFd, allowed: u64) -> io::Result<()> {
    const PATH_BENEATH: c_long = 1;
    let rule = LandlockPath {
        allowed,
        parent: path.as_fd().as_raw_fd(),
    };
    // SAFETY: the kernel reads one `landlock_path_beneath_attr`, which lives through the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            rules.as_raw_fd(),
            PATH_BENEATH,
            &raw const rule,
            0_usize,
        )
    })
    .map(drop)
}

/// Puts this thread, and all that it starts, under the rules for good.
pub(crate) fn landlock_enter(rules: &OwnedFd) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0_usize) })
        .map(drop)
}

/// Joins the namespace of `kind` (`CLONE_NEW…`) behind a descriptor.
pub(crate) fn join_namespace(namespace: BorrowedFd<'_>, kind: c_int) -> io::Result<()> {
    // SAFETY: no pointers.
    check(c_long::from(unsafe {
        libc::setns(namespace.as_raw_fd(), kind)
    }))
    .map(drop)
}

/// Leaves the namespaces `kinds` for new ones.
pub(crate) fn leave_namespaces(kinds: c_int) -> io::Result<()> {
    // SAFETY: no pointers; only CLONE_NEW… flags are passed, so no memory or descriptor table
    // is unshared.
    check(c_long::from(unsafe { libc::unshare(kinds) })).map(drop)
}

/// Asks `done` every millisecond for at most `most`; whether it said yes.
pub(crate) fn wait_until(most: Duration, mut done: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + most;
    while !done() {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
