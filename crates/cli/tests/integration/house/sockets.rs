//! The host's side of a WebSocket, as plain as it can be.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use base64::Engine as _;

/// The frames that a host heard: first byte and payload without its mask.
pub(crate) type Heard = Arc<Mutex<Vec<(u8, Vec<u8>)>>>;

/// The answer that opens a WebSocket to who wrote this head.
pub(super) fn agree(head: &str) -> String {
    let key = head
        .lines()
        .find_map(|line| line.strip_prefix("sec-websocket-key: "))
        .unwrap_or_default();
    let joined = format!("{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key.trim());
    let accept = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
        joined.as_bytes(),
    );
    let accept = base64::engine::general_purpose::STANDARD.encode(accept);
    format!(
        "HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    )
}

/// Says again what it hears, in frames of its own; a ping is answered, a close frame too.
pub(super) fn echo(mut stream: TcpStream, heard: &Heard) {
    while let Some((first, payload)) = frame(&mut stream) {
        heard.lock().unwrap().push((first, payload.clone()));
        let first = if first == 0x89 { 0x8a } else { first };
        let mut bytes = vec![first];
        match u16::try_from(payload.len()) {
            Ok(length @ ..126) => bytes.push(u8::try_from(length).unwrap()),
            Ok(length) => {
                bytes.push(126);
                bytes.extend(length.to_be_bytes());
            }
            Err(_) => {
                bytes.push(127);
                bytes.extend(u64::try_from(payload.len()).unwrap().to_be_bytes());
            }
        }
        bytes.extend(payload);
        if stream.write_all(&bytes).is_err() || first == 0x88 {
            return;
        }
    }
}

fn frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).ok()?;
    assert!(head[1] & 0x80 != 0, "a frame without a mask");
    let length = match head[1] & 0x7f {
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length).ok()?;
            usize::from(u16::from_be_bytes(length))
        }
        127 => {
            let mut length = [0; 8];
            stream.read_exact(&mut length).ok()?;
            usize::try_from(u64::from_be_bytes(length)).unwrap()
        }
        short => usize::from(short),
    };
    let mut key = [0; 4];
    stream.read_exact(&mut key).ok()?;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).ok()?;
    for (byte, mask) in payload.iter_mut().zip(key.iter().cycle()) {
        *byte ^= mask;
    }
    Some((head[0], payload))
}
