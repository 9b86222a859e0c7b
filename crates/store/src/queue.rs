//! The bounded queue before the sequencer, with a lane of its own for what reduces authority.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_model::Refusal;

use crate::limits::{QUEUE_MAX_COMMANDS, URGENT_MAX_COMMANDS};

/// A bounded queue with many senders and one taker.
pub(crate) struct Queue<T> {
    waiting: Mutex<Waiting<T>>,
    wake: Condvar,
}

struct Waiting<T> {
    urgent: VecDeque<T>,
    ordinary: VecDeque<T>,
    refused: u64,
    closed: bool,
    /// Why it is closed, if not because the server stops.
    why: Option<Refusal>,
    ended: bool,
}

/// What the taker gets.
pub(crate) enum Taken<T> {
    /// At least one item, the urgent ones first.
    Items(Vec<T>),
    /// Nothing came in the time given.
    Idle,
    /// The queue is closed and empty.
    Closed,
}

/// The queue's present state, for metrics and people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueDepth {
    /// Commands that wait.
    pub ordinary: usize,
    /// Commands that wait and reduce authority.
    pub urgent: usize,
    /// Commands refused so far because the queue was full.
    pub refused: u64,
    /// Most commands that may wait.
    pub ordinary_max: usize,
    /// Most that may wait and reduce authority.
    pub urgent_max: usize,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                urgent: VecDeque::new(),
                ordinary: VecDeque::new(),
                refused: 0,
                closed: false,
                why: None,
                ended: false,
            }),
            wake: Condvar::new(),
        }
    }

    /// Puts an item in, or says why not; never waits.
    pub(crate) fn put(&self, item: T, urgent: bool) -> Result<(), Refusal> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(waiting.why.clone().unwrap_or_else(stopped));
        }
        let (lane, bound) = if urgent {
            (&mut waiting.urgent, URGENT_MAX_COMMANDS)
        } else {
            (&mut waiting.ordinary, QUEUE_MAX_COMMANDS)
        };
        if lane.len() >= bound {
            waiting.refused += 1;
            return Err(Refusal::unavailable(
                "ledger-busy",
                format!("{bound} commands already wait to be recorded"),
            )
            .next("repeat it in a moment; nothing was done"));
        }
        lane.push_back(item);
        drop(waiting);
        self.wake.notify_one();
        Ok(())
    }

    /// Puts items back to where they came from, in order; the taker's own, so not bounded again.
    pub(crate) fn put_back(&self, items: Vec<T>, urgent: impl Fn(&T) -> bool) {
        let mut waiting = self.lock();
        for item in items.into_iter().rev() {
            if urgent(&item) {
                waiting.urgent.push_front(item);
            } else {
                waiting.ordinary.push_front(item);
            }
        }
    }

    /// Takes up to `most` items, waiting for the first one as long as `patience` says.
    pub(crate) fn take(&self, most: usize, patience: Option<Duration>) -> Taken<T> {
        let mut waiting = self.lock();
        while waiting.urgent.is_empty() && waiting.ordinary.is_empty() {
            if waiting.closed {
                return Taken::Closed;
            }
            let Some(patience) = patience else {
                waiting = self
                    .wake
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let (guard, timeout) = self
                .wake
                .wait_timeout(waiting, patience)
                .unwrap_or_else(PoisonError::into_inner);
            waiting = guard;
            if timeout.timed_out() && waiting.urgent.is_empty() && waiting.ordinary.is_empty() {
                return Taken::Idle;
            }
        }
        let mut items = Vec::new();
        while items.len() < most
            && let Some(item) = waiting.next()
        {
            items.push(item);
        }
        Taken::Items(items)
    }

    /// Takes nothing more in; what waits is still taken out.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// As [`close`](Self::close), and says why to whoever still comes.
    pub(crate) fn close_because(&self, why: Refusal) {
        self.lock().why = Some(why);
        self.close();
    }

    /// Why it is closed, if not because the server stops.
    pub(crate) fn why(&self) -> Option<Refusal> {
        self.lock().why.clone()
    }

    /// Closes the queue and drops what waits: there is no taker any more.
    pub(crate) fn end(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.ended = true;
        waiting.urgent.clear();
        waiting.ordinary.clear();
    }

    /// Whether the taker has gone.
    pub(crate) fn is_ended(&self) -> bool {
        self.lock().ended
    }

    pub(crate) fn depth(&self) -> QueueDepth {
        let waiting = self.lock();
        QueueDepth {
            ordinary: waiting.ordinary.len(),
            urgent: waiting.urgent.len(),
            refused: waiting.refused,
            ordinary_max: QUEUE_MAX_COMMANDS,
            urgent_max: URGENT_MAX_COMMANDS,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Waiting<T> {
    fn next(&mut self) -> Option<T> {
        self.urgent
            .pop_front()
            .or_else(|| self.ordinary.pop_front())
    }
}

/// The sequencer has stopped.
pub(crate) fn stopped() -> Refusal {
    Refusal::unavailable("ledger-stopped", "the ledger takes no more commands")
        .next("the server is stopping; look at its log if it should not be")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_refused_and_does_not_hold_up_what_is_urgent() {
        let queue = Queue::new();
        for item in 0..QUEUE_MAX_COMMANDS {
            queue.put(item, false).unwrap();
        }
        assert_eq!(queue.put(0, false).unwrap_err().code, "ledger-busy");
        queue.put(999_999, true).unwrap();
        assert_eq!(
            queue.depth(),
            QueueDepth {
                ordinary: QUEUE_MAX_COMMANDS,
                urgent: 1,
                refused: 1,
                ordinary_max: QUEUE_MAX_COMMANDS,
                urgent_max: URGENT_MAX_COMMANDS,
            }
        );
        let Taken::Items(items) = queue.take(3, None) else {
            panic!("items wait")
        };
        assert_eq!(items, [999_999, 0, 1]);
        queue.put_back(vec![999_999, 1], |item| *item == 999_999);
        let Taken::Items(items) = queue.take(3, None) else {
            panic!("items wait")
        };
        assert_eq!(items, [999_999, 1, 2]);
    }

    #[test]
    fn a_closed_queue_gives_out_what_it_has_and_then_ends() {
        let queue = Queue::new();
        queue.put(1, false).unwrap();
        queue.close();
        assert_eq!(queue.put(2, true).unwrap_err().code, "ledger-stopped");
        assert!(matches!(queue.take(9, None), Taken::Items(items) if items == [1]));
        assert!(matches!(queue.take(9, None), Taken::Closed));
    }

    #[test]
    fn waiting_has_an_end() {
        let queue = Queue::<u8>::new();
        let patience = Some(Duration::from_millis(5));
        assert!(matches!(queue.take(1, patience), Taken::Idle));
    }
}
