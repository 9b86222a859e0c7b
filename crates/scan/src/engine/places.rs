//! Which branch or tag a push goes to.

use super::Reference;
use super::credentials::variables;
use super::scope::{DEPTH_MAX, Names};
use crate::acts::Target;
use crate::expr::{self, Value};

impl Names<'_> {
    /// The branch or tag that a push goes to; `None` for another repository.
    pub(super) fn destination(&self, target: &Target) -> Option<Reference> {
        match target {
            Target::Elsewhere(_) => None,
            Target::Tags(Some(name)) if self.checks_out(name) => Some(self.named(name, 0)),
            Target::Tags(name) => Some(Reference::Tag(name.clone())),
            Target::Current | Target::CurrentAndTags => Some(self.current()),
            Target::Branch(template) => Some(self.named(template, 0)),
        }
    }

    /// Whether the job checks out something of that name: what it pushes under it is a branch.
    fn checks_out(&self, name: &str) -> bool {
        self.job.is_some_and(|job| {
            job.steps.iter().any(|step| {
                step.checkout
                    .as_ref()
                    .is_some_and(|checkout| checkout.reference.as_deref() == Some(name))
            })
        })
    }

    /// What a checkout without a reference gives.
    fn current(&self) -> Reference {
        let event = self.run.event;
        if self.run.event_name == "pull_request"
            || matches!(
                self.run.event_name,
                "pull_request_review" | "pull_request_review_comment"
            )
        {
            return Reference::Other;
        }
        match event.name {
            "push" | "workflow_dispatch" | "create" => match &event.reference {
                // A tag is checked out without a branch: a plain push fails.
                Reference::Tag(_) => Reference::Other,
                other => other.clone(),
            },
            _ => Reference::Default,
        }
    }

    fn named(&self, template: &str, depth: u8) -> Reference {
        if template == "{default}" {
            return Reference::Default;
        }
        let mut name = template.trim().to_owned();
        if name.contains("${{") {
            match expr::template(&name, self) {
                Value::Text(text) => name = text,
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::Login
                | Value::App
                | Value::UpdateTitle
                | Value::Open
                | Value::Fact(_) => {
                    let lower = name.to_lowercase();
                    let default = lower.contains("default_branch")
                        || lower.contains("default-branch")
                        || lower.contains("base");
                    return if default {
                        Reference::Default
                    } else {
                        Reference::Other
                    };
                }
            }
        }
        let name = name
            .strip_prefix("refs/heads/")
            .unwrap_or(&name)
            .trim_matches('"')
            .to_owned();
        if name.is_empty() {
            return self.current();
        }
        if name.contains('$') {
            let lower = name.to_ascii_lowercase();
            if [
                "github_ref_name",
                "github_ref",
                "ci_commit_ref_name",
                "ci_commit_branch",
                "build_sourcebranchname",
                "circle_branch",
                "git rev-parse --abbrev-ref",
                "git branch --show-current",
            ]
            .iter()
            .any(|known| lower.contains(known))
            {
                return self.current();
            }
            if lower.contains("default_branch") {
                return Reference::Default;
            }
            if depth < DEPTH_MAX {
                for variable in variables(&name) {
                    for layer in self.env.iter().rev() {
                        if let Some((_, value)) = layer.iter().find(|(key, _)| *key == variable)
                            && value != &name
                        {
                            return self.named(value, depth + 1);
                        }
                    }
                }
            }
            return Reference::Other;
        }
        if name == self.run.default_branch()
            || name.rsplit_once("refs/tags/").is_some_and(|_| false)
        {
            return Reference::Default;
        }
        if matches!(self.run.event_name, "pull_request") && name == "1/merge" {
            return Reference::Other;
        }
        if let Some(tag) = name.strip_prefix("refs/tags/") {
            return Reference::Tag(Some(tag.to_owned()));
        }
        Reference::Branch(name)
    }
}
