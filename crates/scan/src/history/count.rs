//! Counting marks in the stream of `git log`: one commit after another, one counter per agent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, Read};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use aho_corasick::AhoCorasick;

use super::marks::{HELPER_KEYS, MARKS, Marks};
use crate::report::{HistoryAgent, HistoryReport};

/// Longest line of a message that is looked at, in bytes; the rest of it is passed over.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Most merged branches whose newest commit is waited for at one time.
const WAITING_MAX: usize = 100_000;

/// What `git log` is asked for: one line each, then the message; commits end with a zero byte,
/// which no message can hold.
pub(super) const FORMAT: &str = "--format=%H%n%P%n%an%n%ae%n%cn%n%ce%n%B";

/// What marks can't show.
pub(super) const CAUTION: &str = "Marks are left voluntarily: an agent that leaves none, a squashed commit or a rewritten trailer is not counted, and a person can write a mark by hand. Pull requests are told by merge commits and by numbers in subjects; rebased ones are not told at all. The shares are a lower bound of what was marked, not a measure of what agents wrote.";

/// What is counted for one agent.
#[derive(Clone, Debug, Default)]
struct Tally {
    commits: u64,
    pull_requests: u64,
    marks: BTreeSet<&'static str>,
    example: String,
}

/// Agents by their place in [`MARKS`], with the kinds of their marks.
type Seen = BTreeMap<usize, BTreeSet<&'static str>>;

/// One commit while it is read.
#[derive(Default)]
struct Commit {
    id: String,
    merged: Option<String>,
    seen: Seen,
    pull_request: bool,
}

/// The counters of a whole history.
#[derive(Default)]
struct Counters {
    tallies: BTreeMap<usize, Tally>,
    commits: u64,
    pull_requests: u64,
    /// Newest commits of merged branches, with the agents that the merge itself names.
    waiting: HashMap<String, BTreeSet<usize>>,
}

/// Counts marks in what `git log` writes, until its end or the first error. `progress` follows
/// the number of commits.
pub(crate) fn count(
    mut stream: impl BufRead,
    declared: &[String],
    progress: &AtomicU64,
) -> HistoryReport {
    let mut counters = Counters::default();
    let mut line = Vec::new();
    let mut commit = Commit::default();
    let mut number = 0_usize;
    while let Some(end) = read_line(&mut stream, &mut line) {
        line.make_ascii_lowercase();
        let text = String::from_utf8_lossy(&line);
        take_line(&mut commit, number, text.trim_end());
        number += 1;
        if end == End::Commit {
            if number > 1 {
                counters.settle(std::mem::take(&mut commit));
                progress.store(counters.commits, Ordering::Relaxed);
            }
            number = 0;
        }
    }
    if number > 1 {
        counters.settle(commit);
    }
    counters.report(declared)
}

fn take_line(commit: &mut Commit, number: usize, text: &str) {
    match number {
        0 => text.trim().clone_into(&mut commit.id),
        // The second parent of a merge is the branch that came in.
        1 => commit.merged = text.split(' ').nth(1).map(str::to_owned),
        2 | 4 => by_name(text, &mut commit.seen),
        3 | 5 => by_address(text, "author", &mut commit.seen),
        6 => subject(text, commit),
        _ => body(text, commit),
    }
}

fn see(seen: &mut Seen, index: usize, kind: &'static str) {
    seen.entry(index).or_default().insert(kind);
}

fn by_name(name: &str, seen: &mut Seen) {
    for (index, marks) in MARKS.iter().enumerate() {
        if marks.names.contains(&name) || marks.endings.iter().any(|end| name.ends_with(end)) {
            see(seen, index, "author");
        }
    }
}

fn by_address(address: &str, kind: &'static str, seen: &mut Seen) {
    let login = address.split_once('+').map_or(address, |(_, login)| login);
    for (index, marks) in MARKS.iter().enumerate() {
        if marks.addresses.contains(&address) || marks.addresses.contains(&login) {
            see(seen, index, kind);
        }
    }
}

/// The first line of a message: merges and squashed pull requests.
fn subject(text: &str, commit: &mut Commit) {
    if let Some((branch, pull_request)) = merged_branch(text) {
        commit.pull_request |= pull_request;
        for (index, marks) in MARKS.iter().enumerate() {
            if marks.branches.iter().any(|start| branch.starts_with(start)) {
                see(&mut commit.seen, index, "branch");
            }
        }
    } else if squashed(text) {
        commit.pull_request = true;
    }
    in_text(text, &mut commit.seen);
}

/// The branch that a merge's subject names, and whether the subject tells of a pull request.
/// Forms: GitHub, Bitbucket, git itself (which GitLab takes over).
fn merged_branch(subject: &str) -> Option<(&str, bool)> {
    if let Some(rest) = subject.strip_prefix("merge pull request #") {
        let (_, head) = rest.split_once(" from ")?;
        let (_, branch) = head.split_once('/')?;
        return Some((branch, true));
    }
    if let Some(rest) = subject.strip_prefix("merged in ") {
        let (branch, number) = rest.split_once(' ')?;
        return Some((branch, number.starts_with("(pull request #")));
    }
    let rest = subject
        .strip_prefix("merge branch '")
        .or_else(|| subject.strip_prefix("merge remote-tracking branch '"))?;
    let (branch, _) = rest.split_once('\'')?;
    Some((branch.strip_prefix("origin/").unwrap_or(branch), false))
}

/// Whether a subject ends in `(#12)` or begins like Azure's `Merged PR 12:`.
fn squashed(subject: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let github = subject
        .strip_suffix(')')
        .and_then(|rest| rest.rsplit_once("(#"))
        .is_some_and(|(_, number)| digits(number));
    let azure = subject
        .strip_prefix("merged pr ")
        .and_then(|rest| rest.split_once(':'))
        .is_some_and(|(number, _)| digits(number));
    github || azure
}

fn body(text: &str, commit: &mut Commit) {
    if text.is_empty() {
        return;
    }
    if let Some((key, value)) = text.split_once(':') {
        trailer(key.trim_start(), value.trim(), commit);
    }
    in_text(text, &mut commit.seen);
}

fn trailer(key: &str, value: &str, commit: &mut Commit) {
    if key.contains(' ') {
        // GitLab writes `See merge request group/project!12`; it has no colon, so it is no trailer.
        return;
    }
    let person = matches!(key, "co-authored-by" | "signed-off-by");
    let helper = HELPER_KEYS.contains(&key);
    if person && let Some((_, address)) = value.rsplit_once('<') {
        by_address(address.trim_end_matches('>'), "trailer", &mut commit.seen);
    }
    for (index, marks) in MARKS.iter().enumerate() {
        let named = marks.keys.contains(&key)
            || person && begins(value, marks.coauthors)
            || helper && (begins(value, marks.helpers) || begins(value, marks.coauthors));
        if named {
            see(&mut commit.seen, index, "trailer");
        }
    }
}

/// Whether a value begins with one of the words, and the word ends there.
fn begins(value: &str, words: &[&str]) -> bool {
    words.iter().any(|word| {
        value.strip_prefix(word).is_some_and(|rest| {
            word.ends_with('(')
                || !rest.starts_with(|next: char| next.is_alphanumeric() || next == '\'')
        })
    })
}

/// Pieces of messages, in one pass over each line.
struct Pieces {
    automaton: Option<AhoCorasick>,
    agents: Vec<usize>,
}

static PIECES: LazyLock<Pieces> = LazyLock::new(|| {
    let pairs: Vec<(usize, &str)> = MARKS
        .iter()
        .enumerate()
        .flat_map(|(index, marks): (usize, &Marks)| marks.bodies.iter().map(move |m| (index, *m)))
        .collect();
    Pieces {
        // Constant patterns of a few hundred bytes: building can't fail.
        automaton: AhoCorasick::new(pairs.iter().map(|(_, piece)| *piece)).ok(),
        agents: pairs.iter().map(|(index, _)| *index).collect(),
    }
});

fn in_text(text: &str, seen: &mut Seen) {
    let Some(automaton) = &PIECES.automaton else {
        return;
    };
    for found in automaton.find_iter(text) {
        if let Some(index) = PIECES.agents.get(found.pattern().as_usize()) {
            see(seen, *index, "body");
        }
    }
}

impl Counters {
    fn settle(&mut self, commit: Commit) {
        self.commits += 1;
        if commit.pull_request {
            self.pull_requests += 1;
            for index in commit.seen.keys() {
                self.tallies.entry(*index).or_default().pull_requests += 1;
            }
            // Whose newest commit came in by this merge is known only when that commit is read.
            if let Some(head) = commit.merged
                && self.waiting.len() < WAITING_MAX
            {
                let named = commit.seen.keys().copied().collect();
                self.waiting.insert(head, named);
            }
        }
        if let Some(named) = self.waiting.remove(&commit.id) {
            for index in commit.seen.keys().filter(|index| !named.contains(index)) {
                self.tallies.entry(*index).or_default().pull_requests += 1;
            }
        }
        for (index, kinds) in commit.seen {
            let tally = self.tallies.entry(index).or_default();
            tally.commits += 1;
            tally.marks.extend(kinds);
            if tally.example.is_empty() {
                tally.example = commit.id.chars().take(12).collect();
            }
        }
    }

    fn report(self, declared: &[String]) -> HistoryReport {
        let share = |part: u64, whole: u64| {
            u32::try_from(part.saturating_mul(1_000) / whole.max(1)).unwrap_or(1_000)
        };
        let mut agents: Vec<HistoryAgent> = self
            .tallies
            .into_iter()
            .filter_map(|(index, tally)| {
                let name = MARKS.get(index)?.name;
                Some(HistoryAgent {
                    name: name.to_owned(),
                    declared: declared.iter().any(|known| known == name),
                    commits: tally.commits,
                    share_per_mille: share(tally.commits, self.commits),
                    pull_requests: tally.pull_requests,
                    pull_requests_share_per_mille: share(tally.pull_requests, self.pull_requests),
                    marks: tally.marks.into_iter().map(str::to_owned).collect(),
                    example: tally.example,
                })
            })
            .collect();
        agents.sort_by(|a, b| (b.commits, &a.name).cmp(&(a.commits, &b.name)));
        HistoryReport {
            commits: self.commits,
            pull_requests: self.pull_requests,
            truncated: false,
            agents,
            caution: CAUTION.to_owned(),
        }
    }
}

/// What ended a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Line,
    Commit,
}

/// Reads up to a line's or a commit's end; keeps no more than [`LINE_BYTES_MAX`]. `None` at the
/// stream's end.
fn read_line(stream: &mut impl BufRead, line: &mut Vec<u8>) -> Option<End> {
    line.clear();
    let mut some = false;
    loop {
        let buffer = match stream.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => &[],
        };
        if buffer.is_empty() {
            return some.then_some(End::Commit);
        }
        some = true;
        let at = buffer.iter().position(|byte| matches!(byte, 0 | b'\n'));
        let taken = at.unwrap_or(buffer.len());
        let room = LINE_BYTES_MAX.saturating_sub(line.len()) as u64;
        let _ = buffer.take(room.min(taken as u64)).read_to_end(line);
        let end = at.map(|at| match buffer.get(at) {
            Some(0) => End::Commit,
            _ => End::Line,
        });
        stream.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            return end;
        }
    }
}

#[cfg(test)]
mod tests;
