//! `witness`: the role that cosigns checkpoints of other people's logs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Subcommand;
use portcullis_evidence::note::KeyName;
use portcullis_evidence::tlog_proof::UnverifiedProof;
use portcullis_model::Refusal;
use portcullis_server::witness::{self, Witness};
use serde_json::json;
use tokio::net::TcpListener;

use crate::commands::serve::log_to_stderr;
use crate::context::Context;
use crate::exit::Exit;
use crate::task_file::read_bounded;

/// A witness of logs (c2sp.org/tlog-witness).
#[derive(Debug, Subcommand)]
pub(crate) enum WitnessCommand {
    /// Make a witness's directory: its key, its name, the list of logs that it watches
    Init {
        /// The new directory
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Its name, by custom a URL without its scheme, such as witness.example.com/w1
        #[arg(long)]
        name: KeyName,
    },
    /// Cosign checkpoints of the listed logs until it is told to stop
    Serve {
        /// Its directory
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Where it listens; plain HTTP, so put a TLS proxy before it unless it is for this machine
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7119")]
        listen: SocketAddr,
    },
    /// Print its key, for the operators of logs and for those who verify
    Key {
        /// Its directory
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Begin anew with a log that went on from an older copy of itself; while the witness does not run
    Restored {
        /// Its directory
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// The proof of the entry that says what is lost, as `portcullis ledger proof` writes it
        #[arg(value_name = "PROOF")]
        proof: PathBuf,
    },
}

impl WitnessCommand {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        match self {
            Self::Init { dir, name } => {
                let key = witness::init(&dir, &name)?;
                let logs = dir.join("logs").display().to_string();
                let answer = json!({ "key": key.to_string(), "logs": logs });
                context.out().print(&answer, || {
                    format!("{key}\n  next: write the keys of the logs to watch into {logs}")
                })?;
            }
            Self::Key { dir } => {
                let key = Witness::open(&dir)?.key().to_string();
                let answer = json!({ "key": key });
                context.out().print(&answer, || key.clone())?;
            }
            Self::Restored { dir, proof } => {
                let bytes = read_bounded(&proof, "proof file")?;
                let begun = witness::begin_anew(&dir, &UnverifiedProof::parse(&bytes)?)?;
                let aside = begun.aside.display().to_string();
                let answer = json!({
                    "origin": begun.origin, "entry": begun.entry, "seen": begun.seen,
                    "size": begun.size, "aside": aside,
                });
                context.out().print(&answer, || {
                    format!(
                        "{}: begins anew from {} entries, of which entry {} says what is lost; the checkpoint of {} entries that was cosigned is kept in {aside}",
                        begun.origin, begun.size, begun.entry, begun.seen
                    )
                })?;
            }
            Self::Serve { dir, listen } => serve(context, &dir, listen).await?,
        }
        Ok(Exit::Done)
    }
}

async fn serve(
    context: &Context,
    dir: &std::path::Path,
    listen: SocketAddr,
) -> Result<(), Refusal> {
    log_to_stderr();
    let stopped = portcullis_server::serve::stopped();
    let witness = Arc::new(Witness::open(dir)?);
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        Refusal::unavailable("address-taken", "the witness can't listen")
            .expected(&format!("{listen} free"))
            .received(&error.to_string())
            .next("name another address with --listen")
    })?;
    let at = listener.local_addr().unwrap_or(listen);
    let (key, logs) = (witness.key().to_string(), witness.logs());
    let answer = json!({ "ready": true, "url": format!("http://{at}"), "key": key, "logs": logs });
    context.out().print_line(&answer, || {
        format!("ready at http://{at}, watching {logs} logs as {key}")
    })?;
    let serving = tokio::spawn(witness::serve(witness, listener));
    stopped.await;
    serving.abort();
    Ok(())
}
