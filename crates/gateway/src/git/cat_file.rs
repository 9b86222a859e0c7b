//! `git cat-file --batch`: objects by id, many per process.

use portcullis_model::{GitOid, Refusal};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStdin, ChildStdout};

use super::command::{Invocation, Running};

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) kind: Kind,
    pub(crate) oid: GitOid,
    pub(crate) content: Vec<u8>,
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Blob,
    Tree,
    Commit,
    Tag,
}

/// A header line of the answer.
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) oid: GitOid,
    pub(crate) bytes: u64,
}

/// A process that answers with objects. The caller bounds its time.
pub(crate) struct CatFile {
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// Killed with this value.
    _running: Running,
}

impl CatFile {
    pub(crate) fn start(invocation: Invocation) -> Result<Self, Refusal> {
        let mut running = invocation
            .args(["cat-file", "--batch"])
            .start_with_input()?;
        let broken = || Refusal::internal("git cat-file has no pipes");
        let stdin = running.stdin.take().ok_or_else(broken)?;
        let stdout = running.stdout.take().ok_or_else(broken)?;
        Ok(Self {
            stdin: Some(stdin),
            stdout: BufReader::with_capacity(64 * 1024, stdout),
            _running: running,
        })
    }

    /// The input, for a caller that asks ahead while it reads with [`CatFile::next`].
    pub(crate) fn take_input(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// The object, or none. An object above `max_bytes` is a refusal, and ends the process.
    pub(crate) async fn object(
        &mut self,
        oid: &GitOid,
        max_bytes: u64,
    ) -> Result<Option<Object>, Refusal> {
        self.ask(oid.as_str()).await?;
        self.next(max_bytes).await
    }

    /// The header of whatever `name` names, its content passed over.
    pub(crate) async fn ask(&mut self, name: &str) -> Result<(), Refusal> {
        let stdin = self
            .stdin
            .as_mut()
            .ok_or_else(|| Refusal::internal("git cat-file's input is elsewhere"))?;
        let line = format!("{name}\n");
        stdin
            .write_all(line.as_bytes())
            .await
            .map_err(|error| ended(&error))?;
        stdin.flush().await.map_err(|error| ended(&error))
    }

    /// The next answer.
    pub(crate) async fn next(&mut self, max_bytes: u64) -> Result<Option<Object>, Refusal> {
        let Some(header) = self.header().await? else {
            return Ok(None);
        };
        if header.bytes > max_bytes {
            self.stdin = None;
            return Err(
                Refusal::limit("object-too-large", "an object is larger than may be read")
                    .expected(&format!("at most {max_bytes} bytes"))
                    .received(&format!("{} bytes in {}", header.bytes, header.oid))
                    .next("make it smaller: split the file or folder, or shorten the message"),
            );
        }
        let size = usize::try_from(header.bytes)
            .map_err(|_| Refusal::internal("an object larger than memory"))?;
        let mut content = vec![0; size];
        self.stdout
            .read_exact(&mut content)
            .await
            .map_err(|error| ended(&error))?;
        self.line_feed().await?;
        Ok(Some(Object {
            kind: header.kind,
            oid: header.oid,
            content,
        }))
    }

    /// The next answer's header; its content must be read with [`CatFile::content_piece`].
    pub(crate) async fn header(&mut self) -> Result<Option<Header>, Refusal> {
        let mut line = Vec::new();
        (&mut self.stdout)
            .take(1_024)
            .read_until(b'\n', &mut line)
            .await
            .map_err(|error| ended(&error))?;
        let text = String::from_utf8_lossy(&line);
        let words: Vec<&str> = text.trim_end_matches('\n').split(' ').collect();
        match words.as_slice() {
            [oid, kind, bytes] => {
                let kind = match *kind {
                    "blob" => Kind::Blob,
                    "tree" => Kind::Tree,
                    "commit" => Kind::Commit,
                    "tag" => Kind::Tag,
                    _ => return Err(garbled(&text)),
                };
                Ok(Some(Header {
                    kind,
                    oid: oid.parse()?,
                    bytes: bytes.parse().map_err(|_| garbled(&text))?,
                }))
            }
            [_, "missing"] => Ok(None),
            _ => Err(garbled(&text)),
        }
    }

    /// Up to a buffer's worth of the `left` bytes of content; empty when all is read.
    pub(crate) async fn content_piece(&mut self, left: &mut u64) -> Result<Vec<u8>, Refusal> {
        if *left == 0 {
            self.line_feed().await?;
            return Ok(Vec::new());
        }
        let room = usize::try_from((*left).min(64 * 1024)).unwrap_or(64 * 1024);
        let mut piece = vec![0; room];
        let count = self
            .stdout
            .read(&mut piece)
            .await
            .map_err(|error| ended(&error))?;
        if count == 0 {
            return Err(garbled("the end"));
        }
        piece.truncate(count);
        *left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(piece)
    }

    async fn line_feed(&mut self) -> Result<(), Refusal> {
        let end = self.stdout.read_u8().await.map_err(|error| ended(&error))?;
        if end == b'\n' {
            Ok(())
        } else {
            Err(garbled("another byte after an object"))
        }
    }
}

fn ended(error: &std::io::Error) -> Refusal {
    Refusal::unavailable(
        "git-failed",
        format!("git cat-file ended too early: {error}"),
    )
}

fn garbled(text: &str) -> Refusal {
    Refusal::unavailable(
        "git-failed",
        "git cat-file gave an answer that we don't know",
    )
    .received(text)
}
