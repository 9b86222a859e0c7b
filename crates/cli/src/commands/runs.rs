//! Runs that are, and were.

use clap::Subcommand;
use portcullis_model::event::LeaseKind;
use portcullis_model::statement::{CheckpointRef, Command, ResumeWay};
use portcullis_model::{Refusal, RunId};
use serde_json::Value;

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
    /// Let a run go on that stands still: as it was, or with less; a person approves it
    Resume {
        /// Which
        #[arg(value_name = "RUN")]
        id: RunId,
        /// What it is no longer lent: git:REPOSITORY, endpoint:NAME, host:NAME:PORT or
        /// tunnel:NAME:PORT; may be
        /// repeated
        #[arg(long, value_name = "LEASE", value_parser = lease)]
        without: Vec<LeaseKind>,
        /// End it this long from now at the latest
        #[arg(long, value_name = "DURATION", value_parser = portcullis_model::time::parse_duration_ms)]
        at_most: Option<u64>,
        /// Wind its workspace back to this checkpoint first
        #[arg(long, value_name = "N")]
        rewind_to: Option<u64>,
        #[command(flatten)]
        why: Why,
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
                    column("STANDS STILL", &["/frozen/since"]),
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
            Self::Resume {
                id,
                without,
                at_most,
                rewind_to,
                why,
            } => {
                let client = context.client()?;
                let checkpoint = match rewind_to {
                    Some(number) => {
                        let run: Value = client.get(&format!("/v1/runs/{id}")).await?;
                        Some(checkpoint(&run, id, number)?)
                    }
                    None => None,
                };
                let way = ResumeWay {
                    without: without.into_iter().collect(),
                    deadline: at_most.map(|ms| crate::time::now().plus_ms(ms)),
                    checkpoint,
                };
                let said = format!("{id} may go on {way}, once it is approved");
                let answer = context
                    .command_because(&client, &why.why, |why| Command::ResumeRun {
                        run: id,
                        way,
                        why,
                    })
                    .await?;
                lists::asked(context, &answer, &said, &said)
            }
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

/// A lease by its kind and name.
fn lease(text: &str) -> Result<LeaseKind, Refusal> {
    let wrong = || {
        Refusal::malformed("lease")
            .expected("git:REPOSITORY, endpoint:NAME, host:NAME:PORT or tunnel:NAME:PORT")
            .received(text)
            .next("`portcullis runs show RUN` lists what a run is lent")
    };
    let (kind, name) = text.split_once(':').ok_or_else(wrong)?;
    match kind {
        "git" => name.parse().map(LeaseKind::Git),
        "endpoint" => name.parse().map(LeaseKind::Endpoint),
        "host" => Ok(LeaseKind::Host(name.to_owned())),
        "tunnel" => Ok(LeaseKind::Tunnel(name.to_owned())),
        _ => Err(wrong()),
    }
}

/// The checkpoint of that number, as the server knows it.
fn checkpoint(run: &Value, id: RunId, number: u64) -> Result<CheckpointRef, Refusal> {
    let known: Vec<CheckpointRef> = run
        .get("checkpoints")
        .cloned()
        .and_then(|list| serde_json::from_value(list).ok())
        .unwrap_or_default();
    known
        .iter()
        .find(|point| point.number == number)
        .copied()
        .ok_or_else(|| {
            let numbers: Vec<String> = known.iter().map(|point| point.number.to_string()).collect();
            Refusal::not_found("checkpoint", format!("{number} of {id}"))
                .expected(&numbers.join(", "))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_named_by_kind() {
        assert_eq!(
            lease("git:shop").unwrap(),
            LeaseKind::Git("shop".parse().unwrap())
        );
        assert_eq!(
            lease("host:crates.io:443").unwrap(),
            LeaseKind::Host("crates.io:443".to_owned())
        );
        for bad in ["shop", "identity:", "git:", "disk:x"] {
            assert!(lease(bad).is_err(), "{bad}");
        }
    }
}
