//! What the words of a name say that an action, a workflow or a script does.
//!
//! Authors name things for what they do. What a name says is a claim: whether it is believed
//! depends on what the thing is given ([`crate::workflow`]).

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

/// Names that only look, prepare, talk or tidy up, whatever other words stand in them.
const QUIET: &[&str] = &[
    "setup",
    "download",
    "lint",
    "wait",
    "notif",
    "slack",
    "discord",
    "telegram",
    "comment",
    "preview",
    "status",
    "cache",
    "metadata",
    "changelog",
    "notes",
    "deployments",
    "create-deployment",
    "delete",
    "remove",
    "cleanup",
    "clean-up",
    "prune",
    "fetch",
    "marker",
    "pr-environment",
    "review-app",
    "description",
    "invalidate",
    "purge",
    "validat",
    "verif",
    "dry-run",
    "login",
    "credential",
    "test-reporter",
    "publish-unit-test",
    "publish-test",
    "report",
    "scan",
    "releases-to",
    "release-asset",
    "upload-to-release",
    // Services that keep texts, tasks and talk, and those that try apps out.
    "lokalise",
    "weblate",
    "crowdin",
    "transifex",
    "phrase",
    "jira",
    "confluence",
    "trello",
    "asana",
    "browserstack",
    "saucelabs",
    "lambdatest",
    "kobiton",
    "appetize",
    "maestro",
    "label",
    "codecov",
    "coverage",
    "coveralls",
    "sarif",
    "codeql",
    "semgrep",
    "sonar",
    "snyk",
    "trivy",
    "audit",
    "assign",
    "reviewer",
    "welcome",
    "greet",
    "triage",
    "stale",
    "milestone",
    "changed-files",
    "paths-filter",
    "detect",
    "extract",
    "calculat",
    "next-version",
    "current-version",
    "vault",
    "secret",
    "app-token",
    "access-token",
    "github-token",
    "oidc",
    "ssh-key",
    "ssh-agent",
    "known-hosts",
    "toolchain",
    "semantic-pull-request",
    "lighthouse",
    "chromatic",
    "percy",
    "cypress",
    "sentry",
    "datadog",
    "tmate",
];

/// The same, where they stand alone or end a word (`spellcheck`): `publish-to-artifactory` and
/// `checkout-and-deploy` do more than look.
const QUIET_ALONE: &[&str] = &[
    "install",
    "installer",
    "check",
    "checks",
    "checker",
    "checking",
    "artifact",
    "artifacts",
    "query",
    "queries",
    // What is told to a bus is a message.
    "nats",
    "mqtt",
    "kafka",
    "pubsub",
    "rabbitmq",
    "amqp",
    "sns",
    "sqs",
    "eventbridge",
];

/// First words of a name that say the same: `get-release`, but not `nuget-push`.
const QUIET_BEGINNINGS: &[&str] = &["get-", "find-", "list-", "read-", "is-", "has-", "require-"];

/// Words that say the same where they stand alone in a name.
const QUIET_WORDS: &[&str] = &[
    "test",
    "tests",
    "tester",
    "testing",
    "auth",
    "token",
    "tokens",
    "size",
    "compare",
    "diff",
    "debug",
    "title",
    "ping",
    "health",
    "monitor",
    "issue",
    "issues",
    "parse",
    "parser",
    "read",
    "reader",
    "filter",
    "matrix",
    "cancel",
    "skip",
    "review",
    "reviews",
    "clippy",
    "typos",
    "lock",
    "actor",
    "permission",
    "permissions",
    "links",
    "link",
    "e2e",
    "draft",
    "todo",
    "stats",
    "prepare",
    "checkout",
];

const REGISTRIES: &[&str] = &[
    "pypi",
    "npm",
    "docker",
    "dockerhub",
    "registry",
    "ecr",
    "gcr",
    "ghcr",
    "acr",
    "nuget",
    "crates",
    "maven",
    "gem",
    "rubygems",
    "packagist",
    "store",
    "play",
    "playstore",
    "testflight",
    "appstore",
    "marketplace",
    "vscode",
    "extension",
    "addon",
    "chrome",
    "firefox",
    "edge",
    "snap",
    "snapcraft",
    "flatpak",
    "flathub",
    "homebrew",
    "aur",
    "winget",
    "chocolatey",
    "scoop",
    "curseforge",
    "modrinth",
    "itch",
    "itchio",
    "steam",
    "workshop",
    "packagecloud",
    "cloudsmith",
    "artifactory",
    "nexus",
    "chart",
    "charts",
    "oci",
    "huggingface",
    "conda",
    "hex",
    "opam",
    "cpan",
    "image",
    "images",
    "package",
    "packages",
    "zenodo",
    "wordpress",
    "helm",
    "galaxy",
    "thunderstore",
    "webstore",
    "apk",
    "ipa",
    "ios",
    "android",
    "appgallery",
];

/// Those of them where nothing runs: what is deployed there is published.
const STORES: &[&str] = &[
    "pypi",
    "npm",
    "nuget",
    "crates",
    "gem",
    "rubygems",
    "packagist",
    "playstore",
    "testflight",
    "appstore",
    "marketplace",
    "vscode",
    "addon",
    "snapcraft",
    "flathub",
    "homebrew",
    "aur",
    "winget",
    "chocolatey",
    "scoop",
    "curseforge",
    "modrinth",
    "itch",
    "itchio",
    "steam",
    "workshop",
    "thunderstore",
    "webstore",
    "conda",
    "opam",
    "cpan",
    "zenodo",
    "galaxy",
];

/// Those whose entries are brought up to date from elsewhere.
const FOLLOWED: &[&str] = &[
    "aur",
    "winget",
    "homebrew",
    "scoop",
    "chocolatey",
    "flathub",
];

const PLACES: &[&str] = &[
    "s3",
    "gcs",
    "bucket",
    "blob",
    "cdn",
    "ftp",
    "ftps",
    "sftp",
    "ssh",
    "scp",
    "server",
    "vps",
    "cloudflare",
    "netlify",
    "vercel",
    "heroku",
    "surge",
    "firebase",
    "azure",
    "aws",
    "lambda",
    "ecs",
    "eks",
    "gke",
    "aks",
    "k8s",
    "kubernetes",
    "helm",
    "render",
    "railway",
    "fly",
    "dokku",
    "cpanel",
    "oss",
    "cos",
    "r2",
    "storage",
    "spaces",
    "neocities",
    "website",
    "site",
    "production",
    "prod",
    "cloudfront",
    "appengine",
    "cloudrun",
    "argocd",
    "gitops",
    "portainer",
    "coolify",
    "caprover",
];

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

/// Well-known actions whose names do not say that they ship nothing.
const KNOWN_QUIET: &[&str] = &[
    "step-security/harden-runner",
    "ossf/scorecard-action",
    "snyk/actions",
    "gitleaks/gitleaks-action",
    "trufflesecurity/trufflehog",
    "anchore/sbom-action",
    "anchore/scan-action",
    "securecodewarrior/github-action-add-sarif",
    "bridgecrewio/checkov-action",
    "aquasecurity/tfsec-action",
    "coverallsapp/github-action",
    "deepsourcelabs/test-coverage-action",
    "qltysh/qlty-action",
    "chromaui/action",
    "percy/exec-action",
    "cypress-io/github-action",
    "codspeedhq/action",
    "socketdev/action",
    "fossas/fossa-action",
    "oxsecurity/megalinter",
    "super-linter/super-linter",
    "github/super-linter",
    "nick-fields/retry",
    "jwalton/gh-find-current-pr",
    "dorny/paths-filter",
    "dorny/test-reporter",
    "tj-actions/changed-files",
    "fkirc/skip-duplicate-actions",
    "styfle/cancel-workflow-action",
    "webfactory/ssh-agent",
    "hashicorp/vault-action",
    "1password/load-secrets-action",
];

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
