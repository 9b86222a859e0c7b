use proptest::prelude::*;

use super::*;
use Outcome::{Failed, Passed, Skipped};

fn read(format: Format, text: &str) -> Vec<(String, Outcome)> {
    parse(format, text.as_bytes())
        .unwrap()
        .tests
        .into_iter()
        .collect()
}

fn own(tests: &[(&str, Outcome)]) -> Vec<(String, Outcome)> {
    tests
        .iter()
        .map(|(name, outcome)| ((*name).to_owned(), *outcome))
        .collect()
}

fn refused(format: Format, text: &str) -> String {
    parse(format, text.as_bytes()).unwrap_err().code
}

const INCOMPLETE: &str = "incomplete-test-report";
const MALFORMED: &str = "malformed-test-report";

const LIBTEST: &str = "
     Running unittests src/lib.rs (target/debug/deps/demo-0a1b2c3d)

running 4 tests
test a::one ... ok
test a::two - should panic ... ok
test b ... ignored, slow
test c ... FAILED

failures:

---- c stdout ----
thread 'c' panicked at src/lib.rs:3:5:

failures:
    c

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests demo

running 2 tests
test src/lib.rs - add (line 5) ... ok
test src/lib.rs - add (line 9) ... ok

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.30s
";

#[test]
fn libtest_text() {
    assert_eq!(
        read(Format::Libtest, LIBTEST),
        own(&[
            ("demo a::one", Passed),
            ("demo a::two - should panic", Passed),
            ("demo b", Skipped),
            ("demo c", Failed),
            ("doc demo src/lib.rs - add", Passed),
            ("doc demo src/lib.rs - add #2", Passed),
        ])
    );
    assert_eq!(refused(Format::Libtest, "no tests here"), MALFORMED);
    assert_eq!(
        refused(
            Format::Libtest,
            &LIBTEST.replace("2 passed; 1 failed", "3 passed; 1 failed")
        ),
        INCOMPLETE
    );
    assert_eq!(
        refused(
            Format::Libtest,
            &LIBTEST.replace("test a::one ... ok\n", "")
        ),
        INCOMPLETE
    );
    let cut = LIBTEST.rsplit_once("test result").unwrap().0;
    assert_eq!(refused(Format::Libtest, cut), INCOMPLETE);
}

/// Code under test that prints a line for a test makes a second one; the real one still counts,
/// and the totals no longer match.
#[test]
fn a_printed_line_covers_nothing() {
    let forged = LIBTEST.replace("test c ... FAILED", "test c ... ok\ntest c ... FAILED");
    assert_eq!(refused(Format::Libtest, &forged), INCOMPLETE);
    let forged = forged.replace("2 passed; 1 failed", "3 passed; 1 failed");
    let report = parse(Format::Libtest, forged.as_bytes()).unwrap();
    assert_eq!(report.tests["demo c #2"], Failed);
    assert!(!compare(&report, &report).holds());
}

const NEXTEST: &str = "\u{1b}[32m   Compiling\u{1b}[0m demo
    Starting 4 tests across 2 binaries (1 test skipped)
        PASS [   0.005s] (1/4) demo a::one
        SLOW [> 60.000s] demo a::two
\u{1b}[32;1m        PASS\u{1b}[0m [  61.005s] (2/4) demo::bin/demo a::two
  TRY 1 FAIL [   0.004s] demo::it flaky
  TRY 2 PASS [   0.004s] demo::it flaky
        FAIL [   0.006s] (4/4) demo::it bad name
────────────
     Summary [  61.100s] 4 tests run: 3 passed (1 slow, 1 flaky), 1 failed, 1 skipped
        FAIL [   0.006s] (4/4) demo::it bad name
error: test run failed
";

#[test]
fn nextest_text() {
    assert_eq!(
        read(Format::Nextest, NEXTEST),
        own(&[
            ("demo a::one", Passed),
            ("demo::bin/demo a::two", Passed),
            ("demo::it bad name", Failed),
            ("demo::it flaky", Passed),
        ])
    );
    assert_eq!(
        refused(Format::Nextest, &NEXTEST.replace("3 passed", "4 passed")),
        INCOMPLETE
    );
    // A run that stopped at its first failure says what ran of what; the comparison finds the rest.
    let stopped = NEXTEST.replace("4 tests run", "4/9 tests run");
    assert_eq!(
        read(Format::Nextest, &stopped),
        read(Format::Nextest, NEXTEST)
    );
    let cut = NEXTEST.split("Summary").next().unwrap();
    assert_eq!(refused(Format::Nextest, cut), INCOMPLETE);
}

const TAP: &str = "TAP version 14
# Subtest: math
    # Subtest: adds
    ok 1 - adds
      ---
      ok 99 - not a test
      ...
    not ok 2 - divides # TODO by zero
    1..2
ok 1 - math
not ok 2 - prints \\# marks
ok 3 - later # SKIP no network
ok 4
1..4
";

#[test]
fn tap_text() {
    assert_eq!(
        read(Format::Tap, TAP),
        own(&[
            ("later", Skipped),
            ("math", Passed),
            ("math > adds", Passed),
            ("math > divides", Skipped),
            ("prints \\# marks", Failed),
            ("test 4", Passed),
        ])
    );
    assert_eq!(refused(Format::Tap, &TAP.replace("1..4", "")), INCOMPLETE);
    assert_eq!(
        refused(Format::Tap, &TAP.replace("1..4", "1..5")),
        INCOMPLETE
    );
    assert_eq!(
        refused(Format::Tap, &format!("{TAP}Bail out! disk full")),
        INCOMPLETE
    );
    assert_eq!(refused(Format::Tap, &format!("{TAP}1..4")), MALFORMED);
    assert_eq!(read(Format::Tap, "1..0 # SKIP nothing to do"), own(&[]));
}

const GO: &str = r#"{"Time":"2026-01-01T00:00:00Z","Action":"start","Package":"x/a"}
{"Action":"run","Package":"x/a","Test":"TestOne"}
{"Action":"output","Package":"x/a","Test":"TestOne","Output":"--- PASS: TestOther\n"}
{"Action":"pass","Package":"x/a","Test":"TestOne","Elapsed":0.1}
{"Action":"run","Package":"x/a","Test":"TestTwo/sub"}
{"Action":"skip","Package":"x/a","Test":"TestTwo/sub","Elapsed":0}
{"Action":"pass","Package":"x/a","Elapsed":0.1}
{"Action":"start","Package":"x/b"}
{"Action":"run","Package":"x/b","Test":"TestPanics"}
{"Action":"fail","Package":"x/b","Elapsed":0.1}
{"Action":"start","Package":"x/c"}
{"Action":"fail","Package":"x/c","Elapsed":0.1,"FailedBuild":"x/c"}
"#;

#[test]
fn go_json() {
    assert_eq!(
        read(Format::GoJson, GO),
        own(&[
            ("x/a TestOne", Passed),
            ("x/a TestTwo/sub", Skipped),
            ("x/b TestPanics", Failed),
            ("x/c (package)", Failed),
        ])
    );
    let cut: String = GO.lines().take(6).map(|line| format!("{line}\n")).collect();
    assert_eq!(refused(Format::GoJson, &cut), INCOMPLETE);
    assert_eq!(
        refused(Format::GoJson, &GO.replace("\"skip\"", "\"bench\"")),
        INCOMPLETE
    );
    assert_eq!(refused(Format::GoJson, "ok x/a 0.1s"), MALFORMED);
    assert_eq!(refused(Format::GoJson, ""), MALFORMED);
}

const PYTEST: &str = "============ test session starts ============
collected 5 items

tests/test_a.py::test_one PASSED                          [ 20%]
tests/test_a.py::TestX::test_two[a b-1] FAILED            [ 40%]
tests/test_a.py::test_three SKIPPED (no network)          [ 60%]
tests/test_a.py::test_four XFAIL (bug 12)                 [ 80%]
tests/test_a.py::test_five PASSED                         [ 90%]
tests/test_a.py::test_five ERROR                          [100%]

========= short test summary info ==========
PASSED tests/test_a.py::test_one
SKIPPED [1] tests/test_a.py:10: no network
ERROR tests/test_a.py::test_five - OSError: teardown
FAILED tests/test_a.py::TestX::test_two[a b-1] - assert 1 == 2
=== 1 failed, 2 passed, 1 skipped, 1 xfailed, 1 error in 0.12s ===
";

#[test]
fn pytest_text() {
    let expected = own(&[
        ("tests/test_a.py::TestX::test_two[a b-1]", Failed),
        ("tests/test_a.py::test_five", Failed),
        ("tests/test_a.py::test_four", Skipped),
        ("tests/test_a.py::test_one", Passed),
        ("tests/test_a.py::test_three", Skipped),
    ]);
    assert_eq!(read(Format::Pytest, PYTEST), expected);
    assert_eq!(
        refused(Format::Pytest, &PYTEST.replace("2 passed", "3 passed")),
        INCOMPLETE
    );
    let cut = PYTEST
        .rsplit_once("===")
        .unwrap()
        .0
        .rsplit_once("===")
        .unwrap()
        .0;
    assert_eq!(refused(Format::Pytest, cut), INCOMPLETE);
    let broken = "ERROR collecting\nERROR tests/test_b.py\n=== 1 error in 0.1s ===\n";
    assert_eq!(
        read(Format::Pytest, broken),
        own(&[("(errors outside tests)", Failed)])
    );
    assert_eq!(
        read(Format::Pytest, "=== no tests ran in 0.00s ==="),
        own(&[])
    );
}

const JUNIT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
  <testsuite name="s" tests="5">
    <properties><property name="failure" value="x"/></properties>
    <testcase classname="tests.a" name="one &lt;1&gt; &amp; &quot;two&quot;" time="0.1"/>
    <testcase classname="tests.a" name="bad"><failure message="m"><![CDATA[<skipped/>]]></failure></testcase>
    <testcase name="err"><error/><skipped/></testcase>
    <testsuite><testcase classname="c" name="skip"><skipped message="x"/><system-out>ok &#27;</system-out></testcase></testsuite>
    <testcase classname="c" name="off" status="notrun"></testcase>
    <testcase classname="c" name="off"/>
  </testsuite>
</testsuites>
"#;

#[test]
fn junit_xml() {
    assert_eq!(
        read(Format::Junit, JUNIT),
        own(&[
            ("c::skip", Skipped),
            ("s c::off", Skipped),
            ("s c::off #2", Passed),
            ("s err", Failed),
            ("s tests.a::bad", Failed),
            ("s tests.a::one <1> & \"two\"", Passed),
        ])
    );
}

#[test]
fn hostile_xml_is_refused() {
    let bomb = r#"<!DOCTYPE t [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><testsuite><testcase name="&b;"/></testsuite>"#;
    assert_eq!(refused(Format::Junit, bomb), MALFORMED);
    assert_eq!(
        refused(
            Format::Junit,
            r#"<testsuite><testcase name="&b;"/></testsuite>"#
        ),
        MALFORMED
    );
    let deep = "<testsuite>".repeat(DEEP) + &"</testsuite>".repeat(DEEP);
    assert_eq!(refused(Format::Junit, &deep), MALFORMED);
    assert_eq!(refused(Format::Junit, "<html/>"), MALFORMED);
    assert_eq!(refused(Format::Junit, ""), MALFORMED);
    assert_eq!(
        refused(Format::Junit, "<testsuite/><testsuite/>"),
        MALFORMED
    );
    assert_eq!(
        refused(Format::Junit, "<testsuite><testcase/></testsuite>"),
        MALFORMED
    );
    assert_eq!(
        refused(
            Format::Junit,
            r#"<testsuite><testcase name="a"><testcase name="b"/></testcase></testsuite>"#
        ),
        MALFORMED
    );
    assert_eq!(
        refused(Format::Junit, r#"<testsuite><testcase name="a"/>"#),
        INCOMPLETE
    );
    assert_eq!(
        refused(Format::Junit, "<testsuite></testsuites>"),
        MALFORMED
    );
}

const DEEP: usize = 100;

#[test]
fn a_change_can_not_pass_by_not_running() {
    let report = |tests: &[(&str, Outcome)]| TestReport {
        tests: own(tests).into_iter().collect(),
    };
    let base = report(&[("a", Passed), ("b", Passed), ("c", Skipped), ("d", Failed)]);
    assert!(!compare(&base, &base).holds(), "d still fails");
    let good = report(&[
        ("a", Passed),
        ("b", Passed),
        ("c", Passed),
        ("d", Passed),
        ("e", Passed),
    ]);
    let comparison = compare(&base, &good);
    assert!(comparison.holds());
    assert_eq!(comparison.added, ["e".to_owned()].into());

    let fewer = compare(
        &good,
        &report(&[("a", Passed), ("b", Skipped), ("c", Passed), ("d", Passed)]),
    );
    assert_eq!(fewer.missing, ["e".to_owned()].into());
    assert_eq!(fewer.newly_skipped, ["b".to_owned()].into());
    assert!(!fewer.holds());

    let nothing = compare(&base, &TestReport::default());
    assert!(nothing.nothing_ran && nothing.missing.len() == 4 && !nothing.holds());
    let new_failure = compare(&TestReport::default(), &report(&[("x", Failed)]));
    assert!(!new_failure.holds(), "a new test that fails counts");
}

#[test]
fn reports_of_several_commands_keep_their_tests_apart() {
    let one = TestReport {
        tests: own(&[("a", Passed)]).into_iter().collect(),
    };
    let two = TestReport {
        tests: own(&[("a", Failed)]).into_iter().collect(),
    };
    let all = TestReport::joined([("unit", &one), ("e2e", &two)]).unwrap();
    assert_eq!(
        (all.tests["unit: a"], all.tests["e2e: a"]),
        (Passed, Failed)
    );
    assert_ne!(all.digest().unwrap(), one.digest().unwrap());
}

#[test]
fn bounds_are_kept() {
    let mut report = TestReport::default();
    assert!(report.add(&"x".repeat(NAME_MAX_BYTES + 1), Passed).is_err());
    for _ in 0..SAME_NAME_MAX {
        report.add("a", Passed).unwrap();
    }
    assert!(report.add("a", Passed).is_err());
    let big = vec![b' '; REPORT_MAX_BYTES + 1];
    assert_eq!(
        parse(Format::Tap, &big).unwrap_err().code,
        "test-report-too-large"
    );
}

/// What the runners on this machine really write, in files beside this one.
#[test]
fn output_of_real_runners() {
    let node = [
        ("math > adds", Passed),
        ("math > bad", Failed),
        ("math > later", Skipped),
        ("math", Failed),
        ("todo thing", Skipped),
    ];
    let tap = parse(Format::Tap, include_bytes!("samples/node.tap")).unwrap();
    assert_eq!(tap.tests, own(&node).into_iter().collect());
    let junit = parse(Format::Junit, include_bytes!("samples/node.xml")).unwrap();
    let outcomes: Vec<_> = junit.tests.values().copied().collect();
    assert_eq!(
        (junit.tests.len(), junit.count(Failed), junit.count(Skipped)),
        (4, 1, 2),
        "{outcomes:?}"
    );
    let nextest = parse(Format::Nextest, include_bytes!("samples/nextest.txt")).unwrap();
    assert_eq!((nextest.count(Passed), nextest.count(Failed)), (2, 1));
    let libtest = parse(Format::Libtest, include_bytes!("samples/libtest.txt")).unwrap();
    assert_eq!(
        (
            libtest.count(Passed),
            libtest.count(Failed),
            libtest.count(Skipped)
        ),
        (4, 1, 1)
    );
    // Two runners, one set of names but for the binary's.
    let names = |report: &TestReport| -> BTreeSet<String> {
        report
            .tests
            .keys()
            .filter_map(|name| name.rsplit(' ').next().map(str::to_owned))
            .collect()
    };
    assert!(names(&nextest).is_subset(&names(&libtest)));
}

const SAMPLES: [(Format, &str); 6] = [
    (Format::Libtest, LIBTEST),
    (Format::Nextest, NEXTEST),
    (Format::Tap, TAP),
    (Format::GoJson, GO),
    (Format::Pytest, PYTEST),
    (Format::Junit, JUNIT),
];

#[test]
fn formats_have_one_name() {
    for (format, _) in SAMPLES {
        let name = serde_json::to_value(format).unwrap();
        assert_eq!(name.as_str().unwrap().parse::<Format>().unwrap(), format);
    }
    assert!("xunit".parse::<Format>().is_err());
}

/// No report that is cut anywhere has fewer tests than the whole and is taken.
#[test]
fn a_cut_report_is_never_a_smaller_one() {
    for (format, text) in SAMPLES {
        let whole = parse(format, text.as_bytes()).unwrap();
        for cut in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
            if let Ok(part) = parse(format, &text.as_bytes()[..cut]) {
                // Where a whole binary, package or suite ended before the cut, only the comparison
                // can tell.
                let shorter = matches!(format, Format::Libtest | Format::GoJson);
                assert!(shorter || part == whole, "{format:?} cut at {cut}");
                assert!(part == whole || !compare(&whole, &part).missing.is_empty());
            }
        }
    }
}

proptest! {
    #[test]
    fn random_text_never_panics(text in "\\PC{0,200}", pick in 0_usize..6) {
        let _ = parse(SAMPLES[pick].0, text.as_bytes());
    }

    #[test]
    fn mutated_reports_never_panic(
        pick in 0_usize..6,
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        moved in any::<prop::sample::Index>(),
    ) {
        let (format, text) = SAMPLES[pick];
        let mut bytes = text.as_bytes().to_vec();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let at = moved.index(bytes.len());
        bytes.rotate_left(at);
        let _ = parse(format, &bytes);
        bytes.truncate(at);
        let _ = parse(format, &bytes);
    }
}
