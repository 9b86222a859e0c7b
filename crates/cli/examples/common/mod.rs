//! What the benchmarks have in common.

use std::error::Error;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// Gives git somebody to be, and no configuration of this machine.
pub(crate) fn identity(command: &mut Command) -> &mut Command {
    for (name, value) in [("NAME", "Ada"), ("EMAIL", "ada@example.com")] {
        command.env(format!("GIT_AUTHOR_{name}"), value);
        command.env(format!("GIT_COMMITTER_{name}"), value);
    }
    command
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
}

/// Runs git in a folder.
pub(crate) fn git(folder: &Path, arguments: &[&str]) -> Outcome<()> {
    done(identity(
        Command::new("git").args(arguments).current_dir(folder),
    ))
    .map(|_| ())
}

/// Runs a command to its end; what it printed.
pub(crate) fn done(command: &mut Command) -> Outcome<String> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}\n{error}").into())
}

/// A port that nobody listens at.
pub(crate) fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The processor, and how busy it is.
pub(crate) fn machine() -> String {
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1))
        .unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("{model}, {cores} cores, load before: {}", load.trim())
}
