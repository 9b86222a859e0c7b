//! The decision itself: a plain function over a policy set and a request.
//!
//! Why it can be trusted to say no:
//! - Cedar skips a rule whose evaluation fails; we don't. One failure denies the request.
//! - *Ask* is found by deciding again as if further approvals stood. Every forbid is evaluated
//!   again each time, so a forbid for another cause still denies, and no approval can talk it away.
//! - A request that only takes authority away is decided by the base alone.

use std::collections::{HashMap, HashSet};

use cedar_policy::{Context, Entities, Entity, EntityId, EntityUid, RestrictedExpression};
use portcullis_model::{Digest, LedgerIndex};

use crate::approvals::{self, Needed};
use crate::decision::{Ask, Basis, Decision, Denial, DenialCause, Permit, Standing};
use crate::explain;
use crate::facts::{Attributes, Facts, Uid, Value};
use crate::request::Request;
use crate::rule::{Rule, RuleRef};
use crate::set::{PolicySet, Vocabulary};

/// Decides `request` by `set`; `at` is the ledger index of the state that the facts came from.
///
/// Pure: the same set, request and index give the same decision.
pub fn decide(set: &PolicySet, request: &Request, at: LedgerIndex) -> Decision {
    let digest = match request.digest() {
        Ok(digest) => digest,
        Err(refusal) => return broken(set, Digest::of(b""), at, &refusal.message),
    };
    let basis = Basis {
        at,
        policy: set.digest(),
        request: digest,
    };
    let facts = Facts::of(request, None);
    let evaluation = match Evaluation::of(set, request, &facts) {
        Ok(evaluation) => evaluation,
        Err(error) => return broken(set, digest, at, &error),
    };
    match evaluation.verdict {
        Verdict::Permitted(rules) => {
            let reason = rules.first().map_or("", |rule| rule.reason.as_str());
            Decision::Permit(Permit::new(
                basis,
                references(&rules),
                reason.to_owned(),
                Standing::Permitted,
            ))
        }
        Verdict::Failed(errors) => Decision::Deny(failed(basis, &errors)),
        Verdict::Forbidden(rules) => match hypothesis(set, request) {
            Hypothesis::Permitted(needed) => Decision::Ask(Ask {
                basis,
                needed,
                reason: joined_reason(&rules),
                facts: explain::facts_of(&rules, &facts),
                next: first_next(&rules),
                in_every_mode: rules.iter().any(|rule| rule.always),
                rules: references(&rules),
            }),
            // What no approval lifts is the reason to tell; the rest would send people to collect
            // approvals for nothing.
            Hypothesis::Forbidden(lasting) => Decision::Deny(forbidden(basis, &lasting, &facts)),
            Hypothesis::NoPermit => {
                let every = rules.iter().any(|rule| rule.always);
                Decision::Deny(no_permit(
                    set,
                    request,
                    &facts,
                    &evaluation.input,
                    basis,
                    every,
                ))
            }
            Hypothesis::NotAskable => Decision::Deny(forbidden(basis, &rules, &facts)),
        },
        Verdict::NoPermit => match hypothesis(set, request) {
            Hypothesis::Permitted(needed) => {
                let denial = no_permit(set, request, &facts, &evaluation.input, basis, false);
                Decision::Ask(Ask {
                    basis,
                    needed,
                    rules: denial.rules,
                    reason: denial.reason,
                    facts: denial.facts,
                    next: denial.next,
                    in_every_mode: false,
                })
            }
            Hypothesis::Forbidden(_) | Hypothesis::NoPermit | Hypothesis::NotAskable => {
                Decision::Deny(no_permit(
                    set,
                    request,
                    &facts,
                    &evaluation.input,
                    basis,
                    false,
                ))
            }
        },
    }
}

/// What evaluating the rules once says.
pub(crate) enum Verdict<'a> {
    Permitted(Vec<&'a Rule>),
    Forbidden(Vec<&'a Rule>),
    NoPermit,
    Failed(Vec<(Option<&'a Rule>, String)>),
}

/// A request in Cedar's terms.
pub(crate) struct Input {
    pub(crate) request: cedar_policy::Request,
    pub(crate) entities: Entities,
}

pub(crate) struct Evaluation<'a> {
    pub(crate) verdict: Verdict<'a>,
    pub(crate) input: Input,
}

impl<'a> Evaluation<'a> {
    /// Evaluates the rules about such a request.
    pub(crate) fn of(set: &'a PolicySet, request: &Request, facts: &Facts) -> Result<Self, String> {
        let input = Input::of(&set.vocabulary, facts)?;
        let rules = set
            .slice(
                facts.action,
                facts.principal.kind,
                request.action.reduces_authority(),
            )
            .ok_or_else(|| format!("no rules were loaded for {}", facts.action))?;
        let response = set
            .authorizer
            .is_authorized(&input.request, rules, &input.entities);
        let errors: Vec<_> = response
            .diagnostics()
            .errors()
            .map(|error| {
                let cedar_policy::AuthorizationError::PolicyEvaluationError(inner) = error;
                (set.rule(inner.policy_id()), inner.inner().to_string())
            })
            .collect();
        if !errors.is_empty() {
            let verdict = Verdict::Failed(errors);
            return Ok(Self { verdict, input });
        }
        let mut determining: Vec<usize> = response
            .diagnostics()
            .reason()
            .filter_map(|id| set.index_of.get(id).copied())
            .collect();
        determining.sort_unstable();
        let determining: Vec<&Rule> = determining
            .into_iter()
            .filter_map(|index| set.rules.get(index))
            .collect();
        let verdict = match response.decision() {
            cedar_policy::Decision::Allow => Verdict::Permitted(determining),
            cedar_policy::Decision::Deny if determining.is_empty() => Verdict::NoPermit,
            cedar_policy::Decision::Deny => Verdict::Forbidden(determining),
        };
        Ok(Self { verdict, input })
    }
}

impl PolicySet {
    fn rule(&self, id: &cedar_policy::PolicyId) -> Option<&Rule> {
        self.rules.get(*self.index_of.get(id)?)
    }
}

/// What further approvals would change.
enum Hypothesis<'a> {
    /// These are the fewest with which it would be permitted.
    Permitted(Needed),
    /// With any number of them these rules still forbid it.
    Forbidden(Vec<&'a Rule>),
    /// With any number of them no rule permits it.
    NoPermit,
    /// Approvals are no fact of such a request, or a rule fails with them.
    NotAskable,
}

fn hypothesis<'a>(set: &'a PolicySet, request: &Request) -> Hypothesis<'a> {
    if request.action.approvals().is_none() {
        return Hypothesis::NotAskable;
    }
    let administrators = request.action.asks_administrators();
    let verdict = |more: Needed| {
        let facts = Facts::of(request, Some(more));
        Evaluation::of(set, request, &facts).map(|evaluation| evaluation.verdict)
    };
    match verdict(approvals::strongest(administrators)) {
        Ok(Verdict::Permitted(_)) => approvals::hypotheses(administrators)
            .find(|more| matches!(verdict(*more), Ok(Verdict::Permitted(_))))
            .map_or(Hypothesis::NotAskable, Hypothesis::Permitted),
        Ok(Verdict::Forbidden(rules)) => Hypothesis::Forbidden(rules),
        Ok(Verdict::NoPermit) => Hypothesis::NoPermit,
        Ok(Verdict::Failed(_)) | Err(_) => Hypothesis::NotAskable,
    }
}

fn forbidden(basis: Basis, rules: &[&Rule], facts: &Facts) -> Denial {
    Denial {
        basis,
        cause: DenialCause::Forbidden,
        rules: references(rules),
        reason: joined_reason(rules),
        needed: explain::lifted_by(rules),
        facts: explain::facts_of(rules, facts),
        next: first_next(rules),
        in_every_mode: rules.iter().any(|rule| rule.always),
    }
}

fn no_permit(
    set: &PolicySet,
    request: &Request,
    facts: &Facts,
    input: &Input,
    basis: Basis,
    in_every_mode: bool,
) -> Denial {
    let nearest = explain::nearest_permit(set, request, facts, input);
    let what = facts.action;
    let (rules, needed, against, next) = match &nearest {
        Some(near) => (
            vec![near.rule.at.clone()],
            near.rule.needs.clone(),
            near.against.clone(),
            near.rule.next.clone(),
        ),
        None => (
            Vec::new(),
            None,
            Vec::new(),
            format!("Ask an administrator for a permit for {what} in the organisation's policy."),
        ),
    };
    Denial {
        basis,
        cause: DenialCause::NoPermit,
        reason: format!("No rule permits {what} here."),
        needed,
        facts: against,
        next,
        in_every_mode,
        rules,
    }
}

fn failed(basis: Basis, errors: &[(Option<&Rule>, String)]) -> Denial {
    let rules: Vec<&Rule> = errors.iter().filter_map(|(rule, _)| *rule).collect();
    Denial {
        basis,
        cause: DenialCause::PolicyError,
        rules: references(&rules),
        reason: "A rule could not be evaluated, so nothing is granted.".to_owned(),
        needed: None,
        facts: errors.iter().map(|(_, error)| error.clone()).collect(),
        next: "Mend the rule named and activate the policy again: `portcullis policy check`."
            .to_owned(),
        in_every_mode: true,
    }
}

/// A request that can't even be put to the rules. It is our own defect, and denies.
fn broken(set: &PolicySet, request: Digest, at: LedgerIndex, error: &str) -> Decision {
    Decision::Deny(Denial {
        basis: Basis {
            at,
            policy: set.digest(),
            request,
        },
        cause: DenialCause::PolicyError,
        rules: Vec::new(),
        reason: "The request could not be put to the rules, so nothing is granted.".to_owned(),
        needed: None,
        facts: vec![error.to_owned()],
        next: "This is a defect of Portcullis; please report it.".to_owned(),
        in_every_mode: true,
    })
}

pub(crate) fn references(rules: &[&Rule]) -> Vec<RuleRef> {
    rules.iter().map(|rule| rule.at.clone()).collect()
}

/// Most reasons that one message joins; the rules are all named beside it.
const REASONS_MAX: usize = 3;

fn joined_reason(rules: &[&Rule]) -> String {
    let mut reasons: Vec<&str> = Vec::new();
    for rule in rules {
        if !reasons.contains(&rule.reason.as_str()) {
            reasons.push(&rule.reason);
        }
    }
    reasons.truncate(REASONS_MAX);
    reasons.join(" ")
}

fn first_next(rules: &[&Rule]) -> String {
    rules
        .first()
        .map(|rule| rule.next.clone())
        .unwrap_or_default()
}

impl Input {
    /// Puts the facts in Cedar's terms.
    pub(crate) fn of(vocabulary: &Vocabulary, facts: &Facts) -> Result<Self, String> {
        let mut entities = Vec::with_capacity(facts.things.len());
        for thing in &facts.things {
            let parents: HashSet<EntityUid> = thing
                .parents
                .iter()
                .map(|parent| uid(vocabulary, parent))
                .collect::<Result<_, _>>()?;
            let attributes: HashMap<String, RestrictedExpression> =
                fields(vocabulary, &thing.attributes)?.collect();
            entities.push(
                Entity::new(uid(vocabulary, &thing.uid)?, attributes, parents)
                    .map_err(|error| error.to_string())?,
            );
        }
        let entities =
            Entities::from_entities(entities, None).map_err(|error| error.to_string())?;
        let context = Context::from_pairs(fields(vocabulary, &facts.context)?)
            .map_err(|error| error.to_string())?;
        // Rules are validated strictly, so a request of another shape ends in an evaluation error,
        // and that denies. Builds with debug assertions, and so every test, look at the shape too.
        let checked = cfg!(debug_assertions).then_some(&vocabulary.schema);
        let action = vocabulary
            .actions
            .get(facts.action)
            .ok_or_else(|| format!("the schema has no action {}", facts.action))?;
        let request = cedar_policy::Request::new(
            uid(vocabulary, &facts.principal)?,
            action.clone(),
            uid(vocabulary, &facts.resource)?,
            context,
            checked,
        )
        .map_err(|error| error.to_string())?;
        Ok(Self { request, entities })
    }
}

fn uid(vocabulary: &Vocabulary, uid: &Uid) -> Result<EntityUid, String> {
    let kind = vocabulary
        .types
        .get(uid.kind)
        .ok_or_else(|| format!("the schema has no entity type {}", uid.kind))?;
    Ok(EntityUid::from_type_name_and_id(
        kind.clone(),
        EntityId::new(&uid.id),
    ))
}

fn fields(
    vocabulary: &Vocabulary,
    attributes: &Attributes,
) -> Result<std::vec::IntoIter<(String, RestrictedExpression)>, String> {
    let fields: Vec<_> = attributes
        .iter()
        .map(|(name, value)| Ok(((*name).to_owned(), expression(vocabulary, value)?)))
        .collect::<Result<_, String>>()?;
    Ok(fields.into_iter())
}

fn expression(vocabulary: &Vocabulary, value: &Value) -> Result<RestrictedExpression, String> {
    Ok(match value {
        Value::Bool(value) => RestrictedExpression::new_bool(*value),
        Value::Long(value) => RestrictedExpression::new_long(*value),
        Value::Text(value) => RestrictedExpression::new_string(value.clone()),
        Value::Texts(values) => RestrictedExpression::new_set(
            values
                .iter()
                .map(|value| RestrictedExpression::new_string(value.clone())),
        ),
        Value::Entity(value) => RestrictedExpression::new_entity_uid(uid(vocabulary, value)?),
        Value::Entities(values) => {
            let uids: Vec<_> = values
                .iter()
                .map(|value| uid(vocabulary, value).map(RestrictedExpression::new_entity_uid))
                .collect::<Result<_, _>>()?;
            RestrictedExpression::new_set(uids)
        }
        Value::Record(values) => RestrictedExpression::new_record(fields(vocabulary, values)?)
            .map_err(|error| error.to_string())?,
    })
}
