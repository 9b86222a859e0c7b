//! What an expression's names mean in one run.

mod outputs;
mod variables;

use std::cell::Cell;

use super::run::{Run, Secrets};
use super::{Actor, Credential, Event, PullRequest, Reference};
use crate::expr::{self, Scope, Value};
use crate::workflow::{Job, Pairs, System};

/// Deepest chain of names that stand for names (`env` of `env`, outputs of outputs).
pub(super) const DEPTH_MAX: u8 = 8;
/// Most names that one run looks up: names that stand for several names would multiply.
const LOOKUPS_MAX: u32 = 200_000;

/// The names that a step sees.
pub(super) struct Names<'r> {
    pub(super) run: &'r Run<'r>,
    pub(super) job: Option<&'r Job>,
    /// Innermost last.
    pub(super) env: Vec<&'r Pairs>,
    /// Inputs of the composite action we are in, already evaluated.
    pub(super) inputs: Option<&'r [(String, Value, Credential)]>,
    pub(super) depth: Cell<u8>,
}

/// Properties of the `github` context (GitHub Docs, "Contexts reference").
const CONTEXT: &[&str] = &[
    "action",
    "action_path",
    "action_ref",
    "action_repository",
    "action_status",
    "actor",
    "actor_id",
    "api_url",
    "artifact_cache_size_limit",
    "base_ref",
    "env",
    "event",
    "event_name",
    "event_path",
    "graphql_url",
    "head_ref",
    "job",
    "job_workflow_sha",
    "output",
    "path",
    "ref",
    "ref_name",
    "ref_protected",
    "ref_type",
    "repository",
    "repository_id",
    "repository_owner",
    "repository_owner_id",
    "repository_visibility",
    "repositoryurl",
    "retention_days",
    "run_attempt",
    "run_id",
    "run_number",
    "secret_source",
    "server_url",
    "sha",
    "state",
    "step_summary",
    "token",
    "triggering_actor",
    "workflow",
    "workflow_ref",
    "workflow_sha",
    "workspace",
];

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

impl Scope for Names<'_> {
    fn value(&self, path: &str) -> Value {
        let lookups = self.run.lookups.get();
        if self.depth.get() >= DEPTH_MAX || lookups >= LOOKUPS_MAX {
            return Value::Open;
        }
        self.run.lookups.set(lookups + 1);
        self.depth.set(self.depth.get() + 1);
        let value = self.look_up(path);
        self.depth.set(self.depth.get() - 1);
        value
    }

    fn status(&self, function: &str) -> Value {
        match function {
            "always" | "success" => Value::Bool(true),
            "cancelled" => Value::Bool(false),
            _ => Value::Open,
        }
    }
}

impl Names<'_> {
    fn look_up(&self, path: &str) -> Value {
        let (head, rest) = path.split_once('.').unwrap_or((path, ""));
        match head {
            "github" | "gitea" | "forgejo" => self.github(rest),
            "env" => self.environment(rest),
            "inputs" => self.input(rest),
            "secrets" => match self.run.secrets {
                Secrets::None if rest != "github_token" => Value::Null,
                Secrets::None | Secrets::All | Secrets::Dependabot => Value::Open,
                Secrets::Passed(ref list) => {
                    if rest == "github_token"
                        || list.iter().any(|(name, _)| name.eq_ignore_ascii_case(rest))
                    {
                        Value::Open
                    } else {
                        Value::Null
                    }
                }
            },
            "vars" => Value::Fact(format!(
                "the value of the setting vars.{}",
                rest.to_uppercase()
            )),
            "steps" => self.step_output(self.job, rest),
            "needs" => self.need(rest),
            _ if head.starts_with('$') => self.variable(path),
            _ => Value::Open,
        }
    }

    /// Whether the environment of a step has a variable.
    pub(super) fn sets(&self, name: &str) -> bool {
        self.env
            .iter()
            .any(|layer| layer.iter().any(|(known, _)| known == name))
    }

    fn environment(&self, name: &str) -> Value {
        for layer in self.env.iter().rev() {
            if let Some((_, value)) = layer.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)) {
                // An environment holds texts.
                return match expr::template(value, self) {
                    Value::Bool(yes) => text(if yes { "true" } else { "false" }),
                    Value::Null => text(""),
                    other => other,
                };
            }
        }
        Value::Open
    }

    fn input(&self, name: &str) -> Value {
        if let Some(inputs) = self.inputs {
            return inputs
                .iter()
                .find(|(key, _, _)| key.eq_ignore_ascii_case(name))
                .map_or(Value::Text(String::new()), |(_, value, _)| value.clone());
        }
        if let Some(inputs) = &self.run.inputs {
            return inputs
                .iter()
                .find(|(key, _, _)| key.eq_ignore_ascii_case(name))
                .map_or(Value::Null, |(_, value, _)| value.clone());
        }
        if self.run.event_name == "workflow_dispatch" {
            Value::Open
        } else {
            Value::Null
        }
    }

    fn login(actor: &Actor) -> Value {
        match actor {
            Actor::Person | Actor::Machine | Actor::Clock => Value::Login,
            Actor::Anyone => text("any-account"),
            Actor::Bot(login) => text(login),
            Actor::Actions => text("github-actions[bot]"),
            Actor::App => Value::App,
            Actor::Elsewhere => Value::Open,
        }
    }

    fn kind_of(actor: &Actor) -> Value {
        match actor {
            Actor::Bot(_) | Actor::Actions | Actor::App => text("Bot"),
            Actor::Person | Actor::Machine | Actor::Anyone => text("User"),
            Actor::Clock | Actor::Elsewhere => Value::Open,
        }
    }

    fn github(&self, rest: &str) -> Value {
        let run = self.run;
        let event = run.event;
        match rest {
            "event_name" => text(run.event_name),
            "actor" | "triggering_actor" | "event.sender.login" | "event.pusher.name" => {
                Self::login(&event.actor)
            }
            "event.sender.type" => Self::kind_of(&event.actor),
            "repository" | "event.repository.full_name" => run.slug().map_or(Value::Open, text),
            "repository_owner" | "event.repository.owner.login" => run
                .slug()
                .and_then(|slug| slug.split('/').next())
                .map_or(Value::Open, text),
            "event.repository.name" => run
                .slug()
                .and_then(|slug| slug.rsplit('/').next())
                .map_or(Value::Open, text),
            "event.repository.default_branch" => text(run.default_branch()),
            "event.repository.fork" => Value::Bool(false),
            "ref" => self.reference(true),
            "ref_name" => self.reference(false),
            "ref_type" => match event.reference {
                Reference::Tag(_) => text("tag"),
                Reference::Default | Reference::Branch(_) | Reference::Other => text("branch"),
            },
            "event.ref" => {
                if event.name == "push" {
                    self.reference(true)
                } else {
                    Value::Open
                }
            }
            "event.base_ref" => Value::Open,
            "ref_protected" => Value::Open,
            "head_ref" => match (&event.pull_request, run.is_pull_request()) {
                (Some(pull), true) => pull.head.as_deref().map_or(Value::Open, text),
                _ => text(""),
            },
            "base_ref" => {
                if run.is_pull_request() {
                    self.base_text()
                } else {
                    text("")
                }
            }
            "event.action" => {
                if event.name == "repository_dispatch" {
                    event.kind.as_deref().map_or(Value::Open, text)
                } else if event.activity.is_empty() {
                    Value::Null
                } else {
                    text(event.activity)
                }
            }
            "event.schedule" => {
                if event.name == "schedule" {
                    Value::Open
                } else {
                    Value::Null
                }
            }
            "event.label.name" => match (&event.label, event.activity) {
                (Some(label), _) => text(label),
                (None, "labeled" | "unlabeled") => Value::Open,
                (None, _) => Value::Null,
            },
            "event.comment.body" | "event.review.body" => {
                if matches!(
                    event.name,
                    "issue_comment"
                        | "pull_request_review_comment"
                        | "discussion_comment"
                        | "commit_comment"
                        | "pull_request_review"
                ) {
                    event.text.as_deref().map_or(Value::Open, text)
                } else {
                    Value::Null
                }
            }
            "event.review.state" => Value::Open,
            "event.created" | "event.deleted" | "event.forced" => {
                if rest == "event.deleted" {
                    Value::Bool(false)
                } else {
                    Value::Open
                }
            }
            "event.head_commit.author.name"
            | "event.head_commit.author.username"
            | "event.head_commit.committer.username"
            | "event.commits.*.author.username" => Self::login(&event.actor),
            _ => self.github_object(rest),
        }
    }

    fn github_object(&self, rest: &str) -> Value {
        let run = self.run;
        let event = run.event;
        if let Some(field) = rest.strip_prefix("event.pull_request.") {
            if !run.is_pull_request()
                && !matches!(
                    run.event_name,
                    "pull_request_review" | "pull_request_review_comment"
                )
            {
                return Value::Null;
            }
            return self.pull_request(field, event.pull_request.as_ref());
        }
        if let Some(field) = rest.strip_prefix("event.inputs.") {
            return if run.event_name == "workflow_dispatch" {
                Value::Open
            } else {
                let _ = field;
                Value::Null
            };
        }
        if let Some(field) = rest.strip_prefix("event.workflow_run.") {
            return self.workflow_run(field);
        }
        if rest.ends_with("author_association") {
            return match &event.actor {
                Actor::Anyone => text("NONE"),
                // Apps are no members; those that have committed here are contributors.
                Actor::Bot(_) | Actor::Actions | Actor::App => text("CONTRIBUTOR"),
                Actor::Person | Actor::Machine | Actor::Clock | Actor::Elsewhere => Value::Open,
            };
        }
        if matches!(
            rest,
            "event.comment.user.login" | "event.review.user.login" | "event.discussion.user.login"
        ) {
            return Self::login(&event.actor);
        }
        if matches!(rest, "event.comment.user.type" | "event.review.user.type") {
            return Self::kind_of(&event.actor);
        }
        if rest == "event.issue.user.login" && event.name == "issues" && event.activity == "opened"
        {
            return Self::login(&event.actor);
        }
        if rest.starts_with("event.issue") {
            return if matches!(event.name, "issues" | "issue_comment") {
                Value::Open
            } else {
                Value::Null
            };
        }
        if rest.starts_with("event.comment")
            && !matches!(
                event.name,
                "issue_comment"
                    | "pull_request_review_comment"
                    | "discussion_comment"
                    | "commit_comment"
            )
        {
            return Value::Null;
        }
        if rest.starts_with("event.client_payload") {
            return if event.name == "repository_dispatch" {
                Value::Open
            } else {
                Value::Null
            };
        }
        if rest.starts_with("event.release") {
            return if event.name == "release" {
                Value::Open
            } else {
                Value::Null
            };
        }
        // What the forge does not set is empty.
        let first = rest.split('.').next().unwrap_or_default();
        if self.run.workflow.system == System::GitHub && !CONTEXT.contains(&first) {
            return Value::Null;
        }
        Value::Open
    }

    fn pull_request(&self, field: &str, pull: Option<&PullRequest>) -> Value {
        let event = self.run.event;
        let Some(pull) = pull else { return Value::Open };
        match field {
            "user.login" => Self::login(&pull.author),
            "user.type" => Self::kind_of(&pull.author),
            "title" => match &pull.author {
                Actor::Bot(login)
                    if matches!(login.as_str(), "dependabot[bot]" | "renovate[bot]") =>
                {
                    Value::UpdateTitle
                }
                _ => Value::Open,
            },
            "merged" => Value::Bool(event.merged),
            "merged_by.login" => Self::login(&event.actor),
            "head.ref" => pull.head.as_deref().map_or(Value::Open, text),
            "base.ref" => self.base_text(),
            "base.repo.full_name" => self.run.slug().map_or(Value::Open, text),
            "head.repo.full_name" => {
                if pull.fork {
                    text("someone/fork")
                } else {
                    self.run.slug().map_or(Value::Open, text)
                }
            }
            "head.repo.owner.login" => {
                if pull.fork {
                    text("someone")
                } else {
                    self.run
                        .slug()
                        .and_then(|slug| slug.split('/').next())
                        .map_or(Value::Open, text)
                }
            }
            "head.repo.fork" => Value::Bool(pull.fork),
            "head.repo.id" | "base.repo.id" => {
                Value::Number(if pull.fork && field.starts_with("head") {
                    2.0
                } else {
                    1.0
                })
            }
            "draft" => Value::Bool(false),
            "author_association" => match pull.author {
                Actor::Anyone => text("NONE"),
                Actor::Bot(_) | Actor::Actions | Actor::App => text("CONTRIBUTOR"),
                Actor::Person | Actor::Machine | Actor::Clock | Actor::Elsewhere => Value::Open,
            },
            _ if field.starts_with("labels") => {
                if event.actor == Actor::Person || pull.author == Actor::Person {
                    Value::Open
                } else {
                    // As one text: `contains` looks for a part of it.
                    text(&pull.labels.join("\n"))
                }
            }
            _ => Value::Open,
        }
    }

    fn workflow_run(&self, field: &str) -> Value {
        let event = self.run.event;
        if event.name != "workflow_run" {
            return Value::Null;
        }
        match field {
            "event" => event.upstream.map_or(Value::Open, text),
            "conclusion" if event.failed => text("failure"),
            // The forge lists none of forks.
            _ if field.starts_with("pull_requests") => match &event.pull_request {
                Some(pull) if pull.fork => Value::Null,
                None if event.reference == Reference::Default => Value::Null,
                Some(_) | None => Value::Open,
            },
            "head_branch" => match (&event.pull_request, &event.reference) {
                (Some(pull), _) => pull.head.as_deref().map_or(Value::Open, text),
                (None, Reference::Default) => text(self.run.default_branch()),
                (None, Reference::Branch(name)) => text(name),
                (None, Reference::Other | Reference::Tag(_)) => Value::Open,
            },
            "actor.login" | "triggering_actor.login" => Self::login(&event.actor),
            "head_repository.full_name" => match &event.pull_request {
                Some(pull) if pull.fork => text("someone/fork"),
                _ => self.run.slug().map_or(Value::Open, text),
            },
            "head_repository.fork" => {
                Value::Bool(event.pull_request.as_ref().is_some_and(|pull| pull.fork))
            }
            _ => Value::Open,
        }
    }

    /// The branch that the pull request aims at.
    fn base_text(&self) -> Value {
        self.run
            .event
            .pull_request
            .as_ref()
            .and_then(|pull| pull.base.as_deref())
            .map_or_else(|| text(self.run.default_branch()), text)
    }

    fn branch_text(&self, full: bool) -> Value {
        let name = match &self.run.event.reference {
            Reference::Default => self.run.default_branch().to_owned(),
            Reference::Branch(name) => name.clone(),
            Reference::Other | Reference::Tag(_) => return Value::Open,
        };
        text(&if full {
            format!("refs/heads/{name}")
        } else {
            name
        })
    }

    fn reference(&self, full: bool) -> Value {
        let run = self.run;
        if run.is_pull_request() && run.event_name == "pull_request" {
            return text(if full { "refs/pull/1/merge" } else { "1/merge" });
        }
        if matches!(
            run.event.name,
            "workflow_run"
                | "schedule"
                | "issue_comment"
                | "issues"
                | "repository_dispatch"
                | "pull_request"
                | "discussion"
                | "discussion_comment"
                | "fork"
                | "watch"
        ) {
            let name = run.default_branch();
            return text(&if full {
                format!("refs/heads/{name}")
            } else {
                name.to_owned()
            });
        }
        match &run.event.reference {
            Reference::Tag(Some(name)) if !name.contains('$') => text(&if full {
                format!("refs/tags/{name}")
            } else {
                name.clone()
            }),
            Reference::Tag(_) => text(if full { "refs/tags/v1.2.3" } else { "v1.2.3" }),
            Reference::Other => text(if full {
                "refs/heads/some-branch"
            } else {
                "some-branch"
            }),
            Reference::Default | Reference::Branch(_) => self.branch_text(full),
        }
    }
}

/// Whether an event's labels are those that automation set.
pub(super) fn has_label(event: &Event, label: &str) -> bool {
    event.pull_request.as_ref().is_some_and(|pull| {
        pull.labels
            .iter()
            .any(|known| known.eq_ignore_ascii_case(label))
    }) || event
        .label
        .as_deref()
        .is_some_and(|known| known.eq_ignore_ascii_case(label))
}
