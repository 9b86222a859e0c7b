//! What a hostile program tries, for the tests: `attempt all KEY=VALUE…` tries everything and
//! prints one line each, `NAME refused ERROR` or `NAME DONE` (`only=A,B` tries these alone); `attempt NAME …` does one thing.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a program for tests, whose output is its result"
)]

use std::collections::BTreeMap;
use std::ffi::{c_int, c_long};
use std::fs;
use std::io;
use std::net::{TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};

mod corners;
mod newer;
mod packets;
mod wider;
mod without;

type Facts = BTreeMap<String, String>;
type Attempt = fn(&Facts) -> io::Result<()>;

fn main() {
    let mut words = std::env::args().skip(1);
    let what = words.next().unwrap_or_default();
    if what == "without" {
        without::become_program(&words.collect::<Vec<_>>());
        return;
    }
    let facts: Facts = words
        .filter_map(|word| {
            word.split_once('=')
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        })
        .collect();
    match what.as_str() {
        "all" => {
            let only = facts.get("only");
            let more = wider::attempts()
                .into_iter()
                .chain(packets::attempts())
                .chain(corners::attempts())
                .chain(newer::attempts());
            for (name, attempt) in more.chain(attempts()) {
                if only.is_some_and(|only| !only.split(',').any(|one| one == name)) {
                    continue;
                }
                match attempt(&facts) {
                    Ok(()) => println!("{name} DONE"),
                    Err(error) => println!("{name} refused {error}"),
                }
            }
        }
        "fork-bomb" => fork_bomb(),
        "old-numbering" => old_numbering(),
        "signal-games" => signal_games(),
        "daemon" => daemon(facts.get("mark").map_or("", String::as_str)),
        "flip" => flip(facts.get("outside").map_or("", String::as_str)),
        "terminals" => {
            let open = || fs::File::options().read(true).write(true).open("/dev/ptmx");
            let held: Vec<_> = std::iter::repeat_with(open)
                .take(1_000)
                .map_while(Result::ok)
                .collect();
            println!("{}", held.len());
        }
        "shared-memory" => println!("{}", newer::shared_memory().join(" ")),
        "memory" => {
            let mut held = Vec::new();
            for _ in 0..64 {
                held.push(vec![1_u8; 16 * 1024 * 1024]);
            }
            println!("{} MiB", held.len() * 16);
        }
        other => println!("unknown attempt {other}"),
    }
}

/// Calls by the numbers of 32-bit programs, which a filter for one architecture does not see.
fn old_numbering() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: getpid takes no arguments and touches no memory; `int 0x80` keeps all registers but
    // the accumulator.
    unsafe {
        let mut answer: i64 = 20;
        std::arch::asm!("int 0x80", inout("rax") answer);
        println!("DONE {answer}");
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::process::abort();
}

/// Everything that one process can do to others by signals; says that it is still there.
fn signal_games() {
    for signal in [libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, libc::SIGTERM] {
        for target in [1, -1] {
            let _ = kill(target, signal);
        }
        // SAFETY: plain numbers; a descriptor that is refused is -1.
        unsafe {
            let first = libc::syscall(libc::SYS_pidfd_open, 1, 0);
            libc::syscall(libc::SYS_pidfd_send_signal, first, signal, 0, 0);
        }
    }
    println!("still here");
}

/// Leaves its session, its parent and its standard descriptors, and refuses to die.
fn daemon(mark: &str) {
    // SAFETY: no thread was started; the children only ignore signals, close and start a program.
    unsafe {
        if libc::fork() == 0 {
            libc::setsid();
            if libc::fork() == 0 {
                for signal in 1..32 {
                    libc::signal(signal, libc::SIG_IGN);
                }
                for descriptor in 0..3 {
                    libc::close(descriptor);
                }
                let _ = std::process::Command::new("sh")
                    .args(["-c", &format!("trap '' HUP TERM INT; sleep 1000; : {mark}")])
                    .status();
            }
            libc::_exit(0);
        }
    }
    println!("left");
}

/// Makes a name a directory and a link to elsewhere, in turns, as fast as it can.
fn flip(outside: &str) {
    let _ = fs::create_dir("real");
    let _ = fs::write("real/secret", "harmless");
    let _ = std::os::unix::fs::symlink(outside, "link");
    fs::write("ready", "").unwrap();
    loop {
        let _ = fs::rename("real", "name");
        let _ = fs::rename("name", "real");
        let _ = fs::rename("link", "name");
        let _ = fs::rename("name", "link");
    }
}

/// Forks until it can't, and says how often it could.
fn fork_bomb() {
    let mut children = 0;
    loop {
        // SAFETY: the child calls only `pause` and `_exit`, which are safe after fork.
        let pid = unsafe { libc::fork() };
        match pid {
            0 => loop {
                // SAFETY: no arguments.
                unsafe { libc::pause() };
            },
            -1 => break,
            _ => children += 1,
        }
        if children > 20_000 {
            break;
        }
    }
    println!("{children}");
}

fn attempts() -> Vec<(&'static str, Attempt)> {
    vec![
        // Files of the host.
        ("read-host-secret", |facts| {
            fs::read(&facts["secret"]).map(drop)
        }),
        ("read-host-shadow", |_| fs::read("/etc/shadow").map(drop)),
        ("list-host-root-home", |_| fs::read_dir("/root").map(drop)),
        ("read-dotdot", |facts| {
            fs::read(format!("/workspace/../../../..{}", facts["secret"])).map(drop)
        }),
        ("open-disk", |_| fs::read("/dev/vda").map(drop)),
        ("open-memory", |_| fs::File::open("/dev/mem").map(drop)),
        ("open-kernel-log", |_| fs::read("/dev/kmsg").map(drop)),
        ("read-kcore", |_| readable("/proc/kcore")),
        ("read-keys", |_| readable("/proc/keys")),
        // Boot loaders hand secrets over in it.
        ("read-kernel-command-line", |_| readable("/proc/cmdline")),
        ("watch-interrupts", |_| readable("/proc/interrupts")),
        ("write-usr", |_| fs::write("/usr/bin/evil", "x")),
        ("write-etc", |_| fs::write("/etc/passwd", "x")),
        ("write-root", |_| fs::write("/evil", "x")),
        ("write-toolchain-through-link", |_| {
            let _ = std::os::unix::fs::symlink("/usr/lib/evil", "/tmp/link");
            fs::write("/tmp/link", "x")
        }),
        ("write-core-pattern", |_| {
            fs::write("/proc/sys/kernel/core_pattern", "|/tmp/x")
        }),
        ("write-sysrq", |_| {
            fs::File::options()
                .write(true)
                .open("/proc/sysrq-trigger")
                .and_then(|mut file| {
                    // Covered by /dev/null, so writing "works" and does nothing; what counts is the size.
                    io::Write::write_all(&mut file, b"x")?;
                    Err(io::Error::other("swallowed"))
                })
        }),
        ("make-device", |_| {
            // SAFETY: a static string and plain numbers.
            check(
                unsafe {
                    libc::mknod(
                        c"/tmp/disk".as_ptr(),
                        libc::S_IFBLK | 0o600,
                        libc::makedev(254, 0),
                    )
                }
                .into(),
            )
        }),
        ("write-boot-settings", |_| {
            fs::write("/proc/sys/vm/drop_caches", "1")
        }),
        ("write-modprobe-path", |_| {
            fs::write("/proc/sys/kernel/modprobe", "/tmp/x")
        }),
        ("write-own-importance", |_| {
            fs::write("/proc/self/oom_score_adj", "-1000")
        }),
        ("write-user-map", |_| {
            fs::write("/proc/self/uid_map", "0 0 1")
        }),
        ("open-kvm", |_| fs::File::open("/dev/kvm").map(drop)),
        ("open-fuse", |_| fs::File::open("/dev/fuse").map(drop)),
        ("open-tunnel", |_| fs::File::open("/dev/net/tun").map(drop)),
        ("list-sys", |_| fs::read_dir("/sys").map(drop)),
        ("write-sys", |_| fs::write("/sys/power/state", "mem")),
        ("read-host-cgroups", |_| {
            let own = fs::read_to_string("/proc/self/cgroup")?;
            let outside = own
                .lines()
                .any(|line| !line.ends_with(":/") && !line.is_empty());
            if outside {
                Ok(())
            } else {
                Err(io::Error::other("only its own root"))
            }
        }),
        ("find-keyring", |_| {
            readable("/proc/key-users").and_then(|()| readable("/proc/keys"))
        }),
        ("find-bus", |_| {
            let names = ["/run/dbus/system_bus_socket", "/run/user/0/bus"];
            names
                .iter()
                .find(|name| UnixStream::connect(name).is_ok())
                .map(drop)
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        }),
        ("find-agents", |_| {
            [
                "SSH_AUTH_SOCK",
                "GPG_AGENT_INFO",
                "DBUS_SESSION_BUS_ADDRESS",
            ]
            .iter()
            .find_map(std::env::var_os)
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
        }),
        ("climb-by-descriptor", |_| {
            // A directory that was opened before a rename leads no further up than the root.
            let mut at = fs::File::open("/workspace")?;
            for _ in 0..64 {
                at = fs::File::open(format!(
                    "/proc/self/fd/{}/..",
                    std::os::fd::AsRawFd::as_raw_fd(&at)
                ))?;
            }
            fs::read(format!(
                "/proc/self/fd/{}/etc/shadow",
                std::os::fd::AsRawFd::as_raw_fd(&at)
            ))
            .map(drop)
        }),
        ("gain-by-program", |_| {
            let _ = fs::copy("/bin/sh", "/tmp/sh");
            let path = c"/tmp/sh";
            // SAFETY: a static string.
            unsafe { libc::chmod(path.as_ptr(), 0o6777) };
            let output = std::process::Command::new("/tmp/sh")
                .args(["-p", "-c", "id -u"])
                .output()?;
            match String::from_utf8_lossy(&output.stdout).trim() {
                "0" => Ok(()),
                other => Err(io::Error::other(format!("still {other}"))),
            }
        }),
        // Other processes.
        ("see-host-process", |facts| {
            fs::read(format!("/proc/{}/cmdline", facts["pid"])).map(drop)
        }),
        ("signal-host-process", |facts| {
            kill(facts["pid"].parse().unwrap(), 0)
        }),
        ("kill-init", |_| {
            kill(1, libc::SIGKILL)?;
            // Signals of the namespace to its init are dropped without an error; it lives.
            kill(1, 0)?;
            Err(io::Error::other("survived"))
        }),
        ("read-init-environment", |_| {
            fs::read("/proc/1/environ").map(drop)
        }),
        ("read-init-memory", |_| {
            fs::File::open("/proc/1/mem").map(drop)
        }),
        ("walk-init-root", |_| fs::read_dir("/proc/1/root").map(drop)),
        ("list-init-descriptors", |_| {
            fs::read_dir("/proc/1/fd").map(drop)
        }),
        ("open-init-program", |_| {
            fs::File::open("/proc/1/exe").map(drop)
        }),
        ("map-init", |_| readable("/proc/1/maps")),
        ("follow-init-namespace", |_| {
            fs::read_link("/proc/1/ns/net").map(drop)
        }),
        ("hold-init", |_| {
            // SAFETY: plain numbers.
            let first = unsafe { libc::syscall(libc::SYS_pidfd_open, 1, 0) };
            call(libc::SYS_pidfd_getfd, [first, 0, 0, 0])
        }),
        ("compare-init", |_| call(libc::SYS_kcmp, [1, 1, 0, 0])),
        ("advise-init", |_| {
            call(libc::SYS_process_madvise, [0, 0, 0, 0])
        }),
        ("write-other-memory", |_| {
            call(libc::SYS_process_vm_writev, [1, 0, 0, 0])
        }),
        ("hurry-itself", |_| {
            // SAFETY: plain numbers.
            check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -10) }.into())
        }),
        ("run-in-real-time", |_| {
            // SAFETY: zero is valid for this plain struct, which lives through the call.
            unsafe {
                let mut wanted: libc::sched_param = std::mem::zeroed();
                wanted.sched_priority = 1;
                check(libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const wanted).into())
            }
        }),
        ("trace-init", |_| call(libc::SYS_ptrace, [16, 1, 0, 0])),
        ("seize-init", |_| call(libc::SYS_ptrace, [0x4206, 1, 0, 0])),
        ("trace-parent", |_| {
            call(
                libc::SYS_ptrace,
                [16, i64::from(std::os::unix::process::parent_id()), 0, 0],
            )
        }),
        ("read-other-memory", |_| {
            call(libc::SYS_process_vm_readv, [1, 0, 0, 0])
        }),
        ("take-descriptor", |_| {
            call(libc::SYS_pidfd_getfd, [0, 0, 0, 0])
        }),
        ("limit-init", |_| call(libc::SYS_prlimit64, [1, 7, 0, 0])),
        // Namespaces, mounts, rights.
        ("unshare-user", |_| {
            call(libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0])
        }),
        ("unshare-mount", |_| {
            call(libc::SYS_unshare, [libc::CLONE_NEWNS.into(), 0, 0, 0])
        }),
        ("unshare-network", |_| {
            call(libc::SYS_unshare, [libc::CLONE_NEWNET.into(), 0, 0, 0])
        }),
        ("clone-user", |_| {
            call(
                libc::SYS_clone,
                [i64::from(libc::CLONE_NEWUSER | libc::SIGCHLD), 0, 0, 0],
            )
        }),
        ("clone3", |_| call(libc::SYS_clone3, [0, 0, 0, 0])),
        ("join-namespace", |_| {
            let own = fs::File::open("/proc/self/ns/net")?;
            call(
                libc::SYS_setns,
                [std::os::fd::AsRawFd::as_raw_fd(&own).into(), 0, 0, 0],
            )
        }),
        ("unshare-time", |_| call(libc::SYS_unshare, [0x80, 0, 0, 0])),
        ("unshare-pid", |_| {
            call(libc::SYS_unshare, [libc::CLONE_NEWPID.into(), 0, 0, 0])
        }),
        ("unshare-cgroup", |_| {
            call(libc::SYS_unshare, [libc::CLONE_NEWCGROUP.into(), 0, 0, 0])
        }),
        ("open-filesystem", |_| {
            call(libc::SYS_fsopen, [c"tmpfs".as_ptr() as i64, 0, 0, 0])
        }),
        ("move-mount", |_| {
            call(
                libc::SYS_move_mount,
                [
                    libc::AT_FDCWD.into(),
                    c"/usr".as_ptr() as i64,
                    libc::AT_FDCWD.into(),
                    c"/tmp".as_ptr() as i64,
                ],
            )
        }),
        ("set-mount-attributes", |_| {
            call(
                libc::SYS_mount_setattr,
                [libc::AT_FDCWD.into(), c"/usr".as_ptr() as i64, 0, 0],
            )
        }),
        ("mount-tmpfs", |_| mount(c"tmpfs", c"/tmp", c"tmpfs", 0)),
        ("mount-proc", |_| mount(c"proc", c"/tmp", c"proc", 0)),
        ("remount-usr-writable", |_| {
            mount(c"none", c"/usr", c"", libc::MS_REMOUNT | libc::MS_BIND)
        }),
        ("bind-elsewhere", |_| {
            mount(c"/usr", c"/tmp", c"", libc::MS_BIND)
        }),
        ("unmount-workspace", |_| {
            // SAFETY: a static string.
            check(unsafe { libc::umount2(c"/proc/sys".as_ptr(), libc::MNT_DETACH) }.into())
        }),
        ("open-tree", |_| {
            call(
                libc::SYS_open_tree,
                [libc::AT_FDCWD.into(), c"/".as_ptr() as i64, 1, 0],
            )
        }),
        ("pivot-root", |_| {
            call(
                libc::SYS_pivot_root,
                [c"/tmp".as_ptr() as i64, c"/tmp".as_ptr() as i64, 0, 0],
            )
        }),
        ("chroot", |_| {
            call(libc::SYS_chroot, [c"/tmp".as_ptr() as i64, 0, 0, 0])
        }),
        ("become-root", |_| call(libc::SYS_setuid, [0, 0, 0, 0])),
        ("set-host-name", |_| {
            call(libc::SYS_sethostname, [c"evil".as_ptr() as i64, 4, 0, 0])
        }),
        ("set-clock", |_| call(libc::SYS_settimeofday, [0, 0, 0, 0])),
        ("turn-clock", |_| {
            call(libc::SYS_clock_settime, [0, 0, 0, 0])
        }),
        ("tune-clock", |_| call(libc::SYS_adjtimex, [0, 0, 0, 0])),
        ("account", |_| {
            call(libc::SYS_acct, [c"/tmp/x".as_ptr() as i64, 0, 0, 0])
        }),
        ("swap", |_| {
            call(libc::SYS_swapon, [c"/tmp/x".as_ptr() as i64, 0, 0, 0])
        }),
        ("watch-everything", |_| {
            call(libc::SYS_fanotify_init, [0, 0, 0, 0])
        }),
        ("file-handle", |_| {
            call(libc::SYS_open_by_handle_at, [0, 0, 0, 0])
        }),
        ("load-module", |_| call(libc::SYS_init_module, [0, 0, 0, 0])),
        ("load-kernel", |_| call(libc::SYS_kexec_load, [0, 0, 0, 0])),
        ("reboot", |_| call(libc::SYS_reboot, [0, 0, 0, 0])),
        // Kernel surface.
        ("io-uring", |_| call(libc::SYS_io_uring_setup, [8, 0, 0, 0])),
        ("bpf", |_| call(libc::SYS_bpf, [0, 0, 0, 0])),
        ("perf", |_| call(libc::SYS_perf_event_open, [0, 0, -1, -1])),
        ("keyctl", |_| call(libc::SYS_keyctl, [0, -3, 0, 0])),
        ("add-key", |_| {
            call(
                libc::SYS_add_key,
                [
                    c"user".as_ptr() as i64,
                    c"x".as_ptr() as i64,
                    c"y".as_ptr() as i64,
                    1,
                ],
            )
        }),
        ("userfaultfd", |_| call(libc::SYS_userfaultfd, [1, 0, 0, 0])),
        ("type-into-terminal", |_| {
            call(libc::SYS_ioctl, [0, 0x7_0000_5412, c"x".as_ptr() as i64, 0])
        }),
        ("other-numbering", |_| {
            call(0x4000_0000 | libc::SYS_getpid, [0; 4])
        }),
        ("unknown-call", |_| call(900, [0; 4])),
        // Networks.
        ("raw-socket", |_| {
            socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)
        }),
        ("ping-socket", |_| {
            socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP)
        }),
        ("packet-socket", |_| {
            socket(libc::AF_PACKET, libc::SOCK_RAW, 0)
        }),
        ("vsock", |_| socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
        ("crypto-socket", |_| {
            socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)
        }),
        ("stream-by-other-protocol", |_| {
            socket(libc::AF_INET, libc::SOCK_STREAM, 132)
        }),
        ("multipath-socket", |_| {
            socket(libc::AF_INET, libc::SOCK_STREAM, 262)
        }),
        ("generic-netlink", |_| {
            socket(libc::AF_NETLINK, libc::SOCK_RAW, 16)
        }),
        ("device-netlink", |_| {
            socket(libc::AF_NETLINK, libc::SOCK_RAW, 15)
        }),
        ("diagnose-netlink", |_| {
            socket(libc::AF_NETLINK, libc::SOCK_RAW, 4)
        }),
        ("bluetooth-socket", |_| {
            socket(libc::AF_BLUETOOTH, libc::SOCK_STREAM, 0)
        }),
        ("audit-netlink", |_| {
            socket(libc::AF_NETLINK, libc::SOCK_RAW, 9)
        }),
        ("host-loopback", |facts| {
            TcpStream::connect(("127.0.0.1", facts["port"].parse().unwrap())).map(drop)
        }),
        ("public-address", |_| {
            TcpStream::connect(("1.1.1.1", 80)).map(drop)
        }),
        ("udp-out", |_| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.send_to(b"x", ("8.8.8.8", 53)).map(drop)
        }),
        ("metadata-service", |_| {
            TcpStream::connect(("169.254.169.254", 80)).map(drop)
        }),
        ("host-abstract-socket", |facts| {
            UnixStream::connect_addr(&SocketAddr::from_abstract_name(&facts["abstract"])?).map(drop)
        }),
        ("host-unix-socket", |facts| {
            UnixStream::connect(&facts["socket"]).map(drop)
        }),
        ("docker-socket", |_| {
            UnixStream::connect("/var/run/docker.sock").map(drop)
        }),
    ]
}

fn readable(path: &str) -> io::Result<()> {
    let bytes = fs::read(path)?;
    if bytes.is_empty() {
        Err(io::Error::other("empty"))
    } else {
        Ok(())
    }
}

fn mount(
    from: &std::ffi::CStr,
    to: &std::ffi::CStr,
    kind: &std::ffi::CStr,
    flags: u64,
) -> io::Result<()> {
    // SAFETY: static strings; no data.
    check(
        unsafe {
            libc::mount(
                from.as_ptr(),
                to.as_ptr(),
                kind.as_ptr(),
                flags,
                std::ptr::null(),
            )
        }
        .into(),
    )
}

/// Done where any is done, else what the last one was refused with.
fn first_of(tries: impl IntoIterator<Item = io::Result<()>>) -> io::Result<()> {
    let mut last = Err(io::ErrorKind::NotFound.into());
    for one in tries {
        if one.is_ok() {
            return Ok(());
        }
        last = one;
    }
    last
}

fn socket(family: c_int, kind: c_int, protocol: c_int) -> io::Result<()> {
    // SAFETY: plain numbers; the descriptor, if any, stays open until the end.
    check(unsafe { libc::socket(family, kind, protocol) }.into())
}

fn kill(pid: i32, signal: c_int) -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::kill(pid, signal) }.into())
}

fn call(number: i64, arguments: [i64; 4]) -> io::Result<()> {
    let [a, b, c, d] = arguments;
    // SAFETY: pointers among the arguments are to static strings or null; the calls are expected
    // to be refused before any is used.
    check(unsafe { libc::syscall(number, a, b, c, d, 0_i64, 0_i64) })
}

fn check(result: c_long) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
