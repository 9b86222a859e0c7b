//! Agents that nobody declared: their marks in the git history.
//!
//! `git log` streams through here line by line; what is kept is one counter per agent, so memory
//! does not grow with the history.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::report::{HistoryAgent, HistoryReport};

/// Most commits read.
const COMMITS_MAX: u64 = 2_000_000;
/// Longest line of a message that is looked at, in bytes.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// What marks can't show.
pub(crate) const CAUTION: &str = "Marks are left voluntarily: an agent that leaves none, a squashed commit or a rewritten trailer is not counted, and a person can write a mark by hand. The shares are a lower bound of what was marked, not a measure of what agents wrote.";

/// One agent's marks, all lower-case.
struct Marks {
    name: &'static str,
    /// In an author's or committer's name or address.
    authors: &'static [&'static str],
    /// In a trailer line.
    trailers: &'static [&'static str],
    /// In any line of the message.
    bodies: &'static [&'static str],
    /// In the name of a merged branch.
    branches: &'static [&'static str],
}

const MARKS: &[Marks] = &[
    Marks {
        name: "Claude Code",
        authors: &["claude[bot]", "noreply@anthropic.com"],
        trailers: &["noreply@anthropic.com", "co-authored-by: claude"],
        bodies: &[
            "generated with [claude code]",
            "generated with claude code",
            "claude-session:",
        ],
        branches: &["/claude/", "'claude/"],
    },
    Marks {
        name: "Codex",
        authors: &["chatgpt-codex-connector", "codex@openai.com", "codex[bot]"],
        trailers: &[
            "codex@openai.com",
            "co-authored-by: codex",
            "co-authored-by: chatgpt",
        ],
        bodies: &["chatgpt.com/codex/tasks"],
        branches: &["/codex/", "'codex/"],
    },
    Marks {
        name: "Copilot",
        authors: &["copilot-swe-agent", "198982749+copilot@"],
        trailers: &[
            "co-authored-by: copilot",
            "copilot-swe-agent",
            "+copilot@users.noreply.github.com",
        ],
        bodies: &["agent-logs-url:"],
        branches: &["/copilot/", "'copilot/"],
    },
    Marks {
        name: "Cursor",
        authors: &["cursoragent@cursor.com", "cursor[bot]", "cursor agent"],
        trailers: &["cursoragent@cursor.com", "co-authored-by: cursor"],
        bodies: &["made with [cursor]"],
        branches: &["/cursor/", "'cursor/"],
    },
    Marks {
        name: "Devin",
        authors: &["devin-ai-integration"],
        trailers: &["devin-ai-integration", "co-authored-by: devin"],
        bodies: &["app.devin.ai/sessions"],
        branches: &["/devin/", "'devin/"],
    },
    Marks {
        name: "Gemini CLI",
        authors: &["gemini-cli", "gemini-code-assist"],
        trailers: &["co-authored-by: gemini", "gemini-code-assist"],
        bodies: &[],
        branches: &["/gemini/", "'gemini/"],
    },
    Marks {
        name: "Jules",
        authors: &["google-labs-jules"],
        trailers: &["google-labs-jules", "co-authored-by: jules"],
        bodies: &["jules.google.com/task"],
        branches: &["/jules/", "'jules/", "/jules-", "'jules-"],
    },
    Marks {
        name: "OpenHands",
        authors: &["openhands@all-hands.dev", "openhands-agent"],
        trailers: &["openhands@all-hands.dev", "co-authored-by: openhands"],
        bodies: &[],
        branches: &[
            "/openhands/",
            "'openhands/",
            "/openhands-fix",
            "'openhands-fix",
        ],
    },
    Marks {
        name: "Aider",
        authors: &["(aider)"],
        trailers: &["co-authored-by: aider", "aider@aider.chat"],
        bodies: &["aider.chat"],
        branches: &[],
    },
    Marks {
        name: "Amp",
        authors: &["amp@ampcode.com"],
        trailers: &["amp@ampcode.com", "amp-thread-id:", "co-authored-by: amp"],
        bodies: &["ampcode.com/threads"],
        branches: &["'amp/", "/amp/"],
    },
    Marks {
        name: "Sweep",
        authors: &["sweep-ai[bot]", "sweep-nightly"],
        trailers: &["sweep-ai[bot]"],
        bodies: &[],
        branches: &["/sweep/", "'sweep/"],
    },
    Marks {
        name: "opencode",
        authors: &["opencode-agent"],
        trailers: &["noreply@opencode.ai", "co-authored-by: opencode"],
        bodies: &["generated with [opencode]"],
        branches: &["'opencode/", "/opencode/"],
    },
    Marks {
        name: "Dependabot",
        authors: &["dependabot[bot]", "dependabot-preview"],
        trailers: &[],
        bodies: &[],
        branches: &["/dependabot/", "'dependabot/"],
    },
    Marks {
        name: "Renovate",
        authors: &["renovate[bot]", "renovate-bot", "renovatebot"],
        trailers: &[],
        bodies: &[],
        branches: &["/renovate/", "'renovate/"],
    },
];

/// What is counted for one agent.
#[derive(Clone, Debug, Default)]
struct Tally {
    commits: u64,
    marks: BTreeSet<&'static str>,
    example: String,
}

/// Reads the history of a checkout; `None` without git or without commits.
pub(crate) fn read(root: &Path, declared: &[String], commits_max: u64) -> Option<HistoryReport> {
    if !root.join(".git").exists() {
        return None;
    }
    let mut child = Command::new("git")
        .arg("-C")
        .arg(root)
        .args([
            "-c",
            "safe.directory=*",
            "-c",
            "log.showSignature=false",
            "-c",
            "core.fsmonitor=false",
            "-c",
            "protocol.allow=never",
            "--no-pager",
            "log",
            "--no-color",
            "--no-show-signature",
            "--no-notes",
        ])
        .arg(format!("--max-count={}", commits_max.min(COMMITS_MAX)))
        .arg("--format=%x01%H%x02%an%x02%ae%x02%cn%x02%ce%n%B")
        // Nothing is fetched, whatever the checkout's own configuration says.
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let stdout = child.stdout.take()?;
    let mut report = tally(BufReader::new(stdout), declared);
    report.truncated = report.commits >= commits_max.min(COMMITS_MAX);
    let _ = child.wait();
    (report.commits > 0).then_some(report)
}

/// Counts marks in the stream of `git log`.
fn tally(mut stream: impl BufRead, declared: &[String]) -> HistoryReport {
    let mut tallies: BTreeMap<&'static str, Tally> = BTreeMap::new();
    let mut current: BTreeMap<&'static str, BTreeSet<&'static str>> = BTreeMap::new();
    let mut id = String::new();
    let mut commits = 0_u64;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = stream
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .unwrap_or(0);
        if read == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&line).to_lowercase();
        let text = text.trim_end();
        if let Some(head) = text.strip_prefix('\u{1}') {
            settle(&mut tallies, &mut current, &id);
            commits += 1;
            let (hash, people) = head.split_once('\u{2}').unwrap_or((head, ""));
            id = hash.chars().take(12).collect();
            mark(people, "author", |marks| marks.authors, &mut current);
        } else if text.starts_with("merge ") {
            mark(
                &text.replace("from ", "from '"),
                "branch",
                |marks| marks.branches,
                &mut current,
            );
            mark(text, "branch", |marks| marks.branches, &mut current);
        } else if !text.is_empty() {
            if text.contains(": ") || text.contains("co-authored-by") {
                mark(text, "trailer", |marks| marks.trailers, &mut current);
            }
            mark(text, "body", |marks| marks.bodies, &mut current);
        }
    }
    settle(&mut tallies, &mut current, &id);
    let agents = tallies
        .into_iter()
        .map(|(name, tally)| HistoryAgent {
            name: name.to_owned(),
            declared: declared.iter().any(|known| known == name),
            commits: tally.commits,
            share_per_mille: u32::try_from(tally.commits.saturating_mul(1_000) / commits.max(1))
                .unwrap_or(1_000),
            marks: tally.marks.into_iter().map(str::to_owned).collect(),
            example: tally.example,
        })
        .collect();
    HistoryReport {
        commits,
        truncated: false,
        agents,
        caution: CAUTION.to_owned(),
    }
}

fn mark(
    text: &str,
    kind: &'static str,
    of: fn(&Marks) -> &'static [&'static str],
    current: &mut BTreeMap<&'static str, BTreeSet<&'static str>>,
) {
    for marks in MARKS {
        if of(marks).iter().any(|mark| text.contains(mark)) {
            current.entry(marks.name).or_default().insert(kind);
        }
    }
}

fn settle(
    tallies: &mut BTreeMap<&'static str, Tally>,
    current: &mut BTreeMap<&'static str, BTreeSet<&'static str>>,
    id: &str,
) {
    for (name, kinds) in std::mem::take(current) {
        let tally = tallies.entry(name).or_default();
        tally.commits += 1;
        tally.marks.extend(kinds);
        if tally.example.is_empty() {
            id.clone_into(&mut tally.example);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_counted_once_per_commit_with_their_kinds() {
        let log = "\u{1}aaaa\u{2}Ann\u{2}ann@x\u{2}Ann\u{2}ann@x\nFix\n\n🤖 Generated with [Claude Code](https://x)\n\nCo-Authored-By: Claude <noreply@anthropic.com>\n\u{1}bbbb\u{2}dependabot[bot]\u{2}x\u{2}GitHub\u{2}x\nBump\n\u{1}cccc\u{2}Ann\u{2}a\u{2}Ann\u{2}a\nMerge pull request #3 from org/codex/fix-thing\n\u{1}dddd\u{2}Claude Monet\u{2}monet@x\u{2}C\u{2}c\nWe like aiders\n";
        let report = tally(log.as_bytes(), &["Codex".to_owned()]);
        assert_eq!(report.commits, 4);
        let of = |name: &str| {
            report
                .agents
                .iter()
                .find(|agent| agent.name == name)
                .cloned()
        };
        let claude = of("Claude Code").unwrap();
        assert_eq!(
            (claude.commits, claude.share_per_mille, claude.declared),
            (1, 250, false)
        );
        assert_eq!(claude.marks, vec!["body", "trailer"]);
        assert_eq!(of("Dependabot").unwrap().marks, vec!["author"]);
        assert!(of("Codex").unwrap().declared);
        assert!(of("Aider").is_none());
    }
}
