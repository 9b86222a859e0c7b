//! What people, hosts and services sign, taken in: parse, identify, decide, record.

use std::sync::Arc;

use portcullis_evidence::dsse::{self, PAYLOAD_COMMAND, UnverifiedEnvelope};
use portcullis_evidence::sshsig::Attestation;
use portcullis_evidence::statement::{self, StatementType, TrustedKey};
use portcullis_flow::{Command as Recording, State};
use portcullis_model::event::{
    Body, BreakerTripped, ChangeClosed, Ended, JobClaimed, JobFinished, JobOutcome, PrincipalEnded,
    QueueResumed, ReleaseRevoked, RequestRejected, RolloutEnded, RolloutOutcome, RolloutStepped,
    RunEnd, RunEnded, Step,
};
use portcullis_model::manifest::Activation;
use portcullis_model::statement::{Command, Envelope, SignedCommand};
use portcullis_model::{Actor, Digest, HumanId, Principal, PublicKey, Refusal, Timestamp};
use portcullis_policy::Request;
use portcullis_policy::action::{
    Action, BreakerTrip, InventoryChange, InventoryOperation, InventoryRecord, ModeChange,
    PolicyActivate,
};
use portcullis_store::RecordedIn;
use serde_json::{Value, json};

use crate::app::{App, Verdict, now};
use crate::facts;

mod person;
pub(crate) mod release;
mod request;
pub(crate) mod run;

pub use request::approve;
use request::{propose, reject};

/// Most texts beside one command.
pub const ATTACHMENTS_MAX: usize = 64;

/// A command whose signature was checked.
pub struct Verified {
    /// Who, by which key.
    pub actor: Actor,
    /// What.
    pub command: SignedCommand,
    /// The envelope as it came.
    pub envelope: Envelope,
    /// Texts that the command names by digest.
    pub attachments: Vec<String>,
}

/// Takes a signed command in and says what came of it.
///
/// # Errors
/// It is malformed, not by whom it says, denied, or the ledger can't be written.
pub async fn take(
    app: &Arc<App>,
    envelope: Envelope,
    attachments: Vec<String>,
    possession: Option<&str>,
) -> Result<Value, Refusal> {
    let verified = identify(app, envelope, attachments)?;
    store_attachments(app, &verified)?;
    act(app, verified, possession).await
}

/// Checks the signature against the keys of whoever the command names.
///
/// # Errors
/// Unknown principal or key, or the signature does not verify.
pub fn identify(
    app: &App,
    envelope: Envelope,
    attachments: Vec<String>,
) -> Result<Verified, Refusal> {
    let state = app.state();
    let command = SignedCommand::read(&envelope)?;
    let time = now();
    let keys = keys_of(&state, &command.principal, time)?;
    let unverified = UnverifiedEnvelope::try_from(envelope.clone())?;
    // People sign with SSH keys, hosts and services with their own; the two never pass for each
    // other.
    let proof = if matches!(command.principal, Principal::Human(_)) {
        let trusted: Vec<TrustedKey<'_>> = trusted(&keys);
        statement::verify(&unverified, StatementType::Command, &trusted)?
    } else {
        dsse::verify(
            &unverified,
            PAYLOAD_COMMAND,
            &keys.iter().collect::<Vec<_>>(),
        )?
    };
    let mut actor = Actor::signed(
        command.principal.clone(),
        proof.key().fingerprint().to_owned(),
        proof.class(),
    );
    if let Principal::Host(id) = &command.principal {
        actor.host = Some(id.clone());
    }
    Ok(Verified {
        actor,
        command,
        envelope,
        attachments,
    })
}

/// Checks a command's time where no entry will.
///
/// # Errors
/// It has expired, or is meant for another ledger.
pub fn check_timely(app: &App, verified: &Verified) -> Result<(), Refusal> {
    let command = &verified.command;
    let state = app.state();
    let life = command.expires.ms_since(command.issued);
    if now() >= command.expires || life > SignedCommand::MAX_LIFE_MS {
        return Err(
            Refusal::denied("command-expired", "this command has expired").received(&format!(
                "issued {}, expires {}",
                command.issued, command.expires
            )),
        );
    }
    if command.origin != state.genesis()?.origin {
        return Err(
            Refusal::denied("wrong-ledger", "this command is meant for another ledger")
                .received(&command.origin),
        );
    }
    Ok(())
}

/// Checks a command that is acted on before it is recorded: whoever reads the ledger holds its
/// envelopes, and must not be able to have one carried out again.
pub(crate) fn check_fresh(app: &App, verified: &Verified) -> Result<(), Refusal> {
    app.state().check_fresh(&verified.command, now())
}

fn trusted(keys: &[PublicKey]) -> Vec<TrustedKey<'_>> {
    keys.iter()
        .map(|key| TrustedKey {
            key,
            attestation: Attestation::None,
        })
        .collect()
}

fn keys_of(
    state: &State,
    principal: &Principal,
    now: Timestamp,
) -> Result<Vec<PublicKey>, Refusal> {
    match principal {
        Principal::Human(id) => Ok(state.inventory.human(id)?.manifest.keys.clone()),
        Principal::Host(id) => Ok(vec![state.inventory.host(id, now)?.key.clone()]),
        Principal::Service(id) => Ok(vec![state.inventory.service(id, now)?.key.clone()]),
        Principal::Agent(..) | Principal::Unknown => Err(Refusal::denied(
            "agents-do-not-command",
            "an agent can't give commands",
        )
        .expected("a human, a host or a service")
        .received(&principal.to_string())
        .next("an agent proposes a change with `git push`")),
    }
}

/// Keeps the texts that the command names by digest; others are refused.
fn store_attachments(app: &App, verified: &Verified) -> Result<(), Refusal> {
    if verified.attachments.len() > ATTACHMENTS_MAX {
        return Err(
            Refusal::limit("too-many-attachments", "too many texts beside the command")
                .expected(&format!("at most {ATTACHMENTS_MAX}"))
                .received(&verified.attachments.len().to_string()),
        );
    }
    // Who somebody is stands where it can be erased, and nowhere else.
    if matches!(verified.command.command, Command::NameHuman { .. }) {
        return Ok(());
    }
    let payload = verified.envelope.payload_bytes()?;
    let payload = String::from_utf8_lossy(&payload);
    let task = match &verified.command.command {
        Command::StartRun { task, .. } => {
            String::from_utf8_lossy(&task.payload_bytes()?).into_owned()
        }
        _ => String::new(),
    };
    for text in &verified.attachments {
        let digest = Digest::of(text.as_bytes()).to_string();
        if !payload.contains(&digest) && !task.contains(&digest) {
            return Err(Refusal::malformed("attachment")
                .expected("texts whose digests the signed command names")
                .received(&digest));
        }
        // Whoever reduces authority must not wait for a disk; the reason is worth less than the act.
        if let Err(error) = app.ledger.blobs().put(text.as_bytes()) {
            if !reduces(&verified.command.command) {
                return Err(error);
            }
            tracing::warn!(
                error.code = error.code,
                "a reason could not be kept: {error}"
            );
        }
    }
    Ok(())
}

const fn reduces(command: &Command) -> bool {
    matches!(
        command,
        Command::TripBreaker { .. }
            | Command::SuspendAgent { .. }
            | Command::RetireAgent { .. }
            | Command::RetireHuman { .. }
            | Command::ForgetHuman { .. }
            | Command::RetireService { .. }
            | Command::RetireHost { .. }
            | Command::EndRun { .. }
            | Command::Reject { .. }
            | Command::CloseChange { .. }
            | Command::RevokeRelease { .. }
            | Command::Rollback { .. }
            | Command::PauseRollout { .. }
            | Command::AbortRollout { .. }
            | Command::RunEnded { .. }
    )
}

async fn act(
    app: &Arc<App>,
    verified: Verified,
    possession: Option<&str>,
) -> Result<Value, Refusal> {
    let envelope = verified.envelope.clone();
    match verified.command.command.clone() {
        Command::Propose { activation, why } => propose(app, &verified, activation, why).await,
        Command::SuspendAgent { agent, why } => {
            end(app, &verified, Ended::AgentSuspended(agent), why).await
        }
        Command::RetireAgent { agent, why } => {
            end(app, &verified, Ended::AgentRetired(agent), why).await
        }
        Command::RetireHuman { human, why } => {
            end(app, &verified, Ended::HumanRetired(human), why).await
        }
        Command::NameHuman { human, profile } => {
            person::name(app, &verified, &human, profile).await
        }
        Command::ForgetHuman { human, why } => person::forget(app, &verified, human, why).await,
        Command::RetireService { service, why } => {
            end(app, &verified, Ended::ServiceRetired(service), why).await
        }
        Command::RetireHost { host, why } => {
            end(app, &verified, Ended::HostRetired(host), why).await
        }
        Command::EndRun { run, why } => {
            human_id(&verified)?;
            record(
                app,
                &verified,
                RunEnded {
                    run,
                    end: RunEnd::Human { why },
                    envelope: Some(envelope),
                },
            )
            .await
        }
        Command::ResumeRun { .. } => crate::worker::runs::ask_as_told(app, &verified).await,
        Command::Reject { request, why } => {
            reject(app, &verified, request)?;
            record(
                app,
                &verified,
                RequestRejected {
                    request,
                    why,
                    envelope,
                },
            )
            .await
        }
        Command::CloseChange { change, why } => {
            record(
                app,
                &verified,
                ChangeClosed {
                    change,
                    why,
                    envelope,
                },
            )
            .await
        }
        Command::ResumeQueue {
            repository,
            branch,
            why,
        } => {
            human_id(&verified)?;
            record(
                app,
                &verified,
                QueueResumed {
                    repository,
                    branch,
                    why,
                    envelope,
                },
            )
            .await
        }
        Command::Release {
            artifact,
            environment,
        } => release::ask(app, &verified, artifact, environment).await,
        Command::RevokeRelease { release, why } => {
            record(
                app,
                &verified,
                ReleaseRevoked {
                    release,
                    why,
                    envelope,
                },
            )
            .await
        }
        Command::Rollback {
            environment,
            to,
            why,
        } => release::rollback(app, &verified, environment, to, why).await,
        Command::PauseRollout { rollout, .. } => {
            step(app, &verified, rollout, Step::Pause, "paused").await
        }
        Command::ResumeRollout { rollout, .. } => {
            step(app, &verified, rollout, Step::Resume, "resumed").await
        }
        Command::AbortRollout { rollout, .. } => {
            human_id(&verified)?;
            check_fresh(app, &verified)?;
            release::to_stable(app, rollout).await;
            let body = RolloutEnded {
                rollout,
                outcome: RolloutOutcome::RolledBack,
                code: "human".to_owned(),
                envelope: Some(envelope),
            };
            record(app, &verified, body).await
        }
        Command::TripBreaker { scope, why, revert } => {
            human_id(&verified)?;
            check_fresh(app, &verified)?;
            decide_breaker(app, &verified, &scope)?;
            // Act first: the overlay denies from here on, whatever the ledger does.
            app.halt(&scope);
            let body = BreakerTripped {
                scope,
                why,
                revert,
                envelope: Some(envelope),
            };
            record_trip(app, &verified, body).await
        }
        Command::ResetBreaker { scope, .. } => {
            release::ask_breaker_reset(app, &verified, scope).await
        }
        Command::RestoreLedger { .. } => Err(Refusal::malformed("restoration")
            .expected("`portcullis restore` in the server's directory, while no server runs")
            .received("a command to a server that runs")),
        Command::StartRun { .. } => run::start(app, verified, possession).await,
        Command::RunEnded {
            run,
            exit,
            deadline,
        } => {
            let end = if deadline {
                RunEnd::Deadline
            } else {
                RunEnd::Exited { status: exit }
            };
            record(
                app,
                &verified,
                RunEnded {
                    run,
                    end,
                    envelope: Some(envelope),
                },
            )
            .await
        }
        Command::Upload { digest, size } => Err(Refusal::malformed("upload")
            .expected("PUT /v1/blobs with the envelope in a header and the bytes as body")
            .received(&format!("{digest}, {size} bytes, as a command"))),
        Command::ClaimJob { job } => claim(app, &verified, job).await,
        Command::FinishJob {
            job,
            succeeded,
            attestation,
            report,
            outputs,
        } => {
            let outcome = if succeeded {
                JobOutcome::Succeeded
            } else {
                JobOutcome::Failed
            };
            let body = JobFinished {
                job,
                outcome,
                attestation: Some(attestation),
                report: Some(report),
                outputs,
                envelope: Some(envelope),
            };
            crate::worker::jobs::verify_result(app, &verified, &body)?;
            record(app, &verified, body).await
        }
    }
}

async fn record(app: &App, verified: &Verified, body: impl Into<Body>) -> Result<Value, Refusal> {
    let receipt = app
        .ledger
        .submit(Recording::one(verified.actor.clone(), body))
        .await?;
    Ok(match receipt.recorded {
        RecordedIn::Ledger => json!({ "index": receipt.first }),
        RecordedIn::Reserve => json!({ "index": receipt.first, "recorded": "reserve" }),
        RecordedIn::Pending => json!({ "index": receipt.first, "recorded": "memory" }),
    })
}

/// Records a trip that holds already. That it can't be recorded now, on a full disk or after a clock
/// that ran ahead, is told, and changes nothing about the halt.
async fn record_trip(
    app: &App,
    verified: &Verified,
    body: BreakerTripped,
) -> Result<Value, Refusal> {
    match record(app, verified, body).await {
        Ok(answer) => Ok(answer),
        Err(refusal) => {
            tracing::error!(
                error.code = refusal.code,
                "agents are halted, and that could not be recorded: {refusal}"
            );
            Ok(json!({ "index": null, "recorded": false, "why": refusal.code }))
        }
    }
}

/// The human who commands.
pub(crate) fn human_id(verified: &Verified) -> Result<&HumanId, Refusal> {
    verified.actor.require_human()
}

fn request_of(state: &State, actor: &Actor, action: Action) -> Result<Request, Refusal> {
    let mut circumstances = facts::circumstances(state, now())?;
    if let Some(class) = actor.key_class {
        circumstances.key_class = class;
    }
    let actor = match &actor.principal {
        Principal::Human(id) => facts::human(state, id),
        Principal::Service(id) => facts::service(state, id, now()),
        Principal::Host(id) => facts::host(state, id, now()),
        Principal::Agent(..) | Principal::Unknown => portcullis_policy::Actor::Unknown,
    };
    Ok(Request {
        actor,
        circumstances,
        action,
    })
}

/// What policy is asked about a record.
pub fn activation_actions(
    state: &State,
    activation: &Activation,
    approvals: portcullis_policy::Approvals,
) -> Vec<Action> {
    if let Activation::Policy(_) = activation {
        return vec![Action::PolicyActivate(PolicyActivate {
            checked: true,
            tests_failed: 0,
            approvals,
        })];
    }
    let known = match activation {
        Activation::Human(record) => state.inventory.humans.contains_key(&record.id),
        Activation::Group(record) => state.inventory.groups.contains_key(&record.id),
        Activation::Agent(record) => state.inventory.agents.contains_key(&record.id),
        Activation::Service(record) => state.inventory.services.contains_key(&record.id),
        Activation::Host(record) => state.inventory.hosts.contains_key(&record.id),
        Activation::Environment(record) => state.inventory.environments.contains_key(&record.id),
        Activation::Repository(record) => state.inventory.repositories.contains_key(&record.id),
        Activation::Endpoint(record) => state.inventory.endpoints.contains_key(&record.id),
        Activation::Policy(_) => false,
    };
    let mut actions = Vec::new();
    if let Activation::Repository(record) = activation
        && let Some(before) = state.inventory.repositories.get(&record.id)
        && before.mode != record.mode
    {
        actions.push(Action::ModeChange(ModeChange {
            repository: record.id.clone(),
            stage: "git".to_owned(),
            from: before.mode,
            to: record.mode,
            approvals: approvals.clone(),
        }));
    }
    if let Some(record) = InventoryRecord::of(activation) {
        actions.push(Action::InventoryChange(InventoryChange {
            record,
            operation: if known {
                InventoryOperation::Change
            } else {
                InventoryOperation::Add
            },
            widens: [activation.subject()].into(),
            touches_keys: matches!(
                activation,
                Activation::Human(_) | Activation::Service(_) | Activation::Host(_)
            ),
            complete: true,
            approvals,
        }));
    }
    actions
}

async fn end(
    app: &App,
    verified: &Verified,
    subject: Ended,
    why: Digest,
) -> Result<Value, Refusal> {
    human_id(verified)?;
    let body = PrincipalEnded {
        subject,
        why,
        envelope: verified.envelope.clone(),
    };
    record(app, verified, body).await
}

fn decide_breaker(
    app: &App,
    verified: &Verified,
    scope: &portcullis_model::statement::BreakerScope,
) -> Result<(), Refusal> {
    let state = app.state();
    let action = Action::BreakerTrip(BreakerTrip {
        scope: scope.clone(),
    });
    let question = request_of(&state, &verified.actor, action)?;
    match app.decide(&state, &question, &[]) {
        Verdict::Permit(..) => Ok(()),
        // A policy that can't be read must not keep a person from halting agents.
        Verdict::No(refusal, ..)
            if refusal.kind == portcullis_model::RefusalKind::Denied
                && refusal.code != "no-policy"
                && refusal.code != "policy-altered" =>
        {
            Err(*refusal)
        }
        Verdict::No(refusal, ..) => {
            tracing::warn!("the breaker is tripped without policy: {refusal}");
            Ok(())
        }
    }
}

async fn step(
    app: &App,
    verified: &Verified,
    rollout: portcullis_model::RolloutId,
    step: Step,
    code: &str,
) -> Result<Value, Refusal> {
    human_id(verified)?;
    let state = app.state();
    let known = state
        .rollouts
        .get(&rollout)
        .ok_or_else(|| Refusal::not_found("rollout", rollout))?;
    let body = RolloutStepped {
        rollout,
        step,
        weight: known.weight,
        epoch: known.epoch,
        code: code.to_owned(),
        evidence: Default::default(),
        state: Value::Null,
        envelope: Some(verified.envelope.clone()),
    };
    record(app, verified, body).await
}

/// A service takes the oldest job that its roles allow.
async fn claim(
    app: &App,
    verified: &Verified,
    wanted: Option<portcullis_model::JobId>,
) -> Result<Value, Refusal> {
    let Principal::Service(service) = &verified.actor.principal else {
        return Err(Refusal::denied(
            "not-a-service",
            "only a service takes jobs",
        ));
    };
    let state = app.state();
    let record = state.inventory.service(service, now())?;
    let mut denied = None;
    let mut candidates = state.jobs.open().filter(|job| {
        wanted.is_none_or(|wanted| wanted == job.id)
            && matches!(job.status, portcullis_flow::job::JobStatus::Requested)
            && record.roles.contains(&job.role())
    });
    // A job that may not run now, such as one behind a breaker, holds up no other.
    let job = candidates.find(|job| {
        let allowed = crate::worker::jobs::may_run(app, &state, job, service);
        denied = allowed.as_ref().err().cloned().or(denied.take());
        allowed.is_ok()
    });
    let Some(job) = job.cloned() else {
        return match (denied, wanted) {
            (Some(refusal), Some(_)) => Err(refusal),
            _ => Ok(json!({ "job": null })),
        };
    };
    let body = JobClaimed {
        job: job.id,
        service: service.clone(),
        envelope: verified.envelope.clone(),
    };
    app.ledger
        .submit(Recording::one(verified.actor.clone(), body))
        .await?;
    crate::worker::jobs::order(app, &state, &job)
}
