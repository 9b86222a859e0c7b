//! One rule: its annotations, its place, and the clauses that explain it.

use std::collections::BTreeSet;
use std::fmt;

use cedar_policy::{ActionConstraint, Effect, Policy, PolicyId, PolicySet, PrincipalConstraint};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use portcullis_model::Digest;

use crate::source::Layer;

/// A rule as messages and records name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleRef {
    /// The rule's `@id`.
    pub id: String,
    /// The file it stands in.
    pub file: String,
    /// The line it begins on, from 1.
    pub line: usize,
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} {}", self.file, self.line, self.id)
    }
}

/// A loaded rule.
pub(crate) struct Rule {
    pub(crate) at: RuleRef,
    pub(crate) layer: Layer,
    pub(crate) permits: bool,
    pub(crate) reason: String,
    pub(crate) next: String,
    pub(crate) needs: Option<String>,
    /// Holds in every mode.
    pub(crate) always: bool,
    pub(crate) digest: Digest,
    pub(crate) policy: Policy,
    /// The rule's scope alone, as a permit.
    pub(crate) scope: PolicySet,
    pub(crate) clauses: Vec<Clause>,
}

/// A part of a rule's conditions; all clauses of a rule must hold for it to apply.
pub(crate) struct Clause {
    /// As Cedar writes it; what stood under `unless` begins with "not".
    pub(crate) text: String,
    /// Paths of the facts it uses, such as `context.task.present`.
    pub(crate) facts: BTreeSet<String>,
    pub(crate) unless: bool,
    /// Permits exactly where the clause holds.
    pub(crate) probe: PolicySet,
}

impl Rule {
    /// Whether the rule's scope can apply to an action at all.
    pub(crate) fn is_about_action(&self, action: &str) -> bool {
        match self.policy.action_constraint() {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(uid) => uid.id().unescaped() == action,
            ActionConstraint::In(uids) => uids.iter().any(|uid| uid.id().unescaped() == action),
        }
    }

    /// Whether the rule's scope can apply to a kind of principal at all.
    pub(crate) fn is_about_principal(&self, kind: &str) -> bool {
        match self.policy.principal_constraint() {
            PrincipalConstraint::Any | PrincipalConstraint::In(_) => true,
            PrincipalConstraint::Eq(uid) => uid.type_name().basename() == kind,
            PrincipalConstraint::Is(name) | PrincipalConstraint::IsIn(name, _) => {
                name.basename() == kind
            }
        }
    }
}

/// Whether the rule names the actions it is about.
pub(crate) fn names_actions(policy: &Policy) -> bool {
    match policy.action_constraint() {
        ActionConstraint::Any => false,
        ActionConstraint::Eq(_) | ActionConstraint::In(_) => true,
    }
}

pub(crate) fn permits(policy: &Policy) -> bool {
    match policy.effect() {
        Effect::Permit => true,
        Effect::Forbid => false,
    }
}

/// The scope of `policy` without its conditions, as a set of one permit.
pub(crate) fn scope_of(policy: &Policy) -> Result<PolicySet, String> {
    let mut json = policy.to_json().map_err(|error| error.to_string())?;
    if let Some(fields) = json.as_object_mut() {
        fields.insert("effect".to_owned(), json!("permit"));
        fields.insert("conditions".to_owned(), json!([]));
        fields.remove("annotations");
    }
    probe(json).map(|(set, _)| set)
}

/// The clauses of `policy`: `when` parts split at `&&`, `unless` parts at `||`.
pub(crate) fn clauses_of(policy: &Policy) -> Result<Vec<Clause>, String> {
    let json = policy.to_json().map_err(|error| error.to_string())?;
    let conditions = json
        .get("conditions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let mut clauses = Vec::new();
    for condition in &conditions {
        let unless = condition.get("kind").and_then(Value::as_str) == Some("unless");
        let Some(body) = condition.get("body") else {
            continue;
        };
        for part in split_at(if unless { "||" } else { "&&" }, body) {
            clauses.push(clause(part, unless)?);
        }
    }
    Ok(clauses)
}

/// The operands of a chain of `operator`, from left to right.
fn split_at<'a>(operator: &str, body: &'a Value) -> Vec<&'a Value> {
    let mut waiting = vec![body];
    let mut parts = Vec::new();
    while let Some(value) = waiting.pop() {
        match value.get(operator) {
            Some(chain) => {
                waiting.extend(chain.get("right"));
                waiting.extend(chain.get("left"));
            }
            None => parts.push(value),
        }
    }
    parts
}

fn clause(body: &Value, unless: bool) -> Result<Clause, String> {
    let kind = if unless { "unless" } else { "when" };
    let (probe, policy) = probe(json!({
        "effect": "permit",
        "principal": {"op": "All"},
        "action": {"op": "All"},
        "resource": {"op": "All"},
        "conditions": [{"kind": kind, "body": body}],
    }))?;
    let whole = policy.to_cedar().unwrap_or_default();
    let text = whole
        .split_once('{')
        .and_then(|(_, rest)| rest.rsplit_once('}'))
        .map_or_else(String::new, |(inside, _)| {
            as_written(&inside.split_whitespace().collect::<Vec<_>>().join(" "))
        });
    let mut facts = BTreeSet::new();
    collect_facts(body, &mut facts);
    Ok(Clause {
        text,
        facts,
        unless,
        probe,
    })
}

/// Cedar keeps `a > b` as `!(a <= b)`; this puts it back as people write it.
fn as_written(text: &str) -> String {
    const PAIRS: [(&str, &str); 3] = [(" <= ", " > "), (" < ", " >= "), (" == ", " != ")];
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("!(") {
        out.push_str(before);
        rest = after;
        let plain = after
            .split_once(')')
            .filter(|(inside, _)| !inside.contains(['(', '&', '|', '"', '!']))
            .and_then(|(inside, tail)| {
                let (positive, negative) = PAIRS
                    .into_iter()
                    .find(|(positive, _)| inside.contains(positive))?;
                Some((inside.replacen(positive, negative, 1), tail))
            });
        match plain {
            Some((inside, tail)) => {
                out.push_str(&inside);
                rest = tail;
            }
            None => out.push_str("!("),
        }
    }
    out.push_str(rest);
    out
}

fn probe(json: Value) -> Result<(PolicySet, Policy), String> {
    let policy =
        Policy::from_json(Some(PolicyId::new("probe")), json).map_err(|error| error.to_string())?;
    let set = PolicySet::from_policies([policy.clone()]).map_err(|error| error.to_string())?;
    Ok((set, policy))
}

/// The longest attribute paths that start at a variable.
fn collect_facts(value: &Value, facts: &mut BTreeSet<String>) {
    if let Some(path) = path_of(value) {
        facts.insert(path);
        return;
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_facts(item, facts)),
        Value::Object(fields) => fields.values().for_each(|item| collect_facts(item, facts)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn path_of(value: &Value) -> Option<String> {
    let access = value.get(".")?;
    let left = access.get("left")?;
    let attribute = access.get("attr")?.as_str()?;
    let before = match left.get("Var").and_then(Value::as_str) {
        Some(variable) => variable.to_owned(),
        None => path_of(left)?,
    };
    Some(format!("{before}.{attribute}"))
}
