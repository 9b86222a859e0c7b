//! Raw commit and tree objects out of a repository, by one `git cat-file` process.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use portcullis_evidence::chain::{BUNDLE_MAX_BYTES, Bytes, OBJECTS_MAX};
use portcullis_gateway::git::tree::{MODE_TREE, ObjectFormat, TreeEntry, parse_tree};
use portcullis_model::{GitOid, Refusal};

/// Largest commit object in bytes: a message longer than a book is no message.
const COMMIT_MAX_BYTES: u64 = 1024 * 1024;
/// Largest tree object in bytes: a directory of some hundred thousand files.
const TREE_MAX_BYTES: u64 = 32 * 1024 * 1024;
/// Most bytes of trees: a bundle holds them in base64, beside all else.
const TREES_MAX_BYTES: usize = BUNDLE_MAX_BYTES / 2;
/// Longest answer line in bytes: id, kind, size.
const HEADER_MAX_BYTES: u64 = 256;

/// The commits of `oids`, and of each of these pairs of commits the tree objects in which they
/// differ. Blocks; nothing of the machine's git configuration counts.
///
/// # Errors
/// Git can't be run, or one of them is not here.
pub(super) fn read(
    git_dir: &Path,
    oids: impl Iterator<Item = GitOid>,
    diffs: &[(GitOid, GitOid)],
) -> Result<BTreeMap<GitOid, Bytes>, Refusal> {
    let mut reader = Reader::start(git_dir)?;
    let mut objects = BTreeMap::new();
    for oid in oids {
        let bytes = reader.object(&oid, "commit", COMMIT_MAX_BYTES)?;
        objects.insert(oid, Bytes(bytes));
    }
    for (from, to) in diffs {
        let mut to_do = vec![(Some(reader.tree_of(from)?), Some(reader.tree_of(to)?))];
        while let Some((old, new)) = to_do.pop() {
            if old == new {
                continue;
            }
            let mut below = |side: Option<GitOid>| match side {
                Some(oid) => reader.folders(oid, &mut objects),
                None => Ok(BTreeMap::new()),
            };
            let (old, new) = (below(old)?, below(new)?);
            let names: BTreeSet<&Vec<u8>> = old.keys().chain(new.keys()).collect();
            for name in names {
                to_do.push((old.get(name).cloned(), new.get(name).cloned()));
            }
        }
    }
    Ok(objects)
}

fn unreadable(error: std::io::Error) -> Refusal {
    Refusal::unavailable("git-unreadable", "commit objects can't be read")
        .received(&error.to_string())
}

fn too_much() -> Refusal {
    Refusal::limit(
        "bundle-too-large",
        "what landed on a later base differs from it in more than a bundle holds",
    )
    .expected(&format!(
        "at most {OBJECTS_MAX} objects, and {TREES_MAX_BYTES} bytes of trees"
    ))
    .next("let changes of this size land on the base that was approved")
}

/// A process that answers with objects.
struct Reader {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// How many bytes of trees there is still room for.
    left: usize,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Reader {
    fn start(git_dir: &Path) -> Result<Self, Refusal> {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        let mut child = Command::new("git")
            .args(["-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null"])
            .args(["-c", "core.alternateRefsCommand=true", "--git-dir"])
            .arg(git_dir)
            .args(["cat-file", "--batch"])
            .env_clear()
            .env("PATH", path)
            .env("HOME", "/nonexistent")
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_NO_LAZY_FETCH", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(unreadable)?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(questions), Some(answers)) => Ok(Self {
                child,
                questions,
                answers: BufReader::new(answers),
                left: TREES_MAX_BYTES,
            }),
            _ => Err(Refusal::internal("git was started without pipes")),
        }
    }

    fn object(&mut self, oid: &GitOid, kind: &str, max_bytes: u64) -> Result<Vec<u8>, Refusal> {
        writeln!(self.questions, "{oid}").map_err(unreadable)?;
        self.questions.flush().map_err(unreadable)?;
        let mut header = String::new();
        (&mut self.answers)
            .take(HEADER_MAX_BYTES)
            .read_line(&mut header)
            .map_err(unreadable)?;
        let parts: Vec<&str> = header.split_whitespace().collect();
        let size = match parts.as_slice() {
            [answered, found, size] if *answered == oid.as_str() && *found == kind => {
                size.parse::<u64>().ok().filter(|size| *size <= max_bytes)
            }
            _ => None,
        }
        .ok_or_else(|| Refusal::not_found(kind, oid))?;
        let mut bytes = Vec::new();
        (&mut self.answers)
            .take(size)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        let mut newline = [0];
        self.answers.read_exact(&mut newline).map_err(unreadable)?;
        Ok(bytes)
    }

    /// The tree that a commit names.
    fn tree_of(&mut self, commit: &GitOid) -> Result<GitOid, Refusal> {
        let bytes = self.object(commit, "commit", COMMIT_MAX_BYTES)?;
        portcullis_gateway::git::commit::parse(commit, &bytes).map(|commit| commit.tree)
    }

    /// The directories in a tree, which is kept.
    fn folders(
        &mut self,
        oid: GitOid,
        objects: &mut BTreeMap<GitOid, Bytes>,
    ) -> Result<BTreeMap<Vec<u8>, GitOid>, Refusal> {
        let format = ObjectFormat::of(&oid);
        let entries = match objects.get(&oid) {
            Some(Bytes(known)) => parse_tree(format, known)?,
            None => {
                let bytes = self.object(&oid, "tree", TREE_MAX_BYTES)?;
                self.left = self
                    .left
                    .checked_sub(bytes.len())
                    .filter(|_| objects.len() < OBJECTS_MAX)
                    .ok_or_else(too_much)?;
                let entries = parse_tree(format, &bytes)?;
                objects.insert(oid, Bytes(bytes));
                entries
            }
        };
        Ok(entries
            .into_iter()
            .filter(|entry| entry.mode == MODE_TREE)
            .map(|TreeEntry { name, oid, .. }| (name, oid))
            .collect())
    }
}
