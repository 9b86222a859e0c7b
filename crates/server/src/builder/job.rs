//! One job from claim to result.
//!
//! Whatever goes wrong with the *job* (its tree, its command, its report, its outputs) is its
//! result: failed, with the reason in its log. What goes wrong with the *server* is waited out.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use portcullis_checks::testreport::{self, Format, Outcome, TestReport};
use portcullis_flow::job::JOB_LIFE_MS;
use portcullis_model::statement::{Command, Output};
use portcullis_model::{Digest, Refusal, RefusalKind, Timestamp, canonical};
use serde_json::json;

use super::attest::{self, Network, Seen};
use super::launch::{LaunchOutcome, Launcher};
use super::order::{Order, Product, Work};
use super::server::Server;
use super::{outputs, unpack};
use crate::api::BLOB_MAX_BYTES;
use crate::app::now;

/// What the names of jobs' directories begin with.
pub(super) const DIRECTORY_PREFIX: &str = "job-";
/// Most bytes of a log that are kept (2 MiB of each stream): the end, where errors stand.
const LOG_MAX_BYTES: usize = 2 * 1024 * 1024;

/// What came of a job.
#[derive(Debug)]
struct JobResult {
    succeeded: bool,
    attestation: Vec<u8>,
    report: Vec<u8>,
    outputs: Vec<(Output, Bytes)>,
    log: Vec<u8>,
    network: Option<Vec<u8>>,
}

/// Takes a job and does it. Gives whether there was one.
///
/// # Errors
/// The server gives no job, or one that can't be read.
pub(super) async fn work_one(
    server: &mut Server,
    launcher: &Launcher,
    work: &Path,
) -> Result<bool, Refusal> {
    let answer = server.command(Command::ClaimJob { job: None }).await?;
    if answer.get("job").is_none_or(serde_json::Value::is_null) {
        return Ok(false);
    }
    let claimed = Instant::now();
    let order: Order = serde_json::from_value(answer)
        .map_err(|error| Refusal::malformed("order").received(&error.to_string()))?;
    tracing::info!(job = %order.job, kind = ?order.kind, commit = %order.commit, "a job is taken");
    let source = patiently(claimed, || server.source(&order.source)).await;
    let result = perform(server, launcher, work, &order, source).await?;
    // A result that is not taken is told in the log; the next job may fare better.
    let _ = deliver(server, &order, result, claimed).await;
    Ok(true)
}

async fn perform(
    server: &Server,
    launcher: &Launcher,
    work: &Path,
    order: &Order,
    source: Result<Bytes, Refusal>,
) -> Result<JobResult, Refusal> {
    let started = now();
    let ran = match source {
        Ok(source) => run(launcher, work, order, source).await,
        Err(refusal) => Err(refusal),
    };
    let (ran, log) = match ran {
        Ok(ran) => {
            let log = log_of(&ran.outcome, &ran.product);
            (Some(ran), log)
        }
        Err(refusal) => {
            tracing::warn!(error.code = refusal.code, job = %order.job, "the job could not run: {refusal}");
            (
                None,
                format!("the job could not run: {refusal}\n").into_bytes(),
            )
        }
    };
    let digest = Digest::of(&log);
    let seen = Seen {
        service: server.service(),
        started,
        finished: now(),
        log: digest,
        log_url: server.blob_url(&digest),
        gaps: ran
            .iter()
            .flat_map(|ran| ran.outcome.gaps.iter().cloned())
            .collect(),
        network: ran
            .as_ref()
            .and_then(|ran| ran.outcome.network.clone())
            .map(|network| Network::new(network, |digest| server.blob_url(digest)))
            .transpose()?,
    };
    result(order, ran, &seen, log, server)
}

/// The signed result of what was seen.
fn result(
    order: &Order,
    ran: Option<Ran>,
    seen: &Seen<'_>,
    log: Vec<u8>,
    server: &Server,
) -> Result<JobResult, Refusal> {
    let ended_well = ran.as_ref().is_some_and(|ran| ran.outcome.success());
    let network = seen
        .network
        .as_ref()
        .map(|network| network.document.clone());
    let made = match ran.map(|ran| ran.product) {
        Some(Ok(made)) => made,
        // Nothing came of it; what is attested depends on the kind of job.
        Some(Err(_)) | None => match order.kind {
            portcullis_model::event::JobKind::Test => Made::NoReport,
            portcullis_model::event::JobKind::Build => Made::Files(Vec::new()),
        },
    };
    match made {
        Made::Report(report) => {
            let succeeded = ended_well && report.count(Outcome::Failed) == 0;
            let statement = attest::test_result(order, seen, Some(&report), succeeded)?;
            Ok(JobResult {
                succeeded,
                attestation: attest::sign(&statement, server.signer())?,
                report: canonical::to_vec(&report)?,
                outputs: Vec::new(),
                log,
                network,
            })
        }
        Made::NoReport => {
            let statement = attest::test_result(order, seen, None, false)?;
            // Never the job's own bytes: those could pass for a report.
            let report = canonical::to_vec(&json!({ "no_report": true, "log": seen.log }))?;
            Ok(JobResult {
                succeeded: false,
                attestation: attest::sign(&statement, server.signer())?,
                report,
                outputs: Vec::new(),
                log,
                network,
            })
        }
        Made::Files(files) => {
            let succeeded = ended_well && !files.is_empty();
            let files = if succeeded { files } else { Vec::new() };
            let outputs: Vec<Output> = files.iter().map(|(output, _)| output.clone()).collect();
            let command = order.work().map(|work| work.command).unwrap_or_default();
            let statement = attest::provenance(order, &command, seen, &outputs)?;
            Ok(JobResult {
                succeeded,
                attestation: attest::sign(&statement, server.signer())?,
                report: log.clone(),
                outputs: files,
                log,
                network,
            })
        }
    }
}

/// A command that ran, and what it made.
struct Ran {
    outcome: LaunchOutcome,
    product: Result<Made, Refusal>,
}

/// What was read of a job's product.
#[derive(Debug)]
enum Made {
    Report(TestReport),
    NoReport,
    Files(Vec<(Output, Bytes)>),
}

/// Unpacks, runs and reads; the directory is gone afterwards.
async fn run(
    launcher: &Launcher,
    work: &Path,
    order: &Order,
    source: Bytes,
) -> Result<Ran, Refusal> {
    let job: Work = order.work()?;
    let user = launcher.user_for(order.job.0);
    let folder = JobFolder::create(work, &order.job.0.to_string(), user)?;
    let tree = folder.tree().to_owned();
    blocking({
        let tree = tree.clone();
        move || unpack::unpack(&source, &tree, user, unpack::Limits::default()).map(drop)
    })
    .await?;
    let mut environment = BTreeMap::from([
        ("CI".to_owned(), "true".to_owned()),
        ("PORTCULLIS_JOB".to_owned(), order.job.to_string()),
    ]);
    if job.hosts.is_empty() {
        // There is no network; a tool that knows says so at once instead of trying.
        environment.insert("CARGO_NET_OFFLINE".to_owned(), "true".to_owned());
    }
    let outcome = launcher
        .launch(
            &job.command,
            &tree,
            environment,
            job.limit,
            user,
            &job.hosts,
        )
        .await?;
    let (outcome, product) = blocking(move || {
        let product = read_product(&tree, &job.product, &outcome);
        // The directory lives until all is read.
        drop(folder);
        Ok((outcome, product))
    })
    .await?;
    Ok(Ran { outcome, product })
}

fn read_product(tree: &Path, product: &Product, outcome: &LaunchOutcome) -> Result<Made, Refusal> {
    match product {
        Product::Report { format, file } => {
            let max = testreport::REPORT_MAX_BYTES as u64;
            let report = match file {
                Some(path) => testreport::parse(*format, &outputs::read(tree, path, max)?)?,
                None if outcome.truncated => {
                    return Err(Refusal::limit("test-output-too-large", "the tests printed too much to be read")
                        .next("let the runner write a report file, and name it as `report` in .portcullis/jobs.toml"));
                }
                None => testreport::parse(*format, printed(*format, outcome))?,
            };
            attest::check_fits(&report)?;
            Ok(Made::Report(report))
        }
        Product::Files(_) if !outcome.success() => Ok(Made::Files(Vec::new())),
        Product::Files(paths) => {
            let mut files = Vec::new();
            for path in paths {
                let bytes = outputs::read(tree, path, BLOB_MAX_BYTES as u64)?;
                files.push((outputs::describe(path, &bytes)?, Bytes::from(bytes)));
            }
            Ok(Made::Files(files))
        }
    }
}

/// The stream on which a runner reports.
const fn printed(format: Format, outcome: &LaunchOutcome) -> &[u8] {
    match format {
        Format::Nextest => outcome.stderr.as_slice(),
        Format::Junit | Format::Libtest | Format::Tap | Format::GoJson | Format::Pytest => {
            outcome.stdout.as_slice()
        }
    }
}

/// What a person reads of a job: how it ended, what was wrong with its product, what it printed.
fn log_of(outcome: &LaunchOutcome, product: &Result<Made, Refusal>) -> Vec<u8> {
    let mut head = if outcome.deadline {
        "ended by its time limit\n".to_owned()
    } else {
        format!("ended with status {}\n", outcome.exit)
    };
    if outcome.memory_kills > 0 {
        head.push_str(&format!(
            "{} processes ended for want of memory\n",
            outcome.memory_kills
        ));
    }
    if let Some(network) = &outcome.network {
        head.push_str(&network.lines());
    }
    if let Err(refusal) = product {
        head.push_str(&format!("{refusal}\n"));
    }
    let mut log = head.into_bytes();
    for (name, stream) in [
        ("standard output", &outcome.stdout),
        ("standard error", &outcome.stderr),
    ] {
        let from = stream.len().saturating_sub(LOG_MAX_BYTES);
        let cut = if from > 0 { " (its end)" } else { "" };
        log.extend_from_slice(format!("--- {name}{cut}\n").as_bytes());
        log.extend_from_slice(stream.get(from..).unwrap_or_default());
        log.push(b'\n');
    }
    log
}

/// Uploads everything, then says that the job is done.
async fn deliver(
    server: &Server,
    order: &Order,
    result: JobResult,
    claimed: Instant,
) -> Result<(), Refusal> {
    let mut digests = Vec::new();
    let files = result.outputs.iter().map(|(_, bytes)| bytes.clone());
    let texts = [result.attestation, result.report, result.log];
    let texts = texts.into_iter().chain(result.network).map(Bytes::from);
    for bytes in texts.chain(files) {
        digests.push(patiently(claimed, || server.upload(bytes.clone())).await?);
    }
    let [attestation, report, ..] = digests.as_slice() else {
        return Err(Refusal::internal("nothing was uploaded"));
    };
    let command = Command::FinishJob {
        job: order.job,
        succeeded: result.succeeded,
        attestation: *attestation,
        report: *report,
        outputs: result
            .outputs
            .into_iter()
            .map(|(output, _)| output)
            .collect(),
    };
    let mut asked_before = false;
    let told = patiently(claimed, || {
        let again = std::mem::replace(&mut asked_before, true);
        let sent = server.command(command.clone());
        async move {
            match sent.await {
                // The answer to an earlier try was lost on the way; that try was taken.
                Err(refusal) if again && refusal.code == "job-not-claimed" => Ok(json!({})),
                other => other,
            }
        }
    })
    .await;
    match told {
        Ok(_) => {
            tracing::info!(job = %order.job, succeeded = result.succeeded, "a job is done");
            Ok(())
        }
        Err(refusal) => {
            tracing::error!(error.code = refusal.code, job = %order.job, "the result was not taken: {refusal}");
            Err(refusal)
        }
    }
}

/// Repeats while the server is away, as long as the job is ours.
async fn patiently<T, F: Future<Output = Result<T, Refusal>>>(
    claimed: Instant,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Refusal> {
    let mut failures = 0;
    loop {
        match attempt().await {
            Err(refusal)
                if refusal.kind == RefusalKind::Unavailable
                    && claimed.elapsed() < Duration::from_millis(JOB_LIFE_MS) =>
            {
                tracing::warn!(
                    error.code = refusal.code,
                    "the server is waited for: {refusal}"
                );
                failures += 1;
                tokio::time::sleep(super::retry_after(failures)).await;
            }
            other => return other,
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Refusal::internal("work on files was cut off"))?
}

/// A job's own directory; dropped, it is removed with everything in it.
pub(super) struct JobFolder {
    path: PathBuf,
    tree: PathBuf,
}

impl JobFolder {
    /// Makes a fresh directory below `work`, which nobody else can enter, with an empty tree in it
    /// that belongs to `user` if one is named.
    pub(super) fn create(work: &Path, name: &str, user: Option<u32>) -> Result<Self, Refusal> {
        let unwritable = |error: std::io::Error| {
            Refusal::unavailable(
                "builder-directory",
                format!("{} can't be used", work.display()),
            )
            .received(&error.to_string())
            .next("free space there, or name another directory with --work DIR")
        };
        let unique = Timestamp::as_ms(now());
        let path = std::path::absolute(work)
            .map_err(unwritable)?
            .join(format!("{DIRECTORY_PREFIX}{name}-{unique}"));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(unwritable)?;
        let folder = Self {
            tree: path.join("tree"),
            path,
        };
        DirBuilder::new()
            .mode(0o755)
            .create(&folder.tree)
            .map_err(unwritable)?;
        if user.is_some() {
            lchown(&folder.tree, user, user).map_err(unwritable)?;
        }
        Ok(folder)
    }

    pub(super) fn tree(&self) -> &Path {
        &self.tree
    }
}

impl Drop for JobFolder {
    fn drop(&mut self) {
        remove_tree(&self.path);
    }
}

/// Removes a directory with everything in it; read-only directories in it are no hindrance.
pub fn remove_tree(path: &Path) {
    if fs::remove_dir_all(path).is_err() {
        make_removable(path);
        if let Err(error) = fs::remove_dir_all(path) {
            tracing::warn!(path = %path.display(), "a directory of a job is left behind: {error}");
        }
    }
}

/// Gives the owner back what is needed to remove directories. Links are not followed.
fn make_removable(root: &Path) {
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        let directory = fs::symlink_metadata(&folder).is_ok_and(|data| data.is_dir());
        if !directory || fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).is_err() {
            continue;
        }
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        waiting.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
}

#[cfg(test)]
mod tests;
