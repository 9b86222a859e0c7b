//! Starting a sandbox.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis_model::Refusal;
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use crate::plan::{Answer, HELPER_ARGUMENT, HELPER_VARIABLE, Order, Plan};
use crate::running::{ANSWER_PATIENCE, Running, callers_terminal};
use crate::spec::{Spec, Terminal};
use crate::sys::wait_until;
use crate::wire;

/// Longest that a sandbox gets to be built, far above the slowest machine.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// Longest that a helper that was let go gets to clean up.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Builds the sandbox and starts the command in it. Returns once the command's program has taken
/// over, so that a command that doesn't exist is a refusal here.
///
/// Blocks for some milliseconds; from async code call it through `spawn_blocking`. The thread that
/// calls it may end before the run does.
///
/// # Errors
/// `malformed-…` for a spec that makes no sense; `sandbox-<protection>` where a protection is
/// missing and not among the allowed gaps; `command-not-found`, `command-not-executable`;
/// `workspace-not-found`, `bind-not-found`, `workspace-owner`, `expose-socket`; `sandbox-helper`
/// where the helper program can't be started or doesn't call [`helper_main`](crate::helper_main).
pub fn spawn(spec: &Spec) -> Result<Running, Refusal> {
    spec.check()?;
    let workspace = fs::canonicalize(&spec.workspace).map_err(|error| {
        Refusal::not_found("workspace", spec.workspace.display()).received(&error.to_string())
    })?;
    let plan = Plan::of(&absolute(spec)?, &workspace);
    let mut helper = Helper::start(spec.helper.as_deref())?;
    let (events, their_events) = UnixStream::pair().map_err(unavailable)?;
    let caller = pidfd_open(getpid(), PidfdFlags::empty()).map_err(unavailable)?;
    let mut descriptors: Vec<BorrowedFd<'_>> = vec![their_events.as_fd(), caller.as_fd()];
    if spec.terminal == Terminal::Inherit {
        descriptors.extend([
            rustix::stdio::stdin(),
            rustix::stdio::stdout(),
            rustix::stdio::stderr(),
        ]);
    }
    let terminal = callers_terminal(spec);
    let order = Order::Run(Box::new(plan));
    let (answer, descriptors) = helper.ask::<Answer>(&order, &descriptors)?;
    drop(their_events);
    match answer {
        Answer::Started {
            pid,
            uid,
            by,
            gaps,
            listeners,
            master,
            captured,
            cgroups,
        } => {
            let mut descriptors = descriptors.into_iter();
            let mut next = |present: bool| present.then(|| descriptors.next()).flatten();
            let init = next(true)
                .ok_or_else(|| Refusal::internal("the sandbox helper sent no descriptors"))?;
            let mut inlets = (0..listeners).map_while(|_| next(true)).collect::<Vec<_>>();
            let listener = (!inlets.is_empty()).then(|| inlets.remove(0));
            let (control, child) = helper.into_parts();
            control
                .set_read_timeout(Some(ANSWER_PATIENCE))
                .map_err(unavailable)?;
            Ok(Running {
                pid,
                uid,
                by,
                gaps,
                init,
                listener: listener.map(Into::into),
                names: inlets.pop().map(Into::into),
                captured_listeners: inlets.into_iter().map(Into::into).collect(),
                master: next(master),
                captured: next(captured).zip(next(captured)),
                cgroups: cgroups.iter().map(crate::plan::Os::to_path).collect(),
                control,
                asking: Mutex::new(()),
                silent: AtomicBool::new(false),
                killed: AtomicBool::new(false),
                due: spec
                    .deadline_ms
                    .map(|ms| Instant::now() + Duration::from_millis(ms)),
                ended: Running::not_ended(events, child, spec, terminal),
            })
        }
        Answer::Refused(refusal) => Err(refusal),
    }
}

/// The helper works in `/`, so relative paths are made absolute here.
fn absolute(spec: &Spec) -> Result<Spec, Refusal> {
    let mut spec = spec.clone();
    for bind in &mut spec.read_only {
        bind.host = std::path::absolute(&bind.host).map_err(unavailable)?;
    }
    if let Terminal::Log { path, .. } = &mut spec.terminal {
        *path = std::path::absolute(&path).map_err(unavailable)?;
    }
    Ok(spec)
}

fn unavailable(error: impl Into<io::Error>) -> Refusal {
    Refusal::unavailable("sandbox-step", "the sandbox can't start")
        .received(&error.into().to_string())
}

/// A started helper that has not been told yet what to do. Dropped, it is ended and reaped.
pub(crate) struct Helper {
    socket: Arc<UnixStream>,
    child: Option<Child>,
}

impl Helper {
    pub(crate) fn start(program: Option<&Path>) -> Result<Self, Refusal> {
        let refused = |received: &str| {
            Refusal::unavailable("sandbox-helper", "the sandbox helper can't be started")
                .expected("a program that calls portcullis_sandbox::helper_main first in main")
                .received(received)
        };
        if std::env::var_os(HELPER_VARIABLE).is_some() {
            return Err(refused(
                "a program that was started as the helper and went on as itself",
            ));
        }
        let (socket, theirs) = UnixStream::pair().map_err(unavailable)?;
        socket
            .set_read_timeout(Some(START_PATIENCE))
            .map_err(unavailable)?;
        let program = program.unwrap_or_else(|| Path::new("/proc/self/exe"));
        let child = Command::new(program)
            .arg0("portcullis-sandbox")
            .arg(HELPER_ARGUMENT)
            .env_clear()
            .env(HELPER_VARIABLE, "1")
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| refused(&format!("{}: {error}", program.display())))?;
        Ok(Self {
            socket: Arc::new(socket),
            child: Some(child),
        })
    }

    pub(crate) fn ask<T: serde::de::DeserializeOwned>(
        &mut self,
        order: &Order,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(T, Vec<OwnedFd>), Refusal> {
        let answer = wire::send(&self.socket, order, descriptors)
            .and_then(|()| wire::receive::<T>(&self.socket));
        let why = match answer {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => "it ended without an answer".to_owned(),
            Err(error) => error.to_string(),
        };
        Err(
            Refusal::unavailable("sandbox-helper", "the sandbox helper gave no answer")
                .expected("a program that calls portcullis_sandbox::helper_main first in main")
                .received(&why),
        )
    }

    fn into_parts(mut self) -> (Arc<UnixStream>, Option<Child>) {
        (Arc::clone(&self.socket), self.child.take())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It ends by itself when its socket closes, and cleans up first.
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
            if !wait_until(END_PATIENCE, || !matches!(child.try_wait(), Ok(None))) {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}
