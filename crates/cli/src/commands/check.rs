//! `check`: the rules on a diff, without a server, for any CI.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use portcullis_checks::analyse::{Configuration, Context as ChecksContext, Level, Report, analyse};
use portcullis_checks::diff::{DIFF_ARGUMENTS, DIFF_MAX_BYTES, parse};
use portcullis_checks::sarif;
use portcullis_model::limits::DOCUMENT_MAX_BYTES;
use portcullis_model::{GitOid, Refusal, RepositoryId, Scope};

use crate::context::Context;
use crate::exit::Exit;
use crate::task_file::{TaskFile, write_file};
use crate::{git, output};

/// Where a repository configures its checks; read from the base, never from the head.
const CONFIGURATION: &str = ".portcullis/checks.toml";

/// Checks a diff.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// The task whose scope the diff must keep to; its signature is not checked here
    #[arg(long, value_name = "FILE")]
    task: Option<PathBuf>,
    /// Which of the task's repositories this is, if it has several
    #[arg(long, value_name = "REPOSITORY", requires = "task")]
    repository: Option<RepositoryId>,
    /// Where the change begins
    #[arg(long, value_name = "REV")]
    base: String,
    /// Where it ends
    #[arg(long, value_name = "REV")]
    head: String,
    /// The findings that make this command fail
    #[arg(long, value_enum, default_value_t)]
    fail_on: FailOn,
    /// Write the findings as SARIF 2.1.0 too
    #[arg(long, value_name = "FILE")]
    sarif: Option<PathBuf>,
}

/// The findings that make the command fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOn {
    /// Those that block
    #[default]
    Block,
    /// Those that a human must look at too
    Escalate,
}

impl Check {
    /// Runs it in the current directory's repository.
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Refusal> {
        let here = Path::new(".");
        let scope = self.scope()?;
        let base = git::commit(here, &self.base)?;
        let head = git::commit(here, &self.head)?;
        let mut arguments = DIFF_ARGUMENTS.to_vec();
        arguments.extend([base.as_str(), head.as_str(), "--"]);
        let diff = parse(&git::run(here, &arguments, DIFF_MAX_BYTES as u64)?)?;
        let report = analyse(&diff, scope.as_ref(), &configuration(here, &base)?);
        if let Some(path) = &self.sarif {
            let log = sarif::report_log(&report, env!("CARGO_PKG_VERSION"));
            write_file(path, format!("{log:#}\n").as_bytes(), true)?;
        }
        context.out().print(&report, || {
            describe(&report, diff.files.len(), diff.line_count())
        })?;
        Ok(match (report.verdict, self.fail_on) {
            (Level::Block, _) | (Level::Escalate, FailOn::Escalate) => Exit::Denied,
            (Level::Pass, _) | (Level::Escalate, FailOn::Block) => Exit::Done,
        })
    }

    fn scope(&self) -> Result<Option<Scope>, Refusal> {
        let Some(path) = &self.task else {
            return Ok(None);
        };
        let task = TaskFile::read(path)?.task()?;
        let names = || {
            task.targets
                .iter()
                .map(|target| target.repository.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let target = match (&self.repository, task.targets.as_slice()) {
            (Some(repository), _) => task.target(repository),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        target
            .map(|target| Some(target.scope.clone()))
            .ok_or_else(|| {
                Refusal::malformed("repository")
                    .expected(&format!("--repository, one of {}", names()))
                    .received(
                        &self
                            .repository
                            .as_ref()
                            .map_or_else(|| "nothing".to_owned(), ToString::to_string),
                    )
            })
    }
}

/// The checks' configuration as the base has it. A base without one has the standard checks.
fn configuration(folder: &Path, base: &GitOid) -> Result<ChecksContext, Refusal> {
    let listed = git::line(
        folder,
        &["ls-tree", "--name-only", base.as_str(), "--", CONFIGURATION],
    )?;
    if listed.is_empty() {
        return ChecksContext::new(Configuration::default());
    }
    let blob = format!("{base}:{CONFIGURATION}");
    let bytes = git::run(
        folder,
        &["cat-file", "blob", &blob],
        DOCUMENT_MAX_BYTES as u64,
    )?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Refusal::malformed("checks configuration").expected("UTF-8 text"))?;
    ChecksContext::new(portcullis_model::document::from_toml(
        "checks configuration",
        &text,
    )?)
}

fn describe(report: &Report, files: usize, lines: u64) -> String {
    let mut out = String::new();
    for finding in &report.findings {
        let level = match finding.level {
            Level::Pass => "pass",
            Level::Escalate => "escalate",
            Level::Block => "BLOCK",
        };
        let place = match (&finding.path, finding.line) {
            (Some(path), Some(line)) => format!("{path}:{line}"),
            (Some(path), None) => path.clone(),
            (None, _) => "the change".to_owned(),
        };
        out.push_str(&format!(
            "{level:<8} {}  {}\n         {}\n         next: {}\n",
            finding.rule,
            output::clean_line(&place),
            output::clean_line(&finding.message),
            output::clean_line(&finding.next)
        ));
    }
    if report.omitted > 0 {
        out.push_str(&format!("and {} more findings\n", report.omitted));
    }
    let verdict = match report.verdict {
        Level::Pass => "pass: nothing to see",
        Level::Escalate => "escalate: a human must look",
        Level::Block => "block: this can't land",
    };
    out.push_str(&format!("{files} files, {lines} lines: {verdict}"));
    out
}
