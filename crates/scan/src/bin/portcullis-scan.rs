//! The scanner alone, for hosts that need nothing else.
#![forbid(unsafe_code)]

use std::io::Write;

use clap::Parser;

/// Can an agent reach production here with no human in between?
#[derive(Debug, Parser)]
#[command(name = "portcullis-scan", version)]
struct Cli {
    #[command(flatten)]
    scan: portcullis_scan::command::ScanArgs,
}

fn main() {
    let cli = Cli::parse();
    let mut out = std::io::stdout().lock();
    let mut err = std::io::stderr().lock();
    let code = portcullis_scan::command::run(&cli.scan, &mut out, &mut err);
    let _ = out.flush();
    std::process::exit(code);
}
