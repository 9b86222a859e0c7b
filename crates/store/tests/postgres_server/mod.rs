//! A real PostgreSQL server for tests: made by them, reached by a Unix socket alone, and gone soon
//! after the last of them.
//!
//! Tests are processes of their own, and may be killed. So nobody is asked to clean up: every
//! user of a server holds a shared lock on a file, which the kernel gives back however a process
//! ends, and a small script beside the server takes that lock exclusively when nobody has it,
//! stops the server and removes its data. The server does not run as root; it refuses to.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "shared by test binaries that each use a part, and may panic"
)]

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Who runs the server if the tests run as root: nobody.
const UNPRIVILEGED: u32 = 65_534;
/// Longest wait for a server to come up; generous, since machines that test are busy.
const START_MAX: Duration = Duration::from_secs(90);

/// Waits until nobody uses the server any more, and a little for the next one to come; then stops
/// it, with the lock in hand.
const GUARD: &str = r#"
cd "$1" || exit 1
"$2/pg_ctl" -D "$1/data" -l "$1/log" -w -t 90 start >start.log 2>&1 || exit 1
while :; do
    flock -x users true
    sleep 2
    exec 9<users
    if flock -x -n 9; then
        "$2/pg_ctl" -D "$1/data" -m immediate -w stop >stop.log 2>&1
        rm -rf data s log start.log stop.log
        exit 0
    fi
    exec 9<&-
done
"#;

/// A running server, at least as long as this value lives.
pub(crate) struct Server {
    root: PathBuf,
    _users: File,
    /// For a server of one's own: removed at the end.
    temporary: Option<tempfile::TempDir>,
}

/// The server that all tests of this build share. Its settings are those that a ledger asks for.
pub(crate) fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let mut hasher = DefaultHasher::new();
        env!("CARGO_MANIFEST_DIR").hash(&mut hasher);
        let name = format!("portcullis-pg-{:x}", hasher.finish());
        Server::start(std::env::temp_dir().join(name), "", None)
    })
}

impl Drop for Server {
    fn drop(&mut self) {
        // The guard comes too late for a directory that goes now.
        if self.temporary.is_some() && self.answers() {
            self.crash();
        }
    }
}

impl Server {
    /// A server of one's own, for a test that mistreats it; `settings` as in postgresql.conf.
    pub(crate) fn own(settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        Self::start(dir.path().join("pg"), settings, Some(dir))
    }

    /// As [`own`](Self::own), with its data below `dir`, which exists.
    pub(crate) fn own_in(dir: &Path, settings: &str) -> Self {
        Self::start(dir.join("pg"), settings, None)
    }

    fn start(root: PathBuf, settings: &str, temporary: Option<tempfile::TempDir>) -> Self {
        std::fs::create_dir_all(&root).unwrap();
        hand_to_server(&root);
        let users = lock_file(&root.join("users"));
        users.lock_shared().unwrap();
        let starting = lock_file(&root.join("starting"));
        starting.lock().unwrap();
        let server = Self {
            root,
            _users: users,
            temporary,
        };
        if !server.answers() {
            server.make(settings);
        }
        server
    }

    fn make(&self, settings: &str) {
        let data = self.root.join("data");
        for left in ["data", "s"] {
            let _absent = std::fs::remove_dir_all(self.root.join(left));
        }
        std::fs::create_dir(self.socket_dir()).unwrap();
        hand_to_server(&self.socket_dir());
        let made = unprivileged(&binaries().join("initdb"))
            .arg("-D")
            .arg(&data)
            .args(["-U", "log", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"])
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let config = data.join("postgresql.conf");
        let mut text = std::fs::read_to_string(&config).unwrap();
        text.push_str(&format!(
            "\nlisten_addresses = ''\nunix_socket_directories = '{}'\nmax_connections = 300\n\
             shared_buffers = 32MB\nmax_wal_size = 256MB\nmin_wal_size = 32MB\n{settings}\n",
            self.socket_dir().display()
        ));
        std::fs::write(&config, text).unwrap();
        let mut guard = unprivileged(Path::new("/bin/sh"))
            .args(["-c", GUARD, "guard"])
            .arg(&self.root)
            .arg(binaries())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It outlives this process; a thread takes its end, should it come first.
        std::thread::spawn(move || guard.wait());
        let begun = Instant::now();
        while !self.answers() {
            assert!(
                begun.elapsed() < START_MAX,
                "PostgreSQL did not start: {}",
                std::fs::read_to_string(self.root.join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn socket_dir(&self) -> PathBuf {
        self.root.join("s")
    }

    /// Whether it takes statements: a server that starts or stops accepts and refuses.
    fn answers(&self) -> bool {
        UnixStream::connect(self.socket_dir().join(".s.PGSQL.5432")).is_ok()
            && self.try_sql("postgres", "SELECT 1").is_ok()
    }

    /// Who is let in how, as in pg_hba.conf.
    pub(crate) fn admit(&self, rules: &str) {
        std::fs::write(self.root.join("data/pg_hba.conf"), rules).unwrap();
        self.control(&["-m", "fast", "-w", "-t", "90", "restart"]);
    }

    /// Gives a file to the user that servers run as.
    pub(crate) fn give(path: &Path) {
        hand_to_server(path);
    }

    /// Where `database` is, without a password.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_as("log", database)
    }

    /// As `user`.
    pub(crate) fn url_as(&self, user: &str, database: &str) -> String {
        let dir = self.socket_dir();
        format!("postgres://{user}@/{database}?host={}", dir.display())
    }

    /// Has statements done as the owner of everything, and gives what they print.
    pub(crate) fn sql(&self, database: &str, statements: &str) -> String {
        self.try_sql(database, statements)
            .unwrap_or_else(|error| panic!("{statements}: {error}"))
    }

    pub(crate) fn try_sql(&self, database: &str, statements: &str) -> Result<String, String> {
        let output = Command::new(binaries().join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "log"])
            .arg("-h")
            .arg(self.socket_dir())
            .args(["-d", database, "-c", statements])
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// The database that belongs to the directory `dir`, made when it is asked for first. Those
    /// whose directories are gone are dropped then.
    pub(crate) fn database_of(&self, dir: &Path) -> String {
        let mut hasher = DefaultHasher::new();
        dir.hash(&mut hasher);
        let name = format!("t_{:x}", hasher.finish());
        let known = self.sql(
            "postgres",
            "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database
             WHERE datname LIKE 't\\_%'",
        );
        let mut exists = false;
        for line in known.lines() {
            let (other, of) = line.split_once('|').unwrap_or((line, ""));
            if other == name {
                exists = true;
            } else if !of.is_empty() && !Path::new(of).exists() {
                let _in_use = self.try_sql(
                    "postgres",
                    &format!("DROP DATABASE IF EXISTS {other} WITH (FORCE)"),
                );
            }
        }
        if !exists {
            self.sql("postgres", &format!("CREATE DATABASE {name}"));
            self.sql(
                "postgres",
                &format!("COMMENT ON DATABASE {name} IS '{}'", dir.display()),
            );
        }
        name
    }

    /// Kills the server as a crash would, and starts it again.
    pub(crate) fn crash_and_restart(&self) {
        self.control(&["-m", "immediate", "-w", "-t", "90", "restart"]);
    }

    /// Kills the server as a crash would.
    pub(crate) fn crash(&self) {
        self.control(&["-m", "immediate", "-w", "stop"]);
    }

    /// Starts it again.
    pub(crate) fn restart(&self) {
        self.control(&["-w", "-t", "90", "start"]);
    }

    fn control(&self, arguments: &[&str]) {
        let status = unprivileged(&binaries().join("pg_ctl"))
            .arg("-D")
            .arg(self.root.join("data"))
            .arg("-l")
            .arg(self.root.join("log"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "pg_ctl {arguments:?}");
    }
}

/// The newest PostgreSQL of this machine.
fn binaries() -> &'static Path {
    static BINARIES: OnceLock<PathBuf> = OnceLock::new();
    BINARIES.get_or_init(|| {
        let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let version = entry.file_name().to_str()?.parse().ok()?;
                Some((version, entry.path().join("bin")))
            })
            .collect();
        found.sort();
        if let Some((_, newest)) = found.pop() {
            return newest;
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .find(|folder| folder.join("initdb").is_file())
            .expect("PostgreSQL is not installed; `cargo xtask test` installs it")
    })
}

fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    if is_root() {
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
    command
}

fn hand_to_server(path: &Path) {
    if is_root() {
        std::os::unix::fs::chown(path, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).unwrap();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn lock_file(path: &Path) -> File {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap();
    hand_to_server(path);
    file
}
