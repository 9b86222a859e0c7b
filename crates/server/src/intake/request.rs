//! Requests: a record proposed, an approval given, an answer of no.

use portcullis_evidence::dsse::UnverifiedEnvelope;
use portcullis_flow::approval::{Status, satisfied};
use portcullis_flow::{Command as Recording, State};
use portcullis_model::event::{ActivationProposed, ApprovalGiven};
use portcullis_model::manifest::Activation;
use portcullis_model::statement::{ApprovalSubject, Carry, Envelope};
use portcullis_model::{Actor, Digest, LedgerIndex, Principal, Refusal, RequestId};
use portcullis_policy::action::{Action, CommitAccept, RequestApprove, RequestReject};
use serde_json::{Value, json};

use super::{Verified, activation_actions, human_id, keys_of, request_of, trusted};
use crate::app::{App, Verdict, now};
use crate::facts;

/// A record is proposed. Policy may deny it outright; asking is what the proposal does anyway.
pub(super) async fn propose(
    app: &App,
    verified: &Verified,
    activation: Activation,
    why: Digest,
) -> Result<Value, Refusal> {
    human_id(verified)?;
    let state = app.state();
    activation.validate()?;
    if let Activation::Policy(files) = &activation {
        check_policy(app, files)?;
    }
    for action in activation_actions(&state, &activation, Default::default()) {
        let request = request_of(&state, &verified.actor, action)?;
        if let Verdict::No(refusal, _, None) = app.decide(&state, &request, &[]) {
            return Err(*refusal);
        }
    }
    let subject = activation.subject();
    let body = ActivationProposed {
        activation,
        why,
        envelope: verified.envelope.clone(),
    };
    let receipt = app
        .ledger
        .submit(Recording::one(verified.actor.clone(), body))
        .await?;
    let request = RequestId(receipt.first);
    let Outcome {
        satisfied,
        in_force,
        ..
    } = outcome(app, request).await;
    Ok(json!({
        "index": receipt.first,
        "request": request,
        "subject": subject,
        "satisfied": satisfied,
        "in_force": in_force,
    }))
}

/// What came of a request right after somebody signed something about it.
struct Outcome {
    /// Enough people approved.
    satisfied: bool,
    /// What it asks for is in the ledger.
    in_force: bool,
    /// The ledger itself is about to carry it out.
    under_way: bool,
}

impl Outcome {
    fn of(state: &State, request: RequestId) -> Self {
        let known = state.requests.get(&request);
        let in_force = known.is_some_and(|known| known.status == Status::Used);
        let satisfied = known.is_some_and(|known| {
            in_force || known.satisfied_at.is_some() || satisfied(state, known, now())
        });
        let by_ledger = known.is_some_and(|known| {
            known.is_open(now())
                && matches!(
                    known.subject,
                    ApprovalSubject::Activation { .. } | ApprovalSubject::BreakerReset { .. }
                )
        });
        Self {
            satisfied,
            in_force,
            under_way: satisfied && by_ledger,
        }
    }
}

/// What came of `request`. Where the ledger itself carries out what was approved, this waits for
/// it, so that whoever signed last finds it there with their next command.
async fn outcome(app: &App, request: RequestId) -> Outcome {
    const WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(5);
    let mut news = app.ledger.subscribe();
    let carried_out = async {
        while Outcome::of(&app.state(), request).under_way && news.changed().await.is_ok() {}
    };
    let _in_time = tokio::time::timeout(WAIT_MAX, carried_out).await;
    Outcome::of(&app.state(), request)
}

/// A policy's files are here and load.
fn check_policy(app: &App, files: &portcullis_model::manifest::PolicyFiles) -> Result<(), Refusal> {
    let mut sources = Vec::new();
    for (name, digest) in &files.files {
        let bytes = app.ledger.blobs().get(digest)?;
        sources.push(portcullis_policy::PolicyFile::new(
            name.clone(),
            crate::app::text(&bytes)?,
        ));
    }
    let set = portcullis_policy::PolicySet::load(&sources, &[])?;
    if set.digest() == files.digest {
        return Ok(());
    }
    Err(Refusal::denied(
        "policy-altered",
        "the policy's digest is not that of its files",
    )
    .expected(&set.digest().to_string())
    .received(&files.digest.to_string()))
}

pub(super) fn reject(app: &App, verified: &Verified, request: RequestId) -> Result<(), Refusal> {
    let human = human_id(verified)?;
    let state = app.state();
    let open = state
        .requests
        .get(&request)
        .ok_or_else(|| Refusal::not_found("request", request))?;
    let action = Action::RequestReject(RequestReject {
        request,
        asks: asks(open),
        own_party: portcullis_flow::approval::in_party(&state, &open.party, human),
    });
    let question = request_of(&state, &verified.actor, action)?;
    app.decide(&state, &question, &[]).require()
}

/// What a request asks, in policy's words.
fn asks(request: &portcullis_flow::approval::Request) -> String {
    match &request.subject {
        ApprovalSubject::Change { .. } => "change.land",
        ApprovalSubject::Release { .. } => "release.admit",
        ApprovalSubject::Activation { .. } => match &request.activation {
            Some(Activation::Policy(_)) => "policy.activate",
            _ => "inventory.change",
        },
        ApprovalSubject::BreakerReset { .. } => "breaker.reset",
        ApprovalSubject::Resume { .. } => "run.continue",
        ApprovalSubject::Unproven { .. } => "commit.accept",
    }
    .to_owned()
}

/// An approval for an exact base is worth nothing once the branch moved on.
fn require_base(
    state: &State,
    approval: &portcullis_model::statement::Approval,
) -> Result<(), Refusal> {
    let ApprovalSubject::Change {
        repository,
        branch,
        base,
        ..
    } = &approval.subject
    else {
        return Ok(());
    };
    let key = (repository.clone(), branch.clone());
    let moved = state
        .branches
        .get(&key)
        .is_some_and(|known| known.tip != *base);
    if !moved || approval.carry == Carry::SameDiff {
        return Ok(());
    }
    Err(Refusal::conflict(
        "base-moved",
        format!("{branch} moved on since the change was made"),
    )
    .expected("an approval that carries the same diff to the branch as it is now")
    .received("an approval for the exact base")
    .next(format!(
        "portcullis approve {} --carry same-diff, or let its author rebase it",
        approval.request
    )))
}

/// Takes an approval in: who signed, over what, and whether it counts.
///
/// # Errors
/// It is malformed, not by whom it says, or does not count.
pub async fn approve(app: &App, envelope: Envelope) -> Result<Value, Refusal> {
    let state = app.state();
    let unverified = UnverifiedEnvelope::try_from(envelope.clone())?;
    let claimed = portcullis_evidence::approval::read(unverified.unverified_payload())?;
    let keys = keys_of(&state, &Principal::Human(claimed.approver.clone()), now())?;
    let proof = portcullis_evidence::approval::verify(&unverified, &trusted(&keys))?;
    let approval = proof.payload().clone();
    let actor = Actor::signed(
        Principal::Human(approval.approver.clone()),
        proof.key().fingerprint().to_owned(),
        proof.class(),
    );
    let open = state
        .requests
        .get(&approval.request)
        .ok_or_else(|| Refusal::not_found("request", approval.request))?;
    // What no longer waits is told as that, below.
    if open.is_open(now()) {
        require_base(&state, &approval)?;
    }
    let action = Action::RequestApprove(RequestApprove {
        request: approval.request,
        asks: asks(open),
        own_party: portcullis_flow::approval::in_party(&state, &open.party, &approval.approver),
        key_class_needed: open.needed.key_class,
        current: open.is_open(now()) && open.subject == approval.subject,
    });
    // Said by the state first: it names what changed, which policy can't.
    let statement = approval.clone();
    let question = request_of(&state, &actor, action)?;
    let actor_of_approval = actor.clone();
    let body = ApprovalGiven {
        statement,
        envelope,
    };
    let dry = Recording::one(actor, body);
    portcullis_model::Fold::decide(&*state, &dry, now())?;
    app.decide(&state, &question, &[]).require()?;
    if let ApprovalSubject::Unproven { repository, to, .. } = &open.subject {
        let accept = Action::CommitAccept(CommitAccept {
            repository: repository.clone(),
            commit: to.clone(),
            approvals: facts::approvals(&state, open, now()),
        });
        let question = request_of(&state, &actor_of_approval, accept)?;
        app.decide(&state, &question, &[]).require()?;
    }
    let index: LedgerIndex = app.ledger.submit(dry).await?.first;
    let Outcome {
        satisfied,
        in_force,
        ..
    } = outcome(app, approval.request).await;
    Ok(json!({
        "index": index,
        "request": approval.request,
        "satisfied": satisfied,
        "in_force": in_force,
    }))
}
