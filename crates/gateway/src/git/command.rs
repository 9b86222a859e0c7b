//! Runs the `git` binary with nothing of the machine in its environment.
//!
//! Each process gets: no system or user configuration, an empty home, no hooks, no replace refs,
//! no prompts, no protocol but those that the call names, a time bound, and bounded output. The
//! whole process group is killed when its time is over or the caller goes away.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use portcullis_model::Refusal;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::upstream::Access;

/// Time for a command that reads a few objects.
pub(crate) const QUICK: Duration = Duration::from_secs(30);
/// Time for a command that may walk much of a repository.
pub(crate) const LONG: Duration = Duration::from_secs(300);
/// How long the end of what was killed is awaited: a process of the far side's may hold our stream.
const ENDING: Duration = Duration::from_secs(5);
/// Most bytes of an error stream that are kept; the rest is read and dropped.
const STDERR_MAX_BYTES: usize = 64 * 1024;
/// Most bytes of output unless the call says otherwise: ids and names of many refs.
pub(crate) const OUTPUT_MAX_BYTES: usize = 64 * 1024 * 1024;
/// The oldest git that has every option used here.
const OLDEST: (u32, u32) = (2, 30);

/// Configuration that wins over any repository's.
const SETTINGS: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.alternateRefsCommand=true",
    "core.attributesFile=/dev/null",
    "core.pager=cat",
    "core.commitGraph=true",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    "http.followRedirects=false",
    "push.gpgSign=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
    "transfer.fsckObjects=false",
    "fetch.recurseSubmodules=false",
    "advice.pushUpdateRejected=false",
    "safe.directory=*",
];

/// The same for a git that another one starts on the far side of a local path.
pub(crate) const FAR_SETTINGS: &str = "-c core.hooksPath=/dev/null -c core.fsmonitor=false \
     -c core.alternateRefsCommand=true -c gc.auto=0 -c receive.autogc=false \
     -c maintenance.auto=false -c safe.directory='*'";

/// Where Debian and most others keep the system's authorities.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Answers git's questions from the environment, so that a secret is in no file and on no command
/// line.
const ASKPASS: &str = "#!/bin/sh\ncase \"$1\" in\n  Username*) printf '%s\\n' \"$PORTCULLIS_GIT_USERNAME\" ;;\n  *) printf '%s\\n' \"$PORTCULLIS_GIT_PASSWORD\" ;;\nesac\n";

/// The `git` binary.
#[derive(Clone, Debug)]
pub struct Git {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    program: PathBuf,
    path: OsString,
    home: PathBuf,
    askpass: PathBuf,
    /// Authorities that may vouch for upstreams over HTTPS, if not the system's alone.
    authorities: Option<PathBuf>,
    version: (u32, u32),
    /// No call takes longer, whatever its own bound.
    time_max: Duration,
    /// Most bytes of a mirror's packs.
    mirror_max_bytes: u64,
}

/// Most bytes of a mirror's packs, unless it is said otherwise: 64 GiB, more than any repository
/// that people clone whole.
pub const MIRROR_MAX_BYTES: u64 = 64 << 30;

impl Git {
    /// Finds `git` on the `PATH`. `home` becomes its home: made if absent, mode 0700; nobody else
    /// may write there.
    ///
    /// # Errors
    /// `git-missing`, `git-too-old`, or `home` can't be made.
    pub async fn open(home: &Path) -> Result<Self, Refusal> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = std::env::var_os("PATH")
            .unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin:/bin"));
        let program = std::env::split_paths(&path)
            .map(|dir| dir.join("git"))
            .find(|file| file.is_absolute() && file.is_file())
            .ok_or_else(|| {
                Refusal::unavailable("git-missing", "there is no `git` on the PATH")
                    .next("install git 2.30 or newer")
            })?;
        std::fs::create_dir_all(home).map_err(|error| unwritable(home, &error))?;
        let home = home
            .canonicalize()
            .map_err(|error| unwritable(home, &error))?;
        std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o700))
            .map_err(|error| unwritable(&home, &error))?;
        let askpass = home.join("askpass");
        write_askpass(&askpass).map_err(|error| unwritable(&askpass, &error))?;
        let mut git = Self {
            inner: Arc::new(Inner {
                program,
                path,
                home,
                askpass,
                authorities: None,
                version: (0, 0),
                time_max: Duration::MAX,
                mirror_max_bytes: MIRROR_MAX_BYTES,
            }),
        };
        let version = git.version_of().await?;
        Arc::get_mut(&mut git.inner)
            .ok_or_else(|| Refusal::internal("git is in use before it is known"))?
            .version = version;
        Ok(git)
    }

    /// Lets the authorities of a PEM file vouch for upstreams over HTTPS, beside the system's.
    ///
    /// # Errors
    /// The file can't be read, or our copy of all of them can't be written.
    pub fn with_authorities(self, extra: &Path) -> Result<Self, Refusal> {
        let file = self.inner.home.join("authorities.pem");
        let own = std::fs::read(extra).map_err(|error| {
            Refusal::unavailable(
                "file-unreadable",
                format!("{} can't be read: {error}", extra.display()),
            )
            .next("correct `extra_authorities`")
        })?;
        let mut all = std::fs::read(SYSTEM_AUTHORITIES).unwrap_or_default();
        all.push(b'\n');
        all.extend_from_slice(&own);
        std::fs::write(&file, all).map_err(|error| unwritable(&file, &error))?;
        let inner = &self.inner;
        Ok(Self {
            inner: Arc::new(Inner {
                program: inner.program.clone(),
                path: inner.path.clone(),
                home: inner.home.clone(),
                askpass: inner.askpass.clone(),
                authorities: Some(file),
                version: inner.version,
                time_max: inner.time_max,
                mirror_max_bytes: inner.mirror_max_bytes,
            }),
        })
    }

    /// Bounds the packs of each mirror.
    #[must_use]
    pub fn with_mirror_max_bytes(self, bytes: u64) -> Self {
        let inner = &self.inner;
        Self {
            inner: Arc::new(Inner {
                program: inner.program.clone(),
                path: inner.path.clone(),
                home: inner.home.clone(),
                askpass: inner.askpass.clone(),
                authorities: inner.authorities.clone(),
                version: inner.version,
                time_max: inner.time_max,
                mirror_max_bytes: bytes,
            }),
        }
    }

    pub(crate) fn mirror_max_bytes(&self) -> u64 {
        self.inner.mirror_max_bytes
    }

    /// The same git, taken for an older one.
    #[cfg(test)]
    pub(crate) async fn older(home: &Path, version: (u32, u32)) -> Self {
        let mut git = Self::open(home).await.unwrap();
        Arc::get_mut(&mut git.inner).unwrap().version = version;
        git
    }

    /// The same git, of which no call takes longer than this.
    #[cfg(test)]
    pub(crate) async fn impatient(home: &Path, time_max: Duration) -> Self {
        let mut git = Self::open(home).await.unwrap();
        Arc::get_mut(&mut git.inner).unwrap().time_max = time_max;
        git
    }

    /// Major and minor version.
    pub fn version(&self) -> (u32, u32) {
        self.inner.version
    }

    async fn version_of(&self) -> Result<(u32, u32), Refusal> {
        let text = self.bare("version").args(["version"]).text().await?;
        let mut numbers = text
            .split_whitespace()
            .nth(2)
            .unwrap_or_default()
            .split('.')
            .map(|part| part.parse::<u32>().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if version >= OLDEST {
            Ok(version)
        } else {
            Err(
                Refusal::unavailable("git-too-old", "this git lacks options that we need")
                    .expected("git 2.30 or newer")
                    .received(text.trim())
                    .next("install a newer git"),
            )
        }
    }

    /// A call without a repository. `what` names it in errors.
    pub(crate) fn bare(&self, what: &'static str) -> Invocation {
        let inner = &self.inner;
        let mut command = Command::new(&inner.program);
        command
            .env_clear()
            .env("PATH", &inner.path)
            .env("HOME", &inner.home)
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "/bin/false")
            .env("SSH_ASKPASS", "/bin/false")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_PROTOCOL_FROM_USER", "0")
            .env("GIT_ALLOW_PROTOCOL", "none")
            .current_dir(&inner.home)
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for setting in SETTINGS {
            command.arg("-c").arg(setting);
        }
        Invocation {
            command,
            what,
            time: QUICK.min(inner.time_max),
            time_max: inner.time_max,
            output_max_bytes: OUTPUT_MAX_BYTES,
            data_max_bytes: None,
        }
    }

    /// A call on a repository.
    pub(crate) fn on(&self, git_dir: &Path, what: &'static str) -> Invocation {
        let mut invocation = self.bare(what);
        invocation.command.arg("--git-dir").arg(git_dir);
        invocation
    }
}

/// One call that has not started.
pub(crate) struct Invocation {
    command: Command,
    what: &'static str,
    time: Duration,
    time_max: Duration,
    output_max_bytes: usize,
    data_max_bytes: Option<u64>,
}

impl Invocation {
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    pub(crate) fn time(mut self, time: Duration) -> Self {
        self.time = time.min(self.time_max);
        self
    }

    pub(crate) fn output_max_bytes(mut self, bytes: usize) -> Self {
        self.output_max_bytes = bytes;
        self
    }

    /// Bounds the memory that the process may take for itself; files that it maps don't count.
    pub(crate) fn data_max_bytes(mut self, bytes: u64) -> Self {
        self.data_max_bytes = Some(bytes);
        self
    }

    /// Lets the call speak the protocol of `upstream`, with what `access` gives.
    pub(crate) fn transport(mut self, protocols: &str, access: &Access, git: &Git) -> Self {
        let command = &mut self.command;
        command.env("GIT_ALLOW_PROTOCOL", protocols);
        command.env("GIT_SSH_COMMAND", access.ssh_command());
        if let Some(file) = &git.inner.authorities {
            command.env("GIT_SSL_CAINFO", file);
        }
        if let Access::Password { username, password } = access {
            command
                .env("GIT_ASKPASS", &git.inner.askpass)
                .env("PORTCULLIS_GIT_USERNAME", username)
                .env("PORTCULLIS_GIT_PASSWORD", password.0.expose());
        }
        self
    }

    /// Runs it to its end with `input`, whatever its exit status.
    ///
    /// # Errors
    /// It can't start, passes its time (`git-timeout`) or its output bound (`git-output-too-large`).
    pub(crate) async fn finish(self, input: &[u8]) -> Result<Finished, Refusal> {
        self.finish_unless(std::future::pending(), input).await
    }

    /// The same, cut off with the refusal that `cut` ends with. An error is given when nothing that
    /// it started runs any more, so that what it left behind can be taken away.
    pub(crate) async fn finish_unless(
        mut self,
        cut: impl Future<Output = Refusal>,
        input: &[u8],
    ) -> Result<Finished, Refusal> {
        if !input.is_empty() {
            self.command.stdin(Stdio::piped());
        }
        let (what, time, bound) = (self.what, self.time, self.output_max_bytes);
        let mut running = self.start()?;
        let work = async {
            let feed = async {
                if let Some(mut stdin) = running.stdin.take() {
                    // A process that stops reading says why by its status.
                    let _ = stdin.write_all(input).await;
                    let _ = stdin.shutdown().await;
                }
            };
            let stdout = running.stdout.take();
            let read = async {
                match stdout {
                    Some(stdout) => read_bounded(stdout, bound, what).await,
                    None => Ok(Vec::new()),
                }
            };
            let ((), stdout) = tokio::join!(feed, read);
            let stdout = stdout?;
            let (status, stderr) = running.wait().await?;
            Ok(Finished {
                status,
                stdout,
                stderr,
                what,
            })
        };
        let done = tokio::select! {
            biased;
            refusal = cut => Err(refusal),
            done = tokio::time::timeout(time, work) => {
                done.unwrap_or_else(|_| Err(timed_out(what, time)))
            }
        };
        if done.is_err() {
            running.end().await;
        }
        done
    }

    /// Runs it and gives its output if it succeeded.
    pub(crate) async fn output(self) -> Result<Vec<u8>, Refusal> {
        self.finish(&[]).await?.succeeded()
    }

    /// The same, as text without the line feed at its end.
    pub(crate) async fn text(self) -> Result<String, Refusal> {
        let output = self.output().await?;
        let text = String::from_utf8_lossy(&output);
        Ok(text.trim_end_matches('\n').to_owned())
    }

    /// Starts it with its input open.
    pub(crate) fn start_with_input(mut self) -> Result<Running, Refusal> {
        self.command.stdin(Stdio::piped());
        self.start()
    }

    fn start(mut self) -> Result<Running, Refusal> {
        let mut child = self.command.spawn().map_err(|error| {
            Refusal::unavailable(
                "git-not-started",
                format!("git {} can't be started: {error}", self.what),
            )
        })?;
        let pid = child.id().and_then(|id| {
            i32::try_from(id)
                .ok()
                .and_then(rustix::process::Pid::from_raw)
        });
        let group = Group(pid);
        if let (Some(pid), Some(bytes)) = (pid, self.data_max_bytes) {
            let limit = rustix::process::Rlimit {
                current: Some(bytes),
                maximum: Some(bytes),
            };
            let resource = rustix::process::Resource::Data;
            if let Err(error) = rustix::process::prlimit(Some(pid), resource, limit) {
                // One that has ended already took nothing.
                if error != rustix::io::Errno::SRCH {
                    return Err(Refusal::internal(format!(
                        "the memory of git {} can't be bounded: {error}",
                        self.what
                    )));
                }
            }
        }
        let stderr = child.stderr.take();
        let errors = tokio::spawn(async move {
            match stderr {
                Some(stderr) => read_some(stderr, STDERR_MAX_BYTES).await,
                None => Vec::new(),
            }
        });
        Ok(Running {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            errors: Some(errors),
            child,
            group,
            what: self.what,
        })
    }
}

/// A process under way. Dropping it kills it and all that it started.
pub(crate) struct Running {
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
    /// Its error stream, until it was read to the end.
    errors: Option<tokio::task::JoinHandle<Vec<u8>>>,
    child: Child,
    group: Group,
    what: &'static str,
}

impl Running {
    /// Reads its output to the end and drops it, so that it never waits for us.
    pub(crate) fn ignore_output(&mut self) {
        if let Some(stdout) = self.stdout.take() {
            tokio::spawn(read_some(stdout, 0));
        }
    }

    /// Waits for its end: status and error stream.
    pub(crate) async fn wait(&mut self) -> Result<(ExitStatus, String), Refusal> {
        self.stdin = None;
        let errors = self.read_errors().await;
        let status = self.child.wait().await.map_err(|error| {
            Refusal::internal(format!("git {} can't be awaited: {error}", self.what))
        })?;
        self.group.0 = None;
        Ok((status, String::from_utf8_lossy(&errors).into_owned()))
    }
}

impl Running {
    /// The error stream ends with the last process that holds it.
    async fn read_errors(&mut self) -> Vec<u8> {
        let Some(errors) = self.errors.as_mut() else {
            return Vec::new();
        };
        let read = errors.await.unwrap_or_default();
        self.errors = None;
        read
    }

    /// Kills it and all that it started, and waits until they are gone.
    async fn end(mut self) {
        self.group.kill();
        let _late = tokio::time::timeout(ENDING, self.read_errors()).await;
    }
}

/// The process group to kill on drop, while its leader is not reaped.
struct Group(Option<rustix::process::Pid>);

impl Group {
    fn kill(&self) {
        if let Some(pid) = self.0 {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A process that ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    what: &'static str,
}

impl Finished {
    /// The output, or git's own words.
    pub(crate) fn succeeded(self) -> Result<Vec<u8>, Refusal> {
        if self.status.success() {
            Ok(self.stdout)
        } else {
            Err(failed(self.what, &self.stderr))
        }
    }
}

pub(crate) fn failed(what: &str, stderr: &str) -> Refusal {
    if let Some(refusal) = disk_full(stderr) {
        return refusal;
    }
    Refusal::unavailable("git-failed", format!("git {what} failed")).received(last_words(stderr))
}

/// Where a git of ours says that it found no room; what the far side says of its own disk begins
/// with `remote:`.
fn no_room(stderr: &str) -> Option<&str> {
    let mut lines = stderr.lines();
    lines.find(|line| {
        !line.starts_with("remote:")
            && (line.contains("No space left on device") || line.contains("Disk quota exceeded"))
    })
}

/// What to say where a git of ours found no room.
pub(crate) fn disk_full(stderr: &str) -> Option<Refusal> {
    let line = no_room(stderr)?;
    Some(
        Refusal::unavailable(
            "disk-full",
            "there is no room left for the repository's objects",
        )
        .received(line)
        .next("free space where the home's `repositories` folder is; nothing was changed, and it is tried again"),
    )
}

/// The line of an error stream that says most: the last that begins with `fatal:` or `error:`,
/// else the last.
pub(crate) fn last_words(stderr: &str) -> &str {
    let said = |line: &&str| line.starts_with("fatal:") || line.starts_with("error:");
    stderr
        .lines()
        .rev()
        .find(said)
        .or_else(|| stderr.lines().rev().find(|line| !line.trim().is_empty()))
        .unwrap_or("no message")
}

pub(crate) fn timed_out(what: &str, time: Duration) -> Refusal {
    Refusal::unavailable("git-timeout", format!("git {what} took too long"))
        .expected(&format!("an end within {} s", time.as_secs()))
}

async fn read_bounded<R: AsyncRead + Unpin>(
    reader: R,
    max_bytes: usize,
    what: &str,
) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::new();
    let bound = u64::try_from(max_bytes).unwrap_or(u64::MAX);
    reader
        .take(bound.saturating_add(1))
        .read_to_end(&mut out)
        .await
        .map_err(|error| Refusal::internal(format!("git {what} can't be read: {error}")))?;
    if out.len() > max_bytes {
        return Err(Refusal::limit(
            "git-output-too-large",
            format!("git {what} has too much to say"),
        )
        .expected(&format!("at most {max_bytes} bytes")));
    }
    Ok(out)
}

/// Reads to the end and keeps the first `keep` bytes.
async fn read_some<R: AsyncRead + Unpin>(mut reader: R, keep: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = vec![0; 8 * 1024];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return kept,
            Ok(count) => {
                let room = keep.saturating_sub(kept.len()).min(count);
                kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
            }
        }
    }
}

fn write_askpass(file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    // A server that starts on a full disk finds it as it left it.
    if std::fs::read(file).is_ok_and(|found| found == ASKPASS.as_bytes()) {
        return std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o700));
    }
    let mut fresh = tempfile::NamedTempFile::new_in(file.parent().unwrap_or(Path::new("/")))?;
    std::io::Write::write_all(&mut fresh, ASKPASS.as_bytes())?;
    fresh
        .as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o700))?;
    fresh.persist(file).map_err(|error| error.error)?;
    Ok(())
}

pub(crate) fn unwritable(path: &Path, error: &std::io::Error) -> Refusal {
    Refusal::unavailable(
        "git-storage",
        format!("{} can't be written: {error}", path.display()),
    )
    .next("check space and permissions of the data directory")
}
