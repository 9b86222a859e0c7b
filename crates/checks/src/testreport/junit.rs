//! JUnit XML.
//!
//! There is no one schema; what runners share is `testsuites` or `testsuite` at the root,
//! `testcase` with `name` and `classname`, and `failure`, `error` or `skipped` inside it. A
//! document type is refused, so no entity but XML's own five is ever expanded.

use portcullis_model::Refusal;
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::{Outcome, TestReport, incomplete, malformed};

/// Deepest nesting of elements.
const DEPTH_MAX: usize = 64;
/// Most attributes of one element.
const ATTRIBUTES_MAX: usize = 64;

pub(super) fn parse(text: &str) -> Result<TestReport, Refusal> {
    let mut reader = Reader::from_str(text);
    reader.config_mut().check_end_names = true;
    let mut report = TestReport::default();
    // Open elements with their names; that of a suite is part of its cases' names.
    let mut open: Vec<(String, String)> = Vec::new();
    let mut case: Option<(String, Outcome)> = None;
    let mut rooted = false;
    loop {
        let event = reader
            .read_event()
            .map_err(|error| malformed("well-formed XML", &error.to_string()))?;
        match event {
            Event::Start(element) => {
                enter(&element, &open, &mut rooted, &mut case)?;
                let suite = match name_of(&element).as_str() {
                    "testsuite" => attribute(&element, "name")?.unwrap_or_default(),
                    _ => String::new(),
                };
                open.push((name_of(&element), suite));
            }
            Event::Empty(element) => {
                enter(&element, &open, &mut rooted, &mut case)?;
                if name_of(&element) == "testcase" {
                    leave(&mut case, &mut report)?;
                }
            }
            Event::End(_) => {
                if open.pop().is_some_and(|(name, _)| name == "testcase") {
                    leave(&mut case, &mut report)?;
                }
            }
            Event::DocType(_) => return Err(malformed("XML without a document type", "<!DOCTYPE")),
            Event::Eof => break,
            Event::Text(_)
            | Event::CData(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_)
            | Event::GeneralRef(_) => {}
        }
    }
    match (rooted, open.last()) {
        (false, _) => Err(malformed("a testsuites or testsuite element", "none")),
        (true, Some((element, _))) => Err(incomplete("the end of every element", element)),
        (true, None) => Ok(report),
    }
}

fn enter(
    element: &BytesStart<'_>,
    open: &[(String, String)],
    rooted: &mut bool,
    case: &mut Option<(String, Outcome)>,
) -> Result<(), Refusal> {
    let name = name_of(element);
    if open.len() >= DEPTH_MAX {
        return Err(malformed(
            &format!("at most {DEPTH_MAX} elements in each other"),
            &name,
        ));
    }
    if open.is_empty() {
        if *rooted || !matches!(name.as_str(), "testsuites" | "testsuite") {
            return Err(malformed("one testsuites or testsuite element", &name));
        }
        *rooted = true;
    }
    match name.as_str() {
        "testcase" if case.is_some() => Err(malformed("no testcase inside a testcase", &name)),
        "testcase" => {
            let suite = open.last().map_or("", |(_, suite)| suite.as_str());
            *case = Some(test_case(element, suite)?);
            Ok(())
        }
        // Only directly inside the case: a runner may nest captured output.
        "failure" | "error" | "skipped"
            if open.last().is_some_and(|(last, _)| last == "testcase") =>
        {
            let found = if name == "skipped" {
                Outcome::Skipped
            } else {
                Outcome::Failed
            };
            if let Some((_, outcome)) = case {
                *outcome = found.max(*outcome);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn leave(case: &mut Option<(String, Outcome)>, report: &mut TestReport) -> Result<(), Refusal> {
    match case.take() {
        Some((name, outcome)) => report.add(&name, outcome),
        None => Ok(()),
    }
}

/// `suite classname::name` without what is empty or said twice, and skipped if a status says that
/// the test did not run.
fn test_case(element: &BytesStart<'_>, suite: &str) -> Result<(String, Outcome), Refusal> {
    let name =
        attribute(element, "name")?.ok_or_else(|| malformed("a name for each testcase", "none"))?;
    let class = attribute(element, "classname")?.unwrap_or_default();
    let mut full = String::new();
    if !suite.is_empty() && suite != class {
        full.push_str(suite);
        full.push(' ');
    }
    if !class.is_empty() {
        full.push_str(&class);
        full.push_str("::");
    }
    full.push_str(&name);
    let mut outcome = Outcome::Passed;
    for status in ["status", "result"] {
        let value = attribute(element, status)?.unwrap_or_default();
        if matches!(
            value.as_str(),
            "notrun" | "disabled" | "skipped" | "suppressed"
        ) {
            outcome = Outcome::Skipped;
        }
    }
    Ok((full, outcome))
}

/// The value of one attribute. The first counts.
fn attribute(element: &BytesStart<'_>, wanted: &str) -> Result<Option<String>, Refusal> {
    let bad = || malformed("attributes that can be read", "one that can not");
    for (at, attribute) in element.attributes().enumerate() {
        let attribute = attribute.map_err(|_| bad())?;
        if at >= ATTRIBUTES_MAX {
            return Err(malformed(
                &format!("at most {ATTRIBUTES_MAX} attributes"),
                "more",
            ));
        }
        if String::from_utf8_lossy(attribute.key.as_ref().as_ref()) == wanted {
            let value = attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map_err(|_| bad())?;
            return Ok(Some(value.into_owned()));
        }
    }
    Ok(None)
}

fn name_of(element: &BytesStart<'_>) -> String {
    String::from_utf8_lossy(element.local_name().as_ref().as_ref()).into_owned()
}
