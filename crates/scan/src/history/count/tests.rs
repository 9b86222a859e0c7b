use super::*;

fn commit(author: &str, message: &str) -> String {
    let (name, address) = author.split_once(" <").unwrap();
    let address = address.trim_end_matches('>');
    format!("aaaaaaaaaaaaaaaa\nbbbb\n{name}\n{address}\nGitHub\nnoreply@github.com\n{message}\0")
}

fn of(log: &str) -> HistoryReport {
    count(log.as_bytes(), &["Codex".to_owned()], &AtomicU64::new(0))
}

fn names(log: &str) -> Vec<(String, Vec<String>)> {
    of(log)
        .agents
        .into_iter()
        .map(|agent| (agent.name, agent.marks))
        .collect()
}

const ANN: &str = "Ann <ann@example.org>";

/// What each agent really leaves, as found in public histories.
#[test]
fn every_agent_is_known_by_its_own_marks() {
    let cases: &[(&str, &str, &str, &str)] = &[
        (
            "Claude Code",
            ANN,
            "Fix\n\nCo-Authored-By: Claude Opus 4.6 <noreply@anthropic.com>",
            "trailer",
        ),
        (
            "Claude Code",
            ANN,
            "Fix\n\n🤖 Generated with [Claude Code](https://claude.com/claude-code)",
            "body",
        ),
        (
            "Claude Code",
            "claude[bot] <209825114+claude[bot]@users.noreply.github.com>",
            "Fix",
            "author",
        ),
        (
            "Claude Code",
            ANN,
            "Merge pull request #7 from acme/claude/issue-6-20260101-0101",
            "branch",
        ),
        (
            "Claude Code",
            ANN,
            "Fix\n\nAssisted-by: Claude:claude-sonnet-5",
            "trailer",
        ),
        (
            "Codex",
            ANN,
            "Fix\n\nCo-authored-by: Codex <noreply@openai.com>",
            "trailer",
        ),
        (
            "Codex",
            ANN,
            "Fix\n\nCo-authored-by: Codex <codex@openai.com>",
            "trailer",
        ),
        (
            "Codex",
            ANN,
            "Merge pull request #3 from org/codex/fix-thing",
            "branch",
        ),
        (
            "Codex",
            ANN,
            "Fix (#4)\n\nhttps://chatgpt.com/codex/tasks/task_e_68",
            "body",
        ),
        (
            "Copilot",
            "copilot-swe-agent[bot] <198982749+Copilot@users.noreply.github.com>",
            "Initial plan",
            "author",
        ),
        (
            "Copilot",
            ANN,
            "Fix\n\nCo-authored-by: Copilot <223556219+Copilot@users.noreply.github.com>",
            "trailer",
        ),
        (
            "Copilot",
            ANN,
            "Fix\n\nAgent-Logs-Url: https://example.org/x",
            "trailer",
        ),
        (
            "Copilot",
            ANN,
            "Merge pull request #9 from acme/copilot/add-tests",
            "branch",
        ),
        (
            "Cursor",
            "Cursor Agent <cursoragent@cursor.com>",
            "Fix",
            "author",
        ),
        (
            "Cursor",
            ANN,
            "Fix\n\nCo-authored-by: Cursor <cursoragent@cursor.com>",
            "trailer",
        ),
        ("Cursor", ANN, "Fix\n\nMade-with: Cursor", "trailer"),
        (
            "Cursor",
            ANN,
            "Merge pull request #1 from acme/cursor/fix-1a2b",
            "branch",
        ),
        (
            "Devin",
            "Devin AI <158243242+devin-ai-integration[bot]@users.noreply.github.com>",
            "Fix",
            "author",
        ),
        (
            "Devin",
            ANN,
            "Fix\n\nGenerated with [Devin](https://devin.ai)",
            "body",
        ),
        (
            "Devin",
            ANN,
            "Merge pull request #1 from acme/devin/1700000000-fix",
            "branch",
        ),
        (
            "Jules",
            "google-labs-jules[bot] <161369871+google-labs-jules[bot]@users.noreply.github.com>",
            "Fix",
            "author",
        ),
        (
            "Jules",
            ANN,
            "Fix (#2)\n\nCo-authored-by: google-labs-jules[bot] <161369871+google-labs-jules[bot]@users.noreply.github.com>",
            "trailer",
        ),
        (
            "OpenHands",
            "openhands <openhands@all-hands.dev>",
            "Fix",
            "author",
        ),
        (
            "OpenHands",
            ANN,
            "Fix\n\nCo-authored-by: openhands <openhands@all-hands.dev>",
            "trailer",
        ),
        (
            "OpenHands",
            ANN,
            "Merge pull request #1 from acme/openhands-fix-issue-3",
            "branch",
        ),
        (
            "Aider",
            "Ann (aider) <ann@example.org>",
            "feat: x",
            "author",
        ),
        (
            "Aider",
            ANN,
            "feat: x\n\nCo-authored-by: aider (gpt-4o) <noreply@aider.chat>",
            "trailer",
        ),
        (
            "Aider",
            ANN,
            "feat: x\n\nCo-authored-by: aider (openai/o3) <aider@aider.chat>",
            "trailer",
        ),
        (
            "Amp",
            ANN,
            "Fix\n\nAmp-Thread-ID: https://ampcode.com/threads/T-1\nCo-authored-by: Amp <amp@ampcode.com>",
            "trailer",
        ),
        (
            "Sweep",
            "sweep-ai[bot] <128439645+sweep-ai[bot]@users.noreply.github.com>",
            "Fix",
            "author",
        ),
        (
            "Sweep",
            ANN,
            "Merge pull request #1 from acme/sweep/add-tests",
            "branch",
        ),
        (
            "Gemini CLI",
            ANN,
            "Fix\n\nCo-authored-by: gemini-code-assist[bot] <176961590+gemini-code-assist[bot]@users.noreply.github.com>",
            "trailer",
        ),
        (
            "Gemini CLI",
            ANN,
            "Fix\n\nCo-authored-by: Gemini CLI <agent@gemini.google.com>",
            "trailer",
        ),
        (
            "opencode",
            ANN,
            "Fix\n\nCo-Authored-By: opencode <noreply@opencode.ai>",
            "trailer",
        ),
        (
            "Dependabot",
            "dependabot[bot] <49699333+dependabot[bot]@users.noreply.github.com>",
            "Bump x",
            "author",
        ),
        (
            "Renovate",
            "renovate[bot] <29139614+renovate[bot]@users.noreply.github.com>",
            "Update x",
            "author",
        ),
    ];
    for (name, author, message, kind) in cases {
        let found = names(&commit(author, message));
        let marks = found.iter().find(|(known, _)| known == name);
        assert!(
            marks.is_some_and(|(_, marks)| marks.iter().any(|mark| mark == kind)),
            "{name} by {kind} in {author}: {message}: {found:?}"
        );
        assert_eq!(found.len(), 1, "{message}: {found:?}");
    }
}

#[test]
fn people_and_talk_about_agents_are_no_agents() {
    for (author, message) in [
        ("Claude Monet <monet@example.org>", "Paint"),
        (
            ANN,
            "Fix\n\nCo-authored-by: Claude Martin <claude.martin@example.org>",
        ),
        (
            ANN,
            "Fix\n\nCo-authored-by: Jules Verne <jules@example.org>",
        ),
        (
            ANN,
            "Fix\n\nCo-authored-by: Devin Booker <devin@example.org>",
        ),
        (
            ANN,
            "Document how we use aider and codex\n\nSee aider.chat for more.",
        ),
        (ANN, "Move the cursor: keep it visible"),
        (ANN, "Merge pull request #3 from cursor/fix-thing"),
        (ANN, "Merge branch 'main' into claude/x"),
        (ANN, "Fix\n\nMerge branch 'codex/x' was a mistake"),
        (ANN, "Fix\n\nAssisted-by: Claudette <c@example.org>"),
        ("Amp Lifier <amp@example.org>", "Louder"),
        (
            "x+copilot@y <1+copilot-fan@users.noreply.github.com>",
            "Fly",
        ),
    ] {
        assert!(names(&commit(author, message)).is_empty(), "{message}");
    }
}

#[test]
fn marks_are_counted_once_per_commit() {
    let log = [
        commit(ANN, "Fix\n\nGenerated with [Claude Code](https://x)\n\nCo-Authored-By: Claude <noreply@anthropic.com>"),
        commit(ANN, "Plain"),
        commit(ANN, "Plain\n\n\u{1}not another commit"),
        commit(ANN, "Merge pull request #3 from org/codex/fix-thing"),
    ]
    .concat();
    let report = of(&log);
    assert_eq!((report.commits, report.pull_requests), (4, 1));
    let claude = &report
        .agents
        .iter()
        .find(|a| a.name == "Claude Code")
        .unwrap();
    assert_eq!((claude.commits, claude.share_per_mille), (1, 250));
    assert!(!claude.declared);
    let codex = &report.agents.iter().find(|a| a.name == "Codex").unwrap();
    assert_eq!(
        (codex.pull_requests, codex.pull_requests_share_per_mille),
        (1, 1_000)
    );
    assert!(codex.declared);
}

#[test]
fn a_pull_request_is_an_agents_by_its_branch_its_squash_or_its_newest_commit() {
    let at = |id: &str, parents: &str, author: &str, subject: &str| {
        format!("{id}\n{parents}\n{author}\nx@example.org\nGitHub\nnoreply@github.com\n{subject}\0")
    };
    let log = [
        at(
            "m1",
            "p1 h1",
            "Ann",
            "Merge pull request #1 from acme/feature",
        ),
        at("h1", "p1", "devin-ai-integration[bot]", "Fix"),
        at(
            "m2",
            "m1 h2",
            "Ann",
            "Merge pull request #2 from acme/devin/fix",
        ),
        at("h2", "m1", "devin-ai-integration[bot]", "Fix"),
        at("s3", "m2", "Devin AI", "Fix (#3)"),
        at("s4", "s3", "Ann", "Fix (#4)"),
        at("s5", "s4", "Ann", "Merged PR 5: Fix"),
        at("s6", "s4", "Ann", "Merged in devin/x (pull request #6)"),
        at("s7", "s4", "Ann", "Refer to (#no)"),
    ]
    .concat();
    let report = of(&log);
    assert_eq!(report.pull_requests, 6);
    assert_eq!(report.agents.len(), 1, "{:?}", report.agents);
    assert_eq!(report.agents[0].pull_requests, 4);
}

#[test]
fn monstrous_lines_and_broken_text_are_passed_over() {
    let mut log = commit(
        ANN,
        &format!("{}\n\nMade-with: Cursor", "x".repeat(1_000_000)),
    )
    .into_bytes();
    log.extend_from_slice(b"\xff\xfe\n\xff\n\xff\n\xff\n\xff\n\xff\n\xff(#1)\0\0\0half");
    let report = count(log.as_slice(), &[], &AtomicU64::new(0));
    assert_eq!(report.commits, 2);
    assert_eq!(report.agents[0].name, "Cursor");
}
