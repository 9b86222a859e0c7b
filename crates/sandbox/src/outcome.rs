//! How a run ended.

use serde::{Deserialize, Serialize};

/// How the command ended, and what it left behind for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// What it wrote, where the terminal was [`Terminal::Capture`](crate::Terminal::Capture).
    pub captured: Option<Captured>,
    /// How often the kernel ended a process of it for want of memory (known with a cgroup only).
    pub memory_kills: u64,
}

impl Outcome {
    /// The status for the caller's own exit: the command's, or 128 + signal; 137 for what we
    /// ended ourselves.
    pub const fn exit_code(&self) -> u8 {
        match self.ending {
            Ending::Exited { code } => code,
            Ending::Signalled { signal } => 128_u8.saturating_add(signal),
            Ending::Deadline | Ending::Killed => 137,
        }
    }

    /// Whether the command ended by itself with status 0.
    pub const fn success(&self) -> bool {
        matches!(self.ending, Ending::Exited { code: 0 })
    }
}

/// The four ways to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum Ending {
    /// By itself, with this status.
    Exited {
        /// Exit status.
        code: u8,
    },
    /// By a signal from inside (or from the kernel).
    Signalled {
        /// Signal number.
        signal: u8,
    },
    /// At the deadline, with everything it had started.
    Deadline,
    /// By [`Running::kill`](crate::Running::kill), or because whoever watched it died.
    Killed,
}

/// What a command wrote, each stream bounded on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// First bytes of standard output.
    pub stdout: Vec<u8>,
    /// First bytes of standard error.
    pub stderr: Vec<u8>,
    /// Bytes written to standard output in all; more than `stdout.len()` means that the rest was
    /// dropped.
    pub stdout_bytes: u64,
    /// The same for standard error.
    pub stderr_bytes: u64,
}

impl Captured {
    /// Whether anything was dropped.
    pub const fn truncated(&self) -> bool {
        self.stdout_bytes > self.stdout.len() as u64 || self.stderr_bytes > self.stderr.len() as u64
    }
}
