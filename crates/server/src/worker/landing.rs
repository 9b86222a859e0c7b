//! Landing: policy is asked, humans are asked, and what they approved moves the branch, exactly.

use std::collections::BTreeSet;
use std::sync::Arc;

use portcullis_flow::approval::Status;
use portcullis_flow::change::{
    Branch, Change, ChangeStatus, evidence_digest, landing_floor, subject_of,
};
use portcullis_flow::effect::ATTEMPTS_MAX;
use portcullis_flow::{Command as Recording, State, together};
use portcullis_gateway::git::land::{Land, Landed};
use portcullis_model::event::{
    Effect, EffectAttempted, EffectConcluded, EffectIntended, EffectOutcome, IncidentOpened,
    Needed, RequestOpened, RequestWithdrawn,
};
use portcullis_model::{
    ChangeId, KeyClass, LedgerIndex, Principal, Recorded, Recorder as _, Refusal, RefusalKind,
    RequestId, TaskId,
};
use portcullis_policy::action::{Action, ChangeLand};
use portcullis_policy::request::CausedBy;
use portcullis_policy::{Approvals, Circumstances, Permit, Request};

use crate::app::{App, Verdict, control, now};
use crate::facts;
use crate::fault::{self, FaultPoint};
use crate::worker::queue::{self, AtTip};
use crate::worker::{record, rollout};

/// Asks policy whether a revision may land: it lands, humans are asked, or it stays.
///
/// # Errors
/// The ledger can't be written, or the revision was superseded.
pub async fn decide(app: &App, id: ChangeId, number: u64) -> Result<(), Refusal> {
    let state = app.state();
    let change = state
        .changes
        .get(&id)
        .ok_or_else(|| Refusal::not_found("change", id))?;
    if change.latest().number != number || change.status != ChangeStatus::Open {
        return Ok(());
    }
    match verdict(app, &state, id, Approvals::default()).await? {
        // It waits for the others, and policy is asked again when all of them land.
        Verdict::Permit(..) if together::task_of(&state, change).is_some() => Ok(()),
        Verdict::Permit(..) => land(app, id, number, None).await,
        // What is denied stays as it is; `change explain` tells why, and a new revision is a new
        // question.
        Verdict::No(_, _, None) => Ok(()),
        Verdict::No(_, decision, Some(ask)) => {
            let floor = landing_floor(&state, change).unwrap_or(KeyClass::Software);
            let revision = change.latest();
            let run = revision.run.and_then(|run| state.runs.get(&run));
            let body = RequestOpened {
                subject: subject_of(change),
                task: run.map(|run| run.task),
                checks: evidence_digest(revision),
                needed: Needed {
                    humans: ask.needed.humans.max(1),
                    parties: ask.needed.parties.max(1),
                    key_class: ask.needed.key_class.max(floor),
                    administrators: ask.needed.administrators,
                },
                party: change.party.clone(),
                because: ask.rules.iter().map(ToString::to_string).collect(),
                decision,
                expires: now().plus_ms(portcullis_flow::approval::REQUEST_LIFE_MS),
                envelope: None,
            };
            record(app, body).await
        }
    }
}

/// Policy's answer about landing the newest revision of a change.
///
/// # Errors
/// The change is unknown or the repository's own policy does not load.
pub async fn verdict(
    app: &App,
    state: &State,
    id: ChangeId,
    approvals: Approvals,
) -> Result<Verdict, Refusal> {
    let change = state
        .changes
        .get(&id)
        .ok_or_else(|| Refusal::not_found("change", id))?;
    let revision = change.latest();
    let run = revision.run.and_then(|run| state.runs.get(&run));
    let record = state.inventory.repository(&change.repository)?;
    let deploys = facts::deploys_to(state, &change.repository, &change.branch);
    let agents: BTreeSet<_> = change.agents();
    // On a later base, what counts is what ran again there.
    let moved = revision
        .prepared
        .as_ref()
        .filter(|prepared| !prepared.keeps_base(revision))
        .and_then(|prepared| Some((&prepared.made.base, prepared.tested.as_ref()?)));
    let reaches = match deploys {
        portcullis_policy::action::Deploys::Nothing => None,
        portcullis_policy::action::Deploys::To(sensitivity) => Some(sensitivity),
    };
    let action = Action::ChangeLand(ChangeLand {
        repository: change.repository.clone(),
        reference: format!("refs/heads/{}", change.branch),
        change: id,
        task: run.and_then(|run| facts::task(state, run.task, Some(run), now())),
        protected: facts::is_protected(record, &change.branch),
        by_agent: change.by_agent(),
        checks: match moved {
            Some((_, tested)) => Some(tested.checks),
            None => revision.checks.as_ref().map(|checks| checks.verdict),
        },
        escalations: match moved {
            Some((_, tested)) => tested.escalations.clone(),
            None => revision
                .checks
                .as_ref()
                .map(|checks| checks.escalations.clone())
                .unwrap_or_default(),
        },
        tests: match moved {
            Some((_, tested)) => Some(tested.tests),
            None => revision.tests.as_ref().map(|tests| tests.verdict),
        },
        deploys_to: deploys,
        above_ceiling: facts::above_ceiling(state, &agents, reaches),
        model_changes: facts::model_changes(state, change),
        approvals,
    });
    let halted = change.by_agent()
        && (app
            .halted_for(state, None, &[&change.repository], None)
            .is_some()
            || agents
                .iter()
                .any(|agent| app.halted_for(state, Some(agent), &[], None).is_some()));
    // Policy judges the author: the run's agent, or the person who pushed.
    let (actor, caused_by) = match run {
        Some(run) => (facts::run_actor(state, run, now()), CausedBy::Agent),
        None => match change.party.0.iter().find_map(Principal::human) {
            Some(person) if !change.by_agent() => (facts::human(state, person), CausedBy::Itself),
            Some(person) => (facts::human(state, person), CausedBy::Agent),
            None => (portcullis_policy::Actor::Unknown, CausedBy::Unknown),
        },
    };
    let circumstances = Circumstances {
        caused_by,
        containment: run.map(|run| run.containment),
        mode: record.mode,
        taint: facts::taint_of_change(state, change),
        breaker: halted,
        ..facts::circumstances(state, now())?
    };
    let question = Request {
        actor,
        circumstances,
        action,
    };
    let own = app
        .repository_policy(
            state,
            &change.repository,
            moved.map_or(&revision.pushed.base, |(base, _)| base),
        )
        .await?;
    Ok(app.decide(state, &question, &own))
}

/// Lands a revision: asks policy with the approvals that stand, records the intent, and leaves the
/// rest to [`effect`].
///
/// # Errors
/// Policy says no, or the state moved on.
pub async fn land(
    app: &App,
    id: ChangeId,
    number: u64,
    request: Option<RequestId>,
) -> Result<(), Refusal> {
    let state = app.state();
    let change = state
        .changes
        .get(&id)
        .ok_or_else(|| Refusal::not_found("change", id))?;
    let revision = change.latest();
    if revision.number != number {
        return Ok(());
    }
    let prepared = match queue::at_tip(app, &state, change).await? {
        AtTip::AsPushed => None,
        AtTip::Prepared(entry) => Some(entry),
        AtTip::NotYet => return Ok(()),
    };
    intend(app, &state, change, request, prepared).await
}

/// Lands what was prepared and tested in the queue.
///
/// # Errors
/// Policy says no, or the state moved on.
pub async fn land_prepared(
    app: &App,
    id: ChangeId,
    number: u64,
    entry: LedgerIndex,
) -> Result<(), Refusal> {
    let state = app.state();
    let change = state
        .changes
        .get(&id)
        .ok_or_else(|| Refusal::not_found("change", id))?;
    let revision = change.latest();
    if revision.number != number {
        return Ok(());
    }
    match intend(app, &state, change, revision.request, Some(entry)).await {
        Err(refusal) => make_room(app, change, refusal).await,
        done => done,
    }
}

/// What policy does not let in any more makes room for what stands behind it in its queue.
pub(super) async fn make_room(app: &App, change: &Change, refusal: Refusal) -> Result<(), Refusal> {
    match change.latest().request {
        Some(request)
            if matches!(
                refusal.kind,
                RefusalKind::Denied | RefusalKind::NeedsApproval
            ) =>
        {
            tracing::info!(change = %change.id, error.code = refusal.code, "not landed: {refusal}");
            let body = RequestWithdrawn {
                request,
                code: "landing-denied".to_owned(),
            };
            record(app, body).await
        }
        Some(_) | None => Err(refusal),
    }
}

async fn intend(
    app: &App,
    state: &State,
    change: &Change,
    request: Option<RequestId>,
    prepared: Option<LedgerIndex>,
) -> Result<(), Refusal> {
    let (permit, body) = intent(app, state, change, request, prepared, None).await?;
    let recorded = app
        .ledger
        .record(permit, Recording::one(control(), body))
        .await?;
    // The worker finds the intent in the state and performs it, now or after a restart.
    drop(recorded);
    Ok(())
}

/// What landing a change takes: policy's word now, and the intent to record.
pub(super) async fn intent(
    app: &App,
    state: &State,
    change: &Change,
    request: Option<RequestId>,
    prepared: Option<LedgerIndex>,
    together: Option<TaskId>,
) -> Result<(Permit, EffectIntended), Refusal> {
    let revision = change.latest();
    let approvals = request
        .and_then(|id| state.requests.get(&id))
        .map(|request| facts::approvals(state, request, now()))
        .unwrap_or_default();
    let (permit, decision) = verdict(app, state, change.id, approvals)
        .await?
        .into_permit()?;
    let pushed = &revision.pushed;
    let ready = revision
        .prepared
        .as_ref()
        .filter(|ready| Some(ready.entry) == prepared)
        .map(|ready| &ready.made);
    let (old, new, tree) = match ready {
        Some(made) => (&made.base, &made.head, &made.tree),
        None => (&pushed.base, &pushed.head, &pushed.tree),
    };
    let effect = Effect::Land {
        change: change.id,
        revision: revision.number,
        repository: change.repository.clone(),
        branch: change.branch.clone(),
        old: old.clone(),
        new: new.clone(),
        tree: tree.clone(),
        request,
        prepared,
        together,
    };
    let body = EffectIntended {
        effect,
        decision: Some(decision),
    };
    Ok((permit, body))
}

/// Brings an effect to its end: observe, then try, then observe again.
///
/// A restart finds the intent, with or without attempts. It looks at the world first, so what was
/// done before the crash is concluded as done and not repeated.
///
/// # Errors
/// It could not be tried now; it stays under way.
pub async fn effect(app: &Arc<App>, id: LedgerIndex) -> Result<(), Refusal> {
    let state = app.state();
    let Some(known) = state.effects.get(&id) else {
        return Ok(());
    };
    let effect = known.effect.clone();
    if known.attempts > 0
        && let Some(outcome) = observe(app, &state, &effect).await?
    {
        return conclude(app, id, outcome, None).await;
    }
    if known.attempts >= ATTEMPTS_MAX {
        conclude(app, id, EffectOutcome::Unknown, Some("attempts-used-up")).await?;
        let body = IncidentOpened {
            code: "effect-unknown".to_owned(),
            about: Some(id),
            facts: [("key".to_owned(), effect.idempotency_key())].into(),
        };
        return record(app, body).await;
    }
    if known.attempts == 0 && together::is_spoilt(&state, &effect) {
        return conclude(app, id, EffectOutcome::Failed, Some(together::FAILED)).await;
    }
    fault::reach(FaultPoint::Intended);
    let body = EffectAttempted {
        effect: id,
        attempt: known.attempts + 1,
    };
    // The intent was the grant; the recorded attempt is leave to act on it once.
    let attempt = app
        .ledger
        .record((), Recording::one(control(), body))
        .await?;
    fault::reach(FaultPoint::Attempted);
    let (outcome, code) = match &effect {
        Effect::Land { .. } => perform_landing(app, &effect, attempt).await?,
        Effect::TakeBack { .. } => super::together::perform(app, &effect, attempt).await?,
        Effect::StartRelease { .. } | Effect::SetTraffic { .. } | Effect::StopRelease { .. } => {
            rollout::perform(app, &effect).await?
        }
    };
    fault::reach(FaultPoint::Performed);
    conclude(app, id, outcome, code.as_deref()).await
}

async fn conclude(
    app: &App,
    effect: LedgerIndex,
    outcome: EffectOutcome,
    code: Option<&str>,
) -> Result<(), Refusal> {
    let state = app.state();
    let body = EffectConcluded {
        effect,
        outcome,
        code: code.map(str::to_owned),
    };
    let mut bodies = vec![body.into()];
    if let Some(known) = state.effects.get(&effect)
        && together::comes_apart(known, outcome)
    {
        tracing::error!(
            effect,
            "a task's changes landed in part: {:?}",
            known.effect
        );
        bodies.push(super::together::incident(&state, known, code).into());
    }
    let recording = Recording::of(control(), bodies);
    app.ledger.submit(recording).await.map(|_| ())
}

/// What the world says of an effect that was tried before; none if it must be tried again.
async fn observe(
    app: &App,
    state: &State,
    effect: &Effect,
) -> Result<Option<EffectOutcome>, Refusal> {
    let (Effect::Land {
        repository,
        branch,
        new,
        ..
    }
    | Effect::TakeBack {
        repository,
        branch,
        to: new,
        ..
    }) = effect
    else {
        return Ok(None);
    };
    let mirror = app.mirrors.get(state, repository).await?;
    let stands = mirror.repository.observe(branch, mirror.access()).await?;
    Ok((stands.as_ref() == Some(new)).then_some(EffectOutcome::Done))
}

/// Moves the branch by compare-and-swap, after other code computed the same tree, and reads it
/// back.
async fn perform_landing(
    app: &App,
    effect: &Effect,
    attempt: Recorded<()>,
) -> Result<(EffectOutcome, Option<String>), Refusal> {
    let state = app.state();
    let (change, land) = land_of(&state, effect)?;
    let mirror = app.mirrors.get(&state, &change.repository).await?;
    match mirror
        .repository
        .land(attempt, &land, mirror.access())
        .await
    {
        Landed::Done { .. } => Ok((EffectOutcome::Done, None)),
        Landed::Failed(refusal) => {
            tracing::warn!(error.code = refusal.code, "a landing failed: {refusal}");
            if refusal.code == "landing-mismatch" {
                queue::halt(app, change, &refusal).await?;
            }
            Ok((EffectOutcome::Failed, Some(refusal.code)))
        }
        // The intent stays: the next look observes before it tries again.
        Landed::Unknown(refusal) => Err(refusal),
    }
}

/// The change of a landing, and what shall move how.
pub(super) fn land_of<'a>(
    state: &'a State,
    effect: &Effect,
) -> Result<(&'a Change, Land), Refusal> {
    let Effect::Land {
        branch,
        old,
        new,
        tree,
        change,
        prepared,
        ..
    } = effect
    else {
        return Err(Refusal::internal("not a landing"));
    };
    let change = state
        .changes
        .get(change)
        .ok_or_else(|| Refusal::not_found("change", change))?;
    let pushed = &change.latest().pushed;
    let land = Land {
        branch: branch.clone(),
        old: old.clone(),
        new: new.clone(),
        tree: tree.clone(),
        diff_of: prepared.map(|_| (pushed.base.clone(), pushed.head.clone())),
    };
    Ok((change, land))
}

/// What keeps the newest revision from landing, for people and programs.
///
/// # Errors
/// The change is unknown.
pub async fn explain(app: &App, state: &State, id: ChangeId) -> Result<String, Refusal> {
    let change = state
        .changes
        .get(&id)
        .ok_or_else(|| Refusal::not_found("change", id))?;
    match &change.status {
        ChangeStatus::Landed { commit, .. } => return Ok(format!("landed as {commit}")),
        ChangeStatus::Closed => return Ok("closed".to_owned()),
        ChangeStatus::Open => {}
    }
    let revision = change.latest();
    let branch = state
        .branches
        .get(&(change.repository.clone(), change.branch.clone()));
    let key = (change.repository.clone(), change.branch.clone());
    if let Some(halt) = state.halted_queues.get(&key) {
        return Ok(format!(
            "nothing lands on {} since entry {}: {} at {}; a person looks, then \
             `portcullis queue resume {} {} --why TEXT`",
            change.branch, halt.entry, halt.code, halt.change, change.repository, change.branch
        ));
    }
    if let Some(branch) = branch.filter(|branch| branch.tip != revision.pushed.base) {
        return Ok(explain_moved(state, change, branch));
    }
    if revision.checks.is_none() || revision.tests.is_none() {
        return Ok("checks and tests are under way".to_owned());
    }
    if let Some(waits) = super::together::explain(state, change) {
        return Ok(waits);
    }
    if let Some(request) = revision.request.and_then(|id| state.requests.get(&id)) {
        let tally = portcullis_flow::approval::tally(state, request, now());
        return Ok(format!(
            "{}: {:?}, {} of {} approvals",
            request.id, request.status, tally.humans, request.needed.humans
        ));
    }
    match verdict(app, state, id, Approvals::default()).await? {
        Verdict::Permit(..) => Ok("it may land".to_owned()),
        Verdict::No(refusal, ..) => Ok(refusal.to_string()),
    }
}

/// What a change does whose branch moved on.
fn explain_moved(state: &State, change: &Change, branch: &Branch) -> String {
    let revision = change.latest();
    let key = (change.repository.clone(), change.branch.clone());
    let line = portcullis_flow::queue::line(state, &key, branch, now());
    if let Some(place) = line
        .places
        .iter()
        .position(|place| place.change.id == change.id)
    {
        return format!(
            "{} moved on, and the approvals move with it: it stands at place {} of the queue, as {}",
            change.branch,
            place + 1,
            line.places
                .get(place)
                .map_or("", |place| place.prepared.made.head.short())
        );
    }
    let waits = revision.request.is_some() && line.next.iter().any(|next| next.id == change.id);
    if waits {
        return format!(
            "{} moved on: it is made ready on its new tip",
            change.branch
        );
    }
    let asked = revision
        .request
        .and_then(|id| state.requests.get(&id))
        .filter(|request| request.is_open(now()));
    if let Some(request) = asked {
        return format!(
            "{} moved since the change was made: portcullis approve {} --carry same-diff, or \
             fetch, rebase onto it and push again",
            change.branch, request.id
        );
    }
    let because = revision
        .request
        .and_then(|id| state.requests.get(&id))
        .and_then(|request| match &request.status {
            Status::Withdrawn { code } if code != "base-moved" => Some(format!(" ({code})")),
            _ => None,
        })
        .unwrap_or_default();
    format!(
        "{} moved since the change was made{because}: fetch, rebase onto it and push again",
        change.branch
    )
}
