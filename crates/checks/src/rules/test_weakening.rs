//! Are there fewer tests, or weaker ones, than before?
//!
//! Text can't prove that tests are as good as they were; these rules find the usual ways in which
//! they get worse, over many languages, and leave the rest to the comparison of what ran
//! ([`crate::testreport::compare`]). A test that moved to another file is not a removed one.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;

use super::Rule;
use crate::analyse::{Level, Sink, Subject};
use crate::classes::FileClass;
use crate::diff::Status;

pub(super) const RULES: &[&Rule] = &[
    &FILE_DELETED,
    &REMOVED,
    &ASSERTIONS_REMOVED,
    &SKIPPED,
    &TAUTOLOGY,
    &EARLY_EXIT,
];

const CHECK: &str = "test-weakening";

/// A file of tests is deleted and its content is added nowhere else. Example: `tests/login.rs`
/// goes. Reason: a deleted test fails no more.
static FILE_DELETED: Rule = Rule {
    id: "test-file-deleted",
    check: CHECK,
    level: Level::Escalate,
    title: "A file of tests or fixtures is deleted",
    next: "put the file back, or have a person approve that what it tested needs no test any more",
};

/// A test function or its marker is removed. Example: `#[test]` above `fn refuses_expired()`
/// goes. Reason: as above, inside a file.
static REMOVED: Rule = Rule {
    id: "test-removed",
    check: CHECK,
    level: Level::Escalate,
    title: "A test is removed or renamed away from the runner",
    next: "put the test back, or have a person approve its removal",
};

/// A file loses more assertions than it gains. Example: `assert_eq!(status, 403)` becomes a
/// comment. Reason: the test still passes, and says less.
static ASSERTIONS_REMOVED: Rule = Rule {
    id: "assertions-removed",
    check: CHECK,
    level: Level::Escalate,
    title: "A file loses more assertions than it gains",
    next: "assert what was asserted before, or have a person approve the weaker test",
};

/// A test is told not to run, or to run alone. Example: `#[ignore]`, `it.only(…)`,
/// `pytest.skip(…)`. Reason: it counts as not failed.
static SKIPPED: Rule = Rule {
    id: "test-skipped",
    check: CHECK,
    level: Level::Escalate,
    title: "A test is skipped, ignored or focused by an added line",
    next: "let the test run, or have a person approve why it can not",
};

/// An assertion that can't fail is added. Example: `assert!(true)`, `expect(1).toBe(1)`. Reason:
/// it keeps the number of assertions and tests nothing.
static TAUTOLOGY: Rule = Rule {
    id: "assertion-always-true",
    check: CHECK,
    level: Level::Escalate,
    title: "An assertion that can not fail is added",
    next: "assert something about the code under test",
};

/// A test ends the process with success. Example: `os._exit(0)` in `conftest.py`. Reason: all
/// later tests never run and the runner's status says success.
static EARLY_EXIT: Rule = Rule {
    id: "test-early-exit",
    check: CHECK,
    level: Level::Escalate,
    title: "An added line of a test ends the whole process or hides its failure",
    next: "let the runner decide its own exit status",
};

pub(crate) fn check(files: &[Subject<'_>], sink: &mut Sink<'_>) {
    let mut balance: BTreeMap<String, i64> = BTreeMap::new();
    for subject in files.iter().filter(|subject| is_code(subject)) {
        for line in subject.file.added() {
            if let Some(name) = test_name(&line.text()) {
                *balance.entry(name).or_default() += 1;
            }
        }
    }
    for subject in files {
        deleted(subject, files, sink);
        if is_code(subject) {
            removed(subject, &mut balance, sink);
            markers_removed(subject, files, sink);
            assertions(subject, sink);
            added_lines(subject, sink);
        }
    }
}

fn is_code(subject: &Subject<'_>) -> bool {
    !subject.file.binary
        && subject
            .classes
            .contains_any(&[FileClass::Source, FileClass::Test])
}

fn deleted(subject: &Subject<'_>, files: &[Subject<'_>], sink: &mut Sink<'_>) {
    let is_test = subject.classes.contains(FileClass::Test);
    let moved = files.iter().any(|other| {
        other.file.status == Status::Added
            && other.file.new_oid == subject.file.old_oid
            && other.classes.contains(FileClass::Test)
    });
    if is_test && subject.file.status == Status::Deleted && !moved {
        sink.file(
            &FILE_DELETED,
            subject,
            None,
            "this deletes a file of tests or fixtures",
        );
    }
}

/// Named tests that are taken away here and put nowhere in the diff.
fn removed(subject: &Subject<'_>, balance: &mut BTreeMap<String, i64>, sink: &mut Sink<'_>) {
    for line in subject.file.removed() {
        let Some(name) = test_name(&line.text()) else {
            continue;
        };
        let left = balance.entry(name.clone()).or_default();
        if *left > 0 {
            *left -= 1;
        } else {
            sink.file(
                &REMOVED,
                subject,
                Some(line.number),
                format!("the test {name} is removed"),
            );
        }
    }
}

/// `#[test]`, `@Test`, … are taken away more often than put, over the whole diff; the function may
/// still be there.
fn markers_removed(subject: &Subject<'_>, files: &[Subject<'_>], sink: &mut Sink<'_>) {
    let markers_gone: Vec<u32> = subject
        .file
        .removed()
        .filter(|line| MARKER.is_match(&line.text()))
        .map(|line| line.number)
        .collect();
    let Some(first) = markers_gone.first() else {
        return;
    };
    let (mut added, mut gone) = (0_usize, 0_usize);
    for file in files {
        added += file
            .file
            .added()
            .filter(|line| MARKER.is_match(&line.text()))
            .count();
        gone += file
            .file
            .removed()
            .filter(|line| MARKER.is_match(&line.text()))
            .count();
    }
    if gone > added {
        let message = format!(
            "{} test markers are removed here; the whole change removes {gone} and adds {added}",
            markers_gone.len()
        );
        sink.file(&REMOVED, subject, Some(*first), message);
    }
}

fn assertions(subject: &Subject<'_>, sink: &mut Sink<'_>) {
    let mut gone = subject
        .file
        .removed()
        .filter(|line| is_assertion(&line.text()))
        .peekable();
    let Some(first) = gone.peek().map(|line| line.number) else {
        return;
    };
    let (gone, added) = (
        gone.count(),
        subject
            .file
            .added()
            .filter(|line| is_assertion(&line.text()))
            .count(),
    );
    if gone > added && subject.file.status != Status::Deleted {
        let message = format!("{gone} assertions are removed and {added} added");
        sink.file(&ASSERTIONS_REMOVED, subject, Some(first), message);
    }
}

fn added_lines(subject: &Subject<'_>, sink: &mut Sink<'_>) {
    let is_test = subject.classes.contains(FileClass::Test);
    for line in subject.file.added() {
        let text = line.text();
        if let Some(found) = SKIP.find(&text) {
            let message = format!("`{}` keeps tests from running", found.as_str().trim());
            sink.file(&SKIPPED, subject, Some(line.number), message);
        }
        if TRUISM.is_match(&text) && !is_comment(&text) {
            sink.file(
                &TAUTOLOGY,
                subject,
                Some(line.number),
                "this assertion can not fail",
            );
        }
        if is_test && let Some(found) = EXIT.find(&text) {
            let message = format!(
                "`{}` decides the outcome instead of the tests",
                found.as_str()
            );
            sink.file(&EARLY_EXIT, subject, Some(line.number), message);
        }
    }
}

/// The name of a test that begins on this line, in languages where one can tell by the line.
fn test_name(line: &str) -> Option<String> {
    if is_comment(line) {
        return None;
    }
    let captures = TEST_NAME.captures(line)?;
    captures
        .iter()
        .skip(1)
        .flatten()
        .next()
        .map(|name| name.as_str().to_owned())
}

fn is_assertion(line: &str) -> bool {
    !is_comment(line) && ASSERTION.is_match(line)
}

fn is_comment(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("//")
        || (line.starts_with('#') && !line.starts_with("#["))
        || line.starts_with("/*")
        || line.starts_with("* ")
        || line.starts_with("--")
}

#[expect(
    clippy::expect_used,
    reason = "the patterns are constants; a test compiles them all"
)]
fn compiled(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant pattern compiles")
}

static TEST_NAME: LazyLock<Regex> = LazyLock::new(|| {
    compiled(concat!(
        r"^\s*(?:async\s+)?def\s+(test\w*)\s*\(",
        r"|^\s*func\s+((?:Test|Fuzz|Example)\w*)\s*\(",
        r#"|^\s*(?:it|test|describe|context|specify|scenario)(?:\.\w+)?\s*\(?\s*["'`](.{1,200}?)["'`]"#,
        r"|^\s*(?:public\s+)?(?:void|function)\s+(test\w+)\s*\(",
        r"|^\s*func\s+(test\w+)\s*\(",
        r#"|^\s*(?:TEST|TEST_F|TEST_P|TEST_CASE|SCENARIO)\s*\(\s*(.{1,200}?)\)"#,
        r#"|^\s*@test\s+"(.{1,200}?)""#,
        r"|^\s*class\s+(Test\w*)",
    ))
});

static MARKER: LazyLock<Regex> = LazyLock::new(|| {
    compiled(concat!(
        r"^\s*#\[\s*(?:\w+::)*(?:test|rstest|test_case|proptest|wasm_bindgen_test|quickcheck)\b",
        r"|^\s*@(?:Test|ParameterizedTest|RepeatedTest|Property)\b",
        r"|^\s*\[(?:Test|Fact|Theory|TestMethod|TestCase)\b",
    ))
});

static ASSERTION: LazyLock<Regex> = LazyLock::new(|| {
    compiled(concat!(
        r"\b(?:debug_)?assert(?:_\w+)?!|\bassert\w*[\s(.]|\bself\.assert\w+\(|\bexpect\w*\s*\(",
        r"|\bshould(?:\.|\s|_)|\brequire\.\w+\(|\bt\.(?:Error|Fatal|Fail)\w*\(|\bEXPECT_\w+\(",
        r"|\bASSERT_\w+\(|\bverify\(|\bXCTAssert\w*\(|\bprop_assert\w*!|\bunwrap_err\(\)",
        r"|\binsta::assert|\bis\(\s*\$|\bok\(\s*\$",
    ))
});

static SKIP: LazyLock<Regex> = LazyLock::new(|| {
    compiled(concat!(
        r"#\[\s*ignore\b|#\[\s*cfg_attr\([^\]]*\bignore\b|#\[cfg\((?:any\(\)|FALSE|false)\)\]",
        r"|@(?:pytest\.mark\.)(?:skip|skipif|xfail)\b|\bpytest\.(?:skip|xfail|importorskip)\(",
        r"|@?unittest\.skip\w*|\bself\.skipTest\(|\bcollect_ignore(?:_glob)?\b",
        r"|\b(?:it|test|describe|context|suite)\.(?:skip|only|todo|fixme|failing)\b",
        r"|^\s*(?:xit|xdescribe|xtest|xcontext|fit|fdescribe)\s*\(",
        r"|\b[tb]\.Skip(?:f|Now)?\(|\bGTEST_SKIP\(|\bDISABLED_\w+|\bXCTSkip\w*\(",
        r"|^\s*@(?:Disabled|Ignore|EnabledIf|DisabledIf\w*)\b|\[Ignore\b|\bSkip\s*=\s*\x22",
        r"|\bmarkTestSkipped\(|\btestPathIgnorePatterns\b|--deselect\b|\bpending\s*\(",
        r"|^\s*//\s*\+build\s+ignore|^\s*//go:build\s+ignore",
    ))
});

static TRUISM: LazyLock<Regex> = LazyLock::new(|| {
    compiled(concat!(
        r"\bassert!\(\s*true\s*[,)]|\bassert_eq!\(\s*(?:1\s*,\s*1|true\s*,\s*true)\s*[,)]",
        r"|^\s*assert\s+(?:True|1|1\s*==\s*1|not False)\s*(?:,|#|$)|\bassertTrue\(\s*[Tt]rue\s*[,)]",
        r"|\bexpect\(\s*(?:true\s*\)\.toBe\(\s*true|1\s*\)\.toBe\(\s*1|true\s*\)\.toBeTruthy\()",
        r"|\bassert\.(?:ok|True)\(\s*(?:t\s*,\s*)?true\s*[,)]|\bassert\(\s*(?:true|1|True)\s*\)",
        r"|\bassertEquals\(\s*1\s*,\s*1\s*\)|\bEXPECT_TRUE\(\s*true\s*\)",
    ))
});

static EXIT: LazyLock<Regex> = LazyLock::new(|| {
    compiled(concat!(
        r"\bos\._exit\(\s*0?\s*\)|\bsys\.exit\(\s*0?\s*\)|\bprocess\.exit\(\s*0?\s*\)",
        r"|\b(?:std::)?process::exit\(\s*0\s*\)|\bos\.Exit\(\s*0\s*\)|\bSystem\.exit\(\s*0\s*\)",
        r"|\|\|\s*(?:true|:|exit\s+0)\s*$|^\s*exit\s+0\s*$|\bpytest_sessionfinish\b|\bsession\.exitstatus\s*=",
        r"|\bpytest_runtest_makereport\b|\bpytest_collection_modifyitems\b",
    ))
});
