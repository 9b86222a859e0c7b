//! The queue of a branch, performed: making what would land, testing it as it would land, and
//! halting where it is not what was approved.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_checks::graph;
use portcullis_flow::State;
use portcullis_flow::change::{Change, ChangeStatus, Revision};
use portcullis_flow::queue::{self, BATCH_MAX, Prepared};
use portcullis_flow::work::Work;
use portcullis_gateway::git::commit::Ident;
use portcullis_gateway::git::prepare::Preparation;
use portcullis_gateway::git::tree::RawEntry;
use portcullis_model::document::from_toml;
use portcullis_model::event::{
    IncidentOpened, JobKind, JobRequested, LandingMethod, LandingPrepared, LandingTested,
    QueueHalted, RequestWithdrawn, TestCounts, TestVerdict,
};
use portcullis_model::{ChangeId, GitOid, LedgerIndex, Refusal, RepositoryId, RequestId};
use portcullis_policy::Approvals;
use serde::Deserialize;

use super::{checks, jobs, landing, record};
use crate::app::{App, Verdict, now, text};
use crate::mirrors::Mirror;

/// Where a repository says how changes land; read from the protected base only.
pub const CONFIGURATION: &str = ".portcullis/landing.toml";
/// Largest configuration file, in bytes.
const CONFIGURATION_MAX_BYTES: u64 = 64 * 1024;

/// How changes land on a repository's branches.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// By which method.
    #[serde(default)]
    pub method: LandingMethod,
    /// How many changes of the queue are tested at once.
    #[serde(default = "one")]
    pub batch: u32,
}

const fn one() -> u32 {
    1
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            method: LandingMethod::default(),
            batch: one(),
        }
    }
}

/// The settings in force at a commit of a branch.
///
/// # Errors
/// The file can't be read, or says what is not possible.
pub async fn settings(mirror: &Mirror, commit: &GitOid) -> Result<Settings, Refusal> {
    let file = mirror
        .objects()
        .read_file(commit, CONFIGURATION, CONFIGURATION_MAX_BYTES)
        .await?;
    let Some(bytes) = file else {
        return Ok(Settings::default());
    };
    let settings: Settings = from_toml("landing configuration", &text(&bytes)?)?;
    if (1..=BATCH_MAX).contains(&settings.batch) {
        return Ok(settings);
    }
    Err(Refusal::malformed("landing configuration")
        .expected(&format!("a batch of 1 to {BATCH_MAX}"))
        .received(&settings.batch.to_string())
        .next(format!(
            "correct `batch` in {CONFIGURATION} on the protected branch"
        )))
}

/// Makes what would land of a revision on `onto`, where the approvals or policy let it move there.
///
/// # Errors
/// The objects can't be read, or the state moved on.
pub async fn prepare(
    app: &App,
    id: ChangeId,
    number: u64,
    onto: &GitOid,
    root: &GitOid,
) -> Result<(), Refusal> {
    let state = app.state();
    let change = state
        .changes
        .get(&id)
        .ok_or_else(|| Refusal::not_found("change", id))?;
    let revision = change.latest();
    if change.status != ChangeStatus::Open || revision.number != number {
        return Ok(());
    }
    let work = Work::Prepare(id, number, onto.clone(), root.clone());
    if revision.request.is_none() {
        // Nobody is asked about a change that stands on an old base: its author rebases it.
        match landing::verdict(app, &state, id, Approvals::default()).await? {
            Verdict::Permit(..) => {}
            Verdict::No(..) => {
                app.settled.insert(work);
                return Ok(());
            }
        }
    }
    let mirror = app.mirrors.get(&state, &change.repository).await?;
    let settings = settings(&mirror, root).await?;
    let made = match may_move(&mirror, revision, onto, root).await? {
        Some(obstacle) => Err(obstacle),
        None => make(&state, &mirror, change, settings.method, onto).await,
    };
    let made = match made {
        Ok(made) => made,
        Err(refusal) if refusal.code == "landing-mismatch" => {
            app.settled.insert(work);
            return halt(app, change, &refusal).await;
        }
        Err(refusal) if HINDRANCES.contains(&refusal.code.as_str()) => {
            tracing::info!(change = %id, error.code = refusal.code, "not moved to a later base: {refusal}");
            // What only is in the way of what stands before it waits for that.
            match revision.request.filter(|_| onto == root) {
                Some(request) => return withdraw(app, request, &refusal.code).await,
                None => app.settled.insert(work),
            }
            return Ok(());
        }
        Err(refusal) => return Err(refusal),
    };
    let body = LandingPrepared {
        change: id,
        revision: number,
        method: settings.method,
        root: root.clone(),
        base: onto.clone(),
        head: made.head,
        tree: made.tree,
        manifest: made.manifest,
        commits: made.commits,
        batch: settings.batch,
    };
    match record(app, body).await {
        // Made of another diff than people saw: no landing, and no second try.
        Err(refusal)
            if matches!(
                refusal.code.as_str(),
                "not-the-same-diff" | "landing-mismatch"
            ) =>
        {
            app.settled.insert(work);
            halt(app, change, &refusal).await
        }
        other => other,
    }
}

/// Codes that keep a diff from moving to a later base.
const HINDRANCES: [&str; 5] = [
    "change-conflicts",
    "base-depends",
    "base-unknown",
    "merge-in-rebase",
    "too-many-commits",
];

async fn make(
    state: &State,
    mirror: &Mirror,
    change: &Change,
    method: LandingMethod,
    onto: &GitOid,
) -> Result<portcullis_gateway::git::prepare::Made, Refusal> {
    let revision = change.latest();
    let order = Preparation {
        change: change.id,
        revision: revision.number,
        method,
        base: revision.pushed.base.clone(),
        head: revision.pushed.head.clone(),
        onto: onto.clone(),
        committer: Ident {
            name: "Portcullis".to_owned(),
            email: format!("landing@{}", state.genesis()?.trust_domain),
        },
    };
    mirror.repository.prepare(&order).await
}

/// Why a revision's diff may not move from its base to `onto`; none if it may.
///
/// Where humans approved, the branch must have moved outside what the change touches and depends
/// on. Where policy let it in by itself, the tests on the new base are enough. In both, what
/// settles how it is tested must be that of `root`.
async fn may_move(
    mirror: &Mirror,
    revision: &Revision,
    onto: &GitOid,
    root: &GitOid,
) -> Result<Option<Refusal>, Refusal> {
    let pushed = &revision.pushed;
    if pushed.base == *onto {
        return Ok(None);
    }
    let objects = mirror.objects();
    let unknown = |why: &str| {
        Refusal::conflict("base-unknown", why.to_owned())
            .next("fetch, rebase onto the branch and push again")
    };
    if !objects.is_ancestor(&pushed.base, onto).await? {
        return Ok(Some(unknown("the branch's history was rewritten")));
    }
    let rules = |entry: &RawEntry| entry.path.starts_with(b".portcullis/");
    if objects.raw_entries(root, onto).await?.iter().any(rules) {
        return Ok(Some(unknown(
            "a change before it in the queue settles how changes are tested",
        )));
    }
    if revision.request.is_none() {
        return Ok(None);
    }
    let paths = |entries: Vec<RawEntry>| -> Option<BTreeSet<String>> {
        entries
            .into_iter()
            .map(|entry| String::from_utf8(entry.path).ok())
            .collect()
    };
    let touched = paths(objects.raw_entries(&pushed.base, &pushed.head).await?);
    let moved = paths(objects.raw_entries(&pushed.base, onto).await?);
    let (Some(touched), Some(moved)) = (touched, moved) else {
        return Ok(Some(unknown("a path is not UTF-8")));
    };
    let files = mirror.build_files(onto).await?;
    let Some(files) = files else {
        return Ok(Some(unknown("there are too many or too large build files")));
    };
    Ok(match graph::independent(&files, &touched, &moved) {
        Ok(()) => None,
        Err(obstacle @ graph::Obstacle::Unknown { .. }) => Some(unknown(&obstacle.to_string())),
        Err(obstacle @ graph::Obstacle::Depends { .. }) => Some(
            Refusal::conflict("base-depends", obstacle.to_string())
                .next("fetch, rebase onto the branch and push again"),
        ),
    })
}

/// Runs checks again on what `entry` prepared and tests on what `with` prepared: asks for the jobs,
/// or records what they say.
///
/// # Errors
/// The objects can't be read, or the state moved on.
pub async fn test(app: &App, entry: LedgerIndex, with: LedgerIndex) -> Result<(), Refusal> {
    let state = app.state();
    let (Some((change, front)), Some((last_change, last))) =
        (find(&state, entry), find(&state, with))
    else {
        return Ok(());
    };
    let root = &front.made.root;
    let found = jobs::configuration_at(app, &state, &change.repository, root).await?;
    let Some((jobs::JobsConfiguration { test: Some(_), .. }, configuration)) = found else {
        let compared = jobs::Compared {
            verdict: TestVerdict::NotConfigured,
            counts: TestCounts::default(),
            report: app.ledger.blobs().put(b"{}")?,
        };
        return tell(app, &state, change, front, None, None, compared).await;
    };
    let Some(asked) = queue::jobs(&state, last_change, last) else {
        let job = |commit: &GitOid, change: Option<ChangeId>| JobRequested {
            kind: JobKind::Test,
            repository: last_change.repository.clone(),
            commit: commit.clone(),
            configured_by: root.clone(),
            configuration,
            change,
        };
        if !jobs::knows_test(&state, &last_change.repository, root, root) {
            record(app, job(root, None)).await?;
        }
        if !jobs::knows_test(&state, &last_change.repository, &last.made.head, root) {
            record(app, job(&last.made.head, Some(last_change.id))).await?;
        }
        return Ok(());
    };
    if !asked.all_finished {
        return Ok(());
    }
    let compared = jobs::compare_jobs(app, &state, asked.head, asked.base)?;
    let with = (entry != with).then_some(with);
    let ran = Some((asked.head, asked.base));
    tell(app, &state, change, front, with, ran, compared).await
}

/// Records what checks and tests say of what was prepared.
async fn tell(
    app: &App,
    state: &State,
    change: &Change,
    prepared: &Prepared,
    with: Option<LedgerIndex>,
    ran: Option<(portcullis_model::JobId, portcullis_model::JobId)>,
    compared: jobs::Compared,
) -> Result<(), Refusal> {
    let made = &prepared.made;
    let (report, _) = checks::analyse_between(app, state, change, &made.base, &made.head).await?;
    let own = with.is_none() && stands_in_front(state, change, prepared);
    // A test run that failed for a batch says nothing of one member.
    let body = LandingTested {
        change: change.id,
        prepared: prepared.entry,
        with,
        own,
        tests: compared.verdict,
        head: ran.map(|(head, _)| head),
        base: ran.map(|(_, base)| base),
        counts: compared.counts,
        report: compared.report,
        checks: report.verdict,
        escalations: report.escalations.clone(),
        findings: app.ledger.blobs().put(&report.to_bytes()?)?,
    };
    record(app, body).await
}

/// Whether everything before it in its queue is known to be good.
fn stands_in_front(state: &State, change: &Change, prepared: &Prepared) -> bool {
    let key = (change.repository.clone(), change.branch.clone());
    let Some(branch) = state.branches.get(&key) else {
        return false;
    };
    let line = queue::line(state, &key, branch, now());
    for place in &line.places {
        if place.prepared.entry == prepared.entry {
            return true;
        }
        if !place.prepared.passed() {
            return false;
        }
    }
    false
}

fn find(state: &State, entry: LedgerIndex) -> Option<(&Change, &Prepared)> {
    state.changes.open().find_map(|change| {
        let prepared = change.latest().prepared.as_deref()?;
        (prepared.entry == entry).then_some((&**change, prepared))
    })
}

/// Halts the queue of a change's branch, and says so.
///
/// # Errors
/// The ledger can't be written.
pub async fn halt(app: &App, change: &Change, refusal: &Refusal) -> Result<(), Refusal> {
    tracing::error!(
        change = %change.id, repository = %change.repository, branch = change.branch,
        "the queue is halted: {refusal}"
    );
    let body = QueueHalted {
        repository: change.repository.clone(),
        branch: change.branch.clone(),
        change: change.id,
        code: refusal.code.clone(),
        expected: refusal.expected.clone().unwrap_or_default(),
        found: refusal.received.clone().unwrap_or_default(),
    };
    match record(app, body).await {
        Err(refusal) if refusal.code == "queue-halted" => return Ok(()),
        other => other?,
    }
    let facts = BTreeMap::from([
        ("change".to_owned(), change.id.to_string()),
        (
            "branch".to_owned(),
            format!("{} {}", change.repository, change.branch),
        ),
        ("code".to_owned(), refusal.code.clone()),
    ]);
    let body = IncidentOpened {
        code: "landed-tree-mismatch".to_owned(),
        about: Some(change.id.0),
        facts,
    };
    record(app, body).await
}

async fn withdraw(app: &App, request: RequestId, code: &str) -> Result<(), Refusal> {
    let body = RequestWithdrawn {
        request,
        code: code.to_owned(),
    };
    record(app, body).await
}

/// The prepared landing that a revision on its branch's tip takes by this method; none if the
/// pushed commits land themselves.
///
/// # Errors
/// It was not made yet; it is being made.
pub async fn at_tip(app: &App, state: &State, change: &Change) -> Result<AtTip, Refusal> {
    let revision = change.latest();
    let base = &revision.pushed.base;
    let mirror = app.mirrors.get(state, &change.repository).await?;
    let settings = settings(&mirror, base).await?;
    let fits = |prepared: &Prepared| {
        prepared.made.base == *base && prepared.made.method == settings.method
    };
    match (settings.method, &revision.prepared) {
        (LandingMethod::FastForward, _) => Ok(AtTip::AsPushed),
        (_, Some(prepared)) if fits(prepared) => Ok(AtTip::Prepared(prepared.entry)),
        _ => {
            prepare(app, change.id, revision.number, base, base).await?;
            Ok(AtTip::NotYet)
        }
    }
}

/// How a revision on its branch's tip lands.
pub enum AtTip {
    /// The pushed commits themselves.
    AsPushed,
    /// What this entry prepared.
    Prepared(LedgerIndex),
    /// It is being prepared; the next plan goes on.
    NotYet,
}

/// Who waits on a branch, front first, and whether it is halted: for people and programs.
pub fn view(state: &State, repository: &RepositoryId, branch: &str) -> serde_json::Value {
    let key = (repository.clone(), branch.to_owned());
    let Some(known) = state.branches.get(&key) else {
        return serde_json::Value::Null;
    };
    let line = queue::line(state, &key, known, now());
    let places: Vec<_> = line
        .places
        .iter()
        .map(|place| {
            serde_json::json!({
                "change": place.change.id,
                "revision": place.change.latest().number,
                "base": place.prepared.made.base,
                "head": place.prepared.made.head,
                "method": place.prepared.made.method,
                "tested": place.prepared.tested.as_ref().map(|tested| tested.tests),
            })
        })
        .collect();
    let halted = state.halted_queues.get(&key).map(
        |halt| serde_json::json!({ "entry": halt.entry, "code": halt.code, "change": halt.change }),
    );
    serde_json::json!({
        "repository": repository,
        "branch": branch,
        "tip": known.tip,
        "halted": halted,
        "landing": known.landing,
        "prepared": places,
        "next": line.next.iter().map(|change| change.id).collect::<Vec<_>>(),
    })
}
