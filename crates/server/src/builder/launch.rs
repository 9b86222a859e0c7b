//! Running a command in a sandbox, through `portcullis launch`: another process of the same
//! program, so that nothing of the server links the sandbox.
//!
//! The specification is one line of JSON on its standard input, which then stays open: when it
//! closes, whoever asked is gone and the sandbox ends. The outcome is one JSON document on its
//! standard output.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_model::Refusal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::network::NetworkUse;

/// Largest specification in bytes: a command and an environment.
pub const SPEC_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Most bytes that are kept of each stream (32 MiB): a verbose run of a hundred thousand tests.
pub const CAPTURE_MAX_BYTES: u64 = 32 * 1024 * 1024;
/// Largest outcome in bytes: two streams in base64.
const OUTCOME_MAX_BYTES: u64 = 2 * CAPTURE_MAX_BYTES * 4 / 3 + 1024 * 1024;
/// How much longer than the deadline a launcher may take, to build a sandbox and take it down.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `portcullis launch` reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchSpec {
    /// Program and arguments, run in the workspace.
    pub command: Vec<String>,
    /// Host directory that is mounted read-write.
    pub workspace: PathBuf,
    /// Variables beside those that every sandbox has.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Milliseconds until everything is ended.
    pub deadline_ms: u64,
    /// Most bytes kept of each stream.
    pub capture_max_bytes: u64,
    /// Host user and group of the job; for root only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
    /// Toolchains by name or path; empty for those that this machine has in the usual places.
    #[serde(default)]
    pub toolchains: Vec<String>,
    /// Protections that may be missing.
    #[serde(default)]
    pub allowed_gaps: BTreeSet<String>,
    /// Hosts (`name:port`) that it may reach, through a proxy and in no other way; empty for no
    /// network at all.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Whether those may be this machine itself.
    #[serde(default)]
    pub allow_loopback: bool,
}

/// What `portcullis launch` writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "result")]
pub enum LaunchAnswer {
    /// The command ran.
    Ended(LaunchOutcome),
    /// It could not be started.
    Refused {
        /// Why.
        refusal: Refusal,
    },
}

/// How a launched command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchOutcome {
    /// Its status, or 128 and the signal's number.
    pub exit: u8,
    /// Whether the deadline ended it.
    pub deadline: bool,
    /// First bytes of standard output.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub stdout: Vec<u8>,
    /// First bytes of standard error.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub stderr: Vec<u8>,
    /// Whether something was written that is in neither.
    pub truncated: bool,
    /// Processes ended by the kernel for want of memory.
    pub memory_kills: u64,
    /// Protections that were missing by leave.
    pub gaps: BTreeSet<String>,
    /// What it reached; `None` where it had no network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkUse>,
}

impl LaunchOutcome {
    /// Whether the command ended by itself, with status 0.
    pub const fn success(&self) -> bool {
        self.exit == 0 && !self.deadline
    }
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    STANDARD
        .decode(String::deserialize(deserializer)?)
        .map_err(serde::de::Error::custom)
}

/// How this builder launches.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// The program with the command `launch`.
    pub program: PathBuf,
    /// As in [`LaunchSpec`].
    pub toolchains: Vec<String>,
    /// As in [`LaunchSpec`].
    pub allowed_gaps: BTreeSet<String>,
    /// As in [`LaunchSpec`].
    pub allow_loopback: bool,
    /// The configured user, as root.
    pub user: Option<u32>,
    /// Whether jobs get users of their own.
    pub as_root: bool,
}

impl Launcher {
    /// The user of a job, where it gets one.
    pub fn user_for(&self, job: u64) -> Option<u32> {
        self.as_root.then(|| super::user_of_job(self.user, job))
    }

    /// Runs a command over a directory to its end, with a way to `hosts` and to nothing else.
    ///
    /// # Errors
    /// The launcher's refusal, or the launcher itself can't be run. Dropped, it ends the sandbox.
    pub async fn launch(
        &self,
        command: &[String],
        workspace: &Path,
        environment: BTreeMap<String, String>,
        limit: Duration,
        user: Option<u32>,
        hosts: &[String],
    ) -> Result<LaunchOutcome, Refusal> {
        let spec = LaunchSpec {
            command: command.to_vec(),
            workspace: workspace.to_owned(),
            environment,
            deadline_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            capture_max_bytes: CAPTURE_MAX_BYTES,
            user,
            toolchains: self.toolchains.clone(),
            allowed_gaps: self.allowed_gaps.clone(),
            hosts: hosts.to_vec(),
            allow_loopback: self.allow_loopback,
        };
        let asked = self.ask(&spec);
        match tokio::time::timeout(limit.saturating_add(PATIENCE), asked).await {
            Ok(Ok(LaunchAnswer::Ended(outcome))) => Ok(outcome),
            Ok(Ok(LaunchAnswer::Refused { refusal })) => Err(refusal),
            Ok(Err(refusal)) => Err(refusal),
            Err(_) => Err(self.unusable("no answer in time")),
        }
    }

    /// Runs nothing of anybody's, to see whether this machine can sandbox.
    ///
    /// # Errors
    /// It can't; says which protection is missing.
    pub async fn try_out(&self, work: &Path) -> Result<(), Refusal> {
        let folder = super::job::JobFolder::create(work, "trial", self.user_for(0))?;
        let command = ["/bin/sh".to_owned(), "-c".to_owned(), ":".to_owned()];
        let limit = Duration::from_secs(20);
        let outcome = self
            .launch(
                &command,
                folder.tree(),
                BTreeMap::new(),
                limit,
                self.user_for(0),
                &[],
            )
            .await?;
        if outcome.success() {
            return Ok(());
        }
        Err(self.unusable(&format!("a trial ended with status {}", outcome.exit)))
    }

    async fn ask(&self, spec: &LaunchSpec) -> Result<LaunchAnswer, Refusal> {
        let mut line = serde_json::to_vec(spec)
            .map_err(|error| Refusal::internal(format!("a spec does not serialise: {error}")))?;
        line.push(b'\n');
        let mut child = Command::new(&self.program)
            .arg("launch")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| self.unusable(&error.to_string()))?;
        // Held until the answer is there: the launcher ends its sandbox when this closes.
        let mut input = child
            .stdin
            .take()
            .ok_or_else(|| self.unusable("no standard input"))?;
        let output = child
            .stdout
            .take()
            .ok_or_else(|| self.unusable("no standard output"))?;
        input
            .write_all(&line)
            .await
            .map_err(|error| self.unusable(&error.to_string()))?;
        input
            .flush()
            .await
            .map_err(|error| self.unusable(&error.to_string()))?;
        let mut answer = Vec::new();
        output
            .take(OUTCOME_MAX_BYTES + 1)
            .read_to_end(&mut answer)
            .await
            .map_err(|error| self.unusable(&error.to_string()))?;
        drop(input);
        let status = child
            .wait()
            .await
            .map_err(|error| self.unusable(&error.to_string()))?;
        if answer.len() as u64 > OUTCOME_MAX_BYTES {
            return Err(self.unusable("an answer that is too long"));
        }
        serde_json::from_slice(&answer)
            .map_err(|error| self.unusable(&format!("status {status}, and no answer: {error}")))
    }

    fn unusable(&self, received: &str) -> Refusal {
        Refusal::unavailable("launcher-failed", "the sandbox's launcher gave no result")
            .expected(&format!("{} launch", self.program.display()))
            .received(received)
            .next("`portcullis doctor` says what this machine offers")
    }
}
