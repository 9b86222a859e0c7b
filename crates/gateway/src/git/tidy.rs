//! Keeps a repository's stores from growing into thousands of small packs and loose objects.
//!
//! Each push and each look upstream leaves a pack or loose objects. From time to time they are put
//! into one pack, beside what is big already. **Nothing is ever dropped**: other stores borrow from
//! these by git's alternates, an unreachable commit may be what the ledger names, and a push that is
//! just being taken in builds on what it saw. So no lock is needed either: git writes the new pack
//! before it takes the old ones away, and a reader that misses a pack looks for its objects anew.
//!
//! What changes.git holds and the mirror holds too (everything that landed) stays in the mirror
//! alone.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use portcullis_model::Refusal;

use super::command::unwritable;
use super::repository::{Repository, SYNC_TIME};

/// Packs of a store beyond which they are put together: git looks into each for every object.
const PACKS_MAX: usize = 50;
/// Loose objects beyond which they are packed; git's own bound.
const LOOSE_MAX: usize = 6_700;
/// Packs of at least so many bytes stay as they are: they were packed well, and copying them each
/// time costs more than one pack more.
const BIG_PACK_BYTES: u64 = 64 * 1024 * 1024;
/// How long after stores were looked at they are looked at again.
const AGAIN: Duration = Duration::from_secs(10 * 60);
/// The same where git failed or took too long: what it leaves half written stays for a day, and must
/// not become many.
const AGAIN_AFTER_FAILURE: Duration = LEFT_BEHIND;
/// What git may take of memory: windows in which it looks for likenesses, and objects that are too
/// big to be put into one. A run's largest file would take ten times its size otherwise.
const MEMORY: [&str; 3] = [
    "pack.windowMemory=64m",
    "pack.deltaCacheSize=32m",
    "core.bigFileThreshold=8m",
];
/// What a killed git leaves half written is taken away after this time.
const LEFT_BEHIND: Duration = Duration::from_secs(24 * 60 * 60);

impl Repository {
    /// Puts packs and loose objects together where they are many, beside everything that goes on, if
    /// it is time to look again. Returns how many stores were; none while another call is at it.
    ///
    /// # Errors
    /// A store can't be read, or git fails or takes too long; then it stays as it was.
    pub async fn tidy(&self) -> Result<usize, Refusal> {
        let Ok(mut not_before) = self.inner.tidying.try_lock() else {
            return Ok(0);
        };
        if not_before.is_some_and(|then| Instant::now() < then) {
            return Ok(0);
        }
        let done = self.put_together(PACKS_MAX, LOOSE_MAX).await;
        let pause = if done.is_ok() {
            AGAIN
        } else {
            AGAIN_AFTER_FAILURE
        };
        *not_before = Instant::now().checked_add(pause);
        done
    }

    /// As [`Self::tidy`], at once, with bounds of the test's own.
    #[cfg(test)]
    pub(crate) async fn tidy_beyond(
        &self,
        packs_max: usize,
        loose_max: usize,
    ) -> Result<usize, Refusal> {
        match self.inner.tidying.try_lock() {
            Ok(_one) => self.put_together(packs_max, loose_max).await,
            Err(_) => Ok(0),
        }
    }

    async fn put_together(&self, packs_max: usize, loose_max: usize) -> Result<usize, Refusal> {
        let mut tidied = 0;
        // The mirror first, since the other leaves to it what both hold.
        for store in [self.mirror_dir(), self.changes_dir()] {
            let objects = store.join("objects");
            let held = tokio::task::spawn_blocking(move || Held::in_store(&objects))
                .await
                .map_err(|_| Refusal::internal("looking at a store was cut off"))?
                .map_err(|error| unwritable(&store, &error))?;
            if held.small_packs <= packs_max && held.loose <= loose_max {
                continue;
            }
            self.git()
                .on(&store, "repack")
                .args(["-c", "repack.writeBitmaps=false", "-c", "pack.threads=1"])
                .args(["-c", "repack.packKeptObjects=false"])
                .args(MEMORY.iter().flat_map(|setting| ["-c", setting]))
                .args(["repack", "-a", "-d", "-k", "-l", "-q"])
                .args(held.big.iter().map(|name| format!("--keep-pack={name}")))
                .time(SYNC_TIME)
                .output()
                .await?;
            tidied += 1;
        }
        Ok(tidied)
    }
}

/// What a store of objects holds.
#[derive(Debug, Default)]
struct Held {
    small_packs: usize,
    /// Names of the big packs.
    big: Vec<String>,
    loose: usize,
}

impl Held {
    /// Counts, and takes away what a killed git left half written.
    fn in_store(objects: &Path) -> std::io::Result<Self> {
        let mut held = Self::default();
        for entry in std::fs::read_dir(objects.join("pack"))? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                continue;
            };
            // Somebody may have taken it away meanwhile.
            let Ok(found) = entry.metadata() else {
                continue;
            };
            if name.starts_with("tmp_") || name.starts_with(".tmp-") {
                let old = found.modified().is_ok_and(|then| {
                    SystemTime::now()
                        .duration_since(then)
                        .is_ok_and(|age| age > LEFT_BEHIND)
                });
                if old {
                    let _ = std::fs::remove_file(entry.path());
                }
            } else if name.ends_with(".pack") {
                if found.len() >= BIG_PACK_BYTES {
                    held.big.push(name.to_owned());
                } else {
                    held.small_packs += 1;
                }
            }
        }
        for byte in 0..=u8::MAX {
            match std::fs::read_dir(objects.join(format!("{byte:02x}"))) {
                Ok(entries) => held.loose += entries.count(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(held)
    }
}
