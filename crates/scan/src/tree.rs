//! The files of one repository: from disk, from memory, or from disk with edits laid over it.
//!
//! Nothing here follows a symbolic link out of the repository, reads a file past a bound, or keeps
//! more than the names of the files that pipelines live in.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_model::Refusal;

/// Largest file that is read, in bytes. GitHub's own limit for a workflow is 512 KiB.
pub(crate) const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Most directory entries looked at in one repository.
const ENTRIES_MAX: usize = 4_000_000;
/// Deepest directory looked into.
const DEPTH_MAX: usize = 40;
/// Most files kept for reading in one repository.
const FILES_MAX: usize = 50_000;

/// Directories that hold other people's code or build output.
const SKIPPED: &[&str] = &[
    ".git",
    ".hg",
    ".svn",
    "node_modules",
    "vendor",
    "third_party",
    "target",
    "dist",
    ".venv",
    "venv",
    "__pycache__",
    "bower_components",
];

/// A repository's files.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: Option<PathBuf>,
    overlay: Arc<BTreeMap<String, String>>,
    files: Arc<Vec<String>>,
    pub(crate) notes: Vec<String>,
}

/// Why one file could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadProblem {
    Missing,
    TooLarge(u64),
    Binary,
    Failed(String),
}

impl ReadProblem {
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Missing => "there is no such file".to_owned(),
            Self::TooLarge(bytes) => {
                format!("the file has {bytes} bytes, more than the {FILE_BYTES_MAX} that are read")
            }
            Self::Binary => "the file is binary".to_owned(),
            Self::Failed(text) => text.clone(),
        }
    }
}

impl Tree {
    /// A checkout on disk.
    ///
    /// # Errors
    /// `path-not-found` or `not-a-directory`.
    pub(crate) fn open(path: &Path) -> Result<Self, Refusal> {
        let shown = path.display().to_string();
        let meta = fs::metadata(path).map_err(|error| {
            Refusal::not_found("path", &shown)
                .received(&error.to_string())
                .next("name the directory of a checkout")
        })?;
        if !meta.is_dir() {
            return Err(Refusal::malformed("checkout")
                .expected("a directory")
                .received(&shown)
                .next("name the directory that holds the repository"));
        }
        let root = fs::canonicalize(path)
            .map_err(|error| Refusal::unavailable("path-unreadable", error.to_string()))?;
        let mut walk = Walk::default();
        walk.directory(&root, "", 0);
        walk.files.sort();
        Ok(Self {
            root: Some(root),
            overlay: Arc::new(BTreeMap::new()),
            files: Arc::new(walk.files),
            notes: walk.notes,
        })
    }

    /// Files that exist only here: for tests and for trying an edit.
    pub(crate) fn memory(files: BTreeMap<String, String>) -> Self {
        let names = files
            .keys()
            .filter(|name| is_interesting(name))
            .cloned()
            .collect();
        Self {
            root: None,
            overlay: Arc::new(files),
            files: Arc::new(names),
            notes: Vec::new(),
        }
    }

    /// The same files with one changed or added.
    pub(crate) fn with(&self, path: &str, text: String) -> Self {
        let mut overlay = (*self.overlay).clone();
        overlay.insert(path.to_owned(), text);
        let mut files = (*self.files).clone();
        if is_interesting(path) && !files.iter().any(|known| known == path) {
            files.push(path.to_owned());
            files.sort();
        }
        Self {
            root: self.root.clone(),
            overlay: Arc::new(overlay),
            files: Arc::new(files),
            notes: self.notes.clone(),
        }
    }

    /// Names of the files that may matter, sorted, with `/` between parts.
    pub(crate) fn files(&self) -> &[String] {
        &self.files
    }

    pub(crate) fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// One file as text.
    pub(crate) fn read(&self, path: &str) -> Result<String, ReadProblem> {
        let path = normal(path).ok_or(ReadProblem::Missing)?;
        if let Some(text) = self.overlay.get(&path) {
            if text.len() as u64 > FILE_BYTES_MAX {
                return Err(ReadProblem::TooLarge(text.len() as u64));
            }
            return Ok(text.clone());
        }
        let root = self.root.as_ref().ok_or(ReadProblem::Missing)?;
        let full = fs::canonicalize(root.join(&path)).map_err(|_| ReadProblem::Missing)?;
        if !full.starts_with(root) {
            return Err(ReadProblem::Failed(
                "the file is a link that leaves the repository".to_owned(),
            ));
        }
        let meta = fs::metadata(&full).map_err(|_| ReadProblem::Missing)?;
        if !meta.is_file() {
            return Err(ReadProblem::Missing);
        }
        if meta.len() > FILE_BYTES_MAX {
            return Err(ReadProblem::TooLarge(meta.len()));
        }
        let file = fs::File::open(&full).map_err(|error| ReadProblem::Failed(error.to_string()))?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(|error| ReadProblem::Failed(error.to_string()))?;
        decode(&bytes).ok_or(ReadProblem::Binary)
    }
}

/// Bytes as text: UTF-8, UTF-16 with a byte order mark, else Latin-1; `None` for binary.
pub(crate) fn decode(bytes: &[u8]) -> Option<String> {
    match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => Some(String::from_utf8_lossy(rest).into_owned()),
        [0xFF, 0xFE, rest @ ..] => Some(utf16(rest, u16::from_le_bytes)),
        [0xFE, 0xFF, rest @ ..] => Some(utf16(rest, u16::from_be_bytes)),
        _ if bytes.contains(&0) => None,
        _ => Some(match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
        }),
    }
}

fn utf16(bytes: &[u8], join: fn([u8; 2]) -> u16) -> String {
    let units = bytes.chunks_exact(2).map(|pair| match pair {
        [low, high] => join([*low, *high]),
        _ => 0xFFFD,
    });
    char::decode_utf16(units)
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

/// A relative path without `.` and `..`; `None` where it leaves the repository.
pub(crate) fn normal(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            other => parts.push(other),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[derive(Default)]
struct Walk {
    files: Vec<String>,
    notes: Vec<String>,
    entries: usize,
}

impl Walk {
    fn directory(&mut self, path: &Path, prefix: &str, depth: usize) {
        if depth > DEPTH_MAX {
            self.note(format!(
                "{prefix}: deeper than {DEPTH_MAX} directories, not read"
            ));
            return;
        }
        let listing = match fs::read_dir(path) {
            Ok(listing) => listing,
            Err(error) => {
                self.note(format!("{prefix}: the directory can't be listed: {error}"));
                return;
            }
        };
        for entry in listing.flatten() {
            self.entries += 1;
            if self.entries > ENTRIES_MAX || self.files.len() >= FILES_MAX {
                self.note(format!(
                    "more than {ENTRIES_MAX} entries or {FILES_MAX} pipeline files: the rest is not read"
                ));
                return;
            }
            // Links are not followed as directories, so a loop of links has no effect.
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let joined = if prefix.is_empty() {
                name.to_owned()
            } else {
                format!("{prefix}/{name}")
            };
            if kind.is_dir() {
                let skipped = SKIPPED.contains(&name);
                if !skipped && !entry.path().join(".git").exists() {
                    self.directory(&entry.path(), &joined, depth + 1);
                }
            } else if is_interesting(&joined) {
                self.files.push(joined);
            }
        }
    }

    fn note(&mut self, text: String) {
        /// Most notes about unreadable directories.
        const NOTES_MAX: usize = 50;
        if self.notes.len() < NOTES_MAX && !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }
}

/// Whether a file may hold a pipeline, a bot's or an agent's configuration, or ownership.
pub(crate) fn is_interesting(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let name = lower.rsplit('/').next().unwrap_or_default();
    let yaml = name.ends_with(".yml") || name.ends_with(".yaml");
    if lower.starts_with(".github/") {
        return yaml
            || matches!(
                name,
                "codeowners"
                    | "renovate.json"
                    | "renovate.json5"
                    | "copilot-instructions.md"
                    | "agents.md"
                    | "claude.md"
            )
            || name.ends_with(".instructions.md")
            || name.ends_with(".agent.md")
            || (lower.starts_with(".github/workflows/") && name.ends_with(".md"));
    }
    if lower.starts_with(".circleci/")
        || lower.starts_with(".gitlab/")
        || lower.starts_with(".tekton/")
        || lower.starts_with(".azure")
        || lower.starts_with(".claude/")
        || lower.starts_with(".cursor/")
        || lower.starts_with(".gemini/")
        || lower.starts_with(".codex/")
        || lower.starts_with(".openhands/")
        || lower.starts_with(".devin/")
        || lower.starts_with(".jules/")
        || lower.starts_with(".mergify/")
        || lower.starts_with(".changeset/config")
    {
        return true;
    }
    if name.starts_with("jenkinsfile") || name.ends_with(".jenkinsfile") {
        return true;
    }
    if yaml {
        return matches!(
            name,
            "action.yml" | "action.yaml" | ".gitlab-ci.yml" | ".mergify.yml" | ".bulldozer.yml"
        ) || name.starts_with("azure-pipelines")
            || name.starts_with(".gitlab-ci")
            || name == ".goreleaser.yml"
            || name == ".goreleaser.yaml"
            || name == ".releaserc.yml"
            || name == ".releaserc.yaml"
            || name == ".aider.conf.yml"
            || name == "sweep.yaml"
            || ["tekton", "argo", "argocd", "argo-cd", "gitops", "pipelines"]
                .iter()
                .any(|part| {
                    lower
                        .split('/')
                        .any(|piece| piece == *part || piece.starts_with("tekton"))
                })
            || name.contains("argocd")
            || name.contains("applicationset")
            || (!lower.contains('/') && (name == "prow.yaml" || name == ".prow.yaml"))
            || lower.starts_with(".prow/");
    }
    matches!(
        name,
        "codeowners"
            | "owners"
            | "renovate.json"
            | "renovate.json5"
            | ".renovaterc"
            | ".renovaterc.json"
            | ".renovaterc.json5"
            | ".kodiak.toml"
            | "bors.toml"
            | ".releaserc"
            | ".releaserc.json"
            | "release.config.js"
            | "release.config.cjs"
            | "release-please-config.json"
            | ".release-it.json"
            | "agents.md"
            | "claude.md"
            | "gemini.md"
            | ".cursorrules"
            | ".windsurfrules"
            | ".clinerules"
            | ".mcp.json"
            | ".goosehints"
            | "vercel.json"
            | "netlify.toml"
            | "wrangler.toml"
            | "render.yaml"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_leave_the_repository() {
        assert_eq!(normal("./a/../b/c"), Some("b/c".to_owned()));
        assert_eq!(normal("../etc/passwd"), None);
        assert_eq!(normal("/etc/passwd"), Some("etc/passwd".to_owned()));
    }

    #[test]
    fn encodings_are_read_and_binaries_are_not() {
        assert_eq!(decode(b"\xEF\xBB\xBFon: push").unwrap(), "on: push");
        assert_eq!(decode(b"\xFF\xFEo\0n\0").unwrap(), "on");
        assert_eq!(decode(b"caf\xE9").unwrap(), "caf\u{e9}");
        assert_eq!(decode(b"\x7fELF\0\0"), None);
    }
}
