//! Releases: artifacts admitted to environments, each covering every commit since the last.

use std::sync::Arc;

use imbl::Vector;
use portcullis_model::event::{
    EnvironmentReverted, ReleaseAdmitted, ReleaseRevoked, RequestOpened,
};
use portcullis_model::manifest::Sensitivity;
use portcullis_model::statement::{ApprovalSubject, Command};
use portcullis_model::{
    ArtifactId, ChangeId, EnvironmentId, Event, Party, Principal, Refusal, ReleaseId, RequestId,
    RolloutId,
};
use serde::{Deserialize, Serialize};

use crate::change::{Branch, SegmentProof};
use crate::entities::Ends;
use crate::inventory::mismatch;
use crate::state::{State, change_in, edit_in, find};
use crate::{approval, breaker, rollout};

/// A release.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Its id.
    pub id: ReleaseId,
    /// What.
    pub artifact: ArtifactId,
    /// Where.
    pub environment: EnvironmentId,
    /// Changes in it since the last.
    pub changes: Vec<ChangeId>,
    /// Whether any of them is an agent's work.
    pub agent_work: bool,
    /// The request that allowed it.
    pub request: Option<RequestId>,
    /// Whether it can't be returned to any more.
    pub revoked: bool,
    /// Whether its process runs, as far as we know.
    pub started: bool,
    /// Whether its process did not start.
    pub start_failed: bool,
    /// Whether it ever completed a rollout.
    pub completed: bool,
    /// Whether a rollout of it ever began.
    pub rolled_out: bool,
}

impl Ends for Release {
    /// There is nothing to do but to begin its one rollout.
    fn is_over(&self) -> bool {
        self.rolled_out || self.revoked
    }
}

/// What runs in an environment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentState {
    /// The release that serves.
    pub stable: Option<ReleaseId>,
    /// Releases that served before, oldest first.
    pub history: Vector<ReleaseId>,
    /// The rollout under way.
    pub rollout: Option<RolloutId>,
    /// The newest epoch given to the proxy.
    pub epoch: u64,
}

/// What a release of an artifact to an environment covers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Changes since the release that serves there, oldest first.
    pub changes: Vec<ChangeId>,
    /// Requests about commits that came past us, each satisfied.
    pub unproven: Vec<RequestId>,
    /// Whether any of it is an agent's work or of unknown cause.
    pub agent_work: bool,
}

/// Everything between the release that serves in `environment` (or the baseline) and `artifact`.
///
/// # Errors
/// Some commit is not covered: the artifact's commit is not on a governed branch, does not follow
/// the serving release, or came past us and no human approved it.
pub fn coverage(
    state: &State,
    artifact: ArtifactId,
    environment: &EnvironmentId,
) -> Result<Coverage, Refusal> {
    let artifact = find("artifact", &state.artifacts, &artifact)?;
    let running = find("environment", &state.environments, environment)?;
    let serving = running
        .stable
        .and_then(|release| state.releases.get(&release))
        .and_then(|release| state.artifacts.get(&release.artifact))
        .map(|artifact| &artifact.commit);
    let branch: &Branch = state
        .branches
        .iter()
        .find(|((repository, _), branch)| {
            *repository == artifact.repository && branch.stood_at(&artifact.commit)
        })
        .map(|(_, branch)| &**branch)
        .ok_or_else(|| {
            Refusal::denied(
                "commit-unproven",
                "the artifact's commit never was on a governed branch",
            )
            .received(artifact.commit.as_str())
        })?;
    let mut covered = Coverage::default();
    let mut inside = serving.is_none();
    let mut reached = false;
    for segment in &branch.segments {
        if inside && !reached {
            match &segment.proof {
                SegmentProof::Baseline => {}
                SegmentProof::Landed(change) => {
                    covered.changes.push(*change);
                    covered.agent_work |= state
                        .changes
                        .get(change)
                        .is_none_or(|change| change.by_agent());
                }
                SegmentProof::Unproven(request) => {
                    covered.agent_work = true;
                    let approved = state.requests.get(request).is_some_and(|request| {
                        request.satisfied_at.is_some()
                            && !matches!(request.status, approval::Status::Rejected { .. })
                    });
                    if !approved {
                        return Err(Refusal::denied(
                            "commit-unproven",
                            format!(
                                "commits up to {} came past us and no human approved them",
                                segment.to.short()
                            ),
                        )
                        .expected(&format!("{request} approved"))
                        .next(format!(
                            "portcullis request show {request}, then portcullis approve {request}"
                        )));
                    }
                    covered.unproven.push(*request);
                }
            }
        }
        if Some(&segment.to) == serving {
            inside = true;
        }
        // What came before the serving release does not follow it.
        if inside && segment.to == artifact.commit {
            reached = true;
        }
    }
    if inside && reached {
        return Ok(covered);
    }
    Err(Refusal::denied(
        "commit-unproven",
        "the artifact does not follow the release that serves",
    )
    .expected("a commit that came after the serving release's, on the same branch")
    .received(artifact.commit.as_str()))
}

/// A request for a release is for what was built, with production's floor.
pub(crate) fn check_request(state: &State, body: &RequestOpened) -> Result<(), Refusal> {
    let ApprovalSubject::Release {
        artifact,
        digest,
        environment,
        repository,
        commit,
        provenance,
    } = &body.subject
    else {
        return Err(Refusal::internal("not a release"));
    };
    let known = find("artifact", &state.artifacts, artifact)?;
    let record = state.inventory.environment(environment)?;
    if known.output.digest != *digest
        || known.repository != *repository
        || known.commit != *commit
        || known.provenance != *provenance
        || record.repository != *repository
    {
        return Err(Refusal::denied(
            "release-mismatch",
            "the request is not for what was built",
        ));
    }
    if record.sensitivity == Sensitivity::Production {
        approval::require_floor(&body.needed, state.genesis()?.key_floor.production)?;
    }
    require_party(
        state,
        &coverage(state, *artifact, environment)?,
        &body.party,
    )
}

/// Refuses a party that leaves out somebody who had a hand in what is released.
fn require_party(state: &State, covered: &Coverage, named: &Party) -> Result<(), Refusal> {
    let party = party_of(state, covered);
    if party.0.is_subset(&named.0) {
        return Ok(());
    }
    Err(Refusal::denied(
        "party-incomplete",
        "somebody who had a hand in what is released is not named",
    )
    .expected(&format!("{:?}", party.0))
    .received(&format!("{:?}", named.0))
    .next("ask for the release anew with `portcullis release new`"))
}

/// Everyone who had a hand in what a release covers; none of them approves it.
pub fn party_of(state: &State, covered: &Coverage) -> Party {
    let mut party = Party::default();
    for change in covered
        .changes
        .iter()
        .filter_map(|id| state.changes.get(id))
    {
        party.0.extend(change.party.0.iter().cloned());
    }
    if !covered.unproven.is_empty() {
        party.0.insert(Principal::Unknown);
    }
    party
}

/// An artifact is admitted. Production always takes a human's approval of exactly this release.
pub(crate) fn admitted(
    state: &mut State,
    event: &Event,
    body: &ReleaseAdmitted,
) -> Result<(), Refusal> {
    state.require_control(event)?;
    state.check_decision(&body.decision)?;
    let record = state.inventory.environment(&body.environment)?.clone();
    let artifact = find("artifact", &state.artifacts, &body.artifact)?;
    if artifact.repository != record.repository {
        return Err(Refusal::denied(
            "wrong-repository",
            "this environment runs another repository",
        )
        .expected(record.repository.as_str())
        .received(artifact.repository.as_str()));
    }
    let covered = coverage(state, body.artifact, &body.environment)?;
    if covered.changes != body.changes || covered.agent_work != body.agent_work {
        return Err(Refusal::denied(
            "coverage-mismatch",
            "the release does not say what it contains",
        )
        .expected(&format!(
            "{:?}, agent work {}",
            covered.changes, covered.agent_work
        ))
        .received(&format!(
            "{:?}, agent work {}",
            body.changes, body.agent_work
        )));
    }
    check_ceilings(state, &covered, record.sensitivity, &body.environment)?;
    if covered.agent_work {
        breaker::require_closed_for_changes(
            state,
            &covered.changes,
            &record.repository,
            &body.environment,
        )?;
    }
    match body.request {
        Some(id) => {
            let request = approval::require_satisfied(state, id, event.time)?;
            let exact = matches!(&request.subject, ApprovalSubject::Release { artifact, environment, .. }
                if *artifact == body.artifact && *environment == body.environment);
            if !exact {
                return Err(Refusal::denied(
                    "statement-mismatch",
                    "the approvals are for another release",
                ));
            }
            // What serves may have moved back since it was asked: then more people had a hand.
            require_party(state, &covered, &request.party)?;
            approval::use_up(state, id)?;
        }
        None if record.sensitivity == Sensitivity::Production => {
            return Err(Refusal::denied("production-needs-a-human", "production always takes a human's approval")
                .expected("an approved request for this release")
                .next("portcullis release new ARTIFACT --environment ENV, then portcullis approve REQUEST"));
        }
        None => {}
    }
    let environment = find("environment", &state.environments, &body.environment)?;
    if environment.rollout.is_some() {
        return Err(
            Refusal::conflict("rollout-under-way", "a rollout is under way there")
                .next("wait for its end, or `portcullis rollout abort` it"),
        );
    }
    let release = Release {
        id: ReleaseId(event.index),
        artifact: body.artifact,
        environment: body.environment.clone(),
        changes: body.changes.clone(),
        agent_work: body.agent_work,
        request: body.request,
        revoked: false,
        started: false,
        start_failed: false,
        completed: false,
        rolled_out: false,
    };
    state.releases.insert(release.id, Arc::new(release));
    Ok(())
}

/// No agent's work reaches an environment above that agent's ceiling.
fn check_ceilings(
    state: &State,
    covered: &Coverage,
    sensitivity: Sensitivity,
    environment: &EnvironmentId,
) -> Result<(), Refusal> {
    for change in &covered.changes {
        let Some(change) = state.changes.get(change) else {
            continue;
        };
        for agent in change.agents() {
            let ceiling = state
                .inventory
                .agents
                .get(agent)
                .map_or(Sensitivity::Development, |record| {
                    record.manifest.environment_ceiling
                });
            if sensitivity > ceiling {
                return Err(Refusal::denied(
                    "above-ceiling",
                    format!("{} by agent {agent} may not reach {environment}", change.id),
                )
                .expected(&format!("an environment up to {ceiling:?}"))
                .received(&format!("{sensitivity:?}"))
                .next("have the agent's `environment_ceiling` raised by a quorum"));
            }
        }
    }
    Ok(())
}

/// A release can't be returned to any more.
pub(crate) fn revoked(
    state: &mut State,
    event: &Event,
    body: &ReleaseRevoked,
) -> Result<(), Refusal> {
    state.require_active_human(event)?;
    match state.take_command(event, &body.envelope)? {
        Command::RevokeRelease { release, .. } if release == body.release => {}
        other => return Err(mismatch("revoke-release of this release", &other)),
    }
    edit_in("release", &mut state.releases, &body.release, |release| {
        release.revoked = true
    })
}

/// The release that a rollback of `environment` goes to: the rollout's stable one, else the last
/// that served before and isn't revoked.
pub fn rollback_target(state: &State, environment: &EnvironmentId) -> Option<ReleaseId> {
    let running = state.environments.get(environment)?;
    let standing = |id: &ReleaseId| {
        state
            .releases
            .get(id)
            .is_some_and(|release| !release.revoked)
    };
    if running.rollout.is_some() {
        return running.stable.filter(standing);
    }
    running
        .history
        .iter()
        .rev()
        .find(|id| standing(id))
        .copied()
}

/// The releases that one may return to: those that served before, oldest first, and the one that
/// serves. What was left by going back is not among them: that way is forward, and takes a
/// release's approvals.
pub fn returnable(running: &EnvironmentState) -> impl Iterator<Item = ReleaseId> {
    running.history.iter().copied().chain(running.stable)
}

/// An environment returns to an admitted release.
pub(crate) fn reverted(
    state: &mut State,
    event: &Event,
    body: &EnvironmentReverted,
) -> Result<(), Refusal> {
    match &body.envelope {
        Some(envelope) => {
            state.require_active_human(event)?;
            match state.take_command(event, envelope)? {
                Command::Rollback {
                    environment, to, ..
                } if environment == body.environment && (to.is_none() || to == body.to) => {}
                other => return Err(mismatch("rollback of this environment", &other)),
            }
        }
        None => state.require_control(event)?,
    }
    if let Some(to) = &body.to {
        let release = find("release", &state.releases, to)?;
        let running = find("environment", &state.environments, &body.environment)?;
        if release.revoked || !returnable(running).any(|known| known == *to) {
            return Err(
                Refusal::denied("not-returnable", format!("{to} can't be returned to"))
                    .expected("a release that was admitted here, served, and is not revoked"),
            );
        }
    }
    let running = find("environment", &state.environments, &body.environment)?;
    if body.epoch <= running.epoch {
        return Err(Refusal::conflict("stale-epoch", "the proxy has moved on")
            .expected(&format!("an epoch after {}", running.epoch))
            .received(&body.epoch.to_string()));
    }
    if let Some(rollout) = running.rollout {
        rollout::finish(state, rollout, rollout::RolloutStatus::RolledBack)?;
    }
    let (to, epoch) = (body.to, body.epoch);
    change_in(
        "environment",
        &mut state.environments,
        &body.environment,
        |running| {
            running.epoch = epoch;
            running.stable = to;
            // What served after the release returned to is not something to return to.
            if let Some(to) = to
                && let Some(at) = running.history.iter().position(|id| *id == to)
            {
                running.history.truncate(at);
            }
        },
    )
}

/// The changes that landed since the releases that serve anywhere, up to `commit`, oldest first:
/// what provenance names.
pub fn changes_since_admitted(
    state: &State,
    repository: &portcullis_model::RepositoryId,
    commit: &portcullis_model::GitOid,
) -> Vec<ChangeId> {
    let branch = state
        .branches
        .iter()
        .find(|((id, _), branch)| id == repository && branch.stood_at(commit))
        .map(|(_, branch)| branch);
    let Some(branch) = branch else {
        return Vec::new();
    };
    let position = |commit: &portcullis_model::GitOid| {
        branch
            .segments
            .iter()
            .position(|segment| segment.to == *commit)
    };
    let mine = state
        .inventory
        .environments
        .values()
        .filter(|record| record.repository == *repository)
        .filter_map(|record| state.environments.get(&record.id));
    // The environment that is furthest behind needs the longest list.
    let since = mine
        .map(|running| {
            running
                .stable
                .and_then(|release| state.releases.get(&release))
                .and_then(|release| state.artifacts.get(&release.artifact))
                .and_then(|artifact| position(&artifact.commit))
                .map_or(0, |at| at + 1)
        })
        .min()
        .unwrap_or(0);
    let until = position(commit).map_or(0, |at| at + 1);
    branch
        .segments
        .iter()
        .take(until)
        .skip(since)
        .filter_map(|segment| match &segment.proof {
            SegmentProof::Landed(change) => Some(*change),
            SegmentProof::Baseline | SegmentProof::Unproven(_) => None,
        })
        .collect()
}
