//! Effects on the world outside: intent, attempt, outcome.
//!
//! The intent is the grant: whatever it takes is checked here, before anything happens. A restart
//! finds every intent without an outcome, observes the world, and only then repeats.

use std::sync::Arc;

use portcullis_model::event::{
    CheckVerdict, Effect, EffectAttempted, EffectConcluded, EffectIntended, EffectOutcome,
    TestVerdict,
};
use portcullis_model::statement::Carry;
use portcullis_model::{
    ChangeId, Event, GitOid, LedgerIndex, Mode, Refusal, RepositoryId, RequestId,
};
use serde::{Deserialize, Serialize};

use crate::change::{
    ChangeStatus, Segment, SegmentProof, landing_floor, subject_of as approval_subject,
};
use crate::state::{State, change_in, edit_in, find};
use crate::{approval, breaker, together};

/// Most tries of one effect before it is an incident: a defect does not heal by repetition.
pub const ATTEMPTS_MAX: u32 = 5;

/// Why a request is withdrawn whose landing did not succeed; people are asked anew.
pub const LANDING_FAILED: &str = "landing-failed";

/// An effect under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EffectState {
    /// Index of its intent.
    pub id: LedgerIndex,
    /// What.
    pub effect: Effect,
    /// Tries so far.
    pub attempts: u32,
}

/// What the effect with this id does, while it is under way.
pub fn subject_of(state: &State, id: LedgerIndex) -> Option<&Effect> {
    state.effects.get(&id).map(|effect| &effect.effect)
}

/// Something outside is about to be changed.
pub(crate) fn intended(
    state: &mut State,
    event: &Event,
    body: &EffectIntended,
) -> Result<(), Refusal> {
    state.require_control(event)?;
    let key = body.effect.idempotency_key();
    if state
        .effects
        .values()
        .any(|other| other.effect.idempotency_key() == key)
    {
        return Err(Refusal::conflict(
            "effect-under-way",
            format!("{key} is under way already"),
        ));
    }
    match &body.effect {
        Effect::Land { .. } => {
            let decision = body
                .decision
                .as_ref()
                .ok_or_else(|| Refusal::denied("decision-missing", "a landing takes a decision"))?;
            state.check_decision(decision)?;
            check_landing(state, event, &body.effect)?;
            together::add_part(state, event.index, &body.effect);
        }
        Effect::TakeBack { .. } => together::check_take_back(state, &body.effect)?,
        Effect::StartRelease { release } => {
            let release = find("release", &state.releases, release)?;
            if release.revoked {
                return Err(Refusal::denied(
                    "release-revoked",
                    format!("{} is revoked", release.id),
                ));
            }
        }
        Effect::StopRelease { release } => {
            let release = find("release", &state.releases, release)?;
            let environment = find("environment", &state.environments, &release.environment)?;
            if environment.stable == Some(release.id) {
                return Err(Refusal::denied(
                    "release-serving",
                    format!("{} serves all traffic", release.id),
                ));
            }
        }
        Effect::SetTraffic {
            rollout,
            epoch,
            weight,
        } => {
            let rollout = find("rollout", &state.rollouts, rollout)?;
            if rollout.epoch != *epoch || rollout.weight != *weight {
                return Err(Refusal::conflict("stale-epoch", "the rollout has moved on")
                    .expected(&format!(
                        "epoch {} weight {}",
                        rollout.epoch, rollout.weight
                    ))
                    .received(&format!("epoch {epoch} weight {weight}")));
            }
        }
    }
    let effect = EffectState {
        id: event.index,
        effect: body.effect.clone(),
        attempts: 0,
    };
    state.effects.insert(event.index, Arc::new(effect));
    Ok(())
}

/// A landing takes: the newest revision, checks that don't block, tests that passed or that the
/// base does not configure, the approvals that the request asks, the branch where the revision
/// stands, and no breaker over an agent's work.
fn check_landing(state: &mut State, event: &Event, effect: &Effect) -> Result<(), Refusal> {
    let Effect::Land {
        change,
        revision,
        repository,
        branch,
        old,
        new,
        tree,
        request,
        prepared,
        together,
    } = effect
    else {
        return Ok(());
    };
    let change = Arc::clone(find("change", &state.changes, change)?);
    let latest = change.latest();
    let pushed = &latest.pushed;
    // What lands is what was pushed, or what was prepared of it.
    let ready = latest
        .prepared
        .as_ref()
        .filter(|one| Some(one.entry) == *prepared);
    let (head, signed_tree, base) = match (&ready, prepared) {
        (Some(one), _) => (&one.made.head, &one.made.tree, &one.made.base),
        (None, None) => (&pushed.head, &pushed.tree, &pushed.base),
        (None, Some(entry)) => {
            return Err(Refusal::conflict(
                "prepared-superseded",
                format!("what entry {entry} prepared is not what would land"),
            ));
        }
    };
    if change.status != ChangeStatus::Open
        || latest.number != *revision
        || change.repository != *repository
        || change.branch != *branch
        || head != new
        || signed_tree != tree
        || base != old
    {
        return Err(Refusal::conflict(
            "revision-superseded",
            "what lands is not the newest revision",
        ));
    }
    together::check_part(state, event.index, &change, *together)?;
    let enforced = event.mode == Mode::Enforce;
    let blocked = latest
        .checks
        .as_ref()
        .is_none_or(|checks| checks.verdict == CheckVerdict::Block);
    let untested = latest.tests.as_ref().is_none_or(|tests| {
        !matches!(
            tests.verdict,
            TestVerdict::Passed | TestVerdict::NotConfigured
        )
    });
    if enforced && (blocked || untested) {
        return Err(
            Refusal::denied("not-landable", format!("{} can't land", change.id))
                .expected("checks that do not block, and tests that passed")
                .received(&format!(
                    "checks {:?}, tests {:?}",
                    latest.checks.as_ref().map(|checks| checks.verdict),
                    latest.tests.as_ref().map(|tests| tests.verdict)
                )),
        );
    }
    let key = (repository.clone(), branch.clone());
    crate::queue::require_going(state, &key)?;
    let asked = match request {
        Some(id) => {
            let request = approval::require_satisfied(state, *id, event.time)?;
            if request.subject != approval_subject(&change) {
                return Err(Refusal::denied(
                    "statement-mismatch",
                    "the approvals are for something else",
                ));
            }
            Some(request)
        }
        None if landing_floor(state, &change).is_some() => {
            return Err(Refusal::denied(
                "production-needs-a-human",
                "landing here deploys to production",
            )
            .expected("a human's approval"));
        }
        None => None,
    };
    if let Some(prepared) = ready {
        crate::queue::check_prepared(latest, prepared, asked.as_deref(), enforced)?;
    }
    if change.by_agent() {
        for agent in change.agents() {
            breaker::require_closed(state, Some(agent), [repository], None)?;
        }
        breaker::require_closed(state, None, [repository], None)?;
    }
    let known = state
        .branches
        .get_mut(&key)
        .ok_or_else(|| Refusal::not_found("branch", branch))?;
    if known.tip != *old || known.landing.is_some() {
        return Err(
            Refusal::conflict("base-moved", format!("{branch} moved meanwhile"))
                .expected(old.as_str())
                .received(known.tip.as_str())
                .next("fetch, rebase onto the branch and push again"),
        );
    }
    Arc::make_mut(known).landing = Some(event.index);
    Ok(())
}

/// The change outside is being tried.
pub(crate) fn attempted(
    state: &mut State,
    event: &Event,
    body: &EffectAttempted,
) -> Result<(), Refusal> {
    state.require_control(event)?;
    let effect = find("effect", &state.effects, &body.effect)?;
    if body.attempt != effect.attempts + 1 || body.attempt > ATTEMPTS_MAX {
        return Err(
            Refusal::conflict("attempts", "the attempts are counted one by one")
                .expected(&format!(
                    "attempt {} of at most {ATTEMPTS_MAX}",
                    effect.attempts + 1
                ))
                .received(&body.attempt.to_string()),
        );
    }
    together::require_turn(state, body.effect, &effect.effect)?;
    change_in("effect", &mut state.effects, &body.effect, |effect| {
        effect.attempts += 1
    })
}

/// How an effect ended; its consequences are state from here on.
pub(crate) fn concluded(
    state: &mut State,
    event: &Event,
    body: &EffectConcluded,
) -> Result<(), Refusal> {
    state.require_control(event)?;
    let effect = Arc::clone(find("effect", &state.effects, &body.effect)?);
    state.effects.remove(&body.effect);
    match (&effect.effect, body.outcome) {
        (
            Effect::Land {
                together: Some(task),
                ..
            },
            _,
        ) => together::concluded(state, event, body, &effect, *task),
        (
            Effect::Land {
                together: None,
                change,
                repository,
                branch,
                old,
                new,
                request,
                ..
            },
            outcome,
        ) => {
            let ended = Ended {
                key: (repository.clone(), branch.clone()),
                change: *change,
                old,
                new,
                request: *request,
            };
            match outcome {
                EffectOutcome::Done => ended.done(state, event.index),
                EffectOutcome::Failed | EffectOutcome::Unknown => ended.not_done(state),
            }
        }
        (Effect::TakeBack { landing, .. }, outcome) => {
            together::taken_back(state, event, *landing, outcome)
        }
        (Effect::StartRelease { release }, outcome) => {
            edit_in("release", &mut state.releases, release, |release| {
                release.started = outcome == EffectOutcome::Done;
                release.start_failed = outcome != EffectOutcome::Done;
            })
        }
        (Effect::SetTraffic { rollout, epoch, .. }, EffectOutcome::Done) => {
            let time = event.time;
            edit_in("rollout", &mut state.rollouts, rollout, |rollout| {
                if rollout.epoch == *epoch {
                    rollout.applied = true;
                    rollout.step_since = time;
                }
            })
        }
        (Effect::StopRelease { release }, EffectOutcome::Done) => {
            edit_in("release", &mut state.releases, release, |release| {
                release.started = false
            })
        }
        (Effect::SetTraffic { .. } | Effect::StopRelease { .. }, _) => Ok(()),
    }
}

/// A landing that is over.
pub(crate) struct Ended<'a> {
    pub(crate) key: (RepositoryId, String),
    pub(crate) change: ChangeId,
    pub(crate) old: &'a GitOid,
    pub(crate) new: &'a GitOid,
    pub(crate) request: Option<RequestId>,
}

impl Ended<'_> {
    /// The branch moved; `entry` says so.
    pub(crate) fn done(self, state: &mut State, entry: LedgerIndex) -> Result<(), Refusal> {
        if let Some(known) = state.branches.get_mut(&self.key) {
            let known = Arc::make_mut(known);
            known.landing = None;
            known.tip = self.new.clone();
            known.segments.push_back(Segment {
                from: Some(self.old.clone()),
                to: self.new.clone(),
                proof: SegmentProof::Landed(self.change),
            });
        }
        if let Some(request) = self.request {
            approval::use_up(state, request)?;
        }
        let landed = ChangeStatus::Landed {
            commit: self.new.clone(),
            entry,
        };
        edit_in("change", &mut state.changes, &self.change, |change| {
            change.status = landed
        })
    }

    /// It did not, or nobody knows: it is not tried again on the old word.
    pub(crate) fn not_done(self, state: &mut State) -> Result<(), Refusal> {
        if let Some(known) = state.branches.get_mut(&self.key) {
            Arc::make_mut(known).landing = None;
        }
        match self.request {
            // A no that came meanwhile stays a no, and keeps no outcome from being recorded.
            Some(request) => {
                if find("request", &state.requests, &request)?.status == approval::Status::Open {
                    approval::withdraw(state, request, LANDING_FAILED)?;
                }
                Ok(())
            }
            None => crate::change::landing_failed(state, self.change),
        }
    }
}

/// Whether a change is landing: its branch is about to move, or did and waits for others.
pub fn is_landing(state: &State, id: ChangeId) -> bool {
    let alone = state
        .effects
        .values()
        .any(|effect| matches!(&effect.effect, Effect::Land { change, .. } if *change == id));
    let mut joints = state.together.values();
    alone || joints.any(|joint| joint.parts.iter().any(|part| part.change == id))
}

/// Whether an approval of a request is for its exact base only.
pub fn is_exact(request: &approval::Request) -> bool {
    request
        .approvals
        .iter()
        .any(|approval| approval.carry == Carry::Exact)
}

/// Whether every approval that counts for a request may move to a later base.
pub fn may_carry(request: &approval::Request) -> bool {
    !request.approvals.is_empty()
        && request
            .approvals
            .iter()
            .all(|approval| approval.carry == Carry::SameDiff)
}
