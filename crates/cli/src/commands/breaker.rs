//! The breaker: one gesture that stops what agents do.

use clap::Subcommand;
use portcullis_model::statement::{BreakerScope, Command};
use portcullis_model::{AgentId, EnvironmentId, Refusal, RepositoryId};
use serde_json::Value;

use crate::commands::lists;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, column};
use crate::reason::Why;

/// The breaker.
#[derive(Debug, Subcommand)]
pub(crate) enum BreakerCommand {
    /// Halt what agents do, at once; everywhere unless narrowed
    Trip {
        #[command(flatten)]
        scope: ScopeOptions,
        #[command(flatten)]
        why: Why,
        /// Revert finished releases of agents' work too
        #[arg(long)]
        revert: bool,
    },
    /// Ask for a breaker to be reset; takes the approvals that policy demands
    Reset {
        #[command(flatten)]
        scope: ScopeOptions,
        #[command(flatten)]
        why: Why,
    },
    /// Show what is halted
    Show,
}

/// What a breaker covers.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub(crate) struct ScopeOptions {
    /// Releases to one environment
    #[arg(long, value_name = "ENV")]
    env: Option<EnvironmentId>,
    /// One agent
    #[arg(long, value_name = "AGENT")]
    agent: Option<AgentId>,
    /// One repository
    #[arg(long, value_name = "REPOSITORY")]
    repo: Option<RepositoryId>,
}

impl ScopeOptions {
    fn scope(self) -> BreakerScope {
        match (self.env, self.agent, self.repo) {
            (Some(id), _, _) => BreakerScope::Environment(id),
            (None, Some(id), _) => BreakerScope::Agent(id),
            (None, None, Some(id)) => BreakerScope::Repository(id),
            (None, None, None) => BreakerScope::Everywhere,
        }
    }
}

impl BreakerCommand {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        let client = context.client()?;
        match self {
            Self::Trip { scope, why, revert } => {
                let scope = scope.scope();
                let said = format!("breaker tripped: {scope}");
                let answer = context
                    .command_because(&client, &why.why, |why| Command::TripBreaker {
                        scope,
                        why,
                        revert,
                    })
                    .await?;
                lists::done(context, &answer, &said)
            }
            Self::Reset { scope, why } => {
                let scope = scope.scope();
                let (done, waits) = (
                    format!("breaker reset: {scope}"),
                    format!("resetting the breaker {scope} waits for approval"),
                );
                let answer = context
                    .command_because(&client, &why.why, |why| Command::ResetBreaker {
                        scope,
                        why,
                    })
                    .await?;
                lists::asked(context, &answer, &done, &waits)
            }
            Self::Show => {
                let status: Value = client.get("/v1/status").await?;
                let tripped = status
                    .get("breakers")
                    .and_then(Value::as_array)
                    .cloned()
                    .unwrap_or_default();
                let columns = [
                    column("COVERS", &["/scope/kind"]),
                    column("WHICH", &["/scope/id"]),
                    column("SINCE", &["/time"]),
                    column("ENTRY", &["/index"]),
                    column("REVERTS", &["/revert"]),
                ];
                context.out().print(&tripped, || {
                    output::table(&tripped, &columns, "no breaker is tripped")
                })?;
                Ok(Exit::Done)
            }
        }
    }
}
