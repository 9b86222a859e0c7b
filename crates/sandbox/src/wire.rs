//! Messages with descriptors over a unix socket: a length of four bytes, then JSON.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest message in bytes: the largest command line and environment that Linux takes, escaped.
const MESSAGE_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Most descriptors in one message: every captured port's, and a few more.
const DESCRIPTORS_MAX: usize = crate::spec::CAPTURED_MAX_PORTS + 8;

/// Sends one message.
pub(crate) fn send<T: Serialize>(
    socket: &UnixStream,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let body = serde_json::to_vec(message).map_err(io::Error::other)?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= MESSAGE_MAX_BYTES && descriptors.len() <= DESCRIPTORS_MAX)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "message too large"))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("no room for descriptors"));
    }
    let header = length.to_le_bytes();
    let sent = sendmsg(
        socket,
        &[IoSlice::new(&header)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    // Four bytes into a stream socket go whole or not at all.
    if sent != header.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    let mut stream = socket;
    stream.write_all(&body)
}

/// Receives one message, waiting for it; `None` when the other end is closed.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: &UnixStream,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut header = [0_u8; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut header)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL,
        )
    })?;
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.bytes != header.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    let length = u32::from_le_bytes(header) as usize;
    if length > MESSAGE_MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "message too large",
        ));
    }
    let mut body = vec![0; length];
    let mut stream = socket;
    stream.read_exact(&mut body)?;
    let message = serde_json::from_slice(&body).map_err(io::Error::other)?;
    Ok(Some((message, descriptors)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_and_the_end_is_seen() {
        let (near, far) = UnixStream::pair().expect("pair");
        let null = std::fs::File::open("/dev/null").expect("null");
        send(&near, &"hello", &[null.as_fd(), null.as_fd()]).expect("send");
        send(&near, &vec![7; 3], &[]).expect("send");
        drop(near);
        let (text, descriptors) = receive::<String>(&far).expect("receive").expect("message");
        assert_eq!((text.as_str(), descriptors.len()), ("hello", 2));
        let (list, descriptors) = receive::<Vec<u8>>(&far).expect("receive").expect("message");
        assert_eq!((list, descriptors.len()), (vec![7; 3], 0));
        assert!(receive::<String>(&far).expect("end").is_none());
    }
}
