//! A workspace as it stood, kept outside of the sandbox, so that a run can be wound back.
//!
//! Everything in it counts: untracked files, `.git`, links. Nothing of it is executed or obeyed: no
//! git runs here, since a workspace's own configuration names programs. Files are kept once by
//! their SHA-256; what did not change since the last checkpoint, by inode, size and times, isn't
//! read again.
//!
//! The tree belongs to the least trusted thing in the house. Every step goes by descriptor from the
//! directory above and follows no link, so a path can't lead elsewhere, whatever is renamed
//! meanwhile. For a checkpoint that is of one moment, and for winding back at all, the caller
//! freezes the run first.
//!
//! Sockets, pipes and devices aren't kept, and stay where they are; nor are extended attributes and
//! set-user-id bits. Hard links come back as files of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use portcullis_model::digest::Hasher;
use portcullis_model::{Digest, Refusal};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid,
    chownat, fchmod, fchown, fstat, futimens, mkdirat, open, openat, readlinkat, statat, symlinkat,
    unlinkat,
};

/// Most files, links and directories of one checkpoint.
pub const ENTRIES_MAX: usize = 200_000;
/// Most bytes kept for all checkpoints of a run together (2 GiB).
pub const BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// Most checkpoints kept; the oldest but the first go first.
pub const KEPT_MAX: usize = 32;
/// Deepest directory: one descriptor is open for each level.
const DEPTH_MAX: usize = 128;
/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 * 1024;
/// A file that changed so shortly before it was looked at may change again unseen, in nanoseconds:
/// coarser than any file system's clock.
const RACY_NS: i128 = 20_000_000;

/// The checkpoints of one workspace.
#[derive(Debug)]
pub struct Checkpoints {
    workspace: OwnedFd,
    objects: PathBuf,
    kept: BTreeMap<u64, Manifest>,
    next: u64,
    bytes: u64,
    sizes: BTreeMap<Digest, u64>,
    limits: Bounds,
}

/// Bounds, smaller in tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most entries of one checkpoint.
    pub entries: usize,
    /// Most bytes of all together.
    pub bytes: u64,
    /// Most checkpoints.
    pub kept: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            entries: ENTRIES_MAX,
            bytes: BYTES_MAX,
            kept: KEPT_MAX,
        }
    }
}

/// What was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Counted from 1; never used twice.
    pub number: u64,
    /// SHA-256 of the list of everything in it.
    pub manifest: Digest,
    /// Files, links and directories.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
}

/// What winding back changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wound {
    /// Files, links and directories that were written.
    pub written: u64,
    /// Those that were removed.
    pub removed: u64,
}

#[derive(Debug)]
struct Manifest {
    digest: Digest,
    /// By path below the workspace.
    entries: BTreeMap<Vec<u8>, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    what: What,
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    stamp: Stamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Directory,
    File(Digest),
    Link(CString),
}

/// By which a file is taken for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: i64,
    modified_ns: i128,
    changed_ns: i128,
}

impl Checkpoints {
    /// Checkpoints of `workspace`, kept in the new directory `store`, which the run must not reach.
    ///
    /// # Errors
    /// Either can't be opened.
    pub fn create(workspace: &Path, store: &Path, limits: Bounds) -> Result<Self, Refusal> {
        let objects = store.join("objects");
        fs::create_dir_all(&objects).map_err(|error| failed("kept", &objects, &error))?;
        let workspace = open(
            workspace,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| failed("kept", workspace, &error.into()))?;
        Ok(Self {
            workspace,
            objects,
            kept: BTreeMap::new(),
            next: 1,
            bytes: 0,
            sizes: BTreeMap::new(),
            limits,
        })
    }

    /// Keeps the workspace as it stands. `None`: nothing changed since the newest one.
    ///
    /// # Errors
    /// `limit-checkpoint…`: it is larger than the bounds. `checkpoint-failed`: it can't be read, or
    /// the disk is full. What was kept before stays.
    pub fn keep(&mut self) -> Result<Option<Kept>, Refusal> {
        let mut walk = Walk {
            store: self,
            entries: BTreeMap::new(),
            began_ns: now_ns(),
            added: Vec::new(),
        };
        let walked = walk.all();
        let (entries, added) = (walk.entries, walk.added);
        if let Err(refusal) = walked {
            self.forget_objects(&added);
            return Err(refusal);
        }
        let manifest = Manifest {
            digest: digest_of(&entries),
            entries,
        };
        if let Some(newest) = self.kept.values_mut().next_back()
            && newest.digest == manifest.digest
        {
            // The stamps are newer, the content is not.
            *newest = manifest;
            return Ok(None);
        }
        let bytes = manifest
            .entries
            .values()
            .filter(|entry| matches!(entry.what, What::File(_)))
            .map(|entry| u64::try_from(entry.stamp.size).unwrap_or(0))
            .sum();
        let kept = Kept {
            number: self.next,
            manifest: manifest.digest,
            entries: manifest.entries.len() as u64,
            bytes,
        };
        self.next += 1;
        self.kept.insert(kept.number, manifest);
        while self.kept.len() > self.limits.kept {
            self.drop_oldest();
        }
        Ok(Some(kept))
    }

    /// The number and digest of each that can be wound back to.
    pub fn list(&self) -> Vec<(u64, Digest)> {
        self.kept
            .iter()
            .map(|(number, manifest)| (*number, manifest.digest))
            .collect()
    }

    /// Makes the workspace what it was. The run must be frozen. Later checkpoints are forgotten.
    ///
    /// # Errors
    /// `checkpoint-not-found`; `checkpoint-failed`, and then the workspace is neither.
    pub fn wind_back(&mut self, number: u64, digest: Digest) -> Result<Wound, Refusal> {
        let manifest = self
            .kept
            .get(&number)
            .filter(|manifest| manifest.digest == digest)
            .ok_or_else(|| Refusal::not_found("checkpoint", number))?;
        let mut back = Back {
            objects: &self.objects,
            manifest,
            wound: Wound::default(),
        };
        back.directory(self.workspace.as_fd(), &[], 0)
            .map_err(|error| failed("wound back", Path::new("the workspace"), &error))?;
        let wound = back.wound;
        let later: Vec<u64> = self.kept.range(number + 1..).map(|(at, _)| *at).collect();
        for at in later {
            self.kept.remove(&at);
        }
        self.sweep();
        Ok(wound)
    }

    /// The oldest but the first: the fresh clone is what people go back to most.
    fn drop_oldest(&mut self) {
        let oldest = self.kept.keys().nth(1).copied();
        if let Some(oldest) = oldest {
            self.kept.remove(&oldest);
            self.sweep();
        }
    }

    /// Removes files that no checkpoint names.
    fn sweep(&mut self) {
        let named: BTreeSet<Digest> = self
            .kept
            .values()
            .flat_map(|manifest| manifest.entries.values())
            .filter_map(|entry| match entry.what {
                What::File(digest) => Some(digest),
                What::Directory | What::Link(_) => None,
            })
            .collect();
        let unnamed: Vec<Digest> = self
            .sizes
            .keys()
            .filter(|digest| !named.contains(digest))
            .copied()
            .collect();
        self.forget_objects(&unnamed);
    }

    fn forget_objects(&mut self, digests: &[Digest]) {
        for digest in digests {
            if let Some(size) = self.sizes.remove(digest) {
                self.bytes = self.bytes.saturating_sub(size);
                let _ = fs::remove_file(self.objects.join(digest.hex()));
            }
        }
    }

    /// Copies a file into the store, once.
    fn store(&mut self, mut file: File, size: u64, path: &[u8]) -> Result<(Digest, bool), Refusal> {
        while self.bytes.saturating_add(size) > self.limits.bytes && self.kept.len() > 1 {
            let before = self.kept.len();
            self.drop_oldest();
            if self.kept.len() == before {
                break;
            }
        }
        let too_large = || {
            Refusal::limit(
                "checkpoint-too-large",
                "the workspace is too large to be kept",
            )
            .expected(&format!("at most {} bytes in all", self.limits.bytes))
            .received(&String::from_utf8_lossy(path))
        };
        if self.bytes.saturating_add(size) > self.limits.bytes {
            return Err(too_large());
        }
        let name = self.objects.join("new");
        let unwritable = |error: io::Error| {
            let _ = fs::remove_file(&name);
            failed("kept", Path::new(OsStr::from_bytes(path)), &error)
        };
        let mut copy = File::create(&name).map_err(unwritable)?;
        let (mut hasher, mut copied) = (Hasher::default(), 0_u64);
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let read = file.read(&mut buffer).map_err(unwritable)?;
            let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else {
                break;
            };
            copied += chunk.len() as u64;
            // It grew while it was read.
            if self.bytes.saturating_add(copied) > self.limits.bytes {
                let _ = fs::remove_file(&name);
                return Err(too_large());
            }
            hasher.update(chunk);
            copy.write_all(chunk).map_err(unwritable)?;
        }
        let digest = hasher.finish();
        if self.sizes.contains_key(&digest) {
            let _ = fs::remove_file(&name);
            return Ok((digest, false));
        }
        fs::rename(&name, self.objects.join(digest.hex())).map_err(unwritable)?;
        self.sizes.insert(digest, copied);
        self.bytes += copied;
        Ok((digest, true))
    }
}

/// Looks at everything.
struct Walk<'a> {
    store: &'a mut Checkpoints,
    entries: BTreeMap<Vec<u8>, Entry>,
    began_ns: i128,
    added: Vec<Digest>,
}

impl Walk<'_> {
    fn all(&mut self) -> Result<(), Refusal> {
        let top = self
            .store
            .workspace
            .try_clone()
            .map_err(|error| failed("kept", Path::new("the workspace"), &error))?;
        self.directory(top.as_fd(), &[], 0)
    }

    fn directory(
        &mut self,
        directory: BorrowedFd<'_>,
        path: &[u8],
        depth: usize,
    ) -> Result<(), Refusal> {
        let unread = |error: io::Error| failed("kept", Path::new(OsStr::from_bytes(path)), &error);
        if depth > DEPTH_MAX {
            return Err(Refusal::limit(
                "checkpoint-too-deep",
                "the workspace has directories too deep to be kept",
            )
            .expected(&format!("at most {DEPTH_MAX} levels")));
        }
        for name in names(directory).map_err(unread)? {
            let inner = joined(path, &name);
            if self.entries.len() >= self.store.limits.entries {
                return Err(Refusal::limit(
                    "checkpoint-too-many",
                    "the workspace has too many files to be kept",
                )
                .expected(&format!("at most {}", self.store.limits.entries)));
            }
            match self.one(directory, &name, &inner, depth) {
                // Gone between the listing and the look, in a run that is not frozen.
                Err(error) if error.code == GONE => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn one(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
        depth: usize,
    ) -> Result<(), Refusal> {
        let unread = |error: io::Error| {
            if error.kind() == io::ErrorKind::NotFound {
                return Refusal::conflict(GONE, "gone");
            }
            failed("kept", Path::new(OsStr::from_bytes(path)), &error)
        };
        let seen = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| unread(error.into()))?;
        match FileType::from_raw_mode(seen.st_mode) {
            FileType::Directory => {
                let inner = open_directory(parent, name).map_err(unread)?;
                let entry = entry_of(
                    What::Directory,
                    &fstat(&inner).map_err(|e| unread(e.into()))?,
                );
                self.entries.insert(path.to_vec(), entry);
                self.directory(inner.as_fd(), path, depth + 1)
            }
            FileType::Symlink => {
                let target =
                    readlinkat(parent, name, Vec::new()).map_err(|error| unread(error.into()))?;
                self.entries
                    .insert(path.to_vec(), entry_of(What::Link(target), &seen));
                Ok(())
            }
            FileType::RegularFile => {
                if let Some(known) = self.unchanged(path, &seen) {
                    self.entries.insert(path.to_vec(), known);
                    return Ok(());
                }
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = openat(parent, name, flags, Mode::empty())
                    .map_err(|error| unread(error.into()))?;
                // What was opened is what is kept, whatever stands at that name by now.
                let data = fstat(&file).map_err(|error| unread(error.into()))?;
                if FileType::from_raw_mode(data.st_mode) != FileType::RegularFile {
                    return Ok(());
                }
                let size = u64::try_from(data.st_size).unwrap_or(0);
                let (digest, new) = self.store.store(File::from(file), size, path)?;
                if new {
                    self.added.push(digest);
                }
                self.entries
                    .insert(path.to_vec(), entry_of(What::File(digest), &data));
                Ok(())
            }
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => Ok(()),
        }
    }

    /// The file's entry in the newest checkpoint, if nothing says that it changed.
    fn unchanged(&self, path: &[u8], seen: &Stat) -> Option<Entry> {
        let (_, newest) = self.store.kept.last_key_value()?;
        let known = newest.entries.get(path)?;
        let racy = self.began_ns - changed_ns(seen) < RACY_NS;
        let What::File(digest) = known.what else {
            return None;
        };
        (known.stamp == stamp(seen) && !racy && self.store.sizes.contains_key(&digest))
            .then(|| entry_of(What::File(digest), seen))
    }
}

const GONE: &str = "checkpoint-gone";

/// Makes everything as it was.
struct Back<'a> {
    objects: &'a Path,
    manifest: &'a Manifest,
    wound: Wound,
}

impl Back<'_> {
    fn directory(
        &mut self,
        directory: BorrowedFd<'_>,
        path: &[u8],
        depth: usize,
    ) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(io::Error::other("directories too deep"));
        }
        let mut wanted: BTreeMap<CString, &Entry> = BTreeMap::new();
        for (below, entry) in self.manifest.entries.range(below_of(path)..) {
            let Some(rest) = rest_below(path, below) else {
                break;
            };
            if !rest.contains(&b'/') {
                wanted.insert(CString::new(rest)?, entry);
            }
        }
        for name in names(directory)? {
            if !wanted.contains_key(&name) {
                self.remove(directory, &name, depth)?;
            }
        }
        for (name, entry) in wanted {
            let inner = joined(path, &name);
            self.one(directory, &name, &inner, entry, depth)?;
        }
        Ok(())
    }

    fn one(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
        entry: &Entry,
        depth: usize,
    ) -> io::Result<()> {
        let now = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).ok();
        let kind = now.as_ref().map(|now| FileType::from_raw_mode(now.st_mode));
        match &entry.what {
            What::Directory => {
                if kind.is_some_and(|kind| kind != FileType::Directory) {
                    self.remove(parent, name, depth)?;
                }
                if kind != Some(FileType::Directory) {
                    mkdirat(parent, name, Mode::RWXU)?;
                    self.wound.written += 1;
                }
                let inner = open_directory(parent, name)?;
                // Its own owner may have shut it.
                fchmod(&inner, Mode::RWXU)?;
                self.directory(inner.as_fd(), path, depth + 1)?;
                give(&inner, entry)?;
                set_time(&inner, entry)
            }
            What::Link(target) => {
                let same = kind == Some(FileType::Symlink)
                    && readlinkat(parent, name, Vec::new())? == *target;
                if same {
                    return Ok(());
                }
                if kind.is_some() {
                    self.remove(parent, name, depth)?;
                }
                symlinkat(target, parent, name)?;
                self.wound.written += 1;
                if rustix::process::geteuid().is_root() {
                    chownat(
                        parent,
                        name,
                        Some(Uid::from_raw(entry.owner.0)),
                        Some(Gid::from_raw(entry.owner.1)),
                        AtFlags::SYMLINK_NOFOLLOW,
                    )?;
                }
                Ok(())
            }
            What::File(digest) => {
                if now.is_some_and(|now| stamp(&now) == entry.stamp) {
                    return Ok(());
                }
                if kind.is_some() {
                    self.remove(parent, name, depth)?;
                }
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let mut file = File::from(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
                let mut kept = File::open(self.objects.join(digest.hex()))?;
                io::copy(&mut kept, &mut file)?;
                self.wound.written += 1;
                give(&file, entry)?;
                set_time(&file, entry)
            }
        }
    }

    /// Removes whatever stands there, with all below. Sockets and pipes stay: they weren't kept,
    /// and processes that go on use them.
    fn remove(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(io::Error::other("directories too deep"));
        }
        let data = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(data) => data,
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match FileType::from_raw_mode(data.st_mode) {
            FileType::Directory => {
                let inner = open_directory(parent, name)?;
                fchmod(&inner, Mode::RWXU)?;
                for below in names(inner.as_fd())? {
                    self.remove(inner.as_fd(), &below, depth + 1)?;
                }
                match unlinkat(parent, name, AtFlags::REMOVEDIR) {
                    // A socket stays in it, and so does it.
                    Ok(()) | Err(rustix::io::Errno::NOTEMPTY) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            FileType::RegularFile | FileType::Symlink => {
                unlinkat(parent, name, AtFlags::empty())?;
            }
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => return Ok(()),
        }
        self.wound.removed += 1;
        Ok(())
    }
}

fn give(file: &impl AsFd, entry: &Entry) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        fchown(
            file,
            Some(Uid::from_raw(entry.owner.0)),
            Some(Gid::from_raw(entry.owner.1)),
        )?;
    }
    // Never the bits that lend somebody's identity.
    Ok(fchmod(file, Mode::from_raw_mode(entry.mode & 0o1777))?)
}

fn set_time(file: &impl AsFd, entry: &Entry) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: entry.modified.0,
            tv_nsec: entry.modified.1,
        },
    };
    Ok(futimens(file, &times)?)
}

fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, name, flags, Mode::empty()) {
        // Its owner shut it; for root that is no hindrance, for an ordinary launcher it is the
        // owner too. By descriptor, so that no link is followed.
        Err(rustix::io::Errno::ACCESS) => {
            let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let shut = openat(parent, name, path, Mode::empty())?;
            let through = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&shut));
            rustix::fs::chmod(through.as_str(), Mode::RWXU)?;
            Ok(openat(parent, name, flags, Mode::empty())?)
        }
        other => Ok(other?),
    }
}

fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn joined(path: &[u8], name: &CStr) -> Vec<u8> {
    if path.is_empty() {
        return name.to_bytes().to_vec();
    }
    [path, b"/", name.to_bytes()].concat()
}

/// Where what is below `path` begins in the order of paths.
fn below_of(path: &[u8]) -> Vec<u8> {
    if path.is_empty() {
        return Vec::new();
    }
    [path, b"/"].concat()
}

fn rest_below<'a>(path: &[u8], below: &'a [u8]) -> Option<&'a [u8]> {
    if path.is_empty() {
        return Some(below);
    }
    below.strip_prefix(path)?.strip_prefix(b"/")
}

fn entry_of(what: What, data: &Stat) -> Entry {
    Entry {
        what,
        mode: data.st_mode & 0o1777,
        owner: (data.st_uid, data.st_gid),
        modified: (
            data.st_mtime,
            i64::try_from(data.st_mtime_nsec).unwrap_or(0),
        ),
        stamp: stamp(data),
    }
}

fn stamp(data: &Stat) -> Stamp {
    Stamp {
        inode: data.st_ino,
        size: data.st_size,
        modified_ns: i128::from(data.st_mtime) * 1_000_000_000 + i128::from(data.st_mtime_nsec),
        changed_ns: changed_ns(data),
    }
}

fn changed_ns(data: &Stat) -> i128 {
    i128::from(data.st_ctime) * 1_000_000_000 + i128::from(data.st_ctime_nsec)
}

fn now_ns() -> i128 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i128::try_from(since.as_nanos()).unwrap_or(0))
}

/// Over names, kinds, modes and content; not over times and inodes.
fn digest_of(entries: &BTreeMap<Vec<u8>, Entry>) -> Digest {
    let mut hasher = Hasher::default();
    for (path, entry) in entries {
        let (kind, content): (&[u8], Vec<u8>) = match &entry.what {
            What::Directory => (b"d", Vec::new()),
            What::File(digest) => (b"f", digest.hex().into_bytes()),
            What::Link(target) => (b"l", target.to_bytes().to_vec()),
        };
        for part in [kind, &entry.mode.to_le_bytes(), path, &content] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    hasher.finish()
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Refusal {
    Refusal::unavailable(
        "checkpoint-failed",
        format!("the workspace can't be {what} at {}", path.display()),
    )
    .received(&error.to_string())
}
