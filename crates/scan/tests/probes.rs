//! Single steps of a nightly job, and the kinds of sinks that each reaches where nothing is
//! protected: `tests/probes`, one a line (`KINDS`, a tab, a command, whose lines `\n` parts, or
//! `ACTION {inputs}`).

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

fn wrong(probes: &str, step: impl Fn(&str) -> String) -> (usize, String) {
    let mut wrong = String::new();
    let mut count = 0;
    for line in probes.lines().filter(|line| !line.starts_with('#')) {
        let (kinds, text) = line.split_once('\t').unwrap();
        let wanted: BTreeSet<&str> = kinds.split(',').filter(|kind| *kind != "none").collect();
        let workflow = format!("{HEAD}{}", step(text));
        let files = [(".github/workflows/nightly.yml".to_owned(), workflow)].into();
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
        format!("      - run: |\n          {text}\n")
    });
    assert!(count >= 400, "only {count} probes");
    assert!(wrong.is_empty(), "of {count}:\n{wrong}");
}

#[test]
fn actions() {
    let (count, wrong) = wrong(include_str!("probes/actions.tsv"), |text| {
        let (uses, with) = text.split_once(' ').unwrap_or((text, "{}"));
        format!("      - uses: {uses}\n        with: {with}\n")
    });
    assert!(count >= 300, "only {count} probes");
    assert!(wrong.is_empty(), "of {count}:\n{wrong}");
}
