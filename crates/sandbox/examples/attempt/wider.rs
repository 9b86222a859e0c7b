//! Attempts beside those of files, processes and namespaces: what outlives a run, what is left to
//! a process without rights, the kernel's odd corners, and every way to another machine.

use std::ffi::c_int;
use std::fs;
use std::io::{self, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use super::{Attempt, call, check, first_of, kill, mount, socket};

pub(super) fn attempts() -> Vec<(&'static str, Attempt)> {
    vec![
        // What was left open, before anything here opens more.
        ("find-open-descriptor", |_| {
            let leaked = (3..1024).find(|number| {
                // SAFETY: plain numbers.
                unsafe { libc::fcntl(*number, libc::F_GETFD) >= 0 }
            });
            leaked
                .map(drop)
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        }),
        // What would be there for others when the run is over.
        ("leave-set-user-id-program", |_| {
            let _ = fs::copy("/bin/sh", "/workspace/sh");
            for mode in [0o4755, 0o2755, 0o6755] {
                let _ = fs::set_permissions("/workspace/sh", fs::Permissions::from_mode(mode));
            }
            set_user_id("/workspace/sh")
        }),
        ("make-set-user-id-program", |_| {
            let mut made = fs::File::options()
                .write(true)
                .create_new(true)
                .mode(0o6755)
                .open("/workspace/made")?;
            made.write_all(b"#!/bin/sh\n")?;
            set_user_id("/workspace/made")
        }),
        ("grow-set-user-id-program", |_| {
            let made = fs::File::options()
                .write(true)
                .create_new(true)
                .mode(0o4755)
                .open("/workspace/grown")?;
            made.set_len(4096)?;
            set_user_id("/workspace/grown")
        }),
        ("leave-device", |_| {
            // SAFETY: a static string and plain numbers.
            check(
                unsafe {
                    libc::mknod(
                        c"/workspace/memory".as_ptr(),
                        libc::S_IFCHR | 0o666,
                        libc::makedev(1, 1),
                    )
                }
                .into(),
            )
        }),
        ("link-to-host-program", |_| {
            fs::hard_link("/usr/bin/env", "/workspace/env")
        }),
        ("write-above-workspace", |_| {
            fs::write("/workspace/../evil", "x")
        }),
        ("move-workspace", |_| fs::rename("/workspace", "/tmp/moved")),
        ("write-in-given-places", |_| {
            ["/usr/local/bin/x", "/etc/profile.d/x", "/lib/x", "/bin/x"]
                .into_iter()
                .find(|place| fs::write(place, "x").is_ok())
                .map(drop)
                .ok_or_else(|| io::ErrorKind::PermissionDenied.into())
        }),
        // What is held.
        ("hold-any-right", |_| {
            let held = (0..64).any(|right| {
                // SAFETY: plain numbers.
                unsafe { libc::prctl(libc::PR_CAPBSET_READ, right, 0, 0, 0) == 1 }
            });
            if held {
                Ok(())
            } else {
                Err(io::Error::other("none"))
            }
        }),
        ("raise-right", |_| {
            prctl(libc::PR_CAP_AMBIENT, [2, 21, 0, 0])
        }),
        ("free-root", |_| prctl(libc::PR_SET_SECUREBITS, [0; 4])),
        ("undo-no-new-rights", |_| {
            prctl(libc::PR_SET_NO_NEW_PRIVS, [0; 4])
        }),
        ("undo-filter", |_| prctl(libc::PR_SET_SECCOMP, [0; 4])),
        ("become-group", |_| call(libc::SYS_setgid, [0; 4])),
        ("become-saved", |_| {
            call(libc::SYS_setresuid, [-1, -1, 0, 0])
        }),
        ("join-groups", |_| call(libc::SYS_setgroups, [0; 4])),
        ("raise-own-limit", |_| {
            let wanted = [u64::MAX, u64::MAX];
            // That of core dumps: `lower-core-limit`.
            let resources = [libc::RLIMIT_NOFILE, libc::RLIMIT_FSIZE];
            resources
                .into_iter()
                .map(|resource| {
                    call(
                        libc::SYS_prlimit64,
                        [0, i64::from(resource), wanted.as_ptr() as i64, 0],
                    )
                })
                .find(Result::is_ok)
                .unwrap_or_else(|| Err(io::ErrorKind::PermissionDenied.into()))
        }),
        // Others.
        ("signal-host-group", |facts| {
            kill(-facts["pid"].parse::<i32>().unwrap(), 0)
        }),
        ("queue-signal-to-host", |facts| {
            let information = [0_u64; 16];
            call(
                libc::SYS_rt_sigqueueinfo,
                [
                    facts["pid"].parse().unwrap(),
                    10,
                    information.as_ptr() as i64,
                    0,
                ],
            )
        }),
        ("hold-host-process", |facts| {
            call(
                libc::SYS_pidfd_open,
                [facts["pid"].parse().unwrap(), 0, 0, 0],
            )
        }),
        ("steer-host-process", |facts| {
            call(
                libc::SYS_sched_setaffinity,
                [facts["pid"].parse().unwrap(), 0, 0, 0],
            )
        }),
        ("spare-init", |_| fs::write("/proc/1/oom_score_adj", "0")),
        ("write-init-memory", |_| {
            fs::File::options()
                .write(true)
                .open("/proc/1/mem")
                .map(drop)
        }),
        ("choose-process-ids", |_| {
            fs::write("/proc/sys/kernel/ns_last_pid", "1")
        }),
        // The kernel's corners.
        ("register-interpreter", |_| {
            fs::write("/proc/sys/fs/binfmt_misc/register", ":x:M::x::/tmp/x:")
        }),
        ("steer-interrupts", |_| {
            fs::write("/proc/irq/default_smp_affinity", "1")
        }),
        ("steer-memory", |_| {
            fs::write("/proc/sys/vm/overcommit_memory", "1")
        }),
        ("steer-network", |_| {
            fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
        }),
        ("set-uevent-helper", |_| {
            fs::write("/sys/kernel/uevent_helper", "/tmp/x")
        }),
        ("mount-cgroup", |_| mount(c"cgroup", c"/tmp", c"cgroup", 0)),
        ("mount-cgroup2", |_| mount(c"none", c"/tmp", c"cgroup2", 0)),
        ("mount-sysfs", |_| mount(c"sysfs", c"/tmp", c"sysfs", 0)),
        ("mount-overlay", |_| {
            mount(c"overlay", c"/usr", c"overlay", 0)
        }),
        ("mount-devices", |_| {
            mount(c"devtmpfs", c"/tmp", c"devtmpfs", 0)
        }),
        ("io-uring-enter", |_| {
            call(libc::SYS_io_uring_enter, [0, 1, 0, 0])
        }),
        ("io-uring-register", |_| {
            call(libc::SYS_io_uring_register, [0; 4])
        }),
        ("read-kernel-log", |_| call(libc::SYS_syslog, [3, 0, 0, 0])),
        ("load-module-file", |_| call(libc::SYS_finit_module, [0; 4])),
        ("executable-data", |_| {
            call(libc::SYS_personality, [0x040_0000, 0, 0, 0])
        }),
        ("map-page-zero", |_| {
            let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            // SAFETY: a fixed mapping at 0, where nothing of this process is.
            let mapped = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    4096,
                    libc::PROT_READ | libc::PROT_WRITE,
                    anonymous,
                    -1,
                    0,
                )
            };
            if mapped == libc::MAP_FAILED {
                Err(io::Error::last_os_error())
            } else {
                Ok(())
            }
        }),
        ("odd-sockets", |_| {
            // Each loads a module of the kernel's where it may be made.
            let families = [
                3, 5, 6, 9, 12, 15, 19, 20, 21, 23, 24, 26, 29, 30, 33, 37, 39, 41, 43, 44,
            ];
            families
                .into_iter()
                .flat_map(|family| [1, 2, 3, 5].map(|kind| socket(family, kind, 0)))
                .find(Result::is_ok)
                .unwrap_or_else(|| Err(io::ErrorKind::Unsupported.into()))
        }),
        // Other machines.
        ("dns-by-stream", |_| reach("8.8.8.8:53")),
        ("dns-of-the-host", |_| {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01";
            socket.send_to(query, "127.0.0.53:53")?;
            socket.recv(&mut [0; 512]).map(drop)
        }),
        ("dns-of-the-system", |_| {
            use std::net::ToSocketAddrs as _;
            "example.com:80".to_socket_addrs().map(drop)
        }),
        ("ipv6-out", |_| reach("[2606:4700:4700::1111]:443")),
        ("multicast", |_| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.send_to(b"x", "224.0.0.251:5353").map(drop)
        }),
        ("broadcast", |_| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_broadcast(true)?;
            socket.send_to(b"x", "255.255.255.255:67").map(drop)
        }),
        ("neighbours", |_| {
            let places = [
                "10.0.0.1:80",
                "172.17.0.1:80",
                "192.168.1.1:80",
                "100.64.0.1:80",
            ];
            first_of(places.into_iter().map(reach))
        }),
        ("mapped-loopback", |facts| {
            reach(&format!("[::ffff:127.0.0.1]:{}", facts["port"]))
        }),
        ("any-loopback", |facts| {
            reach(&format!("0.0.0.0:{}", facts["port"]))
        }),
        ("add-interface", |_| {
            // SAFETY: plain numbers.
            let descriptor = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0) };
            let mut request = [0_u8; 64];
            request[..2].copy_from_slice(b"lo");
            // SIOCSIFFLAGS
            call(
                libc::SYS_ioctl,
                [
                    i64::from(descriptor),
                    0x8914,
                    request.as_mut_ptr() as i64,
                    0,
                ],
            )
        }),
        ("daemons-of-the-host", |_| {
            let places = [
                "/run/docker.sock",
                "/run/podman/podman.sock",
                "/run/containerd/containerd.sock",
                "/run/crio/crio.sock",
                "/run/snapd.socket",
                "/run/systemd/private",
                "/run/systemd/journal/socket",
                "/run/nscd/socket",
                "/run/pcscd/pcscd.comm",
                "/run/postgresql/.s.PGSQL.5432",
                "/dev/log",
                "/tmp/.X11-unix/X0",
                "/tmp/.ICE-unix/1",
            ];
            first_of(
                places
                    .into_iter()
                    .map(|place| UnixStream::connect(place).map(drop)),
            )
        }),
        ("abstract-daemons", |_| {
            let names = ["/tmp/.X11-unix/X0", "/containerd-shim/x.sock", "dbus"];
            first_of(names.into_iter().map(|name| {
                UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?).map(drop)
            }))
        }),
        ("credentials-in-homes", |_| {
            let names = [
                ".ssh/id_ed25519",
                ".aws/credentials",
                ".config/gcloud",
                ".kube/config",
                ".docker/config.json",
                ".netrc",
                ".npmrc",
                ".cargo/credentials.toml",
                ".gnupg",
                ".git-credentials",
                ".config/gh/hosts.yml",
                ".codex/auth.json",
            ];
            let homes = ["/root", "/home/agent"];
            let found = homes
                .into_iter()
                .flat_map(|home| names.map(|name| format!("{home}/{name}")))
                .find(|path| fs::metadata(path).is_ok());
            found
                .map(drop)
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        }),
    ]
}

/// Whether a program there gives its caller another user or group.
fn set_user_id(path: &str) -> io::Result<()> {
    let data = fs::metadata(path)?;
    if data.mode() & 0o6000 != 0 && data.len() > 0 {
        Ok(())
    } else {
        Err(io::Error::other(format!("mode {:o}", data.mode())))
    }
}

fn reach(place: &str) -> io::Result<()> {
    let place = place.parse().map_err(io::Error::other)?;
    // Where nothing is there the kernel says so at once; the rest is for a machine that is busy.
    TcpStream::connect_timeout(&place, Duration::from_secs(10)).map(drop)
}

fn prctl(what: c_int, arguments: [u64; 4]) -> io::Result<()> {
    let [a, b, c, d] = arguments;
    // SAFETY: plain numbers.
    check(unsafe { libc::prctl(what, a, b, c, d) }.into())
}
