//! Rollouts: watching, holding, taking back.

use clap::Subcommand;
use portcullis_model::statement::Command;
use portcullis_model::{Refusal, RolloutId};

use crate::commands::lists;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::column;
use crate::reason::Why;

/// Rollouts.
#[derive(Debug, Subcommand)]
pub(crate) enum RolloutCommand {
    /// List rollouts
    List,
    /// Show one rollout: steps, verdicts, evidence
    Show {
        /// Which
        #[arg(value_name = "ROLLOUT")]
        id: RolloutId,
    },
    /// Keep a rollout where it is
    Pause(Step),
    /// Let a paused rollout go on
    Resume(Step),
    /// Take a rollout back to stable
    Abort(Step),
}

/// A rollout and a reason.
#[derive(Debug, clap::Args)]
pub(crate) struct Step {
    /// Which
    #[arg(value_name = "ROLLOUT")]
    id: RolloutId,
    #[command(flatten)]
    why: Why,
}

impl RolloutCommand {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        match self {
            Self::List => {
                let columns = [
                    column("ROLLOUT", &["/id"]),
                    column("ENVIRONMENT", &["/environment"]),
                    column("STATUS", &["/status"]),
                    column("RELEASE", &["/release"]),
                    column("STABLE", &["/stable"]),
                    column("PER MILLE", &["/weight"]),
                ];
                lists::list(context, "/v1/rollouts", &columns, "no rollouts").await
            }
            Self::Show { id } => lists::show(context, &format!("/v1/rollouts/{id}")).await,
            Self::Pause(step) => {
                step.send(context, "is paused", |rollout, why| Command::PauseRollout {
                    rollout,
                    why,
                })
                .await
            }
            Self::Resume(step) => {
                step.send(context, "goes on", |rollout, why| Command::ResumeRollout {
                    rollout,
                    why,
                })
                .await
            }
            Self::Abort(step) => {
                step.send(context, "is taken back to stable", |rollout, why| {
                    Command::AbortRollout { rollout, why }
                })
                .await
            }
        }
    }
}

impl Step {
    async fn send(
        self,
        context: &Context,
        said: &str,
        command: impl FnOnce(RolloutId, portcullis_model::Digest) -> Command,
    ) -> Result<Exit, Refusal> {
        let client = context.client()?;
        let id = self.id;
        let answer = context
            .command_because(&client, &self.why.why, |why| command(id, why))
            .await?;
        lists::done(context, &answer, &format!("{id} {said}"))
    }
}
