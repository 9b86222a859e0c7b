//! `portcullis proxy CONFIG.toml`: the data plane, as a role of this program.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use portcullis_model::Refusal;
use portcullis_proxy::ProxyConfig;
use portcullis_server::environments::log::{BoundedLog, LOG_MAX_BYTES};
use portcullis_server::environments::process;

use crate::exit::Exit;

/// Largest configuration in bytes.
const CONFIG_MAX_BYTES: u64 = 64 * 1024;

/// Serves two releases behind one address until it is told to stop.
#[derive(Debug, clap::Args)]
pub(crate) struct Proxy {
    /// `listen`, `control_socket`, `state_file` and optional `[limits]`.
    #[arg(value_name = "CONFIG.toml")]
    config: PathBuf,
    /// A file that is locked while it runs; where it is locked already there is nothing to do.
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// Where it logs, two files of at most 1 MiB; standard error if not given.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

impl Proxy {
    /// Runs it.
    pub(crate) async fn run(self) -> Result<Exit, Refusal> {
        let config = read(&self.config)?;
        let held = self.lock.as_deref().map(process::hold).transpose()?;
        if matches!(held, Some(None)) {
            // Another proxy has this place already: starting twice is starting once.
            return Ok(Exit::Done);
        }
        match &self.log {
            Some(log) => log_to(log),
            None => tracing_subscriber::fmt()
                .with_writer(std::io::stderr)
                .init(),
        }
        let served = portcullis_proxy::serve(config).await;
        if let Err(refusal) = &served {
            tracing::error!(
                error.code = refusal.code,
                "the proxy can't serve: {refusal}"
            );
        }
        drop(held);
        served.map(|()| Exit::Done)
    }
}

fn read(path: &Path) -> Result<ProxyConfig, Refusal> {
    let bytes = portcullis_server::home::Home::read(path, CONFIG_MAX_BYTES)?;
    let text = portcullis_server::app::text(&bytes)?;
    portcullis_model::document::from_toml("proxy config", &text)
}

/// Logs to a file that never outgrows its bound.
pub(super) fn log_to(path: &Path) {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(Mutex::new(BoundedLog::new(path, LOG_MAX_BYTES)))
        .init();
}
