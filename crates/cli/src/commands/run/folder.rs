//! A run's own directory on this machine: its workspace, and what it is given. Gone afterwards.

use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_model::{Refusal, RunId};
use portcullis_server::builder::remove_tree;
use rustix::fs::{FlockOperation, flock};

use super::prelude::GIVEN;

/// Largest script of the caller's that is given along, in bytes (64 MiB).
const OWN_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// First user id of runs, as root: above those of people and of jobs.
const RUN_UID_FIRST: u32 = 64_000;
/// How old a lock must be before it is tried.
const YOUNG: Duration = Duration::from_secs(10);
/// How many user ids runs go round in.
const RUN_UIDS: u64 = 1_000;

/// The user of a run, as root.
pub(super) fn user_of_run(run: RunId) -> u32 {
    RUN_UID_FIRST + u32::try_from(run.0 % RUN_UIDS).unwrap_or_default()
}

/// What the names of runs' directories begin with.
const PREFIX: &str = "portcullis-run-";
/// The file that is locked as long as the run's launcher lives.
const LOCK: &str = "lock";

/// The directory; dropped, it is removed with everything in it. A launcher that was killed leaves
/// its own behind, and the next one removes it.
pub(super) struct Folder {
    path: PathBuf,
    /// Held by nobody else, as long as this lives.
    _lock: File,
    /// Whether the workspace stays.
    keep: bool,
}

impl Folder {
    /// Makes `parent/portcullis-<run>-…` with an empty workspace that belongs to `user`, if named.
    ///
    /// # Errors
    /// It can't be made.
    pub(super) fn create(
        parent: &Path,
        run: RunId,
        user: Option<u32>,
        keep: bool,
    ) -> Result<Self, Refusal> {
        let unwritable = |error| unwritable(parent, &error);
        let parent = std::path::absolute(parent).map_err(unwritable)?;
        remove_abandoned(&parent);
        let unique = crate::random::nonce()?;
        // A run is written `run-<number>`.
        let name = format!("portcullis-{run}-{}", unique.get(..8).unwrap_or(&unique));
        let path = parent.join(name);
        // Nobody else may look in: only the sandbox's mounts lead to what is inside.
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(unwritable)?;
        let lock = File::create(path.join(LOCK))
            .and_then(|lock| {
                flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
                Ok(lock)
            })
            .inspect_err(|_| remove_tree(&path))
            .map_err(unwritable)?;
        let folder = Self {
            path,
            _lock: lock,
            keep,
        };
        for part in [folder.workspace(), folder.given()] {
            DirBuilder::new().create(&part).map_err(unwritable)?;
            fs::set_permissions(&part, Permissions::from_mode(0o755)).map_err(unwritable)?;
        }
        if user.is_some() {
            lchown(folder.workspace(), user, user).map_err(unwritable)?;
        }
        Ok(folder)
    }

    /// What is mounted read-write.
    pub(super) fn workspace(&self) -> PathBuf {
        self.path.join("workspace")
    }

    /// Where checkpoints of the workspace are kept; the sandbox has no way there.
    pub(super) fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// What is mounted read-only at [`GIVEN`].
    pub(super) fn given(&self) -> PathBuf {
        self.path.join("given")
    }

    /// Puts a file among what is given.
    ///
    /// # Errors
    /// It can't be written.
    pub(super) fn give(&self, name: &str, text: &str) -> Result<(), Refusal> {
        let path = self.given().join(name);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o644)))
            .map_err(|error| unwritable(&path, &error))
    }

    /// Writes the authorities that the run's programs trust, under the names that systems have for
    /// such a file. Gives the directory, which is mounted where systems keep theirs.
    ///
    /// # Errors
    /// It can't be written.
    pub(super) fn give_certificates(&self, bundle: &str) -> Result<PathBuf, Refusal> {
        let directory = self.path.join("certificates");
        let unwritable = |error| unwritable(&directory, &error);
        DirBuilder::new().create(&directory).map_err(unwritable)?;
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).map_err(unwritable)?;
        for name in ["ca-certificates.crt", "ca-bundle.crt"] {
            let path = directory.join(name);
            fs::write(&path, bundle)
                .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o644)))
                .map_err(unwritable)?;
        }
        Ok(directory)
    }

    /// Gives along the caller's own script that a relative path with a slash names, if there is
    /// one; the prelude prefers a file of the repository. Gives its name.
    ///
    /// # Errors
    /// It is too large, or can't be copied.
    pub(super) fn give_command(&self, word: &std::ffi::OsStr) -> Result<Option<String>, Refusal> {
        let path = Path::new(word);
        let relative = !path.is_absolute() && word.as_encoded_bytes().contains(&b'/');
        let Some(name) = path
            .file_name()
            .and_then(|name| name.to_str())
            .filter(|_| relative)
        else {
            return Ok(None);
        };
        let Ok(data) = fs::metadata(path) else {
            return Ok(None);
        };
        if !data.is_file() {
            return Ok(None);
        }
        if data.len() > OWN_MAX_BYTES {
            return Err(Refusal::limit(
                "command-too-large",
                "this program is too large to be given along",
            )
            .expected(&format!("at most {OWN_MAX_BYTES} bytes"))
            .received(&path.display().to_string())
            .next("name it by its absolute path, with its directory as --toolchain"));
        }
        let folder = self.given().join("command");
        let copy = folder.join(name);
        let mode = if data.permissions().mode() & 0o111 != 0 {
            0o755
        } else {
            0o644
        };
        fs::create_dir(&folder)
            .and_then(|()| fs::set_permissions(&folder, Permissions::from_mode(0o755)))
            .and_then(|()| fs::copy(path, &copy))
            .and_then(|_| fs::set_permissions(&copy, Permissions::from_mode(mode)))
            .map_err(|error| unwritable(&copy, &error))?;
        Ok(Some(name.to_owned()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.keep {
            remove_tree(&self.given());
            remove_tree(&self.checkpoints());
            // Without it, no later launcher takes the workspace for abandoned.
            let _ = fs::remove_file(self.path.join(LOCK));
            super::tell(&format!(
                "the workspace stays at {}; its git configuration and hooks are the run's, and a git command there may start what they name",
                self.workspace().display()
            ));
        } else {
            remove_tree(&self.path);
        }
    }
}

/// Removes the directories of this user's launchers that were killed: their locks are free.
fn remove_abandoned(parent: &Path) {
    let us = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && fs::symlink_metadata(entry.path())
                .is_ok_and(|data| data.is_dir() && data.uid() == us);
        let Some(lock) = ours
            .then(|| File::open(entry.path().join(LOCK)).ok())
            .flatten()
        else {
            continue;
        };
        // Made a moment ago, it may not be locked yet.
        let young = lock
            .metadata()
            .and_then(|data| data.modified())
            .ok()
            .and_then(|time| time.elapsed().ok())
            .is_none_or(|age| age < YOUNG);
        if !young && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove_tree(&entry.path());
        }
    }
}

/// The mount of what is given.
pub(super) fn given_bind(folder: &Folder) -> portcullis_sandbox::Bind {
    portcullis_sandbox::Bind::required(folder.given(), GIVEN)
}

fn unwritable(path: &Path, error: &std::io::Error) -> Refusal {
    Refusal::unavailable(
        "workspace-unwritable",
        format!("{} can't be written", path.display()),
    )
    .received(&error.to_string())
    .next("free space there, or name another directory with --workspaces DIR")
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn everything_is_gone_afterwards_unless_the_workspace_is_to_stay() {
        let parent = tempfile::tempdir().unwrap();
        let run: RunId = "run-7".parse().unwrap();
        let folder = Folder::create(parent.path(), run, None, false).unwrap();
        let locked = folder.workspace().join("module");
        fs::create_dir(&locked).unwrap();
        fs::write(locked.join("file"), "x").unwrap();
        fs::set_permissions(&locked, Permissions::from_mode(0o500)).unwrap();
        let mode = fs::metadata(&folder.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        drop(folder);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        let folder = Folder::create(parent.path(), run, None, true).unwrap();
        folder.give("task.md", "x").unwrap();
        let (workspace, given) = (folder.workspace(), folder.given());
        drop(folder);
        assert!(workspace.exists() && !given.exists());
    }

    #[test]
    fn only_a_relative_path_to_a_file_is_given_along() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::create(parent.path(), "run-7".parse().unwrap(), None, false).unwrap();
        for word in ["sh", "/bin/sh", "./no-such-file", "src/"] {
            assert_eq!(
                folder.give_command(OsStr::new(word)).unwrap(),
                None,
                "{word}"
            );
        }
        // Tests run in the package's directory.
        let name = folder.give_command(OsStr::new("./Cargo.toml")).unwrap();
        assert_eq!(name.as_deref(), Some("Cargo.toml"));
        assert!(folder.given().join("command/Cargo.toml").is_file());
    }

    #[test]
    fn what_a_killed_launcher_left_is_removed_and_what_lives_stays() {
        let parent = tempfile::tempdir().unwrap();
        let run: RunId = "run-7".parse().unwrap();
        let old = std::time::SystemTime::now() - Duration::from_secs(60);
        let aged = |lock: &File| lock.set_modified(old).unwrap();
        let living = Folder::create(parent.path(), run, None, false).unwrap();
        aged(&living._lock);
        let kept = Folder::create(parent.path(), run, None, true).unwrap();
        let kept_workspace = kept.workspace();
        drop(kept);
        let killed = parent.path().join("portcullis-run-6-00000000");
        let young = parent.path().join("portcullis-run-5-00000000");
        for folder in [&killed, &young] {
            fs::create_dir_all(folder.join("workspace")).unwrap();
            File::create(folder.join(LOCK)).unwrap();
        }
        aged(&File::options().write(true).open(killed.join(LOCK)).unwrap());
        let foreign = parent.path().join("portcullis-run-of-somebody");
        fs::create_dir(&foreign).unwrap();
        drop(Folder::create(parent.path(), run, None, false).unwrap());
        assert!(!killed.exists());
        assert!(living.workspace().exists() && kept_workspace.exists());
        assert!(young.exists() && foreign.exists());
    }

    #[test]
    fn runs_get_users_of_their_own() {
        let user = |run: &str| user_of_run(run.parse().unwrap());
        assert_ne!(user("run-1"), user("run-2"));
        assert_eq!(user("run-1001"), user("run-1"));
        assert!((64_000..65_000).contains(&user("run-999")));
    }
}
