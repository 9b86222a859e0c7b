//! What is to run, and within what.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use portcullis_model::Refusal;
use serde::{Deserialize, Serialize};

use crate::Protection;

/// Where the workspace is mounted inside, and the working directory.
pub const WORKSPACE: &str = "/workspace";
/// Home directory inside, a tmpfs of its own.
pub const HOME: &str = "/home/agent";
/// User id inside. Not 0: several tools (databases among them) refuse to work as root.
pub const AGENT_UID: u32 = 1000;
/// Group id inside.
pub const AGENT_GID: u32 = 1000;

/// Most arguments and variables that a command may have; more than any real command line.
const WORDS_MAX: usize = 4_096;
/// Ports below 1024 that connections are captured at, named or not, on a kernel that can't capture
/// every port. No program inside can listen there, so nothing is taken from one.
pub const CAPTURED_ALWAYS: [u16; 16] = [
    21, 22, 23, 25, 53, 80, 110, 143, 389, 443, 465, 587, 853, 873, 993, 995,
];
/// Most ports that connections are captured at; each costs a listener.
pub const CAPTURED_MAX_PORTS: usize = 96;
/// Most binds; each costs a mount.
const BINDS_MAX: usize = 256;
/// Most bytes of one captured stream (64 MiB): it is kept in memory.
const CAPTURE_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Longest path of a unix socket in bytes (`sun_path` less its zero).
const SOCKET_PATH_MAX_BYTES: usize = 107;

/// What stock tools read to find the certificate authorities that they trust.
const TRUST_VARIABLES: [&str; 11] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "npm_config_cafile",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
    "CODEX_CA_CERTIFICATE",
];

/// Everything [`spawn`](crate::spawn) needs. Start from [`Spec::new`].
#[derive(Clone, Debug)]
pub struct Spec {
    /// Program and arguments. The program is looked up in `PATH` of `environment` inside, unless
    /// it has a slash.
    pub command: Vec<OsString>,
    /// Host directory, mounted at [`WORKSPACE`]; read-write unless said otherwise.
    pub workspace: PathBuf,
    /// Mounts the workspace read-only, for a released service whose artifact must stay as it is.
    pub workspace_read_only: bool,
    /// Host paths that are visible inside, read-only.
    pub read_only: Vec<Bind>,
    /// The whole environment; nothing of the caller's is passed on.
    pub environment: BTreeMap<OsString, OsString>,
    /// Bounds.
    pub limits: Limits,
    /// Milliseconds of boot time from start to end; at the end everything is killed, frozen or
    /// not. `None`: no deadline.
    pub deadline_ms: Option<u64>,
    /// Host user of the run, for root callers only. `None` as root: an id that no other run has
    /// at the time.
    pub run_as: Option<RunAs>,
    /// Where its input comes from and its output goes.
    pub terminal: Terminal,
    /// TCP port on 127.0.0.1 inside where the channel listens; 0 lets the kernel choose.
    pub capture: Option<u16>,
    /// Captures every connection from inside but those to loopback, whatever address and port;
    /// `None` captures nothing. A kernel without nf_tables and its `tproxy`
    /// ([`Protection::EveryPort`], by leave) captures at these ports and at [`CAPTURED_ALWAYS`]
    /// alone; there a program inside can't listen at them.
    pub captured: Option<BTreeSet<u16>>,
    /// A host socket through which one port inside can be reached.
    pub expose: Option<Expose>,
    /// Protections that may be missing, because the task's signature says so.
    pub allowed_gaps: BTreeSet<Protection>,
    /// The program whose `main` calls [`helper_main`](crate::helper_main). `None`: this one.
    pub helper: Option<PathBuf>,
}

impl Spec {
    /// A command over a workspace with the default binds, environment and limits, captured
    /// output of at most 1 MiB per stream, and no way out.
    pub fn new<W: Into<OsString>>(
        workspace: impl Into<PathBuf>,
        command: impl IntoIterator<Item = W>,
    ) -> Self {
        let environment = [
            ("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"),
            ("HOME", HOME),
            ("USER", "agent"),
            ("LOGNAME", "agent"),
            ("SHELL", "/bin/sh"),
            ("LANG", "C.UTF-8"),
            ("TERM", "xterm-256color"),
            ("TMPDIR", "/tmp"),
        ];
        Self {
            command: command.into_iter().map(Into::into).collect(),
            workspace: workspace.into(),
            workspace_read_only: false,
            read_only: default_binds(),
            environment: environment
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            limits: Limits::default(),
            deadline_ms: None,
            run_as: None,
            terminal: Terminal::Capture {
                max_bytes: 1024 * 1024,
            },
            capture: None,
            captured: None,
            expose: None,
            allowed_gaps: BTreeSet::new(),
            helper: None,
        }
    }

    /// Sets one variable.
    pub fn variable(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> &mut Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Makes stock tools use the channel at `port`: proxy variables in both spellings.
    pub fn use_channel(&mut self, port: u16) -> &mut Self {
        let base = format!("http://127.0.0.1:{port}");
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            self.variable(name, &base);
            self.variable(name.to_lowercase(), &base);
        }
        for name in ["NO_PROXY", "no_proxy"] {
            self.variable(name, "127.0.0.1,localhost,::1");
        }
        // Node ignores the proxy variables unless told otherwise (22.21 and newer).
        self.variable("NODE_USE_ENV_PROXY", "1");
        self.variable("PORTCULLIS_CHANNEL", format!("{base}/"));
        self.capture = Some(port);
        self
    }

    /// Adds a toolchain: its binds, its directories at the front of `PATH`, its variables.
    pub fn add_toolchain(&mut self, toolchain: Toolchain) -> &mut Self {
        self.read_only.extend(toolchain.binds);
        for directory in toolchain.path {
            let rest = self.environment.get(std::ffi::OsStr::new("PATH"));
            let mut path = directory.into_os_string();
            if let Some(rest) = rest {
                path.push(":");
                path.push(rest);
            }
            self.variable("PATH", path);
        }
        for (name, value) in toolchain.environment {
            self.variable(name, value);
        }
        self
    }

    /// Captures all connections from inside (at `ports`, where the kernel can't do more), and makes
    /// stock tools trust the authority in `bundle`, a PEM file as seen inside; in `certificates` on
    /// the host stands the same as `ca-certificates.crt`, mounted where systems keep theirs.
    pub fn capture_all(
        &mut self,
        ports: impl IntoIterator<Item = u16>,
        certificates: &Path,
        bundle: &Path,
    ) -> &mut Self {
        self.captured = Some(ports.into_iter().collect());
        for name in TRUST_VARIABLES {
            self.variable(name, bundle);
        }
        // Where programs look by themselves. Of the host's own authorities nothing is left: what
        // they vouch for can't be reached from inside.
        let places = ["/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/pki/ca-trust"];
        self.read_only
            .retain(|bind| !places.iter().any(|place| bind.inside == Path::new(place)));
        self.read_only
            .extend(places.into_iter().take(2).map(|place| Bind {
                host: certificates.to_owned(),
                inside: place.into(),
                required: true,
            }));
        self
    }

    /// The ports of the plan, each once.
    pub(crate) fn ports_captured(&self) -> Vec<u16> {
        let Some(named) = &self.captured else {
            return Vec::new();
        };
        let mut ports: BTreeSet<u16> = named.iter().copied().chain(CAPTURED_ALWAYS).collect();
        // The channel listens there itself, on loopback.
        if let Some(own) = self.capture {
            ports.remove(&own);
        }
        ports.into_iter().collect()
    }

    /// What can be said without looking at the machine.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let malformed = || Refusal::malformed("sandbox spec");
        if self.command.first().is_none_or(|word| word.is_empty()) {
            return Err(malformed()
                .expected("a command")
                .next("say what to run after `--`"));
        }
        let words = self.command.iter();
        let variables = self
            .environment
            .iter()
            .flat_map(|(name, value)| [name, value]);
        if words.chain(variables).any(|word| has_zero(word)) {
            return Err(malformed().expected("words and variables without zero bytes"));
        }
        if self
            .environment
            .keys()
            .any(|name| name.is_empty() || name.as_encoded_bytes().contains(&b'='))
        {
            return Err(malformed().expected("variable names without `=`"));
        }
        if self.command.len() > WORDS_MAX || self.environment.len() > WORDS_MAX {
            return Err(malformed().expected("at most 4096 words and variables"));
        }
        if self.read_only.len() > BINDS_MAX {
            return Err(malformed().expected("at most 256 binds"));
        }
        for bind in &self.read_only {
            check_inside(&bind.inside)?;
        }
        if self.captured.is_some() && self.capture.is_none() {
            return Err(malformed().expected("a channel where connections are captured"));
        }
        let ports = self.ports_captured();
        if ports.len() > CAPTURED_MAX_PORTS || ports.contains(&0) {
            return Err(malformed()
                .expected("at most 80 ports other than 0 besides those that are always captured")
                .received(&format!("{} ports", ports.len())));
        }
        if let Terminal::Capture { max_bytes } = self.terminal
            && max_bytes > CAPTURE_MAX_BYTES
        {
            return Err(malformed().expected("at most 64 MiB of captured output per stream"));
        }
        if let Some(expose) = &self.expose
            && (!expose.socket.is_absolute()
                || expose.socket.as_os_str().len() > SOCKET_PATH_MAX_BYTES
                || expose.inside_port == 0)
        {
            return Err(malformed()
                .expected("an absolute socket path of at most 107 bytes, and a port other than 0")
                .received(&expose.socket.display().to_string()));
        }
        self.limits.check()
    }
}

fn has_zero(word: &std::ffi::OsStr) -> bool {
    word.as_encoded_bytes().contains(&0)
}

/// A mount point must be absolute and plain, and not where the sandbox mounts things of its own.
fn check_inside(inside: &Path) -> Result<(), Refusal> {
    let plain = inside.is_absolute()
        && inside.components().count() > 1
        && inside
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let ours = ["/proc", "/dev", "/sys", WORKSPACE]
        .into_iter()
        .any(|taken| inside.starts_with(taken))
        || [HOME, "/tmp", "/home", "/run", "/var/tmp"]
            .into_iter()
            .any(|taken| inside == Path::new(taken));
    if plain && !ours && !has_zero(inside.as_os_str()) {
        return Ok(());
    }
    Err(Refusal::malformed("bind")
        .expected("an absolute path without `..`, outside /proc, /dev, /sys and /workspace")
        .received(&inside.display().to_string()))
}

/// A host path that is visible inside, read-only, without set-user-id and devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Path on the host: a directory or a regular file. Submounts come along.
    pub host: PathBuf,
    /// Absolute path inside.
    pub inside: PathBuf,
    /// Whether its absence on the host stops the start, or is passed over.
    pub required: bool,
}

impl Bind {
    /// The same path inside, passed over when missing.
    pub fn same(path: impl Into<PathBuf>) -> Self {
        let host = path.into();
        Self {
            inside: host.clone(),
            host,
            required: false,
        }
    }

    /// A path that must be there.
    pub fn required(host: impl Into<PathBuf>, inside: impl Into<PathBuf>) -> Self {
        Self {
            host: host.into(),
            inside: inside.into(),
            required: true,
        }
    }
}

/// The system's own programs and libraries, and the files of `/etc` that they read. Nothing of
/// `/etc` that holds secrets, names people or configures git, shells or proxies.
pub fn default_binds() -> Vec<Bind> {
    [
        "/usr",
        "/bin",
        "/sbin",
        "/lib",
        "/lib32",
        "/lib64",
        "/libx32",
        "/nix/store",
        "/gnu/store",
        "/etc/alternatives",
        "/etc/ca-certificates",
        "/etc/crypto-policies",
        "/etc/fonts",
        "/etc/java-17-openjdk",
        "/etc/java-21-openjdk",
        "/etc/ld.so.cache",
        "/etc/ld.so.conf",
        "/etc/ld.so.conf.d",
        "/etc/localtime",
        "/etc/magic",
        "/etc/mime.types",
        "/etc/os-release",
        "/etc/pki/ca-trust",
        "/etc/pki/tls/certs",
        "/etc/protocols",
        "/etc/services",
        "/etc/ssl/certs",
        "/etc/ssl/openssl.cnf",
    ]
    .into_iter()
    .map(Bind::same)
    .collect()
}

/// A toolchain that lives outside the system's directories.
#[derive(Clone, Debug, Default)]
pub struct Toolchain {
    /// What must be visible.
    pub binds: Vec<Bind>,
    /// Directories for `PATH`, as seen inside.
    pub path: Vec<PathBuf>,
    /// Variables it wants.
    pub environment: BTreeMap<OsString, OsString>,
}

/// Rust as rustup installs it in a home directory: toolchains and proxies are mounted at
/// `/opt/rustup` and `/opt/cargo/bin`; registry and credentials of the home directory are not.
/// Empty where there is none.
pub fn rust_toolchain(home: &Path) -> Toolchain {
    let (rustup, cargo) = (home.join(".rustup"), home.join(".cargo/bin"));
    if !rustup.join("toolchains").is_dir() || !cargo.is_dir() {
        return Toolchain::default();
    }
    let bind = |host: PathBuf, inside: &str| Bind {
        host,
        inside: inside.into(),
        required: false,
    };
    Toolchain {
        binds: vec![
            bind(cargo, "/opt/cargo/bin"),
            bind(rustup.join("toolchains"), "/opt/rustup/toolchains"),
            bind(rustup.join("settings.toml"), "/opt/rustup/settings.toml"),
            // rustup makes it where it is missing, which a read-only place refuses.
            bind(rustup.join("update-hashes"), "/opt/rustup/update-hashes"),
        ],
        path: vec!["/opt/cargo/bin".into()],
        environment: [
            ("RUSTUP_HOME", "/opt/rustup"),
            ("CARGO_HOME", "/home/agent/.cargo"),
        ]
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect(),
    }
}

/// Bounds of one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Most processes and threads at a time. By cgroup, else by `RLIMIT_NPROC`, which counts in
    /// the run's own user namespace.
    pub processes: u32,
    /// Most memory in bytes, tmpfs included. By cgroup for the run as a whole, else by
    /// `RLIMIT_DATA` for each process.
    pub memory_bytes: u64,
    /// Share of processor time in percent of one core (250: two and a half cores). By cgroup
    /// only.
    pub cpu_percent: Option<u32>,
    /// Most open files of one process.
    pub open_files: u64,
    /// Largest file in bytes that it may write (`RLIMIT_FSIZE`), on the workspace too.
    pub file_bytes: u64,
    /// Size of `/tmp` in bytes (and of `/var/tmp`, which is the same).
    pub tmp_bytes: u64,
    /// Size of the home directory in bytes.
    pub home_bytes: u64,
    /// Size of `/dev/shm` in bytes.
    pub shm_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            processes: 1024,
            memory_bytes: 4096 * MIB,
            cpu_percent: None,
            open_files: 8192,
            file_bytes: 16 * 1024 * MIB,
            tmp_bytes: 1024 * MIB,
            home_bytes: 2048 * MIB,
            shm_bytes: 256 * MIB,
        }
    }
}

impl Limits {
    fn check(&self) -> Result<(), Refusal> {
        let least = |what: &str, value: u64, least: u64| {
            if value >= least {
                return Ok(());
            }
            Err(Refusal::malformed("sandbox limits")
                .expected(&format!("{what} of at least {least}"))
                .received(&value.to_string()))
        };
        least("processes", self.processes.into(), 1)?;
        least("memory_bytes", self.memory_bytes, 8 * 1024 * 1024)?;
        least("cpu_percent", self.cpu_percent.unwrap_or(100).into(), 1)?;
        least("open_files", self.open_files, 16)?;
        least("tmp_bytes", self.tmp_bytes, 4096)?;
        least("home_bytes", self.home_bytes, 4096)?;
        least("shm_bytes", self.shm_bytes, 4096)
    }
}

/// A user and group of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunAs {
    /// User id on the host; not 0.
    pub uid: u32,
    /// Group id on the host; not 0.
    pub gid: u32,
}

/// Where input comes from and output goes. No descriptor of the host is ever handed in (it could
/// be reopened through `/proc/self/fd` with more rights): the supervisor relays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// The caller's own standard input, output and error. Where one of them is a terminal, a pty
    /// of the sandbox's stands in for it, follows its size and passes its keys on.
    Inherit,
    /// A pty whose master the caller holds ([`Running::terminal`](crate::Running::terminal)).
    Pty {
        /// Lines.
        rows: u16,
        /// Columns.
        columns: u16,
    },
    /// No input; output is kept in memory and comes with the [`Outcome`](crate::Outcome).
    Capture {
        /// Most bytes per stream (at most 64 MiB); the rest is counted and dropped.
        max_bytes: u64,
    },
    /// No input; output and errors are appended to a file on the host. At the bound it is renamed
    /// to `<path>.1` and begun anew, so that two files of the bound are the most it takes.
    Log {
        /// The file, created with mode 0600.
        path: PathBuf,
        /// Most bytes of one file.
        max_bytes: u64,
    },
}

/// A host socket through which one port inside can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expose {
    /// TCP port on 127.0.0.1 inside.
    pub inside_port: u16,
    /// Path of the unix socket on the host, created at start and removed at the end. A dead
    /// socket at that path is replaced; a living one is refused.
    pub socket: PathBuf,
    /// Mode of the socket; 0o600 lets only the caller's user connect.
    pub mode: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_cannot_cover_what_the_sandbox_mounts_itself() {
        for inside in [
            "relative",
            "/",
            "/proc",
            "/proc/sys",
            "/dev/null",
            "/workspace/x",
            "/a/../b",
            "/tmp",
            "/home/agent",
        ] {
            let mut spec = Spec::new("/w", ["true"]);
            spec.read_only.push(Bind::required("/etc", inside));
            assert!(spec.check().is_err(), "{inside}");
        }
        let mut spec = Spec::new("/w", ["true"]);
        spec.read_only
            .push(Bind::required("/etc", "/home/agent/.cargo/registry"));
        assert_eq!(spec.check(), Ok(()));
    }

    #[test]
    fn a_spec_without_command_or_with_zero_bytes_is_refused() {
        assert!(Spec::new("/w", Vec::<String>::new()).check().is_err());
        assert!(Spec::new("/w", [""]).check().is_err());
        assert!(Spec::new("/w", ["a\0b"]).check().is_err());
        let mut spec = Spec::new("/w", ["true"]);
        spec.variable("A=B", "x");
        assert!(spec.check().is_err());
    }

    #[test]
    fn the_default_binds_hold_no_secrets_and_no_configuration_of_git() {
        for bind in default_binds() {
            for never in [
                "/etc/shadow",
                "/etc/gitconfig",
                "/etc/ssl/private",
                "/etc/passwd",
            ] {
                assert!(!Path::new(never).starts_with(&bind.inside), "{bind:?}");
            }
            assert!(!bind.inside.starts_with("/root") && !bind.inside.starts_with("/home"));
        }
    }
}
