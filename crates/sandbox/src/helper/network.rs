//! The run's network: loopback, and every address there is leading to it.
//!
//! With capture asked for, one route makes each IPv4 and each IPv6 address local (`local default
//! dev lo`, which the kernel's documentation calls AnyIP): whatever a program connects to, the
//! connection ends in this namespace. A rule of nf_tables hands all of them, whatever their port,
//! to one listener of the launcher ([`capture`]). Where the kernel has no such rule, the launcher
//! listens at each port that was asked for, and at the others nobody does: what is missing then is
//! that an attempt is seen, not that it fails. No tunnel device and no proxy variable takes part.
//! UDP and ICMP end here too, at nobody, but for questions about names, which the launcher answers
//! itself.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use portcullis_model::Refusal;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, listen, recv, sendto,
    socket, socket_with, sockopt,
};

use super::capture;
use crate::sys;

/// Connections that wait for the launcher at each port.
const BACKLOG: i32 = 512;
/// Where questions about names are asked, by the sandbox's `resolv.conf`.
const NAMES_PORT: u16 = 53;
/// Index of `lo`: the first device of each network namespace.
const LOOPBACK: u32 = 1;

/// Where the one listener for all ports is bound: no program inside may listen below 1024.
const EVERY_PORT_AT: u16 = 1;

/// What the launcher listens at, inside.
pub(super) struct Inlets {
    /// The channel itself.
    pub(super) own: TcpListener,
    /// Every other address: one listener for all ports, or one for each that was asked for.
    pub(super) captured: Vec<OwnedFd>,
    /// Questions about names; none where nothing is captured.
    pub(super) names: Option<OwnedFd>,
    /// Why not every port is captured, where that was asked for and can't be had.
    pub(super) unseen: Option<String>,
}

impl Inlets {
    /// Its sockets, in the order in which they are handed on.
    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.own.as_fd())
            .chain(self.captured.iter().map(AsFd::as_fd))
            .chain(self.names.iter().map(AsFd::as_fd))
    }
}

/// Brings loopback up.
pub(super) fn loopback() -> io::Result<()> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    sys::loopback_up(socket.as_fd())
}

/// Opens the channel's own port and, where `ports` names any, captures all addresses: at every
/// port, or else at those.
pub(super) fn inlets(own: u16, ports: &[u16]) -> Result<Inlets, Refusal> {
    let own = TcpListener::bind(("127.0.0.1", own)).map_err(|error| {
        Refusal::unavailable(
            "sandbox-listener",
            "the channel's port can't be opened inside",
        )
        .received(&format!("port {own}: {error}"))
        .next("choose another port, or 0 for any")
    })?;
    let mut inlets = Inlets {
        own,
        captured: Vec::new(),
        names: None,
        unseen: None,
    };
    if ports.is_empty() {
        return Ok(inlets);
    }
    let failed = |what: &str, error: io::Error| {
        Refusal::unavailable(
            "sandbox-capture",
            "connections can't be captured in the sandbox's network",
        )
        .received(&format!("{what}: {error}"))
    };
    route_here(AddressFamily::INET).map_err(|error| failed("route", error))?;
    let six = match route_here(AddressFamily::INET6) {
        Ok(()) => true,
        // Without IPv6 in the kernel, nothing can leave by it.
        Err(error) if is_absent(&error) => false,
        Err(error) => return Err(failed("IPv6 route", error)),
    };
    match every_port(six) {
        Ok(listener) => inlets.captured.push(listener),
        Err(error) => {
            for port in ports {
                let listener = everywhere(*port, six, false)
                    .map_err(|error| failed(&format!("port {port}"), error))?;
                inlets.captured.push(listener);
            }
            inlets.unseen = Some(unseen(&error));
        }
    }
    let names = std::net::UdpSocket::bind(("127.0.0.1", NAMES_PORT))
        .map_err(|error| failed("names", error))?;
    inlets.names = Some(names.into());
    Ok(inlets)
}

/// How every port is captured.
pub(super) const BY_FILTER: &str = "nf_tables, tproxy";

/// What it means that this can't be had.
pub(super) fn unseen(error: &io::Error) -> String {
    format!(
        "nf_tables with tproxy: {error}; what connects to ports that no task names is refused unseen"
    )
}

fn is_absent(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::AFNOSUPPORT, Errno::OPNOTSUPP, Errno::NODEV]
        .into_iter()
        .any(|absent| code == Some(absent.raw_os_error()))
}

/// One listener for all ports. Nothing is left of it where it can't be had.
fn every_port(six: bool) -> io::Result<OwnedFd> {
    let listener = everywhere(EVERY_PORT_AT, six, true)?;
    capture::every_port(EVERY_PORT_AT, six)?;
    Ok(listener)
}

/// Whether every port would be captured; for a process that has left its network namespace for one
/// of its own.
pub(super) fn would_capture() -> io::Result<()> {
    loopback()?;
    let six = route_here(AddressFamily::INET6).is_ok();
    every_port(six).map(drop)
}

/// A listener at every address, IPv4 included; `transparent`, also for other ports than its own.
fn everywhere(port: u16, six: bool, transparent: bool) -> io::Result<OwnedFd> {
    let family = if six {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if transparent {
        sys::transparent(socket.as_fd(), six)?;
    }
    if six {
        sockopt::set_ipv6_v6only(&socket, false)?;
        bind(&socket, &std::net::SocketAddr::from(([0_u16; 8], port)))?;
    } else {
        bind(&socket, &std::net::SocketAddr::from(([0_u8; 4], port)))?;
    }
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Makes every address of a family local (rtnetlink(7): `RTM_NEWROUTE`, `RTN_LOCAL`); no protocol
/// of netlink is the one for routes, number 0.
fn route_here(family: AddressFamily) -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(&socket, &new_route(family), SendFlags::empty(), &kernel)?;
    let mut answer = [0_u8; 512];
    let (count, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    // A header of 16 bytes, then the error, negated; 0 is the acknowledgement.
    let code = answer
        .get(16..20)
        .filter(|_| count >= 20)
        .and_then(|bytes| bytes.try_into().ok())
        .map(i32::from_ne_bytes)
        .ok_or(io::ErrorKind::InvalidData)?;
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(code.saturating_neg()))
    }
}

fn new_route(family: AddressFamily) -> Vec<u8> {
    const NEW_ROUTE: u16 = 24;
    const REQUEST_ACK_CREATE: u16 = 0x1 | 0x4 | 0x400;
    const TABLE_LOCAL: u8 = 255;
    const BY_CONFIGURATION: u8 = 4;
    const SCOPE_HOST: u8 = 254;
    const TYPE_LOCAL: u8 = 2;
    const OUTPUT_DEVICE: u16 = 4;
    const PREFERRED_SOURCE: u16 = 7;
    let family = u8::try_from(family.as_raw()).unwrap_or_default();
    let four = family == 2;
    let length: u32 = if four { 44 } else { 36 };
    let mut message = Vec::new();
    message.extend(length.to_ne_bytes());
    message.extend(NEW_ROUTE.to_ne_bytes());
    message.extend(REQUEST_ACK_CREATE.to_ne_bytes());
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    let scope = if four { SCOPE_HOST } else { 0 };
    message.extend([
        family,
        0,
        0,
        0,
        TABLE_LOCAL,
        BY_CONFIGURATION,
        scope,
        TYPE_LOCAL,
    ]);
    message.extend(0_u32.to_ne_bytes());
    message.extend(8_u16.to_ne_bytes());
    message.extend(OUTPUT_DEVICE.to_ne_bytes());
    message.extend(LOOPBACK.to_ne_bytes());
    if four {
        // As IPv6 does by itself: programs that ask for their own address by the way to another
        // (and then listen there) learn that of loopback.
        message.extend(8_u16.to_ne_bytes());
        message.extend(PREFERRED_SOURCE.to_ne_bytes());
        message.extend([127, 0, 0, 1]);
    }
    message
}
