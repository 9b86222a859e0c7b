//! The pkt-line format (gitprotocol-common(5)) and its side band, as pure functions.

use portcullis_model::Refusal;
use tokio::io::{AsyncRead, AsyncReadExt as _};

#[cfg(test)]
mod tests;

/// Largest packet in bytes, its four length digits included (gitprotocol-common(5)).
pub const PACKET_MAX_BYTES: usize = 65_520;
/// Largest payload of one packet in bytes.
pub const PAYLOAD_MAX_BYTES: usize = PACKET_MAX_BYTES - 4;
/// Largest piece of data on a side band in bytes: one byte names the band.
const BAND_MAX_BYTES: usize = PAYLOAD_MAX_BYTES - 1;

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// `0000`: the end of a list.
    Flush,
    /// `0001`: between sections, protocol v2.
    Delimiter,
    /// `0002`: the end of an answer, protocol v2.
    ResponseEnd,
    /// A payload, with its line feed if it came with one.
    Data(Vec<u8>),
}

impl Packet {
    /// The payload as one line: without the line feed that may end it. None for the three marks.
    pub fn line(&self) -> Option<&[u8]> {
        match self {
            Self::Data(data) => Some(data.strip_suffix(b"\n").unwrap_or(data)),
            Self::Flush | Self::Delimiter | Self::ResponseEnd => None,
        }
    }
}

/// A channel of the side band (gitprotocol-pack(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Band {
    /// What the client parses.
    Data = 1,
    /// What the client prints, each line after `remote: `.
    Progress = 2,
    /// A message with which the client ends.
    Fatal = 3,
}

/// What the four digits announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Flush,
    Delimiter,
    ResponseEnd,
    Payload(usize),
}

/// Takes one packet off the front of `bytes`: the packet and how many bytes it took, or `None`
/// if more bytes are needed.
///
/// # Errors
/// `malformed-packet`: the length is no four hex digits, or out of range.
pub fn decode(bytes: &[u8]) -> Result<Option<(Packet, usize)>, Refusal> {
    let Some((digits, rest)) = bytes.split_first_chunk::<4>() else {
        return Ok(None);
    };
    Ok(match length(*digits)? {
        Length::Flush => Some((Packet::Flush, 4)),
        Length::Delimiter => Some((Packet::Delimiter, 4)),
        Length::ResponseEnd => Some((Packet::ResponseEnd, 4)),
        Length::Payload(size) => rest
            .get(..size)
            .map(|data| (Packet::Data(data.to_vec()), 4 + size)),
    })
}

/// Reads one packet; `None` at the end of the stream.
///
/// # Errors
/// `malformed-packet`, or `connection-lost`: the stream ended or failed within a packet.
pub async fn read<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Option<Packet>, Refusal> {
    let mut digits = [0; 4];
    let mut filled = 0;
    while let Some(room) = digits.get_mut(filled..).filter(|room| !room.is_empty()) {
        let count = reader.read(room).await.map_err(|error| lost(&error))?;
        if count == 0 {
            return if filled == 0 {
                Ok(None)
            } else {
                Err(malformed("four length digits", "the end of the stream"))
            };
        }
        filled += count;
    }
    let size = match length(digits)? {
        Length::Flush => return Ok(Some(Packet::Flush)),
        Length::Delimiter => return Ok(Some(Packet::Delimiter)),
        Length::ResponseEnd => return Ok(Some(Packet::ResponseEnd)),
        Length::Payload(size) => size,
    };
    let mut data = vec![0; size];
    reader
        .read_exact(&mut data)
        .await
        .map_err(|error| lost(&error))?;
    Ok(Some(Packet::Data(data)))
}

/// Appends `payload` as one packet; what is longer than a packet holds goes into further ones.
pub fn encode(payload: &[u8], out: &mut Vec<u8>) {
    for piece in payload.chunks(PAYLOAD_MAX_BYTES) {
        out.extend_from_slice(format!("{:04x}", piece.len() + 4).as_bytes());
        out.extend_from_slice(piece);
    }
}

/// Appends a flush packet.
pub fn flush(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0000");
}

/// Appends `data` on a band, in as many packets as it takes.
pub fn encode_band(band: Band, data: &[u8], out: &mut Vec<u8>) {
    for piece in data.chunks(BAND_MAX_BYTES) {
        out.extend_from_slice(format!("{:04x}", piece.len() + 5).as_bytes());
        out.push(band as u8);
        out.extend_from_slice(piece);
    }
}

fn length(digits: [u8; 4]) -> Result<Length, Refusal> {
    let shown = || String::from_utf8_lossy(&digits).into_owned();
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(malformed("four hex digits", &shown()));
    }
    let value = std::str::from_utf8(&digits)
        .ok()
        .and_then(|text| usize::from_str_radix(text, 16).ok())
        .ok_or_else(|| malformed("four hex digits", &shown()))?;
    match value {
        0 => Ok(Length::Flush),
        1 => Ok(Length::Delimiter),
        2 => Ok(Length::ResponseEnd),
        4..=PACKET_MAX_BYTES => Ok(Length::Payload(value - 4)),
        _ => Err(malformed("a length of 4 to 65520", &shown())),
    }
}

fn malformed(expected: &str, received: &str) -> Refusal {
    Refusal::malformed("packet")
        .expected(expected)
        .received(received)
        .next("send a request as git does; see gitprotocol-common(5)")
}

fn lost(error: &std::io::Error) -> Refusal {
    Refusal::new(
        portcullis_model::RefusalKind::Malformed,
        "connection-lost",
        "the request ended before it was whole",
    )
    .received(&error.to_string())
    .next("repeat the command; nothing was changed")
}
