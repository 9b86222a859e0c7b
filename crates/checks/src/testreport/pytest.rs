//! The text of `pytest -v` (`path::test PASSED [ 10%]`) and of `-rA` (`PASSED path::test`).
//!
//! Both may be in one output, so a test may be named twice; the worst counts. The last line,
//! `=== 3 passed, 1 failed in 0.12s ===`, must agree.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use portcullis_model::Refusal;
use regex::Regex;

use super::{Outcome, TestReport, incomplete, leading_number};

pub(super) fn parse(text: &str) -> Result<TestReport, Refusal> {
    let mut report = TestReport::default();
    let mut passed: BTreeSet<String> = BTreeSet::new();
    let mut failed: BTreeSet<String> = BTreeSet::new();
    let mut totals = None;
    for line in text.lines() {
        if let Some(captures) = TOTALS.captures(line) {
            totals = captures.get(1).map(|totals| totals.as_str().to_owned());
            continue;
        }
        let Some((name, word)) = named(line) else {
            continue;
        };
        let outcome = match word {
            "PASSED" => {
                passed.insert(name.clone());
                Outcome::Passed
            }
            "FAILED" => {
                failed.insert(name.clone());
                Outcome::Failed
            }
            "XPASS" => Outcome::Passed,
            "SKIPPED" | "XFAIL" => Outcome::Skipped,
            _ => Outcome::Failed,
        };
        report.note(&name, outcome)?;
    }
    let Some(totals) = totals else {
        return Err(incomplete(
            "a last line such as `3 passed in 0.12s`",
            "the end of the output",
        ));
    };
    let of = |word: &str| {
        totals
            .split(',')
            .find(|part| part.trim().trim_end_matches('s').ends_with(word))
            .and_then(leading_number)
            .unwrap_or_default()
    };
    let (said_passed, said_failed) = (of(" passed"), of(" failed"));
    if said_passed != passed.len() || said_failed != failed.len() {
        let seen = format!("{} passed, {} failed", passed.len(), failed.len());
        return Err(incomplete(&seen, &totals));
    }
    // An error outside any test (collection, an import) names a file; it must not be lost.
    if of(" error") > 0 && report.count(Outcome::Failed) == failed.len() {
        report.note("(errors outside tests)", Outcome::Failed)?;
    }
    Ok(report)
}

fn named(line: &str) -> Option<(String, &str)> {
    let verbose = VERBOSE
        .captures(line)
        .map(|captures| (captures.get(1), captures.get(2)));
    let (name, word) = match verbose {
        Some(found) => found,
        None => SUMMARY
            .captures(line)
            .map(|captures| (captures.get(2), captures.get(1)))?,
    };
    Some((name?.as_str().to_owned(), word?.as_str()))
}

static VERBOSE: LazyLock<Regex> = LazyLock::new(|| {
    compiled(concat!(
        r"^(\S[^\n]*?::[^\n]*?) (PASSED|FAILED|SKIPPED|XFAIL|XPASS|ERROR)",
        r"(?: \([^\n]*\))?\s*(?:\[\s*\d+%\])?\s*$"
    ))
});

static SUMMARY: LazyLock<Regex> = LazyLock::new(|| {
    compiled(r"^(PASSED|FAILED|XFAIL|XPASS|ERROR) (\S[^\n]*?::[^\n]*?)(?: - [^\n]*)?$")
});

static TOTALS: LazyLock<Regex> = LazyLock::new(|| {
    compiled(concat!(
        r"^=*\s*((?:\d+ (?:passed|failed|skipped|xfailed|xpassed|errors?|warnings?|deselected|",
        r"rerun)(?:, )?)+|no tests ran) in [\d.]+s(?: \([\d:]+\))?\s*=*$"
    ))
});

#[expect(
    clippy::expect_used,
    reason = "the patterns are constants; tests compile them"
)]
fn compiled(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant pattern compiles")
}
