//! A push is decided twice: on its commands before a pack is read, and on its content while it
//! stands in quarantine. What is accepted becomes a revision of a change.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use portcullis_checks::diff::GitPath;
use portcullis_checks::scope::{Matcher, PathVerdict};
use portcullis_flow::change::{Change, party_of_commits, party_of_push};
use portcullis_flow::{Command as Recording, State};
use portcullis_gateway::git::body::BodyReader;
use portcullis_gateway::git::commit::Ident;
use portcullis_gateway::git::push::RefCommand;
use portcullis_gateway::git::quarantine::RevisionRef;
use portcullis_gateway::git::receive::{self, PushRequest};
use portcullis_gateway::git::report::{RefReport, RefResult, Report};
use portcullis_gateway::git::rules::{self, FirstLook};
use portcullis_gateway::git::{FetchView, PackLimits, Quarantine};
use portcullis_model::event::{ChangePushed, DecisionRecord, LeaseKind};
use portcullis_model::manifest::Repository;
use portcullis_model::statement::Envelope;
use portcullis_model::{
    Actor, ChangeId, GitOid, Recorder as _, Refusal, RepositoryId, RunId, Scope,
};
use portcullis_policy::action::{Action, GitPush, UpdateKind};
use portcullis_policy::request::{Circumstances, TaskFacts};
use portcullis_policy::{Permit, PolicyFile, Request as Question};
use serde::Deserialize;
use serde_json::json;

use super::super::super::{Problem, one_header};
use super::super::Caller;
use super::{answer, branch_refs, content, signed};
use crate::app::{App, Verdict, now};
use crate::facts;
use crate::mirrors::Mirror;

/// Who pushes, and what that allows.
struct Pusher {
    actor: Actor,
    run: Option<RunId>,
    policy_actor: portcullis_policy::Actor,
    circumstances: Circumstances,
    task: Option<TaskFacts>,
    identity: Option<Ident>,
    scope: Option<Scope>,
    change: Option<ChangeId>,
    denials: u64,
    envelope: Option<Envelope>,
}

pub(super) async fn by_run(
    app: &Arc<App>,
    caller: &Caller,
    repository: &RepositoryId,
    mirror: &Mirror,
    view: &FetchView,
    request: Request,
) -> Result<Response, Problem> {
    let pusher = run_pusher(app, caller, repository)?;
    let push = read_push(mirror, request).await?;
    push_any(app, pusher, repository, view, push).await
}

/// A run as it pushes to a repository.
fn run_pusher(app: &App, caller: &Caller, repository: &RepositoryId) -> Result<Pusher, Refusal> {
    let (state, run) = (&caller.state, &caller.run);
    let task = state.tasks.get(&run.task);
    let (name, email) = run.commit_identity(&state.genesis()?.trust_domain);
    Ok(Pusher {
        actor: caller.actor(),
        run: Some(run.id),
        policy_actor: facts::run_actor(state, run, now()),
        circumstances: facts::circumstances_of_run(
            state,
            run,
            Some(repository),
            caller.halted(app),
            now(),
        )?,
        task: facts::task(state, run.task, Some(run), now()),
        identity: Some(Ident { name, email }),
        scope: task
            .and_then(|task| task.payload.target(repository))
            .map(|target| target.scope.clone()),
        change: task.and_then(|task| task.payload.change),
        denials: run.used.denials,
        envelope: None,
    })
}

/// What a run asks before it pushes, without objects.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PushQuestion {
    repository: RepositoryId,
    /// Where it would push, such as `refs/for/main`.
    #[serde(rename = "ref")]
    reference: String,
    /// Paths that it would add, change or delete.
    #[serde(default)]
    paths: BTreeSet<String>,
    /// Bytes that it would send.
    #[serde(default)]
    bytes: u64,
}

/// Most bytes of a question.
const QUESTION_MAX_BYTES: usize = 1024 * 1024;

/// Says what would be refused of a push, in words for a program. It is counted, and the reviewer
/// is told; nothing else changes.
pub(super) async fn ask(app: &App, caller: &Caller, request: Request) -> Result<Response, Problem> {
    let body = axum::body::to_bytes(request.into_body(), QUESTION_MAX_BYTES)
        .await
        .map_err(|error| {
            Refusal::limit("body-too-large", "the question is too large or was cut off")
                .expected(&format!("at most {QUESTION_MAX_BYTES} bytes"))
                .received(&error.to_string())
        })?;
    let asked: PushQuestion = serde_json::from_slice(&body).map_err(|error| {
        Refusal::malformed("question about a push")
            .expected(r#"{"repository": "shop", "ref": "refs/for/main", "paths": ["src/a.rs"]}"#)
            .received(&error.to_string())
    })?;
    app.questions.count(caller.run.id);
    let answer = match would_take(app, caller, &asked).await {
        Ok(()) => json!({ "accepted": true }),
        Err(refusal) => json!({
            "accepted": false,
            "code": refusal.code,
            "message": refusal.message,
            "expected": refusal.expected,
            "received": refusal.received,
            "rule": refusal.rule,
            "next": refusal.next,
        }),
    };
    Ok(axum::Json(answer).into_response())
}

async fn would_take(app: &App, caller: &Caller, asked: &PushQuestion) -> Result<(), Refusal> {
    let state = &caller.state;
    let repository = &asked.repository;
    if !caller
        .run
        .leases
        .contains(&LeaseKind::Git(repository.clone()))
    {
        return Err(Refusal::denied(
            "repository-not-in-task",
            format!("the task does not name repository {repository}"),
        )
        .next("work in the task's repositories"));
    }
    let record = state.inventory.repository(repository)?;
    let pusher = run_pusher(app, caller, repository)?;
    let command = RefCommand {
        old: GitOid::zero(),
        new: "1".repeat(40).parse()?,
        name: asked.reference.clone(),
    };
    let (look, short) = rules::classify(&command);
    let outside = match &pusher.scope {
        Some(scope) => {
            let matcher = Matcher::new(scope)?;
            asked
                .paths
                .iter()
                .filter(|path| {
                    let path = GitPath::new(path.as_bytes());
                    !matches!(matcher.path(&path), PathVerdict::Inside)
                })
                .cloned()
                .collect()
        }
        None => BTreeSet::new(),
    };
    let files = u64::try_from(asked.paths.len()).unwrap_or(u64::MAX);
    let over_scope = pusher
        .scope
        .iter()
        .filter(|scope| files > scope.max_files)
        .map(|scope| format!("{files} files of {}", scope.max_files))
        .collect();
    for path in &asked.paths {
        portcullis_gateway::git::path::check(path.as_bytes(), PackLimits::default().path_depth)?;
    }
    let facts = GitPush {
        paths_outside_scope: outside,
        over_scope,
        pack_bytes: asked.bytes,
        ..push_facts(state, &pusher, repository, record, &command, look, short)
    };
    let for_review = facts.for_review;
    let base = state
        .branches
        .get(&(repository.clone(), short.to_owned()))
        .map(|branch| branch.tip.clone());
    let own = match &base {
        Some(base) => app.repository_policy(state, repository, base).await?,
        None => Vec::new(),
    };
    let _only_asked =
        decide_push(app, state, &pusher, facts, &own).map_err(|(refusal, _)| refusal)?;
    match base {
        _ if !for_review => Err(propose_instead(short, &command.name)),
        None => Err(branch_unknown(repository, short)),
        Some(_) => Ok(()),
    }
}

fn propose_instead(short: &str, received: &str) -> Refusal {
    Refusal::denied(
        "propose-instead",
        "branches move by landing, not by pushing",
    )
    .expected(&format!("refs/for/{short}"))
    .received(received)
    .next(format!("git push origin HEAD:refs/for/{short}"))
}

fn branch_unknown(repository: &RepositoryId, short: &str) -> Refusal {
    Refusal::denied(
        "branch-unknown",
        format!("{repository} has no branch {short}"),
    )
    .expected("a branch that exists upstream and that a task named")
    .next("propose the change for the branch that the task names")
}

pub(super) async fn by_person(
    app: &Arc<App>,
    state: &State,
    repository: &RepositoryId,
    mirror: &Mirror,
    request: Request,
) -> Result<Response, Problem> {
    let push = read_push(mirror, request).await?;
    if push.header.is_probe() {
        return Ok(answer(receive::RESULT_TYPE, Body::empty()));
    }
    let (human, actor, envelope) =
        match signed::verify(state, repository, push.header.certificate.as_ref()) {
            Ok(found) => found,
            Err(refusal) => {
                return Ok(answer(
                    receive::RESULT_TYPE,
                    Body::from(push.deny(&refusal).await),
                ));
            }
        };
    let mut circumstances = facts::circumstances(state, now())?;
    circumstances.mode = state.inventory.repository(repository)?.mode;
    circumstances.key_class = actor.key_class.unwrap_or(circumstances.key_class);
    let pusher = Pusher {
        actor,
        run: None,
        policy_actor: facts::human(state, &human),
        circumstances,
        task: None,
        identity: None,
        scope: None,
        change: None,
        denials: 0,
        envelope: Some(envelope),
    };
    let refs = branch_refs(state, repository)?;
    let head = &state.inventory.repository(repository)?.default_branch;
    let view = FetchView::create(
        &mirror.repository,
        &format!("person-{human}").replace('.', "_"),
        head,
        &refs,
    )
    .await?;
    push_any(app, pusher, repository, &view, push).await
}

type Incoming = PushRequest<BodyReader<Body>>;

/// Most pushes whose packs are read and judged at once: each is a few git processes, and up to a
/// pack's limit on disk.
const PUSHES_MAX: usize = 16;
/// How long a push waits for its turn.
const PUSH_WAIT: std::time::Duration = std::time::Duration::from_secs(120);
static PUSHES: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(PUSHES_MAX);

async fn read_push(mirror: &Mirror, request: Request) -> Result<Incoming, Refusal> {
    let encoding = one_header(request.headers(), "content-encoding")?.map(str::to_owned);
    let limit = PackLimits::default()
        .pack_bytes
        .saturating_add(16 * 1024 * 1024);
    let body = BodyReader::new(request.into_body(), encoding.as_deref(), limit)?;
    PushRequest::read(mirror.repository.format(), body).await
}

async fn push_any(
    app: &Arc<App>,
    pusher: Pusher,
    repository: &RepositoryId,
    view: &FetchView,
    mut push: Incoming,
) -> Result<Response, Problem> {
    if push.header.is_probe() {
        return Ok(answer(receive::RESULT_TYPE, Body::empty()));
    }
    let report = match take_push(app, &pusher, repository, view, &mut push).await {
        Ok(report) => report,
        Err((refusal, decision)) => {
            let refs: Vec<&str> = push
                .header
                .commands
                .iter()
                .map(|command| command.name.as_str())
                .collect();
            let resource = format!("repository {repository} ref {}", refs.join(" "));
            let decision = decision.unwrap_or_else(|| app.state_decision(&app.state()));
            let question = push.header.is_question();
            if question {
                pusher.run.inspect(|run| app.questions.count(*run));
            } else {
                app.record_denial(
                    pusher.actor.clone(),
                    pusher.run,
                    "git.push",
                    resource,
                    &refusal,
                    decision,
                )
                .await;
            }
            Report::refused(&push.header, &refusal)
        }
    };
    Ok(answer(
        receive::RESULT_TYPE,
        Body::from(push.answer(&report).await),
    ))
}

type Denied = (Refusal, Option<DecisionRecord>);

fn by_state(refusal: Refusal) -> Denied {
    (refusal, None)
}

async fn take_push(
    app: &Arc<App>,
    pusher: &Pusher,
    repository: &RepositoryId,
    view: &FetchView,
    push: &mut Incoming,
) -> Result<Report, Denied> {
    let state = app.state();
    let record = state
        .inventory
        .repository(repository)
        .map_err(by_state)?
        .clone();
    let [command] = push.header.commands.as_slice() else {
        return Err(by_state(
            Refusal::denied("one-ref-at-a-time", "a push proposes one change")
                .expected("one ref, such as HEAD:refs/for/main")
                .received(&format!("{} refs", push.header.commands.len()))
                .next("push each change by itself"),
        ));
    };
    let command = command.clone();
    let (look, short) = rules::classify(&command);
    let short = short.to_owned();
    // First the commands alone, before a pack is accepted.
    let facts = push_facts(&state, pusher, repository, &record, &command, look, &short);
    let _not_yet = decide_push(app, &state, pusher, facts.clone(), &[])?;
    if !facts.for_review {
        return Err(by_state(propose_instead(&short, &command.name)));
    }
    let key = (repository.clone(), short.clone());
    let tip = state
        .branches
        .get(&key)
        .map(|branch| branch.tip.clone())
        .ok_or_else(|| by_state(branch_unknown(repository, &short)))?;
    let limits = PackLimits {
        pack_bytes: record.max_pack_bytes.min(PackLimits::default().pack_bytes),
        ..PackLimits::default()
    };
    // Each runs git and fills the disk, so they are bounded together as well.
    let _turn = tokio::time::timeout(PUSH_WAIT, PUSHES.acquire())
        .await
        .ok()
        .and_then(Result::ok)
        .ok_or_else(|| {
            by_state(
                Refusal::limit("pushes-busy", "too many pushes at once")
                    .expected(&format!("at most {PUSHES_MAX} being read together"))
                    .next("push again in a moment"),
            )
        })?;
    let quarantine =
        Quarantine::receive(view, std::slice::from_ref(&command), &mut push.pack, limits)
            .await
            .map_err(by_state)?;
    // Now the content. Until it is accepted it stands in quarantine, and goes with it.
    let content = content::read(&state, &quarantine, &key, &command.new, &tip)
        .await
        .map_err(by_state)?;
    let own = app
        .repository_policy(&state, repository, &content.base)
        .await
        .map_err(by_state)?;
    let facts = GitPush {
        paths_outside_scope: content.outside(pusher.scope.as_ref()).map_err(by_state)?,
        over_scope: content.over(pusher.scope.as_ref()).map_err(by_state)?,
        pack_bytes: quarantine.summary().bytes,
        commits_in_other_names: content::other_names(pusher.identity.as_ref(), &quarantine),
        ..facts
    };
    let (permit, decision) = decide_push(app, &state, pusher, facts, &own)?;
    if push.header.is_question() {
        pusher.run.inspect(|run| app.questions.count(*run));
        return Ok(would_be_accepted(&command));
    }
    let change = wanted_change(
        &state,
        pusher,
        repository,
        &short,
        push.header.option("change"),
    )
    .map_err(by_state)?;
    let mut party = party_of_push(&state, &pusher.actor.principal, pusher.run, change);
    party.0.insert(pusher.actor.principal.clone());
    party.0.extend(party_of_commits(&state, &content.commits).0);
    if pusher.run.is_none() {
        let named = content::agents_named(&state, quarantine.commits()).map_err(by_state)?;
        party.0.extend(named.0);
    }
    let diff = app
        .ledger
        .blobs()
        .put(&content.diff_bytes)
        .map_err(by_state)?;
    let body = ChangePushed {
        change,
        repository: repository.clone(),
        branch: short.clone(),
        base: content.base.clone(),
        head: command.new.clone(),
        tree: content.tree.clone(),
        manifest: content.manifest,
        diff,
        files: u64::try_from(content.diff.files.len()).unwrap_or(u64::MAX),
        lines: content.diff.line_count(),
        commits: content.commits,
        run: pusher.run,
        party,
        questions: pusher.run.map_or(0, |run| app.questions.of(run)),
        envelope: pusher.envelope.clone(),
        decision,
    };
    let recording = Recording::one(pusher.actor.clone(), body);
    let work = record_and_take_in(
        Arc::clone(app),
        permit,
        recording,
        quarantine,
        change,
        command.new.clone(),
    );
    // In a task of its own: a client that goes away must not leave an entry without its objects.
    let (id, number, names) = tokio::spawn(work)
        .await
        .map_err(|_| by_state(Refusal::internal("a push was cut off")))?
        .map_err(by_state)?;
    let name = names
        .into_iter()
        .next()
        .unwrap_or_else(|| command.name.clone());
    Ok(accepted(app, &command, &name, id, number))
}

/// Records a revision, and only then takes its objects in.
async fn record_and_take_in(
    app: Arc<App>,
    permit: Permit,
    recording: Recording,
    quarantine: Quarantine,
    change: Option<ChangeId>,
    head: GitOid,
) -> Result<(ChangeId, u64, Vec<String>), Refusal> {
    let recorded = app.ledger.record(permit, recording).await?;
    let index = recorded.index();
    let change = change.unwrap_or(ChangeId(index));
    // By its entry: the change may have got another revision since.
    let number = app
        .state()
        .changes
        .get(&change)
        .and_then(|change| {
            let mut revisions = change.revisions.iter();
            revisions.find(|revision| revision.entry == index)
        })
        .map_or(1, |revision| revision.number);
    let revision = RevisionRef {
        change,
        revision: number,
        head,
    };
    let names = quarantine.migrate(recorded, &[revision]).await?;
    Ok((change, number, names))
}

fn push_facts(
    state: &State,
    pusher: &Pusher,
    repository: &RepositoryId,
    record: &Repository,
    command: &RefCommand,
    look: FirstLook,
    short: &str,
) -> GitPush {
    let (update, for_review, reference) = match look {
        FirstLook::Settled(rules::UpdateKind::Propose) => {
            (UpdateKind::FastForward, true, format!("refs/heads/{short}"))
        }
        FirstLook::Settled(rules::UpdateKind::Create) => {
            (UpdateKind::Create, false, command.name.clone())
        }
        FirstLook::Settled(rules::UpdateKind::Delete) => {
            (UpdateKind::Delete, false, command.name.clone())
        }
        FirstLook::Settled(rules::UpdateKind::Tag) => {
            (UpdateKind::Tag, false, command.name.clone())
        }
        // Before the pack nobody knows whether history is kept, so the worse is assumed.
        FirstLook::Moves
        | FirstLook::Settled(
            rules::UpdateKind::Force | rules::UpdateKind::FastForward | rules::UpdateKind::Other,
        ) => (UpdateKind::Force, false, command.name.clone()),
    };
    GitPush {
        repository: repository.clone(),
        reference,
        task: pusher.task.clone(),
        in_task: pusher
            .task
            .as_ref()
            .is_some_and(|task| task.repositories.contains(repository)),
        update,
        protected: facts::is_protected(record, short),
        for_review,
        deploys_to: facts::deploys_to(state, repository, short),
        paths_outside_scope: BTreeSet::new(),
        over_scope: BTreeSet::new(),
        pack_bytes: 0,
        pack_limit_bytes: record.max_pack_bytes,
        commits_in_other_names: BTreeSet::new(),
        denials_so_far: pusher.denials,
    }
}

fn decide_push(
    app: &App,
    state: &State,
    pusher: &Pusher,
    facts: GitPush,
    own: &[PolicyFile],
) -> Result<(Permit, DecisionRecord), Denied> {
    let question = Question {
        actor: pusher.policy_actor.clone(),
        circumstances: pusher.circumstances.clone(),
        action: Action::GitPush(facts),
    };
    match app.decide(state, &question, own) {
        Verdict::Permit(permit, record) => Ok((permit, record)),
        Verdict::No(refusal, record, _) => Err((*refusal, Some(record))),
    }
}

/// The open change that gets a revision: the one that the push names, the task's, or the run's own.
fn wanted_change(
    state: &State,
    pusher: &Pusher,
    repository: &RepositoryId,
    branch: &str,
    named: Option<&str>,
) -> Result<Option<ChangeId>, Refusal> {
    if let Some(named) = named {
        let id: ChangeId = named.parse()?;
        let mine = state.changes.get(&id).is_some_and(|change| {
            change.party.0.contains(&pusher.actor.principal)
                || pusher.change == Some(id)
                || portcullis_flow::together::same_task(state, pusher.run, change)
        });
        if !mine {
            return Err(
                Refusal::denied("not-your-change", format!("{id} is somebody else's"))
                    .next("push without `-o change=…` to open a change of your own"),
            );
        }
        return Ok(Some(id));
    }
    let fits = |change: &&Arc<Change>| change.repository == *repository && change.branch == branch;
    Ok(state
        .changes
        .open()
        .filter(fits)
        .find(|change| {
            pusher.change == Some(change.id)
                || (pusher.run.is_some() && change.latest().run == pusher.run)
                || portcullis_flow::together::same_task(state, pusher.run, change)
        })
        .map(|change| change.id))
}

fn accepted(app: &App, command: &RefCommand, name: &str, id: ChangeId, number: u64) -> Report {
    let what = if number == 1 {
        "opened"
    } else {
        "got a new revision"
    };
    Report {
        unpack_failed: None,
        refs: vec![RefReport {
            name: command.name.clone(),
            result: RefResult::DoneAs {
                name: name.to_owned(),
                old: None,
                new: command.new.clone(),
            },
        }],
        lines: vec![
            String::new(),
            format!("portcullis: {id} {what} (revision {number}); checks and tests follow"),
            format!(
                "next: portcullis change show {id} --server {}",
                app.config.url()
            ),
        ],
    }
}

fn would_be_accepted(command: &RefCommand) -> Report {
    let words = "a dry run: nothing was changed; without it the push would be accepted";
    Report {
        unpack_failed: None,
        refs: vec![RefReport {
            name: command.name.clone(),
            result: RefResult::Refused("dry run".to_owned()),
        }],
        lines: vec![String::new(), format!("portcullis: {words}")],
    }
}
