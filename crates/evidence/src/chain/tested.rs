//! Tests: what services ran, on which commits, and what they signed about it.

use std::collections::BTreeSet;

use portcullis_model::event::{
    Body, CheckVerdict, JobFinished, JobKind, JobOutcome, JobRequested, LandingPrepared,
    LandingTested, TestVerdict, TestsCompleted,
};
use portcullis_model::manifest::ServiceRole;
use portcullis_model::{Digest, Event, GitOid, JobId, LedgerIndex, Mode, Refusal, canonical};

use super::book::Book;
use super::change::{Examined, Land, missing, pushes_of, require_control, wrong_entry};
use crate::dsse::{self, PAYLOAD_IN_TOTO, UnverifiedEnvelope};
use crate::intoto::{Predicate, Statement};
use crate::test_result::{TestOutcome, TestResult};

/// Whether the change, its base and what landed were tested as the branch configures, and how it came out.
pub(super) fn tests(
    book: &Book<'_>,
    land: &Land<'_>,
    before: LedgerIndex,
    facts: &mut Examined,
) -> Result<(LedgerIndex, Digest, String), Refusal> {
    let (event, body): (&Event, &TestsCompleted) = book
        .events()
        .filter(|event| event.index < before)
        .find_map(|event| match &event.body {
            Body::TestsCompleted(body)
                if body.change == land.change && body.revision == land.revision =>
            {
                Some((event, body))
            }
            _ => None,
        })
        .ok_or_else(|| missing("the tests", land))?;
    book.sound(event.index)?;
    require_control(book, event)?;
    let summary = book.blob(&body.report)?;
    let says = match (body.verdict, body.head, body.base) {
        (TestVerdict::NotConfigured, None, None) => {
            format!("the base of {} configures no tests", land.change)
        }
        (TestVerdict::Passed, Some(head), Some(base)) => {
            let (base_commit, head_commit) = pushed_ends(book, land)?;
            let ends = Ends {
                commit: head_commit,
                root: base_commit,
            };
            let head = test_job(book, head, &ends, true, land, event.index)?;
            // The base may have failed a test that the change mends.
            let base = test_job(book, base, &ends, false, land, event.index)?;
            compare(summary, &head, &base, land)?;
            facts.tested = !facts.carried;
            format!(
                "{} tests passed on {}, among them all {} that passed on its base",
                head.result.passed_tests.len() + head.result.warned_tests.len(),
                land.change,
                base.result.passed_tests.len() + base.result.warned_tests.len()
            )
        }
        (verdict, ..) if event.mode != Mode::Enforce => format!(
            "the tests of {} said {verdict:?}, and the repository does not enforce them",
            land.change
        ),
        (verdict, ..) => {
            return Err(Refusal::denied(
                "tests-not-passed",
                format!("the tests of {} did not pass", land.change),
            )
            .received(&format!("{verdict:?}")));
        }
    };
    Ok((event.index, body.report, says))
}

/// Base and head of the landed revision as they were pushed.
fn pushed_ends<'a>(
    book: &'a Book<'_>,
    land: &Land<'_>,
) -> Result<(&'a GitOid, &'a GitOid), Refusal> {
    pushes_of(book, land, LedgerIndex::MAX)
        .into_iter()
        .nth(usize::try_from(land.revision.saturating_sub(1)).unwrap_or(usize::MAX))
        .map(|(_, body)| (&body.base, &body.head))
        .ok_or_else(|| missing("the pushed commits", land))
}

/// Checks and tests that ran again on what landed, because its base had moved.
pub(super) fn retested(
    book: &Book<'_>,
    land: &Land<'_>,
    before: LedgerIndex,
    facts: &mut Examined,
) -> Result<Option<String>, Refusal> {
    let Some(entry) = land.prepared.filter(|_| facts.carried) else {
        return Ok(None);
    };
    let Body::LandingPrepared(made) = &book.sound(entry)?.body else {
        return Err(missing("what was made ready", land));
    };
    let (event, body): (&Event, &LandingTested) = book
        .events()
        .filter(|event| event.index < before)
        .filter_map(|event| match &event.body {
            Body::LandingTested(body) if body.prepared == entry => Some((event, body)),
            _ => None,
        })
        .next_back()
        .ok_or_else(|| missing("the tests on the later base", land))?;
    book.sound(event.index)?;
    require_control(book, event)?;
    book.blob(&body.findings)?;
    let summary = book.blob(&body.report)?;
    if body.checks == CheckVerdict::Block && event.mode == Mode::Enforce {
        return Err(Refusal::denied(
            "checks-block",
            format!("the checks of {} on its later base block it", land.change),
        ));
    }
    match (body.tests, body.head, body.base) {
        (TestVerdict::NotConfigured, None, None) => Ok(Some(
            "checks ran again on its later base, which configures no tests".to_owned(),
        )),
        (TestVerdict::Passed, Some(head), Some(base)) => {
            let ends = Ends {
                commit: tested_commit(book, made, body)?,
                root: &made.root,
            };
            let head = test_job(book, head, &ends, true, land, event.index)?;
            let base = test_job(book, base, &ends, false, land, event.index)?;
            compare(summary, &head, &base, land)?;
            facts.tested = true;
            facts.tested_in_batch = body.with.is_some();
            let together = match body.with {
                Some(_) => ", together with changes behind it",
                None => "",
            };
            Ok(Some(format!(
                "checks and {} tests ran again on its later base{together}",
                head.result.passed_tests.len() + head.result.warned_tests.len(),
            )))
        }
        (verdict, ..) if event.mode != Mode::Enforce => Ok(Some(format!(
            "its tests on the later base said {verdict:?}, and the repository does not enforce them"
        ))),
        (verdict, ..) => Err(Refusal::denied(
            "tests-not-passed",
            format!(
                "the tests of {} on its later base did not pass",
                land.change
            ),
        )
        .received(&format!("{verdict:?}"))),
    }
}

/// The commit on which the tests ran: what was made ready, or what stands on it in the same queue.
fn tested_commit<'a>(
    book: &'a Book<'_>,
    made: &'a LandingPrepared,
    body: &LandingTested,
) -> Result<&'a GitOid, Refusal> {
    let Some(with) = body.with else {
        return Ok(&made.head);
    };
    let of = |event: &'a Event| match &event.body {
        Body::LandingPrepared(body) => Some(body),
        _ => None,
    };
    let elsewhere = || {
        Refusal::denied(
            "tests-elsewhere",
            format!("entry {with} does not stand on what landed"),
        )
    };
    let last = of(book.sound(with)?).ok_or_else(elsewhere)?;
    let all: Vec<&LandingPrepared> = book.events().filter_map(of).collect();
    let mut at = &last.base;
    for _ in 0..BATCH_MAX {
        if *at == made.head {
            return Ok(&last.head);
        }
        at = all
            .iter()
            .find(|one| one.head == *at && one.root == made.root)
            .map(|one| &one.base)
            .ok_or_else(elsewhere)?;
    }
    Err(elsewhere())
}

/// Most changes that one test run stands for.
const BATCH_MAX: usize = 8;

struct TestRun {
    result: TestResult,
    attestation: Digest,
    configuration: Digest,
}

/// A finished job: what was asked, by whom it was done, and the statement that its service signed.
pub(super) struct Done<'a, P> {
    pub(super) requested: &'a JobRequested,
    pub(super) finished: &'a JobFinished,
    pub(super) at: &'a Event,
    pub(super) statement: Statement<P>,
}

/// The result of `job`, delivered before the entry at `before` by a service with `role`.
pub(super) fn job<'a, P: Predicate>(
    book: &'a Book<'_>,
    job: JobId,
    role: ServiceRole,
    must_succeed: bool,
    before: LedgerIndex,
) -> Result<Done<'a, P>, Refusal> {
    let event = book.sound(job.0)?;
    require_control(book, event)?;
    let Body::JobRequested(requested) = &event.body else {
        return Err(wrong_entry(job.0, "job.requested", &event.body));
    };
    let (at, finished) = book
        .events()
        .filter(|event| event.index < before)
        .find_map(|event| match &event.body {
            Body::JobFinished(body) if body.job == job => Some((event, body)),
            _ => None,
        })
        .ok_or_else(|| {
            Refusal::denied(
                "job-unfinished",
                format!("the result of {job} is not in the bundle"),
            )
        })?;
    book.sound(at.index)?;
    let good = match finished.outcome {
        JobOutcome::Succeeded => true,
        JobOutcome::Failed => !must_succeed,
        JobOutcome::Lost => false,
    };
    if !good {
        return Err(
            Refusal::denied("job-failed", format!("{job} did not succeed"))
                .received(&format!("{:?}", finished.outcome)),
        );
    }
    let registry = book.registry_at(at.index)?;
    let service = registry.require_role(&at.actor.principal, role, at.time)?;
    let digest = finished.attestation.ok_or_else(|| {
        Refusal::denied("attestation-missing", format!("{job} has no attestation"))
    })?;
    let envelope = UnverifiedEnvelope::parse(book.blob(&digest)?)?;
    let proof = dsse::verify(&envelope, PAYLOAD_IN_TOTO, &[&service.key])?;
    book.blob_if_there(&requested.configuration)?;
    Ok(Done {
        requested,
        finished,
        at,
        statement: Statement::parse(proof.payload())?,
    })
}

/// What is tested, and the commit of the branch that it is compared with and configured by.
struct Ends<'a> {
    commit: &'a GitOid,
    root: &'a GitOid,
}

fn test_job(
    book: &Book<'_>,
    id: JobId,
    ends: &Ends<'_>,
    of_head: bool,
    land: &Land<'_>,
    before: LedgerIndex,
) -> Result<TestRun, Refusal> {
    let commit = if of_head { ends.commit } else { ends.root };
    let done = job::<TestResult>(book, id, ServiceRole::Test, of_head, before)?;
    let asked = done.requested;
    let named = names_commit(done.statement.subject(), commit);
    if asked.kind != JobKind::Test
        || asked.repository != *land.repository
        || asked.commit != *commit
        || asked.configured_by != *ends.root
        || !named
    {
        return Err(Refusal::denied(
            "tests-elsewhere",
            format!(
                "{id} did not test {} as its base configures",
                commit.short()
            ),
        )
        .expected(&format!("commit {commit} configured by {}", ends.root))
        .received(&format!(
            "commit {} configured by {}",
            asked.commit, asked.configured_by
        )));
    }
    Ok(TestRun {
        result: done.statement.predicate().clone(),
        attestation: done.finished.attestation.unwrap_or_else(|| Digest::of(b"")),
        configuration: asked.configuration,
    })
}

/// Whether one of these resources is this commit.
pub(super) fn names_commit(
    resources: &[crate::intoto::ResourceDescriptor],
    commit: &GitOid,
) -> bool {
    resources.iter().any(|resource| {
        resource.digest.get("gitCommit").map(String::as_str) == Some(commit.as_str())
    })
}

fn compare(summary: &[u8], head: &TestRun, base: &TestRun, land: &Land<'_>) -> Result<(), Refusal> {
    let refuse = |code: &str, message: String| Err(Refusal::denied(code, message));
    let names = |run: &TestRun| -> BTreeSet<String> {
        run.result
            .passed_tests
            .iter()
            .chain(&run.result.warned_tests)
            .cloned()
            .collect()
    };
    if head.result.result == TestOutcome::Failed || !head.result.failed_tests.is_empty() {
        return refuse("tests-failed", format!("tests of {} failed", land.change));
    }
    let (ran, wanted) = (names(head), names(base));
    if let Some(missing) = wanted.difference(&ran).next() {
        return Err(Refusal::denied(
            "tests-missing",
            format!("tests that passed on the base did not on {}", land.change),
        )
        .received(missing));
    }
    if head.configuration != base.configuration {
        return refuse(
            "tests-configured-differently",
            format!("{} and its base were tested in different ways", land.change),
        );
    }
    let summary: serde_json::Value = canonical::from_slice("test summary", summary)?;
    let said = |field: &str, digest: &Digest| {
        summary.get(field).and_then(serde_json::Value::as_str) == Some(digest.to_string().as_str())
    };
    if !said("head", &head.attestation) || !said("base", &base.attestation) {
        return refuse(
            "tests-summary",
            format!("the summary of {}'s tests is of other runs", land.change),
        );
    }
    Ok(())
}
