//! Every case of `tests/corpus` through the library, and some through the real binary.
//!
//! A case is one text file: a sentence, expectations, then files.
//!
//! ```text
//! What the case shows.
//!
//! unprotected merge reachable
//! protected merge cut: review
//! unprotected publish npm publish = cut: person
//! path unprotected publish: automerge.yml:9 release.yml
//! finding agent-unpinned
//! -- .github/workflows/release.yml --
//! on: push
//! ```
//!
//! `ASSUMPTION KIND VERDICT` is about the worst verdict among the sinks of that kind (`none` where
//! there is no such sink); with `SINK =` it is about the sinks whose name holds that text. What
//! follows a colon must be part of the reason. A path names files (with lines, where given) that
//! must come in that order. `-- @owner/name path --` puts a file into another repository.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::on_disk;
use portcullis_scan::report::{Decision, Report, Verdict};
use portcullis_scan::{Settings, scan_memory};

struct Case {
    name: String,
    expectations: Vec<String>,
    settings: Vec<Settings>,
    repositories: Vec<(String, BTreeMap<String, String>)>,
}

const MAIN: &str = "acme/widget";

fn cases() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "txt"))
        .collect();
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Case {
    let text = std::fs::read_to_string(path).unwrap();
    let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut case = Case {
        name: name.clone(),
        expectations: Vec::new(),
        settings: Vec::new(),
        repositories: vec![(MAIN.to_owned(), BTreeMap::new())],
    };
    let mut file: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        if let Some(place) = line
            .strip_prefix("-- ")
            .and_then(|rest| rest.strip_suffix(" --"))
        {
            let (repository, path) = match place
                .strip_prefix('@')
                .and_then(|rest| rest.split_once(' '))
            {
                Some((repository, path)) => (repository, path),
                None => (MAIN, place),
            };
            let at = case
                .repositories
                .iter()
                .position(|(known, _)| known == repository)
                .unwrap_or_else(|| {
                    case.repositories
                        .push((repository.to_owned(), BTreeMap::new()));
                    case.repositories.len() - 1
                });
            case.repositories[at]
                .1
                .insert(path.to_owned(), String::new());
            file = Some((at, path.to_owned()));
        } else if let Some((at, path)) = &file {
            let body = case.repositories[*at].1.get_mut(path).unwrap();
            body.push_str(line);
            body.push('\n');
        } else if let Some(json) = line
            .strip_prefix("settings ")
            .filter(|rest| rest.starts_with(['{', '[']))
        {
            case.settings
                .extend(Settings::parse(json).unwrap_or_else(|error| panic!("{name}: {error}")));
        } else if index > 0 && !line.trim().is_empty() {
            case.expectations.push(line.to_owned());
        }
    }
    assert!(!case.expectations.is_empty(), "{name} expects nothing");
    case
}

/// What is wrong with a report, as sentences.
fn check(case: &Case, report: &Report) -> Vec<String> {
    let main = &report.repositories[0];
    let mut wrong = Vec::new();
    for line in &case.expectations {
        if let Some(rest) = line.strip_prefix("path ") {
            let (what, files) = rest.split_once(": ").unwrap();
            let (assumption, kind) = what.split_once(' ').unwrap();
            let (kind, sink) = kind.split_once(' ').unwrap_or((kind, ""));
            let best = worst(&main.verdicts, assumption, kind, sink);
            let Some(verdict) = best else {
                wrong.push(format!("{line}: no such sink"));
                continue;
            };
            let mut steps = verdict.path.iter();
            for wanted in files.split_whitespace() {
                let found = steps.any(|step| {
                    format!("{}:{}", step.file, step.line).ends_with(wanted)
                        || step.file.ends_with(wanted)
                });
                if !found {
                    wrong.push(format!(
                        "{line}: {wanted} is not on the path in this order: {}",
                        brief(verdict)
                    ));
                    break;
                }
            }
            continue;
        }
        if let Some(rule) = line.strip_prefix("finding ") {
            if !main.findings.iter().any(|finding| finding.rule == rule) {
                wrong.push(format!("{line}: not found"));
            }
            continue;
        }
        if let Some(rule) = line.strip_prefix("no-finding ") {
            if main.findings.iter().any(|finding| finding.rule == rule) {
                wrong.push(format!("{line}: found"));
            }
            continue;
        }
        if let Some(text) = line.strip_prefix("problem ") {
            if !main
                .problems
                .iter()
                .any(|problem| format!("{} {}", problem.file, problem.message).contains(text))
            {
                wrong.push(format!("{line}: not told, only {:?}", main.problems));
            }
            continue;
        }
        if let Some(text) = line.strip_prefix("remedy ") {
            if !main
                .remedies
                .iter()
                .any(|remedy| remedy.verified && remedy.what.contains(text))
            {
                wrong.push(format!("{line}: not offered, only {:#?}", main.remedies));
            }
            continue;
        }
        if let Some(text) = line.strip_prefix("blast ") {
            if !main
                .agents
                .iter()
                .any(|agent| agent.blast_radius.contains(text))
            {
                wrong.push(format!("{line}: not said, only {:#?}", main.agents));
            }
            continue;
        }
        let (left, reason) = line
            .split_once(": ")
            .map_or((line.as_str(), None), |(left, reason)| (left, Some(reason)));
        let mut words = left.splitn(3, ' ');
        let (assumption, kind, rest) = (
            words.next().unwrap(),
            words.next().unwrap_or(""),
            words.next().unwrap_or(""),
        );
        let (sink, wanted) = rest.rsplit_once(" = ").unwrap_or(("", rest));
        let best = worst(&main.verdicts, assumption, kind, sink);
        let got = best.map_or("none", |verdict| verdict.verdict.word());
        if got != wanted {
            wrong.push(format!(
                "{line}: is {got}; {}",
                best.map(brief).unwrap_or_default()
            ));
            continue;
        }
        if let (Some(reason), Some(verdict)) = (reason, best) {
            let said = verdict
                .cut_by
                .as_deref()
                .or(verdict.decided_by.as_deref())
                .unwrap_or_default();
            if !said.contains(reason) {
                wrong.push(format!("{line}: the reason is “{said}”"));
            }
        }
    }
    // Whatever the case: a reachable sink has a path, and a cut one says who cuts.
    for verdict in report.verdicts() {
        let sound = match verdict.verdict {
            Decision::Reachable => {
                !verdict.path.is_empty() && verdict.cut_by.is_none() && verdict.decided_by.is_none()
            }
            Decision::Cut => !verdict.path.is_empty() && verdict.cut_by.is_some(),
            Decision::Depends => !verdict.path.is_empty() && verdict.decided_by.is_some(),
            Decision::Benign => verdict.path.is_empty() && verdict.decided_by.is_some(),
        };
        if !sound {
            wrong.push(format!("unsound verdict {verdict:#?}"));
        }
    }
    wrong
}

fn brief(verdict: &Verdict) -> String {
    let steps: Vec<String> = verdict
        .path
        .iter()
        .map(|step| format!("{}:{} {} ({})", step.file, step.line, step.event, step.why))
        .collect();
    format!(
        "{:?} {:?} {}",
        verdict.cut_by,
        verdict.decided_by,
        steps.join(" > ")
    )
}

fn worst<'a>(
    verdicts: &'a [Verdict],
    assumption: &str,
    kind: &str,
    sink: &str,
) -> Option<&'a Verdict> {
    verdicts
        .iter()
        .filter(|verdict| {
            verdict.assumption.word() == assumption
                && verdict.kind.word() == kind
                && verdict.sink.contains(sink)
        })
        .min_by_key(|verdict| verdict.verdict)
}

#[test]
fn every_case_gets_its_verdicts_and_paths() {
    let cases = cases();
    assert!(cases.len() >= 120, "only {} cases", cases.len());

    let mut wrong = Vec::new();
    for case in &cases {
        let report = scan_memory(case.repositories.clone(), &case.settings);
        for sentence in check(case, &report) {
            wrong.push(format!("{}: {sentence}", case.name));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong in {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn pairs_differ_in_one_line_and_in_the_verdict() {
    let cases = cases();
    let mut pairs = 0;
    for case in &cases {
        let Some(stem) = case.name.strip_suffix("-a") else {
            continue;
        };
        let other = cases
            .iter()
            .find(|other| other.name == format!("{stem}-b"))
            .unwrap_or_else(|| panic!("{stem}-b is missing"));
        let texts = |case: &Case| -> Vec<String> {
            case.repositories
                .iter()
                .flat_map(|(_, files)| {
                    files.iter().flat_map(|(path, text)| {
                        text.lines().map(move |line| format!("{path}: {line}"))
                    })
                })
                .collect()
        };
        let (left, right) = (texts(case), texts(other));
        let only = |from: &[String], than: &[String]| {
            from.iter().filter(|line| !than.contains(line)).count()
        };
        assert!(
            only(&left, &right) <= 1 && only(&right, &left) <= 1,
            "{stem}: more than one line differs"
        );
        assert_ne!(
            case.expectations, other.expectations,
            "{stem}: the verdict is the same"
        );
        pairs += 1;
    }
    assert!(pairs >= 20, "only {pairs} pairs");
}

#[test]
fn the_real_binary_says_the_same_and_its_exit_code_tells() {
    for case in cases().iter().step_by(9) {
        let directory = tempfile::tempdir().unwrap();
        let mut roots = Vec::new();
        for (name, files) in &case.repositories {
            let root = directory.path().join(name);
            for (path, text) in files {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            // The name comes from git's remote, as in any checkout.
            std::fs::create_dir_all(root.join(".git")).unwrap();
            let config = format!("[remote \"origin\"]\n\turl = https://github.com/{name}.git\n");
            std::fs::write(root.join(".git/config"), config).unwrap();
            roots.push(root);
        }
        if !case.settings.is_empty() {
            continue;
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis-scan"));
        command.arg(&roots[0]).args(["--output", "json"]);
        for root in &roots[1..] {
            command.arg("--with").arg(root);
        }
        let output = command.output().unwrap();
        let report: Report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!(
                "{}: {error}: {}",
                case.name,
                String::from_utf8_lossy(&output.stderr)
            )
        });
        let wrong = check(case, &report);
        assert!(wrong.is_empty(), "{}: {wrong:#?}", case.name);
        let reachable = report
            .verdicts()
            .any(|verdict| verdict.verdict == Decision::Reachable);
        assert_eq!(
            output.status.code(),
            Some(if reachable { 3 } else { 0 }),
            "{}",
            case.name
        );
    }
}

/// The files after git applied a patch to them.
fn patched(files: &BTreeMap<String, String>, patch: &str) -> BTreeMap<String, String> {
    let directory = on_disk(files);
    let file = directory.path().join("remedy.patch");
    std::fs::write(&file, patch).unwrap();
    let output = Command::new("git")
        .args(["apply", "remedy.patch"])
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{patch}",
        String::from_utf8_lossy(&output.stderr)
    );
    let added = patch
        .lines()
        .filter_map(|line| line.strip_prefix("+++ b/"))
        .map(|path| path.trim_end_matches('\t').to_owned());
    files
        .keys()
        .cloned()
        .chain(added)
        .filter_map(|path| {
            let text = std::fs::read_to_string(directory.path().join(&path)).ok()?;
            Some((path, text))
        })
        .collect()
}

#[test]
fn every_open_way_has_a_remedy_that_git_applies_and_that_holds() {
    let mut wrong = Vec::new();
    let mut patches = 0;
    for case in cases() {
        let report = scan_memory(case.repositories.clone(), &case.settings);
        for (at, repository) in report.repositories.iter().enumerate() {
            let cut: Vec<&String> = repository
                .remedies
                .iter()
                .flat_map(|remedy| &remedy.cuts)
                .collect();
            for verdict in &repository.verdicts {
                if verdict.verdict == Decision::Reachable && !cut.contains(&&verdict.fingerprint) {
                    wrong.push(format!("{}: no remedy for {}", case.name, brief(verdict)));
                }
            }
            for remedy in &repository.remedies {
                let Some(patch) = remedy.patch.as_ref().filter(|_| remedy.setting.is_none()) else {
                    continue;
                };
                patches += 1;
                let mut repositories = case.repositories.clone();
                repositories[at].1 = patched(&case.repositories[at].1, patch);
                let after = scan_memory(repositories, &case.settings);
                for left in &after.repositories[at].verdicts {
                    if left.verdict == Decision::Reachable
                        && remedy.cuts.contains(&left.fingerprint)
                    {
                        wrong.push(format!(
                            "{}: {} leaves {}",
                            case.name,
                            remedy.what,
                            brief(left)
                        ));
                    }
                }
                for problem in &after.repositories[at].problems {
                    let known = &report.repositories[at].problems;
                    if !known.contains(problem) {
                        wrong.push(format!("{}: {} breaks {problem:?}", case.name, remedy.what));
                    }
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {patches} patches:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
