//! What a published action does, by the words of its name alone.

use super::catalog::With;
use super::{Act, NewPr, Op, Target, Token, is_rehearsal};

/// An action that is not in the catalogue, by the words of its name: authors name actions for what
/// they do. Words that only look alike come first.
pub(super) fn by_words(what: &str, with: &With<'_>) -> Vec<Act> {
    let name = what.split('/').skip(1).collect::<Vec<_>>().join("/");
    let name = name.replace('_', "-");
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    let forge = |op: Op| vec![Act::new(op, what, with.token())];
    if what.starts_with("actions/")
        || what.starts_with("github/")
        || has(&[
            "setup",
            "install",
            "download",
            "lint",
            "check",
            "wait",
            "notify",
            "slack",
            "discord",
            "comment",
            "preview",
            "status",
            "cache",
            "metadata",
            "changelog",
            "notes",
            "deployments",
            "deployment-action",
            "create-deployment",
            "delete",
            "cleanup",
            "clean-up",
            "get-",
            "find-",
            "fetch",
            "validate",
            "verify",
            "dry-run",
            "artifact",
            "login",
            "credentials",
            "test-reporter",
            "publish-unit-test",
            "publish-test",
            "report",
            "scan",
            "query",
            "last-release",
            "latest-release",
            "releases-to",
            "release-asset",
        ])
    {
        return Vec::new();
    }
    if has(&[
        "automerge",
        "auto-merge",
        "merge-pull-request",
        "merge-pr",
        "merge-me",
    ]) {
        return forge(super::merge(has(&["enable"])));
    }
    if has(&["auto-approve", "autoapprove", "approve-pr", "approve-pull"]) {
        return forge(Op::Approve);
    }
    if has(&["create-pull-request", "create-pr", "open-pr"]) {
        return forge(Op::CreatePr(NewPr::default()));
    }
    if has(&[
        "create-release",
        "gh-release",
        "github-release",
        "release-action",
        "publish-release",
        "release-on-push",
        "auto-release",
    ]) {
        return forge(Op::Release {
            draft: with.get("draft").map(str::to_owned),
            tag: with.first(&["tag_name", "tag"]).map(str::to_owned),
        });
    }
    if has(&[
        "bump-version",
        "version-bump",
        "bumpversion",
        "bump-my-version",
    ]) {
        return vec![Act::new(Op::Push(Target::CurrentAndTags), what, Token::Git)];
    }
    if has(&[
        "tag-action",
        "autotag",
        "auto-tag",
        "create-tag",
        "git-tag",
        "push-tag",
        "bump-tag",
    ]) {
        return forge(Op::Tag(with.first(&["tag", "tag_name"]).map(str::to_owned)));
    }
    if has(&["gh-pages", "ghpages", "github-pages", "pages-deploy"]) {
        return forge(Op::Push(Target::Branch("gh-pages".to_owned())));
    }
    if has(&[
        "git-auto-commit",
        "commit-and-push",
        "add-and-commit",
        "git-push",
        "push-changes",
        "commit-push",
        "auto-commit",
        "commit-changes",
    ]) {
        return vec![Act::new(Op::Push(Target::Current), what, Token::Git)];
    }
    // Profile and readme generators commit what they make.
    if has(&[
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
    ]) || what == "lowlighter/metrics"
    {
        return forge(Op::Push(Target::Current));
    }
    let publishes = has(&[
        "publish",
        "push-to-registry",
        "docker-push",
        "build-push",
        "build-and-push",
    ]);
    if publishes && !has(&["pages"]) {
        return vec![Act::publish(what).unless(with.first(&["dry-run", "dry_run"]))];
    }
    if has(&["deploy", "rsync", "s3-sync", "ftp-"]) {
        let target = with
            .first(&[
                "environment",
                "stage",
                "namespace",
                "app",
                "service",
                "host",
            ])
            .unwrap_or_default();
        return vec![Act::deploy(what).benign_if(
            is_rehearsal(target),
            "the target's name says that it is not production",
        )];
    }
    Vec::new()
}
