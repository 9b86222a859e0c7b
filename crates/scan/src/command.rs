//! The command line: `portcullis scan`, and the whole of `portcullis-scan`.
//!
//! Exit codes: 0 done · 1 failed · 2 wrong usage · 3 something that `--fail-on` names was found.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use portcullis_model::{Refusal, RefusalKind};

use crate::report::{Decision, Report, Severity};
use crate::settings::SETTINGS_BYTES_MAX;
use crate::{Options, Settings, render, scan};

/// Commits of the history that are read unless all are asked for: well under a second.
const HISTORY_COMMITS: u64 = 10_000;

/// Arguments of `scan`.
#[derive(Clone, Debug, clap::Args)]
pub struct ScanArgs {
    /// Directory of the checkout.
    #[arg(default_value = ".")]
    pub path: PathBuf,

    /// Further checkouts that belong to it: called workflows, dispatch targets. Repeatable.
    #[arg(long, value_name = "PATH")]
    pub with: Vec<PathBuf>,

    /// Exported forge settings as JSON; without them both answers are given.
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,

    /// Form of the output.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,

    /// Known findings, as written by --write-baseline; they no longer fail.
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,

    /// Writes the present findings as a baseline into a new file and ends.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["baseline", "write_inventory"])]
    pub write_baseline: Option<PathBuf>,

    /// What makes the exit code 3. Repeatable.
    #[arg(long, value_enum, value_name = "WHAT", default_values_t = [FailOn::Reachable])]
    pub fail_on: Vec<FailOn>,

    /// Proposes agent manifests from what was seen, into this directory; files there stay as they are.
    #[arg(long, value_name = "DIR")]
    pub write_inventory: Option<PathBuf>,

    /// Reads the whole git history for marks of agents; without it the newest 10,000 commits.
    #[arg(long)]
    pub history: bool,

    /// Reads no git history.
    #[arg(long, conflicts_with = "history")]
    pub no_history: bool,

    /// Prints the page of a rule (example, fix, reason) and ends.
    #[arg(long, value_name = "RULE")]
    pub explain: Option<String>,

    /// Shows the paths of cut and benign sinks too.
    #[arg(long, short)]
    pub verbose: bool,
}

/// Forms of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For a terminal.
    Text,
    /// The report as JSON.
    Json,
    /// SARIF 2.1.0 for code scanning.
    Sarif,
    /// One self-contained page.
    Html,
    /// The picture of the graph.
    Svg,
}

/// What makes the exit code 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FailOn {
    /// A sink is reachable without a person, under any assumption.
    Reachable,
    /// A sink is reachable even if the default branch is protected, or by the settings given.
    Protected,
    /// A sink depends on a fact that the scan doesn't know.
    Depends,
    /// A finding beside the paths is an error.
    Error,
    /// A finding beside the paths is a warning or worse.
    Warning,
    /// Nothing.
    None,
}

/// Runs the command and returns the exit code.
pub fn run(args: &ScanArgs, out: &mut dyn Write, err: &mut dyn Write) -> i32 {
    match perform(args, out, err) {
        Ok(code) => code,
        Err(refusal) => {
            let _ = writeln!(err, "error: {refusal}");
            match refusal.kind {
                RefusalKind::Malformed => 2,
                RefusalKind::Denied
                | RefusalKind::NeedsApproval
                | RefusalKind::NotFound
                | RefusalKind::Conflict
                | RefusalKind::Limit
                | RefusalKind::Unavailable
                | RefusalKind::Internal => 1,
            }
        }
    }
}

fn perform(args: &ScanArgs, out: &mut dyn Write, err: &mut dyn Write) -> Result<i32, Refusal> {
    if let Some(rule) = &args.explain {
        let page = crate::rules::page(rule).ok_or_else(|| unknown_rule(rule))?;
        print(out, page)?;
        return Ok(0);
    }
    let settings = match &args.settings {
        Some(path) => Settings::parse(&read_bounded(path)?)?,
        None => Vec::new(),
    };
    let baseline = match &args.baseline {
        Some(path) => Some(crate::baseline::Baseline::parse(&read_bounded(path)?)?),
        None => None,
    };
    let options = Options {
        path: args.path.clone(),
        with: args.with.clone(),
        settings,
        history_commits: match (args.history, args.no_history) {
            (true, _) => u64::MAX,
            (false, true) => 0,
            (false, false) => HISTORY_COMMITS,
        },
    };
    let mut report = scan(&options)?;
    if args.settings.is_some() {
        heard(&options.settings, &report)?;
    }
    if let Some(baseline) = &baseline {
        baseline.mark(&mut report);
    }
    if let Some(path) = &args.write_baseline {
        let text = crate::baseline::Baseline::of(&report).render();
        write_new(path, &text)?;
        let _ = writeln!(err, "wrote {}", path.display());
        return Ok(0);
    }
    if let Some(directory) = &args.write_inventory {
        for (name, text) in crate::inventory::propose(&report) {
            let path = directory.join(&name);
            if path.exists() {
                let _ = writeln!(err, "{} stands and stays as it is", path.display());
                continue;
            }
            std::fs::create_dir_all(directory).map_err(|error| cannot_write(directory, &error))?;
            write_new(&path, &text)?;
            let _ = writeln!(err, "wrote {}", path.display());
        }
        return Ok(0);
    }
    let text = match args.output {
        Output::Text => {
            let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            render::text::render(
                &report,
                render::text::Style {
                    color,
                    verbose: args.verbose,
                },
            )
        }
        Output::Json => render::json::render(&report),
        Output::Sarif => render::sarif::render(&report),
        Output::Html => render::html::render(&report),
        Output::Svg => render::svg::render(&report),
    };
    print(out, &text)?;
    Ok(if fails(&report, &args.fail_on) { 3 } else { 0 })
}

/// Refuses settings that speak of none of the repositories: an answer that ignores them would look
/// like one that used them.
fn heard(settings: &[Settings], report: &Report) -> Result<(), Refusal> {
    let names: Vec<&str> = report
        .repositories
        .iter()
        .map(|one| one.name.as_deref().unwrap_or("(no origin remote)"))
        .collect();
    let speaks = |one: &Settings| match &one.repository {
        None => true,
        Some(name) => names.iter().any(|known| known.eq_ignore_ascii_case(name)),
    };
    if settings.iter().any(speaks) {
        return Ok(());
    }
    let given: Vec<&str> = settings
        .iter()
        .filter_map(|one| one.repository.as_deref())
        .collect();
    Err(Refusal::new(
        RefusalKind::Malformed,
        "settings-of-others",
        "the settings speak of none of the repositories that were scanned",
    )
    .expected(&names.join(", "))
    .received(&if given.is_empty() {
        "an empty list".to_owned()
    } else {
        given.join(", ")
    })
    .next("set `repository` to the checkout's name, or leave it out for the first path"))
}

fn print(out: &mut dyn Write, text: &str) -> Result<(), Refusal> {
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        // Whoever reads no further (`| head`) has seen enough; the exit code still tells.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| {
            Refusal::unavailable(
                "output-failed",
                format!("the report could not be written: {error}"),
            )
        }),
    }
}

fn unknown_rule(rule: &str) -> Refusal {
    let ids: Vec<&str> = crate::rules::PAGES.iter().map(|(id, _)| *id).collect();
    Refusal::malformed("rule")
        .expected(&ids.join(", "))
        .received(rule)
}

/// Whether the report holds something that `--fail-on` names and no baseline knows.
pub fn fails(report: &Report, fail_on: &[FailOn]) -> bool {
    fail_on.iter().any(|what| match what {
        FailOn::Reachable => report
            .verdicts()
            .any(|verdict| !verdict.known && verdict.verdict == Decision::Reachable),
        FailOn::Protected => report.verdicts().any(|verdict| {
            !verdict.known
                && verdict.verdict == Decision::Reachable
                && verdict.assumption != crate::report::Assumption::Unprotected
        }),
        FailOn::Depends => report
            .verdicts()
            .any(|verdict| !verdict.known && verdict.verdict == Decision::Depends),
        FailOn::Error => worst(report, Severity::Error),
        FailOn::Warning => worst(report, Severity::Warning),
        FailOn::None => false,
    })
}

fn worst(report: &Report, at_least: Severity) -> bool {
    report
        .repositories
        .iter()
        .flat_map(|repository| &repository.findings)
        .any(|finding| !finding.known && finding.severity >= at_least)
}

fn read_bounded(path: &Path) -> Result<String, Refusal> {
    let unreadable = |error: &std::io::Error| {
        Refusal::new(
            RefusalKind::NotFound,
            "file-unreadable",
            format!("{} can't be read", path.display()),
        )
        .received(&error.to_string())
        .next("name a file that exists")
    };
    let file = std::fs::File::open(path).map_err(|error| unreadable(&error))?;
    let mut text = String::new();
    let read = file
        .take(SETTINGS_BYTES_MAX as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|error| unreadable(&error))?;
    if read > SETTINGS_BYTES_MAX {
        return Err(
            Refusal::limit("file-too-large", format!("{} is too large", path.display()))
                .expected(&format!("at most {SETTINGS_BYTES_MAX} bytes")),
        );
    }
    Ok(text)
}

fn write_new(path: &Path, text: &str) -> Result<(), Refusal> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| cannot_write(path, &error))?;
    file.write_all(text.as_bytes())
        .map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Refusal {
    Refusal::conflict(
        "file-not-written",
        format!("{} was not written", path.display()),
    )
    .expected("a path that does not exist yet in a directory that may be written")
    .received(&error.to_string())
}
