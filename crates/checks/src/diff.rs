//! What a revision changed, as a value read from git's own words.
//!
//! One command gives it, [`DIFF_ARGUMENTS`], followed by the two commits or trees. Its `--raw -z`
//! half states paths, modes and object ids exactly, whatever the names are; its `-p -U0` half
//! states the lines. The raw half is the authority: the patch half is matched to it record by
//! record, its names are never read, and its lines are counted by the hunk headers, so no content
//! can pose as a header. `--text` makes git show the lines of every file, so that no attribute
//! (`-diff`, `binary`) in the repository hides them.

use std::borrow::Cow;
use std::fmt;

use portcullis_model::GitOid;
use serde::{Deserialize, Serialize};

mod parse;
#[cfg(test)]
pub(crate) mod tests;

pub use parse::parse;

/// The arguments of git whose output [`parse()`] reads; append base and head (commits or trees)
/// and `--`. Every option that a configuration could change is stated.
///
/// Run it with an environment that has no `GIT_DIFF_OPTS` and no `GIT_EXTERNAL_DIFF`.
pub const DIFF_ARGUMENTS: &[&str] = &[
    "diff-tree",
    "-r",
    "-z",
    "--raw",
    "-p",
    "--text",
    "-U0",
    "--inter-hunk-context=0",
    "--no-renames",
    "--no-ext-diff",
    "--no-textconv",
    "--no-relative",
    "--ignore-submodules=none",
    "--submodule=short",
    "--full-index",
    "--no-color",
    "--diff-algorithm=myers",
    "--no-indent-heuristic",
    "--src-prefix=a/",
    "--dst-prefix=b/",
];

/// Largest output that is parsed, in bytes: more than people review, small enough to hold.
pub const DIFF_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Most files in one diff; a change of more is no change but an import.
pub const DIFF_MAX_FILES: usize = 20_000;
/// Most added and removed lines in one diff, together.
pub const DIFF_MAX_LINES: usize = 2_000_000;
/// Longest path in bytes: what Linux allows.
pub const PATH_MAX_BYTES: usize = 4_096;

/// Everything that differs between two trees, in the order of git.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// One entry per path that differs.
    pub files: Vec<FileChange>,
}

impl Diff {
    /// Lines added and removed, together. Lines of binary files count as git would show them.
    pub fn line_count(&self) -> u64 {
        self.files.iter().map(FileChange::line_count).sum()
    }
}

/// One path that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// The path before; none for an added file.
    pub old_path: Option<GitPath>,
    /// The path after; none for a deleted file.
    pub new_path: Option<GitPath>,
    /// What happened.
    pub status: Status,
    /// Kind of entry before.
    pub old_mode: FileMode,
    /// Kind of entry after.
    pub new_mode: FileMode,
    /// Object before; zero if there was none.
    pub old_oid: GitOid,
    /// Object after; zero if there is none.
    pub new_oid: GitOid,
    /// Whether a side is binary: a NUL near its beginning, or git showed no lines.
    pub binary: bool,
    /// The lines that differ.
    pub hunks: Vec<Hunk>,
}

impl FileChange {
    /// The path after, or before if it was deleted.
    pub fn path(&self) -> &GitPath {
        static NOWHERE: GitPath = GitPath(Vec::new());
        self.new_path
            .as_ref()
            .or(self.old_path.as_ref())
            .unwrap_or(&NOWHERE)
    }

    /// Both paths, each once.
    pub fn paths(&self) -> impl Iterator<Item = &GitPath> {
        let new = self
            .new_path
            .as_ref()
            .filter(|new| self.old_path.as_ref() != Some(new));
        self.old_path.iter().chain(new)
    }

    /// All added lines in order.
    pub fn added(&self) -> impl Iterator<Item = &Line> {
        self.hunks.iter().flat_map(|hunk| &hunk.added)
    }

    /// All removed lines in order.
    pub fn removed(&self) -> impl Iterator<Item = &Line> {
        self.hunks.iter().flat_map(|hunk| &hunk.removed)
    }

    /// Lines added and removed, together.
    pub fn line_count(&self) -> u64 {
        let lines: usize = self
            .hunks
            .iter()
            .map(|h| h.added.len() + h.removed.len())
            .sum();
        u64::try_from(lines).unwrap_or(u64::MAX)
    }

    /// Whether the content differs, as opposed to the mode alone.
    pub fn content_differs(&self) -> bool {
        self.old_oid != self.new_oid
    }
}

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
    /// Its content or mode differs.
    Modified,
    /// It became another kind of entry: a file a link, a link a submodule, ….
    TypeChanged,
    /// It moved. [`DIFF_ARGUMENTS`] never reports this; other callers' diffs may.
    Renamed,
    /// It was copied from another path. As [`Status::Renamed`].
    Copied,
}

/// The kind of a tree entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileMode {
    /// There is none (`000000`).
    Absent,
    /// A file (`100644`, and `100664` of old repositories).
    Regular,
    /// A file with the executable bit (`100755`).
    Executable,
    /// A symbolic link (`120000`).
    Symlink,
    /// A submodule (`160000`).
    Submodule,
}

/// Lines that were replaced at one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hunk {
    /// Lines taken away, with their numbers before.
    pub removed: Vec<Line>,
    /// Lines put there, with their numbers after.
    pub added: Vec<Line>,
}

/// One line, exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 1.
    pub number: u32,
    /// Its bytes without the line feed; a carriage return stays.
    pub content: Vec<u8>,
    /// Whether a line feed ends it; false only for the last line of a file.
    pub newline: bool,
}

impl Line {
    /// The text, with what is not UTF-8 replaced: for display and for patterns, never to compare.
    pub fn text(&self) -> Cow<'_, str> {
        let content = self.content.strip_suffix(b"\r").unwrap_or(&self.content);
        String::from_utf8_lossy(content)
    }
}

/// A path as git stores it: bytes, `/` between the parts, relative to the root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GitPath(Vec<u8>);

impl GitPath {
    /// Wraps the bytes of a path.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The exact bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as text, if it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The path as text, with what is not UTF-8 replaced: to classify, never to permit.
    pub fn lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

/// For people: control and direction-changing characters escaped, other bytes as `\xNN`.
impl fmt::Display for GitPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for shown in chunk
                .valid()
                .chars()
                .flat_map(portcullis_model::refusal::visible)
            {
                write!(f, "{shown}")?;
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for GitPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
