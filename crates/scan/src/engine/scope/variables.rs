//! Variables of GitLab and the other systems, which their readers mark with a dollar.

use super::super::{Actor, Reference};
use super::{Names, text};
use crate::expr::Value;
use crate::workflow::System;

impl Names<'_> {
    /// GitLab's and the other systems' variables.
    pub(super) fn variable(&self, path: &str) -> Value {
        let run = self.run;
        let event = run.event;
        let name = path.trim_start_matches('$').trim_matches(['{', '}']);
        let branch = || match &event.reference {
            Reference::Default => text(run.default_branch()),
            Reference::Branch(name) => text(name),
            Reference::Other => text("some-branch"),
            Reference::Tag(_) => Value::Null,
        };
        let merge_request = event.name == "pull_request";
        if let Some(patterns) = path.strip_prefix("$changes ") {
            let files = match &event.pull_request {
                Some(pull) => pull.files.as_ref().or(event.files.as_ref()),
                None => event.files.as_ref(),
            };
            // Other pipelines than those of pushes count every file as changed.
            let changed = match files {
                Some(files) => patterns.lines().any(|pattern| {
                    files.iter().any(|file| {
                        crate::glob::matches(pattern, file)
                            || crate::glob::matches(&pattern.replace("/**/*", "/**"), file)
                    })
                }),
                None => true,
            };
            return Value::Bool(changed);
        }
        if run.workflow.system == System::GitHub {
            return self.environment(name);
        }
        match name {
            "ci_pipeline_source" => text(match event.name {
                "pull_request" => "merge_request_event",
                "workflow_dispatch" => "web",
                "repository_dispatch" => "trigger",
                other => other,
            }),
            "ci_commit_branch" => {
                if merge_request {
                    Value::Null
                } else {
                    branch()
                }
            }
            "ci_commit_ref_name" | "ci_commit_ref_slug" => match event.reference {
                Reference::Tag(_) => text("v1.2.3"),
                Reference::Default | Reference::Branch(_) | Reference::Other => branch(),
            },
            "ci_default_branch" => text(run.default_branch()),
            "ci_commit_tag" => match event.reference {
                Reference::Tag(_) => text("v1.2.3"),
                Reference::Default | Reference::Branch(_) | Reference::Other => Value::Null,
            },
            "ci_merge_request_id" | "ci_merge_request_iid" => {
                if merge_request {
                    text("1")
                } else {
                    Value::Null
                }
            }
            "ci_merge_request_target_branch_name" => {
                if merge_request {
                    text(run.default_branch())
                } else {
                    Value::Null
                }
            }
            "ci_commit_ref_protected" => match event.reference {
                Reference::Default | Reference::Tag(_) => text("true"),
                Reference::Branch(_) | Reference::Other => text("false"),
            },
            "gitlab_user_login" => Self::login(&event.actor),
            "ci_project_path" => run.slug().map_or(Value::Open, text),
            _ => {
                for layer in self.env.iter().rev() {
                    if let Some((_, value)) =
                        layer.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))
                    {
                        return text(value);
                    }
                }
                // A CI variable of the project, or of the one who starts the pipeline.
                if event.actor == Actor::Person {
                    Value::Open
                } else {
                    Value::Null
                }
            }
        }
    }
}
