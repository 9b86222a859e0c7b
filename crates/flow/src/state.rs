//! The fold of the ledger.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet, Vector};
use portcullis_model::event::{Body, GenesisCreated, IncidentOpened};
use portcullis_model::limits::CLOCK_FORWARD_MAX_MS;
use portcullis_model::manifest::ServiceRole;
use portcullis_model::recorder::Fold;
use portcullis_model::statement::{BreakerScope, Envelope, SignedCommand};
use portcullis_model::{
    ArtifactId, ChangeId, Digest, EnvironmentId, Event, GitOid, JobId, LedgerIndex, Principal,
    Refusal, ReleaseId, RepositoryId, RequestId, RolloutId, RunId, TaskId, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::approval::Request;
use crate::breaker::Trip;
use crate::change::{Branch, Change};
use crate::command::Command;
use crate::effect::EffectState;
use crate::entities::{Ends, Entities};
use crate::inventory::{Inventory, Standing};
use crate::job::{Artifact, Job};
use crate::release::{EnvironmentState, Release};
use crate::restore::Restored;
use crate::rollout::Rollout;
use crate::run::Run;
use crate::task::TaskState;
use crate::together::Joint;
use crate::{
    approval, breaker, cause, change, effect, inventory, job, queue, release, restore, review,
    rollout, run, snapshot, task,
};

/// Version of this fold. A ledger names the version that reads it; another is refused.
pub const FOLD_VERSION: u32 = 1;

/// Everything that the ledger explains. Cloning is cheap: the maps are persistent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    next: LedgerIndex,
    time: Timestamp,
    genesis: Option<Arc<GenesisCreated>>,
    /// Who and what is known, and the policy in force.
    pub inventory: Inventory,
    /// Signed tasks.
    pub tasks: OrdMap<TaskId, Arc<TaskState>>,
    /// Nonces of tasks; a nonce counts once.
    pub task_nonces: OrdSet<String>,
    /// Nonces of commands and approvals, with the time after which they are worthless anyway.
    pub nonces: OrdMap<String, Timestamp>,
    /// Runs.
    pub runs: Entities<RunId, Run>,
    /// Changes.
    pub changes: Entities<ChangeId, Change>,
    /// Commits that were ever proposed, and the change that proposed each first: whoever proposes
    /// them again brings along who had a hand in them.
    pub proposed: OrdMap<GitOid, ChangeId>,
    /// Branches that we govern, by repository and name.
    #[serde(with = "crate::snapshot::pairs")]
    pub branches: OrdMap<(RepositoryId, String), Arc<Branch>>,
    /// Branches on which nothing lands until a human looked.
    #[serde(with = "crate::snapshot::pairs")]
    pub halted_queues: OrdMap<(RepositoryId, String), queue::Halt>,
    /// Jobs.
    pub jobs: Entities<JobId, Job>,
    /// Commits whose build was asked for.
    pub builds: OrdSet<(RepositoryId, GitOid)>,
    /// Requests to humans.
    pub requests: Entities<RequestId, Request>,
    /// Artifacts.
    pub artifacts: OrdMap<ArtifactId, Arc<Artifact>>,
    /// Releases.
    pub releases: Entities<ReleaseId, Release>,
    /// What runs where.
    pub environments: OrdMap<EnvironmentId, Arc<EnvironmentState>>,
    /// Rollouts.
    pub rollouts: Entities<RolloutId, Rollout>,
    /// Effects that are under way, by the index of their intent.
    pub effects: OrdMap<LedgerIndex, Arc<EffectState>>,
    /// Landings under way that happen all or not at all, by their task.
    pub together: OrdMap<TaskId, Arc<Joint>>,
    /// Tripped breakers.
    #[serde(with = "crate::snapshot::pairs")]
    pub breakers: OrdMap<BreakerScope, Trip>,
    /// Incidents, newest last.
    pub incidents: Vector<(LedgerIndex, IncidentOpened)>,
    /// Times at which the ledger went on from an older copy of itself, newest last.
    pub restored: Vector<Restored>,
}

impl Fold for State {
    type Command = Command;
    type Event = Event;

    fn empty() -> Self {
        Self {
            next: 0,
            time: Timestamp::from_ms(0),
            genesis: None,
            inventory: Inventory::default(),
            tasks: OrdMap::new(),
            task_nonces: OrdSet::new(),
            nonces: OrdMap::new(),
            runs: Entities::new(),
            changes: Entities::new(),
            proposed: OrdMap::new(),
            branches: OrdMap::new(),
            halted_queues: OrdMap::new(),
            jobs: Entities::new(),
            builds: OrdSet::new(),
            requests: Entities::new(),
            artifacts: OrdMap::new(),
            releases: Entities::new(),
            environments: OrdMap::new(),
            rollouts: Entities::new(),
            effects: OrdMap::new(),
            together: OrdMap::new(),
            breakers: OrdMap::new(),
            incidents: Vector::new(),
            restored: Vector::new(),
        }
    }

    fn next_index(&self) -> LedgerIndex {
        self.next
    }

    fn decide(&self, command: &Command, now: Timestamp) -> Result<Vec<Event>, Refusal> {
        crate::command::decide(self, command, now)
    }

    fn again(event: &Event) -> Option<Command> {
        Some(Command::one(event.actor.clone(), event.body.clone()))
    }

    fn reduces_authority(command: &Command) -> bool {
        command.bodies.iter().all(Body::reduces_authority)
    }

    fn apply(&mut self, event: &Event) -> Result<(), Refusal> {
        self.check_order(event)?;
        self.check_circumstances(event)?;
        let at = event.index;
        match &event.body {
            Body::GenesisCreated(body) => inventory::genesis(self, event, body),
            Body::ActivationProposed(body) => inventory::proposed(self, event, body),
            Body::ActivationCompleted(body) => inventory::completed(self, event, body),
            Body::PrincipalEnded(body) => inventory::ended(self, event, body),
            Body::TaskAccepted(body) => task::accepted(self, event, body),
            Body::RunStarted(body) => run::started(self, event, body),
            Body::RunEnded(body) => run::ended(self, event, body),
            Body::RunCheckpointed(body) => review::checkpointed(self, event, body),
            Body::RunReviewed(body) => review::reviewed(self, event, body),
            Body::RunResumed(body) => review::resumed(self, event, body),
            Body::RequestDenied(body) => run::denied(self, event, body),
            Body::CallObserved(body) => run::call_observed(self, event, body),
            Body::CallsObserved(body) => run::calls_observed(self, event, body),
            Body::LeaseRefused(body) => run::lease_refused(self, event, body),
            Body::PromptSeen(body) => run::prompt_seen(self, event, body),
            Body::TaintAdded(body) => run::taint_added(self, event, body),
            Body::ChangePushed(body) => change::pushed(self, event, body),
            Body::ChecksCompleted(body) => change::checks_completed(self, event, body),
            Body::TestsCompleted(body) => change::tests_completed(self, event, body),
            Body::ChangeClosed(body) => change::closed(self, event, body),
            Body::JobRequested(body) => job::requested(self, event, body),
            Body::JobClaimed(body) => job::claimed(self, event, body),
            Body::JobFinished(body) => job::finished(self, event, body),
            Body::RequestOpened(body) => approval::opened(self, event, body),
            Body::ApprovalGiven(body) => approval::given(self, event, body),
            Body::RequestRejected(body) => approval::rejected(self, event, body),
            Body::RequestWithdrawn(body) => approval::withdrawn(self, event, body),
            Body::EffectIntended(body) => effect::intended(self, event, body),
            Body::EffectAttempted(body) => effect::attempted(self, event, body),
            Body::EffectConcluded(body) => effect::concluded(self, event, body),
            Body::CommitsUnproven(body) => change::unproven(self, event, body),
            Body::LandingPrepared(body) => queue::prepared(self, event, body),
            Body::LandingTested(body) => queue::tested(self, event, body),
            Body::QueueHalted(body) => queue::halted(self, event, body),
            Body::QueueResumed(body) => queue::resumed(self, event, body),
            Body::ArtifactBuilt(body) => job::artifact_built(self, event, body),
            Body::ReleaseAdmitted(body) => release::admitted(self, event, body),
            Body::ReleaseRevoked(body) => release::revoked(self, event, body),
            Body::RolloutStarted(body) => rollout::started(self, event, body),
            Body::RolloutStepped(body) => rollout::stepped(self, event, body),
            Body::RolloutEnded(body) => rollout::ended(self, event, body),
            Body::EnvironmentReverted(body) => release::reverted(self, event, body),
            Body::BreakerTripped(body) => breaker::tripped(self, event, body),
            Body::BreakerReset(body) => breaker::reset(self, event, body),
            Body::IncidentOpened(body) => {
                self.require_control(event)?;
                self.incidents.push_back((at, body.clone()));
                Ok(())
            }
            Body::ServerStarted(_) => self.require_control(event),
            Body::LedgerRestored(body) => restore::restored(self, event, body),
        }?;
        if let Body::GenesisCreated(body) = &event.body {
            self.genesis = Some(Arc::new(body.clone()));
        }
        self.next += 1;
        self.time = event.time;
        Ok(())
    }

    fn encode(event: &Event) -> Result<Vec<u8>, Refusal> {
        event.encode()
    }

    fn decode(index: LedgerIndex, bytes: &[u8]) -> Result<Event, Refusal> {
        Event::decode(index, bytes)
    }

    fn snapshot_form() -> Option<&'static str> {
        Some(snapshot::FORM)
    }

    fn to_snapshot(&self) -> Result<Vec<u8>, Refusal> {
        snapshot::write(self)
    }

    fn from_snapshot(bytes: &[u8]) -> Result<Self, Refusal> {
        snapshot::read(bytes)
    }
}

impl State {
    /// Number of entries folded.
    pub const fn size(&self) -> LedgerIndex {
        self.next
    }

    /// Time of the newest entry.
    pub const fn time(&self) -> Timestamp {
        self.time
    }

    /// Entry 0.
    ///
    /// # Errors
    /// The ledger is empty.
    pub fn genesis(&self) -> Result<&GenesisCreated, Refusal> {
        self.genesis.as_deref().ok_or_else(|| {
            Refusal::unavailable("no-genesis", "this ledger is empty")
                .next("make one with `portcullis init`")
        })
    }

    /// Whether one person declared to work alone.
    pub fn solo(&self) -> bool {
        self.genesis.as_ref().is_some_and(|genesis| genesis.solo)
    }

    fn check_order(&self, event: &Event) -> Result<(), Refusal> {
        let first = matches!(event.body, Body::GenesisCreated(_));
        if event.index != self.next || first != (self.next == 0) || event.time < self.time {
            return Err(Refusal::conflict(
                "out-of-order",
                "this entry does not follow the one before",
            )
            .expected(&format!("index {} at or after {}", self.next, self.time))
            .received(&format!(
                "{} at index {}, {}",
                event.body.type_name(),
                event.index,
                event.time
            )));
        }
        Ok(())
    }

    /// Cause, mode and containment are what the state says: an entry can't disown an agent, or call
    /// itself observed where the repository is enforced.
    fn check_circumstances(&self, event: &Event) -> Result<(), Refusal> {
        let cause = cause::of(self, &event.actor, &event.body);
        let mode = cause::mode_of(self, &event.body);
        let containment = cause::containment_of(self, &event.body);
        if event.cause == cause && event.mode == mode && event.containment == containment {
            return Ok(());
        }
        Err(Refusal::denied(
            "circumstances-altered",
            "the entry's cause, mode or containment is not what led to it",
        )
        .expected(&format!("{cause:?}, {mode}, {containment:?}"))
        .received(&format!(
            "{:?}, {}, {:?}",
            event.cause, event.mode, event.containment
        )))
    }

    /// Takes the signed command behind an event: it is by the event's actor, for this ledger,
    /// timely, and its nonce is new. The signature itself is checked at the edge and by verifiers.
    pub(crate) fn take_command(
        &mut self,
        event: &Event,
        envelope: &Envelope,
    ) -> Result<portcullis_model::statement::Command, Refusal> {
        let command = SignedCommand::read(envelope)?;
        let life = command.expires.ms_since(command.issued);
        if command.origin != self.genesis()?.origin {
            return Err(Refusal::denied(
                "wrong-ledger",
                "this command is meant for another ledger",
            )
            .expected(&self.genesis()?.origin)
            .received(&command.origin));
        }
        if command.principal != event.actor.principal || event.actor.key.is_none() {
            return Err(Refusal::denied(
                "wrong-actor",
                "the entry's actor did not sign its command",
            )
            .expected(&command.principal.to_string())
            .received(&event.actor.principal.to_string()));
        }
        // Signed for later would outlive its bound: it could be used until then.
        let early = command.issued.ms_since(event.time) > CLOCK_FORWARD_MAX_MS;
        let backwards = command.expires < command.issued;
        if early || backwards || life > SignedCommand::MAX_LIFE_MS || event.time >= command.expires
        {
            return Err(
                Refusal::denied("command-expired", "this command has expired")
                    .expected(&format!(
                        "a command at most {} ms old",
                        SignedCommand::MAX_LIFE_MS
                    ))
                    .received(&format!(
                        "issued {}, expires {}",
                        command.issued, command.expires
                    ))
                    .next("give the command again; if it persists, compare the two clocks"),
            );
        }
        self.take_nonce(command.nonce, command.expires, event.time)?;
        Ok(command.command)
    }

    /// Whether a command can still be recorded, for those that are acted on before they are: it is
    /// for this ledger, was not recorded before, and had not expired when the newest entry was made.
    ///
    /// That is all it takes against replays of what the ledger holds: a nonce is forgotten only
    /// when the entries' time has passed its command's expiry. The wall clock is not asked, so one
    /// that jumped keeps nobody from taking authority away.
    ///
    /// # Errors
    /// `wrong-ledger`, `nonce-replayed`, `command-expired`.
    pub fn check_fresh(&self, command: &SignedCommand, now: Timestamp) -> Result<(), Refusal> {
        let genesis = self.genesis()?;
        if command.origin != genesis.origin {
            return Err(Refusal::denied(
                "wrong-ledger",
                "this command is meant for another ledger",
            )
            .expected(&genesis.origin)
            .received(&command.origin));
        }
        if self.nonces.contains_key(&command.nonce) {
            return Err(
                Refusal::denied("nonce-replayed", "this was already used once")
                    .expected("a nonce that was never used")
                    .next("sign it again"),
            );
        }
        let life = command.expires.ms_since(command.issued);
        if command.expires < command.issued
            || life > SignedCommand::MAX_LIFE_MS
            || now >= command.expires
        {
            return Err(
                Refusal::denied("command-expired", "this command has expired")
                    .expected(&format!("a command that expires after {now}"))
                    .received(&format!(
                        "issued {}, expires {}",
                        command.issued, command.expires
                    ))
                    .next("give the command again"),
            );
        }
        Ok(())
    }

    /// Takes a nonce, and forgets those that are worthless by now.
    pub(crate) fn take_nonce(
        &mut self,
        nonce: String,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if self.nonces.contains_key(&nonce) {
            return Err(
                Refusal::denied("nonce-replayed", "this was already used once")
                    .expected("a nonce that was never used")
                    .next("sign it again"),
            );
        }
        // Forgetting is part of the fold, so it depends on the entries alone; it walks over all
        // nonces, so it is not done with each.
        const FORGET_EVERY_ENTRIES: LedgerIndex = 256;
        if self.next.is_multiple_of(FORGET_EVERY_ENTRIES) {
            let standing = self.nonces.iter().filter(|(_, until)| **until > now);
            self.nonces = standing
                .map(|(nonce, until)| (nonce.clone(), *until))
                .collect();
        }
        self.nonces.insert(nonce, expires);
        Ok(())
    }

    /// The act is only for a person who is active.
    pub(crate) fn require_active_human(&self, event: &Event) -> Result<(), Refusal> {
        let human = event.actor.require_human()?;
        self.inventory.human(human)?;
        Ok(())
    }

    /// The act is only for the server itself: an active service with the role `control`.
    pub(crate) fn require_control(&self, event: &Event) -> Result<(), Refusal> {
        let refusal = || {
            Refusal::denied("not-a-service", "only the server does this")
                .expected("a service with the role control")
                .received(&event.actor.principal.to_string())
        };
        match &event.actor.principal {
            // Its record's expiry is for people to notice, not for the ledger to die of: the server
            // must be able to bring the renewed record into force.
            Principal::Service(id) => {
                let active = self.inventory.services.get(id).is_some_and(|record| {
                    record.standing == Standing::Active
                        && record.manifest.roles.contains(&ServiceRole::Control)
                });
                if active { Ok(()) } else { Err(refusal()) }
            }
            Principal::Human(_)
            | Principal::Agent(..)
            | Principal::Host(_)
            | Principal::Unknown => Err(refusal()),
        }
    }

    /// The policy in force.
    pub fn policy(&self) -> Option<Digest> {
        self.inventory.policy.as_ref().map(|policy| policy.digest)
    }

    /// Checks that a decision was made under the policy in force.
    pub(crate) fn check_decision(
        &self,
        decision: &portcullis_model::event::DecisionRecord,
    ) -> Result<(), Refusal> {
        if Some(decision.policy) == self.policy() && decision.at <= self.next {
            return Ok(());
        }
        Err(
            Refusal::conflict("policy-changed", "another policy came into force meanwhile")
                .next("try again: the request is decided anew"),
        )
    }
}

/// Looks an entity up.
pub(crate) fn find<'a, K: Ord + std::fmt::Display, V>(
    what: &str,
    map: &'a OrdMap<K, Arc<V>>,
    id: &K,
) -> Result<&'a Arc<V>, Refusal> {
    map.get(id).ok_or_else(|| Refusal::not_found(what, id))
}

/// Changes an entity that may come to its end.
pub(crate) fn edit_in<K: Ord + Clone + std::fmt::Display, V: Ends + Clone>(
    what: &str,
    entities: &mut Entities<K, V>,
    id: &K,
    edit: impl FnOnce(&mut V),
) -> Result<(), Refusal> {
    entities
        .edit(id, edit)
        .ok_or_else(|| Refusal::not_found(what, id))
}

/// Changes an entity in place.
pub(crate) fn change_in<K: Ord + Clone + std::fmt::Display, V: Clone>(
    what: &str,
    map: &mut OrdMap<K, Arc<V>>,
    id: &K,
    edit: impl FnOnce(&mut V),
) -> Result<(), Refusal> {
    let entity = map
        .get_mut(id)
        .ok_or_else(|| Refusal::not_found(what, id))?;
    edit(Arc::make_mut(entity));
    Ok(())
}
