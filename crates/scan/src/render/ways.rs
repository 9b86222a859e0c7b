//! Verdicts by sink: one sink has one answer per assumption, and is shown once.

use crate::report::{Decision, RepositoryReport, Verdict};

/// A sink with its answers.
pub(super) struct Way<'a> {
    /// Anchor in the page and the picture.
    pub(super) id: String,
    pub(super) worst: Decision,
    /// At least one, in the order of assumptions.
    pub(super) verdicts: Vec<&'a Verdict>,
}

impl Way<'_> {
    /// `merge: default branch main`.
    pub(super) fn title(&self) -> String {
        self.verdicts.first().map_or_else(String::new, |verdict| {
            format!("{}: {}", verdict.kind.word(), verdict.sink)
        })
    }

    /// The answers in a line: `reachable; cut if protected`.
    pub(super) fn answers(&self) -> String {
        match self.verdicts.as_slice() {
            [one, other] if one.verdict == other.verdict => {
                format!("{} either way", one.verdict.word())
            }
            [one, other] => format!(
                "{}; {} if protected",
                one.verdict.word(),
                other.verdict.word()
            ),
            all => all
                .iter()
                .map(|one| format!("{} ({})", one.verdict.word(), one.assumption.word()))
                .collect::<Vec<_>>()
                .join(", "),
        }
    }
}

/// The sinks of the repository at `index` of the report, worst first.
pub(super) fn ways(repository: &RepositoryReport, index: usize) -> Vec<Way<'_>> {
    let mut out: Vec<Way<'_>> = Vec::new();
    let mut known = std::collections::HashMap::new();
    for verdict in &repository.verdicts {
        let key = (verdict.kind, &verdict.sink, &verdict.file);
        let at = *known.entry(key).or_insert_with(|| {
            out.push(Way {
                id: format!("r{index}w{}", out.len()),
                worst: verdict.verdict,
                verdicts: Vec::new(),
            });
            out.len() - 1
        });
        if let Some(way) = out.get_mut(at) {
            way.worst = way.worst.min(verdict.verdict);
            way.verdicts.push(verdict);
        }
    }
    out.sort_by_key(|way| way.worst);
    out
}
