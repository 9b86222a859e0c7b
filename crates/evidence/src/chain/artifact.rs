//! From landed changes to the release: build, coverage, policy, admission, rollout.

use std::collections::BTreeSet;

use portcullis_model::event::{
    ArtifactBuilt, Body, DecisionRecord, JobKind, Needed, ReleaseAdmitted,
};
use portcullis_model::manifest::{Sensitivity, ServiceRole, Witnessing};
use portcullis_model::statement::ApprovalSubject;
use portcullis_model::{
    ArtifactId, ChangeId, Digest, EnvironmentId, Event, GitOid, LedgerIndex, Party, Principal,
    Refusal, ReleaseId, RepositoryId, RequestId,
};

use super::approvals::{Answer, Asked};
use super::book::{Book, Landing, one_line};
use super::bundle::About;
use super::change::{Examined, Land, examine, require_control, wrong_entry};
use super::tested::{job, names_commit};
use super::{LinkName, Links};
use crate::checkpoint::UnverifiedCheckpoint;
use crate::cosignature::{WitnessKey, require_quorum};
use crate::dsse::{self, PAYLOAD_IN_TOTO, UnverifiedEnvelope};
use crate::intoto::Statement;
use crate::slsa::Provenance;
use crate::vsa::{VerificationResult, VerificationSummary};

/// How long the request about unproven commits waits, in milliseconds (7 days); the fold's own.
const UNPROVEN_LIFE_MS: u64 = 7 * 24 * 3_600 * 1_000;
/// Where provenance names its changes.
const CHANGES_FIELD: &str = "changes";

/// What was shown of an artifact, or of a commit alone.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) changes: Vec<Examined>,
    pub(super) unproven: Vec<Answer>,
    pub(super) release: Option<Answer>,
    pub(super) environment: Option<(EnvironmentId, Sensitivity)>,
    pub(super) previous: Option<ReleaseId>,
    pub(super) admitted: bool,
    /// Whether it is about an artifact.
    pub(super) built: bool,
    /// How many witnesses of the environment cosigned the checkpoint.
    pub(super) witnessed: usize,
}

struct Built<'a> {
    id: ArtifactId,
    body: &'a ArtifactBuilt,
    event: &'a Event,
}

enum Segment<'a> {
    Landed(Landing<'a>, Land<'a>),
    Unproven(&'a Event),
}

/// Examines one landed commit.
pub(super) fn commit(
    book: &Book<'_>,
    links: &mut Links,
    repository: &RepositoryId,
    commit: &GitOid,
) -> Shown {
    let mut shown = Shown::default();
    match book.landing_of(repository, commit, LedgerIndex::MAX) {
        Some(landing) => {
            shown.changes.push(examine(book, links, landing));
            links.check(
                LinkName::Coverage,
                Some(landing.concluded.index),
                Ok(format!("{} landed as one change", commit.short())),
            );
        }
        None => links.check(
            LinkName::Landing,
            None,
            Err(Refusal::denied(
                "commit-unproven",
                format!("no entry says that {commit} landed in {repository}"),
            )),
        ),
    }
    policy(book, links, LedgerIndex::MAX);
    witnesses(book, links, None);
    shown
}

/// Examines an artifact with everything in it since the release before.
pub(super) fn artifact(book: &Book<'_>, links: &mut Links, about: &About) -> Shown {
    let mut shown = Shown::default();
    let About::Artifact {
        digest,
        environment,
        previous,
        release,
    } = about
    else {
        return shown;
    };
    shown.previous = *previous;
    let built = match built(book, digest, *release) {
        Ok(built) => built,
        Err(refusal) => {
            links.check(LinkName::Build, None, Err(refusal));
            return shown;
        }
    };
    shown.built = true;
    let admission = release.map(|id| admission_of(book, id));
    let until = match &admission {
        Some(Ok((event, _))) => event.index,
        Some(Err(_)) | None => LedgerIndex::MAX,
    };
    let covered = previous_commit(book, *previous, environment.as_ref(), until)
        .and_then(|from| segments(book, &built, from.as_ref()));
    let segments = match covered {
        Ok(segments) => segments,
        Err(refusal) => {
            links.check(LinkName::Coverage, None, Err(refusal));
            Vec::new()
        }
    };
    let changes: Vec<ChangeId> = segments
        .iter()
        .filter_map(|segment| match segment {
            Segment::Landed(_, land) => Some(land.change),
            Segment::Unproven(_) => None,
        })
        .collect();
    let says = build(book, &built, &changes, environment.as_ref());
    links.check(LinkName::Build, Some(built.id.0), says);
    let mut covered: Result<(), Refusal> = Ok(());
    for segment in &segments {
        match segment {
            Segment::Landed(landing, _) => shown.changes.push(examine(book, links, *landing)),
            Segment::Unproven(event) => match unproven(book, event, until) {
                Ok(answer) => shown.unproven.push(answer),
                Err(refusal) => covered = covered.and(Err(refusal)),
            },
        }
    }
    if links.holds_so_far(LinkName::Coverage) {
        let says = covered.map(|()| {
            let since = previous.map_or_else(
                || "the repository's baseline".to_owned(),
                |release| format!("{release}"),
            );
            format!(
                "every commit since {since} is covered; changes landed: {}, moves past the gate that humans accepted: {}",
                changes.len(),
                shown.unproven.len()
            )
        });
        links.check(LinkName::Coverage, Some(built.id.0), says);
    }
    policy(book, links, until);
    if let Some(environment) = environment {
        let registry = book.registry_at(until);
        let known = registry.map(|registry| {
            registry
                .environments
                .get(environment)
                .filter(|record| record.repository == built.body.repository)
                .cloned()
        });
        match known {
            Ok(Some(record)) => {
                shown.environment = Some((environment.clone(), record.sensitivity));
                // Those who witness now: the checkpoint is of now, whenever the release was.
                let now = book.registry_at(LedgerIndex::MAX).ok();
                let now = now.and_then(|registry| registry.environments.get(environment).cloned());
                let demanded = now.map_or(record.witnesses, |record| record.witnesses);
                shown.witnessed = witnesses(book, links, Some(&demanded));
            }
            _ => links.check(
                LinkName::Coverage,
                None,
                Err(Refusal::denied(
                    "environment-unknown",
                    format!(
                        "{environment} is not an environment of {}",
                        built.body.repository
                    ),
                )),
            ),
        }
    }
    if environment.is_none() {
        witnesses(book, links, None);
    }
    if let Some(admission) = admission {
        let entry = release.map(|release| release.0);
        let says = admission.and_then(|(event, body)| {
            admitted(
                book,
                event,
                body,
                &built,
                environment.as_ref(),
                &changes,
                &mut shown,
            )
        });
        links.check(LinkName::Admission, entry, says);
    }
    if let Some(release) = release {
        rollout(book, links, *release);
    }
    shown
}

/// Who vouches for the checkpoint besides the log: the environment's witnesses, as many as it
/// demands, and nobody unknown, whose signature could be anything. Gives how many.
fn witnesses(book: &Book<'_>, links: &mut Links, demanded: Option<&Witnessing>) -> usize {
    let read = || {
        let checkpoint = UnverifiedCheckpoint::parse(book.checkpoint().as_bytes())?;
        let keys: Vec<WitnessKey> = demanded
            .iter()
            .flat_map(|demanded| &demanded.keys)
            .map(|key| key.parse())
            .collect::<Result<_, _>>()?;
        let quorum = demanded.map_or(0, |demanded| demanded.quorum);
        let found = require_quorum(
            &checkpoint,
            &keys,
            usize::try_from(quorum).unwrap_or(usize::MAX),
        )?;
        if checkpoint.note().signatures().len() != found.len() + 1 {
            return Err(Refusal::denied(
                "checkpoint-signatures",
                "the bundle's checkpoint has signatures beside the log's and those of the environment's witnesses",
            ));
        }
        Ok((quorum, found))
    };
    match read() {
        Ok((0, found)) => found.len(),
        Ok((quorum, found)) => {
            let names: Vec<&str> = found.iter().map(|one| one.witness.as_str()).collect();
            let says = format!(
                "{} of the {quorum} witnesses that the environment demands cosigned this checkpoint: {}",
                found.len(),
                names.join(", ")
            );
            links.check(LinkName::Witnesses, None, Ok(says));
            found.len()
        }
        Err(refusal) => {
            links.check(LinkName::Witnesses, None, Err(refusal));
            0
        }
    }
}

fn built<'a>(
    book: &'a Book<'_>,
    digest: &Digest,
    release: Option<ReleaseId>,
) -> Result<Built<'a>, Refusal> {
    // An admission that doesn't hold is the admission's own link to tell.
    let wanted = release
        .and_then(|release| admission_of(book, release).ok())
        .map(|(_, admitted)| admitted.artifact);
    let (event, body) = book
        .events()
        .rev()
        .find_map(|event| match &event.body {
            Body::ArtifactBuilt(body)
                if body.output.digest == *digest
                    && wanted.is_none_or(|wanted| wanted.0 == event.index) =>
            {
                Some((event, body))
            }
            _ => None,
        })
        .ok_or_else(|| {
            Refusal::denied(
                "artifact-unknown",
                "no entry says that this artifact was built",
            )
            .received(&digest.to_string())
        })?;
    book.sound(event.index)?;
    Ok(Built {
        id: ArtifactId(event.index),
        body,
        event,
    })
}

fn admission_of<'a>(
    book: &'a Book<'_>,
    release: ReleaseId,
) -> Result<(&'a Event, &'a ReleaseAdmitted), Refusal> {
    let event = book.sound(release.0)?;
    match &event.body {
        Body::ReleaseAdmitted(body) => Ok((event, body)),
        other => Err(wrong_entry(release.0, "release.admitted", other)),
    }
}

/// The commit of the release before; it was admitted in the same environment.
fn previous_commit(
    book: &Book<'_>,
    previous: Option<ReleaseId>,
    environment: Option<&EnvironmentId>,
    until: LedgerIndex,
) -> Result<Option<GitOid>, Refusal> {
    let Some(previous) = previous else {
        return Ok(None);
    };
    let (event, body) = admission_of(book, previous)?;
    require_control(book, event)?;
    let artifact = book.sound(body.artifact.0)?;
    let Body::ArtifactBuilt(built) = &artifact.body else {
        return Err(wrong_entry(
            body.artifact.0,
            "artifact.built",
            &artifact.body,
        ));
    };
    if Some(&body.environment) != environment || event.index >= until {
        return Err(Refusal::denied(
            "previous-release-elsewhere",
            format!("{previous} is not an earlier release of the same environment"),
        ));
    }
    Ok(Some(built.commit.clone()))
}

/// The moves of the branch from `from` (or the baseline) to the artifact's commit, oldest first,
/// without a gap.
fn segments<'a>(
    book: &'a Book<'_>,
    built: &Built<'_>,
    from: Option<&GitOid>,
) -> Result<Vec<Segment<'a>>, Refusal> {
    let repository = &built.body.repository;
    let registry = book.registry_at(built.event.index)?;
    let baseline = registry
        .repositories
        .get(repository)
        .and_then(|record| record.baseline.as_ref());
    let start = from.or(baseline);
    let mut found = Vec::new();
    let mut at = built.body.commit.clone();
    let mut before = built.body.job.0;
    let mut branch: Option<&str> = None;
    while start != Some(&at) {
        let landing = book.landing_of(repository, &at, before);
        let past = book
            .events()
            .filter(|event| event.index < before)
            .rfind(|event| {
                matches!(&event.body, Body::CommitsUnproven(body)
                    if body.repository == *repository && body.to == at)
            });
        let landed_at = landing.map(|landing| landing.concluded.index);
        let past_at = past.map(|event| event.index);
        let on = match (landing, past) {
            (Some(landing), _) if landed_at > past_at => {
                let land = landing.land()?;
                let (old, on) = (land.old.clone(), land.branch);
                before = landing.intent.index;
                found.push(Segment::Landed(landing, land));
                at = old;
                on
            }
            (_, Some(event)) => {
                let Body::CommitsUnproven(body) = &event.body else {
                    return Err(Refusal::internal("not a move past us"));
                };
                found.push(Segment::Unproven(event));
                before = event.index;
                match &body.from {
                    Some(from) => at = from.clone(),
                    // The branch's first appearance: there is nothing before it.
                    None if start.is_none() => {
                        found.reverse();
                        return Ok(found);
                    }
                    None => return Err(gap(&at)),
                }
                body.branch.as_str()
            }
            (Some(_) | None, None) => return Err(gap(&at)),
        };
        if branch.is_some_and(|branch| branch != on) {
            return Err(gap(&at));
        }
        branch = Some(on);
    }
    found.reverse();
    Ok(found)
}

fn gap(at: &GitOid) -> Refusal {
    Refusal::denied(
        "commit-unproven",
        format!("no entry says how the branch came to {}", at.short()),
    )
    .expected("every commit since the release before landed, or was accepted by humans")
}

/// Commits that came past the gate count once humans accepted exactly them.
fn unproven(book: &Book<'_>, event: &Event, until: LedgerIndex) -> Result<Answer, Refusal> {
    let event = book.sound(event.index)?;
    let Body::CommitsUnproven(body) = &event.body else {
        return Err(Refusal::internal("not a move past us"));
    };
    let registry = book.registry_at(event.index)?;
    let asked = Asked {
        id: RequestId(event.index),
        subject: ApprovalSubject::Unproven {
            repository: body.repository.clone(),
            branch: body.branch.clone(),
            from: body.from.clone().unwrap_or_else(GitOid::zero),
            to: body.to.clone(),
        },
        task: None,
        checks: None,
        needed: Needed {
            humans: 1,
            parties: 1,
            key_class: registry.key_floor.production,
            administrators: false,
        },
        party: Party([Principal::Unknown].into()),
        expires: event.time.plus_ms(UNPROVEN_LIFE_MS),
        carried: false,
    };
    // Satisfied once is satisfied: what counts is the moment of the last approval.
    let last = book
        .events()
        .rfind(|event| {
            event.index < until
                && matches!(&event.body, Body::ApprovalGiven(body)
                    if body.statement.request == asked.id)
        })
        .ok_or_else(|| {
            Refusal::denied(
                "commit-unproven",
                format!("nobody accepted the commits up to {}", body.to.short()),
            )
        })?;
    asked.answered(book, last.index.saturating_add(1), last.time)
}

fn build(
    book: &Book<'_>,
    built: &Built<'_>,
    changes: &[ChangeId],
    environment: Option<&EnvironmentId>,
) -> Result<String, Refusal> {
    let body = built.body;
    require_control(book, built.event)?;
    let done = job::<Provenance>(book, body.job, ServiceRole::Build, true, built.event.index)?;
    let asked = done.requested;
    let refuse = |code: &str, message: &str| Err(Refusal::denied(code, message));
    if asked.kind != JobKind::Build
        || asked.repository != body.repository
        || asked.commit != body.commit
        || asked.configured_by != body.commit
    {
        return refuse(
            "built-from-elsewhere",
            "the build was not asked for this commit with its own configuration",
        );
    }
    if done.finished.attestation != Some(body.provenance)
        || !done.finished.outputs.contains(&body.output)
    {
        return refuse(
            "not-built",
            "the artifact is not an output of the job that it is recorded for",
        );
    }
    let subjects: BTreeSet<(Option<String>, Option<Digest>)> = done
        .statement
        .subject()
        .iter()
        .map(|subject| (subject.name.clone(), subject.sha256()))
        .collect();
    let outputs: BTreeSet<(Option<String>, Option<Digest>)> = done
        .finished
        .outputs
        .iter()
        .map(|output| (Some(output.name.clone()), Some(output.digest)))
        .collect();
    if subjects != outputs {
        return refuse(
            "provenance-subject-mismatch",
            "the provenance is about other files than the job made",
        );
    }
    let definition = &done.statement.predicate().build_definition;
    if !names_commit(&definition.resolved_dependencies, &body.commit) {
        return refuse(
            "provenance-commit-missing",
            "the provenance does not name the commit among its inputs",
        );
    }
    let named: BTreeSet<String> = definition
        .internal_parameters
        .get(CHANGES_FIELD)
        .and_then(serde_json::Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|change| change.get("change")?.as_str().map(str::to_owned))
        .collect();
    let before: BTreeSet<ChangeId> = book
        .events()
        .filter(|event| event.index < done.at.index)
        .filter_map(|event| match &event.body {
            Body::ReleaseAdmitted(earlier)
                if environment.is_none_or(|here| earlier.environment == *here) =>
            {
                Some(earlier.changes.iter().copied())
            }
            _ => None,
        })
        .flatten()
        .collect();
    if let Some(unnamed) = changes
        .iter()
        .find(|change| !named.contains(&change.to_string()) && !before.contains(*change))
    {
        return Err(Refusal::denied(
            "provenance-change-missing",
            "the provenance does not name a change that is in the artifact",
        )
        .expected(&unnamed.to_string())
        .received(&format!("{named:?}")));
    }
    Ok(format!(
        "{} was built from {} by {}, who signed its provenance; changes named: {}",
        body.output.name,
        body.commit.short(),
        done.at.actor.principal,
        named.len()
    ))
}

/// The policy's files are those of the record in force, and every decision was made under the
/// policy in force at its place.
fn policy(book: &Book<'_>, links: &mut Links, until: LedgerIndex) {
    let says = book.registry_at(until).and_then(|registry| {
        for digest in registry.policy.files.values() {
            book.blob(digest)?;
        }
        let mut decisions = 0_u64;
        for event in book.events() {
            let Some(decision) = decision_of(&event.body) else {
                continue;
            };
            let then = book.registry_at(event.index)?;
            if decision.policy != then.policy.digest || decision.at > event.index {
                return Err(Refusal::denied(
                    "policy-mismatch",
                    format!(
                        "entry {} was decided under a policy not in force",
                        event.index
                    ),
                )
                .expected(&then.policy.digest.to_string())
                .received(&decision.policy.to_string()));
            }
            // Files of earlier policies may be there, and must be right then.
            for digest in then.policy.files.values() {
                book.blob_if_there(digest)?;
            }
            decisions += 1;
        }
        Ok(format!(
            "every decision ({decisions}) was made under the policy in force, at the end {} (files: {})",
            registry.policy.digest.short(),
            registry.policy.files.len()
        ))
    });
    links.check(LinkName::Policy, None, says);
}

fn decision_of(body: &Body) -> Option<&DecisionRecord> {
    match body {
        Body::TaskAccepted(body) => Some(&body.decision),
        Body::RunStarted(body) => Some(&body.decision),
        Body::RunReviewed(body) => Some(&body.decision),
        Body::ChangePushed(body) => Some(&body.decision),
        Body::RequestOpened(body) => Some(&body.decision),
        Body::EffectIntended(body) => body.decision.as_ref(),
        Body::ReleaseAdmitted(body) => Some(&body.decision),
        _ => None,
    }
}

fn admitted(
    book: &Book<'_>,
    event: &Event,
    body: &ReleaseAdmitted,
    built: &Built<'_>,
    environment: Option<&EnvironmentId>,
    changes: &[ChangeId],
    shown: &mut Shown,
) -> Result<String, Refusal> {
    let refuse = |code: &str, message: String| Err(Refusal::denied(code, message));
    let registry = book.registry_at(event.index)?;
    let control =
        registry.require_role(&event.actor.principal, ServiceRole::Control, event.time)?;
    let release = ReleaseId(event.index);
    if body.artifact != built.id || Some(&body.environment) != environment {
        return refuse(
            "release-mismatch",
            format!("{release} is of another artifact or to another environment"),
        );
    }
    let agent_work = !shown.unproven.is_empty() || shown.changes.iter().any(|one| one.by_agent);
    if body.changes != changes || body.agent_work != agent_work {
        return Err(Refusal::denied(
            "coverage-mismatch",
            format!("{release} does not say what it contains"),
        )
        .expected(&format!("{changes:?}, agent work {agent_work}"))
        .received(&format!(
            "{:?}, agent work {}",
            body.changes, body.agent_work
        )));
    }
    let sensitivity = registry.sensitivity(&body.environment);
    for agent in shown.changes.iter().flat_map(|one| &one.agents) {
        let ceiling = registry
            .agents
            .get(agent)
            .map_or(Sensitivity::Development, |record| {
                record.manifest.environment_ceiling
            });
        if sensitivity > ceiling {
            return refuse(
                "above-ceiling",
                format!("work of agent {agent} may not reach {}", body.environment),
            );
        }
    }
    let summary = |digest: &Digest| -> Result<(), Refusal> {
        let envelope = UnverifiedEnvelope::parse(book.blob(digest)?)?;
        let proof = dsse::verify(&envelope, PAYLOAD_IN_TOTO, &[&control.key])?;
        let statement = Statement::<VerificationSummary>::parse(proof.payload())?;
        let about = statement
            .subject()
            .iter()
            .any(|subject| subject.sha256() == Some(built.body.output.digest));
        if about && statement.predicate().verification_result == VerificationResult::Passed {
            return Ok(());
        }
        Err(Refusal::denied(
            "summary-mismatch",
            format!("the verification summary of {release} is not about it, or not a pass"),
        ))
    };
    summary(&body.verification)?;
    shown.admitted = true;
    let Some(id) = body.request else {
        if sensitivity == Sensitivity::Production {
            return refuse(
                "production-needs-a-human",
                format!("{release} went to production without a human"),
            );
        }
        return Ok(format!(
            "{release} was admitted to {} by proof alone, as policy allows there",
            body.environment
        ));
    };
    let asked = Asked::opened(book, id)?;
    let subject = ApprovalSubject::Release {
        artifact: built.id,
        digest: built.body.output.digest,
        environment: body.environment.clone(),
        repository: built.body.repository.clone(),
        commit: built.body.commit.clone(),
        provenance: built.body.provenance,
    };
    if asked.subject != subject {
        return refuse(
            "statement-mismatch",
            format!("{id} asks for something else than {release}"),
        );
    }
    if sensitivity == Sensitivity::Production
        && asked.needed.key_class < registry.key_floor.production
    {
        return refuse(
            "request-too-weak",
            format!("{id} asks for a weaker key than production takes"),
        );
    }
    // Whoever had a hand in what is released does not approve it.
    let mut party: BTreeSet<Principal> = shown
        .changes
        .iter()
        .flat_map(|one| one.party.iter().cloned())
        .collect();
    if !shown.unproven.is_empty() {
        party.insert(Principal::Unknown);
    }
    if !party.is_subset(&asked.party.0) {
        return refuse(
            "party-incomplete",
            format!("{id} does not name everyone who had a hand in {release}"),
        );
    }
    if let Some(checks) = &asked.checks {
        summary(checks)?;
    }
    let answer = asked.answered(book, event.index, event.time)?;
    let says = format!(
        "{release} was admitted to {}, {}",
        body.environment,
        answer.says()
    );
    shown.release = Some(answer);
    Ok(says)
}

/// What became of it, where the bundle says so.
fn rollout(book: &Book<'_>, links: &mut Links, release: ReleaseId) {
    let started = book.events().rev().find_map(|event| match &event.body {
        Body::RolloutStarted(body) if body.release == release => Some((event, body)),
        _ => None,
    });
    let Some((event, body)) = started else {
        return;
    };
    let id = portcullis_model::RolloutId(event.index);
    let ended = book.events().rev().find_map(|event| match &event.body {
        Body::RolloutEnded(body) if body.rollout == id => Some((event, body)),
        _ => None,
    });
    let says = book.sound(event.index).and_then(|_| {
        let how = if body.canary {
            "as a canary"
        } else {
            "at once"
        };
        match ended {
            None => Ok(format!(
                "{id} began {how}; the bundle does not say how it ended"
            )),
            Some((end, said)) => book.sound(end.index).map(|_| {
                format!(
                    "{id} began {how} and ended: {:?} ({})",
                    said.outcome, said.code
                )
            }),
        }
    });
    let says = says.map_err(|refusal| Refusal::denied("rollout-unsound", one_line(&refusal)));
    links.check(LinkName::Rollout, Some(event.index), says);
}
