//! The pieces in which a log is served: tiles of 256 tree hashes, and bundles of 256 entries.
//!
//! A tile at level L and index N holds the hashes of the nodes `(8·L, 256·N ..)`; the last one of a
//! level may be partial. A bundle holds the entries whose leaf hashes the level-0 tile of the same
//! index holds. Every piece is a prefix of what it will be once full and never changes otherwise.
//!
//! Source: c2sp.org/tlog-tiles. What the `tlog_tiles` crate would bring, and why it isn't used,
//! stands in `docs/decisions/0002-evidence-formats.md`.

mod reader;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use portcullis_model::limits::ENTRY_MAX_BYTES;
use portcullis_model::{Digest, Refusal};

use crate::merkle::{Node, TREE_MAX_SIZE};

pub use reader::{TileMap, tiles_for};

/// Tree levels that one tile spans.
pub const TILE_HEIGHT: u8 = 8;
/// Hashes in a full tile, and entries in a full bundle.
pub const TILE_WIDTH: u64 = 1 << TILE_HEIGHT;
/// Bytes of one hash.
pub const HASH_BYTES: usize = 32;
/// Largest tile in bytes.
pub const TILE_MAX_BYTES: usize = HASH_BYTES << TILE_HEIGHT;
/// Largest bundle in bytes: 256 entries with their lengths.
pub const BUNDLE_MAX_BYTES: usize = (2 + ENTRY_MAX_BYTES) << TILE_HEIGHT;
/// Highest level at which a tree of [`TREE_MAX_SIZE`] leaves has hashes. The specification lets
/// paths go up to 63; there is nothing there.
pub const TILE_MAX_LEVEL: u8 = 7;
/// Longest path of a piece in bytes: `tile/entries/`, seven elements of the index, the width.
pub const PATH_MAX_BYTES: usize = 64;

/// What a piece holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Tree hashes of this tile level, 0 to [`TILE_MAX_LEVEL`].
    Hashes(u8),
    /// Entries.
    Entries,
}

/// The name of a piece; written as its path below a log's prefix, such as `tile/0/x001/234.p/5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Piece {
    kind: Kind,
    index: u64,
    width: u16,
}

impl Piece {
    /// The piece number `index` of its kind with its first `width` hashes or entries.
    ///
    /// `None` where no tree has it: a width that isn't 1 to 256, a level above [`TILE_MAX_LEVEL`],
    /// an index beyond [`TREE_MAX_SIZE`] leaves.
    pub fn new(kind: Kind, index: u64, width: u64) -> Option<Self> {
        let level = kind.level();
        if !(1..=TILE_WIDTH).contains(&width) || level > TILE_MAX_LEVEL {
            return None;
        }
        let end = index.checked_mul(TILE_WIDTH)?.checked_add(width)?;
        if end > TREE_MAX_SIZE >> (level * TILE_HEIGHT) {
            return None;
        }
        let width = u16::try_from(width).ok()?;
        Some(Self { kind, index, width })
    }

    /// The piece number `index` of its kind, as wide as a tree of `size` leaves has it; `None`
    /// where it has nothing there.
    pub fn in_tree(kind: Kind, index: u64, size: u64) -> Option<Self> {
        let hashes = kind.hashes_in(size);
        let before = index.checked_mul(TILE_WIDTH)?;
        Self::new(kind, index, hashes.checked_sub(before)?.min(TILE_WIDTH))
    }

    /// Whether a tree of `size` leaves has all of it.
    pub fn is_in(&self, size: u64) -> bool {
        self.end() <= self.kind.hashes_in(size)
    }

    /// What it holds.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Its number among those of its kind, from 0.
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes or entries, 1 to 256.
    pub const fn width(&self) -> u64 {
        self.width as u64
    }

    /// Whether it has all 256.
    pub const fn is_full(&self) -> bool {
        self.width() == TILE_WIDTH
    }

    /// The full piece that this one is the beginning of.
    pub fn full(&self) -> Option<Self> {
        Self::new(self.kind, self.index, TILE_WIDTH)
    }

    /// Place of its first hash or entry among those of its level.
    pub const fn start(&self) -> u64 {
        // Can't overflow: `new` saw to it.
        self.index.saturating_mul(TILE_WIDTH)
    }

    /// Place behind its last hash or entry.
    pub const fn end(&self) -> u64 {
        self.start().saturating_add(self.width())
    }

    /// The tree's nodes whose hashes it holds; for a bundle those of its entries.
    pub fn nodes(&self) -> Vec<Node> {
        let level = self.kind.level() * TILE_HEIGHT;
        (self.start()..self.end())
            .map(|index| Node { level, index })
            .collect()
    }

    /// Most bytes that it has.
    pub const fn max_bytes(&self) -> usize {
        match self.kind {
            Kind::Hashes(_) => self.width as usize * HASH_BYTES,
            Kind::Entries => self.width as usize * (2 + ENTRY_MAX_BYTES),
        }
    }
}

impl Kind {
    const fn level(self) -> u8 {
        match self {
            Self::Hashes(level) => level,
            Self::Entries => 0,
        }
    }

    /// How many hashes or entries of this kind a tree of `size` leaves has.
    fn hashes_in(self, size: u64) -> u64 {
        size.checked_shr(u32::from(self.level()) * u32::from(TILE_HEIGHT))
            .unwrap_or(0)
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Hashes(level) => write!(f, "tile/{level}/")?,
            Kind::Entries => f.write_str("tile/entries/")?,
        }
        let mut elements = vec![self.index % 1_000];
        let mut rest = self.index / 1_000;
        while rest > 0 {
            elements.push(rest % 1_000);
            rest /= 1_000;
        }
        while let Some(element) = elements.pop() {
            if elements.is_empty() {
                write!(f, "{element:03}")?;
            } else {
                write!(f, "x{element:03}/")?;
            }
        }
        if !self.is_full() {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

impl FromStr for Piece {
    type Err = Refusal;

    /// Reads the one spelling that each piece has.
    fn from_str(path: &str) -> Result<Self, Refusal> {
        let refused = || {
            Refusal::malformed("path of a tile")
                .expected("tile/LEVEL/x001/234, tile/entries/x001/234, with .p/WIDTH where partial (c2sp.org/tlog-tiles)")
                .received(path)
        };
        if path.len() > PATH_MAX_BYTES {
            return Err(refused());
        }
        let (kind, rest) = path
            .strip_prefix("tile/")
            .and_then(|rest| rest.split_once('/'))
            .ok_or_else(refused)?;
        let kind = match kind {
            "entries" => Kind::Entries,
            level => Kind::Hashes(number(level).ok_or_else(refused)?),
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => {
                let width: u64 = number(width).ok_or_else(refused)?;
                (index, Some(width).filter(|width| *width < TILE_WIDTH))
            }
            None => (rest, Some(TILE_WIDTH)),
        };
        let piece = width
            .zip(parse_index(index))
            .and_then(|(width, index)| Self::new(kind, index, width))
            .ok_or_else(refused)?;
        // Zeros in front of the index would be a second spelling.
        if piece.to_string() == path {
            Ok(piece)
        } else {
            Err(refused())
        }
    }
}

/// An index in path elements of three digits, all but the last with an `x`.
fn parse_index(path: &str) -> Option<u64> {
    let mut index = 0_u64;
    let mut elements = path.split('/').peekable();
    while let Some(element) = elements.next() {
        let digits = match elements.peek() {
            Some(_) => element.strip_prefix('x')?,
            None => element,
        };
        if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        index = index
            .checked_mul(1_000)?
            .checked_add(digits.parse().ok()?)?;
    }
    Some(index)
}

/// A decimal number in its one spelling.
fn number<T: FromStr + fmt::Display>(text: &str) -> Option<T> {
    let number: T = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Reads the hashes of a tile.
///
/// # Errors
/// Not exactly as many bytes as `piece` has.
pub fn parse_hashes(piece: &Piece, bytes: &[u8]) -> Result<Vec<Digest>, Refusal> {
    let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
    if hashes.len() as u64 != piece.width() || !rest.is_empty() {
        return Err(Refusal::malformed("tile")
            .expected(&format!(
                "{piece}: {} bytes",
                piece.width() * HASH_BYTES as u64
            ))
            .received(&format!("{} bytes", bytes.len())));
    }
    Ok(hashes.iter().copied().map(Digest::from_bytes).collect())
}

/// Writes a tile.
pub fn write_hashes(hashes: &[Digest]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

/// Reads the entries of a bundle.
///
/// # Errors
/// Not exactly as many entries as `piece` has, or bytes that are not an entry.
pub fn parse_entries<'a>(piece: &Piece, bytes: &'a [u8]) -> Result<Vec<&'a [u8]>, Refusal> {
    let refused = |received: String| {
        Refusal::malformed("entry bundle")
            .expected(&format!(
                "{piece}: {} entries, each with its length as two bytes before it",
                piece.width()
            ))
            .received(&received)
    };
    let mut entries = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        if entries.len() as u64 == piece.width() {
            return Err(refused(format!("{} bytes too many", rest.len())));
        }
        let cut_off = || refused(format!("entry {} cut off", entries.len()));
        let (length, behind) = rest.split_first_chunk::<2>().ok_or_else(cut_off)?;
        let (entry, behind) = behind
            .split_at_checked(usize::from(u16::from_be_bytes(*length)))
            .ok_or_else(cut_off)?;
        entries.push(entry);
        rest = behind;
    }
    if entries.len() as u64 != piece.width() {
        return Err(refused(format!("{} entries", entries.len())));
    }
    Ok(entries)
}

/// Appends one entry to a bundle.
///
/// # Errors
/// It is longer than 65,535 bytes.
pub fn write_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), Refusal> {
    let length = u16::try_from(entry.len()).map_err(|_| {
        Refusal::limit("entry-too-large", "no entry bundle can hold this entry")
            .expected(&format!("at most {ENTRY_MAX_BYTES} bytes"))
            .received(&format!("{} bytes", entry.len()))
    })?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}
