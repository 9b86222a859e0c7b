//! A server with one repository, and a run whose channel can be reached from outside.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Outcome, done, free_port};

/// The repository's name in the server.
pub(crate) const NAME: &str = "repository";
/// Longest that a server or a run takes to begin.
const PATIENCE: Duration = Duration::from_secs(60);

/// One server, with its run.
pub(crate) struct House {
    server: Child,
    run: Child,
    /// Leads into the run's channel.
    pub(crate) socket: PathBuf,
    /// The run's workspace; a socket's path must be short.
    _workspaces: tempfile::TempDir,
}

impl House {
    /// Everything from `init` to the run for the repository in `upstream`, below `place`.
    pub(crate) fn new(place: &Path, upstream: &Path) -> Outcome<Self> {
        fs::create_dir_all(place.join("work"))?;
        let program = std::env::current_exe()?
            .parent()
            .and_then(Path::parent)
            .map(|folder| folder.join("portcullis"))
            .filter(|file| file.exists())
            .ok_or("build the program first: cargo build -p portcullis-cli --bins")?;
        let key = place.join("key");
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
        done(keygen.arg(&key))?;
        let port = free_port()?;
        let ada = Person {
            program,
            place: place.to_owned(),
            port,
        };
        let mut init = ada.portcullis();
        init.arg("init")
            .arg(place.join("home"))
            .arg("--repository")
            .arg(format!("{NAME}={}", upstream.display()))
            .args(["--human", "ada", "--quorum", "1", "--solo"])
            .args(["--agent", "git", "--listen"])
            .arg(format!("127.0.0.1:{port}"))
            .args(["--origin", "example.com/scripts"])
            .args(["--trust-domain", "example.com"])
            .env("PORTCULLIS_KEY", place.join("key.pub"));
        done(&mut init)?;
        // What the scripts do to other branches, and to tags, is seen by the next look.
        let settings = place.join("home/portcullis.toml");
        let text = fs::read_to_string(&settings)?;
        fs::write(
            &settings,
            text.replace("sync_every_s = 5", "sync_every_s = 1"),
        )?;
        let log = |name: &str| fs::File::create(place.join(name));
        let mut server = ada
            .portcullis()
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(log("server.log")?)
            .stderr(log("server.err")?)
            .process_group(0)
            .spawn()?;
        let workspaces = tempfile::Builder::new().prefix("git-scripts").tempdir()?;
        match begin(&ada, workspaces.path()) {
            Ok((run, socket)) => Ok(Self {
                server,
                run,
                socket,
                _workspaces: workspaces,
            }),
            Err(error) => {
                end(&mut server);
                Err(error)
            }
        }
    }
}

/// Who signs here, and the server that she works with.
#[derive(Clone)]
struct Person {
    program: PathBuf,
    place: PathBuf,
    port: u16,
}

impl Person {
    fn portcullis(&self) -> Command {
        let mut command = Command::new(&self.program);
        let server = format!("http://127.0.0.1:{}", self.port);
        command
            .env("PORTCULLIS_SERVER", server)
            .env("PORTCULLIS_HOME", self.place.join("home"))
            .env("PORTCULLIS_KEY", self.place.join("key"))
            .env("PORTCULLIS_LOG", "info")
            .current_dir(self.place.join("work"));
        plain(&mut command);
        command
    }

    /// Looks at a run that stands still, as one does after five denials, and lets it go on each
    /// time. Ends with the place.
    fn let_go_on(&self) {
        let mut known = 0;
        while let Ok(text) = fs::read_to_string(self.place.join("run.err")) {
            let stops = text.matches("stands still").count();
            if stops > known && self.approve_all() {
                known = stops;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn approve_all(&self) -> bool {
        let mut list = self.portcullis();
        let Ok(open) = done(list.args(["request", "list", "--output", "json"])) else {
            return false;
        };
        let mut names: Vec<&str> = open
            .split('"')
            .filter(|word| word.starts_with("request-"))
            .collect();
        names.dedup();
        names.iter().any(|name| {
            let mut approve = self.portcullis();
            done(approve.args(["approve", name, "--yes"])).is_ok()
        })
    }
}

/// The run of a task that names everything, once its socket stands.
fn begin(ada: &Person, workspaces: &Path) -> Outcome<(Child, PathBuf)> {
    let place = &ada.place;
    await_that("the server", || {
        fs::read_to_string(place.join("server.log")).is_ok_and(|log| log.contains("ready at"))
    })?;
    let task = place.join("task.json");
    let mut order = ada.portcullis();
    order
        .args(["task", "new", "Git's own tests", "--sign", "--agent", "git"])
        .args(["--paths", "**", "--repository", NAME])
        .args(["--max-files", "100000", "--max-lines", "1000000"])
        .args(["--runs", "1", "--budget-pushes", "1000"])
        .args(["--budget-denials", "1000", "--window", "1h", "--file"]);
    done(order.arg(&task))?;
    let mut command = ada.portcullis();
    let run = command
        .arg("run")
        .arg("--task")
        .arg(&task)
        .arg("--workspaces")
        .arg(workspaces)
        .arg("--")
        .arg(std::env::current_exe()?)
        .args(["inside", "/workspace/socket"])
        .stdin(Stdio::null())
        .stdout(fs::File::create(place.join("run.log"))?)
        .stderr(fs::File::create(place.join("run.err"))?)
        .process_group(0);
    let mut run = run.spawn()?;
    let mut found = None;
    let waited = await_that("the run", || {
        found = socket_below(workspaces);
        found.is_some()
    });
    match (waited, found) {
        (Ok(()), Some(socket)) => {
            let ada = ada.clone();
            std::thread::spawn(move || ada.let_go_on());
            Ok((run, socket))
        }
        (waited, _) => {
            end(&mut run);
            let said = fs::read_to_string(place.join("run.err"))?;
            Err(format!("{waited:?}: {said}").into())
        }
    }
}

fn socket_below(workspaces: &Path) -> Option<PathBuf> {
    fs::read_dir(workspaces)
        .ok()?
        .flatten()
        .map(|entry| entry.path().join("workspace/socket"))
        .find(|socket| socket.exists())
}

impl Drop for House {
    fn drop(&mut self) {
        end(&mut self.run);
        end(&mut self.server);
    }
}

/// Ends a process that this one started, and waits for it.
fn end(child: &mut Child) {
    let told = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    let since = Instant::now();
    while told.is_ok() && since.elapsed() < Duration::from_secs(8) {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let killed = child.kill();
    let _ = (killed, child.wait());
}

/// Without what the scripts set for the git that they test.
fn plain(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("GIT_") || text.starts_with("TEST_") {
            command.env_remove(name);
        }
    }
    command.env("GIT_CONFIG_NOSYSTEM", "1");
}

fn await_that(what: &str, mut holds: impl FnMut() -> bool) -> Outcome<()> {
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        if holds() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(format!("{what} does not begin").into())
}
