//! What the words of a name say that an action, a workflow or a script does.
//!
//! Authors name things for what they do. What a name says is a claim: whether it is believed
//! depends on what the thing is given ([`crate::workflow`]).

mod lists;

use lists::{FOLLOWED, KNOWN_QUIET, PLACES, QUIET, QUIET_ALONE, QUIET_WORDS, REGISTRIES, STORES};

/// What a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Merge {
        auto: bool,
    },
    Approve,
    CreatePr,
    Release,
    /// A new version: a commit and its tag.
    Bump,
    Tag,
    Pages,
    Commit,
    /// Files that are made anew: committed, or proposed as a pull request.
    Update,
    Publish,
    Deploy,
    Dispatch,
    RepositoryDispatch,
}

/// A claim, and whether the name leaves no doubt about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) claim: Claim,
    pub(crate) plain: bool,
}

/// First words of a name that say the same: `get-release`, but not `nuget-push`.
const QUIET_BEGINNINGS: &[&str] = &["get-", "find-", "list-", "read-", "is-", "has-", "require-"];

/// The words that a name is made of.
pub(crate) fn words(name: &str) -> Vec<String> {
    name.to_ascii_lowercase()
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Whether a word names a registry or a store.
pub(super) fn is_registry(word: &str) -> bool {
    REGISTRIES.contains(&word)
}

/// Whether a word names a place where things run.
pub(super) fn is_place(word: &str) -> bool {
    PLACES.contains(&word)
}

/// Whether a name says that nothing leaves the run.
pub(crate) fn is_quiet(name: &str) -> bool {
    let name = plain_name(name);
    KNOWN_QUIET.iter().any(|known| name.starts_with(known))
        || only_looks(&name)
        || words(&name)
            .iter()
            .any(|word| QUIET_WORDS.contains(&word.as_str()))
            && said_aloud(&name).is_none_or(|said| !said.plain)
}

fn only_looks(name: &str) -> bool {
    let split = words(name);
    // What a pull request deploys is a preview; the latest release is asked for, unless it goes on.
    let of_request = split
        .windows(2)
        .any(|pair| pair == ["deploy", "pr"] || pair == ["pr", "deploy"]);
    let newest = ["last-release", "latest-release"]
        .iter()
        .any(|word| name.contains(word))
        && !["deploy", "publish", "upload", "create"]
            .iter()
            .any(|word| name.contains(word));
    of_request
        || newest
        || QUIET.iter().any(|word| name.contains(word))
        || words(name)
            .iter()
            .any(|word| QUIET_ALONE.contains(&word.as_str()) || word.ends_with("check"))
        || QUIET_BEGINNINGS.iter().any(|word| {
            name.starts_with(word)
                || name.match_indices(word).any(|(at, _)| {
                    name.get(..at)
                        .is_some_and(|before| before.ends_with(['-', '/']))
                })
        })
}

fn plain_name(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

/// What a name says, if it does; nothing for those that only look alike.
pub(crate) fn said(name: &str) -> Option<Said> {
    let name = plain_name(name);
    if only_looks(&name) {
        return None;
    }
    said_aloud(&name).or_else(|| said_by_words(&words(&name)))
}

/// Names that leave no doubt.
fn said_aloud(name: &str) -> Option<Said> {
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    let name_words = words(name);
    let padded = format!("-{}-", name_words.join("-"));
    // `merge-pr` is not a beginning of `merge-properties`.
    let runs = |words: &[&str]| {
        words.iter().any(|word| {
            padded.contains(&format!("-{word}-")) || padded.contains(&format!("-{word}s-"))
        })
    };
    let claim = if runs(&[
        "automerge",
        "automerger",
        "auto-merger",
        "auto-merge",
        "merge-pull-request",
        "merge-pr",
        "merge-me",
        "merge-dependabot",
    ]) {
        Claim::Merge {
            auto: has(&["enable"]),
        }
    } else if runs(&[
        "auto-approve",
        "auto-approver",
        "autoapprove",
        "autoapprover",
        "approve-pr",
        "approve-pull",
    ]) {
        Claim::Approve
    } else if runs(&["create-pull-request", "create-pr", "open-pr"]) {
        Claim::CreatePr
    } else if runs(&[
        "create-release",
        "gh-release",
        "github-release",
        "release-action",
        "publish-release",
        "release-publish",
        "release-on-push",
        "auto-release",
    ]) {
        Claim::Release
    } else if runs(&[
        "bump-version",
        "version-bump",
        "bumpversion",
        "bump-my-version",
    ]) {
        Claim::Bump
    } else if !tags_images(&name_words)
        && runs(&[
            "tag-action",
            "autotag",
            "autotagger",
            "auto-tag",
            "auto-tagger",
            "create-tag",
            "git-tag",
            "push-tag",
            "bump-tag",
        ])
    {
        Claim::Tag
    } else if has(&["gh-pages", "ghpages", "github-pages", "pages-deploy"])
        || runs(&[
            "publish-pages",
            "deploy-pages",
            "push-pages",
            "pages-publish",
        ])
    {
        Claim::Pages
    } else if runs(&[
        "fork-sync",
        "sync-fork",
        "upstream-sync",
        "sync-upstream",
        "sync-with-upstream",
        "repo-sync",
    ]) {
        Claim::Update
    } else if has(&[
        "git-auto-commit",
        "commit-and-push",
        "add-and-commit",
        "git-push",
        "push-changes",
        "commit-push",
        "auto-commit",
        "commit-changes",
        // Profile and readme generators commit what they make.
        "waka-readme",
        "wakatime",
        "blog-post-workflow",
        "activity-readme",
        "readme-stats",
        "github-stats",
        "todoist-readme",
        "readme-quotes",
        "profile-3d-contrib",
        "contribution-readme",
        "spotify-readme",
    ]) {
        Claim::Commit
    } else if has(&["repository-dispatch", "repo-dispatch"]) {
        Claim::RepositoryDispatch
    } else if has(&[
        "workflow-dispatch",
        "dispatch-workflow",
        "trigger-workflow",
        "workflow-trigger",
        "trigger-github-workflow",
    ]) {
        Claim::Dispatch
    } else if runs(&[
        "to-s3",
        "to-gcs",
        "to-r2",
        "to-cdn",
        "to-ftp",
        "to-sftp",
        "to-bucket",
        "to-server",
        "to-vps",
        "to-cloudfront",
    ]) && has(&["publish", "deploy", "upload", "push", "sync"])
    {
        Claim::Deploy
    } else if has(&[
        "publish",
        "push-to-registry",
        "to-ecr",
        "to-ghcr",
        "to-dockerhub",
        "to-docker-hub",
        "docker-push",
        "build-push",
        "build-and-push",
    ]) || runs(&["deploy"])
        && name_words
            .iter()
            .any(|word| STORES.contains(&word.as_str()))
    {
        Claim::Publish
    } else if has(&["deploy", "rsync", "s3-sync", "ftp-"]) {
        Claim::Deploy
    } else {
        return None;
    };
    Some(Said { claim, plain: true })
}

/// Whether the tags that a name speaks of are those of images.
fn tags_images(words: &[String]) -> bool {
    words.iter().any(|word| {
        matches!(
            word.as_str(),
            "docker" | "image" | "images" | "container" | "containers" | "oci"
        )
    })
}

/// Whether what the name merges are files.
fn merges_files(words: &[String]) -> bool {
    words.iter().any(|word| {
        matches!(
            word.as_str(),
            "json"
                | "jsons"
                | "yaml"
                | "yml"
                | "csv"
                | "xml"
                | "lcov"
                | "junit"
                | "pdf"
                | "pdfs"
                | "file"
                | "files"
                | "results"
                | "logs"
                | "blobs"
                | "configs"
                | "conflict"
                | "conflicts"
                | "allure"
        )
    })
}

/// Whether the name speaks of commits that are there: of hooks on them, of what they say.
fn of_commits(words: &[String]) -> bool {
    words.iter().any(|word| word == "conventional")
        || words.windows(2).any(|pair| {
            let [first, second] = pair else { return false };
            matches!(
                (first.as_str(), second.as_str()),
                (
                    "pre" | "post" | "last" | "latest" | "on" | "of" | "this",
                    "commit"
                ) | (
                    "commit",
                    "message"
                        | "messages"
                        | "msg"
                        | "sha"
                        | "hash"
                        | "info"
                        | "author"
                        | "data"
                        | "range"
                        | "hooks"
                        | "hook"
                        | "graph"
                        | "history"
                )
            )
        })
}

/// What single words hint at.
fn said_by_words(words: &[String]) -> Option<Said> {
    let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
    let claim = if has(FOLLOWED) && has(&["update", "updater", "releaser", "tap"]) {
        Claim::Publish
    } else if has(&["merge", "merges", "merger", "mergebot", "automerger"]) && !merges_files(words)
    {
        Claim::Merge { auto: false }
    } else if has(&["approve", "approver"]) {
        Claim::Approve
    } else if has(&[
        "upload", "uploader", "push", "pusher", "release", "submit", "bump",
    ]) && has(REGISTRIES)
    {
        Claim::Publish
    } else if has(&["tag", "retag"]) && has(&["registry", "ecr", "ghcr", "acr", "gcr"]) {
        // An image gets a further name there.
        Claim::Publish
    } else if has(&["upload", "uploader", "push", "sync", "release", "copy"]) && has(PLACES)
        || has(&["rollout", "redeploy", "promote", "promotion"])
        || words.windows(2).any(|pair| pair == ["blue", "green"])
        || has(&["ssh", "scp", "sftp", "ftp"])
    {
        Claim::Deploy
    } else if has(QUIET_WORDS) {
        return None;
    } else if has(&[
        "release",
        "releases",
        "releaser",
        "prerelease",
        "semrel",
        "nightly",
    ]) {
        Claim::Release
    } else if has(&["bump", "bumper"]) {
        Claim::Bump
    } else if has(&["tag", "tags", "tagger", "retag", "tagging"]) && !tags_images(words) {
        Claim::Tag
    } else if has(&["commit", "commits", "committer", "push", "pusher"]) && !of_commits(words) {
        Claim::Commit
    } else if has(&[
        "update",
        "updater",
        "updates",
        "upgrade",
        "upgrader",
        "sync",
        "syncer",
        "generate",
        "generator",
        "regenerate",
        "readme",
        "contributors",
        "format",
        "formatter",
        "prettier",
        "fix",
        "autofix",
        "fixer",
        "translate",
        "i18n",
        "l10n",
        "badge",
        "badges",
        "snake",
        "keepalive",
        "backup",
        "archive",
        "copyright",
        "copyrights",
        "sponsors",
    ]) {
        Claim::Update
    } else {
        return None;
    };
    Some(Said {
        claim,
        plain: false,
    })
}
