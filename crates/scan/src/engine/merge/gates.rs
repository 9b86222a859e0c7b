//! What the protection of a branch or of tags costs a merge, a push and a tag.

use super::super::{Actor, Assumption, Credential, Engine, Gate, Level};
use super::Manner;

/// What a review that a rule demands costs for a pull request of this author.
pub(super) fn review_gate(engine: &Engine<'_>, repository: usize, author: Option<&Actor>) -> Gate {
    let approved = author.and_then(|author| engine.approvals.get(&(repository, author.clone())));
    let human = Gate::Human("a person's approving review of the pull request".to_owned());
    match approved {
        Some((Level::Clear, _)) => by_owners(engine, repository).unwrap_or(Gate::Clear),
        Some((Level::Fact, fact)) => Gate::Fact(fact.clone()),
        Some((Level::Human, _)) | None => human,
    }
}

/// What a review that code owners may have to give costs beside one that automation gave.
fn by_owners(engine: &Engine<'_>, repository: usize) -> Option<Gate> {
    let file = engine.subject(repository)?.codeowners.clone()?;
    Some(Gate::Fact(format!(
        "whether the branch rule also demands a review by code owners ({file})"
    )))
}

/// What landing on the default branch by pull request costs.
pub(super) fn merge_gate(
    engine: &mut Engine<'_>,
    repository: usize,
    author: Option<&Actor>,
    credential: &Credential,
    manner: Manner,
) -> Gate {
    match engine.assumption {
        Assumption::Unprotected => {
            engine.assume("the default branch takes merges without a review");
            Gate::Clear
        }
        Assumption::Protected => {
            engine.assume("the default branch takes only pull requests with one approving review");
            let review = match review_gate(engine, repository, author) {
                Gate::Human(_) if manner.approved => {
                    by_owners(engine, repository).unwrap_or(Gate::Clear)
                }
                other => other,
            };
            if review != Gate::Clear && manner.admin && credential.fires() {
                return Gate::Fact(format!(
                    "whether {} may step over the branch's protection",
                    credential.words()
                ));
            }
            review
        }
        Assumption::Settings => {
            let Some(subject) = engine.subject(repository) else {
                return Gate::Clear;
            };
            let Some(settings) = &subject.settings else {
                return Gate::Clear;
            };
            let rules: Vec<_> = settings
                .branch_rules(&subject.default_branch, true)
                .collect();
            if rules
                .iter()
                .all(|rule| rule.required_approvals == 0 && !rule.require_code_owners)
            {
                return Gate::Clear;
            }
            if manner.admin && rules.iter().all(|rule| bypasses(&rule.bypass, credential)) {
                return Gate::Clear;
            }
            if rules.iter().any(|rule| rule.require_code_owners) && subject.codeowners.is_some() {
                return Gate::Human("a code owner's review of the pull request".to_owned());
            }
            let demanded = rules
                .iter()
                .map(|rule| rule.required_approvals)
                .max()
                .unwrap_or(0);
            let approved =
                author.and_then(|author| engine.approvals.get(&(repository, author.clone())));
            match approved {
                Some((Level::Clear, _))
                    if demanded <= 1
                        && settings.actions.can_approve_pull_requests != Some(false) =>
                {
                    Gate::Clear
                }
                _ => Gate::Human("a person's approving review of the pull request".to_owned()),
            }
        }
    }
}

fn bypasses(list: &[String], credential: &Credential) -> bool {
    let name = match credential {
        Credential::Default => "github-actions",
        Credential::Secret(name) | Credential::App(name) | Credential::DeployKey(name) => {
            name.as_str()
        }
        Credential::None | Credential::Limited(_) | Credential::Outside => return false,
    };
    list.iter().any(|entry| {
        entry.eq_ignore_ascii_case(name)
            || entry.trim_end_matches("[bot]").eq_ignore_ascii_case(name)
    })
}

/// What a direct push to the default branch costs.
pub(super) fn push_gate(
    engine: &mut Engine<'_>,
    repository: usize,
    credential: &Credential,
) -> Gate {
    let edge = "the branch takes changes by reviewed pull request only".to_owned();
    match engine.assumption {
        Assumption::Unprotected => {
            engine.assume("the default branch takes pushes");
            Gate::Clear
        }
        Assumption::Protected => {
            engine.assume("the default branch takes only pull requests with one approving review");
            match credential {
                Credential::Secret(_) | Credential::DeployKey(_) => Gate::Fact(format!(
                    "whether {} may step over the branch's protection",
                    credential.words()
                )),
                Credential::Limited(_) => {
                    Gate::Fact("whether the app may step over the branch's protection".to_owned())
                }
                Credential::App(name) if name.is_empty() => {
                    Gate::Fact("whether the app may step over the branch's protection".to_owned())
                }
                Credential::None
                | Credential::Default
                | Credential::App(_)
                | Credential::Outside => Gate::Human(edge),
            }
        }
        Assumption::Settings => {
            let Some(subject) = engine.subject(repository) else {
                return Gate::Clear;
            };
            let Some(settings) = &subject.settings else {
                return Gate::Clear;
            };
            let mut gate = Gate::Clear;
            for rule in settings.branch_rules(&subject.default_branch, true) {
                let closed =
                    rule.require_pull_request || rule.required_approvals > 0 || rule.restrict;
                if closed && !bypasses(&rule.bypass, credential) {
                    gate = Gate::Human(edge.clone());
                }
            }
            gate
        }
    }
}

/// What making a tag costs.
pub(in crate::engine) fn tag_gate(engine: &mut Engine<'_>, repository: usize) -> Gate {
    match engine.assumption {
        Assumption::Unprotected | Assumption::Protected => Gate::Clear,
        Assumption::Settings => {
            let restricted = engine
                .subject(repository)
                .and_then(|subject| subject.settings.as_ref())
                .is_some_and(crate::settings::Settings::restricts_tags);
            if restricted {
                Gate::Human("a ruleset restricts who makes tags".to_owned())
            } else {
                Gate::Clear
            }
        }
    }
}
