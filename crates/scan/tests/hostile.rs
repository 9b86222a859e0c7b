//! Bad input: whatever the files hold, the scan ends, in bounded time, with the rest still read.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

use std::collections::BTreeMap;

use portcullis_scan::{Options, render, scan, scan_memory};
use proptest::prelude::*;

const GOOD: &str = "on:\n  schedule: [{cron: '0 0 * * *'}]\njobs:\n  p:\n    runs-on: x\n    steps: [{run: npm publish}]\n";

const NAMES: &[&str] = &[
    ".github/workflows/x.yml",
    ".gitlab-ci.yml",
    "azure-pipelines.yml",
    ".circleci/config.yml",
    "Jenkinsfile",
    ".tekton/x.yaml",
    ".github/dependabot.yml",
    "renovate.json",
    ".mergify.yml",
    ".kodiak.toml",
    "bors.toml",
    ".github/CODEOWNERS",
    "action.yml",
    "argocd/x.yaml",
    ".bulldozer.yml",
    "package.json",
];

fn try_all(text: &str) {
    for name in NAMES {
        let files: BTreeMap<String, String> = [
            ((*name).to_owned(), text.to_owned()),
            (".github/workflows/good.yml".to_owned(), GOOD.to_owned()),
        ]
        .into();
        let report = scan_memory(vec![("acme/widget".to_owned(), files)], &[]);
        assert!(
            report
                .verdicts()
                .any(|verdict| verdict.sink == "npm publish"),
            "{name}: the rest was not read"
        );
        for text in [
            render::text::render(&report, render::text::Style::default()),
            render::json::render(&report),
            render::sarif::render(&report),
            render::html::render(&report),
        ] {
            assert!(!text.is_empty());
        }
    }
}

/// Words that pipelines are made of, so that random text gets past the first check.
fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z:\\-\\[\\]{}&*!|>'\"%@#$ \n\t(),/<=.0-9]{0,60}",
        prop::sample::select(vec![
            "on:\n",
            "  push:\n",
            "jobs:\n",
            "  a:\n",
            "    steps:\n",
            "      - run: |\n",
            "          npm publish\n",
            "      - uses: actions/checkout@v4\n",
            "        with:\n",
            "    if: ${{ ",
            " }}\n",
            "github.event.",
            "contains(",
            "fromJSON('",
            "&a ",
            "*a\n",
            "<<: *a\n",
            "$(",
            "<<EOF\n",
            "`",
            "\\\n",
            "gh pr merge ",
            "git push ",
            "    needs: [a, b]\n",
            "stage('x') {\n",
            "sh '''\n",
            "script:\n",
            "rules:\n",
            "  - if: $CI ==\n",
            "workflows:\n",
            "requires: [a]\n",
            "apiVersion: tekton.dev/v1\n",
            "---\n",
            "\u{feff}",
            "\u{0}",
            "\u{202e}",
            "permissions: write-all\n",
            "uses: ./.github/workflows/x.yml\n",
            "    uses: ./.github/workflows/good.yml\n",
            "extends: [a]\n",
            "include: .gitlab-ci.yml\n",
        ])
        .prop_map(str::to_owned),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    #[test]
    fn any_text_anywhere(parts in prop::collection::vec(fragment(), 0..40)) {
        try_all(&parts.concat());
    }

    #[test]
    fn any_damage_to_a_good_workflow(at in 0_usize..200, with in fragment()) {
        let mut text = "name: x\non:\n  issue_comment:\n    types: [created]\npermissions:\n  contents: write\njobs:\n  a: &a\n    if: github.event.comment.body == '/x'\n    runs-on: x\n    steps:\n      - uses: actions/checkout@v4\n      - run: |\n          git push origin HEAD:main\n          gh pr merge --auto\n".to_owned();
        let at = at.min(text.len());
        if text.is_char_boundary(at) {
            text.insert_str(at, &with);
        }
        try_all(&text);
    }
}

#[test]
fn bombs_loops_and_monsters_end() {
    let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
    for (from, to) in "abcdefgh".chars().zip("bcdefghi".chars()) {
        bomb.push_str(&format!(
            "{to}: &{to} [{}]\n",
            vec![format!("*{from}"); 9].join(",")
        ));
    }
    let deep = format!("on: push\njobs: {}", "{a: ".repeat(5_000));
    let parens = format!(
        "on: push\njobs:\n  a:\n    runs-on: x\n    if: {}true\n    steps: []\n",
        "(".repeat(5_000)
    );
    let dollars = format!(
        "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: '{}'\n",
        "$(".repeat(5_000)
    );
    let many_needs = (0..400)
        .map(|n| {
            format!(
                "  j{n}:\n    needs: [j{}]\n    runs-on: x\n    steps: [{{run: x}}]\n",
                (n + 1) % 400
            )
        })
        .collect::<String>();
    let loops = format!("on: push\njobs:\n{many_needs}");
    let calls = "on: [push, workflow_call]\njobs:\n  a:\n    uses: ./.github/workflows/x.yml\n  b:\n    uses: ./.github/workflows/x.yml\n".to_owned();
    let globs = format!(
        "on:\n  push:\n    branches: ['{}']\njobs: {{a: {{runs-on: x, steps: [{{run: x}}]}}}}\n",
        "**a".repeat(200)
    );
    let many_calls = format!(
        "on: [push, schedule, workflow_call]\njobs:\n{}",
        (0..60)
            .map(|n| format!("  j{n}:\n    uses: ./.github/workflows/x.yml\n"))
            .collect::<String>()
    );
    for text in [many_calls, bomb, deep, parens, dollars, loops, calls, globs] {
        try_all(&text);
    }
}

/// Scans each repository with one good workflow more, which must be read.
fn the_rest_is_read(cases: Vec<Vec<(&str, String)>>) {
    for case in cases {
        let files = case
            .into_iter()
            .map(|(name, text)| (name.to_owned(), text))
            .chain([(".github/workflows/good.yml".to_owned(), GOOD.to_owned())])
            .collect();
        let report = scan_memory(vec![("acme/widget".to_owned(), files)], &[]);
        assert!(
            report
                .verdicts()
                .any(|verdict| verdict.sink == "npm publish"),
            "the rest was not read"
        );
    }
}

#[test]
fn long_conditions_calls_and_tests_end() {
    let scripts = |script: &str| {
        format!(
            "on: {{schedule: [{{cron: '0 0 * * *'}}]}}\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: {script}\n"
        )
    };
    let workflow = ".github/workflows/a.yml";
    let calls = "  b\n".repeat(40_000);
    let ask = "N=$(gh pr view 1 --json reviewDecision --jq .reviewDecision) # APPROVED\n";
    let cases: Vec<Vec<(&str, String)>> = vec![
        vec![(
            "Jenkinsfile",
            format!("when {{ expression {{ {}x }} }}\n", "x && ".repeat(150_000)),
        )],
        vec![(
            "Jenkinsfile",
            format!("when {{\n{}}}\n", "branch 'x'\n".repeat(80_000)),
        )],
        vec![("Jenkinsfile", "when {\n".repeat(100_000))],
        vec![
            (workflow, scripts("fastlane a")),
            (
                "fastlane/Fastfile",
                format!("lane :a do\n{calls}end\nlane :b do\n  a\n{calls}end\n"),
            ),
        ],
        vec![
            (workflow, scripts("bash merge.sh")),
            (
                "merge.sh",
                format!(
                    "{ask}{}gh pr merge 1\n",
                    "if [ $N = APPROVED ]; then\n".repeat(30_000)
                ),
            ),
        ],
        vec![
            (workflow, scripts("bash merge.sh")),
            (
                "merge.sh",
                format!(
                    "{ask}{}\ngh pr merge 1\n",
                    "[ $N = APPROVED ] || { :; ".repeat(30_000)
                ),
            ),
        ],
        vec![
            (workflow, scripts("node merge.js")),
            (
                "merge.js",
                format!(
                    "listReviews\n{}octokit.rest.pulls.merge()\n",
                    (0..40_000)
                        .map(|at| format!("v{at} = APPROVED\n"))
                        .collect::<String>()
                ),
            ),
        ],
        vec![(
            workflow,
            scripts("npm publish").replace(
                "    steps",
                &format!("    if: {}a == a\n    steps", "a||".repeat(6_000)),
            ),
        )],
        vec![(
            workflow,
            scripts("npm publish").replace(
                "    steps",
                &format!("    if: a{}\n    steps", "==a".repeat(6_000)),
            ),
        )],
        vec![
            (workflow, scripts("node merge.js")),
            (
                "merge.js",
                format!(
                    "const people = [{}];\nif (people.includes(context.actor)) {{\n  octokit.rest.pulls.merge()\n}}\n",
                    "'a', ".repeat(10_000)
                ),
            ),
        ],
        vec![
            (workflow, scripts("node merge.js")),
            (
                "merge.js",
                format!(
                    "let b0 = context.payload.pull_request\n{}octokit.rest.pulls.merge()\n",
                    (0..20_000)
                        .map(|at| format!("let b{} = b{at}.abcdefghijklmnop\n", at + 1))
                        .collect::<String>()
                ),
            ),
        ],
        vec![
            (workflow, scripts("bash merge.sh")),
            (
                "merge.sh",
                format!(
                    "T=$(gh pr view 1 --json author --jq '.author.login')\n{}gh pr merge 1\n",
                    "A=1\n".repeat(30_000)
                ),
            ),
        ],
        vec![
            (workflow, scripts("bash merge.sh")),
            (
                "merge.sh",
                format!(
                    "{}B=1\ngh pr merge 1\n",
                    "[ $A = $B ] && e\n".repeat(20_000)
                ),
            ),
        ],
    ];
    the_rest_is_read(cases);
}

#[test]
fn other_systems_and_what_steps_leave_end() {
    let schedule =
        "on: {schedule: [{cron: '0 0 * * *'}]}\njobs:\n  a:\n    runs-on: x\n    steps:\n";
    let chain = |fan: &dyn Fn(usize) -> String| -> String {
        (1..12)
            .map(|at| format!(".a{at}:\n{}", fan(at + 1)))
            .collect()
    };
    let extends = |at: usize| format!("  extends: [{}]\n", vec![format!(".a{at}"); 12].join(", "));
    let refers = |at: usize| {
        let one = format!("    - !reference [.a{at}, script]\n");
        format!("  script:\n{}", one.repeat(12))
    };
    let manual =
        |at: usize| format!("j{at}:\n  stage: s{at}\n  script: [x]\n  rules: [{{when: manual}}]\n");
    let stages: Vec<String> = (0..900).map(|at| format!("s{at}")).collect();
    // Outputs that stand for outputs, several times each.
    let outputs: String = (0..12)
        .map(|at| {
            let next = format!("${{{{ steps.o{}.outputs.x }}}}", at + 1).repeat(50);
            let write = format!("          echo \"x={next}\" >> $GITHUB_OUTPUT\n").repeat(20);
            format!("      - id: o{at}\n        run: |\n{write}")
        })
        .collect();
    let functions: String = (0..3_000)
        .map(|at| format!("f{at}() {{\n  f{}\n}}\n", at + 1))
        .collect();
    let asked = "if [ \"$1\" = a ]; then\n  f0\nfi\n".repeat(200);
    let cases: Vec<Vec<(&str, String)>> = vec![
        vec![("Jenkinsfile", "if (x) { ".repeat(80_000))],
        vec![("Jenkinsfile", "if (".repeat(200_000))],
        vec![("Jenkinsfile", format!("{}sh 'a'\n", "if (x) ".repeat(100_000)))],
        vec![(
            ".gitlab-ci.yml",
            format!("a:\n  script: [x]\n  rules:\n{}", "    - if: $A\n".repeat(20_000)),
        )],
        vec![(
            ".gitlab-ci.yml",
            format!("a:\n  script: [x]\n  only:\n{}", "    - b\n".repeat(50_000)),
        )],
        vec![(
            ".circleci/config.yml",
            format!(
                "workflows:\n  w:\n    jobs:\n      - a:\n          filters:\n            branches:\n              only: [{}]\n",
                "b, ".repeat(50_000)
            ),
        )],
        vec![(
            ".circleci/config.yml",
            format!(
                "jobs:\n  build:\n    steps: [c0]\ncommands:\n{}",
                (0..9)
                    .map(|at| format!("  c{at}: {{steps: [{}]}}\n", format!("c{}, ", at + 1).repeat(12)))
                    .collect::<String>()
            ),
        )],
        vec![("Jenkinsfile", "if (x) {\n} else if (y) {\n".repeat(30_000))],
        vec![("Jenkinsfile", "sh 'a'; ".repeat(100_000))],
        vec![("Jenkinsfile", "sh \"\"\" a ".repeat(80_000))],
        vec![(".gitlab-ci.yml", format!("a: {{script: [x], extends: [.a1]}}\n{}", chain(&extends)))],
        vec![(
            ".gitlab-ci.yml",
            format!("a:\n  script:\n    - !reference [.a1, script]\n{}", chain(&refers)),
        )],
        vec![(
            ".gitlab-ci.yml",
            format!(
                "stages: [{}]\n{}",
                stages.join(", "),
                (0..900).map(manual).collect::<String>()
            ),
        )],
        vec![(
            ".gitlab-ci.yml",
            "a: {trigger: {include: .gitlab-ci.yml}}\nb: {trigger: {include: [b.yml, b.yml]}}\n".to_owned(),
        ), ("b.yml", "c: {trigger: {include: .gitlab-ci.yml}}\nd: {script: [x]}\n".to_owned())],
        vec![(
            ".gitlab-ci.yml",
            (0..60_000).map(|at| format!("k{at}: {{}}\n")).collect(),
        )],
        vec![(
            ".circleci/config.yml",
            format!("setup: true\njobs: {{a: {{steps: [run: \"{}\"]}}}}\n", "x.yml ".repeat(100_000)),
        )],
        vec![(
            ".github/workflows/a.yml",
            format!(
                "{schedule}{outputs}      - if: steps.o0.outputs.x == 'y'\n        run: npm publish\n"
            ),
        )],
        vec![
            (
                ".github/workflows/a.yml",
                format!("{schedule}      - run: ./f.sh a\n"),
            ),
            ("f.sh", format!("#!/bin/sh\n{functions}{asked}npm publish\n")),
        ],
    ];
    the_rest_is_read(cases);
}

#[test]
fn a_file_with_more_jobs_than_are_read_is_told() {
    let file = ".github/workflows/x.yml";
    let problems = |jobs: usize| {
        let text = (0..jobs).fold("on: push\njobs:\n".to_owned(), |text, at| {
            format!("{text}  j{at}:\n    runs-on: x\n    steps: [{{run: x}}]\n")
        });
        let files = [(file.to_owned(), text)].into();
        let report = scan_memory(vec![("acme/widget".to_owned(), files)], &[]);
        report.repositories[0].problems.clone()
    };
    assert!(problems(511).is_empty());
    let told = problems(513);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].file, file);
    assert!(
        told[0].message.contains("first 512 jobs"),
        "{}",
        told[0].message
    );
}

#[test]
fn names_that_stand_for_names_are_followed_to_a_bound_that_is_told() {
    let list = (0..31).map(|at| format!("v{at}")).collect::<Vec<_>>();
    let list = list.join(", ");
    let mut steps = String::new();
    for _ in 0..20 {
        steps.push_str(
            "      - run: make ${{ matrix.a }} ${{ matrix.b }} ${{ matrix.a }} ${{ env.C }}\n",
        );
    }
    let text = format!(
        "on:\n  schedule:\n    - cron: '0 3 * * *'\njobs:\n  a:\n    runs-on: x\n    env:\n      C: ${{{{ matrix.a }}}}\n    strategy:\n      matrix:\n        \
         a: [{list}]\n        b: [{list}]\n    steps:\n{steps}      - run: npm publish\n"
    );
    let files = [(".github/workflows/a.yml".to_owned(), text)].into();
    let report = scan_memory(vec![("acme/widget".to_owned(), files)], &[]);
    assert!(
        report
            .verdicts()
            .any(|verdict| verdict.sink == "npm publish")
    );
    let told = report.repositories[0]
        .findings
        .iter()
        .filter(|finding| finding.rule == "unread-step")
        .count();
    assert_eq!(told, 20, "once for each step");
}

#[test]
fn what_multiplies_at_each_level_ends_and_the_rest_is_read() {
    let all = (0..20)
        .map(|at| format!("${{{{ inputs.a{at} }}}}"))
        .collect::<Vec<_>>();
    let all = all.join(" ");
    let six = "${{ inputs.b }}".repeat(6);
    let mut inputs = String::from("  b: {default: xxxxxxxx}\n");
    let mut with = format!("        b: \"{six}\"\n");
    for at in 0..20 {
        inputs.push_str(&format!("  a{at}: {{default: xxxxxxxx}}\n"));
        with.push_str(&format!("        a{at}: \"{all}\"\n"));
    }
    let action = format!(
        "name: x\ninputs:\n{inputs}runs:\n  using: composite\n  steps:\n    - uses: ./.github/actions/x\n      with:\n{with}    - uses: some/deploy@v1\n      with:\n{with}"
    );
    // Composites that call one another, as one that calls itself is cut short.
    let mut files: BTreeMap<String, String> = (0..9)
        .map(|at| {
            (
                format!(".github/actions/x{at}/action.yml"),
                action.replace("actions/x\n", &format!("actions/x{}\n", at + 1)),
            )
        })
        .collect();
    let mut doubling = String::from("          v0=xxxxxxxx\n");
    for at in 1..40 {
        doubling.push_str(&format!("          v{at}=$v{}$v{}\n", at - 1, at - 1));
    }
    let matrix = (0..20_000).map(|at| format!("v{at}")).collect::<Vec<_>>();
    let (list, words) = (matrix.join(", "), matrix.join(" "));
    let runs = "          bash ${{ matrix.a }}.sh\n          bash $w.sh\n".repeat(2_000);
    files.insert(
        ".github/workflows/a.yml".to_owned(),
        format!(
            "on: {{schedule: [{{cron: '0 3 * * *'}}]}}\njobs:\n  a:\n    runs-on: x\n    strategy:\n      matrix:\n        a: [{list}]\n    steps:\n      - uses: ./.github/actions/x0\n      - run: |\n{doubling}          echo $v39 | bash $v39\n      - run: |\n          for w in {words}; do\n{runs}          done\n      - run: npm publish\n"
        ),
    );
    let report = scan_memory(vec![("acme/widget".to_owned(), files)], &[]);
    assert!(
        report
            .verdicts()
            .any(|verdict| verdict.sink == "npm publish")
    );
}

#[test]
fn programs_that_start_one_another_end_and_the_rest_is_read() {
    const PROGRAMS: usize = 40;
    let names = (0..100).map(|at| format!("f{at}")).collect::<Vec<_>>();
    let mut body = String::from("import subprocess\n");
    for other in 0..PROGRAMS {
        body.push_str(&format!("from t.p{other} import {}\n", names.join(", ")));
        body.push_str(&format!("import t.p{other} as m{other}\nm{other}.f1()\n"));
        body.push_str(&format!(
            "subprocess.run([\"python\", \"t/p{other}.py\"])\nsubprocess.run([\"bash\", \"t/s{other}.sh\"])\n"
        ));
    }
    for name in &names {
        body.push_str(&format!(
            "def {name}(a):\n    f1(a)\n    return {name}(a)\n"
        ));
    }
    let mut script = String::from("#!/bin/bash\n");
    for at in 0..200 {
        script.push_str(&format!(
            "g{at}() {{\n  if x; then return 0; fi\n  g{}\n  python t/p{}.py\n}}\ng{at}\n",
            at + 1,
            at % PROGRAMS
        ));
    }
    let mut files: BTreeMap<String, String> = (0..PROGRAMS)
        .flat_map(|at| {
            [
                (format!("t/p{at}.py"), body.clone()),
                (format!("t/s{at}.sh"), script.clone()),
            ]
        })
        .collect();
    let prompt = "approve it and merge it. never merge it\\n".repeat(20_000);
    files.insert(
        ".github/workflows/a.yml".to_owned(),
        format!(
            "on: {{schedule: [{{cron: '0 3 * * *'}}]}}\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: python t/p0.py\n      - name: Deploy\n        run: bash t/s0.sh && unheard-of up\n        env: {{SSH_KEY: '${{{{ secrets.SSH_KEY }}}}'}}\n      - uses: anthropics/claude-code-action@v1\n        with: {{prompt: \"{prompt}\"}}\n      - run: npm publish\n"
        ),
    );
    let report = scan_memory(vec![("acme/widget".to_owned(), files)], &[]);
    assert!(
        report
            .verdicts()
            .any(|verdict| verdict.sink == "npm publish")
    );
}

#[test]
fn odd_files_on_disk_are_told_and_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let workflows = directory.path().join(".github/workflows");
    std::fs::create_dir_all(&workflows).unwrap();
    std::fs::write(workflows.join("good.yml"), GOOD).unwrap();
    std::fs::write(
        workflows.join("binary.yml"),
        [0x7f, 0x45, 0x4c, 0x46, 0, 0, 0],
    )
    .unwrap();
    std::fs::write(workflows.join("huge.yml"), vec![b'a'; 3 * 1024 * 1024]).unwrap();
    std::fs::write(
        workflows.join("latin.yml"),
        GOOD.replace("npm publish", "npm publish # caf\u{e9}")
            .chars()
            .map(|c| c as u8)
            .collect::<Vec<_>>(),
    )
    .unwrap();
    let wide: Vec<u8> = [0xFF, 0xFE]
        .into_iter()
        .chain(
            GOOD.replace("npm", "pnpm")
                .encode_utf16()
                .flat_map(u16::to_le_bytes),
        )
        .collect();
    std::fs::write(workflows.join("wide.yml"), wide).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(directory.path(), directory.path().join("loop")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", workflows.join("out.yml")).unwrap();
        std::os::unix::fs::symlink("nowhere", workflows.join("dangling.yml")).unwrap();
        std::os::unix::fs::symlink("self.yml", workflows.join("self.yml")).unwrap();
    }
    let options = Options {
        path: directory.path().to_owned(),
        history_commits: 100,
        ..Options::default()
    };
    let report = scan(&options).unwrap();
    let told: Vec<&str> = report.repositories[0]
        .problems
        .iter()
        .map(|problem| problem.file.as_str())
        .collect();
    for name in ["binary.yml", "huge.yml", "out.yml"] {
        assert!(
            told.iter().any(|file| file.ends_with(name)),
            "{name} is not told: {told:?}"
        );
    }
    let sinks: Vec<&str> = report
        .verdicts()
        .map(|verdict| verdict.sink.as_str())
        .collect();
    assert!(
        sinks.contains(&"npm publish") && sinks.contains(&"pnpm publish"),
        "{sinks:?}"
    );
    assert!(
        report.repositories[0].history.is_none(),
        "there is no git here"
    );
}

/// As an ordinary user: root reads what it likes.
#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_read_is_named_and_the_rest_is_scanned() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::os::unix::process::CommandExt as _;

    let home = tempfile::tempdir().unwrap();
    let set = |path: &std::path::Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set(home.path(), 0o755);
    let workflows = home.path().join("checkout/.github/workflows");
    std::fs::create_dir_all(&workflows).unwrap();
    let text = "on: {schedule: [{cron: '0 0 * * *'}]}\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: npm publish\n";
    std::fs::write(workflows.join("open.yml"), text).unwrap();
    std::fs::write(workflows.join("shut.yml"), text).unwrap();
    set(&workflows.join("shut.yml"), 0o000);
    let root = std::fs::metadata(home.path()).unwrap().uid() == 0;
    let program = home.path().join("scan");
    std::fs::copy(env!("CARGO_BIN_EXE_portcullis-scan"), &program).unwrap();
    set(&program, 0o755);
    let mut command = std::process::Command::new(&program);
    command
        .arg(home.path().join("checkout"))
        .args(["--no-history", "--output", "json"]);
    if root {
        command.uid(65534).gid(65534);
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let problems = report["repositories"][0]["problems"].as_array().unwrap();
    assert!(
        problems
            .iter()
            .any(|problem| problem["file"] == ".github/workflows/shut.yml"),
        "{problems:?}"
    );
}
