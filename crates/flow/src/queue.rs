//! The queue of a branch: what is approved, made ready on top of what lands before it, tested as it
//! would land, and landed in order.
//!
//! A change that stands on the branch's tip and lands as it is needs none of this. Everything else
//! is *prepared*: the server makes the commit that would land, on the tip or on what is prepared
//! before it, from the same diff. Checks and tests run again on it. With a batch above one, one test
//! run stands for several changes; if it fails, the batch is halved until the culprit is alone.
//! What fails alone leaves the queue, and what stood behind it is prepared anew.

use std::sync::Arc;

use portcullis_model::event::{
    CheckVerdict, JobKind, JobOutcome, LandingPrepared, LandingTested, QueueHalted, QueueResumed,
    TestVerdict,
};
use portcullis_model::statement::Command;
use portcullis_model::{
    ChangeId, Event, GitOid, JobId, LedgerIndex, Refusal, RepositoryId, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::change::{Branch, Change, ChangeStatus, Revision};
use crate::effect::may_carry;
use crate::inventory::mismatch;
use crate::state::{State, find};
use crate::work::Work;
use crate::{approval, breaker, together};

/// Most changes of one branch that are prepared on top of each other: what a failure at the front
/// makes worthless.
pub const WINDOW: usize = 8;
/// Most changes that one test run stands for.
pub const BATCH_MAX: u32 = 8;
/// Why a request is withdrawn whose change failed in the queue; a new revision is a new question.
pub const TESTS_FAILED: &str = "landing-tests-failed";

/// What would land of a revision.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prepared {
    /// The entry.
    pub entry: LedgerIndex,
    /// What it says.
    pub made: LandingPrepared,
    /// What checks and tests say of it.
    pub tested: Option<LandingTested>,
}

impl Prepared {
    /// Whether it stands on the revision's own base, so that its tree is the signed one and the
    /// revision's own checks and tests are of exactly it.
    pub fn keeps_base(&self, revision: &Revision) -> bool {
        self.made.base == revision.pushed.base
    }

    /// Whether checks and tests let it land.
    pub fn passed(&self) -> bool {
        self.tested.as_ref().is_some_and(|tested| {
            matches!(
                tested.tests,
                TestVerdict::Passed | TestVerdict::NotConfigured
            ) && tested.checks != CheckVerdict::Block
        })
    }

    fn failed(&self) -> bool {
        self.tested.is_some() && !self.passed()
    }
}

/// Why nothing lands on a branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Halt {
    /// The entry.
    pub entry: LedgerIndex,
    /// Stable code of the cause.
    pub code: String,
    /// The change at which it happened.
    pub change: ChangeId,
}

/// What would land was made. It must be of the newest revision, with the very same diff, on the tip
/// or on what is prepared before it.
pub(crate) fn prepared(
    state: &mut State,
    event: &Event,
    body: &LandingPrepared,
) -> Result<(), Refusal> {
    state.require_control(event)?;
    let change = Arc::clone(find("change", &state.changes, &body.change)?);
    let revision = change.latest();
    let pushed = &revision.pushed;
    if change.status != ChangeStatus::Open || revision.number != body.revision {
        return Err(Refusal::conflict(
            "revision-superseded",
            "what is prepared is not the newest revision",
        ));
    }
    if body.manifest != pushed.manifest {
        return Err(Refusal::denied(
            "not-the-same-diff",
            "what is prepared does not change what the revision changes",
        )
        .expected(&pushed.manifest.to_string())
        .received(&body.manifest.to_string()));
    }
    if body.base == pushed.base && body.tree != pushed.tree {
        return Err(Refusal::denied(
            "landing-mismatch",
            "what is prepared on the revision's own base does not have its tree",
        )
        .expected(pushed.tree.as_str())
        .received(body.tree.as_str()));
    }
    if !(1..=BATCH_MAX).contains(&body.batch) || body.commits.first() != Some(&body.head) {
        return Err(Refusal::malformed("landing.prepared")
            .expected("a batch of 1 to 8, and commits whose first is the head"));
    }
    let key = (change.repository.clone(), change.branch.clone());
    let branch = state
        .branches
        .get(&key)
        .ok_or_else(|| Refusal::not_found("branch", &key.1))?;
    if branch.landing.is_some() {
        return Err(Refusal::conflict(
            "branch-landing",
            format!("{} is being landed on", change.branch),
        ));
    }
    let on_tip = body.base == branch.tip && body.root == branch.tip;
    let behind = || {
        open_on(state, &key).any(|other| {
            other.id != change.id
                && other
                    .latest()
                    .prepared
                    .as_ref()
                    .is_some_and(|one| one.made.head == body.base && one.made.root == body.root)
        })
    };
    if !on_tip && !behind() {
        return Err(Refusal::conflict(
            "base-moved",
            "what is prepared stands neither on the branch nor on what is prepared before it",
        )
        .expected(branch.tip.as_str())
        .received(body.base.as_str()));
    }
    // Whoever proposes these commits again brings along who had a hand in them.
    for commit in &body.commits {
        if !state.proposed.contains_key(commit) {
            state.proposed.insert(commit.clone(), change.id);
        }
    }
    let fresh = Arc::new(Prepared {
        entry: event.index,
        made: body.clone(),
        tested: None,
    });
    crate::change::edit_revision(state, body.change, body.revision, |revision| {
        revision.prepared = Some(fresh);
        Ok(())
    })
}

/// Checks and tests ran again on what was prepared. Tests ran by the root's configuration, on this
/// commit or on one behind it in the same queue.
pub(crate) fn tested(
    state: &mut State,
    event: &Event,
    body: &LandingTested,
) -> Result<(), Refusal> {
    state.require_control(event)?;
    let change = Arc::clone(find("change", &state.changes, &body.change)?);
    let revision = change.latest();
    let prepared = revision
        .prepared
        .as_ref()
        .filter(|one| one.entry == body.prepared && change.status == ChangeStatus::Open)
        .ok_or_else(|| {
            Refusal::conflict(
                "prepared-superseded",
                format!(
                    "what entry {} prepared is not what would land",
                    body.prepared
                ),
            )
        })?;
    if prepared.tested.as_ref().is_some_and(|known| known.own)
        || crate::effect::is_landing(state, change.id)
    {
        return Err(Refusal::conflict("tests-known", "this is tested already"));
    }
    let commit = match body.with {
        None => prepared.made.head.clone(),
        Some(with) => behind(state, &change, prepared, with)?,
    };
    let outcome = |job: Option<JobId>, commit: &GitOid| match job {
        None => Ok(None),
        Some(job) => job_outcome(state, job, &change, commit, &prepared.made.root).map(Some),
    };
    let head = outcome(body.head, &commit)?;
    let base = outcome(body.base, &prepared.made.root)?;
    let consistent = match body.tests {
        TestVerdict::Passed => {
            head == Some(JobOutcome::Succeeded)
                && base.is_some()
                && body.counts.failed == 0
                && body.counts.missing == 0
        }
        TestVerdict::NotConfigured => head.is_none() && base.is_none() && body.with.is_none(),
        TestVerdict::Failed | TestVerdict::Missing => true,
    };
    // What the checks said before humans looked may be said again, and nothing more.
    let known = revision.checks.as_ref();
    let more = body
        .escalations
        .iter()
        .any(|rule| known.is_none_or(|checks| !checks.escalations.contains(rule)));
    let checked = match body.checks {
        CheckVerdict::Pass => body.escalations.is_empty(),
        CheckVerdict::Escalate => !body.escalations.is_empty() && !more,
        CheckVerdict::Block => true,
    };
    if !consistent || !checked {
        return Err(Refusal::denied(
            "tests-inconsistent",
            "the verdict does not follow from jobs, counts and checks",
        ));
    }
    let done = Prepared {
        tested: Some(body.clone()),
        ..(**prepared).clone()
    };
    let out = done.failed() && body.own;
    let request = revision.request;
    let done = Arc::new(done);
    crate::change::edit_revision(state, change.id, revision.number, |revision| {
        revision.prepared = Some(done);
        revision.landing_failed |= out;
        Ok(())
    })?;
    match request.filter(|_| out) {
        Some(request)
            if find("request", &state.requests, &request)?.status == approval::Status::Open =>
        {
            approval::withdraw(state, request, TESTS_FAILED)
        }
        Some(_) | None => Ok(()),
    }
}

/// The commit prepared by the entry `with`, which must stand on `front` through prepared ones.
fn behind(
    state: &State,
    change: &Change,
    front: &Prepared,
    with: LedgerIndex,
) -> Result<GitOid, Refusal> {
    let key = (change.repository.clone(), change.branch.clone());
    let known: Vec<&Prepared> = open_on(state, &key)
        .filter_map(|other| other.latest().prepared.as_deref())
        .filter(|one| one.made.root == front.made.root)
        .collect();
    let last = known.iter().find(|one| one.entry == with);
    let mut at = last.map(|one| &one.made.base);
    for _ in 0..WINDOW {
        match at {
            Some(base) if *base == front.made.head => break,
            Some(base) => {
                at = known
                    .iter()
                    .find(|one| one.made.head == *base)
                    .map(|one| &one.made.base);
            }
            None => break,
        }
    }
    match (last, at) {
        (Some(last), Some(base)) if *base == front.made.head => Ok(last.made.head.clone()),
        _ => Err(Refusal::denied(
            "tests-of-something-else",
            format!("entry {with} does not stand on what is prepared here"),
        )),
    }
}

fn job_outcome(
    state: &State,
    id: JobId,
    change: &Change,
    commit: &GitOid,
    root: &GitOid,
) -> Result<JobOutcome, Refusal> {
    let job = find("job", &state.jobs, &id)?;
    match job.finished() {
        Some(done)
            if job.kind == JobKind::Test
                && job.repository == change.repository
                && job.commit == *commit
                && job.configured_by == *root =>
        {
            Ok(done.outcome)
        }
        _ => Err(Refusal::denied(
            "tests-of-something-else",
            format!("{id} did not test this commit by the branch's configuration"),
        )
        .expected(&format!("a finished test of {commit} configured by {root}"))
        .received(&format!(
            "{:?} of {} configured by {}",
            job.kind, job.commit, job.configured_by
        ))),
    }
}

/// What stands in the way of landing what was prepared; the effect's own fields are compared where
/// the effect is.
pub(crate) fn check_prepared(
    revision: &Revision,
    prepared: &Prepared,
    request: Option<&approval::Request>,
    enforced: bool,
) -> Result<(), Refusal> {
    if prepared.keeps_base(revision) {
        return Ok(());
    }
    if request.is_some_and(|request| !may_carry(request)) {
        return Err(Refusal::denied(
            "approval-exact",
            "an approval is for its exact base only, and the branch moved",
        )
        .expected("approvals that carry to a later base with the same diff")
        .next("fetch, rebase onto the branch and push again"));
    }
    if enforced && !prepared.passed() {
        return Err(Refusal::denied(
            "not-landable",
            "checks and tests did not run again on the new base, or did not pass",
        )
        .received(&format!(
            "{:?}",
            prepared.tested.as_ref().map(|tested| tested.tests)
        )));
    }
    Ok(())
}

/// Nothing lands on the branch any more.
pub(crate) fn halted(state: &mut State, event: &Event, body: &QueueHalted) -> Result<(), Refusal> {
    state.require_control(event)?;
    let key = (body.repository.clone(), body.branch.clone());
    if !state.branches.contains_key(&key) {
        return Err(Refusal::not_found("branch", &key.1));
    }
    if state.halted_queues.contains_key(&key) {
        return Err(Refusal::conflict(
            "queue-halted",
            format!("the queue of {} is halted already", body.branch),
        ));
    }
    let halt = Halt {
        entry: event.index,
        code: body.code.clone(),
        change: body.change,
    };
    state.halted_queues.insert(key, halt);
    Ok(())
}

/// A human lets the queue go on.
pub(crate) fn resumed(
    state: &mut State,
    event: &Event,
    body: &QueueResumed,
) -> Result<(), Refusal> {
    state.require_active_human(event)?;
    match state.take_command(event, &body.envelope)? {
        Command::ResumeQueue {
            repository,
            branch,
            why,
        } if repository == body.repository && branch == body.branch && why == body.why => {}
        other => return Err(mismatch("resume-queue of this branch", &other)),
    }
    let key = (body.repository.clone(), body.branch.clone());
    match state.halted_queues.remove(&key) {
        Some(_) => Ok(()),
        None => Err(Refusal::conflict(
            "queue-not-halted",
            format!("the queue of {} is not halted", body.branch),
        )),
    }
}

/// Refuses to land where a queue is halted.
pub(crate) fn require_going(state: &State, key: &(RepositoryId, String)) -> Result<(), Refusal> {
    match state.halted_queues.get(key) {
        None => Ok(()),
        Some(halt) => Err(Refusal::conflict(
            "queue-halted",
            format!(
                "the queue of {} is halted since entry {}",
                key.1, halt.entry
            ),
        )
        .received(&format!("{} at {}", halt.code, halt.change))
        .next(format!(
            "look at the incident, then `portcullis queue resume {} {} --why TEXT`",
            key.0, key.1
        ))),
    }
}

/// Open changes for a branch.
fn open_on<'a>(
    state: &'a State,
    key: &'a (RepositoryId, String),
) -> impl Iterator<Item = &'a Change> {
    state
        .changes
        .open()
        .map(|change| &**change)
        .filter(move |change| change.repository == key.0 && change.branch == key.1)
}

/// A place in the queue.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Whose.
    pub change: &'a Change,
    /// What is prepared of it.
    pub prepared: &'a Arc<Prepared>,
}

/// The queue of a branch as far as it is prepared, front first; and the change to prepare next,
/// with what it shall stand on.
pub struct Line<'a> {
    /// Prepared, each on the one before, the first on the tip.
    pub places: Vec<Place<'a>>,
    /// To prepare next.
    pub next: Vec<&'a Change>,
    /// What the next one shall stand on,
    pub onto: GitOid,
    /// configured by this commit of the branch.
    pub root: GitOid,
}

/// The queue of a branch.
pub fn line<'a>(
    state: &'a State,
    key: &'a (RepositoryId, String),
    branch: &Branch,
    now: Timestamp,
) -> Line<'a> {
    let mut waiting: Vec<(LedgerIndex, &Change)> = open_on(state, key)
        .filter(|change| change.latest().pushed.base != branch.tip)
        .filter_map(|change| Some((stands_since(state, change, now)?, change)))
        .collect();
    waiting.sort_by_key(|(since, change)| (*since, change.id));
    let mut line = Line {
        places: Vec::new(),
        next: Vec::new(),
        onto: branch.tip.clone(),
        root: branch.tip.clone(),
    };
    for (_, change) in waiting {
        if line.places.len() >= WINDOW || line.next.len() >= WINDOW {
            break;
        }
        match &change.latest().prepared {
            Some(prepared) if prepared.made.base == line.onto => {
                line.onto = prepared.made.head.clone();
                line.root = prepared.made.root.clone();
                line.places.push(Place { change, prepared });
            }
            Some(_) | None => {
                line.next.push(change);
                // What people approved goes in its order; what only policy lets in is asked for
                // and does not hold up the others.
                if change.latest().request.is_some() {
                    break;
                }
            }
        }
    }
    line
}

/// Since when a change stands in its queue. Where it lands together with others, since the last of
/// them does, so that two such tasks stand in the same order everywhere.
fn stands_since(state: &State, change: &Change, now: Timestamp) -> Option<LedgerIndex> {
    let own = own_since(state, change, now)?;
    let Some((id, task)) = together::task_of(state, change) else {
        return Some(own);
    };
    let mut last = own;
    for member in together::members(state, id, task) {
        last = last.max(own_since(state, member?, now)?);
    }
    Some(last)
}

/// Since when a change could stand in its queue: since it was approved, or pushed where policy may
/// let it land without humans. None if it does not.
fn own_since(state: &State, change: &Change, now: Timestamp) -> Option<LedgerIndex> {
    let revision = change.latest();
    if revision.checks.is_none() || revision.tests.is_none() || revision.landing_failed {
        return None;
    }
    // A halted agent's work must not keep that of others from landing.
    let halted = change.by_agent()
        && (breaker::tripped_for(state, None, Some(&change.repository), None).is_some()
            || change
                .agents()
                .into_iter()
                .any(|agent| breaker::tripped_for(state, Some(agent), None, None).is_some()));
    if halted {
        return None;
    }
    match revision.request.and_then(|id| state.requests.get(&id)) {
        None => Some(revision.entry),
        Some(request)
            if approval::satisfied(state, request, now)
                && (may_carry(request) || stands_on_tip(state, change)) =>
        {
            request.satisfied_at
        }
        Some(_) => None,
    }
}

fn stands_on_tip(state: &State, change: &Change) -> bool {
    let key = (change.repository.clone(), change.branch.clone());
    let branch = state.branches.get(&key);
    branch.is_some_and(|branch| branch.tip == change.latest().pushed.base)
}

/// What to do for the queues of all branches.
pub(crate) fn plan(state: &State, now: Timestamp, work: &mut Vec<Work>) {
    for (key, branch) in &state.branches {
        if branch.landing.is_some() || state.halted_queues.contains_key(key) {
            continue;
        }
        let line = line(state, key, branch, now);
        for change in &line.next {
            work.push(Work::Prepare(
                change.id,
                change.latest().number,
                line.onto.clone(),
                line.root.clone(),
            ));
        }
        plan_line(state, &line.places, work);
    }
}

fn plan_line(state: &State, places: &[Place<'_>], work: &mut Vec<Work>) {
    if let Some(first) = places.first()
        && first.prepared.passed()
        && together::task_of(state, first.change).is_none()
    {
        let revision = first.change.latest();
        work.push(Work::LandPrepared(
            first.change.id,
            revision.number,
            first.prepared.entry,
        ));
    }
    // What is known to be good at the front, and the batches behind it.
    let good = places
        .iter()
        .take_while(|place| place.prepared.passed())
        .count();
    let mut start = good;
    while let Some(place) = places.get(start) {
        let batch = usize::try_from(place.prepared.made.batch)
            .unwrap_or(1)
            .max(1);
        let end = (start + batch).min(places.len());
        let Some(group) = places.get(start..end) else {
            return;
        };
        plan_batch(state, group, start == good, work);
        start = end;
    }
}

/// One batch: its last member is tested; if that fails, its first half is, and so on.
fn plan_batch(state: &State, group: &[Place<'_>], in_front: bool, work: &mut Vec<Work>) {
    // A pass stands for everything before it in the batch.
    if let Some(passed) = group.iter().rposition(|place| place.prepared.passed())
        && let Some(with) = group.get(passed)
    {
        let mut left = group
            .iter()
            .take(passed)
            .filter(|place| !place.prepared.passed())
            .peekable();
        if left.peek().is_some() {
            work.extend(
                left.map(|place| Work::TestPrepared(place.prepared.entry, with.prepared.entry)),
            );
            return;
        }
    }
    let failed = group.iter().position(|place| place.prepared.failed());
    let target = match failed {
        None => group.len().saturating_sub(1),
        // Behind a front that is not known to be good nothing can be told.
        Some(_) if !in_front => return,
        // Everything before it is good: it is told again, as its own failure.
        Some(0) => 0,
        Some(at) => (at - 1) / 2,
    };
    if let Some(place) = group.get(target) {
        let known = jobs(state, place.change, place.prepared);
        let own = in_front && target == 0;
        let ready = known.is_none_or(|jobs| jobs.all_finished);
        // A failure counts as one's own only once everything before it is known to be good.
        if ready && (place.prepared.tested.is_none() || own) {
            work.push(Work::TestPrepared(
                place.prepared.entry,
                place.prepared.entry,
            ));
        }
    }
}

/// The test jobs of what is prepared, if they were asked for.
pub fn jobs(state: &State, change: &Change, prepared: &Prepared) -> Option<crate::work::TestJobs> {
    let newest = |commit: &GitOid| {
        state.jobs.values().rfind(|job| {
            job.kind == JobKind::Test
                && job.repository == change.repository
                && job.commit == *commit
                && job.configured_by == prepared.made.root
                // A service that went away said nothing about the commit.
                && job
                    .finished()
                    .is_none_or(|done| done.outcome != JobOutcome::Lost)
        })
    };
    let head = newest(&prepared.made.head)?;
    let base = newest(&prepared.made.root)?;
    Some(crate::work::TestJobs {
        head: head.id,
        base: base.id,
        all_finished: head.finished().is_some() && base.finished().is_some(),
    })
}
