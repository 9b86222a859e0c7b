//! How writing the ledger goes, for people and metrics: what waits, where it is, and why.

use std::sync::Arc;

use portcullis_model::{Refusal, Timestamp};

use crate::queue::QueueDepth;

/// How writing goes at one moment.
#[derive(Clone, Debug)]
pub struct Writing {
    /// Commands that wait to be decided, and how many may.
    pub queue: QueueDepth,
    /// Entries that are durable in the reserve and not in the database yet.
    pub reserved: usize,
    /// Entries in effect that could be written nowhere: in memory alone, lost if the process ends.
    pub unrecorded: usize,
    /// The reserve; `None` where there is none, so that what reduces authority has only memory.
    pub reserve: Option<ReserveSpace>,
    /// Why the newest attempt to write entries failed, and when, if it did. While entries wait,
    /// it is tried again by itself.
    pub failed: Option<Arc<WriteFailure>>,
    /// Why nothing is granted although the ledger can be written, if so.
    pub doubt: Option<Arc<Refusal>>,
}

/// How full the reserve is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReserveSpace {
    /// Bytes of entries in it.
    pub used_bytes: u64,
    /// Bytes that it has.
    pub bytes: u64,
}

/// An attempt to write that failed.
#[derive(Clone, Debug)]
pub struct WriteFailure {
    /// Why.
    pub refusal: Refusal,
    /// When that began, by the sequencer's clock.
    pub since: Timestamp,
}

/// What the sequencer tells of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aside {
    pub(crate) reserved: usize,
    pub(crate) unrecorded: usize,
    pub(crate) reserve: Option<ReserveSpace>,
    pub(crate) failed: Option<Arc<WriteFailure>>,
}

impl Writing {
    pub(crate) fn new(queue: QueueDepth, aside: &Aside, doubt: Option<Arc<Refusal>>) -> Self {
        Self {
            queue,
            reserved: aside.reserved,
            unrecorded: aside.unrecorded,
            reserve: aside.reserve,
            failed: aside.failed.clone(),
            doubt,
        }
    }

    /// Whether what grants something would be recorded now, as far as is known.
    pub fn grants(&self) -> bool {
        self.failed.is_none()
            && self.doubt.is_none()
            && self.reserved == 0
            && self.unrecorded == 0
            && self.queue.ordinary < self.queue.ordinary_max
    }
}
