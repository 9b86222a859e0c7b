//! `go test -json`: one object per line, as `go doc test2json` describes.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_model::Refusal;
use serde::Deserialize;

use super::{Outcome, TestReport, check_bounds, incomplete, malformed};

/// The fields that count; others (`Time`, `Elapsed`, `Output`, …) are not ours to judge.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    action: String,
    #[serde(default)]
    package: String,
    #[serde(default)]
    test: String,
}

#[derive(Default)]
struct Package {
    running: BTreeSet<String>,
    failed_tests: bool,
    ended: Option<Outcome>,
}

pub(super) fn parse(text: &str) -> Result<TestReport, Refusal> {
    let mut report = TestReport::default();
    let mut packages: BTreeMap<String, Package> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let read: Line = serde_json::from_str(line)
            .map_err(|_| malformed("one JSON object per line, as of go test -json", line))?;
        if read.package.is_empty() {
            continue;
        }
        check_bounds(packages.len(), &read.package)?;
        let package = packages.entry(read.package.clone()).or_default();
        let outcome = match read.action.as_str() {
            "pass" => Outcome::Passed,
            "fail" => Outcome::Failed,
            "skip" => Outcome::Skipped,
            "run" if !read.test.is_empty() => {
                check_bounds(report.tests.len() + package.running.len(), &read.test)?;
                package.running.insert(read.test);
                continue;
            }
            _ => continue,
        };
        if read.test.is_empty() {
            if package.ended.replace(outcome).is_some() {
                return Err(malformed(
                    "each package to end once (go test -count=1)",
                    line,
                ));
            }
        } else {
            package.running.remove(&read.test);
            package.failed_tests |= outcome == Outcome::Failed;
            report.add(&format!("{} {}", read.package, read.test), outcome)?;
        }
    }
    if packages.is_empty() {
        return Err(malformed("the output of go test -json", text));
    }
    for (name, package) in packages {
        finish(&mut report, &name, &package)?;
    }
    Ok(report)
}

/// A package that failed fails the tests that never ended; one without any failed test (a build
/// error, an exit from `TestMain`) is itself the failure.
fn finish(report: &mut TestReport, name: &str, package: &Package) -> Result<(), Refusal> {
    match package.ended {
        None => Err(incomplete("a last line for each package", name)),
        Some(Outcome::Failed) => {
            for test in &package.running {
                report.add(&format!("{name} {test}"), Outcome::Failed)?;
            }
            if package.running.is_empty() && !package.failed_tests {
                report.add(&format!("{name} (package)"), Outcome::Failed)?;
            }
            Ok(())
        }
        Some(Outcome::Passed | Outcome::Skipped) => match package.running.first() {
            None => Ok(()),
            Some(test) => Err(incomplete("an outcome for each test that ran", test)),
        },
    }
}
