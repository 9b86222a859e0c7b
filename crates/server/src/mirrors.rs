//! The governed repositories, opened once each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_flow::State;
use portcullis_gateway::git::checkout::CheckoutLimits;
use portcullis_gateway::git::{
    Access, FetchView, Git, ObjectView, Remembered, Repository, Upstream,
};
use portcullis_gateway::http::Credential;
use portcullis_model::document::from_toml;
use portcullis_model::{GitOid, Refusal, RepositoryId, RunId};
use portcullis_policy::PolicyFile;
use serde::Deserialize;
use tokio::sync::{Mutex, OnceCell};

use crate::app::text;
use crate::home::Home;

mod builds;
mod looks;

pub use builds::BuildFiles;
use builds::Builds;
use looks::Looks;

/// Where a repository keeps its own rules; read from the protected base only.
const POLICY_FOLDER: &str = ".portcullis";
/// Largest file that says how to reach an upstream, in bytes.
const ACCESS_MAX_BYTES: u64 = 16 * 1024;
/// Most commits whose policy files are remembered.
const POLICIES_MAX: usize = 256;
/// Largest policy file, in bytes.
const POLICY_MAX_BYTES: u64 = 256 * 1024;

/// A mirror that is open, or being opened by the first who asked.
#[derive(Default)]
struct Opening {
    made: OnceCell<Arc<Mirror>>,
    /// That the first fetch was cut off for its size: anyone may ask, and each try fetches anew.
    outgrown: Remembered,
}

/// Mirrors of all governed repositories.
pub struct Mirrors {
    git: Git,
    folder: PathBuf,
    secrets: PathBuf,
    open: Mutex<BTreeMap<(RepositoryId, String), Arc<Opening>>>,
}

/// One governed repository.
pub struct Mirror {
    /// The gateway's half: objects, views, pushes.
    pub repository: Repository,
    access: Access,
    /// The policy files of commits asked about lately; a commit's never change.
    policies: std::sync::Mutex<BTreeMap<GitOid, Vec<PolicyFile>>>,
    /// The build files of the commit asked about last.
    builds: Builds,
    /// Looks at upstream for runs.
    pub(crate) looks: Looks,
}

impl Mirrors {
    /// Finds git, and the folder for the mirrors. `authorities` are further ones that may vouch for
    /// upstreams over HTTPS, PEM; no mirror takes more than `mirror_max_bytes`.
    ///
    /// # Errors
    /// There is no usable git.
    pub async fn open(
        home: &Home,
        authorities: Option<&Path>,
        mirror_max_bytes: u64,
    ) -> Result<Self, Refusal> {
        let folder = home.repositories();
        let git = Git::open(&folder.join("git-home")).await?;
        let git = git.with_mirror_max_bytes(mirror_max_bytes);
        let git = match authorities {
            Some(file) => git.with_authorities(file)?,
            None => git,
        };
        Ok(Self {
            git,
            folder,
            secrets: home.secrets(),
            open: Mutex::new(BTreeMap::new()),
        })
    }

    /// The git that everything here uses.
    pub const fn git(&self) -> &Git {
        &self.git
    }

    /// The mirror of a repository, made on first use.
    ///
    /// # Errors
    /// The repository is unknown, or upstream can't be reached the first time. One that was too
    /// large is not fetched again for an hour.
    pub async fn get(&self, state: &State, id: &RepositoryId) -> Result<Arc<Mirror>, Refusal> {
        let record = state.inventory.repository(id)?;
        self.get_from(id, &record.upstream).await
    }

    async fn get_from(&self, id: &RepositoryId, upstream: &str) -> Result<Arc<Mirror>, Refusal> {
        let key = (id.clone(), upstream.to_owned());
        // The lock is held for the look-up alone: one slow upstream must not keep the others.
        let opening = {
            let mut open = self.open.lock().await;
            Arc::clone(open.entry(key).or_default())
        };
        let made = opening.made.get_or_try_init(|| async {
            if let Some(refusal) = opening.outgrown.told() {
                return Err(refusal);
            }
            let upstream: Upstream = upstream.parse()?;
            let access = access_to(&self.secrets, id)?;
            let folder = self.folder.join(id.as_str());
            let repository = Repository::open_or_create(&self.git, &folder, upstream, &access)
                .await
                .inspect_err(|refusal| opening.outgrown.note(refusal))?;
            Ok::<_, Refusal>(Arc::new(Mirror {
                repository,
                access,
                policies: std::sync::Mutex::default(),
                builds: Builds::default(),
                looks: Looks::default(),
            }))
        });
        made.await.map(Arc::clone)
    }
}

/// How the server shows who it is to an upstream: `secrets/upstream-<repository>.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, untagged)]
enum AccessFile {
    Password {
        username: String,
        password: String,
    },
    SshKey {
        ssh_key: PathBuf,
        known_hosts: PathBuf,
    },
}

fn access_to(secrets: &Path, id: &RepositoryId) -> Result<Access, Refusal> {
    let path = secrets.join(format!("upstream-{id}.toml"));
    if !path.exists() {
        return Ok(Access::None);
    }
    let bytes = Home::read(&path, ACCESS_MAX_BYTES)?;
    not_open(&path)?;
    // Nothing of the file's content goes into the refusal.
    let file: AccessFile = from_toml("upstream access", &text(&bytes)?).map_err(|_| {
        Refusal::malformed("upstream access")
            .expected("`username` and `password`, or `ssh_key` and `known_hosts` with paths")
            .next(format!("correct {}", path.display()))
    })?;
    Ok(match file {
        AccessFile::Password { username, password } => Access::Password {
            username,
            password: Credential::new(password),
        },
        AccessFile::SshKey {
            ssh_key,
            known_hosts,
        } => {
            if ssh_key.exists() {
                not_open(&ssh_key)?;
            }
            Access::SshKey {
                key_file: ssh_key,
                known_hosts,
            }
        }
    })
}

/// A credential that others on the machine can read is nobody's secret.
fn not_open(file: &Path) -> Result<(), Refusal> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(file).map_or(0o777, |found| found.permissions().mode());
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Refusal::denied(
        "credential-file-open",
        format!("others can read {}", file.display()),
    )
    .expected("mode 0600")
    .received(&format!("mode {:04o}", mode & 0o7777))
    .next(format!(
        "chmod 600 {}; take the credential in it for known, and replace it",
        file.display()
    )))
}

impl Mirror {
    /// All objects: the mirror's and those of changes.
    pub fn objects(&self) -> ObjectView {
        self.repository.objects()
    }

    /// Fetches upstream's branches.
    ///
    /// # Errors
    /// Upstream can't be reached.
    pub async fn sync(&self) -> Result<(), Refusal> {
        self.repository.sync(&self.access).await.map(|_| ())
    }

    /// Removes the views of runs that ended, and those of people who pushed nothing for a day: what
    /// was accepted of them stands in the repository.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn sweep(&self, ended: impl Fn(RunId) -> bool) -> Result<(), Refusal> {
        let views = self.repository.dir().join("views");
        for entry in std::fs::read_dir(&views).map_err(|error| storage(&error))? {
            let entry = entry.map_err(|error| storage(&error))?;
            let name = entry.file_name();
            let person = name
                .to_str()
                .and_then(|name| name.strip_suffix(".git"))
                .filter(|name| name.starts_with("person-"));
            if let Some(person) = person {
                if unused(&entry.path())
                    && let Some(view) = FetchView::open(&self.repository, person)?
                {
                    view.remove()?;
                }
                continue;
            }
            let run = name.to_str().and_then(|name| name.strip_suffix(".git"));
            let Some(run) = run.and_then(|name| name.parse::<RunId>().ok()) else {
                continue;
            };
            if ended(run)
                && let Some(view) = FetchView::open(&self.repository, &run.to_string())?
            {
                view.remove()?;
            }
        }
        Ok(())
    }

    /// How the server shows who it is to upstream.
    pub const fn access(&self) -> &Access {
        &self.access
    }

    /// A commit's tree as a tar file, without filters, attributes or hooks. Times and owners are
    /// fixed, so the same commit gives the same bytes.
    ///
    /// # Errors
    /// The commit can't be read, or is larger than jobs may be.
    pub async fn archive(&self, commit: &GitOid) -> Result<Vec<u8>, Refusal> {
        let folder =
            tempfile::tempdir_in(self.repository.dir()).map_err(|error| storage(&error))?;
        let tree = folder.path().join("tree");
        let limits = CheckoutLimits {
            bytes: ARCHIVE_MAX_BYTES,
            ..CheckoutLimits::default()
        };
        self.objects().checkout(commit, &tree, limits).await?;
        tokio::task::spawn_blocking(move || {
            let mut tar = tar::Builder::new(Vec::new());
            tar.mode(tar::HeaderMode::Deterministic);
            tar.follow_symlinks(false);
            let made = tar
                .append_dir_all(".", &tree)
                .and_then(|()| tar.into_inner());
            drop(folder);
            made.map_err(|error| storage(&error))
        })
        .await
        .map_err(|_| Refusal::internal("the archive was cut off"))?
    }

    /// Number of commits that `to` has and `from` has not; 0 if `from` is not behind `to`.
    ///
    /// # Errors
    /// The commits can't be read.
    pub async fn count_between(&self, from: &GitOid, to: &GitOid) -> Result<u64, Refusal> {
        let objects = self.objects();
        if !objects.has_commit(from).await? || !objects.is_ancestor(from, to).await? {
            return Ok(0);
        }
        let commits = objects.commits_between(from, to, COMMITS_MAX).await?;
        Ok(u64::try_from(commits.len()).unwrap_or(u64::MAX))
    }

    /// The build files of a commit; none if they are too many or too large to be read.
    ///
    /// # Errors
    /// The commit can't be read.
    pub async fn build_files(&self, commit: &GitOid) -> Result<Option<BuildFiles>, Refusal> {
        self.builds.at(&self.objects(), commit).await
    }

    /// The repository's own policy files at a commit.
    ///
    /// # Errors
    /// A file can't be read, is too large, or is no text.
    pub async fn policy_files(&self, base: &GitOid) -> Result<Vec<PolicyFile>, Refusal> {
        if let Ok(known) = self.policies.lock()
            && let Some(files) = known.get(base)
        {
            return Ok(files.clone());
        }
        let objects = self.objects();
        let mut files = Vec::new();
        for entry in objects
            .directory(base, POLICY_FOLDER)
            .await?
            .unwrap_or_default()
        {
            let Some(name) = std::str::from_utf8(&entry.name)
                .ok()
                .filter(|name| name.ends_with(".cedar"))
            else {
                continue;
            };
            let path = format!("{POLICY_FOLDER}/{name}");
            let bytes = objects
                .read_file(base, &path, POLICY_MAX_BYTES)
                .await?
                .ok_or_else(|| {
                    Refusal::denied("policy-not-a-file", format!("{path} is not a plain file"))
                })?;
            files.push(PolicyFile::new(path, text(&bytes)?));
        }
        if let Ok(mut known) = self.policies.lock() {
            if known.len() >= POLICIES_MAX {
                known.clear();
            }
            known.insert(base.clone(), files.clone());
        }
        Ok(files)
    }
}

/// How long the view of a person stays after the last pack that came into it: longer than any push
/// takes.
const VIEW_UNUSED: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

/// Whether neither refs nor packs came into a view for long.
fn unused(view: &Path) -> bool {
    [view.to_owned(), view.join("objects/pack")]
        .iter()
        .all(|folder| {
            let changed = std::fs::metadata(folder).and_then(|found| found.modified());
            changed.is_ok_and(|then| then.elapsed().is_ok_and(|age| age > VIEW_UNUSED))
        })
}

/// Largest source tree of a job, in bytes: it is held in memory once.
const ARCHIVE_MAX_BYTES: u64 = 512 * 1024 * 1024;
/// Most commits that are counted of a branch that moved past us.
const COMMITS_MAX: usize = 10_000;

fn storage(error: &std::io::Error) -> Refusal {
    Refusal::unavailable("git-storage", "the repositories' folder can't be written")
        .received(&error.to_string())
        .next("free space or mend the permissions of the home's `repositories` folder")
}

#[cfg(test)]
mod tests;
