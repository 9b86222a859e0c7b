//! From the host to the program.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use portcullis_model::Refusal;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;

use super::frame::{Event, Frames, Kind, Side, Wrong};
use super::{Close, Ended};

/// Most bytes that are written at once, unless one read brought more.
const GATHERED_MAX_BYTES: usize = 64 * 1024;

/// What it takes to pass on what a host says.
pub(super) struct Hearing<'a, R, W> {
    pub(super) outside: R,
    pub(super) inside: W,
    /// Bytes that came from the host.
    pub(super) heard: &'a AtomicU64,
    /// Most of them.
    pub(super) most: u64,
    /// What to tell the program, and then nothing more.
    pub(super) told: watch::Receiver<Option<Close>>,
    /// What goes to the program with the next write.
    pub(super) gathered: Vec<u8>,
}

/// Why nothing more is passed on.
pub(super) enum Over {
    /// A side is gone, or a bound was reached.
    Ended(Ended),
    /// The host says something that is no frame.
    Wrong(Wrong),
}

impl From<Ended> for Over {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

impl<R, W> Hearing<'_, R, W>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    /// Passes on what is said until the host ends, or the program is told that it is over.
    pub(super) async fn run(mut self) -> Result<(), Over> {
        let mut frames = Frames::of(Side::Host);
        let mut bytes = BytesMut::new();
        // The last frame, until it is known to be one.
        let mut goodbye = Vec::new();
        loop {
            if frames.is_between() {
                let close = self.told.borrow().clone();
                if let Some(close) = close {
                    return self.close(&close).await;
                }
            }
            match frames.next(&mut bytes) {
                Err(wrong) => {
                    let what = "the host says something that is no WebSocket frame";
                    let close =
                        Close::why(Close::PROTOCOL, &Refusal::denied("not-understood", what));
                    self.close(&close).await?;
                    return Err(Over::Wrong(wrong));
                }
                Ok(Event::Head(head)) if head.kind == Kind::Close => goodbye = head.written(None),
                Ok(Event::Head(head)) => self.gather(&head.written(None)).await?,
                Ok(Event::Piece(piece)) if frames.is_closing() => goodbye.extend(piece),
                Ok(Event::Piece(piece)) => self.gather(&piece).await?,
                Ok(Event::End(_)) => self.gather(&std::mem::take(&mut goodbye)).await?,
                Ok(Event::Hungry) => {
                    self.write().await?;
                    if frames.is_closed() || !self.read(&mut bytes, frames.is_between()).await? {
                        // Who is gone needs no goodbye.
                        let _gone = self.inside.shutdown().await;
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Reads more; `false` at the end. Between two frames, whoever has something to tell the program
    /// is heard first.
    async fn read(&mut self, bytes: &mut BytesMut, between: bool) -> Result<bool, Ended> {
        bytes.reserve(16 * 1024);
        let told = &mut self.told;
        let count = tokio::select! {
            biased;
            () = is_told(told), if between => return Ok(true),
            count = self.outside.read_buf(bytes) => count.map_err(|_| Ended::Broken)?,
        };
        Ok(count > 0)
    }

    async fn close(&mut self, close: &Close) -> Result<(), Over> {
        self.gather(&close.written(None)).await?;
        self.write().await?;
        // Who is gone needs no goodbye.
        let _gone = self.inside.shutdown().await;
        Ok(())
    }

    /// Takes in what goes to the program with the next write.
    async fn gather(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        if self.gathered.len().saturating_add(bytes.len()) > GATHERED_MAX_BYTES {
            self.write().await?;
        }
        self.gathered.extend_from_slice(bytes);
        Ok(())
    }

    async fn write(&mut self) -> Result<(), Ended> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let count = u64::try_from(self.gathered.len()).unwrap_or(u64::MAX);
        let after = self.heard.load(Ordering::Relaxed).saturating_add(count);
        if after > self.most {
            return Err(Ended::Bytes);
        }
        let writing = async {
            self.inside.write_all(&self.gathered).await?;
            self.inside.flush().await
        };
        writing.await.map_err(|_| Ended::Broken)?;
        self.gathered.clear();
        self.heard.store(after, Ordering::Relaxed);
        Ok(())
    }
}

/// Ready once there is something to tell; never, where there will be nothing.
async fn is_told(told: &mut watch::Receiver<Option<Close>>) {
    if told.wait_for(Option::is_some).await.is_err() {
        std::future::pending::<()>().await;
    }
}
