//! Requests to humans, and their answers.
//!
//! A request says what exactly is asked, what it takes, and who had a hand in it and so does not
//! count. An approval answers one request by one statement over exactly that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_model::event::{
    ApprovalGiven, Needed, RequestOpened, RequestRejected, RequestWithdrawn,
};
use portcullis_model::manifest::Activation;
use portcullis_model::statement::{
    APPROVAL_TYPE, ApprovalSubject, BreakerScope, Carry, Command, Envelope,
};
use portcullis_model::{
    Digest, Event, HumanId, KeyClass, LedgerIndex, Party, Principal, Refusal, RequestId, TaskId,
    Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::entities::Ends;
use crate::inventory::mismatch;
use crate::state::{State, edit_in, find};

/// How long a request waits, in milliseconds (7 days): older content is looked at anew.
pub const REQUEST_LIFE_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// A request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Its id.
    pub id: RequestId,
    /// What is asked.
    pub subject: ApprovalSubject,
    /// The task behind it.
    pub task: Option<TaskId>,
    /// Digest of checks and tests.
    pub checks: Option<Digest>,
    /// What it takes.
    pub needed: Needed,
    /// Who had a hand in it.
    pub party: Party,
    /// The rules that ask.
    pub because: Vec<String>,
    /// Worthless at or after this time.
    pub expires: Timestamp,
    /// Where it stands.
    pub status: Status,
    /// Answers so far.
    pub approvals: Vec<Counted>,
    /// When it was first satisfied.
    pub satisfied_at: Option<LedgerIndex>,
    /// The record that it activates, if any.
    pub activation: Option<Activation>,
}

/// Where a request stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It waits for answers, or for its effect.
    Open,
    /// Somebody said no.
    Rejected {
        /// Who.
        by: HumanId,
        /// Digest of the reason.
        why: Digest,
    },
    /// It was overtaken.
    Withdrawn {
        /// Stable code of the cause.
        code: String,
    },
    /// What it allowed has happened.
    Used,
}

/// An approval, as it counts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counted {
    /// The entry.
    pub entry: LedgerIndex,
    /// Who.
    pub human: HumanId,
    /// What the signature proved.
    pub key_class: KeyClass,
    /// Whether the approver had a hand in it (only in a one-person team).
    pub self_approved: bool,
    /// Whether it moves to a later base.
    pub carry: Carry,
    /// Worthless at or after this index.
    pub expires_index: LedgerIndex,
    /// Worthless at or after this time.
    pub expires: Timestamp,
}

/// What approvals add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Humans.
    pub humans: u32,
    /// Parties that they belong to.
    pub parties: u32,
    /// The least key class among them.
    pub key_class: Option<KeyClass>,
    /// Whether any of them approved own work.
    pub self_approved: bool,
}

impl Ends for Request {
    fn is_over(&self) -> bool {
        self.status != Status::Open
    }
}

impl Request {
    /// A new open request.
    pub(crate) const fn new(
        id: RequestId,
        subject: ApprovalSubject,
        needed: Needed,
        party: Party,
        expires: Timestamp,
    ) -> Self {
        Self {
            id,
            subject,
            task: None,
            checks: None,
            needed,
            party,
            because: Vec::new(),
            expires,
            status: Status::Open,
            approvals: Vec::new(),
            satisfied_at: None,
            activation: None,
        }
    }

    /// Counts the author's signature on the proposal itself (one-person teams only).
    pub(crate) fn count_author(&mut self, author: &HumanId, key_class: KeyClass) {
        if key_class >= self.needed.key_class {
            self.approvals.push(Counted {
                entry: self.id.0,
                human: author.clone(),
                key_class,
                self_approved: true,
                carry: Carry::Exact,
                expires_index: LedgerIndex::MAX,
                expires: self.expires,
            });
        }
    }

    /// Whether any approval of it was by somebody who had a hand in it.
    pub fn self_approved(&self) -> bool {
        self.approvals.iter().any(|approval| approval.self_approved)
    }

    /// Whether it still waits.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.status == Status::Open && now < self.expires
    }
}

/// What the approvals of `request` add up to at `now`. Those by people who have lost their rights
/// or whose expiry has come don't count.
pub fn tally(state: &State, request: &Request, now: Timestamp) -> Tally {
    let standing: Vec<&Counted> = request
        .approvals
        .iter()
        .filter(|approval| {
            now < approval.expires
                && state.size() < approval.expires_index
                && state.inventory.human(&approval.human).is_ok()
        })
        .collect();
    let humans: BTreeSet<&HumanId> = standing.iter().map(|approval| &approval.human).collect();
    Tally {
        humans: u32::try_from(humans.len()).unwrap_or(u32::MAX),
        parties: count_parties(state, &humans),
        key_class: standing.iter().map(|approval| approval.key_class).min(),
        self_approved: standing.iter().any(|approval| approval.self_approved),
    }
}

/// People where one let the other in alone are one party.
fn count_parties(state: &State, humans: &BTreeSet<&HumanId>) -> u32 {
    let roots: BTreeMap<HumanId, ()> = humans
        .iter()
        .map(|human| (inviter_root(state, human), ()))
        .collect();
    u32::try_from(roots.len()).unwrap_or(u32::MAX)
}

fn inviter_root(state: &State, human: &HumanId) -> HumanId {
    let mut at = human.clone();
    // Invitations can't form a ring, since an inviter was there before; the bound is for a ledger
    // that we don't trust.
    for _ in 0..64 {
        match state
            .inventory
            .humans
            .get(&at)
            .and_then(|person| person.invited_by.clone())
        {
            Some(inviter) => at = inviter,
            None => break,
        }
    }
    at
}

/// Whether `human` had a hand in what the party did, or was let in alone by somebody who had.
pub fn in_party(state: &State, party: &Party, human: &HumanId) -> bool {
    let root = inviter_root(state, human);
    party.includes(human)
        || party
            .0
            .iter()
            .filter_map(Principal::human)
            .any(|member| inviter_root(state, member) == root)
}

/// Whether `request` is satisfied at `now`.
pub fn satisfied(state: &State, request: &Request, now: Timestamp) -> bool {
    let tally = tally(state, request, now);
    request.is_open(now)
        && tally.humans >= request.needed.humans
        && tally.parties >= request.needed.parties
}

/// The request, if it is satisfied.
///
/// # Errors
/// It is unknown, closed or not satisfied.
pub(crate) fn require_satisfied(
    state: &State,
    id: RequestId,
    now: Timestamp,
) -> Result<Arc<Request>, Refusal> {
    let request = Arc::clone(find("request", &state.requests, &id)?);
    if satisfied(state, &request, now) {
        return Ok(request);
    }
    let tally = tally(state, &request, now);
    Err(Refusal::new(
        portcullis_model::RefusalKind::NeedsApproval,
        "approval-missing",
        format!("{id} is not satisfied"),
    )
    .expected(&format!(
        "{} humans of {} parties, keys of class {} at least",
        request.needed.humans, request.needed.parties, request.needed.key_class
    ))
    .received(&format!(
        "{:?}: {} humans, {} parties",
        request.status, tally.humans, tally.parties
    ))
    .next(format!("portcullis approve {id}")))
}

/// Marks a request as used.
pub(crate) fn use_up(state: &mut State, id: RequestId) -> Result<(), Refusal> {
    edit_in("request", &mut state.requests, &id, |request| {
        request.status = Status::Used
    })
}

/// The server asks humans, on its own decision or on a person's command.
pub(crate) fn opened(
    state: &mut State,
    event: &Event,
    body: &RequestOpened,
) -> Result<(), Refusal> {
    state.check_decision(&body.decision)?;
    match (&body.subject, &body.envelope) {
        (
            ApprovalSubject::Change {
                change, revision, ..
            },
            None,
        ) => {
            state.require_control(event)?;
            crate::change::check_request(state, *change, *revision, body)?;
        }
        (
            ApprovalSubject::Release {
                artifact,
                environment,
                ..
            },
            Some(envelope),
        ) => {
            state.require_active_human(event)?;
            match state.take_command(event, envelope)? {
                Command::Release {
                    artifact: a,
                    environment: e,
                } if a == *artifact && e == *environment => {}
                other => return Err(mismatch("release of this artifact", &other)),
            }
            crate::release::check_request(state, body)?;
        }
        (ApprovalSubject::BreakerReset { scope }, Some(envelope)) => {
            state.require_active_human(event)?;
            match state.take_command(event, envelope)? {
                Command::ResetBreaker {
                    scope: commanded, ..
                } if commanded == *scope => {}
                other => return Err(mismatch("reset-breaker of this scope", &other)),
            }
            if !body.party.0.contains(&event.actor.principal) {
                return Err(Refusal::denied(
                    "party-incomplete",
                    "who asks for the reset is not named",
                )
                .expected(&event.actor.principal.to_string())
                .received(&format!("{:?}", body.party.0)));
            }
            check_breaker_request(state, scope, body)?;
        }
        (ApprovalSubject::Resume { .. }, None) => {
            state.require_control(event)?;
            crate::review::check_request(state, body)?;
        }
        (ApprovalSubject::Resume { run, way, .. }, Some(envelope)) => {
            state.require_active_human(event)?;
            match state.take_command(event, envelope)? {
                Command::ResumeRun {
                    run: commanded,
                    way: said,
                    ..
                } if commanded == *run && said == *way => {}
                other => return Err(mismatch("resume-run of this run in this way", &other)),
            }
            crate::review::check_request(state, body)?;
        }
        (subject, _) => {
            return Err(
                Refusal::denied("not-requestable", "this can't be asked in this way")
                    .received(&format!("{subject:?}")),
            );
        }
    }
    let mut request = Request::new(
        RequestId(event.index),
        body.subject.clone(),
        body.needed.clone(),
        body.party.clone(),
        body.expires.min(event.time.plus_ms(REQUEST_LIFE_MS)),
    );
    request.task = body.task;
    request.checks = body.checks;
    request.because.clone_from(&body.because);
    state.requests.insert(request.id, Arc::new(request));
    Ok(())
}

fn check_breaker_request(
    state: &State,
    scope: &BreakerScope,
    body: &RequestOpened,
) -> Result<(), Refusal> {
    let floor = state.genesis()?.key_floor.breaker_reset;
    if !state.breakers.contains_key(scope) {
        return Err(Refusal::conflict(
            "breaker-not-tripped",
            format!("the breaker for {scope} is not tripped"),
        ));
    }
    require_floor(&body.needed, floor)
}

/// Refuses a request that takes less than what it must.
pub(crate) fn require_floor(needed: &Needed, key_class: KeyClass) -> Result<(), Refusal> {
    if needed.humans >= 1 && needed.parties >= 1 && needed.key_class >= key_class {
        return Ok(());
    }
    Err(
        Refusal::denied("request-too-weak", "this request takes less than it must")
            .expected(&format!(
                "at least one human with a key of class {key_class}"
            ))
            .received(&format!(
                "{} humans, class {}",
                needed.humans, needed.key_class
            )),
    )
}

/// A human approves.
pub(crate) fn given(state: &mut State, event: &Event, body: &ApprovalGiven) -> Result<(), Refusal> {
    let statement = &body.statement;
    let human = event.actor.require_human()?.clone();
    state.inventory.human(&human)?;
    check_envelope(&body.envelope, statement)?;
    let request = Arc::clone(find("request", &state.requests, &statement.request)?);
    if !request.is_open(event.time) {
        return Err(
            Refusal::conflict("request-closed", format!("{} no longer waits", request.id))
                .received(&format!("{:?}", request.status))
                .next("see `portcullis request list`"),
        );
    }
    let same = statement.subject == request.subject
        && statement.task == request.task
        && statement.checks == request.checks
        && statement.count == 1
        && statement.ledger.origin == state.genesis()?.origin
        && statement.ledger.size <= state.size();
    if !same || statement.approver != human {
        return Err(Refusal::denied(
            "statement-mismatch",
            "the statement is not what the request asks",
        )
        .expected("the request's own content, signed by the approver it names")
        .next(format!(
            "portcullis request show {0}, then portcullis approve {0}",
            request.id
        )));
    }
    if Some(statement.policy) != state.policy() {
        return Err(Refusal::conflict(
            "policy-changed",
            "another policy came into force meanwhile",
        )
        .next(format!("portcullis approve {}", request.id)));
    }
    if event.time >= statement.expires || event.index >= statement.expires_index {
        return Err(
            Refusal::denied("approval-expired", "the approval has expired").received(&format!(
                "{} or entry {}",
                statement.expires, statement.expires_index
            )),
        );
    }
    let proved = event.actor.key_class.unwrap_or(KeyClass::Software);
    if proved < request.needed.key_class || proved < statement.key_class {
        return Err(
            Refusal::denied("key-class-too-low", "this takes another kind of key")
                .expected(&format!(
                    "a signature of class {}",
                    request.needed.key_class
                ))
                .received(&proved.to_string())
                .next("sign with a hardware key (`ssh-keygen -t ed25519-sk`)"),
        );
    }
    if request.needed.administrators && !state.inventory.human(&human)?.manifest.administrator {
        return Err(
            Refusal::denied("not-administrator", "only administrators count here")
                .received(human.as_str()),
        );
    }
    let own = in_party(state, &request.party, &human);
    if own && !state.solo() {
        return Err(Refusal::denied(
            "own-party",
            format!("{human} had a hand in this and can't approve it"),
        )
        .expected("somebody who is not one of the request's own party")
        .received(&format!("{:?}", request.party.0))
        .next("ask another person to approve"));
    }
    if request
        .approvals
        .iter()
        .any(|approval| approval.human == human)
    {
        return Err(Refusal::conflict(
            "already-approved",
            format!("{human} approved {} already", request.id),
        ));
    }
    state.take_nonce(statement.nonce.clone(), statement.expires, event.time)?;
    let counted = Counted {
        entry: event.index,
        human,
        key_class: proved,
        self_approved: own,
        carry: statement.carry,
        expires_index: statement.expires_index,
        expires: statement.expires,
    };
    edit_in("request", &mut state.requests, &request.id, |request| {
        request.approvals.push(counted)
    })?;
    let request = Arc::clone(find("request", &state.requests, &request.id)?);
    if request.satisfied_at.is_none() && satisfied(state, &request, event.time) {
        let at = event.index;
        edit_in("request", &mut state.requests, &request.id, |request| {
            request.satisfied_at = Some(at);
        })?;
    }
    Ok(())
}

/// The envelope's payload is an in-toto statement whose predicate is this approval.
fn check_envelope(
    envelope: &Envelope,
    statement: &portcullis_model::statement::Approval,
) -> Result<(), Refusal> {
    let payload: serde_json::Value = serde_json::from_slice(&envelope.payload_bytes()?)
        .map_err(|error| Refusal::malformed("approval envelope").received(&error.to_string()))?;
    let predicate = serde_json::to_value(statement)
        .map_err(|error| Refusal::internal(format!("an approval does not serialise: {error}")))?;
    if payload
        .get("predicateType")
        .and_then(serde_json::Value::as_str)
        == Some(APPROVAL_TYPE)
        && payload.get("predicate") == Some(&predicate)
    {
        return Ok(());
    }
    Err(Refusal::denied(
        "statement-mismatch",
        "the envelope does not carry this statement",
    )
    .expected(&format!(
        "an in-toto statement with predicate type {APPROVAL_TYPE}"
    )))
}

/// A human says no.
pub(crate) fn rejected(
    state: &mut State,
    event: &Event,
    body: &RequestRejected,
) -> Result<(), Refusal> {
    state.require_active_human(event)?;
    let by = event.actor.require_human()?.clone();
    match state.take_command(event, &body.envelope)? {
        Command::Reject { request, .. } if request == body.request => {}
        other => return Err(mismatch("reject of this request", &other)),
    }
    close(state, body.request, Status::Rejected { by, why: body.why })
}

/// The server finds that a request was overtaken.
pub(crate) fn withdrawn(
    state: &mut State,
    event: &Event,
    body: &RequestWithdrawn,
) -> Result<(), Refusal> {
    state.require_control(event)?;
    close(
        state,
        body.request,
        Status::Withdrawn {
            code: body.code.clone(),
        },
    )
}

/// Ends a request that events overtook.
pub(crate) fn withdraw(state: &mut State, id: RequestId, code: &str) -> Result<(), Refusal> {
    close(
        state,
        id,
        Status::Withdrawn {
            code: code.to_owned(),
        },
    )
}

fn close(state: &mut State, id: RequestId, status: Status) -> Result<(), Refusal> {
    let request = find("request", &state.requests, &id)?;
    if request.status != Status::Open {
        return Err(
            Refusal::conflict("request-closed", format!("{id} no longer waits"))
                .received(&format!("{:?}", request.status)),
        );
    }
    edit_in("request", &mut state.requests, &id, |request| {
        request.status = status
    })
}
