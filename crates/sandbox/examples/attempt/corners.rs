//! Attempts on the kernel's corners: what the tests of other sandboxes, of Landlock and of seccomp
//! look at, and what tools for breaking out of containers try.

use std::ffi::{CStr, c_int};
use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use super::packets::{change_route, set_bytes};
use super::{Attempt, call, check, first_of, readable, socket};

pub(super) fn attempts() -> Vec<(&'static str, Attempt)> {
    files()
        .into_iter()
        .chain(kernel())
        .chain(processes())
        .chain(networks())
        .collect()
}

/// Files that are read-only, or the host's, by every way that ends in writing.
fn files() -> Vec<(&'static str, Attempt)> {
    vec![
        ("cut-host-file", |_| {
            // SAFETY: a static string.
            check(unsafe { libc::truncate(c"/usr/bin/env".as_ptr(), 0) }.into())
        }),
        ("open-host-file-to-cut", |_| {
            fs::File::options()
                .read(true)
                .custom_flags(libc::O_TRUNC)
                .open("/etc/passwd")
                .and_then(|_| unless_empty("/etc/passwd"))
        }),
        ("reopen-host-file-to-write", |_| {
            let path_only = fs::File::options()
                .read(true)
                .custom_flags(libc::O_PATH)
                .open("/usr/bin/env")?;
            fs::File::options()
                .write(true)
                .open(format!("/proc/self/fd/{}", path_only.as_raw_fd()))
                .map(drop)
        }),
        ("map-host-file-to-write", |_| {
            let file = fs::File::open("/usr/bin/env")?;
            let writable = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: a new mapping, nothing of which is used.
            let mapped = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    4096,
                    writable,
                    libc::MAP_SHARED,
                    file.as_raw_fd(),
                    0,
                )
            };
            if mapped == libc::MAP_FAILED {
                Err(io::Error::last_os_error())
            } else {
                Ok(())
            }
        }),
        ("nameless-file-on-the-host", |_| {
            fs::File::options()
                .write(true)
                .custom_flags(libc::O_TMPFILE)
                .open("/usr/lib")
                .map(drop)
        }),
        ("exchange-with-host-file", |_| {
            fs::write("/workspace/other", "x")?;
            let exchange = 2;
            let at = i64::from(libc::AT_FDCWD);
            // SAFETY: static strings and plain numbers.
            check(unsafe {
                libc::syscall(
                    libc::SYS_renameat2,
                    at,
                    c"/workspace/other".as_ptr(),
                    at,
                    c"/etc/passwd".as_ptr(),
                    exchange,
                )
            })
        }),
        ("hide-host-file", |_| {
            // A whiteout, as layered file systems make them; a device by another name.
            fs::write("/workspace/hidden", "x")?;
            let whiteout = 4;
            let at = i64::from(libc::AT_FDCWD);
            // SAFETY: static strings and plain numbers.
            check(unsafe {
                libc::syscall(
                    libc::SYS_renameat2,
                    at,
                    c"/workspace/hidden".as_ptr(),
                    at,
                    c"/usr/bin/hidden".as_ptr(),
                    whiteout,
                )
            })
        }),
        ("give-program-rights", |_| {
            fs::write("/workspace/rights", "x")?;
            // `security.capability`, version 2: all of them, in effect.
            let rights = [
                1, 0, 0, 2, 255, 255, 255, 255, 0, 0, 0, 0, 255, 1, 0, 0, 0, 0, 0, 0,
            ];
            attribute(c"/workspace/rights", c"security.capability", &rights)
        }),
        ("hidden-attributes", |_| {
            // Not SELinux's: where that is in the kernel and has no policy, an owner may set it.
            fs::write("/workspace/hidden-too", "x")?;
            first_of([
                attribute(c"/workspace/hidden-too", c"trusted.overlay.opaque", b"y"),
                attribute(c"/workspace/hidden-too", c"security.ima", b"x"),
                attribute(
                    c"/workspace/hidden-too",
                    c"security.apparmor",
                    b"unconfined",
                ),
            ])
        }),
        ("make-file-immutable", |_| {
            let file = fs::File::create("/workspace/fixed")?;
            // FS_IOC_SETFLAGS with the bits "immutable" and "append only".
            first_of([0x10_i64, 0x20].map(|bits| {
                call(
                    libc::SYS_ioctl,
                    [
                        file.as_raw_fd().into(),
                        0x4008_6602,
                        (&raw const bits) as i64,
                        0,
                    ],
                )
            }))
        }),
        ("stop-file-system", |_| {
            // FIFREEZE, FITRIM, and the resizing of ext4.
            let directory = fs::File::open("/workspace")?;
            let room = [0_u64; 8];
            first_of([0xc004_5877_i64, 0xc018_5879, 0x4008_6610].map(|request| {
                call(
                    libc::SYS_ioctl,
                    [
                        directory.as_raw_fd().into(),
                        request,
                        room.as_ptr() as i64,
                        0,
                    ],
                )
            }))
        }),
        ("lease-host-file", |_| {
            let file = fs::File::open("/usr/bin/env")?;
            // SAFETY: plain numbers.
            check(unsafe { libc::fcntl(file.as_raw_fd(), 1024, libc::F_RDLCK) }.into())
        }),
        ("name-by-handle", |_| {
            call(libc::SYS_name_to_handle_at, [0; 4])
        }),
        ("shared-mounts", |_| {
            let mounts = fs::read_to_string("/proc/self/mountinfo")?;
            if mounts.contains(" shared:") || mounts.contains(" master:") {
                Ok(())
            } else {
                Err(io::Error::other("all private"))
            }
        }),
        ("writable-mounts-of-the-host", |_| {
            // What can be written is ours: the workspace, memory, and devices that keep nothing.
            let mounts = fs::read_to_string("/proc/self/mountinfo")?;
            let other = mounts.lines().find(|line| {
                let mut words = line.split(' ');
                let (place, how) = (words.nth(4).unwrap(), words.next().unwrap());
                let (_, kind) = line.split_once(" - ").unwrap();
                let ours = place == "/workspace" || place.starts_with("/dev/");
                let memory = ["tmpfs ", "proc ", "devpts ", "devtmpfs "];
                how.starts_with("rw") && !ours && !memory.iter().any(|one| kind.starts_with(one))
            });
            other.map_or_else(|| Err(io::Error::other("none")), |_| Ok(()))
        }),
        ("describe-machine", |_| {
            let names = [
                "config.gz",
                "diskstats",
                "iomem",
                "ioports",
                "kpagecount",
                "kpageflags",
                "modules",
                "partitions",
                "sched_debug",
                "slabinfo",
                "softirqs",
                "timer_list",
                "vmallocinfo",
            ];
            first_of(names.map(|name| readable(&format!("/proc/{name}"))))
        }),
    ]
}

/// Calls that no build tool makes.
fn kernel() -> Vec<(&'static str, Attempt)> {
    vec![
        ("old-and-rare-calls", |_| {
            first_of(
                [
                    libc::SYS_clock_adjtime,
                    libc::SYS_delete_module,
                    libc::SYS_fanotify_mark,
                    libc::SYS_fsconfig,
                    libc::SYS_fsmount,
                    libc::SYS_fspick,
                    libc::SYS_kexec_file_load,
                    libc::SYS_lookup_dcookie,
                    libc::SYS_migrate_pages,
                    libc::SYS_move_pages,
                    libc::SYS_nfsservctl,
                    libc::SYS_quotactl,
                    libc::SYS_quotactl_fd,
                    libc::SYS_request_key,
                    libc::SYS_setdomainname,
                    libc::SYS_swapoff,
                    libc::SYS_vhangup,
                ]
                .map(|number| call(number, [0; 4])),
            )
        }),
        #[cfg(target_arch = "x86_64")]
        ("change-call-under-trace", |_| under_trace()),
        #[cfg(target_arch = "x86_64")]
        ("ports-and-descriptor-tables", |_| {
            first_of([
                call(libc::SYS_iopl, [3, 0, 0, 0]),
                call(libc::SYS_ioperm, [0x80, 1, 1, 0]),
                call(libc::SYS_modify_ldt, [1, 0, 0, 0]),
                call(libc::SYS_uselib, [0; 4]),
                call(libc::SYS_sysfs, [3, 0, 0, 0]),
                call(libc::SYS_ustat, [0; 4]),
                call(libc::SYS__sysctl, [0; 4]),
            ])
        }),
        ("own-memory-layout", |_| {
            // PR_SET_MM moves what `/proc` says of a program; PR_SET_MM_EXE_FILE its very file.
            first_of(
                [1_i64, 8, 13]
                    .map(|what| call(libc::SYS_prctl, [libc::PR_SET_MM.into(), what, 0x1_0000, 0])),
            )
        }),
        ("lower-core-limit", |_| {
            // With none, a host that pipes core dumps into a program starts it over a crash inside.
            let none = [0_u64; 2];
            let limit = i64::from(libc::RLIMIT_CORE);
            let _ = call(libc::SYS_setrlimit, [limit, none.as_ptr() as i64, 0, 0]);
            let _ = call(libc::SYS_prlimit64, [0, limit, none.as_ptr() as i64, 0]);
            let limits = fs::read_to_string("/proc/self/limits")?;
            let core = limits.lines().find(|line| line.starts_with("Max core"));
            let words: Vec<_> = core.unwrap_or_default().split_whitespace().collect();
            if words.get(4..6) == Some(&["1", "1"]) {
                Err(io::Error::other("still one byte"))
            } else {
                Ok(())
            }
        }),
        ("terminals-of-the-host", |_| {
            let names = ["pts/0", "tty1", "ttyS0", "hvc0", "console", "vcs1", "vcsa1"];
            first_of(names.map(|name| fs::File::open(format!("/dev/{name}")).map(drop)))
        }),
        ("host-memory-segment", |facts| {
            // SAFETY: plain numbers.
            check(unsafe { libc::shmget(facts["key"].parse().unwrap(), 0, 0) }.into())
        }),
        ("host-semaphores", |facts| {
            // SAFETY: plain numbers.
            check(unsafe { libc::semget(facts["key"].parse().unwrap(), 0, 0) }.into())
        }),
        ("host-message-queue", |facts| {
            // SAFETY: plain numbers.
            check(unsafe { libc::msgget(facts["key"].parse().unwrap(), 0) }.into())
        }),
        ("steer-kernel", |_| {
            let names = [
                "fs/protected_symlinks",
                "fs/suid_dumpable",
                "kernel/core_pipe_limit",
                "kernel/hotplug",
                "kernel/perf_event_paranoid",
                "kernel/poweroff_cmd",
                "kernel/randomize_va_space",
                "kernel/shmmax",
                "kernel/unprivileged_bpf_disabled",
                "kernel/yama/ptrace_scope",
                "net/ipv4/conf/all/route_localnet",
                "net/ipv4/ip_forward",
                "net/ipv4/ip_nonlocal_bind",
                "net/ipv6/conf/all/forwarding",
                "user/max_user_namespaces",
                "vm/mmap_min_addr",
                "vm/panic_on_oom",
            ];
            first_of(names.map(|name| fs::write(format!("/proc/sys/{name}"), "1")))
        }),
    ]
}

/// Init, which has the same user: it starts, stops and reaps, and nobody inside steers it.
fn processes() -> Vec<(&'static str, Attempt)> {
    vec![
        ("slow-init", |_| {
            let parameters = [0_i32; 2];
            let first_processor = [1_u64; 16];
            let attributes = [56_u32, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let pointer = parameters.as_ptr() as i64;
            first_of([
                call(libc::SYS_setpriority, [0, 1, 19, 0]),
                call(libc::SYS_setpriority, [1, 1, 19, 0]),
                call(libc::SYS_setpriority, [2, 0, 19, 0]),
                call(libc::SYS_setpriority, [2, 1000, 19, 0]),
                call(libc::SYS_ioprio_set, [1, 1, 3 << 13, 0]),
                call(libc::SYS_ioprio_set, [3, 1000, 3 << 13, 0]),
                call(
                    libc::SYS_sched_setaffinity,
                    [1, 128, first_processor.as_ptr() as i64, 0],
                ),
                call(libc::SYS_sched_setscheduler, [1, 5, pointer, 0]),
                call(libc::SYS_sched_setparam, [1, pointer, 0, 0]),
                call(
                    libc::SYS_sched_setattr,
                    [1, attributes.as_ptr() as i64, 0, 0],
                ),
            ])
        }),
        ("steer-init-by-files", |_| {
            let names = [
                "autogroup",
                "clear_refs",
                "comm",
                "coredump_filter",
                "loginuid",
                "oom_adj",
                "sched",
                "setgroups",
                "timerslack_ns",
                "attr/current",
            ];
            first_of(names.map(|name| fs::write(format!("/proc/1/{name}"), "1")))
        }),
        ("read-init-by-thread", |_| {
            let names = [
                "environ",
                "maps",
                "smaps",
                "auxv",
                "syscall",
                "stack",
                "personality",
            ];
            first_of(names.map(|name| readable(&format!("/proc/1/task/1/{name}"))))
        }),
        ("walk-init-by-thread", |_| {
            first_of(
                ["root", "cwd", "fd", "fdinfo", "map_files"]
                    .map(|name| fs::read_dir(format!("/proc/1/task/1/{name}")).map(drop)),
            )
        }),
        ("climb-namespaces", |_| {
            // NS_GET_PARENT of one's own; NS_MNT_GET_PREV, to other mount namespaces.
            let ask = |name: &str, request: i64| {
                let own = fs::File::open(format!("/proc/self/ns/{name}"))?;
                let room = [0_u64; 8];
                call(
                    libc::SYS_ioctl,
                    [own.as_raw_fd().into(), request, room.as_ptr() as i64, 0],
                )
            };
            first_of([
                ask("user", 0xb702),
                ask("pid", 0xb702),
                ask("mnt", 0x8010_b70b),
                ask("mnt", 0x8010_b70c),
            ])
        }),
        ("namespaces-of-init-by-handle", |_| {
            // PIDFD_GET_CGROUP_NAMESPACE and its neighbours, in their order.
            // SAFETY: plain numbers.
            let first = unsafe { libc::syscall(libc::SYS_pidfd_open, 1, 0) };
            first_of((1..=10).map(|number| call(libc::SYS_ioctl, [first, 0xff00 + number, 0, 0])))
        }),
        ("mounts-of-others", |_| {
            // listmount(2) over the namespace of another, by its number.
            let mut found = [0_u64; 16];
            first_of([1_u64, 2, 3].map(|number| {
                let wanted = [(32_u64), u64::MAX, 0, number];
                call(
                    458,
                    [wanted.as_ptr() as i64, found.as_mut_ptr() as i64, 16, 0],
                )
            }))
        }),
        ("reap-init-memory", |_| {
            // SAFETY: plain numbers.
            let first = unsafe { libc::syscall(libc::SYS_pidfd_open, 1, 0) };
            call(libc::SYS_process_mrelease, [first, 0, 0, 0])
        }),
        ("locks-of-init", |_| {
            let (mut head, mut length) = (0_u64, 0_u64);
            call(
                libc::SYS_get_robust_list,
                [1, (&raw mut head) as i64, (&raw mut length) as i64, 0],
            )
        }),
    ]
}

/// Ways past TCP, and the kernel's network code that a program has no business with.
fn networks() -> Vec<(&'static str, Attempt)> {
    vec![
        ("other-protocols", |_| {
            let kinds = [
                (libc::SOCK_DGRAM, 58),      // ICMPv6 ping
                (libc::SOCK_DGRAM, 136),     // UDP-Lite
                (libc::SOCK_DGRAM, 115),     // L2TP
                (6, 33),                     // DCCP
                (libc::SOCK_SEQPACKET, 132), // SCTP
                (libc::SOCK_STREAM, 256),    // SMC
                (libc::SOCK_STREAM, 262),    // MPTCP
                (libc::SOCK_RAW, 255),
            ];
            first_of(
                [libc::AF_INET, libc::AF_INET6]
                    .into_iter()
                    .flat_map(|family| kinds.map(|(kind, number)| socket(family, kind, number))),
            )
        }),
        ("every-other-netlink", |_| {
            first_of((1..24).map(|family| socket(libc::AF_NETLINK, libc::SOCK_RAW, family)))
        }),
        ("pair-of-other-sockets", |_| {
            let mut pair = [0_i32; 2];
            first_of([libc::AF_INET, libc::AF_NETLINK, 30, 40].map(|family| {
                // SAFETY: room for two descriptors.
                check(unsafe { libc::socketpair(family, 1, 0, pair.as_mut_ptr()) }.into())
            }))
        }),
        ("host-abstract-datagram", |facts| {
            use std::os::linux::net::SocketAddrExt as _;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(&facts["abstract"])?;
            std::os::unix::net::UnixDatagram::unbound()?
                .send_to_addr(b"x", &address)
                .map(drop)
        }),
        // A connection that is made by sending, which does not connect first.
        ("fast-open", |_| {
            // SAFETY: plain numbers; zero is valid for this plain struct, which lives through the
            // call, and its length is given.
            unsafe {
                let descriptor = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
                check(descriptor.into())?;
                let mut to: libc::sockaddr_in = std::mem::zeroed();
                to.sin_family = libc::AF_INET as u16;
                to.sin_port = 80_u16.to_be();
                to.sin_addr.s_addr = u32::from_ne_bytes([1, 1, 1, 2]);
                check(libc::sendto(
                    descriptor,
                    c"x".as_ptr().cast(),
                    1,
                    libc::MSG_FASTOPEN,
                    (&raw const to).cast(),
                    size_of::<libc::sockaddr_in>() as u32,
                ) as _)
            }
        }),
        ("change-network", |_| {
            // Links, addresses, neighbours, rules, queues, filters, chains: rtnetlink(7).
            let kinds = [
                16_u16, 17, 19, 20, 21, 28, 32, 36, 40, 44, 68, 80, 100, 104, 112,
            ];
            first_of(kinds.map(|kind| change_route(kind, libc::AF_INET as u8, 0x400)))
        }),
        ("protocol-on-top", |_| {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let stream = TcpStream::connect(listener.local_addr()?)?;
            let names: [&[u8]; 4] = [b"tls", b"espintcp", b"smc", b"mptcp"];
            first_of(names.map(|name| set_bytes(stream.as_raw_fd(), 6, 31, name)))
        }),
        ("steer-packets", |_| {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let stream = TcpStream::connect(listener.local_addr()?)?;
            let one = [1_u8; 64];
            let options = [
                (libc::SOL_SOCKET, 25), // SO_BINDTODEVICE, to a device that isn't there
                (libc::SOL_SOCKET, 33), // SO_RCVBUFFORCE
                (libc::SOL_SOCKET, 32), // SO_SNDBUFFORCE
                (libc::SOL_IP, 16),     // IP_IPSEC_POLICY
                (libc::SOL_IP, 17),     // IP_XFRM_POLICY
                (libc::SOL_IPV6, 35),   // IPV6_XFRM_POLICY
                (6, 19),                // TCP_REPAIR
            ];
            first_of(options.map(|(level, name)| set_bytes(stream.as_raw_fd(), level, name, &one)))
        }),
        ("program-on-socket", |_| {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let descriptor = 0_i32.to_ne_bytes();
            // SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_EBPF.
            first_of(
                [50, 52].map(|name| {
                    set_bytes(listener.as_raw_fd(), libc::SOL_SOCKET, name, &descriptor)
                }),
            )
        }),
        ("be-somebody-else-on-a-socket", |_| {
            // Credentials of another process, which root alone may send.
            // SAFETY: plain numbers; the descriptors are owned from here on.
            let (near, _far) = unsafe {
                let mut pair = [0_i32; 2];
                check(libc::socketpair(libc::AF_UNIX, 1, 0, pair.as_mut_ptr()).into())?;
                (OwnedFd::from_raw_fd(pair[0]), OwnedFd::from_raw_fd(pair[1]))
            };
            send_as(near.as_raw_fd(), [1, 0, 0])
        }),
    ]
}

/// Traces a child, which may be, and makes another call of the harmless one that it begins: a filter
/// that had looked before would have seen the harmless one.
#[cfg(target_arch = "x86_64")]
fn under_trace() -> io::Result<()> {
    // SAFETY: the child calls only what is safe after fork; the registers are a plain struct that
    // lives through the calls.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            libc::raise(libc::SIGSTOP);
            libc::syscall(libc::SYS_getppid);
            libc::_exit(0);
        }
        check(child.into())?;
        let mut status = 0;
        check(libc::waitpid(child, &raw mut status, 0).into())?;
        let mut registers: libc::user_regs_struct = std::mem::zeroed();
        let mut changed = false;
        let outcome = loop {
            check(libc::ptrace(libc::PTRACE_SYSCALL, child, 0, 0))?;
            check(libc::waitpid(child, &raw mut status, 0).into())?;
            if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                return Err(io::Error::other("it ended before"));
            }
            check(libc::ptrace(
                libc::PTRACE_GETREGS,
                child,
                0,
                &raw mut registers,
            ))?;
            if changed {
                break registers.rax as i64;
            }
            if registers.orig_rax as i64 == libc::SYS_getppid {
                registers.orig_rax = libc::SYS_unshare as u64;
                registers.rdi = libc::CLONE_NEWUSER as u64;
                check(libc::ptrace(
                    libc::PTRACE_SETREGS,
                    child,
                    0,
                    &raw const registers,
                ))?;
                changed = true;
            }
        };
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, &raw mut status, 0);
        if outcome == 0 {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(-outcome as i32))
        }
    }
}

/// Sends one byte with a process, user and group that are claimed (`SCM_CREDENTIALS`).
fn send_as(socket: c_int, claimed: [i32; 3]) -> io::Result<()> {
    let mut byte = 0_u8;
    let mut part = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let mut control = [0_u64; 4];
    // SAFETY: zero is valid for this plain struct; all it points to lives through the call; the
    // control buffer is aligned, and longer than a header and three numbers.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(12) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = 2;
        (*header).cmsg_len = libc::CMSG_LEN(12) as _;
        libc::CMSG_DATA(header)
            .cast::<[i32; 3]>()
            .write_unaligned(claimed);
        check(libc::sendmsg(socket, &raw const message, 0) as _)
    }
}

fn attribute(path: &CStr, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: strings that end, and bytes with their length.
    check(
        unsafe {
            libc::setxattr(
                path.as_ptr(),
                name.as_ptr(),
                value.as_ptr().cast(),
                value.len(),
                0,
            )
        }
        .into(),
    )
}

/// Whether a file was emptied; one that wasn't is a refusal.
fn unless_empty(path: &str) -> io::Result<()> {
    if fs::metadata(path)?.len() == 0 {
        Ok(())
    } else {
        Err(io::Error::other("as it was"))
    }
}
