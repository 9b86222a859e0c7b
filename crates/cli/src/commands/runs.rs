//! Runs that are, and were.

use clap::Subcommand;
use portcullis_model::statement::Command;
use portcullis_model::{Refusal, RunId};

use crate::commands::lists;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::column;
use crate::reason::Why;

/// Runs.
#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// List runs, newest last
    List {
        /// Only those that have not ended
        #[arg(long)]
        active: bool,
    },
    /// Show one run: task, identity, leases, how it ended
    Show {
        /// Which
        #[arg(value_name = "RUN")]
        id: RunId,
    },
    /// End a run, at once; everything lent to it is void
    End {
        /// Which
        #[arg(value_name = "RUN")]
        id: RunId,
        #[command(flatten)]
        why: Why,
    },
}

impl RunsCommand {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        match self {
            Self::List { active } => {
                let columns = [
                    column("RUN", &["/id"]),
                    column("AGENT", &["/agent"]),
                    column("ENDED", &["/end/end/reason"]),
                    column("CONTAINMENT", &["/containment"]),
                    column("STARTED", &["/started"]),
                    column("DEADLINE", &["/deadline"]),
                    column("TASK", &["/task"]),
                ];
                let path = if active {
                    "/v1/runs?active=true"
                } else {
                    "/v1/runs"
                };
                lists::list(context, path, &columns, "no runs").await
            }
            Self::Show { id } => lists::show(context, &format!("/v1/runs/{id}")).await,
            Self::End { id, why } => {
                let client = context.client()?;
                let answer = context
                    .command_because(&client, &why.why, |why| Command::EndRun { run: id, why })
                    .await?;
                lists::done(context, &answer, &format!("{id} has ended"))
            }
        }
    }
}
