//! Credentials in added lines.

use super::Rule;
use crate::analyse::{Level, Sink, Subject};
use crate::secrets::{rules, scan_lines};

pub(super) const RULES: &[&Rule] = &[&ADDED];

/// An added line holds a credential. Example: a GitHub token in a test fixture. Reason: git keeps
/// it for ever and every clone has it. The finding shows the format and length, never the secret.
static ADDED: Rule = Rule {
    id: "secret-added",
    check: "secret",
    level: Level::Block,
    title: "An added line holds a credential",
    next: "revoke the credential if it is real, take it out of every commit of the change, and read it from the environment or a secret store instead",
};

pub(crate) fn check(files: &[Subject<'_>], sink: &mut Sink<'_>) {
    for subject in files {
        let texts: Vec<_> = subject
            .file
            .added()
            .map(|line| (line.number, line.text()))
            .collect();
        let lines = texts.iter().map(|(number, text)| (*number, text.as_ref()));
        for found in scan_lines(&subject.path, lines) {
            let title = rules()
                .find(|rule| rule.id == found.rule)
                .map_or("", |rule| rule.title);
            let message = format!("{title} [{}]: {}", found.rule, found.redacted);
            sink.file(&ADDED, subject, Some(found.line), message);
        }
        // A symbolic link's target and a file's name are content too.
        let path = subject.file.path().lossy();
        for found in scan_lines("", [(1, path.as_ref())]) {
            let message = format!("the file's name holds a credential [{}]", found.rule);
            sink.push(&ADDED, None, None, message);
        }
    }
}
