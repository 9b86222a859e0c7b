//! The last stage of the way: releases run, and traffic moves to them by evidence.
//!
//! A rollout goes: start → its release's process runs and answers → a first small weight → looks,
//! each folded into the canary's statistics → step by step → all traffic → completed. Every step
//! is recorded before the proxy hears of it, as an intent with policy's decision. Going back is
//! the other way round: the proxy first, then the record.
//!
//! Where to look: [`effects`] for what is intended and performed, [`watch`] for looks and
//! verdicts, [`traffic`] for how the proxy's epochs follow the ledger's, [`back`] for everything
//! that takes traffic away, [`keep()`] for what keeps the recorded state running.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use portcullis_flow::State;
use portcullis_flow::release::Release;
use portcullis_flow::rollout::Rollout;
use portcullis_model::event::RolloutStarted;
use portcullis_model::manifest::Environment;
use portcullis_model::{EnvironmentId, Refusal, ReleaseId, RolloutId};

use crate::app::App;
use crate::environments::Place;
use crate::worker::record;

pub mod back;
pub mod effects;
pub mod evidence;
pub mod keep;
pub mod traffic;
pub mod watch;

pub use back::{halt, revert_agents, serve_alone, serve_nothing, stable_only};
pub use effects::{intend_start, intend_traffic, perform, retire};
pub use keep::keep;
pub use watch::look;

/// What the server remembers of rollouts between looks. None of it is state: a restart begins
/// with an empty one, and [`watch`] says what that means.
#[derive(Default)]
pub struct Memory {
    watched: Mutex<BTreeMap<RolloutId, watch::Watched>>,
    turns: Mutex<BTreeMap<EnvironmentId, Arc<tokio::sync::Mutex<()>>>>,
    troubles: Mutex<BTreeMap<(EnvironmentId, ReleaseId), Trouble>>,
}

/// A release that should run and does not.
#[derive(Clone, Copy)]
struct Trouble {
    tries: u32,
    next: Instant,
}

impl Memory {
    /// The turn of an environment: whoever moves its traffic forward holds it from the last look
    /// at the state until the proxy has answered, and whoever takes traffic back holds it while
    /// that is recorded. So nothing moves forward after a way back was recorded.
    fn turn(&self, environment: &EnvironmentId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(environment.clone()).or_default())
    }

    fn forget(&self, rollout: RolloutId) {
        self.watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&rollout);
    }
}

/// Begins to move traffic to a release: by canary, if it holds an agent's work and something
/// serves already.
///
/// # Errors
/// Another rollout is under way there, or the ledger can't be written.
pub async fn start(app: &App, id: ReleaseId) -> Result<(), Refusal> {
    let state = app.state();
    let release = state
        .releases
        .get(&id)
        .ok_or_else(|| Refusal::not_found("release", id))?;
    let environment = &release.environment;
    let running = state
        .environments
        .get(environment)
        .ok_or_else(|| Refusal::not_found("environment", environment))?;
    if running.rollout.is_some() {
        return Err(Refusal::conflict(
            "rollout-under-way",
            "a rollout is under way there",
        ));
    }
    if halted(app, &state, release) {
        // It waits for the reset; what is recorded would only be taken back at once.
        return Ok(());
    }
    let mut seed = [0; 8];
    aws_lc_rs::rand::fill(&mut seed)
        .map_err(|_| Refusal::unavailable("no-randomness", "the system gives no random numbers"))?;
    let body = RolloutStarted {
        release: id,
        environment: environment.clone(),
        stable: running.stable,
        canary: release.agent_work && running.stable.is_some(),
        // The proxy and canonical JSON take whole numbers of 64 bits; 63 are enough to be random.
        seed: u64::from_be_bytes(seed) >> 1,
        epoch: running.epoch + 1,
    };
    record(app, body).await
}

/// What every step of a rollout looks up first.
struct View {
    rollout: Arc<Rollout>,
    release: Arc<Release>,
    record: Arc<Environment>,
    place: Place,
}

impl View {
    fn of(app: &App, state: &State, id: RolloutId) -> Result<Self, Refusal> {
        let rollout = state
            .rollouts
            .get(&id)
            .ok_or_else(|| Refusal::not_found("rollout", id))?;
        let release = state
            .releases
            .get(&rollout.release)
            .ok_or_else(|| Refusal::not_found("release", rollout.release))?;
        let record = record_of(state, &rollout.environment)?;
        Ok(Self {
            rollout: Arc::clone(rollout),
            release: Arc::clone(release),
            record,
            place: Place::new(&app.home, &rollout.environment),
        })
    }
}

fn record_of(state: &State, id: &EnvironmentId) -> Result<Arc<Environment>, Refusal> {
    state
        .inventory
        .environments
        .get(id)
        .cloned()
        .ok_or_else(|| Refusal::not_found("environment", id))
}

/// Whether a breaker keeps this release from going forward, by the ledger or ahead of it.
fn halted(app: &App, state: &State, release: &Release) -> bool {
    if !release.agent_work {
        return false;
    }
    let repository = state
        .inventory
        .environments
        .get(&release.environment)
        .map(|record| record.repository.clone());
    let repositories: Vec<_> = repository.iter().collect();
    let agents = release
        .changes
        .iter()
        .filter_map(|change| state.changes.get(change))
        .flat_map(|change| change.agents());
    app.halted_for(state, None, &repositories, Some(&release.environment))
        .is_some()
        || agents
            .into_iter()
            .any(|agent| app.halted_for(state, Some(agent), &[], None).is_some())
}
