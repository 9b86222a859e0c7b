//! The frames of WebSockets (RFC 6455, 5.2), read one way and no other.
//!
//! No extension is agreed on, so a reserved bit means something that nobody here understands. A
//! frame that is not exactly as the RFC has it is refused and nothing behind it is read: two readers
//! must never see two messages.

use bytes::{Buf as _, BytesMut};

/// Most bytes that a control frame may carry (RFC 6455, 5.5).
pub(super) const CONTROL_MAX_BYTES: usize = 125;
/// Longest head of a frame in bytes.
const HEAD_MAX_BYTES: usize = 14;

/// Who wrote the frames that are read: a client masks its own, a host does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The program inside.
    Client,
    /// The host outside.
    Host,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A further part of a message.
    Continuation,
    /// The first part of a message that is UTF-8.
    Text,
    /// The first part of a message of bytes.
    Binary,
    /// The last frame of its side.
    Close,
    /// To be answered.
    Ping,
    /// An answer, or a sign of life.
    Pong,
}

impl Kind {
    const ALL: [(u8, Self); 6] = [
        (0x0, Self::Continuation),
        (0x1, Self::Text),
        (0x2, Self::Binary),
        (0x8, Self::Close),
        (0x9, Self::Ping),
        (0xa, Self::Pong),
    ];

    fn of(code: u8) -> Option<Self> {
        let known = Self::ALL.into_iter().find(|(known, _)| *known == code);
        known.map(|(_, kind)| kind)
    }

    fn code(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    pub(super) const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The beginning of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Whether its message ends with it.
    pub(super) last: bool,
    /// What it is.
    pub(super) kind: Kind,
    /// Bytes of its payload.
    pub(super) length: u64,
}

impl Head {
    /// As it goes over the wire; `mask` where a client says it.
    pub(super) fn written(self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_MAX_BYTES);
        bytes.push(u8::from(self.last) << 7 | self.kind.code());
        let masked = u8::from(mask.is_some()) << 7;
        match (u8::try_from(self.length), u16::try_from(self.length)) {
            (Ok(short @ ..126), _) => bytes.push(masked | short),
            (_, Ok(middle)) => {
                bytes.push(masked | 126);
                bytes.extend(middle.to_be_bytes());
            }
            (_, Err(_)) => {
                bytes.push(masked | 127);
                bytes.extend(self.length.to_be_bytes());
            }
        }
        bytes.extend(mask.into_iter().flatten());
        bytes
    }
}

/// Adds a mask, or takes it away; `from`: how many bytes of the payload came before.
pub(super) fn mask(bytes: &mut [u8], mask: [u8; 4], from: u64) {
    let turn = usize::try_from(from % 4).unwrap_or(0);
    for (byte, key) in bytes.iter_mut().zip(mask.iter().cycle().skip(turn)) {
        *byte ^= key;
    }
}

/// What comes of the bytes of one side.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A frame begins.
    Head(Head),
    /// A part of its payload, without its mask.
    Piece(BytesMut),
    /// It ended.
    End(Head),
    /// More bytes are needed.
    Hungry,
}

/// What was not as it has to be: what was expected, and what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) expected: &'static str,
    pub(super) received: &'static str,
}

/// Reads the frames of one side.
#[derive(Debug)]
pub(super) struct Frames {
    side: Side,
    /// The frame that is being read.
    now: Option<Now>,
    /// A message began and has not ended.
    open: bool,
    /// The last frame of this side was begun.
    closed: bool,
    /// What that carries.
    goodbye: Vec<u8>,
}

#[derive(Debug)]
struct Now {
    head: Head,
    mask: Option<[u8; 4]>,
    read: u64,
}

impl Frames {
    pub(super) const fn of(side: Side) -> Self {
        Self {
            side,
            now: None,
            open: false,
            closed: false,
            goodbye: Vec::new(),
        }
    }

    /// Whether no frame is begun.
    pub(super) const fn is_between(&self) -> bool {
        self.now.is_none()
    }

    /// Whether a control frame is being read, which may stand within a message.
    pub(super) fn is_control(&self) -> bool {
        let now = self.now.as_ref();
        now.is_some_and(|now| now.head.kind.is_control())
    }

    /// Whether the last frame of this side was begun.
    pub(super) const fn is_closing(&self) -> bool {
        self.closed
    }

    /// Whether the last frame of this side ended.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed && self.now.is_none()
    }

    /// The next event of `bytes`, taking away what was read.
    pub(super) fn next(&mut self, bytes: &mut BytesMut) -> Result<Event, Wrong> {
        let Some(now) = &mut self.now else {
            if self.closed {
                return Ok(Event::Hungry);
            }
            return self.begin(bytes);
        };
        let left = now.head.length - now.read;
        if left == 0 {
            let head = now.head;
            if head.kind == Kind::Close {
                check_goodbye(&self.goodbye)?;
            }
            self.now = None;
            return Ok(Event::End(head));
        }
        if bytes.is_empty() {
            return Ok(Event::Hungry);
        }
        let count = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let mut piece = bytes.split_to(count);
        if let Some(key) = now.mask {
            mask(&mut piece, key, now.read);
        }
        if now.head.kind == Kind::Close {
            self.goodbye.extend_from_slice(&piece);
        }
        now.read = now
            .read
            .saturating_add(u64::try_from(count).unwrap_or(left));
        Ok(Event::Piece(piece))
    }

    fn begin(&mut self, bytes: &mut BytesMut) -> Result<Event, Wrong> {
        let Some((head, key, size)) = read_head(bytes, self.side)? else {
            return Ok(Event::Hungry);
        };
        match head.kind {
            Kind::Continuation if !self.open => {
                return Err(Wrong {
                    expected: "a message that begins before it goes on",
                    received: "a continuation of none",
                });
            }
            Kind::Text | Kind::Binary if self.open => {
                return Err(Wrong {
                    expected: "the rest of a message before the next one",
                    received: "a new message within one",
                });
            }
            Kind::Continuation | Kind::Text | Kind::Binary => self.open = !head.last,
            Kind::Close => self.closed = true,
            Kind::Ping | Kind::Pong => {}
        }
        bytes.advance(size);
        self.now = Some(Now {
            head,
            mask: key,
            read: 0,
        });
        Ok(Event::Head(head))
    }
}

/// What a close frame carries: nothing, or a code that may be said and a reason in UTF-8 (RFC 6455,
/// 5.5.1 and 7.4, with the codes that were registered since).
fn check_goodbye(said: &[u8]) -> Result<(), Wrong> {
    let wrong = |expected, received| Err(Wrong { expected, received });
    let (code, reason) = match said {
        [] => return Ok(()),
        [a, b, reason @ ..] => (u16::from_be_bytes([*a, *b]), reason),
        [_] => return wrong("close frames with a whole code, or none", "half a code"),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return wrong(
            "close frames with a code that is given out",
            "one that is not, or that nobody may say",
        );
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(()),
        Err(_) => wrong("reasons of close frames in UTF-8", "other bytes"),
    }
}

/// A head, its mask, and how many bytes they take.
type Begun = (Head, Option<[u8; 4]>, usize);

/// `None` where more bytes are needed.
fn read_head(bytes: &[u8], side: Side) -> Result<Option<Begun>, Wrong> {
    let wrong = |expected, received| Err(Wrong { expected, received });
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return wrong(
            "frames without extensions, since none was agreed on",
            "a frame with a reserved bit",
        );
    }
    let Some(kind) = Kind::of(first & 0x0f) else {
        return wrong(
            "text, binary, close, ping or pong",
            "a frame of no known kind",
        );
    };
    let (last, masked) = (first & 0x80 != 0, second & 0x80 != 0);
    match (side, masked) {
        (Side::Client, false) => return wrong("masked frames of a client", "one without a mask"),
        (Side::Host, true) => return wrong("frames of a host without a mask", "a masked one"),
        (Side::Client, true) | (Side::Host, false) => {}
    }
    let short = second & 0x7f;
    if kind.is_control() && (!last || usize::from(short) > CONTROL_MAX_BYTES) {
        return wrong(
            "control frames in one part, of at most 125 bytes",
            "a larger one, or a part of one",
        );
    }
    let (length, rest, size) = match (short, rest) {
        (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), rest, 4),
        (127, [a, b, c, d, e, f, g, h, rest @ ..]) => {
            let length = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            (length, rest, 10)
        }
        (126 | 127, _) => return Ok(None),
        (short, rest) => (u64::from(short), rest, 2),
    };
    let shortest = match short {
        126 => length > 125,
        127 => length > u64::from(u16::MAX) && length < 1 << 63,
        _ => true,
    };
    if !shortest {
        return wrong(
            "lengths in their shortest form",
            "a longer form, or no length",
        );
    }
    let head = Head { last, kind, length };
    match (masked, rest) {
        (false, _) => Ok(Some((head, None, size))),
        (true, [a, b, c, d, ..]) => Ok(Some((head, Some([*a, *b, *c, *d]), size + 4))),
        (true, _) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All events of these bytes, told whole or in parts; the pieces of one frame joined.
    fn events(bytes: &[u8], side: Side, size: usize) -> (Vec<(Head, Vec<u8>)>, Option<Wrong>) {
        let mut frames = Frames::of(side);
        let mut buffer = BytesMut::new();
        let mut seen: Vec<(Head, Vec<u8>)> = Vec::new();
        for part in bytes.chunks(size) {
            buffer.extend_from_slice(part);
            loop {
                match frames.next(&mut buffer) {
                    Err(wrong) => return (seen, Some(wrong)),
                    Ok(Event::Hungry) => break,
                    Ok(Event::Head(head)) => seen.push((head, Vec::new())),
                    Ok(Event::Piece(piece)) => seen.last_mut().unwrap().1.extend(piece),
                    Ok(Event::End(head)) => assert_eq!(seen.last().unwrap().0, head),
                }
            }
        }
        (seen, None)
    }

    fn head(last: bool, kind: Kind, length: u64) -> Head {
        Head { last, kind, length }
    }

    #[test]
    fn the_samples_of_the_rfc_are_read_and_written_as_they_stand() {
        // RFC 6455, 5.7.
        let masked = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        let (seen, wrong) = events(&masked, Side::Client, 3);
        assert_eq!(seen, [(head(true, Kind::Text, 5), b"Hello".to_vec())]);
        assert_eq!(wrong, None);
        let mut again = head(true, Kind::Text, 5).written(Some([0x37, 0xfa, 0x21, 0x3d]));
        let mut payload = *b"Hello";
        mask(&mut payload[..1], [0x37, 0xfa, 0x21, 0x3d], 0);
        mask(&mut payload[1..], [0x37, 0xfa, 0x21, 0x3d], 1);
        again.extend(payload);
        assert_eq!(again, masked);
        let parts = [
            0x01, 0x03, 0x48, 0x65, 0x6c, 0x89, 0x00, 0x80, 0x02, 0x6c, 0x6f,
        ];
        let (seen, wrong) = events(&parts, Side::Host, 1);
        let expected = [
            (head(false, Kind::Text, 3), b"Hel".to_vec()),
            (head(true, Kind::Ping, 0), Vec::new()),
            (head(true, Kind::Continuation, 2), b"lo".to_vec()),
        ];
        assert_eq!((seen.as_slice(), wrong), (&expected[..], None));
        for length in [0, 125, 126, 65_535, 65_536, 1 << 40] {
            let written = head(true, Kind::Binary, length).written(None);
            let (seen, wrong) = events(&written, Side::Host, 64);
            assert_eq!((seen[0].0.length, wrong), (length, None));
        }
    }

    #[test]
    fn what_is_not_exactly_a_frame_is_refused_before_its_payload() {
        let key = [1, 2, 3, 4];
        let masked = |first: &[u8]| [first, &key, b"payload"].concat();
        for (bytes, why) in [
            (masked(&[0xc1, 0x87]), "reserved bit"),
            (masked(&[0xa1, 0x87]), "reserved bit"),
            (masked(&[0x91, 0x87]), "reserved bit"),
            (masked(&[0x83, 0x87]), "no known kind"),
            (masked(&[0x8b, 0x87]), "no known kind"),
            (masked(&[0x81, 0x07]), "without a mask"),
            (masked(&[0x09, 0x87]), "a part of one"),
            (masked(&[0x89, 0xfe, 0x00, 0x7e]), "a part of one"),
            (masked(&[0x81, 0xfe, 0x00, 0x07]), "longer form"),
            (
                masked(&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
                "longer form",
            ),
            (
                masked(&[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 7]),
                "no length",
            ),
            (masked(&[0x80, 0x87]), "continuation of none"),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "reserved bit"),
        ] {
            for size in [1, 64] {
                let (seen, wrong) = events(&bytes, Side::Client, size);
                assert!(seen.is_empty(), "{why}: {seen:?}");
                let wrong = wrong.unwrap_or_else(|| panic!("{why} passed"));
                assert!(wrong.received.contains(why), "{why}: {wrong:?}");
            }
        }
        let within = [masked(&[0x01, 0x87]), masked(&[0x81, 0x87])].concat();
        let (seen, wrong) = events(&within, Side::Client, 5);
        assert_eq!(seen.len(), 1);
        assert!(wrong.unwrap().received.contains("within one"));
        let from_host = masked(&[0x81, 0x87]);
        assert!(events(&from_host, Side::Host, 5).1.is_some());
    }

    #[test]
    fn a_goodbye_is_empty_or_a_code_that_is_given_out_and_words() {
        let said = |payload: &[u8]| {
            let length = u8::try_from(payload.len()).unwrap();
            let bytes = [&[0x88, length], payload].concat();
            let (one, whole) = (
                events(&bytes, Side::Host, 1).1,
                events(&bytes, Side::Host, 64).1,
            );
            assert_eq!(one, whole);
            whole.map(|wrong| wrong.received)
        };
        assert_eq!(said(b""), None);
        for code in [1000_u16, 1003, 1007, 1014, 3000, 4999] {
            let with_words = [&code.to_be_bytes()[..], "grüße".as_bytes()].concat();
            assert_eq!((said(&code.to_be_bytes()), said(&with_words)), (None, None));
        }
        for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
            assert!(said(&code.to_be_bytes()).is_some(), "{code}");
        }
        assert_eq!(said(&[3]), Some("half a code"));
        assert_eq!(said(&[3, 0xe8, 0xff]), Some("other bytes"));
    }

    #[test]
    fn nothing_is_read_behind_the_last_frame() {
        let bytes = [&[0x88, 0x80, 1, 2, 3, 4][..], b"GET / HTTP/1.1\r\n"].concat();
        let (seen, wrong) = events(&bytes, Side::Client, 64);
        assert_eq!(seen, [(head(true, Kind::Close, 0), Vec::new())]);
        assert_eq!(wrong, None);
    }
}
