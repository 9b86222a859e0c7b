//! Policies under test: test files, replays of past requests, and what changed between two sets.
//!
//! A test file is TOML. A *fixture* is a whole request; a test takes one with `like` and says
//! under `request` what is different.
//!
//! ```toml
//! [fixture.push.actor.agent]
//! id = "fixer"
//! # …
//!
//! [[test]]
//! name = "an agent can't push to main"
//! like = "push"
//! expect = "deny"
//! rule = "base-protected-ref"
//! request.action."git.push".protected = true
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use portcullis_model::limits::DOCUMENT_MAX_BYTES;
use portcullis_model::{Refusal, RefusalKind};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::decide::decide;
use crate::decision::{Answer, Decision, Summary};
use crate::request::Request;
use crate::set::{PolicySet, RuleInfo};
use crate::source::PolicyFile;

/// Most tests in one file: they run whenever a policy is proposed.
pub const TESTS_MAX: usize = 2_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestFile {
    #[serde(default)]
    fixture: BTreeMap<String, Table>,
    #[serde(default)]
    test: Vec<TestCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestCase {
    name: String,
    #[serde(default)]
    like: Option<String>,
    #[serde(default)]
    request: Table,
    expect: Answer,
    /// The first rule that decides.
    #[serde(default)]
    rule: Option<String>,
    /// For an ask: further people needed.
    #[serde(default)]
    humans: Option<u32>,
    /// For an ask: further parties needed.
    #[serde(default)]
    parties: Option<u32>,
}

/// How the tests of some files went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TestReport {
    /// Each test, in the order of the files.
    pub outcomes: Vec<TestOutcome>,
}

impl TestReport {
    /// The tests that failed.
    pub fn failed(&self) -> impl Iterator<Item = &TestOutcome> {
        self.outcomes
            .iter()
            .filter(|outcome| outcome.failure.is_some())
    }
}

/// How one test went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TestOutcome {
    /// The file.
    pub file: String,
    /// The test's name.
    pub name: String,
    /// What was decided.
    pub decided: Summary,
    /// What was expected and not so; none when it passed.
    pub failure: Option<String>,
}

impl fmt::Display for TestOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failure {
            None => write!(f, "ok      {}: {}", self.file, self.name),
            Some(failure) => write!(f, "FAILED  {}: {}: {failure}", self.file, self.name),
        }
    }
}

/// Runs the tests of `files` against `set`.
///
/// # Errors
/// A file is no test file, or a test's request can't be read; the message names both.
pub fn run_tests(set: &PolicySet, files: &[PolicyFile]) -> Result<TestReport, Refusal> {
    let mut outcomes = Vec::new();
    for file in files {
        let parsed = parse(file)?;
        for case in parsed.test {
            let request = case_request(file, &parsed.fixture, &case)?;
            let decision = decide(set, &request, 0);
            outcomes.push(TestOutcome {
                file: file.name.clone(),
                failure: failure(&case, &decision),
                decided: decision.summary(),
                name: case.name,
            });
        }
    }
    Ok(TestReport { outcomes })
}

/// The fixtures of a test file as requests, by name.
///
/// # Errors
/// The file is no test file, or a fixture is not a whole request.
pub fn fixtures(file: &PolicyFile) -> Result<BTreeMap<String, Request>, Refusal> {
    parse(file)?
        .fixture
        .into_iter()
        .map(|(name, table)| Ok((name.clone(), request(file, &name, table)?)))
        .collect()
}

fn parse(file: &PolicyFile) -> Result<TestFile, Refusal> {
    if file.text.len() > DOCUMENT_MAX_BYTES {
        return Err(Refusal::limit(
            "policy-tests-too-large",
            format!("{} has more than {DOCUMENT_MAX_BYTES} bytes", file.name),
        )
        .next("split it into several files"));
    }
    let parsed: TestFile =
        toml::from_str(&file.text).map_err(|error| unreadable(&file.name, &error))?;
    if parsed.test.len() > TESTS_MAX {
        return Err(Refusal::limit(
            "policy-tests-too-many",
            format!("{} has more than {TESTS_MAX} tests", file.name),
        )
        .next("split it into several files"));
    }
    Ok(parsed)
}

fn unreadable(place: &str, error: &toml::de::Error) -> Refusal {
    Refusal::new(
        RefusalKind::Malformed,
        "malformed-policy-test",
        format!("{place}: {}", error.to_string().trim_end()),
    )
    .next("mend the test file; `default.tests.toml` shows every field")
}

fn case_request(
    file: &PolicyFile,
    fixtures: &BTreeMap<String, Table>,
    case: &TestCase,
) -> Result<Request, Refusal> {
    let mut table = match &case.like {
        None => Table::new(),
        Some(name) => fixtures.get(name).cloned().ok_or_else(|| {
            Refusal::not_found("fixture", name)
                .expected("a fixture of the same file")
                .received(name)
                .next(format!(
                    "add [fixture.{name}] to {}, or mend `like` in the test {:?}",
                    file.name, case.name
                ))
        })?,
    };
    merge(&mut table, &case.request);
    request(file, &case.name, table)
}

fn request(file: &PolicyFile, name: &str, table: Table) -> Result<Request, Refusal> {
    table
        .try_into()
        .map_err(|error| unreadable(&format!("{}: {name:?}", file.name), &error))
}

/// Lays `over` on `table`. Tables merge; everything else is replaced, and so are the actor and
/// the action when they are of another kind.
fn merge(table: &mut Table, over: &Table) {
    for (key, value) in over {
        match (table.get_mut(key), value) {
            (Some(Value::Table(old)), Value::Table(new)) if !is_other_variant(key, old, new) => {
                merge(old, new);
            }
            (Some(_), _) | (None, _) => {
                table.insert(key.clone(), value.clone());
            }
        }
    }
}

fn is_other_variant(key: &str, old: &Table, new: &Table) -> bool {
    matches!(key, "actor" | "action") && new.keys().any(|kind| !old.contains_key(kind))
}

fn failure(case: &TestCase, decision: &Decision) -> Option<String> {
    let decided = decision.summary();
    let because = decided
        .rules
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ");
    if decided.answer != case.expect {
        return Some(format!(
            "expected {}, decided {} by {because}: {}",
            case.expect, decided.answer, decided.reason
        ));
    }
    if let Some(rule) = &case.rule
        && decided.rules.first().map(|first| &first.id) != Some(rule)
    {
        return Some(format!("expected the rule {rule}, decided by {because}"));
    }
    let needed = match decision {
        Decision::Ask(ask) => Some(ask.needed),
        Decision::Permit(_) | Decision::Deny(_) => None,
    };
    let differs = |want: Option<u32>, have: Option<u32>| want.is_some() && want != have;
    if differs(case.humans, needed.map(|needed| needed.humans))
        || differs(case.parties, needed.map(|needed| needed.parties))
    {
        let have = needed.map_or_else(|| "no approval".to_owned(), |needed| needed.to_string());
        return Some(format!(
            "expected {:?} people and {:?} parties, decided that it needs {have}",
            case.humans, case.parties
        ));
    }
    None
}

/// A past request that two sets decide differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its place among the requests given, from 0.
    pub index: usize,
    /// The action asked for.
    pub action: &'static str,
    /// What the old set decides.
    pub old: Summary,
    /// What the new set decides.
    pub new: Summary,
}

impl Difference {
    /// Whether the new set lets through what the old one did not.
    pub fn loosens(&self) -> bool {
        match (self.old.answer, self.new.answer) {
            (Answer::Deny, Answer::Ask | Answer::Permit) | (Answer::Ask, Answer::Permit) => true,
            (Answer::Permit, _) | (Answer::Ask, Answer::Ask | Answer::Deny) => false,
            (Answer::Deny, Answer::Deny) => false,
        }
    }
}

/// Decides past requests by both sets, and tells where the answers differ.
pub fn replay(old: &PolicySet, new: &PolicySet, requests: &[Request]) -> Vec<Difference> {
    requests
        .iter()
        .enumerate()
        .filter_map(|(index, request)| {
            let before = decide(old, request, 0);
            let after = decide(new, request, 0);
            let differs = match (&before, &after) {
                (Decision::Ask(before), Decision::Ask(after)) => before.needed != after.needed,
                (Decision::Permit(_), Decision::Permit(_))
                | (Decision::Deny(_), Decision::Deny(_)) => false,
                (Decision::Permit(_) | Decision::Deny(_) | Decision::Ask(_), _) => true,
            };
            differs.then(|| Difference {
                index,
                action: request.action.name(),
                old: before.summary(),
                new: after.summary(),
            })
        })
        .collect()
}

/// A rule that differs between two sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleChange {
    /// The rule, as it is in the new set, or was in the old one.
    pub rule: RuleInfo,
    /// How it differs.
    pub change: Change,
}

/// How a rule differs between two sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Only the new set has it.
    Added,
    /// Only the old set has it.
    Removed,
    /// Its text is another.
    Changed,
}

impl RuleChange {
    /// Whether the change can let through what was denied: a permit that is new or changed, or a
    /// forbid that went away or changed.
    pub const fn may_loosen(&self) -> bool {
        match self.change {
            Change::Added => self.rule.permits,
            Change::Removed => !self.rule.permits,
            Change::Changed => true,
        }
    }
}

impl fmt::Display for RuleChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let change = match self.change {
            Change::Added => "added",
            Change::Removed => "removed",
            Change::Changed => "changed",
        };
        let effect = if self.rule.permits {
            "permit"
        } else {
            "forbid"
        };
        let loosens = if self.may_loosen() {
            " (may loosen)"
        } else {
            ""
        };
        write!(f, "{change} {effect} {}{loosens}", self.rule.rule)
    }
}

/// The rules that differ between two sets, by id.
pub fn diff(old: &PolicySet, new: &PolicySet) -> Vec<RuleChange> {
    let by_id = |set: &PolicySet| -> BTreeMap<String, RuleInfo> {
        set.rules()
            .map(|info| (info.rule.id.clone(), info))
            .collect()
    };
    let (old, new) = (by_id(old), by_id(new));
    let ids: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    ids.into_iter()
        .filter_map(|id| match (old.get(id), new.get(id)) {
            (None, Some(rule)) => Some((rule, Change::Added)),
            (Some(rule), None) => Some((rule, Change::Removed)),
            (Some(before), Some(after))
                if before.digest != after.digest || before.layer != after.layer =>
            {
                Some((after, Change::Changed))
            }
            (Some(_), Some(_)) | (None, None) => None,
        })
        .map(|(rule, change)| RuleChange {
            rule: rule.clone(),
            change,
        })
        .collect()
}
