//! A served log, read from outside (C2SP tlog-tiles), trusting nothing but its key.
//!
//! Every answer is bounded in bytes and in time by what it may be at most; what a log says is
//! compared with the signed root before anybody relies on it.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use portcullis_evidence::checkpoint::UnverifiedCheckpoint;
use portcullis_evidence::merkle::{HashReader, Node, consistency_proof, inclusion_proof, root_at};
use portcullis_evidence::note::NOTE_MAX_BYTES;
use portcullis_evidence::tiles::{Kind, Piece, TILE_WIDTH, TileMap, parse_entries, parse_hashes};
use portcullis_gateway::http::Credential;
use portcullis_gateway::http::plain::{Ask, PlainClient, Reply, check_url};
use portcullis_model::{Digest, Refusal};

use crate::task_file::read_text;

/// How long one answer may take: a bundle of 16 MiB over a slow line.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// Pieces that are asked for at once.
const PARALLEL: usize = 4;
/// How often a piece is asked for: a cache in between may be behind by a moment.
const TRIES: u32 = 3;
/// How long to wait before it is asked for again.
const RETRY_WAIT: Duration = Duration::from_millis(300);

/// A served log.
pub(crate) struct LogReader {
    client: PlainClient,
    prefix: String,
    token: Option<Credential>,
}

impl LogReader {
    /// The log below the URL `prefix`; `token_file` holds what admits its readers.
    ///
    /// # Errors
    /// The URL can't be asked, or the file can't be read.
    pub(crate) fn new(prefix: &str, token_file: Option<&Path>) -> Result<Self, Refusal> {
        check_url(prefix)?;
        let token = match token_file {
            Some(path) => {
                let text = read_text(path, "token file")?;
                let line = text.lines().map(str::trim).find(|line| !line.is_empty());
                let line = line.ok_or_else(|| {
                    Refusal::malformed("token file")
                        .expected("a token on its first line")
                        .received("nothing")
                })?;
                Some(Credential::new(line.to_owned()))
            }
            None => None,
        };
        Ok(Self {
            client: PlainClient::new(None)?,
            prefix: prefix.trim_end_matches('/').to_owned(),
            token,
        })
    }

    /// The log's URL.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The log's checkpoint, as it is.
    ///
    /// # Errors
    /// It can't be read, or isn't one.
    pub(crate) async fn checkpoint(&self) -> Result<UnverifiedCheckpoint, Refusal> {
        let reply = self.get("checkpoint", NOTE_MAX_BYTES, false).await?;
        UnverifiedCheckpoint::parse(&reply.body).map_err(|refusal| self.garbage(refusal))
    }

    /// The bytes of a piece, exactly as long as its kind may be.
    ///
    /// # Errors
    /// It is not there, is not what it should be in form, or can't be read.
    async fn piece(&self, piece: &Piece) -> Result<Vec<u8>, Refusal> {
        let mut tried = 1;
        loop {
            let refusal = match self.piece_once(piece).await {
                Ok(bytes) => return Ok(bytes),
                Err(refusal) => refusal,
            };
            let passing = refusal.kind == portcullis_model::RefusalKind::Unavailable
                || refusal.code == "tile-not-found";
            if !passing || tried == TRIES {
                return Err(refusal);
            }
            tried += 1;
            tokio::time::sleep(RETRY_WAIT).await;
        }
    }

    async fn piece_once(&self, piece: &Piece) -> Result<Vec<u8>, Refusal> {
        let max = piece.max_bytes();
        let gzip = piece.kind() == Kind::Entries;
        let asked = self.get(&piece.to_string(), max, gzip).await;
        // A partial piece may be gone once the full one is there; it begins with the same bytes.
        let (reply, full) = match (asked, piece.full()) {
            (Err(refusal), Some(full)) if refusal.code == "tile-not-found" && !piece.is_full() => {
                let asked = self.get(&full.to_string(), full.max_bytes(), gzip).await;
                (asked.map_err(|_| refusal)?, Some(full))
            }
            (asked, _) => (asked?, None),
        };
        let bytes = self.unpacked(reply, full.as_ref().unwrap_or(piece))?;
        match full {
            None => Ok(bytes),
            Some(full) => beginning(piece, &full, &bytes).map_err(|refusal| self.garbage(refusal)),
        }
    }

    fn unpacked(&self, reply: Reply, piece: &Piece) -> Result<Vec<u8>, Refusal> {
        match reply.header("content-encoding").unwrap_or("identity") {
            "identity" => Ok(reply.body.to_vec()),
            "gzip" => {
                let max = piece.max_bytes() as u64;
                let mut bytes = Vec::new();
                flate2::read::GzDecoder::new(reply.body.as_ref())
                    .take(max + 1)
                    .read_to_end(&mut bytes)
                    .map_err(|error| {
                        self.garbage(Refusal::malformed("gzip").received(&error.to_string()))
                    })?;
                if bytes.len() as u64 > max {
                    return Err(self.garbage(
                        Refusal::malformed("tile").expected(&format!("at most {max} bytes")),
                    ));
                }
                Ok(bytes)
            }
            other => Err(self.garbage(
                Refusal::malformed("content encoding")
                    .expected("gzip or identity")
                    .received(other),
            )),
        }
    }

    /// Fetches those of the tree's tiles that `nodes` need and `tiles` lacks.
    ///
    /// # Errors
    /// As [`Self::piece`].
    pub(crate) async fn fetch(&self, tiles: &mut TileMap, nodes: &[Node]) -> Result<(), Refusal> {
        let missing = tiles.missing(nodes)?;
        let mut answers = stream::iter(missing)
            .map(|piece| async move { (piece, self.piece(&piece).await) })
            .buffer_unordered(PARALLEL);
        while let Some((piece, bytes)) = answers.next().await {
            tiles
                .add(piece, &bytes?)
                .map_err(|refusal| self.garbage(refusal))?;
        }
        Ok(())
    }

    /// The entries from `from` and below `size`, in order, each with its index; `each` answers
    /// `false` to end it.
    ///
    /// # Errors
    /// As [`Self::piece`], or what `each` says.
    pub(crate) async fn entries(
        &self,
        from: u64,
        size: u64,
        mut each: impl FnMut(u64, &[u8]) -> Result<bool, Refusal>,
    ) -> Result<(), Refusal> {
        let bundles = (from / TILE_WIDTH..size.div_ceil(TILE_WIDTH))
            .filter_map(|index| Piece::in_tree(Kind::Entries, index, size));
        let mut answers = stream::iter(bundles)
            .map(|piece| async move { (piece, self.piece(&piece).await) })
            .buffered(PARALLEL);
        while let Some((piece, bytes)) = answers.next().await {
            let bytes = bytes?;
            let entries = parse_entries(&piece, &bytes).map_err(|refusal| self.garbage(refusal))?;
            for (index, entry) in (piece.start()..).zip(entries) {
                if index >= from && !each(index, entry)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The proof that `index` is in the tree of `size`, out of its tiles; not checked.
    ///
    /// # Errors
    /// As [`Self::piece`].
    pub(crate) async fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Digest>, Refusal> {
        self.proof(size, |tree| inclusion_proof(tree, index, size))
            .await
    }

    /// The proofs that each entry of `range` is in the tree of `size`; not checked. What they
    /// share stays in `tiles`.
    ///
    /// # Errors
    /// As [`Self::piece`].
    pub(crate) async fn inclusions(
        &self,
        tiles: &mut TileMap,
        range: Range<u64>,
        size: u64,
    ) -> Result<Vec<Vec<Digest>>, Refusal> {
        tiles.forget_leaves();
        let wanted = {
            let recording = Recording::new(tiles);
            for index in range.clone() {
                let _planned = inclusion_proof(&recording, index, size);
            }
            recording.wanted()
        };
        self.fetch(tiles, &wanted).await?;
        range
            .map(|index| inclusion_proof(tiles, index, size))
            .collect()
    }

    /// The proof that the tree of `old` is a prefix of that of `new`; not checked.
    ///
    /// # Errors
    /// As [`Self::piece`].
    pub(crate) async fn consistency(&self, old: u64, new: u64) -> Result<Vec<Digest>, Refusal> {
        self.proof(new, |tree| consistency_proof(tree, old, new))
            .await
    }

    /// The root of the first `size` entries, out of the tiles of that tree.
    ///
    /// # Errors
    /// As [`Self::piece`].
    pub(crate) async fn root(&self, size: u64) -> Result<Digest, Refusal> {
        let roots = self
            .proof(size, |tree| Ok(vec![root_at(tree, size)?]))
            .await?;
        roots
            .into_iter()
            .next()
            .ok_or_else(|| Refusal::internal("a root is one hash"))
    }

    /// The hashes of one tile; not checked.
    ///
    /// # Errors
    /// As [`Self::piece`].
    pub(crate) async fn hashes(&self, piece: &Piece) -> Result<Vec<Digest>, Refusal> {
        let bytes = self.piece(piece).await?;
        parse_hashes(piece, &bytes).map_err(|refusal| self.garbage(refusal))
    }

    /// Plans a proof, fetches what it needs, and makes it.
    async fn proof(
        &self,
        size: u64,
        make: impl Fn(&Recording<'_>) -> Result<Vec<Digest>, Refusal>,
    ) -> Result<Vec<Digest>, Refusal> {
        let mut tiles = TileMap::new(size);
        let wanted = {
            let recording = Recording::new(&tiles);
            // Nothing is there yet: what it asks for is the plan.
            let _empty = make(&recording);
            recording.wanted()
        };
        self.fetch(&mut tiles, &wanted).await?;
        make(&Recording::new(&tiles))
    }

    async fn get(&self, path: &str, max_bytes: usize, gzip: bool) -> Result<Reply, Refusal> {
        let url = format!("{}/{path}", self.prefix);
        let reply = self
            .client
            .send(Ask {
                url: &url,
                post: None,
                token: self.token.as_ref(),
                gzip,
                max_bytes,
                time: ANSWER_TIME,
            })
            .await?;
        match reply.status.as_u16() {
            200 => Ok(reply),
            404 => Err(Refusal::new(
                portcullis_model::RefusalKind::NotFound,
                "tile-not-found",
                format!("the log does not serve {path}, which its checkpoint demands"),
            )
            .expected(&url)
            .next("is this the log's URL? keep its checkpoint; a log that hides what it signed is not to be trusted")),
            401 | 403 => Err(Refusal::denied("log-reader-unknown", format!("{url} is not for everyone"))
                .next("name a file with your token by --token-file")),
            status => Err(Refusal::unavailable(
                "log-answer",
                format!("{url} does not answer as a log does"),
            )
            .expected("status 200")
            .received(&format!("status {status}"))),
        }
    }

    /// A log that answers with something else is told of as what it is.
    fn garbage(&self, refusal: Refusal) -> Refusal {
        Refusal {
            message: format!(
                "the log at {} answers with what it may not: {}",
                self.prefix, refusal.message
            ),
            kind: portcullis_model::RefusalKind::Conflict,
            code: "log-garbage".to_owned(),
            ..refusal
        }
    }
}

/// The first hashes or entries of a full piece, as the partial one has them.
fn beginning(piece: &Piece, full: &Piece, bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
    let length = match piece.kind() {
        Kind::Hashes(_) => piece.max_bytes(),
        Kind::Entries => {
            let entries = parse_entries(full, bytes)?;
            let count = usize::try_from(piece.width()).unwrap_or(usize::MAX);
            entries
                .iter()
                .take(count)
                .map(|entry| entry.len() + 2)
                .sum()
        }
    };
    let whole = bytes.get(..length);
    whole.map(<[u8]>::to_vec).ok_or_else(|| {
        Refusal::malformed("tile")
            .expected(&format!("at least {length} bytes"))
            .received(&format!("{} bytes", bytes.len()))
    })
}

/// Tiles that remember what was asked of them.
struct Recording<'a> {
    tiles: &'a TileMap,
    asked: std::cell::RefCell<BTreeSet<Node>>,
}

impl<'a> Recording<'a> {
    const fn new(tiles: &'a TileMap) -> Self {
        Self {
            tiles,
            asked: std::cell::RefCell::new(BTreeSet::new()),
        }
    }

    fn wanted(&self) -> Vec<Node> {
        self.asked.borrow().iter().copied().collect()
    }
}

impl HashReader for Recording<'_> {
    fn read(&self, nodes: &[Node]) -> Result<Vec<Digest>, Refusal> {
        self.asked.borrow_mut().extend(nodes);
        self.tiles.read(nodes)
    }
}
