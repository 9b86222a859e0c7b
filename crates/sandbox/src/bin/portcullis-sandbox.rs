//! The launcher alone, for hosts that only launch and for trying a machine out:
//! `portcullis-sandbox doctor`, `portcullis-sandbox run WORKSPACE -- COMMAND…`.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use portcullis_model::Refusal;
use portcullis_sandbox::{Spec, Terminal, helper_main, probe, rust_toolchain, spawn};

const USAGE: &str =
    "usage: portcullis-sandbox doctor\n       portcullis-sandbox run WORKSPACE -- COMMAND…\n";

fn main() -> ExitCode {
    helper_main();
    let mut words = std::env::args_os().skip(1);
    let result = match words.next().as_deref().and_then(|word| word.to_str()) {
        Some("doctor") => doctor(),
        Some("run") => run(words.collect()),
        Some(_) | None => {
            let _ = std::io::stderr().write_all(USAGE.as_bytes());
            return ExitCode::from(2);
        }
    };
    result.unwrap_or_else(|refusal| {
        let _ = writeln!(std::io::stderr(), "{refusal}");
        ExitCode::from(1)
    })
}

fn doctor() -> Result<ExitCode, Refusal> {
    let mut out = std::io::stdout();
    let mut complete = true;
    for result in probe()? {
        let mark = if result.available { "yes" } else { "no " };
        let _ = writeln!(
            out,
            "{mark}  {:<18} {}",
            result.protection.name(),
            result.why
        );
        if let Some(mend) = result.how_to_mend {
            let _ = writeln!(out, "     {mend}");
            complete = false;
        }
    }
    Ok(ExitCode::from(if complete { 0 } else { 3 }))
}

fn run(words: Vec<OsString>) -> Result<ExitCode, Refusal> {
    let mut words = words.into_iter();
    let workspace = words.next().unwrap_or_default();
    let command: Vec<OsString> = words.skip_while(|word| word == "--").collect();
    let mut spec = Spec::new(workspace, command);
    spec.terminal = Terminal::Inherit;
    if let Some(home) = std::env::var_os("HOME") {
        spec.add_toolchain(rust_toolchain(home.as_ref()));
    }
    Ok(ExitCode::from(spawn(&spec)?.wait()?.exit_code()))
}
