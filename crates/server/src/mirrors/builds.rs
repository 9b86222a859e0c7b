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
        let found = match known.as_ref() {
            Some((at, files)) if at == commit => return Ok(Some(Arc::clone(files))),
            Some((at, files)) if objects.has_commit(at).await? => {
                moved(objects, at, commit, files).await?
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
    known: &BuildFiles,
) -> Result<Option<BTreeMap<String, Vec<u8>>>, Refusal> {
    let mut files = BTreeMap::clone(known);
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
    for path in paths {
        match objects.read_file(commit, &path, BUILD_FILE_MAX_BYTES).await {
            Ok(bytes) => {
                files.insert(path, bytes.unwrap_or_default());
            }
            Err(refusal) if refusal.code == "object-too-large" => return Ok(None),
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(Some(files))
}
