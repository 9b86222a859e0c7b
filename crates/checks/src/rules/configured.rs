//! Paths that the repository's protected base guards by itself.

use globset::GlobMatcher;

use super::Rule;
use crate::analyse::{Context, Level, PathRule, Sink, Subject};

pub(super) const RULES: &[&Rule] = &[&ESCALATE, &BLOCK];

const CHECK: &str = "guarded-path";

/// A path that the base's configuration wants looked at. Example: `escalate = [{ path =
/// "billing/**", why = "money" }]`. Reason: a team knows best which of its files are delicate.
static ESCALATE: Rule = Rule {
    id: "guarded-path",
    check: CHECK,
    level: Level::Escalate,
    title: "A path that this repository guards is changed",
    next: "a person must approve it explicitly, or the file leaves the change",
};

/// A path that the base's configuration closes. Example: `block = [{ path = "vendor/**", why =
/// "mirrored, never edited" }]`. Reason: as above, without exception.
static BLOCK: Rule = Rule {
    id: "closed-path",
    check: CHECK,
    level: Level::Block,
    title: "A path that this repository closes to changes is changed",
    next: "take the file out of the change; opening the path is a change of the configuration",
};

pub(crate) fn check(files: &[Subject<'_>], context: &Context, sink: &mut Sink<'_>) {
    for subject in files {
        for (rule, list) in [(&BLOCK, &context.block), (&ESCALATE, &context.escalate)] {
            if let Some(guard) = guard(subject, list) {
                sink.file(
                    rule,
                    subject,
                    None,
                    format!("{} ({})", guard.why, guard.path),
                );
            }
        }
    }
}

/// The first guard that matches a path of the file, as it is or as a file system may read it.
fn guard<'c>(subject: &Subject<'_>, list: &'c [(GlobMatcher, PathRule)]) -> Option<&'c PathRule> {
    list.iter()
        .find(|(glob, _)| {
            subject.file.paths().any(|path| {
                let path = path.lossy();
                glob.is_match(&*path) || glob.is_match(crate::path::fold(&path))
            })
        })
        .map(|(_, rule)| rule)
}
