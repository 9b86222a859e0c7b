//! What a mirror takes of the disk, while it is filled and after it failed.

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use portcullis_model::Refusal;

/// How often a fetch under way is measured.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long a fetch that was cut off for its size is not tried again: all of it would come over
/// anew.
const AGAIN_AFTER: Duration = Duration::from_secs(60 * 60);

/// That a mirror outgrew its bound, and since when: forgotten after an hour, and by a restart.
#[derive(Debug, Default)]
pub struct Remembered(Mutex<Option<(Instant, Refusal)>>);

impl Remembered {
    /// What is said instead of another try, while it is too early for one.
    pub fn told(&self) -> Option<Refusal> {
        self.told_at(Instant::now())
    }

    pub(crate) fn told_at(&self, now: Instant) -> Option<Refusal> {
        let known = self.0.lock().ok()?;
        let (since, refusal) = known.as_ref()?;
        let early = now.saturating_duration_since(*since) < AGAIN_AFTER;
        early.then(|| refusal.clone())
    }

    /// Notes why a try failed, if it is for its size.
    pub fn note(&self, refusal: &Refusal) {
        if refusal.code == "mirror-too-large"
            && let Ok(mut known) = self.0.lock()
        {
            *known = Some((Instant::now(), refusal.clone()));
        }
    }
}

/// Ends when the packs of a mirror are more than `bound` bytes; goes on for ever while they are not.
pub(crate) async fn outgrown(packs: &Path, bound: u64) -> Refusal {
    loop {
        if let Some(refusal) = too_large(packs, bound).await {
            return refusal;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Why a mirror's packs are too large, if they are.
pub(crate) async fn too_large(packs: &Path, bound: u64) -> Option<Refusal> {
    let folder = packs.to_owned();
    let held = tokio::task::spawn_blocking(move || bytes_in(&folder))
        .await
        .unwrap_or_default();
    (held > bound).then(|| {
        Refusal::limit(
            "mirror-too-large",
            "the upstream holds more than its mirror may take of the disk",
        )
        .expected(&format!("at most {bound} bytes of packs"))
        .received(&format!("{held} bytes so far"))
        .next("raise `mirror_max_mib` in portcullis.toml and start the server again, or govern a smaller repository")
    })
}

/// Bytes of the files in a folder; what can't be read counts as nothing.
fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .fold(0, |sum, found| sum.saturating_add(found.len()))
}

/// Removes packs that a fetch began and did not end, and the marks by which it holds new ones.
pub(crate) fn remove_half_written(packs: &Path) {
    for entry in std::fs::read_dir(packs).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("tmp_") || name.ends_with(".keep") {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
