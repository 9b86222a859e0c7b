//! Writes a commit's files into a directory, for jobs: no `.git`, no filters, no attributes, no
//! hooks; links are made as they are and never followed.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use portcullis_model::{GitOid, Refusal};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::command::{LONG, unwritable};
use super::objects::{ObjectView, read_tree, root_of};
use super::path;
use super::tree::{
    MODE_EXECUTABLE, MODE_FILE, MODE_SUBMODULE, MODE_SYMLINK, MODE_TREE, TREE_DEPTH_MAX,
};

/// What a checkout may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckoutLimits {
    /// Files, links and directories.
    pub entries: usize,
    /// Bytes of all files.
    pub bytes: u64,
}

impl Default for CheckoutLimits {
    /// Room for the largest repositories that are built as a whole.
    fn default() -> Self {
        Self {
            entries: 2_000_000,
            bytes: 32 * 1024 * 1024 * 1024,
        }
    }
}

/// Content that waits for the disk, in blobs.
const WRITE_QUEUE: usize = 16;
/// Largest file in bytes: it passes through memory.
const FILE_MAX_BYTES: u64 = 1024 * 1024 * 1024;

/// One thing to write.
#[derive(Clone, Debug)]
struct Entry {
    path: PathBuf,
    mode: u32,
    oid: GitOid,
}

impl ObjectView {
    /// Writes the tree of `commit` (or a tree) into `dir`, which must be new or empty. Submodules
    /// are empty directories. Returns how many entries were written.
    ///
    /// # Errors
    /// `hostile-path`, `checkout-too-large`, `git-storage`, or the commit can't be read. What was
    /// written until then stays; remove the directory.
    pub async fn checkout(
        &self,
        commit: &GitOid,
        dir: &Path,
        limits: CheckoutLimits,
    ) -> Result<usize, Refusal> {
        std::fs::create_dir_all(dir).map_err(|error| unwritable(dir, &error))?;
        let mut standing = std::fs::read_dir(dir).map_err(|error| unwritable(dir, &error))?;
        if standing.next().is_some() {
            return Err(Refusal::conflict(
                "directory-not-empty",
                "a checkout needs an empty directory",
            )
            .received(&dir.display().to_string()));
        }
        self.within(4 * LONG, "checkout", async {
            let (entries, count) = self.list_entries(commit, dir, limits).await?;
            self.write_files(entries, limits).await?;
            Ok(count)
        })
        .await
    }

    /// All files and links; the directories are made on the way.
    async fn list_entries(
        &self,
        commit: &GitOid,
        dir: &Path,
        limits: CheckoutLimits,
    ) -> Result<(Vec<Entry>, usize), Refusal> {
        let mut objects = self.cat_file()?;
        let root = root_of(&mut objects, commit).await?;
        let mut waiting = vec![(root, PathBuf::new(), 0)];
        let (mut files, mut count) = (Vec::new(), 0);
        while let Some((tree, at, depth)) = waiting.pop() {
            if depth > TREE_DEPTH_MAX {
                return Err(too_large("levels of directories", TREE_DEPTH_MAX));
            }
            if tree == self.format.empty_tree()? {
                continue;
            }
            for entry in read_tree(&mut objects, self.format, &tree).await? {
                count += 1;
                if count > limits.entries {
                    return Err(too_large("entries", limits.entries));
                }
                let path = at.join(part(&entry.name)?);
                match entry.mode {
                    MODE_TREE | MODE_SUBMODULE => {
                        let made = dir.join(&path);
                        std::fs::create_dir(&made).map_err(|error| unwritable(&made, &error))?;
                        if entry.mode == MODE_TREE {
                            waiting.push((entry.oid, path, depth + 1));
                        }
                    }
                    // Old repositories hold modes such as 100664; they are plain files.
                    mode => files.push(Entry {
                        path: dir.join(path),
                        mode,
                        oid: entry.oid,
                    }),
                }
            }
        }
        Ok((files, count))
    }

    /// Asks git ahead while the disk works.
    async fn write_files(
        &self,
        entries: Vec<Entry>,
        limits: CheckoutLimits,
    ) -> Result<(), Refusal> {
        let mut objects = self.cat_file()?;
        let mut input = objects
            .take_input()
            .ok_or_else(|| Refusal::internal("git cat-file has no input"))?;
        let names: String = entries.iter().map(|e| format!("{}\n", e.oid)).collect();
        let ask = async move {
            // If git ends early, the reader below says so.
            let _ = input.write_all(names.as_bytes()).await;
            let _ = input.shutdown().await;
        };
        let (sender, mut receiver) = mpsc::channel::<(Entry, Vec<u8>)>(WRITE_QUEUE);
        let writer = tokio::task::spawn_blocking(move || {
            while let Some((entry, content)) = receiver.blocking_recv() {
                write(&entry, &content).map_err(|error| unwritable(&entry.path, &error))?;
            }
            Ok::<(), Refusal>(())
        });
        let read = async move {
            let mut bytes = 0_u64;
            for entry in entries {
                let blob = objects
                    .next(FILE_MAX_BYTES)
                    .await?
                    .ok_or_else(|| Refusal::not_found("object", &entry.oid))?;
                bytes = bytes.saturating_add(u64::try_from(blob.content.len()).unwrap_or(u64::MAX));
                if bytes > limits.bytes {
                    let max = usize::try_from(limits.bytes).unwrap_or(usize::MAX);
                    return Err(too_large("bytes", max));
                }
                if sender.send((entry, blob.content)).await.is_err() {
                    // The writer's own error follows.
                    break;
                }
            }
            Ok(())
        };
        let ((), result) = tokio::join!(ask, read);
        let written = writer
            .await
            .map_err(|error| Refusal::internal(format!("the writer of files failed: {error}")))?;
        written.and(result)
    }
}

/// A name that is one part of a path, and stays below its directory.
fn part(name: &[u8]) -> Result<&Path, Refusal> {
    use std::os::unix::ffi::OsStrExt as _;
    let text = String::from_utf8_lossy(name);
    let hostile = name.is_empty()
        || name == b"."
        || name == b".."
        || name.contains(&b'/')
        || name.contains(&0)
        || path::is_git_directory(&text);
    if hostile {
        return Err(
            Refusal::denied("hostile-path", "a tree holds a name that no tree may hold")
                .received(&text),
        );
    }
    Ok(Path::new(std::ffi::OsStr::from_bytes(name)))
}

fn write(entry: &Entry, content: &[u8]) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    if entry.mode == MODE_SYMLINK {
        return symlink(std::ffi::OsStr::from_bytes(content), &entry.path);
    }
    let permissions = match entry.mode {
        MODE_EXECUTABLE => 0o755,
        MODE_FILE => 0o644,
        other if other & 0o111 != 0 => 0o755,
        _ => 0o644,
    };
    // `create_new` does not follow a link, nor write to what stands.
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(permissions)
        .open(&entry.path)?
        .write_all(content)
}

fn too_large(unit: &str, max: usize) -> Refusal {
    Refusal::limit(
        "checkout-too-large",
        format!("the tree has too many {unit}"),
    )
    .expected(&format!("at most {max}"))
}
