//! The role `builder`: takes jobs from the server, runs each in a sandbox of its own, and signs
//! what came of it.
//!
//! It is a process apart, with its own user and key. It believes the server about *what* to run (the
//! order names the commit and the configuration by digest, and the attestation repeats both) and
//! nobody about *what came out*: the tree is unpacked by [`unpack`], outputs are read from outside
//! by [`outputs`] after every process of the job is gone, and the statement is made by [`attest`]
//! from what was seen.
//!
//! | step | what a restart finds |
//! |---|---|
//! | claim | the job is claimed by us and lost after the server's time for jobs |
//! | unpack, run, read | a directory of ours, removed at the next start |
//! | upload | blobs that nothing names yet |
//! | finish | the job is done |
//!
//! Each job gets a directory that is thrown away; no cache is shared between jobs, so a job can
//! leave nothing to a later one, whatever level of trust either has.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_evidence::signer::Signer;
use portcullis_identity::custody::{self, Ed25519Purpose};
use portcullis_model::{Refusal, RefusalKind, ServiceId};
use rustix::fs::{FlockOperation, flock};

pub mod attest;
pub mod job;
pub mod launch;
pub mod network;
pub mod order;
pub mod outputs;
mod server;
pub mod unpack;

pub use job::remove_tree;
use launch::Launcher;
use server::Server;

/// First user id of jobs, as root: above those of people and below those of runs.
pub const JOB_UID_FIRST: u32 = 63_000;
/// How many user ids jobs go round in. One builder runs one job at a time.
pub const JOB_UIDS: u32 = 1_000;
/// Longest wait between two tries when the server does not answer.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// What a builder is told.
#[derive(Clone, Debug)]
pub struct BuilderConfig {
    /// The server's base URL, `http://127.0.0.1:7117`.
    pub server: String,
    /// As which service it signs; its record names the key's public half and the roles.
    pub service: ServiceId,
    /// Its key file, mode 0600.
    pub key: PathBuf,
    /// Where the throw-away directories stand. One builder at a time works in it.
    pub work: PathBuf,
    /// The program whose hidden command `launch` runs a sandbox.
    pub program: PathBuf,
    /// How long it waits between two questions for work, in milliseconds.
    pub poll_ms: u64,
    /// The user of its jobs, as root; `None`: one of [`JOB_UID_FIRST`] and following by job.
    pub user: Option<u32>,
    /// Toolchains that jobs see, by name or path, as `portcullis launch` knows them.
    pub toolchains: Vec<String>,
    /// Protections of the sandbox that may be missing on this machine, by the names of `doctor`.
    pub allowed_gaps: std::collections::BTreeSet<String>,
    /// Whether the hosts that jobs declare may be this machine itself: local mirrors, tests.
    pub allow_loopback: bool,
    /// Whether it ends when there is nothing to do.
    pub once: bool,
}

/// Works until the process is told to stop (SIGINT, SIGTERM), or with `once` until nothing is left
/// to do. Gives how many jobs it finished.
///
/// # Errors
/// The key can't be used, another builder works in the same directory, this machine can't sandbox,
/// or the server refuses this builder. A server that is away is waited for, unless `once`.
pub async fn run(config: BuilderConfig) -> Result<u64, Refusal> {
    let key = custody::load_ed25519(&config.key, Ed25519Purpose::Service)?;
    let signer = Signer::from_seed(key.seed())?;
    let _lock = take_directory(&config.work)?;
    let launcher = Launcher {
        program: config.program.clone(),
        toolchains: config.toolchains.clone(),
        allowed_gaps: config.allowed_gaps.clone(),
        allow_loopback: config.allow_loopback,
        user: config.user,
        as_root: rustix::process::geteuid().is_root(),
    };
    // Nothing is claimed that can't be run.
    launcher.try_out(&config.work).await?;
    let mut stop = std::pin::pin!(crate::serve::stopped());
    let mut server = tokio::select! {
        server = connect(&config, signer) => server?,
        () = &mut stop => return Ok(0),
    };
    let mut finished = 0;
    let mut failures = 0_u32;
    loop {
        let worked = tokio::select! {
            worked = job::work_one(&mut server, &launcher, &config.work) => worked,
            // A job that is dropped here ends with its launcher; the server loses it in time.
            () = &mut stop => return Ok(finished),
        };
        let pause = match worked {
            Ok(true) => {
                finished += 1;
                failures = 0;
                continue;
            }
            Ok(false) if config.once => return Ok(finished),
            Ok(false) => {
                failures = 0;
                Duration::from_millis(config.poll_ms)
            }
            Err(refusal) if config.once || !is_passing(&refusal) => return Err(refusal),
            Err(refusal) => {
                tracing::warn!(
                    error.code = refusal.code,
                    "the server gives no work now: {refusal}"
                );
                failures = failures.saturating_add(1);
                retry_after(failures)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = &mut stop => return Ok(finished),
        }
    }
}

async fn connect(config: &BuilderConfig, signer: Signer) -> Result<Server, Refusal> {
    let mut server = Server::new(&config.server, config.service.clone(), signer)?;
    let mut failures = 0;
    loop {
        match server.learn_origin().await {
            Ok(()) => return Ok(server),
            Err(refusal) if config.once || !is_passing(&refusal) => return Err(refusal),
            Err(refusal) => {
                tracing::warn!(
                    error.code = refusal.code,
                    "waiting for the server: {refusal}"
                );
                failures += 1;
                tokio::time::sleep(retry_after(failures)).await;
            }
        }
    }
}

/// Whether a refusal may be over later without anybody changing anything here.
pub(crate) fn is_passing(refusal: &Refusal) -> bool {
    match refusal.kind {
        // A breaker, or a job that somebody else took meanwhile.
        RefusalKind::Unavailable | RefusalKind::Internal | RefusalKind::Conflict => true,
        RefusalKind::Denied => refusal.code != "unknown-signer" && refusal.code != "wrong-ledger",
        RefusalKind::Limit
        | RefusalKind::Malformed
        | RefusalKind::NeedsApproval
        | RefusalKind::NotFound => false,
    }
}

/// Doubling from a quarter of a second to [`RETRY_MAX`].
pub(crate) fn retry_after(failures: u32) -> Duration {
    Duration::from_millis(250)
        .saturating_mul(1 << failures.min(8))
        .min(RETRY_MAX)
}

/// The user that a job runs under, as root.
pub fn user_of_job(configured: Option<u32>, job: u64) -> u32 {
    let turn = u32::try_from(job % u64::from(JOB_UIDS)).unwrap_or_default();
    configured.unwrap_or(JOB_UID_FIRST + turn)
}

/// Makes the working directory, keeps other builders out of it while the file is held, and removes
/// what a killed builder left.
fn take_directory(work: &Path) -> Result<File, Refusal> {
    let unusable = |error: std::io::Error| {
        Refusal::unavailable(
            "builder-directory",
            format!("{} can't be used", work.display()),
        )
        .received(&error.to_string())
        .next("name a directory of the builder's own user with --work DIR")
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(work)
        .map_err(unusable)?;
    let lock = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(work.join("lock"))
        .map_err(unusable)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        Refusal::conflict("builder-running", "another builder works in this directory")
            .received(&work.display().to_string())
            .next("stop it, or give this one a directory of its own with --work DIR")
    })?;
    for entry in fs::read_dir(work).map_err(unusable)? {
        let entry = entry.map_err(unusable)?;
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(job::DIRECTORY_PREFIX)
        {
            remove_tree(&entry.path());
        }
    }
    Ok(lock)
}

#[cfg(test)]
mod tests;
