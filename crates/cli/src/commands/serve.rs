//! `serve`: the server's role.

use portcullis_model::Refusal;
use portcullis_server::home::Home;
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::output;

/// Serves until it is told to stop (SIGINT, SIGTERM).
#[derive(Debug, clap::Args)]
pub(crate) struct Serve {}

impl Serve {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        log_to_stderr();
        let home = Home::new(context.home());
        let format = context.out();
        let mut unprinted = None;
        portcullis_server::serve::serve(home, |app| {
            let url = app.config.url();
            let size = app.ledger.size();
            let answer = json!({ "ready": true, "url": url, "entries": size });
            // Nobody reading is no reason not to serve; it is told at the end.
            unprinted = format
                .print_line(&answer, || format!("ready at {url}, {size} entries"))
                .err();
        })
        .await?;
        if let Some(refusal) = unprinted {
            output::note(&refusal.message);
        }
        Ok(Exit::Done)
    }
}

/// Log lines on standard error, as PORTCULLIS_LOG says (`info` unless it is set).
pub(crate) fn log_to_stderr() {
    use tracing_subscriber::EnvFilter;
    let filter =
        EnvFilter::try_from_env("PORTCULLIS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // A second subscriber is refused; then whoever set the first one listens.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .try_init();
}
