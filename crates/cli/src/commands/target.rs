//! `portcullis target --spec FILE`: the supervisor of one release. The server starts it detached;
//! it outlives the server, runs the release in a sandbox, starts it again when it dies, and stops
//! it when asked.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_model::Refusal;
use portcullis_sandbox::{Ending, Expose, Limits, Outcome, RunAs, Running, Spec, Terminal, spawn};
use portcullis_server::environments::TargetSpec;
use portcullis_server::environments::control::{self, Phase, Status};
use portcullis_server::environments::log::LOG_MAX_BYTES;
use portcullis_server::environments::{prepare, process};
use tokio::sync::watch;

use super::proxy;
use crate::exit::Exit;

/// Ends in a row after which a service counts as one that does not run.
const DEATHS_MAX: u32 = 6;
/// A service that ran as long as this ended for the first time.
const STEADY_AFTER: Duration = Duration::from_secs(60);
/// First pause before a service is started again; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause before a service is started again.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long a service may take to end when asked, before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(4);

/// Runs a release until it is told to stop.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// What to run and where, as the server writes it.
    #[arg(long, value_name = "FILE")]
    spec: PathBuf,
}

impl Target {
    /// Runs it.
    pub(crate) async fn run(self) -> Result<Exit, Refusal> {
        let spec = TargetSpec::read(&self.spec)?;
        let Some(_held) = process::hold(&spec.lock)? else {
            // Another supervisor has this release already: starting twice is starting once.
            return Ok(Exit::Done);
        };
        proxy::log_to(&spec.supervisor_log);
        supervise(spec).await?;
        Ok(Exit::Done)
    }
}

async fn supervise(spec: TargetSpec) -> Result<(), Refusal> {
    let status = watch::Sender::new(Status {
        release: spec.release,
        artifact: spec.digest,
        phase: Phase::Starting,
        deaths: 0,
        since_unix_ms: unix_ms(),
        user: None,
        code: None,
    });
    let stop = Arc::new(watch::Sender::new(false));
    let socket = spec.control_socket.clone();
    let server = control::serve(&socket, status.subscribe(), Arc::clone(&stop));
    let signals = ended_by_signal(Arc::clone(&stop));
    let ended = tokio::select! {
        ended = keep_running(&spec, &status, stop.subscribe()) => ended,
        failed = server => failed.map(|never| match never {}),
        failed = signals => failed,
    };
    // Whoever finds no socket finds no service.
    drop(std::fs::remove_file(&socket));
    ended
}

/// Starts the service again and again until it is stopped. One that can't be started, or ends too
/// often, stays down; the supervisor stays and says so.
async fn keep_running(
    spec: &TargetSpec,
    status: &watch::Sender<Status>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Refusal> {
    let mut backoff = Backoff::default();
    while !*stop.borrow() {
        set(status, Phase::Starting, |_| {});
        let running = match start(spec).await {
            Ok(running) => Arc::new(running),
            Err(refusal) => {
                tracing::error!(release = %spec.release, error.code = refusal.code, "it can't be started: {refusal}");
                fail(status, &refusal.code, &mut stop).await;
                break;
            }
        };
        let (began, user) = (Instant::now(), running.uid());
        set(status, Phase::Running, |status| status.user = Some(user));
        tracing::info!(release = %spec.release, service.user = user, "it runs");
        let Some(outcome) = until_end(&running, status, &mut stop).await? else {
            break;
        };
        let code = code_of(&outcome);
        tracing::warn!(release = %spec.release, memory_kills = outcome.memory_kills, "it ended: {code}");
        let pause = backoff.after(began.elapsed());
        set(status, Phase::BackingOff, |status| {
            status.deaths += 1;
            status.code = Some(code.clone());
        });
        let Some(pause) = pause else {
            tracing::error!(release = %spec.release, "it ended {DEATHS_MAX} times in a row, and stays down");
            fail(status, &code, &mut stop).await;
            break;
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
    set(status, Phase::Stopping, |_| {});
    Ok(())
}

/// Says that it failed, and waits to be stopped.
async fn fail(status: &watch::Sender<Status>, code: &str, stop: &mut watch::Receiver<bool>) {
    set(status, Phase::Failed, |status| {
        status.code = Some(code.to_owned())
    });
    // The sender lives as long as the control socket.
    drop(stop.wait_for(|stop| *stop).await);
}

async fn start(spec: &TargetSpec) -> Result<Running, Refusal> {
    let spec = spec.clone();
    blocking(move || {
        let command = prepare::workspace(&spec)?;
        spawn(&sandbox(&spec, command))
    })
    .await
}

/// The release's own sandbox: its user, namespaces and limits, no channel and so no network, and
/// one port inside that is reached through the service socket.
fn sandbox(spec: &TargetSpec, command: Vec<OsString>) -> Spec {
    const MIB: u64 = 1024 * 1024;
    let mut sandbox = Spec::new(&spec.workspace, command);
    sandbox.variable("PORT", spec.service_port.to_string());
    sandbox.run_as = spec.user.map(|user| RunAs {
        uid: user,
        gid: user,
    });
    sandbox.limits = Limits {
        processes: 512,
        memory_bytes: 1024 * MIB,
        open_files: 4096,
        tmp_bytes: 256 * MIB,
        home_bytes: 64 * MIB,
        shm_bytes: 64 * MIB,
        ..Limits::default()
    };
    sandbox.terminal = Terminal::Log {
        path: spec.service_log.clone(),
        max_bytes: LOG_MAX_BYTES,
    };
    sandbox.expose = Some(Expose {
        inside_port: spec.service_port,
        socket: spec.service_socket.clone(),
        mode: 0o600,
    });
    sandbox
}

/// Waits for the service's end; none if it ended because it was told to.
async fn until_end(
    running: &Arc<Running>,
    status: &watch::Sender<Status>,
    stop: &mut watch::Receiver<bool>,
) -> Result<Option<Outcome>, Refusal> {
    /// `SIGTERM`
    const TERMINATE: i32 = 15;
    let waiting = Arc::clone(running);
    let mut end = tokio::spawn(blocking(move || waiting.wait()));
    tokio::select! {
        ended = &mut end => return joined(ended).map(Some),
        _ = stop.wait_for(|stop| *stop) => {}
    }
    set(status, Phase::Stopping, |_| {});
    if running.signal(TERMINATE).is_ok()
        && let Ok(ended) = tokio::time::timeout(STOP_PATIENCE, &mut end).await
    {
        joined(ended)?;
        return Ok(None);
    }
    running.kill();
    joined(end.await)?;
    Ok(None)
}

fn joined(
    ended: Result<Result<Outcome, Refusal>, tokio::task::JoinError>,
) -> Result<Outcome, Refusal> {
    ended.map_err(|error| Refusal::internal(format!("waiting was cut off: {error}")))?
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Refusal::internal(format!("a blocking step was cut off: {error}")))?
}

/// Turns SIGTERM and SIGINT into a stop; ends only if signals can't be received.
async fn ended_by_signal(stop: Arc<watch::Sender<bool>>) -> Result<(), Refusal> {
    use tokio::signal::unix::{SignalKind, signal};
    let unavailable = |error: std::io::Error| {
        Refusal::unavailable("signals", "signals can't be received").received(&error.to_string())
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(unavailable)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unavailable)?;
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
    }
}

fn set(status: &watch::Sender<Status>, phase: Phase, more: impl FnOnce(&mut Status)) {
    status.send_modify(|status| {
        status.phase = phase;
        status.since_unix_ms = unix_ms();
        more(status);
    });
}

fn unix_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

fn code_of(outcome: &Outcome) -> String {
    match outcome.ending {
        Ending::Exited { code } => format!("exited-{code}"),
        Ending::Signalled { signal } => format!("signalled-{signal}"),
        Ending::Deadline => "deadline".to_owned(),
        Ending::Killed => "killed".to_owned(),
    }
}

/// How long to wait before the next start.
#[derive(Debug, Default)]
struct Backoff {
    deaths: u32,
}

impl Backoff {
    /// The pause after a service that ran for `lasted`; none when it ended too often.
    fn after(&mut self, lasted: Duration) -> Option<Duration> {
        if lasted >= STEADY_AFTER {
            self.deaths = 0;
        }
        self.deaths += 1;
        let doubled = PAUSE_FIRST.saturating_mul(1 << (self.deaths - 1).min(16));
        (self.deaths < DEATHS_MAX).then(|| doubled.min(PAUSE_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_keeps_dying_is_given_up_and_a_steady_one_never() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = std::iter::from_fn(|| backoff.after(Duration::ZERO))
            .take(100)
            .collect();
        assert_eq!(pauses.len(), 5);
        assert!(pauses.is_sorted() && pauses.iter().all(|pause| *pause <= PAUSE_MAX));
        let mut steady = Backoff::default();
        for _ in 0..100 {
            assert_eq!(steady.after(STEADY_AFTER), Some(PAUSE_FIRST));
        }
    }
}
