//! Reading a repository, or a quarantine on top of one, with the same code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use portcullis_checks::diff::{DIFF_ARGUMENTS, DIFF_MAX_BYTES};
use portcullis_checks::path::fold;
use portcullis_model::digest::Hasher;
use portcullis_model::{Digest, GitOid, Refusal};

use super::cat_file::{CatFile, Kind, Object};
use super::command::{Git, Invocation, LONG, QUICK, timed_out};
use super::commit::{self, COMMIT_MAX_BYTES, CommitInfo};
use super::manifest::{self, ManifestLine};
use super::tree::{
    self, Difference, MODE_EXECUTABLE, MODE_FILE, MODE_SUBMODULE, MODE_TREE, ObjectFormat,
    RawEntry, TREE_DEPTH_MAX, TreeEntry,
};

/// What some file system takes a name for: without case and spelling, and without what Windows cuts
/// off: dots and spaces at the end, and the name of the stream that a file's content is.
fn one_file(name: &[u8]) -> String {
    let folded = fold(&String::from_utf8_lossy(name));
    let whole = folded.strip_suffix("::$data").unwrap_or(&folded);
    whole.trim_end_matches(['.', ' ']).to_owned()
}

/// Largest tree object in bytes that is read: a directory of about 400,000 files.
const TREE_MAX_BYTES: u64 = 32 * 1024 * 1024;

/// Most bytes of all paths of one commit: about two million files.
pub const PATHS_MAX_BYTES: usize = 128 * 1024 * 1024;

/// A repository's objects, and those of a quarantine if it looks at one.
#[derive(Clone, Debug)]
pub struct ObjectView {
    pub(crate) git: Git,
    pub(crate) git_dir: PathBuf,
    pub(crate) quarantine: Option<PathBuf>,
    pub(crate) format: ObjectFormat,
}

/// A file read from a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileAt {
    /// There is no entry at this path.
    Absent,
    /// A file, executable or not.
    File {
        /// What it holds.
        content: Vec<u8>,
        /// Whether it may be executed.
        executable: bool,
    },
    /// Something else stands there: a directory, a symbolic link or a submodule.
    Other {
        /// Its mode.
        mode: u32,
    },
}

impl ObjectView {
    /// How this repository names objects.
    pub fn format(&self) -> ObjectFormat {
        self.format
    }

    /// A regular file of a commit or tree, read from its trees: links are not followed. `None` if
    /// there is no regular file at `path`.
    ///
    /// # Errors
    /// `object-too-large`, or the commit can't be read.
    pub async fn read_file(
        &self,
        commit: &GitOid,
        path: &str,
        max_bytes: u64,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        Ok(match self.file_at(commit, path, max_bytes).await? {
            FileAt::File { content, .. } => Some(content),
            FileAt::Absent | FileAt::Other { .. } => None,
        })
    }

    /// What stands at `path` in a commit or tree.
    ///
    /// # Errors
    /// As [`ObjectView::read_file`].
    pub async fn file_at(
        &self,
        commit: &GitOid,
        path: &str,
        max_bytes: u64,
    ) -> Result<FileAt, Refusal> {
        self.within(QUICK, "cat-file", async {
            let mut objects = self.cat_file()?;
            let mut tree = root_of(&mut objects, commit).await?;
            let mut parts = path.split('/').peekable();
            while let Some(part) = parts.next() {
                let entries = read_tree(&mut objects, self.format, &tree).await?;
                let Some(entry) = entries.into_iter().find(|e| e.name == part.as_bytes()) else {
                    return Ok(FileAt::Absent);
                };
                if parts.peek().is_some() {
                    if entry.mode != MODE_TREE {
                        return Ok(FileAt::Absent);
                    }
                    tree = entry.oid;
                    continue;
                }
                if !matches!(entry.mode, MODE_FILE | MODE_EXECUTABLE) {
                    return Ok(FileAt::Other { mode: entry.mode });
                }
                let blob = objects.object(&entry.oid, max_bytes).await?;
                let blob = blob.ok_or_else(|| Refusal::not_found("object", &entry.oid))?;
                return Ok(FileAt::File {
                    content: blob.content,
                    executable: entry.mode == MODE_EXECUTABLE,
                });
            }
            Ok(FileAt::Absent)
        })
        .await
    }

    /// Entries of one directory of a commit or tree (the root is the empty path); none if there is
    /// no directory.
    ///
    /// # Errors
    /// The commit can't be read.
    pub async fn directory(
        &self,
        commit: &GitOid,
        path: &str,
    ) -> Result<Option<Vec<TreeEntry>>, Refusal> {
        self.within(QUICK, "cat-file", async {
            let mut objects = self.cat_file()?;
            let root = root_of(&mut objects, commit).await?;
            let mut entries = read_tree(&mut objects, self.format, &root).await?;
            for part in path.split('/').filter(|part| !part.is_empty()) {
                let found = entries
                    .into_iter()
                    .find(|e| e.name == part.as_bytes() && e.mode == MODE_TREE);
                match found {
                    Some(found) => {
                        entries = read_tree(&mut objects, self.format, &found.oid).await?;
                    }
                    None => return Ok(None),
                }
            }
            Ok(Some(entries))
        })
        .await
    }

    /// Whether `oid` is a commit that is here.
    ///
    /// # Errors
    /// Git can't be asked.
    pub async fn has_commit(&self, oid: &GitOid) -> Result<bool, Refusal> {
        self.within(QUICK, "cat-file", async {
            let object = self.cat_file()?.object(oid, COMMIT_MAX_BYTES).await?;
            Ok(object.is_some_and(|object| object.kind == Kind::Commit))
        })
        .await
    }

    /// What a commit says of itself.
    ///
    /// # Errors
    /// `commit-not-found`, or it is malformed.
    pub async fn commit_info(&self, oid: &GitOid) -> Result<CommitInfo, Refusal> {
        let infos = self.commit_infos(std::slice::from_ref(oid)).await?;
        infos
            .into_iter()
            .next()
            .ok_or_else(|| Refusal::not_found("commit", oid))
    }

    /// What commits say of themselves, in the order asked.
    ///
    /// # Errors
    /// `commit-not-found`, or one is malformed.
    pub async fn commit_infos(&self, oids: &[GitOid]) -> Result<Vec<CommitInfo>, Refusal> {
        self.commit_infos_by(&mut self.cat_file()?, oids).await
    }

    /// The same, by a process that runs already.
    pub(crate) async fn commit_infos_by(
        &self,
        objects: &mut CatFile,
        oids: &[GitOid],
    ) -> Result<Vec<CommitInfo>, Refusal> {
        self.within(LONG, "cat-file", async {
            let mut infos = Vec::with_capacity(oids.len());
            for oid in oids {
                infos.push(read_commit(objects, oid).await?);
            }
            Ok(infos)
        })
        .await
    }

    /// Whether everything in `ancestor` is in `descendant`. A commit is its own ancestor.
    ///
    /// # Errors
    /// One of them is no commit here.
    pub async fn is_ancestor(
        &self,
        ancestor: &GitOid,
        descendant: &GitOid,
    ) -> Result<bool, Refusal> {
        let done = self
            .git("merge-base")
            .args(["merge-base", "--is-ancestor"])
            .args([ancestor.as_str(), descendant.as_str()])
            .time(LONG)
            .finish(&[])
            .await?;
        match done.status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => Err(super::command::failed("merge-base", &done.stderr)),
        }
    }

    /// A best common ancestor, if there is one.
    ///
    /// # Errors
    /// One of them is no commit here.
    pub async fn merge_base(&self, a: &GitOid, b: &GitOid) -> Result<Option<GitOid>, Refusal> {
        let done = self
            .git("merge-base")
            .args(["merge-base", a.as_str(), b.as_str()])
            .time(LONG)
            .finish(&[])
            .await?;
        match done.status.code() {
            Some(0) => {
                let text = String::from_utf8_lossy(&done.stdout);
                text.lines().next().map(str::parse).transpose()
            }
            Some(1) => Ok(None),
            _ => Err(super::command::failed("merge-base", &done.stderr)),
        }
    }

    /// Commits of `head` that are not in `base`, newest first.
    ///
    /// # Errors
    /// `too-many-commits`: there are more than `max`.
    pub async fn commits_between(
        &self,
        base: &GitOid,
        head: &GitOid,
        max: usize,
    ) -> Result<Vec<GitOid>, Refusal> {
        let text = self
            .git("rev-list")
            .args(["rev-list", "--topo-order"])
            .args([format!("--max-count={}", max.saturating_add(1))])
            .args([
                head.as_str().to_owned(),
                format!("^{base}"),
                "--".to_owned(),
            ])
            .time(LONG)
            .text()
            .await?;
        let commits: Vec<GitOid> = text.lines().map(str::parse).collect::<Result<_, _>>()?;
        if commits.len() > max {
            return Err(Refusal::limit(
                "too-many-commits",
                "there are too many commits to look at",
            )
            .expected(&format!("at most {max} commits since {}", base.short()))
            .next("squash the work into fewer commits, then push again"));
        }
        Ok(commits)
    }

    /// The bytes that `portcullis_checks::diff::parse` reads.
    ///
    /// # Errors
    /// `git-output-too-large` above [`DIFF_MAX_BYTES`], or a side can't be read.
    pub async fn diff(&self, base: &GitOid, head: &GitOid) -> Result<Vec<u8>, Refusal> {
        self.git("diff-tree")
            .args(DIFF_ARGUMENTS)
            .args([base.as_str(), head.as_str(), "--"])
            .output_max_bytes(DIFF_MAX_BYTES)
            .time(LONG)
            .output()
            .await
    }

    /// What differs between two commits or trees, without lines.
    ///
    /// # Errors
    /// A side can't be read.
    pub async fn raw_entries(
        &self,
        base: &GitOid,
        head: &GitOid,
    ) -> Result<Vec<RawEntry>, Refusal> {
        let bytes = self
            .git("diff-tree")
            .args([
                "diff-tree",
                "-r",
                "-z",
                "--raw",
                "--no-abbrev",
                "--no-renames",
            ])
            .args([
                "--ignore-submodules=none",
                base.as_str(),
                head.as_str(),
                "--",
            ])
            .time(LONG)
            .output()
            .await?;
        tree::parse_raw(&bytes)
    }

    /// Whether each of these paths, and each folder above it, is alone under its name in `commit`
    /// on file systems that know no case or fold Unicode. Paths that are gone again don't count.
    ///
    /// # Errors
    /// `hostile-path`, with both names.
    pub(crate) async fn check_twins(
        &self,
        objects: &mut CatFile,
        commit: &GitOid,
        paths: &BTreeSet<Vec<u8>>,
    ) -> Result<(), Refusal> {
        self.within(LONG, "cat-file", async {
            let root = root_of(objects, commit).await?;
            let mut folders: BTreeMap<Vec<u8>, Option<Folder>> = BTreeMap::new();
            folders.insert(Vec::new(), Some(self.folder(objects, &root).await?));
            for path in paths {
                let mut above: Vec<u8> = Vec::new();
                for part in path.split(|byte| *byte == b'/') {
                    let Some(Some(folder)) = folders.get(&above) else {
                        break;
                    };
                    let folded = one_file(part);
                    let names = folder.names.get(&folded).map_or(&[][..], Vec::as_slice);
                    if let Some(twin) = names.iter().find(|name| name.as_slice() != part)
                        && names.iter().any(|name| name.as_slice() == part)
                    {
                        let shown = String::from_utf8_lossy(path);
                        return Err(Refusal::denied(
                            "hostile-path",
                            "two names in one folder are the same file on some systems",
                        )
                        .expected("names that differ in more than case or spelling")
                        .received(&format!("{shown} beside {}", String::from_utf8_lossy(twin)))
                        .next("rename the file in the commit that adds it, then push again"));
                    }
                    let below = folder.trees.get(part).cloned();
                    if !above.is_empty() {
                        above.push(b'/');
                    }
                    above.extend_from_slice(part);
                    if !folders.contains_key(&above) {
                        let read = match below {
                            Some(tree) => Some(self.folder(objects, &tree).await?),
                            None => None,
                        };
                        folders.insert(above.clone(), read);
                    }
                }
            }
            Ok(())
        })
        .await
    }

    async fn folder(&self, objects: &mut CatFile, tree: &GitOid) -> Result<Folder, Refusal> {
        let mut folder = Folder::default();
        for entry in read_tree(objects, self.format, tree).await? {
            let folded = one_file(&entry.name);
            if entry.mode == MODE_TREE {
                folder.trees.insert(entry.name.clone(), entry.oid);
            }
            folder.names.entry(folded).or_default().push(entry.name);
        }
        Ok(folder)
    }

    /// Paths of a commit's files that `wanted` names, in order; those that are no UTF-8 are not
    /// asked about.
    ///
    /// # Errors
    /// The commit can't be read, or names more than [`PATHS_MAX_BYTES`].
    pub async fn paths(
        &self,
        commit: &GitOid,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, Refusal> {
        let listed = self
            .git("ls-tree")
            .args(["ls-tree", "-r", "-z", "--name-only", "--full-tree"])
            .args([commit.as_str()])
            .output_max_bytes(PATHS_MAX_BYTES)
            .time(LONG)
            .output()
            .await?;
        Ok(listed
            .split(|byte| *byte == 0)
            .filter_map(|path| std::str::from_utf8(path).ok())
            .filter(|path| !path.is_empty() && wanted(path))
            .map(str::to_owned)
            .collect())
    }

    /// The manifest of what differs between two commits or trees; see [`super::manifest`].
    ///
    /// # Errors
    /// A side can't be read.
    pub async fn manifest(&self, base: &GitOid, head: &GitOid) -> Result<Digest, Refusal> {
        let entries = self.raw_entries(base, head).await?;
        self.manifest_by(&mut self.cat_file()?, &entries).await
    }

    /// The manifest of these differences, by a process that runs already.
    pub(crate) async fn manifest_by(
        &self,
        objects: &mut CatFile,
        entries: &[RawEntry],
    ) -> Result<Digest, Refusal> {
        self.within(LONG, "cat-file", async {
            let mut known: BTreeMap<&GitOid, Digest> = BTreeMap::new();
            let mut lines = Vec::with_capacity(entries.len());
            for entry in entries {
                let content = match (entry.new_mode, known.get(&entry.new_oid)) {
                    (0 | MODE_SUBMODULE, _) => None,
                    (_, Some(digest)) => Some(*digest),
                    (_, None) => {
                        let digest = hash_blob(objects, &entry.new_oid).await?;
                        known.insert(&entry.new_oid, digest);
                        Some(digest)
                    }
                };
                lines.push(ManifestLine::new(entry, content));
            }
            Ok(manifest::digest(&lines))
        })
        .await
    }

    /// The tree that `head` must have: the base's tree with the entries of the diff applied, by
    /// our own code. Compare it with [`CommitInfo::tree`].
    ///
    /// # Errors
    /// `diff-contradicts-base`, or an object can't be read.
    pub async fn recompute_tree(&self, base: &GitOid, head: &GitOid) -> Result<GitOid, Refusal> {
        let entries = self.raw_entries(base, head).await?;
        self.apply(base, &entries).await
    }

    /// The tree of `base` with `entries` applied. Nothing is written.
    ///
    /// # Errors
    /// As [`ObjectView::recompute_tree`].
    pub async fn apply(&self, base: &GitOid, entries: &[RawEntry]) -> Result<GitOid, Refusal> {
        self.within(LONG, "cat-file", async {
            let mut objects = self.cat_file()?;
            let root = root_of(&mut objects, base).await?;
            let differences = entries
                .iter()
                .map(|entry| Difference {
                    rest: &entry.path,
                    entry,
                })
                .collect();
            let tree = rebuild(&mut objects, self.format, Some(root), differences, 0).await?;
            tree.map_or_else(|| self.format.empty_tree(), Ok)
        })
        .await
    }

    pub(crate) fn git(&self, what: &'static str) -> Invocation {
        let mut invocation = self.git.on(&self.git_dir, what);
        if let Some(quarantine) = &self.quarantine {
            invocation = invocation.env("GIT_OBJECT_DIRECTORY", quarantine).env(
                "GIT_ALTERNATE_OBJECT_DIRECTORIES",
                quoted_for_list(&self.git_dir.join("objects")),
            );
        }
        // In-tree attributes of no commit: the repository's own must not hide a diff.
        if self.git.version() >= (2, 43)
            && let Ok(empty) = self.format.empty_tree()
        {
            invocation = invocation.env("GIT_ATTR_SOURCE", empty.as_str());
        }
        invocation
    }

    pub(crate) fn cat_file(&self) -> Result<CatFile, Refusal> {
        CatFile::start(self.git("cat-file"))
    }

    pub(crate) async fn within<T>(
        &self,
        time: Duration,
        what: &str,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        tokio::time::timeout(time, work)
            .await
            .map_err(|_| timed_out(what, time))?
    }
}

/// One directory: its names as they fold, and its subdirectories.
#[derive(Default)]
struct Folder {
    names: BTreeMap<String, Vec<Vec<u8>>>,
    trees: BTreeMap<Vec<u8>, GitOid>,
}

/// A path as git reads it in a list separated by colons.
pub(crate) fn quoted_for_list(path: &Path) -> String {
    let text = path.display().to_string();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

pub(crate) async fn read_commit(
    objects: &mut CatFile,
    oid: &GitOid,
) -> Result<CommitInfo, Refusal> {
    match objects.object(oid, COMMIT_MAX_BYTES).await? {
        Some(object) if object.kind == Kind::Commit => commit::parse(oid, &object.content),
        _ => Err(Refusal::not_found("commit", oid)),
    }
}

/// The root tree of a commit, or the tree itself.
pub(crate) async fn root_of(objects: &mut CatFile, oid: &GitOid) -> Result<GitOid, Refusal> {
    let object = objects.object(oid, TREE_MAX_BYTES).await?;
    match object {
        Some(Object {
            kind: Kind::Commit,
            content,
            oid,
        }) => Ok(commit::parse(&oid, &content)?.tree),
        Some(Object {
            kind: Kind::Tree,
            oid,
            ..
        }) => Ok(oid),
        Some(Object {
            kind: Kind::Blob | Kind::Tag,
            ..
        })
        | None => Err(Refusal::not_found("commit", oid)),
    }
}

pub(crate) async fn read_tree(
    objects: &mut CatFile,
    format: ObjectFormat,
    oid: &GitOid,
) -> Result<Vec<TreeEntry>, Refusal> {
    match objects.object(oid, TREE_MAX_BYTES).await? {
        Some(object) if object.kind == Kind::Tree => tree::parse_tree(format, &object.content),
        _ => Err(Refusal::not_found("tree", oid)),
    }
}

/// Hashes a blob piece by piece, whatever its size.
async fn hash_blob(objects: &mut CatFile, oid: &GitOid) -> Result<Digest, Refusal> {
    objects.ask(oid.as_str()).await?;
    let header = objects
        .header()
        .await?
        .filter(|header| header.kind == Kind::Blob)
        .ok_or_else(|| Refusal::not_found("object", oid))?;
    let mut left = header.bytes;
    let mut hasher = Hasher::default();
    loop {
        let piece = objects.content_piece(&mut left).await?;
        if piece.is_empty() {
            return Ok(hasher.finish());
        }
        hasher.update(&piece);
    }
}

type Rebuilt<'a> = Pin<Box<dyn Future<Output = Result<Option<GitOid>, Refusal>> + Send + 'a>>;

/// The id of a directory after its differences; none if nothing is left in it.
fn rebuild<'a>(
    objects: &'a mut CatFile,
    format: ObjectFormat,
    base: Option<GitOid>,
    differences: Vec<Difference<'a>>,
    depth: usize,
) -> Rebuilt<'a> {
    Box::pin(async move {
        if depth > TREE_DEPTH_MAX {
            return Err(
                Refusal::limit("tree-too-deep", "a path has too many directories")
                    .expected(&format!("at most {TREE_DEPTH_MAX}")),
            );
        }
        let standing = match &base {
            Some(base) if *base == format.empty_tree()? => Vec::new(),
            Some(base) => read_tree(objects, format, base).await?,
            None => Vec::new(),
        };
        let plan = tree::plan(standing, &differences)?;
        let mut entries = plan.entries;
        for (name, tree, below) in plan.below {
            if let Some(oid) = rebuild(objects, format, tree, below, depth + 1).await? {
                entries.push(TreeEntry {
                    mode: MODE_TREE,
                    name,
                    oid,
                });
            }
        }
        if entries.is_empty() {
            return Ok(None);
        }
        format.hash("tree", &tree::encode_tree(&entries)?).map(Some)
    })
}
