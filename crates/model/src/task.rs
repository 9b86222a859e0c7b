//! What a human orders, and what it may touch.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::canonical;
use crate::digest::{Digest, GitOid};
use crate::id::{AgentId, ChangeId, EndpointId, HumanId, RepositoryId, TaskId};
use crate::limits::{SCOPE_MAX_PATTERNS, TASK_MAX_LIFE_MS, TITLE_MAX_BYTES};
use crate::principal::Containment;
use crate::refusal::Refusal;
use crate::time::Timestamp;

/// The signed payload of a task. Its canonical bytes are what the human signs; their digest is the
/// [`TaskId`]. Title and text stand beside it in the task file and are bound by digest, so that the
/// ledger never holds them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Format version: 1.
    pub version: u32,
    /// Origin of the ledger it is meant for; worthless to any other.
    pub origin: String,
    /// Digest of the canonical [`TaskText`].
    pub text: Digest,
    /// Where the order comes from, if from a ticket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Who shall do it.
    pub agent: AgentId,
    /// Where, from which commit, within which scope. At least one, each repository once.
    pub targets: Vec<Target>,
    /// Whether the changes in all its repositories land together or not at all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub together: bool,
    /// What it may use besides git.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// How much it may use.
    #[serde(default)]
    pub budgets: Budgets,
    /// In which windows its runs work.
    #[serde(default, skip_serializing_if = "Windows::is_default")]
    pub windows: Windows,
    /// The least containment it may run under.
    pub containment: Containment,
    /// Protections that may be missing on the host, by the name that `doctor` prints.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub allowed_gaps: BTreeSet<String>,
    /// The change that it continues, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<ChangeId>,
    /// Not before this time.
    pub not_before: Timestamp,
    /// Not at or after this time.
    pub expires: Timestamp,
    /// 16 random bytes in hex; a nonce counts once.
    pub nonce: String,
    /// Who signs.
    pub signer: HumanId,
}

/// What a person reads of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskText {
    /// One line.
    pub title: String,
    /// The order itself; may be empty when the title says it all.
    #[serde(default)]
    pub text: String,
}

/// The ticket that a task comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Where it stands: a `file:` or `https:` URI.
    pub uri: String,
    /// SHA-256 of the ticket's bytes when the task was signed.
    pub digest: Digest,
}

/// One repository that a task works on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Which repository.
    pub repository: RepositoryId,
    /// The branch that the change is for, without `refs/heads/`.
    pub branch: String,
    /// The commit that the run starts from.
    pub base: GitOid,
    /// What may be touched.
    pub scope: Scope,
}

/// What a task may touch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Path globs allowed (`*` stays within a directory, `**` does not). Empty allows nothing.
    pub allow: Vec<String>,
    /// Path globs denied; they win.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// Most files changed.
    #[serde(default = "default_max_files")]
    pub max_files: u64,
    /// Most lines added and removed, together.
    #[serde(default = "default_max_lines")]
    pub max_lines: u64,
    /// Kinds of operation allowed.
    #[serde(default = "default_operations")]
    pub operations: BTreeSet<Operation>,
}

const fn default_max_files() -> u64 {
    100
}

const fn default_max_lines() -> u64 {
    5_000
}

fn default_operations() -> BTreeSet<Operation> {
    [
        Operation::Add,
        Operation::Modify,
        Operation::Delete,
        Operation::Rename,
    ]
    .into()
}

impl Scope {
    /// A scope over these paths with the default bounds.
    pub fn over(paths: &[String]) -> Self {
        Self {
            allow: paths.to_vec(),
            deny: Vec::new(),
            max_files: default_max_files(),
            max_lines: default_max_lines(),
            operations: default_operations(),
        }
    }
}

/// A kind of operation on files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// A new file.
    Add,
    /// Other content.
    Modify,
    /// A file removed.
    Delete,
    /// A file moved.
    Rename,
    /// The executable bit set or cleared.
    Mode,
    /// A symbolic link added or changed.
    Symlink,
    /// A submodule added or changed.
    Submodule,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "add",
            Self::Modify => "modify",
            Self::Delete => "delete",
            Self::Rename => "rename",
            Self::Mode => "mode",
            Self::Symlink => "symlink",
            Self::Submodule => "submodule",
        })
    }
}

/// What a run may use besides git.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// Declared model endpoints that it may call.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub endpoints: BTreeSet<EndpointId>,
    /// Hosts that it may reach, as `name:port`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub hosts: BTreeSet<String>,
    /// Those of `hosts` whose answers the signer trusts: reading from them leaves no taint.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub trusted: BTreeSet<String>,
    /// Hosts, as `name:port`, to which bytes may pass unread, whatever is spoken.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tunnels: BTreeSet<String>,
    /// Path globs of files of the task's repositories whose content must not leave, not even to a
    /// model.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub kept: BTreeSet<String>,
}

impl Capabilities {
    fn validate(&self) -> Result<(), Refusal> {
        self.hosts
            .iter()
            .chain(&self.tunnels)
            .try_for_each(|host| check_host_port(host))?;
        if let Some(other) = self.trusted.difference(&self.hosts).next() {
            return Err(Refusal::malformed("trusted host")
                .expected("one of the hosts that the task lets be reached")
                .received(other));
        }
        if self.kept.len() > SCOPE_MAX_PATTERNS {
            return Err(
                Refusal::limit("kept-too-long", "too many patterns say what must stay")
                    .expected(&format!("at most {SCOPE_MAX_PATTERNS}"))
                    .received(&self.kept.len().to_string()),
            );
        }
        self.kept
            .iter()
            .try_for_each(|pattern| check_pattern(pattern))
    }
}

/// How much a run may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    /// Runs that may be started under the task.
    #[serde(default = "default_runs")]
    pub runs: u64,
    /// Wall time of one run in milliseconds.
    #[serde(default = "default_wall_ms")]
    pub wall_ms: u64,
    /// Accepted pushes of one run.
    #[serde(default = "default_pushes")]
    pub pushes: u64,
    /// Calls to model endpoints and hosts of one run.
    #[serde(default = "default_calls")]
    pub calls: u64,
    /// Denials after which a run is ended: an agent that does not stop asking is not working.
    #[serde(default = "default_denials")]
    pub denials: u64,
}

const fn default_runs() -> u64 {
    1
}
const fn default_wall_ms() -> u64 {
    3_600_000
}
const fn default_pushes() -> u64 {
    50
}
const fn default_calls() -> u64 {
    10_000
}
const fn default_denials() -> u64 {
    100
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            runs: default_runs(),
            wall_ms: default_wall_ms(),
            pushes: default_pushes(),
            calls: default_calls(),
            denials: default_denials(),
        }
    }
}

/// The windows of a run: at the end of each, what it did is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Windows {
    /// Length of one in milliseconds.
    #[serde(default = "default_window_ms")]
    pub length_ms: u64,
    /// Whether the run stands still at the end of each until a person lets it go on.
    #[serde(default)]
    pub ask: bool,
}

/// Five minutes: long enough for work, short enough to step in.
const fn default_window_ms() -> u64 {
    300_000
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            length_ms: default_window_ms(),
            ask: false,
        }
    }
}

impl Windows {
    /// Shortest window in milliseconds: below, looking at a run would be most of what happens.
    pub const LEAST_MS: u64 = 1_000;
    /// Longest window in milliseconds (one day).
    pub const MOST_MS: u64 = 86_400_000;

    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    fn validate(&self) -> Result<(), Refusal> {
        if (Self::LEAST_MS..=Self::MOST_MS).contains(&self.length_ms) {
            return Ok(());
        }
        Err(Refusal::malformed("task window length")
            .expected("1 second to 1 day")
            .received(&format!("{} ms", self.length_ms)))
    }
}

impl Task {
    /// The format version that this code writes.
    pub const VERSION: u32 = 1;
    /// The payload type of its envelope.
    pub const PAYLOAD_TYPE: &str = "application/vnd.portcullis.task.v1+json";

    /// The id: the digest of the canonical bytes.
    ///
    /// # Errors
    /// It does not serialise.
    pub fn id(&self) -> Result<TaskId, Refusal> {
        Ok(TaskId(Digest::of(&canonical::to_vec(self)?)))
    }

    /// The target in `repository`, if the task has one.
    pub fn target(&self, repository: &RepositoryId) -> Option<&Target> {
        self.targets
            .iter()
            .find(|target| target.repository == *repository)
    }

    /// Checks what can be checked without any state: version, sizes, bounds, patterns, times.
    ///
    /// # Errors
    /// The first thing that is wrong, with what was expected.
    pub fn validate(&self) -> Result<(), Refusal> {
        if self.version != Self::VERSION {
            return Err(Refusal::malformed("task version")
                .expected(&Self::VERSION.to_string())
                .received(&self.version.to_string()));
        }
        if self.nonce.len() != 32 || crate::digest::decode_hex(&self.nonce).is_none() {
            return Err(Refusal::malformed("task nonce")
                .expected("16 random bytes as 32 lowercase hex digits")
                .received(&self.nonce));
        }
        if self.expires <= self.not_before
            || self.expires.ms_since(self.not_before) > TASK_MAX_LIFE_MS
        {
            return Err(Refusal::malformed("task window")
                .expected("an expiry after the start, at most 30 days later")
                .received(&format!("{} to {}", self.not_before, self.expires)));
        }
        self.windows.validate()?;
        let repositories: BTreeSet<_> = self
            .targets
            .iter()
            .map(|target| &target.repository)
            .collect();
        if self.targets.is_empty() || repositories.len() != self.targets.len() {
            return Err(Refusal::malformed("task target list")
                .expected("at least one target, each repository once")
                .received(&format!("{} targets", self.targets.len())));
        }
        if self.together && self.targets.len() < 2 {
            return Err(Refusal::malformed("task target list")
                .expected("at least two repositories, where their changes land together")
                .received(&format!("{} targets", self.targets.len())));
        }
        self.targets.iter().try_for_each(|target| {
            check_branch(&target.branch)?;
            target.scope.validate()
        })?;
        self.capabilities.validate()
    }
}

impl TaskText {
    /// The digest that a task binds.
    ///
    /// # Errors
    /// It does not serialise.
    pub fn digest(&self) -> Result<Digest, Refusal> {
        Ok(Digest::of(&canonical::to_vec(self)?))
    }

    /// Checks the title.
    ///
    /// # Errors
    /// It is empty, longer than [`TITLE_MAX_BYTES`] or has more than one line.
    pub fn validate(&self) -> Result<(), Refusal> {
        if self.title.trim().is_empty()
            || self.title.len() > TITLE_MAX_BYTES
            || self.title.chars().any(char::is_control)
        {
            return Err(Refusal::malformed("task title")
                .expected(&format!("one line of 1 to {TITLE_MAX_BYTES} bytes"))
                .received(&self.title));
        }
        Ok(())
    }
}

impl Scope {
    /// Checks that every pattern is a glob over relative paths and that there are not too many.
    ///
    /// # Errors
    /// The pattern that is wrong.
    pub fn validate(&self) -> Result<(), Refusal> {
        if self.allow.len() + self.deny.len() > SCOPE_MAX_PATTERNS {
            return Err(
                Refusal::limit("scope-too-long", "the scope has too many patterns")
                    .expected(&format!("at most {SCOPE_MAX_PATTERNS}"))
                    .received(&(self.allow.len() + self.deny.len()).to_string()),
            );
        }
        self.allow
            .iter()
            .chain(&self.deny)
            .try_for_each(|pattern| check_pattern(pattern))
    }
}

fn check_pattern(pattern: &str) -> Result<(), Refusal> {
    let relative = !pattern.is_empty()
        && !pattern.starts_with('/')
        && pattern.split('/').all(|part| part != ".." && part != ".");
    if relative && globset::Glob::new(pattern).is_ok() {
        Ok(())
    } else {
        Err(Refusal::malformed("path pattern")
            .expected("a glob relative to the repository's root, such as src/**")
            .received(pattern))
    }
}

/// Checks a branch name by git's rules (`git check-ref-format`), more strictly where that is safe.
///
/// # Errors
/// It is not a plain branch name.
pub fn check_branch(branch: &str) -> Result<(), Refusal> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./+@".contains(&byte);
    let good = !branch.is_empty()
        && branch.len() <= 200
        && branch.bytes().all(plain)
        && !branch.contains("..")
        && !branch.contains("//")
        && !branch.contains("@{")
        && branch != "@"
        && branch.split('/').all(|part| {
            !part.is_empty()
                && !part.starts_with(['.', '-'])
                && !part.ends_with('.')
                && !part.ends_with(".lock")
        });
    if good {
        Ok(())
    } else {
        Err(Refusal::malformed("branch name")
            .expected("a branch without refs/heads/, such as main or feature/login")
            .received(branch))
    }
}

fn check_host_port(text: &str) -> Result<(), Refusal> {
    let good = text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && host.len() <= 253
            && host.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte)
            })
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if good {
        Ok(())
    } else {
        Err(Refusal::malformed("host")
            .expected("a lowercase name and a port, such as crates.io:443")
            .received(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branch_names_cannot_smuggle() {
        for good in ["main", "feature/login", "v1.2", "a+b"] {
            check_branch(good).unwrap();
        }
        for bad in [
            "", "-f", "a..b", "a/.b", "a.lock", "a/-b", "@", "a@{0}", "a b", "a\nb", "/a", "a/",
        ] {
            assert!(check_branch(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_stay_inside_the_repository() {
        Scope::over(&["src/**".into()]).validate().unwrap();
        for bad in ["/etc/**", "../x", "a/../../b", "", "a[", "./a"] {
            assert!(Scope::over(&[bad.into()]).validate().is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_are_names_with_ports() {
        check_host_port("crates.io:443").unwrap();
        for bad in [
            "crates.io",
            "crates.io:0",
            ":443",
            "CRATES.io:443",
            "a/b:1",
            "user@h:1",
        ] {
            assert!(check_host_port(bad).is_err(), "{bad}");
        }
    }
}
