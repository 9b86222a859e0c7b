//! Names inside: each gets an address of its own that leads nowhere but to the launcher.
//!
//! The launcher answers the sandbox's only resolver from this table; no question leaves. A program
//! connects to the address that it was given, and the table says which name was meant. Every name
//! resolves, permitted or not, so that a refusal comes from the gateway, with its reason.
//!
//! Written here rather than with a library because two record types of one format are all it takes,
//! and the format is read from hostile bytes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_model::host::normalise_host;
use tokio::net::UdpSocket;

/// The pool: 198.18.0.0/15, set aside for benchmarks (RFC 2544), so nobody's on any network.
const POOL_FIRST: u32 = u32::from_be_bytes([198, 18, 0, 1]);
/// Most names of one run: 16,384 names of at most 253 bytes are 4 MiB.
const NAMES_MAX: usize = 16_384;
/// Longest question that is read, in bytes (RFC 1035 without extensions, and some more).
const QUESTION_MAX_BYTES: usize = 1_232;
/// How long programs may keep an answer, in seconds. It stays true for the whole run.
const LIFE_S: u32 = 60;

/// Which address was given for which name.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    addresses: HashMap<String, Ipv4Addr>,
    /// In the order of their addresses.
    names: Vec<String>,
}

impl Names {
    /// The address for a name; `None` when too many are in use.
    fn address_of(&self, name: &str) -> Option<Ipv4Addr> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = table.addresses.get(name) {
            return Some(*address);
        }
        if table.names.len() >= NAMES_MAX {
            return None;
        }
        let offset = u32::try_from(table.names.len()).ok()?;
        let address = Ipv4Addr::from(POOL_FIRST.checked_add(offset)?);
        table.addresses.insert(name.to_owned(), address);
        table.names.push(name.to_owned());
        Some(address)
    }

    /// The name that an address was given for.
    pub(super) fn name_of(&self, address: IpAddr) -> Option<String> {
        let IpAddr::V4(address) = address else {
            return None;
        };
        let offset = u32::from(address).checked_sub(POOL_FIRST)?;
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.names.get(usize::try_from(offset).ok()?).cloned()
    }

    /// The answer to a question (RFC 1035, 4.1); `None` for what is none.
    pub(super) fn answer(&self, message: &[u8]) -> Option<Vec<u8>> {
        let question = Question::read(message)?;
        let (code, record) = self.look_up(&question);
        let mut answer = Vec::with_capacity(message.len() + 16);
        answer.extend(message.get(..2)?);
        // A response; recursion is available, and desired if it was.
        answer.extend([0x80 | (message.get(2)? & 0x01), 0x80 | code as u8]);
        answer.extend([0, 1, 0, u8::from(record.is_some()), 0, 0, 0, 0]);
        answer.extend(question.bytes);
        if let Some(record) = record {
            // The name is that of the question, at offset 12.
            answer.extend([0xc0, 12]);
            answer.extend(question.kind.to_be_bytes());
            answer.extend(question.class.to_be_bytes());
            answer.extend(LIFE_S.to_be_bytes());
            answer.extend(u16::try_from(record.len()).ok()?.to_be_bytes());
            answer.extend(record);
        }
        Some(answer)
    }

    fn look_up(&self, question: &Question<'_>) -> (Code, Option<Vec<u8>>) {
        if question.class != INTERNET {
            return (Code::Refused, None);
        }
        let Ok(name) = normalise_host(&question.name) else {
            return match reversed(&question.name).and_then(|address| self.name_of(address)) {
                Some(name) if question.kind == POINTER => (Code::Fine, Some(written(&name))),
                Some(_) => (Code::Fine, None),
                None => (Code::NoSuchName, None),
            };
        };
        let local = name == "localhost" || name.ends_with(".localhost") || name == "sandbox";
        match question.kind {
            ADDRESS if local => (Code::Fine, Some(Ipv4Addr::LOCALHOST.octets().to_vec())),
            ADDRESS => match self.address_of(&name) {
                Some(address) => (Code::Fine, Some(address.octets().to_vec())),
                None => (Code::Failed, None),
            },
            POINTER => match reversed(&name).and_then(|address| self.name_of(address)) {
                Some(name) => (Code::Fine, Some(written(&name))),
                None => (Code::NoSuchName, None),
            },
            // There is such a name, and nothing of that kind.
            _ => (Code::Fine, None),
        }
    }
}

const ADDRESS: u16 = 1;
const POINTER: u16 = 12;
const INTERNET: u16 = 1;

#[derive(Clone, Copy)]
enum Code {
    Fine = 0,
    Failed = 2,
    NoSuchName = 3,
    Refused = 5,
}

struct Question<'a> {
    /// Labels joined by dots.
    name: String,
    kind: u16,
    class: u16,
    bytes: &'a [u8],
}

impl<'a> Question<'a> {
    /// Reads a message with exactly one question, in standard form and without pointers.
    fn read(message: &'a [u8]) -> Option<Self> {
        let [_, _, flags, _, 0, 1, 0, 0, 0, 0, ..] = message else {
            return None;
        };
        let query_and_standard = flags & 0b1111_1000 == 0;
        if !query_and_standard || message.len() > QUESTION_MAX_BYTES {
            return None;
        }
        let mut name = String::new();
        let mut at = 12;
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            // The two high bits would be a pointer.
            if length > 63 || name.len() > 255 {
                return None;
            }
            let label = message.get(at..at + length)?;
            // A dot or a byte outside of ASCII within a label would be read as another name.
            let label = std::str::from_utf8(label)
                .ok()
                .filter(|label| label.is_ascii() && !label.contains('.'))?;
            if !name.is_empty() {
                name.push('.');
            }
            name.push_str(label);
            at += length;
        }
        let rest: [u8; 4] = message.get(at..at + 4)?.try_into().ok()?;
        let [a, b, c, d] = rest;
        Some(Self {
            name,
            kind: u16::from_be_bytes([a, b]),
            class: u16::from_be_bytes([c, d]),
            bytes: message.get(12..at + 4)?,
        })
    }
}

/// The address behind `4.3.2.1.in-addr.arpa`.
fn reversed(name: &str) -> Option<IpAddr> {
    let lower = name.to_ascii_lowercase();
    let parts: Vec<&str> = lower.strip_suffix(".in-addr.arpa")?.rsplit('.').collect();
    parts.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

/// A name as labels.
fn written(name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        // A normalised name has labels of 1 to 63 bytes.
        bytes.push(u8::try_from(label.len()).unwrap_or_default());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// Answers questions until the socket is gone.
pub(super) async fn serve(socket: UdpSocket, names: Arc<Names>) {
    let mut buffer = vec![0; QUESTION_MAX_BYTES + 1];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((count, from)) => {
                let message = buffer.get(..count).unwrap_or_default();
                if let Some(answer) = names.answer(message) {
                    // Whoever asked may be gone.
                    let _ = socket.send_to(&answer, from).await;
                }
            }
            // An answer could not be delivered, which the next call is told.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(written(name));
        message.extend(kind.to_be_bytes());
        message.extend(INTERNET.to_be_bytes());
        message
    }

    fn address(names: &Names, name: &str) -> Ipv4Addr {
        let answer = names.answer(&question(name, ADDRESS)).expect("answer");
        assert_eq!(answer[3] & 0xf, 0, "{name}");
        let four: [u8; 4] = answer[answer.len() - 4..].try_into().expect("four");
        four.into()
    }

    #[test]
    fn each_name_has_one_address_and_each_address_its_name() {
        let names = Names::default();
        let first = address(&names, "A.example");
        assert_eq!(first, address(&names, "a.EXAMPLE"));
        let second = address(&names, "b.example");
        assert_ne!(first, second);
        assert_eq!(names.name_of(first.into()).as_deref(), Some("a.example"));
        assert_eq!(names.name_of(second.into()).as_deref(), Some("b.example"));
        assert_eq!(names.name_of("198.18.0.9".parse().expect("address")), None);
        assert_eq!(names.name_of("198.18.0.0".parse().expect("address")), None);
        assert_eq!(address(&names, "localhost"), Ipv4Addr::LOCALHOST);
        // No IPv6, and no other kind of record; but the name is there.
        for kind in [28, 15, 16, 33, 65, 255] {
            let answer = names.answer(&question("a.example", kind)).expect("answer");
            assert_eq!((answer[3] & 0xf, answer[7]), (0, 0), "{kind}");
        }
        let answer = names.answer(&question("1.0.18.198.in-addr.arpa", POINTER));
        assert!(answer.expect("answer").ends_with(&written("a.example")));
    }

    #[test]
    fn what_is_no_question_gets_no_answer() {
        let names = Names::default();
        let good = question("a.example", ADDRESS);
        for (at, byte) in [
            (2, 0x81),
            (2, 0x28),
            (5, 2),
            (5, 0),
            (7, 1),
            (9, 1),
            (12, 0xc0),
        ] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(names.answer(&bad).is_none(), "{at} {byte}");
        }
        for length in 0..good.len() {
            assert!(names.answer(&good[..length]).is_none(), "{length}");
        }
        for bad in ["a..b", "127.1", "a b.example"] {
            let mut message = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            message.push(u8::try_from(bad.len()).expect("short"));
            message.extend(bad.as_bytes());
            message.extend([0, 0, 1, 0, 1]);
            let coded = names.answer(&message).map(|answer| answer[3] & 0xf);
            assert!(matches!(coded, None | Some(3)), "{bad}: {coded:?}");
        }
        assert!(names.0.lock().expect("table").names.is_empty());
    }

    #[test]
    fn the_table_is_bounded() {
        let names = Names::default();
        for number in 0..NAMES_MAX {
            assert!(names.address_of(&format!("n{number}.example")).is_some());
        }
        let answer = names
            .answer(&question("more.example", ADDRESS))
            .expect("answer");
        assert_eq!(answer[3] & 0xf, Code::Failed as u8);
        assert!(names.answer(&question("n7.example", ADDRESS)).is_some());
    }
}
