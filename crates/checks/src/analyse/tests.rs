use portcullis_model::GitOid;
use proptest::prelude::*;

use super::*;
use crate::diff::{FileMode, GitPath, Hunk, Line, Status};

/// A change of one file by its lines; an empty side with `Added` or `Deleted` is no side.
pub(crate) fn change(path: &str, removed: &[&str], added: &[&str]) -> FileChange {
    let oid = |name: String| -> GitOid { Digest::of(name.as_bytes()).hex()[..40].parse().unwrap() };
    let lines = |texts: &[&str]| {
        (1..)
            .zip(texts)
            .map(|(number, text)| Line {
                number,
                content: text.as_bytes().to_vec(),
                newline: true,
            })
            .collect()
    };
    FileChange {
        old_path: Some(GitPath::new(path)),
        new_path: Some(GitPath::new(path)),
        status: Status::Modified,
        old_mode: FileMode::Regular,
        new_mode: FileMode::Regular,
        old_oid: oid(format!("old {path} {removed:?}")),
        new_oid: oid(format!("new {path} {added:?}")),
        binary: false,
        hunks: vec![Hunk {
            removed: lines(removed),
            added: lines(added),
        }],
    }
}

pub(crate) fn added(path: &str, lines: &[&str]) -> FileChange {
    FileChange {
        old_path: None,
        status: Status::Added,
        old_mode: FileMode::Absent,
        old_oid: GitOid::zero(),
        ..change(path, &[], lines)
    }
}

pub(crate) fn deleted(path: &str, lines: &[&str]) -> FileChange {
    FileChange {
        new_path: None,
        status: Status::Deleted,
        new_mode: FileMode::Absent,
        new_oid: GitOid::zero(),
        ..change(path, lines, &[])
    }
}

fn report(files: Vec<FileChange>) -> Report {
    analyse(&Diff { files }, None, &Context::default())
}

fn rules_of(report: &Report) -> Vec<&str> {
    let mut rules: Vec<&str> = report
        .findings
        .iter()
        .map(|finding| &*finding.rule)
        .collect();
    rules.dedup();
    rules
}

fn is_found(rule: &str, file: FileChange) {
    let shown = format!("{file:?}");
    let report = report(vec![file]);
    assert!(
        rules_of(&report).contains(&rule),
        "{rule} misses {shown}: {report:#?}"
    );
}

fn is_quiet(file: FileChange) {
    let shown = format!("{file:?}");
    let report = report(vec![file]);
    assert_eq!(report.findings, [], "{shown}");
    assert_eq!(report.verdict, Level::Pass);
}

#[test]
fn ordinary_work_passes() {
    is_quiet(change(
        "src/main.rs",
        &["fn a() {}"],
        &["fn a() { b() }", "// größer, 日本語, Δx ≤ µ"],
    ));
    is_quiet(added(
        "tests/new.rs",
        &["#[test]", "fn works() { assert_eq!(f(), 3); }"],
    ));
    is_quiet(added(
        "docs/guide.md",
        &["Use it ❤\u{fe0f} 👩\u{200d}💻 and be happy."],
    ));
    is_quiet(change(
        "tests/a.py",
        &["    assert a == 1"],
        &["    assert a == 2"],
    ));
    is_quiet(added("src/текст.py", &["привет = 'мир'"]));
    is_quiet(change("src/a.rs", &["let x = 1;\r"], &["let x = 2;\r"]));
}

#[test]
fn files_with_power_escalate() {
    for (rule, path) in [
        ("pipeline-edit", ".github/workflows/ci.yml"),
        ("automation-edit", ".github/dependabot.yml"),
        ("manifest-edit", "Cargo.toml"),
        ("lock-edit", "Cargo.lock"),
        ("packaging-edit", "Dockerfile"),
        ("ownership-edit", "CODEOWNERS"),
        ("agent-instructions-edit", "CLAUDE.md"),
        ("portcullis-edit", ".portcullis/checks.toml"),
        ("git-control-edit", ".gitattributes"),
        ("workstation-edit", ".vscode/tasks.json"),
        ("infrastructure-edit", "infra/main.tf"),
    ] {
        is_found(rule, change(path, &["a"], &["b"]));
        is_found(rule, added(path, &["b"]));
        is_found(rule, deleted(path, &["a"]));
        is_found(rule, added(&path.to_uppercase(), &["b"]));
        let report = report(vec![change(path, &["a"], &["b"])]);
        assert_eq!(report.verdict, Level::Escalate, "{path}");
        assert!(report.escalations.contains(rule));
    }
    is_found(
        "lifecycle-script",
        change("package.json", &[], &["  \"postinstall\": \"node x.js\","]),
    );
}

/// A pipeline moved away is a pipeline changed.
#[test]
fn both_ends_of_a_move_count() {
    let mut moved = change(".github/workflows/ci.yml", &[], &[]);
    moved.new_path = Some(GitPath::new("old/ci.yml"));
    moved.status = Status::Renamed;
    is_found("pipeline-edit", moved);
}

#[test]
fn secrets_block_and_are_not_shown() {
    let body = "Ab3dEf7hIjKlMn9pQrStUvWxYz012x";
    let tail = {
        let mut crc = crc32fast::hash(body.as_bytes());
        let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut tail = Vec::new();
        for _ in 0..6 {
            tail.insert(0, digits[(crc % 62) as usize]);
            crc /= 62;
        }
        String::from_utf8(tail).unwrap()
    };
    let line = format!("let t = \"{}{body}{tail}\";", ["gh", "p_"].concat());
    let mut file = change("src/a.rs", &[], &["one", &line]);
    file.hunks[0].added[1].number = 41;
    let found = report(vec![file.clone()]);
    assert_eq!(found.verdict, Level::Block);
    assert_eq!(
        (found.findings[0].line, &*found.findings[0].rule),
        (Some(41), "secret-added")
    );
    assert!(
        !String::from_utf8(found.to_bytes().unwrap())
            .unwrap()
            .contains(body)
    );
    // Not even when the file claims to be binary.
    file.binary = true;
    is_found("secret-added", file.clone());
    // A secret that goes away is none that comes.
    let removed = change("src/a.rs", &[&line], &[]);
    is_quiet(removed);
}

#[test]
fn weaker_tests_escalate() {
    is_found("test-file-deleted", deleted("tests/login.rs", &["x"]));
    for (path, line) in [
        ("src/a.rs", "    #[test]"),
        ("src/a.rs", "    #[tokio::test(flavor = \"x\")]"),
        ("tests/test_a.py", "def test_expired(client):"),
        ("tests/test_a.py", "    async def test_expired(self):"),
        ("pkg/a_test.go", "func TestExpired(t *testing.T) {"),
        (
            "web/a.test.ts",
            "  it('refuses expired tokens', async () => {",
        ),
        ("src/test/java/ATest.java", "    @Test"),
        ("spec/a_spec.rb", "  it \"refuses\" do"),
        ("t/a.bats", "@test \"refuses\" {"),
        ("tests/a.cpp", "TEST_F(Login, Expired) {"),
    ] {
        is_found("test-removed", change(path, &[line], &[]));
        is_found(
            "test-removed",
            change(path, &[line], &[&format!("// {}", line.trim())]),
        );
        is_quiet(change(path, &[line], &[line]));
    }
    for (path, line) in [
        ("tests/a.rs", "    assert_eq!(status, 403);"),
        ("tests/a.py", "    assert status == 403"),
        ("tests/a.py", "        self.assertEqual(status, 403)"),
        ("a.test.ts", "    expect(status).toBe(403);"),
        ("a_test.go", "    require.Equal(t, 403, status)"),
        ("a_test.go", "        t.Errorf(\"status\")"),
    ] {
        is_found("assertions-removed", change(path, &[line], &[]));
        is_found(
            "assertions-removed",
            change(path, &[line], &[&format!("// {}", line.trim())]),
        );
    }
    for (path, line) in [
        ("src/a.rs", "    #[ignore = \"slow\"]"),
        ("tests/a.rs", "#[cfg(any())]"),
        ("tests/a.py", "@pytest.mark.skip(reason='x')"),
        ("tests/a.py", "    pytest.skip('later')"),
        ("tests/a.py", "@unittest.skipIf(True, '')"),
        ("conftest.py", "collect_ignore = ['test_a.py']"),
        ("a.test.ts", "it.only('x', () => {"),
        ("a.test.ts", "describe.skip('x', () => {"),
        ("a.test.ts", "xit('x', () => {"),
        ("a_test.go", "\tt.Skip(\"later\")"),
        ("src/test/java/ATest.java", "  @Disabled"),
    ] {
        is_found("test-skipped", change(path, &[], &[line]));
    }
    for (path, line) in [
        ("tests/a.rs", "    assert!(true);"),
        ("tests/a.py", "    assert True"),
        ("a.test.ts", "    expect(true).toBe(true);"),
        ("a_test.go", "    assert.True(t, true)"),
    ] {
        is_found("assertion-always-true", change(path, &[], &[line]));
    }
    is_found(
        "test-early-exit",
        change("tests/conftest.py", &[], &["    os._exit(0)"]),
    );
    is_found(
        "test-early-exit",
        change("tests/run.sh", &[], &["pytest || true"]),
    );
}

#[test]
fn a_moved_test_is_no_removed_test() {
    let from = change("tests/test_a.py", &["def test_expired():"], &[]);
    let to = change("tests/test_b.py", &[], &["def test_expired():"]);
    assert_eq!(report(vec![from.clone(), to.clone()]).findings, []);
    assert_eq!(report(vec![to, from.clone()]).findings, []);
    // One put back for two taken is one removed.
    let twice = change("tests/test_c.py", &["def test_expired():"], &[]);
    let back = change("tests/test_b.py", &[], &["def test_expired():"]);
    assert_eq!(report(vec![from, twice, back]).findings.len(), 1);
    let gone = deleted("tests/data/x.json", &["1"]);
    let mut came = added("tests/data/y.json", &["1"]);
    came.new_oid = gone.old_oid.clone();
    assert_eq!(report(vec![gone, came]).findings, []);
}

#[test]
fn text_that_deceives_escalates() {
    for (rule, line) in [
        ("bidi-control", "if admin \u{202e}} // \u{2066}check"),
        ("invisible-character", "let ad\u{200b}min = 1;"),
        ("invisible-character", "run \u{e0049}\u{e0047} this"),
        ("invisible-character", "let a\u{200d}b = 1;"),
        ("control-character", "echo \u{1b}[2K ok"),
        ("control-character", "evil();\rgood();"),
        ("homoglyph", "let \u{430}dmin = true;"),
        ("homoglyph", "let \u{ff41}\u{ff42} = 1;"),
    ] {
        is_found(rule, change("src/a.rs", &[], &[line]));
        is_found(rule, change("README.md", &[], &[line]));
    }
    is_found("long-line", change("src/a.js", &[], &[&"a+b;".repeat(300)]));
    is_quiet(change("data/a.json", &[], &[&"a+b;".repeat(300)]));
    is_found(
        "encoded-blob",
        change(
            "src/a.py",
            &[],
            &[&format!("exec(b('{}'))", "aB3d".repeat(100))],
        ),
    );
    let bom = change("src/a.cs", &[], &["\u{feff}using System;"]);
    is_quiet(bom);
}

#[test]
fn files_that_deceive_escalate() {
    let mut binary = added("tests/bad.xz", &["x"]);
    binary.binary = true;
    is_found("binary-added", binary.clone());
    // A picture must begin like one.
    binary.new_path = Some(GitPath::new("docs/logo.png"));
    is_found("binary-added", binary.clone());
    binary.hunks[0].added[0].content = b"\x89PNG\r".to_vec();
    is_quiet(binary);

    let mut program = change("docs/notes", &[], &[]);
    program.new_mode = FileMode::Executable;
    is_found("executable-added", program);

    for (path, target, outside) in [
        ("a/link", "/etc/passwd", true),
        ("a/link", "../../x", true),
        ("a/link", "../x", false),
        ("link", "..", true),
        ("a/b/link", "../../c", false),
        ("link", "a/../../b", true),
        ("link", ".git/config", true),
        ("link", ".GIT/config", true),
        ("link", "C:\\x", true),
        ("link", "src/x", false),
    ] {
        let mut link = added(path, &[target]);
        link.new_mode = FileMode::Symlink;
        if outside {
            is_found("symlink-outside", link);
        } else {
            is_quiet(link);
        }
    }

    let mut module = added("vendor/lib", &["Subproject commit 1"]);
    module.new_mode = FileMode::Submodule;
    is_found("submodule-edit", module);
    let lines = [
        "version https://git-lfs.github.com/spec/v1",
        "oid sha256:0",
        "size 5",
    ];
    is_found("lfs-pointer", added("big.txt", &lines));
    is_quiet(added("about.md", &["the first line is not it", lines[0]]));
    let mut kind = change("notes", &["a"], &["b"]);
    kind.status = Status::TypeChanged;
    kind.new_mode = FileMode::Symlink;
    is_found("type-changed", kind);

    for path in [
        "a\u{200b}b",
        "aux.txt",
        "COM1",
        "a\\b",
        "a:b",
        "dir./x",
        "x ",
        "GITHUB~1",
        "\u{430}dmin.rs",
        "sub/.git",
        "a\nb",
        "sub/.Git /x",
    ] {
        is_found("odd-path", added(path, &["x"]));
    }
    let mut latin = added("x", &["y"]);
    latin.new_path = Some(GitPath::new(*b"lat\xff"));
    is_found("odd-path", latin);
    let twins = report(vec![added("Readme.md", &["a"]), added("README.md", &["b"])]);
    assert_eq!(rules_of(&twins), ["path-twins"]);
}

#[test]
fn outside_the_scope_blocks_and_names_the_widening() {
    let scope = Scope::over(&["src/**".into()]);
    let diff = Diff {
        files: vec![
            change("deploy/x.txt", &["a"], &["b"]),
            change("src/a.rs", &[], &["b"]),
        ],
    };
    let report = analyse(&diff, Some(&scope), &Context::default());
    assert_eq!(report.verdict, Level::Block);
    assert_eq!(rules_of(&report), ["scope-outside", "scope-widening"]);
    assert!(
        report.findings[1].message.contains("path deploy/x.txt"),
        "{report:?}"
    );
    assert_eq!(report.blocks, BTreeSet::from(["scope-outside".to_owned()]));
    let inside = Diff {
        files: vec![change("src/a.rs", &[], &["b"])],
    };
    assert_eq!(
        analyse(&inside, Some(&scope), &Context::default()),
        Report::default()
    );
    let broken = Scope {
        allow: vec!["src/[".into()],
        ..scope
    };
    let report = analyse(&inside, Some(&broken), &Context::default());
    assert_eq!(
        (report.verdict, rules_of(&report)),
        (Level::Block, vec!["scope-unreadable"])
    );
}

#[test]
fn the_base_can_demand_more_and_nothing_less() {
    let guard = |path: &str| {
        vec![PathRule {
            path: path.into(),
            why: "money".into(),
        }]
    };
    let configuration = Configuration {
        escalate: guard("billing/**"),
        block: guard("vendor/**"),
        tests: vec!["qa/**".into()],
        raise: ["test-file-deleted".to_owned()].into(),
    };
    let context = Context::new(configuration).unwrap();
    let of = |file| analyse(&Diff { files: vec![file] }, None, &context);
    assert_eq!(
        of(change("Billing/a.txt", &[], &["b"])).escalations,
        ["guarded-path".to_owned()].into()
    );
    assert_eq!(
        of(change("vendor/a.txt", &[], &["b"])).verdict,
        Level::Block
    );
    assert_eq!(
        of(deleted("qa/a.txt", &["b"])).blocks,
        ["test-file-deleted".to_owned()].into()
    );
    assert_ne!(
        context.digest().unwrap(),
        Context::default().digest().unwrap()
    );

    let unknown = Configuration {
        raise: ["no-such".to_owned()].into(),
        ..Configuration::default()
    };
    assert_eq!(
        Context::new(unknown).err().unwrap().code,
        "malformed-check-rule"
    );
    let bad = Configuration {
        tests: vec!["[".into()],
        ..Configuration::default()
    };
    assert!(Context::new(bad).is_err());
    assert!(serde_json::from_str::<Configuration>(r#"{"allow": []}"#).is_err());
}

#[test]
fn reports_are_bounded_and_keep_the_worst() {
    let mut files: Vec<_> = (0..FINDINGS_MAX + 50)
        .map(|at| change(&format!("{at}/Makefile"), &[], &["x"]))
        .collect();
    files.push(added("zz/aux.c", &["x"]));
    let report = report(files);
    assert_eq!((report.findings.len(), report.omitted), (FINDINGS_MAX, 51));
    assert!(report.escalations.contains("odd-path"));
}

#[test]
fn a_report_has_one_spelling() {
    let report = report(vec![
        added("a\u{1b}[2J", &["x"]),
        change("Makefile", &["a"], &["b"]),
    ]);
    let bytes = report.to_bytes().unwrap();
    assert!(!bytes.contains(&0x1b));
    let read: Report = canonical::from_slice("report", &bytes).unwrap();
    assert_eq!(read, report);
    assert_eq!(read.digest().unwrap(), Digest::of(&bytes));
}

/// The whole way with the real git: a change that tries five things at once, and hides one of them
/// behind an attribute of its own.
#[test]
fn a_hostile_change_through_git() {
    let r = crate::diff::tests::Repository::new();
    r.write("src/lib.rs", "pub fn a() {}\n");
    r.write(
        "tests/a.rs",
        "#[test]\nfn works() {\n    assert_eq!(1 + 1, 2);\n}\n",
    );
    let base = r.commit();
    r.write(".gitattributes", "* -diff -text\n");
    r.write("src/lib.rs", "pub fn a() {} // \u{202e}\n");
    r.write("tests/a.rs", "fn works() {}\n");
    r.write(".GitHub/workflows/x.yml", "on: push\n");
    std::os::unix::fs::symlink("/etc", r.path().join("src/etc")).unwrap();
    let head = r.commit();
    let scope = Scope::over(&["src/**".into(), "tests/**".into()]);
    let report = analyse(&r.diff(&base, &head), Some(&scope), &Context::default());
    let own = |rules: &[&str]| {
        rules
            .iter()
            .map(|rule| (*rule).to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(report.blocks, own(&["scope-outside", "scope-operation"]));
    assert_eq!(
        report.escalations,
        own(&[
            "assertions-removed",
            "bidi-control",
            "git-control-edit",
            "pipeline-edit",
            "scope-widening",
            "symlink-outside",
            "test-removed",
        ])
    );
}

/// Every rule is found by some test here: the list of rules and this file stay together.
#[test]
fn every_rule_is_tested() {
    let here = include_str!("tests.rs");
    let elsewhere = [
        "scope-denied",
        "scope-operation",
        "scope-max-files",
        "scope-max-lines",
        "closed-path",
    ];
    for rule in rules::all() {
        let quoted = format!("\"{}\"", rule.id);
        assert!(here.contains(&quoted), "{} is not tested", rule.id);
    }
    let scope = Scope {
        deny: vec!["src/b".into()],
        max_files: 1,
        max_lines: 1,
        ..Scope::over(&["src/**".into()])
    };
    let mut link = added("src/c", &["a", "b"]);
    link.new_mode = FileMode::Symlink;
    let diff = Diff {
        files: vec![change("src/b", &[], &["x"]), link],
    };
    let context = Context::new(Configuration {
        block: vec![PathRule {
            path: "src/b".into(),
            why: "w".into(),
        }],
        ..Configuration::default()
    })
    .unwrap();
    let blocks = analyse(&diff, Some(&scope), &context).blocks;
    for rule in elsewhere {
        assert!(blocks.contains(rule), "{rule}: {blocks:?}");
    }
}

proptest! {
    /// Any lines under any name are analysed, and a verdict is the worst of its findings.
    #[test]
    fn any_change_is_analysed(
        path in "\\PC{1,30}",
        old in proptest::collection::vec("\\PC{0,40}", 0..5),
        new in proptest::collection::vec("\\PC{0,40}", 0..5),
        scope in proptest::option::of("[a-z*/\\[\\]{}]{1,10}"),
    ) {
        let old: Vec<&str> = old.iter().map(String::as_str).collect();
        let new: Vec<&str> = new.iter().map(String::as_str).collect();
        let scope = scope.map(|pattern| Scope::over(&[pattern]));
        let diff = Diff { files: vec![change(&path, &old, &new), added(&path, &new), deleted(&path, &old)] };
        let report = analyse(&diff, scope.as_ref(), &Context::default());
        let worst = report.findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Pass);
        prop_assert_eq!(worst, report.verdict);
    }
}
