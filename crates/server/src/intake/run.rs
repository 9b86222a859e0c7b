//! A host starts a run: the task's signature, the host's, the run's own key, then policy, then the
//! record, and only then an identity.

use std::sync::Arc;

use portcullis_evidence::dsse::UnverifiedEnvelope;
use portcullis_evidence::statement::{self, StatementType};
use portcullis_flow::{Command as Recording, State};
use portcullis_identity::{P256PublicKey, SpiffeId, dpop};
use portcullis_model::digest::decode_hex;
use portcullis_model::event::{Body, DecisionRecord, RunStarted, TaskAccepted};
use portcullis_model::manifest::HostClass;
use portcullis_model::statement::{Command, Envelope};
use portcullis_model::task::{Source, Target, TaskText};
use portcullis_model::{
    Actor, Containment, Digest, HostId, Principal, Recorder as _, Refusal, RunId, Task, TaskId,
    Timestamp, canonical,
};
use portcullis_policy::action::{Action, RunStart, TaskSign};
use portcullis_policy::request::TaskFacts;
use portcullis_policy::{Permit, Request};
use serde_json::{Value, json};

use super::{Verified, keys_of, trusted};
use crate::app::{AUDIENCE, App, Verdict, now};
use crate::facts;
use crate::worker::sync;

/// How long an SVID and a token last, in milliseconds (one hour, the most that `identity` issues).
/// A run that lasts longer has its launcher renew the token in time; one that ends earlier has a
/// shorter one.
pub(crate) const SVID_LIFE_MS: u64 = 3_600_000;
/// What start and end of a token may lose by counting whole seconds, in milliseconds.
pub(crate) const ROUNDING_MS: u64 = 2_000;

/// A task whose signature was checked.
pub(crate) struct CheckedTask {
    pub(crate) id: TaskId,
    pub(crate) task: Task,
    pub(crate) envelope: Envelope,
    pub(crate) actor: Actor,
}

/// Starts a run.
///
/// # Errors
/// Anything about the task, the host or the key is not as it must be; nothing is lent then.
pub(super) async fn start(
    app: &Arc<App>,
    verified: Verified,
    possession: Option<&str>,
) -> Result<Value, Refusal> {
    let Command::StartRun {
        task,
        run_key,
        run_public_key,
        gaps,
        source,
    } = verified.command.command.clone()
    else {
        return Err(Refusal::internal("not a start"));
    };
    let Principal::Host(host) = verified.actor.principal.clone() else {
        return Err(
            Refusal::denied("not-a-host", "runs are started by enrolled hosts")
                .received(&verified.actor.principal.to_string())
                .next("start it with `portcullis run` on an enrolled host"),
        );
    };
    let time = now();
    let key = holder(app, possession, &run_key, &run_public_key, time)?;
    let state = app.state();
    let checked = check_task(&state, task)?;
    let text = task_text(app, &verified, &checked.task)?;
    check_source(checked.task.source.as_ref(), source)?;
    let state = adopt_branches(app, state, &checked).await?;
    check_bases(&state, &checked.task)?;
    accept_task(app, &state, &checked, &text).await?;
    let state = app.state();
    let (permit, decision) = decide(app, &state, &checked, &host, &gaps, time)?;
    let deadline = time
        .plus_ms(checked.task.budgets.wall_ms)
        .min(checked.task.expires);
    let body = RunStarted {
        task: checked.id,
        agent: checked.task.agent.clone(),
        host,
        run_key,
        gaps,
        deadline,
        leases: portcullis_flow::run::leases_of(&checked.task),
        envelope: verified.envelope.clone(),
        decision,
    };
    let recorded = app
        .ledger
        .record(permit, Recording::one(verified.actor.clone(), body))
        .await?;
    let (_, index) = recorded.spend();
    identity(app, RunId(index), &checked, &key, deadline)
}

/// The run's public key, proved by a signature with its private half over this very request.
fn holder(
    app: &App,
    possession: Option<&str>,
    thumbprint: &str,
    point: &str,
    time: Timestamp,
) -> Result<P256PublicKey, Refusal> {
    let proof = possession.ok_or_else(|| {
        Refusal::denied("dpop-missing", "the run's key is not proved")
            .expected("a `dpop` header made with the run's key")
    })?;
    let point = decode_hex(point).ok_or_else(|| {
        Refusal::malformed("run key").expected("an uncompressed P-256 point in hex")
    })?;
    let key = P256PublicKey::from_point(&point)?;
    if key.thumbprint().to_string() != thumbprint {
        return Err(Refusal::malformed("run key").expected("the thumbprint of the key beside it"));
    }
    let url = format!("{}/v1/commands", app.config.url());
    let call = dpop::Call {
        method: "POST",
        url: &url,
    };
    dpop::verify_possession(&app.replay, proof, call, key.thumbprint(), time)?;
    Ok(key)
}

/// Checks a task's signature against its signer's keys.
///
/// # Errors
/// Unknown signer or key, one altered byte, or a payload that is not a task.
pub(crate) fn check_task(state: &State, envelope: Envelope) -> Result<CheckedTask, Refusal> {
    let unverified = UnverifiedEnvelope::try_from(envelope.clone())?;
    let task: Task = canonical::from_slice("task", unverified.unverified_payload())?;
    let keys = keys_of(state, &Principal::Human(task.signer.clone()), now())?;
    let proof = statement::verify(&unverified, StatementType::Task, &trusted(&keys))?;
    let actor = Actor::signed(
        Principal::Human(task.signer.clone()),
        proof.key().fingerprint().to_owned(),
        proof.class(),
    );
    task.validate()?;
    let id = TaskId(Digest::of(proof.payload()));
    Ok(CheckedTask {
        id,
        task,
        envelope,
        actor,
    })
}

fn task_text(app: &App, verified: &Verified, task: &Task) -> Result<TaskText, Refusal> {
    let sent = verified
        .attachments
        .iter()
        .find(|text| Digest::of(text.as_bytes()) == task.text)
        .cloned();
    let text = match sent {
        Some(text) => text.into_bytes(),
        None => app.ledger.blobs().get(&task.text).map_err(|_| {
            Refusal::denied(
                "task-text-altered",
                "the task's title and text are not what was signed",
            )
            .expected(&task.text.to_string())
            .next("sign the task again with `portcullis task sign`")
        })?,
    };
    let text: TaskText = canonical::from_slice("task text", &text)?;
    text.validate()?;
    Ok(text)
}

fn check_source(signed: Option<&Source>, found: Option<Digest>) -> Result<(), Refusal> {
    match signed {
        None => Ok(()),
        Some(source) if found == Some(source.digest) => Ok(()),
        Some(source) => Err(Refusal::denied(
            "source-changed",
            format!("the ticket {} is not what was signed", source.uri),
        )
        .expected(&source.digest.to_string())
        .received(&found.map_or_else(|| "nothing".to_owned(), |digest| digest.to_string()))
        .next("read the ticket again and sign a new task")),
    }
}

/// Takes up branches that a signed and permitted task names and nobody looked at before: what they
/// hold is unproven, and an entry says so. Nothing less than a person's signature does that.
async fn adopt_branches(
    app: &App,
    state: Arc<State>,
    checked: &CheckedTask,
) -> Result<Arc<State>, Refusal> {
    let unknown = unknown_branches(&state, &checked.task);
    if unknown.is_empty() {
        return Ok(state);
    }
    accepted_body(app, &state, checked)?;
    for target in unknown {
        sync::branch_once(app, &state, &target.repository, &target.branch).await?;
    }
    Ok(app.state())
}

fn unknown_branches<'a>(state: &State, task: &'a Task) -> Vec<&'a Target> {
    task.targets
        .iter()
        .filter(|target| {
            let key = (target.repository.clone(), target.branch.clone());
            state.inventory.repository(&target.repository).is_ok()
                && !state.branches.contains_key(&key)
        })
        .collect()
}

/// As [`check_bases`], where a branch that nobody looked at yet may stand at its base upstream.
pub(crate) async fn check_bases_upstream(
    app: &App,
    state: &State,
    task: &Task,
) -> Result<(), Refusal> {
    let mut known = task.clone();
    let unknown = unknown_branches(state, task);
    for target in &unknown {
        let mirror = app.mirrors.get(state, &target.repository).await?;
        let tip = mirror
            .repository
            .observe(&target.branch, mirror.access())
            .await?;
        if tip.as_ref() == Some(&target.base) {
            known.targets.retain(|other| other != *target);
        }
    }
    check_bases(state, &known)
}

/// Every base is a commit at which its branch stood.
pub(crate) fn check_bases(state: &State, task: &Task) -> Result<(), Refusal> {
    for target in &task.targets {
        state.inventory.repository(&target.repository)?;
        let key = (target.repository.clone(), target.branch.clone());
        let known = state.branches.get(&key);
        if known.is_none_or(|branch| !branch.stood_at(&target.base)) {
            return Err(Refusal::denied(
                "base-unknown",
                format!(
                    "{} never was where {} stands",
                    target.base.short(),
                    target.branch
                ),
            )
            .expected(&known.map_or_else(
                || format!("a branch of {} that is known", target.repository),
                |branch| format!("a commit of {}, such as {}", target.branch, branch.tip),
            ))
            .received(target.base.as_str())
            .next("make the task anew: `portcullis task new` takes the branch's tip"));
        }
    }
    Ok(())
}

/// What policy says of a task by this signer.
pub(crate) fn decide_task(
    app: &App,
    state: &State,
    checked: &CheckedTask,
) -> Result<(Permit, DecisionRecord), Refusal> {
    let time = now();
    let task = &checked.task;
    let agent = facts::agent_target(state, &task.agent, time)?;
    let wider = state
        .inventory
        .agents
        .get(&task.agent)
        .map(|record| portcullis_flow::task::wider_than_agent(task, &record.manifest))
        .unwrap_or_default();
    let action = Action::TaskSign(TaskSign {
        agent,
        repositories: task
            .targets
            .iter()
            .map(|target| target.repository.clone())
            .collect(),
        wider_than_agent: wider.into_iter().collect(),
        life_ms: task.expires.ms_since(task.not_before),
        allowed_gaps: task.allowed_gaps.clone(),
        demands_managed_host: task.containment == Containment::Contained,
    });
    let mut circumstances = facts::circumstances(state, time)?;
    circumstances.key_class = checked.actor.key_class.unwrap_or(circumstances.key_class);
    circumstances.breaker = app
        .halted_for(
            state,
            Some(&task.agent),
            &task
                .targets
                .iter()
                .map(|target| &target.repository)
                .collect::<Vec<_>>(),
            None,
        )
        .is_some();
    let request = Request {
        actor: facts::human(state, &task.signer),
        circumstances,
        action,
    };
    app.decide(state, &request, &[]).into_permit()
}

/// Takes the task in, unless it was before.
async fn accept_task(
    app: &App,
    state: &State,
    checked: &CheckedTask,
    text: &TaskText,
) -> Result<(), Refusal> {
    portcullis_flow::task::check_timely(&checked.task, now())?;
    if state.tasks.contains_key(&checked.id) {
        return Ok(());
    }
    let bytes = canonical::to_vec(text)?;
    app.ledger.blobs().put(&bytes)?;
    let body = accepted_body(app, state, checked)?;
    match app
        .ledger
        .submit(Recording::one(checked.actor.clone(), body))
        .await
    {
        Ok(_) => Ok(()),
        // Two starts at once: the other took it in.
        Err(refusal) if refusal.code == "task-known" => Ok(()),
        Err(refusal) => Err(refusal),
    }
}

/// The entry that takes a task in, once policy permits it.
pub(crate) fn accepted_body(
    app: &App,
    state: &State,
    checked: &CheckedTask,
) -> Result<Body, Refusal> {
    // What the state refuses is said first: it names the field.
    let dry = TaskAccepted {
        task: checked.id,
        payload: checked.task.clone(),
        envelope: checked.envelope.clone(),
        decision: app.state_decision(state),
    };
    portcullis_model::Fold::decide(
        state,
        &Recording::one(checked.actor.clone(), dry.clone()),
        now(),
    )?;
    let (_, decision) = decide_task(app, state, checked)?;
    Ok(Body::TaskAccepted(TaskAccepted { decision, ..dry }))
}

fn decide(
    app: &App,
    state: &State,
    checked: &CheckedTask,
    host: &HostId,
    gaps: &std::collections::BTreeSet<String>,
    time: Timestamp,
) -> Result<(Permit, DecisionRecord), Refusal> {
    let task: &Task = &checked.task;
    let record = state.inventory.host(host, time)?;
    let facts: Option<TaskFacts> = facts::task(state, checked.id, None, time);
    let unexpected: std::collections::BTreeSet<String> =
        gaps.difference(&task.allowed_gaps).cloned().collect();
    let action = Action::RunStart(RunStart {
        agent: facts::agent_target(state, &task.agent, time)?,
        task: facts,
        host: host.clone(),
        host_enrolled: true,
        host_class: record.class,
        demands_managed_host: task.containment == Containment::Contained,
        gaps: unexpected,
    });
    let repositories: Vec<_> = task
        .targets
        .iter()
        .map(|target| &target.repository)
        .collect();
    let mut circumstances = facts::circumstances(state, time)?;
    circumstances.breaker = app
        .halted_for(state, Some(&task.agent), &repositories, None)
        .is_some();
    circumstances.containment = Some(match record.class {
        HostClass::Managed => Containment::Contained,
        HostClass::SelfRun => Containment::ContainedClaimed,
    });
    let request = Request {
        actor: facts::host(state, host, time),
        circumstances,
        action,
    };
    match app.decide(state, &request, &[]) {
        Verdict::Permit(permit, record) => Ok((permit, record)),
        Verdict::No(refusal, ..) => Err(*refusal),
    }
}

/// The identity that the recorded run gets, and what it needs to know.
fn identity(
    app: &App,
    run: RunId,
    checked: &CheckedTask,
    key: &P256PublicKey,
    deadline: Timestamp,
) -> Result<Value, Refusal> {
    let state = app.state();
    let time = now();
    let genesis = state.genesis()?;
    let known = state
        .runs
        .get(&run)
        .ok_or_else(|| Refusal::internal("the run is not folded"))?;
    let id = SpiffeId::run(app.authority.trust_domain(), &checked.task.agent, run);
    // Tokens count whole seconds. They outlive the run rather than the other way round: whether it
    // goes on is looked up at each request.
    let life = deadline
        .ms_since(time)
        .saturating_add(ROUNDING_MS)
        .clamp(1_000, SVID_LIFE_MS);
    let svid = app.authority.issue(&id, key, life, time)?;
    let token = app.tokens.issue(
        &portcullis_identity::token::TokenRequest {
            subject: &id,
            audience: AUDIENCE,
            holder: *key.thumbprint(),
            life_ms: life,
        },
        time,
    )?;
    let (name, mail) = known.commit_identity(&genesis.trust_domain);
    let repositories: Vec<Value> = checked
        .task
        .targets
        .iter()
        .map(|target| {
            json!({
                "id": target.repository,
                "branch": target.branch,
                "base": target.base,
                "clone": format!("/git/{}.git", target.repository),
            })
        })
        .collect();
    Ok(json!({
        "index": run.0,
        "run": run,
        "spiffe_id": id.to_string(),
        "token": token.text.expose(),
        "svid": svid.pem(),
        "authority": app.authority.certificate().pem(),
        "trust_domain": genesis.trust_domain,
        "deadline": deadline,
        "agent": checked.task.agent,
        "task": checked.id,
        "git": { "name": name, "mail": mail },
        "repositories": repositories,
        "endpoints": checked.task.capabilities.endpoints,
        "hosts": checked.task.capabilities.hosts,
        "tunnels": checked.task.capabilities.tunnels,
        "budgets": checked.task.budgets,
        "feedback": feedback(app, &state, &checked.task),
    }))
}

/// What people said when they rejected the change that the task goes on with.
fn feedback(app: &App, state: &State, task: &Task) -> Vec<String> {
    let Some(change) = task.change.and_then(|id| state.changes.get(&id)) else {
        return Vec::new();
    };
    change
        .revisions
        .iter()
        .filter_map(|revision| revision.request)
        .filter_map(|request| state.requests.get(&request))
        .filter_map(|request| match &request.status {
            portcullis_flow::approval::Status::Rejected { why, .. } => {
                let text = app.ledger.blobs().get(why).ok()?;
                Some(String::from_utf8_lossy(&text).into_owned())
            }
            _ => None,
        })
        .collect()
}
