//! `launch` (hidden): a command in a sandbox, for the builder. See
//! [`portcullis_server::builder::launch`] for the protocol.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead as _, Read as _};
use std::net::TcpListener;
use std::sync::Arc;

use portcullis_model::Refusal;
use portcullis_sandbox::{Ending, Protection, RunAs, Running, Spec, Terminal, spawn};
use portcullis_server::builder::launch::{LaunchAnswer, LaunchOutcome, LaunchSpec, SPEC_MAX_BYTES};

use crate::exit::Exit;
use crate::output;

use network::{Declared, Network};

mod network;
pub(crate) mod toolchain;

/// Where a job's proxy listens inside, if it declares hosts.
const PROXY_PORT: u16 = 3128;

/// Runs a command in a sandbox: a specification in, an outcome out.
#[derive(Debug, clap::Args)]
pub(crate) struct Launch {}

impl Launch {
    /// Runs it. The outcome is on standard output, a refusal too.
    pub(crate) fn run(self) -> Result<Exit, Refusal> {
        let answer = match launch() {
            Ok(outcome) => LaunchAnswer::Ended(outcome),
            Err(refusal) => LaunchAnswer::Refused { refusal },
        };
        let bytes = serde_json::to_vec(&answer).map_err(|error| {
            Refusal::internal(format!("an outcome does not serialise: {error}"))
        })?;
        output::bytes(&bytes)?;
        Ok(Exit::Done)
    }
}

fn launch() -> Result<LaunchOutcome, Refusal> {
    let mut line = Vec::new();
    // Not behind a lock that is held: another thread reads on.
    std::io::stdin()
        .lock()
        .take(SPEC_MAX_BYTES as u64)
        .read_until(b'\n', &mut line)
        .map_err(|error| malformed(&error.to_string()))?;
    let spec: LaunchSpec =
        serde_json::from_slice(&line).map_err(|error| malformed(&error.to_string()))?;
    let declared = Declared::new(&spec.hosts, spec.allow_loopback)?;
    let running = Arc::new(spawn(&sandbox_of(&spec)?)?);
    end_with_whoever_asked(&running);
    let network = declared
        .map(|declared| declared.serve(channel_of(&running)?))
        .transpose()?;
    let outcome = running.wait()?;
    let network = network.map(Network::end).transpose()?;
    let exit = outcome.exit_code();
    let deadline = outcome.ending == Ending::Deadline;
    let gaps = running
        .gaps()
        .keys()
        .map(|gap| gap.name().to_owned())
        .collect();
    let memory_kills = outcome.memory_kills;
    let captured = outcome
        .captured
        .ok_or_else(|| Refusal::internal("the sandbox captured nothing"))?;
    Ok(LaunchOutcome {
        exit,
        deadline,
        truncated: captured.truncated(),
        stdout: captured.stdout,
        stderr: captured.stderr,
        memory_kills,
        gaps,
        network,
    })
}

/// The socket inside to which everything goes that wants out.
fn channel_of(running: &Running) -> Result<TcpListener, Refusal> {
    let unusable =
        || Refusal::unavailable("job-network", "the sandbox has no channel for its network");
    running
        .listener()
        .map_err(|error| unusable().received(&error.to_string()))?
        .ok_or_else(unusable)
}

/// Whoever asked holds our standard input open while it waits. A builder that was killed can't end
/// its job, so this does.
fn end_with_whoever_asked(running: &Arc<Running>) {
    let running = Arc::clone(running);
    std::thread::spawn(move || {
        let mut byte = [0];
        while let Ok(1..) = std::io::stdin().lock().read(&mut byte) {}
        running.kill();
    });
}

/// What the sandbox is told.
fn sandbox_of(wanted: &LaunchSpec) -> Result<Spec, Refusal> {
    let mut spec = Spec::new(&wanted.workspace, &wanted.command);
    for found in toolchain::toolchains(&wanted.toolchains)? {
        spec.add_toolchain(found);
    }
    for (name, value) in &wanted.environment {
        spec.variable(name, value);
    }
    if !wanted.hosts.is_empty() {
        spec.use_channel(PROXY_PORT);
        // There is a proxy at the other end, no gateway.
        spec.environment.remove(OsStr::new("PORTCULLIS_CHANNEL"));
        // The job's own loopback is no way out; what it declares there is this machine's.
        let own = own_loopback(&wanted.hosts);
        spec.variable("NO_PROXY", &own).variable("no_proxy", &own);
    }
    spec.deadline_ms = Some(wanted.deadline_ms);
    spec.terminal = Terminal::Capture {
        max_bytes: wanted.capture_max_bytes,
    };
    spec.run_as = wanted.user.map(|id| RunAs { uid: id, gid: id });
    spec.allowed_gaps = gaps(&wanted.allowed_gaps)?;
    Ok(spec)
}

/// Names of the loopback inside, less those that stand for a declared host.
fn own_loopback(hosts: &[String]) -> String {
    let declared = |name: &str| {
        let names = hosts.iter().filter_map(|host| host.rsplit_once(':'));
        names
            .into_iter()
            .any(|(host, _)| host.trim_matches(['[', ']']) == name)
    };
    ["127.0.0.1", "localhost", "::1"]
        .into_iter()
        .filter(|name| !declared(name))
        .collect::<Vec<_>>()
        .join(",")
}

/// Protections by name.
///
/// # Errors
/// There is none of that name.
pub(crate) fn gaps(names: &BTreeSet<String>) -> Result<BTreeSet<Protection>, Refusal> {
    names.iter().map(|name| name.parse()).collect()
}

fn malformed(received: &str) -> Refusal {
    Refusal::malformed("launch specification")
        .expected("one line of JSON on standard input; the builder writes it")
        .received(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_gets_no_way_out_and_nothing_of_the_callers_environment() {
        let wanted = LaunchSpec {
            command: vec!["make".to_owned()],
            workspace: "/w".into(),
            environment: [("CI".to_owned(), "true".to_owned())].into(),
            deadline_ms: 1_000,
            capture_max_bytes: 10,
            user: Some(63_000),
            toolchains: vec!["none".to_owned()],
            allowed_gaps: ["landlock".to_owned()].into(),
            hosts: Vec::new(),
            allow_loopback: true,
        };
        let spec = sandbox_of(&wanted).unwrap();
        assert_eq!((spec.capture, spec.expose.is_none()), (None, true));
        assert_eq!(
            spec.run_as,
            Some(RunAs {
                uid: 63_000,
                gid: 63_000
            })
        );
        assert_eq!(spec.allowed_gaps, [Protection::Landlock].into());
        assert_eq!(spec.environment.get(OsStr::new("CI")).unwrap(), "true");
        assert!(
            !spec
                .environment
                .contains_key(OsStr::new("CARGO_MANIFEST_DIR"))
        );
        let variable = |spec: &Spec, name: &str| spec.environment.get(OsStr::new(name)).cloned();
        assert_eq!(variable(&spec, "HTTPS_PROXY"), None);
        let reaching = LaunchSpec {
            hosts: vec!["localhost:8080".to_owned(), "crates.io:443".to_owned()],
            ..wanted.clone()
        };
        let spec = sandbox_of(&reaching).unwrap();
        assert_eq!(spec.capture, Some(PROXY_PORT));
        for name in ["HTTPS_PROXY", "http_proxy"] {
            assert_eq!(variable(&spec, name).unwrap(), "http://127.0.0.1:3128");
        }
        assert_eq!(variable(&spec, "NO_PROXY").unwrap(), "127.0.0.1,::1");
        assert_eq!(variable(&spec, "PORTCULLIS_CHANNEL"), None);
        let unknown = LaunchSpec {
            allowed_gaps: ["everything".to_owned()].into(),
            ..wanted
        };
        assert!(sandbox_of(&unknown).is_err());
    }
}
