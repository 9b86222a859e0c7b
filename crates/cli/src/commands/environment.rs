//! Environments: their records, and what runs in them.

use clap::Subcommand;
use portcullis_model::{EnvironmentId, Refusal};

use crate::commands::inventory::{Add, Kind};
use crate::commands::lists;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, column};

/// Environments.
#[derive(Debug, Subcommand)]
pub(crate) enum EnvironmentCommand {
    /// Propose a record; in force once enough administrators approved
    Add(Add),
    /// List environments and what runs in them
    List,
    /// Show one environment
    Show {
        /// Which
        #[arg(value_name = "ID")]
        id: EnvironmentId,
    },
}

impl EnvironmentCommand {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        match self {
            Self::Add(add) => add.run(context, Kind::Environment).await,
            Self::List => {
                let columns = [
                    column("ID", &["/record/id"]),
                    column("SENSITIVITY", &["/record/sensitivity"]),
                    column("REPOSITORY", &["/record/repository"]),
                    column("PORT", &["/record/port"]),
                    column("STABLE", &["/stable"]),
                    column("ROLLOUT", &["/rollout"]),
                    column("BACK TO", &["/rollback_to"]),
                ];
                lists::list(context, "/v1/environments", &columns, "no environments").await
            }
            Self::Show { id } => {
                let client = context.client()?;
                let item =
                    lists::find(&client, "/v1/environments", "environment", id.as_str()).await?;
                context.out().print(&item, || output::lines(&item))?;
                Ok(Exit::Done)
            }
        }
    }
}
