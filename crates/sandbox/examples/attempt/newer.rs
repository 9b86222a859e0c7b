//! Attempts by what kernels learnt lately, or seldom tell: signals by way of a descriptor's owner,
//! answers to other filters' questions, memory that no limit counts.

use std::ffi::c_int;
use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

use super::{Attempt, call, check, first_of};

pub(super) fn attempts() -> Vec<(&'static str, Attempt)> {
    vec![
        // Who owns a descriptor is signalled by the kernel, not by the process that asked for it.
        ("signal-init-as-owner", |_| signal_as_owner()),
        ("huge-pages", |_| {
            const MFD_HUGETLB: i64 = 4;
            const MAP_ANYWHERE: c_int = libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
            let mapped = |sharing: c_int| {
                // SAFETY: a new mapping at a place of the kernel's choice, which is not touched.
                let place = unsafe {
                    libc::mmap(
                        std::ptr::null_mut(),
                        2 << 20,
                        libc::PROT_READ | libc::PROT_WRITE,
                        sharing | MAP_ANYWHERE,
                        -1,
                        0,
                    )
                };
                check(if place == libc::MAP_FAILED { -1 } else { 0 })
            };
            let segment = i64::from(libc::IPC_CREAT | libc::SHM_HUGETLB | 0o600);
            first_of([
                call(
                    libc::SYS_memfd_create,
                    [c"huge".as_ptr() as i64, MFD_HUGETLB, 0, 0],
                ),
                call(
                    libc::SYS_shmget,
                    [i64::from(libc::IPC_PRIVATE), 2 << 20, segment, 0],
                ),
                mapped(libc::MAP_PRIVATE),
                mapped(libc::MAP_SHARED),
            ])
        }),
        // One processor's two halves, shared with init or taken from it.
        ("share-core-with-init", |_| {
            const PR_SCHED_CORE: i64 = 62;
            first_of([2, 3].map(|how| call(libc::SYS_prctl, [PR_SCHED_CORE, how, 1, 0])))
        }),
        ("continue-past-filter", |_| continue_past_filter()),
        ("suspend-filter-under-trace", |_| suspend_filter()),
        ("wake-the-machine", |_| {
            // CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM.
            first_of([8, 9].map(|clock| call(libc::SYS_timerfd_create, [clock, 0, 0, 0])))
        }),
        ("shut-file-system-down", |_| {
            let range = [0_u64, u64::MAX, 0];
            let how = 0_u32;
            // FITRIM, and the shutdown of XFS, ext4 and others.
            let orders = [
                (0xc018_5879_u32, range.as_ptr() as i64),
                (0x8004_587d, &raw const how as i64),
            ];
            let places = ["/workspace", "/tmp", "/usr"];
            first_of(places.into_iter().flat_map(|place| {
                orders.map(|(order, argument)| {
                    let place = fs::File::open(place)?;
                    let descriptor = i64::from(place.as_raw_fd());
                    call(libc::SYS_ioctl, [descriptor, order.into(), argument, 0])
                })
            }))
        }),
    ]
}

/// Which memory that processes share can be had: files in memory, segments large and small.
pub(super) fn shared_memory() -> [&'static str; 3] {
    let segment = |bytes: i64| {
        let how = i64::from(libc::IPC_CREAT | 0o600);
        let place = i64::from(libc::IPC_PRIVATE);
        call(libc::SYS_shmget, [place, bytes, how, 0]).is_ok()
    };
    let file = call(libc::SYS_memfd_create, [c"file".as_ptr() as i64, 0, 0, 0]);
    let told = |had: bool, yes, no| if had { yes } else { no };
    [
        told(file.is_ok(), "file", "no-file"),
        told(segment(1 << 20), "large", "no-large"),
        told(segment(56), "small", "no-small"),
    ]
}

/// Has the kernel signal init, for a socket that something comes to.
fn signal_as_owner() -> io::Result<()> {
    const F_SETSIG: c_int = 10;
    for signal in [0, libc::SIGSTOP, libc::SIGKILL, libc::SIGTERM] {
        let (mut near, far) = UnixStream::pair()?;
        let descriptor = far.as_raw_fd();
        // SAFETY: plain numbers.
        unsafe {
            libc::fcntl(descriptor, libc::F_SETOWN, 1);
            libc::fcntl(descriptor, F_SETSIG, signal);
            libc::fcntl(descriptor, libc::F_SETFL, libc::O_ASYNC);
        }
        io::Write::write_all(&mut near, b"x")?;
    }
    // Had one of them ended init, nobody would be here; one that stopped it would have it stay so.
    for _ in 0..50 {
        let told = fs::read_to_string("/proc/1/stat")?;
        if !told.contains(") T ") {
            return Err(io::Error::other("init goes on"));
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}

/// Asks by a filter of its own to be asked about a call, and answers that it may go on.
fn continue_past_filter() -> io::Result<()> {
    const RECEIVE: u64 = 0xc050_2100;
    const SEND: u64 = 0xc018_2101;
    let (tell, told) = std::sync::mpsc::channel();
    let asking = std::thread::spawn(move || {
        let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
            code: code as u16,
            jt,
            jf,
            k,
        };
        let mut steps = [
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            step(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                0,
                1,
                libc::SYS_kcmp as u32,
            ),
            step(
                libc::BPF_RET | libc::BPF_K,
                0,
                0,
                libc::SECCOMP_RET_USER_NOTIF,
            ),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog {
            len: 4,
            filter: steps.as_mut_ptr(),
        };
        // SAFETY: the program lives through the call, and holds for this thread alone; the other
        // calls take plain numbers.
        unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            let listener = libc::syscall(libc::SYS_seccomp, 1, 8, &raw const program);
            let failed = (listener < 0).then(io::Error::last_os_error);
            let _gone = tell.send(listener);
            if let Some(error) = failed {
                return Err(error);
            }
            let own = libc::getpid();
            check(libc::syscall(libc::SYS_kcmp, own, own, 1, 0, 0))
        }
    });
    let listener = told.recv().unwrap_or(-1) as c_int;
    while listener >= 0 && !asking.is_finished() {
        let mut ready = libc::pollfd {
            fd: listener,
            events: libc::POLLIN,
            revents: 0,
        };
        let mut question = [0_u64; 10];
        // SAFETY: the structures have the sizes that the numbers of the calls say, and live through
        // them.
        unsafe {
            if libc::poll(&raw mut ready, 1, 50) > 0
                && ready.revents & libc::POLLIN != 0
                && libc::ioctl(listener, RECEIVE, &raw mut question) == 0
            {
                // Go on as if nobody had asked.
                let answer = [question[0], 0, 1 << 32];
                libc::ioctl(listener, SEND, &raw const answer);
            }
        }
    }
    asking
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("it broke off")))
}

/// Traces a child, which may be, and has its filters not count meanwhile.
fn suspend_filter() -> io::Result<()> {
    const PTRACE_SETOPTIONS: libc::c_uint = 0x4200;
    const PTRACE_O_SUSPEND_SECCOMP: c_int = 1 << 21;
    // SAFETY: the child calls only what is safe after fork; all others are plain numbers.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            libc::raise(libc::SIGSTOP);
            libc::_exit(0);
        }
        check(child.into())?;
        let mut status = 0;
        check(libc::waitpid(child, &raw mut status, 0).into())?;
        let outcome = check(libc::ptrace(
            PTRACE_SETOPTIONS,
            child,
            0,
            PTRACE_O_SUSPEND_SECCOMP,
        ));
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, &raw mut status, 0);
        outcome
    }
}
