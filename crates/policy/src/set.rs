//! Loading: files become one checked set of rules, or a list of problems with their places.

use std::collections::{BTreeMap, HashMap};

use cedar_policy::{
    Authorizer, EntityTypeName, EntityUid, Policy, PolicyId, Schema, ValidationMode, Validator,
};
use miette::Diagnostic;
use portcullis_model::{Digest, Refusal, RefusalKind, canonical};
use serde_json::json;

use crate::recall::Reads;
use crate::rule::{self, Rule, RuleRef};
use crate::source::{self, FILES_MAX, Layer, PolicyFile, Problem, RULES_MAX, RuleText};

/// The schema that every policy is validated against, strictly.
pub const SCHEMA: &str = include_str!("../policies/schema.cedarschema");
/// The base: what nobody may switch off.
pub const BASE: &str = include_str!("../policies/base.cedar");
/// The organisation's policy to start from.
pub const DEFAULT: &str = include_str!("../policies/default.cedar");
/// Tests of the default policy, to start one's own from.
pub const DEFAULT_TESTS: &str = include_str!("../policies/default.tests.toml");

/// The name under which messages and records cite the base.
pub const BASE_NAME: &str = "base.cedar";

/// Rules of all layers, validated, indexed by action, ready to decide.
pub struct PolicySet {
    pub(crate) rules: Vec<Rule>,
    pub(crate) index_of: HashMap<PolicyId, usize>,
    slices: BTreeMap<(&'static str, &'static str), Slice>,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) authorizer: Authorizer,
    digest: Digest,
    files: Vec<FileDigest>,
}

/// The rules that can apply to one action by one kind of principal.
pub(crate) struct Slice {
    all: cedar_policy::PolicySet,
    base: cedar_policy::PolicySet,
    reads: Reads,
}

/// A file of a set with its digest.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FileDigest {
    /// Whose file it is.
    pub layer: Layer,
    /// Its path.
    pub name: String,
    /// SHA-256 of its text.
    pub digest: Digest,
}

/// What a loaded set says of one of its rules.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RuleInfo {
    /// Its id and place.
    pub rule: RuleRef,
    /// Whose rule it is.
    pub layer: Layer,
    /// Whether it permits; otherwise it forbids.
    pub permits: bool,
    /// Its reason.
    pub reason: String,
    /// SHA-256 of its text.
    pub digest: Digest,
}

/// Names of the schema, parsed once.
pub(crate) struct Vocabulary {
    pub(crate) schema: Schema,
    pub(crate) types: HashMap<String, EntityTypeName>,
    pub(crate) actions: HashMap<String, EntityUid>,
}

impl PolicySet {
    /// Loads the base, the organisation's files, and one repository's files from its protected
    /// base (none for acts that concern no repository).
    ///
    /// # Errors
    /// Any problem in any file, each with its place and what to do.
    pub fn load(organisation: &[PolicyFile], repository: &[PolicyFile]) -> Result<Self, Refusal> {
        Self::check(organisation, repository).map_err(|problems| refusal(&problems))
    }

    /// As [`PolicySet::load`], with the problems as values.
    ///
    /// # Errors
    /// All problems found, in the order of the files.
    pub fn check(
        organisation: &[PolicyFile],
        repository: &[PolicyFile],
    ) -> Result<Self, Vec<Problem>> {
        Self::with_base(
            &[PolicyFile::new(BASE_NAME, BASE)],
            organisation,
            repository,
        )
    }

    /// The set that `init` starts with: the base and the default policy.
    ///
    /// # Errors
    /// The embedded files don't load, which is a defect of ours.
    pub fn embedded() -> Result<Self, Refusal> {
        Self::load(&[PolicyFile::new("default.cedar", DEFAULT)], &[])
    }

    /// Loads with another base; for tests of what the base is for.
    pub(crate) fn with_base(
        base: &[PolicyFile],
        organisation: &[PolicyFile],
        repository: &[PolicyFile],
    ) -> Result<Self, Vec<Problem>> {
        let layers = [
            (Layer::Base, base),
            (Layer::Organisation, organisation),
            (Layer::Repository, repository),
        ];
        let files: Vec<(Layer, &PolicyFile)> = layers
            .iter()
            .flat_map(|(layer, files)| files.iter().map(move |file| (*layer, file)))
            .collect();
        let vocabulary = Vocabulary::of_schema().map_err(|problem| vec![problem])?;
        let mut loading = Loading::default();
        loading.name_clashes(&files);
        for (layer, file) in files.iter().take(FILES_MAX) {
            loading.file(*layer, file);
        }
        loading.validate(&vocabulary);
        let Loading { parsed, problems } = loading;
        if !problems.is_empty() {
            return Err(sorted(problems, &files));
        }
        Self::finish(vocabulary, parsed, &files).map_err(|problem| vec![problem])
    }

    fn finish(
        vocabulary: Vocabulary,
        parsed: Vec<Parsed<'_>>,
        files: &[(Layer, &PolicyFile)],
    ) -> Result<Self, Problem> {
        let mut rules = Vec::with_capacity(parsed.len());
        for one in parsed {
            rules.push(one.into_rule()?);
        }
        let files: Vec<FileDigest> = files
            .iter()
            .map(|(layer, file)| FileDigest {
                layer: *layer,
                name: file.name.clone(),
                digest: Digest::of(file.text.as_bytes()),
            })
            .collect();
        let digest = canonical::to_vec(&json!({
            "files": files,
            "schema": Digest::of(SCHEMA.as_bytes()),
        }))
        .map(|bytes| Digest::of(&bytes))
        .map_err(|error| defect("the digest of the policy", &error))?;
        Ok(Self {
            index_of: rules
                .iter()
                .enumerate()
                .map(|(index, rule)| (rule.policy.id().clone(), index))
                .collect(),
            slices: slices(&vocabulary, &rules)?,
            rules,
            vocabulary,
            authorizer: Authorizer::new(),
            digest,
            files,
        })
    }

    /// The digest over the schema and all files: their layers, names and texts.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The files with their digests, base first.
    pub fn files(&self) -> &[FileDigest] {
        &self.files
    }

    /// The rules in the order in which messages cite them.
    pub fn rules(&self) -> impl Iterator<Item = RuleInfo> + '_ {
        self.rules.iter().map(|rule| RuleInfo {
            rule: rule.at.clone(),
            layer: rule.layer,
            permits: rule.permits,
            reason: rule.reason.clone(),
            digest: rule.digest,
        })
    }

    /// The rules to evaluate for an action by a kind of principal.
    pub(crate) fn slice(
        &self,
        action: &'static str,
        principal: &'static str,
        base_only: bool,
    ) -> Option<&cedar_policy::PolicySet> {
        let slice = self.slices.get(&(action, principal))?;
        Some(if base_only { &slice.base } else { &slice.all })
    }

    /// What the rules for an action by a kind of principal read.
    pub(crate) fn reads(&self, action: &'static str, principal: &'static str) -> Option<Reads> {
        Some(self.slices.get(&(action, principal))?.reads)
    }
}

impl Vocabulary {
    pub(crate) fn of_schema() -> Result<Self, Problem> {
        let file = PolicyFile::new("schema.cedarschema", "");
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA)
            .map_err(|error| source::problem(&file, 0, error.to_string(), DEFECT))?;
        Ok(Self {
            types: schema
                .entity_types()
                .map(|name| (name.to_string(), name.clone()))
                .collect(),
            actions: schema
                .actions()
                .map(|uid| (uid.id().unescaped().to_owned(), uid.clone()))
                .collect(),
            schema,
        })
    }
}

/// The kinds of principal, as the schema names them.
pub(crate) const PRINCIPALS: [&str; 5] = ["Human", "Agent", "Run", "Service", "Host"];

/// Every action, as the schema names them. A test compares with the schema.
pub(crate) const ACTIONS: [&str; 22] = [
    "task.sign",
    "run.start",
    "run.continue",
    "run.stop",
    "git.fetch",
    "git.push",
    "model.call",
    "net.connect",
    "lease.issue",
    "change.land",
    "commit.accept",
    "request.approve",
    "request.reject",
    "job.run",
    "release.admit",
    "release.revoke",
    "rollout.command",
    "inventory.change",
    "policy.activate",
    "mode.change",
    "breaker.trip",
    "breaker.reset",
];

const DEFECT: &str = "This is a defect of Portcullis; please report it.";

fn defect(what: &str, error: &dyn std::fmt::Display) -> Problem {
    let file = PolicyFile::new(BASE_NAME, "");
    source::problem(&file, 0, format!("{what}: {error}"), DEFECT)
}

fn slices(
    vocabulary: &Vocabulary,
    rules: &[Rule],
) -> Result<BTreeMap<(&'static str, &'static str), Slice>, Problem> {
    let mut slices = BTreeMap::new();
    for action in ACTIONS {
        if !vocabulary.actions.contains_key(action) {
            return Err(defect("the schema lacks an action", &action));
        }
        for principal in PRINCIPALS {
            let set = |base_only: bool| {
                let chosen = rules.iter().filter(|rule| {
                    (rule.layer == Layer::Base || !base_only)
                        && rule.is_about_action(action)
                        && rule.is_about_principal(principal)
                });
                cedar_policy::PolicySet::from_policies(chosen.map(|rule| rule.policy.clone()))
                    .map_err(|error| defect("the rules of an action", &error))
            };
            let all = set(false)?;
            let slice = Slice {
                reads: Reads::of_rules(all.policies()),
                all,
                base: set(true)?,
            };
            slices.insert((action, principal), slice);
        }
    }
    Ok(slices)
}

/// A rule that parsed, on its way into the set.
struct Parsed<'a> {
    layer: Layer,
    source: RuleText<'a>,
    policy: Policy,
}

#[derive(Default)]
struct Loading<'a> {
    parsed: Vec<Parsed<'a>>,
    problems: Vec<Problem>,
}

impl<'a> Loading<'a> {
    fn name_clashes(&mut self, files: &[(Layer, &'a PolicyFile)]) {
        if let Some((_, file)) = files.get(FILES_MAX) {
            self.problems.push(source::problem(
                file,
                0,
                format!("there are more than {FILES_MAX} policy files"),
                "Put the rules into fewer files.",
            ));
        }
        for (at, (_, file)) in files.iter().enumerate() {
            if files
                .iter()
                .take(at)
                .any(|(_, other)| other.name == file.name)
            {
                self.problems.push(source::problem(
                    file,
                    0,
                    format!("two policy files are named {}", file.name),
                    "Give each file a name of its own, so that messages say which one they mean.",
                ));
            }
        }
    }

    fn file(&mut self, layer: Layer, file: &'a PolicyFile) {
        match source::split(file) {
            Ok(texts) => {
                for text in texts {
                    self.rule(layer, text);
                }
            }
            Err(problem) => self.problems.push(problem),
        }
    }

    fn rule(&mut self, layer: Layer, source: RuleText<'a>) {
        let id = PolicyId::new(format!("rule{}", self.parsed.len()));
        if self.parsed.len() >= RULES_MAX {
            if self.parsed.len() == RULES_MAX {
                self.problems.push(source.problem(
                    0,
                    format!("there are more than {RULES_MAX} rules"),
                    "Merge rules, or drop those that no longer matter.",
                ));
            }
            return;
        }
        match Policy::parse(Some(id), source.text) {
            Ok(policy) => {
                crate::lint::rule(layer, &source, &policy, &mut self.problems);
                self.same_id(&source, &policy);
                self.parsed.push(Parsed {
                    layer,
                    source,
                    policy,
                });
            }
            Err(errors) => {
                for error in errors.iter() {
                    self.problems.push(source.problem(
                        offset(error),
                        format!("this is not Cedar: {error}"),
                        error.help().map_or_else(
                            || "Mend the syntax: `permit|forbid (principal, action, resource) when { … };`.".to_owned(),
                            |help| help.to_string(),
                        ),
                    ));
                }
            }
        }
    }

    fn same_id(&mut self, source: &RuleText<'a>, policy: &Policy) {
        let Some(id) = policy.annotation("id") else {
            return;
        };
        let earlier = self
            .parsed
            .iter()
            .find(|earlier| earlier.policy.annotation("id") == Some(id));
        if let Some(earlier) = earlier {
            let file = &earlier.source.file.name;
            let line = earlier.source.line();
            self.problems.push(source.problem(
                0,
                format!("the id {id} is taken by {file}:{line}"),
                "Give the rule an id of its own; a rule can't replace one of another layer.",
            ));
        }
    }

    /// Validates what parsed, strictly. Cedar's warnings (a rule that can never apply, text that
    /// looks like other text) are problems too.
    fn validate(&mut self, vocabulary: &Vocabulary) {
        let policies = self.parsed.iter().map(|parsed| parsed.policy.clone());
        let set = match cedar_policy::PolicySet::from_policies(policies) {
            Ok(set) => set,
            Err(error) => {
                self.problems.push(defect("the rules together", &error));
                return;
            }
        };
        let result =
            Validator::new(vocabulary.schema.clone()).validate(&set, ValidationMode::Strict);
        let mut found = Vec::new();
        for error in result.validation_errors() {
            found.push((
                error.policy_id(),
                self.invalid(error.policy_id(), error, ""),
            ));
        }
        for warning in result.validation_warnings() {
            found.push((
                warning.policy_id(),
                self.invalid(warning.policy_id(), warning, "Remove or mend the rule."),
            ));
        }
        // An error often brings the warning "can never apply" with it; the first says more.
        let mut seen = std::collections::BTreeSet::new();
        for (id, problem) in found {
            if seen.insert((id.to_string(), problem.line)) {
                self.problems.push(problem);
            }
        }
    }

    fn invalid(&self, id: &PolicyId, error: &dyn Diagnostic, next: &str) -> Problem {
        // Cedar's text begins by naming the policy by our internal id; the place says it better.
        let text = error.to_string();
        let message = text
            .strip_prefix(&format!("for policy `{id}`, "))
            .unwrap_or(&text);
        let next = match error.help() {
            Some(help) => help.to_string(),
            None if next.is_empty() => {
                "Use the facts and types of schema.cedarschema for this action.".to_owned()
            }
            None => next.to_owned(),
        };
        match self.parsed.iter().find(|parsed| parsed.policy.id() == id) {
            Some(parsed) => parsed.source.problem(offset(error), message, next),
            None => defect("a rule", &message),
        }
    }
}

impl Parsed<'_> {
    fn into_rule(self) -> Result<Rule, Problem> {
        let Self {
            layer,
            source,
            policy,
        } = self;
        let text_of = |key: &str| policy.annotation(key).unwrap_or_default().to_owned();
        let explain = |error: String| source.problem(0, error, DEFECT);
        Ok(Rule {
            at: RuleRef {
                id: text_of("id"),
                file: source.file.name.clone(),
                line: source.line(),
            },
            layer,
            permits: rule::permits(&policy),
            reason: text_of("reason"),
            next: text_of("next"),
            needs: policy.annotation("needs").map(str::to_owned),
            always: policy.annotation("always").is_some(),
            digest: Digest::of(source.text.as_bytes()),
            scope: rule::scope_of(&policy).map_err(explain)?,
            clauses: rule::clauses_of(&policy).map_err(explain)?,
            policy,
        })
    }
}

/// Byte offset of a diagnostic's first label in its text; 0 without one.
fn offset(error: &(impl Diagnostic + ?Sized)) -> usize {
    error
        .labels()
        .and_then(|mut labels| labels.next())
        .map_or(0, |label| label.offset())
}

fn sorted(mut problems: Vec<Problem>, files: &[(Layer, &PolicyFile)]) -> Vec<Problem> {
    let order = |problem: &Problem| {
        let file = files.iter().position(|(_, file)| file.name == problem.file);
        (file, problem.line, problem.column)
    };
    problems.sort_by_key(order);
    problems.dedup();
    problems
}

/// Most problems that one message shows; the rest is counted.
const SHOWN_MAX_PROBLEMS: usize = 20;

/// Problems of a policy in the one shape of a "no".
pub fn refusal(problems: &[Problem]) -> Refusal {
    let shown: Vec<String> = problems
        .iter()
        .take(SHOWN_MAX_PROBLEMS)
        .map(ToString::to_string)
        .collect();
    let rest = match problems.len().checked_sub(SHOWN_MAX_PROBLEMS) {
        Some(more) if more > 0 => format!("\n  and {more} more"),
        Some(_) | None => String::new(),
    };
    let count = match problems.len() {
        1 => "a problem".to_owned(),
        count => format!("{count} problems"),
    };
    Refusal::new(
        RefusalKind::Malformed,
        "policy-invalid",
        format!("the policy has {count}:\n  {}{rest}", shown.join("\n  ")),
    )
    .next("mend the places named, then run `portcullis policy check`")
}
