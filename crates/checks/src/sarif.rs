//! Findings as SARIF 2.1.0 (<https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>),
//! for the checks and for the repository scanner alike.

use portcullis_model::Digest;
use serde_json::{Map, Value, json};

use crate::analyse::{Level, Report};

#[cfg(test)]
mod tests;

/// The schema that the log names.
pub const SCHEMA_URI: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// A SARIF log of one run of one tool.
pub fn log(run: &Run<'_>) -> Value {
    let rules: Vec<Value> = run.rules.iter().map(descriptor).collect();
    let results: Vec<Value> = run.results.iter().map(|found| result(run, found)).collect();
    json!({
        "$schema": SCHEMA_URI,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": run.tool,
                "semanticVersion": run.version,
                "rules": rules,
            }},
            // Lines are counted by line feeds, columns by characters.
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

/// The log of a report of the checks; `version` is the program's.
pub fn report_log(report: &Report, version: &str) -> Value {
    let rules = crate::rules::all();
    let rules = rules.iter().map(|rule| Rule {
        id: rule.id,
        title: rule.title,
        help: rule.next,
        severity: Severity::of(rule.level),
    });
    let results = report.findings.iter().map(|finding| Found {
        rule: &finding.rule,
        severity: Severity::of(finding.level),
        message: &finding.message,
        place: finding.path.as_deref().map(|path| Place {
            path,
            line: finding.line,
            column: None,
        }),
        flow: Vec::new(),
    });
    log(&Run {
        tool: "portcullis check",
        version,
        rules: rules.collect(),
        results: results.collect(),
    })
}

/// What goes into a log.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// Name of the tool.
    pub tool: &'a str,
    /// Its version, as semver.
    pub version: &'a str,
    /// The rules that it knows.
    pub rules: Vec<Rule<'a>>,
    /// What it found.
    pub results: Vec<Found<'a>>,
}

/// A rule as the log describes it.
#[derive(Clone, Debug)]
pub struct Rule<'a> {
    /// Stable id.
    pub id: &'a str,
    /// What it looks for, in one sentence.
    pub title: &'a str,
    /// What to do about a finding.
    pub help: &'a str,
    /// What its findings weigh by default.
    pub severity: Severity,
}

/// One finding.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// Id of its rule.
    pub rule: &'a str,
    /// What it weighs.
    pub severity: Severity,
    /// What was found, for a person.
    pub message: &'a str,
    /// Where; none if it is about the whole.
    pub place: Option<Place<'a>>,
    /// The steps that lead there, first step first; empty if there are none.
    pub flow: Vec<Step<'a>>,
}

/// A place in a file.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Relative to the repository's root, with `/`.
    pub path: &'a str,
    /// From 1.
    pub line: Option<u32>,
    /// In characters, from 1.
    pub column: Option<u32>,
}

/// One step of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Where it happens.
    pub place: Place<'a>,
    /// What happens.
    pub message: &'a str,
}

/// SARIF's levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It must not stand.
    Error,
    /// A person must look.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    /// What a check's level is in SARIF.
    pub const fn of(level: Level) -> Self {
        match level {
            Level::Pass => Self::Note,
            Level::Escalate => Self::Warning,
            Level::Block => Self::Error,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

fn descriptor(rule: &Rule<'_>) -> Value {
    json!({
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "help": {"text": rule.help},
        "defaultConfiguration": {"level": rule.severity.name()},
    })
}

fn result(run: &Run<'_>, found: &Found<'_>) -> Value {
    let mut fields = Map::new();
    fields.insert("ruleId".into(), json!(found.rule));
    if let Some(index) = run.rules.iter().position(|rule| rule.id == found.rule) {
        fields.insert("ruleIndex".into(), json!(index));
    }
    fields.insert("level".into(), json!(found.severity.name()));
    fields.insert("message".into(), json!({"text": found.message}));
    if let Some(place) = found.place {
        fields.insert(
            "locations".into(),
            json!([{"physicalLocation": physical(place)}]),
        );
    }
    if !found.flow.is_empty() {
        let steps: Vec<Value> = found
            .flow
            .iter()
            .map(|step| {
                json!({"location": {
                    "physicalLocation": physical(step.place),
                    "message": {"text": step.message},
                }})
            })
            .collect();
        fields.insert(
            "codeFlows".into(),
            json!([{"threadFlows": [{"locations": steps}]}]),
        );
    }
    fields.insert(
        "partialFingerprints".into(),
        json!({"portcullis/v1": fingerprint(found)}),
    );
    Value::Object(fields)
}

/// The same for the same finding when only lines above it move: rule, file and message.
fn fingerprint(found: &Found<'_>) -> String {
    let path = found.place.map_or("", |place| place.path);
    let parts = [found.rule, "\0", path, "\0", found.message].map(str::as_bytes);
    Digest::of_parts(&parts).hex()
}

fn physical(place: Place<'_>) -> Value {
    let mut fields = Map::new();
    fields.insert("artifactLocation".into(), json!({"uri": uri(place.path)}));
    // Line 0 is no line: an empty file, or a finding about the file itself.
    if let Some(line) = place.line.filter(|line| *line > 0) {
        let mut region = Map::new();
        region.insert("startLine".into(), json!(line));
        if let Some(column) = place.column.filter(|column| *column > 0) {
            region.insert("startColumn".into(), json!(column));
        }
        fields.insert("region".into(), Value::Object(region));
    }
    Value::Object(fields)
}

/// A path as a relative URI reference (RFC 3986): everything but unreserved characters and `/` in
/// percent form.
fn uri(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.trim_start_matches('/').bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
