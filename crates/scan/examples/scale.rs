//! Time and memory over repositories with 10,000 and 100,000 files and with 10,000, 100,000 and
//! 1,000,000 commits, to see whether they stay flat.
//!
//! `cargo build --release -p portcullis-scan && cargo run --release -p portcullis-scan --example
//! scale` makes the repositories with `git fast-import` in a temporary directory (about 1 GB for
//! the largest), scans each with the release binary, and prints what the kernel says of the
//! scanner and of the git that it starts.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it prints its measurement")]

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn main() -> std::io::Result<()> {
    let program = std::env::current_exe()?
        .parent()
        .and_then(Path::parent)
        .map(|folder| folder.join("portcullis-scan"))
        .filter(|program| program.exists())
        .ok_or_else(|| {
            std::io::Error::other(
                "build the release binary first: cargo build --release -p portcullis-scan",
            )
        })?;
    let home = std::env::temp_dir().join(format!("portcullis-scale-{}", std::process::id()));
    println!(
        "{:>9} {:>9}  {:<12} {:>7} {:>12} {:>12}",
        "files", "commits", "history", "time", "scanner", "git"
    );
    for (files, commits) in [
        (10_000, 10_000),
        (100_000, 10_000),
        (1_000, 100_000),
        (1_000, 1_000_000),
    ] {
        let root = home.join(format!("f{files}c{commits}"));
        make(&root, files, commits)?;
        for option in ["--no-history", "", "--history"] {
            let seen = measure(&program, &root, option)?;
            let name = if option.is_empty() {
                "newest 10k"
            } else {
                option
            };
            println!(
                "{files:>9} {commits:>9}  {name:<12} {:>5.2} s {:>8} KiB {:>8} KiB",
                seen.took.as_secs_f64(),
                seen.scanner_kib,
                seen.git_kib
            );
        }
        std::fs::remove_dir_all(&root)?;
    }
    std::fs::remove_dir_all(&home)
}

/// A repository with so many files (one of them a workflow) and so many commits.
fn make(root: &PathBuf, files: usize, commits: usize) -> std::io::Result<()> {
    std::fs::create_dir_all(root)?;
    let git = |arguments: &[&str]| -> std::io::Result<()> {
        let status = Command::new("git")
            .arg("-C")
            .arg(root)
            .args(arguments)
            .status()?;
        if status.success() {
            Ok(())
        } else {
            Err(std::io::Error::other(format!("git {arguments:?} failed")))
        }
    };
    git(&["init", "--quiet", "--initial-branch=main"])?;
    let mut import = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(input) = import.stdin.take() {
        let mut input = BufWriter::new(input);
        for number in 0..commits {
            let message = match number % 50 {
                0 => format!("Mend {number}\n\nCo-Authored-By: Claude <noreply@anthropic.com>\n"),
                1 => format!("Merge pull request #{number} from acme/codex/fix-{number}\n"),
                2 => format!("Mend part {number} (#{number})\n"),
                _ => format!(
                    "Change {number}\n\nWhy this was needed, in a sentence or two,\nas people write it.\n"
                ),
            };
            write!(
                input,
                "commit refs/heads/main\ncommitter Ann <ann@example.org> {} +0000\ndata {}\n{message}\n",
                1_600_000_000 + number,
                message.len()
            )?;
            if number == 0 {
                file(&mut input, ".github/workflows/publish.yml", WORKFLOW)?;
                for index in 0..files {
                    file(
                        &mut input,
                        &format!("src/d{}/f{index}.txt", index / 100),
                        "x\n",
                    )?;
                }
            }
        }
    }
    if !import.wait()?.success() {
        return Err(std::io::Error::other("git fast-import failed"));
    }
    git(&["reset", "--quiet", "--hard"])
}

fn file(out: &mut impl Write, name: &str, text: &str) -> std::io::Result<()> {
    write!(out, "M 100644 inline {name}\ndata {}\n{text}\n", text.len())
}

const WORKFLOW: &str = "on:\n  schedule:\n    - cron: '0 3 * * *'\njobs:\n  p:\n    runs-on: ubuntu-latest\n    steps:\n      - run: npm publish\n";

struct Seen {
    took: Duration,
    scanner_kib: u64,
    git_kib: u64,
}

fn measure(program: &Path, root: &Path, option: &str) -> std::io::Result<Seen> {
    /// How often the kernel is asked: peaks are kept by it, so only the end must not be missed.
    const PAUSE: Duration = Duration::from_millis(2);
    let mut command = Command::new(program);
    command.arg(root);
    if !option.is_empty() {
        command.arg(option);
    }
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn()?;
    let (mut scanner_kib, mut git_kib) = (0, 0);
    while child.try_wait()?.is_none() {
        let pid = child.id();
        scanner_kib = scanner_kib.max(peak_kib(pid));
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for git in children
            .split_whitespace()
            .filter_map(|text| text.parse().ok())
        {
            git_kib = git_kib.max(peak_kib(git));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(Seen {
        took: start.elapsed(),
        scanner_kib,
        git_kib,
    })
}

/// The most memory that a process held so far.
fn peak_kib(pid: u32) -> u64 {
    std::fs::read_to_string(format!("/proc/{pid}/status"))
        .ok()
        .and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("VmHWM:"))
                .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        })
        .unwrap_or(0)
}
