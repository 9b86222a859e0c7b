//! The sequencer: the one thread that writes the ledger, told as a crash story.
//!
//! One batch, step by step, and what a restart finds if the process dies right after it:
//!
//! 1. *Entries that wait in the reserve or in memory go to the database first*, before anything
//!    else: order is the index. A restart finds them in the reserve, in the database, or in both.
//! 2. *The batch is planned* in memory: each command is decided against the state with all earlier
//!    events of the batch in it, its events are written as bytes, read back, and applied to a copy.
//!    A restart finds nothing of it; the callers' connections break, and nothing was granted.
//! 3. *One transaction* takes the entries, their leaf hashes, the tiles they filled, and the
//!    checkpoint of the batch before. SQLite syncs its log before the call returns. A restart finds
//!    all of it or nothing. If the call fails, every grant of the batch is refused; should the
//!    bytes be there all the same, the next transaction removes them before it writes, and a
//!    restart without one keeps them: entries that nobody was told of and that no effect follows.
//! 4. *The checkpoint is signed*: only now, so no signature is ever over entries that were not
//!    durable. A restart before that finds a longer log than the last signature and signs anew.
//! 5. *The new state is published* in memory, and with it the checkpoint.
//! 6. *Each caller is answered.* A restart between 3 and 6 finds entries whose callers heard
//!    nothing; they look, as after any broken connection.
//!
//! With PostgreSQL another process may take over (`postgres/lead.rs`). Step 3 fails then, whatever
//! this process believes; before 4 and 6 it makes sure, where it may have been stopped meanwhile,
//! and answers no grant if it can't.
//!
//! When step 3 fails, commands that reduce authority are planned anew without the rest of the
//! batch and go to the reserve (see `reserve.rs`); if that fails too, they are in effect in
//! memory, answered as pending, and tried again every [`RETRY_MS`] and before every batch. While
//! entries wait, nothing is granted: an entry can't be durable before the one in front of it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_model::limits::ENTRY_MAX_BYTES;
use portcullis_model::{Fold, Refusal, Timestamp};

use crate::checkpoint::{CheckpointSigner, SignedCheckpoint};
use crate::clock::{Clock, ClockGuard};
use crate::disk::io_refusal;
use crate::entry::Entry;
use crate::faults::{Faults, Step};
use crate::handle::{Published, Shared};
use crate::limits::{
    BATCH_MAX_BYTES, BATCH_MAX_COMMANDS, CHECKPOINT_IDLE_MS, COMMAND_MAX_EVENTS,
    PENDING_MAX_ENTRIES, RESERVE_RETRY_MS, RETRY_MS,
};
use crate::queue::Taken;
use crate::receipt::{Receipt, RecordedIn};
use crate::reserve::{Record, Reserve};
use crate::storage::{Commit, Writer};
use crate::tree::{BatchNodes, Tree};
use crate::writing::{Aside, WriteFailure};

/// A command with the one who waits for its answer.
pub(crate) struct Job<F: Fold> {
    pub(crate) command: F::Command,
    /// Whether it only takes authority away.
    pub(crate) urgent: bool,
    pub(crate) reply: Reply<F>,
}

/// Gives the answer to whoever waits; dropped without a call, the waiter learns that too.
pub(crate) type Reply<F> = Box<dyn FnOnce(Result<Receipt<F>, Refusal>) + Send>;

/// The writer's half of an open ledger.
pub(crate) struct Sequencer<F: Fold> {
    pub(crate) shared: Arc<Shared<F>>,
    pub(crate) database: Writer,
    pub(crate) reserve: Option<Reserve>,
    pub(crate) signer: Arc<dyn CheckpointSigner>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) guard: ClockGuard,
    pub(crate) faults: Faults,
    /// The state with everything in it that was answered for.
    pub(crate) state: F,
    /// The tree over what the database holds.
    pub(crate) tree: Tree,
    /// Time of the newest entry.
    pub(crate) newest: Timestamp,
    /// Entries that the database does not hold yet, in index order.
    pub(crate) waiting: Vec<Entry>,
    /// How many of them, from the first, are durable in the reserve.
    pub(crate) reserved: usize,
    /// The newest signed checkpoint.
    pub(crate) checkpoint: Arc<SignedCheckpoint>,
    /// Whether the database has it.
    pub(crate) checkpoint_stored: bool,
    /// When it was last tried to make a reserve that is not there.
    pub(crate) reserve_tried: Option<Instant>,
    /// Why the newest attempt to write entries failed, if it did.
    pub(crate) failed: Option<Arc<WriteFailure>>,
    /// What proves the entries of the newest commit.
    pub(crate) nodes: Option<Arc<BatchNodes>>,
}

/// A batch as it would be: the state after it, its entries, and the answer to each command.
struct Plan<F: Fold> {
    state: F,
    entries: Vec<Entry>,
    answers: Vec<(Job<F>, Answer<F>)>,
    /// Commands that did not fit in.
    rest: Vec<Job<F>>,
}

type Answer<F> = Result<Planned<F>, Refusal>;

struct Planned<F: Fold> {
    first: u64,
    events: Vec<F::Event>,
}

/// One command's part of a plan.
struct Addition<F: Fold> {
    state: F,
    entries: Vec<Entry>,
    planned: Planned<F>,
}

impl<F: Fold> Sequencer<F> {
    /// Works until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        let _stop = StopWhenDropped(Arc::clone(&self.shared));
        loop {
            match self.shared.queue.take(BATCH_MAX_COMMANDS, self.patience()) {
                Taken::Items(jobs) => self.batch(jobs),
                Taken::Idle => self.tidy(),
                Taken::Closed => break,
            }
        }
        self.tidy();
        if self.waiting.is_empty() {
            self.database.give_back();
        }
        let pending = self.waiting.len() - self.reserved;
        if pending > 0 {
            tracing::error!(
                entries = pending,
                "the ledger stops with entries that could not be written anywhere"
            );
        }
    }

    fn patience(&self) -> Option<Duration> {
        if !self.waiting.is_empty() {
            Some(Duration::from_millis(RETRY_MS))
        } else if !self.checkpoint_stored {
            Some(Duration::from_millis(CHECKPOINT_IDLE_MS))
        } else {
            None
        }
    }

    fn batch(&mut self, jobs: Vec<Job<F>>) {
        self.mend_reserve();
        let blocked = self.catch_up().err();
        let reading = self.guard.read(&*self.clock, self.newest);
        let doubt = self.shared.doubt.load_full();
        let no_grants = blocked
            .as_ref()
            .or(reading.jump.as_ref())
            .or(doubt.as_deref());
        let plan = self.plan(jobs, reading.now, no_grants);
        if blocked.is_some() {
            return self.finish_aside(plan);
        }
        match self.commit(&plan.entries) {
            Ok(()) => {
                if !plan.entries.is_empty() {
                    self.noted(None);
                }
                self.finish(plan, RecordedIn::Ledger);
            }
            Err(refusal) => {
                self.noted(Some(&refusal));
                tracing::error!(%refusal, "a batch could not be written; its grants are refused");
                let jobs = plan.answers.into_iter().map(|(job, _)| job);
                let jobs = jobs.chain(plan.rest).collect();
                let plan = self.plan(jobs, reading.now, Some(&refusal));
                self.finish_aside(plan);
            }
        }
    }

    /// Step 2. With `no_grants`, every command that doesn't reduce authority is refused so.
    fn plan(&self, jobs: Vec<Job<F>>, now: Timestamp, no_grants: Option<&Refusal>) -> Plan<F> {
        let mut plan = Plan {
            state: self.state.clone(),
            entries: Vec::new(),
            answers: Vec::new(),
            rest: Vec::new(),
        };
        let mut bytes = 0;
        let mut jobs = jobs.into_iter();
        while bytes < BATCH_MAX_BYTES
            && let Some(job) = jobs.next()
        {
            let answer = match no_grants {
                Some(refusal) if !job.urgent => Err(refusal.clone()),
                Some(_) | None => add_command(&plan.state, &job.command, now),
            };
            plan.answers.push((
                job,
                answer.map(|addition| {
                    bytes += addition
                        .entries
                        .iter()
                        .map(|entry| entry.bytes.len())
                        .sum::<usize>();
                    plan.state = addition.state;
                    plan.entries.extend(addition.entries);
                    addition.planned
                }),
            ));
        }
        plan.rest = jobs.collect();
        plan
    }

    /// Steps 3 and 4. After an error nothing is changed here.
    fn commit(&mut self, entries: &[Entry]) -> Result<(), Refusal> {
        if entries.is_empty() {
            return Ok(());
        }
        self.faults
            .at(Step::Planned)
            .map_err(|error| io_refusal("write the ledger", &error))?;
        if entries.first().map(|entry| entry.index) != Some(self.tree.size()) {
            return Err(Refusal::internal(
                "a batch does not follow on what the ledger holds",
            ));
        }
        let mut tree = self.tree.clone();
        let mut tiles = Vec::new();
        let mut nodes = BatchNodes::before(&tree);
        for entry in entries {
            tiles.extend(nodes.append(&mut tree, entry.leaf)?);
        }
        self.database.commit(&Commit {
            size: self.tree.size(),
            entries,
            tiles: &tiles,
            checkpoint: (!self.checkpoint_stored).then_some(&*self.checkpoint),
        })?;
        self.tree = tree;
        self.nodes = Some(Arc::new(nodes));
        self.checkpoint_stored = true;
        self.sign();
        Ok(())
    }

    /// Step 4: signs what the database holds.
    pub(crate) fn sign(&mut self) {
        // Stopped since the commit, it may have a successor, who signs what is there.
        if let Err(refusal) = self.database.confirm() {
            tracing::error!(%refusal, "no checkpoint was signed");
            return;
        }
        let (size, root) = (self.tree.size(), self.tree.root());
        match self.signer.sign(size, &root) {
            Ok(note) => {
                self.checkpoint = Arc::new(SignedCheckpoint { size, root, note });
                self.checkpoint_stored = false;
                self.faults.passing(Step::Signed);
            }
            Err(refusal) => {
                tracing::error!(%refusal, ledger.size = size, "no checkpoint could be signed");
            }
        }
    }

    /// Steps 5 and 6.
    fn finish(&mut self, plan: Plan<F>, recorded: RecordedIn) {
        if let Some(last) = plan.entries.last() {
            self.newest = last.time;
            self.state = plan.state;
            self.publish();
        }
        self.shared.queue.put_back(plan.rest, |job| job.urgent);
        let superseded = match recorded {
            RecordedIn::Ledger if !plan.entries.is_empty() => self.database.confirm().err(),
            RecordedIn::Ledger | RecordedIn::Reserve | RecordedIn::Pending => None,
        };
        for (job, answer) in plan.answers {
            let answer = match &superseded {
                // The entry stands; nothing may follow from it here.
                Some(refusal) if !job.urgent => answer.and(Err(refusal.clone())),
                Some(_) | None => answer,
            };
            let receipt = answer.map(|planned| {
                let end = planned.first.saturating_add(planned.events.len() as u64);
                let covered = self.checkpoint.size >= end;
                let nodes = self.nodes.as_ref().filter(|nodes| {
                    nodes.size() == self.checkpoint.size && nodes.has(planned.first)
                });
                Receipt {
                    nodes: nodes.map(Arc::clone),
                    first: planned.first,
                    events: planned.events,
                    checkpoint: covered.then(|| Arc::clone(&self.checkpoint)),
                    recorded,
                }
            });
            (job.reply)(receipt);
            self.faults.passing(Step::Answered);
        }
    }

    /// Steps 5 and 6 for what the database did not take: into the reserve, or else into memory.
    fn finish_aside(&mut self, mut plan: Plan<F>) {
        if plan.entries.is_empty() {
            return self.finish(plan, self.recorded());
        }
        let before = self.waiting.len();
        self.waiting.extend(plan.entries.iter().cloned());
        let recorded = match self.write_reserve() {
            Ok(()) => RecordedIn::Reserve,
            Err(refusal) if self.waiting.len() - self.reserved > PENDING_MAX_ENTRIES => {
                self.waiting.truncate(before);
                plan.entries.clear();
                for (_, answer) in &mut plan.answers {
                    if answer.is_ok() {
                        *answer = Err(refusal.clone());
                    }
                }
                RecordedIn::Pending
            }
            Err(refusal) => {
                tracing::error!(
                    %refusal,
                    entries = self.waiting.len() - self.reserved,
                    "entries that reduce authority are in effect and could not be written"
                );
                RecordedIn::Pending
            }
        };
        self.finish(plan, recorded);
    }

    /// Where the newest entry is.
    fn recorded(&self) -> RecordedIn {
        if self.waiting.is_empty() {
            RecordedIn::Ledger
        } else if self.reserved == self.waiting.len() {
            RecordedIn::Reserve
        } else {
            RecordedIn::Pending
        }
    }

    /// Makes the reserve that could not be made before: best long before it is needed.
    fn mend_reserve(&mut self) {
        let pause = Duration::from_millis(RESERVE_RETRY_MS);
        if self.reserve.is_some()
            || self
                .reserve_tried
                .is_some_and(|tried| tried.elapsed() < pause)
        {
            return;
        }
        self.reserve_tried = Some(Instant::now());
        match Reserve::open(&self.shared.dir, self.faults.clone()) {
            // What it held was read at the start, and stands first among what waits.
            Ok((reserve, _)) => {
                tracing::info!("the ledger has a reserve again");
                self.reserve = Some(reserve);
                self.tell_aside();
            }
            Err(refusal) => tracing::warn!(%refusal, "the ledger has no reserve"),
        }
    }

    /// Makes the waiting entries durable in the reserve, all that aren't.
    fn write_reserve(&mut self) -> Result<(), Refusal> {
        let Some(reserve) = &mut self.reserve else {
            return Err(Refusal::unavailable(
                "no-reserve",
                "the ledger has no reserve: it could not be made when the server started",
            )
            .next("free space on the disk of the data directory; the server makes one by itself"));
        };
        let records: Vec<Record> = self
            .waiting
            .iter()
            .skip(self.reserved)
            .map(|entry| Record {
                index: entry.index,
                time: entry.time,
                bytes: entry.bytes.clone(),
            })
            .collect();
        reserve
            .append(&records)
            .map_err(|error| io_refusal("write the reserve of the ledger", &error))?;
        self.reserved = self.waiting.len();
        Ok(())
    }

    /// Step 1: moves the waiting entries to the database.
    pub(crate) fn catch_up(&mut self) -> Result<(), Refusal> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let written = self.write_waiting();
        self.noted(written.as_ref().err());
        written
    }

    fn write_waiting(&mut self) -> Result<(), Refusal> {
        let waiting = std::mem::take(&mut self.waiting);
        if let Err(refusal) = self.commit(&waiting) {
            self.waiting = waiting;
            // What is in memory alone may have room in the reserve by now.
            if self.reserved < self.waiting.len() && self.write_reserve().is_ok() {
                self.publish();
            }
            return Err(refusal);
        }
        tracing::info!(
            entries = waiting.len(),
            "entries from the reserve are in the ledger"
        );
        self.reserved = 0;
        self.publish();
        if let Some(reserve) = &mut self.reserve
            && let Err(error) = reserve.reset()
        {
            // They stay there as copies; a restart compares and skips them.
            tracing::warn!(%error, "the reserve could not be emptied");
        }
        Ok(())
    }

    /// Notes how writing went, for those who look.
    pub(crate) fn noted(&mut self, failed: Option<&Refusal>) {
        let since = || {
            let before = self.failed.as_ref();
            before.map_or_else(|| self.clock.wall(), |failed| failed.since)
        };
        let had_failed = self.failed.is_some();
        self.failed = failed.map(|refusal| {
            Arc::new(WriteFailure {
                refusal: refusal.clone(),
                since: since(),
            })
        });
        if had_failed || self.failed.is_some() {
            self.tell_aside();
        }
    }

    fn tell_aside(&self) {
        self.shared.aside.store(Arc::new(Aside {
            reserved: self.reserved,
            unrecorded: self.waiting.len() - self.reserved,
            reserve: self.reserve.as_ref().map(Reserve::space),
            failed: self.failed.clone(),
        }));
    }

    /// Makes the newest state and checkpoint visible to readers.
    pub(crate) fn publish(&self) {
        self.tell_aside();
        let reserved: Vec<Entry> = self.waiting.iter().take(self.reserved).cloned().collect();
        let stored = self.tree.size();
        let size = stored.saturating_add(reserved.len() as u64);
        self.shared.published.store(Arc::new(Published {
            state: Arc::new(self.state.clone()),
            stored,
            reserved,
            checkpoint: Arc::clone(&self.checkpoint),
        }));
        self.shared.size.send_replace(size);
        self.faults.passing(Step::Published);
    }

    /// What is done when nothing else is: waiting entries, and a checkpoint not yet stored.
    fn tidy(&mut self) {
        if let Err(refusal) = self.catch_up() {
            tracing::debug!(%refusal, "entries still wait for the ledger");
            return;
        }
        if self.checkpoint_stored {
            return;
        }
        if let Err(refusal) = self.database.store_checkpoint(&self.checkpoint) {
            tracing::warn!(%refusal, "a checkpoint could not be stored");
        }
        // Not tried again by itself: the next commit has a newer one, and a restart signs anew.
        self.checkpoint_stored = true;
    }
}

/// Decides one command in `state` and dry-applies what it leads to, as a restart will read it.
fn add_command<F: Fold>(
    state: &F,
    command: &F::Command,
    now: Timestamp,
) -> Result<Addition<F>, Refusal> {
    let events = state.decide(command, now)?;
    if events.len() > COMMAND_MAX_EVENTS {
        return Err(Refusal::limit(
            "too-many-events",
            format!("the command leads to {} events", events.len()),
        )
        .expected(&format!("at most {COMMAND_MAX_EVENTS}"))
        .next("split it into several commands"));
    }
    let mut addition = Addition {
        state: state.clone(),
        entries: Vec::with_capacity(events.len()),
        planned: Planned {
            first: if events.is_empty() {
                state.next_index().saturating_sub(1)
            } else {
                state.next_index()
            },
            events: Vec::with_capacity(events.len()),
        },
    };
    for event in events {
        let index = addition.state.next_index();
        let bytes = F::encode(&event)?;
        if bytes.len() > ENTRY_MAX_BYTES {
            return Err(Refusal::limit(
                "entry-too-large",
                format!("an entry of {} bytes", bytes.len()),
            )
            .expected(&format!("at most {ENTRY_MAX_BYTES} bytes"))
            .next("store the body as a blob and name its digest"));
        }
        let event = F::decode(index, &bytes)?;
        addition.state.apply(&event)?;
        if addition.state.next_index() != index.saturating_add(1) {
            return Err(Refusal::internal("an event did not take exactly one index"));
        }
        addition.entries.push(Entry::new(index, now, bytes));
        addition.planned.events.push(event);
    }
    Ok(addition)
}

/// Ends the queue when the sequencer ends, however it ends, so that nobody waits for ever.
struct StopWhenDropped<F: Fold>(Arc<Shared<F>>);

impl<F: Fold> Drop for StopWhenDropped<F> {
    fn drop(&mut self) {
        self.0.queue.end();
        // Whoever follows the ledger wakes up and sees that it has ended.
        self.0.size.send_modify(|_| {});
    }
}
