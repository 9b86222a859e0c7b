//! The command line.

use std::io::Write;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct ScanArgs {
    /// The checkout to scan.
    pub path: std::path::PathBuf,
}

/// Runs the command.
pub fn run(args: &ScanArgs, out: &mut dyn Write, err: &mut dyn Write) -> i32 {
    let options = crate::Options {
        path: args.path.clone(),
        ..Default::default()
    };
    match crate::scan(&options) {
        Ok(report) => i32::from(write!(out, "{}", crate::render::json::render(&report)).is_err()),
        Err(refusal) => {
            let _ = writeln!(err, "{refusal}");
            1
        }
    }
}
