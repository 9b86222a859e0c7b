//! Holds a run still and lets it go, keeps its workspace every few commands, winds it back.
//!
//! All that freezes goes through [`Keeper`], one at a time: a checkpoint thaws only what it froze
//! itself.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portcullis_model::Refusal;
use portcullis_model::statement::CheckpointRef;
use portcullis_sandbox::Running;
use portcullis_sandbox::checkpoint::{Bounds, Checkpoints, Kept};

use super::tell;

/// So many processes started since the last checkpoint are "a few commands".
const COMMANDS: u64 = 8;
/// Least time between two checkpoints.
const LEAST: Duration = Duration::from_secs(2);
/// Share of time that keeping may take: the pause is this many times what the last one took.
const PAUSE_TIMES: u32 = 20;

/// A run, and what is kept of it.
pub(super) struct Keeper {
    running: Arc<Running>,
    held: Mutex<Held>,
}

struct Held {
    frozen: bool,
    /// Connections that stood when it was frozen.
    connections: BTreeSet<String>,
    checkpoints: Option<Checkpoints>,
    started: u64,
    next: Instant,
}

impl Keeper {
    /// Keeps `workspace` in `store`. A workspace that can't be kept is told once; the run goes on
    /// without.
    pub(super) fn new(running: Arc<Running>, workspace: &Path, store: &Path) -> Self {
        let checkpoints = Checkpoints::create(workspace, store, Bounds::default())
            .inspect_err(without)
            .ok();
        Self {
            running,
            held: Mutex::new(Held {
                frozen: false,
                connections: BTreeSet::new(),
                checkpoints,
                started: 0,
                next: Instant::now() + LEAST,
            }),
        }
    }

    /// The run itself.
    pub(super) fn running(&self) -> &Running {
        &self.running
    }

    /// Stands still from here on; its workspace is kept as it stands then.
    ///
    /// # Errors
    /// It can't be frozen.
    pub(super) fn freeze(&self) -> Result<Option<Kept>, Refusal> {
        let mut held = self.held();
        self.running.freeze()?;
        if !held.frozen {
            held.connections = self.running.connections();
        }
        held.frozen = true;
        Ok(held.keep())
    }

    /// Goes on. Says how many connections died while it stood still.
    ///
    /// # Errors
    /// It can't be thawed.
    pub(super) fn thaw(&self) -> Result<usize, Refusal> {
        let mut held = self.held();
        // While it stands still nobody inside closes any.
        let now = self.running.connections();
        let died = held.connections.difference(&now).count();
        self.running.thaw()?;
        held.frozen = false;
        held.connections.clear();
        Ok(died)
    }

    /// Winds the workspace back while the run stands still; it goes on standing still.
    ///
    /// # Errors
    /// There is no such checkpoint here, or the workspace can't be written.
    pub(super) fn wind_back(&self, point: CheckpointRef) -> Result<String, Refusal> {
        let mut held = self.held();
        self.running.freeze()?;
        held.frozen = true;
        let checkpoints = held
            .checkpoints
            .as_mut()
            .ok_or_else(|| Refusal::not_found("checkpoint", point.number))?;
        let wound = checkpoints.wind_back(point.number, point.manifest)?;
        Ok(format!(
            "the workspace is wound back to checkpoint {}: {} written, {} removed",
            point.number, wound.written, wound.removed
        ))
    }

    /// Keeps the workspace if enough was done since the last time. The run stands still meanwhile,
    /// for some milliseconds.
    pub(super) fn turn(&self) -> Option<Kept> {
        let mut held = self.held();
        if held.frozen || held.checkpoints.is_none() || Instant::now() < held.next {
            return None;
        }
        let started = self.running.processes_started().ok()?;
        if started < held.started.saturating_add(COMMANDS) {
            return None;
        }
        held.started = started;
        self.running.freeze().ok()?;
        let kept = held.keep();
        // Whatever came of it, it goes on.
        if self.running.thaw().is_err() {
            held.frozen = true;
        }
        kept
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn keep(&mut self) -> Option<Kept> {
        let began = Instant::now();
        let kept = self.checkpoints.as_mut()?.keep();
        self.next = Instant::now() + LEAST.max(began.elapsed() * PAUSE_TIMES);
        match kept {
            Ok(kept) => kept,
            Err(refusal) => {
                without(&refusal);
                // What was kept before can still be wound back to.
                self.next = Instant::now() + Duration::from_secs(60);
                None
            }
        }
    }
}

fn without(refusal: &Refusal) {
    tell(&format!(
        "the workspace is not kept now, so it can't be wound back to this point: {refusal}"
    ));
}
