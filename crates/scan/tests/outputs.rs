//! Every output against what it promises: the JSON Schema, the SARIF schema, well-formed pages,
//! baselines, inventories, patches that apply, histories.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use common::on_disk;
use portcullis_scan::report::{Decision, Report};
use portcullis_scan::{findings, inventory, render, scan_memory};

const AUTOMERGE: &str = "name: automerge\non: pull_request_target\npermissions:\n  contents: write\njobs:\n  merge:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: anthropics/claude-code-action@v1\n        with:\n          github_token: ${{ github.token }}\n      - name: merge <b>&\"quoted\"</b>\n        run: gh pr merge --auto \"$PR\"\n        env:\n          GH_TOKEN: ${{ secrets.PAT }}\n";
const NIGHTLY: &str = "name: nightly\non:\n  schedule:\n    - cron: '0 3 * * *'\njobs:\n  publish:\n    runs-on: ubuntu-latest\n    steps:\n      - run: npm publish\n";
const RELEASE: &str = "on:\n  push:\n    branches: [main]\njobs:\n  d:\n    runs-on: x\n    steps:\n      - run: kubectl apply -f k8s/\n";

fn files() -> BTreeMap<String, String> {
    [
        (".github/workflows/automerge.yml", AUTOMERGE),
        (".github/workflows/nightly.yml", NIGHTLY),
        (".github/workflows/deploy.yml", RELEASE),
        (".github/workflows/broken.yml", "a: ["),
        (
            ".github/dependabot.yml",
            "version: 2\nupdates:\n  - package-ecosystem: npm\n    directory: /\n",
        ),
    ]
    .into_iter()
    .map(|(path, text)| (path.to_owned(), text.to_owned()))
    .collect()
}

fn sample() -> Report {
    scan_memory(vec![("acme/widget".to_owned(), files())], &[])
}

fn binary(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portcullis-scan"))
        .args(arguments)
        .output()
        .unwrap()
}

fn validator(path: &Path) -> jsonschema::Validator {
    let text = std::fs::read_to_string(path).unwrap();
    // The published SARIF schema holds one pattern with an unbalanced bracket.
    let text = text.replace("|^[a-zA-Z]{2}-[a-zA-Z]{2}]?$", "|^[a-zA-Z]{2}-[a-zA-Z]{2}$");
    let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn json_keeps_its_documented_schema() {
    let validator = validator(&root().join("../../docs/scan/report.schema.json"));
    let value: serde_json::Value = serde_json::from_str(&render::json::render(&sample())).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(&value)
        .map(|error| format!("{} at {}", error, error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let mut broken = value;
    broken["repositories"][0]["verdicts"][0]["verdict"] = "fine".into();
    assert!(!validator.is_valid(&broken), "the schema takes anything");
}

#[test]
fn sarif_keeps_the_schema_of_oasis_and_names_only_its_own_rules() {
    let validator = validator(&root().join("tests/schemas/sarif-schema-2.1.0.json"));
    let value: serde_json::Value = serde_json::from_str(&render::sarif::render(&sample())).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(&value)
        .map(|error| format!("{} at {}", error, error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let run = &value["runs"][0];
    let rules: Vec<&str> = run["tool"]["driver"]["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["id"].as_str().unwrap())
        .collect();
    let results = run["results"].as_array().unwrap();
    assert!(
        results
            .iter()
            .any(|result| result["ruleId"] == "unattended-path" && result["codeFlows"].is_array())
    );
    for result in results {
        assert!(
            rules.contains(&result["ruleId"].as_str().unwrap()),
            "{result}"
        );
    }
}

#[test]
fn the_picture_is_well_formed_and_the_page_loads_nothing() {
    let report = sample();
    let svg = render::svg::render(&report);
    well_formed(&svg);
    assert!(svg.contains("class=\"edge reachable\""));
    let page = render::html::render(&report);
    assert!(page.contains("&lt;b&gt;&amp;&quot;quoted&quot;") || !page.contains("<b>&\"quoted\""));
    for forbidden in [
        "<script", "http://", "https://", "src=", "@import", "url(http",
    ] {
        let found = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!found.contains(forbidden), "the page holds {forbidden}");
    }
    assert!(page.contains("Content-Security-Policy"));
    let body = page
        .split("<main id=\"main\">")
        .nth(1)
        .unwrap()
        .split("</main>")
        .next()
        .unwrap();
    well_formed(&format!("<main>{body}</main>"));
}

/// Tags nest and close; text holds no bare `<` or `&`.
fn well_formed(text: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        assert_entities(&rest[..at]);
        let end = rest[at..].find('>').expect("a tag that never ends") + at;
        let tag = &rest[at + 1..end];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "wrong nesting");
        } else if !tag.ends_with('/') && !tag.starts_with(['!', '?']) && tag != "br" {
            let name = tag.split_whitespace().next().unwrap();
            if name == "style" {
                let close = rest[end..].find("</style>").unwrap() + end;
                rest = &rest[close + "</style>".len()..];
                continue;
            }
            open.push(name);
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "never closed: {open:?}");
}

fn assert_entities(text: &str) {
    for (at, _) in text.match_indices('&') {
        let tail = &text[at..];
        assert!(
            ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"]
                .iter()
                .any(|entity| tail.starts_with(entity)),
            "a bare & in {text}"
        );
    }
}

#[test]
fn a_baseline_silences_what_it_knows_and_nothing_else() {
    let directory = on_disk(&files());
    let path = directory.path().to_str().unwrap();
    let baseline = directory.path().join("known.json");
    let baseline = baseline.to_str().unwrap();
    assert_eq!(binary(&[path]).status.code(), Some(3));
    assert_eq!(
        binary(&[path, "--write-baseline", baseline]).status.code(),
        Some(0)
    );
    assert_eq!(
        binary(&[path, "--write-baseline", baseline]).status.code(),
        Some(1),
        "a baseline is never overwritten"
    );
    assert_eq!(
        binary(&[path, "--baseline", baseline]).status.code(),
        Some(0)
    );
    let new = directory.path().join(".github/workflows/new.yml");
    std::fs::write(new, NIGHTLY.replace("npm publish", "cargo publish")).unwrap();
    assert_eq!(
        binary(&[path, "--baseline", baseline]).status.code(),
        Some(3)
    );
}

#[test]
fn exit_codes_are_those_that_are_documented() {
    let directory = on_disk(&files());
    let path = directory.path().to_str().unwrap();
    assert_eq!(binary(&[path, "--fail-on", "none"]).status.code(), Some(0));
    assert_eq!(
        binary(&[path, "--fail-on", "protected"]).status.code(),
        Some(3)
    );
    assert_eq!(binary(&[path, "--fail-on", "error"]).status.code(), Some(0));
    assert_eq!(
        binary(&[path, "--fail-on", "warning"]).status.code(),
        Some(3)
    );
    assert_eq!(binary(&["/nowhere/at/all"]).status.code(), Some(1));
    assert_eq!(binary(&[path, "--output", "poem"]).status.code(), Some(2));
    let settings = directory.path().join("settings.json");
    std::fs::write(&settings, "{\"rulez\": []}").unwrap();
    let output = binary(&[path, "--settings", settings.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("rulez"));
    for others in ["[]", "{\"repository\": \"other/thing\"}"] {
        std::fs::write(&settings, others).unwrap();
        let output = binary(&[path, "--settings", settings.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{others}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("speak of none"));
    }
    std::fs::write(&settings, "{\"rules\": []}").unwrap();
    let output = binary(&[path, "--settings", settings.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    let empty = tempfile::tempdir().unwrap();
    let output = binary(&[empty.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("No pipeline was found"));
}

#[test]
fn every_output_is_made_and_the_checkout_stays_as_it_was() {
    let directory = on_disk(&files());
    let path = directory.path().to_str().unwrap();
    let listing = || {
        let mut all: Vec<(String, Vec<u8>)> = files()
            .keys()
            .map(|name| {
                (
                    name.clone(),
                    std::fs::read(directory.path().join(name)).unwrap(),
                )
            })
            .collect();
        all.sort();
        (all, std::fs::read_dir(directory.path()).unwrap().count())
    };
    let before = listing();
    for (form, mark) in [
        ("text", "reachable publish"),
        ("json", "\"verdicts\""),
        ("sarif", "\"2.1.0\""),
        ("html", "<!doctype html>"),
        ("svg", "<svg "),
    ] {
        let output = binary(&[path, "--output", form]);
        assert_eq!(output.status.code(), Some(3), "{form}");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains(mark),
            "{form}"
        );
    }
    assert_eq!(before, listing());
}

#[test]
fn patches_apply_with_git_and_take_the_path_away() {
    let report = sample();
    let repository = &report.repositories[0];
    let patched: Vec<_> = repository
        .remedies
        .iter()
        .filter(|remedy| remedy.patch.is_some() && remedy.setting.is_none())
        .collect();
    assert!(!patched.is_empty(), "{:#?}", repository.remedies);
    let directory = on_disk(&files());
    let reachable = |path: &Path| {
        let output = binary(&[path.to_str().unwrap(), "--output", "json"]);
        let report: Report = serde_json::from_slice(&output.stdout).unwrap();
        report
            .verdicts()
            .filter(|verdict| verdict.verdict == Decision::Reachable)
            .map(|verdict| verdict.fingerprint.clone())
            .collect::<Vec<_>>()
    };
    for (index, remedy) in patched.iter().enumerate() {
        let file = directory.path().join(format!("{index}.patch"));
        std::fs::write(&file, remedy.patch.as_ref().unwrap()).unwrap();
        let output = Command::new("git")
            .arg("apply")
            .arg(&file)
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}\n{}",
            String::from_utf8_lossy(&output.stderr),
            remedy.patch.as_ref().unwrap()
        );
        let left = reachable(directory.path());
        assert!(
            remedy.cuts.iter().all(|cut| !left.contains(cut)),
            "{} did not cut",
            remedy.what
        );
    }
}

#[test]
fn the_inventory_is_proposed_with_its_owner_left_open() {
    let proposed = inventory::propose(&sample());
    let (name, text) = proposed
        .iter()
        .find(|(name, _)| name == "claude-code.toml")
        .expect("Claude Code is seen");
    assert_eq!(name, "claude-code.toml");
    let value: toml::Value = toml::from_str(text).unwrap();
    assert_eq!(value["owner"].as_str(), Some(""));
    assert_eq!(value["repositories"][0].as_str(), Some("widget"));
    let directory = on_disk(&files());
    let target = directory.path().join("agents");
    let arguments = [
        directory.path().to_str().unwrap(),
        "--write-inventory",
        target.to_str().unwrap(),
    ];
    assert_eq!(binary(&arguments).status.code(), Some(0));
    std::fs::write(target.join("claude-code.toml"), "mine").unwrap();
    assert_eq!(binary(&arguments).status.code(), Some(0));
    assert_eq!(
        std::fs::read_to_string(target.join("claude-code.toml")).unwrap(),
        "mine"
    );
}

#[test]
fn the_history_tells_of_agents_that_nobody_declared() {
    let directory = on_disk(&files());
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args([
                "-c",
                "user.name=Ann",
                "-c",
                "user.email=ann@example.org",
                "-c",
                "commit.gpgsign=false",
            ])
            .args(arguments)
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    git(&["init", "-q"]);
    git(&["add", "."]);
    git(&["commit", "-qm", "Start"]);
    git(&[
        "commit",
        "-qm",
        "Help\n\nCo-authored-by: Cursor <cursoragent@cursor.com>",
        "--allow-empty",
    ]);
    git(&["commit", "-qm", "Plain", "--allow-empty"]);
    let output = binary(&[
        directory.path().to_str().unwrap(),
        "--history",
        "--output",
        "json",
    ]);
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    let history = report.repositories[0]
        .history
        .as_ref()
        .expect("the history is read");
    assert_eq!(history.commits, 3);
    let cursor = history
        .agents
        .iter()
        .find(|agent| agent.name == "Cursor")
        .unwrap();
    assert_eq!(
        (cursor.commits, cursor.declared, cursor.share_per_mille),
        (1, false, 333)
    );
    assert!(history.caution.contains("lower bound"));
}

#[test]
fn the_documented_commands_work_in_an_empty_directory() {
    let page = std::fs::read_to_string(root().join("../../docs/scan.md")).unwrap();
    let script = page
        .split("<!-- try:")
        .nth(1)
        .and_then(|rest| rest.split("```sh\n").nth(1))
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let bin = directory.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    // `portcullis scan` is the scanner's command line under another name.
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_portcullis-scan"), bin.join("scanner")).unwrap();
    let shim = format!(
        "portcullis() {{ shift; {}/scanner \"$@\"; echo \"exit $?\"; }}\n",
        bin.display()
    );
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!("{shim}{script}"))
        .current_dir(directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let codes: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("exit "))
        .collect();
    assert_eq!(codes, ["exit 3", "exit 0", "exit 0"], "{said}");
    assert!(said.contains("npm publish"), "{said}");
    let page = std::fs::read_to_string(directory.path().join("try/ways.html")).unwrap();
    assert!(page.contains("Yes: automation reaches 1 place"), "{page}");
    assert!(page.ends_with("exit 3\n"), "{page}");
}

#[test]
fn every_rule_is_documented() {
    let directory = root().join("../../docs/scan/rules");
    let ids = findings::RULES
        .iter()
        .map(|(id, _, _)| *id)
        .chain(["unattended-path", "undecided-path"]);
    for id in ids {
        let text = std::fs::read_to_string(directory.join(format!("{id}.md")))
            .unwrap_or_else(|_| panic!("{id} is not documented"));
        for part in ["## Example", "## Fix", "## Why"] {
            assert!(text.contains(part), "{id}: {part} is missing");
        }
        assert!(text.starts_with(&format!("# {id}\n")), "{id}");
        let output = binary(&["--explain", id]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), text);
        let linked = std::fs::read_to_string(root().join("../../docs/scan.md")).unwrap();
        assert!(
            linked.contains(&format!("[{id}](scan/rules/{id}.md)")),
            "{id}"
        );
    }
    let output = binary(&["--explain", "no-such-rule"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("agent-unpinned"));
    assert_eq!(
        portcullis_scan::rules::PAGES.len(),
        findings::RULES.len() + 2
    );
    for entry in std::fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let id = name.trim_end_matches(".md").to_owned();
        assert!(
            findings::RULES.iter().any(|(known, _, _)| *known == id) || id.ends_with("-path"),
            "{id} is documented but no rule"
        );
    }
}
