//! `builder`: the role that runs tests and builds, with its own key and, best, its own user.

use std::path::PathBuf;

use portcullis_model::{Refusal, ServiceId};
use portcullis_server::builder::{self, BuilderConfig};
use portcullis_server::home::Home;
use serde_json::json;

use crate::commands::serve::log_to_stderr;
use crate::context::Context;
use crate::exit::Exit;

/// Take jobs from the server and do them, each in a sandbox of its own
#[derive(Debug, clap::Args)]
pub(crate) struct Builder {
    /// End when there is nothing to do
    #[arg(long)]
    once: bool,
    /// As which service
    #[arg(long, value_name = "ID", default_value = "builder")]
    service: ServiceId,
    /// The service's key [default: keys/builder.key of --home]
    #[arg(long, value_name = "FILE")]
    service_key: Option<PathBuf>,
    /// Where the throw-away directories of jobs stand [default: builder in --home]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Pause between two questions for work, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 300)]
    poll_ms: u64,
    /// The user of jobs, for root [default: one of 63000 to 63999 for each]
    #[arg(long, value_name = "UID", value_parser = clap::value_parser!(u32).range(1..))]
    user: Option<u32>,
    /// What jobs see besides the system: rust, node, python, none, or a directory; may be repeated
    /// [default: whichever of the three is here]
    #[arg(long, value_name = "NAME|PATH")]
    toolchain: Vec<String>,
    /// A protection of the sandbox that may be missing on this machine; provenance names it
    #[arg(long, value_name = "NAME")]
    allow_gap: Vec<String>,
    /// Let jobs reach this machine itself where they declare it as a host: a local mirror, a test
    #[arg(long)]
    allow_loopback: bool,
}

impl Builder {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        log_to_stderr();
        let home = Home::new(context.home());
        let program = std::env::current_exe().map_err(|error| {
            Refusal::internal(format!("this program does not know where it is: {error}"))
        })?;
        let config = BuilderConfig {
            server: context.global.server.clone(),
            service: self.service,
            key: self.service_key.unwrap_or_else(|| home.key("builder")),
            work: self.work.unwrap_or_else(|| home.builder()),
            program,
            poll_ms: self.poll_ms,
            user: self.user,
            toolchains: self.toolchain,
            allowed_gaps: self.allow_gap.into_iter().collect(),
            allow_loopback: self.allow_loopback,
            once: self.once,
        };
        let finished = builder::run(config).await?;
        context
            .out()
            .print_line(&json!({ "finished": finished }), || {
                format!("{finished} jobs done")
            })?;
        Ok(Exit::Done)
    }
}
