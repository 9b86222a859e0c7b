//! From the program to the host.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use portcullis_model::{Refusal, RefusalKind};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::Instant;

use super::frame::{Event, Frames, Head, Kind, Side, mask};
use super::{Close, Ended, Looks, Pace, Patience, Said, fresh_mask, not_understood};
use crate::http::room::{Held, Room};
use crate::http::upload::HELD_MAX_BYTES;

/// Most parts of one message: a part may be empty, and each is remembered, beside the room that the
/// message takes.
const PARTS_MAX: usize = 1024;
/// How much is written at once.
const STEP_BYTES: usize = 64 * 1024;

/// What it takes to pass on what a program says.
pub(super) struct Saying<'a, R, W, L> {
    pub(super) inside: R,
    pub(super) outside: W,
    pub(super) room: &'a Room,
    pub(super) looks: &'a mut L,
    /// How often the run may say something.
    pub(super) pace: &'a Pace,
    pub(super) patience: Patience,
    /// Bytes that went to the host.
    pub(super) sent: &'a AtomicU64,
    /// Most of them.
    pub(super) most: u64,
}

/// Why nothing more is passed on.
enum Over {
    /// A side is gone, or a bound was reached.
    Ended(Ended),
    /// Something was refused; whether that is recorded already.
    Refused {
        code: u16,
        refusal: Refusal,
        recorded: bool,
    },
}

impl From<Ended> for Over {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

/// A message that is being held.
struct Message<'room> {
    text: bool,
    held: Held<'room>,
    /// Where each of its parts ended.
    ends: Vec<usize>,
    /// When it has to be whole.
    until: Instant,
}

impl<R, W, L> Saying<'_, R, W, L>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    L: Looks,
{
    /// Passes on what is said until the program or the host closes. `tell`: what to tell the
    /// program where something is refused.
    pub(super) async fn run(mut self, tell: &watch::Sender<Option<Close>>) -> Result<(), Ended> {
        match self.talk().await {
            Ok(()) => {
                // The host may still have to say; the program has said all.
                self.discard().await;
                // A host that is gone needs no goodbye.
                let _gone = self.outside.shutdown().await;
                Ok(())
            }
            Err(Over::Ended(ended)) => Err(ended),
            Err(Over::Refused {
                code,
                refusal,
                recorded,
            }) => {
                if !recorded {
                    self.looks.refused(&refusal).await;
                }
                let patience = self.patience.close;
                tell.send_replace(Some(Close::why(code, &refusal)));
                let goodbye = Close {
                    code: Close::GOING_AWAY,
                    reason: String::new(),
                };
                let both = async {
                    let bytes = goodbye.written(Some(fresh_mask()?));
                    self.write(&bytes).await?;
                    let _gone = self.outside.shutdown().await;
                    Ok::<_, Ended>(())
                };
                // A host that takes nothing is not waited for.
                let _in_time = tokio::time::timeout(patience, both).await;
                let _in_time = tokio::time::timeout(patience, self.discard()).await;
                Ok(())
            }
        }
    }

    /// Reads until the program goes away, for nobody.
    async fn discard(&mut self) {
        let mut buffer = vec![0; 4096];
        while let Ok(1..) = self.inside.read(&mut buffer).await {}
    }

    async fn talk(&mut self) -> Result<(), Over> {
        let (room, most_time) = (self.room, self.patience.message);
        let mut frames = Frames::of(Side::Client);
        let mut bytes = BytesMut::new();
        let mut control = Vec::new();
        let mut message: Option<Message<'_>> = None;
        loop {
            let event = frames.next(&mut bytes).map_err(|wrong| {
                let what = "the program says something that is no WebSocket frame";
                refused(Close::PROTOCOL, not_understood(what, wrong))
            })?;
            match event {
                Event::Hungry if frames.is_closed() => return Ok(()),
                Event::Hungry => {
                    let until = message.as_ref().map(|message| message.until);
                    if !self.read(&mut bytes, until).await? {
                        // What was begun and not ended does not leave.
                        return Ok(());
                    }
                }
                Event::Head(head) if head.kind.is_control() => control.clear(),
                Event::Head(head) => message
                    .get_or_insert_with(|| Message::new(head.kind, room, most_time))
                    .begin(head)?,
                Event::Piece(piece) => match &mut message {
                    Some(message) if !frames.is_control() => {
                        message.held.push(&piece).await.map_err(no_room)?;
                    }
                    Some(_) | None => control.extend_from_slice(&piece),
                },
                Event::End(head) if head.kind.is_control() => {
                    self.look(Said::Control, &control).await?;
                    self.say(head.kind, &control, &[control.len()]).await?;
                }
                Event::End(head) => {
                    if let Some(message) = &mut message {
                        message.ends.push(message.held.len());
                    }
                    if head.last
                        && let Some(whole) = message.take()
                    {
                        self.pass(whole).await?;
                    }
                }
            }
        }
    }

    /// Reads more; `false` at the end. `until`: when a message that was begun has to be whole, however
    /// much else is said meanwhile.
    async fn read(&mut self, bytes: &mut BytesMut, until: Option<Instant>) -> Result<bool, Over> {
        let late = || refused(Close::POLICY, too_slow(self.patience));
        if until.is_some_and(|until| until <= Instant::now()) {
            return Err(late());
        }
        bytes.reserve(16 * 1024);
        let reading = self.inside.read_buf(bytes);
        let count = match until {
            None => reading.await,
            Some(until) => tokio::time::timeout_at(until, reading)
                .await
                .map_err(|_| late())?,
        };
        Ok(count.map_err(|_| Ended::Broken)? > 0)
    }

    async fn pass(&mut self, message: Message<'_>) -> Result<(), Over> {
        let Message {
            text, held, ends, ..
        } = message;
        let said = held.finish();
        if text && std::str::from_utf8(&said).is_err() {
            let refusal = Refusal::denied(
                "not-understood",
                "a message says that it is text and is not",
            )
            .expected("UTF-8 in messages of text")
            .received("other bytes")
            .next("send it as a message of bytes");
            return Err(refused(Close::NOT_TEXT, refusal));
        }
        self.look(Said::Message, &said).await?;
        let kind = if text { Kind::Text } else { Kind::Binary };
        Ok(self.say(kind, &said, &ends).await?)
    }

    async fn look(&mut self, what: Said, said: &[u8]) -> Result<(), Over> {
        // Nothing more is read meanwhile, so that who says too much waits.
        tokio::time::sleep(self.pace.wait(Instant::now())).await;
        let looked = self.looks.look(what, said).await;
        looked.map_err(|refusal| Over::Refused {
            code: match refusal.kind {
                RefusalKind::Unavailable | RefusalKind::Internal => Close::TRY_AGAIN,
                _ => Close::POLICY,
            },
            refusal,
            recorded: true,
        })
    }

    /// Says it to the host in frames of our own, in the parts in which it came: what a host takes
    /// may depend on their size.
    async fn say(&mut self, kind: Kind, said: &[u8], ends: &[usize]) -> Result<(), Ended> {
        let mut begin = 0;
        for (at, end) in ends.iter().enumerate() {
            let part = said.get(begin..*end).unwrap_or_default();
            let head = Head {
                last: at + 1 == ends.len(),
                kind: if at == 0 { kind } else { Kind::Continuation },
                length: u64::try_from(part.len()).unwrap_or(u64::MAX),
            };
            let key = fresh_mask()?;
            let mut bytes = head.written(Some(key));
            let mut gone = 0;
            for step in part.chunks(STEP_BYTES) {
                let from = bytes.len();
                bytes.extend_from_slice(step);
                mask(bytes.get_mut(from..).unwrap_or_default(), key, gone);
                gone = gone.saturating_add(u64::try_from(step.len()).unwrap_or(u64::MAX));
                self.write(&bytes).await?;
                bytes.clear();
            }
            if !bytes.is_empty() {
                self.write(&bytes).await?;
            }
            begin = *end;
        }
        self.outside.flush().await.map_err(|_| Ended::Broken)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let after = self.sent.load(Ordering::Relaxed).saturating_add(count);
        if after > self.most {
            return Err(Ended::Bytes);
        }
        let written = self.outside.write_all(bytes).await;
        written.map_err(|_| Ended::Broken)?;
        self.sent.store(after, Ordering::Relaxed);
        Ok(())
    }
}

impl<'room> Message<'room> {
    fn new(kind: Kind, room: &'room Room, time: Duration) -> Self {
        Self {
            text: kind == Kind::Text,
            held: Held::new(room),
            ends: Vec::new(),
            until: Instant::now() + time,
        }
    }

    /// A further part begins: whether there is a place for it.
    fn begin(&self, head: Head) -> Result<(), Over> {
        let length = usize::try_from(head.length).unwrap_or(usize::MAX);
        let fits = self.held.len().saturating_add(length) <= HELD_MAX_BYTES;
        if fits && self.ends.len() < PARTS_MAX {
            return Ok(());
        }
        let refusal = Refusal::denied(
            "message-too-large",
            "a WebSocket message is too large to be looked at, so it does not leave",
        )
        .expected(&format!(
            "messages of at most {HELD_MAX_BYTES} bytes, in at most {PARTS_MAX} parts"
        ))
        .received("more")
        .next("send it in several messages");
        Err(refused(Close::TOO_LARGE, refusal))
    }
}

fn refused(code: u16, refusal: Refusal) -> Over {
    Over::Refused {
        code,
        refusal,
        recorded: false,
    }
}

fn no_room(refusal: Refusal) -> Over {
    refused(Close::TRY_AGAIN, refusal)
}

fn too_slow(patience: Patience) -> Refusal {
    Refusal::denied(
        "message-too-slow",
        "a WebSocket message was begun and does not end",
    )
    .expected(&format!(
        "all of it within {} s",
        patience.message.as_secs()
    ))
    .next("send it in several messages")
}
