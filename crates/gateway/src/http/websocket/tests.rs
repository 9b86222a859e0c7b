//! Both ends in memory: a program that says what it likes, and a host that is read by another reader
//! of frames than ours.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, WriteHalf};

use super::*;
use crate::http::room::Rooms;

/// What no message may hold.
const MARK: &[u8] = b"MARK";

/// Remembers what it let pass, and refuses what holds the mark.
#[derive(Clone, Default)]
struct Notes {
    passed: Arc<Mutex<Vec<Vec<u8>>>>,
    /// What of that control frames carried.
    control: Arc<Mutex<Vec<Vec<u8>>>>,
    refused: Arc<Mutex<Vec<String>>>,
}

impl Looks for Notes {
    async fn look(&mut self, what: Said, said: &[u8]) -> Result<(), Refusal> {
        if said.windows(MARK.len()).any(|part| part == MARK) {
            return Err(Refusal::denied("marked", "it holds the mark"));
        }
        self.passed.lock().unwrap().push(said.to_vec());
        let control = what == Said::Control;
        self.control
            .lock()
            .unwrap()
            .extend(control.then(|| said.to_vec()));
        Ok(())
    }

    async fn refused(&mut self, refusal: &Refusal) {
        self.refused.lock().unwrap().push(refusal.code.clone());
    }
}

/// A frame as a client writes it.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x11, 0x22, 0x33, 0x44];
    let mut bytes = vec![first];
    match payload.len() {
        length @ ..126 => bytes.push(0x80 | u8::try_from(length).unwrap()),
        length @ 126..=0xffff => {
            bytes.push(0xfe);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            bytes.push(0xff);
            bytes.extend(u64::try_from(length).unwrap().to_be_bytes());
        }
    }
    bytes.extend(key);
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(a, b)| a ^ b));
    bytes
}

/// The frames of a side, by the plainest reader there is: first byte and payload without its mask.
fn plainly_read(mut bytes: &[u8], from_client: bool) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        assert_eq!(second & 0x80 != 0, from_client);
        let (length, rest) = match second & 0x7f {
            126 => {
                let (length, rest) = rest.split_at(2);
                (
                    usize::from(u16::from_be_bytes(length.try_into().unwrap())),
                    rest,
                )
            }
            127 => {
                let (length, rest) = rest.split_at(8);
                let length = u64::from_be_bytes(length.try_into().unwrap());
                (usize::try_from(length).unwrap(), rest)
            }
            short => (usize::from(short), rest),
        };
        let (key, rest) = rest.split_at(if from_client { 4 } else { 0 });
        let key = if from_client { key } else { &[0] };
        let (payload, rest) = rest.split_at(length);
        let plain = payload.iter().zip(key.iter().cycle()).map(|(a, b)| a ^ b);
        frames.push((*first, plain.collect()));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "half a frame: {bytes:?}");
    frames
}

struct Passed {
    /// What reached the host.
    host: Vec<(u8, Vec<u8>)>,
    /// What reached the program.
    program: Vec<(u8, Vec<u8>)>,
    outcome: TunnelOutcome,
    notes: Notes,
}

/// Has the program say `said` in pieces of `size` and go away, and the host say `heard` and go away
/// once it has heard all.
async fn talk(said: &[u8], size: usize, heard: &[u8]) -> Passed {
    async fn says(stream: &mut WriteHalf<DuplexStream>, bytes: &[u8], size: usize) {
        for piece in bytes.chunks(size.max(1)) {
            if stream.write_all(piece).await.is_err() {
                return;
            }
        }
    }
    async fn program(stream: DuplexStream, said: &[u8], size: usize) -> Vec<u8> {
        let (mut read, mut write) = tokio::io::split(stream);
        let mut got = Vec::new();
        let saying = async {
            says(&mut write, said, size).await;
            let _gone = write.shutdown().await;
        };
        let ((), _count) = tokio::join!(saying, read.read_to_end(&mut got));
        got
    }
    async fn host(stream: DuplexStream, heard: &[u8]) -> Vec<u8> {
        let (mut read, mut write) = tokio::io::split(stream);
        let mut got = Vec::new();
        let saying = says(&mut write, heard, heard.len());
        let ((), _count) = tokio::join!(saying, read.read_to_end(&mut got));
        got
    }
    let notes = Notes::default();
    let room = Rooms::default().of(portcullis_model::RunId(1));
    let (near, inside) = tokio::io::duplex(64 * 1024);
    let (far, outside) = tokio::io::duplex(64 * 1024);
    let passing = pass(
        (inside, outside),
        &room,
        notes.clone(),
        (TunnelBounds::default(), Patience::default()),
        std::future::pending(),
    );
    let (outcome, program, host) =
        tokio::join!(passing, program(near, said, size), host(far, heard));
    Passed {
        host: plainly_read(&host, true),
        program: plainly_read(&program, false),
        outcome,
        notes,
    }
}

/// Code and reason of a close frame.
fn close_of(frames: &[(u8, Vec<u8>)]) -> (u16, String) {
    let (first, payload) = frames.last().unwrap();
    assert_eq!(*first, 0x88, "{frames:?}");
    let (code, reason) = payload.split_at(2);
    let reason = String::from_utf8(reason.to_vec()).unwrap();
    (u16::from_be_bytes(code.try_into().unwrap()), reason)
}

#[tokio::test]
async fn messages_pass_in_their_parts_with_what_stands_between() {
    let said = [
        masked(0x81, b"one"),
        masked(0x01, "t\u{e9}".as_bytes().split_at(2).0),
        masked(0x89, b"ping"),
        masked(0x00, b""),
        masked(0x80, "t\u{e9}".as_bytes().split_at(2).1),
        masked(0x82, &[0xff; 70_000]),
        masked(0x88, &[0x03, 0xe8]),
        masked(0x81, b"behind the end"),
    ]
    .concat();
    let heard = [&[0x81, 5][..], b"hello", &[0x88, 0]].concat();
    for size in [1, 7, 1 << 20] {
        let passed = talk(&said, size, &heard).await;
        let expected: Vec<(u8, Vec<u8>)> = vec![
            (0x81, b"one".to_vec()),
            (0x89, b"ping".to_vec()),
            (0x01, vec![b't', 0xc3]),
            (0x00, Vec::new()),
            (0x80, vec![0xa9]),
            (0x82, vec![0xff; 70_000]),
            (0x88, vec![0x03, 0xe8]),
        ];
        assert!(passed.host == expected, "{size}");
        assert_eq!(passed.program, [(0x81, b"hello".to_vec()), (0x88, vec![])]);
        assert_eq!(passed.outcome.ended, Ended::Closed);
        let control = passed.notes.control.lock().unwrap().clone();
        assert_eq!(control, [b"ping".to_vec(), vec![0x03, 0xe8]]);
        assert!(passed.notes.refused.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_must_not_leave_ends_it_with_the_reason_and_nothing_of_it_left() {
    let cases: [(Vec<u8>, u16, &str); 10] = [
        (
            masked(0x81, b"it is MARK, yes"),
            1008,
            "marked: it holds the mark",
        ),
        (
            [masked(0x01, b"MA"), masked(0x80, b"RK")].concat(),
            1008,
            "marked",
        ),
        (masked(0x89, b"MARK"), 1008, "marked"),
        (masked(0x88, b"\x03\xe8MARK"), 1008, "marked"),
        (masked(0xc1, b"packed"), 1002, "not-understood"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 1002, "not-understood"),
        (masked(0x88, b"\x03"), 1002, "not-understood"),
        (masked(0x81, &[0xff]), 1007, "not-understood"),
        (
            [masked(0x02, &vec![7; 8 << 20]), masked(0x80, b"x")].concat(),
            1009,
            "message-too-large",
        ),
        (
            masked(0x02, b"")
                .repeat(1)
                .into_iter()
                .chain(masked(0x00, b"").repeat(1024))
                .collect(),
            1009,
            "message-too-large",
        ),
    ];
    for (said, code, reason) in cases {
        let all = [masked(0x81, b"first"), said, masked(0x81, b"after")].concat();
        // The host is within a frame as the program is told.
        let passed = talk(&all, 4096, &[0x81, 2, b'o', b'k']).await;
        let expected = [(0x81, b"first".to_vec()), (0x88, vec![0x03, 0xe9])];
        assert_eq!(passed.host, expected, "{reason}");
        let (got, text) = close_of(&passed.program);
        assert!(got == code && text.starts_with(reason), "{got} {text}");
        assert!(text.len() <= 123);
        assert_eq!(passed.outcome.ended, Ended::Refused);
        let refused = passed.notes.refused.lock().unwrap().clone();
        let recorded = if reason.starts_with("marked") {
            vec![]
        } else {
            vec![reason]
        };
        assert_eq!(refused, recorded);
    }
}

#[tokio::test]
async fn a_host_that_says_no_frames_is_cut_off_with_a_word() {
    for heard in [
        &b"HTTP/1.1 200 OK\r\n\r\n"[..],
        &[0xc1, 1, 0],
        &[0x88, 1, 3],
        &masked(0x81, b"x"),
    ] {
        let passed = talk(&[], 1, heard).await;
        let (code, reason) = close_of(&passed.program);
        assert!(
            code == 1002 && reason.contains("the host"),
            "{code} {reason}"
        );
        // Nothing of it reached the program, and no goodbye the host.
        assert_eq!((passed.program.len(), passed.host.len()), (1, 0));
        assert_eq!(
            passed.notes.refused.lock().unwrap().as_slice(),
            ["not-understood"]
        );
    }
}

#[tokio::test]
async fn a_message_that_does_not_end_and_a_host_that_does_not_move_are_given_up() {
    let room = Rooms::default().of(portcullis_model::RunId(1));
    let patience = Patience {
        message: Duration::from_millis(50),
        close: Duration::from_millis(50),
    };
    for says in [masked(0x01, b"begun"), masked(0x81, b"MARK")] {
        let (mut program, inside) = tokio::io::duplex(64 * 1024);
        let (mut host, outside) = tokio::io::duplex(64);
        // Within a frame, for ever.
        host.write_all(&[0x82, 100, 1, 2, 3]).await.unwrap();
        program.write_all(&says).await.unwrap();
        let notes = Notes::default();
        let outcome = pass(
            (inside, outside),
            &room,
            notes,
            (TunnelBounds::default(), patience),
            std::future::pending(),
        )
        .await;
        assert_eq!(outcome.ended, Ended::Refused);
        let mut left = Vec::new();
        host.read_to_end(&mut left).await.unwrap();
        assert_eq!(plainly_read(&left, true), [(0x88, vec![0x03, 0xe9])]);
    }
}

#[tokio::test]
async fn pings_keep_no_message_open() {
    let room = Rooms::default().of(portcullis_model::RunId(1));
    let patience = Patience {
        message: Duration::from_millis(50),
        close: Duration::from_millis(50),
    };
    let (mut program, inside) = tokio::io::duplex(1 << 20);
    let (mut host, outside) = tokio::io::duplex(1 << 20);
    let talks = async move {
        program.write_all(&masked(0x01, b"begun")).await.unwrap();
        while program.write_all(&masked(0x89, b"p")).await.is_ok() {}
    };
    let passing = pass(
        (inside, outside),
        &room,
        Notes::default(),
        (TunnelBounds::default(), patience),
        std::future::pending(),
    );
    let mut got = Vec::new();
    let (outcome, (), _count) = tokio::join!(passing, talks, host.read_to_end(&mut got));
    assert_eq!(outcome.ended, Ended::Refused);
    assert!(!plainly_read(&got, true).contains(&(0x01, b"begun".to_vec())));
}

/// Whatever a program says: the host gets whole frames by the plainest reading, and nothing that was
/// not looked at.
fn looked_at_or_not_at_all(said: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let mut whole = None;
    for size in [said.len(), 1, 5] {
        let passed = runtime.block_on(talk(said, size, &[]));
        let mut got = Vec::new();
        let mut open: Option<Vec<u8>> = None;
        for (first, payload) in &passed.host {
            assert_eq!(first & 0x70, 0);
            match first & 0x0f {
                0x8..=0xa => got.push(payload.clone()),
                kind => {
                    assert_eq!(kind == 0, open.is_some());
                    open.get_or_insert_default().extend(payload);
                    if first & 0x80 != 0 {
                        got.extend(open.take());
                    }
                }
            }
        }
        assert_eq!(open, None);
        if passed.outcome.ended == Ended::Refused {
            assert_eq!(got.pop(), Some(vec![0x03, 0xe9]));
            assert_eq!(passed.program.last().unwrap().0, 0x88);
        }
        assert_eq!(got, *passed.notes.passed.lock().unwrap());
        assert!(
            !got.iter()
                .any(|said| said.windows(4).any(|part| part == MARK))
        );
        let result = (got, passed.program, passed.outcome.ended);
        assert_eq!(*whole.get_or_insert_with(|| result.clone()), result);
    }
}

#[test]
fn no_bytes_get_past_the_look() {
    let samples = [
        [
            masked(0x81, b"one"),
            masked(0x82, b"two"),
            masked(0x88, b""),
        ]
        .concat(),
        [masked(0x01, b"a"), masked(0x89, b"p"), masked(0x80, b"b")].concat(),
        [masked(0x01, b"MA"), masked(0x8a, b""), masked(0x80, b"RK")].concat(),
        masked(0x82, &[7; 300]),
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
    ];
    let cases = std::env::var("PORTCULLIS_FUZZ_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(256);
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 0..6);
    let mutated =
        (prop::sample::select(samples.to_vec()), changes).prop_map(|(mut bytes, changes)| {
            for (place, byte, kind) in changes {
                let at = place.index(bytes.len().max(1));
                match kind {
                    0 if at < bytes.len() => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    2 if at < bytes.len() => drop(bytes.remove(at)),
                    _ => bytes.truncate(at),
                }
            }
            bytes
        });
    let random = prop::collection::vec(any::<u8>(), 0..300);
    runner
        .run(&prop_oneof![3 => mutated, 1 => random], |bytes| {
            looked_at_or_not_at_all(&bytes);
            Ok(())
        })
        .unwrap();
}
