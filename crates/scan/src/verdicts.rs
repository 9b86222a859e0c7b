//! From the engine's best ways to verdicts.

use std::collections::BTreeMap;

use crate::engine::{self, Assumption, Found, Level, Outcome};
use crate::parallel;
use crate::report::{Decision, PathStep, Verdict};
use crate::repository::Repository;

/// The verdicts of one repository under one assumption.
pub(crate) fn of(outcome: &Outcome, repository: usize, assumption: Assumption) -> Vec<Verdict> {
    let mut best: BTreeMap<(String, String), Verdict> = BTreeMap::new();
    for found in outcome
        .sinks
        .iter()
        .filter(|found| found.repository == repository)
    {
        let verdict = verdict(outcome, found, assumption);
        let key = (
            format!("{}{}", found.kind.word(), verdict.sink),
            verdict.file.clone(),
        );
        match best.get(&key) {
            Some(known) if known.verdict <= verdict.verdict => {}
            _ => {
                best.insert(key, verdict);
            }
        }
    }
    let mut all: Vec<Verdict> = best.into_values().collect();
    all.sort_by(|a, b| (a.kind, &a.file, a.line, &a.sink).cmp(&(b.kind, &b.file, b.line, &b.sink)));
    all
}

fn verdict(outcome: &Outcome, found: &Found, assumption: Assumption) -> Verdict {
    let mut out = Verdict {
        sink: found.name.clone(),
        kind: found.kind,
        assumption,
        verdict: Decision::Benign,
        path: Vec::new(),
        cut_by: None,
        decided_by: None,
        file: found.file.clone(),
        line: found.line,
        fingerprint: fingerprint(found, assumption),
        known: false,
    };
    let Some(way) = &found.way else {
        let why = found
            .benign
            .unwrap_or("nothing starts it: its conditions or its credentials never allow it");
        out.decided_by = Some(why.to_owned());
        return out;
    };
    out.path = outcome
        .path(way)
        .into_iter()
        .map(|step| PathStep {
            file: step.file,
            line: step.line,
            actor: step.actor,
            credential: step.credential,
            event: step.event,
            why: step.why,
            excerpt: String::new(),
        })
        .collect();
    let reason = way.reason.as_deref().map(str::to_owned);
    match way.level {
        Level::Clear => out.verdict = Decision::Reachable,
        Level::Fact => {
            out.verdict = Decision::Depends;
            out.decided_by = reason;
        }
        Level::Human => {
            out.verdict = Decision::Cut;
            out.cut_by = reason;
        }
    }
    out
}

/// A name that survives edits elsewhere in the file: no line in it.
fn fingerprint(found: &Found, assumption: Assumption) -> String {
    let text = format!(
        "{}|{}|{}|{}",
        found.kind.word(),
        found.name,
        found.file,
        assumption.word()
    );
    short_hash(&text)
}

/// 64 bits of FNV-1a as hex: a name, not a proof.
pub(crate) fn short_hash(text: &str) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in text.bytes() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("{hash:016x}")
}

/// Which assumptions a scan decides under.
pub(crate) fn assumptions(repositories: &[Repository]) -> Vec<Assumption> {
    if repositories
        .iter()
        .any(|repository| repository.subject.settings.is_some())
    {
        vec![Assumption::Settings]
    } else {
        vec![Assumption::Unprotected, Assumption::Protected]
    }
}

/// Searches under every assumption.
pub(crate) fn search(
    repositories: Vec<Repository>,
) -> (Vec<Repository>, Vec<(Assumption, Outcome)>) {
    let assumptions = assumptions(&repositories);
    let mut rest = Vec::new();
    let mut subjects = Vec::new();
    for repository in repositories {
        rest.push((repository.shown, repository.tree, repository.problems));
        subjects.push(repository.subject);
    }
    let outcomes = parallel::map(&assumptions, 2, |assumption| {
        (*assumption, engine::search(&subjects, *assumption))
    });
    let repositories = rest
        .into_iter()
        .zip(subjects)
        .map(|((shown, tree, problems), subject)| Repository {
            shown,
            tree,
            subject,
            problems,
        })
        .collect();
    (repositories, outcomes)
}

/// Puts the source line into every step that names one.
pub(crate) fn add_excerpts(verdicts: &mut [Verdict], tree: &crate::tree::Tree) {
    /// Longest excerpt, in characters.
    const EXCERPT_MAX: usize = 160;
    let mut texts: BTreeMap<String, Option<Vec<String>>> = BTreeMap::new();
    for step in verdicts.iter_mut().flat_map(|verdict| &mut verdict.path) {
        if step.file.is_empty() || step.line == 0 {
            continue;
        }
        let lines = texts.entry(step.file.clone()).or_insert_with(|| {
            tree.read(&step.file)
                .ok()
                .map(|text| text.lines().map(str::to_owned).collect())
        });
        let Some(line) = lines.as_ref().and_then(|lines| lines.get(step.line - 1)) else {
            continue;
        };
        if !portcullis_checks::secrets::scan_text(&step.file, line).is_empty() {
            continue;
        }
        step.excerpt = line
            .trim_end()
            .chars()
            .take(EXCERPT_MAX)
            .flat_map(portcullis_model::refusal::visible)
            .collect();
    }
}
