//! What everyone but the sequencer sees of the ledger: where commands go in, and all reads.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use portcullis_evidence::merkle;
use portcullis_model::{Digest, Fold, LedgerIndex, Recorder, Refusal, Timestamp};
use tokio::sync::{oneshot, watch};

use crate::blobs::Blobs;
use crate::checkpoint::SignedCheckpoint;
use crate::entry::Entry;
use crate::limits::READ_MAX_ENTRIES;
use crate::private::PrivateStore;
use crate::queue::{Queue, QueueDepth, stopped};
use crate::receipt::Receipt;
use crate::sequencer::{Job, Reply};
use crate::storage::Readers;
use crate::tree::StoredTree;
use crate::writing::{Aside, Writing};

/// A handle on an open ledger; clones are the same ledger.
///
/// Reads other than [`state`](Self::state), [`size`](Self::size) and
/// [`checkpoint`](Self::checkpoint) go to the disk: call them from a blocking task.
pub struct LedgerHandle<F: Fold>(pub(crate) Arc<Shared<F>>);

/// What the sequencer and the handles share.
pub(crate) struct Shared<F: Fold> {
    pub(crate) dir: PathBuf,
    pub(crate) queue: Queue<Job<F>>,
    pub(crate) published: ArcSwap<Published<F>>,
    pub(crate) size: watch::Sender<u64>,
    /// Where the server that leads answers, at a standby.
    pub(crate) leader: ArcSwapOption<String>,
    /// When a standby last looked at the log, on the wall clock; 0 for the process that writes it.
    pub(crate) looked_ms: AtomicU64,
    pub(crate) readers: Readers,
    pub(crate) private: Arc<PrivateStore>,
    pub(crate) blobs: Blobs,
    /// Why nothing may be granted although the ledger can be written, if so.
    pub(crate) doubt: ArcSwapOption<Refusal>,
    /// What the sequencer tells of itself.
    pub(crate) aside: ArcSwap<Aside>,
}

/// One moment of the ledger.
pub(crate) struct Published<F: Fold> {
    pub(crate) state: Arc<F>,
    /// Entries in the database; what it may hold beyond is not of the ledger yet.
    pub(crate) stored: u64,
    /// Durable entries that follow them, in the reserve.
    pub(crate) reserved: Vec<Entry>,
    pub(crate) checkpoint: Arc<SignedCheckpoint>,
}

impl<F: Fold> Clone for LedgerHandle<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F: Fold> LedgerHandle<F> {
    /// Has the command decided against the newest state and recorded, and waits for that.
    ///
    /// # Errors
    /// The command does not hold; or [`ledger-busy`, `ledger-stopped`, `clock-jump`, `disk-full`,
    /// `disk-read-only`, `storage-failed`: `Unavailable`] it can't be recorded now, and nothing
    /// was granted.
    pub async fn submit(&self, command: F::Command) -> Result<Receipt<F>, Refusal> {
        let (sender, receiver) = oneshot::channel();
        self.send(
            command,
            Box::new(move |answer| {
                // Nobody waits any more: the entry stands all the same.
                let _gone = sender.send(answer);
            }),
        )?;
        receiver.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// As [`submit`](Self::submit), for threads that may block.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_blocking(&self, command: F::Command) -> Result<Receipt<F>, Refusal> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.send(
            command,
            Box::new(move |answer| {
                // Nobody waits any more: the entry stands all the same.
                let _gone = sender.send(answer);
            }),
        )?;
        receiver.recv().unwrap_or_else(|_| Err(stopped()))
    }

    fn send(&self, command: F::Command, reply: Reply<F>) -> Result<(), Refusal> {
        let urgent = F::reduces_authority(&command);
        self.0.queue.put(
            Job {
                command,
                urgent,
                reply,
            },
            urgent,
        )
    }

    /// The newest state; it knows its own index. No lock, no disk.
    pub fn state(&self) -> Arc<F> {
        Arc::clone(&self.0.published.load().state)
    }

    /// Number of entries that can be read.
    pub fn size(&self) -> u64 {
        *self.0.size.borrow()
    }

    /// The newest signed checkpoint. It covers all entries but those in the reserve.
    pub fn checkpoint(&self) -> Arc<SignedCheckpoint> {
        Arc::clone(&self.0.published.load().checkpoint)
    }

    /// When this was the newest state, if another process writes the log; `None` where this one
    /// does, whose state always is.
    pub fn as_of(&self) -> Option<Timestamp> {
        match self.0.looked_ms.load(Ordering::Acquire) {
            0 => None,
            looked => Some(Timestamp::from_ms(looked)),
        }
    }

    /// Why this ledger takes no commands, if it doesn't: `not-leader` at a standby.
    pub fn why_closed(&self) -> Option<Refusal> {
        self.0.queue.why()
    }

    /// At a standby: where the server that leads answers, if one does and says so.
    pub fn leader(&self) -> Option<String> {
        let leader = self.0.leader.load();
        leader
            .as_deref()
            .filter(|address| !address.is_empty())
            .cloned()
    }

    /// Waits until the ledger takes no more commands or is not followed any more, and gives the
    /// reason: `None` where it was closed, `not-leader` where another process leads by now.
    pub async fn ended(&self) -> Option<Refusal> {
        let mut size = self.subscribe();
        while !self.0.queue.is_ended() {
            if size.changed().await.is_err() {
                break;
            }
        }
        self.0.queue.why()
    }

    /// A receiver of [`size`](Self::size): changed whenever there are new entries to read.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.size.subscribe()
    }

    /// Follows the ledger from the entry at `from` on, nothing missed and nothing twice.
    pub fn tail(&self, from: LedgerIndex) -> Tail<F> {
        Tail {
            handle: self.clone(),
            size: self.subscribe(),
            next: from,
        }
    }

    /// Entries from `from` on, at most `limit` and never more than [`READ_MAX_ENTRIES`] or about
    /// [`crate::limits::READ_MAX_BYTES`]; none past the end.
    ///
    /// # Errors
    /// The database can't be read.
    pub fn entries(&self, from: LedgerIndex, limit: usize) -> Result<Vec<Entry>, Refusal> {
        let published = self.0.published.load_full();
        let limit = limit.min(READ_MAX_ENTRIES);
        if from < published.stored {
            return self
                .0
                .readers
                .with(|reader| reader.entries(from, published.stored, limit));
        }
        Ok(published
            .reserved
            .iter()
            .filter(|entry| entry.index >= from)
            .take(limit)
            .cloned()
            .collect())
    }

    /// The entry at `index`.
    ///
    /// # Errors
    /// There is none, or the database can't be read.
    pub fn entry(&self, index: LedgerIndex) -> Result<Entry, Refusal> {
        self.entries(index, 1)?
            .into_iter()
            .find(|entry| entry.index == index)
            .ok_or_else(|| Refusal::not_found("entry", index))
    }

    /// The event at `index`, in today's form.
    ///
    /// # Errors
    /// As [`entry`](Self::entry), or it can't be read as an event.
    pub fn event(&self, index: LedgerIndex) -> Result<F::Event, Refusal> {
        F::decode(index, &self.entry(index)?.bytes)
    }

    /// The root of the first `size` entries.
    ///
    /// # Errors
    /// The ledger's database has fewer, or can't be read.
    pub fn root(&self, size: u64) -> Result<Digest, Refusal> {
        self.with_tree(size, |tree| merkle::root_at(tree, size))
    }

    /// The proof that the entry at `index` is in the tree of the first `size` entries
    /// (RFC 6962 section 2.1.1).
    ///
    /// # Errors
    /// `index` is not below `size`, the ledger's database has fewer entries, or can't be read.
    pub fn inclusion_proof(&self, index: LedgerIndex, size: u64) -> Result<Vec<Digest>, Refusal> {
        self.with_tree(size, |tree| merkle::inclusion_proof(tree, index, size))
    }

    /// The proof that the tree of the first `old` entries is a prefix of that of `new`
    /// (RFC 6962 section 2.1.2).
    ///
    /// # Errors
    /// `old` is more than `new`, the ledger's database has fewer entries, or can't be read.
    pub fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Digest>, Refusal> {
        self.with_tree(new, |tree| merkle::consistency_proof(tree, old, new))
    }

    pub(crate) fn with_tree<T>(
        &self,
        size: u64,
        read: impl FnOnce(&StoredTree<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let stored = self.0.published.load().stored;
        if size > stored {
            return Err(Refusal::conflict(
                "ledger-shorter",
                format!("the ledger's tree has {stored} entries"),
            )
            .expected(&format!("a size up to {stored}"))
            .received(&size.to_string()));
        }
        // One moment for all hashes: an edge becomes a tile meanwhile.
        self.0
            .readers
            .at_one_moment(|reader| read(&StoredTree(reader)))
    }

    /// Bodies by digest.
    pub fn blobs(&self) -> &Blobs {
        &self.0.blobs
    }

    /// People's names, and local values: what is not in the ledger and can be erased.
    pub fn private(&self) -> &PrivateStore {
        &self.0.private
    }

    /// How many commands wait, and how many were refused because too many did.
    pub fn queue_depth(&self) -> QueueDepth {
        self.0.queue.depth()
    }

    /// How writing goes: what waits, where it is, and why.
    pub fn writing(&self) -> Writing {
        Writing::new(
            self.queue_depth(),
            &self.0.aside.load(),
            self.0.doubt.load_full(),
        )
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }
}

impl<F: Fold> Recorder for LedgerHandle<F> {
    type Command = F::Command;

    /// As [`LedgerHandle::submit`], of whose receipt it gives the first index. Commands that
    /// reduce authority come back from it even when they could not be made durable.
    async fn append(&self, command: F::Command) -> Result<LedgerIndex, Refusal> {
        Ok(self.submit(command).await?.first)
    }
}

/// A reader that follows the ledger.
pub struct Tail<F: Fold> {
    handle: LedgerHandle<F>,
    size: watch::Receiver<u64>,
    next: LedgerIndex,
}

impl<F: Fold> Tail<F> {
    /// The next entries, at least one: waits until there are some. Dropped while it waits, it has
    /// taken none.
    ///
    /// # Errors
    /// The ledger is closed and has no more (`ledger-stopped`), or it can't be read.
    pub async fn next(&mut self) -> Result<Vec<Entry>, Refusal> {
        loop {
            // Asked first: what was recorded before the end is then in the size.
            let ended = self.handle.0.queue.is_ended();
            if *self.size.borrow_and_update() > self.next {
                let handle = self.handle.clone();
                let from = self.next;
                let read =
                    tokio::task::spawn_blocking(move || handle.entries(from, READ_MAX_ENTRIES));
                let entries = read
                    .await
                    .map_err(|_| Refusal::internal("a read of the ledger was cut off"))??;
                if let Some(last) = entries.last() {
                    self.next = last.index.saturating_add(1);
                    return Ok(entries);
                }
            }
            if ended {
                return Err(stopped());
            }
            self.size.changed().await.map_err(|_| stopped())?;
        }
    }

    /// The index that the next entry has.
    pub const fn position(&self) -> LedgerIndex {
        self.next
    }
}
