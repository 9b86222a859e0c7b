//! Snapshots of the fold: what lets a start read the tail of the log instead of all of it.
//!
//! A snapshot is a cache. It is a file in `snapshots/`, named by the size of the tree that it is
//! of, with a note in front of the state's bytes. The log's key signs in that note the log's
//! origin, the form of the state (program and fold), size, root and the digest of the bytes. The
//! note's first line has spaces and its second is no number, so it never passes for a checkpoint.
//!
//! Writing one, off the sequencer's way:
//! 1. *The published state is taken*, a clone that shares its maps; its entries are durable and
//!    signed. A restart finds nothing.
//! 2. *It is written to a file without the final name and synced.* A restart finds a stray file
//!    and removes it.
//! 3. *The file gets its name and the directory is synced.* A restart finds the old ones, or the
//!    new one whole.
//! 4. *Older ones but one are removed.*
//!
//! Reading one, it must be signed by the log's key, in the very form of this program, of a tree
//! that the database still has: its root is computed anew from the stored tiles and compared, and
//! after the tail was folded the last signed checkpoint is compared as ever. Whatever does not hold
//! is ignored with a warning, and the next older one or the whole log is read.
//!
//! Who can write to the disk but has no key can forge none. Who has the log's key too could; so
//! each start that used one folds the whole log anew beside its work ([`Keeper`]), and grants stop
//! if that leads to another state. Until it has come that far, such a state is believed.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portcullis_evidence::merkle::root_at;
use portcullis_evidence::note::{UnverifiedNote, VerifierKey};
use portcullis_model::{Digest, Fold, LedgerIndex, Refusal};

use crate::checkpoint::CheckpointSigner;
use crate::disk::{create_private_directory, io_refusal, private_file, sync_directory};
use crate::faults::{Faults, Step};
use crate::handle::Shared;
use crate::ledger::apply;
use crate::limits::{
    READ_MAX_ENTRIES, SNAPSHOT_CLOSE_SHARE, SNAPSHOT_LOOK_MS, SNAPSHOT_REST, SNAPSHOTS_KEPT,
};
use crate::storage::LogReader;
use crate::tree::{StoredTree, Tree};

/// First bytes of a file; the length of the note follows, four bytes, big-endian.
const MAGIC: &[u8; 8] = b"PSNAP01\n";
const TITLE: &str = "portcullis snapshot v1";

/// The snapshots of a data directory.
#[derive(Clone, Debug)]
pub(crate) struct Snapshots {
    folder: PathBuf,
}

/// What a snapshot's note says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) size: u64,
    pub(crate) root: Digest,
    /// Digest of the state's bytes.
    pub(crate) state: Digest,
}

/// A state that was read from a snapshot, and the tree at its size.
pub(crate) struct Loaded<F: Fold> {
    pub(crate) claim: Claim,
    pub(crate) state: F,
    pub(crate) tree: Tree,
}

impl Claim {
    fn text(&self, origin: &str, form: &str) -> String {
        format!(
            "{TITLE}\n{origin}\n{form}\n{}\n{}\n{}\n",
            self.size, self.root, self.state
        )
    }
}

impl Snapshots {
    pub(crate) fn at(dir: &Path) -> Self {
        Self {
            folder: dir.join("snapshots"),
        }
    }

    /// Makes the folder and removes what an unfinished write left behind.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        if !self.folder.is_dir() {
            create_private_directory(&self.folder)?;
            sync_directory(self.folder.parent().unwrap_or(&self.folder))?;
        }
        match fs::remove_file(self.stray()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The newest snapshot that holds for the first `size` entries of what `reader` has. What does
    /// not hold is told in `warnings`.
    pub(crate) fn load<F: Fold>(
        &self,
        reader: &dyn LogReader,
        size: u64,
        key: &VerifierKey,
        warnings: &mut Vec<Refusal>,
    ) -> Option<Loaded<F>> {
        let form = F::snapshot_form()?;
        for (named, path) in self.newest_first() {
            let loaded = read(&path, key, form).and_then(|(claim, bytes)| {
                if claim.size != named {
                    return Err(ignored("it is named for another size")
                        .expected(&claim.size.to_string())
                        .received(&named.to_string()));
                }
                load_state::<F>(reader, size, claim, &bytes)
            });
            match loaded {
                Ok(loaded) => return Some(loaded),
                Err(mut refusal) => {
                    refusal.message = format!("{}: {}", path.display(), refusal.message);
                    warnings.push(refusal);
                }
            }
        }
        None
    }

    /// The claims of those snapshots whose notes hold, for a verifier.
    pub(crate) fn claims<F: Fold>(&self, key: &VerifierKey) -> Vec<Claim> {
        let Some(form) = F::snapshot_form() else {
            return Vec::new();
        };
        self.newest_first()
            .into_iter()
            .filter_map(|(_, path)| read(&path, key, form).ok())
            .map(|(claim, _)| claim)
            .collect()
    }

    fn write<F: Fold>(
        &self,
        state: &F,
        root: Digest,
        signer: &dyn CheckpointSigner,
        faults: &Faults,
    ) -> Result<(), Refusal> {
        let form = F::snapshot_form().ok_or_else(|| Refusal::internal("no snapshots"))?;
        let bytes = state.to_snapshot()?;
        let claim = Claim {
            size: state.next_index(),
            root,
            state: Digest::of(&bytes),
        };
        let note = signer.sign_snapshot(&claim.text(signer.verifier().name().as_str(), form))?;
        let length = u32::try_from(note.len()).map_err(|_| Refusal::internal("a note too long"))?;
        let place = || -> io::Result<()> {
            faults.at(Step::SnapshotWriting)?;
            let mut file = private_file()
                .create(true)
                .truncate(true)
                .open(self.stray())?;
            file.write_all(MAGIC)?;
            file.write_all(&length.to_be_bytes())?;
            file.write_all(note.as_bytes())?;
            file.write_all(&bytes)?;
            faults.at(Step::SnapshotWritten)?;
            file.sync_all()?;
            fs::rename(self.stray(), self.path(claim.size))?;
            sync_directory(&self.folder)?;
            faults.at(Step::SnapshotNamed)?;
            for (_, old) in self.newest_first().into_iter().skip(SNAPSHOTS_KEPT) {
                fs::remove_file(old)?;
            }
            Ok(())
        };
        place().map_err(|error| io_refusal("write a snapshot", &error))
    }

    /// Puts away what proved false, so that the next start does not read it.
    fn put_away(&self, size: u64) -> io::Result<()> {
        let path = self.path(size);
        fs::rename(&path, path.with_extension("refused"))?;
        sync_directory(&self.folder)
    }

    fn path(&self, size: u64) -> PathBuf {
        self.folder.join(format!("{size:020}.snapshot"))
    }

    fn stray(&self) -> PathBuf {
        self.folder.join("unfinished")
    }

    fn newest_first(&self) -> Vec<(u64, PathBuf)> {
        let names = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut found: Vec<(u64, PathBuf)> = names
            .filter_map(|entry| {
                let name = entry.file_name();
                let size = name.to_str()?.strip_suffix(".snapshot")?.parse().ok()?;
                Some((size, entry.path()))
            })
            .collect();
        found.sort_by(|left, right| right.cmp(left));
        found
    }
}

fn ignored(why: &str) -> Refusal {
    Refusal::conflict("snapshot-ignored", format!("a snapshot is not used: {why}"))
        .next("nothing: the log is folded anew, and a new snapshot written")
}

/// The claim and the state's bytes of a file, if its note and its digest hold.
fn read(path: &Path, key: &VerifierKey, form: &str) -> Result<(Claim, Vec<u8>), Refusal> {
    let bytes =
        fs::read(path).map_err(|error| ignored("it can't be read").received(&error.to_string()))?;
    let (note, state) = split(&bytes).ok_or_else(|| ignored("it is damaged"))?;
    let verified = UnverifiedNote::parse(note)
        .and_then(|note| note.verify(&[key]))
        .map_err(|refusal| {
            ignored("this log's key did not sign it").received(&refusal.to_string())
        })?;
    let claim = read_claim(verified.text(), key.name().as_str(), form)?;
    if Digest::of(state) != claim.state {
        return Err(ignored("its state is damaged"));
    }
    Ok((claim, state.to_vec()))
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

fn read_claim(text: &str, origin: &str, form: &str) -> Result<Claim, Refusal> {
    let malformed = || ignored("its note is malformed");
    let mut lines = text.lines();
    let mut line = || lines.next().ok_or_else(malformed);
    if line()? != TITLE {
        return Err(malformed());
    }
    let (found_origin, found_form) = (line()?, line()?);
    if found_form != form {
        return Err(ignored("another version of the program wrote it")
            .expected(form)
            .received(found_form));
    }
    let claim = Claim {
        size: line()?.parse().map_err(|_| malformed())?,
        root: line()?.parse()?,
        state: line()?.parse()?,
    };
    // One spelling, and nothing behind it.
    if found_origin != origin || claim.text(origin, form) != text {
        return Err(malformed());
    }
    Ok(claim)
}

fn load_state<F: Fold>(
    reader: &dyn LogReader,
    size: u64,
    claim: Claim,
    bytes: &[u8],
) -> Result<Loaded<F>, Refusal> {
    if claim.size > size {
        return Err(ignored("it is newer than the log")
            .expected(&format!("a size up to {size}"))
            .received(&claim.size.to_string()));
    }
    let tree = Tree::load(reader, claim.size)
        .map_err(|refusal| ignored("its tree is not stored").received(&refusal.to_string()))?;
    if tree.root() != claim.root {
        return Err(ignored("it is of another log")
            .expected(&format!("root {}", tree.root()))
            .received(&format!("root {}", claim.root)));
    }
    // A checkpoint below it is not met again while the tail is folded.
    if let Some(signed) = reader
        .last_checkpoint()?
        .filter(|signed| signed.size <= claim.size)
        && root_at(&StoredTree(reader), signed.size)? != signed.root
    {
        return Err(ignored("the stored tree is not the one that was signed"));
    }
    let state = F::from_snapshot(bytes)
        .map_err(|refusal| ignored("its state can't be read").received(&refusal.to_string()))?;
    if state.next_index() != claim.size {
        return Err(ignored("its state is of another size")
            .expected(&claim.size.to_string())
            .received(&state.next_index().to_string()));
    }
    Ok(Loaded { claim, state, tree })
}

/// The thread that folds the log anew after a start from a snapshot, and writes new snapshots.
pub(crate) struct Keeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the keeper works with.
pub(crate) struct Keeping<F: Fold> {
    pub(crate) snapshots: Snapshots,
    pub(crate) shared: Arc<Shared<F>>,
    pub(crate) signer: Arc<dyn CheckpointSigner>,
    pub(crate) faults: Faults,
    /// Entries after which a new snapshot is due.
    pub(crate) every: u64,
    /// The snapshot that the start used.
    pub(crate) used: Option<Claim>,
}

impl Keeper {
    pub(crate) fn start<F: Fold>(keeping: Keeping<F>) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("ledger-snapshots".to_owned())
            .spawn(move || keep(keeping, &stopped))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Writes what is due and ends. The sequencer must have ended.
    pub(crate) fn finish(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes snapshots ended by a panic");
        }
    }
}

fn keep<F: Fold>(keeping: Keeping<F>, stopped: &Receiver<()>) {
    let mut written = keeping.used.as_ref().map_or(0, |claim| claim.size);
    let mut recheck = keeping.used.clone().map(Recheck::<F>::new);
    let mut rest = Duration::ZERO;
    let mut rested = Instant::now();
    loop {
        let mut pause = Duration::from_millis(SNAPSHOT_LOOK_MS);
        if let Some(going) = &mut recheck {
            let begun = Instant::now();
            if going.step(&keeping) {
                recheck = None;
            }
            // Half of one core at most: the rest is for those who wait.
            pause = begun.elapsed();
        }
        let ended = !matches!(stopped.recv_timeout(pause), Err(RecvTimeoutError::Timeout));
        let share = if ended { SNAPSHOT_CLOSE_SHARE } else { 1 };
        let due = keeping.every.div_ceil(share);
        if ended || rested.elapsed() >= rest {
            let begun = Instant::now();
            if let Some(size) = keeping.write(written, due) {
                written = size;
                rest = begun.elapsed().saturating_mul(SNAPSHOT_REST);
                rested = Instant::now();
            }
        }
        if ended {
            return;
        }
    }
}

impl<F: Fold> Keeping<F> {
    /// Writes a snapshot of the published state, if it has `due` entries more than `written`.
    fn write(&self, written: u64, due: u64) -> Option<u64> {
        let published = self.shared.published.load_full();
        let size = published.state.next_index();
        let signed = published.checkpoint.size == size && published.stored == size;
        let doubtful = self.shared.doubt.load().is_some();
        if !signed || doubtful || size < written.saturating_add(due.max(1)) {
            return None;
        }
        let root = published.checkpoint.root;
        match self
            .snapshots
            .write(&*published.state, root, &*self.signer, &self.faults)
        {
            Ok(()) => tracing::debug!(ledger.size = size, "a snapshot is written"),
            Err(refusal) => {
                tracing::warn!(%refusal, "no snapshot is written; a start takes longer")
            }
        }
        // Not tried again at once: what keeps it from being written will be there for a while.
        Some(size)
    }
}

/// Folds the log from its first entry, piece by piece, up to the size of a snapshot.
struct Recheck<F: Fold> {
    claim: Claim,
    state: F,
}

impl<F: Fold> Recheck<F> {
    fn new(claim: Claim) -> Self {
        Self {
            claim,
            state: F::empty(),
        }
    }

    /// Folds the next piece; gives whether that was the last.
    fn step(&mut self, keeping: &Keeping<F>) -> bool {
        let finding = match self.fold(keeping) {
            Ok(()) if self.state.next_index() < self.claim.size => return false,
            Ok(()) => match self.state.to_snapshot() {
                Ok(bytes) if Digest::of(&bytes) == self.claim.state => {
                    tracing::info!(
                        ledger.size = self.claim.size,
                        "the snapshot that was started from holds"
                    );
                    return true;
                }
                Ok(_) => Refusal::conflict(
                    "snapshot-forged",
                    format!(
                        "the server started from a snapshot that the log's key signed, and the {} entries before it lead to another state",
                        self.claim.size
                    ),
                ),
                Err(refusal) => refusal,
            },
            Err(refusal) if refusal.code == "storage-failed" => {
                tracing::warn!(%refusal, "the snapshot that was started from can't be checked");
                return true;
            }
            Err(refusal) => refusal,
        };
        let finding = finding.next(
            "stop the server, look for who could use the log's key, verify with `portcullis ledger verify`, and start again: the log is folded anew",
        );
        tracing::error!(refusal = %finding, "nothing is granted any more");
        keeping.shared.doubt.store(Some(Arc::new(finding)));
        if let Err(error) = keeping.snapshots.put_away(self.claim.size) {
            tracing::error!(%error, "the false snapshot could not be put away; remove it");
        }
        true
    }

    fn fold(&mut self, keeping: &Keeping<F>) -> Result<(), Refusal> {
        let from: LedgerIndex = self.state.next_index();
        let below = self.claim.size;
        let entries = keeping
            .shared
            .readers
            .with(|reader| reader.entries(from, below, READ_MAX_ENTRIES))?;
        if entries.is_empty() && from < below {
            return Err(Refusal::conflict(
                "entry-missing",
                format!("entry {from}: it is missing"),
            ));
        }
        for entry in &entries {
            crate::ledger::check_place(entry, self.state.next_index())?;
            apply(&mut self.state, entry)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
