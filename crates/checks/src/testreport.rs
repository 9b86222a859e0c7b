//! What a test runner says ran, and whether that is at least what ran before.
//!
//! A report is worth no more than the process that wrote it: code under test runs in the same
//! process as its runner in most languages, and can print what it likes. So a report alone proves
//! nothing; [`compare`] holds it against the report of the base, made by the same command, and
//! every parser refuses a report that is cut, doesn't add up, or ends early, instead of reading
//! what is there. Names that come twice are kept apart, so that a second line never covers the
//! first.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use portcullis_model::{Digest, Refusal, canonical};
use serde::{Deserialize, Serialize};

mod go;
mod junit;
mod libtest;
mod nextest;
mod pytest;
mod tap;
#[cfg(test)]
mod tests;

/// Largest report in bytes: the output of a hundred thousand tests.
pub const REPORT_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Most tests in one report.
pub const TESTS_MAX: usize = 200_000;
/// Longest name of a test in bytes.
pub const NAME_MAX_BYTES: usize = 2_048;

/// Reads a runner's report.
///
/// # Errors
/// The bytes are not in `format` (`malformed-test-report`), the report is cut or its totals don't
/// match (`incomplete-test-report`), or a bound is passed (`test-report-too-large`).
pub fn parse(format: Format, bytes: &[u8]) -> Result<TestReport, Refusal> {
    if bytes.len() > REPORT_MAX_BYTES {
        return Err(
            Refusal::limit("test-report-too-large", "the test report is too large")
                .expected(&format!("at most {REPORT_MAX_BYTES} bytes"))
                .received(&bytes.len().to_string()),
        );
    }
    let text = String::from_utf8_lossy(bytes);
    match format {
        Format::Junit => junit::parse(&text),
        Format::Libtest => libtest::parse(&without_colours(&text)),
        Format::Nextest => nextest::parse(&without_colours(&text)),
        Format::Tap => tap::parse(&without_colours(&text)),
        Format::GoJson => go::parse(&text),
        Format::Pytest => pytest::parse(&without_colours(&text)),
    }
}

/// A form of report that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// JUnit XML, as most runners can write.
    Junit,
    /// The text of `cargo test`: standard output, or that and standard error together.
    Libtest,
    /// The text of `cargo nextest run`, from standard error.
    Nextest,
    /// Test Anything Protocol, version 12 to 14.
    Tap,
    /// `go test -json`, one object per line.
    GoJson,
    /// The text of `pytest -v`, `pytest -rA`, or both.
    Pytest,
}

impl FromStr for Format {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        Ok(match text {
            "junit" => Self::Junit,
            "libtest" => Self::Libtest,
            "nextest" => Self::Nextest,
            "tap" => Self::Tap,
            "go-json" => Self::GoJson,
            "pytest" => Self::Pytest,
            other => {
                return Err(Refusal::malformed("test report format")
                    .expected("junit, libtest, nextest, tap, go-json or pytest")
                    .received(other));
            }
        })
    }
}

/// How one test ended. Ordered by how bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It ran and passed.
    Passed,
    /// It did not run, or its outcome doesn't count (ignored, expected to fail, to do).
    Skipped,
    /// It failed, or never ended.
    Failed,
}

/// What ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestReport {
    /// Every test by its full name. The second test of a name is `name #2`.
    pub tests: BTreeMap<String, Outcome>,
}

impl TestReport {
    /// How many tests ended so.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.tests
            .values()
            .filter(|found| **found == outcome)
            .count()
    }

    /// Digest of the canonical form.
    ///
    /// # Errors
    /// Never in practice; serialisation is fallible by type.
    pub fn digest(&self) -> Result<Digest, Refusal> {
        Ok(Digest::of(&canonical::to_vec(self)?))
    }

    /// Puts reports of several commands together, each test under its command's name.
    ///
    /// # Errors
    /// Together they are more than [`TESTS_MAX`].
    pub fn joined<'a>(
        reports: impl IntoIterator<Item = (&'a str, &'a Self)>,
    ) -> Result<Self, Refusal> {
        let mut all = Self::default();
        for (command, report) in reports {
            for (name, outcome) in &report.tests {
                all.add(&format!("{command}: {name}"), *outcome)?;
            }
        }
        Ok(all)
    }

    /// Adds one more test; a name that is there already gets a number.
    fn add(&mut self, name: &str, outcome: Outcome) -> Result<(), Refusal> {
        check_bounds(self.tests.len(), name)?;
        let mut key = name.to_owned();
        let mut number = 2_u32;
        while self.tests.contains_key(&key) {
            if number > SAME_NAME_MAX {
                return Err(malformed(
                    &format!("at most {SAME_NAME_MAX} tests of one name"),
                    name,
                ));
            }
            key = format!("{name} #{number}");
            number += 1;
        }
        self.tests.insert(key, outcome);
        Ok(())
    }

    /// Notes an outcome of a test that may be reported more than once; the worst stays.
    fn note(&mut self, name: &str, outcome: Outcome) -> Result<(), Refusal> {
        check_bounds(self.tests.len(), name)?;
        let worst = self.tests.entry(name.to_owned()).or_insert(outcome);
        *worst = outcome.max(*worst);
        Ok(())
    }
}

/// Most tests of one name; keeps numbering them linear.
const SAME_NAME_MAX: u32 = 500;

/// What head's tests lack against base's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Ran (or were skipped) at base and are not in head's report at all.
    pub missing: BTreeSet<String>,
    /// Ran at base and are skipped at head.
    pub newly_skipped: BTreeSet<String>,
    /// Failed at head, whatever they did at base.
    pub failed: BTreeSet<String>,
    /// In head's report and not in base's.
    pub added: BTreeSet<String>,
    /// Whether nothing ran at head that passed, though something did at base.
    pub nothing_ran: bool,
}

impl Comparison {
    /// Whether head ran all that base ran, skipped no more, and nothing failed.
    pub fn holds(&self) -> bool {
        self.missing.is_empty()
            && self.newly_skipped.is_empty()
            && self.failed.is_empty()
            && !self.nothing_ran
    }
}

/// Holds the report of a revision against that of its base, made by the same command.
pub fn compare(base: &TestReport, head: &TestReport) -> Comparison {
    let mut comparison = Comparison {
        nothing_ran: head.count(Outcome::Passed) == 0 && base.count(Outcome::Passed) > 0,
        ..Comparison::default()
    };
    for (name, before) in &base.tests {
        match head.tests.get(name) {
            None => drop(comparison.missing.insert(name.clone())),
            Some(Outcome::Skipped) if *before != Outcome::Skipped => {
                comparison.newly_skipped.insert(name.clone());
            }
            Some(Outcome::Passed | Outcome::Skipped | Outcome::Failed) => {}
        }
    }
    for (name, after) in &head.tests {
        if *after == Outcome::Failed {
            comparison.failed.insert(name.clone());
        }
        if !base.tests.contains_key(name) {
            comparison.added.insert(name.clone());
        }
    }
    comparison
}

fn check_bounds(tests: usize, name: &str) -> Result<(), Refusal> {
    let too_large = |what: &str, bound: usize, received: usize| {
        Refusal::limit(
            "test-report-too-large",
            format!("the test report has {what}"),
        )
        .expected(&format!("at most {bound}"))
        .received(&received.to_string())
    };
    if tests >= TESTS_MAX {
        Err(too_large("too many tests", TESTS_MAX, tests + 1))
    } else if name.len() > NAME_MAX_BYTES {
        Err(too_large(
            "a name of too many bytes",
            NAME_MAX_BYTES,
            name.len(),
        ))
    } else {
        Ok(())
    }
}

fn malformed(expected: &str, received: &str) -> Refusal {
    Refusal::malformed("test report")
        .expected(expected)
        .received(received)
}

/// A report that ends early or whose totals don't match.
fn incomplete(expected: &str, received: &str) -> Refusal {
    Refusal::denied("incomplete-test-report", "the test report is not complete")
        .expected(expected)
        .received(received)
        .next(
            "look at the test job's output; a runner that was killed or printed over its own \
               report has to run again",
        )
}

/// The text without ANSI control sequences (`ESC [ … letter`) and carriage returns at line ends.
fn without_colours(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if c == '\u{1b}' && characters.peek() == Some(&'[') {
            characters.next();
            for c in characters.by_ref() {
                if ('@'..='~').contains(&c) {
                    break;
                }
            }
        } else if !(c == '\r' && characters.peek() == Some(&'\n')) {
            out.push(c);
        }
    }
    out
}

/// A number at the front of `text`, as in `12 passed`.
fn leading_number(text: &str) -> Option<usize> {
    let text = text.trim_start();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}
