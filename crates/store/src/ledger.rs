//! Opening and closing a ledger.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use arc_swap::{ArcSwap, ArcSwapOption};
use portcullis_evidence::note::VerifierKey;
use portcullis_model::{Fold, LedgerIndex, Refusal, Timestamp};
use tokio::sync::watch;

use crate::blobs::Blobs;
use crate::checkpoint::{CheckpointSigner, SignedCheckpoint};
use crate::clock::{Clock, ClockGuard, SystemClock};
use crate::disk::{create_private_directory, io_refusal};
use crate::entry::Entry;
use crate::faults::Faults;
use crate::follow;
use crate::handle::{LedgerHandle, Published, Shared};
use crate::helpers::Helpers;
use crate::limits::SNAPSHOT_EVERY_ENTRIES;
use crate::lock::DirectoryLock;
use crate::private::PrivateStore;
use crate::queue::Queue;
use crate::reserve::{self, Record, Reserve};
use crate::sequencer::Sequencer;
use crate::snapshot::{Claim, Keeper, Keeping, Loaded, Snapshots};
use crate::storage::{self, LogReader, Opened, Readers, StoreOptions};
use crate::tree::Tree;
use crate::writing::Aside;

/// An open ledger: the lock on its data directory, and the thread that writes it. Dropped, it
/// finishes what waits, and ends.
pub struct Ledger<F: Fold> {
    handle: LedgerHandle<F>,
    thread: Option<JoinHandle<()>>,
    /// Writes snapshots; ends after the sequencer. A follower has none.
    keeper: Option<Keeper>,
    /// Those that end by themselves once the first one has ended.
    helpers: Helpers,
    _lock: DirectoryLock,
}

/// What a ledger is opened with.
pub struct LedgerOptions {
    /// Signs the checkpoints.
    pub signer: Box<dyn CheckpointSigner>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Called at each step of a write; for tests.
    pub faults: Faults,
    /// Entries after which a new snapshot of the fold is written.
    pub snapshot_every: u64,
    /// Entries up to this time may stand in the future: they were made while the clock was ahead,
    /// and a person says that it is right now.
    pub clock_was_ahead_until: Option<Timestamp>,
    /// The database that keeps the log.
    pub store: StoreOptions,
}

impl LedgerOptions {
    /// The machine's clock, and no faults.
    pub fn new(signer: impl CheckpointSigner) -> Self {
        Self {
            signer: Box::new(signer),
            clock: Arc::new(SystemClock),
            faults: Faults::default(),
            snapshot_every: SNAPSHOT_EVERY_ENTRIES,
            clock_was_ahead_until: None,
            store: StoreOptions::Sqlite,
        }
    }
}

/// What was found while a ledger was opened.
#[derive(Clone, Debug)]
pub struct OpenReport {
    /// Number of entries, those from the reserve included.
    pub size: u64,
    /// The newest signed checkpoint, over all of them that are in the database.
    pub checkpoint: SignedCheckpoint,
    /// Entries that were durable and not yet signed: the process had died in between.
    pub unsigned: u64,
    /// Entries that were not folded, since a snapshot had them.
    pub from_snapshot: u64,
    /// Entries taken from the reserve.
    pub from_reserve: u64,
    /// How many of those still wait there, because the database can't be written.
    pub waiting: u64,
    /// What does not keep the ledger from opening and should be mended all the same.
    pub warnings: Vec<Refusal>,
}

impl<F: Fold> Ledger<F> {
    /// Opens the ledger in `dir`, making it if there is none: takes the lock, folds every entry
    /// and compares leaf hashes, root and last signed checkpoint on the way, replays the reserve,
    /// and starts the sequencer.
    ///
    /// # Errors
    /// Another process holds the directory (`data-directory-held`, with its pid); an entry of an
    /// unknown type, an altered entry or a tree that isn't the signed one (the message names the
    /// index); entries missing before those of the reserve (`reserve-gap`); files of another
    /// version; a disk that can't be read.
    pub fn open(dir: &Path, options: LedgerOptions) -> Result<(Self, OpenReport), Refusal> {
        create_private_directory(dir)
            .map_err(|error| io_refusal(&format!("make {}", dir.display()), &error))?;
        let lock = DirectoryLock::take(dir)?;
        let every = options.snapshot_every;
        let opened = storage::open(dir, &options.store, options.faults.clone())?;
        let lead = opened.lead.clone();
        let (mut sequencer, mut report, used) = prepare::<F>(dir, options, opened)?;
        if let Err(refusal) = sequencer.catch_up() {
            report.warnings.push(refusal);
        }
        if sequencer.checkpoint.size < sequencer.tree.size() || sequencer.tree.size() == 0 {
            sequencer.sign();
        }
        if sequencer.checkpoint.note.is_empty() {
            report.warnings.push(Refusal::unavailable(
                "checkpoint-unsigned",
                "no checkpoint could be signed",
            ));
        }
        sequencer.publish();
        report.waiting = sequencer.waiting.len() as u64;
        report.checkpoint = (*sequencer.checkpoint).clone();
        let handle = LedgerHandle(Arc::clone(&sequencer.shared));
        let keeper = Keeper::start(Keeping {
            snapshots: Snapshots::at(dir),
            shared: Arc::clone(&sequencer.shared),
            signer: Arc::clone(&sequencer.signer),
            faults: sequencer.faults.clone(),
            every,
            used,
        })
        .map_err(|error| io_refusal("start to write snapshots", &error))?;
        let helpers = match lead {
            Some(lead) => Helpers::start(&handle, lead)?,
            None => Helpers::default(),
        };
        let thread = std::thread::Builder::new()
            .name("ledger-sequencer".to_owned())
            .spawn(move || sequencer.run())
            .map_err(|error| io_refusal("start the sequencer", &error))?;
        let ledger = Self {
            handle,
            thread: Some(thread),
            keeper: Some(keeper),
            helpers,
            _lock: lock,
        };
        Ok((ledger, report))
    }

    /// Opens a ledger that another process writes, to read it and to follow it: a standby. Its
    /// handle refuses every command with `not-leader`. Once nobody leads any more, the handle has
    /// [`ended`](LedgerHandle::ended); close it then, and [`open`](Self::open) to take over.
    ///
    /// What an earlier process left in this directory's reserve is handed over to the leader.
    ///
    /// # Errors
    /// Another process holds the directory; the store is SQLite, which has no standbys; PostgreSQL
    /// can't be reached or holds no ledger; an entry does not hold.
    pub fn follow(dir: &Path, options: &LedgerOptions) -> Result<(Self, OpenReport), Refusal> {
        create_private_directory(dir)
            .map_err(|error| io_refusal(&format!("make {}", dir.display()), &error))?;
        let lock = DirectoryLock::take(dir)?;
        let mut follower = follow::prepare::<F>(dir, options)?;
        follower.follow()?;
        let handle = LedgerHandle(Arc::clone(&follower.shared));
        let report = OpenReport {
            size: handle.size(),
            checkpoint: (*handle.checkpoint()).clone(),
            unsigned: 0,
            from_reserve: 0,
            from_snapshot: 0,
            waiting: 0,
            warnings: Vec::new(),
        };
        let (stop, stopped) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("ledger-follower".to_owned())
            .spawn(move || follower.run(&stopped))
            .map_err(|error| io_refusal("start the follower", &error))?;
        let ledger = Self {
            handle,
            thread: Some(thread),
            keeper: None,
            helpers: Helpers {
                stop: Some(stop),
                ..Helpers::default()
            },
            _lock: lock,
        };
        Ok((ledger, report))
    }

    /// A handle for everyone who reads or writes.
    pub fn handle(&self) -> LedgerHandle<F> {
        self.handle.clone()
    }

    /// Takes no more commands, records those that wait, and gives the directory back.
    ///
    /// # Errors
    /// The sequencer had ended by itself, which is a defect.
    pub fn close(mut self) -> Result<(), Refusal> {
        self.stop()
    }

    fn stop(&mut self) -> Result<(), Refusal> {
        let shared = &self.handle.0;
        shared.queue.close();
        self.helpers.stop = None;
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        let ended = thread
            .join()
            .map_err(|_| Refusal::internal("the sequencer ended by a panic; see the log"));
        self.helpers.finish();
        if let Some(keeper) = &mut self.keeper {
            keeper.finish();
        }
        ended
    }
}

impl<F: Fold> Drop for Ledger<F> {
    fn drop(&mut self) {
        if let Err(refusal) = self.stop() {
            tracing::error!(%refusal, "the ledger did not end well");
        }
    }
}

/// Everything up to the first write.
fn prepare<F: Fold>(
    dir: &Path,
    options: LedgerOptions,
    opened: Opened,
) -> Result<(Sequencer<F>, OpenReport, Option<Claim>), Refusal> {
    let LedgerOptions {
        signer,
        clock,
        faults,
        snapshot_every: _,
        clock_was_ahead_until,
        store: _,
    } = options;
    let signer: Arc<dyn CheckpointSigner> = Arc::from(signer);
    let Opened {
        writer: mut database,
        readers,
        private,
        lead,
    } = opened;
    let mut warnings = Vec::new();
    let blobs = Blobs::open(dir, Arc::clone(&private))?;
    let (mut reserve, mut records) = match Reserve::open(dir, faults.clone()) {
        Ok((reserve, records)) => (Some(reserve), records),
        Err(refusal) => {
            warnings.push(refusal);
            (None, reserve::read(dir)?)
        }
    };

    if let Some(lead) = lead.filter(|lead| !lead.continues)
        && !records.is_empty()
    {
        lead.postgres().hand_over(&records)?;
        records.clear();
        if let Some(reserve) = &mut reserve {
            reserve
                .reset()
                .map_err(|error| io_refusal("empty the reserve", &error))?;
        }
    }
    let stored = database.reader().size()?;
    let base = where_reserve_begins(database.reader(), stored, &records)?;
    database.begin(base, stored, dir)?;
    let snapshots = Snapshots::at(dir);
    if let Err(error) = snapshots.prepare() {
        warnings.push(io_refusal("prepare the directory of snapshots", &error));
    }
    let reader = database.reader();
    let loaded = snapshots.load(reader, base, signer.verifier(), &mut warnings);
    let used = loaded.as_ref().map(|loaded| loaded.claim.clone());
    let mut folded = fold::<F>(reader, base, signer.verifier(), loaded)?;
    let waiting = folded.replay(records, base)?;
    let checkpoint = folded.checkpoint;

    let report = OpenReport {
        size: folded.state.next_index(),
        unsigned: base.saturating_sub(checkpoint.as_ref().map_or(0, |signed| signed.size)),
        checkpoint: unsigned_checkpoint(&folded.tree),
        from_snapshot: used.as_ref().map_or(0, |claim| claim.size),
        from_reserve: waiting.len() as u64,
        waiting: waiting.len() as u64,
        warnings,
    };
    let checkpoint = Arc::new(checkpoint.unwrap_or_else(|| unsigned_checkpoint(&Tree::default())));
    let shared = share(
        dir,
        &folded.state,
        base,
        &checkpoint,
        readers,
        private,
        blobs,
    );
    let sequencer = Sequencer {
        shared,
        database,
        reserve,
        signer,
        guard: ClockGuard::new(&*clock, clock_was_ahead_until),
        clock,
        faults,
        state: folded.state,
        tree: folded.tree,
        newest: folded.newest,
        reserved: waiting.len(),
        waiting,
        checkpoint,
        checkpoint_stored: true,
        reserve_tried: None,
        failed: None,
        nodes: None,
    };
    Ok((sequencer, report, used))
}

/// What handles see.
pub(crate) fn share<F: Fold>(
    dir: &Path,
    state: &F,
    stored: u64,
    checkpoint: &Arc<SignedCheckpoint>,
    readers: Readers,
    private: Arc<PrivateStore>,
    blobs: Blobs,
) -> Arc<Shared<F>> {
    Arc::new(Shared {
        dir: PathBuf::from(dir),
        queue: Queue::new(),
        published: ArcSwap::from_pointee(Published {
            state: Arc::new(state.clone()),
            stored,
            reserved: Vec::new(),
            checkpoint: Arc::clone(checkpoint),
        }),
        size: watch::Sender::new(stored),
        leader: ArcSwapOption::empty(),
        looked_ms: AtomicU64::new(0),
        readers,
        private,
        blobs,
        doubt: ArcSwapOption::empty(),
        aside: ArcSwap::from_pointee(Aside::default()),
    })
}

/// How many of the database's entries count: all, unless the reserve has another entry for one of
/// their indexes.
///
/// The reserve is written only after the database said that its commit failed. So an entry in
/// both places with different bytes was persisted by a commit that failed: nobody was told of it,
/// nothing was signed over it, and what the reserve has is what was acknowledged.
pub(crate) fn where_reserve_begins(
    reader: &dyn LogReader,
    stored: u64,
    records: &[Record],
) -> Result<u64, Refusal> {
    for record in records.iter().filter(|record| record.index < stored) {
        let next = record.index.saturating_add(1);
        let entries = reader.entries(record.index, next, 1)?;
        if entries.first().map(|entry| &entry.bytes) != Some(&record.bytes) {
            return Ok(record.index);
        }
    }
    Ok(stored)
}

/// The state and tree after the entries that were read so far.
pub(crate) struct Folded<F: Fold> {
    pub(crate) state: F,
    pub(crate) tree: Tree,
    newest: Timestamp,
    /// The newest one that is stored.
    pub(crate) checkpoint: Option<SignedCheckpoint>,
}

/// Folds the first `size` entries of the database, those behind a snapshot if there is one.
fn fold<F: Fold>(
    reader: &dyn LogReader,
    size: u64,
    key: &VerifierKey,
    loaded: Option<Loaded<F>>,
) -> Result<Folded<F>, Refusal> {
    let checkpoint = reader.last_checkpoint()?;
    if let Some(checkpoint) = &checkpoint {
        checkpoint.check(key)?;
        if checkpoint.size > size {
            return Err(Refusal::conflict(
                "ledger-truncated",
                format!("the ledger has {size} entries, and a checkpoint over more was signed"),
            )
            .expected(&format!("at least {} entries", checkpoint.size))
            .next("restore the data directory from a backup; entries were lost"));
        }
    }
    let mut folded = Folded {
        state: F::empty(),
        tree: Tree::default(),
        newest: Timestamp::from_ms(0),
        checkpoint,
    };
    if let Some(loaded) = loaded {
        let last = loaded.claim.size.saturating_sub(1);
        for entry in reader.entries(last, loaded.claim.size, 1)? {
            check_place(&entry, last)?;
            folded.newest = entry.time;
        }
        folded.state = loaded.state;
        folded.tree = loaded.tree;
    }
    let first = folded.tree.size();
    reader.each_entry(first, size, &mut |entry| {
        let index = entry.index;
        folded
            .take(entry)
            .map_err(|refusal| at_entry(index, refusal))?;
        Ok(true)
    })?;
    if folded.tree.size() != size {
        return Err(at_entry(
            folded.tree.size(),
            Refusal::conflict("entry-missing", "it is missing"),
        ));
    }
    Ok(folded)
}

impl<F: Fold> Folded<F> {
    /// Before the first entry.
    pub(crate) fn nothing() -> Self {
        Self {
            state: F::empty(),
            tree: Tree::default(),
            newest: Timestamp::from_ms(0),
            checkpoint: None,
        }
    }

    pub(crate) fn take(&mut self, entry: Entry) -> Result<(), Refusal> {
        check_place(&entry, self.tree.size())?;
        self.tree.append(entry.leaf)?;
        if let Some(checkpoint) = &self.checkpoint
            && checkpoint.size == self.tree.size()
            && checkpoint.root != self.tree.root()
        {
            return Err(wrong_root(checkpoint, &self.tree));
        }
        apply(&mut self.state, &entry)?;
        self.newest = self.newest.max(entry.time);
        Ok(())
    }

    /// Takes in what the reserve has beyond `base`, and gives it back as the entries that the
    /// database must still take.
    fn replay(&mut self, records: Vec<Record>, base: u64) -> Result<Vec<Entry>, Refusal> {
        let mut waiting = Vec::new();
        for record in records.into_iter().filter(|record| record.index >= base) {
            let expected = base.saturating_add(waiting.len() as u64);
            if record.index != expected {
                return Err(Refusal::conflict(
                    "reserve-gap",
                    "entries are missing between the database and the reserve",
                )
                .expected(&format!("entry {expected}"))
                .received(&format!("entry {}", record.index))
                .next("restore the data directory from a backup; entries were lost"));
            }
            let entry = Entry::new(record.index, record.time, record.bytes);
            apply(&mut self.state, &entry).map_err(|refusal| at_entry(entry.index, refusal))?;
            self.newest = self.newest.max(entry.time);
            waiting.push(entry);
        }
        Ok(waiting)
    }
}

/// Checks that an entry is the next one and has the hash of its bytes.
pub(crate) fn check_place(entry: &Entry, expected: LedgerIndex) -> Result<(), Refusal> {
    if entry.index != expected {
        return Err(Refusal::conflict("entry-missing", "entries are missing")
            .expected(&format!("entry {expected}"))
            .received(&format!("entry {}", entry.index)));
    }
    let leaf = portcullis_evidence::merkle::leaf_hash(&entry.bytes);
    if leaf != entry.leaf {
        return Err(Refusal::conflict("entry-altered", "its bytes were changed")
            .expected(&format!("leaf hash {}", entry.leaf))
            .received(&format!("leaf hash {leaf}")));
    }
    Ok(())
}

/// Folds one entry in.
pub(crate) fn apply<F: Fold>(state: &mut F, entry: &Entry) -> Result<(), Refusal> {
    if state.next_index() != entry.index {
        return Err(Refusal::internal("the state expects another index"));
    }
    state.apply(&F::decode(entry.index, &entry.bytes)?)
}

pub(crate) fn wrong_root(checkpoint: &SignedCheckpoint, tree: &Tree) -> Refusal {
    Refusal::conflict(
        "tree-altered",
        format!(
            "the first {} entries are not those that were signed",
            checkpoint.size
        ),
    )
    .expected(&format!("root {}", checkpoint.root))
    .received(&format!("root {}", tree.root()))
    .next("find the entry with `portcullis ledger verify`, and restore from a backup")
}

/// Says at which entry something was found.
pub(crate) fn at_entry(index: LedgerIndex, mut refusal: Refusal) -> Refusal {
    refusal.message = format!("entry {index}: {}", refusal.message);
    refusal
}

/// Stands for "nothing is signed yet" until the sequencer has signed.
pub(crate) fn unsigned_checkpoint(tree: &Tree) -> SignedCheckpoint {
    SignedCheckpoint {
        size: tree.size(),
        root: tree.root(),
        note: String::new(),
    }
}
