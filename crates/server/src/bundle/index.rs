//! Where in the ledger the entries stand that a bundle needs and the state does not keep.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use portcullis_flow::State;
use portcullis_model::event::{Body, Ended, RolloutOutcome};
use portcullis_model::{
    ChangeId, EnvironmentId, Event, GitOid, JobId, LedgerIndex, Refusal, ReleaseId, RequestId,
    RolloutId, RunId,
};
use portcullis_store::LedgerHandle;
use portcullis_store::limits::READ_MAX_ENTRIES;

/// Follows the ledger on demand. In memory; a restart reads the ledger once more, at some ten
/// microseconds for each entry, when the first bundle is asked for.
#[derive(Default)]
pub struct Index(Mutex<Places>);

/// What is known of the first `size` entries.
#[derive(Default)]
pub(super) struct Places {
    size: LedgerIndex,
    pub(super) checks: BTreeMap<(ChangeId, u64), LedgerIndex>,
    pub(super) tests: BTreeMap<(ChangeId, u64), LedgerIndex>,
    /// The last tests of what each entry prepared.
    pub(super) tested: BTreeMap<LedgerIndex, LedgerIndex>,
    /// The entry that prepared each commit last.
    pub(super) prepared: BTreeMap<GitOid, LedgerIndex>,
    pub(super) job_claimed: BTreeMap<JobId, LedgerIndex>,
    pub(super) job_finished: BTreeMap<JobId, LedgerIndex>,
    pub(super) run_ended: BTreeMap<RunId, LedgerIndex>,
    pub(super) rollout_ended: BTreeMap<RolloutId, LedgerIndex>,
    /// Entries that gave a subject (`human ada`, `policy`) its record or took its rights.
    pub(super) governing: BTreeMap<String, Vec<LedgerIndex>>,
    proposals: BTreeMap<RequestId, String>,
    rollouts: BTreeMap<RolloutId, (EnvironmentId, ReleaseId)>,
    serving: BTreeMap<EnvironmentId, Vec<(LedgerIndex, Option<ReleaseId>)>>,
}

impl Index {
    /// What is known, after reading everything that was recorded so far.
    pub(super) fn caught_up(
        &self,
        ledger: &LedgerHandle<State>,
    ) -> Result<MutexGuard<'_, Places>, Refusal> {
        let mut places = self
            .0
            .lock()
            .map_err(|_| Refusal::internal("the index of entries was left half-written"))?;
        loop {
            let entries = ledger.entries(places.size, READ_MAX_ENTRIES)?;
            if entries.is_empty() {
                return Ok(places);
            }
            for entry in entries {
                places.note(&Event::decode(entry.index, &entry.bytes)?);
                places.size = entry.index.saturating_add(1);
            }
        }
    }
}

impl Places {
    fn note(&mut self, event: &Event) {
        let at = event.index;
        match &event.body {
            Body::ActivationProposed(body) => {
                self.proposals
                    .insert(RequestId(at), key_of(&body.activation));
            }
            Body::ActivationCompleted(body) => {
                if let Some(subject) = self.proposals.remove(&body.request) {
                    self.governing.entry(subject).or_default().push(at);
                }
            }
            Body::PrincipalEnded(body) => {
                let subject = match &body.subject {
                    Ended::AgentSuspended(id) | Ended::AgentRetired(id) => format!("agent {id}"),
                    Ended::HumanRetired(id) | Ended::HumanForgotten(id) => format!("human {id}"),
                    Ended::ServiceRetired(id) => format!("service {id}"),
                    Ended::HostRetired(id) => format!("host {id}"),
                };
                self.governing.entry(subject).or_default().push(at);
            }
            Body::ChecksCompleted(body) => {
                self.checks.insert((body.change, body.revision), at);
            }
            Body::TestsCompleted(body) => {
                self.tests.insert((body.change, body.revision), at);
            }
            Body::LandingPrepared(body) => {
                self.prepared.insert(body.head.clone(), at);
            }
            Body::LandingTested(body) => {
                self.tested.insert(body.prepared, at);
            }
            Body::JobClaimed(body) => {
                self.job_claimed.insert(body.job, at);
            }
            Body::JobFinished(body) => {
                self.job_finished.insert(body.job, at);
            }
            Body::RunEnded(body) => {
                self.run_ended.insert(body.run, at);
            }
            Body::RolloutStarted(body) => {
                let about = (body.environment.clone(), body.release);
                self.rollouts.insert(RolloutId(at), about);
            }
            Body::RolloutEnded(body) => {
                self.rollout_ended.insert(body.rollout, at);
                if let (RolloutOutcome::Completed, Some((environment, release))) =
                    (body.outcome, self.rollouts.get(&body.rollout))
                {
                    let served = self.serving.entry(environment.clone()).or_default();
                    served.push((at, Some(*release)));
                }
            }
            Body::EnvironmentReverted(body) => {
                let served = self.serving.entry(body.environment.clone()).or_default();
                served.push((at, body.to));
            }
            _ => {}
        }
    }

    /// The release that served in `environment` just before the entry at `before`.
    pub(super) fn served(
        &self,
        environment: &EnvironmentId,
        before: LedgerIndex,
    ) -> Option<ReleaseId> {
        self.serving
            .get(environment)?
            .iter()
            .rev()
            .find(|(at, _)| *at < before)
            .and_then(|(_, release)| *release)
    }
}

/// What a record is about. Policies replace each other, so they are one subject.
fn key_of(activation: &portcullis_model::manifest::Activation) -> String {
    match activation {
        portcullis_model::manifest::Activation::Policy(_) => "policy".to_owned(),
        other => other.subject(),
    }
}
