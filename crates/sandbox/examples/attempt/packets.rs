//! Attempts on what captures a run's connections: its routes, its filter, the launcher's ports, and
//! addresses that are somebody else's.

use std::ffi::{c_int, c_void};
use std::fs;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsRawFd as _;

use super::{Attempt, check, first_of, socket};

pub(super) fn attempts() -> Vec<(&'static str, Attempt)> {
    vec![
        ("filter-netlink", |_| {
            socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER)
        }),
        ("read-filter", |_| {
            // IPT_SO_GET_INFO, and the same of IPv6, on any socket.
            let plain = UdpSocket::bind("127.0.0.1:0")?;
            let six = UdpSocket::bind("[::1]:0")?;
            first_of([
                get_option(plain.as_raw_fd(), libc::SOL_IP, 64),
                get_option(six.as_raw_fd(), libc::SOL_IPV6, 64),
            ])
        }),
        ("replace-filter", |_| {
            // IPT_SO_SET_REPLACE.
            let plain = UdpSocket::bind("127.0.0.1:0")?;
            set_option(plain.as_raw_fd(), libc::SOL_IP, 64)
        }),
        ("remove-routes", |_| {
            first_of([2_u8, 10].map(|family| change_route(25, family, 0)))
        }),
        ("add-route", |_| {
            first_of([2_u8, 10].map(|family| change_route(24, family, 0x400)))
        }),
        ("be-any-address", |_| {
            let plain = UdpSocket::bind("127.0.0.1:0")?;
            let six = UdpSocket::bind("[::1]:0")?;
            first_of([
                set_option(plain.as_raw_fd(), libc::SOL_IP, libc::IP_TRANSPARENT),
                set_option(six.as_raw_fd(), libc::SOL_IPV6, libc::IPV6_TRANSPARENT),
            ])
        }),
        ("mark-packets", |_| {
            let plain = UdpSocket::bind("127.0.0.1:0")?;
            set_option(plain.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MARK)
        }),
        ("write-own-headers", |_| {
            let plain = UdpSocket::bind("127.0.0.1:0")?;
            // IP_HDRINCL is for raw sockets, IP_OPTIONS with a source route for nobody.
            let route = [137_u8, 7, 4, 1, 1, 1, 1, 0];
            first_of([
                set_option(plain.as_raw_fd(), libc::SOL_IP, libc::IP_HDRINCL),
                set_bytes(plain.as_raw_fd(), libc::SOL_IP, libc::IP_OPTIONS, &route),
            ])
        }),
        ("take-ports-of-the-launcher", |_| {
            let ports = [1_u16, 53, 80, 443];
            let streams = ports.map(|port| TcpListener::bind(("0.0.0.0", port)).map(drop));
            let others = ports.map(|port| TcpListener::bind(("127.0.0.9", port)).map(drop));
            let names = UdpSocket::bind("127.0.0.1:53").map(drop);
            first_of(streams.into_iter().chain(others).chain([names]))
        }),
        ("lower-the-ports", |_| {
            fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
        }),
        ("allow-pings", |_| {
            fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")
        }),
        ("more-devices", |_| {
            let names = [
                "userfaultfd",
                "vhost-vsock",
                "vhost-net",
                "loop-control",
                "loop0",
                "mapper/control",
                "uinput",
                "input/event0",
                "dri/card0",
                "nvidia0",
                "bus/usb/001/001",
                "port",
                "cpu/0/msr",
                "hpet",
                "rtc0",
                "watchdog",
                "console",
                "tty0",
                "vcs",
                "autofs",
                "btrfs-control",
                "cuse",
                "ppp",
                "snapshot",
                "mcelog",
                "nvram",
                "sgx_enclave",
                "tpm0",
                "vfio/vfio",
            ];
            first_of(names.map(|name| fs::File::open(format!("/dev/{name}")).map(drop)))
        }),
    ]
}

fn set_option(descriptor: c_int, level: c_int, option: c_int) -> io::Result<()> {
    set_bytes(descriptor, level, option, &1_i32.to_ne_bytes())
}

pub(super) fn set_bytes(
    descriptor: c_int,
    level: c_int,
    option: c_int,
    value: &[u8],
) -> io::Result<()> {
    // SAFETY: the bytes live through the call, and their length is given.
    check(
        unsafe {
            libc::setsockopt(
                descriptor,
                level,
                option,
                value.as_ptr().cast::<c_void>(),
                value.len() as libc::socklen_t,
            )
        }
        .into(),
    )
}

fn get_option(descriptor: c_int, level: c_int, option: c_int) -> io::Result<()> {
    let mut value = [0_u8; 84];
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which are there.
    check(
        unsafe {
            libc::getsockopt(
                descriptor,
                level,
                option,
                value.as_mut_ptr().cast::<c_void>(),
                &raw mut length,
            )
        }
        .into(),
    )
}

/// Asks for a change of the route that makes every address local, by the one netlink family that
/// programs inside may speak.
pub(super) fn change_route(kind: u16, family: u8, more: u16) -> io::Result<()> {
    // SAFETY: plain numbers; the descriptor is used below and closed with the process.
    let descriptor = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE) };
    check(descriptor.into())?;
    let mut message = Vec::new();
    message.extend(36_u32.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((0x1 | 0x4 | more).to_ne_bytes());
    message.extend([0; 8]);
    // A default route of the table of local addresses, of type local, through device 1.
    message.extend([
        family,
        0,
        0,
        0,
        255,
        4,
        if family == 2 { 254 } else { 0 },
        2,
    ]);
    message.extend([0; 4]);
    message.extend(8_u16.to_ne_bytes());
    message.extend(4_u16.to_ne_bytes());
    message.extend(1_u32.to_ne_bytes());
    let mut answer = [0_u8; 256];
    // SAFETY: both buffers live through the calls, and their lengths are given.
    let count = unsafe {
        check(libc::send(
            descriptor,
            message.as_ptr().cast::<c_void>(),
            message.len(),
            0,
        ) as _)?;
        libc::recv(
            descriptor,
            answer.as_mut_ptr().cast::<c_void>(),
            answer.len(),
            0,
        )
    };
    check(count as _)?;
    match i32::from_ne_bytes(answer[16..20].try_into().unwrap()) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}
