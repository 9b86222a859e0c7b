//! Counters of one arm in one epoch, and the ticket that makes sure each request is counted once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::plane::Epoch;
use crate::wire::{ArmStats, LATENCY_BOUNDS_US, Release};

/// How long a client waits before its leaving counts as an error of the arm: shorter is a person
/// who clicked on, longer is a release that hangs.
const ABANDONED_AFTER: Duration = Duration::from_secs(1);

/// Counters of one arm.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: AtomicU64,
    errors: AtomicU64,
    connect_failures: AtomicU64,
    timeouts: AtomicU64,
    in_flight: AtomicU64,
    latency: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
}

impl Counters {
    pub(crate) fn stats(&self) -> ArmStats {
        // Errors before requests: a request is counted before its error, so there are never more
        // errors than requests in what is read.
        let errors = self.errors.load(Ordering::SeqCst);
        ArmStats {
            errors,
            requests: self.requests.load(Ordering::SeqCst),
            connect_failures: self.connect_failures.load(Ordering::Relaxed),
            timeouts: self.timeouts.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            latency: self
                .latency
                .iter()
                .map(|bucket| bucket.load(Ordering::Relaxed))
                .collect(),
        }
    }

    fn observe(&self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let index = LATENCY_BOUNDS_US.partition_point(|bound| *bound < took_us);
        if let Some(bucket) = self.latency.get(index) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// How a request ended, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// No head of a response yet; the client may have left.
    Waiting,
    /// The client's own fault or wish; not counted.
    ClientsDoing,
    /// A response below 500, whole as far as the client wanted it.
    Fine,
    /// Status 5xx or a body cut off.
    Error,
    /// No connection.
    ConnectFailure,
    /// No head or no more body in time.
    Timeout,
}

/// One request under way at one arm. Dropping it counts the request.
#[derive(Debug)]
pub(crate) struct Ticket {
    epoch: Arc<Epoch>,
    release: Release,
    started: Instant,
    ending: Ending,
}

impl Ticket {
    pub(crate) fn new(epoch: Arc<Epoch>, release: Release) -> Self {
        epoch
            .counters(release)
            .in_flight
            .fetch_add(1, Ordering::Relaxed);
        Self {
            epoch,
            release,
            started: Instant::now(),
            ending: Ending::Waiting,
        }
    }

    pub(crate) const fn release(&self) -> Release {
        self.release
    }

    /// Says how it ended; an error once said stays.
    pub(crate) fn ends(&mut self, ending: Ending) {
        if matches!(self.ending, Ending::Waiting | Ending::Fine) {
            self.ending = ending;
        }
    }

    /// The head of the response came.
    pub(crate) fn head(&mut self, server_error: bool) {
        let counters = self.epoch.counters(self.release);
        counters.observe(self.started.elapsed());
        self.ends(if server_error {
            Ending::Error
        } else {
            Ending::Fine
        });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let counters = self.epoch.counters(self.release);
        counters.in_flight.fetch_sub(1, Ordering::Relaxed);
        let error = match self.ending {
            Ending::ClientsDoing => return,
            Ending::Waiting if self.started.elapsed() < ABANDONED_AFTER => return,
            Ending::Fine => false,
            Ending::Waiting | Ending::Error => true,
            Ending::ConnectFailure => {
                counters.connect_failures.fetch_add(1, Ordering::Relaxed);
                true
            }
            Ending::Timeout => {
                counters.timeouts.fetch_add(1, Ordering::Relaxed);
                true
            }
        };
        counters.requests.fetch_add(1, Ordering::SeqCst);
        if error {
            counters.errors.fetch_add(1, Ordering::SeqCst);
        }
    }
}
