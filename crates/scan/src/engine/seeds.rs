//! Where ways begin: the clock, bots, any account, other systems, and people.

use super::merge::new_pull_request;
use super::{Actor, Engine, Event, Gate, PathStep, PullRequest, Reference, Way};
use crate::bots::Duty;
use crate::workflow::{Trigger, Workflow};

/// An event's name as a constant.
pub(crate) fn event_name(name: &str) -> &'static str {
    const NAMES: &[&str] = &[
        "push",
        "pull_request",
        "pull_request_target",
        "pull_request_review",
        "pull_request_review_comment",
        "issues",
        "issue_comment",
        "schedule",
        "workflow_dispatch",
        "repository_dispatch",
        "workflow_run",
        "workflow_call",
        "release",
        "create",
        "delete",
        "deployment",
        "deployment_status",
        "check_suite",
        "check_run",
        "status",
        "discussion",
        "discussion_comment",
        "fork",
        "watch",
        "gollum",
        "label",
        "milestone",
        "merge_group",
        "page_build",
        "public",
        "registry_package",
        "branch_protection_rule",
        "member",
        "project",
        "project_card",
        "project_column",
        "commit_comment",
        "image_version",
    ];
    NAMES
        .iter()
        .find(|known| **known == name)
        .copied()
        .unwrap_or("another event")
}

fn activity_name(name: &str) -> &'static str {
    const NAMES: &[&str] = &[
        "opened",
        "edited",
        "closed",
        "reopened",
        "labeled",
        "unlabeled",
        "assigned",
        "unassigned",
        "synchronize",
        "ready_for_review",
        "review_requested",
        "created",
        "deleted",
        "published",
        "released",
        "prereleased",
        "submitted",
        "dismissed",
        "completed",
        "requested",
        "in_progress",
        "started",
        "answered",
        "pinned",
        "milestoned",
        "demilestoned",
        "transferred",
        "locked",
        "unlocked",
        "auto_merge_enabled",
        "auto_merge_disabled",
        "converted_to_draft",
        "enqueued",
        "dequeued",
        "checks_requested",
        "unpublished",
        "updated",
        "typed",
        "category_changed",
        "moved",
        "converted",
        "review_request_removed",
        "rerequested",
        "requested_action",
    ];
    NAMES
        .iter()
        .find(|known| **known == name)
        .copied()
        .unwrap_or("")
}

/// Plants every beginning of one repository.
pub(super) fn sow(engine: &mut Engine<'_>, repository: usize) {
    let Some(subject) = engine.subject(repository) else {
        return;
    };
    for bot in &subject.bots {
        if let Duty::Opens {
            head,
            labels,
            base,
            files,
            ..
        } = &bot.duty
        {
            let pull = PullRequest {
                author: Actor::Bot(bot.login.clone()),
                head: Some((*head).to_owned()),
                labels: labels.clone(),
                fork: false,
                release: false,
                base: base.clone().filter(|base| *base != subject.default_branch),
                files: files.as_ref().map(|files| files.as_slice().into()),
            };
            let step = PathStep {
                file: bot.file.clone(),
                line: bot.line,
                actor: bot.login.clone(),
                credential: "its own".to_owned(),
                event: "pull_request opened".to_owned(),
                why: format!("{} opens pull requests here", bot.product),
            };
            let way = engine.step(&Way::start(), step, &Gate::Clear);
            new_pull_request(engine, repository, &pull, &way, true);
            let pushed = Event {
                reference: Reference::Branch((*head).to_owned()),
                ..Event::new(repository, "push", "", Actor::Bot(bot.login.clone()))
            };
            engine.happens(pushed, way);
        }
    }
    if subject
        .bots
        .iter()
        .any(|bot| matches!(bot.duty, Duty::Serves | Duty::Syncs))
    {
        let step = PathStep {
            file: String::new(),
            line: 0,
            actor: Actor::Person.words(),
            credential: String::new(),
            event: "push to the default branch".to_owned(),
            why: "a person pushes or merges to the branch".to_owned(),
        };
        let gate = Gate::Human("a person pushes or merges to the branch".to_owned());
        let mut way = engine.step(&Way::start(), step, &gate);
        way.length = 4;
        super::merge::landed(engine, repository, &way);
    }
    let merges_any = subject.bots.iter().any(|bot| {
        matches!(
            bot.duty,
            Duty::Merges {
                authors: crate::bots::Authors::Any,
                ..
            }
        )
    });
    if merges_any {
        let pull = PullRequest {
            author: Actor::Anyone,
            head: None,
            labels: Vec::new(),
            fork: true,
            release: false,
            base: None,
            files: None,
        };
        let step = PathStep {
            file: String::new(),
            line: 0,
            actor: Actor::Anyone.words(),
            credential: String::new(),
            event: "pull_request opened".to_owned(),
            why: "any account can open a pull request from a fork".to_owned(),
        };
        let way = engine.step(&Way::start(), step, &Gate::Clear);
        new_pull_request(engine, repository, &pull, &way, true);
    }
    for (index, workflow) in subject.workflows.iter().enumerate() {
        for trigger in &workflow.triggers {
            unattended(engine, repository, index, workflow, trigger);
            by_people(engine, repository, index, trigger);
        }
    }
}

/// Beginnings that need no person of this repository.
fn unattended(
    engine: &mut Engine<'_>,
    repository: usize,
    index: usize,
    workflow: &Workflow,
    trigger: &Trigger,
) {
    let plant = |engine: &mut Engine<'_>, event: Event| engine.happens(event, Way::start());
    match trigger.event.as_str() {
        "schedule" => plant(
            engine,
            Event {
                workflow: Some(index),
                ..Event::new(repository, "schedule", "", Actor::Clock)
            },
        ),
        "repository_dispatch" => plant(
            engine,
            Event::new(repository, "repository_dispatch", "", Actor::Elsewhere),
        ),
        "pull_request" | "pull_request_target" => {
            let pull = PullRequest {
                author: Actor::Anyone,
                head: None,
                labels: Vec::new(),
                fork: true,
                release: false,
                base: None,
                files: None,
            };
            for activity in ["opened", "synchronize", "reopened", "edited", "closed"] {
                let event = Event {
                    pull_request: Some(pull.clone()),
                    ..Event::new(repository, "pull_request", activity, Actor::Anyone)
                };
                // Told only where no bot of the repository comes as far.
                let way = Way {
                    length: 2,
                    ..Way::start()
                };
                engine.happens(event, way);
            }
        }
        "issues" => {
            for activity in ["opened", "edited", "reopened", "closed"] {
                plant(
                    engine,
                    Event::new(repository, "issues", activity, Actor::Anyone),
                );
            }
        }
        "issue_comment" | "discussion_comment" => {
            for activity in ["created", "edited"] {
                plant(
                    engine,
                    Event::new(
                        repository,
                        event_name(&trigger.event),
                        activity,
                        Actor::Anyone,
                    ),
                );
            }
        }
        "discussion" => {
            for activity in ["created", "edited"] {
                plant(
                    engine,
                    Event::new(repository, "discussion", activity, Actor::Anyone),
                );
            }
        }
        "fork" => plant(engine, Event::new(repository, "fork", "", Actor::Anyone)),
        "watch" => plant(
            engine,
            Event::new(repository, "watch", "started", Actor::Anyone),
        ),
        "commit_comment" => plant(
            engine,
            Event::new(repository, "commit_comment", "created", Actor::Anyone),
        ),
        _ => {}
    }
    let _ = workflow;
}

/// What people do: ways that a person decides on from their first step.
fn by_people(engine: &mut Engine<'_>, repository: usize, index: usize, trigger: &Trigger) {
    let mut plant = |event: Event, edge: &str| {
        let mut way = Way::start().gated(&Gate::Human(edge.to_owned()));
        // Longer than a bot's way to the same place, so that the bot's way is told first.
        way.length = 4;
        engine.happens(event, way);
    };
    let person = |name: &'static str, activity: &'static str| {
        Event::new(repository, name, activity, Actor::Person)
    };
    match trigger.event.as_str() {
        "push" => {
            let with = |reference: Reference| Event {
                reference,
                releases: true,
                ..person("push", "")
            };
            plant(
                with(Reference::Default),
                "a person pushes or merges to the branch",
            );
            plant(with(Reference::Tag(None)), "a person pushes a tag");
            for pattern in trigger.branches.iter().chain(&trigger.branches_ignore) {
                if !pattern.starts_with('!') {
                    let name = pattern.replace("**", "x").replace('*', "x");
                    plant(
                        with(Reference::Branch(name)),
                        "a person pushes or merges to the branch",
                    );
                }
            }
            for pattern in &trigger.tags {
                if !pattern.starts_with('!') && !pattern.contains(['*', '[', '?', '+']) {
                    plant(
                        with(Reference::Tag(Some(pattern.clone()))),
                        "a person pushes a tag",
                    );
                }
            }
            plant(
                with(Reference::Branch("feature".to_owned())),
                "a person pushes to the branch",
            );
        }
        "pull_request" | "pull_request_target" => {
            let pull = PullRequest {
                author: Actor::Person,
                head: Some("feature".to_owned()),
                labels: Vec::new(),
                fork: false,
                release: false,
                base: None,
                files: None,
            };
            let mut activities = vec!["opened", "synchronize", "closed", "labeled"];
            activities.extend(trigger.types.iter().map(|name| activity_name(name)));
            activities.sort_unstable();
            activities.dedup();
            for activity in activities {
                let edge = match activity {
                    "closed" => "a person merges the pull request",
                    "labeled" => "a person sets the label",
                    _ => "a person opens the pull request",
                };
                let event = Event {
                    merged: activity == "closed",
                    releases: activity == "closed",
                    pull_request: Some(pull.clone()),
                    ..person("pull_request", activity)
                };
                plant(event.clone(), edge);
                if activity == "labeled" || activity == "closed" {
                    let fork = Event {
                        pull_request: Some(PullRequest {
                            author: Actor::Anyone,
                            fork: true,
                            head: None,
                            ..pull.clone()
                        }),
                        ..event
                    };
                    plant(fork, edge);
                }
            }
        }
        "workflow_dispatch" => plant(
            Event {
                workflow: Some(index),
                releases: true,
                ..person("workflow_dispatch", "")
            },
            "a person starts the workflow by hand",
        ),
        "release" => {
            for activity in ["published", "created", "released", "prereleased", "edited"] {
                plant(
                    Event {
                        reference: Reference::Tag(None),
                        releases: true,
                        ..person("release", activity)
                    },
                    "a person publishes the release",
                );
            }
        }
        "issue_comment" => {
            for activity in ["created", "edited"] {
                plant(
                    person("issue_comment", activity),
                    "a person with rights comments",
                );
            }
        }
        "schedule" | "repository_dispatch" | "workflow_run" | "workflow_call" => {}
        "pull_request_review" | "pull_request_review_comment" => {
            for activity in ["submitted", "created", "edited"] {
                let pull = PullRequest {
                    author: Actor::Person,
                    head: Some("feature".to_owned()),
                    labels: Vec::new(),
                    fork: false,
                    release: false,
                    base: None,
                    files: None,
                };
                let event = Event {
                    pull_request: Some(pull),
                    ..person(event_name(&trigger.event), activity)
                };
                plant(event, "a person reviews the pull request");
            }
            review_of_bots(engine, repository);
        }
        other => {
            let name = event_name(other);
            if trigger.types.is_empty() {
                for activity in ["", "created", "opened", "completed", "published", "labeled"] {
                    plant(person(name, activity), "a person does it");
                }
            }
            for activity in &trigger.types {
                plant(person(name, activity_name(activity)), "a person does it");
            }
        }
    }
}

/// Reviews of bots' pull requests: any account can submit one, and the run has its rights.
fn review_of_bots(engine: &mut Engine<'_>, repository: usize) {
    let Some(subject) = engine.subject(repository) else {
        return;
    };
    for bot in &subject.bots {
        let Duty::Opens { head, labels, .. } = &bot.duty else {
            continue;
        };
        let pull = PullRequest {
            author: Actor::Bot(bot.login.clone()),
            head: Some((*head).to_owned()),
            labels: labels.clone(),
            fork: false,
            release: false,
            base: None,
            files: None,
        };
        let event = |actor: Actor| Event {
            pull_request: Some(pull.clone()),
            ..Event::new(repository, "pull_request_review", "submitted", actor)
        };
        let by_person =
            Way::start().gated(&Gate::Human("a person reviews the pull request".to_owned()));
        engine.happens(event(Actor::Person), by_person);
        let by_anyone = Way::start().gated(&Gate::Fact(
            "whether the review comes from an account with write access: the workflow does not ask"
                .to_owned(),
        ));
        engine.happens(event(Actor::Anyone), by_anyone);
    }
}
