//! Examples to begin with: a commented agent record, and a task file.

use std::path::Path;

use portcullis_model::task::{Budgets, Capabilities, Target};
use portcullis_model::{Containment, Digest, GitOid, Refusal, Scope, Task, TaskText, Timestamp};
use portcullis_server::init::{InitPlan, InitReport};

use super::write_example;
use crate::random;
use crate::task_file::TaskFile;

/// How long the example task is good for once it is signed, in milliseconds (30 days).
const TASK_LIFE_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// How long the example agent's record lasts, in milliseconds (90 days).
const AGENT_LIFE_MS: u64 = 90 * 24 * 3_600 * 1_000;

/// Writes both below the server's directory.
///
/// # Errors
/// A file can't be written.
pub(super) fn write(
    folder: &Path,
    plan: &InitPlan,
    time: Timestamp,
    report: &mut InitReport,
) -> Result<(), Refusal> {
    for name in ["agents", "tasks"] {
        let path = folder.join(name);
        std::fs::create_dir_all(&path).map_err(|error| {
            Refusal::unavailable(
                "folder-unwritable",
                format!("{} can't be made", path.display()),
            )
            .received(&error.to_string())
        })?;
    }
    write_example(
        &folder.join("agents").join("example.toml"),
        agent(plan, time).as_bytes(),
        report,
    )?;
    write_example(
        &folder.join("tasks").join("example.json"),
        &task(plan, time)?.to_bytes()?,
        report,
    )
}

/// An agent's record, every field with a word about it.
pub(super) fn agent(plan: &InitPlan, time: Timestamp) -> String {
    let owner = plan
        .administrators
        .first()
        .map_or("ada", |(id, _)| id.as_str());
    let repositories: Vec<String> = plan
        .repositories
        .iter()
        .map(|repository| format!("\"{}\"", repository.id))
        .collect();
    let until = time.plus_ms(AGENT_LIFE_MS);
    format!(
        r#"# An agent's record. Propose it with `portcullis agent add agents/example.toml`; it is in force
# once enough administrators approved.
id = "example"
# The human who answers for it.
owner = "{owner}"
purpose = "fixes small defects that a task names"
# The model behind it, and the program that drives the model.
model = "any"
runtime = "any command"
repositories = [{repositories}]
# Stages that it takes part in: write, test, review, deploy.
phases = ["write"]
# The most sensitive environment that its work may reach: development, staging, production.
environment_ceiling = "staging"
# No task of it may go past these paths.
paths = ["src/**", "tests/**"]
# Model endpoints and hosts (name:port) that tasks may lend it.
endpoints = []
hosts = []
# Groups whose members may task it, besides its owner and the administrators.
tasked_by = []
# When a person looks at this record again, and when it ends by itself.
review_by = "{until}"
expires = "{until}"
"#,
        repositories = repositories.join(", ")
    )
}

/// A task file, not signed. Without a repository it names one that is not there.
fn task(plan: &InitPlan, time: Timestamp) -> Result<TaskFile, Refusal> {
    let text = TaskText {
        title: "Fix a typo in the documentation".to_owned(),
        text: "Correct the spelling in README.md. Change nothing else.\n".to_owned(),
    };
    let repository = plan.repositories.first();
    let id = |known: Option<&portcullis_model::RepositoryId>| match known {
        Some(id) => Ok(id.clone()),
        None => "example".parse(),
    };
    let task = Task {
        version: Task::VERSION,
        origin: plan.origin.clone(),
        text: text.digest()?,
        source: None,
        agent: match plan.agents.first() {
            Some(agent) => agent.id.clone(),
            None => "example".parse()?,
        },
        targets: vec![Target {
            repository: id(repository.map(|repository| &repository.id))?,
            branch: repository.map_or_else(
                || "main".to_owned(),
                |repository| repository.default_branch.clone(),
            ),
            base: repository
                .and_then(|repository| repository.baseline.clone())
                .unwrap_or_else(GitOid::zero),
            scope: Scope::over(&["README.md".to_owned()]),
        }],
        capabilities: Capabilities::default(),
        budgets: Budgets::default(),
        windows: Default::default(),
        together: false,
        containment: if plan.solo {
            Containment::ContainedClaimed
        } else {
            Containment::Contained
        },
        allowed_gaps: Default::default(),
        change: None,
        not_before: time,
        expires: time.plus_ms(TASK_LIFE_MS),
        nonce: random::nonce()?,
        signer: match plan.administrators.first() {
            Some((id, _)) => id.clone(),
            None => return Err(Refusal::internal("a plan without an administrator")),
        },
    };
    debug_assert_eq!(task.text, text.digest().unwrap_or_else(|_| Digest::of(b"")));
    Ok(TaskFile {
        title: text.title,
        text: text.text,
        task: Some(task),
        envelope: None,
    })
}
