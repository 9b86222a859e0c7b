//! Exit codes, as published: 0 done, 1 failed, 2 wrong usage, 3 denied or findings, 4 waits for an
//! approval.

use std::process::ExitCode;

use portcullis_model::{Refusal, RefusalKind};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done.
    Done,
    /// 1: failed.
    Failed,
    /// 2: wrong usage, or input that can't be read.
    Usage,
    /// 3: denied, or findings where findings were asked to fail.
    Denied,
    /// 4: it waits for an approval.
    Waits,
}

impl Exit {
    /// The exit of a refusal.
    pub(crate) const fn of(refusal: &Refusal) -> Self {
        match refusal.kind {
            RefusalKind::Malformed => Self::Usage,
            RefusalKind::Denied => Self::Denied,
            RefusalKind::NeedsApproval => Self::Waits,
            RefusalKind::NotFound
            | RefusalKind::Conflict
            | RefusalKind::Limit
            | RefusalKind::Unavailable
            | RefusalKind::Internal => Self::Failed,
        }
    }

    /// For the shell.
    pub(crate) fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Denied => 3,
            Self::Waits => 4,
        })
    }
}
