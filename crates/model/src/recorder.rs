//! "Recorded before used", as a type.
//!
//! Policy makes a permit; only [`Recorder::record`] (or `record_all`) turns a permit into a
//! [`Recorded`] one, and only after the ledger said that the entry is durable. Whatever performs an effect takes
//! `Recorded<Permit>` by value, so an effect without an entry does not compile.

use std::future::Future;

use crate::id::LedgerIndex;
use crate::refusal::Refusal;

/// Proof that `T` was durably recorded at `index`. Not `Clone`: one record, one use.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a recorded grant that is dropped was recorded for nothing"]
pub struct Recorded<T> {
    value: T,
    index: LedgerIndex,
}

impl<T> Recorded<T> {
    /// What was recorded.
    pub const fn value(&self) -> &T {
        &self.value
    }

    /// Where it stands in the ledger.
    pub const fn index(&self) -> LedgerIndex {
        self.index
    }

    /// Ends the grant: it has been used.
    pub fn spend(self) -> (T, LedgerIndex) {
        (self.value, self.index)
    }
}

/// The boundary between deciding and acting: something that makes commands durable.
pub trait Recorder: Sync {
    /// What can be asked of the ledger.
    type Command: Send;

    /// Re-checks the command against the newest state and makes its events durable. Answers with
    /// the index of the first entry.
    ///
    /// # Errors
    /// The command no longer holds, or the ledger can't be written; then nothing was granted.
    fn append(
        &self,
        command: Self::Command,
    ) -> impl Future<Output = Result<LedgerIndex, Refusal>> + Send;

    /// Records a grant. This is the only way to a [`Recorded`] value.
    ///
    /// # Errors
    /// As [`Recorder::append`]; the permit is gone then, and must be decided anew.
    fn record<T: Send>(
        &self,
        permit: T,
        command: Self::Command,
    ) -> impl Future<Output = Result<Recorded<T>, Refusal>> + Send {
        async move {
            let index = self.append(command).await?;
            Ok(Recorded {
                value: permit,
                index,
            })
        }
    }

    /// Records several grants by one command, which must speak of each.
    ///
    /// # Errors
    /// As [`Recorder::record`], for all of them.
    fn record_all<T: Send>(
        &self,
        permits: Vec<T>,
        command: Self::Command,
    ) -> impl Future<Output = Result<Vec<Recorded<T>>, Refusal>> + Send {
        async move {
            let index = self.append(command).await?;
            let recorded = permits.into_iter().map(|value| Recorded { value, index });
            Ok(recorded.collect())
        }
    }
}

/// What the sequencer needs of a state: a total fold over events and the pure decision that turns
/// a command into events.
///
/// `Clone` must be cheap (persistent maps): the sequencer clones to dry-apply, and readers keep
/// the clone they were given.
pub trait Fold: Clone + Send + Sync + 'static {
    /// What can be asked.
    type Command: Send + 'static;
    /// What happened; its exact bytes are the Merkle leaf.
    type Event: Clone + Send + Sync + 'static;

    /// The state before entry 0.
    fn empty() -> Self;

    /// The index that the next event gets.
    fn next_index(&self) -> LedgerIndex;

    /// The events that `command` leads to in this state, in order; no events if it changes
    /// nothing. Pure: the same state, command and time give the same answer.
    ///
    /// # Errors
    /// The command's preconditions don't hold.
    fn decide(
        &self,
        command: &Self::Command,
        now: crate::time::Timestamp,
    ) -> Result<Vec<Self::Event>, Refusal>;

    /// Whether the command only takes authority away, and so must work when nothing else does.
    fn reduces_authority(command: &Self::Command) -> bool;

    /// The command that records `event` anew, as the same act of the same actor, where it could
    /// not become an entry in its place; `None` for what can't be repeated.
    fn again(event: &Self::Event) -> Option<Self::Command> {
        let _ = event;
        None
    }

    /// Takes one event in. Total: it refuses what it can't take, and never panics; after an
    /// error the state must be dropped.
    ///
    /// # Errors
    /// The event contradicts the state.
    fn apply(&mut self, event: &Self::Event) -> Result<(), Refusal>;

    /// The event's bytes.
    ///
    /// # Errors
    /// It does not serialise or is larger than an entry may be.
    fn encode(event: &Self::Event) -> Result<Vec<u8>, Refusal>;

    /// Reads an entry of any version ever written.
    ///
    /// # Errors
    /// The type is unknown or the bytes are not an event.
    fn decode(index: LedgerIndex, bytes: &[u8]) -> Result<Self::Event, Refusal>;

    /// Names the form of this fold's snapshots: the version of the program and of the fold, and
    /// the shape of the state. A snapshot in another form is not read. `None` if there are none,
    /// and a start folds every entry.
    fn snapshot_form() -> Option<&'static str> {
        None
    }

    /// The state as bytes, in the form that [`snapshot_form`](Self::snapshot_form) names; the same
    /// state gives the same bytes.
    ///
    /// # Errors
    /// It does not serialise, or there are no snapshots of it.
    fn to_snapshot(&self) -> Result<Vec<u8>, Refusal> {
        Err(Refusal::internal("this fold has no snapshots"))
    }

    /// The state that [`to_snapshot`](Self::to_snapshot) gave these bytes for.
    ///
    /// # Errors
    /// The bytes are not such a state.
    fn from_snapshot(bytes: &[u8]) -> Result<Self, Refusal> {
        let _unread = bytes;
        Err(Refusal::internal("this fold has no snapshots"))
    }
}
