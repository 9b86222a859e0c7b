//! Tasks: orders that people sign.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use portcullis_evidence::dsse::UnverifiedEnvelope;
use portcullis_evidence::sshsig::Attestation;
use portcullis_evidence::statement::{self, StatementType, TrustedKey, UnsignedStatement};
use portcullis_model::manifest::Human;
use portcullis_model::statement::Envelope;
use portcullis_model::{KeyClass, PublicKey, Refusal, Task, TaskText};
use serde::Serialize;
use serde_json::{Value, json};

use crate::client::Client;
use crate::commands::lists;
use crate::commands::task_new::New;
use crate::context::{Context, Record};
use crate::exit::Exit;
use crate::output::{self, column};
use crate::task_file::TaskFile;

/// Tasks.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Make a task file
    New(Box<New>),
    /// Sign a task file with your key
    Sign {
        /// The task file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Check a task's signature, and whether the server would take it in now
    Verify {
        /// The task file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show what a task file says
    Show {
        /// The task file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// List tasks that the server took in
    List,
}

#[derive(Serialize)]
struct Question<'a> {
    envelope: &'a Envelope,
    text: TaskText,
}

impl TaskCommand {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        match self {
            Self::New(new) => new.run(context).await,
            Self::Sign { file } => {
                let signed = sign(context, TaskFile::read(&file)?).await?;
                signed.write(&file, true)?;
                tell_signed(context, &file, &signed)
            }
            Self::Verify { file } => verify(context, &file).await,
            Self::Show { file } => {
                let read = TaskFile::read(&file)?;
                let task = read.task()?;
                let answer = json!({
                    "title": read.title, "text": read.text, "task": task,
                    "signed": read.envelope.is_some(),
                });
                context.out().print(&answer, || describe(&read, &task))?;
                Ok(Exit::Done)
            }
            Self::List => {
                let columns = [
                    column("TASK", &["/id"]),
                    column("AGENT", &["/task/agent"]),
                    column("SIGNER", &["/task/signer"]),
                    column("EXPIRES", &["/task/expires"]),
                    column("RUNS", &["/runs"]),
                    column("TITLE", &["/text/title"]),
                ];
                lists::list(context, "/v1/tasks", &columns, "no tasks").await
            }
        }
    }
}

/// Signs the task of a file with the key of whoever the task names as its signer.
///
/// # Errors
/// It is signed already, or the signer's key is not here.
pub(crate) async fn sign(context: &Context, file: TaskFile) -> Result<TaskFile, Refusal> {
    let Some(task) = &file.task else {
        return Err(
            Refusal::conflict("task-signed-already", "this task is signed already")
                .next("make a new one with `portcullis task new`"),
        );
    };
    let client = context.client()?;
    let signer = context.signer(&client).await?;
    if signer.human != task.signer {
        return Err(Refusal::denied(
            "task-of-another-signer",
            "this task names another person as its signer",
        )
        .expected(task.signer.as_str())
        .received(signer.human.as_str())
        .next(format!(
            "name that person's key with --key, or make the task with --as {}",
            signer.human
        )));
    }
    let envelope = signer
        .key
        .sign(&UnsignedStatement::new(StatementType::Task, task)?)?;
    Ok(TaskFile {
        task: None,
        envelope: Some(envelope),
        ..file
    })
}

/// Says that a task file is signed, and what comes next.
///
/// # Errors
/// Standard output is gone.
pub(crate) fn tell_signed(
    context: &Context,
    path: &Path,
    file: &TaskFile,
) -> Result<Exit, Refusal> {
    let task = file.task()?;
    let id = task.id()?;
    let answer = json!({ "task": id, "file": path.display().to_string(), "signed": true });
    context.out().print(&answer, || {
        format!(
            "{} is signed by {}: {}\n  next: portcullis run --task {} -- COMMAND…",
            id.short(),
            task.signer,
            path.display(),
            path.display()
        )
    })?;
    Ok(Exit::Done)
}

async fn verify(context: &Context, path: &Path) -> Result<Exit, Refusal> {
    let file = TaskFile::read(path)?;
    let envelope = file.envelope(path)?;
    let client = context.client()?;
    let (task, key, class) = verify_signature(&client, &file, envelope).await?;
    let question = Question {
        envelope,
        text: file.task_text(),
    };
    let answer: Value = client.post("/v1/tasks/check", &question).await?;
    let told = json!({
        "task": task.id()?, "signer": task.signer, "key": key.fingerprint(), "key_class": class,
        "answer": answer,
    });
    context.out().print(&told, || {
        format!(
            "{} is signed by {} with {} ({class}), and would be taken in now",
            task.id()
                .map_or_else(|_| "the task".to_owned(), |id| id.short()),
            task.signer,
            key.fingerprint()
        )
    })?;
    Ok(Exit::Done)
}

/// Checks the signature here, against the signer's keys in the server's inventory.
async fn verify_signature(
    client: &Client,
    file: &TaskFile,
    envelope: &Envelope,
) -> Result<(Task, PublicKey, KeyClass), Refusal> {
    let claimed = file.task()?;
    let humans: Vec<Record<Human>> = client.items("/v1/inventory/humans").await?;
    let signer = humans
        .iter()
        .find(|human| human.record.id == claimed.signer)
        .ok_or_else(|| Refusal::not_found("human", &claimed.signer))?;
    let trusted: Vec<TrustedKey<'_>> = signer
        .record
        .keys
        .iter()
        .map(|key| TrustedKey {
            key,
            attestation: Attestation::None,
        })
        .collect();
    let unverified = UnverifiedEnvelope::try_from(envelope.clone())?;
    let verified =
        statement::verify(&unverified, StatementType::Task, &trusted)?.read::<Task>("task")?;
    Ok((
        verified.payload().clone(),
        verified.key().clone(),
        verified.class(),
    ))
}

/// What a task says, for people.
fn describe(file: &TaskFile, task: &Task) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            out.push_str(&format!("{name:<12} {}\n", output::clean_line(value)));
        }
    };
    let list = |values: &mut dyn Iterator<Item = String>| values.collect::<Vec<_>>().join(", ");
    line("title", &file.title);
    line(
        "task",
        &task
            .id()
            .map_or_else(|error| error.message, |id| id.to_string()),
    );
    line(
        "signed",
        if file.envelope.is_some() {
            "yes (check it with `task verify`)"
        } else {
            "no"
        },
    );
    line("signer", task.signer.as_str());
    line("agent", task.agent.as_str());
    if task.together {
        line("changes", "land together or not at all");
    }
    for target in &task.targets {
        line("repository", target.repository.as_str());
        line("  branch", &target.branch);
        line("  base", target.base.as_str());
        line("  may touch", &target.scope.allow.join(", "));
        line("  not", &target.scope.deny.join(", "));
        line(
            "  at most",
            &format!(
                "{} files, {} lines",
                target.scope.max_files, target.scope.max_lines
            ),
        );
        line(
            "  may",
            &list(&mut target.scope.operations.iter().map(ToString::to_string)),
        );
    }
    line(
        "endpoints",
        &list(&mut task.capabilities.endpoints.iter().map(ToString::to_string)),
    );
    let capabilities = &task.capabilities;
    line("hosts", &list(&mut capabilities.hosts.iter().cloned()));
    line(
        "  trusted",
        &list(&mut capabilities.trusted.iter().cloned()),
    );
    line("tunnels", &list(&mut capabilities.tunnels.iter().cloned()));
    line("keeps in", &list(&mut capabilities.kept.iter().cloned()));
    let budgets = &task.budgets;
    line(
        "budgets",
        &format!(
            "{} runs of {} s; {} pushes, {} calls, {} denials a run",
            budgets.runs,
            budgets.wall_ms / 1_000,
            budgets.pushes,
            budgets.calls,
            budgets.denials
        ),
    );
    line("containment", &format!("{} at least", task.containment));
    line("may lack", &list(&mut task.allowed_gaps.iter().cloned()));
    if let Some(source) = &task.source {
        line("source", &format!("{} ({})", source.uri, source.digest));
    }
    if let Some(change) = task.change {
        line("continues", &change.to_string());
    }
    line("from", &task.not_before.to_string());
    line("until", &task.expires.to_string());
    line("ledger", &task.origin);
    if !file.text.is_empty() {
        out.push('\n');
        out.push_str(&output::clean(&file.text));
    }
    out
}
