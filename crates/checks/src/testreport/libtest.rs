//! The text of `cargo test`.
//!
//! `test name ... ok`, `FAILED`, `ignored[, reason]`, `bench: …`; each binary ends with `test
//! result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; …`. Where standard error is in the text
//! too, `Running … (target/debug/deps/name-hash)` and `Doc-tests name` say whose tests follow.
//! Lines that tests print are no danger here: a test too many or too few, or a result line too
//! many, and the totals don't match.

use portcullis_model::Refusal;

use super::{Outcome, TestReport, incomplete, leading_number, malformed};

pub(super) fn parse(text: &str) -> Result<TestReport, Refusal> {
    let mut report = TestReport::default();
    let mut prefix = String::new();
    // Passed (and measured), failed, ignored since the last result line.
    let mut seen = [0_usize; 3];
    let mut results = 0;
    // Between `failures:` and the result line stands what failed tests printed.
    let mut in_failures = false;
    for line in text.lines() {
        if let Some(binary) = binary_of(line) {
            prefix = format!("{binary} ");
        } else if let Some(totals) = line.strip_prefix("test result: ") {
            if totals_of(totals)? != seen {
                return Err(incomplete(
                    &format!(
                        "{} passed, {} failed, {} ignored",
                        seen[0], seen[1], seen[2]
                    ),
                    line,
                ));
            }
            seen = [0; 3];
            results += 1;
            in_failures = false;
        } else if in_failures || line == "failures:" {
            in_failures = true;
        } else if let Some((name, outcome)) = test_of(line) {
            let slot = match outcome {
                Outcome::Passed => &mut seen[0],
                Outcome::Failed => &mut seen[1],
                Outcome::Skipped => &mut seen[2],
            };
            *slot += 1;
            report.add(&format!("{prefix}{name}"), outcome)?;
        }
    }
    if results == 0 {
        return Err(malformed(
            "the output of cargo test with `test result:` lines",
            text,
        ));
    }
    if seen != [0; 3] {
        return Err(incomplete(
            "a `test result:` line after the last test",
            "the end of the output",
        ));
    }
    Ok(report)
}

fn test_of(line: &str) -> Option<(String, Outcome)> {
    let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let outcome = match outcome.trim_end() {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed,
        "ignored" => Outcome::Skipped,
        other if other.starts_with("ignored, ") => Outcome::Skipped,
        other if other.starts_with("bench:") => Outcome::Passed,
        // `ok (0.01s)` of --report-time.
        other if other.starts_with("ok (") || other.starts_with("ok <") => Outcome::Passed,
        other if other.starts_with("FAILED (") || other.starts_with("FAILED <") => Outcome::Failed,
        _ => return None,
    };
    Some((without_line_number(name), outcome))
}

/// Documentation tests are named by their line, which moves with any edit above it.
fn without_line_number(name: &str) -> String {
    match name.find(" (line ") {
        Some(at) => {
            let (before, rest) = name.split_at(at);
            let after = rest.split_once(')').map_or("", |(_, after)| after);
            format!("{before}{after}")
        }
        None => name.to_owned(),
    }
}

fn binary_of(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(format!("doc {}", name.trim()));
    }
    let path = line
        .strip_prefix("Running ")?
        .rsplit_once('(')?
        .1
        .strip_suffix(')')?;
    let file = path.rsplit(['/', '\\']).next()?;
    let file = file.strip_suffix(".exe").unwrap_or(file);
    Some(
        file.rsplit_once('-')
            .map_or(file, |(name, _hash)| name)
            .to_owned(),
    )
}

/// Passed and measured, failed, ignored.
fn totals_of(totals: &str) -> Result<[usize; 3], Refusal> {
    let of = |word: &str| {
        totals
            .split([';', '.'])
            .find(|part| part.trim_end().ends_with(word))
            .and_then(leading_number)
            .ok_or_else(|| malformed("N passed; N failed; N ignored; N measured", totals))
    };
    Ok([
        of("passed")? + of("measured")?,
        of("failed")?,
        of("ignored")?,
    ])
}
