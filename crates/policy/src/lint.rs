//! What a rule must carry beyond being Cedar: annotations that make it explain itself, and what
//! its layer lets it do.

use cedar_policy::Policy;

use crate::rule::{names_actions, permits};
use crate::source::{Layer, Problem, RuleText};

/// Longest `@id` in bytes: it is a code that programs match on.
pub const ID_MAX_BYTES: usize = 64;
/// Longest `@reason`, `@next`, `@needs` or `@always` in bytes: it is printed by a git client.
pub const ANNOTATION_MAX_BYTES: usize = 400;

const KNOWN: [&str; 5] = ["id", "reason", "next", "needs", "always"];

/// Adds the problems of one rule to `problems`.
pub(crate) fn rule(
    layer: Layer,
    source: &RuleText<'_>,
    policy: &Policy,
    problems: &mut Vec<Problem>,
) {
    let mut report = |message: String, next: &str| problems.push(source.problem(0, message, next));
    for (key, example) in [
        ("id", "@id(\"web-needs-two\")"),
        (
            "reason",
            "@reason(\"Changes to the web shop need two people.\")",
        ),
        (
            "next",
            "@next(\"A second reviewer signs: `portcullis approve REQUEST`.\")",
        ),
    ] {
        if policy.annotation(key).unwrap_or_default().trim().is_empty() {
            report(
                format!("the rule has no @{key}"),
                &format!("Write one before `permit` or `forbid`, such as {example}."),
            );
        }
    }
    annotations(policy, &mut report);
    if let Some(id) = policy.annotation("id")
        && !is_slug(id)
    {
        report(
            format!("the id {id:?} is not a stable name"),
            &format!(
                "Use a-z, 0-9 and `-`, beginning with a letter, at most {ID_MAX_BYTES} bytes."
            ),
        );
    }
    if permits(policy) {
        permit(layer, policy, &mut report);
    } else if policy.annotation("needs").is_some() {
        report(
            "a forbid has no use for @needs".to_owned(),
            "Say in @next what would lift it, and write that as `unless { … }`.",
        );
    }
    if layer != Layer::Base && policy.annotation("always").is_some() {
        report(
            "only a base rule holds in every mode".to_owned(),
            "Drop @always; a repository in mode enforce obeys the rule.",
        );
    }
    let takes_base_name = policy
        .annotation("id")
        .is_some_and(|id| id.starts_with("base-"));
    if takes_base_name != (layer == Layer::Base) {
        report(
            "names that begin with `base-` belong to the base".to_owned(),
            "Choose another id.",
        );
    }
}

fn annotations(policy: &Policy, report: &mut impl FnMut(String, &str)) {
    for (key, value) in policy.annotations() {
        if !KNOWN.contains(&key) {
            let nearest = KNOWN
                .iter()
                .min_by_key(|known| distance(known, key))
                .copied()
                .unwrap_or("id");
            report(
                format!("there is no annotation @{key}"),
                &format!(
                    "Did you mean @{nearest}? Known are @id, @reason, @next, and for permits @needs."
                ),
            );
        }
        if value.len() > ANNOTATION_MAX_BYTES || value.chars().any(char::is_control) {
            report(
                format!("@{key} is not one short line"),
                &format!(
                    "Keep it under {ANNOTATION_MAX_BYTES} bytes, without line breaks; it is shown in a terminal."
                ),
            );
        }
    }
}

fn permit(layer: Layer, policy: &Policy, report: &mut impl FnMut(String, &str)) {
    if layer == Layer::Repository {
        report(
            "a repository's own rules can't permit".to_owned(),
            "Write what you want to demand as `forbid … unless { … }`; permits belong to the organisation's policy.",
        );
    }
    if !names_actions(policy) {
        report(
            "this permit names no action, so it would permit future ones too".to_owned(),
            "Name them: `action == Action::\"git.fetch\"` or `action in [ … ]`.",
        );
    }
    if policy
        .annotation("needs")
        .unwrap_or_default()
        .trim()
        .is_empty()
    {
        report(
            "the permit has no @needs".to_owned(),
            "Say which facts it asks for; that is shown when it does not apply.",
        );
    }
}

fn is_slug(id: &str) -> bool {
    id.starts_with(|first: char| first.is_ascii_lowercase())
        && id.len() <= ID_MAX_BYTES
        && id
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Levenshtein distance, for "did you mean".
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut previous = std::mem::replace(&mut row, vec![i + 1]);
        previous.reverse();
        let mut diagonal = previous.pop().unwrap_or_default();
        for b in other.chars() {
            let above = previous.pop().unwrap_or_default();
            let left = row.last().copied().unwrap_or_default();
            row.push(
                (diagonal + usize::from(a != b))
                    .min(above + 1)
                    .min(left + 1),
            );
            diagonal = above;
        }
    }
    row.last().copied().unwrap_or_default()
}
