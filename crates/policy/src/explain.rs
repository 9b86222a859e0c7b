//! Why a decision is as it is: the facts a rule looked at, the permit that came nearest, and the
//! whole story for `portcullis policy explain`.

use std::fmt::Write as _;

use crate::decide::{Evaluation, Input, Verdict, decide};
use crate::decision::Decision;
use crate::facts::Facts;
use crate::request::Request;
use crate::rule::{Clause, Rule};
use crate::set::PolicySet;
use crate::source::Layer;

/// The facts that the rules looked at, as `name is value`, those of the first rule first. Who acts
/// and what the genesis says is left out where there is more to say.
pub(crate) fn facts_of(rules: &[&Rule], facts: &Facts) -> Vec<String> {
    let clauses = rules.iter().flat_map(|rule| &rule.clauses);
    telling(clauses, facts)
}

fn telling<'a>(clauses: impl Iterator<Item = &'a Clause>, facts: &Facts) -> Vec<String> {
    let mut paths: Vec<&String> = Vec::new();
    for path in clauses.flat_map(|clause| &clause.facts) {
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    let (background, telling): (Vec<&String>, Vec<&String>) = paths
        .into_iter()
        .partition(|path| *path == "context.kind" || path.starts_with("context.genesis."));
    let chosen = if telling.is_empty() {
        background
    } else {
        telling
    };
    shown(chosen, facts)
}

fn shown<'a>(paths: impl IntoIterator<Item = &'a String>, facts: &Facts) -> Vec<String> {
    paths
        .into_iter()
        .filter_map(|path| {
            let value = facts.at(path)?;
            let name = path.strip_prefix("context.").unwrap_or(path);
            Some(format!("{name} is {value}"))
        })
        .collect()
}

/// What stands under `unless` in the rules, if anything does.
pub(crate) fn lifted_by(rules: &[&Rule]) -> Option<String> {
    let of_rule = |rule: &&Rule| {
        let lifting: Vec<&str> = rule
            .clauses
            .iter()
            .filter(|clause| clause.unless)
            .map(|clause| clause.text.as_str())
            .collect();
        (!lifting.is_empty()).then(|| lifting.join(" or "))
    };
    let lifting: Vec<String> = rules.iter().filter_map(of_rule).collect();
    (!lifting.is_empty()).then(|| lifting.join("; and "))
}

/// The permit whose scope fits and of whose conditions the fewest fail.
pub(crate) struct Nearest<'a> {
    pub(crate) rule: &'a Rule,
    /// The facts that its failing conditions use.
    pub(crate) against: Vec<String>,
}

pub(crate) fn nearest_permit<'a>(
    set: &'a PolicySet,
    request: &Request,
    facts: &Facts,
    input: &Input,
) -> Option<Nearest<'a>> {
    let base_only = request.action.reduces_authority();
    let candidates = set.rules.iter().filter(|rule| {
        rule.permits
            && (rule.layer == Layer::Base || !base_only)
            && rule.is_about_action(facts.action)
    });
    let (_, _, rule, failing) = candidates
        .enumerate()
        .map(|(order, rule)| {
            let failing = failing(set, input, rule);
            let scope_fails = !holds(set, input, &rule.scope);
            // A permit for another kind of principal comes last, however few conditions it has.
            (
                usize::from(scope_fails) * 1_000 + failing.len(),
                order,
                rule,
                failing,
            )
        })
        .min_by_key(|(distance, order, ..)| (*distance, *order))?;
    Some(Nearest {
        rule,
        against: telling(failing.into_iter(), facts),
    })
}

fn failing<'a>(set: &PolicySet, input: &Input, rule: &'a Rule) -> Vec<&'a Clause> {
    rule.clauses
        .iter()
        .filter(|clause| !holds(set, input, &clause.probe))
        .collect()
}

fn holds(set: &PolicySet, input: &Input, probe: &cedar_policy::PolicySet) -> bool {
    let response = set
        .authorizer
        .is_authorized(&input.request, probe, &input.entities);
    response.decision() == cedar_policy::Decision::Allow
}

/// The story of a decision for a person: what was asked, what was decided by which rules, and for
/// each rule about such an act whether it applied, and if not, which condition failed.
pub fn explain(set: &PolicySet, request: &Request) -> String {
    let facts = Facts::of(request, None);
    let mut out = String::new();
    // Writing to a String can't fail.
    let _ = write_story(&mut out, set, request, &facts);
    out
}

fn write_story(
    out: &mut String,
    set: &PolicySet,
    request: &Request,
    facts: &Facts,
) -> std::fmt::Result {
    let kind = request.kind();
    writeln!(
        out,
        "{} (kind {kind}) asks for {} on {}",
        facts.principal, facts.action, facts.resource
    )?;
    match decide(set, request, 0) {
        Decision::Permit(permit) => {
            writeln!(out, "permitted")?;
            for rule in permit.rules() {
                writeln!(out, "  rule: {rule}")?;
            }
        }
        Decision::Deny(denial) => {
            writeln!(out, "denied: {}", portcullis_model::Refusal::from(&denial))?;
        }
        Decision::Ask(ask) => {
            writeln!(out, "ask: {}", portcullis_model::Refusal::from(&ask))?;
        }
    }
    if request.action.reduces_authority() {
        writeln!(
            out,
            "\nthis only takes authority away, so the base alone decides"
        )?;
    }
    writeln!(out, "\nrules about {}:", facts.action)?;
    let evaluation = match Evaluation::of(set, request, facts) {
        Ok(evaluation) => evaluation,
        Err(error) => return writeln!(out, "  none can be evaluated: {error}"),
    };
    let base_only = request.action.reduces_authority();
    for rule in &set.rules {
        if rule.is_about_action(facts.action) && (rule.layer == Layer::Base || !base_only) {
            write_rule(out, set, rule, &evaluation, facts)?;
        }
    }
    Ok(())
}

fn write_rule(
    out: &mut String,
    set: &PolicySet,
    rule: &Rule,
    evaluation: &Evaluation<'_>,
    facts: &Facts,
) -> std::fmt::Result {
    let effect = if rule.permits { "permit" } else { "forbid" };
    if let Verdict::Failed(errors) = &evaluation.verdict
        && let Some((_, error)) = errors
            .iter()
            .find(|(failed, _)| failed.is_some_and(|failed| failed.at == rule.at))
    {
        return writeln!(
            out,
            "  fails    {effect} {} [{}]: {error}",
            rule.at, rule.layer
        );
    }
    let fits = holds(set, &evaluation.input, &rule.scope);
    let failing = failing(set, &evaluation.input, rule);
    if fits && failing.is_empty() {
        return writeln!(out, "  applies  {effect} {} [{}]", rule.at, rule.layer);
    }
    let why = match failing.first() {
        _ if !fits => "about other principals or resources".to_owned(),
        Some(clause) => {
            let values = shown(&clause.facts, facts).join(", ");
            let not = if clause.unless { "unless " } else { "" };
            format!("{not}{} ({values})", clause.text)
        }
        None => String::new(),
    };
    writeln!(
        out,
        "  does not {effect} {} [{}]: {why}",
        rule.at, rule.layer
    )
}
