use super::*;
use crate::analyse::tests::{added, change};
use crate::analyse::{Context, analyse};
use crate::diff::Diff;

#[test]
fn a_report_becomes_a_log() {
    let files = vec![
        change("Makefile", &["a"], &["b"]),
        added("a b/ü?#.rs", &["let a\u{200b} = 1;"]),
    ];
    let report = analyse(&Diff { files }, None, &Context::default());
    let log = report_log(&report, "1.2.3");
    let run = &log["runs"][0];
    assert_eq!(run["tool"]["driver"]["semanticVersion"], "1.2.3");
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), report.findings.len());
    for result in results {
        let rule = &run["tool"]["driver"]["rules"][result["ruleIndex"].as_u64().unwrap() as usize];
        assert_eq!(rule["id"], result["ruleId"]);
        assert_eq!(result["level"], "warning");
    }
    let seen = results
        .iter()
        .find(|result| result["ruleId"] == "invisible-character")
        .unwrap();
    let last = &seen["locations"][0]["physicalLocation"];
    assert_eq!(last["artifactLocation"]["uri"], "a%20b/%C3%BC%3F%23.rs");
    assert_eq!(last["region"]["startLine"], 1);
}

#[test]
fn flows_and_places_are_written() {
    let place = |line| Place {
        path: ".github/workflows/ci.yml",
        line: Some(line),
        column: Some(3),
    };
    let run = Run {
        tool: "portcullis scan",
        version: "0.1.0",
        rules: vec![],
        results: vec![Found {
            rule: "reachable",
            severity: Severity::Error,
            message: "m",
            place: Some(place(7)),
            flow: vec![
                Step {
                    place: place(1),
                    message: "a",
                },
                Step {
                    place: place(0),
                    message: "b",
                },
            ],
        }],
    };
    let log = log(&run);
    let result = &log["runs"][0]["results"][0];
    assert_eq!(result.get("ruleIndex"), None);
    let steps = &result["codeFlows"][0]["threadFlows"][0]["locations"];
    assert_eq!(steps.as_array().unwrap().len(), 2);
    assert_eq!(
        steps[0]["location"]["physicalLocation"]["region"]["startColumn"],
        3
    );
    assert_eq!(
        steps[1]["location"]["physicalLocation"].get("region"),
        None,
        "line 0 is no line"
    );
}

#[test]
fn a_fingerprint_survives_a_moved_line_and_nothing_else() {
    let found = |line, message| Found {
        rule: "r",
        severity: Severity::Note,
        message,
        place: Some(Place {
            path: "p",
            line: Some(line),
            column: None,
        }),
        flow: vec![],
    };
    assert_eq!(fingerprint(&found(1, "m")), fingerprint(&found(9, "m")));
    assert_ne!(fingerprint(&found(1, "m")), fingerprint(&found(1, "n")));
}
