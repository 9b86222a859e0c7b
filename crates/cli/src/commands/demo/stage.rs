//! Where the demo plays: a directory, free ports, the real binary, and ways to wait for what shall
//! come.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_evidence::sshsig::SshPrivateKey;
use portcullis_model::Refusal;
use tokio::runtime::Handle;

use super::processes::{Background, Done, Processes};
use super::story::Story;
use crate::client::Client;

/// The person of the story.
pub(super) const PERSON: &str = "ada";

/// TCP ports on loopback that nobody used a moment ago.
#[derive(Clone, Copy)]
pub(super) struct Ports {
    pub(super) server: u16,
    pub(super) staging: u16,
    pub(super) production: u16,
}

/// The stage.
pub(super) struct Stage {
    pub(super) story: Story,
    pub(super) processes: Arc<Processes>,
    pub(super) directory: PathBuf,
    pub(super) ports: Ports,
    pub(super) runtime: Handle,
    pub(super) client: Client,
    program: PathBuf,
    /// Protections that this machine lacks and the demo's tasks do without.
    gaps: Vec<&'static str>,
}

impl Stage {
    /// A stage in an empty directory.
    ///
    /// # Errors
    /// There is no free port, or this program can't be found.
    pub(super) fn new(
        story: Story,
        processes: Arc<Processes>,
        directory: &Path,
        runtime: Handle,
        gaps: Vec<&'static str>,
    ) -> Result<Self, Refusal> {
        let ports = free_ports()?;
        let program = std::env::current_exe().map_err(|error| {
            Refusal::unavailable("demo-program", "this program can't be found")
                .received(&error.to_string())
        })?;
        for folder in ["person", "agents", "tasks", "logs", "tmp"] {
            fs::create_dir_all(directory.join(folder)).map_err(unwritable)?;
        }
        Ok(Self {
            story,
            processes,
            directory: directory.to_owned(),
            ports,
            runtime,
            client: Client::new(&format!("http://127.0.0.1:{}", ports.server))?,
            program,
            gaps,
        })
    }

    /// The arguments of a new task that does without what this machine lacks.
    pub(super) fn allowing_gaps<'a>(&self, arguments: &[&'a str]) -> Vec<&'a str> {
        let gaps = self.gaps.iter().flat_map(|gap| ["--allow-gap", gap]);
        arguments.iter().copied().chain(gaps).collect()
    }

    /// The server's directory.
    pub(super) fn home(&self) -> PathBuf {
        self.directory.join("portcullis")
    }

    /// The server's URL.
    pub(super) fn url(&self) -> &str {
        self.client.url()
    }

    /// A path below the demo's directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes a file below the demo's directory.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf, Refusal> {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(unwritable)?;
        }
        fs::write(&path, text).map_err(unwritable)?;
        Ok(path)
    }

    /// Makes the person's SSH key, as `ssh-keygen -t ed25519` would.
    pub(super) fn make_key(&self) -> Result<String, Refusal> {
        let (key, file) = SshPrivateKey::generate(PERSON)?;
        let path = self.write("person/id_ed25519", file.expose())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(unwritable)?;
        self.write(
            "person/id_ed25519.pub",
            &format!("{} {PERSON}\n", key.public_key()),
        )?;
        Ok(key.public_key().fingerprint().to_owned())
    }

    /// A command in the demo's directory, with nothing of the caller's keys and settings.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("PORTCULLIS_")
                || name.starts_with("GIT_")
                || name == "SSH_AUTH_SOCK"
            {
                command.env_remove(&*name);
            }
        }
        command
            .current_dir(&self.directory)
            .env("HOME", self.path("person"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("TMPDIR", self.path("tmp"))
            .env("PORTCULLIS_SERVER", self.url())
            .env("PORTCULLIS_KEY", self.path("person/id_ed25519"));
        command
    }

    /// This very program, as one types it.
    pub(super) fn portcullis(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&self.program);
        command.args(arguments);
        command
    }

    /// Runs git, quietly.
    ///
    /// # Errors
    /// git refuses.
    pub(super) fn git(&self, arguments: &[&str]) -> Result<String, Refusal> {
        let done = self
            .processes
            .run(self.command("git").args(arguments), false)?;
        self.expect(
            done.code == 0,
            &format!("git {}", arguments.join(" ")),
            "exit 0",
            || done.both(),
        )?;
        Ok(done.out.trim().to_owned())
    }

    /// Runs a command of ours, quietly, and wants it to succeed.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<Done, Refusal> {
        self.run_for(arguments, 0)
    }

    /// Runs a command of ours, quietly, and wants this exit code.
    ///
    /// # Errors
    /// It has another.
    pub(super) fn run_for(&self, arguments: &[&str], code: i32) -> Result<Done, Refusal> {
        // JSON is for programs and stands alone; for people both streams are one.
        let merged = !arguments.contains(&"--output");
        let done = self
            .processes
            .run(&mut self.portcullis(arguments), merged)?;
        let what = format!("portcullis {}", arguments.join(" "));
        self.expect(done.code == code, &what, &format!("exit {code}"), || {
            format!("exit {}: {}", done.code, done.both())
        })?;
        Ok(done)
    }

    /// Shows a command, runs it, and shows what it printed.
    ///
    /// # Errors
    /// It does not succeed.
    pub(super) fn typed(&self, arguments: &[&str]) -> Result<Done, Refusal> {
        self.typed_for(arguments, 0)
    }

    /// As [`Self::typed`], for a command that shall end with this exit code.
    ///
    /// # Errors
    /// It has another.
    pub(super) fn typed_for(&self, arguments: &[&str], code: i32) -> Result<Done, Refusal> {
        self.story.typed(&shown(arguments))?;
        let done = self.run_for(arguments, code)?;
        self.story.printed(
            &done
                .both()
                .replace(&format!("{}/", self.directory.display()), ""),
        )?;
        Ok(done)
    }

    /// Starts a role that works on the server's directory. It is named in full, so that whoever
    /// looks for what belongs to this demo finds the process by it.
    ///
    /// # Errors
    /// It can't be started.
    pub(super) fn start_role(&self, name: &str) -> Result<Background, Refusal> {
        let home = self.home();
        self.start(name, &["--home", &home.display().to_string(), name])
    }

    /// Starts a command of ours in the background; it writes to `logs/<name>.log`.
    ///
    /// # Errors
    /// It can't be started.
    pub(super) fn start(&self, name: &str, arguments: &[&str]) -> Result<Background, Refusal> {
        let log = self.path("logs").join(format!("{name}.log"));
        self.processes
            .background(&mut self.portcullis(arguments), &log)
    }

    /// Starts the server and waits until it answers; gives how long that took.
    ///
    /// # Errors
    /// It ends, or never answers.
    pub(super) fn serve(&self) -> Result<(Background, Duration), Refusal> {
        let since = Instant::now();
        let server = self.start_role("serve")?;
        self.wait("the server", || {
            if let Some(code) = server.ended()? {
                return Err(self.failure(
                    "the server",
                    "that it serves",
                    &format!("exit {code}: {}", server.printed()),
                ));
            }
            Ok(self.get("/v1/status").ok())
        })?;
        Ok((server, since.elapsed()))
    }
}

/// A command line with quotes where a shell wants them.
pub(super) fn shown(arguments: &[&str]) -> String {
    let plain = |word: &&str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=,+@".contains(&byte))
    };
    let words: Vec<String> = arguments
        .iter()
        .map(|word| {
            if plain(word) || word.starts_with("\"$(") {
                (*word).to_owned()
            } else {
                format!("'{}'", word.replace('\'', "'\\''"))
            }
        })
        .collect();
    format!("portcullis {}", words.join(" "))
}

fn free_ports() -> Result<Ports, Refusal> {
    let bind = || {
        TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| {
            let port = listener.local_addr()?.port();
            Ok((listener, port))
        })
    };
    // All three are held until all three are known, so that they differ.
    let taken = |error: std::io::Error| {
        Refusal::unavailable("demo-ports", "there is no free port on 127.0.0.1")
            .received(&error.to_string())
    };
    let (server, staging, production) = (
        bind().map_err(taken)?,
        bind().map_err(taken)?,
        bind().map_err(taken)?,
    );
    Ok(Ports {
        server: server.1,
        staging: staging.1,
        production: production.1,
    })
}

pub(super) fn unwritable(error: std::io::Error) -> Refusal {
    Refusal::unavailable("demo-files", "the demo's directory can't be written")
        .received(&error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_one_types_them() {
        assert_eq!(
            shown(&["task", "new", "Sell coffee", "--paths", "src/**"]),
            "portcullis task new 'Sell coffee' --paths 'src/**'"
        );
        assert_eq!(
            shown(&["-c", "\"$(cat a.sh)\""]),
            "portcullis -c \"$(cat a.sh)\""
        );
    }

    #[test]
    fn ports_differ() {
        let ports = free_ports().unwrap();
        assert!(ports.server != ports.staging && ports.staging != ports.production);
    }
}
