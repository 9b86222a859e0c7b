//! Bundles: everything that it takes to verify an artifact or a commit offline.
//!
//! A bundle holds the entries that [`portcullis_evidence::chain`] looks at and no others: it starts
//! from what is asked and follows what each entry hangs on (a push on its run, a run on its task,
//! every signature on the records that gave its key) until nothing is added. Reads go to the disk:
//! call from a blocking task.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use portcullis_evidence::chain::{About, BUNDLE_VERSION, Bundle, BundledEntry, Bytes};
use portcullis_evidence::checkpoint::UnverifiedCheckpoint;
use portcullis_evidence::cosignature::{WitnessKey, require_quorum};
use portcullis_evidence::note::{UnverifiedNote, VerifierKey};
use portcullis_flow::State;
use portcullis_flow::change::{ChangeStatus, Segment, SegmentProof};
use portcullis_model::event::{Body, Effect};
use portcullis_model::manifest::Witnessing;
use portcullis_model::{
    ArtifactId, ChangeId, Digest, EnvironmentId, Event, GitOid, JobId, LedgerIndex, Principal,
    Refusal, ReleaseId, RepositoryId, RequestId, TaskId,
};
use portcullis_store::Entry;

use crate::app::App;

/// The checkpoint with the log's signature and those of these witnesses, and no others.
fn only_by(
    checkpoint: &UnverifiedCheckpoint,
    log: &VerifierKey,
    witnesses: &[WitnessKey],
) -> Result<String, Refusal> {
    let note = checkpoint.note();
    let mut kept = UnverifiedNote::unsigned(note.claimed_text())?;
    for line in note.signatures() {
        let by_log = line.name == *log.name() && line.key_id == log.id();
        let by_witness = witnesses
            .iter()
            .any(|witness| witness.verify(note.claimed_text(), line).is_ok());
        if by_log || by_witness {
            kept.add(line.clone())?;
        }
    }
    Ok(kept.to_string())
}

mod commits;
mod index;

pub use index::Index;
use index::Places;

/// How long a checkpoint over the newest entry is waited for; the log signs within a fraction of a
/// second after it was idle.
const CHECKPOINT_WAIT: Duration = Duration::from_secs(5);
/// How long witnesses are waited for.
const COSIGNED_WAIT: Duration = Duration::from_secs(10);
/// How often it is looked for.
const CHECKPOINT_LOOK: Duration = Duration::from_millis(10);

/// The bundle of an artifact: everything up to its build, and where an environment is named, up to
/// its release there. Without one it goes back to the repository's baseline.
///
/// # Errors
/// The artifact or environment is unknown, something that it hangs on can't be read, or some commit
/// is not covered.
pub fn for_artifact(
    app: &App,
    artifact: ArtifactId,
    environment: Option<&EnvironmentId>,
) -> Result<Bundle, Refusal> {
    let released = app
        .state()
        .releases
        .values()
        .rfind(|release| release.artifact == artifact && Some(&release.environment) == environment)
        .map(|release| release.id);
    of_artifact(app, artifact, environment, released)
}

/// The bundle of an artifact as it stands before it is let into an environment, whether or not it
/// was there before.
///
/// # Errors
/// As [`for_artifact`].
pub fn before_release(
    app: &App,
    artifact: ArtifactId,
    environment: &EnvironmentId,
) -> Result<Bundle, Refusal> {
    of_artifact(app, artifact, Some(environment), None)
}

fn of_artifact(
    app: &App,
    artifact: ArtifactId,
    environment: Option<&EnvironmentId>,
    released: Option<ReleaseId>,
) -> Result<Bundle, Refusal> {
    let state = app.state();
    let places = app.index.caught_up(&app.ledger)?;
    let known = state
        .artifacts
        .get(&artifact)
        .ok_or_else(|| Refusal::not_found("artifact", artifact))?;
    let mut collector = Collector::new(app, &state, &places);
    let release = released.and_then(|id| state.releases.get(&id));
    let previous = match (environment, release) {
        (None, _) => None,
        (Some(environment), Some(release)) => places.served(environment, release.id.0),
        (Some(environment), None) => state
            .environments
            .get(environment)
            .and_then(|running| running.stable),
    };
    if let Some(environment) = environment {
        state.inventory.environment(environment)?;
        collector.subject(format!("environment {environment}"));
    }
    collector.subject(format!("repository {}", known.repository));
    collector.entry(artifact.0)?;
    collector.job(known.job)?;
    let until = release.map_or(LedgerIndex::MAX, |release| release.id.0);
    let from = match previous.and_then(|id| state.releases.get(&id)) {
        Some(release) => {
            collector.entry(release.id.0)?;
            collector.entry(release.artifact.0)?;
            state
                .artifacts
                .get(&release.artifact)
                .map(|before| before.commit.clone())
        }
        None => None,
    };
    for segment in segments(
        &state,
        &known.repository,
        &known.commit,
        from.as_ref(),
        known.job.0,
    )? {
        match &segment.proof {
            SegmentProof::Baseline => {}
            SegmentProof::Landed(change) => {
                collector.change(*change)?;
                if let Some(environment) = environment {
                    collector.earlier_releases(environment, *change, known.job)?;
                }
            }
            SegmentProof::Unproven(request) => collector.request(*request)?,
        }
    }
    if let Some(release) = release {
        collector.release(release.id)?;
    }
    collector.policy(until)?;
    collector.finish(
        About::Artifact {
            digest: known.output.digest,
            environment: environment.cloned(),
            previous,
            release: release.map(|release| release.id),
        },
        &known.repository,
    )
}

/// The bundle of a landed commit.
///
/// # Errors
/// It did not land as a change's head, or something that it hangs on can't be read.
pub fn for_commit(
    app: &App,
    repository: &RepositoryId,
    commit: &GitOid,
) -> Result<Bundle, Refusal> {
    let state = app.state();
    let places = app.index.caught_up(&app.ledger)?;
    let change = state
        .changes
        .values()
        .rfind(|change| {
            change.repository == *repository
                && matches!(&change.status, ChangeStatus::Landed { commit: at, .. } if at == commit)
        })
        .ok_or_else(|| {
            Refusal::not_found("landed commit", commit)
                .expected("the newest commit of a change that landed")
        })?;
    let mut collector = Collector::new(app, &state, &places);
    collector.change(change.id)?;
    collector.policy(LedgerIndex::MAX)?;
    let about = About::Commit {
        repository: repository.clone(),
        commit: commit.clone(),
    };
    collector.finish(about, repository)
}

/// The moves of the branch that lead from `from` (or its beginning) to `commit` before the entry at
/// `before`, newest first.
fn segments<'a>(
    state: &'a State,
    repository: &RepositoryId,
    commit: &GitOid,
    from: Option<&GitOid>,
    before: LedgerIndex,
) -> Result<Vec<&'a Segment>, Refusal> {
    let uncovered = |at: &GitOid| {
        Refusal::denied(
            "commit-unproven",
            "the artifact's commits are not all covered",
        )
        .expected("a commit that came after the serving release's, on the same branch")
        .received(at.as_str())
    };
    let branch = state
        .branches
        .iter()
        .find(|((id, _), branch)| id == repository && branch.stood_at(commit))
        .map(|(_, branch)| branch)
        .ok_or_else(|| uncovered(commit))?;
    let mut found = Vec::new();
    let mut at = commit;
    for segment in branch.segments.iter().rev() {
        if Some(at) == from {
            return Ok(found);
        }
        // Moves after the build don't lead to it.
        let later = entry_of(state, segment).is_some_and(|entry| entry >= before);
        if segment.to != *at || later {
            continue;
        }
        found.push(segment);
        match &segment.from {
            Some(earlier) => at = earlier,
            None if from.is_none() => return Ok(found),
            None => return Err(uncovered(at)),
        }
    }
    if Some(at) == from {
        Ok(found)
    } else {
        Err(uncovered(at))
    }
}

fn entry_of(state: &State, segment: &Segment) -> Option<LedgerIndex> {
    match &segment.proof {
        SegmentProof::Baseline => None,
        SegmentProof::Unproven(request) => Some(request.0),
        SegmentProof::Landed(change) => match state.changes.get(change)?.status {
            ChangeStatus::Landed { entry, .. } => Some(entry),
            ChangeStatus::Open | ChangeStatus::Closed => None,
        },
    }
}

/// Follows what hangs on what.
struct Collector<'a> {
    app: &'a App,
    state: &'a State,
    places: &'a Places,
    entries: BTreeMap<LedgerIndex, Entry>,
    blobs: BTreeMap<Digest, Bytes>,
    commits: BTreeSet<GitOid>,
    /// Commits between which a verifier recomputes what differs.
    diffs: Vec<(GitOid, GitOid)>,
    subjects: BTreeSet<String>,
}

impl<'a> Collector<'a> {
    fn new(app: &'a App, state: &'a State, places: &'a Places) -> Self {
        Self {
            app,
            state,
            places,
            entries: BTreeMap::new(),
            blobs: BTreeMap::new(),
            commits: BTreeSet::new(),
            diffs: Vec::new(),
            subjects: BTreeSet::new(),
        }
    }

    /// Adds the entry at `index`, and whoever acted in it.
    fn entry(&mut self, index: LedgerIndex) -> Result<Event, Refusal> {
        if let Some(entry) = self.entries.get(&index) {
            return Event::decode(index, &entry.bytes);
        }
        let entry = self.app.ledger.entry(index)?;
        let event = Event::decode(index, &entry.bytes)?;
        self.entries.insert(index, entry);
        match &event.actor.principal {
            Principal::Human(id) => self.subject(format!("human {id}")),
            Principal::Service(id) => self.subject(format!("service {id}")),
            Principal::Host(id) => self.subject(format!("host {id}")),
            Principal::Agent(id, _) => self.subject(format!("agent {id}")),
            Principal::Unknown => {}
        }
        Ok(event)
    }

    /// Adds whatever gave the subject its record, or took its rights.
    fn subject(&mut self, subject: String) {
        self.subjects.insert(subject);
    }

    /// Adds records of all subjects, and of those who approved those, until nothing is new.
    fn governing(&mut self) -> Result<(), Refusal> {
        let mut done = BTreeSet::new();
        while let Some(subject) = self.subjects.difference(&done).next().cloned() {
            for index in self.places.governing.get(&subject).into_iter().flatten() {
                if let Body::ActivationCompleted(body) = self.entry(*index)?.body {
                    self.request(body.request)?;
                }
            }
            done.insert(subject);
        }
        Ok(())
    }

    fn blob(&mut self, digest: &Digest) -> Result<(), Refusal> {
        if !self.blobs.contains_key(digest) {
            let bytes = self.app.ledger.blobs().get(digest)?;
            self.blobs.insert(*digest, Bytes(bytes));
        }
        Ok(())
    }

    /// As [`blob`](Self::blob), for what may have been erased.
    fn blob_if_there(&mut self, digest: &Digest) {
        if let Err(refusal) = self.blob(digest) {
            tracing::debug!(
                error.code = refusal.code,
                "a bundle goes without body {digest}"
            );
        }
    }

    /// The request's entry and its approvals.
    fn request(&mut self, id: RequestId) -> Result<(), Refusal> {
        self.entry(id.0)?;
        if let Some(request) = self.state.requests.get(&id) {
            for approval in &request.approvals {
                self.entry(approval.entry)?;
            }
        }
        Ok(())
    }

    fn job(&mut self, id: JobId) -> Result<(), Refusal> {
        let requested = self.entry(id.0)?;
        if let Body::JobRequested(body) = &requested.body {
            self.blob_if_there(&body.configuration);
        }
        for places in [&self.places.job_claimed, &self.places.job_finished] {
            if let Some(index) = places.get(&id) {
                let event = self.entry(*index)?;
                if let Body::JobFinished(body) = &event.body
                    && let Some(attestation) = &body.attestation
                {
                    self.blob(attestation)?;
                }
            }
        }
        Ok(())
    }

    /// A landed change: its revisions, runs, tasks, checks, tests, approvals and landing.
    fn change(&mut self, id: ChangeId) -> Result<(), Refusal> {
        let change = self
            .state
            .changes
            .get(&id)
            .ok_or_else(|| Refusal::not_found("change", id))?;
        let ChangeStatus::Landed { entry, .. } = change.status else {
            return Err(Refusal::conflict(
                "not-landed",
                format!("{id} has not landed"),
            ));
        };
        self.subject(format!("repository {}", change.repository));
        // Who let whom in decides who is one party.
        for human in change.party.0.iter().filter_map(Principal::human) {
            self.subject(format!("human {human}"));
        }
        if let Ok(record) = self.state.inventory.repository(&change.repository)
            && let Some(environment) = &record.deploys_on_landing
        {
            self.subject(format!("environment {environment}"));
        }
        for revision in &change.revisions {
            self.entry(revision.entry)?;
            if let Some(run) = revision.run {
                self.run(run)?;
            }
        }
        let revision = change.latest();
        self.commits.extend(revision.pushed.commits.iter().cloned());
        let key = (id, revision.number);
        if let (Some(checks), Some(at)) = (&revision.checks, self.places.checks.get(&key)) {
            self.entry(*at)?;
            self.blob(&checks.report)?;
        }
        if let (Some(tests), Some(at)) = (&revision.tests, self.places.tests.get(&key)) {
            self.entry(*at)?;
            self.blob(&tests.report)?;
            for job in [tests.head, tests.base].into_iter().flatten() {
                self.job(job)?;
            }
        }
        let concluded = self.entry(entry)?;
        if let Body::EffectConcluded(body) = &concluded.body {
            let intent = self.entry(body.effect)?;
            if let Body::EffectIntended(body) = &intent.body
                && let Effect::Land {
                    request,
                    prepared,
                    together,
                    ..
                } = &body.effect
            {
                if let Some(task) = together {
                    self.together(*task)?;
                }
                if let Some(request) = request {
                    self.request(*request)?;
                }
                if let Some(prepared) = prepared {
                    self.prepared(*prepared, &revision.pushed.base, &revision.pushed.head)?;
                }
            }
        }
        Ok(())
    }

    /// The landings of a task that happened together.
    fn together(&mut self, id: TaskId) -> Result<(), Refusal> {
        let landed: Vec<LedgerIndex> = self
            .state
            .changes
            .values()
            .filter(|change| {
                portcullis_flow::together::task_of(self.state, change)
                    .is_some_and(|(other, _)| other == id)
            })
            .filter_map(|change| match change.status {
                ChangeStatus::Landed { entry, .. } => Some(entry),
                ChangeStatus::Open | ChangeStatus::Closed => None,
            })
            .collect();
        for entry in landed {
            if let Body::EffectConcluded(body) = self.entry(entry)?.body {
                self.entry(body.effect)?;
            }
        }
        Ok(())
    }

    /// What was made ready instead of the pushed commits, and what checks and tests say of it.
    fn prepared(
        &mut self,
        entry: LedgerIndex,
        base: &GitOid,
        head: &GitOid,
    ) -> Result<(), Refusal> {
        let event = self.entry(entry)?;
        let Body::LandingPrepared(made) = &event.body else {
            return Err(Refusal::internal("a landing of what was not prepared"));
        };
        let made = made.clone();
        self.commits.extend(made.commits.iter().cloned());
        if made.base != *base {
            self.commits.extend([base.clone(), made.base.clone()]);
            self.diffs.extend([
                (base.clone(), head.clone()),
                (made.base.clone(), made.head.clone()),
            ]);
        }
        let Some(at) = self.places.tested.get(&entry) else {
            return Ok(());
        };
        let event = self.entry(*at)?;
        let Body::LandingTested(body) = &event.body else {
            return Err(Refusal::internal("tests of what was not prepared"));
        };
        let body = body.clone();
        self.blob(&body.report)?;
        self.blob(&body.findings)?;
        for job in [body.head, body.base].into_iter().flatten() {
            self.job(job)?;
        }
        // What it was tested together with, down to what landed.
        let mut next = body.with;
        for _ in 0..portcullis_flow::queue::WINDOW {
            let Some(entry) = next else {
                break;
            };
            let event = self.entry(entry)?;
            let Body::LandingPrepared(behind) = &event.body else {
                break;
            };
            next = (behind.base != made.head)
                .then(|| self.places.prepared.get(&behind.base).copied())
                .flatten();
        }
        Ok(())
    }

    fn run(&mut self, id: portcullis_model::RunId) -> Result<(), Refusal> {
        self.entry(id.0)?;
        if let Some(index) = self.places.run_ended.get(&id) {
            self.entry(*index)?;
        }
        let run = self
            .state
            .runs
            .get(&id)
            .ok_or_else(|| Refusal::not_found("run", id))?;
        self.subject(format!("agent {}", run.agent));
        if let Some(record) = self.state.inventory.agents.get(&run.agent) {
            for group in &record.manifest.tasked_by {
                self.subject(format!("group {group}"));
            }
        }
        if let Some(task) = self.state.tasks.get(&run.task) {
            self.entry(task.entry)?;
            self.blob_if_there(&task.payload.text);
        }
        Ok(())
    }

    /// Releases that an earlier build's changes were admitted with, which its provenance need not
    /// name again.
    fn earlier_releases(
        &mut self,
        environment: &EnvironmentId,
        change: ChangeId,
        job: JobId,
    ) -> Result<(), Refusal> {
        let earlier: Vec<ReleaseId> = self
            .state
            .releases
            .values()
            .filter(|release| {
                release.environment == *environment
                    && release.id.0 < job.0
                    && release.changes.contains(&change)
            })
            .map(|release| release.id)
            .collect();
        for release in earlier {
            self.entry(release.0)?;
        }
        Ok(())
    }

    /// The admission, with its request and summaries, and what became of it.
    fn release(&mut self, id: ReleaseId) -> Result<(), Refusal> {
        let admitted = self.entry(id.0)?;
        let Body::ReleaseAdmitted(body) = &admitted.body else {
            return Err(Refusal::internal("a release without its admission"));
        };
        self.blob(&body.verification)?;
        if let Some(request) = body.request {
            self.request(request)?;
            if let Some(checks) = self
                .state
                .requests
                .get(&request)
                .and_then(|open| open.checks)
            {
                self.blob(&checks)?;
            }
        }
        let rollout = self
            .state
            .rollouts
            .values()
            .rfind(|rollout| rollout.release == id);
        if let Some(rollout) = rollout {
            self.entry(rollout.id.0)?;
            if let Some(index) = self.places.rollout_ended.get(&rollout.id) {
                self.entry(*index)?;
            }
        }
        Ok(())
    }

    /// The policies, and the files of the one in force before the entry at `until`.
    fn policy(&mut self, until: LedgerIndex) -> Result<(), Refusal> {
        self.subject("policy".to_owned());
        let mut files = self.state.genesis()?.policy.clone();
        for index in self.places.governing.get("policy").into_iter().flatten() {
            if let Body::ActivationCompleted(body) = self.entry(*index)?.body
                && *index < until
                && let Some(portcullis_model::manifest::Activation::Policy(record)) = self
                    .state
                    .requests
                    .get(&body.request)
                    .and_then(|request| request.activation.clone())
            {
                files = record;
            }
        }
        files
            .files
            .values()
            .try_for_each(|digest| self.blob(digest))
    }

    /// Proofs and objects for everything collected.
    fn finish(mut self, about: About, repository: &RepositoryId) -> Result<Bundle, Refusal> {
        self.entry(0)?;
        self.governing()?;
        let newest = self.entries.keys().next_back().copied().unwrap_or_default();
        let checkpoint = match self.demanded(&about)? {
            Some(witnesses) => self.cosigned_over(newest, &witnesses)?,
            None => self.checkpoint_over(newest)?,
        };
        let ledger = &self.app.ledger;
        let mut entries = Vec::with_capacity(self.entries.len());
        for (index, entry) in self.entries {
            entries.push(BundledEntry {
                index,
                bytes: crate::app::text(&entry.bytes)?,
                proof: ledger.inclusion_proof(index, checkpoint.0)?,
            });
        }
        let git_dir = self
            .app
            .home
            .repositories()
            .join(repository.as_str())
            .join("changes.git");
        let objects = if self.commits.is_empty() {
            BTreeMap::new()
        } else {
            commits::read(&git_dir, self.commits.into_iter(), &self.diffs)?
        };
        Ok(Bundle {
            version: BUNDLE_VERSION,
            about,
            checkpoint: checkpoint.1,
            entries,
            blobs: self.blobs,
            objects,
        })
    }

    /// The witnesses that the environment of the bundle demands, if any.
    fn demanded(&self, about: &About) -> Result<Option<Witnessing>, Refusal> {
        let About::Artifact {
            environment: Some(environment),
            ..
        } = about
        else {
            return Ok(None);
        };
        let record = self.state.inventory.environment(environment)?;
        Ok(Some(record.witnesses.clone()).filter(|witnesses| !witnesses.is_none()))
    }

    /// A checkpoint over the entry at `newest` that enough of `demanded` cosigned, with the log's
    /// signature and theirs alone: its size and its note.
    fn cosigned_over(
        &self,
        newest: LedgerIndex,
        demanded: &Witnessing,
    ) -> Result<(u64, String), Refusal> {
        let keys: Vec<WitnessKey> = demanded
            .keys
            .iter()
            .map(|key| key.parse())
            .collect::<Result<_, _>>()?;
        let quorum = usize::try_from(demanded.quorum).unwrap_or(usize::MAX);
        let began = Instant::now();
        loop {
            if let Some(cosigned) = self.app.witnesses.newest()
                && cosigned.size > newest
                && require_quorum(&cosigned.checkpoint, &keys, quorum).is_ok()
            {
                let note = only_by(&cosigned.checkpoint, &self.app.log_key, &keys)?;
                return Ok((cosigned.size, note));
            }
            if began.elapsed() > COSIGNED_WAIT {
                return Err(Refusal::unavailable(
                    "witness-quorum-missing",
                    "too few of the environment's witnesses have cosigned the newest checkpoint",
                )
                .expected(&format!(
                    "{quorum} of {} over more than {newest} entries",
                    demanded
                        .keys
                        .iter()
                        .map(|key| key.split('+').next().unwrap_or_default())
                        .collect::<Vec<_>>()
                        .join(", ")
                ))
                .next("`portcullis ledger witnesses` says what each of them answers; they are asked again all the time"));
            }
            std::thread::sleep(CHECKPOINT_LOOK);
        }
    }

    /// A signed checkpoint that covers the entry at `newest`: its size and its note.
    fn checkpoint_over(&self, newest: LedgerIndex) -> Result<(u64, String), Refusal> {
        let began = Instant::now();
        loop {
            let checkpoint = self.app.ledger.checkpoint();
            if checkpoint.size > newest {
                return Ok((checkpoint.size, checkpoint.note.clone()));
            }
            if began.elapsed() > CHECKPOINT_WAIT {
                return Err(Refusal::unavailable(
                    "checkpoint-missing",
                    "the log has not signed a checkpoint over the newest entries",
                )
                .expected(&format!("more than {newest} entries"))
                .received(&format!("{} entries", checkpoint.size))
                .next(
                    "try again; if it persists, the ledger can't be written: see the server's log",
                ));
            }
            std::thread::sleep(CHECKPOINT_LOOK);
        }
    }
}
