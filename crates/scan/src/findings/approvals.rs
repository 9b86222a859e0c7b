//! How approvals are given here: by people, by bots, by a label, by anyone.

use super::asks_last_actor;
use crate::acts::Op;
use crate::bots::Duty;
use crate::report::{Approval, ApprovalClass};
use crate::repository::{Repository, each_step};

/// How an approval by a spoofable check begins; `spoofable-actor-check` says more about those.
pub(super) const LAST_ACTOR: &str = "a merge asks who caused the last event";

/// How approvals are given here.
pub(crate) fn approvals(repository: &Repository) -> Vec<Approval> {
    let mut out = Vec::new();
    let mut add = |class: ApprovalClass, what: String, file: &str, line: usize| {
        out.push(Approval {
            class,
            what,
            file: file.to_owned(),
            line,
        });
    };
    for workflow in &repository.subject.workflows {
        for job in &workflow.jobs {
            if let Some((name, line)) = &job.environment
                && name != "github-pages"
            {
                add(
                    ApprovalClass::Human,
                    format!("the environment {name} may ask for reviewers"),
                    &workflow.file,
                    *line,
                );
            }
        }
        each_step(workflow, &mut |job, step| {
            for act in &step.acts {
                match &act.op {
                    Op::Approve => add(
                        ApprovalClass::Bot,
                        format!("“{}” approves pull requests", act.what),
                        &act.file,
                        act.line,
                    ),
                    Op::Merge {
                        label: Some(label), ..
                    } => add(
                        ApprovalClass::SelfAttested,
                        format!("a merge waits for the label {label}"),
                        &act.file,
                        act.line,
                    ),
                    Op::Merge { .. } => {
                        let text = job
                            .condition
                            .iter()
                            .chain(step.condition.iter())
                            .map(|condition| condition.text.to_lowercase())
                            .collect::<Vec<_>>()
                            .join(" ");
                        if text.contains("label") {
                            add(
                                ApprovalClass::SelfAttested,
                                format!("a merge waits for a label: {text}"),
                                &act.file,
                                act.line,
                            );
                        } else if text.contains("comment.body")
                            && !text.contains("author_association")
                        {
                            add(
                                ApprovalClass::Forgeable,
                                format!("a merge waits for a comment by anyone: {text}"),
                                &act.file,
                                act.line,
                            );
                        } else if text.contains("review.state")
                            && !text.contains("author_association")
                        {
                            add(
                                ApprovalClass::Forgeable,
                                format!("a merge waits for a review by anyone: {text}"),
                                &act.file,
                                act.line,
                            );
                        } else if job
                            .condition
                            .iter()
                            .chain(step.condition.iter())
                            .any(asks_last_actor)
                        {
                            add(
                                ApprovalClass::Forgeable,
                                format!("{LAST_ACTOR}: {text}"),
                                &act.file,
                                act.line,
                            );
                        }
                    }
                    Op::Check(crate::acts::Check::Person(what)) => add(
                        ApprovalClass::Human,
                        (*what).to_owned(),
                        &act.file,
                        act.line,
                    ),
                    Op::Push(_)
                    | Op::CreatePr(_)
                    | Op::Label(_)
                    | Op::Comment(_)
                    | Op::Issue
                    | Op::Tag(_)
                    | Op::Release { .. }
                    | Op::Publish
                    | Op::Deploy { .. }
                    | Op::Dispatch { .. }
                    | Op::RepositoryDispatch { .. }
                    | Op::Retarget(_)
                    | Op::Check(_)
                    | Op::Local(_) => {}
                }
            }
        });
    }
    for bot in &repository.subject.bots {
        if let Duty::Merges {
            needs, approves, ..
        } = &bot.duty
        {
            if *approves {
                add(
                    ApprovalClass::Bot,
                    format!("{} approves pull requests", bot.product),
                    &bot.file,
                    bot.line,
                );
            }
            for need in needs {
                match need {
                    crate::bots::Need::Label(label) => add(
                        ApprovalClass::SelfAttested,
                        format!("{} waits for the label {label}", bot.product),
                        &bot.file,
                        bot.line,
                    ),
                    crate::bots::Need::Review(text) => add(
                        ApprovalClass::Human,
                        format!("{} waits for {text}", bot.product),
                        &bot.file,
                        bot.line,
                    ),
                    crate::bots::Need::Command(text) => add(
                        ApprovalClass::Human,
                        format!("{}: {text}", bot.product),
                        &bot.file,
                        bot.line,
                    ),
                    crate::bots::Need::Fact(text) => {
                        add(ApprovalClass::Forgeable, text.clone(), &bot.file, bot.line)
                    }
                }
            }
        }
    }
    if let Some(file) = &repository.subject.codeowners {
        add(
            ApprovalClass::Human,
            "code owners may have to review".to_owned(),
            file,
            1,
        );
    }
    out.sort_by(|a, b| {
        (a.class, &a.file, a.line, &a.what).cmp(&(b.class, &b.file, b.line, &b.what))
    });
    out.dedup();
    out
}
