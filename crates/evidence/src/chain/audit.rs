//! Every signature in every entry, against the keys that the genesis and the activations before it
//! name.
//!
//! The fold (`flow`) says whether an entry follows from those before; the tree says that nothing
//! was changed since a checkpoint. Both take the server's word for who signed. The [`Auditor`]
//! doesn't: it recomputes key and class of every actor from the signature in the entry, and every
//! activation from its approvals. Tree, fold and auditor together are a verification that doesn't
//! trust the server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_model::event::{
    ActivationProposed, ApprovalGiven, Body, ChangePushed, Ended, JobOutcome, LedgerRestored,
    RolloutOutcome, RunEnd, Step, TaskAccepted,
};
use portcullis_model::manifest::{Activation, ServiceRole};
use portcullis_model::statement::{ApprovalSubject, Command, Envelope, SignedCommand};
use portcullis_model::{
    Digest, Event, HumanId, KeyClass, LedgerIndex, Party, Principal, PublicKey, Refusal, RequestId,
    Timestamp, canonical,
};
use serde::{Deserialize, Serialize};

use super::registry::Registry;
use crate::dsse::{self, PAYLOAD_COMMAND, PAYLOAD_IN_TOTO, UnverifiedEnvelope};
use crate::sshsig::{Attestation, UnverifiedSshSignature};
use crate::statement::{self, StatementType, TrustedKey};

/// Payload type of a person's push: the text of git's push certificate, signed as git signs it (over
/// the text itself, not over a DSSE encoding of it).
pub const PAYLOAD_PUSH_CERTIFICATE: &str = "application/vnd.git.push-certificate";
/// The namespace in which git signs.
const PUSH_NAMESPACE: &str = "git";
/// How every push certificate begins.
const PUSH_FIRST_LINE: &str = "certificate version 0.1\n";

/// Walks a ledger, or the entries of a bundle, in order.
///
/// Serialises, so that a verifier can go on where it ended; whoever reads it back must know that
/// nobody changed it meanwhile.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auditor {
    registry: Option<Arc<Registry>>,
    proposals: BTreeMap<RequestId, Proposal>,
    nonces: BTreeSet<String>,
    next: LedgerIndex,
    time: Option<Timestamp>,
    self_approved: bool,
}

/// What an audited entry showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audited {
    /// Whose signature was verified, and what it proves.
    pub signature: Option<Signed>,
    /// Blobs that hold further signatures and were not given.
    pub missing: Vec<Digest>,
}

/// A verified signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The key's fingerprint.
    pub key: String,
    /// What it proves about the person.
    pub class: KeyClass,
}

/// A record that waits for its quorum.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proposal {
    activation: Activation,
    author: HumanId,
    approvals: Vec<Yes>,
    self_approved: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Yes {
    human: HumanId,
    expires: Timestamp,
    expires_index: LedgerIndex,
}

/// Looks a blob up.
pub type BlobLookup<'a> = dyn Fn(&Digest) -> Option<Vec<u8>> + 'a;

impl Auditor {
    /// An auditor before entry 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether any approval so far was by somebody who had a hand in what was approved.
    pub const fn self_approved(&self) -> bool {
        self.self_approved
    }

    pub(super) fn registry(&self) -> Option<&Arc<Registry>> {
        self.registry.as_ref()
    }

    /// Takes one entry in; entries may be left out (a bundle does), but their order is the ledger's.
    ///
    /// `blob` gives bodies by digest: job results' attestations are there. One that it doesn't have
    /// is reported, not refused.
    ///
    /// # Errors
    /// What does not hold: order, an unknown or ended key, a signature, a nonce used twice, a
    /// command that is not what the entry says, an activation without its quorum.
    pub fn take(&mut self, event: &Event, blob: &BlobLookup<'_>) -> Result<Audited, Refusal> {
        self.order(event)?;
        if let Body::GenesisCreated(genesis) = &event.body {
            self.registry = Some(Arc::new(Registry::new(genesis)));
            return Ok(Audited::default());
        }
        let registry = self
            .registry
            .clone()
            .ok_or_else(|| Refusal::denied("no-genesis", "the first entry is not a genesis"))?;
        if by_the_server(&event.body) {
            registry.require_role(&event.actor.principal, ServiceRole::Control, event.time)?;
        }
        let mut audited = Audited {
            signature: self.signature(&registry, event)?,
            missing: Vec::new(),
        };
        match &event.body {
            Body::ActivationProposed(body) => {
                self.proposed(&registry, event, body, audited.signature.as_ref())?;
            }
            Body::ApprovalGiven(body) => {
                self.approved(&registry, event, body, audited.signature.as_ref())?;
            }
            Body::ActivationCompleted(body) => self.completed(&registry, event, body.request)?,
            Body::PrincipalEnded(body) => {
                may_end(&registry, event, &body.subject)?;
                let mut after = Registry::clone(&registry);
                after.end(&body.subject);
                self.registry = Some(Arc::new(after));
            }
            Body::LedgerRestored(body) => {
                may_restore(&registry, event, body, audited.signature.as_ref())?;
            }
            Body::JobFinished(body) => {
                let lost = body.outcome == JobOutcome::Lost;
                if !lost && let Some(digest) = &body.attestation {
                    match blob(digest) {
                        None => audited.missing.push(*digest),
                        Some(bytes) => attestation(&registry, event, digest, &bytes)?,
                    }
                }
            }
            _ => {}
        }
        Ok(audited)
    }

    fn order(&mut self, event: &Event) -> Result<(), Refusal> {
        let first = matches!(event.body, Body::GenesisCreated(_));
        let early = self.time.is_some_and(|time| event.time < time);
        if event.index < self.next || early || first != (event.index == 0) {
            return Err(Refusal::denied(
                "out-of-order",
                "this entry does not follow the one before",
            )
            .received(&format!("index {}, {}", event.index, event.time)));
        }
        self.next = event.index.saturating_add(1);
        self.time = Some(event.time);
        Ok(())
    }

    /// Verifies the signature that the entry carries, and that its actor is what it proves.
    fn signature(&mut self, registry: &Registry, event: &Event) -> Result<Option<Signed>, Refusal> {
        let signed = match &event.body {
            Body::TaskAccepted(body) => self.task(registry, event, body)?,
            Body::ChangePushed(body) => match (&body.envelope, body.run) {
                (None, Some(_)) => return Ok(None),
                (Some(envelope), None) => self.push(registry, event, body, envelope)?,
                (None, None) | (Some(_), Some(_)) => {
                    return Err(Refusal::denied(
                        "push-unsigned",
                        "a push is by a run, or signed by a person",
                    ));
                }
            },
            Body::ApprovalGiven(body) => {
                let envelope = UnverifiedEnvelope::try_from(body.envelope.clone())?;
                let keys = registry.keys_of(&event.actor.principal, event.time)?;
                let proof = crate::approval::verify(&envelope, &trusted(&keys))?;
                if *proof.payload() != body.statement
                    || event.actor.principal != Principal::Human(body.statement.approver.clone())
                {
                    return Err(not_what_was_signed("approval"));
                }
                self.nonce(&body.statement.nonce)?;
                Signed {
                    key: proof.key().fingerprint().to_owned(),
                    class: proof.class(),
                }
            }
            body => match command_envelope(body)? {
                None => return Ok(None),
                Some(envelope) => self.command(registry, event, envelope)?,
            },
        };
        if event.actor.key.as_ref() != Some(&signed.key)
            || event.actor.key_class != Some(signed.class)
        {
            return Err(Refusal::denied(
                "actor-not-proved",
                "the entry's actor is not what its signature proves",
            )
            .expected(&format!("key {} of class {}", signed.key, signed.class))
            .received(&format!(
                "key {:?} of class {:?}",
                event.actor.key, event.actor.key_class
            )));
        }
        Ok(Some(signed))
    }

    fn task(
        &mut self,
        registry: &Registry,
        event: &Event,
        body: &TaskAccepted,
    ) -> Result<Signed, Refusal> {
        let task = &body.payload;
        task.validate()?;
        let envelope = UnverifiedEnvelope::try_from(body.envelope.clone())?;
        let keys = registry.keys_of(&Principal::Human(task.signer.clone()), event.time)?;
        let proof = statement::verify(&envelope, StatementType::Task, &trusted(&keys))?;
        let id = Digest::of(proof.payload());
        if *proof.payload() != canonical::to_vec(task)?
            || id != body.task.0
            || event.actor.principal != Principal::Human(task.signer.clone())
        {
            return Err(not_what_was_signed("task"));
        }
        if task.origin != registry.origin {
            return Err(
                Refusal::denied("wrong-ledger", "the task is meant for another ledger")
                    .expected(&registry.origin)
                    .received(&task.origin),
            );
        }
        if event.time < task.not_before || event.time >= task.expires {
            return Err(Refusal::denied(
                "task-untimely",
                "the task was taken in outside its window",
            )
            .expected(&format!("{} to {}", task.not_before, task.expires))
            .received(&event.time.to_string()));
        }
        let agent = registry.agent(&task.agent, event.time)?;
        if !registry.may_task(&task.signer, agent) {
            return Err(Refusal::denied(
                "signer-not-allowed",
                format!("{} may not give tasks to agent {}", task.signer, task.agent),
            ));
        }
        self.nonce(&task.nonce)?;
        Ok(Signed {
            key: proof.key().fingerprint().to_owned(),
            class: proof.class(),
        })
    }

    /// A person's push is git's own signed push: an SSH signature over the certificate's text.
    fn push(
        &mut self,
        registry: &Registry,
        event: &Event,
        body: &ChangePushed,
        envelope: &Envelope,
    ) -> Result<Signed, Refusal> {
        let envelope = UnverifiedEnvelope::try_from(envelope.clone())?;
        envelope.expect_type(PAYLOAD_PUSH_CERTIFICATE)?;
        let wire = envelope.only_signature()?;
        let keys = registry.keys_of(&event.actor.principal, event.time)?;
        let key = keys
            .iter()
            .find(|key| key.fingerprint() == wire.key_id)
            .ok_or_else(|| dsse::unknown_signer(&wire.key_id))?;
        let payload = envelope.unverified_payload();
        let proof = UnverifiedSshSignature::from_binary(&wire.signature)?.verify(
            key,
            Attestation::None,
            PUSH_NAMESPACE,
            payload,
        )?;
        // Commits are signed in the same namespace; none of them begins like a certificate.
        let text = std::str::from_utf8(payload).unwrap_or_default();
        let (head, commands) = text.split_once("\n\n").unwrap_or_default();
        let wanted = format!(" {} refs/for/{}", body.head, body.branch);
        let named = commands.lines().any(|line| line.ends_with(&wanted));
        let nonce = head.lines().find_map(|line| line.strip_prefix("nonce "));
        let (true, true, Some(nonce)) = (head.starts_with(PUSH_FIRST_LINE), named, nonce) else {
            return Err(not_what_was_signed("push"));
        };
        self.nonce(&format!("{nonce} {}", body.branch))?;
        Ok(Signed {
            key: proof.key.fingerprint().to_owned(),
            class: proof.class,
        })
    }

    fn command(
        &mut self,
        registry: &Registry,
        event: &Event,
        envelope: &Envelope,
    ) -> Result<Signed, Refusal> {
        let command = SignedCommand::read(envelope)?;
        let keys = registry.keys_of(&command.principal, event.time)?;
        let unverified = UnverifiedEnvelope::try_from(envelope.clone())?;
        let proof = if matches!(command.principal, Principal::Human(_)) {
            statement::verify(&unverified, StatementType::Command, &trusted(&keys))?
        } else {
            dsse::verify(&unverified, PAYLOAD_COMMAND, &keys)?
        };
        if command.principal != event.actor.principal {
            return Err(Refusal::denied(
                "wrong-actor",
                "the entry's actor did not sign its command",
            )
            .expected(&command.principal.to_string())
            .received(&event.actor.principal.to_string()));
        }
        let life = command.expires.ms_since(command.issued);
        if command.origin != registry.origin
            || life > SignedCommand::MAX_LIFE_MS
            || event.time >= command.expires
        {
            return Err(Refusal::denied(
                "command-untimely",
                "the command is for another ledger, lives too long or had expired",
            )
            .expected(&format!("for {} at {}", registry.origin, event.time))
            .received(&format!(
                "for {}, {} to {}",
                command.origin, command.issued, command.expires
            )));
        }
        // One command may take authority away in several places; it grants in one.
        if !event.body.reduces_authority() {
            self.nonce(&command.nonce)?;
        }
        if !says(&command.command, &event.body)? {
            return Err(
                Refusal::denied("command-mismatch", "the entry is not what was commanded")
                    .expected(event.body.type_name())
                    .received(command.command.name()),
            );
        }
        Ok(Signed {
            key: proof.key().fingerprint().to_owned(),
            class: proof.class(),
        })
    }

    fn nonce(&mut self, nonce: &str) -> Result<(), Refusal> {
        if self.nonces.insert(nonce.to_owned()) {
            return Ok(());
        }
        Err(
            Refusal::denied("nonce-replayed", "a signature was used twice")
                .expected("a nonce that no earlier entry used"),
        )
    }

    fn proposed(
        &mut self,
        registry: &Registry,
        event: &Event,
        body: &ActivationProposed,
        signed: Option<&Signed>,
    ) -> Result<(), Refusal> {
        body.activation.validate()?;
        let author = event.actor.require_human()?.clone();
        let class = signed.map_or(KeyClass::Software, |signed| signed.class);
        // The author of a one-person team signed the very record.
        let own = registry.solo && class >= registry.floor_for(&body.activation);
        let approvals = own.then(|| Yes {
            human: author.clone(),
            expires: Timestamp::from_ms(u64::MAX),
            expires_index: LedgerIndex::MAX,
        });
        let proposal = Proposal {
            activation: body.activation.clone(),
            author,
            approvals: approvals.into_iter().collect(),
            self_approved: own,
        };
        self.proposals.insert(RequestId(event.index), proposal);
        Ok(())
    }

    /// Counts an approval of an activation. Those of other requests are looked at where they are
    /// used.
    fn approved(
        &mut self,
        registry: &Registry,
        event: &Event,
        body: &ApprovalGiven,
        signed: Option<&Signed>,
    ) -> Result<(), Refusal> {
        let statement = &body.statement;
        check_statement(registry, event, statement)?;
        let Some(proposal) = self.proposals.get_mut(&statement.request) else {
            return Ok(());
        };
        let approver = &statement.approver;
        let subject = ApprovalSubject::Activation {
            subject: proposal.activation.subject(),
            record: proposal.activation.digest()?,
        };
        if statement.subject != subject {
            return Err(not_what_was_signed("activation"));
        }
        let party = Party([Principal::Human(proposal.author.clone())].into());
        let own = registry.in_party(&party, approver);
        let class = signed.map_or(KeyClass::Software, |signed| signed.class);
        let administrator = registry.human(approver)?.manifest.administrator;
        if (own && !registry.solo)
            || !administrator
            || class < registry.floor_for(&proposal.activation)
        {
            return Err(Refusal::denied(
                "approval-does-not-count",
                format!(
                    "{approver}'s approval of {} does not count",
                    statement.request
                ),
            )
            .expected("an administrator other than its author, with a key of the class demanded"));
        }
        proposal.self_approved |= own;
        proposal.approvals.push(Yes {
            human: approver.clone(),
            expires: statement.expires,
            expires_index: statement.expires_index,
        });
        Ok(())
    }

    fn completed(
        &mut self,
        registry: &Registry,
        event: &Event,
        request: RequestId,
    ) -> Result<(), Refusal> {
        let proposal = self.proposals.remove(&request).ok_or_else(|| {
            Refusal::denied("proposal-missing", "an activation without its proposal")
                .received(&request.to_string())
        })?;
        let humans: BTreeSet<HumanId> = proposal
            .approvals
            .iter()
            .filter(|yes| {
                event.time < yes.expires
                    && event.index < yes.expires_index
                    && registry.human(&yes.human).is_ok()
            })
            .map(|yes| yes.human.clone())
            .collect();
        let quorum = usize::try_from(registry.quorum).unwrap_or(usize::MAX);
        if humans.len() < quorum || registry.parties(&humans) < quorum {
            return Err(Refusal::denied(
                "quorum-missing",
                format!(
                    "{} came into force without its quorum",
                    proposal.activation.subject()
                ),
            )
            .expected(&format!(
                "{quorum} administrators of as many parties, its author {} excluded",
                proposal.author
            ))
            .received(&format!("{} by {humans:?}", humans.len())));
        }
        self.self_approved |= proposal.self_approved;
        let mut after = Registry::clone(registry);
        let alone = proposal.self_approved.then_some(proposal.author);
        after.activate(&proposal.activation, alone);
        self.registry = Some(Arc::new(after));
        Ok(())
    }
}

/// What every approval must say, whatever it is for.
pub(super) fn check_statement(
    registry: &Registry,
    event: &Event,
    statement: &portcullis_model::statement::Approval,
) -> Result<(), Refusal> {
    let refuse = |code: &str, message: &str, expected: String, received: String| {
        Err(Refusal::denied(code, message)
            .expected(&expected)
            .received(&received))
    };
    if statement.ledger.origin != registry.origin
        || statement.ledger.size > event.index
        || statement.count != 1
    {
        return refuse(
            "statement-mismatch",
            "the approval is for another ledger or a later state of it",
            format!("{} with at most {} entries", registry.origin, event.index),
            format!("{} with {}", statement.ledger.origin, statement.ledger.size),
        );
    }
    if statement.policy != registry.policy.digest {
        return refuse(
            "policy-changed",
            "the approval was given under another policy",
            registry.policy.digest.to_string(),
            statement.policy.to_string(),
        );
    }
    if event.time >= statement.expires || event.index >= statement.expires_index {
        return refuse(
            "approval-expired",
            "the approval had expired",
            format!(
                "before {} and entry {}",
                statement.expires, statement.expires_index
            ),
            format!("{} and entry {}", event.time, event.index),
        );
    }
    let proved = event.actor.key_class.unwrap_or(KeyClass::Software);
    if proved < statement.key_class {
        return refuse(
            "key-class-too-low",
            "the approval claims more than its key proves",
            statement.key_class.to_string(),
            proved.to_string(),
        );
    }
    Ok(())
}

/// Rights are taken by an administrator or an owner.
fn may_end(registry: &Registry, event: &Event, ended: &Ended) -> Result<(), Refusal> {
    let by = event.actor.require_human()?;
    let owner = match ended {
        Ended::AgentSuspended(id) | Ended::AgentRetired(id) => {
            registry.agents.get(id).map(|record| &record.manifest.owner)
        }
        Ended::HumanRetired(id) | Ended::HumanForgotten(id) => Some(id),
        Ended::ServiceRetired(id) => registry
            .services
            .get(id)
            .map(|record| &record.manifest.owner),
        Ended::HostRetired(id) => registry.hosts.get(id).map(|record| &record.manifest.owner),
    };
    if registry.human(by)?.manifest.administrator || owner == Some(by) {
        return Ok(());
    }
    Err(Refusal::denied(
        "not-owner",
        "only its owner or an administrator may do this",
    )
    .received(by.as_str()))
}

/// That entries are lost is said by an administrator, who proves as much as for a breaker's reset.
fn may_restore(
    registry: &Registry,
    event: &Event,
    body: &LedgerRestored,
    signed: Option<&Signed>,
) -> Result<(), Refusal> {
    let by = event.actor.require_human()?;
    let class = signed.map_or(KeyClass::Software, |signed| signed.class);
    if !registry.human(by)?.manifest.administrator || class < registry.key_floor.breaker_reset {
        return Err(Refusal::denied(
            "restore-not-allowed",
            "only an administrator lets the ledger go on from a copy",
        )
        .expected(&format!(
            "an administrator with a key of class {}",
            registry.key_floor.breaker_reset
        ))
        .received(&format!("{by} with class {class}")));
    }
    body.restoration.validate()
}

/// Whether the entry is the server's own act, for which nobody else signs: the log's signature over
/// the tree is its signature.
fn by_the_server(body: &Body) -> bool {
    match body {
        Body::RequestOpened(body) => body.envelope.is_none(),
        Body::JobFinished(body) => body.envelope.is_none(),
        Body::ActivationCompleted(_)
        | Body::ChecksCompleted(_)
        | Body::TestsCompleted(_)
        | Body::JobRequested(_)
        | Body::EffectIntended(_)
        | Body::EffectAttempted(_)
        | Body::EffectConcluded(_)
        | Body::CommitsUnproven(_)
        | Body::LandingPrepared(_)
        | Body::LandingTested(_)
        | Body::ArtifactBuilt(_)
        | Body::ReleaseAdmitted(_)
        | Body::RolloutStarted(_)
        | Body::BreakerReset(_)
        | Body::RunReviewed(_)
        | Body::RunResumed(_) => true,
        Body::GenesisCreated(_)
        | Body::ActivationProposed(_)
        | Body::PrincipalEnded(_)
        | Body::TaskAccepted(_)
        | Body::RunStarted(_)
        | Body::RunEnded(_)
        | Body::RequestDenied(_)
        | Body::RunCheckpointed(_)
        | Body::CallObserved(_)
        | Body::CallsObserved(_)
        | Body::LeaseRefused(_)
        | Body::PromptSeen(_)
        | Body::TaintAdded(_)
        | Body::ChangePushed(_)
        | Body::ChangeClosed(_)
        | Body::JobClaimed(_)
        | Body::ApprovalGiven(_)
        | Body::RequestRejected(_)
        | Body::RequestWithdrawn(_)
        | Body::ReleaseRevoked(_)
        | Body::RolloutStepped(_)
        | Body::RolloutEnded(_)
        | Body::EnvironmentReverted(_)
        | Body::BreakerTripped(_)
        | Body::QueueHalted(_)
        | Body::QueueResumed(_)
        | Body::IncidentOpened(_)
        | Body::ServerStarted(_)
        | Body::LedgerRestored(_) => false,
    }
}

/// The envelope of the command behind an entry; none where entries of its type carry none.
fn command_envelope(body: &Body) -> Result<Option<&Envelope>, Refusal> {
    Ok(match body {
        Body::ActivationProposed(body) => Some(&body.envelope),
        Body::PrincipalEnded(body) => Some(&body.envelope),
        Body::RunStarted(body) => Some(&body.envelope),
        Body::ChangeClosed(body) => Some(&body.envelope),
        Body::QueueResumed(body) => Some(&body.envelope),
        Body::JobClaimed(body) => Some(&body.envelope),
        Body::JobFinished(body) => {
            if body.envelope.is_none() && body.outcome != JobOutcome::Lost {
                return Err(Refusal::denied(
                    "unsigned-result",
                    "a job's result takes its service's signature",
                ));
            }
            body.envelope.as_ref()
        }
        Body::RequestOpened(body) => body.envelope.as_ref(),
        Body::RequestRejected(body) => Some(&body.envelope),
        Body::ReleaseRevoked(body) => Some(&body.envelope),
        Body::RolloutStepped(body) => body.envelope.as_ref(),
        Body::RunEnded(body) => body.envelope.as_ref(),
        Body::RolloutEnded(body) => body.envelope.as_ref(),
        Body::EnvironmentReverted(body) => body.envelope.as_ref(),
        Body::BreakerTripped(body) => body.envelope.as_ref(),
        Body::LedgerRestored(body) => Some(&body.envelope),
        Body::GenesisCreated(_)
        | Body::ActivationCompleted(_)
        | Body::TaskAccepted(_)
        | Body::ChangePushed(_)
        | Body::RunCheckpointed(_)
        | Body::RunReviewed(_)
        | Body::RunResumed(_)
        | Body::RequestDenied(_)
        | Body::CallObserved(_)
        | Body::CallsObserved(_)
        | Body::LeaseRefused(_)
        | Body::PromptSeen(_)
        | Body::TaintAdded(_)
        | Body::ChecksCompleted(_)
        | Body::TestsCompleted(_)
        | Body::JobRequested(_)
        | Body::ApprovalGiven(_)
        | Body::RequestWithdrawn(_)
        | Body::EffectIntended(_)
        | Body::EffectAttempted(_)
        | Body::EffectConcluded(_)
        | Body::CommitsUnproven(_)
        | Body::LandingPrepared(_)
        | Body::LandingTested(_)
        | Body::QueueHalted(_)
        | Body::ArtifactBuilt(_)
        | Body::ReleaseAdmitted(_)
        | Body::RolloutStarted(_)
        | Body::BreakerReset(_)
        | Body::IncidentOpened(_)
        | Body::ServerStarted(_) => None,
    })
}

/// Whether the command is what the entry says.
fn says(command: &Command, body: &Body) -> Result<bool, Refusal> {
    Ok(match (command, body) {
        (Command::Propose { activation, why }, Body::ActivationProposed(body)) => {
            *activation == body.activation && *why == body.why
        }
        (Command::SuspendAgent { agent, why }, Body::PrincipalEnded(body)) => {
            body.subject == Ended::AgentSuspended(agent.clone()) && body.why == *why
        }
        (Command::RetireAgent { agent, why }, Body::PrincipalEnded(body)) => {
            body.subject == Ended::AgentRetired(agent.clone()) && body.why == *why
        }
        (Command::RetireHuman { human, why }, Body::PrincipalEnded(body)) => {
            body.subject == Ended::HumanRetired(human.clone()) && body.why == *why
        }
        (Command::ForgetHuman { human, why }, Body::PrincipalEnded(body)) => {
            body.subject == Ended::HumanForgotten(human.clone()) && body.why == *why
        }
        (Command::RetireService { service, why }, Body::PrincipalEnded(body)) => {
            body.subject == Ended::ServiceRetired(service.clone()) && body.why == *why
        }
        (Command::RetireHost { host, why }, Body::PrincipalEnded(body)) => {
            body.subject == Ended::HostRetired(host.clone()) && body.why == *why
        }
        (
            Command::RunEnded {
                run,
                exit,
                deadline,
            },
            Body::RunEnded(body),
        ) => {
            let said = if *deadline {
                RunEnd::Deadline
            } else {
                RunEnd::Exited { status: *exit }
            };
            body.run == *run && body.end == said
        }
        (Command::AbortRollout { rollout, .. }, Body::RolloutEnded(body)) => {
            body.rollout == *rollout && body.outcome == RolloutOutcome::RolledBack
        }
        (Command::EndRun { run, why }, Body::RunEnded(body)) => {
            body.run == *run && matches!(&body.end, RunEnd::Human { why: said } if said == why)
        }
        (Command::Reject { request, why }, Body::RequestRejected(body)) => {
            body.request == *request && body.why == *why
        }
        (
            Command::ResumeQueue {
                repository,
                branch,
                why,
            },
            Body::QueueResumed(body),
        ) => body.repository == *repository && body.branch == *branch && body.why == *why,
        (Command::CloseChange { change, why }, Body::ChangeClosed(body)) => {
            body.change == *change && body.why == *why
        }
        (
            Command::Release {
                artifact,
                environment,
            },
            Body::RequestOpened(body),
        ) => matches!(
            &body.subject,
            ApprovalSubject::Release { artifact: a, environment: e, .. }
                if a == artifact && e == environment
        ),
        (Command::ResetBreaker { scope, .. }, Body::RequestOpened(body)) => matches!(
            &body.subject,
            ApprovalSubject::BreakerReset { scope: said } if said == scope
        ),
        (Command::ResumeRun { run, way, .. }, Body::RequestOpened(body)) => matches!(
            &body.subject,
            ApprovalSubject::Resume { run: said, way: in_way, .. } if said == run && in_way == way
        ),
        (Command::RevokeRelease { release, why }, Body::ReleaseRevoked(body)) => {
            body.release == *release && body.why == *why
        }
        (
            Command::Rollback {
                environment,
                to,
                why,
            },
            Body::EnvironmentReverted(body),
        ) => {
            body.environment == *environment
                && body.why == *why
                && to.is_none_or(|to| body.to == Some(to))
        }
        (Command::TripBreaker { why, revert, .. }, Body::EnvironmentReverted(body)) => {
            *revert && body.why == *why
        }
        (Command::TripBreaker { scope, why, revert }, Body::BreakerTripped(body)) => {
            body.scope == *scope && body.why == *why && body.revert == *revert
        }
        (Command::RestoreLedger { restoration, why }, Body::LedgerRestored(body)) => {
            *restoration == body.restoration && *why == body.why
        }
        (Command::PauseRollout { rollout, .. }, Body::RolloutStepped(body)) => {
            body.rollout == *rollout && body.step == Step::Pause
        }
        (Command::ResumeRollout { rollout, .. }, Body::RolloutStepped(body)) => {
            body.rollout == *rollout && body.step == Step::Resume
        }
        (
            Command::StartRun {
                task,
                run_key,
                gaps,
                ..
            },
            Body::RunStarted(body),
        ) => {
            *run_key == body.run_key
                && *gaps == body.gaps
                && Digest::of(&task.payload_bytes()?) == body.task.0
        }
        (Command::ClaimJob { job }, Body::JobClaimed(body)) => {
            job.is_none_or(|job| job == body.job)
        }
        (
            Command::FinishJob {
                job,
                succeeded,
                attestation,
                report,
                outputs,
            },
            Body::JobFinished(body),
        ) => {
            *job == body.job
                && *succeeded == (body.outcome == JobOutcome::Succeeded)
                && Some(*attestation) == body.attestation
                && Some(*report) == body.report
                && *outputs == body.outputs
        }
        _ => false,
    })
}

/// The attestation of a job's result is signed by the service that delivers it.
fn attestation(
    registry: &Registry,
    event: &Event,
    digest: &Digest,
    bytes: &[u8],
) -> Result<(), Refusal> {
    if Digest::of(bytes) != *digest {
        return Err(blob_altered(digest));
    }
    let envelope = UnverifiedEnvelope::parse(bytes)?;
    let keys = registry.keys_of(&event.actor.principal, event.time)?;
    dsse::verify(&envelope, PAYLOAD_IN_TOTO, &keys).map(|_| ())
}

/// Keys as people's signatures are checked against; no hardware attestation was kept.
pub(super) fn trusted<'a>(keys: &[&'a PublicKey]) -> Vec<TrustedKey<'a>> {
    keys.iter()
        .map(|key| TrustedKey {
            key,
            attestation: Attestation::None,
        })
        .collect()
}

pub(super) fn blob_altered(digest: &Digest) -> Refusal {
    Refusal::denied(
        "blob-altered",
        "a body is not the one that its digest names",
    )
    .expected(&digest.to_string())
}

fn not_what_was_signed(what: &str) -> Refusal {
    Refusal::denied(
        "not-what-was-signed",
        format!("the entry's {what} is not what its signature covers"),
    )
    .expected("the signed bytes, by whom they name")
}
