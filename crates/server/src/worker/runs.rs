//! Windows of runs: what each did so far is put to policy, and people's answers are carried out.

use portcullis_flow::review::{self, Seen};
use portcullis_flow::run::Run;
use portcullis_flow::{Command as Recording, State};
use portcullis_model::event::{
    DecisionRecord, Needed, RequestOpened, ReviewCause, RunResumed, RunReviewed, Stop,
};
use portcullis_model::statement::{ApprovalSubject, Command, ResumeWay};
use portcullis_model::{KeyClass, Party, Principal, Refusal, RequestId, RunId};
use portcullis_policy::action::{Action, RunContinue};
use portcullis_policy::{Approvals, Request};
use serde_json::{Value, json};

use crate::app::{App, Verdict, now};
use crate::facts;
use crate::intake::Verified;

/// What a stop takes where policy says no, or can't be asked: a person, who can resume it once
/// policy agrees again.
const fn anyone() -> Needed {
    Needed {
        humans: 1,
        parties: 1,
        key_class: KeyClass::Software,
        administrators: false,
    }
}

/// Puts what a run did so far to policy: it goes on, or stands still from here on.
pub(super) async fn review(app: &App, id: RunId) -> Result<(), Refusal> {
    let state = app.state();
    let run = known(&state, id)?;
    let (time, seen) = (now(), review::seen(&state, run));
    let causes = review::due(&state, run, time);
    if causes.is_empty() {
        return Ok(());
    }
    let window_over = causes.contains(&ReviewCause::Window);
    let (stop, decision) = match question(&state, run, &seen, window_over, Approvals::default()) {
        Ok(question) => match app.decide(&state, &question, &[]) {
            Verdict::Permit(_, decision) => (None, decision),
            Verdict::No(_, decision, Some(ask)) => {
                let stop = Stop {
                    needed: crate::intake::release::needed(&ask, KeyClass::Software),
                    because: ask.rules.iter().map(ToString::to_string).collect(),
                };
                (Some(stop), decision)
            }
            Verdict::No(refusal, decision, None) => (Some(in_doubt(&refusal)), decision),
        },
        // What can't be asked is a no.
        Err(refusal) => (Some(in_doubt(&refusal)), app.state_decision(&state)),
    };
    if stop.is_some() {
        tracing::info!(run = %id, "a run stands still until people let it go on");
    }
    super::record(
        app,
        RunReviewed {
            run: id,
            window: run.window,
            causes,
            taint: seen.taint,
            stop,
            decision,
        },
    )
    .await
}

fn in_doubt(refusal: &Refusal) -> Stop {
    Stop {
        needed: anyone(),
        because: vec![refusal.code.clone()],
    }
}

/// Asks people whether a run that stands still may go on as it was.
pub(super) async fn ask(app: &App, id: RunId) -> Result<(), Refusal> {
    let state = app.state();
    let body = request_body(
        &state,
        id,
        ResumeWay::default(),
        app.state_decision(&state),
        None,
    )?;
    super::record(app, body).await
}

/// A person asks that a run go on in a way of their choice.
pub(crate) async fn ask_as_told(app: &App, verified: &Verified) -> Result<Value, Refusal> {
    verified.actor.require_human()?;
    let Command::ResumeRun { run, way, .. } = verified.command.command.clone() else {
        return Err(Refusal::internal("not a resume"));
    };
    let state = app.state();
    let body = request_body(
        &state,
        run,
        way,
        app.state_decision(&state),
        Some(verified.envelope.clone()),
    )?;
    let receipt = app
        .ledger
        .submit(Recording::one(verified.actor.clone(), body))
        .await?;
    Ok(json!({ "index": receipt.first, "request": RequestId(receipt.first) }))
}

fn request_body(
    state: &State,
    id: RunId,
    way: ResumeWay,
    decision: DecisionRecord,
    envelope: Option<portcullis_model::statement::Envelope>,
) -> Result<RequestOpened, Refusal> {
    let run = known(state, id)?;
    let stop = run.frozen.as_ref().ok_or_else(|| {
        Refusal::conflict("run-not-frozen", format!("{id} does not stand still"))
            .next(format!("`portcullis runs show {id}` says how it is"))
    })?;
    Ok(RequestOpened {
        subject: ApprovalSubject::Resume {
            run: id,
            frozen: stop.entry,
            way,
        },
        task: Some(run.task),
        checks: None,
        needed: stop.stop.needed.clone(),
        party: Party([Principal::Agent(run.agent.clone(), Some(id))].into()),
        because: stop.stop.because.clone(),
        decision,
        expires: run.deadline,
        envelope,
    })
}

/// Lets a run go on, if policy agrees now that people approved.
pub(super) async fn resume(app: &App, id: RequestId) -> Result<(), Refusal> {
    let state = app.state();
    let request = state
        .requests
        .get(&id)
        .ok_or_else(|| Refusal::not_found("request", id))?;
    let ApprovalSubject::Resume { run, .. } = &request.subject else {
        return Err(Refusal::internal("not a resume"));
    };
    let known = known(&state, *run)?;
    let stop = known
        .frozen
        .as_ref()
        .ok_or_else(|| Refusal::conflict("run-not-frozen", format!("{run} goes on already")))?;
    let window_over = stop.causes.contains(&ReviewCause::Window);
    let approvals = facts::approvals(&state, request, now());
    let question = question(&state, known, &stop.seen, window_over, approvals)?;
    app.decide(&state, &question, &[]).require()?;
    super::record(
        app,
        RunResumed {
            run: *run,
            request: id,
        },
    )
    .await
}

fn known(state: &State, id: RunId) -> Result<&Run, Refusal> {
    state
        .runs
        .get(&id)
        .map(AsRef::as_ref)
        .ok_or_else(|| Refusal::not_found("run", id))
}

/// The question that policy is asked about a run: what is new since it was last looked at.
fn question(
    state: &State,
    run: &Run,
    seen: &Seen,
    window_over: bool,
    approvals: Approvals,
) -> Result<Request, Refusal> {
    let time = now();
    let mut circumstances = facts::circumstances_of_run(state, run, None, false, time)?;
    circumstances.taint.clone_from(&seen.taint);
    circumstances.key_class = approvals
        .0
        .iter()
        .map(|approval| approval.key_class)
        .max()
        .unwrap_or(circumstances.key_class);
    Ok(Request {
        actor: facts::run_actor(state, run, time),
        circumstances,
        action: Action::RunContinue(RunContinue {
            run: run.id,
            agent: facts::agent_target(state, &run.agent, time)?,
            window: run.window,
            window_over,
            task_asks: run.windows.ask,
            denials: seen.denials.saturating_sub(run.seen.denials),
            new_taint: seen.taint.difference(&run.seen.taint).cloned().collect(),
            newly_exhausted: seen
                .exhausted
                .difference(&run.seen.exhausted)
                .cloned()
                .collect(),
            pushes: run.used.pushes,
            calls: run.used.calls,
            approvals,
        }),
    })
}
