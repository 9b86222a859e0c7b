//! Unpacking a source tree from a tar file, into a directory that is new.
//!
//! Understood are POSIX ustar with pax headers, and GNU's long names: what git and Rust's `tar`
//! write. Everything is read and judged before anything is written ([`read`]), so a hostile
//! archive leaves nothing behind. Links are written last, and no path may lead through one; so
//! every write goes where its path says.
//!
//! A symbolic link may point to anything below the tree and to nothing else: its target is
//! relative, `..` stands only at its beginning and not oftener than the link lies deep. Then each
//! `..` leaves a real directory of the tree, and what follows stays below, through further links
//! too, by induction.
//!
//! Sources: POSIX.1-2017 `pax`, "ustar Interchange Format" and "pax Extended Header"; GNU tar
//! manual, "Basic Tar Format".

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, fchown, lchown, symlink};
use std::path::{Path, PathBuf};

use portcullis_model::Refusal;

/// Size of a header and unit of everything in a tar file, in bytes.
const BLOCK: usize = 512;
/// Largest pax header or long name in bytes: several times the longest path.
const EXTENSION_MAX_BYTES: usize = 64 * 1024;
/// Longest path in bytes (Linux' `PATH_MAX`).
pub const PATH_MAX_BYTES: usize = 4_096;
/// Longest part of a path in bytes (`NAME_MAX`).
pub const PART_MAX_BYTES: usize = 255;
/// Deepest nesting: more than any real tree, and below what recursive tools can bear.
pub const DEPTH_MAX: usize = 256;

/// Bounds of one archive.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most files, directories and links.
    pub entries: usize,
    /// Most bytes of all files together.
    pub bytes: u64,
}

impl Default for Limits {
    /// Half a million entries and 1 GiB: the largest trees that are built as a whole.
    fn default() -> Self {
        Self {
            entries: 500_000,
            bytes: 1024 * 1024 * 1024,
        }
    }
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node<'a> {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// Its bytes.
        content: &'a [u8],
        /// Whether it may be executed.
        executable: bool,
    },
    /// A symbolic link that stays in the tree.
    Link {
        /// Where it points.
        target: Vec<u8>,
    },
}

/// A judged tree: each path relative and plain, parents before children.
pub type Tree<'a> = BTreeMap<Vec<Vec<u8>>, Node<'a>>;

/// Unpacks `archive` into the existing, empty directory `into`; with `owner`, everything in it
/// belongs to that user and group. Gives the number of entries.
///
/// # Errors
/// `malformed-source-archive`, `hostile-source-archive` or `source-archive-too-large`, and then
/// nothing was written; or the directory can't be written.
pub fn unpack(
    archive: &[u8],
    into: &Path,
    owner: Option<u32>,
    limits: Limits,
) -> Result<usize, Refusal> {
    let tree = read(archive, limits)?;
    write(&tree, into, owner).map_err(|error| {
        Refusal::unavailable(
            "source-unwritable",
            format!("{} can't be written", into.display()),
        )
        .received(&error.to_string())
    })?;
    Ok(tree.len())
}

fn write(tree: &Tree<'_>, into: &Path, owner: Option<u32>) -> std::io::Result<()> {
    let at = |path: &[Vec<u8>]| -> PathBuf {
        path.iter().fold(into.to_owned(), |path, part| {
            path.join(OsStr::from_bytes(part))
        })
    };
    for (path, node) in tree {
        match node {
            Node::Directory => {
                DirBuilder::new().mode(0o755).create(at(path))?;
                if owner.is_some() {
                    lchown(at(path), owner, owner)?;
                }
            }
            Node::File {
                content,
                executable,
            } => {
                let mode = if *executable { 0o755 } else { 0o644 };
                let mut file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(mode)
                    .open(at(path))?;
                file.write_all(content)?;
                if owner.is_some() {
                    fchown(&file, owner, owner)?;
                }
            }
            Node::Link { .. } => {}
        }
    }
    for (path, node) in tree {
        if let Node::Link { target } = node {
            symlink(OsStr::from_bytes(target), at(path))?;
            if owner.is_some() {
                lchown(at(path), owner, owner)?;
            }
        }
    }
    if owner.is_some() {
        fs::symlink_metadata(into)?;
        lchown(into, owner, owner)?;
    }
    Ok(())
}

/// Reads and judges an archive.
///
/// # Errors
/// As [`unpack`].
pub fn read(archive: &[u8], limits: Limits) -> Result<Tree<'_>, Refusal> {
    let mut reader = Reader { rest: archive };
    let mut tree = Tree::new();
    let mut bytes = 0_u64;
    let mut told = Told::default();
    while let Some(header) = reader.header()? {
        let size = match (header.kind, told.size) {
            // An extension's own size is not what an extension before it says.
            (b'x' | b'g' | b'L' | b'K', _) | (_, None) => header.size,
            (_, Some(size)) => size,
        };
        let content = reader.content(size)?;
        match header.kind {
            b'g' => {
                // Global headers say what holds for all: here, at most a comment.
                let mut all = Told::default();
                all.read_pax(content)?;
                if all.path.is_some() || all.link.is_some() || all.size.is_some() {
                    return Err(malformed("no paths and sizes for all entries at once"));
                }
            }
            b'x' => told.read_pax(content)?,
            b'L' => told.path = Some(long_name(content)?),
            b'K' => told.link = Some(long_name(content)?),
            kind => {
                let told = std::mem::take(&mut told);
                let path = told.path.unwrap_or(header.path);
                let node = node(kind, content, header.mode, told.link.unwrap_or(header.link))?;
                if let Node::File { content, .. } = &node {
                    bytes = bytes.saturating_add(content.len() as u64);
                }
                place(&mut tree, &path, node)?;
                if bytes > limits.bytes || tree.len() > limits.entries {
                    return Err(too_large(limits));
                }
            }
        }
    }
    Ok(tree)
}

fn node(kind: u8, content: &[u8], mode: u64, target: Vec<u8>) -> Result<Node<'_>, Refusal> {
    match kind {
        b'0' | 0 => Ok(Node::File {
            content,
            executable: mode & 0o111 != 0,
        }),
        b'5' if content.is_empty() => Ok(Node::Directory),
        b'2' if content.is_empty() => Ok(Node::Link { target }),
        b'5' | b'2' => Err(malformed("directories and links without content")),
        other => Err(hostile("only files, directories and symbolic links")
            .received(&format!("an entry of type {:?}", char::from(other)))),
    }
}

/// Puts a node at its path, with the directories on the way.
fn place<'a>(tree: &mut Tree<'a>, path: &[u8], node: Node<'a>) -> Result<(), Refusal> {
    let directory = node == Node::Directory;
    let parts = parts(path, directory)?;
    let Some((_, parents)) = parts.split_last() else {
        // The root itself.
        return if directory {
            Ok(())
        } else {
            Err(bad_path(path))
        };
    };
    if let Node::Link { target } = &node {
        check_target(target, parents.len())
            .map_err(|refusal| refusal.received(&shown(path, target)))?;
    }
    for depth in 1..=parents.len() {
        let Some(parent) = parents.get(..depth) else {
            continue;
        };
        match tree.entry(parent.to_vec()).or_insert(Node::Directory) {
            Node::Directory => {}
            Node::File { .. } | Node::Link { .. } => {
                return Err(
                    hostile("no paths that lead through files or links").received(&lossy(path))
                );
            }
        }
    }
    match tree.get(&parts) {
        None => drop(tree.insert(parts, node)),
        Some(Node::Directory) if directory => {}
        Some(_) => return Err(hostile("each path once").received(&lossy(path))),
    }
    Ok(())
}

/// The parts of a path; none for the root of the tree.
fn parts(path: &[u8], directory: bool) -> Result<Vec<Vec<u8>>, Refusal> {
    if path.is_empty() || path.len() > PATH_MAX_BYTES || path.contains(&0) {
        return Err(bad_path(path));
    }
    let mut plain = path;
    while let Some(rest) = plain.strip_prefix(b"./") {
        plain = rest;
    }
    if directory {
        plain = plain.strip_suffix(b"/").unwrap_or(plain);
    }
    if directory && (plain.is_empty() || plain == b".") {
        return Ok(Vec::new());
    }
    let parts: Vec<Vec<u8>> = plain
        .split(|byte| *byte == b'/')
        .map(<[u8]>::to_vec)
        .collect();
    let good = |part: &Vec<u8>| {
        !part.is_empty() && part != b"." && part != b".." && part.len() <= PART_MAX_BYTES
    };
    if parts.len() <= DEPTH_MAX && parts.iter().all(good) {
        Ok(parts)
    } else {
        Err(bad_path(path))
    }
}

/// Whether a link that lies `depth` directories deep stays in the tree.
fn check_target(target: &[u8], depth: usize) -> Result<(), Refusal> {
    let outside =
        || hostile("symbolic links that stay in the tree, with `..` at their beginning only");
    if target.is_empty() || target.len() > PATH_MAX_BYTES || target.contains(&0) {
        return Err(outside());
    }
    if target.starts_with(b"/") {
        return Err(outside());
    }
    let mut above = 0;
    let mut below = false;
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if below => return Err(outside()),
            b".." => above += 1,
            _ => below = true,
        }
    }
    if above > depth {
        Err(outside())
    } else {
        Ok(())
    }
}

/// What extension headers say about the entry that follows.
#[derive(Default)]
struct Told {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<usize>,
}

impl Told {
    /// Records of `length key=value\n`, the length counting itself.
    fn read_pax(&mut self, mut rest: &[u8]) -> Result<(), Refusal> {
        let bad = || malformed("pax records of `length key=value`");
        if rest.len() > EXTENSION_MAX_BYTES {
            return Err(malformed("pax headers of at most 64 KiB"));
        }
        while !rest.is_empty() {
            let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
            let digits = rest.get(..space).ok_or_else(bad)?;
            let length = decimal(digits).ok_or_else(bad)?;
            let record = rest.get(space + 1..length).ok_or_else(bad)?;
            rest = rest.get(length..).ok_or_else(bad)?;
            let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
            let equals = record
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or_else(bad)?;
            let (key, value) = record.split_at(equals);
            let value = value.get(1..).unwrap_or_default();
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(decimal(value).ok_or_else(bad)?),
                // Sparse files are stored in another form than their content.
                key if key.starts_with(b"GNU.sparse") => return Err(malformed("no sparse files")),
                // Times, owners, comments.
                _ => {}
            }
        }
        Ok(())
    }
}

fn long_name(content: &[u8]) -> Result<Vec<u8>, Refusal> {
    let name = content.strip_suffix(b"\0").unwrap_or(content);
    if name.len() > PATH_MAX_BYTES {
        return Err(malformed("names of at most 4096 bytes"));
    }
    Ok(name.to_vec())
}

fn decimal(digits: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(digits).ok()?;
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// The fixed part of a header.
struct Header {
    path: Vec<u8>,
    link: Vec<u8>,
    mode: u64,
    size: usize,
    kind: u8,
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The next header; `None` at the end, which an archive must have.
    fn header(&mut self) -> Result<Option<Header>, Refusal> {
        let block = self.take(BLOCK)?;
        if block.iter().all(|byte| *byte == 0) {
            if self.rest.iter().any(|byte| *byte != 0) {
                return Err(malformed("nothing after the end"));
            }
            return Ok(None);
        }
        let field = |from: usize, to: usize| block.get(from..to).unwrap_or_default();
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| {
                if (148..156).contains(&at) {
                    u64::from(b' ')
                } else {
                    u64::from(*byte)
                }
            })
            .sum();
        if octal(field(148, 156)) != Some(sum) {
            return Err(malformed("headers with correct checksums"));
        }
        let size = octal(field(124, 136))
            .and_then(|size| usize::try_from(size).ok())
            .ok_or_else(|| malformed("sizes in octal"))?;
        let name = text(field(0, 100));
        // GNU's own form keeps other things where POSIX has the prefix.
        let prefix = if field(257, 263) == b"ustar\0" {
            text(field(345, 500))
        } else {
            &[]
        };
        let path = if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        };
        Ok(Some(Header {
            path,
            link: text(field(157, 257)).to_vec(),
            mode: octal(field(100, 108)).unwrap_or(0o644),
            size,
            kind: block.get(156).copied().unwrap_or_default(),
        }))
    }

    fn content(&mut self, size: usize) -> Result<&'a [u8], Refusal> {
        let content = self.take(size)?;
        self.take(
            size.div_ceil(BLOCK)
                .saturating_mul(BLOCK)
                .saturating_sub(size),
        )?;
        Ok(content)
    }

    fn take(&mut self, size: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = self
            .rest
            .split_at_checked(size)
            .ok_or_else(|| malformed("a whole archive with an end; this one is cut off"))?;
        self.rest = rest;
        Ok(taken)
    }
}

/// A field up to its first zero byte.
fn text(field: &[u8]) -> &[u8] {
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    field.get(..end).unwrap_or_default()
}

/// A number in octal digits, with spaces and zero bytes around.
fn octal(field: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text(field)).ok()?.trim_matches(' ');
    if digits.is_empty() {
        Some(0)
    } else {
        u64::from_str_radix(digits, 8).ok()
    }
}

fn bad_path(path: &[u8]) -> Refusal {
    hostile("relative paths without `.` and `..`, of bounded length").received(&lossy(path))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn shown(path: &[u8], target: &[u8]) -> String {
    format!("{} -> {}", lossy(path), lossy(target))
}

fn malformed(expected: &str) -> Refusal {
    Refusal::malformed("source archive").expected(expected)
}

fn hostile(expected: &str) -> Refusal {
    Refusal::denied(
        "hostile-source-archive",
        "the source tree holds what no job may get",
    )
    .expected(expected)
    .next("take it out of the commit")
}

fn too_large(limits: Limits) -> Refusal {
    Refusal::limit(
        "source-archive-too-large",
        "the source tree is larger than jobs may be",
    )
    .expected(&format!(
        "at most {} entries and {} bytes",
        limits.entries, limits.bytes
    ))
}

#[cfg(test)]
mod tests;
