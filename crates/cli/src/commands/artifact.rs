//! Artifacts: what builds made, with their evidence.

use std::path::PathBuf;

use clap::Subcommand;
use portcullis_model::{ArtifactId, EnvironmentId, Refusal};
use serde_json::json;

use crate::client::segment;
use crate::commands::lists;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::column;
use crate::progress;

/// Artifacts.
#[derive(Debug, Subcommand)]
pub(crate) enum ArtifactCommand {
    /// List artifacts
    List,
    /// Show one artifact
    Show {
        /// Which
        #[arg(value_name = "ARTIFACT")]
        id: ArtifactId,
    },
    /// Save the artifact's file
    Fetch {
        /// Which
        #[arg(value_name = "ARTIFACT")]
        id: ArtifactId,
        /// Where to; a new file
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Save everything that `portcullis verify` needs
    Bundle {
        /// Which
        #[arg(value_name = "ARTIFACT")]
        id: ArtifactId,
        /// Where to; a new file
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// With the proof of its admission to this environment
        #[arg(long, value_name = "ENV")]
        environment: Option<EnvironmentId>,
    },
}

impl ArtifactCommand {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        match self {
            Self::List => {
                let columns = [
                    column("ARTIFACT", &["/id"]),
                    column("NAME", &["/name"]),
                    column("REPOSITORY", &["/repository"]),
                    column("COMMIT", &["/commit"]),
                    column("DIGEST", &["/digest"]),
                ];
                lists::list(context, "/v1/artifacts", &columns, "no artifacts").await
            }
            Self::Show { id } => lists::show(context, &format!("/v1/artifacts/{id}")).await,
            Self::Fetch { id, to } => {
                save(
                    context,
                    &format!("/v1/artifacts/{id}/file"),
                    &to,
                    &id.to_string(),
                )
                .await
            }
            Self::Bundle {
                id,
                to,
                environment,
            } => {
                let query = environment
                    .map(|id| format!("?environment={}", segment(id.as_str())))
                    .unwrap_or_default();
                let path = format!("/v1/artifacts/{id}/bundle{query}");
                save(context, &path, &to, &format!("the evidence of {id}")).await
            }
        }
    }
}

async fn save(
    context: &Context,
    path: &str,
    to: &std::path::Path,
    what: &str,
) -> Result<Exit, Refusal> {
    let client = context.client()?;
    let (size, digest) = progress::during("downloading", client.download(path, to)).await?;
    let answer = json!({ "file": to.display().to_string(), "size": size, "digest": digest });
    context.out().print(&answer, || {
        format!("{what} is in {} ({size} bytes, {digest})", to.display())
    })?;
    Ok(Exit::Done)
}
