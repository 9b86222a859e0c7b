//! A push's objects, apart from everything, until they are decided on.
//!
//! The pack is indexed and checked in a directory of its own that sees the run's view through
//! git's alternates; nothing else sees that directory. Accepting it links the pack into the
//! repository and sets refs by compare-and-swap; dropping it removes everything.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_model::{ChangeId, Digest, GitOid, Recorded, Refusal};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::cat_file::CatFile;
use super::command::{LONG, OUTPUT_MAX_BYTES, last_words, unwritable};
use super::commit::CommitInfo;
use super::fetch::FetchView;
use super::objects::ObjectView;
use super::pack::{PackScanner, PackSummary};
use super::path;
use super::push::RefCommand;
use super::repository::change_ref;
use super::tree::{RawEntry, parse_raw_record};

/// Most added paths that are held against their neighbours in the tree.
const TWINS_MAX_PATHS: usize = 10_000;

/// Memory for the list of what a push changes: about a million paths. A few trees that hold each
/// other many times have more paths than there is memory, and git gathers them before it says the
/// first.
const PATHS_MEMORY_BYTES: u64 = 256 * 1024 * 1024;
/// What `git fsck` only mentions and we don't take: modes that git reads as others, so that no
/// recomputed tree would ever be the pushed one.
const STRICT: &str = "--strict=badFilemode=error";

/// What one push may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackLimits {
    /// Bytes of the pack as sent.
    pub pack_bytes: u64,
    /// Objects in it.
    pub objects: u32,
    /// Bytes of one object.
    pub blob_bytes: u64,
    /// Bytes of all objects, inflated and rebuilt from deltas.
    pub inflated_bytes: u64,
    /// New commits.
    pub commits: usize,
    /// Parts of a path.
    pub path_depth: usize,
    /// Time from the first byte of the pack to the end of all checks.
    pub time: Duration,
}

impl Default for PackLimits {
    /// Enough for work on a big repository, not for importing one.
    fn default() -> Self {
        Self {
            pack_bytes: 256 * 1024 * 1024,
            objects: 500_000,
            blob_bytes: 64 * 1024 * 1024,
            inflated_bytes: 2 * 1024 * 1024 * 1024,
            commits: 5_000,
            path_depth: path::PATH_DEPTH_MAX,
            time: Duration::from_secs(300),
        }
    }
}

/// A push whose objects are sound, connected and within limits, and not yet accepted.
#[derive(Debug)]
pub struct Quarantine {
    view: FetchView,
    directory: tempfile::TempDir,
    summary: PackSummary,
    commits: Vec<CommitInfo>,
    commands: Vec<RefCommand>,
    /// What the one new commit changes of its one parent, where there is just one: what most pushes
    /// are, and then nobody has to ask git again.
    single: Option<Single>,
    reader: Reader,
}

#[derive(Debug)]
struct Single {
    parent: GitOid,
    head: GitOid,
    entries: Vec<RawEntry>,
}

/// The process that answers for the push's objects, from the first question on.
#[derive(Default)]
struct Reader(tokio::sync::Mutex<Option<CatFile>>);

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

/// A revision to record: where the objects' tip gets a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionRef {
    /// The change.
    pub change: ChangeId,
    /// Its revision, counted from 1.
    pub revision: u64,
    /// Its newest commit.
    pub head: GitOid,
}

impl Quarantine {
    /// Takes the pack in and checks everything that needs no policy: limits, `fsck` (strict), that
    /// each command's new commit is whole down to what the view holds, and hostile paths in every
    /// new commit. `pack` is read only as far as the refusal needs; drain it before answering.
    ///
    /// # Errors
    /// The limit by name, `malformed-pack`, `objects-broken`, `objects-missing`, `not-a-commit`,
    /// `hostile-path`, `path-too-deep`, `push-timeout`. Nothing is left behind then.
    pub async fn receive<R: AsyncRead + Unpin>(
        view: &FetchView,
        commands: &[RefCommand],
        pack: &mut R,
        limits: PackLimits,
    ) -> Result<Self, Refusal> {
        let root = view.repository().dir().join("quarantine");
        let directory = tempfile::Builder::new()
            .prefix("incoming-")
            .tempdir_in(&root)
            .map_err(|error| unwritable(&root, &error))?;
        let mut quarantine = Self {
            view: view.clone(),
            directory,
            summary: PackSummary::default(),
            commits: Vec::new(),
            commands: commands.to_vec(),
            single: None,
            reader: Reader::default(),
        };
        tokio::time::timeout(limits.time, quarantine.take_in(pack, limits))
            .await
            .map_err(|_| {
                Refusal::limit("push-timeout", "the push took too long")
                    .expected(&format!("an end within {} s", limits.time.as_secs()))
                    .next("push less at once, or over a faster line")
            })??;
        Ok(quarantine)
    }

    /// Everything that the push could build on, and its own objects.
    pub fn objects(&self) -> ObjectView {
        ObjectView {
            quarantine: Some(self.directory.path().to_owned()),
            ..self.view.objects()
        }
    }

    /// The commits that are new to the view, newest first: those since its branch and its earlier
    /// revisions. For a whole revision ask [`ObjectView::commits_between`].
    pub fn commits(&self) -> &[CommitInfo] {
        &self.commits
    }

    /// What the pack held.
    pub fn summary(&self) -> PackSummary {
        self.summary
    }

    /// The commands that it was received for.
    pub fn commands(&self) -> &[RefCommand] {
        &self.commands
    }

    /// The manifest from `base` to `head`; see [`super::manifest`].
    ///
    /// # Errors
    /// A side can't be read.
    pub async fn manifest(&self, base: &GitOid, head: &GitOid) -> Result<Digest, Refusal> {
        let objects = self.objects();
        let known = self
            .single
            .as_ref()
            .filter(|one| one.parent == *base && one.head == *head);
        match (known, self.reader.0.lock().await.as_mut()) {
            (Some(one), Some(reader)) => objects.manifest_by(reader, &one.entries).await,
            (Some(_) | None, _) => objects.manifest(base, head).await,
        }
    }

    /// Accepts it: links the pack into the repository and into the view, and names the revisions.
    /// Either all names are set or none. Repeating it for a revision that stands is no error.
    /// Returns the names.
    ///
    /// # Errors
    /// `revision-exists`: a revision stands with another commit. `git-storage`. The packs are gone
    /// again then.
    pub async fn migrate<P>(
        self,
        permit: Recorded<P>,
        revisions: &[RevisionRef],
    ) -> Result<Vec<String>, Refusal> {
        let _used = permit.spend();
        let repository = self.view.repository();
        let changes = repository.changes_dir();
        let packs = self.directory.path().join("pack");
        let mut made = Vec::new();
        let linked = link_packs(&packs, &changes.join("objects/pack"), &mut made)
            .and_then(|()| link_packs(&packs, &self.view.dir().join("objects/pack"), &mut made));
        let result = match linked {
            Ok(()) => set_refs(&self.view, &changes, revisions).await,
            Err(error) => Err(unwritable(&changes, &error)),
        };
        if let (Ok(_), Some(newest)) = (&result, revisions.last()) {
            repository.note_pushed(self.view.dir(), Some(&newest.head));
        }
        if result.is_err() {
            // Indexes were linked last, and go first.
            for file in made.iter().rev() {
                let _ = std::fs::remove_file(file);
            }
        }
        result
    }

    async fn take_in<R: AsyncRead + Unpin>(
        &mut self,
        pack: &mut R,
        limits: PackLimits,
    ) -> Result<(), Refusal> {
        self.index(pack, limits).await?;
        let news: Vec<&GitOid> = self
            .commands
            .iter()
            .map(|command| &command.new)
            .filter(|oid| !oid.is_zero())
            .collect();
        if news.is_empty() {
            return Ok(());
        }
        // What a client waits for: two steps, each as long as its slower half.
        let (listed, ()) = tokio::try_join!(
            self.new_commits(&news, limits.commits),
            self.check_connected(&news)
        )?;
        let objects = self.objects();
        for oid in news.iter().filter(|oid| !listed.contains(oid)) {
            // Not new, or no commit at all: a tag object, a tree.
            if !objects.has_commit(oid).await? {
                return Err(not_a_commit(oid));
            }
        }
        let mut reader = objects.cat_file()?;
        let (changed, commits) = tokio::try_join!(
            self.check_paths(&listed, limits.path_depth),
            objects.commit_infos_by(&mut reader, &listed)
        )?;
        if let Some(head) = listed
            .first()
            .filter(|_| changed.added.len() <= TWINS_MAX_PATHS && !changed.added.is_empty())
        {
            // More files than that are an import; the checks look at twins among them.
            objects
                .check_twins(&mut reader, head, &changed.added)
                .await?;
        }
        if let [commit] = commits.as_slice()
            && let [parent] = commit.parents.as_slice()
        {
            self.single = Some(Single {
                parent: parent.clone(),
                head: commit.oid.clone(),
                entries: changed.entries,
            });
        }
        self.commits = commits;
        self.reader = Reader(tokio::sync::Mutex::new(Some(reader)));
        Ok(())
    }

    /// Commits that no name of the view reaches, newest first.
    async fn new_commits(&self, news: &[&GitOid], max: usize) -> Result<Vec<GitOid>, Refusal> {
        let done = self
            .objects()
            .git("rev-list")
            .args(["rev-list", "--topo-order"])
            .args([format!("--max-count={}", max.saturating_add(1))])
            .args(news.iter().map(|oid| oid.as_str()))
            .args(["--not", "--all"])
            .time(LONG)
            .finish(&[])
            .await?;
        if !done.status.success() {
            return Err(missing(&done.stderr));
        }
        let listed: Vec<GitOid> = String::from_utf8_lossy(&done.stdout)
            .lines()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        if listed.len() > max {
            return Err(
                Refusal::limit("too-many-commits", "the push has too many commits")
                    .expected(&format!("at most {max}"))
                    .next("squash the work into fewer commits, then push again"),
            );
        }
        Ok(listed)
    }

    /// Streams the pack through our scanner into `git index-pack`.
    async fn index<R: AsyncRead + Unpin>(
        &mut self,
        pack: &mut R,
        limits: PackLimits,
    ) -> Result<(), Refusal> {
        let mut buffer = vec![0; 64 * 1024];
        let mut count = read(pack, &mut buffer).await?;
        if count == 0 {
            // Git sends no pack when nothing is new to us; what is missing is found below.
            return Ok(());
        }
        let objects = self.objects();
        let mut scanner = PackScanner::new(objects.format, limits);
        let mut running = objects
            .git("index-pack")
            .args(["index-pack", "--stdin", "--fix-thin", STRICT])
            .args([format!("--max-input-size={}", limits.pack_bytes)])
            .start_with_input()?;
        let mut stdin = running
            .stdin
            .take()
            .ok_or_else(|| Refusal::internal("git index-pack has no input"))?;
        // Its output names the pack, which we find by itself.
        running.ignore_output();
        while count > 0 {
            let piece = buffer.get(..count).unwrap_or_default();
            scanner.feed(piece)?;
            if stdin.write_all(piece).await.is_err() {
                // Git gave up, and says why below.
                break;
            }
            count = read(pack, &mut buffer).await?;
        }
        let whole = count == 0;
        let _ = stdin.shutdown().await;
        drop(stdin);
        let (status, stderr) = running.wait().await?;
        if !status.success() {
            return Err(broken(&stderr));
        }
        if !whole {
            return Err(broken("the pack goes on after its end"));
        }
        self.summary = scanner.finish()?;
        Ok(())
    }

    /// Walks from the new commits down to what the view's refs reach: every object must be there.
    async fn check_connected(&self, news: &[&GitOid]) -> Result<(), Refusal> {
        let done = self
            .objects()
            .git("rev-list")
            .args(["rev-list", "--objects", "--quiet"])
            .args(news.iter().map(|oid| oid.as_str()))
            .args(["--not", "--all"])
            .time(LONG)
            .finish(&[])
            .await?;
        if done.status.success() {
            return Ok(());
        }
        Err(missing(&done.stderr))
    }

    /// Every path that any new commit adds, judged by [`path::check`].
    async fn check_paths(&self, commits: &[GitOid], depth_max: usize) -> Result<Changed, Refusal> {
        let mut changed = Changed::default();
        let input: String = commits.iter().map(|oid| format!("{oid}\n")).collect();
        if input.is_empty() {
            return Ok(changed);
        }
        let output = self
            .objects()
            .git("diff-tree")
            .args(["diff-tree", "--stdin", "-r", "-z", "-m", "--root", "--raw"])
            .args(["--no-abbrev", "--no-renames", "--ignore-submodules=none"])
            .time(LONG)
            .data_max_bytes(PATHS_MEMORY_BYTES)
            .finish(input.as_bytes())
            .await
            .map_err(|no| match no.code.as_str() {
                "git-output-too-large" => too_many_paths(),
                _ => no,
            })?;
        if !output.status.success() {
            let starved = ["Out of memory", "out of memory", "Cannot allocate memory"];
            return Err(
                match starved.iter().any(|words| output.stderr.contains(words)) {
                    true => too_many_paths(),
                    false => missing(&output.stderr),
                },
            );
        }
        let output = output.stdout;
        let mut fields = output.split(|byte| *byte == 0);
        while let Some(field) = fields.next() {
            // Between the records stands the id of each commit.
            if field.first() != Some(&b':') {
                continue;
            }
            let entry = parse_raw_record(field, fields.next().unwrap_or_default())?;
            if entry.old_mode == 0 {
                path::check(&entry.path, depth_max)?;
                changed.added.insert(entry.path.clone());
            }
            if commits.len() == 1 {
                changed.entries.push(entry);
            }
        }
        Ok(changed)
    }
}

/// What new commits do to paths.
#[derive(Default)]
struct Changed {
    /// Paths that any of them adds.
    added: BTreeSet<Vec<u8>>,
    /// Everything that it changes, of one commit alone.
    entries: Vec<RawEntry>,
}

async fn read<R: AsyncRead + Unpin>(pack: &mut R, buffer: &mut [u8]) -> Result<usize, Refusal> {
    pack.read(buffer).await.map_err(|error| {
        Refusal::malformed("pack")
            .expected("the whole pack")
            .received(&error.to_string())
            .next("repeat the push; nothing was changed")
    })
}

/// Links packs so that a reader never sees an index whose pack is not there yet.
fn link_packs(from: &Path, to: &Path, made: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut files: Vec<PathBuf> = match std::fs::read_dir(from) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    files.retain(|file| {
        matches!(
            file.extension().and_then(|end| end.to_str()),
            Some("pack" | "idx" | "rev")
        )
    });
    files.sort_by_key(|file| file.extension().is_some_and(|end| end == "idx"));
    for file in files {
        let Some(name) = file.file_name() else {
            continue;
        };
        let target = to.join(name);
        match std::fs::hard_link(&file, &target) {
            Ok(()) => made.push(target),
            // The same pack came before; a pack's name is a digest of what it holds.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    std::fs::File::open(to)?.sync_all()
}

async fn set_refs(
    view: &FetchView,
    changes: &Path,
    revisions: &[RevisionRef],
) -> Result<Vec<String>, Refusal> {
    let repository = view.repository();
    let name = |revision: &RevisionRef| change_ref(revision.change, revision.revision);
    let set = async |wanted: &[&RevisionRef]| {
        let input: String = wanted
            .iter()
            .map(|revision| format!("create {} {}\n", name(revision), revision.head))
            .collect();
        let done = repository
            .git()
            .on(changes, "update-ref")
            .args(["update-ref", "--stdin"])
            .finish(input.as_bytes())
            .await?;
        done.succeeded().map(|_| ())
    };
    let names = revisions.iter().map(name).collect();
    if set(&revisions.iter().collect::<Vec<_>>()).await.is_ok() {
        return Ok(names);
    }
    // Some stand already: a repetition, or a conflict.
    let mut left = Vec::new();
    for revision in revisions {
        match repository.resolve(changes, &name(revision)).await? {
            Some(standing) if standing == revision.head => {}
            Some(standing) => {
                return Err(Refusal::conflict(
                    "revision-exists",
                    "this revision stands already with another commit",
                )
                .expected(revision.head.as_str())
                .received(standing.as_str()));
            }
            None => left.push(revision),
        }
    }
    if !left.is_empty() {
        set(&left).await?;
    }
    Ok(names)
}

fn too_many_paths() -> Refusal {
    Refusal::limit("too-many-paths", "the push changes too many paths")
        .expected(&format!(
            "paths of at most {OUTPUT_MAX_BYTES} bytes together"
        ))
        .next("split the change, or leave out what only repeats itself, then push again")
}

fn missing(stderr: &str) -> Refusal {
    if stderr.contains("maximum allowed tree depth") {
        return Refusal::limit("path-too-deep", "a path has too many directories")
            .expected(&format!("at most {} parts", path::PATH_DEPTH_MAX))
            .next("move the file up, then push again");
    }
    Refusal::denied(
        "objects-missing",
        "the push refers to objects that neither it nor this repository holds",
    )
    .received(last_words(stderr))
    .next("fetch again from this remote, rebuild the commits on it, then push again")
}

fn not_a_commit(oid: &GitOid) -> Refusal {
    Refusal::denied("not-a-commit", "a branch can only be a commit that is here")
        .received(oid.as_str())
        .next("push a branch, not a tag object or a tree")
}

fn broken(stderr: &str) -> Refusal {
    let words = stderr
        .lines()
        .find(|line| line.starts_with("error: object "))
        .unwrap_or_else(|| last_words(stderr));
    Refusal::denied("objects-broken", "git does not accept the push's objects")
        .expected("a whole pack of objects that `git fsck --strict` finds sound")
        .received(words)
        .next("run `git fsck --strict` in the clone, rewrite what it names, then push again")
}
