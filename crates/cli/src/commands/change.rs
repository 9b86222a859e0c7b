//! Changes: what is proposed, and why it waits.

use clap::Subcommand;
use portcullis_model::statement::Command;
use portcullis_model::{ChangeId, Refusal};
use serde_json::Value;

use crate::client::Client;
use crate::commands::lists;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, column};
use crate::reason::Why;

/// Changes.
#[derive(Debug, Subcommand)]
pub(crate) enum ChangeCommand {
    /// List changes
    List {
        /// Only those that are open
        #[arg(long)]
        open: bool,
    },
    /// Show one change: revisions, checks, tests, party
    Show {
        /// Which
        #[arg(value_name = "CHANGE")]
        id: ChangeId,
    },
    /// Show its newest revision's diff, control characters made visible
    Diff {
        /// Which
        #[arg(value_name = "CHANGE")]
        id: ChangeId,
    },
    /// Say what it waits for, and by which rule
    Explain {
        /// Which
        #[arg(value_name = "CHANGE")]
        id: ChangeId,
    },
    /// Withdraw a change
    Close {
        /// Which
        #[arg(value_name = "CHANGE")]
        id: ChangeId,
        #[command(flatten)]
        why: Why,
    },
}

impl ChangeCommand {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        let client = context.client()?;
        match self {
            Self::List { open } => {
                let columns = [
                    column("CHANGE", &["/id"]),
                    column("STATUS", &["/status"]),
                    column("REPOSITORY", &["/repository"]),
                    column("BRANCH", &["/branch"]),
                    column("REVISION", &["/revision"]),
                    column("CHECKS", &["/checks/verdict"]),
                    column("TESTS", &["/tests/verdict"]),
                    column("REQUEST", &["/request"]),
                    column("PARTY", &["/party"]),
                ];
                let path = if open {
                    "/v1/changes?open=true"
                } else {
                    "/v1/changes"
                };
                lists::list(context, path, &columns, "no changes").await
            }
            Self::Show { id } => lists::show(context, &format!("/v1/changes/{id}")).await,
            Self::Diff { id } => {
                let diff = client.text(&format!("/v1/changes/{id}/diff")).await?;
                let answer = serde_json::json!({ "change": id, "diff": diff });
                context.out().print(&answer, || output::clean(&diff))?;
                Ok(Exit::Done)
            }
            Self::Explain { id } => explain(context, &client, id).await,
            Self::Close { id, why } => {
                let answer = context
                    .command_because(&client, &why.why, |why| Command::CloseChange {
                        change: id,
                        why,
                    })
                    .await?;
                lists::done(context, &answer, &format!("{id} is closed"))
            }
        }
    }
}

/// What the change waits for, and the request that asks people, if one does.
async fn explain(context: &Context, client: &Client, id: ChangeId) -> Result<Exit, Refusal> {
    let change: Value = client.get(&format!("/v1/changes/{id}")).await?;
    let text = |pointer: &str| {
        change
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let waits = text("/explain");
    let request = change
        .get("request")
        .and_then(Value::as_str)
        .filter(|_| text("/status") == "open");
    let request: Option<Value> = match request {
        Some(request) => Some(
            client
                .get(&format!("/v1/requests/{}", crate::client::segment(request)))
                .await?,
        ),
        None => None,
    };
    let answer = serde_json::json!({
        "change": id, "status": text("/status"), "waits": waits, "request": request,
        "checks": change.get("checks_report"),
    });
    context.out().print(&answer, || {
        let mut out = format!("{id}: {}\n", output::clean(waits));
        if let Some(request) = &request {
            let because = request
                .get("because")
                .map(output::lines)
                .unwrap_or_default();
            if !because.is_empty() {
                out.push_str("asked by:\n");
                out.push_str(&because);
            }
            let name = request
                .get("id")
                .and_then(Value::as_str)
                .map(output::clean_line);
            let name = name.unwrap_or_default();
            out.push_str(&format!(
                "next: portcullis request show {name}, then portcullis approve {name} or \
                 portcullis reject {name} --why TEXT\n"
            ));
        }
        if let Some(Value::Array(findings)) = change.pointer("/checks_report/findings")
            && !findings.is_empty()
        {
            out.push_str("findings:\n");
            out.push_str(&output::lines(&Value::Array(findings.clone())));
        }
        out
    })?;
    Ok(Exit::Done)
}
