//! All checks over one revision.

use std::borrow::Cow;
use std::collections::BTreeSet;

use globset::GlobSet;
use portcullis_model::{Digest, Refusal, Scope, canonical};
use serde::{Deserialize, Serialize};

use crate::classes::{ClassSet, classes};
use crate::diff::{Diff, FileChange};
use crate::rules::{self, Rule};
use crate::scope::globs;

pub use portcullis_model::event::CheckVerdict as Level;

#[cfg(test)]
pub(crate) mod tests;

/// Most findings in one report; the rest is counted in [`Report::omitted`] and its worst level
/// still decides.
pub const FINDINGS_MAX: usize = 500;
/// Longest message of a finding, in characters.
const MESSAGE_MAX_CHARS: usize = 400;

/// Runs every check over `diff`. `scope` is the task's for this repository, or none for a
/// person's own change. The answer depends on these values alone; it reads nothing from the
/// revision's own configuration.
pub fn analyse(diff: &Diff, scope: Option<&Scope>, context: &Context) -> Report {
    let files: Vec<Subject<'_>> = diff
        .files
        .iter()
        .map(|file| Subject::new(file, context))
        .collect();
    let mut sink = Sink {
        context,
        report: Report::default(),
    };
    if let Some(scope) = scope {
        rules::scope::check(diff, scope, &mut sink);
    }
    rules::sensitive::check(&files, &mut sink);
    rules::configured::check(&files, context, &mut sink);
    rules::secret::check(&files, &mut sink);
    rules::test_weakening::check(&files, &mut sink);
    rules::unusual_text::check(&files, &mut sink);
    rules::unusual_file::check(&files, &mut sink);
    sink.report
}

/// What the protected base says about the checks. It can only demand more.
#[derive(Clone, Debug, Default)]
pub struct Context {
    configuration: Configuration,
    tests: GlobSet,
    pub(crate) escalate: Vec<(globset::GlobMatcher, PathRule)>,
    pub(crate) block: Vec<(globset::GlobMatcher, PathRule)>,
}

impl Context {
    /// Compiles a configuration.
    ///
    /// # Errors
    /// A pattern is no glob, a rule to raise is unknown, or there are too many of either.
    pub fn new(configuration: Configuration) -> Result<Self, Refusal> {
        let listed = configuration.escalate.len()
            + configuration.block.len()
            + configuration.tests.len()
            + configuration.raise.len();
        if listed > Configuration::MAX_LINES {
            return Err(
                Refusal::limit("checks-too-long", "the checks' configuration is too long")
                    .expected(&format!("at most {} entries", Configuration::MAX_LINES))
                    .received(&listed.to_string()),
            );
        }
        for raised in &configuration.raise {
            if !rules::all().iter().any(|rule| rule.id == raised) {
                return Err(Refusal::malformed("check rule")
                    .expected("the id of a rule, as `portcullis check` prints it")
                    .received(raised));
            }
        }
        let compiled = |rules: &[PathRule]| {
            rules
                .iter()
                .map(|rule| {
                    globset::GlobBuilder::new(&rule.path)
                        .literal_separator(true)
                        .case_insensitive(true)
                        .build()
                        .map(|glob| (glob.compile_matcher(), rule.clone()))
                        .map_err(|_| {
                            Refusal::malformed("path pattern")
                                .expected("a glob relative to the repository's root")
                                .received(&rule.path)
                        })
                })
                .collect::<Result<Vec<_>, Refusal>>()
        };
        Ok(Self {
            tests: globs(&configuration.tests, true)?,
            escalate: compiled(&configuration.escalate)?,
            block: compiled(&configuration.block)?,
            configuration,
        })
    }

    /// Digest of the configuration, for the ledger.
    ///
    /// # Errors
    /// Never for a configuration that was read; serialisation is fallible by type.
    pub fn digest(&self) -> Result<Digest, Refusal> {
        Ok(Digest::of(&canonical::to_vec(&self.configuration)?))
    }
}

/// The checks' configuration, read from the protected base (never from the revision).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Configuration {
    /// Further paths that need an explicit approval.
    pub escalate: Vec<PathRule>,
    /// Paths that nothing under a task may change.
    pub block: Vec<PathRule>,
    /// Further paths that hold tests, as globs.
    pub tests: Vec<String>,
    /// Ids of rules that block here instead of escalating.
    pub raise: BTreeSet<String>,
}

impl Configuration {
    /// Most entries in all lists together: more can't be reviewed.
    pub const MAX_LINES: usize = 1_000;
}

/// A path that the repository itself guards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathRule {
    /// Glob relative to the root, matched in any case.
    pub path: String,
    /// What the person who is asked should know.
    pub why: String,
}

/// One thing that a check says, with its evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Which check: `scope`, `sensitive-file`, `secret`, `test-weakening`, ….
    pub check: Cow<'static, str>,
    /// Which rule of it, by id.
    pub rule: Cow<'static, str>,
    /// How much it weighs.
    pub level: Level,
    /// The file, with control characters escaped; none if it is about the whole change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The line after the change, or before it for what was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// What was found, for a person.
    pub message: String,
    /// What to do now.
    pub next: String,
}

/// What the checks say of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The worst level of all findings.
    pub verdict: Level,
    /// The findings, by check, then in the order of the diff.
    pub findings: Vec<Finding>,
    /// How many more there were than [`FINDINGS_MAX`].
    pub omitted: u64,
    /// Rules that a human must look at, those of omitted findings too.
    pub escalations: BTreeSet<String>,
    /// Rules that block, those of omitted findings too.
    pub blocks: BTreeSet<String>,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            verdict: Level::Pass,
            findings: Vec::new(),
            omitted: 0,
            escalations: BTreeSet::new(),
            blocks: BTreeSet::new(),
        }
    }
}

impl Report {
    /// The canonical bytes, as kept in the report's blob.
    ///
    /// # Errors
    /// Never in practice; serialisation is fallible by type.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Refusal> {
        canonical::to_vec(self)
    }

    /// Digest of [`Report::to_bytes`].
    ///
    /// # Errors
    /// As [`Report::to_bytes`].
    pub fn digest(&self) -> Result<Digest, Refusal> {
        Ok(Digest::of(&self.to_bytes()?))
    }
}

/// One changed file with what every check needs to know of it.
pub(crate) struct Subject<'a> {
    pub(crate) file: &'a FileChange,
    /// The path as text, with what is not UTF-8 replaced.
    pub(crate) path: Cow<'a, str>,
    /// Classes of both paths and of what the base calls tests.
    pub(crate) classes: ClassSet,
}

impl<'a> Subject<'a> {
    fn new(file: &'a FileChange, context: &Context) -> Self {
        let path = file.path().lossy();
        let mut all = ClassSet::default();
        for path in file.paths() {
            let path = path.lossy();
            all = all.union(classes(&path));
            if context.tests.is_match(crate::path::fold(&path)) || context.tests.is_match(&*path) {
                all.insert(crate::classes::FileClass::Test);
            }
        }
        Self {
            file,
            path,
            classes: all,
        }
    }
}

/// Where checks put their findings.
pub(crate) struct Sink<'a> {
    context: &'a Context,
    report: Report,
}

impl Sink<'_> {
    /// A finding at a file.
    pub(crate) fn file(
        &mut self,
        rule: &'static Rule,
        subject: &Subject<'_>,
        line: Option<u32>,
        message: impl Into<String>,
    ) {
        self.push(
            rule,
            Some(subject.file.path().to_string()),
            line,
            message.into(),
        );
    }

    /// A finding at a place, or about the whole change.
    pub(crate) fn push(
        &mut self,
        rule: &'static Rule,
        path: Option<String>,
        line: Option<u32>,
        message: String,
    ) {
        let raised = self.context.configuration.raise.contains(rule.id);
        let level = if raised { Level::Block } else { rule.level };
        self.report.verdict = self.report.verdict.max(level);
        match level {
            Level::Pass => {}
            Level::Escalate => drop(self.report.escalations.insert(rule.id.to_owned())),
            Level::Block => drop(self.report.blocks.insert(rule.id.to_owned())),
        }
        if self.report.findings.len() >= FINDINGS_MAX {
            self.report.omitted += 1;
            return;
        }
        let message = message
            .chars()
            .take(MESSAGE_MAX_CHARS)
            .flat_map(portcullis_model::refusal::visible)
            .collect();
        self.report.findings.push(Finding {
            check: Cow::Borrowed(rule.check),
            rule: Cow::Borrowed(rule.id),
            level,
            path,
            line,
            message,
            next: rule.next.to_owned(),
        });
    }
}
