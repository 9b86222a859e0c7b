//! What each action is, apart from its facts: its name, whether it only takes authority away,
//! whether modes apply, whose approvals it looks at, and the words of its facts.

use portcullis_model::KeyClass;
use portcullis_model::event::KeyFloor;
use portcullis_model::manifest::Sensitivity;

use super::{
    Action, Deploys, InventoryOperation, InventoryRecord, JobPurpose, RolloutVerb, UpdateKind,
};
use crate::approvals::Approvals;

impl Action {
    /// The action's name in policies, such as `git.push`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TaskSign(_) => "task.sign",
            Self::RunStart(_) => "run.start",
            Self::RunContinue(_) => "run.continue",
            Self::RunStop(_) => "run.stop",
            Self::GitFetch(_) => "git.fetch",
            Self::GitPush(_) => "git.push",
            Self::ModelCall(_) => "model.call",
            Self::NetConnect(_) => "net.connect",
            Self::LeaseIssue(_) => "lease.issue",
            Self::ChangeLand(_) => "change.land",
            Self::CommitAccept(_) => "commit.accept",
            Self::RequestApprove(_) => "request.approve",
            Self::RequestReject(_) => "request.reject",
            Self::JobRun(_) => "job.run",
            Self::ReleaseAdmit(_) => "release.admit",
            Self::ReleaseRevoke(_) => "release.revoke",
            Self::RolloutCommand(_) => "rollout.command",
            Self::InventoryChange(_) => "inventory.change",
            Self::PolicyActivate(_) => "policy.activate",
            Self::ModeChange(_) => "mode.change",
            Self::BreakerTrip(_) => "breaker.trip",
            Self::BreakerReset(_) => "breaker.reset",
        }
    }

    /// Whether the act only takes authority away. Such requests are decided by the base alone, so
    /// that no other policy can stand in their way.
    pub const fn reduces_authority(&self) -> bool {
        match self {
            Self::RunStop(_)
            | Self::RequestReject(_)
            | Self::ReleaseRevoke(_)
            | Self::BreakerTrip(_) => true,
            Self::RolloutCommand(facts) => facts.command.reduces_authority(),
            Self::InventoryChange(facts) => facts.operation.reduces_authority(),
            Self::TaskSign(_)
            | Self::RunStart(_)
            | Self::RunContinue(_)
            | Self::GitFetch(_)
            | Self::GitPush(_)
            | Self::ModelCall(_)
            | Self::NetConnect(_)
            | Self::LeaseIssue(_)
            | Self::ChangeLand(_)
            | Self::CommitAccept(_)
            | Self::RequestApprove(_)
            | Self::JobRun(_)
            | Self::ReleaseAdmit(_)
            | Self::PolicyActivate(_)
            | Self::ModeChange(_)
            | Self::BreakerReset(_) => false,
        }
    }

    /// Whether modes apply: to the stages of the way where something is only let pass. Never to
    /// governance, approvals or whatever takes authority away, and never where we lend something
    /// of ours or start a run: without authority for that there is nothing to observe.
    pub const fn has_mode(&self) -> bool {
        match self {
            Self::GitFetch(_)
            | Self::GitPush(_)
            | Self::NetConnect(_)
            | Self::ChangeLand(_)
            | Self::JobRun(_)
            | Self::ReleaseAdmit(_) => true,
            Self::RolloutCommand(facts) => !facts.command.reduces_authority(),
            Self::TaskSign(_)
            | Self::RunStart(_)
            | Self::RunContinue(_)
            | Self::RunStop(_)
            | Self::ModelCall(_)
            | Self::LeaseIssue(_)
            | Self::CommitAccept(_)
            | Self::RequestApprove(_)
            | Self::RequestReject(_)
            | Self::ReleaseRevoke(_)
            | Self::InventoryChange(_)
            | Self::PolicyActivate(_)
            | Self::ModeChange(_)
            | Self::BreakerTrip(_)
            | Self::BreakerReset(_) => false,
        }
    }

    /// The approvals that stand, for actions that approvals can make possible.
    pub const fn approvals(&self) -> Option<&Approvals> {
        match self {
            Self::RunContinue(facts) => Some(&facts.approvals),
            Self::ChangeLand(facts) => Some(&facts.approvals),
            Self::CommitAccept(facts) => Some(&facts.approvals),
            Self::ReleaseAdmit(facts) => Some(&facts.approvals),
            Self::RolloutCommand(facts) => Some(&facts.approvals),
            Self::InventoryChange(facts) => Some(&facts.approvals),
            Self::PolicyActivate(facts) => Some(&facts.approvals),
            Self::ModeChange(facts) => Some(&facts.approvals),
            Self::BreakerReset(facts) => Some(&facts.approvals),
            Self::TaskSign(_)
            | Self::RunStart(_)
            | Self::RunStop(_)
            | Self::GitFetch(_)
            | Self::GitPush(_)
            | Self::ModelCall(_)
            | Self::NetConnect(_)
            | Self::LeaseIssue(_)
            | Self::RequestApprove(_)
            | Self::RequestReject(_)
            | Self::JobRun(_)
            | Self::ReleaseRevoke(_)
            | Self::BreakerTrip(_) => None,
        }
    }

    /// The least key class that the genesis demands for such an act.
    pub const fn key_floor(&self, floor: &KeyFloor) -> KeyClass {
        match self {
            Self::ChangeLand(_)
            | Self::CommitAccept(_)
            | Self::ReleaseAdmit(_)
            | Self::RolloutCommand(_) => floor.production,
            Self::PolicyActivate(_) => floor.policy,
            Self::BreakerReset(_) => floor.breaker_reset,
            Self::InventoryChange(facts) => match &facts.record {
                InventoryRecord::Human(_)
                | InventoryRecord::Service(_)
                | InventoryRecord::Host(_) => floor.keys,
                InventoryRecord::Agent(_)
                | InventoryRecord::Group(_)
                | InventoryRecord::Repository(_)
                | InventoryRecord::Environment(_)
                | InventoryRecord::Endpoint(_) => KeyClass::Software,
            },
            Self::TaskSign(_)
            | Self::RunStart(_)
            | Self::RunContinue(_)
            | Self::RunStop(_)
            | Self::GitFetch(_)
            | Self::GitPush(_)
            | Self::ModelCall(_)
            | Self::NetConnect(_)
            | Self::LeaseIssue(_)
            | Self::RequestApprove(_)
            | Self::RequestReject(_)
            | Self::JobRun(_)
            | Self::ReleaseRevoke(_)
            | Self::ModeChange(_)
            | Self::BreakerTrip(_) => KeyClass::Software,
        }
    }

    /// Whether the people asked are administrators: where the genesis' quorum decides.
    pub(crate) const fn asks_administrators(&self) -> bool {
        matches!(
            self,
            Self::InventoryChange(_) | Self::PolicyActivate(_) | Self::ModeChange(_)
        )
    }
}

impl RolloutVerb {
    /// Whether the command only takes traffic away from a release.
    pub const fn reduces_authority(self) -> bool {
        matches!(self, Self::Pause | Self::Abort | Self::Rollback)
    }
}

impl InventoryOperation {
    /// Whether the operation only takes authority away.
    pub const fn reduces_authority(self) -> bool {
        matches!(self, Self::Suspend | Self::Retire)
    }
}

macro_rules! words {
    ($name:ty { $($variant:ident => $word:literal),+ $(,)? }) => {
        impl $name {
            /// The word that policies use.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

words!(UpdateKind {
    Create => "create", FastForward => "fast-forward", Force => "force", Delete => "delete",
    Tag => "tag",
});
words!(JobPurpose { Build => "build", Test => "test", Drill => "drill" });
words!(RolloutVerb {
    Start => "start", Step => "step", Promote => "promote", Pause => "pause",
    Resume => "resume", Abort => "abort", Rollback => "rollback",
});
words!(InventoryOperation {
    Add => "add", Change => "change", Resume => "resume", Suspend => "suspend",
    Retire => "retire",
});

impl Deploys {
    /// The word that policies use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::To(class) => sensitivity(class),
        }
    }
}

/// The word that policies use.
pub(crate) const fn sensitivity(class: Sensitivity) -> &'static str {
    match class {
        Sensitivity::Development => "development",
        Sensitivity::Staging => "staging",
        Sensitivity::Production => "production",
    }
}
