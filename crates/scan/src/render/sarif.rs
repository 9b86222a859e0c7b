//! SARIF 2.1.0 (OASIS Standard): reachable and undecided sinks with their paths as code flows, and
//! the findings beside them.

use serde_json::{Value, json};

use crate::Report;
use crate::findings::RULES;
use crate::report::{Decision, PathStep, RepositoryReport, Severity, Verdict};

/// The report as a SARIF log with a line end.
pub fn render(report: &Report) -> String {
    let mut rules: Vec<Value> = [
        (
            "unattended-path",
            "automation reaches production and no person decides",
            Severity::Error,
        ),
        (
            "undecided-path",
            "whether automation reaches production depends on one fact",
            Severity::Warning,
        ),
    ]
    .iter()
    .chain(RULES)
    .map(|(id, text, severity)| {
        json!({
            "id": id,
            "shortDescription": {"text": text},
            "defaultConfiguration": {"level": severity.word()},
            "help": {
                "text": crate::rules::page(id).unwrap_or(text),
                "markdown": crate::rules::page(id).unwrap_or(text),
            },
        })
    })
    .collect();
    rules.sort_by(|a, b| {
        a.get("id")
            .and_then(Value::as_str)
            .cmp(&b.get("id").and_then(Value::as_str))
    });
    let runs: Vec<Value> = report
        .repositories
        .iter()
        .enumerate()
        .map(|(index, repository)| {
            json!({
                // One run per repository: an upload tells them apart by this.
                "automationDetails": {"id": format!("portcullis-scan/{index}/{}", repository.name.as_deref().unwrap_or(&repository.path))},
                "tool": {"driver": {
                    "name": "portcullis scan",
                    "version": report.scanner,
                    "rules": rules,
                }},
                "columnKind": "unicodeCodePoints",
                "results": results(repository),
            })
        })
        .collect();
    let log = json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": runs,
    });
    let mut text = serde_json::to_string_pretty(&log).unwrap_or_default();
    text.push('\n');
    text
}

fn results(repository: &RepositoryReport) -> Vec<Value> {
    let mut out: Vec<Value> = repository
        .verdicts
        .iter()
        .filter(|verdict| matches!(verdict.verdict, Decision::Reachable | Decision::Depends))
        .map(of_verdict)
        .collect();
    out.extend(repository.findings.iter().map(|finding| {
        json!({
            "ruleId": finding.rule,
            "level": finding.severity.word(),
            "message": {"text": finding.message},
            "locations": [location(&finding.file, finding.line)],
            "partialFingerprints": {"portcullis/v1": finding.fingerprint},
            "baselineState": if finding.known { "unchanged" } else { "new" },
        })
    }));
    out
}

fn of_verdict(verdict: &Verdict) -> Value {
    let reachable = verdict.verdict == Decision::Reachable;
    let mut message = format!(
        "{} {}: {} ({})",
        verdict.kind.word(),
        verdict.verdict.word(),
        verdict.sink,
        verdict.assumption.word()
    );
    if let Some(fact) = &verdict.decided_by {
        message.push_str(&format!("; decided by {fact}"));
    }
    let place = verdict
        .path
        .iter()
        .rev()
        .find(|step| !step.file.is_empty())
        .map(|step| (step.file.as_str(), step.line))
        .unwrap_or((verdict.file.as_str(), verdict.line));
    let steps: Vec<Value> = verdict
        .path
        .iter()
        .map(|step| json!({"location": step_location(step)}))
        .collect();
    let mut out = json!({
        "ruleId": if reachable { "unattended-path" } else { "undecided-path" },
        "level": if reachable { "error" } else { "warning" },
        "message": {"text": message},
        "locations": [location(place.0, place.1)],
        "partialFingerprints": {"portcullis/v1": verdict.fingerprint},
        "baselineState": if verdict.known { "unchanged" } else { "new" },
    });
    if !steps.is_empty() {
        put(
            &mut out,
            "codeFlows",
            json!([{"threadFlows": [{"locations": steps}]}]),
        );
    }
    out
}

fn step_location(step: &PathStep) -> Value {
    let mut out = location(&step.file, step.line);
    let with = super::with_credential(&step.credential);
    put(
        &mut out,
        "message",
        json!({"text": format!("{} — {}{with}: {}", step.event, step.actor, step.why)}),
    );
    out
}

fn location(file: &str, line: usize) -> Value {
    // A location needs a file; what no file says is told of the repository's root.
    let uri = if file.is_empty() {
        ".".to_owned()
    } else {
        escaped(file)
    };
    let mut physical = json!({"artifactLocation": {"uri": uri, "uriBaseId": "%SRCROOT%"}});
    if line > 0 {
        put(&mut physical, "region", json!({"startLine": line}));
    }
    json!({"physicalLocation": physical})
}

fn put(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(map) = object {
        map.insert(key.to_owned(), value);
    }
}

/// A path as a URI reference (RFC 3986): everything but unreserved characters and `/` escaped.
fn escaped(path: &str) -> String {
    let mut out = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
