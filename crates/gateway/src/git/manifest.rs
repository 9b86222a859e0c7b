//! The manifest of a change: one SHA-256 over what differs between two trees, content included.
//!
//! Git's object ids are SHA-1 in most repositories; a human's signature should not rest on that.
//! The manifest is SHA-256 over one line per differing path, sorted by the path's bytes:
//!
//! ```text
//! <path> NUL <old mode> SP <old id> SP <new mode> SP <content> LF
//! ```
//!
//! Modes are six octal digits (`000000` for nothing), the old id is git's in lowercase hex (zeros
//! for nothing), and the content is 64 lowercase hex digits: SHA-256 of the new blob's bytes (of a
//! symbolic link, its target); for a submodule, SHA-256 of the commit id's hex digits; for nothing,
//! zeros. Directories have no line. Whoever has the two trees can recompute it:
//! `git diff-tree -r -z --raw --no-renames --no-abbrev OLD NEW` lists the lines' parts.

use portcullis_model::{Digest, GitOid};

use super::tree::{MODE_SUBMODULE, RawEntry};

/// One line of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestLine {
    /// Path from the root.
    pub path: Vec<u8>,
    /// Mode before; 0 for nothing.
    pub old_mode: u32,
    /// Object before; zero for nothing.
    pub old_oid: GitOid,
    /// Mode after; 0 for nothing.
    pub new_mode: u32,
    /// Digest of what stands there after; none for nothing.
    pub content: Option<Digest>,
}

impl ManifestLine {
    /// The line of `entry`, whose new blob has this digest. A submodule needs none.
    pub fn new(entry: &RawEntry, content: Option<Digest>) -> Self {
        let content = match entry.new_mode {
            0 => None,
            MODE_SUBMODULE => Some(Digest::of(entry.new_oid.as_str().as_bytes())),
            _ => content,
        };
        Self {
            path: entry.path.clone(),
            old_mode: entry.old_mode,
            old_oid: entry.old_oid.clone(),
            new_mode: entry.new_mode,
            content,
        }
    }
}

/// The manifest of these lines, in whatever order they come.
pub fn digest(lines: &[ManifestLine]) -> Digest {
    let mut sorted: Vec<&ManifestLine> = lines.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut hasher = portcullis_model::digest::Hasher::default();
    for line in sorted {
        let content = line
            .content
            .map_or_else(|| "0".repeat(64), |digest| digest.hex());
        hasher.update(&line.path);
        hasher.update(
            format!(
                "\0{:06o} {} {:06o} {content}\n",
                line.old_mode, line.old_oid, line.new_mode
            )
            .as_bytes(),
        );
    }
    hasher.finish()
}
