//! Landing: pushes, merges, approvals, and what follows when commits land.

mod gates;

pub(super) use gates::tag_gate;
use gates::{merge_gate, push_gate, review_gate};

use super::{Actor, Credential, Engine, Event, Gate, PathStep, PullRequest, Reference, Way};
use crate::acts::SinkKind;
use crate::bots::{Authors, Bot, Duty, Need};

/// How a merge is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) auto: bool,
    pub(super) admin: bool,
    /// The act chooses among open pull requests.
    pub(super) selects: bool,
    /// The same job approved what it chose.
    pub(super) approved: bool,
}

/// What is special about a push.
#[derive(Clone, Copy, Debug)]
pub(super) struct Push {
    pub(super) by_agent: bool,
    /// Its commit tells the forge to start nothing.
    pub(super) silent: bool,
}

/// A push to a branch of this repository. Answers with what the branch's rules demand for it.
#[expect(
    clippy::too_many_arguments,
    reason = "who pushes what where and how; grouping would only hide the parts"
)]
pub(super) fn push(
    engine: &mut Engine<'_>,
    repository: usize,
    reference: &Reference,
    credential: &Credential,
    place: (&str, usize),
    what: &str,
    way: &Way,
    how: Push,
) -> Gate {
    let fires = credential.fires() && !how.silent;
    let step = |event: String| PathStep {
        file: place.0.to_owned(),
        line: place.1,
        actor: credential.actor().words(),
        credential: credential.words(),
        event,
        why: what.to_owned(),
    };
    match reference {
        Reference::Default => {
            let gate = push_gate(engine, repository, credential);
            let cost = gate.clone();
            let way = engine.step(way, step("push to the default branch".to_owned()), &gate);
            landed(engine, repository, &way);
            let heard = !how.silent && engine.has_other_systems(repository);
            if fires || heard {
                let event = Event {
                    quiet: !fires,
                    releases: how.by_agent,
                    ..Event::new(repository, "push", "", credential.actor())
                };
                engine.happens(event, way);
            }
            return cost;
        }
        Reference::Branch(name) if matches!(name.as_str(), "gh-pages" | "pages") => {
            let way = engine.step(way, step(format!("push to {name}")), &Gate::Clear);
            engine.reach(
                repository,
                SinkKind::Deploy,
                "GitHub Pages (branch gh-pages)",
                place,
                &way,
            );
            if fires {
                branch_pushed(engine, repository, reference, credential, way);
            }
        }
        Reference::Branch(name) => {
            let way = engine.step(way, step(format!("push to {name}")), &Gate::Clear);
            // Where nothing names the default branch, these may be it.
            let may_be_default = engine.subject(repository).is_some_and(|subject| {
                !subject.default_known && matches!(name.as_str(), "main" | "master")
            });
            if may_be_default {
                engine.reach(
                    repository,
                    SinkKind::Merge,
                    &format!("branch {name}"),
                    place,
                    &way,
                );
            }
            if fires {
                branch_pushed(engine, repository, reference, credential, way);
            }
        }
        Reference::Other => {
            if fires {
                let way = engine.step(way, step("push to another branch".to_owned()), &Gate::Clear);
                branch_pushed(engine, repository, reference, credential, way);
            }
        }
        Reference::Tag(_) => {}
    }
    Gate::Clear
}

fn branch_pushed(
    engine: &mut Engine<'_>,
    repository: usize,
    reference: &Reference,
    credential: &Credential,
    way: Way,
) {
    let event = Event {
        reference: reference.clone(),
        ..Event::new(repository, "push", "", credential.actor())
    };
    engine.happens(event, way);
}

/// Commits are on the default branch: the merge sink, and services that serve it.
pub(super) fn landed(engine: &mut Engine<'_>, repository: usize, way: &Way) {
    let Some(subject) = engine.subject(repository) else {
        return;
    };
    engine.reach(
        repository,
        SinkKind::Merge,
        &format!("branch {}", subject.default_branch),
        ("", 0),
        way,
    );
    for bot in &subject.bots {
        if matches!(bot.duty, Duty::Serves | Duty::Syncs) {
            let step = PathStep {
                file: bot.file.clone(),
                line: bot.line,
                actor: bot.product.to_owned(),
                credential: "its own".to_owned(),
                event: "deploy".to_owned(),
                why: format!("{} follows the default branch", bot.product),
            };
            let gate = if bot.duty == Duty::Syncs {
                Gate::Clear
            } else {
                Gate::Fact(format!(
                    "whether {} is connected and deploys the default branch",
                    bot.product
                ))
            };
            let way = engine.step(way, step, &gate);
            engine.reach(
                repository,
                SinkKind::Deploy,
                &format!("{} ({})", bot.product, bot.file),
                (&bot.file, bot.line),
                &way,
            );
        }
    }
}

/// A merge of a pull request into the default branch.
#[expect(
    clippy::too_many_arguments,
    reason = "who merges what and how; grouping would only hide the parts"
)]
pub(super) fn merge(
    engine: &mut Engine<'_>,
    repository: usize,
    pull: Option<&PullRequest>,
    credential: &Credential,
    manner: Manner,
    place: (&str, usize),
    what: &str,
    way: &Way,
) -> Gate {
    let gate = if pull.is_some_and(|pull| pull.base.is_some()) {
        Gate::Clear
    } else {
        merge_gate(
            engine,
            repository,
            pull.map(|pull| &pull.author),
            credential,
            manner,
        )
    };
    let step = PathStep {
        file: place.0.to_owned(),
        line: place.1,
        actor: credential.actor().words(),
        credential: credential.words(),
        event: if manner.auto { "auto-merge" } else { "merge" }.to_owned(),
        why: if manner.selects {
            format!("{what} (pull requests of its own choice)")
        } else {
            what.to_owned()
        },
    };
    let way = engine.step(way, step, &gate);
    merged(
        engine,
        repository,
        pull,
        credential.actor(),
        credential.fires(),
        &way,
    );
    // What waits for its requirements is not refused.
    if manner.auto { Gate::Clear } else { gate }
}

/// What follows a merge.
fn merged(
    engine: &mut Engine<'_>,
    repository: usize,
    pull: Option<&PullRequest>,
    actor: Actor,
    fires: bool,
    way: &Way,
) {
    let base = pull.and_then(|pull| pull.base.clone());
    if base.is_none() {
        landed(engine, repository, way);
    }
    if !fires && !engine.has_other_systems(repository) {
        return;
    }
    if let Some(pull) = pull.filter(|_| fires) {
        // Where there is a merge queue, its branch is tested first.
        let queued = Event {
            pull_request: Some(pull.clone()),
            reference: Reference::Branch("gh-readonly-queue/x".to_owned()),
            ..Event::new(repository, "merge_group", "checks_requested", actor.clone())
        };
        engine.happens(queued, way.clone());
    }
    let push = Event {
        quiet: !fires,
        reference: base.map_or(Reference::Default, Reference::Branch),
        files: pull.and_then(|pull| pull.files.clone()),
        releases: pull.is_some_and(|pull| pull.release),
        ..Event::new(repository, "push", "", actor.clone())
    };
    engine.happens(push, way.clone());
    if let Some(pull) = pull.filter(|_| fires) {
        let closed = Event {
            merged: true,
            pull_request: Some(pull.clone()),
            ..Event::new(repository, "pull_request", "closed", actor)
        };
        engine.happens(closed, way.clone());
    }
}

/// An approval by automation.
pub(super) fn approve(
    engine: &mut Engine<'_>,
    repository: usize,
    pull: Option<&PullRequest>,
    credential: &Credential,
    place: (&str, usize),
    what: &str,
    way: &Way,
) {
    let Some(pull) = pull else { return };
    // Nobody can approve a pull request of their own.
    if pull.author == credential.actor() {
        return;
    }
    let reason = way.reason.as_deref().unwrap_or_default().to_owned();
    let key = (repository, pull.author.clone());
    let better = engine
        .approvals_seen
        .get(&key)
        .is_none_or(|(level, _)| way.level < *level);
    if better {
        engine.approvals_seen.insert(key, (way.level, reason));
    }
    if credential.fires() {
        let step = PathStep {
            file: place.0.to_owned(),
            line: place.1,
            actor: credential.actor().words(),
            credential: credential.words(),
            event: "pull_request_review submitted".to_owned(),
            why: what.to_owned(),
        };
        let way = engine.step(way, step, &Gate::Clear);
        let event = Event {
            pull_request: Some(pull.clone()),
            ..Event::new(
                repository,
                "pull_request_review",
                "submitted",
                credential.actor(),
            )
        };
        engine.happens(event, way);
    }
}

/// A pull request is there: the events of its opening, the bots that merge, and people.
pub(super) fn new_pull_request(
    engine: &mut Engine<'_>,
    repository: usize,
    pull: &PullRequest,
    way: &Way,
    fires: bool,
) {
    let opened = Event {
        pull_request: Some(pull.clone()),
        ..Event::new(repository, "pull_request", "opened", pull.author.clone())
    };
    if fires {
        engine.happens(opened.clone(), way.clone());
        engine.happens(
            Event {
                activity: "synchronize",
                ..opened.clone()
            },
            way.clone(),
        );
        engine.happens(
            Event {
                activity: "ready_for_review",
                ..opened.clone()
            },
            way.clone(),
        );
        // It asks whoever gave it the task for a review when it is done.
        if pull.author == Actor::Bot("Copilot".to_owned()) {
            engine.happens(
                Event {
                    activity: "review_requested",
                    ..opened.clone()
                },
                way.clone(),
            );
        }
        for label in &pull.labels {
            let labeled = Event {
                activity: "labeled",
                label: Some(label.clone()),
                ..opened.clone()
            };
            engine.happens(labeled, way.clone());
        }
        for name in ["check_suite", "status", "check_run"] {
            let event = Event {
                name,
                activity: if name == "status" { "" } else { "completed" },
                ..opened.clone()
            };
            engine.happens(event, way.clone());
        }
    } else {
        // No workflow starts, but apps and people see it.
        answer_pull_request(engine, &opened, way);
    }
}

/// Apps that merge, and the person who can.
pub(super) fn answer_pull_request(engine: &mut Engine<'_>, event: &Event, way: &Way) {
    let repository = event.repository;
    let (Some(pull), Some(subject)) = (&event.pull_request, engine.subject(repository)) else {
        return;
    };
    if !matches!(event.activity, "opened" | "labeled") {
        return;
    }
    for bot in &subject.bots {
        if let Duty::Merges {
            authors,
            needs,
            approves,
            why,
            base,
            ..
        } = &bot.duty
            && concerns(authors, bot, &pull.author)
            && base.as_deref().is_none_or(|base| {
                base == pull.base.as_deref().unwrap_or(&subject.default_branch)
                    // Where nothing names the default branch, these may be it.
                    || !subject.default_known && matches!(base, "main" | "master")
            })
            && (!matches!(
                bot.product,
                "Mergify" | "Kodiak" | "Bulldozer" | "bors" | "Mergeable" | "Auto Merge"
            ) || engine.app_writes(repository, &bot.login) != Some(false))
        {
            bot_merges(engine, event, pull, bot, needs, *approves, why, way);
        }
    }
    if event.activity == "opened" && pull.author != Actor::Person {
        let step = PathStep {
            file: String::new(),
            line: 0,
            actor: Actor::Person.words(),
            credential: String::new(),
            event: "merge".to_owned(),
            why: "a person merges the pull request by hand".to_owned(),
        };
        let gate = Gate::Human("a person reviews and merges the pull request".to_owned());
        let way = engine.step(way, step, &gate);
        merged(engine, repository, Some(pull), Actor::Person, true, &way);
    }
}

/// A comment that tells bors or Tide to merge, written by automation. Dependabot obeys no such
/// command since January 2026.
pub(super) fn commanded(engine: &mut Engine<'_>, event: &Event, way: &Way) {
    let (Some(pull), Some(subject), Some(text)) = (
        &event.pull_request,
        engine.subject(event.repository),
        &event.text,
    ) else {
        return;
    };
    if pull.author == event.actor {
        return;
    }
    for bot in &subject.bots {
        let told = match bot.product {
            "Tide" => text.contains("/lgtm") && text.contains("/approve"),
            "bors" => text.contains("bors r+") || text.contains("bors merge"),
            _ => false,
        };
        if told
            && let Duty::Merges {
                authors,
                needs,
                why,
                ..
            } = &bot.duty
            && concerns(authors, bot, &pull.author)
        {
            let rest: Vec<Need> = needs
                .iter()
                .filter(|need| !matches!(need, Need::Command(_)))
                .cloned()
                .collect();
            bot_merges(engine, event, pull, bot, &rest, false, why, way);
        }
    }
}

fn concerns(authors: &Authors, bot: &Bot, author: &Actor) -> bool {
    let login = match author {
        Actor::Bot(login) => login.as_str(),
        Actor::Actions => "github-actions[bot]",
        Actor::Person
        | Actor::Anyone
        | Actor::Machine
        | Actor::App
        | Actor::Clock
        | Actor::Elsewhere => "",
    };
    match authors {
        Authors::Own => login == bot.login,
        Authors::Any => true,
        Authors::Only(list) => {
            !login.is_empty()
                && list.iter().any(|known| {
                    let known = known
                        .trim_end_matches("[bot]")
                        .trim_end_matches("-bot")
                        .to_ascii_lowercase();
                    let known = known.trim_end_matches("-preview").to_owned();
                    !known.is_empty() && login.to_ascii_lowercase().starts_with(&known)
                })
        }
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "one bot's answer to one pull request; grouping would only hide the parts"
)]
fn bot_merges(
    engine: &mut Engine<'_>,
    event: &Event,
    pull: &PullRequest,
    bot: &Bot,
    needs: &[Need],
    approves: bool,
    why: &str,
    way: &Way,
) {
    let repository = event.repository;
    let mut way = way.clone();
    if approves {
        let key = (repository, pull.author.clone());
        if engine
            .approvals_seen
            .get(&key)
            .is_none_or(|(level, _)| way.level < *level)
        {
            engine
                .approvals_seen
                .insert(key, (way.level, String::new()));
        }
    }
    for need in needs {
        let gate = match need {
            Need::Review(text) => match (
                approves,
                review_gate(engine, repository, Some(&pull.author)),
            ) {
                (true, _) | (_, Gate::Clear) => Gate::Clear,
                (false, _) => Gate::Human(format!("a person's approving review ({text})")),
            },
            Need::Label(label) if super::scope::has_label(event, label) => Gate::Clear,
            Need::Label(label) => Gate::Human(format!("a person sets the label {label}")),
            Need::Command(text) => Gate::Human(text.clone()),
            Need::Fact(text) => Gate::Fact(text.clone()),
        };
        way = way.gated(&gate);
    }
    let credential = Credential::App(bot.login.trim_end_matches("[bot]").to_owned());
    let manner = Manner {
        auto: true,
        admin: false,
        selects: false,
        approved: false,
    };
    let file = bot.file.clone();
    if bot.product == "Mergify"
        && needs
            .iter()
            .any(|need| matches!(need, Need::Command(text) if text == "a person merges"))
    {
        return;
    }
    let mut pull = pull.clone();
    if let Duty::Merges {
        files: Some(files), ..
    } = &bot.duty
    {
        pull.files = Some(files.clone().into());
    }
    merge(
        engine,
        repository,
        Some(&pull),
        &credential,
        manner,
        (&file, bot.line),
        why,
        &way,
    );
}
