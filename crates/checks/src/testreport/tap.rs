//! Test Anything Protocol, versions 12 to 14 (<https://testanything.org>).
//!
//! `1..N` is the plan; `ok 1 - name`, `not ok 2 - name # SKIP why`; subtests are indented by four
//! spaces and announced by `# Subtest: name`.

use portcullis_model::Refusal;

use super::{Outcome, TestReport, incomplete, malformed};

/// Deepest nesting of subtests.
const DEPTH_MAX: usize = 32;

pub(super) fn parse(text: &str) -> Result<TestReport, Refusal> {
    let mut report = TestReport::default();
    let mut plan: Option<usize> = None;
    let mut points = 0_usize;
    let mut names: Vec<String> = Vec::new();
    let mut in_yaml = false;
    for line in text.lines() {
        let content = line.trim_start_matches(' ');
        let depth = (line.len() - content.len()) / 4;
        // A YAML block of details may hold anything that looks like a test.
        if in_yaml || content == "---" {
            in_yaml = content != "...";
            continue;
        }
        if depth > DEPTH_MAX {
            continue;
        }
        if content.starts_with("Bail out!") {
            return Err(incomplete("a run to the end", line));
        } else if let Some(name) = content.strip_prefix("# Subtest: ") {
            names.truncate(depth);
            names.push(name.trim().to_owned());
        } else if let Some(count) = content.strip_prefix("1..") {
            if depth == 0 {
                let count = count.split([' ', '#']).next().unwrap_or_default();
                let count = count
                    .parse()
                    .map_err(|_| malformed("a plan such as 1..12", line))?;
                if plan.replace(count).is_some() {
                    return Err(malformed("one plan", line));
                }
            }
        } else if let Some((name, outcome)) = point(content) {
            points += usize::from(depth == 0);
            let above = names.get(..depth.min(names.len())).unwrap_or_default();
            let full: Vec<&str> = above
                .iter()
                .map(String::as_str)
                .chain([name.as_str()])
                .collect();
            report.add(&full.join(" > "), outcome)?;
        }
    }
    match plan {
        None => Err(incomplete("a plan such as 1..12", "none")),
        Some(plan) if plan == points => Ok(report),
        Some(plan) => Err(incomplete(
            &format!("{plan} tests"),
            &format!("{points} tests"),
        )),
    }
}

/// `ok` or `not ok`, a number, a name, a directive.
fn point(line: &str) -> Option<(String, Outcome)> {
    let (passed, rest) = match line.strip_prefix("not ok") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok")?),
    };
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    let rest = rest.trim_start();
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (number, rest) = rest.split_at_checked(digits)?;
    let (name, directive) = split_directive(rest);
    let name = name.trim().trim_start_matches('-').trim();
    let name = if name.is_empty() {
        format!("test {number}")
    } else {
        name.to_owned()
    };
    let directive = directive.trim().to_ascii_lowercase();
    let outcome = if directive.starts_with("skip") || directive.starts_with("todo") {
        Outcome::Skipped
    } else if passed {
        Outcome::Passed
    } else {
        Outcome::Failed
    };
    Some((name, outcome))
}

/// Cuts at the first ` #` that isn't escaped.
fn split_directive(rest: &str) -> (&str, &str) {
    rest.match_indices(" #")
        .find(|(at, _)| !rest.get(..*at).unwrap_or_default().ends_with('\\'))
        .map_or((rest, ""), |(at, mark)| {
            (
                rest.get(..at).unwrap_or_default(),
                rest.get(at + mark.len()..).unwrap_or_default(),
            )
        })
}
