//! Edits to files that have power of their own: each needs an explicit approval.

use super::Rule;
use crate::analyse::{Level, Sink, Subject};
use crate::classes::FileClass;
use crate::diff::Status;

const CHECK: &str = "sensitive-file";

const APPROVE: &str = "a person who may approve this kind of file must say so explicitly; \
    if the task does not need it, take the file out of the change";

/// A file that runs on a server when something is pushed, merged or scheduled is changed. Example:
/// a workflow gets a step that prints the deployment token. Reason: a pipeline runs with
/// credentials that its author may not have.
static PIPELINE: Rule = Rule {
    id: "pipeline-edit",
    check: CHECK,
    level: Level::Escalate,
    title: "A file that runs on a server when something is pushed, merged or scheduled is changed",
    next: APPROVE,
};

/// The configuration of a bot that acts on the repository is changed. Example: `.mergify.yml`
/// starts to merge what a label asks for. Reason: a bot's rules are a way to merge or publish
/// without a person.
static AUTOMATION: Rule = Rule {
    id: "automation-edit",
    check: CHECK,
    level: Level::Escalate,
    title: "The configuration of a bot that acts on the repository is changed",
    next: APPROVE,
};

/// A package manifest is changed: dependencies, scripts or what is published. Example:
/// `package.json` gets a new dependency. Reason: a dependency brings other people's code, and a
/// script runs at installation.
static MANIFEST: Rule = Rule {
    id: "manifest-edit",
    check: CHECK,
    level: Level::Escalate,
    title: "A package manifest is changed: dependencies, scripts or what is published",
    next: APPROVE,
};

/// A lock file is changed: which bytes of the dependencies are used. Example: `Cargo.lock` points
/// a crate at another registry. Reason: one changed hash exchanges a whole dependency and hides in
/// a long diff.
static LOCK: Rule = Rule {
    id: "lock-edit",
    check: CHECK,
    level: Level::Escalate,
    title: "A lock file is changed: which bytes of the dependencies are used",
    next: APPROVE,
};

/// A file that executes at build, packaging or installation is changed. Example: `build.rs`
/// downloads and runs a program. Reason: it runs on every developer's machine and in the builder.
static PACKAGING: Rule = Rule {
    id: "packaging-edit",
    check: CHECK,
    level: Level::Escalate,
    title: "A file that executes at build, packaging or installation is changed",
    next: APPROVE,
};

/// A file that says who owns or must review is changed. Example: `CODEOWNERS` loses the line for
/// `deploy/`. Reason: it decides whose look later changes need.
static OWNERSHIP: Rule = Rule {
    id: "ownership-edit",
    check: CHECK,
    level: Level::Escalate,
    title: "A file that says who owns or must review is changed",
    next: APPROVE,
};

/// Instructions or configuration of coding agents are changed. Example: `CLAUDE.md` tells the next
/// agent to skip reviews. Reason: the next run obeys them, with its own authority.
static AGENT_INSTRUCTIONS: Rule = Rule {
    id: "agent-instructions-edit",
    check: CHECK,
    level: Level::Escalate,
    title: "Instructions or configuration of coding agents are changed",
    next: APPROVE,
};

/// Portcullis's own configuration in this repository is changed. Example: `.portcullis/tests.toml`
/// loses a test command. Reason: it decides how later changes are looked at.
static PORTCULLIS: Rule = Rule {
    id: "portcullis-edit",
    check: CHECK,
    level: Level::Escalate,
    title: "Portcullis's own configuration in this repository is changed",
    next: APPROVE,
};

/// A file that changes what git does or shows is changed. Example: `.gitattributes` hides a
/// directory from diffs. Reason: attributes, submodules and hooks change what people see and what
/// runs on checkout.
static GIT_CONTROL: Rule = Rule {
    id: "git-control-edit",
    check: CHECK,
    level: Level::Escalate,
    title: "A file that changes what git does or shows is changed",
    next: APPROVE,
};

/// A file that executes on a developer's machine when a folder is opened is changed. Example:
/// `.vscode/tasks.json` gets a task that runs on opening. Reason: it runs as the person who
/// reviews the change.
static WORKSTATION: Rule = Rule {
    id: "workstation-edit",
    check: CHECK,
    level: Level::Escalate,
    title: "A file that executes on a developer's machine when a folder is opened is changed",
    next: APPROVE,
};

/// A description of where and how things run is changed. Example: a Terraform file opens a port to
/// the world. Reason: it changes production without a line of the product's code.
static INFRASTRUCTURE: Rule = Rule {
    id: "infrastructure-edit",
    check: CHECK,
    level: Level::Escalate,
    title: "A description of where and how things run is changed",
    next: APPROVE,
};

/// A package manifest gets a script that runs by itself at installation. Example: `"postinstall":
/// "node setup.js"` in `package.json`. Reason: it runs on every machine that installs the package,
/// before anybody has looked at it.
static LIFECYCLE: Rule = Rule {
    id: "lifecycle-script",
    check: CHECK,
    level: Level::Escalate,
    title: "A script that runs by itself at installation is added or changed",
    next: APPROVE,
};

pub(super) const RULES: &[&Rule] = &[
    &PIPELINE,
    &AUTOMATION,
    &MANIFEST,
    &LOCK,
    &PACKAGING,
    &OWNERSHIP,
    &AGENT_INSTRUCTIONS,
    &PORTCULLIS,
    &GIT_CONTROL,
    &WORKSTATION,
    &INFRASTRUCTURE,
    &LIFECYCLE,
];

/// The rule for a class, and what to call such a file; none for classes without power.
fn rule_for(class: FileClass) -> Option<(&'static Rule, &'static str)> {
    Some(match class {
        FileClass::Pipeline => (&PIPELINE, "a pipeline"),
        FileClass::Automation => (&AUTOMATION, "a bot's configuration"),
        FileClass::Manifest => (&MANIFEST, "a package manifest"),
        FileClass::Lock => (&LOCK, "a lock file"),
        FileClass::Packaging => (&PACKAGING, "a build or packaging file"),
        FileClass::Ownership => (&OWNERSHIP, "an ownership file"),
        FileClass::AgentInstructions => (&AGENT_INSTRUCTIONS, "agent instructions"),
        FileClass::Portcullis => (&PORTCULLIS, "Portcullis's configuration"),
        FileClass::GitControl => (&GIT_CONTROL, "a git control file"),
        FileClass::Workstation => (&WORKSTATION, "an editor or environment file"),
        FileClass::Infrastructure => (&INFRASTRUCTURE, "an infrastructure file"),
        FileClass::Test | FileClass::Documentation | FileClass::Source => return None,
    })
}

/// The names that npm and its relatives run by themselves.
const LIFECYCLE_SCRIPTS: [&str; 9] = [
    "\"preinstall\"",
    "\"install\"",
    "\"postinstall\"",
    "\"prepare\"",
    "\"preprepare\"",
    "\"postprepare\"",
    "\"prepublish\"",
    "\"prepublishOnly\"",
    "\"prepack\"",
];

pub(crate) fn check(files: &[Subject<'_>], sink: &mut Sink<'_>) {
    for subject in files {
        let done = match subject.file.status {
            Status::Added | Status::Copied => "adds",
            Status::Deleted => "deletes",
            Status::Modified | Status::TypeChanged => "changes",
            Status::Renamed => "moves",
        };
        let first = subject
            .file
            .added()
            .next()
            .or_else(|| subject.file.removed().next());
        for class in subject.classes.iter() {
            if let Some((rule, what)) = rule_for(class) {
                let message = format!("this {done} {what}");
                sink.file(rule, subject, first.map(|line| line.number), message);
            }
        }
        if crate::path::fold(&subject.path).ends_with("package.json") {
            lifecycle(subject, sink);
        }
    }
}

fn lifecycle(subject: &Subject<'_>, sink: &mut Sink<'_>) {
    for line in subject.file.added() {
        let text = line.text();
        if let Some(name) = LIFECYCLE_SCRIPTS.iter().find(|name| text.contains(**name)) {
            let message = format!("{name} runs by itself when the package is installed or packed");
            sink.file(&LIFECYCLE, subject, Some(line.number), message);
        }
    }
}
