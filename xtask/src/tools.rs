//! What the tests need besides Rust, git and a C compiler, and how it gets here.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::step::{cargo, run, show};
use crate::workspace;

/// A program that tests start, and the Debian package that brings it.
struct Tool {
    program: &'static str,
    package: &'static str,
    purpose: &'static str,
}

const TOOLS: [Tool; 10] = [
    Tool {
        program: "cc",
        package: "build-essential",
        purpose: "compiles SQLite and AWS-LC",
    },
    Tool {
        program: "git",
        package: "git",
        purpose: "is driven by the tests of changes and landings",
    },
    Tool {
        program: "ssh-keygen",
        package: "openssh-client",
        purpose: "signs and verifies beside our own code",
    },
    Tool {
        program: "ssh-agent",
        package: "openssh-client",
        purpose: "holds keys for the tests of signing",
    },
    Tool {
        program: "/usr/sbin/sshd",
        package: "openssh-server",
        purpose: "is an upstream for the tests of landing",
    },
    Tool {
        program: "openssl",
        package: "openssl",
        purpose: "judges certificates beside our own code",
    },
    Tool {
        program: "python3",
        package: "python3",
        purpose: "is the product of some sample repositories, and reads the log by code of its own",
    },
    Tool {
        program: "strace",
        package: "strace",
        purpose: "records what the ledger writes and syncs, so that a power failure can be made of it",
    },
    Tool {
        program: "postgres",
        package: "postgresql",
        purpose: "is the other database that the ledger's tests run on",
    },
    Tool {
        program: "chromium",
        package: "chromium",
        purpose: "looks at the page that the scanner makes",
    },
];

/// Where Debian puts PostgreSQL, one folder per version, off the search path.
const POSTGRES_FOLDER: &str = "/usr/lib/postgresql";

/// What the tests of a run's way out and of ordinary work inside drive besides.
const CLIENTS: [Tool; 5] = [
    Tool {
        program: "curl",
        package: "curl",
        purpose: "is the client of the tests of the way out",
    },
    Tool {
        program: "npm",
        package: "npm",
        purpose: "brings the agents that tests drive, and is driven itself",
    },
    Tool {
        program: "pip3",
        package: "python3-pip",
        purpose: "is driven by the tests of the way out",
    },
    Tool {
        program: "redis-server",
        package: "redis-server",
        purpose: "is a database that is started inside",
    },
    Tool {
        program: "go",
        package: "golang-go",
        purpose: "builds and tests inside",
    },
];

/// Agents' own programs and clients that tests drive, as npm names them, with the version that the
/// tests were written for.
const NPM_PACKAGES: [&str; 2] = ["@openai/codex@0.169.0", "ws@8.23.0"];
/// Where they are put, below the directory for what is built.
const NPM_FOLDER: &str = "tools/npm";

/// What runs the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runner {
    /// cargo-nextest: one process per test.
    Nextest,
    /// `cargo test`, where nextest can't be installed.
    CargoTest,
}

impl Runner {
    /// The best that this machine has now.
    pub(crate) fn of_this_machine() -> Self {
        let known = cargo()
            .args(["nextest", "--version"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match known {
            Ok(status) if status.success() => Self::Nextest,
            Ok(_) | Err(_) => Self::CargoTest,
        }
    }
}

/// Installs what is missing where that is possible, and says so; else says what to run.
pub(crate) fn ensure() -> Result<Runner, String> {
    let missing: Vec<&Tool> = TOOLS
        .iter()
        .chain(&CLIENTS)
        .filter(|tool| find(tool.program).is_none())
        .collect();
    if !missing.is_empty() {
        install(&missing)?;
    }
    npm_packages()?;
    if Runner::of_this_machine() == Runner::CargoTest {
        println!("==> cargo-nextest is missing; installing it with `cargo install`");
        if let Err(message) = run(cargo().args(["install", "cargo-nextest", "--locked", "--quiet"]))
        {
            println!("==> {message}; running the tests with `cargo test` instead");
        }
    }
    peers();
    Ok(Runner::of_this_machine())
}

/// Installs what is missing of the npm packages. Without a network, their tests say that they are
/// skipped.
fn npm_packages() -> Result<(), String> {
    let folder = workspace::target()?.join(NPM_FOLDER);
    let missing: Vec<&str> = NPM_PACKAGES
        .into_iter()
        .filter(|package| {
            let name = package.rsplit_once('@').map_or(*package, |(name, _)| name);
            !folder.join("node_modules").join(name).is_dir()
        })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("==> installing {} with npm", missing.join(", "));
    std::fs::create_dir_all(&folder)
        .map_err(|error| format!("{} can't be made: {error}", folder.display()))?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--prefix"])
        .arg(&folder)
        .args(&missing);
    if let Err(message) = run(&mut npm) {
        println!("==> {message}; the tests that drive these packages are skipped");
    }
    Ok(())
}

/// Programs by others that judge the log's formats: PyPI packages in an environment of their own,
/// pinned. They take a newer Python than some systems have, so their tests say that they did not run
/// where these can't be installed.
const PEERS: [&str; 2] = ["aics-tlog==0.2.1", "aics-witness==0.1.0"];
/// Oldest Python that runs them.
const PEER_PYTHON: (u32, u32) = (3, 12);

/// Installs the peers if that is possible.
fn peers() {
    let Ok(target) = workspace::target() else {
        return;
    };
    let folder = target.join("peers").join("tlog");
    if folder.join("bin").join("aics-witness").is_file() {
        return;
    }
    let Some(python) = peer_python() else {
        println!(
            "==> no Python of at least {}.{}: the log is not judged by others' programs",
            PEER_PYTHON.0, PEER_PYTHON.1
        );
        return;
    };
    println!("==> installing {} for the tests", PEERS.join(", "));
    let made = run(Command::new(&python).args(["-m", "venv"]).arg(&folder)).and_then(|()| {
        let pip = folder.join("bin").join("python");
        run(Command::new(pip)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args(PEERS))
    });
    if let Err(message) = made {
        println!("==> {message}; the log is not judged by others' programs");
    }
}

/// A Python that is new enough: on the search path, or one of pyenv's.
fn peer_python() -> Option<PathBuf> {
    let named = ["python3.14", "python3.13", "python3.12", "python3"];
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let pyenv = home.map(|home| home.join(".pyenv").join("versions"));
    let versions = pyenv
        .and_then(|folder| std::fs::read_dir(folder).ok())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin").join("python3"));
    let on_path = named.into_iter().filter_map(find);
    on_path
        .chain(versions)
        .find(|python| is_program(python) && is_new_enough(python))
}

fn is_new_enough(python: &Path) -> bool {
    let (major, minor) = PEER_PYTHON;
    Command::new(python)
        .args([
            "-c",
            &format!("import sys, venv; sys.exit(sys.version_info < ({major}, {minor}))"),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn install(missing: &[&Tool]) -> Result<(), String> {
    for tool in missing {
        println!(
            "==> {} is missing; it {} (package {})",
            tool.program, tool.purpose, tool.package
        );
    }
    let packages = packages(missing);
    let mut command = Command::new("apt-get");
    command
        .args(["install", "--yes", "--no-install-recommends"])
        .args(&packages)
        .env("DEBIAN_FRONTEND", "noninteractive");
    if find("apt-get").is_none() || !is_root() {
        return Err(format!(
            "install what is missing and try again; on Debian or Ubuntu: sudo {}",
            show(&command)
        ));
    }
    println!("==> installing {} with apt-get", packages.join(", "));
    run(Command::new("apt-get").args(["update", "--quiet"]))?;
    run(&mut command)?;
    match missing.iter().find(|tool| find(tool.program).is_none()) {
        None => Ok(()),
        Some(tool) => Err(format!(
            "{} is still missing after {} was installed",
            tool.program, tool.package
        )),
    }
}

fn packages(missing: &[&Tool]) -> Vec<&'static str> {
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// The program's place on the search path, or where Debian puts a server that is not on it.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let versions = std::fs::read_dir(POSTGRES_FOLDER).into_iter().flatten();
    let servers = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    std::env::split_paths(&path)
        .chain(servers)
        .map(|folder| folder.join(program))
        .find(|candidate| is_program(candidate))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_brings_two_programs_is_installed_once() {
        let all: Vec<&Tool> = TOOLS.iter().collect();
        let packages = packages(&all);
        let ssh = packages.iter().filter(|name| **name == "openssh-client");
        assert_eq!(ssh.count(), 1, "{packages:?}");
        assert!(packages.contains(&"python3"), "{packages:?}");
    }

    #[test]
    fn only_an_executable_file_counts_as_a_program() {
        assert!(find("sh").is_some());
        assert!(find("portcullis-no-such-program").is_none());
        assert!(!is_program(Path::new("/")));
        assert!(!is_program(Path::new(env!("CARGO_MANIFEST_PATH"))));
    }
}
