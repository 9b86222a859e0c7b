//! Policies: checked, tested, explained and compared here; activated by a signed proposal.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use portcullis_model::manifest::{Activation, PolicyFiles};
use portcullis_model::{Digest, Refusal};
use portcullis_policy::testing::{self, RuleChange};
use portcullis_policy::{PolicyFile, PolicySet};
use serde::Deserialize;
use serde_json::json;

use crate::commands::inventory;
use crate::context::Context;
use crate::exit::Exit;
use crate::output;
use crate::reason::Reason;
use crate::task_file::{read_bounded, read_text};

/// Most files in a folder of policies: each is read whenever a policy is checked.
const FILES_MAX: usize = 256;

/// Policies.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Say whether the policies of a folder load, and what is wrong where
    Check {
        /// The folder [default: policy in the server's directory]
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
    /// Run the folder's tests (*.tests.toml)
    Test {
        /// The folder [default: policy in the server's directory]
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
    /// Tell rule by rule how a request is decided
    Explain {
        /// A test file (*.tests.toml) that has the request as a fixture
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Which of its fixtures [default: all]
        #[arg(long, value_name = "NAME")]
        fixture: Option<String>,
        /// The policies' folder [default: policy in the server's directory]
        #[arg(long, value_name = "DIR")]
        policy: Option<PathBuf>,
    },
    /// Say which rules differ from those in force
    Diff {
        /// The folder [default: policy in the server's directory]
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
        /// Compare with another folder, not with the server
        #[arg(long, value_name = "DIR")]
        with: Option<PathBuf>,
    },
    /// Propose the policies of a folder; in force once enough administrators approved
    Activate {
        /// The folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Why
        #[arg(long, value_name = "TEXT")]
        why: Reason,
    },
}

#[derive(Deserialize)]
struct InForce {
    files: BTreeMap<String, InForceFile>,
}

#[derive(Deserialize)]
struct InForceFile {
    text: String,
}

impl PolicyCommand {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        match self {
            Self::Check { folder } => check(context, &at(context, folder)),
            Self::Test { folder } => test(context, &at(context, folder)),
            Self::Explain {
                file,
                fixture,
                policy,
            } => explain(context, &file, fixture.as_deref(), &at(context, policy)),
            Self::Diff { folder, with } => diff(context, &at(context, folder), with).await,
            Self::Activate { folder, why } => activate(context, &folder, &why).await,
        }
    }
}

fn at(context: &Context, folder: Option<PathBuf>) -> PathBuf {
    folder.unwrap_or_else(|| context.home().join("policy"))
}

fn check(context: &Context, folder: &Path) -> Result<Exit, Refusal> {
    let files = read(folder, ".cedar")?;
    match PolicySet::check(&files, &[]) {
        Ok(set) => {
            let rules = set.rules().count();
            let answer = json!({ "digest": set.digest(), "files": set.files(), "rules": rules });
            context.out().print(&answer, || {
                format!(
                    "{} files, {rules} rules with the base: they load\ndigest {}",
                    files.len(),
                    set.digest()
                )
            })?;
            Ok(Exit::Done)
        }
        Err(problems) => {
            let answer = json!({ "problems": problems });
            context.out().print(&answer, || {
                let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                output::clean(&lines.join("\n"))
            })?;
            Ok(Exit::Denied)
        }
    }
}

fn test(context: &Context, folder: &Path) -> Result<Exit, Refusal> {
    let set = PolicySet::load(&read(folder, ".cedar")?, &[])?;
    let tests = read(folder, ".tests.toml")?;
    if tests.is_empty() {
        return Err(
            Refusal::not_found("policy test", format!("in {}", folder.display()))
                .expected("files that end in .tests.toml"),
        );
    }
    let report = testing::run_tests(&set, &tests)?;
    let failed = report.failed().count();
    context.out().print(&report, || {
        let mut lines: Vec<String> = report.outcomes.iter().map(ToString::to_string).collect();
        lines.push(format!("{} tests, {failed} failed", report.outcomes.len()));
        output::clean(&lines.join("\n"))
    })?;
    Ok(if failed == 0 {
        Exit::Done
    } else {
        Exit::Failed
    })
}

fn explain(
    context: &Context,
    file: &Path,
    fixture: Option<&str>,
    folder: &Path,
) -> Result<Exit, Refusal> {
    let set = PolicySet::load(&read(folder, ".cedar")?, &[])?;
    let name = file.display().to_string();
    let requests = testing::fixtures(&PolicyFile::new(name, read_text(file, "policy test file")?))?;
    let stories: BTreeMap<&String, String> = requests
        .iter()
        .filter(|(name, _)| fixture.is_none_or(|wanted| wanted == *name))
        .map(|(name, request)| (name, portcullis_policy::explain(&set, request)))
        .collect();
    if let (true, Some(wanted)) = (stories.is_empty(), fixture) {
        let refusal = Refusal::not_found("fixture", wanted);
        let names = requests.keys().map(String::as_str);
        return Err(match portcullis_model::document::nearest(wanted, names) {
            Some(near) => refusal.next(format!("did you mean `{near}`?")),
            None => refusal,
        });
    }
    context.out().print(&stories, || {
        let told: Vec<String> = stories
            .iter()
            .map(|(name, story)| format!("{name}\n{story}"))
            .collect();
        output::clean(&told.join("\n"))
    })?;
    Ok(Exit::Done)
}

async fn diff(context: &Context, folder: &Path, with: Option<PathBuf>) -> Result<Exit, Refusal> {
    let new = PolicySet::load(&read(folder, ".cedar")?, &[])?;
    let old = match with {
        Some(with) => read(&with, ".cedar")?,
        None => {
            let in_force: InForce = context.client()?.get("/v1/policy").await?;
            in_force
                .files
                .into_iter()
                .map(|(name, file)| PolicyFile::new(name, file.text))
                .collect()
        }
    };
    let old = PolicySet::load(&old, &[])?;
    let changes: Vec<RuleChange> = testing::diff(&old, &new);
    context.out().print(&changes, || {
        if changes.is_empty() {
            return "no rule differs".to_owned();
        }
        let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
        output::clean(&lines.join("\n"))
    })?;
    Ok(Exit::Done)
}

async fn activate(context: &Context, folder: &Path, why: &Reason) -> Result<Exit, Refusal> {
    let files = read(folder, ".cedar")?;
    let set = PolicySet::load(&files, &[])?;
    let record = PolicyFiles {
        digest: set.digest(),
        files: files
            .iter()
            .map(|file| (file.name.clone(), Digest::of(file.text.as_bytes())))
            .collect(),
    };
    let texts = files.into_iter().map(|file| file.text).collect();
    let activation = Activation::Policy(record);
    let subject = activation.subject();
    inventory::propose(context, activation, why, texts, &subject).await
}

/// The files of a folder whose name ends so, by name.
fn read(folder: &Path, suffix: &str) -> Result<Vec<PolicyFile>, Refusal> {
    let unreadable = |error: std::io::Error| {
        Refusal::new(
            portcullis_model::RefusalKind::NotFound,
            "policy-unreadable",
            format!("{} can't be read", folder.display()),
        )
        .received(&error.to_string())
        .next("name the folder, or the server's directory with --home")
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if !name.ends_with(suffix) {
            continue;
        }
        if files.len() >= FILES_MAX {
            return Err(
                Refusal::limit("policy-too-many-files", "too many policy files")
                    .expected(&format!("at most {FILES_MAX} in {}", folder.display())),
            );
        }
        let text = String::from_utf8(read_bounded(&path, "policy file")?).map_err(|_| {
            Refusal::malformed("policy file")
                .expected("UTF-8 text")
                .received(name)
        })?;
        files.push(PolicyFile::new(name, text));
    }
    files.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(files)
}
