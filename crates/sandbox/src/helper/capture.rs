//! Every TCP port of every address, at one listener: nf_tables' `tproxy`, said to the kernel as it
//! is, over netlink.
//!
//! The first packet of a connection to anything but loopback is handed to the listener; the rest
//! finds its socket by itself. The listener's sockets keep the address and port that were dialled,
//! so nothing is rewritten, and no connection is tracked. A program's own listener on loopback is
//! never in the way, nor is the launcher in its.
//!
//! Written here rather than with a library because it is six messages that never change, and a
//! library for them would bring the whole of nf_tables.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

/// Longest list of acknowledgements in bytes: six of 36, or of errors with what they are about.
const ANSWER_MAX_BYTES: usize = 16 * 1024;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NFTABLES: u16 = 10;
const NEW_TABLE: u16 = NFTABLES << 8;
const NEW_CHAIN: u16 = (NFTABLES << 8) | 3;
const NEW_RULE: u16 = (NFTABLES << 8) | 6;

/// Names of our table and its chain.
const TABLE: &[u8] = b"run\0";
const CHAIN: &[u8] = b"in\0";

/// One family of addresses.
#[derive(Clone, Copy)]
struct Family {
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    number: u8,
    /// Where the destination stands in the packet's network header, as far as it is compared.
    destination: (u32, u32),
    /// What that is for loopback.
    loopback: &'static [u8],
}

const IPV4: Family = Family {
    number: 2,
    // 127.0.0.0/8 by its first byte.
    destination: (16, 1),
    loopback: &[127],
};

const IPV6: Family = Family {
    number: 10,
    destination: (24, 16),
    loopback: &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
};

/// Hands every new TCP connection in this network namespace to the transparent listener at `port`,
/// but for those to loopback. All of it takes hold at once, or nothing does.
///
/// # Errors
/// Where the kernel has no nf_tables, or no `tproxy` in it.
pub(super) fn every_port(port: u16, six: bool) -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(NETFILTER),
    )?;
    let families: &[Family] = if six { &[IPV4, IPV6] } else { &[IPV4] };
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(&socket, &batch(families, port), SendFlags::empty(), &kernel)?;
    acknowledged(&socket, families.len().saturating_mul(3))
}

/// Reads acknowledgements until all are there; a message that failed says why.
fn acknowledged(socket: &OwnedFd, mut left: usize) -> io::Result<()> {
    let mut buffer = vec![0_u8; ANSWER_MAX_BYTES];
    while left > 0 {
        let (count, _) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = buffer.get(..count).unwrap_or_default();
        while !rest.is_empty() {
            // A header of 16 bytes, whose first four are the length; then the error, negated.
            let number = |at: usize| -> Option<[u8; 4]> { rest.get(at..at + 4)?.try_into().ok() };
            let (Some(length), Some(code)) = (number(0), number(16)) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            let code = i32::from_ne_bytes(code);
            if code != 0 {
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            left = left.saturating_sub(1);
            let length = (u32::from_ne_bytes(length) as usize).next_multiple_of(4);
            rest = rest.get(length.max(20)..).unwrap_or_default();
        }
    }
    Ok(())
}

fn batch(families: &[Family], port: u16) -> Vec<u8> {
    let mut bytes = message(BATCH_BEGIN, REQUEST, 0, NFTABLES, &[]);
    for family in families {
        let new = REQUEST | ACK | CREATE;
        let number = family.number;
        bytes.extend(message(NEW_TABLE, new, number, 0, &attribute(1, TABLE)));
        bytes.extend(message(NEW_CHAIN, new, number, 0, &chain()));
        bytes.extend(message(
            NEW_RULE,
            new | APPEND,
            number,
            0,
            &rule(*family, port),
        ));
    }
    bytes.extend(message(BATCH_END, REQUEST, 0, NFTABLES, &[]));
    bytes
}

/// A chain at the hook where packets arrive, before routing, which lets pass what no rule takes.
fn chain() -> Vec<u8> {
    const PREROUTING: u32 = 0;
    const MANGLE: i32 = -150;
    let hook = [number(1, PREROUTING), attribute(2, &MANGLE.to_be_bytes())].concat();
    [
        attribute(1, TABLE),
        attribute(3, CHAIN),
        nest(4, &hook),
        attribute(7, b"filter\0"),
    ]
    .concat()
}

/// TCP, the first packet of a connection, not to loopback: to the listener.
fn rule(family: Family, port: u16) -> Vec<u8> {
    const TCP: u8 = 6;
    const PROTOCOL: u32 = 16;
    const NETWORK_HEADER: u32 = 1;
    const TRANSPORT_HEADER: u32 = 2;
    const FLAGS: (u32, u32) = (13, 1);
    const FIN_SYN_RST_ACK: u8 = 0x17;
    const SYN: u8 = 0x02;
    let register = number(1, 1);
    let flags = [
        number(1, 1),
        number(2, 1),
        number(3, 1),
        nest(4, &attribute(1, &[FIN_SYN_RST_ACK])),
        nest(5, &attribute(1, &[0])),
    ]
    .concat();
    let listener = [
        register.clone(),
        nest(2, &attribute(1, &port.to_be_bytes())),
    ]
    .concat();
    let to = [number(1, u32::from(family.number)), number(3, 1)].concat();
    let expressions = [
        expression(b"meta\0", &[register, number(2, PROTOCOL)].concat()),
        compare(EQUAL, &[TCP]),
        load(TRANSPORT_HEADER, FLAGS),
        expression(b"bitwise\0", &flags),
        compare(EQUAL, &[SYN]),
        load(NETWORK_HEADER, family.destination),
        compare(UNEQUAL, family.loopback),
        expression(b"immediate\0", &listener),
        expression(b"tproxy\0", &to),
    ]
    .concat();
    [
        attribute(1, TABLE),
        attribute(2, CHAIN),
        nest(4, &expressions),
    ]
    .concat()
}

const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;

/// Bytes of a header, at an offset and of a length, into the register.
fn load(header: u32, (offset, length): (u32, u32)) -> Vec<u8> {
    let data = [
        number(1, 1),
        number(2, header),
        number(3, offset),
        number(4, length),
    ]
    .concat();
    expression(b"payload\0", &data)
}

fn compare(how: u32, with: &[u8]) -> Vec<u8> {
    let data = [number(1, 1), number(2, how), nest(3, &attribute(1, with))].concat();
    expression(b"cmp\0", &data)
}

fn expression(name: &[u8], data: &[u8]) -> Vec<u8> {
    nest(1, &[attribute(1, name), nest(2, data)].concat())
}

/// Numbers in attributes are big-endian here.
fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn nest(kind: u16, inner: &[u8]) -> Vec<u8> {
    const NESTED: u16 = 0x8000;
    attribute(kind | NESTED, inner)
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    // All of them are known, and far below 64 KiB.
    let length = u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(usize::from(length).next_multiple_of(4));
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A netlink message with the header of netfilter's families.
fn message(kind: u16, flags: u16, family: u8, resource: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(attributes.len().saturating_add(20)).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(attributes.len().saturating_add(20));
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // No sequence is needed: what fails is told in the order in which it was asked.
    bytes.extend([0; 8]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(attributes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_that_is_said_is_the_length_that_is_there() {
        let bytes = batch(&[IPV4, IPV6], 1);
        let mut rest = bytes.as_slice();
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_ne_bytes(rest[..4].try_into().expect("length")) as usize;
            kinds.push(u16::from_ne_bytes(rest[4..6].try_into().expect("kind")));
            assert_eq!(length % 4, 0);
            walk(&rest[20..length], 0);
            rest = &rest[length..];
        }
        let one = [NEW_TABLE, NEW_CHAIN, NEW_RULE];
        let expected = [&[BATCH_BEGIN][..], &one, &one, &[BATCH_END]].concat();
        assert_eq!(kinds, expected);
    }

    fn walk(mut rest: &[u8], depth: usize) {
        while !rest.is_empty() {
            let length = usize::from(u16::from_ne_bytes(rest[..2].try_into().expect("length")));
            let kind = u16::from_ne_bytes(rest[2..4].try_into().expect("kind"));
            assert!((4..=rest.len()).contains(&length), "{length} at {depth}");
            if kind & 0x8000 != 0 {
                walk(&rest[4..length], depth + 1);
            }
            rest = &rest[length.next_multiple_of(4)..];
        }
    }
}
