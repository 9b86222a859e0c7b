//! `run`: starts a command as an agent, under a signed task, in a sandbox of its own.
//!
//! Read top to bottom, [`Run::run`] is the whole of it: look at the machine, let the server record
//! and lend, build the sandbox, open the channel, follow the server's word, tell the end. The run's
//! key and token stay in this process; inside there is nothing but the channel.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_identity::{RunCredential, RunKey};
use portcullis_model::digest::encode_hex;
use portcullis_model::statement::Command;
use portcullis_model::{Digest, HostId, Refusal, Task, canonical};
use portcullis_sandbox::channel::{Authority, Capture, Channel, Gateway};
use portcullis_sandbox::{Ending, Protection, RunAs, Running, Spec, Terminal, probe, spawn};

use crate::client::Client;
use crate::commands::launch::toolchain;
use crate::context::Context;
use crate::exit::Exit;
use crate::output;
use crate::task_file::{TaskFile, read_bounded};
use crate::time::now;

mod control;
mod folder;
mod host;
mod keep;
mod lent;
mod prelude;
mod prover;

use folder::{Folder, given_bind, user_of_run};
use host::Host;
use lent::Lent;
use prover::RunProver;

/// What the server is told of a command that was killed with all of its run, as of one by a signal.
const KILLED: u8 = 137;
/// Time between asking a command to end and ending it.
const GRACE: Duration = Duration::from_secs(5);

/// Start a command as an agent, under a signed task
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The exit status is the command's (128 + signal if it was killed, 137 at the \
                        deadline); what is refused before it starts has the codes of `portcullis --help`."
)]
pub(crate) struct Run {
    /// The signed task
    #[arg(long, value_name = "FILE")]
    task: PathBuf,
    /// As which enrolled host
    #[arg(long, value_name = "ID", default_value = "local")]
    host: HostId,
    /// The host's key [default: keys/host.key of --home]
    #[arg(long, value_name = "FILE")]
    host_key: Option<PathBuf>,
    /// The ticket that the task comes from, as it reads now [default: the file of a `file:` source]
    #[arg(long, value_name = "FILE")]
    source_file: Option<PathBuf>,
    /// What the sandbox sees besides the system: rust, node, python, none, or a directory; may be
    /// repeated [default: whichever of the three is here]
    #[arg(long, value_name = "NAME|PATH")]
    toolchain: Vec<String>,
    /// Where the workspace is made [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    workspaces: Option<PathBuf>,
    /// Leave the workspace when the run is over
    #[arg(long)]
    keep_workspace: bool,
    /// The command and its arguments, run in a fresh clone
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// How a run ended.
#[derive(Debug)]
struct Ended {
    exit: u8,
    deadline: bool,
    /// Why it is not known how the command ended, where the run was ended from here.
    unknown: Option<Refusal>,
}

impl Run {
    /// Runs it, and does not come back if a command ran: the program ends with its status.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        let client = Client::new(&with_address(&context.global.server))?;
        let file = TaskFile::read(&self.task)?;
        let task = file.task()?;
        let envelope = file.envelope(&self.task)?.clone();
        let source = self.source(&task)?;
        // What can't be had is said before anything is asked for.
        let toolchains = toolchain::toolchains(&self.toolchain)?;
        let gaps = gaps().await?;
        let status = context.status(&client).await?;
        let key_file = self
            .host_key
            .clone()
            .unwrap_or_else(|| context.home().join("keys/host.key"));
        let host = Host::load(self.host.clone(), &key_file, status.origin)?;
        // From here on a signal must not leave a run behind that nobody ends.
        let mut signals = Signals::catch()?;
        let key = RunKey::generate()?;
        let command = Command::StartRun {
            task: envelope,
            run_key: key.thumbprint().to_string(),
            run_public_key: encode_hex(key.public().point()),
            source,
            gaps: gaps.iter().map(|gap| gap.name().to_owned()).collect(),
        };
        let text = String::from_utf8(canonical::to_vec(&file.task_text())?)
            .map_err(|_| Refusal::internal("canonical JSON is UTF-8"))?;
        let url = format!("{}/v1/commands", client.url());
        let (_, possession) = key.possession("POST", &url, now())?;
        let answer = host
            .start(&client, command, text, possession.expose())
            .await?;
        let lent = Lent::read(answer)?;
        tell(&format!(
            "{} of {} until {}",
            lent.run, lent.agent, lent.deadline
        ));
        let credential = Arc::new(key.with_token(lent.token.clone()));
        let inside = Inside {
            lent: &lent,
            task: &task,
            file: &file,
            gaps,
            toolchains,
        };
        let ended = self.inside(&client, credential, inside, &mut signals).await;
        let (exit, deadline) = match &ended {
            Ok(ended) => (ended.exit, ended.deadline),
            Err(_) => (prelude::NOT_STARTED, false),
        };
        if let Err(refusal) = host.end(&client, lent.run, exit, deadline).await {
            tell(&format!(
                "the server was not told that {} is over: {}",
                lent.run, refusal.message
            ));
        }
        let ended = ended?;
        if ended.deadline {
            tell("the deadline ended it, with everything that it had started");
        }
        if let Some(refusal) = ended.unknown {
            tell(
                "how the command ended is not known: it was ended from here, with everything that it had started",
            );
            return Err(refusal);
        }
        // Nothing is left to be dropped: the status is any byte, which `Exit` can't say.
        std::process::exit(i32::from(ended.exit));
    }

    /// The sandbox from its start to its end. Whatever happens, its directory is gone afterwards.
    async fn inside(
        &self,
        client: &Client,
        credential: Arc<RunCredential>,
        inside: Inside<'_>,
        signals: &mut Signals,
    ) -> Result<Ended, Refusal> {
        let lent = inside.lent;
        // Root gives each run a user of its own, unless it can't and the task does without.
        let own =
            rustix::process::geteuid().is_root() && !inside.gaps.contains(&Protection::OwnUser);
        let user = own.then(|| user_of_run(lent.run));
        let parent = self.workspaces.clone().unwrap_or_else(std::env::temp_dir);
        let folder = Folder::create(&parent, lent.run, user, self.keep_workspace)?;
        let life = Duration::from_millis(lent.deadline.ms_since(now()));
        let authority = Authority::new(named_hosts(lent), life)?;
        let capture = Capture {
            hosts: lent.hosts.clone(),
            tunnels: lent.tunnels.clone(),
            authority,
        };
        let certificates = folder.give_certificates(&capture.authority.bundle())?;
        let spec = self.spec(&folder, inside, user, &certificates)?;
        // In time that passes, not by the clock, which somebody may set meanwhile.
        let (begun, life) = (Instant::now(), life_of(&spec));
        let running = tokio::task::spawn_blocking(move || spawn(&spec))
            .await
            .map_err(|_| Refusal::internal("the sandbox's start was cut off"))??;
        let running = Arc::new(running);
        let inlets = running
            .inlets()
            .map_err(|error| Refusal::internal(format!("the sandbox has no channel: {error}")))?;
        let gateway = Gateway {
            server: client.url().to_owned(),
            tls: None,
        };
        let prover = Arc::new(RunProver(Arc::clone(&credential)));
        let channel = Channel::capture(inlets, &gateway, prover, capture)?;
        let following = {
            let (server, deadline) = (client.url().to_owned(), lent.deadline);
            let keeper = Arc::new(keep::Keeper::new(
                Arc::clone(&running),
                &folder.workspace(),
                &folder.checkpoints(),
            ));
            tokio::spawn(async move {
                control::follow(&server, credential, keeper, deadline, life).await
            })
        };
        let waiting = {
            let running = Arc::clone(&running);
            tokio::task::spawn_blocking(move || running.wait())
        };
        let outcome = signals.pass_on(&running, waiting).await;
        following.abort();
        drop(channel);
        // The token ends with the run, so the server's word may come before the sandbox's own.
        let over = begun.elapsed() >= life;
        Ok(match outcome {
            Ok(outcome) => Ended {
                exit: outcome.exit_code(),
                deadline: outcome.ending == Ending::Deadline || over,
                unknown: None,
            },
            // It did begin.
            Err(refusal) => Ended {
                exit: KILLED,
                deadline: over,
                unknown: Some(refusal),
            },
        })
    }

    /// What the sandbox is told.
    fn spec(
        &self,
        folder: &Folder,
        inside: Inside<'_>,
        user: Option<u32>,
        certificates: &Path,
    ) -> Result<Spec, Refusal> {
        let Inside {
            lent,
            task,
            file,
            gaps,
            toolchains,
        } = inside;
        let first = self.command.first().cloned().unwrap_or_default();
        let own = folder.give_command(&first)?;
        folder.give("task.md", &prelude::task_file(&file.task_text()))?;
        if !lent.feedback.is_empty() {
            folder.give("feedback.md", &prelude::feedback_file(&lent.feedback))?;
        }
        folder.give("prelude.sh", &prelude::script(lent, own.as_deref()))?;
        let words = [
            "/bin/sh".into(),
            format!("{}/prelude.sh", prelude::GIVEN).into(),
        ];
        let command = words.into_iter().chain(self.command.iter().cloned());
        let mut spec = Spec::new(folder.workspace(), command);
        for found in toolchains {
            spec.add_toolchain(found);
        }
        // An agent that is one file in a directory of the caller's `PATH`, or at an absolute path.
        if let Some(found) = toolchain::single_program(&first, &spec.read_only) {
            spec.add_toolchain(found);
        } else if let Some(bind) = absolute_program(Path::new(&first), &spec) {
            spec.read_only.push(bind);
        }
        spec.read_only.push(given_bind(folder));
        for (name, value) in prelude::environment(lent) {
            spec.variable(name, value);
        }
        if let Some(terminal) = std::env::var("TERM").ok().filter(|name| is_plain(name)) {
            spec.variable("TERM", terminal);
        }
        spec.use_channel(prelude::CHANNEL_PORT);
        let ports = lent.hosts.iter().chain(&lent.tunnels).filter_map(|host| {
            let (_, port) = host.rsplit_once(':')?;
            port.parse().ok()
        });
        spec.capture_all(ports, certificates, Path::new(prelude::AUTHORITIES));
        spec.terminal = Terminal::Inherit;
        spec.deadline_ms = Some(
            lent.deadline
                .ms_since(now())
                .min(task.budgets.wall_ms)
                .max(1),
        );
        spec.run_as = user.map(|id| RunAs { uid: id, gid: id });
        // The server has just compared these with what the task's signature allows.
        spec.allowed_gaps = gaps.into_iter().collect();
        Ok(spec)
    }

    /// The ticket's digest, if the task comes from one.
    fn source(&self, task: &Task) -> Result<Option<Digest>, Refusal> {
        let Some(source) = &task.source else {
            return Ok(None);
        };
        let file = match (&self.source_file, source.uri.strip_prefix("file://")) {
            (Some(file), _) => file.clone(),
            (None, Some(path)) => PathBuf::from(path),
            (None, None) => {
                return Err(Refusal::denied(
                    "source-unread",
                    format!(
                        "the ticket {} can't be compared with what was signed",
                        source.uri
                    ),
                )
                .expected("its text as it reads now")
                .next("fetch it into a file and name that with --source-file FILE"));
            }
        };
        Ok(Some(Digest::of(&read_bounded(&file, "source ticket")?)))
    }
}

/// The hosts that a run is lent, without their ports.
fn named_hosts(lent: &Lent) -> std::collections::BTreeSet<String> {
    lent.hosts
        .iter()
        .filter_map(|host| Some(host.rsplit_once(':')?.0.to_owned()))
        .collect()
}

/// What goes into a sandbox.
struct Inside<'a> {
    lent: &'a Lent,
    task: &'a Task,
    file: &'a TaskFile,
    gaps: Vec<Protection>,
    toolchains: Vec<portcullis_sandbox::Toolchain>,
}

/// Protections that this machine lacks. A run may do without some, if its task says so.
async fn gaps() -> Result<Vec<Protection>, Refusal> {
    let probed = tokio::task::spawn_blocking(probe)
        .await
        .map_err(|_| Refusal::internal("the probe was cut off"))??;
    let mut gaps = Vec::new();
    for result in probed.into_iter().filter(|result| !result.available) {
        // Asked for only where a limit is given, which a run has not.
        if result.protection == Protection::CpuLimit {
            continue;
        }
        if !result.protection.may_be_missing() {
            return Err(Refusal::unavailable(
                &format!("sandbox-{}", result.protection.name()),
                format!(
                    "this machine can't isolate a run: {} is missing",
                    result.protection
                ),
            )
            .received(&result.why)
            .next(
                result
                    .how_to_mend
                    .unwrap_or_else(|| "`portcullis doctor`".to_owned()),
            ));
        }
        gaps.push(result.protection);
    }
    Ok(gaps)
}

/// Signals to this program, passed on to the command. A terminal's own keys do not come this way:
/// the sandbox has a pty of its own.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn catch() -> Result<Self, Refusal> {
        use tokio::signal::unix::{SignalKind, signal};
        let caught = |kind| {
            signal(kind)
                .map_err(|error| Refusal::internal(format!("signals can't be caught: {error}")))
        };
        Ok(Self {
            interrupt: caught(SignalKind::interrupt())?,
            terminate: caught(SignalKind::terminate())?,
            hangup: caught(SignalKind::hangup())?,
        })
    }

    /// Waits for the end; what is not over some seconds after it was told to end is ended.
    async fn pass_on<T>(
        &mut self,
        running: &Arc<Running>,
        waiting: tokio::task::JoinHandle<Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let mut waiting = waiting;
        let mut patience = None;
        loop {
            let over = async {
                match patience {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let signal = tokio::select! {
                ended = &mut waiting => {
                    return ended.map_err(|_| Refusal::internal("the wait for the run was cut off"))?;
                }
                Some(()) = self.interrupt.recv() => 2,
                Some(()) = self.terminate.recv() => 15,
                Some(()) = self.hangup.recv() => 1,
                () = over => {
                    running.kill();
                    patience = None;
                    continue;
                }
            };
            let sandbox = Arc::clone(running);
            let passed = tokio::task::spawn_blocking(move || sandbox.signal(signal)).await;
            // A frozen run takes no signals; an interrupt leaves the choice to the command.
            if signal != 2 || !matches!(passed, Ok(Ok(()))) {
                patience.get_or_insert(tokio::time::Instant::now() + GRACE);
            }
        }
    }
}

/// How long a run may take. Each has its deadline; 49 days are more than any.
fn life_of(spec: &Spec) -> Duration {
    Duration::from_millis(spec.deadline_ms.unwrap_or(u32::MAX.into()))
}

/// A program outside the system's directories that is named by its absolute path.
fn absolute_program(path: &Path, spec: &Spec) -> Option<portcullis_sandbox::Bind> {
    let seen = spec
        .read_only
        .iter()
        .any(|bind| path.starts_with(&bind.inside));
    let there = path.is_absolute() && !seen && path.is_file();
    there.then(|| portcullis_sandbox::Bind::required(path, path))
}

/// The server's proofs name it by its address.
fn with_address(server: &str) -> String {
    match server.strip_prefix("http://localhost") {
        Some(rest) if rest.is_empty() || rest.starts_with([':', '/']) => {
            format!("http://127.0.0.1{rest}")
        }
        Some(_) | None => server.to_owned(),
    }
}

fn is_plain(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-+._".contains(&byte))
}

/// Says something beside the command's own output. A terminal may be in raw mode, where a line feed
/// alone does not begin a line.
fn tell(text: &str) {
    use std::io::IsTerminal as _;
    let begin = if std::io::stderr().is_terminal() {
        "\r"
    } else {
        ""
    };
    output::note(&format!(
        "{begin}portcullis: {}{begin}",
        output::clean(text)
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_named_by_its_address() {
        assert_eq!(
            with_address("http://localhost:7117"),
            "http://127.0.0.1:7117"
        );
        assert_eq!(with_address("http://localhost"), "http://127.0.0.1");
        for same in [
            "http://127.0.0.1:1",
            "http://localhost.example.org:1",
            "http://[::1]:1",
        ] {
            assert_eq!(with_address(same), same);
        }
    }

    #[test]
    fn only_plain_terminal_names_enter() {
        assert!(is_plain("xterm-256color"));
        for bad in ["", "a b", "x;reboot", &"x".repeat(65)] {
            assert!(!is_plain(bad), "{bad}");
        }
    }

    #[test]
    fn a_program_by_its_absolute_path_is_shown_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("agent");
        std::fs::write(&program, "").unwrap();
        let spec = Spec::new("/w", ["x"]);
        let bind = absolute_program(&program, &spec).unwrap();
        assert_eq!((bind.host, bind.inside), (program.clone(), program));
        assert!(
            absolute_program(Path::new("/bin/sh"), &spec).is_none(),
            "visible anyway"
        );
        assert!(absolute_program(dir.path(), &spec).is_none(), "a directory");
    }
}
