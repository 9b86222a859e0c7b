//! Changes: commits proposed to one branch, revision by revision; and the branches themselves.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::Vector;
use portcullis_model::event::{
    ChangeClosed, ChangePushed, CheckVerdict, ChecksCompleted, CommitsUnproven, JobKind,
    JobOutcome, LeaseKind, Needed, RequestOpened, TestVerdict, TestsCompleted,
};
use portcullis_model::statement::{ApprovalSubject, Command};
use portcullis_model::{
    AgentId, ChangeId, Digest, Event, GitOid, JobId, LedgerIndex, Party, Principal, Refusal,
    RepositoryId, RequestId, RunId,
};
use serde::{Deserialize, Serialize};

use crate::approval::{REQUEST_LIFE_MS, Request};
use crate::entities::Ends;
use crate::inventory::mismatch;
use crate::state::{State, edit_in, find};

/// A change.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Its id.
    pub id: ChangeId,
    /// Where.
    pub repository: RepositoryId,
    /// For which branch.
    pub branch: String,
    /// Revisions, oldest first; at least one.
    pub revisions: Vector<Arc<Revision>>,
    /// Everyone who had a hand in any of them.
    pub party: Party,
    /// Where it stands.
    pub status: ChangeStatus,
    first: Arc<Revision>,
}

/// One push of a change.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// Counted from 1.
    pub number: u64,
    /// The entry.
    pub entry: LedgerIndex,
    /// What was pushed.
    pub pushed: ChangePushed,
    /// The run that pushed it, if one did.
    pub run: Option<RunId>,
    /// What the checks say.
    pub checks: Option<ChecksCompleted>,
    /// What the tests say.
    pub tests: Option<TestsCompleted>,
    /// The request for it, if humans were asked.
    pub request: Option<RequestId>,
    /// What would land of it, where that is not the pushed commits themselves.
    pub prepared: Option<Arc<crate::queue::Prepared>>,
    /// Whether a landing that policy allowed without humans did not succeed, or what was prepared
    /// failed its tests.
    pub landing_failed: bool,
}

/// A landing that policy allowed by itself did not succeed; a new revision is a new question.
pub(crate) fn landing_failed(state: &mut State, id: ChangeId) -> Result<(), Refusal> {
    let number = find("change", &state.changes, &id)?.latest().number;
    edit_revision(state, id, number, |revision| {
        revision.landing_failed = true;
        Ok(())
    })
}

/// Where a change stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeStatus {
    /// It waits for checks, tests, approvals, or a new revision.
    Open,
    /// It landed.
    Landed {
        /// The commit.
        commit: GitOid,
        /// The entry that says so.
        entry: LedgerIndex,
    },
    /// It was withdrawn.
    Closed,
}

impl Ends for Change {
    fn is_over(&self) -> bool {
        self.status != ChangeStatus::Open
    }
}

impl Change {
    /// The newest revision.
    pub fn latest(&self) -> &Revision {
        self.revisions.last().unwrap_or(&self.first)
    }

    /// Agents that had a hand in it; unknown causes are not in it, see [`Change::by_agent`].
    pub fn agents(&self) -> BTreeSet<&AgentId> {
        self.party
            .0
            .iter()
            .filter_map(|member| match member {
                Principal::Agent(id, _) => Some(id),
                Principal::Human(_)
                | Principal::Service(_)
                | Principal::Host(_)
                | Principal::Unknown => None,
            })
            .collect()
    }

    /// Whether an agent, or something of unknown cause, had a hand in it.
    pub fn by_agent(&self) -> bool {
        self.party
            .0
            .iter()
            .any(|member| member.kind() == portcullis_model::Kind::Agent)
    }
}

/// A branch that we govern.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Branch {
    /// Where it stands.
    pub tip: GitOid,
    /// How it came there, oldest first.
    pub segments: Vector<Segment>,
    /// The landing under way, by the index of its intent.
    pub landing: Option<LedgerIndex>,
}

/// One move of a branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// From this commit; none for the first.
    pub from: Option<GitOid>,
    /// To this one.
    pub to: GitOid,
    /// Why that is right, if it is.
    pub proof: SegmentProof,
}

/// Why a move of a branch is right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SegmentProof {
    /// Taken as it is when the repository's record came into force.
    Baseline,
    /// A change landed.
    Landed(ChangeId),
    /// Somebody moved it past us; the request asks humans.
    Unproven(RequestId),
}

impl Branch {
    /// A branch whose history up to `tip` is taken as it is.
    pub fn adopted(tip: GitOid) -> Self {
        let first = Segment {
            from: None,
            to: tip.clone(),
            proof: SegmentProof::Baseline,
        };
        Self {
            tip,
            segments: Vector::unit(first),
            landing: None,
        }
    }

    /// Whether the branch ever stood at this commit.
    pub fn stood_at(&self, commit: &GitOid) -> bool {
        self.segments.iter().any(|segment| segment.to == *commit)
    }
}

/// The party behind a push: the run's agent, its owner, the task's signer, and whoever had a hand
/// in the change before.
pub fn party_of_push(
    state: &State,
    actor: &Principal,
    run: Option<RunId>,
    change: Option<ChangeId>,
) -> Party {
    let mut party = change
        .and_then(|change| state.changes.get(&change))
        .map(|change| change.party.clone())
        .unwrap_or_default();
    party.0.insert(actor.clone());
    if let Some(run) = run.and_then(|run| state.runs.get(&run)) {
        party.0.insert(Principal::Human(run.signer.clone()));
        if let Some(record) = state.inventory.agents.get(&run.agent) {
            party
                .0
                .insert(Principal::Human(record.manifest.owner.clone()));
        }
    }
    party
}

/// Everyone who had a hand in changes that proposed any of these commits before: an agent's
/// commits stay its own, whoever pushes them.
pub fn party_of_commits(state: &State, commits: &[GitOid]) -> Party {
    let mut party = Party::default();
    for change in commits
        .iter()
        .filter_map(|commit| state.proposed.get(commit))
        .filter_map(|id| state.changes.get(id))
    {
        party.0.extend(change.party.0.iter().cloned());
    }
    party
}

/// A change is opened or gets a revision.
pub(crate) fn pushed(state: &mut State, event: &Event, body: &ChangePushed) -> Result<(), Refusal> {
    state.check_decision(&body.decision)?;
    check_pusher(state, event, body)?;
    let mut expected = party_of_push(state, &event.actor.principal, body.run, body.change);
    expected.0.extend(party_of_commits(state, &body.commits).0);
    if !expected.0.is_subset(&body.party.0) {
        return Err(Refusal::denied(
            "party-incomplete",
            "somebody who had a hand in this is not named",
        )
        .expected(&format!("{:?}", expected.0))
        .received(&format!("{:?}", body.party.0)));
    }
    let key = (body.repository.clone(), body.branch.clone());
    let known = state
        .branches
        .get(&key)
        .is_some_and(|branch| branch.stood_at(&body.base));
    if !known {
        return Err(Refusal::denied(
            "base-unknown",
            "the change does not stand on a commit of its branch",
        )
        .expected(&format!("a commit at which {} stood", body.branch))
        .received(body.base.as_str())
        .next("fetch, rebase onto the branch and push again"));
    }
    if let Some(run) = body.run {
        edit_in("run", &mut state.runs, &run, |run| run.used.pushes += 1)?;
    }
    let mut revision = Revision {
        number: 1,
        entry: event.index,
        pushed: body.clone(),
        run: body.run,
        checks: None,
        tests: None,
        request: None,
        prepared: None,
        landing_failed: false,
    };
    let this = body.change.unwrap_or(ChangeId(event.index));
    for commit in &body.commits {
        if !state.proposed.contains_key(commit) {
            state.proposed.insert(commit.clone(), this);
        }
    }
    let Some(id) = body.change else {
        crate::together::check_opened(state, body.run, &body.repository)?;
        let first = Arc::new(revision);
        let change = Change {
            id: ChangeId(event.index),
            repository: body.repository.clone(),
            branch: body.branch.clone(),
            revisions: Vector::unit(Arc::clone(&first)),
            party: body.party.clone(),
            status: ChangeStatus::Open,
            first,
        };
        state.changes.insert(change.id, Arc::new(change));
        return Ok(());
    };
    let change = find("change", &state.changes, &id)?;
    if change.status != ChangeStatus::Open {
        return Err(
            Refusal::conflict("change-closed", format!("{id} is not open any more"))
                .received(&format!("{:?}", change.status))
                .next("push again: it opens a new change"),
        );
    }
    if change.repository != body.repository || change.branch != body.branch {
        return Err(
            Refusal::denied("change-elsewhere", format!("{id} is for another branch"))
                .expected(&format!("{} {}", change.repository, change.branch))
                .received(&format!("{} {}", body.repository, body.branch)),
        );
    }
    let continued = body
        .run
        .and_then(|run| state.runs.get(&run))
        .and_then(|run| state.tasks.get(&run.task))
        .is_some_and(|task| task.payload.change == Some(id))
        || crate::together::same_task(state, body.run, change);
    if !change.party.0.contains(&event.actor.principal) && !continued {
        return Err(
            Refusal::denied("not-your-change", format!("{id} is somebody else's"))
                .expected("a change of one's own, or the one that the task continues")
                .received(&event.actor.principal.to_string())
                .next("push without naming a change: it opens a new one"),
        );
    }
    // Before its checks a push may be repeated: a crash may have come between its entry and its
    // objects.
    if change.latest().pushed.head == body.head && change.latest().checks.is_some() {
        return Err(Refusal::conflict(
            "revision-known",
            "this revision was pushed already",
        ));
    }
    if crate::effect::is_landing(state, id) {
        return Err(
            Refusal::conflict("change-landing", format!("{id} is landing right now"))
                .next("wait for the outcome with `portcullis change show`"),
        );
    }
    revision.number = change.latest().number + 1;
    withdraw_open_request(state, id, "superseded")?;
    let party = body.party.clone();
    edit_in("change", &mut state.changes, &id, |change| {
        change.revisions.push_back(Arc::new(revision));
        change.party.0.extend(party.0);
    })
}

fn check_pusher(state: &State, event: &Event, body: &ChangePushed) -> Result<(), Refusal> {
    let wrong = |expected: &str| {
        Err(
            Refusal::denied("wrong-pusher", "the push is not by whom it says")
                .expected(expected)
                .received(&event.actor.principal.to_string()),
        )
    };
    match (&event.actor.principal, body.run, &body.envelope) {
        (Principal::Agent(agent, Some(by)), Some(run_id), None) if *by == run_id => {
            let run = find("run", &state.runs, &run_id)?;
            run.require_active(event.time)?;
            if run.agent != *agent {
                return wrong(run.agent.as_str());
            }
            if !run
                .leases
                .contains(&LeaseKind::Git(body.repository.clone()))
            {
                return Err(
                    Refusal::denied("not-lent", "this repository was not lent to the run")
                        .received(body.repository.as_str()),
                );
            }
            let task = find("task", &state.tasks, &run.task)?;
            let target = task.payload.target(&body.repository);
            if target.is_none_or(|target| target.branch != body.branch) {
                return Err(Refusal::denied(
                    "branch-not-in-task",
                    format!("the task is not for branch {}", body.branch),
                )
                .expected(target.map_or("another repository", |target| &target.branch))
                .received(&body.branch)
                .next("propose the change for the task's branch"));
            }
            let budget = task.payload.budgets.pushes;
            if run.used.pushes >= budget {
                return Err(
                    Refusal::limit("pushes-used-up", "the run's pushes are used up")
                        .expected(&format!("at most {budget}")),
                );
            }
            crate::breaker::require_closed(state, Some(agent), [&body.repository], None)
        }
        (Principal::Human(human), None, Some(_)) => {
            state.inventory.human(human)?;
            if event.actor.key.is_none() {
                return wrong("a person whose signed push was verified");
            }
            Ok(())
        }
        _ => wrong("a run, or a person with a signed push"),
    }
}

/// The checks of the newest revision are done.
pub(crate) fn checks_completed(
    state: &mut State,
    event: &Event,
    body: &ChecksCompleted,
) -> Result<(), Refusal> {
    state.require_control(event)?;
    let consistent = match body.verdict {
        CheckVerdict::Pass => body.escalations.is_empty() && body.blocks.is_empty(),
        CheckVerdict::Escalate => !body.escalations.is_empty() && body.blocks.is_empty(),
        CheckVerdict::Block => !body.blocks.is_empty(),
    };
    if !consistent {
        return Err(Refusal::denied(
            "checks-inconsistent",
            "the verdict does not follow from the findings",
        ));
    }
    edit_revision(state, body.change, body.revision, |revision| {
        if revision.checks.is_some() {
            return Err(Refusal::conflict(
                "checks-known",
                "the checks of this revision are done already",
            ));
        }
        revision.checks = Some(body.clone());
        Ok(())
    })
}

/// The tests of the newest revision are done.
pub(crate) fn tests_completed(
    state: &mut State,
    event: &Event,
    body: &TestsCompleted,
) -> Result<(), Refusal> {
    state.require_control(event)?;
    let change = find("change", &state.changes, &body.change)?;
    let pushed = &change.latest().pushed;
    let head = match body.head {
        Some(job) => Some(test_outcome(state, job, change, &pushed.head)?),
        None => None,
    };
    let base = match body.base {
        Some(job) => Some(test_outcome(state, job, change, &pushed.base)?),
        None => None,
    };
    let consistent = match body.verdict {
        TestVerdict::Passed => {
            head == Some(JobOutcome::Succeeded)
                && base.is_some()
                && body.counts.failed == 0
                && body.counts.missing == 0
        }
        TestVerdict::NotConfigured => head.is_none() && base.is_none(),
        TestVerdict::Failed | TestVerdict::Missing => true,
    };
    if !consistent {
        return Err(Refusal::denied(
            "tests-inconsistent",
            "the verdict does not follow from the jobs and counts",
        ));
    }
    edit_revision(state, body.change, body.revision, |revision| {
        if revision.tests.is_some() {
            return Err(Refusal::conflict(
                "tests-known",
                "the tests of this revision are done already",
            ));
        }
        revision.tests = Some(body.clone());
        Ok(())
    })
}

/// How the test job ended that ran this commit of the change by its base's configuration.
fn test_outcome(
    state: &State,
    id: JobId,
    change: &Change,
    commit: &GitOid,
) -> Result<JobOutcome, Refusal> {
    let job = find("job", &state.jobs, &id)?;
    let mine = job.kind == JobKind::Test
        && job.repository == change.repository
        && job.commit == *commit
        && job.configured_by == change.latest().pushed.base;
    match job.finished() {
        Some(done) if mine => Ok(done.outcome),
        _ => Err(Refusal::denied(
            "tests-of-something-else",
            format!("{id} did not test this commit by its base's configuration"),
        )
        .expected(&format!(
            "a finished test of {commit} configured by {}",
            change.latest().pushed.base
        ))
        .received(&format!(
            "{:?} of {} configured by {}",
            job.kind, job.commit, job.configured_by
        ))),
    }
}

pub(crate) fn edit_revision(
    state: &mut State,
    id: ChangeId,
    number: u64,
    edit: impl FnOnce(&mut Revision) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let edited = state.changes.edit(&id, |change| {
        let newest = change.latest().number;
        match change.revisions.back_mut() {
            Some(revision) if revision.number == number => edit(Arc::make_mut(revision)),
            _ => Err(Refusal::conflict(
                "revision-superseded",
                format!("revision {number} of {id} was superseded"),
            )
            .expected(&format!("revision {newest}"))),
        }
    });
    edited.unwrap_or_else(|| Err(Refusal::not_found("change", id)))
}

/// A request about a change is for its newest revision, whose checks and tests are done.
pub(crate) fn check_request(
    state: &mut State,
    id: ChangeId,
    number: u64,
    body: &RequestOpened,
) -> Result<(), Refusal> {
    let change = Arc::clone(find("change", &state.changes, &id)?);
    let revision = change.latest();
    let wanted = subject_of(&change);
    if body.subject != wanted || revision.number != number || change.status != ChangeStatus::Open {
        return Err(Refusal::conflict(
            "revision-superseded",
            "the request is not for the newest revision",
        ));
    }
    if revision.checks.is_none() || revision.tests.is_none() {
        return Err(Refusal::conflict(
            "not-checked",
            "checks and tests are not done",
        ));
    }
    if !change.party.0.is_subset(&body.party.0) {
        return Err(Refusal::denied(
            "party-incomplete",
            "somebody who had a hand in this is not named",
        ));
    }
    if let Some(floor) = landing_floor(state, &change) {
        crate::approval::require_floor(&body.needed, floor)?;
    }
    let request = RequestId(state.size());
    edit_revision(state, id, number, |revision| {
        revision.request = Some(request);
        Ok(())
    })
}

/// The key class that landing takes because it deploys by itself; none if it doesn't.
pub fn landing_floor(state: &State, change: &Change) -> Option<portcullis_model::KeyClass> {
    let repository = state.inventory.repositories.get(&change.repository)?;
    let environment = repository.deploys_on_landing.as_ref()?;
    if repository.default_branch != change.branch {
        return None;
    }
    let production = state
        .inventory
        .environments
        .get(environment)
        .is_none_or(|record| {
            record.sensitivity == portcullis_model::manifest::Sensitivity::Production
        });
    production.then(|| {
        state
            .genesis()
            .map(|genesis| genesis.key_floor.production)
            .unwrap_or(portcullis_model::KeyClass::Verified)
    })
}

/// What an approval of the newest revision is for.
pub fn subject_of(change: &Change) -> ApprovalSubject {
    let revision = change.latest();
    ApprovalSubject::Change {
        change: change.id,
        revision: revision.number,
        repository: change.repository.clone(),
        branch: change.branch.clone(),
        base: revision.pushed.base.clone(),
        head: revision.pushed.head.clone(),
        tree: revision.pushed.tree.clone(),
        manifest: revision.pushed.manifest,
    }
}

/// Digest of what checks and tests said about a revision; an approval binds it.
pub fn evidence_digest(revision: &Revision) -> Option<Digest> {
    let (checks, tests) = (revision.checks.as_ref()?, revision.tests.as_ref()?);
    Some(Digest::of_parts(&[
        checks.report.as_bytes(),
        tests.report.as_bytes(),
    ]))
}

fn withdraw_open_request(state: &mut State, id: ChangeId, code: &str) -> Result<(), Refusal> {
    let request = find("change", &state.changes, &id)?.latest().request;
    if let Some(request) = request {
        state.requests.edit(&request, |request| {
            if request.status == crate::approval::Status::Open {
                request.status = crate::approval::Status::Withdrawn {
                    code: code.to_owned(),
                };
            }
        });
    }
    Ok(())
}

/// A change is withdrawn by a person.
pub(crate) fn closed(state: &mut State, event: &Event, body: &ChangeClosed) -> Result<(), Refusal> {
    state.require_active_human(event)?;
    match state.take_command(event, &body.envelope)? {
        Command::CloseChange { change, .. } if change == body.change => {}
        other => return Err(mismatch("close-change of this change", &other)),
    }
    if find("change", &state.changes, &body.change)?.status != ChangeStatus::Open {
        return Err(Refusal::conflict(
            "change-closed",
            format!("{} is not open any more", body.change),
        ));
    }
    withdraw_open_request(state, body.change, "closed")?;
    edit_in("change", &mut state.changes, &body.change, |change| {
        change.status = ChangeStatus::Closed;
    })
}

/// A branch moved past us. The entry opens the request that asks humans about it.
pub(crate) fn unproven(
    state: &mut State,
    event: &Event,
    body: &CommitsUnproven,
) -> Result<(), Refusal> {
    state.require_control(event)?;
    state.inventory.repository(&body.repository)?;
    let key = (body.repository.clone(), body.branch.clone());
    // What moves the branch right now may be that landing; its outcome tells.
    if let Some(landing) = state.branches.get(&key).and_then(|branch| branch.landing) {
        return Err(Refusal::conflict(
            "branch-moved",
            format!("{} is being landed on", body.branch),
        )
        .received(&format!("the landing of entry {landing}")));
    }
    let tip = state.branches.get(&key).map(|branch| branch.tip.clone());
    if tip != body.from || tip.as_ref() == Some(&body.to) {
        return Err(
            Refusal::conflict("branch-moved", "the branch does not stand where this says")
                .expected(&format!("{tip:?}"))
                .received(&format!("{:?}", body.from)),
        );
    }
    let request_id = RequestId(event.index);
    let segment = Segment {
        from: body.from.clone(),
        to: body.to.clone(),
        proof: SegmentProof::Unproven(request_id),
    };
    match state.branches.get_mut(&key) {
        Some(branch) => {
            let branch = Arc::make_mut(branch);
            branch.tip = body.to.clone();
            branch.segments.push_back(segment);
        }
        None => {
            let branch = Branch {
                tip: body.to.clone(),
                segments: Vector::unit(segment),
                landing: None,
            };
            state.branches.insert(key, Arc::new(branch));
        }
    }
    let needed = Needed {
        humans: 1,
        parties: 1,
        key_class: state.genesis()?.key_floor.production,
        administrators: false,
    };
    let subject = ApprovalSubject::Unproven {
        repository: body.repository.clone(),
        branch: body.branch.clone(),
        from: body.from.clone().unwrap_or_else(GitOid::zero),
        to: body.to.clone(),
    };
    let request = Request::new(
        request_id,
        subject,
        needed,
        Party([Principal::Unknown].into()),
        event.time.plus_ms(REQUEST_LIFE_MS),
    );
    state.requests.insert(request_id, Arc::new(request));
    Ok(())
}
