//! Whether an event starts a workflow.

use super::{Event, Files, Reference, Subject};
use crate::glob;
use crate::workflow::{Trigger, Workflow};

/// Whether an event starts a workflow by this trigger.
pub(super) fn starts(
    trigger: &Trigger,
    workflow: &Workflow,
    event: &Event,
    subject: &Subject,
) -> bool {
    let same = match trigger.event.as_str() {
        "pull_request_target" => event.name == "pull_request",
        other => other == event.name,
    };
    if !same {
        return false;
    }
    let listed = |list: &[String]| list.iter().any(|known| known == event.activity);
    let by_type = if trigger.types.is_empty() {
        match event.name {
            "pull_request" => matches!(event.activity, "opened" | "synchronize" | "reopened"),
            "repository_dispatch" => true,
            _ => true,
        }
    } else if event.name == "repository_dispatch" {
        event
            .kind
            .as_deref()
            .is_none_or(|kind| trigger.types.iter().any(|known| glob::matches(known, kind)))
    } else {
        listed(&trigger.types)
    };
    if !by_type {
        return false;
    }
    match event.name {
        "push" => {
            push_matches(trigger, &event.reference, subject)
                && (matches!(event.reference, Reference::Tag(_))
                    || paths_match(trigger, &event.files))
        }
        "pull_request" => {
            // A pull request aims at the default branch unless it says otherwise.
            let base = event
                .pull_request
                .as_ref()
                .and_then(|pull| pull.base.clone())
                .map_or(Reference::Default, Reference::Branch);
            let files = event
                .pull_request
                .as_ref()
                .map_or(&event.files, |pull| &pull.files);
            branch_matches(&trigger.branches, &trigger.branches_ignore, &base, subject)
                && paths_match(trigger, files)
        }
        "workflow_run" => {
            let source = event
                .workflow
                .and_then(|index| subject.workflows.get(index));
            source.is_some_and(|source| {
                workflow.file != source.file
                    && trigger
                        .workflows
                        .iter()
                        .any(|name| name == &source.name || glob::matches(name, &source.name))
            }) && {
                let head = match &event.pull_request {
                    // Whoever opens a fork names its branch, `main` included.
                    Some(pull) if pull.fork => None,
                    Some(pull) => Some(
                        pull.head
                            .as_deref()
                            .map_or(Reference::Other, |head| Reference::Branch(head.to_owned())),
                    ),
                    None => Some(event.reference.clone()),
                };
                head.is_none_or(|head| {
                    branch_matches(&trigger.branches, &trigger.branches_ignore, &head, subject)
                })
            }
        }
        _ => true,
    }
}

/// Whether a change of these files passes a path filter; where whoever makes the change chooses
/// the files, it can.
fn paths_match(trigger: &Trigger, files: &Files) -> bool {
    let Some(files) = files else { return true };
    if !trigger.paths.is_empty() {
        return files.iter().any(|file| glob::any(&trigger.paths, file));
    }
    if !trigger.paths_ignore.is_empty() {
        return files
            .iter()
            .any(|file| !glob::any(&trigger.paths_ignore, file));
    }
    true
}

fn push_matches(trigger: &Trigger, reference: &Reference, subject: &Subject) -> bool {
    let branch_filter = !trigger.branches.is_empty() || !trigger.branches_ignore.is_empty();
    let tag_filter = !trigger.tags.is_empty() || !trigger.tags_ignore.is_empty();
    match reference {
        Reference::Tag(name) => {
            if !tag_filter {
                return !branch_filter;
            }
            match name.as_deref().filter(|name| !name.contains('$')) {
                Some(name) if trigger.tags.is_empty() => !glob::any(&trigger.tags_ignore, name),
                Some(name) => {
                    glob::any(&trigger.tags, name)
                        // A bare version may have lost its letter on the way.
                        || glob::any(&trigger.tags, &format!("v{name}"))
                            && name.starts_with(|c: char| c.is_ascii_digit())
                }
                None => true,
            }
        }
        Reference::Default | Reference::Branch(_) | Reference::Other => {
            if !branch_filter {
                return !tag_filter;
            }
            branch_matches(
                &trigger.branches,
                &trigger.branches_ignore,
                reference,
                subject,
            )
        }
    }
}

fn branch_matches(
    include: &[String],
    exclude: &[String],
    reference: &Reference,
    subject: &Subject,
) -> bool {
    let name = match reference {
        Reference::Default => subject.default_branch.as_str(),
        Reference::Branch(name) => name.as_str(),
        Reference::Other | Reference::Tag(_) => "some-branch/with-a-name",
    };
    if !include.is_empty() {
        let hit = glob::any(include, name);
        // Templates in a list (`$default-branch`) stand for the default branch.
        return hit
            || (*reference == Reference::Default
                && include.iter().any(|pattern| pattern == "$default-branch"));
    }
    if !exclude.is_empty() {
        return !glob::any(exclude, name);
    }
    true
}
