//! `scan`: the scanner's own command line, as part of this program.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args as _, Parser};
use portcullis_model::{Refusal, RefusalKind};
use portcullis_scan::command::ScanArgs;

/// `portcullis scan …` and nothing else.
#[derive(Debug, Parser)]
#[command(name = "portcullis", bin_name = "portcullis", version)]
enum Scanner {
    #[command(about = "Find the ways an agent reaches production here; needs no server", long_about = None)]
    Scan(ScanArgs),
}

/// Reads a command line whose first word is `scan`.
pub(crate) fn parse(arguments: Vec<OsString>) -> ScanArgs {
    let Scanner::Scan(arguments) = Scanner::parse_from(arguments);
    arguments
}

/// The scanner's options, for help and completions.
pub(crate) fn augment(command: clap::Command) -> clap::Command {
    // The scanner's arguments say what they are, not what the command is for.
    let about = command.get_about().cloned().unwrap_or_default();
    ScanArgs::augment_args(command)
        .about(about)
        .long_about(None)
}

/// Runs the scanner.
pub(crate) fn run(arguments: &ScanArgs) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let mut err = std::io::stderr().lock();
    let code = portcullis_scan::command::run(arguments, &mut out, &mut err);
    let _ = out.flush();
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Options of other commands stood before `scan`.
pub(crate) fn misplaced() -> Refusal {
    Refusal::new(
        RefusalKind::Malformed,
        "misplaced-options",
        "the options of `scan` stand after it, and it takes no others",
    )
    .expected("portcullis scan [OPTIONS] [PATH]")
    .next("portcullis scan --help")
}
