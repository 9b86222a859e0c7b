//! Pipelines of other systems, as the same types as GitHub's: their jobs become jobs, their
//! scripts steps, their rules conditions, and what starts them events.

mod argo;
mod azure;
mod circleci;
mod gitlab;
mod jenkins;

use std::cell::Cell;

use crate::acts::Act;
use crate::bots::Bot;
use crate::expr::{self, Comparison, Expr, Value};
use crate::tree::Tree;
use crate::workflow::{
    Condition, Job, JobState, Library, Step, System, Trigger, Workflow, onsite, script_step,
};
use crate::yaml::{self, YamlError};

/// Which reader a file's name asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    GitHub,
    GitLab,
    Azure,
    CircleCi,
    Jenkins,
    Cluster,
}

fn kind(file: &str) -> Option<Kind> {
    if crate::repository::is_github_workflow(file) {
        return Some(Kind::GitHub);
    }
    let lower = file.to_ascii_lowercase();
    let name = lower.rsplit('/').next().unwrap_or_default();
    let yaml = name.ends_with(".yml") || name.ends_with(".yaml");
    if name.starts_with("jenkinsfile") || name.ends_with(".jenkinsfile") {
        return Some(Kind::Jenkins);
    }
    if !yaml || lower.starts_with(".github/") {
        return None;
    }
    if lower == ".gitlab-ci.yml" {
        Some(Kind::GitLab)
    } else if name.starts_with("azure-pipelines")
        || lower.starts_with(".azure-pipelines/")
        || lower.starts_with(".azuredevops/")
        || lower.starts_with(".azure/pipelines/")
    {
        Some(Kind::Azure)
    } else if lower == ".circleci/config.yml" || lower == ".circleci/config.yaml" {
        Some(Kind::CircleCi)
    } else if lower.starts_with(".gitlab")
        || lower.starts_with(".circleci/")
        || lower.starts_with(".mergify")
        || lower.starts_with(".claude/")
        || name.starts_with("action.")
        || name.starts_with(".goreleaser")
        || name.starts_with(".releaserc")
    {
        None
    } else {
        Some(Kind::Cluster)
    }
}

/// Whether a file holds a pipeline, by its name.
pub(crate) fn is_pipeline(file: &str) -> bool {
    kind(file).is_some()
}

/// Reads the pipelines of a file that is no GitHub workflow.
pub(crate) fn read(
    file: &str,
    text: &str,
    library: &Library<'_>,
) -> Result<Vec<Workflow>, YamlError> {
    let Some(tree) = library.tree() else {
        return Ok(Vec::new());
    };
    let left = Cell::new(WORK_MAX);
    let here = Here {
        tree,
        left: &left,
        slug: library.slug(),
    };
    let mut found = match kind(file) {
        Some(Kind::GitLab) => {
            gitlab::read(file, text, here).map(|found| found.into_iter().collect())
        }
        Some(Kind::Azure) => azure::read(file, text, here).map(|found| found.into_iter().collect()),
        Some(Kind::CircleCi) => circleci::read(file, text, here),
        Some(Kind::Jenkins) => Ok(jenkins::read(file, text, here).into_iter().collect()),
        Some(Kind::Cluster) => argo::read(file, text, here),
        Some(Kind::GitHub) | None => Ok(Vec::new()),
    }?;
    // Their runners may be machines of one's own.
    if matches!(kind(file), Some(Kind::GitLab | Kind::Azure | Kind::Jenkins)) {
        for one in &mut found {
            onsite::judge(&mut one.jobs, file, "", Some(tree), |_| {
                onsite::Ground::Perhaps
            });
        }
    }
    Ok(found)
}

/// Services that deploy a branch by themselves, from manifests in the repository.
pub(crate) fn servers(tree: &Tree, slug: Option<&str>) -> Vec<Bot> {
    tree.files()
        .iter()
        .filter(|file| kind(file) == Some(Kind::Cluster))
        .filter_map(|file| Some((file, tree.read(file).ok()?)))
        .filter(|(_, text)| text.contains("argoproj.io") || text.contains("fluxcd.io"))
        .filter_map(|(file, text)| Some((file, yaml::parse(&text).ok()?)))
        .flat_map(|(file, documents)| argo::servers(file, &documents, slug))
        .collect()
}

/// Most bytes of scripts, with what templates repeat of them, that one file stands for.
const WORK_MAX: usize = 8 * 1024 * 1024;
/// What a script or a template costs besides its text.
const WORK_EACH: usize = 1024;
/// Most parts of a condition that is put together; of the rest nothing is known.
const PARTS_MAX: usize = 200;

impl Here<'_> {
    /// Whether there is still room for a script or a template of so many bytes.
    fn takes(self, bytes: usize) -> bool {
        let left = self.left.get().checked_sub(bytes.saturating_add(WORK_EACH));
        self.left.set(left.unwrap_or_default());
        left.is_some()
    }
}

/// The repository that a pipeline stands in.
#[derive(Clone, Copy)]
struct Here<'a> {
    tree: &'a Tree,
    /// How much of scripts and templates the file may still stand for, in bytes.
    left: &'a Cell<usize>,
    /// As in [`crate::checkout::guess_slug`].
    slug: Option<&'a str>,
}

/// A job that is filled in.
struct Draft<'a> {
    job: Job,
    state: JobState,
    file: String,
    here: Here<'a>,
}

impl<'a> Draft<'a> {
    fn new(id: &str, line: usize, file: &str, here: Here<'a>) -> Self {
        Self {
            job: Job {
                id: id.to_owned(),
                name: None,
                line,
                needs: Vec::new(),
                after: Vec::new(),
                condition: None,
                environment: None,
                permissions: None,
                env: Vec::new(),
                steps: Vec::new(),
                call: None,
                outputs: Vec::new(),
                selects: None,
                manual: None,
            },
            state: JobState::new(here.slug),
            file: file.to_owned(),
            here,
        }
    }

    /// A script as a step.
    fn script(&mut self, text: &str, line: usize) {
        if !self.here.takes(text.len()) {
            return;
        }
        let mut step = Step {
            line,
            run: Some((text.to_owned(), line)),
            env: self.job.env.clone(),
            ..Step::default()
        };
        script_step(
            text,
            &self.file,
            line,
            None,
            self.here.tree,
            &mut self.state,
            &mut step,
        );
        self.job.steps.push(step);
    }

    /// Lines that one shell runs one after the other, each with the line that it stands at.
    fn shell(&mut self, parts: &[(&str, usize)]) {
        /// Most empty lines that stand in for what is between two parts.
        const GAP_MAX: usize = 5_000;
        /// Most lines of one shell.
        const LINES_MAX: usize = 5_000;
        /// Most pieces that a shell is read in; what comes behind is no longer told by its line.
        const PIECES_MAX: usize = 50;
        let mut pieces = 0;
        let mut text = String::new();
        let (mut start, mut at) = (0, 0);
        for (part, line) in parts.iter().take(LINES_MAX) {
            if text.is_empty() {
                (start, at) = (*line, *line);
            } else if !text.ends_with('\n') {
                text.push('\n');
                at += 1;
            }
            // What stands further up comes from elsewhere (`extends`): lines could not be told.
            let far = *line < at || line.saturating_sub(at) > GAP_MAX;
            if far && pieces < PIECES_MAX {
                pieces += 1;
                self.script(&text, start);
                text.clear();
                (start, at) = (*line, *line);
            }
            if !far {
                text.extend(std::iter::repeat_n('\n', line.saturating_sub(at)));
            }
            text.push_str(part);
            at = *line + part.matches('\n').count();
        }
        if !text.is_empty() {
            self.script(&text, start);
        }
    }

    fn act(&mut self, mut act: Act, line: usize) {
        act.line = line;
        self.file.clone_into(&mut act.file);
        self.job.steps.push(Step {
            line,
            acts: vec![act],
            ..Step::default()
        });
    }

    fn only_if(&mut self, expr: Option<Expr>, text: &str, line: usize) {
        self.job.condition = Some(Condition {
            text: text.to_owned(),
            line,
            expr,
        });
    }

    fn done(mut self) -> Job {
        if let Some(why) = self.state.local {
            crate::workflow::localise(&mut self.job.steps, why);
        }
        crate::workflow::heed_silence(&mut self.job.steps);
        self.job
    }
}

fn trigger(event: &str, line: usize) -> Trigger {
    Trigger {
        event: event.to_owned(),
        line,
        ..Trigger::default()
    }
}

fn workflow(
    system: System,
    file: &str,
    name: &str,
    triggers: Vec<Trigger>,
    jobs: Vec<Job>,
) -> Workflow {
    Workflow {
        system,
        file: file.to_owned(),
        name: name.to_owned(),
        triggers,
        permissions: None,
        env: Vec::new(),
        jobs,
    }
}

fn text(value: &str) -> Expr {
    Expr::Literal(Value::Text(value.to_owned()))
}

fn flag(yes: bool) -> Expr {
    Expr::Literal(Value::Bool(yes))
}

fn equals(path: &str, value: &str) -> Expr {
    Expr::Compare(
        Box::new(Expr::Path(path.to_owned())),
        Comparison::Equal,
        Box::new(text(value)),
    )
}

/// Any of some expressions.
fn any(parts: impl Iterator<Item = Expr>) -> Expr {
    let mut parts: Vec<Expr> = parts.take(PARTS_MAX + 1).collect();
    if parts.len() > PARTS_MAX {
        parts.truncate(PARTS_MAX);
        parts.push(Expr::Literal(Value::Open));
    }
    parts.into_iter().reduce(either).unwrap_or(flag(false))
}

fn both(left: Expr, right: Expr) -> Expr {
    Expr::Both(Box::new(left), Box::new(right))
}

fn either(left: Expr, right: Expr) -> Expr {
    Expr::Either(Box::new(left), Box::new(right))
}

fn not(inner: Expr) -> Expr {
    Expr::Not(Box::new(inner))
}

/// A condition on the branch by patterns, or on the tag.
fn branch_is(pattern: &str) -> Expr {
    if pattern.starts_with('/') {
        Expr::Compare(
            Box::new(Expr::Path("github.ref_name".to_owned())),
            Comparison::Matches,
            Box::new(text(pattern)),
        )
    } else if let Some(start) = pattern.strip_suffix('*') {
        Expr::Call(
            "startswith".to_owned(),
            vec![Expr::Path("github.ref_name".to_owned()), text(start)],
        )
    } else {
        equals("github.ref", &format!("refs/heads/{pattern}"))
    }
}

fn is_tag() -> Expr {
    equals("github.ref_type", "tag")
}

fn parse(text: &str) -> Option<Expr> {
    expr::parse(text)
}
