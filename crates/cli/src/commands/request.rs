//! Requests to people, and saying no.

use clap::Subcommand;
use portcullis_model::statement::Command;
use portcullis_model::{Refusal, RequestId};
use serde_json::Value;

use crate::commands::lists;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, column};
use crate::reason::Why;

/// Requests.
#[derive(Debug, Subcommand)]
pub(crate) enum RequestCommand {
    /// List requests
    List {
        /// Those that are closed too
        #[arg(long)]
        all: bool,
    },
    /// Show all that a reviewer needs to decide
    Show {
        /// Which
        #[arg(value_name = "REQUEST")]
        id: RequestId,
    },
}

/// Says no to a request.
#[derive(Debug, clap::Args)]
pub(crate) struct Reject {
    /// To which
    #[arg(value_name = "REQUEST")]
    request: RequestId,
    #[command(flatten)]
    why: Why,
}

impl RequestCommand {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        match self {
            Self::List { all } => {
                let columns = [
                    column("REQUEST", &["/id"]),
                    column("STATUS", &["/status"]),
                    column("APPROVALS", &["/approvals"]),
                    column("OF", &["/needed/humans"]),
                    column("EXPIRES", &["/expires"]),
                    column("ASKS", &["/summary"]),
                ];
                let path = if all {
                    "/v1/requests"
                } else {
                    "/v1/requests?open=true"
                };
                lists::list(context, path, &columns, "nothing waits for people").await
            }
            Self::Show { id } => {
                let request: Value = context.client()?.get(&format!("/v1/requests/{id}")).await?;
                context.out().print(&request, || {
                    match request.get("text").and_then(Value::as_str) {
                        Some(text) => output::clean(text),
                        None => output::lines(&request),
                    }
                })?;
                Ok(Exit::Done)
            }
        }
    }
}

impl Reject {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        let client = context.client()?;
        let request = self.request;
        let answer = context
            .command_because(&client, &self.why.why, |why| Command::Reject {
                request,
                why,
            })
            .await?;
        lists::done(context, &answer, &format!("{request} is rejected"))
    }
}
