//! The build files of a commit, kept from one commit to the next: only what changed between them is
//! read again, so that a landing does not read the names of a whole tree.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_checks::graph;
use portcullis_gateway::git::ObjectView;
use portcullis_model::{GitOid, Refusal};
use tokio::sync::Mutex;

/// Build files by path.
pub type BuildFiles = Arc<BTreeMap<String, Vec<u8>>>;

/// Largest build file that is read, in bytes.
const BUILD_FILE_MAX_BYTES: u64 = 256 * 1024;
/// Most build files of a commit that are read.
const BUILD_FILES_MAX: usize = 5_000;
/// Most bytes of them together: they are kept.
const BUILD_FILES_MAX_BYTES: usize = 32 * 1024 * 1024;

/// What is known of one commit.
#[derive(Default)]
pub(super) struct Builds(Mutex<Option<(GitOid, BuildFiles)>>);

impl Builds {
    /// Those of `commit`; none if they are too many or too large.
    pub(super) async fn at(
        &self,
        objects: &ObjectView,
        commit: &GitOid,
    ) -> Result<Option<BuildFiles>, Refusal> {
        let mut known = self.0.lock().await;
        if let Some((at, files)) = known.as_ref()
            && at == commit
        {
            return Ok(Some(Arc::clone(files)));
        }
        // Taken out, so that they are changed in place unless somebody reads them.
        let found = match known.take() {
            Some((at, files)) if objects.has_commit(&at).await? => {
                moved(objects, &at, commit, files).await?
            }
            Some(_) | None => whole(objects, commit).await?,
        };
        let Some(files) = found.map(Arc::new) else {
            return Ok(None);
        };
        *known = Some((commit.clone(), Arc::clone(&files)));
        Ok(Some(files))
    }
}

/// By the names of the whole tree.
async fn whole(
    objects: &ObjectView,
    commit: &GitOid,
) -> Result<Option<BTreeMap<String, Vec<u8>>>, Refusal> {
    let paths = objects.paths(commit, graph::is_build_file).await?;
    read(objects, commit, paths, BTreeMap::new()).await
}

/// By what changed since `at`.
async fn moved(
    objects: &ObjectView,
    at: &GitOid,
    commit: &GitOid,
    known: BuildFiles,
) -> Result<Option<BTreeMap<String, Vec<u8>>>, Refusal> {
    let mut files = Arc::unwrap_or_clone(known);
    let mut changed = Vec::new();
    for entry in objects.raw_entries(at, commit).await? {
        let Ok(path) = String::from_utf8(entry.path) else {
            continue;
        };
        if !graph::is_build_file(&path) {
            continue;
        }
        files.remove(&path);
        if entry.new_mode != 0 {
            changed.push(path);
        }
    }
    read(objects, commit, changed, files).await
}

/// Reads these files into what is known of the others.
async fn read(
    objects: &ObjectView,
    commit: &GitOid,
    paths: Vec<String>,
    mut files: BTreeMap<String, Vec<u8>>,
) -> Result<Option<BTreeMap<String, Vec<u8>>>, Refusal> {
    if files.len() + paths.len() > BUILD_FILES_MAX {
        return Ok(None);
    }
    let mut held: usize = files.values().map(Vec::len).sum();
    for path in paths {
        match objects.read_file(commit, &path, BUILD_FILE_MAX_BYTES).await {
            Ok(bytes) => {
                let bytes = bytes.unwrap_or_default();
                held = held.saturating_add(bytes.len());
                if held > BUILD_FILES_MAX_BYTES {
                    return Ok(None);
                }
                files.insert(path, bytes);
            }
            Err(refusal) if refusal.code == "object-too-large" => return Ok(None),
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(Some(files))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use portcullis_gateway::git::{Access, Git, Repository, Upstream};

    use super::*;

    fn git(folder: &Path, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").arg("-C");
        git.arg(folder).args(["-c", "user.name=a"]);
        git.args(["-c", "user.email=a@example.org"]).args(arguments);
        let done = git.output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {done:?}");
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    #[tokio::test]
    async fn build_files_are_kept_up_to_a_sum_and_changed_in_place() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("upstream");
        git(root.path(), &["init", "-q", "-b", "main", "upstream"]);
        let commit = |count: usize| {
            for n in 0..count {
                let unit = tree.join(format!("unit-{n}"));
                std::fs::create_dir_all(&unit).unwrap();
                std::fs::write(unit.join("package.json"), vec![b' '; 256 * 1024]).unwrap();
            }
            git(&tree, &["add", "."]);
            git(&tree, &["commit", "-qm", "more"]);
            git(&tree, &["rev-parse", "HEAD"])
                .parse::<GitOid>()
                .unwrap()
        };
        // The sum is reached, and then passed by one file.
        let (few, most, more) = (commit(2), commit(128), commit(129));
        let with_git = Git::open(&root.path().join("home")).await.unwrap();
        let upstream = Upstream::Path(tree.clone());
        let folder = root.path().join("repository");
        let repository = Repository::open_or_create(&with_git, &folder, upstream, &Access::None)
            .await
            .unwrap();
        let (builds, objects) = (Builds::default(), repository.objects());
        let first = builds.at(&objects, &few).await.unwrap().unwrap();
        assert_eq!(first.len(), 2);
        let second = builds.at(&objects, &most).await.unwrap().unwrap();
        // Who holds the first sees no other.
        assert_eq!((first.len(), second.len()), (2, 128));
        drop((first, second));
        assert!(builds.at(&objects, &more).await.unwrap().is_none());
        // From the beginning, and from another commit, alike.
        assert!(builds.at(&objects, &more).await.unwrap().is_none());
        let again = builds.at(&objects, &most).await.unwrap().unwrap();
        assert_eq!(again.len(), 128);
        let kept = again.values().next().unwrap().as_ptr();
        drop(again);
        let fewer = builds.at(&objects, &few).await.unwrap().unwrap();
        assert_eq!(fewer.len(), 2);
        assert_eq!(fewer.values().next().unwrap().as_ptr(), kept);
    }
}
