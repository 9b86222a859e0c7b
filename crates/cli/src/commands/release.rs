//! Releases: asking for them, revoking them, going back.

use clap::Subcommand;
use portcullis_model::statement::Command;
use portcullis_model::{ArtifactId, EnvironmentId, Refusal, ReleaseId};
use serde_json::Value;

use crate::commands::lists;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, column};
use crate::reason::Why;

/// Releases.
#[derive(Debug, Subcommand)]
pub(crate) enum ReleaseCommand {
    /// List releases
    List,
    /// Show one release
    Show {
        /// Which
        #[arg(value_name = "RELEASE")]
        id: ReleaseId,
    },
    /// Ask for an artifact to run in an environment
    New {
        /// What
        #[arg(value_name = "ARTIFACT")]
        artifact: ArtifactId,
        /// Where
        #[arg(long, value_name = "ENV")]
        environment: EnvironmentId,
    },
    /// Revoke a release: nothing returns to it any more
    Revoke {
        /// Which
        #[arg(value_name = "RELEASE")]
        id: ReleaseId,
        #[command(flatten)]
        why: Why,
    },
}

/// Returns an environment to an admitted release.
#[derive(Debug, clap::Args)]
pub(crate) struct Rollback {
    /// Which environment
    #[arg(value_name = "ENV")]
    environment: EnvironmentId,
    /// To which release [default: the one before]
    #[arg(long, value_name = "RELEASE")]
    to: Option<ReleaseId>,
    #[command(flatten)]
    why: Why,
}

impl ReleaseCommand {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        let client = context.client()?;
        match self {
            Self::List => {
                let columns = [
                    column("RELEASE", &["/id"]),
                    column("ENVIRONMENT", &["/environment"]),
                    column("ARTIFACT", &["/artifact"]),
                    column("AGENT WORK", &["/agent_work"]),
                    column("COMPLETED", &["/completed"]),
                    column("REVOKED", &["/revoked"]),
                ];
                lists::list(context, "/v1/releases", &columns, "no releases").await
            }
            Self::Show { id } => {
                let item = lists::find(&client, "/v1/releases", "release", &id.to_string()).await?;
                context.out().print(&item, || output::lines(&item))?;
                Ok(Exit::Done)
            }
            Self::New {
                artifact,
                environment,
            } => {
                let command = Command::Release {
                    artifact,
                    environment: environment.clone(),
                };
                let answer = context.command(&client, command, Vec::new()).await?;
                let release = answer
                    .get("release")
                    .and_then(Value::as_str)
                    .unwrap_or("a release");
                lists::asked(
                    context,
                    &answer,
                    &format!(
                        "{artifact} is admitted to {environment} as {}",
                        output::clean_line(release)
                    ),
                    &format!("{artifact} waits for approval to run in {environment}"),
                )
            }
            Self::Revoke { id, why } => {
                let answer = context
                    .command_because(&client, &why.why, |why| Command::RevokeRelease {
                        release: id,
                        why,
                    })
                    .await?;
                lists::done(context, &answer, &format!("{id} is revoked"))
            }
        }
    }
}

impl Rollback {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        let client = context.client()?;
        let environment = self.environment.clone();
        let answer = context
            .command_because(&client, &self.why.why, |why| Command::Rollback {
                environment: self.environment,
                to: self.to,
                why,
            })
            .await?;
        let to = self
            .to
            .map_or_else(|| "the release before".to_owned(), |to| to.to_string());
        lists::done(
            context,
            &answer,
            &format!("{environment} is returned to {to}"),
        )
    }
}
