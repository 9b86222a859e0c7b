//! What a scan says, as values. The JSON output is exactly this.

use serde::{Deserialize, Serialize};

pub use crate::acts::SinkKind;
pub use crate::engine::Assumption;

/// Version of the JSON output; a change that breaks readers raises it.
pub const REPORT_VERSION: u32 = 1;

/// A whole scan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT_VERSION`].
    pub version: u32,
    /// Version of the scanner.
    pub scanner: String,
    /// One per path given.
    pub repositories: Vec<RepositoryReport>,
}

/// One repository.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RepositoryReport {
    /// The path that was given.
    pub path: String,
    /// `owner/name`, where git's remote or the settings tell.
    pub name: Option<String>,
    /// The default branch, read or guessed.
    pub default_branch: String,
    /// One verdict per sink and assumption.
    pub verdicts: Vec<Verdict>,
    /// Facts that were taken for granted, by assumption.
    pub assumed: Vec<Assumed>,
    /// How approvals are given here.
    pub approvals: Vec<Approval>,
    /// Agents in the pipelines and the worst each could do.
    pub agents: Vec<AgentReport>,
    /// What else is wrong, beside the paths.
    pub findings: Vec<Finding>,
    /// The smallest edits that put a person back on every path.
    pub remedies: Vec<Remedy>,
    /// Agents seen in the history; absent when it was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<HistoryReport>,
    /// Agents and bots that files of the repository name.
    pub declared: Vec<String>,
    /// Pipelines that were read.
    pub pipelines: usize,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

/// The answer for one sink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The sink in a few words.
    pub sink: String,
    /// Its kind.
    pub kind: SinkKind,
    /// Under which settings.
    pub assumption: Assumption,
    /// The answer.
    pub verdict: Decision,
    /// The shortest way, or the part of it that leads to the person or the fact.
    pub path: Vec<PathStep>,
    /// For `cut`: the person's edge.
    pub cut_by: Option<String>,
    /// For `depends`: the one fact that decides. For `benign`: why.
    pub decided_by: Option<String>,
    /// Where the sink stands; empty for the default branch.
    pub file: String,
    /// Its line; 0 without a file.
    pub line: usize,
    /// Stable name for baselines.
    pub fingerprint: String,
    /// Whether a baseline knows it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub known: bool,
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStep {
    /// File, relative to the repository; empty where the step is no file's doing.
    pub file: String,
    /// Line, from 1; 0 without a file.
    pub line: usize,
    /// Who acts.
    pub actor: String,
    /// With which credential.
    pub credential: String,
    /// Which event this is or makes.
    pub event: String,
    /// Why it can happen.
    pub why: String,
    /// The source line, shortened; empty without a file, or where it holds a credential.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub excerpt: String,
}

/// The four answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Automation gets there and no person decides.
    Reachable,
    /// A fact outside the files decides.
    Depends,
    /// A person decides.
    Cut,
    /// It is not production, or nothing starts it.
    Benign,
}

impl Decision {
    /// The word that the reports use.
    pub fn word(self) -> &'static str {
        match self {
            Self::Reachable => "reachable",
            Self::Depends => "depends",
            Self::Cut => "cut",
            Self::Benign => "benign",
        }
    }
}

/// Facts taken for granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assumed {
    /// Under which assumption.
    pub assumption: Assumption,
    /// The facts, as sentences.
    pub facts: Vec<String>,
}

/// Who an approval really comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApprovalClass {
    /// A person.
    Human,
    /// Automation approves.
    Bot,
    /// A label, a comment or a file that the one who wants it can set.
    SelfAttested,
    /// Anyone can pretend to it.
    Forgeable,
}

/// One approval mechanism.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Its class.
    pub class: ApprovalClass,
    /// What it is.
    pub what: String,
    /// Where.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
}

/// An agent in the pipelines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentReport {
    /// Product.
    pub name: String,
    /// Where it runs.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// With which credentials.
    pub credentials: Vec<String>,
    /// Whether any account can give it a task.
    pub open_to_anyone: bool,
    /// The worst it could do here, in one sentence.
    pub blast_radius: String,
}

/// How bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Should change.
    Warning,
    /// Must change.
    Error,
}

impl Severity {
    /// The word that the reports use; the levels of SARIF.
    pub fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Something beside the paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Rule, as in `docs/scan/rules`.
    pub rule: String,
    /// How bad.
    pub severity: Severity,
    /// Where.
    pub file: String,
    /// Line, from 1; 0 for the whole file.
    pub line: usize,
    /// What, in a sentence.
    pub message: String,
    /// Stable name for baselines.
    pub fingerprint: String,
    /// Whether a baseline knows it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub known: bool,
}

/// An edit or a setting that puts a person back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remedy {
    /// What to do, in a sentence.
    pub what: String,
    /// Which sinks it takes off the list, as fingerprints.
    pub cuts: Vec<String>,
    /// A unified diff, where it is a file's business.
    pub patch: Option<String>,
    /// A setting of the forge, where it is not.
    pub setting: Option<String>,
    /// Whether the scan of the patched tree shows that the paths are gone.
    pub verified: bool,
}

/// What the history says about agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryReport {
    /// Commits that were read.
    pub commits: u64,
    /// Pull requests that merge commits and squashed subjects tell of.
    #[serde(default)]
    pub pull_requests: u64,
    /// Whether the reading stopped at its bound.
    pub truncated: bool,
    /// Agents by their marks.
    pub agents: Vec<HistoryAgent>,
    /// What such marks can't show.
    pub caution: String,
}

/// An agent by its marks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryAgent {
    /// Product.
    pub name: String,
    /// Whether the pipelines or agent files of the repository name it.
    pub declared: bool,
    /// Commits with a mark.
    pub commits: u64,
    /// Share of all commits, in thousandths.
    pub share_per_mille: u32,
    /// Pull requests that its marks or branches tell of.
    #[serde(default)]
    pub pull_requests: u64,
    /// Share of all pull requests told, in thousandths.
    #[serde(default)]
    pub pull_requests_share_per_mille: u32,
    /// Kinds of marks: `author`, `trailer`, `branch`, `body`.
    pub marks: Vec<String>,
    /// A commit as an example.
    pub example: String,
}

/// What could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// File; empty for the repository.
    pub file: String,
    /// Line, from 1; 0 for the whole file.
    pub line: usize,
    /// Why, in words.
    pub message: String,
}

impl Report {
    /// Verdicts of all repositories.
    pub fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        self.repositories
            .iter()
            .flat_map(|repository| &repository.verdicts)
    }
}
