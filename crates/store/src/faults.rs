//! The steps of a write by name, so that tests can make each of them fail or be the last one.

use std::fmt;
use std::io;
use std::sync::Arc;

/// A step of the sequencer at which a test may kill the process or, where the step writes, make
/// the write fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The batch is planned; nothing is written. An error counts as a failed commit.
    Planned,
    /// The entries are in an open transaction. An error counts as a failed commit.
    Inserted,
    /// The transaction is durable. An error counts as "failed but persisted".
    Committed,
    /// The checkpoint is signed, not yet published.
    Signed,
    /// The new state is published; no caller has its answer.
    Published,
    /// Some callers of the batch have their answers.
    Answered,
    /// A checkpoint is about to be stored by itself. An error counts as a failed write.
    StoringCheckpoint,
    /// Entries are about to be written to the reserve. An error counts as a failed write.
    ReserveWriting,
    /// Entries are written to the reserve and not synced. An error counts as a failed write.
    ReserveWritten,
    /// Entries in the reserve are durable.
    ReserveSynced,
    /// The database has the entries of the reserve, which still holds them, too. An error counts
    /// as a failed write.
    ReserveMoved,
    /// The reserve is empty again.
    ReserveReset,
    /// A snapshot is about to be written. An error counts as a failed write.
    SnapshotWriting,
    /// A snapshot is written and not synced. An error counts as a failed write.
    SnapshotWritten,
    /// A snapshot is durable under its name; older ones still stand.
    SnapshotNamed,
}

impl Step {
    /// Every step, in the order of a write.
    pub const ALL: [Self; 15] = [
        Self::Planned,
        Self::Inserted,
        Self::Committed,
        Self::Signed,
        Self::Published,
        Self::Answered,
        Self::StoringCheckpoint,
        Self::ReserveWriting,
        Self::ReserveWritten,
        Self::ReserveSynced,
        Self::ReserveMoved,
        Self::ReserveReset,
        Self::SnapshotWriting,
        Self::SnapshotWritten,
        Self::SnapshotNamed,
    ];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Planned => "planned",
            Self::Inserted => "inserted",
            Self::Committed => "committed",
            Self::Signed => "signed",
            Self::Published => "published",
            Self::Answered => "answered",
            Self::StoringCheckpoint => "storing-checkpoint",
            Self::ReserveWriting => "reserve-writing",
            Self::ReserveWritten => "reserve-written",
            Self::ReserveSynced => "reserve-synced",
            Self::ReserveMoved => "reserve-moved",
            Self::ReserveReset => "reserve-reset",
            Self::SnapshotWriting => "snapshot-writing",
            Self::SnapshotWritten => "snapshot-written",
            Self::SnapshotNamed => "snapshot-named",
        })
    }
}

/// Called at each step; does nothing outside tests.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<FaultHook>>);

type FaultHook = dyn Fn(Step) -> io::Result<()> + Send + Sync;

impl Faults {
    /// Calls `hook` at each step.
    pub fn new(hook: impl Fn(Step) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hook)))
    }

    pub(crate) fn at(&self, step: Step) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |hook| hook(step))
    }

    /// A step where nothing is written that could fail.
    pub(crate) fn passing(&self, step: Step) {
        if let Err(error) = self.at(step) {
            tracing::warn!(%step, %error, "an injected fault fell on a step that can't fail");
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Faults(hook)"
        } else {
            "Faults(none)"
        })
    }
}
