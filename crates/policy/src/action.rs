//! What can be asked: one struct of facts per action.
//!
//! Counts are whole numbers, sizes are bytes, times are milliseconds. Sets hold short names that
//! policies can match on; what they are is said at each field.

mod govern;
pub(crate) mod kind;
mod ship;
mod work;

use serde::{Deserialize, Serialize};

pub use govern::*;
pub use ship::*;
pub use work::*;

/// An act with its resource and its facts. In files it is one table named by the action, such as
/// `[action."git.push"]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// A task is signed for an agent.
    #[serde(rename = "task.sign")]
    TaskSign(TaskSign),
    /// A run starts.
    #[serde(rename = "run.start")]
    RunStart(RunStart),
    /// A run goes on after it was looked at.
    #[serde(rename = "run.continue")]
    RunContinue(RunContinue),
    /// A run is ended before its time.
    #[serde(rename = "run.stop")]
    RunStop(RunStop),
    /// A repository is read.
    #[serde(rename = "git.fetch")]
    GitFetch(GitFetch),
    /// One ref is to be updated.
    #[serde(rename = "git.push")]
    GitPush(GitPush),
    /// A model endpoint is called.
    #[serde(rename = "model.call")]
    ModelCall(ModelCall),
    /// A network host is contacted.
    #[serde(rename = "net.connect")]
    NetConnect(NetConnect),
    /// A credential or right is lent to a run.
    #[serde(rename = "lease.issue")]
    LeaseIssue(LeaseIssue),
    /// A change lands on its target ref.
    #[serde(rename = "change.land")]
    ChangeLand(ChangeLand),
    /// A commit that reached upstream past us is accepted.
    #[serde(rename = "commit.accept")]
    CommitAccept(CommitAccept),
    /// A person approves a request.
    #[serde(rename = "request.approve")]
    RequestApprove(RequestApprove),
    /// A person rejects a request.
    #[serde(rename = "request.reject")]
    RequestReject(RequestReject),
    /// A job is run.
    #[serde(rename = "job.run")]
    JobRun(JobRun),
    /// An artifact is admitted to an environment.
    #[serde(rename = "release.admit")]
    ReleaseAdmit(ReleaseAdmit),
    /// A release is revoked.
    #[serde(rename = "release.revoke")]
    ReleaseRevoke(ReleaseRevoke),
    /// A rollout is commanded.
    #[serde(rename = "rollout.command")]
    RolloutCommand(RolloutCommand),
    /// A record of the inventory changes.
    #[serde(rename = "inventory.change")]
    InventoryChange(InventoryChange),
    /// A policy takes effect.
    #[serde(rename = "policy.activate")]
    PolicyActivate(PolicyActivate),
    /// A repository's stage changes its mode.
    #[serde(rename = "mode.change")]
    ModeChange(ModeChange),
    /// The breaker is tripped.
    #[serde(rename = "breaker.trip")]
    BreakerTrip(BreakerTrip),
    /// The breaker is reset.
    #[serde(rename = "breaker.reset")]
    BreakerReset(BreakerReset),
}
