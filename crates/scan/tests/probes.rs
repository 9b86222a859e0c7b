//! Single steps of a nightly job, and the kinds of sinks that each reaches where nothing is
//! protected: `tests/probes`, one a line (`KINDS`, a tab, a command, whose lines `\n` parts,
//! `ACTION {inputs}`, a program, or a step of another system).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;

use portcullis_scan::report::{Assumption, Decision};
use portcullis_scan::scan_memory;

const HEAD: &str = "on:\n  schedule:\n    - cron: '0 3 * * *'\npermissions:\n  contents: write\n  \
    pull-requests: write\n  packages: write\n  id-token: write\n  pages: write\njobs:\n  go:\n    \
    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@v4\n";

type Files = Vec<(String, String)>;

/// A step of a nightly workflow.
fn nightly(step: &str) -> Files {
    vec![(
        ".github/workflows/nightly.yml".to_owned(),
        format!("{HEAD}{step}"),
    )]
}

fn wrong(probes: &str, files: impl Fn(&str) -> Files) -> (usize, String) {
    let mut wrong = String::new();
    let mut count = 0;
    for line in probes.lines().filter(|line| !line.starts_with('#')) {
        let (kinds, text) = line.split_once('\t').unwrap();
        let wanted: BTreeSet<&str> = kinds.split(',').filter(|kind| *kind != "none").collect();
        let files = files(text).into_iter().collect();
        let report = scan_memory(vec![("acme/widget".to_owned(), files)], &[]);
        let problems = &report.repositories[0].problems;
        assert!(problems.is_empty(), "{text}: {problems:?}");
        let found: BTreeSet<&str> = report
            .verdicts()
            .filter(|verdict| {
                verdict.assumption == Assumption::Unprotected
                    && verdict.verdict == Decision::Reachable
            })
            .map(|verdict| verdict.kind.word())
            .collect();
        if found != wanted {
            writeln!(wrong, "{text}: {found:?} instead of {wanted:?}").unwrap();
        }
        count += 1;
    }
    (count, wrong)
}

#[test]
fn commands() {
    let (count, wrong) = wrong(include_str!("probes/commands.tsv"), |text| {
        let text = text.replace("\\n", "\n          ");
        nightly(&format!("      - run: |\n          {text}\n"))
    });
    assert!(count >= 400, "only {count} probes");
    assert!(wrong.is_empty(), "of {count}:\n{wrong}");
}

#[test]
fn actions() {
    let (count, wrong) = wrong(include_str!("probes/actions.tsv"), |text| {
        let (uses, with) = text.split_once(' ').unwrap_or((text, "{}"));
        nightly(&format!("      - uses: {uses}\n        with: {with}\n"))
    });
    assert!(count >= 300, "only {count} probes");
    assert!(wrong.is_empty(), "of {count}:\n{wrong}");
}

#[test]
fn agents() {
    let (count, wrong) = wrong(include_str!("probes/agents.tsv"), |text| {
        nightly(&format!("      - {}\n", text.replace("\\n", "\n        ")))
    });
    assert!(count >= 70, "only {count} probes");
    assert!(wrong.is_empty(), "of {count}:\n{wrong}");
}

#[test]
fn steps() {
    let (count, wrong) = wrong(include_str!("probes/steps.tsv"), |text| {
        nightly(&format!("      - {}\n", text.replace("\\n", "\n        ")))
    });
    assert!(count >= 50, "only {count} probes");
    assert!(wrong.is_empty(), "of {count}:\n{wrong}");
}

#[test]
fn programs() {
    let (count, wrong) = wrong(include_str!("probes/programs.tsv"), |text| {
        let (language, code) = text.split_once(' ').unwrap();
        let code = code.replace("\\n", "\n");
        if language == "script" {
            let code = code.replace('\n', "\n            ");
            return nightly(&format!(
                "      - uses: actions/github-script@v7\n        with:\n          script: |\n            \
                 {code}\n"
            ));
        }
        let run = match language {
            "py" => "python tools/go.py",
            "js" => "node tools/go.js",
            "rb" => "ruby tools/go.rb",
            _ => "go run ./tools/go.go",
        };
        let mut files = nightly(&format!(
            "      - run: {run}\n        env:\n          GITHUB_TOKEN: ${{{{ github.token }}}}\n"
        ));
        files.push((format!("tools/go.{language}"), format!("{code}\n")));
        files
    });
    assert!(count >= 100, "only {count} probes");
    assert!(wrong.is_empty(), "of {count}:\n{wrong}");
}

#[test]
fn gitlab() {
    let (count, wrong) = wrong(include_str!("probes/gitlab.tsv"), |text| {
        let file = format!("{}\n", text.replace("\\n", "\n"));
        vec![(".gitlab-ci.yml".to_owned(), file)]
    });
    assert!(count >= 40, "only {count} probes");
    assert!(wrong.is_empty(), "of {count}:\n{wrong}");
}

#[test]
fn azure() {
    let (count, wrong) = wrong(include_str!("probes/azure.tsv"), |text| {
        let head = "trigger: none\nschedules:\n- cron: '0 3 * * *'\n  branches:\n    include: \
                    [main]\n  always: true\npool:\n  vmImage: ubuntu-latest\nsteps:\n";
        let step = text.replace("\\n", "\n");
        vec![(
            "azure-pipelines.yml".to_owned(),
            format!("{head}- {step}\n"),
        )]
    });
    assert!(count >= 100, "only {count} probes");
    assert!(wrong.is_empty(), "of {count}:\n{wrong}");
}

#[test]
fn jenkins() {
    let (count, wrong) = wrong(include_str!("probes/jenkins.tsv"), |text| {
        let step = text.replace("\\n", "\n        ");
        vec![(
            "Jenkinsfile".to_owned(),
            format!(
                "pipeline {{\n  agent any\n  triggers {{ cron('H 3 * * *') }}\n  stages {{\n    \
                 stage('Go') {{\n      steps {{\n        {step}\n      }}\n    }}\n  }}\n}}\n"
            ),
        )]
    });
    assert!(count >= 50, "only {count} probes");
    assert!(wrong.is_empty(), "of {count}:\n{wrong}");
}

#[test]
fn circleci() {
    let (count, wrong) = wrong(include_str!("probes/circleci.tsv"), |text| {
        let (orb, step) = text.split_once(" || ").unwrap();
        vec![(
            ".circleci/config.yml".to_owned(),
            format!(
                "version: 2.1\norbs:\n  {orb}\njobs:\n  go:\n    docker:\n      - image: \
                 cimg/base:stable\n    steps:\n      - checkout\n      - {step}\nworkflows:\n  \
                 nightly:\n    triggers:\n      - schedule:\n          cron: '0 3 * * *'\n          \
                 filters:\n            branches:\n              only: main\n    jobs:\n      - go\n"
            ),
        )]
    });
    assert!(count >= 40, "only {count} probes");
    assert!(wrong.is_empty(), "of {count}:\n{wrong}");
}
