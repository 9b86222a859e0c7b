//! One entry of the ledger as one sentence: who did what, under which authority.

#[cfg(test)]
mod tests;

use portcullis_model::event::{
    CheckVerdict, DecisionRecord, Effect, EffectOutcome, Ended, JobKind, JobOutcome, LandingMethod,
    RolloutOutcome, RunEnd, Step, TestVerdict,
};
use portcullis_model::statement::{ApprovalSubject, Carry};
use portcullis_model::{
    Actor, Body, ChangeId, Event, JobId, KeyClass, Mode, ReleaseId, RequestId, RolloutId, RunId,
};

/// The sentence of an event.
pub(crate) fn sentence(event: &Event) -> String {
    let mut said = format!("{} {}", who(&event.actor), did(event));
    match event.mode {
        Mode::Enforce => {}
        Mode::Observe => said.push_str(", observed only: nothing was enforced"),
        Mode::Warn => said.push_str(", with a warning only: nothing was enforced"),
    }
    said.push_str(&because(event));
    said
}

/// The actor with the proof by which it is known.
fn who(actor: &Actor) -> String {
    let host = actor
        .host
        .as_ref()
        .map(|host| format!(" via host {host}"))
        .unwrap_or_default();
    match (&actor.key, actor.key_class) {
        (Some(key), Some(class)) => {
            let proof = match class {
                KeyClass::Software => "software key",
                KeyClass::Presence => "hardware key, touched",
                KeyClass::Verified => "hardware key, user verified",
            };
            let key = key.get(..15).unwrap_or(key);
            format!("{} ({proof} {key}…{host})", actor.principal)
        }
        _ if host.is_empty() => actor.principal.to_string(),
        _ => format!("{} ({})", actor.principal, host.trim_start()),
    }
}

/// Who is behind it, where that is more than the actor.
fn because(event: &Event) -> String {
    let cause = &event.cause;
    let mut behind: Vec<String> = cause
        .agents
        .iter()
        .map(|id| format!("agent:{id}"))
        .collect();
    behind.extend(cause.humans.iter().map(|id| format!("human:{id}")));
    if cause.unknown {
        behind.push("somebody unknown, who counts as an agent".to_owned());
    }
    let own = event.actor.principal.to_string();
    behind.retain(|name| *name != own);
    match (behind.is_empty(), cause.run) {
        (true, _) => String::new(),
        (false, Some(run)) => format!("; behind it: {} in {run}", behind.join(", ")),
        (false, None) => format!("; behind it: {}", behind.join(", ")),
    }
}

/// What happened, and what allowed it.
fn did(event: &Event) -> String {
    let index = event.index;
    match &event.body {
        Body::GenesisCreated(body) => {
            let people: Vec<String> = body
                .humans
                .iter()
                .map(|human| human.id.to_string())
                .collect();
            let solo = if body.solo { ", who works alone" } else { "" };
            format!(
                "began the ledger {}: administrators {}{solo}, quorum {}",
                body.origin,
                people.join(", "),
                body.quorum
            )
        }
        Body::ActivationProposed(body) => format!(
            "proposed {} by a signed command, as {}",
            body.activation.subject(),
            RequestId(index)
        ),
        Body::ActivationCompleted(body) => {
            format!(
                "put into force what {} asked, by its approvals",
                body.request
            )
        }
        Body::PrincipalEnded(body) => format!(
            "{} by a signed command",
            match &body.subject {
                Ended::AgentSuspended(id) => format!("suspended agent {id}"),
                Ended::AgentRetired(id) => format!("retired agent {id}"),
                Ended::HumanRetired(id) => format!("retired human {id}"),
                Ended::HumanForgotten(id) =>
                    format!("retired human {id} and had name and mail address erased"),
                Ended::ServiceRetired(id) => format!("retired service {id}"),
                Ended::HostRetired(id) => format!("retired host {id}"),
            }
        ),
        Body::TaskAccepted(body) => format!(
            "took in {} for agent {}, signed by human:{}, under {}",
            body.task.short(),
            body.payload.agent,
            body.payload.signer,
            authority(&body.decision)
        ),
        Body::RunStarted(body) => {
            let leases: Vec<String> = body.leases.iter().map(ToString::to_string).collect();
            let gaps = if body.gaps.is_empty() {
                String::new()
            } else {
                let gaps: Vec<&str> = body.gaps.iter().map(String::as_str).collect();
                format!(", lacking {}", gaps.join(", "))
            };
            let contained = event
                .containment
                .map(|level| format!(" ({level}{gaps})"))
                .unwrap_or(gaps);
            format!(
                "started {} of agent {} on host {}{contained} under {}, lent {} until {}, under {}",
                RunId(index),
                body.agent,
                body.host,
                body.task.short(),
                leases.join(", "),
                body.deadline,
                authority(&body.decision)
            )
        }
        Body::RunEnded(body) => format!(
            "ended {}: {}; what it was lent is void",
            body.run,
            match &body.end {
                RunEnd::Exited { status } => format!("its command exited with {status}"),
                RunEnd::Deadline => "its deadline came".to_owned(),
                RunEnd::Denials => "it was denied too often".to_owned(),
                RunEnd::Human { .. } => "by a human's word".to_owned(),
                RunEnd::Rights => "its agent, signer or host lost its rights".to_owned(),
                RunEnd::Lost => "its launcher was not heard of".to_owned(),
            }
        ),
        Body::RunCheckpointed(body) => format!(
            "kept the workspace of {} as checkpoint {} ({} entries, {} bytes)",
            body.run, body.number, body.entries, body.bytes
        ),
        Body::RunReviewed(body) => {
            let causes: Vec<_> = body.causes.iter().map(|cause| cause.name()).collect();
            let outcome = if body.stop.is_some() {
                "it stands still until people let it go on"
            } else {
                "it goes on"
            };
            format!(
                "looked at {} in its window {} ({}): {outcome}, under {}",
                body.run,
                body.window,
                causes.join(", "),
                authority(&body.decision)
            )
        }
        Body::RunResumed(body) => format!("let {} go on, by {}", body.run, body.request),
        Body::RequestDenied(body) => format!(
            "was denied {} on {} ({}), under {}",
            body.action,
            body.resource,
            body.code,
            authority(&body.decision)
        ),
        Body::CallObserved(body) => {
            let model = match (&body.model_asked, &body.model_served) {
                (Some(asked), Some(served)) if asked != served => {
                    format!(", asked for {asked} and was served {served}")
                }
                (Some(asked), _) => format!(", asked for {asked}"),
                (None, Some(served)) => format!(", was served {served}"),
                (None, None) => String::new(),
            };
            let status = if body.status == 0 {
                "no answer".to_owned()
            } else {
                format!("status {}", body.status)
            };
            format!(
                "saw {} use {}{model}: {status}, {} bytes sent, {} received",
                body.run, body.lease, body.bytes.0, body.bytes.1
            )
        }
        Body::CallsObserved(body) => {
            let granted = body
                .granted
                .iter()
                .map(|granted| format!("{} granted of {}", granted.count, granted.lease));
            let ended = body.ended.iter().map(|ended| {
                let (sent, received) = ended.bytes.iter().fold((0_u64, 0_u64), |sum, bytes| {
                    (sum.0.saturating_add(bytes.0), sum.1.saturating_add(bytes.1))
                });
                let status = if ended.status == 0 {
                    "no answer".to_owned()
                } else {
                    format!("status {}", ended.status)
                };
                format!(
                    "{} over of {} with {status}, {sent} bytes sent, {received} received",
                    ended.bytes.len(),
                    ended.lease
                )
            });
            let calls: Vec<String> = granted.chain(ended).collect();
            format!("saw calls of {}: {}", body.run, calls.join("; "))
        }
        Body::PromptSeen(body) => match &body.model_served {
            Some(served) => format!(
                "saw {} asked for by {} at {}, and answered by {served}",
                body.model_asked, body.run, body.endpoint
            ),
            None => format!(
                "noted what {} tells {} at {}: system prompt {}, tools {}, instruction files {}",
                body.run,
                body.model_asked,
                body.endpoint,
                said(body.system.as_ref()),
                said(body.tools.as_ref()),
                said(body.instructions.as_ref())
            ),
        },
        Body::TaintAdded(body) => format!(
            "noted that {} reads from what its task does not trust: {}, first by {}",
            body.run, body.label, body.origin
        ),
        Body::LeaseRefused(body) => format!(
            "refused {} of {} for the first time since that run ended",
            body.lease, body.run
        ),
        Body::ChangePushed(body) => {
            let (verb, change) = match body.change {
                Some(change) => ("pushed a revision of", change),
                None => ("opened", ChangeId(index)),
            };
            format!(
                "{verb} {change} for {} of {}: {} on {}, {}, {}, under {}",
                body.branch,
                body.repository,
                body.head.short(),
                body.base.short(),
                count(body.files, "file", "files"),
                count(body.lines, "line", "lines"),
                authority(&body.decision)
            )
        }
        Body::ChecksCompleted(body) => {
            let rules: Vec<&str> = body
                .blocks
                .iter()
                .chain(&body.escalations)
                .map(String::as_str)
                .collect();
            let rules = if rules.is_empty() {
                String::new()
            } else {
                format!(" ({})", rules.join(", "))
            };
            let verdict = checks(body.verdict);
            format!(
                "checked revision {} of {}: {verdict}{rules}",
                body.revision, body.change
            )
        }
        Body::TestsCompleted(body) => {
            let verdict = tests(body.verdict);
            format!(
                "tested revision {} of {}: {verdict} ({} passed, {} failed, {} missing)",
                body.revision,
                body.change,
                body.counts.passed,
                body.counts.failed,
                body.counts.missing
            )
        }
        Body::ChangeClosed(body) => format!("closed {} by a signed command", body.change),
        Body::LandingPrepared(body) => format!(
            "made ready what would land of revision {} of {}: {} on {}, by {}, with the same diff",
            body.revision,
            body.change,
            body.head.short(),
            body.base.short(),
            match body.method {
                LandingMethod::FastForward => "moving its commits",
                LandingMethod::Merge => "a merge",
                LandingMethod::Rebase => "a rebase",
                LandingMethod::Squash => "a squash",
            }
        ),
        Body::LandingTested(body) => {
            let with = match body.with {
                Some(with) => format!(", tested together with what entry {with} made ready"),
                None => String::new(),
            };
            format!(
                "tested {} as entry {} made it ready: {} ({} passed, {} failed, {} missing){with}; \
                 checks: {}",
                body.change,
                body.prepared,
                tests(body.tests),
                body.counts.passed,
                body.counts.failed,
                body.counts.missing,
                checks(body.checks)
            )
        }
        Body::QueueHalted(body) => format!(
            "halted the queue of {} of {} at {}: {}, expected {}, found {}",
            body.branch, body.repository, body.change, body.code, body.expected, body.found
        ),
        Body::QueueResumed(body) => format!(
            "let the queue of {} of {} go on by a signed command",
            body.branch, body.repository
        ),
        Body::JobRequested(body) => {
            let what = match body.kind {
                JobKind::Test => "test",
                JobKind::Build => "build",
            };
            let change = body
                .change
                .map(|change| format!(" for {change}"))
                .unwrap_or_default();
            format!(
                "asked for {} to {what} {} of {}{change}, configured by {}",
                JobId(index),
                body.commit.short(),
                body.repository,
                body.configured_by.short()
            )
        }
        Body::JobClaimed(body) => format!("took {}", body.job),
        Body::JobFinished(body) => {
            let outcome = match body.outcome {
                JobOutcome::Succeeded => "succeeded",
                JobOutcome::Failed => "failed",
                JobOutcome::Lost => "was lost",
            };
            let made: Vec<String> = body
                .outputs
                .iter()
                .map(|output| format!("{} {}", output.name, output.digest.short()))
                .collect();
            let made = if made.is_empty() {
                String::new()
            } else {
                format!(", made {}", made.join(", "))
            };
            format!("said that {} {outcome}{made}", body.job)
        }
        Body::RequestOpened(body) => format!(
            "asked {} of {}, with keys of class {} at least, to {} as {}, since {}",
            count(u64::from(body.needed.humans), "human", "humans"),
            count(u64::from(body.needed.parties), "party", "parties"),
            body.needed.key_class,
            subject(&body.subject),
            RequestId(index),
            if body.because.is_empty() {
                authority(&body.decision)
            } else {
                body.because.join(", ")
            }
        ),
        Body::ApprovalGiven(body) => {
            let carry = match body.statement.carry {
                Carry::Exact => "",
                Carry::SameDiff => ", and the same diff on a later base",
            };
            format!(
                "approved {}: to {}{carry}, by a signature over exactly that",
                body.statement.request,
                subject(&body.statement.subject)
            )
        }
        Body::RequestRejected(body) => format!("rejected {} by a signed command", body.request),
        Body::RequestWithdrawn(body) => format!("withdrew {} ({})", body.request, body.code),
        Body::EffectIntended(body) => {
            let under = body
                .decision
                .as_ref()
                .map(|decision| format!(", under {}", authority(decision)))
                .unwrap_or_default();
            format!(
                "is about to {} (effect {index}){under}",
                effect(&body.effect)
            )
        }
        Body::EffectAttempted(body) => {
            format!("tries effect {} (attempt {})", body.effect, body.attempt)
        }
        Body::EffectConcluded(body) => {
            let outcome = match body.outcome {
                EffectOutcome::Done => "was done",
                EffectOutcome::Failed => "failed",
                EffectOutcome::Unknown => "may or may not have been done; a person must look",
            };
            let code = body
                .code
                .as_ref()
                .map(|code| format!(" ({code})"))
                .unwrap_or_default();
            format!("observed that effect {} {outcome}{code}", body.effect)
        }
        Body::CommitsUnproven(body) => {
            let count = match body.commits {
                0 => "rewritten history".to_owned(),
                number => count(number, "commit", "commits"),
            };
            format!(
                "found {count} up to {} on {} of {} that did not come this way, as {}",
                body.to.short(),
                body.branch,
                body.repository,
                RequestId(index)
            )
        }
        Body::ArtifactBuilt(body) => format!(
            "recorded artifact-{index}, {} ({}), built by {} from {} of {}",
            body.output.name,
            body.output.digest.short(),
            body.job,
            body.commit.short(),
            body.repository
        ),
        Body::ReleaseAdmitted(body) => {
            let by = match body.request {
                Some(request) => format!("by the approvals of {request}"),
                None => "by proof alone".to_owned(),
            };
            let work = if body.agent_work {
                "with agents' work"
            } else {
                "of people's work alone"
            };
            format!(
                "admitted {} to {} as {} {work} ({}), {by}, under {}",
                body.artifact,
                body.environment,
                ReleaseId(index),
                count(body.changes.len() as u64, "change", "changes"),
                authority(&body.decision)
            )
        }
        Body::ReleaseRevoked(body) => format!("revoked {} by a signed command", body.release),
        Body::RolloutStarted(body) => {
            let from = match body.stable {
                Some(stable) => format!(" from {stable}"),
                None => String::new(),
            };
            let way = if body.canary { "by canary" } else { "at once" };
            format!(
                "started {} of {} to {}{from}, {way}",
                RolloutId(index),
                body.environment,
                body.release
            )
        }
        Body::RolloutStepped(body) => {
            let step = match body.step {
                Step::Advance => "advanced",
                Step::Hold => "held",
                Step::Rollback => "took back",
                Step::Complete => "completed",
                Step::Pause => "paused",
                Step::Resume => "resumed",
            };
            format!(
                "{step} {} at {} per mille ({})",
                body.rollout, body.weight, body.code
            )
        }
        Body::RolloutEnded(body) => {
            let outcome = match body.outcome {
                RolloutOutcome::Completed => "the release has all traffic",
                RolloutOutcome::RolledBack => "traffic is back at the stable release",
                RolloutOutcome::Failed => "it never started",
            };
            format!("ended {}: {outcome} ({})", body.rollout, body.code)
        }
        Body::EnvironmentReverted(body) => {
            let to = match body.to {
                Some(release) => release.to_string(),
                None => "nothing: it stops serving".to_owned(),
            };
            let by = if body.envelope.is_some() {
                "by a signed command"
            } else {
                "by itself"
            };
            format!("returned {} to {to}, {by}", body.environment)
        }
        Body::BreakerTripped(body) => {
            let by = if body.envelope.is_some() {
                "by a signed command"
            } else {
                "by itself"
            };
            let revert = if body.revert {
                ", reverting finished releases too"
            } else {
                ""
            };
            format!("tripped the breaker {}{revert}, {by}", body.scope)
        }
        Body::BreakerReset(body) => {
            format!("reset a breaker, by the approvals of {}", body.request)
        }
        Body::IncidentOpened(body) => {
            let about = body
                .about
                .map(|entry| format!(" about entry {entry}"))
                .unwrap_or_default();
            let facts: Vec<String> = body
                .facts
                .iter()
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            let facts = if facts.is_empty() {
                String::new()
            } else {
                format!(": {}", facts.join(", "))
            };
            format!(
                "opened incident-{index}{about}, a person must look ({}){facts}",
                body.code
            )
        }
        Body::LedgerRestored(body) => {
            let from = body.restoration.from.size;
            match body.restoration.lost {
                Some(lost) if lost.from < from => format!(
                    "let the ledger go on from a copy of {from} entries; others from {} to {} are lost, and agents are halted",
                    lost.from, lost.to
                ),
                Some(lost) => format!(
                    "let the ledger go on from a copy of {from} entries; {} to {} are lost, and agents are halted",
                    lost.from, lost.to
                ),
                None if body.restoration.loses_nothing() => format!(
                    "let the ledger go on from a copy of {from} entries, which is all that anybody knew of"
                ),
                None => format!(
                    "let the ledger go on from a copy of {from} entries; nobody knows whether more are lost, and agents are halted"
                ),
            }
        }
        Body::ServerStarted(body) => format!(
            "took over the ledger with version {} at {} entries",
            body.program, body.found.size
        ),
    }
}

/// The decision behind it: the policy and the rules that decided.
fn authority(decision: &DecisionRecord) -> String {
    let policy = decision.policy.short();
    if decision.rules.is_empty() {
        return format!("policy {policy}");
    }
    format!("policy {policy} by {}", decision.rules.join(", "))
}

/// What is asked or approved.
fn subject(subject: &ApprovalSubject) -> String {
    match subject {
        ApprovalSubject::Change {
            change,
            revision,
            repository,
            branch,
            head,
            ..
        } => format!(
            "land revision {revision} of {change} ({}) on {branch} of {repository}",
            head.short()
        ),
        ApprovalSubject::Release {
            artifact,
            environment,
            digest,
            ..
        } => {
            format!("run {artifact} ({}) in {environment}", digest.short())
        }
        ApprovalSubject::Activation { subject, record } => {
            format!("put {subject} ({}) into force", record.short())
        }
        ApprovalSubject::BreakerReset { scope } => format!("reset the breaker {scope}"),
        ApprovalSubject::Resume { run, way, .. } => format!("let {run} go on {way}"),
        ApprovalSubject::Unproven {
            repository,
            branch,
            to,
            ..
        } => {
            format!(
                "accept unproven commits up to {} on {branch} of {repository}",
                to.short()
            )
        }
    }
}

const fn checks(verdict: CheckVerdict) -> &'static str {
    match verdict {
        CheckVerdict::Pass => "nothing to see",
        CheckVerdict::Escalate => "a human must look",
        CheckVerdict::Block => "it can't land",
    }
}

const fn tests(verdict: TestVerdict) -> &'static str {
    match verdict {
        TestVerdict::Passed => "passed",
        TestVerdict::Failed => "failed",
        TestVerdict::Missing => "tests of the base did not run",
        TestVerdict::NotConfigured => "the base configures none",
    }
}

/// What changes outside.
fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Land {
            change,
            revision,
            repository,
            branch,
            old,
            new,
            request,
            together,
            ..
        } => {
            let with = match together {
                Some(_) => ", together with the others of its task or not at all",
                None => "",
            };
            let by = match request {
                Some(request) => format!(", by the approvals of {request}"),
                None => String::new(),
            };
            format!(
                "land revision {revision} of {change} on {branch} of {repository}, from {} to {}{by}{with}",
                old.short(),
                new.short()
            )
        }
        Effect::TakeBack {
            landing,
            change,
            repository,
            branch,
            from,
            to,
        } => format!(
            "take back the landing of {change} (effect {landing}), since another of its task \
             failed: {branch} of {repository} goes from {} back to {}",
            from.short(),
            to.short()
        ),
        Effect::StartRelease { release } => format!("start the process of {release}"),
        Effect::SetTraffic {
            rollout,
            epoch,
            weight,
        } => {
            format!("give the canary of {rollout} {weight} per mille (epoch {epoch})")
        }
        Effect::StopRelease { release } => format!("stop the process of {release}"),
    }
}

/// A number with its noun.
fn count(number: u64, one: &str, many: &str) -> String {
    if number == 1 {
        format!("1 {one}")
    } else {
        format!("{number} {many}")
    }
}

/// A digest, or that there is none.
fn said(digest: Option<&portcullis_model::Digest>) -> String {
    digest.map_or_else(|| "none".to_owned(), ToString::to_string)
}
