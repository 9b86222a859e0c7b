//! `task new`: a task in a line, with the server's inventory for what is not said.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use portcullis_model::limits::DOCUMENT_MAX_BYTES;
use portcullis_model::manifest::{Agent, Repository};
use portcullis_model::task::{Budgets, Capabilities, Operation, Source, Target, Windows};
use portcullis_model::time::parse_duration_ms;
use portcullis_model::{
    AgentId, ChangeId, Containment, Digest, EndpointId, GitOid, Refusal, RepositoryId, Scope, Task,
    TaskText,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Client, segment};
use crate::commands::{lists, task};
use crate::context::{Context, Status};
use crate::exit::Exit;
use crate::task_file::{TaskFile, read_bounded, read_text};
use crate::time::now;
use crate::{git, output, progress, random};

/// Makes a task file.
#[derive(Debug, clap::Args)]
pub(crate) struct New {
    /// What to do, in one line
    title: String,
    /// Who shall do it
    #[arg(long, value_name = "AGENT")]
    agent: AgentId,
    /// Where; repeat it for a task over several [default: the agent's repository, if it has one
    /// only]
    #[arg(long, value_name = "REPOSITORY")]
    repository: Vec<RepositoryId>,
    /// Land the changes of all its repositories together or not at all
    #[arg(long)]
    together: bool,
    /// Path globs that may be touched, such as 'src/**' [default: those of the agent's record]
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    paths: Vec<String>,
    /// Path globs that may not be touched; they win
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    deny: Vec<String>,
    /// Most files changed [default: 100]
    #[arg(long, value_name = "N")]
    max_files: Option<u64>,
    /// Most lines added and removed [default: 5000]
    #[arg(long, value_name = "N")]
    max_lines: Option<u64>,
    /// Kinds of operation besides add, modify, delete and rename
    #[arg(long, value_name = "KIND", value_enum)]
    allow_operation: Vec<MoreOperation>,
    /// The order itself
    #[arg(long, value_name = "TEXT", conflicts_with = "text_file")]
    text: Option<String>,
    /// The order itself, from a file
    #[arg(long, value_name = "FILE")]
    text_file: Option<PathBuf>,
    /// Commit to start from, by id or as git in this directory reads it [default: the branch's tip]
    #[arg(long, value_name = "REV")]
    base: Option<String>,
    /// Branch that the change is for, in each repository [default: its default branch]
    #[arg(long, value_name = "BRANCH")]
    branch: Option<String>,
    /// Model endpoints that the run is lent
    #[arg(long, value_name = "ENDPOINT", num_args = 1..)]
    endpoint: Vec<EndpointId>,
    /// Hosts that the run may reach
    #[arg(long, value_name = "NAME:PORT", num_args = 1..)]
    host: Vec<String>,
    /// Those of the hosts whose answers are trusted: reading from them leaves no taint
    #[arg(long, value_name = "NAME:PORT", num_args = 1..)]
    trust: Vec<String>,
    /// Hosts to which bytes may pass unread, whatever is spoken
    #[arg(long, value_name = "NAME:PORT", num_args = 1..)]
    tunnel: Vec<String>,
    /// Files whose content must not leave, not even to a model, as path globs
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    keep: Vec<String>,
    /// How long the task is good for
    #[arg(long, value_name = "DURATION", default_value = "8h", value_parser = parse_duration_ms)]
    expires: u64,
    /// How often a run may be started
    #[arg(long, value_name = "N", default_value_t = 1)]
    runs: u64,
    /// Wall time of one run
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration_ms)]
    budget_wall: u64,
    /// Accepted pushes of one run [default: 50]
    #[arg(long, value_name = "N")]
    budget_pushes: Option<u64>,
    /// Calls to model endpoints and hosts of one run [default: 10000]
    #[arg(long, value_name = "N")]
    budget_calls: Option<u64>,
    /// Denials after which a run is ended [default: 100]
    #[arg(long, value_name = "N")]
    budget_denials: Option<u64>,
    /// Length of a window, at whose end what the run did is looked at
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration_ms)]
    window: u64,
    /// Have a person look at the end of each window before the run goes on
    #[arg(long)]
    ask_each_window: bool,
    /// The change that it continues
    #[arg(long, value_name = "CHANGE")]
    change: Option<ChangeId>,
    /// The ticket that it comes from: a file: or https: URI
    #[arg(long, value_name = "URI", requires = "source_file")]
    source: Option<String>,
    /// The ticket's text as it is now
    #[arg(long, value_name = "FILE", requires = "source")]
    source_file: Option<PathBuf>,
    /// Protections that the host may lack, by the name that `doctor` prints
    #[arg(long, value_name = "NAME", num_args = 1..)]
    allow_gap: Vec<String>,
    /// Least containment [default: contained; contained-claimed where one person works alone]
    #[arg(long, value_name = "LEVEL", value_enum)]
    containment: Option<Level>,
    /// The task file to write, or - for standard output
    #[arg(long, value_name = "FILE", default_value = "task.json")]
    file: PathBuf,
    /// Replace the file if it stands already
    #[arg(long)]
    force: bool,
    /// Sign it too
    #[arg(long)]
    sign: bool,
}

/// Operations that a task has only if its signer says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MoreOperation {
    /// Set or clear the executable bit
    Mode,
    /// Add or change symbolic links
    Symlink,
    /// Add or change submodules
    Submodule,
}

/// Containment, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// We only see its pushes
    Observed,
    /// Outside the sandbox, identity proved per request
    Bound,
    /// In the sandbox, on a host that the developer runs
    ContainedClaimed,
    /// In the sandbox, on a managed host
    Contained,
}

#[derive(Deserialize)]
struct Branch {
    tip: Option<GitOid>,
}

impl New {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        let client = context.client()?;
        let path = self.file.clone();
        let to_stdout = path == Path::new("-");
        if !to_stdout && !self.force && path.exists() {
            return Err(Refusal::conflict(
                "file-exists",
                format!("{} stands already", path.display()),
            )
            .next("name another with --file, or replace it with --force"));
        }
        let (sign, force) = (self.sign, self.force);
        let mut file = self.make(context, &client).await?;
        if sign {
            file = task::sign(context, file).await?;
        }
        if to_stdout {
            output::bytes(&file.to_bytes()?)?;
            return Ok(Exit::Done);
        }
        file.write(&path, force)?;
        if sign {
            return task::tell_signed(context, &path, &file);
        }
        let answer = json!({
            "task": file.task()?.id()?, "file": path.display().to_string(), "signed": false,
        });
        context.out().print(&answer, || {
            let path = path.display();
            format!("made {path}\n  next: portcullis task sign {path}")
        })?;
        Ok(Exit::Done)
    }

    async fn make(self, context: &Context, client: &Client) -> Result<TaskFile, Refusal> {
        let status = context.status(client).await?;
        let signer = match &context.global.human {
            Some(human) if !self.sign => human.clone(),
            _ => context.signer(client).await?.human,
        };
        let agent: Agent = record(client, "agents", "agent", self.agent.as_str()).await?;
        let repositories = self.repositories(&agent)?;
        if let (Some(base), true) = (&self.base, repositories.len() > 1) {
            return Err(Refusal::malformed("task")
                .expected("no --base where there are several repositories; each begins at its tip")
                .received(base));
        }
        let mut targets = Vec::with_capacity(repositories.len());
        for repository in repositories {
            targets.push(self.target(client, &agent, repository).await?);
        }
        let text = TaskText {
            title: self.title.clone(),
            text: self.order()?,
        };
        text.validate()?;
        let issued = now();
        let task = Task {
            version: Task::VERSION,
            origin: status.origin.clone(),
            text: text.digest()?,
            source: self.source()?,
            agent: agent.id.clone(),
            targets,
            together: self.together,
            capabilities: Capabilities {
                endpoints: self.endpoint.iter().cloned().collect(),
                hosts: self.host.iter().chain(&self.trust).cloned().collect(),
                trusted: self.trust.iter().cloned().collect(),
                tunnels: self.tunnel.iter().cloned().collect(),
                kept: self.keep.iter().cloned().collect(),
            },
            budgets: self.budgets(),
            windows: Windows {
                length_ms: self.window,
                ask: self.ask_each_window,
            },
            containment: self.containment(&status),
            allowed_gaps: self.allowed_gaps()?,
            change: self.change,
            not_before: issued,
            expires: issued.plus_ms(self.expires),
            nonce: random::nonce()?,
            signer,
        };
        task.validate()?;
        Ok(TaskFile {
            title: text.title,
            text: text.text,
            task: Some(task),
            envelope: None,
        })
    }

    fn repositories(&self, agent: &Agent) -> Result<Vec<RepositoryId>, Refusal> {
        if !self.repository.is_empty() {
            return Ok(self.repository.clone());
        }
        let mut repositories = agent.repositories.iter();
        match (repositories.next(), repositories.next()) {
            (Some(only), None) => Ok(vec![only.clone()]),
            _ => Err(Refusal::malformed("task")
                .expected("--repository, since the agent does not have exactly one")
                .received(
                    &agent
                        .repositories
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(", "),
                )),
        }
    }

    async fn target(
        &self,
        client: &Client,
        agent: &Agent,
        repository: RepositoryId,
    ) -> Result<Target, Refusal> {
        let known: Repository =
            record(client, "repositories", "repository", repository.as_str()).await?;
        let branch = self.branch.clone().unwrap_or(known.default_branch);
        portcullis_model::task::check_branch(&branch)?;
        let base = self.base(client, &repository, &branch).await?;
        Ok(Target {
            repository,
            branch,
            base,
            scope: self.scope(agent),
        })
    }

    async fn base(
        &self,
        client: &Client,
        repository: &RepositoryId,
        branch: &str,
    ) -> Result<GitOid, Refusal> {
        if let Some(base) = &self.base {
            return match base.parse() {
                Ok(oid) => Ok(oid),
                Err(_) => git::commit(Path::new("."), base),
            };
        }
        let path = format!(
            "/v1/branches/{}/{}",
            segment(repository.as_str()),
            segment(branch)
        );
        let found: Branch =
            progress::during("looking at the branch upstream", client.get(&path)).await?;
        found.tip.ok_or_else(|| {
            Refusal::not_found("branch", format!("{branch} of {repository}"))
                .next("name another with --branch, or a commit with --base")
        })
    }

    fn order(&self) -> Result<String, Refusal> {
        match (&self.text, &self.text_file) {
            (Some(text), _) => Ok(text.clone()),
            (None, Some(path)) => read_text(path, "task text"),
            (None, None) => Ok(String::new()),
        }
    }

    fn source(&self) -> Result<Option<Source>, Refusal> {
        let (Some(uri), Some(path)) = (&self.source, &self.source_file) else {
            return Ok(None);
        };
        let bytes = read_bounded(path, "source ticket")?;
        debug_assert!(bytes.len() <= DOCUMENT_MAX_BYTES);
        Ok(Some(Source {
            uri: uri.clone(),
            digest: Digest::of(&bytes),
        }))
    }

    fn scope(&self, agent: &Agent) -> Scope {
        let allow = if self.paths.is_empty() {
            &agent.paths
        } else {
            &self.paths
        };
        let mut scope = Scope::over(allow);
        scope.deny.clone_from(&self.deny);
        if let Some(files) = self.max_files {
            scope.max_files = files;
        }
        if let Some(lines) = self.max_lines {
            scope.max_lines = lines;
        }
        scope.operations.extend(
            self.allow_operation
                .iter()
                .map(|operation| match operation {
                    MoreOperation::Mode => Operation::Mode,
                    MoreOperation::Symlink => Operation::Symlink,
                    MoreOperation::Submodule => Operation::Submodule,
                }),
        );
        scope
    }

    fn budgets(&self) -> Budgets {
        let usual = Budgets::default();
        Budgets {
            runs: self.runs,
            wall_ms: self.budget_wall,
            pushes: self.budget_pushes.unwrap_or(usual.pushes),
            calls: self.budget_calls.unwrap_or(usual.calls),
            denials: self.budget_denials.unwrap_or(usual.denials),
        }
    }

    const fn containment(&self, status: &Status) -> Containment {
        match self.containment {
            Some(Level::Observed) => Containment::Observed,
            Some(Level::Bound) => Containment::Bound,
            Some(Level::ContainedClaimed) => Containment::ContainedClaimed,
            Some(Level::Contained) => Containment::Contained,
            None if status.solo => Containment::ContainedClaimed,
            None => Containment::Contained,
        }
    }

    fn allowed_gaps(&self) -> Result<std::collections::BTreeSet<String>, Refusal> {
        use portcullis_sandbox::Protection;
        let known = || {
            Protection::ALL
                .iter()
                .filter(|one| one.may_be_missing())
                .map(|one| one.name())
        };
        for gap in &self.allow_gap {
            if known().any(|name| name == gap) {
                continue;
            }
            let refusal = Refusal::malformed("protection")
                .expected(&known().collect::<Vec<_>>().join(", "))
                .received(gap);
            return Err(match portcullis_model::document::nearest(gap, known()) {
                Some(near) => refusal.next(format!("did you mean `{near}`?")),
                None => refusal.next("`portcullis doctor` lists them"),
            });
        }
        Ok(self.allow_gap.iter().cloned().collect())
    }
}

/// A record of the inventory by its id, or the nearest known one in the refusal.
async fn record<T: serde::de::DeserializeOwned>(
    client: &Client,
    plural: &str,
    what: &str,
    id: &str,
) -> Result<T, Refusal> {
    let mut item = lists::find(client, &format!("/v1/inventory/{plural}"), what, id).await?;
    let record = item.get_mut("record").map(Value::take).unwrap_or_default();
    serde_json::from_value(record).map_err(|error| {
        Refusal::unavailable(
            "server-answer",
            format!("the server's record of {what} {id} can't be read"),
        )
        .received(&error.to_string())
        .next("are server and command line of the same version? `portcullis --version`")
    })
}
