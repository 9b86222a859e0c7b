//! Did the change stay within what the task's signer allowed?

use portcullis_model::Scope;

use super::Rule;
use crate::analyse::{Level, Sink};
use crate::diff::Diff;
use crate::scope::{Violation, violations};

pub(super) const RULES: &[&Rule] = &[
    &OUTSIDE,
    &DENIED,
    &OPERATION,
    &TOO_MANY_FILES,
    &TOO_MANY_LINES,
    &UNREADABLE,
    &WIDENING,
];

const CHECK: &str = "scope";

/// A path that no allowed pattern matches. Example: the task allows `src/**`, the change edits
/// `deploy/prod.yaml`. Reason: the signer bound the work to these paths and nobody else can
/// loosen that.
static OUTSIDE: Rule = Rule {
    id: "scope-outside",
    check: CHECK,
    level: Level::Block,
    title: "A changed path is outside the paths that the task allows",
    next: "take the file out of the change, or ask the task's signer to sign a task with wider paths",
};

/// A path that a denied pattern matches, as it is or as a file system may read it. Example:
/// `src/auth/**` is denied, the change adds `src/AUTH/x.rs`. Reason: a denial holds for every
/// spelling.
static DENIED: Rule = Rule {
    id: "scope-denied",
    check: CHECK,
    level: Level::Block,
    title: "A changed path matches a pattern that the task denies",
    next: "take the file out of the change; the task's signer excluded it by name",
};

/// A kind of operation that the task doesn't allow. Example: the task allows `modify`, the change
/// deletes a file. Reason: deleting, linking and making executable are different powers.
static OPERATION: Rule = Rule {
    id: "scope-operation",
    check: CHECK,
    level: Level::Block,
    title: "The change does a kind of operation that the task does not allow",
    next: "undo the operation, or ask the task's signer for a task that allows it",
};

/// More files than the task allows. Example: 120 of at most 100. Reason: a reviewer's attention
/// is bounded.
static TOO_MANY_FILES: Rule = Rule {
    id: "scope-max-files",
    check: CHECK,
    level: Level::Block,
    title: "The change touches more files than the task allows",
    next: "split the change, or ask the task's signer for a higher bound",
};

/// More added and removed lines than the task allows. Example: 9,000 of at most 5,000. Reason: as
/// for files.
static TOO_MANY_LINES: Rule = Rule {
    id: "scope-max-lines",
    check: CHECK,
    level: Level::Block,
    title: "The change adds and removes more lines than the task allows",
    next: "split the change, or ask the task's signer for a higher bound",
};

/// A scope with a pattern that is no glob. Signing refuses it; a scope from elsewhere is never
/// guessed at. Example: `src/[`.
static UNREADABLE: Rule = Rule {
    id: "scope-unreadable",
    check: CHECK,
    level: Level::Block,
    title: "The task's scope can not be read, so nothing is within it",
    next: "sign the task again with valid path patterns",
};

/// What a wider task would have to say, in one place. Example: "paths: deploy/prod.yaml". Reason:
/// a human who wants the change can sign exactly this and no more; the change itself stays
/// blocked until then.
static WIDENING: Rule = Rule {
    id: "scope-widening",
    check: CHECK,
    level: Level::Escalate,
    title: "The change needs a wider scope than its task has",
    next: "if the work is wanted, sign a new task with this scope: `portcullis task new … --paths …`",
};

/// Most items that the widening names, so that its message stays readable.
const WIDENING_MAX_ITEMS: usize = 12;

pub(crate) fn check(diff: &Diff, scope: &Scope, sink: &mut Sink<'_>) {
    let violations = match violations(diff, scope) {
        Ok(violations) => violations,
        Err(refusal) => return sink.push(&UNREADABLE, None, None, refusal.to_string()),
    };
    let mut wider: Vec<String> = Vec::new();
    for violation in &violations {
        let item = report(violation, sink);
        if !wider.contains(&item) {
            wider.push(item);
        }
    }
    if !wider.is_empty() {
        let more = wider.len().saturating_sub(WIDENING_MAX_ITEMS);
        wider.truncate(WIDENING_MAX_ITEMS);
        let tail = if more > 0 {
            format!(", and {more} more")
        } else {
            String::new()
        };
        let message = format!("the task would have to allow: {}{tail}", wider.join(", "));
        sink.push(&WIDENING, None, None, message);
    }
}

/// Reports one violation and says what would allow it.
fn report(violation: &Violation, sink: &mut Sink<'_>) -> String {
    match violation {
        Violation::Outside { path, twin } => {
            let why = if *twin {
                "differs from an allowed path only in case or Unicode spelling, which counts as outside"
            } else {
                "is not among the paths that the task allows"
            };
            sink.push(
                &OUTSIDE,
                Some(path.to_string()),
                None,
                format!("{path} {why}"),
            );
            format!("path {path}")
        }
        Violation::Denied { path, pattern } => {
            let message = format!("{path} matches the denied pattern {pattern}");
            sink.push(&DENIED, Some(path.to_string()), None, message);
            format!("path {path} without denying {pattern}")
        }
        Violation::Operation { path, operation } => {
            let message = format!("the task does not allow the operation `{operation}` ({path})");
            sink.push(&OPERATION, Some(path.to_string()), None, message);
            format!("operation {operation}")
        }
        Violation::TooManyFiles { files, max } => {
            sink.push(
                &TOO_MANY_FILES,
                None,
                None,
                format!("{files} files of at most {max}"),
            );
            format!("{files} files")
        }
        Violation::TooManyLines { lines, max } => {
            sink.push(
                &TOO_MANY_LINES,
                None,
                None,
                format!("{lines} lines of at most {max}"),
            );
            format!("{lines} lines")
        }
    }
}
