//! A process that reads what another one writes: the state of a standby.
//!
//! It folds what is covered by a stored checkpoint, and nothing beyond: entries that no checkpoint
//! covers yet may belong to a commit that failed and is taken back. The root is compared at every
//! checkpoint that is followed, so a standby notices a log that is not the one that was signed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use portcullis_evidence::note::VerifierKey;
use portcullis_model::{Fold, Refusal, RefusalKind};

use crate::blobs::Blobs;
use crate::clock::{Clock, SystemClock};
use crate::disk::io_refusal;
use crate::faults::Faults;
use crate::handle::{Published, Shared};
use crate::ledger::{Folded, LedgerOptions, at_entry, share, unsigned_checkpoint, wrong_root};
use crate::limits::LEAD_LOOK_MS;
use crate::postgres::{Lead, Postgres, Watch, not_leader};
use crate::private::PrivateStore;
use crate::reserve::{self, Reserve};
use crate::storage::{Readers, StoreOptions};

/// Follows until it is stopped or may take the lead.
pub(crate) struct Follower<F: Fold> {
    pub(crate) shared: Arc<Shared<F>>,
    pub(crate) postgres: Postgres,
    pub(crate) folded: Folded<F>,
    pub(crate) key: VerifierKey,
    pub(crate) watch: Watch,
    pub(crate) leader: Option<String>,
    /// Why the log is not followed any more: it is not the one that was signed.
    pub(crate) broken: Option<Refusal>,
}

/// A follower that has folded nothing yet.
pub(crate) fn prepare<F: Fold>(
    dir: &Path,
    options: &LedgerOptions,
) -> Result<Follower<F>, Refusal> {
    let StoreOptions::Postgres(postgres) = &options.store else {
        return Err(Refusal::conflict(
            "no-standby",
            "SQLite serves one server; there is nothing to follow",
        )
        .next("keep the ledger in PostgreSQL: `portcullis init --store postgres://…`"));
    };
    let postgres = Postgres::open(dir, postgres, false)?;
    let records = reserve::read(dir)?;
    let lead = postgres.look()?;
    if !records.is_empty() && !postgres.continues(dir, &lead) {
        postgres.hand_over(&records)?;
        let (mut reserve, _) = Reserve::open(dir, Faults::default())?;
        reserve
            .reset()
            .map_err(|error| io_refusal("empty the reserve", &error))?;
    }
    let private = Arc::new(PrivateStore::in_postgres(Arc::clone(postgres.pool())));
    let blobs = Blobs::open(dir, Arc::clone(&private))?;
    let folded = Folded::<F>::nothing();
    let readers = Readers::Postgres(Arc::clone(postgres.pool()));
    let checkpoint = Arc::new(unsigned_checkpoint(&folded.tree));
    let shared = share(dir, &folded.state, 0, &checkpoint, readers, private, blobs);
    shared
        .looked_ms
        .store(SystemClock.wall().as_ms(), Ordering::Release);
    shared.leader.store(Some(Arc::new(lead.address.clone())));
    shared
        .queue
        .close_because(not_leader(Some(lead.address.as_str())));
    Ok(Follower {
        shared,
        postgres,
        folded,
        key: options.signer.verifier().clone(),
        watch: Watch::new(),
        leader: None,
        broken: None,
    })
}

impl<F: Fold> Follower<F> {
    /// Works until `stop` is dropped, or nobody leads any more.
    pub(crate) fn run(mut self, stop: &Receiver<()>) {
        let pause = Duration::from_millis(LEAD_LOOK_MS);
        let mut failing = false;
        while matches!(stop.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
            match self.look() {
                Ok(true) => break,
                Ok(false) => failing = false,
                Err(refusal) => {
                    self.watch.forget();
                    if !failing {
                        tracing::warn!(%refusal, "the log can't be followed");
                    }
                    failing = true;
                }
            }
        }
        self.shared.queue.end();
        self.shared.size.send_modify(|_| {});
    }

    /// One look; `true` if this process may lead.
    fn look(&mut self) -> Result<bool, Refusal> {
        let lead = self.postgres.look()?;
        self.follow()?;
        self.shared
            .looked_ms
            .store(SystemClock.wall().as_ms(), Ordering::Release);
        if self.postgres.may_take(&mut self.watch, &lead) {
            // Taken here, and kept by whoever opens the ledger in this directory now: that it has
            // to be closed first costs no second lease.
            return self.postgres.claim(&lead);
        }
        self.name_leader(&lead);
        Ok(false)
    }

    /// Whoever asks for what only the leader does is told where it is.
    fn name_leader(&mut self, lead: &Lead) {
        if self.leader.as_ref() != Some(&lead.address) {
            self.leader = Some(lead.address.clone());
            self.shared
                .leader
                .store(Some(Arc::new(lead.address.clone())));
            self.shared
                .queue
                .close_because(not_leader(self.leader.as_deref()));
        }
    }

    /// Folds what was signed since.
    pub(crate) fn follow(&mut self) -> Result<(), Refusal> {
        if let Some(refusal) = &self.broken {
            return Err(refusal.clone());
        }
        let followed = self.fold_on();
        if let Err(refusal) = &followed
            && refusal.kind != RefusalKind::Unavailable
        {
            // A state that refused an entry is no state to go on from.
            self.broken = Some(refusal.clone());
        }
        followed
    }

    fn fold_on(&mut self) -> Result<(), Refusal> {
        let Self { folded, .. } = self;
        let moved = self.shared.readers.with(|reader| {
            let Some(checkpoint) = reader.last_checkpoint()? else {
                return Ok(false);
            };
            let size = folded.tree.size();
            if checkpoint.size <= size {
                return Ok(false);
            }
            checkpoint.check(&self.key)?;
            folded.checkpoint = Some(checkpoint.clone());
            reader.each_entry(size, checkpoint.size, &mut |entry| {
                let index = entry.index;
                folded
                    .take(entry)
                    .map_err(|refusal| at_entry(index, refusal))?;
                Ok(true)
            })?;
            if folded.tree.size() != checkpoint.size || folded.tree.root() != checkpoint.root {
                return Err(wrong_root(&checkpoint, &folded.tree));
            }
            Ok(true)
        })?;
        if moved {
            self.publish();
        }
        Ok(())
    }

    fn publish(&self) {
        let Some(checkpoint) = &self.folded.checkpoint else {
            return;
        };
        self.shared.published.store(Arc::new(Published {
            state: Arc::new(self.folded.state.clone()),
            stored: self.folded.tree.size(),
            reserved: Vec::new(),
            checkpoint: Arc::new(checkpoint.clone()),
        }));
        self.shared.size.send_replace(self.folded.tree.size());
    }
}
