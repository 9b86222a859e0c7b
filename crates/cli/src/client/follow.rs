//! Server-sent events (WHATWG HTML, section 9.2), as far as the ledger's tail uses them.

use http_body_util::BodyExt as _;
use portcullis_model::Refusal;

use super::{Client, broken};

/// Longest event in bytes: an entry with its framing, twice.
const EVENT_MAX_BYTES: usize = 256 * 1024;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerEvent {
    /// Its `id`.
    pub(crate) id: String,
    /// Its `data`, lines joined.
    pub(crate) data: String,
}

impl Client {
    /// Calls `each` for every event of `path` until the server ends the stream.
    ///
    /// # Errors
    /// As [`Client::get`], what `each` says, or an event that is too long.
    pub(crate) async fn follow(
        &self,
        path: &str,
        mut each: impl FnMut(ServerEvent) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut body = self.open(path).await?;
        let mut parser = Parser::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken(&error))?;
            if let Some(data) = frame.data_ref() {
                for event in parser.take(data)? {
                    each(event)?;
                }
            }
        }
        Ok(())
    }
}

/// What has come so far.
#[derive(Default)]
struct Parser {
    line: Vec<u8>,
    event: ServerEvent,
    size: usize,
}

impl Parser {
    fn take(&mut self, bytes: &[u8]) -> Result<Vec<ServerEvent>, Refusal> {
        let mut events = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                self.size += 1;
                if self.size > EVENT_MAX_BYTES {
                    return Err(Refusal::limit(
                        "event-too-large",
                        "an event of the server is too large",
                    )
                    .expected(&format!("at most {EVENT_MAX_BYTES} bytes")));
                }
                continue;
            }
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
            let line = line.strip_suffix('\r').unwrap_or(&line);
            if line.is_empty() {
                self.size = 0;
                let event = std::mem::take(&mut self.event);
                if !event.data.is_empty() {
                    events.push(event);
                }
            } else if let Some((name, value)) = line.split_once(':') {
                let value = value.strip_prefix(' ').unwrap_or(value);
                match name {
                    "id" => self.event.id = value.to_owned(),
                    "data" => {
                        if !self.event.data.is_empty() {
                            self.event.data.push('\n');
                        }
                        self.event.data.push_str(value);
                    }
                    // Comments and fields that are not ours.
                    _ => {}
                }
            }
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_any_pieces() {
        let stream = b": hello\n\nid: 3\r\ndata: {\"a\":1}\r\n\r\nid: 4\ndata: x\ndata: y\n\n";
        for size in 1..stream.len() {
            let mut parser = Parser::default();
            let mut events = Vec::new();
            for piece in stream.chunks(size) {
                events.extend(parser.take(piece).unwrap());
            }
            assert_eq!(events.len(), 2);
            assert_eq!(
                events[0],
                ServerEvent {
                    id: "3".into(),
                    data: "{\"a\":1}".into()
                }
            );
            assert_eq!(events[1].data, "x\ny");
        }
    }

    #[test]
    fn a_stream_without_end_is_cut() {
        assert!(
            Parser::default()
                .take(&vec![b'x'; EVENT_MAX_BYTES + 1])
                .is_err()
        );
    }
}
