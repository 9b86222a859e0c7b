//! One landed change: its task, runs, revisions, checks, tests, approvals, landing.

use std::collections::BTreeSet;

use portcullis_model::event::{
    Body, ChangePushed, CheckVerdict, ChecksCompleted, Effect, LandingPrepared, RunStarted,
    TaskAccepted,
};
use portcullis_model::manifest::{HostClass, Sensitivity, ServiceRole};
use portcullis_model::refusal::visible;
use portcullis_model::statement::{ApprovalSubject, Command, SignedCommand};
use portcullis_model::{
    ChangeId, Containment, Digest, Event, GitOid, HumanId, KeyClass, LedgerIndex, Mode, Principal,
    Refusal, RepositoryId, RequestId, RunId, TaskId, TaskText, canonical,
};

use super::approvals::{Answer, Asked};
use super::book::{Book, Landing};
use super::tested::{retested, tests};
use super::{LinkName, Links, diff, together};

/// What a change's links showed.
#[derive(Clone, Debug, Default)]
pub(super) struct Examined {
    pub(super) id: Option<ChangeId>,
    pub(super) by_agent: bool,
    pub(super) agents: BTreeSet<portcullis_model::AgentId>,
    pub(super) author: Option<HumanId>,
    pub(super) enforced: bool,
    pub(super) tested: bool,
    pub(super) answer: Answer,
    pub(super) containment: BTreeSet<Containment>,
    pub(super) party: BTreeSet<Principal>,
    /// Parents that are outside what was pushed: older history, by the log's word.
    pub(super) older_parents: usize,
    /// Whether a policy let it land without a human.
    pub(super) without_human: bool,
    /// Whether it landed on a later base than the one that people saw.
    pub(super) carried: bool,
    /// Commits that landed below its newest one: no tests ran on them.
    pub(super) inner_commits: usize,
    /// Whether its tests there ran on what stood behind it, and not on what landed of it alone.
    pub(super) tested_in_batch: bool,
}

/// What a landing says.
pub(super) struct Land<'a> {
    pub(super) change: ChangeId,
    pub(super) revision: u64,
    pub(super) repository: &'a RepositoryId,
    pub(super) branch: &'a str,
    pub(super) old: &'a GitOid,
    pub(super) new: &'a GitOid,
    pub(super) tree: &'a GitOid,
    pub(super) request: Option<RequestId>,
    pub(super) prepared: Option<LedgerIndex>,
    pub(super) together: Option<TaskId>,
}

impl<'a> Landing<'a> {
    pub(super) fn land(&self) -> Result<Land<'a>, Refusal> {
        match &self.body.effect {
            Effect::Land {
                change,
                revision,
                repository,
                branch,
                old,
                new,
                tree,
                request,
                prepared,
                together,
            } => Ok(Land {
                change: *change,
                revision: *revision,
                repository,
                branch,
                old,
                new,
                tree,
                request: *request,
                prepared: *prepared,
                together: *together,
            }),
            Effect::TakeBack { .. }
            | Effect::StartRelease { .. }
            | Effect::SetTraffic { .. }
            | Effect::StopRelease { .. } => Err(Refusal::internal("not a landing")),
        }
    }
}

pub(super) type Push<'a> = (&'a Event, &'a ChangePushed);

/// Examines a landed change, and says of each link whether it holds.
pub(super) fn examine(book: &Book<'_>, links: &mut Links, landing: Landing<'_>) -> Examined {
    let mut facts = Examined::default();
    let land = match landing.land() {
        Ok(land) => land,
        Err(refusal) => {
            links.check(LinkName::Landing, Some(landing.intent.index), Err(refusal));
            return facts;
        }
    };
    facts.id = Some(land.change);
    let pushes = pushes_of(book, &land, landing.intent.index);
    let runs: BTreeSet<RunId> = pushes.iter().filter_map(|(_, body)| body.run).collect();
    for run in &runs {
        tasks_and_runs(book, links, *run, &land, &mut facts);
    }
    if runs.is_empty() {
        let own = format!("{} is people's own work: there is no task", land.change);
        links.check(LinkName::Task, None, Ok(own));
        let own = format!("{} is people's own work: there is no run", land.change);
        links.check(LinkName::Run, None, Ok(own));
    }
    let revision = revision(book, &land, &pushes, &mut facts);
    let pushed = revision.as_ref().ok().map(|(push, _)| *push);
    let entry = pushed.map_or(land.change.0, |(event, _)| event.index);
    links.check(
        LinkName::Revision,
        Some(entry),
        revision.map(|(_, says)| says),
    );
    let before = landing.intent.index;
    let checked = checks(book, &land, before);
    let checks_report = checked.as_ref().ok().map(|(_, report, _)| *report);
    links.check(
        LinkName::Checks,
        checked.as_ref().ok().map(|(index, ..)| *index),
        checked.map(|(_, _, says)| says),
    );
    let tested = tests(book, &land, before, &mut facts);
    let tests_report = tested.as_ref().ok().map(|(_, report, _)| *report);
    let again = retested(book, &land, before, &mut facts);
    links.check(
        LinkName::Tests,
        tested.as_ref().ok().map(|(index, ..)| *index),
        tested.and_then(|(_, _, says)| {
            Ok(match again? {
                Some(again) => format!("{says}; {again}"),
                None => says,
            })
        }),
    );
    let approved = approved(
        book,
        &land,
        landing,
        pushed,
        (checks_report, tests_report),
        &mut facts,
    );
    links.check(
        LinkName::Approvals,
        land.request.map(|request| request.0),
        approved,
    );
    let landed = landed(book, &land, landing, &pushes, &mut facts);
    links.check(LinkName::Landing, Some(landing.concluded.index), landed);
    facts
}

pub(super) fn pushes_of<'a>(
    book: &'a Book<'_>,
    land: &Land<'_>,
    before: LedgerIndex,
) -> Vec<Push<'a>> {
    book.events()
        .filter(|event| event.index < before)
        .filter_map(|event| match &event.body {
            Body::ChangePushed(body)
                if body.change == Some(land.change)
                    || (body.change.is_none() && event.index == land.change.0) =>
            {
                Some((event, body))
            }
            _ => None,
        })
        .collect()
}

fn tasks_and_runs(
    book: &Book<'_>,
    links: &mut Links,
    run: RunId,
    land: &Land<'_>,
    facts: &mut Examined,
) {
    let started = book.sound(run.0).and_then(|event| match &event.body {
        Body::RunStarted(body) => Ok((event, body)),
        other => Err(wrong_entry(run.0, "run.started", other)),
    });
    let (event, body) = match started {
        Ok(started) => started,
        Err(refusal) => {
            links.check(LinkName::Run, Some(run.0), Err(refusal));
            return;
        }
    };
    let task = book
        .events()
        .filter(|event| event.index < run.0)
        .find_map(|event| match &event.body {
            Body::TaskAccepted(task) if task.task == body.task => Some((event, task)),
            _ => None,
        })
        .ok_or_else(|| {
            Refusal::denied(
                "task-missing",
                format!("the task of {run} is not in the bundle"),
            )
            .received(&body.task.to_string())
        })
        .and_then(|(event, task)| book.sound(event.index).map(|_| (event, task)));
    let says = task
        .clone()
        .and_then(|(event, task)| task_says(book, event, task));
    let entry = task.as_ref().ok().map(|(event, _)| event.index);
    links.check(LinkName::Task, entry, says);
    let says = task.and_then(|(_, task)| run_says(book, event, body, task, land, facts));
    links.check(LinkName::Run, Some(run.0), says);
}

/// Signature, window, rights, nonce and id were audited; the text is bound by its digest.
fn task_says(book: &Book<'_>, event: &Event, task: &TaskAccepted) -> Result<String, Refusal> {
    let payload = &task.payload;
    let title = match book.blob_if_there(&payload.text)? {
        None => "whose text is not in the bundle".to_owned(),
        Some(bytes) => {
            let text: TaskText = canonical::from_slice("task text", bytes)?;
            let title: String = text.title.chars().flat_map(visible).collect();
            format!("\"{title}\"")
        }
    };
    let class = event.actor.key_class.unwrap_or(KeyClass::Software);
    Ok(format!(
        "{} {title} was signed by {} with a {class} key, for agent {}",
        task.task.short(),
        payload.signer,
        payload.agent
    ))
}

fn run_says(
    book: &Book<'_>,
    event: &Event,
    body: &RunStarted,
    accepted: &TaskAccepted,
    land: &Land<'_>,
    facts: &mut Examined,
) -> Result<String, Refusal> {
    let task = &accepted.payload;
    let registry = book.registry_at(event.index)?;
    let host = registry.host(&body.host, event.time)?;
    let run = RunId(event.index);
    let refuse = |code: &str, message: String| Err(Refusal::denied(code, message));
    if event.actor.principal != Principal::Host(body.host.clone()) || body.agent != task.agent {
        return refuse(
            "wrong-host",
            format!("{run} was not started by its host, or not for the task's agent"),
        );
    }
    registry.agent(&body.agent, event.time)?;
    if event.time < task.not_before || event.time >= task.expires {
        return refuse(
            "task-untimely",
            format!("{run} began outside its task's window"),
        );
    }
    if task.target(land.repository).is_none() {
        return refuse(
            "target-missing",
            format!("the task of {run} does not name {}", land.repository),
        );
    }
    if !body.gaps.is_subset(&task.allowed_gaps) {
        return refuse("protection-missing", format!("{run} lacked protections"));
    }
    if let Some(source) = &task.source {
        let command = SignedCommand::read(&body.envelope)?.command;
        if !matches!(&command, Command::StartRun { source: Some(read), .. } if *read == source.digest)
        {
            return refuse(
                "source-changed",
                format!("{run} did not begin from the ticket's signed text"),
            );
        }
    }
    let containment = match host.class {
        HostClass::Managed => Containment::Contained,
        HostClass::SelfRun => Containment::ContainedClaimed,
    };
    if event.containment != Some(containment) || containment < task.containment {
        return refuse(
            "containment-too-weak",
            format!("{run} does not have the containment that its host gives or its task demands"),
        );
    }
    facts.containment.insert(containment);
    let claim = match containment {
        Containment::ContainedClaimed => "contained by the host's own claim",
        Containment::Contained => "contained on a managed host",
        Containment::Bound | Containment::Observed => "not contained",
    };
    Ok(format!(
        "{run} of {} was started by host {} for exactly this task, {claim}",
        body.agent, body.host
    ))
}

/// The revision that landed is the newest, its party complete, its commit the one with that tree.
fn revision<'a>(
    book: &'a Book<'_>,
    land: &Land<'_>,
    pushes: &[Push<'a>],
    facts: &mut Examined,
) -> Result<(Push<'a>, String), Refusal> {
    let missing = |message: String| Refusal::denied("revision-mismatch", message);
    let count = u64::try_from(pushes.len()).unwrap_or(u64::MAX);
    let opened = pushes
        .first()
        .is_some_and(|(event, body)| event.index == land.change.0 && body.change.is_none());
    let (event, body) = *pushes
        .last()
        .filter(|_| opened && count == land.revision)
        .ok_or_else(|| {
            missing(format!(
                "what landed is not the newest revision of {}",
                land.change
            ))
            .expected(&format!(
                "{count} revisions from the change's first push on"
            ))
            .received(&format!("revision {}", land.revision))
        })?;
    for (event, body) in pushes {
        book.sound(event.index)?;
        facts.party.extend(hands(book, event, body)?);
    }
    facts.party.extend(body.party.0.iter().cloned());
    for (event, body) in pushes {
        facts.by_agent |= event.actor.principal.kind() == portcullis_model::Kind::Agent;
        for member in hands(book, event, body)? {
            if let Principal::Agent(agent, _) = member {
                facts.agents.insert(agent);
            }
        }
    }
    facts.by_agent |= facts
        .party
        .iter()
        .any(|member| member.kind() == portcullis_model::Kind::Agent);
    facts.author = event.actor.principal.human().cloned();
    if !facts.party.is_subset(&body.party.0) {
        return Err(Refusal::denied(
            "party-incomplete",
            format!("somebody who had a hand in {} is not named", land.change),
        )
        .expected(&format!("{:?}", facts.party))
        .received(&format!("{:?}", body.party.0)));
    }
    let ready = prepared(book, land, body)?;
    let (base, head, tree) = match ready {
        None => (&body.base, &body.head, &body.tree),
        Some(made) => (&made.base, &made.head, &made.tree),
    };
    if body.repository != *land.repository
        || body.branch != land.branch
        || base != land.old
        || head != land.new
        || tree != land.tree
    {
        return Err(missing(format!(
            "what landed is not revision {} of {}",
            land.revision, land.change
        ))
        .expected(&format!("{} on {}", body.head, body.base))
        .received(&format!("{} on {}", land.new, land.old)));
    }
    let pushed = Walk {
        base: &body.base,
        head: &body.head,
        tree: &body.tree,
        listed: &body.commits,
    };
    commits(book, &pushed, None, facts)?;
    facts.inner_commits = body.commits.len().saturating_sub(1);
    let mut says = format!(
        "revision {} of {}: commits ({}) from {} to {}, tree {}, by {}",
        land.revision,
        land.change,
        body.commits.len(),
        body.base.short(),
        body.head.short(),
        body.tree.short(),
        event.actor.principal
    );
    if let Some(made) = ready {
        let landed = Walk {
            base: &made.base,
            head: &made.head,
            tree: &made.tree,
            listed: &made.commits,
        };
        commits(book, &landed, Some(&body.base), facts)?;
        facts.inner_commits = made.commits.len().saturating_sub(1);
        facts.carried = made.base != body.base;
        says.push_str(&format!(
            "; landed as {} on {}, with the same diff",
            made.head.short(),
            made.base.short()
        ));
        if facts.carried {
            let paths = diff::same(book, (&body.base, &body.head), (&made.base, &made.head))?;
            says.push_str(&format!(" by its trees ({paths} paths)"));
        }
    }
    Ok(((event, body), says))
}

/// What the server made ready of a revision, which must be of exactly its diff.
fn prepared<'a>(
    book: &'a Book<'_>,
    land: &Land<'_>,
    pushed: &ChangePushed,
) -> Result<Option<&'a LandingPrepared>, Refusal> {
    let Some(entry) = land.prepared else {
        return Ok(None);
    };
    let event = book.sound(entry)?;
    require_control(book, event)?;
    let Body::LandingPrepared(made) = &event.body else {
        return Err(wrong_entry(entry, "landing.prepared", &event.body));
    };
    let same_tree = made.base != pushed.base || made.tree == pushed.tree;
    if made.change == land.change
        && made.revision == land.revision
        && made.manifest == pushed.manifest
        && same_tree
    {
        return Ok(Some(made));
    }
    Err(Refusal::denied(
        "not-the-same-diff",
        format!(
            "what entry {entry} made ready is not the diff of revision {} of {}",
            land.revision, land.change
        ),
    )
    .expected(&pushed.manifest.to_string())
    .received(&made.manifest.to_string()))
}

/// Commits that a log entry says lead from one to another.
struct Walk<'a> {
    base: &'a GitOid,
    head: &'a GitOid,
    tree: &'a GitOid,
    listed: &'a [GitOid],
}

/// Everyone who had a hand in one push, as the log and the registry show it.
fn hands(
    book: &Book<'_>,
    event: &Event,
    body: &ChangePushed,
) -> Result<BTreeSet<Principal>, Refusal> {
    let mut hands = BTreeSet::from([event.actor.principal.clone()]);
    let wrong = |message: String| Refusal::denied("wrong-pusher", message);
    match (&event.actor.principal, body.run) {
        (Principal::Agent(agent, Some(by)), Some(run)) if *by == run => {
            let started = book.sound(run.0)?;
            let Body::RunStarted(started) = &started.body else {
                return Err(wrong_entry(run.0, "run.started", &started.body));
            };
            if started.agent != *agent || event.index <= run.0 {
                return Err(wrong(format!("{run} is not a run of agent {agent}")));
            }
            let ended = book.events().any(|end| {
                end.index < event.index
                    && matches!(&end.body, Body::RunEnded(end) if end.run == run)
            });
            if ended || event.time >= started.deadline {
                return Err(wrong(format!("{run} had ended when it pushed")));
            }
            let signer = book.events().find_map(|event| match &event.body {
                Body::TaskAccepted(task) if task.task == started.task => {
                    Some(task.payload.signer.clone())
                }
                _ => None,
            });
            hands.extend(signer.map(Principal::Human));
            let registry = book.registry_at(event.index)?;
            hands.insert(Principal::Human(
                registry.agent(agent, event.time)?.owner.clone(),
            ));
            Ok(hands)
        }
        (Principal::Human(human), None) if body.envelope.is_some() => {
            book.registry_at(event.index)?.human(human)?;
            Ok(hands)
        }
        (other, _) => Err(wrong(format!("{other} can't push"))),
    }
}

/// Each commit's object has its id; the head has the tree; from the head one comes to all of them
/// and to the base. `known` is older history that is accounted for elsewhere.
fn commits(
    book: &Book<'_>,
    walk: &Walk<'_>,
    known: Option<&GitOid>,
    facts: &mut Examined,
) -> Result<(), Refusal> {
    let wrong = |message: &str| {
        Refusal::denied("commits-mismatch", message)
            .received(&format!("{} from {}", walk.head, walk.base))
    };
    let listed: BTreeSet<&GitOid> = walk.listed.iter().collect();
    let mut reached: BTreeSet<GitOid> = BTreeSet::new();
    let mut to_do = vec![walk.head.clone()];
    let mut on_base = false;
    while let Some(oid) = to_do.pop() {
        if !reached.insert(oid.clone()) {
            continue;
        }
        let commit = book.commit(&oid)?;
        if oid == *walk.head && commit.tree != *walk.tree {
            return Err(wrong("the head's tree is not the one that was approved")
                .expected(walk.tree.as_str())
                .received(commit.tree.as_str()));
        }
        for parent in commit.parents {
            if parent == *walk.base {
                on_base = true;
            } else if listed.contains(&parent) {
                to_do.push(parent);
            } else if known != Some(&parent) {
                facts.older_parents += 1;
            }
        }
    }
    if !on_base || reached.len() != listed.len() || !listed.contains(walk.head) {
        return Err(wrong(
            "the commits that were pushed do not lead from the base to the head",
        ));
    }
    Ok(())
}

fn checks(
    book: &Book<'_>,
    land: &Land<'_>,
    before: LedgerIndex,
) -> Result<(LedgerIndex, Digest, String), Refusal> {
    let (event, body): (&Event, &ChecksCompleted) = book
        .events()
        .filter(|event| event.index < before)
        .find_map(|event| match &event.body {
            Body::ChecksCompleted(body)
                if body.change == land.change && body.revision == land.revision =>
            {
                Some((event, body))
            }
            _ => None,
        })
        .ok_or_else(|| missing("the checks", land))?;
    book.sound(event.index)?;
    require_control(book, event)?;
    book.blob(&body.report)?;
    let consistent = match body.verdict {
        CheckVerdict::Pass => body.escalations.is_empty() && body.blocks.is_empty(),
        CheckVerdict::Escalate => !body.escalations.is_empty() && body.blocks.is_empty(),
        CheckVerdict::Block => false,
    };
    if !consistent && event.mode == Mode::Enforce {
        return Err(Refusal::denied(
            "checks-block",
            format!("the checks of {} block it", land.change),
        )
        .received(&format!("{:?} {:?}", body.verdict, body.blocks)));
    }
    let says = match body.verdict {
        CheckVerdict::Pass => format!("the checks of {} found nothing", land.change),
        CheckVerdict::Escalate => format!(
            "the checks of {} asked for a human's eye on {:?}",
            land.change, body.escalations
        ),
        CheckVerdict::Block => format!(
            "the checks of {} said block, and the repository does not enforce them",
            land.change
        ),
    };
    Ok((event.index, body.report, says))
}

/// Who allowed it: humans by a request for exactly this, or policy alone.
fn approved(
    book: &Book<'_>,
    land: &Land<'_>,
    landing: Landing<'_>,
    pushed: Option<Push<'_>>,
    reports: (Option<Digest>, Option<Digest>),
    facts: &mut Examined,
) -> Result<String, Refusal> {
    // Whether the landing itself is sound is its own link to tell.
    let intent = landing.intent;
    let registry = book.registry_at(intent.index)?;
    let floor = registry
        .repositories
        .get(land.repository)
        .filter(|record| record.default_branch == land.branch)
        .and_then(|record| record.deploys_on_landing.as_ref())
        .filter(|environment| registry.sensitivity(environment) == Sensitivity::Production)
        .map(|_| registry.key_floor.production);
    let Some(id) = land.request else {
        facts.without_human = true;
        return match floor {
            None => Ok(format!("policy let {} land without a human", land.change)),
            Some(_) => Err(Refusal::denied(
                "production-needs-a-human",
                format!(
                    "{} deploys to production by landing, and no human approved",
                    land.change
                ),
            )),
        };
    };
    let Some((_, pushed)) = pushed else {
        return Err(Refusal::denied(
            "revision-unknown",
            format!("what {id} asks about is not shown"),
        ));
    };
    let asked = Asked {
        carried: facts.carried,
        ..Asked::opened(book, id)?
    };
    let subject = ApprovalSubject::Change {
        change: land.change,
        revision: land.revision,
        repository: land.repository.clone(),
        branch: land.branch.to_owned(),
        base: pushed.base.clone(),
        head: pushed.head.clone(),
        tree: pushed.tree.clone(),
        manifest: pushed.manifest,
    };
    let checks = match reports {
        (Some(checks), Some(tests)) => Digest::of_parts(&[checks.as_bytes(), tests.as_bytes()]),
        (None, _) | (_, None) => {
            return Err(Refusal::denied(
                "checks-unknown",
                format!("what checks and tests said to {id} is not shown"),
            ));
        }
    };
    if asked.subject != subject || asked.checks != Some(checks) {
        return Err(Refusal::denied(
            "statement-mismatch",
            format!("{id} asks for something else than what landed, or with other checks"),
        ));
    }
    if !facts.party.is_subset(&asked.party.0) {
        return Err(Refusal::denied(
            "party-incomplete",
            format!("{id} does not name everyone who had a hand in it"),
        ));
    }
    if floor.is_some_and(|floor| asked.needed.key_class < floor) {
        return Err(Refusal::denied(
            "request-too-weak",
            format!("{id} asks for a weaker key than production takes"),
        ));
    }
    facts.answer = asked.answered(book, intent.index, intent.time)?;
    let carried = if facts.carried {
        ", for the same diff on a later base"
    } else {
        ""
    };
    Ok(format!(
        "{} was {}{carried}",
        land.change,
        facts.answer.says()
    ))
}

fn landed(
    book: &Book<'_>,
    land: &Land<'_>,
    landing: Landing<'_>,
    pushes: &[Push<'_>],
    facts: &mut Examined,
) -> Result<String, Refusal> {
    let intent = book.sound(landing.intent.index)?;
    let concluded = book.sound(landing.concluded.index)?;
    require_control(book, intent)?;
    require_control(book, concluded)?;
    if landing.body.decision.is_none() || concluded.index <= intent.index {
        return Err(Refusal::denied(
            "decision-missing",
            format!("{} landed without a decision of policy", land.change),
        ));
    }
    let together = together::together(book, land, landing, pushes)?
        .map(|with| format!(", {with}"))
        .unwrap_or_default();
    facts.enforced = intent.mode == Mode::Enforce && concluded.mode == Mode::Enforce;
    let mode = if facts.enforced {
        ""
    } else {
        "; the repository was not in enforce mode"
    };
    Ok(format!(
        "{} moved {} {} from {} to exactly {}{together}{mode}",
        land.change,
        land.repository,
        land.branch,
        land.old.short(),
        land.new.short()
    ))
}

/// An act of the server itself.
pub(super) fn require_control(book: &Book<'_>, event: &Event) -> Result<(), Refusal> {
    book.registry_at(event.index)?
        .require_role(&event.actor.principal, ServiceRole::Control, event.time)
        .map(|_| ())
}

pub(super) fn missing(what: &str, land: &Land<'_>) -> Refusal {
    Refusal::denied(
        "result-missing",
        format!(
            "{what} of revision {} of {} are not in the bundle",
            land.revision, land.change
        ),
    )
}

pub(super) fn wrong_entry(index: LedgerIndex, expected: &str, body: &Body) -> Refusal {
    Refusal::denied(
        "wrong-entry",
        format!("entry {index} is not what it is named for"),
    )
    .expected(expected)
    .received(body.type_name())
}
