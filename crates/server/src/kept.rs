//! Files that tasks keep in, read once per task from the commit that it starts at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use globset::{GlobBuilder, GlobSetBuilder};
use portcullis_checks::outgoing::Kept;
use portcullis_flow::State;
use portcullis_model::task::Target;
use portcullis_model::{GitOid, Refusal, TaskId};

use crate::mirrors::Mirrors;

/// Most tasks whose files are remembered; beyond, they are read anew.
const TASKS_MAX: usize = 64;
/// Most files that one task can keep in.
const FILES_MAX: usize = 2_000;
/// Largest file that is kept in, in bytes; a larger one refuses the run's requests, since it could
/// not be told from others.
const FILE_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// The empty tree in both formats of git's objects; git knows it without having it.
const EMPTY_TREES: [&str; 2] = [
    "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
];

/// What was read so far.
#[derive(Default)]
pub struct KeptFiles(Mutex<BTreeMap<TaskId, Arc<Kept>>>);

impl KeptFiles {
    /// What a task keeps in.
    ///
    /// # Errors
    /// The commit or one of its files can't be read, or there are too many; then nothing leaves.
    pub async fn of(
        &self,
        state: &State,
        mirrors: &Mirrors,
        id: TaskId,
    ) -> Result<Arc<Kept>, Refusal> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&id) {
            return Ok(Arc::clone(known));
        }
        let task = state
            .tasks
            .get(&id)
            .ok_or_else(|| Refusal::not_found("task", id))?;
        let patterns = &task.payload.capabilities.kept;
        let mut files = Vec::new();
        if !patterns.is_empty() {
            for target in &task.payload.targets {
                // Apart: most calls find what is known, and their futures stay small.
                files.extend(Box::pin(read(state, mirrors, target, patterns.iter())).await?);
            }
        }
        let contents = files
            .iter()
            .map(|(path, content)| (path.clone(), content.as_slice()));
        let kept = Arc::new(Kept::new(contents));
        let mut known = lock();
        if known.len() >= TASKS_MAX {
            known.clear();
        }
        known.insert(id, Arc::clone(&kept));
        Ok(kept)
    }
}

async fn read(
    state: &State,
    mirrors: &Mirrors,
    target: &Target,
    patterns: impl Iterator<Item = &String>,
) -> Result<Vec<(String, Vec<u8>)>, Refusal> {
    let mut globs = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        globs.add(
            glob.map_err(|error| Refusal::malformed("path pattern").received(&error.to_string()))?,
        );
    }
    let globs = globs
        .build()
        .map_err(|error| Refusal::malformed("path pattern").received(&error.to_string()))?;
    let mirror = mirrors.get(state, &target.repository).await?;
    let objects = mirror.objects();
    let empty = EMPTY_TREES
        .into_iter()
        .find(|oid| oid.len() == target.base.as_str().len())
        .unwrap_or_default();
    let empty: GitOid = empty.parse()?;
    let mut files = Vec::new();
    for entry in objects.raw_entries(&empty, &target.base).await? {
        // Names that aren't text can still be matched by what stands around them.
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        if !globs.is_match(&path) {
            continue;
        }
        if files.len() >= FILES_MAX {
            return Err(Refusal::limit(
                "kept-too-many",
                "the task keeps more files in than can be looked for",
            )
            .expected(&format!("at most {FILES_MAX} files"))
            .next("have a task signed whose `kept` patterns are narrower"));
        }
        // Links and submodules have no content of their own.
        if let Some(content) = objects
            .read_file(&target.base, &path, FILE_MAX_BYTES)
            .await?
        {
            files.push((path, content));
        }
    }
    Ok(files)
}
