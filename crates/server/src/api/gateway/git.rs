//! Git over smart HTTP: runs fetch what their task needs and propose changes; people propose by
//! signed pushes. A push is decided twice: on its commands before a pack is read, and on its
//! content while it stands in quarantine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use portcullis_checks::scope::{Violation, violations};
use portcullis_evidence::sshsig::{Attestation, UnverifiedSshSignature};
use portcullis_flow::change::{ChangeStatus, party_of_push};
use portcullis_flow::{Command as Recording, State};
use portcullis_gateway::git::body::BodyReader;
use portcullis_gateway::git::commit::Ident;
use portcullis_gateway::git::fetch::{self, ViewRef};
use portcullis_gateway::git::push::{PushCertificate, RefCommand};
use portcullis_gateway::git::quarantine::RevisionRef;
use portcullis_gateway::git::receive::{self, PushRequest};
use portcullis_gateway::git::report::{RefReport, RefResult, Report};
use portcullis_gateway::git::rules::{self, FirstLook};
use portcullis_gateway::git::{FetchView, PackLimits, Quarantine};
use portcullis_model::event::{CallObserved, ChangePushed, LeaseKind};
use portcullis_model::manifest::Repository;
use portcullis_model::statement::{Envelope, EnvelopeSignature};
use portcullis_model::{
    Actor, ChangeId, GitOid, HumanId, Principal, Recorder as _, Refusal, RepositoryId, RunId,
    Timestamp,
};
use portcullis_policy::action::{Action, GitFetch, GitPush, UpdateKind};
use portcullis_policy::request::Circumstances;
use portcullis_policy::{PolicyFile, Request as Question};

use super::super::{Problem, one_header};
use super::{Caller, active, authenticate};
use crate::app::{App, Verdict, now};
use crate::facts;
use crate::mirrors::Mirror;

/// The payload type of a signed push's certificate.
pub(super) const CERTIFICATE_TYPE: &str = "application/vnd.git.push-certificate";
/// How long a nonce for a signed push counts, in milliseconds (10 minutes): a hardware key may wait
/// for its owner.
const NONCE_LIFE_MS: u64 = 600_000;
/// Most nonces remembered at once: more people than push in ten minutes.
const NONCES_MAX: usize = 10_000;

/// Which part of the protocol a path names.
enum Endpoint {
    AdvertiseFetch,
    AdvertisePush,
    Fetch,
    Push,
}

struct Target {
    repository: RepositoryId,
    endpoint: Endpoint,
}

fn target(path: &str, request: &Request) -> Result<Target, Refusal> {
    let unknown = || {
        Refusal::not_found("git path", path)
            .expected("<repository>.git/info/refs, git-upload-pack or git-receive-pack")
    };
    let (name, rest) = path.split_once(".git/").ok_or_else(unknown)?;
    let service = request.uri().query().unwrap_or_default();
    let endpoint = match (request.method(), rest, service) {
        (&Method::GET, "info/refs", "service=git-upload-pack") => Endpoint::AdvertiseFetch,
        (&Method::GET, "info/refs", "service=git-receive-pack") => Endpoint::AdvertisePush,
        (&Method::POST, "git-upload-pack", _) => Endpoint::Fetch,
        (&Method::POST, "git-receive-pack", _) => Endpoint::Push,
        _ => return Err(unknown()),
    };
    Ok(Target {
        repository: name.parse()?,
        endpoint,
    })
}

/// A run's git request.
pub(super) async fn run_request(
    app: &Arc<App>,
    path: &str,
    request: Request,
) -> Result<Response, Problem> {
    let target = target(path, &request)?;
    let lease = LeaseKind::Git(target.repository.clone());
    let caller = authenticate(app, &request)?;
    let caller = active(app, caller, &lease).await?;
    if !caller.run.leases.contains(&lease) {
        let refusal = Refusal::denied(
            "repository-not-in-task",
            format!("the task does not name repository {}", target.repository),
        )
        .expected("a repository of the task")
        .received(target.repository.as_str())
        .next("work in the task's repositories; ask a person for a task that names this one");
        deny_run(app, &caller, "git", &target.repository, &refusal).await;
        return Err(refusal.into());
    }
    let mirror = app.mirrors.get(&caller.state, &target.repository).await?;
    let view = run_view(&caller, &mirror, &target.repository).await?;
    match target.endpoint {
        Endpoint::AdvertiseFetch => {
            // An advertisement gives out names only; the fetch itself is recorded.
            let _names_only = decide_fetch(app, &caller, &target.repository).await?;
            let protocol = one_header(request.headers(), "git-protocol")?.map(str::to_owned);
            let bytes = view.advertise(protocol.as_deref()).await?;
            Ok(answer(
                "application/x-git-upload-pack-advertisement",
                Body::from(bytes),
            ))
        }
        Endpoint::AdvertisePush => {
            let bytes = receive::advertise(mirror.repository.format(), &view.refs()?, None);
            Ok(answer(
                "application/x-git-receive-pack-advertisement",
                Body::from(bytes),
            ))
        }
        Endpoint::Fetch => fetch_run(app, &caller, &target.repository, &view, request).await,
        Endpoint::Push => push_run(app, &caller, &target.repository, &mirror, &view, request).await,
    }
}

/// A person's git request: a signed push. People fetch from upstream itself.
pub(super) async fn person_request(
    app: &Arc<App>,
    path: &str,
    request: Request,
) -> Result<Response, Problem> {
    let target = target(path, &request)?;
    let state = app.state();
    let mirror = app.mirrors.get(&state, &target.repository).await?;
    match target.endpoint {
        Endpoint::AdvertiseFetch | Endpoint::Fetch => {
            let upstream = &state.inventory.repository(&target.repository)?.upstream;
            Err(Refusal::denied("fetch-elsewhere", "people fetch from the repository itself")
                .next(format!("git remote set-url origin {upstream}; git remote set-url --push origin {}/git/{}.git", app.config.url(), target.repository))
                .into())
        }
        Endpoint::AdvertisePush => {
            let refs = branch_refs(&state, &target.repository)?;
            let nonce = NONCES.make(now())?;
            let bytes = receive::advertise(mirror.repository.format(), &refs, Some(&nonce));
            Ok(answer(
                "application/x-git-receive-pack-advertisement",
                Body::from(bytes),
            ))
        }
        Endpoint::Push => push_person(app, &state, &target.repository, &mirror, request).await,
    }
}

fn answer(content_type: &'static str, body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, fetch::CACHE_CONTROL),
    ];
    (StatusCode::OK, headers, body).into_response()
}

fn branch_refs(state: &State, repository: &RepositoryId) -> Result<Vec<ViewRef>, Refusal> {
    state
        .branches
        .iter()
        .filter(|((id, _), _)| id == repository)
        .map(|((_, name), branch)| ViewRef::branch(name, branch.tip.clone()))
        .collect()
}

/// What a run sees: the branch of its task where it stands now, its base, and the change that it
/// goes on with.
async fn run_view(
    caller: &Caller,
    mirror: &Mirror,
    repository: &RepositoryId,
) -> Result<FetchView, Refusal> {
    let state = &caller.state;
    let target = state
        .tasks
        .get(&caller.run.task)
        .and_then(|task| task.payload.target(repository).cloned())
        .ok_or_else(|| Refusal::denied("not-lent", "this repository was not lent to the run"))?;
    let key = (repository.clone(), target.branch.clone());
    let tip = state
        .branches
        .get(&key)
        .map_or(&target.base, |branch| &branch.tip);
    let mut refs = vec![
        ViewRef::branch(&target.branch, tip.clone())?,
        ViewRef {
            name: "refs/portcullis/base".to_owned(),
            oid: target.base.clone(),
        },
    ];
    let own = state.changes.values().filter(|change| {
        change.repository == *repository
            && change.status == ChangeStatus::Open
            && (change.latest().run == Some(caller.run.id)
                || state
                    .tasks
                    .get(&caller.run.task)
                    .and_then(|task| task.payload.change)
                    == Some(change.id))
    });
    for change in own {
        let latest = change.latest();
        // A revision whose objects are not here yet is not shown; the push is repeated.
        if mirror
            .repository
            .revision(change.id, latest.number)
            .await?
            .is_some()
        {
            refs.push(ViewRef {
                name: format!("refs/portcullis/{}", change.id),
                oid: latest.pushed.head.clone(),
            });
        }
    }
    FetchView::create(
        &mirror.repository,
        &caller.run.id.to_string(),
        &target.branch,
        &refs,
    )
    .await
}

async fn deny_run(
    app: &App,
    caller: &Caller,
    action: &str,
    repository: &RepositoryId,
    refusal: &Refusal,
) {
    let decision = app.state_decision(&caller.state);
    let resource = format!("repository {repository}");
    app.record_denial(
        caller.actor(),
        Some(caller.run.id),
        action,
        resource,
        refusal,
        decision,
    )
    .await;
}

fn fetch_question(
    app: &App,
    caller: &Caller,
    repository: &RepositoryId,
) -> Result<Question, Refusal> {
    let (state, run) = (&caller.state, &caller.run);
    Ok(Question {
        actor: facts::run_actor(state, run, now()),
        circumstances: facts::circumstances_of_run(
            state,
            run,
            Some(repository),
            caller.halted(app, Some(repository)),
            now(),
        )?,
        action: Action::GitFetch(GitFetch {
            repository: repository.clone(),
            task: facts::task(state, run.task, Some(run), now()),
            in_task: run.leases.contains(&LeaseKind::Git(repository.clone())),
        }),
    })
}

async fn decide_fetch(
    app: &App,
    caller: &Caller,
    repository: &RepositoryId,
) -> Result<portcullis_policy::Permit, Refusal> {
    let question = fetch_question(app, caller, repository)?;
    match app.decide(&caller.state, &question, &[]) {
        Verdict::Permit(permit, _) => Ok(permit),
        Verdict::No(refusal, decision, _) => {
            let resource = format!("repository {repository}");
            app.record_denial(
                caller.actor(),
                Some(caller.run.id),
                "git.fetch",
                resource,
                &refusal,
                decision,
            )
            .await;
            Err(*refusal)
        }
    }
}

async fn fetch_run(
    app: &Arc<App>,
    caller: &Caller,
    repository: &RepositoryId,
    view: &FetchView,
    request: Request,
) -> Result<Response, Problem> {
    let permit = decide_fetch(app, caller, repository).await?;
    let observed = CallObserved {
        run: caller.run.id,
        lease: LeaseKind::Git(repository.clone()),
        model_asked: None,
        model_served: None,
        status: 200,
        bytes: (0, 0),
        request: None,
        answer: None,
    };
    let recorded = app
        .ledger
        .record(permit, Recording::one(caller.actor(), observed))
        .await?;
    let protocol = one_header(request.headers(), "git-protocol")?.map(str::to_owned);
    let encoding = one_header(request.headers(), "content-encoding")?.map(str::to_owned);
    let body = BodyReader::new(
        request.into_body(),
        encoding.as_deref(),
        fetch::FETCH_REQUEST_MAX_BYTES,
    )?;
    let served = view.serve(recorded, protocol.as_deref(), body)?;
    Ok(answer(fetch::RESULT_TYPE, Body::new(served.body)))
}

/// Who pushes, and what that allows.
struct Pusher {
    actor: Actor,
    run: Option<RunId>,
    policy_actor: portcullis_policy::Actor,
    circumstances: Circumstances,
    task: Option<portcullis_policy::request::TaskFacts>,
    identity: Option<Ident>,
    scope: Option<portcullis_model::Scope>,
    change: Option<ChangeId>,
    denials: u64,
    envelope: Option<Envelope>,
}

async fn push_run(
    app: &Arc<App>,
    caller: &Caller,
    repository: &RepositoryId,
    mirror: &Mirror,
    view: &FetchView,
    request: Request,
) -> Result<Response, Problem> {
    let (state, run) = (&caller.state, &caller.run);
    let task = state.tasks.get(&run.task);
    let (name, email) = run.commit_identity(&state.genesis()?.trust_domain);
    let pusher = Pusher {
        actor: caller.actor(),
        run: Some(run.id),
        policy_actor: facts::run_actor(state, run, now()),
        circumstances: facts::circumstances_of_run(
            state,
            run,
            Some(repository),
            caller.halted(app, Some(repository)),
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
    };
    let push = read_push(mirror, request).await?;
    push_any(app, pusher, repository, view, push).await
}

async fn push_person(
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
    let (human, actor, envelope) = match certificate(state, push.header.certificate.as_ref()) {
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

async fn read_push(mirror: &Mirror, request: Request) -> Result<Incoming, Refusal> {
    let encoding = one_header(request.headers(), "content-encoding")?.map(str::to_owned);
    let limit = PackLimits::default()
        .pack_bytes
        .saturating_add(16 * 1024 * 1024);
    let body = BodyReader::new(request.into_body(), encoding.as_deref(), limit)?;
    PushRequest::read(mirror.repository.format(), body).await
}

/// Checks a signed push: a person's SSH key, over exactly these commands, for a nonce of ours.
fn certificate(
    state: &State,
    certificate: Option<&PushCertificate>,
) -> Result<(HumanId, Actor, Envelope), Refusal> {
    let certificate = certificate.ok_or_else(|| {
        Refusal::denied("unsigned-push", "people's pushes are signed")
            .expected("a signed push")
            .next("git config gpg.format ssh; git config user.signingkey ~/.ssh/id_ed25519.pub; git push --signed")
    })?;
    NONCES.take(certificate.nonce.as_deref().unwrap_or_default(), now())?;
    let signature = UnverifiedSshSignature::from_armored(certificate.signature.as_bytes())?;
    let fingerprint = signature.claimed_key().fingerprint().to_owned();
    let (human, key) = state.inventory.holder(&fingerprint).ok_or_else(|| {
        Refusal::denied(
            "key-unknown",
            "the push is signed by a key that no active person holds",
        )
        .received(&fingerprint)
        .next("an administrator adds keys with `portcullis human add`")
    })?;
    let proof = signature.verify(key, Attestation::None, "git", &certificate.payload)?;
    let actor = Actor::signed(
        Principal::Human(human.clone()),
        fingerprint.clone(),
        proof.class,
    );
    let base64 = base64::engine::general_purpose::STANDARD;
    let envelope = Envelope {
        payload_type: CERTIFICATE_TYPE.to_owned(),
        payload: base64.encode(&certificate.payload),
        signatures: vec![EnvelopeSignature {
            keyid: fingerprint,
            sig: base64.encode(signature.to_binary()),
        }],
    };
    Ok((human.clone(), actor, envelope))
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

type Denied = (Refusal, Option<portcullis_model::event::DecisionRecord>);

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
        return Err(by_state(
            Refusal::denied(
                "propose-instead",
                "branches move by landing, not by pushing",
            )
            .expected(&format!("refs/for/{short}"))
            .received(&command.name)
            .next(format!("git push origin HEAD:refs/for/{short}")),
        ));
    }
    let key = (repository.clone(), short.clone());
    let tip = state
        .branches
        .get(&key)
        .map(|branch| branch.tip.clone())
        .ok_or_else(|| {
            by_state(
                Refusal::denied(
                    "branch-unknown",
                    format!("{repository} has no branch {short}"),
                )
                .expected("a branch that exists upstream")
                .next("propose the change for the branch that the task names"),
            )
        })?;
    let limits = PackLimits {
        pack_bytes: record.max_pack_bytes.min(PackLimits::default().pack_bytes),
        ..PackLimits::default()
    };
    let quarantine =
        Quarantine::receive(view, std::slice::from_ref(&command), &mut push.pack, limits)
            .await
            .map_err(by_state)?;
    // Now the content. Until it is accepted it stands in quarantine, and goes with it.
    let content = read_content(&state, &quarantine, &key, &command.new, &tip)
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
        commits_in_other_names: other_names(pusher, &quarantine),
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
    let recorded = match app
        .ledger
        .record(permit, Recording::one(pusher.actor.clone(), body))
        .await
    {
        Ok(recorded) => recorded,
        Err(refusal) => return Err(by_state(refusal)),
    };
    let after = app.state();
    let id = change.unwrap_or(ChangeId(recorded.index()));
    let number = after
        .changes
        .get(&id)
        .map_or(1, |change| change.latest().number);
    let revision = RevisionRef {
        change: id,
        revision: number,
        head: command.new.clone(),
    };
    let names = quarantine
        .migrate(recorded, &[revision])
        .await
        .map_err(by_state)?;
    let name = names
        .into_iter()
        .next()
        .unwrap_or_else(|| command.name.clone());
    Ok(accepted(app, &command, &name, id, number))
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
) -> Result<
    (
        portcullis_policy::Permit,
        portcullis_model::event::DecisionRecord,
    ),
    Denied,
> {
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

/// What a push holds, read from its quarantine.
struct Content {
    base: GitOid,
    tree: GitOid,
    manifest: portcullis_model::Digest,
    commits: Vec<GitOid>,
    diff_bytes: Vec<u8>,
    diff: portcullis_checks::diff::Diff,
}

async fn read_content(
    state: &State,
    quarantine: &Quarantine,
    key: &(RepositoryId, String),
    head: &GitOid,
    tip: &GitOid,
) -> Result<Content, Refusal> {
    let objects = quarantine.objects();
    let base = objects.merge_base(head, tip).await?;
    let branch = state.branches.get(key);
    let base = base
        .filter(|base| branch.is_some_and(|branch| branch.stood_at(base)))
        .ok_or_else(|| {
            Refusal::denied("base-unknown", "the change does not stand on its branch")
                .expected(&format!("commits on top of {}", tip.short()))
                .received(head.as_str())
                .next("git fetch origin; git rebase origin/<branch>; push again")
        })?;
    if base == *head {
        return Err(Refusal::denied(
            "nothing-new",
            "the push holds nothing that the branch lacks",
        )
        .expected("at least one commit on top of the branch")
        .next("commit your work, then push again"));
    }
    let commits: Vec<GitOid> = objects
        .commits_between(&base, head, PackLimits::default().commits)
        .await?;
    let diff_bytes = objects.diff(&base, head).await?;
    Ok(Content {
        tree: objects.commit_info(head).await?.tree,
        manifest: objects.manifest(&base, head).await?,
        diff: portcullis_checks::diff::parse(&diff_bytes)?,
        base,
        commits,
        diff_bytes,
    })
}

impl Content {
    fn violations(
        &self,
        scope: Option<&portcullis_model::Scope>,
    ) -> Result<Vec<Violation>, Refusal> {
        match scope {
            Some(scope) => violations(&self.diff, scope),
            None => Ok(Vec::new()),
        }
    }

    fn outside(
        &self,
        scope: Option<&portcullis_model::Scope>,
    ) -> Result<BTreeSet<String>, Refusal> {
        Ok(self
            .violations(scope)?
            .iter()
            .filter_map(|violation| match violation {
                Violation::Outside { path, .. } | Violation::Denied { path, .. } => {
                    Some(path.to_string())
                }
                Violation::Operation { .. }
                | Violation::TooManyFiles { .. }
                | Violation::TooManyLines { .. } => None,
            })
            .collect())
    }

    fn over(&self, scope: Option<&portcullis_model::Scope>) -> Result<BTreeSet<String>, Refusal> {
        Ok(self
            .violations(scope)?
            .iter()
            .filter_map(|violation| match violation {
                Violation::Outside { .. } | Violation::Denied { .. } => None,
                Violation::Operation { path, operation } => Some(format!("{operation} {path}")),
                Violation::TooManyFiles { files, max } => Some(format!("{files} files of {max}")),
                Violation::TooManyLines { lines, max } => Some(format!("{lines} lines of {max}")),
            })
            .collect())
    }
}

/// Commits of a run that name somebody else as author or committer.
fn other_names(pusher: &Pusher, quarantine: &Quarantine) -> BTreeSet<String> {
    let Some(identity) = &pusher.identity else {
        return BTreeSet::new();
    };
    rules::names_outside(identity, quarantine.commits())
        .into_iter()
        .map(|foreign| format!("{} {}", foreign.commit.short(), foreign.named))
        .collect()
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
            change.party.0.contains(&pusher.actor.principal) || pusher.change == Some(id)
        });
        if !mine {
            return Err(
                Refusal::denied("not-your-change", format!("{id} is somebody else's"))
                    .next("push without `-o change=…` to open a change of your own"),
            );
        }
        return Ok(Some(id));
    }
    let fits = |change: &&Arc<portcullis_flow::change::Change>| {
        change.status == ChangeStatus::Open
            && change.repository == *repository
            && change.branch == branch
    };
    Ok(state
        .changes
        .values()
        .filter(fits)
        .find(|change| {
            pusher.change == Some(change.id)
                || (pusher.run.is_some() && change.latest().run == pusher.run)
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

/// Nonces that signed pushes answer. They live in memory: a restart makes a client ask again.
static NONCES: Nonces = Nonces(Mutex::new(BTreeMap::new()));

struct Nonces(Mutex<BTreeMap<String, Timestamp>>);

impl Nonces {
    fn make(&self, now: Timestamp) -> Result<String, Refusal> {
        let mut bytes = [0_u8; 16];
        aws_lc_rs::rand::fill(&mut bytes)
            .map_err(|_| Refusal::unavailable("no-randomness", "the system gives no randomness"))?;
        let nonce = portcullis_model::digest::encode_hex(&bytes);
        let mut known = self
            .0
            .lock()
            .map_err(|_| Refusal::internal("the nonces are lost; start again"))?;
        known.retain(|_, until| *until > now);
        if known.len() >= NONCES_MAX {
            return Err(
                Refusal::limit("too-many-pushes", "too many pushes begin at once")
                    .next("try again in a few minutes"),
            );
        }
        known.insert(nonce.clone(), now.plus_ms(NONCE_LIFE_MS));
        Ok(nonce)
    }

    fn take(&self, nonce: &str, now: Timestamp) -> Result<(), Refusal> {
        let taken = self.0.lock().ok().and_then(|mut known| known.remove(nonce));
        match taken {
            Some(until) if until > now => Ok(()),
            _ => Err(
                Refusal::denied("push-nonce", "the signed push answers no question of ours")
                    .expected("the nonce that was just given, once")
                    .next("push again"),
            ),
        }
    }
}
