//! The proxy as a small binary of its own: `portcullis-proxy CONFIG.toml`.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use portcullis_model::Refusal;
use portcullis_proxy::ProxyConfig;

/// Exit code for wrong usage, as everywhere in Portcullis.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let (code, refusal) = match read_config() {
        Err(refusal) => (ExitCode::from(EXIT_USAGE), refusal),
        Ok(config) => match run(config) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(refusal) => (ExitCode::FAILURE, refusal),
        },
    };
    // Nothing is left to do if even this can't be said.
    drop(writeln!(std::io::stderr(), "{refusal}"));
    code
}

fn read_config() -> Result<ProxyConfig, Refusal> {
    let usage = || Refusal::malformed("command line").expected("portcullis-proxy CONFIG.toml");
    let mut arguments = std::env::args_os().skip(1);
    let path = arguments.next().ok_or_else(usage)?;
    if arguments.next().is_some() {
        return Err(usage());
    }
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Refusal::malformed("proxy file")
            .expected("a readable TOML file")
            .received(&format!("{}: {error}", path.to_string_lossy()))
    })?;
    toml::from_str(&text).map_err(|error| {
        Refusal::malformed("proxy file")
            .expected("`listen`, `control_socket`, `state_file` and optional `[limits]`")
            .received(error.message())
    })
}

fn run(config: ProxyConfig) -> Result<(), Refusal> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Refusal::unavailable(
                "proxy-runtime",
                format!("no threads can be started: {error}"),
            )
        })?
        .block_on(portcullis_proxy::serve(config))
}
