//! The `portcullis` binary: one program, one role a command.
//!
//! [`commands`] holds the commands, each in a short file: parse, ask or tell the server, print.
//! Nothing is decided here. What a person signs is made and signed in this process ([`signing`],
//! [`context`]), so that no key and no right ever stands at the server.
#![forbid(unsafe_code)]

mod client;
mod commands;
mod context;
mod exit;
mod git;
mod log_reader;
mod output;
mod progress;
mod random;
mod reason;
mod sentence;
mod signing;
mod task_file;
mod time;

use std::process::ExitCode;

use commands::Parsed;
use output::Format;

fn main() -> ExitCode {
    // First of all: before any thread, this program may have been started as the sandbox's helper.
    portcullis_sandbox::helper_main();
    let (format, result) = match commands::parse() {
        Ok(Parsed::Scan(arguments)) => return commands::scan::run(&arguments),
        Ok(Parsed::Cli(cli)) => (cli.global.output, commands::run(*cli)),
        Err(refusal) => (Format::Text, Err(refusal)),
    };
    match result {
        Ok(exit) => exit.code(),
        Err(refusal) => {
            output::print_refusal(format, &refusal);
            exit::Exit::of(&refusal).code()
        }
    }
}
