//! What a step does to the forge or to the world, as far as its text says.
//!
//! An [`Act`] is found once, when a file is read; whether it can happen in a run (which branch,
//! which credential, which condition) is decided later, for each event.

mod branches;
pub(crate) mod catalog;
pub(crate) mod code;
pub(crate) mod command;
mod deploys;
mod fastlane;
mod forge;
mod functions;
mod further;
pub(crate) mod git;
pub(crate) mod goreleaser;
pub(crate) mod guards;
pub(crate) mod headings;
mod http;
pub(crate) mod inputs;
mod known;
mod libraries;
mod make;
mod modules;
pub(crate) mod naming;
pub(crate) mod outputs;
mod programs;
mod projects;
mod publishes;
mod questions;
mod rarer;
pub(crate) mod reviewed;
mod runners;
mod shipping;
mod started;
pub(crate) mod strange;
mod table;
mod tidy;
pub(crate) mod told;
mod tools;
pub(crate) mod unlisted;
mod versions;
mod walk;
pub(crate) mod words;

use serde::Serialize;

/// One thing a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Act {
    pub(crate) op: Op,
    /// In a few words, for people: `npm publish`.
    pub(crate) what: String,
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) token: Token,
    /// Templates that must be true for the act to happen, as `push: ${{ … }}` of an action.
    pub(crate) only_if: Vec<String>,
    /// Templates that must not be true.
    pub(crate) unless: Vec<String>,
    /// Why this is not production, where it is not.
    pub(crate) benign: Option<&'static str>,
    /// Happens only when a release pull request has been merged (release-please, changesets).
    pub(crate) after_release_pr: bool,
    /// Does nothing but on the branches that releases are made from, and nothing for a pull
    /// request (semantic-release).
    pub(crate) release_branches: bool,
    /// The commit's message tells the forge to start nothing (`[skip ci]`).
    pub(crate) silent: bool,
    /// Where the forge refuses it, the step fails: it always happens, and with something to push.
    pub(crate) must: bool,
    /// A publish that needs a registry's credential, which the job may not have.
    pub(crate) needs_registry: bool,
    /// It finds the repository by the checkout around it, and fails without one.
    pub(crate) needs_checkout: bool,
    /// The right that the job's own token needs for it.
    pub(crate) needs_right: Option<&'static str>,
    /// It takes the place of what users get by name (`:latest`), from whichever branch it is made.
    pub(crate) latest: bool,
    /// The fact on which it is done at all, where its text does not say so.
    pub(crate) unsure: Option<String>,
}

/// What kind of thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Push(Target),
    CreatePr(NewPr),
    Merge {
        /// Waits for requirements instead of merging at once.
        auto: bool,
        /// Asks to step over the branch's protection.
        admin: bool,
        /// The label that must be on the pull request, where the act asks for one.
        label: Option<String>,
        /// Acts on pull requests of its own choice, not only on the one that started it.
        any: bool,
    },
    Approve,
    Label(Vec<String>),
    Comment(Option<String>),
    Issue,
    Tag(Option<String>),
    Release {
        draft: Option<String>,
        tag: Option<String>,
    },
    Publish,
    Deploy {
        environment: Option<String>,
    },
    Dispatch {
        workflow: Option<String>,
        repository: Option<String>,
    },
    RepositoryDispatch {
        event_type: Option<String>,
        repository: Option<String>,
    },
    /// Stops unless the one who started the run has rights, or unless a person confirms.
    Check(Check),
    /// Moves the pull request at hand to another branch.
    Retarget(String),
    /// Marks the job as working on a cluster, registry or cloud of its own.
    Local(&'static str),
}

/// What stops a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// The actor must have write access or be on a list.
    Actor(&'static str),
    /// A person must answer.
    Person(&'static str),
    /// The pull request at hand must be one that may be merged.
    Mergeable(&'static str),
    /// The job's token must have these rights: the step fails without them.
    Rights(&'static [&'static str]),
}

/// Where `git push` goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The branch that is checked out.
    Current,
    /// A branch by name; may hold templates.
    Branch(String),
    /// Tags only.
    Tags(Option<String>),
    /// The current branch and its tags.
    CurrentAndTags,
    /// Another repository.
    Elsewhere(String),
}

/// A pull request that a step opens.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct NewPr {
    pub(crate) labels: Vec<String>,
    pub(crate) head: Option<String>,
    pub(crate) base: Option<String>,
    /// A pull request whose merging releases (release-please, changesets, release-plz).
    pub(crate) release: bool,
}

/// Which credential an act uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// The first of these environment variables that is set, else the job's token.
    Env(&'static [&'static str]),
    /// What `actions/checkout` left behind for git.
    Git,
    /// A value, possibly with templates or shell variables.
    Value(String),
    /// A credential of the outside world (registry, cloud): not the forge's.
    Outside,
}

/// The kinds of production sink.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum SinkKind {
    /// Commits land on the default or a production branch.
    Merge,
    /// A tag or a release is made on the forge.
    Release,
    /// A package or image reaches a registry.
    Publish,
    /// Something runs or serves something new.
    Deploy,
}

impl SinkKind {
    /// The word that the reports use.
    pub fn word(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Release => "release",
            Self::Publish => "publish",
            Self::Deploy => "deploy",
        }
    }
}

pub(crate) const GH_ENV: &[&str] = &["GH_TOKEN", "GITHUB_TOKEN"];
pub(crate) const API_ENV: &[&str] = &["GITHUB_TOKEN", "GH_TOKEN", "TOKEN"];

impl Act {
    pub(crate) fn new(op: Op, what: impl Into<String>, token: Token) -> Self {
        Self {
            op,
            what: what.into(),
            file: String::new(),
            line: 0,
            token,
            only_if: Vec::new(),
            unless: Vec::new(),
            benign: None,
            after_release_pr: false,
            release_branches: false,
            silent: false,
            must: false,
            needs_registry: false,
            needs_checkout: false,
            needs_right: None,
            latest: false,
            unsure: None,
        }
    }

    pub(crate) fn publish(what: impl Into<String>) -> Self {
        Self::new(Op::Publish, what, Token::Outside)
    }

    pub(crate) fn deploy(what: impl Into<String>) -> Self {
        Self::new(Op::Deploy { environment: None }, what, Token::Outside)
    }

    pub(crate) fn benign_if(mut self, yes: bool, why: &'static str) -> Self {
        if yes {
            self.benign = Some(why);
        }
        self
    }

    pub(crate) fn only_if(mut self, template: Option<&str>) -> Self {
        self.only_if.extend(template.map(str::to_owned));
        self
    }

    pub(crate) fn unless(mut self, template: Option<&str>) -> Self {
        self.unless.extend(template.map(str::to_owned));
        self
    }
}

/// Whether a name says that it is not production.
pub(crate) fn is_rehearsal(name: &str) -> bool {
    let lower = name.to_lowercase();
    lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .any(|part| {
            matches!(
                part,
                "staging"
                    | "stage"
                    | "stg"
                    | "dev"
                    | "development"
                    | "develop"
                    | "test"
                    | "testing"
                    | "tests"
                    | "qa"
                    | "uat"
                    | "preview"
                    | "previews"
                    | "sandbox"
                    | "pr"
                    | "e2e"
                    | "ci"
                    | "local"
                    | "localhost"
                    | "nonprod"
                    | "integration"
                    | "demo"
                    | "testpypi"
                    | "ephemeral"
                    | "canary"
                    | "review"
            )
        })
        && !lower.contains("prod")
        || lower.contains("nonprod")
        || lower.contains("non-prod")
}

/// The words of a command that are no options, without the values of those that stand before the
/// first of them: `helmfile -e production sync`. `None` where no option stands there.
fn without_first_values<'a>(words: &[&'a str]) -> Option<Vec<&'a str>> {
    let mut at = 1;
    while let Some(word) = words.get(at).filter(|word| word.starts_with('-')) {
        at += 1;
        let value = words.get(at).is_some_and(|next| !next.starts_with('-'));
        at += usize::from(value && !word.contains('='));
    }
    (at > 1).then(|| {
        let rest = words.get(at..).unwrap_or_default().iter();
        rest.copied()
            .filter(|word| !word.starts_with('-'))
            .collect()
    })
}

/// A merge of the pull request at hand, at once or when its requirements are met.
pub(crate) fn merge(auto: bool) -> Op {
    forge::merge(auto)
}

/// Whether a script of one line does nothing but call a secret address that is no chat's.
pub(crate) fn is_bare_hook(script: &str) -> bool {
    let script = script.trim();
    let lower = script.to_ascii_lowercase();
    let chat = ["slack", "discord", "telegram", "teams"]
        .iter()
        .any(|mark| lower.contains(mark));
    if chat {
        return false;
    }
    let mut commands = crate::shell::commands(script);
    commands.retain(|command| {
        let name = command.words.first().map(String::as_str);
        !matches!(name, None | Some("set" | "echo" | "printf" | "true" | ":"))
    });
    matches!(commands.as_slice(), [one] if forge::is_bare_post(one))
}

pub(crate) fn publishes_goreleaser(what: &str, arguments: &str) -> Vec<Act> {
    publishes::goreleaser(what, arguments)
}
