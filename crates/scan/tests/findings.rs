//! One quiet workflow, changed by a line at a time: each change raises its rule and no other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

use std::collections::{BTreeMap, BTreeSet};

use portcullis_scan::report::{ApprovalClass, RepositoryReport};
use portcullis_scan::scan_memory;

const FILE: &str = ".github/workflows/fix.yml";

const QUIET: &str = "\
on:
  issue_comment: {types: [created]}
permissions: {contents: read, id-token: write}
jobs:
  fix:
    if: contains(fromJSON('[\"OWNER\",\"MEMBER\"]'), github.event.comment.author_association)
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: anthropics/claude-code-action@0123456789abcdef0123456789abcdef01234567
        env: {LANG: C}
        with:
          prompt: Mend the lints
          anthropic_api_key: ${{ secrets.ANTHROPIC_API_KEY }}
";

fn scan(files: &[(&str, &str)]) -> RepositoryReport {
    let files: BTreeMap<String, String> = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
        .collect();
    let report = scan_memory(vec![("acme/widget".to_owned(), files)], &[]);
    report.repositories.into_iter().next().unwrap()
}

fn rules(report: &RepositoryReport) -> BTreeSet<&str> {
    report
        .findings
        .iter()
        .map(|finding| finding.rule.as_str())
        .collect()
}

/// The quiet workflow with one text in it replaced.
fn changed(old: &str, new: &str) -> String {
    assert_eq!(QUIET.matches(old).count(), 1, "{old}");
    QUIET.replace(old, new)
}

#[test]
fn each_change_raises_its_rule_and_says_where_and_what() {
    assert_eq!(rules(&scan(&[(FILE, QUIET)])), BTreeSet::new());
    let cases = [
        (
            "agent-unpinned",
            "@0123456789abcdef0123456789abcdef01234567",
            "@v1",
            "is not pinned",
        ),
        (
            "agent-broad-token",
            "permissions: {contents: read, id-token: write}",
            "permissions: write-all",
            "write-all",
        ),
        (
            "agent-broad-token",
            "permissions: {contents: read, id-token: write}",
            "permissions: {contents: write, packages: write, id-token: write}",
            "contents, packages",
        ),
        (
            "agent-secrets-in-reach",
            "env: {LANG: C}",
            "env: {REGISTRY_KEY: '${{ secrets.REGISTRY_KEY }}'}",
            "REGISTRY_KEY",
        ),
        (
            "agent-secrets-in-reach",
            "env: {LANG: C}",
            "env: {ALL: '${{ toJSON(secrets) }}'}",
            "all secrets",
        ),
        (
            "agent-untrusted-prompt",
            "prompt: Mend the lints",
            "prompt: Do this ${{ github.event.comment.body }}",
            "and it may write",
        ),
        (
            "agent-untrusted-prompt",
            "env: {LANG: C}",
            "env: {TEXT: '${{ github.event.issue.title }}'}",
            "github.event.issue.title",
        ),
        (
            "agent-standing-credential",
            "prompt: Mend the lints",
            "github_token: ${{ secrets.BOT_PAT }}",
            "secrets.BOT_PAT",
        ),
        (
            "agent-fork-instructions",
            "- uses: actions/checkout@v4",
            "- {uses: actions/checkout@v4, with: {ref: 'refs/pull/${{ github.event.issue.number }}/head'}}",
            "",
        ),
    ];
    let mut wrong = Vec::new();
    for (rule, old, new, says) in cases {
        let report = scan(&[(FILE, &changed(old, new))]);
        let found = rules(&report);
        let others: Vec<&&str> = found.iter().filter(|other| **other != rule).collect();
        let said = report
            .findings
            .iter()
            .any(|one| one.rule == rule && one.line > 0 && one.message.contains(says));
        if !said || !others.is_empty() {
            wrong.push(format!("{new}: wanted {rule}, got {:#?}", report.findings));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_class_of_approval_is_told_from_the_others() {
    let classes = |report: &RepositoryReport| -> BTreeSet<ApprovalClass> {
        report.approvals.iter().map(|one| one.class).collect()
    };
    let merging = |trigger: &str, condition: &str, run: &str| {
        format!(
            "on:\n  {trigger}\npermissions: {{contents: write, pull-requests: write}}\njobs:\n  go:\n    \
             if: {condition}\n    runs-on: ubuntu-latest\n    steps:\n      - run: {run}\n        \
             env: {{GH_TOKEN: '${{{{ secrets.GITHUB_TOKEN }}}}'}}\n"
        )
    };
    let merge = "gh pr merge --squash \"$PR\"";
    let cases = [
        (
            ApprovalClass::Bot,
            merging(
                "pull_request:",
                "always()",
                "gh pr review --approve \"$PR\"",
            ),
        ),
        (
            ApprovalClass::SelfAttested,
            merging(
                "pull_request_target: {types: [labeled]}",
                "github.event.label.name == 'ready'",
                merge,
            ),
        ),
        (
            ApprovalClass::Forgeable,
            merging(
                "pull_request_target:",
                "github.actor == 'dependabot[bot]'",
                merge,
            ),
        ),
    ];
    for (class, text) in cases {
        let report = scan(&[(".github/workflows/go.yml", &text)]);
        assert_eq!(
            classes(&report),
            BTreeSet::from([class]),
            "{text}\n{:#?}",
            report.approvals
        );
    }
    // A check that asks for the author instead is none that anyone can pretend to.
    let author = "github.event.pull_request.user.login == 'dependabot[bot]'";
    for (condition, spoofable) in [("github.actor == 'dependabot[bot]'", true), (author, false)] {
        let text = merging("pull_request_target:", condition, merge);
        let report = scan(&[(".github/workflows/go.yml", &text)]);
        assert_eq!(rules(&report).contains("spoofable-actor-check"), spoofable);
        assert_eq!(
            classes(&report).contains(&ApprovalClass::Forgeable),
            spoofable
        );
    }
    let report = scan(&[
        (".github/CODEOWNERS", "* @acme/people\n"),
        (
            ".github/workflows/go.yml",
            "on: push\njobs:\n  go:\n    environment: production\n    runs-on: ubuntu-latest\n    steps:\n      - run: kubectl apply -f app.yml\n",
        ),
    ]);
    assert_eq!(
        classes(&report),
        BTreeSet::from([ApprovalClass::Human]),
        "{:#?}",
        report.approvals
    );
}
