//! Verifying a data directory from its bytes alone: every leaf, tile, root, signed checkpoint and
//! blob, and the fold itself.

use std::path::Path;
use std::sync::Arc;

use portcullis_evidence::merkle::{leaf_hash, root_at};
use portcullis_evidence::note::VerifierKey;
use portcullis_model::{Digest, Fold, LedgerIndex, Refusal};

use crate::blobs::Blobs;
use crate::checkpoint::SignedCheckpoint;
use crate::database;
use crate::disk::sqlite_refusal;
use crate::entry::Entry;
use crate::handle::LedgerHandle;
use crate::ledger::{apply, at_entry, check_place, where_reserve_begins, wrong_root};
use crate::limits::FINDINGS_MAX;
use crate::postgres::Postgres;
use crate::private::PrivateStore;
use crate::reserve::{self, Record};
use crate::snapshot::{Claim, Snapshots};
use crate::storage::{LogReader, Readers, StoreOptions};
use crate::tree::{StoredTree, Tile, Tree};

/// What to verify against.
pub struct VerifyOptions<'a, F: Fold> {
    /// The log's public key, its origin being its name.
    pub key: &'a VerifierKey,
    /// A checkpoint note that the verifier kept from earlier: the ledger must contain it.
    pub held: Option<&'a str>,
    /// The blobs that an event names, which must be there or be erased.
    pub blobs_named_by: Option<&'a BlobsNamedBy<'a, F>>,
}

/// The blobs that an event names.
pub type BlobsNamedBy<'a, F> = dyn Fn(&<F as Fold>::Event) -> Vec<Digest> + 'a;

/// Where an earlier verification had ended: everything before was found sound.
#[derive(Clone, Debug)]
pub struct Verified<F> {
    /// Number of entries.
    pub size: u64,
    /// The root over them.
    pub root: Digest,
    /// The state that they led to.
    pub state: F,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// Entries that hold: all of them, if there are no findings.
    pub size: u64,
    /// The root over those of them that are in the database.
    pub root: Digest,
    /// Entries among them that still are in the reserve.
    pub reserved: u64,
    /// Stored checkpoints whose signature and root hold.
    pub checkpoints: u64,
    /// The newest of them.
    pub newest: Option<SignedCheckpoint>,
    /// Blobs whose bytes were read.
    pub blobs: u64,
    /// What does not hold, at most [`FINDINGS_MAX`]. Entries first, in order; after the first bad
    /// one no later entry is looked at.
    pub findings: Vec<Finding>,
}

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The entry where it shows, if it is about one.
    pub index: Option<LedgerIndex>,
    /// What is wrong, with what was expected and found.
    pub reason: Refusal,
}

impl VerifyReport {
    /// Whether everything holds.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    /// The first bad entry and why.
    pub fn first_bad(&self) -> Option<(LedgerIndex, &Refusal)> {
        self.findings
            .iter()
            .find_map(|finding| finding.index.map(|index| (index, &finding.reason)))
    }
}

impl<F: Fold> LedgerHandle<F> {
    /// As [`verify`], of this open ledger.
    ///
    /// # Errors
    /// As [`verify`].
    pub fn verify(&self, options: &VerifyOptions<'_, F>) -> Result<VerifyReport, Refusal> {
        match &self.0.readers {
            Readers::Sqlite(_) => verify(self.dir(), options),
            Readers::Postgres(pool) => {
                let snapshots = Snapshots::at(self.dir()).claims::<F>(options.key);
                let beside = (reserve::read(self.dir())?, snapshots);
                pool.read(|reader| run(reader, beside, self.blobs(), options, None))
                    .map(|(report, _)| report)
            }
        }
    }
}

/// As [`verify`], wherever the ledger of `dir` is kept. With PostgreSQL `dir` is the data directory
/// of one of its servers, whose reserve counts if it continues the log.
///
/// # Errors
/// As [`verify`], or PostgreSQL can't be reached.
pub fn verify_store<F: Fold>(
    dir: &Path,
    store: &StoreOptions,
    options: &VerifyOptions<'_, F>,
) -> Result<VerifyReport, Refusal> {
    verify_from(dir, store, options, None).map(|(report, _)| report)
}

/// As [`verify_store`], from where an earlier one had ended: the entries before are not read again.
/// Gives also the state that all entries lead to.
///
/// # Errors
/// As [`verify_store`]. A ledger that does not contain what was verified is a finding.
pub fn verify_from<F: Fold>(
    dir: &Path,
    store: &StoreOptions,
    options: &VerifyOptions<'_, F>,
    from: Option<Verified<F>>,
) -> Result<(VerifyReport, F), Refusal> {
    match store {
        StoreOptions::Sqlite => verify_sqlite(dir, options, from),
        StoreOptions::Postgres(place) => {
            let snapshots = Snapshots::at(dir).claims::<F>(options.key);
            let postgres = Postgres::open_reader(place)?;
            let records = if postgres.continues(dir, &postgres.look()?) {
                reserve::read(dir)?
            } else {
                Vec::new()
            };
            let private = Arc::new(PrivateStore::in_postgres(Arc::clone(postgres.pool())));
            let blobs = Blobs::at(dir, private);
            postgres
                .pool()
                .read(|reader| run(reader, (records, snapshots), &blobs, options, from))
        }
    }
}

/// Verifies the ledger in `dir`, whether a server has it open or not; reads only. What a server
/// adds meanwhile is not looked at.
///
/// # Errors
/// The files can't be read, or the held checkpoint isn't of this log. Whatever is wrong with the
/// ledger is a finding, not an error.
pub fn verify<F: Fold>(
    dir: &Path,
    options: &VerifyOptions<'_, F>,
) -> Result<VerifyReport, Refusal> {
    verify_sqlite(dir, options, None).map(|(report, _)| report)
}

fn verify_sqlite<F: Fold>(
    dir: &Path,
    options: &VerifyOptions<'_, F>,
    from: Option<Verified<F>>,
) -> Result<(VerifyReport, F), Refusal> {
    // Before the database: a snapshot is of entries that are there already.
    let snapshots = Snapshots::at(dir).claims::<F>(options.key);
    // Before the database: entries move from here to there, never back.
    let records = reserve::read(dir)?;
    let private = Arc::new(PrivateStore::open_reader(dir)?);
    let blobs = Blobs::at(dir, private);
    let connection = database::open_reader(&database::path(dir))?;
    let moment = connection
        .unchecked_transaction()
        .map_err(|error| sqlite_refusal("read the ledger", &error))?;
    let beside = (records, snapshots);
    run(&*moment, beside, &blobs, options, from)
}

/// Verifies what `reader` reads, with the reserve's records behind it and the snapshots beside.
fn run<F: Fold>(
    reader: &dyn LogReader,
    (records, snapshots): (Vec<Record>, Vec<Claim>),
    blobs: &Blobs,
    options: &VerifyOptions<'_, F>,
    from: Option<Verified<F>>,
) -> Result<(VerifyReport, F), Refusal> {
    let held = options
        .held
        .map(|note| SignedCheckpoint::verify(note, options.key))
        .transpose()?;
    let mut verifier = Verifier::<F> {
        reader,
        options,
        held: held.as_ref(),
        blobs,
        snapshots,
        state: F::empty(),
        tree: Tree::default(),
        tile: None,
        signed_size: 0,
        checkpoints: 0,
        newest: None,
        findings: Vec::new(),
    };
    let stored = reader.size()?;
    let base = where_reserve_begins(reader, stored, &records)?;
    if let Some(from) = from {
        verifier.go_on(from, base)?;
    }
    if verifier.findings.is_empty() {
        verifier.database(base)?;
    }
    let mut reserved = 0;
    if verifier.findings.is_empty() {
        for record in records.into_iter().filter(|record| record.index >= base) {
            let entry = Entry::new(record.index, record.time, record.bytes);
            let index = entry.index;
            if let Err(refusal) = verifier.fold(&entry) {
                verifier.find(Some(index), refusal);
                break;
            }
            reserved += 1;
        }
    }
    let mut lost = Vec::new();
    let count = blobs.verify(|refusal| lost.push(refusal))?;
    for refusal in lost {
        verifier.find(None, refusal);
    }
    let report = VerifyReport {
        size: verifier.tree.size().saturating_add(reserved),
        root: verifier.tree.root(),
        reserved,
        checkpoints: verifier.checkpoints,
        newest: verifier.newest,
        blobs: count,
        findings: verifier.findings,
    };
    Ok((report, verifier.state))
}

struct Verifier<'a, F: Fold> {
    reader: &'a dyn LogReader,
    options: &'a VerifyOptions<'a, F>,
    held: Option<&'a SignedCheckpoint>,
    blobs: &'a Blobs,
    /// What the log's key signed as the state at some sizes.
    snapshots: Vec<Claim>,
    state: F,
    tree: Tree,
    /// The stored tile that the present entry's leaf stands in, if it is full.
    tile: Option<Tile>,
    /// Size of the last checkpoint that held.
    signed_size: u64,
    checkpoints: u64,
    newest: Option<SignedCheckpoint>,
    findings: Vec<Finding>,
}

impl<F: Fold> Verifier<'_, F> {
    /// Takes up where an earlier verification ended, if the ledger still contains that.
    fn go_on(&mut self, from: Verified<F>, size: u64) -> Result<(), Refusal> {
        if from.size > size {
            let refusal = Refusal::conflict(
                "ledger-truncated",
                format!("the ledger has {size} entries, and more were verified before"),
            )
            .expected(&format!("at least {} entries", from.size));
            self.find(Some(size), refusal);
            return Ok(());
        }
        let tree = Tree::load(self.reader, from.size)?;
        if tree.root() != from.root {
            let refusal = Refusal::conflict(
                "tree-altered",
                format!(
                    "the first {} entries are not those that were verified before",
                    from.size
                ),
            )
            .expected(&format!("root {}", from.root))
            .received(&format!("root {}", tree.root()));
            self.find(None, refusal);
            return Ok(());
        }
        if let Some(held) = self.held.filter(|held| held.size <= from.size)
            && root_at(&StoredTree(self.reader), held.size)? != held.root
        {
            let refusal = Refusal::conflict(
                "tree-altered",
                format!(
                    "the first {} entries are not those of the held checkpoint",
                    held.size
                ),
            );
            self.find(None, refusal);
        }
        // The tile that the next entry stands in begins before it.
        let (tile, place) = Tile::of_leaf(from.size);
        if place > 0 {
            self.tile = self.reader.tile(0, tile)?;
        }
        self.signed_size = from.size;
        self.newest = self.reader.checkpoint(from.size)?;
        self.tree = tree;
        self.state = from.state;
        Ok(())
    }

    /// Verifies the first `size` entries and all stored checkpoints.
    fn database(&mut self, size: u64) -> Result<(), Refusal> {
        let reader = self.reader;
        let mut bad = None;
        reader.each_entry(self.tree.size(), size, &mut |entry| {
            let index = self.tree.size();
            match self.entry(&entry) {
                Ok(()) => Ok(true),
                Err(refusal) => {
                    bad = Some((index, refusal));
                    Ok(false)
                }
            }
        })?;
        if bad.is_none() && self.tree.size() != size {
            let missing = Refusal::conflict("entry-missing", "entries are missing");
            bad = Some((self.tree.size(), missing));
        }
        if let Some((index, refusal)) = bad {
            self.find(Some(index), at_entry(index, refusal));
            return Ok(());
        }
        let newest = reader.last_checkpoint()?;
        let beyond = self.snapshots.iter().map(|claim| claim.size).max();
        if let Some(beyond) = beyond.filter(|beyond| *beyond > size) {
            let refusal = Refusal::conflict(
                "ledger-truncated",
                format!("the ledger has {size} entries, and a snapshot of more was signed"),
            )
            .expected(&format!("at least {beyond} entries"));
            self.find(Some(size), refusal);
        }
        for checkpoint in newest.iter().chain(self.held) {
            if checkpoint.size > size {
                let refusal = Refusal::conflict(
                    "ledger-truncated",
                    format!("the ledger has {size} entries, and a checkpoint over more was signed"),
                )
                .expected(&format!("at least {} entries", checkpoint.size));
                self.find(Some(size), refusal);
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Refusal> {
        check_place(entry, self.tree.size())?;
        self.check_tile(entry)?;
        for tile in self.tree.append(entry.leaf)? {
            let stored = self.reader.tile(tile.level, tile.index)?;
            if stored.as_ref() != Some(&tile) {
                return Err(Refusal::conflict(
                    "tile-altered",
                    format!(
                        "tile {} of level {} is not that of its entries",
                        tile.index, tile.level
                    ),
                ));
            }
        }
        self.check_signed()?;
        self.fold(entry)?;
        self.check_snapshots()
    }

    /// Compares the state with what a snapshot says that it is.
    fn check_snapshots(&mut self) -> Result<(), Refusal> {
        let size = self.tree.size();
        let root = self.tree.root();
        let here = |claim: &&Claim| claim.size == size;
        if !self.snapshots.iter().any(|claim| here(&claim)) {
            return Ok(());
        }
        let state = Digest::of(&self.state.to_snapshot()?);
        let differs = |claim: &&Claim| claim.root != root || claim.state != state;
        let false_ones = self.snapshots.iter().filter(here).filter(differs).count();
        if false_ones > 0 {
            let refusal = Refusal::conflict(
                "snapshot-altered",
                format!("the snapshot of {size} entries is not the state that they lead to"),
            )
            .next("remove it from the folder `snapshots`; look for who could use the log's key");
            self.find(None, refusal);
        }
        Ok(())
    }

    /// Compares the leaf with the stored full tile, which knows it by its place.
    fn check_tile(&mut self, entry: &Entry) -> Result<(), Refusal> {
        let (tile, place) = Tile::of_leaf(entry.index);
        if place == 0 {
            self.tile = self.reader.tile(0, tile)?;
        }
        let expected = self.tile.as_ref().and_then(|tile| tile.hash(place));
        match expected {
            Some(hash) if hash != entry.leaf => Err(Refusal::conflict(
                "entry-altered",
                "it is not the entry that its tile has",
            )
            .expected(&format!("leaf hash {hash}"))
            .received(&format!("leaf hash {}", leaf_hash(&entry.bytes)))),
            Some(_) | None => Ok(()),
        }
    }

    /// Compares the root with the stored and the held checkpoint of this size.
    fn check_signed(&mut self) -> Result<(), Refusal> {
        let size = self.tree.size();
        let stored = self.reader.checkpoint(size)?;
        let held = self.held.filter(|held| held.size == size);
        for checkpoint in stored.iter().chain(held) {
            checkpoint.check(self.options.key)?;
            if checkpoint.root != self.tree.root() {
                let mut refusal = wrong_root(checkpoint, &self.tree);
                refusal.message = format!(
                    "{}; one of the entries from {} to {} was changed",
                    refusal.message,
                    self.signed_size,
                    size.saturating_sub(1)
                );
                return Err(refusal);
            }
        }
        if stored.is_some() {
            self.checkpoints += 1;
            self.signed_size = size;
            self.newest = stored;
        }
        Ok(())
    }

    fn fold(&mut self, entry: &Entry) -> Result<(), Refusal> {
        apply(&mut self.state, entry)?;
        let Some(named_by) = self.options.blobs_named_by else {
            return Ok(());
        };
        for digest in named_by(&F::decode(entry.index, &entry.bytes)?) {
            match self.blobs.get(&digest) {
                Ok(_) => {}
                Err(refusal) if refusal.code == "blob-erased" => {}
                Err(refusal) => self.find(None, at_entry(entry.index, refusal)),
            }
        }
        Ok(())
    }

    fn find(&mut self, index: Option<LedgerIndex>, reason: Refusal) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { index, reason });
        }
    }
}
