//! What the credentials of a run may do, and every sink that the files hold.

use super::perform::sink_name;
use super::run::{Restriction, Run};
use super::{Assumption, Credential, Engine};
use crate::acts::{Op, SinkKind, is_rehearsal};
use crate::workflow::{Job, Step, System};

/// Whether an act with this credential has the right to do what it does.
pub(super) fn permitted(
    engine: &mut Engine<'_>,
    run: &Run<'_>,
    job: &Job,
    credential: &Credential,
    scopes: &[&str],
) -> bool {
    match credential {
        Credential::None => false,
        Credential::Secret(_) | Credential::App(_) | Credential::DeployKey(_) => {
            run.restricted != Restriction::Nothing
        }
        Credential::Limited(writes) => {
            run.restricted != Restriction::Nothing
                && scopes
                    .iter()
                    .all(|scope| writes.iter().any(|known| known == scope))
        }
        Credential::Outside => run.restricted == Restriction::Full,
        Credential::Default => {
            if run.workflow.system != System::GitHub {
                return false;
            }
            let mut all = true;
            for scope in scopes {
                match token_writes(run, job, scope) {
                    Some(yes) => all &= yes,
                    None => {
                        let default = run.subject.settings.as_ref().and_then(|settings| {
                            settings.actions.default_workflow_permissions.clone()
                        });
                        if engine.assumption == Assumption::Settings
                            && default.as_deref() == Some("read")
                        {
                            all = false;
                        } else {
                            engine.assume("the default workflow token may write, where a workflow does not say");
                        }
                    }
                }
            }
            all
        }
    }
}

/// Whether the job's own token may write `scope`: `None` where only the default decides.
pub(super) fn token_writes(run: &Run<'_>, job: &Job, scope: &str) -> Option<bool> {
    if run.workflow.system != System::GitHub {
        return Some(false);
    }
    if run.restricted == Restriction::Nothing {
        return Some(false);
    }
    let declared = job
        .permissions
        .as_ref()
        .or(run.workflow.permissions.as_ref());
    if let Some(cap) = &run.cap
        && !cap.writes(scope)
    {
        return Some(false);
    }
    match declared {
        Some(permissions) => Some(permissions.writes(scope)),
        // A called workflow has what its caller gives it.
        None if run.cap.is_some() => Some(true),
        None if run.restricted == Restriction::ReadByDefault => Some(false),
        None => None,
    }
}

impl Engine<'_> {
    /// Notes every sink that the files hold, so that those no way reaches are told too.
    pub(super) fn register_sinks(&mut self, repository: usize) {
        let Some(subject) = self.subject(repository) else {
            return;
        };
        for workflow in &subject.workflows {
            for job in &workflow.jobs {
                let rehearsal = job
                    .environment
                    .as_ref()
                    .is_some_and(|(name, _)| is_rehearsal(name));
                for step in &job.steps {
                    self.register_step(repository, step, rehearsal);
                }
            }
        }
    }

    fn register_step(&mut self, repository: usize, step: &Step, rehearsal: bool) {
        for act in &step.acts {
            let kind = match &act.op {
                Op::Publish => SinkKind::Publish,
                Op::Deploy { .. } => SinkKind::Deploy,
                Op::Release { .. } => SinkKind::Release,
                Op::Push(_)
                | Op::CreatePr(_)
                | Op::Merge { .. }
                | Op::Approve
                | Op::Label(_)
                | Op::Comment(_)
                | Op::Issue
                | Op::Tag(_)
                | Op::Dispatch { .. }
                | Op::RepositoryDispatch { .. }
                | Op::Retarget(_)
                | Op::Check(_)
                | Op::Local(_) => continue,
            };
            let benign = act.benign.or_else(|| {
                (rehearsal && kind == SinkKind::Deploy)
                    .then_some("the environment's name says that it is not production")
            });
            self.register(
                repository,
                kind,
                &sink_name(act, kind.word()),
                (&act.file, act.line),
                benign,
            );
        }
        if let Some(inner) = &step.inner {
            for step in &inner.steps {
                self.register_step(repository, step, rehearsal);
            }
        }
    }
}
