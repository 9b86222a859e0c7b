//! Running one command and telling how it ended.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::workspace;

/// How a step ended; the text says what went wrong.
pub(crate) type Outcome = Result<(), String>;

/// The cargo that runs us, in the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace::root());
    command
}

/// Runs a command with nothing on its standard input.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let shown = show(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("`{shown}` did not start: {error}"))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("`{shown}` ended with {status}"))
}

/// Runs `cargo test`, passes its output on, and repeats its summary lines at the end, since it
/// prints one per test binary.
pub(crate) fn run_and_sum(command: &mut Command) -> Outcome {
    let shown = show(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("`{shown}` did not start: {error}"))?;
    let mut summaries = Vec::new();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line.map_err(|error| format!("`{shown}`: {error}"))?;
            println!("{line}");
            if line.starts_with("test result:") {
                summaries.push(line);
            }
        }
    }
    let status = child
        .wait()
        .map_err(|error| format!("`{shown}`: {error}"))?;
    let sum = |word: &str| {
        summaries
            .iter()
            .map(|line| number_before(line, word))
            .sum::<u64>()
    };
    for line in &summaries {
        println!("{line}");
    }
    println!(
        "Summary: {} passed, {} failed, {} ignored in {} test binaries",
        sum("passed"),
        sum("failed"),
        sum("ignored"),
        summaries.len()
    );
    if status.success() {
        return Ok(());
    }
    Err(format!("`{shown}` ended with {status}"))
}

/// Prints findings, and fails if there are any.
pub(crate) fn report(findings: Result<Vec<String>, String>) -> Outcome {
    let findings = findings?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        1 => Err("1 finding".to_owned()),
        many => Err(format!("{many} findings")),
    }
}

/// The command as one would type it.
pub(crate) fn show(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The number that stands before `word;` in a summary line of the test harness.
fn number_before(line: &str, word: &str) -> u64 {
    line.split([';', '.'])
        .filter_map(|part| part.trim().strip_suffix(word))
        .find_map(|part| part.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_harness_summary_is_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(number_before(line, "passed"), 12);
        assert_eq!(number_before(line, "failed"), 3);
        assert_eq!(number_before(line, "ignored"), 1);
        assert_eq!(number_before("nothing of the kind", "passed"), 0);
    }

    #[test]
    fn a_failing_command_and_a_missing_one_fail() {
        let refused = run(cargo().arg("no-such-subcommand-of-cargo")).unwrap_err();
        assert!(refused.contains("no-such-subcommand-of-cargo"), "{refused}");
        let missing = run(&mut Command::new("portcullis-no-such-program")).unwrap_err();
        assert!(missing.contains("did not start"), "{missing}");
    }

    #[test]
    fn findings_fail() {
        report(Ok(Vec::new())).unwrap();
        assert_eq!(report(Ok(vec!["a".into()])).unwrap_err(), "1 finding");
        assert!(report(Err("unreadable".into())).is_err());
    }
}
