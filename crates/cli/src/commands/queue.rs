//! The queues of branches: what is about to land, and what halted it.

use clap::Subcommand;
use portcullis_model::statement::Command;
use portcullis_model::{Refusal, RepositoryId};

use crate::commands::lists;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::column;
use crate::reason::Why;

/// Queues.
#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// List the branches with what is about to land on them
    List,
    /// Let a branch's queue go on after it was halted
    Resume {
        /// In which repository
        repository: RepositoryId,
        /// On which branch
        branch: String,
        #[command(flatten)]
        why: Why,
    },
}

impl QueueCommand {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        match self {
            Self::List => {
                let columns = [
                    column("REPOSITORY", &["/repository"]),
                    column("BRANCH", &["/branch"]),
                    column("TIP", &["/tip"]),
                    column("HALTED", &["/halted/code"]),
                    column("READY", &["/prepared"]),
                    column("NEXT", &["/next"]),
                ];
                lists::list(context, "/v1/queues", &columns, "no branches").await
            }
            Self::Resume {
                repository,
                branch,
                why,
            } => {
                let client = context.client()?;
                let (of, on) = (repository.clone(), branch.clone());
                let answer = context
                    .command_because(&client, &why.why, |why| Command::ResumeQueue {
                        repository: of,
                        branch: on,
                        why,
                    })
                    .await?;
                let said = format!("the queue of {branch} of {repository} goes on");
                lists::done(context, &answer, &said)
            }
        }
    }
}
