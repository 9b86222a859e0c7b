//! What a prompt tells its agent to do to pull requests: no act stands in the files then but the
//! words.

use crate::tree::{Tree, normal};

/// What a prompt asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asks {
    pub(crate) approve: bool,
    pub(crate) merge: bool,
    pub(crate) release: bool,
}

/// Longest text of a prompt that is read, in bytes.
const BYTES_MAX: usize = 64 * 1024;

const APPROVES: &[&str] = &[
    "approve it",
    "approve the p",
    "approve this p",
    "approve them",
    "approve pr",
    "approve pull",
    "approve or request",
    "approve, or request",
    "approve if ",
    "approve when ",
    "approve and merge",
    "either approve",
    "and approve",
    "then approve",
    "an approving review",
    "pr review --approve",
    "event=approve",
    "event: approve",
    "submit an approval",
    "--approve",
];

const MERGES: &[&str] = &[
    "merge it",
    "merge the p",
    "merge this p",
    "merge them",
    "merge pr",
    "merge pull",
    "merge if ",
    "merge when ",
    "merge into main",
    "merge into master",
    "merge to main",
    "merge to master",
    "and merge",
    "then merge",
    "squash and merge",
    "squash merge",
    "squash-merge",
    "enable auto-merge",
    "enable automerge",
    "gh pr merge",
    "pulls/{number}/merge",
];

const RELEASES: &[&str] = &[
    "gh release create",
    "create a release",
    "create the release",
    "create a github release",
    "make a release",
    "publish a release",
    "publish the release",
    "cut a release",
    "push the tag",
    "push a tag",
    "tag the release",
];

/// Words that turn a sentence round, or leave what it speaks of to someone else.
const DENIES: &[&str] = &[
    "not ",
    "never",
    "don't",
    "n't ",
    "no ",
    "without",
    "avoid",
    "instead of",
    "human",
    "maintainer",
    "reviewer",
    "a person",
    "the user",
    "manually",
    "ready to merge",
    "ready for merge",
    "before merg",
    "after merg",
    "once merged",
    "was merged",
    "merge conflict",
    "merge base",
    "suggest",
    "recommend",
    "whether to",
    "should be",
];

/// Reads what texts ask for. Each stands for itself: what one sentence forbids no other asks for.
pub(crate) fn read<'a>(texts: impl Iterator<Item = &'a str>) -> Asks {
    let mut asks = Asks::default();
    let mut forbids = Asks::default();
    let mut left = BYTES_MAX;
    for text in texts {
        let end = text.floor_char_boundary(left.min(text.len()));
        let text = text.get(..end).unwrap_or_default().to_lowercase();
        left -= end;
        for sentence in text
            .split(['\n', ';', '!', '?'])
            .flat_map(|line| line.split(". "))
        {
            // What is not done yet is no ban on doing it.
            let sentence = &["not yet ", "not already ", "not been ", "yet to be "]
                .iter()
                .fold(sentence.to_owned(), |text, words| text.replace(words, ""));
            let has = |list: &[&str]| list.iter().any(|words| sentence.contains(words));
            let denied = has(DENIES);
            let strictly = ["not ", "never", "n't "]
                .iter()
                .any(|word| sentence.contains(word));
            if !denied {
                asks.approve |= has(APPROVES);
                asks.merge |= has(MERGES);
                asks.release |= has(RELEASES);
            } else if strictly {
                let after = |word: &str| {
                    sentence.find(word).is_some_and(|at| {
                        let before = sentence.get(..at).unwrap_or_default();
                        ["not ", "never ", "n't "]
                            .iter()
                            .any(|no| before.ends_with(no) || before.contains(no))
                    })
                };
                forbids.approve |= after("approv");
                forbids.merge |= after("merg");
                forbids.release |= after("release") || after(" tag");
            }
        }
    }
    Asks {
        approve: asks.approve && !forbids.approve,
        merge: asks.merge && !forbids.merge,
        release: asks.release && !forbids.release,
    }
}

/// The texts of the checkout that a prompt names: a file that holds it, a command of Claude Code's.
pub(crate) fn named(prompt: &str, tree: &Tree) -> Vec<String> {
    /// Most files of one prompt.
    const FILES_MAX: usize = 4;
    let mut out = Vec::new();
    let mut read = |path: &str| {
        if out.len() < FILES_MAX
            && let Some(path) = normal(path)
            && let Ok(text) = tree.read(&path)
        {
            out.push(text.to_string());
        }
    };
    if let Some(name) = prompt.trim_start().strip_prefix('/') {
        let name = name.split_whitespace().next().unwrap_or_default();
        read(&format!(".claude/commands/{}.md", name.replace(':', "/")));
    }
    if prompt.len() < 4_000 {
        for word in
            prompt.split(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | '"' | '\'' | '`'))
        {
            let word = word
                .trim_end_matches(['.', ',', ':'])
                .trim_start_matches(['@', '<']);
            let text = [".md", ".txt", ".prompt"]
                .iter()
                .any(|end| word.ends_with(end));
            let mark = word.to_ascii_lowercase();
            if text
                && (mark.contains("prompt") || mark.contains("command") || prompt.trim() == word)
            {
                read(word);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_say_what_they_ask_for() {
        for (text, approve, merge) in [
            ("Review it. Then approve and merge it.", true, true),
            (
                "- approve or request changes\n- For any PR that is approved: merge it",
                true,
                true,
            ),
            (
                "Run `gh pr review --approve`, then `gh pr merge --squash`.",
                true,
                true,
            ),
            ("Do not approve. Merge the PR if it is green.", false, true),
            (
                "Never merge the PR; a human does. Approve it if it is fine",
                true,
                false,
            ),
            (
                "For any PR that has been approved and not yet merged: merge it into master.",
                false,
                true,
            ),
            ("Say LGTM when it is ready to merge", false, false),
            ("Resolve the merge conflicts", false, false),
            ("Suggest whether to approve the PR", false, false),
            (
                "Merge the pull request. You must never merge the pull request of a stranger.",
                false,
                false,
            ),
            ("", false, false),
        ] {
            let found = read(std::iter::once(text));
            assert_eq!((found.approve, found.merge), (approve, merge), "{text}");
        }
    }
}
