//! What the name that a person gave a step or a job says that it does.
//!
//! Such a name says what is meant, not what is done: `Upload assets` above a program that nothing
//! knows. It is believed only of what can't be read, and only with a credential for it
//! ([`crate::workflow`]).

use super::words::{self, Claim};
use super::{is_rehearsal, words::is_place, words::is_registry};

/// What a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heading {
    pub(crate) claim: Claim,
    /// It names where things go: a registry, a place where things run.
    pub(crate) aimed: bool,
}

/// Most words of a name that are looked at.
const WORDS_MAX: usize = 16;

/// Words before the verb that say nothing of what is done.
const FILLERS: &[&str] = &[
    "run",
    "do",
    "does",
    "execute",
    "perform",
    "start",
    "finally",
    "auto",
    "automatically",
    "the",
    "a",
    "an",
    "new",
    "nightly",
    "daily",
    "weekly",
    "monthly",
    "scheduled",
    "automatic",
    "automated",
    "create",
    "make",
    "cut",
    "trigger",
    "actually",
    "step",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "8",
    "9",
    "fully",
    "semantic",
    "github",
    "production",
    "prod",
    "live",
    "main",
    "final",
    "force",
];

/// Words that say that something is made ready, looked at or told, and not done.
const NOT_DONE: &[&str] = &[
    "prepare",
    "prepares",
    "preparing",
    "pre",
    "post",
    "before",
    "after",
    "plan",
    "dry",
    "dryrun",
    "simulate",
    "simulated",
    "summary",
    "summarize",
    "announce",
    "announcement",
    "print",
    "show",
    "set",
    "configure",
    "config",
    "configuration",
    "env",
    "environment",
    "variables",
    "dependencies",
    "key",
    "keys",
    "secrets",
    "skip",
    "skipped",
    "smoke",
    "if",
    "needed",
    "should",
    "determine",
    "decide",
    "compute",
    "log",
    "logs",
    "message",
    "messages",
    "event",
    "events",
    "metrics",
    "metric",
    "results",
    "result",
    "benchmark",
    "benchmarks",
    "stats",
    "timing",
    "trace",
    "traces",
    "url",
    "info",
    "information",
    "branch",
    "branches",
    "pr",
    "prs",
    "candidate",
    "body",
    "draft",
    "name",
    "mode",
    "binary",
    "binaries",
    "runner",
    "manifest",
    "job",
    "template",
    "locally",
    "readiness",
    "eligibility",
    "conditions",
    "gate",
    "no",
    "not",
    "without",
    "fail",
    "failed",
    "failure",
    "error",
    "errors",
    "success",
    "succeeded",
    "rollback",
    "undeploy",
    "unpublish",
    "teardown",
    "destroy",
    "symbols",
    "sourcemaps",
    "dsym",
    "mapping",
    "crash",
    "cve",
    "analysis",
    "translations",
    "translation",
    "strings",
    "logs",
    "screenshots",
    "snapshot",
    "snapshots",
    "tweet",
    "twitter",
    "mastodon",
    "bluesky",
    "linkedin",
    "social",
    "newsletter",
    "notification",
];

/// What a name says, if it leaves no doubt.
pub(crate) fn read(name: &str) -> Option<Heading> {
    if name.len() > 200 {
        return None;
    }
    let all = words::words(name);
    let has = |list: &[&str]| all.iter().any(|word| list.contains(&word.as_str()));
    let slug = all.join("-").replace("release-asset", "release");
    let merges = has(&["automerge"]) || slug.contains("auto-merge") || has(&["merge"]);
    let asked = !merges && has(NOT_DONE) || all.len() > WORDS_MAX;
    if asked || words::is_quiet(&slug) {
        return None;
    }
    let lower = name.to_lowercase();
    lower
        .split([',', '&', '+', '/', ';', '|', ':'])
        .flat_map(|part| part.split(" and "))
        .flat_map(|part| part.split(" then "))
        .find_map(clause)
}

/// What one part of a name says: its verb stands first, but for what says nothing.
fn clause(text: &str) -> Option<Heading> {
    if is_rehearsal(text) {
        return None;
    }
    let all = words::words(text);
    let at = all
        .iter()
        .position(|word| !FILLERS.contains(&word.as_str()));
    // `Create release`, `GitHub release`: the verb is a noun there.
    let verb = all.get(at?)?.as_str();
    let rest = all.get(at? + 1..).unwrap_or_default();
    let has = |list: &[&str]| rest.iter().any(|word| list.contains(&word.as_str()));
    let registry = rest.iter().any(|word| is_registry(word));
    let place = rest.iter().any(|word| is_place(word));
    let heading = |claim: Claim, aimed: bool| Some(Heading { claim, aimed });
    match verb {
        "deploy" | "deploys" | "redeploy" | "deploying" | "rollout" => heading(Claim::Deploy, true),
        "deployment" if rest.is_empty() => heading(Claim::Deploy, true),
        "roll" if rest.first().is_some_and(|word| word == "out") => heading(Claim::Deploy, true),
        "publish" | "publishes" | "publishing" => {
            if has(&["release", "releases"]) && !registry {
                heading(Claim::Release, true)
            } else if has(&[
                "site",
                "website",
                "docs",
                "documentation",
                "page",
                "pages",
                "blog",
            ]) {
                heading(Claim::Deploy, true)
            } else {
                heading(Claim::Publish, registry)
            }
        }
        "release" | "releases" | "releasing" => heading(Claim::Release, registry),
        "upload" | "push" | "submit" | "ship" | "send" | "promote" => {
            if has(&["release", "releases", "asset", "assets"]) && !place {
                heading(Claim::Release, true)
            } else if registry {
                heading(Claim::Publish, true)
            } else if place && verb != "send" {
                heading(Claim::Deploy, true)
            } else {
                None
            }
        }
        "automerge" => heading(Claim::Merge { auto: false }, true),
        "merge"
            if has(&[
                "pr",
                "prs",
                "pull",
                "request",
                "requests",
                "dependabot",
                "renovate",
                "mr",
            ]) =>
        {
            heading(Claim::Merge { auto: false }, true)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_say_what_is_done() {
        for (name, claim) in [
            ("Deploy", Claim::Deploy),
            ("🚀 Deploy to production", Claim::Deploy),
            ("Build, test and deploy", Claim::Deploy),
            ("Run deployment", Claim::Deploy),
            ("Roll out", Claim::Deploy),
            ("Publish documentation", Claim::Deploy),
            ("Upload to S3", Claim::Deploy),
            ("Publish", Claim::Publish),
            ("Publish package to npm", Claim::Publish),
            ("Push to Docker Hub registry", Claim::Publish),
            ("Submit to the Play Store", Claim::Publish),
            ("Upload assets", Claim::Release),
            ("Upload release assets", Claim::Release),
            ("Create GitHub release", Claim::Release),
            ("Do release", Claim::Release),
            ("Publish nightly release", Claim::Release),
            (
                "Auto merge: merge pull requests",
                Claim::Merge { auto: false },
            ),
        ] {
            assert_eq!(read(name).map(|found| found.claim), Some(claim), "{name}");
        }
    }

    #[test]
    fn names_that_say_something_else() {
        for name in [
            "",
            "Build",
            "Build release",
            "Build release binaries",
            "Prepare release",
            "Create release branch",
            "Create release PR",
            "Release notes",
            "Check whether to deploy",
            "Verify deployment",
            "Deploy to staging",
            "Deploy preview",
            "Pre-deploy hooks",
            "After deploy",
            "Wait for release",
            "Set release version",
            "Publish test results",
            "Publish metrics",
            "Publish to Twitter",
            "Notify of the release",
            "Upload artifacts",
            "Upload coverage",
            "Upload symbols to the store",
            "Push changes",
            "Merge reports",
            "Install deploy tool",
            "Fetch latest release",
            "Test publish",
            "Roll back",
        ] {
            assert_eq!(read(name), None, "{name}");
        }
    }
}
