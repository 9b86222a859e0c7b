//! The files of one repository: from disk, from memory, or from disk with edits laid over it.
//!
//! Nothing here follows a symbolic link out of the repository, reads a file past a bound, or keeps
//! more than the names of the files that pipelines live in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use portcullis_model::Refusal;

use crate::outside;
pub(crate) use crate::outside::ReadProblem;

/// Largest file that is read, in bytes. GitHub's own limit for a workflow is 512 KiB.
pub(crate) const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Most directory entries looked at in one repository.
const ENTRIES_MAX: usize = 4_000_000;
/// Deepest directory looked into.
const DEPTH_MAX: usize = 40;
/// Most files kept for reading in one repository.
const FILES_MAX: usize = 50_000;
/// Most packages of a repository whose scripts one task of a monorepo's runner starts.
const PACKAGES_MAX: usize = 200;
/// Most entries looked at in one directory of packages.
const LISTED_MAX: usize = 2_000;

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
    notes: Arc<Vec<Note>>,
    packages: Arc<OnceLock<Vec<Package>>>,
}

/// A package of a repository that has scripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// Its directory; empty for the root.
    pub(crate) place: String,
    /// Names of its scripts.
    pub(crate) scripts: BTreeSet<String>,
}

/// What was passed over while listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// The path; empty for the whole repository.
    pub(crate) file: String,
    pub(crate) message: String,
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
        if !root.join(".git").exists()
            && root.join("objects").is_dir()
            && root.join("refs").is_dir()
            && root.join("HEAD").is_file()
        {
            return Err(Refusal::malformed("checkout")
                .expected("a directory with the repository's files")
                .received(&format!(
                    "{shown}, git's own data without files (a bare repository)"
                ))
                .next("check it out first: git clone PATH checkout"));
        }
        let mut walk = Walk::default();
        walk.directory(&root, "", 0);
        walk.files.sort();
        Ok(Self {
            notes: Arc::new(walk.notes),
            root: Some(root),
            overlay: Arc::new(BTreeMap::new()),
            files: Arc::new(walk.files),
            packages: Arc::default(),
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
            notes: Arc::new(Vec::new()),
            packages: Arc::default(),
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
            notes: Arc::clone(&self.notes),
            packages: Arc::default(),
        }
    }

    /// Names of the files that may matter, sorted, with `/` between parts.
    pub(crate) fn files(&self) -> &[String] {
        &self.files
    }

    /// What was passed over while listing.
    pub(crate) fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The repository's packages, by the places where monorepos keep them; the root comes first.
    /// They are looked for once, and no link is followed.
    pub(crate) fn packages(&self) -> &[Package] {
        self.packages.get_or_init(|| {
            let mut places = vec![String::new()];
            for folder in ["packages", "apps", "libs", "services"] {
                places.extend(self.packages_in(folder));
            }
            places
                .into_iter()
                .take(PACKAGES_MAX)
                .filter_map(|place| self.package(place))
                .collect()
        })
    }

    fn packages_in(&self, folder: &str) -> BTreeSet<String> {
        let mut out = BTreeSet::new();
        let listed = self
            .root
            .as_ref()
            .map(|root| root.join(folder))
            .filter(|path| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()))
            .and_then(|path| fs::read_dir(path).ok());
        for entry in listed.into_iter().flatten().take(LISTED_MAX).flatten() {
            let is_package = entry.file_type().is_ok_and(|kind| kind.is_dir())
                && fs::symlink_metadata(entry.path().join("package.json")).is_ok();
            if is_package && let Ok(name) = entry.file_name().into_string() {
                out.insert(format!("{folder}/{name}"));
            }
        }
        let inside = format!("{folder}/");
        for path in self.overlay.keys() {
            if let Some(rest) = path.strip_prefix(&inside)
                && let Some((name, "package.json")) = rest.split_once('/')
            {
                out.insert(format!("{folder}/{name}"));
            }
        }
        out
    }

    fn package(&self, place: String) -> Option<Package> {
        let text = self.read(&format!("{place}/package.json")).ok()?;
        let json: serde_json::Value = serde_json::from_str(&text).ok()?;
        let scripts = json.get("scripts")?.as_object()?.keys().cloned().collect();
        Some(Package { place, scripts })
    }

    pub(crate) fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// One file as text.
    pub(crate) fn read(&self, path: &str) -> Result<String, ReadProblem> {
        let path = normal(path).ok_or(ReadProblem::Missing)?;
        if let Some(text) = self.overlay.get(&path) {
            if text.len() as u64 > FILE_BYTES_MAX {
                return Err(ReadProblem::TooLarge(FILE_BYTES_MAX));
            }
            return Ok(text.clone());
        }
        let root = self.root.as_ref().ok_or(ReadProblem::Missing)?;
        let full = fs::canonicalize(root.join(&path)).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => ReadProblem::Missing,
            _ => ReadProblem::Failed(error.to_string()),
        })?;
        if !full.starts_with(root) {
            return Err(ReadProblem::Failed(
                "the file is a link that leaves the repository".to_owned(),
            ));
        }
        let bytes = outside::read(&full, FILE_BYTES_MAX)?;
        outside::decode(&bytes).ok_or(ReadProblem::Binary)
    }
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
    notes: Vec<Note>,
    entries: usize,
}

impl Walk {
    fn directory(&mut self, path: &Path, prefix: &str, depth: usize) {
        if depth > DEPTH_MAX {
            self.note(
                prefix,
                format!("deeper than {DEPTH_MAX} directories: not looked into"),
            );
            return;
        }
        let listing = match fs::read_dir(path) {
            Ok(listing) => listing,
            Err(error) => {
                self.note(prefix, format!("the directory can't be listed: {error}"));
                return;
            }
        };
        for entry in listing {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.note(prefix, format!("the directory can't be listed: {error}"));
                    return;
                }
            };
            self.entries += 1;
            if self.entries > ENTRIES_MAX || self.files.len() >= FILES_MAX {
                self.note(
                    "",
                    format!(
                        "more than {ENTRIES_MAX} entries or {FILES_MAX} pipeline files: the rest is not read"
                    ),
                );
                return;
            }
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            self.entry(&entry, kind, prefix, depth);
        }
    }

    fn entry(&mut self, entry: &fs::DirEntry, kind: fs::FileType, prefix: &str, depth: usize) {
        let name = entry.file_name();
        let joined = |name: &str| {
            if prefix.is_empty() {
                name.to_owned()
            } else {
                format!("{prefix}/{name}")
            }
        };
        let Some(name) = name.to_str() else {
            let lossy = joined(&name.to_string_lossy());
            if kind.is_dir() || is_interesting(&lossy) {
                self.note(&lossy, "the name is not UTF-8: not read".to_owned());
            }
            return;
        };
        let path = joined(name);
        if kind.is_dir() {
            if SKIPPED.contains(&name) {
                return;
            }
            if entry.path().join(".git").exists() {
                self.note(
                    &path,
                    "a repository of its own, perhaps a submodule: not read; name it with --with"
                        .to_owned(),
                );
                return;
            }
            self.directory(&entry.path(), &path, depth + 1);
        } else if kind.is_symlink() && entry.path().is_dir() {
            // Links are not followed as directories, so a loop of links has no effect.
            if PIPELINE_DIRECTORIES.contains(&path.as_str()) {
                self.note(&path, "a link to a directory: not followed".to_owned());
            }
        } else if is_interesting(&path) {
            if kind.is_file() || kind.is_symlink() {
                self.files.push(path);
            } else {
                self.note(
                    &path,
                    "a pipe, socket or device, no file: not read".to_owned(),
                );
            }
        }
    }

    fn note(&mut self, file: &str, message: String) {
        /// Most notes about what was passed over.
        const NOTES_MAX: usize = 50;
        let note = Note {
            file: file.to_owned(),
            message,
        };
        if self.notes.len() < NOTES_MAX && !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

/// Directories that pipelines and agents' settings live in: a link there is worth a word.
const PIPELINE_DIRECTORIES: &[&str] = &[
    ".github",
    ".github/workflows",
    ".github/actions",
    ".gitlab",
    ".circleci",
    ".azure-pipelines",
    ".tekton",
    ".claude",
    ".cursor",
    ".codex",
    ".gemini",
];

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
                    | ".renovaterc"
                    | ".renovaterc.json"
                    | ".kodiak.toml"
                    | "bors.toml"
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
            || lower.split('/').any(|piece| {
                ["tekton", "argo", "flux"]
                    .iter()
                    .any(|start| piece.starts_with(start))
                    || matches!(
                        piece,
                        "clusters"
                            | "gitops"
                            | "pipelines"
                            | "pipeline"
                            | "workflows"
                            | "ci"
                            | "cd"
                    )
            })
            || ["tekton", "argo", "pipeline", "workflow"]
                .iter()
                .any(|part| name.contains(part))
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
    #[cfg(unix)]
    #[test]
    fn packages_outside_the_repository_are_none_of_it() {
        use std::os::unix::fs::symlink;
        let outside = tempfile::tempdir().unwrap();
        let json = r#"{"scripts":{"ship":"npm publish"}}"#;
        let put = |root: &Path, place: &str| {
            fs::create_dir_all(root.join(place)).unwrap();
            fs::write(root.join(place).join("package.json"), json).unwrap();
        };
        put(outside.path(), "far");
        let inside = tempfile::tempdir().unwrap();
        put(inside.path(), "packages/b");
        put(inside.path(), "packages/a");
        symlink(outside.path().join("far"), inside.path().join("packages/c")).unwrap();
        fs::create_dir_all(inside.path().join("packages/d")).unwrap();
        symlink(
            outside.path().join("far/package.json"),
            inside.path().join("packages/d/package.json"),
        )
        .unwrap();
        symlink(outside.path(), inside.path().join("apps")).unwrap();
        let tree = Tree::open(inside.path()).unwrap();
        let places: Vec<&str> = tree
            .packages()
            .iter()
            .map(|package| package.place.as_str())
            .collect();
        assert_eq!(places, ["packages/a", "packages/b"]);
        let edited = tree.with("libs/e/package.json", json.to_owned());
        assert_eq!(edited.packages().len(), 3);
    }
}
