//! Fuzz targets: one function over bytes for every parser of outside text in this crate.
//!
//! In `cargo test` each runs a fixed number of cases from a fixed seed. For a long run by hand,
//! `PORTCULLIS_FUZZ_CASES=100000 PORTCULLIS_FUZZ_SEED=7 cargo test -p portcullis-scan fuzz` raises
//! the number and changes the cases; it prints each target's slowest case.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use crate::tree::Tree;
use crate::workflow::{self, Library};
use crate::{bots, expr, glob, history, outside, pipelines, render, shell, yaml};

/// Cases of each target in an ordinary test run.
const CASES: u64 = 150;

/// A small generator with a seed (splitmix64): the same cases on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// Every file of the corpus: name and text.
static FILES: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut paths: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let mut out = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(path).unwrap();
        for part in text.split("\n-- ").skip(1) {
            let (name, body) = part.split_once(" --\n").unwrap_or((part, ""));
            let name = name.rsplit(' ').next().unwrap_or(name);
            out.push((name.to_owned(), body.to_owned()));
        }
    }
    out
});

/// Pieces that mean something to one reader or another.
const WORDS: &[&str] = &[
    "${{ ",
    " }}",
    "&a ",
    "*a",
    "<<: *a",
    "<<EOF\n",
    "EOF\n",
    "$(",
    "`",
    "\\\n",
    "'",
    "\"",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "| ",
    ">-\n",
    "- ",
    ": ",
    "\n",
    "\n  ",
    "\n      ",
    "\t",
    "#",
    "%",
    "@",
    "!!str ",
    "---\n",
    "...\n",
    "on:\n",
    "jobs:\n",
    "steps:\n",
    "uses: ",
    "run: |\n",
    "if: ",
    "needs: ",
    "with:\n",
    "env:\n",
    "permissions: ",
    "contains(",
    "fromJSON(",
    "startsWith(",
    "format('{0}', ",
    "github.event.",
    "secrets.",
    "&&",
    "||",
    "!",
    "==",
    "git push",
    "gh pr merge ",
    "npm publish",
    "for x in ",
    "; do ",
    "done",
    "if [ ",
    "]; then ",
    "fi",
    "case ",
    "esac",
    "function f() { ",
    "eval ",
    "sudo -E ",
    "xargs ",
    "include:\n",
    "extends: ",
    "rules:\n",
    "!reference [",
    "stages:\n",
    "trigger:\n",
    "pool:\n",
    "workflows:\n",
    "stage('x') { ",
    "sh '''",
    "node {",
    "apiVersion: ",
    "kind: Application\n",
    "/**",
    "**",
    "*",
    "?",
    "+(",
    "\u{0}",
    "\u{1}",
    "\u{feff}",
    "\u{202e}",
    "\u{fffd}",
    "é",
    "漢",
    "🦀",
    "\r\n",
    "\u{1b}[31m",
    "<script>",
    "&amp;",
    "]]>",
    "-->",
    "Co-authored-by: ",
    "(#12)",
    "Merge pull request #1 from a/claude/b",
    "9999999999999999999999",
    "-1",
    "0x",
    "1e400",
    "null",
    "true",
    "~",
];

fn damaged(random: &mut Random, sample: &[u8]) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() + 1);
        match random.below(9) {
            0 => bytes.truncate(at),
            1 => {
                let end = (at + random.below(40)).min(bytes.len());
                bytes.drain(at..end);
            }
            2 => {
                let end = (at + random.below(200)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            3 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.next().to_le_bytes()[0];
                }
            }
            4 => {
                let (_, other) = random.of(&FILES);
                let other = other.as_bytes();
                let from = random.below(other.len() + 1);
                let to = (from + random.below(300)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            5 => {
                let word = random.of(WORDS).repeat(1 << random.below(10));
                bytes.splice(at..at, word.bytes());
            }
            6 => {
                let noise: Vec<u8> = (0..random.below(64))
                    .map(|_| random.next().to_le_bytes()[0])
                    .collect();
                bytes.splice(at..at, noise);
            }
            _ => {
                bytes.splice(at..at, random.of(WORDS).bytes());
            }
        }
        bytes.truncate(64 * 1024);
    }
    bytes
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

/// Runs one target over damaged samples.
fn run(name: &str, share: u64, samples: &[Vec<u8>], target: fn(&[u8])) {
    let cases = (number("PORTCULLIS_FUZZ_CASES", CASES) / share).max(20);
    let seed = number("PORTCULLIS_FUZZ_SEED", 1);
    let mut slowest = (Duration::ZERO, 0);
    for case in 0..cases {
        let mut random = Random(seed.wrapping_mul(0x1000_0000).wrapping_add(case));
        let empty = Vec::new();
        let sample = if samples.is_empty() {
            &empty
        } else {
            random.of(samples)
        }
        .clone();
        let bytes = damaged(&mut random, &sample);
        let start = Instant::now();
        let done = catch_unwind(AssertUnwindSafe(|| target(&bytes)));
        let took = start.elapsed();
        if took > slowest.0 {
            slowest = (took, case);
        }
        assert!(
            done.is_ok(),
            "{name}: case {case} of seed {seed} fails on {:?}",
            String::from_utf8_lossy(&bytes)
        );
    }
    if std::env::var_os("PORTCULLIS_FUZZ_CASES").is_some() {
        let mut random = Random(seed.wrapping_mul(0x1000_0000).wrapping_add(slowest.1));
        let sample = if samples.is_empty() {
            Vec::new()
        } else {
            random.of(samples).clone()
        };
        let bytes = damaged(&mut random, &sample);
        let report = format!(
            "{name}: {cases} cases; slowest {} ms, case {}, {} bytes\n",
            slowest.0.as_millis(),
            slowest.1,
            bytes.len()
        );
        std::io::Write::write_all(&mut std::io::stderr(), report.as_bytes()).unwrap();
    }
}

fn samples(want: fn(&str) -> bool) -> Vec<Vec<u8>> {
    FILES
        .iter()
        .filter(|(name, _)| want(name))
        .map(|(_, text)| text.clone().into_bytes())
        .collect()
}

fn text(bytes: &[u8]) -> String {
    outside::decode(bytes).unwrap_or_else(|| String::from_utf8_lossy(bytes).into_owned())
}

fn shelf(name: &str, bytes: &[u8]) -> Vec<(Option<String>, Tree)> {
    let files: BTreeMap<String, String> = [
        (name.to_owned(), text(bytes)),
        ("package.json".to_owned(), text(bytes)),
        ("Makefile".to_owned(), text(bytes)),
        ("scripts/x.sh".to_owned(), text(bytes)),
        (".github/actions/x/action.yml".to_owned(), text(bytes)),
    ]
    .into();
    vec![(Some("acme/widget".to_owned()), Tree::memory(files))]
}

#[test]
fn yaml_text() {
    run("yaml", 1, &samples(|_| true), |bytes| {
        let _ = yaml::parse(&text(bytes));
    });
}

#[test]
fn shell_text() {
    let scripts: Vec<Vec<u8>> = FILES
        .iter()
        .filter_map(|(_, text)| {
            text.split_once("run: |\n")
                .map(|(_, script)| script.as_bytes().to_vec())
        })
        .collect();
    run("shell", 1, &scripts, |bytes| {
        for command in shell::commands(&text(bytes)) {
            let _ = command.unwrapped().text();
        }
    });
}

#[test]
fn expressions() {
    let samples: Vec<Vec<u8>> = FILES
        .iter()
        .flat_map(|(_, text)| text.lines())
        .filter_map(|line| {
            line.trim()
                .strip_prefix("if: ")
                .map(|rest| rest.as_bytes().to_vec())
        })
        .collect();
    run("expressions", 1, &samples, |bytes| {
        let text = text(bytes);
        for expr in [expr::parse(&text), expr::parse_condition(&text)]
            .into_iter()
            .flatten()
        {
            let mut out = Vec::new();
            expr::literals(&expr, &mut out);
            expr::paths(&expr, &mut out);
        }
    });
}

#[test]
fn globs() {
    run(
        "globs",
        1,
        &[b"release/** v*.[0-9]+ releases/2.x".to_vec()],
        |bytes| {
            let text = text(bytes);
            let (pattern, name) = text.split_once(' ').unwrap_or((&text, &text));
            let _ = glob::matches(pattern, name);
        },
    );
}

#[test]
fn github_workflows() {
    run(
        "workflows",
        2,
        &samples(|name| name.starts_with(".github/workflows/")),
        |bytes| {
            let shelf = shelf(".github/workflows/x.yml", bytes);
            let library = Library {
                repositories: &shelf,
                here: 0,
            };
            let _ = workflow::read(".github/workflows/x.yml", &text(bytes), &library);
        },
    );
}

fn pipeline(name: &str, bytes: &[u8]) {
    assert!(pipelines::is_pipeline(name), "{name}");
    let shelf = shelf(name, bytes);
    let library = Library {
        repositories: &shelf,
        here: 0,
    };
    let _ = pipelines::read(name, &text(bytes), &library);
    let _ = pipelines::servers(&shelf[0].1, Some("acme/widget"));
}

#[test]
fn other_systems() {
    run("gitlab", 3, &samples(|name| name.contains("gitlab")), |b| {
        pipeline(".gitlab-ci.yml", b)
    });
    run("azure", 3, &samples(|name| name.contains("azure")), |b| {
        pipeline("azure-pipelines.yml", b)
    });
    run(
        "circleci",
        3,
        &samples(|name| name.contains("circleci")),
        |b| pipeline(".circleci/config.yml", b),
    );
    run(
        "jenkins",
        3,
        &samples(|name| name.to_lowercase().contains("jenkins")),
        |b| pipeline("Jenkinsfile", b),
    );
    run(
        "clusters",
        3,
        &samples(|name| name.contains("argo") || name.contains("tekton")),
        |b| pipeline(".tekton/x.yaml", b),
    );
}

#[test]
fn bots_of_all_kinds() {
    const NAMES: &[&str] = &[
        ".github/dependabot.yml",
        "renovate.json",
        "renovate.json5",
        ".mergify.yml",
        ".kodiak.toml",
        "bors.toml",
        ".bulldozer.yml",
        ".prow.yaml",
        "release-please-config.json",
        ".releaserc",
        ".releaserc.json",
        "OWNERS",
        ".github/CODEOWNERS",
        "package.json",
        ".changeset/config.json",
    ];
    run(
        "bots",
        3,
        &samples(|name| !name.contains("workflows")),
        |bytes| {
            for name in NAMES {
                let shelf = shelf(name, bytes);
                let _ = bots::read(&shelf[0].1, &mut Vec::new());
            }
        },
    );
}

#[test]
fn settings_and_baselines() {
    let settings = br#"[{"repository":"acme/widget","default_branch":"main","rules":[{"target":"branch","patterns":["~ALL"],"required_approvals":1}],"environments":[{"name":"production","required_reviewers":2}],"apps":[],"actions":{}}]"#;
    let baseline = br#"{"version":1,"known":[{"fingerprint":"0123456789abcdef","what":"x"}]}"#;
    run(
        "settings",
        1,
        &[settings.to_vec(), baseline.to_vec()],
        |bytes| {
            let text = text(bytes);
            let _ = crate::Settings::parse(&text);
            let _ = crate::baseline::Baseline::parse(&text);
        },
    );
}

#[test]
fn histories() {
    let sample = b"aaaa\nbbbb cccc\nAnn\nann@example.org\nGitHub\nnoreply@github.com\nMerge pull request #1 from acme/claude/x\n\nCo-authored-by: Codex <codex@openai.com>\n\0bbbb\n\nAnn (aider)\na@x\nA\na@x\nFix (#2)\n\0".to_vec();
    run("history", 1, &[sample], |bytes| {
        let report = history::count(bytes, &[], &AtomicU64::new(0));
        for agent in &report.agents {
            assert!(agent.commits <= report.commits && agent.pull_requests <= report.pull_requests);
        }
    });
}

#[test]
fn files_of_git() {
    run(
        "git",
        1,
        &[b"[remote \"origin\"]\n\turl = https://github.com/acme/widget.git\n".to_vec()],
        |bytes| {
            let _ = crate::checkout::remote_slug(&text(bytes));
            let _ = crate::checkout::asks_for_sparse(&text(bytes));
        },
    );
}

#[test]
fn whole_trees() {
    run("trees", 6, &samples(|_| true), |bytes| {
        let mut random = Random(bytes.iter().fold(7, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
        }));
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for _ in 0..6 {
            let (name, text) = random.of(&FILES);
            files.insert(name.clone(), text.clone());
        }
        let (name, _) = random.of(&FILES);
        files.insert(name.clone(), text(bytes));
        files.insert(
            ".github/workflows/<script>\u{202e}&\"'.yml".to_owned(),
            text(bytes),
        );
        let report = crate::scan_memory(vec![("acme/widget".to_owned(), files)], &[]);
        for problem in &report.repositories[0].problems {
            assert!(!problem.message.contains("own defect"), "{problem:?}");
        }
        for verdict in report.verdicts() {
            use crate::report::Decision;
            assert!(
                verdict.verdict == Decision::Benign || !verdict.path.is_empty(),
                "{verdict:?}"
            );
        }
        let terminal = render::text::render(&report, render::text::Style::default());
        assert!(
            terminal.chars().all(|c| c == '\n' || !c.is_control()),
            "{terminal:?}"
        );
        let page = render::html::render(&report);
        assert!(!page.contains("<script") && !page.contains('\u{202e}'));
        let svg = render::svg::render(&report);
        assert!(!svg.contains("<script"));
        for json in [
            render::json::render(&report),
            render::sarif::render(&report),
        ] {
            serde_json::from_str::<serde_json::Value>(&json).unwrap();
        }
    });
}
