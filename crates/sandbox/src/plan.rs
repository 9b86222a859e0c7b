//! What goes over the socket between caller and supervisor. Both ends are the same program, so
//! this form is not versioned.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use portcullis_model::Refusal;
use serde::{Deserialize, Serialize};

use crate::spec::{Limits, RunAs, Spec, Terminal};
use crate::{Ending, Protection};

/// First argument that makes a program the helper.
pub(crate) const HELPER_ARGUMENT: &str = "portcullis-sandbox-helper";
/// Variable by which a helper knows itself, so that a program that forgets
/// [`helper_main`](crate::helper_main) can't start helpers for ever.
pub(crate) const HELPER_VARIABLE: &str = "PORTCULLIS_SANDBOX_HELPER";

/// First message to the helper.
#[derive(Serialize, Deserialize)]
pub(crate) enum Order {
    /// Build a sandbox and run it. Descriptors: events socket, pidfd of the caller, and for
    /// [`PlanTerminal::Inherit`] standard input, output and error.
    Run(Box<Plan>),
    /// Try each protection.
    Probe,
}

/// A [`Spec`] with absolute paths.
#[derive(Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) command: Vec<Os>,
    pub(crate) environment: Vec<(Os, Os)>,
    pub(crate) workspace: Os,
    pub(crate) workspace_read_only: bool,
    pub(crate) binds: Vec<PlanBind>,
    pub(crate) limits: Limits,
    pub(crate) deadline_ms: Option<u64>,
    pub(crate) run_as: Option<RunAs>,
    pub(crate) terminal: PlanTerminal,
    pub(crate) capture: Option<u16>,
    pub(crate) captured_ports: Vec<u16>,
    pub(crate) expose: Option<PlanExpose>,
    pub(crate) allowed_gaps: BTreeSet<Protection>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct PlanBind {
    pub(crate) host: Os,
    pub(crate) inside: Os,
    pub(crate) required: bool,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum PlanTerminal {
    Inherit,
    Pty { rows: u16, columns: u16 },
    Capture { max_bytes: u64 },
    Log { path: Os, max_bytes: u64 },
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct PlanExpose {
    pub(crate) inside_port: u16,
    pub(crate) socket: Os,
    pub(crate) mode: u32,
}

/// Answer of the helper to [`Order::Run`].
#[derive(Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The command runs. Descriptors: pidfd of init, then as the numbers and flags say: listeners,
    /// pty master, two capture files.
    Started {
        pid: i32,
        uid: u32,
        by: BTreeMap<Protection, String>,
        gaps: BTreeMap<Protection, String>,
        listeners: usize,
        master: bool,
        captured: bool,
        cgroups: Vec<Os>,
    },
    Refused(Refusal),
}

/// One protection as the helper found it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Probed {
    pub(crate) protection: Protection,
    /// What it works by, or why it doesn't.
    pub(crate) found: Result<String, String>,
}

/// What the caller asks of a running sandbox.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Control {
    Freeze,
    Thaw,
    Signal(i32),
    /// How many processes were started inside so far.
    Started,
    /// Whether it still listens.
    Listening,
}

/// How it ended, as the supervisor saw it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) ending: Ending,
    pub(crate) stdout_bytes: u64,
    pub(crate) stderr_bytes: u64,
    pub(crate) memory_kills: u64,
}

impl Plan {
    pub(crate) fn of(spec: &Spec, workspace: &Path) -> Self {
        Self {
            command: spec.command.iter().map(Os::of).collect(),
            environment: spec
                .environment
                .iter()
                .map(|(name, value)| (Os::of(name), Os::of(value)))
                .collect(),
            workspace: Os::of(workspace),
            workspace_read_only: spec.workspace_read_only,
            binds: spec
                .read_only
                .iter()
                .map(|bind| PlanBind {
                    host: Os::of(&bind.host),
                    inside: Os::of(&bind.inside),
                    required: bind.required,
                })
                .collect(),
            limits: spec.limits.clone(),
            deadline_ms: spec.deadline_ms,
            run_as: spec.run_as,
            terminal: match &spec.terminal {
                Terminal::Inherit => PlanTerminal::Inherit,
                Terminal::Pty { rows, columns } => PlanTerminal::Pty {
                    rows: *rows,
                    columns: *columns,
                },
                Terminal::Capture { max_bytes } => PlanTerminal::Capture {
                    max_bytes: *max_bytes,
                },
                Terminal::Log { path, max_bytes } => PlanTerminal::Log {
                    path: Os::of(path),
                    max_bytes: *max_bytes,
                },
            },
            capture: spec.capture,
            captured_ports: spec.ports_captured(),
            expose: spec.expose.as_ref().map(|expose| PlanExpose {
                inside_port: expose.inside_port,
                socket: Os::of(&expose.socket),
                mode: expose.mode,
            }),
            allowed_gaps: spec.allowed_gaps.clone(),
        }
    }
}

/// Bytes of the system that need not be UTF-8. Plain text in JSON where they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Os {
    Text(String),
    Bytes(Vec<u8>),
}

impl Os {
    pub(crate) fn of(value: impl AsRef<OsStr>) -> Self {
        let value = value.as_ref();
        value.to_str().map_or_else(
            || Self::Bytes(value.as_bytes().to_vec()),
            |text| Self::Text(text.to_owned()),
        )
    }

    pub(crate) fn as_os_str(&self) -> &OsStr {
        match self {
            Self::Text(text) => OsStr::new(text),
            Self::Bytes(bytes) => OsStr::from_bytes(bytes),
        }
    }

    pub(crate) fn to_path(&self) -> PathBuf {
        PathBuf::from(OsString::from_vec(self.as_os_str().as_bytes().to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_text_survive_the_way() {
        for bytes in [&b"plain"[..], b"odd \xff\xfe name", b""] {
            let os = Os::of(OsStr::from_bytes(bytes));
            let json = serde_json::to_vec(&os).expect("serialises");
            let back: Os = serde_json::from_slice(&json).expect("reads back");
            assert_eq!(back.as_os_str().as_bytes(), bytes);
        }
    }
}
