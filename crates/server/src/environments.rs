//! The processes of an environment on this machine, and how they are found again.
//!
//! ```text
//! <home>/environments/<env>/
//!   proxy.toml  proxy.state  proxy.log        the data plane, one process
//!   releases/release-N/
//!     artifact  spec.json                     the bytes as built, and how to run them
//!     workspace/  service.log  supervisor.log
//!   run/                                      mode 0700
//!     proxy  proxy.lock                       control socket; held as long as the process lives
//!     N.c  N.s  N.lock                        control and service socket of release N's supervisor
//! ```
//!
//! A proxy and the supervisors of releases are started detached: in a session of their own, with
//! no descriptor of the server, so that they outlive it. Nothing about them is remembered. Whether
//! one runs is seen by its lock and its control socket; who it is, by the kernel's word on the
//! socket's other end. Starting twice is starting once: the second holds no lock and ends.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use portcullis_model::statement::Output;
use portcullis_model::{Digest, EnvironmentId, Refusal, ReleaseId};
use portcullis_proxy::{Backend, ProxyControl};
use serde::{Deserialize, Serialize};

use crate::home::Home;

pub mod control;
pub mod log;
pub mod prepare;
pub mod process;

use control::{Phase, Status};

/// Host users of releases are numbered from here when the server runs as root: one for each
/// release, so that no release can touch another's files or processes.
pub const RELEASE_USERS_FROM: u32 = 30_000;
/// Users before the numbers begin again; releases that run at the same time are never so far apart.
const RELEASE_USERS: u64 = 30_000;
/// Longest path of a unix socket in bytes: the kernel's `sun_path` less its end.
const SOCKET_PATH_MAX_BYTES: usize = 107;
/// Longest that a started process gets to open its control socket.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long a process that was asked to end may take, before it is killed: the service's own
/// time to end, and some more.
const STOP_PATIENCE: Duration = Duration::from_secs(8);
/// Pause between two looks at a process that starts or ends.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Largest specification or proxy configuration that is read, in bytes.
const FILE_MAX_BYTES: u64 = 64 * 1024;

/// Where an environment's files are.
#[derive(Clone, Debug)]
pub struct Place {
    root: PathBuf,
    program: PathBuf,
}

impl Place {
    /// The place of `environment` below `home`; processes are started from this program.
    pub fn new(home: &Home, environment: &EnvironmentId) -> Self {
        Self::with_program(
            home.environments().join(environment.as_str()),
            process::this_program(),
        )
    }

    /// A place whose processes are started from `program`, a `portcullis` binary.
    pub fn with_program(root: impl Into<PathBuf>, program: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            program: program.into(),
        }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// The proxy's control socket.
    pub fn proxy_socket(&self) -> PathBuf {
        self.run().join("proxy")
    }

    /// The proxy's configuration.
    pub fn proxy_config(&self) -> PathBuf {
        self.root.join("proxy.toml")
    }

    fn proxy_lock(&self) -> PathBuf {
        self.run().join("proxy.lock")
    }

    /// The place of a release.
    pub fn release(&self, id: ReleaseId) -> ReleasePlace {
        ReleasePlace {
            id,
            environment: self.clone(),
        }
    }

    /// A backend where nothing ever answers: what an environment without a release serves.
    pub fn nobody(&self) -> Backend {
        Backend::Unix(self.run().join("none.s"))
    }

    /// Makes the directories, and refuses paths that no socket can have.
    fn make(&self) -> Result<(), Refusal> {
        let longest = self.run().join("18446744073709551615.s");
        if longest.as_os_str().len() > SOCKET_PATH_MAX_BYTES {
            return Err(Refusal::unavailable(
                "path-too-long",
                "sockets below this directory would have too long a path",
            )
            .expected(&format!("at most {SOCKET_PATH_MAX_BYTES} bytes"))
            .received(&longest.display().to_string())
            .next(
                "move the server's directory to a shorter path, or shorten the environment's name",
            ));
        }
        for directory in [self.root.clone(), self.run(), self.root.join("releases")] {
            private_directory(&directory)?;
        }
        Ok(())
    }
}

/// Where a release's files are.
#[derive(Clone, Debug)]
pub struct ReleasePlace {
    id: ReleaseId,
    environment: Place,
}

impl ReleasePlace {
    /// Which release.
    pub const fn id(&self) -> ReleaseId {
        self.id
    }

    /// The directory.
    pub fn directory(&self) -> PathBuf {
        self.environment
            .root
            .join("releases")
            .join(self.id.to_string())
    }

    fn run(&self, kind: &str) -> PathBuf {
        self.environment.run().join(format!("{}.{kind}", self.id.0))
    }

    /// Through this the service is reached.
    pub fn service_socket(&self) -> PathBuf {
        self.run("s")
    }

    /// Through this the supervisor is reached.
    pub fn control_socket(&self) -> PathBuf {
        self.run("c")
    }

    fn spec_file(&self) -> PathBuf {
        self.directory().join("spec.json")
    }

    /// What the proxy sends requests to.
    pub fn backend(&self) -> Backend {
        Backend::Unix(self.service_socket())
    }
}

/// All that a supervisor needs to know; the file behind `portcullis target --spec FILE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSpec {
    /// Which release.
    pub release: ReleaseId,
    /// The artifact's file, checked before each start.
    pub artifact: PathBuf,
    /// Its file name as built: one ending in `.tar` is unpacked and its `./run` executed, any
    /// other is executed itself.
    pub name: String,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Directory that the service sees as `/workspace`; made anew at each start.
    pub workspace: PathBuf,
    /// Socket through which the service is reached.
    pub service_socket: PathBuf,
    /// TCP port on 127.0.0.1 inside; the service gets it as `PORT`.
    pub service_port: u16,
    /// The supervisor's control socket.
    pub control_socket: PathBuf,
    /// The file that is locked as long as the supervisor lives.
    pub lock: PathBuf,
    /// What the service writes, two files of at most 1 MiB.
    pub service_log: PathBuf,
    /// What the supervisor has to say, two files of at most 1 MiB.
    pub supervisor_log: PathBuf,
    /// User and group of the service on the host; none where the supervisor is an ordinary user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
}

impl TargetSpec {
    /// Reads a specification.
    ///
    /// # Errors
    /// It can't be read, or is none.
    pub fn read(path: &Path) -> Result<Self, Refusal> {
        let bytes = Home::read(path, FILE_MAX_BYTES)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Refusal::malformed("target spec").received(&error.to_string()))
    }
}

/// Puts a release's bytes and specification into its place, unless they stand there already.
/// Blocks.
///
/// # Errors
/// `bytes` fails or gives other bytes than the digest says; the disk can't be written.
pub fn install(
    place: &ReleasePlace,
    output: &Output,
    service_port: u16,
    bytes: impl FnOnce() -> Result<Vec<u8>, Refusal>,
) -> Result<(), Refusal> {
    prepare::check_name(&output.name)?;
    place.environment.make()?;
    let directory = place.directory();
    private_directory(&directory)?;
    let spec = TargetSpec {
        release: place.id,
        artifact: directory.join("artifact"),
        name: output.name.clone(),
        digest: output.digest,
        workspace: directory.join("workspace"),
        service_socket: place.service_socket(),
        service_port,
        control_socket: place.control_socket(),
        lock: place.run("lock"),
        service_log: directory.join("service.log"),
        supervisor_log: directory.join("supervisor.log"),
        user: rustix::process::geteuid()
            .is_root()
            .then(|| user_of(place.id)),
    };
    if prepare::read_artifact(&spec).is_err() {
        let bytes = bytes()?;
        if Digest::of(&bytes) != output.digest {
            return Err(prepare::altered(&output.digest, &Digest::of(&bytes)));
        }
        replace(&spec.artifact, &bytes, 0o400)?;
    }
    let text = serde_json::to_vec_pretty(&spec)
        .map_err(|error| Refusal::internal(format!("a spec does not serialise: {error}")))?;
    if fs::read(place.spec_file()).is_ok_and(|known| known == text) {
        return Ok(());
    }
    replace(&place.spec_file(), &text, 0o600)
}

/// The host user of a release.
fn user_of(release: ReleaseId) -> u32 {
    RELEASE_USERS_FROM + u32::try_from(release.0 % RELEASE_USERS).unwrap_or_default()
}

/// Makes sure that the supervisor of an installed release runs. One that gave up is started anew.
///
/// # Errors
/// Nothing is installed there, or the supervisor does not come up.
pub async fn release_up(place: &ReleasePlace) -> Result<(), Refusal> {
    match control::status(&place.control_socket()).await {
        Ok(Status {
            phase: Phase::Starting | Phase::Running | Phase::BackingOff,
            ..
        }) => {
            return Ok(());
        }
        Ok(Status {
            phase: Phase::Failed | Phase::Stopping,
            ..
        }) => release_down(place).await?,
        Err(_) => {}
    }
    let arguments: [OsString; 3] = [
        "target".into(),
        "--spec".into(),
        place.spec_file().into_os_string(),
    ];
    let program = place.environment.program.clone();
    let log = place.directory().join("supervisor.log");
    blocking(move || process::start_detached(&program, &arguments, &log)).await?;
    let until = Instant::now() + START_PATIENCE;
    loop {
        match control::status(&place.control_socket()).await {
            Ok(_) => return Ok(()),
            Err(refusal) if Instant::now() >= until => {
                return Err(Refusal::unavailable(
                    "target-not-up",
                    format!("the supervisor of {} does not come up", place.id),
                )
                .received(&refusal.message)
                .next(format!(
                    "read {}",
                    place.directory().join("supervisor.log").display()
                )));
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Waits until the service answers anything over HTTP.
///
/// # Errors
/// `start-failed` when its supervisor gave up, `not-healthy` when it does not answer in time.
pub async fn healthy(place: &ReleasePlace, patience: Duration) -> Result<(), Refusal> {
    let until = Instant::now() + patience;
    loop {
        if control::answers(&place.service_socket()).await {
            return Ok(());
        }
        let status = control::status(&place.control_socket()).await;
        if let Ok(Status {
            phase: Phase::Failed,
            code,
            ..
        }) = &status
        {
            return Err(Refusal::unavailable(
                "start-failed",
                format!("{} does not start", place.id),
            )
            .received(code.as_deref().unwrap_or("it ended again and again"))
            .next(format!(
                "read {}",
                place.directory().join("service.log").display()
            )));
        }
        if Instant::now() >= until {
            return Err(Refusal::unavailable(
                "not-healthy",
                format!("{} does not answer", place.id),
            )
            .expected(&format!(
                "an answer to GET / within {} ms",
                patience.as_millis()
            ))
            .received(&format!("{status:?}"))
            .next(format!(
                "read {}",
                place.directory().join("service.log").display()
            )));
        }
        tokio::time::sleep(LOOK_EVERY * 2).await;
    }
}

/// Stops a release's service and supervisor, and waits for their end.
///
/// # Errors
/// They do not end, which takes a process that the kernel can't kill.
pub async fn release_down(place: &ReleasePlace) -> Result<(), Refusal> {
    // Asked first; a supervisor that does not listen is ended all the same.
    let _asked = control::stop(&place.control_socket()).await;
    let (socket, argument) = (place.control_socket(), place.spec_file());
    let workspace = place.directory().join("workspace");
    blocking(move || {
        process::wait_gone(&socket, &argument, STOP_PATIENCE)?;
        // What the service wrote goes with it; the artifact stays for a way back.
        drop(fs::remove_dir_all(workspace));
        Ok(())
    })
    .await
}

/// Makes sure that the environment's proxy runs on `port`.
///
/// # Errors
/// The port is taken, or the proxy does not come up.
pub async fn proxy_up(place: &Place, port: u16) -> Result<ProxyControl, Refusal> {
    let control = ProxyControl::new(place.proxy_socket());
    let wanted = proxy_file(place, port)?;
    let same = fs::read_to_string(place.proxy_config()).is_ok_and(|text| text == wanted);
    match control.stats().await {
        Ok(_) if same => return Ok(control),
        Ok(_) => {
            // A disk that takes no new configuration must not cost the proxy that runs.
            let pending = place.root.join("proxy.toml.pending");
            if let Err(refusal) = replace(&pending, wanted.as_bytes(), 0o600) {
                tracing::warn!(
                    error.code = refusal.code,
                    "the proxy keeps its former configuration: {refusal}"
                );
                return Ok(control);
            }
            proxy_down(place).await?;
        }
        Err(_) => {}
    }
    place.make()?;
    if !same {
        replace(&place.proxy_config(), wanted.as_bytes(), 0o600)?;
    }
    let log = place.root.join("proxy.log");
    let arguments: [OsString; 6] = [
        "proxy".into(),
        place.proxy_config().into_os_string(),
        "--lock".into(),
        place.proxy_lock().into_os_string(),
        "--log".into(),
        log.clone().into_os_string(),
    ];
    let program = place.program.clone();
    blocking(move || process::start_detached(&program, &arguments, &log)).await?;
    let until = Instant::now() + START_PATIENCE;
    loop {
        match control.stats().await {
            Ok(_) => return Ok(control),
            Err(refusal) if Instant::now() >= until => {
                return Err(refusal.next(format!(
                    "read {}; is port {port} free?",
                    place.root.join("proxy.log").display()
                )));
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Stops the environment's proxy, after the requests under way.
///
/// # Errors
/// It does not end.
pub async fn proxy_down(place: &Place) -> Result<(), Refusal> {
    let (socket, argument) = (place.proxy_socket(), place.proxy_config());
    blocking(move || {
        process::terminate(&socket, &argument)?;
        process::wait_gone(&socket, &argument, STOP_PATIENCE)
    })
    .await
}

fn proxy_file(place: &Place, port: u16) -> Result<String, Refusal> {
    let limits = portcullis_proxy::Limits {
        // Between asking and killing there must be time for requests to end.
        drain_timeout_ms: 3_000,
        ..portcullis_proxy::Limits::default()
    };
    let config = portcullis_proxy::ProxyConfig {
        listen: ([127, 0, 0, 1], port).into(),
        control_socket: place.proxy_socket(),
        state_file: place.root.join("proxy.state"),
        limits,
    };
    toml::to_string(&config)
        .map_err(|error| Refusal::internal(format!("a proxy config does not serialise: {error}")))
}

/// Stops every process of every environment of this home: supervisors with their services, and
/// proxies. Blocks; needs no server. Answers with the names of what it stopped.
///
/// # Errors
/// The directory can't be read, or a process does not end.
pub fn stop_all(home: &Home) -> Result<Vec<String>, Refusal> {
    let mut found = Vec::new();
    for root in entries(&home.environments())? {
        let place = Place::with_program(&root, process::this_program());
        let name = root
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        // The proxy first, so that it does not count the end of a release as its errors.
        found.push((
            format!("{name}/proxy"),
            place.proxy_socket(),
            place.proxy_config(),
        ));
        for release in releases_in(&place)? {
            let label = format!("{name}/{}", release.id);
            found.push((label, release.control_socket(), release.spec_file()));
        }
    }
    let mut stopped = Vec::new();
    for (label, socket, argument) in &found {
        if process::terminate(socket, argument)? {
            stopped.push(label.clone());
        }
    }
    for (_, socket, argument) in &found {
        process::wait_gone(socket, argument, STOP_PATIENCE)?;
    }
    Ok(stopped)
}

/// The releases that have a place in this environment, oldest first.
///
/// # Errors
/// The directory can't be read.
pub fn releases_in(place: &Place) -> Result<Vec<ReleasePlace>, Refusal> {
    let mut ids: Vec<ReleaseId> = entries(&place.root.join("releases"))?
        .iter()
        .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
        .collect();
    ids.sort_unstable();
    Ok(ids.into_iter().map(|id| place.release(id)).collect())
}

/// Whether a process of this release lives, be it healthy or not.
pub fn lives(place: &ReleasePlace) -> bool {
    process::owner_of(&place.control_socket()).is_some()
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, Refusal> {
    match fs::read_dir(directory) {
        Ok(list) => Ok(list.filter_map(|entry| Some(entry.ok()?.path())).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(disk("list", directory, &error)),
    }
}

fn private_directory(path: &Path) -> Result<(), Refusal> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| disk("make", path, &error))
}

/// Writes a file beside and renames it, so that a reader sees the old or the new one.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Refusal> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let write = || {
        // Left by a server that was killed, perhaps without leave to write.
        drop(fs::remove_file(&beside));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)?;
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|error| disk("write", path, &error))
}

pub(crate) fn disk(what: &str, path: &Path, error: &io::Error) -> Refusal {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "disk-full",
        _ => "environment-files",
    };
    Refusal::unavailable(code, format!("can't {what} {}", path.display()))
        .received(&error.to_string())
}

/// Runs what blocks on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Refusal::internal(format!("a blocking step was cut off: {error}")))?
}

#[cfg(test)]
mod tests;
