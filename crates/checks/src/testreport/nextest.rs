//! The text of `cargo nextest run`.
//!
//! `PASS [ 0.005s] (1/9) binary-id test::name` per test, then `Summary [ 0.1s] 9 tests run: 8
//! passed (1 flaky), 1 failed, 2 skipped`, then the failures once more. With retries each try has
//! a line, `TRY 2 PASS […]`, and the last one counts.

use std::sync::LazyLock;

use portcullis_model::Refusal;
use regex::Regex;

use super::{Outcome, TestReport, check_bounds, incomplete, leading_number, malformed};

pub(super) fn parse(text: &str) -> Result<TestReport, Refusal> {
    let mut report = TestReport::default();
    for line in text.lines() {
        if let Some(captures) = SUMMARY.captures(line) {
            let totals = captures.get(1).map_or("", |totals| totals.as_str());
            return check(report, totals);
        }
        let Some(captures) = TEST.captures(line) else {
            continue;
        };
        let part = |at| {
            captures
                .get(at)
                .map_or("", |part: regex::Match<'_>| part.as_str())
        };
        let outcome = match part(2) {
            "PASS" | "LEAK" | "XPASS" => Outcome::Passed,
            "SKIP" => Outcome::Skipped,
            _ => Outcome::Failed,
        };
        let name = format!("{} {}", part(3), part(4));
        check_bounds(report.tests.len(), &name)?;
        let retried = !part(1).is_empty();
        if report.tests.insert(name.clone(), outcome).is_some() && !retried {
            return Err(malformed("each test once", line));
        }
    }
    Err(incomplete("a `Summary` line", "the end of the output"))
}

fn check(report: TestReport, totals: &str) -> Result<TestReport, Refusal> {
    let run = totals.split_once(':').map_or(totals, |(run, _)| run);
    let run = run.split('/').next().and_then(leading_number);
    let seen = report.count(Outcome::Passed) + report.count(Outcome::Failed);
    let passed = totals
        .split_once(':')
        .and_then(|(_, rest)| leading_number(rest))
        .unwrap_or_default();
    if run == Some(seen) && passed == report.count(Outcome::Passed) {
        Ok(report)
    } else {
        let seen = format!("{seen} tests run, {} passed", report.count(Outcome::Passed));
        Err(incomplete(&seen, totals))
    }
}

static TEST: LazyLock<Regex> = LazyLock::new(|| {
    compiled(concat!(
        r"^\s*(TRY \d+ )?(PASS|LEAK|XPASS|FAIL|LEAK-FAIL|FL\+LK|LKFAIL|TIMEOUT|TMT|ABORT|SIG\w*|SKIP)",
        r"\s+\[[^\]]*\]\s+(?:\(\s*\d+/\d+\)\s+)?(\S+)\s+(.+?)\s*$"
    ))
});

static SUMMARY: LazyLock<Regex> =
    LazyLock::new(|| compiled(r"^\s*Summary\s+\[[^\]]*\]\s+(\d+(?:/\d+)? tests? run:.*)$"));

#[expect(
    clippy::expect_used,
    reason = "the patterns are constants; tests compile them"
)]
fn compiled(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant pattern compiles")
}
