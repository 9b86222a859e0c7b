//! One governed repository on disk: a mirror of its upstream, and beside it what was proposed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis_model::{ChangeId, GitOid, Refusal};

use super::command::{FAR_SETTINGS, Git, LONG, QUICK, disk_full, last_words, unwritable};
use super::fetch::ViewRef;
use super::look::{look, shallow_upstream};
use super::names::{BRANCH_PREFIX, CHANGE_PREFIX, TAG_PREFIX, branch_ref, check_ref_name};
use super::objects::ObjectView;
use super::room::{self, Remembered};
use super::tree::ObjectFormat;
use super::upstream::{Access, Upstream};

/// Longest time for a sync: a first fetch of a big repository over a slow line.
pub const SYNC_TIME: Duration = Duration::from_secs(30 * 60);
/// How often, and after which time, what was cut short is cleared again while something is written
/// into it.
const CLEAR_TRIES: u32 = 100;
const CLEAR_AGAIN: Duration = Duration::from_millis(20);
/// Most tags that a run sees: each of its requests compares them.
pub const TAGS_MAX: usize = 2_000;

/// A repository's directory:
///
/// - `mirror.git`: branches and tags of the upstream, or the repository itself if there is none;
/// - `changes.git`: what pushes proposed, under `refs/portcullis/changes/`, over the mirror;
/// - `views/`: what each run may fetch ([`super::FetchView`]);
/// - `quarantine/`: pushes not yet accepted; emptied when the repository is opened.
#[derive(Clone, Debug)]
pub struct Repository {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    git: Git,
    dir: PathBuf,
    upstream: Upstream,
    format: ObjectFormat,
    /// One fetch at a time.
    sync: tokio::sync::Mutex<()>,
    /// One landing at a time: git moves a work tree before it takes the branch's lock, so the
    /// loser of a race would leave its files behind.
    landing: tokio::sync::Mutex<()>,
    /// One at a time that puts packs together.
    /// Held by whoever puts packs together; when that is to be looked at again.
    pub(super) tidying: tokio::sync::Mutex<Option<std::time::Instant>>,
    /// One change of a view's refs at a time.
    views: tokio::sync::Mutex<()>,
    /// Upstream's tags as views show them, until a sync finds others.
    tags: std::sync::Mutex<Option<Arc<[ViewRef]>>>,
    /// That a fetch was cut off for its size.
    outgrown: Remembered,
    /// By view, the newest commit that was pushed into it: all of it is there.
    pushed: std::sync::Mutex<BTreeMap<PathBuf, GitOid>>,
}

/// A ref of the mirror that a sync found elsewhere than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefMove {
    /// Full name.
    pub name: String,
    /// Where it was; none if it is new.
    pub old: Option<GitOid>,
    /// Where it is; none if it is gone.
    pub new: Option<GitOid>,
}

impl Repository {
    /// Opens the repository in `dir`, or makes it: then the upstream is asked for its object
    /// format and default branch, and fetched.
    ///
    /// # Errors
    /// The directory can't be written; `upstream-unreachable` or `upstream-refused` on the first
    /// time.
    pub async fn open_or_create(
        git: &Git,
        dir: &Path,
        upstream: Upstream,
        access: &Access,
    ) -> Result<Self, Refusal> {
        upstream.check(access)?;
        std::fs::create_dir_all(dir).map_err(|error| unwritable(dir, &error))?;
        let dir = dir
            .canonicalize()
            .map_err(|error| unwritable(dir, &error))?;
        check_plain(&dir)?;
        let mirror = dir.join("mirror.git");
        let fresh = !dir.join("changes.git").join("HEAD").exists();
        let mut has_branches = false;
        let format = if fresh {
            clear_cut_short(&dir).await?;
            let seen = look(git, &upstream, access, &mirror).await?;
            init(git, &mirror, seen.format, seen.branch.as_deref()).await?;
            has_branches = seen.has_branches;
            seen.format
        } else {
            format_of(git, &mirror).await?
        };
        let repository = Self {
            inner: Arc::new(Inner {
                git: git.clone(),
                dir: dir.clone(),
                upstream,
                format,
                sync: tokio::sync::Mutex::new(()),
                landing: tokio::sync::Mutex::new(()),
                tidying: tokio::sync::Mutex::new(None),
                views: tokio::sync::Mutex::new(()),
                tags: std::sync::Mutex::default(),
                outgrown: Remembered::default(),
                pushed: std::sync::Mutex::default(),
            }),
        };
        if fresh {
            let filled = repository.fill(access, has_branches).await;
            if let Err(refusal) = filled {
                // What came over would be fetched anew by the next try, and may be what fills the
                // disk.
                clear_cut_short(&dir).await?;
                return Err(refusal);
            }
            // Last, so that a first time cut short is a first time again.
            init(git, &dir.join("changes.git"), format, None).await?;
        }
        write_alternates(&repository.changes_dir(), &mirror)?;
        write_veto(&mirror, repository.inner.upstream == Upstream::Embedded)?;
        write_veto(&repository.changes_dir(), false)?;
        repository.clear_quarantine()?;
        clear_left_behind(&dir)?;
        for name in ["views", "quarantine"] {
            let path = dir.join(name);
            std::fs::create_dir_all(&path).map_err(|error| unwritable(&path, &error))?;
        }
        Ok(repository)
    }

    /// The first fetch.
    async fn fill(&self, access: &Access, has_branches: bool) -> Result<(), Refusal> {
        self.sync(access).await?;
        // One that came over between two looks counts as well.
        let (packs, bound) = (
            self.mirror_dir().join("objects/pack"),
            self.inner.git.mirror_max_bytes(),
        );
        if let Some(refusal) = room::too_large(&packs, bound).await {
            return Err(refusal);
        }
        if has_branches && self.refs().await?.is_empty() {
            return Err(shallow_upstream());
        }
        Ok(())
    }

    /// Fetches all branches and tags of the upstream, and says which moved. For an embedded
    /// repository there is nothing to fetch.
    ///
    /// # Errors
    /// `upstream-unreachable`, `upstream-refused`, `git-timeout`, `mirror-too-large` or `disk-full`;
    /// the mirror stays as it was. After a fetch that was cut off for its size, an hour goes by in
    /// which the same is said without one.
    pub async fn sync(&self, access: &Access) -> Result<Vec<RefMove>, Refusal> {
        if self.inner.upstream == Upstream::Embedded {
            return Ok(Vec::new());
        }
        self.inner.upstream.check(access)?;
        let _one = self.inner.sync.lock().await;
        if let Some(refusal) = self.inner.outgrown.told() {
            return Err(refusal);
        }
        let packs = self.mirror_dir().join("objects/pack");
        let bound = self.inner.git.mirror_max_bytes();
        if let Some(refusal) = room::too_large(&packs, bound).await {
            return Err(refusal);
        }
        let before = self.refs().await?;
        // What comes over stays a pack, of which clones are copied and which the bound counts; git
        // would take it apart if its objects are few.
        let whole = ["-c", "fetch.unpackLimit=1", "-c", "transfer.unpackLimit=1"];
        let mut args = vec![
            "fetch",
            "--prune",
            "--force",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            "--no-auto-maintenance",
            "--quiet",
        ];
        if self.inner.git.version() >= (2, 31) {
            args.push("--atomic");
        }
        let mut call = self
            .inner
            .git
            .on(&self.mirror_dir(), "fetch")
            .args(whole)
            .args(args);
        if self.inner.upstream.is_local() {
            call = call.args([format!("--upload-pack=git {FAR_SETTINGS} upload-pack")]);
        }
        let call = call
            .args([self.inner.upstream.argument(&self.mirror_dir())])
            .args(["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"])
            .transport(self.inner.upstream.protocols(), access, &self.inner.git)
            .time(SYNC_TIME);
        let done = call.finish_unless(room::outgrown(&packs, bound), &[]).await;
        let done = done.and_then(|done| match done.status.success() {
            true => Ok(()),
            false => Err(disk_full(&done.stderr)
                .unwrap_or_else(|| upstream_failure("fetch from", &done.stderr))),
        });
        if let Err(refusal) = done {
            let tidying = self.inner.tidying.try_lock();
            // Else they may be another's, who takes them away in time.
            if tidying.is_ok() {
                room::remove_half_written(&packs);
            }
            drop(tidying);
            self.inner.outgrown.note(&refusal);
            // Some of the refs may have moved.
            self.forget_tags();
            return Err(refusal);
        }
        let after = self.refs().await?;
        let moves = moves(&before, &after);
        if moves.iter().any(|one| one.name.starts_with(TAG_PREFIX)) {
            self.forget_tags();
        }
        Ok(moves)
    }

    fn forget_tags(&self) {
        if let Ok(mut tags) = self.inner.tags.lock() {
            *tags = None;
        }
    }

    /// Upstream's tags as runs see them: at most [`TAGS_MAX`], the newest.
    ///
    /// # Errors
    /// Git can't be asked.
    pub async fn tags(&self) -> Result<Arc<[ViewRef]>, Refusal> {
        let known = self.inner.tags.lock().ok().and_then(|tags| tags.clone());
        if let Some(known) = known {
            return Ok(known);
        }
        // Beside a sync, what is found may be old when it is remembered.
        let quiet = self.inner.sync.try_lock();
        let text = self
            .inner
            .git
            .on(&self.mirror_dir(), "for-each-ref")
            .args(["for-each-ref", "--format=%(objectname) %(refname)"])
            .args(["--sort=-creatordate", &format!("--count={TAGS_MAX}")])
            .args(["refs/tags"])
            .time(LONG)
            .text()
            .await?;
        let found = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(_, name)| check_ref_name(name).is_ok())
            .map(|(oid, name)| {
                Ok(ViewRef {
                    name: name.to_owned(),
                    oid: oid.parse()?,
                })
            })
            .collect::<Result<Arc<[ViewRef]>, Refusal>>()?;
        if quiet.is_ok()
            && let Ok(mut tags) = self.inner.tags.lock()
        {
            *tags = Some(Arc::clone(&found));
        }
        Ok(found)
    }

    /// Branches and tags of the mirror, by full name.
    ///
    /// # Errors
    /// Git can't be asked.
    pub async fn refs(&self) -> Result<BTreeMap<String, GitOid>, Refusal> {
        self.list(&self.mirror_dir(), &["refs/heads", "refs/tags"])
            .await
    }

    /// Where a branch of the mirror stands.
    ///
    /// # Errors
    /// `malformed-ref-name`, or git can't be asked.
    pub async fn tip(&self, branch: &str) -> Result<Option<GitOid>, Refusal> {
        let name = branch_ref(branch)?;
        self.resolve(&self.mirror_dir(), &name).await
    }

    /// The branch that a clone checks out.
    ///
    /// # Errors
    /// Git can't be asked.
    pub async fn default_branch(&self) -> Result<String, Refusal> {
        let name = self
            .inner
            .git
            .on(&self.mirror_dir(), "symbolic-ref")
            .args(["symbolic-ref", "HEAD"])
            .text()
            .await?;
        Ok(name.strip_prefix(BRANCH_PREFIX).unwrap_or(&name).to_owned())
    }

    /// The commit of one revision of a change, if it was accepted. A restart asks this before it
    /// repeats.
    ///
    /// # Errors
    /// Git can't be asked.
    pub async fn revision(
        &self,
        change: ChangeId,
        revision: u64,
    ) -> Result<Option<GitOid>, Refusal> {
        let name = change_ref(change, revision);
        // Nobody packs these refs, so one that stands is a file; git is asked about any other.
        let file = self.changes_dir().join(&name);
        if let Ok(text) = std::fs::read_to_string(file)
            && let Some(oid) = text.strip_suffix('\n')
            && let Ok(oid) = oid.parse::<GitOid>()
        {
            return Ok(Some(oid));
        }
        self.resolve(&self.changes_dir(), &name).await
    }

    /// Everything: the mirror's objects and those of all changes.
    pub fn objects(&self) -> ObjectView {
        self.view_of(&self.changes_dir())
    }

    /// The upstream.
    pub fn upstream(&self) -> &Upstream {
        &self.inner.upstream
    }

    /// How it names objects.
    pub fn format(&self) -> ObjectFormat {
        self.inner.format
    }

    /// The bare repository that mirrors the upstream, or is it.
    pub fn mirror_dir(&self) -> PathBuf {
        self.inner.dir.join("mirror.git")
    }

    /// The bare repository of what was proposed.
    pub fn changes_dir(&self) -> PathBuf {
        self.inner.dir.join("changes.git")
    }

    /// The directory of everything.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    pub(crate) fn git(&self) -> &Git {
        &self.inner.git
    }

    pub(crate) async fn landing_lock(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.inner.landing.lock().await
    }

    pub(crate) async fn views_lock(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.inner.views.lock().await
    }

    /// The newest commit that this process took into the view in `dir`.
    pub(crate) fn pushed_here(&self, dir: &Path) -> Option<GitOid> {
        let pushed = self.inner.pushed.lock().ok()?;
        pushed.get(dir).cloned()
    }

    /// Notes, or forgets, the newest commit of the view in `dir`.
    pub(crate) fn note_pushed(&self, dir: &Path, head: Option<&GitOid>) {
        if let Ok(mut pushed) = self.inner.pushed.lock() {
            match head {
                Some(head) => pushed.insert(dir.to_owned(), head.clone()),
                None => pushed.remove(dir),
            };
        }
    }

    pub(crate) fn view_of(&self, git_dir: &Path) -> ObjectView {
        ObjectView {
            git: self.inner.git.clone(),
            git_dir: git_dir.to_owned(),
            quarantine: None,
            format: self.inner.format,
        }
    }

    pub(crate) async fn resolve(
        &self,
        git_dir: &Path,
        name: &str,
    ) -> Result<Option<GitOid>, Refusal> {
        let done = self
            .inner
            .git
            .on(git_dir, "rev-parse")
            .args(["rev-parse", "--verify", "--quiet", "--end-of-options", name])
            .finish(&[])
            .await?;
        if !done.status.success() {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&done.stdout).trim().to_owned();
        text.parse().map(Some)
    }

    async fn list(
        &self,
        git_dir: &Path,
        prefixes: &[&str],
    ) -> Result<BTreeMap<String, GitOid>, Refusal> {
        let text = self
            .inner
            .git
            .on(git_dir, "for-each-ref")
            .args(["for-each-ref", "--format=%(objectname) %(refname)"])
            .args(prefixes)
            .time(LONG)
            .text()
            .await?;
        text.lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(oid, name)| Ok((name.to_owned(), oid.parse()?)))
            .collect()
    }

    fn clear_quarantine(&self) -> Result<(), Refusal> {
        let path = self.inner.dir.join("quarantine");
        match std::fs::remove_dir_all(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(unwritable(&path, &error)),
        }
    }
}

/// The ref of one revision of a change.
pub fn change_ref(change: ChangeId, revision: u64) -> String {
    format!("{CHANGE_PREFIX}{}/{revision}", change.0)
}

fn moves(before: &BTreeMap<String, GitOid>, after: &BTreeMap<String, GitOid>) -> Vec<RefMove> {
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| RefMove {
            name: name.clone(),
            old: before.get(name).cloned(),
            new: after.get(name).cloned(),
        })
        .collect()
}

/// `git ls-remote`, its lines `id TAB name`.
pub(crate) async fn ls_remote(
    git: &Git,
    upstream: &Upstream,
    access: &Access,
    mirror: &Path,
    options: &[&str],
    patterns: &[&str],
) -> Result<String, Refusal> {
    upstream.check(access)?;
    let mut call = git.bare("ls-remote").args(["ls-remote"]).args(options);
    if upstream.is_local() {
        call = call.args([format!("--upload-pack=git {FAR_SETTINGS} upload-pack")]);
    }
    let done = call
        .args([upstream.argument(mirror)])
        .args(patterns)
        .transport(upstream.protocols(), access, git)
        .time(QUICK)
        .finish(&[])
        .await?;
    if !done.status.success() {
        return Err(upstream_failure("ask", &done.stderr));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// What an upstream's "no" means.
pub(crate) fn upstream_failure(what: &str, stderr: &str) -> Refusal {
    let refused = [
        "Authentication failed",
        "Permission denied",
        "Host key verification failed",
        "server certificate verification failed",
        "SSL certificate problem",
        "could not read Username",
        "could not read Password",
        "returned error: 401",
        "returned error: 403",
        "terminal prompts disabled",
    ]
    .iter()
    .any(|words| stderr.contains(words));
    let (code, next) = if refused {
        (
            "upstream-refused",
            "check the credential, and the authorities or host keys, that the server holds for this repository",
        )
    } else {
        (
            "upstream-unreachable",
            "check the upstream's address and that it is up; nothing was changed",
        )
    };
    Refusal::unavailable(code, format!("we could not {what} the upstream repository"))
        .received(last_words(stderr))
        .next(next)
}

/// Takes away work places of calls that a kill cut off.
fn clear_left_behind(dir: &Path) -> Result<(), Refusal> {
    let failed = |error: std::io::Error| unwritable(dir, &error);
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| {
            ["index-", "look-", ".tmp"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        });
        if ours && entry.path().is_dir() {
            std::fs::remove_dir_all(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

/// Takes away what a first time left that was ended in the middle of `git init`: its locks would
/// refuse every later one. A mirror holds nothing that upstream has not.
async fn clear_cut_short(dir: &Path) -> Result<(), Refusal> {
    let mirror = dir.join("mirror.git");
    let mut tries = 0;
    while let Err(error) = std::fs::remove_dir_all(&mirror) {
        match error.kind() {
            std::io::ErrorKind::NotFound => break,
            // A git whose caller went away is being killed, and writes to its end.
            std::io::ErrorKind::DirectoryNotEmpty if tries < CLEAR_TRIES => {
                tries += 1;
                tokio::time::sleep(CLEAR_AGAIN).await;
            }
            _ => return Err(unwritable(&mirror, &error)),
        }
    }
    for name in ["HEAD.lock", "config.lock"] {
        let lock = dir.join("changes.git").join(name);
        if lock.exists() {
            std::fs::remove_file(&lock).map_err(|error| unwritable(&lock, &error))?;
        }
    }
    Ok(())
}

async fn init(
    git: &Git,
    dir: &Path,
    format: ObjectFormat,
    branch: Option<&str>,
) -> Result<(), Refusal> {
    if let Some(branch) = branch {
        branch_ref(branch)?;
    }
    git.bare("init")
        .args(["init", "--bare", "--quiet", "--template="])
        .args([
            format!("--object-format={}", format.name()),
            format!("--initial-branch={}", branch.unwrap_or("main")),
        ])
        .args([dir])
        .output()
        .await
        .map(|_| ())
}

async fn format_of(git: &Git, dir: &Path) -> Result<ObjectFormat, Refusal> {
    let name = git
        .on(dir, "rev-parse")
        .args(["rev-parse", "--show-object-format"])
        .text()
        .await?;
    ObjectFormat::named(&name)
}

/// Lets `dir` see the objects of `mirror`.
pub(crate) fn write_alternates(dir: &Path, mirror: &Path) -> Result<(), Refusal> {
    let info = dir.join("objects").join("info");
    let line = format!("{}\n", mirror.join("objects").display());
    std::fs::create_dir_all(&info)
        .and_then(|()| std::fs::write(info.join("alternates"), line))
        .map_err(|error| unwritable(&info, &error))
}

/// What git says to anyone but us who would move a ref of ours. Our own calls run without hooks
/// ([`super::command`]), each by a permit that its type demands.
const VETO: &str = "\
    echo 'portcullis: refs here move by the server alone, after it recorded why; nothing was changed' >&2\n\
    echo '  next: propose the change with git push origin HEAD:refs/for/<branch>' >&2\n\
    exit 1\n";
/// Where it does not matter what moves.
const VETO_BEGIN: &str = "#!/bin/sh\n[ \"$1\" = prepared ] || exit 0\n";
/// A repository that has no upstream is filled by its owner, once.
const VETO_FILLED: &str = "[ -n \"$(git for-each-ref --count=1)\" ] || exit 0\n";

/// The last veto of a bare repository of ours: no ref in it moves by any other git than the
/// server's own, neither by a push, a fetch nor `git update-ref`. With `to_fill`, an empty one
/// takes its first refs from anyone who may write there.
pub(crate) fn write_veto(dir: &Path, to_fill: bool) -> Result<(), Refusal> {
    use std::os::unix::fs::PermissionsExt as _;
    let hooks = dir.join("hooks");
    let file = hooks.join("reference-transaction");
    let filled = if to_fill { VETO_FILLED } else { "" };
    let text = format!("{VETO_BEGIN}{filled}{VETO}");
    if std::fs::read(&file).is_ok_and(|known| known == text.as_bytes()) {
        return Ok(());
    }
    std::fs::create_dir_all(&hooks)
        .and_then(|()| std::fs::write(&file, text))
        .and_then(|()| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)))
        .map_err(|error| unwritable(&file, &error))
}

/// Git's list of alternates is a text file: some characters have a meaning there.
fn check_plain(dir: &Path) -> Result<(), Refusal> {
    let text = dir.to_str().unwrap_or("\n");
    if text.contains(['\n', '"', '\\', ':']) {
        return Err(Refusal::malformed("data directory")
            .expected("an absolute path of UTF-8 without line feed, quote, backslash or colon")
            .received(&dir.display().to_string()));
    }
    Ok(())
}
